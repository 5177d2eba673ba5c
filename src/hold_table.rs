//! The suspended-request table: the calls of this process that wait for people.
//!
//! Whoever removes an entry owns how its hold ends: that removal is the one claim for which approval, rejection, expiry
//! and withdrawal race. `gate` is its only caller. The table never decides, never waits and never writes to the store.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use jiff::Timestamp;
use tokio::sync::oneshot;

use crate::hold::{Absence, Approval, HoldId, NewHold, Place, State, Vote, Withdrawal};

/// What the winner of the claim tells the task that keeps the hold.
#[derive(Debug)]
pub(crate) enum Claim<Answer> {
    /// A person decided; the answer says what became of it.
    Verdict {
        /// What was said, and by whom, and what it brings along. Boxed: there is room for it in every call that waits.
        vote: Box<(Vote, Approval)>,
        /// Where the approver waits to hear that it is durable.
        answer: oneshot::Sender<Answer>,
    },
    /// It was taken back.
    Withdrawn(Withdrawal),
    /// Nobody waits for it any more; people may decide all the same.
    Absent(Absence),
}

/// One waiting call.
struct Entry<Answer> {
    hold: Arc<NewHold>,
    /// The session of its caller.
    session: u64,
    /// Whether its record is durable. Until then only a withdrawal may claim it: nobody can decide what is not on record.
    recorded: bool,
    claim: oneshot::Sender<Claim<Answer>>,
}

/// Why the table does not take one more hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TableFull {
    /// As many calls wait as may.
    #[error("{0} calls are held already, which is the limit")]
    Holds(usize),
    /// The waiting frames together are as large as they may be.
    #[error("the held calls take {0} MiB already, which is the limit")]
    Bytes(usize),
}

/// A call's place in the table. Dropping it gives up the place: a call that nobody keeps any more cannot be decided.
pub(crate) struct Suspended<Answer> {
    table: Arc<HoldTable<Answer>>,
    id: HoldId,
    /// Hears who claimed the call.
    pub(crate) claimed: oneshot::Receiver<Claim<Answer>>,
}

impl<Answer> Suspended<Answer> {
    /// The id under which the call came.
    pub(crate) fn ticket(&self) -> HoldId {
        self.id
    }
}

impl<Answer> Drop for Suspended<Answer> {
    fn drop(&mut self) {
        drop(self.table.claim(self.id));
    }
}

/// All calls that wait in this process, bounded in number and in bytes.
pub(crate) struct HoldTable<Answer> {
    inner: Mutex<Inner<Answer>>,
    holds_max: usize,
    frame_bytes_max: usize,
}

struct Inner<Answer> {
    /// By ticket: the id under which a call came. It is the id of its hold, except where it took the place of an earlier call.
    entries: HashMap<HoldId, Entry<Answer>>,
    /// The tickets of the holds whose id is another.
    tickets: HashMap<HoldId, HoldId>,
    /// Holds that are over, and how they have ended, where that is not on record yet.
    ended: HashMap<HoldId, State>,
    /// Holds whose caller has gone, where that is not on record yet: until it is, the record does not list them.
    left: HashMap<HoldId, Arc<NewHold>>,
    frame_bytes: usize,
}

impl<Answer> Inner<Answer> {
    fn ticket(&self, id: HoldId) -> HoldId {
        self.tickets.get(&id).copied().unwrap_or(id)
    }
}

/// What is found of a hold when the same call is made again.
pub(crate) enum Again<Answer> {
    /// It was made in the same session, and its caller is to hear that it waits no longer.
    Same(oneshot::Sender<Claim<Answer>>),
    /// Somebody else waits for it.
    Another,
    /// It does not wait here, or not any more.
    Absent,
}

