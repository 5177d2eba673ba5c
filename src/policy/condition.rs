//! The condition of a rule: compiled once, asked once for each call that the rule's patterns match.
//!
//! The only file that evaluates CEL. What a condition can see is in [`Facts`]; it can do nothing, and how long it can take is
//! bounded before it starts, because the evaluator has no limit of its own. An error is not an answer: the caller decides
//! what it means, by the rule's effect.

use std::{
    collections::HashMap,
    sync::{
        Arc, LazyLock, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    thread::{self, Scope, ScopedJoinHandle},
};

use cel::{
    Context, Env, ExecutionError, IdedExpr, Value,
    common::{
        ast::{CallExpr, EntryExpr, Expr, LiteralValue, operators},
        types::{CelBool, CelMap, CelMapKey, CelString},
        value::{CowVal, Val},
    },
    context::VariableResolver,
    parser::Parser,
};

use super::{
    Call, Effect,
    arguments::{self, Arguments, Unreadable},
    equality, functions,
    lint::{self, Finding},
};

/// The longest condition, in bytes.
pub(super) const CONDITION_BYTES_MAX: usize = 8_192;

/// The most operators, dots and brackets of a condition: the parser recurses along chains of them.
const SIGNS_MAX: usize = 1_000;

/// How deep brackets may nest.
const BRACKETS_NESTED_MAX: usize = 20;

/// How deep the tree of a condition may be: the evaluator recurses along it, on whatever stack the gate runs.
const TREE_DEPTH_MAX: u32 = 32;

/// The stack on which policies are compiled, in bytes. An unoptimised parser takes 130 KB for each bracket and 40 KB for each
/// link of a chain; with the limits above this is enough.
const COMPILER_STACK_BYTES: usize = 64 << 20;

/// The most work of all loops of one decision, in rounds times bytes of arguments: each round may read all of them.
const LOOP_BYTES_MAX: u128 = 1 << 28;

/// The most rounds of nested loops together.
const LOOP_ROUNDS_MAX: u128 = 1_000_000;

/// The functions and operators of conditions.
static ENVIRONMENT: LazyLock<Arc<Env>> = LazyLock::new(|| {
    // Optional values (`args.?amount.orValue(0)`) would be one more way to read a missing argument as a harmless one.
    let mut env = Env::default().with_optional_support(false).with_stdlib();
    equality::declare(&mut env).expect("no standard function begins with `@`");
    functions::declare(&mut env).expect("no standard function has these names");
    Arc::new(env)
});

/// A compiled condition.
#[derive(Debug)]
pub(super) struct Condition {
    expression: IdedExpr,
    text: Box<str>,
    /// How deep its loops nest.
    loops: u32,
    reads_annotations: bool,
}

impl Condition {
    /// Compiles `text`, with what is worth a warning; or all that is wrong with it.
    pub(super) fn compile(text: &str) -> Result<(Self, Vec<Finding>), Vec<Finding>> {
        if text.len() > CONDITION_BYTES_MAX {
            let message = format!("a condition has at most {CONDITION_BYTES_MAX} bytes");
            return Err(vec![Finding::error("P0103", 0..text.len(), message)]);
        }
        if text.trim().is_empty() {
            return Err(vec![Finding::error("P0103", 0..text.len(), "the condition is empty")]);
        }
        if let Some(told) = too_winding(text) {
            let hint = "split it into several rules: the strictest that matches wins".to_owned();
            return Err(vec![Finding { hint: Some(hint), ..Finding::error("P0111", 0..text.len(), told) }]);
        }
        let (mut expression, info) =
            Parser::default().parse_with_source_info(text).map_err(|errors| lint::syntax(text, &errors))?;
        if lint::depth(&expression) > TREE_DEPTH_MAX {
            let told = format!("the condition is nested deeper than {TREE_DEPTH_MAX} operations");
            return Err(vec![Finding::error("P0111", 0..text.len(), told)]);
        }
        let report = lint::check(text, &expression, &info);
        if report.findings.iter().any(Finding::is_error) {
            return Err(report.findings);
        }
        rewrite(&mut expression);
        let reads_annotations = report.reads_annotations;
        Ok((Self { expression, text: text.into(), loops: report.loops, reads_annotations }, report.findings))
    }

    /// As it was written; the map form as the expression it stands for.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// Whether it asks what the server says of the tool.
    pub(super) fn reads_annotations(&self) -> bool {
        self.reads_annotations
    }

    /// Whether it is true of the call, asked for a rule that says `effect`.
    pub(super) fn is_met(&self, facts: &Facts<'_>, effect: Effect) -> Result<bool, Unanswered> {
        if self.reads_annotations && effect == Effect::Allow && !facts.trusted {
            let told = "the server is not trusted, so what it says of its tools allows nothing";
            return Err(Unanswered(told.to_owned()));
        }
        self.pay(facts)?;
        let mut context = Context::with_env(Arc::clone(&ENVIRONMENT));
        context.set_variable_resolver(facts);
        let value =
            Value::resolve_val(&self.expression, &context).map_err(|error| self.unanswered(facts, &error))?;
        match value.downcast_ref::<CelBool>() {
            Some(answer) => Ok(*answer.inner()),
            None => Err(Unanswered(format!("it gave a value of type {}", value.get_type().name()))),
        }
    }

    /// Takes the cost of asking once from what the decision may cost.
    fn pay(&self, facts: &Facts<'_>) -> Result<(), Unanswered> {
        let arguments = if self.loops > 0 { facts.arguments().ok() } else { None };
        let cost = arguments.map_or(0, |arguments| {
            let rounds = (arguments.largest as u128).saturating_pow(self.loops);
            if rounds > LOOP_ROUNDS_MAX { LOOP_BYTES_MAX + 1 } else { rounds * arguments.bytes as u128 }
        });
        let spent = facts.spent.get().saturating_add(cost);
        if spent > LOOP_BYTES_MAX {
            return Err(Unanswered("the arguments are too large for the loops in the condition".to_owned()));
        }
        facts.spent.set(spent);
        Ok(())
    }

    /// The reason in words. An error of the evaluator may carry values of the call; none of them is repeated.
    fn unanswered(&self, facts: &Facts<'_>, error: &ExecutionError) -> Unanswered {
        if let Some(Err(unreadable)) = facts.arguments.get() {
            return Unanswered(unreadable.to_string());
        }
        Unanswered(match error {
            ExecutionError::NoSuchKey(key) if self.text.contains(key.as_str()) => {
                format!("there is no `{key}`")
            }
            ExecutionError::NoSuchKey(_) => "a key is missing".to_owned(),
            ExecutionError::NoSuchOverload(overload) => {
                let kinds = overload.argument_types().join(" and ");
                format!("`{}` does not work on {kinds}", operator(overload.function()))
            }
            ExecutionError::UnexpectedType { got, want } => format!("{want} was expected, it is {got}"),
            ExecutionError::ValuesNotComparable(..) => "values of different types were compared".to_owned(),
            ExecutionError::UnsupportedBinaryOperator(operator, ..) => {
                format!("`{operator}` does not work on these types")
            }
            ExecutionError::DivisionByZero(_) | ExecutionError::RemainderByZero(_) => {
                "division by zero".to_owned()
            }
            ExecutionError::Overflow(..) => "a number overflowed".to_owned(),
            ExecutionError::IndexOutOfBounds(_) => "the list is shorter than the index".to_owned(),
            // The words of our own functions hold nothing of the call.
            ExecutionError::FunctionError { function, message } if functions::is_ours(function) => {
                format!("`{function}`: {message}")
            }
            ExecutionError::FunctionError { function, .. } => format!("`{function}` failed"),
            _ => "it cannot be evaluated with these arguments".to_owned(),
        })
    }
}

/// What would make the parser recurse too deep. Counts inside of texts too: simple, and never too little.
fn too_winding(text: &str) -> Option<String> {
    let signs = text.bytes().filter(|byte| b"([{.?:+-*/%=<>!&|".contains(byte)).count();
    if signs > SIGNS_MAX {
        return Some(format!("the condition has more than {SIGNS_MAX} operators, dots and brackets"));
    }
    let (mut depth, mut deepest) = (0_usize, 0);
    for byte in text.bytes() {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    (deepest > BRACKETS_NESTED_MAX).then(|| format!("brackets nest deeper than {BRACKETS_NESTED_MAX} levels"))
}

/// Runs `work`, which compiles conditions, on a stack that is large enough for it. `None` if it panicked or no thread could
/// be had: a broken parser must not take the gate with it.
pub(super) fn on_compiler_stack<T: Send>(work: impl FnOnce() -> T + Send) -> Option<T> {
    thread::scope(|scope| compiler(scope, work)?.join().ok())
}

/// Does `work` for each of `parts`, each but the first on a thread of its own, and gives back what came of them in their order.
/// To be called on a compiler's stack. If one panics, so does this.
pub(super) fn on_compiler_stacks<P: Copy + Send, T: Send>(
    parts: &[P],
    work: impl Fn(P) -> T + Sync,
) -> Vec<T> {
    let work = &work;
    let Some((&first, others)) = parts.split_first() else { return Vec::new() };
    thread::scope(|scope| {
        let threads: Vec<_> =
            others.iter().map(|&part| (part, compiler(scope, move || work(part)))).collect();
        let mut done = vec![work(first)];
        for (part, thread) in threads {
            done.push(match thread.map(ScopedJoinHandle::join) {
                Some(Ok(done)) => done,
                Some(Err(panic)) => std::panic::resume_unwind(panic),
                // No thread could be had.
                None => work(part),
            });
        }
        done
    })
}

fn compiler<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    work: impl FnOnce() -> T + Send + 'scope,
) -> Option<ScopedJoinHandle<'scope, T>> {
    let thread = thread::Builder::new().name("policy compiler".to_owned()).stack_size(COMPILER_STACK_BYTES);
    thread.spawn_scoped(scope, work).ok()
}

