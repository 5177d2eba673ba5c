//! A policy of any known form, written out in the native one.
//!
//! Called by `holdshort policy convert`. What it writes is read again before anyone sees it, so it always loads.

use std::{path::Path, sync::Arc};

use super::{
    Policy, condition,
    diagnostic::{Diagnostic, PolicyErrors, Source},
    dialect::{self, Form},
    files,
    yaml::{self, Node, Value},
};

/// How far a level is indented, in columns.
const INDENT: usize = 2;

/// A policy in the native form.
#[derive(Clone, Debug)]
pub struct Converted {
    /// The document: YAML, with a line feed at its end.
    pub text: String,
    /// Whether it was native before; then `text` is as it was.
    pub was_native: bool,
    /// What its author should know: where the native form means something else than they may expect.
    pub warnings: Vec<Diagnostic>,
}

/// Writes the policy in the file `path` in the native form; see [`convert`].
///
/// # Errors
/// If it cannot be read, or with everything that is wrong in it.
pub fn convert_file(path: &Path) -> Result<Converted, PolicyErrors> {
    convert(files::read_one(path).map_err(|problem| PolicyErrors::new(vec![problem]))?)
}

/// Writes the policy in `source` in the native form. It decides as the original does. Comments are lost, unless it is native
/// already.
///
/// # Errors
/// With everything that is wrong in `source`.
pub fn convert(source: Source) -> Result<Converted, PolicyErrors> {
    let policy = Policy::parse(vec![source.clone()])?;
    let warnings = policy.warnings().to_vec();
    let source = Arc::new(source);
    let mut problems = Vec::new();
    let read = || {
        let root = yaml::read(&source, &mut problems)?;
        dialect::to_native(root, &source, &mut problems)
    };
    let native = condition::on_compiler_stack(read).flatten();
    let Some((form, root)) = native else { return Err(PolicyErrors::new(problems)) };
    if form == Form::Native {
        return Ok(Converted { text: source.text.clone(), was_native: true, warnings });
    }
    let mut text = String::new();
    mapping(&root, 0, &mut text);
    let written = Source { name: format!("{} (converted)", source.name), text };
    Policy::parse(vec![written.clone()])?;
    Ok(Converted { text: written.text, was_native: false, warnings })
}

/// The entries of a mapping, each on its line.
fn mapping(node: &Node, indent: usize, out: &mut String) {
    let Value::Map(entries) = &node.value else { return };
    for (at, (key, value)) in entries.iter().enumerate() {
        if at > 0 {
            out.push_str(&" ".repeat(indent));
        }
        let Value::Text(key) = &key.value else { continue };
        out.push_str(&word(key, false));
        out.push(':');
        match &value.value {
            Value::Map(inner) if !inner.is_empty() => {
                out.push('\n');
                out.push_str(&" ".repeat(indent + INDENT));
                mapping(value, indent + INDENT, out);
            }
            Value::List(items) if items.iter().any(|item| matches!(item.value, Value::Map(_))) => {
                for item in items {
                    // An empty line between rules.
                    out.push_str(if out.ends_with(':') { "\n" } else { "\n\n" });
                    out.push_str(&format!("{}- ", " ".repeat(indent + INDENT)));
                    mapping(item, indent + 2 * INDENT, out);
                    out.truncate(out.trim_end().len());
                }
                out.push('\n');
            }
            _ => {
                out.push(' ');
                flow(value, false, out);
                out.push('\n');
            }
        }
    }
}

/// A value on one line.
fn flow(node: &Node, inside: bool, out: &mut String) {
    match &node.value {
        Value::Null => out.push_str("null"),
        Value::Bool(value) => out.push_str(&value.to_string()),
        Value::Number(number) => out.push_str(number),
        Value::Text(text) => out.push_str(&word(text, inside)),
        Value::List(items) => {
            out.push('[');
            for (at, item) in items.iter().enumerate() {
                out.push_str(if at > 0 { ", " } else { "" });
                flow(item, true, out);
            }
            out.push(']');
        }
        Value::Map(entries) => {
            out.push('{');
            for (at, (key, value)) in entries.iter().enumerate() {
                out.push_str(if at > 0 { ", " } else { "" });
                flow(key, true, out);
                out.push_str(": ");
                flow(value, true, out);
            }
            out.push('}');
        }
    }
}

/// A text as YAML: plain where no reader could take it for anything else, else in double quotes.
fn word(text: &str, inside: bool) -> String {
    let signs = if inside { "_.-" } else { "_.-/ ()<>=$%,;" };
    let plain = text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && !text.ends_with(' ')
        && text.chars().all(|letter| letter.is_ascii_alphanumeric() || signs.contains(letter))
        && yaml::ambiguous(text).is_none();
    if plain {
        return text.to_owned();
    }
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for letter in text.chars() {
        match letter {
            '"' | '\\' => quoted.extend(['\\', letter]),
            '\n' => quoted.push_str("\\n"),
            ' '..='~' => quoted.push(letter),
            letter if letter.is_alphanumeric() => quoted.push(letter),
            letter => quoted.push_str(&format!("\\U{:08x}", u32::from(letter))),
        }
    }
    quoted.push('"');
    quoted
}
