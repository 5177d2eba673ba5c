//! Tasks whose server has answered with a task of its own, or with a question: the client goes on asking about ours.
//!
//! A part of `gate::tasks`. The kept answer of a hold says where it leads: to a task of the server's, about which the client's own
//! requests are passed on; to a question, whose answers become the same call made again, judged and approved as every continuation
//! is; or to the hold of such a continuation. Never invents an answer.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;

use super::{Begun, Polled, Question, working};
use crate::{
    gate::{Edited, Gate, Released, Screened},
    hold::{HoldId, HoldRecord, State, Withdrawal},
    jsonrpc::{ErrorCode, Frame},
    mcp::{self, LeadsTo, Progressed, TaskVerb},
    store::{StoreError, TASK_ANSWER_KEPT, TaskAnswer},
};

/// Continuations of one task that are followed.
const ROUNDS_MAX: usize = 64;

/// How long the task of a server is followed at most, whatever it says.
const FOLLOWED_MAX: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Where a task stands: at the last of the holds to which it has led.
pub(super) enum Stands {
    /// It has no answer of a server.
    Own,
    /// It has this one.
    Answered(TaskAnswer),
    /// It had one, which is not kept.
    NotKept,
    /// The server has a task of its own for it, by this id.
    Theirs(String),
    /// The server has asked something.
    Asks(Asks),
}

/// A question of a server.
pub(super) struct Asks {
    /// The kept answer that it is.
    kept: String,
    requests: Option<String>,
    state: Option<String>,
}

/// What a client is told of a server's answer about a task of the server's own.
#[derive(Clone, Debug)]
pub struct Followed {
    /// The hold by whose task the client knows it.
    pub hold: HoldId,
    /// What the result has to say, if an approver has changed the call.
    pub edited: Option<Arc<Edited>>,
}

impl Followed {
    /// `answer` with our id in the place of the server's, as one line. `None`: it goes on as it came.
    pub fn told_in(&self, answer: &Frame) -> Option<Bytes> {
        let ours = mcp::as_our_task(answer, &mcp::task_id(self.hold));
        let Some(edited) = &self.edited else { return ours };
        let named = match ours {
            Some(line) => Frame::from_server(line).ok()?,
            None => Frame::from_server(answer.bytes().clone()).ok()?,
        };
        let whole = mcp::with_inner_result(&named, |result| edited.told_in(result));
        Some(whole.unwrap_or_else(|| named.into_bytes().into_line()))
    }
}

impl Gate {
    /// Where the task of `record` stands, and at which hold.
    pub(super) async fn follow(&self, mut record: HoldRecord) -> Result<(HoldRecord, Stands), StoreError> {
        for _ in 0..ROUNDS_MAX {
            if record.state != State::Answered {
                return Ok((record, Stands::Own));
            }
            let kept = match self.store.answer_of(record.hold.id).await? {
                Some(TaskAnswer::Result(result)) => result,
                Some(error) => return Ok((record, Stands::Answered(error))),
                None => return Ok((record, Stands::NotKept)),
            };
            let id = match mcp::leads_to(&kept) {
                None => return Ok((record, Stands::Answered(TaskAnswer::Result(kept)))),
                Some(LeadsTo::Question { requests, state }) => {
                    return Ok((record, Stands::Asks(Asks { kept, requests, state })));
                }
                Some(LeadsTo::Task(id)) => id,
            };
            let next = match mcp::our_hold(&id).and_then(|hold| hold.parse().ok()) {
                Some(hold) => self.store.hold(hold).await?,
                None => None,
            };
            // A server may call its own tasks as it likes: it does not lead to what others wait for.
            let is_ours = |next: &HoldRecord| {
                next.hold.principal == record.hold.principal && next.hold.server == record.hold.server
            };
            match next.filter(is_ours) {
                Some(next) => record = next,
                None => return Ok((record, Stands::Theirs(id))),
            }
        }
        Ok((record, Stands::NotKept))
    }

    /// Lets the server answer the question itself.
    pub(super) fn pass_on(&self, question: &Question<'_>, record: &HoldRecord, theirs: String) -> Polled {
        let frame = mcp::same_about(question.frame, &theirs).and_then(|line| Frame::from_client(line).ok());
        let Some(frame) = frame else {
            return question.error(ErrorCode::INTERNAL_ERROR, "the server's task cannot be asked about");
        };
        let Ok(hold) = question.asked.hold.parse() else { return question.heard() };
        let comment = record.votes.last().and_then(|vote| vote.comment.as_deref());
        let edited = record.edit.as_ref().and_then(|edit| Frame::from_client(edit.frame.clone()).ok());
        let edited = edited.map(|edited| Arc::new(Edited::new(record.hold.id, &edited, comment)));
        match self.screen(question.caller, frame) {
            Screened::Pass(permitted) => {
                Polled::Pass { permitted, theirs, followed: Followed { hold, edited } }
            }
            Screened::Refuse(refusal) => Polled::Answer(refusal.to_bytes().unwrap_or_default()),
            Screened::Hold(_) => {
                question.error(ErrorCode::INVALID_REQUEST, "a rule holds questions about tasks")
            }
        }
    }

