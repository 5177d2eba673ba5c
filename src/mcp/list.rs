//! A server's list of tools with some of them left out.
//!
//! Used by `gate`, and only where the policy says `hide_denied_tools`: everywhere else a list passes as it came. What is kept
//! stays as it was written, byte for byte.

use std::borrow::Cow;

use bytes::Bytes;

use crate::jsonrpc::{
    Frame,
    scan::{elements, members, unescape},
};

/// `answer`, the response to a `tools/list`, without the tools whose name `is_left_out`: one line. `None` if it has none of
/// them, or is no list. A name that is there twice is left out if either is.
pub fn without_tools(answer: &Frame, is_left_out: impl Fn(&str) -> bool) -> Option<Bytes> {
    let whole = answer.text();
    let (mut line, mut from) = (String::new(), 0);
    for (_, tools) in members(answer.result()?).filter(|(key, _)| key == "tools") {
        let is_kept = |tool: &&str| !names(tool).any(|name| is_left_out(&name));
        let kept: Vec<&str> = elements(tools).filter(is_kept).collect();
        if kept.len() == elements(tools).count() {
            continue;
        }
        let at = offset(whole, tools);
        line.push_str(whole.get(from..at)?);
        line.push('[');
        line.push_str(&kept.join(","));
        line.push(']');
        from = at + tools.len();
    }
    if from == 0 {
        return None;
    }
    line.push_str(whole.get(from..)?);
    line.push('\n');
    Some(line.into())
}

fn names(tool: &str) -> impl Iterator<Item = Cow<'_, str>> {
    let names = members(tool).filter(|(key, value)| key == "name" && value.starts_with('"'));
    names.map(|(_, name)| unescape(name))
}

/// Where `part`, a piece of `whole`, begins in it.
pub(super) fn offset(whole: &str, part: &str) -> usize {
    (part.as_ptr() as usize).saturating_sub(whole.as_ptr() as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn without_secret(result: &str) -> Option<String> {
        let line = format!("{{\"id\":1, \"jsonrpc\":\"2.0\",\"result\":{result}}}");
        let answer = Frame::from_server(Bytes::from(line)).unwrap();
        let kept = without_tools(&answer, |name| name == "secret")?;
        let kept = String::from_utf8(kept.to_vec()).unwrap();
        let kept = kept.strip_prefix("{\"id\":1, \"jsonrpc\":\"2.0\",\"result\":").unwrap();
        Some(kept.strip_suffix("}\n").unwrap().to_owned())
    }

    #[test]
    fn what_is_left_out_is_gone_and_the_rest_is_as_it_was_written() {
        for (result, kept) in [
            (
                r#"{ "nextCursor":"2","tools":[ {"name":"a", "x":1.0} , {"name":"secret"},{"name":"b"}],"_meta":{} }"#,
                r#"{ "nextCursor":"2","tools":[{"name":"a", "x":1.0},{"name":"b"}],"_meta":{} }"#,
            ),
            (r#"{"tools":[{"name":"s\u0065cret"}]}"#, r#"{"tools":[]}"#),
            (r#"{"tools":[{"name":"secret","name":"b"},{"name":"b","name":"secret"}]}"#, r#"{"tools":[]}"#),
            (
                r#"{"tools":[{"name":"secret"}],"tools":[{"name":"b"},{"name":"secret"}]}"#,
                r#"{"tools":[],"tools":[{"name":"b"}]}"#,
            ),
        ] {
            assert_eq!(without_secret(result).as_deref(), Some(kept), "{result}");
        }
    }

    #[test]
    fn a_list_without_such_a_tool_and_what_is_no_list_are_left_alone() {
        for result in [
            r#"{"tools":[{"name":"a","description":"secret"},{"title":"secret"},{"name":["secret"]}]}"#,
            r#"{"tools":{"name":"secret"}}"#,
            r#"{"content":[{"name":"secret"}]}"#,
            r#"{"tools":[]}"#,
            "[]",
            "null",
        ] {
            assert_eq!(without_secret(result), None, "{result}");
        }
    }
}
