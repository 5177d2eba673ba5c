//! Scenarios for frames: what passes as it is, what is refused, with which code and to which id.

use bytes::Bytes;

use super::*;

/// A complete call, as it would be smuggled.
const CALL: &str =
    r#"{"jsonrpc":"2.0","id":11,"method":"tools/call","params":{"name":"danger","arguments":{}}}"#;

fn client(line: impl Into<Vec<u8>>) -> Result<Frame, FrameError> {
    Frame::from_client(Bytes::from(line.into()))
}

fn server(line: impl Into<Vec<u8>>) -> Result<Frame, FrameError> {
    Frame::from_server(Bytes::from(line.into()))
}

/// The frame passes, and keeps its bytes.
#[track_caller]
fn passes(line: impl AsRef<[u8]>) -> Frame {
    let line = line.as_ref();
    match client(line) {
        Ok(frame) => {
            assert_eq!(frame.bytes(), line);
            frame
        }
        Err(error) => panic!("{}: {error}", String::from_utf8_lossy(line)),
    }
}

/// The frame is refused with this code, and the answer goes to this id.
#[track_caller]
fn refused(line: impl AsRef<[u8]>, code: i32, id: &str) -> Fault {
    let line = line.as_ref();
    match client(line) {
        Ok(_) => panic!("accepted: {}", String::from_utf8_lossy(line)),
        Err(error) => {
            let shown = String::from_utf8_lossy(&line[..line.len().min(300)]).into_owned();
            assert_eq!(error.code.0, code, "{shown}: {error}");
            assert_eq!(error.id.as_ref().map_or("none", RequestId::as_raw), id, "{shown}: {error}");
            error.fault
        }
    }
}

fn with_id(id: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"ping"}}"#)
}

fn with_params(params: &str) -> String {
    format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{params}}}"#)
}

fn with_argument(value: &str) -> String {
    with_params(&format!(r#"{{"name":"danger","arguments":{{"x":{value}}}}}"#))
}

#[test]
fn a_bare_carriage_return_never_passes_because_servers_end_a_line_at_it() {
    let smuggled = format!(
        "{{\"jsonrpc\":\"2.0\",\"id\":10,\"method\":\"ping\",\"params\":{{\"_meta\":{{\"x\":\r{CALL}\r}}}}}}\n"
    );
    assert_eq!(refused(&smuggled, -32700, "none"), Fault::CarriageReturn);
    assert_eq!(refused(format!("{CALL}\r"), -32700, "none"), Fault::CarriageReturn);
    assert_eq!(refused(format!("{CALL}\r\r\n"), -32700, "none"), Fault::CarriageReturn);
    assert_eq!(refused(format!("\r{CALL}\n"), -32700, "none"), Fault::CarriageReturn);
    assert_eq!(server(smuggled).unwrap_err().fault, Fault::CarriageReturn);
}

#[test]
fn a_line_may_end_with_lf_with_crlf_or_not_at_all_and_the_digest_is_the_same() {
    let digests: Vec<Digest> =
        ["", "\n", "\r\n"].iter().map(|end| passes(format!("{CALL}{end}")).sha256()).collect();
    assert_eq!(digests, [Digest::of(CALL.as_bytes()); 3]);
    assert!(passes(format!("{CALL}\n")).is_terminated());
    assert!(!passes(CALL).is_terminated());
}

#[test]
fn the_parts_of_a_request_are_found() {
    let frame = passes(
        " \t{ \"method\" : \"tools\\/call\" , \"params\":{\"n\\u0061me\":\"x\"}, \"id\":\"a\", \"jsonrpc\":\"2.0\"} \r\n",
    );
    assert_eq!(frame.kind(), Kind::Request);
    assert_eq!(frame.id().unwrap().as_raw(), "\"a\"");
    assert_eq!(frame.method(), Some("tools/call"));
    assert_eq!(frame.params(), Some(r#"{"n\u0061me":"x"}"#));
    assert!(frame.text().starts_with("{ \"method\"") && frame.text().ends_with("\"2.0\"}"));
    assert_eq!((frame.result(), frame.error()), (None, None));
}

#[test]
fn the_three_forms_are_told_apart() {
    let notification = passes(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#);
    assert_eq!(
        (notification.kind(), notification.id(), notification.params()),
        (Kind::Notification, None, None)
    );
    let response = passes(r#"{"jsonrpc":"2.0","id":5,"result":{"roots":[]}}"#);
    assert_eq!((response.kind(), response.result()), (Kind::Response, Some(r#"{"roots":[]}"#)));
    let error = passes(r#"{"jsonrpc":"2.0","id":5,"error":{"code":1,"message":"no"}}"#);
    assert_eq!((error.kind(), error.error()), (Kind::Response, Some(r#"{"code":1,"message":"no"}"#)));
}

#[test]
fn a_frame_is_small() {
    assert!(size_of::<Frame>() <= 152, "{}", size_of::<Frame>());
}
