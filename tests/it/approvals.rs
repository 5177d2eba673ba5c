//! What an approval may say beyond yes: who may say it, what it is bound to, and how it looks to people and to agents. Through
//! the library where things race or time stands still, and with the program where people and clients meet it.

use std::{fs::File, process::Command, sync::Arc, time::Duration};

use bytes::Bytes;
use holdshort::{
    gate::{Caller, Gate, GateLimits, News, Released, ResolveError, Screened},
    hold::{HoldId, Said, Same, State, Verdict},
    jsonrpc::Frame,
    policy::{Policy, Source},
    principal::Principal,
    store::Store,
};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::support::{
    http::{Connection, Proxy, Server, post},
    program::{Home, Wrapped},
};

const PEOPLE: &str = "version: 1
people:
  ann: {roles: [finance], identities: ['uid:ann']}
  bob: {roles: [finance], identities: ['uid:bob']}
  cem: {roles: [security], identities: ['uid:cem']}
  dee: {roles: [sales], identities: ['uid:dee']}
  eve: {roles: [finance], identities: ['uid:eve'], agents: ['agent:eves-bot']}
rules:
";

fn policy(rules: &str) -> Policy {
    let text = format!("{PEOPLE}{rules}");
    Policy::parse(vec![Source { name: "policy.yaml".into(), text }])
        .unwrap_or_else(|errors| panic!("{errors}"))
}

/// A gate of this name on the record `store`; of the others on it, all are dead.
fn gate_on(name: &'static str, rules: &str, store: &Store) -> Arc<Gate> {
    let gate = Gate::new(name.into(), Arc::new(policy(rules)), store.clone(), GateLimits::default());
    Arc::new(gate.with_is_dead(Box::new(move |other| other != name)))
}

fn gate(rules: &str) -> Arc<Gate> {
    gate_on("gate", rules, &Store::in_memory())
}

fn user(name: &str) -> Principal {
    Principal::User { uid: 1000, name: Some(name.into()) }
}

fn bot() -> Principal {
    Principal::Agent { name: "bot".into() }
}

/// Makes a call of `pay` by this principal: gives it as held, or what becomes of it at once.
fn make(gate: &Arc<Gate>, by: &Principal, arguments: &str) -> (HoldId, JoinHandle<Released>) {
    let line = format!(
        "{{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\",\"params\":{{\"name\":\"pay\",\"arguments\":{arguments}}}}}\n"
    );
    let caller = Caller::new(by, "server".into());
    let frame = Frame::from_client(Bytes::from(line)).unwrap();
    let Screened::Hold(held) = gate.screen(&caller, frame) else { panic!("it is held") };
    let (id, keeper) = (held.id(), Arc::clone(gate));
    (id, tokio::spawn(async move { keeper.hold(held).await }))
}

/// Whether such a call runs without anybody being asked.
async fn runs_at_once(gate: &Arc<Gate>, by: &Principal, arguments: &str) -> bool {
    let (id, released) = make(gate, by, arguments);
    loop {
        if released.is_finished() {
            let Released::Resume(approved) = released.await.unwrap() else { panic!("it does not run") };
            gate.answered(approved.hold()).await;
            return true;
        }
        if gate.held(id).is_some() {
            released.abort();
            return false;
        }
        tokio::task::yield_now().await;
    }
}

/// The same, held.
async fn held(gate: &Arc<Gate>, by: &Principal, arguments: &str) -> HoldId {
    let (id, _released) = make(gate, by, arguments);
    while gate.held(id).is_none() {
        tokio::task::yield_now().await;
    }
    id
}

async fn remember(gate: &Gate, id: HoldId, who: &str, same: Same) -> Result<State, ResolveError> {
    let said = Said {
        verdict: Verdict::Approve,
        remember: Some((600, same)),
        arguments: None,
        proof: None,
        shown_sha256: None,
    };
    let state = gate.resolve(id, said, &user(who), None).await?;
    gate.answered(id).await;
    Ok(state)
}

