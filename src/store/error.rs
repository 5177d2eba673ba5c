//! What can go wrong with the record. Every one of these means that nothing was recorded: the caller fails closed.

use std::{fmt, io, path::Path, sync::Arc};

use rusqlite::ErrorCode;
use tokio_postgres::error::SqlState;

use super::BUSY_WAIT_SECONDS;
use crate::{
    digest::Digest,
    hold::{HoldId, State},
};

/// Why the store did not do what it was asked. Cheap to clone: one failure answers all the jobs of a commit.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The hold is in a state that may not become the one asked for. Somebody else was first.
    #[error("the hold is `{state}` already")]
    NotHeld {
        /// The state it has.
        state: State,
    },
    /// Another process has taken the hold over, and its caller with it.
    #[error("another gate has taken this hold over")]
    TakenOver,
    /// The hold has a caller at another process, which has to hear of a verdict.
    #[error("its caller is at the gate `{holder}`")]
    Attached {
        /// The process.
        holder: Arc<str>,
    },
    /// No such hold was recorded.
    #[error("no hold `{0}` is recorded")]
    NoSuchHold(HoldId),
    /// No server of this name has listed such a tool.
    #[error("no tool `{tool}` of a server `{server}` is recorded")]
    NoSuchTool {
        /// The server's name.
        server: Box<str>,
        /// The tool's name.
        tool: Box<str>,
    },
    /// The tool never had such a definition, or it is so old that it is no longer kept.
    #[error("the record has no definition {sha256} of this tool")]
    NoSuchDefinition {
        /// The digest that was named.
        sha256: Digest,
    },
    /// The definition was too long to be kept, so that nobody can have read it here.
    #[error("the definition {sha256} was too long or too deep to be kept, so it cannot be accepted")]
    DefinitionNotKept {
        /// Its digest.
        sha256: Digest,
    },
    /// A hold of this id was recorded before.
    #[error("hold `{0}` is recorded already")]
    Duplicate(HoldId),
    /// A time outside the years 1677 to 2262, which the record cannot keep.
    #[error("a time is out of the range that can be recorded")]
    Time,
    /// A text that cannot be written as JSON.
    #[error("an event cannot be written as JSON")]
    Encode(#[source] Arc<serde_json::Error>),
    /// The secret of this name has no 32 bytes, or the system has none to make one of.
    #[error("the record's secret `{0}` cannot be used")]
    BadKey(&'static str),
    /// Another process kept the file locked too long. The job may be tried again.
    #[error("another process has been writing to the store for {BUSY_WAIT_SECONDS} s")]
    Busy,
    /// The store has ended, or could not be started.
    #[error("the store is not running")]
    Closed,
    /// The directory or the file is not one that only we can write.
    #[error("`{path}` {fault}")]
    Place {
        /// The directory or file.
        path: Arc<Path>,
        /// What is wrong with it.
        fault: PlaceFault,
    },
    /// The operating system refused.
    #[error("`{path}` cannot be used")]
    Io {
        /// The directory or file.
        path: Arc<Path>,
        /// What the system said.
        #[source]
        source: Arc<io::Error>,
    },
    /// A file, but not one of ours.
    #[error("`{path}` is not a store of holdshort")]
    Foreign {
        /// The file.
        path: Arc<Path>,
    },
    /// A store that a later version of this program wrote.
    #[error(
        "`{path}` has schema version {found}, and this program knows versions up to {known}: use the newer one"
    )]
    Newer {
        /// The file.
        path: Arc<Path>,
        /// The version of the file.
        found: i64,
        /// The newest version that this program knows.
        known: i64,
    },
    /// The file was deleted or replaced while it was open.
    #[error("`{path}` was deleted or replaced while it was in use")]
    Replaced {
        /// The file.
        path: Arc<Path>,
    },
    /// The log does not have what this process left there: it was set back to an older state, or rewritten.
    #[error("the log is not as this process left it at line {seq}: verify the store, then restart")]
    Diverged {
        /// The line that is missing or different.
        seq: u64,
    },
    /// A row has something that this program did not write there.
    #[error("a row of the record cannot be read (column {column})")]
    Unreadable {
        /// The number of the column in the statement.
        column: usize,
    },
    /// The database server cannot be reached. The job may be tried again.
    #[error("the store at `{place}` cannot be reached: {why}")]
    Unreachable {
        /// Where it is, without a password.
        place: Box<str>,
        /// What the system said.
        why: Box<str>,
    },
    /// The database server cannot keep a record.
    #[error("the store at `{place}` cannot be used: {why}")]
    Unusable {
        /// Where it is, without a password.
        place: Box<str>,
        /// What is wrong with it.
        why: Box<str>,
    },
    /// The connection to the database server cannot be protected.
    #[error("the connection to the store cannot be protected: {0}")]
    Tls(Box<str>),
    /// The connection was lost while a commit was under way, and could not be had again in time.
    #[error("the connection to the store was lost, and nobody knows what it has recorded last")]
    InDoubt,
    /// The database server has refused a statement, or the connection was lost.
    #[error("{0}")]
    Server(ServerError),
    /// SQLite failed: disk full, I/O error, damage.
    #[error("the database failed")]
    Database(#[source] Arc<rusqlite::Error>),
}

