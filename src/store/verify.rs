//! Verification: reads the whole log and every hold once, and tells the first thing that does not agree.
//!
//! Called through `Store::verify`. It trusts nothing of the file: not the numbering, not the types, not the digests that
//! the rows keep. Its memory grows with the number of open holds and of tools, not with the length of the log.

use std::collections::HashMap;

use super::{
    approvals,
    error::StoreError,
    sql::{Row, Sql, integer, one, params},
    statements,
    tools::{self, Standing},
};
use crate::{
    audit::{AuditEvent, AuditLine, Break, Checkpoint, EventKind, Fault, Occasion, Verification, link},
    digest::Digest,
    hold::{HoldId, HoldRecord, State, check_recorded},
};

/// From a number on, so that the first part has whatever comes before the first line too.
const LINES_FROM: &str = "SELECT seq, line, hash FROM audit WHERE seq >= ?1 ORDER BY seq LIMIT ?2";
const COUNT_HOLDS: &str = "SELECT (SELECT count(*) FROM holds), (SELECT count(*) FROM frames), \
     (SELECT count(*) FROM retries) + (SELECT count(*) FROM edits), (SELECT count(*) FROM remembered)";
const RETRY: &str =
    "SELECT r.frame FROM retries r JOIN holds h ON r.hold = h.seq WHERE r.seq = ?1 AND h.id = ?2";
const EDIT: &str =
    "SELECT e.frame FROM edits e JOIN holds h ON e.hold = h.seq WHERE e.seq = ?1 AND h.id = ?2";

/// Lines that are read at once.
const LINES_AT_ONCE: i64 = 1024;

/// Verifies log and holds, and that the log still has the line of `against`. The caller has a snapshot open: holds and log are of
/// the same moment, and writers go on meanwhile.
pub(super) fn verify(db: &dyn Sql, against: Option<Checkpoint>) -> Result<Verification, StoreError> {
    Pass::new(db, against).run()
}

struct Pass<'db> {
    db: &'db dyn Sql,
    against: Option<Checkpoint>,
    head: Checkpoint,
    holds: u64,
    /// Frames beside those of holds: calls that were made again and took the place of the first one, and edited calls.
    frames: u64,
    /// What the events say of remembered approvals: how often each was used, and when and by whom it was taken back.
    remembered: HashMap<HoldId, (u32, Option<(jiff::Timestamp, String)>)>,
    /// Of every server's tool: the definition that counts, the changed one, and the number of the last event.
    tools: HashMap<(String, String), Standing>,
    /// The last event of every hold that has not ended.
    open: HashMap<HoldId, AuditEvent>,
}

impl<'db> Pass<'db> {
    fn new(db: &'db dyn Sql, against: Option<Checkpoint>) -> Self {
        Self {
            db,
            against,
            head: Checkpoint::EMPTY,
            holds: 0,
            frames: 0,
            remembered: HashMap::new(),
            tools: HashMap::new(),
            open: HashMap::new(),
        }
    }

    fn run(mut self) -> Result<Verification, StoreError> {
        let fault = match self.lines()? {
            Some(fault) => Some(fault),
            None => self.rest()?,
        };
        let broken = fault.map(|(seq, fault)| Break { seq, fault });
        Ok(Verification { events: self.head.seq, holds: self.holds, head: self.head, broken })
    }

    fn lines(&mut self) -> Result<Option<(u64, Fault)>, StoreError> {
        let mut from = i64::MIN;
        loop {
            let mut rows = self.db.rows(LINES_FROM, params![from, LINES_AT_ONCE])?;
            if rows.is_empty() {
                return Ok(None);
            }
            for row in &mut rows {
                let seq = self.head.seq + 1;
                let line = match read_line(row, seq) {
                    Ok(line) => line,
                    Err(fault) => return Ok(Some((seq, fault))),
                };
                if let Some(fault) = self.line(&line)? {
                    return Ok(Some((seq, fault)));
                }
                self.head = Checkpoint { seq, hash: line.hash };
            }
            from = integer(self.head.seq + 1);
        }
    }

    fn line(&mut self, line: &AuditLine) -> Result<Option<Fault>, StoreError> {
        if link(self.head.hash, &line.line) != line.hash {
            return Ok(Some(Fault::Hash));
        }
        if self.against.is_some_and(|known| known.seq == line.seq && known.hash != line.hash) {
            return Ok(Some(Fault::Rewritten));
        }
        let Ok(event) = line.event() else {
            return Ok(Some(Fault::NotAnEvent));
        };
        if event.seq != line.seq || event.prev != self.head.hash {
            return Ok(Some(Fault::Misplaced));
        }
        match event.kind {
            EventKind::Occasion(Occasion::Attached) => self.frame(RETRY, &event),
            EventKind::Occasion(Occasion::Edited) => self.frame(EDIT, &event),
            EventKind::Occasion(Occasion::Remembered) => self.remembered(&event),
            EventKind::Occasion(Occasion::RememberedUsed | Occasion::RememberedRevoked) => {
                Ok(self.remembered_later(event))
            }
            EventKind::Occasion(
                occasion @ (Occasion::ToolListed | Occasion::ToolChanged | Occasion::ToolAccepted),
            ) => Ok(self.tool(occasion, event)),
            EventKind::Occasion(Occasion::Voted) => Ok(self.vote(event)),
            EventKind::Occasion(_) => Ok(None),
            EventKind::State(state) => self.step(state, event),
        }
    }

