//! One policy file, from its text to checked rules.
//!
//! Called by the policy when it is loaded. Everything that can be wrong with a rule is told at once, with its place; a key
//! that is not known is an error, because a rule that is only half understood is not the rule that was written.

use std::{ops::Range, sync::Arc, thread};

use crate::hold::HoldTerms;

use super::{
    Effect,
    approval::HOLD_KEYS,
    condition::{self, Condition},
    diagnostic::{Diagnostic, Source, did_you_mean},
    dialect, matchers,
    overrides::Override,
    pattern::Pattern,
    people::{Person, Team, Written},
    settings::{Mode, SERVER_KEYS, Setting, TOOL_KEYS},
    waiting::Waiting,
    yaml::{self, Node, Value},
};

/// The longest reason, in characters.
pub const REASON_CHARS_MAX: usize = 500;
/// The longest name of a rule, in characters.
pub const NAME_CHARS_MAX: usize = 100;
/// Rules that are worth a thread: it starts in less time than they are read.
const RULES_PER_THREAD_MIN: usize = 200;
/// How many patterns one list may have.
pub(super) const PATTERNS_MAX: usize = 1_000;

pub(super) const DOCUMENT_KEYS: [&str; 13] = [
    "version",
    "mode",
    "default",
    "approved_tools",
    "blocked_tools",
    "hide_denied_tools",
    "servers",
    "tools",
    "people",
    "teams",
    "overrides",
    "waiting",
    "rules",
];
/// What clients ask of servers in any revision of MCP: a `method` that is nearly one of these is a slip of the pen.
const METHODS: [&str; 24] = [
    "completion/complete",
    "initialize",
    "logging/setLevel",
    "notifications/cancelled",
    "notifications/initialized",
    "notifications/progress",
    "notifications/roots/list_changed",
    "ping",
    "prompts/get",
    "prompts/list",
    "resources/list",
    "resources/read",
    "resources/subscribe",
    "resources/templates/list",
    "resources/unsubscribe",
    "server/discover",
    "subscriptions/listen",
    "tasks/cancel",
    "tasks/get",
    "tasks/list",
    "tasks/result",
    "tasks/update",
    "tools/call",
    "tools/list",
];

/// Keys that every rule may have, whatever it says.
const ANY_RULE_KEYS: [&str; 8] =
    ["name", "tool", "server", "method", "when", "action", "reason", "on_rejection"];

/// All keys of a rule.
pub(super) const RULE_KEYS: [&str; ANY_RULE_KEYS.len() + HOLD_KEYS.len()] = {
    let mut keys = [""; ANY_RULE_KEYS.len() + HOLD_KEYS.len()];
    let (any, _) = keys.split_at_mut(ANY_RULE_KEYS.len());
    any.copy_from_slice(&ANY_RULE_KEYS);
    let (_, hold) = keys.split_at_mut(ANY_RULE_KEYS.len());
    hold.copy_from_slice(&HOLD_KEYS);
    keys
};

/// A policy file, read.
#[derive(Default)]
pub(super) struct Document {
    pub(super) default: Option<(Effect, Range<usize>)>,
    pub(super) mode: Option<Mode>,
    pub(super) hide_denied_tools: bool,
    pub(super) servers: Vec<Setting>,
    pub(super) tools: Vec<Setting>,
    pub(super) people: Vec<Written<Person>>,
    pub(super) teams: Vec<Written<Team>>,
    pub(super) overrides: Vec<Override>,
    pub(super) waiting: Waiting,
    pub(super) rules: Vec<Draft>,
    /// The names of rules that have mistakes: they are taken all the same.
    pub(super) wrong_rules: Vec<Written<String>>,
}

/// A rule as it was written, checked on its own.
pub(super) struct Draft {
    pub(super) source: Arc<Source>,
    pub(super) span: Range<usize>,
    pub(super) name: String,
    pub(super) name_span: Range<usize>,
    pub(super) tools: Vec<Pattern>,
    pub(super) servers: Vec<Pattern>,
    pub(super) methods: Vec<Pattern>,
    pub(super) when: Option<Condition>,
    pub(super) effect: Effect,
    pub(super) reason: Option<String>,
    pub(super) terms: HoldTerms,
    /// Where it says who decides.
    pub(super) approvers_span: Range<usize>,
    /// The only mode in which it counts; it counts in all of them where there is none.
    pub(super) only_in: Option<Mode>,
    /// Whether it stands for a list of tools, which several files may have.
    pub(super) listed: bool,
}

