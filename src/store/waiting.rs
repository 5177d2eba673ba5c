//! The statements of waiting: callers that go, come back and make a call again, verdicts on calls without a caller, and what
//! dead processes leave.
//!
//! Called by `writer` inside its transaction, so that of all processes on the record one wins. What may happen is said by
//! [`Standing`]; here it is written down.
//!
//! [`Standing`]: crate::hold::Standing

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};

use super::{
    Arrived, Recovered, WITHOUT_CALLER_MAX, approvals,
    error::StoreError,
    sql::{Asked, Questions, Sql, ToValue, Value, collect, integer, nanoseconds, params},
    statements::{
        AWAITED_SENT, AWAITED_WITH_CALLER, AWAITED_WITHOUT_CALLER, FRAME_COLUMN, add, append,
        hold_without_frame, record, record_hold, update,
    },
    tasks,
};
use crate::{
    audit::{AuditEvent, Checkpoint, Occasion},
    hold::{Approval, Arrival, HoldId, HoldRecord, NewHold, NotDetached, State, Vote},
};

/// What recovery notes on a call of which nobody knows whether it ran.
const NOTE_UNKNOWN: &str = "the gate that forwarded it is gone; nobody knows whether it ran";

/// What recovery notes on the detaching of a call.
const NOTE_DETACHED: &str = "the gate that had the caller is gone";

/// How long an approver is reminded that the same call has run before, in minutes.
const REMINDED_MINUTES: i64 = 60;

const AWAITED: &str = concat!(
    "SELECT ",
    hold_columns!(),
    " FROM holds h WHERE h.call_sha256 = ?1 AND h.awaited = ?4 AND h.server = ?2 AND h.principal = ?3 ORDER BY h.seq LIMIT ?5"
);
const LAST_ANSWERED: &str = concat!(
    "SELECT ",
    hold_columns!(),
    " FROM holds h WHERE h.call_sha256 = ?1 AND h.awaited = 0 AND h.server = ?2 AND h.principal = ?3 \
     AND h.state = 'answered' AND h.ended_at > ?4 ORDER BY h.seq DESC LIMIT 1"
);
const OF_HOLDER: &str = concat!(
    "SELECT ",
    hold_columns!(),
    " FROM holds h WHERE h.state IN ('held', 'granted', 'forwarding', 'unknown') AND h.holder = ?1 ORDER BY h.seq"
);
const OVERDUE: &str = concat!(
    "SELECT ",
    hold_columns!(),
    " FROM holds h WHERE h.state IN ('held', 'granted', 'forwarding', 'unknown') AND h.holder IS NULL \
     AND ((h.state = 'held' AND h.expires_at <= ?1) OR (h.state = 'granted' AND h.lapses_at <= ?1)) ORDER BY h.seq"
);
const REMINDED: &str = concat!(
    "SELECT ",
    hold_columns!(),
    ", h.heard FROM holds h WHERE h.state IN ('held', 'granted', 'forwarding', 'unknown') \
     AND (h.holder IS NULL OR h.holder = ?1) AND h.state = 'held' AND h.quorum IS NOT NULL ORDER BY h.seq LIMIT ?2"
);
const WITHOUT_CALLER: &str = "SELECT count(*) FROM (SELECT 1 FROM holds h WHERE h.state IN ('held', 'granted', 'forwarding', \
     'unknown') AND h.holder IS NULL AND h.principal = ?1 LIMIT ?2) AS found";
const HEARD: &str =
    "UPDATE holds SET heard = ?2 WHERE id = ?1 AND state = 'held' AND coalesce(heard, 0) < ?2";
const INSERT_RETRY: &str = "INSERT INTO retries (seq, hold, frame) VALUES (?1, ?2, ?3)";

/// Earlier calls of the same content that are looked at, of each kind.
const LOOKED_AT_MAX: i64 = 64;

