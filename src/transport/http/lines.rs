//! A server that speaks stdio, offered over HTTP: one process for each session, behind the session that `run` has.
//!
//! Used for servers whose configuration names a command. The gate is in `transport::session`, as everywhere on stdio; here POSTs become
//! lines, and lines become answers and events. Requests of the era without sessions share processes with others of their principal, never
//! two with one id in one process. This file decides nothing and changes no line.

use std::{
    collections::{HashMap, HashSet},
    ffi::OsString,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::StreamExt;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use tokio::{
    io::{AsyncWriteExt, DuplexStream},
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval_at, sleep},
};
use tokio_util::codec::FramedRead;

use super::{
    Endless, Proxy,
    accounts::{Account, Open},
    batch,
    body::{self, Body},
    headers::{self, SESSION_ID},
    held::KEEPALIVE,
    post,
    settings::HttpLimits,
    stream,
};
use crate::{
    gate::{Caller, ListedTools, Refusal},
    hold::HoldId,
    jsonrpc::{ErrorCode, Frame, Kind, Line, LineCodec, RequestId, scan::members, sse::event_of},
    mcp::{self, Initialize, Progress, VERSION_WITH_BATCHES, method},
    principal::Principal,
    transport::{
        session::{Lifecycle, SessionLimits},
        stdio::{self, Server},
    },
    waiting::Wait,
};

/// Processes of one server.
const PROCESSES_MAX: usize = 64;

/// How long a process that nobody uses is kept.
const UNUSED_MAX: Duration = Duration::from_secs(3600);

/// Bytes that wait between a client and its session, in each direction.
const PIPE_BYTES: usize = 256 * 1024;

/// Messages that wait for a client that reads slowly.
const MESSAGES_WAITING_MAX: usize = 16;

/// How long an answer may be late to a request whose client has gone. Until then no other client's request has its id.
const LATE_MAX: Duration = Duration::from_secs(300);

/// Requests of one process whose clients have gone and whose answers may still come. With more of them it is nobody else's process.
const LEFT_MAX: usize = 1024;

/// A server behind a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandSettings {
    /// Its name in rules, lists and the record.
    pub name: Arc<str>,
    /// The path at which clients reach it.
    pub path: String,
    /// The only name, in lower case, by which clients call this proxy to reach it; none: by any.
    pub host: Option<String>,
    /// The program and its arguments, started as they are.
    pub command: Vec<OsString>,
    /// How long clients are kept waiting for people, where an operator has set it.
    pub wait: Option<Wait>,
}

/// All processes of one such server.
pub(super) struct LineServers {
    pub(super) settings: CommandSettings,
    began: Instant,
    running: Mutex<Running>,
}

#[derive(Default)]
struct Running {
    /// Those with a session.
    by_id: HashMap<Box<str>, Arc<Piped>>,
    /// Those for requests without one.
    shared: Vec<Arc<Piped>>,
}

/// One process and the session before it. Dropping it ends both.
struct Piped {
    principal: Arc<Principal>,
    /// What that principal has open.
    account: Arc<Account>,
    to_session: mpsc::Sender<Bytes>,
    router: Arc<Router>,
    lifecycle: Lifecycle,
    /// Seconds since the process began.
    used: AtomicU64,
}

/// Where the session's messages go.
#[derive(Default)]
struct Router {
    ways: Mutex<Ways>,
    /// The tools that the server has listed, in this process or in others for the same requests without a session.
    listed: Arc<Mutex<ListedTools>>,
}

