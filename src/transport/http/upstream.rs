//! One server behind the proxy: how its connections are made, kept and used.
//!
//! Used by `post`, `held` and `stream`. A connection is driven by whoever uses it, in the task of the client's own connection, so
//! a call that is not held costs no task and no wake-up between tasks. Each worker keeps connections of its own. Nothing is
//! sent twice: a request is repeated only if the first connection gave it back unsent.

use std::{
    collections::HashSet,
    fmt, io,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderName, Request, Response};
use http_body_util::Full;
use hyper::{
    body::{Body as _, Frame as BodyFrame, Incoming, SizeHint},
    client::conn::http1::{self, Connection, SendRequest},
};
use hyper_util::rt::TokioIo;
use tokio::{
    net::TcpStream,
    time::{Instant, timeout},
};

use super::{
    headers, legacy::Streams, oauth::NamedPlaces, sessions::Sessions, settings::UpstreamSettings, tls::Stream,
};

/// How long a connection is kept unused. Many servers close theirs after 5 s; a request must not meet that.
const IDLE_MAX: Duration = Duration::from_secs(4);

/// Unused connections to one server that one worker keeps.
const IDLE_CONNECTIONS_MAX: usize = 1024;

/// How long it may take to reach a server.
const CONNECT_MAX: Duration = Duration::from_secs(10);

/// The longest head of a response, in bytes.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// How often a connection that has woken itself is looked at again before its task has another turn.
const LOOKS_MAX: usize = 4;

/// A server, with what this process knows of it.
pub(super) struct Upstream {
    /// What the configuration says.
    pub(super) settings: UpstreamSettings,
    /// Its sessions, and who speaks to it without one.
    pub(super) sessions: Arc<Sessions>,
    /// The streams of clients that speak 2024-11-05.
    pub(super) streams: Arc<Streams>,
    /// Where its challenges say that it describes itself.
    pub(super) named_places: Arc<NamedPlaces>,
    /// Headers that the configuration gives, to the requests of all agents or of some.
    given: HashSet<HeaderName>,
    /// Unused connections, by worker.
    idle: Vec<Mutex<Vec<Idle>>>,
}

struct Idle {
    wire: Box<Wire>,
    since: Instant,
}

/// One connection to a server.
pub(super) struct Wire {
    line: WireLine,
    bell: Arc<Bell>,
    /// Rings it.
    waker: Waker,
}

/// What of a connection is polled.
struct WireLine {
    sender: SendRequest<Full<Bytes>>,
    /// `None` once it has ended: dropping it gives back a request that it has not taken, which would otherwise be waited for for ever.
    connection: Option<Connection<TokioIo<Stream>, Full<Bytes>>>,
}

/// Wakes the task that uses a connection, but not for what happens while that task looks at it: then it looks again. The two ends of
/// hyper's connection are in one task here and wake each other with every step; the task would do all its work twice.
struct Bell {
    task: Mutex<Waker>,
    is_looked_at: AtomicBool,
    has_rung: AtomicBool,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // In this order, and the other way round where it is looked: one of the two sees it.
        self.has_rung.store(true, SeqCst);
        if !self.is_looked_at.load(SeqCst) {
            self.task().wake_by_ref();
        }
    }
}

impl Bell {
    fn task(&self) -> std::sync::MutexGuard<'_, Waker> {
        self.task.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on it wakes `task`.
    fn is_for(&self, task: &Waker) {
        let mut known = self.task();
        if !known.will_wake(task) {
            known.clone_from(task);
        }
    }
}

impl Wire {
    fn new(sender: SendRequest<Full<Bytes>>, connection: Connection<TokioIo<Stream>, Full<Bytes>>) -> Self {
        let bell = Arc::new(Bell {
            task: Mutex::new(Waker::noop().clone()),
            is_looked_at: AtomicBool::new(false),
            has_rung: AtomicBool::new(false),
        });
        let waker = Waker::from(Arc::clone(&bell));
        Self { line: WireLine { sender, connection: Some(connection) }, bell, waker }
    }

