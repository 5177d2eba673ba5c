//! A server that speaks stdio, offered over HTTP: one process for each session, behind the session that `run` has.
//!
//! Used for servers whose configuration names a command. The gate is in `transport::session`, as everywhere on stdio. Here processes begin
//! and end; what is said to one is for `piped`, and who hears what it says for `router`. Requests of the era without sessions share processes
//! with others of their principal, never two with one id in one process. This file decides nothing and changes no line.

mod piped;
mod router;

use std::{
    cmp::Reverse,
    collections::HashMap,
    ffi::OsString,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering::Relaxed},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use self::{piped::Piped, router::Router};
use super::{
    Proxy, batch,
    body::{self, Body},
    headers::{self, SESSION_ID},
    post,
    settings::HttpLimits,
    stream,
};
use crate::{
    gate::{Caller, ListedTools, Refusal},
    hold::HoldId,
    jsonrpc::{Frame, Kind},
    mcp::{self, method},
    principal::Principal,
    transport::{
        session::{Lifecycle, SessionLimits},
        stdio::{self, Server},
    },
    waiting::Wait,
};

/// Processes of one server.
const PROCESSES_MAX: usize = 64;

/// Those of them that one principal may have, where there may be others.
const PROCESSES_OF_ONE_MAX: usize = 32;

/// How long a process that nobody uses is kept.
const UNUSED_MAX: Duration = Duration::from_secs(3600);

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
    name: Arc<str>,
    command: Vec<OsString>,
    /// How long clients are kept waiting, now and as soon as that changes.
    wait: watch::Sender<Option<Wait>>,
    began: Instant,
    /// Taken by whoever starts a process, so that there are never more than may be.
    starting: Mutex<()>,
    running: Mutex<Running>,
}

#[derive(Default)]
struct Running {
    /// Those with a session.
    by_id: HashMap<Box<str>, Arc<Piped>>,
    /// Those for requests without one.
    shared: Vec<Arc<Piped>>,
    /// Whose have been told to end, and when they have gone.
    ending: Vec<(Arc<Principal>, CancellationToken)>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Why a message goes nowhere.
enum Nowhere {
    /// There is no such session, or it is somebody else's.
    NoSession,
    /// The process has ended.
    Ended,
    /// The process cannot be started.
    NoProcess,
    /// As many run as may.
    TooMany,
}

impl Nowhere {
    fn into_response(self) -> Response<Body> {
        match self {
            Self::NoSession => body::text(StatusCode::NOT_FOUND, "no such session"),
            Self::Ended => body::text(StatusCode::BAD_GATEWAY, "the server has ended"),
            Self::NoProcess => body::text(StatusCode::BAD_GATEWAY, "the server cannot be started"),
            Self::TooMany => body::text(StatusCode::SERVICE_UNAVAILABLE, "as many sessions run as may"),
        }
    }
}

impl Running {
    fn all(&self) -> impl Iterator<Item = &Arc<Piped>> {
        self.by_id.values().chain(&self.shared)
    }

    /// Ends those that are not to be kept.
    fn retain(&mut self, keeps: impl Fn(&Arc<Piped>) -> bool) {
        let Self { by_id, shared, ending } = self;
        let mut keeps = |piped: &Arc<Piped>| {
            let is_kept = keeps(piped);
            if !is_kept {
                piped.lifecycle.stop.cancel();
                ending.push((Arc::clone(&piped.principal), piped.gone.clone()));
            }
            is_kept
        };
        by_id.retain(|_, piped| keeps(piped));
        shared.retain(keeps);
        ending.retain(|(_, gone)| !gone.is_cancelled());
    }

