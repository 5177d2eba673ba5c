//! Why a call is decided as it is: what each rule says of it, beside the decision itself.
//!
//! Called by `holdshort policy explain`, never by the gate. The decision is the one of [`Policy::decide`], and which rules
//! are asked is found by the same code; only the words for those that are not about the call are found here.

use std::sync::Arc;

use serde::{Serialize, de::IgnoredAny};

use super::{
    Call, Decision, Effect, Mode, Policy, Rule, TOOLS_CALL,
    condition::Facts,
    diagnostic::{Diagnostic, PolicyErrors, Source},
};
use crate::hold::OnRejection;

/// A decision and how it came about.
#[derive(Clone, Debug)]
pub struct Explanation {
    /// What the policy says of the call.
    pub decision: Decision,
    /// What happens to a call that no rule matches; for a method other than `tools/call` it passes.
    pub default: Effect,
    /// What each rule says of it, in the order of the files.
    pub rules: Vec<RuleAnswer>,
}

/// What one rule says of a call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RuleAnswer {
    /// The rule's name.
    pub rule: String,
    /// The file where it is written.
    pub file: String,
    /// The line there, from 1.
    pub line: usize,
    /// What it says of the calls that it is about.
    pub effect: Effect,
    /// Whether it is about this call, and if not, why.
    pub answer: Answer,
    /// Its condition as an expression.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub condition: Option<String>,
    /// What it is about where that is why it does not match, or why its condition has no answer. Nothing of the arguments.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// Whether it counts: it matched, or it restricts and its condition could not be evaluated.
    pub counts: bool,
    /// Whether it is one of those that decided: it counts and no stricter rule does.
    pub decided: bool,
}

/// Whether a rule is about a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// It is: everything in it fits.
    Matched,
    /// It is about other methods.
    OtherMethod,
    /// It is about other tools.
    OtherTool,
    /// It allows a tool of another server that has such a name; a tool cannot take it for itself by its own name.
    NameOfAnotherServer,
    /// It is about other servers.
    OtherServer,
    /// It does not count in the mode that is set for this call.
    OtherMode,
    /// Its condition is false.
    ConditionFalse,
    /// Its condition could not be evaluated: met in a rule that restricts, not met in one that allows.
    ConditionUnanswered,
}

impl Answer {
    /// The words for people.
    pub fn words(self) -> &'static str {
        match self {
            Self::Matched => "matched",
            Self::OtherMethod => "not about this method",
            Self::OtherTool => "not about this tool",
            Self::NameOfAnotherServer => "names a tool of another server",
            Self::OtherServer => "not about this server",
            Self::OtherMode => "does not count in this mode",
            Self::ConditionFalse => "its condition is false",
            Self::ConditionUnanswered => "its condition could not be evaluated",
        }
    }
}

impl Serialize for Explanation {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Terms<'a> {
            timeout_seconds: u64,
            #[serde(skip_serializing_if = "Option::is_none")]
            hold_message: Option<&'a str>,
            requirements: Vec<String>,
        }
        #[derive(Serialize)]
        struct View<'a> {
            effect: Effect,
            mode: Mode,
            #[serde(skip_serializing_if = "Option::is_none")]
            would_have: Option<Effect>,
            decided_by: Vec<&'a str>,
            default: Effect,
            reason: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            terms: Option<Terms<'a>>,
            on_rejection: OnRejection,
            notes: &'a [String],
            rules: &'a [RuleAnswer],
        }
        let decision = &self.decision;
        let terms = decision.terms.as_deref().map(|terms| Terms {
            timeout_seconds: terms.timeout.as_secs(),
            hold_message: terms.hold_message.as_deref(),
            requirements: terms.requirements.iter().map(ToString::to_string).collect(),
        });
        View {
            effect: decision.effect,
            mode: decision.mode,
            would_have: decision.would_have,
            decided_by: decision.rules.iter().map(|rule| &**rule).collect(),
            default: self.default,
            reason: &decision.reason,
            terms,
            on_rejection: decision.on_rejection,
            notes: &decision.notes,
            rules: &self.rules,
        }
        .serialize(serializer)
    }
}

