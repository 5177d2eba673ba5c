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
use tokio::{
    sync::Notify,
    time::{Instant, MissedTickBehavior},
};

use super::{Gate, News};
use crate::{
    faults::fail_point,
    hold::{HoldId, NewHold, State},
};

/// The most calls that are reminded of at the same time in one process.
const REMINDED_MAX: usize = 10_000;

/// How often it is looked for what gates that have died or ended have left.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// Calls that people are to hear of again.
#[derive(Default)]
pub(super) struct Reminders {
    holds: Mutex<HashMap<HoldId, Reminded>>,
    changed: Notify,
    /// A call was made again: whether people have heard of it, the record knows.
    made_again: Notify,
}

/// One of them: the hold, when it was held by the clock of timers, and how long after that people have heard of it last.
type Reminded = (Arc<NewHold>, Instant, Duration);

impl Reminders {
    /// People are to hear of `hold` again, if its rules say so; it expires at `deadline`.
    pub(super) fn add(&self, hold: &Arc<NewHold>, deadline: Instant) {
        if let Some(began) = lifetime(hold).and_then(|all| deadline.checked_sub(all)) {
            self.put(hold, began, Duration::ZERO);
        }
    }

    /// The same for a call that was made again, perhaps one that has waited at a gate that is gone.
    pub(super) fn made_again(&self, hold: &NewHold) {
        if alarm(hold, Duration::ZERO).is_some() {
            self.made_again.notify_one();
        }
    }

    /// The same for one that was held earlier, and of which people have heard `heard` after that.
    fn resume(&self, hold: NewHold, heard: Duration) {
        let waited = Duration::try_from(Timestamp::now().duration_since(hold.created_at)).unwrap_or_default();
        if let Some(began) = Instant::now().checked_sub(waited) {
            self.put(&Arc::new(hold), began, heard);
        }
    }

    fn put(&self, hold: &Arc<NewHold>, began: Instant, heard: Duration) {
        let mut holds = self.holds.lock().unwrap_or_else(PoisonError::into_inner);
        if alarm(hold, heard).is_some() && holds.len() < REMINDED_MAX {
            holds.entry(hold.id).or_insert_with(|| (Arc::clone(hold), began, heard));
            self.changed.notify_one();
        }
    }

    /// The next alarm. Holds that have expired by then are forgotten.
    fn next(&self) -> Option<(Instant, Reminded)> {
        let mut holds = self.holds.lock().unwrap_or_else(PoisonError::into_inner);
        holds.retain(|_, (hold, _, heard)| alarm(hold, *heard).is_some());
        let alarms = holds.values().filter_map(|reminded @ (hold, began, heard)| {
            Some((began.checked_add(alarm(hold, *heard)?)?, reminded.clone()))
        });
        alarms.min_by_key(|(at, _)| *at)
    }

    /// People have heard of it `after` it was held; `None` if they need not hear again.
    fn told(&self, id: HoldId, after: Option<Duration>) {
        let mut holds = self.holds.lock().unwrap_or_else(PoisonError::into_inner);
        match (after, holds.get_mut(&id)) {
            (Some(after), Some((_, _, heard))) => *heard = after,
            _ => drop(holds.remove(&id)),
        }
    }
}

/// For how long a hold waits at most.
fn lifetime(hold: &NewHold) -> Option<Duration> {
    Duration::try_from(hold.expires_at.duration_since(hold.created_at)).ok()
}

/// When people are to hear of it next, after `heard`, if the call still waits then.
fn alarm(hold: &NewHold, heard: Duration) -> Option<Duration> {
    let after = hold.quorum.as_ref()?.next_alarm(heard)?;
    (after < lifetime(hold)?).then_some(after)
}

impl Gate {
    /// Reminds those who may decide, and brings others in when the rules say so, for as long as this gate runs; also for what
    /// other gates have left when they ended. To be run once.
    pub async fn keep_reminding(&self) {
        let mut looks = tokio::time::interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let changed = self.reminders.changed.notified();
            let next = self.reminders.next();
            let due = async {
                match &next {
                    Some((at, _)) => tokio::time::sleep_until(*at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = changed => continue,
                _ = looks.tick() => {
                    self.find_left_behind().await;
                    continue;
                }
                () = self.reminders.made_again.notified() => {
                    self.find_left_behind().await;
                    continue;
                }
                () = due => {}
            }
            let Some((_, (hold, began, heard))) = next else { continue };
            // What was missed while no gate ran, or the machine slept, is told once.
            let waited = began.elapsed().max(alarm(&hold, heard).unwrap_or_default());
            let to = hold.quorum.as_ref().map_or_else(Vec::new, |quorum| {
                quorum.brought_in(heard, waited).into_iter().map(str::to_owned).collect()
            });
            // The record knows best whether it still waits, with or without a caller.
            let record = self.store.hold(hold.id).await.ok().flatten();
            let record = record.filter(|record| record.state == State::Held);
            self.reminders.told(hold.id, record.is_some().then_some(waited));
            if let Some(record) = record {
                self.remind(Arc::new(record.hold), waited, to).await;
            }
        }
    }

    /// Takes over what dead gates have left, and reminds of what has no caller elsewhere.
    async fn find_left_behind(&self) {
        let found = match self.take_over_dead().await {
            Ok(_) => self.store.reminded(Arc::clone(&self.instance), REMINDED_MAX).await,
            Err(error) => Err(error),
        };
        match found {
            Ok(found) => found.into_iter().for_each(|(hold, heard)| self.reminders.resume(hold, heard)),
            Err(error) => tracing::debug!(%error, "what other gates have left could not be looked for"),
        }
    }

    async fn remind(&self, hold: Arc<NewHold>, waited: Duration, to: Vec<String>) {
        let note =
            if to.is_empty() { "a reminder".to_owned() } else { format!("now also {}", to.join(", ")) };
        fail_point!("reminder.before_record");
        // Of several gates on the record one tells of it.
        match self.store.hear(hold.id, waited, note, Arc::clone(&self.instance)).await {
            Ok(true) => {
                fail_point!("reminder.after_record");
                self.announce(News::Waiting { hold, to });
            }
            Ok(false) => {}
            Err(error) => tracing::warn!(hold = %hold.id, %error, "a reminder could not be recorded"),
        }
    }
}
