//! Approved calls that a server answers with a question: the same call, made again with the answer, goes on with its approval.
//!
//! A part of `gate` (MCP 2026-07-28, "Multi Round-Trip Requests"). A continuation is a hold of its own on record, approved by the one
//! before it; nobody is asked again, unless the rules or the tool have become others. It counts once, for the state that the server gave
//! out, and only for the same tool with the same arguments: anything else is a new call. What is known here is lost with the process,
//! and people are asked then.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use tokio::time::Instant;

use super::{Gate, HeldCall, Released};
use crate::{
    digest::Digest,
    hold::{HoldId, NewHold, Verdict, Vote},
    jsonrpc::{
        Frame,
        scan::{Param, unescape},
    },
    mcp::{self, Era, call_without_answers_sha256},
};

/// Approved calls, and questions about them, that are remembered at the same time; of more, people are asked again.
const REMEMBERED_MAX: usize = 100_000;

/// What an approved call was approved as.
struct Approved {
    server: Arc<str>,
    principal: Arc<str>,
    /// The digest of what it does, without state and answers.
    call: Digest,
    terms: Option<Digest>,
    tool: Option<Digest>,
}

/// A question of a server, about a call approved as `hold`.
struct Question {
    hold: HoldId,
    terms: Option<Digest>,
    tool: Option<Digest>,
    until: Instant,
}

/// What may be asked, and what was.
#[derive(Default)]
pub(super) struct Continuations(Mutex<Known>);

#[derive(Default)]
struct Known {
    /// Calls that are with their server.
    sent: HashMap<HoldId, Approved>,
    /// By call, caller, server and state.
    questions: HashMap<Digest, Question>,
}

impl Continuations {
    fn known(&self) -> MutexGuard<'_, Known> {
        // No code panics while it holds this; should one, the maps themselves are whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The call of `hold` is about to be sent as it was made.
    pub(super) fn begins(&self, hold: &NewHold, era: Era) {
        if era != Era::Modern {
            return;
        }
        let Ok(frame) = Frame::from_client(hold.frame.clone()) else { return };
        let Some(call) = call_without_answers_sha256(&frame) else { return };
        let approved = Approved {
            server: Arc::clone(&hold.server),
            principal: Arc::clone(&hold.principal),
            call,
            terms: hold.terms_sha256,
            tool: hold.tool_sha256,
        };
        let mut known = self.known();
        if known.sent.len() < REMEMBERED_MAX {
            known.sent.insert(hold.id, approved);
        }
    }

    /// It is not with its server any more.
    pub(super) fn ended(&self, hold: HoldId) {
        self.known().sent.remove(&hold);
    }

    fn asked(&self, hold: HoldId, state: Option<&str>, until: Instant) {
        let mut known = self.known();
        let Some(approved) = known.sent.remove(&hold) else { return };
        if known.questions.len() >= REMEMBERED_MAX {
            let now = Instant::now();
            known.questions.retain(|_, question| question.until > now);
        }
        if known.questions.len() < REMEMBERED_MAX {
            let key = key(&approved.server, &approved.principal, approved.call, state);
            let question = Question { hold, terms: approved.terms, tool: approved.tool, until };
            known.questions.insert(key, question);
        }
    }

    /// The approval that `hold` goes on with, which is used up by that.
    fn take(&self, hold: &NewHold) -> Option<HoldId> {
        let frame = Frame::from_client(hold.frame.clone()).ok()?;
        let state = frame.param(Param::RequestState).map(unescape);
        if state.is_none() && frame.param(Param::InputResponses).is_none() {
            // No answer to anything: it is a call of its own.
            return None;
        }
        let call = call_without_answers_sha256(&frame)?;
        let question =
            self.known().questions.remove(&key(&hold.server, &hold.principal, call, state.as_deref()))?;
        let is_same_tool = match (question.tool, hold.tool_sha256) {
            (Some(then), Some(now)) => then == now,
            // Where the server has not told its tools, there is nothing to compare.
            _ => true,
        };
        let counts = question.until > Instant::now() && question.terms == hold.terms_sha256 && is_same_tool;
        counts.then_some(question.hold)
    }
}

/// A question is known by the call, who made it, who was asked, and the state that comes back.
fn key(server: &str, principal: &str, call: Digest, state: Option<&str>) -> Digest {
    let lengths = [server.len(), principal.len(), state.map_or(usize::MAX, str::len)].map(usize::to_be_bytes);
    Digest::of_parts(&[
        lengths.as_flattened(),
        server.as_bytes(),
        principal.as_bytes(),
        &call.0,
        state.unwrap_or_default().as_bytes(),
    ])
}

impl Gate {
    /// The server has answered the approved call of `hold` with `answer`. If that is a question, the same call made again with the
    /// answer goes on with the approval. To be told before the client can know the question.
    pub fn asked_back(&self, hold: HoldId, answer: &Frame) {
        if let Some(state) = answer.result().and_then(mcp::input_required) {
            self.asked_with(hold, state.as_deref());
        }
    }

    /// The same of an answer that is kept: `state` is the raw token of its state.
    pub(super) fn continues(&self, hold: HoldId, state: Option<&str>) {
        self.asked_with(hold, state.map(unescape).as_deref());
    }

    fn asked_with(&self, hold: HoldId, state: Option<&str>) {
        let until = Instant::now() + Duration::from_secs(self.grant_seconds.into());
        self.continuations.asked(hold, state, until);
    }

    /// Lets a call that is on record as held go on if it continues one that was approved. On record as such.
    pub(super) async fn continued(&self, held: &HeldCall) -> Option<Released> {
        if held.refused.era != Era::Modern {
            return None;
        }
        let before = self.continuations.take(&held.hold)?;
        let by = format!("continuation of {}", before.short());
        let why = "the server has asked something, and this is the same call with the answer";
        let vote = Vote::new(Verdict::Approve, by, Some(why.to_owned()), Timestamp::now());
        self.goes_on(held, vote).await
    }
}
