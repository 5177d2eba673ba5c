//! Other ways to write a policy, translated into the one native document. Nothing else knows of them.
//!
//! Called by `document` before it reads anything, and by `convert`. Three forms are known, each by its own keys: a list of
//! tools under `approval:`, rules with `match:`, and rules with `action: escalate`. A translation keeps the places where
//! things were written, so that what `document` finds wrong is shown in the author's own text. It never weakens: what this
//! version cannot enforce is refused, and what two forms together could mean is not guessed.

use std::{
    collections::{HashMap, HashSet},
    ops::Range,
    sync::Arc,
};

use super::{
    approval::{HOLD_KEYS, TIMEOUT_MAX},
    diagnostic::{Diagnostic, Severity, Source, did_you_mean},
    document::{Keys, NAME_CHARS_MAX, Reader},
    pattern::{Index, Pattern, Places},
    yaml::{Node, Value},
};

/// The longest part of a tool's name in a rule's name that was not written, in characters.
const NAME_FROM_TOOL_CHARS_MAX: usize = NAME_CHARS_MAX - 20;

/// How many warnings of one kind a file gets; the rest would only hide them.
const WARNINGS_OF_A_KIND_MAX: usize = 20;

/// Keys of a rule that only the native form has, besides those of a rule that holds.
const NATIVE_RULE_KEYS: [&str; 3] = ["server", "method", "on_rejection"];

/// A way to write a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Native,
    /// `approval: {tools: […]}`: what is listed waits, everything else passes.
    Approval,
    /// `- match: {tool: …, argument_gt: …}`.
    Match,
    /// `- action: escalate` with `when` and `metadata`.
    Escalate,
}

/// The form of `root`, and `root` in the native form. Nothing if `problems` got an error.
pub(super) fn to_native(
    root: Node,
    source: &Arc<Source>,
    problems: &mut Vec<Diagnostic>,
) -> Option<(Form, Node)> {
    let form = form_of(&root, source, problems)?;
    let before = problems.len();
    let mut translator = Translator {
        reader: Reader { source, problems },
        names: HashSet::new(),
        told_prefixes: HashSet::new(),
        told: HashMap::new(),
    };
    let native = match form {
        Form::Native => return Some((form, root)),
        Form::Approval => translator.approval(&root),
        Form::Match => translator.rules_with_match(&root),
        Form::Escalate => translator.rules_with_escalate(&root),
    };
    let failed = problems[before..].iter().any(|found| found.severity() == Severity::Error);
    native.filter(|_| !failed).map(|native| (form, native))
}

