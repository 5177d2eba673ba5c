//! Hostile frames against real servers: whatever a client writes, the tool `danger` runs only for an approval of exactly
//! those bytes that is on record.
//!
//! The tool writes a file, so the question is answered by the file system and not by what anybody says. Each frame is also
//! sent to the bare servers that are known to execute it: there the file must appear, or these tests could not fail.

use std::{ffi::OsString, fmt::Write as _};

use serde_json::Value;

use crate::support::peers::{HOLD_DANGER, Home, Running, Server};

/// What must come back through the proxy, apart from the file not being there.
#[derive(Clone, Copy, Debug)]
enum Expect {
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

const SERVERS: [Server; 6] = [
    Server::CanaryTsV1,
    Server::CanaryTsV2,
    Server::CanaryReadline,
    Server::CanaryPython1,
    Server::CanaryPython2,
    Server::CanaryRmcp,
];

/// One line of a hostile client. In `text`, `@ID` stands for a fresh id, `@C` for a whole call of `danger` with it, and `@D`
/// for one with another fresh id.
struct Hostile {
    name: &'static str,
    text: Vec<u8>,
    expect: Expect,
    executes: Executes,
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

const DANGER: &str = r#""method":"tools/call","params":{"name":"danger","arguments":{}}"#;

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

fn all_hostile() -> Vec<Hostile> {
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
fn render(hostile: &Hostile, number: usize) -> (Vec<u8>, String) {
    let own = (1000 + 2 * number).to_string();
    let other = (1001 + 2 * number).to_string();
    let whole = |id: &str| format!(r#"{{"jsonrpc":"2.0","id":{id},{DANGER}}}"#);
    let text = replace(&hostile.text, b"@C", whole(&own).as_bytes());
    let text = replace(&text, b"@D", whole(&other).as_bytes());
    let mut text = replace(&text, b"@ID", own.as_bytes());
    text.push(b'\n');
    (text, own)
}

/// Sends a ping and gives back what arrives before its answer.
fn answers_before_ping(session: &mut Running, number: usize) -> Vec<Value> {
    let ping = format!("alive-{number}");
    session.send(format!("{{\"jsonrpc\":\"2.0\",\"id\":\"{ping}\",\"method\":\"ping\"}}\n").as_bytes());
    let mut answers = Vec::new();
    loop {
        let message = session.next_json();
        if message["id"] == ping.as_str() {
            assert!(message["result"].is_object(), "ping is answered by the server: {message}");
            return answers;
        }
        // Servers announce things when they please.
        if message["method"].is_null() {
            answers.push(message);
        }
    }
}

/// What is wrong with the answers to a frame, or nothing.
fn judge(expect: Expect, own_id: &str, answers: &[Value]) -> Result<(), String> {
    let (code, to) = match expect {
        Silence | Held => {
            return if answers.is_empty() {
                Ok(())
            } else {
                Err(format!("expected silence, got {answers:?}"))
            };
        }
        Answer => {
            let answered = answers.len() == 1 && answers[0]["result"]["isError"] != Value::Bool(false);
            return if answered { Ok(()) } else { Err(format!("expected one refusal, got {answers:?}")) };
        }
        ErrorToNobody(code) => (code, Value::Null),
        ErrorToCaller(code) => (code, serde_json::from_str(own_id).unwrap()),
    };
    match answers {
        [answer] if answer["error"]["code"] == code && answer["id"] == to => Ok(()),
        _ => Err(format!("expected one error {code} to {to}, got {answers:?}")),
    }
}

/// Waits for the hold of a frame, sees that it is one, rejects it, and reads the refusal.
fn reject_held(home: &Home, session: &mut Running, own_id: &str) -> Result<(), String> {
    let hold = home.one_hold();
    if hold["tool"] != "danger" {
        return Err(format!("held as something else: {hold}"));
    }
    home.holdshort_ok(&["reject", hold["id"].as_str().unwrap(), "--reason", "no"]);
    let answer = session.next_json_where(|message| message["method"].is_null());
    let id: Value = serde_json::from_str(own_id).unwrap();
    if answer["id"] != id || answer["result"]["isError"] != Value::Bool(true) {
        return Err(format!("expected a refusal as a result, got {answer}"));
    }
    Ok(())
}

/// Every hostile frame through one session of the proxy. Collects what went wrong instead of stopping at the first.
fn nothing_hostile_gets_through(server: Server) {
    let home = Home::new();
    let command = home.behind_proxy(HOLD_DANGER, server.command(&home));
    let mut session = Running::start(&mut home.command(&command));
    session.initialize();
    let mut failures = String::new();
    for (number, hostile) in all_hostile().iter().enumerate() {
        let (text, own_id) = render(hostile, number);
        session.send(&text);
        let mut verdict = Ok(());
        let mut answers = Vec::new();
        match hostile.expect {
            Held => verdict = reject_held(&home, &mut session, &own_id),
            // Servers answer other things meanwhile, so this one is waited for by its id.
            Answer => answers.push(session.next_json_where(|message| message["id"].to_string() == own_id)),
            ErrorToNobody(_) | ErrorToCaller(_) | Silence => {}
        }
        answers.extend(answers_before_ping(&mut session, number));
        let verdict = verdict.and_then(|()| judge(hostile.expect, &own_id, &answers));
        if let Err(what) = verdict {
            writeln!(failures, "- {}: {what}", hostile.name).unwrap();
        }
        if let Some(executed) = home.canary() {
            writeln!(failures, "- {}: EXECUTED: {executed}", hostile.name).unwrap();
            home.remove_canary();
        }
    }
    session.close_stdin();
    while session.next_line().is_some() {}
    assert!(session.ended().success(), "{}", session.stderr());
    // Servers execute beside reading: what they were given is done when they have ended.
    if let Some(executed) = home.canary() {
        writeln!(failures, "- by the end: EXECUTED: {executed}").unwrap();
    }
    assert!(failures.is_empty(), "{server:?}:\n{failures}");
    home.verify_record();
}

#[test]
fn a_typescript_1_server_executes_nothing_hostile() {
    nothing_hostile_gets_through(Server::CanaryTsV1);
}

#[test]
fn a_typescript_2_server_executes_nothing_hostile() {
    nothing_hostile_gets_through(Server::CanaryTsV2);
}

#[test]
fn a_hand_written_server_executes_nothing_hostile() {
    nothing_hostile_gets_through(Server::CanaryReadline);
}

#[test]
fn a_python_1_server_executes_nothing_hostile() {
    nothing_hostile_gets_through(Server::CanaryPython1);
}

#[test]
fn a_python_2_server_executes_nothing_hostile() {
    nothing_hostile_gets_through(Server::CanaryPython2);
}

#[test]
fn an_rmcp_server_executes_nothing_hostile() {
    nothing_hostile_gets_through(Server::CanaryRmcp);
}

/// The same frames without the proxy: where a server is known to execute one, the file appears. Gives back the names of
/// those that a server was said to execute and did not.
fn not_executed_bare(server: Server) -> Vec<&'static str> {
    let home = Home::new();
    let command: Vec<OsString> = server.command(&home);
    let start = || {
        let mut session = Running::start(&mut home.command(&command));
        session.initialize();
        session
    };
    let mut session = start();
    let mut missing = Vec::new();
    for (number, hostile) in all_hostile().iter().enumerate() {
        if !hostile.executes.contains(&server) {
            continue;
        }
        let (text, _) = render(hostile, number);
        session.send(&text);
        // The ping is answered after the call has been read; the execution is then at most a moment away.
        if !home.canary_appears() {
            missing.push(hostile.name);
            session = start();
        }
        home.remove_canary();
    }
    missing
}

/// The positive control, one test a server so that they run side by side.
fn executes_bare(server: Server) {
    let missing = not_executed_bare(server);
    assert!(
        missing.is_empty(),
        "not executed by the bare {server:?}, so its silence behind the proxy proves nothing: {missing:#?}"
    );
}

mod a_bare_server_executes_what_the_proxy_stops {
    use super::{Server, executes_bare};

    #[test]
    fn typescript_1() {
        executes_bare(Server::CanaryTsV1);
    }

    #[test]
    fn typescript_2() {
        executes_bare(Server::CanaryTsV2);
    }

    #[test]
    fn hand_written() {
        executes_bare(Server::CanaryReadline);
    }

    #[test]
    fn python_1() {
        executes_bare(Server::CanaryPython1);
    }

    #[test]
    fn python_2() {
        executes_bare(Server::CanaryPython2);
    }

    #[test]
    fn rmcp() {
        executes_bare(Server::CanaryRmcp);
    }
}

/// A session behind the proxy whose tool `danger` needs a person.
fn held_session(home: &Home, server: Server) -> Running {
    let command = home.behind_proxy(HOLD_DANGER, server.command(home));
    let mut session = Running::start(&mut home.command(&command));
    session.initialize();
    session
}

fn end(home: &Home, mut session: Running) {
    session.close_stdin();
    while session.next_line().is_some() {}
    assert!(session.ended().success(), "{}", session.stderr());
    home.verify_record();
}

fn sha256(bytes: &[u8]) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    digest.as_ref().iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

#[test]
fn an_approved_call_executes_once_and_the_record_has_the_digest_of_its_bytes() {
    for server in SERVERS {
        let home = Home::new();
        let mut session = held_session(&home, server);
        // Spaces, escapes and the order of members are part of what is approved.
        let frame = r#"{ "id":7,"method":"tools\/call", "params":{"arguments":{"amount":1.50,"to":"gr\u00fcezi"},"name":"danger"},"jsonrpc":"2.0"}"#;
        session.send(frame.as_bytes());
        session.send(b"\n");
        let hold = home.one_hold();
        assert_eq!(hold["frame_sha256"], sha256(frame.as_bytes()), "{server:?}");
        let id = hold["id"].as_str().unwrap();
        assert!(home.holdshort_ok(&["show", id, "--json"]).contains(&sha256(frame.as_bytes())));
        assert_eq!(home.canary(), None, "{server:?}");
        home.holdshort_ok(&["approve", id]);
        let answer = session.next_json_where(|message| message["id"] == 7);
        assert_ne!(answer["result"]["isError"], true, "{server:?}: {answer}");
        let twice = home.holdshort(&["approve", id]);
        assert!(matches!(twice.status.code(), Some(3 | 4)), "a verdict counts once: {twice:?}");
        end(&home, session);
        let canary = home.canary().unwrap();
        assert_eq!(canary.lines().count(), 1, "{server:?}: {canary}");
        assert_eq!(home.all_holds().len(), 1, "{server:?}");
        let record = home.holdshort_ok(&["audit", "export"]);
        assert!(record.contains(&sha256(frame.as_bytes())), "{server:?}: {record}");
    }
}

/// The last line of a client that is gone, without its line feed: some servers execute it at the end of their input.
#[test]
fn a_line_that_never_ends_is_never_forwarded() {
    for server in [Server::CanaryPython1, Server::CanaryPython2, Server::CanaryReadline] {
        for tail in ["", "\r"] {
            let frame = format!(r#"{{"jsonrpc":"2.0","id":5,{DANGER}}}{tail}"#);
            let home = Home::new();
            let mut session = held_session(&home, server);
            session.send(frame.as_bytes());
            end(&home, session);
            assert_eq!(home.canary(), None, "{server:?}");
            assert!(home.all_holds().is_empty(), "{server:?}");

            let bare = Home::new();
            let command = server.command(&bare);
            let mut session = Running::start(&mut bare.command(&command));
            session.initialize();
            session.send(frame.as_bytes());
            session.close_stdin();
            assert!(bare.canary_appears(), "{server:?} does not execute it bare, so this proves nothing");
        }
    }
}

#[test]
fn a_call_that_is_cancelled_at_once_never_executes() {
    for server in SERVERS {
        let home = Home::new();
        let mut session = held_session(&home, server);
        // In one write: the cancellation is read before anything about the call can have been recorded.
        let frames = format!(
            "{{\"jsonrpc\":\"2.0\",\"id\":63,{DANGER}}}\n{{\"jsonrpc\":\"2.0\",\"method\":\"notifications/cancelled\",\"params\":{{\"requestId\":63}}}}\n"
        );
        session.send(frames.as_bytes());
        crate::support::peers::until("the call is withdrawn", || {
            home.all_holds().iter().any(|hold| hold["state"] == "withdrawn")
        });
        assert!(answers_before_ping(&mut session, 0).is_empty(), "a cancelled request is not answered");
        end(&home, session);
        assert_eq!(home.canary(), None, "{server:?}");
    }
}

/// The last thing a client writes is a call, and then it is gone: the session ends at once, and nothing is left to approve.
#[test]
fn a_call_whose_client_leaves_at_once_never_executes() {
    for server in SERVERS {
        let home = Home::new();
        let mut session = held_session(&home, server);
        session.send(format!("{{\"jsonrpc\":\"2.0\",\"id\":63,{DANGER}}}\n").as_bytes());
        end(&home, session);
        assert!(home.all_holds().iter().all(|hold| hold["state"] == "withdrawn"), "{:?}", home.all_holds());
        assert_eq!(home.canary(), None, "{server:?}");
    }
}

#[test]
fn a_held_call_is_not_touched_by_a_twin_of_its_id_or_by_a_cancellation_of_another_type() {
    let home = Home::new();
    let mut session = held_session(&home, Server::CanaryPython2);
    let call = format!("{{\"jsonrpc\":\"2.0\",\"id\":63,{DANGER}}}\n");
    session.send(call.as_bytes());
    let hold = home.one_hold();
    session.send(call.as_bytes());
    let refusal = session.next_json();
    assert_eq!(refusal["error"]["code"], -32600, "{refusal}");
    session.send(
        b"{\"jsonrpc\":\"2.0\",\"method\":\"notifications/cancelled\",\"params\":{\"requestId\":\"63\"}}\n",
    );
    assert!(answers_before_ping(&mut session, 0).is_empty());
    assert_eq!(home.one_hold()["id"], hold["id"]);
    home.holdshort_ok(&["approve", hold["id"].as_str().unwrap()]);
    let answer = session.next_json_where(|message| message["id"] == 63);
    assert!(answer["result"].is_object(), "{answer}");
    end(&home, session);
    assert_eq!(home.canary().unwrap().lines().count(), 1);
}

/// Legal frames of every kind, one at a time: the server's lines must be the same bytes with and without the proxy.
#[test]
fn what_a_server_writes_arrives_byte_for_byte() {
    const FRAMES: [&str; 8] = [
        r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#,
        r#"{"id":"two","jsonrpc":"2.0","method":"tools/list","params":{}}"#,
        r#"  { "jsonrpc" : "2.0" , "id" : -3 , "method" : "ping" }  "#,
        r#"{"jsonrpc":"2.0","id":4,"method":"tools/call","params":{"name":"echo","arguments":{"n":[1.0,1e2,-0.0,1e-7],"s":"\u00e9\/\t\ud83d\ude00","":{}}}}"#,
        r#"{"jsonrpc":"2.0","id":5,"method":"no/such_method","params":{"a":1}}"#,
        r#"{"jsonrpc":"2.0","id":"","method":"tools/call","params":{"name":"no_such_tool","arguments":{}}}"#,
        r#"{"jsonrpc":"2.0","id":9007199254740991,"method":"ping","params":{"_meta":{"x":{"y":[]}}}}"#,
        r#"{"jsonrpc":"2.0","id":8,"method":"tools/call","params":{"name":"slow","arguments":{"ms":5,"steps":2},"_meta":{"progressToken":"t"}}}"#,
    ];
    for server in SERVERS {
        let home = Home::new();
        let run = |command: Vec<OsString>| {
            let mut session = Running::start(&mut home.command(&command));
            session.initialize();
            let mut lines = Vec::new();
            for frame in FRAMES {
                let id = serde_json::from_str::<Value>(frame).unwrap()["id"].clone();
                session.send(frame.as_bytes());
                session.send(b"\n");
                loop {
                    let line = session.next_line().unwrap();
                    let answered = serde_json::from_slice::<Value>(&line).unwrap()["id"] == id;
                    lines.push(String::from_utf8(line).unwrap());
                    if answered {
                        break;
                    }
                }
            }
            session.close_stdin();
            while session.next_line().is_some() {}
            lines
        };
        let direct = run(server.command(&home));
        let proxied = run(home.behind_proxy(HOLD_DANGER, server.command(&home)));
        assert_eq!(direct, proxied, "{server:?}");
        assert!(direct.len() > FRAMES.len(), "progress was reported as well");
    }
}
