//! What a client may send to get a call past the gate, and what becomes of each: answered with an error, dropped, or held.
//! Nothing of it reaches the server, and the session goes on.

use holdshort::transport::session::SessionLimits;

use crate::support::session::{POLICY, Session};

/// What must become of a line.
#[derive(Clone, Copy, Debug)]
enum Becomes {
    /// An error with this code for this id (as a JSON token).
    Error(&'static str, i64),
    /// Nothing: no answer, and nothing goes upstream.
    Nothing,
    /// A hold, with exactly these bytes.
    Held,
}
use Becomes::{Error, Held, Nothing};

const PARSE: i64 = -32700;
const REQUEST: i64 = -32600;
const METHOD: i64 = -32601;
const PARAMS: i64 = -32602;

/// A call of the tool that is held.
fn call(id: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"danger","arguments":{{}}}}}}"#
    )
}

/// Shows each line to a session of its own, and a ping after it.
async fn each(cases: &[(Vec<u8>, Becomes)]) {
    for (line, becomes) in cases {
        let shown = String::from_utf8_lossy(&line[..line.len().min(300)]).into_owned();
        let mut session = Session::start(POLICY, SessionLimits::default());
        session.client_sends(line).await;
        session.client_sends(b"\n").await;
        match *becomes {
            Error(id, code) => {
                let answer =
                    session.client_receives().await.unwrap_or_else(|| panic!("no answer to {shown}"));
                let answer: serde_json::Value = serde_json::from_str(&answer).unwrap();
                let got = (answer["id"].to_string(), answer["error"]["code"].clone());
                assert_eq!(got, (id.to_owned(), code.into()), "{shown}: {answer}");
                assert!(answer["error"]["message"].as_str().is_some_and(|text| text.len() > 10), "{answer}");
            }
            Nothing => {}
            Held => {
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
                let [held] = &session.gate.holds()[..] else { panic!("{shown} is not held") };
                let sent = line.strip_suffix(b"\r").unwrap_or(line);
                assert_eq!(&held.frame[..], sent, "what is held is what came");
            }
        }
        assert_eq!(session.server_receives().await, None, "{shown} reaches the server");
        session.client_sends(b"{\"jsonrpc\":\"2.0\",\"id\":\"after\",\"method\":\"ping\"}\n").await;
        let ping = session.server_receives().await;
        assert!(ping.is_some_and(|ping| ping.contains("after")), "{shown}: the session goes on");
        assert_eq!(session.client_receives().await, None, "{shown} is answered once");
    }
}

fn cases(rows: &[(&str, Becomes)]) -> Vec<(Vec<u8>, Becomes)> {
    rows.iter().map(|(line, becomes)| (line.as_bytes().to_vec(), *becomes)).collect()
}

#[tokio::test(start_paused = true)]
async fn one_line_is_one_message() {
    let inner = call("11");
    let mut rows = cases(&[
        (
            &format!(
                "{{\"jsonrpc\":\"2.0\",\"id\":10,\"method\":\"ping\",\"params\":{{\"_meta\":{{\"x\":\r{inner}\r}}}}}}"
            ),
            Error("null", PARSE),
        ),
        (&format!("{inner}\r{inner}"), Error("null", PARSE)),
        (&format!("\r{inner}"), Error("null", PARSE)),
        ("{\"jsonrpc\":\"2.0\",\"id\":1,\r\"method\":\"ping\"}", Error("null", PARSE)),
        (&format!("{{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}}{inner}"), Error("null", PARSE)),
        (&format!("{inner} x"), Error("null", PARSE)),
        (&format!("\u{feff}{inner}"), Error("null", PARSE)),
        (&format!("{inner}\0"), Error("null", PARSE)),
        (&format!("\0{inner}"), Error("null", PARSE)),
        (&format!("{inner}\u{85}{inner}"), Error("null", PARSE)),
        (&format!("{inner}\u{2028}{inner}"), Error("null", PARSE)),
        (&format!("{inner}\u{b}{inner}"), Error("null", PARSE)),
        (&format!("{inner}\u{c}"), Error("null", PARSE)),
        ("Content-Length: 97", Error("null", PARSE)),
        ("", Nothing),
        ("  \t ", Nothing),
        (&inner, Held),
        (&format!("{inner}\r"), Held),
        (&format!("  {inner}  "), Held),
    ]);
    rows.push((b"\x1f\x8b\x08\x00".to_vec(), Error("null", PARSE)));
    rows.push((inner.encode_utf16().flat_map(u16::to_be_bytes).collect(), Error("null", PARSE)));
    each(&rows).await;
}

