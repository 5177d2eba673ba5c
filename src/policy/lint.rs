//! What the CEL parser lets through and a gate must not: unknown names, fields of a text, broken patterns, endless loops.
//!
//! Called by `condition` when a policy is loaded. CEL has no type checker here, so a mistyped `arg.amount` would compile and
//! fail on every call. Works on the syntax tree alone; never evaluates anything with a call's data.

use std::{
    ops::Range,
    sync::{Arc, LazyLock},
};

use cel::{
    Context, Env, IdedExpr, ParseErrors, Program,
    common::ast::{EntryExpr, Expr, LiteralValue, SourceInfo, operators},
};

use super::{
    arguments::Number,
    diagnostic::{Severity, did_you_mean},
    functions,
};

/// How deep loops (`exists`, `all`, `map`, `filter`, `exists_one`) may nest.
pub(super) const LOOPS_NESTED_MAX: u32 = 2;

/// What a condition can name.
pub(super) const VARIABLES: [&str; 8] =
    ["args", "annotations", "tool", "server", "client", "principal", "method", "now"];

/// Those of them that have fields.
pub(super) const WITH_FIELDS: [&str; 2] = ["args", "annotations"];

/// What `annotations` can have (MCP, "Tool annotations").
pub(super) const HINTS: [&str; 4] = ["readOnlyHint", "destructiveHint", "idempotentHint", "openWorldHint"];

/// The types, for `type(args.x) == int`.
const TYPES: [&str; 10] =
    ["bool", "bytes", "double", "int", "list", "map", "null_type", "string", "type", "uint"];

/// Functions that are called alone, and macros that the parser expands.
const FUNCTIONS: [&str; 10] =
    ["size", "int", "uint", "double", "string", "bool", "type", "matches", "has", functions::DECIMAL];

/// Functions that are called on a value, and macros that the parser expands.
const METHODS: [&str; 17] = [
    "contains",
    "startsWith",
    "endsWith",
    "matches",
    "size",
    "exists",
    "all",
    "exists_one",
    "map",
    "filter",
    "glob",
    "host",
    "emailDomain",
    "within",
    "inCidr",
    "underPath",
    "during",
];

/// Something about a condition; the span is in bytes of the expression.
#[derive(Clone, Debug)]
pub(super) struct Finding {
    pub(super) code: &'static str,
    pub(super) severity: Severity,
    pub(super) message: String,
    pub(super) hint: Option<String>,
    pub(super) span: Range<usize>,
}

impl Finding {
    pub(super) fn error(code: &'static str, span: Range<usize>, message: impl Into<String>) -> Self {
        Self { code, severity: Severity::Error, message: message.into(), hint: None, span }
    }

    fn hint(self, hint: impl Into<Option<String>>) -> Self {
        Self { hint: hint.into(), ..self }
    }

