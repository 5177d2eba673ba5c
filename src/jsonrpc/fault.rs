//! What can be wrong with a text that should be a message, and the codes of JSON-RPC 2.0 (section 5.1) for it.
//!
//! Found by `scan` and `frame`, told to the peer by `gate`. A fault never carries text of the peer.

use std::fmt;

/// The code of a JSON-RPC error object.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ErrorCode(pub i32);

impl ErrorCode {
    /// The bytes are not JSON that every parser reads alike.
    pub const PARSE_ERROR: Self = Self(-32700);
    /// The JSON is not one unambiguous JSON-RPC message.
    pub const INVALID_REQUEST: Self = Self(-32600);
    /// The method is not offered, or only looks like one that is.
    pub const METHOD_NOT_FOUND: Self = Self(-32601);
    /// The parameters are not what the method takes, or can be read in two ways.
    pub const INVALID_PARAMS: Self = Self(-32602);
    /// Something failed on our side.
    pub const INTERNAL_ERROR: Self = Self(-32603);
    /// The request does not declare what it takes to answer it (MCP 2026-07-28).
    pub const MISSING_CAPABILITY: Self = Self(-32021);
    /// The policy or a person refused the request, and the client wants that to be a failure. Ours: outside the range that
    /// JSON-RPC 2.0 (section 5.1) and MCP reserve.
    pub const REFUSED: Self = Self(4030);
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// Why a text is not a frame. Displays as a short reason in our own words; text of the peer is never in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Fault {
    /// The bytes are not UTF-8 (RFC 8259 section 8.1).
    #[error("the message is not valid UTF-8")]
    NotUtf8,
    /// A byte order mark (RFC 8259 section 8.1).
    #[error("the message begins with a byte order mark")]
    ByteOrderMark,
    /// A carriage return that is not part of the line's end: to several servers it ends a line, so that one message is two.
    #[error("the message holds a bare carriage return")]
    CarriageReturn,
    /// A line feed inside the message.
    #[error("the message holds a line feed")]
    LineFeed,
    /// Not JSON (RFC 8259).
    #[error("not valid JSON at byte {at}")]
    Syntax {
        /// Offset of the first byte that does not fit.
        at: usize,
    },
    /// An escape of half a surrogate pair: refused, replaced or kept, depending on the parser.
    #[error("a string holds half of a surrogate pair")]
    LoneSurrogate,
    /// A code point that Unicode never assigns.
    #[error("the message holds a Unicode noncharacter")]
    Noncharacter,
    /// A number above the range of an f64: an error or infinity, depending on the parser.
    #[error("a number is too large for a 64-bit float")]
    NumberOverflow,
    /// More bytes than a frame may have.
    #[error("the message is too large")]
    TooLarge,
    /// More open arrays and objects than some peers accept.
    #[error("arrays and objects are nested too deep")]
    TooDeep,
    /// A number of more than [`MAX_NUMBER_CHARS`](super::scan::MAX_NUMBER_CHARS) characters.
    #[error("a number has more than 1,000 characters")]
    NumberTooLong,
    /// A string, number or literal instead of a message.
    #[error("the message is not an object")]
    NotAnObject,
    /// An array: a batch where none is agreed on.
    #[error("batches are not accepted")]
    Batch,
    /// A batch of no elements.
    #[error("the batch is empty")]
    BatchEmpty,
    /// A batch of more than `MAX_BATCH_ELEMENTS` elements.
    #[error("the batch has more than 100 elements")]
    BatchTooLarge,
    /// A member of the envelope stands there twice: which one counts depends on the parser.
    #[error("a member of the envelope is repeated")]
    DuplicateMember,
    /// A member of the envelope that JSON-RPC does not have: some peers refuse it, some execute.
    #[error("the envelope has an unknown member")]
    UnknownMember,
    /// A member of the envelope that some parsers take for a known one.
    #[error("the envelope has a member that can be mistaken for a known one")]
    LookAlikeMember,
    /// `jsonrpc` is not the string `2.0`.
    #[error("`jsonrpc` is not \"2.0\"")]
    BadVersion,
    /// Not exactly one of request, notification and response.
    #[error("the message is not exactly one of request, notification and response")]
    BadShape,
    /// The id is neither a plain string nor an integer that every peer reads alike.
    #[error("`id` is neither a short plain string nor an integer within ±(2^53 − 1)")]
    BadId,
    /// The method is not 1 to 128 visible ASCII characters.
    #[error("`method` is not a string of 1 to 128 visible ASCII characters")]
    BadMethod,
    /// `params` is not an object; MCP has no other form.
    #[error("`params` is not an object")]
    BadParams,
    /// A key repeated in an object inside the message.
    #[error("an object has the same key twice")]
    DuplicateKey,
    /// A key of `params` that some parsers take for one that decides.
    #[error("`params` has a key that can be mistaken for a known one")]
    LookAlikeKey,
    /// Two keys of `params` that differ only in case or in their Unicode form.
    #[error("`params` has two keys that some parsers take for the same")]
    TwinKeys,
}

impl Fault {
    /// The code that the peer is told.
    pub fn code(self) -> ErrorCode {
        match self {
            Self::NotUtf8
            | Self::ByteOrderMark
            | Self::CarriageReturn
            | Self::LineFeed
            | Self::Syntax { .. }
            | Self::LoneSurrogate
            | Self::Noncharacter
            | Self::NumberOverflow => ErrorCode::PARSE_ERROR,
            Self::BadParams | Self::DuplicateKey | Self::LookAlikeKey | Self::TwinKeys => {
                ErrorCode::INVALID_PARAMS
            }
            Self::TooLarge
            | Self::TooDeep
            | Self::NumberTooLong
            | Self::NotAnObject
            | Self::Batch
            | Self::BatchEmpty
            | Self::BatchTooLarge
            | Self::DuplicateMember
            | Self::UnknownMember
            | Self::LookAlikeMember
            | Self::BadVersion
            | Self::BadShape
            | Self::BadId
            | Self::BadMethod => ErrorCode::INVALID_REQUEST,
        }
    }
}
