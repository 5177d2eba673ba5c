//! What the HTTP bench starts: its server, nginx and `holdshort serve` in front of it, and the person who approves everything.
//!
//! Used by `http.rs`. Every process is confined to a directory of its own and ends with its owner.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    net::{TcpListener, TcpStream},
    path::PathBuf,
    process::{Child, Command},
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use futures_util::{StreamExt as _, TryStreamExt as _, future, stream};
use holdshort::{
    control::{api::ControlClient as _, client},
    hold::Verdict,
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tokio::runtime::Runtime;

use super::{
    memory::{self, Memory},
    process,
    sandbox::{ALLOW_ALL, Sandbox},
    watchdog::{ANSWERS, HANG_SECONDS},
};

/// Verdicts that the approver has under way at once.
const VERDICTS_MAX: usize = 64;

/// Between two looks at something that has no event to wait for.
const POLL: Duration = Duration::from_millis(1);

/// What stands between the driver and the server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Way {
    Direct,
    Nginx,
    Holdshort,
}

/// All three, in the order of the table's columns.
pub(crate) const WAYS: [Way; 3] = [Way::Direct, Way::Nginx, Way::Holdshort];

/// What is measured.
pub(crate) struct Bench {
    /// This program, which is the server and the approver as well.
    bench: PathBuf,
    /// The `holdshort` under test.
    holdshort: PathBuf,
}

/// A process that listens, and its place.
pub(crate) struct Listening {
    child: Child,
    sandbox: Arc<Sandbox>,
    /// Where.
    pub(crate) port: u16,
    /// From before its start until it listened.
    pub(crate) listened_ms: f64,
}

impl Bench {
    pub(crate) fn new() -> anyhow::Result<Self> {
        let holdshort = std::env::var_os("HOLDSHORT_BENCH_BINARY")
            .map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_holdshort")), PathBuf::from);
        Ok(Self { bench: std::env::current_exe()?, holdshort })
    }

    /// The server at the end.
    pub(crate) fn server(&self) -> anyhow::Result<Listening> {
        let mut command = Command::new(&self.bench);
        command.arg("role:server");
        Listening::start(&mut command, Arc::new(Sandbox::new(ALLOW_ALL)?), |child, _| {
            let mut line = String::new();
            BufReader::new(child.stdout.take().context("no stdout")?).read_line(&mut line)?;
            line.trim().parse().with_context(|| format!("the server says {line:?}"))
        })
    }

    /// nginx as a plain reverse proxy that keeps its connections.
    pub(crate) fn nginx(&self, server: &Listening) -> anyhow::Result<Listening> {
        let sandbox = Sandbox::new(ALLOW_ALL)?;
        // It cannot choose a port by itself. Nobody else asks for this one in the moment between.
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let place = sandbox.path().display();
        let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|name| format!("{name}_temp_path {place}/{name};"))
            .join(" ");
        let settings = format!(
            "daemon off; pid {place}/pid; error_log stderr error; worker_processes 2;\n\
             events {{ worker_connections 16384; }}\n\
             http {{ access_log off; {temporary}\n\
             upstream server {{ server 127.0.0.1:{}; keepalive 128; keepalive_requests 1000000000; }}\n\
             server {{ listen 127.0.0.1:{port}; keepalive_requests 1000000000; tcp_nodelay on;\n\
             client_max_body_size 64m; client_body_buffer_size 2m; proxy_max_temp_file_size 0;\n\
             location / {{ proxy_pass http://server; proxy_http_version 1.1;\n\
             proxy_set_header Connection \"\"; }} }} }}\n",
            server.port
        );
        fs::write(sandbox.path().join("nginx.conf"), settings)?;
        let mut command = Command::new("nginx");
        command.arg("-p").arg(sandbox.path()).arg("-c").arg(sandbox.path().join("nginx.conf"));
        Listening::start(&mut command, Arc::new(sandbox), |_, _| Ok(port))
            .context("nginx is needed: apt-get install --no-install-recommends nginx")
    }

    /// `holdshort serve`.
    pub(crate) fn holdshort(&self, server: &Listening, policy: &str) -> anyhow::Result<Listening> {
        self.holdshort_in(Arc::new(Sandbox::new(policy)?), server)
    }

    /// The same in a place where it may have run before.
    pub(crate) fn holdshort_in(
        &self,
        sandbox: Arc<Sandbox>,
        server: &Listening,
    ) -> anyhow::Result<Listening> {
        let settings = json!({
            "listen": "127.0.0.1:0",
            // Its calls are all the same: one whose client was told to come back would be taken for the next one's.
            "upstreams": [{
                "name": "bench",
                "path": "/mcp",
                "url": format!("http://127.0.0.1:{}/mcp", server.port),
                "wait": "forever",
            }],
            "policy": [sandbox.policy()],
            "store": sandbox.record(),
            // All calls of this bench are one agent's.
            "limits": {"held_per_agent": 200_000, "held_mib_per_agent": 1024, "streams_per_agent": 200_000},
        });
        let file = sandbox.path().join("serve.yaml");
        fs::write(&file, settings.to_string())?;
        let mut command = Command::new(&self.holdshort);
        command.arg("serve").arg("--config").arg(file);
        let before = sandbox.said().len();
        Listening::start(&mut command, sandbox, move |_, sandbox| said_port(sandbox, before))
    }

    /// Somebody who approves whatever waits at `proxy`, until nothing does.
    pub(crate) fn approver(&self, proxy: &Listening) -> anyhow::Result<Child> {
        let mut command = Command::new(&self.bench);
        proxy.sandbox.confine(&mut command)?;
        Ok(command.arg("role:approver").spawn()?)
    }
}

