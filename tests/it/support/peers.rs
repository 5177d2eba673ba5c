//! Real MCP clients and servers as processes, each test in a home of its own: `real_peers` and `canary` use it.
//!
//! Nothing here sleeps for a fixed time or uses a fixed port; whatever is waited for has a deadline, and what a test has
//! started ends with it. A peer that is not installed fails the test, with the command that installs it.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{
    ffi::OsString,
    fs::{self, DirBuilder},
    io::{BufRead as _, BufReader, Read, Write as _},
    os::unix::{fs::DirBuilderExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, ExitStatus, Output, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, RecvTimeoutError, channel},
    },
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::Value;
use tempfile::TempDir;

/// How long one thing may take before the test gives up on it: far more than it needs on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// How long a bare server may take to execute what it has been sent.
const EXECUTION_PATIENCE: Duration = Duration::from_secs(10);

/// Between two looks at a condition that has no event to wait for.
const POLL: Duration = Duration::from_millis(5);

/// The program under test.
pub(crate) const HOLDSHORT: &str = env!("CARGO_BIN_EXE_holdshort");

/// Everything passes: what a session must look like with this policy is what it looks like without the proxy.
pub(crate) const ALLOW_ALL: &str = "version: 1\ndefault: allow\nrules: []\n";

/// Everything passes except the tool `danger`, which waits for a person: the least that a policy can ask for, so that
/// whatever is taken for another tool or another method is not stopped by the default.
pub(crate) const HOLD_DANGER: &str = "\
version: 1
default: allow
rules:
  - name: danger-needs-a-person
    tool: danger
    action: hold
    reason: This can do harm.
    timeout: 10m
";

/// A server that the tests can start. The canaries have the tools `danger`, `echo`, `slow`, `ask` and `cancelled`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Server {
    Everything,
    Filesystem,
    CanaryTsV1,
    CanaryTsV2,
    CanaryReadline,
    CanaryPython1,
    CanaryPython2,
    CanaryRmcp,
}

/// A client program that runs a scenario against any server command; `Auto` ones probe for the stateless revisions first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Client {
    TsV1,
    TsV2,
    TsV2Auto,
    Python1,
    Python2,
    Python2Auto,
    Rmcp,
    RmcpAuto,
    /// The same, with calls that may become tasks.
    RmcpTasks,
}

/// How a server over HTTP answers calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answers {
    /// With a stream of events, where it has more to say than the answer, or always.
    Streamed,
    /// With a JSON body: it cannot ask anything and cannot report progress.
    Json,
}

impl Server {
    /// The command, without the proxy.
    pub(crate) fn command(self, home: &Home) -> Vec<OsString> {
        let package = |name: &str| format!("node_modules/@modelcontextprotocol/{name}/dist/index.js");
        match self {
            Self::Everything => {
                vec!["node".into(), installed(&package("server-everything")), "stdio".into()]
            }
            Self::Filesystem => {
                vec!["node".into(), installed(&package("server-filesystem")), home.files().into()]
            }
            Self::CanaryTsV1 => vec!["node".into(), node_program("canary_v1.mjs")],
            Self::CanaryTsV2 => vec!["node".into(), node_program("canary_v2.mjs")],
            Self::CanaryReadline => vec!["node".into(), node_program("canary_readline.mjs")],
            Self::CanaryPython1 => vec![installed("venv-mcp1/bin/python"), installed("canary_server.py")],
            Self::CanaryPython2 => vec![installed("venv-mcp2/bin/python"), installed("canary_server.py")],
            Self::CanaryRmcp => vec![example("rmcp_canary")],
        }
    }

    /// What clients do with it, by the name of the file.
    pub(crate) fn scenario(self) -> &'static str {
        match self {
            Self::Everything => "everything",
            Self::Filesystem => "filesystem",
            _ => "canary",
        }
    }
}

