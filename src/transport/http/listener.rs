//! The door: connections are accepted, given to the workers in turn, and at the end let go in order.
//!
//! Run by `cli::serve`. Each worker is one thread with its own event loop; a connection stays with its worker. The acceptor never looks
//! into a connection.

use std::{
    io,
    net::TcpListener as StdListener,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use hyper::{
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::AbortHandle,
    time::{Instant, MissedTickBehavior, interval, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    Client, Proxy, Worker, answer,
    pulse::{Clock, Noticed, Pulse},
    tls::Stream,
};

/// Connections that wait for a worker.
const HANDED_OVER_MAX: usize = 1024;

/// How often connections are looked at.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// How often it is looked whether the last answer has gone out.
const DRAIN_LOOK: Duration = Duration::from_millis(20);

/// How long a client may take to begin.
const FIRST_BYTE_MAX: Duration = Duration::from_secs(10);

/// The longest head of a request, in bytes.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// Requests at the same time on one HTTP/2 connection.
const STREAMS_MAX: u32 = 1024;

/// How often an HTTP/2 connection is asked whether it is alive.
const PING_EVERY: Duration = Duration::from_secs(30);

/// How long calls may take to end when the process is told to stop.
const DRAIN_MAX: Duration = Duration::from_secs(30);

/// How long servers on stdio may take to end, and the record to be told of it, when that time is over.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// The threads that serve connections.
pub struct Workers {
    threads: Vec<JoinHandle<()>>,
    sockets: Vec<mpsc::Sender<std::net::TcpStream>>,
    open: Arc<AtomicUsize>,
    connections_max: usize,
}

impl Workers {
    /// Starts as many workers as `proxy` has been made for. They end some time after `stop`, when their calls have ended.
    ///
    /// # Errors
    ///
    /// When a thread cannot be started.
    pub fn start(proxy: &Arc<Proxy>, stop: &CancellationToken) -> io::Result<Self> {
        let open = Arc::new(AtomicUsize::new(0));
        let connections_max = proxy.routes.load().limits.connections_max;
        let mut workers = Self { threads: Vec::new(), sockets: Vec::new(), open, connections_max };
        let busy = Arc::new(AtomicUsize::new(proxy.workers));
        for number in 0..proxy.workers {
            let (sender, sockets) = mpsc::channel(HANDED_OVER_MAX);
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let worker = Arc::new(Worker { proxy: Arc::clone(proxy), number });
            let (stop, open, busy) = (stop.clone(), Arc::clone(&workers.open), Arc::clone(&busy));
            let thread = thread::Builder::new()
                .name(format!("holdshort-http-{number}"))
                .spawn(move || runtime.block_on(Floor::new(worker, open, busy).work(sockets, stop)))?;
            workers.threads.push(thread);
            workers.sockets.push(sender);
        }
        Ok(workers)
    }

    /// Accepts connections on `listener` until `stop`.
    pub async fn accept(&self, listener: StdListener, stop: &CancellationToken) -> io::Result<()> {
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        let mut next = 0;
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                accepted = listener.accept() => accepted,
            };
            let stream = match accepted.and_then(|(stream, _)| stream.into_std()) {
                Ok(stream) => stream,
                Err(error) => {
                    tracing::warn!(%error, "a connection was not accepted");
                    // Out of file descriptors, most likely: not in a loop that takes the whole processor.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            if self.open.load(Ordering::Relaxed) >= self.connections_max {
                tracing::warn!(
                    limit = self.connections_max,
                    "too many connections are open; one was turned away"
                );
                continue;
            }
            self.open.fetch_add(1, Ordering::Relaxed);
            next = (next + 1) % self.sockets.len();
            if self.sockets[next].send(stream).await.is_err() {
                return Err(io::Error::other("a worker has ended"));
            }
        }
    }

    /// Waits until all workers have ended.
    pub fn join(self) {
        drop(self.sockets);
        for thread in self.threads {
            let _ = thread.join();
        }
    }
}

/// One worker with its connections.
struct Floor {
    worker: Arc<Worker>,
    clock: Arc<Clock>,
    began: Instant,
    open: Arc<AtomicUsize>,
    /// Workers that accept connections, or answer calls that have begun.
    busy: Arc<AtomicUsize>,
    connections: Mutex<Vec<(Arc<Pulse>, AbortHandle)>>,
}

impl Floor {
    fn new(worker: Arc<Worker>, open: Arc<AtomicUsize>, busy: Arc<AtomicUsize>) -> Self {
        let (clock, connections) = (Arc::default(), Mutex::default());
        Self { worker, clock, began: Instant::now(), open, busy, connections }
    }

    async fn work(self, mut sockets: mpsc::Receiver<std::net::TcpStream>, stop: CancellationToken) {
        let mut sweep = interval(SWEEP_EVERY);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                socket = sockets.recv() => match socket {
                    Some(socket) => self.serve(socket),
                    None => break,
                },
                _ = sweep.tick() => self.sweep(),
            }
        }
        let drained = async {
            while self.is_busy() {
                tokio::time::sleep(DRAIN_LOOK).await;
            }
            self.busy.fetch_sub(1, Ordering::Relaxed);
            // Servers on stdio are everybody's: calls of other workers may run in them.
            while self.busy.load(Ordering::Relaxed) > 0 {
                tokio::time::sleep(DRAIN_LOOK).await;
            }
            self.stop_lines();
            self.all_is_written().await;
        };
        if timeout(DRAIN_MAX, drained).await.is_err() {
            tracing::warn!("calls were still running when the time to stop was over");
            // Servers on stdio see the end of their stdin all the same, and what became of their calls is written down.
            self.stop_lines();
            let _ = timeout(LAST_WORDS, self.all_is_written()).await;
        }
        // What is left are idle connections and streams that end only when somebody wants it.
        self.connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .for_each(|(_, task)| task.abort());
    }

    fn stop_lines(&self) {
        self.worker.proxy.routes.load().lines.iter().for_each(|servers| servers.stop());
    }

    /// Waits until what became of held calls is written down.
    async fn all_is_written(&self) {
        while !self.worker.proxy.tasks.is_empty() {
            tokio::time::sleep(DRAIN_LOOK).await;
        }
    }

    fn is_busy(&self) -> bool {
        self.connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .any(|(pulse, _)| pulse.is_busy())
    }

    fn sweep(&self) {
        self.clock.set(u32::try_from(self.began.elapsed().as_secs()).unwrap_or(u32::MAX));
        let mut connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        connections.retain(|(pulse, task)| {
            if pulse.is_stale() {
                task.abort();
            }
            !task.is_finished()
        });
        let routes = self.worker.proxy.routes.load();
        routes.upstreams.iter().for_each(|upstream| upstream.sweep(self.worker.number));
        if self.worker.number == 0 {
            routes.lines.iter().for_each(|servers| servers.sweep());
        }
    }

    fn serve(&self, socket: std::net::TcpStream) {
        let pulse = Pulse::new(Arc::clone(&self.clock));
        let open = OpenConnection(Arc::clone(&self.open));
        let worker = Arc::clone(&self.worker);
        let own = Arc::clone(&pulse);
        let task = tokio::spawn(async move {
            let _open = open;
            if let Err(error) = connection(worker, own, socket).await {
                tracing::debug!(%error, "a client's connection ended");
            }
        });
        let mut connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        connections.push((pulse, task.abort_handle()));
    }
}

