//! YAML as policies use it: a tree of values that know where they were written.
//!
//! Read by `document` and `cases`. A strict subset on purpose: whatever two YAML readers could take differently (`no`, `017`,
//! duplicate keys, anchors, tags) is refused with the place, never guessed. Nothing is expanded, so a file can make no more
//! of itself than its size.

use std::{ops::Range, sync::Arc};

use serde_saphyr::granit_parser::{Event, Parser, ScalarStyle};

use super::diagnostic::{Diagnostic, Source};

/// The largest policy file, in bytes: ten thousand long rules fit.
pub(super) const FILE_BYTES_MAX: usize = 8 << 20;

/// How deep lists and mappings may nest.
const NESTING_MAX: usize = 32;

/// How many problems of one file are told; the rest would only hide them.
const PROBLEMS_MAX: usize = 50;

/// A value and where it was written.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) value: Value,
    /// Bytes of the source's text.
    pub(super) span: Range<usize>,
}

/// What YAML can say here. Numbers keep their text: nothing is rounded on the way.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Null,
    Bool(bool),
    /// A number as JSON writes it.
    Number(String),
    Text(String),
    List(Vec<Node>),
    Map(Vec<(Node, Node)>),
}

impl PartialEq for Node {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

impl Value {
    /// The word for people.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Bool(_) => "true or false",
            Self::Number(_) => "a number",
            Self::Text(_) => "text",
            Self::List(_) => "a list",
            Self::Map(_) => "a mapping",
        }
    }
}

/// Reads the one document of `source`. `None` if there is nothing to go on with; problems are added to `problems`.
pub(super) fn read(source: &Arc<Source>, problems: &mut Vec<Diagnostic>) -> Option<Node> {
    let text = &source.text;
    if text.len() > FILE_BYTES_MAX {
        let message = format!("the file is larger than {} MiB", FILE_BYTES_MAX >> 20);
        problems.push(Diagnostic::error("P0007", source, 0..0, message));
        return None;
    }
    if let Some(at) = text.find(['\0', '\u{feff}']) {
        let what = if text[at..].starts_with('\0') { "a NUL byte" } else { "a byte order mark" };
        let message = format!("{what} does not belong in a policy");
        problems.push(Diagnostic::error("P0003", source, at..at, message));
        return None;
    }
    Builder { source, problems, open: Vec::new(), root: None }.run()
}

/// A list or mapping that is being read.
struct Open {
    start: usize,
    items: Vec<Node>,
    mapping: bool,
}

struct Builder<'a> {
    source: &'a Arc<Source>,
    problems: &'a mut Vec<Diagnostic>,
    open: Vec<Open>,
    root: Option<Node>,
}

