//! The thread that reads from PostgreSQL, with a connection of its own, which it makes when something is to be read first.
//!
//! Started by `postgres::start`. Cannot write: its transactions are read-only.

use std::{
    sync::{Arc, mpsc::Receiver},
    thread,
    time::Duration,
};

use tokio::{runtime::Runtime, sync::watch};

use super::{
    is_lost, schema,
    session::{BEGIN_READING, Session},
    settings::PostgresUrl,
};
use crate::store::{error::StoreError, reader::Read, sql::Sql};

/// How long a failure to connect is kept before it is told to whoever asks meanwhile.
const RETRY_AFTER: Duration = Duration::from_millis(250);

/// Answers questions until every handle is gone, once the writer has `opened` the record, or failed to.
pub(super) fn serve(
    runtime: &Arc<Runtime>,
    url: &PostgresUrl,
    reads: &Receiver<Read>,
    mut opened: watch::Receiver<bool>,
) {
    let _ = runtime.block_on(opened.wait_for(|opened| *opened));
    let mut kept: Option<Session> = None;
    while let Ok(read) = reads.recv() {
        match begin(runtime, url, kept.take()) {
            Ok(session) => {
                read(Ok(&session));
                if session.roll_back().is_ok() {
                    kept = Some(session);
                }
            }
            Err(error) => {
                // Whoever asks again at once must not make a storm of connections of it.
                thread::sleep(RETRY_AFTER);
                read(Err(error.clone()));
                reads.try_iter().for_each(|waiting| waiting(Err(error.clone())));
            }
        }
    }
}

/// A connection with a snapshot open. One that has broken while nobody used it is made anew.
fn begin(runtime: &Arc<Runtime>, url: &PostgresUrl, kept: Option<Session>) -> Result<Session, StoreError> {
    if let Some(session) = kept {
        match session.execute(BEGIN_READING, &[]) {
            Ok(_) => return Ok(session),
            Err(error) if is_lost(&error) => {}
            Err(error) => return Err(error),
        }
    }
    let session = Session::open(runtime, url, ())?;
    schema::check(&session, url)?;
    session.execute(BEGIN_READING, &[])?;
    Ok(session)
}
