//! The policy: rules as code, and what they say of one call.
//!
//! Loaded once, asked by the gate for every call, tested by `policy test`. It judges and never acts: it does not wait, and
//! knows no clock and no socket; only [`Policy::load`] touches files.
//!
//! The strictest matching rule wins (deny, then hold, then allow), so the order of rules and of files means nothing; the
//! `default` speaks only where no rule matches. A condition that cannot be evaluated is met in a rule that holds or denies,
//! and is not met in one that allows: what a policy cannot judge never runs by itself.

use std::{
    collections::HashMap,
    fmt,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    digest::Digest,
    hold::{Assurance, HoldTerms, OnRejection, Requirement},
    mcp::Annotations,
};

mod approval;
mod arguments;
mod cases;
mod condition;
mod convert;
mod decide;
mod dialect;
mod diagnostic;
mod diff;
mod document;
mod equality;
mod explain;
mod files;
mod functions;
mod hours;
mod learn;
mod lint;
mod matchers;
mod overlap;
mod pattern;
mod overrides;
mod people;
mod schema;
mod settings;
mod waiting;
mod yaml;

#[cfg(test)]
mod tests;

pub use approval::{
    GRANT_MAX, GRANT_MIN, HOLD_MESSAGE_CHARS_MAX, REMEMBER_MAX, REMEMBER_USES_MAX, REMIND_MIN,
    TIMEOUT_DEFAULT, TIMEOUT_MAX, TIMEOUT_MIN,
};
pub use cases::{CaseOutcome, Report, run_tests};
pub use convert::{Converted, convert, convert_file};
use diagnostic::Lines;
pub use diagnostic::{Diagnostic, PolicyErrors, Severity, Source};
pub use diff::{CaseChange, Change, Difference, Direction, diff};
pub use document::{NAME_CHARS_MAX, REASON_CHARS_MAX};
pub use explain::{Answer, Explanation, RuleAnswer, check_arguments};
pub use learn::{RECORDED_CALLS_MAX, RecordedCall, ReplayedCall, propose, replay};
pub use overrides::{Overridden, Override};
pub use people::{People, Person};
pub use schema::schema;
pub use settings::Mode;
pub use waiting::{ClientWaiting, Kept, Waiting};

use condition::Condition;
use document::{Document, Draft};
use pattern::{Index, Pattern};
use people::Written;
use settings::Settings;

/// The method that policies are mostly about.
const TOOLS_CALL: &str = "tools/call";

/// How it is said that rules are about what was asked and none of them has matched.
const UNMET: &str = "no condition of the rules about this";

/// The most rules of one policy, over all files.
pub const RULES_MAX: usize = 50_000;

/// What a rule says of a call. The order is that of strictness.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Effect {
    /// It may run.
    Allow,
    /// It waits for people.
    Hold,
    /// It must not run.
    Deny,
}

impl Effect {
    /// The word in a policy.
    pub fn word(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Hold => "hold",
            Self::Deny => "deny",
        }
    }

    /// The effect that [`Effect::word`] names.
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Allow, Self::Hold, Self::Deny].into_iter().find(|effect| effect.word() == word)
    }
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

/// What is to be judged.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// The server's name, as the operator gave it.
    pub server: &'a str,
    /// The method, nearly always `tools/call`.
    pub method: &'a str,
    /// The tool of a `tools/call`.
    pub tool: Option<&'a str>,
    /// The raw JSON text of the arguments, `{}` where there are none; for other methods the params.
    pub arguments: &'a str,
    /// The name that the client gives itself (`clientInfo.name`), or nothing. Untrusted.
    pub client: &'a str,
    /// Who asks, as far as the gate knows.
    pub principal: &'a str,
    /// What the server says of the tool.
    pub annotations: Annotations,
    /// The moment of the decision.
    pub now: Timestamp,
}

impl Default for Call<'_> {
    /// A `tools/call` that names no tool, at midnight UTC on a Thursday: for tests, which say what they are about.
    fn default() -> Self {
        Self {
            server: "",
            method: TOOLS_CALL,
            tool: None,
            arguments: "{}",
            client: "",
            principal: "",
            annotations: Annotations::default(),
            now: Timestamp::UNIX_EPOCH,
        }
    }
}

