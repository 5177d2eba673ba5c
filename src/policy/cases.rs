//! Test cases for policies: `*.test.yaml` beside a policy, run by `holdshort policy test`.
//!
//! A case is a call and what the policy must say of it. The result is data; the command line makes a table of it.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use jiff::Timestamp;

use crate::mcp::Annotations;

use super::{
    Call, Effect, Policy,
    diagnostic::{Diagnostic, PolicyErrors, Source},
    document::{NAME_CHARS_MAX, Reader},
    files,
    lint::HINTS,
    yaml::{self, Node, Value},
};

const FILE_KEYS: [&str; 1] = ["cases"];
const CASE_KEYS: [&str; 11] = [
    "name",
    "server",
    "tool",
    "method",
    "args",
    "client",
    "principal",
    "at",
    "annotations",
    "expect",
    "rules",
];

/// What became of one case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaseOutcome {
    /// The case's name.
    pub name: String,
    /// The line (from 1) where it is written.
    pub line: usize,
    /// `server.tool`, or the method.
    pub subject: String,
    /// What was expected.
    pub expected: Effect,
    /// What the policy said.
    pub actual: Effect,
    /// The rules that were expected to decide, if the case says.
    pub expected_rules: Option<Vec<String>>,
    /// The rules that decided.
    pub actual_rules: Vec<String>,
    /// The reason the policy gave.
    pub reason: String,
    /// Conditions that had no answer.
    pub notes: Vec<String>,
}

impl CaseOutcome {
    /// Whether the policy said what was expected.
    pub fn passed(&self) -> bool {
        let rules = |expected: &Vec<String>| {
            let (mut expected, mut actual) = (expected.clone(), self.actual_rules.clone());
            expected.sort();
            actual.sort();
            expected == actual
        };
        self.expected == self.actual && self.expected_rules.as_ref().is_none_or(rules)
    }
}

/// What became of a file of cases.
#[derive(Clone, Debug)]
pub struct Report {
    /// The file.
    pub file: String,
    /// The cases in the order of the file, at least one.
    pub cases: Vec<CaseOutcome>,
    /// Rules of the policy that decided none of the cases.
    pub untested_rules: Vec<String>,
    /// The policy's warnings.
    pub warnings: Vec<Diagnostic>,
}

impl Report {
    /// Whether all cases passed.
    pub fn passed(&self) -> bool {
        self.cases.iter().all(CaseOutcome::passed)
    }

    /// How many cases did not pass.
    pub fn failures(&self) -> usize {
        self.cases.iter().filter(|case| !case.passed()).count()
    }
}

/// Runs the cases in `test_file` against the policy in `policy_paths`.
///
/// # Errors
/// If the policy or the cases cannot be read. A case that does not pass is no error.
pub fn run_tests(policy_paths: &[PathBuf], test_file: &Path) -> Result<Report, PolicyErrors> {
    run_file(&Policy::load(policy_paths)?, test_file)
}

/// Runs the cases in `test_file` against `policy`.
pub(super) fn run_file(policy: &Policy, test_file: &Path) -> Result<Report, PolicyErrors> {
    let source = files::read_one(test_file).map_err(|problem| PolicyErrors::new(vec![problem]))?;
    run(policy, source)
}

/// Runs the cases in `source` against `policy`.
pub(super) fn run(policy: &Policy, source: Source) -> Result<Report, PolicyErrors> {
    let source = Arc::new(source);
    let mut problems = Vec::new();
    let cases = read(&source, &mut problems);
    if !problems.is_empty() {
        return Err(PolicyErrors::new(problems));
    }
    let cases: Vec<CaseOutcome> = cases.into_iter().map(|case| case.judge(policy)).collect();
    let tested = |name: &str| cases.iter().any(|case| case.actual_rules.iter().any(|rule| rule == name));
    let untested_rules =
        policy.rules().iter().map(|rule| rule.name().to_owned()).filter(|name| !tested(name)).collect();
    Ok(Report { file: source.name.clone(), cases, untested_rules, warnings: policy.warnings().to_vec() })
}

struct Case {
    name: String,
    line: usize,
    server: String,
    method: String,
    tool: Option<String>,
    arguments: String,
    client: String,
    principal: String,
    now: Timestamp,
    annotations: Annotations,
    expect: Effect,
    rules: Option<Vec<String>>,
}

impl Case {
    fn judge(self, policy: &Policy) -> CaseOutcome {
        let decision = policy.decide(&Call {
            server: &self.server,
            method: &self.method,
            tool: self.tool.as_deref(),
            arguments: &self.arguments,
            client: &self.client,
            principal: &self.principal,
            annotations: self.annotations,
            now: self.now,
        });
        CaseOutcome {
            name: self.name,
            line: self.line,
            subject: self.tool.map_or(self.method, |tool| format!("{}.{tool}", self.server)),
            expected: self.expect,
            // Where everything runs, the case is about what the rules say.
            actual: decision.would_have.unwrap_or(decision.effect),
            expected_rules: self.rules,
            actual_rules: decision.rules.iter().map(|rule| rule.to_string()).collect(),
            reason: decision.reason.to_string(),
            notes: decision.notes,
        }
    }
}

