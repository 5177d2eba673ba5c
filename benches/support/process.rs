//! What the kernel knows of a process: its time, its children, its cores; and the clock all processes share.
//!
//! Used by the benches. Reads `/proc`, so it runs on Linux only.

use std::fs;

use anyhow::Context as _;
use rustix::{
    process::Pid,
    thread::{CpuSet, sched_getaffinity, sched_setaffinity},
    time::{ClockId, clock_gettime},
};

/// `CLOCK_MONOTONIC` in nanoseconds: the same clock in every process.
pub(crate) fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    // The clock counts from the machine's start; neither part is ever negative.
    now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs()
}

/// Seconds of processor time that the threads of `pid` which are alive have used, user and system. From the scheduler's
/// own count, in nanoseconds: `/proc/PID/stat` counts in hundredths of a second, which is a thousand calls.
pub(crate) fn cpu_seconds(pid: u32) -> anyhow::Result<f64> {
    let mut total_ns = 0;
    for thread in
        fs::read_dir(format!("/proc/{pid}/task")).with_context(|| format!("process {pid} is gone"))?
    {
        // A thread may end between the listing and the reading.
        let Ok(counts) = fs::read_to_string(thread?.path().join("schedstat")) else { continue };
        total_ns += counts.split(' ').next().and_then(|run| run.parse::<u64>().ok()).unwrap_or(0);
    }
    Ok(total_ns as f64 / 1e9)
}

/// The fields of `/proc/PID/stat` behind the name, so the state comes first.
fn stat(pid: u32) -> anyhow::Result<Vec<String>> {
    let text =
        fs::read_to_string(format!("/proc/{pid}/stat")).with_context(|| format!("process {pid} is gone"))?;
    // The name may itself contain spaces and brackets; only the last bracket ends it.
    let (_, fields) = text.rsplit_once(')').context("an odd `/proc/PID/stat`")?;
    Ok(fields.split_whitespace().map(str::to_owned).collect())
}

/// A child of a process: its number and its command line, arguments separated by spaces.
pub(crate) struct ChildProcess {
    pub(crate) pid: u32,
    pub(crate) command: String,
}

/// The children of `pid` that are alive.
pub(crate) fn children(pid: u32) -> anyhow::Result<Vec<ChildProcess>> {
    let mut children = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Some(child) = entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        // A process may end between the listing and the reading.
        let Ok(stat) = stat(child) else { continue };
        if stat.get(1).and_then(|parent| parent.parse().ok()) == Some(pid) {
            let command = fs::read(format!("/proc/{child}/cmdline")).unwrap_or_default();
            let command = String::from_utf8_lossy(&command).replace('\0', " ").trim().to_owned();
            children.push(ChildProcess { pid: child, command });
        }
    }
    Ok(children)
}

/// Where the processes run.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cores {
    /// Where the scheduler puts them. On an idle machine it spreads them and on a busy one it does not, which differs by
    /// a factor of ten for a small call.
    Free,
    /// All on one.
    One,
    /// The process in the middle on one, driver and server on another.
    Apart,
}

/// Confines this process to one core, unless the cores are free, until it is dropped.
pub(crate) struct Pinned(CpuSet);

impl Pinned {
    /// The driver's core is the last one: the first ones tend to serve the machine's interrupts.
    pub(crate) fn driver(cores: Cores) -> anyhow::Result<Self> {
        let before = sched_getaffinity(None)?;
        if cores != Cores::Free {
            sched_setaffinity(None, &nth_last(&before, 0)?)?;
        }
        Ok(Self(before))
    }

    /// Puts the process in the middle, with all its threads, on a core of its own. What it spawned before stays.
    pub(crate) fn move_away(&self, middle: u32) -> anyhow::Result<()> {
        // With one core there is no other, and nothing to confine.
        let Ok(other) = nth_last(&self.0, 1) else { return Ok(()) };
        for thread in fs::read_dir(format!("/proc/{middle}/task"))? {
            let thread = thread?.file_name().to_str().and_then(|id| id.parse().ok()).and_then(Pid::from_raw);
            sched_setaffinity(thread, &other)?;
        }
        Ok(())
    }
}

/// The `nth` core of `cores` from the end, alone.
fn nth_last(cores: &CpuSet, nth: usize) -> anyhow::Result<CpuSet> {
    let core =
        (0..CpuSet::MAX_CPU).rev().filter(|&core| cores.is_set(core)).nth(nth).context("too few cores")?;
    let mut one = CpuSet::new();
    one.set(core);
    Ok(one)
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // Fails only if the cores themselves went away; then the rest runs where it is.
        let _ = sched_setaffinity(None, &self.0);
    }
}
