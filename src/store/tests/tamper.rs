//! Tampering: whatever is changed in the file, a verification tells.

use rusqlite::Connection;

use super::{super::verify::verify, *};
use crate::{
    audit::Fault,
    definition::{CHANGES_PER_TOOL_MAX, DEFINITIONS_PER_TOOL_MAX, ListedTool, TOOLS_PER_SERVER_MAX},
};

/// A record with a hold in every state and other events between, its raw connection, and where its log ends.
async fn written() -> (Disk, Connection, Checkpoint) {
    let disk = disk();
    let store = Store::open(&disk.path);
    fill(&store).await;
    let head = sound(&store).await.head;
    let raw = Connection::open(&disk.path).unwrap();
    // Whoever can write the file can do this.
    raw.execute_batch(
        "DROP TRIGGER audit_is_not_changed; DROP TRIGGER audit_is_not_deleted; \
         DROP TRIGGER frames_are_not_changed; DROP TRIGGER frames_are_not_deleted; DROP TRIGGER holds_are_not_deleted; \
         DROP TRIGGER retries_are_not_changed; DROP TRIGGER retries_are_not_deleted; \
         PRAGMA foreign_keys = OFF; PRAGMA ignore_check_constraints = ON;",
    )
    .unwrap();
    (disk, raw, head)
}

/// Records a hold in every state, and other events between.
pub(super) async fn fill(store: &Store) {
    let ends = [
        State::Granted,
        State::Held,
        State::Rejected,
        State::Expired,
        State::Withdrawn,
        State::Unavailable,
        State::Forwarding,
        State::Answered,
        State::Unknown,
    ];
    for (number, end) in ends.into_iter().enumerate() {
        let hold = new_hold(number as u128 + 1, "gate-1");
        let id = hold.id;
        store.record_hold(hold).await.unwrap();
        store.ride_along(denied());
        if matches!(end, State::Forwarding | State::Answered | State::Unknown) {
            store.end(id, State::Forwarding, approval("a"), None).await.unwrap();
        }
        if end == State::Granted {
            store.detach(id, "gate-1".into(), "gone").await.unwrap();
            let lapses_at = Timestamp::now() + Duration::from_secs(60);
            store.decide(id, approval("a").remove(0), Approval::default(), lapses_at).await.unwrap();
        } else if !matches!(end, State::Held | State::Forwarding) {
            store.end(id, end, vec![], Some("so it was".to_owned())).await.unwrap();
        }
    }
    // One that is made again after its caller has gone, and redeems what was decided meanwhile.
    store.record_hold(new_hold(10, "gate-1")).await.unwrap();
    store.detach(new_hold(10, "").id, "gate-1".into(), "gone").await.unwrap();
    let lapses_at = Timestamp::now() + Duration::from_secs(60);
    store.decide(new_hold(10, "").id, approval("a").remove(0), Approval::default(), lapses_at).await.unwrap();
    let retry = NewHold { id: HoldId([7; 16]), ..new_hold(10, "gate-1") };
    assert!(matches!(store.arrive(retry, false, None).await, Ok(Arrived::Redeemed(_))));
    store.ride_along(denied());
    store.flush().await.unwrap();
}

/// What a verification says after `change`, which is then taken back.
fn after(raw: &Connection, change: &str, against: Option<Checkpoint>) -> Option<Fault> {
    raw.execute_batch("BEGIN").unwrap();
    raw.execute_batch(change).unwrap();
    assert!(raw.total_changes() > 0, "{change}");
    let found = verify(raw, against).unwrap();
    raw.execute_batch("ROLLBACK").unwrap();
    found.broken.map(|found| found.fault)
}

