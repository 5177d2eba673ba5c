//! One process as its clients see it: POSTs become lines, and lines become answers and events.
//!
//! A part of `lines`. What a client asks is waited for here until it is answered, taken back or left.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http::{Response, StatusCode};
use tokio::{
    io::{AsyncWriteExt, DuplexStream},
    sync::{Notify, mpsc},
    time::{Instant, MissedTickBehavior, interval_at, sleep},
};
use tokio_util::sync::CancellationToken;

use super::{
    Nowhere, lock,
    router::{Arrivals, NoWay, Router, route},
};
use crate::{
    gate::Refusal,
    jsonrpc::{ErrorCode, Frame, Kind, RequestId, error_response, sse::event_of},
    mcp::{self, Cancelled, Era, method},
    principal::Principal,
    transport::{
        http::{
            Endless,
            accounts::{Account, Open},
            body::{self, Body},
            held::KEEPALIVE,
            post,
            settings::HttpLimits,
        },
        session::Lifecycle,
    },
    view::counted,
};

/// Bytes that wait between a client and its session, in each direction.
const PIPE_BYTES: usize = 256 * 1024;

/// Messages that wait for a session that reads slowly.
const MESSAGES_WAITING_MAX: usize = 16;

/// Pieces of a body that wait for a client that reads slowly.
const PIECES_WAITING_MAX: usize = 4;

/// Bytes of events that make one piece, if more than one is there.
const PIECE_BYTES: usize = 64 * 1024;

/// How long a process is kept for a call that runs as a task, after anybody has last used it: a server may never answer.
const TASK_MAX: Duration = Duration::from_secs(24 * 3600);

/// What the model reads whose call has no answer because the server has ended.
const UNKNOWN: &str = "UNKNOWN: the server ended before it answered this call. The tool may have run. Find out before you repeat \
                       this call, or ask the user.";

/// One process and the session before it. Dropping it ends both.
pub(super) struct Piped {
    pub(super) principal: Arc<Principal>,
    /// What that principal has open.
    account: Arc<Account>,
    to_session: mpsc::Sender<Bytes>,
    taken_back: Arc<TakenBack>,
    pub(super) router: Arc<Router>,
    pub(super) lifecycle: Lifecycle,
    /// Milliseconds since the first of its kind began.
    pub(super) used: AtomicU64,
    /// The longest message of a client, in bytes.
    frame_bytes_max: usize,
    /// Set when the process has gone.
    pub(super) gone: CancellationToken,
}

/// Cancellations on their way to the session. None may be lost, and whoever drops a request cannot wait: so there is room for as many as
/// there are requests.
#[derive(Default)]
struct TakenBack {
    lines: Mutex<Vec<Bytes>>,
    news: Notify,
}

/// Writes what clients send, line by line.
async fn write(mut writer: DuplexStream, mut lines: mpsc::Receiver<Bytes>, taken_back: Arc<TakenBack>) {
    loop {
        let mut due = Vec::new();
        tokio::select! {
            line = lines.recv() => match line {
                Some(line) => due.push(line),
                None => return,
            },
            () = taken_back.news.notified() => {
                let taken_back = std::mem::take(&mut *lock(&taken_back.lines));
                // What they take back was sent before, so it is written before.
                for _ in 0..lines.len() {
                    due.extend(lines.try_recv());
                }
                due.extend(taken_back);
            }
        }
        for line in due {
            if writer.write_all(&line).await.is_err() {
                return;
            }
        }
    }
}

/// A request that its client waits for. Dropped before the answer has come, it takes the request back.
struct Waiting {
    piped: Arc<Piped>,
    id: RequestId,
    /// Its way, of those with this id.
    number: u64,
    is_tool_call: bool,
    /// Whether the session gets it.
    is_sent: bool,
    /// Its part of what its principal may have open.
    _open: Option<Open>,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let begins = lock(&self.piped.router.ways).begin_with(&self.id);
        if !lock(&self.piped.router.ways).leave(&self.id, self.number) {
            return;
        }
        if begins {
            // Nobody will ever know by which id to call this session.
            return self.piped.end();
        }
        if !self.is_sent {
            return;
        }
        let line = format!(
            "{{\"jsonrpc\":\"2.0\",\"method\":\"{}\",\"params\":{{\"requestId\":{},\"reason\":\"the client has gone\"}}}}\n",
            method::CANCELLED,
            self.id
        );
        lock(&self.piped.taken_back.lines).push(line.into());
        self.piped.taken_back.news.notify_one();
    }
}

impl Waiting {
    fn is_answered_by(&self, message: &Bytes) -> bool {
        Frame::from_server(message.clone())
            .is_ok_and(|message| message.kind() == Kind::Response && message.id() == Some(&self.id))
    }

