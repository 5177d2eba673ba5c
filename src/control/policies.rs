//! The policy in force as operators see it: what the desk shows and `doctor` judges.
//!
//! Made by `server` from the gate's policy. Carries the words of whoever wrote it; whoever shows them renders them.

use serde::{Deserialize, Serialize};

use crate::policy::{Effect, Policy, Rule};

/// A policy.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PolicyView {
    /// Its digest.
    pub sha256: String,
    /// How far it acts.
    pub mode: String,
    /// What it says of a call that no rule matches.
    pub default: Effect,
    /// Its rules, in the order of the files.
    pub rules: Vec<RuleView>,
    /// What is doubtful in it.
    pub warnings: Vec<String>,
    /// How many people it names.
    pub people: usize,
}

/// One rule.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RuleView {
    /// Its name.
    pub name: String,
    /// What it says.
    pub action: Effect,
    /// Patterns of tools; none: every tool.
    pub tools: Vec<String>,
    /// Patterns of servers; none: every server.
    pub servers: Vec<String>,
    /// Patterns of methods; none: calls of tools.
    pub methods: Vec<String>,
    /// Its condition.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub when: Option<String>,
    /// Why, in its author's words.
    pub reason: String,
    /// Who has to say yes, of a rule that holds; none: one person.
    pub requirements: Vec<String>,
    /// How long people have, in seconds, of a rule that holds.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub timeout_seconds: Option<u64>,
    /// Where it is written: file and line.
    pub place: String,
}

impl PolicyView {
    /// The policy, with its rules.
    pub fn new(policy: &Policy) -> Self {
        Self {
            sha256: policy.digest().to_string(),
            mode: policy.mode().word().to_owned(),
            default: policy.default_effect(),
            rules: policy.rules().iter().map(RuleView::new).collect(),
            warnings: policy
                .warnings()
                .iter()
                .map(|warning| format!("{} {}", warning.code(), warning.message()))
                .collect(),
            people: policy.people().len(),
        }
    }
}

impl RuleView {
    fn new(rule: &Rule) -> Self {
        let owned = |words: &mut dyn Iterator<Item = &str>| words.map(str::to_owned).collect();
        let holds = rule.effect() == Effect::Hold;
        let (file, line) = rule.place();
        Self {
            name: rule.name().to_owned(),
            action: rule.effect(),
            tools: owned(&mut rule.tools()),
            servers: owned(&mut rule.servers()),
            methods: owned(&mut rule.methods()),
            when: rule.condition().map(str::to_owned),
            reason: rule.reason().to_owned(),
            requirements: rule.requirements().iter().map(ToString::to_string).collect(),
            timeout_seconds: holds.then(|| rule.timeout().as_secs()),
            place: format!("{file}:{line}"),
        }
    }
}
