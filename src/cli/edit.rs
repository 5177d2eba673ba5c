//! `holdshort approve --edit`: where the other arguments come from, what differs, and whether that is meant.
//!
//! Called by `holds`. It reads a file, stdin or what an editor leaves; the gate alone says whether they may be used. What a
//! person confirms here is shown the way every call is shown: every token, one below the other, with nothing hidden.

use std::{
    env, fs,
    io::{self, IsTerminal, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::value::RawValue;

use super::render;
use crate::{
    control::api::HoldView,
    gate::EDIT_BYTES_MAX,
    hold::HoldId,
    jsonrpc::scan::{elements, members},
    view,
};

/// Rows of arguments whose differences are looked for one by one; longer ones are shown as a whole.
const DIFF_ROWS_MAX: usize = 2_000;

/// Why there are no other arguments.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoEdit {
    /// What they should have been read from cannot be read.
    #[error("the arguments cannot be read: {0}")]
    Unreadable(#[source] io::Error),
    /// They are too long.
    #[error("the arguments have more than {} KiB", EDIT_BYTES_MAX >> 10)]
    TooLong,
    /// They are not JSON.
    #[error("these are not arguments: {0}")]
    NotJson(#[source] serde_json::Error),
    /// The editor did not end well.
    #[error("the editor ended with {0}, so nothing is approved")]
    Editor(std::process::ExitStatus),
    /// There is nobody who could use an editor, or confirm.
    #[error("{0}")]
    NoTerminal(&'static str),
    /// The person thinks better of it.
    #[error("nothing is approved")]
    NotConfirmed,
}

impl From<io::Error> for NoEdit {
    fn from(error: io::Error) -> Self {
        Self::Unreadable(error)
    }
}

/// The arguments that `hold` is to run with, from `place`: a file, `-` for stdin, or without one an editor. Confirmed by
/// whoever sits at the terminal, or by `is_confirmed`.
pub(super) fn arguments(hold: &HoldView, place: Option<&Path>, is_confirmed: bool) -> Result<String, NoEdit> {
    let text = match place {
        None => edited(hold)?,
        Some(stdin) if stdin.as_os_str() == "-" => read(io::stdin().lock())?,
        Some(file) => read(fs::File::open(file)?)?,
    };
    let new: &RawValue = serde_json::from_str(&text).map_err(NoEdit::NotJson)?;
    let rows = difference(hold.arguments.get(), new.get(), render::row_columns());
    rows.iter().for_each(|row| render::line(row));
    if !is_confirmed {
        if !io::stdin().is_terminal() {
            return Err(NoEdit::NoTerminal(
                "nobody can confirm this here: look at the difference, then add --yes",
            ));
        }
        render::prompt("approve the call with these arguments? [y/N] ");
        let mut answer = String::new();
        io::stdin().read_line(&mut answer)?;
        if !matches!(answer.trim(), "y" | "Y" | "yes") {
            return Err(NoEdit::NotConfirmed);
        }
    }
    Ok(new.get().to_owned())
}

/// All that comes from `from`, if it is not too long.
fn read(from: impl Read) -> Result<String, NoEdit> {
    let mut text = String::new();
    from.take(EDIT_BYTES_MAX as u64 + 1).read_to_string(&mut text)?;
    if text.len() > EDIT_BYTES_MAX { Err(NoEdit::TooLong) } else { Ok(text) }
}

/// What the person's editor leaves of the call's own arguments.
fn edited(hold: &HoldView) -> Result<String, NoEdit> {
    if !io::stdin().is_terminal() {
        return Err(NoEdit::NoTerminal("an editor needs a terminal; give a file, or - for stdin"));
    }
    let file = Scratch::with(&indented(hold.arguments.get()))?;
    let editor = env::var("VISUAL").or_else(|_| env::var("EDITOR")).unwrap_or_else(|_| "vi".to_owned());
    // Words as they are, without a shell: `code --wait`.
    let mut words = editor.split_whitespace();
    let status = Command::new(words.next().unwrap_or("vi")).args(words).arg(&file.0).status()?;
    if !status.success() {
        return Err(NoEdit::Editor(status));
    }
    read(fs::File::open(&file.0)?)
}

/// A file that only this user can read, for as long as it is needed.
struct Scratch(PathBuf);

impl Scratch {
    fn with(text: &str) -> io::Result<Self> {
        let name = HoldId::random().map_err(io::Error::other)?;
        let path = env::temp_dir().join(format!("holdshort-{name}.json"));
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        let scratch = Self(path);
        file.write_all(text.as_bytes())?;
        Ok(scratch)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // An editor may have put another file in its place, or taken it away.
        let _ = fs::remove_file(&self.0);
    }
}

/// A JSON value over several lines, with every token as it was written.
fn indented(raw: &str) -> String {
    let mut text = String::new();
    indent(raw, 0, &mut text);
    text.push('\n');
    text
}

fn indent(raw: &str, depth: usize, text: &mut String) {
    let raw = raw.trim();
    let parts: Vec<(Option<String>, &str)> = match raw.as_bytes().first() {
        Some(b'{') => members(raw)
            .map(|(key, value)| (Some(serde_json::Value::from(&*key).to_string()), value))
            .collect(),
        Some(b'[') => elements(raw).map(|value| (None, value)).collect(),
        _ => return text.push_str(raw),
    };
    let (open, close) = if raw.starts_with('{') { ('{', '}') } else { ('[', ']') };
    text.push(open);
    for (at, (key, value)) in parts.iter().enumerate() {
        text.push_str(if at > 0 { ",\n" } else { "\n" });
        text.push_str(&"  ".repeat(depth + 1));
        if let Some(key) = key {
            text.push_str(key);
            text.push_str(": ");
        }
        indent(value, depth + 1, text);
    }
    if !parts.is_empty() {
        text.push('\n');
        text.push_str(&"  ".repeat(depth));
    }
    text.push(close);
}

/// What differs between two JSON values, in rows of at most `columns` columns: those that go begin with `-`, those that come
/// with `+`.
pub(super) fn difference(old: &str, new: &str, columns: usize) -> Vec<String> {
    let columns = columns.saturating_sub(2);
    let (old, new) = (view::json_rows(old, columns), view::json_rows(new, columns));
    if old.len() > DIFF_ROWS_MAX || new.len() > DIFF_ROWS_MAX {
        let gone = old.iter().map(|row| format!("- {row}"));
        return gone.chain(new.iter().map(|row| format!("+ {row}"))).collect();
    }
    // The longest common subsequence of what is left from (at, other) on.
    let mut common = vec![vec![0u16; new.len() + 1]; old.len() + 1];
    for at in (0..old.len()).rev() {
        for other in (0..new.len()).rev() {
            common[at][other] = if old[at] == new[other] {
                common[at + 1][other + 1] + 1
            } else {
                common[at + 1][other].max(common[at][other + 1])
            };
        }
    }
    let (mut at, mut other, mut rows) = (0, 0, Vec::new());
    while at < old.len() || other < new.len() {
        if at < old.len() && other < new.len() && old[at] == new[other] {
            rows.push(format!("  {}", old[at]));
            (at, other) = (at + 1, other + 1);
        } else if other == new.len() || (at < old.len() && common[at + 1][other] >= common[at][other + 1]) {
            rows.push(format!("- {}", old[at]));
            at += 1;
        } else {
            rows.push(format!("+ {}", new[other]));
            other += 1;
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_is_shown_between_what_stays() {
        let rows = difference(
            r#"{"order":"A-1","amount":9500,"tags":["a","b"]}"#,
            r#"{"order":"A-1","amount":95.00,"tags":["b"]}"#,
            80,
        );
        let expected = [
            "  {",
            "    \"order\": \"A-1\",",
            "-   \"amount\": 9500,",
            "+   \"amount\": 95.00,",
            "    \"tags\": [",
            "-     \"a\",",
            "      \"b\"",
            "    ]",
            "  }",
        ];
        assert_eq!(rows, expected);
        let hidden = difference("{\"to\":\"a\"}", "{\"to\":\"\u{202e}a\\u001b[2J\"}", 80).join("\n");
        assert!(hidden.contains("\\u{202E}") && !hidden.contains(['\u{202e}', '\u{1b}']), "{hidden}");
    }

    #[test]
    fn an_editor_gets_every_token_as_it_was_written() {
        let raw = r#"{"a": 1.00,"b":[ 1e2,{"c\u0061":"\u00e9"} ],"d":{},"e":[]}"#;
        let text = indented(raw);
        let expected = "{\n  \"a\": 1.00,\n  \"b\": [\n    1e2,\n    {\n      \"ca\": \"\\u00e9\"\n    }\n  ],\n  \"d\": {},\n  \"e\": []\n}\n";
        assert_eq!(text, expected);
        assert_eq!(crate::jsonrpc::canonical::canonical(&text), crate::jsonrpc::canonical::canonical(raw));
    }
}
