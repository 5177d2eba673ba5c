//! The statements about tools: which definition of each counts, which one a server lists now, and who has accepted what.
//!
//! Part of `Store`; called by `writer` (inside its transaction) and by `reader`. The first definition of a tool counts until a person accepts
//! another one; what a server lists can only bring a tool under suspicion, never clear it.

use std::sync::Arc;

use jiff::Timestamp;

use super::{
    ROWS_READ_MAX, Store,
    error::StoreError,
    sql::{Row, Sql, collect, integer, nanoseconds, one as first, params},
    statements::append,
    writer::{AcceptedTool, Job, SeenTools, Written},
};
use crate::{
    audit::{AuditEvent, Checkpoint, Occasion},
    definition::{
        CHANGES_PER_TOOL_MAX, DEFINITIONS_PER_TOOL_MAX, Definition, ListedTool, SERVER_DEFINITION_BYTES_MAX,
        TOOLS_PER_SERVER_MAX, ToolRecord, ToolState,
    },
    digest::Digest,
};

/// The columns that [`read`] reads, in its order.
macro_rules! tool_columns {
    () => {
        "t.server, t.tool, t.accepted, t.accepted_by, t.changed, t.changed_at, t.revision, t.accepted_at, \
         t.first_seen_at, t.last_seen_at, t.id, t.changes"
    };
}

const ONE: &str = concat!("SELECT ", tool_columns!(), " FROM tools t WHERE t.server = ?1 AND t.tool = ?2");
const ALL: &str = concat!(
    "SELECT ",
    tool_columns!(),
    " FROM tools t WHERE (?1 IS NULL OR t.server = ?1) ORDER BY t.server, t.tool LIMIT ?2"
);
const SINCE: &str =
    concat!("SELECT ", tool_columns!(), " FROM tools t WHERE t.revision > ?1 ORDER BY t.revision LIMIT ?2");
const INSERT: &str = "INSERT INTO tools (server, tool, accepted, accepted_at, changes, first_seen_at, last_seen_at, revision) \
     VALUES (?1, ?2, ?3, ?4, 0, ?4, ?4, ?5) RETURNING id";
const SEEN_AGAIN: &str = "UPDATE tools SET last_seen_at = ?2 WHERE id = ?1 AND last_seen_at < ?2";
const CHANGED: &str = "UPDATE tools SET changed = ?2, changed_at = ?3, changes = changes + 1, revision = ?4, \
     last_seen_at = CASE WHEN last_seen_at < ?3 THEN ?3 ELSE last_seen_at END WHERE id = ?1";
const ACCEPTED: &str = "UPDATE tools SET accepted = ?2, accepted_at = ?3, accepted_by = ?4, changed = NULL, changed_at = NULL, \
     changes = 0, revision = ?5 WHERE id = ?1";
const DEFINITIONS: &str = "SELECT sha256, definition, bytes, seen_at FROM tool_definitions WHERE tool = ?1 ORDER BY seen_at, sha256";
const ADD_DEFINITION: &str = "INSERT INTO tool_definitions (tool, sha256, definition, bytes, seen_at) \
     VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT DO NOTHING";
const FORGET_OLD: &str = "DELETE FROM tool_definitions WHERE tool = ?1 AND sha256 NOT IN ( \
     SELECT d.sha256 FROM tool_definitions d JOIN tools t ON t.id = d.tool WHERE d.tool = ?1 \
     ORDER BY d.sha256 IN (t.accepted, coalesce(t.changed, t.accepted)) DESC, d.seen_at DESC LIMIT ?2)";
const TAKEN: &str = "SELECT (SELECT count(*) FROM tools WHERE server = ?1), (SELECT coalesce(sum(length(d.definition)), 0) \
     FROM tool_definitions d JOIN tools t ON t.id = d.tool WHERE t.server = ?1)";

