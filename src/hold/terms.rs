//! Who has to say yes before a held call may run: seats that different people fill, and whom silence brings in.
//!
//! A part of `hold`. Set by `policy`, kept with the record of a hold, counted by `gate`. Pure: who fits a seat is told by the
//! caller, and what time it is too.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};

use super::Assurance;

/// The most people that one seat may ask for.
pub const SEAT_PEOPLE_MAX: u32 = 20;

/// What the rules that hold a call ask for together, as the record keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quorum {
    /// What each of the rules asks for; none where one person is enough for all of them.
    pub requirements: Vec<Requirement>,
    /// How many different people it takes to reject, at least 1.
    pub required_rejections: u32,
    /// How often whoever may decide is reminded, in seconds.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub remind_seconds: Option<u64>,
    /// How an approval may be remembered, if at all.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub remember: Option<Remember>,
    /// Whether whoever approves may change the arguments.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub may_edit: bool,
    /// How long an approval counts that no caller was there for, in seconds, where the rules say.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub grant_seconds: Option<u64>,
    /// Whether the agent's own client may ask its user.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub may_elicit: bool,
    /// The channels that the rules name; none: those that the desk uses where nobody says.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub notify: Vec<Box<str>>,
}

impl Quorum {
    /// Whom the steps of an escalation bring in that begin after `heard` and not after `waited`.
    pub fn brought_in(&self, heard: Duration, waited: Duration) -> Vec<&str> {
        let steps = self.requirements.iter().flat_map(|requirement| &requirement.steps);
        let begun =
            |step: &&Step| step.after_seconds > heard.as_secs() && step.after_seconds <= waited.as_secs();
        steps.filter(begun).flat_map(|step| &step.to).map(|name| &**name).collect()
    }

    /// When whoever may decide is to hear of it again, after `waited`: the next step of an escalation, or a reminder. Gives
    /// how long after the call was held that is.
    pub fn next_alarm(&self, waited: Duration) -> Option<Duration> {
        let steps = self.requirements.iter().flat_map(|requirement| &requirement.steps);
        let step = steps.map(|step| step.after_seconds).filter(|after| *after > waited.as_secs()).min();
        let remind = self
            .remind_seconds
            .filter(|every| *every > 0)
            .map(|every| (waited.as_secs() / every + 1) * every);
        [step, remind].into_iter().flatten().min().map(Duration::from_secs)
    }

    /// Whether the channel `name` hears of the call, `waited` after it was held. `is_usual`: whether it does where no rule
    /// names a channel.
    pub fn notifies(&self, name: &str, is_usual: bool, waited: Duration) -> bool {
        let steps = self.requirements.iter().flat_map(|requirement| &requirement.steps);
        let begun = steps.filter(|step| step.after_seconds <= waited.as_secs());
        let named = self.notify.iter().any(|named| &**named == name);
        named
            || (is_usual && self.notify.is_empty())
            || begun.flat_map(|step| &step.notify).any(|named| &**named == name)
    }
}

/// What one rule asks for. A call that several rules hold needs what each of them asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Requirement {
    /// The rule.
    pub rule: Box<str>,
    /// The seats; none: one person, whoever may decide.
    pub seats: Vec<Seat>,
    /// Who may fill the seats too, once nobody has answered for so long.
    pub steps: Vec<Step>,
    /// Whether only signed approvals count.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub signed: bool,
    /// How far an approval has to be trusted at least, to count.
    #[serde(skip_serializing_if = "is_least", default)]
    pub min_assurance: Assurance,
}

fn is_least(assurance: &Assurance) -> bool {
    *assurance == Assurance::L0
}

/// Places for people of certain roles.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seat {
    /// Roles, teams or people, any of which will do; none: everyone who may decide.
    pub approvers: Vec<Box<str>>,
    /// How many different people, 1 to [`SEAT_PEOPLE_MAX`].
    pub people: u32,
}

/// A step of an escalation. It adds people who may decide; it never lowers how many have to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// When it begins, in seconds from the moment when the call was held.
    pub after_seconds: u64,
    /// Roles, teams or people.
    pub to: Vec<Box<str>>,
    /// The channels that hear of it from then on too.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub notify: Vec<Box<str>>,
}

/// How an approval may be remembered, where the policy allows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remember {
    /// For how long at most.
    pub seconds_max: u64,
    /// Whether other arguments of the same tool may be covered too.
    pub whole_tool: bool,
    /// How many calls one may cover.
    pub uses_max: u32,
}

/// How much a remembered approval covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Same {
    /// The same tool with the same arguments.
    Arguments,
    /// The same tool.
    Tool,
}

impl Same {
    /// The word in policies, on the command line and in the record.
    pub fn word(self) -> &'static str {
        match self {
            Self::Arguments => "arguments",
            Self::Tool => "tool",
        }
    }

    /// What [`Same::word`] names.
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Arguments, Self::Tool].into_iter().find(|same| same.word() == word)
    }
}

impl Remember {
    /// What both of two rules allow.
    #[must_use]
    pub fn both(self, other: Self) -> Self {
        Self {
            seconds_max: self.seconds_max.min(other.seconds_max),
            whole_tool: self.whole_tool && other.whole_tool,
            uses_max: self.uses_max.min(other.uses_max),
        }
    }
}

impl Requirement {
    /// Those whom silence has brought in, `waited` after the call was held.
    fn escalated(&self, waited: Duration) -> impl Iterator<Item = &str> {
        let begun = move |step: &&Step| step.after_seconds <= waited.as_secs();
        self.steps.iter().filter(begun).flat_map(|step| &step.to).map(|name| &**name)
    }