async fn edit(gate: &Gate, id: HoldId, who: &str, arguments: &str) -> Result<State, ResolveError> {
    let said = Said {
        verdict: Verdict::Approve,
        remember: None,
        arguments: Some(arguments.to_owned()),
        proof: None,
        shown_sha256: None,
    };
    gate.resolve(id, said, &user(who), None).await
}

const REMEMBERING: &str = "  - {name: pay, tool: pay, action: hold, approvers: finance, remember: {for: 15m, same: [tool], uses: 5}}\n";

#[tokio::test]
async fn an_approval_is_remembered_by_those_who_could_give_it_and_for_whom_they_gave_it() {
    let gate = gate(REMEMBERING);
    let id = held(&gate, &bot(), "{\"a\":1}").await;
    assert!(matches!(remember(&gate, id, "dee", Same::Tool).await, Err(ResolveError::NotAllowed(_))));
    assert_eq!(remember(&gate, id, "ann", Same::Tool).await.unwrap(), State::Forwarding);
    assert!(runs_at_once(&gate, &bot(), "{\"a\":2}").await);
    assert!(
        !runs_at_once(&gate, &Principal::Agent { name: "other".into() }, "{\"a\":2}").await,
        "not for others"
    );
    // Nobody lets their own agent do as it likes.
    let eves = Principal::Agent { name: "eves-bot".into() };
    let id = held(&gate, &eves, "{\"a\":3}").await;
    assert!(matches!(remember(&gate, id, "eve", Same::Tool).await, Err(ResolveError::OwnCall)));
    let verified = gate.store().verify(None).await.unwrap();
    assert_eq!(verified.broken, None);
}

#[tokio::test]
async fn it_ends_with_the_person_and_with_the_rule_that_it_rests_on() {
    let gate = gate(REMEMBERING);
    let id = held(&gate, &bot(), "{\"a\":1}").await;
    remember(&gate, id, "ann", Same::Tool).await.unwrap();
    assert!(runs_at_once(&gate, &bot(), "{\"a\":1}").await);
    let replace = |people: &str, rules: &str| {
        let text = format!("{people}{rules}");
        gate.replace_policy(Policy::parse(vec![Source { name: "p".into(), text }]).unwrap(), "test")
    };
    // Ann is gone, or of another role.
    let without_ann: String =
        PEOPLE.lines().filter(|line| !line.contains("ann:")).map(|line| format!("{line}\n")).collect();
    assert!(replace(&without_ann, REMEMBERING));
    assert!(!runs_at_once(&gate, &bot(), "{\"a\":1}").await);
    assert!(replace(&PEOPLE.replace("ann: {roles: [finance]", "ann: {roles: [sales]"), REMEMBERING));
    assert!(!runs_at_once(&gate, &bot(), "{\"a\":1}").await);
    assert!(replace(PEOPLE, REMEMBERING));
    assert!(runs_at_once(&gate, &bot(), "{\"a\":1}").await, "the same policy as then");
    // What was approved for Eve's bot while it was nobody's.
    assert!(replace(
        &PEOPLE.replace("ann: {roles: [finance]", "ann: {agents: ['agent:bot'], roles: [finance]"),
        REMEMBERING
    ));
    assert!(!runs_at_once(&gate, &bot(), "{\"a\":1}").await, "ann's own agent now");
    // The rule allows less, or wants more.
    for rule in [
        REMEMBERING.replace("for: 15m", "for: 14m"),
        REMEMBERING.replace(", remember: {for: 15m, same: [tool], uses: 5}", ""),
        REMEMBERING.replace("approvers: finance", "approvers: [finance, security]"),
        REMEMBERING.replace("name: pay", "name: payments"),
        format!("{REMEMBERING}  - {{name: all, tool: '*', action: hold, approvers: finance}}\n"),
    ] {
        assert!(replace(PEOPLE, &rule));
        assert!(!runs_at_once(&gate, &bot(), "{\"a\":1}").await, "{rule}");
    }
}