#[derive(Default)]
struct Ways {
    calls: HashMap<RequestId, mpsc::Sender<Bytes>>,
    /// Those of them that ask for the server's tools.
    lists: HashSet<RequestId>,
    /// Requests whose clients have gone, and when: the server may answer them all the same.
    left: HashMap<RequestId, Instant>,
    /// Requests by the raw token of their progress.
    tokens: HashMap<Box<str>, RequestId>,
    /// The stream on which the server speaks first.
    listener: Option<mpsc::Sender<Bytes>>,
    /// The newest request: a server's own question most likely belongs to it.
    newest: Option<RequestId>,
    /// The request that negotiates the revision, until it is answered.
    initialize: Option<RequestId>,
    /// Whether that revision has batches.
    has_batches: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Why a message goes nowhere.
enum Nowhere {
    /// There is no such session, or it is somebody else's.
    NoSession,
    /// The process cannot be started.
    NoProcess,
    /// As many run as may.
    TooMany,
}

impl Nowhere {
    fn into_response(self) -> Response<Body> {
        match self {
            Self::NoSession => body::text(StatusCode::NOT_FOUND, "no such session"),
            Self::NoProcess => body::text(StatusCode::BAD_GATEWAY, "the server cannot be started"),
            Self::TooMany => body::text(StatusCode::SERVICE_UNAVAILABLE, "as many sessions run as may"),
        }
    }
}

impl LineServers {
    pub(super) fn new(settings: CommandSettings) -> Self {
        Self { settings, began: Instant::now(), running: Mutex::default() }
    }

    fn now(&self) -> u64 {
        self.began.elapsed().as_secs()
    }

    /// Begins a session: a process of its own, and the id by which its client will call it.
    fn begin(&self, proxy: &Proxy, principal: &Arc<Principal>) -> Result<(HeaderValue, Arc<Piped>), Nowhere> {
        let id = HoldId::random().map_err(|_| Nowhere::NoProcess)?.to_string();
        let header = HeaderValue::try_from(&id).map_err(|_| Nowhere::NoProcess)?;
        let piped = self.start(proxy, principal, Arc::default())?;
        lock(&self.running).by_id.insert(id.into(), Arc::clone(&piped));
        Ok((header, piped))
    }

    /// The session `id` of `principal`.
    fn find(&self, id: &str, principal: &Arc<Principal>) -> Result<Arc<Piped>, Nowhere> {
        let piped = lock(&self.running).by_id.get(id).cloned();
        let piped = piped.filter(|piped| piped.principal == *principal && piped.is_alive());
        let piped = piped.ok_or(Nowhere::NoSession)?;
        piped.used.store(self.now(), Relaxed);
        Ok(piped)
    }

    /// Ends the session `id`, whoever still waits in it: what is held there is withdrawn.
    fn end(&self, id: &str) {
        if let Some(piped) = lock(&self.running).by_id.remove(id) {
            piped.lifecycle.over.cancel();
            piped.lifecycle.stop.cancel();
        }
    }

    /// A process for a request without a session: one of this principal in which `id` is not in use.
    fn share(
        &self,
        proxy: &Proxy,
        principal: &Arc<Principal>,
        id: Option<&RequestId>,
    ) -> Result<Arc<Piped>, Nowhere> {
        let (found, listed) = {
            let mut running = lock(&self.running);
            running.shared.retain(|piped| piped.is_alive());
            let mut own = running.shared.iter().filter(|piped| piped.principal == *principal);
            let is_free = |piped: &&Arc<Piped>| id.is_none_or(|id| lock(&piped.router.ways).is_free(id));
            let listed = own.clone().next().map(|piped| Arc::clone(&piped.router.listed));
            (own.find(is_free).cloned(), listed)
        };
        let piped = match found {
            Some(piped) => piped,
            None => {
                let piped = self.start(proxy, principal, listed.unwrap_or_default())?;
                lock(&self.running).shared.push(Arc::clone(&piped));
                piped
            }
        };
        piped.used.store(self.now(), Relaxed);
        Ok(piped)
    }

