//! A server's answer on its way to the client, looked into: what it may not say is left out, what it says of a call is noted.
//!
//! Made by `post`, `held` and `stream` where looking is needed. Events and messages that pass are the server's own bytes. It holds
//! back one incomplete event, or one JSON message, and nothing else.

use std::{
    collections::VecDeque,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use tokio::time::sleep;
use tokio_util::task::TaskTracker;

use super::{
    Proxy,
    accounts::Open,
    legacy::{Opened, Opening},
    sessions::Session,
    upstream::UpstreamBody,
};
use crate::{
    gate::{Approved, Edited, Gate},
    hold::{HoldId, Withdrawal},
    jsonrpc::{
        ErrorCode, Fault, Frame, Kind, RequestId, error_response,
        sse::{Event, Events, Fields, event_of},
    },
    mcp::{self, Progress, method},
    store::TaskAnswer,
};

/// Bytes of events that are gathered, as long as they are there, before they are passed on as one piece.
const GATHERED_BYTES: usize = 32 * 1024;

/// How long the answer to an approved call is awaited on other streams, once its own has ended. Then nobody knows whether it ran.
const AWAITED_FOR: Duration = Duration::from_secs(3600);

/// What of an answer is read, besides passing it on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Interest {
    /// Nothing.
    None,
    /// The negotiated revision.
    Initialize,
    /// The names of the tools.
    ToolsList,
    /// What it offers, to which tasks are added: calls may be held.
    Discover,
}

/// An approved call that the server has: its end goes on record, whatever happens.
pub(super) struct Witness {
    gate: Arc<Gate>,
    tasks: TaskTracker,
    hold: Option<HoldId>,
    /// What the answer has to say, if an approver has changed the call.
    edited: Option<Arc<Edited>>,
}

impl Witness {
    /// This call is being sent.
    pub(super) fn new(gate: Arc<Gate>, tasks: TaskTracker, approved: &Approved) -> Self {
        Self { gate, tasks, hold: Some(approved.hold()), edited: approved.edited() }
    }

    /// Whether an approver has changed the call.
    pub(super) fn is_of_edited(&self) -> bool {
        self.edited.is_some()
    }

    /// Whether it is of the call that was approved as `hold`.
    pub(super) fn is_of(&self, hold: HoldId) -> bool {
        self.hold == Some(hold)
    }

    /// The server has answered it.
    pub(super) fn answered(&mut self) {
        if let Some(hold) = self.hold.take() {
            let gate = Arc::clone(&self.gate);
            self.tasks.spawn(async move { gate.answered(hold).await });
        }
    }

    /// The server has answered it with `answer`: what of that goes on to the client.
    fn answered_with(&mut self, answer: &Frame) -> Passed {
        if let Some(hold) = self.hold {
            self.gate.asked_back(hold, answer);
        }
        self.answered();
        self.edited.as_ref().map_or(Passed::AsItCame, |edited| Passed::Instead(edited.told_in(answer)))
    }
}

/// What of a message of a server goes on to the client.
enum Passed {
    /// Nothing.
    Nothing,
    /// The message.
    AsItCame,
    /// This text.
    Instead(Bytes),
}

impl Passed {
    fn if_so(passes: bool) -> Self {
        if passes { Self::AsItCame } else { Self::Nothing }
    }

    /// `instead` of what would go on as it came.
    fn or(self, instead: Option<Bytes>) -> Self {
        match (self, instead) {
            (Self::AsItCame, Some(instead)) => Self::Instead(instead),
            (passed, _) => passed,
        }
    }

    /// The text, if any, that goes on of `text`.
    fn of(self, text: &Bytes) -> Option<Bytes> {
        match self {
            Self::Nothing => None,
            Self::AsItCame => Some(text.clone()),
            Self::Instead(text) => Some(text),
        }
    }
}

impl Witness {
    /// The server has answered it, and the client asks for the answer later.
    pub(super) async fn kept(mut self, answer: TaskAnswer) {
        if let Some(hold) = self.hold.take() {
            self.gate.keep_answer(hold, answer).await;
        }
    }

