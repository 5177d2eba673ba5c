//! Real clients and real servers over Streamable HTTP with `holdshort serve` between them: the same session with and without
//! it, in both eras, answered as a stream or as JSON, and held calls as the application of each SDK sees them.
//!
//! What `real_peers` says of the transcripts holds here as well; scenarios, drivers and servers are the same.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::ffi::{OsStr, OsString};

use crate::{
    real_peers::{AS_TASK, HELD, assert_alike, finish, step, task_ended, text_of},
    support::{
        peers::{
            ALLOW_ALL, Answers, Client, HOLD_DANGER, Home, Running, Server, newer_node, node_program, until,
        },
        serve::Serve,
    },
};

fn same_with_and_without_the_proxy(client: Client, server: Server, answers: Answers) {
    let scenario = match answers {
        Answers::Streamed => server.scenario(),
        Answers::Json => "canary_json",
    };
    let home = Home::new();
    let (running, url) = home.serve(server, answers);
    let direct = home.transcript(client, scenario, vec![url]);
    drop(running);
    // A server that has seen nothing yet, as the first one had.
    let (running, url) = home.serve(server, answers);
    let proxy = Serve::start(&home, ALLOW_ALL, &url);
    let proxied = home.transcript(client, scenario, vec![proxy.url.clone()]);
    proxy.stop();
    drop(running);
    assert_alike(&direct, &proxied, &format!("{client:?} with {server:?}, {answers:?}"));
}

macro_rules! sessions {
    ($($name:ident = $client:ident;)*) => { $(mod $name {
        use super::{Answers, Client::$client as CLIENT, Server, same_with_and_without_the_proxy as check};

        #[test]
        fn with_server_everything() { check(CLIENT, Server::Everything, Answers::Streamed); }
        #[test]
        fn with_a_typescript_1_server() { check(CLIENT, Server::CanaryTsV1, Answers::Streamed); }
        #[test]
        fn with_a_typescript_2_server() { check(CLIENT, Server::CanaryTsV2, Answers::Streamed); }
        #[test]
        fn with_a_typescript_2_server_that_answers_json() { check(CLIENT, Server::CanaryTsV2, Answers::Json); }
        #[test]
        fn with_a_python_1_server() { check(CLIENT, Server::CanaryPython1, Answers::Streamed); }
        #[test]
        fn with_a_python_2_server() { check(CLIENT, Server::CanaryPython2, Answers::Streamed); }
        #[test]
        fn with_a_python_2_server_that_answers_json() { check(CLIENT, Server::CanaryPython2, Answers::Json); }
        #[test]
        fn with_an_rmcp_server() { check(CLIENT, Server::CanaryRmcp, Answers::Streamed); }
    })* };
}

