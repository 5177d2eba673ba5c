//! How many gated calls a second become durable with an approver who answers at once, on a file and on PostgreSQL.
//!
//! Run by hand: `cargo bench --bench fleet`; it needs the programs of PostgreSQL. A call is screened, held, announced, approved by
//! whoever hears of it, released, and its answer recorded: three commits, each on the disk before it has an effect. With
//! `--waiting COUNT`, so many calls wait at four processes on one database and are then all decided; it also tells what they take there
//! (`docs/scale.md`).

#![expect(clippy::print_stdout, reason = "the figures are what it is for")]

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use holdshort::{
    gate::{Caller, Gate, GateLimits, HeldCall, News, Released, Screened},
    hold::Verdict,
    jsonrpc::Frame,
    policy::{Policy, Source},
    principal::Principal,
    store::{Location, Store},
    waiting::Wait,
};
use tokio::{runtime::Runtime, task::JoinSet};

#[expect(clippy::unwrap_used, reason = "it is written for tests: without its server nothing can be measured")]
#[path = "../tests/it/support/postgres.rs"]
mod postgres;

const CALLERS: usize = 64;
const SECONDS_EACH: u64 = 5;
const GATES: u64 = 4;

/// Makes of this program one of the processes that have calls.
const GATE: &str = "--gate";

/// What such a process says.
const WAITING: &str = "waiting";
const DONE: &str = "done";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let arguments: Vec<String> = std::env::args().collect();
    if let Some(at) = arguments.iter().position(|word| word == GATE) {
        return gate_process(&runtime, &arguments[at + 1..]);
    }
    let directory = tempfile::Builder::new().prefix("fleet-").tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    // The server of the database may be somebody else.
    open_to_all(directory.path())?;
    let cluster = postgres::Cluster::durable(directory.path());
    let waiting = arguments.iter().skip_while(|word| *word != "--waiting").nth(1);
    if let Some(count) = waiting {
        return waiting_calls(&runtime, &cluster, count.parse()?);
    }
    println!("gated calls a second, durable, {CALLERS} callers, an approver who answers at once:");
    let file = Location::File(directory.path().join("own").join("record.db"));
    gated("SQLite", &runtime, &file)?;
    gated("PostgreSQL", &runtime, &cluster.url(&cluster.database()).parse()?)
}

fn open_to_all(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o711))
}

/// A gate that holds everything but reads.
fn gate(location: &Location, name: &str) -> Result<Arc<Gate>, Box<dyn std::error::Error>> {
    let name: Arc<str> = name.into();
    let store = Store::open_at(location, &name);
    let limits = GateLimits { holds_max: 200_000, ..GateLimits::default() };
    let text =
        "version: 1\ndefault: hold\nrules:\n  - {name: reads, tool: 'get_*', action: allow}\n".to_owned();
    let policy = Policy::parse(vec![Source { name: "policy.yaml".to_owned(), text }])
        .map_err(|errors| format!("{errors:?}"))?;
    Ok(Arc::new(Gate::new(name, Arc::new(policy), store, limits)))
}

/// What the gate says of a call of `tool`.
fn screened(gate: &Gate, caller: &Caller, tool: &str, number: u64) -> Screened {
    let line = format!(
        r#"{{"jsonrpc":"2.0","id":{number},"method":"tools/call","params":{{"name":"{tool}","arguments":{{"order":{number}}}}}}}"#
    );
    gate.screen(caller, Frame::from_client(Bytes::from(line)).expect("the frame is one"))
}

fn call(gate: &Gate, caller: &Caller, number: u64) -> Box<HeldCall> {
    match screened(gate, caller, "send_refund", number) {
        Screened::Hold(held) => held,
        other => panic!("the gate does not hold the call: {other:?}"),
    }
}