#[tokio::test]
async fn what_several_people_approve_is_neither_remembered_nor_edited() {
    let gate = gate(
        "  - {name: pay, tool: pay, action: hold, approvers: finance, remember: 15m, edit: true}\n  \
         - {name: safe, tool: pay, action: hold, approvers: security, remember: 15m, edit: true}\n",
    );
    let id = held(&gate, &bot(), "{\"a\":1}").await;
    assert!(matches!(remember(&gate, id, "ann", Same::Arguments).await, Err(ResolveError::NotAlone)));
    assert!(matches!(edit(&gate, id, "ann", "{\"a\":2}").await, Err(ResolveError::NotAlone)));
    let votes = gate.store().hold(id).await.unwrap().unwrap().votes;
    assert!(votes.is_empty(), "no vote was counted for anything: {votes:?}");
    assert_eq!(gate.resolve(id, Verdict::Approve, &user("ann"), None).await.unwrap(), State::Held);
    // The other one cannot make another call of what Ann has approved either.
    assert!(matches!(edit(&gate, id, "cem", "{\"a\":2}").await, Err(ResolveError::NotAlone)));
    assert_eq!(gate.resolve(id, Verdict::Approve, &user("cem"), None).await.unwrap(), State::Forwarding);
}

#[tokio::test]
async fn the_rule_bounds_how_long_and_how_much_is_remembered() {
    let gate = gate("  - {name: pay, tool: pay, action: hold, approvers: finance, remember: 5m}\n");
    let id = held(&gate, &bot(), "{\"a\":1}").await;
    for (seconds, same) in
        [(301, Same::Arguments), (0, Same::Arguments), (u64::MAX, Same::Arguments), (60, Same::Tool)]
    {
        let said = Said {
            verdict: Verdict::Approve,
            remember: Some((seconds, same)),
            arguments: None,
            proof: None,
            shown_sha256: None,
        };
        let refused = gate.resolve(id, said, &user("ann"), None).await;
        assert!(matches!(refused, Err(ResolveError::NotRemembered(_))), "{seconds} {same:?}: {refused:?}");
    }
    let rejected = Said {
        verdict: Verdict::Reject,
        remember: Some((60, Same::Arguments)),
        arguments: None,
        proof: None,
        shown_sha256: None,
    };
    assert!(gate.resolve(id, rejected, &user("ann"), Some("no")).await.is_err());
    assert_eq!(gate.store().hold(id).await.unwrap().unwrap().state, State::Held, "and it waits still");
    // A policy that has changed since may want something else.
    assert!(gate.replace_policy(policy(REMEMBERING), "test"));
    let refused = remember(&gate, id, "ann", Same::Arguments).await;
    assert!(matches!(refused, Err(ResolveError::NotRemembered(_))), "{refused:?}");
    assert_eq!(gate.resolve(id, Verdict::Approve, &user("ann"), None).await.unwrap(), State::Forwarding);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_calls_that_race_for_the_last_use_over_two_gates_no_more_run_than_were_approved() {
    let store = Store::in_memory();
    let gates = [gate_on("gate-1", REMEMBERING, &store), gate_on("gate-2", REMEMBERING, &store)];
    let id = held(&gates[0], &bot(), "{\"first\":1}").await;
    remember(&gates[0], id, "ann", Same::Tool).await.unwrap();
    let calls: Vec<_> = (0..40)
        .map(|number| {
            let gate = Arc::clone(&gates[number % 2]);
            let arguments = format!("{{\"number\":{number}}}");
            tokio::spawn(async move { runs_at_once(&gate, &bot(), &arguments).await })
        })
        .collect();
    let mut ran = 0;
    for call in calls {
        ran += u32::from(call.await.unwrap());
    }
    assert_eq!(ran, 5, "as many as the rule says");
    let all = gates[1].remembered().await.unwrap();
    assert_eq!((all[0].uses, all[0].uses_max), (5, 5));
    assert_eq!(store.verify(None).await.unwrap().broken, None);
}

#[tokio::test]
async fn what_the_edited_call_needs_is_needed_too() {
    let gate = gate(
        "  - {name: pay, tool: pay, action: hold, approvers: finance, edit: true}\n  \
         - {name: large, tool: pay, when: args.a > 100, action: hold, approvers: security}\n  \
         - {name: never, tool: pay, when: args.a > 1000, action: deny, reason: Never so much.}\n",
    );
    let id = held(&gate, &bot(), "{\"a\":1}").await;
    let refused = edit(&gate, id, "ann", "{\"a\":500}").await;
    assert!(matches!(refused, Err(ResolveError::NotAlone)), "security would have to say yes: {refused:?}");
    let refused = edit(&gate, id, "ann", "{\"a\":5000}").await.unwrap_err().to_string();
    assert!(refused.contains("Never so much."), "{refused}");
    let refused = edit(&gate, id, "ann", "{\"a\":\"x\"}").await;
    assert!(refused.is_err(), "what a rule that denies cannot judge: {refused:?}");
    // A policy that denies has come into force meanwhile.
    assert!(
        gate.replace_policy(policy("  - {name: pay, tool: pay, when: args.a == 7, action: deny}\n"), "test")
    );
    let refused = edit(&gate, id, "ann", "{\"a\":7}").await.unwrap_err().to_string();
    assert!(refused.contains("denies"), "{refused}");
    assert_eq!(edit(&gate, id, "ann", "{\"a\":8}").await.unwrap(), State::Forwarding);
}

#[tokio::test(start_paused = true)]
async fn reminders_go_on_after_a_restart_and_of_several_gates_one_gives_them() {
    let store = Store::in_memory();
    let rules = "  - {name: pay, tool: pay, action: hold, approvers: finance, timeout: 10m, escalate: [{to: dee, timeout: 20m}], \
                 remind: 8m}\n";
    let first = gate_on("gate-1", rules, &store);
    let id = held(&first, &bot(), "{}").await;
    drop(first);
    // Its process is dead: nothing has reminded anybody yet, and nobody makes the call again.
    let mut heard = Vec::new();
    let mut tasks = Vec::new();
    let (told, mut news) = tokio::sync::mpsc::channel(100);
    let began = tokio::time::Instant::now();
    for name in ["gate-2", "gate-3"] {
        let gate = Gate::new(name.into(), Arc::new(policy(rules)), store.clone(), GateLimits::default());
        let gate = Arc::new(gate.with_is_dead(Box::new(|other| other == "gate-1")));
        let (mut watched, told) = (gate.watch(), told.clone());
        tasks.push(tokio::spawn(async move {
            while let Ok(news) = watched.recv().await {
                if let News::Waiting { hold, to } = news {
                    // The clock of the record goes on while that of the test stands still: to the minute.
                    told.send(((began.elapsed().as_secs() + 30) / 60, hold.id, to.join(","))).await.unwrap();
                }
            }
        }));
        tasks.push(tokio::spawn(async move { gate.keep_reminding().await }));
    }
    while heard.len() < 4 {
        heard.push(tokio::time::timeout(Duration::from_secs(3600), news.recv()).await.unwrap().unwrap());
    }
    let expected = [(8, ""), (10, "dee"), (16, ""), (24, "")].map(|(at, to)| (at, id, to.to_owned()));
    assert_eq!(heard, expected, "each once");
    let quiet = tokio::time::timeout(Duration::from_secs(3600), news.recv()).await;
    assert!(quiet.is_err(), "{quiet:?}");
    let lines = store.audit_events(0, 100).await.unwrap();
    assert_eq!(lines.iter().filter(|line| line.line.contains("\"kind\":\"escalated\"")).count(), 4);
    tasks.into_iter().for_each(|task| task.abort());
}

#[tokio::test(start_paused = true)]
async fn reminders_go_on_for_a_call_that_is_made_again_at_another_gate() {
    let store = Store::in_memory();
    let rules = "  - {name: pay, tool: pay, action: hold, approvers: finance, timeout: 10s, escalate: [{to: dee, timeout: 20m}]}\n";
    let first = gate_on("gate-1", rules, &store);
    let id = held(&first, &bot(), "{}").await;
    drop(first);
    // Its caller is faster than the look at what the dead gate has left.
    let gate = gate_on("gate-2", rules, &store);
    let _kept = make(&gate, &bot(), "{}");
    while gate.held(id).is_none() {
        tokio::task::yield_now().await;
    }
    let (mut news, reminding) = (gate.watch(), Arc::clone(&gate));
    let reminding = tokio::spawn(async move { reminding.keep_reminding().await });
    let told = tokio::time::timeout(Duration::from_secs(20), async {
        loop {
            if let News::Waiting { hold, to } = news.recv().await.unwrap() {
                return (hold.id, to);
            }
        }
    });
    assert_eq!(told.await.expect("others are brought in, in time"), (id, vec!["dee".to_owned()]));
    reminding.abort();
}

const RULES: &str = "version: 1
default: allow
rules:
  - {name: danger, tool: danger, action: hold, timeout: 10m, edit: true, remember: {for: 1h, same: [arguments, tool], uses: 3}}
";

/// A server that answers with a result in which it says what it was sent.
const TELLING: &str = r#"while read -r line; do id=${line#*\"id\":}; id=${id%%,*}; args=${line#*\"arguments\":}; echo "{\"jsonrpc\":\"2.0\",\"id\":$id,\"result\":{\"content\":[{\"type\":\"text\",\"text\":\"ran\"}],\"structuredContent\":${args%\}\}}}}"; done"#;

fn danger(id: u32, arguments: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"danger","arguments":{arguments}}}}}"#
    )
}

