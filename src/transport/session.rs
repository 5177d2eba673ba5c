//! One session between a client and a server over two streams of lines: the loop that owns both writers.
//!
//! Started by a transport (`stdio`). Each line of the client is read strictly and shown to the gate; what the gate permits goes upstream in
//! order, what it refuses is answered, what it holds waits in a task of its own while everything else flows. Lines of the server go to
//! the client as they came. The session knows the requests in flight; it decides nothing about any of them.

mod keep;
mod questions;
mod tasks;
mod turn;

use std::{
    collections::{HashMap, HashSet},
    io,
    sync::{Arc, atomic::AtomicBool},
};

use bytes::Bytes;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{mpsc, watch},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::turn::Heard;
use super::{
    calls::{Answered, Call, Calls, Interest, NoAnswer, NoAnswers, ProgressToken},
    outbox::{Downstream, Upstream},
    tools,
    waiting::progress_value,
};
use crate::{
    faults::fail_point,
    gate::{
        Approved, Arrival, Caller, ClientQuestion, Followed, Gate, Permitted, Refusal, Released, Screened,
        task_answer, unusable_answer,
    },
    hold::{Absence, HoldId, Withdrawal},
    jsonrpc::{ErrorCode, Frame, FrameError, Kind, Line, RequestId},
    mcp::{self, Cancelled, Initialize, Progress, TaskRequest, method},
    waiting::Wait,
};

/// Held calls that may tell the session something at once; the others wait their turn.
const NEWS_QUEUE_MAX: usize = 256;

/// Requests of the server that may be without an answer at the same time.
const ASKED_MAX: usize = 4096;

/// Refused and dropped messages of one session that go on record.
const NOTES_MAX: u32 = 10_000;

/// What bounds a session.
#[derive(Clone, Copy, Debug)]
pub struct SessionLimits {
    /// The longest line of the client that is read, in bytes.
    pub client_frame_bytes_max: usize,
    /// The longest line of the server that is read, in bytes.
    pub server_frame_bytes_max: usize,
    /// Requests of the client that may be without an answer at the same time, and as many questions about tasks.
    pub requests_max: usize,
}

impl Default for SessionLimits {
    /// 16 MiB from the client; 64 MiB from the server, whose results carry images and files; 65,536 requests.
    fn default() -> Self {
        Self { client_frame_bytes_max: 16 << 20, server_frame_bytes_max: 64 << 20, requests_max: 65_536 }
    }
}

/// Whether the client has closed its end of a stream, asked without reading what is left in it.
pub type HungUp = Arc<dyn Fn() -> bool + Send + Sync>;

/// The signals between a session and the transport that runs it.
#[derive(Clone, Default)]
pub struct Lifecycle {
    /// Set by the transport: end the session (the process was told to stop).
    pub stop: CancellationToken,
    /// Set by the transport before that: the client has ended the session, so nothing of it may run any more.
    pub over: CancellationToken,
    /// Set by the session: the client is gone, so the server's stdin is about to be closed.
    pub client_gone: CancellationToken,
    /// Set by the session: whether a call of a task runs, whose answer is kept.
    pub runs_tasks: Arc<AtomicBool>,
    /// How long the client is to be kept waiting, where that may change.
    pub wait: Option<watch::Receiver<Option<Wait>>>,
    /// Asked while the client is not read: the end of a stream that nobody reads is seen in no other way.
    pub client_hung_up: Option<HungUp>,
    /// Told by the transport: which answers are its own, because the server has given none.
    pub no_answers: Option<NoAnswers>,
}

/// What a task that keeps a held call tells the session.
enum News {
    /// The call still waits, and the client is told so for the `told`-th time.
    Waits { id: RequestId, told: u32, line: Bytes },
    /// It no longer does.
    Ended(Released),
    /// It waits as a task, which is the answer to it.
    Task { id: RequestId, hold: HoldId, answer: Bytes },
    /// The client's user is to be asked about it.
    Question { id: RequestId, question: ClientQuestion },
    /// It is a task, and runs already: this is the answer to it, and the call is to be sent.
    TaskRuns { id: RequestId, answer: Bytes, approved: Box<Approved> },
    /// A question about a task is answered.
    Told(tasks::Told),
    /// The call of a task is to be sent.
    Run(Box<Approved>),
    /// A question about a task is the server's to answer.
    Pass { id: RequestId, permitted: Permitted, followed: Followed },
}

