//! A call over HTTP that waits for people: how its client is kept, and how the server's answer reaches it afterwards.
//!
//! Begun by `post`; each call has a task of its own until its answer has passed. For a moment nothing is sent, so that a quick
//! decision leaves no trace on the wire. Then a client that takes events gets the head of a stream, comments that keep it open, and
//! progress if it asked for that; the server's answer is spliced in, whatever its form. A client that takes no events gets nothing
//! until the end.

use std::{future::Future, pin::Pin, sync::Arc};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode, Uri, header, request::Parts};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, Interval, MissedTickBehavior, interval_at, sleep},
};

use super::{
    Exchange,
    accounts::Open,
    body::{self, Body},
    headers,
    oauth::Login,
    post::{self, After, Asked},
    sessions::HeldHere,
    tasks,
    upstream::{NoResponse, UpstreamBody},
    watch::{BrokeOff, Watched, Witness},
};
use crate::{
    gate::{Approved, Begun, ClientQuestion, HeldCall, Refusal, Released, Unanswered},
    hold::{Absence, HoldId, Withdrawal},
    jsonrpc::{ErrorCode, RequestId, sse::event_of},
    mcp,
    transport::waiting::{progress_value, question},
    view::counted,
};

/// Events that wait for a client that reads slowly.
const RELAY_CHUNKS_MAX: usize = 16;

/// The longest error of a server that is read, in bytes.
const ERROR_BYTES_MAX: usize = 64 * 1024;

/// What keeps a stream open where nothing is to be said.
pub(super) const KEEPALIVE: Bytes = Bytes::from_static(b": waiting\n\n");

/// The request that waits.
pub(super) struct Held {
    pub(super) exchange: Exchange,
    pub(super) head: Parts,
    pub(super) asked: Asked,
}

/// The gate's part of the wait. Boxed: it is run to its end, whoever goes.
type Holding = Pin<Box<dyn Future<Output = Released> + Send>>;

/// Keeps `call` until it ends, and answers its request.
pub(super) async fn hold(held: Held, call: Box<HeldCall>) -> Response<Body> {
    let tasks = held.exchange.worker.proxy.tasks.clone();
    let waiting = match Waiting::begin(held, &call, None) {
        Ok(waiting) => waiting,
        Err(refusal) => return *refusal,
    };
    let (answer, answered) = oneshot::channel();
    tasks.spawn(waiting.keep(call, answer));
    answered.await.unwrap_or_else(|_| body::text(StatusCode::INTERNAL_SERVER_ERROR, "the call was given up"))
}

/// Keeps `call` until it ends, and answers it with events on a stream that is open already; the server takes it at `uri`.
pub(super) fn hold_beside(
    held: Held,
    call: Box<HeldCall>,
    chunks: mpsc::Sender<Bytes>,
    uri: Uri,
) -> Response<Body> {
    let tasks = held.exchange.worker.proxy.tasks.clone();
    match Waiting::begin(held, &call, Some(uri)) {
        Ok(waiting) => {
            tasks.spawn(waiting.keep_beside(call, chunks));
            body::empty(StatusCode::ACCEPTED)
        }
        Err(refusal) => *refusal,
    }
}

struct Waiting {
    held: Held,
    hold: HoldId,
    here: Arc<HeldHere>,
    /// Where the server takes it, if not where it takes everything.
    uri: Option<Uri>,
    /// Its part of what its principal may have open.
    open: Option<Open>,
    message: String,
    token: Option<Box<str>>,
    /// How often the client has been told that it waits.
    told: u32,
    /// Where a question to the client's user comes from, and the one that was asked.
    questions: Option<oneshot::Receiver<ClientQuestion>>,
    asked: Option<RequestId>,
}

/// What became of the wait.
enum Waited {
    Released(Released),
    /// Nobody is there any more.
    ClientGone,
    /// It goes on, and the client should hear of it.
    Longer,
}

