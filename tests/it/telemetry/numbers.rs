//! Numbers for Prometheus, and health.

use std::{collections::BTreeSet, fs, path::Path};

use holdshort::meter::FAMILIES;
use serde_json::{Value, json};

use super::{ask, call, gate, heard, said};
use crate::support::{
    http::{Proxy, Server},
    program::{Home, Wrapped, until},
};

const NUMBERS: &str = "numbers are at http://";

fn numbers(address: std::net::SocketAddr) -> String {
    let answer = ask(address, "GET /metrics", &[]);
    assert_eq!(answer.status(), 200);
    answer.text().to_owned()
}

/// The number of a line that begins so.
fn number(text: &str, line: &str) -> f64 {
    let found = text.lines().find_map(|other| other.strip_prefix(line)?.strip_prefix(' '));
    found.unwrap_or_else(|| panic!("{line} in\n{text}")).parse().unwrap()
}

fn page(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

#[test]
fn a_scraper_sees_what_becomes_of_calls() {
    let home = Home::new();
    let mut gate = gate(&home, &["--metrics", "127.0.0.1:0"], &[]);
    let address = said(&home, NUMBERS);
    for (id, tool) in [(1, "read"), (2, "read"), (3, "drop")] {
        gate.ask(&call(id, tool));
    }
    gate.send(r#"{"jsonrpc":"2.0","id":4,"method":"tools/call","params":{"name":7}}"#);
    gate.receive();
    gate.send(&call(5, "pay"));
    gate.send(&call(6, "pay"));
    let holds = home.wait_for_holds(2);
    let text = numbers(address);
    for (line, expected) in [
        (r#"holdshort_calls_total{server="billing",effect="allow"}"#, 2.0),
        (r#"holdshort_calls_total{server="billing",effect="deny"}"#, 1.0),
        (r#"holdshort_calls_total{server="billing",effect="refuse"}"#, 1.0),
        (r#"holdshort_calls_total{server="billing",effect="hold"}"#, 2.0),
        ("holdshort_holds_open", 2.0),
        (r#"holdshort_record_holds{state="held"}"#, 2.0),
        ("holdshort_store_ready", 1.0),
        (r#"holdshort_decision_duration_seconds_count{outcome="approved"}"#, 0.0),
    ] {
        assert_eq!(number(&text, line), expected, "{line}");
    }
    assert!(number(&text, "holdshort_holds_oldest_age_seconds") > 0.0);
    assert!(number(&text, "holdshort_process_memory_bytes") > 1e6);
    assert!(home.holdshort(["approve", &holds[0]]).status.success());
    assert!(home.holdshort(["reject", &holds[1], "--reason", "no"]).status.success());
    (0..2).for_each(|_| drop(gate.receive()));
    let text = numbers(address);
    for (line, expected) in [
        (r#"holdshort_holds_ended_total{server="billing",outcome="approved"}"#, 1.0),
        (r#"holdshort_holds_ended_total{server="billing",outcome="rejected"}"#, 1.0),
        (r#"holdshort_decision_duration_seconds_count{outcome="approved"}"#, 1.0),
        (r#"holdshort_decision_duration_seconds_bucket{outcome="rejected",le="+Inf"}"#, 1.0),
        ("holdshort_holds_open", 0.0),
        ("holdshort_holds_oldest_age_seconds", 0.0),
        (r#"holdshort_record_holds{state="held"}"#, 0.0),
        (r#"holdshort_store_failures_total{operation="write"}"#, 0.0),
    ] {
        assert_eq!(number(&text, line), expected, "{line}");
    }
    assert!(number(&text, r#"holdshort_store_duration_seconds_sum{operation="write"}"#) > 0.0);
    // What a call says, who asked and what it was called: nothing of that is a label.
    for hidden in ["s3cr3t", "pay", "uid:", &holds[0], "client-of"] {
        assert!(!text.contains(hidden), "{hidden} in\n{text}");
    }
}

#[test]
fn a_scraper_gets_openmetrics_if_it_asks_for_it_and_every_family_is_told_of() {
    let home = Home::new();
    let _gate = gate(&home, &["--metrics", "127.0.0.1:0"], &[]);
    let address = said(&home, NUMBERS);
    let accept = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.4";
    let open = ask(address, "GET /metrics", &[("accept", accept)]);
    assert_eq!(
        open.header("content-type"),
        Some("application/openmetrics-text; version=1.0.0; charset=utf-8")
    );
    assert!(open.text().ends_with("# EOF\n") && open.text().contains("# TYPE holdshort_calls counter\n"));
    let text = ask(address, "GET /metrics", &[]);
    assert_eq!(text.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    for family in FAMILIES {
        let line = format!("# TYPE {} {}\n", family.prometheus_name(), family.kind.word());
        assert!(text.text().contains(&line), "{line}");
    }
}

#[test]
fn the_documentation_has_exactly_what_is_measured() {
    let rows: Vec<String> = FAMILIES
        .iter()
        .map(|family| {
            let labels: Vec<String> = family.labels.iter().map(|label| format!("`{label}`")).collect();
            let (name, kind) = (family.prometheus_name(), family.kind.word());
            format!("| `{name}` | {kind} | {} | {} |", labels.join(", "), family.help.trim_end_matches('.'))
        })
        .collect();
    let page = page("docs/telemetry.md");
    let table: Vec<&str> = page.lines().filter(|line| line.starts_with("| `holdshort_")).collect();
    assert_eq!(table, rows, "the table should be:\n{}", rows.join("\n"));
}

#[test]
fn every_name_in_the_dashboard_is_one_that_the_endpoint_has() {
    let home = Home::new();
    let _gate = gate(&home, &["--metrics", "127.0.0.1:0"], &[]);
    let text = numbers(said(&home, NUMBERS));
    let known: BTreeSet<&str> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    let dashboard: Value = serde_json::from_str(&page("examples/grafana/holdshort.json")).unwrap();
    let mut queries = Vec::new();
    texts(&dashboard, &mut queries);
    let mut names = BTreeSet::new();
    for query in &queries {
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        for word in query.split(|c| !is_name(c)).filter(|word| word.starts_with("holdshort_")) {
            let parts = ["_bucket", "_sum", "_count"];
            let whole =
                parts.iter().find_map(|part| word.strip_suffix(part).filter(|name| known.contains(name)));
            let name = whole.unwrap_or(word);
            assert!(known.contains(name), "{word} in {query}");
            names.insert(name.to_owned());
        }
    }
    let counted = FAMILIES.iter().filter(|family| names.contains(&family.prometheus_name())).count();
    assert!(counted >= FAMILIES.len() - 2, "the dashboard shows nearly everything: {names:?}");
    assert_eq!(dashboard["panels"].as_array().map(Vec::is_empty), Some(false));
}

/// All texts in a value.
fn texts(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::String(text) => found.push(text.clone()),
        Value::Array(values) => values.iter().for_each(|value| texts(value, found)),
        Value::Object(members) => members.values().for_each(|value| texts(value, found)),
        _ => {}
    }
}

#[test]
fn a_gate_whose_record_is_gone_is_alive_and_not_ready() {
    let home = Home::new();
    let _gate = gate(&home, &["--metrics", "127.0.0.1:0"], &[]);
    let address = said(&home, NUMBERS);
    let ready = ask(address, "GET /readyz", &[]);
    assert_eq!((ready.status(), ready.json()), (200, json!({"ready": true, "store": "ok", "process": "ok"})));
    fs::remove_file(home.store()).unwrap();
    let ready = ask(address, "GET /readyz", &[]);
    assert_eq!(
        (ready.status(), ready.json()),
        (503, json!({"ready": false, "store": "failing", "process": "ok"}))
    );
    assert_eq!(ask(address, "GET /healthz", &[]).status(), 200);
    let text = numbers(address);
    assert_eq!(number(&text, "holdshort_store_ready"), 0.0);
    assert!(number(&text, r#"holdshort_store_failures_total{operation="write"}"#) >= 1.0);
    assert!(!text.contains("holdshort_record_holds{"), "nobody guesses");
}

#[test]
fn numbers_are_for_operators_and_not_for_pages() {
    let home = Home::new();
    let _gate = gate(&home, &["--metrics", "127.0.0.1:0"], &[]);
    let address = said(&home, NUMBERS);
    for (first, headers, status) in [
        ("GET /metrics", &[("host", "evil.example")][..], 421),
        ("GET /metrics", &[("origin", "http://evil.example")], 403),
        ("GET /metrics", &[("sec-fetch-site", "cross-site")], 403),
        ("POST /metrics", &[("content-length", "0")], 405),
        ("GET /", &[], 404),
        ("GET /metrics/", &[], 404),
        ("GET http://evil.example/metrics", &[], 421),
    ] {
        assert_eq!(ask(address, first, headers).status(), status, "{first} {headers:?}");
    }
    let wide = home.holdshort(["run", "--metrics", "0.0.0.0:9464", "--", "true"]);
    assert_eq!(wide.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&wide.stderr).contains("others can reach"), "{wide:?}");
}

#[test]
fn a_proxy_shows_its_numbers_on_a_listener_of_their_own() {
    let server = Server::of_result("{}");
    let proxy = Proxy::before(&server, super::POLICY, "telemetry: {listen: '127.0.0.1:0'}\n");
    let address = until(|| {
        let said = proxy.said();
        let (_, rest) = said.split_once(NUMBERS)?;
        rest.split('/').next()?.parse().ok()
    });
    assert_eq!(proxy.post(&[], &call(1, "read")).status(), 200);
    assert_eq!(proxy.post(&[], &call(2, "drop")).status(), 200);
    let text = numbers(address);
    assert_eq!(number(&text, r#"holdshort_calls_total{server="test",effect="allow"}"#), 1.0);
    assert_eq!(number(&text, r#"holdshort_calls_total{server="test",effect="deny"}"#), 1.0);
    for path in ["/metrics", "/healthz", "/readyz"] {
        assert_eq!(
            ask(proxy.address, &format!("GET {path}"), &[]).status(),
            404,
            "agents do not reach {path}"
        );
    }
}

#[test]
fn a_desk_shows_what_is_on_the_record() {
    let home = Home::new();
    let mut held = gate(&home, &[], &[]);
    held.send(&call(1, "pay"));
    home.wait_for_holds(1);
    let mut command = home.command();
    command.args(["desk", "--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0"]);
    heard(&home, &mut command);
    let _desk = Wrapped::start(command);
    let text = numbers(said(&home, NUMBERS));
    assert_eq!(number(&text, r#"holdshort_record_holds{state="held"}"#), 1.0);
    assert!(number(&text, "holdshort_record_oldest_age_seconds") > 0.0);
    assert!(!text.contains("\nholdshort_holds_open "), "it holds nothing itself");
}
