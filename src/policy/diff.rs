//! What becomes wider and what stricter from one policy to another.
//!
//! Called by `holdshort policy diff`. A sample of calls cannot show that nothing becomes wider, so rules are compared: the
//! difference is taken apart into steps (a rule more, a rule less, another effect, other patterns, another condition), each
//! judged for all calls under the older default, and the default comes last. Where no step can widen, the whole cannot. What
//! cannot be told is called unknown, never the same; a longer time to approve counts as wider.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use serde::Serialize;

use crate::hold::{HoldTerms, Seat};

use super::{
    Effect, Mode, Policy, Rule, TIMEOUT_DEFAULT, TOOLS_CALL, arguments::Number, cases,
    diagnostic::PolicyErrors, pattern::Pattern,
};

/// What a change can do to calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// It changes words only, or nothing.
    Same,
    /// No call becomes wider; some may become stricter.
    Stricter,
    /// It cannot be told.
    Unknown,
    /// Some calls may run that waited, or wait that were denied, or wait for longer.
    Wider,
}

impl Direction {
    /// The word for people.
    pub fn word(self) -> &'static str {
        match self {
            Self::Same => "same",
            Self::Stricter => "stricter",
            Self::Unknown => "unknown",
            Self::Wider => "wider",
        }
    }
}

/// One step from the older policy to the newer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// What it can do.
    pub direction: Direction,
    /// The rule; nothing for the default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// What is different, in words.
    pub what: String,
}

/// A test case that the two policies decide differently.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CaseChange {
    /// Wider or stricter.
    pub direction: Direction,
    /// The file of the case.
    pub file: String,
    /// The case's name.
    pub case: String,
    /// `server.tool`, or the method.
    pub subject: String,
    /// What the older policy says.
    pub before: Effect,
    /// What the newer policy says.
    pub after: Effect,
}

/// What is different between two policies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// The changes: the widest first, then in the order of the files.
    pub changes: Vec<Change>,
    /// The cases that are decided differently.
    pub cases: Vec<CaseChange>,
}

impl Difference {
    /// The widest of all changes. Only [`Direction::Same`] and [`Direction::Stricter`] promise that no call becomes wider.
    pub fn direction(&self) -> Direction {
        let rules = self.changes.iter().map(|change| change.direction);
        rules.chain(self.cases.iter().map(|case| case.direction)).max().unwrap_or(Direction::Same)
    }

    /// Whether it is certain that no call becomes wider.
    pub fn never_wider(&self) -> bool {
        self.direction() <= Direction::Stricter
    }
}

/// Compares two policies in files or directories, also on the cases in `case_files`.
///
/// # Errors
/// If a policy or a file of cases cannot be read.
pub fn diff(older: &Path, newer: &Path, case_files: &[PathBuf]) -> Result<Difference, PolicyErrors> {
    let (older, newer) = (Policy::load(&[older.to_owned()])?, Policy::load(&[newer.to_owned()])?);
    let mut difference = Difference { changes: compare(&older, &newer), cases: Vec::new() };
    for file in case_files {
        let (before, after) = (cases::run_file(&older, file)?, cases::run_file(&newer, file)?);
        let pairs = before.cases.into_iter().zip(after.cases);
        difference.cases.extend(pairs.filter(|(a, b)| a.actual != b.actual).map(|(a, b)| CaseChange {
            direction: if b.actual < a.actual { Direction::Wider } else { Direction::Stricter },
            file: before.file.clone(),
            case: a.name,
            subject: a.subject,
            before: a.actual,
            after: b.actual,
        }));
    }
    Ok(difference)
}

