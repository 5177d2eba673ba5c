//! Every order in which callers, people, time and crashes can meet over one call, tried out.
//!
//! The rows are the record: their moves are those of `Standing`, which the store applies one at a time. Around them is a small
//! model of what gates do between two writes: they take a call out of their table (the claim), write its end down, and only then
//! send or answer. Tasks and calls that come back with a state are moves of their own. A verdict through the agent's own client is one like any
//! other: it comes to the same claim. The search goes through all interleavings of these steps, by two gates, and looks at every state it meets.

use std::{
    collections::{HashSet, VecDeque},
    sync::Arc,
};

use holdshort::hold::{Arrival, Standing, State, Verdict};
use jiff::Timestamp;

/// What a gate does with a call that it has taken out of its table, between two writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Doing {
    /// A verdict was handed over; it is not on record yet.
    Deciding(Verdict),
    /// The approval is on record, and the call is about to be sent.
    Sending,
    /// The client has cancelled it; that is not on record yet.
    Withdrawing,
    /// The caller is gone or impatient; that is not on record yet.
    Detaching,
    /// Its time is over; that is not on record yet.
    Expiring,
}

/// What a gate knows of its one caller.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Gate {
    /// The row that its caller waits for, in the table.
    waits: Option<usize>,
    /// A row on its way out of the table.
    doing: Option<(usize, Doing)>,
    /// The row that was sent, and has no answer.
    sent: Option<usize>,
    /// Whether the client has cancelled what is on its way.
    cancelled: bool,
    /// Whether a client of this gate expects an answer.
    expects: bool,
    /// Answers to the request that is or was last under way.
    answers: u8,
}

/// One hold, with what really happened to its call.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Row {
    standing: Standing,
    approvals: u8,
    executions: u8,
    /// Whether a client has heard that it does not run: rejected, expired.
    refused: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    now: u8,
    rows: Vec<Row>,
    gates: [Gate; 2],
    /// What may still happen, so that the search ends.
    calls_left: u8,
    verdicts_left: u8,
    crashes_left: u8,
    ticks_left: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Call(usize),
    /// A call that waits as a task: its client is answered at once, and nobody waits.
    Begin(usize),
    /// A question about the task of a row, at any gate: it lets an approved call run.
    Poll(usize, usize),
    /// A call that comes back with the state of a row: to that one and to no other.
    ComeBack(usize, usize),
    Cancel(usize),
    Leave(usize),
    Decide(usize, Verdict),
    TakeBack(usize),
    Expire(usize),
    Commit(usize),
    Answer(usize),
    Crash(usize),
    Recover(usize),
    Tick,
}

const HOLD_TICKS: u8 = 1;
const GRANT_TICKS: u8 = 1;

fn at(tick: u8) -> Timestamp {
    Timestamp::from_second(1_000_000 + i64::from(tick)).unwrap()
}

fn name(gate: usize) -> Arc<str> {
    Arc::from(["one", "other"][gate])
}

impl World {
    fn of([calls_left, verdicts_left, crashes_left, ticks_left]: [u8; 4]) -> Self {
        let gates = [Gate::default(), Gate::default()];
        Self { now: 0, rows: Vec::new(), gates, calls_left, verdicts_left, crashes_left, ticks_left }
    }

    fn steps(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        for gate in 0..2 {
            let Gate { waits, doing, sent, cancelled, expects, .. } = &self.gates[gate];
            if self.calls_left > 0 && !expects && doing.is_none() && waits.is_none() && sent.is_none() {
                steps.extend([Step::Call(gate), Step::Begin(gate)]);
                for row in 0..self.rows.len() {
                    steps.extend([Step::Poll(gate, row), Step::ComeBack(gate, row)]);
                }
            }
            if *expects && !cancelled && (waits.is_some() || doing.is_some()) {
                steps.push(Step::Cancel(gate));
            }
            if waits.is_some() {
                steps.push(Step::Leave(gate));
            }
            if waits.is_some_and(|row| self.rows[row].standing.expires_at <= at(self.now)) {
                steps.push(Step::Expire(gate));
            }
            if doing.is_some() {
                steps.push(Step::Commit(gate));
            }
            if sent.is_some() {
                steps.push(Step::Answer(gate));
            }
            if self.crashes_left > 0 && (waits.is_some() || doing.is_some() || sent.is_some()) {
                steps.push(Step::Crash(gate));
            }
            // Only what no living gate knows of is anybody's to take over.
            let is_left = |row: &Row| row.standing.holder.as_ref() == Some(&name(gate));
            if waits.is_none() && doing.is_none() && sent.is_none() && self.rows.iter().any(is_left) {
                steps.push(Step::Recover(gate));
            }
        }
        if self.verdicts_left > 0 {
            for row in 0..self.rows.len() {
                steps.extend([Step::Decide(row, Verdict::Approve), Step::Decide(row, Verdict::Reject)]);
            }
        }
        let is_left = |row: &Row| {
            row.standing.holder.is_none() && matches!(row.standing.state, State::Held | State::Granted)
        };
        steps.extend((0..self.rows.len()).filter(|&row| is_left(&self.rows[row])).map(Step::TakeBack));
        if self.ticks_left > 0 {
            steps.push(Step::Tick);
        }
        steps
    }