fn wrapped(home: &Home) -> Wrapped {
    let policy = home.file("policy.yaml", RULES);
    let mut command: Command = home.command();
    command.args(["run", "--server", "billing", "--policy"]).arg(policy).args(["--", "sh", "-c", TELLING]);
    Wrapped::start(command)
}

fn said(output: &std::process::Output) -> String {
    String::from_utf8([&output.stdout[..], &output.stderr[..]].concat()).unwrap()
}

#[test]
fn an_operator_remembers_an_approval_sees_it_and_takes_it_back() {
    let home = Home::new();
    let mut agent = wrapped(&home);
    assert!(said(&home.holdshort(["remembered"])).contains("no approval is remembered"));
    agent.send(&danger(1, "{\"n\":1}"));
    let id = home.wait_for_holds(1).remove(0);
    assert!(
        said(&home.holdshort(["show", &id]))
            .contains("--for 1h at most, --same arguments|tool, 3 calls at most")
    );
    let too_long = home.holdshort(["approve", &id, "--for", "2h"]);
    assert_eq!(too_long.status.code(), Some(3), "{}", said(&too_long));
    let output =
        home.holdshort(["approve", &id, "--for", "15m", "--same", "tool", "--comment", "all of today's"]);
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(agent.receive()["id"], 1);
    assert_eq!(
        agent.ask(&danger(2, "{\"n\":2}"))["result"]["structuredContent"],
        json!({"n": 2}),
        "nobody is asked"
    );
    let all: Value = serde_json::from_slice(&home.holdshort(["remembered", "--json"]).stdout).unwrap();
    for (key, value) in [("standing", "counts"), ("server", "billing"), ("tool", "danger"), ("same", "tool")]
    {
        assert_eq!(all[0][key], value, "{all}");
    }
    assert_eq!((&all[0]["id"], &all[0]["uses"], &all[0]["uses_max"]), (&json!(id), &json!(1), &json!(3)));
    let list = said(&home.holdshort(["remembered"]));
    assert!(list.contains("1 of 3") && list.contains("counts"), "{list}");
    let history: Value = serde_json::from_slice(&home.holdshort(["history", "--json"]).stdout).unwrap();
    let by = history[0]["votes"][0]["by"].as_str().unwrap();
    assert!(by.starts_with(&format!("remembered approval {}", &id[..7])), "{by}");
    assert!(home.holdshort(["remembered", "revoke", &id]).status.success());
    let again = home.holdshort(["remembered", "revoke", &id]);
    assert_eq!(again.status.code(), Some(4), "it is over");
    assert!(said(&again).contains("no approval of this hold is remembered"), "{}", said(&again));
    agent.send(&danger(3, "{\"n\":3}"));
    let id = home.wait_for_holds(1).remove(0);
    assert!(home.holdshort(["reject", &id, "--reason", "no more"]).status.success());
    agent.receive();
    let exported = said(&home.holdshort(["audit", "export"]));
    for kind in ["remembered", "remembered_used", "remembered_revoked"] {
        assert!(exported.contains(&format!("\"kind\":\"{kind}\"")), "{exported}");
    }
    drop(agent);
    home.verify();
}