/// What the policy says of one call, and why.
#[derive(Clone, Debug)]
pub struct Decision {
    /// What is to be done.
    pub effect: Effect,
    /// The mode in which it was decided.
    pub mode: Mode,
    /// In [`Mode::Audit`]: what would have been done, if not to let it run. Rules, reason and terms are those of that.
    pub would_have: Option<Effect>,
    /// The names of the rules that decided, in the order of the files; none where the default did.
    pub rules: Vec<Arc<str>>,
    /// Why, in the policy author's words where there are any.
    pub reason: Arc<str>,
    /// What a held call needs; there exactly if it is held, or would have been.
    pub terms: Option<Arc<HoldTerms>>,
    /// How a refusal is told to the client.
    pub on_rejection: OnRejection,
    /// Conditions that could not be evaluated and what that meant, for the approver and the record. They hold nothing of the
    /// call's arguments.
    pub notes: Vec<String>,
}

/// A rule, for those who list them.
#[derive(Debug)]
pub struct Rule {
    name: Arc<str>,
    source: Arc<Source>,
    line: usize,
    effect: Effect,
    tools: Vec<Pattern>,
    servers: Vec<Pattern>,
    methods: Vec<Pattern>,
    condition: Option<Box<Condition>>,
    reason: Arc<str>,
    own_reason: bool,
    terms: Arc<HoldTerms>,
    only_in: Option<Mode>,
}

impl Rule {
    /// Its name, unique in the policy.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How far an approval of what it holds has to be trusted.
    pub fn min_assurance(&self) -> Assurance {
        self.terms.requirements.iter().map(|requirement| requirement.min_assurance).max().unwrap_or_default()
    }

    /// Why, in its author's words, or what is said where there are none.
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// Who has to approve what it holds; none: one person.
    pub fn requirements(&self) -> &[Requirement] {
        &self.terms.requirements
    }

    /// What it says.
    pub fn effect(&self) -> Effect {
        self.effect
    }

    /// The file and line (from 1) where it is written.
    pub fn place(&self) -> (&str, usize) {
        (&self.source.name, self.line)
    }

    /// The patterns of tools as they were written; none means every tool.
    pub fn tools(&self) -> impl Iterator<Item = &str> {
        self.tools.iter().map(Pattern::text)
    }

    /// The patterns of servers as they were written; none means every server.
    pub fn servers(&self) -> impl Iterator<Item = &str> {
        self.servers.iter().map(Pattern::text)
    }

    /// The patterns of methods as they were written; none means `tools/call`.
    pub fn methods(&self) -> impl Iterator<Item = &str> {
        self.methods.iter().map(Pattern::text)
    }

    /// Its condition as a CEL expression.
    pub fn condition(&self) -> Option<&str> {
        self.condition.as_ref().map(|condition| condition.text())
    }

    /// How long people have.
    pub fn timeout(&self) -> Duration {
        self.terms.timeout
    }

    /// The channels that it names, at once or for later.
    pub fn channels(&self) -> impl Iterator<Item = &str> {
        self.terms.channels()
    }

    fn concerns_server(&self, server: &str) -> bool {
        self.servers.is_empty() || self.servers.iter().any(|pattern| pattern.matches(server))
    }

    /// Whether it is a rule about a method by name, instead of about every tool.
    fn names_methods(&self) -> bool {
        !self.methods.is_empty() && self.tools.is_empty()
    }
}

/// A policy, compiled. Cheap to ask, safe to share.
#[derive(Debug)]
pub struct Policy {
    default: Effect,
    rules: Vec<Rule>,
    /// Rules with `tool`.
    tools: Index,
    /// Rules about every tool.
    every_tool: Vec<u32>,
    /// Rules with `method` and no `tool`.
    methods: Vec<u32>,
    /// Their patterns in lower case, for names that only resemble a method.
    methods_lower_case: Vec<Pattern>,
    warnings: Vec<Diagnostic>,
    digest: Digest,
    default_reason: Arc<str>,
    /// The same where rules are about the call and no condition of theirs is met.
    unmet_reason: Arc<str>,
    default_terms: Arc<HoldTerms>,
    settings: Settings,
    people: Arc<People>,
    overrides: Vec<Override>,
    waiting: Waiting,
}

