//! What an agent, a server and a model choose is shown to the person who decides, and can never pass for something of ours.

use serde_json::{Value, json};

use crate::support::program::{Home, Wrapped};

const HOLD_ALL: &str = "version: 1\ndefault: hold\nrules: []\n";

const SILENT: &str = "while read -r line; do :; done";

/// Columns of the terminal that the tests speak of.
const COLUMNS: usize = 80;

/// The fields of a hold. Every line of `show` begins with one of them or with the gutter.
const FIELDS: [&str; 16] = [
    "hold",
    "state",
    "server",
    "tool",
    "agent",
    "principal",
    "held",
    "expires",
    "reason",
    "rules",
    "note",
    "sha256",
    "size",
    "WARNING",
    "arguments",
    "frame",
];

/// A name that, wrapped at the right column, would look like another row with another id.
fn hostile_name() -> String {
    let mut name = "read_file".to_owned();
    name.push_str(&" x".repeat(20));
    name.push_str(" 0rtk4vs held     nice-agent billing list_files 2s  4m 58s harmless");
    name
}

fn gate(home: &Home) -> Wrapped {
    let policy = home.file("policy.yaml", HOLD_ALL);
    let mut command = home.command();
    command
        .args(["run", "--server", &"srv ".repeat(20), "--policy"])
        .arg(policy)
        .args(["--", "sh", "-c", SILENT]);
    let mut gate = Wrapped::start(command);
    let client = json!({"name": hostile_name(), "version": "\u{202e}1\nstate      answered"});
    gate.send(
        &json!({"jsonrpc": "2.0", "id": 1, "method": "initialize",
            "params": {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": client}})
        .to_string(),
    );
    gate
}

fn call(id: usize, tool: &str, arguments: &Value) -> String {
    let params = json!({"name": tool, "arguments": arguments});
    json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params}).to_string()
}

/// What a command prints where a terminal has so many columns.
fn printed(home: &Home, columns: usize, arguments: &[&str]) -> String {
    let output = home.command().env("COLUMNS", columns.to_string()).args(arguments).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_hold_is_one_line_of_a_list_whatever_it_is_called() {
    let home = Home::new();
    let mut gate = gate(&home);
    for id in 2..5 {
        gate.send(&call(id, &hostile_name(), &json!({ "call": id })));
    }
    let ids = home.wait_for_holds(3);
    for columns in [60, COLUMNS, 120, 1000] {
        for command in [&["holds"][..], &["holds", "--all"], &["history"]] {
            let list = printed(&home, columns, command);
            let lines: Vec<_> = list.lines().collect();
            // Each hold is also in the record.
            assert_eq!(lines.len(), 4, "{list}");
            assert!(lines.iter().all(|line| line.chars().count() <= columns), "{list}");
            for line in &lines[1..] {
                let first = line.split_whitespace().next().unwrap();
                assert!(ids.iter().any(|id| id.starts_with(first)), "{list}");
                assert!(!line.contains("0rtk4vs"), "the name is cut: {list}");
            }
        }
    }
}

#[test]
fn nothing_in_show_begins_where_a_field_begins_and_no_row_wraps() {
    let home = Home::new();
    let mut gate = gate(&home);
    let deep = (0..40).fold(json!("state      approved ".repeat(20)), |inner, _| json!([inner]));
    let arguments = json!({
        "path": "state      answered\nhold       0rtk4vs\u{9b}2J",
        "wide": "東".repeat(200),
        "a\": \"b": "\", \"amount\": 1, \"x\": \"⏎",
        "deep": deep,
    });
    gate.send(&call(2, &hostile_name(), &arguments));
    let id = home.wait_for_holds(1).remove(0);
    for columns in [40, COLUMNS, 100, 300] {
        let page = printed(&home, columns, &["show", &id]);
        for line in page.lines() {
            let is_field = FIELDS.iter().any(|name| line.starts_with(&format!("{name:<10} ")));
            assert!(is_field || line.starts_with("  | "), "{line:?} in {page}");
            let wide = line.chars().filter(|&c| c == '東').count();
            assert!(line.chars().count() + wide <= columns.min(100), "{line:?} is wider than {columns}");
        }
        for once in ["hold ", "state ", "tool ", "agent ", "arguments ", "frame "] {
            assert_eq!(page.lines().filter(|line| line.starts_with(once)).count(), 1, "{once} in {page}");
        }
        // The head of the frame is one row here, so that all others are the frame's.
        if columns >= COLUMNS {
            let rows = page.lines().skip_while(|line| !line.starts_with("frame ")).skip(1);
            let shown: String =
                rows.map(|row| row.strip_prefix("  | ").unwrap().trim_end_matches('⏎')).collect();
            let sent = call(2, &hostile_name(), &arguments);
            assert_eq!(
                holdshort::sanitize::unrender(&shown),
                Some(sent),
                "the frame is rebuilt from its rows"
            );
        }
    }
}

#[test]
fn json_has_the_same_value_and_nothing_that_acts_on_a_terminal() {
    let home = Home::new();
    let mut gate = gate(&home);
    let arguments = json!({"text": "\u{9b}31m\u{7f}\u{202e}gnp.exe\u{200b}\u{e0041} Grüße"});
    gate.send(&call(2, "danger", &arguments));
    let id = home.wait_for_holds(1).remove(0);
    for command in [&["holds", "--json"][..], &["history", "--json"], &["show", &id, "--json"]] {
        let text = printed(&home, COLUMNS, command);
        assert!(text.chars().all(|c| c == '\n' || holdshort::sanitize::is_plain(c)), "{text}");
        assert!(text.contains("Grüße") && text.contains("\\u202e"), "{text}");
        let value: Value = serde_json::from_str(&text).unwrap();
        let hold = if value.is_array() { &value[0] } else { &value };
        assert_eq!(hold["arguments"], arguments);
    }
}

#[test]
fn a_verdict_needs_more_of_an_id_than_a_look() {
    let home = Home::new();
    let mut gate = gate(&home);
    gate.send(&call(2, "danger", &json!({})));
    let id = home.wait_for_holds(1).remove(0);
    for chars in 1..4 {
        for verdict in [&["approve", &id[..chars]][..], &["reject", &id[..chars], "--reason", "no"]] {
            let output = home.holdshort(verdict);
            assert_eq!(output.status.code(), Some(2), "{verdict:?}");
            let said = String::from_utf8(output.stderr).unwrap();
            assert!(said.contains("at least 4 characters"), "{said}");
        }
        assert!(home.holdshort(["show", &id[..chars]]).status.success());
    }
    assert_eq!(home.holds().len(), 1, "nothing was decided");
    assert!(home.holdshort(["approve", &id[..4]]).status.success());
}
