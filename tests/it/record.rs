//! Which record an answer is about: the usual one or the one that is named, whatever gates run.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    os::unix::process::ExitStatusExt,
    process::{Output, Stdio},
};

use serde_json::Value;

use crate::support::program::{Home, Wrapped};

const HOLD_ALL: &str = "version: 1\ndefault: hold\nrules: []\n";

const SILENT: &str = "while read -r line; do :; done";

const CALL: &str = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"danger"}}"#;

/// A gate on the record at `store`, or on the usual one, that holds a call.
fn gate(home: &Home, store: Option<&str>) -> Wrapped {
    let policy = home.file("policy.yaml", HOLD_ALL);
    let mut command = home.command();
    command.current_dir(home.path()).args(["run", "--server", "billing", "--policy"]).arg(policy);
    command.args(store.iter().flat_map(|store| ["--store", store]));
    command.args(["--", "sh", "-c", SILENT]);
    let mut gate = Wrapped::start(command);
    gate.send(CALL);
    home.wait_for_holds(1);
    gate
}

fn end(mut gate: Wrapped) {
    gate.close();
    gate.ends();
}

/// Changes a line of the record, which a verification must find.
fn tamper(home: &Home) {
    let db = rusqlite::Connection::open(home.store()).unwrap();
    db.execute_batch("DROP TRIGGER audit_is_not_changed").unwrap();
    let lines = db.execute("UPDATE audit SET line = replace(line, 'danger', 'harmless')", []).unwrap();
    assert!(lines > 0);
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn a_gate_on_another_record_does_not_answer_for_the_usual_one() {
    let home = Home::new();
    end(gate(&home, None));
    tamper(&home);
    assert_eq!(home.holdshort(["audit", "verify"]).status.code(), Some(1));

    let _other = gate(&home, Some("other/other.db"));
    let verified = home.holdshort(["audit", "verify", "--json"]);
    assert_eq!(verified.status.code(), Some(1), "{verified:?}");
    let usual = home.store().to_str().unwrap().to_owned();
    assert_eq!(
        (&json(&verified)["record"], &json(&verified)["sound"]),
        (&usual.clone().into(), &false.into())
    );
    assert!(stderr(&verified).contains(&format!("record: {usual}")), "{}", stderr(&verified));
    assert_eq!(home.holdshort(["audit", "verify"]).status.code(), Some(1));
    let history = home.holdshort(["history", "--json"]);
    assert!(stderr(&history).contains(&usual), "{}", stderr(&history));
    assert_eq!(
        json(&history)[0]["state"],
        "held",
        "the call of the gate that has ended, not the one that waits"
    );
}

#[test]
fn where_there_is_no_record_yet_no_gate_is_said_to_be_silent() {
    let home = Home::new();
    for words in
        [&["history"][..], &["audit", "verify"], &["audit", "export"], &["tools", "show", "billing", "pay"]]
    {
        let output = home.holdshort(words);
        assert_eq!(output.status.code(), Some(1), "{words:?}");
        assert_eq!(
            stderr(&output),
            format!(
                "holdshort: error: there is no record at `{}` yet: it is made when a gate first runs\n",
                home.store().display()
            ),
            "{words:?}"
        );
    }
}

#[test]
fn when_the_last_gate_has_ended_the_file_alone_is_the_whole_record() {
    let home = Home::new();
    let gate = gate(&home, None);
    let copy = |name: &str| {
        let copy = home.path().join(name);
        fs::copy(home.store(), &copy).unwrap();
        home.holdshort(["audit", "verify", "--json", "--store", copy.to_str().unwrap()])
    };
    let early = copy("early.db");
    assert_eq!((early.status.code(), &json(&early)["events"]), (Some(0), &0.into()));
    assert!(stderr(&early).contains("warning: this record has no event at all"), "{}", stderr(&early));
    end(gate);
    let whole = home.holdshort(["audit", "verify", "--json"]);
    assert_eq!(json(&whole)["events"], 4, "{whole:?}");
    let alone = copy("alone.db");
    assert!(!stderr(&alone).contains("warning"), "{}", stderr(&alone));
    assert_eq!(json(&alone)["checkpoint"], json(&whole)["checkpoint"]);
    // What is decided without a gate is written by a command, which is then the last process.
    let id = json(&home.holdshort(["history", "--json"]))[0]["id"].as_str().unwrap().to_owned();
    assert!(home.holdshort(["reject", &id, "--reason", "no"]).status.success());
    assert_eq!(
        json(&copy("decided.db"))["checkpoint"],
        json(&home.holdshort(["audit", "verify", "--json"]))["checkpoint"]
    );
}

#[test]
fn an_empty_file_is_no_record_and_stays_empty() {
    let home = Home::new();
    let empty = home.file("empty.db", "");
    for words in [&["history"][..], &["audit", "verify"], &["holds"]] {
        let output = home.holdshort([words, &["--store", empty.to_str().unwrap()]].concat());
        assert_eq!(output.status.code(), Some(1), "{words:?}");
        assert!(stderr(&output).contains("there is no record at `"), "{words:?}: {}", stderr(&output));
    }
    assert_eq!(empty.metadata().unwrap().len(), 0);
}

#[test]
fn a_record_that_is_named_and_is_not_there_is_no_place_where_nothing_waits() {
    let home = Home::new();
    let waiting = gate(&home, None);
    for words in [
        &["holds"][..],
        &["holds", "--watch"],
        &["remembered"],
        &["show", "0"],
        &["reject", "0", "--reason", "no"],
    ] {
        let output = home.holdshort([words, &["--store", "nope.db"]].concat());
        assert_eq!(output.status.code(), Some(1), "{words:?}");
        assert!(stderr(&output).contains("there is no record at `"), "{words:?}: {}", stderr(&output));
    }
    end(waiting);
}

#[test]
fn a_record_that_is_named_is_the_one_that_is_read_however_it_is_named() {
    let home = Home::new();
    let _usual = gate(&home, None);
    let other = home.path().join("other.db");
    let named = |store: &str| {
        let mut command = home.command();
        command.current_dir(home.path()).args(["audit", "verify", "--json", "--store", store]);
        command.output().unwrap()
    };
    let missing = named("other.db");
    assert_eq!(missing.status.code(), Some(1), "no other record stands in for one that is missing");
    assert!(!other.exists());
    // A copy of the usual record, as a backup makes it.
    let db = rusqlite::Connection::open(home.store()).unwrap();
    db.execute("VACUUM INTO ?1", [other.to_str().unwrap()]).unwrap();
    fs::set_permissions(&other, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    for name in ["other.db", "./other.db", other.to_str().unwrap()] {
        let verified = named(name);
        assert!(verified.status.success(), "{name}: {verified:?}");
        assert_eq!(json(&verified)["record"], other.to_str().unwrap(), "{name}");
    }
    let usual = named(".local/state/holdshort/holdshort.db");
    assert_eq!(json(&usual)["record"], home.store().to_str().unwrap());
}

#[test]
fn what_waits_in_a_record_that_is_named_is_seen_and_decided_whatever_gates_run_on_others() {
    let home = Home::new();
    let named = |arguments: &[&str]| {
        let mut command = home.command();
        command.current_dir(home.path()).args(arguments).args(["--store", "other.db"]).stdin(Stdio::null());
        command.output().unwrap()
    };
    end(gate(&home, Some("other.db")));
    let _usual = gate(&home, None);
    let usual = home.wait_for_holds(1).remove(0);
    let listed = json(&named(&["holds", "--json"]));
    let left = listed[0]["id"].as_str().unwrap();
    assert_eq!((listed.as_array().unwrap().len(), &listed[0]["attached"]), (1, &false.into()), "{listed}");
    assert_eq!(json(&named(&["show", left, "--json"]))["state"], "held");
    assert_eq!(named(&["approve", &usual]).status.code(), Some(4), "that is in another record");
    let approved = named(&["approve", left]);
    assert!(approved.status.success(), "{approved:?}");
    assert_eq!(json(&named(&["show", left, "--json"]))["state"], "granted");
    assert!(named(&["reject", left, "--reason", "on second thoughts"]).status.success());
    assert!(stderr(&named(&["holds"])).contains("nothing waits"), "the usual record's call is not listed");
    // With a gate on it, that is the one which is asked.
    let mut command = home.command();
    command.current_dir(home.path()).args(["run", "--server", "billing", "--store", "other.db", "--policy"]);
    command.arg(home.path().join("policy.yaml")).args(["--", "sh", "-c", SILENT]);
    let mut own = Wrapped::start(command);
    own.send(&CALL.replace("danger", "other"));
    let waiting = home.wait_for_holds(2).into_iter().find(|id| *id != usual).unwrap();
    let listed = json(&named(&["holds", "--json"]));
    assert_eq!(
        (&listed[0]["id"], listed.as_array().unwrap().len()),
        (&waiting.as_str().into(), 1),
        "{listed}"
    );
    assert_eq!(listed[0]["attached"], true);
    assert!(named(&["reject", &waiting, "--reason", "no"]).status.success());
    assert!(own.receive()["result"]["content"][0]["text"].as_str().unwrap().contains("no"));
    // One that cannot be read is no empty one.
    fs::write(home.path().join("broken.db"), "this is no record").unwrap();
    fs::set_permissions(home.path().join("broken.db"), std::os::unix::fs::PermissionsExt::from_mode(0o600))
        .unwrap();
    let broken = home.holdshort(["holds", "--store", home.path().join("broken.db").to_str().unwrap()]);
    assert_eq!(broken.status.code(), Some(1), "{broken:?}");
}

/// The pages of help of the command `words` and of all below it.
fn help(home: &Home, words: &[String], pages: &mut Vec<String>) {
    for flag in ["-h", "--help"] {
        let mut command = home.command();
        command.env("HOLDSHORT_STORE", "postgres://ann:swordfish@db.example/holdshort");
        command.env("HOLDSHORT_SIGN", "/home/ann/swordfish").args(words).arg(flag);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{words:?}: {output:?}");
        pages.push(String::from_utf8(output.stdout).unwrap());
    }
    let page = pages.last().unwrap().clone();
    let commands = page.lines().skip_while(|line| *line != "Commands:").skip(1);
    for line in commands.take_while(|line| !line.is_empty()) {
        // What a command is for may take several lines, which begin further right.
        let Some(name) = line.strip_prefix("  ").filter(|line| !line.starts_with(' ')) else { continue };
        let name = name.split_whitespace().next().unwrap().to_owned();
        if name != "help" {
            help(home, &[words, &[name]].concat(), pages);
        }
    }
}

#[test]
fn no_page_of_help_shows_the_password_of_the_record() {
    let home = Home::new();
    let mut pages = Vec::new();
    help(&home, &[], &mut pages);
    let named = pages.iter().filter(|page| page.contains("HOLDSHORT_STORE"));
    assert!(named.count() >= 30, "of {} pages", pages.len());
    assert!(pages.iter().any(|page| page.contains("HOLDSHORT_SIGN")));
    for page in &pages {
        assert!(!page.contains("swordfish"), "{page}");
    }
}

/// The lines that a command prints, each as JSON.
fn events(home: &Home, arguments: &[&str]) -> Vec<Value> {
    let output = home.holdshort(arguments);
    assert!(output.status.success(), "{output:?}");
    let lines = String::from_utf8(output.stdout).unwrap();
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn an_export_as_cloud_events_has_who_when_which_call_and_its_exact_bytes() {
    let home = Home::new();
    let gate = gate(&home, None);
    let hold = home.wait_for_holds(1).remove(0);
    assert!(home.holdshort(["reject", &hold, "--reason", "no"]).status.success());
    gate.receive();
    end(gate);
    let stored = events(&home, &["audit", "export"]);
    let told = events(&home, &["audit", "export", "--format", "cloudevents"]);
    assert_eq!(told.len(), stored.len());
    for (event, line) in told.iter().zip(&stored) {
        assert_eq!((&event["specversion"], &event["data"]["event"]), (&"1.0".into(), line));
        assert_eq!(event["time"], line["at"]);
        assert_eq!(event["type"], format!("holdshort.audit.{}", line["kind"].as_str().unwrap()));
        // The chain can be proved from what is exported alone.
        let line_text = event["data"]["line"].as_str().unwrap();
        let previous = holdshort::digest::Digest::from_hex(line["prev"].as_str().unwrap()).unwrap();
        let hash = holdshort::audit::link(previous, line_text);
        assert_eq!(event["data"]["sha256"], hash.to_string());
    }
    let held = told.iter().find(|event| event["type"] == "holdshort.audit.held").unwrap();
    assert_eq!((&held["subject"], &held["data"]["frame"]), (&(&*hold).into(), &CALL.into()));
    let rejected = told.iter().find(|event| event["type"] == "holdshort.audit.rejected").unwrap();
    assert!(rejected["data"]["event"]["who"].as_str().unwrap().starts_with("uid:"), "{rejected}");
    assert!(events(&home, &["audit", "export", "--since", "2100-01-01T00:00:00Z"]).is_empty());
    assert_eq!(events(&home, &["audit", "export", "--since", "1h"]).len(), stored.len());
    assert_eq!(home.holdshort(["audit", "export", "--since", "soon"]).status.code(), Some(2));
    let newest = events(&home, &["audit", "tail", "--lines", "2"]);
    assert_eq!(newest, stored[stored.len() - 2..]);
}

#[test]
fn a_tail_that_follows_tells_each_event_as_it_comes() {
    let home = Home::new();
    let _gate = gate(&home, None);
    let hold = home.wait_for_holds(1).remove(0);
    let mut command = home.command();
    command.args(["audit", "tail", "--lines", "1000", "--follow"]);
    let tail = Wrapped::start(command);
    assert!(home.holdshort(["reject", &hold, "--reason", "no"]).status.success());
    // What was recorded before it began to follow may be among it.
    while tail.receive()["kind"] != "rejected" {}
}

#[test]
fn more_held_calls_than_people_can_look_at_are_on_record_as_a_burst() {
    const BURST: usize = 100;
    let home = Home::new();
    let mut gate = gate(&home, None);
    for number in 1..BURST {
        gate.send(
            &CALL.replace(r#""id":1"#, &format!(r#""id":{}"#, number + 1)).replace(
                r#""name":"danger""#,
                &format!(r#""name":"danger","arguments":{{"number":{number}}}"#),
            ),
        );
    }
    home.wait_for_holds(BURST);
    end(gate);
    let told: Vec<_> = events(&home, &["audit", "export"]);
    let told: Vec<_> = told.iter().filter(|event| event["kind"] == "burst").collect();
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0]["server"], "billing");
}

#[test]
fn a_configuration_that_is_read_again_is_on_record_and_so_is_one_that_is_not_taken() {
    use crate::support::http::{Proxy, Server};
    let server = Server::of_result("{}");
    let proxy = Proxy::before(&server, HOLD_ALL, "");
    let hang_up = || {
        let process = rustix::process::Pid::from_child(&proxy.process);
        rustix::process::kill_process(process, rustix::process::Signal::HUP).unwrap();
    };
    let recorded = |kind: &str| {
        crate::support::program::until(|| {
            let found = events(&proxy.home, &["audit", "export"]);
            found.into_iter().find(|event| event["kind"] == kind)
        })
    };
    hang_up();
    let loaded = recorded("configuration_loaded");
    assert_eq!(loaded["who"], "gate:sighup");
    let text = fs::read(proxy.home.path().join("serve.yaml")).unwrap();
    assert_eq!(loaded["note"], format!("sha256 {}", holdshort::digest::Digest::of(&text)));
    proxy.home.file("serve.yaml", "listen: nowhere\nsecret: hidden\n");
    hang_up();
    let refused = recorded("configuration_refused");
    assert!(!refused.to_string().contains("hidden"), "{refused}");
}

#[test]
fn an_export_that_is_killed_half_way_leaves_the_record_as_it_is_and_the_next_one_is_whole() {
    let home = Home::new();
    let policy = home.file("policy.yaml", "version: 1\nrules: [{name: never, tool: danger, action: deny}]\n");
    let mut command = home.command();
    command.args(["run", "--server", "billing", "--policy"]).arg(policy).args(["--", "sh", "-c", SILENT]);
    let mut gate = Wrapped::start(command);
    // More than a pipe takes at once: each of them is an event.
    for _ in 0..400 {
        assert!(gate.ask(CALL)["result"]["isError"] == true);
    }
    end(gate);
    let export = || home.holdshort(["audit", "export"]).stdout;
    let whole = export();
    assert!(whole.len() > 128 << 10, "{}", whole.len());
    let mut killed = home.command().args(["audit", "export"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut told = BufReader::new(killed.stdout.take().unwrap());
    let mut part = Vec::new();
    told.read_until(b'\n', &mut part).unwrap();
    killed.kill().unwrap();
    assert_eq!(killed.wait().unwrap().signal(), Some(9), "it was not done yet");
    told.read_to_end(&mut part).unwrap();
    assert!(part.len() < whole.len() && whole.starts_with(&part), "a part of it, and nothing else");
    home.verify();
    assert_eq!(export(), whole);
}
