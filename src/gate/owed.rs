//! What could not be recorded when it came: how a hold has ended, or that its caller is gone. It counts all the same, and is put on record
//! as soon as that can be done.
//!
//! A part of `gate`. Nothing here lets a call run.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::Notify;

use super::Gate;
use crate::{
    hold::{Absence, HoldId, NewHold, State, Withdrawal},
    store::StoreError,
};

/// As much as may be owed. What is more stays on record as it was until this process ends.
const OWED_MAX: usize = 100_000;

/// How long after a failure it is tried again.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// A withdrawal, or an absence, that is not on record yet.
#[derive(Debug)]
#[must_use = "the record would say that the call still waits"]
pub struct Unrecorded {
    pub(super) hold: Arc<NewHold>,
    pub(super) why: Gone,
}

impl Unrecorded {
    /// The hold that ends or loses its caller.
    pub fn hold(&self) -> HoldId {
        self.hold.id
    }
}

/// Why nobody waits.
#[derive(Clone, Copy, Debug)]
pub(super) enum Gone {
    /// The call was taken back.
    Withdrawn(Withdrawal),
    /// Nobody is there, and it can be decided all the same.
    Absent(Absence),
}

/// Something that the record does not say yet.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Owed {
    /// A hold has ended, and nothing of its call was sent.
    End { id: HoldId, state: State, note: Option<&'static str> },
    /// The caller of a hold is gone.
    Absence { id: HoldId, why: Absence },
    /// Whoever has gone has taken the call back.
    TakeBack { id: HoldId, why: Withdrawal },
}

impl Owed {
    fn hold(&self) -> HoldId {
        match self {
            Self::End { id, .. } | Self::Absence { id, .. } | Self::TakeBack { id, .. } => *id,
        }
    }
}

/// All of it, the oldest first.
#[derive(Default)]
pub(super) struct AllOwed {
    queue: Mutex<VecDeque<Owed>>,
    grown: Notify,
}

impl AllOwed {
    fn lock(&self) -> MutexGuard<'_, VecDeque<Owed>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn first(&self) -> Option<Owed> {
        self.lock().front().copied()
    }

    /// Unless so much is owed already that this is not.
    pub(super) fn put(&self, owed: Owed) {
        let mut queue = self.lock();
        if queue.len() < OWED_MAX {
            queue.push_back(owed);
        }
        drop(queue);
        self.grown.notify_one();
    }

    /// `owed`, which was the first, is on record now.
    fn is_paid(&self, owed: Owed) {
        let mut queue = self.lock();
        if queue.front() == Some(&owed) {
            queue.pop_front();
        }
    }

    /// Whether something is owed about the hold `id`.
    pub(super) fn is_of(&self, id: HoldId) -> bool {
        self.lock().iter().any(|owed| owed.hold() == id)
    }
}

impl Gate {
    /// `owed` could not be recorded because of `error`. `false`: it is not to be recorded any more, because the hold has ended already or
    /// is with another process.
    pub(super) fn owe(&self, owed: Owed, error: &StoreError) -> bool {
        if is_settled(error) {
            self.table.end_recorded(owed.hold());
            return false;
        }
        // Before others can put it on record: they take this back then.
        if let Owed::End { id, state, .. } = owed {
            self.table.has_ended(id, state);
        }
        self.owed.put(owed);
        true
    }

    /// A call that was taken out of the table does not run, because what was decided could not be recorded.
    pub(super) fn is_unavailable(&self, hold: Arc<NewHold>, note: &'static str, error: &StoreError) {
        let state = State::Unavailable;
        if self.owe(Owed::End { id: hold.id, state, note: Some(note) }, error) {
            self.came_to(hold, state, None);
        } else {
            self.count_end(&hold, state);
        }
    }

    /// Puts on record what is owed, for as long as this gate runs. To be run once.
    pub async fn keep_recording(&self) {
        loop {
            self.owed.grown.notified().await;
            while !self.record_owed().await {
                tokio::time::sleep(AGAIN_AFTER).await;
            }
        }
    }

    /// Puts on record what is owed. `false` if that does not work yet.
    pub(crate) async fn record_owed(&self) -> bool {
        // In this order: what is taken back has lost its caller before.
        while let Some(owed) = self.owed.first() {
            let holder = Arc::clone(&self.instance);
            let recorded = match owed {
                Owed::TakeBack { id, why } => self.record_taken_back(id, why).await.map(drop),
                Owed::End { id, state, note } => self.store.end_late(id, holder, state, note).await,
                Owed::Absence { id, why } => self.store.detach(id, holder, why.note()).await,
            };
            if recorded.is_err_and(|error| !is_settled(&error)) {
                return false;
            }
            self.owed.is_paid(owed);
            tracing::info!(hold = %owed.hold(), "what could not be recorded of a hold is on record now");
            self.table.end_recorded(owed.hold());
            self.moved.notify_waiters();
        }
        true
    }
}

/// Whether the record has said no, and will not say anything else.
fn is_settled(error: &StoreError) -> bool {
    matches!(error, StoreError::NoSuchHold(_) | StoreError::NotHeld { .. } | StoreError::TakenOver)
}