/// The state of one session.
struct Session<DW, UW> {
    gate: Arc<Gate>,
    caller: Caller,
    /// Whether the era is known: by `initialize`, or by a request that carries its own revision.
    modern: Option<bool>,
    downstream: Downstream<DW>,
    upstream: Upstream<UW>,
    /// Requests that may be without an answer, and questions about tasks.
    requests_max: usize,
    calls: Calls,
    asking: tasks::Asking,
    questions: questions::Questions,
    /// Requests of the server that the client has not answered.
    asked: HashSet<RequestId>,
    /// Progress tokens of calls that are or were held, with the value that the server's progress must exceed to pass.
    progress: HashMap<ProgressToken, f64>,
    news: mpsc::Sender<News>,
    /// The tasks that keep held calls or record ends.
    tasks: TaskTracker,
    lifecycle: Lifecycle,
    client_reads: bool,
    server_reads: bool,
    is_stopping: bool,
    /// Refused and dropped messages that still go on record.
    notes_left: u32,
}

/// Runs one session until the server has closed its side and everything has been told, or until `stop`.
///
/// Returns when nothing is left to do; all its tasks have ended by then.
pub async fn run<DR, DW, UR, UW>(
    gate: Arc<Gate>,
    caller: Caller,
    (client_reader, client_writer): (DR, DW),
    (server_reader, server_writer): (UR, UW),
    limits: SessionLimits,
    lifecycle: Lifecycle,
) where
    DR: AsyncRead + Unpin,
    DW: AsyncWrite + Unpin,
    UR: AsyncRead + Unpin,
    UW: AsyncWrite + Unpin,
{
    let (news, held) = mpsc::channel(NEWS_QUEUE_MAX);
    let mut heard = Heard::new((client_reader, server_reader), held, limits, lifecycle.stop.clone());
    let mut session = Session {
        gate,
        caller,
        modern: None,
        downstream: Downstream::new(client_writer),
        upstream: Upstream::new(server_writer),
        requests_max: limits.requests_max,
        calls: Calls::default(),
        asking: tasks::Asking::default(),
        questions: questions::Questions::default(),
        asked: HashSet::new(),
        progress: HashMap::new(),
        news,
        tasks: TaskTracker::new(),
        lifecycle,
        client_reads: true,
        server_reads: true,
        is_stopping: false,
        notes_left: NOTES_MAX,
    };
    std::future::poll_fn(|cx| session.poll(cx, &mut heard)).await;
    session.finish(heard.held).await;
}

impl<DW: AsyncWrite + Unpin, UW: AsyncWrite + Unpin> Session<DW, UW> {
    fn server_took(&mut self, result: io::Result<()>) {
        match result {
            Ok(()) => {
                fail_point!("session.after_send");
                self.close_upstream_when_done();
            }
            Err(error) => {
                tracing::debug!(%error, "the server no longer reads");
                self.close_upstream(Withdrawal::ServerGone);
            }
        }
    }

    fn client_took(&mut self, result: io::Result<()>) {
        fail_point!("session.amid_answer");
        if let Err(error) = result {
            tracing::debug!(%error, "the client no longer reads");
            drop(self.downstream.close());
            self.client_gone();
        }
    }

    // --- the client's lines

    fn client_line(&mut self, line: Option<io::Result<Line>>) {
        match line {
            Some(Ok(Line::Text(bytes))) if Frame::is_batch(&bytes) && self.has_batches() => {
                self.client_batch(&bytes);
            }
            Some(Ok(Line::Text(bytes))) => match Frame::from_client(bytes) {
                Ok(frame) => self.client_frame(frame),
                Err(error) => self.client_unreadable(&error),
            },
            Some(Ok(Line::Blank)) => {}
            Some(Ok(Line::Oversize { .. })) => self.client_unreadable(&FrameError::too_large()),
            Some(Ok(Line::Unterminated(bytes))) => {
                let text = "the client's last line had no end, so it was not read";
                tracing::warn!(bytes, "{text}");
                self.note(text);
            }
            Some(Err(error)) => {
                tracing::debug!(%error, "the client cannot be read");
                self.client_gone();
            }
            None => self.client_gone(),
        }
    }