    /// Not one byte of it was sent after all.
    pub(super) async fn not_sent(mut self, why: Withdrawal) {
        if let Some(hold) = self.hold.take() {
            self.gate.not_forwarded(hold, why).await;
        }
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        if let Some(hold) = self.hold.take() {
            let gate = Arc::clone(&self.gate);
            self.tasks.spawn(async move { gate.lost(hold).await });
        }
    }
}

/// What a stream of a server may say.
pub(super) struct Expected {
    /// Whose gate hears of tools.
    pub(super) proxy: Arc<Proxy>,
    /// The client.
    pub(super) session: Arc<Session>,
    /// The request that it answers; none on a stream of the session's own.
    pub(super) id: Option<RequestId>,
    /// Whether that is a `tools/call`.
    pub(super) is_tool_call: bool,
    /// Whether the request is of the era without sessions.
    pub(super) modern: bool,
    /// What to learn from the answer.
    pub(super) interest: Interest,
    /// The progress token of a call that was held, and the value that progress must exceed to pass.
    pub(super) floor: Option<(Box<str>, f64)>,
    /// The approved call.
    pub(super) witness: Option<Witness>,
    /// The stream's part of what its principal may have open.
    pub(super) _open: Option<Open>,
    /// Whether its answer has passed.
    pub(super) is_answered: bool,
    /// Whether the client can come back for the rest: an event had an id.
    pub(super) is_resumable: bool,
    /// The approved call whose answer is awaited on every stream of the session, this one among them.
    pub(super) awaited: Option<HoldId>,
    /// Where the stream may be one of 2024-11-05.
    pub(super) opening: Option<Opening>,
    /// It is one.
    pub(super) opened: Option<Opened>,
}

impl Expected {
    /// What of `message` of the server goes on to the client.
    fn passes(&mut self, message: &Frame) -> Passed {
        match message.kind() {
            Kind::Response => self.answer_passes(message),
            Kind::Request if self.modern => {
                tracing::warn!(
                    "the server sent a request, which the client's revision does not have; dropped"
                );
                Passed::Nothing
            }
            Kind::Request => {
                let passes = message.id().is_some_and(|id| self.session.ask(id));
                if !passes {
                    tracing::warn!("the client owes the server too many answers; a request was dropped");
                }
                Passed::if_so(passes)
            }
            Kind::Notification => Passed::if_so(self.notification_passes(message)),
        }
    }

    fn answer_passes(&mut self, answer: &Frame) -> Passed {
        let Some(id) = answer.id() else { return Passed::Nothing };
        if id.is_null() {
            // The server could not read something; it can only say so to nobody in particular.
            return Passed::if_so(answer.error().is_some());
        }
        let Some(own) = &self.id else {
            if self.session.is_held(id) {
                tracing::warn!(
                    "the server answered a call that it does not have, because it is still held; dropped"
                );
                return Passed::Nothing;
            }
            // The answer to an earlier request whose stream broke off.
            let interest = match self.session.take_interest(id) {
                // More may be awaited than are remembered: what looks like a list of tools is read as one.
                Interest::None => Interest::ToolsList,
                known => known,
            };
            let listed = self.learn(interest, answer);
            let told = self.session.take_awaited(id).map(|mut witness| witness.answered_with(answer));
            return told.unwrap_or(Passed::AsItCame).or(listed);
        };
        if own != id || self.is_answered {
            tracing::warn!("the server answered what it was not asked, or for a second time; dropped");
            return Passed::Nothing;
        }
        self.is_answered = true;
        let listed = self.learn(self.interest, answer);
        let awaited = self.awaited.and_then(|hold| self.session.take_awaited_as(id, hold));
        let told = self.witness.take().or(awaited).map(|mut witness| witness.answered_with(answer));
        told.unwrap_or(Passed::AsItCame).or(listed)
    }

