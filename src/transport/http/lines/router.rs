//! Where the messages of one process go: each to the stream of whoever waits for it.
//!
//! A part of `lines`. Never waits for one client where others share the process. Changes no message.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, Weak},
    time::Duration,
};

use bytes::Bytes;
use futures_util::StreamExt;
use tokio::{
    io::DuplexStream,
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::{Instant, timeout},
};
use tokio_util::{codec::FramedRead, sync::CancellationToken};

use super::lock;
use crate::{
    gate::ListedTools,
    jsonrpc::{Frame, Kind, Line, LineCodec, RequestId, scan::members},
    mcp::{self, Initialize, Progress, VERSION_WITH_BATCHES, method},
};

/// Bytes that wait for one client that reads slowly.
const WAITING_BYTES_MAX: usize = 4 << 20;

/// Messages that wait for it. A short one counts as its part of the bytes.
const WAITING_MAX: usize = 16_384;

/// How long the stream of a client that has the process to itself may take nothing of what waits for it.
const STALLED_MAX: Duration = Duration::from_secs(30);

/// How long an answer may be late to a request whose client has gone. Until then no other client's request has its id.
const LATE_MAX: Duration = Duration::from_secs(300);

/// Requests of one process whose clients have gone and whose answers may still come. With more of them it is nobody else's process.
const LEFT_MAX: usize = 1024;

/// Where the session's messages go.
#[derive(Default)]
pub(super) struct Router {
    pub(super) ways: Mutex<Ways>,
    /// The tools that the server has listed, in this process or in others for the same requests without a session.
    pub(super) listed: Arc<Mutex<ListedTools>>,
    /// Whether clients share the process, which none of them may then stop.
    pub(super) is_shared: bool,
}

/// All ways that there are.
#[derive(Default)]
pub(super) struct Ways {
    calls: HashMap<RequestId, Way>,
    /// Those of them that ask for the server's tools.
    lists: HashSet<RequestId>,
    /// Requests whose clients have gone, and when: the server may answer them all the same.
    left: HashMap<RequestId, Instant>,
    /// Requests by the raw token of their progress.
    tokens: HashMap<Box<str>, RequestId>,
    /// The stream on which the server speaks first.
    listener: Option<Way>,
    /// The newest request: a server's own question most likely belongs to it.
    newest: Option<RequestId>,
    /// The request that negotiates the revision, until it is answered.
    initialize: Option<RequestId>,
    /// Whether that revision has batches.
    has_batches: bool,
    /// Ways that have begun so far.
    begun: u64,
    /// Whether the session is over: nothing comes any more.
    has_ended: bool,
}

/// Why there is no way for a request.
pub(super) enum NoWay {
    /// The session is over.
    Ended,
    /// One with the same id has no answer yet.
    InUse,
}

/// The way to the stream of one client.
#[derive(Clone)]
struct Way {
    number: u64,
    messages: mpsc::Sender<Due>,
    /// What may wait, in bytes.
    room: Arc<Semaphore>,
    over: CancellationToken,
}

/// A message on its way, which takes room until this is dropped.
pub(super) struct Due {
    pub(super) message: Bytes,
    _room: Option<OwnedSemaphorePermit>,
}

/// The other end of a way.
pub(super) struct Arrivals {
    /// Which way it is, of those with the same id.
    pub(super) number: u64,
    /// Ends when the session is over.
    pub(super) messages: mpsc::Receiver<Due>,
    /// Set when the stream is to end without an answer: its client has taken the request back, or does not take what is due.
    pub(super) over: CancellationToken,
}

impl Way {
    /// Lets `message` wait for its client, if there is room now or within `patience`; otherwise the stream ends. For a response, the last
    /// on its way, there always is.
    async fn put(&self, kind: Kind, message: Bytes, patience: Option<Duration>) {
        if self.over.is_cancelled() {
            return;
        }
        let mut taken = None;
        if kind != Kind::Response {
            let cost = message.len().clamp(WAITING_BYTES_MAX / WAITING_MAX, WAITING_BYTES_MAX);
            let (room, cost) = (Arc::clone(&self.room), u32::try_from(cost).unwrap_or(u32::MAX));
            taken = match patience {
                Some(patience) => {
                    let room = timeout(patience, room.acquire_many_owned(cost)).await;
                    room.ok().and_then(Result::ok)
                }
                None => room.try_acquire_many_owned(cost).ok(),
            };
            if taken.is_none() {
                tracing::warn!("a client does not read what is due, so its stream ends");
                return self.over.cancel();
            }
        }
        // A client that has gone needs nothing.
        let _ = self.messages.try_send(Due { message, _room: taken });
    }
}

/// Reads what the session says, and lets each message go where it belongs.
pub(super) async fn route(reader: DuplexStream, router: Weak<Router>) {
    // The session has read these lines within its limits.
    let mut lines = FramedRead::new(reader, LineCodec::new(usize::MAX));
    while let Some(Ok(line)) = lines.next().await {
        let (Line::Text(bytes), Some(router)) = (line, router.upgrade()) else { continue };
        let Ok(message) = Frame::from_server(bytes.clone()) else { continue };
        let way = router.way_of(&message);
        let patience = (!router.is_shared).then_some(STALLED_MAX);
        drop(router);
        if let Some(way) = way {
            way.put(message.kind(), bytes, patience).await;
        }
    }
    // Whoever still waits hears that nothing comes.
    if let Some(router) = router.upgrade() {
        *lock(&router.ways) = Ways { has_ended: true, ..Ways::default() };
    }
}

