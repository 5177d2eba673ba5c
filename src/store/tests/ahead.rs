//! Jobs of one commit, at a database that is far away: they find what they would have found by themselves, and their first questions
//! are asked at once. And jobs that fail take nothing of the others along, with savepoints and without.

use std::cell::Cell as Count;

use proptest::prelude::*;

use super::*;
use crate::store::{
    error::StoreError,
    place::Opened,
    sql::{Asked, Jobs, Row, Sql, Transaction, Value},
    writer::{Job, Work, write_group, write_jobs},
};

/// A database in memory, which is said to be far away.
struct Far {
    database: Connection,
    trips: Count<usize>,
}

impl Far {
    fn near(&self) -> Transaction<'_> {
        Transaction::of(&self.database, true)
    }
}

impl Sql for Far {
    fn rows(&self, statement: &'static str, parameters: &[Value<'_>]) -> Result<Vec<Row>, StoreError> {
        self.trips.set(self.trips.get() + 1);
        self.database.rows(statement, parameters)
    }

    fn rows_of(&self, asked: &[Asked<'_>]) -> Result<Vec<Vec<Row>>, StoreError> {
        self.trips.set(self.trips.get() + 1);
        self.database.rows_of(asked)
    }

    fn execute(&self, statement: &'static str, parameters: &[Value<'_>]) -> Result<u64, StoreError> {
        Sql::execute(&self.database, statement, parameters)
    }

    fn is_shut_out(&self, name: &str) -> Result<bool, StoreError> {
        self.database.is_shut_out(name)
    }
}

impl Jobs for Far {
    fn is_far(&self) -> bool {
        true
    }

    fn begin_job(&self) -> Result<(), StoreError> {
        self.near().begin_job()
    }

    fn keep_job(&self) -> Result<(), StoreError> {
        self.near().keep_job()
    }

    fn undo_job(&self) -> Result<bool, StoreError> {
        self.near().undo_job()
    }

    fn is_over(&self) -> bool {
        self.near().is_over()
    }
}

fn far() -> Far {
    Far { database: Opened::in_memory().unwrap().connection, trips: Count::new(0) }
}

fn id(hold: u8) -> HoldId {
    HoldId(u128::from(hold).to_be_bytes())
}

fn gate(number: u8) -> Arc<str> {
    format!("gate-{}", number % 2).into()
}

/// A call of the content `call`, with the id `hold`.
fn called(hold: u8, call: u8) -> Box<NewHold> {
    let call_sha256 = Some(Digest::of(&[call]));
    Box::new(NewHold { call_sha256, ..new_hold(hold.into(), &gate(hold)) })
}

fn job() -> impl Strategy<Value = Job> {
    let at = Timestamp::now();
    let state = prop::sample::select(State::ALL.to_vec());
    let verdict = prop::sample::select(vec![Verdict::Approve, Verdict::Reject]);
    let vote = move |verdict| Vote::new(verdict, "uid:alice".to_owned(), Some("why".to_owned()), at);
    // Few holds and fewer calls, so that jobs of a commit meet.
    let (hold, call) = (|| 0..8_u8, || 0..3_u8);
    prop_oneof![
        2 => (hold(), call()).prop_map(|(hold, call)| Job::Record(called(hold, call))),
        6 => (hold(), call(), any::<bool>()).prop_map(move |(hold, call, is_own)| Job::Arrive {
            hold: called(hold, call), is_own, remembered: None, at
        }),
        4 => (hold(), any::<u8>()).prop_map(move |(hold, by)| Job::Approve {
            id: id(hold), vote: vote(Verdict::Approve), approval: Box::default(), holder: gate(by)
        }),
        4 => (hold(), state).prop_map(move |(hold, state)| Job::End {
            id: id(hold), state, votes: Vec::new(), note: None, at
        }),
        3 => (hold(), any::<u8>()).prop_map(move |(hold, by)| Job::Detach {
            id: id(hold), holder: gate(by), note: "gone", at
        }),
        2 => hold().prop_map(move |hold| Job::TakeBack { id: id(hold), note: "taken back", at }),
        3 => (hold(), verdict).prop_map(move |(hold, verdict)| Job::Decide {
            id: id(hold), vote: vote(verdict), approval: Box::default(), lapses_at: at + Duration::from_secs(60)
        }),
        1 => hold().prop_map(move |hold| Job::Vote { id: id(hold), gate: gate(0), vote: vote(Verdict::Approve) }),
        2 => (hold(), call()).prop_map(move |(hold, call)| Job::Redeem { id: id(hold), call: called(hold + 8, call), at }),
        2 => (hold(), any::<bool>()).prop_map(move |(hold, again)| Job::Answer {
            id: id(hold), answer: TaskAnswer::Result("{}".to_owned()), kept: Duration::from_secs(60),
            instead_of: again.then(|| "{}".to_owned()), at
        }),
        1 => (hold(), any::<u8>()).prop_map(move |(hold, by)| Job::EndLate {
            id: id(hold), holder: gate(by), state: State::Unavailable, note: Some("late"), at
        }),
        1 => (hold(), 0..900_u64).prop_map(move |(hold, heard)| Job::Hear {
            id: id(hold), heard: Duration::from_secs(heard), note: "again".to_owned(), gate: gate(0), at
        }),
        1 => any::<u8>().prop_map(move |dead| Job::Recover { dead: gate(dead), at }),
        1 => (0..900_u64).prop_map(move |later| Job::Sweep { at: at + Duration::from_secs(later) }),
        1 => Just(()).prop_map(|()| Job::Ride(Box::new(denied()))),
    ]
}

