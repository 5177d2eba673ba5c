//! Slack, as its documentation says that it behaves: methods that answer `ok`, clicks that are posted with a signature.

use std::sync::{Arc, Mutex};

use aws_lc_rs::hmac;
use holdshort::{
    audit::{AuditEvent, Occasion},
    digest::Digest,
    hold::{Assurance, HoldId, NewHold, Quorum, Requirement, Step},
    store::Store,
};
use jiff::Timestamp;
use serde_json::{Value, json};
use soketto::handshake;
use tokio_util::compat::TokioAsyncReadCompatExt;

use super::{PEOPLE, call, gate, in_turn, knows, settled, shapes};
use crate::support::{
    browser::{Answer, Desk},
    http::{Message, Server, json as response},
    program::{Home, PATIENCE, until},
};

const SIGNING: &str = "8f742231b10e8888abcd99yyyzzz85a5";

/// A workspace that gives each message a name of its own and knows the messages that it has.
fn workspace() -> Server {
    let names: Arc<Mutex<Vec<String>>> = Arc::default();
    Server::start(Box::new(move |request, say| {
        let body = request.json();
        let mut names = names.lock().unwrap();
        let answer = match request.first.split(' ').nth(1).unwrap() {
            _ if request.header("authorization") != Some("Bearer xoxb-test") => {
                json!({"ok": false, "error": "invalid_auth"})
            }
            _ if body["channel"] != "C0OPS" => json!({"ok": false, "error": "channel_not_found"}),
            "/api/chat.postMessage" => {
                let name = format!("1700000000.{:06}", names.len());
                names.push(name.clone());
                json!({"ok": true, "channel": "C0OPS", "ts": name})
            }
            "/api/chat.update" if names.iter().any(|name| body["ts"] == **name) => {
                json!({"ok": true, "channel": "C0OPS", "ts": body["ts"]})
            }
            "/api/chat.update" => json!({"ok": false, "error": "message_not_found"}),
            "/api/chat.postEphemeral" => json!({"ok": true, "message_ts": "1700000001.000000"}),
            _ => json!({"ok": false, "error": "unknown_method"}),
        };
        say(&response("200 OK", "", &answer.to_string()));
    }))
}

/// Everything that was sent to this workspace is as Slack's own client would have it.
fn assert_published(server: &Server) {
    shapes::assert_published(&server.asked().iter().map(shapes::slack).collect::<Vec<_>>());
}

/// The other end of Socket Mode: a WebSocket that greets, sends what it is given, and gives back what is said to it.
struct Socket {
    port: u16,
    send: tokio::sync::mpsc::Sender<String>,
    heard: std::sync::mpsc::Receiver<String>,
}

impl Socket {
    fn start() -> Self {
        let (send, mut to_send) = tokio::sync::mpsc::channel::<String>(8);
        let (say, heard) = std::sync::mpsc::channel();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        listener.set_nonblocking(true).unwrap();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                // One connection after the other, as Slack asks for a new one now and then.
                while let Ok((stream, _)) = listener.accept().await {
                    let mut server = handshake::Server::new(stream.compat());
                    let request = server.receive_request().await.unwrap();
                    assert_eq!(request.path(), "/link/?ticket=once");
                    let accept = handshake::server::Response::Accept { key: request.key(), protocol: None };
                    server.send_response(&accept).await.unwrap();
                    let (mut sender, mut receiver) = server.into_builder().finish();
                    let hello = json!({"type": "hello", "num_connections": 1, "connection_info": {"app_id": "A0APP"}});
                    sender.send_text(hello.to_string()).await.unwrap();
                    sender.flush().await.unwrap();
                    while let Some(message) = to_send.recv().await {
                        let closes = message.contains("disconnect");
                        sender.send_text(message).await.unwrap();
                        sender.flush().await.unwrap();
                        if closes {
                            break;
                        }
                        let mut answer = Vec::new();
                        receiver.receive_data(&mut answer).await.unwrap();
                        say.send(String::from_utf8(answer).unwrap()).unwrap();
                    }
                }
            });
        });
        Self { port, send, heard }
    }

    /// Sends a click, and waits until it is answered.
    fn click(&self, envelope: &str, payload: &Value) {
        let message = json!({"envelope_id": envelope, "type": "interactive", "accepts_response_payload": false, "payload": payload});
        self.send.try_send(message.to_string()).unwrap();
        let answer: Value = serde_json::from_str(&self.heard.recv_timeout(PATIENCE).unwrap()).unwrap();
        assert_eq!(answer, json!({"envelope_id": envelope}));
    }
}

