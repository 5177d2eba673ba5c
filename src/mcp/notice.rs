//! A server's answer with a notice of ours in it: that a person has changed the call which it answers.
//!
//! Used by `gate`, and only for calls that ran with other arguments than the client sent. Everything that the server said stays
//! as it was written; the notice is put where models read (the content of a tool's result, or the message of an error) and, in
//! machine words, where programs look (`_meta`).

use bytes::Bytes;

use super::{list::offset, message::META_DECISION};
use crate::jsonrpc::{
    Frame,
    id::quote,
    scan::{elements, members},
};

/// `answer` with `text` before what the server says, and with `decision`, a JSON object made by us, in its `_meta`: one line.
/// `None` for what has no place for it: neither a result that is an object nor an error with a message.
pub fn with_notice(answer: &Frame, text: &str, decision: &str) -> Option<Bytes> {
    let whole = answer.text();
    let mut inserts: Vec<(usize, String)> = Vec::new();
    if let Some(result) = answer.result() {
        if !result.starts_with('{') {
            return None;
        }
        let item = format!("{{\"type\":\"text\",\"text\":{}}}", quote(text));
        let content = last(result, "content").filter(|content| content.starts_with('['));
        if let Some(content) = content {
            inserts.push((after(whole, content), item + comma(elements(content).next().is_some())));
        }
        let decision = format!("\"{META_DECISION}\":{decision}");
        match last(result, "_meta") {
            Some(meta) if meta.starts_with('{') => {
                // Two members of one name are read in two ways. What a server says under ours is not ours.
                if last(meta, META_DECISION).is_none() {
                    inserts.push((after(whole, meta), decision + comma(members(meta).next().is_some())));
                } else if content.is_none() {
                    return None;
                }
            }
            Some(_) if content.is_none() => return None,
            Some(_) => {}
            None => {
                let meta = format!("\"_meta\":{{{decision}}}");
                inserts.push((after(whole, result), meta + comma(members(result).next().is_some())));
            }
        }
    } else {
        let message = last(answer.error()?, "message").filter(|message| message.starts_with('"'))?;
        let quoted = quote(text);
        inserts.push((after(whole, message), quoted.get(1..quoted.len() - 1)?.to_owned() + " "));
    }
    inserts.sort_by_key(|(at, _)| *at);
    let mut line = String::with_capacity(whole.len() + 512);
    let mut from = 0;
    for (at, insert) in inserts {
        line.push_str(whole.get(from..at)?);
        line.push_str(&insert);
        from = at;
    }
    line.push_str(whole.get(from..)?);
    line.push('\n');
    Some(line.into())
}

/// The value of the last member `name`: of a repeated one, most parsers keep that.
fn last<'a>(object: &'a str, name: &str) -> Option<&'a str> {
    members(object).filter(|(key, _)| key == name).last().map(|(_, value)| value)
}

/// Where in `whole` the first byte of `part`, a piece of it, has been read.
pub(super) fn after(whole: &str, part: &str) -> usize {
    offset(whole, part) + 1
}

pub(super) fn comma(more: bool) -> &'static str {
    if more { "," } else { "" }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(rest: &str) -> Option<String> {
        let line = format!("{{\"jsonrpc\":\"2.0\",\"id\":1,{rest}}}");
        let answer = Frame::from_server(Bytes::from(line)).unwrap();
        let told = with_notice(&answer, "Not \"yours\".", "{\"state\":\"edited\"}")?;
        let told = String::from_utf8(told.to_vec()).unwrap();
        let told = told.strip_prefix("{\"jsonrpc\":\"2.0\",\"id\":1,").unwrap().strip_suffix("}\n").unwrap();
        Some(told.to_owned())
    }

    #[test]
    fn a_result_says_it_first_and_keeps_every_byte_of_its_own() {
        const ITEM: &str = r#"{"type":"text","text":"Not \"yours\"."}"#;
        const DECISION: &str = r#""dev.holdshort/decision":{"state":"edited"}"#;
        for (result, expected) in [
            (
                r#"{"content": [ {"type":"text","text":"ok"} ],"isError":false}"#,
                format!(
                    r#"{{"_meta":{{{DECISION}}},"content": [{ITEM}, {{"type":"text","text":"ok"}} ],"isError":false}}"#
                ),
            ),
            (r#"{"content":[]}"#, format!(r#"{{"_meta":{{{DECISION}}},"content":[{ITEM}]}}"#)),
            (
                r#"{"structuredContent":{"content":[1]},"content":[],"_meta":{"a":1.0}}"#,
                format!(
                    r#"{{"structuredContent":{{"content":[1]}},"content":[{ITEM}],"_meta":{{{DECISION},"a":1.0}}}}"#
                ),
            ),
            (r#"{}"#, format!(r#"{{"_meta":{{{DECISION}}}}}"#)),
            (
                r#"{"task":{"taskId":"t"},"_meta":{}}"#,
                format!(r#"{{"task":{{"taskId":"t"}},"_meta":{{{DECISION}}}}}"#),
            ),
            // What a server says in our name is not made two.
            (
                r#"{"content":[],"_meta":{"dev.holdshort/decision":{}}}"#,
                format!(r#"{{"content":[{ITEM}],"_meta":{{"dev.holdshort/decision":{{}}}}}}"#),
            ),
        ] {
            assert_eq!(
                told(&format!("\"result\":{result}")),
                Some(format!("\"result\":{expected}")),
                "{result}"
            );
        }
    }

    #[test]
    fn an_error_says_it_in_its_message() {
        assert_eq!(
            told(r#""error":{"code":-32000,"message":"no\n","data":[1]}"#).as_deref(),
            Some(r#""error":{"code":-32000,"message":"Not \"yours\". no\n","data":[1]}"#)
        );
    }

    #[test]
    fn what_has_no_place_for_it_is_not_made_to_say_it() {
        for answer in [
            r#""result":[1]"#,
            r#""result":"ok""#,
            r#""result":{"_meta":{"dev.holdshort/decision":{}}}"#,
            r#""result":{"content":"text","_meta":7}"#,
            r#""error":{"code":1}"#,
            r#""error":"no""#,
        ] {
            assert_eq!(told(answer), None, "{answer}");
        }
    }
}
