//! The frames of the stdio bench: what the driver sends and what its server answers.
//!
//! Used by the driver (`session`) and by the server role (`roles`), which so agree on every byte.

use std::io::Write as _;

/// A small call and its answer, terminator included: what a `tools/call` with a short argument takes.
pub(crate) const SMALL_FRAME_BYTES: usize = 200;
/// A large call, or a large answer, terminator included.
pub(crate) const LARGE_FRAME_BYTES: usize = 1 << 20;

/// What the tool is asked to do; the name of the tool says it to the server.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// A small call, a small answer.
    Small,
    /// A large call that writes source code, a small answer.
    LargeCall,
    /// A small call, a large answer with source code.
    LargeAnswer,
    /// A large call that carries an image, a small answer.
    LargeImage,
    /// A small call that the server answers with the time at which it came in.
    Clock,
}

impl Shape {
    fn tool(self) -> &'static str {
        match self {
            Self::Small | Self::LargeCall | Self::LargeImage => "echo",
            Self::LargeAnswer => "read",
            Self::Clock => "clock",
        }
    }
}

/// Begins a session. The server answers with the time at which its first byte came in.
pub(crate) const INITIALIZE: &[u8] = concat!(
    r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-06-18","#,
    r#""capabilities":{},"clientInfo":{"name":"bench","version":"1"}}}"#,
    "\n"
)
.as_bytes();

/// Ends the handshake; has no answer.
pub(crate) const INITIALIZED: &[u8] =
    concat!(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#, "\n").as_bytes();

/// What stands in front of the time in the answer to [`INITIALIZE`].
pub(crate) const FIRST_BYTE_AT: &str = r#""version":""#;

/// Writes the call `id` of `shape` into `frame`, replacing what was there.
pub(crate) fn write_call(frame: &mut Vec<u8>, id: u64, shape: Shape) {
    frame.clear();
    let tool = shape.tool();
    push(
        frame,
        format_args!(r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"{tool}","#),
    );
    // A number of its own: the same call, made again while it is held, is the same hold.
    push(frame, format_args!(r#""arguments":{{"number":{id},"text":""#));
    let (bytes, text) = match shape {
        Shape::Small | Shape::LargeAnswer | Shape::Clock => (SMALL_FRAME_BYTES, SENTENCE),
        Shape::LargeCall => (LARGE_FRAME_BYTES, CODE),
        Shape::LargeImage => (LARGE_FRAME_BYTES, BASE64),
    };
    fill(frame, bytes, text, b"\"}}}\n");
}

/// Writes the answer to the call whose id is the raw token `id` behind what is in `out`.
pub(crate) fn write_answer(out: &mut Vec<u8>, id: &[u8], bytes: usize) {
    let begin = out.len();
    out.extend_from_slice(br#"{"jsonrpc":"2.0","id":"#);
    out.extend_from_slice(id);
    out.extend_from_slice(br#","result":{"content":[{"type":"text","text":""#);
    fill(out, begin + bytes, if bytes > SMALL_FRAME_BYTES { CODE } else { SENTENCE }, b"\"}]}}\n");
}

/// What stands in front of the time in the answer to a [`Shape::Clock`] call.
pub(crate) const CAME_AT: &str = r#""text":""#;

/// Writes the answer to a [`Shape::Clock`] call.
pub(crate) fn write_time(out: &mut Vec<u8>, id: &[u8], came_ns: u64) {
    out.extend_from_slice(br#"{"jsonrpc":"2.0","id":"#);
    out.extend_from_slice(id);
    out.extend_from_slice(br#","result":{"content":[{"type":"text","#);
    push(out, format_args!("{CAME_AT}{came_ns}\"}}]}}}}\n"));
}

/// Writes the answer to [`INITIALIZE`].
pub(crate) fn write_initialized(out: &mut Vec<u8>, id: &[u8], first_byte_ns: u64) {
    out.extend_from_slice(br#"{"jsonrpc":"2.0","id":"#);
    out.extend_from_slice(id);
    out.extend_from_slice(br#","result":{"protocolVersion":"2025-06-18","capabilities":{"tools":{}},"#);
    push(out, format_args!("\"serverInfo\":{{\"name\":\"bench\",{FIRST_BYTE_AT}{first_byte_ns}\"}}}}}}\n"));
}

/// How an answer to `id` begins.
pub(crate) fn write_answer_start(out: &mut Vec<u8>, id: u64) {
    out.clear();
    push(out, format_args!(r#"{{"jsonrpc":"2.0","id":{id},"result""#));
}

/// What a person might ask.
const SENTENCE: &str = r#"Please refund order 1042; the \"deluxe\" lamp broke."#;

/// Source code as a JSON string, as tools that read and write files carry it: an escape every twenty bytes, and little that
/// is not ASCII.
const CODE: &str = concat!(
    r#"//! Splits a byte stream into lines.\n\nuse std::io;\n\n/// What came on the stream.\n#[derive(Clone, Debug)]\n"#,
    r#"pub enum Line {\n    /// A line with its end — sharing the buffer.\n    Text(Bytes),\n    /// Nothing.\n    Blank,\n}\n\n"#,
    r#"impl Line {\n    pub fn describe(&self) -> String {\n        match self {\n            Self::Text(bytes) => "#,
    r#"format!(\"{} bytes of text\", bytes.len()),\n            Self::Blank => \"nothing\".to_owned(),\n        }\n    }\n}\n"#,
);

/// An image in base 64: nothing but plain characters.
const BASE64: &str =
    "iVBORw0KGgoAAAANSUhEUgAAAAoAAAAKCAYAAACNMs+9AAAAFUlEQVR42mNk+M9Qz0AEYBxVSF+FABJADveWkH6o";

/// Pads `frame` with repetitions of `text` and then with `x`, so that it has `bytes` bytes once `end` is behind it.
fn fill(frame: &mut Vec<u8>, bytes: usize, text: &str, end: &[u8]) {
    let room = bytes.saturating_sub(frame.len() + end.len());
    for _ in 0..room / text.len() {
        frame.extend_from_slice(text.as_bytes());
    }
    frame.resize(frame.len() + room % text.len(), b'x');
    frame.extend_from_slice(end);
}

fn push(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    // A `Vec` takes every byte.
    let _ = out.write_fmt(text);
}
