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
pub mod identity;
pub mod listener;
mod oauth;
mod accounts;
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
    net::IpAddr,
    sync::Arc,
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use tokio_util::task::TaskTracker;

use self::{
    accounts::Accounts,
    body::Body,
    checks::{Door, TurnedAway},
    identity::AgentSettings,
    pulse::{Pulse, Pulsed},
    settings::{HttpLimits, HttpSettings},
    tls::ServerTls,
    upstream::{NoResponse, Upstream, UpstreamBody},
};
use crate::{gate::Gate, principal::Principal};

/// A reverse proxy: the gate, and the servers behind it.
pub struct Proxy {
    gate: Arc<Gate>,
    routes: ArcSwap<Routes>,
    workers: usize,
    /// Who asks where nobody has to say.
    anyone: Arc<Principal>,
    /// What each principal has open.
    accounts: Accounts,
    /// The tasks that keep held calls or record ends.
    tasks: TaskTracker,
}

/// Where requests may go, and from where they may come.
pub(in crate::transport) struct Routes {
    upstreams: Vec<Arc<Upstream>>,
    by_path: HashMap<String, usize>,
    hosts: HashSet<String>,
    origins: HashSet<String>,
    agents: AgentSettings,
    tls: Option<Arc<ServerTls>>,
    limits: HttpLimits,
}

impl Proxy {
    /// A proxy that does what `settings` say, for `workers` workers.
    pub fn new(gate: Arc<Gate>, settings: HttpSettings, workers: usize) -> Self {
        let routes = ArcSwap::from_pointee(Routes::new(settings, workers));
        Self {
            gate,
            routes,
            workers,
            anyone: Arc::new(Principal::Anyone),
            accounts: Accounts::default(),
            tasks: TaskTracker::new(),
        }
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
            agents: settings.agents,
            tls: settings.tls,
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
    /// Where it comes from.
    peer: IpAddr,
    /// The agent that its certificate names.
    certificate: Option<Arc<Principal>>,
}

/// Says of a response that it ends only when somebody wants it to.
#[derive(Clone, Copy, Debug)]
struct Endless;

/// One request on its way: who asks, and which server is meant.
struct Exchange {
    worker: Arc<Worker>,
    routes: Arc<Routes>,
    upstream: Arc<Upstream>,
    principal: Arc<Principal>,
}

impl Exchange {
    fn gate(&self) -> &Arc<Gate> {
        &self.worker.proxy.gate
    }

    fn limits(&self) -> &HttpLimits {
        &self.routes.limits
    }

    /// Sends `request` to the server.
    async fn send(&self, request: Request<Full<Bytes>>) -> Result<Response<UpstreamBody>, NoResponse> {
        self.upstream.send(self.worker.number, request).await
    }
}

/// Answers one request. Whatever is wrong with it is an answer as well.
async fn answer(
    worker: Arc<Worker>,
    client: Arc<Client>,
    request: Request<Incoming>,
) -> Result<Response<Pulsed<Body>>, Infallible> {
    let call = client.pulse.begin_call();
    let response = match exchange(worker, &client, &request) {
        Err(away) => away.into_response(),
        Ok((exchange, Door::Metadata)) => Box::pin(oauth::metadata(exchange, request)).await,
        Ok((exchange, Door::Endpoint)) => match *request.method() {
            Method::POST => post::post(exchange, request).await,
            Method::GET => return Ok(call.on_stream(Box::pin(stream::get(exchange, request)).await)),
            Method::DELETE => Box::pin(stream::delete(exchange, request)).await,
            _ => body::text(StatusCode::METHOD_NOT_ALLOWED, "only POST, GET and DELETE are served"),
        },
    };
    Ok(if response.extensions().get::<Endless>().is_some() {
        call.on_stream(response)
    } else {
        call.on_call(response)
    })
}

/// Who asks for what, if the head of the request is in order.
fn exchange(
    worker: Arc<Worker>,
    client: &Client,
    request: &Request<Incoming>,
) -> Result<(Exchange, Door), TurnedAway> {
    let routes = worker.proxy.routes.load_full();
    let (upstream, door) = checks::head(request, &routes)?;
    let principal = match door {
        Door::Endpoint => routes.agents.who(client, request.headers(), &worker.proxy.anyone)?,
        // Asked for before a client can show anything.
        Door::Metadata => Arc::clone(&worker.proxy.anyone),
    };
    if *request.method() == Method::POST {
        checks::content(request.headers(), &routes)?;
    }
    let upstream = Arc::clone(&routes.upstreams[upstream]);
    Ok((Exchange { worker, routes, upstream, principal }, door))
}