#[test]
fn an_operator_changes_the_arguments_after_having_seen_what_differs() {
    let home = Home::new();
    let mut agent = wrapped(&home);
    agent.send(&danger(1, "{\"to\":\"all\",\"n\":900}"));
    let id = home.wait_for_holds(1).remove(0);
    let file = home.file("new.json", "{\n  \"to\": \"all\",\n  \"n\": 9\n}\n");
    let file = file.to_str().unwrap();
    let unconfirmed = home.holdshort(["approve", &id, "--edit", file]);
    let text = said(&unconfirmed);
    assert_eq!(unconfirmed.status.code(), Some(2), "{text}");
    assert!(
        text.contains("-   \"n\": 900") && text.contains("+   \"n\": 9\n") && text.contains("--yes"),
        "{text}"
    );
    assert_eq!(home.holds()[0]["state"], "held", "nothing has happened");
    let bad = home.file("bad.json", "{\"n\":1,\"n\":2}");
    let bad = home.holdshort(["approve", &id, "--yes", "--edit", bad.to_str().unwrap()]);
    assert_eq!(bad.status.code(), Some(2), "{}", said(&bad));
    let both = home.holdshort(["approve", &id, "--for", "5m", "--edit", file]);
    assert_eq!(both.status.code(), Some(2), "{}", said(&both));
    let output = home.holdshort(["approve", &id, "--edit", file, "--yes", "--comment", "nine are enough"]);
    assert!(output.status.success(), "{}", said(&output));
    let answer = agent.receive();
    let content = answer["result"]["content"].as_array().unwrap();
    let notice = content[0]["text"].as_str().unwrap();
    assert!(notice.contains("\"n\": 9") && notice.contains("nine are enough"), "{notice}");
    assert_eq!(content[1]["text"], "ran", "what the server says comes after");
    assert_eq!(answer["result"]["structuredContent"], json!({"to": "all", "n": 9}), "what ran");
    let shown: Value = serde_json::from_slice(&home.holdshort(["show", &id, "--json"]).stdout).unwrap();
    assert_eq!(shown["arguments"], json!({"to": "all", "n": 900}));
    assert_eq!(shown["edit"]["arguments"], json!({"to": "all", "n": 9}));
    assert_eq!(shown["votes"][0]["shown_sha256"], shown["shown_sha256"], "the call as it came was shown");
    assert!(said(&output).contains("|   \"n\": 900"), "all of it: {}", said(&output));
    assert_eq!(shown["frame"], danger(1, "{\"to\":\"all\",\"n\":900}"), "the record has both");
    let page = said(&home.holdshort(["show", &id]));
    assert!(
        page.contains("|   \"to\": \"all\"")
            && page.contains("| -   \"n\": 900")
            && page.contains("| +   \"n\": 9"),
        "{page}"
    );
    // What nothing could come of, nobody writes first: there is no terminal here, and that is not what is said.
    let late = home.holdshort(["approve", &id, "--edit"]);
    assert_eq!(late.status.code(), Some(4), "{}", said(&late));
    assert!(said(&late).contains("ended already") && said(&late).contains("approved by"), "{}", said(&late));
    home.file("policy.yaml", &RULES.replace("edit: true, ", ""));
    assert!(home.holdshort(["policy", "reload"]).status.success());
    agent.send(&danger(2, "{\"n\":900}"));
    let id = home.wait_for_holds(1).remove(0);
    let never = home.holdshort(["approve", &id, "--edit"]);
    assert_eq!(never.status.code(), Some(3), "{}", said(&never));
    assert!(said(&never).contains("no rule that holds it says `edit: true`"), "{}", said(&never));
    drop(agent);
    home.verify();
}

