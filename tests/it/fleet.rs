//! A fleet: gates and people on several machines, which have nothing in common but a PostgreSQL database.
//!
//! A machine is a home of its own: what runs in one finds no socket and no file of another.

use std::{
    fs,
    path::PathBuf,
    process::{Command, Output, Stdio},
    time::Duration,
};

use serde_json::{Value, json};

use crate::{
    desk::token,
    support::{
        browser::Desk,
        http::{Connection, post},
        postgres::Cluster,
        program::{Home, Wrapped, until},
    },
};

/// Writes down what it runs before it answers.
const LEDGER: &str = r#"while read -r line; do case $line in *tools/call*) echo "$line" >> "$LEDGER";; esac; id=${line#*\"id\":}; id=${id%%,*}; echo "{\"jsonrpc\":\"2.0\",\"id\":$id,\"result\":{\"ran\":true}}"; done"#;

const POLICY: &str = "version: 1\ndefault: hold\nrules:\n  - {name: reads, tool: 'get_*', action: allow}\n";

/// Several machines, one database, and one server that writes down what it has run, wherever its gate is.
struct Fleet {
    cluster: Cluster,
    url: String,
    machines: Vec<Home>,
    ledger: PathBuf,
}

impl Fleet {
    fn of(machines: usize) -> Self {
        let cluster = Cluster::start();
        let url = cluster.url(&cluster.database());
        let machines: Vec<_> = (0..machines).map(|_| Home::new()).collect();
        let ledger = machines[0].path().join("ledger");
        Self { cluster, url, machines, ledger }
    }

    /// A gate on a machine.
    fn gate(&self, machine: usize) -> Wrapped {
        let home = &self.machines[machine];
        let policy = home.file("policy.yaml", POLICY);
        let mut command = home.command();
        command.env("LEDGER", &self.ledger).env("HOLDSHORT_STORE", &self.url);
        command.args(["run", "--server", "ledger", "--policy"]).arg(policy);
        command.args(["--", "sh", "-c", LEDGER]);
        Wrapped::start(command)
    }

    /// A command of somebody at a machine.
    fn at(&self, machine: usize, arguments: &[&str]) -> Output {
        let mut command = self.machines[machine].command();
        command.env("HOLDSHORT_STORE", &self.url).args(arguments).output().unwrap()
    }

    /// The same, which has to succeed.
    fn ok(&self, machine: usize, arguments: &[&str]) -> String {
        let output = self.at(machine, arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Waits until one call waits, as somebody at a machine sees it.
    fn one_hold(&self, machine: usize) -> Value {
        until(|| {
            let output = self.at(machine, &["holds", "--json"]);
            let holds: Vec<Value> = serde_json::from_slice(&output.stdout).ok()?;
            (holds.len() == 1).then(|| holds[0].clone())
        })
    }

    /// What the server has run.
    fn executions(&self) -> usize {
        fs::read_to_string(&self.ledger).unwrap_or_default().lines().count()
    }

    fn verify(&self) -> Value {
        serde_json::from_str(&self.ok(0, &["audit", "verify", "--json"])).unwrap()
    }
}

fn call(id: u32, tool: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"{tool}","arguments":{{"to":"x"}}}}}}"#
    )
}

fn id_of(hold: &Value) -> &str {
    hold["id"].as_str().unwrap()
}

#[test]
fn a_call_is_decided_from_a_machine_that_has_neither_its_gate_nor_its_caller() {
    let fleet = Fleet::of(2);
    let mut gate = fleet.gate(0);
    gate.send(&call(1, "delete"));
    let hold = fleet.one_hold(1);
    assert_eq!((&hold["state"], &hold["attached"]), (&json!("held"), &json!(true)), "{hold}");
    assert_eq!(fleet.executions(), 0);
    fleet.ok(1, &["approve", id_of(&hold)]);
    assert_eq!(gate.receive()["result"], json!({"ran": true}));
    assert_eq!(fleet.executions(), 1);
    let late = fleet.at(1, &["reject", id_of(&hold), "--reason", "too late"]);
    assert!(!late.status.success(), "it has been decided");

    gate.send(&call(2, "delete"));
    let hold = fleet.one_hold(1);
    let no_reason = fleet.at(1, &["reject", id_of(&hold), "--reason", " "]);
    assert!(String::from_utf8_lossy(&no_reason.stderr).contains("needs a reason"), "{no_reason:?}");
    fleet.ok(1, &["reject", id_of(&hold), "--reason", "not on a Friday"]);
    assert!(gate.receive()["result"]["content"][0]["text"].as_str().unwrap().contains("not on a Friday"));
    assert_eq!(fleet.executions(), 1);
    let history: Vec<Value> = serde_json::from_str(&fleet.ok(1, &["history", "--json"])).unwrap();
    assert_eq!(
        history.iter().map(|hold| hold["state"].clone()).collect::<Vec<_>>(),
        ["rejected", "answered"]
    );
    assert_eq!(fleet.verify()["sound"], true);
}

