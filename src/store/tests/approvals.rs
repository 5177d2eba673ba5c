//! Remembered approvals and edited calls in the file: bound, counted, ended, and whatever is changed of them, a verification
//! tells.

use rusqlite::Connection;

use super::{super::verify::verify, *};
use crate::{
    audit::Fault,
    hold::{Edit, Remembering, Same},
};

/// A yes that counts for further calls for a minute, so often.
fn remembering(same: Same, uses_max: u32) -> Approval {
    let until = Timestamp::now() + Duration::from_secs(60);
    Approval { remember: Some(Remembering { same, until, uses_max }), edit: None }
}

/// A call that a rule holds whose terms are known.
fn call(number: u128) -> NewHold {
    let bound = Some(Digest([5; 32]));
    NewHold { terms_sha256: bound, call_sha256: bound, ..new_hold(number, "gate-1") }
}

/// A hold that was approved so.
async fn approved(store: &Store, number: u128, approval: Approval) -> HoldId {
    let hold = call(number);
    store.record_hold(hold.clone()).await.unwrap();
    store.approve(hold.id, super::approval("a").remove(0), approval, "gate-1".into()).await.unwrap();
    store.end(hold.id, State::Answered, vec![], None).await.unwrap();
    hold.id
}

async fn is_let_through(store: &Store, number: u128, of: HoldId) -> bool {
    match store.arrive(call(number), false, Some(of)).await.unwrap() {
        Arrived::Redeemed(record) => {
            assert_eq!(record.state, State::Forwarding);
            // Else the next one would be the same call while this one runs.
            store.end(record.hold.id, State::Answered, vec![], None).await.unwrap();
            true
        }
        Arrived::Held { .. } => {
            store.end(call(number).id, State::Expired, vec![], None).await.unwrap();
            false
        }
        other => panic!("{other:?}"),
    }
}

pub(super) async fn one_covers_as_many_calls_as_was_said_and_each_is_on_record(place: &Kept) {
    let store = place.open();
    let id = approved(&store, 1, remembering(Same::Arguments, 2)).await;
    assert!(is_let_through(&store, 2, id).await && is_let_through(&store, 3, id).await);
    assert!(!is_let_through(&store, 4, id).await);
    let all = store.remembered(Timestamp::UNIX_EPOCH).await.unwrap();
    assert_eq!((all[0].of, all[0].uses, all[0].standing(Timestamp::now())), (id, 2, "used up"));
    let lines = store.audit_events(0, 100).await.unwrap();
    let used: Vec<_> =
        lines.iter().filter(|line| line.line.contains("\"kind\":\"remembered_used\"")).collect();
    assert_eq!(used.len(), 2);
    assert!(used.iter().all(|line| line.event().unwrap().remembered == Some(id)));
    let record = store.hold(call(3).id).await.unwrap().unwrap();
    assert!(record.votes[0].by.starts_with("remembered approval"), "{:?}", record.votes);
    sound(&store).await;
}

pub(super) async fn what_one_covers_goes_on_however_many_calls_wait(place: &Kept) {
    let store = place.open();
    let id = approved(&store, 1, remembering(Same::Arguments, 1)).await;
    leave_behind(&store, 10_001).await;
    assert!(is_let_through(&store, 2, id).await, "it waits for nobody");
    let next = store.arrive(call(3), false, Some(id)).await.unwrap();
    assert!(matches!(next, Arrived::TooMany), "it would: {next:?}");
    sound(&store).await;
}

pub(super) async fn nothing_that_has_ended_or_is_no_approval_lets_anything_through(place: &Kept) {
    let store = place.open();
    let id = approved(&store, 1, remembering(Same::Arguments, 9)).await;
    assert!(!is_let_through(&store, 2, call(77).id).await, "a hold that there is not");
    assert!(store.revoke(id, "uid:a".to_owned(), "gate-1".into()).await.unwrap());
    assert!(!store.revoke(id, "uid:a".to_owned(), "gate-1".into()).await.unwrap(), "once");
    assert!(!is_let_through(&store, 3, id).await, "revoked");
    let past = Timestamp::now() - Duration::from_secs(1);
    let over =
        Approval { remember: Some(Remembering { same: Same::Tool, until: past, uses_max: 9 }), edit: None };
    let id = approved(&store, 4, over).await;
    assert!(!is_let_through(&store, 5, id).await, "its time is over");
    let id = approved(&store, 6, Approval::default()).await;
    assert!(!is_let_through(&store, 7, id).await, "an approval that says no more than yes");
    sound(&store).await;
}