    /// Reads what `interest` says of `answer`. Gives what the client gets in its place, if that is another.
    fn learn(&self, interest: Interest, answer: &Frame) -> Option<Bytes> {
        match interest {
            Interest::Initialize => self.session.learn_server(&self.proxy.gate, answer),
            Interest::ToolsList => self.lists_tools(answer),
            Interest::Discover => mcp::offering_tasks(answer),
            Interest::None => None,
        }
    }

    /// The server has listed tools: what it says of them counts before the client gets to read it. Gives the list for the client
    /// if that is another.
    fn lists_tools(&self, answer: &Frame) -> Option<Bytes> {
        let listed = mcp::tool_definitions(answer.result().unwrap_or_default());
        if listed.is_empty() {
            return None;
        }
        self.session.learn_tools(&listed);
        let (gate, server) = (&self.proxy.gate, &self.session.caller().server);
        if let Some(seen) = gate.see_tools(server, &listed) {
            let gate = Arc::clone(gate);
            self.proxy.tasks.spawn(async move { gate.record_tools(seen).await });
        }
        gate.list_for(&self.session.caller(), answer)
    }

    /// Progress of a call that was held must not go back behind what the client has already seen.
    fn notification_passes(&self, notification: &Frame) -> bool {
        if notification.method() != Some(method::PROGRESS) {
            return true;
        }
        let Some(progress) = notification.params().and_then(Progress::parse) else { return true };
        match &self.floor {
            Some((token, floor)) if **token == *progress.token => {
                progress.progress.parse::<f64>().is_ok_and(|value| value > *floor)
            }
            // Nothing that the server could say of a call which it does not have is true.
            _ => !self.session.is_held_token(progress.token),
        }
    }

    /// What of `event` goes on to the client.
    fn event(&mut self, event: &Event) -> Passed {
        let fields = event.fields();
        if fields.id.is_some() {
            self.is_resumable = true;
            // Its client may be gone and back before anybody sees that. Only one client can mean it.
            if self.session.is_one_client() {
                self.await_anywhere();
            }
        }
        if fields.name == b"endpoint" {
            return self.endpoint(&fields);
        }
        if let Some(data) = fields.message() {
            match self.text_passes(data) {
                Passed::AsItCame => {}
                Passed::Nothing => return Passed::Nothing,
                Passed::Instead(text) => return Passed::Instead(fields.saying(&text, !self.modern)),
            }
        }
        if !self.modern {
            return Passed::AsItCame;
        }
        fields.without_resumption().map_or(Passed::AsItCame, Passed::Instead)
    }

    /// The place to which a client of 2024-11-05 is to send: it hears one of ours, or nothing. The server's own would lead past the gate.
    fn endpoint(&mut self, fields: &Fields<'_>) -> Passed {
        let opened =
            self.opening.take().zip(fields.data()).and_then(|(opening, place)| opening.named(&place));
        let Some((instead, opened)) = opened else { return Passed::Nothing };
        self.session = Arc::clone(&opened.session);
        self.opened = Some(opened);
        Passed::Instead(instead)
    }

    /// What of a message or a batch of them passes.
    fn text_passes(&mut self, text: Bytes) -> Passed {
        let text = one_line(text);
        match Frame::from_server(text.clone()) {
            Ok(frame) => self.passes(&frame),
            Err(error) if error.fault == Fault::Batch && !self.modern => {
                self.batch_passes(&Frame::batch_from_server(&text).unwrap_or_default())
            }
            Err(error) => {
                tracing::warn!(%error, "something that the server sent is not a message, so the client did not get it");
                Passed::Nothing
            }
        }
    }