impl Policy {
    /// Reads files and directories (their `*.yaml` and `*.yml` in the order of names, without `*.test.yaml`).
    ///
    /// # Errors
    /// If a file cannot be read, or for the reasons of [`Policy::parse`].
    pub fn load(paths: &[PathBuf]) -> Result<Self, PolicyErrors> {
        Self::parse(files::read_all(paths)?)
    }

    /// The digest that the policy in `paths` would have, without a look at what it says; `None` if it cannot be read.
    pub fn digest_of_files(paths: &[PathBuf]) -> Option<Digest> {
        files::read_all(paths).ok().map(|sources| digest_of(&sources))
    }

    /// Compiles the sources into one policy.
    ///
    /// # Errors
    /// With everything that is wrong in any of them.
    pub fn parse(sources: Vec<Source>) -> Result<Self, PolicyErrors> {
        let digest = digest_of(&sources);
        let sources: Vec<Arc<Source>> = sources.into_iter().map(Arc::new).collect();
        let first = sources.first().cloned();
        condition::on_compiler_stack(|| Self::compile(sources, digest)).unwrap_or_else(|| {
            let source =
                first.unwrap_or_else(|| Arc::new(Source { name: String::new(), text: String::new() }));
            let message = "the policy could not be compiled: the compiler failed";
            Err(PolicyErrors::new(vec![Diagnostic::error("P0008", &source, 0..0, message)]))
        })
    }

    fn compile(sources: Vec<Arc<Source>>, digest: Digest) -> Result<Self, PolicyErrors> {
        let mut problems = Vec::new();
        let (mut drafts, mut wrong) = (Vec::new(), Vec::new());
        let mut default: Option<Effect> = None;
        let (mut mode, mut settings) = (None, Settings::default());
        let (mut people, mut teams): (Vec<Written<Person>>, _) = (Vec::new(), Vec::new());
        let (mut overrides, mut waiting) = (Vec::new(), Waiting::default());
        for source in sources {
            let document = document::read(&source, &mut problems);
            if let Some((effect, span)) = document.default {
                if effect == Effect::Allow {
                    problems.push(open_default(&source, span));
                }
                default = Some(default.map_or(effect, |known| known.max(effect)));
            }
            let Document { rules, wrong_rules, servers, tools, .. } = document;
            drafts.extend(rules);
            wrong.extend(wrong_rules);
            settings.servers.extend(servers);
            settings.tools.extend(tools);
            settings.hide_denied_tools |= document.hide_denied_tools;
            mode = mode.max(document.mode);
            overrides.extend(document.overrides);
            waiting.add(document.waiting);
            people.extend(document.people);
            teams.extend(document.teams);
        }
        settings.mode = mode.unwrap_or_default();
        let people = people::assemble(people, teams, &drafts, &mut problems);
        merge_lists(&mut drafts);
        refuse_same_names(&drafts, &wrong, &mut problems);
        if drafts.len() > RULES_MAX {
            let draft = &drafts[RULES_MAX];
            let message = format!("a policy has at most {RULES_MAX} rules");
            problems.push(Diagnostic::error("P0007", &draft.source, draft.name_span.clone(), message));
        }
        overlap::check(&drafts, &mut problems);
        let fatal = problems.iter().any(|found| found.severity() == Severity::Error);
        if fatal {
            return Err(PolicyErrors::new(problems));
        }
        let policy = Self::build(drafts, default.unwrap_or(Effect::Hold), problems, digest)?;
        Ok(Self { settings, people: Arc::new(people), overrides, waiting, ..policy })
    }

    /// The policy where there is none: every call waits for people.
    pub fn hold_everything() -> Self {
        let digest = Digest::of(b"holdshort: no policy, every call is held");
        let policy = Self::build(Vec::new(), Effect::Hold, Vec::new(), digest);
        let mut policy = policy.expect("an index of no patterns can always be built");
        policy.default_reason = "there is no policy, so every call is held".into();
        policy
    }