/// Which form a document has, by the keys that only one form has. Two of them in one document are an error.
fn form_of(root: &Node, source: &Arc<Source>, problems: &mut Vec<Diagnostic>) -> Option<Form> {
    let mut marks: Vec<(Form, &'static str, Range<usize>)> = Vec::new();
    let mut mark = |form, word, key: &Node| {
        if !marks.iter().any(|(known, ..)| *known == form) {
            marks.push((form, word, key.span.clone()));
        }
    };
    let rules = match &root.value {
        Value::Map(entries) => {
            for (key, _) in entries {
                match text_of(key) {
                    Some("approval") => mark(Form::Approval, "approval", key),
                    Some("version") => mark(Form::Native, "version", key),
                    Some("metadata") => mark(Form::Escalate, "metadata", key),
                    _ => {}
                }
            }
            entry(root, "rules")
        }
        _ => Some(root),
    };
    let Some(Value::List(rules)) = rules.map(|rules| &rules.value) else {
        return decide(&marks, source, problems);
    };
    for rule in rules {
        let Value::Map(entries) = &rule.value else { continue };
        for (key, value) in entries {
            match (text_of(key).unwrap_or_default(), text_of(value)) {
                ("match", _) => mark(Form::Match, "match", key),
                ("metadata", _) => mark(Form::Escalate, "metadata", key),
                ("action", Some("approval_required")) => {
                    mark(Form::Match, "action: approval_required", value)
                }
                ("action", Some("escalate")) => mark(Form::Escalate, "action: escalate", value),
                ("action", Some("hold")) => mark(Form::Native, "action: hold", value),
                (name, _) => {
                    if let Some(native) =
                        NATIVE_RULE_KEYS.into_iter().chain(HOLD_KEYS).find(|key| *key == name)
                    {
                        mark(Form::Native, native, key);
                    }
                }
            }
        }
    }
    decide(&marks, source, problems)
}

/// The one form of these marks.
fn decide(
    marks: &[(Form, &'static str, Range<usize>)],
    source: &Arc<Source>,
    problems: &mut Vec<Diagnostic>,
) -> Option<Form> {
    let foreign = marks.iter().find(|(form, ..)| *form != Form::Native);
    let Some((form, word, _)) = foreign else { return Some(Form::Native) };
    let Some((_, other, span)) = marks.iter().find(|(other, ..)| other != form) else { return Some(*form) };
    let message = format!("`{other}` and `{word}` are of two forms of policies");
    let hint = "write each form in a file of its own; `holdshort policy convert` makes the native one of it";
    problems.push(Diagnostic::error("P0401", source, span.clone(), message).hint(hint.to_owned()));
    None
}

struct Translator<'a> {
    reader: Reader<'a>,
    /// Names of rules that are taken.
    names: HashSet<String>,
    /// Parts before the dot of a tool's name that were spoken of.
    told_prefixes: HashSet<String>,
    /// How many warnings of each kind there were.
    told: HashMap<&'static str, usize>,
}

impl Translator<'_> {
    fn warn(&mut self, code: &'static str, span: &Range<usize>, message: String, hint: String) {
        let count = self.told.entry(code).or_default();
        *count += 1;
        if *count > WARNINGS_OF_A_KIND_MAX {
            return;
        }
        let last = *count == WARNINGS_OF_A_KIND_MAX;
        let message = if last { format!("{message} (more of this kind are not shown)") } else { message };
        let found = Diagnostic::warning(code, self.reader.source, span.clone(), message);
        self.reader.problems.push(found.hint(hint));
    }

    /// A name that no other rule of this file has.
    fn name(&mut self, word: &str, tool: Option<&Node>) -> String {
        let first = tool.and_then(|tool| match &tool.value {
            Value::List(items) => items.first(),
            _ => Some(tool),
        });
        let tool = first.and_then(text_of).unwrap_or("every-tool");
        let plain = |letter: char| if letter.is_ascii_graphic() { letter } else { '_' };
        let tool: String = tool.chars().take(NAME_FROM_TOOL_CHARS_MAX).map(plain).collect();
        let base = format!("{word}-{tool}");
        let mut name = base.clone();
        let mut count = 1;
        while !self.names.insert(name.clone()) {
            count += 1;
            name = format!("{base}-{count}");
        }
        name
    }

    // --- a list of tools under `approval:`

    fn approval(&mut self, root: &Node) -> Option<Node> {
        let mut keys = self.reader.mapping(root, "a policy with `approval`", &["approval"])?;
        let approval = keys.take("approval")?;
        let known = ["tools", "timeout", "message", "on_rejection"];
        let mut keys = self.reader.mapping(approval, "`approval`", &known)?;
        let mut terms = Vec::new();
        if let Some(node) = keys.take("message") {
            terms.push(pair("reason", node.clone()));
        }
        if let Some(node) = keys.take("timeout") {
            terms.push(pair("timeout", self.whole_time(node, "timeout", "seconds", 1, "s")?));
        }
        // This form lets the run fail unless it says that the agent goes on; the native one has it the other way round.
        let fail = || text("fail", &approval.span);
        terms.push(pair("on_rejection", keys.take("on_rejection").cloned().unwrap_or_else(fail)));
        let items = match keys.take("tools") {
            Some(Node { value: Value::List(items), .. }) if !items.is_empty() => items,
            other => {
                // Everything that is not listed passes, so a list that says nothing would open everything.
                let span = other.unwrap_or(approval).span.clone();
                let hint = "write `tools: [billing.send_refund]`";
                self.reader.fail("P0011", span, "`approval` needs a list of `tools`", hint);
                return None;
            }
        };
        let mut rules = Vec::new();
        for item in items {
            for (tool, condition) in self.listed_tools(item) {
                let mut rule = vec![
                    pair("name", text(&self.name("approval", Some(tool)), &tool.span)),
                    pair("tool", self.with_bare_name(tool)),
                ];
                rule.extend(condition.map(|condition| pair("when", condition)));
                rule.push(pair("action", text("hold", &tool.span)));
                rule.extend(terms.clone());
                rules.push(Node { value: Value::Map(rule), span: item.span.clone() });
            }
        }
        let default = pair("default", text("allow", &root_key(root, "approval").span));
        Some(document(vec![default], rules, root))
    }

    /// The tools of one line of the list, with their conditions in the native spelling.
    fn listed_tools<'n>(&mut self, item: &'n Node) -> Vec<(&'n Node, Option<Node>)> {
        match &item.value {
            Value::Text(_) => vec![(item, None)],
            Value::Map(entries) => entries
                .iter()
                .filter_map(|(tool, condition)| {
                    let hint = "write `- billing.send_refund: param.amount > 1000`";
                    let Value::Text(expression) = &condition.value else {
                        let message = format!("a tool's condition is text, not {}", condition.value.kind());
                        self.reader.fail("P0012", tool.span.clone(), message, hint);
                        return None;
                    };
                    let native = Value::Text(params_as_arguments(expression));
                    Some((tool, Some(Node { value: native, span: condition.span.clone() })))
                })
                .collect(),
            other => {
                let message = format!("a tool is its name, or a name with a condition, not {}", other.kind());
                self.reader.fail("P0012", item.span.clone(), message, "");
                Vec::new()
            }
        }
    }

    /// `order_tools.cancel` and `cancel`. What stands before the dot is a name in the author's program, and perhaps not the
    /// one of a server here; where everything that is not listed passes, a rule that never matches would open the gate.
    fn with_bare_name(&mut self, tool: &Node) -> Node {
        let parts = text_of(tool).and_then(|name| name.rsplit_once('.'));
        let Some((prefix, bare)) = parts.filter(|(prefix, bare)| !prefix.is_empty() && !bare.is_empty())
        else {
            return tool.clone();
        };
        let is_pattern = bare.contains(['*', '?', '[', ']', '{', '}', '\\']);
        if is_pattern {
            let message = format!(
                "`{prefix}` is the name of a server here, and on servers of other names these calls pass"
            );
            let hint = format!("start the gate with `--server {prefix}`, or list the tools one by one");
            self.warn("P0402", &tool.span, message, hint);
            return tool.clone();
        }
        let message = format!(
            "a tool called `{bare}` is held on every server, whether the server is called `{prefix}` or not"
        );
        let hint = "the native form (`holdshort policy convert`) can name the server".to_owned();
        self.warn("P0402", &tool.span, message, hint);
        let both = vec![tool.clone(), text(bare, &tool.span)];
        Node { value: Value::List(both), span: tool.span.clone() }
    }

    // --- rules with `match:`

    fn rules_with_match(&mut self, root: &Node) -> Option<Node> {
        let (head, items, _) = self.rules_of(root, &["default", "rules"])?;
        let rules: Vec<Node> = items.iter().filter_map(|item| self.rule_with_match(item)).collect();
        self.warn_of_overrides(&rules);
        let rules = self.with_the_rest(rules, &["deny", "hold"], &head);
        Some(document(head, rules, root))
    }

    fn rule_with_match(&mut self, item: &Node) -> Option<Node> {
        let mut keys =
            self.reader.mapping(item, "a rule with `match`", &["name", "match", "action", "reason"])?;
        let Some(what) = keys.take("match") else {
            let hint = "write `match: {tool: send_refund}`";
            self.reader.fail("P0011", start_of(&item.span), "the rule has no `match`", hint);
            return None;
        };
        let mut matched = self.reader.mapping(what, "`match`", &["tool", "argument_gt"])?;
        let Some(tool) = matched.take("tool") else {
            self.reader.fail(
                "P0011",
                what.span.clone(),
                "`match` names no `tool`",
                "write `tool: send_refund`",
            );
            return None;
        };
        let actions = [("approval_required", "hold"), ("deny", "deny"), ("allow", "allow")];
        let action = self.action(&mut keys, item, &actions)?;
        let mut rule = self.head_of_rule(&mut keys, tool, &action);
        if let Some(limits) = matched.take("argument_gt") {
            let Value::Map(entries) = &limits.value else {
                let message = format!("`argument_gt` is a mapping, not {}", limits.value.kind());
                self.reader.fail(
                    "P0012",
                    limits.span.clone(),
                    message,
                    "write `argument_gt: {amount: 1000}`",
                );
                return None;
            };
            let tests = entries.iter().filter_map(|(argument, limit)| {
                let path = format!("args.{}", text_of(argument)?);
                let test = Value::Map(vec![pair("gt", limit.clone())]);
                Some((text(&path, &argument.span), Node { value: test, span: limit.span.clone() }))
            });
            let when = Node { value: Value::Map(tests.collect()), span: limits.span.clone() };
            rule.push(pair("when", when));
        }
        Some(Node { value: Value::Map(rule), span: item.span.clone() })
    }

    /// Says that an exception is none: here the strictest rule wins.
    fn warn_of_overrides(&mut self, rules: &[Node]) {
        let tools = |rule| entry(rule, "tool").and_then(text_of);
        let is_allow = |rule: &&Node| entry(rule, "action").and_then(text_of) == Some("allow");
        let restricted: HashSet<&str> =
            rules.iter().filter(|rule| !is_allow(rule)).filter_map(tools).collect();
        for rule in rules.iter().filter(is_allow) {
            if let Some(tool) = tools(rule).filter(|tool| restricted.contains(tool)) {
                let message = format!(
                    "this makes no exception from the other rules about `{tool}`: the strictest one wins"
                );
                let hint = "change the limit in the other rule, or let it say `approval_required`".to_owned();
                self.warn("P0405", &rule.span, message, hint);
            }
        }
    }

    // --- rules with `action: escalate`

    fn rules_with_escalate(&mut self, root: &Node) -> Option<Node> {
        let (head, items, metadata) = self.rules_of(root, &["default", "rules", "metadata"])?;
        let shared = match metadata {
            Some(node) => self.metadata(node)?,
            None => Vec::new(),
        };
        if items.is_empty()
            && let Some(metadata) = metadata
        {
            let message = "there are no rules, so every call waits for this long".to_owned();
            let hint = "`metadata` also stands in a rule, or beside `rules:` for all of them".to_owned();
            self.warn("P0404", &metadata.span, message, hint);
            let name = text(&self.name("escalate", None), &metadata.span);
            let mut rule = vec![pair("name", name), pair("action", text("hold", &metadata.span))];
            rule.extend(shared);
            let rule = Node { value: Value::Map(rule), span: metadata.span.clone() };
            return Some(document(head, vec![rule], root));
        }
        let rules: Vec<Node> =
            items.iter().filter_map(|item| self.rule_with_escalate(item, &shared)).collect();
        let rules = self.with_the_rest(rules, &["hold"], &head);
        Some(document(head, rules, root))
    }

    fn rule_with_escalate(&mut self, item: &Node, shared: &[(Node, Node)]) -> Option<Node> {
        let known = ["name", "tool", "when", "action", "reason", "metadata"];
        let mut keys = self.reader.mapping(item, "a rule with `escalate`", &known)?;
        let action =
            self.action(&mut keys, item, &[("escalate", "hold"), ("deny", "deny"), ("allow", "allow")])?;
        let at = Node { value: Value::Null, span: start_of(&item.span) };
        let tool = keys.take("tool");
        let mut rule = self.head_of_rule(&mut keys, tool.unwrap_or(&at), &action);
        if tool.is_none() {
            rule.retain(|(key, _)| text_of(key) != Some("tool"));
        }
        if let Some(tool) = tool {
            self.warn_of_prefix(tool);
        }
        rule.extend(keys.take("when").map(|when| pair("when", when.clone())));
        let own = match keys.take("metadata") {
            Some(node) => self.metadata(node)?,
            None => Vec::new(),
        };
        if text_of(&action) == Some("hold") {
            let missing = |(key, _): &&(Node, Node)| !own.iter().any(|(other, _)| other == key);
            rule.extend(shared.iter().filter(missing).cloned());
        }
        rule.extend(own);
        Some(Node { value: Value::Map(rule), span: item.span.clone() })
    }

    /// What `metadata` says, as keys of a native rule.
    fn metadata(&mut self, node: &Node) -> Option<Vec<(Node, Node)>> {
        let known = ["required_approvals", "approver_roles", "approval_timeout_minutes", "timeout_action"];
        let mut keys = self.reader.mapping(node, "`metadata`", &known)?;
        let mut rule = Vec::new();
        rule.extend(keys.take("required_approvals").map(|node| pair("required_approvals", node.clone())));
        rule.extend(keys.take("approver_roles").map(|node| pair("approvers", node.clone())));
        if let Some(node) = keys.take("approval_timeout_minutes") {
            rule.push(pair(
                "timeout",
                self.whole_time(node, "approval_timeout_minutes", "minutes", 60, "m")?,
            ));
        }
        rule.extend(keys.take("timeout_action").map(|node| pair("on_timeout", node.clone())));
        Some(rule)
    }

    /// Says what the part before the dot means here.
    fn warn_of_prefix(&mut self, tool: &Node) {
        for (prefix, bare) in texts_of(tool).filter_map(|name| name.split_once('.')) {
            if prefix.contains('*') || !self.told_prefixes.insert(prefix.to_owned()) {
                continue;
            }
            let message = format!("this is the tool `{bare}` of the server called `{prefix}`");
            let hint = format!(
                "start the gate with `--server {prefix}`; on a server of another name `default` speaks"
            );
            self.warn("P0402", &tool.span, message, hint);
        }
    }

    // --- pieces

    /// `default`, the rules and `metadata` of a document, which may be a mere list of rules.
    #[expect(clippy::type_complexity, reason = "the three parts are taken apart at once")]
    fn rules_of<'n>(
        &mut self,
        root: &'n Node,
        known: &[&str],
    ) -> Option<(Vec<(Node, Node)>, &'n [Node], Option<&'n Node>)> {
        if let Value::List(items) = &root.value {
            self.take_names(items);
            return Some((Vec::new(), items, None));
        }
        let mut keys = self.reader.mapping(root, "a policy of this form", known)?;
        let head = keys.take("default").map(|node| pair("default", node.clone())).into_iter().collect();
        let items: &[Node] = match keys.take("rules") {
            Some(Node { value: Value::List(items), .. }) => items,
            None | Some(Node { value: Value::Null, .. }) => &[],
            Some(node) => {
                let hint = "begin each rule with `- tool:`";
                self.reader.fail("P0012", node.span.clone(), "`rules` is a list", hint);
                return None;
            }
        };
        self.take_names(items);
        Some((head, items, keys.take("metadata")))
    }

    /// Keeps the names that were written from being given to other rules.
    fn take_names(&mut self, items: &[Node]) {
        let names = items.iter().filter_map(|item| entry(item, "name").and_then(text_of));
        self.names.extend(names.map(str::to_owned));
    }

    /// The action in the native word.
    fn action(
        &mut self,
        keys: &mut Keys<'_>,
        item: &Node,
        words: &[(&'static str, &'static str)],
    ) -> Option<Node> {
        let list = words.iter().map(|(word, _)| format!("`{word}`")).collect::<Vec<_>>().join(", ");
        let Some(node) = keys.take("action") else {
            let hint = format!("add an action: {list}");
            self.reader.fail("P0011", start_of(&item.span), "the rule has no `action`", hint);
            return None;
        };
        let written = text_of(node).unwrap_or_default();
        if let Some((_, native)) = words.iter().find(|(word, _)| *word == written) {
            return Some(text(native, &node.span));
        }
        let hint = did_you_mean(written, words.iter().map(|(word, _)| *word));
        let hint = hint.map_or_else(String::new, |meant| format!("did you mean `{meant}`?"));
        self.reader.fail("P0013", node.span.clone(), format!("this is one of {list}"), hint);
        None
    }

    /// Name, tool, action and reason.
    fn head_of_rule(&mut self, keys: &mut Keys<'_>, tool: &Node, action: &Node) -> Vec<(Node, Node)> {
        let word = text_of(action).unwrap_or_default();
        let name = match keys.take("name") {
            Some(name) => name.clone(),
            None => text(&self.name(word, Some(tool)), &tool.span),
        };
        let mut rule = vec![pair("name", name), pair("tool", tool.clone()), pair("action", action.clone())];
        rule.extend(keys.take("reason").map(|reason| pair("reason", reason.clone())));
        rule
    }

    /// Adds what these forms leave unsaid: a limit says that below it nobody is asked. For each tool that only conditional
    /// rules name, a rule allows what none of them meets. It cannot lift any other rule, because the strictest wins, and a
    /// condition that has no answer counts as met. Not where the document says its `default`, and not for patterns.
    fn with_the_rest(&mut self, mut rules: Vec<Node>, limits: &[&str], head: &[(Node, Node)]) -> Vec<Node> {
        if !head.is_empty() {
            return rules;
        }
        let action = |rule| entry(rule, "action").and_then(text_of).unwrap_or_default();
        let settling =
            (0..).zip(&rules).filter(|(_, rule)| entry(rule, "when").is_none() || action(rule) == "allow");
        let mut settled: Vec<(Pattern, u32)> = Vec::new();
        for (at, rule) in settling {
            let Some(tool) = entry(rule, "tool") else { return rules };
            settled.extend(texts_of(tool).filter_map(|text| Some((Pattern::parse(text).ok()?, at))));
        }
        let Ok(settled) = Index::new(settled.iter().map(|(pattern, at)| (pattern, *at))) else {
            return rules;
        };
        let mut open: HashMap<String, Range<usize>> = HashMap::new();
        let mut order = Vec::new();
        for rule in rules.iter().filter(|rule| limits.contains(&action(rule))) {
            let (Some(tool), Some(when)) = (entry(rule, "tool"), entry(rule, "when")) else { continue };
            for name in texts_of(tool).filter(|name| !name.contains(['*', '?', '[', ']', '{', '}', '\\'])) {
                let mut found = Places::new();
                settled.find(name, &mut found);
                if found.is_empty() && open.insert(name.to_owned(), when.span.clone()).is_none() {
                    order.push(name.to_owned());
                }
            }
        }
        for tool in order {
            let span = open.get(&tool).cloned().unwrap_or(0..0);
            let message = format!("calls of `{tool}` that no condition here is true of will run");
            let hint =
                "to hold them too, write `default: hold`, and the list of rules under `rules:`".to_owned();
            self.warn("P0406", &span, message, hint);
            let place = start_of(&span);
            let name = self.name("otherwise", Some(&text(&tool, &place)));
            let rule = vec![
                pair("name", text(&name, &place)),
                pair("tool", text(&tool, &place)),
                pair("action", text("allow", &place)),
                pair("reason", text("no condition of the rules about this tool is met", &place)),
            ];
            rules.push(Node { value: Value::Map(rule), span: place });
        }
        rules
    }

    /// A whole number of seconds or minutes as a native time.
    fn whole_time(&mut self, node: &Node, key: &str, unit: &str, seconds: u64, sign: &str) -> Option<Node> {
        let most = TIMEOUT_MAX.as_secs() / seconds;
        let number = match &node.value {
            Value::Number(number) => number.parse::<u64>().ok(),
            _ => None,
        };
        match number.filter(|number| (1..=most).contains(number)) {
            Some(number) => Some(text(&format!("{number}{sign}"), &node.span)),
            None => {
                let message = format!("`{key}` is a whole number of {unit}, 1 to {most}");
                self.reader.fail("P0015", node.span.clone(), message, "a hold always ends");
                None
            }
        }
    }
}