fn read(source: &Arc<Source>, problems: &mut Vec<Diagnostic>) -> Vec<Case> {
    let before = problems.len();
    let Some(root) = yaml::read(source, problems) else {
        if problems.len() == before {
            problems.push(Diagnostic::error("P0301", source, 0..0, "the file has no cases in it"));
        }
        return Vec::new();
    };
    let mut reader = Reader { source, problems };
    let Some(mut keys) = reader.mapping(&root, "a file of cases", &FILE_KEYS) else { return Vec::new() };
    let items = match keys.take("cases") {
        Some(Node { value: Value::List(items), .. }) if !items.is_empty() => items,
        node => {
            let span = node.map_or(0..0, |node| node.span.clone());
            reader.fail(
                "P0301",
                span,
                "`cases` is a list of at least one case",
                "begin each case with `- name:`",
            );
            return Vec::new();
        }
    };
    items.iter().filter_map(|item| case(&mut reader, item)).collect()
}

fn case(reader: &mut Reader<'_>, node: &Node) -> Option<Case> {
    let mut keys = reader.mapping(node, "a case", &CASE_KEYS)?;
    let mut text = |reader: &mut Reader<'_>, key: &str| match keys.take(key) {
        Some(node) => reader.text(node, key).map(|text| Some(text.to_owned())),
        None => Some(None),
    };
    let server = text(reader, "server")?;
    let tool = text(reader, "tool")?;
    let method = text(reader, "method")?;
    let client = text(reader, "client")?;
    let principal = text(reader, "principal")?;
    let at_node = keys.take("at");
    let at = node.span.start..node.span.start;
    let Some(name) = keys.take("name") else {
        reader.fail(
            "P0011",
            at,
            "the case has no `name`",
            "say what it shows: `name: a large refund is held`",
        );
        return None;
    };
    let name = reader.line(name, "name", NAME_CHARS_MAX * 2)?;
    if tool.is_some() == method.is_some() {
        reader.fail("P0302", at, "a case is about a `tool` or a `method`", "name one of the two");
        return None;
    }
    let Some(expect) = keys.take("expect") else {
        reader.fail(
            "P0011",
            at,
            "the case does not say what to `expect`",
            "add `expect: allow`, `hold` or `deny`",
        );
        return None;
    };
    let expect = reader.effect(expect)?;
    let now = moment(reader, at_node)?;
    let annotations =
        keys.take("annotations").map_or_else(|| Some(Annotations::default()), |node| hints(reader, node))?;
    let rules = match keys.take("rules") {
        None => None,
        Some(Node { value: Value::List(items), .. }) => {
            let names: Option<Vec<String>> =
                items.iter().map(|item| reader.text(item, "rules").map(str::to_owned)).collect();
            Some(names?)
        }
        Some(node) => {
            reader.fail(
                "P0012",
                node.span.clone(),
                "`rules` is a list of rules' names",
                "write `rules: [a, b]`",
            );
            return None;
        }
    };
    let arguments = match keys.take("args") {
        None => "{}".to_owned(),
        Some(node @ Node { value: Value::Map(_), .. }) => json(node),
        // Arguments that YAML cannot say, such as a key that is there twice, are written as JSON text.
        Some(Node { value: Value::Text(text), .. }) => text.clone(),
        Some(node) => {
            reader.fail("P0012", node.span.clone(), "`args` is a mapping, or JSON in quotes", "");
            return None;
        }
    };
    let text = &reader.source.text;
    Some(Case {
        name,
        line: text[..text.floor_char_boundary(node.span.start)].matches('\n').count() + 1,
        server: server.unwrap_or_else(|| "server".to_owned()),
        method: method.unwrap_or_else(|| super::TOOLS_CALL.to_owned()),
        tool,
        arguments,
        client: client.unwrap_or_default(),
        principal: principal.unwrap_or_default(),
        now,
        annotations,
        expect,
        rules,
    })
}

/// When the case takes place; at midnight UTC on a Thursday if it does not say.
fn moment(reader: &mut Reader<'_>, node: Option<&Node>) -> Option<Timestamp> {
    let Some(node) = node else { return Some(Timestamp::UNIX_EPOCH) };
    let found = match &node.value {
        Value::Text(text) => text.parse().ok(),
        _ => None,
    };
    if found.is_none() {
        let hint = "write `at: 2026-11-23T10:00:00+01:00`";
        reader.fail("P0304", node.span.clone(), "`at` is a time with its offset from UTC", hint);
    }
    found
}

/// What the server says of the tool.
fn hints(reader: &mut Reader<'_>, node: &Node) -> Option<Annotations> {
    let mut keys = reader.mapping(node, "`annotations`", &HINTS)?;
    let mut annotations = Annotations::default();
    for hint in HINTS {
        if let Some(node) = keys.take(hint) {
            annotations.set(hint, reader.flag(node, hint)?);
        }
    }
    Some(annotations)
}

/// The value as JSON; numbers as they were written.
fn json(node: &Node) -> String {
    let quoted = |text: &str| serde_json::to_string(text).unwrap_or_default();
    match &node.value {
        Value::Null => "null".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Number(text) => text.clone(),
        Value::Text(text) => quoted(text),
        Value::List(items) => format!("[{}]", items.iter().map(json).collect::<Vec<_>>().join(",")),
        Value::Map(entries) => {
            let entries = entries.iter().map(|(key, value)| match &key.value {
                Value::Text(key) => format!("{}:{}", quoted(key), json(value)),
                _ => String::new(),
            });
            format!("{{{}}}", entries.collect::<Vec<_>>().join(","))
        }
    }
}
