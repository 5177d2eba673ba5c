//! Gates of several machines on one record: verdicts for calls whose caller another process has, and news of what others do.
//!
//! A part of `gate`. A process asks the one that has the caller, which alone lets the call go on, through its own
//! [`Gate::resolve_here`]; so two processes never both forward it. What is told between them are only hints where to look: after every
//! break of the connection everything is looked at anew. Where all processes are on one machine, none of this runs.

use std::{borrow::Cow, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use tokio::{sync::watch, time::Instant};

use super::{Gate, News, ResolveError};
use crate::{
    audit::{AuditEvent, EventKind, Occasion},
    digest::Digest,
    hold::{Absence, HoldId, Proof, Said, Same, State, Verdict, Vote},
    hold_table::Claim,
    principal::Principal,
    store::{Heard, Question, StoreError},
};

/// How long an answer of another process is waited for, in seconds.
const ANSWER_SECONDS_MAX: u64 = 15;

/// How often it is looked whether there is an answer that was not heard of, in milliseconds.
const LOOK_MS: u64 = 500;

/// Lines of the log that are looked at together for those who watch.
const LINES_AT_ONCE: usize = 500;

/// How often it is looked whether somebody watches, in milliseconds.
const WATCHED_MS: u64 = 500;

/// A verdict for another process, as it is written down for it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    hold: HoldId,
    verdict: Verdict,
    remember: Option<(u64, Same)>,
    arguments: Option<String>,
    proof: Option<Proof>,
    #[serde(skip_serializing_if = "Option::is_none")]
    shown_sha256: Option<Digest>,
    approver: Approver,
    comment: Option<String>,
}

/// Who gives it, by the word of the process that asks: whoever can write the record can say anything here.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Approver {
    User { uid: u32, name: Option<String> },
    Channel { identity: String },
    Key { fingerprint: String },
}

/// What became of it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Told {
    State(State),
    /// It has ended, or is not there: the record says more.
    NotThere,
    Refused(String),
    NotWhatWasShown,
    Invalid(String),
    Failed,
}

/// What comes of asking.
enum Answered {
    Told(Told),
    /// Nothing, in time.
    Silent,
    /// It has died.
    Dead,
}

impl Approver {
    fn of(principal: &Principal) -> Option<Self> {
        match principal.clone() {
            Principal::User { uid, name } => Some(Self::User { uid, name }),
            Principal::Channel { identity } => Some(Self::Channel { identity }),
            Principal::Key { fingerprint } => Some(Self::Key { fingerprint }),
            _ => None,
        }
    }

    fn principal(self) -> Option<Principal> {
        match self {
            Self::User { uid, name } => Some(Principal::User { uid, name }),
            // Again, as if it came from the channel: no other kind is let in by this way.
            Self::Channel { identity } => Principal::channel(&identity),
            Self::Key { fingerprint } => Some(Principal::Key { fingerprint }),
        }
    }
}

impl From<Result<State, ResolveError>> for Told {
    fn from(resolved: Result<State, ResolveError>) -> Self {
        match resolved {
            Ok(state) => Self::State(state),
            Err(ResolveError::NotFound | ResolveError::Ended(_) | ResolveError::Elsewhere) => Self::NotThere,
            Err(ResolveError::Unrecorded(_) | ResolveError::Silent) => Self::Failed,
            Err(ResolveError::NotWhatWasShown) => Self::NotWhatWasShown,
            Err(error @ (ResolveError::NoReason | ResolveError::BadEdit(_))) => {
                Self::Invalid(error.to_string())
            }
            Err(error) => Self::Refused(error.to_string()),
        }
    }
}

impl Gate {
    /// Whether the process `holder` is known to be dead.
    pub(super) async fn is_dead(&self, holder: &str) -> bool {
        match self.store.is_connected(holder).await {
            Ok(Some(is_connected)) => !is_connected,
            Ok(None) => (self.is_dead)(holder),
            // In doubt it lives.
            Err(_) => false,
        }
    }

    /// Passes a verdict on to the process that has the caller of `id`. None if that is this one, or none.
    pub(super) async fn resolve_there(
        &self,
        id: HoldId,
        said: &Said,
        approver: &Principal,
        comment: Option<&str>,
    ) -> Option<Result<State, ResolveError>> {
        let mut heard = self.store.heard()?;
        if self.table.get(id).is_some() {
            return None;
        }
        let record = self.store.hold(id).await.ok()??;
        let holder =
            record.holder.filter(|holder| record.state == State::Held && *holder != self.instance)?;
        let Said { verdict, remember, arguments, proof, shown_sha256 } = said.clone();
        let Some(approver) = Approver::of(approver) else {
            return Some(Err(ResolveError::NotAllowed(approver.clone())));
        };
        let comment = comment.map(str::to_owned);
        let asked = Asked { hold: id, verdict, remember, arguments, proof, shown_sha256, approver, comment };
        match self.ask(&asked, &holder, &mut heard).await {
            Ok(Answered::Told(told)) => Some(self.told(id, told).await),
            Ok(Answered::Silent) => Some(Err(ResolveError::Silent)),
            // From here on nobody has the caller, unless it has come back by itself.
            Ok(Answered::Dead) => match self.store.recover(&holder).await {
                Ok(_) => None,
                Err(error) => Some(Err(ResolveError::Unrecorded(error))),
            },
            Err(error) => Some(Err(ResolveError::Unrecorded(error))),
        }
    }