impl Client {
    fn command(self) -> Vec<OsString> {
        let era = |mut command: Vec<OsString>| {
            command.extend(["--era".into(), "auto".into()]);
            command
        };
        match self {
            Self::TsV1 => vec!["node".into(), node_program("ts_v1_client.mjs")],
            Self::TsV2 => vec!["node".into(), node_program("ts_v2_client.mjs")],
            Self::TsV2Auto => era(Self::TsV2.command()),
            Self::Python1 => vec![installed("venv-mcp1/bin/python"), installed("client.py")],
            Self::Python2 => vec![installed("venv-mcp2/bin/python"), installed("client.py")],
            Self::Python2Auto => era(Self::Python2.command()),
            Self::Rmcp => vec![example("rmcp_client")],
            Self::RmcpAuto => era(Self::Rmcp.command()),
            Self::RmcpTasks => [Self::RmcpAuto.command(), vec!["--tasks".into()]].concat(),
        }
    }
}

fn peers_directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers")
}

/// The path of something in `tests/peers`, which must be there.
pub(crate) fn installed(name: &str) -> OsString {
    let path = peers_directory().join(name);
    assert!(path.exists(), "`{}` is missing; run tests/peers/install.sh first", path.display());
    path.into()
}

/// The Node for what does not run on the older one that the rest needs.
pub(crate) fn newer_node() -> OsString {
    let architecture = match std::env::consts::ARCH {
        "aarch64" => "arm64",
        _ => "x64",
    };
    installed(&format!("node_modules/node-linux-{architecture}/bin/node"))
}

/// A script of ours that imports packages, which must be there too.
pub(crate) fn node_program(name: &str) -> OsString {
    installed("node_modules/.installed-from");
    installed(name)
}

/// A Rust peer: an example, which `cargo test` builds beside the program.
fn example(name: &str) -> OsString {
    let path = Path::new(HOLDSHORT).with_file_name("examples").join(name);
    assert!(path.exists(), "`{}` is missing; run cargo build --examples first", path.display());
    path.into()
}

/// A home directory for one test: the record, the sockets, the settings and the canary file of nobody else.
pub(crate) struct Home {
    directory: TempDir,
}