impl Store {
    /// Records that `server` lists `tools`, at the process `gate`: a tool that is new counts as it is listed, one that is
    /// another than was accepted is changed from now on. Gives where they stand, and whether some are not on record because
    /// there was no room for them.
    pub async fn see_tools(
        &self,
        server: Arc<str>,
        tools: Vec<ListedTool>,
        gate: Arc<str>,
    ) -> Result<(Vec<ToolState>, bool), StoreError> {
        let seen = SeenTools { server, tools, gate, at: Timestamp::now() };
        match self.write(Job::SeeTools(Box::new(seen))).await? {
            Written::Tools(found) => Ok((found.states, found.is_full)),
            _ => Err(StoreError::Closed),
        }
    }

    /// Records that from now on the definition `sha256` of a tool counts, because `who` says so at the process `gate`.
    ///
    /// # Errors
    /// [`StoreError::NoSuchTool`], [`StoreError::NoSuchDefinition`] and [`StoreError::DefinitionNotKept`].
    pub async fn accept_tool(
        &self,
        server: &str,
        tool: &str,
        sha256: Digest,
        gate: Arc<str>,
        who: String,
    ) -> Result<ToolState, StoreError> {
        let (server, tool, at) = (server.to_owned(), tool.to_owned(), Timestamp::now());
        let accepted = AcceptedTool { server, tool, sha256, gate, who, at };
        match self.write(Job::AcceptTool(Box::new(accepted))).await? {
            Written::Tool(state) => Ok(*state),
            _ => Err(StoreError::Closed),
        }
    }

    /// A tool with all its definitions that are kept.
    pub async fn tool(&self, server: &str, tool: &str) -> Result<Option<ToolRecord>, StoreError> {
        let (server, tool) = (server.to_owned(), tool.to_owned());
        self.read(move |db| whole(db, &server, &tool)).await
    }

    /// All tools, or those of a server, without their definitions, in the order of their names, at most [`ROWS_READ_MAX`].
    pub async fn tools(&self, server: Option<&str>) -> Result<Vec<ToolRecord>, StoreError> {
        let server = server.map(str::to_owned);
        self.read(move |db| all(db, server.as_deref(), ROWS_READ_MAX)).await
    }

    /// Where the tools stand that have moved since `revision`, in that order, at most [`ROWS_READ_MAX`].
    pub async fn tools_since(&self, revision: u64) -> Result<Vec<ToolState>, StoreError> {
        self.read(move |db| since(db, revision, ROWS_READ_MAX)).await
    }
}

/// What a server has listed, as it is on record now.
#[derive(Debug)]
pub(super) struct Found {
    /// The tools that were listed, except those for which there was no room.
    pub(super) states: Vec<ToolState>,
    /// Whether there was no room for some of them.
    pub(super) is_full: bool,
}

/// How much of what one server may take is left.
struct Room {
    tools: usize,
    bytes: usize,
}