#[test]
fn clicks_come_over_a_connection_of_the_desk_where_nobody_can_reach_it() {
    let home = Home::new();
    let socket = Socket::start();
    let port = socket.port;
    let server = Server::start(Box::new(move |request, say| {
        let answer = match request.first.split(' ').nth(1).unwrap() {
            "/api/apps.connections.open" if request.header("authorization") == Some("Bearer xapp-test") => {
                json!({"ok": true, "url": format!("ws://127.0.0.1:{port}/link/?ticket=once")})
            }
            "/api/apps.connections.open" => json!({"ok": false, "error": "not_authed"}),
            _ => json!({"ok": true, "channel": "C0OPS", "ts": "1700000000.000000"}),
        };
        say(&response("200 OK", "", &answer.to_string()));
    }));
    home.file("app-token", "xapp-test");
    let clicks = "      workspace: T0TEAM\n      app_token: {file: app-token}\n";
    let desk = Desk::with_config(&home, &config(&home, &server, clicks));
    let mut gate = gate(&home, PEOPLE);
    gate.send(&call(1, &json!({"amount": 950})));
    let message = wait_for(&server, "chat.postMessage", 1).remove(0);
    assert_eq!(ids(&message), ["approve", "reject", "open"]);
    let value = buttons(&message).remove(0).1["value"].as_str().unwrap().to_owned();
    settled(&home, "chat");
    knows(&home, &desk, 1);
    let ts = "1700000000.000000";
    // Nobody posts clicks to this desk.
    assert_eq!(clicked(&desk, &click(ts, "U0ALICE", "approve", &value, "")).status, 404);
    let mut elsewhere = click(ts, "U0ALICE", "approve", &value, "");
    elsewhere["team"]["id"] = json!("T0OTHER");
    socket.click("e1", &elsewhere);
    socket.click("e2", &click(ts, "U0MALLORY", "approve", &value, ""));
    let whispered = wait_for(&server, "chat.postEphemeral", 1).remove(0);
    assert!(
        whispered["user"] == "U0MALLORY" && whispered.to_string().contains("may not decide"),
        "{whispered}"
    );
    // The same envelope again is the same click, whatever is in it now.
    socket.click("e2", &click(ts, "U0ALICE", "approve", &value, ""));
    socket.send.try_send(json!({"type": "disconnect", "reason": "refresh_requested"}).to_string()).unwrap();
    socket.click("e3", &click(ts, "U0BOB", "reject", &value, "not today"));
    let answer = gate.receive();
    assert!(answer["result"]["content"][0]["text"].as_str().unwrap().contains("not today"), "{answer}");
    home.verify();
}

fn config(home: &Home, server: &Server, more: &str) -> String {
    home.file("slack-token", "xoxb-test\n");
    home.file("slack-signing-secret", SIGNING);
    format!(
        "channels:\n  chat:\n    slack:\n      conversation: C0OPS\n      token: {{file: slack-token}}\n      api: \
         http://{}/api\n      private_network: true\n{more}",
        server.address
    )
}

const CLICKS: &str =
    "      workspace: T0TEAM\n      app: A0APP\n      signing_secret: {file: slack-signing-secret}\n";

/// What was asked of a method.
fn asked(server: &Server, method: &str) -> Vec<Value> {
    let is_it = |message: &Message| message.first == format!("POST /api/{method} HTTP/1.1");
    server.asked().iter().filter(|message| is_it(message)).map(Message::json).collect()
}

fn wait_for(server: &Server, method: &str, count: usize) -> Vec<Value> {
    until(|| Some(asked(server, method)).filter(|asked| asked.len() >= count))
}