    fn start(
        &self,
        proxy: &Proxy,
        principal: &Arc<Principal>,
        listed: Arc<Mutex<ListedTools>>,
    ) -> Result<Arc<Piped>, Nowhere> {
        {
            let running = lock(&self.running);
            if running.by_id.len() + running.shared.len() >= PROCESSES_MAX {
                return Err(Nowhere::TooMany);
            }
        }
        let (program, arguments) = self.settings.command.split_first().ok_or(Nowhere::NoProcess)?;
        let server = Server::start_one_of_several(program, arguments).map_err(|error| {
            tracing::error!(%error, "a server cannot be started");
            Nowhere::NoProcess
        })?;
        let (near_reader, far_writer) = tokio::io::duplex(PIPE_BYTES);
        let (far_reader, near_writer) = tokio::io::duplex(PIPE_BYTES);
        let (to_session, lines) = mpsc::channel(MESSAGES_WAITING_MAX);
        let lifecycle = Lifecycle::default();
        let router = Arc::new(Router { listed, ..Router::default() });
        let gate = Arc::clone(&proxy.gate);
        let mut caller = Caller::new(principal, Arc::clone(&self.settings.name));
        caller.wait = self.settings.wait;
        caller.is_http = true;
        let limits = SessionLimits::default();
        let client = (Box::new(near_reader) as stdio::Reader, Box::new(near_writer) as stdio::Writer);
        let session = stdio::serve_client(server, gate, caller, limits, client, lifecycle.clone());
        proxy.tasks.spawn(async move {
            if let Err(error) = session.await {
                tracing::error!(%error, "a server's end could not be seen");
            }
        });
        tokio::spawn(write(far_writer, lines));
        tokio::spawn(route(far_reader, Arc::downgrade(&router), limits.server_frame_bytes_max));
        let used = AtomicU64::new(self.now());
        let account = proxy.accounts.of(principal);
        Ok(Arc::new(Piped { principal: Arc::clone(principal), account, to_session, router, lifecycle, used }))
    }

    /// Ends what nobody has used for long, and what has ended by itself.
    pub(super) fn sweep(&self) {
        let now = self.now();
        let keeps = |piped: &Arc<Piped>| {
            piped.is_alive() && (piped.is_busy() || now - piped.used.load(Relaxed) < UNUSED_MAX.as_secs())
        };
        let mut running = lock(&self.running);
        running.by_id.retain(|_, piped| keeps(piped));
        running.shared.retain(keeps);
    }

    /// Ends them all, whatever is still waited for.
    pub(super) fn stop(&self) {
        let Running { by_id, shared } = std::mem::take(&mut *lock(&self.running));
        by_id.into_values().chain(shared).for_each(|piped| piped.lifecycle.stop.cancel());
    }
}

/// Writes what clients send, line by line.
async fn write(mut writer: DuplexStream, mut lines: mpsc::Receiver<Bytes>) {
    while let Some(line) = lines.recv().await {
        if writer.write_all(&line).await.is_err() {
            return;
        }
    }
}

/// Reads what the session says, and lets each message go where it belongs.
async fn route(reader: DuplexStream, router: Weak<Router>, line_bytes_max: usize) {
    let mut lines = FramedRead::new(reader, LineCodec::new(line_bytes_max));
    while let Some(Ok(line)) = lines.next().await {
        let (Line::Text(bytes), Some(router)) = (line, router.upgrade()) else { continue };
        let Ok(message) = Frame::from_server(bytes.clone()) else { continue };
        let way = router.way_of(&message);
        drop(router);
        if let Some(way) = way {
            let _ = way.send(bytes).await;
        }
    }
    // Whoever still waits hears that nothing comes.
    if let Some(router) = router.upgrade() {
        *lock(&router.ways) = Ways::default();
    }
}

impl Router {
    /// To whom `message` goes. Nobody: it is about nothing that anybody waits for.
    fn way_of(&self, message: &Frame) -> Option<mpsc::Sender<Bytes>> {
        let mut ways = lock(&self.ways);
        if message.kind() == Kind::Response {
            if ways.initialize.as_ref() == message.id() {
                ways.initialize = None;
                let answer = message.result().and_then(Initialize::from_result);
                ways.has_batches =
                    answer.is_some_and(|answer| answer.protocol_version == VERSION_WITH_BATCHES);
            }
            let id = message.id()?;
            ways.left.remove(id);
            if ways.lists.contains(id) {
                // Before the client can call any of them.
                lock(&self.listed).learn(&mcp::tool_definitions(message.result().unwrap_or("{}")));
            }
            return ways.forget(id);
        }
        let token =
            message.params().filter(|_| message.method() == Some(method::PROGRESS)).and_then(Progress::parse);
        let of_token = token.and_then(|progress| ways.tokens.get(progress.token));
        if let Some(call) = of_token.and_then(|id| ways.calls.get(id)) {
            return Some(call.clone());
        }
        if let Some(listener) = ways.listener.as_ref().filter(|listener| !listener.is_closed()) {
            return Some(listener.clone());
        }
        ways.newest.as_ref().and_then(|id| ways.calls.get(id)).cloned()
    }
}

impl Ways {
    /// Whether what answers `id` can be meant for nobody but whoever asks now.
    fn is_free(&mut self, id: &RequestId) -> bool {
        self.left.retain(|_, since| since.elapsed() < LATE_MAX);
        self.left.len() < LEFT_MAX && !self.left.contains_key(id) && !self.calls.contains_key(id)
    }