    /// A batch where the negotiated revision has batches: each element is judged on its own, and goes upstream on its own.
    /// Elsewhere a batch is no frame.
    fn client_batch(&mut self, bytes: &Bytes) {
        let elements = match Frame::batch_from_client(bytes) {
            Ok(elements) => elements,
            Err(error) => return self.client_unreadable(&error),
        };
        for element in elements {
            match Frame::from_client(element) {
                Ok(frame) if frame.method() == Some(method::INITIALIZE) => {
                    let text = "initialize must not be part of a batch";
                    self.refuse(&Refusal::invalid(frame.id().cloned(), ErrorCode::INVALID_REQUEST, text));
                }
                Ok(frame) => self.client_frame(frame),
                Err(error) => self.client_unreadable(&error),
            }
        }
    }

    fn client_unreadable(&mut self, error: &FrameError) {
        tracing::warn!(%error, "a line of the client was refused");
        self.note(&error.to_string());
        self.refuse(&Refusal::unreadable(error));
    }

    fn client_frame(&mut self, frame: Frame) {
        match frame.kind() {
            Kind::Request => self.client_request(frame),
            Kind::Notification if frame.method() == Some(method::CANCELLED) => self.client_cancels(frame),
            Kind::Notification => match self.gate.screen(&self.caller, frame) {
                Screened::Pass(permitted) => self.upstream.send(permitted),
                Screened::Refuse(refusal) => self.refuse(&refusal),
                // The gate holds requests only; were it otherwise, a held notification would never be sent.
                Screened::Hold(_) => {}
            },
            Kind::Response if self.is_answer_to_us(&frame) => {}
            Kind::Response => match frame.id().map(|id| self.asked.remove(id)) {
                Some(true) => {
                    if let Screened::Pass(permitted) = self.gate.screen(&self.caller, frame) {
                        self.upstream.send(permitted);
                    }
                }
                _ => {
                    let text = "the client answered what the server has not asked; dropped";
                    tracing::warn!("{text}");
                    self.note(text);
                }
            },
        }
    }

    fn client_request(&mut self, frame: Frame) {
        let Some(id) = frame.id().cloned() else { return };
        if self.calls.is_in_flight(&id) || self.asking.has(&id) {
            let text = "a request with this id is still without an answer";
            self.note(text);
            return self.refuse(&Refusal::invalid(Some(id), ErrorCode::INVALID_REQUEST, text));
        }
        let requests_max = self.requests_max;
        if !self.calls.has_room(requests_max) || self.asking.len() >= requests_max {
            let text = format!("{requests_max} requests are without an answer, which is the limit");
            return self.refuse(&Refusal::invalid(Some(id), ErrorCode::INTERNAL_ERROR, text));
        }
        if let Some(wait) = &self.lifecycle.wait {
            self.caller.wait = *wait.borrow();
        }
        if let Some(asked) = TaskRequest::parse(&frame).filter(|asked| self.caller.is_answered_here(asked)) {
            return self.ask_task(id, asked, frame);
        }
        if !self.upstream.is_open() {
            return self.refuse(&not_got(id, Withdrawal::ServerGone));
        }
        self.learn_from_request(&frame);
        let interest = match frame.method() {
            Some(method::INITIALIZE) => Interest::Initialize,
            Some(method::TOOLS_LIST) => Interest::ToolsList,
            Some(method::SERVER_DISCOVER) if self.gate.policy().may_hold() => Interest::Discover,
            _ => Interest::None,
        };
        let arrival = || Arrival { is_http: self.caller.is_http, ..Arrival::default() };
        let mut span = self.gate.span_of(&self.caller, &frame, arrival);
        match self.gate.screen(&self.caller, frame) {
            Screened::Pass(permitted) => {
                let call = Call::Forwarded {
                    interest,
                    hold: None,
                    token: None,
                    edited: None,
                    unanswered: None,
                    cancelled: false,
                    span,
                };
                self.begin(id, call);
                self.upstream.send(permitted);
            }
            Screened::Refuse(refusal) => {
                if let Some(span) = &mut span {
                    span.refused(&refusal);
                }
                self.refuse(&refusal);
            }
            Screened::Hold(held) => self.hold(id, held, (interest, span)),
        }
    }

    /// Begins a request. Its id may be that of one which was cancelled and never answered: an approved call among those
    /// is then one of which nobody knows whether it ran.
    fn begin(&mut self, id: RequestId, call: Call) {
        if let Some(Call::Forwarded { hold: Some(hold), .. }) = self.calls.insert(id, call) {
            self.lost(hold);
        }
    }

