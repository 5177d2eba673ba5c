//! What there is to show of a process at this moment: what it has counted, what waits, and whether it can do its work.
//!
//! Asked by the listener and by the sender of OTLP. It reads, and changes nothing; a record that does not answer is left out.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use jiff::Timestamp;
use serde::Serialize;
use tokio::time::timeout;

use super::log;
use crate::{
    gate::Gate,
    meter::{Family, Point, Value, family, point},
    store::Store,
};

/// How long the record may take to say how it is.
const RECORD: Duration = Duration::from_secs(2);

/// The process that is shown.
pub struct Subject {
    /// None for a process that only looks: the desk.
    gate: Option<Arc<Gate>>,
    store: Store,
    began: Timestamp,
    is_stopping: AtomicBool,
}

impl std::fmt::Debug for Subject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subject").finish_non_exhaustive()
    }
}

/// Whether a process can do its work now, as `/readyz` says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Readiness {
    /// All of what follows.
    pub(super) ready: bool,
    /// The record can be written.
    pub(super) store: Condition,
    /// It takes new calls.
    pub(super) process: Condition,
}

/// How a part is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Condition {
    Ok,
    /// It failed, or did not answer in time; the log says more.
    Failing,
    /// It ends.
    Stopping,
}

impl Subject {
    /// A process with a gate.
    pub fn gate(gate: Arc<Gate>) -> Self {
        let store = gate.store().clone();
        Self { gate: Some(gate), ..Self::store(store) }
    }

    /// A process that only uses a record.
    pub fn store(store: Store) -> Self {
        Self { gate: None, store, began: Timestamp::now(), is_stopping: AtomicBool::new(false) }
    }

    /// From now on the process takes nothing new.
    pub fn stopping(&self) {
        self.is_stopping.store(true, Ordering::Relaxed);
    }

    /// When the process began.
    pub(super) fn began(&self) -> Timestamp {
        self.began
    }

    async fn is_store_ready(&self) -> bool {
        timeout(RECORD, self.store.ready()).await.is_ok_and(|ready| ready.is_ok())
    }

    /// Whether it can do its work now.
    pub(super) async fn readiness(&self) -> Readiness {
        let store = if self.is_store_ready().await { Condition::Ok } else { Condition::Failing };
        let is_stopping = self.is_stopping.load(Ordering::Relaxed);
        let process = if is_stopping { Condition::Stopping } else { Condition::Ok };
        Readiness { ready: store == Condition::Ok && !is_stopping, store, process }
    }

    /// All numbers, in the order of [`crate::meter::FAMILIES`].
    pub(super) async fn families(&self) -> Vec<Family> {
        let mut families = self.store.meter().families();
        if let Some(dropped) = families.iter_mut().find(|one| one.name() == "holdshort.events.dropped") {
            dropped.points.push(point(&[("what", "log")], Value::Count(log::left_out())));
        }
        let now = Timestamp::now();
        let mut level = |name, points| families.extend(family(name, points));
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        level("holdshort.build.info", vec![point(&version, Value::Level(1.0))]);
        level("holdshort.process.start", vec![level_of(self.began.as_duration().as_secs_f64())]);
        level("holdshort.process.memory", resident_bytes().map(level_of).into_iter().collect());
        if let Some(gate) = &self.gate {
            let waiting = gate.waiting();
            level("holdshort.holds.open", vec![point(&[], Value::Level(number(waiting.holds)))]);
            level("holdshort.holds.oldest.age", vec![level_of(age(waiting.oldest, now))]);
        }
        let ready = self.is_store_ready().await;
        level("holdshort.store.ready", vec![level_of(f64::from(u8::from(ready)))]);
        if ready && let Ok(Ok(open)) = timeout(RECORD, self.store.open_counts()).await {
            let of = |(state, count): &(crate::hold::State, u64)| {
                let count = usize::try_from(*count).unwrap_or(usize::MAX);
                point(&[("state", state.word())], Value::Level(number(count)))
            };
            level("holdshort.record.holds", open.states.iter().map(of).collect());
            level("holdshort.record.oldest.age", vec![level_of(age(open.oldest, now))]);
        }
        let place =
            |family: &Family| crate::meter::FAMILIES.iter().position(|known| known.name == family.name());
        families.sort_by_key(place);
        families
    }
}

/// A level without labels.
fn level_of(level: f64) -> Point {
    point(&[], Value::Level(level))
}

/// How long it is since then. A clock that was set back makes no age negative.
fn age(since: Option<Timestamp>, now: Timestamp) -> f64 {
    since.map_or(0.0, |since| now.duration_since(since).as_secs_f64().max(0.0))
}

#[expect(clippy::cast_precision_loss, reason = "exact up to 2^53, far above any number of holds")]
fn number(count: usize) -> f64 {
    count as f64
}

/// Memory of this process that is resident, in bytes.
fn resident_bytes() -> Option<f64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: usize = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(number(kib.checked_mul(1024)?))
}
