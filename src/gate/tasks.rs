//! Calls that wait as tasks: their clients are answered at once, and ask for the result later (MCP extension
//! `io.modelcontextprotocol/tasks`, 2026-07-28).
//!
//! A part of `gate`, used by the transports. A task is a hold without a caller: people decide on it as on others, and it
//! outlives clients and this process. An approval makes it a grant, and the client's next question redeems that: the question
//! is the call made again, so nothing runs that nobody asks for. Never sends anything itself.

use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;

use super::{
    Approved, Caller, Edited, Gate, Gone, HeldCall, Released, Screened, Unrecorded, refusal::Refused,
};
use crate::{
    hold::{Absence, BadHoldId, Cause, HoldId, HoldRecord, NewHold, OnRejection, State, Verdict, Withdrawal},
    jsonrpc::{ErrorCode, Frame, RequestId, error_response},
    mcp::{self, Era, Progressed, TASKS_EXTENSION, Task, TaskRequest, TaskVerb},
    store::{TASK_ANSWER_KEPT, TaskAnswer},
};

/// Open calls of one principal that may wait without a caller when one more becomes a task.
pub const TASKS_MAX: usize = 1000;

/// The longest answer that is kept for a client, in bytes.
pub const TASK_ANSWER_BYTES_MAX: usize = 16 << 20;

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
    /// It need not wait: it was decided before, cannot be held, or somebody was quick.
    Released(Released),
}

/// What a question about a task leads to.
#[derive(Debug)]
pub enum Polled {
    /// This answer.
    Answer(Bytes),
    /// The same, and now the call is to be sent; what comes back is for [`task_answer`] and [`Gate::keep_answer`].
    Run {
        /// The answer to the question.
        answer: Bytes,
        /// The call.
        approved: Box<Approved>,
        /// Its tool, for transports that name it beside the call.
        tool: Arc<str>,
    },
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

impl Gate {
    /// Puts a held call on record, to wait without its caller.
    pub async fn begin_task(&self, held: Box<HeldCall>) -> Begun {
        match self.store.without_caller(Arc::clone(&held.hold.principal), TASKS_MAX).await {
            Ok(open) if open < TASKS_MAX => {}
            Ok(_) => {
                let text = format!("{TASKS_MAX} calls of this agent wait already, which is the limit");
                return Begun::Released(Released::Refuse(held.refusal(&text)));
            }
            Err(error) => {
                tracing::error!(hold = %held.hold.id, %error, "a call could not be held, so it was refused");
                return Begun::Released(held.unavailable("the record could not be read"));
            }
        }
        let held = match Box::pin(self.record(held)).await {
            Ok(held) => held,
            Err(released) => return Begun::Released(*released),
        };
        let (request, hold, message) = (held.refused.id.clone(), Arc::clone(&held.hold), held.message());
        self.detach(held.suspended.ticket(), Absence::Task);
        match (Box::pin(self.wait(held)).await, request) {
            (Released::Withdrawn { end, .. }, Some(request)) if end.is_task() => {
                // Before the client can ask for it.
                self.record_withdrawal(end).await;
                let answer = self.task(&hold, hold.created_at).created(&request, &message);
                Begun::Task { hold: hold.id, answer }
            }
            (released, _) => Begun::Released(released),
        }
    }

