//! Tasks of 2025-11-25 (experimental in that revision): a client asks for one in the parameters of its call.
//!
//! Used by `gate` and by the transports. The server's own answers and lists stay as they were written, but for what they
//! have to say for a client to be allowed to ask. Decides nothing.

use std::borrow::Cow;

use bytes::Bytes;

use super::{POLL_EVERY_MS, Progressed, Task};
use crate::{
    jsonrpc::{
        Frame, RequestId,
        error::one_line,
        id::quote,
        scan::{elements, members},
    },
    mcp::{
        VERSION_WITH_TASKS,
        notice::{after, comma},
        session::{Initialize, member, string},
    },
};

/// The key in `_meta` that says to which task a result belongs.
pub(super) const RELATED_TASK: &str = "io.modelcontextprotocol/related-task";

/// The key in `_meta` for what a model may go on with while the task runs.
pub(super) const IMMEDIATE_RESPONSE: &str = "io.modelcontextprotocol/model-immediate-response";

/// What a server says that can run tools as tasks.
const CAPABILITY: &str = "\"tasks\":{\"list\":{},\"cancel\":{},\"requests\":{\"tools\":{\"call\":{}}}}";

/// What a list says of a tool that may run as a task. Never `required`: clients then refuse to call it plainly.
const SUPPORT: &str = "\"taskSupport\":\"optional\"";

impl Task {
    /// What is said of a task wherever it is spoken of: the members of the object.
    pub(super) fn legacy_members(&self, progressed: &Progressed) -> String {
        let (status, message) = match progressed {
            Progressed::Working(message) => ("working", Some(Cow::Borrowed(&**message))),
            // No server of this revision answers so.
            Progressed::InputRequired(_) => ("input_required", None),
            // Of a tool that has failed, the task has failed, as the revision says.
            Progressed::Completed(result) if is_error(result) => ("failed", None),
            // Clients show nothing of a task that has failed; the reason of a refusal has to be read.
            Progressed::Completed(_) | Progressed::Refused(_) => ("completed", None),
            Progressed::Failed(error) => ("failed", member(error, "message").and_then(string)),
            Progressed::Cancelled(message) => ("cancelled", Some(Cow::Borrowed(&**message))),
        };
        let message = message.map(|text| format!(",\"statusMessage\":{}", quote(&text))).unwrap_or_default();
        let (task, ttl) = (&self.id, self.ttl_ms);
        let (created, updated) = (self.created_at, self.updated_at);
        format!(
            "\"taskId\":\"{task}\",\"status\":\"{status}\"{message},\"createdAt\":\"{created:.3}\",\
             \"lastUpdatedAt\":\"{updated:.3}\",\"ttl\":{ttl},\"pollInterval\":{POLL_EVERY_MS}"
        )
    }
}

fn is_error(result: &str) -> bool {
    member(result, "isError") == Some("true")
}

/// The answer to `tasks/list`: tasks with how far they are, and where the next page begins.
pub fn told_all(id: &RequestId, tasks: &[(Task, Progressed)], next: Option<&str>) -> Bytes {
    let tasks: Vec<String> =
        tasks.iter().map(|(task, progressed)| format!("{{{}}}", task.legacy_members(progressed))).collect();
    let next = next.map(|next| format!(",\"nextCursor\":{}", quote(next))).unwrap_or_default();
    let tasks = tasks.join(",");
    Bytes::from(format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":{{\"tasks\":[{tasks}]{next}}}}}\n"))
}

/// The answer to `tasks/result` of a task that has come to an end: what the call itself would have been answered. `None` while
/// there is none.
pub fn result_of_task(id: &RequestId, task: &str, progressed: &Progressed) -> Option<Bytes> {
    let answer = match progressed {
        Progressed::Working(_) | Progressed::InputRequired(_) => return None,
        Progressed::Completed(result) | Progressed::Refused(result) => {
            format!("\"result\":{}", related(&one_line(result), task))
        }
        Progressed::Failed(error) => format!("\"error\":{}", one_line(error)),
        Progressed::Cancelled(text) => {
            format!("\"error\":{{\"code\":-32603,\"message\":{}}}", quote(text))
        }
    };
    Some(Bytes::from(format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},{answer}}}\n")))
}

/// `result`, a raw object, saying to which task it belongs. One that says so already, or has no place for it, is left as it is.
fn related(result: &str, task: &str) -> String {
    let said = format!("\"{RELATED_TASK}\":{{\"taskId\":\"{task}\"}}");
    let (place, insert) = match member(result, "_meta") {
        None if result.starts_with('{') => (result, format!("\"_meta\":{{{said}}}")),
        Some(meta) if meta.starts_with('{') && member(meta, RELATED_TASK).is_none() => (meta, said),
        _ => return result.to_owned(),
    };
    let (before, rest) = result.split_at(after(result, place));
    format!("{before}{insert}{}{rest}", comma(members(place).next().is_some()))
}

