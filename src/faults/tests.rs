//! The first campaign of faults: a process with a gate, a server, a client and an approver is killed at each named point of a call's
//! life, started again until the call has come to its end, and what its three logs say is judged by a checker that shares no code with
//! what it judges (`tests/it/support/checker.rs`).
//!
//! The test command kills at the first time that each point is reached. `HOLDSHORT_TIMES=20 cargo test --lib faults` kills at each of
//! the first so many times.

use std::{
    fs::{self, OpenOptions},
    io::Write,
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

use super::{FIRED_VARIABLE, POINT_VARIABLE};
use crate::{
    gate::{Caller, Gate, GateLimits},
    hold::{HoldId, State, Verdict},
    policy::{Policy, Source},
    principal::Principal,
    store::{HistoryFilter, Store},
    transport::session::{self, Lifecycle, SessionLimits},
};

#[path = "../../tests/it/support/checker.rs"]
mod checker;

/// Tells a started test binary that it is the process to be killed; its value is where its logs and its record are.
const PLACE_VARIABLE: &str = "HOLDSHORT_TEST_PLACE";

/// All points, in the order of a call's life.
const POINTS: &[&str] = &[
    "hold.before_record",
    "hold.after_record",
    "hold.before_announce",
    "verdict.before_record",
    "store.before_begin",
    "store.before_commit",
    "store.after_commit",
    "verdict.after_record",
    "verdict.after_answer",
    "session.before_send",
    "session.after_send",
    "session.answer_came",
    "answer.before_record",
    "answer.after_record",
];

/// Between two looks at what waits.
const LOOK: Duration = Duration::from_millis(5);

/// Starts that a life has to come to its end.
const STARTS_MAX: usize = 10;

fn log(place: &Path, name: &str, line: &str) {
    let mut file = OpenOptions::new().create(true).append(true).open(place.join(name)).unwrap();
    file.write_all(format!("{line}\n").as_bytes()).unwrap();
}

fn lines(place: &Path, name: &str) -> Vec<String> {
    fs::read_to_string(place.join(name)).unwrap_or_default().lines().map(str::to_owned).collect()
}

/// A gate that holds everything, on the record of this place; all others on it are dead.
async fn gate(place: &Path) -> Arc<Gate> {
    let policy = "version: 1\ndefault: hold\n".to_owned();
    let policy = Policy::parse(vec![Source { name: "policy.yaml".to_owned(), text: policy }]).unwrap();
    let own = HoldId::random().unwrap().to_string();
    let store = Store::open(&place.join("record.db"));
    let gate = Gate::new(own.as_str().into(), Arc::new(policy), store, GateLimits::default());
    let gate = Arc::new(gate.with_is_dead(Box::new(move |other| other != own)));
    gate.store().ready().await.unwrap();
    gate.take_over_dead().await.unwrap();
    gate.refresh_tools().await.unwrap();
    gate
}

/// One start: the same call is made until it has its answer. People approve what waits, and look whether it ran where nobody knows.
async fn life(place: &Path) {
    let gate = gate(place).await;
    let (client, near_client) = tokio::io::duplex(1 << 16);
    let (server, near_server) = tokio::io::duplex(1 << 16);
    let caller = Caller::new(&Principal::Client { uid: 1, name: None }, "server".into());
    let (near_client, near_server) = (tokio::io::split(near_client), tokio::io::split(near_server));
    let limits = SessionLimits::default();
    let lifecycle = Lifecycle::default();
    let running = tokio::spawn(session::run(
        Arc::clone(&gate),
        caller,
        near_client,
        near_server,
        limits,
        lifecycle.clone(),
    ));
    let of_server = place.to_owned();
    tokio::spawn(async move {
        let (reader, mut writer) = tokio::io::split(server);
        let mut asked = BufReader::new(reader).lines();
        while let Ok(Some(line)) = asked.next_line().await {
            // The effect, before anything is said of it.
            log(&of_server, "canary", &line);
            let id = serde_json::from_str::<serde_json::Value>(&line).unwrap()["id"].clone();
            let answer = format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":{{\"ran\":true}}}}\n");
            writer.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    let (reader, mut writer) = tokio::io::split(client);
    let mut answers = BufReader::new(reader).lines();
    let person = Principal::User { uid: 2, name: Some("alice".to_owned()) };
    loop {
        let number = lines(place, "client").len() + 1;
        let call = format!(
            r#"{{"jsonrpc":"2.0","id":{number},"method":"tools/call","params":{{"name":"pay","arguments":{{"to":"x"}}}}}}"#
        );
        log(place, "client", &format!("call {number}"));
        let mut news = gate.watch();
        writer.write_all(format!("{call}\n").as_bytes()).await.unwrap();
        let answer = loop {
            for hold in gate.holds() {
                // Too late, or by somebody else: then the answer says what became of it.
                let _ = gate.resolve(hold.id, Verdict::Approve, &person, None).await;
            }
            tokio::select! {
                answer = answers.next_line() => break answer.unwrap().unwrap(),
                _ = news.recv() => {}
                // A call that takes the place of an earlier one is no news.
                () = tokio::time::sleep(LOOK) => {}
            }
        };
        log(place, "client", &format!("answer {answer}"));
        if answer.contains("\"ran\":true") {
            break;
        }
        let filter = HistoryFilter { limit: 100, states: vec![State::Unknown], ..HistoryFilter::default() };
        for unknown in gate.store().history(filter).await.unwrap() {
            let has_run = !lines(place, "canary").is_empty();
            gate.resolve_unknown(unknown.hold.id, has_run, &person, None).await.unwrap();
            log(place, "client", &format!("resolved {}", unknown.hold.id));
        }
    }
    lifecycle.stop.cancel();
    running.await.unwrap();
    gate.store().flush().await.unwrap();
}

/// Starts a process for a life at `place`, which dies at `point`; gives whether it did.
fn start(test: &str, place: &Path, point: Option<&str>) -> bool {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([test, "--exact", "--nocapture", "--test-threads=1"]).env(PLACE_VARIABLE, place);
    command.env(FIRED_VARIABLE, place.join("fired")).env_remove(POINT_VARIABLE).stdout(Stdio::null());
    if let Some(point) = point {
        command.env(POINT_VARIABLE, point);
    }
    let status = command.status().unwrap();
    assert!(status.success() || status.signal() == Some(9), "{point:?}: {status}");
    status.signal() == Some(9)
}

/// What the record says, for the checker: the lines as they are exported.
fn exported(place: &Path) -> Vec<String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let store = Store::open(&place.join("record.db"));
        assert!(store.verify(None).await.unwrap().is_sound());
        let lines = store.audit_events(0, 10_000).await.unwrap();
        lines.into_iter().map(|line| line.line).collect()
    })
}

