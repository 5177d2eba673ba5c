//! `holdshort serve`: calls over HTTP that outlive a request: in rounds, as tasks that a server answers with tasks or questions of its
//! own, and with a question to the client's user. Spoken to over real sockets; what a session over lines sees is in the transcripts.

use serde_json::{Value, json};

use crate::support::{
    http::{Message, Proxy, Server, json as response, post},
    program::until,
};

const POLICY: &str = "\
version: 1
waiting: {default: 1s}
rules:
  - {name: danger, tool: danger, action: hold, timeout: 10m}
  - {name: own, tool: own, action: hold, timeout: 10m, elicitation: true}
";

/// A request of 2026-07-28, with its headers.
fn modern(id: u32, method: &str, params: &str, capabilities: &str) -> (Vec<(&'static str, String)>, String) {
    let meta = format!(
        r#""_meta":{{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{capabilities}}}"#
    );
    let value: Value = serde_json::from_str(&format!("{{{params}}}")).unwrap();
    let name = value["name"].as_str().or(value["taskId"].as_str()).unwrap().to_owned();
    let headers = vec![
        ("mcp-protocol-version", "2026-07-28".to_owned()),
        ("mcp-method", method.to_owned()),
        ("mcp-name", name),
    ];
    (headers, format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}","params":{{{params},{meta}}}}}"#))
}

fn ask(proxy: &Proxy, id: u32, method: &str, params: &str, capabilities: &str) -> Value {
    let (headers, body) = modern(id, method, params, capabilities);
    let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, &**value)).collect();
    let answer = proxy.post(&headers, &body);
    match answer.header("content-type") {
        Some("text/event-stream") => {
            let data = answer.text().lines().filter_map(|line| line.strip_prefix("data: ")).next_back();
            serde_json::from_str(data.unwrap_or_else(|| panic!("an event, not {}", answer.text()))).unwrap()
        }
        _ => answer.json(),
    }
}

const TASKS: &str = r#"{"extensions":{"io.modelcontextprotocol/tasks":{}}}"#;
const DANGER: &str = r#""name":"danger","arguments":{"n":1}"#;

fn asked(server: &Server, method: &str) -> Vec<(Message, Value)> {
    let all = server.asked().into_iter().filter(|message| !message.body.is_empty());
    let read = all.map(|message| (message.clone(), message.json()));
    read.filter(|(_, body)| body["method"] == method).collect()
}

