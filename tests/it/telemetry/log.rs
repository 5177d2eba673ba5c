//! The log as machines read it, and what is never in it.

use std::fs;

use serde_json::Value;

use super::{call, gate};
use crate::support::program::{Home, until};

#[test]
fn every_line_of_a_json_log_is_an_object_and_says_which_hold_it_is_about() {
    let home = Home::new();
    let variables = [("HOLDSHORT_LOG", "info"), ("HOLDSHORT_LOG_FORMAT", "json")];
    let mut gate = gate(&home, &["--metrics", "127.0.0.1:0"], &variables);
    gate.send(&call(1, "pay"));
    let hold = home.wait_for_holds(1).remove(0);
    assert!(home.holdshort(["approve", &hold]).status.success());
    gate.receive();
    gate.close();
    gate.ends();
    let lines: Vec<Value> = until(|| {
        let said = fs::read_to_string(home.path().join("stderr")).unwrap();
        let lines: Option<Vec<Value>> = said.lines().map(|line| serde_json::from_str(line).ok()).collect();
        lines.filter(|lines| lines.iter().any(|line| line["message"] == "hold ended"))
    });
    for line in &lines {
        assert!(
            line["timestamp"].is_string() && line["level"].is_string() && line["message"].is_string(),
            "{line}"
        );
        let text = line.to_string();
        assert!(!text.contains("s3cr3t"), "no argument: {text}");
        let is_of_hold = ["call held", "hold ended"].iter().any(|said| line["message"] == *said);
        assert!(!is_of_hold || line["hold"] == *hold, "{line}");
    }
    let of_hold = lines.iter().filter(|line| line["hold"] == *hold).count();
    assert!(of_hold >= 2, "{lines:#?}");
    assert!(lines.iter().any(|line| line["message"].as_str().unwrap().starts_with("numbers are at")));
}

#[test]
fn what_stands_in_meta_is_held_as_it_is_and_not_logged() {
    let home = Home::new();
    let mut gate = gate(&home, &[], &[("HOLDSHORT_LOG", "trace")]);
    let keys: String = (0..500).map(|key| format!(r#","k{key}":{{"in":["s3cr3t\u001b[2J"]}}"#)).collect();
    let meta = format!(
        r#"{{"traceparent":"00-{0}{0}-{0}-01","tracestate":"s3cr3t=1\r\nx: y"{keys}}}"#,
        "ab".repeat(8)
    );
    let line = call(1, "pay").replace("\"arguments\"", &format!("\"_meta\":{meta},\"arguments\""));
    gate.send(&line);
    let hold = home.wait_for_holds(1).remove(0);
    let shown = home.holdshort(["show", &hold]);
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.contains("k499") && !shown.contains(['\u{1b}', '\r']), "{shown}");
    assert!(home.holdshort(["approve", &hold]).status.success());
    assert_eq!(gate.receive()["result"]["ran"], true);
    gate.close();
    gate.ends();
    let said = fs::read_to_string(home.path().join("stderr")).unwrap();
    assert!(said.contains("call held") && !said.contains("s3cr3t"), "{said}");
}
