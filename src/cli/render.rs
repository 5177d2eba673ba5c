//! What the command line prints. The only place that writes to stdout, and the only one that words an error for people at
//! a terminal.
//!
//! Everything that a peer or a model chose goes through `sanitize` before it reaches a terminal, and no row of ours is wider
//! than the terminal: what the terminal wraps would begin where a row of ours begins. JSON output carries the original,
//! escaped as JSON.

pub(super) mod doctor;
pub(super) mod policy;
pub(super) mod tools;

use std::{
    env,
    fmt::Display,
    io::{self, IsTerminal, Write},
};

use jiff::Timestamp;
use serde::Serialize;

pub(super) use self::policy::policy_errors;
use crate::{
    channels::settings::SettingsError,
    config::ConfigError,
    control::{
        api::{HoldView, RememberedView, Resolved, VerificationView, Watched, error_code},
        client::{AskError, Silent},
    },
    desk::keys::Key,
    exit::Exit,
    hold::{HOLD_ID_SHORT_CHARS, HoldId, Remember, State, Verdict, Vote},
    sanitize,
    store::{Location, OutboxCounts},
    telemetry,
    view::{self, between, counted},
};

/// The widest reason in a list, in characters; the whole stands in `show`.
const REASON_CHARS_MAX: usize = 60;

/// The widest name (of an agent, server, tool or user) in a list, in characters.
const NAME_CHARS_MAX: usize = 32;

/// The widest row of one hold, in columns: wider ones are hard to read.
const ROW_COLUMNS_MAX: usize = 100;

/// Columns of the name of a field, with the space behind it.
const FIELD_COLUMNS: usize = 11;

/// What every row begins with that does not begin with the name of a field.
const GUTTER: &str = "  | ";

/// What the second row of a field begins with: the gutter, as wide as a field's name.
const GUTTER_OF_FIELD: &str = "  |        ";

/// What is said of a record with nothing in it, which is sound.
pub(super) const NO_EVENTS: &str = "this record has no event at all: it is new, or a copy of the file without what was in its `-wal` \
                                    file (docs/audit.md)";

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
        match telemetry::as_json(line) {
            Some(line) => say(&line),
            None => say(&format!("holdshort: {line}")),
        }
    }
}

/// Writes to stderr. Where nobody reads that any more, there is nobody to tell.
fn say(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

fn json(value: &impl Serialize) {
    match serde_json::to_string_pretty(value) {
        Ok(text) => line(&sanitize::plain_json(&text)),
        Err(error) => talk(&format!("the answer cannot be written as JSON: {error}")),
    }
}

fn json_line(value: &impl Serialize) {
    match serde_json::to_string(value) {
        Ok(text) => line(&sanitize::plain_json(&text)),
        Err(error) => talk(&format!("the answer cannot be written as JSON: {error}")),
    }
}

/// A line that is JSON already. On a terminal nothing in it acts or hides; elsewhere its bytes stay as they are, because
/// whoever proves the record hashes them.
pub(super) fn stored_json_line(text: &str) {
    if io::stdout().is_terminal() { line(&sanitize::plain_json(text)) } else { line(text) }
}

/// Columns that a row on stdout may have: those of the terminal, else what `COLUMNS` says.
fn columns() -> Option<usize> {
    let of_terminal = || {
        let columns = rustix::termios::tcgetwinsize(io::stdout()).ok()?.ws_col;
        Some(usize::from(columns)).filter(|&columns| columns > 0)
    };
    let named = || env::var("COLUMNS").ok()?.parse().ok().filter(|&columns| columns > 0);
    of_terminal().or_else(named)
}

// --- holds

/// The waiting (and ended) holds; what is said where there are none.
pub(super) fn holds(holds: &[HoldView], as_json: bool, why_empty: &str) {
    if as_json {
        return json(&holds);
    }
    if holds.is_empty() {
        return talk(why_empty);
    }
    let chars = short_id_chars(holds.iter().map(|hold| hold.id));
    let mut table =
        Table::new(["ID", "STATE", "AGENT", "SERVER", "TOOL", "AGE", "LEFT", "REASON"], &[2, 3, 4, 7]);
    for hold in holds {
        let left = left(hold).map_or_else(|| "-".to_owned(), until);
        table.add([
            short(hold.id, chars),
            standing(hold),
            name(&hold.agent),
            name(&hold.server),
            name(what(hold)),
            since(hold.created_at),
            left,
            sanitize::render_cut(&hold.reason, REASON_CHARS_MAX).text,
        ]);
    }
    table.print();
}

/// A gate that lives and does not answer.
pub(super) fn silent(silent: &Silent) {
    talk(&format!("error: {}", sanitize::render(&silent.to_string())));
}

/// When the time of a hold is over, if it has one.
fn left(hold: &HoldView) -> Option<Timestamp> {
    if hold.state == State::Held { Some(hold.expires_at) } else { hold.lapses_at }
}

/// The state of a hold, and whether a caller waits for it.
fn standing(hold: &HoldView) -> String {
    match hold.state {
        State::Held if !hold.attached => "held, no caller".to_owned(),
        state => state.to_string(),
    }
}

/// A name in a list. It is cut: the whole stands in `show`.
pub(super) fn name(text: &str) -> String {
    sanitize::render_cut(text, NAME_CHARS_MAX).text
}

/// The tool, or the method where it is not a tool's call.
pub(super) fn what(hold: &HoldView) -> &str {
    if hold.tool.is_empty() { &hold.method } else { &hold.tool }
}

/// The moment so many seconds after the beginning of all times.
fn after_epoch(seconds: u64) -> Timestamp {
    i64::try_from(seconds).ok().and_then(|at| Timestamp::from_second(at).ok()).unwrap_or(Timestamp::MAX)
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
        let id = hold.id.short();
        let signed = if hold.must_sign { " --sign KEY" } else { "" };
        talk(&format!(
            "to decide: holdshort approve {id}{signed}\n       or: holdshort reject {id} --reason TEXT"
        ));
    } else if hold.state == State::Unknown {
        let id = hold.id.short();
        talk(&format!(
            "once you have looked: holdshort resolve {id} --ran\n                  or: holdshort resolve {id} --did-not-run"
        ));
    }
}