    /// The client of the request `id` has gone.
    fn leave(&mut self, id: &RequestId) {
        self.forget(id);
        if self.left.len() < LEFT_MAX {
            self.left.insert(id.clone(), Instant::now());
        }
    }

    fn forget(&mut self, id: &RequestId) -> Option<mpsc::Sender<Bytes>> {
        self.tokens.retain(|_, other| other != id);
        self.lists.remove(id);
        self.calls.remove(id)
    }
}

/// A request that its client waits for. Dropped before the answer has come, it takes the request back.
struct Waiting {
    piped: Arc<Piped>,
    id: RequestId,
    /// Its part of what its principal may have open.
    _open: Option<Open>,
    is_answered: bool,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if self.is_answered {
            return;
        }
        lock(&self.piped.router.ways).leave(&self.id);
        let line = format!(
            "{{\"jsonrpc\":\"2.0\",\"method\":\"{}\",\"params\":{{\"requestId\":{},\"reason\":\"the client has gone\"}}}}\n",
            method::CANCELLED,
            self.id
        );
        // A session that takes no line at all is about to end.
        let _ = self.piped.to_session.try_send(line.into());
    }
}

impl Drop for Piped {
    fn drop(&mut self) {
        self.lifecycle.stop.cancel();
    }
}

impl Piped {
    fn is_alive(&self) -> bool {
        !self.to_session.is_closed()
    }

    fn is_busy(&self) -> bool {
        let ways = lock(&self.router.ways);
        !ways.calls.is_empty() || ways.listener.as_ref().is_some_and(|listener| !listener.is_closed())
    }

    fn has_batches(&self) -> bool {
        lock(&self.router.ways).has_batches
    }

    /// One message of its client.
    async fn take(self: Arc<Self>, frame: Frame, takes_events: bool, limits: HttpLimits) -> Response<Body> {
        if frame.kind() == Kind::Request {
            self.ask(frame, takes_events, &limits).await
        } else {
            self.tell(frame).await
        }
    }

    /// A message that nobody answers.
    async fn tell(&self, frame: Frame) -> Response<Body> {
        match self.to_session.send(frame.into_bytes().into_line()).await {
            Ok(()) => body::empty(StatusCode::ACCEPTED),
            Err(_) => Nowhere::NoSession.into_response(),
        }
    }

    /// A request: its answer as one message, or as events if the client takes them and it takes long.
    async fn ask(self: Arc<Self>, frame: Frame, takes_events: bool, limits: &HttpLimits) -> Response<Body> {
        let Some(id) = frame.id().cloned() else { return body::empty(StatusCode::ACCEPTED) };
        let is_subscription = frame.method() == Some(method::SUBSCRIPTIONS_LISTEN);
        let open = match self.may_wait(&frame, limits) {
            Ok(open) => open,
            Err(refusal) => return body::refusal(StatusCode::TOO_MANY_REQUESTS, &refusal),
        };
        let (way, mut messages) = mpsc::channel(MESSAGES_WAITING_MAX);
        {
            let mut ways = lock(&self.router.ways);
            if ways.calls.contains_key(&id) {
                let text = "a request with this id is still without an answer";
                let refusal = Refusal::invalid(Some(id), ErrorCode::INVALID_REQUEST, text);
                return body::refusal(StatusCode::BAD_REQUEST, &refusal);
            }
            if let Some(token) = progress_token(&frame) {
                ways.tokens.insert(token.into(), id.clone());
            }
            ways.calls.insert(id.clone(), way);
            ways.newest = Some(id.clone());
            match frame.method() {
                Some(method::INITIALIZE) => ways.initialize = Some(id.clone()),
                Some(method::TOOLS_LIST) => drop(ways.lists.insert(id.clone())),
                _ => {}
            }
        }
        let mut waiting = Waiting { piped: Arc::clone(&self), id, _open: open, is_answered: false };
        if self.to_session.send(frame.into_bytes().into_line()).await.is_err() {
            return Nowhere::NoSession.into_response();
        }
        let mut later = std::pin::pin!(sleep(limits.head_after));
        let mut first = None;
        loop {
            tokio::select! {
                message = messages.recv() => match message {
                    None => return body::text(StatusCode::BAD_GATEWAY, "the server has ended"),
                    Some(message) if waiting.is_answered_by(&message) => return body::json(StatusCode::OK, message),
                    Some(message) if takes_events => {
                        first = Some(message);
                        break;
                    }
                    // It has no way to this client.
                    Some(_) => {}
                },
                () = &mut later, if takes_events => break,
            }
        }
        let (chunks, relayed) = mpsc::channel(MESSAGES_WAITING_MAX);
        tokio::spawn(relay(messages, first, chunks, Some(waiting), limits.keepalive_every));
        let mut response = body::event_stream(Body::Relay(relayed));
        if is_subscription {
            response.extensions_mut().insert(Endless);
        }
        response
    }