#[test]
fn what_was_shown_at_one_machine_is_compared_at_the_one_that_has_the_caller() {
    let fleet = Fleet::of(2);
    let (mut gate, _other) = (fleet.gate(0), fleet.gate(1));
    gate.send(&call(1, "delete"));
    let hold = fleet.one_hold(1);
    let token = token(&fleet.machines[1], &["ci", "--scope", "read", "--scope", "decide"]);
    let mut command = fleet.machines[1].command();
    command.env("HOLDSHORT_STORE", &fleet.url).args(["desk", "--listen", "127.0.0.1:0"]);
    let desk = Desk::started(command);
    until(|| desk.ask("GET", "/holds", &token, "").json()["holds"].get(0).map(drop));
    let path = format!("/holds/{}", id_of(&hold));
    let shown = desk.ask("GET", &path, &token, "").json()["shown_sha256"].clone();
    let approve = |shown: &Value| {
        let body = json!({"shown_sha256": shown}).to_string();
        desk.ask("POST", &format!("{path}/approve"), &token, &body)
    };
    assert_eq!(approve(&json!("0".repeat(64))).problem(), "not-what-was-shown");
    assert_eq!((fleet.executions(), &fleet.one_hold(0)["state"]), (0, &json!("held")));
    assert_eq!(approve(&shown).status, 200);
    assert_eq!(gate.receive()["result"], json!({"ran": true}));
    let history: Vec<Value> = serde_json::from_str(&fleet.ok(1, &["history", "--json"])).unwrap();
    assert_eq!(history[0]["votes"][0]["shown_sha256"], shown);
    assert_eq!(fleet.verify()["sound"], true);
}

#[test]
fn what_a_killed_gate_held_is_decided_elsewhere_and_runs_once_at_another() {
    let fleet = Fleet::of(3);
    let (mut one, mut other) = (fleet.gate(0), fleet.gate(1));
    one.send(&call(1, "delete"));
    let hold = fleet.one_hold(2);
    one.process.kill().unwrap();
    one.process.wait().unwrap();
    fleet.ok(2, &["approve", id_of(&hold)]);
    assert_eq!(fleet.executions(), 0, "nobody is there to hear of it");
    // The same call, made again at another gate: nobody is asked again.
    assert_eq!(other.ask(&call(7, "delete"))["result"], json!({"ran": true}));
    assert_eq!(fleet.executions(), 1);
    other.send(&call(8, "delete"));
    let next = fleet.one_hold(2);
    assert_ne!(id_of(&next), id_of(&hold), "an approval counts once");
    assert_eq!(fleet.executions(), 1);
    assert_eq!(fleet.verify()["sound"], true);
}

#[test]
fn a_crash_of_the_database_loses_no_waiting_call_and_lets_nothing_through() {
    let mut fleet = Fleet::of(2);
    let mut gate = fleet.gate(0);
    gate.send(&call(1, "delete"));
    let hold = fleet.one_hold(1);
    fleet.cluster.crash();
    assert_eq!(
        gate.ask(&call(2, "get_order"))["result"],
        json!({"ran": true}),
        "what is not gated is not disturbed"
    );
    let refused = gate.ask(&call(3, "drop"));
    let text = refused["result"]["content"][0]["text"].as_str().unwrap().to_owned();
    assert!(refused["result"]["isError"] == true && text.contains("record could not be"), "{text}");
    assert!(fleet.cluster.run());
    // Whoever decides may be told that the gate has not been heard of again yet.
    until(|| fleet.at(1, &["approve", id_of(&hold)]).status.success().then_some(()));
    let answer = gate.receive();
    if answer["result"] != json!({"ran": true}) {
        // Somebody took the gate for dead before it was back: the call, made again, redeems the approval.
        assert_eq!(gate.ask(&call(4, "delete"))["result"], json!({"ran": true}), "{answer}");
    }
    assert_eq!(fleet.executions(), 2, "the read, and the approved call once");
    assert_eq!(fleet.verify()["sound"], true);
}

#[test]
fn whoever_watches_hears_what_happens_on_other_machines() {
    let fleet = Fleet::of(3);
    let (mut one, other) = (fleet.gate(0), fleet.gate(1));
    let mut watching = fleet.machines[1].command();
    watching.env("HOLDSHORT_STORE", &fleet.url).args(["holds", "--watch", "--json"]);
    let watching = Wrapped::start(watching);
    one.send(&call(1, "delete"));
    let id = id_of(&fleet.one_hold(2)).to_owned();
    let until_told = |event: &str| loop {
        let told = watching.receive_within(Duration::from_secs(20)).expect("it is told");
        if told["event"] == event && told["hold"]["id"] == id.as_str() {
            break;
        }
    };
    until_told("held");
    fleet.ok(2, &["approve", &id]);
    until_told("ended");
    drop(other);
}

