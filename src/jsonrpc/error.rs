//! The error codes of JSON-RPC 2.0 (section 5.1) and the one error response that we write.
//!
//! Used wherever a frame is refused. Never quotes text of a peer: a message is ours, and `data` is JSON that we made.

use std::fmt;

use bytes::Bytes;

use super::frame::RequestId;

/// The code of a JSON-RPC error object.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ErrorCode(pub i32);

impl ErrorCode {
    /// The policy or a person refused the request, and the client wants that to be a failure. Ours: outside the range that
    /// JSON-RPC 2.0 (section 5.1) and MCP reserve.
    pub const REFUSED: Self = Self(4030);
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

/// One line, with its `\n`: the error response to the request `id`, or with `"id":null` where the id could not be read
/// (JSON-RPC 2.0, section 5). `message` is escaped here; `data` must be JSON text of one line, made by us.
pub fn error_response(id: Option<&RequestId>, code: ErrorCode, message: &str, data: Option<&str>) -> Bytes {
    let id = id.map_or("null", RequestId::as_raw);
    let message = quote(message);
    let line = match data {
        Some(data) => {
            debug_assert!(!data.contains(['\n', '\r']), "data of an error response must be one line");
            format!(
                "{{\"jsonrpc\":\"2.0\",\"id\":{id},\"error\":{{\"code\":{code},\"message\":{message},\"data\":{data}}}}}\n"
            )
        }
        None => {
            format!(
                "{{\"jsonrpc\":\"2.0\",\"id\":{id},\"error\":{{\"code\":{code},\"message\":{message}}}}}\n"
            )
        }
    };
    Bytes::from(line)
}

/// `text` as a JSON string token. Control characters, and so line ends, come out as escapes.
pub fn quote(text: &str) -> String {
    serde_json::to_string(text).expect("writing a string into memory as JSON cannot fail")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_response_is_one_line_whatever_the_message_says() {
        let line = error_response(None, ErrorCode::PARSE_ERROR, "no\r\n\"good\"", Some("{\"at\":1}"));
        assert_eq!(
            line,
            "{\"jsonrpc\":\"2.0\",\"id\":null,\"error\":{\"code\":-32700,\"message\":\"no\\r\\n\\\"good\\\"\",\"data\":{\"at\":1}}}\n"
        );
    }
}
