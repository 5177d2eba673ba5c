//! The suspended-request table: the calls of this process that wait for people.
//!
//! Whoever removes an entry owns how its hold ends: that removal is the one claim for which approval, rejection, expiry
//! and withdrawal race. `gate` is its only caller. The table never decides, never waits and never writes to the store.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::oneshot;

use crate::hold::{HoldId, NewHold, Vote, Withdrawal};

/// What the winner of the claim tells the task that keeps the hold.
#[derive(Debug)]
pub(crate) enum Claim<Answer> {
    /// A person decided; the answer says what became of it.
    Verdict {
        /// What was said, and by whom.
        vote: Vote,
        /// Where the approver waits to hear that it is durable.
        answer: oneshot::Sender<Answer>,
    },
    /// Nobody waits for it any more.
    Withdrawn(Withdrawal),
}

/// One waiting call.
struct Entry<Answer> {
    hold: Arc<NewHold>,
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
    entries: HashMap<HoldId, Entry<Answer>>,
    frame_bytes: usize,
}

impl<Answer> HoldTable<Answer> {
    /// An empty table for at most `holds_max` calls whose frames take at most `frame_bytes_max` bytes together.
    pub(crate) fn new(holds_max: usize, frame_bytes_max: usize) -> Self {
        Self {
            inner: Mutex::new(Inner { entries: HashMap::new(), frame_bytes: 0 }),
            holds_max,
            frame_bytes_max,
        }
    }

    /// No code panics while it holds this lock; should one, the entries themselves are still whole.
    fn lock(&self) -> MutexGuard<'_, Inner<Answer>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Suspends `hold`, not yet recorded, from this moment on: whatever arrives after its frame finds it here.
    pub(crate) fn suspend(self: &Arc<Self>, hold: Arc<NewHold>) -> Result<Suspended<Answer>, TableFull> {
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
        inner.entries.insert(id, Entry { hold, recorded: false, claim });
        drop(inner);
        Ok(Suspended { table: Arc::clone(self), id, claimed })
    }

    /// Marks `id` as recorded, so that it can be decided. `false` if it has been withdrawn meanwhile.
    pub(crate) fn recorded(&self, id: HoldId) -> bool {
        self.lock().entries.get_mut(&id).map(|entry| entry.recorded = true).is_some()
    }

    /// Takes `id` out for a person's verdict. `None` if it is not there (any more), or not yet on record.
    pub(crate) fn claim_recorded(&self, id: HoldId) -> Option<oneshot::Sender<Claim<Answer>>> {
        let mut inner = self.lock();
        if !inner.entries.get(&id)?.recorded {
            return None;
        }
        Self::take(&mut inner, id)
    }

    /// Takes `id` out for expiry or withdrawal. `None` if somebody else was faster.
    pub(crate) fn claim(&self, id: HoldId) -> Option<oneshot::Sender<Claim<Answer>>> {
        Self::take(&mut self.lock(), id)
    }

    fn take(inner: &mut Inner<Answer>, id: HoldId) -> Option<oneshot::Sender<Claim<Answer>>> {
        let entry = inner.entries.remove(&id)?;
        inner.frame_bytes -= entry.hold.frame.len();
        Some(entry.claim)
    }

    /// One recorded hold.
    pub(crate) fn get(&self, id: HoldId) -> Option<Arc<NewHold>> {
        self.lock().entries.get(&id).filter(|entry| entry.recorded).map(|entry| Arc::clone(&entry.hold))
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
        holds.sort_unstable_by_key(|hold| (hold.created_at, hold.id));
        holds
    }

    /// How many calls wait, recorded or about to be.
    pub(crate) fn len(&self) -> usize {
        self.lock().entries.len()
    }
}