/// A call that is to be held arrives: it takes the place of an earlier one of the same content, or it is recorded as a hold
/// of its own. With `is_own`, calls that wait or run are left alone. With `remembered`, it goes on at once if the approval of
/// that hold counts for it.
pub(super) fn arrive(
    db: &dyn Sql,
    head: &mut Checkpoint,
    hold: &NewHold,
    (is_own, remembered): (bool, Option<HoldId>),
    at: Timestamp,
) -> Result<Arrived, StoreError> {
    let mut earlier = earlier_calls(db, hold, at)?;
    let mut best: Option<(u64, HoldRecord, Arrival)> = None;
    for (seq, mut found) in earlier.without_caller {
        if let Some(lapsed) = lapse(db, head, seq, &found, at)? {
            found = lapsed;
        }
        // The first one counts, but before all others one of which nobody knows whether it ran.
        match found.standing().arrival(at, is_bound(&found.hold, hold)) {
            Arrival::Nothing => {}
            Arrival::Unknown => {
                best = Some((seq, found, Arrival::Unknown));
                break;
            }
            arrival if best.is_none() => best = Some((seq, found, arrival)),
            _ => {}
        }
    }
    if let Some((seq, found, arrival)) = best {
        return take(db, head, seq, found, &arrival, hold, at);
    }
    let sent = earlier.sent.pop().map(|(_, found)| found);
    if !is_own {
        if let Some(holder) = earlier.waiting.last().and_then(|(_, found)| found.holder.clone()) {
            let of_holder =
                earlier.waiting.iter().filter(|(_, found)| found.holder.as_ref() == Some(&holder));
            return Ok(Arrived::Waits { ids: of_holder.map(|(_, found)| found.hold.id).collect(), holder });
        }
        // Whoever has sent it may be dead: then nobody knows whether it ran.
        if let Some(holder) = sent.as_ref().and_then(|found| found.holder.clone())
            && holder != hold.owner
        {
            return Ok(Arrived::Waits { ids: Vec::new(), holder });
        }
    }
    // What is with the server may be this very call, made again: whether it is to run twice is for a person to say.
    let covering = match remembered.filter(|_| sent.is_none()) {
        Some(of) => approvals::covering(db, of, hold, at)?,
        None => None,
    };
    // What goes on at once waits for nobody.
    if covering.is_none() && earlier.left_behind >= WITHOUT_CALLER_MAX {
        return Ok(Arrived::TooMany);
    }
    let mut hold = hold.clone();
    if let Some(sent) = sent {
        hold.notes
            .push(format!("the same call is with the server just now, as hold {}", sent.hold.id.short()));
    }
    remind(&mut hold, &earlier.answered);
    record_hold(db, head, &hold)?;
    if let Some(remembered) = covering {
        let record = approvals::go_on(db, head, &remembered, &hold, at)?;
        return Ok(Arrived::Redeemed(Box::new(record)));
    }
    Ok(Arrived::Held { notes: hold.notes })
}

/// Earlier calls of the same content, the oldest first; and how many of its principal's calls of any content have no caller, counted up
/// to the limit.
struct Earlier {
    left_behind: usize,
    without_caller: Vec<(u64, HoldRecord)>,
    waiting: Vec<(u64, HoldRecord)>,
    sent: Vec<(u64, HoldRecord)>,
    /// The last that has run lately.
    answered: Vec<(u64, HoldRecord)>,
}

/// What [`arrive`] asks: how many calls of the principal have no caller (those that lose theirs in the same commit may not be counted
/// yet), and about earlier calls, if this one can be told from others.
pub(super) fn asks_for_earlier_calls(hold: &NewHold, at: Timestamp) -> Result<Questions<'_>, StoreError> {
    let limit = Value::Integer(Some(integer(WITHOUT_CALLER_MAX)));
    let left_behind = (WITHOUT_CALLER, vec![hold.principal.to_value(), limit]);
    let Some(call) = &hold.call_sha256 else { return Ok(vec![left_behind]) };
    let since = at.checked_sub(SignedDuration::from_mins(REMINDED_MINUTES)).unwrap_or(at);
    let since = nanoseconds(since)?;
    let same = |last: &[i64]| {
        let own = [call.to_value(), hold.server.to_value(), hold.principal.to_value()];
        own.into_iter().chain(last.iter().map(|number| Value::Integer(Some(*number)))).collect()
    };
    Ok(vec![
        left_behind,
        (AWAITED, same(&[AWAITED_WITHOUT_CALLER, LOOKED_AT_MAX])),
        (AWAITED, same(&[AWAITED_WITH_CALLER, LOOKED_AT_MAX])),
        (AWAITED, same(&[AWAITED_SENT, 1])),
        (LAST_ANSWERED, same(&[since])),
    ])
}

