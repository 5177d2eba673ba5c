//! By what a call is recognised when it is made again, and a tool when it is listed again.
//!
//! Used by `gate`. Two calls are alike if they would do the same: what differs from attempt to attempt (ids, progress
//! tokens, traces) does not count, and neither does how the JSON is written.

use std::borrow::Cow;

use super::{
    call::MAX_TOOL_NAME_BYTES,
    mirror::{self, Mirrored},
    tool::Annotations,
};
use crate::{
    digest::Digest,
    jsonrpc::{
        Frame,
        canonical::canonical,
        scan::{elements, members, unescape},
    },
};

/// What these digests are of; a new word for every new form.
const FORM: &[u8] = b"holdshort-call/1\n";
const FORM_WITHOUT_ANSWERS: &[u8] = b"holdshort-call-without-answers/1\n";

/// The digest of what a request does: its method and the canonical form of its parameters, without `_meta` and `task`, which
/// say how it is to be answered. Absent arguments are empty ones. `None` for what is not a request.
pub fn call_sha256(frame: &Frame) -> Option<Digest> {
    sha256(FORM, frame, &["_meta", "task"])
}

/// The same without what a call is made again with because its server has asked something (2026-07-28): a call and its
/// continuations have one such digest.
pub fn call_without_answers_sha256(frame: &Frame) -> Option<Digest> {
    sha256(FORM_WITHOUT_ANSWERS, frame, &["_meta", "task", "requestState", "inputResponses"])
}

fn sha256(form: &[u8], frame: &Frame, left_out: &[&str]) -> Option<Digest> {
    let mut said: Vec<(Cow<'_, str>, &str)> =
        members(frame.params().unwrap_or("{}")).filter(|(key, _)| !left_out.contains(&&**key)).collect();
    if !said.iter().any(|(key, _)| key == "arguments") {
        said.push((Cow::Borrowed("arguments"), "{}"));
    }
    said.sort();
    let mut parts = vec![form.to_vec(), frame.method()?.as_bytes().to_vec()];
    for (key, value) in said {
        // The keys are strings without line ends once they are written as JSON, and so are the values.
        parts.push(format!("\n{}\n", crate::jsonrpc::id::quote(&key)).into_bytes());
        parts.push(canonical(value)?.into_bytes());
    }
    let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
    Some(Digest::of_parts(&parts))
}

/// A tool in a list.
#[derive(Clone, Debug)]
pub struct ToolDefinition<'a> {
    /// Its name.
    pub name: Cow<'a, str>,
    /// All that is said of it, in the canonical form; as it was written where it is nested too deep to have one.
    pub text: String,
    /// Whether it is nested too deep.
    pub is_deep: bool,
    /// Its hints.
    pub annotations: Annotations,
    /// Its arguments that clients repeat in headers.
    pub mirrored: Vec<Mirrored>,
}

/// The tools in the `result` of `tools/list`, in order. Those without a name, or with one that no call can have, are left out.
/// Of keys that are there twice the last counts, as it does for the clients.
pub fn tool_definitions(result: &str) -> Vec<ToolDefinition<'_>> {
    let tools = members(result).filter(|(key, _)| key == "tools").last().map_or("", |(_, tools)| tools);
    let definition = |tool| {
        let name = tool_name(tool).filter(|name| name.len() <= MAX_TOOL_NAME_BYTES)?;
        let hints = members(tool).filter(|(key, _)| key == "annotations").last();
        let annotations = hints.map_or_else(Annotations::default, |(_, hints)| Annotations::parse(hints));
        let form = canonical(tool);
        let is_deep = form.is_none();
        let mirrored = mirror::mirrored(tool);
        Some(ToolDefinition {
            name,
            text: form.unwrap_or_else(|| tool.to_owned()),
            is_deep,
            annotations,
            mirrored,
        })
    };
    elements(tools).filter_map(definition).collect()
}

/// The name of a tool in a list.
fn tool_name(tool: &str) -> Option<Cow<'_, str>> {
    let (_, name) = members(tool).filter(|(key, _)| key == "name").last()?;
    name.starts_with('"').then(|| unescape(name))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn digest(rest: &str) -> Option<Digest> {
        call_sha256(&Frame::from_client(Bytes::from(format!("{{\"jsonrpc\":\"2.0\",{rest}}}"))).unwrap())
    }

    #[test]
    fn a_call_is_recognised_by_what_it_does() {
        let first =
            digest(r#""id":1,"method":"tools/call","params":{"name":"x","arguments":{"a":1,"b":"é"}}"#);
        for same in [
            r#""id":"z","method":"tools/call","params":{"arguments":{"b":"\u00e9" , "a":1},"name":"\u0078"}"#,
            r#""id":2,"method":"tools/call","params":{"name":"x","_meta":{"progressToken":9},"task":{"ttl":5},"arguments":{"a":1,"b":"é"}}"#,
        ] {
            assert_eq!(digest(same), first, "{same}");
        }
        for other in [
            r#""id":1,"method":"tools/call","params":{"name":"X","arguments":{"a":1,"b":"é"}}"#,
            r#""id":1,"method":"tools/call","params":{"name":"x","arguments":{"a":1.0,"b":"é"}}"#,
            r#""id":1,"method":"tools/call","params":{"name":"x","arguments":{"a":1}}"#,
            r#""id":1,"method":"tools/call","params":{"name":"x","arguments":{"a":1,"b":"é"},"requestState":"s"}"#,
            r#""id":1,"method":"tools/call","params":{"name":"x","arguments":{"a":1,"b":"é"},"inputResponses":{}}"#,
            r#""id":1,"method":"tools/list","params":{"name":"x","arguments":{"a":1,"b":"é"}}"#,
        ] {
            assert_ne!(digest(other), first, "{other}");
        }
        let none = r#""id":1,"method":"tools/call","params":{"name":"x"}"#;
        let empty = r#""id":1,"method":"tools/call","params":{"name":"x","arguments":{}}"#;
        assert_eq!(digest(none), digest(empty));
    }

    #[test]
    fn a_tool_is_another_one_when_anything_of_it_is_said_otherwise() {
        let of = |tool: &str| {
            let list = format!("{{\"tools\":[{tool},{{\"title\":\"no name\"}}]}}");
            let found = tool_definitions(&list);
            found.into_iter().map(|tool| (tool.name.into_owned(), tool.text)).collect::<Vec<_>>()
        };
        let first = of(r#"{"name":"x","description":"Reads.","inputSchema":{"type":"object"}}"#);
        assert_eq!(first.len(), 1);
        assert_eq!(first[0].0, "x");
        assert_eq!(of(r#"{"inputSchema": {"type":"object"},"description":"Reads\u002e","name":"x"}"#), first);
        assert_ne!(of(r#"{"name":"x","description":"Writes.","inputSchema":{"type":"object"}}"#), first);
    }
}