/// Sends a call that is held over HTTP, and has it approved with other arguments; gives what the client hears.
/// `holdshort approve ID --edit` by somebody who sits at a terminal, has this editor, and types `answer`.
fn approve_at_a_terminal(home: &Home, id: &str, editor: &str, answer: &str) -> std::process::Output {
    let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&terminal).unwrap();
    unlockpt(&terminal).unwrap();
    let name = ptsname(&terminal, Vec::new()).unwrap();
    let keyboard = File::options().read(true).write(true).open(name.to_str().unwrap()).unwrap();
    rustix::io::write(&terminal, answer.as_bytes()).unwrap();
    let mut command = home.command();
    command.args(["approve", id, "--edit"]).env("VISUAL", editor).stdin(keyboard);
    // Until here somebody has the terminal open: what was typed is lost with the last one.
    let output = command.output().unwrap();
    drop(terminal);
    output
}

#[test]
fn an_operator_changes_the_arguments_in_an_editor() {
    let home = Home::new();
    let mut agent = wrapped(&home);
    agent.send(&danger(1, "{\"n\":900,\"to\":[\"all\"]}"));
    let id = home.wait_for_holds(1).remove(0);
    let editor = home.file(
        "editor.sh",
        "cp \"$1\" \"${0%/*}/seen\" && sed 's/900/9/' \"$1\" > \"$1.new\" && mv \"$1.new\" \"$1\"",
    );
    let editor = format!("sh {}", editor.display());
    let failed = approve_at_a_terminal(&home, &id, "false", "y\n");
    assert!(said(&failed).contains("the editor ended with"), "{}", said(&failed));
    let missing = approve_at_a_terminal(&home, &id, "/nowhere/editor", "y\n");
    assert!(!missing.status.success(), "{}", said(&missing));
    let regretted = approve_at_a_terminal(&home, &id, &editor, "n\n");
    assert!(said(&regretted).contains("nothing is approved"), "{}", said(&regretted));
    assert_eq!(home.holds()[0]["state"], "held", "nothing has happened");
    let seen = std::fs::read_to_string(home.path().join("seen")).unwrap();
    assert_eq!(seen, "{\n  \"n\": 900,\n  \"to\": [\n    \"all\"\n  ]\n}\n");
    let output = approve_at_a_terminal(&home, &id, &editor, "y\n");
    let text = said(&output);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("-   \"n\": 900") && text.contains("+   \"n\": 9"), "{text}");
    assert_eq!(agent.receive()["result"]["structuredContent"], json!({"n": 9, "to": ["all"]}), "what ran");
    drop(agent);
    home.verify();
}

