//! One JSON-RPC message as it arrived: its bytes, and where in them the members of its envelope stand.
//!
//! Made by the transports from a line or a body, screened by `gate`, and forwarded as the very bytes that came. A frame is
//! made only of what has one reading: [`Frame::from_client`] applies the strict profile (JSON-RPC 2.0 and MCP demand most
//! of it, the rest is where parsers are known to differ), [`Frame::from_server`] the loose one. Neither repairs anything,
//! and nothing here serialises.

use std::fmt;

use bytes::Bytes;
use smol_str::SmolStr;

use super::{
    error::one_line as one_line_of,
    fault::{ErrorCode, Fault},
    id::RequestId,
    scan::{self, MAX_TEXT_BYTES, Member, Outline, Param, Params, Profile, Span, Top},
};
use crate::digest::Digest;

/// Bytes of a method's name, decoded.
pub const MAX_METHOD_BYTES: usize = 128;

/// Elements of a batch. A batch is one line, so the limit keeps one line from being any number of calls.
pub const MAX_BATCH_ELEMENTS: usize = 100;

/// Bytes from which a text is checked by the validator that is made for long ones.
const LONG_TEXT_BYTES: usize = 128;

/// What a message is, by the members of its envelope (JSON-RPC 2.0, sections 4 and 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// `method` and `id`: demands an answer.
    Request,
    /// `method` without `id`: cannot be answered.
    Notification,
    /// `id` and one of `result` and `error`.
    Response,
}

/// A text that is not a frame, with what an answer to it needs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{fault}")]
pub struct FrameError {
    /// The code for the error response.
    pub code: ErrorCode,
    /// The id to answer to: that of a request which can be read and is legal. `None` also for a response of the peer,
    /// whose id is one of the other side's and must not be answered as if it were a request's.
    pub id: Option<RequestId>,
    /// What is wrong.
    pub fault: Fault,
}

impl FrameError {
    /// A line over the limit, of which nothing was kept.
    pub fn too_large() -> Self {
        Self::new(Fault::TooLarge, None)
    }

    fn new(fault: Fault, id: Option<RequestId>) -> Self {
        Self { code: fault.code(), id, fault }
    }
}

/// What stands in the frame besides the envelope's small members.
#[derive(Clone, Copy, Debug)]
enum Payload {
    None,
    Params(Span),
    Result(Span),
    Error(Span),
}

/// One JSON-RPC message as it arrived. Cheap to clone.
///
/// The accessors that return text check once more that the bytes are UTF-8 (this crate has no `unsafe`), which costs some
/// 20 µs for each megabyte; keep the text rather than asking for it twice.
#[derive(Clone)]
pub struct Frame {
    bytes: Bytes,
    kind: Kind,
    id: Option<RequestId>,
    /// Decoded. A copy, because it is asked for again and again, and most are short enough to need no memory.
    method: Option<SmolStr>,
    payload: Payload,
    params: Params,
}

impl Frame {
    /// Reads a client's message under the strict profile. `bytes` is the line as received, with its terminator (`\n` or
    /// `\r\n`) if it has one.
    ///
    /// # Errors
    /// Whatever not every JSON-RPC peer reads in the same way; [`Fault::Batch`] for an array that is otherwise in order.
    pub fn from_client(bytes: Bytes) -> Result<Self, FrameError> {
        Self::read(bytes, Profile::Strict)
    }

    /// Reads a server's message: one line of JSON, an object with an unambiguous envelope. What is deeper is not judged.
    ///
    /// # Errors
    /// Text that is not such a message; [`Fault::Batch`] for an array.
    pub fn from_server(bytes: Bytes) -> Result<Self, FrameError> {
        Self::read(bytes, Profile::Loose)
    }

    fn read(bytes: Bytes, profile: Profile) -> Result<Self, FrameError> {
        let bare = |fault| FrameError::new(fault, None);
        let text = one_line(&bytes).map_err(bare)?;
        let outline = scan::scan(text, profile);
        match judge(text, &outline, profile) {
            Ok(envelope) => Ok(Self {
                kind: envelope.kind,
                id: envelope.id,
                method: envelope.method,
                payload: envelope.payload,
                params: outline.params,
                bytes,
            }),
            Err(fault) => Err(FrameError::new(fault, id_to_answer(text, &outline, fault))),
        }
    }

