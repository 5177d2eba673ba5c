//! Where a hold stands and how it may move: the whole state machine, without a clock, a disk or a process.
//!
//! `store` applies these moves inside its transactions, so that of all processes on a record one wins each of them; the
//! model in `tests/it/model.rs` plays them in every order. Nothing here waits, writes or decides who may do what.

use std::{fmt, sync::Arc};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Cause, Verdict};

/// Where a hold stands, durably.
///
/// `Held → Forwarding | Granted | Rejected | Expired | Withdrawn | Unavailable`, `Granted → Forwarding | Lapsed | Rejected |
/// Withdrawn`, `Forwarding → Answered | Unknown | Withdrawn` (the last only while not one byte has gone upstream) and
/// `Unknown → Ran | NotRun`.
///
/// An approval and the permission to forward are one commit, so there is no durable state between them: an approved call is
/// `Forwarding` if its caller is there, and `Granted` if not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Waits for people.
    Held,
    /// Approved while no caller was there: the same call, made again in time, runs without asking anybody.
    Granted,
    /// Approved; the server may have it. Entered at most once, before the first byte goes upstream.
    Forwarding,
    /// Approved and answered by the server.
    Answered,
    /// Approved, and nobody knows whether it ran: the server or the gate died before the answer. Never sent again.
    Unknown,
    /// It was unknown, and a person has found out that it ran.
    Ran,
    /// It was unknown, and a person has found out that it did not run.
    NotRun,
    /// Approved, and the call was not made again in time. It did not run.
    Lapsed,
    /// A person said no.
    Rejected,
    /// Nobody answered in time.
    Expired,
    /// The client took it back or went away before it ran.
    Withdrawn,
    /// The gate could not keep its promises; it did not run.
    Unavailable,
}

impl State {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::Held,
        Self::Granted,
        Self::Forwarding,
        Self::Answered,
        Self::Unknown,
        Self::Ran,
        Self::NotRun,
        Self::Lapsed,
        Self::Rejected,
        Self::Expired,
        Self::Withdrawn,
        Self::Unavailable,
    ];

    /// The word in the record and in JSON.
    pub fn word(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::Granted => "granted",
            Self::Forwarding => "forwarding",
            Self::Answered => "answered",
            Self::Unknown => "unknown",
            Self::Ran => "ran",
            Self::NotRun => "not_run",
            Self::Lapsed => "lapsed",
            Self::Rejected => "rejected",
            Self::Expired => "expired",
            Self::Withdrawn => "withdrawn",
            Self::Unavailable => "unavailable",
        }
    }

    /// What is true of a hold in this state on which nothing can be said, or not this.
    pub fn too_late(self) -> String {
        let told = match self {
            Self::Held => "this hold waits still: nobody has decided on it",
            Self::Granted => {
                "this hold was approved already: it is granted, and the call runs when it is made again"
            }
            Self::Forwarding => {
                "this hold was approved already: it is forwarding, so the server may have the call and has not answered"
            }
            Self::Unknown => {
                "this hold was approved already: it is unknown, so nobody knows whether the call ran (`holdshort resolve` says it)"
            }
            _ => return format!("this hold has ended already: it is {self}"),
        };
        told.to_owned()
    }

    /// The state that [`State::word`] names.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.word() == word)
    }

    /// Whether a hold in this state may move to `next`. Everything not listed in [`State`] is refused.
    pub fn may_become(self, next: Self) -> bool {
        match self {
            Self::Held => matches!(
                next,
                Self::Granted
                    | Self::Forwarding
                    | Self::Rejected
                    | Self::Expired
                    | Self::Withdrawn
                    | Self::Unavailable
            ),
            Self::Granted => {
                matches!(next, Self::Forwarding | Self::Lapsed | Self::Rejected | Self::Withdrawn)
            }
            Self::Forwarding => matches!(next, Self::Answered | Self::Unknown | Self::Withdrawn),
            Self::Unknown => matches!(next, Self::Ran | Self::NotRun),
            _ => false,
        }
    }

    /// Whether something may still become of a hold in this state.
    pub fn is_open(self) -> bool {
        matches!(self, Self::Held | Self::Granted | Self::Forwarding | Self::Unknown)
    }

    /// The state in which a refusal for `cause` ends.
    pub fn refused(cause: Cause) -> Self {
        match cause {
            Cause::Rejected => Self::Rejected,
            Cause::Expired => Self::Expired,
            Cause::Withdrawn => Self::Withdrawn,
            Cause::Unavailable => Self::Unavailable,
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// How far apart the clocks of machines on one record may be, in seconds.
const CLOCKS_APART_SECONDS_MAX: i64 = 300;

/// All that the moves of a hold depend on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Standing {
    /// Its state.
    pub state: State,
    /// The process that has the caller (held) or has sent the call (forwarding); none: it is detached.
    pub holder: Option<Arc<str>>,
    /// When it was held.
    pub since: Timestamp,
    /// When it expires unless decided.
    pub expires_at: Timestamp,
    /// When a grant, or the memory of a rejection that nobody has heard, ends.
    pub lapses_at: Option<Timestamp>,
    /// Whether a caller that makes the call again finds this hold.
    pub is_awaited: bool,
}

/// What a call that arrives is to an earlier one of the same content.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Arrival {
    /// It is the caller that the hold has been waiting for: nobody is asked again.
    Attach,
    /// It may run: it redeems the grant.
    Redeem,
    /// It hears the rejection that nobody was there to hear.
    Rejected,
    /// It is not sent, because nobody knows whether the earlier one ran.
    Unknown,
    /// The earlier one waits with a caller at this process.
    Attached(Arc<str>),
    /// This process has sent the earlier one, which has no answer yet.
    Running(Arc<str>),
    /// Nothing: it is a call of its own.
    Nothing,
}

