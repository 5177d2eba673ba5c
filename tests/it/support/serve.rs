//! `holdshort serve` in a home of a test, in front of one upstream, and the approver who answers for it. `conformance` and
//! `real_http_peers` use it. Nothing here has a fixed port; what was started ends with its owner.

use std::{
    collections::HashMap,
    ffi::{OsStr, OsString},
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rustix::process::{Signal, kill_process};
use serde_json::json;

use super::peers::{HOLDSHORT, Home, Running, until};

/// Between two looks of an approver at what waits.
const LOOK: Duration = Duration::from_millis(25);

/// A proxy that listens.
pub(crate) struct Serve {
    process: Running,
    /// Where clients connect to.
    pub(crate) url: OsString,
}

impl Serve {
    /// Starts the proxy with `policy` in front of `upstream`, a URL, under the path `/mcp`.
    pub(crate) fn start(home: &Home, policy: &str, upstream: &OsStr) -> Self {
        let policy_file = home.path("policy.yaml");
        fs::write(&policy_file, policy).unwrap();
        let settings = json!({
            "listen": "127.0.0.1:0",
            "upstreams": [{"name": "canary", "path": "/mcp", "url": upstream.to_str().unwrap()}],
            "policy": [policy_file],
        });
        let file = home.path("serve.yaml");
        // JSON is YAML too.
        fs::write(&file, settings.to_string()).unwrap();
        let command: Vec<OsString> = vec![HOLDSHORT.into(), "serve".into(), "--config".into(), file.into()];
        let mut process = Running::start(&mut home.command(&command));
        let mut address = None;
        until("the proxy listens", || {
            assert!(!process.has_ended(), "the proxy ended: {}", process.stderr());
            address = address_in(&process.stderr());
            address.is_some()
        });
        Self { process, url: format!("http://{}/mcp", address.unwrap()).into() }
    }

    /// Asks it to end, and waits for that.
    pub(crate) fn stop(mut self) {
        kill_process(self.process.pid(), Signal::TERM).unwrap();
        let status = self.process.ended();
        assert!(status.success(), "{status}: {}", self.process.stderr());
    }
}

/// The chosen address, which the program says on stderr.
fn address_in(stderr: &str) -> Option<String> {
    let complete = &stderr[..=stderr.rfind('\n')?];
    let (_, rest) = complete.split_once("127.0.0.1:")?;
    let port: String = rest.chars().take_while(char::is_ascii_digit).collect();
    Some(format!("127.0.0.1:{port}"))
}

/// What an approver says to everything that waits.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Answer {
    /// Approved, once it has waited this long.
    ApproveAfter(Duration),
    /// Rejected at once, with this reason.
    Reject(&'static str),
}

/// Somebody at the command line who gives everything that waits the same answer, until dropped.
pub(crate) struct Approver {
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<usize>>,
}

impl Approver {
    pub(crate) fn start(home: &Arc<Home>, answer: Answer) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let (home, over) = (Arc::clone(home), Arc::clone(&is_over));
        let thread = thread::spawn(move || answer_all(&home, answer, &over));
        Self { is_over, thread: Some(thread) }
    }

    /// Ends it, and says how many answers had an effect.
    pub(crate) fn answers(mut self) -> usize {
        self.is_over.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for Approver {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}

fn answer_all(home: &Home, answer: Answer, is_over: &AtomicBool) -> usize {
    let mut seen: HashMap<String, Instant> = HashMap::new();
    let mut answers = 0;
    while !is_over.load(Ordering::Relaxed) {
        for hold in home.holds() {
            let id = hold["id"].as_str().unwrap().to_owned();
            let since = *seen.entry(id.clone()).or_insert_with(Instant::now);
            let output = match answer {
                Answer::ApproveAfter(wait) if since.elapsed() >= wait => home.holdshort(&["approve", &id]),
                Answer::ApproveAfter(_) => continue,
                Answer::Reject(reason) => home.holdshort(&["reject", &id, "--reason", reason]),
            };
            // A call that its caller has withdrawn meanwhile is no error.
            answers += usize::from(output.status.success());
        }
        thread::sleep(LOOK);
    }
    answers
}
