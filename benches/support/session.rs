//! One session of the driver with a server: directly, through the relay, or through `holdshort run`.
//!
//! Used by `stdio.rs`. The driver is a plain blocking client, so what it costs is small and the same for every way.

use std::{
    ffi::OsString,
    io::{self, Read as _, Write as _},
    path::PathBuf,
    process::{Child, ChildStdin, ChildStdout, Command},
    sync::atomic::Ordering,
    time::Instant,
};

use anyhow::{Context as _, ensure};
use memchr::memchr_iter;

use super::{
    process,
    roles::Writes,
    sandbox::Sandbox,
    watchdog::ANSWERS,
    wire::{self, Shape},
};

/// What stands between the driver and the server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Way {
    Direct,
    Relay,
    /// `holdshort run`; with `--control`, a second relay.
    Gate,
}

/// All three, in the order of the table's columns.
pub(crate) const WAYS: [Way; 3] = [Way::Direct, Way::Relay, Way::Gate];

/// What is measured, and where its files go.
pub(crate) struct Bench {
    /// This program, which is the server and the relay as well.
    pub(crate) bench: PathBuf,
    /// The `holdshort` under test.
    pub(crate) holdshort: PathBuf,
    /// Measures a second relay in the place of `holdshort`: what the bench says of two equal programs.
    pub(crate) control: bool,
}

/// A running way to the server.
pub(crate) struct Session {
    child: Child,
    input: ChildStdin,
    output: ChildStdout,
    /// Where answers are read; zeroed once, because clearing it for every read would outweigh a small call.
    buffer: Vec<u8>,
    /// How much of `buffer` has been read.
    filled: usize,
    next_id: u64,
    frame: Vec<u8>,
    expected: Vec<u8>,
    /// From the start of the first process to the first byte that reached the server, in milliseconds.
    pub(crate) first_byte_ms: f64,
}

impl Bench {
    /// Starts `way` and shakes hands with the server.
    pub(crate) fn open(&self, way: Way, writes: Writes, sandbox: &Sandbox) -> anyhow::Result<Session> {
        let mut command = self.command(way, writes, sandbox)?;
        let started_ns = process::now_ns();
        let mut child = command.spawn().with_context(|| format!("cannot start {command:?}"))?;
        let mut input = child.stdin.take().context("no stdin")?;
        let output = child.stdout.take().context("no stdout")?;
        input.write_all(wire::INITIALIZE)?;
        let mut session = Session {
            child,
            input,
            output,
            buffer: vec![0; 2 * wire::LARGE_FRAME_BYTES],
            filled: 0,
            next_id: 1,
            frame: Vec::new(),
            expected: Vec::new(),
            first_byte_ms: f64::NAN,
        };
        session.read_line().with_context(|| format!("no answer to `initialize` ({way:?})"))?;
        let answer = String::from_utf8_lossy(session.received()).into_owned();
        let first_byte_ns: u64 = answer
            .split_once(wire::FIRST_BYTE_AT)
            .and_then(|(_, rest)| rest.split_once('"')?.0.parse().ok())
            .with_context(|| format!("an odd answer to `initialize` ({way:?}): {answer}"))?;
        session.first_byte_ms = first_byte_ns.saturating_sub(started_ns) as f64 / 1e6;
        session.input.write_all(wire::INITIALIZED)?;
        Ok(session)
    }

    /// Starts this program as `role`, among the files of `sandbox`.
    pub(crate) fn helper(&self, role: &str, sandbox: &Sandbox) -> anyhow::Result<Child> {
        let mut command = Command::new(&self.bench);
        command.arg(role);
        sandbox.confine(&mut command)?;
        command.spawn().with_context(|| format!("cannot start {command:?}"))
    }

    fn command(&self, way: Way, writes: Writes, sandbox: &Sandbox) -> anyhow::Result<Command> {
        let server: [OsString; 3] = [self.bench.clone().into(), "role:server".into(), writes.word().into()];
        let mut command = match way {
            Way::Direct => {
                let mut command = Command::new(&self.bench);
                command.args(&server[1..]);
                command
            }
            Way::Gate if !self.control => {
                let mut command = Command::new(&self.holdshort);
                command.arg("run").arg("--policy").arg(sandbox.policy());
                command.arg("--store").arg(sandbox.record());
                // The driver is the client, and has started the approver.
                command.args(["--danger-client-decides", "--server", "bench", "--"]).args(&server);
                command
            }
            Way::Relay | Way::Gate => {
                let mut command = Command::new(&self.bench);
                command.arg("role:relay").args(&server);
                command
            }
        };
        sandbox.confine(&mut command)?;
        Ok(command)
    }
}