    /// Records of an approved call that nobody knows whether it ran.
    fn lost(&self, hold: HoldId) {
        let gate = Arc::clone(&self.gate);
        self.tasks.spawn(async move { gate.lost(hold).await });
    }

    /// Who the client says it is, and which era it speaks.
    fn learn_from_request(&mut self, frame: &Frame) {
        if frame.method() == Some(method::INITIALIZE) {
            let initialize = frame.params().and_then(Initialize::from_params);
            self.caller.can_ask =
                initialize.as_ref().is_some_and(|begin| mcp::declares_elicitation(begin.capabilities));
            if let Some(client) = initialize.and_then(|initialize| initialize.peer) {
                self.caller.client = Arc::from(&*client.name);
                self.caller.agent = client.to_string().into();
            }
            self.modern = Some(false);
        } else if self.modern.is_none() && mcp::declares_version(frame) {
            self.modern = Some(true);
        }
    }

    /// A call that the server does not have is withdrawn, whatever a rule says of notifications; any other cancellation is
    /// a notification like others.
    fn client_cancels(&mut self, frame: Frame) {
        let id = frame.params().and_then(Cancelled::parse).map(|cancelled| cancelled.request);
        if id.as_ref().is_some_and(|id| self.asking.end(id)) {
            return;
        }
        match id.as_ref().and_then(|id| self.calls.get_mut(id)) {
            Some(Call::Held { hold, cancelled, .. }) => {
                // If an approval was faster, it is being recorded just now; the call is then not sent.
                *cancelled = !self.gate.withdraw(*hold, Withdrawal::Cancelled);
                return;
            }
            Some(Call::Forwarded { hold, cancelled, token, .. }) => {
                *cancelled = true;
                let hold = *hold;
                // Another call may use it from now on.
                if let Some(token) = token.take() {
                    self.progress.remove(&token);
                }
                let taken = self.upstream.take_back(|taken| hold == Some(taken));
                if let (Some(id), false) = (&id, taken.is_empty()) {
                    self.calls.remove(id);
                    return hold.into_iter().for_each(|hold| self.not_forwarded(hold, Withdrawal::Cancelled));
                }
            }
            None => {}
        }
        match self.gate.screen(&self.caller, frame) {
            Screened::Pass(permitted) => self.upstream.send(permitted),
            Screened::Refuse(refusal) => self.refuse(&refusal),
            // The gate holds requests only.
            Screened::Hold(_) => {}
        }
    }

    /// Records that an approved call was not sent: not one byte of it.
    fn not_forwarded(&self, hold: HoldId, why: Withdrawal) {
        let gate = Arc::clone(&self.gate);
        self.tasks.spawn(async move { gate.not_forwarded(hold, why).await });
    }

    /// Its client no longer wants a call that was left to be decided.
    fn take_back(&self, hold: HoldId) {
        let gate = Arc::clone(&self.gate);
        self.tasks.spawn(async move { gate.take_back(hold, Withdrawal::Cancelled).await });
    }

    /// Puts into the record that a peer has broken the protocol: so often, and then no more. A peer must not be able to fill
    /// the disk.
    fn note(&mut self, text: &str) {
        match self.notes_left {
            0 => return,
            1 => self.gate.note(
                &self.caller,
                "",
                "more was refused or dropped than is recorded of one session",
            ),
            _ => self.gate.note(&self.caller, "", text),
        }
        self.notes_left -= 1;
    }

    fn refuse(&mut self, refusal: &Refusal) {
        if let Some(line) = refusal.to_bytes() {
            self.downstream.send(line);
        }
    }

    // --- the server's lines

    fn server_line(&mut self, line: Option<io::Result<Line>>) {
        match line {
            Some(Ok(Line::Text(bytes))) if Frame::is_batch(&bytes) && self.has_batches() => {
                match Frame::batch_from_server(&bytes) {
                    Ok(elements) => elements.into_iter().for_each(|element| self.server_text(element)),
                    Err(error) => self.server_unreadable(&bytes, &error),
                }
            }
            Some(Ok(Line::Text(bytes))) => self.server_text(bytes),
            Some(Ok(Line::Blank)) => {}
            Some(Ok(Line::Oversize { bytes, head })) => {
                tracing::error!(bytes, "a line of the server is longer than the limit; dropped");
                self.answer_is_lost(&head, "longer than this proxy passes on");
            }
            Some(Ok(Line::Unterminated(bytes))) => {
                tracing::warn!(bytes, "the server's last line had no end; dropped");
            }
            Some(Err(error)) => {
                tracing::debug!(%error, "the server cannot be read");
                self.server_gone();
            }
            None => self.server_gone(),
        }
    }

