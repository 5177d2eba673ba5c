//! A server on HTTP for a client that speaks lines: `holdshort run --url`.
//!
//! The session on this process's stdin and stdout is the one that a wrapped server has, with the same gate; here its lines become POSTs,
//! and what the server answers becomes lines. It decides nothing and keeps nothing but what the protocol asks of a client: the session's
//! id, the revision, and where a stream broke off.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use base64::prelude::{BASE64_STANDARD, Engine as _};
use bytes::Bytes;
use futures_util::StreamExt;
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use tokio::{
    io::{AsyncWriteExt, DuplexStream},
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    task::AbortHandle,
    time::{sleep, timeout},
};
use tokio_util::{
    codec::FramedRead,
    task::{AbortOnDropHandle, TaskTracker},
};

use super::{
    body::{EVENT_STREAM, JSON},
    headers::{self, PROTOCOL_VERSION, SESSION_ID},
    settings::UpstreamSettings,
    upstream::{NoResponse, Upstream, UpstreamBody},
    watch::one_line,
};
use crate::{
    gate::{Caller, Gate},
    jsonrpc::{
        ErrorCode, Frame, Kind, Line, LineCodec, RequestId, error_response,
        scan::{self, members},
        sse::{Events, Fields},
    },
    mcp::{self, Cancelled, Initialize, method},
    transport::{
        calls::{NoAnswer, NoAnswers},
        session::{self, Lifecycle, SessionLimits},
        stdio::{self, WrapError},
    },
};

/// Bytes that wait between the session and the requests that it becomes, in each direction.
const PIPE_BYTES: usize = 256 * 1024;

/// Answers that wait to be written.
const LINES_WAITING_MAX: usize = 64;

/// How long a stream that broke off is left alone where the server does not say.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The longest pause that a server may ask for.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);

/// How often in a row a stream is asked for again without having brought anything.
const RETRIES_MAX: u32 = 5;

/// How long a server may take to accept a message that it does not answer.
const TAKES_MAX: Duration = Duration::from_secs(10);

/// How long calls may take to end, and the session to be given back, when the client has gone.
const LAST_WORDS: Duration = Duration::from_millis(800);

/// The longest error of a server that is read, in bytes.
const ERROR_BYTES_MAX: usize = 64 * 1024;

/// What is said of a request that was sent and not answered.
const LOST: &str = "the connection to the server ended before its answer; the tool may have run";

/// Runs the session between the client on this process's stdin and the server that `settings` describe, until either is gone.
///
/// # Errors
///
/// When this process's own streams or signals cannot be used.
pub async fn serve(
    settings: UpstreamSettings,
    gate: Arc<Gate>,
    caller: Caller,
    limits: SessionLimits,
) -> Result<(), WrapError> {
    let setup = |source| WrapError::Setup { what: "signals", source };
    let mut terminate = signal(SignalKind::terminate()).map_err(setup)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(setup)?;
    // One pipe for each direction: each has an end of its own.
    let (to_bridge, from_session) = tokio::io::duplex(PIPE_BYTES);
    let (from_bridge, to_session) = tokio::io::duplex(PIPE_BYTES);
    let no_answers = NoAnswers::default();
    let lifecycle = Lifecycle { no_answers: Some(no_answers.clone()), ..stdio::own_lifecycle() };
    let upstream = (Arc::new(Upstream::new(settings, 1)), no_answers);
    let bridge = tokio::spawn(bridge(upstream, from_session, to_session, limits));
    let client = stdio::own_streams()?;
    let session = session::run(gate, caller, client, (from_bridge, to_bridge), limits, lifecycle.clone());
    let mut session = std::pin::pin!(session);
    tokio::select! {
        () = &mut session => {}
        _ = terminate.recv() => lifecycle.stop.cancel(),
        _ = interrupt.recv() => lifecycle.stop.cancel(),
    }
    if lifecycle.stop.is_cancelled() {
        // A client that does not read is not waited for.
        let _ = timeout(LAST_WORDS * 2, session).await;
    }
    let _ = timeout(LAST_WORDS * 2, bridge).await;
    Ok(())
}

/// What all requests to the server share.
struct Remote {
    upstream: Arc<Upstream>,
    /// What goes to the client.
    lines: mpsc::Sender<Bytes>,
    /// Which of that is no answer of the server.
    no_answers: NoAnswers,
    state: Mutex<State>,
    frame_bytes_max: usize,
}

