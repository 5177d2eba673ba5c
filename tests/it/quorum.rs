//! Several people decide: who may, whose vote counts, and what silence brings. Through the library, with time standing still
//! where time matters.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use holdshort::{
    control::api::HoldView,
    gate::{Caller, Gate, GateLimits, News, Released, ResolveError, Screened},
    hold::{HoldId, Said, State, Verdict, shown_sha256},
    jsonrpc::Frame,
    policy::{Policy, Source},
    principal::Principal,
    store::Store,
};
use tokio::task::JoinHandle;

const PEOPLE: &str = "version: 1
people:
  ann: {roles: [finance], identities: ['uid:ann', 'uid:annette']}
  bob: {roles: [finance], identities: ['uid:bob']}
  cem: {roles: [security], identities: ['uid:cem', 'uid:1003']}
  dee: {roles: [sales], identities: ['uid:dee']}
  eve: {roles: [finance, security], identities: ['uid:eve'], agents: ['agent:eves-bot']}
teams:
  on-call: [dee]
";

fn policy(people: &str, rule: &str) -> Policy {
    let text = format!("{people}rules:\n  - {{name: pay, tool: pay, action: hold, {rule}}}\n");
    Policy::parse(vec![Source { name: "policy.yaml".into(), text }])
        .unwrap_or_else(|errors| panic!("{errors}"))
}

fn gate(rule: &str) -> Arc<Gate> {
    let policy = Arc::new(policy(PEOPLE, rule));
    Arc::new(Gate::new("gate".into(), policy, Store::in_memory(), GateLimits::default()))
}

/// The user of this name: what the control socket knows of who speaks.
fn user(name: &str) -> Principal {
    Principal::User { uid: 1000, name: Some(name.into()) }
}

/// A call of `pay` by this principal, held and on record.
async fn pay(gate: &Arc<Gate>, by: &Principal) -> (HoldId, JoinHandle<Released>) {
    let line = "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\",\"params\":{\"name\":\"pay\",\"arguments\":{}}}\n";
    let caller = Caller::new(by, "server".into());
    let frame = Frame::from_client(Bytes::from(line)).unwrap();
    let Screened::Hold(held) = gate.screen(&caller, frame) else { panic!("it is held") };
    let id = held.id();
    let keeper = Arc::clone(gate);
    let released = tokio::spawn(async move { keeper.hold(held).await });
    while gate.held(id).is_none() {
        tokio::task::yield_now().await;
    }
    (id, released)
}

fn somebody() -> Principal {
    Principal::Client { uid: 1, name: Some("nobody".into()) }
}

async fn approve(gate: &Gate, id: HoldId, name: &str) -> Result<State, ResolveError> {
    gate.resolve(id, Verdict::Approve, &user(name), None).await
}

async fn reject(gate: &Gate, id: HoldId, name: &str) -> Result<State, ResolveError> {
    gate.resolve(id, Verdict::Reject, &user(name), Some("no")).await
}

#[tokio::test]
async fn two_people_of_a_role_have_to_approve_and_one_human_is_one_vote() {
    let gate = gate("approvers: finance, required_approvals: 2");
    let (id, released) = pay(&gate, &somebody()).await;
    assert!(matches!(approve(&gate, id, "dee").await, Err(ResolveError::NotAllowed(_))), "not of that role");
    assert!(
        matches!(approve(&gate, id, "mallory").await, Err(ResolveError::NotAllowed(_))),
        "nobody we know"
    );
    assert_eq!(approve(&gate, id, "ann").await.unwrap(), State::Held);
    assert!(matches!(approve(&gate, id, "ann").await, Err(ResolveError::VotedBefore)));
    assert!(matches!(approve(&gate, id, "annette").await, Err(ResolveError::VotedBefore)), "the same human");
    let record = gate.store().hold(id).await.unwrap().unwrap();
    assert_eq!((record.state, record.votes.len()), (State::Held, 1), "the first vote is durable");
    assert_eq!(record.votes[0].person.as_deref(), Some("ann"));
    assert!(gate.store().verify(None).await.unwrap().is_sound(), "and provable while the call waits");
    assert_eq!(approve(&gate, id, "bob").await.unwrap(), State::Forwarding);
    assert!(matches!(released.await.unwrap(), Released::Resume(_)));
    let record = gate.store().hold(id).await.unwrap().unwrap();
    let people: Vec<_> = record.votes.iter().map(|vote| vote.person.as_deref().unwrap()).collect();
    assert_eq!(people, ["ann", "bob"]);
    assert!(gate.store().verify(None).await.unwrap().is_sound());
}