    pub(super) fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

/// The parser's errors in words.
pub(super) fn syntax(text: &str, errors: &ParseErrors) -> Vec<Finding> {
    let mut findings = Vec::new();
    for error in &errors.errors {
        let (line, column) = error.pos;
        let line_at = usize::try_from(line - 1).unwrap_or(0);
        let column_at = usize::try_from(column - 1).unwrap_or(0);
        let start: usize = text.split_inclusive('\n').take(line_at).map(str::len).sum();
        let at = text[start..].char_indices().nth(column_at).map_or(text.len(), |(at, _)| start + at);
        let rest = &text[at..];
        let before = text[..at].trim_end();
        let word = |list: &[&str]| list.iter().any(|word| rest.starts_with(word) || before.ends_with(word));
        let single =
            (rest.starts_with('=') && !rest.starts_with("==") && !before.ends_with(['=', '!', '<', '>']))
                .then(|| ("`=` is not an operator".to_owned(), "did you mean `==`?"));
        let (message, hint) = if let Some((message, hint)) = single {
            (message, Some(hint.to_owned()))
        } else if rest.trim().is_empty() {
            ("something is missing at its end".to_owned(), None)
        } else if word(&["and", "or", "not"]) {
            ("not understood".to_owned(), Some("write `&&`, `||` and `!`".to_owned()))
        } else {
            // What the parser would have taken instead is a list of its tokens, which helps nobody.
            let told = error.msg.lines().next().unwrap_or_default().trim_start_matches("Syntax error: ");
            (told.split(" expecting ").next().unwrap_or(told).to_owned(), None)
        };
        let end = at + rest.chars().next().map_or(0, char::len_utf8);
        let finding = Finding::error("P0103", at..end, format!("the condition is not valid CEL: {message}"));
        findings.push(finding.hint(hint));
        // What follows is mostly about the same mistake.
        if findings.len() == 1 {
            break;
        }
    }
    if findings.is_empty() {
        findings.push(Finding::error("P0103", 0..text.len(), "the condition is not valid CEL"));
    }
    findings
}

/// How deep the tree is: the steps that an evaluation takes into itself.
pub(super) fn depth(node: &IdedExpr) -> u32 {
    let below = match &node.expr {
        Expr::Select(select) => depth(&select.operand),
        Expr::Call(call) => {
            call.target.as_deref().into_iter().chain(&call.args).map(depth).max().unwrap_or(0)
        }
        Expr::List(list) => list.elements.iter().map(depth).max().unwrap_or(0),
        Expr::Map(map) => {
            let entries = map.entries.iter().filter_map(|entry| match &entry.expr {
                EntryExpr::MapEntry(entry) => Some(depth(&entry.key).max(depth(&entry.value))),
                EntryExpr::StructField(_) => None,
            });
            entries.max().unwrap_or(0)
        }
        Expr::Comprehension(comprehension) => {
            let parts = [
                &comprehension.iter_range,
                &comprehension.loop_cond,
                &comprehension.loop_step,
                &comprehension.result,
            ];
            parts.into_iter().map(depth).max().unwrap_or(0)
        }
        Expr::Struct(_) | Expr::Ident(_) | Expr::Literal(_) | Expr::Unspecified => 0,
    };
    below + 1
}

/// What [`check`] found.
pub(super) struct Report {
    pub(super) findings: Vec<Finding>,
    /// How deep the loops nest.
    pub(super) loops: u32,
    /// Whether it asks what the server says of the tool.
    pub(super) reads_annotations: bool,
}

/// Looks through a parsed condition.
pub(super) fn check(text: &str, expression: &IdedExpr, info: &SourceInfo) -> Report {
    let mut lint = Lint {
        text,
        info,
        findings: Vec::new(),
        scope: Vec::new(),
        loops: 0,
        deepest: 0,
        reads_annotations: false,
    };
    lint.walk(expression);
    lint.yields_bool(expression);
    lint.guards(expression);
    Report { findings: lint.findings, loops: lint.deepest, reads_annotations: lint.reads_annotations }
}

struct Lint<'a> {
    text: &'a str,
    info: &'a SourceInfo,
    findings: Vec<Finding>,
    /// Variables of the loops around.
    scope: Vec<&'a str>,
    loops: u32,
    deepest: u32,
    reads_annotations: bool,
}

impl<'a> Lint<'a> {
    /// Where a node was written.
    fn span(&self, node: &IdedExpr) -> Range<usize> {
        match self.info.offset_for(node.id) {
            Some((start, stop)) => {
                let start = self.text.floor_char_boundary(usize::try_from(start).unwrap_or(0));
                let stop = usize::try_from(stop).unwrap_or(start).saturating_add(1);
                start..self.text.ceil_char_boundary(stop.clamp(start, self.text.len()))
            }
            None => 0..self.text.len(),
        }
    }

    /// Where the name of a called function was written: the tree only knows its parenthesis.
    fn called(&self, node: &IdedExpr, name: &str) -> Range<usize> {
        let span = self.span(node);
        let before = self.text[..span.start].trim_end();
        if before.ends_with(name) { before.len() - name.len()..before.len() } else { span }
    }

    fn error(&mut self, code: &'static str, node: &IdedExpr, message: String, hint: Option<String>) {
        let finding = Finding::error(code, self.span(node), message).hint(hint);
        self.findings.push(finding);
    }

    fn warn(&mut self, code: &'static str, node: &IdedExpr, message: String, hint: Option<String>) {
        let finding = Finding::error(code, self.span(node), message).hint(hint);
        self.findings.push(Finding { severity: Severity::Warning, ..finding });
    }

