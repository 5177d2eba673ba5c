//! A server that speaks stdio, offered over HTTP by `holdshort serve`.

use std::net::TcpStream;

use holdshort::digest::Digest;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::support::{
    http::{Connection, Message, Proxy, post},
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

/// A server that is a script, one that decides for itself what it answers; `$ANSWER` begins it, `$0` is a directory of its own.
fn scripted(policy: &str, cases: &str, more: &str) -> (Proxy, tempfile::TempDir) {
    let home = tempfile::tempdir().unwrap();
    let script = format!(
        r#"while read -r line; do case "$line" in
        *'"initialize"'*)
            version=${{line#*protocolVersion\":\"}}
            echo '{{"jsonrpc":"2.0","id":0,"result":{{"protocolVersion":"'"${{version%%\"*}}"'","capabilities":{{}},"serverInfo":{{"name":"s","version":"1"}}}}}}' ;;
        {cases}
        esac; done"#
    );
    let command = serde_json::to_string(&["sh", "-c", &script, home.path().to_str().unwrap()]).unwrap();
    let proxy = Proxy::start(
        policy,
        &format!("upstreams: [{{name: lines, path: /mcp, command: {command}}}]\n{more}"),
    );
    (proxy, home)
}

/// What the script does with a call of `get_order`.
const READS: &str = r#"*'"get_order"'*)
    id=${line#*id\":}
    echo '{"jsonrpc":"2.0","id":'"${id%%,*}"',"result":{"content":[{"type":"text","text":"read"}]}}' ;;"#;

const EVERYTHING: &str = "version: 1\ndefault: allow\n";

/// What has become of all that was held, the newest first.
fn states(proxy: &Proxy) -> Vec<Value> {
    let output = proxy.home.holdshort(["history", "--json"]);
    let history: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap_or_default();
    history.iter().map(|hold| hold["state"].clone()).collect()
}

/// Tells the program.
fn signal(proxy: &Proxy, signal: Signal) {
    kill_process(Pid::from_child(&proxy.process), signal).unwrap();
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
        refused.text().contains("this agent has as much without an answer as it may: 1 call, or 64 MiB"),
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

#[test]
fn a_client_that_goes_takes_back_all_that_it_has_waiting() {
    let proxy = proxy();
    let id = session(&proxy);
    let mut clients: Vec<Connection> = Vec::new();
    for number in 1..=50 {
        let refund =
            REFUND.replace("\"id\":1", &format!("\"id\":{number}")).replace("1042", &number.to_string());
        let mut client = proxy.connect();
        client.send(&post("/mcp", &[("mcp-session-id", &id)], &refund));
        clients.push(client);
    }
    proxy.home.wait_for_holds(50);
    drop(clients);
    proxy.home.wait_for_holds(0);
    until(|| (states(&proxy) == vec![json!("withdrawn"); 50]).then_some(()));
}

#[test]
fn a_server_that_has_died_is_no_session_any_more() {
    let (proxy, home) = scripted(EVERYTHING, "*initialized*) echo $$ > \"$0/pid\" ;;", "");
    let id = session(&proxy);
    let headers = [("mcp-session-id", &*id)];
    proxy.post(&headers, r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#);
    let server: i32 = until(|| std::fs::read_to_string(home.path().join("pid")).ok()?.trim().parse().ok());
    kill_process(Pid::from_raw(server).unwrap(), Signal::KILL).unwrap();
    let status = proxy.post(&headers, READ).status();
    assert!([404, 502].contains(&status), "{status}");
    assert_eq!(proxy.post(&headers, READ).status(), 404);
}

#[test]
fn a_held_call_that_its_client_takes_back_ends_and_leaves_its_place() {
    let proxy = limited("limits: {held_per_agent: 1}\n");
    let id = session(&proxy);
    let headers = [("mcp-session-id", &*id)];
    let cancelled = r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}"#;
    for ended in 1..=2 {
        let mut client = proxy.connect();
        client.send(&post("/mcp", &headers, REFUND));
        proxy.home.wait_for_holds(1);
        assert_eq!(proxy.post(&headers, cancelled).status(), 202);
        let message = client.message().expect("its request ends");
        assert!(
            !message.text().contains("result") && !message.text().contains("error"),
            "{}",
            message.text()
        );
        until(|| (states(&proxy) == vec![json!("withdrawn"); ended]).then_some(()));
    }
}

#[test]
fn a_server_that_dies_amid_a_call_leaves_a_word_for_the_model() {
    let log =
        r#"{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":"dying"}}"#;
    let (proxy, _home) = scripted(EVERYTHING, &format!("*get_order*) echo '{log}'; exit 1 ;;"), "");
    let id = session(&proxy);
    let answer = proxy.post(&[("mcp-session-id", &id)], READ);
    let last = answer.text().rsplit("data: ").next().unwrap();
    let last: Value = serde_json::from_str(last.trim()).unwrap();
    assert_eq!((&last["id"], &last["result"]["isError"]), (&json!(1), &json!(true)), "{}", answer.text());
    assert!(last["result"]["content"][0]["text"].as_str().unwrap().contains("may have run"), "{last}");
    let (proxy, _home) = scripted(EVERYTHING, "*get_order*) exit 1 ;;", "");
    let id = session(&proxy);
    let answer = proxy.post(&[("mcp-session-id", &id)], READ);
    assert_eq!(
        (answer.status(), &answer.json()["result"]["isError"]),
        (502, &json!(true)),
        "before the head"
    );
}

#[test]
fn a_body_may_be_as_long_as_the_configuration_says() {
    let bytes = (16 << 20) + (1 << 19);
    // A shell reads byte by byte what is not a short line.
    let long = r#"*initialized*) head -n 1 | wc -c > "$0/bytes"; echo '{"jsonrpc":"2.0","id":1,"result":{"content":[]}}' ;;"#;
    let (proxy, home) = scripted(EVERYTHING, long, "limits: {body_mib: 17}\n");
    let id = session(&proxy);
    let headers = [("mcp-session-id", &*id)];
    proxy.post(&headers, r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#);
    let body = READ.replace("A-1042", &"x".repeat(bytes - READ.len() + "A-1042".len()));
    assert_eq!((body.len(), proxy.post(&headers, &body).status()), (bytes, 200));
    let read =
        until(|| std::fs::read_to_string(home.path().join("bytes")).ok().filter(|read| !read.is_empty()));
    assert_eq!(read.trim(), (bytes + 1).to_string());
}

#[test]
fn what_runs_may_end_when_the_program_is_told_to_stop_and_nothing_begins() {
    let slow = r#"*'"slow"'*)
        : > "$0/runs"
        while [ ! -e "$0/go" ]; do sleep 0.05; done
        # Longer than a server is given that is told to end.
        sleep 2
        echo '{"jsonrpc":"2.0","id":1,"result":{"content":[{"type":"text","text":"slow"}]}}' ;;"#;
    let (mut proxy, home) = scripted(EVERYTHING, &format!("{slow}\n{READS}"), "");
    let (one, other) = (session(&proxy), {
        let begun = proxy.post(&[], &INITIALIZE.replace("2025-11-25", "2025-03-26"));
        begun.header("mcp-session-id").unwrap().to_owned()
    });
    let mut batches = proxy.connect();
    let headers = [("mcp-session-id", &*other), ("mcp-protocol-version", "2025-03-26")];
    batches.send(&post("/mcp", &headers, &format!("[{READ}]")));
    assert!(batches.message().unwrap().text().contains("read"));
    let mut slow = proxy.connect();
    slow.send(&post("/mcp", &[("mcp-session-id", &one)], &READ.replace("get_order", "slow")));
    until(|| home.path().join("runs").exists().then_some(()));
    signal(&proxy, Signal::TERM);
    until(|| TcpStream::connect(proxy.address).is_err().then_some(()));
    batches.send(&post("/mcp", &headers, &format!("[{READ}]")));
    let refused = batches.message().unwrap();
    assert!(refused.text().contains("about to end"), "{}", refused.text());
    std::fs::write(home.path().join("go"), "").unwrap();
    let ended = slow.message().expect("it has its answer");
    assert!(ended.text().contains(r#""text":"slow""#), "{}", ended.text());
    assert!(until(|| proxy.process.try_wait().unwrap()).success());
}

#[test]
fn an_agent_has_its_share_of_the_processes_and_makes_room_for_its_own() {
    const SHARE: usize = 32;
    let agents = format!(
        "agents: {{tokens: [{{name: a, sha256: {}}}, {{name: b, sha256: {}}}]}}\n",
        Digest::of(b"ta"),
        Digest::of(b"tb")
    );
    let (proxy, _home) = scripted(POLICY, READS, &agents);
    let of_a = ("authorization", "Bearer ta");
    let begin = |agent| {
        let begun = proxy.post(&[agent], INITIALIZE);
        begun.header("mcp-session-id").unwrap_or_else(|| panic!("{}", begun.text())).to_owned()
    };
    let first = begin(of_a);
    let mut held = proxy.connect();
    held.send(&post("/mcp", &[of_a, ("mcp-session-id", &first)], REFUND));
    proxy.home.wait_for_holds(1);
    let others: Vec<String> = (0..SHARE).map(|_| begin(of_a)).collect();
    begin(("authorization", "Bearer tb"));
    let reads = |id: &str| {
        proxy.post(&[of_a, ("mcp-session-id", id)], &READ.replace("\"id\":1", "\"id\":2")).status()
    };
    assert_eq!(reads(&others[0]), 404, "the oldest that nobody uses has made room");
    assert_eq!((reads(&others[1]), reads(&first)), (200, 200));
    assert_eq!(proxy.home.holds().len(), 1, "what waits goes on waiting");
}

#[test]
fn a_session_whose_client_gives_up_before_it_has_begun_ends() {
    let script = r#": > "$0/begun"; cat > /dev/null; : > "$0/ended""#;
    let home = tempfile::tempdir().unwrap();
    let command = serde_json::to_string(&["sh", "-c", script, home.path().to_str().unwrap()]).unwrap();
    let config = format!("upstreams: [{{name: lines, path: /mcp, command: {command}}}]\n");
    let proxy = Proxy::start(EVERYTHING, &config);
    let mut client = proxy.connect();
    client.send(&post("/mcp", &[], INITIALIZE));
    until(|| home.path().join("begun").exists().then_some(()));
    drop(client);
    until(|| home.path().join("ended").exists().then_some(()));
}

#[test]
fn a_client_that_does_not_read_keeps_nobody_else_waiting() {
    let floods = r#"*'"floods"'*)
        yes '{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":7,"progress":1,"message":"'"$(head -c 1000 /dev/zero | tr '\0' x)"'"}}' | head -n 30000 ;;
        *cancelled*) : > "$0/cancelled" ;;"#;
    let (proxy, home) = scripted(EVERYTHING, &format!("{floods}\n{READS}"), "");
    let call = modern(&READ.replace("get_order", "floods"))
        .replace("\"_meta\":{", "\"_meta\":{\"progressToken\":7,");
    let mut silent = proxy.connect();
    silent.send(&post("/mcp", &modern_headers("floods"), &call));
    assert_eq!(silent.head().unwrap().status(), 200);
    let other = READ.replace("\"id\":1", "\"id\":2");
    let answer = proxy.post(&modern_headers("get_order"), &modern(&other));
    assert!(answer.text().contains(r#""text":"read""#), "{}", answer.text());
    until(|| home.path().join("cancelled").exists().then_some(()));
    while !silent.chunk().is_empty() {}
}

#[test]
fn news_go_to_whoever_has_asked_for_them_and_to_nobody_else() {
    let tagged = |what: &str, id: &str| {
        format!(
            r#"{{"jsonrpc":"2.0","method":"notifications/{what}","params":{{"_meta":{{"io.modelcontextprotocol/subscriptionId":{id}}}}}}}"#
        )
    };
    let cases = format!(
        "*subscriptions/listen*) echo '{}' ;;\n*get_order*) echo '{}'; echo '{}'; echo '{}' ;;",
        tagged("subscriptions/acknowledged", "\"sub\""),
        tagged("tools/list_changed", "\"gone\""),
        tagged("resources/updated", "\"sub\""),
        r#"{"jsonrpc":"2.0","id":1,"result":{"content":[{"type":"text","text":"read"}]}}"#,
    );
    let (proxy, _home) = scripted(EVERYTHING, &cases, "");
    let headers = [("mcp-protocol-version", "2026-07-28"), ("mcp-method", "subscriptions/listen")];
    let listen = r#"{"jsonrpc":"2.0","id":"sub","method":"subscriptions/listen","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}"#;
    let mut listening = proxy.connect();
    listening.send(&post("/mcp", &headers, listen));
    assert_eq!(listening.head().unwrap().status(), 200);
    assert!(String::from_utf8(listening.chunk()).unwrap().contains("acknowledged"));
    let answer = proxy.post(&modern_headers("get_order"), &modern(READ));
    assert_eq!(text(&answer), "read", "the answer alone");
    let news = String::from_utf8(listening.chunk()).unwrap();
    assert!(news.contains("resources/updated") && !news.contains("list_changed"), "{news}");
}

#[test]
fn sessions_go_on_when_only_the_time_of_waiting_changes() {
    let program = env!("CARGO_BIN_EXE_holdshort");
    let of = |name: &str, path: &str| {
        format!("  - {{name: {name}, path: {path}, command: [\"{program}\", demo-server]}}\n")
    };
    let config = format!("upstreams:\n{}", of("billing", "/mcp"));
    let proxy = Proxy::start(POLICY, &config);
    let id = session(&proxy);
    let config =
        format!("listen: 127.0.0.1:0\npolicy: [policy.yaml]\n{config}{}wait: 1s\n", of("other", "/other"));
    proxy.home.file("serve.yaml", &config);
    signal(&proxy, Signal::HUP);
    until(|| {
        let mut client = proxy.connect();
        client.send(&post("/other", &[], INITIALIZE));
        (client.message().unwrap().status() == 200).then_some(())
    });
    let answer = proxy.post(&[("mcp-session-id", &id)], REFUND);
    assert!(answer.text().contains("PENDING"), "{}", answer.text());
}