impl Home {
    pub(crate) fn new() -> Self {
        // The shortest place there is: a socket's path has about a hundred bytes.
        let home = Self { directory: tempfile::Builder::new().prefix("hs").tempdir().unwrap() };
        for name in ["run", "state", "config", "data", "cache"] {
            DirBuilder::new().mode(0o700).create(home.path(name)).unwrap();
        }
        home.lay_out_files();
        home
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The directory that the filesystem server may touch.
    pub(crate) fn files(&self) -> PathBuf {
        self.path("files")
    }

    /// Gives the filesystem server the same files again.
    fn lay_out_files(&self) {
        let _ = fs::remove_dir_all(self.files());
        fs::create_dir(self.files()).unwrap();
        fs::write(self.files().join("note.txt"), "an old note\nof two lines\n").unwrap();
    }

    /// What the tool `danger` has written since the file was last removed.
    pub(crate) fn canary(&self) -> Option<String> {
        fs::read_to_string(self.path("canary")).ok()
    }

    /// Whether `danger` writes within a few seconds.
    pub(crate) fn canary_appears(&self) -> bool {
        let deadline = Instant::now() + EXECUTION_PATIENCE;
        while Instant::now() < deadline {
            if self.canary().is_some_and(|text| text.ends_with('\n')) {
                return true;
            }
            thread::sleep(POLL);
        }
        false
    }

    pub(crate) fn remove_canary(&self) {
        let _ = fs::remove_file(self.path("canary"));
    }

    /// A program in this home. It sees the environment of the tests apart from what says where homes are.
    pub(crate) fn command(&self, command: &[OsString]) -> Command {
        let mut program = Command::new(&command[0]);
        program
            .args(&command[1..])
            .current_dir(self.directory.path())
            .env("HOME", self.directory.path())
            .env("XDG_RUNTIME_DIR", self.path("run"))
            .env("XDG_STATE_HOME", self.path("state"))
            .env("XDG_CONFIG_HOME", self.path("config"))
            .env("XDG_DATA_HOME", self.path("data"))
            .env("XDG_CACHE_HOME", self.path("cache"))
            .env("CANARY_FILE", self.path("canary"))
            .env_remove("HOLDSHORT_STORE");
        program
    }

    /// `command` behind the proxy, with this policy.
    pub(crate) fn behind_proxy(&self, policy: &str, command: Vec<OsString>) -> Vec<OsString> {
        let file = self.path("policy.yaml");
        fs::write(&file, policy).unwrap();
        let mut wrapped: Vec<OsString> = vec![HOLDSHORT.into(), "run".into(), "--policy".into(), file.into()];
        wrapped.extend(["--server".into(), "canary".into(), "--".into()]);
        wrapped.extend(command);
        wrapped
    }

    /// The same, with a client that is kept waiting for so long.
    pub(crate) fn behind_proxy_waiting(
        &self,
        policy: &str,
        wait: &str,
        command: Vec<OsString>,
    ) -> Vec<OsString> {
        let mut wrapped = self.behind_proxy(policy, command);
        wrapped.splice(2..2, ["--wait".into(), wait.into()]);
        wrapped
    }

    /// An agent framework with its default settings, which makes one call until it has an answer.
    pub(crate) fn agent(&self, framework: &str, server: Vec<OsString>) -> Running {
        let mut command: Vec<OsString> =
            vec![installed("venv-agents/bin/python"), installed("agents_client.py")];
        command.extend([framework.into(), "--".into()]);
        command.extend(server);
        Running::start(&mut self.command(&command))
    }

    /// What the Inspector's command line prints of one call of `tool` to a server of its own.
    pub(crate) fn inspect(&self, server: &[OsString], tool: &str, argument: &str) -> Value {
        let launcher = "node_modules/@modelcontextprotocol/inspector/clients/launcher/build/index.js";
        let mut command: Vec<OsString> = vec![newer_node(), installed(launcher), "--cli".into()];
        let settings = serde_json::json!({ "mcpServers": { "canary": {
            "command": server[0].to_str().unwrap(),
            "args": server[1..].iter().map(|word| word.to_str().unwrap()).collect::<Vec<_>>(),
            "env": { "CANARY_FILE": self.path("canary"), "HOME": self.directory.path(),
                "XDG_RUNTIME_DIR": self.path("run"), "XDG_STATE_HOME": self.path("state") },
        } } });
        let config = self.path("inspector.json");
        fs::write(&config, settings.to_string()).unwrap();
        command.extend(["--config".into(), config.into(), "--server".into(), "canary".into()]);
        command.extend(["--method".into(), "tools/call".into(), "--tool-name".into(), tool.into()]);
        command.extend(["--tool-arg".into(), argument.into()]);
        let output = self.command(&command).stdin(Stdio::null()).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        serde_json::from_str(&text)
            .unwrap_or_else(|error| panic!("{error}: {text}{}", String::from_utf8_lossy(&output.stderr)))
    }

    /// Runs one command of the program, to its end.
    pub(crate) fn holdshort(&self, arguments: &[&str]) -> Output {
        let mut command: Vec<OsString> = vec![HOLDSHORT.into()];
        command.extend(arguments.iter().map(Into::into));
        self.command(&command).stdin(Stdio::null()).output().unwrap()
    }

    /// Runs one command that must succeed, and gives back its stdout.
    pub(crate) fn holdshort_ok(&self, arguments: &[&str]) -> String {
        let output = self.holdshort(arguments);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "holdshort {arguments:?}: {}: {stderr}", output.status);
        String::from_utf8(output.stdout).unwrap()
    }

    fn listed(&self, arguments: &[&str]) -> Vec<Value> {
        let output = self.holdshort(arguments);
        // 5: no gate is there (yet).
        if output.status.code() == Some(5) {
            return Vec::new();
        }
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {text}"))
    }