/// Records that `server` lists `tools`, at the process `gate`.
pub(super) fn see(
    db: &dyn Sql,
    head: &mut Checkpoint,
    server: &str,
    tools: &[ListedTool],
    gate: &str,
    at: Timestamp,
) -> Result<Found, StoreError> {
    let mut found = Found { states: Vec::with_capacity(tools.len()), is_full: false };
    let mut room = room(db, server)?;
    for listed in tools {
        let event = |occasion, note: Option<String>| AuditEvent {
            server: Some(server.to_owned()),
            tool: Some(listed.tool.to_string()),
            tool_sha256: Some(listed.sha256),
            note,
            ..AuditEvent::new(occasion, gate, at)
        };
        match one(db, server, &listed.tool)? {
            None if room.tools == 0 => {
                found.is_full = true;
                continue;
            }
            None => {
                room.tools -= 1;
                let seq = append(db, head, event(Occasion::ToolListed, None))?;
                let (seen, seq) = (nanoseconds(at)?, integer(seq));
                let parameters = params![server, listed.tool, listed.sha256, seen, seq];
                let Some(id) = first(db, INSERT, parameters, |row| row.get(0))? else {
                    return Err(StoreError::Unreadable { column: 0 });
                };
                add_definition(db, id, listed, &mut room, at)?;
            }
            Some(row) if row.knows(listed.sha256) || row.changes >= CHANGES_PER_TOOL_MAX => {
                db.put(SEEN_AGAIN, params![row.id, nanoseconds(at)?])?;
            }
            Some(row) => {
                let note = format!("{} was accepted", row.record.state.accepted);
                let seq = append(db, head, event(Occasion::ToolChanged, Some(note)))?;
                add_definition(db, row.id, listed, &mut room, at)?;
                db.put(CHANGED, params![row.id, listed.sha256, nanoseconds(at)?, integer(seq)])?;
                db.put(FORGET_OLD, params![row.id, integer(DEFINITIONS_PER_TOOL_MAX)])?;
            }
        }
        found.states.extend(one(db, server, &listed.tool)?.map(|row| row.record.state));
    }
    Ok(found)
}

fn room(db: &dyn Sql, server: &str) -> Result<Room, StoreError> {
    let left = |limit: usize, taken: u64| limit.saturating_sub(usize::try_from(taken).unwrap_or(usize::MAX));
    let room = first(db, TAKEN, params![server], |row| {
        Ok(Room {
            tools: left(TOOLS_PER_SERVER_MAX, row.get(0)?),
            bytes: left(SERVER_DEFINITION_BYTES_MAX, row.get(1)?),
        })
    })?;
    room.ok_or(StoreError::Unreadable { column: 0 })
}

/// Keeps a definition; without its text, if there is no room for it.
fn add_definition(
    db: &dyn Sql,
    tool: i64,
    listed: &ListedTool,
    room: &mut Room,
    at: Timestamp,
) -> Result<(), StoreError> {
    let text = listed.text.as_deref().filter(|text| text.len() <= room.bytes);
    room.bytes -= text.map_or(0, str::len);
    db.put(ADD_DEFINITION, params![tool, listed.sha256, text, integer(listed.bytes), nanoseconds(at)?])
}

/// From now on the definition `sha256` of a tool counts, because `who` says so. Gives the tool, and whether that is news.
pub(super) fn accept(
    db: &dyn Sql,
    head: &mut Checkpoint,
    server: &str,
    tool: &str,
    sha256: Digest,
    (gate, who): (&str, &str),
    at: Timestamp,
) -> Result<ToolState, StoreError> {
    let Some(row) = one(db, server, tool)? else {
        return Err(StoreError::NoSuchTool { server: server.into(), tool: tool.into() });
    };
    let kept = definitions(db, row.id)?;
    let Some(definition) = kept.iter().find(|definition| definition.sha256 == sha256) else {
        return Err(StoreError::NoSuchDefinition { sha256 });
    };
    let ToolState { accepted, changed, .. } = row.record.state;
    if accepted == sha256 && changed.is_none() {
        return Ok(row.record.state);
    }
    // What cannot be shown cannot be judged. To stay with what counts is no judgement of it.
    if definition.text.is_none() && accepted != sha256 {
        return Err(StoreError::DefinitionNotKept { sha256 });
    }
    let seq = append(
        db,
        head,
        AuditEvent {
            who: Some(who.to_owned()),
            server: Some(server.to_owned()),
            tool: Some(tool.to_owned()),
            tool_sha256: Some(sha256),
            note: Some(format!("{accepted} was accepted")),
            ..AuditEvent::new(Occasion::ToolAccepted, gate, at)
        },
    )?;
    db.put(ACCEPTED, params![row.id, sha256, nanoseconds(at)?, who, integer(seq)])?;
    Ok(one(db, server, tool)?.map_or(row.record.state, |row| row.record.state))
}

