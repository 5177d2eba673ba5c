//! What `holdshort run` costs in front of a stdio server, as ratios to a plain relay, all in one run.
//!
//! `cargo bench --bench stdio`; `benches/README.md` says what each figure means. The same executable is the driver, the
//! relay and the server (`support/roles.rs`). It measures and compares; it fails only if it could not measure.

mod support {
    pub(crate) mod memory;
    pub(crate) mod process;
    pub(crate) mod roles;
    pub(crate) mod sandbox;
    pub(crate) mod session;
    pub(crate) mod stats;
    pub(crate) mod watchdog;
    pub(crate) mod wire;
}

use std::{
    ffi::OsString,
    io::{BufRead as _, BufReader, Write as _},
    path::PathBuf,
    process::ExitCode,
    sync::atomic::Ordering,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use support::{
    memory,
    process::{Cores, Pinned},
    roles::{self, Writes},
    sandbox::{ALLOW_ALL, HOLD_ALL, Sandbox},
    session::{Bench, Session, WAYS, Way},
    stats::{self, Row, Spread, Target},
    watchdog::{self, ANSWERS, HANG_SECONDS, complain},
    wire::{self, Shape},
};

/// How much is measured.
struct Effort {
    /// How often all processes are started anew: placement in memory differs from start to start.
    sessions: usize,
    /// Rounds in a session; in each, every way has its turn.
    rounds: usize,
    /// Small calls in a round of one way.
    calls: usize,
    /// Large calls in a round of one way.
    large_calls: usize,
    /// Calls in a round of one way with many in flight.
    flight_calls: u64,
    /// Starts of each way.
    starts: usize,
    /// Calls held at once, in one session.
    holds: usize,
    /// Calls that are held and approved one by one.
    approvals: usize,
}

const FULL: Effort = Effort {
    sessions: 10,
    rounds: 10,
    calls: 1000,
    large_calls: 20,
    flight_calls: 50_000,
    starts: 40,
    holds: 50_000,
    approvals: 500,
};
const QUICK: Effort = Effort {
    sessions: 3,
    rounds: 5,
    calls: 500,
    large_calls: 5,
    flight_calls: 10_000,
    starts: 8,
    holds: 10_000,
    approvals: 50,
};

/// Calls before the first measured one: caches, branch predictors and the allocator settle.
const WARM_UP_CALLS: usize = 500;

/// Calls that are under way at once in the throughput measurement.
const IN_FLIGHT: u64 = 64;

fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let role = arguments.first().map(|role| role.to_string_lossy().into_owned());
    let done = match role.as_deref() {
        Some("role:relay") => roles::relay(&arguments[1..]),
        Some("role:approver") => roles::approver(),
        Some("role:server") => {
            let one_by_one = arguments.get(1).is_some_and(|word| word == Writes::OneByOne.word());
            roles::server(if one_by_one { Writes::OneByOne } else { Writes::Batched })
        }
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
    let mut bench = Bench {
        bench: std::env::current_exe()?,
        holdshort: std::env::var_os("HOLDSHORT_BENCH_BINARY")
            .map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_holdshort")), PathBuf::from),
        control: false,
    };
    for argument in arguments {
        match argument.to_str() {
            Some("--quick") => effort = QUICK,
            Some("--control") => bench.control = true,
            // What `cargo bench` says to every bench.
            Some("--bench") => {}
            _ => bail!("unknown argument {argument:?}; there are --quick and --control"),
        }
    }
    watchdog::watch(|| ());
    let begin = Instant::now();
    let mut rows = Vec::new();
    for cores in [Cores::Free, Cores::One, Cores::Apart] {
        rows.extend(round_trips(&bench, &effort, cores)?);
    }
    for cores in [Cores::Free, Cores::One, Cores::Apart] {
        for shape in [Shape::LargeCall, Shape::LargeAnswer, Shape::LargeImage] {
            rows.push(large(&bench, &effort, shape, cores)?);
        }
        for writes in [Writes::Batched, Writes::OneByOne] {
            rows.push(throughput(&bench, &effort, writes, cores)?);
        }
    }
    rows.extend(starts(&bench, &effort)?);
    rows.extend(idle(&bench)?);
    if !bench.control {
        rows.push(held_memory(&bench, &effort)?);
        rows.push(approval(&bench, &effort)?);
    }
    let columns = ["direct", "relay", if bench.control { "relay again" } else { "holdshort" }];
    show(&stats::table(&columns, &rows));
    show(&format!("measured in {:.0} s", begin.elapsed().as_secs_f64()));
    Ok(())
}

/// Three sessions side by side, one a way, so that rounds can take turns.
struct Abreast {
    sessions: Vec<Session>,
    sandbox: Sandbox,
    turn: usize,
    _pinned: Pinned,
}

impl Abreast {
    fn open(bench: &Bench, writes: Writes, cores: Cores) -> anyhow::Result<Self> {
        let pinned = Pinned::driver(cores)?;
        let sandbox = Sandbox::new(ALLOW_ALL)?;
        let mut sessions = Vec::new();
        for way in WAYS {
            let session = bench.open(way, writes, &sandbox).with_context(|| sandbox.said())?;
            if cores == Cores::Apart && way != Way::Direct {
                pinned.move_away(session.pid())?;
            }
            sessions.push(session);
        }
        Ok(Self { sessions, sandbox, turn: 0, _pinned: pinned })
    }

    /// One round: every way once, another one first each time, so that neither drift nor order favours any.
    fn round<T: Default + Copy>(
        &mut self,
        mut measure: impl FnMut(&mut Session) -> anyhow::Result<T>,
    ) -> anyhow::Result<[T; 3]> {
        let mut values = [T::default(); 3];
        for step in 0..3 {
            let way = (self.turn + step) % 3;
            values[way] = measure(&mut self.sessions[way])
                .with_context(|| format!("{:?}; standard error: {}", WAYS[way], self.sandbox.said()))?;
        }
        self.turn += 1;
        Ok(values)
    }

    fn close(self) -> anyhow::Result<()> {
        for session in self.sessions {
            session.close()?;
        }
        Ok(())
    }
}

/// What one way gave in one round of small calls.
#[derive(Clone, Copy, Default)]
struct Trips {
    p50: f64,
    p99: f64,
}

fn round_trips(bench: &Bench, effort: &Effort, cores: Cores) -> anyhow::Result<Vec<Row>> {
    let mut rounds = Vec::new();
    let mut cpu = [0.0; 3];
    for _ in 0..effort.sessions {
        let mut abreast = Abreast::open(bench, Writes::Batched, cores)?;
        abreast.round(|session| (0..WARM_UP_CALLS).try_for_each(|_| session.call(Shape::Small).map(drop)))?;
        let before = abreast.round(|session| session.cpu_seconds())?;
        for _ in 0..effort.rounds {
            rounds.push(abreast.round(|session| {
                let times: Result<Vec<f64>, _> =
                    (0..effort.calls).map(|_| session.call(Shape::Small)).collect();
                let times = stats::sorted(times?);
                Ok(Trips { p50: stats::quantile(&times, 0.5), p99: stats::quantile(&times, 0.99) })
            })?);
        }
        let after = abreast.round(|session| session.cpu_seconds())?;
        for way in 0..3 {
            cpu[way] += after[way] - before[way];
        }
        abreast.close()?;
    }
    // On one core the tail is the scheduler's: the target there is for the middle.
    let (p50_most, p99_target) =
        if cores == Cores::One { (1.3, Target::None) } else { (1.15, Target::AtMost(1.3)) };
    let note = note(cores);
    let per_ten_thousand = 10_000.0 / (effort.sessions * effort.rounds * effort.calls) as f64;
    let cpu = cpu.map(|seconds| seconds * per_ten_thousand);
    let p50 = rounds.iter().map(|round| round.map(|trips| trips.p50)).collect();
    let p99 = rounds.iter().map(|round| round.map(|trips| trips.p99)).collect();
    Ok(vec![
        ratio(format!("200 B round trip, p50{note}"), p50, "µs", Target::AtMost(p50_most)),
        ratio(format!("200 B round trip, p99{note}"), p99, "µs", p99_target),
        ratio(format!("CPU for 10,000 calls{note}"), vec![cpu], "s", Target::None),
    ])
}

/// What the name of a row says of where the processes ran.
fn note(cores: Cores) -> &'static str {
    match cores {
        Cores::Free => "",
        Cores::One => ", one core",
        Cores::Apart => ", apart",
    }
}

