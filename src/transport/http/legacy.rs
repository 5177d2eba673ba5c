//! The transport of MCP 2024-11-05: a stream of events, and another place, which the stream names first, for what the client sends.
//!
//! Used by `watch`, where a server's stream begins so, and for POSTs to the place that is named instead of the server's. Each message is
//! shown to the gate as anywhere else; answers, and what is to be said of a held call, go back on the stream. The server's own place never
//! reaches a client, and what is at another origin than the server is never sent to.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use bytes::Bytes;
use http::{Request, Response, StatusCode, Uri};
use hyper::body::Incoming;
use tokio::sync::mpsc;

use super::{
    Exchange,
    body::{self, Body},
    headers,
    held::{self, Held},
    post::{self, Asked},
    sessions::Session,
    settings::Target,
    upstream::Upstream,
    watch::Interest,
};
use crate::{
    gate::Screened,
    hold::{Absence, HoldId},
    jsonrpc::{Frame, Kind, sse::event_of},
    mcp::{Initialize, method},
    principal::Principal,
};

/// What stands between the path of a server and the name of a stream.
const MESSAGES: &str = "/messages/";

/// Events of ours that wait for a client that reads slowly.
const EVENTS_WAITING_MAX: usize = 64;

/// One client of a server that speaks this transport.
pub(super) struct Stream {
    session: Arc<Session>,
    principal: Arc<Principal>,
    /// Where the server takes what the client sends.
    uri: Uri,
    /// What is said on the stream besides what the server says.
    to_client: mpsc::Sender<Bytes>,
}

/// The streams of one server, by their names in our paths.
#[derive(Default)]
pub(super) struct Streams(Mutex<HashMap<Box<str>, Arc<Stream>>>);

impl Streams {
    fn known(&self) -> MutexGuard<'_, HashMap<Box<str>, Arc<Stream>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there is a stream of this name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.known().contains_key(name)
    }
}

/// The path of a server, and the name of a stream of it, if `path` is one to send messages to.
pub(super) fn stream_at(path: &str) -> Option<(&str, &str)> {
    path.rsplit_once(MESSAGES)
}

/// What a stream needs that may begin in this way.
pub(super) struct Opening {
    exchange: Exchange,
}

/// A stream that has begun: it ends when this is dropped.
pub(super) struct Opened {
    /// What is to be said on it besides what the server says.
    pub(super) beside: mpsc::Receiver<Bytes>,
    /// The client.
    pub(super) session: Arc<Session>,
    upstream: Arc<Upstream>,
    /// The gate goes on without the stream, not the stream without the gate.
    gate: Weak<crate::gate::Gate>,
    name: Box<str>,
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.upstream.streams.known().remove(&self.name);
        if let Some(gate) = self.gate.upgrade() {
            self.session.detach_all(&gate, Absence::ClientGone);
        }
    }
}

impl Opening {
    pub(super) fn new(exchange: &Exchange) -> Self {
        Self { exchange: exchange.clone() }
    }

    /// The server has named `place`: what the client hears instead. None if nothing may be sent there.
    pub(super) fn named(self, place: &[u8]) -> Option<(Bytes, Opened)> {
        let Exchange { upstream, principal, worker, .. } = self.exchange;
        let uri = place_of(&upstream.settings.target, std::str::from_utf8(place).ok()?);
        let Some(uri) = uri else {
            tracing::warn!(
                server = &*upstream.settings.name,
                "the server wants to be spoken to at another origin, which is not done"
            );
            return None;
        };
        let name: Box<str> = HoldId::random().ok()?.to_string().into();
        let session = upstream.sessions.begin_named(&principal, &name);
        let (to_client, beside) = mpsc::channel(EVENTS_WAITING_MAX);
        let stream = Stream { session: Arc::clone(&session), principal, uri, to_client };
        upstream.streams.known().insert(name.clone(), Arc::new(stream));
        let event = format!("event: endpoint\ndata: {}{MESSAGES}{name}\n\n", upstream.settings.path);
        let gate = Arc::downgrade(&worker.proxy.gate);
        Some((event.into(), Opened { beside, session, upstream, gate, name }))
    }
}

/// The path and query of `place`, as a server at `target` names it, if it is at that server.
fn place_of(target: &Target, place: &str) -> Option<Uri> {
    let scheme = if target.tls.is_some() { "https" } else { "http" };
    let base = format!("{scheme}://{}{}", target.authority.to_str().ok()?, target.uri);
    let base = url::Url::parse(&base).ok()?;
    let place = base.join(place).ok()?;
    if place.origin() != base.origin() || !place.username().is_empty() || place.password().is_some() {
        return None;
    }
    place[url::Position::BeforePath..url::Position::AfterQuery].parse().ok()
}