    /// Asks `holder`, and waits for what it says.
    async fn ask(
        &self,
        asked: &Asked,
        holder: &Arc<str>,
        heard: &mut watch::Receiver<Heard>,
    ) -> Result<Answered, StoreError> {
        if self.is_dead(holder).await {
            return Ok(Answered::Dead);
        }
        let text = serde_json::to_string(asked)?;
        let id = self.store.ask(Arc::clone(holder), Arc::clone(&self.instance), text).await?;
        let deadline = Instant::now() + Duration::from_secs(ANSWER_SECONDS_MAX);
        loop {
            heard.mark_unchanged();
            if let Some(answer) = self.store.question_answer(id).await? {
                self.store.forget_question(id).await?;
                return Ok(serde_json::from_str(&answer).map_or(Answered::Silent, Answered::Told));
            }
            // Taken back where it was not taken: it can have no effect any more.
            if self.is_dead(holder).await && self.store.forget_question(id).await? {
                return Ok(Answered::Dead);
            }
            if Instant::now() >= deadline {
                self.store.forget_question(id).await?;
                return Ok(Answered::Silent);
            }
            let _ = tokio::time::timeout(Duration::from_millis(LOOK_MS), heard.changed()).await;
        }
    }

    async fn told(&self, id: HoldId, told: Told) -> Result<State, ResolveError> {
        Err(match told {
            Told::State(state) => return Ok(state),
            Told::NotThere => match self.store.hold(id).await {
                Ok(Some(record)) => ResolveError::Ended(Box::new(record)),
                Ok(None) => ResolveError::NotFound,
                Err(error) => ResolveError::Unrecorded(error),
            },
            Told::Refused(text) => ResolveError::There { is_invalid: false, text },
            Told::NotWhatWasShown => ResolveError::NotWhatWasShown,
            Told::Invalid(text) => ResolveError::There { is_invalid: true, text },
            Told::Failed => ResolveError::Silent,
        })
    }

    /// Answers what other processes ask, tells watchers what others do, and looks at everything anew when the connection to the
    /// record has been away; for as long as this gate runs. To be run once. Ends at once where there are no other machines.
    pub async fn keep_in_touch(self: Arc<Self>) {
        let Some(mut heard) = self.store.heard() else { return };
        let (mut before, mut seen) = (Heard::default(), None);
        loop {
            let now = *heard.borrow_and_update();
            if now.connections != before.connections && before.connections > 0 {
                seen = None;
                self.look_anew().await;
            }
            if now.asked != before.asked || now.connections != before.connections {
                self.answer_questions().await;
            }
            if now.log != before.log {
                self.moved.notify_waiters();
            }
            before = now;
            seen = self.tell_watchers(seen).await;
            let is_watched = self.news.receiver_count() > 0;
            let changed = heard.changed();
            if is_watched == seen.is_some() {
                if changed.await.is_err() {
                    return;
                }
            } else {
                // The log could not be read: it is tried again.
                let _ = tokio::time::timeout(Duration::from_millis(WATCHED_MS), changed).await;
            }
        }
    }

    /// Takes what this process is asked, and answers each when it is known.
    async fn answer_questions(self: &Arc<Self>) {
        let questions = match self.store.take_questions(Arc::clone(&self.instance)).await {
            Ok(questions) => questions,
            Err(error) => {
                tracing::warn!(%error, "what other gates ask could not be read");
                return;
            }
        };
        for question in questions {
            let gate = Arc::clone(self);
            tokio::spawn(async move { gate.answer_question(&question).await });
        }
    }

    async fn answer_question(&self, question: &Question) {
        let told = match serde_json::from_str::<Asked>(&question.text) {
            Err(_) => {
                Told::Invalid("the gate that has the caller does not understand the question".to_owned())
            }
            Ok(Asked { hold, verdict, remember, arguments, proof, shown_sha256, approver, comment }) => {
                let said = Said { verdict, remember, arguments, proof, shown_sha256 };
                match approver.principal() {
                    Some(approver) => {
                        self.resolve_here(hold, said, &approver, comment.as_deref()).await.into()
                    }
                    None => Told::Refused("nobody can vouch for whoever decides".to_owned()),
                }
            }
        };
        let text = serde_json::to_string(&told).unwrap_or_default();
        if let Err(error) = self.store.answer_question(question, text).await {
            tracing::warn!(%error, "another gate could not be answered");
        }
    }

