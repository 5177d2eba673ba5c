//! What a rule says of the people who decide: how many, of which role, for how long, and what silence brings.
//!
//! A part of reading a document: the keys of a rule that holds. Whether such people exist is checked by `people`.

use std::{ops::Range, time::Duration};

use crate::hold::{
    Assurance, HOLD_TIMEOUT_DEFAULT, HoldTerms, OnRejection, Remember, Requirement, SEAT_PEOPLE_MAX, Seat,
    Step,
};

use super::{
    Diagnostic, Effect,
    document::{Keys, Reader},
    yaml::{Node, Value},
};

/// How long people have when a rule does not say.
pub const TIMEOUT_DEFAULT: Duration = HOLD_TIMEOUT_DEFAULT;
/// The shortest time that people can be given.
pub const TIMEOUT_MIN: Duration = Duration::from_secs(1);
/// The longest time that people can be given.
pub const TIMEOUT_MAX: Duration = Duration::from_secs(7 * 24 * 3600);
/// The longest hold message, in characters: clients show it beside a spinner.
pub const HOLD_MESSAGE_CHARS_MAX: usize = 300;
/// The most seats of one rule.
pub(super) const SEATS_MAX: usize = 10;
/// The most names that may fill a seat.
pub(super) const APPROVERS_MAX: usize = 50;
/// The most steps of an escalation.
pub(super) const STEPS_MAX: usize = 10;
/// The longest that an approval may be remembered.
pub const REMEMBER_MAX: Duration = Duration::from_secs(8 * 3600);
/// Calls that one remembered approval may cover where a rule does not say.
pub(super) const REMEMBER_USES_DEFAULT: u32 = 20;
/// The most calls that one remembered approval may cover.
pub const REMEMBER_USES_MAX: u32 = 1_000;
/// The shortest time for which an approval without a caller counts.
pub const GRANT_MIN: Duration = Duration::from_secs(60);
/// The longest time for which an approval without a caller counts.
pub const GRANT_MAX: Duration = Duration::from_secs(7 * 24 * 3600);
/// Reminders come at most this often.
pub const REMIND_MIN: Duration = Duration::from_secs(60);

pub(super) const SEAT_KEYS: [&str; 2] = ["approvers", "approvals"];
pub(super) const STEP_KEYS: [&str; 3] = ["to", "timeout", "notify"];
/// The most channels of one rule.
pub(super) const CHANNELS_MAX: usize = 20;

pub(super) const REMEMBER_KEYS: [&str; 3] = ["for", "same", "uses"];

/// Keys that only a rule that holds has.
pub(super) const HOLD_KEYS: [&str; 16] = [
    "timeout",
    "on_timeout",
    "hold_message",
    "approvers",
    "required_approvals",
    "required_rejections",
    "requires",
    "escalate",
    "remind",
    "remember",
    "edit",
    "notify",
    "signed",
    "min_assurance",
    "grant",
    "elicitation",
];