fn large(bench: &Bench, effort: &Effort, shape: Shape, cores: Cores) -> anyhow::Result<Row> {
    let mut rounds = Vec::new();
    for _ in 0..effort.sessions {
        let mut abreast = Abreast::open(bench, Writes::Batched, cores)?;
        abreast.round(|session| (0..effort.large_calls).try_for_each(|_| session.call(shape).map(drop)))?;
        for _ in 0..effort.rounds {
            rounds.push(abreast.round(|session| {
                let times: Result<Vec<f64>, _> =
                    (0..effort.large_calls).map(|_| session.call(shape)).collect();
                Ok(Spread::of(times?).median)
            })?);
        }
        abreast.close()?;
    }
    // Confined to one core, nothing overlaps: shown as the price of the work alone.
    let target = if cores == Cores::One { Target::None } else { Target::AtMost(1.5) };
    let name = match shape {
        Shape::LargeAnswer => "answer",
        Shape::LargeImage => "image call",
        _ => "call",
    };
    Ok(ratio(format!("1 MiB {name}, p50{}", note(cores)), rounds, "µs", target))
}

fn throughput(bench: &Bench, effort: &Effort, writes: Writes, cores: Cores) -> anyhow::Result<Row> {
    let mut rounds = Vec::new();
    for _ in 0..effort.sessions {
        let mut abreast = Abreast::open(bench, writes, cores)?;
        abreast.round(|session| session.throughput(effort.flight_calls / 4, IN_FLIGHT, writes))?;
        for _ in 0..effort.rounds {
            rounds.push(abreast.round(|session| session.throughput(effort.flight_calls, IN_FLIGHT, writes))?);
        }
        abreast.close()?;
    }
    let target = if cores == Cores::One { Target::None } else { Target::AtLeast(0.6) };
    let name = if writes == Writes::Batched { "batched writes" } else { "a write each" };
    Ok(ratio(format!("{IN_FLIGHT} in flight, {name}{}", note(cores)), rounds, "/s", target))
}