#[tokio::test]
async fn every_vote_says_what_was_shown_and_what_was_shown_of_another_call_decides_nothing() {
    let gate = gate("approvers: finance, required_approvals: 2");
    let (id, released) = pay(&gate, &somebody()).await;
    let shown = HoldView::whole(&gate.store().hold(id).await.unwrap().unwrap()).shown();
    assert!(shown.is_some());
    let say = async |name: &str, shown_sha256| {
        let said = Said { shown_sha256, ..Verdict::Approve.into() };
        gate.resolve(id, said, &user(name), None).await
    };
    let before = gate.store().checkpoint().await.unwrap();
    let other = Some(shown_sha256(r#"{"jsonrpc":"2.0","id":2,"method":"tools/call"}"#));
    let refused = say("ann", other).await;
    assert!(matches!(refused, Err(ResolveError::NotWhatWasShown)), "{refused:?}");
    assert!(refused.unwrap_err().to_string().contains("look at the call again"));
    assert_eq!(gate.store().checkpoint().await.unwrap(), before, "nothing is recorded");
    assert!(gate.held(id).is_some(), "it waits on");
    // One of them was shown the call, the other one only says the id.
    assert_eq!(say("ann", shown).await.unwrap(), State::Held);
    assert_eq!(say("bob", None).await.unwrap(), State::Forwarding);
    assert!(matches!(released.await.unwrap(), Released::Resume(_)));
    let record = gate.store().hold(id).await.unwrap().unwrap();
    assert_eq!(record.votes.iter().map(|vote| vote.shown_sha256).collect::<Vec<_>>(), [shown, None]);
    let lines = gate.store().audit_events(before.seq, 10).await.unwrap();
    let told = format!(r#""shown_sha256":"{}""#, shown.unwrap());
    for line in &lines[..2] {
        assert_eq!(line.line.matches("shown_sha256").count(), 1, "{}", line.line);
        assert!(line.line.contains(&told), "{}", line.line);
    }
    assert!(gate.store().verify(None).await.unwrap().is_sound());
}

#[tokio::test]
async fn a_single_rejection_ends_it_unless_the_rule_wants_several() {
    let gate_of_one = gate("approvers: finance, required_approvals: 2");
    let (id, released) = pay(&gate_of_one, &somebody()).await;
    assert_eq!(approve(&gate_of_one, id, "ann").await.unwrap(), State::Held);
    assert_eq!(reject(&gate_of_one, id, "bob").await.unwrap(), State::Rejected);
    assert!(matches!(released.await.unwrap(), Released::Refuse(_)));
    let gate = gate("approvers: finance, required_approvals: 2, required_rejections: 2");
    let (id, _released) = pay(&gate, &somebody()).await;
    assert_eq!(reject(&gate, id, "ann").await.unwrap(), State::Held);
    assert_eq!(approve(&gate, id, "ann").await.unwrap(), State::Held, "whoever thinks again counts once");
    assert_eq!(reject(&gate, id, "bob").await.unwrap(), State::Held);
    assert_eq!(reject(&gate, id, "eve").await.unwrap(), State::Rejected);
}

#[tokio::test]
async fn several_requirements_need_different_people() {
    let gate = gate("requires: [{approvers: finance}, {approvers: security}]");
    let (id, _released) = pay(&gate, &somebody()).await;
    assert_eq!(
        approve(&gate, id, "eve").await.unwrap(),
        State::Held,
        "one person of both roles is one person"
    );
    assert_eq!(approve(&gate, id, "cem").await.unwrap(), State::Forwarding);
}

#[tokio::test]
async fn whoever_asked_or_owns_the_agent_cannot_approve() {
    let gate = gate("approvers: finance");
    for by in
        [Principal::Agent { name: "eves-bot".into() }, Principal::Client { uid: 5, name: Some("eve".into()) }]
    {
        let (id, _released) = pay(&gate, &by).await;
        assert!(matches!(approve(&gate, id, "eve").await, Err(ResolveError::OwnCall)), "{by}");
        assert_eq!(approve(&gate, id, "ann").await.unwrap(), State::Forwarding);
    }
    let (id, _released) = pay(&gate, &Principal::Agent { name: "eves-bot".into() }).await;
    assert_eq!(reject(&gate, id, "eve").await.unwrap(), State::Rejected, "but can say no");
}

#[tokio::test]
async fn whoever_is_revoked_between_vote_and_quorum_does_not_count() {
    let rule = "approvers: finance, required_approvals: 2";
    let gate = gate(rule);
    let (id, _released) = pay(&gate, &somebody()).await;
    assert_eq!(approve(&gate, id, "ann").await.unwrap(), State::Held);
    let without_ann: String =
        PEOPLE.lines().filter(|line| !line.contains("ann:")).map(|line| format!("{line}\n")).collect();
    assert!(gate.replace_policy(policy(&without_ann, rule), "test"));
    assert!(matches!(approve(&gate, id, "ann").await, Err(ResolveError::NotAllowed(_))));
    assert_eq!(approve(&gate, id, "bob").await.unwrap(), State::Held, "ann's vote is void");
    assert_eq!(approve(&gate, id, "eve").await.unwrap(), State::Forwarding);
}

#[tokio::test]
async fn what_waits_needs_what_either_policy_asks_for() {
    let gate = gate("approvers: finance");
    let (id, _released) = pay(&gate, &somebody()).await;
    assert!(gate.replace_policy(policy(PEOPLE, "approvers: security"), "test"));
    assert_eq!(approve(&gate, id, "ann").await.unwrap(), State::Held);
    assert_eq!(approve(&gate, id, "cem").await.unwrap(), State::Forwarding);
    let (id, _released) = pay(&gate, &somebody()).await;
    let denying = format!("{PEOPLE}rules:\n  - {{name: pay, tool: pay, action: deny}}\n");
    let denying = Policy::parse(vec![Source { name: "p".into(), text: denying }]).unwrap();
    assert!(gate.replace_policy(denying, "test"));
    assert!(matches!(approve(&gate, id, "cem").await, Err(ResolveError::DeniedNow(_))));
    assert_eq!(reject(&gate, id, "cem").await.unwrap(), State::Rejected);
}

#[tokio::test]
async fn where_the_policy_names_nobody_nobody_approves_for_them() {
    let policy = Arc::new(policy("version: 1\n", "approvers: finance"));
    let gate = Arc::new(Gate::new("gate".into(), policy, Store::in_memory(), GateLimits::default()));
    let (id, _released) = pay(&gate, &somebody()).await;
    assert!(matches!(approve(&gate, id, "ann").await, Err(ResolveError::NobodyMay)));
}

/// Runs what reminds people, as the program does.
fn remind(gate: &Arc<Gate>) {
    let gate = Arc::clone(gate);
    tokio::spawn(async move { gate.keep_reminding().await });
}

#[tokio::test(start_paused = true)]
async fn silence_brings_others_in_and_reminds_also_when_the_caller_has_gone() {
    let gate = gate("approvers: finance, timeout: 10m, escalate: [{to: on-call, timeout: 20m}], remind: 8m");
    remind(&gate);
    let mut news = gate.watch();
    let (id, released) = pay(&gate, &somebody()).await;
    let began = tokio::time::Instant::now();
    assert!(matches!(approve(&gate, id, "dee").await, Err(ResolveError::NotAllowed(_))), "not yet");
    let mut heard = Vec::new();
    while heard.len() < 4 {
        let told = tokio::time::timeout(Duration::from_secs(3600), news.recv()).await.unwrap().unwrap();
        if let News::Waiting { to, .. } = told {
            heard.push((began.elapsed().as_secs() / 60, to.join(",")));
        }
    }
    let heard: Vec<(u64, &str)> = heard.iter().map(|(at, what)| (*at, what.as_str())).collect();
    assert_eq!(heard, [(8, ""), (10, "on-call"), (16, ""), (24, "")]);
    assert!(matches!(released.await.unwrap(), Released::Refuse(_)), "the client was told to come back");
    assert_eq!(
        gate.store().hold(id).await.unwrap().unwrap().state,
        State::Held,
        "and the call waits all the same"
    );
    let quiet = tokio::time::timeout(Duration::from_secs(3600), news.recv()).await;
    assert!(quiet.is_err(), "nobody hears of it after its time is over: {quiet:?}");
}

#[tokio::test]
async fn whom_an_escalation_brings_in_decides_only_from_then_on() {
    let gate = gate("approvers: finance, timeout: 1s, escalate: [{to: on-call, timeout: 10m}]");
    remind(&gate);
    let mut news = gate.watch();
    let (id, _released) = pay(&gate, &somebody()).await;
    assert!(matches!(approve(&gate, id, "dee").await, Err(ResolveError::NotAllowed(_))));
    let brought_in = async { while !matches!(news.recv().await.unwrap(), News::Waiting { .. }) {} };
    tokio::time::timeout(Duration::from_secs(20), brought_in).await.unwrap();
    assert_eq!(approve(&gate, id, "dee").await.unwrap(), State::Forwarding);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn votes_that_arrive_together_are_all_counted() {
    let gate = gate("approvers: [finance, security], required_approvals: 4");
    for _ in 0..50 {
        let (id, released) = pay(&gate, &somebody()).await;
        let votes = ["ann", "bob", "cem", "eve"].map(|name| {
            let gate = Arc::clone(&gate);
            tokio::spawn(async move { approve(&gate, id, name).await.unwrap() })
        });
        let mut states = Vec::new();
        for vote in votes {
            states.push(vote.await.unwrap());
        }
        assert_eq!(states.iter().filter(|state| **state == State::Forwarding).count(), 1, "{states:?}");
        assert!(tokio::time::timeout(Duration::from_secs(20), released).await.is_ok());
        // The same call, made again, is a call of its own once this one is answered.
        gate.answered(id).await;
    }
    assert!(gate.store().verify(None).await.unwrap().is_sound());
}
