//! The hostile frames of the canary tests: what is sent, what must come back through the proxy, and which bare servers
//! execute it.
//!
//! `canary` sends them. Which servers execute what was found by sending every frame to every server without the proxy.

use crate::support::peers::Server;

/// What must come back through the proxy, apart from the file not being there.
#[derive(Clone, Copy, Debug)]
pub(super) enum Expect {
    /// One error with this code, addressed to `null`: the frame cannot be read, or its id cannot.
    ErrorToNobody(i64),
    /// One error with this code, addressed to the frame's own id, so that no caller waits in vain.
    ErrorToCaller(i64),
    /// Some answer to the caller, of whoever: the frame is legal and names another tool or method.
    Answer,
    /// Nothing at all: it is not a request, or not a message.
    Silence,
    /// It is a call of `danger`, and it waits.
    Held,
}
use Expect::{Answer, ErrorToCaller, ErrorToNobody, Held, Silence};

/// Servers that execute the hidden or malformed call when nothing stands before them. What is not listed is not claimed.
type Executes = &'static [Server];

const NONE: Executes = &[];
const ALL: Executes = &SERVERS;
const NODE: Executes = &[Server::CanaryTsV1, Server::CanaryTsV2, Server::CanaryReadline];
const PYTHON: Executes = &[Server::CanaryPython1, Server::CanaryPython2];
const READLINE: Executes = &[Server::CanaryReadline];
const RMCP: Executes = &[Server::CanaryRmcp];
/// Those whose runtime takes a bare carriage return for the end of a line. They also read messages most loosely.
const LOOSE: Executes = &[Server::CanaryReadline, Server::CanaryPython1, Server::CanaryPython2];
const LOOSE_AND_RMCP: Executes =
    &[Server::CanaryReadline, Server::CanaryPython1, Server::CanaryPython2, Server::CanaryRmcp];
const NODE_AND_RMCP: Executes =
    &[Server::CanaryTsV1, Server::CanaryTsV2, Server::CanaryReadline, Server::CanaryRmcp];
const NOT_RMCP: Executes = &[
    Server::CanaryTsV1,
    Server::CanaryTsV2,
    Server::CanaryReadline,
    Server::CanaryPython1,
    Server::CanaryPython2,
];

pub(super) const SERVERS: [Server; 6] = [
    Server::CanaryTsV1,
    Server::CanaryTsV2,
    Server::CanaryReadline,
    Server::CanaryPython1,
    Server::CanaryPython2,
    Server::CanaryRmcp,
];

/// One line of a hostile client. In `text`, `@ID` stands for a fresh id, `@C` for a whole call of `danger` with it, and `@D`
/// for one with another fresh id.
pub(super) struct Hostile {
    pub(super) name: &'static str,
    pub(super) text: Vec<u8>,
    pub(super) expect: Expect,
    pub(super) executes: Executes,
}

fn line(name: &'static str, text: impl Into<Vec<u8>>, expect: Expect, executes: Executes) -> Hostile {
    Hostile { name, text: text.into(), expect, executes }
}

/// A call of `danger` with these members besides `jsonrpc` and `id`.
fn call(name: &'static str, members: &str, expect: Expect, executes: Executes) -> Hostile {
    line(name, format!(r#"{{"jsonrpc":"2.0","id":@ID,{members}}}"#), expect, executes)
}

/// A call of `danger` with this text as the value of one argument.
fn argument(name: &'static str, value: &str, expect: Expect, executes: Executes) -> Hostile {
    let members =
        format!(r#""method":"tools/call","params":{{"name":"danger","arguments":{{"x":{value}}}}}"#);
    call(name, &members, expect, executes)
}

/// A call of `danger` with these bytes inside a string argument.
fn bytes_in_string(name: &'static str, bytes: &[u8], expect: Expect, executes: Executes) -> Hostile {
    let mut hostile = argument(name, r#""@BYTES""#, expect, executes);
    hostile.text = replace(&hostile.text, b"@BYTES", bytes);
    hostile
}

/// A call of `danger` with this text as its id.
fn id(name: &'static str, id: &str, executes: Executes) -> Hostile {
    let text = format!(
        r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"danger","arguments":{{}}}}}}"#
    );
    line(name, text, ErrorToNobody(-32600), executes)
}

fn replace(text: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.windows(from.len()).position(|window| window == from) {
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(to);
        rest = &rest[at + from.len()..];
    }
    out.extend_from_slice(rest);
    out
}

pub(super) const DANGER: &str = r#""method":"tools/call","params":{"name":"danger","arguments":{}}"#;

