//! The one error response that we write (JSON-RPC 2.0, section 5).
//!
//! Used wherever a frame is refused. Never quotes text of a peer: a message is ours, and `data` is JSON that we made.

use std::borrow::Cow;

use bytes::Bytes;

use super::{
    fault::ErrorCode,
    id::{RequestId, quote},
};

/// One line, with its `\n`: the error response to the request `id`, or with `"id":null` where the id could not be read
/// (JSON-RPC 2.0, section 5). `message` is escaped here; `data` is JSON text made by us.
pub fn error_response(id: Option<&RequestId>, code: ErrorCode, message: &str, data: Option<&str>) -> Bytes {
    let id = id.map_or("null", RequestId::as_raw);
    let message = quote(message);
    let line = match data {
        Some(data) => {
            let data = one_line(data);
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

/// JSON text without line ends, which would end our message: outside of strings they are white space, and inside JSON
/// forbids them.
pub(crate) fn one_line(json: &str) -> Cow<'_, str> {
    if json.contains(['\n', '\r']) {
        Cow::Owned(json.replace(['\n', '\r'], " "))
    } else {
        Cow::Borrowed(json)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_response_is_one_line_whatever_the_message_says() {
        let line = error_response(None, ErrorCode::PARSE_ERROR, "no\r\n\"good\"", Some("{\"at\":\n1}"));
        assert_eq!(
            line,
            "{\"jsonrpc\":\"2.0\",\"id\":null,\"error\":{\"code\":-32700,\"message\":\"no\\r\\n\\\"good\\\"\",\"data\":{\"at\": 1}}}\n"
        );
    }
}