/// The answer to `initialize` with tasks among what the server offers, as one line. `None` where the negotiated revision has
/// none, where the server has tasks of its own, or where it has no tools.
pub fn offering_tasks_2025(answer: &Frame) -> Option<Bytes> {
    let result = answer.result()?;
    let revision = Initialize::from_result(result)?.protocol_version;
    let capabilities = member(result, "capabilities").filter(|value| value.starts_with('{'))?;
    let is_offered = revision == VERSION_WITH_TASKS
        && member(capabilities, "tools").is_some()
        && member(capabilities, "tasks").is_none();
    if !is_offered {
        return None;
    }
    let (before, rest) = answer.text().split_at_checked(after(answer.text(), capabilities))?;
    Some(Bytes::from(format!("{before}{CAPABILITY},{rest}\n")))
}

/// Whether the result of `initialize` says that the server has tasks of its own.
pub fn server_has_tasks(result: &str) -> bool {
    member(result, "capabilities").is_some_and(|capabilities| member(capabilities, "tasks").is_some())
}

/// Where a client that asks for a list wants to go on.
pub fn cursor(params: &str) -> Option<Cow<'_, str>> {
    member(params, "cursor").and_then(string)
}

/// `answer`, a list of tools, in which those whose name `may_wait` can be called as tasks: one line. `None` if there are none of
/// which the server has not said something itself.
pub fn with_task_support(answer: &Frame, may_wait: impl Fn(&str) -> bool) -> Option<Bytes> {
    let whole = answer.text();
    let tools = member(answer.result()?, "tools")?;
    let (mut line, mut from) = (String::new(), 0);
    for tool in elements(tools).filter(|tool| tool.starts_with('{')) {
        let Some(name) = member(tool, "name").and_then(string) else { continue };
        let (place, insert) = match member(tool, "execution") {
            _ if !may_wait(&name) => continue,
            None => (tool, format!("\"execution\":{{{SUPPORT}}}")),
            Some(execution) if execution.starts_with('{') && member(execution, "taskSupport").is_none() => {
                (execution, SUPPORT.to_owned())
            }
            Some(_) => continue,
        };
        let at = after(whole, place);
        line.push_str(whole.get(from..at)?);
        line.push_str(&insert);
        line.push_str(comma(members(place).next().is_some()));
        from = at;
    }
    if from == 0 {
        return None;
    }
    line.push_str(whole.get(from..)?);
    line.push('\n');
    Some(line.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(result: &str) -> Frame {
        let line = format!("{{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{result}}}");
        Frame::from_server(Bytes::from(line)).unwrap()
    }

    fn rest(line: Option<Bytes>) -> Option<String> {
        let line = String::from_utf8(line?.to_vec()).unwrap();
        let rest = line.strip_prefix("{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":").unwrap();
        Some(rest.strip_suffix("}\n").unwrap().to_owned())
    }

    #[test]
    fn tasks_are_offered_where_the_revision_has_them_and_the_server_does_not() {
        let told =
            r#"{"protocolVersion":"2025-11-25","capabilities":{ "tools":{} },"serverInfo":{"name":"s"}}"#;
        let expected = format!(
            r#"{{"protocolVersion":"2025-11-25","capabilities":{{{CAPABILITY}, "tools":{{}} }},"serverInfo":{{"name":"s"}}}}"#
        );
        assert_eq!(rest(offering_tasks_2025(&answer(told))), Some(expected));
        for told in [
            r#"{"protocolVersion":"2025-06-18","capabilities":{"tools":{}}}"#,
            r#"{"protocolVersion":"2025-11-25","capabilities":{"tools":{},"tasks":{}}}"#,
            r#"{"protocolVersion":"2025-11-25","capabilities":{"prompts":{}}}"#,
            r#"{"capabilities":{"tools":{}}}"#,
        ] {
            assert_eq!(offering_tasks_2025(&answer(told)), None, "{told}");
        }
    }

    #[test]
    fn lists_say_which_tools_can_be_called_as_tasks_and_leave_what_servers_say() {
        let may_wait = |name: &str| name != "free";
        let told = r#"{"tools":[ {"name":"a"},{"name":"free"}, {"name":"b","execution":{"x":1}},{"name":"c","execution":{"taskSupport":"forbidden"}}],"nextCursor":"2"}"#;
        let expected = r#"{"tools":[ {"execution":{"taskSupport":"optional"},"name":"a"},{"name":"free"}, {"name":"b","execution":{"taskSupport":"optional","x":1}},{"name":"c","execution":{"taskSupport":"forbidden"}}],"nextCursor":"2"}"#;
        assert_eq!(rest(with_task_support(&answer(told), may_wait)).as_deref(), Some(expected));
        for told in [r#"{"tools":[{"name":"free"}]}"#, r#"{"tools":[]}"#, r#"{}"#, r#"{"tools":[7]}"#] {
            assert_eq!(with_task_support(&answer(told), may_wait), None, "{told}");
        }
    }

    #[test]
    fn a_result_says_to_which_task_it_belongs() {
        const SAID: &str = r#""io.modelcontextprotocol/related-task":{"taskId":"hs_1"}"#;
        for (result, expected) in [
            (r#"{"content":[]}"#, format!(r#"{{"_meta":{{{SAID}}},"content":[]}}"#)),
            (r#"{"_meta":{"a":1}}"#, format!(r#"{{"_meta":{{{SAID},"a":1}}}}"#)),
            (r#"{}"#, format!(r#"{{"_meta":{{{SAID}}}}}"#)),
            (r#"{"_meta":7}"#, r#"{"_meta":7}"#.to_owned()),
        ] {
            assert_eq!(related(result, "hs_1"), expected);
        }
    }
}