    fn answer(&mut self, gate: usize) {
        if self.gates[gate].expects {
            self.gates[gate].answers += 1;
        }
        self.gates[gate].expects = false;
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Call(gate) => self.call(gate),
            Step::Begin(gate) => {
                self.call(gate);
                // What was decided before is not begun; what waits loses its caller in the same breath.
                if let Some(row) = self.gates[gate].waits.take() {
                    self.gates[gate].doing = Some((row, Doing::Detaching));
                }
            }
            Step::Poll(gate, row) => self.poll(gate, row),
            Step::ComeBack(gate, row) => self.come_back(gate, row),
            Step::Cancel(gate) => {
                let own = &mut self.gates[gate];
                (own.cancelled, own.expects) = (true, false);
                if let Some(row) = own.waits.take() {
                    own.doing = Some((row, Doing::Withdrawing));
                }
            }
            Step::Leave(gate) => {
                let row = self.gates[gate].waits.take().unwrap();
                self.gates[gate].doing = Some((row, Doing::Detaching));
            }
            Step::Expire(gate) => {
                let row = self.gates[gate].waits.take().unwrap();
                self.gates[gate].doing = Some((row, Doing::Expiring));
            }
            Step::Decide(row, verdict) => self.decide(row, verdict),
            Step::TakeBack(row) => {
                let row = &mut self.rows[row];
                let has_ended = row.standing.lapse(at(self.now)).is_some();
                assert_ne!(
                    row.standing.take_back(at(self.now)),
                    has_ended,
                    "nobody waits for it, and it has not run"
                );
            }
            Step::Commit(gate) => self.commit(gate),
            Step::Answer(gate) => {
                let row = self.gates[gate].sent.take().unwrap();
                self.rows[row].standing.end(State::Answered).unwrap();
                self.answer(gate);
            }
            Step::Crash(gate) => {
                self.crashes_left -= 1;
                self.gates[gate] = Gate::default();
            }
            Step::Recover(gate) => {
                for row in &mut self.rows {
                    row.standing.recover(&name(gate));
                }
            }
            Step::Tick => {
                (self.now, self.ticks_left) = (self.now + 1, self.ticks_left - 1);
                for row in &mut self.rows {
                    row.standing.lapse(at(self.now));
                }
            }
        }
    }

    /// A call arrives: it finds an earlier one, in the order of the store, or becomes a hold of its own.
    fn call(&mut self, gate: usize) {
        self.calls_left -= 1;
        self.gates[gate] = Gate { expects: true, ..Gate::default() };
        let arrivals: Vec<_> = self.rows.iter().map(|row| row.standing.arrival(at(self.now), true)).collect();
        let unknown = arrivals.iter().position(|arrival| *arrival == Arrival::Unknown);
        let other = arrivals
            .iter()
            .position(|arrival| matches!(arrival, Arrival::Attach | Arrival::Redeem | Arrival::Rejected));
        let Some(found) = unknown.or(other) else {
            let standing = Standing::held(name(gate), at(self.now), at(self.now + HOLD_TICKS));
            self.rows.push(Row { standing, approvals: 0, executions: 0, refused: false });
            self.gates[gate].waits = Some(self.rows.len() - 1);
            return;
        };
        let row = &mut self.rows[found];
        row.standing.lapse(at(self.now));
        row.standing.take(&arrivals[found], &name(gate));
        match arrivals[found] {
            Arrival::Attach => self.gates[gate].waits = Some(found),
            Arrival::Redeem => self.gates[gate].doing = Some((found, Doing::Sending)),
            Arrival::Rejected => {
                row.refused = true;
                self.answer(gate);
            }
            _ => self.answer(gate),
        }
    }

    /// Somebody asks about the task of `at_row`: a grant is redeemed by that, and everything else is only told.
    fn poll(&mut self, gate: usize, at_row: usize) {
        self.calls_left -= 1;
        let row = &mut self.rows[at_row];
        row.standing.lapse(at(self.now));
        if row.standing.arrival(at(self.now), true) != Arrival::Redeem {
            return;
        }
        row.standing.take(&Arrival::Redeem, &name(gate));
        // The question is answered at once; the answer to the call is kept.
        self.gates[gate] = Gate { doing: Some((at_row, Doing::Sending)), ..Gate::default() };
    }

    /// A call comes back with a state: it finds its own row, or hears how that ended, and never becomes a hold of its own.
    fn come_back(&mut self, gate: usize, at_row: usize) {
        self.calls_left -= 1;
        self.gates[gate] = Gate { expects: true, ..Gate::default() };
        let row = &mut self.rows[at_row];
        row.standing.lapse(at(self.now));
        let arrival = row.standing.arrival(at(self.now), true);
        row.standing.take(&arrival, &name(gate));
        match arrival {
            Arrival::Attach => self.gates[gate].waits = Some(at_row),
            Arrival::Redeem => self.gates[gate].doing = Some((at_row, Doing::Sending)),
            Arrival::Rejected => {
                row.refused = true;
                self.answer(gate);
            }
            // It has ended, is unknown, is with the server, or has a caller: that is told.
            _ => self.answer(gate),
        }
    }

    fn decide(&mut self, row: usize, verdict: Verdict) {
        self.verdicts_left -= 1;
        // In the table of a gate, the claim; elsewhere the record, which refuses what has a caller or has ended.
        if let Some(gate) = (0..2).find(|&gate| self.gates[gate].waits == Some(row)) {
            self.gates[gate].waits = None;
            self.gates[gate].doing = Some((row, Doing::Deciding(verdict)));
        } else if self.rows[row]
            .standing
            .decide(verdict, at(self.now), at(self.now + GRANT_TICKS))
            .is_ok_and(|state| state == State::Granted)
        {
            self.rows[row].approvals += 1;
        }
    }

    /// The next write of a gate, and what follows it.
    fn commit(&mut self, gate: usize) {
        let (at_row, doing) = self.gates[gate].doing.take().unwrap();
        let row = &mut self.rows[at_row];
        let is_over = row.standing.expires_at <= at(self.now);
        match doing {
            Doing::Deciding(_) if is_over => {
                row.standing.end(State::Expired).unwrap();
                row.refused = true;
                self.answer(gate);
            }
            Doing::Deciding(Verdict::Reject) => {
                row.standing.end(State::Rejected).unwrap();
                row.refused = true;
                self.answer(gate);
            }
            Doing::Deciding(Verdict::Approve) => {
                row.standing.end(State::Forwarding).unwrap();
                row.approvals += 1;
                self.gates[gate].doing = Some((at_row, Doing::Sending));
            }
            Doing::Sending if self.gates[gate].cancelled => row.standing.end(State::Withdrawn).unwrap(),
            Doing::Sending => {
                row.executions += 1;
                self.gates[gate].sent = Some(at_row);
            }
            Doing::Withdrawing => row.standing.end(State::Withdrawn).unwrap(),
            Doing::Detaching => {
                assert!(
                    row.standing.detach(&name(gate)),
                    "nothing else ends what is on its way out of the table"
                );
                self.answer(gate);
            }
            Doing::Expiring => {
                row.standing.end(State::Expired).unwrap();
                row.refused = true;
                self.answer(gate);
            }
        }
    }

    /// What must be true of every state.
    fn check(&self) -> Result<(), String> {
        for row in &self.rows {
            let state = row.standing.state;
            if row.executions > 1 {
                return Err(format!("it ran {} times", row.executions));
            }
            if row.executions > 0 && row.approvals == 0 {
                return Err("it ran, and nobody had approved it".to_owned());
            }
            if row.executions > 0 && row.refused {
                return Err("it ran, and a client has heard that it does not".to_owned());
            }
            let cannot_have_run = matches!(
                state,
                State::Held
                    | State::Granted
                    | State::Rejected
                    | State::Expired
                    | State::Withdrawn
                    | State::Lapsed
                    | State::NotRun
            );
            if cannot_have_run && row.executions > 0 {
                return Err(format!("it ran, and is {state}"));
            }
            if state == State::Answered && row.executions != 1 {
                return Err("it was answered, and did not run".to_owned());
            }
        }
        for gate in &self.gates {
            if gate.answers > 1 {
                return Err(format!("{} answers to one request", gate.answers));
            }
        }
        Ok(())
    }
}

