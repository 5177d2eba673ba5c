//! How many decisions a second become durable, and what of that is the price of the record.
//!
//! Run by hand: `cargo bench --bench store`. One decision is three jobs: the hold, the approval with the permission to
//! forward, the answer; each waits until it is on the disk. Beside it, in the same run and on the same disk, the same
//! number of callers insert one plain row for each job with the same group commit: no log, no states, no savepoints.

#![expect(clippy::print_stdout, reason = "the figures are what it is for")]

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use holdshort::{
    digest::Digest,
    hold::{HoldId, NewHold, State, Verdict, Vote},
    store::Store,
};
use jiff::Timestamp;
use tokio::{runtime::Runtime, sync::oneshot, task::JoinSet};

const CALLERS: [usize; 4] = [1, 8, 64, 256];
const SECONDS_EACH: u64 = 3;
const FRAME_BYTES: usize = 1024;
const JOBS_PER_DECISION: u64 = 3;
const JOBS_PER_COMMIT: usize = 512;

/// What one run gave: jobs done, and how long each took.
struct Figures {
    jobs: u64,
    seconds: f64,
    waits: Vec<Duration>,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let directory = tempfile::Builder::new().prefix("store-").tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    println!("callers  decisions/s  p50 ms  p99 ms | jobs/s  plain rows/s  share");
    for callers in CALLERS {
        let path = directory.path().join(format!("record-{callers}.db"));
        let store = record(&runtime, &path, callers)?;
        let plain = plain(&runtime, &directory.path().join(format!("plain-{callers}.db")), callers)?;
        let (ours, theirs) = (per_second(&store), per_second(&plain));
        println!(
            "{callers:7}  {:11.0}  {:6.2}  {:6.2} | {ours:6.0}  {theirs:12.0}  {:4.0} %",
            ours / JOBS_PER_DECISION as f64,
            percentile(&store, 50),
            percentile(&store, 99),
            100.0 * ours / theirs,
        );
    }
    println!("p50 and p99: from the approval to its being durable, with the permission to forward");
    Ok(())
}

fn per_second(figures: &Figures) -> f64 {
    figures.jobs as f64 / figures.seconds
}

fn percentile(figures: &Figures, percent: usize) -> f64 {
    let mut waits = figures.waits.clone();
    waits.sort_unstable();
    waits.get(waits.len() * percent / 100).map_or(0.0, |wait| wait.as_secs_f64() * 1000.0)
}

/// All callers until the time is over.
fn measure<F>(runtime: &Runtime, callers: usize, caller: impl Fn(Instant) -> F) -> Figures
where
    F: Future<Output = (u64, Vec<Duration>)> + Send + 'static,
{
    runtime.block_on(async {
        let begin = Instant::now();
        let end = begin + Duration::from_secs(SECONDS_EACH);
        let mut tasks: JoinSet<_> = (0..callers).map(|_| caller(end)).collect();
        let mut figures = Figures { jobs: 0, seconds: 0.0, waits: Vec::new() };
        while let Some(done) = tasks.join_next().await {
            let (jobs, waits) = done.expect("a caller does not panic");
            figures.jobs += jobs;
            figures.waits.extend(waits);
        }
        figures.seconds = begin.elapsed().as_secs_f64();
        figures
    })
}

fn record(runtime: &Runtime, path: &Path, callers: usize) -> Result<Figures, Box<dyn std::error::Error>> {
    let store = Store::open(path);
    runtime.block_on(store.ready())?;
    let next = Arc::new(AtomicU64::new(0));
    let figures = measure(runtime, callers, |end| {
        let (store, next) = (store.clone(), Arc::clone(&next));
        async move {
            let (mut jobs, mut waits) = (0, Vec::new());
            while Instant::now() < end {
                let hold = new_hold(next.fetch_add(1, Ordering::Relaxed));
                let id = hold.id;
                store.record_hold(hold).await.expect("the hold is recorded");
                let approved = Instant::now();
                let vote = Vote::new(Verdict::Approve, "uid:1000(alice)".to_owned(), None, Timestamp::now());
                store.end(id, State::Forwarding, vec![vote], None).await.expect("the approval is recorded");
                waits.push(approved.elapsed());
                store.end(id, State::Answered, Vec::new(), None).await.expect("the answer is recorded");
                jobs += JOBS_PER_DECISION;
            }
            (jobs, waits)
        }
    });
    let begin = Instant::now();
    let found = runtime.block_on(store.verify(None))?;
    assert!(found.is_sound(), "{:?}", found.broken);
    println!("         verified {} lines in {:.2} s", found.events, begin.elapsed().as_secs_f64());
    Ok(figures)
}

