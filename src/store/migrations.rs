//! The ordered changes of the schema. The version of a record is how many of them it has had, whatever database keeps it.
//!
//! Applied by `place` and `postgres` when a record is opened, in one transaction. To add one: a file for each of the two, with the
//! same number, and a line here; one that was given away is never changed.

/// One change, in the words of both databases.
pub(super) struct Migration {
    pub(super) sqlite: &'static str,
    pub(super) postgres: &'static str,
}

macro_rules! migration {
    ($sqlite:literal, $postgres:literal) => {
        Migration {
            sqlite: include_str!(concat!("migrations/", $sqlite)),
            postgres: include_str!(concat!("migrations/postgres/", $postgres)),
        }
    };
    // What PostgreSQL gets with a later one.
    ($sqlite:literal) => {
        Migration { sqlite: include_str!(concat!("migrations/", $sqlite)), postgres: "" }
    };
}

/// All of them.
pub(super) const MIGRATIONS: [Migration; 9] = [
    migration!("0001_holds_and_audit.sql"),
    migration!("0002_waiting.sql"),
    migration!("0003_quorum.sql"),
    migration!("0004_approvals.sql"),
    migration!("0005_outbox.sql"),
    migration!("0006_heard.sql"),
    migration!("0007_tools.sql"),
    migration!("0008_tasks.sql", "0008_all_until_tasks.sql"),
    migration!("0009_keys.sql", "0009_keys.sql"),
];

/// The version of a record that has had them all.
pub(super) const KNOWN_VERSION: i64 = MIGRATIONS.len() as i64;
