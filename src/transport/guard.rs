//! The guard: a tiny second process that outlives a wrapper killed with SIGKILL just long enough to end its server.
//!
//! Started by `stdio` before the server, as `holdshort guard` with a pipe for stdin. The pipe ends when the wrapper is
//! gone, however it went; then the guard ends the server's process group. (Linux could do this for the server itself
//! with a parent-death signal, but not for the programs that the server has started, and only from code between fork
//! and exec, which cannot be written without `unsafe`.) It never reads anything but the number of the group.

use std::{
    io::{self, BufRead, Write},
    os::unix::process::CommandExt,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};

/// The hidden subcommand that becomes a guard.
pub const COMMAND: &str = "guard";

/// What the wrapper writes when the server has ended in order, so that there is nothing to do.
const DONE: &str = "done";

/// How long an orphaned server has between SIGTERM and SIGKILL.
const GRACE: Duration = Duration::from_secs(1);

/// How often the guard looks whether the group has gone.
const LOOK: Duration = Duration::from_millis(20);

/// A wrapper's hold on its guard.
#[derive(Debug)]
pub struct Guard {
    process: Child,
}

impl Guard {
    /// Starts a guard that watches over nothing yet.
    ///
    /// # Errors
    ///
    /// When the program cannot start itself once more.
    pub fn start() -> io::Result<Self> {
        // Linux knows the running program even after its file has been replaced by an update.
        let program =
            if cfg!(target_os = "linux") { "/proc/self/exe".into() } else { std::env::current_exe()? };
        let process = Command::new(program)
            .arg0("holdshort")
            .arg(COMMAND)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .env_clear()
            // Its own group: what ends the wrapper's group must not end the guard.
            .process_group(0)
            .spawn()?;
        Ok(Self { process })
    }

    /// From now on, the process group `group` ends with this process.
    ///
    /// # Errors
    ///
    /// When the guard is gone.
    pub fn watch(&mut self, group: Pid) -> io::Result<()> {
        let pipe = self.process.stdin.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
        // One write: the guard reads the whole number or nothing.
        pipe.write_all(format!("{}\n", group.as_raw_nonzero()).as_bytes())
    }

    /// The server has ended in order: the guard goes without doing anything.
    pub fn dismiss(mut self) {
        if let Some(mut pipe) = self.process.stdin.take() {
            // A guard that is gone already needs no dismissal.
            let _ = writeln!(pipe, "{DONE}");
        }
        let _ = self.process.wait();
    }
}

/// The guard's whole life: waits for stdin to end, then ends the group it was told.
pub fn run() {
    let mut group = None;
    for line in io::stdin().lock().lines() {
        match line {
            Ok(line) if line == DONE => return,
            Ok(line) => group = line.parse().ok().and_then(Pid::from_raw),
            Err(_) => break,
        }
    }
    if let Some(group) = group {
        end_group(group, GRACE);
    }
}

/// Ends every process of `group`: SIGTERM, and SIGKILL for what is left after `grace`. Blocks for as long.
pub fn end_group(group: Pid, grace: Duration) {
    let deadline = Instant::now() + grace;
    let mut signal = Signal::TERM;
    while test_kill_process_group(group).is_ok() {
        let _ = kill_process_group(group, signal);
        if signal == Signal::KILL {
            return;
        }
        while test_kill_process_group(group).is_ok() && Instant::now() < deadline {
            thread::sleep(LOOK);
        }
        signal = Signal::KILL;
    }
}
