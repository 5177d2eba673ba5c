//! The validating scanner: one pass over a frame that decides whether every JSON parser will read it alike.
//!
//! Called by `frame` before anything else looks at a message. It knows two profiles: [`Profile::Strict`] for what a client
//! sends (the text must be RFC 8259 JSON *and* hold nothing that parsers are known to read differently) and
//! [`Profile::Loose`] for what a server sends (JSON with an unambiguous envelope). It never repairs, never recurses, and
//! never builds a tree: it answers with the spans of the envelope's members and the first fault.
//!
//! For text that has been scanned there are walkers: [`members`], [`elements`] and [`unescape`].

mod keys;
mod string;
mod walk;

use std::borrow::Cow;

use memchr::memchr2;
use smallvec::SmallVec;

use self::{keys::Keys, string::StringFault};
use super::fault::{ErrorCode, Fault};

pub use self::walk::{Elements, Members, elements, members, unescape};

/// How many arrays and objects may be open at once in a client's frame. Some server stacks drop a frame at 200, others at
/// 128; 64 is below all of them and far above any tool's arguments.
pub const MAX_DEPTH_STRICT: usize = 64;

/// The same for a server's frame, where a deep result is the client's business; it bounds our stack.
pub const MAX_DEPTH_LOOSE: usize = 512;

/// Characters of one number in a client's frame. An f64 never needs more than 767 significant digits.
pub const MAX_NUMBER_CHARS: usize = 1_000;

/// Digits before the point that cannot overflow an f64 (largest value 1.797…e308) where there is no exponent.
const SAFE_INTEGER_DIGITS: usize = 308;

/// A number of so many characters with an exponent of at most two digits stays below 1e300.
const SAFE_EXPONENT_CHARS: usize = 200;

/// Arrays and objects that may be open at once before memory is needed to remember them.
const USUAL_DEPTH: usize = 8;

/// What is demanded of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// Client to server: only what every parser reads in one way.
    Strict,
    /// Server to client: JSON, one line, an unambiguous envelope.
    Loose,
}

/// The half-open byte range of a JSON value (or key) in the scanned text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// Offset of the first byte.
    pub start: u32,
    /// Offset after the last byte.
    pub end: u32,
}

impl Span {
    /// The text of the span; `text` must be what was scanned.
    pub fn of<'a>(&self, text: &'a str) -> &'a str {
        // The scanner ends spans at ASCII bytes only, so this is `Some` for the text that was scanned.
        text.get(self.start as usize..self.end as usize).unwrap_or_default()
    }
}

/// The members that a JSON-RPC envelope can have; nothing else may stand beside them in a client's frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Member {
    /// `jsonrpc`
    Jsonrpc,
    /// `id`
    Id,
    /// `method`
    Method,
    /// `params`
    Params,
    /// `result`
    Result,
    /// `error`
    Error,
}

/// How many [`Member`]s there are.
const MEMBERS: usize = 6;

/// The names of the envelope's members, in the order of [`Member`].
pub(crate) const MEMBER_NAMES: [&str; MEMBERS] = ["jsonrpc", "id", "method", "params", "result", "error"];

impl Member {
    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "jsonrpc" => Self::Jsonrpc,
            "id" => Self::Id,
            "method" => Self::Method,
            "params" => Self::Params,
            "result" => Self::Result,
            "error" => Self::Error,
            _ => return None,
        })
    }
}

/// The members of `params` that decide what a `tools/call` does. Where they stand is noted while the frame is scanned, so
/// that a call of megabytes need not be walked a second time to be judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Param {
    /// `name`
    Name,
    /// `arguments`
    Arguments,
    /// `_meta`
    Meta,
    /// `task` (2025-11-25)
    Task,
    /// `requestState` (2026-07-28)
    RequestState,
    /// `inputResponses` (2026-07-28)
    InputResponses,
}

/// How many [`Param`]s there are.
const PARAMS: usize = 6;

impl Param {
    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "name" => Self::Name,
            "arguments" => Self::Arguments,
            "_meta" => Self::Meta,
            "task" => Self::Task,
            "requestState" => Self::RequestState,
            "inputResponses" => Self::InputResponses,
            _ => return None,
        })
    }
}

/// Where the members of `params` stand.
#[derive(Clone, Copy, Debug, Default)]
pub struct Params([Span; PARAMS]);

