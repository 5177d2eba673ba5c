//! The life of a held call while it has a caller: recorded, announced, waited for, and how that ends.
//!
//! A part of `gate`. Whoever removes a hold from the table owns its end; here that end is written down, and only then takes
//! effect. A call that was made before takes the place of the earlier one here, or redeems what was decided about it.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio::{
    sync::oneshot,
    time::{Instant, timeout_at},
};

use super::{
    Answer, Approved, Edited, Gate, HeldCall, News, Permitted, Released, Unrecorded, approvals,
    owed::{Gone, Owed},
    proof::NOT_PROVEN,
    refusal::Refused,
    rounds::Rounds,
    spans::HoldSpan,
};
use crate::{
    audit::{AuditEvent, Occasion},
    faults::fail_point,
    hold::{Absence, Approval, Cause, Edit, HoldId, HoldRecord, NewHold, State, Verdict, Vote, Withdrawal},
    hold_table::{Again, Claim, Suspended},
    jsonrpc::{Frame, FrameBytes},
    mcp::call_sha256,
    meter::Ended,
    policy::Overridden,
    store::{Arrived, WITHOUT_CALLER_MAX},
};

/// How long a call that was made again waits for the earlier one to get or lose its caller, where that is under way.
const HANDOVER: Duration = Duration::from_secs(1);

/// How often it is looked anew what a call that was made again finds, before it becomes a hold of its own.
const LOOKS_MAX: u32 = 8;

/// Why a call does not run whose bytes are not what was shown.
const CHANGED_IN_MEMORY: &str = "the held bytes have changed in memory";

/// Why a call cannot be held.
const RECORD_LOST: &str = "its record could not be written";

/// Why a call is not held whose principal has left too many behind.
fn too_many() -> String {
    format!(
        "{WITHOUT_CALLER_MAX} calls of this agent wait already, or were never answered, and nobody waits for them: that is the limit"
    )
}

/// Why a call does not run that was decided.
const VERDICT_LOST: &str = "the verdict could not be recorded";

impl Gate {
    /// Keeps a held call until it ends: record ▸ announce ▸ wait ▸ claim. Run it in a task of its own.
    ///
    /// Nobody is asked before the record is durable, and no end takes effect before it is.
    pub fn hold(&self, held: Box<HeldCall>) -> impl Future<Output = Released> + Send {
        let span = held.span.clone();
        // What is done before and after the wait has memory of its own: the wait itself should keep as little as it can.
        let recording = Box::pin(self.record_asking(held));
        async move {
            let recorded = recording.await;
            let released = match recorded {
                Ok(held) => self.wait(held).await,
                Err(released) => *released,
            };
            if let Some(span) = span {
                span.ended(&released);
            }
            released
        }
    }

    /// [`Gate::record`], and then the client's user is asked, if that is wanted. From then on nobody listens for a question.
    async fn record_asking(&self, held: Box<HeldCall>) -> Result<Box<HeldCall>, Box<Released>> {
        let mut held = self.record(held).await?;
        if let (Some(ask), Some(question)) = (held.ask.take(), held.question()) {
            let _ = ask.send(question);
        }
        Ok(held)
    }