    fn has_batches(&self) -> bool {
        self.caller.revision.as_deref() == Some(mcp::VERSION_WITH_BATCHES)
    }

    fn server_text(&mut self, text: Bytes) {
        let frame = match Frame::from_server(text.clone()) {
            Ok(frame) => frame,
            Err(error) => return self.server_unreadable(&text, &error),
        };
        let mut instead = None;
        let passes = match frame.kind() {
            Kind::Response => self.server_answers(&frame, &mut instead),
            Kind::Request => self.server_asks(&frame),
            Kind::Notification => self.server_notifies(&frame),
        };
        if passes {
            self.downstream.send(instead.unwrap_or_else(|| frame.into_bytes().into_line()));
        }
    }

    /// Whether an answer of the server passes; `instead` is the line that goes on in its place, if it does not as it came.
    fn server_answers(&mut self, frame: &Frame, instead: &mut Option<Bytes>) -> bool {
        let Some(id) = frame.id() else { return false };
        if id.is_null() {
            // The server could not read something; it can only say so to nobody in particular.
            return frame.error().is_some();
        }
        fail_point!("session.answer_came");
        let own = self.lifecycle.no_answers.as_ref().filter(|_| frame.error().is_some());
        let no_answer = own.and_then(|own| own.take(id));
        let Some(answered) = self.calls.answer(id) else {
            let text = match self.calls.get_mut(id) {
                Some(_) => {
                    "the server answered a call that it does not have, because it is still held; dropped"
                }
                None => "the server answered what it was not asked, or for a second time; dropped",
            };
            tracing::warn!("{text}");
            self.note(text);
            return false;
        };
        if let (Some(why), Some(hold)) = (no_answer, answered.hold) {
            self.approved_not_answered(hold, answered, why);
            return false;
        }
        if answered.interest == Interest::Task {
            let edited = answered.edited;
            self.keep_answer(answered.hold, |hold| task_answer(hold, frame, edited.as_deref()));
            return false;
        }
        if let Some(mut span) = answered.span {
            span.answered(frame);
        }
        if let Some(hold) = answered.hold {
            self.gate.asked_back(hold, frame);
        }
        self.is_answered(answered.hold, answered.token);
        if let Interest::Follow(hold) = answered.interest {
            *instead = Followed { hold, edited: answered.edited }.told_in(frame);
            return true;
        }
        *instead = answered.edited.map(|edited| edited.told_in(frame));
        match answered.interest {
            Interest::Initialize => *instead = self.gate.learn_server(&mut self.caller, frame),
            Interest::ToolsList => *instead = self.learn_tools(frame),
            Interest::Discover => *instead = mcp::offering_tasks(frame),
            Interest::None | Interest::Task | Interest::Follow(_) => {}
        }
        true
    }

    /// The server has not answered an approved call: that goes on record, and its client hears of it in a form that models read.
    fn approved_not_answered(&mut self, hold: HoldId, answered: Answered, why: NoAnswer) {
        let Answered { interest, token, unanswered, span, .. } = answered;
        match why {
            NoAnswer::NotSent => self.not_forwarded(hold, Withdrawal::ServerGone),
            NoAnswer::Lost => self.lost(hold),
            NoAnswer::Status(status) if interest == Interest::Task => {
                let what = format!("the HTTP status {status} without a result");
                self.keep_answer(Some(hold), |hold| unusable_answer(hold, &what));
            }
            NoAnswer::Status(_) => self.is_answered(Some(hold), None),
        }
        if let Some(token) = token {
            self.progress.remove(&token);
        }
        // A task's client hears of it when it asks.
        let Some(unanswered) = unanswered else { return };
        let refusal = match why {
            NoAnswer::NotSent => unanswered.not_sent(Withdrawal::ServerGone),
            NoAnswer::Lost => unanswered.lost(),
            NoAnswer::Status(status) => unanswered.refused_upstream(status),
        };
        if let Some(mut span) = span {
            span.refused(&refusal);
        }
        self.refuse(&refusal);
    }

