//! Fills the outbox from the audit log, and empties it into the channels.
//!
//! Run by the desk, for as long as it serves. What has happened is read from the record alone, so news of the time before a desk
//! began, or of another process, are told like any other. Each channel has a place of its own in the log; of several desks on one
//! record, one puts an entry in and one at a time sends it. Entries of one hold are sent in order; holds do not wait for each other.

use std::{
    collections::{HashMap, HashSet, hash_map::Entry},
    sync::Arc,
    time::Duration,
};

use futures_util::future::join_all;
use jiff::{SignedDuration, Timestamp};
use tokio::{
    sync::Notify,
    time::{sleep, timeout},
};

use super::{Channel, Channels, Links, NotSent, SEND_SECONDS_MAX, Telling};
use crate::{
    audit::{AuditEvent, EventKind, Occasion},
    control::api::HoldView,
    hold::{HoldId, HoldRecord, Quorum, State},
    meter::Delivery,
    store::{Claimed, Delivered, NewEntry, News, Store, StoreError},
};

/// How often the log is looked at where nobody says that there is something new.
const LOOK: Duration = Duration::from_secs(1);

/// How long a sender rests that has nothing to send and hears of nothing.
const REST: Duration = Duration::from_secs(5);

/// How long everything rests when the record cannot be used.
const REST_AFTER_FAILURE: Duration = Duration::from_secs(10);

/// Lines of the log that are looked at together.
const LINES_AT_ONCE: usize = 500;

/// Holds that are looked at together, when a channel is new.
const HOLDS_AT_ONCE: usize = 500;

/// What one channel sends at the same time.
const SENDERS: usize = 4;

/// How long a claim lasts: whoever has not said by then what became of it is taken for dead.
const CLAIM_SECONDS: i64 = 4 * SEND_SECONDS_MAX as i64;

/// The pause after the first failure; it doubles with each.
const PAUSE_FIRST: Duration = Duration::from_secs(1);

/// The longest pause, unless a service asks for more.
const PAUSE_MAX: Duration = Duration::from_secs(300);

/// How often something is tried before it is given up: for some two hours.
const ATTEMPTS_MAX: u32 = 32;

/// What it depends on which channels hear of a hold.
struct About {
    held_at: Timestamp,
    quorum: Option<Arc<Quorum>>,
}

impl About {
    fn of(record: &HoldRecord) -> Self {
        Self { held_at: record.hold.created_at, quorum: record.hold.quorum.clone() }
    }
}

/// What fills and empties the outbox of a record.
#[derive(Debug)]
pub struct Dispatcher {
    store: Store,
    channels: Arc<Channels>,
    /// Where the desk is.
    origin: String,
    /// What makes links that decide.
    links: Arc<Links>,
    /// This process, among those on the record.
    by: Arc<str>,
    /// There is something new in the log.
    news: Arc<Notify>,
    /// There is something new in the outbox.
    filled: Notify,
}

impl Dispatcher {
    /// For the desk at `origin`, which is called `by` among the processes on the record. `news` says when to look at the log.
    pub fn new(
        store: Store,
        channels: Arc<Channels>,
        origin: String,
        links: Arc<Links>,
        by: Arc<str>,
        news: Arc<Notify>,
    ) -> Self {
        Self { store, channels, origin, links, by, news, filled: Notify::new() }
    }

    /// Works until it is dropped.
    pub async fn run(&self) {
        let senders = self.channels.iter().flat_map(|channel| (0..SENDERS).map(move |_| self.send(channel)));
        tokio::join!(self.fill(), join_all(senders));
    }

    // --- filling