impl<Answer> HoldTable<Answer> {
    /// An empty table for at most `holds_max` calls whose frames take at most `frame_bytes_max` bytes together.
    pub(crate) fn new(holds_max: usize, frame_bytes_max: usize) -> Self {
        Self {
            inner: Mutex::new(Inner {
                entries: HashMap::new(),
                tickets: HashMap::new(),
                ended: HashMap::new(),
                left: HashMap::new(),
                frame_bytes: 0,
            }),
            holds_max,
            frame_bytes_max,
        }
    }

    /// No code panics while it holds this lock; should one, the entries themselves are still whole.
    fn lock(&self) -> MutexGuard<'_, Inner<Answer>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Suspends `hold`, not yet recorded, from this moment on: whatever arrives after its frame finds it here.
    pub(crate) fn suspend(
        self: &Arc<Self>,
        hold: Arc<NewHold>,
        session: u64,
    ) -> Result<Suspended<Answer>, TableFull> {
        let mut inner = self.lock();
        if inner.entries.len() >= self.holds_max {
            return Err(TableFull::Holds(self.holds_max));
        }
        if inner.frame_bytes.saturating_add(hold.frame.len()) > self.frame_bytes_max {
            return Err(TableFull::Bytes(self.frame_bytes_max >> 20));
        }
        inner.frame_bytes += hold.frame.len();
        let (claim, claimed) = oneshot::channel();
        let id = hold.id;
        inner.entries.insert(id, Entry { hold, session, recorded: false, claim });
        drop(inner);
        Ok(Suspended { table: Arc::clone(self), id, claimed })
    }

    /// Marks the call of `ticket` as recorded as `hold`, so that it can be decided. `false` if it has been taken out
    /// meanwhile.
    pub(crate) fn recorded(&self, ticket: HoldId, hold: &Arc<NewHold>) -> bool {
        let inner = &mut *self.lock();
        let Some(entry) = inner.entries.get_mut(&ticket) else { return false };
        inner.frame_bytes = inner.frame_bytes - entry.hold.frame.len() + hold.frame.len();
        (entry.recorded, entry.hold) = (true, Arc::clone(hold));
        if hold.id != ticket {
            inner.tickets.insert(hold.id, ticket);
        }
        true
    }

    /// Takes `id` out for a person's verdict. `None` if it is not there (any more), or not yet on record.
    pub(crate) fn claim_recorded(&self, id: HoldId) -> Option<oneshot::Sender<Claim<Answer>>> {
        let mut inner = self.lock();
        let ticket = inner.ticket(id);
        if !inner.entries.get(&ticket)?.recorded {
            return None;
        }
        Self::take(&mut inner, ticket)
    }

    /// Takes the call of `ticket` out for expiry, withdrawal or absence. `None` if somebody else was faster.
    pub(crate) fn claim(&self, ticket: HoldId) -> Option<oneshot::Sender<Claim<Answer>>> {
        Self::take(&mut self.lock(), ticket)
    }

    /// Takes the call of `ticket` out because its caller has taken it back; it counts as ended from now on, whatever the
    /// record still says. `None` if somebody else was faster.
    pub(crate) fn claim_taken_back(&self, ticket: HoldId) -> Option<oneshot::Sender<Claim<Answer>>> {
        let inner = &mut *self.lock();
        let entry = inner.entries.get(&ticket)?;
        if entry.recorded {
            inner.ended.insert(entry.hold.id, State::Withdrawn);
        }
        Self::take(inner, ticket)
    }

    /// Takes the call of `ticket` out because its caller has gone; its hold, whose id is given as well, is listed until that is on
    /// record. `None` if somebody else was faster.
    pub(crate) fn claim_left(&self, ticket: HoldId) -> Option<(HoldId, oneshot::Sender<Claim<Answer>>)> {
        let inner = &mut *self.lock();
        let entry = inner.entries.get(&ticket)?;
        let hold = Arc::clone(&entry.hold);
        let id = hold.id;
        if entry.recorded {
            inner.left.insert(id, hold);
        }
        Self::take(inner, ticket).map(|claim| (id, claim))
    }

