//! The statements of what approvals say beyond yes: remembered approvals with their uses, and edited calls.
//!
//! Called by `writer` inside its transaction, by `waiting` when a call arrives, and by `verify`. What a remembered approval
//! covers and when it counts is said by [`Remembered`]; here it is written down.

use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;

use super::{
    error::StoreError,
    sql::{Row, Sql, collect, integer, nanoseconds, one, params},
    statements::{append, end},
};
use crate::{
    audit::{AuditEvent, Checkpoint, Occasion},
    digest::Digest,
    hold::{
        Approval, Edit, HoldId, HoldRecord, NewHold, Remembered, Remembering, Same, State, Verdict, Vote,
    },
};

macro_rules! select_remembered {
    ($rest:literal) => {
        concat!(
            "SELECT h.id, h.server, h.method, h.tool, h.principal, h.call_sha256, h.tool_sha256, h.terms_sha256, r.same, \
             r.by, r.person, r.since, r.until, r.uses_max, r.uses, r.revoked_at, r.revoked_by, r.seq, h.owner \
             FROM remembered r JOIN holds h ON r.hold = h.seq ",
            $rest
        )
    };
}

const INSERT_REMEMBERED: &str = "INSERT INTO remembered (seq, hold, same, by, person, since, until, uses_max) \
     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
const USED: &str =
    "UPDATE remembered SET uses = uses + 1 WHERE hold = (SELECT seq FROM holds WHERE id = ?1) AND uses = ?2";
const REVOKED: &str = "UPDATE remembered SET revoked_at = ?2, revoked_by = ?3 \
     WHERE hold = (SELECT seq FROM holds WHERE id = ?1) AND revoked_at IS NULL";
const REMEMBERED: &str = select_remembered!("WHERE h.id = ?1");
const REMEMBERED_FOR: &str = select_remembered!(
    "WHERE r.revoked_at IS NULL AND r.until > ?1 AND r.uses < r.uses_max AND h.server = ?2 AND h.tool = ?3 \
     AND h.principal = ?4 ORDER BY r.seq DESC LIMIT ?5"
);
const ALL_REMEMBERED: &str = select_remembered!("WHERE r.until > ?1 ORDER BY r.seq DESC LIMIT ?2");
const INSERT_EDIT: &str = "INSERT INTO edits (seq, hold, frame) VALUES (?1, ?2, ?3)";
const EDIT: &str = "SELECT e.frame FROM edits e JOIN holds h ON e.hold = h.seq WHERE h.id = ?1";

/// Remembered approvals of one tool and principal that are looked at for one call.
const LOOKED_AT_MAX: i64 = 64;

/// Writes down what the approval of `hold` by `vote` brings with it.
pub(super) fn keep(
    db: &dyn Sql,
    head: &mut Checkpoint,
    (seq, hold): (u64, &NewHold),
    vote: &Vote,
    approval: &Approval,
) -> Result<(), StoreError> {
    if let Some(edit) = &approval.edit {
        let event = append(db, head, AuditEvent::edited(hold, vote, edit))?;
        db.put(INSERT_EDIT, params![integer(event), integer(seq), edit.frame.as_ref()])?;
    }
    if let Some(Remembering { same, until, uses_max }) = approval.remember {
        let remembered = Remembered {
            of: hold.id,
            server: Arc::clone(&hold.server),
            method: Arc::clone(&hold.method),
            tool: Arc::clone(&hold.tool),
            principal: Arc::clone(&hold.principal),
            same,
            call_sha256: hold.call_sha256,
            tool_sha256: hold.tool_sha256,
            terms_sha256: hold.terms_sha256,
            by: vote.by.clone(),
            person: vote.person.clone(),
            since: vote.at,
            until,
            uses_max,
            uses: 0,
            revoked: None,
        };
        let event = append(db, head, AuditEvent::remembered(&remembered, &hold.owner))?;
        let (since, until) = (nanoseconds(remembered.since)?, nanoseconds(until)?);
        let Remembered { by, person, .. } = &remembered;
        db.put(
            INSERT_REMEMBERED,
            params![integer(event), integer(seq), same.word(), by, person, since, until, uses_max],
        )?;
    }
    Ok(())
}