/// Reads `source`. What is wrong goes to `problems`; a rule with errors is left out of the result.
pub(super) fn read(source: &Arc<Source>, problems: &mut Vec<Diagnostic>) -> Document {
    let mut document = Document::default();
    let before = problems.len();
    let root = yaml::read(source, problems);
    let root = match root {
        Some(Node { value: Value::Null, .. }) | None => {
            if problems.len() == before {
                let message = "the file has no policy in it";
                let hint = "it needs at least `version: 1` and `rules:`; no file at all holds every call";
                problems.push(Diagnostic::error("P0002", source, 0..0, message).hint(hint.to_owned()));
            }
            return document;
        }
        Some(root) => root,
    };
    let Some((_, root)) = dialect::to_native(root, source, problems) else { return document };
    let mut reader = Reader { source, problems };
    let Some(mut keys) = reader.mapping(&root, "a policy", &DOCUMENT_KEYS) else { return document };
    match keys.take("version") {
        None => {
            reader.fail(
                "P0011",
                start_of(&root.span),
                "the policy does not say its `version`",
                "add `version: 1`",
            );
        }
        Some(Node { value: Value::Number(text), .. }) if text == "1" => {}
        Some(node) => {
            reader.fail("P0013", node.span.clone(), "the version of this grammar is 1", "write `version: 1`")
        }
    }
    if let Some(node) = keys.take("default") {
        document.default = reader.effect(node).map(|effect| (effect, node.span.clone()));
    }
    document.mode = keys.take("mode").and_then(|node| reader.own_mode(node));
    if let Some(node) = keys.take("hide_denied_tools") {
        document.hide_denied_tools = reader.flag(node, "hide_denied_tools").unwrap_or_default();
    }
    if let Some(node) = keys.take("servers") {
        document.servers = reader.settings(node, "servers", &SERVER_KEYS);
    }
    if let Some(node) = keys.take("tools") {
        document.tools = reader.settings(node, "tools", &TOOL_KEYS);
    }
    document.people = keys.take("people").map_or_else(Vec::new, |node| reader.people(node));
    document.teams = keys.take("teams").map_or_else(Vec::new, |node| reader.teams(node));
    document.overrides = keys.take("overrides").map_or_else(Vec::new, |node| reader.overrides(node));
    document.waiting = keys.take("waiting").map_or_else(Waiting::default, |node| reader.waiting(node));
    let lists = [("approved_tools", Effect::Allow), ("blocked_tools", Effect::Deny)];
    let lists = lists.map(|(key, effect)| keys.take(key).and_then(|node| reader.listed(node, key, effect)));
    match keys.take("rules") {
        None => {}
        Some(Node { value: Value::List(items), .. }) => {
            (document.rules, document.wrong_rules) = rules(items, source, reader.problems);
        }
        Some(Node { value: Value::Null, .. }) => {}
        Some(node) => {
            reader.fail("P0012", node.span.clone(), "`rules` is a list", "begin each rule with `- name:`")
        }
    }
    document.rules.extend(lists.into_iter().flatten());
    document
}

/// Reads rules. Most of the time goes into their conditions, and no rule depends on another, so many of them are read on as many
/// threads as the machine has. Of those with mistakes the names.
fn rules(
    items: &[Node],
    source: &Arc<Source>,
    problems: &mut Vec<Diagnostic>,
) -> (Vec<Draft>, Vec<Written<String>>) {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let threads = cores.min(items.len() / RULES_PER_THREAD_MIN).max(1);
    let parts: Vec<_> = items.chunks(items.len().div_ceil(threads).max(1)).collect();
    let read = condition::on_compiler_stacks(&parts, |items| {
        let mut problems = Vec::new();
        let mut reader = Reader { source, problems: &mut problems };
        let (mut rules, mut wrong) = (Vec::with_capacity(items.len()), Vec::new());
        for item in items {
            match reader.rule(item) {
                Some(rule) => rules.push(rule),
                None => wrong.extend(written_name(item, source)),
            }
        }
        (rules, wrong, problems)
    });
    let (mut all, mut all_wrong) = (Vec::with_capacity(items.len()), Vec::new());
    for (rules, wrong, found) in read {
        all.extend(rules);
        all_wrong.extend(wrong);
        problems.extend(found);
    }
    (all, all_wrong)
}

/// The name that is written in a rule.
fn written_name(rule: &Node, source: &Arc<Source>) -> Option<Written<String>> {
    let Value::Map(entries) = &rule.value else { return None };
    let is_name = |key: &Node| matches!(&key.value, Value::Text(key) if key == "name");
    let (_, name) = entries.iter().find(|(key, _)| is_name(key))?;
    let Value::Text(value) = &name.value else { return None };
    Some(Written { source: Arc::clone(source), span: name.span.clone(), value: value.clone() })
}

