//! The client of the HTTP bench: calls over keep-alive connections, as cheap as it can be, so that what is measured is what
//! stands in the middle; and many calls at once that stay without an answer.
//!
//! Used by `http.rs`. It reads answers only as far as to know where they end.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use memchr::memchr;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
};

use super::{
    watchdog::ANSWERS,
    wire::{self, Shape},
};

/// Read at once; large enough that a body of a mebibyte takes few reads.
const BUFFER_BYTES: usize = 256 << 10;

/// Streams that one HTTP/2 connection carries.
const STREAMS_PER_CONNECTION: usize = 100;

/// Calls of one measurement, and how they went.
pub(crate) struct Run {
    /// How long each took, in microseconds, ascending.
    pub(crate) times_us: Vec<f64>,
    /// From the first to the last.
    pub(crate) seconds: f64,
    /// Bytes of the answers' bodies.
    pub(crate) body_bytes: usize,
}

/// One connection.
struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    begin: usize,
    end: usize,
}

impl Connection {
    async fn open(port: u16) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: vec![0; BUFFER_BYTES], begin: 0, end: 0 })
    }

    async fn call(&mut self, request: &[u8]) -> anyhow::Result<usize> {
        self.stream.write_all(request).await?;
        self.answer().await
    }

    /// Reads more behind what is there.
    async fn fill(&mut self) -> anyhow::Result<()> {
        if self.begin == self.end {
            (self.begin, self.end) = (0, 0);
        } else if self.end == self.buffer.len() {
            self.buffer.copy_within(self.begin..self.end, 0);
            (self.begin, self.end) = (0, self.end - self.begin);
        }
        let count = self.stream.read(&mut self.buffer[self.end..]).await?;
        ensure!(count > 0, "the connection was closed");
        self.end += count;
        Ok(())
    }

    /// The next line without its end, as a range of the buffer.
    async fn line(&mut self) -> anyhow::Result<std::ops::Range<usize>> {
        loop {
            if let Some(length) = memchr(b'\n', &self.buffer[self.begin..self.end]) {
                let line = self.begin..self.begin + length;
                self.begin = line.end + 1;
                let is_crlf = length > 0 && self.buffer[line.end - 1] == b'\r';
                return Ok(line.start..line.end - usize::from(is_crlf));
            }
            self.fill().await?;
        }
    }

    async fn skip(&mut self, mut bytes: usize) -> anyhow::Result<()> {
        loop {
            let here = bytes.min(self.end - self.begin);
            self.begin += here;
            bytes -= here;
            if bytes == 0 {
                return Ok(());
            }
            self.fill().await?;
        }
    }

    /// Reads one answer; gives the bytes of its body.
    async fn answer(&mut self) -> anyhow::Result<usize> {
        let status = self.line().await?;
        let status = &self.buffer[status];
        ensure!(status.get(9..12) == Some(b"200"), "{}", String::from_utf8_lossy(status));
        let mut length = None;
        loop {
            let line = self.line().await?;
            if line.is_empty() {
                break;
            }
            let line = &self.buffer[line];
            let Some(colon) = memchr(b':', line) else { bail!("a header without a colon") };
            if line[..colon].eq_ignore_ascii_case(b"content-length") {
                length = Some(std::str::from_utf8(&line[colon + 1..])?.trim().parse()?);
            }
        }
        ANSWERS.fetch_add(1, Ordering::Relaxed);
        if let Some(length) = length {
            self.skip(length).await?;
            return Ok(length);
        }
        self.chunks().await
    }

    async fn chunks(&mut self) -> anyhow::Result<usize> {
        let mut bytes = 0;
        loop {
            let line = self.line().await?;
            let size = usize::from_str_radix(std::str::from_utf8(&self.buffer[line])?, 16)?;
            // The end of the chunk's line is behind it.
            self.skip(size).await?;
            self.line().await?;
            if size == 0 {
                return Ok(bytes);
            }
            ANSWERS.fetch_add(1, Ordering::Relaxed);
            bytes += size;
        }
    }
}

/// A call as it goes over the wire.
pub(crate) fn request(id: u64, shape: Shape) -> Vec<u8> {
    let mut body = Vec::new();
    wire::write_call(&mut body, id, shape);
    with_head(&body)
}

/// A call that is answered with a long stream.
pub(crate) fn stream_request(tool: &str) -> Vec<u8> {
    let call = format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"{tool}","arguments":{{}}}}}}"#
    );
    with_head(call.as_bytes())
}

