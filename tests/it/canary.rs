//! Hostile frames against real servers: whatever a client writes, the tool `danger` runs only for an approval of exactly
//! those bytes that is on record.
//!
//! The tool writes a file, so the question is answered by the file system and not by what anybody says. Each frame is also
//! sent to the bare servers that are known to execute it: there the file must appear, or these tests could not fail.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod frames;

use std::{ffi::OsString, fmt::Write as _};

use serde_json::Value;

use crate::support::{
    peers::{HOLD_DANGER, Home, Running, Server},
    program::CLIENT_DECIDES,
};

use frames::{
    DANGER,
    Expect::{self, Answer, ErrorToCaller, ErrorToNobody, Held, Silence},
    SERVERS, all_hostile, render,
};

/// A session of this process, which is the client and decides as well.
fn begin(home: &Home, command: &[OsString]) -> Running {
    Running::start(home.command(command).env(CLIENT_DECIDES, "true"))
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
    let mut session = begin(&home, &command);
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
            Answer => {
                let own: Value = serde_json::from_str(&own_id).unwrap();
                answers.push(session.next_json_where(|message| message["id"] == own));
            }
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
        let mut session = begin(&home, &command);
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
    let mut session = begin(home, &command);
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

/// The last thing a client writes is a call, and then it is gone: the session ends at once, and the call waits for whoever makes it again.
#[test]
fn a_call_whose_client_leaves_at_once_never_executes() {
    for server in SERVERS {
        let home = Home::new();
        let mut session = held_session(&home, server);
        session.send(format!("{{\"jsonrpc\":\"2.0\",\"id\":63,{DANGER}}}\n").as_bytes());
        end(&home, session);
        assert!(home.all_holds().iter().all(|hold| hold["state"] == "held"), "{:?}", home.all_holds());
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

const ALLOW_ALL: &str = "version: 1\nrules:\n  - {name: everything, tool: '*', action: allow}\n";

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
            let mut session = begin(&home, &command);
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
        let proxied = run(home.behind_proxy(ALLOW_ALL, server.command(&home)));
        assert_eq!(direct, proxied, "{server:?}");
        let mut proxied = run(home.behind_proxy(HOLD_DANGER, server.command(&home)));
        // Where a tool may have to wait, the list says that it can be asked for as a task (MCP 2025-11-25), and nothing else.
        for line in &mut proxied {
            *line = line.replacen("{\"execution\":{\"taskSupport\":\"optional\"},", "{", 1);
        }
        assert_eq!(direct, proxied, "{server:?}");
        assert!(direct.len() > FRAMES.len(), "progress was reported as well");
    }
}
