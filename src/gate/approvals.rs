//! What an approval may say beyond yes: that it counts for further calls, and that the call runs with other arguments.
//!
//! A part of `gate`, asked before a verdict takes effect and when a call is about to be held. It allows what the rules of the
//! policy in force allow, to one person who could decide alone, and never crosses a `deny`. What is sent of an edited call is
//! what its approver has written, judged like any other call; the agent is told so with the server's answer.

use std::sync::Arc;

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};

use super::{Gate, ResolveError};
use crate::{
    hold::{
        Approval, Edit, HoldId, NewHold, Remembered, Remembering, Requirement, Said, Same, State, Verdict,
    },
    jsonrpc::{ErrorCode, Frame, FrameBytes, error_response, scan::Param},
    mcp::{self, call_sha256},
    policy::{Decision, Effect, People, Policy},
    principal::Principal,
    store::StoreError,
};

/// The longest arguments that an approver may write, in bytes.
pub const EDIT_BYTES_MAX: usize = 256 << 10;

/// The longest arguments that an agent is told its call ran with, in bytes; longer ones are in the record.
const TOLD_BYTES_MAX: usize = 2_000;

/// How long after its end a remembered approval is still listed.
const LISTED_AFTER: SignedDuration = SignedDuration::from_hours(24);

impl Gate {
    /// What an approval of `hold` at `at` brings with it, as `said`, if the rules allow it; and what the edited call needs
    /// besides. `decision` is what the policy in force says of the held call.
    pub(super) fn approval(
        &self,
        policy: &Policy,
        hold: &NewHold,
        said: &Said,
        at: Timestamp,
    ) -> Result<(Approval, Vec<Requirement>), ResolveError> {
        let (mut approval, mut needed) = (Approval::default(), Vec::new());
        if said.remember.is_none() && said.arguments.is_none() {
            return Ok((approval, needed));
        }
        if said.verdict != Verdict::Approve {
            return Err(ResolveError::NotEdited(
                "a rejection has nothing to remember and nothing to edit".into(),
            ));
        }
        if said.remember.is_some() && said.arguments.is_some() {
            let why = "the call is edited: what ran is not what will be asked for";
            return Err(ResolveError::NotRemembered(why));
        }
        if let Some((seconds, same)) = said.remember {
            approval.remember = Some(remembering(policy, hold, seconds, same, at)?);
        }
        if let Some(arguments) = &said.arguments {
            let (edit, decision) = edit(policy, hold, arguments)?;
            needed.extend(decision.terms.map_or_else(Vec::new, |terms| terms.requirements.clone()));
            approval.edit = Some(edit);
        }
        Ok((approval, needed))
    }

    /// The remembered approval that covers `hold`, a call that is about to be held. Nobody is asked about such a call.
    pub(super) async fn remembered_for(&self, hold: &NewHold) -> Option<HoldId> {
        hold.quorum.as_ref()?.remember?;
        let (server, tool, principal) = (&hold.server, &hold.tool, &hold.principal);
        let found = self.store.remembered_for(Arc::clone(server), Arc::clone(tool), Arc::clone(principal));
        let found = found.await.inspect_err(|error| {
            tracing::error!(%error, "remembered approvals cannot be read, so people are asked");
        });
        let (policy, now) = (self.policy(), Timestamp::now());
        // Answers to a server's question are no arguments that somebody has said may differ.
        let answers = has_answers(hold);
        let may = |one: &Remembered| {
            !(answers && one.same == Same::Tool)
                && may_still_approve(policy.people(), hold, one.person.as_deref())
        };
        let mut found = found.ok()?.into_iter();
        Some(found.find(|one| one.counts(now) && one.covers(hold) && may(one))?.of)
    }

    /// Approvals that count for further calls, and those that have ceased to within a day, the newest first.
    ///
    /// # Errors
    ///
    /// When the record cannot be read.
    pub async fn remembered(&self) -> Result<Vec<Remembered>, StoreError> {
        let now = Timestamp::now();
        self.store.remembered(now.checked_sub(LISTED_AFTER).unwrap_or(now)).await
    }

    /// Takes the remembered approval of the hold `of` back: from now on people are asked again.
    ///
    /// # Errors
    ///
    /// `NothingRemembered` if there is none that counts.
    pub async fn revoke(&self, of: HoldId, who: &Principal) -> Result<(), ResolveError> {
        self.not_the_client(of, who)?;
        if !matches!(who, Principal::User { .. }) {
            return Err(ResolveError::NotAllowed(who.clone()));
        }
        match self.store.revoke(of, who.to_string(), Arc::clone(self.instance())).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(ResolveError::NothingRemembered),
            Err(error) => Err(ResolveError::Unrecorded(error)),
        }
    }
}

/// For which further calls an approval of `hold` counts, if the rules allow that.
fn remembering(
    policy: &Policy,
    hold: &NewHold,
    seconds: u64,
    same: Same,
    at: Timestamp,
) -> Result<Remembering, ResolveError> {
    let refuse = |why| Err(ResolveError::NotRemembered(why));
    let allowed = hold.quorum.as_ref().and_then(|quorum| quorum.remember);
    let Some(allowed) = allowed else { return refuse("no rule that holds it says `remember`") };
    let decision = super::quorum::decide_now(policy, hold, None);
    let terms = decision.as_ref().and_then(|decision| Some(decision.terms.as_ref()?.digest(&decision.rules)));
    if hold.policy_sha256 != policy.digest() && (terms.is_none() || terms != hold.terms_sha256) {
        return refuse("the policy has changed since the call was held");
    }
    if same == Same::Tool && !allowed.whole_tool {
        return refuse("the rules allow it for the same arguments only");
    }
    if same == Same::Tool && hold.tool.is_empty() {
        return refuse("it is not a call of a tool");
    }
    if seconds == 0 || seconds > allowed.seconds_max {
        return refuse("the rules do not allow it for so long");
    }
    let until = i64::try_from(seconds)
        .ok()
        .and_then(|seconds| at.checked_add(SignedDuration::from_secs(seconds)).ok());
    let Some(until) = until else { return refuse("the rules do not allow it for so long") };
    Ok(Remembering { same, until, uses_max: allowed.uses_max })
}

