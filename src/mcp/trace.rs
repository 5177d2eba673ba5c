//! What of a message says something to those who watch: the trace that it belongs to, and whether an answer is an error.
//!
//! Used by `gate` for its spans. Reads, and writes nothing into a message.

use std::borrow::Cow;

use crate::jsonrpc::{
    Frame,
    scan::{Param, members, unescape},
};

/// The `traceparent` of a request's `_meta`, decoded, with the `tracestate` beside it (MCP, SEP-414).
pub fn trace_parent(frame: &Frame) -> Option<(Cow<'_, str>, Option<Cow<'_, str>>)> {
    let meta = frame.param(Param::Meta).filter(|meta| meta.starts_with('{'))?;
    let text = |key: &str| {
        let (_, value) = members(meta).find(|(name, value)| name == key && value.starts_with('"'))?;
        Some(unescape(value))
    };
    Some((text("traceparent")?, text("tracestate")))
}

/// The code of a response's `error`, as it is written.
pub fn error_code(error: &str) -> Option<&str> {
    members(error).find(|(name, _)| name == "code").map(|(_, code)| code)
}

/// Whether the `result` of a call says that the tool has failed.
pub fn is_error_result(result: &str) -> bool {
    result.starts_with('{') && members(result).any(|(name, value)| name == "isError" && value == "true")
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn a_message_names_its_trace_in_its_meta() {
        let parent = |meta: &str| {
            let text = format!(
                r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"x","_meta":{meta}}}}}"#
            );
            let frame = Frame::from_client(Bytes::from(text)).unwrap();
            trace_parent(&frame).map(|(parent, state)| (parent.into_owned(), state.map(Cow::into_owned)))
        };
        assert_eq!(
            parent(r#"{"traceparent":"0\u0030-a","tracestate":"b=c"}"#),
            Some(("00-a".into(), Some("b=c".into())))
        );
        assert_eq!(parent(r#"{"traceparent":"00-a","tracestate":7}"#), Some(("00-a".into(), None)));
        for none in ["{}", r#"{"traceparent":null}"#, r#"{"tracestate":"b=c"}"#] {
            assert_eq!(parent(none), None, "{none}");
        }
    }

    #[test]
    fn errors_are_told_from_results() {
        assert_eq!(error_code(r#"{"code":-32602,"message":"no"}"#), Some("-32602"));
        assert!(is_error_result(r#"{"content":[],"isError":true}"#));
        for fine in [r#"{"isError":false}"#, r#"{"content":[{"isError":true}]}"#, "{}", "null"] {
            assert!(!is_error_result(fine), "{fine}");
        }
    }
}