    /// Puts a held call on record and announces it; then [`Gate::wait`] for it.
    ///
    /// # Errors
    ///
    /// What becomes of it at once: it is refused, or has been decided already.
    pub async fn record(&self, mut held: Box<HeldCall>) -> Result<Box<HeldCall>, Box<Released>> {
        if held.is_changed {
            let mut notes = held.hold.notes.clone();
            notes.extend(self.change_of_tool(&held.hold).await);
            held.hold = Arc::new(NewHold { notes, ..NewHold::clone(&held.hold) });
        }
        if let Some(back) = held.back.take()
            && let Err(refusal) = self.comes_back(&mut held, *back).await
        {
            return Err(Box::new(self.unless_taken_back(&held, refusal)));
        }
        let mut is_own = false;
        let remembered = self.remembered_for(&held.hold).await;
        for _ in 0..LOOKS_MAX {
            // Listened to before it is looked, so that nothing is missed in between.
            let moved = self.moved.notified();
            fail_point!("hold.before_record");
            let arrived = match self.store.arrive(NewHold::clone(&held.hold), is_own, remembered).await {
                Ok(arrived) => arrived,
                Err(error) => {
                    tracing::error!(hold = %held.hold.id, %error, "a call could not be held, so it was refused");
                    if error.leaves_doubt() {
                        let (state, note) = (State::Unavailable, Some(RECORD_LOST));
                        self.owe(Owed::End { id: held.hold.id, state, note }, &error);
                    }
                    return Err(Box::new(self.unavailable(*held, RECORD_LOST)));
                }
            };
            fail_point!("hold.after_record");
            match arrived {
                Arrived::Held { notes } => {
                    if notes.len() != held.hold.notes.len() {
                        held.hold = Arc::new(NewHold { notes, ..NewHold::clone(&held.hold) });
                    }
                    let released = match self.overridden(&held).await {
                        None => self.continued(&held).await,
                        released => released,
                    };
                    return match released {
                        Some(released) => Err(Box::new(released)),
                        None => {
                            self.waits(&mut held, true);
                            Ok(held)
                        }
                    };
                }
                Arrived::Attached(record) => {
                    held.take_the_place_of(&record);
                    let overridden = self.overridden(&held).await;
                    if overridden.is_none() {
                        self.waits(&mut held, false);
                    }
                    self.moved.notify_waiters();
                    return overridden.map_or(Ok(held), |released| Err(Box::new(released)));
                }
                Arrived::Redeemed(record) => return Err(Box::new(self.redeemed(*held, &record).await)),
                Arrived::Rejected(record) => return Err(Box::new(self.rejected_before(*held, &record))),
                Arrived::Unknown(record) => {
                    let refused = held.refused.clone();
                    let refusal = refused.unknown(record.hold.id);
                    return Err(Box::new(self.unless_taken_back(&held, refusal)));
                }
                Arrived::TooMany => {
                    let text = too_many();
                    self.note_of(&held.hold, &text);
                    return Err(Box::new(self.unavailable(*held, &text)));
                }
                Arrived::Waits { ids, holder } => {
                    is_own = !self.takes_over(&held, &ids, &holder, moved).await;
                }
            }
        }
        Err(Box::new(self.unavailable(*held, "the same call is being made again and again")))
    }

    /// Puts into the record that `hold` was refused before it became one.
    fn note_of(&self, hold: &NewHold, note: &str) {
        self.store.ride_along(AuditEvent {
            who: Some(hold.principal.to_string()),
            server: Some(hold.server.to_string()),
            tool: (!hold.tool.is_empty()).then(|| hold.tool.to_string()),
            agent: (!hold.agent.is_empty()).then(|| hold.agent.to_string()),
            policy_sha256: Some(hold.policy_sha256),
            note: Some(note.to_owned()),
            ..AuditEvent::new(Occasion::Refused, &self.instance, Timestamp::now())
        });
    }

    /// The same call waits with a caller at `holder`. `false` if that one is to be left alone.
    async fn takes_over(
        &self,
        held: &HeldCall,
        ids: &[HoldId],
        holder: &str,
        moved: impl Future<Output = ()>,
    ) -> bool {
        if holder != &*self.instance {
            return self.is_dead(holder).await && self.store.recover(holder).await.is_ok();
        }
        let mut is_moving = false;
        for id in ids {
            match self.table.claim_again(*id, held.session) {
                // The client has given up the earlier request without a word, or it does not know that it made it.
                Again::Same(claim) => {
                    let why = Absence::MadeAgain;
                    let _ = claim.send(Claim::Absent(why));
                    let detached = self.store.detach(*id, Arc::clone(&self.instance), why.note()).await;
                    self.moved.notify_waiters();
                    return detached.is_ok();
                }
                Again::Another => {}
                // It is getting or losing its caller just now.
                Again::Absent => is_moving = true,
            }
        }
        is_moving && tokio::time::timeout(HANDOVER, moved).await.is_ok()
    }

