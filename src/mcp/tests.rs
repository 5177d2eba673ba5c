//! Scenarios for what is read of MCP, and for the messages that are written.

use bytes::Bytes;

use super::*;
use crate::{
    jsonrpc::{Frame, Kind, RequestId},
    sanitize::is_mixed_script,
};

fn frame(params: &str) -> Frame {
    let line = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{params}}}"#);
    Frame::from_client(Bytes::from(line)).unwrap()
}

fn refused(params: &str) -> CallError {
    ToolCall::parse(&frame(params)).unwrap_err()
}

#[test]
fn a_call_is_read_as_the_server_will_read_it() {
    let frame = frame(
        r#"{"n\u0061me":"d\u0061nger","arguments": {"x" : 1.0, "y":"\u0041"} ,"_meta":{"progressToken":7,
"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientInfo":{"name":"c","version":"1"}},
"requestState":"s","inputResponses":{"q":{}},"task":{"ttl":5},"other":[]}"#
            .replace('\n', " ")
            .as_str(),
    );
    let call = ToolCall::parse(&frame).unwrap();
    assert_eq!(call.name, "danger");
    assert_eq!(call.arguments, r#"{"x" : 1.0, "y":"\u0041"}"#);
    assert_eq!(call.progress_token, Some("7"));
    assert_eq!(call.protocol_version.as_deref(), Some("2026-07-28"));
    assert!(call.is_modern());
    assert_eq!(call.client, Some(Peer { name: "c".into(), version: "1".into() }));
    assert!(call.wants_task && call.has_input_responses);
    assert_eq!(call.request_state, Some("\"s\""));
}

