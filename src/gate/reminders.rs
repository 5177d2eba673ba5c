//! What silence brings: reminders, and people whom an escalation lets decide too.
//!
//! A part of `gate`. It only tells: who may decide, and since when, is for `quorum` to say, by the same record. Nothing here
//! makes a call run or keeps it from running.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use tokio::{sync::Notify, time::Instant};

use super::{Gate, News};
use crate::{
    audit::{AuditEvent, Occasion},
    hold::{HoldId, NewHold, State},
};

/// The most calls that are reminded of at the same time in one process.
const REMINDED_MAX: usize = 10_000;

/// Calls that people are to hear of again.
#[derive(Default)]
pub(super) struct Reminders {
    holds: Mutex<HashMap<HoldId, Reminded>>,
    changed: Notify,
}

/// One of them: the hold, when it was held by the clock of timers, and how long after that people have heard of it last.
type Reminded = (Arc<NewHold>, Instant, Duration);

impl Reminders {
    /// People are to hear of `hold` again, if its rules say so; it expires at `deadline`.
    pub(super) fn add(&self, hold: &Arc<NewHold>, deadline: Instant) {
        let alarms = hold.quorum.as_ref().is_some_and(|quorum| quorum.next_alarm(Duration::ZERO).is_some());
        let all = Duration::try_from(hold.expires_at.duration_since(hold.created_at)).ok();
        let Some(began) = all.and_then(|all| deadline.checked_sub(all)).filter(|_| alarms) else { return };
        let mut holds = self.holds.lock().unwrap_or_else(PoisonError::into_inner);
        if holds.len() < REMINDED_MAX {
            holds.entry(hold.id).or_insert_with(|| (Arc::clone(hold), began, Duration::ZERO));
            self.changed.notify_one();
        }
    }

    /// The next alarm: when, of which hold, how long after it was held, and whom it brings in. Holds that have expired by
    /// then are forgotten.
    fn next(&self) -> Option<(Instant, Arc<NewHold>, Duration, Vec<String>)> {
        let mut holds = self.holds.lock().unwrap_or_else(PoisonError::into_inner);
        holds.retain(|_, (hold, _, heard)| alarm(hold, *heard).is_some());
        let alarms = holds.values().filter_map(|(hold, began, heard)| {
            let (after, to) = alarm(hold, *heard)?;
            Some((began.checked_add(after)?, Arc::clone(hold), after, to))
        });
        alarms.min_by_key(|(at, ..)| *at)
    }

    /// People have heard of it `after` it was held; `false` if they need not hear again.
    fn told(&self, id: HoldId, after: Option<Duration>) {
        let mut holds = self.holds.lock().unwrap_or_else(PoisonError::into_inner);
        match (after, holds.get_mut(&id)) {
            (Some(after), Some((_, _, heard))) => *heard = after,
            _ => drop(holds.remove(&id)),
        }
    }
}

/// The next time after `heard`, if the call still waits then.
fn alarm(hold: &NewHold, heard: Duration) -> Option<(Duration, Vec<String>)> {
    let (after, to) = hold.quorum.as_ref()?.next_alarm(heard)?;
    let all = Duration::try_from(hold.expires_at.duration_since(hold.created_at)).ok()?;
    (after < all).then(|| (after, to.into_iter().map(str::to_owned).collect()))
}

impl Gate {
    /// Reminds those who may decide, and brings others in when the rules say so, for as long as this gate runs. To be run once.
    pub async fn keep_reminding(&self) {
        loop {
            let changed = self.reminders.changed.notified();
            let Some((at, hold, after, to)) = self.reminders.next() else {
                changed.await;
                continue;
            };
            tokio::select! {
                () = changed => continue,
                () = tokio::time::sleep_until(at) => {}
            }
            // The record knows best whether it still waits, with or without a caller.
            let waits =
                matches!(self.store.hold(hold.id).await, Ok(Some(record)) if record.state == State::Held);
            self.reminders.told(hold.id, waits.then_some(after));
            if waits {
                self.remind(&hold, to);
            }
        }
    }

    fn remind(&self, hold: &Arc<NewHold>, to: Vec<String>) {
        let note =
            if to.is_empty() { "a reminder".to_owned() } else { format!("now also {}", to.join(", ")) };
        self.store.ride_along(AuditEvent {
            note: Some(note),
            ..AuditEvent::of(Occasion::Escalated, hold, &self.instance, Timestamp::now())
        });
        self.announce(News::Waiting { hold: Arc::clone(hold), to });
    }
}