    /// Whether it asks for more than somebody's word: a signature, or an assurance.
    pub fn wants_proof(&self) -> bool {
        self.signed || self.min_assurance > Assurance::L0
    }

    /// Whether an approval counts only if it is signed. (Where the agent cannot reach the gate, L1 is reached without that too.)
    pub fn needs_signature(&self) -> bool {
        self.signed || self.min_assurance == Assurance::L1 || self.min_assurance.needs_key()
    }

    /// Whether a person may fill any of the seats. `is` tells whether they are a role, a team or a person by that name.
    pub fn concerns(&self, waited: Duration, is: &dyn Fn(&str) -> bool) -> bool {
        self.seats.is_empty() || self.seats.iter().any(|seat| self.fits(seat, waited, is))
    }

    fn fits(&self, seat: &Seat, waited: Duration, is: &dyn Fn(&str) -> bool) -> bool {
        seat.approvers.is_empty()
            || seat.approvers.iter().any(|name| is(name))
            || self.escalated(waited).any(is)
    }

    /// Whether `people`, all different, can fill every seat, each of them one place. `is` tells whether a person is a role, a
    /// team or a person by that name.
    pub fn is_filled<P>(&self, people: &[P], waited: Duration, is: &dyn Fn(&P, &str) -> bool) -> bool {
        if self.seats.is_empty() {
            return !people.is_empty();
        }
        let places: Vec<&Seat> =
            self.seats.iter().flat_map(|seat| std::iter::repeat_n(seat, seat.people as usize)).collect();
        if people.len() < places.len() {
            return false;
        }
        let fits = |person: &P, seat: &Seat| self.fits(seat, waited, &|name| is(person, name));
        let fits: Vec<Vec<bool>> =
            places.iter().map(|seat| people.iter().map(|person| fits(person, seat)).collect()).collect();
        let mut taken: Vec<Option<usize>> = vec![None; people.len()];
        (0..places.len()).all(|place| find_person(place, &fits, &mut taken, &mut vec![false; people.len()]))
    }
}

/// Finds a person for `place`, moving others to other places where they fit as well.
fn find_person(place: usize, fits: &[Vec<bool>], taken: &mut [Option<usize>], tried: &mut [bool]) -> bool {
    for person in 0..taken.len() {
        if !fits[place][person] || tried[person] {
            continue;
        }
        tried[person] = true;
        let is_free = match taken[person] {
            None => true,
            Some(other) => find_person(other, fits, taken, tried),
        };
        if is_free {
            taken[person] = Some(place);
            return true;
        }
    }
    false
}

impl fmt::Display for Requirement {
    /// `2 of finance, 1 of security (after 10m also on-call)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.seats.is_empty() {
            f.write_str("1 person")?;
        }
        for (at, seat) in self.seats.iter().enumerate() {
            let comma = if at > 0 { ", " } else { "" };
            if seat.approvers.is_empty() {
                let noun = if seat.people == 1 { "person" } else { "people" };
                write!(f, "{comma}{} {noun}", seat.people)?;
            } else {
                write!(f, "{comma}{} of {}", seat.people, seat.approvers.join(" or "))?;
            }
        }
        for step in &self.steps {
            write!(f, " (after {} s also {})", step.after_seconds, step.to.join(" or "))?;
        }
        if self.signed {
            f.write_str(", signed")?;
        }
        if self.min_assurance > Assurance::L0 {
            write!(f, ", at least {}", self.min_assurance)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seat(approvers: &[&str], people: u32) -> Seat {
        Seat { approvers: approvers.iter().map(|&name| name.into()).collect(), people }
    }

    fn asks(seats: Vec<Seat>) -> Requirement {
        Requirement {
            rule: "r".into(),
            seats,
            steps: Vec::new(),
            signed: false,
            min_assurance: Assurance::L0,
        }
    }

    /// People as lists of what they are.
    fn filled(requirement: &Requirement, people: &[&[&str]], waited: u64) -> bool {
        requirement.is_filled(people, Duration::from_secs(waited), &|person, name| person.contains(&name))
    }

    #[test]
    fn different_people_fill_different_seats() {
        let both = asks(vec![seat(&["finance"], 1), seat(&["security"], 1)]);
        assert!(!filled(&both, &[&["finance", "security"]], 0), "one person is one person");
        assert!(
            filled(&both, &[&["finance", "security"], &["finance"]], 0),
            "whoever can do both takes the other seat"
        );
        assert!(filled(&both, &[&["finance"], &["security", "finance"]], 0));
        assert!(!filled(&both, &[&["finance"], &["finance"]], 0));
        let two = asks(vec![seat(&["finance", "security"], 2)]);
        assert!(
            filled(&two, &[&["finance"], &["security"]], 0) && !filled(&two, &[&["finance"], &["sales"]], 0)
        );
        assert!(filled(&asks(Vec::new()), &[&[]], 0) && !filled(&asks(Vec::new()), &[], 0));
    }

    #[test]
    fn a_step_brings_in_others_and_asks_for_no_fewer() {
        let mut two = asks(vec![seat(&["finance"], 2)]);
        two.steps.push(Step { after_seconds: 60, to: vec!["on-call".into()], notify: Vec::new() });
        assert!(!filled(&two, &[&["finance"], &["on-call"]], 59));
        assert!(filled(&two, &[&["finance"], &["on-call"]], 60));
        assert!(!filled(&two, &[&["on-call"]], 3600));
    }
}