#[test]
fn a_database_that_cannot_be_used_is_named_and_its_password_is_not() {
    let home = Home::new();
    for (url, code, why) in [
        ("postgres://gate:s3cret@/x?host=/nowhere", 1, "cannot be reached"),
        ("postgres://gate:s3cret@db.example.com/x?sslmode=disable", 2, "would not be encrypted"),
        ("postgres://gate:s3cret@db.example.com/x?sslmode=prefer", 2, "answered by anybody"),
        ("postgres://gate:s3cret@db.example.com/x?colour=red", 2, "`colour`"),
        ("postgres://gate:s3cret@:port/x", 2, "invalid port number"),
    ] {
        for command in [&["holds"][..], &["audit", "verify"], &["history"]] {
            let output = home.command().env("HOLDSHORT_STORE", url).args(command).output().unwrap();
            let told = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(code), "{command:?} {url}: {told}");
            assert!(told.contains(why) && !told.contains("s3cret"), "{command:?} {url}: {told}");
        }
    }
    let help = home
        .command()
        .env("HOLDSHORT_STORE", "postgres://a:s3cret@b/c")
        .args(["run", "--help"])
        .output()
        .unwrap();
    assert!(!String::from_utf8_lossy(&help.stdout).contains("s3cret"));
}

/// The example, started by its script.
struct Example {
    fleet: Fleet,
    script: std::process::Child,
}

impl Example {
    fn start() -> Self {
        let fleet = Fleet::of(1);
        let mut command =
            Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/fleet-postgres/start.sh"));
        command.env("HOLDSHORT_STORE", &fleet.url).env("HOLDSHORT", env!("CARGO_BIN_EXE_holdshort"));
        command.env("DIR", fleet.machines[0].path());
        for listen in ["LISTEN_ONE", "LISTEN_TWO", "LISTEN_DESK"] {
            command.env(listen, "127.0.0.1:0");
        }
        let script = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().unwrap();
        Self { fleet, script }
    }

    /// What a part has written into a file.
    fn said(&self, part: &str, file: &str) -> String {
        fs::read_to_string(self.fleet.machines[0].path().join(part).join(file)).unwrap_or_default()
    }

    /// Ends the script, as whoever has started it does, unless it has ended.
    fn end_script(&mut self) {
        if let Ok(None) = self.script.try_wait() {
            let pid = rustix::process::Pid::from_child(&self.script);
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
            let _ = self.script.wait();
        }
    }

    /// A client of a proxy, in a session of its own.
    fn client(&self, part: &str) -> (Connection, String) {
        let address = until(|| {
            let said = self.said(part, "err");
            let (_, rest) = said.split_once("listening on http://")?;
            rest.split_once('\n')?.0.parse().ok()
        });
        let mut client = Connection::open(address);
        let initialize = r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"web","version":"1"}}}"#;
        client.send(&post("/mcp", &[], initialize));
        let begun = client.message().expect("a session begins");
        (client, begun.header("mcp-session-id").unwrap().to_owned())
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        self.end_script();
    }
}

#[test]
fn the_example_ends_with_all_its_parts() {
    let mut example = Example::start();
    example.client("one");
    example.client("two");
    let part = |part: &str| {
        let pid = until(|| example.said(part, "pid").trim().parse().ok());
        rustix::process::Pid::from_raw(pid).unwrap()
    };
    let parts = ["one", "two", "desk"].map(part);
    example.end_script();
    for pid in parts {
        until(|| rustix::process::test_kill_process(pid).is_err().then_some(()));
    }
}

#[test]
fn the_example_goes_on_when_a_proxy_is_killed_that_holds_a_call() {
    let example = Example::start();
    let refund = |amount: u32| {
        format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"send_refund","arguments":{{"order":"A-1","amount":{amount}}}}}}}"#
        )
    };
    let (mut client, session) = example.client("one");
    client.send(&post("/mcp", &[("mcp-session-id", &session)], &refund(5000)));
    let hold = example.fleet.one_hold(0);
    let pid: i32 = example.said("one", "pid").trim().parse().unwrap();
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    example.fleet.ok(0, &["approve", id_of(&hold)]);
    assert_eq!(example.fleet.executions(), 0);
    let (mut client, session) = example.client("two");
    client.send(&post("/mcp", &[("mcp-session-id", &session)], &refund(5000)));
    let answer = client.message().unwrap();
    assert!(answer.text().contains("5000"), "{}", answer.text());
    assert_eq!(example.fleet.executions(), 1);
    // One that waits at the other proxy is seen and decided at the desk's gate, too.
    client.send(&post("/mcp", &[("mcp-session-id", &session)], &refund(6000)));
    let next = example.fleet.one_hold(0);
    example.fleet.ok(0, &["reject", id_of(&next), "--reason", "too much"]);
    assert!(client.message().unwrap().text().contains("too much"));
    assert_eq!(example.fleet.executions(), 1);
    assert_eq!(example.fleet.verify()["sound"], true);
    assert!(example.said("desk", "out").contains("/sign-in?key="), "{}", example.said("desk", "err"));
}
