//! The statements: how holds and the audit log are written to and read from a database.
//!
//! Called by `writer` (inside its transaction), `reader` and `verify` with an open connection. Decides nothing except what
//! [`State::may_become`] says, and never begins or ends a transaction.

use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use serde::de::DeserializeOwned;

use super::{
    approvals,
    error::StoreError,
    sql::{Questions, Row, Sql, ToValue, collect, integer, nanoseconds, one, params},
};
use crate::{
    audit::{AuditEvent, AuditLine, Checkpoint, link},
    digest::Digest,
    hold::{Approval, HOLD_ID_CHARS, HoldId, HoldRecord, NewHold, Quorum, State, Vote},
};

/// The columns that [`record`] reads, in its order.
macro_rules! hold_columns {
    () => {
        "h.seq, h.id, h.owner, h.server, h.method, h.tool, h.agent, h.principal, h.frame_sha256, h.policy_sha256, \
         h.rules, h.reason, h.notes, h.created_at, h.expires_at, h.state, h.votes, h.ended_at, h.note, \
         h.call_sha256, h.tool_sha256, h.terms_sha256, h.holder, h.lapses_at, h.awaited, h.quorum"
    };
}

/// A hold with its frame and what an approver has made of it, whose columns follow those of [`record`].
macro_rules! select_hold {
    ($rest:literal) => {
        concat!(
            "SELECT ",
            hold_columns!(),
            ", f.frame, e.frame FROM holds h JOIN frames f ON f.hold = h.seq LEFT JOIN edits e ON e.hold = h.seq ",
            $rest
        )
    };
}

/// The place of the frame among the columns of [`select_hold`].
pub(super) const FRAME_COLUMN: usize = 26;

/// The places of the hold's id, and of the digest of its call, among the columns of [`record`].
pub(super) const ID_COLUMN: usize = 1;
pub(super) const CALL_COLUMN: usize = 19;

// --- audit -----------------------------------------------------------------------------------------------------------

const INSERT_LINE: &str = "INSERT INTO audit (seq, line, hash) VALUES (?1, ?2, ?3)";
const LAST_LINE: &str = "SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1";
const HASH_OF_LINE: &str = "SELECT hash FROM audit WHERE seq = ?1";
const LINES_AFTER: &str = "SELECT seq, line, hash FROM audit WHERE seq > ?1 ORDER BY seq LIMIT ?2";

/// Where the log ends. Inside a transaction that writes nobody else can move it.
pub(super) fn head(db: &dyn Sql) -> Result<Checkpoint, StoreError> {
    Ok(one(db, LAST_LINE, &[], checkpoint)?.unwrap_or(Checkpoint::EMPTY))
}

/// Writes `event` at the end of the log and gives its number.
pub(super) fn append(db: &dyn Sql, head: &mut Checkpoint, event: AuditEvent) -> Result<u64, StoreError> {
    let line = head.append(event)?;
    db.put(INSERT_LINE, params![integer(line.seq), line.line, line.hash])?;
    Ok(line.seq)
}

/// The lines behind `seq`, in order.
pub(super) fn lines_after(db: &dyn Sql, seq: u64, limit: usize) -> Result<Vec<AuditLine>, StoreError> {
    collect(db, LINES_AFTER, params![integer(seq), integer(limit)], |row| {
        Ok(AuditLine { seq: row.get(0)?, line: row.get(1)?, hash: row.get(2)? })
    })
}

/// Where the log ends, if it still has the line that this process last knew to be durable.
pub(super) fn known_head(db: &dyn Sql, known: Checkpoint) -> Result<Checkpoint, StoreError> {
    // Both are asked at once.
    let mut rows = db
        .rows_of(&[(HASH_OF_LINE, params![integer(known.seq)]), (LAST_LINE, &[])])?
        .into_iter()
        .map(|rows| rows.into_iter().next());
    let (found, last) = (rows.next().flatten(), rows.next().flatten());
    if known.seq > 0 && found.map(|mut row| row.get(0)).transpose()? != Some(known.hash) {
        return Err(StoreError::Diverged { seq: known.seq });
    }
    Ok(last.map(|mut row| checkpoint(&mut row)).transpose()?.unwrap_or(Checkpoint::EMPTY))
}