    /// What the client hears, because no answer comes.
    fn unanswered(&self) -> Bytes {
        if !self.is_tool_call {
            let text = "the server has ended";
            return error_response(Some(&self.id), ErrorCode::INTERNAL_ERROR, text, None);
        }
        let era = if self.piped.router.is_shared { Era::Modern } else { Era::Legacy };
        mcp::tool_refusal(&self.id, era, UNKNOWN, None)
    }
}

impl Drop for Piped {
    fn drop(&mut self) {
        self.lifecycle.stop.cancel();
    }
}

impl Piped {
    /// What stands between clients of `principal` and a session that reads and writes the two streams.
    pub(super) fn new(
        principal: &Arc<Principal>,
        account: Arc<Account>,
        router: Router,
        lifecycle: Lifecycle,
        frame_bytes_max: usize,
    ) -> (Arc<Self>, (DuplexStream, DuplexStream)) {
        let (near_reader, far_writer) = tokio::io::duplex(PIPE_BYTES);
        let (far_reader, near_writer) = tokio::io::duplex(PIPE_BYTES);
        let (to_session, lines) = mpsc::channel(MESSAGES_WAITING_MAX);
        let (router, taken_back) = (Arc::new(router), Arc::<TakenBack>::default());
        tokio::spawn(write(far_writer, lines, Arc::clone(&taken_back)));
        tokio::spawn(route(far_reader, Arc::downgrade(&router)));
        let piped = Self {
            principal: Arc::clone(principal),
            account,
            to_session,
            taken_back,
            router,
            lifecycle,
            used: AtomicU64::default(),
            frame_bytes_max,
            gone: CancellationToken::new(),
        };
        (Arc::new(piped), (near_reader, near_writer))
    }

    /// Whether it takes messages, and has not been told to end.
    pub(super) fn is_alive(&self) -> bool {
        !self.lifecycle.stop.is_cancelled() && !lock(&self.router.ways).have_ended()
    }

    /// Whether somebody waits for something, or a call runs whose answer is kept and may still come. `now` is as `used`.
    pub(super) fn is_busy(&self, now: u64) -> bool {
        let unused = Duration::from_millis(now.saturating_sub(self.used.load(Relaxed)));
        let runs_tasks = self.lifecycle.runs_tasks.load(Relaxed) && unused < TASK_MAX;
        runs_tasks || lock(&self.router.ways).are_used()
    }

    pub(super) fn has_batches(&self) -> bool {
        lock(&self.router.ways).have_batches()
    }

    /// Ends it, whoever still waits in it: what is held there is withdrawn.
    pub(super) fn end(&self) {
        self.lifecycle.over.cancel();
        self.lifecycle.stop.cancel();
    }

    /// One message of its client.
    pub(super) async fn take(
        self: Arc<Self>,
        frame: Frame,
        takes_events: bool,
        limits: HttpLimits,
    ) -> Response<Body> {
        // A session keeps the limit with which it has begun.
        if frame.bytes().len() > self.frame_bytes_max {
            return body::text(StatusCode::PAYLOAD_TOO_LARGE, "the body is over the limit of this session");
        }
        if frame.kind() == Kind::Request {
            self.ask(frame, takes_events, &limits).await
        } else {
            self.tell(frame).await
        }
    }

    /// A message that nobody answers.
    pub(super) async fn tell(&self, frame: Frame) -> Response<Body> {
        let cancelled = frame.params().filter(|_| frame.method() == Some(method::CANCELLED));
        let taken_back = cancelled.and_then(Cancelled::parse).map(|cancelled| cancelled.request);
        if !self.is_alive() || self.to_session.send(frame.into_bytes().into_line()).await.is_err() {
            return Nowhere::Ended.into_response();
        }
        if let Some(id) = taken_back {
            // Neither the gate nor a server answers what is taken back.
            lock(&self.router.ways).take_back(&id);
        }
        body::empty(StatusCode::ACCEPTED)
    }

