//! Real clients and real servers with the proxy between them: the same session with and without it, and held calls as the
//! application of each SDK sees them.
//!
//! The scenarios, drivers and servers are in `tests/peers`. Transcripts are compared as they are: the drivers leave out what
//! differs from run to run by itself (ids, tokens, times), and nothing else is normalised.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::peers::{ALLOW_ALL, Client, HOLD_DANGER, Home, Running, Server, until};

fn same_with_and_without_the_proxy(client: Client, server: Server) {
    let home = Home::new();
    let direct = home.transcript(client, server.scenario(), server.command(&home));
    let behind = home.behind_proxy(ALLOW_ALL, server.command(&home));
    let proxied = home.transcript(client, server.scenario(), behind);
    assert_alike(&direct, &proxied, &format!("{client:?} with {server:?}"));
}

/// Two transcripts have the same lines.
pub(crate) fn assert_alike(direct: &[String], proxied: &[String], who: &str) {
    for (direct, proxied) in direct.iter().zip(proxied) {
        assert_eq!(direct, proxied, "{who}");
    }
    assert_eq!(direct.len(), proxied.len(), "{who}");
    assert!(direct.len() > 10, "a session of {} steps shows little", direct.len());
}

macro_rules! sessions {
    ($($name:ident = $client:ident;)*) => { $(mod $name {
        use super::{Client::$client as CLIENT, Server, same_with_and_without_the_proxy as check};

        #[test]
        fn with_server_everything() { check(CLIENT, Server::Everything); }
        #[test]
        fn with_server_filesystem() { check(CLIENT, Server::Filesystem); }
        #[test]
        fn with_a_typescript_1_server() { check(CLIENT, Server::CanaryTsV1); }
        #[test]
        fn with_a_typescript_2_server() { check(CLIENT, Server::CanaryTsV2); }
        #[test]
        fn with_a_hand_written_server() { check(CLIENT, Server::CanaryReadline); }
        #[test]
        fn with_a_python_1_server() { check(CLIENT, Server::CanaryPython1); }
        #[test]
        fn with_a_python_2_server() { check(CLIENT, Server::CanaryPython2); }
        #[test]
        fn with_an_rmcp_server() { check(CLIENT, Server::CanaryRmcp); }
    })* };
}

mod the_session_is_the_same {
    use super::{Client, Server, same_with_and_without_the_proxy};

    sessions! {
        of_the_typescript_1_client = TsV1;
        of_the_typescript_2_client = TsV2;
        of_the_typescript_2_client_that_probes = TsV2Auto;
        of_the_python_1_client = Python1;
        of_the_python_2_client = Python2;
        of_the_python_2_client_that_probes = Python2Auto;
        of_the_rmcp_client = Rmcp;
        of_the_rmcp_client_that_probes = RmcpAuto;
    }
}

/// A held call between harmless ones.
pub(crate) const HELD: &str = r#"[
  { "do": "call", "name": "echo", "arguments": { "before": true } },
  { "do": "call", "name": "danger", "arguments": { "amount": 5000, "to": "grüezi" } },
  { "do": "call", "name": "echo", "arguments": { "after": true } }
]"#;

fn start_held(home: &Home, client: Client, server: Server, scenario: &str) -> (Running, Value) {
    let command = home.behind_proxy(HOLD_DANGER, server.command(home));
    let mut driver = home.drive(client, scenario, command);
    driver.next_json_where(|line| line["step"] == "call" && line["name"] == "echo");
    let hold = home.one_hold();
    assert_eq!(hold["tool"], "danger");
    assert_eq!(hold["server"], "canary");
    assert_eq!(hold["state"], "held");
    home.keeps_its_client(client);
    assert_eq!(hold["rules"], json!(["danger-needs-a-person"]));
    assert_eq!(home.canary(), None, "held means not executed");
    (driver, hold)
}

pub(crate) fn step(driver: &mut Running, name: &str) -> Value {
    let is_it = |line: &Value| (line["step"] == "call" || line["step"] == "task") && line["name"] == name;
    driver.next_json_where(is_it)["answer"].clone()
}

pub(crate) fn text_of(answer: &Value) -> &str {
    answer["result"]["content"][0]["text"].as_str().unwrap_or_else(|| panic!("no text in {answer}"))
}