impl Standing {
    /// A call that is held with a caller at `holder`.
    pub fn held(holder: Arc<str>, since: Timestamp, expires_at: Timestamp) -> Self {
        Self {
            state: State::Held,
            holder: Some(holder),
            since,
            expires_at,
            lapses_at: None,
            is_awaited: true,
        }
    }

    /// The process that has the call moves it on, at once or at the end.
    ///
    /// # Errors
    /// The state that it has, if that may not become `next`.
    pub fn end(&mut self, next: State) -> Result<(), State> {
        // Only a process that has the caller sends a call: a grant is redeemed by `take`.
        let is_sent = next != State::Forwarding || (self.state == State::Held && self.holder.is_some());
        if !self.state.may_become(next) || !is_sent {
            return Err(self.state);
        }
        self.state = next;
        if next != State::Forwarding {
            self.holder = None;
        }
        // What may have run or is running is not to be started again by accident; all other ends are over.
        self.is_awaited = matches!(next, State::Forwarding | State::Unknown | State::Granted);
        Ok(())
    }

    /// The caller at `holder` is gone. `false`: it was not there, or the call is no longer held.
    pub fn detach(&mut self, holder: &str) -> bool {
        let is_there = self.state == State::Held && self.holder.as_deref() == Some(holder);
        if is_there {
            self.holder = None;
        }
        is_there
    }

    /// The call at `holder` has ended in `next`, which could not be recorded when it came; nothing of it was sent. `false`: it has ended
    /// already, or is with another process.
    pub fn end_late(&mut self, holder: &str, next: State) -> bool {
        // An approval that may have been recorded or not may turn out to have been.
        let next = if self.state == State::Forwarding { State::Withdrawn } else { next };
        self.holder.as_deref() == Some(holder) && self.end(next).is_ok()
    }

    /// A person decides while no caller is there; a grant or the memory of a rejection lasts until `lapses_at`.
    ///
    /// # Errors
    /// [`NotDetached`], if it has a caller or has ended.
    pub fn decide(
        &mut self,
        verdict: Verdict,
        now: Timestamp,
        lapses_at: Timestamp,
    ) -> Result<State, NotDetached> {
        self.lapse(now);
        match (self.state, &self.holder, verdict) {
            (State::Held, Some(holder), _) => return Err(NotDetached::Attached(Arc::clone(holder))),
            (State::Held, None, Verdict::Approve) => self.state = State::Granted,
            // Somebody thinks better of it, while it is not too late.
            (State::Held, None, Verdict::Reject) | (State::Granted, _, Verdict::Reject) => {
                self.state = State::Rejected;
            }
            (state, ..) => return Err(NotDetached::Ended(state)),
        }
        self.lapses_at = Some(lapses_at);
        self.is_awaited = true;
        Ok(self.state)
    }

    /// Whoever made the call takes it back after having gone. `false`: it has a caller again, or has ended.
    pub fn take_back(&mut self, now: Timestamp) -> bool {
        self.lapse(now);
        let is_left = match self.state {
            State::Held => self.holder.is_none(),
            State::Granted => true,
            _ => false,
        };
        if is_left {
            self.state = State::Withdrawn;
            self.is_awaited = false;
        }
        is_left
    }

    /// Lets time pass: what nobody decided expires if nobody keeps it, and what nobody came back for lapses. Before it was held is
    /// no time for it either: whoever sets a clock back makes no wait longer. Gives the new state, if there is one.
    pub fn lapse(&mut self, now: Timestamp) -> Option<State> {
        let is_set_back = now.duration_until(self.since).as_secs() > CLOCKS_APART_SECONDS_MAX;
        let has_lapsed = self.lapses_at.is_some_and(|lapses_at| is_set_back || lapses_at <= now);
        let has_expired = is_set_back || self.expires_at <= now;
        match self.state {
            State::Held if self.holder.is_none() && has_expired => self.state = State::Expired,
            State::Granted if has_lapsed => self.state = State::Lapsed,
            State::Rejected if has_lapsed => {
                self.is_awaited = false;
                return None;
            }
            _ => return None,
        }
        self.is_awaited = false;
        Some(self.state)
    }

