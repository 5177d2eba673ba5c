//! The outbox: who gets an entry, in which order, and what becomes of one whose sender has died.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::{Kept, new_hold};
use crate::{
    digest::Digest,
    store::{Delivered, NewEntry, News, OutboxCounts, Store},
};

/// A record with these entries for `chat`: the number of a hold, a line, and what is told.
async fn filled(place: &Kept, entries: &[(u128, u64, News)]) -> Store {
    let store = place.open();
    let entries =
        entries.iter().map(|&(hold, line, news)| NewEntry { hold: new_hold(hold, "").id, line, news });
    assert!(store.fill_outbox("chat".into(), None, 9, entries.collect()).await.unwrap());
    store
}

fn later() -> Timestamp {
    Timestamp::now() + SignedDuration::from_mins(2)
}

/// The line of the entry that `by` gets, and its number.
async fn claimed(store: &Store, by: &str, until: Timestamp) -> Option<(u64, i64, u32)> {
    let entry = store.claim_entry("chat".into(), Arc::from(by), until).await.unwrap()?;
    Some((entry.line, entry.id, entry.attempts))
}

pub(super) async fn an_entry_has_one_sender_at_a_time_and_those_of_a_hold_go_in_order(place: &Kept) {
    let store = filled(place, &[(1, 1, News::Held), (1, 2, News::Ended), (2, 3, News::Held)]).await;
    let (first, id, _) = claimed(&store, "a", later()).await.unwrap();
    let (second, ..) = claimed(&store, "b", later()).await.unwrap();
    assert_eq!((first, second), (1, 3), "the second one of the first hold waits for the first");
    assert_eq!(claimed(&store, "c", later()).await, None);
    assert!(store.delivered(id, "a".into(), Delivered::Sent(Some("ts".to_owned()))).await.unwrap());
    let entry = store.claim_entry("chat".into(), "c".into(), later()).await.unwrap().unwrap();
    assert_eq!((entry.line, entry.message.as_deref()), (2, Some("ts")), "with the name of the first message");
    assert_eq!(store.message("chat", new_hold(1, "").id).await.unwrap().as_deref(), Some("ts"));
}

pub(super) async fn what_a_dead_sender_had_is_sent_by_another_and_its_last_word_does_not_count(place: &Kept) {
    let store = filled(place, &[(1, 1, News::Held)]).await;
    let (_, id, attempts) = claimed(&store, "dead", Timestamp::now()).await.unwrap();
    assert_eq!(attempts, 1);
    let (_, again, attempts) = claimed(&store, "alive", later()).await.unwrap();
    assert_eq!((again, attempts), (id, 2));
    assert!(!store.delivered(id, "dead".into(), Delivered::GivenUp("too late".to_owned())).await.unwrap());
    assert!(store.delivered(id, "alive".into(), Delivered::Sent(None)).await.unwrap());
    assert_eq!(store.outbox_next("chat").await.unwrap(), None);
    assert_eq!(store.outbox_counts("chat").await.unwrap(), OutboxCounts::default());
}

pub(super) async fn an_entry_that_failed_is_due_later_and_one_that_was_given_up_is_counted(place: &Kept) {
    let store = filled(place, &[(1, 1, News::Held), (2, 2, News::Held)]).await;
    let (_, id, _) = claimed(&store, "a", later()).await.unwrap();
    let due = later();
    store.delivered(id, "a".into(), Delivered::Again(due, "it answered 503".to_owned())).await.unwrap();
    let (line, id, _) = claimed(&store, "a", later()).await.unwrap();
    assert_eq!(line, 2, "others do not wait for it");
    store.delivered(id, "a".into(), Delivered::GivenUp("it answered 410".to_owned())).await.unwrap();
    assert_eq!(store.outbox_next("chat").await.unwrap(), Some(due));
    let counts = store.outbox_counts("chat").await.unwrap();
    assert_eq!(
        (counts.waiting, counts.given_up, counts.last_error.as_deref()),
        (1, 1, Some("it answered 410"))
    );
}

pub(super) async fn of_several_who_look_at_the_log_one_fills_the_outbox(place: &Kept) {
    let store = filled(place, &[(1, 1, News::Held)]).await;
    let entry = || vec![NewEntry { hold: new_hold(2, "").id, line: 10, news: News::Held }];
    assert!(!store.fill_outbox("chat".into(), None, 20, entry()).await.unwrap(), "it has begun already");
    assert!(!store.fill_outbox("chat".into(), Some(5), 20, entry()).await.unwrap(), "it is further already");
    assert!(store.fill_outbox("chat".into(), Some(9), 20, entry()).await.unwrap());
    assert!(!store.fill_outbox("chat".into(), Some(9), 20, entry()).await.unwrap());
    assert_eq!(store.outbox_seen("chat").await.unwrap(), Some(20));
    assert_eq!(store.outbox_counts("chat").await.unwrap().waiting, 2);
}

pub(super) async fn what_counts_once_counts_once_unless_it_is_given_back(place: &Kept) {
    let store = place.open();
    let what = Digest::of(b"a link");
    assert!(store.use_once(what, later()).await.unwrap());
    assert!(!store.use_once(what, later()).await.unwrap());
    assert!(store.use_once(Digest::of(b"another"), later()).await.unwrap());
    store.unuse(what).await.unwrap();
    assert!(store.use_once(what, later()).await.unwrap());
}
