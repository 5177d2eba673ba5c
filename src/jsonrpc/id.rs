//! Request ids: which are legal, when two are equal, and how one is written into an answer.
//!
//! Read by `frame`, kept by `gate` to pair answers with requests. Ids are peers' text, so they are bounded and plain.

use std::fmt;

use smol_str::SmolStr;

use super::scan::{self, Profile};
use crate::sanitize;

/// Bytes of a string id, decoded. Ids are echoed, kept and shown, so they have a limit.
pub const MAX_ID_BYTES: usize = 256;

/// Bytes of an id of a server's request, decoded. Each is kept until the client has answered, which it need never do.
pub const MAX_SERVER_ID_BYTES: usize = 1024;

/// The largest integer id: 2^53 − 1. JavaScript peers round above it, and would answer another id.
pub const MAX_ID_INTEGER: u64 = (1 << 53) - 1;

/// The id of a request, as a JSON token: `7` or `"7"`. Equal ids have the same type and the same value, so `7` and `"7"`
/// differ, while `"a"` and `"\u0061"` are one id (the token is kept without needless escapes: an answer to one is an
/// answer to the other). Cheap to clone; up to 23 bytes it takes no memory of its own.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct RequestId(SmolStr);

impl RequestId {
    /// Reads a token that stands in a scanned text. `None` unless it is a string of at most [`MAX_ID_BYTES`] bytes
    /// without control and direction characters, or an integer within ±[`MAX_ID_INTEGER`] written in the one usual way.
    pub fn from_token(token: &str) -> Option<Self> {
        if token.starts_with('"') { Self::from_string(token) } else { Self::from_integer(token) }
    }

    /// The JSON token, to be written into an answer as it is.
    pub fn as_raw(&self) -> &str {
        &self.0
    }

    /// Whether this is the `null` of an error response to a request that could not be read.
    pub fn is_null(&self) -> bool {
        self.0 == "null"
    }

    fn from_string(token: &str) -> Option<Self> {
        let text = scan::unescape(token);
        if text.len() > MAX_ID_BYTES || text.chars().any(|c| c.is_control() || sanitize::is_bidi_control(c)) {
            return None;
        }
        Some(Self(if token.contains('\\') { quote(&text).into() } else { token.into() }))
    }

    fn from_integer(token: &str) -> Option<Self> {
        let digits = token.strip_prefix('-').unwrap_or(token);
        let is_canonical = digits.bytes().all(|byte| byte.is_ascii_digit())
            && (!digits.starts_with('0') || token == "0")
            // More digits than the limit has are above it; so `parse` cannot overflow.
            && digits.len() <= 16;
        (is_canonical && digits.parse::<u64>().is_ok_and(|value| value <= MAX_ID_INTEGER))
            .then(|| Self(token.into()))
    }

    /// The id of a server's request, and so that of the client's answer to it: any string or number of at most
    /// [`MAX_SERVER_ID_BYTES`] bytes, as long as a client can write it into its answer.
    pub(super) fn of_server_request(token: &str) -> Option<Self> {
        // What the strict profile lets stand nowhere could not come back.
        Self::as_written(token).filter(|_| scan::scan(token, Profile::Strict).fault.is_none())
    }

    /// The id to which a server answers: any that a client's request can have, and more; or `null`.
    pub(super) fn of_server_response(token: &str) -> Option<Self> {
        if token == "null" { Some(Self(token.into())) } else { Self::as_written(token) }
    }

    /// A string or a number of at most [`MAX_SERVER_ID_BYTES`] bytes. Numbers are kept as written, so that `1.0` is not an
    /// answer to `1`.
    fn as_written(token: &str) -> Option<Self> {
        match token.as_bytes().first()? {
            b'"' => {
                let text = scan::unescape(token);
                let is_short = text.len() <= MAX_SERVER_ID_BYTES;
                is_short.then(|| Self(if token.contains('\\') { quote(&text).into() } else { token.into() }))
            }
            b'-' | b'0'..=b'9' => (token.len() <= MAX_SERVER_ID_BYTES).then(|| Self(token.into())),
            _ => None,
        }
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// `text` as a JSON string token. Control characters, and so line ends, come out as escapes.
pub fn quote(text: &str) -> String {
    serde_json::to_string(text).expect("writing a string into memory as JSON cannot fail")
}
