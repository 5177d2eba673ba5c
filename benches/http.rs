//! What `holdshort serve` costs in front of an HTTP server, as ratios to nginx, all in one run.
//!
//! `cargo bench --bench http`; `benches/README.md` says what each figure means. The same executable is the driver, the
//! server and the approver. It measures and compares; it fails only if it could not measure.

mod support {
    pub(crate) mod http_load;
    pub(crate) mod http_server;
    pub(crate) mod http_ways;
    pub(crate) mod memory;
    #[allow(dead_code, reason = "the stdio bench needs more of it")]
    pub(crate) mod process;
    #[allow(dead_code, reason = "the stdio bench needs more of it")]
    pub(crate) mod sandbox;
    pub(crate) mod stats;
    pub(crate) mod watchdog;
    #[allow(dead_code, reason = "the stdio bench needs more of it")]
    pub(crate) mod wire;
}

use std::{
    ffi::OsString,
    process::ExitCode,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use support::{
    http_load::{self, Run, Streams, Waiting},
    http_server::{self, STREAM_TOOL},
    http_ways::{self, Abreast, Bench, WAYS, Way, approve_all},
    memory, process,
    sandbox::{ALLOW_ALL, HOLD_ALL, Sandbox},
    stats::{self, Row, Spread, Target},
    watchdog::{self, complain},
    wire::Shape,
};
use tokio::runtime::Runtime;

/// How much is measured.
struct Effort {
    /// Rounds; in each, every way has its turn.
    rounds: usize,
    /// Small calls in a round of one way.
    calls: usize,
    /// Large calls in a round of one way.
    large_calls: usize,
    /// Long streams in a round of one way.
    streams: usize,
    /// Starts of each way.
    starts: usize,
    /// Calls held at once, each on a connection of its own.
    http1_holds: usize,
    /// Calls held at once, on streams.
    http2_holds: usize,
    /// How long they then wait, while nothing but the keepalive happens.
    waits: Duration,
}

const FULL: Effort = Effort {
    rounds: 15,
    calls: 100_000,
    large_calls: 300,
    streams: 4,
    starts: 30,
    http1_holds: 9_500,
    http2_holds: 100_000,
    waits: Duration::from_secs(30),
};
const QUICK: Effort = Effort {
    rounds: 3,
    calls: 20_000,
    large_calls: 50,
    streams: 1,
    starts: 5,
    http1_holds: 1_000,
    http2_holds: 2_000,
    waits: Duration::from_secs(12),
};

/// Held calls that are on their way to the record at once.
const BATCH: usize = 200;

/// Calls at the same time when their bodies are large.
const LARGE_IN_FLIGHT: usize = 4;

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let done = match arguments.first().and_then(|role| role.to_str()) {
        Some("role:server") => http_server::serve(),
        Some("role:approver") => approve_all(),
        _ => drive(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&format!("the measurement failed: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stdout, reason = "the table is what a bench is for")]
fn show(text: &str) {
    println!("{text}");
}

fn drive(arguments: &[OsString]) -> anyhow::Result<()> {
    let mut effort = FULL;
    let (mut calls, mut holds) = (true, true);
    for argument in arguments {
        match argument.to_str() {
            Some("--quick") => effort = QUICK,
            Some("--calls") => holds = false,
            Some("--holds") => calls = false,
            // What `cargo bench` says to every bench.
            Some("--bench") => {}
            _ => bail!("unknown argument {argument:?}; there are --quick, --calls and --holds"),
        }
    }
    // A connection is a file; whoever is started here inherits the limit.
    let files = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: files.maximum, maximum: files.maximum })?;
    watchdog::watch(http_ways::kill_all);
    let begin = Instant::now();
    let bench = Bench::new()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut rows = Vec::new();
    if calls {
        for in_flight in [1, 16, 64] {
            rows.extend(small(&bench, &runtime, &effort, in_flight)?);
        }
        for (shape, name) in [(Shape::LargeCall, "call"), (Shape::LargeAnswer, "answer")] {
            rows.extend(large(&bench, &runtime, &effort, shape, name)?);
        }
        rows.extend(streams(&bench, &runtime, &effort)?);
        rows.extend(starts(&bench, &effort)?);
        rows.extend(idle(&bench, &runtime)?);
    }
    if holds {
        rows.extend(held(&bench, &runtime, &effort, Streams::Http1)?);
        rows.extend(held(&bench, &runtime, &effort, Streams::Http2)?);
    }
    show(&stats::table(&["direct", "nginx", "holdshort"], &rows));
    show(&format!("measured in {:.0} s", begin.elapsed().as_secs_f64()));
    Ok(())
}

/// Small calls: how many a second, and how long one takes.
fn small(bench: &Bench, runtime: &Runtime, effort: &Effort, in_flight: usize) -> anyhow::Result<Vec<Row>> {
    let request = http_load::request(1, Shape::Small);
    // With one in flight a round takes as long as its calls one after another.
    let calls = if in_flight == 1 { effort.calls / 8 } else { effort.calls };
    let (runs, used) = rounds(bench, runtime, effort, &request, in_flight, calls)?;
    let throughput =
        runs.iter().map(|round| round.each_ref().map(|run| calls as f64 / run.seconds)).collect();
    let p50 =
        runs.iter().map(|round| round.each_ref().map(|run| stats::quantile(&run.times_us, 0.5))).collect();
    let p99 =
        runs.iter().map(|round| round.each_ref().map(|run| stats::quantile(&run.times_us, 0.99))).collect();
    let (fast, soon) = if in_flight == 1 {
        (Target::None, Target::None)
    } else {
        (Target::AtLeast(0.9), Target::AtMost(1.15))
    };
    Ok(vec![
        ratio(format!("200 B, {in_flight} in flight"), throughput, "/s", fast),
        ratio(format!("200 B, {in_flight} in flight, p50"), p50, "µs", soon),
        ratio(format!("200 B, {in_flight} in flight, p99"), p99, "µs", Target::None),
        used_for(format!("200 B, {in_flight} in flight, processor for one"), used, calls),
    ])
}

/// Large calls, or large answers.
fn large(
    bench: &Bench,
    runtime: &Runtime,
    effort: &Effort,
    shape: Shape,
    name: &str,
) -> anyhow::Result<[Row; 2]> {
    let request = http_load::request(1, shape);
    let (runs, used) = rounds(bench, runtime, effort, &request, LARGE_IN_FLIGHT, effort.large_calls)?;
    let calls = runs.iter().map(|round| round.each_ref().map(|run| effort.large_calls as f64 / run.seconds));
    let name = format!("1 MiB {name}, {LARGE_IN_FLIGHT} in flight");
    Ok([
        ratio(name.clone(), calls.collect(), "/s", Target::AtLeast(0.8)),
        used_for(format!("{name}, processor for one"), used, effort.large_calls),
    ])
}

/// Long streams of events: how fast they pass, and what memory they leave behind.
fn streams(bench: &Bench, runtime: &Runtime, effort: &Effort) -> anyhow::Result<Vec<Row>> {
    let request = http_load::stream_request(STREAM_TOOL);
    let mut abreast = Abreast::open(bench)?;
    let one = |port| runtime.block_on(http_load::run(port, &request, 1, effort.streams));
    abreast.round(|_, port| one(port))?;
    let before = abreast.memory()?;
    let mut rounds = Vec::new();
    for _ in 0..effort.rounds {
        rounds.push(abreast.round(|_, port| {
            let run = one(port)?;
            Ok(run.body_bytes as f64 / run.seconds / f64::from(1 << 20))
        })?);
    }
    let after = abreast.memory()?;
    abreast.close()?;
    let grown = (after[2].resident as f64 - before[2].resident as f64) / 1024.0;
    let mib = |way: usize| format!("{:.1} MiB", after[way].resident as f64 / 1024.0);
    Ok(vec![
        ratio("stream of events".to_owned(), rounds, " MiB/s", Target::AtLeast(0.8)),
        Row {
            name: "resident after them, and its growth".to_owned(),
            values: vec![String::new(), mib(1), mib(2)],
            figure: Some((exactly(grown), " MiB")),
            target: Target::AtMost(2.0),
        },
    ])
}

/// How much processor time the process in the middle uses for one call. It is the steadier figure on a machine that is shared.
fn used_for(name: String, seconds: Vec<[f64; 3]>, calls: usize) -> Row {
    let each = seconds.iter().map(|round| round.map(|seconds| seconds / calls as f64 * 1e6));
    ratio(name, each.collect(), "µs", Target::None)
}

/// Calls of all rounds, and the processor time of each way in each.
type Rounds = (Vec<[Run; 3]>, Vec<[f64; 3]>);

/// `rounds` of `calls` calls of each way.
fn rounds(
    bench: &Bench,
    runtime: &Runtime,
    effort: &Effort,
    request: &[u8],
    in_flight: usize,
    calls: usize,
) -> anyhow::Result<Rounds> {
    let mut abreast = Abreast::open(bench)?;
    let measure = |port, calls| runtime.block_on(http_load::run(port, request, in_flight, calls));
    abreast.round(|_, port| measure(port, calls / 10 + 1))?;
    let (mut runs, mut used) = (Vec::new(), Vec::new());
    for _ in 0..effort.rounds {
        runs.push(abreast.round(|_, port| measure(port, calls))?);
        used.push(abreast.cpu_seconds);
    }
    abreast.close()?;
    Ok((runs, used))
}

/// A row of one value a way and the ratio of `holdshort` to nginx in each round.
fn ratio(name: String, rounds: Vec<[f64; 3]>, unit: &str, target: Target) -> Row {
    let median = |way: usize| Spread::of(rounds.iter().map(|round| round[way]).collect()).median;
    let values = (0..3).map(|way| format!("{:.0}{unit}", median(way))).collect();
    let figure = Spread::of(rounds.iter().map(|round| round[2] / round[1]).collect());
    Row { name, values, figure: Some((figure, "×")), target }
}

fn exactly(value: f64) -> Spread {
    Spread { low: value, median: value, high: value }
}

/// From the start of the process until it has said where it listens: where it has run before, and where it has to make its record.
fn starts(bench: &Bench, effort: &Effort) -> anyhow::Result<[Row; 2]> {
    let server = bench.server()?;
    let usual = Arc::new(Sandbox::new(ALLOW_ALL)?);
    let (mut again, mut first) = (Vec::new(), Vec::new());
    for start in 0..=effort.starts {
        let fresh = Arc::new(Sandbox::new(ALLOW_ALL)?);
        for (place, times) in [(&usual, &mut again), (&fresh, &mut first)] {
            let proxy = bench.holdshort_in(Arc::clone(place), &server)?;
            // The first one reads the program from the disk.
            if start > 0 {
                times.push(proxy.listened_ms);
            }
            proxy.stop()?;
        }
    }
    server.stop()?;
    let row = |name: &str, times, target| Row {
        name: name.to_owned(),
        values: Vec::new(),
        figure: Some((Spread::of(times), " ms")),
        target,
    };
    Ok([
        row("start until it listens", again, Target::AtMost(10.0)),
        row("the first of a user", first, Target::None),
    ])
}

/// Resident memory a second after one call.
fn idle(bench: &Bench, runtime: &Runtime) -> anyhow::Result<Vec<Row>> {
    let mut abreast = Abreast::open(bench)?;
    let request = http_load::request(1, Shape::Small);
    abreast.round(|_, port| runtime.block_on(http_load::run(port, &request, 1, 1)).map(drop))?;
    thread::sleep(Duration::from_secs(1));
    let used = abreast.memory()?;
    abreast.close()?;
    let mib = |kib: u64| kib as f64 / 1024.0;
    let row = |name: &str, kib: [u64; 3], target| Row {
        name: name.to_owned(),
        values: WAYS
            .iter()
            .zip(kib)
            .map(
                |(&way, kib)| if way == Way::Direct { String::new() } else { format!("{:.1} MiB", mib(kib)) },
            )
            .collect(),
        figure: Some((exactly(mib(kib[2])), " MiB")),
        target,
    };
    Ok(vec![
        row("resident when idle", used.map(|used| used.resident), Target::AtMost(15.0)),
        row("of that, its own (not mapped files)", used.map(|used| used.anonymous), Target::None),
    ])
}

/// Many calls held at once: memory for each, the work of waiting, and the time to approve them all.
fn held(bench: &Bench, runtime: &Runtime, effort: &Effort, streams: Streams) -> anyhow::Result<Vec<Row>> {
    let (calls, name) = match streams {
        Streams::Http1 => (effort.http1_holds, "HTTP/1.1"),
        Streams::Http2 => (effort.http2_holds, "HTTP/2"),
    };
    let server = bench.server()?;
    let proxy = bench.holdshort(&server, HOLD_ALL)?;
    let mut waiting = Waiting::default();
    let mut begun = 0;
    let mut begin_until = |waiting: &mut Waiting, all: usize| -> anyhow::Result<()> {
        while begun < all {
            let batch = BATCH.min(all - begun);
            runtime.block_on(waiting.begin(proxy.port, streams, batch))?;
            begun += batch;
            proxy.until_recorded(runtime, begun)?;
        }
        Ok(())
    };
    // The record's caches and the queues reach their size.
    let few = calls / 20;
    begin_until(&mut waiting, few)?;
    let before = memory::of(proxy.pid())?;
    begin_until(&mut waiting, calls)?;
    let after = memory::of(proxy.pid())?;
    let each = (after.resident as f64 - before.resident as f64) / (calls - few) as f64;

    let cpu = process::cpu_seconds(proxy.pid())?;
    runtime.block_on(async { tokio::time::sleep(effort.waits).await });
    let busy = (process::cpu_seconds(proxy.pid())? - cpu) / effort.waits.as_secs_f64() * 100.0;

    let begin = Instant::now();
    let mut approver = bench.approver(&proxy)?;
    runtime.block_on(waiting.answered())?;
    let seconds = begin.elapsed().as_secs_f64();
    anyhow::ensure!(approver.wait().context("the approver")?.success(), "{}", proxy.said());
    proxy.stop()?;
    server.stop()?;
    let row = |name: String, value: f64, unit, target| Row {
        name,
        values: Vec::new(),
        figure: Some((exactly(value), unit)),
        target,
    };
    Ok(vec![
        row(format!("each of {calls} holds over {name}"), each, " KiB", Target::None),
        row("processor while they wait".to_owned(), busy, " %", Target::None),
        row("approved, sent and answered, all".to_owned(), seconds, " s", Target::AtMost(30.0)),
    ])
}