impl Params {
    /// The span of a member's value; of a repeated one the last, but such a text is refused under the strict profile.
    pub fn get(&self, param: Param) -> Option<Span> {
        // No value is empty.
        Some(self.0[param as usize]).filter(|span| span.end > span.start)
    }
}

/// What stands at the top of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Top {
    /// One object: a message, if its members say so.
    Object,
    /// An array: a batch of JSON-RPC 2.0 section 6.
    Array,
    /// A string, number or literal.
    Scalar,
}

/// What the scanner found.
#[derive(Debug)]
pub struct Outline {
    /// What kind of value the text is; `None` if the scan ended before that was known.
    pub top: Option<Top>,
    /// The value without the white space around it.
    pub span: Span,
    /// The envelope's members, by [`Member`]; of a repeated one the first.
    members: [Option<Span>; MEMBERS],
    /// The members of `params`, if that is an object.
    pub params: Params,
    /// Whether the member `id` stands there more than once, so that no id can be named in an answer.
    pub id_is_ambiguous: bool,
    /// The first reason to refuse the text wherever it stands, if there is one.
    pub fault: Option<Fault>,
    /// The reason to refuse it as a message: its members' names, if it is an object.
    pub envelope_fault: Option<Fault>,
}

impl Outline {
    /// Why the text is no message, if it is an object: first what keeps it from being JSON that all read alike, then the
    /// envelope, then what is inside.
    pub fn refusal(&self) -> Option<Fault> {
        match self.fault {
            Some(fault) if fault.code() == ErrorCode::PARSE_ERROR => Some(fault),
            fault => self.envelope_fault.or(fault),
        }
    }

    /// The span of an envelope member's value.
    pub fn member(&self, member: Member) -> Option<Span> {
        self.members[member as usize]
    }
}

/// Scans `text`, which must not hold the line terminator (and so no CR or LF at all).
pub fn scan(text: &str, profile: Profile) -> Outline {
    let mut scanner = Scanner::new(text, profile);
    if let Err(fault) = scanner.run() {
        // A fault that ends the scan hides what was noted before: without the rest, nothing else is certain. But a line
        // end, which nothing lets through, is always the one that is named, because it is the one that runs a hidden call:
        // several servers end a line at a bare CR, so JSON in which CR is mere white space is two messages to them.
        scanner.outline.fault = Some(match memchr2(b'\r', b'\n', scanner.bytes) {
            Some(at) if scanner.bytes[at] == b'\r' => Fault::CarriageReturn,
            Some(_) => Fault::LineFeed,
            None => fault,
        });
    }
    scanner.outline
}

/// An array or object that is open.
#[derive(Clone, Copy)]
enum Open {
    Array,
    /// Holds how many keys were on the key stack when it began.
    Object(u32),
}

struct Scanner<'a> {
    text: &'a str,
    bytes: &'a [u8],
    /// Offset of the next byte to read.
    at: usize,
    profile: Profile,
    /// How many arrays and objects are open.
    depth: usize,
    /// The innermost of them, apart because it is asked for with every value.
    innermost: Open,
    /// Those around it; of none of them there is a first that says nothing.
    around: SmallVec<[Open; USUAL_DEPTH]>,
    keys: Keys<'a>,
    /// The envelope member whose value is being read, while exactly one container is open.
    member: Option<Member>,
    /// Whether the object at depth two that is being read is the envelope's `params`.
    in_params: bool,
    /// The member of `params` whose value is being read, and where that began.
    param: Option<(Param, usize)>,
    outline: Outline,
}

impl<'a> Scanner<'a> {
    fn new(text: &'a str, profile: Profile) -> Self {
        Self {
            text,
            bytes: text.as_bytes(),
            at: 0,
            profile,
            depth: 0,
            innermost: Open::Array,
            around: SmallVec::new(),
            keys: Keys::new(text),
            member: None,
            in_params: false,
            param: None,
            outline: Outline {
                top: None,
                span: Span { start: 0, end: 0 },
                members: [None; MEMBERS],
                params: Params::default(),
                id_is_ambiguous: false,
                fault: None,
                envelope_fault: None,
            },
        }
    }

    fn run(&mut self) -> Result<(), Fault> {
        if self.text.starts_with('\u{feff}') {
            return Err(Fault::ByteOrderMark);
        }
        if self.profile == Profile::Strict && string::has_noncharacter(self.text) {
            return Err(Fault::Noncharacter);
        }
        self.outline.top = match self.next() {
            Some(b'{') => Some(Top::Object),
            Some(b'[') => Some(Top::Array),
            Some(_) => Some(Top::Scalar),
            None => None,
        };
        let start = self.at;
        self.value()?;
        self.outline.span = span(start, self.at);
        if self.next().is_some() { Err(self.syntax()) } else { Ok(()) }
    }