/// A row of one value a way and the ratio of `holdshort` to the relay in each round.
fn ratio(name: String, rounds: Vec<[f64; 3]>, unit: &str, target: Target) -> Row {
    let values = (0..3)
        .map(|way| format_value(Spread::of(rounds.iter().map(|round| round[way]).collect()).median, unit))
        .collect();
    let figure = Spread::of(rounds.iter().map(|round| round[2] / round[1]).collect());
    Row { name, values, figure: Some((figure, "×")), target }
}

fn format_value(value: f64, unit: &str) -> String {
    match unit {
        "s" => format!("{value:.3} {unit}"),
        "/s" => format!("{value:.0}{unit}"),
        "ms" => format!("{value:.2} {unit}"),
        _ => format!("{value:.1} {unit}"),
    }
}

/// From the start of the process to the first byte at the server, with the state of earlier sessions and without any.
fn starts(bench: &Bench, effort: &Effort) -> anyhow::Result<Vec<Row>> {
    let mut fresh = Vec::new();
    let mut again = Vec::new();
    let kept = Sandbox::new(ALLOW_ALL)?;
    for start in 0..=effort.starts {
        let mut first = [0.0; 3];
        let mut later = [0.0; 3];
        for step in 0..3 {
            let way = (start + step) % 3;
            let empty = Sandbox::new(ALLOW_ALL)?;
            for (sandbox, times) in [(&empty, &mut first), (&kept, &mut later)] {
                let session =
                    bench.open(WAYS[way], Writes::Batched, sandbox).with_context(|| sandbox.said())?;
                times[way] = session.first_byte_ms;
                session.close()?;
            }
        }
        // The first start reads programs from the disk, and finds the kept state still empty.
        if start > 0 {
            fresh.push(first);
            again.push(later);
        }
    }
    let row = |name: &str, rounds: Vec<[f64; 3]>| {
        let values = (0..3)
            .map(|way| format_value(Spread::of(rounds.iter().map(|round| round[way]).collect()).median, "ms"))
            .collect();
        let figure = Spread::of(rounds.iter().map(|round| round[2]).collect());
        Row { name: name.to_owned(), values, figure: Some((figure, " ms")), target: Target::AtMost(10.0) }
    };
    Ok(vec![row("start to first byte at the server", again), row("the same, first start of a user", fresh)])
}

