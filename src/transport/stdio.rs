//! A wrapped stdio server: its process, this process's own stdin and stdout, and how both end.
//!
//! Called by `cli::run`. The server gets the command line, environment (but not our part of it) and working directory as
//! given and inherits stderr; it runs in a process group of its own, with a guard over it. Within two seconds of the end of
//! stdin it has ended, whatever it does (MCP specification, "stdio", "Shutdown"; clients kill their child after as long).
//!
//! This file never reads a frame.

use std::{
    env,
    ffi::OsString,
    io::{self, IsTerminal},
    os::{
        fd::{AsFd, OwnedFd},
        unix::{net::UnixStream as StdUnixStream, process::ExitStatusExt},
    },
    process::{ExitStatus, Stdio},
    sync::Arc,
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::FileType,
    process::{Pid, Signal, kill_process_group, test_kill_process_group},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{UnixStream, unix::pipe},
    process::{Child, Command},
    signal::unix::{SignalKind, signal},
    task::JoinError,
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::{
    guard::Guard,
    output::Output,
    session::{self, Lifecycle, SessionLimits},
    socket::SocketWriter,
};
use crate::gate::{Caller, Gate};

/// How the names of the variables begin that are said to this program alone. Some hold secrets, such as the record's password.
const OWN_VARIABLES: &[u8] = b"HOLDSHORT_";

/// How long a server has to end by itself once its stdin has ended.
const ENDS_BY_ITSELF: Duration = Duration::from_millis(1000);

/// How long after the end of stdin a server that ignores SIGTERM as well is killed.
const KILLED_AFTER: Duration = Duration::from_millis(1300);

/// How long a client may take to read what a server has written before it ended by itself.
const SLOW_CLIENT: Duration = Duration::from_secs(10);

/// How long output is still told after the server has ended, where nobody need be left to read it.
const LAST_OUTPUT: Duration = Duration::from_millis(100);

/// What a pipe takes, in bytes: as much as Linux lets anybody ask for.
#[cfg(target_os = "linux")]
const PIPE_BYTES: usize = 1 << 20;

/// What the socket to the server is asked to take, in bytes. The system may give less.
const SOCKET_BYTES: usize = 1 << 20;

/// How often it is looked whether the server's own programs have gone.
const LOOK: Duration = Duration::from_millis(5);

/// How long the session may take to put its last words on record and tell them.
const LAST_WORDS: Duration = Duration::from_millis(250);

/// One direction of a client's streams.
pub(super) type Reader = Box<dyn AsyncRead + Send + Unpin>;
/// The other direction.
pub(super) type Writer = Box<dyn AsyncWrite + Send + Unpin>;

/// Why a server could not be wrapped.
#[derive(Debug, thiserror::Error)]
pub enum WrapError {
    /// The command does not start.
    #[error("cannot start `{command}`")]
    Start {
        /// The command's name.
        command: String,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// Something that every process has is missing here.
    #[error("cannot set up the {what}")]
    Setup {
        /// What it is.
        what: &'static str,
        /// What the system says.
        #[source]
        source: io::Error,
    },
}

/// What the setup of `what` reports.
fn setup(what: &'static str) -> impl Fn(io::Error) -> WrapError {
    move |source| WrapError::Setup { what, source }
}

/// A server that runs, with its two streams.
pub struct Server {
    process: Child,
    group: Pid,
    guard: Guard,
    stdin: SocketWriter,
    stdout: pipe::Receiver,
    signals: Signals,
}

/// The signals that tell this process to stop; none where somebody else hears them.
struct Signals(Option<[tokio::signal::unix::Signal; 3]>);

impl Signals {
    fn listen() -> io::Result<Self> {
        let [terminate, interrupt, hangup] =
            [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()].map(signal);
        Ok(Self(Some([terminate?, interrupt?, hangup?])))
    }

    /// The next one.
    async fn recv(&mut self) -> Signal {
        let Some([terminate, interrupt, hangup]) = &mut self.0 else { return std::future::pending().await };
        tokio::select! {
            _ = terminate.recv() => Signal::TERM,
            _ = interrupt.recv() => Signal::INT,
            _ = hangup.recv() => Signal::HUP,
        }
    }
}

impl Server {
    /// Starts `command` with its arguments: never through a shell.
    ///
    /// # Errors
    ///
    /// When the command does not start or a guard cannot be put over it. Nothing runs then.
    pub fn start(command: &OsString, arguments: &[OsString]) -> Result<Self, WrapError> {
        // Before there is a server: from then on a signal is always passed on to it.
        Self::start_hearing(Signals::listen().map_err(setup("signals"))?, command, arguments)
    }

    /// Starts one of several servers: signals are for whoever has started them all.
    ///
    /// # Errors
    ///
    /// As [`Server::start`].
    pub(super) fn start_one_of_several(
        command: &OsString,
        arguments: &[OsString],
    ) -> Result<Self, WrapError> {
        Self::start_hearing(Signals(None), command, arguments)
    }

    fn start_hearing(
        signals: Signals,
        command: &OsString,
        arguments: &[OsString],
    ) -> Result<Self, WrapError> {
        let mut guard = Guard::start().map_err(setup("guard over the server"))?;
        // A socket, because another process of this user could write into a pipe through /proc, past the gate.
        let (stdin, server_stdin) = StdUnixStream::pair().map_err(setup("server's stdin"))?;
        let (stdout, server_stdout) = io::pipe().map_err(setup("server's stdout"))?;
        widen(&stdout);
        // It takes as much as the system allows: each time it is full, a large frame waits until the server has read.
        let _ = rustix::net::sockopt::set_socket_send_buffer_size(&stdin, SOCKET_BYTES);
        let mut server = Command::new(command);
        for (name, _) in env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(OWN_VARIABLES))
        {
            server.env_remove(name);
        }
        let mut process = server
            .args(arguments)
            .stdin(Stdio::from(OwnedFd::from(server_stdin)))
            .stdout(Stdio::from(OwnedFd::from(server_stdout)))
            .process_group(0)
            .spawn()
            .map_err(|source| WrapError::Start { command: command.to_string_lossy().into_owned(), source })?;
        let group = process.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        let group = group.ok_or_else(|| setup("server's process group")(io::ErrorKind::NotFound.into()))?;
        guard.watch(group).map_err(|source| {
            let _ = process.start_kill();
            setup("guard over the server")(source)
        })?;
        let stdin = SocketWriter::new(stdin).map_err(setup("server's stdin"))?;
        let stdout =
            pipe::Receiver::from_owned_fd(OwnedFd::from(stdout)).map_err(setup("server's stdout"))?;
        Ok(Self { process, group, guard, stdin, stdout, signals })
    }
}

/// Runs the session between this process's client and `server` to its end, and says how the server ended.
///
/// # Errors
///
/// When this process's own streams or signals cannot be used.
pub async fn serve(
    server: Server,
    gate: Arc<Gate>,
    caller: Caller,
    limits: SessionLimits,
) -> Result<ExitStatus, WrapError> {
    serve_client(server, gate, caller, limits, own_streams()?, own_lifecycle()).await
}

/// This process's own stdin and stdout.
///
/// # Errors
///
/// When they cannot be used.
pub(super) fn own_streams() -> Result<(Reader, Writer), WrapError> {
    Ok((own_stdin().map_err(setup("stdin"))?, own_stdout().map_err(setup("stdout"))?))
}

/// The signals of a session with the client on this process's stdin.
pub(super) fn own_lifecycle() -> Lifecycle {
    Lifecycle { client_hung_up: Some(Arc::new(stdin_has_hung_up)), ..Lifecycle::default() }
}

/// The same with a client on other streams, which `lifecycle` stops.
///
/// # Errors
///
/// When the server's end cannot be seen.
pub(super) async fn serve_client(
    server: Server,
    gate: Arc<Gate>,
    caller: Caller,
    limits: SessionLimits,
    client: (Reader, Writer),
    lifecycle: Lifecycle,
) -> Result<ExitStatus, WrapError> {
    let Server { mut process, group, guard, stdin, stdout, mut signals } = server;
    let ended = CancellationToken::new();
    let stdout = Output::new(stdout, ended.clone());
    // A task of its own: what is waited for here besides would otherwise be looked at with every frame.
    let session = session::run(gate, caller, client, (stdout, stdin), limits, lifecycle.clone());
    let mut session = AbortOnDropHandle::new(tokio::spawn(session));
    let mut ending = Box::pin(ends(&mut process, group, &mut signals, &lifecycle));
    let status = tokio::select! {
        biased;
        ended = &mut session => {
            pass_on_panic(ended);
            // Nobody is left to speak to: a server that has only closed its stdout ends as if its client had gone.
            lifecycle.client_gone.cancel();
            ending.await
        }
        status = &mut ending => {
            drop(ending);
            // Programs that the server has left behind. Those that it has set free stay, with its stdout.
            end_group(group).await;
            ended.cancel();
            // What the server has written is still to be told, also to a slow client; then the session ends by itself.
            tokio::select! {
                ended = &mut session => pass_on_panic(ended),
                () = nobody_waits(&lifecycle, &mut signals) => {
                    lifecycle.stop.cancel();
                    let _ = timeout(LAST_WORDS, &mut session).await;
                }
            }
            status
        }
    };
    drop(session);
    end_group(group).await;
    guard.dismiss();
    status.map_err(setup("server's exit status"))
}

/// A session that panicked ends the process, as it would without a task of its own.
fn pass_on_panic(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && let Ok(panic) = error.try_into_panic()
    {
        std::panic::resume_unwind(panic);
    }
}

/// Waits for the server to end; ends it when the client has gone or this process is told to stop.
async fn ends(
    process: &mut Child,
    group: Pid,
    signals: &mut Signals,
    lifecycle: &Lifecycle,
) -> io::Result<ExitStatus> {
    let told = tokio::select! {
        status = process.wait() => {
            if let Some(status) = status.as_ref().ok().filter(|status| !status.success()) {
                tracing::warn!(%status, "the server has ended by itself");
            }
            return status;
        }
        () = lifecycle.client_gone.cancelled() => None,
        () = lifecycle.stop.cancelled() => None,
        signal = signals.recv() => Some(signal),
    };
    let began = Instant::now();
    if let Some(told) = told {
        // The session ends with this process: held calls are answered, the server's stdin closes.
        lifecycle.stop.cancel();
        let _ = kill_process_group(group, told);
    }
    tokio::select! {
        status = process.wait() => return status,
        () = sleep_until(began + ENDS_BY_ITSELF) => {}
        _ = signals.recv() => {}
    }
    tracing::warn!(
        "the server goes on {} ms after it was to end, so it is ended",
        began.elapsed().as_millis()
    );
    let _ = kill_process_group(group, Signal::TERM);
    tokio::select! {
        status = process.wait() => return status,
        () = sleep_until(began + KILLED_AFTER) => {}
    }
    let _ = kill_process_group(group, Signal::KILL);
    process.wait().await
}

/// Waits until there is no reason any more to wait for a client that is slow to read what a dead server has written.
async fn nobody_waits(lifecycle: &Lifecycle, signals: &mut Signals) {
    tokio::select! {
        () = lifecycle.client_gone.cancelled() => {}
        () = lifecycle.stop.cancelled() => {}
        _ = signals.recv() => {}
        () = sleep(SLOW_CLIENT) => return,
    }
    sleep(LAST_OUTPUT).await;
}

/// Ends what is left of the server's group after the server itself has ended.
async fn end_group(group: Pid) {
    if kill_process_group(group, Signal::TERM).is_err() {
        return;
    }
    let gone = async {
        while test_kill_process_group(group).is_ok() {
            sleep(LOOK).await;
        }
    };
    if timeout(LAST_OUTPUT, gone).await.is_err() {
        let _ = kill_process_group(group, Signal::KILL);
    }
}

/// The exit code that tells the same as `status`: the code, or 128 plus the signal's number, as shells say it.
pub fn exit_code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    u8::try_from(code & 0xff).unwrap_or(1)
}