fn decide(proxy: &Proxy, word: &str) {
    let id = proxy.home.wait_for_holds(1).remove(0);
    let output = proxy.home.holdshort([word, &id]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// A server that answers each method with what `results` say, whatever else is asked.
fn server(results: &'static [(&'static str, &'static str)]) -> Server {
    Server::start(Box::new(move |request, say| {
        let message = request.json();
        let found = results.iter().find(|(method, _)| message["method"] == *method);
        let result = found.map_or("{}", |(_, result)| result);
        let id = &message["id"];
        let body = format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":{result}}}");
        say(&response("200 OK", "", &body));
    }))
}

/// The answer to `tasks/get` once it has this status.
fn until_task(proxy: &Proxy, task: &str, status: &str) -> Value {
    let params = format!(r#""taskId":"{task}""#);
    until(|| {
        let answer = ask(proxy, 9, "tasks/get", &params, TASKS);
        Some(answer["result"].clone()).filter(|task| task["status"] == status)
    })
}

#[test]
fn a_call_comes_back_by_itself_until_people_have_decided() {
    let server = server(&[("tools/call", r#"{"resultType":"complete","content":[]}"#)]);
    let proxy = Proxy::before(&server, POLICY, "");
    let first = ask(&proxy, 1, "tools/call", DANGER, "{}");
    assert_eq!(first["result"]["resultType"], "input_required", "{first}");
    let again = |id: u32, answer: &Value| {
        let state = answer["result"]["requestState"].as_str().unwrap();
        ask(&proxy, id, "tools/call", &format!(r#"{DANGER},"requestState":"{state}""#), "{}")
    };
    let second = again(2, &first);
    assert_eq!(second["result"]["resultType"], "input_required", "{second}");
    // One that was used, and one of another call.
    assert_eq!(again(3, &first)["error"]["code"], -32602);
    let state = second["result"]["requestState"].as_str().unwrap();
    let other = format!(r#""name":"danger","arguments":{{"n":2}},"requestState":"{state}""#);
    assert_eq!(ask(&proxy, 4, "tools/call", &other, "{}")["error"]["code"], -32602);
    decide(&proxy, "approve");
    let third = again(5, &second);
    assert_eq!(third["result"]["resultType"], "complete", "{third}");
    let sent = asked(&server, "tools/call");
    assert_eq!(sent.len(), 1, "it ran once");
    assert_eq!(sent[0].1["params"]["requestState"], Value::Null, "the server gets the call");
    assert_eq!(proxy.home.holds().len(), 0);
}

#[test]
fn a_question_about_a_task_says_nothing_of_the_arguments_with_which_it_runs() {
    let server = server(&[("tools/call", r#"{"resultType":"complete","content":[]}"#)]);
    let proxy = Proxy::before(&server, POLICY, "");
    let begun = ask(&proxy, 1, "tools/call", DANGER, TASKS);
    let task = begun["result"]["taskId"].as_str().unwrap();
    decide(&proxy, "approve");
    let (mut headers, body) = modern(2, "tasks/get", &format!(r#""taskId":"{task}""#), TASKS);
    headers.push(("mcp-param-n", "900".to_owned()));
    let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, &**value)).collect();
    assert_eq!(proxy.post(&headers, &body).status(), 200);
    let (sent, call) = until(|| asked(&server, "tools/call").pop());
    assert_eq!((&call["params"]["arguments"]["n"], sent.header("mcp-name")), (&json!(1), Some("danger")));
    assert_eq!(sent.header("mcp-param-n"), None);
}

#[test]
fn a_task_goes_on_as_one_of_the_server() {
    let server = server(&[
        ("tools/call", r#"{"resultType":"task","taskId":"t-9","status":"working","ttlMs":60000}"#),
        (
            "tasks/get",
            r#"{"resultType":"complete","taskId":"t-9","status":"input_required","inputRequests":{}}"#,
        ),
        ("tasks/update", r#"{"resultType":"complete"}"#),
        ("tasks/cancel", r#"{"resultType":"complete"}"#),
    ]);
    let proxy = Proxy::before(&server, POLICY, "");
    let begun = ask(&proxy, 1, "tools/call", DANGER, TASKS);
    let task = begun["result"]["taskId"].as_str().unwrap().to_owned();
    decide(&proxy, "approve");
    let told = until_task(&proxy, &task, "input_required");
    assert_eq!(told["taskId"], *task);
    let update = format!(r#""taskId":"{task}","inputResponses":{{"a":{{"action":"accept"}}}}"#);
    assert_eq!(ask(&proxy, 2, "tasks/update", &update, TASKS)["result"], json!({"resultType": "complete"}));
    let cancel = format!(r#""taskId":"{task}""#);
    assert_eq!(ask(&proxy, 3, "tasks/cancel", &cancel, TASKS)["result"], json!({"resultType": "complete"}));
    for method in ["tasks/get", "tasks/update", "tasks/cancel"] {
        for (message, body) in asked(&server, method) {
            assert_eq!(body["params"]["taskId"], "t-9");
            assert_eq!(
                (message.header("mcp-method"), message.header("mcp-name")),
                (Some(method), Some("t-9")),
                "what stands beside the message agrees with it"
            );
        }
    }
    assert_eq!(asked(&server, "tasks/update")[0].1["params"]["inputResponses"]["a"]["action"], "accept");
    assert_eq!(asked(&server, "tools/call").len(), 1, "it ran once");
}

#[test]
fn a_task_whose_server_asks_back_goes_on_with_the_answers() {
    let server = Server::start(Box::new(|request, say| {
        let message = request.json();
        let result = if message["params"]["inputResponses"].is_null() {
            r#"{"resultType":"input_required","inputRequests":{"a":{"method":"elicitation/create","params":{}}},"requestState":"s"}"#
        } else {
            r#"{"resultType":"complete","content":[{"type":"text","text":"done"}]}"#
        };
        let id = &message["id"];
        say(&response("200 OK", "", &format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":{result}}}")));
    }));
    let proxy = Proxy::before(&server, POLICY, "");
    let begun = ask(&proxy, 1, "tools/call", DANGER, TASKS);
    let task = begun["result"]["taskId"].as_str().unwrap().to_owned();
    decide(&proxy, "approve");
    let asks = until_task(&proxy, &task, "input_required");
    assert_eq!(asks["inputRequests"]["a"]["method"], "elicitation/create");
    let update = format!(r#""taskId":"{task}","inputResponses":{{"a":{{"action":"accept"}}}}"#);
    assert_eq!(ask(&proxy, 2, "tasks/update", &update, TASKS)["result"], json!({"resultType": "complete"}));
    let done = until_task(&proxy, &task, "completed");
    assert_eq!(done["result"]["content"][0]["text"], "done");
    let sent = asked(&server, "tools/call");
    assert_eq!(sent.len(), 2, "the call, and the same call with the answers");
    assert_eq!(sent[1].1["params"]["requestState"], "s");
    assert_eq!(sent[1].1["params"]["inputResponses"]["a"]["action"], "accept");
    assert_eq!(sent[1].0.header("mcp-name"), Some("danger"));
}

#[test]
fn the_user_is_asked_in_the_answer() {
    let server = server(&[("tools/call", r#"{"resultType":"complete","content":[]}"#)]);
    let proxy = Proxy::before(&server, POLICY, "");
    const OWN: &str = r#""name":"own","arguments":{"n":1}"#;
    let asks = ask(&proxy, 1, "tools/call", OWN, r#"{"elicitation":{}}"#);
    let message = &asks["result"]["inputRequests"]["holdshort"]["params"]["message"];
    assert!(message.as_str().unwrap().contains("\"n\": 1"), "{asks}");
    let state = asks["result"]["requestState"].as_str().unwrap();
    let yes = format!(
        r#"{OWN},"inputResponses":{{"holdshort":{{"action":"accept","content":{{"decision":"approve"}}}}}},"requestState":"{state}""#
    );
    // Not without having been asked, and not about another call.
    let guessed = format!(
        r#"{OWN},"inputResponses":{{"holdshort":{{"action":"accept","content":{{"decision":"approve"}}}}}}"#
    );
    let told = ask(&proxy, 2, "tools/call", &guessed, "{}");
    assert_eq!(told["result"]["isError"], true, "{told}");
    assert_eq!(asked(&server, "tools/call").len(), 0, "a guessed answer lets nothing run");
    let done = ask(&proxy, 3, "tools/call", &yes, r#"{"elicitation":{}}"#);
    assert_eq!(done["result"]["resultType"], "complete", "{done}");
    let sent = asked(&server, "tools/call");
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].1["params"]["inputResponses"], Value::Null, "the server does not see the answer");
    let held: Value = serde_json::from_slice(&proxy.home.holdshort(["history", "--json"]).stdout).unwrap();
    let done = held.as_array().unwrap().iter().find(|hold| hold["votes"][0].is_object()).unwrap();
    let hold = proxy.home.show(done["id"].as_str().unwrap());
    assert_eq!(hold["votes"][0]["shown_sha256"], hold["shown_sha256"], "what the user was shown: {hold}");
}

#[test]
fn whoever_asks_for_the_result_of_a_task_waits_for_it_and_so_many_may() {
    let server = server(&[("tools/call", r#"{"content":[{"type":"text","text":"done"}]}"#)]);
    let proxy = Proxy::before(&server, POLICY, "limits: {streams_per_agent: 1}\n");
    let call = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"danger","arguments":{},"task":{"ttl":60000}}}"#;
    let task = proxy.post(&[], call).json()["result"]["task"]["taskId"].as_str().unwrap().to_owned();
    let result = |id: u32| {
        let params = format!(r#"{{"taskId":"{task}"}}"#);
        format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"tasks/result","params":{params}}}"#)
    };
    let mut waiting = proxy.connect();
    waiting.send(&post("/mcp", &[], &result(2)));
    assert_eq!(waiting.head().unwrap().status(), 200, "it is kept waiting with events");
    let refused = proxy.post(&[], &result(3));
    assert_eq!((refused.status(), &refused.json()["error"]["code"]), (429, &json!(-32603)));
    decide(&proxy, "approve");
    let answer = loop {
        let event = String::from_utf8(waiting.chunk()).unwrap();
        if event.contains("data: ") {
            break event;
        }
    };
    assert!(answer.contains(r#""text":"done""#), "{answer}");
    assert!(
        answer.contains(&format!(r#""io.modelcontextprotocol/related-task":{{"taskId":"{task}"}}"#)),
        "{answer}"
    );
    let sent = asked(&server, "tools/call");
    assert_eq!(sent.len(), 1, "it ran once");
    assert_eq!(sent[0].1["params"]["task"], Value::Null, "a server without tasks is not asked for one");
}

#[test]
fn whoever_waits_for_the_result_of_a_task_hears_what_the_server_says_meanwhile() {
    let (go, gone) = std::sync::mpsc::channel::<()>();
    let gone = std::sync::Mutex::new(gone);
    let server = Server::start(Box::new(move |request, say| {
        let message = request.json();
        if message["method"] != "tools/call" {
            return say(b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n");
        }
        say(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n");
        say(b"data: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\",\"params\":{\"progressToken\":\"p\",\"progress\":1}}\n\n");
        say(b"data: {\"jsonrpc\":\"2.0\",\"id\":\"false\",\"result\":{}}\n\n");
        say(b"data: {\"jsonrpc\":\"2.0\",\"id\":\"q\",\"method\":\"roots/list\"}\n\n");
        gone.lock().unwrap().recv().unwrap();
        let id = &message["id"];
        say(format!("data: {{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":{{\"content\":[]}}}}\n\n").as_bytes());
    }));
    let proxy = Proxy::before(&server, POLICY, "");
    let session = [("mcp-session-id", "s-1")];
    let call = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"danger","arguments":{},"task":{},"_meta":{"progressToken":"p"}}}"#;
    let task = proxy.post(&session, call).json()["result"]["task"]["taskId"].as_str().unwrap().to_owned();
    let result =
        format!(r#"{{"jsonrpc":"2.0","id":2,"method":"tasks/result","params":{{"taskId":"{task}"}}}}"#);
    let mut waiting = proxy.connect();
    waiting.send(&post("/mcp", &session, &result));
    assert_eq!(waiting.head().unwrap().status(), 200, "it is kept waiting with events");
    decide(&proxy, "approve");
    let mut next = || loop {
        let event = String::from_utf8(waiting.chunk()).unwrap();
        if event.contains("data: ") {
            break event;
        }
    };
    let progress = next();
    assert!(progress.contains(r#""progressToken":"p","progress":1"#), "{progress}");
    let question = next();
    assert!(question.contains("roots/list"), "{question}");
    let roots = r#"{"jsonrpc":"2.0","id":"q","result":{"roots":[]}}"#;
    assert_eq!(proxy.post(&session, roots).status(), 202);
    assert_eq!(server.asked().last().unwrap().text(), roots, "the server has its answer");
    go.send(()).unwrap();
    let answer = next();
    assert!(answer.contains(r#""id":2"#) && answer.contains(r#""content":[]"#), "{answer}");
    assert_eq!(asked(&server, "tools/call").len(), 1, "it ran once");
}