impl Policy {
    /// What is to be done with `call`, with the answer of every rule.
    pub fn explain(&self, call: &Call<'_>) -> Explanation {
        let decision = self.decide(call);
        let candidates = self.candidates(call);
        let facts = Facts::new(call, self.settings.trusts(call.server));
        let mode = decision.mode;
        let rules = (0..)
            .zip(&self.rules)
            .map(|(at, rule)| {
                let about = candidates.binary_search(&at).is_ok();
                let (answer, detail) = match (about, mode == Mode::Disabled || !rule.counts_in(mode)) {
                    (false, _) => not_about(rule, call),
                    (true, true) => (Answer::OtherMode, Some(mode.word().to_owned())),
                    (true, false) => asked(rule, &facts),
                };
                let counts = match answer {
                    Answer::Matched => true,
                    Answer::ConditionUnanswered => rule.effect != Effect::Allow,
                    _ => false,
                };
                let (file, line) = rule.place();
                RuleAnswer {
                    rule: rule.name().to_owned(),
                    file: file.to_owned(),
                    line,
                    effect: rule.effect,
                    answer,
                    condition: rule.condition().map(str::to_owned),
                    detail,
                    counts,
                    decided: counts && decision.rules.contains(&rule.name),
                }
            })
            .collect();
        let (default, _) = self.default_in(mode, false);
        Explanation { decision, default, rules }
    }
}

/// The answer of a rule whose patterns fit.
fn asked(rule: &Rule, facts: &Facts<'_>) -> (Answer, Option<String>) {
    match rule.condition.as_ref().map(|condition| condition.is_met(facts, rule.effect)) {
        None | Some(Ok(true)) => (Answer::Matched, None),
        Some(Ok(false)) => (Answer::ConditionFalse, None),
        Some(Err(unanswered)) => (Answer::ConditionUnanswered, Some(unanswered.to_string())),
    }
}

/// Why a rule's patterns do not fit.
fn not_about(rule: &Rule, call: &Call<'_>) -> (Answer, Option<String>) {
    let listed = |patterns: Vec<&str>| Some(patterns.join(", "));
    if rule.names_methods() {
        if !rule.methods.iter().any(|pattern| pattern.matches(call.method)) {
            return (Answer::OtherMethod, listed(rule.methods().collect()));
        }
    } else if call.method != TOOLS_CALL {
        return (Answer::OtherMethod, listed(vec![TOOLS_CALL]));
    } else if let Some(tool) = call.tool
        && !rule.tools.is_empty()
    {
        let full = format!("{}.{tool}", call.server);
        if !rule.tools.iter().any(|pattern| pattern.matches(&full)) {
            let bare = rule.tools.iter().any(|pattern| pattern.matches(tool));
            let taken = bare && rule.effect == Effect::Allow && tool.contains('.');
            if taken || !bare {
                let answer = if taken { Answer::NameOfAnotherServer } else { Answer::OtherTool };
                return (answer, listed(rule.tools().collect()));
            }
        }
    }
    (Answer::OtherServer, listed(rule.servers().collect()))
}

/// Checks that `text` can be the arguments of a call: one JSON object. For arguments that a person has typed.
///
/// # Errors
/// With the place where it stops being one.
pub fn check_arguments(text: &str) -> Result<(), PolicyErrors> {
    let fail = |at: usize, message: String| {
        let source = Arc::new(Source { name: "the arguments".to_owned(), text: text.to_owned() });
        let end = text[at..].chars().next().map_or(at, |letter| at + letter.len_utf8());
        let hint = "write one JSON object, such as {\"amount\": 5}".to_owned();
        Err(PolicyErrors::new(vec![Diagnostic::error("P0303", &source, at..end, message).hint(hint)]))
    };
    if let Err(error) = serde_json::from_str::<IgnoredAny>(text) {
        let line: usize = text.split_inclusive('\n').take(error.line().saturating_sub(1)).map(str::len).sum();
        let at = text.floor_char_boundary((line + error.column().saturating_sub(1)).min(text.len()));
        let told = error.to_string();
        let told = told.split(" at line ").next().unwrap_or(&told);
        return fail(at, format!("not JSON: {told}"));
    }
    let start = text.len() - text.trim_start().len();
    if !text[start..].starts_with('{') {
        return fail(start, "the arguments of a call are an object".to_owned());
    }
    Ok(())
}
