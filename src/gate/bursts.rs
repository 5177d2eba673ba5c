//! The alarm for more held calls than people can look at: an agent that goes round in a loop, or somebody who tires approvers.
//!
//! A part of `gate`, which counts each new hold here. It tells, once a minute for each server; it never decides, and keeps nothing from
//! running or waiting.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use tokio::time::Instant;

use super::Gate;
use crate::{
    audit::{AuditEvent, Occasion},
    hold::NewHold,
};

/// New holds of one server within [`WINDOW`] that are a burst.
const BURST_HOLDS: u32 = 100;

/// In what time.
const WINDOW: Duration = Duration::from_secs(60);

/// Servers that are counted. Beyond that all begin anew.
const SERVERS_MAX: usize = 1024;

/// How many calls of each server have been held lately.
#[derive(Default)]
pub(super) struct Bursts {
    servers: Mutex<HashMap<Arc<str>, (Instant, u32)>>,
}

impl Bursts {
    /// One more call of `server` is held: whether that makes it a burst, which is said once in each window.
    fn is_burst(&self, server: &Arc<str>) -> bool {
        let now = Instant::now();
        let mut servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        if servers.len() >= SERVERS_MAX && !servers.contains_key(server) {
            servers.clear();
        }
        let (since, holds) = servers.entry(Arc::clone(server)).or_insert((now, 0));
        if now.duration_since(*since) >= WINDOW {
            (*since, *holds) = (now, 0);
        }
        *holds = holds.saturating_add(1);
        *holds == BURST_HOLDS
    }
}

impl Gate {
    /// Counts a new hold, and tells the log and the record if it is one of a burst.
    pub(super) fn count_burst(&self, hold: &NewHold) {
        if !self.bursts.is_burst(&hold.server) {
            return;
        }
        tracing::warn!(
            server = &*hold.server,
            holds = BURST_HOLDS,
            seconds = WINDOW.as_secs(),
            "more calls are held than people can look at: perhaps an agent goes round in a loop"
        );
        self.store.ride_along(AuditEvent {
            note: Some(format!("{BURST_HOLDS} calls of this server were held within {} s", WINDOW.as_secs())),
            ..AuditEvent::of(Occasion::Burst, hold, self.instance(), Timestamp::now())
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_burst_is_told_of_once_a_minute_and_for_each_server() {
        let bursts = Bursts::default();
        let (billing, deploy): (Arc<str>, Arc<str>) = ("billing".into(), "deploy".into());
        let told = |server: &Arc<str>, holds: u32| (0..holds).filter(|_| bursts.is_burst(server)).count();
        assert_eq!(told(&billing, BURST_HOLDS - 1), 0);
        assert_eq!(told(&deploy, BURST_HOLDS - 1), 0, "another server's calls are not counted along");
        assert_eq!(told(&billing, 10 * BURST_HOLDS), 1, "once, however many");
        tokio::time::advance(WINDOW).await;
        assert_eq!(told(&billing, BURST_HOLDS), 1, "again in the next minute");
        tokio::time::advance(WINDOW).await;
        assert_eq!(told(&billing, BURST_HOLDS / 2), 0, "few are no burst");
    }
}