    /// Reads one value with everything in it. A loop over an explicit stack: a deep text cannot exhaust ours.
    fn value(&mut self) -> Result<(), Fault> {
        let mut has_key = false;
        loop {
            if has_key {
                self.key()?;
            }
            // Here a value must begin.
            match self.next() {
                Some(b'"') => {
                    self.string()?;
                }
                Some(b'{') => {
                    self.open_object()?;
                    if self.next() != Some(b'}') {
                        has_key = true;
                        continue;
                    }
                    self.close();
                }
                Some(b'[') => {
                    self.push(Open::Array)?;
                    if self.next() != Some(b']') {
                        has_key = false;
                        continue;
                    }
                    self.close();
                }
                Some(b'-' | b'0'..=b'9') => self.number()?,
                Some(b't') => self.literal(b"true")?,
                Some(b'f') => self.literal(b"false")?,
                Some(b'n') => self.literal(b"null")?,
                _ => return Err(self.syntax()),
            }
            // Here a value has ended: a comma brings the next one, brackets end the containers around it.
            loop {
                self.value_ended();
                if self.depth == 0 {
                    return Ok(());
                }
                match (self.innermost, self.next()) {
                    (open, Some(b',')) => {
                        self.at += 1;
                        has_key = matches!(open, Open::Object(_));
                        break;
                    }
                    (Open::Array, Some(b']')) => self.close(),
                    (Open::Object(first_key), Some(b'}')) => {
                        self.close();
                        self.judge_keys(first_key);
                    }
                    _ => return Err(self.syntax()),
                }
            }
        }
    }

    fn open_object(&mut self) -> Result<(), Fault> {
        self.push(Open::Object(self.keys.len()))?;
        if self.depth == 2 {
            self.in_params = self.member == Some(Member::Params);
        }
        Ok(())
    }

    /// Opens an array or object, whose bracket is next.
    fn push(&mut self, open: Open) -> Result<(), Fault> {
        let limit = match self.profile {
            Profile::Strict => MAX_DEPTH_STRICT,
            Profile::Loose => MAX_DEPTH_LOOSE,
        };
        if self.depth == limit {
            return Err(Fault::TooDeep);
        }
        self.depth += 1;
        self.around.push(std::mem::replace(&mut self.innermost, open));
        self.at += 1;
        Ok(())
    }

    /// Closes what was opened last, whose bracket is next.
    fn close(&mut self) {
        self.at += 1;
        self.depth -= 1;
        self.innermost = self.around.pop().unwrap_or(Open::Array);
    }

    /// Judges the names of the object that has just been closed, and forgets them.
    fn judge_keys(&mut self, first_key: u32) {
        let first_key = first_key as usize;
        if self.depth == 0 {
            self.outline.envelope_fault = self.keys.judge_envelope(first_key, self.profile);
        } else if self.profile == Profile::Strict {
            let is_params = self.in_params && self.depth == 1;
            if let Some(fault) = self.keys.judge_inner(first_key, is_params) {
                self.note(fault);
            }
        }
        self.keys.truncate(first_key);
    }

    /// A scalar or a container has ended: if it is the value of a member that is looked for, its span is complete.
    fn value_ended(&mut self) {
        match self.depth {
            1 => {
                if let Some(member) = self.member.take()
                    && let Some(span) = &mut self.outline.members[member as usize]
                    && span.end == OPEN_SPAN
                {
                    span.end = offset(self.at);
                }
            }
            2 => {
                if let Some((param, start)) = self.param.take() {
                    self.outline.params.0[param as usize] = span(start, self.at);
                }
            }
            _ => {}
        }
    }

    /// Reads a key, its colon and the space after it.
    fn key(&mut self) -> Result<(), Fault> {
        if self.next() != Some(b'"') {
            return Err(self.syntax());
        }
        let start = self.at + 1;
        let has_escapes = self.string()?;
        let raw = span(start, self.at - 1);
        let is_envelope = self.depth == 1 && self.outline.top == Some(Top::Object);
        if self.profile == Profile::Strict || is_envelope {
            self.keys.push(raw, has_escapes);
        }
        if self.next() != Some(b':') {
            return Err(self.syntax());
        }
        self.at += 1;
        // The value's first byte, whatever it is.
        self.next();
        if is_envelope {
            self.envelope_key();
        } else if self.depth == 2 && self.in_params && self.profile == Profile::Strict {
            self.param = Param::named(self.keys.last()).map(|param| (param, self.at));
        }
        Ok(())
    }