fn checkpoint(row: &mut Row) -> Result<Checkpoint, StoreError> {
    Ok(Checkpoint { seq: row.get(0)?, hash: row.get(1)? })
}

/// Checks that the log still has the line this process last knew to be durable.
pub(super) fn check_known(db: &dyn Sql, known: Checkpoint) -> Result<(), StoreError> {
    if known.seq == 0 {
        return Ok(());
    }
    let found = one(db, HASH_OF_LINE, params![integer(known.seq)], |row| row.get::<Digest>(0))?;
    if found == Some(known.hash) { Ok(()) } else { Err(StoreError::Diverged { seq: known.seq }) }
}

/// The same after a failure, and that the chain is whole from there to its end.
pub(super) fn check_tail(db: &dyn Sql, known: Checkpoint) -> Result<Checkpoint, StoreError> {
    const LINES_AT_ONCE: usize = 256;
    check_known(db, known)?;
    let mut head = known;
    loop {
        let lines = lines_after(db, head.seq, LINES_AT_ONCE)?;
        if lines.is_empty() {
            return Ok(head);
        }
        for line in lines {
            if line.seq != head.seq + 1 || line.hash != link(head.hash, &line.line) {
                return Err(StoreError::Diverged { seq: head.seq + 1 });
            }
            head = Checkpoint { seq: line.seq, hash: line.hash };
        }
    }
}

// --- holds -----------------------------------------------------------------------------------------------------------

const INSERT_HOLD: &str = "INSERT INTO holds (seq, id, owner, server, method, tool, agent, principal, frame_sha256, \
     policy_sha256, rules, reason, notes, created_at, expires_at, state, votes, ended_at, note, call_sha256, tool_sha256, \
     terms_sha256, holder, lapses_at, awaited, quorum) \
     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22, ?23, ?24, \
     ?25, ?26) ON CONFLICT (id) DO NOTHING";
const INSERT_FRAME: &str = "INSERT INTO frames (hold, frame) VALUES (?1, ?2)";
const UPDATE_HOLD: &str = "UPDATE holds SET state = ?3, votes = ?4, ended_at = ?5, note = ?6, holder = ?7, lapses_at = ?8, \
     awaited = ?9 WHERE seq = ?1 AND state = ?2";
const HOLD_WITHOUT_FRAME: &str = concat!("SELECT ", hold_columns!(), " FROM holds h WHERE h.id = ?1");
const HOLD: &str = select_hold!("WHERE h.id = ?1");
const FIND: &str = select_hold!("WHERE h.id BETWEEN ?1 AND ?2 ORDER BY h.id LIMIT ?3");
const HOLDERS: &str = "SELECT DISTINCT holder FROM holds WHERE state IN ('held', 'granted', 'forwarding', 'unknown') \
     AND holder IS NOT NULL ORDER BY holder";

/// What a retry finds without a caller: detached, decided, or unknown.
pub(super) const AWAITED_WITHOUT_CALLER: i64 = 1;
/// What a retry finds with a caller.
pub(super) const AWAITED_WITH_CALLER: i64 = 2;
/// What a retry finds that was sent and has no answer.
pub(super) const AWAITED_SENT: i64 = 3;

/// As what a retry finds a hold, so that it is found by an index however many there are.
fn awaited(record: &HoldRecord) -> i64 {
    match (record.is_awaited, record.state, &record.holder) {
        (false, ..) => 0,
        (true, State::Forwarding, _) => AWAITED_SENT,
        (true, State::Held, Some(_)) => AWAITED_WITH_CALLER,
        _ => AWAITED_WITHOUT_CALLER,
    }
}

/// Records a new hold, its frame and its `held` event.
pub(super) fn record_hold(db: &dyn Sql, head: &mut Checkpoint, hold: &NewHold) -> Result<(), StoreError> {
    let seq = append(db, head, AuditEvent::held(hold))?;
    db.put_one(
        INSERT_HOLD,
        params![
            integer(seq),
            hold.id,
            hold.owner,
            hold.server,
            hold.method,
            hold.tool,
            hold.agent,
            hold.principal,
            hold.frame_sha256,
            hold.policy_sha256,
            json_list(hold.rules.iter().map(AsRef::as_ref))?,
            hold.reason,
            json_list(hold.notes.iter().map(AsRef::as_ref))?,
            nanoseconds(hold.created_at)?,
            nanoseconds(hold.expires_at)?,
            State::Held.word(),
            "[]",
            None::<i64>,
            None::<String>,
            hold.call_sha256,
            hold.tool_sha256,
            hold.terms_sha256,
            hold.owner,
            None::<i64>,
            AWAITED_WITH_CALLER,
            hold.quorum.as_deref().map(serde_json::to_string).transpose()?,
        ],
        StoreError::Duplicate(hold.id),
    )?;
    db.put(INSERT_FRAME, params![integer(seq), hold.frame.as_ref()])
}

