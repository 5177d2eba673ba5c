//! What people say: the one door for verdicts, with or without a caller, and what they find out about unknown calls.
//!
//! A part of `gate`. A verdict on a call whose caller is here goes to the task that keeps it; on one without a caller it is
//! put on record, where the same call finds it when it is made again.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio::sync::oneshot;

use super::{Gate, owed::Owed, quorum::Weighed};
use crate::{
    audit::{AuditEvent, Occasion},
    hold::{
        Approval, Assurance, BadProof, HoldId, HoldRecord, NewHold, Place, Proof, Said, State, Verdict, Vote,
        Withdrawal, kept_comment,
    },
    hold_table::Claim,
    jsonrpc::Frame,
    mcp::call_sha256,
    principal::Principal,
    store::{Listed, ROWS_READ_MAX, StoreError},
};

/// Why a verdict has no effect.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ResolveError {
    /// No such hold waits here, and the record does not know it either.
    #[error("no hold has this id")]
    NotFound,
    /// Somebody or something was faster.
    #[error("{}", .0.state.too_late())]
    Ended(Box<HoldRecord>),
    /// There is no remembered approval of this hold that counts.
    #[error("no approval of this hold is remembered: none was, or it was taken back, or it is over")]
    NothingRemembered,
    /// The process that has the caller says so.
    #[error("{text}")]
    There {
        /// Whether it is what was said that cannot be used, and not who has said it.
        is_invalid: bool,
        /// Why.
        text: String,
    },
    /// The process that has the caller does not answer.
    #[error(
        "the gate that has the caller of this hold does not answer: look at the hold before you try again"
    )]
    Silent,
    /// Its caller is at another process, which alone can let the call go on.
    #[error("the caller of this hold is at another gate: decide there")]
    Elsewhere,
    /// This principal may not decide.
    #[error("{0} may not decide on this hold")]
    NotAllowed(Principal),
    /// The call is one's own, or one's agent's.
    #[error("whoever asked for a call, or owns the agent that did, cannot approve it")]
    OwnCall,
    /// The client itself, or a process that it has started.
    #[error(
        "this comes from a process that the agent's client has started (or that cannot be seen from here), and whoever asks does not \
         decide: use a terminal of your own; if that is one inside of the client, see `--danger-client-decides` in `holdshort run --help`"
    )]
    AskedByClient,
    /// The rules ask for people, and the policy does not say who they are.
    #[error("the policy asks for certain people and names none: nobody can approve this")]
    NobodyMay,
    /// The rules want a signature.
    #[error("{}", not_signed(*.signed, *.needed))]
    NotSigned {
        /// Whether every approval has to be signed.
        signed: bool,
        /// How far it has to be trusted.
        needed: Assurance,
    },
    /// It was signed, and its signature does not count.
    #[error("this signature does not count: {0}")]
    BadSignature(#[from] BadProof),
    /// The same human has said the same before.
    #[error("you have voted already: one human has one vote, whatever the channel")]
    VotedBefore,
    /// The approval may not count for further calls.
    #[error("this approval cannot be remembered: {0}")]
    NotRemembered(&'static str),
    /// The call may not be edited, or not so.
    #[error("this call cannot be edited: {0}")]
    NotEdited(String),
    /// What was written are no arguments.
    #[error("these arguments cannot be used: {0}")]
    BadEdit(String),
    /// An approval that says more than yes has to be enough alone.
    #[error(
        "more people have to approve this call, so one of them can neither edit it nor have it remembered"
    )]
    NotAlone,
    /// Something else was shown than what is held.
    #[error("what was shown is not what is held: look at the call again, and decide on that")]
    NotWhatWasShown,
    /// The server has changed the tool while the call waited, and whoever decides has not been shown that.
    #[error(
        "the server has changed the definition of this tool since the call was held: reject it; made again, the call is \
         held with the change"
    )]
    ToolChanged,
    /// The policy has changed, and denies the call now.
    #[error("the policy has changed and denies this call now: {0}")]
    DeniedNow(String),
    /// A rejection without a reason: the agent could not learn from it.
    #[error("a rejection needs a reason")]
    NoReason,
    /// The verdict could not be made durable, so the call was refused.
    #[error("the verdict could not be recorded, so the call was refused: {0}")]
    Unrecorded(#[source] StoreError),
}