#[tokio::test(start_paused = true)]
async fn keys_that_parsers_read_in_different_ways_are_refused() {
    each(&cases(&[
        (r#"{"jsonrpc":"2.0","id":1,"method":"ping","method":"tools/call","params":{"name":"danger"}}"#, Error("1", REQUEST)),
        (r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","method":"ping","params":{"name":"danger"}}"#, Error("1", REQUEST)),
        (r#"{"jsonrpc":"2.0","id":1,"method":"ping","\u006dethod":"tools/call"}"#, Error("1", REQUEST)),
        (r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"safe","name":"danger"}}"#, Error("1", PARAMS)),
        (r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"danger","arguments":{"x":"shown"},"arguments":{"x":"hidden"}}}"#, Error("1", PARAMS)),
        (r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"danger","arguments":{"a":{"b":1,"b":2}}}}"#, Error("1", PARAMS)),
        (r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{},"params":{"name":"danger"}}"#, Error("1", REQUEST)),
        (r#"{"jsonrpc":"2.0","jsonrpc":"2.0","id":1,"method":"ping"}"#, Error("1", REQUEST)),
        (r#"{"jsonrpc":"2.0","id":1,"method":"ping","Method":"tools/call"}"#, Error("1", REQUEST)),
        (r#"{"jsonrpc":"2.0","id":1,"method":"ping","METHOD":"tools/call"}"#, Error("1", REQUEST)),
        (r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","paramſ":{"name":"danger"}}"#, Error("1", REQUEST)),
        (r#"{"jsonrpc":"2.0","id":1,"method":"ping","method\u0000":"tools/call"}"#, Error("1", REQUEST)),
        (r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"safe","Name":"danger"}}"#, Error("1", PARAMS)),
        (r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","approved":true,"params":{"name":"danger"}}"#, Error("1", REQUEST)),
        (r#"{"jsonrpc":"2.0","id":1,"method":"ping","__proto__":{}}"#, Error("1", REQUEST)),
        (r#"{"jsonrpc":"2.0","id":1,"method":"ping","":1}"#, Error("1", REQUEST)),
        (r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"danger","arguments":{"__proto__":{"x":1},"":2}}}"#, Held),
    ]))
    .await;
}

#[tokio::test(start_paused = true)]
async fn values_that_parsers_read_in_different_ways_are_refused() {
    let with = |value: &str| {
        format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"danger","arguments":{{"x":{value}}}}}}}"#
        )
    };
    let mut rows = Vec::new();
    for value in [
        "NaN",
        "Infinity",
        "-Infinity",
        "1e400",
        "-1e400",
        "01",
        "+1",
        ".5",
        "5.",
        "0x10",
        "1_000",
        "True",
        "nul",
        "'a'",
        "/*c*/1",
        "1,",
        "\"\\ud800\"",
        "\"\\ude00\\ud800\"",
        "\"\\x41\"",
        "\"\u{1}\"",
        "\"\u{ffff}\"",
        "\"\\uffff\"",
        "[1,]",
        "{a:1}",
        "\u{a0}1",
    ] {
        rows.push((with(value).into_bytes(), Error("null", PARSE)));
    }
    for value in [
        "0.1000000000000000055",
        "12345678901234567890",
        "-0",
        "1E2",
        "1.0",
        "\"\\u202e\"",
        "\"\u{202e}\"",
        "\"\\u001b[2J\"",
        "\"\u{e0041}\"",
        "[[[]]]",
    ] {
        rows.push((with(value).into_bytes(), Held));
    }
    rows.push((with(&"9".repeat(1001)).into_bytes(), Error("1", REQUEST)));
    rows.push((with(&format!("{}{}", "[".repeat(70), "]".repeat(70))).into_bytes(), Error("1", REQUEST)));
    rows.push((with("\"\u{fffd}\"").into_bytes(), Held));
    for bytes in [&b"\xff\xfe"[..], b"\xc0\xaf", b"\xed\xa0\x80", b"\xf8\x88\x80\x80\x80"] {
        let mut line = with("\"@\"").into_bytes();
        let at = line.iter().position(|&byte| byte == b'@').unwrap();
        line.splice(at..=at, bytes.iter().copied());
        rows.push((line, Error("null", PARSE)));
    }
    each(&rows).await;
}

#[tokio::test(start_paused = true)]
async fn a_million_brackets_cost_nothing() {
    let deep = "[".repeat(1_000_000);
    let objects = "{\"a\":".repeat(200_000);
    for line in [deep, objects, "[".repeat(65) + &"]".repeat(65)] {
        let mut session = Session::start(POLICY, SessionLimits::default());
        let sending = async {
            // More than the pipe takes at once: the session has to read while this is being sent.
            session.client_sends(line.as_bytes()).await;
            session.client_sends(b"\n").await;
        };
        sending.await;
        let answer = session.client_receives().await.expect("an answer");
        assert!(answer.contains("-32600") || answer.contains("-32700"), "{answer}");
    }
}

#[tokio::test(start_paused = true)]
async fn ids_that_peers_would_round_or_confuse_are_refused() {
    let mut rows = Vec::new();
    for id in [
        "null",
        "true",
        "{}",
        "[]",
        "1.5",
        "26.0",
        "1e3",
        "-0",
        "9007199254740993",
        "\"a\\rb\"",
        "\"\\u001b[0m\"",
        "\"\\u202e\"",
    ] {
        rows.push((call(id).into_bytes(), Error("null", REQUEST)));
    }
    rows.push((call(&"7".repeat(300)).into_bytes(), Error("null", REQUEST)));
    rows.push((call(&format!("\"{}\"", "x".repeat(257))).into_bytes(), Error("null", REQUEST)));
    for id in ["\"\"", "-1", "0", "9007199254740991", "\"abc-1\""] {
        rows.push((call(id).into_bytes(), Held));
    }
    each(&rows).await;
}

#[tokio::test(start_paused = true)]
async fn messages_that_are_two_things_at_once_are_refused() {
    let batch = format!("[{}]", call("1"));
    each(&cases(&[
        (&batch, Error("null", REQUEST)),
        ("[]", Error("null", REQUEST)),
        ("[1]", Error("null", REQUEST)),
        (&format!("[{batch}]"), Error("null", REQUEST)),
        (
            r#"{"jsonrpc":"2.0","id":77,"result":{},"method":"tools/call","params":{"name":"danger"}}"#,
            Error("77", REQUEST),
        ),
        (
            r#"{"jsonrpc":"2.0","id":77,"error":{"code":1,"message":"x"},"method":"tools/call"}"#,
            Error("77", REQUEST),
        ),
        (r#"{"id":1,"method":"tools/call","params":{"name":"danger"}}"#, Error("1", REQUEST)),
        (r#"{"jsonrpc":2.0,"id":1,"method":"ping"}"#, Error("1", REQUEST)),
        (r#"{"jsonrpc":"1.0","id":1,"method":"ping"}"#, Error("1", REQUEST)),
        (r#"{"jsonrpc":"2.0","method":"tools/call","params":{"name":"danger"}}"#, Nothing),
        (r#""tools/call""#, Error("null", REQUEST)),
        ("42", Error("null", REQUEST)),
        ("null", Error("null", REQUEST)),
    ]))
    .await;
}

#[tokio::test(start_paused = true)]
async fn methods_and_names_are_what_they_seem() {
    let method = |method: &str| {
        format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{{"name":"danger"}}}}"#)
    };
    let params =
        |params: &str| format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{params}}}"#);
    let long_state = format!(r#"{{"name":"danger","requestState":"{}"}}"#, "x".repeat(300 << 10));
    each(&cases(&[
        (&method("Tools/Call"), Error("1", METHOD)),
        (&method("tools//call"), Error("1", METHOD)),
        (&method("/tools/call"), Error("1", METHOD)),
        (&method("tools%2Fcall"), Error("1", METHOD)),
        (&method("tools%252fcall"), Error("1", METHOD)),
        (&method("tools\\\\call"), Error("1", METHOD)),
        (&method("tools/call "), Error("1", REQUEST)),
        (&method("tools/call\\u0000"), Error("1", REQUEST)),
        (&method("toolſ/call"), Error("1", REQUEST)),
        (&method("tools\\/call"), Held),
        (&method("\\u0074ools/call"), Held),
        (&params(r#"{"n\u0061me":"d\u0061nger"}"#), Held),
        (&params(r#"{"name":"danger "}"#), Error("1", PARAMS)),
        (&params(r#"{"name":"dan\u200bger"}"#), Error("1", PARAMS)),
        (&params(r#"{"name":"\u202edanger"}"#), Error("1", PARAMS)),
        (&params(r#"{"name":"danger\u0000"}"#), Error("1", PARAMS)),
        (&params(r#"{"name":"d\u0430nger"}"#), Error("1", PARAMS)),
        (&params(r#"{"name":""}"#), Error("1", PARAMS)),
        (&params(r#"{"name":["danger"]}"#), Error("1", PARAMS)),
        (&params(r#"{"name":1}"#), Error("1", PARAMS)),
        (&params(r#"{}"#), Error("1", PARAMS)),
        (&params(r#"["danger"]"#), Error("1", PARAMS)),
        (&params(r#"{"name":"danger","arguments":"{}"}"#), Error("1", PARAMS)),
        (&params(r#"{"name":"danger","arguments":[]}"#), Error("1", PARAMS)),
        (&params(r#"{"name":"danger","arguments":null}"#), Error("1", PARAMS)),
        (&params(r#"{"name":"danger","_meta":{"progressToken":{}}}"#), Error("1", PARAMS)),
        (&params(r#"{"name":"danger","_meta":{"progressToken":1.5}}"#), Error("1", PARAMS)),
        (&params(&long_state), Error("1", PARAMS)),
        (&params(r#"{"name":"danger","requestState":"s","inputResponses":{"a":{}}}"#), Held),
    ]))
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_name_in_several_scripts_passes_once_the_server_has_listed_it() {
    let listed = "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"tools\":[{\"name\":\"d\u{430}nger\"},{\"name\":\"safe\"}]}}\n";
    let call =
        "{\"jsonrpc\":\"2.0\",\"id\":2,\"method\":\"tools/call\",\"params\":{\"name\":\"d\u{430}nger\"}}\n";
    let mut session = Session::start("version: 1\n", SessionLimits::default());
    session.client_sends(b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/list\"}\n").await;
    session.server_receives().await.expect("the server is asked");
    session.server_sends(listed.as_bytes()).await;
    assert_eq!(session.client_receives().await.as_deref(), Some(listed));
    session.client_sends(call.as_bytes()).await;
    tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    assert_eq!(session.gate.holds().len(), 1, "it is a tool like any other");
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_too_long_to_be_read_does_not_leave_the_client_waiting() {
    let limits = SessionLimits { server_frame_bytes_max: 2_000, ..SessionLimits::default() };
    let mut session = Session::start(POLICY, limits);
    session
        .client_sends(
            b"{\"jsonrpc\":\"2.0\",\"id\":7,\"method\":\"tools/call\",\"params\":{\"name\":\"read\"}}\n",
        )
        .await;
    assert!(session.server_receives().await.is_some());
    let long = "x".repeat(5_000);
    session
        .server_sends(
            format!("{{\"jsonrpc\":\"2.0\",\"id\":7,\"result\":{{\"text\":\"{long}\"}}}}\n").as_bytes(),
        )
        .await;
    let answer = session.client_receives().await.expect("the client is told");
    assert!(
        answer.contains("\"id\":7") && answer.contains("\"error\"") && answer.contains("longer"),
        "{answer}"
    );
    // What nobody asked for is not answered, and the stream goes on.
    session
        .server_sends(format!("{{\"jsonrpc\":\"2.0\",\"id\":8,\"result\":\"{long}\"}}\n").as_bytes())
        .await;
    session.client_sends(b"{\"jsonrpc\":\"2.0\",\"id\":7,\"method\":\"ping\"}\n").await;
    assert!(session.server_receives().await.is_some());
    session.server_sends(b"{\"jsonrpc\":\"2.0\",\"id\":7,\"result\":{}}\n").await;
    assert_eq!(
        session.client_receives().await.as_deref(),
        Some("{\"jsonrpc\":\"2.0\",\"id\":7,\"result\":{}}\n")
    );
}
