//! `holdshort serve`: the program before a server on HTTP, spoken to over real sockets.

use std::process::Command;

use serde_json::{Value, json};

use crate::support::{
    http::{Connection, Proxy, Server, json as json_response, post},
    program::until,
};

const POLICY: &str = "\
version: 1
rules:
  - {name: safe, tool: safe, action: allow}
  - {name: danger, tool: danger, action: hold, reason: People decide., timeout: 10m}
  - {name: never, tool: never, action: deny, reason: Never.}
";

const RESULT: &str = r#"{"content":[{"type":"text","text":"done"}]}"#;

/// The head of a stream that ends with its connection.
const EVENTS: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";

fn call(id: u32, tool: &str) -> String {
    format!(
        "{{\"jsonrpc\":\"2.0\", \"id\":{id},\"method\":\"tools/call\",\"params\":{{\"name\":\"{tool}\",\"arguments\":{{}}}}}}"
    )
}

fn decide(proxy: &Proxy, words: &[&str]) {
    let id = proxy.home.wait_for_holds(1).remove(0);
    let mut arguments = vec![words[0], &id];
    arguments.extend(&words[1..]);
    let output = proxy.home.holdshort(&arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Waits until the record says that the only hold has reached `state`.
fn until_state(proxy: &Proxy, state: &str) -> Value {
    until(|| {
        let output = proxy.home.holdshort(["history", "--json"]);
        let holds: Value = serde_json::from_slice(&output.stdout).ok()?;
        Some(holds[0].clone()).filter(|hold| hold["state"] == state)
    })
}

#[test]
fn an_allowed_call_passes_with_its_bytes_and_what_belongs_to_it() {
    let server = Server::of_result(RESULT);
    let proxy = Proxy::before(&server, POLICY, "");
    let body = call(7, "safe");
    let headers = [
        ("mcp-session-id", "s-1"),
        ("x-own", "kept"),
        ("x-forwarded-for", "1.2.3.4"),
        ("authorization", "Bearer x"),
    ];
    let answer = proxy.post(&headers, &body);
    assert_eq!(
        (answer.status(), answer.json()),
        (200, json!({"jsonrpc": "2.0", "id": 7, "result": {"content": [{"type": "text", "text": "done"}]}}))
    );
    let asked = server.asked().remove(0);
    assert_eq!(asked.first, "POST /up HTTP/1.1");
    assert_eq!(asked.text(), body, "not a byte is changed");
    assert_eq!(asked.header("host"), Some(&*server.address.to_string()));
    assert_eq!(asked.header("mcp-session-id"), Some("s-1"));
    assert_eq!(asked.header("x-own"), Some("kept"));
    assert_eq!(asked.header("x-forwarded-for"), None);
    assert_eq!(asked.header("authorization"), None, "the client's credential is not for the server");
}

#[test]
fn a_denied_call_is_answered_and_does_not_reach_the_server() {
    let server = Server::of_result(RESULT);
    let proxy = Proxy::before(&server, POLICY, "");
    let answer = proxy.post(&[], &call(1, "never")).json();
    assert_eq!((&answer["id"], &answer["result"]["isError"]), (&json!(1), &json!(true)));
    assert!(server.asked().is_empty());
}

#[test]
fn what_is_decided_at_once_leaves_no_trace_on_the_wire() {
    let server = Server::of_result(RESULT);
    let proxy = Proxy::before(&server, POLICY, "");
    let mut client = proxy.connect();
    client.send(&post("/mcp", &[("accept", "application/json")], &call(3, "danger")));
    decide(&proxy, &["approve"]);
    let answer = client.message().unwrap();
    assert_eq!((answer.status(), answer.header("content-type")), (200, Some("application/json")));
    assert_eq!(answer.json()["result"]["content"][0]["text"], "done");
    assert_eq!(server.asked()[0].text(), call(3, "danger"));
    until_state(&proxy, "answered");
}

#[test]
fn a_client_that_takes_events_is_kept_and_gets_the_answer_as_one() {
    let server = Server::of_result(RESULT);
    let proxy = Proxy::before(&server, POLICY, "");
    for (words, expected) in
        [(&["approve"][..], "done"), (&["reject", "--reason", "Not today."], "Not today.")]
    {
        let mut client = proxy.connect();
        client.send(&post("/mcp", &[], &call(3, "danger")));
        let head = client.head().unwrap();
        assert_eq!((head.status(), head.header("content-type")), (200, Some("text/event-stream")));
        assert_eq!(head.header("x-accel-buffering"), Some("no"));
        decide(&proxy, words);
        let event = String::from_utf8(client.chunk()).unwrap();
        assert!(event.starts_with("event: message\ndata: {") && event.contains(expected), "{event}");
        assert!(client.chunk().is_empty(), "the stream ends with the answer");
    }
    assert_eq!(server.asked().len(), 1);
}

#[test]
fn a_call_whose_client_takes_it_back_or_leaves_never_runs() {
    let server = Server::of_result(RESULT);
    let proxy = Proxy::before(&server, POLICY, "");
    let session = [("mcp-session-id", "s-1")];
    let mut client = proxy.connect();
    client.send(&post("/mcp", &session, &call(5, "danger")));
    proxy.home.wait_for_holds(1);
    let cancelled = r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":5}}"#;
    assert_eq!(proxy.post(&session, cancelled).status(), 202);
    assert!(client.message().is_some(), "its request ends");
    assert_eq!(until_state(&proxy, "withdrawn")["note"], "the client cancelled the call");

    let mut client = proxy.connect();
    client.send(&post("/mcp", &session, &call(6, "danger")));
    proxy.home.wait_for_holds(1);
    drop(client);
    // A connection that breaks is no cancellation in this revision: it can still be decided, and nothing runs.
    let id = until(|| proxy.home.holds().into_iter().find(|hold| hold["attached"] == false));
    let id = id["id"].as_str().unwrap().to_owned();
    assert!(proxy.home.holdshort(["approve", &id]).status.success());
    until_state(&proxy, "granted");
    assert!(server.asked().is_empty(), "the server has seen neither the calls nor the cancellation");
}

#[test]
fn a_client_whose_connection_is_gone_can_still_take_its_call_back() {
    let server = Server::of_result(RESULT);
    let proxy = Proxy::before(&server, POLICY, "");
    let (session, other) = ([("mcp-session-id", "s-1")], [("mcp-session-id", "s-2")]);
    let cancelled = |id| {
        format!(r#"{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{{"requestId":{id}}}}}"#)
    };
    for (request, is_approved) in [(5, false), (6, true)] {
        let mut client = proxy.connect();
        client.send(&post("/mcp", &session, &call(request, "danger")));
        proxy.home.wait_for_holds(1);
        drop(client);
        let hold = until(|| proxy.home.holds().into_iter().find(|hold| hold["attached"] == false));
        if is_approved {
            assert!(proxy.home.holdshort(["approve", hold["id"].as_str().unwrap()]).status.success());
            until_state(&proxy, "granted");
        }
        let asked = server.asked().len();
        proxy.post(&other, &cancelled(request));
        assert_eq!(server.asked().len(), asked + 1, "another session's request: for the server to know");
        assert_eq!(proxy.post(&session, &cancelled(request)).status(), 202);
        let ended = until_state(&proxy, "withdrawn");
        assert_eq!((&ended["id"], &ended["note"]), (&hold["id"], &json!("the client cancelled the call")));
    }
    // Made again, it is a call of its own: nobody has approved it.
    let mut client = proxy.connect();
    client.send(&post("/mcp", &session, &call(7, "danger")));
    assert_eq!(proxy.home.wait_for_holds(1).len(), 1);
    assert!(server.asked().iter().all(|asked| !asked.text().contains("danger")), "it never ran");
    proxy.home.verify();
}

#[test]
fn events_of_a_server_pass_as_they_are_and_false_answers_do_not() {
    let server = Server::start(Box::new(|_, say| {
        say(EVENTS);
        say(b"id: 1\ndata:\n\n: hello\n\nretry: 5\r\ndata: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/x\"}\r\n\r\n");
        say(b"data: {\"jsonrpc\":\"2.0\",\"id\":99,\"result\":{}}\n\n");
        say(b"data: {\"jsonrpc\":\"2.0\",\"id\":4,\"res");
        say(b"ult\":{}}\n\ndata: {\"jsonrpc\":\"2.0\",\"id\":4,\"result\":{\"second\":1}}\n\ndata: {\"jsonrpc\":\r\"2.0\"}\n\n");
    }));
    let proxy = Proxy::before(&server, POLICY, "");
    let answer = proxy.post(&[], &call(4, "safe"));
    let expected = "id: 1\ndata:\n\n: hello\n\nretry: 5\r\ndata: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/x\"}\r\n\r\n\
                    data: {\"jsonrpc\":\"2.0\",\"id\":4,\"result\":{}}\n\n";
    assert_eq!(answer.text(), expected);
}

#[test]
fn a_server_that_is_gone_is_told_of_and_an_approved_call_is_not_sent() {
    let proxy = Proxy::start(POLICY, "upstreams: [{name: test, path: /mcp, url: \"http://127.0.0.1:1/\"}]\n");
    let answer = proxy.post(&[], &call(1, "safe"));
    assert_eq!((answer.status(), &answer.json()["error"]["code"]), (502, &json!(-32603)));
    let mut client = proxy.connect();
    client.send(&post("/mcp", &[], &call(2, "danger")));
    decide(&proxy, &["approve"]);
    let answer = client.message().unwrap();
    assert!(answer.text().contains("the server has gone. The tool did not run."), "{}", answer.text());
    until_state(&proxy, "withdrawn");
}

#[test]
fn a_proxy_that_is_told_to_stop_lets_calls_end_and_answers_what_waits() {
    let (go, gone) = std::sync::mpsc::channel::<()>();
    let gone = std::sync::Mutex::new(gone);
    let server = Server::start(Box::new(move |_, say| {
        gone.lock().unwrap().recv().unwrap();
        say(&crate::support::http::json("200 OK", "", r#"{"jsonrpc":"2.0","id":1,"result":{}}"#));
    }));
    let mut proxy = Proxy::before(&server, POLICY, "");
    let mut running: Connection = proxy.connect();
    running.send(&post("/mcp", &[], &call(1, "safe")));
    server.wait();
    let mut held = proxy.connect();
    held.send(&post("/mcp", &[], &call(2, "danger")));
    proxy.home.wait_for_holds(1);
    let mut idle = ["danger", "safe"].map(|tool| {
        let mut client = proxy.connect();
        client.send(&post("/mcp", &[], &call(1, "never")));
        assert_eq!(client.message().unwrap().status(), 200);
        (client, tool)
    });
    let killed = Command::new("kill").arg(proxy.process.id().to_string()).status().unwrap();
    assert!(killed.success());
    assert!(held.message().unwrap().text().contains("PENDING"));
    for (client, tool) in &mut idle {
        client.send(&post("/mcp", &[], &call(3, tool)));
        let refused = client.message().unwrap();
        assert_eq!((refused.status(), &refused.json()["id"]), (503, &json!(3)), "{tool}: nothing new begins");
    }
    go.send(()).unwrap();
    assert_eq!(running.message().unwrap().status(), 200, "a call that runs ends");
    assert!(until(|| proxy.process.try_wait().unwrap()).success());
    until_state(&proxy, "held");
    assert_eq!(server.asked().len(), 1);
}

/// What a request is, byte by byte, and the status that it gets; 0 where the connection is only closed.
#[test]
fn what_is_not_a_plain_request_gets_no_further() {
    let server = Server::of_result(RESULT);
    let proxy = Proxy::before(&server, POLICY, "");
    let body = call(1, "safe");
    let length = body.len();
    let head = |lines: &str| {
        format!(
            "POST /mcp HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n{lines}content-length: {length}\r\n\r\n{body}"
        )
    };
    let with = |headers: &[(&str, &str)]| String::from_utf8(post("/mcp", headers, &body)).unwrap();
    let at = |path: &str| String::from_utf8(post(path, &[], &body)).unwrap();
    let many: String = (0..200).map(|number| format!("x-{number}: y\r\n")).collect();
    let modern = |headers: &[(&str, &str)]| {
        let body = body.replace(
            "\"arguments\":{}",
            "\"_meta\":{\"io.modelcontextprotocol/protocolVersion\":\"2026-07-28\"}",
        );
        String::from_utf8(post("/mcp", headers, &body)).unwrap()
    };
    let version = ("mcp-protocol-version", "2026-07-28");
    let table: Vec<(&str, String, u16)> = vec![
        ("another name", modern(&[version, ("mcp-method", "tools/call"), ("mcp-name", "danger")]), 400),
        ("no method", modern(&[version, ("mcp-name", "safe")]), 400),
        (
            "another version",
            modern(&[
                ("mcp-protocol-version", "2025-11-25"),
                ("mcp-method", "tools/call"),
                ("mcp-name", "safe"),
            ]),
            400,
        ),
        (
            "a broken encoding",
            modern(&[version, ("mcp-method", "tools/call"), ("mcp-name", "=?base64?c2FmZQ?=")]),
            400,
        ),
        ("too many headers", head(&many), 431),
        ("two lengths", head("content-length: 3\r\n"), 400),
        ("an unknown coding", head("transfer-encoding: xchunked\r\n"), 400),
        ("a coding after chunked", head("transfer-encoding: chunked, identity\r\n"), 400),
        ("a folded header", head("x-a: b\r\n c\r\n"), 400),
        ("a space before the colon", head("x-a : b\r\n"), 400),
        ("a websocket", with(&[("connection", "upgrade"), ("upgrade", "websocket")]), 400),
        ("h2c", with(&[("upgrade", "h2c")]), 400),
        ("a tunnel", "CONNECT localhost:1 HTTP/1.1\r\nhost: localhost\r\n\r\n".to_owned(), 400),
        ("a trace", "TRACE /mcp HTTP/1.1\r\nhost: localhost\r\n\r\n".to_owned(), 405),
        ("a whole URL of another host", at("http://attacker.example/mcp"), 403),
        ("another host", with(&[("host", "attacker.example")]), 403),
        ("two hosts", head("host: localhost\r\n"), 400),
        ("no host", with(&[("host", "")]), 400),
        ("a user before the host", with(&[("host", "user@localhost")]), 400),
        ("an address with a zone", with(&[("host", "[::1%25lo]")]), 400),
        ("the origin of nothing", with(&[("origin", "null")]), 403),
        ("an origin that looks like ours", with(&[("origin", "https://localhost.evil")]), 403),
        ("a page of another port", with(&[("origin", "http://127.0.0.1:81")]), 403),
        (
            "a browser without an origin",
            with(&[("user-agent", "Mozilla/5.0"), ("sec-fetch-site", "cross-site")]),
            403,
        ),
        (
            "a preflight",
            "OPTIONS /mcp HTTP/1.1\r\nhost: localhost\r\norigin: http://evil.example\r\n\r\n".to_owned(),
            403,
        ),
        ("a form's text", with(&[("content-type", "text/plain")]), 415),
        ("a form's parts", with(&[("content-type", "multipart/form-data; boundary=x")]), 415),
        ("another charset", with(&[("content-type", "application/json; charset=utf-16")]), 415),
        ("compressed", with(&[("content-encoding", "gzip, gzip, br")]), 415),
        ("a header to strip", with(&[("connection", "mcp-session-id"), ("mcp-session-id", "s")]), 400),
        ("a path with a way up", at("/mcp/../admin"), 404),
        ("two slashes", at("//mcp"), 404),
        ("an encoded slash", at("/mcp%2f"), 404),
        ("an encoded letter", at("/mc%70"), 404),
        ("a query", at("/mcp?approve=1"), 404),
        (
            "a stream of an era without them",
            "GET /mcp HTTP/1.1\r\nhost: localhost\r\nmcp-protocol-version: 2026-07-28\r\n\r\n".to_owned(),
            405,
        ),
        (
            "the end of a session there",
            "DELETE /mcp HTTP/1.1\r\nhost: localhost\r\nmcp-protocol-version: 2026-07-28\r\n\r\n".to_owned(),
            405,
        ),
        ("a batch", with(&[]).replace(&body, &format!("[{}]", &body[2..])), 400),
        ("a name in the version of another protocol", head("x-a: \x00\r\n"), 400),
    ];
    for (what, request, expected) in table {
        let mut client = proxy.connect();
        client.send(request.as_bytes());
        let answer = client.message();
        let status = answer.as_ref().map_or(0, |answer| answer.status());
        assert_eq!(status, expected, "{what}: {answer:?}");
        let allows =
            answer.and_then(|answer| answer.header("access-control-allow-origin").map(str::to_owned));
        assert_eq!(allows, None, "{what}");
    }
    assert!(server.asked().is_empty(), "nothing of it has reached the server");
}

#[test]
fn a_request_behind_one_that_is_held_waits_and_gets_its_own_answer() {
    let server = Server::of_result(RESULT);
    let proxy = Proxy::before(&server, POLICY, "");
    let mut client = proxy.connect();
    let json = [("accept", "application/json")];
    let two = [post("/mcp", &json, &call(1, "danger")), post("/mcp", &json, &call(2, "safe"))].concat();
    client.send(&two);
    decide(&proxy, &["reject", "--reason", "No."]);
    assert_eq!(client.message().unwrap().json()["id"], 1);
    assert_eq!(client.message().unwrap().json()["id"], 2);
    drop(client);
    assert_eq!(server.asked().len(), 1);
}

#[test]
fn nothing_is_fetched_because_a_server_says_so() {
    let elsewhere = Server::of_result(RESULT);
    let place = format!("http://{}", elsewhere.address);
    let server = Server::start(Box::new(move |request, say| {
        let status = request.header("x-status").unwrap();
        let answer = format!(
            "HTTP/1.1 {status}\r\nlocation: {place}/\r\nwww-authenticate: Bearer resource_metadata=\"{place}/x\"\r\ncontent-length: 0\r\n\r\n"
        );
        say(answer.as_bytes());
    }));
    for oauth in ["off", "pass", "rewrite"] {
        let config = format!(
            "upstreams: [{{name: test, path: /mcp, url: \"http://{}/up\", oauth: {oauth}}}]\n",
            server.address
        );
        let proxy = Proxy::start(POLICY, &config);
        for status in
            ["301 Moved", "302 Found", "303 See Other", "307 Temporary Redirect", "308 Permanent Redirect"]
        {
            let answer = proxy.post(&[("x-status", status)], &call(1, "safe"));
            assert_eq!((answer.status(), answer.header("location")), (502, None), "{status}");
        }
        for (status, code) in [("204 No Content", 204), ("401 Unauthorized", 401)] {
            assert_eq!(proxy.post(&[("x-status", status)], &call(1, "safe")).status(), code);
        }
        let mut client = proxy.connect();
        client.send(&post("/mcp", &[("x-status", "302 Found")], &call(2, "danger")));
        decide(&proxy, &["approve"]);
        assert_eq!(client.message().unwrap().header("location"), None, "{oauth}");
    }
    assert!(elsewhere.asked().is_empty());
}

#[test]
fn an_approved_call_whose_answer_comes_on_another_stream_is_answered() {
    let server = Server::start(Box::new(|request, say| {
        say(EVENTS);
        if request.first.starts_with("GET") {
            say(b"id: 2\ndata: {\"jsonrpc\":\"2.0\",\"id\":3,\"result\":{\"content\":[]}}\n\n");
        } else {
            say(b"id: 1\nretry: 10\ndata:\n\n");
        }
    }));
    let proxy = Proxy::before(&server, POLICY, "");
    let mut client = proxy.connect();
    client.send(&post("/mcp", &[("mcp-session-id", "s-1")], &call(3, "danger")));
    decide(&proxy, &["approve"]);
    let broken_off = client.message().unwrap();
    assert!(
        broken_off.text().contains("id: 1") && !broken_off.text().contains("error"),
        "{}",
        broken_off.text()
    );
    let mut client = proxy.connect();
    client.send(
        b"GET /mcp HTTP/1.1\r\nhost: localhost\r\nmcp-session-id: s-1\r\nlast-event-id: 1\r\naccept: text/event-stream\r\n\r\n",
    );
    assert!(client.message().unwrap().text().contains("\"id\":3"));
    assert_eq!(server.asked().last().unwrap().header("last-event-id"), Some("1"));
    until_state(&proxy, "answered");
}

#[test]
fn a_client_that_goes_after_the_approval_comes_back_for_the_answer_and_hears_that_the_call_was_changed() {
    const EDITED: &str =
        "version: 1\nrules: [{name: danger, tool: danger, action: hold, timeout: 10m, edit: true}]\n";
    for is_kept in [false, true] {
        let (_open, closed) = std::sync::mpsc::channel::<()>();
        let closed = std::sync::Mutex::new(closed);
        let server = Server::start(Box::new(move |request, say| {
            say(EVENTS);
            if request.first.starts_with("GET") {
                let answer = format!("{{\"jsonrpc\":\"2.0\",\"id\":3,\"result\":{RESULT}}}");
                return say(format!("id: 2\ndata: {answer}\n\n").as_bytes());
            }
            say(b"id: 1\ndata:\n\n");
            // The server leaves its stream open.
            let _ = closed.lock().unwrap().recv();
        }));
        let proxy = Proxy::before(&server, EDITED, "");
        let mut client = proxy.connect();
        client.send(&post("/mcp", &[("mcp-session-id", "s-1")], &call(3, "danger")));
        if is_kept {
            assert_eq!(client.head().unwrap().status(), 200, "while it waits");
        }
        let file = proxy.home.file("new.json", "{\"n\":9}");
        decide(&proxy, &["approve", "--yes", "--edit", file.to_str().unwrap()]);
        if !is_kept {
            assert_eq!(client.head().unwrap().status(), 200, "the server's own");
        }
        assert_eq!(client.chunk(), b"id: 1\ndata:\n\n");
        drop(client);
        let mut client = proxy.connect();
        client.send(
            b"GET /mcp HTTP/1.1\r\nhost: localhost\r\nmcp-session-id: s-1\r\nlast-event-id: 1\r\naccept: text/event-stream\r\n\r\n",
        );
        let answer = client.message().unwrap();
        assert!(answer.text().contains("EDITED by a person"), "{}", answer.text());
        until_state(&proxy, "answered");
    }
}

#[test]
fn a_message_that_breaks_off_after_the_approval_is_one_of_which_nobody_knows() {
    let server = Server::start(Box::new(|_, say| {
        say(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n5\r\n{\"jso\r\n");
    }));
    let proxy = Proxy::before(&server, POLICY, "");
    let mut client = proxy.connect();
    client.send(&post("/mcp", &[], &call(3, "danger")));
    assert_eq!(client.head().unwrap().status(), 200, "while it waits");
    decide(&proxy, &["approve"]);
    let told = String::from_utf8(client.chunk()).unwrap();
    assert!(told.contains("\"isError\":true") && told.contains("The tool may have run."), "{told}");
    until_state(&proxy, "unknown");
}

#[test]
fn a_stream_that_ends_without_the_answer_says_so_and_of_an_approved_call_nobody_knows() {
    let server = Server::start(Box::new(|_, say| {
        say(EVENTS);
        say(b"data: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/x\"}\n\n");
    }));
    let proxy = Proxy::before(&server, POLICY, "");
    let ended = |answer: &str| answer.contains("\"code\":-32603") && answer.contains("the tool may have run");
    let answer = proxy.post(&[], &call(1, "safe"));
    assert!(ended(answer.text()), "{}", answer.text());
    let mut client = proxy.connect();
    client.send(&post("/mcp", &[], &call(2, "danger")));
    decide(&proxy, &["approve"]);
    let answer = client.message().unwrap();
    assert!(ended(answer.text()), "{}", answer.text());
    until_state(&proxy, "unknown");
}

#[test]
fn a_server_asks_its_client_on_one_stream_while_another_call_of_the_session_is_held() {
    let (answered, answers) = std::sync::mpsc::channel::<()>();
    let answers = std::sync::Mutex::new(answers);
    let server = Server::start(Box::new(move |request, say| {
        let message = request.json();
        let Some(tool) = message["params"]["name"].as_str() else {
            answered.send(()).unwrap();
            return say(b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n");
        };
        say(EVENTS);
        if tool == "safe" {
            say(b"data: {\"jsonrpc\":\"2.0\",\"id\":\"q\",\"method\":\"roots/list\"}\n\n");
            answers.lock().unwrap().recv().unwrap();
        }
        let id = &message["id"];
        say(format!("data: {{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":{RESULT}}}\n\n").as_bytes());
    }));
    let proxy = Proxy::before(&server, POLICY, "");
    let session = [("mcp-session-id", "s-1")];
    let mut held = proxy.connect();
    held.send(&post("/mcp", &session, &call(2, "danger")));
    proxy.home.wait_for_holds(1);
    let mut asking = proxy.connect();
    asking.send(&post("/mcp", &session, &call(1, "safe")));
    assert_eq!(asking.head().unwrap().status(), 200);
    let question = String::from_utf8(asking.chunk()).unwrap();
    assert!(question.contains("roots/list"), "{question}");
    let roots = r#"{"jsonrpc":"2.0","id":"q","result":{"roots":[]}}"#;
    assert_eq!(proxy.post(&session, roots).status(), 202);
    let answer = String::from_utf8(asking.chunk()).unwrap();
    assert!(answer.contains("\"id\":1") && answer.contains("done"), "{answer}");
    assert_eq!(proxy.post(&session, roots).status(), 400, "it is answered once");
    let asked: Vec<String> = server.asked().iter().map(|asked| asked.text().to_owned()).collect();
    assert_eq!(asked, [call(1, "safe"), roots.to_owned()], "the held call has nothing to do with it");
    decide(&proxy, &["approve"]);
    assert!(held.message().unwrap().text().contains("done"));
}

#[test]
fn held_calls_of_one_session_cannot_share_an_id_or_a_progress_token() {
    let server = Server::of_result(RESULT);
    let proxy = Proxy::before(&server, POLICY, "");
    let with_token = |id| {
        call(id, "danger").replace(
            "\"arguments\":{}",
            &format!("\"arguments\":{{\"n\":{id}}},\"_meta\":{{\"progressToken\":\"p\"}}"),
        )
    };
    let mut waiting = Vec::new();
    for (session, holds) in [("s-1", 1), ("s-2", 2)] {
        let mut client = proxy.connect();
        client.send(&post("/mcp", &[("mcp-session-id", session)], &with_token(1)));
        proxy.home.wait_for_holds(holds);
        waiting.push(client);
    }
    for again in [with_token(2), call(1, "danger")] {
        let refused = proxy.post(&[("mcp-session-id", "s-1")], &again);
        assert_eq!((refused.status(), &refused.json()["error"]["code"]), (400, &json!(-32600)), "{again}");
    }
    assert_eq!(proxy.home.holds().len(), 2, "what waits is not disturbed");
    assert!(server.asked().is_empty());
}

#[test]
fn a_request_of_the_era_without_sessions_is_of_none_whatever_it_names() {
    let server = Server::start(Box::new(|_, say| say(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")));
    let proxy = Proxy::before(&server, POLICY, "");
    let modern = call(1, "danger").replace(
        "\"arguments\":",
        "\"_meta\":{\"io.modelcontextprotocol/protocolVersion\":\"2026-07-28\"},\"arguments\":",
    );
    let headers = [
        ("mcp-protocol-version", "2026-07-28"),
        ("mcp-method", "tools/call"),
        ("mcp-name", "danger"),
        ("mcp-session-id", "s-1"),
        ("last-event-id", "7"),
    ];
    let mut client = proxy.connect();
    client.send(&post("/mcp", &headers, &modern));
    proxy.home.wait_for_holds(1);
    assert_eq!(proxy.end("s-1").status(), 200);
    decide(&proxy, &["approve"]);
    assert_eq!(client.message().unwrap().status(), 200);
    assert_eq!(server.asked().last().unwrap().text(), modern, "the end of that session is not its end");
}

#[test]
fn a_held_call_keeps_no_answer_from_another_client_that_uses_the_same_id() {
    let server = Server::of_result(RESULT);
    let proxy = Proxy::before(&server, POLICY, "");
    let mut held = proxy.connect();
    held.send(&post("/mcp", &[], &call(1, "danger")));
    proxy.home.wait_for_holds(1);
    let answer = proxy.post(&[], &call(1, "safe"));
    assert!(answer.text().contains("done"), "{}", answer.text());
    decide(&proxy, &["approve"]);
    assert!(held.message().unwrap().text().contains("done"));
}

#[test]
fn a_client_without_a_session_takes_back_no_call_of_another_one() {
    let server = Server::of_result(RESULT);
    let proxy = Proxy::before(&server, POLICY, "");
    let mut held = proxy.connect();
    held.send(&post("/mcp", &[], &call(3, "danger")));
    proxy.home.wait_for_holds(1);
    let cancelled = r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":3}}"#;
    assert_eq!(proxy.post(&[], cancelled).status(), 202);
    assert_eq!(server.asked().last().unwrap().text(), cancelled, "it is about a request of its own");
    decide(&proxy, &["approve"]);
    assert!(held.message().unwrap().text().contains("done"));
}

#[test]
fn progress_passes_while_another_client_has_a_call_with_the_same_token_held() {
    let progress =
        r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":0,"progress":1}}"#;
    let server = Server::start(Box::new(move |_, say| {
        say(EVENTS);
        say(format!("data: {progress}\n\n").as_bytes());
        say(format!("data: {{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{RESULT}}}\n\n").as_bytes());
    }));
    let proxy = Proxy::before(&server, POLICY, "");
    let with_token =
        |tool| call(1, tool).replace("\"arguments\":{}", "\"arguments\":{},\"_meta\":{\"progressToken\":0}");
    let alone = proxy.post(&[], &with_token("safe"));
    let mut held = proxy.connect();
    held.send(&post("/mcp", &[], &with_token("danger")));
    proxy.home.wait_for_holds(1);
    let beside = proxy.post(&[], &with_token("safe"));
    assert!(beside.text().contains(progress));
    assert_eq!(beside.text(), alone.text(), "what is allowed passes as if nobody else were there");
}

#[test]
fn a_page_of_a_listed_origin_may_speak_to_the_server_and_others_may_not() {
    let server = Server::start(Box::new(|_, say| {
        let theirs = "mcp-session-id: s-1\r\naccess-control-allow-origin: *\r\naccess-control-allow-credentials: true\r\n";
        say(&json_response(
            "200 OK",
            theirs,
            &format!("{{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{RESULT}}}"),
        ));
    }));
    let digest = holdshort::digest::Digest::of(b"a token of an agent");
    let config = format!(
        "origins: [\"https://app.example\"]\nagents: {{tokens: [{{name: web, sha256: {digest}}}]}}\n"
    );
    let proxy = Proxy::before(&server, POLICY, &config);
    let ask = |request: String| {
        let mut client = proxy.connect();
        client.send(request.as_bytes());
        client.message().unwrap()
    };
    let preflight = |path: &str, origin: &str| {
        ask(format!(
            "OPTIONS {path} HTTP/1.1\r\nhost: localhost\r\norigin: {origin}\r\naccess-control-request-method: POST\r\n\
             access-control-request-headers: content-type,mcp-param-Region,x-other\r\n\r\n"
        ))
    };
    let allowed = preflight("/mcp", "https://app.example");
    assert_eq!((allowed.status(), allowed.text()), (204, ""));
    assert_eq!(allowed.header("access-control-allow-origin"), Some("https://app.example"));
    assert_eq!(allowed.header("access-control-allow-methods"), Some("POST, GET, DELETE"));
    assert_eq!(allowed.header("vary"), Some("Origin"));
    assert_eq!(allowed.header("access-control-allow-credentials"), None);
    let names = allowed.header("access-control-allow-headers").unwrap().to_ascii_lowercase();
    let names: Vec<&str> = names.split(", ").collect();
    for name in [
        "content-type",
        "authorization",
        "mcp-protocol-version",
        "mcp-session-id",
        "mcp-method",
        "mcp-name",
        "mcp-param-region",
        "last-event-id",
    ] {
        assert!(names.contains(&name), "{name} is in {names:?}");
    }
    assert!(!names.contains(&"x-other") && !names.contains(&"*"), "{names:?}");
    assert_eq!(preflight("/other", "https://app.example").status(), 404);
    for origin in ["https://app.example.evil", "https://app.example:444", "http://app.example", "null"] {
        let refused = preflight("/mcp", origin);
        assert_eq!(
            (refused.status(), refused.header("access-control-allow-origin")),
            (403, None),
            "{origin}"
        );
    }
    let own = preflight("/mcp", "http://localhost");
    assert_eq!((own.status(), own.header("access-control-allow-origin")), (401, None), "it needs no leave");
    assert!(server.asked().is_empty(), "the server is not asked");

    let origin = ("origin", "https://app.example");
    let token = ("authorization", "Bearer a token of an agent");
    for (headers, status) in [(&[origin, token][..], 200), (&[origin], 401)] {
        let answer = proxy.post(headers, &call(1, "safe"));
        assert_eq!(answer.status(), status);
        assert_eq!(answer.header("access-control-allow-origin"), Some("https://app.example"));
        assert_eq!(answer.header("access-control-allow-credentials"), None);
        assert_eq!(answer.header("vary"), Some("Origin"));
        let exposed = answer.header("access-control-expose-headers").unwrap().to_ascii_lowercase();
        assert!(exposed.contains("mcp-session-id"), "{exposed}");
    }
    let program = proxy.post(&[token], &call(1, "safe"));
    assert_eq!(
        program.header("access-control-allow-origin"),
        Some("*"),
        "what is no page gets what the server says"
    );
    assert_eq!(program.header("vary"), None);
}

#[test]
fn the_end_of_a_session_takes_back_what_waits_in_it_and_reaches_the_server() {
    let server = Server::start(Box::new(|_, say| say(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")));
    let proxy = Proxy::before(&server, POLICY, "");
    let mut clients = Vec::new();
    for (number, session) in ["s-1", "s-2"].into_iter().enumerate() {
        let mut client = proxy.connect();
        client.send(&post("/mcp", &[("mcp-session-id", session)], &call(1, "danger")));
        proxy.home.wait_for_holds(number + 1);
        clients.push(client);
    }
    assert_eq!(proxy.end("s-1").status(), 200);
    assert!(clients[0].message().is_some(), "its request ends");
    proxy.home.wait_for_holds(1);
    let history: Value = serde_json::from_slice(&proxy.home.holdshort(["history", "--json"]).stdout).unwrap();
    let states: Vec<&Value> = history.as_array().unwrap().iter().map(|hold| &hold["state"]).collect();
    assert!(states.contains(&&json!("withdrawn")) && states.len() <= 2, "{history}");
    let asked = server.asked();
    assert_eq!(asked.len(), 1);
    assert!(asked[0].first.starts_with("DELETE /up "), "{:?}", asked[0]);
    assert_eq!(asked[0].header("mcp-session-id"), Some("s-1"));
}