    /// The connection was away: whoever took this process for dead has taken over what it held. Its callers are told to make
    /// their calls again, which finds what has become of them.
    async fn look_anew(&self) {
        let _ = self.news.send(News::Anew);
        for hold in self.holds() {
            let found = match self.store.hold(hold.id).await {
                Ok(found) => found,
                // Away again.
                Err(_) => return,
            };
            let is_ours = found.is_some_and(|found| found.holder.as_ref() == Some(&self.instance));
            if !is_ours && let Some(claim) = self.table.claim_recorded(hold.id) {
                tracing::warn!(hold = %hold.id, "another gate has taken this hold over while the record was away");
                let _ = claim.send(Claim::Absent(Absence::TakenOver));
            }
        }
    }

    /// Tells those who watch what the log says behind line `seen`, and gives how far it was read. None: nobody watches.
    async fn tell_watchers(&self, seen: Option<u64>) -> Option<u64> {
        if self.news.receiver_count() == 0 {
            return None;
        }
        let Some(mut seen) = seen else {
            let head = self.store.checkpoint().await.ok()?;
            // What was before is for whoever watches to list.
            let _ = self.news.send(News::Anew);
            return Some(head.seq);
        };
        loop {
            let Ok(lines) = self.store.audit_events(seen, LINES_AT_ONCE).await else { return Some(seen) };
            let Some(last) = lines.last() else { return Some(seen) };
            seen = last.seq;
            for event in lines.iter().filter_map(|line| line.event().ok()) {
                self.tell_of(event).await;
            }
        }
    }

    /// Tells those who watch of an event, unless it is of this process, which has told of it.
    async fn tell_of(&self, event: AuditEvent) {
        let Some(id) = event.hold else { return };
        let is_news = matches!(
            event.kind,
            EventKind::State(_) | EventKind::Occasion(Occasion::Voted | Occasion::Escalated)
        );
        if !is_news || self.told_of.take(id, &event) {
            return;
        }
        let Ok(Some(record)) = self.store.hold(id).await else { return };
        let (hold, vote) = (Arc::new(record.hold), event.votes.last().cloned());
        let news = match (event.kind, vote) {
            (EventKind::State(State::Held), _) => News::Held(hold),
            (EventKind::State(state), vote) => News::Now { hold, state, vote },
            (EventKind::Occasion(Occasion::Voted), Some(vote)) => News::Voted { hold, vote },
            _ => News::Waiting { hold, to: Vec::new() },
        };
        let _ = self.news.send(news);
    }
}

/// What this process has told its own watchers, so that it is not told again when the log says it.
///
/// The log may be read before it is noted here: then it is told twice, and the note stays. So a note is of what happens to a hold once.
#[derive(Default)]
pub(super) struct ToldOf(std::sync::Mutex<std::collections::VecDeque<(HoldId, Cow<'static, str>)>>);

/// How many of them are remembered.
const TOLD_OF_MAX: usize = 4096;

impl ToldOf {
    /// `news` was told.
    pub(super) fn add(&self, news: &News) {
        let told = match news {
            News::Held(hold) => (hold.id, State::Held.word().into()),
            News::Now { hold, state, .. } => (hold.id, state.word().into()),
            News::Voted { hold, vote } => (hold.id, voted(vote)),
            News::Waiting { hold, .. } => (hold.id, WAITING.into()),
            News::Anew => return,
        };
        self.note(told);
    }

    fn note(&self, told: (HoldId, Cow<'static, str>)) {
        let mut all = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if all.len() == TOLD_OF_MAX {
            all.pop_front();
        }
        all.push_back(told);
    }

    /// Whether what `event` says of `id` was told; once.
    fn take(&self, id: HoldId, event: &AuditEvent) -> bool {
        let what = match (event.kind, event.votes.last()) {
            (EventKind::State(state), _) => state.word().into(),
            (EventKind::Occasion(Occasion::Voted), Some(vote)) => voted(vote),
            _ => WAITING.into(),
        };
        let told = (id, what);
        let mut all = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let found = all.iter().position(|one| *one == told);
        found.is_some_and(|at| all.remove(at).is_some())
    }
}

/// What is noted of a vote: nobody votes twice on a hold.
fn voted(vote: &Vote) -> Cow<'static, str> {
    format!("voted {}", vote.by).into()
}

const WAITING: &str = "waiting";

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    #[test]
    fn a_note_that_came_too_late_hides_nobody_elses_vote() {
        let (id, told) = (HoldId([7; 16]), ToldOf::default());
        let vote = |by: &str| Vote::new(Verdict::Approve, by.to_owned(), None, Timestamp::UNIX_EPOCH);
        let event = |votes: &[Vote]| AuditEvent {
            hold: Some(id),
            votes: votes.to_vec(),
            ..AuditEvent::new(Occasion::Voted, "here", Timestamp::UNIX_EPOCH)
        };
        let (mine, yours) = (vote("uid:1000(alice)"), vote("uid:1001(bob)"));
        assert!(!told.take(id, &event(std::slice::from_ref(&mine))), "the log was faster");
        told.note((id, voted(&mine)));
        let both = event(&[mine.clone(), yours.clone()]);
        assert!(!told.take(id, &both), "another gate has recorded this vote, so it is news");
        told.note((id, voted(&yours)));
        assert!(told.take(id, &both) && !told.take(id, &both), "told here, and once");
    }
}
