//! What the command line prints. The only place that writes to stdout, and the only one that words an error for people at
//! a terminal.
//!
//! Everything that a peer or a model chose goes through `sanitize` before it reaches a terminal; JSON output carries the
//! original, escaped as JSON.
#![expect(clippy::print_stderr, reason = "this is where the program speaks")]

use std::{
    fmt::Display,
    io::{self, IsTerminal, Write},
};

use comfy_table::{ContentArrangement, Table, presets};
use jiff::{SpanRound, Timestamp, Unit};
use serde::Serialize;

use crate::{
    control::{
        api::{HoldView, Resolved, VerificationView, Watched, error_code},
        client::AskError,
    },
    exit::Exit,
    hold::{HOLD_ID_SHORT_CHARS, HoldId, State, Verdict, Vote},
    policy::{Policy, PolicyErrors, Report},
    sanitize, view,
};

/// The widest reason in a list, in characters; the whole stands in `show`.
const REASON_CHARS_MAX: usize = 60;

/// Prints one line of data. A reader that has gone away (`| head`) is no error.
pub(super) fn line(text: &str) {
    let mut stdout = io::stdout().lock();
    if writeln!(stdout, "{text}").is_err() {
        std::process::exit(0);
    }
}

/// Asks for something that is typed on the same line.
pub(super) fn prompt(text: &str) {
    let mut stdout = io::stdout().lock();
    // A terminal that has gone answers nothing either.
    let _ = write!(stdout, "{text}").and_then(|()| stdout.flush());
}

/// Says something to the person, on stderr.
pub(super) fn talk(text: &str) {
    for line in text.lines() {
        eprintln!("holdshort: {line}");
    }
}

fn json(value: &impl Serialize) {
    match serde_json::to_string_pretty(value) {
        Ok(text) => line(&text),
        Err(error) => talk(&format!("the answer cannot be written as JSON: {error}")),
    }
}

fn json_line(value: &impl Serialize) {
    match serde_json::to_string(value) {
        Ok(text) => line(&text),
        Err(error) => talk(&format!("the answer cannot be written as JSON: {error}")),
    }
}

// --- holds

/// The waiting (and ended) holds.
pub(super) fn holds(holds: &[HoldView], as_json: bool, gates: usize) {
    if as_json {
        return json(&holds);
    }
    if holds.is_empty() {
        return talk(match gates {
            0 => "no gate is running, so nothing waits",
            _ => "nothing waits",
        });
    }
    let chars = short_id_chars(holds.iter().map(|hold| hold.id));
    let mut table = table(&["ID", "STATE", "AGENT", "SERVER", "TOOL", "AGE", "LEFT", "REASON"]);
    for hold in holds {
        let left = if hold.state == State::Held { until(hold.expires_at) } else { "-".to_owned() };
        table.add_row([
            short(hold.id, chars),
            hold.state.to_string(),
            sanitize::render(&hold.agent),
            sanitize::render(&hold.server),
            sanitize::render(what(hold)),
            since(hold.created_at),
            left,
            sanitize::render_cut(&hold.reason, REASON_CHARS_MAX).text,
        ]);
    }
    line(&table.to_string());
}

/// The tool, or the method where it is not a tool's call.
fn what(hold: &HoldView) -> &str {
    if hold.tool.is_empty() { &hold.method } else { &hold.tool }
}

/// The shortest number of characters, from [`HOLD_ID_SHORT_CHARS`] on, by which the ids differ.
fn short_id_chars(ids: impl Iterator<Item = HoldId>) -> usize {
    let mut ids: Vec<_> = ids.map(|id| id.to_string()).collect();
    ids.sort_unstable();
    ids.dedup();
    let shared = |pair: &[String]| pair[0].bytes().zip(pair[1].bytes()).take_while(|(a, b)| a == b).count();
    ids.windows(2).map(|pair| shared(pair) + 1).max().unwrap_or(0).max(HOLD_ID_SHORT_CHARS)
}

fn short(id: HoldId, chars: usize) -> String {
    id.to_string().chars().take(chars).collect()
}

/// One hold, whole: nothing of the call is left out, and nothing of it can leave its place.
pub(super) fn detail(hold: &HoldView, as_json: bool) {
    if as_json {
        return json(hold);
    }
    hold_card(hold);
    if hold.state == State::Held {
        talk(&format!(
            "to decide: holdshort approve {0}   or: holdshort reject {0} --reason TEXT",
            hold.id.short()
        ));
    }
}