    /// Whether `bytes`, if they are a message at all, are a batch: an array.
    pub fn is_batch(bytes: &[u8]) -> bool {
        bytes.trim_ascii_start().first() == Some(&b'[')
    }

    /// The id of a server's response of which only the beginning is there: to be asked of a line that is too long to be read.
    /// `None` unless it is certain that this is a response, and to what.
    pub fn id_of_head(head: &[u8]) -> Option<RequestId> {
        let text = head.utf8_chunks().next()?.valid();
        let outline = scan::scan(text, Profile::Loose);
        let has = |member| outline.member(member).is_some();
        if has(Member::Method) || outline.id_is_ambiguous || !(has(Member::Result) || has(Member::Error)) {
            return None;
        }
        // A number at the very end may go on.
        let id = outline.member(Member::Id).filter(|id| (id.end as usize) < text.len())?;
        RequestId::of_server_response(id.of(text)).filter(|id| !id.is_null())
    }

    /// The elements of a client's batch, as slices of `bytes` without a terminator, each still to be read by
    /// [`Frame::from_client`]. Only for a session that has negotiated a protocol version with batches.
    ///
    /// # Errors
    /// An array that breaks the strict profile, is empty, or has more than [`MAX_BATCH_ELEMENTS`] elements; anything that
    /// is not an array is [`Fault::BadShape`].
    pub fn batch_from_client(bytes: &Bytes) -> Result<Vec<Bytes>, FrameError> {
        Self::batch(bytes, Profile::Strict).map_err(|fault| FrameError::new(fault, None))
    }

    /// The elements of a server's batch, each still to be read by [`Frame::from_server`].
    ///
    /// # Errors
    /// As for [`Frame::batch_from_client`], under the loose profile.
    pub fn batch_from_server(bytes: &Bytes) -> Result<Vec<Bytes>, FrameError> {
        Self::batch(bytes, Profile::Loose).map_err(|fault| FrameError::new(fault, None))
    }

    fn batch(bytes: &Bytes, profile: Profile) -> Result<Vec<Bytes>, Fault> {
        let text = one_line(bytes)?;
        let outline = scan::scan(text, profile);
        if let Some(fault) = outline.fault {
            return Err(fault);
        }
        if outline.top != Some(Top::Array) {
            return Err(Fault::BadShape);
        }
        // One more than the limit tells that it is exceeded; the rest need not be walked.
        let elements: Vec<Bytes> = scan::elements(outline.span.of(text))
            .take(MAX_BATCH_ELEMENTS + 1)
            .map(|element| bytes.slice_ref(element.as_bytes()))
            .collect();
        match elements.len() {
            0 => Err(Fault::BatchEmpty),
            1..=MAX_BATCH_ELEMENTS => Ok(elements),
            _ => Err(Fault::BatchTooLarge),
        }
    }

    /// The bytes exactly as received, with the line terminator if there was one.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The message's JSON text: the object alone, without white space and terminator around it.
    pub fn text(&self) -> &str {
        // Around the object nothing but white space and the terminator was let in.
        utf8(self.bytes.trim_ascii()).expect("a frame's bytes are UTF-8 since it was read")
    }

    /// What the message is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The id of a request or response. A server's error response can have the id `null`.
    pub fn id(&self) -> Option<&RequestId> {
        self.id.as_ref()
    }

    /// The decoded method of a request or notification.
    pub fn method(&self) -> Option<&str> {
        self.method.as_deref()
    }

    /// The raw text of `params`: in a client's frame always an object.
    pub fn params(&self) -> Option<&str> {
        if let Payload::Params(span) = self.payload { Some(self.str(span)) } else { None }
    }

    /// Whether there are `params`.
    pub fn has_params(&self) -> bool {
        matches!(self.payload, Payload::Params(_))
    }

    /// The raw text of one member of a client's `params`.
    pub fn param(&self, param: Param) -> Option<&str> {
        self.params.get(param).map(|span| self.str(span))
    }

    /// The raw text of a response's `result`.
    pub fn result(&self) -> Option<&str> {
        if let Payload::Result(span) = self.payload { Some(self.str(span)) } else { None }
    }

    /// The raw text of a response's `error`.
    pub fn error(&self) -> Option<&str> {
        if let Payload::Error(span) = self.payload { Some(self.str(span)) } else { None }
    }

