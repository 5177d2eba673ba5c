//! Calls that wait as tasks: their clients are answered at once, and ask for the result later (MCP extension
//! `io.modelcontextprotocol/tasks` of 2026-07-28, and the tasks of 2025-11-25).
//!
//! A part of `gate`, used by the transports. A task is a hold without a caller: people decide on it as on others, and it
//! outlives clients and this process. An approval makes it a grant, and the client's next question redeems that: the question
//! is the call made again, so nothing runs that nobody asks for. What a server answers with a task of its own is in `follow`.
//! Never sends anything itself.

mod follow;
mod wording;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use jiff::Timestamp;

pub use self::follow::Followed;
pub(super) use self::wording::ended;
pub use self::wording::{task_answer, unusable_answer};
use self::{
    follow::Stands,
    wording::{failed, working},
};
use super::{
    Approved, Caller, Gate, HeldCall, Permitted, Released, Screened, Unrecorded, owed::Gone,
    quorum::decide_now, refusal,
};
use crate::{
    hold::{Absence, BadHoldId, HoldId, HoldRecord, NewHold, OnRejection, State, Withdrawal},
    jsonrpc::{ErrorCode, Frame, RequestId, error_response, scan::Param},
    mcp::{self, Era, LeadsTo, Progressed, TASKS_EXTENSION, Task, TaskRequest, TaskVerb, ToolCall},
    store::{HistoryFilter, StoreError, TASK_ANSWER_KEPT, TaskAnswer},
};

/// The longest answer that is kept for a client, in bytes.
pub const TASK_ANSWER_BYTES_MAX: usize = 16 << 20;

/// Holds that one page of a list of tasks is made of.
const TASKS_IN_PAGE: usize = 50;

/// How long a client that waits for a result waits, at the longest, before it is looked anew: another process may have moved it.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// What has become of a call that can wait as a task.
#[derive(Debug)]
pub enum Begun {
    /// It is one.
    Task {
        /// The hold that it stands for.
        hold: HoldId,
        /// The answer to the call.
        answer: Bytes,
    },
    /// It is one, and it was decided before: it is to be sent, and what comes back is kept as for [`Polled::Run`].
    Run {
        /// The answer to the call.
        answer: Bytes,
        /// The call.
        approved: Box<Approved>,
    },
    /// It need not wait: it was decided before, cannot be held, or somebody was quick.
    Released(Released),
}

/// What a question about a task leads to.
#[derive(Debug)]
pub enum Polled {
    /// This answer.
    Answer(Bytes),
    /// None yet: to be asked again after [`Gate::task_moves`].
    Later,
    /// The call is to be sent; what comes back is for [`task_answer`] and [`Gate::keep_answer`].
    Run {
        /// The answer to the question; none: to be asked again.
        answer: Option<Bytes>,
        /// The call.
        approved: Box<Approved>,
        /// Its tool, for transports that name it beside the call.
        tool: Arc<str>,
    },
    /// The server has a task of its own for it: it is asked, and its answer is for [`Followed::told_in`].
    Pass {
        /// The question, about the server's task.
        permitted: Permitted,
        /// What the server calls it, for transports that name it beside the question.
        theirs: String,
        /// What is told of the answer.
        followed: Followed,
    },
}

impl Caller {
    /// Whether the request `asked` is ours to answer. A server with tasks of its own lists them itself.
    pub fn is_answered_here(&self, asked: &TaskRequest) -> bool {
        asked.verb != TaskVerb::List
            || (!self.server_has_tasks && self.revision.as_deref() == Some(mcp::VERSION_WITH_TASKS))
    }
}

impl Unrecorded {
    /// Whether the caller will ask for the result later.
    fn is_task(&self) -> bool {
        matches!(self.why, Gone::Absent(Absence::Task))
    }
}

impl HeldCall {
    /// Whether its client can take a task for an answer.
    pub fn is_task(&self) -> bool {
        self.is_task
    }
}

/// Who asks what about which task.
struct Question<'a> {
    caller: &'a Caller,
    asked: &'a TaskRequest,
    frame: &'a Frame,
    id: &'a RequestId,
    task: Task,
}

impl Question<'_> {
    /// That the task is `progressed` so far.
    fn told(&self, progressed: &Progressed) -> Polled {
        match self.asked.verb {
            TaskVerb::Result => {
                mcp::result_of_task(self.id, &self.task.id, progressed).map_or(Polled::Later, Polled::Answer)
            }
            TaskVerb::Update => self.heard(),
            _ => Polled::Answer(self.task.told(self.id, progressed)),
        }
    }

    fn heard(&self) -> Polled {
        Polled::Answer(mcp::task_heard(self.id))
    }

    fn error(&self, code: ErrorCode, text: &str) -> Polled {
        Polled::Answer(error_response(Some(self.id), code, text, None))
    }

    /// It has come to an end that cannot be changed.
    fn over(&self, progressed: &Progressed) -> Polled {
        match (self.asked.verb, self.asked.era) {
            (TaskVerb::Cancel, Era::Legacy) => {
                let text =
                    "the task has come to its end, or has been sent to its server: it cannot be cancelled";
                self.error(ErrorCode::INVALID_PARAMS, text)
            }
            (TaskVerb::Cancel | TaskVerb::Update, _) => self.heard(),
            _ => self.told(progressed),
        }
    }
}

