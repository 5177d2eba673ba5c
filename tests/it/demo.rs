//! The first minute: `holdshort demo` as a person or a script starts it, with a home and a directory for temporary files of
//! its own.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::program::{Home, until};

/// Where this demo makes its directory.
fn temporary(home: &Home) -> PathBuf {
    let dir = home.path().join("tmp");
    fs::create_dir_all(&dir).unwrap();
    dir
}

fn demo(home: &Home, arguments: &[&str]) -> Command {
    let mut command = home.command();
    command.env("TMPDIR", temporary(home)).arg("demo").args(arguments).stdin(Stdio::null());
    command
}

/// Runs a demo to its end, and gives its exit code and what it said.
fn told(home: &Home, arguments: &[&str]) -> (Option<i32>, String) {
    let output = demo(home, arguments).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.is_ascii() || !text.contains('\u{1b}'), "no colours where no terminal is");
    (output.status.code(), text)
}

fn is_empty(dir: &Path) -> bool {
    fs::read_dir(dir).unwrap().next().is_none()
}

/// Nothing of the demo is left: no directory, no registration, no socket.
fn assert_nothing_is_left(home: &Home) {
    assert!(is_empty(&temporary(home)), "the demo's directory has gone");
    let state = home.path().join(".local/state/holdshort");
    assert!(is_empty(&state.join("gates")), "the gate is registered no more");
    assert!(!home.store().exists(), "the person's own record was not touched");
    let sockets = home.path().join("holdshort");
    assert!(is_empty(&sockets), "no socket is left");
}

/// The lines that begin with `mark`, without it.
fn lines<'a>(text: &'a str, mark: &str) -> Vec<&'a str> {
    text.lines().filter_map(|line| line.trim_start().strip_prefix(mark)).collect()
}

/// A demo that waits for a verdict.
struct Waiting {
    process: Child,
    stdout: BufReader<ChildStdout>,
    /// The command that it printed for one.
    command: String,
}

impl Waiting {
    fn start(home: &Home, verdict: &str) -> Self {
        let mut process = demo(home, &[]).stdout(Stdio::piped()).spawn().unwrap();
        let stdout = BufReader::new(process.stdout.take().unwrap());
        let mut waiting = Self { process, stdout, command: String::new() };
        while !waiting.command.contains(&format!("holdshort {verdict} ")) {
            waiting.command.clear();
            let bytes = waiting.stdout.read_line(&mut waiting.command).unwrap();
            assert_ne!(bytes, 0, "a command is printed");
        }
        waiting
    }

    /// Everything else that it says, and its exit code.
    fn ends(&mut self) -> (String, Option<i32>) {
        let mut text = String::new();
        self.stdout.read_to_string(&mut text).unwrap();
        (text, self.process.wait().unwrap().code())
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn an_approved_refund_is_sent_and_the_record_says_by_whom() {
    let home = Home::new();
    let (code, text) = told(&home, &["--approve"]);
    assert_eq!(code, Some(0), "{text}");
    assert_eq!(lines(&text, "did: "), ["refund $20.00 on order A-1042", "refund $950.00 on order A-1042"]);
    let read = lines(&text, "reads: ");
    assert!(
        read.contains(&"Refunded $20.00 on order A-1042.") && read[2] == "Refunded $950.00 on order A-1042."
    );
    let refused = lines(&text, "reads (refused): ");
    assert!(
        refused.len() == 1 && refused[0].starts_with("DENIED by policy: An agent never deletes customers.")
    );
    let record = text.split_once("What is on record").unwrap().1;
    for kind in ["gate_started", "denied", "held", "forwarding", "answered"] {
        assert!(record.contains(kind), "{kind} is on record: {record}");
    }
    assert!(record.contains("answered") && record.contains("sound: 6 events, 1 hold,"), "{record}");
    assert_nothing_is_left(&home);
}

#[test]
fn a_rejected_refund_is_not_sent_and_the_agent_reads_why() {
    let home = Home::new();
    let (code, text) =
        told(&home, &["--reject", "--reason", "Ask the customer for the invoice\u{202e} first"]);
    assert_eq!(code, Some(0), "{text}");
    assert_eq!(lines(&text, "did: "), ["refund $20.00 on order A-1042"]);
    let refused = lines(&text, "reads (refused): ");
    assert!(refused[1].starts_with("REJECTED by a person"), "{refused:?}");
    assert!(
        refused[1].contains("Ask the customer for the invoice\\u{202E} first. The tool did not run."),
        "{refused:?}"
    );
    let record = text.split_once("What is on record").unwrap().1;
    assert!(record.contains("rejected") && record.contains("sound: 5 events, 1 hold,"), "{record}");
    assert_nothing_is_left(&home);
}

#[test]
fn the_printed_command_decides_from_another_terminal() {
    for (verdict, more, did) in [("approve", "--comment 'seen the invoice'", 2), ("reject", "", 1)] {
        let home = Home::new();
        let mut waiting = Waiting::start(&home, verdict);
        let command = waiting.command.trim().replace("TEXT", "'not without an invoice'");
        let mut terminal = Command::new("sh");
        terminal.arg("-c").arg(format!("{command} {more}"));
        terminal.env_clear().env("HOME", home.path()).env("XDG_RUNTIME_DIR", home.path());
        let decided = terminal.output().unwrap();
        assert!(decided.status.success(), "{command}: {}", String::from_utf8_lossy(&decided.stderr));
        let (text, code) = waiting.ends();
        assert_eq!(code, Some(0), "{text}");
        assert_eq!(lines(&text, "did: ").len(), did, "{text}");
        assert!(
            text.contains(if did == 2 { "seen the invoice" } else { "not without an invoice" }),
            "{text}"
        );
        assert_nothing_is_left(&home);
    }
}

#[test]
fn a_demo_that_is_stopped_leaves_nothing_behind() {
    for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
        let home = Home::new();
        let mut waiting = Waiting::start(&home, "approve");
        kill_process(Pid::from_child(&waiting.process), signal).unwrap();
        let (text, code) = waiting.ends();
        assert_eq!(code, Some(1));
        assert_eq!(lines(&text, "did: ").len(), 0, "{text}");
        assert_nothing_is_left(&home);
    }
}

#[test]
fn a_demo_that_is_killed_leaves_no_process_behind() {
    let home = Home::new();
    let mut waiting = Waiting::start(&home, "approve");
    waiting.process.kill().unwrap();
    waiting.process.wait().unwrap();
    // The gate ends after the agent, and takes its registration with it.
    until(|| is_empty(&home.path().join(".local/state/holdshort/gates")).then_some(()));
}

#[test]
fn two_verdicts_at_once_are_a_mistake() {
    let home = Home::new();
    assert_eq!(told(&home, &["--approve", "--reject"]).0, Some(2));
    assert_eq!(told(&home, &["--reason", "alone"]).0, Some(2));
    assert!(is_empty(&temporary(&home)));
}
