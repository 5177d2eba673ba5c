//! The policies that come with the project: each has cases, all cases pass, every rule decides one of them. And what
//! `holdshort policy` says of policies.

use std::{
    path::{Path, PathBuf},
    process::Output,
};

use holdshort::policy::{Effect, Policy, convert_file, run_tests};
use serde_json::Value;

use crate::support::program::{Home, Wrapped};

fn policies() -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("policies");
    let mut files: Vec<PathBuf> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .filter(|path| !path.to_string_lossy().ends_with(".test.yaml"))
        .collect();
    files.sort();
    files
}

#[test]
fn every_policy_has_cases_that_pass_and_that_try_each_rule() {
    let policies = policies();
    assert!(policies.len() >= 5, "{policies:?}");
    for policy in policies {
        let cases = policy.with_extension("test.yaml");
        assert!(cases.is_file(), "{} has no cases beside it", policy.display());
        let report =
            run_tests(std::slice::from_ref(&policy), &cases).unwrap_or_else(|errors| panic!("{errors}"));
        for case in &report.cases {
            assert!(case.passed(), "{}:{}: {case:#?}", report.file, case.line);
        }
        assert_eq!(report.untested_rules, [""; 0], "rules that no case of {} reaches", report.file);
        let warnings: Vec<String> = report.warnings.iter().map(|warning| warning.render(false)).collect();
        assert_eq!(warnings, [""; 0], "{}", policy.display());
    }
}

#[test]
fn all_of_them_can_be_given_together() {
    let home = Home::new();
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("policies");
    let checked = home.holdshort(["policy", "check", directory.to_str().unwrap()]);
    assert_eq!(checked.status.code(), Some(0), "{}", stderr(&checked));
    // One of them holds every call, so that what others allow never decides: that is said, and nothing else.
    for warning in Policy::load(&[directory]).unwrap().warnings() {
        assert_eq!(warning.code(), "P0202", "{}", warning.render(false));
        assert!(warning.hint_text().unwrap().contains("`every-call`"), "{}", warning.render(false));
    }
    let others: Vec<PathBuf> =
        policies().into_iter().filter(|policy| !policy.ends_with("everything.yaml")).collect();
    let warnings: Vec<String> =
        Policy::load(&others).unwrap().warnings().iter().map(|warning| warning.render(false)).collect();
    assert_eq!(warnings, [""; 0]);
}

#[test]
fn no_case_file_is_without_its_policy() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("policies");
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if let Some(stem) = path.to_string_lossy().strip_suffix(".test.yaml") {
            assert!(Path::new(&format!("{stem}.yaml")).is_file(), "{}", path.display());
        }
    }
}

#[test]
fn a_policy_without_a_rule_for_a_tool_never_lets_it_run() {
    for policy in policies() {
        let policy = Policy::load(&[policy]).unwrap_or_else(|errors| panic!("{errors}"));
        assert_ne!(policy.default_effect(), Effect::Allow);
    }
}