#[derive(Default)]
struct State {
    session: Option<HeaderValue>,
    revision: Option<HeaderValue>,
    /// Requests of the era without sessions that can be taken back by closing their stream.
    running: HashMap<RequestId, AbortHandle>,
    /// The request that begins the session.
    first: Option<RequestId>,
    /// Reads the server's own stream.
    listening: Option<AbortOnDropHandle<()>>,
}

/// Makes requests of the lines that the session has permitted, until it closes.
async fn bridge(
    (upstream, no_answers): (Arc<Upstream>, NoAnswers),
    from_session: DuplexStream,
    mut to_session: DuplexStream,
    limits: SessionLimits,
) {
    let (lines, mut waiting) = mpsc::channel::<Bytes>(LINES_WAITING_MAX);
    let state = Mutex::default();
    let frame_bytes_max = limits.server_frame_bytes_max;
    let remote = Arc::new(Remote { upstream, lines, no_answers, state, frame_bytes_max });
    let writing = tokio::spawn(async move {
        while let Some(line) = waiting.recv().await {
            if to_session.write_all(&line).await.is_err() {
                return;
            }
        }
        let _ = to_session.shutdown().await;
    });
    let mut reader = FramedRead::new(from_session, LineCodec::new(limits.client_frame_bytes_max + 1));
    let tasks = TaskTracker::new();
    while let Some(Ok(line)) = reader.next().await {
        // The session has read it before and lets nothing else through.
        if let Line::Text(bytes) = line
            && let Ok(frame) = Frame::from_client(bytes)
        {
            remote.pass(frame, &tasks).await;
        }
    }
    tasks.close();
    // What still runs may end, and the session is given back; then nobody is left to tell.
    drop(remote.state().listening.take());
    let _ = timeout(LAST_WORDS, tasks.wait()).await;
    remote.end().await;
    drop(remote);
    // The last answers; one that is still running would keep it open for ever.
    let stop = writing.abort_handle();
    if timeout(LAST_WORDS / 4, writing).await.is_err() {
        stop.abort();
    }
}

impl Remote {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One message of the client. Those that nobody answers arrive in order; a request waits for nothing but `initialize`.
    async fn pass(self: &Arc<Self>, frame: Frame, tasks: &TaskTracker) {
        let cancelled = || frame.params().and_then(Cancelled::parse).map(|cancelled| cancelled.request);
        match frame.kind() {
            Kind::Request => {
                let remote = Arc::clone(self);
                let id = frame.id().cloned();
                let is_first = frame.method() == Some(method::INITIALIZE);
                let modern = mcp::declares_version(&frame);
                // What another request of this id has left that was taken back is not about this one.
                let _ = id.as_ref().and_then(|id| self.no_answers.take(id));
                if is_first {
                    self.state().first.clone_from(&id);
                }
                let task = tasks.spawn(async move { remote.request(frame).await });
                if is_first {
                    // Everything else needs what the answer says.
                    let _ = task.await;
                } else if let Some(id) = id.filter(|_| modern) {
                    let mut state = self.state();
                    state.running.retain(|_, task| !task.is_finished());
                    state.running.insert(id, task.abort_handle());
                }
            }
            Kind::Notification if frame.method() == Some(method::CANCELLED) => {
                let running = cancelled().and_then(|id| self.state().running.remove(&id));
                match running {
                    // Closing the stream is how a request of this era is taken back.
                    Some(task) => task.abort(),
                    None => self.tell(&frame).await,
                }
            }
            Kind::Notification | Kind::Response => self.tell(&frame).await,
        }
    }

    /// A message that nobody answers.
    async fn tell(self: &Arc<Self>, frame: &Frame) {
        match timeout(TAKES_MAX, self.post(frame)).await {
            Ok(Ok(response)) if response.status().is_success() => {}
            Ok(Ok(response)) => {
                tracing::warn!(status = %response.status(), "the server did not take a message")
            }
            Ok(Err(error)) => tracing::warn!(%error, "a message did not reach the server"),
            Err(_) => tracing::warn!("the server did not take a message in time"),
        }
        let mut state = self.state();
        if frame.method() == Some(method::INITIALIZED) && state.listening.is_none() {
            let remote = Arc::clone(self);
            state.listening =
                Some(AbortOnDropHandle::new(tokio::spawn(async move { remote.listen().await })));
        }
    }

    async fn request(&self, frame: Frame) {
        let Some(id) = frame.id() else { return };
        match self.post(&frame).await {
            Ok(response) => self.answer(id, &frame, response).await,
            Err(error) => {
                tracing::warn!(%error, "a request got no answer");
                let (why, text) = match error {
                    NoResponse::NotSent(_) => (NoAnswer::NotSent, "the server cannot be reached"),
                    NoResponse::Lost(_) => (NoAnswer::Lost, LOST),
                };
                self.fail(id, why, text).await;
            }
        }
    }

