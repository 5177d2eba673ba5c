//! The schema of the record in PostgreSQL: made and brought up to date by whichever process comes first.
//!
//! Used by `writer` when it connects, and by `reader`, which only looks. Never changes a record of a later version.

use std::path::Path;

use super::{
    session::{BEGIN, COMMIT, Session},
    settings::PostgresUrl,
    writer::LOCK_LOG,
};
use crate::{
    faults::fail_point,
    store::{
        error::StoreError,
        migrations::{KNOWN_VERSION, MIGRATIONS},
        sql::{Sql, one},
    },
};

const VERSION: &str = "SELECT version FROM holdshort_schema";
const HAS_VERSION: &str = "SELECT count(*) FROM pg_class WHERE oid = to_regclass('holdshort_schema')";

/// Brings the schema up to date, in one transaction that only one process has at a time.
pub(super) fn migrate(session: &Session, url: &PostgresUrl) -> Result<(), StoreError> {
    // Looked at first without the lock: a record that is up to date opens however long another process writes.
    if version(session, url)? == KNOWN_VERSION {
        return Ok(());
    }
    session.put(BEGIN, &[])?;
    session.put(LOCK_LOG, &[])?;
    let changed = (|| {
        session.settle()?;
        // Somebody else may have been quicker.
        let version = version(session, url)?;
        if version == 0 {
            session.run("CREATE TABLE holdshort_schema (version BIGINT NOT NULL); INSERT INTO holdshort_schema VALUES (0)")?;
        }
        for migration in MIGRATIONS.iter().skip(usize::try_from(version).unwrap_or(usize::MAX)) {
            session.run(migration.postgres)?;
            fail_point!("schema.amid_change");
        }
        session.run(&format!("UPDATE holdshort_schema SET version = {KNOWN_VERSION}"))?;
        fail_point!("schema.before_commit");
        session.execute(COMMIT, &[])?;
        fail_point!("schema.after_commit");
        Ok(())
    })();
    if changed.is_err() && !session.is_closed() {
        let _ = session.roll_back();
    }
    changed
}

/// The version of the schema: 0 where there is none, [`KNOWN_VERSION`] at most.
fn version(session: &Session, url: &PostgresUrl) -> Result<i64, StoreError> {
    let found = one(session, HAS_VERSION, &[], |row| row.get::<i64>(0))?;
    if found != Some(1) {
        return Ok(0);
    }
    let version = one(session, VERSION, &[], |row| row.get::<i64>(0))?.unwrap_or(0);
    if (0..=KNOWN_VERSION).contains(&version) {
        return Ok(version);
    }
    let path = Path::new(&url.to_string()).into();
    Err(StoreError::Newer { path, found: version, known: KNOWN_VERSION })
}

/// Fails if the schema is not that of this program.
pub(super) fn check(session: &Session, url: &PostgresUrl) -> Result<(), StoreError> {
    if version(session, url)? == KNOWN_VERSION {
        return Ok(());
    }
    let why = "nothing was recorded there yet by this version of the program";
    Err(StoreError::Unusable { place: url.to_string().into(), why: why.into() })
}