/// The port in what the program has said since `before`; it says it as soon as it listens.
fn said_port(sandbox: &Sandbox, before: usize) -> anyhow::Result<u16> {
    let deadline = Instant::now() + Duration::from_secs(HANG_SECONDS);
    loop {
        let said = sandbox.said();
        if let Some((_, rest)) = said[before..].split_once("127.0.0.1:")
            && let Some(end) = rest.find(|c: char| !c.is_ascii_digit())
        {
            return Ok(rest[..end].parse()?);
        }
        ensure!(Instant::now() < deadline, "it does not listen: {said}");
        thread::sleep(Duration::from_micros(100));
    }
}

impl Listening {
    fn start(
        command: &mut Command,
        sandbox: Arc<Sandbox>,
        port: impl FnOnce(&mut Child, &Sandbox) -> anyhow::Result<u16>,
    ) -> anyhow::Result<Self> {
        sandbox.confine(command)?;
        let begun_ns = process::now_ns();
        let mut child = command.spawn().with_context(|| format!("cannot start {command:?}"))?;
        running().push(Pid::from_child(&child));
        let port = port(&mut child, &sandbox)?;
        let mut listening = Self { child, sandbox, port, listened_ms: 0.0 };
        let deadline = Instant::now() + Duration::from_secs(HANG_SECONDS);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            ensure!(listening.child.try_wait()?.is_none(), "it has ended: {}", listening.said());
            ensure!(Instant::now() < deadline, "it does not listen: {}", listening.said());
            thread::sleep(POLL);
        }
        listening.listened_ms = (process::now_ns() - begun_ns) as f64 / 1e6;
        Ok(listening)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it and its helpers said, for the person who looks for the reason of a failure.
    pub(crate) fn said(&self) -> String {
        self.sandbox.said()
    }

    /// Waits until `count` calls are on record, while what goes on in `runtime` goes on.
    pub(crate) fn until_recorded(&self, runtime: &Runtime, count: usize) -> anyhow::Result<()> {
        let deadline = Instant::now() + Duration::from_secs(4 * HANG_SECONDS);
        let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
        loop {
            let held = rusqlite::Connection::open_with_flags(self.sandbox.record(), flags)
                .and_then(|record| {
                    record.query_row("SELECT count(*) FROM holds", [], |row| row.get::<_, i64>(0))
                })
                .unwrap_or(0);
            if usize::try_from(held)? >= count {
                ANSWERS.fetch_add(1, Ordering::Relaxed);
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "{held} of {count} calls are on record: {}", self.said());
            runtime.block_on(async { tokio::time::sleep(POLL).await });
        }
    }