impl Builder<'_> {
    fn run(mut self) -> Option<Node> {
        let source = self.source;
        let text = source.text.as_str();
        let known = self.problems.len();
        let mut documents = 0;
        for event in Parser::new_from_str(text) {
            if self.problems.len() > known + PROBLEMS_MAX {
                return None;
            }
            let (event, span) = match event {
                Ok(event) => event,
                Err(error) => {
                    let at = error.marker().byte_offset().unwrap_or(text.len()).min(text.len());
                    self.syntax(at, &error.info());
                    return None;
                }
            };
            let end_of_text = text.len();
            let start = span.start.byte_offset().unwrap_or(end_of_text).min(end_of_text);
            let end = span.end.byte_offset().unwrap_or(end_of_text).clamp(start, end_of_text);
            match event {
                Event::DocumentStart(..) => {
                    documents += 1;
                    if documents > 1 {
                        self.fail("P0007", start..end, "a policy file holds one document");
                        return None;
                    }
                }
                Event::Alias(_) | Event::UnresolvedAlias(_) | Event::Anchor(..) => {
                    self.aliased(start..end);
                    self.put(Node { value: Value::Null, span: start..end });
                }
                Event::Scalar(value, style, anchor, tag) => {
                    if anchor > 0 || tag.is_some() {
                        self.aliased(start..end);
                    }
                    let node = self.scalar(value.into_owned(), style, start..end);
                    self.put(node);
                }
                Event::SequenceStart(_, anchor, tag) | Event::MappingStart(_, anchor, tag) => {
                    if anchor > 0 || tag.is_some() {
                        self.aliased(start..end);
                    }
                    if self.open.len() == NESTING_MAX {
                        self.fail("P0007", start..end, format!("nested deeper than {NESTING_MAX} levels"));
                        return None;
                    }
                    // Which of the two it was is known when it ends.
                    self.open.push(Open { start, items: Vec::new(), mapping: false });
                }
                Event::SequenceEnd | Event::MappingEnd => {
                    if let Some(open) = self.open.pop() {
                        let open = Open { mapping: matches!(event, Event::MappingEnd), ..open };
                        let node = self.close(open, end);
                        self.put(node);
                    }
                }
                _ => {}
            }
        }
        self.root
    }

    fn fail(&mut self, code: &'static str, span: Range<usize>, message: impl Into<String>) {
        self.problems.push(Diagnostic::error(code, self.source, span, message));
    }

    fn syntax(&mut self, at: usize, info: &str) {
        let line_start = self.source.text[..at].rfind('\n').map_or(0, |at| at + 1);
        let indent = self.source.text[line_start..].trim_start_matches(' ');
        let tab = indent.starts_with('\t') || info.contains("tab");
        let hint = tab.then(|| "indent with spaces: YAML does not take tabs".to_owned());
        let found = Diagnostic::error("P0003", self.source, at..at, format!("not valid YAML: {info}"));
        self.problems.push(found.hint(hint));
    }

    fn aliased(&mut self, span: Range<usize>) {
        let found = Diagnostic::error(
            "P0005",
            self.source,
            span,
            "anchors (`&`), aliases (`*`) and tags (`!`) are not used in policies",
        );
        self.problems.push(
            found.hint("write the value out; quote a text that begins with one of these signs".to_owned()),
        );
    }

    /// Adds a finished node to what is being read.
    fn put(&mut self, node: Node) {
        match self.open.last_mut() {
            Some(open) => open.items.push(node),
            None => self.root = Some(node),
        }
    }

    fn close(&mut self, open: Open, end: usize) -> Node {
        // A block ends where the next thing begins; the caret should not reach into that.
        let body = &self.source.text[open.start..end.max(open.start)];
        let span = open.start..open.start + body.trim_end().len();
        if !open.mapping {
            return Node { value: Value::List(open.items), span };
        }
        let mut entries: Vec<(Node, Node)> = Vec::with_capacity(open.items.len() / 2);
        let mut seen = std::collections::HashSet::with_capacity(open.items.len() / 2);
        let mut items = open.items.into_iter();
        while let (Some(key), Some(value)) = (items.next(), items.next()) {
            match &key.value {
                Value::Text(name) => {
                    if !seen.insert(name.clone()) {
                        let message = format!("the key `{name}` is there twice");
                        let found = Diagnostic::error("P0004", self.source, key.span.clone(), message);
                        self.problems.push(found.label("again here").hint("remove one of them".to_owned()));
                    }
                }
                other => {
                    let message = format!("a key must be text, not {}", other.kind());
                    self.fail("P0012", key.span.clone(), message);
                }
            }
            entries.push((key, value));
        }
        Node { value: Value::Map(entries), span }
    }

    fn scalar(&mut self, text: String, style: ScalarStyle, span: Range<usize>) -> Node {
        if style != ScalarStyle::Plain {
            return Node { value: Value::Text(text), span };
        }
        let value = match text.as_str() {
            "" | "~" | "null" => Value::Null,
            "true" => Value::Bool(true),
            "false" => Value::Bool(false),
            number if is_json_number(number) => Value::Number(text),
            _ => {
                if let Some(other) = ambiguous(&text) {
                    let message = format!("`{text}` is {other} to some YAML readers and text to others");
                    let found = Diagnostic::error("P0006", self.source, span.clone(), message);
                    let hint = if other == "true or false" {
                        format!("write `true` or `false`, or quote it: \"{text}\"")
                    } else {
                        format!("quote it: \"{text}\", or write a plain decimal number")
                    };
                    self.problems.push(found.hint(hint));
                }
                Value::Text(text)
            }
        };
        Node { value, span }
    }
}