    fn walk(&mut self, node: &'a IdedExpr) {
        match &node.expr {
            Expr::Ident(name) => self.name(node, name),
            Expr::Literal(literal) => self.literal(node, literal),
            Expr::Select(select) => {
                if let Expr::Ident(name) = &select.operand.expr
                    && !self.scope.contains(&name.as_str())
                {
                    let name = name.as_str();
                    if name == "annotations" && !HINTS.contains(&select.field.as_str()) {
                        let message = format!("`annotations` has no `{}`", select.field);
                        let hint = did_you_mean(&select.field, HINTS).map_or_else(
                            || format!("known are {}", HINTS.join(", ")),
                            |known| format!("did you mean `{known}`?"),
                        );
                        self.error("P0106", node, message, Some(hint));
                    } else if VARIABLES.contains(&name) && name != "now" && !WITH_FIELDS.contains(&name) {
                        let message = format!("`{name}` is a text, it has no `{}`", select.field);
                        self.error("P0106", node, message, Some("compare the text itself".to_owned()));
                    }
                }
                if matches!(&select.operand.expr, Expr::Literal(_)) {
                    let message = format!("a literal has no field `{}`", select.field);
                    self.error("P0106", node, message, None);
                }
                self.walk(&select.operand);
            }
            Expr::Call(call) => {
                self.call(node, call);
                let is_now = |part: &IdedExpr| matches!(&part.expr, Expr::Ident(name) if name == "now");
                let target =
                    call.target.as_deref().filter(|target| call.func_name != "during" || !is_now(target));
                target.into_iter().chain(&call.args).for_each(|part| self.walk(part));
            }
            Expr::List(list) => list.elements.iter().for_each(|part| self.walk(part)),
            Expr::Map(map) => {
                for entry in &map.entries {
                    if let EntryExpr::MapEntry(entry) = &entry.expr {
                        self.walk(&entry.key);
                        self.walk(&entry.value);
                    }
                }
            }
            Expr::Comprehension(comprehension) => {
                self.walk(&comprehension.iter_range);
                self.walk(&comprehension.accu_init);
                self.loops += 1;
                self.deepest = self.deepest.max(self.loops);
                if self.loops == LOOPS_NESTED_MAX + 1 {
                    let message = format!("loops nest at most {LOOPS_NESTED_MAX} deep in a condition");
                    let hint = "split it into two rules: the strictest that matches wins".to_owned();
                    self.error("P0108", node, message, Some(hint));
                }
                let outer = self.scope.len();
                self.scope.extend([comprehension.iter_var.as_str(), comprehension.accu_var.as_str()]);
                self.scope.extend(comprehension.iter_var2.as_deref());
                if VARIABLES.contains(&comprehension.iter_var.as_str()) {
                    let message = format!("`{}` already has a meaning here", comprehension.iter_var);
                    self.error("P0104", node, message, Some("name the loop's variable otherwise".to_owned()));
                }
                self.walk(&comprehension.loop_cond);
                self.walk(&comprehension.loop_step);
                self.walk(&comprehension.result);
                self.scope.truncate(outer);
                self.loops -= 1;
            }
            Expr::Struct(_) | Expr::Unspecified => {
                self.error("P0105", node, "structs cannot be made in a condition".to_owned(), None);
            }
        }
    }

    fn name(&mut self, node: &IdedExpr, name: &str) {
        let plain = name.trim_start_matches('.');
        self.reads_annotations |= plain == "annotations";
        if plain == "now" && !self.scope.contains(&name) {
            let message = "`now` is only asked whether it is `during` some hours".to_owned();
            let hint = "write `now.during(\"mon-fri 09:00-17:30 Europe/Berlin\")`".to_owned();
            self.error("P0106", node, message, Some(hint));
            return;
        }
        if self.scope.contains(&name) || VARIABLES.contains(&plain) || TYPES.contains(&plain) {
            return;
        }
        let hint = did_you_mean(name, VARIABLES).map_or_else(
            || format!("known are {}; an argument is `args.{name}`", VARIABLES.join(", ")),
            |known| format!("did you mean `{known}`?"),
        );
        self.error("P0104", node, format!("nothing here is called `{name}`"), Some(hint));
    }

    fn call(&mut self, node: &IdedExpr, call: &cel::common::ast::CallExpr) {
        let name = call.func_name.as_str();
        let is_operator = name.starts_with(['_', '@', '!', '-']);
        if matches!(name, operators::OPT_INDEX | operators::OPT_SELECT) {
            let message = "optional values are not used in conditions".to_owned();
            self.error(
                "P0105",
                node,
                message,
                Some("a missing argument makes a rule hold by itself".to_owned()),
            );
            return;
        }
        if is_operator {
            return;
        }
        let known: &[&str] = if call.target.is_some() { &METHODS } else { &FUNCTIONS };
        let macros = ["has", "exists", "all", "exists_one", "map", "filter"];
        if macros.contains(&name) {
            self.error(
                "P0105",
                node,
                format!("`{name}` is not called like this"),
                Some(usage(name).to_owned()),
            );
        } else if !known.contains(&name) {
            let hint = did_you_mean(name, known.iter().copied())
                .map(|known| format!("did you mean `{known}`?"))
                .unwrap_or_else(|| format!("known are {}", known.join(", ")));
            let span = self.called(node, name);
            let message = format!("there is no function `{name}` here");
            self.findings.push(Finding::error("P0105", span, message).hint(hint));
        }
        if name == "matches" {
            self.pattern(node, call.args.last());
        } else if call.target.is_some() && functions::METHODS.contains(&name) {
            self.literal_argument(node, name, &call.args);
        }
    }