/// A carriage return in places where JSON allows white space, hiding a call from whoever reads up to the line feed.
fn bare_carriage_returns() -> Vec<Hostile> {
    let ping = r#"{"jsonrpc":"2.0","id":@ID,"method":"ping""#;
    vec![
        line(
            "inside params, around a nested call",
            format!("{ping},\"params\":{{\"_meta\":{{\"x\":\r@D\r}}}}}}"),
            ErrorToNobody(-32700),
            LOOSE,
        ),
        line(
            "inside an array, around a nested call",
            format!("{ping},\"params\":{{\"_meta\":{{\"x\":[0,\r@D\r]}}}}}}"),
            ErrorToNobody(-32700),
            LOOSE,
        ),
        line(
            "inside a notification",
            "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/x\",\"params\":{\"x\":\r@C\r}}",
            ErrorToNobody(-32700),
            LOOSE,
        ),
        line(
            "inside a response",
            "{\"jsonrpc\":\"2.0\",\"id\":\"none\",\"result\":{\"x\":\r@C\r}}",
            ErrorToNobody(-32700),
            LOOSE,
        ),
        line(
            "inside the arguments of a harmless call",
            "{\"jsonrpc\":\"2.0\",\"id\":@ID,\"method\":\"tools/call\",\"params\":{\"name\":\"echo\",\"arguments\":{\"x\":\r@D\r}}}",
            ErrorToNobody(-32700),
            LOOSE,
        ),
        line("before the call", "\r@C", ErrorToNobody(-32700), ALL),
        line("twice before the line feed", "@C\r\r", ErrorToNobody(-32700), ALL),
        line("between two messages", format!("{ping}}}\r@D"), ErrorToNobody(-32700), LOOSE),
        line("between call and spaces", "@C\r  ", ErrorToNobody(-32700), ALL),
        line(
            "in a harmless message",
            "{\"jsonrpc\":\"2.0\",\"id\":@ID,\r\"method\":\"ping\"}",
            ErrorToNobody(-32700),
            NONE,
        ),
        bytes_in_string("raw in a string", b"a\rb", ErrorToNobody(-32700), NONE),
    ]
}

/// More, less or something else than one message on a line.
fn framing() -> Vec<Hostile> {
    let ping = r#"{"jsonrpc":"2.0","id":@ID,"method":"ping"}"#;
    let parse_error = ErrorToNobody(-32700);
    vec![
        line("call with CRLF", "@C\r", Held, ALL),
        line("two messages on one line", format!("{ping}@D"), parse_error, NONE),
        line("two messages and a space", format!("{ping} @D"), parse_error, NONE),
        line("rubbish after the call", "@C x", parse_error, NONE),
        line("rubbish before the call", "x @C", parse_error, NONE),
        line("byte order mark", "\u{feff}@C", parse_error, RMCP),
        line("next line (U+0085) between messages", format!("{ping}\u{85}@D"), parse_error, NONE),
        line("line separator between messages", format!("{ping}\u{2028}@D"), parse_error, NONE),
        line("paragraph separator between messages", format!("{ping}\u{2029}@D"), parse_error, NONE),
        line("vertical tab between messages", format!("{ping}\x0b@D"), parse_error, NONE),
        line("form feed between messages", format!("{ping}\x0c@D"), parse_error, NONE),
        line("file separator between messages", format!("{ping}\x1c@D"), parse_error, NONE),
        line("group separator between messages", format!("{ping}\x1d@D"), parse_error, NONE),
        line("record separator before the call", "\x1e@C", parse_error, NONE),
        line("NUL before the call", "\0@C", parse_error, NONE),
        line("NUL after the call", "@C\0", parse_error, NONE),
        line("header of another framing", "Content-Length: 92 @C", parse_error, NONE),
        line("event stream", "data: @C", parse_error, NONE),
        line("empty line", "", Silence, NONE),
        line("spaces only", "  \t ", Silence, NONE),
    ]
}

