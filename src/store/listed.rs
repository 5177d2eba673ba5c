//! The statements of lists: what is open and can be decided without its caller, and what there was, a page at a time, and only so much of each
//! frame as a list shows.
//!
//! Called by readers. Frames have up to 16 MiB, and thousands of calls can be left behind: a list never reads them all.

use bytes::Bytes;

use super::{
    HistoryFilter, approvals,
    error::StoreError,
    sql::{Row, Sql, collect, integer, nanoseconds, one, params},
    statements::{FRAME_COLUMN, record},
};
use crate::hold::{HoldId, HoldRecord, Place};

/// The longest frame that is read with a list, in bytes, together with what an approver has made of it.
pub const LISTED_FRAME_BYTES_MAX: usize = 64 << 10;

/// A hold of a list.
#[derive(Clone, Debug)]
pub struct Listed {
    /// The hold, without its frame and what an approver has made of it if they are longer than [`LISTED_FRAME_BYTES_MAX`] together.
    pub record: HoldRecord,
    /// The length of the frame, in bytes.
    pub frame_bytes: usize,
}

impl Listed {
    /// Whether the frame was read.
    pub fn has_frame(&self) -> bool {
        self.record.hold.frame.len() == self.frame_bytes
    }
}

/// Holds as [`listed`] reads them; `$from` has them as `h`.
macro_rules! select_listed {
    ($from:expr, $rest:literal) => {
        concat!(
            "SELECT ",
            hold_columns!(),
            ", CASE WHEN length(f.frame) + coalesce(length(e.frame), 0) <= ?1 THEN f.frame END, \
             CASE WHEN length(f.frame) + coalesce(length(e.frame), 0) <= ?1 THEN e.frame END, \
             CAST(length(f.frame) AS BIGINT) FROM ",
            $from,
            " JOIN frames f ON f.hold = h.seq LEFT JOIN edits e ON e.hold = h.seq ",
            $rest
        )
    };
}

/// A page of open holds, of which the places are chosen first: nothing long is read to be sorted.
macro_rules! select_page {
    ($which:literal) => {
        select_listed!(
            concat!(
                "(SELECT h.seq AS seq FROM holds h WHERE h.state IN ('held', 'granted', 'forwarding', 'unknown') AND ",
                $which,
                " AND (h.created_at > ?2 OR (h.created_at = ?2 AND h.id > ?3)) ORDER BY h.created_at, h.id LIMIT ?4) p \
                 JOIN holds h ON h.seq = p.seq"
            ),
            "ORDER BY h.created_at, h.id"
        )
    };
}

const ONE: &str = select_listed!("holds h", "WHERE h.id = ?2");
const DETACHED: &str = select_page!("h.holder IS NULL");
const DECIDABLE: &str = select_page!("(h.holder IS NULL OR h.state = 'held')");

const HISTORY: &str = select_listed!(
    "holds h",
    "WHERE h.seq < CASE WHEN ?2 IS NULL THEN 9223372036854775807 ELSE (SELECT seq FROM holds WHERE id = ?2) END \
     AND (?3 = '' OR ?3 LIKE '% ' || h.state || ' %') \
     AND (?4 IS NULL OR h.server = ?4) AND (?5 IS NULL OR h.tool = ?5) ORDER BY h.seq DESC LIMIT ?6"
);

/// The holds that are as `filter` says, the newest first.
pub(super) fn history(db: &dyn Sql, filter: &HistoryFilter) -> Result<Vec<Listed>, StoreError> {
    let mut states: String = filter.states.iter().map(|state| format!(" {state}")).collect();
    if !states.is_empty() {
        states.push(' ');
    }
    let (bytes_max, limit) = (integer(LISTED_FRAME_BYTES_MAX), integer(filter.limit));
    let parameters = params![bytes_max, filter.before, states, filter.server, filter.tool, limit];
    collect(db, HISTORY, parameters, listed)
}

/// The hold of this id, as it is listed.
pub(super) fn listed_hold(db: &dyn Sql, id: HoldId) -> Result<Option<Listed>, StoreError> {
    one(db, ONE, params![integer(LISTED_FRAME_BYTES_MAX), id], listed)
}

/// What no process has a caller for and something may still become of, behind the place `after`, the oldest first.
pub(super) fn detached_holds(
    db: &dyn Sql,
    after: Option<Place>,
    limit: usize,
) -> Result<Vec<Listed>, StoreError> {
    page(db, DETACHED, after, limit)
}

/// The same, and what waits with a caller at any process.
pub(super) fn decidable_holds(
    db: &dyn Sql,
    after: Option<Place>,
    limit: usize,
) -> Result<Vec<Listed>, StoreError> {
    page(db, DECIDABLE, after, limit)
}

fn page(
    db: &dyn Sql,
    statement: &'static str,
    after: Option<Place>,
    limit: usize,
) -> Result<Vec<Listed>, StoreError> {
    let (at, id) = match after {
        Some((at, id)) => (nanoseconds(at)?, id),
        None => (i64::MIN, HoldId([0; 16])),
    };
    collect(db, statement, params![integer(LISTED_FRAME_BYTES_MAX), at, id, integer(limit)], listed)
}

fn listed(row: &mut Row) -> Result<Listed, StoreError> {
    let frame = row.get::<Option<Vec<u8>>>(FRAME_COLUMN)?.map(Bytes::from).unwrap_or_default();
    let edit = row.get::<Option<Vec<u8>>>(FRAME_COLUMN + 1)?.map(approvals::edit_of);
    let frame_bytes: u64 = row.get(FRAME_COLUMN + 2)?;
    let (_, found) = record(row, frame)?;
    Ok(Listed {
        record: HoldRecord { edit, ..found },
        frame_bytes: frame_bytes.try_into().unwrap_or(usize::MAX),
    })
}