    /// Makes room for one more process of `principal`: where its share or all is taken, the one ends that nobody has used for longest,
    /// of this principal or of whoever has most. One in which something waits or runs never does.
    fn make_room(&mut self, principal: &Arc<Principal>, now: u64) -> Result<(), Nowhere> {
        self.retain(|piped| piped.is_alive());
        let share = if **principal == Principal::Anyone { PROCESSES_MAX } else { PROCESSES_OF_ONE_MAX };
        // What has been told to end may take a while to do so.
        let ending_of_it = self.ending.iter().filter(|(whose, _)| whose == principal).count();
        if ending_of_it >= share || self.ending.len() >= PROCESSES_MAX {
            return Err(Nowhere::TooMany);
        }
        let count = |whose: &Arc<Principal>| self.all().filter(|piped| piped.principal == *whose).count();
        let own = count(principal);
        if own < share && self.all().count() < PROCESSES_MAX {
            return Ok(());
        }
        let gives = |piped: &&Arc<Piped>| {
            let is_own = piped.principal == *principal;
            !piped.is_busy(now) && (is_own || own < share && count(&piped.principal) > own)
        };
        let longest = |piped: &&Arc<Piped>| (Reverse(count(&piped.principal)), piped.used.load(Relaxed));
        let oldest = self.all().filter(gives).min_by_key(longest).cloned().ok_or(Nowhere::TooMany)?;
        self.retain(|piped| !Arc::ptr_eq(piped, &oldest));
        Ok(())
    }
}

impl LineServers {
    pub(super) fn new(settings: CommandSettings) -> Self {
        let CommandSettings { name, command, wait, .. } = settings;
        let (began, wait) = (Instant::now(), watch::Sender::new(wait));
        Self { name, command, wait, began, starting: Mutex::default(), running: Mutex::default() }
    }

    /// Whether `settings` are about the same server, wherever clients reach it and however long they are kept waiting.
    pub(super) fn is_of(&self, settings: &CommandSettings) -> bool {
        self.name == settings.name && self.command == settings.command
    }

    /// From now on clients are kept waiting so long.
    pub(super) fn wait_so_long(&self, wait: Option<Wait>) {
        self.wait.send_replace(wait);
    }

    fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn is_used(&self, piped: &Piped) {
        piped.used.store(self.now(), Relaxed);
    }

    /// Begins a session: a process of its own, and the id by which its client will call it.
    fn begin(
        &self,
        proxy: &Proxy,
        principal: &Arc<Principal>,
        limits: &HttpLimits,
    ) -> Result<(HeaderValue, Arc<Piped>), Nowhere> {
        let id = HoldId::random().map_err(|_| Nowhere::NoProcess)?.to_string();
        let header = HeaderValue::try_from(&id).map_err(|_| Nowhere::NoProcess)?;
        let piped = self.start(proxy, principal, Router::default(), limits, |running, piped| {
            running.by_id.insert(id.into(), piped);
        })?;
        Ok((header, piped))
    }

    /// The session `id` of `principal`.
    fn find(&self, id: &str, principal: &Arc<Principal>) -> Result<Arc<Piped>, Nowhere> {
        let piped = lock(&self.running).by_id.get(id).cloned();
        let piped = piped.filter(|piped| piped.principal == *principal && piped.is_alive());
        let piped = piped.ok_or(Nowhere::NoSession)?;
        self.is_used(&piped);
        Ok(piped)
    }

    /// Ends the session `id`, whoever still waits in it: what is held there is withdrawn.
    fn end(&self, id: &str) {
        let mut running = lock(&self.running);
        if let Some(ended) = running.by_id.get(id).cloned() {
            ended.end();
            running.retain(|piped| !Arc::ptr_eq(piped, &ended));
        }
    }

    /// A process for a message without a session: one of this principal in which nobody could take it for another's. What takes a request
    /// back goes to where that has gone, if anywhere.
    fn share(
        &self,
        proxy: &Proxy,
        principal: &Arc<Principal>,
        frame: &Frame,
        limits: &HttpLimits,
    ) -> Result<Option<Arc<Piped>>, Nowhere> {
        if frame.method() == Some(method::CANCELLED) {
            // Of several clients nobody knows whose request it means. Here requests are taken back by closing their streams.
            return Ok(None);
        }
        let (found, listed) = {
            let mut running = lock(&self.running);
            running.retain(|piped| piped.is_alive());
            let mut own = running.shared.iter().filter(|piped| piped.principal == *principal);
            let listed = own.clone().next().map(|piped| Arc::clone(&piped.router.listed));
            let found = own.find(|piped| lock(&piped.router.ways).are_free_for(frame));
            (found.cloned(), listed)
        };
        let piped = match found {
            Some(piped) => piped,
            None => {
                let listed: Arc<Mutex<ListedTools>> = listed.unwrap_or_default();
                let router = Router { listed, is_shared: true, ..Router::default() };
                self.start(proxy, principal, router, limits, |running, piped| running.shared.push(piped))?
            }
        };
        self.is_used(&piped);
        Ok(Some(piped))
    }

