//! A first policy from calls that were recorded, and what a policy would have said of them.
//!
//! Called by `holdshort policy learn`. What it proposes is a beginning for a person to read: tools whose names say that they
//! read are allowed, all others wait, and above the usual amount where calls carry one. It never proposes a wider default
//! than `hold`, and never reads anything but the calls that it is given.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;

use super::{
    Call, Effect, Policy,
    arguments::{Decimal, Number},
    diagnostic::{PolicyErrors, Source},
};
use crate::view::counted;

/// The most calls that are learned from: the newest.
pub const RECORDED_CALLS_MAX: usize = 100_000;

/// From so many calls on, amounts say what is usual.
const CALLS_FOR_AMOUNT: usize = 10;

/// Of a hundred calls, how many have a usual amount.
const USUAL_PERCENT: usize = 90;

/// What the names of tools that only read begin with.
const READING: [&str; 12] = [
    "get", "list", "read", "search", "find", "fetch", "describe", "query", "show", "view", "count", "lookup",
];

/// What the names of tools have in them that cannot be taken back.
const DESTROYING: [&str; 8] = ["delete", "drop", "destroy", "remove", "wipe", "purge", "truncate", "revoke"];

/// Arguments that say how much is at stake.
const AMOUNTS: [&str; 6] = ["amount", "total", "price", "value", "quantity", "amount_cents"];

/// One call of the record.
#[derive(Clone, Debug)]
pub struct RecordedCall {
    /// The server's name.
    pub server: String,
    /// The method.
    pub method: String,
    /// The tool of a `tools/call`.
    pub tool: Option<String>,
    /// The raw arguments; nothing where they were too long to be kept.
    pub arguments: Option<String>,
    /// The name that the client gave itself.
    pub client: String,
    /// Who asked.
    pub principal: String,
    /// When.
    pub at: Timestamp,
}

/// What a policy says of one recorded call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ReplayedCall {
    /// When it was made.
    pub at: Timestamp,
    /// `server.tool`, or the method.
    pub subject: String,
    /// What would be done; nothing where the arguments are not on record, and a rule would have to read them.
    pub effect: Option<Effect>,
    /// The rules that decide.
    pub rules: Vec<String>,
}

/// What `policy` would have done to each of `calls`. Their hints about tools are not on record: they count as not given.
pub fn replay(policy: &Policy, calls: &[RecordedCall]) -> Vec<ReplayedCall> {
    let judged = calls.iter().map(|call| {
        let decision = policy.decide(&Call {
            server: &call.server,
            method: &call.method,
            tool: call.tool.as_deref(),
            arguments: call.arguments.as_deref().unwrap_or("{}"),
            client: &call.client,
            principal: &call.principal,
            now: call.at,
            ..Call::default()
        });
        let reads =
            |name: &str| policy.rules().iter().any(|rule| rule.name() == name && rule.condition().is_some());
        let is_unsure = call.arguments.is_none()
            && (!decision.notes.is_empty() || decision.rules.iter().any(|name| reads(name)));
        ReplayedCall {
            at: call.at,
            subject: call
                .tool
                .as_ref()
                .map_or_else(|| call.method.clone(), |tool| format!("{}.{tool}", call.server)),
            effect: (!is_unsure).then_some(decision.would_have.unwrap_or(decision.effect)),
            rules: decision.rules.iter().map(ToString::to_string).collect(),
        }
    });
    judged.collect()
}

/// What was seen of one tool.
#[derive(Default)]
struct Seen {
    calls: usize,
    /// Numbers of the arguments in [`AMOUNTS`], as they were written.
    amounts: BTreeMap<&'static str, Vec<String>>,
}

/// A policy for these calls, as text with comments. It loads, and every other call waits.
///
/// # Errors
/// If the names of the record's tools cannot be written in a policy.
pub fn propose(calls: &[RecordedCall]) -> Result<String, PolicyErrors> {
    let mut tools: BTreeMap<(&str, &str), Seen> = BTreeMap::new();
    for call in calls {
        let Some(tool) = &call.tool else { continue };
        let seen = tools.entry((&call.server, tool)).or_default();
        seen.calls += 1;
        for (name, number) in call.arguments.as_deref().map_or_else(Vec::new, amounts) {
            seen.amounts.entry(name).or_default().push(number);
        }
    }
    let count = calls.len();
    let mut text = format!(
        "# A beginning, from {count} recorded calls: read it before you use it.\nversion: 1\ndefault: hold\nrules:\n"
    );
    let readers: Vec<String> =
        tools.keys().filter(|(_, tool)| is_reading(tool)).map(|name| pattern(*name)).collect();
    if !readers.is_empty() {
        text.push_str("  # Their names say that they only read. Nobody has checked that they do.\n");
        text.push_str(&format!("  - name: reads\n    tool: [{}]\n    action: allow\n", readers.join(", ")));
    }
    for (name, seen) in tools.iter().filter(|((_, tool), _)| !is_reading(tool)) {
        rule(*name, seen, &mut text);
    }
    Policy::parse(vec![Source { name: "the proposed policy".to_owned(), text: text.clone() }])?;
    Ok(text)
}

