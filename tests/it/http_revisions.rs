//! `holdshort serve` with clients of every revision: batches, streams of 2024-11-05, questions of a server, absolute targets, several
//! servers at one path.

use std::sync::{Mutex, mpsc::channel};

use serde_json::{Value, json};

use crate::support::{
    http::{Connection, Message, Proxy, Server, json as answer, post},
    program::until,
};

const POLICY: &str = "\
version: 1
rules:
  - {name: safe, tool: safe, action: allow}
  - {name: danger, tool: danger, action: hold, reason: People decide., timeout: 10m}
  - {name: never, tool: never, action: deny, reason: Never.}
";

fn call(id: u32, tool: &str) -> String {
    format!(
        "{{\"jsonrpc\":\"2.0\", \"id\":{id},\"method\":\"tools/call\",\"params\":{{\"name\":\"{tool}\",\"arguments\":{{}}}}}}"
    )
}

/// A server that negotiates `revision` in the session `s-1`, and answers every call with its own name.
fn server_of(revision: &'static str, name: &'static str) -> Server {
    Server::start(Box::new(move |request, say| {
        let Ok(message) = serde_json::from_slice::<Value>(&request.body) else {
            return say(&answer("400 Bad Request", "", "{}"));
        };
        let result = match (message["method"].as_str(), message.get("id")) {
            (_, None) => return say(b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n"),
            (Some("initialize"), _) => {
                json!({"protocolVersion": revision, "capabilities": {}, "serverInfo": {"name": name, "version": "1"}})
            }
            _ => json!({"content": [{"type": "text", "text": name}]}),
        };
        let text = json!({"jsonrpc": "2.0", "id": message["id"], "result": result}).to_string();
        say(&answer("200 OK", "mcp-session-id: s-1\r\n", &text));
    }))
}

fn initialize(proxy: &Proxy, revision: &str) {
    let begun = proxy.post(
        &[],
        &format!(
            "{{\"jsonrpc\":\"2.0\",\"id\":0,\"method\":\"initialize\",\"params\":{{\"protocolVersion\":\"{revision}\",\"capabilities\":{{}},\"clientInfo\":{{\"name\":\"web\",\"version\":\"1\"}}}}}}"
        ),
    );
    assert_eq!((begun.status(), begun.header("mcp-session-id")), (200, Some("s-1")));
}

/// The messages of a stream of events, by the number that is their id.
fn events(answer: &Message) -> Vec<(i64, Value)> {
    let mut found: Vec<(i64, Value)> = answer
        .text()
        .lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .map(|data| serde_json::from_str::<Value>(data).unwrap())
        .map(|message| (message["id"].as_i64().unwrap(), message))
        .collect();
    found.sort_by_key(|(id, _)| *id);
    found
}

#[test]
fn a_batch_is_judged_message_by_message_where_the_revision_has_batches() {
    let server = server_of("2025-03-26", "old");
    let proxy = Proxy::before(&server, POLICY, "");
    initialize(&proxy, "2025-03-26");
    let session = ("mcp-session-id", "s-1");
    let told = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
    let mut client = proxy.connect();
    let batch = format!("[{told},{}, {},\n{}]", call(1, "safe"), call(2, "never"), call(3, "danger"));
    client.send(&post("/mcp", &[session], &batch.replace('\n', "")));
    let hold = proxy.home.wait_for_holds(1).remove(0);
    assert!(proxy.home.holdshort(["approve", &hold]).status.success());
    let all = events(&client.message().unwrap());
    assert_eq!(all.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(all[0].1["result"]["content"][0]["text"], "old");
    assert_eq!(all[1].1["result"]["isError"], true);
    assert_eq!(all[2].1["result"]["content"][0]["text"], "old");
    let asked: Vec<String> = server.asked().iter().map(|asked| asked.text().to_owned()).collect();
    assert_eq!(asked[1..], [told.to_owned(), call(1, "safe"), call(3, "danger")], "each goes on its own");

    let json_only = [session, ("accept", "application/json")];
    let initialize = r#"{"jsonrpc":"2.0","id":6,"method":"initialize","params":{}}"#;
    let batch = format!("[{},{},{initialize},17]", call(4, "safe"), call(5, "never"));
    let mut all = proxy.post(&json_only, &batch).json().as_array().unwrap().clone();
    all.sort_by_key(|message| message["id"].as_i64());
    let codes: Vec<&Value> = all.iter().map(|message| &message["error"]["code"]).collect();
    assert_eq!(codes, [&json!(-32600), &Value::Null, &Value::Null, &json!(-32600)]);
    assert_eq!(proxy.post(&[session], &format!("[{told},{told}]")).status(), 202);
    assert_eq!(proxy.post(&[session], "[]").status(), 400);
}

#[test]
fn a_notification_that_a_server_refuses_takes_no_answer_of_its_batch_away() {
    let server = Server::start(Box::new(|request, say| {
        let message = request.json();
        let result = match (message["method"].as_str(), message.get("id")) {
            (_, None) => return say(&answer("400 Bad Request", "", "{}")),
            (Some("initialize"), _) => json!({"protocolVersion": "2025-03-26", "capabilities": {}}),
            _ => json!({"content": []}),
        };
        let text = json!({"jsonrpc": "2.0", "id": message["id"], "result": result}).to_string();
        say(&answer("200 OK", "mcp-session-id: s-1\r\n", &text));
    }));
    let proxy = Proxy::before(&server, POLICY, "");
    initialize(&proxy, "2025-03-26");
    let json_only = [("mcp-session-id", "s-1"), ("accept", "application/json")];
    let told = r#"{"jsonrpc":"2.0","method":"notifications/roots/list_changed"}"#;
    let batch = format!("[{},{told},{},{}]", call(1, "safe"), call(2, "safe"), call(3, "never"));
    let all = proxy.post(&json_only, &batch);
    let mut ids: Vec<i64> =
        all.json().as_array().unwrap().iter().map(|one| one["id"].as_i64().unwrap()).collect();
    ids.sort_unstable();
    assert_eq!((all.status(), ids), (200, vec![1, 2, 3]), "{}", all.text());
    assert_eq!(proxy.post(&json_only, &format!("[{told}]")).status(), 400, "there is nothing else to say");
}

#[test]
fn a_batch_is_refused_where_the_revision_has_none() {
    let server = server_of("2025-11-25", "new");
    let proxy = Proxy::before(&server, POLICY, "");
    initialize(&proxy, "2025-11-25");
    let batch = format!("[{}]", call(1, "safe"));
    for headers in [
        &[("mcp-session-id", "s-1")][..],
        &[("mcp-session-id", "s-1"), ("mcp-protocol-version", "2025-03-26")],
        &[("mcp-session-id", "s-2")],
        &[],
    ] {
        let refused = proxy.post(headers, &batch);
        assert_eq!(
            (refused.status(), &refused.json()["error"]["code"]),
            (400, &json!(-32600)),
            "{headers:?}"
        );
    }
    assert_eq!(server.asked().len(), 1);
}

#[test]
fn a_batch_reaches_a_server_on_stdio_message_by_message() {
    let program = env!("CARGO_BIN_EXE_holdshort");
    let proxy = Proxy::start(
        POLICY,
        &format!("upstreams: [{{name: billing, path: /mcp, command: [\"{program}\", demo-server]}}]\n"),
    );
    let begun = proxy.post(
        &[],
        r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-03-26","capabilities":{},"clientInfo":{"name":"web","version":"1"}}}"#,
    );
    assert_eq!(begun.json()["result"]["protocolVersion"], "2025-03-26");
    let id = begun.header("mcp-session-id").unwrap();
    let ping = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
    let answer = proxy.post(
        &[("mcp-session-id", id), ("accept", "application/json")],
        &format!("[{ping},{}]", call(2, "never")),
    );
    let mut all = answer.json().as_array().unwrap().clone();
    all.sort_by_key(|message| message["id"].as_i64());
    assert_eq!((&all[0]["result"], &all[1]["result"]["isError"]), (&json!({}), &json!(true)));
}

#[test]
fn a_whole_url_as_target_is_read_as_its_host_and_path() {
    let server = Server::of_result(r#"{"content":[]}"#);
    let proxy = Proxy::before(&server, POLICY, "");
    for (target, host, status) in [
        ("http://localhost/mcp", "localhost", 200),
        ("http://localhost:81/mcp", "attacker.example", 200),
        ("http://attacker.example/mcp", "localhost", 403),
        ("http://user@localhost/mcp", "localhost", 400),
        ("ftp://localhost/mcp", "localhost", 400),
        ("http://localhost/other", "localhost", 404),
    ] {
        let mut client = proxy.connect();
        client.send(&post(target, &[("host", host)], &call(1, "safe")));
        assert_eq!(client.message().unwrap().status(), status, "{target} {host}");
    }
    assert_eq!(server.asked()[0].first, "POST /up HTTP/1.1");
    assert_eq!(server.asked()[0].header("host"), Some(&*server.address.to_string()));
}

#[test]
fn servers_at_one_path_are_told_apart_by_host() {
    let (one, other) = (server_of("2025-11-25", "one"), server_of("2025-11-25", "other"));
    let of = |server: &Server, name: &str, host: &str| {
        format!("  - {{name: {name}, path: /mcp{host}, url: \"http://{}/\"}}\n", server.address)
    };
    let config = format!("upstreams:\n{}{}", of(&one, "one", ", host: One.Example"), of(&other, "other", ""));
    let proxy = Proxy::start(POLICY, &config);
    let said = |host: &str| {
        let answer = proxy.post(&[("host", host)], &call(1, "safe"));
        if answer.status() == 200 {
            answer.json()["result"]["content"][0]["text"].clone()
        } else {
            Value::Null
        }
    };
    assert_eq!(said("one.example"), "one");
    assert_eq!(said("ONE.example:8080"), "one");
    assert_eq!(said("localhost"), "other");
    assert_eq!(said("two.example"), Value::Null, "a name that is not served");
}

#[test]
fn a_configuration_is_read_again_on_sighup_and_what_needs_a_new_start_is_said() {
    let (one, other) = (server_of("2025-11-25", "one"), server_of("2025-11-25", "other"));
    let proxy = Proxy::before(&one, POLICY, "");
    let text = || proxy.post(&[], &call(1, "safe")).json()["result"]["content"][0]["text"].clone();
    assert_eq!(text(), "one");
    proxy.reload("listen: here\n");
    until(|| proxy.said().contains("the configuration was not read again").then_some(()));
    assert_eq!(text(), "one", "what is wrong changes nothing");
    proxy.reload(&format!(
        "listen: 127.0.0.1:1\npolicy: [policy.yaml]\nstore: other.db\nupstreams: [{{name: test, path: /mcp, url: \"http://{}/\"}}]\n",
        other.address
    ));
    until(|| (text() == "other").then_some(()));
    until(|| proxy.said().contains("key=\"store\"").then_some(()));
    assert!(proxy.said().contains("key=\"listen\"") && !proxy.said().contains("key=\"policy\""));
    proxy.reload(&format!(
        "listen: 127.0.0.1:0\npolicy: [policy.yaml]\nupstreams: [{{name: test, path: /other, url: \"http://{}/\"}}]\n",
        other.address
    ));
    until(|| (proxy.post(&[], &call(1, "safe")).status() == 404).then_some(()));
}

#[test]
fn what_waits_when_the_configuration_is_read_again_can_still_be_taken_back() {
    let server = server_of("2025-11-25", "one");
    let own = format!("upstreams:\n  - {{name: test, path: /mcp, url: \"http://{}/up\"}}\n", server.address);
    let proxy = Proxy::start(POLICY, &own);
    let session = [("mcp-session-id", "s-1")];
    let mut client = proxy.connect();
    client.send(&post("/mcp", &session, &call(5, "danger")));
    proxy.home.wait_for_holds(1);
    let other = own.replace("upstreams:\n", "").replace("test", "other").replace("/mcp", "/other");
    proxy.reload(&format!("listen: 127.0.0.1:0\npolicy: [policy.yaml]\n{own}{other}"));
    until(|| {
        let mut client = proxy.connect();
        client.send(&post("/other", &[], &call(1, "never")));
        (client.message().unwrap().status() == 200).then_some(())
    });
    let cancelled = r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":5}}"#;
    assert_eq!(proxy.post(&session, cancelled).status(), 202);
    assert!(client.message().is_some(), "its request ends");
    proxy.home.wait_for_holds(0);
    assert!(server.asked().is_empty(), "the server has seen neither the call nor the cancellation");
}

/// A call of 2026-07-28, with `more` among its parameters, and its headers.
fn modern(id: u32, arguments: &str, more: &str) -> Vec<u8> {
    let body = format!(
        "{{\"jsonrpc\":\"2.0\",\"id\":{id},\"method\":\"tools/call\",\"params\":{{\"name\":\"danger\",\"arguments\":{arguments},\"_meta\":{{\"io.modelcontextprotocol/protocolVersion\":\"2026-07-28\"}}{more}}}}}"
    );
    let headers = [
        ("mcp-protocol-version", "2026-07-28"),
        ("mcp-method", "tools/call"),
        ("mcp-name", "danger"),
        ("accept", "application/json"),
    ];
    post("/mcp", &headers, &body)
}

#[test]
fn the_answer_to_a_servers_question_goes_on_with_the_approval_once() {
    let server = Server::start(Box::new(|request, say| {
        let call: Value = serde_json::from_slice(&request.body).unwrap();
        let result = if call["params"]["requestState"] == "s 1" {
            json!({"resultType": "complete", "content": [{"type": "text", "text": "done"}]})
        } else {
            json!({"resultType": "input_required", "requestState": "s 1", "inputRequests": {}})
        };
        say(&answer(
            "200 OK",
            "",
            &json!({"jsonrpc": "2.0", "id": call["id"], "result": result}).to_string(),
        ));
    }));
    let proxy = Proxy::before(&server, POLICY, "");
    let send = |request: Vec<u8>| {
        let mut client: Connection = proxy.connect();
        client.send(&request);
        client
    };
    let decide = |words: &[&str]| {
        let hold = proxy.home.wait_for_holds(1).remove(0);
        assert!(proxy.home.holdshort([&[words[0], &hold], &words[1..]].concat()).status.success());
    };
    // The state is the same however it is written.
    let answered = r#","requestState":"s\u00201","inputResponses":{"a":1}"#;
    let mut first = send(modern(1, "{\"amount\":1}", ""));
    decide(&["approve"]);
    assert_eq!(first.message().unwrap().json()["result"]["resultType"], "input_required");
    let mut second = send(modern(2, "{ \"amount\": 1 }", answered));
    assert_eq!(
        second.message().unwrap().json()["result"]["content"][0]["text"],
        "done",
        "nobody is asked again"
    );
    let history: Value = serde_json::from_slice(&proxy.home.holdshort(["history", "--json"]).stdout).unwrap();
    assert_eq!(history.as_array().unwrap().len(), 2, "it is on record by itself");
    assert!(history.to_string().contains("continuation of "), "{history}");

    let mut third = send(modern(3, "{\"amount\":1}", answered));
    decide(&["reject", "--reason", "Used up."]);
    assert!(third.message().unwrap().text().contains("Used up."));
    let mut fourth = send(modern(4, "{\"amount\":1}", ""));
    decide(&["approve"]);
    assert_eq!(fourth.message().unwrap().json()["result"]["resultType"], "input_required");
    let mut fifth = send(modern(5, "{\"amount\":1000}", answered));
    decide(&["reject", "--reason", "Another amount."]);
    assert!(fifth.message().unwrap().text().contains("Another amount."));
    let mut sixth = send(modern(6, "{\"amount\":1}", ",\"inputResponses\":{}"));
    decide(&["reject", "--reason", "Without the state."]);
    assert!(sixth.message().unwrap().text().contains("Without the state."));
    assert_eq!(server.asked().len(), 3);
}

/// Reads a stream until `text` has come, and gives all that has.
fn read_until(stream: &mut Connection, text: &str) -> String {
    let mut all = String::new();
    while !all.contains(text) {
        let piece = stream.chunk();
        assert!(!piece.is_empty(), "the stream has ended: {all}");
        all.push_str(std::str::from_utf8(&piece).unwrap());
    }
    all
}

/// A server of 2024-11-05, which names `place` for what is sent to it.
fn old_server(place: &'static str) -> Server {
    let (sender, said) = channel::<String>();
    let (sender, said) = (Mutex::new(sender), Mutex::new(said));
    Server::start(Box::new(move |request, say| {
        if request.first.starts_with("GET") {
            say(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n");
            say(format!("event: endpoint\ndata: {place}\n\n").as_bytes());
            let said = said.lock().unwrap();
            return said.iter().for_each(|text| say(format!("event: message\ndata: {text}\n\n").as_bytes()));
        }
        let message: Value = serde_json::from_slice(&request.body).unwrap();
        if let Some(id) = message.get("id") {
            let result =
                json!({"protocolVersion": "2024-11-05", "content": [{"type": "text", "text": "done"}]});
            let answer = json!({"jsonrpc": "2.0", "id": id, "result": result}).to_string();
            sender.lock().unwrap().send(answer).unwrap();
        }
        say(b"HTTP/1.1 202 Accepted\r\ncontent-length: 8\r\n\r\nAccepted");
    }))
}

const OPEN: &[u8] = b"GET /mcp HTTP/1.1\r\nhost: localhost\r\naccept: text/event-stream\r\n\r\n";

#[test]
fn a_client_of_the_first_revision_is_gated_as_every_other() {
    let server = old_server("/messages?sessionId=77");
    let proxy = Proxy::before(&server, POLICY, "");
    let mut stream = proxy.connect();
    stream.send(OPEN);
    assert_eq!(stream.head().unwrap().status(), 200);
    let begun = read_until(&mut stream, "\n\n");
    let place = begun.strip_prefix("event: endpoint\ndata: ").unwrap().trim_end().to_owned();
    assert!(place.starts_with("/mcp/messages/"), "{place}");
    let send = |body: &str| {
        let mut client = proxy.connect();
        client.send(&post(&place, &[], body));
        client.message().unwrap().status()
    };
    let initialize = r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2024-11-05","capabilities":{},"clientInfo":{"name":"old","version":"1"}}}"#;
    assert_eq!(send(initialize), 202);
    read_until(&mut stream, "2024-11-05");
    assert_eq!(send(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#), 202);
    assert_eq!(send(&call(1, "safe")), 202);
    assert!(read_until(&mut stream, "done").contains("\"id\":1"));
    assert_eq!(send(&call(2, "never")), 202);
    assert!(read_until(&mut stream, "Never.").contains("\"isError\":true"));
    assert_eq!(send(&call(3, "danger")), 202);
    let hold = proxy.home.wait_for_holds(1).remove(0);
    assert_eq!(proxy.home.holds()[0]["agent"], "old 1");
    assert!(proxy.home.holdshort(["approve", &hold]).status.success());
    assert!(read_until(&mut stream, "done").contains("\"id\":3"));
    until(|| {
        let history = proxy.home.holdshort(["history", "--json"]);
        let history: Value = serde_json::from_slice(&history.stdout).ok()?;
        (history[0]["state"] == "answered").then_some(())
    });
    assert_eq!(send(&call(4, "danger")), 202);
    let hold = proxy.home.wait_for_holds(1).remove(0);
    assert!(proxy.home.holdshort(["reject", &hold, "--reason", "Not today."]).status.success());
    read_until(&mut stream, "Not today.");
    assert_eq!(send("{"), 400);
    let asked = server.asked();
    let sent: Vec<&str> = asked[1..].iter().map(|asked| asked.text()).collect();
    assert_eq!(sent.len(), 4);
    assert_eq!(sent[3], call(3, "danger"));
    assert!(asked[1..].iter().all(|asked| asked.first == "POST /messages?sessionId=77 HTTP/1.1"));

    assert_eq!(send(&call(5, "danger")), 202);
    proxy.home.wait_for_holds(1);
    drop(stream);
    until(|| (proxy.home.holds()[0]["attached"] == false).then_some(()));
    until(|| (send(&call(6, "safe")) == 404).then_some(()));
    let mut client = proxy.connect();
    client.send(&post("/mcp/messages/00000000000000000000000000000000", &[], &call(7, "safe")));
    assert_eq!(client.message().unwrap().status(), 404);
}

#[test]
fn a_place_elsewhere_is_not_passed_on() {
    for place in ["http://127.0.0.1:1/messages", "//attacker.example/messages"] {
        let server = Server::start(Box::new(move |_, say| {
            say(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n");
            say(format!("event: endpoint\ndata: {place}\n\n: end\n\n").as_bytes());
        }));
        let proxy = Proxy::before(&server, POLICY, "");
        let mut stream = proxy.connect();
        stream.send(OPEN);
        assert_eq!(stream.message().unwrap().text(), ": end\n\n");
    }
}

/// A list of one tool, whose argument `region` clients repeat in a header.
const TOOLS: &str = r#"{"resultType":"complete","tools":[{"name":"danger","inputSchema":{"type":"object","properties":{"region":{"type":"string","x-mcp-header":"Region"}}}}]}"#;
const EMPTY: &str = r#"{"resultType":"complete","content":[]}"#;
const ALLOW: &str = "version: 1\nrules:\n  - {name: all, tool: danger, action: allow}\n";

/// Calls through `proxy`, whose server answers lists with [`TOOLS`], before it was asked for one and after that. `calls`: those that
/// the server has seen.
fn repeated_arguments_are_compared(proxy: &Proxy, calls: impl Fn() -> usize) {
    let call = |region: &[&str]| {
        let request = String::from_utf8(modern(1, "{\"region\":\"eu west\"}", "")).unwrap();
        let headers: String = region.iter().map(|value| format!("mcp-param-region: {value}\r\n")).collect();
        let request = request.replacen("mcp-name:", &format!("{headers}mcp-name:"), 1);
        assert_eq!(request.matches("mcp-param").count(), region.len());
        let mut client = proxy.connect();
        client.send(request.as_bytes());
        client.message().unwrap()
    };
    assert_eq!(call(&["us"]).status(), 200, "what the header stands for is not known yet");
    let list = "{\"jsonrpc\":\"2.0\",\"id\":2,\"method\":\"tools/list\",\"params\":{\"_meta\":{\"io.modelcontextprotocol/protocolVersion\":\"2026-07-28\"}}}";
    let headers = [
        ("mcp-protocol-version", "2026-07-28"),
        ("mcp-method", "tools/list"),
        ("accept", "application/json"),
    ];
    assert_eq!(proxy.post(&headers, list).status(), 200);
    for agreeing in [&[][..], &["eu west"], &["=?base64?ZXUgd2VzdA==?="]] {
        assert_eq!(call(agreeing).status(), 200, "{agreeing:?}");
    }
    let before = calls();
    assert_eq!(before, 4);
    for other in [&["us"][..], &["=?base64?dXM=?="], &["=?base64?ZXUgd2VzdA?="], &["eu west", "eu west"]] {
        let refused = call(other);
        assert_eq!((refused.status(), &refused.json()["error"]["code"]), (400, &json!(-32020)), "{other:?}");
    }
    assert_eq!(calls(), before, "the server has seen none of them");
}

#[test]
fn an_argument_that_a_header_repeats_otherwise_gets_no_further() {
    let server = Server::start(Box::new(|request, say| {
        let asked = request.json();
        let result = if asked["method"] == "tools/list" { TOOLS } else { EMPTY };
        let id = &asked["id"];
        say(&answer("200 OK", "", &format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":{result}}}")));
    }));
    let proxy = Proxy::before(&server, ALLOW, "");
    let calls = || server.asked().iter().filter(|asked| asked.json()["method"] == "tools/call").count();
    repeated_arguments_are_compared(&proxy, calls);
}

#[test]
fn an_argument_that_a_header_repeats_otherwise_does_not_reach_a_server_on_stdio() {
    let seen = tempfile::NamedTempFile::new().unwrap();
    let path = seen.path().display();
    let script = format!(
        r#"while read -r line; do case "$line" in
        *tools/list*) echo '{{"jsonrpc":"2.0","id":2,"result":{TOOLS}}}' ;;
        *) echo call >> '{path}'; echo '{{"jsonrpc":"2.0","id":1,"result":{EMPTY}}}' ;;
        esac; done"#
    );
    let command = serde_json::to_string(&["sh", "-c", &script]).unwrap();
    let proxy =
        Proxy::start(ALLOW, &format!("upstreams: [{{name: lines, path: /mcp, command: {command}}}]\n"));
    repeated_arguments_are_compared(&proxy, || std::fs::read_to_string(seen.path()).unwrap().lines().count());
}

#[test]
fn a_stream_of_the_era_without_sessions_has_no_ids_no_questions_and_one_answer() {
    const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";
    let server = Server::start(Box::new(|_, say| {
        say(HEAD);
        say(b"id: 7\nretry: 5\ndata: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/x\"}\n\n");
        say(b"data: {\"jsonrpc\":\"2.0\",\"id\":\"q\",\"method\":\"roots/list\"}\n\n");
        say(b"id: 8\ndata: {\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"resultType\":\"complete\"}}\n\n");
        say(b"data: {\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"resultType\":\"second\"}}\n\n");
    }));
    let proxy = Proxy::before(&server, ALLOW, "");
    let mut client = proxy.connect();
    client.send(&modern(1, "{}", ""));
    let expected = "data: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/x\"}\n\n\
                    data: {\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"resultType\":\"complete\"}}\n\n";
    assert_eq!(client.message().unwrap().text(), expected);
    let version = [("mcp-protocol-version", "2026-07-28")];
    let response = proxy.post(&version, r#"{"jsonrpc":"2.0","id":"q","result":{"roots":[]}}"#);
    assert_eq!((response.status(), &response.json()["error"]["code"]), (400, &json!(-32600)));
    assert_eq!(server.asked().len(), 1, "clients of this revision answer nothing");
}