/// All of one hold, row by row.
pub(super) fn hold_card(hold: &HoldView) {
    field("hold", hold.id);
    field("state", state_text(hold));
    field("server", sanitize::render(&hold.server));
    field("tool", sanitize::render(what(hold)));
    field("agent", format!("{} (by its own word)", sanitize::render(&hold.agent)));
    field("principal", sanitize::render(&hold.principal));
    field("held", format!("{} ({} ago)", hold.created_at, since(hold.created_at)));
    if hold.state == State::Held {
        field("expires", format!("{} (in {})", hold.expires_at, until(hold.expires_at)));
    }
    field("reason", sanitize::render(&hold.reason));
    field("rules", sanitize::render(&hold.rules.join(", ")));
    for note in &hold.notes {
        field("note", sanitize::render(note));
    }
    for vote in &hold.votes {
        field("verdict", vote_text(vote));
    }
    if let Some(note) = &hold.note {
        field("end", sanitize::render(note));
    }
    field("sha256", &hold.frame_sha256);
    field("size", format!("{} bytes", hold.frame_bytes));
    for warning in &hold.warnings {
        field("WARNING", sanitize::render(warning));
    }
    line("arguments, decoded and indented; escapes such as \\u{202e} show what cannot be seen:");
    for row in view::json_rows(hold.arguments.get()) {
        line(&format!("  | {row}"));
    }
    line("frame, exactly as it was received and would be sent:");
    for row in view::text_rows(hold.frame.as_deref().unwrap_or_default()) {
        line(&format!("  | {row}"));
    }
}

fn field(name: &str, value: impl Display) {
    line(&format!("{name:<10} {value}"));
}

fn state_text(hold: &HoldView) -> String {
    match hold.ended_at {
        Some(at) => format!("{} since {at}", hold.state),
        None => hold.state.to_string(),
    }
}

fn vote_text(vote: &Vote) -> String {
    let verdict = match vote.verdict {
        Verdict::Approve => "approved",
        Verdict::Reject => "rejected",
    };
    let by = sanitize::render(&vote.by);
    match &vote.comment {
        Some(comment) => format!("{verdict} by {by} at {}: {}", vote.at, sanitize::render(comment)),
        None => format!("{verdict} by {by} at {}", vote.at),
    }
}

/// A verdict has taken effect.
pub(super) fn resolved(resolved: &Resolved) {
    let text = match resolved.state {
        State::Forwarding | State::Answered => "approved: the call goes to the server",
        State::Rejected => "rejected: the agent reads the reason",
        State::Unavailable => "the gate could not keep its promises, so the call was refused",
        _ => "ended",
    };
    line(&format!("{} {text}", resolved.id.short()));
}

/// The head of a live list.
pub(super) fn watching(as_json: bool) {
    if !as_json && io::stderr().is_terminal() {
        talk("watching; end with Ctrl-C");
    }
}

/// One piece of news.
pub(super) fn watched(watched: &Watched, as_json: bool) {
    if as_json {
        return json_line(watched);
    }
    let Some(hold) = &watched.hold else { return };
    let word = hold.state;
    let votes: Vec<_> = hold.votes.iter().map(vote_text).collect();
    let more = if votes.is_empty() { sanitize::render(&hold.reason) } else { votes.join("; ") };
    let (server, tool, agent) =
        (sanitize::render(&hold.server), sanitize::render(what(hold)), sanitize::render(&hold.agent));
    line(&format!("{} {word:<11} {server}.{tool} for {agent}: {more}", hold.id.short()));
}

// --- the record

/// Who decided what, and when.
pub(super) fn history(holds: &[HoldView], as_json: bool) {
    if as_json {
        return json(&holds);
    }
    if holds.is_empty() {
        return talk("nothing has been held yet");
    }
    let chars = short_id_chars(holds.iter().map(|hold| hold.id));
    let mut table = table(&["ID", "HELD AT", "SERVER", "TOOL", "STATE", "DECIDED BY", "AFTER", "COMMENT"]);
    for hold in holds {
        let vote = hold.votes.last();
        let after = vote.map(|vote| vote.at).or(hold.ended_at).map(|at| between(hold.created_at, at));
        let comment =
            vote.and_then(|vote| vote.comment.as_deref()).or(hold.note.as_deref()).unwrap_or_default();
        table.add_row([
            short(hold.id, chars),
            seconds(hold.created_at),
            sanitize::render(&hold.server),
            sanitize::render(what(hold)),
            hold.state.to_string(),
            vote.map_or_else(|| "-".to_owned(), |vote| sanitize::render(&vote.by)),
            after.unwrap_or_else(|| "-".to_owned()),
            sanitize::render_cut(comment, REASON_CHARS_MAX).text,
        ]);
    }
    line(&table.to_string());
}