impl Gate {
    /// Puts a held call on record, to wait without its caller.
    pub async fn begin_task(&self, held: Box<HeldCall>) -> Begun {
        let held = match Box::pin(self.record(held)).await {
            Ok(held) => held,
            Err(released) => return Begun::Released(*released),
        };
        let (request, hold, message) = (held.refused.id.clone(), Arc::clone(&held.hold), held.message());
        let era = held.refused.era;
        self.detach(held.suspended.ticket(), Absence::Task);
        match (Box::pin(self.wait(held)).await, request) {
            (Released::Withdrawn { end, .. }, Some(request)) if end.is_task() => {
                // Before the client can ask for it.
                self.record_withdrawal(end).await;
                let answer = self.task(&hold, era, hold.created_at).created(&request, &message);
                Begun::Task { hold: hold.id, answer }
            }
            (released, _) => Begun::Released(released),
        }
    }

    /// The same for a client that takes nothing but a task for an answer: in 2025-11-25 it has asked for one. A server with tasks of
    /// its own gives it one.
    pub async fn begin_asked_task(&self, caller: &Caller, held: Box<HeldCall>) -> Begun {
        let (era, created_at) = (held.refused.era, held.hold.created_at);
        let hold = Arc::clone(&held.hold);
        match self.begin_task(held).await {
            Begun::Released(Released::Resume(mut approved))
                if is_asked_here(caller, era) && approved.request_id().is_some() =>
            {
                if let Some(call) = Frame::from_client(approved.permitted.bytes().clone()).ok().map(plain) {
                    approved.permitted = Permitted::approved(call.into_bytes(), approved.hold());
                }
                let task =
                    self.task(&NewHold { id: approved.hold(), ..NewHold::clone(&hold) }, era, created_at);
                let text = "The call was approved and runs.";
                let answer = approved.request_id().map(|id| task.created(id, text)).unwrap_or_default();
                Begun::Run { answer, approved }
            }
            begun => begun,
        }
    }

    /// Answers `frame`, a request about a task that [`Caller::is_answered_here`].
    pub async fn ask_task(&self, caller: &Caller, asked: &TaskRequest, frame: &Frame) -> Polled {
        let Some(id) = frame.id() else { return Polled::Answer(Bytes::new()) };
        let error = |code, text: &str| Polled::Answer(error_response(Some(id), code, text, None));
        if asked.lacks_capability() {
            let text = "the request does not declare the tasks extension";
            let data =
                format!("{{\"requiredCapabilities\":{{\"extensions\":{{\"{TASKS_EXTENSION}\":{{}}}}}}}}");
            let code = ErrorCode::MISSING_CAPABILITY;
            return Polled::Answer(error_response(Some(id), code, text, Some(&data)));
        }
        let unreadable = |failure: StoreError| {
            tracing::error!(%failure, "a task could not be read");
            error(ErrorCode::INTERNAL_ERROR, "the record could not be read")
        };
        if asked.verb == TaskVerb::List {
            return self.list_tasks(caller, frame, id).await.map_or_else(unreadable, Polled::Answer);
        }
        let record = match asked.hold.parse() {
            Ok(hold) => self.store.hold(hold).await,
            Err(BadHoldId) => Ok(None),
        };
        let record = match record {
            Ok(Some(record)) if is_of(&record.hold, caller) => record,
            // As if there were none: what others wait for concerns nobody else.
            Ok(_) => return error(ErrorCode::INVALID_PARAMS, "no such task"),
            Err(failure) => return unreadable(failure),
        };
        let task = self.task(&record.hold, asked.era, record.ended_at.unwrap_or(record.hold.created_at));
        let question = Question { caller, asked, frame, id, task };
        match self.follow(record).await {
            Ok((record, Stands::Own)) => self.own(&question, record).await,
            Ok((_, Stands::Answered(answer))) => question.over(&match answer {
                TaskAnswer::Result(result) => Progressed::Completed(result),
                TaskAnswer::Error(error) => Progressed::Failed(error),
            }),
            Ok((record, Stands::NotKept)) => question.over(&wording::not_kept(&record, asked.era)),
            Ok((record, Stands::Theirs(theirs))) => self.pass_on(&question, &record, theirs),
            Ok((record, Stands::Asks(asks))) => self.asks(&question, &record, asks).await,
            Err(failure) => unreadable(failure),
        }
    }