pub(super) async fn whoever_thinks_better_of_a_grant_takes_back_what_it_covers(place: &Kept) {
    let store = place.open();
    let (hold, lapses_at) = (call(1), Timestamp::now() + Duration::from_secs(60));
    store.record_hold(hold.clone()).await.unwrap();
    store.detach(hold.id, "gate-1".into(), "gone").await.unwrap();
    let yes = super::approval("a").remove(0);
    store.decide(hold.id, yes.clone(), remembering(Same::Tool, 9), lapses_at).await.unwrap();
    let no = Vote { verdict: Verdict::Reject, ..yes };
    store.decide(hold.id, no, Approval::default(), lapses_at).await.unwrap();
    let all = store.remembered(Timestamp::UNIX_EPOCH).await.unwrap();
    assert_eq!(all[0].standing(Timestamp::now()), "revoked");
    sound(&store).await;
}

#[tokio::test]
async fn whatever_is_changed_of_them_a_verification_tells() {
    let frame = bytes::Bytes::from_static(b"{\"edited\":1}");
    let edit = Edit { frame_sha256: Digest::of(&frame), frame };
    let edited_disk = disk();
    let edited = Store::open(&edited_disk.path);
    let id = approved(&edited, 1, Approval { remember: None, edit: Some(edit.clone()) }).await;
    assert_eq!(edited.hold(id).await.unwrap().unwrap().edit, Some(edit));
    sound(&edited).await;
    let disk = disk();
    let store = Store::open(&disk.path);
    let id = approved(&store, 1, remembering(Same::Arguments, 2)).await;
    assert!(is_let_through(&store, 2, id).await);
    sound(&store).await;
    for (disk, changes) in [
        (
            &edited_disk,
            &[
                "UPDATE edits SET frame = x'7b7d'",
                "DELETE FROM edits",
                "INSERT INTO edits SELECT 5000, hold + 1, frame FROM edits",
            ][..],
        ),
        (
            &disk,
            &[
                "UPDATE remembered SET uses = 0",
                "UPDATE remembered SET uses_max = 1000",
                "UPDATE remembered SET until = until + 1",
                "UPDATE remembered SET same = 'tool'",
                "UPDATE remembered SET by = 'uid:b'",
                "UPDATE remembered SET person = 'b'",
                "UPDATE remembered SET revoked_at = 1, revoked_by = 'x'",
                "DELETE FROM remembered",
                "INSERT INTO remembered SELECT 5000, hold + 1, same, by, person, since, until, uses_max, 0, NULL, NULL \
                 FROM remembered",
            ],
        ),
    ] {
        let raw = Connection::open(&disk.path).unwrap();
        for mistake in ["DELETE FROM remembered", "DELETE FROM edits", "UPDATE edits SET frame = x''"] {
            let table = mistake.split(' ').find(|word| matches!(*word, "remembered" | "edits")).unwrap();
            let rows: i64 =
                raw.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap();
            assert_eq!(raw.execute_batch(mistake).is_err(), rows > 0, "a trigger: {mistake}");
        }
        raw.execute_batch(
            "DROP TRIGGER remembered_are_not_deleted; DROP TRIGGER edits_are_not_changed; \
             DROP TRIGGER edits_are_not_deleted; PRAGMA foreign_keys = OFF;",
        )
        .unwrap();
        for change in changes {
            raw.execute_batch("BEGIN").unwrap();
            raw.execute_batch(change).unwrap();
            let broken = verify(&raw, None).unwrap().broken;
            raw.execute_batch("ROLLBACK").unwrap();
            let fault = broken.map(|broken| broken.fault);
            assert!(
                matches!(
                    fault,
                    Some(Fault::Remembered(_) | Fault::Frame(_) | Fault::NoHold(_) | Fault::NoEvent(_))
                ),
                "{change}: {fault:?}"
            );
        }
    }
}
