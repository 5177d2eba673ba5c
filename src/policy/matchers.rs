//! The map form of a condition, `{args.amount: {gt: 1000}}`, as the CEL expression that it stands for.
//!
//! The only file that knows the operators' names. Called by `document`; what it makes is compiled like any other condition,
//! so both forms judge alike.

use std::sync::Arc;

use super::{
    arguments::Number,
    diagnostic::{Diagnostic, Source, did_you_mean},
    functions,
    lint::{HINTS, VARIABLES, WITH_FIELDS},
    yaml::{Node, Value},
};

/// The operators, as they are written; two have a second spelling.
pub(super) const OPERATORS: [&str; 21] = [
    "gt",
    "gte",
    "lt",
    "lte",
    "eq",
    "ne",
    "in",
    "not",
    "starts_with",
    "ends_with",
    "contains",
    "matches",
    "exists",
    "glob",
    "under_path",
    "in_cidr",
    "host_within",
    "email_within",
    "during",
    "startsWith",
    "endsWith",
];

/// How deep `not` may nest.
const NOT_NESTED_MAX: u32 = 4;

/// The expression for `when`, or nothing if `problems` got something.
pub(super) fn translate(when: &Node, source: &Arc<Source>, problems: &mut Vec<Diagnostic>) -> Option<String> {
    let before = problems.len();
    let mut translator = Translator { source, problems };
    let Value::Map(entries) = &when.value else { return None };
    if entries.is_empty() {
        let message = "the condition is empty";
        translator.fail("P0101", when, message, "leave `when` out for a rule without condition");
    }
    let mut parts = Vec::new();
    for (key, tests) in entries {
        let Value::Text(name) = &key.value else { continue };
        if let Some(path) = translator.path(key, name) {
            parts.extend(translator.tests(&path, tests, 0));
        }
    }
    (problems.len() == before).then(|| parts.join(" && "))
}

/// A path in both spellings: as CEL reads it, and its last step alone for `has`.
struct Path {
    cel: String,
    /// Whether `has(…)` can be asked of it: only of a field of something.
    field: bool,
}

struct Translator<'a> {
    source: &'a Arc<Source>,
    problems: &'a mut Vec<Diagnostic>,
}

