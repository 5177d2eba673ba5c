//! `holdshort serve` with clients and servers that misuse HTTP: framing in two ways, floods, connections that end at any moment.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    thread,
};

use crate::support::{
    http::{Proxy, Server, json, post},
    program::PATIENCE,
};

const POLICY: &str = "version: 1\nrules:\n  - {name: safe, tool: safe, action: allow}\n";
const CALL: &str =
    r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"safe","arguments":{}}}"#;

/// The call in two pieces. `lines`: of the head; `extension`: of the first size; `behind`: what follows in the same breath.
fn in_pieces(lines: &str, extension: &str, behind: &str) -> String {
    let (one, other) = CALL.split_at(20);
    format!(
        "POST /mcp HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n{lines}\r\n\
         {:x}{extension}\r\n{one}\r\n{:X}\r\n{other}\r\n0\r\nx-trailer: 1\r\n\r\n{behind}",
        one.len(),
        other.len()
    )
}

#[test]
fn a_body_in_pieces_becomes_one_request_with_a_length_and_nothing_behind_it_is_one() {
    let server = Server::of_result(r#"{"content":[]}"#);
    let proxy = Proxy::before(&server, POLICY, "");
    let behind = String::from_utf8(post("/mcp", &[], CALL)).unwrap();
    const CHUNKED: &str = "transfer-encoding: chunked\r\n";
    let (before, after) =
        (format!("content-length: 5\r\n{CHUNKED}"), format!("{CHUNKED}content-length: 5\r\n"));
    for (lines, extension) in [(CHUNKED, ""), (CHUNKED, ";name=value"), (&before, ""), (&after, "")] {
        let mut client = proxy.connect();
        client.send(in_pieces(lines, extension, &behind).as_bytes());
        let answer = client.message().unwrap();
        assert_eq!(
            (answer.status(), answer.header("connection")),
            (200, Some("close")),
            "{lines}{extension}"
        );
        assert!(client.message().is_none(), "nobody can hide a request behind it");
    }
    let asked = server.asked();
    assert_eq!(asked.len(), 4);
    for request in asked {
        assert_eq!(request.text(), CALL);
        assert_eq!(request.header("content-length"), Some(&*CALL.len().to_string()));
        assert_eq!((request.header("transfer-encoding"), request.header("x-trailer")), (None, None));
    }
}

#[test]
fn a_body_whose_end_could_be_elsewhere_gets_no_further_and_neither_does_what_is_behind_it() {
    let server = Server::of_result(r#"{"content":[]}"#);
    let proxy = Proxy::before(&server, POLICY, "");
    let behind = String::from_utf8(post("/mcp", &[], CALL)).unwrap();
    let chunked = |body: &str| {
        in_pieces("transfer-encoding: chunked\r\n", "", "").split("\r\n\r\n").next().unwrap().to_owned()
            + "\r\n\r\n"
            + body
            + &behind
    };
    for (what, request) in [
        (
            "pieces in HTTP/1.0",
            in_pieces("transfer-encoding: chunked\r\n", "", &behind).replace("HTTP/1.1", "HTTP/1.0"),
        ),
        (
            "a coding behind a control character",
            in_pieces("transfer-encoding: \u{b}chunked\r\n", "", &behind),
        ),
        ("a size with a prefix", chunked("0x5\r\nhello\r\n0\r\n\r\n")),
        ("a size with a sign", chunked("+5\r\nhello\r\n0\r\n\r\n")),
        ("a size that is none", chunked("_\r\nhello\r\n0\r\n\r\n")),
        ("a size beyond counting", chunked("fffffffffffffffff\r\nhello\r\n0\r\n\r\n")),
        ("a size whose line ends with LF", chunked("5\nhello\n0\n\n")),
        ("an extension with a line end", chunked("5;a\nb\r\nhello\r\n0\r\n\r\n")),
        ("more than the size says", chunked("3\r\nhello\r\n0\r\n\r\n")),
    ] {
        let mut client = proxy.connect();
        client.send(request.as_bytes());
        assert_eq!(client.message().unwrap().status(), 400, "{what}");
        assert!(client.message().is_none(), "{what}: and the connection is closed");
    }
    assert!(server.asked().is_empty(), "nothing of it has reached the server");
}

/// A frame of HTTP/2 (RFC 9113 §4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// What the proxy has in memory at most so far, in KiB.
fn resident_kib(proxy: &Proxy) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", proxy.process.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

/// A connection that has begun.
fn http2(proxy: &Proxy) -> TcpStream {
    let mut stream = TcpStream::connect(proxy.address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
    stream.write_all(&frame(SETTINGS, 0, 0, &[])).unwrap();
    stream
}

/// Sends until the other side has had enough, and gives whether it said so or closed.
fn is_cut_off(mut stream: TcpStream, frames: impl Iterator<Item = Vec<u8>> + Send) -> bool {
    let mut reader = stream.try_clone().unwrap();
    std::thread::scope(|scope| {
        let enough = scope.spawn(move || {
            loop {
                let mut head = [0; 9];
                if reader.read_exact(&mut head).is_err() {
                    return true;
                }
                let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
                let mut payload = vec![0; length];
                if head[3] == GOAWAY || reader.read_exact(&mut payload).is_err() {
                    return true;
                }
                // An answer to the last frame: all were taken.
                if head[3] == PING {
                    return false;
                }
            }
        });
        for frame in frames {
            if stream.write_all(&frame).is_err() {
                break;
            }
        }
        let _ = stream.write_all(&frame(PING, 0, 0, b"the last"));
        enough.join().unwrap()
    })
}

/// `:method: POST`, `:scheme: http`, `:path: /mcp`, `:authority: localhost`, without the dynamic table (RFC 7541).
fn request_headers() -> Vec<u8> {
    [&[0x83, 0x86, 0x04, 4][..], b"/mcp", &[0x01, 9], b"localhost"].concat()
}

#[test]
fn a_client_that_floods_http2_is_cut_off_and_others_are_served() {
    let server = Server::of_result(r#"{"content":[]}"#);
    let proxy = Proxy::before(&server, POLICY, "");
    assert_eq!(proxy.post(&[], CALL).status(), 200);
    let before = resident_kib(&proxy);
    let streams = (0..20_000).map(|number: u32| 2 * number + 1);
    let resets = streams.map(|stream| {
        let begin = frame(HEADERS, END_HEADERS, stream, &request_headers());
        [begin, frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes())].concat()
    });
    assert!(is_cut_off(http2(&proxy), resets), "streams that are begun and reset");
    let begin = frame(HEADERS, 0, 1, &request_headers());
    // A literal header that is not indexed, of 8,000 bytes, again and again.
    let literal = [&[0x00, 1, b'x', 0x7f, 0xc1, 0x3d][..], &[b'y'; 8000]].concat();
    let endless = (0..5_000).map(|_| frame(CONTINUATION, 0, 1, &literal));
    assert!(is_cut_off(http2(&proxy), std::iter::once(begin).chain(endless)), "headers without an end");
    // Small on the wire, and 47 MB if each reference to the one long header is read out (RFC 7541 §7.3).
    let long = [&[0x40, 1, b'x', 0x7f, 0xbd, 0x1d][..], &[b'y'; 3900]].concat();
    let bomb = [request_headers(), long, vec![0xbe; 12_000]].concat();
    let _ = is_cut_off(http2(&proxy), std::iter::once(frame(HEADERS, END_HEADERS | END_STREAM, 1, &bomb)));
    // Each is to be acknowledged, and none of them says anything.
    let _ = is_cut_off(http2(&proxy), (0..100_000).map(|_| frame(SETTINGS, 0, 0, &[])));
    assert!(resident_kib(&proxy) < before + (16 << 10), "none of this is kept");
    let wrong = frame(HEADERS, END_HEADERS, 1, &[&request_headers()[..], &[0x00, 1, b'X', 1, b'y']].concat());
    let _ = is_cut_off(http2(&proxy), std::iter::once(wrong));
    assert_eq!(proxy.post(&[], CALL).status(), 200);
    assert_eq!(server.asked().len(), 2, "nothing else has reached the server");
}

/// When its client goes, in the life of a request.
#[derive(Clone, Copy, Debug)]
enum Moment {
    BeforeTheHead,
    BeforeTheFirstEvent,
    BetweenEvents,
}

/// Reads what a server gets until the call is there.
fn read_call(server: &mut TcpStream) {
    server.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut seen = Vec::new();
    while !seen.ends_with(CALL.as_bytes()) {
        let mut buffer = [0; 4096];
        let count = server.read(&mut buffer).unwrap();
        seen.extend_from_slice(&buffer[..count]);
    }
}

#[test]
fn a_call_gets_another_connection_where_the_server_has_closed_the_one_that_was_kept() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let config = format!(
        "upstreams: [{{name: test, path: /mcp, url: \"http://{}/up\"}}]\n",
        listener.local_addr().unwrap()
    );
    let (answered, server) = mpsc::channel();
    thread::spawn(move || {
        for mut server in listener.incoming().map(Result::unwrap) {
            read_call(&mut server);
            server.write_all(&json("200 OK", "", r#"{"jsonrpc":"2.0","id":1,"result":{}}"#)).unwrap();
            answered.send(server).unwrap();
        }
    });
    let proxy = Proxy::start(POLICY, &config);
    let mut client = proxy.connect();
    for _ in 0..3 {
        client.send(&post("/mcp", &[], CALL));
        assert_eq!(client.message().unwrap().status(), 200);
        // Only now, so that it was kept.
        drop(server.recv_timeout(PATIENCE).unwrap());
    }
}

#[test]
fn a_request_to_a_server_ends_with_its_client_at_every_moment() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let config = format!(
        "upstreams: [{{name: test, path: /mcp, url: \"http://{}/up\"}}]\n",
        listener.local_addr().unwrap()
    );
    let proxy = Proxy::start(POLICY, &config);
    for moment in [Moment::BeforeTheHead, Moment::BeforeTheFirstEvent, Moment::BetweenEvents] {
        let mut client = proxy.connect();
        client.send(&post("/mcp", &[], CALL));
        let (mut server, _) = listener.accept().unwrap();
        read_call(&mut server);
        if !matches!(moment, Moment::BeforeTheHead) {
            server.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n").unwrap();
            assert_eq!(client.head().unwrap().status(), 200);
        }
        if matches!(moment, Moment::BetweenEvents) {
            server.write_all(b": one\n\n").unwrap();
            assert_eq!(client.chunk(), b": one\n\n");
        }
        drop(client);
        assert_eq!(server.read(&mut [0; 16]).unwrap(), 0, "{moment:?}: the server sees the end");
    }
}
