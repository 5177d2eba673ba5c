//! What we read of the Model Context Protocol, and the few messages that we write.
//!
//! Used by `gate` (which calls are there, what they ask) and by the transports. Reads only frames that the scanner has
//! passed; takes values as raw JSON text, so that what is judged is what is sent. Knows no session and decides nothing.

mod asking;
mod call;
mod likeness;
mod mirror;
mod list;
mod message;
mod notice;
mod session;
mod task;
mod tool;
mod trace;

pub use asking::{
    Elicited, cancelled_notification, come_back, declares_elicitation, elicitation_request, result_response,
    without_answers, without_task,
};
pub use call::{CallError, MAX_REQUEST_STATE_BYTES, MAX_TOOL_NAME_BYTES, ToolCall, input_required};
pub use likeness::{ToolDefinition, call_sha256, call_without_answers_sha256, tool_definitions};
pub use list::without_tools;
pub use message::{Era, META_DECISION, error_result, progress_notification, tool_refusal};
pub use mirror::{MIRROR_PREFIX, Mirrored};
pub use notice::with_notice;
pub use session::{Cancelled, Initialize, Peer, Progress, declared_version, declares_version, subscription};
pub use task::{
    LeadsTo, Progressed, TASKS_EXTENSION, Task, TaskRequest, TaskVerb, as_our_task, continuation, cursor,
    input_responses, leads_to, offering_tasks, offering_tasks_2025, our_hold, result_of_task, same_about,
    server_has_tasks, task_heard, task_id, task_ttl_ms, told_all, with_inner_result, with_request_id,
    with_task_support,
};
pub use tool::Annotations;
pub use trace::{error_code, is_error_result, trace_parent};

use std::borrow::Cow;

use crate::sanitize;

/// The methods that we know by name.
pub mod method {
    /// Runs a tool: what this program is about.
    pub const TOOLS_CALL: &str = "tools/call";
    /// Lists the tools.
    pub const TOOLS_LIST: &str = "tools/list";
    /// Begins a session (revisions up to 2025-11-25).
    pub const INITIALIZE: &str = "initialize";
    /// Ends the beginning of a session.
    pub const INITIALIZED: &str = "notifications/initialized";
    /// Asks what the server offers (2026-07-28).
    pub const SERVER_DISCOVER: &str = "server/discover";
    /// Asks for news, as an answer that stays open (2026-07-28).
    pub const SUBSCRIPTIONS_LISTEN: &str = "subscriptions/listen";
    /// Asks how far a task is (the tasks extension of 2026-07-28, and 2025-11-25).
    pub const TASKS_GET: &str = "tasks/get";
    /// Asks for the result of a task, and waits for it (2025-11-25).
    pub const TASKS_RESULT: &str = "tasks/result";
    /// Asks for all tasks (2025-11-25).
    pub const TASKS_LIST: &str = "tasks/list";
    /// Asks that a task end.
    pub const TASKS_CANCEL: &str = "tasks/cancel";
    /// Brings what a task has asked for.
    pub const TASKS_UPDATE: &str = "tasks/update";
    /// Asks whether the peer is there.
    pub const PING: &str = "ping";
    /// Withdraws a request.
    pub const CANCELLED: &str = "notifications/cancelled";
    /// Tells how far a request is.
    pub const PROGRESS: &str = "notifications/progress";
    /// The server's list of tools has changed.
    pub const TOOLS_LIST_CHANGED: &str = "notifications/tools/list_changed";
}

/// The only protocol version with batches.
pub const VERSION_WITH_BATCHES: &str = "2025-03-26";

/// The only protocol version in which a client asks for a task in the parameters of its call.
pub const VERSION_WITH_TASKS: &str = "2025-11-25";

/// Whether `method` is not `gated`, but some server may take it for it: other case, white space or control characters,
/// doubled or turned slashes, percent-encoding, compatibility characters such as `ſ` and `K`.
pub fn looks_like(method: &str, gated: &str) -> bool {
    method != gated && fold_method(method) == fold_method(gated)
}

/// The method that a careless server may take `method` for.
pub fn fold_method(method: &str) -> String {
    // Twice, because a router may decode what a client has encoded twice (`%252F`).
    let decoded = percent_decode(&percent_decode(method)).into_owned();
    let folded = sanitize::fold(&decoded);
    let parts: Vec<&str> = folded.split(['/', '\\']).map(str::trim).filter(|part| !part.is_empty()).collect();
    parts.join("/")
}

fn percent_decode(text: &str) -> Cow<'_, str> {
    if !text.contains('%') {
        return Cow::Borrowed(text);
    }
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let escape = (*first == b'%').then(|| after.first_chunk::<2>()).flatten().and_then(|pair| {
            let digit = |byte: u8| char::from(byte).to_digit(16);
            u8::try_from(digit(pair[0])? * 16 + digit(pair[1])?).ok()
        });
        decoded.push(escape.unwrap_or(*first));
        rest = if escape.is_some() { &after[2..] } else { after };
    }
    Cow::Owned(String::from_utf8_lossy(&decoded).into_owned())
}

#[cfg(test)]
mod tests;