fn earlier_calls(db: &dyn Sql, hold: &NewHold, at: Timestamp) -> Result<Earlier, StoreError> {
    let questions = asks_for_earlier_calls(hold, at)?;
    let asked: Vec<Asked<'_>> = questions.iter().map(|(words, values)| (*words, values.as_slice())).collect();
    let mut found = db.rows_of(&asked)?.into_iter();
    let counted = found.next().unwrap_or_default().first_mut().map(|row| row.get::<u64>(0)).transpose()?;
    let left_behind = counted.and_then(|count| count.try_into().ok()).unwrap_or(usize::MAX);
    let mut next = || {
        let rows = found.next().unwrap_or_default().into_iter();
        rows.map(|mut row| record(&mut row, Bytes::new())).collect::<Result<Vec<_>, _>>()
    };
    Ok(Earlier { left_behind, without_caller: next()?, waiting: next()?, sent: next()?, answered: next()? })
}

/// Whether what was decided about `earlier` counts for `now`: the rules want the same, and the tool is not another one.
pub(super) fn is_bound(earlier: &NewHold, now: &NewHold) -> bool {
    let is_same_tool = match (earlier.tool_sha256, now.tool_sha256) {
        (Some(earlier), Some(now)) => earlier == now,
        // Where the server has not told its tools (again), there is nothing to compare.
        _ => true,
    };
    earlier.terms_sha256 == now.terms_sha256 && is_same_tool
}

/// Tells approvers that the same call has run lately: it may be the retry of a caller that did not wait for the answer.
fn remind(hold: &mut NewHold, answered: &[(u64, HoldRecord)]) {
    for (_, found) in answered {
        let ended = found.ended_at.map(|at| at.strftime("%H:%M:%S UTC").to_string()).unwrap_or_default();
        hold.notes
            .push(format!("the same call has run before, as hold {}, until {ended}", found.hold.id.short()));
    }
}

pub(super) fn take(
    db: &dyn Sql,
    head: &mut Checkpoint,
    seq: u64,
    mut found: HoldRecord,
    arrival: &Arrival,
    retry: &NewHold,
    at: Timestamp,
) -> Result<Arrived, StoreError> {
    let occasion = match arrival {
        Arrival::Rejected => Occasion::RejectionTold,
        Arrival::Unknown => Occasion::RetryRefused,
        _ => Occasion::Attached,
    };
    let event = AuditEvent {
        who: Some(retry.principal.to_string()),
        agent: Some(retry.agent.to_string()),
        frame_sha256: Some(retry.frame_sha256),
        ..AuditEvent::of(occasion, &found.hold, &retry.owner, at)
    };
    let event = append(db, head, event)?;
    if occasion == Occasion::Attached {
        db.put(INSERT_RETRY, params![integer(event), integer(seq), retry.frame.as_ref()])?;
    }
    let before = found.state;
    let mut standing = found.standing();
    standing.take(arrival, &retry.owner);
    found.stand(standing);
    update(db, head, seq, before, &mut found, at)?;
    if *arrival == Arrival::Redeem {
        found.edit = approvals::edit(db, found.hold.id)?;
    }
    let found = Box::new(found);
    Ok(match arrival {
        Arrival::Redeem => Arrived::Redeemed(found),
        Arrival::Rejected => Arrived::Rejected(found),
        Arrival::Unknown => Arrived::Unknown(found),
        _ => Arrived::Attached(found),
    })
}