/// Answers one POST to a stream's place.
pub(super) async fn post(exchange: Exchange, request: Request<Incoming>) -> Response<Body> {
    let (head, incoming) = request.into_parts();
    let name = stream_at(head.uri.path()).map_or("", |(_, name)| name);
    let stream = exchange.upstream.streams.known().get(name).cloned();
    let Some(stream) = stream.filter(|stream| stream.principal == exchange.principal) else {
        return body::text(StatusCode::NOT_FOUND, "no such stream");
    };
    let account = || exchange.account();
    let text = match post::read(incoming, head.version, exchange.limits(), account).await {
        Ok(text) => text,
        Err(response) => return *response,
    };
    let frame = match Frame::from_client(text) {
        Ok(frame) => frame,
        Err(error) => return post::unreadable(&exchange, &error),
    };
    match headers::agree(&head.headers, &frame) {
        Ok(false) => {}
        Ok(true) => return body::text(StatusCode::BAD_REQUEST, "this revision has no such stream"),
        Err(mismatch) => return mismatch.into_response(&frame),
    }
    let asked = asked(&stream, &frame);
    if let Some(response) = post::settled_here(&exchange, &asked, &frame) {
        return response;
    }
    match exchange.gate().screen(&asked.session.caller(), frame) {
        Screened::Pass(permitted) => {
            let request = post::request_upstream_at(&exchange, stream.uri.clone(), head, permitted);
            match exchange.send(request).await {
                Ok(response) => taken(response),
                Err(error) => post::unreachable(&exchange, &asked, &error),
            }
        }
        Screened::Refuse(refusal) => {
            if let Some(message) = refusal.to_bytes() {
                // The client has a request open, and reads.
                let _ = stream.to_client.send(event_of(&message)).await;
            }
            body::empty(StatusCode::ACCEPTED)
        }
        Screened::Hold(call) => {
            let held = Held { exchange, head, asked };
            held::hold_beside(held, call, stream.to_client.clone(), stream.uri.clone())
        }
    }
}

fn asked(stream: &Stream, frame: &Frame) -> Asked {
    let id = frame.id().filter(|_| frame.kind() == Kind::Request).cloned();
    let interest = match frame.method() {
        Some(method::INITIALIZE) => Interest::Initialize,
        Some(method::TOOLS_LIST) => Interest::ToolsList,
        _ => Interest::None,
    };
    if interest == Interest::Initialize
        && let Some(begin) = frame.params().and_then(Initialize::from_params)
    {
        stream.session.is_able(begin.capabilities);
        if let Some(client) = begin.peer {
            stream.session.is_client(&client.name, &client.to_string());
        }
    }
    if let Some(id) = id.clone().filter(|_| interest != Interest::None) {
        stream.session.is_interested(id, interest);
    }
    Asked {
        session: Arc::clone(&stream.session),
        id,
        is_tool_call: frame.method() == Some(method::TOOLS_CALL),
        is_subscription: false,
        modern: false,
        interest,
    }
}

/// The server's word that it has taken a message, or has not: what it answers to it comes on the stream.
fn taken(response: Response<super::upstream::UpstreamBody>) -> Response<Body> {
    let (mut head, from_server) = response.into_parts();
    if head.status.is_success() {
        return body::empty(StatusCode::ACCEPTED);
    }
    if head.status.is_redirection() || head.status.is_informational() {
        return body::text(
            StatusCode::BAD_GATEWAY,
            "the server answered with a redirect, which is not followed",
        );
    }
    headers::for_client(&mut head.headers);
    Response::from_parts(head, Body::Upstream(from_server))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_place_at_the_server_itself_is_sent_to() {
        let target = Target::parse("http://127.0.0.1:3000/a/sse", None).unwrap();
        for (place, uri) in [
            ("/messages?sessionId=1", Some("/messages?sessionId=1")),
            ("messages/1", Some("/a/messages/1")),
            ("?session=1", Some("/a/sse?session=1")),
            ("http://127.0.0.1:3000/m", Some("/m")),
            ("http://127.0.0.1:3000/m?a=1#b", Some("/m?a=1")),
            ("//127.0.0.1:3000/m", Some("/m")),
            ("http://127.0.0.1:3001/m", None),
            ("https://127.0.0.1:3000/m", None),
            ("//example.com/m", None),
            ("http://user@127.0.0.1:3000/m", None),
            ("file:///etc/passwd", None),
        ] {
            assert_eq!(place_of(&target, place).map(|uri| uri.to_string()).as_deref(), uri, "{place}");
        }
    }
}