    /// The server has not answered: the session knows what that means for the request.
    async fn fail(&self, id: &RequestId, why: NoAnswer, text: &str) {
        self.no_answers.put(id.clone(), why);
        self.say(error_response(Some(id), ErrorCode::INTERNAL_ERROR, text, None)).await;
    }

    async fn say(&self, line: Bytes) {
        let _ = self.lines.send(line).await;
    }

    async fn post(&self, frame: &Frame) -> Result<Response<UpstreamBody>, NoResponse> {
        let mut request = self.bare(Method::POST, Full::new(Bytes::copy_from_slice(frame.text().as_bytes())));
        let headers = request.headers_mut();
        headers.insert(header::CONTENT_TYPE, JSON);
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json, text/event-stream"));
        if let Some(version) = mcp::declared_version(frame) {
            mirror(headers, frame, &version);
        }
        self.upstream.send(0, request).await
    }

    /// A request with what all have: the session, the revision and the configured headers.
    fn bare(&self, method: Method, body: Full<Bytes>) -> Request<Full<Bytes>> {
        let settings = &self.upstream.settings;
        let mut request = Request::new(body);
        *request.method_mut() = method;
        *request.uri_mut() = settings.target.uri.clone();
        let headers = request.headers_mut();
        headers.insert(header::HOST, settings.target.authority.clone());
        headers.insert(
            header::USER_AGENT,
            HeaderValue::from_static(concat!("holdshort/", env!("CARGO_PKG_VERSION"))),
        );
        let state = self.state();
        for (name, value) in [(SESSION_ID, &state.session), (PROTOCOL_VERSION, &state.revision)] {
            if let Some(value) = value {
                headers.insert(name, value.clone());
            }
        }
        for (name, value) in &settings.headers {
            headers.insert(name, value.clone());
        }
        request
    }

    async fn answer(&self, id: &RequestId, frame: &Frame, response: Response<UpstreamBody>) {
        let (head, body) = response.into_parts();
        let kind = head.headers.get(header::CONTENT_TYPE);
        if frame.method() == Some(method::INITIALIZE) && head.status.is_success() {
            self.state().session = head.headers.get(SESSION_ID).cloned();
        }
        if head.status.is_success() && headers::is_type(kind, "text/event-stream") {
            return self.stream(id, body).await;
        }
        let bytes_max = if head.status.is_success() { self.frame_bytes_max } else { ERROR_BYTES_MAX };
        let message = match whole(body, bytes_max).await {
            Err(error) if head.status.is_success() => {
                tracing::warn!(%error, "an answer of the server broke off");
                return self.fail(id, NoAnswer::Lost, LOST).await;
            }
            whole => whole.ok().flatten().filter(|_| headers::is_type(kind, "application/json")),
        };
        let answer = message.and_then(|message| Frame::from_server(one_line(message)).ok());
        match answer.filter(|answer| answer.id() == Some(id)) {
            Some(answer) => self.pass_back(answer).await,
            None => {
                let status = head.status.as_u16();
                let text = format!("the server answered with HTTP status {status} and without a result");
                self.fail(id, NoAnswer::Status(status), &text).await;
            }
        }
    }

    /// What the server says goes to the session, which knows what may pass.
    async fn pass_back(&self, message: Frame) {
        let is_first = self.state().first.as_ref().is_some_and(|first| message.id() == Some(first));
        if let Some(initialize) = message.result().filter(|_| is_first).and_then(Initialize::from_result) {
            self.state().revision = HeaderValue::try_from(&*initialize.protocol_version).ok();
        }
        self.say(message.into_bytes().into_line()).await;
    }

    /// The events of one answer, also where the server lets the client come back for them.
    async fn stream(&self, id: &RequestId, body: UpstreamBody) {
        let mut place = Place::default();
        let mut body = Some(body);
        let mut tries = 0;
        loop {
            if let Some(body) = body.take()
                && self.events(body, &mut place, Some(id), &mut tries).await
            {
                return;
            }
            if place.last_event.is_none() || tries >= RETRIES_MAX {
                let text = "the server ended its answer before the result; the tool may have run";
                return self.fail(id, NoAnswer::Lost, text).await;
            }
            tries += 1;
            sleep(place.retry_after()).await;
            body = self.resumed(&place).await.ok();
        }
    }