/// What a PostgreSQL server, or the connection to it, has said. Shown without what it says of values: those are of calls.
#[derive(Debug, Clone)]
pub struct ServerError(Arc<tokio_postgres::Error>);

impl ServerError {
    pub(super) fn new(error: tokio_postgres::Error) -> Self {
        Self(Arc::new(error))
    }

    /// Whether the same transaction, begun again, may succeed: it has met another one.
    pub(super) fn is_collision(&self) -> bool {
        matches!(self.0.code(), Some(&SqlState::T_R_SERIALIZATION_FAILURE | &SqlState::T_R_DEADLOCK_DETECTED))
    }

    /// Whether it has waited too long for a lock.
    pub(super) fn is_busy(&self) -> bool {
        self.0.code() == Some(&SqlState::LOCK_NOT_AVAILABLE)
    }

    /// Whether the connection is gone.
    pub(super) fn is_lost(&self) -> bool {
        match self.0.code() {
            None => true,
            Some(code) => [
                SqlState::ADMIN_SHUTDOWN,
                SqlState::CRASH_SHUTDOWN,
                SqlState::CANNOT_CONNECT_NOW,
                SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT,
            ]
            .contains(code),
        }
    }
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_db_error() {
            Some(error) => write!(f, "the database says: {} ({})", error.message(), error.code().code()),
            None => write!(f, "the connection to the database failed: {}", chain(&self.0)),
        }
    }
}

impl std::error::Error for ServerError {}

/// An error with its causes, in one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

/// What is wrong with a directory or file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PlaceFault {
    /// The path has no parent directory.
    #[error("names no file in a directory")]
    NoName,
    /// Not a directory where one is needed.
    #[error("is not a directory")]
    NotADirectory,
    /// A symbolic link, a device, a directory.
    #[error("is not a regular file")]
    NotAFile,
    /// It belongs to somebody else.
    #[error("belongs to another user (uid {owner})")]
    Owner {
        /// The numeric id of the owner.
        owner: u32,
    },
    /// Group or others may write it.
    #[error("can be written by others (mode {mode:03o}): take that permission away")]
    Writable {
        /// Its permission bits.
        mode: u32,
    },
    /// A directory in which everybody may make files, such as `/tmp`.
    #[error(
        "is a directory in which everybody may write: keep the record in a directory of your own inside it"
    )]
    Shared,
    /// We may not write it.
    #[error("cannot be written (mode {mode:03o})")]
    ReadOnly {
        /// Its permission bits.
        mode: u32,
    },
}

impl StoreError {
    /// Whether what was asked for may be on record all the same.
    pub(crate) fn leaves_doubt(&self) -> bool {
        matches!(self, Self::InDoubt | Self::Database(_))
    }

    pub(super) fn place(path: &Path, fault: PlaceFault) -> Self {
        Self::Place { path: path.into(), fault }
    }

    pub(super) fn io(path: &Path, source: io::Error) -> Self {
        Self::Io { path: path.into(), source: Arc::new(source) }
    }

    /// Whether the record could not do what it was asked, rather than that it cannot be done.
    pub(super) fn is_of_the_store(&self) -> bool {
        !matches!(
            self,
            Self::NotHeld { .. }
                | Self::Attached { .. }
                | Self::NoSuchHold(_)
                | Self::NoSuchTool { .. }
                | Self::NoSuchDefinition { .. }
                | Self::DefinitionNotKept { .. }
                | Self::Duplicate(_)
        )
    }

    /// Whether one job alone failed. After anything else the state of the file is in doubt.
    pub(super) fn spares_the_store(&self) -> bool {
        match self {
            Self::Database(error) => match error.sqlite_error_code() {
                Some(code) => matches!(
                    code,
                    ErrorCode::ConstraintViolation
                        | ErrorCode::TooBig
                        | ErrorCode::TypeMismatch
                        | ErrorCode::OperationInterrupted
                ),
                None => true,
            },
            Self::Replaced { .. } | Self::Diverged { .. } | Self::Server(_) => false,
            _ => true,
        }
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Busy,
            _ => Self::Database(Arc::new(error)),
        }
    }
}

impl From<serde_json::Error> for StoreError {
    fn from(error: serde_json::Error) -> Self {
        Self::Encode(Arc::new(error))
    }
}
