//! Real clients and agent frameworks with their default settings, and people who take longer than any of them waits: the call ends
//! in the tool's result all the same, and the tool runs once.
//!
//! Time is scaled where the client allows it: `--wait 1s` stands for the 45 s after which an unknown client is told to come
//! back, and the approval that would come after three minutes comes after the third attempt.

use serde_json::Value;

use crate::support::peers::{Client, HOLD_DANGER, Home, Running, Server, until};

/// The answers to attempts before a person approves.
const ATTEMPTS_BEFORE: usize = 3;

/// More attempts than are needed.
const ATTEMPTS: usize = 12;

fn text_of(line: &Value) -> String {
    let text = line["text"].as_str().or_else(|| line["answer"]["result"]["content"][0]["text"].as_str());
    text.unwrap_or_else(|| panic!("no text in {line}")).to_owned()
}

/// The answers of `client` until one is neither pending nor an error of its own; a person approves after some of them.
fn until_it_runs(home: &Home, client: &mut Running, is_attempt: impl Fn(&Value) -> bool) -> usize {
    for attempt in 1..=ATTEMPTS {
        let text = text_of(&client.next_json_where(&is_attempt));
        if text.starts_with("executed") {
            return attempt;
        }
        assert!(text.starts_with("PENDING") || text.starts_with("ERROR"), "{text}");
        let waiting: Vec<_> = home.holds().into_iter().filter(|hold| hold["state"] == "held").collect();
        assert!(waiting.len() <= 1, "nobody is asked twice: {waiting:#?}");
        if attempt == ATTEMPTS_BEFORE {
            assert_eq!(home.canary(), None, "nothing runs before it is approved");
            home.holdshort_ok(&["approve", waiting[0]["id"].as_str().unwrap()]);
        }
    }
    panic!("it never ran");
}

fn ran_once(home: &Home) {
    let canary = home.canary().unwrap_or_default();
    assert_eq!(canary.lines().count(), 1, "the tool ran once: {canary}");
    // A gate that ends while it is asked is no answer.
    until("the gate has ended", || home.holdshort(&["audit", "verify"]).status.success());
}

fn an_sdk_gets_its_result(client: Client) {
    let home = Home::new();
    let server = home.behind_proxy_waiting(HOLD_DANGER, "1s", Server::CanaryTsV2.command(&home));
    let step = r#"{ "do": "call", "name": "danger", "arguments": { "amount": 5000 } }"#;
    let mut driver = home.drive(client, &format!("[{}]", [step; ATTEMPTS].join(",")), server);
    let attempts = until_it_runs(&home, &mut driver, |line| line["step"] == "call");
    assert_eq!(attempts, ATTEMPTS_BEFORE + 1, "{client:?}");
    drop(driver);
    ran_once(&home);
}

fn a_framework_gets_its_result(framework: &str, wait: Option<&str>) {
    let home = Home::new();
    let server = Server::CanaryPython1.command(&home);
    let server = match wait {
        Some(wait) => home.behind_proxy_waiting(HOLD_DANGER, wait, server),
        None => home.behind_proxy(HOLD_DANGER, server),
    };
    let mut agent = home.agent(framework, server);
    until_it_runs(&home, &mut agent, |line| line["attempt"].is_number());
    assert!(agent.ended().success(), "{}", agent.stderr());
    ran_once(&home);
}

/// A client that makes a call again by itself needs no second attempt of its user's: a person approves after some rounds.
fn an_sdk_comes_back_by_itself(client: Client) {
    let home = Home::new();
    let server = home.behind_proxy_waiting(HOLD_DANGER, "1s", Server::CanaryTsV2.command(&home));
    let step = r#"[{ "do": "call", "name": "danger", "arguments": { "amount": 5000 } }]"#;
    let mut driver = home.drive(client, step, server);
    let hold = home.one_hold();
    let rounds = || {
        let log = home.holdshort(&["audit", "export"]);
        String::from_utf8_lossy(&log.stdout).matches("\"attached\"").count()
    };
    until("it has come back some times", || rounds() >= ATTEMPTS_BEFORE);
    assert_eq!(home.canary(), None, "nothing runs before it is approved");
    home.holdshort_ok(&["approve", hold["id"].as_str().unwrap()]);
    let text = text_of(&driver.next_json_where(|line| line["step"] == "call"));
    assert!(text.starts_with("executed"), "{client:?}: {text}");
    drop(driver);
    ran_once(&home);
}