    /// The request with the one JSON object `arguments` in the place of `params.arguments`, read anew under the strict profile;
    /// every other byte is what it was. For what a person has written instead of the client.
    ///
    /// # Errors
    /// Arguments that are not one JSON object, or that make the message one that the strict profile refuses.
    pub fn with_arguments(&self, arguments: &str) -> Result<Self, FrameError> {
        let bad = || FrameError::new(Fault::BadParams, None);
        // One value and nothing behind it, which could be another member of `params`.
        let one: &serde_json::value::RawValue = serde_json::from_str(arguments).map_err(|_| bad())?;
        // Outside of strings a line end is white space, and strings have none.
        let one = one_line_of(one.get());
        if !one.starts_with('{') {
            return Err(bad());
        }
        let (from, to, before) = match (self.params.get(Param::Arguments), self.payload) {
            (Some(span), _) => (span.start, span.end, ""),
            (None, Payload::Params(span)) => (span.end - 1, span.end - 1, ",\"arguments\":"),
            _ => return Err(bad()),
        };
        let (head, tail) = (self.bytes.get(..from as usize), self.bytes.get(to as usize..));
        let (Some(head), Some(tail)) = (head, tail) else { return Err(bad()) };
        let edited = Self::from_client([head, before.as_bytes(), one.as_bytes(), tail].concat().into())?;
        if edited.param(Param::Arguments) == Some(&*one) { Ok(edited) } else { Err(bad()) }
    }

    /// The digest over the bytes without the line terminator: what people see and the record keeps.
    pub fn sha256(&self) -> Digest {
        Digest::of(without_terminator(&self.bytes))
    }

    /// The bytes without the line terminator: what is hashed, recorded and shown.
    pub fn line(&self) -> Bytes {
        self.bytes.slice(..without_terminator(&self.bytes).len())
    }

    /// What is left of the frame when it only has to be sent.
    pub fn into_bytes(self) -> FrameBytes {
        FrameBytes(self.bytes)
    }

    /// The same frame in memory of its own. Frames share the buffer that they were read into; one that waits for people
    /// should not keep that buffer alive.
    #[must_use]
    pub fn detached(mut self) -> Self {
        self.bytes = Bytes::copy_from_slice(&self.bytes);
        self
    }

    fn str(&self, span: Span) -> &str {
        let bytes = self.bytes.get(span.start as usize..span.end as usize).unwrap_or_default();
        // The bytes cannot change, and were UTF-8 when the frame was made.
        utf8(bytes).expect("a frame's bytes are UTF-8 since it was read")
    }
}

impl fmt::Debug for Frame {
    /// Arguments may be secret: a frame shows what it is, not what it holds.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Frame")
            .field("kind", &self.kind)
            .field("id", &self.id)
            .field("method", &self.method())
            .field("bytes", &self.bytes.len())
            .finish_non_exhaustive()
    }
}

/// The bytes of a [`Frame`], exactly as they arrived, for those who keep or send it and need not know any more what it says.
/// Only a frame can be made into one, so these bytes have been read.
#[derive(Clone)]
pub struct FrameBytes(Bytes);

impl FrameBytes {
    /// The digest over the bytes without the line terminator, as of [`Frame::sha256`].
    pub fn sha256(&self) -> Digest {
        Digest::of(without_terminator(&self.0))
    }

    /// The bytes as received.
    pub fn bytes(&self) -> &Bytes {
        &self.0
    }

    /// As a body: the bytes as received.
    pub fn into_body(self) -> Bytes {
        self.0
    }

    /// As a line: the bytes as received. An element of a batch, which came without a line of its own, gets an end.
    pub fn into_line(self) -> Bytes {
        if self.0.last() == Some(&b'\n') { self.0 } else { [&self.0, &b"\n"[..]].concat().into() }
    }
}

impl fmt::Debug for FrameBytes {
    /// As for [`Frame`].
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FrameBytes").field("bytes", &self.0.len()).finish_non_exhaustive()
    }
}

/// The envelope of a frame, judged.
struct Envelope {
    kind: Kind,
    id: Option<RequestId>,
    method: Option<SmolStr>,
    payload: Payload,
}