pub(crate) fn finish(home: &Home, driver: &mut Running) {
    let after = step(driver, "echo");
    assert!(text_of(&after).contains("after"), "{after}");
    let exit = driver.next_json_where(|line| line["step"] == "exit");
    assert_eq!(exit["code"], 0);
    assert!(driver.ended().success(), "{}", driver.stderr());
    home.verify_record();
}

fn an_approved_call_gives_its_result(client: Client, server: Server) {
    let home = Home::new();
    let (mut driver, hold) = start_held(&home, client, server, HELD);
    assert_eq!(hold["arguments"], json!({"amount": 5000, "to": "grüezi"}));
    let id = hold["id"].as_str().unwrap();
    home.holdshort_ok(&["approve", &id[..10], "--comment", "checked with finance"]);
    let answer = step(&mut driver, "danger");
    assert!(text_of(&answer).starts_with("executed"), "{answer}");
    assert_ne!(answer["result"]["isError"], true);
    finish(&home, &mut driver);
    let canary = home.canary().unwrap();
    assert_eq!(canary.lines().count(), 1, "executed once: {canary}");
    home.until_state(id, "answered");
}

fn a_rejected_call_gives_the_reason(client: Client, server: Server) {
    let home = Home::new();
    let (mut driver, hold) = start_held(&home, client, server, HELD);
    let id = hold["id"].as_str().unwrap();
    home.holdshort_ok(&["reject", id, "--reason", "use the staging account"]);
    let answer = step(&mut driver, "danger");
    assert_eq!(answer["result"]["isError"], true, "{answer}");
    assert!(text_of(&answer).contains("use the staging account"), "{answer}");
    assert!(text_of(&answer).contains("did not run"), "{answer}");
    finish(&home, &mut driver);
    assert_eq!(home.canary(), None);
    home.until_state(id, "rejected");
}

#[test]
fn a_client_with_tasks_asks_for_its_result() {
    let home = Home::new();
    let (mut driver, hold) = start_held(&home, Client::RmcpTasks, Server::CanaryTsV2, HELD);
    let id = hold["id"].as_str().unwrap();
    home.holdshort_ok(&["approve", id]);
    let answer = step(&mut driver, "danger");
    assert_eq!(answer["status"], "completed", "{answer}");
    assert!(text_of(&answer).starts_with("executed"), "{answer}");
    finish(&home, &mut driver);
    assert_eq!(home.canary().unwrap().lines().count(), 1, "executed once");
    home.until_state(id, "answered");
}

/// A session in which a tool is called as a task, because the list says that it can be.
pub(crate) const AS_TASK: &str = r#"[
    { "do": "tools" },
    { "do": "task", "name": "danger", "arguments": { "amount": 5000 } },
    { "do": "call", "name": "echo", "arguments": { "after": true } }
]"#;

/// What a client has seen of a task that ended with `state`, and its result.
pub(crate) fn task_ended<'a>(answer: &'a Value, state: &str) -> &'a str {
    let states = answer["states"].as_array().unwrap_or_else(|| panic!("{answer}"));
    assert_eq!((&states[0], states.last().unwrap()), (&json!("working"), &json!(state)), "{answer}");
    let related = &answer["result"]["_meta"]["io.modelcontextprotocol/related-task"]["taskId"];
    assert!(related.as_str().is_some_and(|task| task.starts_with("hs_")), "{answer}");
    text_of(answer)
}

#[test]
fn a_client_of_2025_that_asks_for_a_task_gets_its_result() {
    let home = Home::new();
    let server = home.behind_proxy(HOLD_DANGER, Server::CanaryTsV1.command(&home));
    let mut driver = home.drive(Client::TsV1, AS_TASK, server);
    let hold = home.one_hold();
    let id = hold["id"].as_str().unwrap();
    until("it waits as a task", || home.holds()[0]["attached"] == false);
    home.holdshort_ok(&["approve", id]);
    assert!(task_ended(&step(&mut driver, "danger"), "completed").starts_with("executed"));
    finish(&home, &mut driver);
    assert_eq!(home.canary().unwrap().lines().count(), 1, "executed once");
    home.until_state(id, "answered");
}