fn with_head(body: &[u8]) -> Vec<u8> {
    let mut request = format!(
        "POST /mcp HTTP/1.1\r\nHost: localhost\r\nAccept: application/json, text/event-stream\r\n\
         Content-Type: application/json\r\nMCP-Protocol-Version: 2025-06-18\r\nContent-Length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    request.extend_from_slice(body);
    request
}

/// Calls `request` as often as `calls` says, `in_flight` at a time, each on a connection of its own.
pub(crate) async fn run(port: u16, request: &[u8], in_flight: usize, calls: usize) -> anyhow::Result<Run> {
    let mut connections = Vec::new();
    for _ in 0..in_flight {
        connections.push(Connection::open(port).await?);
    }
    let request: Arc<[u8]> = request.into();
    let each = calls.div_ceil(in_flight);
    let begin = Instant::now();
    let mut tasks = JoinSet::new();
    for mut connection in connections {
        let request = Arc::clone(&request);
        tasks.spawn(async move {
            let mut times = Vec::with_capacity(each);
            let mut bytes = 0;
            for _ in 0..each {
                let sent = Instant::now();
                bytes += connection.call(&request).await?;
                times.push(sent.elapsed().as_secs_f64() * 1e6);
            }
            anyhow::Ok((times, bytes))
        });
    }
    let mut times_us = Vec::with_capacity(each * in_flight);
    let mut body_bytes = 0;
    while let Some(done) = tasks.join_next().await {
        let (times, bytes) = done??;
        times_us.extend(times);
        body_bytes += bytes;
    }
    let seconds = begin.elapsed().as_secs_f64();
    times_us.sort_unstable_by(f64::total_cmp);
    Ok(Run { times_us, seconds, body_bytes })
}

/// How held calls arrive.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Streams {
    /// A connection each.
    Http1,
    /// A stream each, a hundred to a connection.
    Http2,
}

/// Calls that wait, until somebody decides.
#[derive(Default)]
pub(crate) struct Waiting(JoinSet<anyhow::Result<()>>);

impl Waiting {
    /// Begins `calls` more. No more than may be on their way to the record at once.
    pub(crate) async fn begin(&mut self, port: u16, streams: Streams, calls: usize) -> anyhow::Result<()> {
        match streams {
            Streams::Http1 => self.over_http1(port, calls).await,
            Streams::Http2 => self.over_http2(port, calls).await,
        }
    }

    async fn over_http1(&mut self, port: u16, calls: usize) -> anyhow::Result<()> {
        for id in 0..calls {
            let request = request(id as u64, Shape::Small);
            let mut connection = Connection::open(port).await?;
            // The buffer of a connection that waits would outweigh everything else.
            connection.buffer = vec![0; 4 << 10];
            connection.stream.write_all(&request).await?;
            self.0.spawn(async move { connection.answer().await.map(drop) });
        }
        Ok(())
    }

    async fn over_http2(&mut self, port: u16, calls: usize) -> anyhow::Result<()> {
        for first in (0..calls).step_by(STREAMS_PER_CONNECTION) {
            let stream = TcpStream::connect(("127.0.0.1", port)).await?;
            stream.set_nodelay(true)?;
            let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
            tokio::spawn(connection);
            for id in first..calls.min(first + STREAMS_PER_CONNECTION) {
                let mut sender = sender.clone();
                self.0.spawn(async move {
                    sender.ready().await?;
                    let answer = sender.send_request(http2_request(id as u64)?).await?;
                    ensure!(answer.status() == 200, "status {}", answer.status());
                    answer.into_body().collect().await?;
                    ANSWERS.fetch_add(1, Ordering::Relaxed);
                    Ok(())
                });
            }
        }
        Ok(())
    }

    /// Waits for all answers.
    pub(crate) async fn answered(mut self) -> anyhow::Result<()> {
        while let Some(done) = self.0.join_next().await {
            done?.context("a held call")?;
        }
        Ok(())
    }
}

fn http2_request(id: u64) -> anyhow::Result<Request<Full<Bytes>>> {
    let mut body = Vec::new();
    wire::write_call(&mut body, id, Shape::Small);
    Ok(Request::post("http://localhost/mcp")
        .header("accept", "application/json, text/event-stream")
        .header("content-type", "application/json")
        .header("mcp-protocol-version", "2025-06-18")
        .body(Full::new(Bytes::from(body)))?)
}