/// How long an allowed call takes in the middle, from its bytes to the permission to send it, while `goes_on`.
fn ungated(gate: &Gate, goes_on: impl Fn(usize) -> bool) -> Duration {
    // As many as a client may have sent at once: the first of them finds the caches full of what others do.
    const IN_A_ROW: u32 = 16;

    let (caller, mut times) = (Caller::new(&Principal::client(), "billing".into()), Vec::new());
    while goes_on(times.len()) {
        // Now and then: what is measured is not what a busy loop takes from the others.
        std::thread::sleep(Duration::from_millis(1));
        let begin = Instant::now();
        for number in 0..IN_A_ROW {
            let screened = screened(gate, &caller, "get_invoice", number.into());
            assert!(
                matches!(screened, Screened::Pass(_)),
                "the gate does not let the call pass: {screened:?}"
            );
        }
        times.push(begin.elapsed() / IN_A_ROW);
    }
    times.sort_unstable();
    times[times.len() / 2]
}

fn approver() -> Principal {
    Principal::User { uid: 1000, name: Some("alice".to_owned()) }
}

fn gated(name: &str, runtime: &Runtime, location: &Location) -> Result<(), Box<dyn std::error::Error>> {
    runtime.block_on(async {
        let gate = gate(location, "bench")?;
        gate.store().ready().await?;
        let alone = ungated(&gate, |calls| calls < 1000);
        let mut news = gate.watch();
        let answering = Arc::clone(&gate);
        let approving = tokio::spawn(async move {
            while let Ok(news) = news.recv().await {
                if let News::Held(hold) = news {
                    let gate = Arc::clone(&answering);
                    tokio::spawn(
                        async move { gate.resolve(hold.id, Verdict::Approve, &approver(), None).await },
                    );
                }
            }
        });
        let (begin, next) = (Instant::now(), Arc::new(AtomicU64::new(0)));
        let end = begin + Duration::from_secs(SECONDS_EACH);
        let beside = Arc::clone(&gate);
        let beside = tokio::task::spawn_blocking(move || ungated(&beside, |_| Instant::now() < end));
        let mut callers = JoinSet::new();
        for _ in 0..CALLERS {
            let (gate, next) = (Arc::clone(&gate), Arc::clone(&next));
            callers.spawn(async move {
                let (caller, mut done) = (Caller::new(&Principal::client(), "billing".into()), 0_u32);
                while Instant::now() < end {
                    let held = call(&gate, &caller, next.fetch_add(1, Ordering::Relaxed));
                    match gate.hold(held).await {
                        Released::Resume(approved) => gate.answered(approved.hold()).await,
                        other => panic!("the call is not approved: {other:?}"),
                    }
                    done += 1;
                }
                done
            });
        }
        let mut done = 0;
        while let Some(of_one) = callers.join_next().await {
            done += of_one?;
        }
        let rate = f64::from(done) / begin.elapsed().as_secs_f64();
        approving.abort();
        let found = gate.store().verify(None).await?;
        assert!(found.is_sound(), "{:?}", found.broken);
        println!(
            "  {name:10}  {rate:6.0}   an allowed call beside them {:.1?}, alone {alone:.1?}",
            beside.await?
        );
        Ok(())
    })
}

/// `count` calls wait at several processes on one database; then all are decided, each at the gate that has its caller.
fn waiting_calls(
    runtime: &Runtime,
    cluster: &postgres::Cluster,
    count: u64,
) -> Result<(), Box<dyn std::error::Error>> {
    let name = cluster.database();
    let url = cluster.url(&name);
    let (begin, before) = (Instant::now(), written(cluster, &name)?);
    let mut processes = Vec::new();
    for number in 0..GATES {
        processes.push(Process::start(&url, number, count)?);
    }
    for process in &mut processes {
        process.says(WAITING)?;
    }
    println!("{count} calls wait at {GATES} processes, after {:.1} s", begin.elapsed().as_secs_f64());
    show_costs(cluster, &name, count, before)?;
    // What is done to look at them does not count.
    let before = written(cluster, &name)?;
    let begin = Instant::now();
    for process in &mut processes {
        writeln!(process.stdin, "decide")?;
    }
    for process in &mut processes {
        process.says(DONE)?;
    }
    println!(
        "all are decided, released and answered, on record, after {:.1} s",
        begin.elapsed().as_secs_f64()
    );
    show_costs(cluster, &name, count, before)?;
    for mut process in processes {
        drop(process.stdin);
        assert!(process.child.wait()?.success());
    }
    let (begin, store) = (Instant::now(), Store::open_at(&url.parse()?, &"reader".into()));
    let found = runtime.block_on(store.verify(None))?;
    println!("the record is proved after {:.1} s", begin.elapsed().as_secs_f64());
    assert!(found.is_sound() && found.holds == count, "{:?}", found.broken);
    Ok(())
}

