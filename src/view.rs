//! A held call as an approver reads it: every token of the frame, one below the other, with nothing hidden and nothing
//! that could leave its place.
//!
//! Used by the command line, the desk, the terminal UI and the control socket. Works on the raw text, so that numbers, escapes and the order of keys
//! stay as they were written; strings are shown decoded, with everything invisible escaped by `sanitize`.

mod hosts;
pub mod markup;

use std::{collections::BTreeSet, fmt};

use jiff::{SpanRound, Timestamp, Unit};

use crate::{
    jsonrpc::scan::{elements, members, unescape},
    sanitize::{self, Flag},
};

/// The widest indent, in columns. What lies deeper stands there too, and its brackets tell how deep it is.
const INDENT_COLUMNS_MAX: usize = 32;

/// The narrowest rows there are, in columns: below that nothing can be read.
const ROW_COLUMNS_MIN: usize = 16;

/// A JSON value, indented by two spaces a level, as rows of at most `columns` columns of a terminal, indent included. A
/// row that goes on ends with `⏎`, and the next one has the same indent. Quotes in strings are shown as `\"`. So the
/// value can be rebuilt from the rows, and no two look the same.
pub fn json_rows(raw: &str, columns: usize) -> Vec<String> {
    let columns = columns.max(ROW_COLUMNS_MIN);
    let mut rows = Rows { rows: Vec::new(), columns };
    rows.value(raw, 0, "", "");
    rows.rows
}

/// `text`, rendered, as rows of at most `columns` columns. A row that goes on ends with `⏎`.
pub fn text_rows(text: &str, columns: usize) -> Vec<String> {
    shown_rows(&sanitize::render(text), columns)
}

/// The same for a text that is rendered already.
pub fn shown_rows(shown: &str, columns: usize) -> Vec<String> {
    let mut rows = Rows { rows: Vec::new(), columns: columns.max(ROW_COLUMNS_MIN) };
    rows.push(0, shown);
    rows.rows
}

struct Rows {
    rows: Vec<String>,
    columns: usize,
}

impl Rows {
    /// Appends `text`, broken into rows.
    fn push(&mut self, depth: usize, text: &str) {
        // Half of a row at least is for the text.
        let indent = (2 * depth).min(INDENT_COLUMNS_MAX).min(self.columns / 2);
        let (blank, room) = (" ".repeat(indent), self.columns - indent);
        let mut rest = text;
        loop {
            let (last, after) = sanitize::split_columns(rest, room);
            if after.is_empty() {
                return self.rows.push(format!("{blank}{last}"));
            }
            // The mark takes a column too.
            let (row, after) = sanitize::split_columns(rest, room - 1);
            self.rows.push(format!("{blank}{row}{}", sanitize::ROW_GOES_ON));
            rest = after;
        }
    }

