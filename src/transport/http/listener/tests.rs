//! Connections in memory, with time standing still until nothing else is left to happen: what days of waiting cost.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    time::sleep,
};

use super::*;
use crate::{
    gate::{Gate, GateLimits},
    hold::{HoldId, State, Verdict},
    policy::{Policy, Source},
    principal::Principal,
    store::Store,
    transport::http::{
        identity::AgentSettings,
        settings::{HttpLimits, HttpSettings, OAuth, Target, UpstreamSettings},
    },
};

const POLICY: &str = "version: 1\nrules: [{name: all, tool: danger, action: hold, timeout: 3d, hold_message: One moment please.}]\n";

/// So long do the clients wait.
const DAY: Duration = Duration::from_secs(24 * 3600);

/// Bytes that fit between a client and the proxy.
const PIPE_BYTES: usize = 64 * 1024;

/// What the proxy may keep for a client that reads nothing, in bytes: what hyper and our own queue take before they wait.
const KEPT_BYTES_MAX: usize = 512 * 1024;

/// A worker of a proxy before the server at `url`.
fn worker(url: &str) -> Arc<Worker> {
    let policy = Policy::parse(vec![Source { name: "policy.yaml".into(), text: POLICY.into() }]).unwrap();
    let gate = Gate::new("gate".into(), Arc::new(policy), Store::in_memory(), GateLimits::default());
    let upstream = UpstreamSettings {
        name: "test".into(),
        path: "/mcp".to_owned(),
        host: None,
        target: Target::parse(url, None).unwrap(),
        headers: Vec::new(),
        headers_of: HashMap::new(),
        oauth: OAuth::Off,
        wait: Some(crate::waiting::Wait::Forever),
    };
    let settings = HttpSettings {
        upstreams: vec![upstream],
        commands: Vec::new(),
        hosts: vec!["localhost".to_owned()],
        origins: Vec::new(),
        agents: AgentSettings::default(),
        tls: None,
        limits: HttpLimits::default(),
    };
    Arc::new(Worker { proxy: Arc::new(Proxy::new(Arc::new(gate), settings, 1)), number: 0 })
}