/// The elements of a message that can be clicked, by their ids.
fn buttons(message: &Value) -> Vec<(String, Value)> {
    let actions = message["blocks"].as_array().unwrap().iter().filter(|block| block["type"] == "actions");
    let elements = actions.flat_map(|block| block["elements"].as_array().unwrap());
    elements.map(|element| (element["action_id"].as_str().unwrap().to_owned(), element.clone())).collect()
}

fn ids(message: &Value) -> Vec<String> {
    buttons(message).into_iter().map(|(id, _)| id).collect()
}

/// A click as Slack posts it.
fn click(message: &str, user: &str, action: &str, value: &str, comment: &str) -> Value {
    json!({
        "type": "block_actions",
        "api_app_id": "A0APP",
        "token": "legacy",
        "trigger_id": "1.2.3",
        "team": {"id": "T0TEAM", "domain": "example"},
        "user": {"id": user, "username": "somebody", "name": "somebody", "team_id": "T0TEAM"},
        "container": {"type": "message", "message_ts": message, "channel_id": "C0OPS", "is_ephemeral": false},
        "channel": {"id": "C0OPS", "name": "ops"},
        "message": {"type": "message", "ts": message},
        "state": {"values": {"comment": {"comment": {"type": "plain_text_input", "value": comment}}}},
        "response_url": "https://hooks.slack.com/actions/T0TEAM/1/x",
        "actions": [{"action_id": action, "block_id": "b", "type": "button", "value": value, "action_ts": "1"}],
    })
}

fn signed(secret: &str, at: i64, body: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let signature = hmac::sign(&key, format!("v0:{at}:{body}").as_bytes());
    signature.as_ref().iter().fold("v0=".to_owned(), |text, byte| format!("{text}{byte:02x}"))
}

fn form(payload: &Value) -> String {
    url::form_urlencoded::Serializer::new(String::new()).append_pair("payload", &payload.to_string()).finish()
}

/// Posts what Slack posts.
fn post(desk: &Desk, at: i64, body: &str, signature: &str) -> Answer {
    let at = at.to_string();
    let headers = [
        ("X-Slack-Request-Timestamp", &*at),
        ("X-Slack-Signature", signature),
        ("Content-Type", "application/x-www-form-urlencoded"),
    ];
    desk.send("POST", "/channels/chat", &headers, body)
}

fn clicked(desk: &Desk, payload: &Value) -> Answer {
    let (at, body) = (Timestamp::now().as_second(), form(payload));
    post(desk, at, &body, &signed(SIGNING, at, &body))
}