#[tokio::test]
async fn every_change_of_a_line_shows() {
    let (_disk, raw, head) = written().await;
    assert_eq!(after(&raw, "UPDATE audit SET seq = seq", Some(head)), None, "the untouched record is sound");
    for seq in 1..=head.seq {
        let changes = [
            format!("UPDATE audit SET line = replace(line, 'gate-1', 'gate-2') WHERE seq = {seq}"),
            format!("UPDATE audit SET line = line || ' ' WHERE seq = {seq}"),
            format!("UPDATE audit SET line = substr(line, 2) WHERE seq = {seq}"),
            format!("UPDATE audit SET hash = zeroblob(32) WHERE seq = {seq}"),
            format!("UPDATE audit SET hash = zeroblob(31) WHERE seq = {seq}"),
            format!("UPDATE audit SET seq = -{seq} WHERE seq = {seq}"),
            // Duplicated at the end, and in its place with all later ones moved.
            format!("INSERT INTO audit SELECT {}, line, hash FROM audit WHERE seq = {seq}", head.seq + 1),
            format!(
                "UPDATE audit SET seq = -seq - 1 WHERE seq > {seq}; UPDATE audit SET seq = -seq WHERE seq < 0; \
                 INSERT INTO audit SELECT seq + 1, line, hash FROM audit WHERE seq = {seq}"
            ),
        ];
        for change in &changes {
            assert!(after(&raw, change, None).is_some(), "{change}");
        }
        let deleted = format!("DELETE FROM audit WHERE seq = {seq}");
        let closed = format!(
            "{deleted}; UPDATE audit SET seq = -seq + 1 WHERE seq > {seq}; UPDATE audit SET seq = -seq WHERE seq < 0"
        );
        if seq < head.seq {
            assert!(matches!(after(&raw, &deleted, None), Some(Fault::Gap { .. })), "{deleted}");
            assert!(after(&raw, &closed, None).is_some(), "{closed}");
            let swapped = format!(
                "UPDATE audit SET seq = -1 WHERE seq = {seq}; UPDATE audit SET seq = {seq} WHERE seq = {seq} + 1; \
                 UPDATE audit SET seq = {seq} + 1 WHERE seq = -1"
            );
            assert!(after(&raw, &swapped, None).is_some(), "{swapped}");
        }
    }
}

#[tokio::test]
async fn every_bit_of_a_line_and_its_hash_counts() {
    let (_disk, raw, head) = written().await;
    for seq in [1, head.seq / 2, head.seq] {
        let (line, hash): (String, [u8; 32]) = raw
            .query_row("SELECT line, hash FROM audit WHERE seq = ?1", [i64::try_from(seq).unwrap()], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })
            .unwrap();
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        for position in 0..line.len() + hash.len() {
            let (mut line, mut hash) = (line.clone().into_bytes(), hash);
            match position.checked_sub(line.len()) {
                None => line[position] ^= 1,
                Some(position) => hash[position] ^= 0x80,
            }
            let change = format!(
                "UPDATE audit SET line = CAST(x'{}' AS TEXT), hash = x'{}' WHERE seq = {seq}",
                hex(&line),
                hex(&hash)
            );
            assert!(after(&raw, &change, None).is_some(), "byte {position} of line {seq}");
        }
    }
}

#[tokio::test]
async fn every_edit_of_a_hold_shows() {
    let (_disk, raw, _) = written().await;
    let edits = [
        "id = zeroblob(16)",
        "owner = 'gate-2'",
        "server = 'crm'",
        "method = 'resources/read'",
        "tool = 'get_refund'",
        "agent = 'agent 2.0'",
        "principal = 'root'",
        "frame_sha256 = zeroblob(32)",
        "policy_sha256 = zeroblob(32)",
        "call_sha256 = zeroblob(32)",
        "tool_sha256 = zeroblob(32)",
        "terms_sha256 = NULL",
        "rules = '[]'",
        "rules = 'not JSON'",
        "reason = ''",
        "notes = '[]'",
        "created_at = created_at + 1",
        "expires_at = expires_at + 1",
        "state = CASE state WHEN 'rejected' THEN 'answered' ELSE 'rejected' END",
        "state = 'nothing'",
        "votes = '[{\"verdict\":\"approve\",\"by\":\"mallory\",\"at\":\"2026-01-01T00:00:00Z\"}]'",
        "ended_at = coalesce(ended_at, 0) + 1",
        "note = 'it was otherwise'",
        "seq = seq + 1000",
    ];
    for id in 1..=10_u128 {
        let id: String = id.to_be_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        for edit in edits {
            let change = format!("UPDATE holds SET {edit} WHERE id = x'{id}'");
            assert!(after(&raw, &change, None).is_some(), "{change}");
        }
        let frame = format!("WHERE hold = (SELECT seq FROM holds WHERE id = x'{id}')");
        for change in [
            format!("UPDATE frames SET frame = CAST(frame || x'20' AS BLOB) {frame}"),
            format!("UPDATE frames SET frame = zeroblob(length(frame)) {frame}"),
            format!("DELETE FROM frames {frame}"),
            format!("DELETE FROM holds WHERE id = x'{id}'"),
        ] {
            assert!(after(&raw, &change, None).is_some(), "{change}");
        }
    }
    let lapses = after(&raw, "UPDATE holds SET lapses_at = lapses_at + 1 WHERE state = 'granted'", None);
    assert!(matches!(lapses, Some(Fault::Outcome(_))), "a grant does not last longer: {lapses:?}");
    for change in ["UPDATE retries SET frame = x'7b7d'", "DELETE FROM retries"] {
        assert!(after(&raw, change, None).is_some(), "{change}");
    }
    let retry = "INSERT INTO retries SELECT 5000, hold, frame FROM retries";
    assert_eq!(after(&raw, retry, None), Some(Fault::NoEvent(1)), "a retry without event");
    let votes = after(&raw, "UPDATE holds SET votes = '[]' WHERE state = 'answered'", None);
    assert!(matches!(votes, Some(Fault::Outcome(_))), "an approval is not taken away: {votes:?}");
    let stranger = "INSERT INTO holds (seq, id, owner, server, method, tool, agent, principal, frame_sha256, \
         policy_sha256, rules, reason, notes, created_at, expires_at, state, votes, ended_at, note) \
         SELECT 5000, zeroblob(16), owner, server, method, tool, agent, principal, frame_sha256, policy_sha256, rules, \
         reason, notes, created_at, expires_at, state, votes, ended_at, note FROM holds LIMIT 1";
    assert_eq!(after(&raw, stranger, None), Some(Fault::NoEvent(1)), "a hold without event");
}

