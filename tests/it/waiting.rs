//! What outlives a caller, where it matters by what a rule or an override names it and for how long it counts: overrides, grants and the
//! states that clients bring back. What a session of one client sees is in the transcripts.

use std::sync::Arc;

use bytes::Bytes;
use holdshort::{
    gate::{Caller, Gate, GateLimits, Refusal, Released, ResolveError, Screened},
    hold::{Absence, HoldId, Said, State, Verdict},
    jsonrpc::Frame,
    policy::{Policy, Source},
    principal::Principal,
    store::{Store, WITHOUT_CALLER_MAX},
};
use jiff::{SignedDuration, Timestamp};

const PEOPLE: &str = "people: {ann: {roles: [finance], identities: [\"uid:ann\"]}}\n";
const HOLD: &str = "rules: [{name: danger, tool: danger, action: hold}]\n";
const HOLD_FINANCE: &str = "rules: [{name: danger, tool: danger, action: hold, approvers: [finance]}]\n";

fn policy(text: &str) -> Policy {
    let text = format!("version: 1\n{text}");
    Policy::parse(vec![Source { name: "policy.yaml".into(), text }])
        .unwrap_or_else(|e| panic!("{}", e.render(false)))
}

fn gate(policy_text: &str) -> Arc<Gate> {
    let policy = Arc::new(policy(policy_text));
    Arc::new(Gate::new("gate".into(), policy, Store::in_memory(), GateLimits::default()))
}

fn caller(uid: u32) -> Caller {
    Caller::new(&Principal::Client { uid, name: None }, "server".into())
}

fn user(name: &str) -> Principal {
    Principal::User { uid: 1000, name: Some(name.into()) }
}

const MODERN: &str = r#","_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}"#;

fn call(arguments: &str, more: &str) -> Frame {
    let line = format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"danger","arguments":{arguments}{more}}}}}"#
    );
    Frame::from_client(Bytes::from(line)).unwrap()
}

/// A call that waits without its caller.
async fn left(gate: &Arc<Gate>, arguments: &str) -> HoldId {
    let Screened::Hold(held) = gate.screen(&caller(1), call(arguments, "")) else { panic!("it is held") };
    let held = match gate.record(held).await {
        Ok(held) => held,
        Err(released) => panic!("{released:?}"),
    };
    let id = held.id();
    gate.detach(id, Absence::ClientGone);
    let Released::Withdrawn { end, .. } = gate.wait(held).await else { panic!("its caller is gone") };
    gate.record_withdrawal(end).await;
    id
}

/// What becomes at once of a call that is made by `caller`; none: it waits.
async fn made(gate: &Arc<Gate>, caller: &Caller, frame: Frame) -> Option<Released> {
    let Screened::Hold(held) = gate.screen(caller, frame) else { panic!("it is held") };
    let ticket = held.id();
    match gate.record(held).await {
        Ok(held) => {
            gate.detach(ticket, Absence::ClientGone);
            let Released::Withdrawn { end, .. } = gate.wait(held).await else { panic!("its caller is gone") };
            gate.record_withdrawal(end).await;
            None
        }
        Err(released) => Some(*released),
    }
}

#[tokio::test]
async fn an_agent_leaves_so_many_calls_behind_and_no_more() {
    let gate = gate(HOLD);
    let number = |number: usize| format!("{{\"n\":{number}}}");
    let first = left(&gate, &number(0)).await;
    for other in 1..WITHOUT_CALLER_MAX {
        left(&gate, &number(other)).await;
    }
    let new = || call(&number(WITHOUT_CALLER_MAX), "");
    let Some(Released::Refuse(refusal)) = made(&gate, &caller(1), new()).await else {
        panic!("it is refused")
    };
    assert!(refusal.text.contains("1000 calls of this agent wait already"), "{}", refusal.text);
    assert_eq!((gate.holds_len(), gate.detached().await.unwrap().len()), (0, WITHOUT_CALLER_MAX));
    assert!(made(&gate, &caller(2), new()).await.is_none(), "it is another agent's limit");
    assert!(made(&gate, &caller(1), call(&number(0), "")).await.is_none(), "it is one of them, made again");
    gate.resolve(first, Verdict::Reject, &user("ann"), Some("No.")).await.unwrap();
    assert!(made(&gate, &caller(1), new()).await.is_none(), "there is room again");
}