    /// Resident memory of it and of its workers together.
    fn memory(&self) -> anyhow::Result<Memory> {
        let mut all = memory::of(self.pid())?;
        for worker in process::children(self.pid())? {
            let worker = memory::of(worker.pid)?;
            all.resident += worker.resident;
            all.anonymous += worker.anonymous;
        }
        Ok(all)
    }

    /// Processor time of it and of its workers together.
    fn cpu_seconds(&self) -> anyhow::Result<f64> {
        let mut all = process::cpu_seconds(self.pid())?;
        for worker in process::children(self.pid())? {
            all += process::cpu_seconds(worker.pid)?;
        }
        Ok(all)
    }

    /// Asks it to end, and waits for that.
    pub(crate) fn stop(mut self) -> anyhow::Result<()> {
        kill_process(Pid::from_child(&self.child), Signal::TERM)?;
        self.ended()
    }

    fn ended(&mut self) -> anyhow::Result<()> {
        self.child.wait()?;
        let ended = Pid::from_child(&self.child);
        running().retain(|pid| *pid != ended);
        Ok(())
    }
}

/// What was started and has not ended.
fn running() -> MutexGuard<'static, Vec<Pid>> {
    static RUNNING: Mutex<Vec<Pid>> = Mutex::new(Vec::new());
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Ends what was started, where nobody will come to do so in order.
pub(crate) fn kill_all() {
    for pid in running().iter() {
        let _ = kill_process(*pid, Signal::TERM);
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
            let _ = self.ended();
        }
    }
}

/// All ways side by side in front of one server, so that rounds can take turns.
pub(crate) struct Abreast {
    /// The server itself, nginx, holdshort.
    ways: [Listening; 3],
    turn: usize,
    /// Processor time that each has used in the last round.
    pub(crate) cpu_seconds: [f64; 3],
}

impl Abreast {
    pub(crate) fn open(bench: &Bench) -> anyhow::Result<Self> {
        let server = bench.server()?;
        let nginx = bench.nginx(&server)?;
        let holdshort = bench.holdshort(&server, ALLOW_ALL)?;
        Ok(Self { ways: [server, nginx, holdshort], turn: 0, cpu_seconds: [0.0; 3] })
    }

    /// One round: every way once, another one first each time, so that neither drift nor order favours any.
    pub(crate) fn round<T>(
        &mut self,
        mut measure: impl FnMut(Way, u16) -> anyhow::Result<T>,
    ) -> anyhow::Result<[T; 3]> {
        let mut values = [None, None, None];
        for step in 0..3 {
            let way = (self.turn + step) % 3;
            let before = self.ways[way].cpu_seconds()?;
            let value = measure(WAYS[way], self.ways[way].port)
                .with_context(|| format!("{:?}; standard error: {}", WAYS[way], self.ways[way].said()))?;
            self.cpu_seconds[way] = self.ways[way].cpu_seconds()? - before;
            values[way] = Some(value);
        }
        self.turn += 1;
        let [Some(direct), Some(nginx), Some(holdshort)] = values else {
            anyhow::bail!("a way was left out")
        };
        Ok([direct, nginx, holdshort])
    }

    pub(crate) fn memory(&self) -> anyhow::Result<[Memory; 3]> {
        let [direct, nginx, holdshort] = &self.ways;
        Ok([direct.memory()?, nginx.memory()?, holdshort.memory()?])
    }

    /// The proxies before the server.
    pub(crate) fn close(self) -> anyhow::Result<()> {
        self.ways.into_iter().rev().try_for_each(Listening::stop)
    }
}

/// The approver: says yes to everything that waits, page by page, until nothing does. It finds the gate as the command line does.
pub(crate) fn approve_all() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let gates = client::gates().await.gates;
        let [gate] = gates.as_slice() else { anyhow::bail!("{} gates instead of one", gates.len()) };
        loop {
            let holds = gate.rpc.holds(None).await?.holds;
            if holds.is_empty() {
                return Ok(());
            }
            let verdicts = stream::iter(holds)
                .map(|hold| gate.rpc.resolve(hold.id, Verdict::Approve, None, None))
                .buffer_unordered(VERDICTS_MAX);
            verdicts.try_for_each(|_| future::ready(Ok(()))).await?;
        }
    })
}
