//! `holdshort run --url`: a server on HTTP for a client that speaks lines.

use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::support::{
    http::{Server, json},
    program::{Home, Wrapped, until},
};

const POLICY: &str = "version: 1\nrules:\n  - {name: safe, tool: \"s*\", action: allow}\n  - {name: danger, tool: danger, action: hold, reason: People decide., timeout: 10m}\n";
const INITIALIZE: &str = r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"lines","version":"1"}}}"#;
const EVENTS: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";

fn call(id: u32, tool: &str) -> String {
    format!(
        "{{\"jsonrpc\":\"2.0\",\"id\":{id},\"method\":\"tools/call\",\"params\":{{\"name\":\"{tool}\"}}}}"
    )
}

fn wrapped(home: &Home, server: &Server, more: &[&str]) -> Wrapped {
    let policy = home.file("policy.yaml", POLICY);
    let mut command = home.command();
    command.args(["run", "--server", "far", "--url", &format!("http://{}/mcp", server.address), "--policy"]);
    command.arg(policy).args(more).env("FAR_TOKEN", "Bearer far");
    Wrapped::start(command)
}

/// A server with a session, whose streams break off and can be resumed.
fn server() -> Server {
    let resumed = AtomicUsize::new(0);
    Server::start(Box::new(move |request, say| {
        if request.first.starts_with("DELETE") {
            return say(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
        }
        if request.first.starts_with("GET") {
            if request.header("last-event-id") == Some("7") {
                resumed.fetch_add(1, Ordering::Relaxed);
                say(EVENTS.as_bytes());
                return say(b"id: 8\ndata: {\"jsonrpc\":\"2.0\",\"id\":3,\"result\":{\"resumed\":true}}\n\n");
            }
            return say(b"HTTP/1.1 405 Method Not Allowed\r\ncontent-length: 0\r\n\r\n");
        }
        let message: Value = serde_json::from_slice(&request.body).unwrap();
        let Some(id) = message.get("id") else {
            return say(b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n");
        };
        let answer = |result: &str| format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":{result}}}");
        match message["params"]["name"].as_str() {
            None => say(&json(
                "200 OK",
                "mcp-session-id: s-9\r\n",
                &answer("{\"protocolVersion\":\"2025-11-25\",\"capabilities\":{}}"),
            )),
            Some("stream") => {
                say(EVENTS.as_bytes());
                say(b"data: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/message\",\"params\":{}}\n\n");
                say(format!("data: {}\n\n", answer("{\"streamed\":true}")).as_bytes());
            }
            Some("sleepy") => {
                say(EVENTS.as_bytes());
                say(b"id: 7\nretry: 1\ndata:\n\n");
            }
            Some("sad") => say(&json("404 Not Found", "", "{}")),
            Some(_) => say(&json("200 OK", "", &answer("{\"done\":true}"))),
        }
    }))
}

#[test]
fn lines_become_requests_and_answers_of_every_form_become_lines() {
    let (home, server) = (Home::new(), server());
    let mut client = wrapped(&home, &server, &["--header", "authorization=FAR_TOKEN"]);
    assert_eq!(client.ask(INITIALIZE)["result"]["protocolVersion"], "2025-11-25");
    client.send(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#);
    assert_eq!(client.ask(&call(1, "safe"))["result"], json!({"done": true}));
    assert_eq!(client.ask(&call(2, "stream"))["method"], "notifications/message");
    assert_eq!(client.receive()["result"], json!({"streamed": true}));
    assert_eq!(
        client.ask(&call(3, "sleepy"))["result"],
        json!({"resumed": true}),
        "a stream that broke off goes on"
    );
    let failed = client.ask(&call(4, "sad"));
    assert!(failed["error"]["message"].as_str().unwrap().contains("HTTP status 404"), "{failed}");
    let asked = server.asked();
    let safe =
        asked.iter().find(|asked| asked.text() == call(1, "safe")).expect("the bytes are those of the line");
    assert_eq!(safe.header("mcp-session-id"), Some("s-9"));
    assert_eq!(safe.header("mcp-protocol-version"), Some("2025-11-25"));
    assert!(asked.iter().all(|asked| asked.header("authorization") == Some("Bearer far")));
    client.close();
    assert!(client.ends().0.success());
    assert!(server.asked().last().unwrap().first.starts_with("DELETE"), "the session is given back");
}

#[test]
fn a_held_call_goes_to_the_far_server_only_when_it_is_approved() {
    let (home, server) = (Home::new(), server());
    let mut client = wrapped(&home, &server, &[]);
    client.ask(INITIALIZE);
    client.send(&call(1, "danger"));
    let id = home.wait_for_holds(1).remove(0);
    assert_eq!(home.holds()[0]["server"], "far");
    assert_eq!(server.asked().len(), 1, "only the beginning has gone");
    assert!(home.holdshort(["approve", &id]).status.success());
    assert_eq!(client.receive()["result"], json!({"done": true}));
    client.send(&call(2, "danger"));
    let id = home.wait_for_holds(1).remove(0);
    assert!(home.holdshort(["reject", &id, "--reason", "No."]).status.success());
    assert_eq!(client.receive()["result"]["isError"], true);
    assert_eq!(server.asked().len(), 2);
}

#[test]
fn a_request_of_the_era_without_sessions_says_in_headers_what_it_is() {
    let (home, server) = (Home::new(), server());
    let mut client = wrapped(&home, &server, &[]);
    let request = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"sä","_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}"#;
    assert_eq!(client.ask(request)["result"], json!({"done": true}));
    let asked = server.asked().remove(0);
    assert_eq!(asked.header("mcp-protocol-version"), Some("2026-07-28"));
    assert_eq!(asked.header("mcp-method"), Some("tools/call"));
    assert_eq!(asked.header("mcp-name"), Some("=?base64?c8Ok?="));
}

#[test]
fn a_far_server_that_cannot_be_reached_is_told_of() {
    let home = Home::new();
    let policy = home.file("policy.yaml", POLICY);
    let mut command = home.command();
    command.args(["run", "--url", "http://127.0.0.1:1/", "--policy"]).arg(policy);
    let mut client = Wrapped::start(command);
    assert_eq!(client.ask(&call(1, "safe"))["error"]["code"], -32603);
}

/// What the only call that the record knows has come to.
fn until_state(home: &Home, hold: &str, state: &str) {
    until(|| (home.show(hold)["state"] == state).then_some(()));
}

#[test]
fn what_became_of_an_approved_call_without_an_answer_is_on_record_and_read_by_the_model() {
    const BROKEN: &[u8] =
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n1\r\n{\r\n";
    let answers: [(&str, &[u8], &str, &str); 4] = [
        ("nothing", b"", "unknown", "UNKNOWN"),
        ("the beginning of a message", BROKEN, "unknown", "UNKNOWN"),
        ("a stream without the result", EVENTS.as_bytes(), "unknown", "UNKNOWN"),
        (
            "an error of HTTP",
            b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n",
            "answered",
            "HTTP status 500",
        ),
    ];
    for (what, answer, state, told) in answers {
        let home = Home::new();
        let server = Server::start(Box::new(move |_, say| say(answer)));
        let mut client = wrapped(&home, &server, &[]);
        client.send(&call(1, "danger"));
        let hold = home.wait_for_holds(1).remove(0);
        assert!(home.holdshort(["approve", &hold]).status.success());
        let answer = client.receive();
        assert_eq!(
            (&answer["id"], &answer["result"]["isError"]),
            (&json!(1), &json!(true)),
            "{what}: {answer}"
        );
        assert!(answer.to_string().contains(told), "{what}: {answer}");
        until_state(&home, &hold, state);
        if state == "unknown" {
            let again = client.ask(&call(2, "danger"));
            assert!(again.to_string().contains("This time it did not run."), "{what}: {again}");
            assert_eq!(server.asked().len(), 1);
        }
        home.verify();
    }
}

#[test]
fn an_approved_call_that_never_left_can_be_made_again() {
    let home = Home::new();
    let policy = home.file("policy.yaml", POLICY);
    let mut command = home.command();
    command.args(["run", "--url", "http://127.0.0.1:1/", "--policy"]).arg(policy);
    let mut client = Wrapped::start(command);
    client.send(&call(1, "danger"));
    let hold = home.wait_for_holds(1).remove(0);
    assert!(home.holdshort(["approve", &hold]).status.success());
    let answer = client.receive();
    assert_eq!(answer["result"]["isError"], true, "{answer}");
    assert!(answer.to_string().contains("the server has gone. The tool did not run."), "{answer}");
    until_state(&home, &hold, "withdrawn");
    client.send(&call(2, "danger"));
    assert_ne!(home.wait_for_holds(1), [hold], "people are asked again");
}
