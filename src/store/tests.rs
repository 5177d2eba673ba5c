//! The promises of the record, as stories. The story of a whole life runs on every kind of store.

use std::{path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use jiff::Timestamp;
use tempfile::TempDir;

use super::*;
use crate::{audit::Occasion, digest::Digest, hold::Verdict};

struct Disk {
    _directory: TempDir,
    path: PathBuf,
}

fn disk() -> Disk {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("holdshort.db");
    Disk { _directory: directory, path }
}

fn new_hold(number: u128, owner: &str) -> NewHold {
    let frame = Bytes::from(format!(
        r#"{{"jsonrpc":"2.0","id":{number},"method":"tools/call","params":{{"name":"send_refund"}}}}"#
    ));
    let now = Timestamp::now();
    NewHold {
        id: HoldId(number.to_be_bytes()),
        owner: owner.into(),
        server: "billing".into(),
        method: "tools/call".into(),
        tool: "send_refund".into(),
        agent: "agent 1.0".into(),
        principal: "uid:1000(dev)".into(),
        frame_sha256: Digest::of(&frame),
        frame,
        policy_sha256: Digest::of(b"policy"),
        rules: vec!["refunds".into(), "großes \"Geld\"".into()],
        reason: "Refunds need a person.".into(),
        notes: vec!["a condition failed".to_owned()],
        created_at: now,
        expires_at: now + Duration::from_secs(300),
    }
}

fn approval(by: &str) -> Vec<Vote> {
    vec![Vote {
        verdict: Verdict::Approve,
        by: by.to_owned(),
        comment: Some("fine\nby me".to_owned()),
        at: Timestamp::now(),
    }]
}

fn denied() -> AuditEvent {
    AuditEvent {
        tool: Some("drop_table".to_owned()),
        ..AuditEvent::new(Occasion::Denied, "gate-1", Timestamp::now())
    }
}

async fn sound(store: &Store) -> Verification {
    let found = store.verify(None).await.unwrap();
    assert_eq!(found.broken, None);
    found
}

/// The kinds of the whole log, as one line of words.
async fn words(store: &Store) -> String {
    let lines = store.audit_events(0, usize::MAX).await.unwrap();
    let kinds = lines.iter().map(|line| match line.event().unwrap().kind {
        EventKind::State(state) => state.word().to_owned(),
        EventKind::Occasion(occasion) => format!("{occasion:?}"),
    });
    kinds.collect::<Vec<_>>().join(" ")
}

async fn whole_life(store: &Store) {
    store.ready().await.unwrap();
    let hold = new_hold(7, "gate-1");
    let id = hold.id;
    store.record_hold(hold.clone()).await.unwrap();
    let record = store.hold(id).await.unwrap().unwrap();
    assert_eq!(format!("{:?}", record.hold), format!("{hold:?}"), "all of it reads back");
    assert_eq!((record.state, record.votes.len(), record.ended_at), (State::Held, 0, None));
    assert_eq!(store.open_holds().await.unwrap().len(), 1);
    assert_eq!(store.owners_with_open_holds().await.unwrap(), [Arc::from("gate-1")]);

    let votes = approval("uid:1001(alice)");
    store.end(id, State::Forwarding, votes.clone(), None).await.unwrap();
    store.ride_along(denied());
    let late = store.end(id, State::Rejected, vec![], None).await;
    assert!(matches!(late, Err(StoreError::NotHeld { state: State::Forwarding })), "{late:?}");
    store.end(id, State::Answered, vec![], Some("in 3 ms".to_owned())).await.unwrap();
    let record = store.hold(id).await.unwrap().unwrap();
    assert_eq!((record.state, record.votes), (State::Answered, votes));
    assert_eq!(record.note.as_deref(), Some("in 3 ms"));
    assert!(record.ended_at.is_some());
    assert!(store.open_holds().await.unwrap().is_empty());

    let again = store.record_hold(hold).await;
    assert!(matches!(again, Err(StoreError::Duplicate(same)) if same == id), "{again:?}");
    let stranger = HoldId([9; 16]);
    let unknown = store.end(stranger, State::Expired, vec![], None).await;
    assert!(matches!(unknown, Err(StoreError::NoSuchHold(_))), "{unknown:?}");

    assert_eq!(words(store).await, "held forwarding Denied answered");
    let found = sound(store).await;
    assert_eq!((found.events, found.holds), (4, 1));
    assert_eq!(store.checkpoint().await.unwrap(), found.head);
    assert_eq!(found.head.to_string().parse(), Ok(found.head));
    assert_eq!(store.events_dropped(), 0);
}

#[tokio::test]
async fn a_hold_lives_from_held_to_answered_in_a_file() {
    let disk = disk();
    whole_life(&Store::open(&disk.path)).await;
    // Nothing was closed in order: what was answered is there for the next process.
    let store = Store::open(&disk.path);
    assert_eq!(sound(&store).await.events, 4);
}

#[tokio::test(start_paused = true)]
async fn a_hold_lives_from_held_to_answered_in_memory() {
    whole_life(&Store::in_memory()).await;
}
