//! The statements of the outbox: what channels are to be told, who sends it, and what became of it.
//!
//! Called by `writer` inside its transaction, so that of all processes on the record one puts an entry in, and one at a time
//! has it; and by `reader`. Knows nothing of what a channel is.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::{
    error::StoreError,
    sql::{Sql, integer, nanoseconds, one, params},
};
use crate::{digest::Digest, hold::HoldId};

/// How long the entries that have ended are kept, in days.
const KEPT_DAYS: i64 = 30;

/// What an entry tells of a hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum News {
    /// It is held.
    Held,
    /// Somebody has voted, and more people are needed.
    Voted,
    /// It still waits: a reminder, or others may decide too from now on.
    Waiting,
    /// It has reached another state.
    Ended,
}

impl News {
    /// The word in the record and in what is sent.
    pub fn word(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::Voted => "voted",
            Self::Waiting => "waiting",
            Self::Ended => "ended",
        }
    }

    fn from_word(word: &str) -> Option<Self> {
        [Self::Held, Self::Voted, Self::Waiting, Self::Ended].into_iter().find(|news| news.word() == word)
    }
}

/// Something to be told.
#[derive(Clone, Debug)]
pub struct NewEntry {
    /// The hold.
    pub hold: HoldId,
    /// The line of the audit log that it tells of.
    pub line: u64,
    /// What it tells.
    pub news: News,
}

/// An entry that this process has claimed, and that nobody else sends meanwhile.
#[derive(Clone, Debug)]
pub struct Claimed {
    /// Its number in this record.
    pub id: i64,
    /// The hold.
    pub hold: HoldId,
    /// The line of the audit log that it tells of.
    pub line: u64,
    /// What it tells.
    pub news: News,
    /// How often it was claimed, this time included.
    pub attempts: u32,
    /// The name that the service gave to the message about this hold, if there is one.
    pub message: Option<String>,
}

/// What became of a claimed entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delivered {
    /// It was sent. With the name that the service gave to the message, if it gives names.
    Sent(Option<String>),
    /// There was nothing to send.
    Skipped,
    /// It is not tried any more, and why.
    GivenUp(String),
    /// It is tried again then, and why.
    Again(Timestamp, String),
}

/// What is to be written.
#[derive(Debug)]
pub(super) enum Change {
    Fill { channel: Arc<str>, seen: Option<u64>, now_seen: u64, entries: Vec<NewEntry>, at: Timestamp },
    Claim { channel: Arc<str>, by: Arc<str>, at: Timestamp, until: Timestamp },
    Deliver { id: i64, by: Arc<str>, delivered: Delivered, at: Timestamp },
    UseOnce { what: Digest, until: Timestamp, at: Timestamp },
    Unuse { what: Digest },
}

/// What comes of it.
#[derive(Debug)]
pub(super) enum Changed {
    /// Whether it was this one that did it.
    Done(bool),
    Claimed(Option<Claimed>),
}

/// How the outbox of a channel stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OutboxCounts {
    /// Entries that are to be sent.
    pub waiting: u64,
    /// Entries that were given up.
    pub given_up: u64,
    /// Why the newest of those was not sent that was not, if any was not.
    pub last_error: Option<String>,
}

const SEEN: &str = "SELECT seen FROM channels WHERE name = ?1";
const BEGIN: &str = "INSERT INTO channels (name, seen) VALUES (?1, ?2) ON CONFLICT DO NOTHING";
const LOOKED: &str = "UPDATE channels SET seen = ?3 WHERE name = ?1 AND seen = ?2";
const INSERT: &str = "INSERT INTO outbox (channel, hold, line, news, due_at) VALUES (?1, ?2, ?3, ?4, ?5) \
     ON CONFLICT DO NOTHING";
const FORGET: &str = "DELETE FROM outbox WHERE ended_at < ?1";
/// Of one hold, one entry at a time, in order.
const CLAIM: &str = "UPDATE outbox SET claimed_by = ?2, claimed_until = ?4, attempts = attempts + 1 WHERE id = ( \
     SELECT o.id FROM outbox o WHERE o.channel = ?1 AND o.ended_at IS NULL AND o.due_at <= ?3 \
     AND (o.claimed_until IS NULL OR o.claimed_until <= ?3) AND NOT EXISTS (SELECT 1 FROM outbox e \
     WHERE e.channel = o.channel AND e.hold = o.hold AND e.ended_at IS NULL AND e.id < o.id) ORDER BY o.id LIMIT 1 /* SKIP LOCKED */) \
     RETURNING id, hold, line, news, attempts, \
     (SELECT m.message FROM messages m WHERE m.channel = outbox.channel AND m.hold = outbox.hold)";
/// When the next entry can be claimed; one that is behind another of the same hold has to wait for that.
const NEXT: &str = "SELECT min(CASE WHEN o.due_at < coalesce(o.claimed_until, 0) THEN o.claimed_until ELSE o.due_at END) FROM outbox o WHERE o.channel = ?1 \
     AND o.ended_at IS NULL AND NOT EXISTS (SELECT 1 FROM outbox e WHERE e.channel = o.channel AND e.hold = o.hold \
     AND e.ended_at IS NULL AND e.id < o.id)";
const END: &str = "UPDATE outbox SET ended_at = ?3, outcome = ?4, note = ?5, claimed_by = NULL, claimed_until = NULL \
     WHERE id = ?1 AND claimed_by = ?2 AND ended_at IS NULL";
const AGAIN: &str = "UPDATE outbox SET due_at = ?3, note = ?4, claimed_by = NULL, claimed_until = NULL \
     WHERE id = ?1 AND claimed_by = ?2 AND ended_at IS NULL";