/// `param.amount > 1000` as `args.amount > 1000`: the name alone, not inside of texts and not as a field of something.
fn params_as_arguments(expression: &str) -> String {
    let is_name = |letter: char| letter == '_' || letter.is_ascii_alphanumeric();
    let mut native = String::with_capacity(expression.len());
    let mut rest = expression;
    let mut raw = false;
    while let Some(first) = rest.chars().next() {
        let length = if is_name(first) {
            rest.find(|letter| !is_name(letter)).unwrap_or(rest.len())
        } else if matches!(first, '"' | '\'') {
            literal_bytes(rest, first, raw)
        } else {
            first.len_utf8()
        };
        let (token, after) = rest.split_at(length);
        let field = native.trim_end().ends_with('.');
        native.push_str(if token == "param" && !field { "args" } else { token });
        raw = matches!(token, "r" | "R" | "br" | "bR" | "Br" | "BR" | "rb" | "rB" | "Rb" | "RB");
        rest = after;
    }
    native
}

/// The length of the text literal at the start of `text`, with its quotes; of all that is left if it does not end.
fn literal_bytes(text: &str, quote: char, raw: bool) -> usize {
    let triple = quote.to_string().repeat(3);
    let end = if text.starts_with(&triple) { triple.as_str() } else { &triple[..1] };
    let mut at = end.len();
    while at < text.len() {
        if text[at..].starts_with(end) {
            return at + end.len();
        }
        let escape = text[at..].starts_with('\\') && !raw;
        let letters = text[at..].chars().take(if escape { 2 } else { 1 });
        at += letters.map(char::len_utf8).sum::<usize>();
    }
    text.len()
}