/// Whether the record was altered, and what that cannot tell.
pub(super) fn verification(found: &VerificationView, as_json: bool) {
    if as_json {
        return json(found);
    }
    match &found.broken {
        None => line(&format!("sound: {} events, {} holds, nothing altered", found.events, found.holds)),
        Some(broken) => line(&format!("BROKEN at {}", sanitize::render(broken))),
    }
    line(&format!("checkpoint: {}", found.checkpoint));
    talk(&format!("what this cannot prove: {}", found.cannot_prove));
}

// --- policies

/// Says all that is wrong with a policy.
pub(super) fn policy_errors(errors: &PolicyErrors) -> Exit {
    eprintln!("{}", errors.render(io::stderr().is_terminal()));
    Exit::Usage
}

/// Says what is odd in a policy that works.
pub(super) fn policy_warnings(policy: &Policy) {
    for warning in policy.warnings() {
        eprintln!("{}", warning.render(io::stderr().is_terminal()));
    }
}

/// A policy that can be used.
pub(super) fn policy_checked(policy: &Policy) {
    line(&format!("good: {} rules, sha256 {}", policy.rules().len(), policy.digest()));
}

/// What the cases of one file came to.
pub(super) fn policy_tested(report: &Report) {
    line(&report.file);
    for case in &report.cases {
        let mark = if case.passed() { "ok  " } else { "FAIL" };
        line(&format!("  {mark} {} ({}): {}", case.name, case.subject, case.actual));
        if !case.passed() {
            line(&format!(
                "       line {}: expected {}{}",
                case.line,
                case.expected,
                by(case.expected_rules.as_deref())
            ));
            line(&format!("       decided{}: {}", by(Some(&case.actual_rules)), case.reason));
        }
    }
    for rule in &report.untested_rules {
        line(&format!("  note rule `{rule}` decides none of the cases"));
    }
    line(&format!("  {} cases, {} failed", report.cases.len(), report.failures()));
}

fn by(rules: Option<&[String]>) -> String {
    match rules {
        Some([]) => " by the default".to_owned(),
        Some(rules) => format!(" by {}", rules.join(", ")),
        None => String::new(),
    }
}

// --- errors

/// Something that should not fail has failed.
pub(super) fn failed(error: &dyn std::error::Error) -> Exit {
    talk(&format!("error: {error}"));
    Exit::Failed
}

/// What was typed is wrong.
pub(super) fn usage(error: &dyn std::error::Error) -> Exit {
    talk(&format!("error: {error}"));
    Exit::Usage
}

/// An error with what lies behind it.
pub(super) fn error_chain(error: &anyhow::Error) -> Exit {
    talk(&format!("error: {error:#}"));
    Exit::Failed
}

/// Why nothing came of a question to the gates, with what to do.
pub(super) fn ask_failed(error: &AskError) -> Exit {
    talk(&format!("error: {error}"));
    match error {
        AskError::NoGate => {
            talk(
                "hint: a gate runs as long as an agent has a server wrapped with `holdshort run -- COMMAND`",
            );
            Exit::NoGate
        }
        AskError::NotFound(_) => {
            talk("hint: `holdshort holds` lists what waits, `holdshort history` what has ended");
            Exit::Gone
        }
        AskError::Ambiguous { .. } => Exit::Usage,
        AskError::Broken(_) => Exit::Failed,
        AskError::Refused(refused) => {
            if let Some(hold) = error.ended() {
                hold.votes.iter().for_each(|vote| talk(&vote_text(vote)));
            }
            match refused.code() {
                error_code::NOT_FOUND | error_code::ENDED => Exit::Gone,
                error_code::NOT_ALLOWED => Exit::Refused,
                error_code::INVALID => Exit::Usage,
                _ => Exit::Failed,
            }
        }
    }
}

/// A completion script.
pub(super) fn completions(command: &mut clap::Command, shell: clap_complete::Shell) {
    clap_complete::generate(shell, command, "holdshort", &mut io::stdout());
}

// --- pieces

fn table(head: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled).set_header(head);
    table
}

fn since(from: Timestamp) -> String {
    between(from, Timestamp::now())
}

fn until(to: Timestamp) -> String {
    between(Timestamp::now(), to)
}

/// A time between two moments, to the second: `2m 5s`. Nothing is left of one that is over.
fn between(from: Timestamp, to: Timestamp) -> String {
    let seconds = to.as_second().saturating_sub(from.as_second()).max(0);
    let span = jiff::Span::new().seconds(seconds);
    let rounded = span.round(SpanRound::new().largest(Unit::Hour).smallest(Unit::Second));
    rounded.map_or_else(|_| format!("{seconds}s"), |span| format!("{span:#}"))
}

fn seconds(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%SZ").to_string()
}