/// The steps from `older` to `newer`.
pub(super) fn compare(older: &Policy, newer: &Policy) -> Vec<Change> {
    let default = older.default;
    let before: HashMap<&str, &Rule> = older.rules.iter().map(|rule| (rule.name(), rule)).collect();
    let after: HashMap<&str, &Rule> = newer.rules.iter().map(|rule| (rule.name(), rule)).collect();
    let mut gone: HashMap<String, Vec<&Rule>> = HashMap::new();
    for rule in older.rules.iter().filter(|rule| !after.contains_key(rule.name())) {
        gone.entry(summary(rule)).or_default().push(rule);
    }
    let mut changes = Vec::new();
    for rule in &newer.rules {
        if let Some(known) = before.get(rule.name()) {
            changed(known, rule, default, &mut changes);
        } else if let Some(other) = taken(&mut gone, rule) {
            let what = format!("renamed, it was `{}`", other.name());
            changes.push(Change { direction: Direction::Same, rule: Some(rule.name().to_owned()), what });
        } else {
            let what = format!("added: {}", summary(rule));
            changes.push(change(added(rule, default), rule, what));
        }
    }
    let mut gone: Vec<&Rule> = gone.into_values().flatten().collect();
    gone.sort_by_key(|rule| rule.place());
    for rule in gone {
        changes.push(change(removed(rule, default), rule, format!("removed: {}", summary(rule))));
    }
    if older.default != newer.default {
        let what = format!("the default was {} and is {}", older.default, newer.default);
        changes.push(Change { direction: by_effect(older.default, newer.default), rule: None, what });
    }
    settings(older, newer, &mut changes);
    changes.sort_by_key(|change| std::cmp::Reverse(change.direction));
    changes
}

/// The change in modes, trust and people.
fn settings(older: &Policy, newer: &Policy, changes: &mut Vec<Change>) {
    let mut push = |direction, what: String| changes.push(Change { direction, rule: None, what });
    let (before, after) = (&older.settings, &newer.settings);
    if before.mode != after.mode {
        // Where it begins to count, the list of approved tools lets some run that waited.
        let approves = after.mode == Mode::ConfirmTools
            && newer.rules.iter().any(|rule| rule.only_in == Some(Mode::ConfirmTools));
        let direction = match after.mode.cmp(&before.mode) {
            std::cmp::Ordering::Less => Direction::Wider,
            _ if approves => Direction::Unknown,
            _ => Direction::Stricter,
        };
        push(direction, format!("the mode was {} and is {}", before.mode.word(), after.mode.word()));
    }
    if before.servers != after.servers || before.tools != after.tools {
        push(Direction::Unknown, "the settings of servers or tools are different".to_owned());
    }
    if older.people != newer.people {
        push(Direction::Unknown, "the people who may decide are different".to_owned());
    }
    if before.hide_denied_tools != after.hide_denied_tools {
        push(Direction::Same, "which tools are listed is different".to_owned());
    }
}

fn change(direction: Direction, rule: &Rule, what: String) -> Change {
    Change { direction, rule: Some(rule.name().to_owned()), what }
}

fn by_effect(before: Effect, after: Effect) -> Direction {
    match after.cmp(&before) {
        std::cmp::Ordering::Less => Direction::Wider,
        std::cmp::Ordering::Equal => Direction::Same,
        std::cmp::Ordering::Greater => Direction::Stricter,
    }
}

/// What happens to calls that only this rule is about, if it is not there. Other methods pass where no rule names them.
fn without(rule: &Rule, default: Effect) -> Effect {
    let about_tools = !rule.names_methods() || rule.methods.iter().any(|pattern| pattern.matches(TOOLS_CALL));
    if about_tools { default } else { Effect::Allow }
}

/// Calls that other rules are about become stricter or stay; the rest go from the default to this rule's effect.
fn added(rule: &Rule, default: Effect) -> Direction {
    let without = without(rule, default);
    let longer = without == Effect::Hold && rule.effect == Effect::Hold && rule.timeout() > TIMEOUT_DEFAULT;
    if rule.effect < without || longer {
        Direction::Wider
    } else if rule.effect > Effect::Allow {
        Direction::Stricter
    } else {
        Direction::Same
    }
}

/// Calls that other rules are about may become as wide as those say; the rest go to the default.
fn removed(rule: &Rule, default: Effect) -> Direction {
    if rule.effect > Effect::Allow {
        Direction::Wider
    } else if without(rule, default) > Effect::Allow {
        Direction::Stricter
    } else {
        Direction::Same
    }
}