/// All of one hold, row by row.
pub(super) fn hold_card(hold: &HoldView) {
    card_rows(hold, row_columns()).iter().for_each(|row| line(row));
}

/// The same where data is not asked for: all that somebody is about to decide on here.
pub(super) fn shown_before_deciding(hold: &HoldView) {
    talk(&card_rows(hold, row_columns()).join("\n"));
}

/// All of one hold, as rows of at most `columns` columns.
pub(super) fn card_rows(hold: &HoldView, columns: usize) -> Vec<String> {
    let mut card = Card { rows: Vec::new(), columns };
    card.field("hold", hold.id);
    let waits = hold.state == State::Held;
    card.field("state", state_text(hold));
    card.field("server", sanitize::render(&hold.server));
    card.field("tool", sanitize::render(what(hold)));
    card.field("agent", format!("{} (by its own word)", sanitize::render(&hold.agent)));
    card.field("principal", sanitize::render(&hold.principal));
    card.field("held", format!("{} ({} ago)", hold.created_at, since(hold.created_at)));
    if hold.state == State::Held {
        card.field("expires", format!("{} (in {})", hold.expires_at, until(hold.expires_at)));
    } else if let Some(lapses_at) = hold.lapses_at {
        card.field("lapses", format!("{lapses_at} (in {})", until(lapses_at)));
    }
    card.field("reason", sanitize::render(&hold.reason));
    card.field("rules", sanitize::render(&hold.rules.join(", ")));
    for requirement in &hold.requirements {
        card.field("approvals", sanitize::render(requirement));
    }
    if let Some(Remember { seconds_max, whole_tool, uses_max }) = hold.may_remember.filter(|_| waits) {
        let same = if whole_tool { "arguments|tool" } else { "arguments" };
        let most = between(Timestamp::UNIX_EPOCH, after_epoch(seconds_max));
        let calls = counted(uses_max, "call");
        card.field("remember", format!("--for {most} at most, --same {same}, {calls} at most"));
    }
    if hold.may_edit && waits {
        card.field("edit", "the arguments may be changed: --edit");
    }
    for note in &hold.notes {
        card.field("note", sanitize::render(note));
    }
    for vote in &hold.votes {
        card.field("verdict", vote_text(vote));
    }
    if let Some(note) = &hold.note {
        card.field("end", sanitize::render(note));
    }
    card.field("sha256", &hold.frame_sha256);
    card.field("size", format!("{} bytes", hold.frame_bytes));
    for warning in &hold.warnings {
        card.field("WARNING", sanitize::render(warning));
    }
    let room = columns - GUTTER.len();
    card.field("arguments", "decoded and indented; escapes such as \\u{202E} show what is not seen");
    for row in view::json_rows(hold.arguments.get(), room) {
        card.rows.push(format!("{GUTTER}{row}"));
    }
    if let Some(edit) = &hold.edit {
        card.field("edited", "the approver has changed the arguments; what ran, and what it was made of:");
        for row in super::edit::difference(hold.arguments.get(), edit.arguments.get(), room) {
            card.rows.push(format!("{GUTTER}{row}"));
        }
        card.field("edited256", &edit.frame_sha256);
    }
    let sent = if hold.edit.is_some() {
        "exactly as it was received"
    } else {
        "exactly as it was received and would be sent"
    };
    card.field("frame", sent);
    for row in view::text_rows(hold.frame.as_deref().unwrap_or_default(), room) {
        card.rows.push(format!("{GUTTER}{row}"));
    }
    card.rows
}