    /// Answers the request `id` about a task.
    pub async fn ask_task(&self, caller: &Caller, asked: &TaskRequest, id: &RequestId) -> Polled {
        let error = |code, text: &str| Polled::Answer(error_response(Some(id), code, text, None));
        if !asked.declares_tasks {
            let text = "the request does not declare the tasks extension";
            let data =
                format!("{{\"requiredCapabilities\":{{\"extensions\":{{\"{TASKS_EXTENSION}\":{{}}}}}}}}");
            let code = ErrorCode::MISSING_CAPABILITY;
            return Polled::Answer(error_response(Some(id), code, text, Some(&data)));
        }
        let record = match asked.hold.parse() {
            Ok(hold) => self.store.hold(hold).await,
            Err(BadHoldId) => Ok(None),
        };
        let record = match record {
            Ok(Some(record)) if is_of(&record.hold, caller) => record,
            // As if there were none: what others wait for concerns nobody else.
            Ok(_) => return error(ErrorCode::INVALID_PARAMS, "no such task"),
            Err(failure) => {
                tracing::error!(%failure, "a task could not be read");
                return error(ErrorCode::INTERNAL_ERROR, "the record could not be read");
            }
        };
        match asked.verb {
            TaskVerb::Get => self.told(caller, record, id).await,
            TaskVerb::Cancel => {
                // Best effort, as the extension says: what has been sent is not taken back.
                self.take_back(record.hold.id, Withdrawal::Cancelled).await;
                Polled::Answer(mcp::task_heard(id))
            }
            // Ours never ask for anything.
            TaskVerb::Update => Polled::Answer(mcp::task_heard(id)),
        }
    }

    /// How far the task of `record` is. One that was approved is sent now.
    async fn told(&self, caller: &Caller, record: HoldRecord, id: &RequestId) -> Polled {
        let hold = &record.hold;
        let task = self.task(hold, record.ended_at.unwrap_or(hold.created_at));
        let now = Timestamp::now();
        let mut standing = record.standing();
        standing.lapse(now);
        let progressed = match standing.state {
            State::Held => working("waits for a person to approve it"),
            State::Forwarding => working("was approved and runs"),
            State::Granted => match self.redeem(caller, &record).await {
                Ok(approved) => {
                    let answer = task.told(id, &working("was approved and runs"));
                    return Polled::Run { answer, approved, tool: Arc::clone(&hold.tool) };
                }
                Err(progressed) => progressed,
            },
            State::Answered => self.answered_task(hold.id).await,
            State::Withdrawn if record.note.as_deref() == Some(Withdrawal::Cancelled.note()) => {
                Progressed::Cancelled(Withdrawal::Cancelled.note().to_owned())
            }
            state => failed(&record, state),
        };
        Polled::Answer(task.told(id, &progressed))
    }