    fn pattern(&mut self, node: &IdedExpr, pattern: Option<&IdedExpr>) {
        let Some(pattern) = pattern else { return };
        let Expr::Literal(LiteralValue::String(text)) = &pattern.expr else {
            let message = "the pattern of `matches` must be written out".to_owned();
            let hint = "a pattern from the call itself would let the agent choose what it is judged by";
            self.error("P0107", node, message, Some(hint.to_owned()));
            return;
        };
        let text = text.inner();
        if let Err(told) = compiles(text) {
            self.error("P0107", pattern, format!("not a regular expression: {told}"), None);
        } else if !(text.starts_with('^') && text.ends_with('$')) {
            let message = "the pattern may match anywhere in the text".to_owned();
            self.warn("P0204", pattern, message, Some("begin it with `^` and end it with `$`".to_owned()));
        }
    }

    /// The argument of one of our own functions, or that there is none.
    fn literal_argument(&mut self, node: &IdedExpr, method: &str, arguments: &[IdedExpr]) {
        let takes_none = matches!(method, "host" | "emailDomain");
        match arguments {
            [] if takes_none => {}
            [argument] if !takes_none => {
                let Expr::Literal(LiteralValue::String(text)) = &argument.expr else {
                    let message = format!("what `{method}` compares with must be written out");
                    let hint = "a value from the call itself would let the agent choose what it is judged by";
                    self.error("P0112", node, message, Some(hint.to_owned()));
                    return;
                };
                if let Err(told) = functions::check_literal(method, text.inner()) {
                    self.error("P0112", argument, told, Some(usage(method).to_owned()));
                }
            }
            _ => {
                let message = format!("`{method}` is not called like this");
                self.error("P0112", node, message, Some(usage(method).to_owned()));
            }
        }
    }

    fn literal(&mut self, node: &IdedExpr, literal: &LiteralValue) {
        let LiteralValue::Double(value) = literal else { return };
        let written = self.text[self.span(node)].trim_start_matches('-');
        let exact = match Number::of(written) {
            Number::Int(value) => value.unsigned_abs() <= 1 << 53,
            Number::Double(_) => true,
            // A spelling that JSON does not have, such as `.5`.
            Number::Inexact => {
                written.starts_with('.') && Number::of(&format!("0{written}")) != Number::Inexact
            }
        };
        if !exact {
            let message = format!("`{written}` would be rounded to {:?}", value.inner());
            self.error("P0109", node, message, Some("write an integer, or a shorter fraction".to_owned()));
        }
    }

    /// The whole must be able to be true or false.
    fn yields_bool(&mut self, node: &IdedExpr) {
        let not = match &node.expr {
            Expr::Literal(LiteralValue::Boolean(_)) => {
                let message = "the condition is always the same".to_owned();
                self.warn(
                    "P0205",
                    node,
                    message,
                    Some("leave `when` out for a rule without condition".to_owned()),
                );
                return;
            }
            Expr::Literal(_) | Expr::List(_) | Expr::Map(_) => true,
            Expr::Ident(name) => VARIABLES.contains(&name.as_str()) || TYPES.contains(&name.as_str()),
            Expr::Call(call) => [
                operators::ADD,
                operators::SUBSTRACT,
                operators::MULTIPLY,
                operators::DIVIDE,
                operators::MODULO,
                operators::NEGATE,
                "size",
                "int",
                "uint",
                "double",
                "string",
                "type",
                "host",
                "emailDomain",
                functions::DECIMAL,
            ]
            .contains(&call.func_name.as_str()),
            _ => false,
        };
        if not {
            let message = "a condition must say true or false".to_owned();
            self.error("P0110", node, message, Some("compare it with something".to_owned()));
        }
    }