    /// An event that moves a hold: it must follow from the one before, and the last one must be what the row says.
    fn step(&mut self, state: State, event: AuditEvent) -> Result<Option<Fault>, StoreError> {
        let Some(id) = event.hold else {
            return Ok(Some(Fault::NotAnEvent));
        };
        if state == State::Held {
            return self.begin(id, event);
        }
        let before = self.open.remove(&id);
        let may = before.is_some_and(
            |before| matches!(before.kind, EventKind::State(before) if before.may_become(state)),
        );
        if !may {
            return Ok(Some(Fault::Order(id)));
        }
        if state.is_open() {
            self.open.insert(id, event);
            return Ok(None);
        }
        self.outcome(id, &event)
    }

    /// A vote that was not enough: it leaves the hold waiting, with one vote more.
    fn vote(&mut self, event: AuditEvent) -> Option<Fault> {
        let Some(id) = event.hold else { return Some(Fault::NotAnEvent) };
        let held = self.open.get_mut(&id).filter(|open| open.kind == EventKind::State(State::Held));
        let Some(held) = held else { return Some(Fault::Order(id)) };
        if !event.votes.starts_with(&held.votes) || event.votes.len() <= held.votes.len() {
            return Some(Fault::Order(id));
        }
        held.votes = event.votes;
        None
    }

    /// An approval that counts for further calls.
    fn remembered(&mut self, event: &AuditEvent) -> Result<Option<Fault>, StoreError> {
        let Some(id) = event.hold else { return Ok(Some(Fault::NotAnEvent)) };
        let Some(((seq, gate), stored)) = approvals::one_remembered(self.db, id)? else {
            return Ok(Some(Fault::NoHold(id)));
        };
        let expected = AuditEvent { seq, prev: event.prev, ..AuditEvent::remembered(&stored, &gate) };
        let is_first = self.remembered.insert(id, (0, None)).is_none();
        Ok((!is_first || expected != *event).then_some(Fault::Remembered(id)))
    }

    /// One more use of it, or its end.
    fn remembered_later(&mut self, event: AuditEvent) -> Option<Fault> {
        let is_use = event.remembered.is_some();
        let Some(id) = event.remembered.or(event.hold) else { return Some(Fault::NotAnEvent) };
        let Some((uses, revoked)) = self.remembered.get_mut(&id) else { return Some(Fault::NoHold(id)) };
        if is_use {
            *uses += 1;
        } else {
            *revoked = event.who.map(|who| (event.at, who));
        }
        None
    }

    /// A frame beside that of the hold: the bytes that are kept of it, by `query`, are those of the event.
    fn frame(&mut self, query: &'static str, event: &AuditEvent) -> Result<Option<Fault>, StoreError> {
        let Some(id) = event.hold else { return Ok(Some(Fault::NotAnEvent)) };
        let frame = one(self.db, query, params![integer(event.seq), id], |row| {
            Ok(row.get::<Vec<u8>>(0).ok().map(|frame| Digest::of(&frame)))
        });
        self.frames += 1;
        match frame? {
            Some(digest) if digest.is_some() && digest == event.frame_sha256 => Ok(None),
            Some(_) => Ok(Some(Fault::Frame(id))),
            None => Ok(Some(Fault::NoHold(id))),
        }
    }

    fn begin(&mut self, id: HoldId, event: AuditEvent) -> Result<Option<Fault>, StoreError> {
        let (seq, record) = match self.record(id)? {
            Ok(record) => record,
            Err(fault) => return Ok(Some(fault)),
        };
        // The row names the line at which it begins, so no two `held` events can share one.
        if seq != event.seq {
            return Ok(Some(Fault::NoHold(id)));
        }
        if Some(Digest::of(&record.hold.frame)) != event.frame_sha256 {
            return Ok(Some(Fault::Frame(id)));
        }
        let expected = AuditEvent { seq, prev: event.prev, ..AuditEvent::held(&record.hold) };
        if expected != event {
            return Ok(Some(Fault::Record(id)));
        }
        self.holds += 1;
        self.open.insert(id, event);
        Ok(None)
    }

    /// Whether the row of the hold is what its last event says.
    fn outcome(&self, id: HoldId, last: &AuditEvent) -> Result<Option<Fault>, StoreError> {
        let (_, record) = match self.record(id)? {
            Ok(record) => record,
            Err(fault) => return Ok(Some(fault)),
        };
        let agrees = if last.kind == EventKind::State(State::Held) {
            let HoldRecord { state, votes, ended_at, note, .. } = &record;
            *state == State::Held && *votes == last.votes && ended_at.is_none() && note.is_none()
        } else {
            record.ended_at.is_some_and(|at| {
                let expected = AuditEvent::moved(&record, at);
                AuditEvent { seq: last.seq, prev: last.prev, ..expected } == *last
            })
        };
        if !agrees {
            return Ok(Some(Fault::Outcome(id)));
        }
        // A chain can be made anew by whoever writes the record; a signature cannot.
        let votes = record.votes.iter().map(|vote| check_recorded(&record.hold, vote));
        let bad = votes.filter_map(Result::err).next();
        Ok(bad.map(|error| Fault::Signature { hold: id, why: error.to_string() }))
    }

