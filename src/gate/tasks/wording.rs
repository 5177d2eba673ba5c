//! What a client hears of its task: how far it is, why it did not run, and what is kept of a server's answer.
//!
//! A part of `gate::tasks`. Words only: it neither reads nor writes the record.

use super::TASK_ANSWER_BYTES_MAX;
use crate::{
    gate::{Edited, Refusal, refusal::Refused},
    hold::{Cause, HoldId, HoldRecord, OnRejection, State, Verdict, Withdrawal},
    jsonrpc::Frame,
    mcp::{self, Era, Progressed},
    store::TaskAnswer,
};

pub(super) fn working(how: &str) -> Progressed {
    Progressed::Working(format!("The call {how}."))
}

/// The server has answered, and the answer is not here.
pub(super) fn not_kept(record: &HoldRecord, era: Era) -> Progressed {
    failed(record, State::Answered, era)
}

/// What the client hears of a call that did not run, or of which nobody knows.
pub(super) fn failed(record: &HoldRecord, state: State, era: Era) -> Progressed {
    let refused = Refused {
        id: None,
        era,
        is_tool_call: true,
        on_rejection: OnRejection::Continue,
        hold_message: None,
    };
    Progressed::Refused(mcp::error_result(era, &ended(refused, record, state).text, None))
}

/// The same as the refusal of a call.
pub(in crate::gate) fn ended(refused: Refused, record: &HoldRecord, state: State) -> Refusal {
    let id = record.hold.id;
    let rejection = record.votes.iter().rev().find(|vote| vote.verdict == Verdict::Reject);
    let reason = rejection.and_then(|vote| vote.comment.as_deref()).unwrap_or_default();
    match state {
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
        State::Ran => refused.ran(id),
        State::Answered => refused.answered(id),
        State::NotRun => refused.ended(id, Cause::Unavailable, "a person has found out that it did not run"),
        _ => refused.unknown(id),
    }
}

/// What is kept of a server's `answer` to the call of `id`. `edited`: what the client has to hear besides.
pub fn task_answer(id: HoldId, answer: &Frame, edited: Option<&Edited>) -> TaskAnswer {
    if let Some(edited) = edited {
        return match Frame::from_server(edited.told_in(answer)) {
            Ok(answer) => task_answer(id, &answer, None),
            Err(_) => {
                unusable_answer(id, "nothing that can be read with the notice that the call was changed")
            }
        };
    }
    match (answer.result(), answer.error()) {
        (Some(result), _) if result.len() <= TASK_ANSWER_BYTES_MAX => TaskAnswer::Result(result.to_owned()),
        (_, Some(error)) if error.len() <= TASK_ANSWER_BYTES_MAX => TaskAnswer::Error(error.to_owned()),
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