    /// What waits.
    pub(crate) fn holds(&self) -> Vec<Value> {
        self.listed(&["holds", "--json"])
    }

    /// What waits and what has ended, from the record: it needs no gate that runs. Nothing if the gate that is asked ends
    /// while it is asked; whoever needs the answer asks again.
    pub(crate) fn all_holds(&self) -> Vec<Value> {
        let output = self.holdshort(&["history", "--json"]);
        if !output.status.success() {
            return Vec::new();
        }
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// The held call's client waits for the answer to its request; one with tasks comes back for it.
    pub(crate) fn keeps_its_client(&self, client: Client) {
        let waits = client != Client::RmcpTasks;
        until("the client waits in its way", || self.holds()[0]["attached"] == waits);
    }

    /// Waits until exactly one call is held, and gives it back.
    pub(crate) fn one_hold(&self) -> Value {
        let mut last = Vec::new();
        until("one call is held", || {
            last = self.holds();
            last.len() == 1
        });
        last.remove(0)
    }

    /// Waits until the hold `id` is in `state`.
    pub(crate) fn until_state(&self, id: &str, state: &str) {
        let mut last = Value::Null;
        let deadline = Instant::now() + PATIENCE;
        while last["state"] != state {
            assert!(Instant::now() < deadline, "not {state} in {PATIENCE:?}: {last}");
            thread::sleep(POLL);
            last = self.all_holds().into_iter().find(|hold| hold["id"] == id).unwrap_or_default();
        }
    }

    /// The record must prove itself unaltered.
    pub(crate) fn verify_record(&self) {
        self.holdshort_ok(&["audit", "verify"]);
    }

    /// Writes a scenario with the paths of this home.
    pub(crate) fn scenario(&self, text: &str) -> PathBuf {
        let file = self.path("scenario.json");
        fs::write(&file, text.replace("@DIR@", self.files().to_str().unwrap())).unwrap();
        file
    }

    /// Starts a server over HTTP, and says its URL.
    pub(crate) fn serve(&self, server: Server, answers: Answers) -> (Running, OsString) {
        let mut command = server.command(self);
        let mut preloaded = Vec::new();
        match (server, answers) {
            (Server::Everything, _) => {
                command.pop();
                command.push("streamableHttp".into());
                preloaded.extend(["--import".into(), installed("say_port.mjs")]);
            }
            (_, Answers::Streamed) => command.push("http".into()),
            (_, Answers::Json) => command.push("http-json".into()),
        }
        command.splice(1..1, preloaded);
        let mut running = Running::start(&mut self.command(&command));
        loop {
            let line = running.next_line().unwrap_or_else(|| panic!("{server:?}: {}", running.stderr()));
            let line = String::from_utf8(line).unwrap();
            if line.starts_with("http://") {
                return (running, line.trim_end().into());
            }
        }
    }

    /// Starts `client` on a scenario against a server command, or against the URL of a server over HTTP.
    pub(crate) fn drive(&self, client: Client, scenario: &str, server: Vec<OsString>) -> Running {
        let mut command = client.command();
        command.push(self.scenario(scenario).into());
        command.push("--".into());
        command.extend(server);
        Running::start(&mut self.command(&command))
    }

    /// The transcript of a whole session, and what the canary holds after it; everything as it was before it.
    pub(crate) fn transcript(&self, client: Client, scenario: &str, server: Vec<OsString>) -> Vec<String> {
        self.lay_out_files();
        self.remove_canary();
        let file = peers_directory().join("scenarios").join(scenario).with_extension("json");
        let mut driver = self.drive(client, &fs::read_to_string(file).unwrap(), server);
        let mut lines = driver.rest_as_text();
        let status = driver.ended();
        assert!(status.success(), "{client:?}, {scenario}: {status}\n{}\n{lines:#?}", driver.stderr());
        lines.push(format!("canary: {:?}", self.canary()));
        lines
    }
}

/// Looks again and again until `condition` holds; fails the test when it takes too long.
pub(crate) fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "not in {PATIENCE:?}: {what}");
        thread::sleep(POLL);
    }
}

