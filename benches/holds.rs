//! What waiting calls cost: memory for each, decisions a second, and the time between an approval and its effect.
//!
//! `cargo bench --bench holds`; `benches/README.md` says what each figure means. It drives the gate with a real record on
//! a real disk, on the runtime of `holdshort run` (tokio, one thread), and the program itself where a figure is about the
//! whole of it. It measures and compares; it fails only if it could not measure.

mod support {
    pub(crate) mod memory;
    pub(crate) mod stats;
}

use std::{
    future::Future,
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use holdshort::{
    gate::{Caller, Gate, GateLimits, HeldCall, News, Released, Screened},
    hold::{HoldId, NewHold, State, Verdict, Vote},
    jsonrpc::Frame,
    policy::Policy,
    principal::Principal,
    store::Store,
};
use support::{
    memory,
    stats::{self, Row, Spread, Target},
};
use tokio::sync::broadcast;

/// Bytes of a held call's frame, terminator included.
const FRAME_BYTES: usize = 256;

/// Calls that wait and are decided at the same time in the throughput measurement.
const CALLERS: usize = 256;

/// How long nothing may happen before the bench gives up.
const HANG: Duration = Duration::from_secs(60);

/// How much is measured.
struct Effort {
    /// Calls held at once in the memory measurement.
    holds: usize,
    /// Rounds of the throughput measurement, and decisions in each.
    rounds: usize,
    decisions: usize,
    /// Calls that are on a long record.
    recorded: usize,
    /// Approvals whose time is taken one by one.
    approvals: usize,
}

const FULL: Effort =
    Effort { holds: 100_000, rounds: 7, decisions: 20_000, recorded: 400_000, approvals: 2000 };
const QUICK: Effort = Effort { holds: 20_000, rounds: 3, decisions: 5000, recorded: 20_000, approvals: 200 };

fn main() -> ExitCode {
    match drive() {
        Ok(table) => {
            show(&table);
            ExitCode::SUCCESS
        }
        Err(error) => {
            complain(&format!("the measurement failed: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stderr, reason = "a bench talks to the person who runs it")]
fn complain(text: &str) {
    eprintln!("{text}");
}

#[expect(clippy::print_stdout, reason = "the table is what a bench is for")]
fn show(text: &str) {
    println!("{text}");
}

fn drive() -> anyhow::Result<String> {
    let mut effort = FULL;
    for argument in std::env::args().skip(1) {
        match argument.as_str() {
            "--quick" => effort = QUICK,
            // What `cargo bench` says to every bench.
            "--bench" => {}
            _ => bail!("unknown argument `{argument}`; there is --quick"),
        }
    }
    // Memory first: what is freed later would be used again, and hide what a hold takes.
    let mut rows = on_a_runtime(memory_each(&effort))?;
    rows.extend(on_a_runtime(throughput(&effort))?);
    rows.extend(on_a_runtime(latency(&effort))?);
    Ok(stats::table(&[], &rows))
}

/// Runs `measure` on a runtime like that of `holdshort run`.
fn on_a_runtime<T>(measure: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(measure);
    runtime.shutdown_background();
    result
}

/// A gate that holds everything, with its record in a directory of its own.
struct Bench {
    gate: Arc<Gate>,
    caller: Caller,
    approver: Principal,
    next_id: u64,
    _directory: tempfile::TempDir,
}

impl Bench {
    async fn open() -> anyhow::Result<Self> {
        // Not the system's directory for temporary files, which is often in memory: a commit has to reach a disk.
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
        let store = Store::open(&directory.path().join("record.db"));
        store.ready().await?;
        let gate = Gate::new(
            Arc::from("bench"),
            Arc::new(Policy::hold_everything()),
            store,
            GateLimits { holds_max: 200_000, ..GateLimits::default() },
        );
        let approver = Principal::User { uid: 1000, name: Some("alice".to_owned()) };
        Ok(Self {
            gate: Arc::new(gate),
            caller: Caller::new(&Principal::client(), Arc::from("bench")),
            approver,
            next_id: 1,
            _directory: directory,
        })
    }

    /// The next call, as the gate wants to hold it.
    fn next_call(&mut self) -> anyhow::Result<Box<HeldCall>> {
        self.next_id += 1;
        screened(&self.gate, &self.caller, self.next_id)
    }

    fn store(&self) -> &Store {
        self.gate.store()
    }
}

fn screened(gate: &Gate, caller: &Caller, id: u64) -> anyhow::Result<Box<HeldCall>> {
    let begin = format!(
        r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"send_refund","arguments":{{"order":{id},"note":""#
    );
    let end = "\"}}}\n";
    let note = "x".repeat(FRAME_BYTES.saturating_sub(begin.len() + end.len()));
    let line = Bytes::from(format!("{begin}{note}{end}"));
    match gate.screen(caller, Frame::from_client(line)?) {
        Screened::Hold(held) => Ok(held),
        other => bail!("the gate does not hold the call: {other:?}"),
    }
}

/// Waits for the news of `count` more holds. What was missed was news of holds as well: nothing is decided meanwhile.
async fn all_held(news: &mut broadcast::Receiver<News>, count: usize) -> anyhow::Result<()> {
    let mut held = 0;
    while held < count {
        held += match tokio::time::timeout(HANG, news.recv()).await.context("nothing is held any more")? {
            Ok(News::Held(_)) => 1,
            Ok(News::Voted { .. } | News::Waiting { .. } | News::Anew) => 0,
            Ok(News::Now { hold, state, .. }) => bail!("hold {} is {state}", hold.id),
            Err(broadcast::error::RecvError::Lagged(missed)) => usize::try_from(missed)?,
            Err(broadcast::error::RecvError::Closed) => bail!("the gate is gone"),
        };
    }
    Ok(())
}

/// Resident memory for each of many holds beyond its frame.
async fn memory_each(effort: &Effort) -> anyhow::Result<Vec<Row>> {
    /// Before the measured ones: the record's caches and the queues reach their size.
    const WARM_UP_HOLDS: usize = 2000;

    let mut bench = Bench::open().await?;
    let mut news = bench.gate.watch();
    let mut used = Vec::new();
    for holds in [WARM_UP_HOLDS, effort.holds] {
        for batch in (0..holds).step_by(CALLERS) {
            let batch = batch..holds.min(batch + CALLERS);
            for _ in batch.clone() {
                let held = bench.next_call()?;
                let gate = Arc::clone(&bench.gate);
                tokio::spawn(async move { gate.hold(held).await });
            }
            // As many at once as there may be callers: what is only needed while a record is written is used again.
            all_held(&mut news, batch.len()).await?;
        }
        used.push(memory::of(std::process::id())?);
    }
    ensure!(bench.gate.holds_len() == WARM_UP_HOLDS + effort.holds, "not all calls wait");
    let each_kib = |before: u64, after: u64| {
        let each = (after as f64 - before as f64) / effort.holds as f64;
        Spread::of(vec![each - FRAME_BYTES as f64 / 1024.0])
    };
    let row = |name: String, figure, target| Row {
        name,
        values: Vec::new(),
        figure: Some((figure, " KiB")),
        target,
    };
    Ok(vec![
        row(
            format!("each of {} holds, beyond its frame", effort.holds),
            each_kib(used[0].resident, used[1].resident),
            Target::AtMost(1.5),
        ),
        row(
            "of that, heap and stacks".to_owned(),
            each_kib(used[0].anonymous, used[1].anonymous),
            Target::None,
        ),
    ])
}

/// Decisions a second with many callers at once: held on record, approved on record, released. And what the store alone
/// manages of the same two writes. Each round has a record of its own, but for those that are measured on a long one.
async fn throughput(effort: &Effort) -> anyhow::Result<Vec<Row>> {
    let mut rates = [Vec::new(), Vec::new(), Vec::new(), Vec::new()];
    for _ in 0..effort.rounds {
        let mut bench = Bench::open().await?;
        decide(&mut bench, effort.decisions / 4, false).await?;
        rates[0].push(decide(&mut bench, effort.decisions, false).await?);
        rates[1].push(decide(&mut bench, effort.decisions, true).await?);
        rates[2].push(store_alone(&mut bench, effort.decisions).await?);
    }
    let mut bench = Bench::open().await?;
    store_alone(&mut bench, effort.recorded).await?;
    for _ in 0..effort.rounds {
        rates[3].push(decide(&mut bench, effort.decisions, false).await?);
    }
    let [decided, answered, stored, on_long] = rates;
    let row = |name: String, rates, target| Row {
        name,
        values: Vec::new(),
        figure: Some((Spread::of(rates), "/s")),
        target,
    };
    Ok(vec![
        row(format!("decisions, {CALLERS} callers"), decided, Target::AtLeast(10_000.0)),
        row(format!("the same behind {} calls on record", effort.recorded), on_long, Target::None),
        row("the same with the answer on record".to_owned(), answered, Target::None),
        row("the two writes of a decision alone".to_owned(), stored, Target::None),
    ])
}

/// `decisions` calls by [`CALLERS`] callers, each approved as soon as it is announced; decisions a second.
async fn decide(bench: &mut Bench, decisions: usize, with_answer: bool) -> anyhow::Result<f64> {
    let mut news = bench.gate.watch();
    let approving = {
        let (gate, approver) = (Arc::clone(&bench.gate), Arc::new(bench.approver.clone()));
        tokio::spawn(async move {
            while let Ok(news) = news.recv().await {
                let News::Held(hold) = news else { continue };
                let (gate, approver) = (Arc::clone(&gate), Arc::clone(&approver));
                tokio::spawn(async move { gate.resolve(hold.id, Verdict::Approve, &approver, None).await });
            }
        })
    };
    let first_id = bench.next_id;
    bench.next_id += decisions as u64;
    let begin = Instant::now();
    let callers = (0..CALLERS).map(|caller| {
        let (gate, who) = (Arc::clone(&bench.gate), bench.caller.clone());
        tokio::spawn(async move {
            for call in (caller..decisions).step_by(CALLERS) {
                let held = screened(&gate, &who, first_id + call as u64)?;
                let id = held.id();
                let released = gate.hold(held).await;
                ensure!(matches!(released, Released::Resume(_)), "a call was not released: {released:?}");
                drop(released);
                if with_answer {
                    gate.answered(id).await;
                }
            }
            Ok(())
        })
    });
    let callers: Vec<_> = callers.collect();
    for caller in callers {
        tokio::time::timeout(HANG, caller).await.context("the decisions do not come to an end")???;
    }
    let elapsed = begin.elapsed();
    approving.abort();
    Ok(decisions as f64 / elapsed.as_secs_f64())
}

/// The same two writes, by as many callers, without a gate.
async fn store_alone(bench: &mut Bench, decisions: usize) -> anyhow::Result<f64> {
    let pattern = new_hold(bench).await?;
    let begin = Instant::now();
    let callers: Vec<_> = (0..CALLERS)
        .map(|caller| {
            let (store, pattern, vote) = (bench.store().clone(), pattern.clone(), vote(bench));
            tokio::spawn(async move {
                for _ in (caller..decisions).step_by(CALLERS) {
                    let hold = NewHold { id: random_id()?, ..pattern.clone() };
                    let id = hold.id;
                    store.record_hold(hold).await?;
                    store.end(id, State::Forwarding, vec![vote.clone()], None).await?;
                }
                anyhow::Ok(())
            })
        })
        .collect();
    for caller in callers {
        tokio::time::timeout(HANG, caller).await.context("the writes do not come to an end")???;
    }
    Ok(decisions as f64 / begin.elapsed().as_secs_f64())
}

/// What the gate records of a call, taken from one that it holds.
async fn new_hold(bench: &mut Bench) -> anyhow::Result<NewHold> {
    let mut news = bench.gate.watch();
    let held = bench.next_call()?;
    let gate = Arc::clone(&bench.gate);
    let holding = tokio::spawn(async move { gate.hold(held).await });
    let hold = held_news(&mut news).await?;
    bench.gate.resolve(hold.id, Verdict::Approve, &bench.approver, None).await?;
    holding.await?;
    Ok(NewHold::clone(&hold))
}

async fn held_news(news: &mut broadcast::Receiver<News>) -> anyhow::Result<Arc<NewHold>> {
    loop {
        let next = tokio::time::timeout(HANG, news.recv()).await.context("the call is not held")?;
        if let News::Held(hold) = next? {
            return Ok(hold);
        }
    }
}

fn vote(bench: &Bench) -> Vote {
    Vote::new(Verdict::Approve, bench.approver.to_string(), None, jiff::Timestamp::now())
}

fn random_id() -> anyhow::Result<HoldId> {
    let mut id = [0; 16];
    aws_lc_rs::rand::fill(&mut id).ok().context("the system gave no random number")?;
    Ok(HoldId(id))
}

/// From the verdict to the released call, one at a time, taking turns with the bare write of the same verdict.
async fn latency(effort: &Effort) -> anyhow::Result<Vec<Row>> {
    let mut bench = Bench::open().await?;
    let pattern = new_hold(&mut bench).await?;
    let mut news = bench.gate.watch();
    let (mut released, mut committed, mut beyond) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..effort.approvals {
        let held = bench.next_call()?;
        let gate = Arc::clone(&bench.gate);
        let holding = tokio::spawn(async move {
            let released = gate.hold(held).await;
            (released, Instant::now())
        });
        let hold = held_news(&mut news).await?;
        let begin = Instant::now();
        bench.gate.resolve(hold.id, Verdict::Approve, &bench.approver, None).await?;
        let (outcome, at) = holding.await?;
        ensure!(matches!(outcome, Released::Resume(_)), "an approved call was refused");
        let to_release = at.duration_since(begin).as_secs_f64() * 1e3;

        let bare = NewHold { id: random_id()?, ..pattern.clone() };
        let (id, vote) = (bare.id, vec![vote(&bench)]);
        bench.store().record_hold(bare).await?;
        let begin = Instant::now();
        bench.store().end(id, State::Forwarding, vote, None).await?;
        let to_commit = begin.elapsed().as_secs_f64() * 1e3;

        released.push(to_release);
        committed.push(to_commit);
        beyond.push(to_release - to_commit);
    }
    let row = |name: &str, times: Vec<f64>, target| Row {
        name: name.to_owned(),
        values: Vec::new(),
        figure: Some((Spread::of(times), " ms")),
        target,
    };
    Ok(vec![
        row("approval to released call, gate", released, Target::None),
        row("the bare write of an approval", committed, Target::None),
        row("the difference, pair by pair", beyond, Target::AtMost(1.0)),
    ])
}