    async fn fill(&self) {
        let mut looked_at = None;
        loop {
            let news = self.news.notified();
            match self.look(&mut looked_at).await {
                Ok(()) => drop(timeout(LOOK, news).await),
                Err(error) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "the outbox cannot be filled from the record"
                    );
                    sleep(REST_AFTER_FAILURE).await;
                }
            }
        }
    }

    /// Looks at what is new in the log, for every channel.
    async fn look(&self, looked_at: &mut Option<u64>) -> Result<(), StoreError> {
        let end = self.store.checkpoint().await?.seq;
        if *looked_at == Some(end) {
            return Ok(());
        }
        let mut holds = HashMap::new();
        let mut filled = false;
        for channel in self.channels.iter() {
            while let Some(some) = self.look_for(channel, &mut holds).await? {
                filled |= some;
            }
        }
        *looked_at = Some(end);
        if filled {
            self.filled.notify_waiters();
        }
        Ok(())
    }

    /// Takes one step for a channel: whether there was something to tell, or none if it has seen all of the log.
    async fn look_for(
        &self,
        channel: &Arc<Channel>,
        holds: &mut HashMap<HoldId, Option<About>>,
    ) -> Result<Option<bool>, StoreError> {
        let name = Arc::clone(&channel.outbox);
        let Some(seen) = self.store.outbox_seen(&name).await? else {
            return self.begin(channel).await.map(Some);
        };
        let lines = self.store.audit_events(seen, LINES_AT_ONCE).await?;
        let Some(last) = lines.last().map(|line| line.seq) else { return Ok(None) };
        let mut entries = Vec::new();
        for line in lines {
            // A line of a later version may tell of something that this one has no word for.
            let Ok(event) = line.event() else { continue };
            let (Some(news), Some(hold)) = (news_of(&event), event.hold) else { continue };
            let about = match holds.entry(hold) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(new) => {
                    new.insert(self.store.hold(hold).await?.map(|record| About::of(&record)))
                }
            };
            if about.as_ref().is_some_and(|about| self.hears(channel, about, event.at)) {
                entries.push(NewEntry { hold, line: line.seq, news });
            }
        }
        let some = !entries.is_empty();
        self.store.fill_outbox(name, Some(seen), last, entries).await?;
        Ok(Some(some))
    }

    /// A channel that is new to the record hears of what waits, and of what comes.
    async fn begin(&self, channel: &Arc<Channel>) -> Result<bool, StoreError> {
        let end = self.store.checkpoint().await?.seq;
        let (now, mut place, mut waiting) = (Timestamp::now(), None, Vec::new());
        loop {
            let page = self.store.decidable_holds(place, HOLDS_AT_ONCE).await?;
            let Some(last) = page.last() else { break };
            place = Some(last.record.hold.place());
            let records = page.iter().map(|listed| &listed.record);
            let heard = records
                .filter(|record| record.state == State::Held)
                .filter(|record| self.hears(channel, &About::of(record), now));
            waiting.extend(heard.map(|record| record.hold.id));
        }
        // What was held since the end was looked at is told when its line is.
        let mut told_later = HashSet::new();
        let mut after = end;
        loop {
            let lines = self.store.audit_events(after, LINES_AT_ONCE).await?;
            let Some(last) = lines.last() else { break };
            after = last.seq;
            let events = lines.iter().filter_map(|line| line.event().ok());
            told_later.extend(
                events.filter(|event| news_of(event) == Some(News::Held)).filter_map(|event| event.hold),
            );
        }
        let entries: Vec<NewEntry> = waiting
            .into_iter()
            .filter(|hold| !told_later.contains(hold))
            .map(|hold| NewEntry { hold, line: 0, news: News::Held })
            .collect();
        let some = !entries.is_empty();
        self.store.fill_outbox(Arc::clone(&channel.outbox), None, end, entries).await?;
        Ok(some)
    }

    /// Whether a channel hears of what happened to a hold at `at`.
    fn hears(&self, channel: &Channel, about: &About, at: Timestamp) -> bool {
        let waited = Duration::try_from(at.duration_since(about.held_at)).unwrap_or_default();
        let is_usual = self.channels.is_usual(&channel.name);
        let quorum = about.quorum.as_ref();
        quorum.map_or(is_usual, |quorum| quorum.notifies(&channel.name, is_usual, waited))
    }

    // --- sending

    async fn send(&self, channel: &Arc<Channel>) {
        loop {
            let filled = self.filled.notified();
            match self.turn(channel).await {
                Ok(None) => {}
                Ok(Some(rest)) => drop(timeout(rest, filled).await),
                Err(error) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "the outbox cannot be read or written"
                    );
                    sleep(REST_AFTER_FAILURE).await;
                }
            }
        }
    }

    /// Sends one entry, if one is due; else says how long there is nothing to do.
    async fn turn(&self, channel: &Arc<Channel>) -> Result<Option<Duration>, StoreError> {
        let now = Timestamp::now();
        let Some(next) = self.store.outbox_next(&channel.outbox).await? else { return Ok(Some(REST)) };
        if next > now {
            let left = Duration::try_from(next.duration_since(now)).unwrap_or_default();
            return Ok(Some(left.min(REST)));
        }
        let until = now.saturating_add(SignedDuration::from_secs(CLAIM_SECONDS)).unwrap_or(Timestamp::MAX);
        let (name, by) = (Arc::clone(&channel.outbox), Arc::clone(&self.by));
        let Some(entry) = self.store.claim_entry(name, by, until).await? else {
            // Another sender was quicker.
            return Ok(None);
        };
        let delivered = self.deliver(channel, &entry).await?;
        self.store.meter().delivered(&channel.outbox, counted(&delivered));
        self.store.delivered(entry.id, Arc::clone(&self.by), delivered).await?;
        // What stood behind it in its hold's row can be sent now.
        self.filled.notify_waiters();
        Ok(None)
    }

    /// Sends an entry, and says what became of it.
    async fn deliver(&self, channel: &Channel, entry: &Claimed) -> Result<Delivered, StoreError> {
        let Some(record) = self.store.hold(entry.hold).await? else { return Ok(Delivered::Skipped) };
        if !channel.kind.tells_everything() {
            // Whoever would hear of it now could not decide any more.
            let waits = record.state == State::Held && Timestamp::now() < record.hold.expires_at;
            let is_over = entry.news != News::Ended && !waits;
            let was_never_told = entry.news == News::Ended && entry.message.is_none();
            if is_over || was_never_told {
                return Ok(Delivered::Skipped);
            }
        }
        let hold = HoldView::whole(&record);
        let id = format!("hs_{}_{}", entry.hold, entry.line);
        let link = format!("{}/holds/{}", self.origin, entry.hold);
        let message = entry.message.as_deref();
        let telling =
            Telling { news: entry.news, hold: &hold, id: &id, link: &link, message, links: &self.links };
        Ok(match channel.tell(&telling).await {
            Ok(name) => Delivered::Sent(name),
            Err(NotSent::Again { why, after }) if entry.attempts < ATTEMPTS_MAX => {
                let pause = pause(entry.attempts, after);
                tracing::warn!(channel = %channel.outbox, hold = %entry.hold, why, ?pause, "not sent; it is tried again");
                let pause = SignedDuration::try_from(pause).unwrap_or(SignedDuration::ZERO);
                let due = Timestamp::now().saturating_add(pause).unwrap_or(Timestamp::MAX);
                Delivered::Again(due, why)
            }
            Err(NotSent::Again { why, .. } | NotSent::Never(why)) => {
                tracing::error!(channel = %channel.outbox, hold = %entry.hold, why, "not sent, and given up");
                Delivered::GivenUp(why)
            }
        })
    }
}