    /// From here on the call can be decided.
    fn waits(&self, held: &mut HeldCall, is_new: bool) {
        let is_there = self.table.recorded(held.suspended.ticket(), &held.hold);
        held.is_announced = is_there || !is_new;
        self.asks_at_once(held);
        // Otherwise, whatever has taken it out of the table already is on its way to the task that waits.
        if !is_new {
            self.reminders.made_again(&held.hold);
        } else if is_there {
            self.reminders.add(&held.hold, held.deadline);
            self.count_burst(&held.hold);
            fail_point!("hold.before_announce");
            self.announce(News::Held(Arc::clone(&held.hold)));
        }
    }

    /// The call goes on because of what was decided about `record` before.
    pub(super) async fn redeemed(&self, held: HeldCall, record: &HoldRecord) -> Released {
        let id = record.hold.id;
        let hold = Arc::new(held.as_retry_of(record));
        if self.table.claim(held.suspended.ticket()).is_none() {
            // Taken back while the grant was being redeemed: it is on record as forwarding, and was not sent.
            let why = Withdrawal::Cancelled;
            let end = Unrecorded { hold, why: Gone::Withdrawn(why) };
            return Released::Withdrawn { refusal: held.refused.withdrawn(id, why), end };
        }
        let vote = record.votes.last().cloned();
        held.has_decided(vote.as_ref());
        let now = held.hold.quorum.as_deref();
        let wants_proof = self.wants_proof(&hold, now);
        let is_proven = self.is_proven(&hold, now, &record.votes, held.hold.call_sha256);
        if wants_proof && (record.edit.is_some() || !is_proven) {
            self.ended_upstream(id, State::Withdrawn, Some(NOT_PROVEN.to_owned())).await;
            return Released::Refuse(held.refused.ended(id, Cause::Unavailable, NOT_PROVEN));
        }
        let (bytes, edited) = match &record.edit {
            None => (held.bytes, None),
            Some(edit) => match approvals::apply(held.bytes, edit) {
                Some(frame) => {
                    let comment = vote.as_ref().and_then(|vote| vote.comment.as_deref());
                    let edited = Edited::new(id, &frame, comment);
                    (frame.into_bytes(), Some(Arc::new(edited)))
                }
                None => {
                    let (state, why) = approvals::DOES_NOT_FIT;
                    self.ended_upstream(id, state, Some(why.to_owned())).await;
                    return Released::Refuse(held.refused.ended(id, Cause::Unavailable, why));
                }
            },
        };
        if edited.is_none() && !wants_proof {
            self.continuations.begins(&hold, held.refused.era);
        }
        self.announce(News::Now { hold, state: State::Forwarding, vote });
        let permitted = Permitted::approved(bytes, id);
        Released::Resume(Box::new(Approved { permitted, hold: id, refused: held.refused, edited }))
    }

    /// Lets a call that is on record as held go on if whoever writes the policy wants that. On record as such: the approval
    /// is an override's.
    async fn overridden(&self, held: &HeldCall) -> Option<Released> {
        let now = Timestamp::now();
        let policy = self.policy();
        let mut current = policy.overrides().iter().filter(|one| one.until > now);
        let found = loop {
            let one = current.next()?;
            if self.is_overridden(held, one.of).await {
                let asks = held.hold.quorum.as_ref().is_some_and(|quorum| !quorum.requirements.is_empty());
                if !asks || one.skips_approvals {
                    break one;
                }
                tracing::warn!(
                    hold = %held.hold.id,
                    "an override does not count for a call for which the rules ask for certain people"
                );
            }
        };
        let by = format!("policy override until {}", found.until);
        let vote = Vote::new(Verdict::Approve, by, Some(found.reason.clone()), now);
        self.goes_on(held, vote).await
    }

