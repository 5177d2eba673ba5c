//! The same campaign beside a call's life: time that is over, people who hear of a call again, a policy that changes, and a record that
//! changes its schema or copies its log.

use rusqlite::Connection;
use serde_json::Value;

use super::*;

/// Of those who decide in a life, the word of alice alone counts.
const PEOPLE: &str = "version: 1\npeople:\n  alice: {roles: [finance], identities: ['uid:alice']}\n  dee: {roles: [sales], identities: ['uid:dee']}\n";

/// The events of this kind that the record of `place` has.
fn told(place: &Path, kind: &str) -> Vec<Value> {
    let events = exported(place).into_iter().map(|line| serde_json::from_str::<Value>(&line).unwrap());
    events.filter(|event| event["kind"] == kind).collect()
}

/// Kills at each of `points`, in a place that has these files; then `check`s it.
fn killed_with(
    files: &[(&str, &str)],
    points: &[&str],
    new: &dyn Fn() -> TempDir,
    check: impl Fn(&Path, &str),
) {
    for point in points {
        let directory = new();
        let place = directory.path();
        files.iter().for_each(|(name, text)| fs::write(place.join(name), text).unwrap());
        assert!(killed_at(place, point), "{point} is reached");
        check(place, point);
    }
}

fn on_a_file() -> TempDir {
    tempfile::tempdir().unwrap()
}

/// `campaign` on a file, and in a database.
fn on_both_stores(campaign: impl Fn(&dyn Fn() -> TempDir)) {
    campaign(&on_a_file);
    let cluster = Cluster::start();
    campaign(&|| place_in(&cluster));
}

#[test]
fn a_process_that_dies_when_the_time_of_a_call_is_over_lets_it_end_once_and_never_run() {
    let files = [
        (POLICY, "version: 1\nrules: [{name: all, tool: '*', action: hold, timeout: 1s}]\n"),
        (WAITED_FOR, "expired"),
    ];
    on_both_stores(|new| {
        killed_with(&files, &["expiry.before_record", "expiry.after_record"], new, |place, point| {
            let first = &told(place, "held")[0]["hold"];
            let of_first =
                |kind: &str| told(place, kind).iter().filter(|event| event["hold"] == *first).count();
            assert_eq!((of_first("expired"), of_first("forwarding")), (1, 0), "{point}");
        });
    });
}

#[test]
fn a_process_that_dies_when_others_are_brought_in_tells_of_that_once_and_decides_nothing() {
    let rule = "rules: [{name: all, tool: '*', action: hold, approvers: finance, timeout: 1s, escalate: [{to: dee, timeout: 10m}]}]\n";
    let files = [(POLICY, &*format!("{PEOPLE}{rule}")), (WAITED_FOR, "escalated")];
    on_both_stores(|new| {
        killed_with(&files, &["reminder.before_record", "reminder.after_record"], new, |place, point| {
            let kinds = ["held", "escalated", "forwarding"].map(|kind| told(place, kind));
            assert_eq!(kinds.each_ref().map(Vec::len), [1, 1, 1], "{point}");
            assert_eq!(kinds[1][0]["note"], "now also dee", "{point}");
            assert_eq!(kinds[2][0]["votes"][0]["person"], "alice", "{point}");
        });
    });
}

#[test]
fn a_process_that_dies_while_its_policy_changes_lets_nothing_run_by_the_old_one() {
    let next = format!("{PEOPLE}rules: [{{name: all, tool: '*', action: hold, approvers: finance}}]\n");
    let points = ["policy.before_force", "policy.in_force", "policy.on_record"];
    killed_with(&[(NEXT_POLICY, &next)], &points, &on_a_file, |place, point| {
        let digest = policy(place).digest().to_string();
        let is_told = point == "policy.on_record";
        let loaded = told(place, "policy_loaded");
        assert_eq!(loaded.len(), usize::from(is_told), "{point}: {loaded:?}");
        assert!(loaded.iter().all(|event| event["policy_sha256"] == *digest), "{loaded:?}");
        let (sent, mut held) = (told(place, "forwarding"), told(place, "held"));
        held.retain(|event| event["hold"] == sent[0]["hold"]);
        assert_eq!((sent.len(), &held[0]["policy_sha256"]), (1, &Value::from(digest)), "{point}");
        assert!(!exported(place).concat().contains("mallory"), "{point}: who counted before counts no more");
    });
}

