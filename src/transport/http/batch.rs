//! A batch of a client (MCP 2025-03-26 alone): each message in it is judged and sent on its own, and the answers go back together.
//!
//! Called by `post` and `lines` for an array where batches were negotiated; they say what becomes of one message. Answers go back as the
//! events of one stream, or as one array to a client that takes no events. Nothing here decides anything, and no message is changed.

use std::future::Future;

use bytes::{Bytes, BytesMut};
use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use http::{Response, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use tokio::sync::mpsc;

use super::{
    body::{self, Body},
    headers,
};
use crate::{
    gate::Refusal,
    jsonrpc::{
        ErrorCode, Frame, Kind, RequestId, error_response,
        sse::{Events, event_of},
    },
    mcp::method,
};

/// Events that wait for a client that reads slowly.
const EVENTS_WAITING_MAX: usize = 16;

/// What an answer may be.
#[derive(Clone, Copy)]
pub(super) struct Form {
    /// Whether the client takes events.
    pub(super) takes_events: bool,
    /// The longest message or event of a server that is looked into, in bytes.
    pub(super) server_frame_bytes_max: usize,
}

/// One request of the batch, and what its answer is.
type Answer = (RequestId, Response<Body>);

/// Answers the messages of a batch; `one` answers a single one. A message that nobody answers goes before what stands behind it; that it was
/// not taken is the answer only where there is no other.
pub(super) async fn answer<A>(
    elements: Vec<Bytes>,
    form: Form,
    one: impl Fn(Frame) -> A + Send,
) -> Response<Body>
where
    A: Future<Output = Response<Body>> + Send + 'static,
{
    // What is known at once, in the words of the gate.
    let mut said: Vec<Bytes> = Vec::new();
    let mut asked: FuturesUnordered<BoxFuture<'static, Answer>> = FuturesUnordered::new();
    // What became of the first message without an answer that was not taken.
    let mut not_taken: Option<Response<Body>> = None;
    for element in elements {
        let frame = match Frame::from_client(element) {
            Ok(frame) if frame.method() == Some(method::INITIALIZE) => {
                let text = "initialize must not be part of a batch";
                said.extend(
                    Refusal::invalid(frame.id().cloned(), ErrorCode::INVALID_REQUEST, text).to_bytes(),
                );
                continue;
            }
            Ok(frame) => frame,
            Err(error) => {
                said.extend(Refusal::unreadable(&error).to_bytes());
                continue;
            }
        };
        match frame.id().filter(|_| frame.kind() == Kind::Request).cloned() {
            Some(id) => {
                // A task of its own: it begins now, and ends with whoever waits for it.
                let running = tokio_util::task::AbortOnDropHandle::new(tokio::spawn(one(frame)));
                let lost = move || body::text(StatusCode::INTERNAL_SERVER_ERROR, "the request was given up");
                asked.push(running.map(move |done| (id, done.unwrap_or_else(|_| lost()))).boxed());
            }
            None => {
                let told = one(frame).await;
                if !told.status().is_success() {
                    tracing::warn!(status = %told.status(), "a message of a batch was not taken");
                    not_taken.get_or_insert(told);
                }
            }
        }
    }
    let Some(first) = asked.next().await else {
        return if said.is_empty() {
            not_taken.unwrap_or_else(|| body::empty(StatusCode::ACCEPTED))
        } else {
            body::json(StatusCode::OK, array(&said))
        };
    };
    if matches!(first.1.status(), StatusCode::UNAUTHORIZED | StatusCode::NOT_FOUND) {
        // The session or the authorization has ended, which concerns all of them.
        return first.1;
    }
    if form.takes_events {
        return stream(first, asked, said, form);
    }
    said.extend(message(first, form).await);
    while let Some(next) = asked.next().await {
        said.extend(message(next, form).await);
    }
    body::json(StatusCode::OK, array(&said))
}

/// All answers as the events of one stream, in the order in which they come.
fn stream(
    first: Answer,
    asked: FuturesUnordered<BoxFuture<'static, Answer>>,
    said: Vec<Bytes>,
    form: Form,
) -> Response<Body> {
    let (chunks, relayed) = mpsc::channel(EVENTS_WAITING_MAX);
    tokio::spawn(async move {
        let told = async {
            for message in said {
                chunks.send(event_of(&message)).await.ok()?;
            }
            let answers = futures_util::stream::once(async { first }).chain(asked);
            answers.for_each_concurrent(None, |answer| relay(answer, &chunks, form)).await;
            Some(())
        };
        tokio::select! {
            _ = told => {}
            // What still runs or waits ends as it would if each of them had a connection of its own.
            () = chunks.closed() => {}
        }
    });
    body::event_stream(Body::Relay(relayed))
}

/// Passes one answer on as events.
async fn relay((id, response): Answer, chunks: &mpsc::Sender<Bytes>, form: Form) {
    if !is_stream(&response) {
        if let Some(message) = message((id, response), form).await {
            let _ = chunks.send(event_of(&message)).await;
        }
        return;
    }
    let mut events = response.into_body();
    // Every piece is whole events: what is a stream is looked into on its way.
    while let Some(Ok(piece)) = events.frame().await {
        if let Ok(piece) = piece.into_data()
            && chunks.send(piece).await.is_err()
        {
            return;
        }
    }
}

fn is_stream(response: &Response<Body>) -> bool {
    headers::is_type(response.headers().get(header::CONTENT_TYPE), "text/event-stream")
}

/// The message that answers the request, whatever its form; an error where there is none.
async fn message((id, response): Answer, form: Form) -> Option<Bytes> {
    let (status, is_stream) = (response.status(), is_stream(&response));
    let text = Limited::new(response.into_body(), form.server_frame_bytes_max).collect().await;
    let text = text.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let answer = if is_stream { answer_among(text, &id, form) } else { Some(text) };
    let answers = |text: &Bytes| {
        Frame::from_server(super::watch::one_line(text.clone()))
            .is_ok_and(|frame| frame.kind() == Kind::Response && frame.id() == Some(&id))
    };
    Some(answer.filter(answers).unwrap_or_else(|| {
        let text = format!("the server has not answered this request (HTTP status {})", status.as_u16());
        error_response(Some(&id), ErrorCode::INTERNAL_ERROR, &text, None)
    }))
}

/// The answer to `id` in a stream that a client gets which takes none.
fn answer_among(text: Bytes, id: &RequestId, form: Form) -> Option<Bytes> {
    let mut events = Events::new(form.server_frame_bytes_max);
    events.push(text);
    while let Ok(Some(event)) = events.next_event() {
        let Some(data) = event.fields().data() else { continue };
        let is_answer = Frame::from_server(super::watch::one_line(data.clone()))
            .is_ok_and(|frame| frame.kind() == Kind::Response && frame.id() == Some(id));
        if is_answer {
            return Some(data);
        }
    }
    None
}

/// The messages as a batch of their own.
fn array(messages: &[Bytes]) -> Bytes {
    let mut array = BytesMut::from(&b"["[..]);
    for (at, message) in messages.iter().enumerate() {
        if at > 0 {
            array.extend_from_slice(b",");
        }
        array.extend_from_slice(message.trim_ascii());
    }
    array.extend_from_slice(b"]");
    array.freeze()
}