    /// A request's part of what its principal may have open: of a call whether it will be held is for the session to see.
    fn may_wait(&self, frame: &Frame, limits: &HttpLimits) -> Result<Option<Open>, Refusal> {
        let (calls, bytes) = (limits.held_per_principal_max, limits.held_bytes_per_principal_max);
        let (open, full) = match frame.method() {
            Some(method::TOOLS_CALL) => {
                let text = format!(
                    "{calls} calls or {} MiB of this agent have no answer yet, which is the limit; the tool did not run",
                    bytes >> 20
                );
                (self.account.hold(frame.bytes().len(), calls, bytes), text)
            }
            Some(method::SUBSCRIPTIONS_LISTEN) => {
                (self.account.stream(limits.streams_per_principal_max), post::STREAMS_FULL.to_owned())
            }
            _ => return Ok(None),
        };
        let refused = || Refusal::invalid(frame.id().cloned(), ErrorCode::INTERNAL_ERROR, full);
        open.map(Some).ok_or_else(refused)
    }

    /// The stream on which the server speaks first; there is one at a time.
    fn listen(&self, limits: &HttpLimits) -> Response<Body> {
        let Some(open) = self.account.stream(limits.streams_per_principal_max) else {
            return body::text(StatusCode::TOO_MANY_REQUESTS, post::STREAMS_FULL);
        };
        let (way, messages) = mpsc::channel(MESSAGES_WAITING_MAX);
        {
            let mut ways = lock(&self.router.ways);
            if ways.listener.as_ref().is_some_and(|listener| !listener.is_closed()) {
                return body::text(StatusCode::CONFLICT, "this session has its stream already");
            }
            ways.listener = Some(way);
        }
        let (chunks, relayed) = mpsc::channel(MESSAGES_WAITING_MAX);
        let keepalive_every = limits.keepalive_every;
        tokio::spawn(async move {
            relay(messages, None, chunks, None, keepalive_every).await;
            drop(open);
        });
        body::event_stream(Body::Relay(relayed))
    }
}

impl Waiting {
    fn is_answered_by(&mut self, message: &Bytes) -> bool {
        let answers = Frame::from_server(message.clone())
            .is_ok_and(|message| message.kind() == Kind::Response && message.id() == Some(&self.id));
        self.is_answered |= answers;
        answers
    }
}

/// Makes events of messages, until the answer or until either side has gone.
async fn relay(
    mut messages: mpsc::Receiver<Bytes>,
    mut next: Option<Bytes>,
    chunks: mpsc::Sender<Bytes>,
    mut waiting: Option<Waiting>,
    keepalive_every: Duration,
) {
    let mut ticks = interval_at(Instant::now() + keepalive_every, keepalive_every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        if let Some(message) = next.take() {
            let is_last = waiting.as_mut().is_some_and(|waiting| waiting.is_answered_by(&message));
            if chunks.send(event_of(&message)).await.is_err() || is_last {
                return;
            }
        }
        tokio::select! {
            biased;
            () = chunks.closed() => return,
            message = messages.recv() => match message {
                Some(message) => next = Some(message),
                None => return,
            },
            _ = ticks.tick() => drop(chunks.try_send(KEEPALIVE)),
        }
    }
}