    /// Makes the granted call of `record` again, under an id of its own: the client's own id may be in use for something else.
    async fn redeem(&self, caller: &Caller, record: &HoldRecord) -> Result<Box<Approved>, Progressed> {
        let id = record.hold.id;
        let text = std::str::from_utf8(&record.hold.frame).ok();
        let text = text.and_then(|text| mcp::with_request_id(text, &mcp::task_id(id)));
        let frame = text.and_then(|text| Frame::from_client(Bytes::from(text)).ok());
        // Judged anew: the rules may have become stricter.
        let call = frame.map(|frame| self.screen(caller, frame));
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
                            Err(Progressed::Completed(mcp::error_result(Era::Modern, &refusal.text, None)))
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
                Err(failed(record, State::Withdrawn))
            }
        }
    }

    async fn answered_task(&self, id: HoldId) -> Progressed {
        match self.store.answer_of(id).await {
            Ok(Some(TaskAnswer::Result(result))) => Progressed::Completed(result),
            Ok(Some(TaskAnswer::Error(error))) => Progressed::Failed(error),
            Ok(None) => Progressed::Completed(mcp::error_result(
                Era::Modern,
                &format!(
                    "ANSWERED (hold {}): the tool ran, and its result is not kept here: it was given to the same call made \
                     again, or is too old. Do not repeat this call; ask the user.",
                    id.short()
                ),
                None,
            )),
            Err(error) => {
                tracing::error!(hold = %id, %error, "the answer to a task could not be read");
                working("was answered, and the answer cannot be read")
            }
        }
    }

    /// Keeps what the server has answered to a call that ran as a task, for its client to ask for.
    pub async fn keep_answer(&self, id: HoldId, answer: TaskAnswer) {
        if let Err(error) = self.store.answer(id, answer).await {
            tracing::error!(hold = %id, %error, "the answer to a task could not be recorded");
        }
    }

    fn task(&self, hold: &NewHold, updated_at: Timestamp) -> Task {
        let waits = hold.expires_at.duration_since(hold.created_at);
        let waits_ms = u64::try_from(waits.as_millis()).unwrap_or_default();
        let granted_ms = u64::from(self.grant_seconds) * 1000;
        let kept_ms = u64::try_from(TASK_ANSWER_KEPT.as_millis()).unwrap_or_default();
        Task {
            id: mcp::task_id(hold.id),
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

fn working(how: &str) -> Progressed {
    Progressed::Working(format!("The call {how}."))
}

/// What the client hears of a call that did not run, or of which nobody knows.
fn failed(record: &HoldRecord, state: State) -> Progressed {
    let id = record.hold.id;
    let refused = Refused {
        id: None,
        era: Era::Modern,
        is_tool_call: true,
        on_rejection: OnRejection::Continue,
        hold_message: None,
    };
    let rejection = record.votes.iter().rev().find(|vote| vote.verdict == Verdict::Reject);
    let reason = rejection.and_then(|vote| vote.comment.as_deref()).unwrap_or_default();
    let refusal = match state {
        State::Rejected => refused.ended(id, Cause::Rejected, reason),
        State::Expired => refused.ended(id, Cause::Expired, "nobody has answered in time"),
        State::Lapsed => {
            refused.ended(id, Cause::Withdrawn, "it was approved, and nobody asked for it in time")
        }
        State::Unavailable => {
            refused.ended(id, Cause::Unavailable, record.note.as_deref().unwrap_or_default())
        }
        State::Withdrawn => {
            let changed = Withdrawal::RulesChanged.note();
            let note = if record.state == State::Granted {
                changed
            } else {
                record.note.as_deref().unwrap_or_default()
            };
            refused.ended(id, Cause::Withdrawn, note)
        }
        State::Ran => {
            let text = format!(
                "RAN (hold {}): the call was approved and ran, as a person has found out; its result is not known. Do not \
                 repeat this call.",
                id.short()
            );
            return Progressed::Completed(mcp::error_result(Era::Modern, &text, None));
        }
        State::NotRun => refused.ended(id, Cause::Unavailable, "a person has found out that it did not run"),
        _ => refused.unknown(id),
    };
    Progressed::Completed(mcp::error_result(Era::Modern, &refusal.text, None))
}

/// What is kept of a server's `answer` to the call of `id`. A result that is none of a tool yet cannot be followed up here.
/// `edited`: what the client has to hear besides.
pub fn task_answer(id: HoldId, answer: &Frame, edited: Option<&Edited>) -> TaskAnswer {
    if let Some(edited) = edited {
        return match Frame::from_server(edited.told_in(answer)) {
            Ok(answer) => task_answer(id, &answer, None),
            Err(_) => {
                unusable_answer(id, "nothing that can be read with the notice that the call was changed")
            }
        };
    }
    let kind = answer.result().and_then(mcp::result_type);
    match (kind.as_deref(), answer.result(), answer.error()) {
        (Some("task"), ..) => unusable_answer(id, "a task of the server's own"),
        (Some("input_required"), ..) => unusable_answer(id, "a question of the server"),
        (_, Some(result), _) if result.len() <= TASK_ANSWER_BYTES_MAX => {
            TaskAnswer::Result(result.to_owned())
        }
        (_, _, Some(error)) if error.len() <= TASK_ANSWER_BYTES_MAX => TaskAnswer::Error(error.to_owned()),
        _ => unusable_answer(id, "longer than what is kept for a client"),
    }
}

/// The same for an answer that no client can be given; `what` it is.
pub fn unusable_answer(id: HoldId, what: &str) -> TaskAnswer {
    let text = format!(
        "NOT PASSED ON (hold {}): the call was approved and sent, and the server's answer is {what}, which cannot be given to \
         you as the result of this task. Find out whether the tool ran before you repeat this call, or ask the user.",
        id.short()
    );
    TaskAnswer::Result(mcp::error_result(Era::Modern, &text, None))
}
