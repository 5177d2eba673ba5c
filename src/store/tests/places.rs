//! Where a record may not be: every such place is refused with its reason, and everything asked afterwards fails.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
};

use rusqlite::Connection;

use super::*;

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o777
}

/// The whole text of an error, with its causes.
fn told(error: &StoreError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// That the record at `path` is refused, with a reason that contains `reason`, whatever is asked.
async fn refused(path: &Path, reason: &str) {
    let store = Store::open(path);
    let errors = [
        store.ready().await.err(),
        store.record_hold(new_hold(1, "gate-1")).await.err(),
        store.end(new_hold(1, "").id, State::Expired, vec![], None).await.err(),
        store.recover("gate-1").await.err(),
        store.decidable_holds(None, 9).await.err(),
        store.verify(None).await.err(),
    ];
    for error in errors {
        let text = told(&error.expect("refused"));
        assert!(text.contains(reason), "{text}");
    }
}

#[tokio::test]
async fn directory_and_files_are_made_private() {
    let disk = disk();
    let path = disk.path.with_file_name("state").join("holdshort").join("holdshort.db");
    let store = Store::open(&path);
    store.record_hold(new_hold(1, "gate-1")).await.unwrap();
    assert_eq!(mode(path.parent().unwrap()), 0o700);
    assert_eq!(mode(path.parent().unwrap().parent().unwrap()), 0o700);
    for entry in fs::read_dir(path.parent().unwrap()).unwrap() {
        let entry = entry.unwrap().path();
        assert_eq!(mode(&entry), 0o600, "{}", entry.display());
    }
}

#[tokio::test]
async fn what_others_can_write_is_refused() {
    for others in [0o770, 0o707, 0o722] {
        let disk = disk();
        set_mode(disk.path.parent().unwrap(), others);
        refused(&disk.path, "can be written by others").await;
        assert!(!disk.path.exists(), "nothing is made there");
    }
    for others in [0o620, 0o602] {
        let disk = disk();
        Store::open(&disk.path).ready().await.unwrap();
        set_mode(&disk.path, others);
        refused(&disk.path, "can be written by others").await;
    }
}

#[tokio::test]
async fn in_a_directory_of_everybody_s_a_directory_of_one_s_own_is_asked_for() {
    let disk = disk();
    set_mode(disk.path.parent().unwrap(), 0o1777);
    refused(&disk.path, "keep the record in a directory of your own inside it").await;
    let own = disk.path.with_file_name("own").join("holdshort.db");
    Store::open(&own).ready().await.unwrap();
}

#[tokio::test]
async fn after_an_orderly_end_the_file_alone_is_the_whole_record() {
    let (disk, copies) = (disk(), disk());
    let (store, other) = (Store::open(&disk.path), Store::open(&disk.path));
    let copied = async |name: &str| {
        let copy = copies.path.with_file_name(name);
        fs::copy(&disk.path, &copy).unwrap();
        sound(&Store::open(&copy)).await.holds
    };
    store.record_hold(new_hold(1, "gate-1")).await.unwrap();
    other.record_hold(new_hold(2, "gate-2")).await.unwrap();
    assert_eq!(copied("before.db").await, 0, "it is in the log");
    store.settle().await.unwrap();
    assert_eq!(copied("after.db").await, 2);
    // What somebody reads stays in the log, and is not waited for.
    let reading = Connection::open(&disk.path).unwrap();
    reading.execute_batch("BEGIN; SELECT count(*) FROM holds").unwrap();
    other.record_hold(new_hold(3, "gate-2")).await.unwrap();
    other.settle().await.unwrap();
    assert_eq!(copied("read.db").await, 2);
    assert_eq!(sound(&store).await.holds, 3);
    reading.execute_batch("ROLLBACK").unwrap();
    store.settle().await.unwrap();
    assert_eq!(copied("at-last.db").await, 3);
}

#[tokio::test]
async fn what_we_cannot_write_is_refused() {
    let disk = disk();
    Store::open(&disk.path).ready().await.unwrap();
    set_mode(&disk.path, 0o400);
    refused(&disk.path, "cannot be written (mode 400)").await;
    set_mode(&disk.path, 0o600);
    set_mode(disk.path.parent().unwrap(), 0o500);
    refused(&disk.path, "cannot be written (mode 500)").await;
    set_mode(disk.path.parent().unwrap(), 0o700);
    refused(Path::new("/"), "names no file").await;
    refused(&disk.path.join("below-a-file.db"), "cannot be used").await;
}

#[tokio::test]
async fn what_is_not_our_file_is_refused_and_left_alone() {
    let text = disk();
    let content = "not a database, and longer than the header of one. ".repeat(20);
    fs::write(&text.path, &content).unwrap();
    set_mode(&text.path, 0o600);
    refused(&text.path, "is not a store of holdshort").await;
    assert_eq!(fs::read_to_string(&text.path).unwrap(), content);

    let other = disk();
    Connection::open(&other.path).unwrap().execute_batch("CREATE TABLE t (a)").unwrap();
    set_mode(&other.path, 0o600);
    refused(&other.path, "is not a store of holdshort").await;

    let link = disk();
    symlink(&other.path, &link.path).unwrap();
    refused(&link.path, "is not a regular file").await;

    let directory = disk();
    fs::create_dir(&directory.path).unwrap();
    refused(&directory.path, "is not a regular file").await;
}

#[tokio::test]
async fn a_file_of_a_later_version_is_refused() {
    let disk = disk();
    Store::open(&disk.path).ready().await.unwrap();
    Connection::open(&disk.path).unwrap().pragma_update(None, "user_version", 99).unwrap();
    refused(&disk.path, "schema version 99, and this program knows versions up to").await;
}

#[tokio::test]
async fn a_file_that_is_deleted_or_replaced_in_use_takes_no_more_holds() {
    for replaced in [false, true] {
        let disk = disk();
        let store = Store::open(&disk.path);
        store.record_hold(new_hold(1, "gate-1")).await.unwrap();
        for name in ["holdshort.db", "holdshort.db-wal", "holdshort.db-shm"] {
            let _ = fs::remove_file(disk.path.with_file_name(name));
        }
        if replaced {
            Store::open(&disk.path).ready().await.unwrap();
        }
        let error = store.record_hold(new_hold(2, "gate-1")).await.unwrap_err();
        assert!(matches!(error, StoreError::Replaced { .. }), "{error}");
        // It stays that way: the file that is there now does not have what we know to be recorded.
        let error = store.record_hold(new_hold(2, "gate-1")).await.unwrap_err();
        assert!(matches!(error, StoreError::Diverged { seq: 1 } | StoreError::Io { .. }), "{error}");
    }
}

thread_local! {
    /// Somebody who has the write lock, and where the file is moved before it is let go.
    static IN_THE_WAY: std::cell::RefCell<Option<(Connection, PathBuf)>> = const { std::cell::RefCell::new(None) };
}

#[test]
fn a_file_that_is_moved_away_while_a_commit_is_under_way_is_not_told_to_be_written() {
    let disk = disk();
    let place = Place::new(&disk.path);
    let mut opened = place.create_or_open().unwrap();
    let other = Connection::open(&disk.path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    IN_THE_WAY.set(Some((other, disk.path.clone())));
    // Called when BEGIN finds the lock taken: the file has been looked at, and nothing is written yet.
    let move_away = |_| {
        let Some((other, path)) = IN_THE_WAY.take() else { return false };
        fs::rename(&path, path.with_extension("moved")).unwrap();
        other.execute_batch("ROLLBACK").unwrap();
        true
    };
    opened.connection.busy_handler(Some(move_away)).unwrap();
    let mut writer = Writer::with(Some(place), Ok(opened), Arc::default());
    let (reply, mut answer) = oneshot::channel();
    let job = Job::Record(Box::new(new_hold(1, "gate-1")));
    writer.commit(&mut vec![Work { job, reply: Some(reply), slot: None }]);
    let answer = answer.try_recv().unwrap();
    assert!(matches!(answer, Err(StoreError::Replaced { .. })), "{answer:?}");
}

#[tokio::test]
async fn a_lost_write_ahead_log_is_noticed() {
    let disk = disk();
    let store = Store::open(&disk.path);
    store.record_hold(new_hold(1, "gate-1")).await.unwrap();
    fs::remove_file(disk.path.with_file_name("holdshort.db-wal")).unwrap();
    let error = store.record_hold(new_hold(2, "gate-1")).await.unwrap_err();
    assert!(matches!(error, StoreError::Replaced { .. }), "{error}");
}

#[tokio::test]
async fn a_commit_is_on_the_disk_and_a_reader_cannot_write() {
    let disk = disk();
    let place = Place::new(&disk.path);
    let opened = place.create_or_open().unwrap();
    let setting = |name: &str| {
        opened.connection.query_row(&format!("PRAGMA {name}"), [], |row| row.get::<_, i64>(0)).unwrap()
    };
    assert_eq!(setting("synchronous"), 2, "FULL");
    assert_eq!((setting("fullfsync"), setting("checkpoint_fullfsync")), (1, 1));
    assert_eq!((setting("foreign_keys"), setting("trusted_schema")), (1, 0));
    assert_eq!(setting("busy_timeout"), 5000);
    let reader = place.open_for_reading().unwrap();
    let refused = reader.connection.execute_batch("PRAGMA user_version = 7").unwrap_err();
    assert_eq!(refused.sqlite_error_code(), Some(rusqlite::ErrorCode::ReadOnly));
}

#[tokio::test]
async fn many_processes_may_make_the_same_file_at_once() {
    for _ in 0..8 {
        let disk = disk();
        let stores: Vec<Store> = (0..6).map(|_| Store::open(&disk.path)).collect();
        for (number, store) in stores.iter().enumerate() {
            store.record_hold(new_hold(number as u128, "gate-1")).await.unwrap();
        }
        assert_eq!(sound(&stores[0]).await.holds, 6);
    }
}

#[tokio::test]
async fn a_file_opens_and_reads_while_somebody_else_writes() {
    let disk = disk();
    Store::open(&disk.path).ready().await.unwrap();
    let other = Connection::open(&disk.path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let store = Store::open(&disk.path);
    assert!(store.decidable_holds(None, 9).await.unwrap().is_empty());
    sound(&store).await;
    other.execute_batch("ROLLBACK").unwrap();
    store.ready().await.unwrap();
}