    /// The server's own stream, for as long as it offers one.
    async fn listen(&self) {
        let mut place = Place::default();
        let mut tries = 0;
        while tries <= RETRIES_MAX && !self.lines.is_closed() {
            match self.resumed(&place).await {
                Ok(body) => drop(self.events(body, &mut place, None, &mut tries).await),
                // It has none.
                Err(Some(status)) if status.is_client_error() => return,
                Err(_) => {}
            }
            tries += 1;
            sleep(place.retry_after()).await;
        }
    }

    /// Asks for a stream, from where it broke off.
    async fn resumed(&self, place: &Place) -> Result<UpstreamBody, Option<StatusCode>> {
        let mut request = self.bare(Method::GET, Full::default());
        request.headers_mut().insert(header::ACCEPT, EVENT_STREAM);
        if let Some(last) = &place.last_event {
            request.headers_mut().insert("last-event-id", last.clone());
        }
        let response = self.upstream.send(0, request).await.map_err(|_| None)?;
        let is_stream = headers::is_type(response.headers().get(header::CONTENT_TYPE), "text/event-stream");
        if response.status().is_success() && is_stream {
            Ok(response.into_body())
        } else {
            Err(Some(response.status()))
        }
    }

    /// Passes events on to their end. Whether the answer to `id` was among them.
    async fn events(
        &self,
        mut body: UpstreamBody,
        place: &mut Place,
        id: Option<&RequestId>,
        tries: &mut u32,
    ) -> bool {
        let mut events = Events::new(self.frame_bytes_max);
        while let Some(Ok(chunk)) = std::future::poll_fn(|cx| body.poll_chunk(cx)).await {
            events.push(chunk);
            loop {
                let event = match events.next_event() {
                    Ok(Some(event)) => event,
                    Ok(None) => break,
                    Err(error) => {
                        tracing::warn!(%error, "a stream of the server was given up");
                        return false;
                    }
                };
                *tries = 0;
                let fields = event.fields();
                place.learn(&fields);
                let Some(data) = fields.message() else { continue };
                match Frame::from_server(one_line(data)) {
                    Ok(message) => {
                        let is_answer =
                            message.kind() == Kind::Response && message.id() == id && id.is_some();
                        self.pass_back(message).await;
                        if is_answer {
                            return true;
                        }
                    }
                    Err(error) => tracing::warn!(%error, "an event of the server is not a message; dropped"),
                }
            }
        }
        false
    }

    /// Gives the session back.
    async fn end(&self) {
        if self.state().session.is_some() {
            let request = self.bare(Method::DELETE, Full::default());
            let _ = timeout(LAST_WORDS / 2, self.upstream.send(0, request)).await;
        }
    }
}

/// Where in a stream the client is.
#[derive(Default)]
struct Place {
    last_event: Option<HeaderValue>,
    retry: Option<Duration>,
}

impl Place {
    fn learn(&mut self, fields: &Fields<'_>) {
        if let Some(id) = fields.id {
            self.last_event = HeaderValue::from_bytes(id).ok();
        }
        if let Some(retry) = fields.retry_ms {
            self.retry = Some(Duration::from_millis(retry).min(RETRY_AFTER_MAX));
        }
    }

    fn retry_after(&self) -> Duration {
        self.retry.unwrap_or(RETRY_AFTER)
    }
}

/// The headers that mirror a message of the era without sessions.
fn mirror(headers: &mut http::HeaderMap, frame: &Frame, version: &str) {
    let mut set = |name: &'static str, value: &str| {
        let is_plain = value.bytes().all(|byte| (b' '..=b'~').contains(&byte))
            && value.trim() == value
            && !value.starts_with("=?base64?");
        let value =
            if is_plain { value.to_owned() } else { format!("=?base64?{}?=", BASE64_STANDARD.encode(value)) };
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    };
    set("mcp-protocol-version", version);
    let method = frame.method().unwrap_or_default();
    set("mcp-method", method);
    let key = match method {
        method::TOOLS_CALL | "prompts/get" => "name",
        "resources/read" => "uri",
        _ => return,
    };
    let target = members(frame.params().unwrap_or("{}")).find(|(name, _)| name == key);
    if let Some((_, target)) = target {
        set("mcp-name", &scan::unescape(target));
    }
}

/// All of a body, if it is not longer than `bytes_max`; an error if it broke off.
async fn whole(mut body: UpstreamBody, bytes_max: usize) -> Result<Option<Bytes>, hyper::Error> {
    let mut collected = bytes::BytesMut::new();
    while let Some(chunk) = std::future::poll_fn(|cx| body.poll_chunk(cx)).await {
        let chunk = chunk?;
        if collected.len() + chunk.len() > bytes_max {
            return Ok(None);
        }
        collected.extend_from_slice(&chunk);
    }
    Ok(Some(collected.freeze()))
}