    /// All of a batch or nothing.
    fn batch_passes(&mut self, elements: &[Bytes]) -> Passed {
        let frames: Result<Vec<_>, _> = elements.iter().cloned().map(Frame::from_server).collect();
        let Ok(frames) = frames else { return Passed::Nothing };
        let mut texts: Vec<Bytes> = Vec::with_capacity(frames.len());
        let mut is_as_it_came = true;
        for (frame, element) in frames.iter().zip(elements) {
            let passed = self.passes(frame);
            is_as_it_came &= matches!(passed, Passed::AsItCame);
            let Some(text) = passed.of(element) else { return Passed::Nothing };
            texts.push(text);
        }
        match (texts.is_empty(), is_as_it_came) {
            (true, _) => Passed::Nothing,
            (_, true) => Passed::AsItCame,
            _ => Passed::Instead([&b"["[..], &texts.join(&b","[..]), b"]"].concat().into()),
        }
    }

    /// Of a stream that can be resumed the answer to an approved call may come on another one of the session.
    fn await_anywhere(&mut self) {
        if self.is_resumable
            && !self.modern
            && !self.is_answered
            && let Some(id) = &self.id
            && let Some(witness) = self.witness.take()
        {
            let hold = witness.hold;
            self.witness = self.session.await_answer(id.clone(), witness);
            self.awaited = hold.filter(|_| self.witness.is_none());
        }
    }

    /// Nothing more comes here: for how long the answer is still awaited elsewhere.
    fn await_elsewhere(&mut self) {
        self.await_anywhere();
        if let (Some(id), Some(hold), false) = (&self.id, self.awaited, self.is_answered) {
            let (id, session) = (id.clone(), Arc::clone(&self.session));
            tokio::spawn(async move {
                sleep(AWAITED_FOR).await;
                drop(session.take_awaited_as(&id, hold));
            });
        }
    }

    /// What is still to be said when a stream of events has ended: a call whose answer has not come would be waited for in vain.
    pub(super) fn last_words(&mut self) -> Option<Bytes> {
        let id = self.id.as_ref()?;
        if self.is_answered || !self.is_tool_call {
            return None;
        }
        if self.is_resumable && !self.modern {
            // The client comes back for it.
            self.await_anywhere();
            return None;
        }
        let text = "the server ended its answer before the result; the tool may have run";
        Some(event_of(&error_response(Some(id), ErrorCode::INTERNAL_ERROR, text, None)))
    }
}

/// The same JSON with its line ends as spaces, only to be looked at: between tokens they mean the same, and elsewhere they are an
/// error for the client to find.
pub(super) fn one_line(text: Bytes) -> Bytes {
    if memchr::memchr2(b'\r', b'\n', &text).is_none() {
        return text;
    }
    let mut copy = text.to_vec();
    copy.iter_mut().filter(|byte| matches!(byte, b'\r' | b'\n')).for_each(|byte| *byte = b' ');
    copy.into()
}

/// A body that is looked into.
pub(super) struct Watched {
    body: UpstreamBody,
    expected: Expected,
    form: Form,
    /// What goes on next, piece by piece.
    ready: VecDeque<Bytes>,
    has_ended: bool,
}

enum Form {
    /// Events, one after the other.
    Events(Events),
    /// One message, kept until it is whole.
    Message { collected: BytesMut, bytes_max: usize },
}

/// An answer of a server ended before its end.
#[derive(Debug, thiserror::Error)]
#[error("the server's answer broke off")]
pub(super) struct BrokeOff;

type Chunk = Result<Bytes, Box<dyn std::error::Error + Send + Sync>>;

impl Drop for Watched {
    /// Also where the client has gone before the end.
    fn drop(&mut self) {
        self.expected.await_elsewhere();
    }
}

impl Watched {
    /// Looks into a stream of events, each of at most `bytes_max` bytes.
    pub(super) fn events(body: UpstreamBody, expected: Expected, bytes_max: usize) -> Self {
        Self::new(body, expected, Form::Events(Events::new(bytes_max)))
    }

    /// Looks into one message of at most `bytes_max` bytes.
    pub(super) fn message(body: UpstreamBody, expected: Expected, bytes_max: usize) -> Self {
        Self::new(body, expected, Form::Message { collected: BytesMut::new(), bytes_max })
    }

    fn new(body: UpstreamBody, expected: Expected, form: Form) -> Self {
        Self { body, expected, form, ready: VecDeque::new(), has_ended: false }
    }