/// Columns of a row of one hold.
pub(super) fn row_columns() -> usize {
    // What is narrower than this cannot be read anyway.
    columns().unwrap_or(ROW_COLUMNS_MAX).clamp(32, ROW_COLUMNS_MAX)
}

/// Prints a field.
fn field(name: &str, value: impl Display) {
    let mut card = Card { rows: Vec::new(), columns: row_columns() };
    card.field(name, value);
    card.rows.iter().for_each(|row| line(row));
}

/// The rows of one hold, while they are written.
struct Card {
    rows: Vec<String>,
    columns: usize,
}

impl Card {
    /// A field, whose `value` is rendered: its first row behind the name, the others behind a gutter, so that no row begins
    /// with what somebody else chose.
    fn field(&mut self, name: &str, value: impl Display) {
        let mut head = format!("{name:<10} ");
        for row in view::shown_rows(&value.to_string(), self.columns - FIELD_COLUMNS) {
            self.rows.push(format!("{head}{row}"));
            head = GUTTER_OF_FIELD.to_owned();
        }
    }
}

fn state_text(hold: &HoldView) -> String {
    match hold.ended_at {
        Some(at) => format!("{} since {at}", hold.state),
        None => standing(hold),
    }
}

/// How far a verdict can be trusted, in words.
fn trusted(vote: &Vote) -> String {
    let signed = if vote.proof.is_some() { ", signed" } else { "" };
    vote.assurance.map_or_else(|| signed.to_owned(), |level| format!("{signed} ({level}, {})", level.name()))
}

pub(super) fn vote_text(vote: &Vote) -> String {
    let verdict = match vote.verdict {
        Verdict::Approve => "approved",
        Verdict::Reject => "rejected",
    };
    let by = sanitize::render(&vote.by);
    let by = match &vote.person {
        Some(person) => format!("{} ({by})", sanitize::render(person)),
        None => by,
    };
    let trusted = trusted(vote);
    match &vote.comment {
        Some(comment) => format!("{verdict} by {by} at {}{trusted}: {}", vote.at, sanitize::render(comment)),
        None => format!("{verdict} by {by} at {}{trusted}", vote.at),
    }
}

/// A verdict has taken effect.
pub(super) fn resolved(resolved: &Resolved) {
    let text = match resolved.state {
        State::Forwarding | State::Answered => "approved: the call goes to the server",
        State::Granted => "approved: nobody waits just now; the same call, made again, runs at once",
        State::Held => "your vote counts; more people are needed, and the call waits for them",
        State::Rejected => "rejected: the agent reads the reason",
        State::Ran => "resolved: it ran",
        State::NotRun => "resolved: it did not run; made again, the call is held again",
        State::Unavailable => "the gate could not keep its promises, so the call was refused",
        _ => "ended",
    };
    line(&format!("{} {text}", resolved.id.short()));
}

/// A remembered approval was taken back.
pub(super) fn revoked(id: HoldId) {
    line(&format!("{} revoked: people are asked again", id.short()));
}

