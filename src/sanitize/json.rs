//! JSON text with nothing in it that would act on a terminal or hide there.
//!
//! Used for everything that is printed as JSON. The value stays the same: only how characters are written changes.

use super::classes::is_plain;

/// `text`, which is valid JSON, with every character that is not plain as an escape of four digits: C1 and DEL, direction controls,
/// what is invisible, private or unassigned. JSON (RFC 8259 section 7) lets any character of a string be written so, and
/// outside of strings there is nothing but ASCII.
pub fn plain_json(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            // White space between tokens; raw control characters cannot be in a string.
            '\n' => plain.push('\n'),
            '\r' | '\t' => plain.push(' '),
            _ if is_plain(c) => plain.push(c),
            _ => {
                c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| plain.push_str(&format!("\\u{unit:04x}")))
            }
        }
    }
    plain
}