impl Session {
    /// One call and its answer; the time between, in microseconds.
    pub(crate) fn call(&mut self, shape: Shape) -> anyhow::Result<f64> {
        let id = self.next_id;
        self.next_id += 1;
        wire::write_call(&mut self.frame, id, shape);
        let begin = Instant::now();
        self.input.write_all(&self.frame)?;
        self.read_line()?;
        let elapsed = begin.elapsed();
        wire::write_answer_start(&mut self.expected, id);
        ensure!(self.received().starts_with(&self.expected), "another answer than that to call {id}");
        Ok(elapsed.as_secs_f64() * 1e6)
    }

    /// Sends a call that nobody answers yet.
    pub(crate) fn send(&mut self, shape: Shape) -> anyhow::Result<()> {
        wire::write_call(&mut self.frame, self.next_id, shape);
        self.next_id += 1;
        Ok(self.input.write_all(&self.frame)?)
    }

    /// The answer to the one call under way, of [`Shape::Clock`]: when it came to the server, in nanoseconds.
    pub(crate) fn came_at(&mut self) -> anyhow::Result<u64> {
        self.read_line()?;
        let answer = String::from_utf8_lossy(self.received());
        let time =
            answer.split_once(wire::CAME_AT).and_then(|(_, rest)| rest.split_once('"')?.0.parse().ok());
        time.with_context(|| format!("an odd answer: {answer}"))
    }

    /// `calls` small calls, never more than `in_flight` at once; calls a second.
    pub(crate) fn throughput(&mut self, calls: u64, in_flight: u64, writes: Writes) -> anyhow::Result<f64> {
        let mut batch = Vec::new();
        let (mut sent, mut answered) = (0, 0);
        let begin = Instant::now();
        while answered < calls {
            batch.clear();
            // Every answer makes room for the next call. All that is in flight fits into a pipe, so no write waits for
            // a read of this same thread.
            while sent < calls && sent - answered < in_flight {
                wire::write_call(&mut self.frame, self.next_id, Shape::Small);
                self.next_id += 1;
                sent += 1;
                match writes {
                    Writes::Batched => batch.extend_from_slice(&self.frame),
                    Writes::OneByOne => self.input.write_all(&self.frame)?,
                }
            }
            self.input.write_all(&batch)?;
            self.filled = 0;
            self.read_some()?;
            answered += memchr_iter(b'\n', self.received()).count() as u64;
        }
        let elapsed = begin.elapsed();
        ensure!(answered == calls, "{answered} answers to {calls} calls");
        Ok(calls as f64 / elapsed.as_secs_f64())
    }

    /// Reads until a line ends. Nothing follows it, because nothing else was asked for; the next call would notice.
    fn read_line(&mut self) -> anyhow::Result<()> {
        self.filled = 0;
        while !self.received().ends_with(b"\n") {
            self.read_some()?;
        }
        Ok(())
    }

    fn read_some(&mut self) -> anyhow::Result<()> {
        let count = self.output.read(&mut self.buffer[self.filled..])?;
        ensure!(count > 0, "the stream ended before the answer, or it is longer than any answer");
        self.filled += count;
        ANSWERS.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn received(&self) -> &[u8] {
        &self.buffer[..self.filled]
    }

    /// The process next to the driver: the server itself, the relay or `holdshort`.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The helpers beside it: its children that are not the server.
    pub(crate) fn helpers(&self) -> anyhow::Result<Vec<u32>> {
        let children = process::children(self.pid())?;
        Ok(children
            .into_iter()
            .filter(|child| !child.command.contains("role:server"))
            .map(|child| child.pid)
            .collect())
    }

    /// Seconds of processor time of the process in the middle and its helpers, so far.
    pub(crate) fn cpu_seconds(&self) -> anyhow::Result<f64> {
        let mut total = process::cpu_seconds(self.pid())?;
        for helper in self.helpers()? {
            total += process::cpu_seconds(helper)?;
        }
        Ok(total)
    }

    /// Ends the session as clients do: end of input, then wait.
    pub(crate) fn close(mut self) -> io::Result<()> {
        drop(self.input);
        self.child.wait().map(drop)
    }
}