/// What an approver is told whose word is not enough.
fn not_signed(signed: bool, needed: Assurance) -> String {
    let how = match (signed, needed) {
        (_, Assurance::L1) => "be signed with a security key",
        (true, _) => "be signed",
        (false, Assurance::L2) => "be decided at a gate that the agent cannot reach",
        (false, _) => "be signed, and decided at a gate that the agent cannot reach",
    };
    let level = if needed > Assurance::L0 {
        format!(" (at least {needed}, {})", needed.name())
    } else {
        String::new()
    };
    format!("the rules want this call to {how}{level}: holdshort approve ID --sign KEY")
}

/// How long a verdict waits for a hold that gets or loses its caller just now.
const HANDOVER: Duration = Duration::from_secs(1);

/// How often a verdict looks where a hold is now.
const LOOKS_MAX: u32 = 4;

impl Gate {
    /// The one door for verdicts, whatever the channel. An approval may say more than yes ([`Said`]), where the rules let it.
    ///
    /// # Errors
    ///
    /// See [`ResolveError`]; after any of them this verdict has had no effect.
    pub async fn resolve(
        &self,
        id: HoldId,
        said: impl Into<Said>,
        approver: &Principal,
        comment: Option<&str>,
    ) -> Result<State, ResolveError> {
        let said = said.into();
        self.not_the_client(id, approver)?;
        match self.resolve_there(id, &said, approver, comment).await {
            Some(resolved) => resolved,
            None => self.resolve_here(id, said, approver, comment).await,
        }
    }

    /// The same, where no other process has the caller.
    pub(super) async fn resolve_here(
        &self,
        id: HoldId,
        said: Said,
        approver: &Principal,
        comment: Option<&str>,
    ) -> Result<State, ResolveError> {
        let verdict = said.verdict;
        let signer = said.proof.as_ref().map(signer).transpose()?;
        let approver = signer.as_ref().unwrap_or(approver);
        let comment = person(approver, comment)?;
        if verdict == Verdict::Reject && comment.is_none() {
            return Err(ResolveError::NoReason);
        }
        let vote = Vote::new(verdict, approver.to_string(), comment, Timestamp::now());
        let Weighed { vote, approval, is_enough, grant } = self.weigh(id, vote, approver, &said).await?;
        if !is_enough {
            return Ok(State::Held);
        }
        let lapses_at = vote.at.checked_add(grant).unwrap_or(vote.at);
        for _ in 0..LOOKS_MAX {
            // Listened to before it is looked, so that nothing is missed in between.
            let moved = self.moved.notified();
            if let Some(claim) = self.table.claim_recorded(id) {
                return self.hand_over(id, claim, vote, approval).await;
            }
            if self.table.is_being_recorded(id) {
                return Err(ResolveError::NotFound);
            }
            match self.store.decide(id, vote.clone(), approval.clone(), lapses_at).await {
                Ok(state) => {
                    self.moved.notify_waiters();
                    self.announce_now(id, state, Some(vote)).await;
                    return Ok(state);
                }
                Err(StoreError::Attached { .. }) if self.table.ended(id).is_some() => {
                    return Err(self.why_not_there(id).await);
                }
                Err(StoreError::Attached { holder }) if *holder == *self.instance => {
                    let _ = tokio::time::timeout(HANDOVER, moved).await;
                }
                Err(StoreError::Attached { holder }) if self.is_dead(&holder).await => {
                    self.store.recover(&holder).await.map_err(ResolveError::Unrecorded)?;
                }
                Err(StoreError::Attached { .. }) => return Err(ResolveError::Elsewhere),
                Err(StoreError::NoSuchHold(_) | StoreError::NotHeld { .. }) => {
                    return Err(self.why_not_there(id).await);
                }
                Err(error) => return Err(ResolveError::Unrecorded(error)),
            }
        }
        Err(self.why_not_there(id).await)
    }

