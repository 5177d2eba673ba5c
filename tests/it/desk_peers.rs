//! The desk in a real browser and before a real tester of APIs: Chromium with and without scripts, axe, schemathesis.

use std::{
    path::PathBuf,
    process::{Command, Output},
};

use serde_json::json;

use crate::{
    desk::{call, desk, gate, token},
    support::{
        peers::installed,
        program::{Home, until},
    },
};

/// The browser: Debian's name for it, or another's.
fn chromium() -> PathBuf {
    let names = ["chromium", "chromium-browser", "google-chrome"];
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found =
        std::env::split_paths(&path).flat_map(|dir| names.map(|name| dir.join(name))).find(|at| at.is_file());
    found.expect("chromium is installed (Debian: apt-get install chromium; tests/peers/install.sh does so where it may)")
}

fn succeeded(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    said
}

#[test]
fn people_decide_in_a_browser() {
    let home = Home::new();
    let mut gate = gate(&home);
    gate.send(&call(1, "send_refund", &json!({"amount": 950, "order": "A-1042"})));
    gate.send(&call(
        2,
        "run_command",
        &json!({"cmd": format!("ls{}; rm -rf ~ <script>alert(1)</script>", " ".repeat(400))}),
    ));
    gate.send(&call(3, "create_issue", &json!({"title": "Broken", "password": "hunter2"})));
    gate.send(&call(4, "get_user", &json!({})));
    home.wait_for_holds(4);
    let (desk, _) = desk(&home, 4);
    let link = home.holdshort(["desk", "link", "--url", &desk.origin()]);
    let link = succeeded(&link);
    let without = succeeded(&home.holdshort(["desk", "link", "--url", &desk.origin()]));
    let output = Command::new("node")
        .arg(installed("browser.mjs"))
        .args([link.trim(), without.trim()])
        .arg(chromium())
        .arg(home.path())
        .output()
        .unwrap();
    let said = succeeded(&output);
    for step in
        ["signed in", "approved", "rejected", "approved by keys", "approved without scripts", "clean for axe"]
    {
        assert!(said.contains(step), "{step}: {said}");
    }
    // What the pages said is what happened.
    let past = String::from_utf8(home.holdshort(["history", "--json"]).stdout).unwrap();
    let past: serde_json::Value = serde_json::from_str(&past).unwrap();
    let became = |tool: &str| {
        let hold = past.as_array().unwrap().iter().find(|hold| hold["tool"] == tool).unwrap();
        (hold["votes"][0]["verdict"].clone(), hold["votes"][0]["comment"].clone())
    };
    assert_eq!(became("send_refund"), (json!("approve"), json!("checked")));
    assert_eq!(became("run_command"), (json!("reject"), json!("not like this")));
    assert_eq!(became("create_issue").0, json!("approve"));
    assert_eq!(became("get_user").0, json!("approve"));
    home.verify();
}

#[test]
fn rest_is_what_its_description_says() {
    let home = Home::new();
    let mut gate = gate(&home);
    for id in 1..40 {
        gate.send(&call(id, "danger", &json!({"n": id})));
    }
    let ids = home.wait_for_holds(39);
    let (desk, _) = desk(&home, 39);
    let scopes = ["all", "--scope", "read", "--scope", "decide", "--scope", "audit", "--scope", "status"];
    let all = token(&home, &scopes);
    let output = Command::new(installed("venv-rest/bin/schemathesis"))
        .args(["--config-file"])
        .arg(installed("schemathesis.toml"))
        .args(["run", "--url", &format!("{}/api/v1", desk.origin())])
        .arg(format!("{}/api/v1/openapi.json", desk.origin()))
        .args(["--header", &format!("Authorization: Bearer {all}")])
        .env("HOLDSHORT_HOLD", &ids[0])
        .current_dir(home.path())
        .output()
        .unwrap();
    succeeded(&output);
    until(|| (desk.ask("GET", "/holds", &all, "").status == 200).then_some(()));
}

/// Calls that wait, where nobody says how many.
const MANY: usize = 250;

#[test]
#[expect(clippy::print_stderr, reason = "the times are what it is run for by hand")]
fn a_page_of_many_calls_can_be_used_and_another_page_sees_a_decision() {
    // Measured with 10,000: `HOLDSHORT_DESK_HOLDS=10000`, as docs/desk.md says. Here it is that it works at all.
    let count =
        std::env::var("HOLDSHORT_DESK_HOLDS").ok().and_then(|count| count.parse().ok()).unwrap_or(MANY);
    let home = Home::new();
    let mut gate = gate(&home);
    for id in 1..=count {
        gate.send(&call(id, "pay", &json!({"amount": id, "to": "bob@example.com"})));
    }
    home.wait_for_holds(count);
    let (desk, _) = desk(&home, count);
    let link = succeeded(&home.holdshort(["desk", "link", "--url", &desk.origin()]));
    let output = Command::new("node")
        .arg(installed("desk_speed.mjs"))
        .arg(link.trim())
        .arg(chromium())
        .arg(count.to_string())
        .output()
        .unwrap();
    let said = succeeded(&output);
    assert!(said.contains("usable after"), "{said}");
    eprintln!("{count} calls wait: {said}");
}
