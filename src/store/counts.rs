//! How much on the record is not over, counted by an index without reading one call.

use jiff::Timestamp;

use super::{
    error::StoreError,
    sql::{Sql, collect},
};
use crate::hold::State;

/// What of a record's holds is not over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OpenCounts {
    /// How many are in each state of which something may still become.
    pub states: Vec<(State, u64)>,
    /// Since when the oldest waits that can be decided.
    pub oldest: Option<Timestamp>,
}

const COUNTS: &str = "SELECT state, count(*), min(created_at) FROM holds \
     WHERE state IN ('held', 'granted', 'forwarding', 'unknown') GROUP BY state";

/// The states of which something may still become.
pub(super) const OPEN_STATES: [State; 4] = [State::Held, State::Granted, State::Forwarding, State::Unknown];

/// Counts what is open.
pub(super) fn open_counts(db: &dyn Sql) -> Result<OpenCounts, StoreError> {
    let rows: Vec<(String, i64, i64)> =
        collect(db, COUNTS, &[], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    let of = |state: State| rows.iter().find(|(word, ..)| *word == state.word());
    let count = |state| of(state).map_or(0, |(_, count, _)| u64::try_from(*count).unwrap_or_default());
    let oldest = of(State::Held).and_then(|(.., since)| Timestamp::from_nanosecond((*since).into()).ok());
    Ok(OpenCounts { states: OPEN_STATES.iter().map(|state| (*state, count(*state))).collect(), oldest })
}
