//! Text of strangers as pieces that can be shown differently: keys, marks of ours, what looks like a secret.
//!
//! Used by the desk's pages and by channels. What a piece says comes from `view` and `sanitize` and is escaped by the templates; nothing is left out
//! here and nothing is added.

use crate::{sanitize, view};

/// Columns after which a row is broken by a mark; a page wraps long before.
const COLUMNS: usize = 4096;

/// Bytes up to which what is no argument stands on one line.
const BESIDES_BYTES: usize = 200;

/// The shortest text that is taken for a secret by its beginning, in bytes.
const SECRET_BYTES_MIN: usize = 16;

/// What secrets begin with, as those who give them out say.
const SECRET_BEGINNINGS: [&str; 21] = [
    "sk-",
    "sk_live_",
    "sk_test_",
    "rk_live_",
    "ghp_",
    "gho_",
    "ghs_",
    "ghu_",
    "github_pat_",
    "glpat-",
    "xoxb-",
    "xoxp-",
    "xapp-",
    "AKIA",
    "ASIA",
    "AIza",
    "eyJ",
    "npm_",
    "pypi-",
    "hsd_",
    "hf_",
];

/// Keys whose value is a secret, whatever it looks like; compared without case, `-` and `_`.
const SECRET_KEYS: [&str; 10] = [
    "password",
    "passwd",
    "passphrase",
    "secret",
    "clientsecret",
    "apikey",
    "accesstoken",
    "refreshtoken",
    "privatekey",
    "authorization",
];

/// What a piece is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Text as it is.
    Plain,
    /// The name of a member.
    Key,
    /// An escape or a count: ours, not the text's.
    Mark,
    /// Shown when it is asked for.
    Secret,
}

/// A part of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// What it is.
    pub class: Class,
    /// What it says, rendered.
    pub text: String,
}

impl Piece {
    fn new(class: Class, text: &str) -> Self {
        Self { class, text: text.to_owned() }
    }

    /// Its class in the style sheet.
    pub fn name(&self) -> &'static str {
        match self.class {
            Class::Plain => "",
            Class::Key => "key",
            Class::Mark => "mark",
            Class::Secret => "secret",
        }
    }

    /// Whether it is shown only when it is asked for.
    pub fn is_secret(&self) -> bool {
        self.class == Class::Secret
    }

    /// How long it is, in characters.
    pub fn chars(&self) -> usize {
        self.text.chars().count()
    }
}

/// A row of a value.
pub type Row = Vec<Piece>;

/// A JSON value as rows; see [`view::json_rows`].
pub fn json_rows(raw: &str) -> Vec<Row> {
    let mut in_string = false;
    let rows = view::json_rows(raw, COLUMNS);
    rows.iter().map(|row| json_row(row, &mut in_string)).collect()
}

/// What a frame's params hold besides the name and the arguments of a tool, as rows: on one line where it is short and says
/// itself.
pub fn besides_rows(frame: &str) -> Vec<Row> {
    match view::besides_arguments(frame) {
        None => Vec::new(),
        Some(rest) if rest.len() <= BESIDES_BYTES && !rest.contains('\\') => vec![text(&rest)],
        Some(rest) => json_rows(&rest),
    }
}

/// A text of one line as pieces.
pub fn text(raw: &str) -> Row {
    let mut row = Row::new();
    push_text(&mut row, &sanitize::render(raw));
    row
}

/// `in_string`: whether the row begins inside of a string, and then whether it ends there.
fn json_row(row: &str, in_string: &mut bool) -> Row {
    let mut pieces = Row::new();
    let goes_on = row.ends_with(sanitize::ROW_GOES_ON);
    if !std::mem::replace(in_string, goes_on) {
        let text = row.trim_start_matches(' ');
        let indent = row.len() - text.len();
        if indent > 0 {
            pieces.push(Piece::new(Class::Plain, &row[..indent]));
        }
        if let Some(end) = key_end(text) {
            let (key, value) = text.split_at(end);
            let mut named = Row::new();
            push_marked(&mut named, key, Class::Key);
            pieces.append(&mut named);
            pieces.push(Piece::new(Class::Plain, ": "));
            let value = &value[2..];
            match value.strip_prefix('"').and_then(|rest| rest.split_at_checked(string_end(rest)?)) {
                Some((secret, rest)) if is_secret_key(key) && !secret.is_empty() => {
                    pieces.push(Piece::new(Class::Plain, "\""));
                    pieces.push(Piece::new(Class::Secret, secret));
                    pieces.push(Piece::new(Class::Plain, rest));
                }
                _ => push_text(&mut pieces, value),
            }
            return pieces;
        }
        push_text(&mut pieces, text);
        return pieces;
    }
    push_text(&mut pieces, row);
    pieces
}

/// Where the key ends with which a row begins, its quotes included.
fn key_end(row: &str) -> Option<usize> {
    let end = string_end(row.strip_prefix('"')?)? + 2;
    row[end..].starts_with(": ").then_some(end)
}

/// Where a string ends, of which the opening quote is gone. A quote inside of it has a backslash before it.
fn string_end(text: &str) -> Option<usize> {
    let mut is_escaped = false;
    text.char_indices().find_map(|(at, c)| {
        let was_escaped = std::mem::replace(&mut is_escaped, false);
        match c {
            '\\' => is_escaped = !was_escaped,
            '"' if !was_escaped => return Some(at),
            _ => {}
        }
        None
    })
}

