//! The statements of tasks: a grant that the client's next question redeems, and the answer that it comes back for.
//!
//! Called by `writer` inside its transaction and by readers. Decides nothing: what may happen is said by `hold`.

use std::time::Duration;

use jiff::Timestamp;

use super::{
    Arrived, KEY_BYTES, TaskAnswer,
    error::StoreError,
    sql::{Sql, integer, nanoseconds, one, params},
    statements::{end, hold_without_frame},
    waiting::{is_bound, lapse, take},
};
use crate::{
    audit::Checkpoint,
    hold::{Approval, Arrival, HoldId, HoldRecord, NewHold, State},
};

const INSERT_ANSWER: &str =
    "INSERT INTO answers (hold, is_error, answer, kept_until) VALUES (?1, ?2, ?3, ?4)";
const INSERT_KEY: &str = "INSERT INTO keys (name, key) VALUES (?1, ?2) ON CONFLICT (name) DO NOTHING";
const KEY: &str = "SELECT key FROM keys WHERE name = ?1";
const REPLACE_ANSWER: &str = "UPDATE answers SET is_error = ?3, answer = ?4, kept_until = ?5 WHERE hold = ?1 AND is_error = 0 AND answer = ?2";
const ANSWER: &str = "SELECT a.is_error, a.answer FROM answers a JOIN holds h ON h.seq = a.hold WHERE h.id = ?1 AND a.kept_until > ?2";
const FORGET: &str = "DELETE FROM answers WHERE kept_until <= ?1";

/// Lets `call` redeem the grant `id`, if it is one, if `call` is the call that was granted, and if the rules want the same.
pub(super) fn redeem(
    db: &dyn Sql,
    head: &mut Checkpoint,
    id: HoldId,
    call: &NewHold,
    at: Timestamp,
) -> Result<Option<Box<HoldRecord>>, StoreError> {
    let (seq, found) = hold_without_frame(db, id)?;
    let found = lapse(db, head, seq, &found, at)?.unwrap_or(found);
    let is_it = found.hold.call_sha256.is_some() && found.hold.call_sha256 == call.call_sha256;
    if !is_it || found.standing().arrival(at, is_bound(&found.hold, call)) != Arrival::Redeem {
        return Ok(None);
    }
    match take(db, head, seq, found, &Arrival::Redeem, call, at)? {
        Arrived::Redeemed(record) => Ok(Some(record)),
        _ => Ok(None),
    }
}

/// The server has answered the call of `id`: the end and the answer, which is kept for so long, are one commit.
pub(super) fn answer(
    db: &dyn Sql,
    head: &mut Checkpoint,
    id: HoldId,
    (answer, kept): (&TaskAnswer, Duration),
    at: Timestamp,
) -> Result<(), StoreError> {
    end(db, head, id, State::Answered, (&[], &Approval::default()), None, at)?;
    let (seq, _) = hold_without_frame(db, id)?;
    let (is_error, text) = written(answer);
    let kept_until = nanoseconds(at.checked_add(kept).unwrap_or(at))?;
    db.put(INSERT_ANSWER, params![integer(seq), is_error, text, kept_until])
}

/// Puts another answer in the place of the result `known` of `id`, if that is the one that is kept.
pub(super) fn answer_instead(
    db: &dyn Sql,
    id: HoldId,
    known: &str,
    (answer, kept): (&TaskAnswer, Duration),
    at: Timestamp,
) -> Result<bool, StoreError> {
    let (seq, _) = hold_without_frame(db, id)?;
    let (is_error, text) = written(answer);
    let kept_until = nanoseconds(at.checked_add(kept).unwrap_or(at))?;
    Ok(db.execute(REPLACE_ANSWER, params![integer(seq), known, is_error, text, kept_until])? == 1)
}

fn written(answer: &TaskAnswer) -> (bool, &str) {
    match answer {
        TaskAnswer::Result(text) => (false, text),
        TaskAnswer::Error(text) => (true, text),
    }
}

/// The secret of this name; `fresh` if there was none.
pub(super) fn key(
    db: &dyn Sql,
    name: &'static str,
    fresh: &[u8; KEY_BYTES],
) -> Result<[u8; KEY_BYTES], StoreError> {
    db.execute(INSERT_KEY, params![name, fresh.as_slice()])?;
    let key = one(db, KEY, params![name], |row| row.get::<Vec<u8>>(0))?;
    key.and_then(|key| key.try_into().ok()).ok_or(StoreError::BadKey(name))
}

/// The answer to the call of `id`, if there is one that may still be asked for.
pub(super) fn answer_of(db: &dyn Sql, id: HoldId, at: Timestamp) -> Result<Option<TaskAnswer>, StoreError> {
    one(db, ANSWER, params![id, nanoseconds(at)?], |row| {
        let (is_error, text): (bool, String) = (row.get(0)?, row.get(1)?);
        Ok(if is_error { TaskAnswer::Error(text) } else { TaskAnswer::Result(text) })
    })
}

/// Deletes the answers that nobody may ask for any more.
pub(super) fn forget(db: &dyn Sql, at: Timestamp) -> Result<(), StoreError> {
    db.put(FORGET, params![nanoseconds(at)?])
}