/// A process whose output is read line by line. Dropping it kills its process group.
pub(crate) struct Running {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<Vec<u8>>,
    stderr: Arc<Mutex<String>>,
}

impl Running {
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = channel();
        thread::spawn(move || {
            let mut line = Vec::new();
            while stdout.read_until(b'\n', &mut line).is_ok_and(|bytes| bytes > 0) {
                if sender.send(std::mem::take(&mut line)).is_err() {
                    return;
                }
            }
        });
        let stderr = Arc::new(Mutex::new(String::new()));
        let kept = Arc::clone(&stderr);
        let mut pipe = child.stderr.take().unwrap();
        thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(bytes @ 1..) = pipe.read(&mut piece) {
                let text = String::from_utf8_lossy(&piece[..bytes]);
                kept.lock().unwrap_or_else(PoisonError::into_inner).push_str(&text);
            }
        });
        Self { stdin: child.stdin.take(), child, lines, stderr }
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Whether it has ended already.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// What it has written to stderr so far.
    pub(crate) fn stderr(&self) -> String {
        self.stderr.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sends bytes as they are. An error is left to the reading side, which then misses its answer.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        let stdin = self.stdin.as_mut().unwrap();
        let _ = stdin.write_all(bytes).and_then(|()| stdin.flush());
    }

    /// The client's end of the pipe is closed: the session is over.
    pub(crate) fn close_stdin(&mut self) {
        self.stdin = None;
    }

    /// The next line, as it came. `None` at the end of the output.
    pub(crate) fn next_line(&mut self) -> Option<Vec<u8>> {
        match self.lines.recv_timeout(PATIENCE) {
            Ok(line) => Some(line),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => panic!("no line in {PATIENCE:?}; stderr:\n{}", self.stderr()),
        }
    }

    /// The next line, read as JSON.
    pub(crate) fn next_json(&mut self) -> Value {
        let line = self.next_line().unwrap_or_else(|| panic!("the output ended; stderr:\n{}", self.stderr()));
        serde_json::from_slice(&line)
            .unwrap_or_else(|error| panic!("not JSON: {error}: {:?}", String::from_utf8_lossy(&line)))
    }

    /// Reads on until a line that `wanted` accepts; what came before it is dropped.
    pub(crate) fn next_json_where(&mut self, wanted: impl Fn(&Value) -> bool) -> Value {
        loop {
            let message = self.next_json();
            if wanted(&message) {
                return message;
            }
        }
    }

    /// Everything else that it prints, to its end.
    pub(crate) fn rest_as_text(&mut self) -> Vec<String> {
        let mut lines: Vec<String> = Vec::new();
        loop {
            match self.lines.recv_timeout(PATIENCE) {
                Ok(line) => lines.push(String::from_utf8(line).unwrap().trim_end().to_owned()),
                Err(RecvTimeoutError::Disconnected) => return lines,
                Err(RecvTimeoutError::Timeout) => {
                    panic!("nothing in {PATIENCE:?} after {:?}; stderr:\n{}", lines.last(), self.stderr())
                }
            }
        }
    }

    /// Waits for its end.
    pub(crate) fn ended(&mut self) -> ExitStatus {
        let mut status = None;
        until("the process ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }

    /// Begins a session as a client of the handshake revisions does.
    pub(crate) fn initialize(&mut self) {
        self.send(
            br#"{"jsonrpc":"2.0","id":"begin","method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"raw-client","version":"1"}}}
"#,
        );
        let answer = self.next_json_where(|message| message["id"] == "begin");
        assert!(answer["result"]["serverInfo"].is_object(), "{answer}");
        self.send(b"{\"jsonrpc\":\"2.0\",\"method\":\"notifications/initialized\"}\n");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|status| status.is_some()) {
            return;
        }
        if let Some(group) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = self.child.wait();
    }
}