impl Waiting {
    /// The wait of `call`, or why it cannot be waited for.
    fn begin(held: Held, call: &HeldCall, uri: Option<Uri>) -> Result<Self, Box<Response<Body>>> {
        let Some(id) = held.asked.id.clone() else { return Err(Box::new(body::empty(StatusCode::ACCEPTED))) };
        let session = &held.asked.session;
        let Some(here) = session.hold(id.clone(), call.id(), call.progress_token()) else {
            let text = "a request with this id or progress token is still without an answer";
            let refusal = Refusal::invalid(Some(id), ErrorCode::INVALID_REQUEST, text);
            return Err(Box::new(body::refusal(StatusCode::BAD_REQUEST, &refusal)));
        };
        let limits = *held.exchange.limits();
        let (calls, bytes) = (limits.held_per_principal_max, limits.held_bytes_per_principal_max);
        let kept = call.frame_bytes() + head_bytes(&held.head);
        let Some(open) = held.exchange.account().hold(kept, calls, bytes) else {
            session.no_longer_held(&here);
            let text = format!(
                "this agent has as much waiting as it may: {}, or {} MiB",
                counted(calls, "call"),
                bytes >> 20
            );
            held.exchange.gate().note(&session.caller(), "", &text);
            return Err(Box::new(post::refused(&call.refusal(&text), held.asked.modern)));
        };
        let proxy = &held.exchange.worker.proxy;
        if proxy.is_stopping() {
            proxy.gate.detach(call.id(), Absence::Stopping);
        }
        Ok(Self {
            hold: call.id(),
            here,
            uri,
            open: Some(open),
            held,
            told: 0,
            questions: None,
            asked: None,
            message: call.message(),
            token: call.progress_token().map(Into::into),
        })
    }

    /// What comes after the wait has memory of its own: thousands of calls wait at the same time, and few end.
    async fn keep(mut self, call: Box<HeldCall>, mut answer: oneshot::Sender<Response<Body>>) {
        if call.is_task() {
            return Box::pin(self.begin_task(call, answer)).await;
        }
        let mut holding = self.holding(call);
        let limits = *self.held.exchange.limits();
        let takes_events = headers::accepts(&self.held.head.headers, "text/event-stream");
        let waited = tokio::select! {
            biased;
            released = &mut holding => Waited::Released(released),
            () = answer.closed() => Waited::ClientGone,
            () = sleep(limits.head_after), if takes_events => Waited::Longer,
        };
        match waited {
            Waited::ClientGone => Box::pin(self.client_gone(holding)).await,
            Waited::Released(released) => Box::pin(self.answer_whole(released, answer)).await,
            Waited::Longer => {
                let (chunks, relayed) = mpsc::channel(RELAY_CHUNKS_MAX);
                if answer.send(body::event_stream(Body::Relay(relayed))).is_err() {
                    return Box::pin(self.client_gone(holding)).await;
                }
                let mut ticks = self.ticks();
                match self.released_in_stream(&mut holding, &chunks, &mut ticks).await {
                    Some(released) => Box::pin(self.answer_in_stream(released, chunks, ticks)).await,
                    None => Box::pin(self.client_gone(holding)).await,
                }
            }
        }
    }

    /// The same where the stream is one that the client has anyway: what the server answers comes there by itself.
    async fn keep_beside(mut self, call: Box<HeldCall>, chunks: mpsc::Sender<Bytes>) {
        let mut holding = self.holding(call);
        let mut ticks = self.ticks();
        let Some(released) = self.released_in_stream(&mut holding, &chunks, &mut ticks).await else {
            return self.client_gone(holding).await;
        };
        let approved = match self.released(released, chunks.is_closed()).await {
            Ok(approved) => approved,
            Err((refusal, end)) => {
                say(&chunks, &refusal).await;
                return self.record(end).await;
            }
        };
        let witness = self.witness(&approved);
        let (permitted, unanswered) = approved.split();
        let Held { exchange, head, asked } = self.held;
        let (Some(id), Some(uri)) = (asked.id, self.uri) else { return };
        // Before it is sent: the answer may be faster than the word that it was taken. One too many counts as lost.
        drop(asked.session.await_answer(id.clone(), witness));
        let refusal = match exchange.send(post::request_upstream_at(&exchange, uri, head, permitted)).await {
            Ok(response) if response.status().is_success() => return,
            Ok(response) => {
                let Some(mut witness) = asked.session.take_awaited(&id) else { return };
                witness.answered();
                unanswered.refused_upstream(response.status().as_u16())
            }
            Err(error) => {
                let Some(witness) = asked.session.take_awaited(&id) else { return };
                not_answered(&exchange, &error, unanswered, witness).await
            }
        };
        say(&chunks, &refusal).await;
    }

