//! The control socket as operators use it, by the command line: found without configuration, private, and one list over
//! all gates. And what becomes of gates that die.

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::{
        fs::{FileTypeExt, PermissionsExt},
        net::UnixListener,
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::mpsc::channel,
    thread,
    time::{Duration, SystemTime},
};

use holdshort::control::{
    client::{self, AskError, GateClient},
    place::Registered,
};
use serde_json::Value;

use crate::support::program::{Home, PATIENCE, Wrapped, until};

const HOLD_DANGER: &str = "version: 1
default: allow
rules:
  - name: danger
    tool: danger
    action: hold
    reason: It is dangerous.
";

/// A server that answers every request and says in the result what it was sent.
const ANSWERING: &str = r#"while read -r line; do id=${line#*\"id\":}; id=${id%%,*}; echo "{\"jsonrpc\":\"2.0\",\"id\":$id,\"result\":{\"ran\":true}}"; done"#;

/// A server that reads and never answers.
const SILENT: &str = "while read -r line; do :; done";

fn wrap(home: &Home, server: &str, script: &str) -> Command {
    let policy = home.file("policy.yaml", HOLD_DANGER);
    let mut command = home.command();
    command.args(["run", "--server", server, "--policy"]).arg(policy).args(["--", "sh", "-c", script]);
    command
}

fn danger(id: u32) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"danger","arguments":{{"n":{id}}}}}}}"#
    )
}