    /// Lets a call that is on record as held go on with `vote`, which no person gave just now. None: it was taken back meanwhile, which
    /// the task that waits finds out.
    pub(super) async fn goes_on(&self, held: &HeldCall, vote: Vote) -> Option<Released> {
        self.table.claim(held.suspended.ticket())?;
        let id = held.hold.id;
        let refused = held.refused.clone();
        let holder = Arc::clone(&self.instance);
        if let Err(error) = self.store.approve(id, vote.clone(), Approval::default(), holder).await {
            tracing::error!(hold = %id, %error, "an approval could not be recorded, so the call was refused");
            self.is_unavailable(Arc::clone(&held.hold), VERDICT_LOST, &error);
            return Some(Released::Refuse(refused.ended(id, Cause::Unavailable, VERDICT_LOST)));
        }
        let hold = Arc::clone(&held.hold);
        held.has_decided(Some(&vote));
        self.continuations.begins(&hold, refused.era);
        self.meter().ended(&hold.server, Ended::Approved, None);
        self.announce(News::Now { hold, state: State::Forwarding, vote: Some(vote) });
        let permitted = Permitted::approved(held.bytes.clone(), id);
        Some(Released::Resume(Box::new(Approved { permitted, hold: id, refused, edited: None })))
    }

    async fn is_overridden(&self, held: &HeldCall, of: Overridden) -> bool {
        let hold = &held.hold;
        match of {
            // It was written for the tool as it was.
            Overridden::Call(call) => hold.call_sha256 == Some(call) && !held.is_changed,
            Overridden::Hold(id) if id == hold.id => true,
            // A hold that has ended: it names the call.
            Overridden::Hold(id) => self.store.hold(id).await.ok().flatten().is_some_and(|named| {
                let named = named.hold;
                named.call_sha256.is_some()
                    && named.call_sha256 == hold.call_sha256
                    && named.server == hold.server
                    && named.principal == hold.principal
                    && (!held.is_changed || named.tool_sha256 == hold.tool_sha256)
            }),
        }
    }

    fn rejected_before(&self, held: HeldCall, record: &HoldRecord) -> Released {
        let reason = record.votes.iter().rev().find(|vote| vote.verdict == Verdict::Reject);
        held.has_decided(reason);
        let reason = reason.and_then(|vote| vote.comment.clone()).unwrap_or_default();
        let refusal = held.refused.clone().ended(record.hold.id, Cause::Rejected, &reason);
        self.unless_taken_back(&held, refusal)
    }

    /// `refusal`, or silence if the client has taken its call back meanwhile.
    pub(super) fn unless_taken_back(&self, held: &HeldCall, refusal: super::Refusal) -> Released {
        match self.table.claim(held.suspended.ticket()) {
            Some(_) => Released::Refuse(refusal),
            None => Released::Refuse(held.refused.clone().withdrawn(held.hold.id, Withdrawal::Cancelled)),
        }
    }

    /// Waits for people until a held and recorded call is decided, expires, is taken back, or the client's patience ends.
    pub fn wait(&self, held: Box<HeldCall>) -> impl Future<Output = Released> + Send {
        let HeldCall {
            bytes, hold, refused, rounds, deadline, answer_by, is_announced, span, suspended, ..
        } = *held;
        let patience = answer_by.filter(|answer_by| *answer_by < deadline);
        let mut waiting =
            Waiting { bytes, hold, refused, rounds, deadline, patience, is_announced, span, suspended };
        async move {
            let ends_at = waiting.patience.unwrap_or(waiting.deadline);
            // A claim that is there when the time is over counts.
            let claim = timeout_at(ends_at, &mut waiting.suspended.claimed).await;
            Box::pin(self.over(waiting, claim.ok().map(Result::ok))).await
        }
    }