/// The caller of `id` at `holder` is gone. Of one that has ended already, nothing is written.
pub(super) fn detach(
    db: &dyn Sql,
    head: &mut Checkpoint,
    id: HoldId,
    holder: &str,
    note: &str,
    at: Timestamp,
) -> Result<(), StoreError> {
    let (seq, mut found) = hold_without_frame(db, id)?;
    let before = found.state;
    let mut standing = found.standing();
    if standing.detach(holder) {
        found.stand(standing);
        update(db, head, seq, before, &mut found, at)?;
        append(db, head, detached(&found, holder, note, at))?;
    }
    Ok(())
}

/// The call of `id` at `holder` has ended in `state`, which could not be recorded when it came; nothing of it was sent. Of one that has
/// ended already, or is with another process, nothing is written.
pub(super) fn end_late(
    db: &dyn Sql,
    head: &mut Checkpoint,
    id: HoldId,
    holder: &str,
    (state, note): (State, Option<&str>),
    at: Timestamp,
) -> Result<(), StoreError> {
    let (seq, mut found) = hold_without_frame(db, id)?;
    let before = found.state;
    let mut standing = found.standing();
    if standing.end_late(holder, state) {
        found.stand(standing);
        found.note = note.map(str::to_owned).or(found.note);
        update(db, head, seq, before, &mut found, at)?;
    }
    Ok(())
}

fn detached(found: &HoldRecord, holder: &str, note: &str, at: Timestamp) -> AuditEvent {
    AuditEvent { note: Some(note.to_owned()), ..AuditEvent::of(Occasion::Detached, &found.hold, holder, at) }
}

/// Records a verdict on a hold that has no caller.
pub(super) fn decide(
    db: &dyn Sql,
    head: &mut Checkpoint,
    id: HoldId,
    (vote, approval): (&Vote, &Approval),
    lapses_at: Timestamp,
) -> Result<State, StoreError> {
    let (seq, found) = hold_without_frame(db, id)?;
    let mut found = lapse(db, head, seq, &found, vote.at)?.unwrap_or(found);
    let before = found.state;
    let mut standing = found.standing();
    let state = standing.decide(vote.verdict, vote.at, lapses_at).map_err(|error| match error {
        NotDetached::Attached(holder) => StoreError::Attached { holder },
        NotDetached::Ended(state) => StoreError::NotHeld { state },
    })?;
    found.stand(standing);
    approvals::keep(db, head, (seq, &found.hold), vote, approval)?;
    if state == State::Rejected {
        // Whoever thinks better of an approval does not want it to count for others either.
        approvals::revoke(db, head, id, &vote.by, &found.hold.owner, vote.at)?;
    }
    add(&mut found.votes, vote);
    update(db, head, seq, before, &mut found, vote.at)?;
    Ok(state)
}

/// Ends a hold that has no caller, because the one that it had takes the call back. Gives whether that was so.
pub(super) fn take_back(
    db: &dyn Sql,
    head: &mut Checkpoint,
    id: HoldId,
    note: &str,
    at: Timestamp,
) -> Result<bool, StoreError> {
    let (seq, found) = hold_without_frame(db, id)?;
    let mut found = lapse(db, head, seq, &found, at)?.unwrap_or(found);
    let before = found.state;
    let mut standing = found.standing();
    let is_taken_back = standing.take_back(at);
    if is_taken_back {
        found.stand(standing);
        found.note = Some(note.to_owned());
        update(db, head, seq, before, &mut found, at)?;
    }
    Ok(is_taken_back)
}

/// Adds a vote that is not enough yet, with its event: gives the hold with all votes so far.
pub(super) fn vote(
    db: &dyn Sql,
    head: &mut Checkpoint,
    id: HoldId,
    gate: &str,
    vote: &Vote,
) -> Result<HoldRecord, StoreError> {
    let (seq, found) = hold_without_frame(db, id)?;
    let mut found = lapse(db, head, seq, &found, vote.at)?.unwrap_or(found);
    if found.state != State::Held || vote.at >= found.hold.expires_at {
        return Err(StoreError::NotHeld { state: found.state });
    }
    add(&mut found.votes, vote);
    let event = AuditEvent::of(Occasion::Voted, &found.hold, gate, vote.at);
    append(db, head, AuditEvent { who: Some(vote.by.clone()), votes: found.votes.clone(), ..event })?;
    update(db, head, seq, State::Held, &mut found, vote.at)?;
    Ok(found)
}