    /// The server has listed tools: what it says of them counts before the client gets to read it. Gives the list for the client
    /// if that is another.
    fn learn_tools(&mut self, answer: &Frame) -> Option<Bytes> {
        let listed = mcp::tool_definitions(answer.result().unwrap_or_default());
        tools::learn(&mut self.caller, &listed);
        if let Some(seen) = self.gate.see_tools(&self.caller.server, &listed) {
            let gate = Arc::clone(&self.gate);
            self.tasks.spawn(async move { gate.record_tools(seen).await });
        }
        self.gate.list_for(&self.caller, answer)
    }

    /// A forwarded call has its answer.
    fn is_answered(&mut self, hold: Option<HoldId>, token: Option<ProgressToken>) {
        if let Some(token) = token {
            self.progress.remove(&token);
        }
        if let Some(hold) = hold {
            let gate = Arc::clone(&self.gate);
            self.tasks.spawn(async move { gate.answered(hold).await });
        }
    }

    fn server_unreadable(&mut self, line: &[u8], error: &FrameError) {
        tracing::warn!(%error, "a line of the server is not a message, so the client did not get it");
        self.answer_is_lost(line, "not a message that can be read");
    }

    /// A line that begins with `head` does not pass, being `what`. If it is an answer, the client is not left waiting for it.
    fn answer_is_lost(&mut self, head: &[u8], what: &'static str) {
        let Some(id) = Frame::id_of_head(head) else { return };
        let Some(answered) = self.calls.answer(&id) else { return };
        if answered.interest == Interest::Task {
            return self.keep_answer(answered.hold, |hold| unusable_answer(hold, what));
        }
        self.is_answered(answered.hold, answered.token);
        let text = format!("the server has answered, and its answer is {what}");
        self.refuse(&Refusal::invalid(Some(id), ErrorCode::INTERNAL_ERROR, text));
    }

    fn server_asks(&mut self, frame: &Frame) -> bool {
        if self.modern == Some(true) {
            let text = "the server sent a request, which the client's revision does not have; dropped";
            tracing::warn!("{text}");
            self.note(text);
            return false;
        }
        let Some(id) = frame.id() else { return false };
        if self.asked.len() >= ASKED_MAX && !self.asked.contains(id) {
            tracing::warn!("the client owes the server too many answers; a request was dropped");
            return false;
        }
        self.asked.insert(id.clone());
        true
    }

    /// Progress of a call that was held must not go back behind what the client has already seen.
    fn server_notifies(&mut self, frame: &Frame) -> bool {
        if self.progress.is_empty() || frame.method() != Some(method::PROGRESS) {
            return true;
        }
        let Some(progress) = frame.params().and_then(Progress::parse) else { return true };
        let Some(&seen) = self.progress.get(progress.token) else { return true };
        progress.progress.parse::<f64>().is_ok_and(|value| value > seen)
    }

    // --- held calls

    fn held_news(&mut self, news: News) {
        match news {
            News::Waits { id, told, line } => {
                if let Some(Call::Held { told: last, .. }) = self.calls.get_mut(&id)
                    // A client that reads nothing is told nothing more.
                    && !self.downstream.is_full()
                {
                    *last = told;
                    self.downstream.send(line);
                }
            }
            News::Ended(released) => self.hold_ended(released),
            News::Question { id, question } => self.ask_user(id, question),
            News::Task { id, hold, answer } => self.task_begun(&id, hold, answer),
            News::TaskRuns { id, answer, approved } => self.task_runs(id, answer, *approved),
            News::Told(told) => self.asking.told(told),
            News::Run(approved) => self.run_task(*approved),
            News::Pass { id, permitted, followed } => self.pass_question(id, permitted, followed),
        }
    }