    /// Does `step`, again and again as long as it leads to something and is not ready.
    fn poll<T>(
        &mut self,
        cx: &mut Context<'_>,
        mut step: impl FnMut(&mut WireLine, &mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        self.bell.is_for(cx.waker());
        for _ in 0..LOOKS_MAX {
            self.bell.has_rung.store(false, SeqCst);
            self.bell.is_looked_at.store(true, SeqCst);
            let polled = step(&mut self.line, &mut Context::from_waker(&self.waker));
            self.bell.is_looked_at.store(false, SeqCst);
            if polled.is_ready() || !self.bell.has_rung.load(SeqCst) {
                return polled;
            }
        }
        // Perhaps the task has had more than its share of time.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Whether it can take a request now. One that the server has closed since may seem so; it gives the request back.
    async fn is_usable(&mut self) -> bool {
        if self.line.sender.is_ready() {
            return true;
        }
        std::future::poll_fn(|cx| {
            self.poll(cx, |line, cx| {
                line.drive(cx);
                // Nobody waits for it: what it would wake has its answer already.
                let mut nobody = Context::from_waker(Waker::noop());
                let is_ready = matches!(line.sender.poll_ready(&mut nobody), Poll::Ready(Ok(())));
                Poll::Ready(!line.has_ended() && is_ready)
            })
        })
        .await
    }
}

impl WireLine {
    /// Moves the connection on; it ends when either side has closed it.
    fn drive(&mut self, cx: &mut Context<'_>) {
        if let Some(connection) = &mut self.connection
            && Pin::new(connection).poll(cx).is_ready()
        {
            self.connection = None;
        }
    }

    fn has_ended(&self) -> bool {
        self.connection.is_none()
    }
}

/// Why there is no response.
#[derive(Debug)]
pub(super) enum NoResponse {
    /// Not one byte of the request was sent.
    NotSent(io::Error),
    /// The request was sent, at least in part.
    Lost(hyper::Error),
}

impl fmt::Display for NoResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotSent(error) => write!(f, "the server cannot be reached: {error}"),
            Self::Lost(error) => write!(f, "the connection to the server ended before its answer: {error}"),
        }
    }
}

impl Upstream {
    /// A server as `settings` describe it, for `workers` workers.
    pub(super) fn new(settings: UpstreamSettings, workers: usize) -> Self {
        let sessions = Sessions::new(Arc::clone(&settings.name), settings.wait);
        let given = settings.headers.iter().chain(settings.headers_of.values().flatten());
        Self {
            given: given.map(|(name, _)| name.clone()).collect(),
            settings,
            sessions: Arc::new(sessions),
            streams: Arc::default(),
            named_places: Arc::default(),
            idle: (0..workers).map(|_| Mutex::default()).collect(),
        }
    }

    /// The same with all that is known of its clients, if it is one of `known`: whose session is whose, and what waits in it.
    pub(super) fn knowing(self, known: &[Arc<Self>]) -> Self {
        let Some(same) = known.iter().find(|known| known.is_same_server(&self)) else { return self };
        same.sessions.wait_so_long(self.settings.wait);
        Self {
            sessions: Arc::clone(&same.sessions),
            streams: Arc::clone(&same.streams),
            named_places: Arc::clone(&same.named_places),
            ..self
        }
    }

    /// Whether only the configuration gives a header of this name, or one that the server may take for it.
    pub(super) fn is_given_here(&self, name: &HeaderName) -> bool {
        self.given.iter().any(|given| headers::reads_as(name.as_str(), given.as_str()))
    }

    fn is_same_server(&self, other: &Self) -> bool {
        let place = |upstream: &Self| {
            let target = &upstream.settings.target;
            (target.host.clone(), target.port, target.uri.clone(), target.tls.is_some())
        };
        self.settings.name == other.settings.name && place(self) == place(other)
    }

