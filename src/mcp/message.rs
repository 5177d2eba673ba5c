//! The messages that we write ourselves, each one line.
//!
//! Used by `gate` to answer in a server's stead. Texts are escaped here; ids and tokens are copied as they came.

use bytes::Bytes;

use crate::jsonrpc::{RequestId, error::one_line, id::quote};

/// The key under which a refusal says in machine words what became of the call.
pub const META_DECISION: &str = "dev.holdshort/decision";

/// Which kind of results a client expects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Era {
    /// Revisions up to 2025-11-25.
    Legacy,
    /// 2026-07-28 and later: a result must say its `resultType`.
    Modern,
}

/// The answer to a call that did not run: a tool result with `isError`, whose text every client shows to its model.
/// `decision` is a JSON object made by us.
pub fn tool_refusal(id: &RequestId, era: Era, text: &str, decision: Option<&str>) -> Bytes {
    let result = error_result(era, text, decision);
    Bytes::from(format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":{result}}}\n"))
}

/// The result in it: a raw JSON object on one line.
pub fn error_result(era: Era, text: &str, decision: Option<&str>) -> String {
    let result_type = match era {
        Era::Legacy => "",
        Era::Modern => "\"resultType\":\"complete\",",
    };
    let meta = decision.map_or(String::new(), |decision| {
        format!(",\"_meta\":{{\"{META_DECISION}\":{}}}", one_line(decision))
    });
    let text = quote(text);
    format!("{{{result_type}\"content\":[{{\"type\":\"text\",\"text\":{text}}}],\"isError\":true{meta}}}")
}

/// A progress notification for the request that brought `token` (its raw JSON). `progress` is a decimal number, to be
/// larger each time.
pub fn progress_notification(token: &str, progress: &str, message: &str) -> Bytes {
    let message = quote(message);
    Bytes::from(format!(
        "{{\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\",\"params\":{{\"progressToken\":{token},\"progress\":{progress},\"message\":{message}}}}}\n"
    ))
}
