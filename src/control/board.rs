//! What waits at all gates of this user, kept as the news say.
//!
//! Used by the desk and the terminal UI, which show it and ask the gate that has a hold. It never decides.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use jiff::Timestamp;

use super::{
    api::{HoldView, WatchedEvent},
    client::{GateClient, Silent},
    follow::Followed,
};
use crate::hold::{HoldId, State};

/// Holds that are kept at most, over all gates. A gate has a bound of its own; this is for many gates.
pub const BOARD_HOLDS_MAX: usize = 50_000;

/// What [`Board::apply`] has changed.
#[derive(Clone, Debug)]
pub enum Change {
    /// This call waits now, or something about it is new while it waits.
    Waits(Arc<HoldView>),
    /// This hold has reached a new state and does not wait any more.
    Moved(Arc<HoldView>),
    /// So much has changed that the whole board should be looked at again.
    Anew,
}

/// A hold on the board, and the gate that told of it.
#[derive(Debug)]
struct Entry {
    hold: Arc<HoldView>,
    instance: Arc<str>,
}

/// What waits, the oldest first.
#[derive(Debug, Default)]
pub struct Board {
    holds: BTreeMap<(Timestamp, HoldId), Entry>,
    times: HashMap<HoldId, Timestamp>,
    gates: BTreeMap<Arc<str>, Arc<GateClient>>,
    silent: BTreeMap<String, Silent>,
    left_out: usize,
}

impl Board {
    /// Takes in a piece of news. The arguments of a hold are kept up to what news carry (see [`HoldView::as_news`]).
    pub fn apply(&mut self, followed: Followed) -> Vec<Change> {
        match followed {
            Followed::Listed { gate, holds } => {
                let instance: Arc<str> = gate.registered.instance.as_str().into();
                self.forget_holds_of(&instance);
                self.gates.insert(Arc::clone(&instance), gate);
                self.silent.remove(&*instance);
                for hold in holds {
                    self.put(Arc::new(hold.as_news()), &instance);
                }
                vec![Change::Anew]
            }
            Followed::Silent(silent) => {
                self.silent.insert(silent.registered.instance.clone(), silent);
                vec![Change::Anew]
            }
            Followed::Gone { instance } => {
                self.gates.remove(&*instance);
                let was_silent = self.silent.remove(&instance).is_some();
                if self.forget_holds_of(&instance) || was_silent { vec![Change::Anew] } else { Vec::new() }
            }
            Followed::News { instance, watched } => match (watched.event, watched.hold) {
                (WatchedEvent::Missed, _) | (_, None) => Vec::new(),
                (_, Some(hold)) => vec![self.news(hold, &instance.into())],
            },
        }
    }

    fn news(&mut self, hold: HoldView, instance: &Arc<str>) -> Change {
        let hold = Arc::new(hold);
        if hold.state == State::Held {
            self.put(Arc::clone(&hold), instance);
            return Change::Waits(hold);
        }
        if let Some(at) = self.times.remove(&hold.id) {
            self.holds.remove(&(at, hold.id));
        }
        Change::Moved(hold)
    }

    fn put(&mut self, hold: Arc<HoldView>, instance: &Arc<str>) {
        if hold.state != State::Held {
            return;
        }
        // Several gates may tell of a hold that has no caller; the one that has the caller is the one to ask.
        let known = self.times.get(&hold.id).and_then(|at| self.holds.get(&(*at, hold.id)));
        if known.is_some_and(|known| known.hold.attached && !hold.attached) {
            return;
        }
        if self.holds.len() >= BOARD_HOLDS_MAX && known.is_none() {
            self.left_out += 1;
            if self.left_out == 1 {
                tracing::warn!(limit = BOARD_HOLDS_MAX, "more calls wait than are shown");
            }
            return;
        }
        self.times.insert(hold.id, hold.created_at);
        self.holds.insert((hold.created_at, hold.id), Entry { hold, instance: Arc::clone(instance) });
    }

    fn forget_holds_of(&mut self, instance: &str) -> bool {
        let before = self.holds.len();
        let times = &mut self.times;
        self.holds.retain(|(_, id), entry| {
            let stays = &*entry.instance != instance;
            if !stays {
                times.remove(id);
            }
            stays
        });
        self.holds.len() != before
    }

    /// How many calls wait.
    pub fn len(&self) -> usize {
        self.holds.len()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.holds.is_empty()
    }

    /// All that waits, the oldest first.
    pub fn holds(&self) -> impl DoubleEndedIterator<Item = &Arc<HoldView>> {
        self.holds.values().map(|entry| &entry.hold)
    }

    /// What was held after the hold `after`, which need not wait any more, at `held_at`.
    pub fn holds_after(&self, held_at: Timestamp, after: HoldId) -> impl Iterator<Item = &Arc<HoldView>> {
        let behind = (std::ops::Bound::Excluded((held_at, after)), std::ops::Bound::Unbounded);
        self.holds.range(behind).map(|(_, entry)| &entry.hold)
    }

    /// The hold `id`, if it waits.
    pub fn hold(&self, id: HoldId) -> Option<&Arc<HoldView>> {
        Some(&self.entry(id)?.hold)
    }

    /// The gate to ask about the hold `id`, if it waits.
    pub fn gate_of(&self, id: HoldId) -> Option<Arc<GateClient>> {
        self.gates.get(&self.entry(id)?.instance).map(Arc::clone)
    }

    /// The gates that are there.
    pub fn gates(&self) -> impl Iterator<Item = &Arc<GateClient>> {
        self.gates.values()
    }

    /// Gates that live and do not answer: what waits there is not on the board.
    pub fn silent(&self) -> impl Iterator<Item = &Silent> {
        self.silent.values()
    }

    fn entry(&self, id: HoldId) -> Option<&Entry> {
        self.holds.get(&(*self.times.get(&id)?, id))
    }
}