    /// Notes where the value of an envelope member begins.
    fn envelope_key(&mut self) {
        self.member = Member::named(self.keys.last());
        if let Some(member) = self.member {
            let slot = &mut self.outline.members[member as usize];
            if slot.is_none() {
                *slot = Some(Span { start: offset(self.at), end: OPEN_SPAN });
            } else if member == Member::Id {
                self.outline.id_is_ambiguous = true;
            }
        }
    }

    /// Reads a string token; the answer is whether it holds escapes.
    #[inline]
    fn string(&mut self) -> Result<bool, Fault> {
        match string::end_of_short(self.bytes, self.at) {
            Some(end) => {
                self.at = end;
                Ok(false)
            }
            None => self.long_string(),
        }
    }

    /// The same for any string token.
    fn long_string(&mut self) -> Result<bool, Fault> {
        match string::skip(self.bytes, self.at, self.profile) {
            Ok((end, has_escapes)) => {
                self.at = end;
                Ok(has_escapes)
            }
            Err(StringFault::Syntax(at)) => {
                self.at = at;
                Err(self.syntax())
            }
            Err(StringFault::Is(fault)) => Err(fault),
        }
    }

    fn number(&mut self) -> Result<(), Fault> {
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        let integer = match self.peek() {
            Some(b'0') => {
                self.at += 1;
                1
            }
            Some(b'1'..=b'9') => self.digits(),
            _ => return Err(self.syntax()),
        };
        if self.peek() == Some(b'.') {
            self.at += 1;
            if self.digits() == 0 {
                return Err(self.syntax());
            }
        }
        let mut exponent = 0;
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            exponent = self.digits();
            if exponent == 0 {
                return Err(self.syntax());
            }
        }
        let chars = self.at - start;
        if self.profile == Profile::Loose
            || (exponent == 0 && integer <= SAFE_INTEGER_DIGITS && chars <= MAX_NUMBER_CHARS)
            || (exponent <= 2 && chars <= SAFE_EXPONENT_CHARS)
        {
            return Ok(());
        }
        if chars > MAX_NUMBER_CHARS {
            self.note(Fault::NumberTooLong);
            return Ok(());
        }
        match self.text[start..self.at].parse::<f64>() {
            Ok(value) if value.is_finite() => Ok(()),
            _ => Err(Fault::NumberOverflow),
        }
    }

    /// Skips digits; returns how many.
    fn digits(&mut self) -> usize {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        self.at - start
    }

    fn literal(&mut self, literal: &[u8]) -> Result<(), Fault> {
        if !self.bytes[self.at..].starts_with(literal) {
            return Err(self.syntax());
        }
        self.at += literal.len();
        Ok(())
    }

    #[inline]
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    /// Skips the white space that is left of RFC 8259's four once CR and LF are refused, and gives the byte behind it.
    #[inline]
    fn next(&mut self) -> Option<u8> {
        loop {
            match self.peek() {
                // Nearly always.
                Some(byte) if byte > b' ' => return Some(byte),
                Some(b' ' | b'\t') => self.at += 1,
                next => return next,
            }
        }
    }

    fn syntax(&self) -> Fault {
        Fault::Syntax { at: self.at }
    }

    /// Remembers a fault that does not end the scan, if it is the first.
    fn note(&mut self, fault: Fault) {
        self.outline.fault.get_or_insert(fault);
    }
}

/// The end of a span whose value is still open. No text is that long: `frame` refuses above [`MAX_TEXT_BYTES`].
const OPEN_SPAN: u32 = u32::MAX;

/// Bytes of a text that offsets can address, with room for the marks in [`Span`] and in `keys`.
pub const MAX_TEXT_BYTES: usize = (1 << 31) - 2;

/// An offset as it is kept. Texts are at most [`MAX_TEXT_BYTES`] long, so nothing is lost.
fn offset(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(OPEN_SPAN)
}

fn span(start: usize, end: usize) -> Span {
    Span { start: offset(start), end: offset(end) }
}

/// The decoded form of a string token's inside.
fn decode(inside: &str) -> Cow<'_, str> {
    string::decode(inside)
}

#[cfg(test)]
mod tests;