/// The raw token by which the client recognises the progress of its request.
fn progress_token(frame: &Frame) -> Option<&str> {
    let meta = members(frame.params()?).find(|(key, _)| key == "_meta").map(|(_, meta)| meta);
    let meta = meta.filter(|meta| meta.starts_with('{'))?;
    members(meta).find(|(key, _)| key == "progressToken").map(|(_, token)| token)
}

/// One request of `principal` for the server.
pub(super) async fn answer(
    proxy: &Proxy,
    servers: &LineServers,
    principal: &Arc<Principal>,
    limits: &HttpLimits,
    request: Request<Incoming>,
) -> Response<Body> {
    let (head, incoming) = request.into_parts();
    let session = match headers::single(&head.headers, &SESSION_ID) {
        Ok(session) => session,
        Err(()) => {
            return body::text(StatusCode::BAD_REQUEST, "the session is named twice or not in plain text");
        }
    };
    let of_session = || servers.find(session.unwrap_or_default(), principal);
    if matches!(head.method, Method::GET | Method::DELETE)
        && let Err(response) = stream::check(&head)
    {
        return *response;
    }
    match head.method {
        Method::POST => {}
        Method::GET => return of_session().map_or_else(Nowhere::into_response, |piped| piped.listen(limits)),
        Method::DELETE => {
            let ended = of_session().map(|_| servers.end(session.unwrap_or_default()));
            return ended.map_or_else(Nowhere::into_response, |()| body::empty(StatusCode::OK));
        }
        _ => return body::text(StatusCode::METHOD_NOT_ALLOWED, "only POST, GET and DELETE are served"),
    }
    let account = || proxy.accounts.of(principal);
    let text = match post::read(incoming, head.version, limits, account).await {
        Ok(text) => text,
        Err(response) => return *response,
    };
    let takes_events = headers::accepts(&head.headers, "text/event-stream");
    if Frame::is_batch(&text)
        && let Ok(piped) = of_session()
        && piped.has_batches()
    {
        return batch(piped, &text, takes_events, *limits).await;
    }
    let frame = match Frame::from_client(text) {
        Ok(frame) => frame,
        Err(error) => return body::refusal(StatusCode::BAD_REQUEST, &Refusal::unreadable(&error)),
    };
    let modern = match headers::agree(&head.headers, &frame) {
        Ok(modern) => modern,
        Err(mismatch) => return mismatch.into_response(&frame),
    };
    if frame.kind() == Kind::Request && proxy.is_stopping() {
        return post::stopping(&frame);
    }
    if frame.method() == Some(method::INITIALIZE) {
        return match servers.begin(proxy, principal) {
            Ok((id, piped)) => with_session(piped.ask(frame, takes_events, limits).await, id),
            Err(nowhere) => nowhere.into_response(),
        };
    }
    // Which revisions there are without a session is the server's to say.
    let is_of_none = modern || (session.is_none() && mcp::declares_version(&frame));
    let piped = if is_of_none { servers.share(proxy, principal, frame.id()) } else { of_session() };
    let piped = match piped {
        Ok(piped) => piped,
        Err(nowhere) => return nowhere.into_response(),
    };
    if modern {
        let agreed = headers::arguments_agree(&head.headers, &lock(&piped.router.listed), &frame);
        if let Err(mismatch) = agreed {
            return mismatch.into_response(&frame);
        }
    }
    piped.take(frame, takes_events, *limits).await
}

/// A batch where the session's revision has batches, each message in it as if it had come alone.
async fn batch(piped: Arc<Piped>, text: &Bytes, takes_events: bool, limits: HttpLimits) -> Response<Body> {
    let elements = match Frame::batch_from_client(text) {
        Ok(elements) => elements,
        Err(error) => return body::refusal(StatusCode::BAD_REQUEST, &Refusal::unreadable(&error)),
    };
    let form = batch::Form { takes_events, server_frame_bytes_max: limits.server_frame_bytes_max };
    batch::answer(elements, form, |frame| Arc::clone(&piped).take(frame, takes_events, limits)).await
}

/// Adds the id of a session that has just begun.
fn with_session(mut response: Response<Body>, id: HeaderValue) -> Response<Body> {
    if response.status().is_success() {
        response.headers_mut().insert(SESSION_ID, id);
    }
    response
}