impl Translator<'_> {
    fn fail(&mut self, code: &'static str, node: &Node, message: impl Into<String>, hint: impl Into<String>) {
        let found = Diagnostic::error(code, self.source, node.span.clone(), message);
        self.problems.push(found.hint(hint.into()));
    }

    fn path(&mut self, key: &Node, name: &str) -> Option<Path> {
        let mut steps = name.split('.');
        let root = steps.next().unwrap_or_default();
        if !VARIABLES.contains(&root) {
            let hint = match did_you_mean(root, VARIABLES) {
                Some(known) => format!("did you mean `{}`?", name.replacen(root, known, 1)),
                None => format!("an argument is written `args.{name}`"),
            };
            self.fail("P0102", key, format!("nothing here is called `{root}`"), hint);
            return None;
        }
        let mut cel = root.to_owned();
        let mut field = false;
        for step in steps {
            let known = root != "annotations" || HINTS.contains(&step);
            if !WITH_FIELDS.contains(&root) || !known {
                let hint = format!("only `args` has parts, and `annotations` has {}", HINTS.join(", "));
                self.fail("P0102", key, format!("`{root}` has no `{step}`"), hint);
                return None;
            }
            if step.is_empty() {
                self.fail("P0102", key, "a step of the path is empty", "write `args.customer.id`");
                return None;
            }
            let plain = step.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
                && !step.as_bytes()[0].is_ascii_digit()
                && !RESERVED.contains(&step);
            // `args["user-id"]` for a name that CEL cannot write as a field.
            cel.push_str(&if plain { format!(".{step}") } else { format!("[{}]", quote(step)) });
            field = plain;
        }
        if WITH_FIELDS.contains(&cel.as_str()) {
            let message = format!("`{root}` alone is not compared");
            self.fail("P0102", key, message, "name a part of it, such as `args.amount`");
            return None;
        }
        Some(Path { cel, field })
    }

    /// All tests of one path.
    fn tests(&mut self, path: &Path, tests: &Node, depth: u32) -> Vec<String> {
        let Value::Map(entries) = &tests.value else {
            let message = format!("`{}` needs an operator, not {}", path.cel, tests.value.kind());
            self.fail("P0101", tests, message, "write for example `{eq: …}`, `{gt: 100}` or `{in: [a, b]}`");
            return Vec::new();
        };
        if entries.is_empty() {
            self.fail("P0101", tests, format!("`{}` has no test", path.cel), "write for example `{gt: 100}`");
        }
        let mut parts = Vec::new();
        for (key, value) in entries {
            if let Value::Text(name) = &key.value {
                parts.extend(self.test(path, key, name, value, depth));
            }
        }
        parts
    }

    fn test(&mut self, path: &Path, key: &Node, name: &str, value: &Node, depth: u32) -> Option<String> {
        let cel = &path.cel;
        let compare = |operator: &str, literal: String| Some(format!("{cel} {operator} {literal}"));
        let method = |method: &str, literal: String| Some(format!("{cel}.{method}({literal})"));
        match name {
            "gt" => compare(">", self.number(value, name)?),
            "gte" => compare(">=", self.number(value, name)?),
            "lt" => compare("<", self.number(value, name)?),
            "lte" => compare("<=", self.number(value, name)?),
            "eq" => compare("==", self.scalar(value, name)?),
            "ne" => compare("!=", self.scalar(value, name)?),
            "in" => {
                let Value::List(items) = &value.value else {
                    self.fail("P0101", value, "`in` needs a list", "write `in: [a, b]`");
                    return None;
                };
                if items.is_empty() {
                    self.fail("P0101", value, "`in` of an empty list is never true", "write `in: [a, b]`");
                    return None;
                }
                let items: Option<Vec<String>> = items.iter().map(|item| self.scalar(item, name)).collect();
                compare("in", format!("[{}]", items?.join(", ")))
            }
            "starts_with" | "startsWith" => method("startsWith", self.text(value, name)?),
            "ends_with" | "endsWith" => method("endsWith", self.text(value, name)?),
            "contains" => method("contains", self.text(value, name)?),
            "matches" => method("matches", self.text(value, name)?),
            "glob" => method("glob", self.checked(value, name, "glob")?),
            "under_path" => method("underPath", self.checked(value, name, "underPath")?),
            "in_cidr" => method("inCidr", self.checked(value, name, "inCidr")?),
            "host_within" => method("host().within", self.checked(value, name, "within")?),
            "email_within" => method("emailDomain().within", self.checked(value, name, "within")?),
            "during" => method("during", self.checked(value, name, "during")?),
            "exists" => self.exists(path, value),
            "not" => self.negated(path, key, value, depth),
            _ => {
                let hint = did_you_mean(name, OPERATORS).map_or_else(
                    || format!("known are {}", OPERATORS.join(", ")),
                    |known| format!("did you mean `{known}`?"),
                );
                self.fail("P0101", key, format!("there is no operator `{name}`"), hint);
                None
            }
        }
    }

    fn exists(&mut self, path: &Path, value: &Node) -> Option<String> {
        let Value::Bool(wanted) = value.value else {
            self.fail("P0101", value, "`exists` is true or false", "write `exists: true`");
            return None;
        };
        let not = if wanted { "" } else { "!" };
        match path.cel.rsplit_once("[\"") {
            _ if path.field => Some(format!("{not}has({})", path.cel)),
            // `has` takes fields only; a key with other characters is looked for with `in`.
            Some((map, key)) => Some(format!("{not}(\"{} in {map})", key.trim_end_matches(']'))),
            None => {
                self.fail("P0101", value, format!("`{}` always exists", path.cel), "ask for an argument");
                None
            }
        }
    }

    fn negated(&mut self, path: &Path, key: &Node, value: &Node, depth: u32) -> Option<String> {
        if depth == NOT_NESTED_MAX {
            self.fail("P0101", key, "`not` is nested too deep", "take pairs of `not` away");
            return None;
        }
        match &value.value {
            Value::Map(_) => {
                let parts = self.tests(path, value, depth + 1);
                (!parts.is_empty()).then(|| format!("!({})", parts.join(" && ")))
            }
            Value::List(_) => Some(format!("!({})", self.test(path, key, "in", value, depth)?)),
            _ => Some(format!("{} != {}", path.cel, self.scalar(value, "not")?)),
        }
    }

    fn number(&mut self, value: &Node, operator: &str) -> Option<String> {
        let Value::Number(text) = &value.value else {
            let message = format!("`{operator}` compares with a number, not {}", value.value.kind());
            self.fail("P0101", value, message, "write the number without quotes");
            return None;
        };
        match Number::of(text) {
            Number::Int(number) => Some(number.to_string()),
            // `{:?}` keeps a point or an exponent, so that CEL reads it as a fraction too.
            Number::Double(number) => Some(format!("{number:?}")),
            Number::Inexact => {
                let message = format!("`{text}` cannot be compared without rounding");
                self.fail(
                    "P0109",
                    value,
                    message,
                    "write an integer of at most 64 bits, or a shorter fraction",
                );
                None
            }
        }
    }

    fn text(&mut self, value: &Node, operator: &str) -> Option<String> {
        let Value::Text(text) = &value.value else {
            let message = format!("`{operator}` needs text, not {}", value.value.kind());
            self.fail("P0101", value, message, "quote it");
            return None;
        };
        if text.is_empty() {
            self.fail(
                "P0101",
                value,
                format!("`{operator}` with an empty text is always true"),
                "name a text",
            );
            return None;
        }
        Some(quote(text))
    }

    /// A text that `function` can compare with.
    fn checked(&mut self, value: &Node, operator: &str, function: &str) -> Option<String> {
        let literal = self.text(value, operator)?;
        let Value::Text(text) = &value.value else { return None };
        match functions::check_literal(function, text) {
            Ok(()) => Some(literal),
            Err(told) => {
                self.fail("P0112", value, format!("`{operator}`: {told}"), "");
                None
            }
        }
    }

    fn scalar(&mut self, value: &Node, operator: &str) -> Option<String> {
        match &value.value {
            Value::Null => Some("null".to_owned()),
            Value::Bool(value) => Some(value.to_string()),
            Value::Number(_) => self.number(value, operator),
            Value::Text(text) => Some(quote(text)),
            Value::List(_) | Value::Map(_) => {
                let message = format!("`{operator}` compares with one value, not {}", value.value.kind());
                let hint = if operator == "eq" || operator == "ne" {
                    "for one of several there is `in`"
                } else {
                    "name texts or numbers"
                };
                self.fail("P0101", value, message, hint);
                None
            }
        }
    }
}

/// Words that CEL does not take as a field's name (language definition, "Syntax").
const RESERVED: [&str; 23] = [
    "as",
    "break",
    "const",
    "continue",
    "else",
    "false",
    "for",
    "function",
    "if",
    "import",
    "in",
    "let",
    "loop",
    "namespace",
    "null",
    "package",
    "return",
    "true",
    "var",
    "void",
    "while",
    "size",
    "has",
];

/// A CEL text literal.
fn quote(text: &str) -> String {
    let mut literal = String::with_capacity(text.len() + 2);
    literal.push('"');
    for letter in text.chars() {
        match letter {
            '"' | '\\' => literal.extend(['\\', letter]),
            letter if letter.is_control() => literal.push_str(&format!("\\u{:04x}", u32::from(letter))),
            letter => literal.push(letter),
        }
    }
    literal.push('"');
    literal
}
