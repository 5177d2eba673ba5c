//! Judges a run by its three logs: what the server did (`canary`), what the client asked and heard (`client`), and the exported audit log.
//!
//! Written from the invariants alone. It shares no code with the program: it reads JSON as JSON and hashes by itself, so that a mistake of
//! the program's own cannot hide here.

use std::collections::{BTreeMap, BTreeSet};

use aws_lc_rs::digest::{SHA256, digest};
use serde_json::Value;

/// What was recorded of one hold.
#[derive(Default)]
struct Hold {
    /// The digests of the bytes that may be sent for it.
    frames: BTreeSet<String>,
    /// The states that it came to, in order.
    states: Vec<String>,
    is_approved: bool,
}

/// Everything that must not be, in words; nothing, if all is as it should be.
pub(crate) fn check(canary: &[String], client: &[String], audit: &[String]) -> Vec<String> {
    let mut wrong = Vec::new();
    let holds = holds(audit, &mut wrong);
    what_ran(canary, &holds, &mut wrong);
    what_was_said(canary, client, &mut wrong);
    for (id, hold) in &holds {
        one_end(id, hold, &mut wrong);
    }
    wrong
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Reads the log as a chain, and gathers what it says of each hold.
fn holds(audit: &[String], wrong: &mut Vec<String>) -> BTreeMap<String, Hold> {
    let mut holds: BTreeMap<String, Hold> = BTreeMap::new();
    let mut before = vec![0_u8; 32];
    for (number, line) in (1_u64..).zip(audit) {
        let event: Value = serde_json::from_str(line).unwrap_or_default();
        if event["seq"].as_u64() != Some(number) || event["prev"].as_str() != Some(&hex(&before)) {
            wrong.push(format!("the chain is broken at line {number}"));
        }
        before = digest(&SHA256, &[&before, line.as_bytes()].concat()).as_ref().to_vec();
        let Some(id) = event["hold"].as_str() else { continue };
        let hold = holds.entry(id.to_owned()).or_default();
        let kind = event["kind"].as_str().unwrap_or_default();
        if matches!(kind, "held" | "attached" | "edited") {
            hold.frames.extend(event["frame_sha256"].as_str().map(str::to_owned));
        }
        let votes = event["votes"].as_array().cloned().unwrap_or_default();
        hold.is_approved |= votes.iter().any(|vote| vote["verdict"] == "approve");
        if STATES.contains(&kind) {
            hold.states.push(kind.to_owned());
        }
    }
    holds
}

const STATES: [&str; 12] = [
    "held",
    "granted",
    "forwarding",
    "answered",
    "unknown",
    "ran",
    "not_run",
    "lapsed",
    "rejected",
    "expired",
    "withdrawn",
    "unavailable",
];

/// Nothing runs without an approval of exactly its bytes, and nothing more often than it was approved.
fn what_ran(canary: &[String], holds: &BTreeMap<String, Hold>, wrong: &mut Vec<String>) {
    let mut used: BTreeSet<&str> = BTreeSet::new();
    for line in canary {
        let bytes = hex(digest(&SHA256, line.as_bytes()).as_ref());
        let of_these = |hold: &Hold| {
            hold.is_approved
                && hold.frames.contains(&bytes)
                && hold.states.iter().any(|state| state == "forwarding")
        };
        let approved: Vec<&str> =
            holds.iter().filter(|(_, hold)| of_these(hold)).map(|(id, _)| id.as_str()).collect();
        match approved.iter().find(|id| !used.contains(**id)) {
            Some(id) => drop(used.insert(id)),
            None if approved.is_empty() => wrong.push(format!("it ran without an approval: {line}")),
            None => wrong.push(format!("it ran more often than it was approved: {line}")),
        }
    }
    for (id, hold) in holds {
        let last = hold.states.last().map(String::as_str);
        if matches!(last, Some("answered" | "ran")) && !used.contains(&**id) {
            wrong.push(format!("{id} is on record as run, and did not run"));
        }
    }
}

/// Each request gets at most one answer, and what is said to have run did.
fn what_was_said(canary: &[String], client: &[String], wrong: &mut Vec<String>) {
    let mut answered = BTreeSet::new();
    let mut ran = 0;
    for answer in client.iter().filter_map(|line| line.strip_prefix("answer ")) {
        let answer: Value = serde_json::from_str(answer).unwrap_or_default();
        if !answered.insert(answer["id"].to_string()) {
            wrong.push(format!("{} has two answers", answer["id"]));
        }
        ran += usize::from(answer["result"]["ran"] == true);
    }
    if ran > canary.len() {
        wrong.push("the client heard of a run that did not happen: it did not run".to_owned());
    }
}

/// A hold is sent once at most, and never after it has ended.
fn one_end(id: &str, hold: &Hold, wrong: &mut Vec<String>) {
    let is_over = |state: &str| {
        matches!(state, "answered" | "ran" | "not_run" | "lapsed" | "rejected" | "expired" | "withdrawn")
    };
    if hold.states.iter().filter(|state| *state == "forwarding").count() > 1 {
        wrong.push(format!("{id} was sent twice"));
    }
    if let Some(end) = hold.states.iter().position(|state| is_over(state))
        && end + 1 < hold.states.len()
    {
        wrong.push(format!("{id} went on after its end: {:?}", hold.states));
    }
    if hold.states.first().is_none_or(|first| first != "held") {
        wrong.push(format!("{id} was not held at first: {:?}", hold.states));
    }
}