    /// The wait is over: somebody has claimed the call, or (`None`) its time or the client's patience has come to an end.
    async fn over(&self, mut held: Waiting, claim: Option<Option<Claim<Answer>>>) -> Released {
        let claim = match claim {
            Some(claim) => claim,
            None => match self.time_is_over(&held) {
                // INVARIANT: time ends a hold only by taking it out of the table. If it is gone, a verdict or a
                // withdrawal was faster and is about to arrive.
                Some(_) if held.patience.is_some() => {
                    return self.impatient(&held.hold, held.refused, held.rounds).await;
                }
                Some(_) => None,
                None => (&mut held.suspended.claimed).await.ok(),
            },
        };
        if let (Some(span), Some(Claim::Verdict { vote, .. })) = (&held.span, &claim) {
            span.decided(&vote.0);
        }
        let Waiting { bytes, hold, refused, deadline, is_announced, .. } = held;
        match claim {
            // A verdict that comes when the time is over, by either clock, comes too late: the timer may be behind, and the
            // one that it goes by stands still while the machine sleeps.
            Some(Claim::Verdict { answer, .. })
                if Instant::now() >= deadline || Timestamp::now() >= hold.expires_at =>
            {
                let released = self.expired(&hold, refused).await;
                let _ = answer.send(Ok(State::Expired));
                released
            }
            Some(Claim::Verdict { vote, answer }) => self.judged(bytes, hold, refused, *vote, answer).await,
            Some(Claim::Withdrawn(why)) => Released::Withdrawn {
                refusal: refused.withdrawn(hold.id, why),
                end: Unrecorded { hold, why: Gone::Withdrawn(why) },
            },
            // Whoever made the call again has put that on record.
            Some(Claim::Absent(why @ Absence::MadeAgain)) => Released::Refuse(refused.pending(hold.id, why)),
            Some(Claim::Absent(why)) => {
                if !is_announced {
                    self.announce(News::Held(Arc::clone(&hold)));
                }
                Released::Withdrawn {
                    refusal: refused.pending(hold.id, why),
                    end: Unrecorded { hold, why: Gone::Absent(why) },
                }
            }
            None => self.expired(&hold, refused).await,
        }
    }

    /// Takes a call out of the table whose time is over, or its client's patience.
    fn time_is_over(&self, held: &Waiting) -> Option<oneshot::Sender<Claim<Answer>>> {
        let ticket = held.suspended.ticket();
        match held.patience {
            Some(_) => self.table.claim_left(ticket).map(|(_, claim)| claim),
            None => self.table.claim(ticket),
        }
    }

    /// The client would give up soon: it is told to come back, once everybody can see that it is gone.
    async fn impatient(&self, hold: &NewHold, refused: Refused, rounds: Rounds) -> Released {
        self.record_absence(hold.id, Absence::Patience).await;
        let comes_back = self.next_round(hold, &refused, rounds).await;
        Released::Refuse(comes_back.unwrap_or_else(|| refused.pending(hold.id, Absence::Patience)))
    }

    async fn expired(&self, hold: &Arc<NewHold>, refused: Refused) -> Released {
        fail_point!("expiry.before_record");
        self.end(hold, State::Expired, None).await;
        fail_point!("expiry.after_record");
        Released::Refuse(refused.ended(hold.id, Cause::Expired, "nobody has answered in time"))
    }

    /// Puts a withdrawal or an absence on record, after it has been told: whoever waits for the answer need not wait for the
    /// disk, and the call does not run either way.
    pub async fn record_withdrawal(&self, end: Unrecorded) {
        match end.why {
            Gone::Withdrawn(why) => {
                self.end(&end.hold, State::Withdrawn, Some(why.note())).await;
            }
            Gone::Absent(why) => self.record_absence(end.hold.id, why).await,
        }
    }

    async fn record_absence(&self, id: HoldId, why: Absence) {
        match self.store.detach(id, Arc::clone(&self.instance), why.note()).await {
            Ok(()) => self.table.end_recorded(id),
            Err(error) => {
                tracing::error!(hold = %id, %error, "that a caller is gone could not be recorded");
                self.owe(Owed::Absence { id, why }, &error);
            }
        }
        tracing::info!(hold = %id, why = why.note(), "hold detached");
        self.moved.notify_waiters();
    }

