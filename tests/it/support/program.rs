//! The program itself, in a home of its own: nothing of the person who runs the tests is touched or seen.

use std::{
    ffi::OsStr,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Output, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;

/// The longest that anything in these tests may take before it counts as never.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Lets the process that has started a gate decide at it.
pub(crate) const CLIENT_DECIDES: &str = "HOLDSHORT_DANGER_CLIENT_DECIDES";

/// A home directory with its own state, configuration and runtime directories.
pub(crate) struct Home {
    dir: TempDir,
}

impl Home {
    pub(crate) fn new() -> Self {
        Self { dir: tempfile::Builder::new().prefix("hs").tempdir().unwrap() }
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The record that gates of this home use.
    pub(crate) fn store(&self) -> PathBuf {
        self.path().join(".local/state/holdshort/holdshort.db")
    }

    /// A file in this home.
    pub(crate) fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// The program with this home, and with no other directory of the person who runs the tests.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_holdshort"));
        command.env("HOME", self.path());
        for variable in ["XDG_STATE_HOME", "XDG_CONFIG_HOME", "HOLDSHORT_STORE", "HOLDSHORT_LOG"] {
            command.env_remove(variable);
        }
        command.env("XDG_RUNTIME_DIR", self.path());
        // The tests are the client and the person at once. Those of `lineage` take it away again.
        command.env(CLIENT_DECIDES, "true");
        command
    }

    /// Runs one command of the program to its end.
    pub(crate) fn holdshort<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Output {
        self.command().args(arguments).stdin(Stdio::null()).output().unwrap()
    }

    /// The calls that wait, from `holds --json`.
    pub(crate) fn holds(&self) -> Vec<Value> {
        let output = self.holdshort(["holds", "--json"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// All that is known of a hold.
    pub(crate) fn show(&self, id: &str) -> Value {
        serde_json::from_slice(&self.holdshort(["show", id, "--json"]).stdout).unwrap()
    }

    /// Waits until `count` calls wait, and gives their ids, the oldest first.
    pub(crate) fn wait_for_holds(&self, count: usize) -> Vec<String> {
        let holds = until(|| Some(self.holds()).filter(|holds| holds.len() == count));
        holds.iter().map(|hold| hold["id"].as_str().unwrap().to_owned()).collect()
    }

    /// Proves the record, and gives what `audit verify --json` says.
    pub(crate) fn verify(&self) -> Value {
        let output = self.holdshort(["audit", "verify", "--json"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

/// Waits until `look` finds something, looking again and again.
pub(crate) fn until<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "it never happened");
        thread::sleep(Duration::from_millis(5));
    }
}

/// A wrapped server, spoken to line by line.
pub(crate) struct Wrapped {
    pub(crate) process: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
}

impl Wrapped {
    pub(crate) fn start(mut command: Command) -> Self {
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let stdout = BufReader::new(process.stdout.take().unwrap());
        let (sender, lines) = channel();
        thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Self { stdin: process.stdin.take(), process, lines }
    }

    pub(crate) fn send(&mut self, line: &str) {
        let stdin = self.stdin.as_mut().expect("stdin is open");
        stdin.write_all(line.as_bytes()).and_then(|()| stdin.write_all(b"\n")).unwrap();
    }

    /// The next line.
    pub(crate) fn receive(&self) -> Value {
        let line = self.line();
        serde_json::from_str(&line).unwrap_or_else(|_| panic!("the program says JSON, not {line}"))
    }

    /// The next line, as it is.
    pub(crate) fn line(&self) -> String {
        self.lines.recv_timeout(PATIENCE).expect("the program says something")
    }

    /// The next line, if there is one in time.
    pub(crate) fn receive_within(&self, patience: Duration) -> Option<Value> {
        let line = self.lines.recv_timeout(patience).ok()?;
        Some(serde_json::from_str(&line).unwrap_or_else(|_| panic!("the program says JSON, not {line}")))
    }

    /// Sends a request and waits for its answer.
    pub(crate) fn ask(&mut self, line: &str) -> Value {
        self.send(line);
        self.receive()
    }

    /// The other end of its stdin, to do with as one likes.
    pub(crate) fn take_stdin(&mut self) -> ChildStdin {
        self.stdin.take().expect("stdin is open")
    }

    /// Closes stdin.
    pub(crate) fn close(&mut self) {
        self.stdin = None;
    }

    /// Waits for the end, and gives how it ended and how long it took.
    pub(crate) fn ends(&mut self) -> (std::process::ExitStatus, Duration) {
        let began = Instant::now();
        let status = until(|| self.process.try_wait().unwrap());
        (status, began.elapsed())
    }

    /// Whether stdout has ended without another line.
    pub(crate) fn says_no_more(&self) -> bool {
        matches!(self.lines.recv_timeout(PATIENCE), Err(RecvTimeoutError::Disconnected))
    }
}

impl Drop for Wrapped {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
