//! Tasks: what clients ask of one, and how it is told. There are two kinds: those of the extension
//! `io.modelcontextprotocol/tasks` (2026-07-28, SEP-2663), and those of the revision 2025-11-25, which a client asks for.
//!
//! Used by `gate`, whose held calls are the tasks, and by the transports, which recognise requests about them. Knows no hold's
//! state and decides nothing. What a server says of tasks of its own is in `follow`.

mod follow;
mod legacy;

use std::{borrow::Cow, fmt};

pub use self::follow::{
    LeadsTo, as_our_task, continuation, input_responses, leads_to, same_about, task_ttl_ms, with_inner_result,
};
use self::legacy::RELATED_TASK;
pub use self::legacy::{
    cursor, offering_tasks_2025, result_of_task, server_has_tasks, told_all, with_task_support,
};

use bytes::Bytes;
use jiff::Timestamp;

use super::{
    call::META_CLIENT_CAPABILITIES,
    list::offset,
    message::Era,
    method,
    notice::{after, comma},
    session::{declares_version, member, string},
};
use crate::jsonrpc::{
    Frame, RequestId,
    error::one_line,
    id::quote,
    scan::{Param, members},
};

/// The name of the extension, as clients declare it and servers offer it.
pub const TASKS_EXTENSION: &str = "io.modelcontextprotocol/tasks";

/// What the ids of our tasks begin with; all others are the server's.
const OURS: &str = "hs_";

/// How often a client is to ask, in milliseconds.
const POLL_EVERY_MS: u32 = 2000;

/// What is asked about a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskVerb {
    /// How far it is, and its result.
    Get,
    /// Its result, once there is one (2025-11-25).
    Result,
    /// That it end.
    Cancel,
    /// That it go on with what it asked for (2026-07-28).
    Update,
    /// Which tasks there are (2025-11-25).
    List,
}

/// A request about one of our tasks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskRequest {
    /// What is asked.
    pub verb: TaskVerb,
    /// The id of the hold that the task stands for, as the client writes it; empty where it asks for all of them.
    pub hold: String,
    /// Of which kind the task is, by the request.
    pub era: Era,
    /// Whether the request declares the extension.
    pub declares_tasks: bool,
}

impl TaskRequest {
    /// Reads a request's frame. `None` for everything that is not about one of our tasks.
    pub fn parse(frame: &Frame) -> Option<Self> {
        let method = frame.method()?;
        if !method.starts_with("tasks/") {
            return None;
        }
        let era = if declares_version(frame) { Era::Modern } else { Era::Legacy };
        let verb = match (method, era) {
            (method::TASKS_GET, _) => TaskVerb::Get,
            (method::TASKS_CANCEL, _) => TaskVerb::Cancel,
            (method::TASKS_UPDATE, Era::Modern) => TaskVerb::Update,
            (method::TASKS_RESULT, Era::Legacy) => TaskVerb::Result,
            (method::TASKS_LIST, Era::Legacy) => {
                return Some(Self { verb: TaskVerb::List, hold: String::new(), era, declares_tasks: false });
            }
            _ => return None,
        };
        let id = string(member(frame.params()?, "taskId")?)?;
        let hold = our_hold(&id)?.to_owned();
        let declares_tasks = frame
            .param(Param::Meta)
            .is_some_and(|meta| member(meta, META_CLIENT_CAPABILITIES).is_some_and(declares_tasks));
        Some(Self { verb, hold, era, declares_tasks })
    }

    /// Whether the request is of a revision whose tasks have to be declared, and does not do so.
    pub fn lacks_capability(&self) -> bool {
        self.era == Era::Modern && !self.declares_tasks
    }
}

/// Whether a client's capabilities (their raw object) have the extension.
pub(super) fn declares_tasks(capabilities: &str) -> bool {
    let extensions = member(capabilities, "extensions").unwrap_or_default();
    member(extensions, TASKS_EXTENSION).is_some_and(|tasks| tasks.starts_with('{'))
}