    /// Makes a person's verdict durable, tells the approver, and only then lets it take effect.
    async fn judged(
        &self,
        bytes: FrameBytes,
        hold: Arc<NewHold>,
        refused: Refused,
        (vote, mut approval): (Vote, Approval),
        answer: oneshot::Sender<Answer>,
    ) -> Released {
        let id = hold.id;
        // INVARIANT: what is sent is what was shown. Nothing can have changed it; if it has, memory is not to be trusted.
        let mut sent = (bytes.sha256() == hold.frame_sha256).then_some(bytes);
        let mut edited = None;
        if let Some(edit) = approval.edit.take()
            && let Some(frame) = sent.take().and_then(|bytes| approvals::apply(bytes, &edit))
        {
            approval.edit = Some(Edit { frame_sha256: frame.sha256(), frame: frame.line() });
            edited = Some(Arc::new(Edited::new(id, &frame, vote.comment.as_deref())));
            sent = Some(frame.into_bytes());
        }
        let wants_proof = self.wants_proof(&hold, None);
        let is_proven = !wants_proof
            || vote.verdict == Verdict::Reject
            || (edited.is_none() && self.is_proven_now(&hold, &vote).await);
        let unavailable = if is_proven { CHANGED_IN_MEMORY } else { NOT_PROVEN };
        let state = match (vote.verdict, &sent) {
            (Verdict::Approve, Some(_)) if is_proven => State::Forwarding,
            (Verdict::Approve, _) => State::Unavailable,
            (Verdict::Reject, _) => State::Rejected,
        };
        fail_point!("verdict.before_record");
        let recorded = match state {
            State::Forwarding => {
                self.store.approve(id, vote.clone(), approval, Arc::clone(&self.instance)).await
            }
            _ => {
                let note = (state == State::Unavailable).then(|| unavailable.to_owned());
                self.store.end(id, state, vec![vote.clone()], note).await
            }
        };
        self.moved.notify_waiters();
        if let Err(error) = recorded {
            tracing::error!(hold = %hold.id, %error, "a verdict could not be recorded, so the call was refused");
            self.is_unavailable(hold, VERDICT_LOST, &error);
            let _ = answer.send(Err(error));
            return Released::Refuse(refused.ended(id, Cause::Unavailable, VERDICT_LOST));
        }
        fail_point!("verdict.after_record");
        let _ = answer.send(Ok(state));
        fail_point!("verdict.after_answer");
        let reason = vote.comment.clone().unwrap_or_default();
        if state == State::Forwarding && edited.is_none() && !wants_proof {
            self.continuations.begins(&hold, refused.era);
        }
        self.came_to(hold, state, Some(vote));
        match (state, sent) {
            (State::Forwarding, Some(bytes)) => {
                let permitted = Permitted::approved(bytes, id);
                Released::Resume(Box::new(Approved { permitted, hold: id, refused, edited }))
            }
            (State::Rejected, _) => Released::Refuse(refused.ended(id, Cause::Rejected, &reason)),
            _ => Released::Refuse(refused.ended(id, Cause::Unavailable, unavailable)),
        }
    }

    /// Whether `vote`, with those on record, proves what the rules want of a call whose caller is here.
    async fn is_proven_now(&self, hold: &NewHold, vote: &Vote) -> bool {
        let recorded = match self.store.hold(hold.id).await {
            Ok(Some(record)) => record.votes,
            _ => return false,
        };
        let votes: Vec<Vote> = recorded.into_iter().chain([vote.clone()]).collect();
        let call = Frame::from_client(hold.frame.clone()).ok().as_ref().and_then(call_sha256);
        self.is_proven(hold, None, &votes, call)
    }

    /// The call that came as `ticket` was taken back. `false` if something else has ended the hold already.
    pub fn withdraw(&self, ticket: HoldId, why: Withdrawal) -> bool {
        self.table.claim_taken_back(ticket).is_some_and(|claim| claim.send(Claim::Withdrawn(why)).is_ok())
    }

