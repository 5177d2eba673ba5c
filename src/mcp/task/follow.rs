//! Where a server's answer to a call leads on: to a task of the server's own, or to a question.
//!
//! Used by `gate` and the transports for calls that run as tasks of ours: the client knows our id, the server knows its own. What
//! goes over is the client's own request and the server's own answer with the one id in the place of the other.

use std::borrow::Cow;

use bytes::Bytes;

use super::{RELATED_TASK, offset, result_type, with_request_id};
use crate::{
    jsonrpc::{Frame, id::quote, scan::members},
    mcp::session::{member, string},
};

/// Where an answer leads on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeadsTo {
    /// To a task by this id.
    Task(String),
    /// To a question (2026-07-28).
    Question {
        /// The raw object of what is asked, if anything is.
        requests: Option<String>,
        /// The raw token of the state that the same call is to be made again with, if there is one.
        state: Option<String>,
    },
}

/// Where `result` leads on, the raw result of a `tools/call`. `None`: it is the tool's.
pub fn leads_to(result: &str) -> Option<LeadsTo> {
    let id = |task: &str| member(task, "taskId").and_then(string).map(|id| LeadsTo::Task(id.into_owned()));
    match result_type(result).as_deref() {
        Some("task") => id(result),
        Some("input_required") => Some(LeadsTo::Question {
            requests: member(result, "inputRequests")
                .filter(|value| value.starts_with('{'))
                .map(str::to_owned),
            state: member(result, "requestState").filter(|value| value.starts_with('"')).map(str::to_owned),
        }),
        Some(_) => None,
        // In 2025-11-25 the answer to a call that was asked for as a task has the task and no content.
        None if member(result, "content").is_none() => id(member(result, "task")?),
        None => None,
    }
}

/// `request`, of a client about a task of ours, about the server's task `theirs`. Everything else stays as it is.
pub fn same_about(request: &Frame, theirs: &str) -> Option<Bytes> {
    let task = member(request.params()?, "taskId")?;
    Some(Bytes::from(replaced(request.text(), &[(task, quote(theirs))])? + "\n"))
}

/// `answer`, of a server about a task of its own, about our task `ours`: one line. As it came where no task is named.
pub fn as_our_task(answer: &Frame, ours: &str) -> Option<Bytes> {
    let result = answer.result()?;
    let meta = member(result, "_meta").and_then(|meta| member(meta, RELATED_TASK));
    // In the order in which they stand does not matter: `replaced` sorts them.
    let objects = [Some(result), member(result, "task"), meta];
    let ids = objects.into_iter().flatten().filter_map(|object| member(object, "taskId"));
    let ids: Vec<(&str, String)> = ids.map(|id| (id, quote(ours))).collect();
    if ids.is_empty() {
        return None;
    }
    Some(Bytes::from(replaced(answer.text(), &ids)? + "\n"))
}

/// `call` made again under `id` with `answers` (a raw object) to what its server has asked, and with the `state` (a raw token) that
/// the server gave out. Those of an earlier question are left out.
pub fn continuation(call: &str, id: &str, answers: Option<&str>, state: Option<&str>) -> Option<String> {
    let call = with_request_id(call, id)?;
    let params = member(&call, "params").filter(|params| params.starts_with('{'))?;
    let kept = members(params).filter(|(key, _)| !matches!(&**key, "inputResponses" | "requestState"));
    let mut said: Vec<String> = kept.map(|(key, value)| format!("{}:{value}", quote(&key))).collect();
    said.extend(answers.map(|answers| format!("\"inputResponses\":{answers}")));
    said.extend(state.map(|state| format!("\"requestState\":{state}")));
    replaced(&call, &[(params, format!("{{{}}}", said.join(",")))])
}

/// The raw object of answers that `params` of `tasks/update` bring.
pub fn input_responses(params: &str) -> Option<&str> {
    member(params, "inputResponses").filter(|value| value.starts_with('{'))
}

/// How long the server keeps the task that `result` is about, in milliseconds. `None`: for ever, or it does not say.
pub fn task_ttl_ms(result: &str) -> Option<u64> {
    let ttl = member(result, "ttlMs").or_else(|| member(member(result, "task")?, "ttl"));
    ttl?.parse().ok()
}

/// `answer`, of a server about a task of its own, with the tool's result in it as `told` makes it: one line. `None` where it has none.
pub fn with_inner_result(answer: &Frame, told: impl Fn(&Frame) -> Bytes) -> Option<Bytes> {
    let result = answer.result()?;
    if member(result, "content").is_some() {
        return Some(told(answer));
    }
    let inner = member(result, "result").filter(|value| value.starts_with('{'))?;
    let alone = Bytes::from(format!("{{\"jsonrpc\":\"2.0\",\"id\":0,\"result\":{inner}}}"));
    let told = Frame::from_server(told(&Frame::from_server(alone).ok()?)).ok()?;
    Some(Bytes::from(replaced(answer.text(), &[(inner, told.result()?.to_owned())])? + "\n"))
}