/// The id by which a client knows the task of `hold`; also that of the request which brings its call to the server.
pub fn task_id(hold: impl fmt::Display) -> String {
    format!("{OURS}{hold}")
}

/// The hold, as it is written, for which the task `id` stands. `None` for tasks of the server's.
pub fn our_hold(id: &str) -> Option<&str> {
    id.strip_prefix(OURS)
}

/// A task as its client is told of it.
#[derive(Clone, Debug)]
pub struct Task {
    /// Its [`task_id`].
    pub id: String,
    /// Of which kind it is.
    pub era: Era,
    /// When it was held.
    pub created_at: Timestamp,
    /// When it was last moved on.
    pub updated_at: Timestamp,
    /// How long it is known, from its creation, in milliseconds.
    pub ttl_ms: u64,
}

/// How far a task is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progressed {
    /// It waits or runs; for people to read.
    Working(String),
    /// The server has asked something: the raw object of its requests (2026-07-28).
    InputRequired(String),
    /// It has a result: the raw object.
    Completed(String),
    /// It did not run, or nobody can say what became of it: a result of ours that says so, the raw object.
    Refused(String),
    /// It has failed: the raw JSON-RPC error.
    Failed(String),
    /// It was taken back.
    Cancelled(String),
}

impl Task {
    /// The answer to the call `id` that has become this task. `message` is for people.
    pub fn created(&self, id: &RequestId, message: &str) -> Bytes {
        let working = Progressed::Working(message.to_owned());
        match self.era {
            Era::Modern => self.answer(id, "task", &working),
            Era::Legacy => {
                let (task, message) = (self.legacy_members(&working), quote(message));
                let meta = format!("{{\"{}\":{message}}}", legacy::IMMEDIATE_RESPONSE);
                Bytes::from(format!(
                    "{{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":{{\"task\":{{{task}}},\"_meta\":{meta}}}}}\n"
                ))
            }
        }
    }

    /// The answer to `tasks/get`, and in 2025-11-25 to `tasks/cancel`.
    pub fn told(&self, id: &RequestId, progressed: &Progressed) -> Bytes {
        match self.era {
            Era::Modern => self.answer(id, "complete", progressed),
            Era::Legacy => {
                let task = self.legacy_members(progressed);
                Bytes::from(format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":{{{task}}}}}\n"))
            }
        }
    }

    fn answer(&self, id: &RequestId, result_type: &str, progressed: &Progressed) -> Bytes {
        let (status, message, more) = match progressed {
            Progressed::Working(message) => ("working", Some(message), String::new()),
            Progressed::Cancelled(message) => ("cancelled", Some(message), String::new()),
            Progressed::InputRequired(requests) => {
                ("input_required", None, format!(",\"inputRequests\":{}", one_line(requests)))
            }
            Progressed::Completed(result) | Progressed::Refused(result) => {
                ("completed", None, format!(",\"result\":{}", one_line(result)))
            }
            Progressed::Failed(error) => ("failed", None, format!(",\"error\":{}", one_line(error))),
        };
        let message = message.map(|text| format!(",\"statusMessage\":{}", quote(text))).unwrap_or_default();
        let (task, ttl) = (&self.id, self.ttl_ms);
        let (created, updated) = (self.created_at, self.updated_at);
        Bytes::from(format!(
            "{{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":{{\"resultType\":\"{result_type}\",\"taskId\":\"{task}\",\
             \"status\":\"{status}\"{message},\"createdAt\":\"{created:.3}\",\"lastUpdatedAt\":\"{updated:.3}\",\
             \"ttlMs\":{ttl},\"pollIntervalMs\":{POLL_EVERY_MS}{more}}}}}\n"
        ))
    }
}

/// The answer to `tasks/cancel` and `tasks/update`: heard.
pub fn task_heard(id: &RequestId) -> Bytes {
    Bytes::from(format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":{{\"resultType\":\"complete\"}}}}\n"))
}

/// The answer to `server/discover` with the extension among what the server offers, as one line. `None` where it is there
/// already, or has no place.
pub fn offering_tasks(answer: &Frame) -> Option<Bytes> {
    let whole = answer.text();
    let capabilities = member(answer.result()?, "capabilities").filter(|value| value.starts_with('{'))?;
    let (place, insert) = match member(capabilities, "extensions") {
        None => (capabilities, format!("\"extensions\":{{\"{TASKS_EXTENSION}\":{{}}}}")),
        Some(extensions) if !extensions.starts_with('{') => return None,
        Some(extensions) if member(extensions, TASKS_EXTENSION).is_some() => return None,
        Some(extensions) => (extensions, format!("\"{TASKS_EXTENSION}\":{{}}")),
    };
    let (before, rest) = whole.split_at_checked(after(whole, place))?;
    let comma = comma(members(place).next().is_some());
    Some(Bytes::from(format!("{before}{insert}{comma}{rest}\n")))
}

/// What kind of result a server has given, where it says so (2026-07-28).
fn result_type(result: &str) -> Option<Cow<'_, str>> {
    string(member(result, "resultType")?)
}

/// The same request under the id `id`; everything else stays as it is. `None` for a text that is not an object with an id.
pub fn with_request_id(request: &str, id: &str) -> Option<String> {
    let (_, value) = members(request).filter(|(key, _)| key == "id").last()?;
    let start = offset(request, value);
    let (before, rest) = (request.get(..start)?, request.get(start + value.len()..)?);
    Some(format!("{before}{}{rest}", quote(id)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offered(result: &str) -> Option<String> {
        let line = format!("{{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{result}}}");
        let told = offering_tasks(&Frame::from_server(Bytes::from(line)).unwrap())?;
        let told = String::from_utf8(told.to_vec()).unwrap();
        let told = told.strip_prefix("{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":").unwrap();
        Some(told.strip_suffix("}\n").unwrap().to_owned())
    }

    #[test]
    fn tasks_are_offered_beside_what_the_server_offers() {
        const TASKS: &str = r#""io.modelcontextprotocol/tasks":{}"#;
        for (result, expected) in [
            (r#"{"capabilities":{}}"#, format!(r#"{{"capabilities":{{"extensions":{{{TASKS}}}}}}}"#)),
            (
                r#"{"capabilities": { "tools":{} },"x":1.0}"#,
                format!(r#"{{"capabilities": {{"extensions":{{{TASKS}}}, "tools":{{}} }},"x":1.0}}"#),
            ),
            (
                r#"{"capabilities":{"extensions":{"a/b":{}}}}"#,
                format!(r#"{{"capabilities":{{"extensions":{{{TASKS},"a/b":{{}}}}}}}}"#),
            ),
        ] {
            assert_eq!(offered(result).as_deref(), Some(&*expected));
        }
        for result in [
            r#"{"capabilities":{"extensions":{"io.modelcontextprotocol/tasks":{"own":1}}}}"#,
            r#"{"capabilities":{"extensions":[]}}"#,
            r#"{"capabilities":null}"#,
            r#"{}"#,
            r#"[]"#,
        ] {
            assert_eq!(offered(result), None, "{result}");
        }
    }

    #[test]
    fn only_the_id_of_a_request_changes() {
        let request = r#"{ "params":{"id":1,"a":"\u00e4"},"id" : "x\"" ,"jsonrpc":"2.0"}"#;
        let expected = r#"{ "params":{"id":1,"a":"\u00e4"},"id" : "hs_1" ,"jsonrpc":"2.0"}"#;
        assert_eq!(with_request_id(request, "hs_1").as_deref(), Some(expected));
        assert_eq!(with_request_id(r#"{"params":{"id":1}}"#, "hs_1"), None);
    }
}