fn stdout(output: &std::process::Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &std::process::Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn several_wrapped_servers_are_one_list() {
    let home = Home::new();
    let mut billing = Wrapped::start(wrap(&home, "billing", ANSWERING));
    let mut deploy = Wrapped::start(wrap(&home, "deploy", ANSWERING));
    billing.send(&danger(1));
    home.wait_for_holds(1);
    deploy.send(&danger(2));
    let ids = home.wait_for_holds(2);
    let list = stdout(&home.holdshort(["holds"]));
    assert!(
        list.contains("billing") && list.contains("deploy") && list.contains("It is dangerous."),
        "{list}"
    );
    // The oldest first; each is decided where it waits.
    assert!(home.holdshort(["approve", &ids[1]]).status.success());
    assert_eq!(deploy.receive()["result"]["ran"], true);
    assert!(home.holdshort(["reject", &ids[0], "--reason", "not today"]).status.success());
    let refused = billing.receive();
    assert!(refused["result"]["content"][0]["text"].as_str().unwrap().contains("not today"), "{refused}");
    assert_eq!(home.holds(), Vec::<Value>::new());
    home.verify();
}

#[test]
fn a_hold_in_json_has_what_the_contract_names() {
    let home = Home::new();
    let mut wrapped = Wrapped::start(wrap(&home, "billing", ANSWERING));
    wrapped.ask(r#"{"jsonrpc":"2.0","id":9,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"claude-code","version":"2.1"}}}"#);
    wrapped.send(&danger(1));
    let id = home.wait_for_holds(1).remove(0);
    let hold = home.holds().remove(0);
    assert_eq!(hold["id"], *id);
    for (key, value) in [
        ("state", "held"),
        ("server", "billing"),
        ("tool", "danger"),
        ("agent", "claude-code 2.1"),
        ("reason", "It is dangerous."),
    ] {
        assert_eq!(hold[key], value, "{key}");
    }
    assert_eq!(hold["arguments"], serde_json::json!({"n": 1}));
    assert_eq!(hold["rules"], serde_json::json!(["danger"]));
    assert_eq!((&hold["attached"], &hold["votes"]), (&true.into(), &serde_json::json!([])));
    for time in ["created_at", "expires_at"] {
        let text = hold[time].as_str().unwrap();
        assert!(text.parse::<jiff::Timestamp>().is_ok() && text.ends_with('Z'), "{text} is RFC 3339");
    }
    let shown: Value = serde_json::from_slice(&home.holdshort(["show", &id[..8], "--json"]).stdout).unwrap();
    assert_eq!(shown["frame"], danger(1));
    let page = stdout(&home.holdshort(["show", &id]));
    assert!(page.contains(&format!("  | {}", danger(1))) && page.contains("\"n\": 1"), "{page}");
    // The verdict is recorded with who gave it, what was said, and the digest of exactly these bytes.
    assert!(home.holdshort(["approve", &id, "--comment", "checked the order"]).status.success());
    wrapped.receive();
    let history: Value = serde_json::from_slice(&home.holdshort(["history", "--json"]).stdout).unwrap();
    let vote = &history[0]["votes"][0];
    assert_eq!((&vote["verdict"], &vote["comment"]), (&"approve".into(), &"checked the order".into()));
    assert!(vote["by"].as_str().unwrap().starts_with("uid:"));
    assert_eq!(history[0]["frame_sha256"], hold["frame_sha256"]);
    let digest = holdshort::digest::Digest::of(danger(1).as_bytes()).to_string();
    assert_eq!(history[0]["frame_sha256"], digest);
}

#[test]
fn exit_codes_are_the_contract() {
    let home = Home::new();
    let no_gate = home.holdshort(["approve", "abc"]);
    assert_eq!(no_gate.status.code(), Some(5), "no gate reachable");
    assert!(stderr(&no_gate).contains("hint:"), "{}", stderr(&no_gate));
    assert_eq!(home.holdshort(["holds"]).status.code(), Some(0), "nothing waits where nothing runs");
    assert_eq!(home.holdshort(["nonsense"]).status.code(), Some(2));
    assert_eq!(home.holdshort(["reject", "abc"]).status.code(), Some(2), "a rejection needs a reason");

    let mut wrapped = Wrapped::start(wrap(&home, "billing", ANSWERING));
    wrapped.send(&danger(1));
    let id = home.wait_for_holds(1).remove(0);
    for unknown in ["zzzzzzz", "é", "..", "0123456789012345678901234567890"] {
        assert_eq!(home.holdshort(["approve", unknown]).status.code(), Some(4), "{unknown}");
    }
    assert_eq!(
        home.holdshort(["reject", &id, "--reason", "  "]).status.code(),
        Some(2),
        "an empty reason is none"
    );
    assert_eq!(home.holds().len(), 1, "none of these decided anything");
    assert_eq!(home.holdshort(["approve", &id]).status.code(), Some(0));
    let again = home.holdshort(["reject", &id, "--reason", "too late"]);
    assert_eq!(again.status.code(), Some(4));
    assert!(stderr(&again).contains("approved by uid:"), "the loser is told who won: {}", stderr(&again));
    assert_eq!(wrapped.receive()["result"]["ran"], true);
}

#[test]
fn the_beginning_of_an_id_is_enough_if_it_is_unique() {
    let home = Home::new();
    let mut wrapped = Wrapped::start(wrap(&home, "billing", ANSWERING));
    // Enough holds that two ids begin alike for certain: there are 32 letters.
    for id in 1..=33 {
        wrapped.send(&danger(id));
    }
    let ids = home.wait_for_holds(33);
    let twin = ids.iter().find(|id| ids.iter().filter(|other| other[..1] == id[..1]).count() > 1).unwrap();
    let ambiguous = home.holdshort(["show", &twin[..1]]);
    assert_eq!(ambiguous.status.code(), Some(2));
    assert!(stderr(&ambiguous).contains(twin.as_str()), "{}", stderr(&ambiguous));
    assert!(home.holdshort(["approve", &twin.to_uppercase()[..12]]).status.success());
}

#[test]
fn a_watcher_sees_what_is_held_and_what_ends() {
    let home = Home::new();
    let mut wrapped = Wrapped::start(wrap(&home, "billing", ANSWERING));
    wrapped.send(&danger(1));
    let first = home.wait_for_holds(1).remove(0);
    let mut watcher =
        home.command().args(["holds", "--watch", "--json"]).stdout(Stdio::piped()).spawn().unwrap();
    let (sender, lines) = channel();
    let reader = BufReader::new(watcher.stdout.take().unwrap());
    thread::spawn(move || reader.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
    let next = |event: &str| loop {
        let line: Value = serde_json::from_str(&lines.recv_timeout(PATIENCE).expect("news")).unwrap();
        if line["event"] == event {
            break line;
        }
    };
    assert_eq!(next("held")["hold"]["id"], *first, "what waits already comes first");
    wrapped.send(&danger(2));
    let second = next("held")["hold"]["id"].as_str().unwrap().to_owned();
    assert_ne!(first, second);
    assert!(home.holdshort(["reject", &second, "--reason", "no"]).status.success());
    let ended = next("ended");
    assert_eq!((&ended["hold"]["id"], &ended["hold"]["state"]), (&second.clone().into(), &"rejected".into()));
    // A gate that starts later is seen as well.
    let mut later = Wrapped::start(wrap(&home, "deploy", ANSWERING));
    later.send(&danger(3));
    assert_eq!(next("held")["hold"]["server"], "deploy");
    watcher.kill().unwrap();
    watcher.wait().unwrap();
}

#[test]
fn sockets_are_private_and_go_with_their_gate() {
    let home = Home::new();
    let mut wrapped = Wrapped::start(wrap(&home, "billing", ANSWERING));
    wrapped.ask(r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#);
    let dir = home.path().join("holdshort");
    let socket = until(|| fs::read_dir(&dir).ok()?.next()?.ok()).path();
    assert!(fs::symlink_metadata(&socket).unwrap().file_type().is_socket());
    for private in [&dir, &home.path().join(".local/state/holdshort")] {
        assert_eq!(
            fs::metadata(private).unwrap().permissions().mode() & 0o777,
            0o700,
            "{}",
            private.display()
        );
    }
    wrapped.close();
    wrapped.ends();
    assert!(!socket.exists(), "an orderly end leaves no socket");
}

/// Connections to all gates of `home`, as a command has made them before it asks.
async fn reached(home: &Home) -> Vec<GateClient> {
    let mut gates = Vec::new();
    for entry in fs::read_dir(home.path().join("holdshort")).unwrap() {
        let socket = entry.unwrap().path();
        let instance = socket.file_stem().unwrap().to_str().unwrap().to_owned();
        gates.push(client::reach(Registered { instance, pid: 0, socket }).await.unwrap());
    }
    gates
}

#[tokio::test]
async fn a_gate_that_ends_while_it_is_asked_is_not_there() {
    let home = Home::new();
    let mut billing = Wrapped::start(wrap(&home, "billing", ANSWERING));
    let mut deploy = Wrapped::start(wrap(&home, "deploy", ANSWERING));
    deploy.send(&danger(1));
    billing.ask(r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#);
    let id = home.wait_for_holds(1).remove(0);
    let gates = reached(&home).await;
    assert_eq!(gates.len(), 2);
    billing.close();
    billing.ends();
    let waiting = client::holds(&gates).await.unwrap();
    assert_eq!(waiting.iter().map(|hold| hold.id.to_string()).collect::<Vec<_>>(), [&*id], "the other's");
    assert_eq!(client::find(&gates, &id[..6]).await.unwrap().1.to_string(), id);
    deploy.close();
    deploy.ends();
    assert!(matches!(client::holds(&gates).await, Err(AskError::NoGate)), "nobody is left to ask");
    assert!(matches!(client::find(&gates, &id[..6]).await, Err(AskError::NoGate)));
}

#[test]
fn a_gate_that_stands_still_is_named_and_no_list_passes_for_all_that_waits() {
    let home = Home::new();
    let mut billing = Wrapped::start(wrap(&home, "billing", ANSWERING));
    let mut deploy = Wrapped::start(wrap(&home, "deploy", ANSWERING));
    billing.send(&danger(1));
    let stuck = home.wait_for_holds(1).remove(0);
    deploy.send(&danger(2));
    let other = home.wait_for_holds(2).remove(1);
    let process = rustix::process::Pid::from_child(&billing.process);
    let named = format!("process {process}", process = billing.process.id());
    let is_named = |output: &std::process::Output| {
        assert!(stderr(output).contains(&named), "{output:?}");
        output.status.code()
    };
    rustix::process::kill_process(process, rustix::process::Signal::STOP).unwrap();

    let listed = home.holdshort(["holds", "--json"]);
    assert_eq!(is_named(&listed), Some(5));
    let listed: Value = serde_json::from_slice(&listed.stdout).unwrap();
    assert_eq!(
        (listed.as_array().unwrap().len(), &listed[0]["id"]),
        (1, &other.as_str().into()),
        "the other's"
    );
    assert_ne!(is_named(&home.holdshort(["approve", &stuck])), Some(0));
    assert_eq!(is_named(&home.holdshort(["policy", "reload"])), Some(5));
    let mut watcher = home.command();
    let watcher = watcher.args(["holds", "--watch"]).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut watcher = watcher.spawn().unwrap();
    let (sender, lines) = channel();
    let reader = BufReader::new(watcher.stderr.take().unwrap());
    thread::spawn(move || reader.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
    while !lines.recv_timeout(PATIENCE).expect("the watcher names it").contains(&named) {}
    watcher.kill().unwrap();
    watcher.wait().unwrap();
    assert_eq!(is_named(&home.holdshort(["approve", &other])), Some(0), "what can be seen can be decided");
    assert_eq!(deploy.receive()["result"]["ran"], true);

    deploy.close();
    deploy.ends();
    let alone = home.holdshort(["holds"]);
    assert_eq!(is_named(&alone), Some(5));
    assert!(!stderr(&alone).contains("no gate is running"), "{alone:?}");
    rustix::process::kill_process(process, rustix::process::Signal::CONT).unwrap();
    assert_eq!(home.wait_for_holds(1), [&*stuck], "it goes on where it was");
    assert!(home.holdshort(["approve", &stuck]).status.success());
    assert_eq!(billing.receive()["result"]["ran"], true);
}

#[test]
fn a_socket_directory_that_others_can_enter_is_not_used() {
    let home = Home::new();
    let dir = home.path().join("holdshort");
    fs::create_dir(&dir).unwrap();
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
    let mut wrapped = Wrapped::start(wrap(&home, "billing", ANSWERING));
    wrapped.send(&danger(1));
    home.wait_for_holds(1);
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 0, "the socket is in a private place instead");
}

#[test]
fn what_a_dead_gate_leaves_is_cleared_and_nothing_else() {
    let home = Home::new();
    let mut dead = Wrapped::start(wrap(&home, "billing", SILENT));
    dead.send(&danger(1));
    let id = home.wait_for_holds(1).remove(0);
    let dir = home.path().join("holdshort");
    let stale = fs::read_dir(&dir).unwrap().next().unwrap().unwrap().path();
    dead.process.kill().unwrap();
    dead.process.wait().unwrap();
    assert!(stale.exists(), "a killed gate cannot clear up after itself");
    // Foreign: a plain file where sockets are, and somebody else's live socket.
    let file = dir.join("00000000000000000000000000.sock");
    fs::write(&file, "mine").unwrap();
    let live = dir.join("live.sock");
    let _listener = UnixListener::bind(&live).unwrap();
    let left = home.holds();
    assert_eq!(
        (left.len(), &left[0]["attached"]),
        (1, &Value::Bool(false)),
        "its call can be decided all the same"
    );

    let mut next = Wrapped::start(wrap(&home, "billing", ANSWERING));
    next.ask(r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#);
    until(|| (!stale.exists()).then_some(()));
    assert_eq!(fs::read_to_string(&file).unwrap(), "mine");
    assert!(live.exists());
    assert!(home.holdshort(["approve", &id]).status.success());
    let hold: Value = serde_json::from_slice(&home.holdshort(["show", &id, "--json"]).stdout).unwrap();
    assert_eq!(hold["state"], "granted", "it has not run: whoever makes it again redeems the approval");
    assert_eq!(next.ask(&danger(1))["result"]["ran"], true);
    home.verify();
}

#[test]
fn a_call_that_was_with_the_server_when_the_gate_died_is_unknown_until_a_person_has_looked() {
    let home = Home::new();
    let mut dead = Wrapped::start(wrap(&home, "billing", SILENT));
    dead.send(&danger(1));
    let id = home.wait_for_holds(1).remove(0);
    assert!(home.holdshort(["approve", &id]).status.success());
    dead.process.kill().unwrap();
    dead.process.wait().unwrap();
    let mut next = Wrapped::start(wrap(&home, "billing", ANSWERING));
    next.ask(r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#);
    let hold = until(|| {
        let hold: Value = serde_json::from_slice(&home.holdshort(["show", &id, "--json"]).stdout).ok()?;
        (hold["state"] != "forwarding").then_some(hold)
    });
    assert_eq!(hold["state"], "unknown");
    assert!(hold["warnings"][0].as_str().unwrap().contains("nobody knows"), "{hold}");
    let listed = stdout(&home.holdshort(["holds"]));
    assert!(listed.contains("unknown"), "{listed}");
    let blind = next.ask(&danger(2).replace("\"n\":2", "\"n\":1"));
    assert!(blind["result"]["content"][0]["text"].as_str().unwrap().starts_with("UNKNOWN"), "{blind}");
    assert_eq!(home.holdshort(["resolve", &id]).status.code(), Some(2), "it ran or it did not");
    assert!(home.holdshort(["resolve", &id, "--ran", "--comment", "the ledger has it"]).status.success());
    assert_eq!(home.holdshort(["resolve", &id, "--did-not-run"]).status.code(), Some(4), "that is known now");
    let history = stdout(&home.holdshort(["history"]));
    assert!(history.contains("the ledger has it"), "{history}");
    home.verify();
}

#[test]
fn what_waits_at_a_gate_that_is_killed_is_soon_listed_by_one_that_ran_beside_it() {
    let home = Home::new();
    let mut beside = Wrapped::start(wrap(&home, "beside", ANSWERING));
    beside.ask(r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#);
    let mut dead = Wrapped::start(wrap(&home, "billing", SILENT));
    dead.send(&danger(1));
    let id = home.wait_for_holds(1).remove(0);
    dead.process.kill().unwrap();
    dead.process.wait().unwrap();
    let left = until(|| home.holds().into_iter().find(|hold| hold["id"] == id.as_str()));
    assert_eq!(left["attached"], false, "{left}");
    assert!(home.holdshort(["reject", &id, "--reason", "nobody asks any more"]).status.success());
    home.verify();
}

#[test]
fn a_live_gate_is_not_taken_for_dead_by_another() {
    let home = Home::new();
    let mut first = Wrapped::start(wrap(&home, "billing", ANSWERING));
    first.send(&danger(1));
    let id = home.wait_for_holds(1).remove(0);
    // Another gate on the same record, started with another runtime directory, as clients with a bare environment do.
    let mut command = wrap(&home, "deploy", ANSWERING);
    command.env_remove("XDG_RUNTIME_DIR");
    let mut second = Wrapped::start(command);
    second.send(&danger(2));
    home.wait_for_holds(2);
    assert!(home.holdshort(["approve", &id]).status.success());
    assert_eq!(first.receive()["result"]["ran"], true);
}

#[test]
fn another_user_is_turned_away_before_the_first_word() {
    if !rustix::process::getuid().is_root() {
        // Only root can become somebody else; elsewhere the directory's mode is what keeps others out, tested above.
        return;
    }
    let home = Home::new();
    let mut wrapped = Wrapped::start(wrap(&home, "billing", ANSWERING));
    wrapped.send(&danger(1));
    let id = home.wait_for_holds(1).remove(0);
    // Everything that the directories keep out is let in, so that only the peer's credentials are left to tell.
    for dir in
        ["", "holdshort", ".local", ".local/state", ".local/state/holdshort", ".local/state/holdshort/gates"]
    {
        fs::set_permissions(home.path().join(dir), fs::Permissions::from_mode(0o755)).unwrap();
    }
    for file in fs::read_dir(home.path().join(".local/state/holdshort/gates")).unwrap() {
        fs::set_permissions(file.unwrap().path(), fs::Permissions::from_mode(0o644)).unwrap();
    }
    for socket in fs::read_dir(home.path().join("holdshort")).unwrap() {
        fs::set_permissions(socket.unwrap().path(), fs::Permissions::from_mode(0o777)).unwrap();
    }
    let output = home.command().args(["approve", &id]).uid(65_534).gid(65_534).stdin(Stdio::null()).output();
    // Where the program's own file is out of reach for other users, nothing can be tried.
    if let Ok(output) = output {
        assert_eq!(output.status.code(), Some(5), "{}", stderr(&output));
    }
    assert_eq!(home.holds().len(), 1, "it still waits");
}

#[test]
fn a_record_that_cannot_be_written_lets_nothing_gated_through() {
    let home = Home::new();
    let state = home.path().join(".local/state/holdshort");
    fs::create_dir_all(&state).unwrap();
    fs::set_permissions(&state, fs::Permissions::from_mode(0o700)).unwrap();
    fs::write(state.join("holdshort.db"), "this is not a database, and must stay as it is").unwrap();
    let mut wrapped = Wrapped::start(wrap(&home, "billing", ANSWERING));
    let answer = wrapped.ask(&danger(1));
    assert_eq!(answer["result"]["_meta"]["dev.holdshort/decision"]["state"], "unavailable", "{answer}");
    let safe = r#"{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"safe"}}"#;
    let answer = wrapped.ask(safe);
    let decided = &answer["result"]["_meta"]["dev.holdshort/decision"]["state"];
    assert_eq!(decided, "unavailable", "whether the tool has become another is not known: {answer}");
    let list = r#"{"jsonrpc":"2.0","id":3,"method":"tools/list"}"#;
    assert_eq!(wrapped.ask(list)["result"]["ran"], true, "what is no call is not disturbed");
    let text = fs::read_to_string(state.join("holdshort.db")).unwrap();
    assert_eq!(text, "this is not a database, and must stay as it is");
}

#[test]
fn the_record_is_read_where_no_gate_runs_and_any_change_is_found() {
    let home = Home::new();
    let mut wrapped = Wrapped::start(wrap(&home, "billing", ANSWERING));
    wrapped.send(&danger(1));
    let id = home.wait_for_holds(1).remove(0);
    assert!(home.holdshort(["reject", &id, "--reason", "no"]).status.success());
    wrapped.receive();
    wrapped.close();
    wrapped.ends();
    let before = home.verify();
    let checkpoint = before["checkpoint"].as_str().unwrap();
    assert!(home.holdshort(["audit", "verify", "--against", checkpoint]).status.success());
    assert_eq!(home.holdshort(["audit", "verify", "--against", "rubbish"]).status.code(), Some(2));
    assert!(stdout(&home.holdshort(["history"])).contains("rejected"));
    assert!(stdout(&home.holdshort(["holds", "--all"])).contains("rejected"));
    assert!(!stdout(&home.holdshort(["holds"])).contains("rejected"));
    let events = stdout(&home.holdshort(["audit", "export"]));
    let kinds: Vec<_> = events
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["kind"].as_str().unwrap().to_owned())
        .collect();
    assert!(kinds.contains(&"held".to_owned()) && kinds.contains(&"rejected".to_owned()), "{kinds:?}");

    let db = rusqlite::Connection::open(home.store()).unwrap();
    db.execute_batch("DROP TRIGGER IF EXISTS audit_no_update; DROP TRIGGER IF EXISTS audit_never_updated;")
        .unwrap();
    let triggers: Vec<String> = db
        .prepare("SELECT name FROM sqlite_master WHERE type = 'trigger'")
        .unwrap()
        .query_map([], |row| row.get(0))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    for trigger in triggers {
        db.execute_batch(&format!("DROP TRIGGER \"{trigger}\"")).unwrap();
    }
    let changed = db
        .execute("UPDATE audit SET line = replace(line, '\"rejected\"', '\"answered\"') WHERE line LIKE '%\"rejected\"%'", [])
        .unwrap();
    assert!(changed > 0);
    drop(db);
    let output = home.holdshort(["audit", "verify"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stdout(&output).contains("BROKEN"), "{}", stdout(&output));
}

/// Makes `path` a directory that nobody else can enter.
fn private_dir(path: &Path) -> PathBuf {
    fs::create_dir_all(path).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o700)).unwrap();
    path.to_owned()
}

/// A name that a gate can have.
fn gate_name(number: u8) -> String {
    holdshort::hold::HoldId([number; 16]).to_string()
}

/// What a gate that has died says in its registration.
fn registration(instance: &str, socket: &Path) -> String {
    serde_json::json!({ "instance": instance, "pid": 1, "socket": socket }).to_string()
}

/// Runs a gate on the record `store` from its beginning to its end.
fn run_once(home: &Home, store: &Path) {
    let mut command = wrap(home, "billing", ANSWERING);
    command.env("HOLDSHORT_STORE", store);
    let mut wrapped = Wrapped::start(command);
    assert_eq!(wrapped.ask(r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#)["id"], 1);
    wrapped.close();
    wrapped.ends();
}

#[test]
fn files_beside_a_record_that_are_not_registrations_stay() {
    let home = Home::new();
    let project = private_dir(&home.path().join("proj"));
    // A directory that somebody else has called `gates`, and everything that may be in our own by mistake.
    let others = private_dir(&project.join("gates"));
    let ours = private_dir(&project.join("holdshort.db.gates"));
    let mut files = Vec::new();
    for dir in [&others, &ours] {
        for (name, text) in [
            ("notes.txt".to_owned(), "mine".to_owned()),
            ("empty".to_owned(), String::new()),
            (gate_name(1), "not JSON".to_owned()),
            (gate_name(2), registration(&gate_name(3), Path::new("/nowhere"))),
            (gate_name(4).to_uppercase(), registration(&gate_name(4), Path::new("/nowhere"))),
        ] {
            fs::write(dir.join(&name), &text).unwrap();
            files.push((dir.join(name), text));
        }
    }
    // Where no registration of ours ever is, even one that looks like it stays.
    let looks_right = registration(&gate_name(5), Path::new("/nowhere"));
    fs::write(others.join(gate_name(5)), &looks_right).unwrap();
    files.push((others.join(gate_name(5)), looks_right));
    run_once(&home, &project.join("holdshort.db"));
    for (path, text) in files {
        assert_eq!(fs::read_to_string(&path).ok().as_ref(), Some(&text), "{}", path.display());
    }
}

#[test]
fn registrations_are_not_cleared_through_a_link_or_out_of_an_open_directory() {
    let home = Home::new();
    let project = private_dir(&home.path().join("proj"));
    let elsewhere = private_dir(&home.path().join("elsewhere"));
    let text = registration(&gate_name(1), Path::new("/nowhere"));
    fs::write(elsewhere.join(gate_name(1)), &text).unwrap();
    std::os::unix::fs::symlink(&elsewhere, project.join("x.db.gates")).unwrap();
    run_once(&home, &project.join("x.db"));
    assert_eq!(fs::read_to_string(elsewhere.join(gate_name(1))).unwrap(), text, "through a link");

    let open = project.join("y.db.gates");
    fs::create_dir(&open).unwrap();
    fs::set_permissions(&open, fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(open.join(gate_name(1)), &text).unwrap();
    run_once(&home, &project.join("y.db"));
    assert_eq!(fs::read_to_string(open.join(gate_name(1))).unwrap(), text, "out of an open directory");

    let link = private_dir(&project.join("z.db.gates")).join(gate_name(1));
    std::os::unix::fs::symlink(elsewhere.join(gate_name(1)), &link).unwrap();
    run_once(&home, &project.join("z.db"));
    assert!(fs::symlink_metadata(&link).is_ok(), "a link is no registration");
}

#[test]
fn only_the_socket_of_the_dead_gate_itself_is_unlinked() {
    let home = Home::new();
    let gates = private_dir(&home.path().join(".local/state/holdshort/gates"));
    private_dir(&home.path().join(".local/state/holdshort"));
    let sockets = private_dir(&home.path().join("holdshort"));
    let bus = private_dir(&home.path().join("bus")).join("bus");
    let elsewhere = home.path().join("bus").join(format!("{}.sock", gate_name(2)));
    let misnamed = sockets.join(format!("{}.sock", gate_name(9)));
    let stale = sockets.join(format!("{}.sock", gate_name(4)));
    let _listeners: Vec<_> =
        [&bus, &elsewhere, &misnamed, &stale].map(|path| UnixListener::bind(path).unwrap()).into();
    for (number, socket) in [(1, &bus), (2, &elsewhere), (3, &misnamed), (4, &stale)] {
        fs::write(gates.join(gate_name(number)), registration(&gate_name(number), socket)).unwrap();
    }
    run_once(&home, &home.store());
    for foreign in [&bus, &elsewhere, &misnamed] {
        assert!(foreign.exists(), "{}", foreign.display());
    }
    assert!(!stale.exists(), "this one was the dead gate's");
    assert_eq!(fs::read_dir(&gates).unwrap().count(), 0, "the registrations themselves are dead");
}

#[test]
fn a_pipe_among_the_registrations_keeps_nobody_waiting() {
    let home = Home::new();
    let project = private_dir(&home.path().join("proj"));
    let pipe = private_dir(&project.join("x.db.gates")).join(gate_name(1));
    let state_pipe = private_dir(&home.path().join(".local/state/holdshort/gates")).join(gate_name(1));
    private_dir(&home.path().join(".local/state/holdshort"));
    for pipe in [&pipe, &state_pipe] {
        assert!(Command::new("mkfifo").arg(pipe).status().unwrap().success());
    }
    run_once(&home, &project.join("x.db"));
    assert!(pipe.exists() && state_pipe.exists());
    assert_eq!(home.holds(), Vec::<Value>::new(), "nor does it keep the command line waiting");
}

#[test]
fn an_empty_registration_is_dead_after_a_minute_and_not_before() {
    let home = Home::new();
    let project = private_dir(&home.path().join("proj"));
    let gates = private_dir(&project.join("x.db.gates"));
    let (old, new, named) = (gates.join(gate_name(1)), gates.join(gate_name(2)), gates.join("empty"));
    for path in [&old, &new, &named] {
        fs::write(path, "").unwrap();
    }
    let long_ago = SystemTime::now() - Duration::from_secs(61);
    for path in [&old, &named] {
        fs::File::options().write(true).open(path).unwrap().set_modified(long_ago).unwrap();
    }
    run_once(&home, &project.join("x.db"));
    assert!(!old.exists(), "its gate died while it wrote it");
    assert!(new.exists(), "its gate may be writing it just now");
    assert!(named.exists(), "no gate has this name");
}

#[test]
fn a_registration_that_cannot_be_written_is_removed_and_nothing_is_held() {
    let home = Home::new();
    let policy = home.file("policy.yaml", HOLD_DANGER);
    // A full disk, as far as this process can tell: no file may become longer than nothing.
    let mut command = Command::new("sh");
    command
        .args(["-c", r#"trap '' XFSZ; ulimit -f 0; exec "$@""#, "sh"])
        .arg(env!("CARGO_BIN_EXE_holdshort"));
    command.args(["run", "--policy"]).arg(policy).args(["--", "sh", "-c", ANSWERING]);
    command.env("HOME", home.path()).env("XDG_RUNTIME_DIR", home.path()).env_remove("HOLDSHORT_STORE");
    command.env_remove("XDG_STATE_HOME");
    let mut wrapped = Wrapped::start(command);
    let answer = wrapped.ask(&danger(1));
    assert_eq!(answer["result"]["_meta"]["dev.holdshort/decision"]["state"], "unavailable", "{answer}");
    let state = home.path().join(".local/state/holdshort");
    for dir in ["gates", "holdshort.db.gates"] {
        let left = fs::read_dir(state.join(dir)).map_or(0, Iterator::count);
        assert_eq!(left, 0, "no empty registration is left in {dir}");
    }
}

#[test]
fn a_gate_that_cannot_show_that_it_lives_holds_nothing() {
    let home = Home::new();
    let gates = home.path().join(".local/state/holdshort/holdshort.db.gates");
    private_dir(gates.parent().unwrap());
    fs::create_dir(&gates).unwrap();
    fs::set_permissions(&gates, fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = wrap(&home, "billing", ANSWERING);
    command.stderr(Stdio::piped());
    let mut wrapped = Wrapped::start(command);
    let answer = wrapped.ask(&danger(1));
    assert_eq!(answer["result"]["_meta"]["dev.holdshort/decision"]["state"], "unavailable", "{answer}");
    let safe = r#"{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"safe"}}"#;
    assert_eq!(wrapped.ask(safe)["result"]["ran"], true, "what needs no approval is not disturbed");
    wrapped.close();
    let mut said = String::new();
    std::io::Read::read_to_string(&mut wrapped.process.stderr.take().unwrap(), &mut said).unwrap();
    assert!(said.contains("every call that would be held is refused"), "{said}");
}

#[test]
fn a_gate_without_a_control_socket_still_lives_for_the_others() {
    let home = Home::new();
    // A state directory too long for a socket, and no runtime directory: nobody can decide, but the call waits.
    let long = home.path().join("l".repeat(100));
    let store = private_dir(&home.path().join("proj")).join("x.db");
    let mut command = wrap(&home, "billing", ANSWERING);
    command.env("XDG_STATE_HOME", &long).env("XDG_RUNTIME_DIR", home.path().join("missing"));
    command.env("HOLDSHORT_STORE", &store);
    let mut first = Wrapped::start(command);
    first.send(&danger(1));
    let recorded = |state: &str| {
        let db = rusqlite::Connection::open(&store).ok()?;
        let count = "SELECT count(*) FROM audit WHERE line LIKE '%\"' || ?1 || '\"%'";
        db.query_row(count, [state], |row| row.get::<_, u32>(0)).ok()
    };
    until(|| (recorded("held")? == 1).then_some(()));
    // Another gate on the same record looks for the calls of dead ones, and has done so when it shows its own.
    let mut command = wrap(&home, "deploy", ANSWERING);
    command.env("HOLDSHORT_STORE", &store);
    let mut second = Wrapped::start(command);
    second.send(&danger(2));
    home.wait_for_holds(1);
    until(|| (recorded("held")? == 2).then_some(()));
    run_once(&home, &store);
    assert_eq!(recorded("withdrawn"), Some(0), "the first call still waits");
    assert_eq!(first.process.try_wait().unwrap(), None);
}