    /// `has(args.x) && args.x > 1`: without `x` the whole is false, so leaving `x` out would escape a hold.
    fn guards(&mut self, node: &IdedExpr) {
        if let Expr::Call(call) = &node.expr {
            if call.func_name == operators::LOGICAL_AND || call.func_name == operators::CONDITIONAL {
                let conjuncts = conjuncts(node);
                for (at, part) in conjuncts.iter().enumerate() {
                    let Expr::Select(select) = &part.expr else { continue };
                    let guarded = select.test.then(|| path(&select.operand)).flatten();
                    let Some(guarded) = guarded.map(|path| format!("{path}.{}", select.field)) else {
                        continue;
                    };
                    let used = conjuncts
                        .iter()
                        .enumerate()
                        .any(|(other, part)| other != at && reads(part, &guarded));
                    if used {
                        let message = format!("without `{guarded}` this condition is false");
                        let hint = format!(
                            "drop `has({guarded})`: a missing argument then makes a hold or deny rule match by itself"
                        );
                        self.warn("P0201", part, message, Some(hint));
                    }
                }
                return;
            }
            call.args.iter().for_each(|part| self.guards(part));
        }
    }
}

/// The parts of `a && b && c`; for `a ? b : c`, `a` and `b`.
fn conjuncts(node: &IdedExpr) -> Vec<&IdedExpr> {
    match &node.expr {
        Expr::Call(call) if call.func_name == operators::LOGICAL_AND => {
            call.args.iter().flat_map(conjuncts).collect()
        }
        Expr::Call(call) if call.func_name == operators::CONDITIONAL => call.args.iter().take(2).collect(),
        _ => vec![node],
    }
}

/// `args.a.b` as text.
fn path(node: &IdedExpr) -> Option<String> {
    match &node.expr {
        Expr::Ident(name) => Some(name.clone()),
        Expr::Select(select) if !select.test => Some(format!("{}.{}", path(&select.operand)?, select.field)),
        _ => None,
    }
}

/// Whether `wanted` or something below it is read in `node`.
fn reads(node: &IdedExpr, wanted: &str) -> bool {
    if path(node).is_some_and(|path| path == wanted) {
        return true;
    }
    match &node.expr {
        Expr::Select(select) => reads(&select.operand, wanted),
        Expr::Call(call) => {
            call.target.as_deref().into_iter().chain(&call.args).any(|part| reads(part, wanted))
        }
        Expr::List(list) => list.elements.iter().any(|part| reads(part, wanted)),
        Expr::Comprehension(comprehension) => {
            reads(&comprehension.iter_range, wanted) || reads(&comprehension.loop_step, wanted)
        }
        _ => false,
    }
}

/// Whether the evaluator's regular expressions take `pattern`; if not, why.
fn compiles(pattern: &str) -> Result<(), String> {
    static TRIAL: LazyLock<Option<Program>> = LazyLock::new(|| Program::compile("''.matches(pattern)").ok());
    static ENVIRONMENT: LazyLock<Arc<Env>> = LazyLock::new(|| Arc::new(Env::stdlib()));
    let program = TRIAL.as_ref().ok_or("it cannot be tried")?;
    let mut context = Context::with_env(Arc::clone(&ENVIRONMENT));
    context.add_variable_from_value("pattern", pattern);
    match program.execute(&context) {
        Ok(_) => Ok(()),
        Err(error) => {
            let told = error.to_string();
            let line = told.lines().rfind(|line| line.trim_start().starts_with("error:"));
            Err(line
                .map_or("it does not compile", |line| line.trim().trim_start_matches("error: "))
                .to_owned())
        }
    }
}

fn usage(name: &str) -> &'static str {
    match name {
        "has" => "it asks for a field: `has(args.note)`",
        "exists" => "on a list: `args.to.exists(x, x == \"a\")`; for a field there is `has(args.to)`",
        "glob" => "on a text, with `*` and `?`: `tool.glob(\"get_*\")`",
        "host" => "on a URL: `args.url.host() == \"example.com\"`",
        "emailDomain" => "on a mail address: `args.to.emailDomain() == \"example.com\"`",
        "within" => "on the name of a host: `args.url.host().within(\"example.com\")`",
        "inCidr" => "on an address: `args.ip.inCidr(\"10.0.0.0/8\")`",
        "underPath" => "on a path: `args.path.underPath(\"/srv/data\")`",
        "during" => "on `now`: `now.during(\"mon-fri 09:00-17:30 Europe/Berlin\")`",
        "map" => "on a list: `args.to.map(x, x + 1)`",
        _ => "on a list: `args.to.all(x, x.endsWith(\"@example.com\"))`",
    }
}