/// What is counted of a delivery.
fn counted(delivered: &Delivered) -> Delivery {
    match delivered {
        Delivered::Sent(_) => Delivery::Sent,
        Delivered::Again(..) => Delivery::Again,
        Delivered::GivenUp(_) => Delivery::GivenUp,
        Delivered::Skipped => Delivery::Skipped,
    }
}

/// What an event is to a channel.
fn news_of(event: &AuditEvent) -> Option<News> {
    match event.kind {
        EventKind::State(State::Held) => Some(News::Held),
        // The decision was told; that the call has run is for the record.
        EventKind::State(State::Answered | State::Ran | State::NotRun) => None,
        EventKind::State(_) => Some(News::Ended),
        EventKind::Occasion(Occasion::Voted) => Some(News::Voted),
        EventKind::Occasion(Occasion::Escalated) => Some(News::Waiting),
        EventKind::Occasion(_) => None,
    }
}

/// How long to wait after so many attempts: doubled each time, and up to half of it left to chance, so that what has failed
/// together does not come back together. `asked`: what the service wants at least.
pub fn pause(attempts: u32, asked: Option<Duration>) -> Duration {
    let doubled = PAUSE_FIRST.saturating_mul(1 << attempts.saturating_sub(1).min(16)).min(PAUSE_MAX);
    let mut random = [0; 4];
    // Without random numbers it waits the whole time.
    let chance = getrandom::fill(&mut random)
        .map_or(1.0, |()| f64::from(u32::from_be_bytes(random)) / f64::from(u32::MAX));
    doubled.mul_f64(0.5 + chance / 2.0).max(asked.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_and_end_and_a_service_may_ask_for_more() {
        for (attempts, least, most) in
            [(1, 0.5, 1.0), (2, 1.0, 2.0), (5, 8.0, 16.0), (10, 150.0, 300.0), (32, 150.0, 300.0)]
        {
            let pause = pause(attempts, None).as_secs_f64();
            assert!((least..=most).contains(&pause), "{attempts}: {pause}");
        }
        assert_eq!(pause(1, Some(Duration::from_secs(30))), Duration::from_secs(30));
    }
}