    /// Gives `vote` to the task that keeps the hold, and waits for what becomes of it.
    async fn hand_over(
        &self,
        id: HoldId,
        claim: oneshot::Sender<Claim<super::Answer>>,
        vote: Vote,
        approval: Approval,
    ) -> Result<State, ResolveError> {
        let (answer, answered) = oneshot::channel();
        if claim.send(Claim::Verdict { vote: Box::new((vote, approval)), answer }).is_err() {
            return Err(self.why_not_there(id).await);
        }
        match answered.await {
            Ok(Ok(State::Expired)) => Err(self.why_not_there(id).await),
            Ok(Ok(state)) => Ok(state),
            Ok(Err(error)) => Err(ResolveError::Unrecorded(error)),
            Err(_) => Err(self.why_not_there(id).await),
        }
    }

    /// A person has found out what became of a call that was sent and never answered.
    ///
    /// # Errors
    ///
    /// See [`ResolveError`]; `Ended` also for a hold of which it is known.
    pub async fn resolve_unknown(
        &self,
        id: HoldId,
        has_run: bool,
        approver: &Principal,
        comment: Option<&str>,
    ) -> Result<State, ResolveError> {
        self.not_the_client(id, approver)?;
        let comment = person(approver, comment)?;
        if let Principal::Channel { identity } = approver
            && self.policy().people().behind(identity).is_none()
        {
            return Err(ResolveError::NotAllowed(approver.clone()));
        }
        let (state, found) = if has_run { (State::Ran, "it ran") } else { (State::NotRun, "it did not run") };
        let comment = comment.map(|comment| format!(": {comment}")).unwrap_or_default();
        let note = format!("{approver} found out that {found}{comment}");
        match self.store.end(id, state, Vec::new(), Some(note)).await {
            Ok(()) => Ok(state),
            Err(StoreError::NoSuchHold(_) | StoreError::NotHeld { .. }) => Err(self.why_not_there(id).await),
            Err(error) => Err(ResolveError::Unrecorded(error)),
        }
    }

    /// Whoever made the call `id` has gone, and now takes it back: unless the same call was made again since, or ran, it is
    /// over.
    pub async fn take_back(&self, id: HoldId, why: Withdrawal) {
        // The record does not know yet that it has no caller: what is owed comes first.
        let is_behind = self.owed.is_of(id);
        match self.record_taken_back(id, why).await {
            Ok(false) if is_behind => self.owed.put(Owed::TakeBack { id, why }),
            Ok(_) => {}
            Err(error) => {
                tracing::error!(hold = %id, %error, "a withdrawal could not be recorded");
                self.owe(Owed::TakeBack { id, why }, &error);
            }
        }
    }

    /// Puts on record that the call `id` was taken back, and tells whoever watches. Gives whether it was there to be taken back.
    pub(super) async fn record_taken_back(&self, id: HoldId, why: Withdrawal) -> Result<bool, StoreError> {
        let is_taken_back = self.store.take_back(id, why.note()).await?;
        if is_taken_back {
            tracing::info!(hold = %id, why = why.note(), "hold withdrawn");
            self.announce_now(id, State::Withdrawn, None).await;
        }
        Ok(is_taken_back)
    }

    /// Refuses the client, whatever it has got somebody to sign, and puts on record that it has tried.
    pub(super) fn not_the_client(&self, id: HoldId, approver: &Principal) -> Result<(), ResolveError> {
        let Principal::Client { .. } = approver else { return Ok(()) };
        tracing::warn!(hold = %id, %approver, "a process that the client has started tried to decide, and was refused");
        self.store.ride_along(AuditEvent {
            hold: Some(id),
            who: Some(approver.to_string()),
            note: Some("a process that the client has started tried to decide".to_owned()),
            ..AuditEvent::new(Occasion::VerdictRefused, self.instance(), Timestamp::now())
        });
        Err(ResolveError::AskedByClient)
    }

    /// The hold `id` as people are shown it: the call in the bytes in which it was made first, which stay the same when it is made again.
    /// What waits here is known here, whatever the record says: of another call than that, nobody is shown anything.
    ///
    /// # Errors
    ///
    /// When the record cannot be read.
    pub async fn as_shown(&self, id: HoldId) -> Result<Option<HoldRecord>, StoreError> {
        let Some(mut record) = self.recorded(id).await? else { return Ok(None) };
        if let Some(here) = self.table.get(id) {
            let NewHold { frame, frame_sha256, .. } =
                std::mem::replace(&mut record.hold, NewHold::clone(&here));
            let first = Frame::from_client(frame.clone()).ok();
            if first.is_some_and(|first| call_sha256(&first) == here.call_sha256) {
                (record.hold.frame, record.hold.frame_sha256) = (frame, frame_sha256);
            }
        }
        Ok(Some(record))
    }