/// Takes a record back to the version 8 of its schema, and tells its version.
struct Older {
    place: TempDir,
    set_back: Box<dyn Fn()>,
    version: Box<dyn Fn() -> i64>,
}

impl Older {
    fn file() -> Self {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("record.db");
        let open = move || Connection::open(&path).unwrap();
        let db = open.clone();
        let set_back = move || db().execute_batch("DROP TABLE keys; PRAGMA user_version = 8").unwrap();
        let version = move || open().query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap();
        Self { place, set_back: Box::new(set_back), version: Box::new(version) }
    }

    fn database(cluster: &Arc<Cluster>) -> Self {
        let (place, database) = (tempfile::tempdir().unwrap(), cluster.database());
        fs::write(place.path().join("url"), cluster.url(&database)).unwrap();
        let cluster = Arc::clone(cluster);
        let ask = move |sql: &str| cluster.ask(&database, sql);
        let db = ask.clone();
        let set_back = move || drop(db("DROP TABLE keys; UPDATE holdshort_schema SET version = 8"));
        let version = move || ask("SELECT version FROM holdshort_schema").parse().unwrap();
        Self { place, set_back: Box::new(set_back), version: Box::new(version) }
    }
}

fn killed_while_it_changes(new: impl Fn() -> Older) {
    for (point, is_changed) in
        [("schema.amid_change", false), ("schema.before_commit", false), ("schema.after_commit", true)]
    {
        let older = new();
        let place = older.place.path();
        live_on(place, "at first");
        let before = exported(place);
        (older.set_back)();
        assert!(start(place, Some(point)), "{point} is reached");
        assert_eq!(lines(place, "fired"), [point], "the fault has happened");
        assert_eq!((older.version)() > 8, is_changed, "{point}");
        live_on(place, point);
        assert!((older.version)() > 8, "{point}");
        assert!(exported(place).starts_with(&before), "{point}: nothing is lost");
        assert_eq!(lines(place, "canary").len(), 2, "{point}: each call ran once");
    }
}

#[test]
fn a_process_that_dies_while_it_changes_an_older_record_leaves_all_of_it_as_it_was() {
    killed_while_it_changes(Older::file);
    let cluster = Arc::new(Cluster::start());
    killed_while_it_changes(|| Older::database(&cluster));
}

/// In the process that is to die: copies the log of the record into its file.
pub(super) fn checkpoint(place: &Path, disk: &Numbers, at: i64) {
    let db = Connection::open(place.join("record.db")).unwrap();
    disk.die(at);
    db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
}

#[test]
fn a_process_that_dies_while_the_log_is_copied_into_the_record_loses_nothing_of_it() {
    let faults = Faults::new();
    for at in 1_usize.. {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path();
        let mut command = process(place);
        faults.preload(&mut command);
        faults.numbers.heal();
        let before = faults.numbers.fired();
        let status = command.env(WRITE_VARIABLE, format!("{at} {CHECKPOINT}")).status().unwrap();
        let has_died = faults.numbers.fired() > before;
        assert_eq!(status.signal() == Some(9), has_died, "{at}: {status}");
        let recorded = exported(place);
        assert_eq!(told(place, "answered").len(), 1, "{at}");
        live_on(place, &format!("{at}"));
        assert!(exported(place).starts_with(&recorded), "{at}");
        assert_eq!(lines(place, "canary").len(), 2, "{at}: each call ran once");
        if !has_died {
            assert!(at > 5, "the faults have happened: {at}");
            return;
        }
    }
}
