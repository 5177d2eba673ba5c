//! Walkers over JSON text that has been scanned: members of an object, elements of an array, the text of a string.
//!
//! Used by `mcp` and `policy` to read what they need without building a tree. They trust the grammar, because the scanner
//! has checked it; over any other text they never panic and simply end at the first thing they cannot follow.

use std::borrow::Cow;

use memchr::memchr2;

/// The members of a scanned object's text, in order: the decoded key and the raw text of the value. Of a text that is not
/// an object: nothing.
pub fn members(object: &str) -> Members<'_> {
    Members { rest: inside(object, '{') }
}

/// The elements of a scanned array's text, in order, as raw text. Of a text that is not an array: nothing.
pub fn elements(array: &str) -> Elements<'_> {
    Elements { rest: inside(array, '[') }
}

/// The text that a scanned string token (with its quotes) stands for. Of a text that is not a string token: empty.
pub fn unescape(token: &str) -> Cow<'_, str> {
    token.strip_prefix('"').and_then(|token| token.strip_suffix('"')).map_or(Cow::Borrowed(""), super::decode)
}

/// Iterator of [`members`].
#[derive(Clone, Debug)]
pub struct Members<'a> {
    rest: &'a str,
}

impl<'a> Iterator for Members<'a> {
    type Item = (Cow<'a, str>, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        let rest = after_comma(self.rest);
        // Fused: whatever cannot be followed leaves nothing behind.
        self.rest = "";
        if !rest.starts_with('"') {
            return None;
        }
        let (key, rest) = rest.split_at_checked(value_end(rest)?)?;
        let rest = trim(trim(rest).strip_prefix(':')?);
        let (value, rest) = rest.split_at_checked(value_end(rest)?)?;
        self.rest = rest;
        Some((unescape(key), value))
    }
}

/// Iterator of [`elements`].
#[derive(Clone, Debug)]
pub struct Elements<'a> {
    rest: &'a str,
}

impl<'a> Iterator for Elements<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = after_comma(self.rest);
        self.rest = "";
        let (value, rest) = rest.split_at_checked(value_end(rest)?)?;
        self.rest = rest;
        Some(value)
    }
}

/// What follows the opening bracket.
fn inside(text: &str, bracket: char) -> &str {
    trim(text).strip_prefix(bracket).unwrap_or_default()
}

fn after_comma(rest: &str) -> &str {
    let rest = trim(rest);
    rest.strip_prefix(',').map_or(rest, trim)
}

/// The four white-space characters of RFC 8259; texts that are not a line (a policy's tests) may hold all of them.
fn trim(text: &str) -> &str {
    text.trim_start_matches([' ', '\t', '\n', '\r'])
}

/// The length of the value at the beginning of `text`; `None` where none begins or it does not end.
fn value_end(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    match bytes.first()? {
        b'"' => string_end(bytes, 0),
        b'{' | b'[' => container_end(bytes),
        b']' | b'}' | b',' | b':' => None,
        _ => Some(
            bytes
                .iter()
                .position(|byte| matches!(byte, b',' | b']' | b'}' | b' ' | b'\t' | b'\n' | b'\r'))
                .unwrap_or(bytes.len()),
        ),
    }
}

/// The offset after the string token that begins at `start`.
fn string_end(bytes: &[u8], start: usize) -> Option<usize> {
    let mut at = start + 1;
    loop {
        at += memchr2(b'"', b'\\', bytes.get(at..)?)?;
        if bytes[at] == b'"' {
            return Some(at + 1);
        }
        // The character after the backslash belongs to it.
        at += 2;
    }
}

/// The offset after the bracket that closes the container at the beginning.
fn container_end(bytes: &[u8]) -> Option<usize> {
    let mut depth = 0_usize;
    let mut at = 0;
    loop {
        match bytes.get(at)? {
            b'"' => {
                at = string_end(bytes, at)?;
                continue;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' => {
                depth -= 1;
                if depth == 0 {
                    return Some(at + 1);
                }
            }
            _ => {}
        }
        at += 1;
    }
}