    /// `id`, which was taken out before, has ended in `state`, whatever the record still says.
    pub(crate) fn has_ended(&self, id: HoldId, state: State) {
        self.lock().ended.insert(id, state);
    }

    /// It is on record how `id` has ended, or that its caller has gone.
    pub(crate) fn end_recorded(&self, id: HoldId) {
        let mut inner = self.lock();
        inner.ended.remove(&id);
        inner.left.remove(&id);
    }

    /// How `id` has ended, if that is not on record yet.
    pub(crate) fn ended(&self, id: HoldId) -> Option<State> {
        self.lock().ended.get(&id).copied()
    }

    /// Takes the hold `id` out for a call that was made again in `session`.
    pub(crate) fn claim_again(&self, id: HoldId, session: u64) -> Again<Answer> {
        let mut inner = self.lock();
        let ticket = inner.ticket(id);
        match inner.entries.get(&ticket) {
            None => Again::Absent,
            Some(entry) if entry.session != session || !entry.recorded => Again::Another,
            Some(_) => Self::take(&mut inner, ticket).map_or(Again::Absent, Again::Same),
        }
    }

    fn take(inner: &mut Inner<Answer>, ticket: HoldId) -> Option<oneshot::Sender<Claim<Answer>>> {
        let entry = inner.entries.remove(&ticket)?;
        if entry.hold.id != ticket {
            inner.tickets.remove(&entry.hold.id);
        }
        inner.frame_bytes -= entry.hold.frame.len();
        Some(entry.claim)
    }

    /// Whether the call that came as `ticket` is here and not on record yet: nobody can know of it.
    pub(crate) fn is_being_recorded(&self, ticket: HoldId) -> bool {
        self.lock().entries.get(&ticket).is_some_and(|entry| !entry.recorded)
    }

    /// One recorded hold.
    pub(crate) fn get(&self, id: HoldId) -> Option<Arc<NewHold>> {
        let inner = self.lock();
        let entry = inner.entries.get(&inner.ticket(id)).filter(|entry| entry.recorded)?;
        Some(Arc::clone(&entry.hold))
    }

    /// All recorded holds, the oldest first.
    pub(crate) fn list(&self) -> Vec<Arc<NewHold>> {
        let mut holds: Vec<_> = {
            let inner = self.lock();
            inner
                .entries
                .values()
                .filter(|entry| entry.recorded)
                .map(|entry| Arc::clone(&entry.hold))
                .collect()
        };
        holds.sort_unstable_by_key(|hold| hold.place());
        holds
    }

    /// Those behind the place `after`, at most `max` of them, and with them those that are just losing their callers.
    pub(crate) fn list_after(&self, after: Option<Place>, max: usize) -> Vec<Arc<NewHold>> {
        let mut holds: Vec<_> = {
            let inner = self.lock();
            let recorded = inner.entries.values().filter(|entry| entry.recorded).map(|entry| &entry.hold);
            recorded
                .chain(inner.left.values())
                .filter(|hold| after.is_none_or(|after| hold.place() > after))
                .cloned()
                .collect()
        };
        if holds.len() > max {
            // Of a hundred thousand only a page has to be in order.
            holds.select_nth_unstable_by_key(max, |hold| hold.place());
            holds.truncate(max);
        }
        holds.sort_unstable_by_key(|hold| hold.place());
        holds
    }

    /// Since when the oldest recorded hold waits.
    pub(crate) fn oldest(&self) -> Option<Timestamp> {
        let inner = self.lock();
        inner.entries.values().filter(|entry| entry.recorded).map(|entry| entry.hold.created_at).min()
    }

    /// The tickets of all calls that wait, recorded or about to be.
    pub(crate) fn all(&self) -> Vec<HoldId> {
        self.lock().entries.keys().copied().collect()
    }

    /// How many calls wait, recorded or about to be.
    pub(crate) fn len(&self) -> usize {
        self.lock().entries.len()
    }
}