impl Router {
    /// To whom `message` goes. Nobody: it is about nothing that anybody waits for.
    fn way_of(&self, message: &Frame) -> Option<Way> {
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
        if let Some(request) = mcp::subscription(message) {
            // Nobody's who has not asked for it.
            return RequestId::from_token(request).and_then(|id| ways.calls.get(&id)).cloned();
        }
        let token =
            message.params().filter(|_| message.method() == Some(method::PROGRESS)).and_then(Progress::parse);
        let of_token = token.as_ref().and_then(|progress| ways.tokens.get(progress.token));
        if let Some(call) = of_token.and_then(|id| ways.calls.get(id)) {
            return Some(call.clone());
        }
        if token.is_some() && self.is_shared {
            // Of a client that has gone: the others have nothing to do with it.
            return None;
        }
        if let Some(listener) = ways.listener.as_ref().filter(|listener| !listener.messages.is_closed()) {
            return Some(listener.clone());
        }
        ways.newest.as_ref().and_then(|id| ways.calls.get(id)).cloned()
    }
}

impl Ways {
    fn way(&mut self) -> (Way, Arrivals) {
        self.begun += 1;
        let number = self.begun;
        // One more, for the answer.
        let (sender, messages) = mpsc::channel(WAITING_MAX + 1);
        let (room, over) = (Arc::new(Semaphore::new(WAITING_BYTES_MAX)), CancellationToken::new());
        let way = Way { number, messages: sender, room, over: over.clone() };
        (way, Arrivals { number, messages, over })
    }

    /// The way to whoever asks `frame`, whose id is `id`.
    pub(super) fn ask(&mut self, frame: &Frame, id: &RequestId) -> Result<Arrivals, NoWay> {
        if self.has_ended {
            return Err(NoWay::Ended);
        }
        if self.calls.contains_key(id) {
            return Err(NoWay::InUse);
        }
        let (way, arrivals) = self.way();
        if let Some(token) = progress_token(frame) {
            self.tokens.insert(token.into(), id.clone());
        }
        self.calls.insert(id.clone(), way);
        self.newest = Some(id.clone());
        match frame.method() {
            Some(method::INITIALIZE) => self.initialize = Some(id.clone()),
            Some(method::TOOLS_LIST) => drop(self.lists.insert(id.clone())),
            _ => {}
        }
        Ok(arrivals)
    }

    /// The way to whoever listens to the server; there is one at a time.
    pub(super) fn listen(&mut self) -> Result<Arrivals, NoWay> {
        if self.has_ended {
            return Err(NoWay::Ended);
        }
        if self.is_listened_to() {
            return Err(NoWay::InUse);
        }
        let (way, arrivals) = self.way();
        self.listener = Some(way);
        Ok(arrivals)
    }

    fn is_listened_to(&self) -> bool {
        self.listener.as_ref().is_some_and(|listener| !listener.messages.is_closed())
    }

    /// Whether somebody waits for something.
    pub(super) fn are_used(&self) -> bool {
        !self.calls.is_empty() || self.is_listened_to()
    }

    /// Whether the session is over.
    pub(super) fn have_ended(&self) -> bool {
        self.has_ended
    }

    /// Whether the session has negotiated the revision with batches.
    pub(super) fn have_batches(&self) -> bool {
        self.has_batches
    }

    /// Whether `id` is the request that begins the session, still without an answer.
    pub(super) fn begin_with(&self, id: &RequestId) -> bool {
        self.initialize.as_ref() == Some(id)
    }

    /// Whether what is said about `frame` can be meant for nobody but whoever sends it now.
    pub(super) fn are_free_for(&mut self, frame: &Frame) -> bool {
        self.left.retain(|_, since| since.elapsed() < LATE_MAX);
        let is_free = |id| !self.left.contains_key(id) && !self.calls.contains_key(id);
        self.left.len() < LEFT_MAX
            && frame.id().is_none_or(is_free)
            && progress_token(frame).is_none_or(|token| !self.tokens.contains_key(token))
    }

    /// The client of the request `id`, on the way `number`, has gone. `false`: nothing is due to it.
    pub(super) fn leave(&mut self, id: &RequestId, number: u64) -> bool {
        let is_due = self.calls.get(id).is_some_and(|way| way.number == number);
        if is_due {
            self.forget(id);
            self.is_left(id);
        }
        is_due
    }

    /// The client has taken the request `id` back: nothing more goes to it. What begins a session cannot be taken back (MCP, "Cancellation").
    pub(super) fn take_back(&mut self, id: &RequestId) {
        if self.begin_with(id) {
            return;
        }
        if let Some(way) = self.forget(id) {
            self.is_left(id);
            way.over.cancel();
        }
    }

    fn is_left(&mut self, id: &RequestId) {
        if self.left.len() < LEFT_MAX {
            self.left.insert(id.clone(), Instant::now());
        }
    }

    fn forget(&mut self, id: &RequestId) -> Option<Way> {
        self.tokens.retain(|_, other| other != id);
        self.lists.remove(id);
        self.calls.remove(id)
    }
}

/// The raw token by which the client recognises the progress of its request.
fn progress_token(frame: &Frame) -> Option<&str> {
    let meta = members(frame.params()?).find(|(key, _)| key == "_meta").map(|(_, meta)| meta);
    let meta = meta.filter(|meta| meta.starts_with('{'))?;
    members(meta).find(|(key, _)| key == "progressToken").map(|(_, token)| token)
}