/// Approvals that count for further calls, or did.
pub(super) fn remembered(all: &[RememberedView], as_json: bool) {
    if as_json {
        return json(&all);
    }
    if all.is_empty() {
        return talk("no approval is remembered");
    }
    let chars = short_id_chars(all.iter().map(|remembered| remembered.id));
    let head = ["ID", "STANDING", "SERVER", "TOOL", "SAME", "USED", "LEFT", "FOR", "BY"];
    let mut table = Table::new(head, &[2, 3, 7, 8]);
    for remembered in all {
        let tool = if remembered.tool.is_empty() { &remembered.method } else { &remembered.tool };
        table.add([
            short(remembered.id, chars),
            remembered.standing.clone(),
            name(&remembered.server),
            name(tool),
            remembered.same.word().to_owned(),
            format!("{} of {}", remembered.uses, remembered.uses_max),
            until(remembered.until),
            name(&remembered.principal),
            name(&remembered.by),
        ]);
    }
    table.print();
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
    let more = match hold.votes.last() {
        Some(vote) => vote_text(vote),
        None => sanitize::render_cut(&hold.reason, REASON_CHARS_MAX).text,
    };
    let (server, tool, agent) = (name(&hold.server), name(what(hold)), name(&hold.agent));
    row(&format!("{} {word:<11} {server}.{tool} for {agent}: {more}", hold.id.short()));
}

/// A line of a list, which the terminal must not wrap.
fn row(text: &str) {
    match columns() {
        Some(columns) => line(&sanitize::cut_columns(text, columns)),
        None => line(text),
    }
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
    let head = ["ID", "HELD AT", "SERVER", "TOOL", "STATE", "DECIDED BY", "AFTER", "COMMENT"];
    let mut table = Table::new(head, &[2, 3, 5, 7]);
    for hold in holds {
        let vote = hold.votes.last();
        let after = vote.map(|vote| vote.at).or(hold.ended_at).map(|at| between(hold.created_at, at));
        let comment =
            vote.and_then(|vote| vote.comment.as_deref()).or(hold.note.as_deref()).unwrap_or_default();
        table.add([
            short(hold.id, chars),
            seconds(hold.created_at),
            name(&hold.server),
            name(what(hold)),
            hold.state.to_string(),
            vote.map_or_else(|| "-".to_owned(), decided_by),
            after.unwrap_or_else(|| "-".to_owned()),
            sanitize::render_cut(comment, REASON_CHARS_MAX).text,
        ]);
    }
    table.print();
}

/// Who has decided, and how far that can be trusted.
fn decided_by(vote: &Vote) -> String {
    let level = vote.assurance.map(|level| format!(" {level}")).unwrap_or_default();
    format!("{}{level}", name(&vote.by))
}

/// Says which record an answer is about.
pub(super) fn record(location: &Location) {
    talk(&format!("record: {}", sanitize::render(&location.to_string())));
}

/// The same as [`verification`], with the record it is about.
pub(super) fn verified(found: &VerificationView, location: &Location, as_json: bool) {
    #[derive(Serialize)]
    struct Verified<'a> {
        record: &'a str,
        #[serde(flatten)]
        found: &'a VerificationView,
    }
    record(location);
    if found.sound && found.events == 0 {
        talk(&format!("warning: {NO_EVENTS}"));
    }
    if as_json {
        return json(&Verified { record: &location.to_string(), found });
    }
    verification(found);
}

/// That nothing was altered, and of how much.
pub(super) fn unaltered(found: &VerificationView) -> String {
    let (events, holds) = (counted(found.events, "event"), counted(found.holds, "hold"));
    format!("{events}, {holds}, nothing altered")
}

/// Whether the record was altered, and what that cannot tell.
pub(super) fn verification(found: &VerificationView) {
    match &found.broken {
        None => line(&format!("sound: {}", unaltered(found))),
        Some(broken) => line(&format!("BROKEN at {}", sanitize::render(broken))),
    }
    line(&format!("checkpoint: {}", found.checkpoint));
    talk(&format!("what this cannot prove: {}", found.cannot_prove));
}

// --- errors

/// Something that should not fail has failed.
pub(super) fn failed(error: &dyn std::error::Error) -> Exit {
    talk(&format!("error: {error}"));
    Exit::Failed
}

/// Why a configuration is refused.
pub(super) fn config_errors(error: &ConfigError) -> Exit {
    say(&error.render(io::stderr().is_terminal()));
    Exit::Usage
}

/// Why a configuration of channels is refused.
pub(super) fn settings_errors(error: &SettingsError) -> Exit {
    say(&error.render(io::stderr().is_terminal()));
    Exit::Usage
}