/// What YAML 1.1 or YAML 1.2 would make of a plain text that the other one leaves alone.
pub(super) fn ambiguous(text: &str) -> Option<&'static str> {
    const BOOLEANS: [&str; 9] = ["y", "n", "yes", "no", "on", "off", "true", "false", "null"];
    const NUMBERS: [&str; 3] = [".inf", ".nan", "<<"];
    let lower = text.to_ascii_lowercase();
    if BOOLEANS.contains(&lower.as_str()) {
        return Some(if lower == "null" { "nothing" } else { "true or false" });
    }
    let unsigned = lower.trim_start_matches(['+', '-']);
    let based = ["0x", "0o", "0b"].iter().any(|base| unsigned.starts_with(base));
    let digits = unsigned.bytes().any(|byte| byte.is_ascii_digit())
        && unsigned.bytes().all(|byte| byte.is_ascii_digit() || b"_.,:+-e".contains(&byte));
    (NUMBERS.contains(&unsigned) || based || digits).then_some("a number or a date")
}

/// Whether `text` is a number by RFC 8259 §6.
pub(super) fn is_json_number(text: &str) -> bool {
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
    let whole = digits(unsigned);
    if whole == 0 || (whole > 1 && unsigned.starts_with('0')) {
        return false;
    }
    let mut rest = &unsigned[whole..];
    if let Some(fraction) = rest.strip_prefix('.') {
        let count = digits(fraction);
        if count == 0 {
            return false;
        }
        rest = &fraction[count..];
    }
    if let Some(exponent) = rest.strip_prefix(['e', 'E']) {
        let exponent = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
        let count = digits(exponent);
        return count > 0 && count == exponent.len();
    }
    rest.is_empty()
}

/// Where a part of a scalar's value was written, as well as that can be told: quotes, escapes and folded lines shift the two
/// against each other. Falls back to the whole scalar.
pub(super) fn place(source: &str, span: &Range<usize>, value: &str, within: Range<usize>) -> Range<usize> {
    let written = &source[span.clone()];
    let quote = written.chars().next().filter(|quote| matches!(quote, '\'' | '"'));
    let mut at = usize::from(quote.is_some());
    if written.starts_with(['|', '>']) {
        at = written.find('\n').map_or(written.len(), |at| at + 1);
    }
    let (mut start, mut end) = (None, None);
    for (index, letter) in value.char_indices() {
        if !letter.is_whitespace() {
            at += written[at..].len() - written[at..].trim_start().len();
        }
        let escape = match quote {
            Some('\'') => "\'",
            Some(_) => "\\",
            None => "",
        };
        // `''` in single quotes, `\"` and `\\` in double quotes; other escapes end in the fallback below.
        let escaped = !escape.is_empty() && written[at..].starts_with(escape);
        if index >= within.start && start.is_none() {
            start = Some(at);
        }
        at += if escaped { 1 } else { 0 };
        let Some(found) = written[at..].chars().next() else { return span.clone() };
        if found != letter && !(letter.is_whitespace() && found.is_whitespace()) {
            return span.clone();
        }
        at += found.len_utf8();
        if index < within.end {
            end = Some(at);
        }
    }
    let start = start.unwrap_or(at);
    span.start + start..span.start + end.unwrap_or(start).max(start)
}
