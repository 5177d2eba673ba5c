//! How the demo's story is laid out. Called by the demo alone; every text of the agent and the server is made harmless here.

use std::{
    env,
    io::{self, IsTerminal},
};

use crate::{
    audit::AuditLine,
    cli::render,
    hold::{HoldRecord, Verdict},
    sanitize,
};

/// The begin of a part. Bold on a terminal, unless `NO_COLOR` is set (no-color.org).
pub(super) fn heading(text: &str) {
    let is_set = |variable: &str| env::var_os(variable).is_some_and(|value| !value.is_empty());
    let plain = !io::stdout().is_terminal()
        || is_set("NO_COLOR")
        || env::var_os("TERM").is_none_or(|terminal| terminal == "dumb");
    let text = sanitize::render(text);
    render::line("");
    render::line(&if plain { text } else { format!("\u{1b}[1m{text}\u{1b}[0m") });
}

/// A command for the person to copy.
pub(super) fn command(text: &str) {
    render::line(&format!("    {text}"));
}

/// What somebody does or reads.
pub(super) fn said(who: &str, text: &str) {
    render::line(&format!("    {who}: {}", sanitize::render(text)));
}

/// Who ended a hold, and how.
pub(super) fn ended(record: &HoldRecord) {
    let Some(vote) = record.votes.last() else { return said("the call ends", record.state.word()) };
    let verdict = match vote.verdict {
        Verdict::Approve => "approved by",
        Verdict::Reject => "rejected by",
    };
    let comment = vote.comment.as_deref().map(|comment| format!(": {comment}"));
    said(verdict, &format!("{}{}", vote.by, comment.unwrap_or_default()));
}

/// The lines of the audit log, in short: what happened, to what, and by whose doing.
pub(super) fn audit_lines(lines: &[AuditLine]) {
    for line in lines {
        let Ok(event) = line.event() else { continue };
        let kind = serde_json::to_value(event.kind).unwrap_or_default();
        let words = [kind.as_str().unwrap_or_default(), event.tool.as_deref().unwrap_or_default()];
        let who = event.who.map(|who| format!(" by {who}")).unwrap_or_default();
        let said = words.map(|word| format!("{word:<12}")).concat();
        let text =
            format!("{:>2}  {}  {}{who}", event.seq, event.at.strftime("%H:%M:%S%.3fZ"), said.trim_end());
        render::line(&format!("    {}", sanitize::render(&text)));
    }
}
