//! A server that speaks stdio, offered over HTTP by `holdshort serve`.

use serde_json::Value;

use crate::support::{
    http::{Message, Proxy, post},
    program::until,
};

const POLICY: &str = "version: 1\nrules:\n  - {name: reads, tool: get_order, action: allow}\n  - {name: refunds, tool: send_refund, action: hold, reason: People decide., timeout: 10m}\n";
const INITIALIZE: &str = r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"web","version":"1"}}}"#;
const REFUND: &str = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"send_refund","arguments":{"order":"A-1042","amount":20}}}"#;
const READ: &str = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"get_order","arguments":{"order":"A-1042"}}}"#;

fn proxy() -> Proxy {
    let program = env!("CARGO_BIN_EXE_holdshort");
    Proxy::start(
        POLICY,
        &format!("upstreams: [{{name: billing, path: /mcp, command: [\"{program}\", demo-server]}}]\n"),
    )
}

/// Begins a session, and gives its id.
fn session(proxy: &Proxy) -> String {
    let begun = proxy.post(&[], INITIALIZE);
    assert_eq!(begun.json()["result"]["serverInfo"]["name"].as_str().map(str::is_empty), Some(false));
    begun.header("mcp-session-id").expect("a session has an id").to_owned()
}

fn text(answer: &Message) -> Value {
    answer.json()["result"]["content"][0]["text"].clone()
}

#[test]
fn each_session_has_a_process_of_its_own() {
    let proxy = proxy();
    let (one, other) = (session(&proxy), session(&proxy));
    assert_ne!(one, other);
    for id in [&one, &other] {
        let initialized = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
        assert_eq!(proxy.post(&[("mcp-session-id", id)], initialized).status(), 202);
        assert!(text(&proxy.post(&[("mcp-session-id", id)], READ)).as_str().unwrap().contains("A-1042"));
    }
    let delete = format!("DELETE /mcp HTTP/1.1\r\nhost: localhost\r\nmcp-session-id: {one}\r\n\r\n");
    let mut client = proxy.connect();
    client.send(delete.as_bytes());
    assert_eq!(client.message().unwrap().status(), 200);
    assert_eq!(proxy.post(&[("mcp-session-id", &one)], READ).status(), 404);
    assert_eq!(proxy.post(&[("mcp-session-id", &other)], READ).status(), 200);
    assert_eq!(proxy.post(&[], READ).status(), 404, "this revision has sessions");
}

#[test]
fn calls_are_held_as_everywhere() {
    let proxy = proxy();
    let id = session(&proxy);
    let mut client = proxy.connect();
    client.send(&post("/mcp", &[("mcp-session-id", &id)], REFUND));
    let hold = proxy.home.wait_for_holds(1).remove(0);
    assert_eq!(
        (&proxy.home.holds()[0]["server"], &proxy.home.holds()[0]["agent"]),
        (&"billing".into(), &"web 1".into())
    );
    assert!(proxy.home.holdshort(["approve", &hold]).status.success());
    assert!(text(&client.message().unwrap()).as_str().unwrap().contains("20"), "the refund was sent");
    let mut client = proxy.connect();
    client.send(&post("/mcp", &[("mcp-session-id", &id)], REFUND));
    proxy.home.wait_for_holds(1);
    drop(client);
    proxy.home.wait_for_holds(0);
    until(|| {
        let output = proxy.home.holdshort(["history", "--json"]);
        let history: Value = serde_json::from_slice(&output.stdout).ok()?;
        (history[0]["state"] == "withdrawn").then_some(())
    });
}

#[test]
fn requests_without_sessions_share_a_process_unless_their_ids_are_the_same() {
    let proxy = proxy();
    let modern = |body: &str| {
        body.replace(
            "\"arguments\":",
            "\"_meta\":{\"io.modelcontextprotocol/protocolVersion\":\"2026-07-28\"},\"arguments\":",
        )
    };
    let headers =
        |name| [("mcp-protocol-version", "2026-07-28"), ("mcp-method", "tools/call"), ("mcp-name", name)];
    let mut held = proxy.connect();
    held.send(&post("/mcp", &headers("send_refund"), &modern(REFUND)));
    let hold = proxy.home.wait_for_holds(1).remove(0);
    let answer = proxy.post(&headers("get_order"), &modern(READ));
    assert!(text(&answer).as_str().unwrap().contains("A-1042"), "the same id elsewhere is another request");
    assert!(proxy.home.holdshort(["reject", &hold, "--reason", "No."]).status.success());
    assert!(held.message().unwrap().text().contains("REJECTED"));
}