/// A native document.
fn document(head: Vec<(Node, Node)>, rules: Vec<Node>, root: &Node) -> Node {
    let start = start_of(&root.span);
    let version = Node { value: Value::Number("1".to_owned()), span: start };
    let mut entries = vec![pair("version", version)];
    entries.extend(head);
    entries.push(pair("rules", Node { value: Value::List(rules), span: root.span.clone() }));
    Node { value: Value::Map(entries), span: root.span.clone() }
}

fn pair(key: &str, value: Node) -> (Node, Node) {
    (text(key, &value.span), value)
}

fn text(value: &str, span: &Range<usize>) -> Node {
    Node { value: Value::Text(value.to_owned()), span: span.clone() }
}

fn start_of(span: &Range<usize>) -> Range<usize> {
    span.start..span.start
}

fn text_of(node: &Node) -> Option<&str> {
    match &node.value {
        Value::Text(text) => Some(text),
        _ => None,
    }
}

/// The texts of a text or a list of them.
fn texts_of(node: &Node) -> impl Iterator<Item = &str> {
    let items = match &node.value {
        Value::List(items) => items.as_slice(),
        _ => std::slice::from_ref(node),
    };
    items.iter().filter_map(text_of)
}

/// The value of `key` in a mapping.
fn entry<'n>(node: &'n Node, key: &str) -> Option<&'n Node> {
    let Value::Map(entries) = &node.value else { return None };
    entries.iter().find(|(name, _)| text_of(name) == Some(key)).map(|(_, value)| value)
}

/// The key itself, for its place.
fn root_key<'n>(root: &'n Node, key: &str) -> &'n Node {
    let Value::Map(entries) = &root.value else { return root };
    entries.iter().find(|(name, _)| text_of(name) == Some(key)).map_or(root, |(name, _)| name)
}