    /// The same call is made again, at `now`. `binds`: it has the terms and the tool definition under which this one was
    /// held; without them nothing of what was decided counts for it. Changes nothing: see [`Standing::take`].
    pub fn arrival(&self, now: Timestamp, binds: bool) -> Arrival {
        let mut then = self.clone();
        then.lapse(now);
        if !then.is_awaited {
            return Arrival::Nothing;
        }
        match (then.state, then.holder) {
            // Whatever has changed since: it may have run.
            (State::Unknown, _) => Arrival::Unknown,
            (State::Forwarding, Some(holder)) => Arrival::Running(holder),
            (State::Held, Some(holder)) => Arrival::Attached(holder),
            (State::Held, None) if binds => Arrival::Attach,
            (State::Granted, _) if binds => Arrival::Redeem,
            (State::Rejected, _) if binds => Arrival::Rejected,
            _ => Arrival::Nothing,
        }
    }

    /// Lets a call at `holder` have what [`Standing::arrival`] promised it. Gives the new state, if there is one.
    pub fn take(&mut self, arrival: &Arrival, holder: &Arc<str>) -> Option<State> {
        match arrival {
            Arrival::Attach => self.holder = Some(Arc::clone(holder)),
            Arrival::Redeem => {
                self.state = State::Forwarding;
                self.holder = Some(Arc::clone(holder));
                return Some(State::Forwarding);
            }
            // Once told, it is over: the same call again asks people again.
            Arrival::Rejected => self.is_awaited = false,
            _ => {}
        }
        None
    }

    /// The process `dead` is no more. What it kept is detached; of what it had sent, nobody knows whether it ran. Gives
    /// whether anything has changed.
    pub fn recover(&mut self, dead: &str) -> bool {
        if self.holder.as_deref() != Some(dead) {
            return false;
        }
        self.holder = None;
        if self.state == State::Forwarding {
            self.state = State::Unknown;
        }
        true
    }
}

/// Why a verdict on a hold without a caller has no effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotDetached {
    /// It has a caller, at this process, which has to hear of it.
    Attached(Arc<str>),
    /// It has ended, in this state.
    Ended(State),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_is_forwarded_once_and_an_end_is_an_end() {
        use State::{Answered, Expired, Forwarding, Granted, Held, Lapsed, NotRun, Ran};
        for state in State::ALL {
            assert_eq!(State::from_word(state.word()), Some(state));
            assert_eq!(serde_json::to_string(&state).unwrap(), format!("\"{}\"", state.word()));
            assert!(!state.may_become(Held), "nothing is held twice");
            assert_eq!(state.may_become(Forwarding), matches!(state, Held | Granted), "{state}");
            let is_end = State::ALL.iter().all(|&next| !state.may_become(next));
            assert_eq!(is_end, !state.is_open(), "{state}");
        }
        assert!(
            !Held.may_become(Answered) && !Held.may_become(State::Unknown),
            "not without being forwarded"
        );
        assert!(!Held.may_become(Lapsed) && !Granted.may_become(Expired));
        assert!(!Ran.may_become(NotRun), "who has looked has looked");
    }

    #[test]
    fn an_end_that_comes_late_counts_only_for_the_process_that_still_has_the_call() {
        let now = Timestamp::UNIX_EPOCH;
        let held = || Standing::held("gate".into(), now, now);
        for (state, holder, expected) in [
            (State::Held, "gate", Some(State::Unavailable)),
            // The approval was recorded after all, and nothing was sent.
            (State::Forwarding, "gate", Some(State::Withdrawn)),
            (State::Held, "other", None),
            (State::Forwarding, "other", None),
            (State::Answered, "gate", None),
        ] {
            let mut standing = Standing { state, ..held() };
            assert_eq!(standing.end_late(holder, State::Unavailable), expected.is_some(), "{state} {holder}");
            assert_eq!(standing.state, expected.unwrap_or(state));
        }
    }

    #[test]
    fn a_clock_that_leaps_makes_no_wait_without_a_caller_longer() {
        let (since, minute) =
            ("2026-11-21T10:00:00Z".parse::<Timestamp>().unwrap(), jiff::SignedDuration::from_mins);
        let held = || Standing { holder: None, ..Standing::held("gate".into(), since, since + minute(30)) };
        let (decade, apart) = (minute(60 * 24 * 3652), minute(CLOCKS_APART_SECONDS_MAX / 60));
        for (now, state) in [
            (since + minute(29), None),
            (since - apart, None),
            (since - apart - minute(1), Some(State::Expired)),
            (since - decade, Some(State::Expired)),
            (since + decade, Some(State::Expired)),
        ] {
            assert_eq!(held().lapse(now), state, "{now}");
            let decided = held().decide(Verdict::Approve, now, now + minute(30));
            assert_eq!(decided.is_ok(), state.is_none(), "{now}");
        }
        let mut granted = held();
        granted.decide(Verdict::Approve, since + minute(1), since + minute(31)).unwrap();
        assert_eq!(granted.arrival(since + minute(2), true), Arrival::Redeem);
        assert_eq!(granted.arrival(since - decade, true), Arrival::Nothing);
        assert_eq!(granted.lapse(since - decade), Some(State::Lapsed));
    }
}