/// The rule for a tool that does something.
fn rule(name: (&str, &str), seen: &Seen, text: &mut String) {
    let tool = pattern(name);
    let rule = quoted(&format!("{}.{}", name.0, name.1).chars().take(80).collect::<String>());
    text.push_str(&format!("  # Seen {}.\n", counted(seen.calls, "time")));
    let is_final = DESTROYING.iter().any(|word| name.1.to_lowercase().contains(word));
    let usual = seen
        .amounts
        .iter()
        .find(|(_, numbers)| numbers.len() == seen.calls && seen.calls >= CALLS_FOR_AMOUNT);
    let usual =
        usual.filter(|_| !is_final).and_then(|(argument, numbers)| Some((argument, usual_of(numbers)?)));
    match usual {
        Some((argument, usual)) => {
            text.push_str(&format!(
                "  # Of {USUAL_PERCENT} in 100 calls, `{argument}` is at most {usual}.\n"
            ));
            text.push_str(&format!(
                "  - name: {rule}\n    tool: {tool}\n    when: {{args.{argument}: {{gt: {usual}}}}}\n    action: hold\n"
            ));
            let usually =
                quoted(&format!("usual {}.{}", name.0, name.1).chars().take(80).collect::<String>());
            text.push_str(&format!(
                "  - name: {usually}\n    tool: {tool}\n    when: {{args.{argument}: {{lte: {usual}}}}}\n    action: allow\n"
            ));
        }
        None => {
            let why = if is_final { "    reason: It cannot be taken back.\n" } else { "" };
            text.push_str(&format!("  - name: {rule}\n    tool: {tool}\n    action: hold\n{why}"));
        }
    }
}

/// The largest of the usual numbers.
fn usual_of(numbers: &[String]) -> Option<String> {
    let mut sorted: Vec<(Decimal, &String)> =
        numbers.iter().map(|text| Some((Decimal::of(text)?, text))).collect::<Option<_>>()?;
    sorted.sort_by(|(a, _), (b, _)| a.compare(b));
    let at = (sorted.len() * USUAL_PERCENT / 100).min(sorted.len() - 1);
    let (_, usual) = sorted.get(at)?;
    (Number::of(usual) != Number::Inexact).then(|| (*usual).clone())
}

/// The numbers among the arguments that say how much is at stake.
fn amounts(arguments: &str) -> Vec<(&'static str, String)> {
    let Ok(members) = serde_json::from_str::<BTreeMap<String, &serde_json::value::RawValue>>(arguments)
    else {
        return Vec::new();
    };
    let number = |name: &'static str| {
        let written = members.get(name)?.get();
        super::yaml::is_json_number(written).then(|| (name, written.to_owned()))
    };
    AMOUNTS.into_iter().filter_map(number).collect()
}

/// Whether the name says that the tool reads: `get_order`, `listFiles`, `github_search`.
fn is_reading(tool: &str) -> bool {
    let mut words: Vec<String> = vec![String::new()];
    for letter in tool.chars() {
        if !letter.is_alphanumeric() || letter.is_uppercase() {
            words.push(String::new());
        }
        if letter.is_alphanumeric()
            && let Some(word) = words.last_mut()
        {
            word.extend(letter.to_lowercase());
        }
    }
    let words: Vec<&str> = words.iter().map(String::as_str).filter(|word| !word.is_empty()).collect();
    let is = |list: &[&str]| words.iter().any(|word| list.contains(word));
    is(&READING) && !is(&DESTROYING) && !is(&["and", "or", "write", "update", "set", "create"])
}

/// The tool of this server as a pattern that stands for it alone.
fn pattern((server, tool): (&str, &str)) -> String {
    let escaped: String = format!("{server}.{tool}")
        .chars()
        .flat_map(|letter| {
            let escape = matches!(letter, '*' | '?' | '[' | ']' | '{' | '}' | '\\').then_some('\\');
            escape.into_iter().chain([letter])
        })
        .collect();
    quoted(&escaped)
}

/// A text in double quotes, as YAML and JSON both read it.
fn quoted(text: &str) -> String {
    serde_json::to_string(text).unwrap_or_default()
}