#[tokio::test]
async fn a_cut_or_rewritten_log_shows_against_a_checkpoint_only() {
    let (_disk, raw, head) = written().await;
    // The last line tells of no hold: without it the rest is whole.
    let cut = format!("DELETE FROM audit WHERE seq = {}", head.seq);
    assert_eq!(after(&raw, &cut, None), None);
    assert_eq!(after(&raw, &cut, Some(head)), Some(Fault::Truncated(head.seq)));
    assert!(after(&raw, "DELETE FROM audit WHERE seq > 1", None).is_some(), "cut through a hold");
    let emptied = "DELETE FROM audit; DELETE FROM frames; DELETE FROM retries; DELETE FROM holds";
    assert_eq!(after(&raw, emptied, None), None);
    assert_eq!(after(&raw, emptied, Some(head)), Some(Fault::Truncated(head.seq)));
    assert_eq!(after(&raw, "UPDATE audit SET seq = seq", Some(head)), None);
    let other = Checkpoint { hash: Digest::of(b"another"), ..head };
    assert_eq!(after(&raw, "UPDATE audit SET seq = seq", Some(other)), Some(Fault::Rewritten));
}

#[tokio::test]
async fn mistakes_meet_a_trigger() {
    let disk = disk();
    let store = Store::open(&disk.path);
    store.record_hold(new_hold(1, "gate-1")).await.unwrap();
    store.detach(new_hold(1, "").id, "gate-1".into(), "gone").await.unwrap();
    store.arrive(NewHold { id: HoldId([7; 16]), ..new_hold(1, "gate-1") }, false, None).await.unwrap();
    let raw = Connection::open(&disk.path).unwrap();
    for mistake in [
        "UPDATE audit SET line = ''",
        "DELETE FROM audit",
        "UPDATE frames SET frame = x''",
        "DELETE FROM frames",
        "DELETE FROM holds",
        "UPDATE retries SET frame = x''",
        "DELETE FROM retries",
    ] {
        assert!(raw.execute_batch(mistake).is_err(), "{mistake}");
    }
    sound(&store).await;
}

#[tokio::test]
async fn a_record_that_is_set_back_under_a_running_store_takes_no_more_holds() {
    let disk = disk();
    let store = Store::open(&disk.path);
    store.record_hold(new_hold(1, "gate-1")).await.unwrap();
    let backup = disk.path.with_extension("backup");
    let raw = Connection::open(&disk.path).unwrap();
    raw.execute("VACUUM INTO ?1", [backup.to_str().unwrap()]).unwrap();
    store.end(new_hold(1, "").id, State::Forwarding, approval("a"), None).await.unwrap();

    // The older state comes back into the same file, as a restore does it: no inode changes.
    raw.execute("ATTACH ?1 AS backup", [backup.to_str().unwrap()]).unwrap();
    raw.execute_batch(
        "DROP TRIGGER audit_is_not_deleted; DROP TRIGGER frames_are_not_deleted; DROP TRIGGER holds_are_not_deleted; \
         PRAGMA foreign_keys = OFF; BEGIN IMMEDIATE; \
         DELETE FROM audit; DELETE FROM holds; DELETE FROM frames; \
         INSERT INTO audit SELECT * FROM backup.audit; INSERT INTO holds SELECT * FROM backup.holds; \
         INSERT INTO frames SELECT * FROM backup.frames; COMMIT",
    )
    .unwrap();
    // By itself the older state is sound: only who wrote the newer one can tell.
    assert_eq!(sound(&store).await.events, 1);
    // The call was approved once already; here it waits again.
    let again = store.end(new_hold(1, "").id, State::Forwarding, approval("a"), None).await;
    assert!(matches!(again, Err(StoreError::Diverged { seq: 2 })), "{again:?}");
    let next = store.record_hold(new_hold(2, "gate-1")).await;
    assert!(matches!(next, Err(StoreError::Diverged { seq: 2 })), "{next:?}");
    assert_eq!(sound(&store).await.events, 1, "nothing was added to it");
}