/// A client that has made a call with `meta`, which is held.
async fn client(worker: &Arc<Worker>, number: usize, meta: &str) -> DuplexStream {
    let (mut near, far) = tokio::io::duplex(PIPE_BYTES);
    let pulse = Pulse::new(Arc::default());
    let client = Client { pulse, peer: IpAddr::V4(Ipv4Addr::LOCALHOST), certificate: None };
    tokio::spawn(speak(Arc::clone(worker), client, far, false));
    let body = format!(
        "{{\"jsonrpc\":\"2.0\",\"id\":{number},\"method\":\"tools/call\",\"params\":{{\"name\":\"danger\",\"arguments\":{{\"n\":{number}}},\"_meta\":{meta}}}}}"
    );
    let head = "POST /mcp HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\naccept: application/json, text/event-stream";
    let mirrored = if meta.contains("2026-07-28") {
        "\r\nmcp-protocol-version: 2026-07-28\r\nmcp-method: tools/call\r\nmcp-name: danger"
    } else {
        ""
    };
    let request =
        format!("{head}{mirrored}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    near.write_all(request.as_bytes()).await.unwrap();
    near
}

fn alice() -> Principal {
    Principal::User { uid: 1000, name: Some("alice".into()) }
}

/// All that comes until the other side has closed.
async fn all(stream: &mut DuplexStream) -> String {
    let mut all = Vec::new();
    stream.read_to_end(&mut all).await.unwrap();
    String::from_utf8(all).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_day_of_waiting_keeps_a_stream_open_and_piles_nothing_up() {
    let worker = worker("http://127.0.0.1:1/up");
    let gate = Arc::clone(&worker.proxy.gate);
    let mut reading = client(&worker, 1, r#"{"progressToken":1}"#).await;
    let mut silent = client(&worker, 2, r#"{"progressToken":2}"#).await;
    let mut plain = client(&worker, 3, "{}").await;
    let read = tokio::spawn(async move { tokio::join!(all(&mut reading), all(&mut plain)) });
    sleep(DAY).await;
    let said_at_least = DAY.as_secs() / HttpLimits::default().keepalive_every.as_secs() - 10;
    assert_eq!(gate.holds_len(), 3, "all still wait");
    for held in gate.holds() {
        gate.resolve(held.id, Verdict::Reject, &alice(), Some("Not today.")).await.unwrap();
    }
    let (read, plain) = read.await.unwrap();
    let told = read.matches("notifications/progress").count() as u64;
    assert!(told >= said_at_least, "told {told} times");
    assert!(read.contains("Not today."), "and then the answer");
    let comments = plain.matches(": waiting").count() as u64;
    assert!(comments >= said_at_least && plain.contains("Not today."), "{comments} comments");
    let kept = all(&mut silent).await;
    assert!(read.len() > 2 * KEPT_BYTES_MAX, "{} bytes were said", read.len());
    assert!(kept.len() < KEPT_BYTES_MAX, "{} bytes were kept for a client that reads nothing", kept.len());
    assert!(kept.contains("Not today."), "which gets its answer all the same");
}

/// Reads from `stream` until `text` has come `times` times, and gives all that has.
async fn read_until(stream: &mut (impl AsyncRead + Unpin), text: &str, times: usize) -> String {
    let mut all = Vec::new();
    loop {
        let so_far = String::from_utf8_lossy(&all).into_owned();
        if so_far.matches(text).count() >= times {
            return so_far;
        }
        let before = all.len();
        let mut buffer = [0; 4096];
        let count = timeout(DAY, stream.read(&mut buffer)).await.expect("it comes").unwrap();
        all.extend_from_slice(&buffer[..count]);
        assert!(all.len() > before, "it has ended: {so_far}");
    }
}

/// Waits until the record says of `hold` that it has come to `state`.
async fn until_state(gate: &Gate, hold: HoldId, state: State) {
    let recorded = async {
        while gate.recorded(hold).await.unwrap().unwrap().state != state {
            sleep(Duration::from_secs(1)).await;
        }
    };
    timeout(DAY, recorded).await.unwrap_or_else(|_| panic!("it is {state}"));
}

#[tokio::test(start_paused = true)]
async fn a_client_is_kept_and_looked_after_while_the_server_works_on_its_approved_call() {
    const MODERN: &str = r#"{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}"#;
    const ANSWER: &str = r#"{"jsonrpc":"2.0","id":1,"result":{"content":[]}}"#;
    for (meta, state) in [(MODERN, State::Unknown), ("{}", State::Answered)] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let worker = worker(&format!("http://{}/up", listener.local_addr().unwrap()));
        let gate = Arc::clone(&worker.proxy.gate);
        let mut client = client(&worker, 1, meta).await;
        read_until(&mut client, ": waiting", 1).await;
        let hold = gate.holds()[0].id;
        gate.resolve(hold, Verdict::Approve, &alice(), None).await.unwrap();
        let (mut server, _) = listener.accept().await.unwrap();
        read_until(&mut server, "\"params\"", 1).await;
        let head = format!("content-type: application/json\r\ncontent-length: {}", ANSWER.len());
        server.write_all(format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n").as_bytes()).await.unwrap();
        read_until(&mut client, ": waiting", 6).await;
        drop(client);
        if state == State::Unknown {
            // So the server hears that the call is taken back.
            let ended = timeout(DAY, server.read(&mut [0; 16])).await.expect("the stream ends");
            assert_eq!(ended.unwrap_or(0), 0);
        } else {
            // Before, that may be a connection that has broken: what became of the call is still of interest.
            sleep(DAY).await;
            server.write_all(ANSWER.as_bytes()).await.unwrap();
        }
        until_state(&gate, hold, state).await;
    }
}

#[tokio::test(start_paused = true)]
async fn of_a_call_for_whose_answer_nobody_comes_back_nobody_knows() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let worker = worker(&format!("http://{}/up", listener.local_addr().unwrap()));
    let gate = Arc::clone(&worker.proxy.gate);
    let mut client = client(&worker, 1, "{}").await;
    read_until(&mut client, ": waiting", 1).await;
    let hold = gate.holds()[0].id;
    gate.resolve(hold, Verdict::Approve, &alice(), None).await.unwrap();
    let (mut server, _) = listener.accept().await.unwrap();
    read_until(&mut server, "\"params\"", 1).await;
    let events = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\nid: 1\ndata:\n\n";
    server.write_all(events).await.unwrap();
    read_until(&mut client, "id: 1", 1).await;
    drop(client);
    until_state(&gate, hold, State::Unknown).await;
}
