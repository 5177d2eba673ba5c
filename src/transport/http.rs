//! Streamable HTTP: a reverse proxy for every revision, with the gate in its path.
//!
//! Run by `cli::serve`. One request of a client is one exchange: its head is checked (`checks`), its body is read as one frame and
//! shown to the gate (`post`); what passes goes to the server with the same bytes, and the server's answer comes back as it is
//! written; what is held waits in a task of its own (`held`). Each worker is a thread with connections of its own. Nothing here
//! decides what may run.

mod body;
mod checks;
mod headers;
mod held;
pub mod listener;
mod post;
mod pulse;
mod sessions;
pub mod settings;
mod stream;
pub mod tls;
mod upstream;
mod watch;

use std::{
    collections::{HashMap, HashSet},
    convert::Infallible,
    sync::Arc,
};

use arc_swap::ArcSwap;
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use tokio_util::task::TaskTracker;

use self::{
    body::Body,
    checks::TurnedAway,
    pulse::{Pulse, Pulsed},
    settings::{HttpLimits, HttpSettings},
    upstream::Upstream,
};
use crate::{gate::Gate, principal::Principal};

/// A reverse proxy: the gate, and the servers behind it.
pub struct Proxy {
    gate: Arc<Gate>,
    routes: ArcSwap<Routes>,
    workers: usize,
    /// The tasks that keep held calls or record ends.
    tasks: TaskTracker,
}

/// Where requests may go, and from where they may come.
pub(in crate::transport) struct Routes {
    upstreams: Vec<Arc<Upstream>>,
    by_path: HashMap<String, usize>,
    hosts: HashSet<String>,
    origins: HashSet<String>,
    limits: HttpLimits,
}

impl Proxy {
    /// A proxy that does what `settings` say, for `workers` workers.
    pub fn new(gate: Arc<Gate>, settings: HttpSettings, workers: usize) -> Self {
        let routes = ArcSwap::from_pointee(Routes::new(settings, workers));
        Self { gate, routes, workers, tasks: TaskTracker::new() }
    }

    /// From now on it does what `settings` say. Calls that wait or run go on as they began; sessions begin anew.
    pub fn change(&self, settings: HttpSettings) {
        self.routes.store(Arc::new(Routes::new(settings, self.workers)));
    }
}

impl Routes {
    fn new(settings: HttpSettings, workers: usize) -> Self {
        let by_path = settings.upstreams.iter().enumerate().map(|(at, one)| (one.path.clone(), at)).collect();
        let upstreams = settings.upstreams.into_iter().map(|one| Arc::new(Upstream::new(one, workers)));
        Self {
            upstreams: upstreams.collect(),
            by_path,
            hosts: settings.hosts.into_iter().collect(),
            origins: settings.origins.into_iter().collect(),
            limits: settings.limits,
        }
    }
}

/// One thread's part of a proxy.
pub(in crate::transport) struct Worker {
    proxy: Arc<Proxy>,
    number: usize,
}

/// What is known of one connection of a client.
pub(in crate::transport) struct Client {
    pulse: Arc<Pulse>,
}

/// One request on its way: who asks, and which server is meant.
struct Exchange {
    worker: Arc<Worker>,
    upstream: Arc<Upstream>,
    principal: Principal,
    limits: HttpLimits,
}

/// Answers one request. Whatever is wrong with it is an answer as well.
async fn answer(
    worker: Arc<Worker>,
    client: Arc<Client>,
    request: Request<Incoming>,
) -> Result<Response<Pulsed<Body>>, Infallible> {
    let call = client.pulse.begin_call();
    let response = match exchange(worker, &request) {
        Err(TurnedAway { status, text }) => body::text(status, text),
        Ok(exchange) => match *request.method() {
            Method::POST => post::post(exchange, request).await,
            Method::GET => return Ok(call.on_stream(Box::pin(stream::get(exchange, request)).await)),
            Method::DELETE => Box::pin(stream::delete(exchange, request)).await,
            _ => body::text(StatusCode::METHOD_NOT_ALLOWED, "only POST, GET and DELETE are served"),
        },
    };
    Ok(call.on_call(response))
}

/// Who asks for what, if the head of the request is in order.
fn exchange(worker: Arc<Worker>, request: &Request<Incoming>) -> Result<Exchange, TurnedAway> {
    let routes = worker.proxy.routes.load();
    let upstream = checks::head(request, &routes)?;
    let upstream = Arc::clone(&routes.upstreams[upstream]);
    let limits = routes.limits;
    drop(routes);
    Ok(Exchange { worker, upstream, principal: Principal::Anyone, limits })
}