#[test]
fn a_client_of_2025_that_asks_for_a_task_reads_why_it_was_rejected() {
    let home = Home::new();
    let server = home.behind_proxy(HOLD_DANGER, Server::CanaryTsV1.command(&home));
    let mut driver = home.drive(Client::TsV1, AS_TASK, server);
    let hold = home.one_hold();
    home.holdshort_ok(&["reject", hold["id"].as_str().unwrap(), "--reason", "use the staging account"]);
    let answer = step(&mut driver, "danger");
    assert!(answer.to_string().contains("use the staging account"), "{answer}");
    finish(&home, &mut driver);
    assert_eq!(home.canary(), None);
}

macro_rules! held_calls {
    ($($name:ident: $client:ident with $server:ident;)*) => { $(mod $name {
        use super::super::{Client::$client as CLIENT, Server::$server as SERVER};

        #[test]
        fn gets_the_result_of_an_approved_call() {
            super::super::an_approved_call_gives_its_result(CLIENT, SERVER);
        }
        #[test]
        fn reads_the_reason_of_a_rejection() {
            super::super::a_rejected_call_gives_the_reason(CLIENT, SERVER);
        }
    })* };
}

mod when_a_call_is_held {
    held_calls! {
        the_typescript_1_client: TsV1 with CanaryPython1;
        the_typescript_2_client: TsV2 with CanaryTsV2;
        the_typescript_2_client_that_probes: TsV2Auto with CanaryTsV2;
        the_python_1_client: Python1 with CanaryTsV1;
        the_python_2_client: Python2 with CanaryReadline;
        the_python_2_client_that_probes: Python2Auto with CanaryPython2;
        the_rmcp_client: Rmcp with CanaryRmcp;
        the_rmcp_client_that_probes: RmcpAuto with CanaryPython2;
    }
}

#[test]
fn a_client_that_gives_up_withdraws_its_call() {
    for client in [Client::TsV1, Client::TsV2, Client::Rmcp, Client::Python2] {
        let home = Home::new();
        // Long enough for the test to see the hold.
        let scenario = HELD.replace(r#""name": "danger","#, r#""name": "danger", "timeout_ms": 1500,"#);
        let (mut driver, hold) = start_held(&home, client, Server::CanaryTsV1, &scenario);
        let answer = step(&mut driver, "danger");
        assert!(answer["error"].is_object(), "{client:?}: {answer}");
        let id = hold["id"].as_str().unwrap();
        home.until_state(id, "withdrawn");
        let late = home.holdshort(&["approve", id]);
        // 4 while the gate is there, 5 once the client has gone on to its end and the gate with it.
        assert!(!late.status.success(), "{client:?}: {late:?}");
        finish(&home, &mut driver);
        assert_eq!(home.canary(), None, "{client:?}");
    }
}

#[test]
fn a_client_that_is_gone_leaves_nothing_that_could_run() {
    let home = Home::new();
    let (driver, hold) = start_held(&home, Client::TsV1, Server::CanaryPython2, HELD);
    let id = hold["id"].as_str().unwrap();
    drop(driver);
    crate::support::peers::until("nobody waits any more", || home.holds()[0]["attached"] == false);
    home.holdshort_ok(&["approve", id]);
    assert_eq!(home.canary(), None);
    home.verify_record();
}

/// The longest test here: reminders come every ten seconds, and the client's patience must end between two of them.
#[test]
fn reminders_keep_a_client_waiting_that_counts_from_the_last_one() {
    const PATIENCE_MS: u64 = 12_000;
    let home = Home::new();
    let wait = format!(
        r#""name": "danger", "progress": 1, "announce": true, "reset": true, "timeout_ms": {PATIENCE_MS},"#
    );
    let scenario = HELD.replace(r#""name": "danger","#, &wait);
    let begun = Instant::now();
    let (mut driver, hold) = start_held(&home, Client::TsV1, Server::CanaryTsV1, &scenario);
    while begun.elapsed() < Duration::from_millis(PATIENCE_MS + 1_000) {
        let reminder = driver.next_json_where(|line| line["step"] == "progress" || line["name"] == "danger");
        assert_eq!(reminder["step"], "progress", "the client gave up: {reminder}");
    }
    home.holdshort_ok(&["approve", hold["id"].as_str().unwrap()]);
    let answer = step(&mut driver, "danger");
    assert!(text_of(&answer).starts_with("executed"), "{answer}");
    finish(&home, &mut driver);
}