    /// The server of `record` has asked something: the client hears of it, or answers it.
    pub(super) async fn asks(&self, question: &Question<'_>, record: &HoldRecord, asks: Asks) -> Polled {
        match (question.asked.verb, &asks.requests) {
            (TaskVerb::Get | TaskVerb::Result, Some(requests)) => {
                question.told(&Progressed::InputRequired(requests.clone()))
            }
            (TaskVerb::Cancel, _) => {
                let text = format!("WITHDRAWN (hold {}): the client took it back.", record.hold.id.short());
                self.lead(record, &asks, error_result(question, &text)).await;
                question.over(&Progressed::Cancelled(text))
            }
            // With nothing but a state, the same call is to be made again at once.
            (TaskVerb::Get | TaskVerb::Result, None) => {
                self.goes_on_with(question, record, &asks, None).await
            }
            (TaskVerb::Update, _) => match question.frame.params().and_then(mcp::input_responses) {
                Some(answers) => self.goes_on_with(question, record, &asks, Some(answers)).await,
                None => question.error(ErrorCode::INVALID_PARAMS, "`inputResponses` is not an object"),
            },
            (TaskVerb::List, _) => question.heard(),
        }
    }

    /// Makes the call of `record` again with `answers` to what its server has asked.
    async fn goes_on_with(
        &self,
        question: &Question<'_>,
        record: &HoldRecord,
        asks: &Asks,
        answers: Option<&str>,
    ) -> Polled {
        // A hold asks once, so no other call has this id.
        let id = format!("{}_again", mcp::task_id(record.hold.id));
        let call = std::str::from_utf8(&record.hold.frame).ok();
        let call = call.and_then(|call| mcp::continuation(call, &id, answers, asks.state.as_deref()));
        let call = call.and_then(|call| Frame::from_client(Bytes::from(call)).ok());
        let Some(call) = call else {
            return question
                .error(ErrorCode::INVALID_PARAMS, "the call cannot be made again with these answers");
        };
        let (tool, ttl) = (Arc::clone(&record.hold.tool), question.task.ttl_ms);
        let leads = |hold| {
            let id = mcp::task_id(hold);
            TaskAnswer::Result(format!("{{\"resultType\":\"task\",\"taskId\":\"{id}\",\"ttlMs\":{ttl}}}"))
        };
        let refusal = match self.screen(question.caller, call) {
            Screened::Hold(call) => match Box::pin(self.begin_task(call)).await {
                Begun::Task { hold, .. } => {
                    if !self.lead(record, asks, leads(hold)).await {
                        self.take_back(hold, Withdrawal::Cancelled).await;
                    }
                    return question.told(&working("goes on"));
                }
                Begun::Run { approved, .. } | Begun::Released(Released::Resume(approved)) => {
                    if !self.lead(record, asks, leads(approved.hold())).await {
                        self.not_forwarded(approved.hold(), Withdrawal::Cancelled).await;
                        return question.told(&working("goes on"));
                    }
                    let answer = match question.told(&working("was approved and runs")) {
                        Polled::Answer(answer) => Some(answer),
                        _ => None,
                    };
                    return Polled::Run { answer, approved, tool };
                }
                Begun::Released(Released::Refuse(refusal)) => refusal.text,
                Begun::Released(Released::Withdrawn { refusal, end }) => {
                    self.record_withdrawal(end).await;
                    refusal.text
                }
            },
            Screened::Refuse(refusal) => refusal.text,
            Screened::Pass(_) => {
                "WITHDRAWN: the rules for this call have changed, and nobody need approve it now. The tool did not run to \
                 its end. Call it again."
                    .to_owned()
            }
        };
        self.lead(record, asks, error_result(question, &refusal)).await;
        question.told(&working("goes on"))
    }

    /// The task of `record` leads to `answer` now, unless somebody else has answered the question. Gives whether it does.
    async fn lead(&self, record: &HoldRecord, asks: &Asks, answer: TaskAnswer) -> bool {
        let leads = match &answer {
            TaskAnswer::Result(result) => mcp::leads_to(result),
            TaskAnswer::Error(_) => None,
        };
        let kept = self.kept(leads.as_ref(), &answer);
        let led = self.store.answer_instead(record.hold.id, asks.kept.clone(), answer, kept).await;
        self.moved.notify_waiters();
        led.unwrap_or_else(|error| {
            tracing::error!(hold = %record.hold.id, %error, "what a task leads to could not be recorded");
            false
        })
    }

    /// For how long `answer`, which `leads` on, is kept.
    pub(super) fn kept(&self, leads: Option<&LeadsTo>, answer: &TaskAnswer) -> Duration {
        let of_task = match (leads, answer) {
            (Some(LeadsTo::Task(_)), TaskAnswer::Result(result)) => {
                mcp::task_ttl_ms(result).map_or(FOLLOWED_MAX, Duration::from_millis)
            }
            (Some(LeadsTo::Question { .. }), _) => Duration::from_secs(self.grant_seconds.into()),
            _ => TASK_ANSWER_KEPT,
        };
        of_task.clamp(TASK_ANSWER_KEPT, FOLLOWED_MAX)
    }
}

fn error_result(question: &Question<'_>, text: &str) -> TaskAnswer {
    TaskAnswer::Result(mcp::error_result(question.asked.era, text, None))
}
