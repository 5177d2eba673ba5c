//! A server that speaks stdio, offered over HTTP by `holdshort serve`.

use serde_json::{Value, json};

use crate::support::{
    http::{Message, Proxy, post},
    program::until,
};

const POLICY: &str = "version: 1\nrules:\n  - {name: reads, tool: get_order, action: allow}\n  - {name: refunds, tool: send_refund, action: hold, reason: People decide., timeout: 10m}\n";
const INITIALIZE: &str = r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"web","version":"1"}}}"#;
const REFUND: &str = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"send_refund","arguments":{"order":"A-1042","amount":20}}}"#;
const READ: &str = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"get_order","arguments":{"order":"A-1042"}}}"#;

fn proxy() -> Proxy {
    limited("")
}

/// The same with `more` of a configuration.
fn limited(more: &str) -> Proxy {
    let program = env!("CARGO_BIN_EXE_holdshort");
    Proxy::start(
        POLICY,
        &format!("upstreams: [{{name: billing, path: /mcp, command: [\"{program}\", demo-server]}}]\n{more}"),
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

/// `body` as a request of 2026-07-28.
fn modern(body: &str) -> String {
    body.replace(
        "\"arguments\":",
        "\"_meta\":{\"io.modelcontextprotocol/protocolVersion\":\"2026-07-28\"},\"arguments\":",
    )
}

/// What the headers of such a call of `tool` say.
fn modern_headers(tool: &str) -> [(&str, &str); 3] {
    [("mcp-protocol-version", "2026-07-28"), ("mcp-method", "tools/call"), ("mcp-name", tool)]
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
    assert_eq!(proxy.end(&one).status(), 200);
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
fn the_end_of_a_session_takes_back_what_waits_in_it() {
    let proxy = proxy();
    let (one, other) = (session(&proxy), session(&proxy));
    let mut clients = Vec::new();
    for (number, id) in [&one, &other].into_iter().enumerate() {
        let mut client = proxy.connect();
        client.send(&post("/mcp", &[("mcp-session-id", id)], REFUND));
        proxy.home.wait_for_holds(number + 1);
        clients.push(client);
    }
    assert_eq!(proxy.end(&one).status(), 200);
    assert!(clients[0].message().is_some(), "its request ends");
    let left = proxy.home.wait_for_holds(1).remove(0);
    until(|| {
        let output = proxy.home.holdshort(["history", "--json"]);
        let history: Value = serde_json::from_slice(&output.stdout).ok()?;
        let mut ended = history.as_array()?.iter().filter(|hold| hold["id"] != *left);
        ended.any(|hold| hold["state"] == "withdrawn").then_some(())
    });
    assert!(proxy.home.holdshort(["approve", &left]).status.success(), "another session is not disturbed");
    assert!(text(&clients[1].message().unwrap()).as_str().unwrap().contains("20"));
}

#[test]
fn requests_without_sessions_share_a_process_unless_their_ids_are_the_same() {
    let proxy = proxy();
    let mut held = proxy.connect();
    held.send(&post("/mcp", &modern_headers("send_refund"), &modern(REFUND)));
    let hold = proxy.home.wait_for_holds(1).remove(0);
    let answer = proxy.post(&modern_headers("get_order"), &modern(READ));
    assert!(text(&answer).as_str().unwrap().contains("A-1042"), "the same id elsewhere is another request");
    assert!(proxy.home.holdshort(["reject", &hold, "--reason", "No."]).status.success());
    assert!(held.message().unwrap().text().contains("REJECTED"));
}

#[test]
fn a_message_that_names_a_revision_with_sessions_is_in_the_one_it_names_or_in_none() {
    let proxy = proxy();
    let id = session(&proxy);
    let old = modern(READ).replace("2026-07-28", "1999-01-01");
    let [_, method, name] = modern_headers("get_order");
    let headers = [("mcp-protocol-version", "1999-01-01"), method, name];
    for (session, status) in [(None, 200), (Some(&*id), 200), (Some("another's"), 404)] {
        let headers: Vec<_> = headers.into_iter().chain(session.map(|id| ("mcp-session-id", id))).collect();
        assert_eq!(proxy.post(&headers, &old).status(), status, "{session:?}");
    }
}

#[test]
fn a_revision_without_sessions_neither_listens_to_one_nor_ends_it() {
    let proxy = proxy();
    let id = session(&proxy);
    for method in ["GET", "DELETE"] {
        let mut client = proxy.connect();
        let request = format!(
            "{method} /mcp HTTP/1.1\r\nhost: localhost\r\nmcp-session-id: {id}\r\nmcp-protocol-version: 2026-07-28\r\n\r\n"
        );
        client.send(request.as_bytes());
        assert_eq!(client.message().unwrap().status(), 405, "{method}");
    }
    assert_eq!(proxy.post(&[("mcp-session-id", &id)], READ).status(), 200, "it goes on");
}

#[test]
fn a_late_answer_to_a_client_that_has_gone_is_not_taken_for_one_to_another_client() {
    let script = r#"while read -r line; do case "$line" in
        *cancelled*) : > "$0" ;;
        *'"late"'*) late=1 ;;
        *'"get_order"'*)
            [ -z "$late" ] || echo '{"jsonrpc":"2.0","id":1,"result":{"of":"another"}}'
            echo '{"jsonrpc":"2.0","id":1,"result":{"of":"this"}}' ;;
        esac; done"#;
    let home = tempfile::tempdir().unwrap();
    let cancelled = home.path().join("cancelled");
    let command = serde_json::to_string(&["sh", "-c", script, cancelled.to_str().unwrap()]).unwrap();
    let proxy = Proxy::start(
        "version: 1\ndefault: allow\n",
        &format!("upstreams: [{{name: lines, path: /mcp, command: {command}}}]\n"),
    );
    let mut gone = proxy.connect();
    gone.send(&post("/mcp", &modern_headers("late"), &modern(&READ.replace("get_order", "late"))));
    assert_eq!(gone.head().unwrap().status(), 200, "it is waited for");
    drop(gone);
    until(|| cancelled.exists().then_some(()));
    let answer = proxy.post(&modern_headers("get_order"), &modern(READ));
    assert!(answer.text().contains(r#""of":"this""#), "{}", answer.text());
}

#[test]
fn so_many_calls_of_an_agent_may_be_without_an_answer() {
    let proxy = limited("limits: {held_per_agent: 1}\n");
    let id = session(&proxy);
    let mut held = proxy.connect();
    held.send(&post("/mcp", &[("mcp-session-id", &id)], REFUND));
    proxy.home.wait_for_holds(1);
    let refused = proxy.post(&[("mcp-session-id", &id)], &READ.replace("\"id\":1", "\"id\":2"));
    assert_eq!((refused.status(), &refused.json()["id"]), (429, &json!(2)));
    assert!(
        refused.text().contains("1 calls or 64 MiB of this agent have no answer yet"),
        "{}",
        refused.text()
    );
    let ping = r#"{"jsonrpc":"2.0","id":3,"method":"ping"}"#;
    assert_eq!(proxy.post(&[("mcp-session-id", &id)], ping).json()["result"], json!({}), "all else goes on");
}

#[test]
fn so_many_subscriptions_of_an_agent_stay_open_and_none_keeps_the_proxy_from_ending() {
    let script = r#"while read -r line; do case "$line" in *subscriptions/listen*)
        echo '{"jsonrpc":"2.0","method":"notifications/subscriptions/acknowledged","params":{}}' ;;
        esac; done"#;
    let command = serde_json::to_string(&["sh", "-c", script]).unwrap();
    let mut proxy = Proxy::start(
        POLICY,
        &format!(
            "upstreams: [{{name: lines, path: /mcp, command: {command}}}]\nlimits: {{streams_per_agent: 1}}\n"
        ),
    );
    let headers = [("mcp-protocol-version", "2026-07-28"), ("mcp-method", "subscriptions/listen")];
    let listen = |id: u32| {
        format!(
            r#"{{"jsonrpc":"2.0","id":{id},"method":"subscriptions/listen","params":{{"_meta":{{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}}}}"#
        )
    };
    let mut open = proxy.connect();
    open.send(&post("/mcp", &headers, &listen(1)));
    assert_eq!(open.head().unwrap().status(), 200);
    assert!(String::from_utf8(open.chunk()).unwrap().contains("acknowledged"));
    let refused = proxy.post(&headers, &listen(2));
    assert_eq!((refused.status(), &refused.json()["error"]["code"]), (429, &json!(-32603)));
    let id = rustix::process::Pid::from_child(&proxy.process);
    rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
    assert!(until(|| proxy.process.try_wait().unwrap()).success());
    assert!(!proxy.said().contains("still running"), "{}", proxy.said());
}
