//! The record in PostgreSQL, shared by the processes of a fleet.
//!
//! Started by `Store::open_at`. Two threads, as for a file: `writer` has the connection that shows that this process lives, `reader`
//! one of its own. The statements are those of every record; here is what a network and several machines add: connections that
//! break, commits of which the answer is lost, and what processes tell each other. Decides nothing about a hold.

mod reader;
mod schema;
mod session;
mod settings;
mod tls;
mod writer;

use std::sync::{Arc, mpsc};

use tokio::sync::{mpsc as queue, watch};

pub use self::settings::{PostgresUrl, UrlError};
use super::{
    EVENTS_QUEUED_MAX, WRITES_QUEUED_MAX,
    error::StoreError,
    lost::Lost,
    reader::Read,
    spawn,
    sql::{Sql, one, params},
    writer::Work,
};

/// What was heard of other processes on the record, as numbers that only grow: whoever missed one sees it in the next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// The log has grown.
    pub log: u64,
    /// Another process asks this one something.
    pub asked: u64,
    /// Another process has answered this one.
    pub answered: u64,
    /// The connection was made, at first or anew: what was told in between was not heard.
    pub connections: u64,
}

/// What the threads of one record share with its handles.
pub(super) struct Parts {
    pub(super) writes: queue::Sender<Work>,
    pub(super) reads: mpsc::Sender<Read>,
    pub(super) heard: watch::Receiver<Heard>,
}

/// Starts the two threads for the record at `url`, as the process `name`.
pub(super) fn start(url: &PostgresUrl, name: &Arc<str>, lost: &Arc<Lost>) -> Parts {
    // There is a slot for each, so that sending never finds it full.
    let (writes, write_queue) = queue::channel(WRITES_QUEUED_MAX + EVENTS_QUEUED_MAX);
    let (reads, read_queue) = mpsc::channel();
    let (told, heard) = watch::channel(Heard::default());
    let (opened, opening) = watch::channel(false);
    let (place, process, lost) = (url.clone(), Arc::clone(name), Arc::clone(lost));
    spawn("holdshort-store", move || match runtime() {
        Ok(runtime) => writer::Writer::new(runtime, place, process, lost, told).serve(write_queue, &opened),
        Err(error) => {
            tracing::error!(%error, "the store cannot be started: nothing is recorded, and nothing can be read")
        }
    });
    let place = url.clone();
    spawn("holdshort-read", move || match runtime() {
        Ok(runtime) => reader::serve(&runtime, &place, &read_queue, opening),
        Err(error) => tracing::error!(%error, "the store cannot be read"),
    });
    Parts { writes, reads, heard }
}

/// What one thread drives its connection with.
fn runtime() -> Result<Arc<tokio::runtime::Runtime>, std::io::Error> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().map(Arc::new)
}

/// Whether anybody has the lock. A server that began a moment ago has not been found again by all.
const IS_LOCKED: &str = "SELECT (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 1 AND granted \
     AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) \
     AND classid::bigint = ?1 AND objid::bigint = ?2), \
     CASE WHEN now() - pg_postmaster_start_time() < interval '5 seconds' THEN 1::bigint ELSE 0::bigint END";

/// The number of the lock that the process `name` has as long as it is connected.
pub(super) fn lock_of(name: &str) -> i64 {
    session::key(name)
}

/// Whether a process is connected, by its lock. In doubt it is.
pub(super) fn is_connected(db: &dyn Sql, lock: i64) -> Result<bool, StoreError> {
    // The server shows the two halves of the number apart.
    let (high, low) = ((lock >> 32) & 0xffff_ffff, lock & 0xffff_ffff);
    let found =
        one(db, IS_LOCKED, params![high, low], |row| Ok(row.get::<i64>(0)? > 0 || row.get::<bool>(1)?))?;
    Ok(found.unwrap_or(true))
}

/// Whether a failure is one of the connection.
fn is_lost(error: &StoreError) -> bool {
    match error {
        StoreError::Server(error) => error.is_lost(),
        StoreError::Unreachable { .. } => true,
        _ => false,
    }
}
