//! The policies that come with the project: each has cases, all cases pass, every rule decides one of them.

use std::path::{Path, PathBuf};

use holdshort::policy::{Effect, Policy, run_tests};

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
