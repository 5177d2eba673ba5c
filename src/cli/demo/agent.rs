//! `holdshort demo-agent`: a scripted agent, the MCP client of the demo.
//!
//! Started by the demo. It puts `holdshort run` in front of the billing server as an agent's settings do, makes four calls
//! one after the other, and tells on stdout, one [`Told`] a line, what it asks and what it reads. It decides nothing, and
//! ends when its stdin ends, so that nothing is left behind when the demo goes.

use std::{
    io::{self, BufRead, BufReader, Lines, Write},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::place::Place;
use crate::{cli::render, exit::Exit};

/// What the agent tells the demo.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "told", rename_all = "lowercase")]
pub(super) enum Told {
    /// The server has answered `initialize`.
    Connected,
    /// It makes a call.
    Calls {
        /// The tool.
        tool: String,
        /// The arguments, as JSON text.
        arguments: String,
    },
    /// It has read the answer.
    Reads {
        /// The text of the result, or of the error.
        text: String,
        /// Whether it is a refusal or an error.
        failed: bool,
        /// How long the call took.
        took: Duration,
    },
}

/// The agent's whole script: tools and their arguments.
fn script() -> [(&'static str, Value); 4] {
    [
        ("get_order", json!({"order": "A-1042"})),
        ("send_refund", json!({"order": "A-1042", "amount": 20})),
        ("delete_customer", json!({"customer": "C-7"})),
        ("send_refund", json!({"order": "A-1042", "amount": 950})),
    ]
}

/// Plays the script in the demo's directory `dir`.
pub(in crate::cli) fn run(dir: &Path) -> Exit {
    thread::spawn(|| {
        // Whoever started this holds the other end for as long as it lives, and never writes.
        let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
        std::process::exit(0);
    });
    match play(&Place::at(dir.to_owned())) {
        Ok(()) => Exit::Done,
        Err(error) => render::failed(&error),
    }
}

fn play(place: &Place) -> io::Result<()> {
    let mut server = Connection::start(place)?;
    let client = json!({"name": "demo-agent", "version": env!("CARGO_PKG_VERSION")});
    let hello = json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": client});
    server.ask("initialize", &hello)?;
    server.send(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}))?;
    tell(&Told::Connected)?;
    for (tool, arguments) in script() {
        tell(&Told::Calls { tool: tool.to_owned(), arguments: arguments.to_string() })?;
        let began = Instant::now();
        let answer = server.ask("tools/call", &json!({"name": tool, "arguments": arguments}))?;
        let took = began.elapsed();
        let result = &answer["result"];
        let text = result["content"][0]["text"].as_str().or_else(|| answer["error"]["message"].as_str());
        let failed = answer.get("error").is_some() || result["isError"] == true;
        tell(&Told::Reads { text: text.unwrap_or_default().to_owned(), failed, took })?;
    }
    server.end()
}

/// One line for the demo.
fn tell(told: &Told) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{}", serde_json::to_string(told)?)?;
    stdout.flush()
}

/// The wrapped server, as any agent sees it: a command with a stdin and a stdout.
struct Connection {
    process: Child,
    stdin: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
    requests: u64,
}

impl Connection {
    fn start(place: &Place) -> io::Result<Self> {
        let program = std::env::current_exe()?;
        let mut process = Command::new(&program)
            .args(["run", "--server", "billing", "--policy"])
            .arg(place.policy())
            .arg("--store")
            .arg(place.store())
            .arg("--")
            .arg(&program)
            .args(["demo-server", "--ledger"])
            .arg(place.ledger())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let (Some(stdin), Some(stdout)) = (process.stdin.take(), process.stdout.take()) else {
            return Err(io::ErrorKind::BrokenPipe.into());
        };
        Ok(Self { process, stdin, lines: BufReader::new(stdout).lines(), requests: 0 })
    }

    fn send(&mut self, message: &Value) -> io::Result<()> {
        writeln!(self.stdin, "{message}")
    }

    /// Sends a request and waits for its answer, for as long as people take.
    fn ask(&mut self, method: &str, params: &Value) -> io::Result<Value> {
        self.requests += 1;
        let id = self.requests;
        self.send(&json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}))?;
        for line in self.lines.by_ref() {
            let message: Value = serde_json::from_str(&line?)?;
            if message["id"] == id {
                return Ok(message);
            }
        }
        Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the wrapped server has ended"))
    }

    /// Closes stdin and waits until the gate has put everything on record.
    fn end(mut self) -> io::Result<()> {
        drop(self.stdin);
        self.process.wait().map(drop)
    }
}
