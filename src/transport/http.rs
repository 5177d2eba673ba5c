//! Streamable HTTP: a reverse proxy for every revision, with the gate in its path.
//!
//! Run by `cli::serve`. One request of a client is one exchange: its head is checked (`checks`), its body is read as one frame and
//! shown to the gate (`post`); what passes goes to the server with the same bytes, and the server's answer comes back as it is
//! written; what is held waits in a task of its own (`held`). Each worker is a thread with connections of its own. Nothing here
//! decides what may run.

mod batch;
mod body;
mod checks;
mod headers;
mod held;
mod legacy;
pub mod identity;
pub mod lines;
pub mod listener;
mod oauth;
mod accounts;
mod pages;
mod post;
mod pulse;
pub mod remote;
mod sessions;
pub mod settings;
mod stream;
mod tasks;
pub mod tls;
mod traced;
mod upstream;
mod watch;

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
};

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use tokio_util::task::TaskTracker;

use self::{
    accounts::{Account, Accounts},
    body::Body,
    checks::Door,
    identity::AgentSettings,
    lines::LineServers,
    pages::Page,
    pulse::{Pulse, Pulsed},
    settings::{HttpLimits, HttpSettings},
    tls::ServerTls,
    upstream::{NoResponse, Upstream, UpstreamBody},
};
use crate::{gate::Gate, hold::Absence, principal::Principal};

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
    is_stopping: AtomicBool,
}

/// Where requests may go, and from where they may come.
pub(in crate::transport) struct Routes {
    upstreams: Vec<Arc<Upstream>>,
    lines: Vec<Arc<LineServers>>,
    /// By path: the servers that are there for one host only, and the one that is for all others.
    by_path: BTreeMap<String, Vec<(Option<String>, Behind)>>,
    hosts: BTreeSet<String>,
    origins: BTreeSet<String>,
    agents: AgentSettings,
    tls: Option<Arc<ServerTls>>,
    limits: HttpLimits,
}

impl Proxy {
    /// A proxy that does what `settings` say, for `workers` workers.
    pub fn new(gate: Arc<Gate>, settings: HttpSettings, workers: usize) -> Self {
        let routes = ArcSwap::from_pointee(Routes::new(settings, workers, (&[], &[])));
        Self {
            gate,
            routes,
            workers,
            anyone: Arc::new(Principal::Anyone),
            accounts: Accounts::default(),
            tasks: TaskTracker::new(),
            is_stopping: AtomicBool::new(false),
        }
    }

    /// From now on nothing new begins: what clients ask is refused, and what waits loses its callers. What runs goes on.
    pub fn stop(&self) {
        // In this order, and the other way round where a call begins to wait: one of the two finds it.
        self.is_stopping.store(true, SeqCst);
        self.gate.detach_all(Absence::Stopping);
    }

    fn is_stopping(&self) -> bool {
        self.is_stopping.load(SeqCst)
    }

    /// From now on it does what `settings` say. Calls that wait or run go on as they began, and servers that are still named, at the same
    /// place or by the same command, keep their sessions.
    pub fn change(&self, settings: HttpSettings) {
        let known = self.routes.load_full();
        self.routes.store(Arc::new(Routes::new(settings, self.workers, (&known.upstreams, &known.lines))));
    }
}

/// What is behind a path: a server on HTTP or on stdio, by its place in the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Behind {
    Http(usize),
    Lines(usize),
}

impl Routes {
    /// `known`: servers that may have sessions already.
    fn new(settings: HttpSettings, workers: usize, known: (&[Arc<Upstream>], &[Arc<LineServers>])) -> Self {
        let on_http = settings.upstreams.iter().enumerate();
        let on_http = on_http.map(|(at, one)| (&one.path, &one.host, Behind::Http(at)));
        let on_lines = settings.commands.iter().enumerate();
        let on_lines = on_lines.map(|(at, one)| (&one.path, &one.host, Behind::Lines(at)));
        let mut by_path: BTreeMap<String, Vec<_>> = BTreeMap::new();
        let mut hosts: BTreeSet<String> = settings.hosts.into_iter().collect();
        for (path, host, behind) in on_http.chain(on_lines) {
            hosts.extend(host.clone());
            by_path.entry(path.clone()).or_default().push((host.clone(), behind));
        }
        let upstreams = settings.upstreams.into_iter();
        let upstreams = upstreams.map(|one| Arc::new(Upstream::new(one, workers).knowing(known.0)));
        let lines = settings.commands.into_iter().map(|one| {
            let Some(same) = known.1.iter().find(|known| known.is_of(&one)) else {
                return Arc::new(LineServers::new(one));
            };
            same.wait_so_long(one.wait);
            Arc::clone(same)
        });
        Self {
            upstreams: upstreams.collect(),
            lines: lines.collect(),
            by_path,
            hosts,
            origins: settings.origins.into_iter().collect(),
            agents: settings.agents,
            tls: settings.tls,
            limits: settings.limits,
        }
    }

