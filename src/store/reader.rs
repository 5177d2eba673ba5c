//! The thread that reads, with a connection of its own: a long verification never delays a commit, nor a commit a list.
//!
//! Started by `Store::open` once the file is open. Cannot write: its connection is read-only.

use std::sync::mpsc::Receiver;

use super::{
    error::StoreError,
    place::{Opened, Place},
    sql::Sql,
};

/// A question, with the way back to whoever asked.
pub(super) type Read = Box<dyn FnOnce(Result<&dyn Sql, StoreError>) + Send>;

/// Answers questions until every handle is gone. `opening` is how opening the file ended; if it failed, that is the answer.
pub(super) fn serve(place: &Place, opening: Result<(), StoreError>, reads: &Receiver<Read>) {
    let mut kept: Option<Opened> = None;
    while let Ok(read) = reads.recv() {
        let opened = opening.clone().and_then(|()| match kept.take() {
            // A file that was replaced is read anew: the writer tells of it, a reader shows what is there.
            Some(opened) if place.check_still(&opened).is_ok() => Ok(opened),
            _ => place.open_for_reading(),
        });
        match opened {
            Ok(opened) => {
                // One snapshot: whatever is read together is of the same moment, and writers go on meanwhile.
                match opened.connection.unchecked_transaction() {
                    Ok(snapshot) => read(Ok(&*snapshot)),
                    Err(error) => read(Err(error.into())),
                };
                // Reads are rare, and a gate may idle for days: the pages are not kept. Failing costs only memory.
                let _ = opened.connection.release_memory();
                kept = Some(opened);
            }
            Err(error) => read(Err(error)),
        }
    }
}
