//! Calls that wait as tasks, where it matters who asks, how often, and under which rules. What a session of one client sees
//! is in the transcripts, and real clients are in `real_peers` and `real_http_peers`.

use std::sync::Arc;

use bytes::Bytes;
use holdshort::{
    gate::{Begun, Caller, Gate, GateLimits, Polled, Released, Screened},
    hold::{Absence, HoldId, State, Verdict},
    jsonrpc::Frame,
    mcp::{Era, TaskRequest, TaskVerb},
    policy::{Policy, Source},
    principal::Principal,
    store::{Store, TaskAnswer, WITHOUT_CALLER_MAX},
    transport::session::SessionLimits,
};

use crate::support::session::{POLICY, Session};

const META: &str = r#""_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{"extensions":{"io.modelcontextprotocol/tasks":{}}}}"#;

fn policy(text: &str) -> Policy {
    Policy::parse(vec![Source { name: "policy.yaml".into(), text: text.into() }]).unwrap()
}

fn gate() -> Arc<Gate> {
    let policy = policy("version: 1\nrules: [{name: danger, tool: danger, action: hold}]\n");
    Arc::new(Gate::new("gate".into(), Arc::new(policy), Store::in_memory(), GateLimits::default()))
}

fn caller(uid: u32) -> Caller {
    Caller::new(&Principal::Client { uid, name: None }, "server".into())
}

async fn begin(gate: &Gate, number: usize) -> Begun {
    let line = format!(
        r#"{{"jsonrpc":"2.0","id":{number},"method":"tools/call","params":{{"name":"danger","arguments":{{"n":{number}}},{META}}}}}"#
    );
    let Screened::Hold(held) = gate.screen(&caller(1), Frame::from_client(Bytes::from(line)).unwrap()) else {
        panic!("it is held")
    };
    assert!(held.is_task());
    gate.begin_task(held).await
}

async fn granted(gate: &Gate) -> HoldId {
    let Begun::Task { hold, .. } = begin(gate, 1).await else { panic!("it is a task") };
    let alice = Principal::User { uid: 1000, name: Some("alice".into()) };
    assert_eq!(gate.resolve(hold, Verdict::Approve, &alice, None).await.unwrap(), State::Granted);
    hold
}

async fn ask(gate: &Gate, caller: &Caller, hold: HoldId) -> Polled {
    ask_to(gate, caller, hold, TaskVerb::Get).await
}