/// The definition of a tool that counts, the changed one, and the number of its last event.
pub(super) type Standing = (Digest, Option<Digest>, u64);

/// Where every tool stands, for a verification: without a standing, if the definitions that are kept of it are not those of its
/// digests.
pub(super) fn standings(db: &dyn Sql) -> Result<Vec<(String, String, Option<Standing>)>, StoreError> {
    let mut found = Vec::new();
    for Kept { id, record, .. } in collect(db, ALL, params![None::<&str>, i64::MAX], read)? {
        let ToolState { server, tool, accepted, changed, revision, .. } = record.state;
        let kept = definitions(db, id)?;
        let is_whole = |definition: &Definition| {
            definition.text.as_ref().is_none_or(|text| Digest::of(text.as_bytes()) == definition.sha256)
        };
        let changed = changed.map(|(changed, _)| changed);
        let has = |sha256| kept.iter().any(|definition| definition.sha256 == sha256);
        let is_right = kept.iter().all(is_whole) && has(accepted) && changed.is_none_or(has);
        found.push((server.into(), tool.into(), is_right.then_some((accepted, changed, revision))));
    }
    Ok(found)
}

/// A tool with all its definitions.
fn whole(db: &dyn Sql, server: &str, tool: &str) -> Result<Option<ToolRecord>, StoreError> {
    let Some(row) = one(db, server, tool)? else { return Ok(None) };
    Ok(Some(ToolRecord { definitions: definitions(db, row.id)?, ..row.record }))
}

/// All tools, or those of a server, in the order of their names.
fn all(db: &dyn Sql, server: Option<&str>, limit: usize) -> Result<Vec<ToolRecord>, StoreError> {
    let rows = collect(db, ALL, params![server, integer(limit)], read)?;
    Ok(rows.into_iter().map(|row| row.record).collect())
}

/// The tools that have moved since `revision`, in that order.
fn since(db: &dyn Sql, revision: u64, limit: usize) -> Result<Vec<ToolState>, StoreError> {
    let rows = collect(db, SINCE, params![integer(revision), integer(limit)], read)?;
    Ok(rows.into_iter().map(|row| row.record.state).collect())
}

// --- rows ------------------------------------------------------------------------------------------------------------

struct Kept {
    id: i64,
    changes: u32,
    record: ToolRecord,
}

impl Kept {
    /// Whether the definition counts already, or is the one under suspicion.
    fn knows(&self, sha256: Digest) -> bool {
        let ToolState { accepted, changed, .. } = &self.record.state;
        *accepted == sha256 || changed.is_some_and(|(changed, _)| changed == sha256)
    }
}

fn one(db: &dyn Sql, server: &str, tool: &str) -> Result<Option<Kept>, StoreError> {
    first(db, ONE, params![server, tool], read)
}

fn definitions(db: &dyn Sql, tool: i64) -> Result<Vec<Definition>, StoreError> {
    collect(db, DEFINITIONS, params![tool], |row| {
        Ok(Definition { sha256: row.get(0)?, text: row.get(1)?, bytes: row.get(2)?, seen_at: row.get(3)? })
    })
}

/// Reads the columns of `tool_columns!`.
fn read(row: &mut Row) -> Result<Kept, StoreError> {
    let accepted_by: Option<String> = row.get(3)?;
    let changed = match row.get(4)? {
        Some(sha256) => Some((sha256, row.get(5)?)),
        None => None,
    };
    let state = ToolState {
        server: row.get(0)?,
        tool: row.get(1)?,
        accepted: row.get(2)?,
        is_first: accepted_by.is_none(),
        changed,
        revision: row.get(6)?,
    };
    let record = ToolRecord {
        state,
        accepted_by,
        accepted_at: row.get(7)?,
        first_seen_at: row.get(8)?,
        last_seen_at: row.get(9)?,
        definitions: Vec::new(),
    };
    Ok(Kept { id: row.get(10)?, changes: row.get(11)?, record })
}