impl Reader<'_> {
    /// The terms of a rule, and where it says who decides.
    pub(super) fn terms(
        &mut self,
        keys: &mut Keys<'_>,
        name: &str,
        effect: Option<Effect>,
        rule: &Node,
    ) -> Option<(HoldTerms, Range<usize>)> {
        let before = self.problems.len();
        let nodes = HOLD_KEYS.map(|key| (key, keys.take(key)));
        for (key, node) in nodes {
            self.only_for(key, node, effect, &[Effect::Hold]);
        }
        let [
            timeout,
            on_timeout,
            message,
            approvers,
            approvals,
            rejections,
            requires,
            escalate,
            remind,
            remember,
            edit,
            notify,
            signed,
            min_assurance,
            grant,
            elicitation,
        ] = nodes.map(|(_, node)| node);
        let on_rejection = keys.take("on_rejection");
        self.only_for("on_rejection", on_rejection, effect, &[Effect::Hold, Effect::Deny]);
        let on_rejection = self.on_rejection(on_rejection);
        let first = timeout
            .map_or(Some(TIMEOUT_DEFAULT), |node| self.timeout(node, "timeout", TIMEOUT_MIN, TIMEOUT_MAX));
        let seats = self.seats(approvers, approvals, requires);
        let (steps, total) = self.steps(on_timeout, escalate, first?);
        let required_rejections =
            rejections.map_or(Some(1), |node| self.count(node, "required_rejections", SEAT_PEOPLE_MAX));
        let remind = remind.and_then(|node| self.timeout(node, "remind", REMIND_MIN, TIMEOUT_MAX));
        let remember = remember.and_then(|node| self.remember(node));
        let may_edit = edit.and_then(|node| self.flag(node, "edit")).unwrap_or_default();
        let notify = notify.map_or_else(Vec::new, |node| self.channels(node));
        let signed = signed.and_then(|node| self.flag(node, "signed")).unwrap_or_default();
        let min_assurance = min_assurance.map_or(Assurance::L0, |node| self.assurance(node));
        let grant = grant.and_then(|node| self.timeout(node, "grant", GRANT_MIN, GRANT_MAX));
        let may_elicit = elicitation.and_then(|node| self.flag(node, "elicitation")).unwrap_or_default();
        let hold_message = message.and_then(|node| self.line(node, "hold_message", HOLD_MESSAGE_CHARS_MAX));
        let place = approvers.or(requires).or(approvals).or(escalate).or(nodes[12].1).or(nodes[13].1);
        let span = place.map_or(rule.span.start..rule.span.start, |node| node.span.clone());
        if seats.iter().map(|seat| seat.people).sum::<u32>() > 1 {
            if remember.is_some() {
                let hint = "take `remember` out, or ask for one person";
                let message = "an approval that several people give is not remembered";
                self.fail("P0506", span.clone(), message, hint);
            }
            if may_edit {
                let hint = "take `edit` out, or ask for one person";
                let message =
                    "a call that several people approve is not edited: all of them vote on one call";
                self.fail("P0506", span.clone(), message, hint);
            }
        }
        let wants_proof = signed || min_assurance > Assurance::L0;
        if wants_proof && (remember.is_some() || may_edit) {
            let hint = "take `remember` and `edit` out, or do without `signed` and `min_assurance`";
            let message =
                "what has to be proven is the call as it was made, once: neither remembered nor edited";
            self.fail("P0506", span.clone(), message, hint);
        }
        let asks = !seats.is_empty() || !steps.is_empty() || wants_proof;
        if let Some(node) = elicitation.filter(|_| may_elicit) {
            self.may_elicit(node, asks || required_rejections.is_some_and(|people| people > 1));
        }
        if self.problems[before..].iter().any(|found| found.severity() == super::Severity::Error) {
            return None;
        }
        let requirement = Requirement { rule: name.into(), seats, steps, signed, min_assurance };
        let terms = HoldTerms {
            timeout: total,
            hold_message: hold_message.map(Into::into),
            on_rejection,
            requirements: if asks { vec![requirement] } else { Vec::new() },
            required_rejections: required_rejections?,
            remind,
            notify,
            remember,
            may_edit,
            grant,
            may_elicit,
        };
        Some((terms, span))
    }

    /// The agent's own client may ask its user; `asks`: the rule asks for certain people.
    fn may_elicit(&mut self, node: &Node, asks: bool) {
        if asks {
            let hint = "take `elicitation` out, or do not say who decides";
            let message = "the agent's own client cannot answer for the people that the rule asks for";
            self.fail("P0510", node.span.clone(), message, hint);
            return;
        }
        let message = "whoever is at the agent's client may approve its calls: that is no second person";
        let hint = "fine on one's own machine; elsewhere say who decides: `approvers: [finance]`";
        let found = Diagnostic::warning("P0209", self.source, node.span.clone(), message);
        self.problems.push(found.hint(hint.to_owned()));
    }

    /// Names of channels. Which there are is for the desk's configuration to say.
    fn channels(&mut self, node: &Node) -> Vec<Box<str>> {
        let names = self.words(node, "notify", CHANNELS_MAX);
        for odd in names.iter().filter(|name| !crate::hold::is_channel_name(name)) {
            let hint = "write the name that it has below `channels:` in the configuration of the desk";
            self.fail("P0507", node.span.clone(), format!("`{odd}` is not the name of a channel"), hint);
        }
        names.into_iter().map(Into::into).collect()
    }

    /// `L0` to `L4`.
    fn assurance(&mut self, node: &Node) -> Assurance {
        let level = match &node.value {
            Value::Text(word) => Assurance::from_word(word),
            _ => None,
        };
        if level.is_none() {
            let hint =
                "L1 wants a security key, L2 a gate that the agent cannot reach, L3 and L4 one elsewhere too";
            self.fail("P0013", node.span.clone(), "`min_assurance` is one of L0, L1, L2, L3, L4", hint);
        }
        level.unwrap_or_default()
    }

    fn on_rejection(&mut self, node: Option<&Node>) -> OnRejection {
        match node.map(|node| (&node.value, node)) {
            None => OnRejection::default(),
            Some((Value::Text(word), _)) if word == "continue" => OnRejection::Continue,
            Some((Value::Text(word), _)) if word == "fail" => OnRejection::Fail,
            Some((_, node)) => {
                let hint =
                    "`continue` tells the agent why and lets it go on, `fail` is an error in the client";
                self.fail("P0013", node.span.clone(), "`on_rejection` is `continue` or `fail`", hint);
                OnRejection::default()
            }
        }
    }

    /// `approvers` with `required_approvals`, or `requires` with several of both.
    fn seats(
        &mut self,
        approvers: Option<&Node>,
        approvals: Option<&Node>,
        requires: Option<&Node>,
    ) -> Vec<Seat> {
        if let Some(node) = requires {
            if let Some(other) = approvers.or(approvals) {
                let message = "`requires` says who and how many, so these keys say it twice";
                self.fail("P0505", other.span.clone(), message, "write them as one more entry of `requires`");
            }
            let mut seats = Vec::new();
            for item in self.items(node, "requires", SEATS_MAX) {
                let Some(mut keys) = self.mapping(item, "an entry of `requires`", &SEAT_KEYS) else {
                    continue;
                };
                let Some(approvers) = keys.take("approvers") else {
                    let hint = "write `approvers: [finance]`";
                    self.fail("P0011", item.span.clone(), "the entry has no `approvers`", hint);
                    continue;
                };
                seats.extend(self.seat(Some(approvers), keys.take("approvals"), "approvals"));
            }
            return seats;
        }
        if approvers.is_none() && approvals.is_none() {
            return Vec::new();
        }
        self.seat(approvers, approvals, "required_approvals").into_iter().collect()
    }

    fn seat(&mut self, approvers: Option<&Node>, people: Option<&Node>, key: &str) -> Option<Seat> {
        let names = approvers.map_or_else(Vec::new, |node| self.words(node, "approvers", APPROVERS_MAX));
        let people = people.map_or(Some(1), |node| self.count(node, key, SEAT_PEOPLE_MAX))?;
        Some(Seat { approvers: names.into_iter().map(Into::into).collect(), people })
    }

    /// The steps after the first time is over, and how long all of it takes.
    fn steps(
        &mut self,
        on_timeout: Option<&Node>,
        escalate: Option<&Node>,
        first: Duration,
    ) -> (Vec<Step>, Duration) {
        let escalates = match on_timeout.map(|node| (&node.value, node)) {
            None => escalate.is_some(),
            Some((Value::Text(word), _)) if word == "deny" => false,
            Some((Value::Text(word), _)) if word == "escalate" => true,
            Some((_, node)) => {
                let hint = "write `on_timeout: deny`, or `escalate` with the steps under `escalate:`";
                self.fail(
                    "P0013",
                    node.span.clone(),
                    "a call that nobody approved in time does not run",
                    hint,
                );
                return (Vec::new(), first);
            }
        };
        match (escalates, escalate, on_timeout) {
            (true, None, Some(node)) => {
                let hint = "add `escalate: [{to: [on-call], timeout: 15m}]`";
                self.fail("P0505", node.span.clone(), "to whom it escalates is not said", hint);
                return (Vec::new(), first);
            }
            (false, Some(node), _) => {
                let hint = "write `on_timeout: escalate`, or take `escalate` out";
                self.fail("P0505", node.span.clone(), "`on_timeout: deny` leaves nothing to escalate", hint);
                return (Vec::new(), first);
            }
            _ => {}
        }
        let (mut steps, mut total) = (Vec::new(), first);
        let Some(node) = escalate else { return (steps, total) };
        for item in self.items(node, "escalate", STEPS_MAX) {
            let Some(mut keys) = self.mapping(item, "a step of `escalate`", &STEP_KEYS) else { continue };
            let (Some(to), Some(time)) = (keys.take("to"), keys.take("timeout")) else {
                let hint = "write `{to: [on-call], timeout: 15m}`";
                self.fail(
                    "P0011",
                    item.span.clone(),
                    "a step says `to` whom, and for how long: `timeout`",
                    hint,
                );
                continue;
            };
            let to = self.words(to, "to", APPROVERS_MAX).into_iter().map(Into::into).collect();
            let Some(time) = self.timeout(time, "timeout", TIMEOUT_MIN, TIMEOUT_MAX) else { continue };
            let notify = keys.take("notify").map_or_else(Vec::new, |node| self.channels(node));
            steps.push(Step { after_seconds: total.as_secs(), to, notify });
            total += time;
        }
        if total > TIMEOUT_MAX {
            let message = "all steps together take longer than people can be given";
            self.fail("P0015", node.span.clone(), message, "7d at most: a hold always ends");
        }
        (steps, total)
    }

    /// `remember: 15m`, or `{for: 15m, same: [arguments, tool], uses: 20}`.
    fn remember(&mut self, node: &Node) -> Option<Remember> {
        let (time, same, uses) = match &node.value {
            Value::Map(_) => {
                let mut keys = self.mapping(node, "`remember`", &REMEMBER_KEYS)?;
                let Some(time) = keys.take("for") else {
                    self.fail(
                        "P0011",
                        node.span.clone(),
                        "`remember` does not say `for` how long",
                        "add `for: 15m`",
                    );
                    return None;
                };
                let same = keys.take("same").map_or_else(Vec::new, |node| self.words(node, "same", 2));
                let uses = keys.take("uses");
                let hint = "at each use a call runs without anybody being asked: 20 if left out";
                let uses = uses.map(|node| self.whole_number(node, "uses", REMEMBER_USES_MAX, "", hint));
                (time, same, uses.unwrap_or(Some(REMEMBER_USES_DEFAULT))?)
            }
            _ => (node, Vec::new(), REMEMBER_USES_DEFAULT),
        };
        if let Some(odd) = same.iter().find(|word| !matches!(word.as_str(), "arguments" | "tool")) {
            let message = format!("`same` is `arguments` or `tool`, not `{odd}`");
            self.fail("P0013", node.span.clone(), message, "`arguments` covers the very same call only");
        }
        let longest = self.timeout(time, "remember", TIMEOUT_MIN, REMEMBER_MAX)?;
        let whole_tool = same.iter().any(|word| word == "tool");
        Some(Remember { seconds_max: longest.as_secs(), whole_tool, uses_max: uses })
    }

    /// A whole number of people.
    fn count(&mut self, node: &Node, key: &str, most: u32) -> Option<u32> {
        let hint = "with nobody to ask, write `action: allow` or `deny`";
        self.whole_number(node, key, most, " of people", hint)
    }

    /// A whole number from 1 to `most`.
    fn whole_number(&mut self, node: &Node, key: &str, most: u32, of: &str, hint: &str) -> Option<u32> {
        let number = match &node.value {
            Value::Number(text) => text.parse::<u32>().ok(),
            _ => None,
        };
        let number = number.filter(|number| (1..=most).contains(number));
        if number.is_none() {
            let message = format!("`{key}` is a whole number{of}, 1 to {most}");
            self.fail("P0019", node.span.clone(), message, hint);
        }
        number
    }

    /// A time with its unit.
    pub(super) fn timeout(
        &mut self,
        node: &Node,
        key: &str,
        least: Duration,
        most: Duration,
    ) -> Option<Duration> {
        let bound = |time: Duration| match time.as_secs() {
            days if days % 86_400 == 0 => format!("{}d", days / 86_400),
            hours if hours % 3_600 == 0 => format!("{}h", hours / 3_600),
            minutes if minutes % 60 == 0 => format!("{}m", minutes / 60),
            seconds => format!("{seconds}s"),
        };
        let hint = format!(
            "write {} to {}, such as `90s`, `30m`, `2h` or `1h 30m`; a hold always ends",
            bound(least),
            bound(most)
        );
        let Value::Text(text) = &node.value else {
            self.fail("P0015", node.span.clone(), format!("`{key}` needs a unit"), hint);
            return None;
        };
        let span: Option<jiff::Span> = text.trim().parse().ok();
        let seconds = span.and_then(|span| {
            span.total((jiff::Unit::Second, jiff::SpanRelativeTo::days_are_24_hours())).ok()
        });
        let limits = least.as_secs_f64()..=most.as_secs_f64();
        match seconds.filter(|seconds| limits.contains(seconds)) {
            Some(seconds) => Some(Duration::from_secs_f64(seconds)),
            None => {
                let message = format!("`{text}` is not a time that people can be given");
                self.fail("P0015", node.span.clone(), message, hint);
                None
            }
        }
    }
}