/// A call that the user of the client approves in the client itself, where the rule lets them.
fn a_user_is_asked(client: Client) {
    let home = Home::new();
    let policy = HOLD_DANGER.replace("action: hold", "action: hold\n    elicitation: true");
    assert_ne!(policy, HOLD_DANGER);
    let server = home.behind_proxy(&policy, Server::CanaryTsV2.command(&home));
    let step = r#"[{ "do": "call", "name": "danger", "arguments": { "amount": 5000 } }]"#;
    let mut driver = home.drive(client, step, server);
    let line = driver.next_json_where(|line| line["step"] == "call");
    assert!(text_of(&line).starts_with("executed"), "{client:?}: {line}");
    let asked = line["asked"].to_string();
    assert!(asked.contains("May the tool danger of the server canary run"), "{asked}");
    drop(driver);
    ran_once(&home);
    let hold = home.all_holds().remove(0);
    assert!(hold["votes"][0]["by"].as_str().unwrap().starts_with("elicitation:"), "{hold}");
}

/// The Inspector's command line: a session and a server of its own for each call.
#[test]
fn a_slow_person_is_not_too_late_for_the_inspector() {
    let home = Home::new();
    let server = home.behind_proxy_waiting(HOLD_DANGER, "1s", Server::CanaryTsV2.command(&home));
    for attempt in 1..=ATTEMPTS {
        let answer = home.inspect(&server, "danger", "amount=5000");
        let text = text_of(&serde_json::json!({ "answer": { "result": answer } }));
        if text.starts_with("executed") {
            assert_eq!(attempt, ATTEMPTS_BEFORE + 1);
            return ran_once(&home);
        }
        assert!(text.starts_with("PENDING"), "{text}");
        if attempt == ATTEMPTS_BEFORE {
            assert_eq!(home.canary(), None, "nothing runs before it is approved");
            home.holdshort_ok(&["approve", home.one_hold()["id"].as_str().unwrap()]);
        }
    }
    panic!("it never ran");
}

#[test]
fn the_user_of_the_typescript_1_client_is_asked() {
    a_user_is_asked(Client::TsV1);
}

#[test]
fn the_user_of_the_typescript_2_client_that_probes_is_asked() {
    a_user_is_asked(Client::TsV2Auto);
}

#[test]
fn the_user_of_the_python_1_client_is_asked() {
    a_user_is_asked(Client::Python1);
}

#[test]
fn the_user_of_the_python_2_client_that_probes_is_asked() {
    a_user_is_asked(Client::Python2Auto);
}

#[test]
fn a_slow_person_is_not_too_late_for_the_typescript_2_client_that_probes() {
    an_sdk_comes_back_by_itself(Client::TsV2Auto);
}

#[test]
fn a_slow_person_is_not_too_late_for_the_python_2_client_that_probes() {
    an_sdk_comes_back_by_itself(Client::Python2Auto);
}

macro_rules! clients {
    ($($name:ident = $client:ident;)*) => { $(
        #[test]
        fn $name() { an_sdk_gets_its_result(Client::$client); }
    )* };
}

clients! {
    a_slow_person_is_not_too_late_for_the_typescript_1_client = TsV1;
    a_slow_person_is_not_too_late_for_the_typescript_2_client = TsV2;
    a_slow_person_is_not_too_late_for_the_python_1_client = Python1;
    a_slow_person_is_not_too_late_for_the_python_2_client = Python2;
    a_slow_person_is_not_too_late_for_the_rmcp_client = Rmcp;
}

#[test]
fn a_slow_person_is_not_too_late_for_openai_agents_that_give_up_after_five_seconds() {
    a_framework_gets_its_result("openai", None);
}

#[test]
fn a_slow_person_is_not_too_late_for_langchain_whose_every_call_is_a_session() {
    a_framework_gets_its_result("langchain", Some("1s"));
}