#[test]
fn a_process_that_dies_at_any_point_of_a_calls_life_runs_nothing_twice_and_loses_nothing() {
    const TEST: &str = "faults::tests::a_process_that_dies_at_any_point_of_a_calls_life_runs_nothing_twice_and_loses_nothing";
    if let Ok(place) = std::env::var(PLACE_VARIABLE) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        return runtime.block_on(life(Path::new(&place)));
    }
    let times: u64 = std::env::var("HOLDSHORT_TIMES").ok().map_or(1, |times| times.parse().unwrap());
    for point in POINTS {
        for time in 1..=times {
            let directory = tempfile::tempdir().unwrap();
            let place = directory.path();
            let has_died = start(TEST, place, Some(&format!("{point}:{time}")));
            if has_died {
                assert_eq!(lines(place, "fired"), [*point], "the fault has happened");
            } else {
                assert!(time > 1, "{point} is reached");
            }
            let mut starts = 0;
            while has_died && start(TEST, place, None) {
                starts += 1;
                assert!(starts < STARTS_MAX, "{point}: it never comes to its end");
            }
            let found = checker::check(&lines(place, "canary"), &lines(place, "client"), &exported(place));
            assert_eq!(found, Vec::<String>::new(), "{point}:{time}");
            assert!(!lines(place, "canary").is_empty(), "{point}: the call has run");
            if !has_died {
                break;
            }
        }
    }
}

#[test]
fn the_checker_finds_what_must_not_be() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(life(place));
    let (canary, client, audit) = (lines(place, "canary"), lines(place, "client"), exported(place));
    assert_eq!(checker::check(&canary, &client, &audit), Vec::<String>::new());
    let finds = |canary: &[String], client: &[String], audit: &[String], word: &str| {
        let found = checker::check(canary, client, audit);
        assert!(found.iter().any(|found| found.contains(word)), "{word}: {found:?}");
    };
    let twice = [canary.clone(), canary.clone()].concat();
    finds(&twice, &client, &audit, "ran more often");
    finds(&[canary[0].replace("\"x\"", "\"y\"")], &client, &audit, "without an approval");
    let answered_twice = [client.clone(), vec![client.last().unwrap().clone()]].concat();
    finds(&canary, &answered_twice, &audit, "two answers");
    finds(&[], &client, &audit, "did not run");
    finds(&canary, &client, &audit[1..], "the chain");
    let without_votes: Vec<String> =
        audit.iter().map(|line| line.replace("\"approve\"", "\"reject\"")).collect();
    finds(&canary, &client, &without_votes, "without an approval");
}