/// Why a condition has no answer, in words that hold nothing of the call's arguments.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct Unanswered(String);

/// How an operator is written: the evaluator calls `>` `_>_`.
fn operator(name: &str) -> &str {
    match name {
        "_[_]" => "[]",
        _ => name.trim_matches(['_', '@']),
    }
}

/// A count that can be added to behind a shared reference: the evaluator wants its facts to be shareable.
#[derive(Default)]
struct SpentCost(AtomicU64);

impl SpentCost {
    fn get(&self) -> u128 {
        u128::from(self.0.load(Ordering::Relaxed))
    }

    fn set(&self, cost: u128) {
        self.0.store(u64::try_from(cost).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

/// What a condition can read. Arguments are converted when the first condition asks for them.
pub(super) struct Facts<'a> {
    call: &'a Call<'a>,
    /// Whether the policy trusts what the server says of its tools.
    trusted: bool,
    arguments: OnceLock<Result<Arguments<'a>, Unreadable>>,
    annotations: OnceLock<CelMap<'static>>,
    /// What the loops of this decision have cost so far.
    spent: SpentCost,
}

impl<'a> Facts<'a> {
    pub(super) fn new(call: &'a Call<'a>, trusted: bool) -> Self {
        Self {
            call,
            trusted,
            arguments: OnceLock::new(),
            annotations: OnceLock::new(),
            spent: SpentCost::default(),
        }
    }

    /// The hints about the tool. Of a server that is not trusted only those that ask for care: one that says that all is
    /// well is as if it were not there, so no condition can be lifted by it.
    fn annotations(&self) -> &CelMap<'static> {
        self.annotations.get_or_init(|| {
            let hints = self.call.annotations.hints();
            let kept = hints.into_iter().filter_map(|(name, value, careful)| {
                let value = value.filter(|&value| self.trusted || value == careful)?;
                let value: Box<dyn Val> = Box::new(CelBool::from(value));
                Some((CelMapKey::from(name), value))
            });
            CelMap::from(kept.collect::<HashMap<_, _>>())
        })
    }

    fn arguments(&self) -> Result<&Arguments<'a>, Unreadable> {
        self.arguments.get_or_init(|| arguments::read(self.call.arguments)).as_ref().map_err(|error| *error)
    }
}