/// Moves a hold to `state`, if it may become that now, with `votes` added to those it has, the last of which brings
/// `approval` with it.
pub(super) fn end(
    db: &dyn Sql,
    head: &mut Checkpoint,
    id: HoldId,
    state: State,
    (votes, approval): (&[Vote], &Approval),
    note: Option<&str>,
    at: Timestamp,
) -> Result<(), StoreError> {
    let found = hold_without_frame(db, id)?;
    end_found(db, head, found, state, (votes, approval), note, at)
}

fn end_found(
    db: &dyn Sql,
    head: &mut Checkpoint,
    (seq, mut found): (u64, HoldRecord),
    state: State,
    (votes, approval): (&[Vote], &Approval),
    note: Option<&str>,
    at: Timestamp,
) -> Result<(), StoreError> {
    let before = found.state;
    let mut standing = found.standing();
    standing.end(state).map_err(|state| StoreError::NotHeld { state })?;
    found.stand(standing);
    if let Some(vote) = votes.last() {
        approvals::keep(db, head, (seq, &found.hold), vote, approval)?;
    }
    // A vote that was recorded before it was enough is there already.
    votes.iter().for_each(|vote| add(&mut found.votes, vote));
    found.note = note.map(str::to_owned).or(found.note);
    update(db, head, seq, before, &mut found, at)
}

/// Lets a held call go on for the process `holder`, if that still has the caller.
pub(super) fn approve(
    db: &dyn Sql,
    head: &mut Checkpoint,
    id: HoldId,
    (vote, approval): (&Vote, &Approval),
    holder: &str,
) -> Result<(), StoreError> {
    let found = hold_without_frame(db, id)?;
    if found.1.state == State::Held && found.1.holder.as_deref() != Some(holder) {
        return Err(StoreError::TakenOver);
    }
    end_found(db, head, found, State::Forwarding, (std::slice::from_ref(vote), approval), None, vote.at)
}

/// Adds a vote, once.
pub(super) fn add(votes: &mut Vec<Vote>, vote: &Vote) {
    if !votes.contains(vote) {
        votes.push(vote.clone());
    }
}

/// What [`hold_without_frame`] asks.
pub(super) fn asks_for_hold(id: &HoldId) -> Questions<'_> {
    vec![(HOLD_WITHOUT_FRAME, vec![id.to_value()])]
}

/// The hold of this id without its frame, with its place.
pub(super) fn hold_without_frame(db: &dyn Sql, id: HoldId) -> Result<(u64, HoldRecord), StoreError> {
    one(db, HOLD_WITHOUT_FRAME, params![id], |row| record(row, Bytes::new()))?
        .ok_or(StoreError::NoSuchHold(id))
}

/// Writes down where `record` stands now, with the event if its state is another than `before`.
pub(super) fn update(
    db: &dyn Sql,
    head: &mut Checkpoint,
    seq: u64,
    before: State,
    record: &mut HoldRecord,
    at: Timestamp,
) -> Result<(), StoreError> {
    let is_new_state = record.state != before;
    if is_new_state {
        record.ended_at = Some(at);
    }
    db.put_one(
        UPDATE_HOLD,
        params![
            integer(seq),
            before.word(),
            record.state.word(),
            serde_json::to_string(&record.votes)?,
            record.ended_at.map(nanoseconds).transpose()?,
            record.note,
            record.holder,
            record.lapses_at.map(nanoseconds).transpose()?,
            awaited(record),
        ],
        // Cannot be while the transaction has the write lock; refused all the same.
        StoreError::NotHeld { state: before },
    )?;
    if is_new_state {
        append(db, head, AuditEvent::moved(record, at))?;
    }
    Ok(())
}