    /// What was expected, and what of it has come.
    pub(super) fn expected(&mut self) -> &mut Expected {
        &mut self.expected
    }

    /// The next bytes for the client.
    pub(super) fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Chunk>> {
        let mut gathered = 0;
        loop {
            if let Some(piece) = self.ready.pop_front() {
                return Poll::Ready(Some(Ok(piece)));
            }
            if self.has_ended {
                return Poll::Ready(None);
            }
            if let Some(opened) = &mut self.expected.opened
                && let Poll::Ready(Some(said)) = opened.beside.poll_recv(cx)
            {
                return Poll::Ready(Some(Ok(said)));
            }
            let ended = match self.body.poll_chunk(cx) {
                Poll::Ready(Some(Ok(chunk))) => {
                    gathered += chunk.len();
                    self.push(chunk);
                    // A server writes its events one by one; most often there are more already.
                    if gathered < GATHERED_BYTES {
                        continue;
                    }
                    None
                }
                Poll::Pending if gathered == 0 => return Poll::Pending,
                Poll::Pending => None,
                Poll::Ready(ended) => Some(ended),
            };
            gathered = 0;
            if let Err(error) = self.take_in() {
                self.has_ended = true;
                return Poll::Ready(Some(Err(error)));
            }
            if let Some(ended) = ended {
                self.has_ended = true;
                if let Some(Err(error)) = &ended {
                    tracing::debug!(%error, "a server's answer broke off");
                }
                match self.last_chunk(ended.is_none()) {
                    Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                    last => self.ready.extend(last.and_then(Result::ok)),
                }
            }
        }
    }

    /// The next bytes for the client.
    pub(super) async fn next_chunk(&mut self) -> Option<Chunk> {
        std::future::poll_fn(|cx| self.poll_chunk(cx)).await
    }

    fn push(&mut self, chunk: Bytes) {
        match &mut self.form {
            Form::Events(events) => events.push(chunk),
            Form::Message { collected, .. } => collected.extend_from_slice(&chunk),
        }
    }

    /// Looks through what has come. Events that pass and follow one another become one piece.
    fn take_in(&mut self) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        match &mut self.form {
            Form::Message { collected, bytes_max } if collected.len() > *bytes_max => {
                Err("an answer of the server is over the limit".into())
            }
            Form::Message { .. } => Ok(()),
            Form::Events(events) => {
                let unread = events.unread();
                // What passes as it is stands between `begin` and `end`.
                let (mut begin, mut end) = (0, 0);
                while let Some(event) = events.next_event()? {
                    let next = end + event.raw.len();
                    let instead = match self.expected.event(&event) {
                        Passed::AsItCame => {
                            end = next;
                            continue;
                        }
                        Passed::Nothing => Bytes::new(),
                        Passed::Instead(bytes) => bytes,
                    };
                    let pieces = [unread.slice(begin..end), instead];
                    self.ready.extend(pieces.into_iter().filter(|piece| !piece.is_empty()));
                    (begin, end) = (next, next);
                }
                if end > begin {
                    self.ready.push_back(unread.slice(begin..end));
                }
                Ok(())
            }
        }
    }

    /// What is passed on at the end. `whole`: the server has ended its answer in order.
    fn last_chunk(&mut self, whole: bool) -> Option<Chunk> {
        match &mut self.form {
            Form::Events(_) => self.expected.last_words().map(Ok),
            Form::Message { .. } if !whole => Some(Err(BrokeOff.into())),
            Form::Message { collected, .. } => {
                let message = collected.split().freeze();
                // Some revisions answer with nothing.
                if message.is_empty() {
                    return None;
                }
                if let Some(passed) = self.expected.text_passes(message.clone()).of(&message) {
                    return Some(Ok(passed));
                }
                let text = "the server's answer cannot be read, or answers something else";
                Some(Ok(error_response(self.expected.id.as_ref(), ErrorCode::INTERNAL_ERROR, text, None)))
            }
        }
    }
}
