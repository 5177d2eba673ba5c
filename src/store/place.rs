//! Where the store's file is, whether only we can write there, and how it is opened.
//!
//! Used by `writer` and `reader`. INVARIANT: an existing database file is never opened except by SQLite. Its locks are
//! POSIX locks, and closing any other descriptor of the file would drop the locks of the whole process.

use std::{
    fs::{DirBuilder, Metadata, OpenOptions},
    io::ErrorKind,
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior, config::DbConfig};

use super::{
    BUSY_WAIT_SECONDS,
    error::{PlaceFault, StoreError},
    migrations::{KNOWN_VERSION, MIGRATIONS},
};
use crate::faults::fail_point;

/// "HOLD", in the header of the file: tells our files from those of other programs.
const APPLICATION_ID: i64 = 0x484F_4C44;

/// Pages kept in memory by the connection that writes, in KiB, once there are so many: appending takes a few pages, but the random
/// numbers of calls are all over their indexes.
const WRITER_CACHE_KIB: i64 = 4096;

/// The same for the connection that reads.
const READER_CACHE_KIB: i64 = 512;

/// Kept prepared: more than there are statements.
const STATEMENTS_CACHED: usize = 48;

/// Pages of 4 KiB after which the write-ahead log is copied into the file. A page that was changed by many commits is
/// copied once, so rarer is cheaper; 16 MiB are read again when the file is opened after a crash.
const WAL_PAGES: i64 = 4096;

/// The write-ahead log is cut back to this size, in bytes, when it was copied.
const WAL_KEPT_BYTES: i64 = WAL_PAGES * 4096;

/// How long the end of a process tries to copy the write-ahead log while another one does so, in milliseconds.
const COPY_WAIT_MS: u64 = 200;

/// Which file on which device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Inode(u64, u64);

impl Inode {
    fn of(metadata: &Metadata) -> Self {
        Self(metadata.dev(), metadata.ino())
    }

    fn at(path: &Path) -> Option<Self> {
        path.symlink_metadata().ok().as_ref().map(Self::of)
    }
}

/// A file to keep the record in.
#[derive(Clone, Debug)]
pub(super) struct Place {
    path: PathBuf,
}

/// The open file, with what tells later whether it is still the one at its path.
pub(super) struct Opened {
    pub(super) connection: Connection,
    file: Option<Inode>,
    log: Option<Inode>,
}

impl Place {
    pub(super) fn new(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    /// Opens the file for writing, and makes it and its directory if need be.
    pub(super) fn create_or_open(&self) -> Result<Opened, StoreError> {
        let directory = match self.path.parent() {
            Some(directory) if self.path.file_name().is_some() => {
                if directory.as_os_str().is_empty() {
                    Path::new(".")
                } else {
                    directory
                }
            }
            _ => return Err(StoreError::place(&self.path, PlaceFault::NoName)),
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(|source| StoreError::io(directory, source))?;
        let metadata = directory.metadata().map_err(|source| StoreError::io(directory, source))?;
        if !metadata.is_dir() {
            return Err(StoreError::place(directory, PlaceFault::NotADirectory));
        }
        check_permissions(directory, &metadata)?;
        // Made by us so that it is private from the first moment. SQLite gives its other two files the same mode.
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&self.path) {
            Ok(_) => (),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => (),
            Err(source) => return Err(StoreError::io(&self.path, source)),
        }
        self.open_existing()
    }

    /// Opens the file for writing; one that is not there is not made.
    pub(super) fn open_existing(&self) -> Result<Opened, StoreError> {
        let metadata = self.check_file()?;
        let mut connection = Connection::open_with_flags(
            &self.path,
            OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
        )
        .map_err(|error| self.explain(error.into()))?;
        if connection.is_readonly("main")? {
            return Err(StoreError::place(
                &self.path,
                PlaceFault::ReadOnly { mode: metadata.mode() & 0o777 },
            ));
        }
        self.prepare(&mut connection).map_err(|error| self.explain(error))?;
        let (file, log) = (Inode::at(&self.path), Inode::at(&self.log()));
        Ok(Opened { connection, file, log })
    }

    /// Opens the file for reading alone.
    pub(super) fn open_for_reading(&self) -> Result<Opened, StoreError> {
        self.check_file()?;
        let connection = Connection::open_with_flags(
            &self.path,
            OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX,
        )?;
        connection.busy_timeout(Duration::from_secs(BUSY_WAIT_SECONDS))?;
        connection.pragma_update(None, "trusted_schema", false)?;
        connection.pragma_update(None, "cache_size", -READER_CACHE_KIB)?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
        connection.set_prepared_statement_cache_capacity(STATEMENTS_CACHED);
        Ok(Opened { connection, file: Inode::at(&self.path), log: None })
    }

    /// Fails if the path now names another file than the one that was opened: what goes into the old one is lost.
    pub(super) fn check_still(&self, opened: &Opened) -> Result<(), StoreError> {
        let same_file = Inode::at(&self.path) == opened.file;
        // Nobody removes the write-ahead log while a connection is open; what is committed may be only there.
        let same_log = opened.log.is_none() || Inode::at(&self.log()) == opened.log;
        if same_file && same_log {
            return Ok(());
        }
        Err(StoreError::Replaced { path: self.path.as_path().into() })
    }

    fn log(&self) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push("-wal");
        name.into()
    }