    fn hold_ended(&mut self, released: Released) {
        // Only requests are held, so there is one.
        let Some(id) = released.request_id().cloned() else { return };
        let Some(Call::Held { interest, cancelled, token, told, span, .. }) = self.calls.remove(&id) else {
            return;
        };
        self.take_questions_back(&id);
        if let Some(token) = &token {
            // From here on the server's own progress passes, as long as it does not go back behind ours.
            self.progress.remove(token);
        }
        let too_late = match (cancelled, self.client_reads, self.upstream.is_open()) {
            (true, ..) => Some(Withdrawal::Cancelled),
            (_, false, _) => Some(Withdrawal::ClientGone),
            (.., false) => Some(Withdrawal::ServerGone),
            _ => None,
        };
        match (released, too_late) {
            (Released::Resume(approved), None) => {
                let (hold, edited) = (Some(approved.hold()), approved.edited());
                let (permitted, unanswered) = approved.split();
                fail_point!("session.before_send");
                self.upstream.send(permitted);
                if let Some(token) = token.as_ref().filter(|_| told > 0) {
                    self.progress.insert(token.clone(), progress_value(told));
                }
                let unanswered = Some(Box::new(unanswered));
                self.begin(
                    id,
                    Call::Forwarded { interest, hold, token, edited, unanswered, cancelled: false, span },
                );
            }
            (Released::Resume(approved), Some(why)) => {
                let hold = approved.hold();
                self.refuse(&approved.too_late(why));
                self.not_forwarded(hold, why);
            }
            // It ended while it was taken back: nobody waits for the answer, and it must not be left to be decided.
            (released, Some(Withdrawal::Cancelled)) => {
                if let Some(hold) = released.leaves() {
                    self.take_back(hold);
                }
            }
            (Released::Refuse(refusal) | Released::Withdrawn { refusal, .. }, _) => self.refuse(&refusal),
        }
    }

    // --- ends

    /// The client is gone: what it waits for is detached, and the server sees the end of its stdin.
    fn client_gone(&mut self) {
        if !self.client_reads {
            return;
        }
        self.client_reads = false;
        self.lifecycle.client_gone.cancel();
        self.asking.give_up();
        self.detach_all(Absence::ClientGone);
        for hold in self.upstream.take_back(|_| true) {
            self.not_forwarded(hold, Withdrawal::ClientGone);
        }
        self.close_upstream_when_done();
    }

    fn close_upstream_when_done(&mut self) {
        if !self.client_reads && !self.upstream.is_waiting() && self.upstream.is_open() {
            drop(self.upstream.close());
        }
    }

    /// Nothing goes to the server any more. Of what has not gone it is certain that it does not run, and who waits for it hears so.
    fn close_upstream(&mut self, why: Withdrawal) {
        for line in self.upstream.close() {
            // An answer to the server may have the id of a call that the server has.
            let asked = Frame::from_client(line).ok().filter(|frame| frame.kind() == Kind::Request);
            let Some(id) = asked.and_then(|frame| frame.id().cloned()) else { continue };
            let Some(Answered { hold, token, unanswered, .. }) = self.calls.answer(&id) else { continue };
            if let Some(token) = token {
                self.progress.remove(&token);
            }
            if let Some(hold) = hold {
                self.not_forwarded(hold, why);
            }
            match unanswered {
                Some(unanswered) => self.refuse(&unanswered.not_sent(why)),
                // The client of a task hears of it when it asks.
                None if hold.is_some() => {}
                None => self.refuse(&not_got(id, why)),
            }
        }
    }

    fn server_gone(&mut self) {
        self.server_reads = false;
        self.asking.give_up();
        self.close_upstream(Withdrawal::ServerGone);
        self.detach_all(Absence::ServerGone);
    }

    fn stop(&mut self) {
        self.is_stopping = true;
        self.client_reads = false;
        self.asking.give_up();
        if self.lifecycle.over.is_cancelled() {
            self.withdraw_all();
        } else {
            self.detach_all(Absence::Stopping);
        }
        self.close_upstream(Withdrawal::Stopping);
    }

    /// Lets every task end, and puts on record what will never be known.
    async fn finish(mut self, mut held: mpsc::Receiver<News>) {
        self.downstream.flush().await;
        for hold in self.calls.approved_unanswered() {
            self.lost(hold);
        }
        drop((self.upstream.close(), self.downstream.close()));
        self.tasks.close();
        tokio::select! {
            () = self.tasks.wait() => {}
            () = async { while held.recv().await.is_some() {} } => {}
        }
    }
}

/// What the client hears of a request that the server has not got, and does not get any more.
fn not_got(id: RequestId, why: Withdrawal) -> Refusal {
    let text = format!("{}, and the server has not got this request", why.note());
    Refusal::invalid(Some(id), ErrorCode::INTERNAL_ERROR, text)
}
