//! What was sent to services, recorded as it came over the wire, against what those who run them publish: the types of Slack's and PagerDuty's
//! clients, the reader of Adaptive Cards, the requests of Twilio's client. They come from npm, by tests/peers/install.sh.
//!
//! No service publishes a machine-readable form of everything that it demands. Lengths are in none of these, and neither is what Teams refuses
//! beyond the form of a card: for those, the peers of the other tests say no as the documentation does.

use std::{
    io::Write,
    process::{Command, Stdio},
};

use serde_json::{Value, json};

use crate::support::{http::Message, peers::installed};

/// A request of Slack's Web API.
pub(super) fn slack(message: &Message) -> Value {
    let method = message.first.split(' ').nth(1).unwrap().rsplit('/').next().unwrap();
    json!({"kind": method, "body": message.json()})
}

/// A message for a workflow of Teams.
pub(super) fn teams(message: &Message) -> Value {
    json!({"kind": "teams", "body": message.json()})
}

/// An event for PagerDuty.
pub(super) fn pagerduty(message: &Message) -> Value {
    json!({"kind": "pagerduty", "body": message.json()})
}

/// A message for Twilio, of an account with a token.
pub(super) fn twilio(message: &Message, account: &str, token: &str) -> Value {
    let mut words = message.first.split(' ');
    let form: Vec<(String, String)> = url::form_urlencoded::parse(&message.body).into_owned().collect();
    let field = |name: &str| form.iter().find(|(found, _)| found == name).map(|(_, value)| value.clone());
    json!({
        "kind": "twilio",
        "account": account,
        "token": token,
        "from": field("From"),
        "to": field("To"),
        "text": field("Body"),
        "method": words.next(),
        "path": words.next(),
        "contentType": message.header("content-type"),
        "authorization": message.header("authorization"),
        "body": message.text(),
    })
}

/// What is not as it is published, for each of `shapes`.
fn problems(shapes: &[Value]) -> Vec<Vec<String>> {
    let mut child = Command::new("node")
        .arg(installed("shapes.mjs"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(&serde_json::to_vec(shapes).unwrap()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    let problems: Vec<Vec<String>> = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(problems.len(), shapes.len());
    problems
}

/// Everything that was sent is as it is published.
pub(super) fn assert_published(shapes: &[Value]) {
    assert!(!shapes.is_empty());
    for (shape, problems) in shapes.iter().zip(problems(shapes)) {
        assert!(problems.is_empty(), "{problems:#?} in {shape:#}");
    }
}

#[test]
fn what_is_not_as_it_is_published_is_found() {
    let button = json!({"type": "button", "action_id": "a", "text": {"type": "plain_text", "text": "A"}});
    let slack = |block: Value| json!({"kind": "chat.postMessage", "body": {"channel": "C1", "text": "t", "blocks": [block]}});
    let card = |line: Value, action: Value| {
        let card = json!({"type": "AdaptiveCard", "version": "1.4", "body": [line], "actions": [action]});
        let kind = "application/vnd.microsoft.card.adaptive";
        json!({"kind": "teams", "body": {"type": "message", "attachments": [{"contentType": kind, "content": card}]}})
    };
    let line = |name: &str| json!({"type": "RichTextBlock", "inlines": [{"type": "TextRun", "text": "t", name: "Monospace"}]});
    let action = json!({"type": "Action.OpenUrl", "title": "t", "url": "https://desk.example.com"});
    let event = |body: Value| json!({"kind": "pagerduty", "body": body});
    let payload = |severity: &str| json!({"summary": "s", "source": "b", "severity": severity});
    let sms = |path: &str, body: &str| {
        json!({
            "kind": "twilio", "account": "AC1", "token": "t", "from": "+1", "to": "+2", "text": "x", "method": "POST", "path": path,
            "contentType": "application/x-www-form-urlencoded", "authorization": "Basic QUMxOnQ=", "body": body,
        })
    };
    let messages = "/2010-04-01/Accounts/AC1/Messages.json";
    let good = [
        slack(json!({"type": "actions", "elements": [button]})),
        card(line("fontType"), action.clone()),
        event(json!({"routing_key": "k", "event_action": "trigger", "payload": payload("info")})),
        event(json!({"routing_key": "k", "event_action": "resolve", "dedup_key": "d"})),
        sms(messages, "From=%2B1&To=%2B2&Body=x"),
    ];
    assert_published(&good);
    let bad = [
        slack(json!({"type": "header", "text": {"type": "mrkdwn", "text": "t"}})),
        slack(json!({"type": "section", "fields": ["t"]})),
        slack(json!({"type": "actions", "elements": [{"type": "button", "action_id": "a"}]})),
        json!({"kind": "chat.update", "body": {"channel": "C1", "text": "t"}}),
        json!({"kind": "chat.update", "body": {"channel": "C1", "ts": "1.2", "text": "t", "unfurl_links": false}}),
        card(line("fonttype"), action.clone()),
        card(json!({"type": "RichText", "inlines": []}), action),
        card(line("fontType"), json!({"type": "Action.OpenUrl", "title": "t"})),
        event(json!({"routing_key": "k", "event_action": "trigger", "payload": payload("urgent")})),
        event(json!({"routing_key": "k", "event_action": "trigger"})),
        event(json!({"event_action": "resolve", "dedup_key": "d"})),
        sms(messages, "From=%2B1&To=%2B2&Text=x"),
        sms("/2010-04-01/Accounts/AC1/Messages", "From=%2B1&To=%2B2&Body=x"),
        json!({"kind": "unheard-of", "body": {}}),
    ];
    for (shape, problems) in bad.iter().zip(problems(&bad)) {
        assert!(!problems.is_empty(), "{shape:#}");
    }
}
