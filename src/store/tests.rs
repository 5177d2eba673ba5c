//! The promises of the record, as stories. Those that are listed in `stories!` happen on every kind of store.

use std::{path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use jiff::Timestamp;
use rusqlite::Connection;
use tempfile::TempDir;

use self::{approvals::*, cluster::Cluster, outbox::*, random::*, tamper::*};
use super::*;
use crate::{
    audit::Occasion,
    digest::Digest,
    hold::{Quorum, Verdict},
};

#[path = "../../tests/it/support/postgres.rs"]
pub(crate) mod cluster;

struct Disk {
    _directory: TempDir,
    path: PathBuf,
}

fn disk() -> Disk {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("holdshort.db");
    Disk { _directory: directory, path }
}

/// Where a story happens.
enum Kept {
    File(Disk),
    Database(PostgresUrl),
}

impl Kept {
    fn database(cluster: &Cluster) -> Self {
        Self::Database(PostgresUrl::parse(&cluster.url(&cluster.database())).unwrap())
    }

    /// One more process on the record.
    fn open(&self) -> Store {
        let name = HoldId::random().unwrap().to_string().into();
        match self {
            Self::File(disk) => Store::open(&disk.path),
            Self::Database(url) => Store::open_at(&Location::Postgres(url.clone()), &name),
        }
    }
}

/// Makes a test of every story, in a file, and one of all of them in PostgreSQL.
macro_rules! stories {
    ($($story:ident),* $(,)?) => {
        mod in_a_file {
            $(
                #[tokio::test]
                async fn $story() {
                    super::$story(&super::Kept::File(super::disk())).await;
                }
            )*
        }

        #[tokio::test]
        async fn every_story_happens_in_postgresql_too() {
            let cluster = Cluster::start();
            $(
                println!("{}", stringify!($story));
                $story(&Kept::database(&cluster)).await;
            )*
        }
    };
}

stories! {
    a_hold_lives_from_held_to_answered,
    one_of_racing_verdicts_wins_over_two_handles,
    a_failing_job_does_not_take_the_others_of_its_commit_along,
    what_a_dead_process_left_is_taken_over_once,
    holds_are_found_by_any_beginning_and_listed_newest_first,
    an_event_that_rides_alone_becomes_durable_by_itself,
    the_state_of_a_hold_cannot_be_told_by_anyone_but_the_store,
    texts_of_any_kind_come_back_as_they_were,
    what_has_no_caller_is_listed_counted_and_answered_for,
    of_one_principal_s_calls_without_callers_there_is_a_limit,
    a_list_goes_on_from_any_hold_and_reads_no_long_frame,
    one_covers_as_many_calls_as_was_said_and_each_is_on_record,
    what_one_covers_goes_on_however_many_calls_wait,
    nothing_that_has_ended_or_is_no_approval_lets_anything_through,
    whoever_thinks_better_of_a_grant_takes_back_what_it_covers,
    an_entry_has_one_sender_at_a_time_and_those_of_a_hold_go_in_order,
    what_a_dead_sender_had_is_sent_by_another_and_its_last_word_does_not_count,
    an_entry_that_failed_is_due_later_and_one_that_was_given_up_is_counted,
    of_several_who_look_at_the_log_one_fills_the_outbox,
    what_counts_once_counts_once_unless_it_is_given_back,
    sequences_of_jobs_leave_a_sound_record,
    what_is_kept_of_a_tool_has_an_end,
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
        call_sha256: Some(Digest::of(&number.to_be_bytes())),
        tool_sha256: None,
        terms_sha256: Some(Digest::of(b"terms")),
        quorum: None,
        rules: vec!["refunds".into(), "großes \"Geld\"".into()],
        reason: "Refunds need a person.".into(),
        notes: vec!["a condition failed".to_owned()],
        created_at: now,
        expires_at: now + Duration::from_secs(300),
    }
}