mod the_session_is_the_same {
    use super::{Answers, Client, Server, same_with_and_without_the_proxy};

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

/// A client behind the proxy in front of a server, with its call held.
struct Held {
    home: Home,
    _server: Running,
    proxy: Serve,
    driver: Running,
    id: String,
}

fn hold(client: Client, server: Server, answers: Answers, scenario: &str) -> Held {
    let home = Home::new();
    let (running, url) = home.serve(server, answers);
    let proxy = Serve::start(&home, HOLD_DANGER, &url);
    let mut driver = home.drive(client, scenario, vec![proxy.url.clone()]);
    step(&mut driver, "echo");
    let hold = home.one_hold();
    assert_eq!(hold["tool"], "danger");
    assert_eq!(hold["server"], "canary");
    assert_eq!(hold["state"], "held");
    home.keeps_its_client(client);
    assert_eq!(home.canary(), None, "held means not executed");
    let id = hold["id"].as_str().unwrap().to_owned();
    Held { home, _server: running, proxy, driver, id }
}

fn an_approved_call_gives_its_result(client: Client, server: Server, answers: Answers) {
    let mut held = hold(client, server, answers, HELD);
    held.home.holdshort_ok(&["approve", &held.id, "--comment", "checked with finance"]);
    let answer = step(&mut held.driver, "danger");
    assert!(text_of(&answer).starts_with("executed"), "{answer}");
    assert_ne!(answer["result"]["isError"], true);
    finish(&held.home, &mut held.driver);
    let canary = held.home.canary().unwrap();
    assert_eq!(canary.lines().count(), 1, "executed once: {canary}");
    held.home.until_state(&held.id, "answered");
    held.proxy.stop();
}

fn a_rejected_call_gives_the_reason(client: Client, server: Server, answers: Answers) {
    let mut held = hold(client, server, answers, HELD);
    held.home.holdshort_ok(&["reject", &held.id, "--reason", "use the staging account"]);
    let answer = step(&mut held.driver, "danger");
    assert_eq!(answer["result"]["isError"], true, "{answer}");
    assert!(text_of(&answer).contains("use the staging account"), "{answer}");
    assert!(text_of(&answer).contains("did not run"), "{answer}");
    finish(&held.home, &mut held.driver);
    assert_eq!(held.home.canary(), None);
    held.home.until_state(&held.id, "rejected");
    held.proxy.stop();
}

macro_rules! held_calls {
    ($($name:ident: $client:ident with $server:ident, $answers:ident;)*) => { $(mod $name {
        use super::super::{Answers::$answers as ANSWERS, Client::$client as CLIENT, Server::$server as SERVER};

        #[test]
        fn gets_the_result_of_an_approved_call() {
            super::super::an_approved_call_gives_its_result(CLIENT, SERVER, ANSWERS);
        }
        #[test]
        fn reads_the_reason_of_a_rejection() {
            super::super::a_rejected_call_gives_the_reason(CLIENT, SERVER, ANSWERS);
        }
    })* };
}

mod when_a_call_is_held {
    held_calls! {
        the_typescript_1_client: TsV1 with CanaryPython1, Streamed;
        the_typescript_2_client: TsV2 with CanaryTsV2, Streamed;
        the_typescript_2_client_that_probes: TsV2Auto with CanaryTsV2, Json;
        the_python_1_client: Python1 with CanaryTsV1, Streamed;
        the_python_2_client: Python2 with CanaryTsV2, Json;
        the_python_2_client_that_probes: Python2Auto with CanaryPython2, Streamed;
        the_rmcp_client: Rmcp with CanaryRmcp, Streamed;
        the_rmcp_client_that_probes: RmcpAuto with CanaryTsV2, Streamed;
    }
}

#[test]
fn a_client_with_tasks_asks_for_its_result() {
    // The second is the modern one: its answers come whole.
    for (server, answers) in [(Server::CanaryTsV2, Answers::Streamed), (Server::CanaryTsV2, Answers::Json)] {
        let mut held = hold(Client::RmcpTasks, server, answers, HELD);
        held.home.holdshort_ok(&["approve", &held.id, "--comment", "checked with finance"]);
        let answer = step(&mut held.driver, "danger");
        assert_eq!(answer["status"], "completed", "{answer}");
        assert!(text_of(&answer).starts_with("executed"), "{answer}");
        finish(&held.home, &mut held.driver);
        assert_eq!(held.home.canary().unwrap().lines().count(), 1, "executed once");
        held.home.until_state(&held.id, "answered");
        held.proxy.stop();

        let mut held = hold(Client::RmcpTasks, server, answers, HELD);
        held.home.holdshort_ok(&["reject", &held.id, "--reason", "use the staging account"]);
        let answer = step(&mut held.driver, "danger");
        assert_eq!((&answer["status"], &answer["result"]["isError"]), (&"completed".into(), &true.into()));
        assert!(text_of(&answer).contains("use the staging account"), "{answer}");
        finish(&held.home, &mut held.driver);
        assert_eq!(held.home.canary(), None);
        held.proxy.stop();
    }
}

#[test]
fn the_user_of_a_client_is_asked_where_a_rule_says_so() {
    let policy = HOLD_DANGER.replace("action: hold", "action: hold\n    elicitation: true");
    for client in [Client::TsV1, Client::TsV2Auto, Client::Python1] {
        let home = Home::new();
        let (_server, url) = home.serve(Server::CanaryTsV2, Answers::Streamed);
        let proxy = Serve::start(&home, &policy, &url);
        let mut driver = home.drive(client, HELD, vec![proxy.url.clone()]);
        assert!(text_of(&step(&mut driver, "danger")).starts_with("executed"), "{client:?}");
        finish(&home, &mut driver);
        assert_eq!(home.canary().unwrap().lines().count(), 1, "executed once");
        let hold = home.all_holds().remove(0);
        assert!(hold["votes"][0]["by"].as_str().unwrap().starts_with("elicitation:"), "{hold}");
        proxy.stop();
    }
}

#[test]
fn a_client_that_makes_calls_again_by_itself_is_kept_in_rounds() {
    let policy = format!("{HOLD_DANGER}waiting: {{default: 1s}}\n");
    let home = Home::new();
    let (_server, url) = home.serve(Server::CanaryTsV2, Answers::Streamed);
    let proxy = Serve::start(&home, &policy, &url);
    let mut driver = home.drive(Client::TsV2Auto, HELD, vec![proxy.url.clone()]);
    let id = home.one_hold()["id"].as_str().unwrap().to_owned();
    let rounds = || {
        let log = home.holdshort(&["audit", "export"]);
        String::from_utf8_lossy(&log.stdout).matches("\"attached\"").count()
    };
    until("it has come back some times", || rounds() >= 3);
    home.holdshort_ok(&["approve", &id]);
    assert!(text_of(&step(&mut driver, "danger")).starts_with("executed"));
    finish(&home, &mut driver);
    assert_eq!(home.canary().unwrap().lines().count(), 1, "executed once");
    proxy.stop();
}

#[test]
fn a_client_of_2025_that_asks_for_a_task_gets_its_result() {
    for (server, answers) in [(Server::CanaryTsV1, Answers::Streamed), (Server::CanaryTsV1, Answers::Json)] {
        let home = Home::new();
        let (_server, url) = home.serve(server, answers);
        let proxy = Serve::start(&home, HOLD_DANGER, &url);
        let mut driver = home.drive(Client::TsV1, AS_TASK, vec![proxy.url.clone()]);
        let id = home.one_hold()["id"].as_str().unwrap().to_owned();
        home.holdshort_ok(&["approve", &id]);
        assert!(task_ended(&step(&mut driver, "danger"), "completed").starts_with("executed"));
        finish(&home, &mut driver);
        assert_eq!(home.canary().unwrap().lines().count(), 1, "executed once");
        home.until_state(&id, "answered");
        proxy.stop();
    }
}

/// One command of the Inspector at the server at `url`.
fn inspect(home: &Home, url: &OsStr, arguments: &[&str]) -> Running {
    let inspector =
        node_program("node_modules/@modelcontextprotocol/inspector/clients/launcher/build/index.js");
    let mut command: Vec<OsString> = vec![newer_node(), inspector, "--cli".into(), url.into()];
    command.extend(["--transport", "http"].map(Into::into));
    command.extend(arguments.iter().map(Into::into));
    Running::start(&mut home.command(&command))
}

#[test]
fn the_inspector_prints_the_same_and_waits_for_an_approval() {
    const DANGER: [&str; 6] =
        ["--method", "tools/call", "--tool-name", "danger", "--tool-arg", "amount=5000"];
    let home = Home::new();
    let (_server, url) = home.serve(Server::CanaryTsV2, Answers::Streamed);
    let proxy = Serve::start(&home, HOLD_DANGER, &url);
    let printed = |url: &OsStr, arguments: &[&str]| {
        let mut inspector = inspect(&home, url, arguments);
        let lines = inspector.rest_as_text();
        assert!(inspector.ended().success(), "{arguments:?}: {}", inspector.stderr());
        assert!(lines.len() > 2, "{arguments:?}: {lines:?}");
        lines
    };
    for arguments in [
        &["--method", "tools/list"][..],
        &["--method", "tools/call", "--tool-name", "echo", "--tool-arg", "text=grüezi"],
    ] {
        // Where a call may have to wait, the list says that the tool can be asked for as a task, and nothing else.
        let proxied = printed(&proxy.url, arguments).join("\n").replacen(
            ",\n      \"execution\": {\n        \"taskSupport\": \"optional\"\n      }",
            "",
            1,
        );
        assert_eq!(printed(&url, arguments).join("\n"), proxied, "{arguments:?}");
    }
    let mut inspector = inspect(&home, &proxy.url, &DANGER);
    let id = home.one_hold()["id"].as_str().unwrap().to_owned();
    assert_eq!(home.canary(), None, "held means not executed");
    home.holdshort_ok(&["approve", &id]);
    let text = inspector.rest_as_text().join("\n");
    assert!(text.contains("executed"), "{text}{}", inspector.stderr());
    assert!(inspector.ended().success());

    let mut inspector = inspect(&home, &proxy.url, &DANGER);
    let id = home.one_hold()["id"].as_str().unwrap().to_owned();
    home.holdshort_ok(&["reject", &id, "--reason", "use the staging account"]);
    let text = inspector.rest_as_text().join("\n");
    assert!(text.contains("use the staging account"), "{text}{}", inspector.stderr());
    assert_eq!(home.canary().unwrap().lines().count(), 1, "only the approved one ran");
    proxy.stop();
}

/// Whatever way a client has of giving up: a cancellation in the session era, the end of the stream in the stateless one.
#[test]
fn a_client_that_gives_up_withdraws_its_call() {
    for client in [Client::TsV1, Client::TsV2Auto, Client::Rmcp, Client::Python2Auto] {
        // Long enough for the test to see the hold.
        let scenario = HELD.replace(r#""name": "danger","#, r#""name": "danger", "timeout_ms": 1500,"#);
        let mut held = hold(client, Server::CanaryTsV2, Answers::Streamed, &scenario);
        let answer = step(&mut held.driver, "danger");
        assert!(answer["error"].is_object(), "{client:?}: {answer}");
        held.home.until_state(&held.id, "withdrawn");
        let late = held.home.holdshort(&["approve", &held.id]);
        assert_eq!(late.status.code(), Some(4), "{client:?}: {late:?}");
        finish(&held.home, &mut held.driver);
        assert_eq!(held.home.canary(), None, "{client:?}");
        held.proxy.stop();
    }
}
