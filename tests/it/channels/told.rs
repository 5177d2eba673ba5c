//! Channels that only tell: Microsoft Teams, PagerDuty, SMS, the desktop. Each peer checks what it gets as the service does.

use std::os::unix::fs::PermissionsExt;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde_json::{Value, json};

use super::{call, gate, heard, settled, shapes};
use crate::support::{
    browser::Desk,
    http::{Message, Server, json as response},
    program::{Home, Wrapped, until},
};

const HOLD_ALL: &str = "version: 1\ndefault: hold\n";

/// A desk with one channel, and a call that waits.
fn held(home: &Home, config: &str) -> (Desk, Wrapped, String) {
    let desk = Desk::with_config(home, config);
    let mut gate = gate(home, HOLD_ALL);
    gate.send(&call(1, &json!({"amount": 950, "to": "[x](https://evil.example) *b*"})));
    let id = home.wait_for_holds(1).remove(0);
    (desk, gate, id)
}

fn reject(home: &Home, id: &str) {
    assert!(home.holdshort(["reject", id, "--reason", "not today"]).status.success());
}

/// What a workflow takes: an adaptive card in a message, below 28 KiB.
fn card(message: &Message) -> Value {
    assert!(message.body.len() < 28 << 10);
    assert_eq!(message.header("content-type"), Some("application/json"));
    let message = message.json();
    assert_eq!(message["type"], "message");
    let attachment = &message["attachments"][0];
    assert_eq!(attachment["contentType"], "application/vnd.microsoft.card.adaptive");
    let card = attachment["content"].clone();
    assert_eq!((&card["type"], &card["version"]), (&json!("AdaptiveCard"), &json!("1.4")));
    for block in card["body"].as_array().unwrap() {
        // The elements that a card may have here, and none in which markup is read.
        assert_eq!(block["type"], "RichTextBlock");
        assert!(
            block["inlines"]
                .as_array()
                .unwrap()
                .iter()
                .all(|run| run["type"] == "TextRun" && run["text"].is_string())
        );
    }
    card
}