impl VariableResolver for Facts<'_> {
    fn resolve<'b>(&'b self, variable: &str) -> Option<CowVal<'b, 'b>> {
        let text = match variable {
            // A failure shows as an undeclared variable to the evaluator; `unanswered` tells the real reason.
            "args" => return self.arguments().ok().map(|arguments| CowVal::Borrowed(&*arguments.value)),
            "annotations" => return Some(CowVal::Borrowed(self.annotations())),
            "now" => return Some(CowVal::owned(functions::Moment(self.call.now))),
            "tool" => self.call.tool.unwrap_or_default(),
            "server" => self.call.server,
            "client" => self.call.client,
            "principal" => self.call.principal,
            "method" => self.call.method,
            _ => return None,
        };
        Some(CowVal::owned(CelString::from(text)))
    }
}

/// Puts the functions of `equality` in the place of `==`, `!=` and `in`, and `a["b"]` in the place of `a.b`, which means the same
/// and is not looked for as a variable called `a.b` first.
fn rewrite(node: &mut IdedExpr) {
    if let Expr::Select(select) = &mut node.expr
        && !select.test
    {
        let key = Expr::Literal(LiteralValue::String(std::mem::take(&mut select.field).into()));
        let operand = std::mem::take(&mut *select.operand);
        node.expr = Expr::Call(CallExpr {
            func_name: operators::INDEX.to_owned(),
            target: None,
            args: vec![operand, IdedExpr { id: node.id, expr: key }],
        });
    }
    match &mut node.expr {
        Expr::Call(call) => {
            if call.target.is_none() && call.args.len() == 2 {
                let replaced = match call.func_name.as_str() {
                    operators::EQUALS => Some(equality::EQUAL),
                    operators::NOT_EQUALS => Some(equality::UNEQUAL),
                    operators::IN => Some(equality::ELEMENT),
                    _ => None,
                };
                if let Some(name) = replaced {
                    name.clone_into(&mut call.func_name);
                }
            }
            call.target.as_deref_mut().into_iter().chain(&mut call.args).for_each(rewrite);
        }
        Expr::Comprehension(comprehension) => {
            for part in [
                &mut comprehension.iter_range,
                &mut comprehension.accu_init,
                &mut comprehension.loop_cond,
                &mut comprehension.loop_step,
                &mut comprehension.result,
            ] {
                rewrite(part);
            }
        }
        Expr::List(list) => list.elements.iter_mut().for_each(rewrite),
        Expr::Map(map) => {
            for entry in &mut map.entries {
                if let EntryExpr::MapEntry(entry) = &mut entry.expr {
                    rewrite(&mut entry.key);
                    rewrite(&mut entry.value);
                }
            }
        }
        Expr::Select(select) => rewrite(&mut select.operand),
        Expr::Struct(_) | Expr::Ident(_) | Expr::Literal(_) | Expr::Unspecified => {}
    }
}