/// The hold of this id, with its place.
pub(super) fn hold(db: &dyn Sql, id: HoldId) -> Result<Option<(u64, HoldRecord)>, StoreError> {
    one(db, HOLD, params![id], record_with_frame)
}

/// The holds whose written id begins with `prefix`, whatever its case.
pub(super) fn find(db: &dyn Sql, prefix: &str, limit: usize) -> Result<Vec<HoldRecord>, StoreError> {
    // The smallest and the largest id with this beginning; the first character carries three bits only.
    const LEAST: &str = "00000000000000000000000000";
    const MOST: &str = "7zzzzzzzzzzzzzzzzzzzzzzzzz";
    if prefix.len() > HOLD_ID_CHARS || !prefix.is_ascii() {
        return Ok(Vec::new());
    }
    let bound = |rest: &str| format!("{prefix}{}", &rest[prefix.len()..]).parse::<HoldId>();
    let (Ok(least), Ok(most)) = (bound(LEAST), bound(MOST)) else {
        return Ok(Vec::new());
    };
    Ok(records(collect(db, FIND, params![least, most, integer(limit)], record_with_frame)?))
}

/// The processes that have, or had, callers of open holds.
pub(super) fn holders(db: &dyn Sql) -> Result<Vec<Arc<str>>, StoreError> {
    collect(db, HOLDERS, &[], |row| row.get(0))
}

// --- rows ------------------------------------------------------------------------------------------------------------

fn records(rows: Vec<(u64, HoldRecord)>) -> Vec<HoldRecord> {
    rows.into_iter().map(|(_, record)| record).collect()
}

fn record_with_frame(row: &mut Row) -> Result<(u64, HoldRecord), StoreError> {
    let frame = Bytes::from(row.get::<Vec<u8>>(FRAME_COLUMN)?);
    let (seq, found) = record(row, frame)?;
    let edit = row.get::<Option<Vec<u8>>>(FRAME_COLUMN + 1)?.map(approvals::edit_of);
    Ok((seq, HoldRecord { edit, ..found }))
}

/// Reads the columns of `hold_columns!`.
pub(super) fn record(row: &mut Row, frame: Bytes) -> Result<(u64, HoldRecord), StoreError> {
    let hold = NewHold {
        id: row.get(ID_COLUMN)?,
        owner: row.get(2)?,
        server: row.get(3)?,
        method: row.get(4)?,
        tool: row.get(5)?,
        agent: row.get(6)?,
        principal: row.get(7)?,
        frame,
        frame_sha256: row.get(8)?,
        policy_sha256: row.get(9)?,
        rules: json::<Vec<String>>(row, 10)?.into_iter().map(Into::into).collect(),
        reason: row.get(11)?,
        notes: json(row, 12)?,
        created_at: row.get(13)?,
        expires_at: row.get(14)?,
        call_sha256: row.get(CALL_COLUMN)?,
        tool_sha256: row.get(20)?,
        terms_sha256: row.get(21)?,
        quorum: quorum(row, 25)?,
    };
    let state = row.get::<String>(15)?;
    let state = State::from_word(&state).ok_or(StoreError::Unreadable { column: 15 })?;
    let record = HoldRecord {
        hold,
        state,
        votes: json(row, 16)?,
        ended_at: row.get(17)?,
        note: row.get(18)?,
        holder: row.get(22)?,
        lapses_at: row.get(23)?,
        is_awaited: row.get(24)?,
        edit: None,
    };
    Ok((row.get(0)?, record))
}

/// Who has to say yes; none where one person is enough.
fn quorum(row: &mut Row, column: usize) -> Result<Option<Arc<Quorum>>, StoreError> {
    let text = row.get::<Option<String>>(column)?;
    text.map(|text| from_json(&text, column).map(Arc::new)).transpose()
}

fn json<T: DeserializeOwned>(row: &mut Row, column: usize) -> Result<T, StoreError> {
    from_json(&row.get::<String>(column)?, column)
}

fn from_json<T: DeserializeOwned>(text: &str, column: usize) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|_| StoreError::Unreadable { column })
}

fn json_list<'a>(items: impl Iterator<Item = &'a str>) -> Result<String, StoreError> {
    Ok(serde_json::to_string(&items.collect::<Vec<_>>())?)
}