#[test]
fn teams_gets_a_card_when_a_call_is_held_and_another_when_it_has_ended() {
    let home = Home::new();
    let server = Server::start(Box::new(|_, say| say(b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n")));
    home.file("url", &format!("http://{}/workflows/1/triggers/manual?sig=secret", server.address));
    let config = "channels: {team: {teams: {url: {file: url}, private_network: true}}}\n";
    let (desk, gate, id) = held(&home, config);
    let first = card(&heard(&server, 1)[0]);
    assert!(heard(&server, 1)[0].first.contains("/workflows/1/triggers/manual?sig=secret"));
    let text = first.to_string();
    for part in ["billing.send_refund waits for approval", "950", "[x](https://evil.example) *b*"] {
        assert!(text.contains(part), "{part} in {text}");
    }
    assert_eq!(
        first["actions"],
        json!([{"type": "Action.OpenUrl", "title": "Open context", "url": format!("{}/holds/{id}", desk.origin())}])
    );
    reject(&home, &id);
    gate.receive();
    let second = card(&heard(&server, 2)[1]).to_string();
    assert!(second.contains("was rejected by") && second.contains("not today"), "{second}");
    assert_eq!(settled(&home, "team"), 0);
    shapes::assert_published(&server.asked().iter().map(shapes::teams).collect::<Vec<_>>());
}

/// PagerDuty, as its Events API v2 says: keys that belong together, and errors for what is not an event.
fn pagerduty() -> Server {
    Server::start(Box::new(|request, say| {
        let event = request.json();
        let action = event["event_action"].as_str().unwrap_or_default();
        let payload = &event["payload"];
        let is_payload =
            payload["summary"].as_str().is_some_and(|text| !text.is_empty() && text.chars().count() <= 1024)
                && payload["source"].is_string()
                && ["critical", "error", "warning", "info"]
                    .contains(&payload["severity"].as_str().unwrap_or_default());
        let is_event = event["routing_key"] == "0123456789abcdef0123456789abcdef"
            && event["dedup_key"].as_str().is_some_and(|key| key.len() <= 255)
            && match action {
                "trigger" => is_payload,
                "acknowledge" | "resolve" => true,
                _ => false,
            };
        say(&if is_event {
            response(
                "202 Accepted",
                "",
                &json!({"status": "success", "message": "Event processed", "dedup_key": event["dedup_key"]})
                    .to_string(),
            )
        } else {
            response(
                "400 Bad Request",
                "",
                r#"{"status":"invalid event","message":"Event object is invalid"}"#,
            )
        });
    }))
}

#[test]
fn pagerduty_is_triggered_acknowledged_by_a_vote_and_resolved_at_the_end() {
    let home = Home::new();
    let server = pagerduty();
    home.file("key", "0123456789abcdef0123456789abcdef");
    let own =
        String::from_utf8(std::process::Command::new("id").arg("-un").output().unwrap().stdout).unwrap();
    let policy = format!(
        "version: 1\npeople:\n  me: {{roles: [finance], identities: [\"uid:{}\"]}}\n  bob: {{roles: [finance], identities: \
         [\"webhook:x/bob\"]}}\ndefault: allow\nrules:\n  - {{name: r, tool: '*', action: hold, reason: r, approvers: [finance], \
         required_approvals: 2, required_rejections: 2}}\n",
        own.trim()
    );
    let config = format!(
        "channels: {{pager: {{pagerduty: {{routing_key: {{file: key}}, severity: critical, url: \"http://{}/v2/enqueue\", \
         private_network: true}}}}}}\n",
        server.address
    );
    let desk = Desk::with_config(&home, &config);
    let mut gate = gate(&home, &policy);
    gate.send(&call(1, &json!({"amount": 950})));
    let id = home.wait_for_holds(1).remove(0);
    let event = heard(&server, 1)[0].json();
    assert_eq!(
        (&event["event_action"], &event["payload"]["severity"]),
        (&json!("trigger"), &json!("critical"))
    );
    assert_eq!(event["links"][0]["href"], format!("{}/holds/{id}", desk.origin()));
    assert!(event["payload"]["custom_details"].to_string().contains("950"));
    // The owner of the client may say no, and is one of two who are needed for it.
    reject(&home, &id);
    assert_eq!(heard(&server, 2)[1].json()["event_action"], "acknowledge");
    gate.send(
        &json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}})
            .to_string(),
    );
    let last = heard(&server, 3)[2].json();
    assert_eq!((&last["event_action"], &last["dedup_key"]), (&json!("resolve"), &event["dedup_key"]));
    assert_eq!(settled(&home, "pager"), 0);
    shapes::assert_published(&server.asked().iter().map(shapes::pagerduty).collect::<Vec<_>>());
}

