//! The first campaign of faults: a process with a gate, a server, a client and an approver is killed at each named point of a call's
//! life, started again until the call has come to its end, and what its three logs say is judged by a checker that shares no code with
//! what it judges (`tests/it/support/checker.rs`). The same where, one after the other, every write and sync of a file fails, and every
//! trip to a database server.
//!
//! What happens beside a call's life is in `beside`: time, policies, and what the record does for itself.
//!
//! The test command kills at the first time that each point is reached. `HOLDSHORT_TIMES=20 cargo test --lib faults` kills at each of
//! the first so many times.

use std::{
    fs::{self, OpenOptions},
    io::Write,
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{Command, Stdio},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

use self::faults::{Faults, NUMBERS_VARIABLE, Numbers};
use super::{FIRED_VARIABLE, HAS_BEGUN, POINT_VARIABLE};
use crate::{
    gate::{Caller, Gate, GateLimits},
    hold::{HoldId, State, Verdict},
    policy::{Policy, Source},
    principal::Principal,
    store::{HistoryFilter, Location, Store, tests::cluster::Cluster},
    transport::session::{self, Lifecycle, SessionLimits},
};

mod beside;
#[path = "../../tests/it/support/checker.rs"]
mod checker;
#[path = "../../tests/it/support/faults.rs"]
mod faults;

/// The test as which a process is started to live a life.
const LIFE: &str =
    "faults::tests::a_process_that_dies_at_any_point_of_a_calls_life_runs_nothing_twice_and_loses_nothing";

/// Tells a started test binary that it is the process to be killed; its value is where its logs and its record are.
const PLACE_VARIABLE: &str = "HOLDSHORT_TEST_PLACE";

/// Tells it which write or sync of its file fails, and in which way.
const WRITE_VARIABLE: &str = "HOLDSHORT_TEST_WRITE";

/// The policy of a place, if that is not to hold everything.
const POLICY: &str = "policy.yaml";

/// The policy that takes its place once a call is held.
const NEXT_POLICY: &str = "next.yaml";

/// A file that names a kind of event: nobody decides before there is one on record, nor in a process that is to die around it, for that
/// may see it on record before it dies.
const WAITED_FOR: &str = "waited_for";

/// The point at which the end of the call is on record. Of a process that dies there, the client has heard nothing.
const RECORDED: &str = "answer.after_record:1";

/// Bytes that the client takes at a time: fewer than an answer has.
const TAKEN_BYTES: usize = 32;

/// The way in which all later ones fail too, until the client has heard of it: a disk that is full.
const LASTS: &str = "lasts";

/// The way in which it dies before one of those that copy the log of the record into its file.
const CHECKPOINT: &str = "checkpoint";

/// All points, in the order of a call's life.
const POINTS: &[&str] = &[
    "schema.amid_change",
    "schema.before_commit",
    "schema.after_commit",
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
    "session.amid_answer",
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

/// The record of this place: a file, or the database that is named there.
fn record(place: &Path) -> Location {
    match fs::read_to_string(place.join("url")) {
        Ok(url) => url.parse().unwrap(),
        Err(_) => Location::File(place.join("record.db")),
    }
}

/// A place with a record of its own in a database.
fn place_in(cluster: &Cluster) -> TempDir {
    let place = tempfile::tempdir().unwrap();
    fs::write(place.path().join("url"), cluster.url(&cluster.database())).unwrap();
    place
}

fn policy(place: &Path) -> Policy {
    let text = fs::read_to_string(place.join(POLICY));
    let text = text.unwrap_or_else(|_| "version: 1\ndefault: hold\n".to_owned());
    Policy::parse(vec![Source { name: POLICY.to_owned(), text }]).unwrap()
}

/// Whether the record has an event of this kind.
async fn has_event(gate: &Gate, kind: &str) -> bool {
    let told = format!("\"kind\":\"{kind}\"");
    let lines = gate.store().audit_events(0, 10_000).await.unwrap_or_default();
    lines.iter().any(|line| line.line.contains(&told))
}

/// A new policy comes into force, if there is one for this place.
async fn reload(gate: &Gate, place: &Path) {
    if fs::rename(place.join(NEXT_POLICY), place.join(POLICY)).is_ok() {
        assert!(gate.replace_policy(policy(place), "somebody"));
        while !has_event(gate, "policy_loaded").await {
            tokio::time::sleep(LOOK).await;
        }
        super::at("policy.on_record");
    }
}

/// A gate on the record of this place; all others on it are dead.
async fn gate(place: &Path) -> Arc<Gate> {
    let policy = policy(place);
    let name = HoldId::random().unwrap().to_string();
    let own: Arc<str> = name.as_str().into();
    let store = Store::open_at(&record(place), &own);
    let gate = Gate::new(Arc::clone(&own), Arc::new(policy), store, GateLimits::default());
    let gate = Arc::new(gate.with_is_dead(Box::new(move |other| other != name)));
    gate.store().ready().await.unwrap();
    // A server may take a moment to see that they are.
    while gate.store().holders().await.unwrap().iter().any(|holder| *holder != own) {
        gate.take_over_dead().await.unwrap();
        tokio::time::sleep(LOOK).await;
    }
    gate.refresh_tools().await.unwrap();
    let recording = Arc::clone(&gate);
    tokio::spawn(async move { recording.keep_recording().await });
    gate
}

/// One start: the same call is made until it has its answer. People approve what waits, and look whether it ran where nobody knows.
async fn life(place: &Path) {
    let gate = gate(place).await;
    HAS_BEGUN.store(true, Ordering::SeqCst);
    let reminding = Arc::clone(&gate);
    tokio::spawn(async move { reminding.keep_reminding().await });
    let disk = std::env::var(NUMBERS_VARIABLE).ok().map(|path| Numbers::of(Path::new(&path)));
    let mut checkpoint_at = None;
    if let (Some(disk), Ok(at)) = (&disk, std::env::var(WRITE_VARIABLE)) {
        let (at, how) = at.split_once(' ').unwrap();
        let at = at.parse().unwrap();
        match how {
            CHECKPOINT => checkpoint_at = Some(at),
            how => disk.fail(at, how == LASTS),
        }
    }
    let waited_for = fs::read_to_string(place.join(WAITED_FOR)).ok();
    let dies_at = std::env::var(POINT_VARIABLE).ok();
    let is_deaf = dies_at.as_deref() == Some(RECORDED);
    let (client, near_client) = tokio::io::duplex(TAKEN_BYTES);
    // One pipe for each direction: each has an end of its own.
    let (to_session, from_server) = tokio::io::duplex(1 << 16);
    let (to_server, from_session) = tokio::io::duplex(1 << 16);
    let caller = Caller::new(&Principal::Client { uid: 1, name: None }, "server".into());
    let limits = SessionLimits::default();
    let lifecycle = Lifecycle::default();
    let running = tokio::spawn(session::run(
        Arc::clone(&gate),
        caller,
        tokio::io::split(near_client),
        (from_server, to_server),
        limits,
        lifecycle.clone(),
    ));
    let of_server = place.to_owned();
    tokio::spawn(async move {
        let (mut asked, mut writer) = (BufReader::new(from_session).lines(), to_session);
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
    let people = ["mallory", "alice"].map(|name| Principal::User { uid: 2, name: Some(name.to_owned()) });
    loop {
        let number = lines(place, "client").len() + 1;
        let call = format!(
            r#"{{"jsonrpc":"2.0","id":{number},"method":"tools/call","params":{{"name":"pay","arguments":{{"to":"x"}}}}}}"#
        );
        log(place, "client", &format!("call {number}"));
        let mut news = gate.watch();
        writer.write_all(format!("{call}\n").as_bytes()).await.unwrap();
        let answer = loop {
            let holds = gate.holds();
            if !holds.is_empty() {
                reload(&gate, place).await;
            }
            let may_decide = match &waited_for {
                Some(kind) => dies_at.is_none() && has_event(&gate, kind).await,
                None => true,
            };
            for hold in holds.iter().filter(|_| may_decide) {
                for person in &people {
                    // Too late, or by somebody else who may: then the answer says what became of it.
                    let _ = gate.resolve(hold.id, Verdict::Approve, person, None).await;
                }
            }
            tokio::select! {
                answer = answers.next_line(), if !is_deaf => break answer.unwrap().unwrap(),
                _ = news.recv() => {}
                // A call that takes the place of an earlier one is no news.
                () = tokio::time::sleep(LOOK) => {}
            }
        };
        log(place, "client", &format!("answer {answer}"));
        if answer.contains("\"ran\":true") {
            break;
        }
        // Somebody reads that, and makes room.
        disk.iter().for_each(Numbers::heal);
        let filter = HistoryFilter { limit: 100, states: vec![State::Unknown], ..HistoryFilter::default() };
        // What fails here is done again when the call is.
        for unknown in gate.store().history(filter).await.unwrap_or_default() {
            let has_run = !lines(place, "canary").is_empty();
            if gate.resolve_unknown(unknown.record.hold.id, has_run, &people[1], None).await.is_ok() {
                log(place, "client", &format!("resolved {}", unknown.record.hold.id));
            }
        }
    }
    lifecycle.stop.cancel();
    running.await.unwrap();
    disk.iter().for_each(Numbers::heal);
    if gate.store().flush().await.is_err() {
        gate.store().flush().await.unwrap();
    }
    if let (Some(disk), Some(at)) = (&disk, checkpoint_at) {
        beside::checkpoint(place, disk, at);
    }
}

/// A process that lives a life at `place`.
fn process(place: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([LIFE, "--exact", "--nocapture", "--test-threads=1"]).env(PLACE_VARIABLE, place);
    command.env(FIRED_VARIABLE, place.join("fired")).env_remove(POINT_VARIABLE).stdout(Stdio::null());
    command
}

/// The same, which dies at `point`; gives whether it did.
fn start(place: &Path, point: Option<&str>) -> bool {
    let mut command = process(place);
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
        let store = Store::open_at(&record(place), &"reader".into());
        assert!(store.verify(None).await.unwrap().is_sound());
        let lines = store.audit_events(0, 10_000).await.unwrap();
        lines.into_iter().map(|line| line.line).collect()
    })
}

/// The call has come to its end at `place`, and all is as it should be.
fn judge(place: &Path, what: &str) {
    let found = checker::check(&lines(place, "canary"), &lines(place, "client"), &exported(place));
    assert_eq!(found, Vec::<String>::new(), "{what}");
    assert!(!lines(place, "canary").is_empty(), "{what}: the call has run");
}

/// How often each point is to be reached before the process dies there.
fn times() -> u64 {
    std::env::var("HOLDSHORT_TIMES").ok().map_or(1, |times| times.parse().unwrap())
}

/// A process dies at `point`, and others come after it until the call has come to its end. Gives whether it has died.
fn killed_at(place: &Path, point: &str) -> bool {
    let has_died = start(place, Some(point));
    if has_died {
        assert_eq!(lines(place, "fired"), [point.split(':').next().unwrap()], "the fault has happened");
        if [RECORDED, "session.amid_answer:1"].contains(&point) {
            let has_heard = lines(place, "client").iter().any(|line| line.starts_with("answer"));
            assert!(!has_heard, "{point}: the client has its answer");
        }
        live_on(place, point);
    } else {
        judge(place, point);
    }
    has_died
}

/// Starts processes until the call has come to its end, after what has happened at `point`.
fn live_on(place: &Path, point: &str) {
    let mut starts = 0;
    while start(place, None) {
        starts += 1;
        assert!(starts < STARTS_MAX, "{point}: it never comes to its end");
    }
    judge(place, point);
}

/// Kills at all points, each time on a new record, and starts again until the call has come to its end.
fn killed_at_every_point(new: impl Fn() -> TempDir) {
    for point in POINTS {
        for time in 1..=times() {
            if !killed_at(new().path(), &format!("{point}:{time}")) {
                assert!(time > 1, "{point} is reached");
                break;
            }
        }
    }
}

#[test]
fn a_process_that_dies_at_any_point_of_a_calls_life_runs_nothing_twice_and_loses_nothing() {
    if let Ok(place) = std::env::var(PLACE_VARIABLE) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        return runtime.block_on(life(Path::new(&place)));
    }
    killed_at_every_point(|| tempfile::tempdir().unwrap());
}

#[test]
fn nor_does_one_that_dies_so_on_a_database_server() {
    let cluster = Cluster::start();
    killed_at_every_point(|| place_in(&cluster));
}

#[test]
fn whichever_write_or_sync_of_a_file_fails_nothing_runs_twice_or_unapproved() {
    let faults = Faults::new();
    // Of two ways to fail, the test command tries one for each write.
    let both: &[&str] = &["once", LASTS];
    for at in 1_usize.. {
        let ways = if times() > 1 { both } else { std::slice::from_ref(&both[at % 2]) };
        let before = faults.numbers.fired();
        for way in ways {
            let directory = tempfile::tempdir().unwrap();
            let mut command = process(directory.path());
            faults.preload(&mut command);
            faults.numbers.heal();
            let status = command.env(WRITE_VARIABLE, format!("{at} {way}")).status().unwrap();
            assert!(status.success(), "{at} {way}: {status}");
            judge(directory.path(), &format!("{at} {way}"));
        }
        if faults.numbers.fired() == before {
            assert!(at > 10, "the faults have happened: {at}");
            return;
        }
    }
}

#[test]
fn whichever_trip_to_a_database_server_is_cut_nothing_runs_twice_or_unapproved() {
    let cluster = Cluster::start();
    for at in 1.. {
        let directory = place_in(&cluster);
        let place = directory.path();
        let mut command = process(place);
        let status = command.env(POINT_VARIABLE, format!("postgres.any_trip:{at}")).status().unwrap();
        assert!(status.success(), "{at}: {status}");
        judge(place, &format!("{at}"));
        if lines(place, "fired").is_empty() {
            assert!(at > 10, "the faults have happened: {at}");
            return;
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