    /// The caller of the call that came as `ticket` is gone: it can still be decided, and the same call, made again, finds
    /// it. `false` if something else has ended the hold already.
    pub fn detach(&self, ticket: HoldId, why: Absence) -> bool {
        let Some((hold, claim)) = self.table.claim_left(ticket) else { return false };
        let is_heard = claim.send(Claim::Absent(why)).is_ok();
        if !is_heard {
            // Nobody is there who would put it on record.
            self.table.end_recorded(hold);
        }
        is_heard
    }

    /// The same for all that waits here.
    pub fn detach_all(&self, why: Absence) {
        for ticket in self.table.all() {
            self.detach(ticket, why);
        }
    }

    /// The server has answered an approved call.
    pub async fn answered(&self, id: HoldId) {
        self.ended_upstream(id, State::Answered, None).await;
    }

    /// An approved call was sent, and its answer will never come.
    pub async fn lost(&self, id: HoldId) {
        let note = "the session ended before the server answered";
        self.ended_upstream(id, State::Unknown, Some(note.to_owned())).await;
    }

    /// An approved call was not sent after all: not one byte of it went upstream.
    pub async fn not_forwarded(&self, id: HoldId, why: Withdrawal) {
        self.ended_upstream(id, State::Withdrawn, Some(why.note().to_owned())).await;
    }

    async fn ended_upstream(&self, id: HoldId, state: State, note: Option<String>) {
        self.continuations.ended(id);
        fail_point!("answer.before_record");
        if let Err(error) = self.store.end(id, state, Vec::new(), note).await {
            tracing::error!(hold = %id, %error, %state, "the end of an approved call could not be recorded");
        }
        fail_point!("answer.after_record");
    }

    /// Records an end that needs nobody's answer. The call does not run whether or not this succeeds.
    async fn end(&self, hold: &Arc<NewHold>, state: State, note: Option<&'static str>) {
        self.table.has_ended(hold.id, state);
        match self.store.end(hold.id, state, Vec::new(), note.map(str::to_owned)).await {
            Ok(()) => self.table.end_recorded(hold.id),
            Err(error) => {
                tracing::error!(hold = %hold.id, %error, %state, "the end of a hold could not be recorded");
                self.owe(Owed::End { id: hold.id, state, note }, &error);
            }
        }
        self.moved.notify_waiters();
        self.came_to(Arc::clone(hold), state, None);
    }
}

/// What is kept of a held call while it waits.
struct Waiting {
    bytes: FrameBytes,
    hold: Arc<NewHold>,
    refused: Refused,
    rounds: Rounds,
    /// When the call expires, by the clock of timers.
    deadline: Instant,
    /// The end of the client's patience, if that comes first.
    patience: Option<Instant>,
    is_announced: bool,
    span: Option<Arc<HoldSpan>>,
    suspended: Suspended<Answer>,
}

impl HeldCall {
    /// `record`, with the bytes that this call brings.
    fn as_retry_of(&self, record: &HoldRecord) -> NewHold {
        NewHold {
            frame: self.hold.frame.clone(),
            frame_sha256: self.hold.frame_sha256,
            // Known here, whatever the record says.
            server: Arc::clone(&self.hold.server),
            method: Arc::clone(&self.hold.method),
            tool: Arc::clone(&self.hold.tool),
            principal: Arc::clone(&self.hold.principal),
            call_sha256: self.hold.call_sha256,
            ..NewHold::clone(&record.hold)
        }
    }

    /// Whoever decides has said `vote`, for those who watch.
    fn has_decided(&self, vote: Option<&Vote>) {
        if let (Some(span), Some(vote)) = (&self.span, vote) {
            span.decided(vote);
        }
    }

    fn take_the_place_of(&mut self, record: &HoldRecord) {
        self.hold = Arc::new(self.as_retry_of(record));
        let left = self.hold.expires_at.duration_since(Timestamp::now());
        self.deadline = Instant::now() + Duration::try_from(left).unwrap_or_default();
    }
}