    async fn announce_now(&self, id: HoldId, state: State, vote: Option<Vote>) {
        match self.store.hold(id).await {
            Ok(Some(record)) => self.came_to(Arc::new(record.hold), state, vote),
            _ => tracing::warn!(hold = %id, "the end of a hold was recorded, and nobody could be told"),
        }
    }

    /// The hold `id` as it is on record, or as it has ended here if that is not on record yet.
    ///
    /// # Errors
    ///
    /// When the record cannot be read.
    pub async fn recorded(&self, id: HoldId) -> Result<Option<HoldRecord>, StoreError> {
        let found = self.store.hold(id).await?;
        Ok(found.map(|record| match self.table.ended(id) {
            Some(state) if record.state == State::Held => HoldRecord { state, holder: None, ..record },
            _ => record,
        }))
    }

    async fn why_not_there(&self, id: HoldId) -> ResolveError {
        match self.recorded(id).await {
            Ok(Some(record)) => ResolveError::Ended(Box::new(record)),
            Ok(None) => ResolveError::NotFound,
            Err(error) => ResolveError::Unrecorded(error),
        }
    }

    /// Takes over what processes have left that are known to be dead: gives how many holds lost their caller, and of how many
    /// calls nobody knows whether they ran.
    ///
    /// # Errors
    ///
    /// When the record cannot be read or written.
    pub async fn take_over_dead(&self) -> Result<(usize, usize), StoreError> {
        let mut taken = (0, 0);
        for holder in self.store.holders().await? {
            if *holder != *self.instance && self.is_dead(&holder).await {
                let recovered = self.store.recover(&holder).await?;
                taken.0 += recovered.detached.len();
                taken.1 += recovered.unknown.len();
            }
        }
        Ok(taken)
    }

    /// Holds without a caller, and in a fleet those whose caller is at another process too, of all processes on the record: those that can be decided, grants, and calls of which nobody
    /// knows whether they ran; the oldest first.
    ///
    /// # Errors
    ///
    /// When the record cannot be read.
    pub async fn detached(&self) -> Result<Vec<Listed>, StoreError> {
        self.detached_after(None, ROWS_READ_MAX).await
    }

    /// Those behind the place `after`, at most `limit`: if there are fewer, there are no more.
    ///
    /// # Errors
    ///
    /// When the record cannot be read.
    pub async fn detached_after(
        &self,
        after: Option<Place>,
        limit: usize,
    ) -> Result<Vec<Listed>, StoreError> {
        self.store.sweep().await?;
        if self.store.heard().is_none() {
            return self.store.detached_holds(after, limit).await;
        }
        // Whoever has the caller can be asked from here.
        let (mut found, mut after) = (Vec::new(), after);
        loop {
            let wanted = limit - found.len();
            let page = self.store.decidable_holds(after, wanted).await?;
            let is_last = page.len() < wanted;
            after = page.last().map(|last| last.record.hold.place()).or(after);
            found.extend(page.into_iter().filter(|listed| self.table.ended(listed.record.hold.id).is_none()));
            if is_last || found.len() >= limit {
                return Ok(found);
            }
        }
    }
}

/// Whoever has signed.
fn signer(proof: &Proof) -> Result<Principal, BadProof> {
    let (_, key) = proof.verified()?;
    Ok(Principal::Key { fingerprint: key.fingerprint() })
}

/// The comment of a person, as it is kept. Nobody else may say anything.
fn person(approver: &Principal, comment: Option<&str>) -> Result<Option<String>, ResolveError> {
    let is_person = matches!(
        approver,
        Principal::User { .. }
            | Principal::Channel { .. }
            | Principal::Key { .. }
            | Principal::Elicited { .. }
    );
    if !is_person {
        return Err(ResolveError::NotAllowed(approver.clone()));
    }
    Ok(kept_comment(comment))
}