/// `whole` with other texts in the place of some of its parts, none of which is in another.
fn replaced(whole: &str, parts: &[(&str, String)]) -> Option<String> {
    let mut parts: Vec<(usize, usize, Cow<'_, str>)> =
        parts.iter().map(|(part, by)| (offset(whole, part), part.len(), Cow::Borrowed(&**by))).collect();
    parts.sort_by_key(|(at, ..)| *at);
    let (mut text, mut from) = (String::with_capacity(whole.len() + 64), 0);
    for (at, length, by) in parts {
        text.push_str(whole.get(from..at)?);
        text.push_str(&by);
        from = at + length;
    }
    text.push_str(whole.get(from..)?);
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_leads_to_a_task_to_a_question_or_is_the_tools() {
        let task = Some(LeadsTo::Task("t-1".to_owned()));
        assert_eq!(leads_to(r#"{"resultType":"task","taskId":"t\u002d1","status":"working"}"#), task);
        assert_eq!(leads_to(r#"{"task":{"taskId":"t-1","status":"working"}}"#), task);
        let question = LeadsTo::Question {
            requests: Some(r#"{"a":{"method":"x"}}"#.to_owned()),
            state: Some("\"s\"".to_owned()),
        };
        assert_eq!(
            leads_to(
                r#"{"resultType":"input_required","inputRequests":{"a":{"method":"x"}},"requestState":"s"}"#
            ),
            Some(question)
        );
        for result in [
            r#"{"resultType":"complete","taskId":"t-1"}"#,
            r#"{"content":[],"task":{"taskId":"t-1"}}"#,
            r#"{"resultType":"task"}"#,
            "{}",
            "[]",
        ] {
            assert_eq!(leads_to(result), None, "{result}");
        }
    }

    #[test]
    fn ids_change_places_and_nothing_else_does() {
        let request = r#"{"jsonrpc":"2.0","id":7,"method":"tasks/get","params":{ "taskId" : "hs_1","_meta":{"taskId":"hs_1"}}}"#;
        let request = Frame::from_client(Bytes::from(request)).unwrap();
        assert_eq!(
            same_about(&request, "t\"1").unwrap(),
            "{\"jsonrpc\":\"2.0\",\"id\":7,\"method\":\"tasks/get\",\"params\":{ \"taskId\" : \"t\\\"1\",\"_meta\":{\"taskId\":\"hs_1\"}}}\n"
        );
        let answer = |result: &str| {
            let line = format!("{{\"jsonrpc\":\"2.0\",\"id\":7,\"result\":{result}}}");
            let told = as_our_task(&Frame::from_server(Bytes::from(line)).unwrap(), "hs_1")?;
            Some(String::from_utf8(told.to_vec()).unwrap())
        };
        for (result, expected) in [
            (
                r#"{"status":"working","taskId":"t-1","statusMessage":"t-1"}"#,
                r#"{"status":"working","taskId":"hs_1","statusMessage":"t-1"}"#,
            ),
            (
                r#"{"_meta":{"io.modelcontextprotocol/related-task":{"taskId":"t-1"}},"content":[]}"#,
                r#"{"_meta":{"io.modelcontextprotocol/related-task":{"taskId":"hs_1"}},"content":[]}"#,
            ),
        ] {
            assert_eq!(
                answer(result).unwrap(),
                format!("{{\"jsonrpc\":\"2.0\",\"id\":7,\"result\":{expected}}}\n")
            );
        }
        assert_eq!(answer(r#"{"content":[]}"#), None);
    }

    #[test]
    fn a_call_is_made_again_with_the_answers_to_the_last_question() {
        let call = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"x","requestState":"old","arguments":{"a":1.0},"inputResponses":{"o":1}}}"#;
        assert_eq!(
            continuation(call, "hs_2", Some(r#"{"n":{"action":"accept"}}"#), Some("\"new\"")).unwrap(),
            r#"{"jsonrpc":"2.0","id":"hs_2","method":"tools/call","params":{"name":"x","arguments":{"a":1.0},"inputResponses":{"n":{"action":"accept"}},"requestState":"new"}}"#
        );
        let plain = continuation(call, "hs_2", None, None).unwrap();
        assert!(!plain.contains("requestState") && !plain.contains("inputResponses"), "{plain}");
        assert_eq!(continuation("{\"id\":1}", "hs_2", None, None), None);
    }
}
