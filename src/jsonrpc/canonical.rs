//! The canonical form of a JSON value: one text for all the ways in which a client may write the same call.
//!
//! Keys are sorted, white space goes, strings are decoded and written in one way, numbers stay as they were written (`1.0`
//! is not `1`: parsers differ about that, and so do tools). Used by `mcp` to recognise a retry. Never used for what is
//! sent or shown: those are the bytes that came.

use std::{borrow::Cow, ops::Range};

use super::{id::quote, scan::unescape};

/// Levels of nesting that are followed; the scanner lets fewer pass.
const DEPTH_MAX: usize = 128;

/// The canonical form of `value`, a scanned text of one JSON value. `None` for a text that is not one, or that is nested more
/// than 128 levels deep.
pub fn canonical(value: &str) -> Option<String> {
    let mut writer = Writer { text: value, at: 0, out: String::with_capacity(value.len()) };
    writer.value(0)?;
    writer.skip_space();
    (writer.at == value.len()).then_some(writer.out)
}

struct Writer<'a> {
    text: &'a str,
    at: usize,
    out: String,
}

impl<'a> Writer<'a> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// Past `byte`, if it is the next one.
    fn take(&mut self, byte: u8) -> Option<()> {
        (self.peek()? == byte).then(|| self.at += 1)
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn value(&mut self, depth: usize) -> Option<()> {
        if depth > DEPTH_MAX {
            return None;
        }
        self.skip_space();
        match self.peek()? {
            b'{' => self.object(depth),
            b'[' => self.array(depth),
            b'"' => {
                let text = self.string()?;
                self.out.push_str(&quote(&text));
                Some(())
            }
            _ => self.literal(),
        }
    }

    /// A number, `true`, `false` or `null`, as it is written.
    fn literal(&mut self) -> Option<()> {
        let rest = self.text.get(self.at..)?;
        let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.');
        let length = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
        self.out.push_str(rest.get(..length).filter(|token| !token.is_empty())?);
        self.at += length;
        Some(())
    }

    /// The text that the string token here stands for.
    fn string(&mut self) -> Option<Cow<'a, str>> {
        let bytes = self.text.as_bytes();
        let begin = self.at;
        let mut at = begin + 1;
        loop {
            at += memchr::memchr2(b'"', b'\\', bytes.get(at..)?)?;
            if bytes[at] == b'"' {
                break;
            }
            // The character after the backslash belongs to it.
            at += 2;
        }
        self.at = at + 1;
        Some(unescape(self.text.get(begin..self.at)?))
    }

    fn array(&mut self, depth: usize) -> Option<()> {
        self.take(b'[')?;
        self.out.push('[');
        self.skip_space();
        if self.take(b']').is_none() {
            loop {
                self.value(depth + 1)?;
                self.skip_space();
                if self.take(b',').is_none() {
                    break;
                }
                self.out.push(',');
            }
            self.take(b']')?;
        }
        self.out.push(']');
        Some(())
    }

    fn object(&mut self, depth: usize) -> Option<()> {
        self.take(b'{')?;
        self.out.push('{');
        self.skip_space();
        if self.take(b'}').is_none() {
            let mut members: Vec<(Cow<'a, str>, Range<usize>)> = Vec::new();
            let begin = self.out.len();
            loop {
                self.skip_space();
                let from = self.out.len();
                (self.peek()? == b'"').then_some(())?;
                let key = self.string()?;
                self.out.push_str(&quote(&key));
                self.skip_space();
                self.take(b':')?;
                self.out.push(':');
                self.value(depth + 1)?;
                members.push((key, from..self.out.len()));
                self.skip_space();
                if self.take(b',').is_none() {
                    break;
                }
                self.out.push(',');
            }
            self.take(b'}')?;
            self.sort(begin, members);
        }
        self.out.push('}');
        Some(())
    }

    /// Puts the members that were written from `begin` on into the order of their keys (by code point).
    fn sort(&mut self, begin: usize, mut members: Vec<(Cow<'a, str>, Range<usize>)>) {
        if members.is_sorted_by(|(one, _), (other, _)| one <= other) {
            return;
        }
        members.sort_by(|(one, _), (other, _)| one.cmp(other));
        let written = self.out.split_off(begin);
        for (place, (_, range)) in members.into_iter().enumerate() {
            if place > 0 {
                self.out.push(',');
            }
            self.out.push_str(&written[range.start - begin..range.end - begin]);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_same_call_has_one_form_however_it_is_written() {
        for (written, form) in [
            (r#" { "b" : 1 , "a" : [ ] } "#, r#"{"a":[],"b":1}"#),
            (r#"{"\u0061":"\u00e9\/","é":{}}"#, r#"{"a":"é/","é":{}}"#),
            (r#"{"a":1.0,"b":1e0,"c":-0}"#, r#"{"a":1.0,"b":1e0,"c":-0}"#),
            (r#"[true, null,false , "\n\u0001" ]"#, r#"[true,null,false,"\n\u0001"]"#),
            (r#"{"b":{"z":1,"y":2},"a":[{"d":1,"c":2}]}"#, r#"{"a":[{"c":2,"d":1}],"b":{"y":2,"z":1}}"#),
            (r#""\ud83d\ude00""#, "\"😀\""),
            ("7", "7"),
        ] {
            assert_eq!(canonical(written).as_deref(), Some(form), "{written}");
        }
    }

    #[test]
    fn what_is_not_one_value_has_no_form() {
        for text in ["", "{", "[1", "{\"a\"}", "{\"a\":}", "1 2", "\"a", "{a:1}", "]", "{\"a\":1]", "[1,]"] {
            assert_eq!(canonical(text), None, "{text}");
        }
        let deep = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
        assert!(canonical(&deep(64)).is_some());
        assert_eq!(canonical(&deep(DEPTH_MAX + 2)), None);
    }

    /// Any JSON value, with numbers as tokens of several forms.
    fn value() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            ".{0,8}".prop_map(Into::into),
        ];
        leaf.prop_recursive(4, 32, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Into::into),
                prop::collection::vec((".{0,4}", inner), 0..5)
                    .prop_map(|members| members.into_iter().collect::<serde_json::Map<_, _>>().into()),
            ]
        })
    }

    /// `value` written with white space, members in an order and strings in escapes that `seed` chooses.
    fn written(value: &serde_json::Value, seed: &mut u64, out: &mut String) {
        fn next(seed: &mut u64) -> u64 {
            *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            *seed >> 33
        }
        fn space(seed: &mut u64, out: &mut String) {
            out.push_str(["", " ", "\t ", "  "][usize::try_from(next(seed) % 4).unwrap()]);
        }
        fn text(text: &str, seed: &mut u64, out: &mut String) {
            out.push('"');
            for c in text.chars() {
                if next(seed).is_multiple_of(3) || c.is_control() || matches!(c, '"' | '\\') {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        out.push_str(&format!("\\u{unit:04x}"));
                    }
                } else {
                    out.push(c);
                }
            }
            out.push('"');
        }
        space(seed, out);
        match value {
            serde_json::Value::Array(elements) => {
                out.push('[');
                for (place, element) in elements.iter().enumerate() {
                    if place > 0 {
                        out.push(',');
                    }
                    written(element, seed, out);
                }
                out.push(']');
            }
            serde_json::Value::Object(members) => {
                let mut members: Vec<_> = members.iter().collect();
                for place in (1..members.len()).rev() {
                    members.swap(place, usize::try_from(next(seed)).unwrap() % (place + 1));
                }
                out.push('{');
                for (place, (key, value)) in members.into_iter().enumerate() {
                    if place > 0 {
                        out.push(',');
                    }
                    space(seed, out);
                    text(key, seed, out);
                    space(seed, out);
                    out.push(':');
                    written(value, seed, out);
                }
                out.push('}');
            }
            serde_json::Value::String(string) => text(string, seed, out),
            other => out.push_str(&other.to_string()),
        }
        space(seed, out);
    }

    proptest! {
        #[test]
        fn order_space_and_escapes_do_not_matter(value in value(), mut one in any::<u64>(), mut other in any::<u64>()) {
            let (mut first, mut second) = (String::new(), String::new());
            written(&value, &mut one, &mut first);
            written(&value, &mut other, &mut second);
            let form = canonical(&first);
            prop_assert!(form.is_some());
            prop_assert_eq!(&form, &canonical(&second));
            // It means the same, and is its own form.
            let form = form.unwrap();
            prop_assert_eq!(serde_json::from_str::<serde_json::Value>(&form).unwrap(), value);
            prop_assert_eq!(canonical(&form), Some(form));
        }

        #[test]
        fn different_values_have_different_forms(one in value(), other in value()) {
            let form = |value: &serde_json::Value| canonical(&value.to_string()).unwrap();
            prop_assert_eq!(form(&one) == form(&other), one == other);
        }

        #[test]
        fn no_text_makes_it_panic(text in ".{0,40}") {
            let _ = canonical(&text);
        }
    }
}
