//! Text of a peer as visible characters on one line, and back.
//!
//! Used by the terminal, pages and messages. The rendering is invertible: every escape begins with a backslash or `⟨`, and
//! a backslash or bracket of the text itself is escaped. So nothing that a peer writes can pass for a mark of ours.

use unicode_normalization::char::is_combining_mark;

use super::classes::{LONG_RUN_CHARS, MAX_MARKS, is_plain};

/// Opens a mark of ours. (Nothing forbids it in a text; there it is escaped.)
pub(super) const MARK_OPEN: char = '⟨';
/// Closes a mark of ours.
pub(super) const MARK_CLOSE: char = '⟩';

/// Ends a row of a text that goes on in the next one. (In a text it is escaped, as the other marks are.)
pub const ROW_GOES_ON: char = '⏎';

/// Bytes that [`unrender`] makes at most: a short mark can stand for any number of characters.
const MAX_UNRENDERED_BYTES: usize = 64 * 1024 * 1024;

/// A text as it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// What to print.
    pub text: String,
    /// Characters of the original that are not in it. Whoever sees a text that is not whole cannot approve by it.
    pub hidden_chars: usize,
}

/// The whole of `text`, on one line, with everything that cannot be seen shown as an escape: `\n`, `\r`, `\t`, `\\`,
/// `\u{202E}`; and more than eight of one kind of white space (or of one escaped character) in a row as a count, such as
/// `⟨4998 spaces⟩` or `⟨40 × \n⟩`.
pub fn render(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for piece in Pieces::of(text) {
        piece.write(&mut shown);
    }
    shown
}

/// As [`render`], but cut after at most `max_chars` characters (never inside an escape), with a mark that says how many
/// characters of the original are missing. The mark comes on top of `max_chars`.
pub fn render_cut(text: &str, max_chars: usize) -> Shown {
    let mut shown = String::new();
    let mut chars = 0;
    let mut rest = text.chars().count();
    let mut buffer = String::new();
    for piece in Pieces::of(text) {
        buffer.clear();
        piece.write(&mut buffer);
        chars += buffer.chars().count();
        if chars > max_chars {
            shown.push_str(&format!("{MARK_OPEN}… {rest} more characters{MARK_CLOSE}"));
            return Shown { text: shown, hidden_chars: rest };
        }
        shown.push_str(&buffer);
        rest -= piece.count;
    }
    Shown { text: shown, hidden_chars: 0 }
}

/// What [`render`] made of which text. `None` for anything that `render` does not write, and for texts over 64 MiB.
pub fn unrender(shown: &str) -> Option<String> {
    let mut text = String::with_capacity(shown.len());
    let mut rest = shown;
    while let Some(c) = rest.chars().next() {
        let (c, count, after) = match c {
            '\\' => {
                let (c, after) = read_escape(rest)?;
                (c, 1, after)
            }
            MARK_OPEN => read_mark(rest)?,
            MARK_CLOSE => return None,
            _ => (c, 1, &rest[c.len_utf8()..]),
        };
        if text.len() + count.checked_mul(c.len_utf8())? > MAX_UNRENDERED_BYTES {
            return None;
        }
        text.extend(std::iter::repeat_n(c, count));
        rest = after;
    }
    // One text has one rendering; another spelling of it is not ours.
    (render(&text) == shown).then_some(text)
}

/// The same character so many times, shown in one way.
struct Piece {
    c: char,
    count: usize,
    is_escaped: bool,
}

impl Piece {
    fn write(&self, shown: &mut String) {
        if self.count == 1 {
            if self.is_escaped { write_escape(self.c, shown) } else { shown.push(self.c) }
        } else if self.c == ' ' {
            shown.push_str(&format!("{MARK_OPEN}{} spaces{MARK_CLOSE}", self.count));
        } else {
            shown.push_str(&format!("{MARK_OPEN}{} × ", self.count));
            write_escape(self.c, shown);
            shown.push(MARK_CLOSE);
        }
    }
}

/// Splits a text into what is shown as one thing.
struct Pieces<'a> {
    rest: &'a str,
    /// How many combining marks more may stand on the character before.
    marks_left: usize,
}

impl<'a> Pieces<'a> {
    fn of(text: &'a str) -> Self {
        // A mark at the beginning would sit on whatever is printed before.
        Self { rest: text, marks_left: 0 }
    }

    /// Whether `c` here must be shown as an escape; counts the combining marks.
    fn must_escape(&mut self, c: char) -> bool {
        if matches!(c, '\\' | MARK_OPEN | MARK_CLOSE | ROW_GOES_ON) || !is_plain(c) {
            self.marks_left = 0;
            return true;
        }
        if is_combining_mark(c) {
            let is_over = self.marks_left == 0;
            self.marks_left = self.marks_left.saturating_sub(1);
            return is_over;
        }
        // A mark on a space would look as if it stood alone.
        self.marks_left = if c == ' ' { 0 } else { MAX_MARKS };
        false
    }
}

impl Iterator for Pieces<'_> {
    type Item = Piece;

    fn next(&mut self) -> Option<Piece> {
        let c = self.rest.chars().next()?;
        let is_escaped = self.must_escape(c);
        let mut count = 1;
        if c == ' ' || is_escaped {
            let run = self.rest.chars().take_while(|&other| other == c).count();
            // A short run is shown as it is, one by one. (Backslashes too: one after the other, each is escaped.)
            if run > LONG_RUN_CHARS {
                count = run;
            }
        }
        self.rest = &self.rest[count * c.len_utf8()..];
        Some(Piece { c, count, is_escaped })
    }
}

fn write_escape(c: char, shown: &mut String) {
    match c {
        '\n' => shown.push_str("\\n"),
        '\r' => shown.push_str("\\r"),
        '\t' => shown.push_str("\\t"),
        '\\' => shown.push_str("\\\\"),
        _ => shown.push_str(&format!("\\u{{{:X}}}", u32::from(c))),
    }
}

/// The character of the escape at the beginning of `text`, and what follows it.
fn read_escape(text: &str) -> Option<(char, &str)> {
    let rest = text.strip_prefix('\\')?;
    let simple = match rest.as_bytes().first()? {
        b'n' => '\n',
        b'r' => '\r',
        b't' => '\t',
        b'\\' => '\\',
        _ => {
            let (digits, after) = rest.strip_prefix("u{")?.split_once('}')?;
            return Some((char::from_u32(u32::from_str_radix(digits, 16).ok()?)?, after));
        }
    };
    Some((simple, &rest[1..]))
}

/// The character and count of the mark at the beginning of `text`, and what follows it.
fn read_mark(text: &str) -> Option<(char, usize, &str)> {
    let (mark, after) = text.strip_prefix(MARK_OPEN)?.split_once(MARK_CLOSE)?;
    let (count, what) = mark.split_once(' ')?;
    let count = count.parse().ok()?;
    if what == "spaces" {
        return Some((' ', count, after));
    }
    let (c, nothing) = read_escape(what.strip_prefix("× ")?)?;
    nothing.is_empty().then_some((c, count, after))
}
