//! The official conformance suite as a judge: runs it against a server or a client, and gives back what it found, scenario by
//! scenario. It needs a newer Node than the rest, which is one of the installed packages.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    fmt::{self, Display, Formatter},
    fs, iter,
    path::{Path, PathBuf},
    process::Stdio,
};

use serde_json::Value;

use super::peers::{Home, Running, newer_node, node_program};

/// The frozen lists of scenarios, each run with the wire of its revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Requirements {
    /// The last revision with sessions.
    Of2025,
    /// The first stateless one.
    Of2026,
}

impl Requirements {
    fn revision(self) -> &'static str {
        match self {
            Self::Of2025 => "2025-11-25",
            Self::Of2026 => "2026-07-28",
        }
    }
}

/// One check of a scenario as it ended.
#[derive(Clone, Debug)]
pub(crate) struct Check {
    /// Its id, what it is about, and `SUCCESS`, `FAILURE`, `WARNING` or `SKIPPED`.
    pub(crate) outcome: [String; 3],
    /// What the suite says to a failure: it names ports and times, so nobody compares it.
    pub(crate) message: String,
}

impl Display for Check {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.outcome.join(" | "), self.message)
    }
}

impl Check {
    /// The check of every scenario: each message of the one examined was read against the schema of the revision.
    pub(crate) fn is_of_the_wire(&self) -> bool {
        self.outcome[0].starts_with("wire-schema-")
    }

    pub(crate) fn failed(&self) -> bool {
        self.outcome[2] == "FAILURE"
    }
}

/// What the suite found: the checks of each scenario, sorted.
pub(crate) type Findings = BTreeMap<String, Vec<Check>>;

/// The server that the suite can examine, and its URL.
pub(crate) fn fixture(home: &Home) -> (Running, OsString) {
    let command = ["node".into(), node_program("conformance_server.mjs")];
    let mut server = Running::start(&mut home.command(&command));
    let url = String::from_utf8(server.next_line().unwrap()).unwrap();
    (server, url.trim_end().into())
}

/// Examines the server at `url`.
pub(crate) fn examine_server(home: &Home, requirements: Requirements, url: &OsStr) -> Findings {
    examine(home, requirements, ["server".into(), "--url".into(), url.into()], &[])
}

/// Examines our client script, with these variables in its environment.
pub(crate) fn examine_client(
    home: &Home,
    requirements: Requirements,
    environment: &[(&str, OsString)],
) -> Findings {
    let mut command = newer_node();
    command.push(" ");
    command.push(node_program("conformance_client.mjs"));
    examine(home, requirements, ["client".into(), "--command".into(), command], environment)
}

fn examine(
    home: &Home,
    requirements: Requirements,
    what: [OsString; 3],
    environment: &[(&str, OsString)],
) -> Findings {
    let results = home.path("results");
    let _ = fs::remove_dir_all(&results);
    let suite = node_program("node_modules/@modelcontextprotocol/conformance/dist/index.js");
    let mut command: Vec<OsString> = vec![newer_node(), suite];
    command.extend(what);
    command.extend(["--requirements".into(), requirements.revision().into()]);
    command.extend(["--output-dir".into(), results.clone().into()]);
    let mut suite = home.command(&command);
    suite.envs(environment.iter().map(|(name, value)| (name, value)));
    // Its exit code says less than its findings: a failure that is there without the proxy has to be there with it.
    let output = suite.stdin(Stdio::null()).output().unwrap();
    let findings: Findings = check_files(&results).iter().map(|file| read(&results, file)).collect();
    assert!(findings.len() > 20, "the suite did not run: {}", String::from_utf8_lossy(&output.stderr));
    findings
}

fn check_files(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let paths = entries.map(|entry| entry.unwrap().path());
    paths
        .flat_map(|path| if path.is_dir() { check_files(&path) } else { iter::once(path).collect() })
        .filter(|path| path.ends_with("checks.json"))
        .collect()
}

/// The scenario's name, which is that of the directory without the time, and its checks.
fn read(results: &Path, file: &Path) -> (String, Vec<Check>) {
    const TIME: &str = "-2026-11-21T12-29-40-362Z";
    let directory = file.parent().unwrap().strip_prefix(results).unwrap().to_str().unwrap();
    let scenario = &directory[..directory.len() - TIME.len()];
    let all: Vec<Value> = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
    let text = |check: &Value, member: &str| check[member].as_str().unwrap_or_default().to_owned();
    let mut checks: Vec<Check> = all
        .iter()
        .map(|check| Check {
            outcome: ["id", "name", "status"].map(|member| text(check, member)),
            message: text(check, "errorMessage"),
        })
        // What the suite only notes, such as each event that it has seen.
        .filter(|check| check.outcome[2] != "INFO")
        .collect();
    checks.sort_by(|one, other| one.outcome.cmp(&other.outcome));
    (scenario.strip_prefix("server-").unwrap_or(scenario).to_owned(), checks)
}