#[tokio::test]
async fn a_call_that_is_made_again_is_decided_by_what_was_shown_of_it_before() {
    for rules in [HOLD.to_owned(), format!("{PEOPLE}{HOLD_FINANCE}")] {
        let gate = gate(&rules);
        let id = left(&gate, "{}").await;
        let shown = gate.store().hold(id).await.unwrap().unwrap().hold.shown();
        let again = call("{}", "").text().replace("\"id\":1", "\"id\": 7");
        let Screened::Hold(held) = gate.screen(&caller(1), Frame::from_client(again.into()).unwrap()) else {
            panic!("it is held")
        };
        let held = gate.record(held).await.unwrap_or_else(|released| panic!("{released:?}"));
        assert_eq!(held.id(), id, "the same hold, in other bytes");
        assert_ne!(gate.held(id).unwrap().shown(), shown);
        let keeper = Arc::clone(&gate);
        let released = tokio::spawn(async move { keeper.wait(held).await });
        let said = Said { shown_sha256: shown, ..Verdict::Approve.into() };
        assert_eq!(gate.resolve(id, said, &user("ann"), None).await.unwrap(), State::Forwarding);
        assert!(matches!(released.await.unwrap(), Released::Resume(_)));
        let votes = gate.store().hold(id).await.unwrap().unwrap().votes;
        assert_eq!((votes[0].shown_sha256, votes.len()), (shown, 1));
    }
}

fn overriding(hold: HoldId, more: &str) -> String {
    format!("overrides: [{{hold: \"{hold}\", until: \"2099-01-01T00:00:00Z\", reason: Agreed.{more}}}]\n")
}