    /// A request: its answer as one message, or as events if the client takes them and it takes long.
    pub(super) async fn ask(
        self: Arc<Self>,
        frame: Frame,
        takes_events: bool,
        limits: &HttpLimits,
    ) -> Response<Body> {
        let Some(id) = frame.id().cloned() else { return body::empty(StatusCode::ACCEPTED) };
        let is_tool_call = frame.method() == Some(method::TOOLS_CALL);
        let is_subscription = frame.method() == Some(method::SUBSCRIPTIONS_LISTEN);
        let open = match self.may_wait(&frame, limits) {
            Ok(open) => open,
            Err(refusal) => return body::refusal(StatusCode::TOO_MANY_REQUESTS, &refusal),
        };
        let is_alive = self.is_alive();
        let way = {
            let mut ways = lock(&self.router.ways);
            // Another client may have been as fast since this process was found.
            if self.router.is_shared && !ways.are_free_for(&frame) {
                Err(NoWay::InUse)
            } else if is_alive {
                ways.ask(&frame, &id)
            } else {
                Err(NoWay::Ended)
            }
        };
        let mut arrivals = match way {
            Ok(arrivals) => arrivals,
            Err(NoWay::Ended) => return Nowhere::Ended.into_response(),
            Err(NoWay::InUse) => {
                let text = "a request with this id is still without an answer";
                let refusal = Refusal::invalid(Some(id), ErrorCode::INVALID_REQUEST, text);
                return body::refusal(StatusCode::BAD_REQUEST, &refusal);
            }
        };
        let (piped, number) = (Arc::clone(&self), arrivals.number);
        let mut waiting = Waiting { piped, id, number, is_tool_call, is_sent: false, _open: open };
        if self.to_session.send(frame.into_bytes().into_line()).await.is_err() {
            return Nowhere::Ended.into_response();
        }
        waiting.is_sent = true;
        let mut later = std::pin::pin!(sleep(limits.head_after));
        let mut first = None;
        loop {
            tokio::select! {
                biased;
                () = arrivals.over.cancelled() => return body::empty(StatusCode::ACCEPTED),
                due = arrivals.messages.recv() => match due.map(|due| due.message) {
                    None => return body::json(StatusCode::BAD_GATEWAY, waiting.unanswered()),
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
        let (pieces, relayed) = mpsc::channel(PIECES_WAITING_MAX);
        tokio::spawn(relay(arrivals, first, pieces, Some(waiting), limits.keepalive_every));
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
                    "this agent has as much without an answer as it may: {}, or {} MiB; the tool did not run",
                    counted(calls, "call"),
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
    pub(super) fn listen(&self, limits: &HttpLimits) -> Response<Body> {
        let Some(open) = self.account.stream(limits.streams_per_principal_max) else {
            return body::text(StatusCode::TOO_MANY_REQUESTS, post::STREAMS_FULL);
        };
        let way = lock(&self.router.ways).listen();
        let arrivals = match way {
            Ok(arrivals) => arrivals,
            Err(NoWay::Ended) => return Nowhere::Ended.into_response(),
            Err(NoWay::InUse) => {
                return body::text(StatusCode::CONFLICT, "this session has its stream already");
            }
        };
        let (pieces, relayed) = mpsc::channel(PIECES_WAITING_MAX);
        let keepalive_every = limits.keepalive_every;
        tokio::spawn(async move {
            relay(arrivals, None, pieces, None, keepalive_every).await;
            drop(open);
        });
        body::event_stream(Body::Relay(relayed))
    }
}

/// Makes events of messages, until the answer or until either side has gone.
async fn relay(
    mut arrivals: Arrivals,
    first: Option<Bytes>,
    pieces: mpsc::Sender<Bytes>,
    waiting: Option<Waiting>,
    keepalive_every: Duration,
) {
    let mut ticks = interval_at(Instant::now() + keepalive_every, keepalive_every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let is_last = |message: &Bytes| waiting.as_ref().is_some_and(|waiting| waiting.is_answered_by(message));
    let mut next = first.map(|message| (event_of(&message), false));
    loop {
        if let Some((piece, ends)) = next.take() {
            let sent = tokio::select! {
                biased;
                () = arrivals.over.cancelled() => return,
                sent = pieces.send(piece) => sent,
            };
            if sent.is_err() || ends {
                return;
            }
        }
        tokio::select! {
            biased;
            () = pieces.closed() => return,
            () = arrivals.over.cancelled() => return,
            due = arrivals.messages.recv() => match due {
                Some(due) => {
                    let mut ends = is_last(&due.message);
                    let mut events = event_of(&due.message);
                    // A client that reads is to keep up with a server that writes many short ones.
                    while !ends && events.len() < PIECE_BYTES && let Ok(due) = arrivals.messages.try_recv() {
                        ends = is_last(&due.message);
                        let mut both = BytesMut::from(events);
                        both.extend_from_slice(&event_of(&due.message));
                        events = both.freeze();
                    }
                    next = Some((events, ends));
                }
                None => {
                    if let Some(waiting) = &waiting {
                        let _ = pieces.send(event_of(&waiting.unanswered())).await;
                    }
                    return;
                }
            },
            _ = ticks.tick() => drop(pieces.try_send(KEEPALIVE)),
        }
    }
}
