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
    hold::Verdict,
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

fn worker() -> Arc<Worker> {
    let policy = Policy::parse(vec![Source { name: "policy.yaml".into(), text: POLICY.into() }]).unwrap();
    let gate = Gate::new("gate".into(), Arc::new(policy), Store::in_memory(), GateLimits::default());
    let upstream = UpstreamSettings {
        name: "test".into(),
        path: "/mcp".to_owned(),
        host: None,
        target: Target::parse("http://127.0.0.1:1/up", None).unwrap(),
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
    let request = format!("{head}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    near.write_all(request.as_bytes()).await.unwrap();
    near
}

/// All that comes until the other side has closed.
async fn all(stream: &mut DuplexStream) -> String {
    let mut all = Vec::new();
    stream.read_to_end(&mut all).await.unwrap();
    String::from_utf8(all).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_day_of_waiting_keeps_a_stream_open_and_piles_nothing_up() {
    let worker = worker();
    let gate = Arc::clone(&worker.proxy.gate);
    let mut reading = client(&worker, 1, r#"{"progressToken":1}"#).await;
    let mut silent = client(&worker, 2, r#"{"progressToken":2}"#).await;
    let mut plain = client(&worker, 3, "{}").await;
    let read = tokio::spawn(async move { tokio::join!(all(&mut reading), all(&mut plain)) });
    sleep(DAY).await;
    let said_at_least = DAY.as_secs() / HttpLimits::default().keepalive_every.as_secs() - 10;
    assert_eq!(gate.holds_len(), 3, "all still wait");
    for held in gate.holds() {
        let alice = Principal::User { uid: 1000, name: Some("alice".into()) };
        gate.resolve(held.id, Verdict::Reject, &alice, Some("Not today.")).await.unwrap();
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
