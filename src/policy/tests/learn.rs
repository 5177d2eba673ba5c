//! Policies from recorded calls, and what policies say of recorded calls.

use super::*;
use crate::policy::learn::{RecordedCall, propose, replay};

fn recorded(server: &str, tool: &str, arguments: &str) -> RecordedCall {
    RecordedCall {
        server: server.to_owned(),
        method: "tools/call".to_owned(),
        tool: Some(tool.to_owned()),
        arguments: Some(arguments.to_owned()).filter(|text| !text.is_empty()),
        client: "agent".to_owned(),
        principal: "client-of:alice".to_owned(),
        at: "2026-11-21T10:00:00Z".parse().unwrap(),
    }
}

#[test]
fn a_proposed_policy_allows_what_reads_and_what_is_usual_and_holds_the_rest() {
    let mut calls: Vec<RecordedCall> = (1..=20)
        .map(|amount| recorded("billing", "send_refund", &format!(r#"{{"amount": {amount}.50}}"#)))
        .collect();
    calls.push(recorded("billing", "get_order", r#"{"id": 1}"#));
    calls.push(recorded("billing", "listInvoices", "{}"));
    calls.push(recorded("billing", "read_and_delete", "{}"));
    calls.push(recorded("db", "drop[all]*", r#"{"amount": 1}"#));
    let text = propose(&calls).unwrap();
    let learned = policy(&text);
    allow!(learned, "billing.get_order");
    allow!(learned, "billing.listInvoices");
    hold!(learned, "billing.read_and_delete");
    hold!(learned, "other.get_order");
    hold!(learned, "billing.new_tool");
    allow!(learned, r#"billing.send_refund {"amount": 19.5}"#);
    hold!(learned, r#"billing.send_refund {"amount": 19.51}"#);
    hold!(learned, "billing.send_refund");
    hold!(learned, "db.drop[all]*");
    assert_eq!(judge(&learned, "db.dropa").rules.len(), 0, "its name is no pattern");
    assert!(learned.warnings().is_empty(), "{:?}", learned.warnings());
}

#[test]
fn nothing_recorded_means_that_everything_waits() {
    hold!(policy(&propose(&[]).unwrap()), "anything");
}

#[test]
fn a_replay_says_what_would_have_happened_to_each_call_or_that_it_cannot_tell() {
    let policy = policy(
        "version: 1\nmode: audit\nrules:\n  - {name: big, tool: pay, when: args.n > 5, action: hold}\n  \
         - {name: ok, tool: pay, action: allow}\n  - {name: never, tool: wipe, action: deny}\n",
    );
    let calls = [
        recorded("s", "pay", r#"{"n": 9}"#),
        recorded("s", "pay", r#"{"n": 1}"#),
        recorded("s", "pay", ""),
        recorded("s", "wipe", ""),
        recorded("s", "else", "{}"),
    ];
    let effects: Vec<_> = replay(&policy, &calls).into_iter().map(|call| call.effect).collect();
    let expected = [Some(Effect::Hold), Some(Effect::Allow), None, Some(Effect::Deny), Some(Effect::Hold)];
    assert_eq!(effects, expected);
}