/// People hear of the hold `id` again, `heard` after it was held, by the process `gate`; `note` says what. `false` if it
/// waits no longer, or they have heard of that by another process.
pub(super) fn hear(
    db: &dyn Sql,
    head: &mut Checkpoint,
    id: HoldId,
    (heard, note): (Duration, &str),
    gate: &str,
    at: Timestamp,
) -> Result<bool, StoreError> {
    let (seq, found) = hold_without_frame(db, id)?;
    if lapse(db, head, seq, &found, at)?.is_some()
        || db.execute(HEARD, params![id, integer(heard.as_secs())])? != 1
    {
        return Ok(false);
    }
    let event = AuditEvent::of(Occasion::Escalated, &found.hold, gate, at);
    append(db, head, AuditEvent { note: Some(note.to_owned()), ..event })?;
    Ok(true)
}

/// Holds that no other process than `own` has a caller for and of which people may be to hear again, without their frames, each with how long
/// after it was held they have heard of it last; the oldest first.
pub(super) fn reminded(
    db: &dyn Sql,
    own: &Arc<str>,
    limit: usize,
) -> Result<Vec<(NewHold, Duration)>, StoreError> {
    collect(db, REMINDED, params![own, integer(limit)], |row| {
        let heard: Option<i64> = row.get(FRAME_COLUMN)?;
        let heard = Duration::from_secs(heard.and_then(|heard| heard.try_into().ok()).unwrap_or(0));
        Ok((record(row, Bytes::new())?.1.hold, heard))
    })
}

/// Writes down what time alone has done to a hold: gives it as it is then, if that is something.
pub(super) fn lapse(
    db: &dyn Sql,
    head: &mut Checkpoint,
    seq: u64,
    found: &HoldRecord,
    at: Timestamp,
) -> Result<Option<HoldRecord>, StoreError> {
    let mut standing = found.standing();
    standing.lapse(at);
    if standing == found.standing() {
        return Ok(None);
    }
    let mut lapsed = found.clone();
    lapsed.stand(standing);
    update(db, head, seq, found.state, &mut lapsed, at)?;
    Ok(Some(lapsed))
}

/// Ends what is detached and whose time is over. Gives how many.
pub(super) fn sweep(db: &dyn Sql, head: &mut Checkpoint, at: Timestamp) -> Result<usize, StoreError> {
    let overdue = collect(db, OVERDUE, params![nanoseconds(at)?], |row| record(row, Bytes::new()))?;
    for (seq, found) in &overdue {
        lapse(db, head, *seq, found, at)?;
    }
    tasks::forget(db, at)?;
    Ok(overdue.len())
}

/// Takes over what a dead process left: what waited is detached, of what was forwarded nobody knows.
pub(super) fn recover(
    db: &dyn Sql,
    head: &mut Checkpoint,
    dead: &Arc<str>,
    at: Timestamp,
) -> Result<Recovered, StoreError> {
    let mut recovered = Recovered::default();
    if !db.is_shut_out(dead)? {
        return Ok(recovered);
    }
    for (seq, mut found) in collect(db, OF_HOLDER, params![dead], |row| record(row, Bytes::new()))? {
        let before = found.state;
        let mut standing = found.standing();
        if !standing.recover(dead) {
            continue;
        }
        found.stand(standing);
        let is_unknown = found.state == State::Unknown;
        if is_unknown {
            found.note = Some(NOTE_UNKNOWN.to_owned());
        }
        update(db, head, seq, before, &mut found, at)?;
        if is_unknown {
            recovered.unknown.push(found.hold.id);
        } else {
            append(db, head, detached(&found, dead, NOTE_DETACHED, at))?;
            recovered.detached.push(found.hold.id);
        }
    }
    Ok(recovered)
}