/// Not JSON, although some parsers accept it.
fn syntax() -> Vec<Hostile> {
    let parse_error = ErrorToNobody(-32700);
    let utf16: Vec<u8> =
        format!(r#"{{"jsonrpc":"2.0","id":1,{DANGER}}}"#).encode_utf16().flat_map(u16::to_le_bytes).collect();
    let mut all = vec![
        argument("NaN", "NaN", parse_error, PYTHON),
        argument("Infinity", "Infinity", parse_error, PYTHON),
        argument("-Infinity", "-Infinity", parse_error, PYTHON),
        line("block comment", "/*c*/@C", parse_error, NONE),
        line("line comment", "@C//c", parse_error, NONE),
        line("hash comment", "@C#c", parse_error, NONE),
        argument("trailing comma in an array", "[1,]", parse_error, NONE),
        call("trailing comma in the envelope", &format!("{DANGER},"), parse_error, NONE),
        call("single quotes", &DANGER.replace('"', "'"), parse_error, NONE),
        call("a key without quotes", &DANGER.replace("\"method\"", "method"), parse_error, NONE),
        bytes_in_string("raw control character", b"\x01", parse_error, NONE),
        bytes_in_string("raw tab", b"\t", parse_error, NONE),
        bytes_in_string("bad escape", br"\q", parse_error, NONE),
        argument("form feed as white space", "\x0c1", parse_error, NONE),
        argument("no-break space as white space", "\u{a0}1", parse_error, NONE),
        argument("True", "True", parse_error, NONE),
        argument("undefined", "undefined", parse_error, NONE),
        line("UTF-16", utf16, parse_error, NONE),
        line(
            "cut off",
            &br#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"danger""#[..],
            parse_error,
            NONE,
        ),
    ];
    for number in ["1e400", "-1e400", "0x10", "+1", "01", ".5", "5.", "1_000", "1e"] {
        let executes = if number.ends_with("e400") { NOT_RMCP } else { NONE };
        all.push(argument(number, number, parse_error, executes));
    }
    all
}

/// Legal JSON of one call, written in unusual ways: read as what it is, and held.
fn disguises() -> Vec<Hostile> {
    vec![
        call("escaped slash in the method", &DANGER.replace("s/c", r"s\/c"), Held, ALL),
        call("escaped letter in the method", &DANGER.replace("tools", r"\u0074ools"), Held, ALL),
        call(
            "escapes in the key and the name of the tool",
            &DANGER.replace("\"name\"", "\"n\\u0061me\"").replace("danger", r"d\u0061nger"),
            Held,
            ALL,
        ),
        call("an escaped member", &DANGER.replace("\"method\"", "\"m\\u0065thod\""), Held, ALL),
        line("id last", format!(r#"{{{DANGER},"jsonrpc":"2.0","id":@ID}}"#), Held, ALL),
        line("white space everywhere", "  @C\t ", Held, ALL),
        call("no arguments at all", r#""method":"tools/call","params":{"name":"danger"}"#, Held, ALL),
        call(
            "arguments that spell another call",
            r#""method":"tools/call","params":{"arguments":{"name":"echo","method":"ping"},"name":"danger"}"#,
            Held,
            ALL,
        ),
        argument("invisible and bidirectional text", "\"\u{202e}\u{e0041}\u{200b}\"", Held, ALL),
        argument("a number that parsers round", "12345678901234567890.10", Held, ALL),
    ]
}

/// A member or key that stands twice, or looks like one that decides.
fn twins() -> Vec<Hostile> {
    let invalid = ErrorToCaller(-32600);
    let params = ErrorToCaller(-32602);
    vec![
        call("ping, then the call", &format!("\"method\":\"ping\",{DANGER}"), invalid, NOT_RMCP),
        call("the call, then ping", &format!("{DANGER},\"method\":\"ping\""), invalid, NONE),
        call("two names", &DANGER.replace("\"name\"", "\"name\":\"echo\",\"name\""), params, NOT_RMCP),
        call(
            "two arguments",
            &DANGER.replace("\"arguments\":{}", r#""arguments":{"x":"shown"},"arguments":{"x":"hidden"}"#),
            params,
            NOT_RMCP,
        ),
        call("two params", &format!("\"params\":{{\"name\":\"echo\"}},{DANGER}"), invalid, NOT_RMCP),
        call("two ids", &format!("\"id\":\"another\",{DANGER}"), ErrorToNobody(-32600), NOT_RMCP),
        call("two versions", &format!("\"jsonrpc\":\"2.0\",{DANGER}"), invalid, NOT_RMCP),
        call("two methods, one escaped", &format!(r#""m\u0065thod":"ping",{DANGER}"#), invalid, NOT_RMCP),
        argument("the same key deep in the arguments", r#"{"y":[{"z":1,"z":2}]}"#, params, ALL),
        argument("the same key deep in the arguments, one escaped", r#"{"yes":1,"ye\u0073":2}"#, params, ALL),
        call("Method", &format!("\"Method\":\"ping\",{DANGER}"), invalid, LOOSE_AND_RMCP),
        call("METHOD", &format!("{DANGER},\"METHOD\":\"ping\""), invalid, LOOSE_AND_RMCP),
        call("params with a long s", &format!("{DANGER},\"param\u{17f}\":{{}}"), invalid, LOOSE_AND_RMCP),
        call("ID", &format!("\"ID\":1,{DANGER}"), invalid, LOOSE_AND_RMCP),
        call("Name in params", &DANGER.replace("\"name\"", "\"Name\":\"echo\",\"name\""), params, ALL),
        call(
            "task with a Kelvin sign",
            &DANGER.replace("\"name\"", "\"tas\u{212a}\":{},\"name\""),
            params,
            ALL,
        ),
        call("approved", &format!("{DANGER},\"approved\":true"), invalid, LOOSE_AND_RMCP),
        call("x", &format!("\"x\":1,{DANGER}"), invalid, LOOSE_AND_RMCP),
        call("__proto__ in the envelope", &format!("\"__proto__\":{{}},{DANGER}"), invalid, LOOSE_AND_RMCP),
        call("the empty key in the envelope", &format!("\"\":1,{DANGER}"), invalid, LOOSE_AND_RMCP),
    ]
}

/// Bytes and escapes that are read differently from parser to parser.
fn unicode() -> Vec<Hostile> {
    let parse_error = ErrorToNobody(-32700);
    vec![
        bytes_in_string("FF FE", b"\xff\xfe", parse_error, NOT_RMCP),
        bytes_in_string("overlong slash", b"\xc0\xaf", parse_error, NOT_RMCP),
        bytes_in_string("overlong NUL", b"\xc0\x80", parse_error, NOT_RMCP),
        bytes_in_string("a surrogate in UTF-8", b"\xed\xa0\x80", parse_error, NOT_RMCP),
        bytes_in_string("five-byte form", b"\xf8\x88\x80\x80\x80", parse_error, NOT_RMCP),
        bytes_in_string("above U+10FFFF", b"\xf4\x90\x80\x80", parse_error, NOT_RMCP),
        bytes_in_string("a lone continuation", b"\x80", parse_error, NOT_RMCP),
        argument("half a surrogate pair", r#""\ud800""#, parse_error, NODE),
        argument("a reversed pair", r#""\udc00\ud800""#, parse_error, NODE),
        argument("two high halves", r#""\ud800\ud800""#, parse_error, NODE),
        argument("half a pair as a key", r#"{"\udfff":1}"#, parse_error, NODE),
        argument("a noncharacter", "\"\u{ffff}\"", parse_error, ALL),
        call("a Latin name with a Cyrillic letter", &DANGER.replace("danger", "d\u{430}nger"), Answer, NONE),
    ]
}

/// Ids that one peer answers as another, or not at all; shapes that are several things at once; batches.
fn ids_and_shapes() -> Vec<Hostile> {
    let invalid = ErrorToCaller(-32600);
    let nobody = ErrorToNobody(-32600);
    vec![
        id("null", "null", READLINE),
        id("true", "true", READLINE),
        id("an object", "{}", READLINE),
        id("an array", "[]", READLINE),
        id("a fraction", "1.5", READLINE),
        id("an integer with a fraction", "26.0", NODE_AND_RMCP),
        id("an exponent", "1e3", NODE_AND_RMCP),
        id("minus zero", "-0", ALL),
        id("2^53 + 1", "9007199254740993", LOOSE_AND_RMCP),
        id("300 digits", &"9".repeat(300), LOOSE),
        id("257 bytes", &format!("\"{}\"", "i".repeat(257)), ALL),
        id("a terminal escape", r#""\u001b[2J""#, ALL),
        line("a batch of one call", "[@C]", nobody, NONE),
        line(
            "a batch of a ping and a call",
            r#"[{"jsonrpc":"2.0","id":@ID,"method":"ping"},@D]"#,
            nobody,
            NONE,
        ),
        line("an empty batch", "[]", nobody, NONE),
        line("a batch of a number", "[1]", nobody, NONE),
        line("a batch in a batch", "[[@C]]", nobody, NONE),
        line("a number", "7", nobody, NONE),
        line("a string", "\"tools/call\"", nobody, NONE),
        line("null", "null", nobody, NONE),
        call("request and response at once", &format!("\"result\":{{}},{DANGER}"), Answer, LOOSE),
        call(
            "request and error at once",
            &format!(r#""error":{{"code":1,"message":"m"}},{DANGER}"#),
            Answer,
            READLINE,
        ),
        line("no version", format!(r#"{{"id":@ID,{DANGER}}}"#), invalid, READLINE),
        line("version 2.0 as a number", format!(r#"{{"jsonrpc":2.0,"id":@ID,{DANGER}}}"#), invalid, READLINE),
        line("version 1.0", format!(r#"{{"jsonrpc":"1.0","id":@ID,{DANGER}}}"#), invalid, READLINE),
        line("a call without an id", format!(r#"{{"jsonrpc":"2.0",{DANGER}}}"#), Silence, NONE),
        call(
            "params in an array",
            r#""method":"tools/call","params":["danger",{}]"#,
            ErrorToCaller(-32602),
            NONE,
        ),
    ]
}

/// What is almost `tools/call`, and what is almost the name of the tool.
fn names() -> Vec<Hostile> {
    let unknown = ErrorToCaller(-32601);
    let params = ErrorToCaller(-32602);
    let method = |text: &str| DANGER.replace("tools/call", text);
    let name = |text: &str| DANGER.replace("\"danger\"", text);
    let arguments = |text: &str| DANGER.replace("{}", text);
    vec![
        call("Tools/Call", &method("Tools/Call"), unknown, NONE),
        call("TOOLS/CALL", &method("TOOLS/CALL"), unknown, NONE),
        call("a method with a full-width letter", &method("tool\u{ff53}/call"), ErrorToCaller(-32600), NONE),
        call("a space after the method", &method("tools/call "), ErrorToCaller(-32600), NONE),
        call("a space before the method", &method(" tools/call"), ErrorToCaller(-32600), NONE),
        call("NUL after the method", &method(r"tools/call\u0000"), ErrorToCaller(-32600), NONE),
        call("two slashes in the method", &method("tools//call"), Answer, NONE),
        call("percent encoding in the method", &method("tools%2Fcall"), Answer, NONE),
        call("a number as the method", &DANGER.replace("\"tools/call\"", "7"), ErrorToCaller(-32600), NONE),
        call("a list as the name", &name(r#"["danger"]"#), params, NONE),
        call("an object as the name", &name(r#"{"danger":1}"#), params, NONE),
        call("a number as the name", &name("7"), params, NONE),
        call("no name", r#""method":"tools/call","params":{"arguments":{}}"#, params, NONE),
        call("no params", r#""method":"tools/call""#, params, NONE),
        call("a string as the arguments", &arguments(r#""{\"x\":1}""#), params, READLINE),
        call("a list as the arguments", &arguments("[]"), params, READLINE),
        call("null as the arguments", &arguments("null"), params, LOOSE_AND_RMCP),
        call("a space after the name", &name("\"danger \""), Answer, NONE),
        call("a capital in the name", &name("\"Danger\""), Answer, NONE),
        call("NUL after the name", &name(r#""danger\u0000""#), Answer, NONE),
        call("a path as the name", &name("\"../danger\""), Answer, NONE),
    ]
}

fn sizes() -> Vec<Hostile> {
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let text = |bytes: usize| format!("\"{}\"", "x".repeat(bytes));
    let too_much = ErrorToCaller(-32600);
    vec![
        argument("100 levels deep", &nested(100), too_much, ALL),
        argument("200 levels deep", &nested(200), too_much, NODE),
        argument("5,000 levels deep", &nested(5_000), too_much, NONE),
        argument("a million levels deep", &nested(1_000_000), too_much, NONE),
        argument("a number of a million digits", &"1".repeat(1_000_000), too_much, NODE),
        argument("3 MiB", &text(3 << 20), Held, ALL),
        argument(
            "11 MiB",
            &text(11 << 20),
            Held,
            &[Server::CanaryReadline, Server::CanaryPython2, Server::CanaryRmcp],
        ),
        argument("17 MiB", &text(17 << 20), ErrorToNobody(-32600), LOOSE),
    ]
}

pub(super) fn all_hostile() -> Vec<Hostile> {
    let mut all = bare_carriage_returns();
    all.extend(framing());
    all.extend(syntax());
    all.extend(disguises());
    all.extend(twins());
    all.extend(unicode());
    all.extend(ids_and_shapes());
    all.extend(names());
    all.extend(sizes());
    all
}

/// A frame as it is sent, with fresh ids and its line feed, and the id that an answer must have.
pub(super) fn render(hostile: &Hostile, number: usize) -> (Vec<u8>, String) {
    let own = (1000 + 2 * number).to_string();
    let other = (1001 + 2 * number).to_string();
    let whole = |id: &str| format!(r#"{{"jsonrpc":"2.0","id":{id},{DANGER}}}"#);
    let text = replace(&hostile.text, b"@C", whole(&own).as_bytes());
    let text = replace(&text, b"@D", whole(&other).as_bytes());
    let mut text = replace(&text, b"@ID", own.as_bytes());
    text.push(b'\n');
    (text, own)
}