    fn build(
        drafts: Vec<Draft>,
        default: Effect,
        warnings: Vec<Diagnostic>,
        digest: Digest,
    ) -> Result<Self, PolicyErrors> {
        let place = drafts.first().map(|draft| Arc::clone(&draft.source));
        let mut lines = Lines::default();
        let rules: Vec<Rule> = drafts.into_iter().map(|draft| rule(draft, &mut lines)).collect();
        let numbered = || (0..).zip(&rules);
        let patterns = numbered().flat_map(|(at, rule)| rule.tools.iter().map(move |tool| (tool, at)));
        let tools = Index::new(patterns).map_err(|error| {
            // Each pattern compiled alone; together they can still be too large for one automaton.
            let source =
                place.unwrap_or_else(|| Arc::new(Source { name: String::new(), text: String::new() }));
            let message = format!("the patterns of all rules together are too large: {error}");
            PolicyErrors::new(vec![Diagnostic::error("P0018", &source, 0..0, message)])
        })?;
        let every_tool = numbered()
            .filter(|(_, rule)| rule.tools.is_empty() && rule.methods.is_empty())
            .map(|(at, _)| at)
            .collect();
        let methods = numbered().filter(|(_, rule)| rule.names_methods()).map(|(at, _)| at).collect();
        let by_method = rules.iter().filter(|rule| rule.names_methods());
        let methods_lower_case =
            by_method.flat_map(|rule| rule.methods.iter().map(Pattern::lower_case)).collect();
        Ok(Self {
            default,
            tools,
            every_tool,
            methods_lower_case,
            methods,
            warnings,
            digest,
            default_reason: format!("no rule is about this call, and the policy's default is {default}")
                .into(),
            unmet_reason: format!("{UNMET} call is met, and the policy's default is {default}").into(),
            default_terms: Arc::new(HoldTerms::default()),
            settings: Settings::default(),
            people: Arc::new(People::default()),
            overrides: Vec::new(),
            waiting: Waiting::default(),
            rules,
        })
    }

    /// The digest of the texts of the files this policy was read from, whatever they are called.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The rules, in the order of the files.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// The calls that are let through although a rule holds them, each until its time; also those whose time is over.
    pub fn overrides(&self) -> &[Override] {
        &self.overrides
    }

    /// Whether any rule wants more than somebody's word.
    pub fn wants_proof(&self) -> bool {
        let wants = |rule: &Rule| rule.terms.requirements.iter().any(Requirement::wants_proof);
        self.rules.iter().any(wants)
    }

    /// Whether somebody's word alone lets no held call run: all that is held wants an assurance of L1 or more.
    pub fn is_attested(&self) -> bool {
        let settings = self.settings.servers.iter().chain(&self.settings.tools);
        let holds_by_rules =
            self.mode() == Mode::Enforce && settings.into_iter().all(|setting| setting.mode.is_none());
        let mut holding = self.rules.iter().filter(|rule| rule.effect == Effect::Hold).peekable();
        let is_any = holding.peek().is_some() && self.default != Effect::Hold;
        holds_by_rules && is_any && holding.all(|rule| rule.min_assurance() >= Assurance::L1)
    }

    /// The highest assurance that a rule wants.
    pub fn min_assurance(&self) -> Assurance {
        let wanted = self.rules.iter().flat_map(|rule| &rule.terms.requirements);
        wanted.map(|requirement| requirement.min_assurance).max().unwrap_or_default()
    }

    /// For how long clients are kept waiting, and approvals without a caller count, where the policy says.
    pub fn waiting(&self) -> &Waiting {
        &self.waiting
    }

    /// The people that may decide, by their identities.
    pub fn people(&self) -> &Arc<People> {
        &self.people
    }

    /// Whether tools that are denied whatever their arguments are to be left out of lists of tools.
    pub fn hides_denied_tools(&self) -> bool {
        self.settings.hide_denied_tools
    }

    /// The mode where no server and no tool has another.
    pub fn mode(&self) -> Mode {
        self.settings.mode
    }

    /// What happens to a call that no rule matches.
    pub fn default_effect(&self) -> Effect {
        self.default
    }

    /// What the policy's author should know; nothing in it stands in the way.
    pub fn warnings(&self) -> &[Diagnostic] {
        &self.warnings
    }

    /// Whether any call may be held: what no rule matches, or what some rule holds.
    pub fn may_hold(&self) -> bool {
        self.default_effect() == Effect::Hold || self.rules().iter().any(|rule| rule.effect() == Effect::Hold)
    }