#[test]
fn a_call_without_arguments_has_empty_ones() {
    let frame = frame(r#"{"name":"x"}"#);
    let call = ToolCall::parse(&frame).unwrap();
    assert_eq!((call.arguments, call.progress_token, call.is_modern()), ("{}", None, false));
}

#[test]
fn parameters_of_the_wrong_form_are_refused() {
    for name in ["1", "null", "[\"x\"]", "{}", "true"] {
        assert_eq!(refused(&format!(r#"{{"name":{name}}}"#)), CallError::NoToolName);
    }
    assert_eq!(refused(r#"{"arguments":{}}"#), CallError::NoToolName);
    for value in [r#""{\"x\":1}""#, "[]", "null", "1"] {
        assert_eq!(refused(&format!(r#"{{"name":"x","arguments":{value}}}"#)), CallError::Arguments);
        assert_eq!(refused(&format!(r#"{{"name":"x","_meta":{value}}}"#)), CallError::Meta);
        assert_eq!(
            refused(&format!(r#"{{"name":"x","inputResponses":{value}}}"#)),
            CallError::InputResponses
        );
        assert_eq!(refused(&format!(r#"{{"name":"x","task":{value}}}"#)), CallError::Task);
    }
    for token in ["{}", "[]", "null", "true", "1.5", "1e2", r#""\u001b""#] {
        assert_eq!(
            refused(&format!(r#"{{"name":"x","_meta":{{"progressToken":{token}}}}}"#)),
            CallError::ProgressToken
        );
    }
    for key in ["protocolVersion", "clientInfo"] {
        let meta = format!(r#"{{"name":"x","_meta":{{"io.modelcontextprotocol/{key}":1}}}}"#);
        assert_eq!(refused(&meta), CallError::MetaMember);
    }
    assert_eq!(refused(r#"{"name":"x","requestState":{}}"#), CallError::RequestState);
    let state = |bytes: usize| format!(r#"{{"name":"x","requestState":"{}"}}"#, "s".repeat(bytes - 2));
    assert!(ToolCall::parse(&frame(&state(MAX_REQUEST_STATE_BYTES))).is_ok());
    assert_eq!(refused(&state(MAX_REQUEST_STATE_BYTES + 1)), CallError::RequestStateTooLarge);
    assert_eq!(CallError::ToolName.code().0, -32602);
}

#[test]
fn a_call_without_params_is_refused() {
    let frame =
        Frame::from_client(Bytes::from_static(br#"{"jsonrpc":"2.0","id":1,"method":"tools/call"}"#)).unwrap();
    assert_eq!(ToolCall::parse(&frame), Err(CallError::Params));
}

#[test]
fn a_tool_name_shows_all_that_it_is() {
    for name in [
        "danger",
        "Danger",
        "../danger",
        "a/danger",
        "a.b-c_d",
        "two words",
        "größe",
        "危険",
        &"n".repeat(256),
    ] {
        let frame = frame(&format!(r#"{{"name":"{name}"}}"#));
        assert_eq!(ToolCall::parse(&frame).unwrap().name, name);
    }
    for name in [
        "",
        " ",
        "danger ",
        " danger",
        "danger\\u0000",
        "danger\\n",
        "\\tdanger",
        "dan\\u202eger",
        "dan\u{202e}ger",
        "dan\u{200b}ger",
        "dan\u{2066}ger",
        "danger\u{feff}",
        "danger\\u00a0",
        "dan\\u00a0ger",
        "dan\u{3164}ger",
        "dan\u{e0041}ger",
        "dan\u{fe0f}ger",
        "dan\\u009bger",
        "dan\u{e000}ger",
        &"n".repeat(257),
    ] {
        assert_eq!(refused(&format!(r#"{{"name":"{name}"}}"#)), CallError::ToolName, "{name:?}");
    }
    assert!(is_mixed_script("d\u{430}nger"));
}

#[test]
fn a_method_that_a_server_may_take_for_a_gated_one_is_seen() {
    for method in [
        "Tools/Call",
        "TOOLS/CALL",
        "tools/call ",
        " tools/call",
        "tools//call",
        "/tools/call",
        "tools/call/",
        "tools\\call",
        "tools/call\0",
        "tools%2Fcall",
        "tools%2fcall",
        "tools%252Fcall",
        "%74ools/call",
        "tool\u{17f}/call",
        "tools/ca\u{ff4c}l",
        "tools /call",
        "tools/call%00",
        "tools\u{200b}/call",
    ] {
        assert!(looks_like(method, method::TOOLS_CALL), "{method:?}");
    }
    for method in [
        "tools/call",
        "tools/list",
        "tools/calls",
        "toolscall",
        "vendor/tools/call",
        "ping",
        "",
        "%",
        "%2",
        "%zz",
    ] {
        assert!(!looks_like(method, method::TOOLS_CALL), "{method:?}");
    }
    assert!(looks_like("Resources/Read", "resources/read"));
}

#[test]
fn a_cancellation_names_its_request_by_type_and_value() {
    let cancelled = Cancelled::parse(r#"{"requestId":63,"reason":"en\u006fugh"}"#).unwrap();
    assert_eq!(cancelled.request.as_raw(), "63");
    assert_eq!(cancelled.reason.as_deref(), Some("enough"));
    let string = Cancelled::parse(r#"{"requestId":"63"}"#).unwrap();
    assert_ne!(string.request, cancelled.request);
    for params in ["{}", r#"{"requestId":null}"#, r#"{"requestId":63.0}"#, r#"{"requestId":[63]}"#, "[]", ""]
    {
        assert_eq!(Cancelled::parse(params), None, "{params}");
    }
}

#[test]
fn progress_is_read_with_its_token_as_it_stands() {
    let progress = Progress::parse(r#"{"progressToken":"a","progress":0.50,"total":1}"#).unwrap();
    assert_eq!((progress.token, progress.progress), (r#""a""#, "0.50"));
    for params in [
        r#"{"progress":1}"#,
        r#"{"progressToken":1}"#,
        r#"{"progressToken":{},"progress":1}"#,
        r#"{"progressToken":1,"progress":"1"}"#,
    ] {
        assert_eq!(Progress::parse(params), None, "{params}");
    }
}

#[test]
fn a_session_begins_with_who_speaks_which_version() {
    let asked = Initialize::from_params(
        r#"{"protocolVersion":"2025-03-26","capabilities":{},"clientInfo":{"name":"c","title":"C"}}"#,
    )
    .unwrap();
    assert_eq!(asked.protocol_version, VERSION_WITH_BATCHES);
    assert_eq!(asked.peer, Some(Peer { name: "c".into(), version: "".into() }));
    let agreed = Initialize::from_result(
        r#"{"protocolVersion":"2025-06-18","serverInfo":{"name":"s","version":"2"}}"#,
    )
    .unwrap();
    assert_eq!(agreed.peer, Some(Peer { name: "s".into(), version: "2".into() }));
    assert_eq!(Initialize::from_params(r#"{"protocolVersion":3}"#), None);
    assert_eq!(
        Initialize::from_params(r#"{"protocolVersion":"x","clientInfo":{"name":1}}"#).unwrap().peer,
        None
    );
}

#[test]
fn the_tools_of_a_list_are_found() {
    let result = r#"{"tools":[{"name":"a","inputSchema":{"name":"no"}},{"name":"\u0062"},{"title":"x"},{"name":3},{"name":"old","name":"new"}],"nextCursor":"n"}"#;
    let names: Vec<String> =
        tool_definitions(result).into_iter().map(|tool| tool.name.into_owned()).collect();
    assert_eq!(names, ["a", "b", "new"]);
    for nothing in ["{}", r#"{"tools":{}}"#, "null"] {
        assert_eq!(tool_definitions(nothing).len(), 0);
    }
    let deep = format!(r#"{{"tools":[{{"name":"deep","x":{}{}}}]}}"#, "[".repeat(300), "]".repeat(300));
    let [tool] = &tool_definitions(&deep)[..] else { panic!("it is a tool all the same") };
    assert!(tool.is_deep && tool.text.ends_with("]]}"), "it can be told from another one");
}

#[test]
fn a_refusal_is_a_tool_result_that_the_model_reads() {
    let id = RequestId::from_token(r#""a""#).unwrap();
    let legacy = tool_refusal(&id, Era::Legacy, "Rejected:\r\n\"no\"", None);
    assert_eq!(
        legacy,
        "{\"jsonrpc\":\"2.0\",\"id\":\"a\",\"result\":{\"content\":[{\"type\":\"text\",\"text\":\"Rejected:\\r\\n\\\"no\\\"\"}],\"isError\":true}}\n"
    );
    let modern = tool_refusal(&id, Era::Modern, "no", Some(r#"{"state":"rejected"}"#));
    let frame = Frame::from_server(modern).unwrap();
    assert_eq!((frame.kind(), frame.id()), (Kind::Response, Some(&id)));
    assert_eq!(
        frame.result(),
        Some(
            r#"{"resultType":"complete","content":[{"type":"text","text":"no"}],"isError":true,"_meta":{"dev.holdshort/decision":{"state":"rejected"}}}"#
        )
    );
}

#[test]
fn a_progress_notification_copies_the_token() {
    let line = progress_notification("\"t\\u0031\"", "3", "waiting\nfor people");
    assert_eq!(
        line,
        "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\",\"params\":{\"progressToken\":\"t\\u0031\",\"progress\":3,\"message\":\"waiting\\nfor people\"}}\n"
    );
    let frame = Frame::from_server(line).unwrap();
    assert_eq!(Progress::parse(frame.params().unwrap()).unwrap().token, "\"t\\u0031\"");
}