/// This process's stdin. Pipes and sockets are read without a thread in between.
fn own_stdin() -> io::Result<Reader> {
    let stdin = io::stdin();
    let file = stdin.as_fd().try_clone_to_owned()?;
    Ok(match kind(&stdin)? {
        FileType::Fifo => {
            widen(&file);
            Box::new(pipe::Receiver::from_owned_fd(file)?)
        }
        FileType::Socket => {
            let socket = StdUnixStream::from(file);
            socket.set_nonblocking(true)?;
            Box::new(UnixStream::from_std(socket)?)
        }
        _ => Box::new(tokio::io::stdin()),
    })
}

/// Whether nobody is left at the other end of stdin, whatever there still is to read.
fn stdin_has_hung_up() -> bool {
    let stdin = io::stdin();
    let mut polled = [PollFd::new(&stdin, PollFlags::RDHUP)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut polled, Some(&now)).is_ok()
        && polled[0].revents().intersects(PollFlags::HUP | PollFlags::RDHUP | PollFlags::ERR)
}

/// This process's stdout. Written without a thread in between where that cannot disturb stderr: making the one
/// non-blocking would make the other so too where both are the same pipe, and the server inherits stderr.
fn own_stdout() -> io::Result<Writer> {
    let stdout = io::stdout();
    let file = stdout.as_fd().try_clone_to_owned()?;
    let shared = is_same_file(&stdout, &io::stderr())? && !io::stderr().is_terminal();
    Ok(match kind(&stdout)? {
        FileType::Fifo if !shared => {
            widen(&file);
            Box::new(pipe::Sender::from_owned_fd(file)?)
        }
        FileType::Socket if !shared => Box::new(SocketWriter::new(file.into())?),
        _ => Box::new(tokio::io::stdout()),
    })
}

/// Lets a pipe take a large frame without waking both its ends a dozen times. One that stays as it is works as well.
fn widen(pipe: &impl AsFd) {
    #[cfg(target_os = "linux")]
    let _ = rustix::pipe::fcntl_setpipe_size(pipe, PIPE_BYTES);
    #[cfg(not(target_os = "linux"))]
    let _ = pipe;
}

fn kind(file: &impl AsFd) -> io::Result<FileType> {
    Ok(FileType::from_raw_mode(rustix::fs::fstat(file)?.st_mode))
}

fn is_same_file(one: &impl AsFd, other: &impl AsFd) -> io::Result<bool> {
    let (one, other) = (rustix::fs::fstat(one)?, rustix::fs::fstat(other)?);
    Ok((one.st_dev, one.st_ino) == (other.st_dev, other.st_ino))
}
