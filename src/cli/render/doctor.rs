//! What `holdshort doctor` prints.

use super::{json, line, sanitize, talk};
use crate::{
    cli::doctor::{Found, Report},
    view::counted,
};

/// Columns of what is at the beginning of a row.
const HEAD_COLUMNS: usize = 10;

/// The level with its reasons, then what was looked at.
pub(in crate::cli) fn report(report: &Report, as_json: bool) {
    if as_json {
        return json(report);
    }
    line(&format!("{:HEAD_COLUMNS$}{}, {}", "assurance", report.assurance, report.assurance.name()));
    for reason in &report.because {
        line(&format!("{:HEAD_COLUMNS$}{reason}", ""));
    }
    for check in &report.checks {
        let found = match check.found {
            Found::Ok => "ok",
            Found::Warning => "warning",
            Found::Problem => "PROBLEM",
        };
        line(&format!("{found:HEAD_COLUMNS$}{}: {}", check.what, sanitize::render(&check.text)));
    }
    let problems = report.checks.iter().filter(|check| check.found == Found::Problem).count();
    if problems > 0 {
        talk(&counted(problems, "problem"));
    }
}
