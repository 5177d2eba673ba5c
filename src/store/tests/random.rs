//! Any sequence of jobs: the record agrees with a model of a few lines, and its log is whole.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Record(u8),
    End(u8, State),
    Detach(u8),
    Decide(u8, Verdict),
    /// The call of this hold is made again, at some gate.
    Again(u8, u8, bool),
    Recover(u8),
    Ride,
}

fn step() -> impl Strategy<Value = Step> {
    let state = prop::sample::select(State::ALL.to_vec());
    let verdict = prop::sample::select(vec![Verdict::Approve, Verdict::Reject]);
    prop_oneof![
        3 => (0..6_u8).prop_map(Step::Record),
        5 => (0..6_u8, state).prop_map(|(hold, state)| Step::End(hold, state)),
        3 => (0..6_u8).prop_map(Step::Detach),
        3 => (0..6_u8, verdict).prop_map(|(hold, verdict)| Step::Decide(hold, verdict)),
        4 => (0..6_u8, 0..3_u8, any::<bool>()).prop_map(|(hold, gate, is_own)| Step::Again(hold, gate, is_own)),
        1 => (0..3_u8).prop_map(Step::Recover),
        1 => Just(Step::Ride),
    ]
}

/// The gate at which a hold is recorded, by its number.
fn gate(number: u8) -> String {
    format!("gate-{}", number % 3)
}

/// One hold of the model.
struct Modelled {
    id: HoldId,
    call: u8,
    state: State,
    holder: Option<String>,
    /// A rejection that nobody has heard.
    is_unheard: bool,
}

/// What the record must say, and how many lines tell it.
#[derive(Default)]
struct Model {
    holds: Vec<Modelled>,
    events: u64,
    retries: u8,
}

impl Model {
    fn find(&mut self, id: HoldId) -> Option<&mut Modelled> {
        self.holds.iter_mut().find(|hold| hold.id == id)
    }

    fn record(&mut self, id: HoldId, call: u8, at: String) {
        let holder = Some(at);
        self.holds.push(Modelled { id, call, state: State::Held, holder, is_unheard: false });
        self.events += 1;
    }

    fn end(&mut self, id: HoldId, next: State) -> bool {
        let Some(hold) = self.find(id) else { return false };
        // Whoever sends a call has its caller.
        let is_sent = next != State::Forwarding || (hold.state == State::Held && hold.holder.is_some());
        if !hold.state.may_become(next) || !is_sent {
            return false;
        }
        hold.state = next;
        if next != State::Forwarding {
            hold.holder = None;
        }
        self.events += 1;
        true
    }

    fn decide(&mut self, id: HoldId, verdict: Verdict) -> bool {
        let Some(hold) = self.find(id) else { return false };
        let may = match (hold.state, verdict) {
            (State::Held, _) => hold.holder.is_none(),
            (State::Granted, Verdict::Reject) => true,
            _ => false,
        };
        if may {
            hold.is_unheard = verdict == Verdict::Reject;
            hold.state = if hold.is_unheard { State::Rejected } else { State::Granted };
            self.events += 1;
        }
        may
    }

    /// What the call finds, as a word.
    fn again(&mut self, call: u8, at: &str, is_own: bool, id: HoldId) -> &'static str {
        let same: Vec<usize> =
            (0..self.holds.len()).filter(|&place| self.holds[place].call == call).collect();
        let is = |hold: &Modelled, state| hold.state == state;
        let unknown = same.iter().copied().find(|&place| is(&self.holds[place], State::Unknown));
        let decided = same.iter().copied().find(|&place| {
            let hold = &self.holds[place];
            is(hold, State::Granted)
                || (is(hold, State::Held) && hold.holder.is_none())
                || (is(hold, State::Rejected) && hold.is_unheard)
        });
        let waits = same.iter().any(|&place| {
            let hold = &self.holds[place];
            is(hold, State::Held) || (is(hold, State::Forwarding) && hold.holder.as_deref() != Some(at))
        });
        if unknown.is_some() {
            self.events += 1;
            return "unknown";
        }
        let Some(hold) = decided.map(|place| &mut self.holds[place]) else {
            if waits && !is_own {
                return "waits";
            }
            self.record(id, call, at.to_owned());
            return "held";
        };
        self.events += 1;
        match hold.state {
            State::Granted => {
                (hold.state, hold.holder) = (State::Forwarding, Some(at.to_owned()));
                self.events += 1;
                "redeemed"
            }
            State::Rejected => {
                hold.is_unheard = false;
                "rejected"
            }
            _ => {
                hold.holder = Some(at.to_owned());
                "attached"
            }
        }
    }

    fn recover(&mut self, dead: &str) {
        for hold in self.holds.iter_mut().filter(|hold| hold.holder.as_deref() == Some(dead)) {
            hold.holder = None;
            if hold.state == State::Forwarding {
                hold.state = State::Unknown;
            }
            self.events += 1;
        }
    }
}