const NAME: &str = "INSERT INTO messages (channel, hold, message) SELECT channel, hold, ?2 FROM outbox WHERE id = ?1 \
     ON CONFLICT (channel, hold) DO UPDATE SET message = excluded.message";
const MESSAGE: &str = "SELECT message FROM messages WHERE channel = ?1 AND hold = ?2";
const COUNTS: &str = "SELECT count(*) FILTER (WHERE ended_at IS NULL), count(*) FILTER (WHERE outcome = 'given_up'), \
     (SELECT note FROM outbox WHERE channel = ?1 AND note IS NOT NULL ORDER BY id DESC LIMIT 1) \
     FROM outbox WHERE channel = ?1";
const FORGET_USED: &str = "DELETE FROM used WHERE until_at <= ?1";
const USE: &str = "INSERT INTO used (what, until_at) VALUES (?1, ?2) ON CONFLICT DO NOTHING";
const UNUSE: &str = "DELETE FROM used WHERE what = ?1";

pub(super) fn change(db: &dyn Sql, change: &Change) -> Result<Changed, StoreError> {
    match change {
        Change::Fill { channel, seen, now_seen, entries, at } => {
            fill(db, channel, *seen, *now_seen, entries, *at).map(Changed::Done)
        }
        Change::Claim { channel, by, at, until } => claim(db, channel, by, *at, *until).map(Changed::Claimed),
        Change::Deliver { id, by, delivered, at } => deliver(db, *id, by, delivered, *at).map(Changed::Done),
        Change::UseOnce { what, until, at } => {
            db.put(FORGET_USED, params![nanoseconds(*at)?])?;
            let rows = db.execute(USE, params![what, nanoseconds(*until)?])?;
            Ok(Changed::Done(rows == 1))
        }
        Change::Unuse { what } => Ok(Changed::Done(db.execute(UNUSE, params![what])? == 1)),
    }
}

/// Puts entries in, if nobody else has looked at the log for this channel since `seen`.
fn fill(
    db: &dyn Sql,
    channel: &str,
    seen: Option<u64>,
    now_seen: u64,
    entries: &[NewEntry],
    at: Timestamp,
) -> Result<bool, StoreError> {
    let rows = match seen {
        None => db.execute(BEGIN, params![channel, integer(now_seen)])?,
        Some(seen) => db.execute(LOOKED, params![channel, integer(seen), integer(now_seen)])?,
    };
    if rows != 1 {
        return Ok(false);
    }
    for entry in entries {
        let due = nanoseconds(at)?;
        db.put(INSERT, params![channel, entry.hold, integer(entry.line), entry.news.word(), due])?;
    }
    let kept = SignedDuration::from_hours(24 * KEPT_DAYS);
    let since = at.checked_sub(kept).unwrap_or(at);
    db.put(FORGET, params![nanoseconds(since)?])?;
    Ok(true)
}

fn claim(
    db: &dyn Sql,
    channel: &str,
    by: &str,
    at: Timestamp,
    until: Timestamp,
) -> Result<Option<Claimed>, StoreError> {
    one(db, CLAIM, params![channel, by, nanoseconds(at)?, nanoseconds(until)?], |row| {
        let news = row.get::<String>(3)?;
        Ok(Claimed {
            id: row.get(0)?,
            hold: row.get(1)?,
            line: row.get(2)?,
            news: News::from_word(&news).ok_or(StoreError::Unreadable { column: 3 })?,
            attempts: row.get(4)?,
            message: row.get(5)?,
        })
    })
}

/// Writes down what became of an entry, unless its claim has run out and somebody else has it now.
fn deliver(
    db: &dyn Sql,
    id: i64,
    by: &str,
    delivered: &Delivered,
    at: Timestamp,
) -> Result<bool, StoreError> {
    let (outcome, note) = match delivered {
        Delivered::Again(due, why) => {
            let rows = db.execute(AGAIN, params![id, by, nanoseconds(*due)?, why])?;
            return Ok(rows == 1);
        }
        Delivered::Sent(name) => {
            if let Some(name) = name {
                // Also where the claim has run out: the message is there.
                db.put(NAME, params![id, name])?;
            }
            ("sent", None)
        }
        Delivered::Skipped => ("skipped", None),
        Delivered::GivenUp(why) => ("given_up", Some(why)),
    };
    Ok(db.execute(END, params![id, by, nanoseconds(at)?, outcome, note])? == 1)
}

/// The last line of the log that was looked at for a channel; none for a new one.
pub(super) fn seen(db: &dyn Sql, channel: &str) -> Result<Option<u64>, StoreError> {
    one(db, SEEN, params![channel], |row| row.get(0))
}

/// When the next entry of a channel can be claimed.
pub(super) fn next(db: &dyn Sql, channel: &str) -> Result<Option<Timestamp>, StoreError> {
    Ok(one(db, NEXT, params![channel], |row| row.get(0))?.flatten())
}

/// The name that a service has given to the message about a hold.
pub(super) fn message(db: &dyn Sql, channel: &str, hold: HoldId) -> Result<Option<String>, StoreError> {
    one(db, MESSAGE, params![channel, hold], |row| row.get(0))
}

/// How the outbox of a channel stands.
pub(super) fn counts(db: &dyn Sql, channel: &str) -> Result<OutboxCounts, StoreError> {
    let counts = one(db, COUNTS, params![channel], |row| {
        Ok(OutboxCounts { waiting: row.get(0)?, given_up: row.get(1)?, last_error: row.get(2)? })
    })?;
    Ok(counts.unwrap_or_default())
}
