//! What `holdshort tools` prints. Names, descriptions and schemas are a server's words: all of them are rendered.

use super::{Card, GUTTER, NAME_CHARS_MAX, Table, json, line, name, row_columns, seconds, talk};
use crate::{control::tools::ToolView, sanitize, view};

/// Characters of a digest in a list, and in what is to be typed.
const DIGEST_CHARS: usize = 12;

/// The tools that servers have listed.
pub(in crate::cli) fn list(tools: &[ToolView], as_json: bool) {
    if as_json {
        return json(&tools);
    }
    if tools.is_empty() {
        return talk("there is no such tool: a gate records what servers list, and what they change");
    }
    let mut table = Table::new(["SERVER", "TOOL", "STATE", "SHA256", "ACCEPTED", "BY", "LISTED"], &[0, 1, 5]);
    for tool in tools {
        table.add([
            name(&tool.server),
            name(&tool.tool),
            if tool.changed.is_some() { "CHANGED" } else { "as accepted" }.to_owned(),
            short(&tool.sha256).to_owned(),
            seconds(tool.accepted_at),
            tool.accepted_by.as_deref().map_or_else(|| "first use".to_owned(), name),
            seconds(tool.last_seen_at),
        ]);
    }
    table.print();
    let changed = tools.iter().filter(|tool| tool.changed.is_some()).count();
    if changed > 0 {
        talk(&format!(
            "{changed} changed: their calls are held; `holdshort tools show SERVER TOOL` says what has changed"
        ));
    }
}

/// One tool, whole: its definition, and how it differs from what is listed now.
pub(in crate::cli) fn show(tool: &ToolView, as_json: bool) {
    if as_json {
        return json(tool);
    }
    let columns = row_columns();
    let room = columns - GUTTER.len();
    let mut card = Card { rows: Vec::new(), columns };
    card.field("server", sanitize::render(&tool.server));
    card.field("tool", sanitize::render(&tool.tool));
    let by = tool.accepted_by.as_deref().map_or_else(|| "first use".to_owned(), sanitize::render);
    card.field("accepted", format!("{} ({by})", tool.accepted_at));
    card.field("sha256", &tool.sha256);
    card.field("listed", format!("{} first, {} last", tool.first_seen_at, tool.last_seen_at));
    if let Some(change) = &tool.changed {
        card.field("CHANGED", format!("{}: until a definition is accepted, calls are held", change.since));
        card.field("sha256 now", &change.sha256);
        card.field("difference", "- as accepted, + as listed now");
        match &change.difference {
            Some(rows) => {
                for row in rows.iter().flat_map(|row| view::text_rows(row, room)) {
                    card.rows.push(format!("{GUTTER}{row}"));
                }
            }
            None => card.rows.push(format!("{GUTTER}a definition was too long to be kept")),
        }
    }
    let now = tool.changed.as_ref().map_or(&tool.definition, |change| &change.definition);
    let what = if tool.changed.is_some() { "as it is listed now" } else { "as it was accepted" };
    for warning in now.iter().flat_map(|text| view::warnings(text.get())) {
        card.field("WARNING", sanitize::render(&warning));
    }
    card.field(
        "definition",
        format!("the server's own words, {what}; escapes such as \\u{{202E}} show what is not seen"),
    );
    match now {
        Some(text) => {
            for row in view::json_rows(text.get(), room) {
                card.rows.push(format!("{GUTTER}{row}"));
            }
        }
        None => card.rows.push(format!("{GUTTER}it was too long to be kept, and cannot be accepted")),
    }
    if tool.definitions.len() > 1 {
        card.field("history", "all definitions that are kept, the oldest first");
        for kept in &tool.definitions {
            let row = format!("{} {} {} bytes", seconds(kept.seen_at), short(&kept.sha256), kept.bytes);
            card.rows.push(format!("{GUTTER}{row}"));
        }
    }
    card.rows.iter().for_each(|row| line(row));
    if let Some(change) = &tool.changed {
        let (server, named) = (in_shell(&tool.server), in_shell(&tool.tool));
        talk(&format!(
            "to accept what it is now: holdshort tools accept {server} {named} {}\n   to stay with what it was: holdshort tools accept {server} {named} {}",
            short(&change.sha256),
            short(&tool.sha256)
        ));
    }
}

/// A definition has been accepted.
pub(in crate::cli) fn accepted(tool: &ToolView, as_json: bool) {
    if as_json {
        return json(tool);
    }
    let (server, named) = (name(&tool.server), name(&tool.tool));
    line(&format!("{server}.{named}: the definition {} counts", short(&tool.sha256)));
}

fn short(sha256: &str) -> &str {
    sha256.get(..DIGEST_CHARS).unwrap_or(sha256)
}

/// A name as a word of a command. A name that a shell could take for more is not repeated: a server has chosen it.
fn in_shell(text: &str) -> &str {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/');
    let is_word = !text.is_empty()
        && text.len() <= NAME_CHARS_MAX * 2
        && !text.starts_with('-')
        && text.chars().all(is_plain);
    if is_word { text } else { "NAME" }
}