/// What is in the tables, row by row.
fn all(db: &Connection) -> String {
    let tables = ["holds", "frames", "audit", "retries", "answers"];
    let rows = tables.map(|table| {
        let mut statement = db.prepare(&format!("SELECT * FROM {table} ORDER BY 1, 2")).unwrap();
        let columns = statement.column_count();
        let row = |row: &rusqlite::Row<'_>| {
            (0..columns)
                .map(|column| row.get::<_, rusqlite::types::Value>(column))
                .collect::<Result<Vec<_>, _>>()
        };
        statement.query_map([], row).unwrap().map(Result::unwrap).collect::<Vec<_>>()
    });
    format!("{rows:#?}")
}

fn commit(far: &Far, group: &[Work], known: &mut Checkpoint) -> String {
    far.put("BEGIN", &[]).unwrap();
    let Ok(Some((head, answers))) = write_jobs(far, group, *known, 0) else {
        panic!("the commit has failed")
    };
    far.put("COMMIT", &[]).unwrap();
    *known = head;
    format!("{answers:#?}")
}

fn commit_near(near: &Connection, group: &[Work], known: &mut Checkpoint) -> String {
    let Ok((head, answers)) = write_group(near, group, *known, 0) else { panic!("the commit has failed") };
    *known = head;
    format!("{answers:#?}")
}

fn work(job: Job) -> Work {
    Work { job, reply: None, slot: None }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn jobs_find_the_same_near_and_far_and_with_savepoints_or_without(
        groups in prop::collection::vec(prop::collection::vec(job(), 1..10), 1..8)
    ) {
        let (near, far) = (Opened::in_memory().unwrap().connection, far());
        let (mut near_head, mut far_head) = (Checkpoint::EMPTY, Checkpoint::EMPTY);
        for group in groups {
            let group: Vec<Work> = group.into_iter().map(work).collect();
            prop_assert_eq!(commit_near(&near, &group, &mut near_head), commit(&far, &group, &mut far_head));
        }
        prop_assert_eq!(all(&near), all(&far.database));
    }
}

#[test]
fn what_the_jobs_of_a_commit_ask_first_is_asked_at_once() {
    let (far, at) = (far(), Timestamp::now());
    let mut known = Checkpoint::EMPTY;
    let mut trips_of = |jobs: Vec<Job>| {
        let before = far.trips.get();
        commit(&far, &jobs.into_iter().map(work).collect::<Vec<_>>(), &mut known);
        far.trips.get() - before
    };
    let arrive = |hold, call| Job::Arrive { hold: called(hold, call), is_own: false, remembered: None, at };
    let end = |hold| Job::End { id: id(hold), state: State::Expired, votes: Vec::new(), note: None, at };
    // The end of the log, and the rest.
    assert_eq!(trips_of((0..50).map(|hold| arrive(hold, hold)).collect()), 2);
    assert_eq!(trips_of((0..50).map(end).collect()), 2);
    // The second of two about the same call looks again.
    assert_eq!(trips_of(vec![arrive(60, 1), arrive(61, 1), arrive(62, 2)]), 3);
}
