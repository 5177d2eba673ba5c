//! The server at the end of the HTTP bench: hyper, on two threads, which answers a call with what the tool's name asks for.
//!
//! Run by `http.rs` when it is started with a role. It looks at nothing but the id and the name, and keeps nothing.

use std::{convert::Infallible, net::TcpListener as StdListener};

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderValue, Request, Response, header};
use http_body_util::{BodyExt as _, Either, Full, StreamBody};
use hyper::{
    body::{Frame, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use memchr::memmem;
use tokio::net::TcpListener;

use super::wire;

/// Bytes of one event of a long stream.
pub(crate) const EVENT_BYTES: usize = 1 << 10;
/// Events of a long stream, without the answer that ends it.
pub(crate) const EVENTS: usize = 32 << 10;

/// What the tool is called that answers with a long stream.
pub(crate) const STREAM_TOOL: &str = "stream";

/// Serves until it is killed; the first line on stdout is the port.
#[expect(clippy::print_stdout, reason = "the port is for the driver")]
pub(crate) fn serve() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let listener = StdListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        println!("{}", listener.local_addr()?.port());
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let service = service_fn(answer);
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    })
}

type Events = stream::Iter<std::vec::IntoIter<Result<Frame<Bytes>, Infallible>>>;

async fn answer(
    request: Request<Incoming>,
) -> Result<Response<Either<Full<Bytes>, StreamBody<Events>>>, hyper::Error> {
    let body = request.into_body().collect().await?.to_bytes();
    // The driver's calls have their id and their tool at the front.
    let head = &body[..body.len().min(120)];
    let id = memmem::find(head, br#""id":"#).map_or(&b"null"[..], |at| {
        let rest = &head[at + 5..];
        &rest[..rest.iter().position(|byte| *byte == b',').unwrap_or(rest.len())]
    });
    if memmem::find(head, format!(r#""name":"{STREAM_TOOL}""#).as_bytes()).is_some() {
        let mut response = Response::new(Either::Right(StreamBody::new(events(id))));
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
        // What servers say to proxies that would gather a stream first.
        response.headers_mut().insert("x-accel-buffering", HeaderValue::from_static("no"));
        return Ok(response);
    }
    let bytes = if memmem::find(head, br#""name":"read""#).is_some() {
        wire::LARGE_FRAME_BYTES
    } else {
        wire::SMALL_FRAME_BYTES
    };
    let mut out = Vec::with_capacity(bytes);
    wire::write_answer(&mut out, id, bytes);
    let mut response = Response::new(Either::Left(Full::new(Bytes::from(out))));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

/// A long stream of notifications, and the answer to the call `id`.
fn events(id: &[u8]) -> Events {
    let mut event =
        br#"data: {"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":""#
            .to_vec();
    event.resize(EVENT_BYTES - 6, b'x');
    event.extend_from_slice(b"\"}}\n\n");
    let event = Bytes::from(event);
    let mut last = b"data: ".to_vec();
    let begin = last.len();
    wire::write_answer(&mut last, id, begin + wire::SMALL_FRAME_BYTES);
    last.push(b'\n');
    let mut frames: Vec<_> = (0..EVENTS).map(|_| Ok(Frame::data(event.clone()))).collect();
    frames.push(Ok(Frame::data(Bytes::from(last))));
    stream::iter(frames)
}