fn new_hold(number: u64) -> NewHold {
    let mut id = [0; 16];
    id.copy_from_slice(&Digest::of(&number.to_be_bytes()).0[..16]);
    let frame = Bytes::from(vec![b'x'; FRAME_BYTES]);
    let now = Timestamp::now();
    NewHold {
        id: HoldId(id),
        owner: "7f3a9c2e51b04d68".into(),
        server: "billing".into(),
        method: "tools/call".into(),
        tool: "send_refund".into(),
        agent: "some-agent 1.2.3".into(),
        principal: "uid:1000(dev)".into(),
        frame_sha256: Digest::of(&frame),
        frame,
        policy_sha256: Digest::of(b"policy"),
        call_sha256: Some(Digest::of(&number.to_le_bytes())),
        tool_sha256: None,
        terms_sha256: Some(Digest::of(b"terms")),
        quorum: None,
        rules: vec!["high-value-refund".into()],
        reason: "Refunds over $1,000 need a person from finance.".into(),
        notes: Vec::new(),
        created_at: now,
        expires_at: now + Duration::from_secs(300),
    }
}

/// A row to insert, and who waits for its commit.
type Row = (u64, oneshot::Sender<()>);

fn plain(runtime: &Runtime, path: &Path, callers: usize) -> Result<Figures, Box<dyn std::error::Error>> {
    let db = rusqlite::Connection::open(path)?;
    db.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; \
         CREATE TABLE rows (id INTEGER PRIMARY KEY, frame BLOB NOT NULL) STRICT;",
    )?;
    let (send, receive): (SyncSender<Row>, Receiver<Row>) = sync_channel(callers);
    let thread = std::thread::spawn(move || insert_rows(&db, &receive));
    let next = Arc::new(AtomicU64::new(0));
    let figures = measure(runtime, callers, |end| {
        let (send, next) = (send.clone(), Arc::clone(&next));
        async move {
            let mut jobs = 0;
            while Instant::now() < end {
                let (reply, done) = oneshot::channel();
                send.try_send((next.fetch_add(1, Ordering::Relaxed), reply))
                    .expect("as long as there are callers");
                done.await.expect("the row is inserted");
                jobs += 1;
            }
            (jobs, Vec::new())
        }
    });
    drop(send);
    thread.join().expect("the thread does not panic")?;
    Ok(figures)
}

fn insert_rows(db: &rusqlite::Connection, rows: &Receiver<Row>) -> rusqlite::Result<()> {
    let frame = vec![b'x'; FRAME_BYTES];
    let mut waiting = Vec::new();
    while let Ok(first) = rows.recv() {
        db.prepare_cached("BEGIN IMMEDIATE")?.execute([])?;
        let mut next = Some(first);
        while let Some((id, reply)) = next {
            let id = i64::try_from(id).expect("fewer rows than that");
            db.prepare_cached("INSERT INTO rows (id, frame) VALUES (?1, ?2)")?
                .execute(rusqlite::params![id, frame])?;
            waiting.push(reply);
            next = if waiting.len() < JOBS_PER_COMMIT { rows.try_recv().ok() } else { None };
        }
        db.prepare_cached("COMMIT")?.execute([])?;
        for reply in waiting.drain(..) {
            let _ = reply.send(());
        }
    }
    Ok(())
}
