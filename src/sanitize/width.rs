//! How many columns of a terminal a rendered text takes, and cutting it to fit.
//!
//! Used by whoever prints rows. A row that is too wide is wrapped by the terminal, and its rest then stands where another
//! row begins. Where terminals differ the greater width counts: a row may end early, but never wraps.

use unicode_normalization::char::is_combining_mark;
use unicode_width::UnicodeWidthChar;

use super::render::{MARK_CLOSE, MARK_OPEN};

/// Columns of the mark that [`cut_columns`] leaves.
const CUT_COLUMNS: usize = 3;

/// Columns of one character of a rendered text.
fn char_columns(c: char) -> usize {
    match c {
        // Two of them are a flag, or two boxes of two columns each.
        '\u{1f1e6}'..='\u{1f1ff}' => 2,
        _ if is_combining_mark(c) => c.width().unwrap_or(0),
        // Parts of syllables have no width of their own only where they are joined.
        _ => c.width().unwrap_or(1).max(1),
    }
}

/// Columns of `shown`, which is a rendered text.
pub fn columns(shown: &str) -> usize {
    shown.chars().map(char_columns).sum()
}

/// The longest beginning of `shown`, a rendered text, that takes at most `max_columns` columns and does not part a
/// character from the marks on it, with what follows. At least one character, however few columns there are.
pub fn split_columns(shown: &str, max_columns: usize) -> (&str, &str) {
    let (mut used, mut end) = (0, 0);
    let mut chars = shown.char_indices().peekable();
    while let Some((_, c)) = chars.next() {
        used += char_columns(c);
        while let Some((_, mark)) = chars.next_if(|&(_, mark)| is_combining_mark(mark)) {
            used += char_columns(mark);
        }
        if used > max_columns && end > 0 {
            break;
        }
        end = chars.peek().map_or(shown.len(), |&(at, _)| at);
        if used > max_columns {
            break;
        }
    }
    shown.split_at(end)
}

/// `shown`, a rendered text, in at most `max_columns` columns (and at least four): one that is longer ends with `⟨…⟩`.
pub fn cut_columns(shown: &str, max_columns: usize) -> String {
    if columns(shown) <= max_columns {
        return shown.to_owned();
    }
    let (kept, _) = split_columns(shown, max_columns.saturating_sub(CUT_COLUMNS));
    format!("{kept}{MARK_OPEN}…{MARK_CLOSE}")
}