#[tokio::test]
async fn an_override_names_a_hold_also_one_that_was_rejected_and_no_other_call() {
    let gate = gate(HOLD);
    let (waits, rejected) = (left(&gate, r#"{"n":1}"#).await, left(&gate, r#"{"n":2}"#).await);
    assert_eq!(
        gate.resolve(rejected, Verdict::Reject, &user("ann"), Some("no")).await.unwrap(),
        State::Rejected
    );
    for (hold, arguments) in [(waits, r#"{"n":1}"#), (rejected, r#"{ "n" : 2 }"#)] {
        if hold == rejected {
            // The rejection is told, once; then the call is one of its own again.
            assert!(matches!(
                made(&gate, &caller(1), call(arguments, "")).await,
                Some(Released::Refuse(refusal)) if refusal.text.starts_with("REJECTED")
            ));
        }
        assert!(gate.replace_policy(policy(&(overriding(hold, "") + HOLD)), "test"));
        // Neither another call nor the same one of somebody else.
        assert!(made(&gate, &caller(1), call(r#"{"n":3}"#, "")).await.is_none());
        assert!(made(&gate, &caller(2), call(arguments, "")).await.is_none());
        let Some(Released::Resume(approved)) = made(&gate, &caller(1), call(arguments, "")).await else {
            panic!("the override lets it through")
        };
        let record = gate.store().hold(approved.hold()).await.unwrap().unwrap();
        assert_eq!(record.state, State::Forwarding);
        assert!(record.votes[0].by.starts_with("policy override until 2099"), "{:?}", record.votes);
        assert_eq!(record.votes[0].comment.as_deref(), Some("Agreed."));
        gate.answered(approved.hold()).await;
    }
}

#[tokio::test]
async fn an_override_stands_in_for_the_people_of_a_rule_only_if_it_says_so() {
    let gate = gate(&format!("{PEOPLE}{HOLD_FINANCE}"));
    let hold = left(&gate, "{}").await;
    let rules = format!("{PEOPLE}{HOLD_FINANCE}");
    assert!(gate.replace_policy(policy(&(overriding(hold, "") + &rules)), "test"));
    assert!(made(&gate, &caller(1), call("{}", "")).await.is_none(), "finance has not been asked");
    let dangerous = overriding(hold, ", danger_skip_approvals: true") + &rules;
    assert!(gate.replace_policy(policy(&dangerous), "test"));
    assert!(matches!(made(&gate, &caller(1), call("{}", "")).await, Some(Released::Resume(_))));
    let denied = overriding(hold, ", danger_skip_approvals: true")
        + "rules: [{name: never, tool: danger, action: deny}]\n";
    assert!(gate.replace_policy(policy(&denied), "test"));
    assert!(matches!(gate.screen(&caller(1), call("{}", "")), Screened::Refuse(_)), "a denial stays one");
}

#[tokio::test]
async fn an_approval_counts_for_as_long_as_the_rule_says_or_the_policy_or_an_hour() {
    for (rules, seconds) in [
        (HOLD, 3600),
        ("waiting: {grant: 10m}\nrules: [{name: danger, tool: danger, action: hold}]\n", 600),
        (
            "waiting: {grant: 10m}\nrules: [{name: a, tool: danger, action: hold, grant: 2d}, {name: b, tool: \"*\", \
             action: hold, grant: 3d}]\n",
            2 * 86_400,
        ),
    ] {
        let gate = gate(rules);
        let hold = left(&gate, "{}").await;
        let before = Timestamp::now();
        assert_eq!(gate.resolve(hold, Verdict::Approve, &user("ann"), None).await.unwrap(), State::Granted);
        let lapses_at = gate.store().hold(hold).await.unwrap().unwrap().lapses_at.unwrap();
        let lives = lapses_at.duration_since(before);
        let expected = SignedDuration::from_secs(seconds);
        assert!(lives >= expected && lives < expected + SignedDuration::from_mins(1), "{rules}: {lives}");
    }
}

#[tokio::test]
async fn nobody_approves_through_a_client_what_the_rules_do_not_say_so_of() {
    let elicited = Principal::Elicited { client: "client-of:1".to_owned() };
    let asking = "rules: [{name: danger, tool: danger, action: hold, elicitation: true}]\n";
    for (rules, now, counts) in [
        (HOLD, None, false),
        (asking, None, true),
        // The rules in force have to say so too.
        (asking, Some(HOLD), false),
        (asking, Some("rules: [{name: danger, tool: danger, action: hold, signed: true}]\n"), false),
    ] {
        let gate = gate(rules);
        let hold = left(&gate, "{}").await;
        if let Some(now) = now {
            assert!(gate.replace_policy(policy(now), "test"));
        }
        let said = gate.resolve(hold, Verdict::Approve, &elicited, None).await;
        assert_eq!(said.is_ok(), counts, "{rules} {said:?}");
        assert!(counts || matches!(said, Err(ResolveError::NotAllowed(_))), "{said:?}");
    }
}

fn state_of(refusal: &Refusal) -> String {
    let text: serde_json::Value = serde_json::from_str(&refusal.text).unwrap();
    assert_eq!(text["resultType"], "input_required");
    text["requestState"].as_str().unwrap().to_owned()
}

#[tokio::test(start_paused = true)]
async fn a_state_is_nobody_elses_and_no_other_servers() {
    let gate = gate("waiting: {default: 1s}\nrules: [{name: danger, tool: danger, action: hold}]\n");
    let Screened::Hold(held) = gate.screen(&caller(1), call("{}", MODERN)) else { panic!("it is held") };
    let Released::Refuse(refusal) = gate.hold(held).await else { panic!("it comes back") };
    let with_state = |state: &str| format!("{MODERN},\"requestState\":\"{state}\"");
    let state = with_state(&state_of(&refusal));
    let elsewhere = Caller::new(&Principal::Client { uid: 1, name: None }, "other".into());
    for caller in [caller(2), elsewhere] {
        let told = made(&gate, &caller, call("{}", &state)).await;
        let Some(Released::Refuse(refusal)) = told else { panic!("{told:?}") };
        assert!(refusal.text.contains("was not given out for this call"), "{}", refusal.text);
    }
    // A gate on another record has another key.
    let other = self::gate("rules: [{name: danger, tool: danger, action: hold}]\n");
    let told = made(&other, &caller(1), call("{}", &state)).await;
    assert!(matches!(told, Some(Released::Refuse(refusal)) if refusal.text.contains("was not given out")));
    assert_eq!(gate.detached().await.unwrap().len(), 1, "nothing of that became a hold");
    // Of many that bring it at once, one waits.
    let mut waiting = 0;
    for _ in 0..5 {
        waiting += usize::from(made(&gate, &caller(1), call("{}", &state)).await.is_none());
    }
    assert_eq!(waiting, 1);
}