    /// Waits until something may have become of a task.
    pub async fn task_moves(&self) {
        let _ = tokio::time::timeout(LOOK_AGAIN, self.moved.notified()).await;
    }

    /// What the client of a call that waits is told, in the words that the rules have for it now.
    fn told_while_held(&self, hold: &NewHold) -> Progressed {
        let terms = decide_now(&self.policy(), hold, None).and_then(|decision| decision.terms);
        let message = terms.as_ref().and_then(|terms| terms.hold_message.as_deref());
        Progressed::Working(refusal::waits(message, hold.id))
    }

    /// A call that has no answer: it waits, runs, or did not run.
    async fn own(&self, question: &Question<'_>, record: HoldRecord) -> Polled {
        let hold = &record.hold;
        let mut standing = record.standing();
        standing.lapse(Timestamp::now());
        if question.asked.verb == TaskVerb::Cancel && matches!(standing.state, State::Held | State::Granted) {
            // Best effort, as the extension says: what has been sent is not taken back.
            self.take_back(hold.id, Withdrawal::Cancelled).await;
            return match (question.asked.era, self.store.hold(hold.id).await) {
                (Era::Modern, _) => question.heard(),
                (Era::Legacy, Ok(Some(now))) if now.state == State::Withdrawn => {
                    question.told(&Progressed::Cancelled(Withdrawal::Cancelled.note().to_owned()))
                }
                _ => question.over(&working("runs")),
            };
        }
        let asks_only = matches!(question.asked.verb, TaskVerb::Get | TaskVerb::Result);
        let progressed = match standing.state {
            _ if !asks_only => return question.over(&working("runs")),
            State::Held => self.told_while_held(hold),
            State::Forwarding => working("was approved and runs"),
            State::Granted => match self.redeem(question, &record).await {
                Ok(approved) => {
                    let answer = match question.told(&working("was approved and runs")) {
                        Polled::Answer(answer) => Some(answer),
                        _ => None,
                    };
                    return Polled::Run { answer, approved, tool: Arc::clone(&hold.tool) };
                }
                Err(progressed) => progressed,
            },
            State::Withdrawn if record.note.as_deref() == Some(Withdrawal::Cancelled.note()) => {
                Progressed::Cancelled(Withdrawal::Cancelled.note().to_owned())
            }
            state => failed(&record, state, question.asked.era),
        };
        question.told(&progressed)
    }

    /// Makes the granted call of `record` again, under an id of its own: the client's own id may be in use for something else.
    async fn redeem(
        &self,
        question: &Question<'_>,
        record: &HoldRecord,
    ) -> Result<Box<Approved>, Progressed> {
        let (id, era) = (record.hold.id, question.asked.era);
        let text = std::str::from_utf8(&record.hold.frame).ok();
        let text = text.and_then(|text| mcp::with_request_id(text, &mcp::task_id(id)));
        let frame = text.and_then(|text| Frame::from_client(Bytes::from(text)).ok());
        let frame = frame.map(|frame| if is_asked_here(question.caller, era) { plain(frame) } else { frame });
        // Judged anew: the rules may have become stricter.
        let call = frame.map(|frame| self.screen(question.caller, frame));
        if let Some(Screened::Hold(call)) = call {
            match self.store.redeem(id, NewHold::clone(&call.hold)).await {
                Ok(Some(redeemed)) => {
                    return match self.redeemed(*call, &redeemed).await {
                        Released::Resume(approved) => Ok(approved),
                        // Taken out of the table meanwhile: not one byte of it is sent.
                        Released::Withdrawn { refusal, end } => {
                            self.record_withdrawal(end).await;
                            Err(Progressed::Cancelled(refusal.text))
                        }
                        // It does not fit any more, which is on record.
                        Released::Refuse(refusal) => {
                            Err(Progressed::Refused(mcp::error_result(era, &refusal.text, None)))
                        }
                    };
                }
                Err(error) => {
                    tracing::error!(hold = %id, %error, "a grant could not be redeemed");
                    return Err(working("was approved, and cannot be recorded as sent"));
                }
                Ok(None) => {}
            }
        }
        match self.store.hold(id).await {
            // Another question was faster, or the grant has lapsed.
            Ok(Some(now)) if now.state != State::Granted => Err(working("was approved")),
            _ => {
                self.take_back(id, Withdrawal::RulesChanged).await;
                Err(failed(record, State::Withdrawn, era))
            }
        }
    }