/// Counts one connection while it lives.
struct OpenConnection(Arc<AtomicUsize>);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

type Broken = Box<dyn std::error::Error + Send + Sync>;

async fn connection(
    worker: Arc<Worker>,
    pulse: Arc<Pulse>,
    socket: std::net::TcpStream,
) -> Result<(), Broken> {
    let stream = TcpStream::from_std(socket)?;
    stream.set_nodelay(true)?;
    let peer = stream.peer_addr()?.ip().to_canonical();
    let tls = worker.proxy.routes.load().tls.clone();
    let (stream, is_http2, certificate) = match tls {
        None => {
            let is_http2 = timeout(FIRST_BYTE_MAX, begins_http2(&stream)).await??;
            (Stream::Plain(stream), is_http2, None)
        }
        Some(tls) => {
            let (stream, certificate) = timeout(FIRST_BYTE_MAX, tls.accept(stream)).await??;
            let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
            (Stream::Tls(Box::new(stream)), is_http2, certificate)
        }
    };
    let certificate = certificate.and_then(|certificate| certificate.agent());
    let client = Client { pulse, peer, certificate };
    speak(worker, client, stream, is_http2).await
}

/// Serves `client` on `stream` until either side has had enough.
async fn speak(
    worker: Arc<Worker>,
    client: Client,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    is_http2: bool,
) -> Result<(), Broken> {
    let io = TokioIo::new(Noticed::new(stream, Arc::clone(&client.pulse)));
    let client = Arc::new(client);
    let service = service_fn(move |request| answer(Arc::clone(&worker), Arc::clone(&client), request));
    if is_http2 {
        http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS_MAX)
            .max_header_list_size(u32::try_from(HEAD_BYTES_MAX)?)
            .keep_alive_interval(PING_EVERY)
            .serve_connection(io, service)
            .await?;
    } else {
        http1::Builder::new()
            .header_read_timeout(None)
            .max_header_size(HEAD_BYTES_MAX)
            .serve_connection(io, service)
            .await?;
    }
    Ok(())
}

/// Whether the client speaks HTTP/2 from the start: no method of HTTP/1 begins like its preface.
async fn begins_http2(stream: &TcpStream) -> io::Result<bool> {
    let mut first = [0; 3];
    Ok(stream.peek(&mut first).await? == first.len() && first == *b"PRI")
}

#[cfg(test)]
mod tests;