#[test]
fn an_sms_says_that_a_call_waits_and_each_number_is_told_on_its_own() {
    let home = Home::new();
    let server = Server::start(Box::new(|request, say| {
        let account = "AC0123456789abcdef0123456789abcdef";
        let basic = format!("Basic {}", BASE64_STANDARD.encode(format!("{account}:token")));
        let path = format!("POST /2010-04-01/Accounts/{account}/Messages.json HTTP/1.1");
        let form: Vec<(String, String)> = url::form_urlencoded::parse(&request.body).into_owned().collect();
        let field =
            |name: &str| form.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str());
        say(&if request.first != path || request.header("authorization") != Some(&basic) {
            response("401 Unauthorized", "", r#"{"code":20003,"message":"Authenticate","status":401}"#)
        } else if field("To") == Some("+15550000000") {
            response(
                "400 Bad Request",
                "",
                r#"{"code":21211,"message":"Invalid 'To' Phone Number","status":400}"#,
            )
        } else if field("Body").is_none_or(|body| body.chars().count() > 1600) {
            response("400 Bad Request", "", r#"{"code":21617,"status":400}"#)
        } else {
            response("201 Created", "", r#"{"sid":"SM0123456789abcdef0123456789abcdef","status":"queued"}"#)
        });
    }));
    home.file("token", "token\n");
    let config = format!(
        "channels: {{phones: {{sms: {{account: AC0123456789abcdef0123456789abcdef, token: {{file: token}}, from: \"+15550100000\", \
         to: [\"+15551234567\", \"+15550000000\"], api: \"http://{}\", private_network: true}}}}}}\n",
        server.address
    );
    let (desk, gate, id) = held(&home, &config);
    heard(&server, 2);
    assert_eq!((settled(&home, "phones/+15551234567"), settled(&home, "phones/+15550000000")), (0, 1));
    let to = |number: &str| -> Vec<String> {
        let forms = server
            .asked()
            .into_iter()
            .map(|message| url::form_urlencoded::parse(&message.body).into_owned().collect::<Vec<_>>());
        forms
            .filter(|form: &Vec<(String, String)>| form.contains(&("To".to_owned(), number.to_owned())))
            .map(|form| form.into_iter().find(|(name, _)| name == "Body").unwrap().1)
            .collect()
    };
    let text = to("+15551234567").remove(0);
    assert!(
        text.contains("billing.send_refund waits")
            && text.ends_with(&format!("{}/holds/{id}", desk.origin())),
        "{text}"
    );
    assert!(!text.contains("950"), "nothing of the arguments");
    reject(&home, &id);
    gate.receive();
    until(|| Some(to("+15551234567")).filter(|told| told.len() == 2 && told[1].contains("was rejected")));
    settled(&home, "phones/+15550000000");
    assert_eq!(to("+15550000000").len(), 1, "the end of what was never told is not told");
    let account = "AC0123456789abcdef0123456789abcdef";
    let sent = server.asked();
    shapes::assert_published(
        &sent.iter().map(|sent| shapes::twilio(sent, account, "token")).collect::<Vec<_>>(),
    );
}

#[test]
fn the_desktop_shows_a_notification_and_changes_it() {
    let home = Home::new();
    let log = home.path().join("notified");
    let script = format!("#!/bin/sh\nprintf '%s\\n' \"$@\" --- >> '{}'\necho 42\n", log.display());
    let bin = home.path().join("bin");
    std::fs::create_dir(&bin).unwrap();
    let command = bin.join(if cfg!(target_os = "macos") { "osascript" } else { "notify-send" });
    std::fs::write(&command, script).unwrap();
    std::fs::set_permissions(&command, std::fs::Permissions::from_mode(0o755)).unwrap();
    let config = home.file("desk.yaml", "channels: {screen: {desktop: {}}}\n");
    let mut desk = home.command();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    desk.env("PATH", path).args(["desk", "--listen", "127.0.0.1:0", "--config"]).arg(config);
    let _desk = Desk::started(desk);
    let mut gate = gate(&home, HOLD_ALL);
    let params = json!({"name": "<b>pay</b>", "arguments": {}});
    gate.send(&json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}).to_string());
    let id = home.wait_for_holds(1).remove(0);
    let shown = |count: usize| {
        until(|| std::fs::read_to_string(&log).ok().filter(|text| text.matches("---").count() >= count))
    };
    let first = shown(1);
    assert!(first.contains("A call waits for approval\nbilling."), "{first}");
    if cfg!(target_os = "linux") {
        assert!(first.contains("&lt;b&gt;pay") && !first.contains("--replace-id"), "{first}");
    }
    settled(&home, "screen");
    reject(&home, &id);
    gate.receive();
    let second = shown(2);
    assert!(second.contains("A call does not wait any more"), "{second}");
    if cfg!(target_os = "linux") {
        assert!(second.contains("--replace-id=42"), "{second}");
    }
    assert_eq!(settled(&home, "screen"), 0);
}