pub(super) fn start_of(span: &Range<usize>) -> Range<usize> {
    span.start..span.start
}

/// The entries of a mapping whose keys are known.
pub(super) struct Keys<'a> {
    entries: Vec<(&'a str, &'a Node, &'a Node)>,
}

impl<'a> Keys<'a> {
    pub(super) fn take(&mut self, name: &str) -> Option<&'a Node> {
        let at = self.entries.iter().position(|(key, ..)| *key == name)?;
        Some(self.entries.swap_remove(at).2)
    }
}

/// Reads nodes and collects what is wrong with them.
pub(super) struct Reader<'a> {
    pub(super) source: &'a Arc<Source>,
    pub(super) problems: &'a mut Vec<Diagnostic>,
}

impl Reader<'_> {
    pub(super) fn fail(
        &mut self,
        code: &'static str,
        span: Range<usize>,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        let hint = Some(hint.into()).filter(|hint| !hint.is_empty());
        self.problems.push(Diagnostic::error(code, self.source, span, message).hint(hint));
    }

    /// The entries of `node`; unknown keys are errors.
    pub(super) fn mapping<'n>(&mut self, node: &'n Node, what: &str, known: &[&str]) -> Option<Keys<'n>> {
        let Value::Map(entries) = &node.value else {
            let message = format!("{what} is a mapping, not {}", node.value.kind());
            self.fail("P0012", node.span.clone(), message, format!("its keys are {}", known.join(", ")));
            return None;
        };
        let mut keys = Vec::with_capacity(entries.len());
        for (key, value) in entries {
            let Value::Text(name) = &key.value else { continue };
            if known.contains(&name.as_str()) {
                keys.push((name.as_str(), key, value));
                continue;
            }
            let list = format!("known keys are {}", known.join(", "));
            let hint = did_you_mean(name, known.iter().copied())
                .map_or_else(|| list.clone(), |meant| format!("did you mean `{meant}`? {list}"));
            self.fail("P0010", key.span.clone(), format!("{what} has no key `{name}`"), hint);
        }
        Some(Keys { entries: keys })
    }

    fn rule(&mut self, node: &Node) -> Option<Draft> {
        let before = self.problems.len();
        let mut keys = self.mapping(node, "a rule", &RULE_KEYS)?;
        let at = start_of(&node.span);
        let name_node = keys.take("name");
        let name = match name_node {
            Some(node) => self.line(node, "name", NAME_CHARS_MAX),
            None => {
                let hint = "the name is what people and the record see: `name: large-refunds`";
                self.fail("P0011", at.clone(), "the rule has no `name`", hint);
                None
            }
        };
        let effect = match keys.take("action") {
            Some(node) => self.effect(node),
            None => {
                self.fail(
                    "P0011",
                    at.clone(),
                    "the rule has no `action`",
                    "add `action: allow`, `hold` or `deny`",
                );
                None
            }
        };
        let tools = keys.take("tool").map_or_else(Vec::new, |node| self.patterns(node, "tool"));
        let servers = keys.take("server").map_or_else(Vec::new, |node| self.patterns(node, "server"));
        let method = keys.take("method");
        let methods = method.map_or_else(Vec::new, |node| self.methods(node));
        if let Some(node) = method
            && !tools.is_empty()
            && methods.iter().any(|pattern| pattern.text() != "tools/call")
        {
            let message = "a rule with `tool` is about `tools/call` only";
            self.fail(
                "P0016",
                node.span.clone(),
                message,
                "make two rules, one with `tool` and one with `method`",
            );
        }
        let when = keys.take("when").and_then(|node| self.condition(node, effect));
        let reason = keys.take("reason").and_then(|node| self.reason(node));
        let terms = self.terms(&mut keys, name.as_deref().unwrap_or_default(), effect, node);
        let errors = |found: &Diagnostic| found.severity() == super::Severity::Error;
        if self.problems[before..].iter().any(errors) {
            return None;
        }
        let (terms, approvers_span) = terms?;
        Some(Draft {
            source: Arc::clone(self.source),
            span: node.span.clone(),
            name: name?,
            name_span: name_node?.span.clone(),
            tools,
            servers,
            methods,
            when,
            effect: effect?,
            reason,
            terms,
            approvers_span,
            only_in: None,
            listed: false,
        })
    }

    /// The methods that a rule is about. One that is almost a method of MCP would guard nothing.
    fn methods(&mut self, node: &Node) -> Vec<Pattern> {
        let methods = self.patterns(node, "method");
        for method in methods.iter().filter(|method| method.is_name()).map(Pattern::text) {
            if !METHODS.contains(&method)
                && let Some(meant) = did_you_mean(method, METHODS)
            {
                let hint = format!(
                    "did you mean `{meant}`? A method of the server's own is written as a pattern: `{{{method}}}`"
                );
                self.fail("P0020", node.span.clone(), format!("MCP has no method `{method}`"), hint);
            }
        }
        methods
    }

    /// A list of tools that `confirm_tools` lets run or not, as the rule that it stands for.
    fn listed(&mut self, node: &Node, key: &str, effect: Effect) -> Option<Draft> {
        let tools = self.patterns(node, key);
        (!tools.is_empty()).then(|| Draft {
            source: Arc::clone(self.source),
            span: node.span.clone(),
            name: key.to_owned(),
            name_span: node.span.clone(),
            tools,
            servers: Vec::new(),
            methods: Vec::new(),
            when: None,
            effect,
            reason: (effect == Effect::Deny).then(|| "The tool is on the list of blocked ones.".to_owned()),
            terms: HoldTerms::default(),
            approvers_span: node.span.clone(),
            // What is blocked is blocked; what is approved is so only where everything else asks.
            only_in: (effect == Effect::Allow).then_some(Mode::ConfirmTools),
            listed: true,
        })
    }

    /// The entries of a mapping from names to anything.
    pub(super) fn entries<'n>(
        &mut self,
        node: &'n Node,
        what: &str,
        most: usize,
    ) -> Vec<(&'n str, &'n Node, &'n Node)> {
        let Value::Map(entries) = &node.value else {
            let message = format!("`{what}` is a mapping, not {}", node.value.kind());
            self.fail(
                "P0012",
                node.span.clone(),
                message,
                "write each name with a colon, and what it has below it",
            );
            return Vec::new();
        };
        if entries.len() > most {
            let message = format!("`{what}` has at most {most} entries");
            self.fail("P0007", node.span.clone(), message, "a pattern can stand for several");
            return Vec::new();
        }
        let named = entries.iter().filter_map(|(key, value)| match &key.value {
            Value::Text(name) => Some((name.as_str(), key, value)),
            _ => None,
        });
        let named: Vec<_> = named.collect();
        for (name, key, _) in &named {
            let odd = name.trim() != *name || name.is_empty() || name.chars().count() > NAME_CHARS_MAX;
            if odd || name.chars().any(is_unseen) {
                let message =
                    format!("a name in `{what}` has 1 to {NAME_CHARS_MAX} characters that can be seen");
                self.fail("P0017", key.span.clone(), message, "");
            }
        }
        named
    }

    /// The items of a list that has some, or the one value that is there instead of a list.
    pub(super) fn items<'n>(&mut self, node: &'n Node, key: &str, most: usize) -> &'n [Node] {
        let items = match &node.value {
            Value::List(items) => items.as_slice(),
            _ => std::slice::from_ref(node),
        };
        if items.is_empty() || items.len() > most {
            let message = format!("the list of `{key}` has 1 to {most} entries");
            self.fail("P0019", node.span.clone(), message, format!("leave `{key}` out for none"));
            return &[];
        }
        items
    }

    /// `true` or `false`.
    pub(super) fn flag(&mut self, node: &Node, key: &str) -> Option<bool> {
        if let Value::Bool(value) = node.value {
            return Some(value);
        }
        self.fail(
            "P0012",
            node.span.clone(),
            format!("`{key}` is true or false"),
            format!("write `{key}: true`"),
        );
        None
    }

    pub(super) fn only_for(
        &mut self,
        key: &str,
        node: Option<&Node>,
        effect: Option<Effect>,
        meant: &[Effect],
    ) {
        if let (Some(node), Some(effect)) = (node, effect)
            && !meant.contains(&effect)
        {
            let message = format!("`{key}` means nothing in a rule with `action: {effect}`");
            self.fail("P0016", node.span.clone(), message, "take it out, or hold the call");
        }
    }

    pub(super) fn effect(&mut self, node: &Node) -> Option<Effect> {
        if let Value::Text(word) = &node.value
            && let Some(effect) = Effect::from_word(word)
        {
            return Some(effect);
        }
        let hint = match &node.value {
            Value::Text(word) => did_you_mean(word, ["allow", "hold", "deny"]),
            _ => None,
        };
        let hint = hint.map_or_else(String::new, |meant| format!("did you mean `{meant}`?"));
        self.fail("P0013", node.span.clone(), "this is `allow`, `hold` or `deny`", hint);
        None
    }

    fn patterns(&mut self, node: &Node, key: &str) -> Vec<Pattern> {
        let items = match &node.value {
            Value::List(items) => items.as_slice(),
            _ => std::slice::from_ref(node),
        };
        if items.is_empty() {
            let hint = format!("leave `{key}` out for a rule about every one");
            self.fail("P0018", node.span.clone(), format!("the list of `{key}` is empty"), hint);
        }
        if items.len() > PATTERNS_MAX {
            let message = format!("a list has at most {PATTERNS_MAX} patterns");
            self.fail("P0018", node.span.clone(), message, "make several rules");
            return Vec::new();
        }
        let mut patterns = Vec::with_capacity(items.len());
        for item in items {
            let Some(text) = self.text(item, key) else { continue };
            match Pattern::parse(text) {
                Ok(pattern) => patterns.push(pattern),
                Err(told) => self.fail("P0018", item.span.clone(), format!("`{key}`: {told}"), ""),
            }
        }
        patterns
    }

    pub(super) fn text<'n>(&mut self, node: &'n Node, key: &str) -> Option<&'n str> {
        if let Value::Text(text) = &node.value {
            return Some(text);
        }
        let hint = match &node.value {
            Value::Number(text) => format!("quote it: \"{text}\""),
            Value::Bool(value) => format!("quote it: \"{value}\""),
            _ => String::new(),
        };
        self.fail("P0012", node.span.clone(), format!("`{key}` is text, not {}", node.value.kind()), hint);
        None
    }

    /// A text of one line.
    pub(super) fn line(&mut self, node: &Node, key: &str, chars_max: usize) -> Option<String> {
        let text = self.text(node, key)?.trim();
        let told = if text.is_empty() {
            format!("`{key}` is empty")
        } else if text.chars().count() > chars_max {
            format!("`{key}` has more than {chars_max} characters")
        } else if text.contains(['\n', '\r']) {
            format!("`{key}` is one line")
        } else if text.chars().any(is_unseen) {
            format!("`{key}` has characters that cannot be seen")
        } else {
            return Some(text.to_owned());
        };
        self.fail("P0017", node.span.clone(), told, "");
        None
    }

    fn reason(&mut self, node: &Node) -> Option<String> {
        let text = self.text(node, "reason")?.trim();
        if text.is_empty() || text.chars().count() > REASON_CHARS_MAX {
            let message = format!("`reason` has 1 to {REASON_CHARS_MAX} characters");
            self.fail("P0017", node.span.clone(), message, "");
            return None;
        }
        if text.chars().any(|letter| is_unseen(letter) && letter != '\n') {
            self.fail("P0017", node.span.clone(), "`reason` has characters that cannot be seen", "");
            return None;
        }
        Some(text.to_owned())
    }

    fn condition(&mut self, node: &Node, effect: Option<Effect>) -> Option<Condition> {
        let written = match &node.value {
            Value::Text(text) => text.clone(),
            Value::Map(_) => matchers::translate(node, self.source, self.problems)?,
            other => {
                let message = format!("`when` is an expression or a mapping, not {}", other.kind());
                self.fail("P0012", node.span.clone(), message, "write `when: args.amount > 1000`");
                return None;
            }
        };
        let (condition, findings) = match Condition::compile(&written) {
            Ok((condition, findings)) => (Some(condition), findings),
            Err(findings) => (None, findings),
        };
        for finding in findings {
            let relevant = match finding.code {
                // Failing open is what a guard does to a rule that restricts; matching too much, to one that allows.
                "P0201" => effect != Some(Effect::Allow),
                "P0204" => effect == Some(Effect::Allow),
                _ => true,
            };
            if !relevant {
                continue;
            }
            let span = match &node.value {
                Value::Text(text) => yaml::place(&self.source.text, &node.span, text, finding.span),
                _ => node.span.clone(),
            };
            let found =
                Diagnostic::error(finding.code, self.source, span, finding.message).hint(finding.hint);
            self.problems.push(Diagnostic { severity: finding.severity, ..found });
        }
        condition
    }
}

/// Control characters, and characters that change how a text looks without being seen.
fn is_unseen(letter: char) -> bool {
    letter.is_control()
        || matches!(letter, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{e0000}'..='\u{e007f}')
}
