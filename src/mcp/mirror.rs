//! Arguments that a client repeats in headers, so that whoever is on the way can read them without the body.
//!
//! MCP 2026-07-28, "Streamable HTTP", "Custom headers from tool parameters" (`x-mcp-header`). Found by `likeness` in a tool's
//! definition and compared by `transport::http` with what a call says. Never decides anything: policies read the body.

use std::borrow::Cow;

use crate::jsonrpc::scan::{members, unescape};

/// What the names of these headers begin with, in lower case.
pub const MIRROR_PREFIX: &str = "mcp-param-";

/// Headers of one tool; a definition with more has none that count.
const HEADERS_MAX: usize = 64;

/// How deep in the arguments one may be taken from.
const DEPTH_MAX: usize = 8;

/// From here on a double cannot tell every whole number from its neighbours.
const WHOLE_MAX: f64 = 9_007_199_254_740_992.0;

/// One argument that has a header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirrored {
    header: String,
    path: Vec<String>,
}

impl Mirrored {
    /// The header's name, in lower case.
    pub fn header(&self) -> &str {
        &self.header
    }

    /// Whether `said`, the header's value without its encoding, is what `arguments` (one JSON object) say. Where they say nothing,
    /// or `null`, there is nothing to compare.
    pub fn agrees(&self, arguments: &str, said: &str) -> bool {
        let found = self.path.iter().try_fold(arguments, |within, key| {
            members(within).filter(|(name, _)| name == key).last().map(|(_, value)| value.trim())
        });
        match found {
            None | Some("null") => true,
            Some(text) if text.starts_with('"') => unescape(text) == said,
            Some(word @ ("true" | "false")) => word == said,
            Some(number) => number == said || is_same_number(number, said),
        }
    }
}

/// Whether two texts are one number that a double can hold exactly enough: `42` and `42.0`.
fn is_same_number(one: &str, other: &str) -> bool {
    match (one.parse::<f64>(), other.parse::<f64>()) {
        (Ok(one), Ok(other)) => one == other && one.abs() < WHOLE_MAX,
        _ => false,
    }
}

/// The arguments of the tool `definition` that have headers. None where any of what it says of them does not count.
pub(super) fn mirrored(definition: &str) -> Vec<Mirrored> {
    let schema = members(definition).filter(|(key, _)| key == "inputSchema").last();
    let mut found = Vec::new();
    let mut path = Vec::new();
    let is_whole = schema.is_none_or(|(_, schema)| collect(schema, &mut path, &mut found));
    let mut names: Vec<&str> = found.iter().map(Mirrored::header).collect();
    names.sort_unstable();
    let is_twice = names.windows(2).any(|pair| pair[0] == pair[1]);
    if is_whole && !is_twice { found } else { Vec::new() }
}

/// Adds what the properties of `schema` say, and those in them. False where there is too much, or a name that no header has.
fn collect(schema: &str, path: &mut Vec<String>, found: &mut Vec<Mirrored>) -> bool {
    let Some((_, properties)) = members(schema).filter(|(key, _)| key == "properties").last() else {
        return true;
    };
    if path.len() == DEPTH_MAX {
        return true;
    }
    for (name, property) in members(properties) {
        path.push(name.into_owned());
        if let Some((_, header)) = members(property).filter(|(key, _)| key == "x-mcp-header").last() {
            let header = if header.starts_with('"') { unescape(header) } else { Cow::Borrowed("") };
            let is_token = !header.is_empty() && header.bytes().all(is_token_byte);
            if !is_token || found.len() == HEADERS_MAX {
                return false;
            }
            let header = format!("{MIRROR_PREFIX}{}", header.to_ascii_lowercase());
            found.push(Mirrored { header, path: path.clone() });
        }
        if !collect(property, path, found) {
            return false;
        }
        path.pop();
    }
    true
}

/// RFC 9110 §5.6.2.
fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOOL: &str = r#"{"name":"query","inputSchema":{"type":"object","properties":{"region":{"type":"string","x-mcp-header":"Region"},"limit":{"type":"integer","x-mcp-header":"Limit"},"dry":{"type":"boolean","x-mcp-header":"Dry"},"at":{"type":"object","properties":{"zone":{"type":"string","x-mcp-header":"Zone"}}},"items":{"type":"array","items":{"properties":{"x":{"x-mcp-header":"X"}}}}}}}"#;

    #[test]
    fn the_arguments_with_headers_are_found_and_compared() {
        let all = mirrored(TOOL);
        let names: Vec<&str> = all.iter().map(Mirrored::header).collect();
        assert_eq!(names, ["mcp-param-region", "mcp-param-limit", "mcp-param-dry", "mcp-param-zone"]);
        let arguments = r#"{"region":"us \u0041","limit":42,"dry":true,"at":{"zone":"a"}}"#;
        let agrees = |at: usize, said: &str| all[at].agrees(arguments, said);
        for (at, right, wrong) in
            [(0, "us A", "us B"), (1, "42", "43"), (1, "42.0", "4.2"), (2, "true", "True"), (3, "a", "b")]
        {
            assert!(agrees(at, right) && !agrees(at, wrong), "{right} {wrong}");
        }
        for arguments in ["{}", r#"{"at":null,"region":null}"#, r#"{"at":{}}"#] {
            assert!(all[0].agrees(arguments, "anything") && all[3].agrees(arguments, "anything"));
        }
        let large = r#"{"limit":9007199254740993}"#;
        assert!(all[1].agrees(large, "9007199254740993") && !all[1].agrees(large, "9007199254740992"));
    }

    #[test]
    fn a_definition_that_breaks_the_rules_has_no_headers() {
        for (from, to) in [
            (r#""x-mcp-header":"Limit""#, r#""x-mcp-header":"region""#),
            (r#""x-mcp-header":"Limit""#, r#""x-mcp-header":"a b""#),
            (r#""x-mcp-header":"Limit""#, r#""x-mcp-header":"""#),
            (r#""x-mcp-header":"Limit""#, r#""x-mcp-header":7"#),
        ] {
            assert!(mirrored(&TOOL.replace(from, to)).is_empty(), "{to}");
        }
        assert!(mirrored("{}").is_empty() && mirrored(r#"{"inputSchema":true}"#).is_empty());
    }
}
