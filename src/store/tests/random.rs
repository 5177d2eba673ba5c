//! Any sequence of jobs: the record agrees with a model of a few lines, and its log is whole.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Record(u8),
    End(u8, State),
    Recover(u8),
    Ride,
}

fn step() -> impl Strategy<Value = Step> {
    let state = prop::sample::select(vec![
        State::Held,
        State::Forwarding,
        State::Answered,
        State::Unknown,
        State::Rejected,
        State::Expired,
        State::Withdrawn,
        State::Unavailable,
    ]);
    prop_oneof![
        3 => (0..12_u8).prop_map(Step::Record),
        6 => (0..12_u8, state).prop_map(|(hold, state)| Step::End(hold, state)),
        1 => (0..3_u8).prop_map(Step::Recover),
        2 => Just(Step::Ride),
    ]
}

/// The owner of a hold, by its number.
fn owner(hold: u8) -> String {
    format!("gate-{}", hold % 3)
}

/// What the record must say, and how many lines tell it.
#[derive(Default)]
struct Model {
    states: HashMap<u8, State>,
    events: u64,
}

impl Model {
    /// Whether the step succeeds.
    fn take(&mut self, step: &Step) -> bool {
        let before = self.events;
        match step {
            Step::Record(hold) if !self.states.contains_key(hold) => {
                self.states.insert(*hold, State::Held);
                self.events += 1;
            }
            Step::End(hold, next) => {
                if let Some(state) = self.states.get_mut(hold)
                    && state.may_become(*next)
                {
                    *state = *next;
                    self.events += 1;
                }
            }
            Step::Recover(gate) => {
                for (_, state) in self.states.iter_mut().filter(|(hold, _)| *hold % 3 == *gate) {
                    match *state {
                        State::Held => *state = State::Withdrawn,
                        State::Forwarding => *state = State::Unknown,
                        _ => continue,
                    }
                    self.events += 1;
                }
                return true;
            }
            Step::Ride => self.events += 1,
            Step::Record(_) => (),
        }
        self.events > before
    }
}

async fn check(store: &Store, steps: &[Step]) {
    let mut model = Model::default();
    for step in steps {
        let done = match step {
            Step::Record(hold) => store.record_hold(new_hold((*hold).into(), &owner(*hold))).await.is_ok(),
            Step::End(hold, state) => {
                let id = HoldId(u128::from(*hold).to_be_bytes());
                store.end(id, *state, approval("a"), None).await.is_ok()
            }
            Step::Recover(gate) => store.recover(&owner(*gate)).await.is_ok(),
            Step::Ride => {
                store.ride_along(denied());
                true
            }
        };
        assert_eq!(done, model.take(step), "{step:?}");
    }
    store.flush().await.unwrap();
    let found = sound(store).await;
    assert_eq!((found.events, found.holds), (model.events, model.states.len() as u64));
    for (hold, state) in model.states {
        let id = HoldId(u128::from(hold).to_be_bytes());
        assert_eq!(store.hold(id).await.unwrap().unwrap().state, state);
    }
}

fn block_on(future: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(future);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_sequence_of_jobs_leaves_a_sound_record(steps in prop::collection::vec(step(), 0..60)) {
        block_on(check(&Store::in_memory(), &steps));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_sequence_of_jobs_leaves_a_sound_record_in_a_file(steps in prop::collection::vec(step(), 0..40)) {
        let disk = disk();
        block_on(check(&Store::open(&disk.path), &steps));
    }
}
