//! `holdshort policy`: what is wrong with a policy, and whether it decides as its cases say.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{PolicyCommand, render};
use crate::{
    exit::Exit,
    policy::{self, Policy},
};

/// What the name of a file of cases ends with.
const CASES_ENDING: &str = ".test.yaml";

pub(super) fn policy(command: &PolicyCommand) -> Exit {
    match command {
        PolicyCommand::Check { paths } => check(paths),
        PolicyCommand::Test { paths, cases } if cases.is_empty() => test_beside(paths),
        PolicyCommand::Test { paths, cases } => {
            test(cases.iter().map(|cases| (paths.clone(), cases.clone())).collect())
        }
    }
}

fn check(paths: &[PathBuf]) -> Exit {
    match Policy::load(paths) {
        Ok(policy) => {
            render::policy_warnings(&policy);
            render::policy_checked(&policy);
            Exit::Done
        }
        Err(errors) => render::policy_errors(&errors),
    }
}

/// Tests each policy with the cases beside it: `payments.yaml` with `payments.test.yaml`.
fn test_beside(paths: &[PathBuf]) -> Exit {
    let mut pairs = Vec::new();
    for path in paths {
        if path.is_dir() {
            let entries = fs::read_dir(path).into_iter().flatten().filter_map(Result::ok);
            let mut cases: Vec<_> = entries.map(|entry| entry.path()).filter(|path| is_cases(path)).collect();
            cases.sort();
            pairs.extend(cases.into_iter().map(|cases| (vec![tested_by(&cases)], cases)));
        } else {
            let cases = path.with_extension(CASES_ENDING.trim_start_matches('.'));
            if cases.exists() {
                pairs.push((vec![path.clone()], cases));
            }
        }
    }
    if pairs.is_empty() {
        render::talk("there is no *.test.yaml beside these policies\nhint: name one with --cases");
        return Exit::Usage;
    }
    test(pairs)
}

fn is_cases(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().ends_with(CASES_ENDING))
}

/// The policy that the cases in `cases` are about.
fn tested_by(cases: &Path) -> PathBuf {
    let name = cases.file_name().unwrap_or_default().to_string_lossy();
    cases.with_file_name(format!("{}.yaml", name.trim_end_matches(CASES_ENDING)))
}

fn test(pairs: Vec<(Vec<PathBuf>, PathBuf)>) -> Exit {
    let mut exit = Exit::Done;
    for (policies, cases) in pairs {
        match policy::run_tests(&policies, &cases) {
            Ok(report) => {
                render::policy_tested(&report);
                if !report.passed() {
                    exit = Exit::Failed;
                }
            }
            Err(errors) => return render::policy_errors(&errors),
        }
    }
    exit
}