fn approval(by: &str) -> Vec<Vote> {
    vec![Vote::new(Verdict::Approve, by.to_owned(), Some("fine\nby me".to_owned()), Timestamp::now())]
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
    assert_eq!(store.decidable_holds(None, 9).await.unwrap().len(), 1);
    assert_eq!(store.holders().await.unwrap(), [Arc::from("gate-1")]);

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
    assert!(store.decidable_holds(None, 9).await.unwrap().is_empty());

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

async fn a_hold_lives_from_held_to_answered(place: &Kept) {
    whole_life(&place.open()).await;
    // Nothing was closed in order: what was answered is there for the next process.
    assert_eq!(sound(&place.open()).await.events, 4);
}

#[tokio::test(start_paused = true)]
async fn a_hold_lives_from_held_to_answered_in_memory() {
    whole_life(&Store::in_memory()).await;
}

async fn one_of_racing_verdicts_wins_over_two_handles(place: &Kept) {
    let (one, two) = (place.open(), place.open());
    for number in 0..24 {
        let hold = new_hold(number, "gate-1");
        let id = hold.id;
        one.record_hold(hold).await.unwrap();
        let (approved, expired) = tokio::join!(
            one.end(id, State::Forwarding, approval("a"), None),
            two.end(id, State::Expired, vec![], None)
        );
        assert_ne!(approved.is_ok(), expired.is_ok(), "exactly one wins");
        let loser = approved.err().or(expired.err()).unwrap();
        let state = two.hold(id).await.unwrap().unwrap().state;
        assert!(matches!(loser, StoreError::NotHeld { state: winner } if winner == state), "{loser}");
    }
    assert_eq!(sound(&one).await.holds, 24);
}

async fn a_failing_job_does_not_take_the_others_of_its_commit_along(place: &Kept) {
    let store = place.open();
    store.record_hold(new_hold(0, "gate-1")).await.unwrap();
    let jobs = (0..200).map(|number| {
        // Every third is a hold that is recorded already.
        let store = store.clone();
        async move {
            (number, store.record_hold(new_hold(if number % 3 == 0 { 0 } else { number }, "gate-1")).await)
        }
    });
    for (number, result) in futures_util::future::join_all(jobs).await {
        assert_eq!(result.is_err(), number % 3 == 0, "{number}: {result:?}");
    }
    let lost = 200_u64.div_ceil(3);
    assert_eq!(sound(&store).await.holds, 1 + 200 - lost);
}

async fn what_a_dead_process_left_is_taken_over_once(place: &Kept) {
    let store = place.open();
    for (number, owner) in [(1, "dead"), (2, "dead"), (3, "alive"), (4, "dead")] {
        store.record_hold(new_hold(number, owner)).await.unwrap();
    }
    store.end(new_hold(2, "").id, State::Forwarding, approval("a"), None).await.unwrap();
    store.end(new_hold(4, "").id, State::Rejected, vec![], None).await.unwrap();
    assert_eq!(store.holders().await.unwrap(), [Arc::from("alive"), Arc::from("dead")]);
    let recovered = store.recover("dead").await.unwrap();
    let expected = Recovered { detached: vec![new_hold(1, "").id], unknown: vec![new_hold(2, "").id] };
    assert_eq!(recovered, expected);
    assert_eq!(store.recover("dead").await.unwrap(), Recovered::default(), "and never again");
    let states = |state| {
        let store = store.clone();
        async move {
            let filter = HistoryFilter { limit: 9, states: vec![state], ..HistoryFilter::default() };
            store.history(filter).await.unwrap().len()
        }
    };
    assert_eq!(states(State::Held).await, 2);
    assert_eq!(states(State::Unknown).await, 1);
    let detached = store.hold(new_hold(1, "").id).await.unwrap().unwrap();
    assert_eq!(detached.holder, None, "it still waits, and nobody has its caller");
    assert_eq!(store.holders().await.unwrap(), [Arc::from("alive")]);
    sound(&store).await;
}

async fn holds_are_found_by_any_beginning_and_listed_newest_first(place: &Kept) {
    let store = place.open();
    for number in 0..40_u128 {
        let mut hold = new_hold(number << 120, "gate-1");
        hold.tool = if number % 2 == 0 { "even" } else { "odd" }.into();
        store.record_hold(hold).await.unwrap();
    }
    let id = HoldId((17_u128 << 120).to_be_bytes());
    for chars in [3, 7, 26] {
        let prefix = &id.to_string()[..chars];
        let found = store.find(&prefix.to_ascii_uppercase(), 5).await.unwrap();
        assert_eq!(found.iter().map(|found| found.hold.id).collect::<Vec<_>>(), [id], "{prefix}");
    }
    assert_eq!(store.find("", 50).await.unwrap().len(), 40);
    assert_eq!(store.find("0", 50).await.unwrap().len(), 32, "the first character carries three bits");
    for no_beginning in ["8", "u", "0é", "00000000000000000000000000x"] {
        assert!(store.find(no_beginning, 5).await.unwrap().is_empty(), "{no_beginning}");
    }
    let page =
        |before| HistoryFilter { limit: 3, before, tool: Some("odd".to_owned()), ..HistoryFilter::default() };
    let first = store.history(page(None)).await.unwrap();
    let next = store.history(page(first.last().map(|listed| listed.record.hold.id))).await.unwrap();
    let numbers: Vec<u8> = first.iter().chain(&next).map(|listed| listed.record.hold.id.0[0]).collect();
    assert_eq!(numbers, [39, 37, 35, 33, 31, 29]);
    let elsewhere = HistoryFilter { limit: 3, server: Some("crm".to_owned()), ..HistoryFilter::default() };
    assert!(store.history(elsewhere).await.unwrap().is_empty());
}

/// Waits, without sleeping, until the log has `seq` lines.
async fn until_logged(store: &Store, seq: u64) {
    let wait = async {
        while store.checkpoint().await.unwrap().seq < seq {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), wait).await.expect("the log grows");
}

async fn an_event_that_rides_alone_becomes_durable_by_itself(place: &Kept) {
    let store = place.open();
    store.ride_along(denied());
    until_logged(&store, 1).await;
    assert_eq!(words(&store).await, "Denied");
}

#[tokio::test]
async fn events_beyond_the_bound_are_dropped_counted_and_the_count_is_told() {
    const TOO_MANY: usize = 7;
    let disk = disk();
    let store = Store::open(&disk.path);
    store.ready().await.unwrap();
    // Somebody else writes: our thread waits, and reading goes on.
    let other = Connection::open(&disk.path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    for _ in 0..EVENTS_QUEUED_MAX + TOO_MANY {
        store.ride_along(denied());
    }
    assert_eq!(store.events_dropped(), TOO_MANY as u64);
    assert_eq!(store.checkpoint().await.unwrap(), Checkpoint::EMPTY);
    assert!(store.decidable_holds(None, 9).await.unwrap().is_empty());
    other.execute_batch("ROLLBACK").unwrap();
    store.flush().await.unwrap();
    assert_eq!(store.events_dropped(), 0);
    let told = words(&store).await;
    assert_eq!(told.matches("Denied").count(), EVENTS_QUEUED_MAX);
    assert_eq!(told.matches("EventsDropped").count(), 1);
    sound(&store).await;
}

async fn the_state_of_a_hold_cannot_be_told_by_anyone_but_the_store(place: &Kept) {
    let store = place.open();
    store.ride_along(AuditEvent::held(&new_hold(1, "gate-1")));
    store.flush().await.unwrap();
    assert_eq!(words(&store).await, "EventsDropped");
    sound(&store).await;
}

async fn texts_of_any_kind_come_back_as_they_were(place: &Kept) {
    let store = place.open();
    for (number, text) in
        ["", "\0", "a\0b\u{1a}c\u{1a}0", "ä\u{202e}\u{1f600}", "'; DROP TABLE holds; --"].iter().enumerate()
    {
        let mut hold = new_hold(number as u128, "gate-1");
        (hold.tool, hold.agent, hold.reason) = ((*text).into(), (*text).into(), (*text).into());
        hold.notes = vec![(*text).to_owned()];
        store.record_hold(hold.clone()).await.unwrap();
        let record = store.hold(hold.id).await.unwrap().unwrap();
        assert_eq!(format!("{:?}", record.hold), format!("{hold:?}"));
        store.end(hold.id, State::Expired, vec![], Some((*text).to_owned())).await.unwrap();
        let of_tool = HistoryFilter { limit: 9, tool: Some((*text).to_owned()), ..HistoryFilter::default() };
        assert_eq!(store.history(of_tool).await.unwrap().len(), 1, "{text:?}");
    }
    sound(&store).await;
}

fn ids(listed: Vec<Listed>) -> Vec<HoldId> {
    listed.into_iter().map(|listed| listed.record.hold.id).collect()
}

async fn a_list_goes_on_from_any_hold_and_reads_no_long_frame(place: &Kept) {
    let store = place.open();
    let began = Timestamp::now();
    // The third was held first; the last two at the same moment.
    for (number, seconds, frame_bytes) in
        [(2, 3, 100), (4, 9, LISTED_FRAME_BYTES_MAX), (1, 1, LISTED_FRAME_BYTES_MAX + 1), (3, 9, 5 << 20)]
    {
        let hold = new_hold(number, "gate-1");
        let created_at = began + Duration::from_secs(seconds);
        let frame = Bytes::from(vec![b'x'; frame_bytes]);
        store.record_hold(NewHold { created_at, frame, ..hold.clone() }).await.unwrap();
        store.detach(hold.id, "gate-1".into(), "gone").await.unwrap();
    }
    let all = store.detached_holds(None, 9).await.unwrap();
    let lengths: Vec<_> =
        all.iter().map(|listed| (listed.frame_bytes, listed.record.hold.frame.len())).collect();
    let most = LISTED_FRAME_BYTES_MAX;
    assert_eq!(lengths, [(most + 1, 0), (100, 100), (5 << 20, 0), (most, most)]);
    let history = store.history(HistoryFilter { limit: 9, ..HistoryFilter::default() }).await.unwrap();
    let lengths: Vec<_> = history.iter().map(|listed| listed.record.hold.frame.len()).collect();
    assert_eq!(lengths, [0, 0, most, 100], "the newest on record first");
    assert_eq!(
        all.iter().map(Listed::has_frame).collect::<Vec<_>>(),
        [false, true, false, true],
        "whether the frame is there is told"
    );
    let order = ids(all.clone());
    assert_eq!(order, [1, 2, 3, 4].map(|number: u128| HoldId(number.to_be_bytes())));
    for (place, last) in all.iter().enumerate() {
        let after = Some(last.record.hold.place());
        assert_eq!(ids(store.detached_holds(after, 9).await.unwrap()), order[place + 1..]);
        let next = store.decidable_holds(after, 1).await.unwrap();
        assert_eq!(ids(next), order[place + 1..].iter().copied().take(1).collect::<Vec<_>>());
    }
    for (id, listed) in order.iter().zip(&all) {
        let one = store.listed_hold(*id).await.unwrap().unwrap();
        assert_eq!(format!("{one:?}"), format!("{listed:?}"), "alone it is as in a list");
    }
    assert_eq!(
        store.hold(order[2]).await.unwrap().unwrap().hold.frame.len(),
        5 << 20,
        "asked for, it is read"
    );
}

async fn what_has_no_caller_is_listed_counted_and_answered_for(place: &Kept) {
    let (store, other) = (place.open(), place.open());
    let secret = store.key("seal").await.unwrap();
    assert_eq!(other.key("seal").await.unwrap(), secret, "one for all");
    let quorum: Quorum =
        serde_json::from_value(serde_json::json!({"requirements": [], "required_rejections": 1})).unwrap();
    let (first, second) = (new_hold(1, "gate-1"), new_hold(2, "gate-1"));
    let first = NewHold { quorum: Some(Arc::new(quorum)), ..first };
    for hold in [&first, &second] {
        store.record_hold(hold.clone()).await.unwrap();
    }
    assert!(ids(store.detached_holds(None, 9).await.unwrap()).is_empty());
    assert_eq!(ids(store.decidable_holds(None, 9).await.unwrap()), [first.id, second.id]);
    store.detach(first.id, "gate-1".into(), "gone").await.unwrap();
    assert_eq!(ids(store.detached_holds(None, 9).await.unwrap()), [first.id]);
    assert_eq!(store.reminded("gate-1".into(), 9).await.unwrap()[0].1, Duration::ZERO);
    let hear =
        |heard| store.hear(first.id, Duration::from_secs(heard), "a reminder".to_owned(), "gate-1".into());
    assert!(hear(60).await.unwrap() && !hear(60).await.unwrap(), "once for each time");
    assert_eq!(store.reminded("gate-1".into(), 9).await.unwrap()[0].1, Duration::from_secs(60));
    let counts = store.open_counts().await.unwrap();
    assert!(
        counts.states.contains(&(State::Held, 2)) && counts.oldest == Some(first.created_at),
        "{counts:?}"
    );
    let vote = approval("a").remove(0);
    store.vote(first.id, "gate-1".into(), vote.clone()).await.unwrap();
    let lapses_at = Timestamp::now() + Duration::from_secs(60);
    store.decide(first.id, vote, Approval::default(), lapses_at).await.unwrap();
    let again = NewHold { id: HoldId([3; 16]), ..first.clone() };
    assert!(store.redeem(first.id, again.clone()).await.unwrap().is_some());
    assert!(other.redeem(first.id, again.clone()).await.unwrap().is_none(), "once, wherever it is asked for");
    let (kept, one, two) = (Duration::from_secs(60), "{\"n\":1}".to_owned(), "{\"n\":2}".to_owned());
    store.answer(first.id, TaskAnswer::Result(one.clone()), kept).await.unwrap();
    let better = || TaskAnswer::Result(two.clone());
    assert!(store.answer_instead(first.id, one.clone(), better(), kept).await.unwrap());
    assert!(!store.answer_instead(first.id, one, better(), kept).await.unwrap(), "another is kept by now");
    assert_eq!(other.answer_of(first.id).await.unwrap(), Some(better()));
    // The same call after it has run: whoever decides is told so.
    match store.arrive(NewHold { id: HoldId([4; 16]), ..again }, true, None).await.unwrap() {
        Arrived::Held { notes } => {
            assert!(notes.iter().any(|note| note.contains("has run before")), "{notes:?}")
        }
        other => panic!("{other:?}"),
    }
    store.detach(second.id, "gate-1".into(), "gone").await.unwrap();
    assert!(store.take_back(second.id, "taken back").await.unwrap());
    let late = NewHold { expires_at: Timestamp::now(), ..new_hold(5, "gate-1") };
    store.record_hold(late.clone()).await.unwrap();
    store.detach(late.id, "gate-1".into(), "gone").await.unwrap();
    assert_eq!(store.sweep().await.unwrap(), 1);
    sound(&other).await;
}

/// As many calls of one principal as may be without a caller, the first of them `first`.
async fn leave_behind(store: &Store, first: u128) {
    let numbers: Vec<u128> = (first..).take(WITHOUT_CALLER_MAX).collect();
    for some in numbers.chunks(100) {
        let left = some.iter().map(|number| async {
            let hold = new_hold(*number, "gate-1");
            let id = hold.id;
            store.record_hold(hold).await.unwrap();
            store.detach(id, "gate-1".into(), "gone").await.unwrap();
        });
        futures_util::future::join_all(left).await;
    }
}

async fn of_one_principal_s_calls_without_callers_there_is_a_limit(place: &Kept) {
    let store = place.open();
    leave_behind(&store, 1).await;
    // A call that nobody can tell from others counts as well.
    for call_sha256 in [None, Some(Digest::of(b"another call"))] {
        let more = NewHold { call_sha256, ..new_hold(5000, "gate-1") };
        assert!(matches!(store.arrive(more, false, None).await, Ok(Arrived::TooMany)));
    }
    assert!(store.hold(HoldId(5000_u128.to_be_bytes())).await.unwrap().is_none(), "nothing is recorded");
    let others = NewHold { principal: "uid:1001(eve)".into(), ..new_hold(5001, "gate-1") };
    assert!(matches!(store.arrive(others, false, None).await, Ok(Arrived::Held { .. })));
    store.take_back(HoldId(1_u128.to_be_bytes()), "taken back").await.unwrap();
    let more = NewHold { call_sha256: Some(Digest::of(b"another call")), ..new_hold(5002, "gate-1") };
    assert!(matches!(store.arrive(more, false, None).await, Ok(Arrived::Held { .. })));
    sound(&store).await;
}

mod ahead;
mod approvals;
mod crash;
mod outbox;
mod places;
mod postgres;
mod random;
mod tamper;