fn edited_over_http(server: &Server, headers: &[(&str, &str)], is_kept: bool) -> (Proxy, String) {
    let proxy = Proxy::before(server, RULES, "");
    let mut client: Connection = proxy.connect();
    client.send(&post("/mcp", headers, &danger(5, "{\"n\":900}")));
    if is_kept {
        assert_eq!(client.head().unwrap().header("content-type"), Some("text/event-stream"));
    }
    let id = proxy.home.wait_for_holds(1).remove(0);
    let file = proxy.home.file("new.json", "{\"n\":9}");
    let output = proxy.home.holdshort(["approve", &id, "--yes", "--edit", file.to_str().unwrap()]);
    assert!(output.status.success(), "{}", said(&output));
    let text = if is_kept {
        let mut text = Vec::new();
        loop {
            let chunk = client.chunk();
            if chunk.is_empty() {
                break;
            }
            text.extend(chunk);
        }
        String::from_utf8(text).unwrap()
    } else {
        client.message().unwrap().text().to_owned()
    };
    assert_eq!(server.asked()[0].text(), danger(5, "{\"n\":9}"), "what the server gets");
    (proxy, text)
}

/// That a message says that the call was changed, and then what the server says.
fn says_so(message: &str) {
    let message: Value = serde_json::from_str(message).unwrap_or_else(|_| panic!("JSON, not {message}"));
    let content = message["result"]["content"].as_array().unwrap();
    assert!(content[0]["text"].as_str().unwrap().starts_with("EDITED by a person"), "{message}");
    assert_eq!(content[1]["text"], "done");
    assert_eq!(message["result"]["_meta"]["dev.holdshort/decision"]["state"], "edited");
}