// --- holdshort policy

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn explain_says_rule_by_rule_why_a_call_would_be_held() {
    let home = Home::new();
    let payments = Path::new(env!("CARGO_MANIFEST_DIR")).join("policies/payments.yaml");
    let explain = |more: &[&str]| {
        let mut arguments = vec!["policy", "explain", "--policy", payments.to_str().unwrap()];
        arguments.extend(["--server", "bank", "--tool", "send_refund"]);
        arguments.extend(more);
        home.holdshort(arguments)
    };
    let held = explain(&["--args", r#"{"amount": 60}"#]);
    assert_eq!(held.status.code(), Some(0), "{}", stderr(&held));
    let text = stdout(&held);
    assert!(text.contains("decision   hold by refund\n"), "{text}");
    assert!(text.contains("timeout    30m\n"), "{text}");
    let row = |rule: &str| text.lines().find(|line| line.contains(rule)).unwrap().to_owned();
    assert!(text.contains("\n =>  refund "), "{text}");
    assert!(row("small-refund").contains("its condition is false: args.amount > 0"), "{text}");
    assert!(row("invoices").contains("not about this tool, but: create_invoice, send_invoice"), "{text}");
    let json: Value = serde_json::from_slice(&explain(&["--json"]).stdout).unwrap();
    assert_eq!(json["effect"], "hold");
    assert_eq!(json["decided_by"], serde_json::json!(["refund"]));
    assert_eq!(json["rules"].as_array().unwrap().len(), 9);
    let broken = explain(&["--args", r#"{"amount": 60"#]);
    assert_eq!(broken.status.code(), Some(2));
    assert!(stderr(&broken).contains("1 | {\"amount\": 60\n  |             ^\n"), "{}", stderr(&broken));
}

fn fixtures() -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/policies");
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| !file.to_string_lossy().ends_with(".test.yaml"));
    files.sort();
    files
}

#[test]
fn policies_of_other_forms_decide_as_their_authors_say_and_so_do_their_native_ones() {
    let home = Home::new();
    let mut tried = 0;
    for file in fixtures() {
        let cases = file.with_extension("test.yaml");
        if !cases.is_file() {
            continue;
        }
        let converted = convert_file(&file).unwrap_or_else(|errors| panic!("{errors}"));
        for policy in [file, home.file("native.yaml", &converted.text)] {
            let report = run_tests(&[policy], &cases).unwrap_or_else(|errors| panic!("{errors}"));
            for case in &report.cases {
                assert!(case.passed(), "{}:{}: {case:#?}", report.file, case.line);
            }
            assert_eq!(report.untested_rules, [""; 0], "{}", report.file);
            tried += 1;
        }
    }
    assert!(tried >= 10, "{tried}");
}

#[test]
fn convert_prints_a_native_policy_that_loads() {
    let home = Home::new();
    let mut converted = 0;
    for file in fixtures() {
        let output = home.holdshort([std::ffi::OsStr::new("policy"), "convert".as_ref(), file.as_os_str()]);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        assert!(stdout(&output).starts_with("version: 1\n"), "{}", stdout(&output));
        let native = home.file("native.yaml", &stdout(&output));
        let checked = home.holdshort(["policy", "check", native.to_str().unwrap()]);
        assert_eq!(checked.status.code(), Some(0), "{}", stderr(&checked));
        converted += 1;
    }
    assert!(converted >= 6, "{converted}");
}

#[test]
fn schema_prints_a_json_schema() {
    let output = Home::new().holdshort(["policy", "schema"]);
    assert_eq!(output.status.code(), Some(0));
    let schema: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    assert_eq!(schema["additionalProperties"], false);
}

#[test]
fn diff_fails_where_something_becomes_wider_and_shows_the_cases() {
    let home = Home::new();
    let policy = |name: &str, limit: &str| {
        let text = format!(
            "version: 1\ndefault: allow\nrules:\n  - {{name: big, tool: pay, action: hold, when: args.amount > {limit}}}\n"
        );
        home.file(name, &text)
    };
    let (old, new) = (policy("old.yaml", "100"), policy("new.yaml", "500"));
    let cases = home.file(
        "pay.test.yaml",
        "cases:\n  - {name: between, tool: pay, args: {amount: 200}, expect: hold}\n  - {name: above, tool: pay, args: {amount: 900}, expect: hold}\n",
    );
    let diff = |from: &Path, to: &Path, more: &[&str]| {
        let mut arguments = vec!["policy", "diff", from.to_str().unwrap(), to.to_str().unwrap()];
        arguments.extend(["--cases", cases.to_str().unwrap()]);
        arguments.extend(more);
        home.holdshort(arguments)
    };
    let wider = diff(&old, &new, &[]);
    assert_eq!(wider.status.code(), Some(1), "{}", stderr(&wider));
    assert_eq!(
        stdout(&wider),
        "wider     big: its condition was `args.amount > 100` and is `args.amount > 500`\n\
         wider     case between (server.pay): was hold and is allow\n"
    );
    let stricter = diff(&new, &old, &["--json"]);
    assert_eq!(stricter.status.code(), Some(0), "{}", stdout(&stricter));
    let json: Value = serde_json::from_slice(&stricter.stdout).unwrap();
    assert_eq!(json["changes"][0]["direction"], "stricter");
    assert_eq!(json["cases"][0]["after"], "hold");
    assert_eq!(diff(&old, &old, &[]).status.code(), Some(0));
    assert_eq!(diff(&old, Path::new("missing.yaml"), &[]).status.code(), Some(2));
}

#[test]
fn a_policy_is_learned_from_what_the_mode_audit_has_recorded() {
    let home = Home::new();
    let audit = home
        .file("audit.yaml", "version: 1\nmode: audit\nrules:\n  - {name: never, tool: wipe, action: deny}\n");
    let answering = r#"while read -r line; do id=${line#*\"id\":}; id=${id%%,*}; echo "{\"jsonrpc\":\"2.0\",\"id\":$id,\"result\":{\"ran\":true}}"; done"#;
    let mut command = home.command();
    command.args(["run", "--server", "billing", "--policy"]).arg(&audit).args(["--", "sh", "-c", answering]);
    let mut gate = Wrapped::start(command);
    for (id, tool) in [(1, "get_order"), (2, "send_refund"), (3, "wipe")] {
        let call = format!(
            r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"{tool}","arguments":{{"amount":5}}}}}}"#
        );
        assert_eq!(gate.ask(&call)["result"]["ran"], true, "{tool} runs");
    }
    gate.close();
    gate.ends();
    let learned = home.holdshort(["policy", "learn"]);
    assert_eq!(learned.status.code(), Some(0), "{}", stderr(&learned));
    let proposed = home.file("proposed.yaml", &stdout(&learned));
    let tried = home.holdshort(["policy", "learn", "--json", "--policy", proposed.to_str().unwrap()]);
    let effects: Vec<String> = stdout(&tried)
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap())
        .map(|call| format!("{} {}", call["subject"].as_str().unwrap(), call["effect"].as_str().unwrap()))
        .collect();
    assert_eq!(effects, ["billing.get_order allow", "billing.send_refund hold", "billing.wipe hold"]);
    let exported = stdout(&home.holdshort(["audit", "export"]));
    let denied =
        exported.lines().find(|line| line.contains("\"kind\":\"would_have\"") && line.contains("wipe"));
    assert!(denied.unwrap().contains("it would have been denied"), "{exported}");
    home.verify();
}