#[test]
fn a_call_is_shown_in_slack_and_approved_by_a_click_and_the_message_says_so() {
    let home = Home::new();
    let server = workspace();
    let desk = Desk::with_config(&home, &config(&home, &server, CLICKS));
    let mut gate = gate(&home, PEOPLE);
    gate.send(&call(1, &json!({"amount": 950, "note": "<!channel> & *bold* ```x```"})));
    let message = wait_for(&server, "chat.postMessage", 1).remove(0);
    let text = message["blocks"].to_string();
    for part in [
        "billing.send_refund waits for approval",
        "950",
        "A person looks at it.",
        "1 of finance",
        "client-of:",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    // What a stranger has written stands only where Slack reads no markup, and nowhere in `text`.
    let preformatted =
        &message["blocks"].as_array().unwrap().iter().find(|block| block["type"] == "rich_text").unwrap();
    let shown = preformatted["elements"][0]["elements"][0]["text"].as_str().unwrap();
    assert!(shown.contains("<!channel> & *bold* ```x```"), "{shown}");
    assert!(!message["text"].as_str().unwrap().contains('<') && !text.contains("mrkdwn"));
    assert_eq!(ids(&message), ["approve", "reject", "open"]);
    let open = buttons(&message).remove(2).1;
    let id = home.wait_for_holds(1).remove(0);
    assert_eq!(open["url"], format!("{}/holds/{id}", desk.origin()));
    let value = buttons(&message).remove(0).1["value"].as_str().unwrap().to_owned();
    settled(&home, "chat");
    knows(&home, &desk, 1);
    assert_eq!(clicked(&desk, &click("1700000000.000000", "U0ALICE", "open", "", "")).status, 200);
    assert_eq!(
        clicked(&desk, &click("1700000000.000000", "U0ALICE", "approve", &value, "checked")).status,
        200
    );
    assert_eq!(gate.receive()["id"], 1, "it ran");
    let changed = wait_for(&server, "chat.update", 1).remove(0);
    assert_eq!(changed["ts"], "1700000000.000000");
    let text = changed["blocks"].to_string();
    assert!(text.contains("was approved by alice") && text.contains("checked"), "{text}");
    assert_eq!(ids(&changed), ["open"], "nothing is left to click");
    let hold = home.show(&id);
    assert_eq!(value, format!("{id}:{}", hold["shown_sha256"].as_str().unwrap()));
    assert_eq!(hold["votes"][0]["shown_sha256"], hold["shown_sha256"], "{hold}");
    assert_eq!(settled(&home, "chat"), 0);
    assert_eq!(asked(&server, "chat.postMessage").len(), 1);
    home.verify();
    assert_published(&server);
}

#[test]
fn a_click_counts_only_from_slack_now_once_there_and_from_somebody_who_may() {
    let home = Home::new();
    let server = workspace();
    let desk = Desk::with_config(&home, &config(&home, &server, CLICKS));
    let mut gate = gate(&home, PEOPLE);
    gate.send(&call(1, &json!({"amount": 950})));
    let message = wait_for(&server, "chat.postMessage", 1).remove(0);
    let value = buttons(&message).remove(0).1["value"].as_str().unwrap().to_owned();
    let ts = "1700000000.000000";
    settled(&home, "chat");
    knows(&home, &desk, 1);
    let good = click(ts, "U0ALICE", "approve", &value, "");
    let (now, body) = (Timestamp::now().as_second(), form(&good));
    for (at, signed_at, secret) in [
        (now - 400, now - 400, SIGNING),
        (now + 400, now + 400, SIGNING),
        (now, now - 1, SIGNING),
        (now, now, "other"),
    ] {
        assert_eq!(post(&desk, at, &body, &signed(secret, signed_at, &body)).status, 401);
    }
    assert_eq!(post(&desk, now, &body, "").status, 401);
    let longer = format!("{body}&payload=%7B%7D");
    assert_eq!(
        post(&desk, now, &longer, &signed(SIGNING, now, &body)).status,
        401,
        "other bytes than those signed"
    );
    assert_eq!(post(&desk, now, &longer, &signed(SIGNING, now, &longer)).status, 400, "two payloads");
    let with = |pointer: &str, other: Value| {
        let mut payload = good.clone();
        *payload.pointer_mut(pointer).unwrap() = other;
        payload
    };
    for (pointer, other) in [
        ("/team/id", json!("T0OTHER")),
        ("/user/team_id", json!("T0OTHER")),
        ("/api_app_id", json!("A0OTHER")),
        ("/container/channel_id", json!("C0OTHER")),
    ] {
        assert_eq!(clicked(&desk, &with(pointer, other)).status, 403, "{pointer}");
    }
    for (pointer, other) in [("/actions/0/value", json!("x")), ("/actions/0/value", json!("no-hold:00"))] {
        assert_eq!(clicked(&desk, &with(pointer, other)).status, 400, "{pointer}");
    }
    assert_eq!(
        clicked(&desk, &with("/type", json!("view_submission"))).status,
        200,
        "which means nothing here"
    );
    // Taken, and answered to the one who clicked alone.
    let refused = [
        (with("/container/message_ts", json!("1600000000.000000")), "another message"),
        (with("/user/id", json!("U0MALLORY")), "may not decide"),
        (with("/user/id", json!("U0CAROL")), "may not decide"),
        (with("/actions/0/action_id", json!("reject")), "needs a reason"),
        (
            with(
                "/actions/0/value",
                json!(format!("{}:{}", value.split(':').next().unwrap(), "0".repeat(64))),
            ),
            "look at the call again",
        ),
    ];
    for (at, (payload, why)) in refused.iter().enumerate() {
        assert_eq!(clicked(&desk, payload).status, 200);
        let whispered = wait_for(&server, "chat.postEphemeral", at + 1).remove(at);
        assert_eq!(whispered["user"], payload["user"]["id"]);
        assert!(whispered["text"].as_str().unwrap().contains(why), "{why} in {whispered}");
    }
    assert_eq!(home.holds().len(), 1, "it waits still");
    let (at, body) = (Timestamp::now().as_second(), form(&click(ts, "U0BOB", "reject", &value, "not today")));
    let signature = signed(SIGNING, at, &body);
    assert_eq!(post(&desk, at, &body, &signature).status, 200);
    let answer = gate.receive();
    assert!(answer["result"]["content"][0]["text"].as_str().unwrap().contains("not today"), "{answer}");
    assert_eq!(post(&desk, at, &body, &signature).status, 409, "the same again");
    home.verify();
}

#[test]
fn a_message_that_cannot_show_the_whole_call_has_no_approve_button() {
    let mut sent = Vec::new();
    for (arguments, clicks) in [
        (json!({"text": "x".repeat(3000)}), CLICKS),
        (json!({"password": "hunter2hunter2"}), CLICKS),
        (json!({"file": "a\u{202e}gnp.exe"}), CLICKS),
        (json!({"amount": 1}), ""),
    ] {
        let home = Home::new();
        let server = workspace();
        let _desk = Desk::with_config(&home, &config(&home, &server, clicks));
        let mut gate = gate(&home, PEOPLE);
        gate.send(&call(1, &arguments));
        let message = wait_for(&server, "chat.postMessage", 1).remove(0);
        assert_eq!(ids(&message), ["open"], "{message}");
        assert!(!message.to_string().contains("hunter2"));
        sent.extend(server.asked().iter().map(shapes::slack));
    }
    shapes::assert_published(&sent);
}

#[test]
fn slack_may_ask_for_patience_or_refuse_for_good() {
    for (first, asked_for, given_up) in [
        (
            response("429 Too Many Requests", "retry-after: 1\r\n", r#"{"ok":false,"error":"ratelimited"}"#),
            2,
            0,
        ),
        (response("200 OK", "", r#"{"ok":false,"error":"internal_error"}"#), 2, 0),
        (response("200 OK", "", "<html>"), 2, 0),
        (response("200 OK", "", r#"{"ok":false,"error":"invalid_blocks"}"#), 1, 1),
    ] {
        let home = Home::new();
        let last = response("200 OK", "", r#"{"ok":true,"channel":"C0OPS","ts":"1700000000.000000"}"#);
        let server = Server::start(in_turn(vec![first, last]));
        let _desk = Desk::with_config(&home, &config(&home, &server, ""));
        let mut gate = gate(&home, PEOPLE);
        gate.send(&call(1, &json!({})));
        home.wait_for_holds(1);
        until(|| (server.asked().len() >= asked_for).then_some(()));
        assert_eq!(settled(&home, "chat"), given_up);
        assert_eq!(server.asked().len(), asked_for);
    }
}

#[test]
fn votes_and_escalations_change_the_message_and_make_a_sound_where_they_should() {
    let home = Home::new();
    let server = workspace();
    let policy = PEOPLE.replace("approvers: [finance]", "approvers: [finance], required_approvals: 2");
    let desk = Desk::with_config(&home, &config(&home, &server, CLICKS));
    let mut gate = gate(&home, &policy);
    gate.send(&call(1, &json!({"amount": 950})));
    let message = wait_for(&server, "chat.postMessage", 1).remove(0);
    let value = buttons(&message).remove(0).1["value"].as_str().unwrap().to_owned();
    settled(&home, "chat");
    knows(&home, &desk, 1);
    let ts = "1700000000.000000";
    assert_eq!(clicked(&desk, &click(ts, "U0ALICE", "approve", &value, "")).status, 200);
    let changed = wait_for(&server, "chat.update", 1).remove(0);
    assert!(changed.to_string().contains("Approved\\nalice"), "{changed}");
    assert_eq!(ids(&changed), ["approve", "reject", "open"], "more people are needed");
    assert_eq!(clicked(&desk, &click(ts, "U0ALICE", "approve", &value, "once more")).status, 200);
    let whispered = wait_for(&server, "chat.postEphemeral", 1).remove(0);
    assert!(whispered.to_string().contains("one human has one vote"), "{whispered}");
    assert_eq!(clicked(&desk, &click(ts, "U0BOB", "approve", &value, "")).status, 200);
    assert_eq!(gate.receive()["id"], 1, "it ran");
    wait_for(&server, "chat.update", 2);
    assert_published(&server);
}

#[test]
fn an_escalation_brings_in_the_channel_of_its_step_and_is_heard_where_it_was_told_before() {
    let home = Home::new();
    let (server, pager) = (workspace(), super::service("202 Accepted", "{}"));
    home.file("key", "0123456789abcdef0123456789abcdef");
    let more = format!(
        "  pager:\n    pagerduty:\n      routing_key: {{file: key}}\n      url: http://{}/v2/enqueue\n      private_network: true\n",
        pager.address
    );
    let _desk = Desk::with_config(&home, &config(&home, &server, &more));
    until(|| home.store().exists().then_some(()));
    for channel in ["chat", "pager"] {
        settled(&home, channel);
    }
    // What a gate writes down: a call that was held a while ago, and then the step of its escalation.
    let now = Timestamp::now();
    let step = Step { after_seconds: 600, to: vec!["on-call".into()], notify: vec!["pager".into()] };
    let requirement = Requirement {
        rule: "refunds".into(),
        seats: Vec::new(),
        steps: vec![step],
        signed: false,
        min_assurance: Assurance::L0,
    };
    let quorum = Quorum {
        grant_seconds: None,
        may_elicit: false,
        requirements: vec![requirement],
        required_rejections: 1,
        remind_seconds: None,
        notify: vec!["chat".into()],
        remember: None,
        may_edit: false,
    };
    let hold = held_before(now - jiff::SignedDuration::from_mins(11), quorum);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let store = Store::open(&home.store());
        store.record_hold(hold.clone()).await.unwrap();
        store.ride_along(AuditEvent::of(Occasion::Escalated, &hold, "gate", now));
        store.flush().await.unwrap();
    });
    let event = super::heard(&pager, 1)[0].json();
    assert_eq!(event["event_action"], "trigger");
    assert!(event["payload"]["summary"].as_str().unwrap().contains("waits for approval"), "{event}");
    let told = wait_for(&server, "chat.postMessage", 2);
    assert_eq!(
        (told[1]["thread_ts"].as_str(), told[0]["thread_ts"].as_str()),
        (Some("1700000000.000000"), None)
    );
    assert_eq!((settled(&home, "chat"), settled(&home, "pager")), (0, 0));
    assert_eq!((pager.asked().len(), asked(&server, "chat.postMessage").len()), (1, 2));
}

/// A hold as a gate writes it down.
fn held_before(created_at: Timestamp, quorum: Quorum) -> NewHold {
    let frame =
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"send_refund","arguments":{}}}"#;
    NewHold {
        id: HoldId([7; 16]),
        owner: "gate".into(),
        server: "billing".into(),
        method: "tools/call".into(),
        tool: "send_refund".into(),
        agent: "agent 1.0".into(),
        principal: "client-of:dev".into(),
        frame: frame.into(),
        frame_sha256: Digest::of(frame.as_bytes()),
        policy_sha256: Digest::of(b""),
        call_sha256: None,
        tool_sha256: None,
        terms_sha256: None,
        quorum: Some(std::sync::Arc::new(quorum)),
        rules: vec!["refunds".into()],
        reason: "A person looks at it.".into(),
        notes: Vec::new(),
        created_at,
        expires_at: created_at + jiff::SignedDuration::from_mins(60),
    }
}