fn is_secret_key(key: &str) -> bool {
    let plain: String = key.chars().filter(char::is_ascii_alphanumeric).collect();
    SECRET_KEYS.contains(&&*plain.to_ascii_lowercase())
}

/// Appends rendered text: what looks like a secret apart, and marks apart.
fn push_text(row: &mut Row, shown: &str) {
    let mut rest = shown;
    while let Some((before, secret, after)) = next_secret(rest) {
        push_marked(row, before, Class::Plain);
        row.push(Piece::new(Class::Secret, secret));
        rest = after;
    }
    push_marked(row, rest, Class::Plain);
}

/// The first thing that looks like a secret, with what is around it.
fn next_secret(text: &str) -> Option<(&str, &str, &str)> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '+' | '/' | '=');
    let mut from = 0;
    while let Some(begin) = text[from..].find(is_word).map(|at| from + at) {
        let end = text[begin..].find(|c| !is_word(c)).map_or(text.len(), |at| begin + at);
        let word = &text[begin..end];
        if word.starts_with("-----BEGIN") {
            let key_end = text[end..].find("-----END").map_or(text.len(), |at| end + at);
            return Some((&text[..begin], &text[begin..key_end], &text[key_end..]));
        }
        // What stands before it in the same word, as in `token=sk-…`, is no part of it.
        let inner = word.rfind('=').filter(|&at| at + 1 < word.len()).map_or(0, |at| at + 1);
        let secret = &word[inner..];
        if secret.len() >= SECRET_BYTES_MIN && SECRET_BEGINNINGS.iter().any(|known| secret.starts_with(known))
        {
            return Some((&text[..begin + inner], secret, &text[end..]));
        }
        from = end;
    }
    None
}

/// Appends rendered text, in which marks are pieces of their own.
fn push_marked(row: &mut Row, shown: &str, class: Class) {
    let mut rest = shown;
    while let Some((at, len)) = next_mark(rest) {
        if at > 0 {
            row.push(Piece::new(class, &rest[..at]));
        }
        row.push(Piece::new(Class::Mark, &rest[at..at + len]));
        rest = &rest[at + len..];
    }
    if !rest.is_empty() {
        row.push(Piece::new(class, rest));
    }
}

/// The first escape of what cannot be seen, or count, and its length in bytes. `\\` and `\"` are what they look like.
fn next_mark(shown: &str) -> Option<(usize, usize)> {
    let mut chars = shown.char_indices();
    while let Some((at, c)) = chars.next() {
        let rest = &shown[at..];
        let len = match c {
            '\\' => match chars.next() {
                Some((_, 'u')) => rest.find('}').map(|end| end + 1),
                Some((_, 'n' | 'r' | 't')) => Some(2),
                _ => None,
            },
            '⟨' => rest.find('⟩').map(|end| end + '⟩'.len_utf8()),
            sanitize::ROW_GOES_ON => Some(c.len_utf8()),
            _ => None,
        };
        if let Some(len) = len {
            return Some((at, len));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn classes(row: &Row) -> Vec<(Class, &str)> {
        row.iter().map(|piece| (piece.class, &*piece.text)).collect()
    }

    #[test]
    fn keys_marks_and_secrets_are_told_apart() {
        use Class::{Key, Mark, Plain, Secret};
        let rows = json_rows(
            r#"{"to":"a\u202eb","Api_Key":"x \"y","cmd":"curl -H token=ghp_0123456789abcdefXYZ; ls","n\n":1}"#,
        );
        assert_eq!(
            classes(&rows[1])[1..],
            [(Key, "\"to\""), (Plain, ": "), (Plain, "\"a"), (Mark, "\\u{202E}"), (Plain, "b\",")]
        );
        assert_eq!(
            classes(&rows[2])[1..],
            [(Key, "\"Api_Key\""), (Plain, ": "), (Plain, "\""), (Secret, "x \\\"y"), (Plain, "\",")]
        );
        assert_eq!(
            classes(&rows[3])[3..],
            [(Plain, "\"curl -H token="), (Secret, "ghp_0123456789abcdefXYZ"), (Plain, "; ls\",")]
        );
        assert_eq!(classes(&rows[4])[1..3], [(Key, "\"n"), (Mark, "\\n")]);
        assert_eq!(classes(&text("⟨9⟩\\n"))[0], (Mark, "\\u{27E8}"), "a mark of theirs is no mark");
        assert_eq!(classes(&text("a\\n")), [(Plain, "a\\\\n")]);
        let pem = text("x -----BEGIN PRIVATE KEY----- MIIE -----END PRIVATE KEY-----");
        assert!(pem.iter().any(|piece| piece.is_secret() && piece.text.contains("MIIE")));
    }

    proptest! {
        #[test]
        fn the_pieces_of_a_row_are_the_row(value in "[\"\\\\:, {}a⏎⟨⟩東\u{202e}=_-]{0,80}", key in "(token|password|sk-a|[a-z\"]{0,9})") {
            let raw = serde_json::json!({key: [value.clone(), {"password": value}]}).to_string();
            for (row, shown) in json_rows(&raw).iter().zip(view::json_rows(&raw, COLUMNS)) {
                prop_assert_eq!(row.iter().map(|piece| &*piece.text).collect::<String>(), shown);
            }
        }
    }
}