/// A rule of the same name in both: first the effect under the older patterns, then the patterns under the newer effect.
fn changed(before: &Rule, after: &Rule, default: Effect, changes: &mut Vec<Change>) {
    let mut push = |direction, what: String| changes.push(change(direction, after, what));
    if before.effect != after.effect {
        // A rule that allows is about fewer calls than one with the same words that restricts (names with dots, conditions
        // without answer), and for those others the default may be stricter than the new effect.
        let widens = after.effect < without(before, default) || added(after, default) == Direction::Wider;
        let direction = if before.effect == Effect::Allow && widens {
            Direction::Unknown
        } else {
            by_effect(before.effect, after.effect)
        };
        push(direction, format!("was {} and is {}", before.effect, after.effect));
    }
    for (direction, what) in [scope(before, after), condition(before, after)].into_iter().flatten() {
        let direction = match direction {
            Scope::Grows => added(after, default),
            Scope::Shrinks => removed(after, default),
            Scope::Unknown => match added(after, default).max(removed(after, default)) {
                Direction::Same => Direction::Same,
                _ => Direction::Unknown,
            },
        };
        push(direction, what);
    }
    let (old, new) = (&before.terms, &after.terms);
    if before.effect == Effect::Hold && after.effect == Effect::Hold && old.timeout != new.timeout {
        let longer = new.timeout > old.timeout;
        let direction = if longer { Direction::Wider } else { Direction::Stricter };
        let seconds = |timeout: std::time::Duration| format!("{}s", timeout.as_secs());
        push(direction, format!("people have {} and had {}", seconds(new.timeout), seconds(old.timeout)));
    }
    // Terms that are none of those below are new to this comparison: what they mean is not known here.
    let mut known = (**old).clone();
    known.timeout = new.timeout;
    known.hold_message.clone_from(&new.hold_message);
    known.on_rejection = new.on_rejection;
    known.remind = new.remind;
    known.notify.clone_from(&new.notify);
    if known != **new {
        push(asks(old, new), "who has to decide, or how, is different".to_owned());
    }
    let words = before.reason != after.reason && (before.own_reason || after.own_reason)
        || old.hold_message != new.hold_message
        || old.on_rejection != new.on_rejection;
    if old.notify != new.notify {
        push(Direction::Same, "which channels hear of it is different".to_owned());
    }
    if words {
        push(Direction::Same, "what is told (reason, hold message, rejection) is different".to_owned());
    }
}

/// Whether other terms ask for more. Only what is certain: the same people, and more of them.
fn asks(old: &HoldTerms, new: &HoldTerms) -> Direction {
    let alike = HoldTerms { requirements: new.requirements.clone(), ..old.clone() };
    // Without a way around asking, and without one to run another call than was made, it can only be stricter.
    let less = HoldTerms {
        remember: old.remember.filter(|_| new.remember.is_some()),
        may_edit: old.may_edit && new.may_edit,
        may_elicit: old.may_elicit && new.may_elicit,
        notify: new.notify.clone(),
        ..old.clone()
    };
    let more = match (old.requirements.as_slice(), new.requirements.as_slice()) {
        ([], [_]) => true,
        ([old], [new]) => {
            let same =
                |(old, new): (&Seat, &Seat)| old.approvers == new.approvers && old.people <= new.people;
            old.steps == new.steps
                && old.seats.len() == new.seats.len()
                && old.seats.iter().zip(&new.seats).all(same)
        }
        _ => false,
    };
    let certain = (alike.remember == new.remember
        && alike.may_edit == new.may_edit
        && alike.may_elicit == new.may_elicit
        && alike.grant == new.grant
        && alike.required_rejections == new.required_rejections
        && more)
        || less == *new;
    if certain { Direction::Stricter } else { Direction::Unknown }
}

/// How the calls that a rule is about change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scope {
    Grows,
    Shrinks,
    Unknown,
}

