//! What this process counts of its own work: calls, holds and their ends, deliveries, and how long the record takes.
//!
//! One for each process, made with its handle on the record and filled by `gate`, `store` and `channels`; read by `telemetry`,
//! which shows it to Prometheus or sends it as OTLP. Counting is an addition to a number that several threads share: nothing here
//! waits, locks or allocates on the way of a call. Labels are few and bounded: names from the configuration and words of this
//! program, never an argument, an id or a person.

mod family;
mod histogram;
mod names;

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

pub use self::{
    family::{Described, Distribution, FAMILIES, Family, Kind, Point, Value, family, point},
    histogram::Histogram,
    names::{NAMES_MAX, OTHER},
};
use self::{
    histogram::{DECISION_SECONDS, STORE_SECONDS},
    names::Named,
};

/// What the gate says of a call at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judged {
    /// It passes.
    Allow,
    /// It waits for people.
    Hold,
    /// A rule says no.
    Deny,
    /// It could be read in two ways, breaks the protocol or is over a limit.
    Refuse,
}

/// How a hold has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Approved: the call goes on, or can be made again.
    Approved,
    /// A person has said no.
    Rejected,
    /// Nobody has answered in time.
    Expired,
    /// Its caller has taken it back.
    Withdrawn,
    /// The gate could not keep its promises.
    Unavailable,
}

/// What became of an attempt to tell somebody in a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// The service has taken it.
    Sent,
    /// It has not, and it is tried again.
    Again,
    /// It has not, and never will.
    GivenUp,
    /// There was nothing to tell any more.
    Skipped,
}

/// What was asked of the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// To write, durably.
    Write,
    /// To read.
    Read,
}

/// What could not be kept, because too much of it came at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dropped {
    /// Events of the audit log that nobody waits for.
    Audit,
    /// Spans that the collector did not take in time.
    Span,
}

const JUDGED: [&str; 4] = ["allow", "hold", "deny", "refuse"];
const ENDED: [&str; 5] = ["approved", "rejected", "expired", "withdrawn", "unavailable"];
const DELIVERY: [&str; 4] = ["sent", "again", "given_up", "skipped"];
const ASKED: [&str; 2] = ["write", "read"];
const DROPPED: [&str; 2] = ["audit", "span"];
const LOADED: [&str; 2] = ["loaded", "refused"];

/// One number for each of `N` words.
#[derive(Debug)]
struct Counts<const N: usize>([AtomicU64; N]);

impl<const N: usize> Default for Counts<N> {
    fn default() -> Self {
        Self([const { AtomicU64::new(0) }; N])
    }
}

impl<const N: usize> Counts<N> {
    fn add(&self, word: usize, count: u64) {
        self.0[word].fetch_add(count, Ordering::Relaxed);
    }

    fn now(&self) -> impl Iterator<Item = u64> {
        self.0.iter().map(|count| count.load(Ordering::Relaxed))
    }
}

/// What this process has counted since it began.
#[derive(Debug)]
pub struct Meter {
    calls: Named<Counts<4>>,
    ended: Named<Counts<5>>,
    decision: [Histogram; 5],
    deliveries: Named<Counts<4>>,
    store: [Histogram; 2],
    store_failed: Counts<2>,
    dropped: Counts<2>,
    policies: Counts<2>,
}

impl Default for Meter {
    fn default() -> Self {
        Self {
            calls: Named::default(),
            ended: Named::default(),
            decision: std::array::from_fn(|_| Histogram::new(DECISION_SECONDS)),
            deliveries: Named::default(),
            store: std::array::from_fn(|_| Histogram::new(STORE_SECONDS)),
            store_failed: Counts::default(),
            dropped: Counts::default(),
            policies: Counts::default(),
        }
    }
}

impl Meter {
    /// The gate has judged a call of `server`.
    pub fn judged(&self, server: &str, judged: Judged) {
        self.calls.of(server).add(judged as usize, 1);
    }

    /// A hold of `server` has ended, `waited` after it began; none where nobody was asked.
    pub fn ended(&self, server: &str, ended: Ended, waited: Option<Duration>) {
        self.ended.of(server).add(ended as usize, 1);
        if let Some(waited) = waited {
            self.decision[ended as usize].observe(waited);
        }
    }

    /// A message was sent through `channel`, or was not.
    pub fn delivered(&self, channel: &str, delivery: Delivery) {
        self.deliveries.of(channel).add(delivery as usize, 1);
    }

    /// The record has answered after `took`. `failed`: it could not do what it was asked, for a reason of its own.
    pub fn store_answered(&self, asked: Asked, took: Duration, failed: bool) {
        self.store[asked as usize].observe(took);
        if failed {
            self.store_failed.add(asked as usize, 1);
        }
    }

    /// So much was left out.
    pub fn dropped(&self, what: Dropped, count: u64) {
        self.dropped.add(what as usize, count);
    }

    /// A policy has come into force, or was refused.
    pub fn policy_loaded(&self, is_in_force: bool) {
        self.policies.add(usize::from(!is_in_force), 1);
    }

