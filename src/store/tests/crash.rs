//! Processes that die, and disks that fail. Each test starts its own binary again to have a process to treat so.

use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdout, Command, Stdio},
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::*;

/// Tells a started test binary that it is the process to be treated; its value is where the record is.
const STORE_VARIABLE: &str = "HOLDSHORT_TEST_STORE";

/// Tells it who it is.
const OWNER_VARIABLE: &str = "HOLDSHORT_TEST_OWNER";

/// This test binary again, running only `test`.
fn again(test: &str, path: &Path, owner: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(STORE_VARIABLE, path)
        .env(OWNER_VARIABLE, owner)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// The ids that a child has been told are durable, as it reports them.
fn reports(child: &mut Child) -> impl Iterator<Item = HoldId> + use<> {
    let lines: std::io::Lines<BufReader<ChildStdout>> = BufReader::new(child.stdout.take().unwrap()).lines();
    lines
        .map_while(Result::ok)
        .filter_map(|line| line.strip_prefix("durable ").and_then(|id| id.parse().ok()))
}

/// Approves one call after the other for ever, with others beside it, and reports each that is durably forwarded.
async fn approve_for_ever(path: &Path, owner: &str) {
    let store = Store::open(path);
    let mut tasks = tokio::task::JoinSet::new();
    for caller in 0..4_u64 {
        let (store, owner) = (store.clone(), owner.to_owned());
        tasks.spawn(async move {
            for number in 0_u64.. {
                let mut hold = new_hold(number.into(), &owner);
                let name = format!("{owner} {caller} {number}");
                hold.id.0.copy_from_slice(&Digest::of(name.as_bytes()).0[..16]);
                let id = hold.id;
                store.record_hold(hold).await.unwrap();
                store.end(id, State::Forwarding, approval("a"), None).await.unwrap();
                let report = format!("\ndurable {id}\n");
                std::io::stdout().lock().write_all(report.as_bytes()).unwrap();
            }
        });
    }
    tasks.join_all().await;
}

#[tokio::test]
async fn what_was_told_to_be_durable_survives_the_kill_of_its_process() {
    const TEST: &str = "store::tests::crash::what_was_told_to_be_durable_survives_the_kill_of_its_process";
    if let (Ok(path), Ok(owner)) = (std::env::var(STORE_VARIABLE), std::env::var(OWNER_VARIABLE)) {
        approve_for_ever(Path::new(&path), &owner).await;
    }
    let disk = disk();
    // Two processes append to one log; one is killed while the other goes on.
    let (mut first, mut second) = (again(TEST, &disk.path, "first"), again(TEST, &disk.path, "second"));
    let (mut of_first, mut of_second) = (reports(&mut first), reports(&mut second));
    let mut durable: Vec<HoldId> = of_first.by_ref().take(40).collect();
    durable.extend(of_second.by_ref().take(40));
    first.kill().unwrap();
    durable.extend(of_first);
    durable.extend(of_second.by_ref().take(40));
    second.kill().unwrap();
    durable.extend(of_second);
    assert!(durable.len() >= 120, "{}", durable.len());
    first.wait().unwrap();
    second.wait().unwrap();

    let store = Store::open(&disk.path);
    let found = sound(&store).await;
    assert!(found.holds >= durable.len() as u64);
    for id in &durable {
        assert_eq!(store.hold(*id).await.unwrap().unwrap().state, State::Forwarding);
    }
    let mut unknown = 0;
    for holder in store.holders().await.unwrap() {
        unknown += store.recover(&holder).await.unwrap().unknown.len();
    }
    assert!(unknown >= durable.len(), "each is one of which nobody knows whether it ran");
    assert!(store.holders().await.unwrap().is_empty());
    sound(&store).await;
}

/// Lets this process write files up to `bytes` long; `None`: as long as it likes.
fn limit_files(bytes: Option<u64>) {
    let maximum = getrlimit(Resource::Fsize).maximum;
    setrlimit(Resource::Fsize, Rlimit { current: bytes.or(maximum), maximum }).unwrap();
}

/// One life of a hold; for each step, whether it was told to be durable.
async fn life(store: &Store) -> Vec<bool> {
    let mut hold = new_hold(1, "gate-1");
    hold.frame = Bytes::from(vec![b'x'; 20_000]);
    hold.frame_sha256 = Digest::of(&hold.frame);
    let id = hold.id;
    vec![
        store.record_hold(hold).await.is_ok(),
        store.end(id, State::Forwarding, approval("a"), None).await.is_ok(),
        store.end(id, State::Answered, vec![], None).await.is_ok(),
    ]
}

/// Makes every write fail in turn, at ever later places, until none fails.
async fn fail_every_write(directory: &Path) {
    const STEP_BYTES: u64 = 1500;
    // Without a handler, the signal that comes with the error would end the process.
    let too_long = tokio::signal::unix::SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw());
    let _ignored = tokio::signal::unix::signal(too_long).unwrap();
    let mut refused = 0;
    for number in 0..1000 {
        let path = directory.join(format!("{number}.db"));
        let store = Store::open(&path);
        // Every second time the file is made before the disk is full.
        if number % 2 == 1 {
            store.ready().await.unwrap();
        }
        limit_files(Some(number / 2 * STEP_BYTES));
        let told = life(&store).await;
        limit_files(None);
        let failed = told.iter().filter(|told| !**told).count();
        refused += failed;
        if failed > 0 && number % 2 == 1 {
            // There is room again: the log is found whole, and the same handle goes on.
            store.record_hold(new_hold(2, "gate-1")).await.unwrap();
        }
        drop(store);
        let store = Store::open(&path);
        let found = sound(&store).await;
        let state = store.hold(HoldId(1_u128.to_be_bytes())).await.unwrap().map(|hold| hold.state);
        // Never less than was told; more only if the failure came after the write.
        let least = told.iter().take_while(|told| **told).count();
        let reached = match state {
            None => 0,
            Some(State::Held) => 1,
            Some(State::Forwarding) => 2,
            Some(State::Answered) => 3,
            Some(other) => panic!("{other}"),
        };
        assert!(reached >= least, "{told:?} was told, {state:?} is there, after {number}");
        assert!(found.events >= least as u64);
        if failed == 0 && number > 2 {
            assert!(refused > 20, "the faults have happened: {refused}");
            let report = format!("\nrefused {refused} until {number}\n");
            std::io::stdout().lock().write_all(report.as_bytes()).unwrap();
            return;
        }
    }
    panic!("it never succeeded");
}

#[tokio::test]
async fn nothing_is_told_to_be_durable_whichever_write_fails() {
    const TEST: &str = "store::tests::crash::nothing_is_told_to_be_durable_whichever_write_fails";
    if let Ok(directory) = std::env::var(STORE_VARIABLE) {
        return fail_every_write(Path::new(&directory)).await;
    }
    let disk = disk();
    let child = again(TEST, disk.path.parent().unwrap(), "");
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("\nrefused "), "{text}");
}
