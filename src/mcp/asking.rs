//! What we ask clients ourselves: to make a call again with a state, and to ask their own user (elicitation, in both eras).
//!
//! Used by `gate`, which words the questions and judges the answers. A call that comes back with an answer is read without it: what
//! the server gets is the call. Knows no hold and decides nothing.

use bytes::Bytes;

use super::session::{member, string};
use crate::jsonrpc::{Frame, RequestId, error::one_line, id::quote, scan::members};

/// Under which key we ask a question in an answer (2026-07-28).
const OUR_QUESTION: &str = "holdshort";

/// What the user of the client is asked to fill in.
const FORM: &str = "{\"type\":\"object\",\"properties\":{\"decision\":{\"type\":\"string\",\"title\":\"Decision\",\"enum\":[\"approve\",\"reject\"]},\"reason\":{\"type\":\"string\",\"title\":\"Reason\",\"description\":\"What the agent is told, if you reject.\"}},\"required\":[\"decision\"]}";

/// What the user of a client has answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Elicited {
    /// Yes.
    Approve,
    /// No, with this reason if there is one.
    Reject(Option<String>),
    /// Nothing.
    Nothing,
}

impl Elicited {
    /// Reads the raw result of `elicitation/create`. What is not clearly a yes or a no is nothing.
    pub fn parse(result: &str) -> Self {
        let action = member(result, "action").and_then(string);
        let content = member(result, "content").unwrap_or_default();
        let reason = member(content, "reason").and_then(string).map(|reason| reason.into_owned());
        match (action.as_deref(), member(content, "decision").and_then(string).as_deref()) {
            (Some("accept"), Some("approve")) => Self::Approve,
            (Some("accept"), Some("reject")) => Self::Reject(reason),
            (Some("decline"), _) => Self::Reject(None),
            _ => Self::Nothing,
        }
    }

    /// The same of the raw `inputResponses` that a call brings back.
    pub fn in_responses(responses: &str) -> Self {
        member(responses, OUR_QUESTION).map_or(Self::Nothing, Self::parse)
    }
}

/// Whether a client's capabilities (their raw object) have elicitation by forms.
pub fn declares_elicitation(capabilities: &str) -> bool {
    let declared = member(capabilities, "elicitation").filter(|value| value.starts_with('{'));
    declared.is_some_and(|kinds| members(kinds).next().is_none() || member(kinds, "form").is_some())
}

/// The answer to the call `id` that has it made again with `state` (2026-07-28), and with an answer to `message` if there is one: the
/// raw result.
pub fn come_back(state: &str, message: Option<&str>) -> String {
    let requests = message.map(|message| {
        let message = quote(message);
        format!(
            ",\"inputRequests\":{{\"{OUR_QUESTION}\":{{\"method\":\"elicitation/create\",\"params\":{{\"mode\":\"form\",\"message\":{message},\
             \"requestedSchema\":{FORM}}}}}}}"
        )
    });
    let (state, requests) = (quote(state), requests.unwrap_or_default());
    format!("{{\"resultType\":\"input_required\"{requests},\"requestState\":{state}}}")
}

/// The answer `id` with the raw object `result`.
pub fn result_response(id: &RequestId, result: &str) -> Bytes {
    Bytes::from(format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":{}}}\n", one_line(result)))
}

/// The request `id` that asks the client's user (up to 2025-11-25).
pub fn elicitation_request(id: &RequestId, message: &str) -> Bytes {
    let message = quote(message);
    Bytes::from(format!(
        "{{\"jsonrpc\":\"2.0\",\"id\":{id},\"method\":\"elicitation/create\",\"params\":{{\"message\":{message},\"requestedSchema\":{FORM}}}}}\n"
    ))
}

/// The notification that takes the request `id` back.
pub fn cancelled_notification(id: &RequestId) -> Bytes {
    Bytes::from(format!(
        "{{\"jsonrpc\":\"2.0\",\"method\":\"{}\",\"params\":{{\"requestId\":{id},\"reason\":\"it was decided elsewhere\"}}}}\n",
        super::method::CANCELLED
    ))
}

/// `call` without the state and the answers with which it comes back. `None` for what has no parameters.
pub fn without_answers(call: &Frame) -> Option<Bytes> {
    without(call, &["inputResponses", "requestState"])
}

/// `call` without asking for a task (2025-11-25): some servers that have none refuse such a call instead of leaving that aside, as the
/// revision wants it.
pub fn without_task(call: &Frame) -> Option<Bytes> {
    without(call, &["task"])
}

fn without(call: &Frame, names: &[&str]) -> Option<Bytes> {
    let (whole, params) = (call.text(), call.params()?);
    let kept = members(params).filter(|(key, _)| !names.contains(&&**key));
    let kept: Vec<String> = kept.map(|(key, value)| format!("{}:{value}", quote(&key))).collect();
    let start = super::list::offset(whole, params);
    let (before, after) = (whole.get(..start)?, whole.get(start + params.len()..)?);
    Some(Bytes::from(format!("{before}{{{}}}{after}", kept.join(","))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_clear_yes_is_one() {
        for (answer, expected) in [
            (r#"{"action":"accept","content":{"decision":"approve"}}"#, Elicited::Approve),
            (
                r#"{"action":"accept","content":{"decision":"reject","reason":"no"}}"#,
                Elicited::Reject(Some("no".to_owned())),
            ),
            (r#"{"action":"decline","content":{"decision":"approve"}}"#, Elicited::Reject(None)),
            (r#"{"action":"cancel"}"#, Elicited::Nothing),
            (r#"{"action":"accept","content":{}}"#, Elicited::Nothing),
            (r#"{"action":"accept","content":{"decision":"APPROVE"}}"#, Elicited::Nothing),
            (r#"{"action":"accept","content":{"decision":true}}"#, Elicited::Nothing),
            (r#"{"content":{"decision":"approve"}}"#, Elicited::Nothing),
            ("7", Elicited::Nothing),
        ] {
            assert_eq!(Elicited::parse(answer), expected, "{answer}");
            let responses = format!("{{\"other\":{{\"action\":\"accept\"}},\"holdshort\":{answer}}}");
            assert_eq!(Elicited::in_responses(&responses), expected);
        }
        assert_eq!(Elicited::in_responses(r#"{"a":{"action":"accept"}}"#), Elicited::Nothing);
    }

    #[test]
    fn a_client_with_urls_alone_is_not_asked() {
        for (capabilities, declared) in [
            (r#"{"elicitation":{}}"#, true),
            (r#"{"elicitation":{"form":{},"url":{}}}"#, true),
            (r#"{"elicitation":{"url":{}}}"#, false),
            (r#"{"elicitation":true}"#, false),
            ("{}", false),
        ] {
            assert_eq!(declares_elicitation(capabilities), declared, "{capabilities}");
        }
    }

    #[test]
    fn a_call_that_comes_back_is_the_call() {
        let call = r#"{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"requestState":"s","name":"x","inputResponses":{"a":1},"arguments":{ "b":1.0 }}}"#;
        let call = Frame::from_client(Bytes::from(call)).unwrap();
        assert_eq!(
            without_answers(&call).unwrap(),
            r#"{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"x","arguments":{ "b":1.0 }}}"#
        );
        let call = r#"{"id":2,"jsonrpc":"2.0","method":"tools/call","params":{"name":"x","task":{"ttl":1}}}"#;
        let call = Frame::from_client(Bytes::from(call)).unwrap();
        assert_eq!(
            without_task(&call).unwrap(),
            r#"{"id":2,"jsonrpc":"2.0","method":"tools/call","params":{"name":"x"}}"#
        );
    }
}