#[test]
fn no_order_of_events_runs_a_call_twice_or_without_approval() {
    // Many attempts and one verdict; racing verdicts and few attempts; time.
    let worlds = [[3, 1, 1, 0], [2, 2, 1, 1], [2, 1, 0, 2]].map(World::of);
    let mut known = HashSet::from(worlds.clone());
    let mut queue = VecDeque::from(worlds);
    let mut ends = HashSet::new();
    let mut redeemed = false;
    while let Some(world) = queue.pop_front() {
        for step in world.steps() {
            let mut next = world.clone();
            next.take(step);
            if let Err(fault) = next.check() {
                panic!("{fault}: after {step:?}, {next:#?}");
            }
            redeemed |= next.rows.iter().any(|row| row.executions == 1 && row.standing.lapses_at.is_some());
            ends.extend(next.rows.iter().map(|row| row.standing.state));
            if known.insert(next.clone()) {
                queue.push_back(next);
            }
        }
    }
    assert!(known.len() > 5_000, "{} states", known.len());
    assert!(redeemed, "a grant was redeemed on the way");
    for state in State::ALL {
        let is_met = ends.contains(&state);
        // These come from outside: a person who has looked, a gate that cannot write.
        let is_outside = matches!(state, State::Ran | State::NotRun | State::Unavailable);
        assert_eq!(is_met, !is_outside, "{state} is met");
    }
}