#[tokio::test]
async fn every_edit_of_what_counts_as_a_tool_shows() {
    let (disk, raw, _) = written().await;
    let store = Store::open(&disk.path);
    let listed = |about: &str| {
        let text = format!("{{\"description\":\"{about}\",\"name\":\"pay\"}}");
        let sha256 = Digest::of(text.as_bytes());
        ListedTool { tool: "pay".into(), sha256, bytes: text.len(), text: Some(text.into()) }
    };
    let gate: Arc<str> = "gate".into();
    for about in ["Pays.", "Pays me.", "Pays you."] {
        store.see_tools("s".into(), vec![listed(about)], Arc::clone(&gate)).await.unwrap();
    }
    store.see_tools("other".into(), vec![listed("Pays.")], Arc::clone(&gate)).await.unwrap();
    let me = listed("Pays me.").sha256;
    store.accept_tool("s", "pay", me, Arc::clone(&gate), "uid:1".into()).await.unwrap();
    store.see_tools("s".into(), vec![listed("Pays.")], gate).await.unwrap();
    assert_eq!(store.verify(None).await.unwrap().broken, None);
    drop(store);
    let hex = |about: &str| listed(about).sha256.to_string();
    for change in [
        // The change that a server has made, accepted by nobody.
        "UPDATE tools SET accepted = changed, changed = NULL WHERE server = 's'".to_owned(),
        "UPDATE tools SET changed = NULL, changed_at = NULL".to_owned(),
        format!("UPDATE tools SET accepted = x'{}' WHERE server = 'other'", hex("Pays me.")),
        "UPDATE tools SET revision = revision + 1".to_owned(),
        "UPDATE tools SET tool = 'pays' WHERE server = 'other'".to_owned(),
        format!("UPDATE tool_definitions SET definition = 'x' WHERE sha256 = x'{}'", hex("Pays me.")),
        "DELETE FROM tool_definitions; DELETE FROM tools".to_owned(),
        format!("DELETE FROM tool_definitions WHERE sha256 = x'{}'", hex("Pays.")),
    ] {
        let found = after(&raw, &change, None);
        assert!(matches!(found, Some(Fault::Tool(..))), "{change}: {found:?}");
    }
}

pub(super) async fn what_is_kept_of_a_tool_has_an_end(place: &Kept) {
    let store = place.open();
    let gate: Arc<str> = "gate".into();
    let listed = |tool: &str, about: &str, is_long: bool| ListedTool {
        tool: tool.into(),
        sha256: Digest::of(about.as_bytes()),
        bytes: about.len(),
        text: (!is_long).then(|| about.into()),
    };
    for n in 0..=CHANGES_PER_TOOL_MAX + 5 {
        let tools = vec![listed("pay", &format!("{n}"), false)];
        store.see_tools("s".into(), tools, Arc::clone(&gate)).await.unwrap();
    }
    let record = store.tool("s", "pay").await.unwrap().unwrap();
    assert_eq!(record.definitions.len(), DEFINITIONS_PER_TOOL_MAX);
    assert!(record.definition(Digest::of(b"0")).is_some(), "the one that counts is kept");
    let last = Digest::of(CHANGES_PER_TOOL_MAX.to_string().as_bytes());
    assert_eq!(
        record.state.changed.unwrap().0,
        last,
        "those after are not recorded; the tool has changed anyway"
    );
    // What was too long to be kept cannot have been read.
    let long = listed("long", "much", true);
    store.see_tools("s".into(), vec![listed("long", "short", false)], Arc::clone(&gate)).await.unwrap();
    store.see_tools("s".into(), vec![long.clone()], Arc::clone(&gate)).await.unwrap();
    let accepted = store.accept_tool("s", "long", long.sha256, Arc::clone(&gate), "uid:1".into()).await;
    assert!(matches!(accepted, Err(StoreError::DefinitionNotKept { .. })), "{accepted:?}");
    let unknown =
        store.accept_tool("s", "long", Digest::of(b"else"), Arc::clone(&gate), "uid:1".into()).await;
    assert!(matches!(unknown, Err(StoreError::NoSuchDefinition { .. })), "{unknown:?}");
    // A server with more tools than are remembered.
    let many: Vec<_> =
        (0..TOOLS_PER_SERVER_MAX).map(|n| listed(&format!("t{n}"), "the same", false)).collect();
    let (states, is_full) = store.see_tools("s".into(), many, gate).await.unwrap();
    assert_eq!((states.len(), is_full), (TOOLS_PER_SERVER_MAX - 2, true));
    assert_eq!(store.verify(None).await.unwrap().broken, None);
}
