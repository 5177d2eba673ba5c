//! `holdshort doctor` and the level that `serve` is told to keep: what they say is so, and what they cannot promise they do not.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Output};

use serde_json::Value;

use crate::support::{
    keys::SecurityKey,
    program::{Home, Wrapped},
};

fn doctor(home: &Home, arguments: &[&str]) -> (Value, Option<i32>) {
    let output = home.holdshort(["doctor", "--json"].iter().chain(arguments));
    let report = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"));
    (report, output.status.code())
}

/// What was found out about `what`, each with how bad it is.
fn found(report: &Value, what: &str) -> Vec<(String, String)> {
    let word = |value: &Value| value.as_str().unwrap().to_owned();
    let checks = report["checks"].as_array().unwrap().iter().filter(|check| check["what"] == what);
    checks.map(|check| (word(&check["found"]), word(&check["text"]))).collect()
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

const POLICY: &str = "version: 1\nrules:\n  - {name: pay, tool: pay, action: hold}\n";

#[test]
fn a_new_home_is_advisory_and_in_order() {
    let home = Home::new();
    let (report, code) = doctor(&home, &[]);
    assert_eq!((code, &report["assurance"]), (Some(0), &"L0".into()), "{report}");
    assert!(report["because"][0].as_str().unwrap().contains("same user as the agent"), "{report}");
    assert_eq!(found(&report, "policy")[0].0, "warning", "there is none");
    let text = String::from_utf8(home.holdshort(["doctor"]).stdout).unwrap();
    assert!(text.starts_with("assurance L0, advisory\n"), "{text}");
}

#[test]
fn what_others_can_change_and_what_was_altered_is_a_problem() {
    let home = Home::new();
    let policy = home.file("policy.yaml", POLICY);
    let named = policy.to_str().unwrap();
    let mut command = home.command();
    command.args(["run", "--policy", named, "--", "sh", "-c", "cat >/dev/null"]);
    let mut wrapped = Wrapped::start(command);
    wrapped.send(r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"pay"}}"#);
    home.wait_for_holds(1);
    let (report, code) = doctor(&home, &["--policy", named]);
    assert_eq!(code, Some(0), "{report}");
    let gate = &found(&report, "gate")[0];
    assert!(gate.0 == "ok" && gate.1.contains("L0, waiting: 1 call"), "{gate:?}");
    assert!(found(&report, "record")[0].1.contains("nothing altered"), "{report}");
    assert_eq!(found(&report, "clock")[0].0, "ok");
    // It dies, and leaves its registration; somebody opens the files to others.
    wrapped.process.kill().unwrap();
    wrapped.process.wait().unwrap();
    set_mode(&policy, 0o666);
    set_mode(home.store().parent().unwrap(), 0o755);
    let (report, code) = doctor(&home, &["--policy", named]);
    assert_eq!(code, Some(1), "{report}");
    assert!(
        found(&report, "policy").iter().any(|(bad, text)| bad == "problem" && text.contains("other users"))
    );
    assert_eq!(found(&report, "state")[0].0, "problem");
    assert!(found(&report, "gate").iter().any(|(_, text)| text.contains("1 that died")), "{report}");
    let output = home.holdshort(["doctor", "--policy", named]);
    assert!(String::from_utf8_lossy(&output.stdout).contains("PROBLEM   policy: "), "{output:?}");
    let broken = home.file("broken.yaml", "version: 1\nrules: {}\n");
    let (report, code) = doctor(&home, &["--policy", broken.to_str().unwrap()]);
    assert!(code == Some(1) && found(&report, "policy")[0].1.starts_with("P0012"), "{report}");
}

#[test]
fn a_policy_that_wants_touches_everywhere_is_attested() {
    let home = Home::new();
    let key = SecurityKey::new().line();
    let rule = "rules:\n  - {name: pay, tool: pay, action: hold, min_assurance: L1}\n";
    for (default, level) in [("deny", "L1"), ("hold", "L0")] {
        let text = format!("version: 1\ndefault: {default}\npeople: {{ann: {{ssh_keys: '{key}'}}}}\n{rule}");
        let policy = home.file("policy.yaml", &text);
        let (report, code) = doctor(&home, &["--policy", policy.to_str().unwrap()]);
        assert_eq!((code, &report["assurance"]), (Some(0), &level.into()), "{report}");
    }
    let beyond = format!(
        "version: 1\npeople: {{ann: {{ssh_keys: '{key}'}}}}\nrules:\n  - {{name: pay, tool: pay, action: hold, min_assurance: L3}}\n"
    );
    let policy = home.file("policy.yaml", &beyond);
    let (report, code) = doctor(&home, &["--policy", policy.to_str().unwrap()]);
    assert_eq!(code, Some(1), "nobody can approve that with `run`: {report}");
}

#[test]
fn serve_keeps_the_level_that_it_states_or_does_not_start() {
    let home = Home::new();
    let policy = home.file("policy.yaml", POLICY);
    let config = |level: &str, agents: &str| {
        let text = format!(
            "listen: 127.0.0.1:0\npolicy: [policy.yaml]\nassurance: {level}\n{agents}upstreams:\n  - {{name: x, path: /x, url: \"http://127.0.0.1:9/mcp\"}}\n"
        );
        home.file("serve.yaml", &text)
    };
    let token = format!("agents: {{tokens: [{{name: bot, sha256: {}}}]}}\n", "ab".repeat(32));
    for (level, agents, why) in [
        ("L2", "", "cannot tell agents from approvers"),
        ("L1", &*token, "not a way to deploy"),
        ("L4", &token, "nobody else witnesses the log"),
        ("high", &token, "no such level"),
    ] {
        let path = config(level, agents);
        let refused = home.holdshort(["serve", "--config", path.to_str().unwrap()]);
        assert!(
            refused.status.code() == Some(2) && stderr(&refused).contains(why),
            "{level}: {}",
            stderr(&refused)
        );
    }
    let path = config("L2", &token);
    let (report, code) = doctor(&home, &["--config", path.to_str().unwrap()]);
    assert_eq!((code, &report["assurance"]), (Some(0), &"L2".into()), "{report}");
    set_mode(&policy, 0o664);
    let (report, code) = doctor(&home, &["--config", path.to_str().unwrap()]);
    assert_eq!((code, &report["assurance"]), (Some(1), &"L0".into()), "{report}");
    let refused = home.holdshort(["serve", "--config", path.to_str().unwrap()]);
    assert!(refused.status.code() == Some(2) && stderr(&refused).contains("other users"), "{refused:?}");
}
