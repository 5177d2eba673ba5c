//! Answers on the control socket of one gate.
//!
//! Runs in a thread of its own, so that whatever operators ask never delays the protocol. Reads the peer's credentials
//! before its first byte and serves this process's own user only. Every verdict goes to [`Gate::resolve`]; what the client of the gate has
//! started speaks as the client there, which never decides.

use std::{
    io,
    os::unix::net::UnixListener as StdUnixListener,
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use jsonrpsee::{
    Extensions, PendingSubscriptionSink, SubscriptionMessage,
    core::{SubscriptionResult, async_trait},
    server::{BatchRequestConfig, Methods, Server, ServerConfig, stop_channel},
    types::ErrorObjectOwned,
};
use tokio::{
    net::UnixListener,
    sync::{broadcast::error::RecvError, oneshot},
};

use super::{
    api::{
        ANSWER_BYTES_MAX, ControlServer, GateInfo, HoldView, PAGE_ARGUMENT_BYTES_MAX, PAGE_HOLDS_MAX, Page,
        PolicyReloaded, QUESTION_BYTES_MAX, RememberFor, RememberedView, Resolved, VerificationView, Watched,
        WatchedEvent, error_code,
    },
    connection::{self, Rooms, Uses},
    lineage::ClientProcess,
    place::Registration,
    policies::PolicyView,
    rate::Rate,
    tools::{self, ToolView},
};
use crate::{
    audit::{BadCheckpoint, Checkpoint},
    digest::Digest,
    gate::{Gate, News, ResolveError},
    hold::{HoldId, HoldRecord, NewHold, Place, Proof, Said, State, Verdict},
    principal::Principal,
    reload::{PolicyFiles, Reloaded},
    store::{HistoryFilter, Listed, StoreError},
};

/// Messages that may wait to be written on one connection. With what a watcher is sent bounded too, one that does not read
/// keeps some 2 MiB waiting; the rest of the news it misses, and hears so.
const MESSAGES_WAITING_MAX: u32 = 16;

/// How long a watcher may take to accept one piece of news before it is dropped.
const WATCHER_PATIENCE: Duration = Duration::from_secs(10);

/// How long the end of the gate waits for answers that are on their way.
const LAST_ANSWERS: Duration = Duration::from_millis(200);

/// Ids that one beginning may stand for before it is not looked into further.
const FOUND_MAX: usize = 10;

/// What operators are told of the process behind a control socket.
#[derive(Clone, Debug, Default)]
pub struct About {
    /// The names of its servers.
    pub servers: Vec<Arc<str>>,
    /// Where its record is.
    pub store: String,
    /// The files of its policy; none where they cannot be read again.
    pub policy: Option<Arc<PolicyFiles>>,
    /// The process whose calls are held, and which with all that it starts does not decide on them; none where that is not known.
    pub client: Option<ClientProcess>,
}

/// A control socket that is being served; dropping it stops it.
#[derive(Debug)]
pub struct Control {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// Serves `gate` on the socket of `registration` until the returned handle is dropped.
///
/// # Errors
///
/// When the socket cannot be bound.
pub fn start(gate: Arc<Gate>, about: About, registration: Registration) -> io::Result<Control> {
    let listener = StdUnixListener::bind(&registration.socket)?;
    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (stop, stopped) = oneshot::channel();
    let thread = thread::Builder::new().name("holdshort-control".to_owned()).spawn(move || {
        runtime.block_on(async {
            match UnixListener::from_std(listener) {
                Ok(listener) => {
                    accept(
                        listener,
                        Desk { gate, about, fruitless: Rate::fruitless(), of_client: Rate::fruitless() },
                        stopped,
                    )
                    .await
                }
                Err(error) => tracing::error!(%error, "the control socket cannot be served"),
            }
        });
        // The registration goes with the thread: nobody finds a gate that does not answer.
        drop(registration);
    })?;
    Ok(Control { stop: Some(stop), thread: Some(thread) })
}

impl Drop for Control {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn accept(listener: UnixListener, desk: Desk, stopped: oneshot::Receiver<()>) {
    let client = desk.about.client;
    let config = ServerConfig::builder()
        .max_connections(Rooms::PLACES_MAX)
        .max_request_body_size(QUESTION_BYTES_MAX)
        .max_response_body_size(ANSWER_BYTES_MAX)
        .set_message_buffer_capacity(MESSAGES_WAITING_MAX)
        .set_batch_request_config(BatchRequestConfig::Disabled)
        .build();
    let services = Server::builder().set_config(config).to_service_builder();
    let methods = Methods::from(desk.into_rpc());
    let own_uid = rustix::process::getuid().as_raw();
    let rooms = Rooms::default();
    let (stop, handle) = stop_channel();
    tokio::pin!(stopped);
    loop {
        let connection = tokio::select! {
            // The other end is never used: it is dropped when the gate stops.
            _ = &mut stopped => break,
            connection = listener.accept() => connection,
        };
        let stream = match connection {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection to the control socket was not accepted");
                // Out of file descriptors, most likely: not in a loop that takes the whole processor.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let peer = match stream.peer_cred() {
            // Before the first byte: whoever has connected is there still, and so are its parents.
            Ok(peer) if peer.uid() == own_uid => match client {
                Some(client) if client.has_started(peer.pid()) => Principal::client(),
                _ => Principal::user(peer.uid()),
            },
            Ok(peer) => {
                tracing::warn!(
                    uid = peer.uid(),
                    "another user's connection to the control socket was closed"
                );
                continue;
            }
            Err(error) => {
                tracing::warn!(%error, "a connection without credentials was closed");
                continue;
            }
        };
        let Some(place) = rooms.enter(&peer) else {
            tracing::warn!(%peer, "too many are connected to the control socket; one was turned away");
            continue;
        };
        let (services, methods, stop) = (services.clone(), methods.clone(), stop.clone());
        tokio::spawn(async move {
            connection::serve(stream, peer, services, methods, stop).await;
            drop(place);
        });
    }
    // Whoever has just decided hears what became of it, also where the decision ended the session and this gate with it.
    // The connections have the other halves of `handle`; ours would keep it waiting.
    drop((listener, services, stop));
    let _ = handle.stop();
    let _ = tokio::time::timeout(LAST_ANSWERS, handle.stopped()).await;
}

/// One gate, as operators see it.
struct Desk {
    gate: Arc<Gate>,
    about: About,
    /// Verdicts that had no effect: each costs a look into the record, and whoever floods the gate with them hinders the others.
    fruitless: Rate,
    /// Those of the client and what it has started, counted apart: they must not use up what people need.
    of_client: Rate,
}

impl Desk {
    /// One verdict, of whoever says it.
    async fn decide(
        &self,
        id: HoldId,
        said: impl Into<Said>,
        by: &Principal,
        comment: Option<&str>,
    ) -> Result<Resolved, ErrorObjectOwned> {
        let rate = self.look_at_rate(by)?;
        came_to(id, self.gate.resolve(id, said, by, comment).await, rate)
    }

    /// What somebody has found out about a call of which nobody knew whether it ran.
    async fn find_out(
        &self,
        id: HoldId,
        has_run: bool,
        by: &Principal,
        comment: Option<&str>,
    ) -> Result<Resolved, ErrorObjectOwned> {
        let rate = self.look_at_rate(by)?;
        came_to(id, self.gate.resolve_unknown(id, has_run, by, comment).await, rate)
    }

    /// What counts the verdicts of `by` that have no effect, if one more may be tried.
    fn look_at_rate(&self, by: &Principal) -> Result<&Rate, ErrorObjectOwned> {
        let rate = if matches!(by, Principal::Client { .. }) { &self.of_client } else { &self.fruitless };
        rate.look().map_err(too_often)?;
        Ok(rate)
    }

    /// A hold as people are shown it.
    async fn record(&self, id: HoldId) -> Result<HoldRecord, ErrorObjectOwned> {
        let found = self.gate.as_shown(id).await.map_err(unavailable)?;
        found.ok_or_else(|| resolve_error(&ResolveError::NotFound))
    }

    /// Where in lists a hold is.
    async fn place_of(&self, id: HoldId) -> Result<Place, ErrorObjectOwned> {
        if let Some(held) = self.gate.held(id) {
            return Ok(held.place());
        }
        let found = self.gate.store().listed_hold(id).await.map_err(unavailable)?;
        found.map(|listed| listed.record.hold.place()).ok_or_else(|| resolve_error(&ResolveError::NotFound))
    }

    /// What waits here and what has no caller, behind the place `after`, the oldest first: as many as a page can have, and one more.
    async fn open_after(&self, after: Option<Place>) -> Result<Vec<Open>, ErrorObjectOwned> {
        const OPEN_MAX: usize = PAGE_HOLDS_MAX + 1;

        // What loses its caller while the record is read was here before; what gets one is here afterwards.
        let here = || self.gate.holds_after(after, OPEN_MAX).into_iter().map(Open::Waiting);
        let before = here();
        let detached = self.gate.detached_after(after, OPEN_MAX).await.map_err(unavailable)?;
        let mut open: Vec<Open> = before.chain(here()).collect();
        let is_here = |id| self.gate.held(id).is_some();
        open.extend(
            detached
                .into_iter()
                .filter(|listed| !is_here(listed.record.hold.id))
                .map(|listed| Open::Recorded(Box::new(listed))),
        );
        open.sort_unstable_by_key(|open| open.hold().place());
        // One that has lost its caller meanwhile is in both.
        open.dedup_by_key(|open| open.hold().id);
        open.truncate(OPEN_MAX);
        for open in &mut open {
            // Where several people decide, the record has the votes so far.
            if let Open::Waiting(hold) = open
                && hold.quorum.is_some()
                && let Some(listed) = self.gate.store().listed_hold(hold.id).await.map_err(unavailable)?
            {
                *open = Open::Recorded(Box::new(listed));
            }
        }
        Ok(open)
    }
}

/// A hold of a list.
enum Open {
    Waiting(Arc<NewHold>),
    Recorded(Box<Listed>),
}

impl Open {
    fn hold(&self) -> &NewHold {
        match self {
            Self::Waiting(hold) => hold,
            Self::Recorded(listed) => &listed.record.hold,
        }
    }

    fn view(&self) -> HoldView {
        match self {
            Self::Waiting(hold) => HoldView::waiting(hold).as_news(),
            Self::Recorded(listed) => HoldView::listed(listed),
        }
    }
}

#[async_trait]
impl ControlServer for Desk {
    async fn info(&self) -> Result<GateInfo, ErrorObjectOwned> {
        let policy = self.gate.policy();
        Ok(GateInfo {
            instance: self.gate.instance().to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            servers: self.about.servers.iter().map(ToString::to_string).collect(),
            policy_sha256: policy.digest().to_string(),
            rules: policy.rules().len(),
            assurance: self.gate.assurance(),
            min_assurance: policy.min_assurance(),
            store: self.about.store.clone(),
            holds: self.gate.holds_len(),
        })
    }

    async fn holds(&self, after: Option<HoldId>) -> Result<Page, ErrorObjectOwned> {
        // It may have ended since: the record still knows where in the order it was.
        let after = match after {
            Some(after) => Some(self.place_of(after).await?),
            None => None,
        };
        Ok(page(self.open_after(after).await?.iter().map(Open::view)))
    }

    async fn show(&self, id: HoldId) -> Result<HoldView, ErrorObjectOwned> {
        Ok(HoldView::whole(&self.record(id).await?))
    }

    async fn resolve(
        &self,
        extensions: &Extensions,
        id: HoldId,
        verdict: Verdict,
        comment: Option<String>,
        shown_sha256: Option<Digest>,
    ) -> Result<Resolved, ErrorObjectOwned> {
        let said = Said { shown_sha256, ..verdict.into() };
        self.decide(id, said, approver(extensions)?, comment.as_deref()).await
    }

    async fn resolve_signed(
        &self,
        extensions: &Extensions,
        id: HoldId,
        verdict: Verdict,
        comment: Option<String>,
        proof: Proof,
    ) -> Result<Resolved, ErrorObjectOwned> {
        let said = Said { proof: Some(proof), ..verdict.into() };
        self.decide(id, said, approver(extensions)?, comment.as_deref()).await
    }

    async fn approve(
        &self,
        extensions: &Extensions,
        id: HoldId,
        comment: Option<String>,
        remember: Option<RememberFor>,
        arguments: Option<String>,
        shown_sha256: Option<Digest>,
    ) -> Result<Resolved, ErrorObjectOwned> {
        let remember = remember.map(|asked| (asked.seconds, asked.same));
        let said = Said { remember, arguments, shown_sha256, ..Verdict::Approve.into() };
        self.decide(id, said, approver(extensions)?, comment.as_deref()).await
    }

    async fn remembered(&self) -> Result<Vec<RememberedView>, ErrorObjectOwned> {
        let found = self.gate.remembered().await.map_err(unavailable)?;
        Ok(found.iter().map(RememberedView::from).collect())
    }

    async fn revoke(&self, extensions: &Extensions, id: HoldId) -> Result<(), ErrorObjectOwned> {
        self.gate.revoke(id, approver(extensions)?).await.map_err(|error| resolve_error(&error))
    }

    async fn resolve_as(
        &self,
        extensions: &Extensions,
        id: HoldId,
        verdict: Verdict,
        comment: Option<String>,
        identity: String,
        shown_sha256: Option<Digest>,
    ) -> Result<Resolved, ErrorObjectOwned> {
        let somebody = vouched_for(extensions, &identity)?;
        let said = Said { shown_sha256, ..verdict.into() };
        self.decide(id, said, &somebody, comment.as_deref()).await
    }

    async fn resolve_unknown(
        &self,
        extensions: &Extensions,
        id: HoldId,
        has_run: bool,
        comment: Option<String>,
    ) -> Result<Resolved, ErrorObjectOwned> {
        self.find_out(id, has_run, approver(extensions)?, comment.as_deref()).await
    }

    async fn resolve_unknown_as(
        &self,
        extensions: &Extensions,
        id: HoldId,
        has_run: bool,
        comment: Option<String>,
        identity: String,
    ) -> Result<Resolved, ErrorObjectOwned> {
        let somebody = vouched_for(extensions, &identity)?;
        self.find_out(id, has_run, &somebody, comment.as_deref()).await
    }

    async fn person(&self, identity: String) -> Result<Option<String>, ErrorObjectOwned> {
        Ok(self.gate.policy().people().behind(&identity).map(|person| person.name.to_string()))
    }

    async fn find(&self, prefix: String) -> Result<Vec<HoldId>, ErrorObjectOwned> {
        let records = self.gate.store().find(&prefix, FOUND_MAX).await.map_err(unavailable)?;
        Ok(records.iter().map(|record| record.hold.id).collect())
    }

    async fn history(&self, before: Option<HoldId>, limit: usize) -> Result<Page, ErrorObjectOwned> {
        let limit = limit.min(PAGE_HOLDS_MAX);
        let records = self
            .gate
            .store()
            .history(HistoryFilter { limit, before, ..HistoryFilter::default() })
            .await
            .map_err(unavailable)?;
        let mut page = page(records.iter().map(HoldView::listed));
        if records.len() == limit && page.next.is_none() {
            page.next = page.holds.last().map(|hold| hold.id);
        }
        Ok(page)
    }

    async fn tools(&self, server: Option<String>) -> Result<Vec<ToolView>, ErrorObjectOwned> {
        let records = self.gate.store().tools(server.as_deref()).await.map_err(unavailable)?;
        Ok(records.iter().map(ToolView::new).collect())
    }

    async fn tool(&self, server: String, tool: String) -> Result<ToolView, ErrorObjectOwned> {
        let record = self.gate.store().tool(&server, &tool).await.map_err(unavailable)?;
        record.as_ref().map(ToolView::whole).ok_or_else(|| tools::no_such_tool(&server, &tool))
    }

    async fn accept_tool(
        &self,
        extensions: &Extensions,
        server: String,
        tool: String,
        sha256: String,
    ) -> Result<ToolView, ErrorObjectOwned> {
        let Some(digest) = Digest::from_hex(&sha256) else {
            let text = "a digest is 64 hexadecimal digits";
            return Err(ErrorObjectOwned::owned(error_code::INVALID, text, None::<()>));
        };
        let accepted = self.gate.accept_tool(&server, &tool, digest, approver(extensions)?).await;
        accepted.map_err(|error| tools::accept_error(&error))?;
        self.tool(server, tool).await
    }

    async fn refresh_tools(&self) -> Result<(), ErrorObjectOwned> {
        self.gate.refresh_tools().await.map_err(unavailable)
    }

    async fn verify(&self, against: Option<String>) -> Result<VerificationView, ErrorObjectOwned> {
        let against: Option<Checkpoint> = against.map(|text| text.parse()).transpose().map_err(invalid)?;
        let verification = self.gate.store().verify(against).await.map_err(unavailable)?;
        Ok(VerificationView::from(&verification))
    }

    async fn policy(&self) -> Result<PolicyView, ErrorObjectOwned> {
        Ok(PolicyView::new(&self.gate.policy()))
    }

    async fn reload(&self, extensions: &Extensions) -> Result<PolicyReloaded, ErrorObjectOwned> {
        let who = extensions.get::<Principal>().map(ToString::to_string);
        let (Some(who), Some(files)) = (who, self.about.policy.clone()) else {
            let told = "this gate's policy cannot be read again";
            return Err(ErrorObjectOwned::owned(error_code::UNAVAILABLE, told, None::<()>));
        };
        // Files are read here, and compiled: not on the thread that answers everybody.
        let reloaded = tokio::task::spawn_blocking(move || files.reload(&who)).await;
        match reloaded {
            Ok(Ok(Reloaded { digest, rules, changed })) => {
                Ok(PolicyReloaded { policy_sha256: digest.to_string(), rules, changed })
            }
            Ok(Err(errors)) => {
                Err(ErrorObjectOwned::owned(error_code::INVALID, errors.to_string(), None::<()>))
            }
            Err(error) => {
                Err(ErrorObjectOwned::owned(error_code::UNAVAILABLE, error.to_string(), None::<()>))
            }
        }
    }

    async fn watch(&self, pending: PendingSubscriptionSink, extensions: &Extensions) -> SubscriptionResult {
        // Whoever waits for news asks nothing more.
        let _in_use = extensions.get::<Uses>().map(Uses::begin);
        // Subscribed before it is accepted, so that nothing is lost in between.
        let mut news = self.gate.watch();
        let sink = pending.accept().await?;
        loop {
            let watched = tokio::select! {
                () = sink.closed() => return Ok(()),
                news = news.recv() => match news {
                    Ok(news) => watched(news),
                    Err(RecvError::Lagged(_)) => Watched::missed(),
                    Err(RecvError::Closed) => return Ok(()),
                },
            };
            let message = SubscriptionMessage::from(serde_json::value::to_raw_value(&watched)?);
            sink.send_timeout(message, WATCHER_PATIENCE).await?;
        }
    }
}

fn watched(news: News) -> Watched {
    match news {
        News::Held(hold) => Watched::held(HoldView::waiting(&hold).as_news()),
        News::Anew => Watched::missed(),
        News::Voted { hold, vote } => {
            let record = HoldRecord {
                votes: vec![vote],
                ..HoldRecord::held((*hold).clone(), Arc::clone(&hold.owner))
            };
            Watched { event: WatchedEvent::Voted, hold: Some(HoldView::new(&record).as_news()) }
        }
        News::Waiting { hold, .. } => {
            Watched { event: WatchedEvent::Waiting, hold: Some(HoldView::waiting(&hold).as_news()) }
        }
        News::Now { hold, state, vote } => {
            let record = HoldRecord {
                state,
                votes: vote.into_iter().collect(),
                ended_at: Some(jiff::Timestamp::now()),
                holder: None,
                ..HoldRecord::held((*hold).clone(), Arc::clone(&hold.owner))
            };
            Watched::ended(HoldView::new(&record).as_news())
        }
    }
}

/// As many holds as a page takes; `next` says that there are more.
fn page(holds: impl Iterator<Item = HoldView>) -> Page {
    let mut page = Page { holds: Vec::new(), next: None };
    let mut bytes = 0;
    for hold in holds {
        if page.holds.len() >= PAGE_HOLDS_MAX || bytes > PAGE_ARGUMENT_BYTES_MAX {
            page.next = page.holds.last().map(|last| last.id);
            break;
        }
        bytes += hold.arguments.get().len();
        page.holds.push(hold);
    }
    page
}

/// Who asks, as the kernel says.
fn approver(extensions: &Extensions) -> Result<&Principal, ErrorObjectOwned> {
    let nobody = || ErrorObjectOwned::owned(error_code::NOT_ALLOWED, "who asks is not known", None::<()>);
    extensions.get::<Principal>().ok_or_else(nobody)
}

/// Somebody whom a desk of this user has told apart.
fn vouched_for(extensions: &Extensions, identity: &str) -> Result<Principal, ErrorObjectOwned> {
    let desk = approver(extensions)?;
    if !matches!(desk, Principal::User { .. }) {
        return Err(resolve_error(&ResolveError::NotAllowed(desk.clone())));
    }
    Principal::channel(identity).ok_or_else(|| {
        let message = "no desk can vouch for this identity";
        ErrorObjectOwned::owned(error_code::NOT_ALLOWED, message, None::<()>)
    })
}

fn invalid(error: BadCheckpoint) -> ErrorObjectOwned {
    ErrorObjectOwned::owned(error_code::INVALID, error.to_string(), None::<()>)
}

/// What a verdict came to; `rate` counts it if it had no effect.
fn came_to(
    id: HoldId,
    state: Result<State, ResolveError>,
    rate: &Rate,
) -> Result<Resolved, ErrorObjectOwned> {
    state.map(|state| Resolved { id, state }).map_err(|error| {
        let _ = rate.take();
        resolve_error(&error)
    })
}

fn too_often(seconds: u64) -> ErrorObjectOwned {
    let message = format!("too many verdicts have had no effect: the next one counts in {seconds} s");
    ErrorObjectOwned::owned(error_code::TOO_OFTEN, message, Some(seconds))
}

fn unavailable(error: StoreError) -> ErrorObjectOwned {
    ErrorObjectOwned::owned(error_code::UNAVAILABLE, error.to_string(), None::<()>)
}

/// What the error of a verdict is on the socket.
pub(crate) fn resolve_error(error: &ResolveError) -> ErrorObjectOwned {
    let code = match error {
        ResolveError::NotFound | ResolveError::NothingRemembered => error_code::NOT_FOUND,
        ResolveError::Ended(record) => return too_late(&HoldView::new(record)),
        ResolveError::Elsewhere => error_code::ELSEWHERE,
        ResolveError::Silent => error_code::UNAVAILABLE,
        ResolveError::There { is_invalid: true, .. } => error_code::INVALID,
        ResolveError::There { is_invalid: false, .. } => error_code::NOT_ALLOWED,
        ResolveError::NotAllowed(_)
        | ResolveError::OwnCall
        | ResolveError::AskedByClient
        | ResolveError::NobodyMay
        | ResolveError::VotedBefore
        | ResolveError::NotRemembered(_)
        | ResolveError::NotEdited(_)
        | ResolveError::NotAlone
        | ResolveError::ToolChanged
        | ResolveError::NotSigned { .. }
        | ResolveError::BadSignature(_)
        | ResolveError::DeniedNow(_) => error_code::NOT_ALLOWED,
        ResolveError::NotWhatWasShown => error_code::NOT_WHAT_WAS_SHOWN,
        ResolveError::NoReason | ResolveError::BadEdit(_) => error_code::INVALID,
        ResolveError::Unrecorded(_) => error_code::UNAVAILABLE,
    };
    ErrorObjectOwned::owned(code, error.to_string(), None::<()>)
}

/// What is told of a verdict on `hold`, which has ended before.
pub(crate) fn too_late(hold: &HoldView) -> ErrorObjectOwned {
    ErrorObjectOwned::owned(error_code::ENDED, hold.state.too_late(), Some(hold))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::{
        control::api::NEWS_ARGUMENT_BYTES_MAX,
        gate::{Caller, GateLimits, Released, Screened},
        hold::Withdrawal,
        jsonrpc::Frame,
        policy::Policy,
        store::Store,
    };

    /// A desk at a gate that holds everything, in memory.
    fn desk() -> Desk {
        let policy = Arc::new(Policy::hold_everything());
        let gate = Gate::new("gate".into(), policy, Store::in_memory(), GateLimits::default());
        Desk {
            gate: Arc::new(gate),
            about: About::default(),
            fruitless: Rate::fruitless(),
            of_client: Rate::fruitless(),
        }
    }

    /// Lets a call with `arguments` wait at the gate.
    fn wait(desk: &Desk, id: usize, arguments: &str) -> HoldId {
        let call = format!(
            r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"x","arguments":{arguments}}}}}"#
        );
        let frame = Frame::from_client(Bytes::from(call)).unwrap();
        let Screened::Hold(held) = desk.gate.screen(&Caller::new(&Principal::client(), "test".into()), frame)
        else {
            panic!("it is held");
        };
        let (gate, id) = (Arc::clone(&desk.gate), held.id());
        tokio::spawn(async move {
            if let Released::Withdrawn { end, .. } = gate.hold(held).await {
                gate.record_withdrawal(end).await;
            }
        });
        id
    }

    #[tokio::test]
    async fn a_list_goes_on_where_it_was_also_when_its_last_hold_has_ended() {
        let desk = desk();
        for id in 0..=PAGE_HOLDS_MAX {
            wait(&desk, id, "{}");
        }
        while desk.gate.holds().len() <= PAGE_HOLDS_MAX {
            tokio::task::yield_now().await;
        }
        let first = desk.holds(None).await.unwrap();
        assert_eq!(first.holds.len(), PAGE_HOLDS_MAX);
        let last = first.next.unwrap();
        assert!(desk.gate.withdraw(last, Withdrawal::Cancelled));
        let second = desk.holds(Some(last)).await.unwrap();
        assert_eq!((second.holds.len(), second.next), (1, None));
        assert!(!first.holds.iter().any(|hold| hold.id == second.holds[0].id), "none twice");
    }

    #[tokio::test]
    async fn a_long_call_is_listed_without_its_arguments_whether_its_caller_waits_or_not() {
        let desk = desk();
        let long = format!("{{\"text\":\"{}\"}}", "x".repeat(NEWS_ARGUMENT_BYTES_MAX));
        let (short, attached) = (wait(&desk, 1, "{\"n\":1}"), wait(&desk, 2, &long));
        while desk.gate.holds().len() < 2 {
            tokio::task::yield_now().await;
        }
        let left = NewHold { id: HoldId([9; 16]), ..NewHold::clone(&desk.gate.held(attached).unwrap()) };
        desk.gate.store().record_hold(left.clone()).await.unwrap();
        desk.gate.store().detach(left.id, Arc::clone(&left.owner), "gone").await.unwrap();
        let page = desk.holds(None).await.unwrap();
        assert_eq!((page.holds.len(), page.next), (3, None));
        for (id, arguments, truncated) in
            [(short, "{\"n\":1}", false), (attached, "{}", true), (left.id, "{}", true)]
        {
            let hold = page.holds.iter().find(|hold| hold.id == id).unwrap();
            assert_eq!((hold.arguments.get(), hold.truncated), (arguments, truncated));
            let whole = desk.show(id).await.unwrap();
            assert_eq!(whole.frame_bytes, hold.frame_bytes, "how long it is, is told");
            assert!(!whole.truncated && whole.frame.is_some(), "asked for, it is shown");
        }
    }

    #[tokio::test]
    async fn a_flood_of_verdicts_without_effect_ends_and_leaves_the_record_alone() {
        let desk = desk();
        let by = Principal::User { uid: 1000, name: None };
        let code =
            async |id| desk.decide(id, Verdict::Approve, &by, None).await.err().map(|error| error.code());
        let mut refused = 0;
        while code(HoldId([7; 16])).await == Some(error_code::NOT_FOUND) {
            refused += 1;
            assert!(refused < 10_000, "it goes on for ever");
        }
        assert!(refused >= 600, "{refused}");
        assert_eq!(code(HoldId([7; 16])).await, Some(error_code::TOO_OFTEN));
    }

    #[tokio::test]
    async fn a_flood_from_the_client_does_not_keep_people_from_deciding() {
        let desk = desk();
        let id = wait(&desk, 1, "{}");
        while desk.gate.held(id).is_none() {
            tokio::task::yield_now().await;
        }
        let code =
            async |by| desk.decide(id, Verdict::Approve, by, None).await.err().map(|error| error.code());
        let client = Principal::client();
        let mut refused = 0;
        while code(&client).await == Some(error_code::NOT_ALLOWED) {
            refused += 1;
            assert!(refused < 10_000, "it goes on for ever");
        }
        assert_eq!(code(&client).await, Some(error_code::TOO_OFTEN));
        assert_eq!(code(&Principal::User { uid: 1000, name: None }).await, None, "a person decides");
    }

    #[tokio::test]
    async fn verdicts_that_have_an_effect_are_not_counted() {
        let desk = desk();
        let by = Principal::User { uid: 1000, name: None };
        for id in 0..700 {
            let hold = wait(&desk, id, "{}");
            while desk.gate.held(hold).is_none() {
                tokio::task::yield_now().await;
            }
            assert!(desk.decide(hold, Verdict::Approve, &by, None).await.is_ok(), "{id}");
        }
    }

    #[tokio::test]
    async fn news_of_a_long_call_say_that_its_arguments_are_left_out() {
        let desk = desk();
        let mut news = desk.gate.watch();
        let long = format!("{{\"text\":\"{}\"}}", "x".repeat(NEWS_ARGUMENT_BYTES_MAX));
        for (arguments, kept, truncated) in [("{\"n\":1}", "{\"n\":1}", false), (&long, "{}", true)] {
            let id = wait(&desk, 1, arguments);
            let held = watched(news.recv().await.unwrap()).hold.unwrap();
            assert_eq!((held.id, held.arguments.get(), held.truncated), (id, kept, truncated));
            let written = serde_json::to_value(&held).unwrap();
            assert_eq!(written.get("truncated").is_some(), truncated);
            assert_eq!(desk.show(id).await.unwrap().arguments.get(), arguments, "asked for, they are shown");
            assert!(desk.gate.withdraw(id, Withdrawal::Cancelled));
            let ended = watched(news.recv().await.unwrap()).hold.unwrap();
            assert_eq!((ended.arguments.get(), ended.truncated), (kept, truncated));
        }
    }
}