    /// Whether requests of `method` are to be judged at all: every `tools/call` is, others if a rule names them.
    pub fn gates_method(&self, method: &str) -> bool {
        let names = |at: &u32| {
            let rule = self.rules.get(*at as usize);
            rule.is_some_and(|rule| rule.methods.iter().any(|pattern| pattern.matches(method)))
        };
        method == TOOLS_CALL || self.methods.iter().any(names)
    }
}

impl Policy {
    /// Whether a careless server may take `folded`, a method without its peculiarities (see `mcp::fold_method`), for one that
    /// is gated. Case is one of those.
    pub fn gates_look_alike(&self, folded: &str) -> bool {
        folded == TOOLS_CALL || self.methods_lower_case.iter().any(|pattern| pattern.matches(folded))
    }
}

fn rule(draft: Draft, lines: &mut Lines) -> Rule {
    let line = lines.line(&draft.source, draft.span.start);
    let reason = draft.reason.clone().unwrap_or_else(|| match draft.effect {
        Effect::Allow => format!("the rule `{}` allows it", draft.name),
        Effect::Hold => format!("the rule `{}` asks for approval", draft.name),
        Effect::Deny => format!("the rule `{}` denies it", draft.name),
    });
    Rule {
        name: draft.name.into(),
        line,
        source: draft.source,
        effect: draft.effect,
        tools: draft.tools,
        servers: draft.servers,
        methods: draft.methods,
        condition: draft.when.map(Box::new),
        own_reason: draft.reason.is_some(),
        reason: reason.into(),
        terms: Arc::new(draft.terms),
        only_in: draft.only_in,
    }
}

/// Of one file its SHA-256; of several that of the list of theirs, sorted, one a line in hexadecimal digits. So it is the same wherever
/// the files are and in whatever order they are named, as neither means anything, and `sha256sum` can make it. (Such a list is no policy,
/// so no single file has the digest of several.)
fn digest_of(sources: &[Source]) -> Digest {
    let mut digests: Vec<Digest> = sources.iter().map(|source| Digest::of(source.text.as_bytes())).collect();
    if let [only] = digests.as_slice() {
        return *only;
    }
    digests.sort_unstable();
    let lines: Vec<String> = digests.iter().map(|digest| format!("{digest}\n")).collect();
    Digest::of(lines.concat().as_bytes())
}

fn open_default(source: &Arc<Source>, span: Range<usize>) -> Diagnostic {
    let message = "every call that no rule matches will run, also of a tool that a server adds later";
    Diagnostic::warning("P0206", source, span, message)
        .hint("`default: hold` and rules that allow what is harmless are safer".to_owned())
}

/// The lists of `confirm_tools` in several files are one list.
fn merge_lists(drafts: &mut Vec<Draft>) {
    let mut first: HashMap<String, usize> = HashMap::new();
    let mut merged: Vec<Draft> = Vec::with_capacity(drafts.len());
    for draft in drafts.drain(..) {
        let known = if draft.listed { first.get(&draft.name).copied() } else { None };
        match known {
            Some(at) => merged[at].tools.extend(draft.tools),
            None => {
                if draft.listed {
                    first.insert(draft.name.clone(), merged.len());
                }
                merged.push(draft);
            }
        }
    }
    *drafts = merged;
}

fn refuse_same_names(drafts: &[Draft], wrong: &[Written<String>], problems: &mut Vec<Diagnostic>) {
    let drafts = drafts.iter().map(|draft| (&draft.name, &draft.source, &draft.name_span));
    let names = drafts.chain(wrong.iter().map(|rule| (&rule.value, &rule.source, &rule.span)));
    let mut known = HashMap::new();
    for (name, source, span) in names {
        if let Some((first, at)) = known.insert(name, (source, span)) {
            let place = Diagnostic::error("P0014", first, Range::clone(at), "").position();
            let message = format!("two rules are called `{name}`");
            let hint = format!("the other one is in {} line {}", first.name, place.0);
            problems.push(Diagnostic::error("P0014", source, span.clone(), message).hint(hint));
        }
    }
}

/// Whether `path` is a file of test cases rather than a policy.
fn is_test_file(path: &Path) -> bool {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    name.ends_with(".test.yaml") || name.ends_with(".test.yml")
}
