//! What is known of clients: how long each waits for a tool, as one table. `docs/clients.md` shows it to people.
//!
//! A row says for how long we keep the client waiting, which is less than it has patience. Names and versions are those of
//! `clientInfo`; a client of which nothing is said here is kept waiting for `PATIENCE_DEFAULT_SECONDS`.

use std::time::Duration;

/// How long a client is kept waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// For so many seconds.
    Seconds(u64),
    /// Until the call is decided or expires: the client has no limit of its own.
    Always,
}

impl Keep {
    /// The same as a duration.
    pub fn patience(self) -> Option<Duration> {
        match self {
            Self::Seconds(seconds) => Some(Duration::from_secs(seconds)),
            Self::Always => None,
        }
    }
}

/// One row: a client from some version on.
#[derive(Clone, Copy, Debug)]
pub struct Client {
    /// The beginning of its name, in lower case.
    pub name: &'static str,
    /// The first version that the row is about.
    pub since: [u64; 3],
    /// For how long, where the request asks for no progress.
    pub silent: Keep,
    /// For how long, where it does, and is told every ten seconds.
    pub with_progress: Keep,
    /// Whether it makes a call again by itself that is answered with nothing but a state (2026-07-28), as SDKs do.
    pub makes_rounds: bool,
    /// Where that is from: the client's own default, and how to set it.
    pub source: &'static str,
}

use Keep::{Always, Seconds};

/// The clients that are known. Of several rows that fit, the last one counts.
pub const CLIENTS: [Client; 14] = [
    row("claude-code", [0; 3], Seconds(45), Seconds(45), "idle limit unknown in old versions"),
    row(
        "claude-code",
        [2, 1, 187],
        // It says nothing of the transport; with progress, for which it asks, the limit begins anew each time.
        Seconds(270),
        Always,
        "300 s without a sign of life over HTTP, 30 min on stdio; CLAUDE_CODE_MCP_TOOL_IDLE_TIMEOUT",
    ),
    without_rounds(row(
        "claude-ai",
        [0; 3],
        Seconds(200),
        Seconds(200),
        "Claude Desktop: 240 s, whatever progress says; fixed",
    )),
    row("codex-mcp-client", [0; 3], Seconds(45), Seconds(45), "60 s in old versions"),
    row(
        "codex-mcp-client",
        [0, 165, 0],
        Seconds(270),
        Seconds(270),
        "300 s; tool_timeout_sec in config.toml",
    ),
    row("visual studio code", [0; 3], Always, Always, "no limit; the user can cancel"),
    row("goose", [0; 3], Seconds(270), Seconds(270), "300 s; timeout of the extension"),
    row("cline", [0; 3], Seconds(45), Seconds(45), "60 s; timeout of the server in its settings"),
    row(
        "gemini-cli",
        [0; 3],
        Seconds(9 * 60),
        Seconds(9 * 60),
        "600 s; timeout of the server in settings.json",
    ),
    row(
        "qwen-code",
        [0; 3],
        Seconds(9 * 60),
        Seconds(9 * 60),
        "600 s; timeout of the server in settings.json",
    ),
    row("opencode", [0; 3], Seconds(45), Always, "60 s, counted anew at each progress; mcp.timeout"),
    row("inspector-client", [0; 3], Seconds(45), Always, "60 s, counted anew at each progress; its settings"),
    row("mcp-inspector", [0; 3], Seconds(45), Always, "60 s, counted anew at each progress; its settings"),
    row("rmcp", [0; 3], Always, Always, "no limit by default; PeerRequestOptions"),
];

const fn row(
    name: &'static str,
    since: [u64; 3],
    silent: Keep,
    with_progress: Keep,
    source: &'static str,
) -> Client {
    Client { name, since, silent, with_progress, makes_rounds: true, source }
}

/// The same client, which shows an error instead of making a call again by itself.
const fn without_rounds(client: Client) -> Client {
    Client { makes_rounds: false, ..client }
}

impl Client {
    /// The row about a client of this name and version.
    pub fn find(name: &str, version: &str) -> Option<&'static Self> {
        let name = name.to_ascii_lowercase();
        let version = numbers(version);
        CLIENTS.iter().rev().find(|client| name.starts_with(client.name) && client.since <= version)
    }
}

/// The first three numbers of a version.
fn numbers(version: &str) -> [u64; 3] {
    let mut numbers = [0; 3];
    let parts = version.split(|c: char| !c.is_ascii_digit()).filter(|part| !part.is_empty());
    for (number, part) in numbers.iter_mut().zip(parts) {
        *number = part.parse().unwrap_or(0);
    }
    numbers
}