fn judge(text: &str, outline: &Outline, profile: Profile) -> Result<Envelope, Fault> {
    if let Some(fault) = outline.refusal() {
        return Err(fault);
    }
    match outline.top {
        Some(Top::Object) => {}
        Some(Top::Array) => return Err(Fault::Batch),
        Some(Top::Scalar) | None => return Err(Fault::NotAnObject),
    }
    let raw = |member| outline.member(member).map(|span| span.of(text));
    let is_version = |token: &str| token == r#""2.0""# || scan::unescape(token) == "2.0";
    if !raw(Member::Jsonrpc).is_some_and(is_version) {
        return Err(Fault::BadVersion);
    }
    let (kind, payload) = shape(outline)?;
    let id = match raw(Member::Id) {
        None => None,
        Some(token) => Some(
            match (profile, kind) {
                // The server has chosen it; whether it has asked is the session's to know.
                (Profile::Strict, Kind::Response) | (Profile::Loose, Kind::Request | Kind::Notification) => {
                    RequestId::of_server_request(token)
                }
                (Profile::Strict, Kind::Request | Kind::Notification) => RequestId::from_token(token),
                (Profile::Loose, Kind::Response) => RequestId::of_server_response(token),
            }
            .ok_or(Fault::BadId)?,
        ),
    };
    let method = raw(Member::Method).map(method).transpose()?;
    if profile == Profile::Strict {
        let object = match payload {
            Payload::None => None,
            Payload::Params(span) => Some((span, Fault::BadParams)),
            // Some peers drop a response whose result is not an object, others take it.
            Payload::Result(span) | Payload::Error(span) => Some((span, Fault::BadShape)),
        };
        if let Some((span, fault)) = object
            && !span.of(text).starts_with('{')
        {
            return Err(fault);
        }
    }
    Ok(Envelope { kind, id, method, payload })
}

/// Which of the three forms the members make. Mixtures are executed by some servers and dropped by others.
fn shape(outline: &Outline) -> Result<(Kind, Payload), Fault> {
    let has = |member| outline.member(member).is_some();
    let params = outline.member(Member::Params);
    match (
        has(Member::Method),
        has(Member::Id),
        outline.member(Member::Result),
        outline.member(Member::Error),
    ) {
        (true, has_id, None, None) => {
            let kind = if has_id { Kind::Request } else { Kind::Notification };
            Ok((kind, params.map_or(Payload::None, Payload::Params)))
        }
        (false, true, Some(result), None) if params.is_none() => {
            Ok((Kind::Response, Payload::Result(result)))
        }
        (false, true, None, Some(error)) if params.is_none() => Ok((Kind::Response, Payload::Error(error))),
        _ => Err(Fault::BadShape),
    }
}

fn method(token: &str) -> Result<SmolStr, Fault> {
    if !token.starts_with('"') {
        return Err(Fault::BadMethod);
    }
    let name = scan::unescape(token);
    let is_plain = (1..=MAX_METHOD_BYTES).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_graphic());
    if is_plain { Ok(name.into()) } else { Err(Fault::BadMethod) }
}

/// The id that an error answer to a refused text should carry.
fn id_to_answer(text: &str, outline: &Outline, fault: Fault) -> Option<RequestId> {
    // Of a text that is not JSON nothing is certain; and if its id stands there twice, there is none.
    if fault.code() == ErrorCode::PARSE_ERROR || outline.id_is_ambiguous {
        return None;
    }
    let has = |member| outline.member(member).is_some();
    // The id of a response is one that the other side chose: an error with it would answer some request of the peer's own.
    if !has(Member::Method) && (has(Member::Result) || has(Member::Error)) {
        return None;
    }
    outline.member(Member::Id).and_then(|span| RequestId::from_token(span.of(text)))
}

/// The text of the line without its terminator.
fn one_line(bytes: &Bytes) -> Result<&str, Fault> {
    let line = without_terminator(bytes);
    if line.len() > MAX_TEXT_BYTES {
        return Err(Fault::TooLarge);
    }
    utf8(line).ok_or(Fault::NotUtf8)
}

/// `bytes` as text, if they are UTF-8.
#[inline]
fn utf8(bytes: &[u8]) -> Option<&str> {
    // The one is made for long texts, the other is faster for short ones.
    if bytes.len() < LONG_TEXT_BYTES {
        std::str::from_utf8(bytes).ok()
    } else {
        simdutf8::basic::from_utf8(bytes).ok()
    }
}

/// What is left of a line without `\n` or `\r\n` at its end. A carriage return alone is not a terminator.
fn without_terminator(bytes: &[u8]) -> &[u8] {
    match bytes.strip_suffix(b"\n") {
        Some(line) => line.strip_suffix(b"\r").unwrap_or(line),
        None => bytes,
    }
}

#[cfg(test)]
mod tests;
