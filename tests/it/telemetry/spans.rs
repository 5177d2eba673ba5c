//! Spans and numbers sent to a collector. The collector is one of ours; what it gets is read with the official definitions of OTLP.

use std::{
    fs,
    process::{Command, Stdio},
    time::Duration,
};

use serde_json::{Value, json};

use super::{POLICY, ask, call, gate, heard, said};
use crate::support::{
    http::{Message, Server, json as response, post},
    peers::installed,
    program::{Home, Wrapped, until},
};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";

fn collector() -> Server {
    Server::start(Box::new(|_, say| say(&response("200 OK", "", ""))))
}

/// What a process is told of a collector.
fn environment(collector: &Server) -> Vec<(&'static str, String)> {
    vec![
        ("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{}", collector.address)),
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=eu%2Cwest".to_owned()),
        ("OTEL_SERVICE_NAME", "billing-gate".to_owned()),
        ("OTEL_BSP_SCHEDULE_DELAY", "50".to_owned()),
        ("OTEL_METRIC_EXPORT_INTERVAL", "100".to_owned()),
    ]
}

fn gate_with(home: &Home, environment: &[(&'static str, String)]) -> Wrapped {
    let borrowed: Vec<_> = environment.iter().map(|(name, value)| (*name, &**value)).collect();
    gate(home, &[], &borrowed)
}

/// What a collector has got of one kind of signal, read by the official library.
fn told(home: &Home, collector: &Server, signal: &str) -> Vec<Value> {
    let is_of = |message: &&Message| message.first.contains(&format!("/v1/{signal} "));
    let asked: Vec<Message> = collector.asked().iter().filter(is_of).cloned().collect();
    let mut command = Command::new(installed("venv-otel/bin/python"));
    command.arg(installed("otlp_decode.py")).arg(signal);
    for (number, message) in asked.iter().enumerate() {
        assert_eq!(message.header("content-type"), Some("application/x-protobuf"));
        assert_eq!(message.header("x-tenant"), Some("eu,west"));
        let file = home.path().join(format!("{signal}-{number}"));
        fs::write(&file, &message.body).unwrap();
        command.arg(file);
    }
    let read = command.stderr(Stdio::inherit()).output().unwrap();
    assert!(read.status.success());
    serde_json::from_slice(&read.stdout).unwrap()
}

fn spans(home: &Home, collector: &Server, count: usize) -> Vec<Value> {
    until(|| Some(told(home, collector, "traces")).filter(|spans| spans.len() >= count))
}

/// `line` with a trace in its `_meta`, and spelled in a way of its own.
fn traced(line: &str) -> String {
    let meta = format!(r#""_meta" :{{"traceparent":"00-{TRACE}-{CALLER}-01","tracestate":"rojo=1"}},"#);
    line.replace(r#""params":{"#, &format!(r#""params":{{ {meta}"#))
}

#[test]
fn a_held_call_is_a_span_on_its_callers_trace_with_its_wait_and_who_decided() {
    let home = Home::new();
    let collector = collector();
    let mut gate = gate_with(&home, &environment(&collector));
    gate.send(&traced(&call(1, "pay")));
    let hold = home.wait_for_holds(1).remove(0);
    assert!(home.holdshort(["approve", &hold]).status.success());
    assert_eq!(gate.receive()["result"]["ran"], true);
    let spans = spans(&home, &collector, 2);
    let of = |name: &str| {
        spans.iter().find(|span| span["name"] == name).unwrap_or_else(|| panic!("{name}: {spans:#?}"))
    };
    let (call, wait) = (of("tools/call pay"), of("hold"));
    assert_eq!((&call["trace"], &call["parent"]), (&json!(TRACE), &json!(CALLER)));
    assert_eq!((&call["state"], &call["kind"], &call["status"]), (&json!("rojo=1"), &json!(2), &json!(0)));
    for (name, value) in [
        ("mcp.method.name", "tools/call"),
        ("gen_ai.operation.name", "execute_tool"),
        ("gen_ai.tool.name", "pay"),
        ("jsonrpc.request.id", "1"),
        ("network.transport", "pipe"),
        ("holdshort.server", "billing"),
    ] {
        assert_eq!(call["attributes"][name], value, "{name}");
    }
    assert_eq!(call["resource"]["service.name"], "billing-gate");
    assert_eq!((&wait["trace"], &wait["parent"], &wait["kind"]), (&json!(TRACE), &call["span"], &json!(1)));
    let user = wait["attributes"]["holdshort.reviewer"].as_str().unwrap();
    assert!(user.starts_with("uid:"), "{user}");
    assert_eq!(wait["attributes"]["holdshort.hold.id"], *hold);
    assert_eq!(wait["attributes"]["holdshort.verdict"], "approve");
    assert_eq!(wait["attributes"]["holdshort.hold.outcome"], "approved");
    assert_eq!(wait["attributes"]["holdshort.rules"], json!(["payments"]));
    let waited = wait["attributes"]["holdshort.hold.wait.duration"].as_f64().unwrap();
    let took = (wait["ended"].as_u64().unwrap() - wait["began"].as_u64().unwrap()) as f64 / 1e9;
    assert!(waited > 0.0 && waited >= took - 0.1, "{waited} {took}");
    assert!(
        call["began"].as_u64() <= wait["began"].as_u64() && wait["ended"].as_u64() <= call["ended"].as_u64()
    );
    for message in collector.asked() {
        let body = String::from_utf8_lossy(&message.body).into_owned();
        assert!(!body.contains("s3cr3t") && !body.contains("secret"), "no argument leaves: {body}");
    }
}

#[test]
fn how_a_call_failed_is_on_its_span_and_the_last_spans_are_sent_at_the_end() {
    let home = Home::new();
    let collector = collector();
    let mut variables = environment(&collector);
    variables.push(("OTEL_BSP_SCHEDULE_DELAY", "600000".to_owned()));
    let mut gate = gate_with(&home, &variables);
    gate.ask(&call(1, "drop"));
    gate.ask(&call(2, "read"));
    gate.send(&call(3, "pay"));
    let hold = home.wait_for_holds(1).remove(0);
    assert!(home.holdshort(["reject", &hold, "--reason", "no"]).status.success());
    gate.receive();
    assert!(told(&home, &collector, "traces").is_empty(), "they wait for their batch");
    gate.close();
    let (status, took) = gate.ends();
    assert!(status.success() && took < Duration::from_secs(10), "{status} {took:?}");
    let spans = told(&home, &collector, "traces");
    let of = |id: &str, name: &str| {
        let found =
            spans.iter().find(|span| span["attributes"]["jsonrpc.request.id"] == id && span["name"] == name);
        found.unwrap_or_else(|| panic!("{id} {name}: {spans:#?}"))
    };
    let denied = of("1", "tools/call drop");
    assert_eq!((&denied["status"], &denied["attributes"]["error.type"]), (&json!(2), &json!("denied")));
    assert_eq!(of("2", "tools/call read")["status"], 0);
    let rejected = of("3", "tools/call pay");
    assert_eq!((&rejected["status"], &rejected["attributes"]["error.type"]), (&json!(2), &json!("rejected")));
    let wait = spans.iter().find(|span| span["name"] == "hold").unwrap();
    assert_eq!(
        (&wait["parent"], &wait["attributes"]["holdshort.verdict"]),
        (&rejected["span"], &json!("reject"))
    );
    assert_eq!(rejected["parent"], "", "nobody else has begun this trace");
    assert_eq!(spans.len(), 4, "{spans:#?}");
}

#[test]
fn a_collector_gets_the_numbers_too_and_a_kind_that_is_not_wanted_is_not_sent() {
    let home = Home::new();
    let collector = collector();
    let mut variables = environment(&collector);
    variables.push(("OTEL_TRACES_EXPORTER", "none".to_owned()));
    let mut gate = gate_with(&home, &variables);
    gate.ask(&call(1, "read"));
    gate.ask(&call(2, "drop"));
    let numbers = until(|| {
        let numbers = told(&home, &collector, "metrics");
        let is_whole = |number: &Value| {
            let points = number["points"].as_array().unwrap();
            number["name"] == "holdshort.calls"
                && points.iter().any(|point| point["attributes"]["effect"] == "deny" && point["value"] == 1)
        };
        numbers.iter().any(is_whole).then_some(numbers)
    });
    let last = |name: &str| numbers.iter().rfind(|number| number["name"] == name).unwrap();
    let calls = last("holdshort.calls");
    assert_eq!(
        (&calls["kind"], &calls["temporality"], &calls["monotonic"]),
        (&json!("sum"), &json!(2), &json!(true))
    );
    let store = last("holdshort.store.duration");
    assert_eq!((&store["kind"], &store["unit"]), (&json!("histogram"), &json!("s")));
    let write = &store["points"][0];
    let counts: u64 = write["counts"].as_array().unwrap().iter().map(|count| count.as_u64().unwrap()).sum();
    assert_eq!(Some(counts), write["count"].as_u64());
    assert_eq!(write["counts"].as_array().unwrap().len(), write["bounds"].as_array().unwrap().len() + 1);
    assert_eq!(last("holdshort.store.ready")["points"][0]["value"], 1.0);
    assert!(!collector.asked().iter().any(|message| message.first.contains("/v1/traces")));
}

#[test]
fn over_http_the_servers_request_is_the_clients_own_and_headers_link_or_lead() {
    let home = Home::new();
    let (collector, server) = (collector(), Server::of_result("{\"isError\":true,\"content\":[]}"));
    home.file("policy.yaml", POLICY);
    let config = home.file(
        "serve.yaml",
        &format!(
            "listen: 127.0.0.1:0\npolicy: [policy.yaml]\nupstreams:\n  - {{name: test, path: /mcp, url: \"http://{}/up\"}}\n",
            server.address
        ),
    );
    let mut command = home.command();
    command.args(["serve".as_ref(), "--config".as_ref(), config.as_os_str()]).envs(environment(&collector));
    heard(&home, &mut command);
    let _proxy = Wrapped::start(command);
    let address = said(&home, "listening on http://");
    let other = format!("00-{}-{}-01", "a".repeat(32), "b".repeat(16));
    let headers = [("traceparent", &*other), ("tracestate", "congo=2")];
    let ask = |body: &str| {
        let mut connection = crate::support::http::Connection::open(address);
        connection.send(&post("/mcp", &headers, body));
        connection.message().unwrap()
    };
    let with_meta = traced(&call(1, "read"));
    assert_eq!(ask(&with_meta).status(), 200);
    assert_eq!(ask(&call(2, "read")).status(), 200);
    let asked = server.asked();
    assert_eq!(asked[0].text(), with_meta, "not one byte is written into it");
    assert_eq!(asked[0].header("traceparent"), Some(&*other), "and headers go on as they came");
    assert_eq!(asked[0].header("tracestate"), Some("congo=2"));
    let spans = spans(&home, &collector, 2);
    let of = |id: &str| spans.iter().find(|span| span["attributes"]["jsonrpc.request.id"] == id).unwrap();
    assert_eq!((&of("1")["trace"], &of("1")["parent"]), (&json!(TRACE), &json!(CALLER)));
    assert_eq!(of("1")["links"], json!([{"trace": "a".repeat(32), "span": "b".repeat(16)}]));
    assert_eq!((&of("2")["trace"], &of("2")["parent"]), (&json!("a".repeat(32)), &json!("b".repeat(16))));
    assert_eq!(of("1")["attributes"]["network.transport"], "tcp");
    assert_eq!(of("1")["attributes"]["error.type"], "tool_error");
}

#[test]
fn a_collector_that_is_away_costs_spans_and_no_call_anything() {
    let home = Home::new();
    // An address at which nobody listens any more.
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let endpoint = format!("http://{gone}");
    let variables = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &*endpoint),
        ("OTEL_METRICS_EXPORTER", "none"),
        ("OTEL_BSP_SCHEDULE_DELAY", "1"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "20"),
    ];
    let mut gate = gate(&home, &["--metrics", "127.0.0.1:0"], &variables);
    let address = said(&home, "numbers are at http://");
    for id in 1..=20 {
        assert_eq!(gate.ask(&call(id, "read"))["result"]["ran"], true);
    }
    until(|| {
        let numbers = ask(address, "GET /metrics", &[]);
        let line = r#"holdshort_events_dropped_total{what="span"} "#;
        let dropped = numbers.text().lines().find_map(|other| other.strip_prefix(line)?.parse::<u64>().ok());
        dropped.filter(|dropped| *dropped == 20)
    });
    gate.close();
    assert!(gate.ends().0.success());
    let said = fs::read_to_string(home.path().join("stderr")).unwrap();
    assert_eq!(said.matches("the collector has not taken").count(), 1, "it is told once: {said}");
}

#[test]
fn nothing_is_started_where_no_collector_is_named() {
    let home = Home::new();
    let mut gate = super::gate(&home, &[], &[("OTEL_SERVICE_NAME", "x")]);
    gate.ask(&call(1, "read"));
    let threads = format!("/proc/{}/task", gate.process.id());
    let names = fs::read_dir(threads)
        .unwrap()
        .filter_map(|task| fs::read_to_string(task.ok()?.path().join("comm")).ok());
    let names: Vec<String> = names.collect();
    assert!(!names.is_empty() && !names.iter().any(|name| name.contains("otlp")), "{names:?}");
    // Something that cannot be had is told, and the gate does its work.
    let other = Home::new();
    let variables =
        [("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1"), ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")];
    let mut second = super::gate(&other, &[], &variables);
    assert_eq!(second.ask(&call(1, "read"))["result"]["ran"], true);
    let said = until(|| {
        Some(fs::read_to_string(other.path().join("stderr")).ok()?).filter(|said| said.contains("OTLP"))
    });
    assert!(said.contains("OTEL_EXPORTER_OTLP_PROTOCOL: only `http/protobuf` is spoken"), "{said}");
}
