//! A held call as an approver reads it: every token of the frame, one below the other, with nothing hidden and nothing
//! that could leave its place.
//!
//! Used by the command line and the control socket. Works on the raw text, so that numbers, escapes and the order of keys
//! stay as they were written; strings are shown decoded, with everything invisible escaped by `sanitize`.

use std::collections::BTreeSet;

use crate::{
    jsonrpc::scan::{elements, members, unescape},
    sanitize::{self, Flag},
};

/// Characters of one row, so that a terminal does not wrap it into the next one's place.
pub const ROW_CHARS_MAX: usize = 96;

/// A JSON value, indented by two spaces a level, as rows that fit a terminal. A row that goes on ends with `⏎`, which
/// rendered text never contains.
pub fn json_rows(raw: &str) -> Vec<String> {
    let mut rows = Rows::default();
    rows.value(raw, 0, "", "");
    rows.0
}

/// `text` on one line, cut into rows that fit a terminal. A row that goes on ends with `⏎`.
pub fn text_rows(text: &str) -> Vec<String> {
    let mut rows = Rows::default();
    rows.push(0, &sanitize::render(text));
    rows.0
}

#[derive(Default)]
struct Rows(Vec<String>);

impl Rows {
    /// Appends `text`, broken into rows of at most [`ROW_CHARS_MAX`] characters beside the indent.
    fn push(&mut self, depth: usize, text: &str) {
        let indent = "  ".repeat(depth);
        let mut chars = text.chars().peekable();
        loop {
            let row: String = chars.by_ref().take(ROW_CHARS_MAX).collect();
            let goes_on = if chars.peek().is_some() { "⏎" } else { "" };
            self.0.push(format!("{indent}{row}{goes_on}"));
            if goes_on.is_empty() {
                return;
            }
        }
    }

    /// Appends a value behind `label` (its key) and before `comma`. The depth is bounded by the frame's own limit.
    fn value(&mut self, raw: &str, depth: usize, label: &str, comma: &str) {
        let raw = raw.trim();
        match raw.as_bytes().first() {
            Some(b'{') => {
                let pairs =
                    members(raw).map(|(key, value)| (format!("\"{}\": ", sanitize::render(&key)), value));
                self.container(pairs, ('{', '}'), depth, label, comma);
            }
            Some(b'[') => {
                let values = elements(raw).map(|value| (String::new(), value));
                self.container(values, ('[', ']'), depth, label, comma);
            }
            Some(b'"') => {
                let text = sanitize::render(&unescape(raw));
                self.push(depth, &format!("{label}\"{text}\"{comma}"));
            }
            _ => self.push(depth, &format!("{label}{raw}{comma}")),
        }
    }

    fn container<'a>(
        &mut self,
        values: impl Iterator<Item = (String, &'a str)>,
        (open, close): (char, char),
        depth: usize,
        label: &str,
        comma: &str,
    ) {
        let mut values = values.peekable();
        if values.peek().is_none() {
            return self.push(depth, &format!("{label}{open}{close}{comma}"));
        }
        self.push(depth, &format!("{label}{open}"));
        while let Some((label, value)) = values.next() {
            let comma = if values.peek().is_some() { "," } else { "" };
            self.value(value, depth + 1, &label, comma);
        }
        self.push(depth, &format!("{close}{comma}"));
    }
}

/// What in a frame could deceive a reader, in words; each kind once.
pub fn warnings(raw: &str) -> Vec<String> {
    let mut found = BTreeSet::new();
    flag_strings(raw, &mut found);
    // Between the tokens: white space that pushes the rest out of view.
    found.extend(sanitize::flags(raw).into_iter().filter(|flag| *flag == Flag::LongWhitespace));
    found.iter().map(words).collect()
}

fn flag_strings(raw: &str, found: &mut BTreeSet<Flag>) {
    let raw = raw.trim();
    match raw.as_bytes().first() {
        Some(b'{') => members(raw).for_each(|(key, value)| {
            found.extend(sanitize::flags(&key));
            flag_strings(value, found);
        }),
        Some(b'[') => elements(raw).for_each(|value| flag_strings(value, found)),
        Some(b'"') => found.extend(sanitize::flags(&unescape(raw))),
        _ => {}
    }
}

fn words(flag: &Flag) -> String {
    match flag {
        Flag::Control => "holds control characters, which could act on a terminal".to_owned(),
        Flag::Bidi => "holds characters that reverse the direction of the text around them".to_owned(),
        Flag::Invisible => "holds characters that show nothing".to_owned(),
        Flag::TagText(text) => format!("holds invisible text: {}", sanitize::render(text)),
        Flag::MixedScript => {
            "holds a word whose letters come from scripts that do not belong together".to_owned()
        }
        Flag::LongWhitespace => "holds long white space, which pushes what follows out of view".to_owned(),
        Flag::StackedMarks => "stacks more marks on one letter than any language needs".to_owned(),
        Flag::Unassigned => {
            "holds private or unassigned characters, which look different everywhere".to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_token_has_its_row_and_none_can_look_like_another() {
        let raw = r#"{"to":"bob\u202e@example.com","amount":1e2,"lines":["a\nb",{}],"none":[]}"#;
        let expected = [
            "{",
            "  \"to\": \"bob\\u{202E}@example.com\",",
            "  \"amount\": 1e2,",
            "  \"lines\": [",
            "    \"a\\nb\",",
            "    {}",
            "  ],",
            "  \"none\": []",
            "}",
        ];
        assert_eq!(json_rows(raw), expected);
    }

    #[test]
    fn a_long_string_goes_on_in_the_next_row_and_loses_nothing() {
        let raw = format!("\"{}\"", "x".repeat(250));
        let rows = json_rows(&raw);
        assert_eq!(rows.len(), 3);
        assert_eq!(rows.concat().replace('⏎', ""), raw);
        assert!(rows.iter().all(|row| row.chars().count() <= ROW_CHARS_MAX + 1));
    }

    #[test]
    fn what_deceives_is_named_also_where_json_escapes_hide_it() {
        assert_eq!(warnings(r#"{"a":"plain","b":[1,true,null]}"#), Vec::<String>::new());
        let bidi = warnings(r#"{"a":["\u202e"]}"#);
        assert!(bidi.iter().any(|warning| warning.contains("direction")), "{bidi:?}");
        let wide = format!("{{{}\"a\":1}}", " ".repeat(5000));
        assert!(warnings(&wide).iter().any(|warning| warning.contains("white space")));
        let key = warnings("{\"\\u0430dmin\":1,\"\u{0430}dmin2\":{\"x\\u0007\":0}}");
        assert!(key.iter().any(|warning| warning.contains("control")), "{key:?}");
    }
}