    /// All that was counted, as families of numbers. What only others know (what waits now) is not among them.
    pub fn families(&self) -> Vec<Family> {
        let by_name = |label: &'static str,
                       words: (&'static str, &'static [&'static str]),
                       name: &str,
                       counts: Vec<u64>| {
            let named = words.1.iter().zip(counts);
            named
                .map(|(word, count)| point(&[(label, name), (words.0, word)], Value::Count(count)))
                .collect::<Vec<_>>()
        };
        let by_word = |label: &'static str, words: &'static [&'static str], counts: Vec<u64>| {
            let named = words.iter().zip(counts);
            named.map(|(word, count)| point(&[(label, word)], Value::Count(count))).collect::<Vec<_>>()
        };
        let spread = |label: &'static str, words: &'static [&'static str], all: &[Histogram]| {
            let named = words.iter().zip(all);
            named.map(|(word, one)| point(&[(label, word)], Value::Spread(one.now()))).collect::<Vec<_>>()
        };
        let calls = self
            .calls
            .map(|name, counts| by_name("server", ("effect", &JUDGED), name, counts.now().collect()));
        let ended = self
            .ended
            .map(|name, counts| by_name("server", ("outcome", &ENDED), name, counts.now().collect()));
        let deliveries = self
            .deliveries
            .map(|name, counts| by_name("channel", ("result", &DELIVERY), name, counts.now().collect()));
        let families = [
            family("holdshort.calls", calls.concat()),
            family("holdshort.holds.ended", ended.concat()),
            family("holdshort.decision.duration", spread("outcome", &ENDED, &self.decision)),
            family("holdshort.channel.deliveries", deliveries.concat()),
            family("holdshort.store.duration", spread("operation", &ASKED, &self.store)),
            family(
                "holdshort.store.failures",
                by_word("operation", &ASKED, self.store_failed.now().collect()),
            ),
            family("holdshort.events.dropped", by_word("what", &DROPPED, self.dropped.now().collect())),
            family("holdshort.policy.loads", by_word("result", &LOADED, self.policies.now().collect())),
        ];
        families.into_iter().flatten().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(families: &[Family], name: &str, labels: &[(&str, &str)]) -> Option<u64> {
        let family = families.iter().find(|family| family.name() == name)?;
        let is_it = |point: &&Point| {
            point.labels.len() == labels.len()
                && point.labels.iter().zip(labels).all(|((key, value), of)| (*key, &**value) == *of)
        };
        match family.points.iter().find(is_it)?.value {
            Value::Count(count) => Some(count),
            _ => None,
        }
    }

    #[test]
    fn what_is_counted_is_told_by_server_and_word() {
        let meter = Meter::default();
        meter.judged("billing", Judged::Hold);
        meter.judged("billing", Judged::Hold);
        meter.judged("files", Judged::Allow);
        meter.ended("billing", Ended::Rejected, Some(Duration::from_secs(3)));
        meter.dropped(Dropped::Span, 7);
        let told = meter.families();
        assert_eq!(count(&told, "holdshort.calls", &[("server", "billing"), ("effect", "hold")]), Some(2));
        assert_eq!(count(&told, "holdshort.calls", &[("server", "billing"), ("effect", "allow")]), Some(0));
        assert_eq!(count(&told, "holdshort.calls", &[("server", "files"), ("effect", "allow")]), Some(1));
        assert_eq!(
            count(&told, "holdshort.holds.ended", &[("server", "billing"), ("outcome", "rejected")]),
            Some(1)
        );
        assert_eq!(count(&told, "holdshort.events.dropped", &[("what", "span")]), Some(7));
        let decision = told.iter().find(|family| family.name() == "holdshort.decision.duration").unwrap();
        let Value::Spread(rejected) = &decision.points[1].value else { panic!("a histogram") };
        assert_eq!((rejected.count(), rejected.sum), (1, 3.0));
    }

    #[test]
    fn servers_without_end_are_one_more() {
        let meter = Meter::default();
        for number in 0..NAMES_MAX + 50 {
            meter.judged(&format!("server-{number}"), Judged::Deny);
        }
        let told = meter.families();
        assert_eq!(count(&told, "holdshort.calls", &[("server", OTHER), ("effect", "deny")]), Some(50));
        let calls = told.iter().find(|family| family.name() == "holdshort.calls").unwrap();
        assert_eq!(calls.points.len(), (NAMES_MAX + 1) * JUDGED.len());
    }

    #[test]
    fn threads_that_count_at_the_same_time_lose_nothing() {
        let meter = Meter::default();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for number in 0..10_000 {
                        meter.judged(["a", "b", "c"][number % 3], Judged::Allow);
                    }
                });
            }
        });
        let told = meter.families();
        let of =
            |server| count(&told, "holdshort.calls", &[("server", server), ("effect", "allow")]).unwrap();
        assert_eq!(of("a") + of("b") + of("c"), 40_000);
    }

    #[test]
    fn every_family_that_is_counted_is_described() {
        assert_eq!(Meter::default().families().len(), 8, "none is left out because its name is unknown");
    }
}
