//! A PostgreSQL server of a test's own, from the binaries of this machine: in a directory of its own, ended with its owner.
//!
//! Used by the tests of the store (which take this file in) and by those of the program. Clients come by a socket in the directory;
//! where one has to come by TCP, the system gives the port.

#![allow(dead_code, reason = "each of the two that take this file in uses a part of it")]

use std::{
    fs::{self, File},
    net::TcpListener,
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

/// The longest that a server may take to start before it counts as broken.
const PATIENCE: Duration = Duration::from_secs(60);

/// Whom the server runs as where the tests are root's: it does not run as root.
const USER: &str = "postgres";

/// A running server.
pub(crate) struct Cluster {
    dir: TempDir,
    server: Option<Child>,
    port: u16,
    options: Vec<String>,
    file_bytes_max: Option<u64>,
    databases: AtomicU32,
}

impl Cluster {
    /// A server that forgets everything if the machine dies, and nothing if it is killed itself.
    pub(crate) fn start() -> Self {
        Self::with(&["listen_addresses=", "fsync=off"], 5432)
    }

    /// One that can write no file longer than so many bytes.
    pub(crate) fn limited(file_bytes_max: u64) -> Self {
        let mut cluster = Self::prepared(&["listen_addresses=", "fsync=off"], 5432);
        cluster.file_bytes_max = Some(file_bytes_max);
        assert!(cluster.run(), "the server does not start: {}", cluster.log());
        cluster
    }

    /// From its next start on it can write files as long as it likes.
    pub(crate) fn unlimited(&mut self) {
        self.file_bytes_max = None;
    }

    /// One that keeps what it has said, in `directory`: for figures.
    pub(crate) fn durable(directory: &Path) -> Self {
        let mut cluster = Self::prepared_in(directory, &["listen_addresses="], 5432);
        assert!(cluster.run(), "the server does not start: {}", cluster.log());
        cluster
    }

    /// The same, and reached by TCP with TLS: `certificate` and `key` are PEM. Passwords are asked for there.
    pub(crate) fn with_tls(certificate: &str, key: &str) -> Self {
        // Another may take the port before the server has it: then another one is tried.
        for _ in 0..8 {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let mut cluster = Self::prepared(&["listen_addresses=127.0.0.1", "fsync=off", "ssl=on"], port);
            cluster.file("data/server.crt", certificate);
            cluster.file("data/server.key", key);
            if cluster.run() {
                return cluster;
            }
        }
        panic!("no port was free");
    }

    fn with(options: &[&str], port: u16) -> Self {
        let mut cluster = Self::prepared(options, port);
        assert!(cluster.run(), "the server does not start: {}", cluster.log());
        cluster
    }

    fn prepared(options: &[&str], port: u16) -> Self {
        Self::prepared_in(&std::env::temp_dir(), options, port)
    }

    fn prepared_in(directory: &Path, options: &[&str], port: u16) -> Self {
        // Short: a socket's path has some hundred bytes.
        let dir = tempfile::Builder::new().prefix("hspg").tempdir_in(directory).unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o711)).unwrap();
        give_away(dir.path());
        let options = options.iter().map(|option| (*option).to_owned()).collect();
        let databases = AtomicU32::new(0);
        let cluster = Self { dir, server: None, port, options, file_bytes_max: None, databases };
        let made = cluster
            .tool("initdb")
            .args(["--no-sync", "--no-instructions", "--auth-local=trust", "--auth-host=scram-sha-256"])
            .args(["--username=holdshort", "--encoding=UTF8", "--locale=C", "--pgdata"])
            .arg(cluster.dir.path().join("data"))
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        cluster
    }

    fn file(&self, name: &str, text: &str) {
        let path = self.dir.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        give_away(&path);
    }

    /// The program `name` of PostgreSQL, as somebody who may run it; killed with the thread that starts it.
    fn tool(&self, name: &str) -> Command {
        let program = binaries().join(name);
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "QUIT"]);
        if rustix::process::geteuid().is_root() {
            let user = format!("--reuid={USER}");
            command.args([&user, &format!("--regid={USER}"), "--init-groups"]);
        }
        if let Some(bytes) = self.file_bytes_max.filter(|_| name == "postgres") {
            command.arg("prlimit").arg(format!("--fsize={bytes}"));
        }
        command.arg(program).current_dir(self.dir.path()).env_remove("PGDATA").stdin(Stdio::null());
        command
    }

    /// Starts the server. `false` if it has ended by itself.
    pub(crate) fn run(&mut self) -> bool {
        let log = File::options().create(true).append(true).open(self.dir.path().join("log")).unwrap();
        let mut command = self.tool("postgres");
        command.arg("-D").arg(self.dir.path().join("data")).arg("-k").arg(self.dir.path());
        command.arg("-p").arg(self.port.to_string()).args([
            "-c",
            "shared_buffers=16MB",
            "-c",
            "max_connections=60",
        ]);
        for option in &self.options {
            command.args(["-c", option]);
        }
        let mut server = command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        let deadline = Instant::now() + PATIENCE;
        while !self.query("postgres", "SELECT 1").status.success() {
            if server.try_wait().unwrap().is_some() {
                return false;
            }
            assert!(Instant::now() < deadline, "the server does not start: {}", self.log());
            thread::sleep(Duration::from_millis(20));
        }
        self.server = Some(server);
        true
    }

    /// Ends the server as if it had crashed: nobody is told, nothing is finished.
    pub(crate) fn crash(&mut self) {
        if let Some(mut server) = self.server.take() {
            let pid = rustix::process::Pid::from_child(&server);
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::QUIT);
            let _ = server.wait();
        }
    }

    /// A new, empty database.
    pub(crate) fn database(&self) -> String {
        let name = format!("record{}", self.databases.fetch_add(1, Ordering::Relaxed));
        let made = self.query("postgres", &format!("CREATE DATABASE {name}"));
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        name
    }

    /// Runs SQL in a database.
    pub(crate) fn query(&self, database: &str, sql: &str) -> Output {
        let mut command = self.tool("psql");
        command
            .args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-U", "holdshort", "-h"])
            .arg(self.dir.path());
        command.arg("-p").arg(self.port.to_string()).args(["-d", database, "-c", sql]);
        command.output().unwrap()
    }

    /// Runs SQL in a database, which has to succeed, and gives what it says.
    pub(crate) fn ask(&self, database: &str, sql: &str) -> String {
        let answer = self.query(database, sql);
        assert!(answer.status.success(), "{sql}: {}", String::from_utf8_lossy(&answer.stderr));
        String::from_utf8(answer.stdout).unwrap().trim().to_owned()
    }

    /// The directory of its socket.
    pub(crate) fn socket_dir(&self) -> &Path {
        self.dir.path()
    }

    /// The port by which it is reached.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The URL of a database, by the socket.
    pub(crate) fn url(&self, database: &str) -> String {
        format!("postgres://holdshort@:{}/{database}?host={}", self.port, self.dir.path().display())
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.crash();
    }
}

/// Gives a file to whom the server runs as.
fn give_away(path: &Path) {
    if rustix::process::geteuid().is_root() {
        let user = uzers::get_user_by_name(USER).expect("PostgreSQL is installed, and with it its user");
        chown(path, Some(user.uid()), Some(user.primary_group_id())).unwrap();
    }
}

/// Where the programs of the newest PostgreSQL of this machine are.
fn binaries() -> PathBuf {
    let named = std::env::var_os("HOLDSHORT_TEST_POSTGRES").map(PathBuf::from);
    let installed = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().filter_map(Result::ok);
    let newest = installed
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .max()
        .map(|version| format!("/usr/lib/postgresql/{version}/bin").into());
    named.or(newest).expect("PostgreSQL is installed, by tests/peers/install.sh")
}