    fn start(
        &self,
        proxy: &Proxy,
        principal: &Arc<Principal>,
        router: Router,
        limits: &HttpLimits,
        keep: impl FnOnce(&mut Running, Arc<Piped>),
    ) -> Result<Arc<Piped>, Nowhere> {
        let _one_at_a_time = lock(&self.starting);
        lock(&self.running).make_room(principal, self.now())?;
        let (program, arguments) = self.command.split_first().ok_or(Nowhere::NoProcess)?;
        let server = Server::start_one_of_several(program, arguments).map_err(|error| {
            tracing::error!(%error, "a server cannot be started");
            Nowhere::NoProcess
        })?;
        let mut caller = Caller::new(principal, Arc::clone(&self.name));
        caller.is_http = true;
        let lifecycle = Lifecycle { wait: Some(self.wait.subscribe()), ..Lifecycle::default() };
        let session_limits = SessionLimits {
            // A line has its end besides.
            client_frame_bytes_max: limits.client_frame_bytes_max + 1,
            server_frame_bytes_max: limits.server_frame_bytes_max,
            ..SessionLimits::default()
        };
        let (piped, (reader, writer)) = Piped::new(
            principal,
            proxy.accounts.of(principal),
            router,
            lifecycle.clone(),
            limits.client_frame_bytes_max,
        );
        let client = (Box::new(reader) as stdio::Reader, Box::new(writer) as stdio::Writer);
        let gate = Arc::clone(&proxy.gate);
        let session = stdio::serve_client(server, gate, caller, session_limits, client, lifecycle);
        let gone = piped.gone.clone().drop_guard();
        proxy.tasks.spawn(async move {
            let _gone = gone;
            if let Err(error) = session.await {
                tracing::error!(%error, "a server's end could not be seen");
            }
        });
        self.is_used(&piped);
        keep(&mut lock(&self.running), Arc::clone(&piped));
        Ok(piped)
    }

    /// Ends what nobody has used for long, and what has ended by itself.
    pub(super) fn sweep(&self) {
        let (now, unused_max) = (self.now(), u64::try_from(UNUSED_MAX.as_millis()).unwrap_or(u64::MAX));
        lock(&self.running).retain(|piped| {
            let unused = now.saturating_sub(piped.used.load(Relaxed));
            piped.is_alive() && (piped.is_busy(now) || unused < unused_max)
        });
    }

    /// Ends them all, whatever is still waited for.
    pub(super) fn stop(&self) {
        lock(&self.running).retain(|_| false);
    }
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
        return batch(proxy, &piped, &text, takes_events, *limits).await;
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
        return match servers.begin(proxy, principal, limits) {
            Ok((id, piped)) => with_session(piped.ask(frame, takes_events, limits).await, id),
            Err(nowhere) => nowhere.into_response(),
        };
    }
    // Which revisions there are without a session is the server's to say.
    let is_of_none = modern || (session.is_none() && mcp::declares_version(&frame));
    let piped =
        if is_of_none { servers.share(proxy, principal, &frame, limits) } else { of_session().map(Some) };
    let piped = match piped {
        Ok(Some(piped)) => piped,
        Ok(None) => return body::empty(StatusCode::ACCEPTED),
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
async fn batch(
    proxy: &Proxy,
    piped: &Arc<Piped>,
    text: &Bytes,
    takes_events: bool,
    limits: HttpLimits,
) -> Response<Body> {
    let elements = match Frame::batch_from_client(text) {
        Ok(elements) => elements,
        Err(error) => return body::refusal(StatusCode::BAD_REQUEST, &Refusal::unreadable(&error)),
    };
    let form = batch::Form { takes_events, server_frame_bytes_max: limits.server_frame_bytes_max };
    batch::answer(elements, form, |frame| {
        let is_too_late = frame.kind() == Kind::Request && proxy.is_stopping();
        let piped = Arc::clone(piped);
        async move {
            if is_too_late { post::stopping(&frame) } else { piped.take(frame, takes_events, limits).await }
        }
    })
    .await
}

/// Adds the id of a session that has just begun.
fn with_session(mut response: Response<Body>, id: HeaderValue) -> Response<Body> {
    if response.status().is_success() {
        response.headers_mut().insert(SESSION_ID, id);
    }
    response
}

#[cfg(test)]
mod tests;