    /// Keeps what the server has answered to a call that ran as a task, for its client to ask for.
    pub async fn keep_answer(&self, id: HoldId, answer: TaskAnswer) {
        let leads = match &answer {
            TaskAnswer::Result(result) => mcp::leads_to(result),
            TaskAnswer::Error(_) => None,
        };
        if let Some(LeadsTo::Question { state, .. }) = &leads {
            // Before the client can know the question.
            self.continues(id, state.as_deref());
        }
        self.continuations.ended(id);
        let kept = self.kept(leads.as_ref(), &answer);
        if let Err(error) = self.store.answer(id, answer, kept).await {
            tracing::error!(hold = %id, %error, "the answer to a task could not be recorded");
        }
        self.moved.notify_waiters();
    }

    /// A page of the tasks of `caller`, the newest first: the answer to `frame`.
    async fn list_tasks(&self, caller: &Caller, frame: &Frame, id: &RequestId) -> Result<Bytes, StoreError> {
        let before = frame.params().and_then(mcp::cursor).and_then(|cursor| cursor.parse().ok());
        let server = Some(caller.server.to_string());
        let filter = HistoryFilter { limit: TASKS_IN_PAGE, before, server, ..HistoryFilter::default() };
        let page = self.store.history(filter).await?;
        let next =
            page.last().filter(|_| page.len() == TASKS_IN_PAGE).map(|last| last.record.hold.id.to_string());
        let mut tasks = Vec::new();
        for listed in page {
            if !is_of(&listed.record.hold, caller) {
                continue;
            }
            // Long ones are read one after another.
            let whole =
                if listed.has_frame() { None } else { self.store.hold(listed.record.hold.id).await? };
            let record = whole.unwrap_or(listed.record);
            let wants_task = Frame::from_client(record.hold.frame.clone())
                .is_ok_and(|frame| frame.param(Param::Task).is_some() && !mcp::declares_version(&frame));
            if !wants_task {
                continue;
            }
            let updated_at = record.ended_at.unwrap_or(record.hold.created_at);
            let task = self.task(&record.hold, Era::Legacy, updated_at);
            let progressed = match self.follow(record).await? {
                (record, Stands::Own) => match record.state {
                    State::Held => self.told_while_held(&record.hold),
                    State::Granted | State::Forwarding => working("was approved"),
                    state => failed(&record, state, Era::Legacy),
                },
                (_, Stands::Answered(TaskAnswer::Result(result))) => Progressed::Completed(result),
                (_, Stands::Answered(TaskAnswer::Error(error))) => Progressed::Failed(error),
                (record, Stands::NotKept) => wording::not_kept(&record, Era::Legacy),
                (_, Stands::Theirs(_) | Stands::Asks(_)) => working("runs at the server"),
            };
            tasks.push((task, progressed));
        }
        Ok(mcp::told_all(id, &tasks, next.as_deref()))
    }

    fn task(&self, hold: &NewHold, era: Era, updated_at: Timestamp) -> Task {
        let waits = hold.expires_at.duration_since(hold.created_at);
        let waits_ms = u64::try_from(waits.as_millis()).unwrap_or_default();
        let granted_ms = u64::try_from(self.grant_of(hold).as_millis()).unwrap_or_default();
        let kept_ms = u64::try_from(TASK_ANSWER_KEPT.as_millis()).unwrap_or_default();
        Task {
            id: mcp::task_id(hold.id),
            era,
            created_at: hold.created_at,
            updated_at,
            ttl_ms: waits_ms + granted_ms + kept_ms,
        }
    }
}

/// Whether `caller` may ask about a hold: it is that of the same principal, at the same server.
fn is_of(hold: &NewHold, caller: &Caller) -> bool {
    hold.principal == caller.principal && hold.server == caller.server
}

/// How a call is refused that has asked to be a task: with an error, because its client takes no other result than a task.
pub(super) fn on_rejection(is_asked_task: bool, wanted: OnRejection) -> OnRejection {
    if is_asked_task { OnRejection::Fail } else { wanted }
}

/// Whether a task of this kind is ours alone: its server has none and knows nothing of it.
fn is_asked_here(caller: &Caller, era: Era) -> bool {
    era == Era::Legacy && !caller.server_has_tasks
}

/// The call that a client has asked for as a task, for a server without tasks: how it is answered is not its server's affair.
fn plain(call: Frame) -> Frame {
    if call.param(Param::Task).is_none() {
        return call;
    }
    mcp::without_task(&call).and_then(|call| Frame::from_client(call).ok()).unwrap_or(call)
}

/// Whether a call asks to be a task, in the revision in which calls do so.
pub(super) fn asks_for_task(caller: &Caller, call: &ToolCall<'_>) -> bool {
    call.wants_task && caller.revision.as_deref().is_none_or(|revision| revision == mcp::VERSION_WITH_TASKS)
}