/// The channels, with their kinds and how their outboxes stand.
pub(super) fn channels(rows: &[(String, &str, OutboxCounts)], as_json: bool) {
    if as_json {
        let rows = rows.iter().map(|(name, kind, counts)| {
            let OutboxCounts { waiting, given_up, last_error } = counts;
            serde_json::json!({"name": name, "kind": kind, "waiting": waiting, "given_up": given_up, "last_error": last_error})
        });
        return json(&rows.collect::<Vec<_>>());
    }
    if rows.is_empty() {
        return talk("no channels are configured");
    }
    let mut table = Table::new(["CHANNEL", "KIND", "TO SEND", "GIVEN UP", "LAST ERROR"], &[4]);
    for (channel, kind, counts) in rows {
        let error = counts.last_error.as_deref().unwrap_or("-");
        table.add([
            name(channel),
            (*kind).to_owned(),
            counts.waiting.to_string(),
            counts.given_up.to_string(),
            sanitize::render_cut(error, REASON_CHARS_MAX).text,
        ]);
    }
    table.print();
}

/// The tokens of a desk, whose texts nobody has.
pub(super) fn tokens(tokens: &[Key], as_json: bool) {
    let scopes = |key: &Key| key.scopes.iter().map(|scope| scope.word()).collect::<Vec<_>>();
    if as_json {
        let rows = tokens.iter().map(|key| {
            let Key { name, created_at, expires_at, .. } = key;
            serde_json::json!({"name": name, "scopes": scopes(key), "created_at": created_at, "expires_at": expires_at})
        });
        return json(&rows.collect::<Vec<_>>());
    }
    if tokens.is_empty() {
        return talk("there are no tokens");
    }
    for key in tokens {
        let name = key.name.as_deref().unwrap_or_default();
        line(&format!("{name} {} until {}", scopes(key).join(","), key.expires_at));
    }
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
        AskError::Unreached(_) => Exit::NoGate,
        AskError::Ambiguous { .. } | AskError::BadStore(_) => Exit::Usage,
        AskError::Broken(_) | AskError::Record(_) => Exit::Failed,
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
    // It panics where it cannot write.
    let mut script = Vec::new();
    clap_complete::generate(shell, command, "holdshort", &mut script);
    line(String::from_utf8_lossy(&script).trim_end());
}

// --- pieces

/// Rows of cells of rendered text, one below the other, that fit the terminal.
struct Table<const CELLS: usize> {
    rows: Vec<[String; CELLS]>,
    /// The columns that are cut where the terminal is too narrow.
    flexible: &'static [usize],
}

impl<const CELLS: usize> Table<CELLS> {
    /// A column is not cut below this width where others can be cut.
    const CELL_COLUMNS_MIN: usize = 6;

    fn new(head: [&str; CELLS], flexible: &'static [usize]) -> Self {
        Self { rows: vec![head.map(str::to_owned)], flexible }
    }

    fn add(&mut self, row: [String; CELLS]) {
        self.rows.push(row);
    }

    /// How wide each cell is, so that a row fits into `limit` columns.
    fn widths(&self, limit: Option<usize>) -> [usize; CELLS] {
        let width =
            |cell: usize| self.rows.iter().map(|row| sanitize::columns(&row[cell])).max().unwrap_or(0);
        let mut widths: [usize; CELLS] = std::array::from_fn(width);
        let Some(limit) = limit else { return widths };
        // A space before and one behind each cell; the last one's is not printed.
        while widths.iter().sum::<usize>() + 2 * CELLS - 1 > limit {
            // The widest gives way.
            let widest = self.flexible.iter().copied().max_by_key(|&cell| widths[cell]);
            match widest.filter(|&cell| widths[cell] > Self::CELL_COLUMNS_MIN) {
                Some(cell) => widths[cell] -= 1,
                None => break,
            }
        }
        widths
    }

    fn lines(&self, limit: Option<usize>) -> Vec<String> {
        let widths = self.widths(limit);
        let line = |row: &[String; CELLS]| {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(widths) {
                let cell = sanitize::cut_columns(cell, width);
                let blank = " ".repeat(width.saturating_sub(sanitize::columns(&cell)));
                line.push_str(&format!(" {cell}{blank} "));
            }
            let line = line.trim_end();
            limit.map_or_else(|| line.to_owned(), |limit| sanitize::cut_columns(line, limit))
        };
        self.rows.iter().map(line).collect()
    }

    fn print(&self) {
        self.lines(columns()).iter().for_each(|text| line(text));
    }
}

pub(super) fn since(from: Timestamp) -> String {
    between(from, Timestamp::now())
}

pub(super) fn until(to: Timestamp) -> String {
    between(Timestamp::now(), to)
}

fn seconds(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%SZ").to_string()
}