/// Lets `hold`, which was recorded just now, go on under the remembered approval `of`, if that still counts. `covers`: it was
/// seen to be one of its calls.
pub(super) fn go_on(
    db: &dyn Sql,
    head: &mut Checkpoint,
    remembered: &Remembered,
    hold: &NewHold,
    at: Timestamp,
) -> Result<HoldRecord, StoreError> {
    let Remembered { of, uses, uses_max, by, person, .. } = remembered;
    let rows = db.execute(USED, params![of, uses])?;
    if rows != 1 {
        // Cannot be while the transaction has the write lock; refused all the same.
        return Err(StoreError::NoSuchHold(*of));
    }
    let note = format!("use {} of {uses_max}", uses + 1);
    append(
        db,
        head,
        AuditEvent {
            who: Some(by.clone()),
            remembered: Some(*of),
            note: Some(note.clone()),
            ..AuditEvent::of(Occasion::RememberedUsed, hold, &hold.owner, at)
        },
    )?;
    let covering = format!("remembered approval {} of {by}", of.short());
    let vote = Vote { person: person.clone(), ..Vote::new(Verdict::Approve, covering, Some(note), at) };
    end(db, head, hold.id, State::Forwarding, (std::slice::from_ref(&vote), &Approval::default()), None, at)?;
    let record = HoldRecord::held(hold.clone(), Arc::clone(&hold.owner));
    Ok(HoldRecord { state: State::Forwarding, votes: vec![vote], ..record })
}

/// The remembered approval `of`, if it is one, counts at `at` and covers `call`.
pub(super) fn covering(
    db: &dyn Sql,
    of: HoldId,
    call: &NewHold,
    at: Timestamp,
) -> Result<Option<Remembered>, StoreError> {
    let found = one(db, REMEMBERED, params![of], remembered)?;
    Ok(found.map(|(_, found)| found).filter(|found| found.counts(at) && found.covers(call)))
}

/// Takes the remembered approval `of` back. `false` if it is none, or was taken back before.
pub(super) fn revoke(
    db: &dyn Sql,
    head: &mut Checkpoint,
    of: HoldId,
    by: &str,
    gate: &str,
    at: Timestamp,
) -> Result<bool, StoreError> {
    if db.execute(REVOKED, params![of, nanoseconds(at)?, by])? != 1 {
        return Ok(false);
    }
    let event = AuditEvent::new(Occasion::RememberedRevoked, gate, at);
    append(db, head, AuditEvent { hold: Some(of), who: Some(by.to_owned()), ..event })?;
    Ok(true)
}

/// Remembered approvals of calls of `tool` at `server` by `principal` that count at `at`, the newest first.
pub(super) fn remembered_for(
    db: &dyn Sql,
    (server, tool, principal): (&str, &str, &str),
    at: Timestamp,
) -> Result<Vec<Remembered>, StoreError> {
    let at = nanoseconds(at)?;
    let parameters = params![at, server, tool, principal, LOOKED_AT_MAX];
    Ok(collect(db, REMEMBERED_FOR, parameters, remembered)?.into_iter().map(|(_, found)| found).collect())
}

/// Remembered approvals whose time was not over at `after`, the newest first, at most `limit`.
pub(super) fn all_remembered(
    db: &dyn Sql,
    after: Timestamp,
    limit: usize,
) -> Result<Vec<Remembered>, StoreError> {
    let (after, limit) = (nanoseconds(after)?, integer(limit));
    let parameters = params![after, limit];
    Ok(collect(db, ALL_REMEMBERED, parameters, remembered)?.into_iter().map(|(_, found)| found).collect())
}

/// One remembered approval as it is stored: the number of its event and the gate of that, and it itself.
pub(super) type Stored = ((u64, String), Remembered);

/// The remembered approval `of`.
pub(super) fn one_remembered(db: &dyn Sql, of: HoldId) -> Result<Option<Stored>, StoreError> {
    one(db, REMEMBERED, params![of], remembered)
}

/// What the approver of the hold `id` has made of its call.
pub(super) fn edit(db: &dyn Sql, id: HoldId) -> Result<Option<Edit>, StoreError> {
    let frame: Option<Vec<u8>> = one(db, EDIT, params![id], |row| row.get(0))?;
    Ok(frame.map(edit_of))
}

/// The edit whose frame this is.
pub(super) fn edit_of(frame: Vec<u8>) -> Edit {
    let frame = Bytes::from(frame);
    Edit { frame_sha256: Digest::of(&frame), frame }
}

fn remembered(row: &mut Row) -> Result<Stored, StoreError> {
    let same = Same::from_word(&row.get::<String>(8)?).ok_or(StoreError::Unreadable { column: 8 })?;
    let revoked = match row.get::<Option<Timestamp>>(15)? {
        Some(at) => Some((at, row.get::<Option<String>>(16)?.unwrap_or_default())),
        None => None,
    };
    let found = Remembered {
        of: row.get(0)?,
        server: row.get(1)?,
        method: row.get(2)?,
        tool: row.get(3)?,
        principal: row.get(4)?,
        same,
        call_sha256: row.get(5)?,
        tool_sha256: row.get(6)?,
        terms_sha256: row.get(7)?,
        by: row.get(9)?,
        person: row.get(10)?,
        since: row.get(11)?,
        until: row.get(12)?,
        uses_max: row.get(13)?,
        uses: row.get(14)?,
        revoked,
    };
    Ok(((row.get(17)?, row.get(18)?), found))
}