    /// A regular file of ours that nobody else can write. A link is refused: whoever can place it could change it.
    fn check_file(&self) -> Result<Metadata, StoreError> {
        let metadata = self.path.symlink_metadata().map_err(|source| StoreError::io(&self.path, source))?;
        if !metadata.is_file() {
            return Err(StoreError::place(&self.path, PlaceFault::NotAFile));
        }
        check_permissions(&self.path, &metadata)?;
        Ok(metadata)
    }

    fn prepare(&self, connection: &mut Connection) -> Result<(), StoreError> {
        connection.busy_timeout(Duration::from_secs(BUSY_WAIT_SECONDS))?;
        use_write_ahead_log(connection)?;
        configure(connection)?;
        connection.pragma_update(None, "wal_autocheckpoint", WAL_PAGES)?;
        connection.pragma_update(None, "journal_size_limit", WAL_KEPT_BYTES)?;
        migrate(connection, &self.path)
    }

    /// SQLite's words for a file of another kind, in ours.
    fn explain(&self, error: StoreError) -> StoreError {
        match &error {
            StoreError::Database(cause) if cause.sqlite_error_code() == Some(ErrorCode::NotADatabase) => {
                StoreError::Foreign { path: self.path.as_path().into() }
            }
            _ => error,
        }
    }
}

impl Opened {
    /// A database that is nowhere but in memory, with the schema.
    pub(super) fn in_memory() -> Result<Self, StoreError> {
        let mut connection = Connection::open_in_memory()?;
        configure(&connection)?;
        migrate(&mut connection, Path::new(":memory:"))?;
        Ok(Self { connection, file: None, log: None })
    }
}