    /// What is left when all lines were right: holds that have not ended, holds without an event, and the checkpoint.
    /// An event of a tool: which definition counts, and whether another is listed.
    fn tool(&mut self, occasion: Occasion, event: AuditEvent) -> Option<Fault> {
        let (Some(server), Some(tool), Some(sha256)) = (event.server, event.tool, event.tool_sha256) else {
            return Some(Fault::NotAnEvent);
        };
        let of = (server, tool);
        let before = self.tools.get(&of).map(|(accepted, _, _)| *accepted);
        let now = match (occasion, before) {
            (Occasion::ToolListed, None) | (Occasion::ToolAccepted, Some(_)) => (sha256, None, event.seq),
            (Occasion::ToolChanged, Some(accepted)) => (accepted, Some(sha256), event.seq),
            _ => return Some(Fault::Tool(of.0, of.1)),
        };
        self.tools.insert(of, now);
        None
    }

    /// Whether the tools and their definitions are what the events say.
    fn tools(&self) -> Result<Option<Fault>, StoreError> {
        let found = match tools::standings(self.db) {
            Err(StoreError::Unreadable { .. }) => return Ok(Some(Fault::Unreadable)),
            found => found?,
        };
        for (server, tool, standing) in &found {
            let of = (server.clone(), tool.clone());
            if standing.is_none() || self.tools.get(&of) != standing.as_ref() {
                return Ok(Some(Fault::Tool(of.0, of.1)));
            }
        }
        if found.len() < self.tools.len() {
            let is_there = |of: &(String, String)| {
                found.iter().any(|(server, tool, _)| (server, tool) == (&of.0, &of.1))
            };
            let missing = self.tools.keys().find(|of| !is_there(of)).cloned().unwrap_or_default();
            return Ok(Some(Fault::Tool(missing.0, missing.1)));
        }
        Ok(None)
    }

    fn rest(&mut self) -> Result<Option<(u64, Fault)>, StoreError> {
        if let Some(fault) = self.tools()? {
            return Ok(Some((self.head.seq, fault)));
        }
        for (id, last) in std::mem::take(&mut self.open) {
            if let Some(fault) = self.outcome(id, &last)? {
                return Ok(Some((last.seq, fault)));
            }
        }
        let known_remembered = self.remembered.len() as u64;
        for (id, (uses, revoked)) in std::mem::take(&mut self.remembered) {
            let stored = approvals::one_remembered(self.db, id)?;
            if !stored.is_some_and(|(_, stored)| stored.uses == uses && stored.revoked == revoked) {
                return Ok(Some((self.head.seq, Fault::Remembered(id))));
            }
        }
        let counted =
            |row: &mut Row| Ok((row.get::<u64>(0)?.max(row.get(1)?), row.get::<u64>(2)?, row.get::<u64>(3)?));
        let (holds, frames, remembered) = one(self.db, COUNT_HOLDS, &[], counted)?.unwrap_or_default();
        let strangers = holds.saturating_sub(self.holds)
            + frames.saturating_sub(self.frames)
            + remembered.saturating_sub(known_remembered);
        if strangers > 0 {
            return Ok(Some((self.head.seq, Fault::NoEvent(strangers))));
        }
        Ok(match self.against {
            Some(known) if known.seq > self.head.seq => Some((self.head.seq, Fault::Truncated(known.seq))),
            Some(known) if known.seq == 0 && known != Checkpoint::EMPTY => Some((0, Fault::Rewritten)),
            _ => None,
        })
    }

    /// The row of a hold. One that cannot be read is a finding, a failure of the database is not.
    fn record(&self, id: HoldId) -> Result<Result<(u64, HoldRecord), Fault>, StoreError> {
        match statements::hold(self.db, id) {
            Ok(Some(found)) => Ok(Ok(found)),
            Ok(None) => Ok(Err(Fault::NoHold(id))),
            Err(StoreError::Unreadable { .. }) => Ok(Err(Fault::Record(id))),
            Err(error) => Err(error),
        }
    }
}

/// The row at which line `seq` is expected.
fn read_line(row: &mut Row, seq: u64) -> Result<AuditLine, Fault> {
    let found = row.get::<i64>(0).map_err(|_| Fault::Unreadable)?;
    if u64::try_from(found) != Ok(seq) {
        return Err(Fault::Gap { found });
    }
    let line = row.get(1).map_err(|_| Fault::Unreadable)?;
    let hash = row.get(2).map_err(|_| Fault::Unreadable)?;
    Ok(AuditLine { seq, line, hash })
}