/// The change in tools, servers and methods.
fn scope(before: &Rule, after: &Rule) -> Option<(Scope, String)> {
    let lists: [fn(&Rule) -> &[Pattern]; 3] =
        [|rule| &rule.tools, |rule| &rule.servers, |rule| &rule.methods];
    let texts = |rule: &Rule, list: fn(&Rule) -> &[Pattern]| {
        let mut texts: Vec<String> = list(rule).iter().map(|pattern| pattern.text().to_owned()).collect();
        texts.sort();
        texts
    };
    if lists.iter().all(|list| texts(before, *list) == texts(after, *list)) {
        return None;
    }
    let grows = lists.iter().all(|list| covers(list(after), list(before)));
    let shrinks = lists.iter().all(|list| covers(list(before), list(after)));
    let same_kind = before.names_methods() == after.names_methods();
    let scope = match (grows && same_kind, shrinks && same_kind) {
        // Other words for the same calls.
        (true, true) => return None,
        (true, false) => Scope::Grows,
        (false, true) => Scope::Shrinks,
        (false, false) => Scope::Unknown,
    };
    let about = |rule| about(rule).join(", ");
    Some((scope, format!("was about {} and is about {}", about(before), about(after))))
}

/// Whether every name that `small` matches is matched by `large`. No patterns match every name.
fn covers(large: &[Pattern], small: &[Pattern]) -> bool {
    let every = |pattern: &Pattern| matches!(pattern.text(), "*" | "**");
    let covered = |small: &Pattern| {
        let larger = |large: &Pattern| {
            every(large) || large.text() == small.text() || (small.is_name() && large.matches(small.text()))
        };
        large.iter().any(larger)
    };
    large.is_empty() || large.iter().any(every) || (!small.is_empty() && small.iter().all(covered))
}

/// The change in the condition: one more shrinks what the rule is about, and so does a higher limit after `>`.
fn condition(before: &Rule, after: &Rule) -> Option<(Scope, String)> {
    let (old, new) = (before.condition(), after.condition());
    if old == new {
        return None;
    }
    let scope = match (old, new) {
        (None, Some(_)) => Scope::Shrinks,
        (Some(_), None) => Scope::Grows,
        (Some(old), Some(new)) => limit(old).zip(limit(new)).and_then(limits).unwrap_or(Scope::Unknown),
        (None, None) => return None,
    };
    let words =
        |condition: Option<&str>| condition.map_or_else(|| "none".to_owned(), |text| format!("`{text}`"));
    Some((scope, format!("its condition was {} and is {}", words(old), words(new))))
}

/// A path, one of `>`, `>=`, `<`, `<=`, and a number.
fn limit(condition: &str) -> Option<(&str, &str, Number)> {
    let mut parts = condition.split_whitespace();
    let (path, operator, number) = (parts.next()?, parts.next()?, parts.next()?);
    let is_path = path.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.".contains(&byte));
    let known = is_path && parts.next().is_none() && matches!(operator, ">" | ">=" | "<" | "<=");
    known.then(|| (path, operator, Number::of(number)))
}

/// What becomes of the calls between two limits of the same path.
fn limits(limits: ((&str, &str, Number), (&str, &str, Number))) -> Option<Scope> {
    let ((path, operator, old), (other, sign, new)) = limits;
    // Only whole numbers: between them the order is exact.
    let (Number::Int(old), Number::Int(new)) = (old, new) else { return None };
    if path != other || operator != sign || old == new {
        return None;
    }
    let shrinks = operator.starts_with('>') == (new > old);
    Some(if shrinks { Scope::Shrinks } else { Scope::Grows })
}

/// Takes a rule that differs from `rule` in nothing but its name out of those that are gone.
fn taken<'r>(gone: &mut HashMap<String, Vec<&'r Rule>>, rule: &Rule) -> Option<&'r Rule> {
    let alike = gone.get_mut(&summary(rule))?;
    let at = alike.iter().position(|other| other.terms == rule.terms)?;
    Some(alike.remove(at))
}

/// What a rule is about, list by list.
fn about(rule: &Rule) -> Vec<String> {
    let mut parts = Vec::new();
    for (word, list) in [("tool", &rule.tools), ("server", &rule.servers), ("method", &rule.methods)] {
        if !list.is_empty() {
            let texts: Vec<&str> = list.iter().map(Pattern::text).collect();
            parts.push(format!("{word} {}", texts.join(" ")));
        }
    }
    if parts.is_empty() { vec!["every tool".to_owned()] } else { parts }
}

/// A rule in one line.
fn summary(rule: &Rule) -> String {
    let when = rule.condition().map_or_else(String::new, |condition| format!(" when {condition}"));
    format!("{} {}{when}", rule.effect, about(rule).join(", "))
}