impl Opened {
    /// Copies the write-ahead log into the file, and neither waits for other processes nor lets them wait: what one of them is reading
    /// an older state of stays in the log.
    pub(super) fn copy_log(&self) {
        let deadline = Instant::now() + Duration::from_millis(COPY_WAIT_MS);
        // Gates of one client end together, and only one at a time copies: it may have begun before our last commit.
        while self.checkpoint("PRAGMA wal_checkpoint(PASSIVE)").is_ok_and(|is_blocked| is_blocked)
            && Instant::now() < deadline
        {
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Copies the write-ahead log into the file, and waits until that is on the disk.
    ///
    /// For after a failure: when `fsync` fails once, the system may forget that it had something to write, and a later
    /// `fsync` succeeds for nothing. What is in the log is therefore written anew before anything builds on it.
    pub(super) fn settle(&self) -> Result<(), StoreError> {
        if self.checkpoint("PRAGMA wal_checkpoint(FULL)")? { Err(StoreError::Busy) } else { Ok(()) }
    }

    /// Whether another process was in the way.
    fn checkpoint(&self, pragma: &str) -> Result<bool, StoreError> {
        Ok(self.connection.query_row(pragma, [], |row| row.get::<_, i64>(0))? != 0)
    }
}

fn configure(connection: &Connection) -> Result<(), StoreError> {
    // FULL: a commit is on the disk before it is told of. macOS needs `fullfsync` for that; elsewhere it does nothing.
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "fullfsync", true)?;
    connection.pragma_update(None, "checkpoint_fullfsync", true)?;
    connection.pragma_update(None, "foreign_keys", true)?;
    // The file may have been edited: nothing in its schema may call functions with side effects, or break the format.
    connection.pragma_update(None, "trusted_schema", false)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    connection.pragma_update(None, "cache_size", -WRITER_CACHE_KIB)?;
    // Without this, a statement is compiled again for every value that is compared with an indexed column.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_CACHED);
    Ok(())
}

/// Changing the journal mode of a new file needs it alone, and SQLite does not wait for that by itself.
fn use_write_ahead_log(connection: &Connection) -> Result<(), StoreError> {
    let deadline = Instant::now() + Duration::from_secs(BUSY_WAIT_SECONDS);
    loop {
        let mode = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get::<_, String>(0));
        match mode.map_err(StoreError::from) {
            Ok(mode) if mode.eq_ignore_ascii_case("wal") => return Ok(()),
            Ok(_) | Err(StoreError::Busy) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(5));
            }
            Ok(_) => return Err(StoreError::Busy),
            Err(error) => return Err(error),
        }
    }
}

/// Brings the schema up to date, in one transaction: killed in the middle, the file is as it was.
fn migrate(connection: &mut Connection, path: &Path) -> Result<(), StoreError> {
    // Looked at first without the write lock: a file that is up to date opens however long another process writes.
    if version_of(connection, path)? == KNOWN_VERSION {
        return Ok(());
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // Somebody else may have been quicker.
    let version = version_of(&transaction, path)?;
    for migration in MIGRATIONS.iter().skip(usize::try_from(version).unwrap_or(usize::MAX)) {
        transaction.execute_batch(migration.sqlite)?;
        fail_point!("schema.amid_change");
    }
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", KNOWN_VERSION)?;
    fail_point!("schema.before_commit");
    transaction.commit()?;
    fail_point!("schema.after_commit");
    Ok(())
}

/// The schema version of a file that is ours: 0 for a new one, [`KNOWN_VERSION`] at most.
fn version_of(connection: &Connection, path: &Path) -> Result<i64, StoreError> {
    let number = |sql| connection.query_row(sql, [], |row| row.get::<_, i64>(0));
    let version = number("PRAGMA user_version")?;
    let is_ours = number("PRAGMA application_id")? == APPLICATION_ID;
    if !is_ours && (version != 0 || number("SELECT count(*) FROM sqlite_schema")? != 0) {
        // Not a contradiction if another process made the schema between the two questions: ask once more.
        return match number("PRAGMA application_id")? == APPLICATION_ID {
            true => version_of(connection, path),
            false => Err(StoreError::Foreign { path: path.into() }),
        };
    }
    if !(0..=KNOWN_VERSION).contains(&version) {
        return Err(StoreError::Newer { path: path.into(), found: version, known: KNOWN_VERSION });
    }
    Ok(version)
}

/// Ours, writable for us and for nobody else.
fn check_permissions(path: &Path, metadata: &Metadata) -> Result<(), StoreError> {
    let mode = metadata.mode() & 0o777;
    // Sticky and for everybody, such as `/tmp`: whoever it belongs to, that is not for the user to change.
    let fault = if metadata.is_dir() && metadata.mode() & 0o1002 == 0o1002 {
        PlaceFault::Shared
    } else if metadata.uid() != rustix::process::geteuid().as_raw() {
        PlaceFault::Owner { owner: metadata.uid() }
    } else if mode & 0o022 != 0 {
        PlaceFault::Writable { mode }
    } else if mode & 0o200 == 0 {
        PlaceFault::ReadOnly { mode }
    } else {
        return Ok(());
    };
    Err(StoreError::place(path, fault))
}