/// Why a call of `tool`, if it is one of a tool, cannot be edited whatever is written.
pub fn never_edited(may_edit: bool, tool: &str) -> Option<ResolveError> {
    let why = match (may_edit, tool) {
        (false, _) => "no rule that holds it says `edit: true`",
        (true, "") => "it is not a call of a tool",
        (true, _) => return None,
    };
    Some(ResolveError::NotEdited(why.to_owned()))
}

/// `hold` with other arguments, and what the policy says of that call.
fn edit(policy: &Policy, hold: &NewHold, arguments: &str) -> Result<(Edit, Decision), ResolveError> {
    let refuse = |why: &str| ResolveError::NotEdited(why.to_owned());
    let may_edit = hold.quorum.as_ref().is_some_and(|quorum| quorum.may_edit);
    if let Some(error) = never_edited(may_edit, &hold.tool) {
        return Err(error);
    }
    if arguments.len() > EDIT_BYTES_MAX {
        return Err(ResolveError::BadEdit("they have more than 256 KiB".to_owned()));
    }
    let came = Frame::from_client(hold.frame.clone()).map_err(|_| refuse("its frame cannot be read"))?;
    let edited = came.with_arguments(arguments).map_err(|error| {
        ResolveError::BadEdit(format!(
            "they are not one JSON object that every server reads in one way ({error})"
        ))
    })?;
    if call_sha256(&edited).is_none() || call_sha256(&edited) == call_sha256(&came) {
        return Err(refuse("the arguments are the same as before; approve it as it is"));
    }
    let decision = super::quorum::decide_now(policy, hold, Some(&edited));
    let decision = decision.ok_or_else(|| refuse("it cannot be judged"))?;
    if decision.effect == Effect::Deny {
        return Err(ResolveError::NotEdited(format!(
            "the policy denies what you wrote: {}",
            decision.reason
        )));
    }
    Ok((Edit { frame_sha256: edited.sha256(), frame: edited.line() }, decision))
}

/// Whether a call brings the state back that a server gave out, or answers to what it has asked (MCP 2026-07-28).
fn has_answers(hold: &NewHold) -> bool {
    Frame::from_client(hold.frame.clone()).is_ok_and(|frame| {
        [Param::RequestState, Param::InputResponses].into_iter().any(|param| frame.param(param).is_some())
    })
}

/// Whether the human who has approved earlier could approve `hold` alone, now, by the policy in force. A person who has been
/// taken out of it approves nothing any more, and neither does whoever asks.
fn may_still_approve(people: &People, hold: &NewHold, person: Option<&str>) -> bool {
    let requirements = hold.quorum.as_ref().map_or(&[][..], |quorum| &quorum.requirements);
    if people.is_empty() {
        return requirements.is_empty();
    }
    let Some(person) = person.and_then(|name| people.named(name)) else { return false };
    let asks = people.owner(&hold.principal).is_some_and(|owner| owner.name == person.name);
    !asks && super::quorum::is_enough_alone(people, requirements, person, std::time::Duration::ZERO)
}

/// `bytes` with the arguments of `edit`: the call that was reviewed, in the frame of the request that waits for it. `None` if
/// that would be another call than the one that was reviewed.
pub(super) fn apply(bytes: FrameBytes, edit: &Edit) -> Option<Frame> {
    let reviewed = Frame::from_client(edit.frame.clone()).ok()?;
    let edited =
        Frame::from_client(bytes.into_body()).ok()?.with_arguments(reviewed.param(Param::Arguments)?).ok()?;
    // INVARIANT: what is sent does what was reviewed.
    (call_sha256(&edited)? == call_sha256(&reviewed)?).then_some(edited)
}

/// That a call ran with other arguments than the agent sent, for the agent.
#[derive(Debug)]
pub struct Edited {
    text: String,
    decision: String,
}

impl Edited {
    /// The approver of `hold` has made `edited` of it, and says `comment`.
    pub(super) fn new(hold: HoldId, edited: &Frame, comment: Option<&str>) -> Self {
        let arguments = edited.param(Param::Arguments).unwrap_or("{}");
        let shown = if arguments.len() <= TOLD_BYTES_MAX {
            format!("these: {arguments}")
        } else {
            format!("others ({} bytes, which the record has)", arguments.len())
        };
        let said = comment.map(|comment| format!(" The person says: {comment}")).unwrap_or_default();
        let text = format!(
            "EDITED by a person (hold {}): the call went to the server with other arguments than yours, namely \
             {shown}.{said} What follows is the answer to that call; tell the user.",
            hold.short()
        );
        Self { text, decision: format!("{{\"state\":\"edited\",\"hold\":\"{hold}\"}}") }
    }

    /// The server's `answer`, with the notice in it: one line.
    pub fn told_in(&self, answer: &Frame) -> Bytes {
        mcp::with_notice(answer, &self.text, &self.decision).unwrap_or_else(|| {
            let text = format!("{} (The answer has no place to say so, and was left out.)", self.text);
            error_response(answer.id(), ErrorCode::INTERNAL_ERROR, &text, Some(&self.decision))
        })
    }
}

/// The state in which an edited call is refused that does not fit the request that waits for it.
pub(super) const DOES_NOT_FIT: (State, &str) =
    (State::Withdrawn, "the arguments that the approver wrote do not fit the request that was made again");