    /// Appends a value behind `label` (its key) and before `comma`. The depth is bounded by the frame's own limit.
    fn value(&mut self, raw: &str, depth: usize, label: &str, comma: &str) {
        let raw = raw.trim();
        match raw.as_bytes().first() {
            Some(b'{') => {
                let pairs = members(raw).map(|(key, value)| (format!("{}: ", quoted(&key)), value));
                self.container(pairs, ('{', '}'), depth, label, comma);
            }
            Some(b'[') => {
                let values = elements(raw).map(|value| (String::new(), value));
                self.container(values, ('[', ']'), depth, label, comma);
            }
            Some(b'"') => self.push(depth, &format!("{label}{}{comma}", quoted(&unescape(raw)))),
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

/// A string as it is shown in JSON: its end is the first quote without a backslash.
fn quoted(text: &str) -> String {
    format!("\"{}\"", sanitize::render(text).replace('"', "\\\""))
}

/// What a frame's params hold besides the name and the arguments of a tool (`_meta`, nearly always), as JSON; `None` if
/// nothing. For what shows the arguments: with this, everything of a call is shown.
pub fn besides_arguments(frame: &str) -> Option<String> {
    let params = members(frame).find(|(key, _)| key == "params").map(|(_, params)| params)?;
    let rest = members(params).filter(|(key, _)| key != "name" && key != "arguments");
    let pairs: Vec<_> =
        rest.map(|(key, value)| format!("{}:{value}", serde_json::Value::from(&*key))).collect();
    (!pairs.is_empty()).then(|| format!("{{{}}}", pairs.join(",")))
}

/// A time between two moments, to the second: `2m 5s`. Nothing is left of one that is over.
pub fn between(from: Timestamp, to: Timestamp) -> String {
    let seconds = to.as_second().saturating_sub(from.as_second()).max(0);
    let span = jiff::Span::new().seconds(seconds);
    let rounded = span.round(SpanRound::new().largest(Unit::Hour).smallest(Unit::Second));
    rounded.map_or_else(|_| format!("{seconds}s"), |span| format!("{span:#}"))
}

/// How many there are of `one`: `1 hold`, `2 holds`.
pub fn counted<N: fmt::Display + PartialEq + From<u8>>(count: N, one: &str) -> String {
    let plural = if count == N::from(1) { "" } else { "s" };
    format!("{count} {one}{plural}")
}

/// What in a frame could deceive a reader, in words; each kind once.
pub fn warnings(raw: &str) -> Vec<String> {
    let (mut found, mut hosts) = (BTreeSet::new(), BTreeSet::new());
    flag_strings(raw, &mut found, &mut hosts);
    // Between the tokens: white space that pushes the rest out of view.
    found.extend(sanitize::flags(raw).into_iter().filter(|flag| *flag == Flag::LongWhitespace));
    found.iter().map(words).chain(hosts::warnings(&hosts)).collect()
}

fn flag_strings(raw: &str, found: &mut BTreeSet<Flag>, names: &mut BTreeSet<(String, String)>) {
    let raw = raw.trim();
    match raw.as_bytes().first() {
        Some(b'{') => members(raw).for_each(|(key, value)| {
            look(&key, found, names);
            flag_strings(value, found, names);
        }),
        Some(b'[') => elements(raw).for_each(|value| flag_strings(value, found, names)),
        Some(b'"') => look(&unescape(raw), found, names),
        _ => {}
    }
}

fn look(text: &str, found: &mut BTreeSet<Flag>, names: &mut BTreeSet<(String, String)>) {
    found.extend(sanitize::flags(text));
    hosts::find(text, names);
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
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_token_has_its_row_and_none_can_look_like_another() {
        let raw =
            r#"{"to":"bob\u202e@example.com","amount":1e2,"lines":["a\nb",{}],"none":[],"x\": \"y":"\\\""}"#;
        let expected = [
            "{",
            "  \"to\": \"bob\\u{202E}@example.com\",",
            "  \"amount\": 1e2,",
            "  \"lines\": [",
            "    \"a\\nb\",",
            "    {}",
            "  ],",
            "  \"none\": [],",
            "  \"x\\\": \\\"y\": \"\\\\\\\"\"",
            "}",
        ];
        assert_eq!(json_rows(raw, 80), expected);
    }

    #[test]
    fn a_long_string_goes_on_in_the_next_row_and_loses_nothing() {
        let raw = format!("\"{}\"", "x".repeat(250));
        let rows = json_rows(&raw, 100);
        assert_eq!(rows.len(), 3);
        assert_eq!(rows.concat().replace('⏎', ""), raw);
        assert!(rows.iter().all(|row| row.chars().count() <= 100));
        // One that fills its row exactly does not go on.
        assert_eq!(shown_rows(&"x".repeat(40), 40).len(), 1);
        assert_eq!(shown_rows(&"x".repeat(41), 40), ["x".repeat(39) + "⏎", "xx".to_owned()]);
        assert_eq!(text_rows("", 40), [""]);
    }

    #[test]
    fn a_deep_value_stays_within_its_columns() {
        let raw = format!("{}\"{}\"{}", "[".repeat(60), "東".repeat(100), "]".repeat(60));
        for columns in [16, 20, 76, 96] {
            let rows = json_rows(&raw, columns);
            assert!(rows.iter().all(|row| sanitize::columns(row) <= columns), "{columns}: {rows:#?}");
            assert_eq!(rows.concat().replace(['⏎', ' '], ""), raw);
        }
    }

    /// What the rows of [`json_rows`] say.
    pub(crate) fn rebuilt(rows: &[String]) -> String {
        let mut text = String::new();
        let (mut goes_on, mut indent) = (false, 0);
        for row in rows {
            if !goes_on {
                indent = row.len() - row.trim_start_matches(' ').len();
            }
            let row = &row[indent..];
            goes_on = row.ends_with('⏎');
            text.push_str(row.trim_end_matches('⏎'));
        }
        // Each string back to JSON.
        let (mut json, mut rest) = (String::new(), &*text);
        while let Some((before, after)) = rest.split_once('"') {
            let mut skip = false;
            let end = after.find(|c| {
                let is_escaped = std::mem::replace(&mut skip, false);
                skip = c == '\\' && !is_escaped;
                c == '"' && !is_escaped
            });
            let end = end.unwrap();
            let shown = unquoted(&after[..end]);
            json.push_str(before);
            json.push_str(&serde_json::to_string(&sanitize::unrender(&shown).unwrap()).unwrap());
            rest = &after[end + 1..];
        }
        json + rest
    }

    /// Without the backslashes before quotes; others are two, or begin an escape.
    fn unquoted(shown: &str) -> String {
        let mut text = String::new();
        let mut chars = shown.chars().peekable();
        while let Some(c) = chars.next() {
            match (c, chars.peek()) {
                ('\\', Some('"')) => {}
                ('\\', Some('\\')) => {
                    text.push_str("\\\\");
                    chars.next();
                }
                _ => text.push(c),
            }
        }
        text
    }

    fn any_value() -> impl Strategy<Value = serde_json::Value> {
        let text = prop_oneof![any::<String>(), "[\"\\\\:, {}a⏎⟨⟩東\u{202e}]{0,60}", Just(" ".repeat(70))];
        let leaf = prop_oneof![
            text.clone().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            Just(().into())
        ];
        leaf.prop_recursive(8, 40, 5, move |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..5).prop_map(Into::into),
                proptest::collection::vec((text.clone(), inner), 0..5)
                    .prop_map(|pairs| serde_json::Value::Object(pairs.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_value_is_rebuilt_from_its_rows_and_no_row_is_too_wide(value in any_value(), columns in 20_usize..100) {
            let rows = json_rows(&value.to_string(), columns);
            prop_assert!(rows.iter().all(|row| sanitize::columns(row) <= columns), "{:#?}", rows);
            prop_assert_eq!(serde_json::from_str::<serde_json::Value>(&rebuilt(&rows)).unwrap(), value);
        }
    }

    #[test]
    fn what_is_not_an_argument_is_not_forgotten() {
        let frame =
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"x","arguments":{"a":1}}}"#;
        assert_eq!(besides_arguments(frame), None);
        let frame = r#"{"params":{"_meta":{"t":1e2},"name":"x","a\"b":[]},"id":1}"#;
        assert_eq!(besides_arguments(frame).as_deref(), Some(r#"{"_meta":{"t":1e2},"a\"b":[]}"#));
        assert_eq!(besides_arguments(r#"{"id":1}"#), None);
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