    /// Sends `request` on a connection of `worker`, and gives the head of the response with its body still to come.
    ///
    /// # Errors
    ///
    /// See [`NoResponse`]: whether anything of it may have reached the server is always known.
    #[expect(
        clippy::manual_async_fn,
        reason = "an `async fn` keeps its arguments twice, in each of thousands of calls that wait"
    )]
    pub(super) fn send(
        self: &Arc<Self>,
        worker: usize,
        mut request: Request<Full<Bytes>>,
    ) -> impl Future<Output = Result<Response<UpstreamBody>, NoResponse>> + Send {
        async move {
            loop {
                let (wire, is_new) = match self.take_idle(worker).await {
                    Some(wire) => (wire, false),
                    // Rare, and large.
                    None => (Box::pin(self.connect()).await.map_err(NoResponse::NotSent)?, true),
                };
                match self.send_on(worker, wire, request).await {
                    Err((_, Some(unsent))) if !is_new => request = *unsent,
                    answered => return answered.map_err(|(why, _)| why),
                }
            }
        }
    }

    fn send_on(
        self: &Arc<Self>,
        worker: usize,
        mut wire: Box<Wire>,
        request: Request<Full<Bytes>>,
    ) -> impl Future<Output = Answered> + Send {
        // In memory of its own: it has room for the request, which it nearly always has sent by now.
        let mut response = Box::pin(wire.line.sender.try_send_request(request));
        async move {
            let answered = std::future::poll_fn(|cx| {
                wire.poll(cx, |line, cx| {
                    line.drive(cx);
                    response.as_mut().poll(cx)
                })
            })
            .await;
            match answered {
                Ok(response) => Ok(response.map(|incoming| UpstreamBody {
                    incoming,
                    wire: Some(wire),
                    home: Arc::clone(self),
                    worker,
                    has_ended: false,
                })),
                Err(mut error) => match error.take_message() {
                    Some(unsent) => {
                        let error = io::Error::new(io::ErrorKind::NotConnected, error.into_error());
                        Err((NoResponse::NotSent(error), Some(Box::new(unsent))))
                    }
                    None => Err((NoResponse::Lost(error.into_error()), None)),
                },
            }
        }
    }

    fn idle(&self, worker: usize) -> std::sync::MutexGuard<'_, Vec<Idle>> {
        self.idle[worker].lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn take_idle(&self, worker: usize) -> Option<Box<Wire>> {
        loop {
            let Idle { mut wire, since } = self.idle(worker).pop()?;
            if since.elapsed() < IDLE_MAX && wire.is_usable().await {
                return Some(wire);
            }
        }
    }

    fn give_back(&self, worker: usize, wire: Box<Wire>) {
        let mut idle = self.idle(worker);
        if idle.len() < IDLE_CONNECTIONS_MAX {
            idle.push(Idle { wire, since: Instant::now() });
        }
    }

    /// Closes the connections that have been unused for too long.
    pub(super) fn sweep(&self, worker: usize) {
        let mut idle = self.idle(worker);
        let fresh = idle.partition_point(|idle| idle.since.elapsed() >= IDLE_MAX);
        idle.drain(..fresh);
    }

    async fn connect(&self) -> io::Result<Box<Wire>> {
        let target = &self.settings.target;
        let connecting = async {
            let stream = TcpStream::connect((target.host.as_str(), target.port)).await?;
            stream.set_nodelay(true)?;
            let stream = match &target.tls {
                None => Stream::Plain(stream),
                Some(tls) => tls.connect(stream).await?,
            };
            http1::Builder::new()
                .max_header_size(HEAD_BYTES_MAX)
                .handshake(TokioIo::new(stream))
                .await
                .map_err(io::Error::other)
        };
        let connected = timeout(CONNECT_MAX, connecting).await;
        let (sender, connection) = connected.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        Ok(Box::new(Wire::new(sender, connection)))
    }
}

/// A response; or why there is none, with the request if it was not sent.
type Answered = Result<Response<UpstreamBody>, (NoResponse, Option<Box<Request<Full<Bytes>>>>)>;

/// The body of a server's response. Whoever reads it drives the connection; read to its end, the connection is kept.
pub(super) struct UpstreamBody {
    incoming: Incoming,
    wire: Option<Box<Wire>>,
    home: Arc<Upstream>,
    worker: usize,
    has_ended: bool,
}

impl UpstreamBody {
    /// The next bytes; `None` at the end.
    pub(super) fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, hyper::Error>>> {
        loop {
            match self.poll(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    // Trailers have no meaning in MCP.
                    if let Ok(data) = frame.into_data() {
                        return Poll::Ready(Some(Ok(data)));
                    }
                }
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error))),
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<BodyFrame<Bytes>, hyper::Error>>> {
        let incoming = &mut self.incoming;
        let polled = match &mut self.wire {
            Some(wire) => wire.poll(cx, |line, cx| {
                line.drive(cx);
                Pin::new(&mut *incoming).poll_frame(cx)
            }),
            None => Pin::new(incoming).poll_frame(cx),
        };
        if let Poll::Ready(None) = polled {
            self.has_ended = true;
        }
        polled
    }

    /// Whether all of it has been read.
    pub(super) fn is_end(&self) -> bool {
        self.has_ended || self.incoming.is_end_stream()
    }

    /// How much there is, where the server has said so.
    pub(super) fn size(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

impl Drop for UpstreamBody {
    fn drop(&mut self) {
        if let Some(wire) = self.wire.take()
            && self.is_end()
            && !wire.line.has_ended()
        {
            self.home.give_back(self.worker, wire);
        }
    }
}