const DONE: &str = r#"{"content":[{"type":"text","text":"done"}]}"#;

#[test]
fn an_answer_over_http_says_that_the_call_was_changed_in_whatever_form_it_comes() {
    let json_only = [("accept", "application/json")];
    let (_proxy, text) = edited_over_http(&Server::of_result(DONE), &json_only, false);
    says_so(&text);
    // The client is kept with events, and the server answers with one message.
    let (_proxy, text) = edited_over_http(&Server::of_result(DONE), &[], true);
    says_so(text.split_once("data: ").unwrap().1.trim());
    // The server answers with events; what is not the answer stays as it is.
    let streaming = Server::start(Box::new(|_, say| {
        say(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n");
        say(b": hello\n\nevent: message\ndata: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/message\",\"params\":{\"level\":\"info\",\"data\":1}}\n\n");
        say(b"id: 7\ndata: {\"jsonrpc\":\"2.0\",\"id\":5,\n");
        say(format!("data: \"result\":{DONE}}}\n\n").as_bytes());
    }));
    let (proxy, text) = edited_over_http(&streaming, &[], true);
    assert!(text.contains("\"data\":1}}\n\n") && text.contains("id: 7\n"), "{text}");
    let answer = text.lines().filter_map(|line| line.strip_prefix("data: ")).next_back().unwrap();
    says_so(answer);
    proxy.home.verify();
}

#[test]
fn headers_that_mirror_arguments_do_not_go_along_with_others() {
    let (_proxy, text) = {
        let server = Server::of_result(DONE);
        let headers = [("accept", "application/json"), ("mcp-param-n", "900"), ("x-own", "kept")];
        let (proxy, text) = edited_over_http(&server, &headers, false);
        let asked = server.asked().remove(0);
        assert_eq!((asked.header("mcp-param-n"), asked.header("x-own")), (None, Some("kept")));
        (proxy, text)
    };
    says_so(&text);
}

#[test]
fn an_error_of_a_server_says_it_too() {
    let refusing = Server::start(Box::new(|_, say| {
        let body = r#"{"jsonrpc":"2.0","id":5,"error":{"code":-32020,"message":"no"}}"#;
        say(&crate::support::http::json("400 Bad Request", "", body));
    }));
    let (_proxy, text) = edited_over_http(&refusing, &[("accept", "application/json")], false);
    let message: Value = serde_json::from_str(&text).unwrap();
    let told = message["error"]["message"].as_str().unwrap();
    assert!(told.starts_with("EDITED by a person") && told.ends_with("tell the user. no"), "{told}");
}