fn id(hold: u8) -> HoldId {
    HoldId(u128::from(hold).to_be_bytes())
}

async fn again(store: &Store, model: &mut Model, call: u8, at: u8, is_own: bool) {
    model.retries += 1;
    let mut retry = new_hold(call.into(), &gate(at));
    retry.id = HoldId(u128::from_be_bytes([model.retries; 16]).to_be_bytes());
    let word = model.again(call, &gate(at), is_own, retry.id);
    let arrived = match store.arrive(retry, is_own, None).await.unwrap() {
        Arrived::Held { .. } => "held",
        Arrived::Attached(_) => "attached",
        Arrived::Redeemed(_) => "redeemed",
        Arrived::Rejected(_) => "rejected",
        Arrived::Unknown(_) => "unknown",
        Arrived::Waits { .. } => "waits",
        Arrived::TooMany => "too many",
    };
    assert_eq!(arrived, word);
}

async fn check(store: &Store, steps: &[Step]) {
    let mut model = Model::default();
    let lapses_at = Timestamp::now() + Duration::from_secs(3600);
    for step in steps {
        match *step {
            Step::Record(hold) => {
                let is_new = model.find(id(hold)).is_none();
                let recorded = store.record_hold(new_hold(hold.into(), &gate(hold))).await.is_ok();
                assert_eq!(recorded, is_new, "{step:?}");
                if is_new {
                    model.record(id(hold), hold, gate(hold));
                }
            }
            Step::End(hold, state) => {
                let ended = store.end(id(hold), state, approval("a"), None).await.is_ok();
                assert_eq!(ended, model.end(id(hold), state), "{step:?}");
            }
            Step::Detach(hold) => {
                let detached = store.detach(id(hold), gate(hold).into(), "gone").await;
                assert_eq!(detached.is_ok(), model.find(id(hold)).is_some());
                let holder = gate(hold);
                if let Some(found) = model.find(id(hold))
                    && found.state == State::Held
                    && found.holder.as_deref() == Some(&holder)
                {
                    found.holder = None;
                    model.events += 1;
                }
            }
            Step::Decide(hold, verdict) => {
                let vote = Vote { verdict, ..approval("a").remove(0) };
                let decided = store.decide(id(hold), vote, Approval::default(), lapses_at).await.is_ok();
                assert_eq!(decided, model.decide(id(hold), verdict), "{step:?}");
            }
            Step::Again(call, at, is_own) => again(store, &mut model, call, at, is_own).await,
            Step::Recover(dead) => {
                store.recover(&gate(dead)).await.unwrap();
                model.recover(&gate(dead));
            }
            Step::Ride => {
                store.ride_along(denied());
                model.events += 1;
            }
        }
    }
    store.flush().await.unwrap();
    let found = sound(store).await;
    assert_eq!((found.events, found.holds), (model.events, model.holds.len() as u64));
    let states: HashMap<_, _> =
        model.holds.iter().map(|hold| (hold.id, (hold.state, hold.holder.clone()))).collect();
    for (id, (state, holder)) in states {
        let record = store.hold(id).await.unwrap().unwrap();
        assert_eq!((record.state, record.holder.as_deref()), (state, holder.as_deref()));
    }
}

fn block_on(future: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(future);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_sequence_of_jobs_leaves_a_sound_record(steps in prop::collection::vec(step(), 0..60)) {
        block_on(check(&Store::in_memory(), &steps));
    }
}

/// Some sequences, the same ones each time, one after the other on one record.
pub(super) async fn sequences_of_jobs_leave_a_sound_record(place: &Kept) {
    use proptest::{strategy::ValueTree, test_runner::TestRunner};
    let mut runner = TestRunner::deterministic();
    let steps = prop::collection::vec(step(), 120..=120).new_tree(&mut runner).unwrap().current();
    check(&place.open(), &steps).await;
}
