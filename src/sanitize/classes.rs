//! Which characters are not what they seem, and what a person should be warned of.
//!
//! Used by `render` (what to escape), by `jsonrpc` and `mcp` (what a name may hold) and by whoever shows a call ([`flags`]).

use unicode_normalization::char::is_combining_mark;
use unicode_security::mixed_script::AugmentedScriptSet;

/// Characters of hidden tag text that a flag quotes.
const MAX_TAG_TEXT_CHARS: usize = 200;

/// White-space characters in a row that people do not write, but that push text out of view.
pub(super) const LONG_RUN_CHARS: usize = 8;

/// Combining marks that may sit on one character. Writing systems need up to three or four.
pub(super) const MAX_MARKS: usize = 4;

/// Characters that reorder their neighbours (the controls of UAX #9).
pub fn is_bidi_control(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Characters that show nothing: the default-ignorable ones, fillers that count as letters, and the blank braille cell.
pub fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{ad}'
        | '\u{34f}'
        | '\u{61c}'
        | '\u{115f}'..='\u{1160}'
        | '\u{17b4}'..='\u{17b5}'
        | '\u{180b}'..='\u{180f}'
        | '\u{200b}'..='\u{200f}'
        | '\u{202a}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}'
        | '\u{2800}'
        | '\u{3164}'
        | '\u{fe00}'..='\u{fe0f}'
        | '\u{feff}'
        | '\u{ffa0}'
        | '\u{fff0}'..='\u{fffb}'
        | '\u{16fe4}'
        | '\u{1bca0}'..='\u{1bca3}'
        | '\u{1d159}'
        | '\u{1d173}'..='\u{1d17a}'
        | '\u{e0000}'..='\u{e0fff}')
}

/// The tag characters, which mirror ASCII and show nothing: text for a model, not for a person.
fn is_tag(c: char) -> bool {
    ('\u{e0000}'..='\u{e007f}').contains(&c)
}

/// Whether `c` shows itself and nothing else: neither control, format, private-use nor unassigned, no white space but the
/// space, not invisible. Combining marks are plain; how many may follow each other is for the renderer.
pub fn is_plain(c: char) -> bool {
    match c {
        ' '..='~' => true,
        _ if c.is_control() || is_invisible(c) => false,
        // The standard library's Debug form escapes what has no glyph (categories C and Z), and also combining marks.
        _ => is_combining_mark(c) || c.escape_debug().len() == 1,
    }
}

/// Whether `name` mixes scripts that no one writes together (UTS #39 section 5.1), as Latin with a Cyrillic `а` does.
pub fn is_mixed_script(name: &str) -> bool {
    !name.is_ascii() && AugmentedScriptSet::for_str(name).is_empty()
}

/// Something about a text that a person who decides by it should know.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Flag {
    /// Control characters other than tab and line feed: they would act on a terminal.
    Control,
    /// Characters that reorder the text around them.
    Bidi,
    /// Characters that show nothing.
    Invisible,
    /// Tag characters, with the ASCII text that they spell (at most 200 characters of it).
    TagText(String),
    /// A word of letters from scripts that do not belong together.
    MixedScript,
    /// A long run of white space, which pushes what follows out of view.
    LongWhitespace,
    /// More combining marks on one character than any language needs.
    StackedMarks,
    /// Private-use or unassigned characters, which look different everywhere.
    Unassigned,
}

/// All that is odd about `text`, in a fixed order and each kind once.
pub fn flags(text: &str) -> Vec<Flag> {
    let mut found = [None, None, None, None, None, None, None, None];
    let mut tags = String::new();
    let (mut blanks, mut marks) = (0, 0);
    for c in text.chars() {
        blanks = if c.is_whitespace() { blanks + 1 } else { 0 };
        marks = if is_combining_mark(c) { marks + 1 } else { 0 };
        if blanks > LONG_RUN_CHARS {
            found[5] = Some(Flag::LongWhitespace);
        }
        if marks > MAX_MARKS {
            found[6] = Some(Flag::StackedMarks);
        }
        if matches!(c, ' '..='~' | '\t' | '\n') {
            continue;
        }
        if is_tag(c) {
            // The mirrored ASCII character; the two tags that mirror none (and controls) only count.
            let mirrored = u8::try_from(u32::from(c) & 0x7f).map_or('?', char::from);
            if !mirrored.is_ascii_control() && tags.len() < MAX_TAG_TEXT_CHARS {
                tags.push(mirrored);
            }
            found[3] = Some(Flag::TagText(String::new()));
        } else if c.is_control() {
            found[0] = Some(Flag::Control);
        } else if is_bidi_control(c) {
            found[1] = Some(Flag::Bidi);
        } else if is_invisible(c) {
            found[2] = Some(Flag::Invisible);
        } else if !c.is_whitespace() && !is_plain(c) {
            found[7] = Some(Flag::Unassigned);
        }
    }
    if found[3].is_some() {
        found[3] = Some(Flag::TagText(tags));
    }
    // By word: a sentence may well quote another language.
    if !text.is_ascii() && text.split(|c: char| !c.is_alphanumeric()).any(is_mixed_script) {
        found[4] = Some(Flag::MixedScript);
    }
    found.into_iter().flatten().collect()
}