    fn holding(&mut self, mut call: Box<HeldCall>) -> Holding {
        let gate = Arc::clone(self.held.exchange.gate());
        self.questions = call.asks();
        Box::pin(async move { gate.hold(call).await })
    }

    /// Asks the client's user, on the stream of the call.
    fn ask_user(&mut self, question: ClientQuestion, chunks: &mpsc::Sender<Bytes>) {
        if self.held.asked.session.ask_user(question.id.clone(), question.about) {
            let _ = chunks.try_send(event_of(&question.line));
            self.asked = Some(question.id);
        }
    }

    /// What the client hears whose user need not answer any more.
    fn question_taken_back(&mut self) -> Option<Bytes> {
        let asked = self.asked.take()?;
        self.held.asked.session.take_question(&asked)?;
        Some(event_of(&mcp::cancelled_notification(&asked)))
    }

    fn ticks(&self) -> Interval {
        let every = self.held.exchange.limits().keepalive_every;
        let mut ticks = interval_at(Instant::now() + every, every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks
    }

    /// Keeps the client with word of the wait until that ends. None: the client is gone.
    async fn released_in_stream(
        &mut self,
        holding: &mut Holding,
        chunks: &mpsc::Sender<Bytes>,
        ticks: &mut Interval,
    ) -> Option<Released> {
        loop {
            tokio::select! {
                biased;
                released = &mut *holding => {
                    if let Some(event) = self.question_taken_back() {
                        let _ = chunks.send(event).await;
                    }
                    return Some(released);
                }
                () = chunks.closed() => return None,
                question = question(&mut self.questions) => self.ask_user(question, chunks),
                _ = ticks.tick() => self.tell(chunks),
            }
        }
    }

    /// The client asks for the result later.
    async fn begin_task(self, call: Box<HeldCall>, answer: oneshot::Sender<Response<Body>>) {
        let gate = Arc::clone(self.held.exchange.gate());
        let caller = self.held.asked.session.caller();
        match gate.begin_asked_task(&caller, call).await {
            Begun::Released(released) => self.answer_whole(released, answer).await,
            Begun::Task { hold, answer: told } => {
                self.held.asked.session.no_longer_held(&self.here);
                if self.here.is_cancelled() {
                    gate.take_back(hold, Withdrawal::Cancelled).await;
                } else if answer.send(body::json(StatusCode::OK, told)).is_err() {
                    // It does not know of the task, so it cannot come back.
                    gate.take_back(hold, Withdrawal::ClientGone).await;
                }
            }
            Begun::Run { answer: told, approved } => {
                self.held.asked.session.no_longer_held(&self.here);
                let is_gone =
                    self.here.is_cancelled() || answer.send(body::json(StatusCode::OK, told)).is_err();
                if is_gone {
                    return gate.not_forwarded(approved.hold(), Withdrawal::ClientGone).await;
                }
                let Held { exchange, head, asked } = self.held;
                tasks::run(exchange, head, asked.session, *approved, None).await;
            }
        }
    }

    /// Tells the client that its call still waits. One that reads nothing is told nothing more.
    fn tell(&mut self, chunks: &mpsc::Sender<Bytes>) {
        let _ = chunks.try_send(match &self.token {
            None => KEEPALIVE,
            Some(token) => {
                self.told = self.told.saturating_add(1);
                let value = format!("{:.6}", progress_value(self.told));
                event_of(&mcp::progress_notification(token, &value, &self.message))
            }
        });
    }

    /// Nobody waits for the answer any more.
    async fn client_gone(mut self, holding: Holding) {
        // Nobody is left who could be told, or who could answer.
        drop(self.question_taken_back());
        let gate = self.held.exchange.gate();
        let session = &self.held.asked.session;
        // Before the hold loses its caller, so that a cancellation which comes now finds either.
        session.leaves(&self.here);
        // Since 2026-07-28 a client that goes takes its call back; before, it may be a connection that has broken.
        if self.held.asked.modern {
            gate.withdraw(self.hold, Withdrawal::ClientGone);
        } else {
            gate.detach(self.hold, Absence::ClientGone);
        }
        match holding.await {
            // An approval was faster, and it is being recorded just now; the call is then not sent.
            Released::Resume(approved) => {
                gate.not_forwarded(approved.hold(), Withdrawal::ClientGone).await;
            }
            Released::Withdrawn { end, .. } => {
                let hold = end.hold();
                gate.record_withdrawal(end).await;
                if session.has_left(&self.here, hold) {
                    gate.take_back(hold, Withdrawal::Cancelled).await;
                }
            }
            Released::Refuse(_) => {}
        }
    }

    /// What is left to do at the end of the wait: an approved call to send, or something to tell. `is_gone`: nobody is there who could
    /// be told.
    async fn released(
        &mut self,
        released: Released,
        is_gone: bool,
    ) -> Result<Box<Approved>, (Refusal, Option<crate::gate::Unrecorded>)> {
        // In this order: who takes the call back after this finds it no longer held.
        self.held.asked.session.no_longer_held(&self.here);
        self.open = None;
        match released {
            Released::Resume(approved) if is_gone || self.here.is_cancelled() => {
                let why =
                    if self.here.is_cancelled() { Withdrawal::Cancelled } else { Withdrawal::ClientGone };
                self.held.exchange.gate().not_forwarded(approved.hold(), why).await;
                Err((approved.too_late(why), None))
            }
            Released::Resume(approved) => Ok(approved),
            Released::Refuse(refusal) => Err((refusal, None)),
            Released::Withdrawn { refusal, end } => Err((refusal, Some(end))),
        }
    }

    async fn record(&self, end: Option<crate::gate::Unrecorded>) {
        if let Some(end) = end {
            self.held.exchange.gate().record_withdrawal(end).await;
        }
    }

    fn witness(&self, approved: &Approved) -> Witness {
        let proxy = &self.held.exchange.worker.proxy;
        Witness::new(Arc::clone(&proxy.gate), proxy.tasks.clone(), approved)
    }

    /// Nothing has been sent yet: the client gets the server's own response.
    async fn answer_whole(mut self, released: Released, mut answer: oneshot::Sender<Response<Body>>) {
        let approved = match self.released(released, answer.is_closed()).await {
            Ok(approved) => approved,
            Err((refusal, end)) => {
                let _ = answer.send(post::refused(&refusal, self.held.asked.modern));
                return self.record(end).await;
            }
        };
        let witness = self.witness(&approved);
        let (permitted, unanswered) = approved.split();
        let Held { exchange, mut head, asked } = self.held;
        if witness.is_of_edited() {
            headers::drop_mirrored_arguments(&mut head.headers);
        }
        let login = Login::of(&exchange, &head.headers, &head.uri);
        let request = post::request_upstream(&exchange, head, permitted);
        let sent = tokio::select! {
            biased;
            sent = exchange.send(request) => sent,
            // A client that goes now takes its request with it, as it would from the server itself.
            () = answer.closed() => return,
        };
        let response = match sent {
            Ok(response) => answered(&exchange, &asked, response, witness, login),
            Err(error) => {
                let refusal = not_answered(&exchange, &error, unanswered, witness).await;
                post::refused(&refusal, asked.modern)
            }
        };
        let _ = answer.send(response);
    }

    /// The head is out: the server's answer becomes events.
    async fn answer_in_stream(
        mut self,
        released: Released,
        chunks: mpsc::Sender<Bytes>,
        mut ticks: Interval,
    ) {
        let approved = match self.released(released, chunks.is_closed()).await {
            Ok(approved) => approved,
            Err((refusal, end)) => {
                if let Some(message) = refusal.to_bytes() {
                    let _ = chunks.send(event_of(&message)).await;
                }
                drop(chunks);
                return self.record(end).await;
            }
        };
        let witness = self.witness(&approved);
        let (permitted, unanswered) = approved.split();
        let floor = self.token.filter(|_| self.told > 0).map(|token| (token, progress_value(self.told)));
        let Held { exchange, mut head, asked } = self.held;
        if witness.is_of_edited() {
            headers::drop_mirrored_arguments(&mut head.headers);
        }
        let request = post::request_upstream(&exchange, head, permitted);
        let mut sending = Box::pin(exchange.send(request));
        let sent = loop {
            tokio::select! {
                biased;
                sent = &mut sending => break sent,
                () = chunks.closed() => return,
                _ = ticks.tick() => drop(chunks.try_send(KEEPALIVE)),
            }
        };
        let response = match sent {
            Ok(response) => response,
            Err(error) => {
                let refusal = not_answered(&exchange, &error, unanswered, witness).await;
                return say(&chunks, &refusal).await;
            }
        };
        let (head, body) = response.into_parts();
        let kind = head.headers.get(header::CONTENT_TYPE);
        let expected = asked.expects(&exchange, floor, Some(witness));
        if head.status.is_success() && headers::is_type(kind, "text/event-stream") {
            let watched = Watched::events(body, expected, exchange.limits().server_frame_bytes_max);
            return relay(watched, chunks).await;
        }
        let bytes_max =
            if head.status.is_success() { exchange.limits().server_frame_bytes_max } else { ERROR_BYTES_MAX };
        let mut watched = Watched::message(body, expected, bytes_max);
        let whole = loop {
            tokio::select! {
                biased;
                whole = watched.next_chunk() => break whole,
                // So a call of this era is taken back. Before, it may be a connection that has broken.
                () = chunks.closed(), if asked.modern => return,
                _ = ticks.tick() => drop(chunks.try_send(KEEPALIVE)),
            }
        };
        let message = match whole {
            Some(Ok(message)) if headers::is_type(kind, "application/json") => Some(message),
            Some(Err(error)) if head.status.is_success() && error.is::<BrokeOff>() => {
                return say(&chunks, &unanswered.lost()).await;
            }
            _ => None,
        };
        let expected = watched.expected();
        let is_answered = expected.is_answered;
        if let Some(witness) = &mut expected.witness {
            witness.answered();
        }
        match message.filter(|_| is_answered) {
            Some(message) => drop(chunks.send(event_of(&message)).await),
            None => say(&chunks, &unanswered.refused_upstream(head.status.as_u16())).await,
        }
    }
}

/// About how many bytes the head of a request keeps.
fn head_bytes(head: &Parts) -> usize {
    let entry = size_of::<HeaderName>() + size_of::<HeaderValue>();
    let headers = head.headers.iter();
    headers.map(|(name, value)| name.as_str().len() + value.len() + entry).sum::<usize>() + size_of::<Parts>()
}

/// Passes events on as they come, until either side has had enough.
async fn relay(mut watched: Watched, chunks: mpsc::Sender<Bytes>) {
    loop {
        let chunk = tokio::select! {
            biased;
            () = chunks.closed() => return,
            chunk = watched.next_chunk() => chunk,
        };
        let Some(Ok(chunk)) = chunk else { return };
        if chunks.send(chunk).await.is_err() {
            return;
        }
    }
}

async fn say(chunks: &mpsc::Sender<Bytes>, refusal: &Refusal) {
    if let Some(message) = refusal.to_bytes() {
        let _ = chunks.send(event_of(&message)).await;
    }
}

/// The server's own response to an approved call.
fn answered(
    exchange: &Exchange,
    asked: &Asked,
    response: Response<UpstreamBody>,
    mut witness: Witness,
    login: Option<Login>,
) -> Response<Body> {
    let after = if response.status().is_success() || witness.is_of_edited() {
        After { witness: Some(witness), login, ..After::default() }
    } else {
        witness.answered();
        After { login, ..After::default() }
    };
    post::pass_on(exchange, asked, response, after)
}

/// An approved call has got no response: what goes on record, and what the client hears.
async fn not_answered(
    exchange: &Exchange,
    error: &NoResponse,
    unanswered: Unanswered,
    witness: Witness,
) -> Refusal {
    let (server, hold) = (&*exchange.upstream.settings.name, unanswered.hold());
    tracing::warn!(%hold, server, %error, "an approved call got no answer");
    match error {
        NoResponse::NotSent(_) => {
            witness.not_sent(Withdrawal::ServerGone).await;
            unanswered.not_sent(Withdrawal::ServerGone)
        }
        NoResponse::Lost(_) => unanswered.lost(),
    }
}