    /// What is at `path` for clients that call this proxy `host`, in lower case.
    fn find(&self, host: &str, path: &str) -> Option<Behind> {
        let there = self.by_path.get(path)?;
        let of = |wanted: Option<&str>| there.iter().find(|(host, _)| host.as_deref() == wanted);
        of(Some(host)).or_else(|| of(None)).map(|(_, behind)| *behind)
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
#[derive(Clone)]
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

    /// What whoever asks has open.
    fn account(&self) -> Arc<Account> {
        self.worker.proxy.accounts.of(&self.principal)
    }

    /// Sends `request` to the server.
    fn send(
        &self,
        request: Request<Full<Bytes>>,
    ) -> impl Future<Output = Result<Response<UpstreamBody>, NoResponse>> + Send {
        self.upstream.send(self.worker.number, request)
    }
}

/// Answers one request. Whatever is wrong with it is an answer as well.
#[expect(
    clippy::manual_async_fn,
    reason = "an `async fn` keeps its arguments twice, in each of thousands of calls that wait"
)]
fn answer(
    worker: Arc<Worker>,
    client: Arc<Client>,
    request: Request<Incoming>,
) -> impl Future<Output = Result<Response<Pulsed<Body>>, Infallible>> + Send {
    async move {
        let call = client.pulse.begin_call();
        let routes = worker.proxy.routes.load_full();
        let is_in_pieces = checks::is_in_pieces(&request);
        let page = Page::of(request.headers(), &routes);
        let admitted = match admit(&worker, &client, &request, &routes, page.as_ref()) {
            Ok(admitted) => admitted,
            Err(mut response) => {
                checks::nothing_after(&mut response, is_in_pieces);
                page.iter().for_each(|page| page.may_read(&mut response));
                return Ok(call.on_call(*response));
            }
        };
        let is_get = *request.method() == Method::GET;
        let mut response = match admitted.behind {
            Behind::Lines(at) => {
                let (servers, limits) = (&routes.lines[at], &routes.limits);
                Box::pin(lines::answer(&worker.proxy, servers, &admitted.principal, limits, request)).await
            }
            Behind::Http(at) => {
                let upstream = Arc::clone(&routes.upstreams[at]);
                let exchange = Exchange { worker, routes, upstream, principal: admitted.principal };
                match (admitted.door, request.method()) {
                    (Door::Metadata, _) => Box::pin(oauth::metadata(exchange, request)).await,
                    (Door::Messages, _) => Box::pin(legacy::post(exchange, request)).await,
                    (_, &Method::POST) => post::post(exchange, request).await,
                    (_, &Method::GET) => Box::pin(stream::get(exchange, request)).await,
                    (_, &Method::DELETE) => Box::pin(stream::delete(exchange, request)).await,
                    _ => body::text(StatusCode::METHOD_NOT_ALLOWED, "only POST, GET and DELETE are served"),
                }
            }
        };
        checks::nothing_after(&mut response, is_in_pieces);
        page.iter().for_each(|page| page.may_read(&mut response));
        let is_endless = is_get || response.extensions().get::<Endless>().is_some();
        Ok(if is_endless { call.on_stream(response) } else { call.on_call(response) })
    }
}

/// A request whose head is in order: who asks, and for what.
struct Admitted {
    behind: Behind,
    door: Door,
    principal: Arc<Principal>,
}

/// Looks at the head of `request`, which may come from `page`. `Err`: what is answered at once.
fn admit(
    worker: &Worker,
    client: &Client,
    request: &Request<Incoming>,
    routes: &Routes,
    page: Option<&Page>,
) -> Result<Admitted, Box<Response<Body>>> {
    if let Some(page) = page
        && let Some(leave) = page.asks_for_leave(request, routes)?
    {
        return Err(Box::new(leave));
    }
    let (behind, door) = checks::head(request, request.method(), routes)?;
    let anyone = &worker.proxy.anyone;
    let principal = match door {
        Door::Endpoint | Door::Messages => routes.agents.who(client, request.headers(), anyone)?,
        // Asked for before a client can show anything.
        Door::Metadata => Arc::clone(anyone),
    };
    if *request.method() == Method::POST {
        checks::content(request.headers(), routes)?;
    }
    Ok(Admitted { behind, door, principal })
}
