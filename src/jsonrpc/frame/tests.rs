//! Scenarios for frames: what passes as it is, what is refused, with which code and to which id.

use bytes::Bytes;

use super::*;
use crate::jsonrpc::id::MAX_SERVER_ID_BYTES;

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
    let line = format!("{CALL}\n");
    assert_eq!(passes(line.clone()).into_bytes().into_line(), line);
    assert_eq!(passes(CALL).into_bytes().into_line(), line);
    assert_eq!(passes(CALL).into_bytes().into_body(), CALL);
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
    assert!(size_of::<Frame>() <= 144, "{}", size_of::<Frame>());
}

#[test]
fn a_line_that_is_not_one_json_text_is_refused_without_an_id() {
    for line in [
        format!(r#"{{"jsonrpc":"2.0","id":1,"method":"ping"}}{CALL}"#),
        format!("{CALL} x"),
        format!("{CALL}{CALL}"),
        format!("\u{feff}{CALL}"),
        format!("{CALL}\u{85}{CALL}"),
        format!("{CALL}\u{2028}"),
        format!("\u{2029}{CALL}"),
        format!("\u{b}{CALL}"),
        format!("\u{c}{CALL}"),
        format!("{CALL}\u{1c}{CALL}"),
        format!("{CALL}\u{1d}"),
        format!("\u{1e}{CALL}"),
        format!("\0{CALL}"),
        format!("{CALL}\0"),
        format!("{CALL}\0{CALL}"),
        "Content-Length: 20".to_owned(),
        format!("/*c*/{CALL}"),
        format!("//c{CALL}"),
        format!("#{CALL}"),
        format!("{CALL}\n{CALL}"),
        "\u{1f}\u{8b}\u{8}".to_owned(),
        String::new(),
        "  ".to_owned(),
        CALL.replace('"', "'"),
        CALL.replace("}}}", "},}}"),
        CALL.replace(":11", "\u{a0}:11"),
    ] {
        refused(line, -32700, "none");
    }
}

#[test]
fn bytes_that_are_not_utf8_are_refused() {
    let forms: [&[u8]; 10] = [
        b"\xff\xfe",
        b"\xc0\xaf",
        b"\xc0\x80",
        b"\xe0\x80\xaf",
        b"\xf8\x88\x80\x80\x80",
        b"\xfc\x84\x80\x80\x80\x80",
        b"\xed\xa0\x80",
        b"\xf4\x90\x80\x80",
        b"\xe2\x82",
        b"\x80",
    ];
    for form in forms {
        let line = [br#"{"jsonrpc":"2.0","id":1,"method":""#, form, br#""}"#].concat();
        assert_eq!(refused(&line, -32700, "none"), Fault::NotUtf8);
        assert_eq!(server(line).unwrap_err().fault, Fault::NotUtf8);
    }
    let utf16: Vec<u8> = CALL.encode_utf16().flat_map(u16::to_le_bytes).collect();
    refused(utf16, -32700, "none");
}

#[test]
fn a_repeated_member_of_the_envelope_is_refused_however_it_is_spelt() {
    for line in [
        r#"{"jsonrpc":"2.0","id":1,"method":"ping","method":"tools/call"}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","method":"ping"}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"ping","params":{},"params":{}}"#,
        r#"{"jsonrpc":"2.0","jsonrpc":"2.0","id":1,"method":"ping"}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"ping","\u006dethod":"tools/call"}"#,
        r#"{"jsonrpc":"2.0","id":1,"m\u0065thod":"ping","method":"tools/call"}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"ping","params":{"a":1,"a":2},"params":{}}"#,
    ] {
        assert_eq!(refused(line, -32600, "1"), Fault::DuplicateMember);
        assert_eq!(server(line).unwrap_err().fault, Fault::DuplicateMember);
    }
    refused(r#"{"jsonrpc":"2.0","id":66,"id":67,"method":"ping"}"#, -32600, "none");
    refused(r#"{"jsonrpc":"2.0","id":66,"i\u0064":66,"method":"ping"}"#, -32600, "none");
}

#[test]
fn a_repeated_key_deeper_is_refused_and_the_server_may_send_it() {
    for params in [
        r#"{"name":"safe","name":"danger"}"#,
        r#"{"name":"x","arguments":{"x":"shown"},"arguments":{"x":"hidden"}}"#,
        r#"{"name":"x","arguments":{"a":[{"deep":1,"b":2,"d\u0065ep":3}]}}"#,
        r#"{"name":"x","arguments":{"":1,"":2}}"#,
        r#"{"name":"x","arguments":{"\ud83d\ude00":1,"😀":2}}"#,
    ] {
        let line = with_params(params);
        assert_eq!(refused(&line, -32602, "1"), Fault::DuplicateKey);
        server(line).unwrap();
    }
}

#[test]
fn one_key_in_many_is_found_when_it_is_repeated() {
    let object = |last: &str| {
        let keys: Vec<String> = (0..1_000).map(|n| format!("\"k{n}\":{n}")).collect();
        with_argument(&format!("{{{},\"{last}\":0}}", keys.join(",")))
    };
    passes(object("k1000"));
    assert_eq!(refused(object("k500"), -32602, "1"), Fault::DuplicateKey);
    assert_eq!(refused(object(r"\u006b999"), -32602, "1"), Fault::DuplicateKey);
}

#[test]
fn a_member_that_some_parser_takes_for_another_is_refused() {
    for key in [
        "Method",
        "METHOD",
        "methoD",
        "param\u{17f}",
        "PARAM\u{17f}",
        "re\u{17f}ult",
        "method\\u0000",
        "\\u0000method",
        " method",
        "method ",
        "meth\u{200b}od",
        "\u{ff4d}ethod",
        "\\u006dETHOD",
        "Id",
        "ID",
        "JSONRPC",
        "Error",
        "\u{feff}id",
        "method\\t",
    ] {
        let line = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"ping","{key}":"tools/call"}}"#);
        assert_eq!(refused(&line, -32600, "1"), Fault::LookAlikeMember, "{key}");
        assert_eq!(server(line).unwrap_err().fault, Fault::LookAlikeMember, "{key}");
    }
    for key in [
        "Name",
        "NAME",
        "Arguments",
        "argument\u{17f}",
        "_Meta",
        "Task",
        "ta\u{17f}\u{212a}",
        "tas\u{212a}",
        "requeststate",
        "inputresponses",
        "name\\u0000",
        " name",
        "na\u{ad}me",
        "URI",
        "RequestId",
    ] {
        let line = with_params(&format!(r#"{{"name":"safe","{key}":"danger"}}"#));
        assert_eq!(refused(line, -32602, "1"), Fault::LookAlikeKey, "{key}");
    }
}

#[test]
fn two_keys_of_params_that_differ_only_in_form_are_refused_and_pass_in_arguments() {
    for (one, two) in
        [("\u{e9}", "e\u{301}"), ("cursor", "Cursor"), ("\u{212b}", "\u{c5}"), ("\u{fb01}", "fi")]
    {
        let twins = format!(r#""{one}":1,"{two}":2"#);
        let line = with_params(&format!(r#"{{"name":"x",{twins}}}"#));
        assert_eq!(refused(line, -32602, "1"), Fault::TwinKeys, "{one} {two}");
        passes(with_argument(&format!("{{{twins}}}")));
    }
}

#[test]
fn the_envelope_has_no_members_but_its_own() {
    for member in [
        r#""approved":true"#,
        r#""x":1"#,
        r#""":1"#,
        r#""__proto__":{}"#,
        r#""constructor":1"#,
        r#""meta":{}"#,
    ] {
        let line = format!(r#"{{"jsonrpc":"2.0","id":1,"method":"ping",{member}}}"#);
        assert_eq!(refused(&line, -32600, "1"), Fault::UnknownMember);
        server(line).unwrap();
    }
    passes(with_argument(r#"{"__proto__":{},"constructor":{},"prototype":1,"":2}"#));
}

#[test]
fn an_id_is_a_short_plain_string_or_an_integer_that_all_read_alike() {
    for id in ["0", "7", "-7", "9007199254740991", "-9007199254740991", r#""""#, r#""7""#, r#""å 1""#] {
        assert_eq!(passes(with_id(id)).id().unwrap().as_raw(), id);
    }
    passes(with_id(&format!("\"{}\"", "a".repeat(256))));
    for id in [
        "null",
        "true",
        "false",
        "{}",
        "[]",
        "1.5",
        "26.0",
        "1e3",
        "1E3",
        "-0",
        "9007199254740992",
        "-9007199254740992",
        "18446744073709551617",
        r#""a\u000db""#,
        r#""\u001b[2J""#,
        r#""\u202e""#,
        "\"\u{202e}\"",
        "\"\u{2066}\"",
        r#""\u009b""#,
        r#""\u0000""#,
    ] {
        assert_eq!(refused(with_id(id), -32600, "none"), Fault::BadId, "{id}");
    }
    refused(with_id(&format!("\"{}\"", "a".repeat(257))), -32600, "none");
    refused(with_id(&"9".repeat(300)), -32600, "none");
    for id in ["01", "+1", "0x1", "1_0", "-"] {
        refused(with_id(id), -32700, "none");
    }
}

#[test]
fn a_client_can_answer_with_every_id_that_a_server_can_ask_with() {
    let asks = |id: &str| server(format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"ping"}}"#));
    let answers = |id: &str| client(format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{}}}}"#));
    let string = |bytes: usize| format!("\"{}\"", "a".repeat(bytes));
    for id in [
        "9007199254740993",
        "1.5",
        "1e3",
        "-0",
        r#""\u001b[2J""#,
        "\"\u{202e}\"",
        &string(300),
        &string(MAX_SERVER_ID_BYTES),
        &"9".repeat(300),
    ] {
        let asked = asks(id).unwrap();
        assert_eq!(answers(id).unwrap().id(), asked.id(), "{id}");
    }
    // Not a number any more for some peers, half a character, none, too long.
    let (escaped, long) = (format!("\"{}\"", r"\u00e5".repeat(513)), string(MAX_SERVER_ID_BYTES + 1));
    for id in
        ["1e400", r#""\ud800""#, r#""\uffff""#, "null", "true", "{}", &escaped, &long, &"9".repeat(1025)]
    {
        assert_eq!(asks(id).unwrap_err().fault, Fault::BadId, "{id}");
        answers(id).unwrap_err();
    }
}

#[test]
fn ids_are_equal_by_type_and_value() {
    let id = |token: &str| passes(with_id(token)).id().unwrap().clone();
    assert_ne!(id("1"), id(r#""1""#));
    assert_eq!(id(r#""a""#), id(r#""\u0061""#));
    assert_eq!(id(r#""a/b""#), id(r#""a\/b""#));
    assert_ne!(id(r#""a""#), id(r#""A""#));
    let answer = server(r#"{"jsonrpc":"2.0","id":1.0,"result":{}}"#).unwrap();
    assert_ne!(answer.id(), Some(&id("1")));
}

#[test]
fn mixtures_of_the_forms_are_refused() {
    for (line, id) in [
        (r#"{"jsonrpc":"2.0","id":77,"result":{},"method":"tools/call","params":{}}"#, "77"),
        (r#"{"jsonrpc":"2.0","id":77,"error":{},"method":"tools/call"}"#, "77"),
        (r#"{"jsonrpc":"2.0","method":"tools/call","result":{}}"#, "none"),
        // An answer to these would answer a request that the client itself has open under that id.
        (r#"{"jsonrpc":"2.0","id":77,"result":{},"error":{}}"#, "none"),
        (r#"{"jsonrpc":"2.0","id":77,"result":{},"params":{}}"#, "none"),
        (r#"{"jsonrpc":"2.0","id":77,"result":1}"#, "none"),
        (r#"{"jsonrpc":"2.0","id":77,"error":"no"}"#, "none"),
        (r#"{"jsonrpc":"2.0","result":{}}"#, "none"),
        (r#"{"jsonrpc":"2.0","id":77}"#, "77"),
        (r#"{"jsonrpc":"2.0"}"#, "none"),
    ] {
        assert_eq!(refused(line, -32600, id), Fault::BadShape, "{line}");
    }
}

#[test]
fn the_version_is_the_string_two() {
    for version in [
        r#""jsonrpc":2.0,"#,
        r#""jsonrpc":"1.0","#,
        r#""jsonrpc":"2","#,
        r#""jsonrpc":null,"#,
        r#""jsonrpc":["2.0"],"#,
        "",
    ] {
        let line = format!(r#"{{{version}"id":1,"method":"ping"}}"#);
        assert_eq!(refused(&line, -32600, "1"), Fault::BadVersion);
        assert_eq!(server(line).unwrap_err().fault, Fault::BadVersion);
    }
    passes(r#"{"jsonrpc":"\u0032.0","id":1,"method":"ping"}"#);
}

#[test]
fn what_is_no_object_is_no_message() {
    for line in ["1", "\"x\"", "null", "true", "-0.5"] {
        assert_eq!(refused(line, -32600, "none"), Fault::NotAnObject);
    }
    for line in [
        format!("[{CALL}]"),
        "[]".to_owned(),
        "[1]".to_owned(),
        format!("[[{CALL}]]"),
        r#"["2.0",1,"tools/call",{}]"#.to_owned(),
    ] {
        assert_eq!(refused(&line, -32600, "none"), Fault::Batch);
        assert_eq!(server(line).unwrap_err().fault, Fault::Batch);
    }
}

#[test]
fn a_batch_gives_its_elements_as_slices_of_the_line() {
    let line =
        Bytes::from(format!(" [ {CALL} ,\t{{\"jsonrpc\":\"2.0\",\"id\":2,\"method\":\"ping\"}} ] \r\n"));
    let elements = Frame::batch_from_client(&line).unwrap();
    assert_eq!(elements.len(), 2);
    assert_eq!(elements[0], CALL);
    assert_eq!(elements[0].as_ptr(), line[3..].as_ptr());
    let frames: Vec<Frame> =
        elements.into_iter().map(|element| Frame::from_client(element).unwrap()).collect();
    assert_eq!((frames[0].method(), frames[1].method()), (Some("tools/call"), Some("ping")));

    let batch = |line: String| Frame::batch_from_client(&Bytes::from(line)).map_err(|error| error.fault);
    let of = |count| format!("[{}]", vec!["1"; count].join(","));
    assert_eq!(batch(of(0)), Err(Fault::BatchEmpty));
    assert_eq!(batch(of(100)).unwrap().len(), 100);
    assert_eq!(batch(of(101)), Err(Fault::BatchTooLarge));
    assert_eq!(batch(of(100_000)), Err(Fault::BatchTooLarge));
    assert_eq!(batch(CALL.to_owned()), Err(Fault::BadShape));
    assert_eq!(batch(r#"[{"a":1,"a":2}]"#.to_owned()), Err(Fault::DuplicateKey));
    assert!(matches!(batch("[1,]".to_owned()), Err(Fault::Syntax { .. })));
    assert_eq!(batch(format!("[\r{CALL}\r]")), Err(Fault::CarriageReturn));
}

#[test]
fn a_method_is_visible_ascii() {
    for method in ["ping", "tools/call", "vendor/exec", "Tools/Call", &"m".repeat(128)] {
        let frame = passes(format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}"}}"#));
        assert_eq!(frame.method(), Some(method));
    }
    for method in [
        r#""""#,
        "1",
        "null",
        "[]",
        r#""tools/call ""#,
        r#"" tools/call""#,
        r#""tools/call\u0000""#,
        r#""tool\u017f/call""#,
        "\"tool\u{17f}/call\"",
        r#""tools/call\n""#,
        "{\"a\":\"tools/call\"}",
    ] {
        let line = format!(r#"{{"jsonrpc":"2.0","id":1,"method":{method}}}"#);
        assert_eq!(refused(line, -32600, "1"), Fault::BadMethod, "{method}");
    }
    refused(format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{}"}}"#, "m".repeat(129)), -32600, "1");
}

#[test]
fn params_are_an_object_or_absent() {
    for params in ["[]", "null", "1", "\"x\"", "true", r#"["danger",{}]"#] {
        assert_eq!(refused(with_params(params), -32602, "1"), Fault::BadParams);
    }
    passes(with_params("{}"));
    passes(with_id("1"));
}

#[test]
fn depth_is_bounded_at_any_size() {
    let nested = |depth: usize| with_argument(&format!("{}{}", "[".repeat(depth), "]".repeat(depth)));
    // The envelope, params and arguments are three levels.
    passes(nested(61));
    for depth in [62, 65, 128, 200, 5_000, 1_000_000] {
        assert_eq!(refused(nested(depth), -32600, "1"), Fault::TooDeep);
    }
    assert_eq!(refused("[".repeat(2_000_000), -32600, "none"), Fault::TooDeep);
    assert_eq!(refused(with_argument(&"{\"a\":".repeat(100_000)), -32600, "1"), Fault::TooDeep);
    server(nested(509)).unwrap();
    assert_eq!(server(nested(510)).unwrap_err().fault, Fault::TooDeep);
}

#[test]
fn numbers_are_kept_as_written_and_none_overflows() {
    for number in [
        "0.1000000000000000055",
        "12345678901234567890",
        "-0",
        "1E2",
        "1.0",
        "1e308",
        "-1.7976931348623157e308",
        "1e-400",
        "123.456e-789",
        "-123123123123123123123123123123",
    ] {
        let line = with_argument(number);
        assert!(passes(&line).params().unwrap().contains(number));
    }
    passes(with_argument(&format!("0.{}", "1".repeat(998))));
    passes(with_argument(&"9".repeat(308)));
    for number in [
        "1e400",
        "-1e400",
        "1.8e308",
        "1e309",
        "123123e100000",
        "-1e+9999",
        "0.4e00669999999999999999999999999999999999999999",
    ] {
        assert_eq!(refused(with_argument(number), -32700, "none"), Fault::NumberOverflow, "{number}");
    }
    assert_eq!(refused(with_argument(&"9".repeat(310)), -32700, "none"), Fault::NumberOverflow);
    assert_eq!(refused(with_argument(&format!("0.{}", "1".repeat(999))), -32600, "1"), Fault::NumberTooLong);
    assert_eq!(refused(with_argument(&"9".repeat(1_000_000)), -32600, "1"), Fault::NumberTooLong);
    for number in [
        "1_000",
        "0x10",
        "+1",
        "01",
        "-01",
        ".5",
        "5.",
        "1e",
        "1e+",
        "-",
        "--1",
        "NaN",
        "-NaN",
        "Infinity",
        "-Infinity",
        "nan",
        "1 2",
        "１",
    ] {
        refused(with_argument(number), -32700, "none");
    }
}

#[test]
fn strings_hold_no_half_characters_and_no_noncharacters() {
    for string in [
        r#""\ud800""#,
        r#""\udc00""#,
        r#""\udc00\ud800""#,
        r#""\ud800\ud800""#,
        r#""\ud800x""#,
        r#""\ud800\n""#,
        r#""\uD8FF\u0041""#,
    ] {
        assert_eq!(refused(with_argument(string), -32700, "none"), Fault::LoneSurrogate, "{string}");
        server(with_argument(string)).unwrap();
    }
    for string in [
        r#""\uffff""#,
        r#""\ufffe""#,
        r#""\ufdd0""#,
        r#""\uFDEF""#,
        r#""\ud83f\udffe""#,
        r#""\udbff\udfff""#,
        "\"\u{ffff}\"",
        "\"\u{fffe}\"",
        "\"\u{fdd0}\"",
        "\"\u{1ffff}\"",
        "\"\u{10fffe}\"",
    ] {
        assert_eq!(refused(with_argument(string), -32700, "none"), Fault::Noncharacter, "{string}");
        server(with_argument(string)).unwrap();
    }
    // The neighbours of the noncharacters, and characters whose UTF-8 has the same bytes.
    for string in [
        "\"\u{fffd}\"",
        "\"\u{fdcf}\u{fdf0}\u{10fffd}\u{20000}\"",
        "\"\u{77f}\u{fff}\u{1fbf}\u{fdbf}\"",
        r#""\ud83d\ude00\uffef""#,
    ] {
        passes(with_argument(string));
    }
    for control in '\0'..' ' {
        let (argument, key) = (format!("\"a{control}b\""), format!("{{\"{control}\":1}}"));
        refused(with_argument(&argument), -32700, "none");
        refused(with_argument(&key), -32700, "none");
    }
    // Escaped, they are characters like any other.
    passes(with_argument(r#""\u0000\u001b]52;c;x\u0007\u009b\u007f""#));
}

#[test]
fn odd_but_clear_text_passes_byte_for_byte() {
    for argument in [
        "\"\u{202e}gnp.exe\u{2066}\"".to_owned(),
        "\"\u{e0041}\u{e0042}\"".to_owned(),
        format!("\"a{}\"", "\u{301}".repeat(10_000)),
        format!("[{}1{}]", " ".repeat(32_768), "\t".repeat(32_768)),
        format!("[{}]", vec!["1"; 1_000_000].join(",")),
        format!("\"{}\"", "x".repeat(4 << 20)),
    ] {
        let line = with_argument(&argument);
        let frame = passes(&line);
        assert_eq!(frame.sha256(), Digest::of(line.as_bytes()));
        assert_eq!(frame.detached().bytes(), &line);
    }
}

#[test]
fn a_fault_is_answered_to_the_id_that_is_already_known() {
    // The id comes after what is wrong.
    let line = r#"{"jsonrpc":"2.0","method":"ping","params":{"a":1,"a":2},"id":9}"#;
    assert_eq!(refused(line, -32602, "9"), Fault::DuplicateKey);
    // The envelope's fault comes first, wherever it stands.
    let line = r#"{"jsonrpc":"2.0","method":"ping","params":{"a":1,"a":2},"id":9,"x":1}"#;
    assert_eq!(refused(line, -32600, "9"), Fault::UnknownMember);
    // A syntax error outweighs all.
    let line = r#"{"jsonrpc":"2.0","method":"ping","params":{"a":1,"a":2},"id":9,"x":1"#;
    refused(line, -32700, "none");
    // An id that is not legal is never echoed.
    refused(r#"{"jsonrpc":"2.0","id":1.0,"method":"ping","x":1}"#, -32600, "none");
}

#[test]
fn a_server_may_answer_what_it_could_not_read() {
    let error = server(r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"no"}}"#).unwrap();
    assert!(error.id().unwrap().is_null());
    for line in [
        "Server started",
        r#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#,
        r#"{"jsonrpc":"2.0","id":true,"result":{}}"#,
        r#"{"jsonrpc":"2.0","result":{}}"#,
        r#"{"level":"info","message":"listening"}"#,
    ] {
        server(line).unwrap_err();
    }
}

#[test]
fn no_fault_repeats_what_the_peer_wrote() {
    let line = r#"{"jsonrpc":"2.0","id":1,"method":"ping","\u001b[2J evil":1}"#;
    let error = client(line).unwrap_err();
    assert_eq!(error.to_string(), "the envelope has an unknown member");
}

#[test]
fn the_beginning_of_a_response_says_whose_answer_it_is_or_nothing() {
    let id = |head: &str| Frame::id_of_head(head.as_bytes()).map(|id| id.to_string());
    assert_eq!(id(r#"{"jsonrpc":"2.0","id":7,"result":{"content":[{"te"#).as_deref(), Some("7"));
    assert_eq!(id(r#"{"id":"a","error":{"code":1,"mess"#).as_deref(), Some("\"a\""));
    assert_eq!(id(r#"{"result":{},"id":12,"x":["#).as_deref(), Some("12"));
    for unclear in [
        r#"{"jsonrpc":"2.0","result":{"content":"#,
        r#"{"result":{},"id":12"#,
        r#"{"result":{},"id":"ab"#,
        r#"{"jsonrpc":"2.0","id":7,"#,
        r#"{"jsonrpc":"2.0","id":7,"params":{"a":1"#,
        r#"{"jsonrpc":"2.0","id":7,"method":"ping","result":{"#,
        r#"{"id":7,"id":8,"result":{"#,
        r#"{"x":{"id":7,"result":{"#,
        r#"[{"id":7,"result":{"#,
        "",
    ] {
        assert_eq!(id(unclear), None, "{unclear}");
    }
}

#[test]
fn other_arguments_take_the_place_of_the_first_ones_and_nothing_else_changes() {
    let with = |line: &str, arguments: &str| {
        let edited = client(line).unwrap().with_arguments(arguments)?;
        Ok::<_, FrameError>(String::from_utf8(edited.bytes().to_vec()).unwrap())
    };
    let call = |arguments: &str| {
        format!(
            "{{ \"id\":\"a\\u0062\", \"params\" : {{\"arguments\": {arguments} ,\"name\":\"x\",\"_meta\":{{\"n\":1.0}}}},\"jsonrpc\":\"2.0\",\"method\":\"tools/call\"}}\r\n"
        )
    };
    assert_eq!(with(&call("{\"a\":1}"), "{\"b\" : [2.50]}").unwrap(), call("{\"b\" : [2.50]}"));
    // As an editor writes them: line ends between tokens are spaces.
    assert_eq!(with(&call("{}"), "\n{\n  \"b\": 1\r\n}\n").unwrap(), call("{   \"b\": 1  }"));
    let bare = "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\",\"params\":{\"name\":\"x\"}}";
    assert_eq!(
        with(bare, "{\"b\":1}").unwrap(),
        "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\",\"params\":{\"name\":\"x\",\"arguments\":{\"b\":1}}}"
    );
}

#[test]
fn what_is_not_one_object_in_the_strict_profile_is_no_argument() {
    let frame = client(CALL).unwrap();
    for arguments in [
        "",
        "[1]",
        "\"{}\"",
        "null",
        "{",
        "{}}",
        "{},\"_meta\":{}",
        "{}},\"id\":7",
        "{} {}",
        "{\"a\":1,\"a\":2}",
        "{\"a\":1,\"\\u0061\":2}",
        "{\"a\":\"\\ud800\"}",
        "{\"a\":1e400}",
        "{\"a\":NaN}",
        "{\"a\":\"line\nend\"}",
        "{\"a\":\"\u{0}\"}",
        "{/**/}",
    ] {
        assert!(frame.with_arguments(arguments).is_err(), "{arguments}");
    }
    assert!(frame.with_arguments(&"[".repeat(70)).is_err());
    let ping = client("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}").unwrap();
    assert!(ping.with_arguments("{}").is_err());
}