/// Resident memory a second after the handshake and one call.
fn idle(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    let mut abreast = Abreast::open(bench, Writes::Batched, Cores::Free)?;
    abreast.round(|session| session.call(Shape::Small))?;
    thread::sleep(Duration::from_secs(1));
    let used = abreast.round(|session| memory::of(session.pid()))?;
    let gate = abreast.sessions.pop().context("no session")?;
    let helpers: Vec<_> = gate.helpers()?.into_iter().map(memory::of).collect::<Result<_, _>>()?;
    gate.close()?;
    abreast.close()?;
    let mib = |kib: u64| format!("{:.1} MiB", kib as f64 / 1024.0);
    let exactly = |kib: u64| {
        let mib = kib as f64 / 1024.0;
        Spread { low: mib, median: mib, high: mib }
    };
    let mut rows = vec![
        Row {
            name: "resident when idle".to_owned(),
            values: used.iter().map(|memory| mib(memory.resident)).collect(),
            figure: Some((exactly(used[2].resident), " MiB")),
            target: Target::AtMost(12.0),
        },
        Row {
            name: "of that, its own (not mapped files)".to_owned(),
            values: used.iter().map(|memory| mib(memory.anonymous)).collect(),
            figure: None,
            target: Target::None,
        },
    ];
    for helper in helpers {
        rows.push(Row {
            name: "its helper process".to_owned(),
            values: vec![String::new(), String::new(), mib(helper.resident)],
            figure: None,
            target: Target::None,
        });
    }
    Ok(rows)
}

/// Resident memory of `holdshort run` for each call that waits, beyond its frame.
fn held_memory(bench: &Bench, effort: &Effort) -> anyhow::Result<Row> {
    /// Before the measured ones: the record's caches and the queues reach their size.
    const WARM_UP_HOLDS: usize = 2000;
    /// As many as may be on their way to the record at once.
    const BATCH: usize = 250;

    let sandbox = Sandbox::new(HOLD_ALL)?;
    let mut session = bench.open(Way::Gate, Writes::Batched, &sandbox).with_context(|| sandbox.said())?;
    let mut used = Vec::new();
    let mut sent = 0;
    for holds in [WARM_UP_HOLDS, effort.holds] {
        for _ in 0..holds / BATCH {
            for _ in 0..BATCH {
                session.send(Shape::Small)?;
            }
            sent += BATCH;
            recorded(&sandbox, sent).with_context(|| sandbox.said())?;
        }
        used.push(memory::of(session.pid())?.resident);
    }
    session.close()?;
    let each =
        (used[1] as f64 - used[0] as f64) / effort.holds as f64 - wire::SMALL_FRAME_BYTES as f64 / 1024.0;
    Ok(Row {
        name: format!("each of {} holds, beyond its frame", effort.holds),
        values: vec![String::new(), String::new(), format!("{:.1} MiB", used[1] as f64 / 1024.0)],
        figure: Some((Spread::of(vec![each]), " KiB")),
        target: Target::AtMost(1.5),
    })
}

/// Waits until `count` calls are on record.
fn recorded(sandbox: &Sandbox, count: usize) -> anyhow::Result<()> {
    let deadline = Instant::now() + Duration::from_secs(HANG_SECONDS);
    let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
    loop {
        // Until the first call is on record there may be no file, or no table in it.
        let held = rusqlite::Connection::open_with_flags(sandbox.record(), flags)
            .and_then(|record| record.query_row("SELECT count(*) FROM holds", [], |row| row.get::<_, i64>(0)))
            .unwrap_or(0);
        if usize::try_from(held)? >= count {
            ANSWERS.fetch_add(1, Ordering::Relaxed);
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "{held} of {count} calls are on record");
        thread::sleep(Duration::from_millis(1));
    }
}

/// From a person's word, spoken over the control socket, to the first byte of the call at the server.
fn approval(bench: &Bench, effort: &Effort) -> anyhow::Result<Row> {
    let sandbox = Sandbox::new(HOLD_ALL)?;
    let mut session = bench.open(Way::Gate, Writes::Batched, &sandbox).with_context(|| sandbox.said())?;
    let mut approver = bench.helper("role:approver", &sandbox)?;
    let mut ask = approver.stdin.take().context("no stdin")?;
    let mut said = BufReader::new(approver.stdout.take().context("no stdout")?);
    let mut times = Vec::new();
    for round in 0..=effort.approvals {
        session.send(Shape::Clock)?;
        ask.write_all(b"\n")?;
        let came_ns = session.came_at().with_context(|| sandbox.said())?;
        let mut line = String::new();
        said.read_line(&mut line)?;
        let said_ns: u64 = line.trim().parse().with_context(|| sandbox.said())?;
        if round > 0 {
            times.push(came_ns.saturating_sub(said_ns) as f64 / 1e6);
        }
    }
    drop(ask);
    approver.wait()?;
    session.close()?;
    Ok(Row {
        name: "approval to first byte at the server".to_owned(),
        values: Vec::new(),
        figure: Some((Spread::of(times), " ms")),
        target: Target::None,
    })
}