async fn ask_to(gate: &Gate, caller: &Caller, hold: HoldId, verb: TaskVerb) -> Polled {
    let (asked, method) = match verb {
        TaskVerb::Cancel => (verb, "tasks/cancel"),
        _ => (TaskVerb::Get, "tasks/get"),
    };
    let asked = TaskRequest { verb: asked, hold: hold.to_string(), era: Era::Modern, declares_tasks: true };
    let frame =
        format!(r#"{{"jsonrpc":"2.0","id":7,"method":"{method}","params":{{"taskId":"hs_{hold}",{META}}}}}"#);
    gate.ask_task(caller, &asked, &Frame::from_client(Bytes::from(frame)).unwrap()).await
}

fn text(polled: &Polled) -> &str {
    match polled {
        Polled::Answer(answer) | Polled::Run { answer: Some(answer), .. } => {
            std::str::from_utf8(answer).unwrap()
        }
        other => panic!("no answer: {other:?}"),
    }
}

#[tokio::test]
async fn whoever_asks_about_a_call_that_waits_hears_what_the_rule_says() {
    let policy = policy(
        "version: 1\nrules: [{name: danger, tool: danger, action: hold, hold_message: One moment please.}]\n",
    );
    let gate = Gate::new("gate".into(), Arc::new(policy), Store::in_memory(), GateLimits::default());
    let Begun::Task { hold, .. } = begin(&gate, 1).await else { panic!("it is a task") };
    let answer = ask(&gate, &caller(1), hold).await;
    let said = format!("One moment please. (hold {})", hold.short());
    assert!(text(&answer).contains(&said), "{}", text(&answer));
}

#[tokio::test]
async fn a_task_is_nobody_elses() {
    let gate = gate();
    let hold = granted(&gate).await;
    let other_server = Caller::new(&Principal::Client { uid: 1, name: None }, "other".into());
    for caller in [caller(2), other_server] {
        let told = ask(&gate, &caller, hold).await;
        assert!(matches!(told, Polled::Answer(_)));
        assert!(text(&told).contains(r#""code":-32602,"message":"no such task""#), "{}", text(&told));
        let told = ask_to(&gate, &caller, hold, TaskVerb::Cancel).await;
        assert!(text(&told).contains("no such task"));
    }
    assert!(matches!(ask(&gate, &caller(1), hold).await, Polled::Run { .. }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_questions_at_once_one_lets_the_call_run() {
    for _ in 0..50 {
        let gate = gate();
        let hold = granted(&gate).await;
        let asking: Vec<_> = (0..8)
            .map(|_| {
                let gate = Arc::clone(&gate);
                tokio::spawn(async move { ask(&gate, &caller(1), hold).await })
            })
            .collect();
        let mut runs = 0;
        for asked in asking {
            let told = asked.await.unwrap();
            assert!(text(&told).contains(r#""status":"working""#), "{}", text(&told));
            runs += usize::from(matches!(told, Polled::Run { .. }));
        }
        assert_eq!(runs, 1);
        assert_eq!(gate.store().hold(hold).await.unwrap().unwrap().state, State::Forwarding);
        assert!(gate.detached().await.unwrap().is_empty(), "nobody is asked about it again");
        assert!(gate.store().verify(None).await.unwrap().is_sound());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_gate_that_stops_while_a_task_is_asked_about_sends_it_or_says_that_it_did_not() {
    for _ in 0..300 {
        let gate = gate();
        let hold = granted(&gate).await;
        let stopping = {
            let gate = Arc::clone(&gate);
            tokio::spawn(async move { (0..200).for_each(|_| gate.detach_all(Absence::Stopping)) })
        };
        let told = ask(&gate, &caller(1), hold).await;
        stopping.await.unwrap();
        let state = gate.store().hold(hold).await.unwrap().unwrap().state;
        let expected = if matches!(told, Polled::Run { .. }) { State::Forwarding } else { State::Withdrawn };
        assert_eq!(state, expected, "what is on record as sent is sent");
    }
}

#[tokio::test]
async fn an_approval_under_other_rules_does_not_count() {
    for (rules, says) in [
        ("[{name: danger, tool: danger, action: hold, timeout: 7m}]", "the rules for it"),
        ("[{name: denied, tool: danger, action: deny}]", "the rules for it"),
    ] {
        let gate = gate();
        let hold = granted(&gate).await;
        assert!(gate.replace_policy(policy(&format!("version: 1\nrules: {rules}\n")), "test"));
        for _ in 0..2 {
            let told = ask(&gate, &caller(1), hold).await;
            assert!(matches!(told, Polled::Answer(_)), "it does not run");
            let text = text(&told);
            assert!(text.contains(r#""status":"completed""#) && text.contains(r#""isError":true"#), "{text}");
            assert!(text.contains("WITHDRAWN") && text.contains(says), "{text}");
        }
        assert_eq!(gate.store().hold(hold).await.unwrap().unwrap().state, State::Withdrawn);
        assert_eq!(gate.holds_len(), 0);
    }
}

#[tokio::test]
async fn an_agent_has_so_many_tasks_and_no_more() {
    let gate = gate();
    for number in 0..WITHOUT_CALLER_MAX {
        assert!(matches!(begin(&gate, number).await, Begun::Task { .. }));
    }
    let Begun::Released(Released::Refuse(refusal)) = begin(&gate, WITHOUT_CALLER_MAX).await else {
        panic!("it is refused")
    };
    assert!(refusal.text.contains("1000 calls of this agent wait already"), "{}", refusal.text);
    assert_eq!(gate.holds_len(), 0);
    assert_eq!(gate.detached().await.unwrap().len(), WITHOUT_CALLER_MAX);
}

#[tokio::test]
async fn an_answer_is_kept_whole_or_its_absence_explained() {
    let gate = gate();
    for (answer, says) in [
        (
            r#""result":{"resultType":"complete","content":[]}"#,
            r#""result":{"resultType":"complete","content":[]}"#,
        ),
        (r#""error":{"code":-32000,"message":"no"}"#, r#""status":"failed""#),
        (
            r#""result":{"resultType":"input_required","inputRequests":{"a":{"method":"x"}},"requestState":"s"}"#,
            r#""status":"input_required","createdAt""#,
        ),
    ] {
        let hold = granted(&gate).await;
        assert!(matches!(ask(&gate, &caller(1), hold).await, Polled::Run { .. }));
        let frame = format!(r#"{{"jsonrpc":"2.0","id":1,{answer}}}"#);
        let frame = Frame::from_server(Bytes::from(frame)).unwrap();
        gate.keep_answer(hold, holdshort::gate::task_answer(hold, &frame, None)).await;
        let told = ask(&gate, &caller(1), hold).await;
        assert!(text(&told).contains(says), "{}", text(&told));
        let is_note = matches!(gate.store().answer_of(hold).await.unwrap(), Some(TaskAnswer::Result(_)));
        assert_eq!(is_note, !says.contains("failed"));
    }
}

#[tokio::test(start_paused = true)]
async fn so_many_wait_for_results_of_tasks_and_one_that_is_taken_back_makes_room() {
    const WAITING_MAX: u32 = 3;
    let limits = SessionLimits { requests_max: WAITING_MAX as usize, ..SessionLimits::default() };
    let mut session = Session::start(POLICY, limits);
    let call = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"danger","arguments":{},"task":{}}}"#;
    session.client_sends(format!("{call}\n").as_bytes()).await;
    let begun: serde_json::Value = serde_json::from_str(&session.client_receives().await.unwrap()).unwrap();
    let task = begun["result"]["task"]["taskId"].as_str().unwrap().to_owned();
    let result = |id: u32| {
        format!(
            "{{\"jsonrpc\":\"2.0\",\"id\":{id},\"method\":\"tasks/result\",\"params\":{{\"taskId\":\"{task}\"}}}}\n"
        )
    };
    for id in 10..10 + WAITING_MAX {
        session.client_sends(result(id).as_bytes()).await;
        assert_eq!(session.client_receives().await, None, "{id} waits");
    }
    session.client_sends(result(20).as_bytes()).await;
    let refused = session.client_receives().await.expect("one more is refused");
    assert!(
        refused.contains("\"id\":20,\"error\":{\"code\":-32603") && refused.contains("limit"),
        "{refused}"
    );
    let cancelled =
        "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/cancelled\",\"params\":{\"requestId\":11}}\n";
    session.client_sends(cancelled.as_bytes()).await;
    session.client_sends(result(21).as_bytes()).await;
    assert_eq!(session.client_receives().await, None, "there is room again");
    let hold = session.gate.detached().await.unwrap().remove(0).record.hold.id;
    let alice = Principal::User { uid: 1000, name: Some("alice".into()) };
    session.gate.resolve(hold, Verdict::Approve, &alice, None).await.unwrap();
    let sent = session.server_receives().await.expect("the call is sent");
    assert!(sent.contains("tools/call"), "{sent}");
    let answer = format!("{{\"jsonrpc\":\"2.0\",\"id\":\"hs_{hold}\",\"result\":{{\"content\":[]}}}}\n");
    session.server_sends(answer.as_bytes()).await;
    let mut answered = Vec::new();
    while let Some(line) = session.client_receives().await {
        let answer: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(answer["result"]["content"], serde_json::json!([]), "{line}");
        answered.push(answer["id"].as_u64().unwrap());
    }
    answered.sort_unstable();
    assert_eq!(answered, [10, 12, 21], "who took the question back hears nothing");
    assert_eq!(session.server_receives().await, None, "it ran once");
}