/// How much the server has written ahead, since it was made.
const WAL_BYTES: &str = "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint";

/// How many bytes were written ahead until now, and how much was committed.
fn written(cluster: &postgres::Cluster, name: &str) -> Result<(u64, u64), Box<dyn std::error::Error>> {
    // Readers roll back; what asks here is some ten of them.
    let commits = format!("SELECT xact_commit FROM pg_stat_database WHERE datname = '{name}'");
    Ok((cluster.ask(name, WAL_BYTES).parse()?, cluster.ask(name, &commits).parse()?))
}

/// Tells what the calls take: connections, what was written ahead and committed since `before`, and what each table has of one call.
fn show_costs(
    cluster: &postgres::Cluster,
    name: &str,
    count: u64,
    before: (u64, u64),
) -> Result<(), Box<dyn std::error::Error>> {
    let now = written(cluster, name)?;
    let connections = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = '{name}' AND application_name = 'holdshort'"
    );
    println!("  {} connections to the database", cluster.ask("postgres", &connections));
    println!("  {} commits, {} B a call written ahead", now.1 - before.1, (now.0 - before.0) / count);
    cluster.ask(name, "VACUUM ANALYZE");
    for table in ["holds", "frames", "audit"] {
        let of = format!(
            "SELECT round(pg_table_size('{table}') / {count}.0) || ' B and ' || round(pg_indexes_size('{table}') / {count}.0) \
             || ' B of indexes, ' || round((SELECT count(*) FROM {table}) / {count}.0, 1) || ' rows'"
        );
        println!("  {table:6} {} a call", cluster.ask(name, &of));
    }
    Ok(())
}

/// Another process of this program, with a gate of its own.
struct Process {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Process {
    fn start(url: &str, number: u64, of_all: u64) -> Result<Self, Box<dyn std::error::Error>> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args([GATE, url, &number.to_string(), &of_all.to_string()]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let stdin = child.stdin.take().ok_or("it has no stdin")?;
        let stdout = BufReader::new(child.stdout.take().ok_or("it has no stdout")?);
        Ok(Self { child, stdin, stdout })
    }

    /// Waits until it says `word`.
    fn says(&mut self, word: &str) -> Result<(), Box<dyn std::error::Error>> {
        let mut line = String::new();
        self.stdout.read_line(&mut line)?;
        if line.trim() == word { Ok(()) } else { Err(format!("a gate has failed: {line:?}").into()) }
    }
}

/// What such a process does: its share of all calls waits, and is decided when it is told to.
fn gate_process(runtime: &Runtime, arguments: &[String]) -> Result<(), Box<dyn std::error::Error>> {
    let [url, number, of_all] = arguments else {
        return Err("a gate has a URL, a number and a count".into());
    };
    let (location, number, of_all) = (url.parse()?, number.parse::<u64>()?, of_all.parse::<u64>()?);
    let share = (number..of_all).step_by(usize::try_from(GATES)?);
    let count = share.clone().count();
    runtime.block_on(async {
        let gate = gate(&location, &format!("bench-{number}"))?;
        let mut calls = JoinSet::new();
        for number in share {
            let gate = Arc::clone(&gate);
            calls.spawn(async move {
                // As clients that hear of progress: the first calls wait for as long as it takes to hold them all.
                let mut caller = Caller::new(&Principal::client(), "billing".into());
                caller.wait = Some(Wait::Forever);
                match gate.hold(call(&gate, &caller, number)).await {
                    Released::Resume(approved) => gate.answered(approved.hold()).await,
                    other => panic!("the call is not approved: {other:?}"),
                }
            });
        }
        while gate.holds().len() < count {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        println!("{WAITING}");
        tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new())).await??;
        for hold in gate.holds() {
            let gate = Arc::clone(&gate);
            tokio::spawn(async move { gate.resolve(hold.id, Verdict::Approve, &approver(), None).await });
        }
        while let Some(ended) = calls.join_next().await {
            ended?;
        }
        println!("{DONE}");
        // Until nobody needs its connections to be counted any more.
        tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new())).await??;
        Ok(())
    })
}
