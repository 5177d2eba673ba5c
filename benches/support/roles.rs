//! The programs that the bench executable can also be: the MCP server at the end, the plain relay in the middle, and the person
//! who approves.
//!
//! Run by `stdio.rs` when it is started with a role. The relay is the least a stdio proxy can do on the same runtime: it
//! spawns the server and copies bytes both ways, and knows nothing of lines, JSON or policy.

use std::{
    ffi::OsString,
    fs::File,
    io::{self, Read as _, Write as _},
    os::fd::AsFd as _,
    process::Stdio,
    time::Duration,
};

use anyhow::Context as _;
use holdshort::{
    control::{api::ControlClient as _, client},
    hold::Verdict,
};
use memchr::{memchr, memmem};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::unix::pipe,
};

use super::{process, wire};

/// As much as a Linux pipe holds by default, so that one read can empty it.
const COPY_BUFFER_BYTES: usize = 64 << 10;

/// The relay: `command` behind this process's stdin and stdout, until the server ends.
pub(crate) fn relay(command: &[OsString]) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (program, arguments) = command.split_first().context("the relay needs a command")?;
        let mut server = tokio::process::Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("the relay could not start the server")?;
        let server_input = server.stdin.take().context("the server has no stdin")?;
        let server_output = server.stdout.take().context("the server has no stdout")?;
        let input = pipe::Receiver::from_owned_fd(io::stdin().as_fd().try_clone_to_owned()?)?;
        let output = pipe::Sender::from_owned_fd(io::stdout().as_fd().try_clone_to_owned()?)?;
        let (up, down) = tokio::join!(copy(input, server_input), copy(server_output, output));
        up?;
        down?;
        server.wait().await?;
        Ok(())
    })
}

/// Copies until the end of `from`, then closes `to`.
async fn copy(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) -> io::Result<()> {
    let mut buffer = vec![0; COPY_BUFFER_BYTES];
    loop {
        let count = from.read(&mut buffer).await?;
        if count == 0 {
            return Ok(());
        }
        to.write_all(&buffer[..count]).await?;
    }
}

/// The approver: for each line of stdin it approves the one call that waits, and writes the time just before it said so.
/// It finds the gate as the command line does.
pub(crate) fn approver() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let gates = client::gates().await.gates;
        let [gate] = gates.as_slice() else { anyhow::bail!("{} gates instead of one", gates.len()) };
        // A gate keeps no connection on which nothing is asked at first.
        gate.rpc.info().await?;
        for _ in io::stdin().lines() {
            let hold = loop {
                // The call is on its way to the record.
                match gate.rpc.holds(None).await?.holds.first() {
                    Some(hold) => break hold.id,
                    None => tokio::time::sleep(Duration::from_millis(1)).await,
                }
            };
            let said_ns = process::now_ns();
            gate.rpc.resolve(hold, Verdict::Approve, None, None).await?;
            io::stdout().write_all(format!("{said_ns}\n").as_bytes())?;
            io::stdout().flush()?;
        }
        Ok(())
    })
}

/// How the server writes when several calls came in at once.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Writes {
    /// One write for all answers: the least work around the proxy, so its own share shows most.
    Batched,
    /// One write an answer, as most servers do.
    OneByOne,
}

impl Writes {
    /// The word in the server's command line.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Batched => "batched",
            Self::OneByOne => "one-by-one",
        }
    }
}

/// The server: a line in, the canned answer with the same id out, until its input ends.
pub(crate) fn server(writes: Writes) -> anyhow::Result<()> {
    let mut input = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    let mut output = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    let mut buffer = vec![0; 2 * wire::LARGE_FRAME_BYTES];
    let mut filled = 0;
    let mut out = Vec::with_capacity(2 * wire::LARGE_FRAME_BYTES);
    let mut first_byte_ns = None;
    loop {
        let count = input.read(&mut buffer[filled..])?;
        if count == 0 {
            return Ok(());
        }
        let came_ns = process::now_ns();
        let first_byte_ns = *first_byte_ns.get_or_insert(came_ns);
        let mut begin = 0;
        let mut unread = filled;
        filled += count;
        while let Some(newline) = memchr(b'\n', &buffer[unread..filled]) {
            let end = unread + newline;
            answer(&mut out, &buffer[begin..end], first_byte_ns, came_ns);
            begin = end + 1;
            unread = begin;
            if writes == Writes::OneByOne {
                output.write_all(&out)?;
                out.clear();
            }
        }
        output.write_all(&out)?;
        out.clear();
        if begin > 0 {
            // Only then: moving the beginning of a large line at every read would cost more than reading it.
            buffer.copy_within(begin..filled, 0);
            filled -= begin;
        }
        anyhow::ensure!(filled < buffer.len(), "a line is longer than the server's buffer");
    }
}

/// Writes what the server says to `line`; nothing to a notification.
fn answer(out: &mut Vec<u8>, line: &[u8], first_byte_ns: u64, came_ns: u64) {
    // Every frame of the driver has its id, method and tool at the front; the rest of a large one is not looked at.
    let head = &line[..line.len().min(120)];
    let Some(id) = memmem::find(head, br#""id":"#).map(|at| &head[at + 5..]) else { return };
    let id = &id[..id.iter().position(|byte| matches!(byte, b',' | b'}')).unwrap_or(id.len())];
    if memmem::find(head, br#""initialize""#).is_some() {
        wire::write_initialized(out, id, first_byte_ns);
    } else if memmem::find(head, br#""name":"read""#).is_some() {
        wire::write_answer(out, id, wire::LARGE_FRAME_BYTES);
    } else if memmem::find(head, br#""name":"clock""#).is_some() {
        wire::write_time(out, id, came_ns);
    } else {
        wire::write_answer(out, id, wire::SMALL_FRAME_BYTES);
    }
}
