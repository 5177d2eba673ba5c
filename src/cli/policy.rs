//! `holdshort policy`: what is wrong with a policy, and whether it decides as its cases say.

use std::path::{Path, PathBuf};

use super::{PolicyCommand, render};
use crate::{
    exit::Exit,
    policy::{self, Policy},
};

pub(super) fn policy(command: &PolicyCommand) -> Exit {
    match command {
        PolicyCommand::Check { paths } => check(paths),
        PolicyCommand::Test { paths, cases } => test(paths, cases),
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

fn test(paths: &[PathBuf], cases: &[PathBuf]) -> Exit {
    let cases = if cases.is_empty() { policy::test_files_beside(paths) } else { cases.to_vec() };
    if cases.is_empty() {
        render::talk("there is no *.test.yaml beside these policies; name one with --cases");
        return Exit::Usage;
    }
    let mut exit = Exit::Done;
    for file in &cases {
        match policy::run_tests(paths, Path::new(file)) {
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
