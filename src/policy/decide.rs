//! What a policy says of one call: which rules are about it, which of them count, and which decide.
//!
//! The heart of `policy`, asked by the gate for every call and by `explain`. It has no state, and asks nobody for anything.

use std::sync::Arc;

use smallvec::SmallVec;

use super::{
    Call, Decision, Effect, Mode, Policy, Rule, TIMEOUT_DEFAULT, TOOLS_CALL, UNMET, condition::Facts,
    pattern::Places,
};
use crate::hold::{HoldTerms, OnRejection, Remember};

/// The most notes of one decision: more conditions than this cannot fail usefully.
const NOTES_MAX: usize = 20;

impl Policy {
    /// What is to be done with `call`. Total: there is an answer to everything, and a malformed call is denied.
    pub fn decide(&self, call: &Call<'_>) -> Decision {
        if call.method == TOOLS_CALL && call.tool.is_none() {
            return self.without_rules(Mode::Enforce, Effect::Deny, "the call names no tool".into());
        }
        let mode = self.settings.mode(call);
        match mode {
            Mode::Disabled => {
                self.without_rules(mode, Effect::Allow, "the policy's mode is `disabled`".into())
            }
            Mode::Audit => {
                let decision = self.judge(call, mode);
                let would_have = (decision.effect != Effect::Allow).then_some(decision.effect);
                Decision { effect: Effect::Allow, would_have, ..decision }
            }
            Mode::Enforce | Mode::ConfirmTools | Mode::Blocking => self.judge(call, mode),
        }
    }

    /// Whether calls of `tool` are denied whatever their arguments, whoever makes them, and whenever.
    pub fn always_denies(&self, server: &str, tool: &str) -> bool {
        self.always_says(server, tool, &[Effect::Deny])
    }

    /// Whether no call of `tool` passes by itself, whatever its arguments: each is held or denied.
    pub fn never_allows(&self, server: &str, tool: &str) -> bool {
        self.always_says(server, tool, &[Effect::Deny, Effect::Hold])
    }

    /// Whether the decision on any call of `tool` is one of `effects`, which are the strictest.
    fn always_says(&self, server: &str, tool: &str, effects: &[Effect]) -> bool {
        let call = Call { server, tool: Some(tool), ..Call::default() };
        let mode = self.settings.mode(&call);
        if mode < Mode::Enforce {
            return false;
        }
        let candidates = self.candidates(&call);
        let rules = candidates.iter().filter_map(|&at| self.rules.get(at as usize));
        let mut may_differ = !effects.contains(&self.default_in(mode, false).0);
        for rule in rules.filter(|rule| rule.counts_in(mode)) {
            match (effects.contains(&rule.effect), &rule.condition) {
                (true, None) => return true,
                (true, Some(_)) => {}
                (false, _) => may_differ = true,
            }
        }
        !may_differ
    }

    /// What the rules say of `call` that count in `mode`.
    fn judge(&self, call: &Call<'_>, mode: Mode) -> Decision {
        let candidates = self.candidates(call);
        let facts = Facts::new(call, self.settings.trusts(call.server));
        let mut notes = Vec::new();
        for effect in [Effect::Deny, Effect::Hold, Effect::Allow] {
            let matched: SmallVec<[&Rule; 4]> = candidates
                .iter()
                .filter_map(|&at| self.rules.get(at as usize))
                .filter(|rule| {
                    rule.effect == effect && rule.counts_in(mode) && is_met(rule, &facts, &mut notes)
                })
                .collect();
            if !matched.is_empty() {
                return conclude(mode, effect, &matched, notes);
            }
        }
        let mut about = candidates.iter().filter_map(|&at| self.rules.get(at as usize));
        let is_unmet = about.any(|rule| rule.counts_in(mode));
        // A method other than `tools/call` passes unless a rule says otherwise: the default is about tools.
        let (effect, reason) = match (call.method == TOOLS_CALL, is_unmet) {
            (true, _) => self.default_in(mode, is_unmet),
            (false, true) => (Effect::Allow, format!("{UNMET} request is met").into()),
            (false, false) => (Effect::Allow, "no rule is about this request".into()),
        };
        let decision = self.without_rules(mode, effect, reason);
        Decision { notes, ..decision }
    }

    /// What happens in `mode` to a call that no rule matches, and why. `is_unmet`: although some are about it.
    pub(super) fn default_in(&self, mode: Mode, is_unmet: bool) -> (Effect, Arc<str>) {
        match mode {
            Mode::Blocking if self.default < Effect::Deny => {
                (Effect::Hold, "every call waits: the mode is `blocking`".into())
            }
            Mode::ConfirmTools if self.default < Effect::Hold => {
                (Effect::Hold, "the tool is not on the list of approved ones".into())
            }
            _ if is_unmet => (self.default, Arc::clone(&self.unmet_reason)),
            _ => (self.default, Arc::clone(&self.default_reason)),
        }
    }

    fn without_rules(&self, mode: Mode, effect: Effect, reason: Arc<str>) -> Decision {
        Decision {
            effect,
            mode,
            would_have: None,
            rules: Vec::new(),
            reason,
            terms: (effect == Effect::Hold).then(|| Arc::clone(&self.default_terms)),
            on_rejection: OnRejection::default(),
            notes: Vec::new(),
        }
    }

    /// The rules whose tool, method and server fit, in the order of the files.
    pub(super) fn candidates(&self, call: &Call<'_>) -> Places {
        let mut found = Places::new();
        if let Some(tool) = call.tool
            && call.method == TOOLS_CALL
        {
            self.tools.find(tool, &mut found);
            if tool.contains('.') {
                // A server chooses its tools' names. Were `billing.get_order` on the server `evil` the tool of that name on
                // `billing`, it would profit from the rule that allows this one. To restrict, the bare name is enough.
                found.retain(|&mut at| {
                    self.rules.get(at as usize).is_some_and(|rule| rule.effect != Effect::Allow)
                });
            }
            let mut full = String::with_capacity(call.server.len() + 1 + tool.len());
            full.push_str(call.server);
            full.push('.');
            full.push_str(tool);
            self.tools.find(&full, &mut found);
            found.extend_from_slice(&self.every_tool);
        }
        let by_method = |at: &&u32| {
            let rule = self.rules.get(**at as usize);
            rule.is_some_and(|rule| rule.methods.iter().any(|pattern| pattern.matches(call.method)))
        };
        found.extend(self.methods.iter().filter(by_method).copied());
        found.retain(|&mut at| {
            self.rules.get(at as usize).is_some_and(|rule| rule.concerns_server(call.server))
        });
        found.sort_unstable();
        found.dedup();
        found
    }
}

impl Rule {
    /// Whether it is asked in `mode`: the lists of `confirm_tools` elsewhere not, and where everything waits, nothing allows.
    pub(super) fn counts_in(&self, mode: Mode) -> bool {
        self.only_in.is_none_or(|only| only == mode)
            && !(mode == Mode::Blocking && self.effect == Effect::Allow)
    }
}

/// Whether the rule's condition is met. INVARIANT: an error is met in a rule that restricts and not met in one that allows.
fn is_met(rule: &Rule, facts: &Facts<'_>, notes: &mut Vec<String>) -> bool {
    let Some(condition) = &rule.condition else { return true };
    match condition.is_met(facts, rule.effect) {
        Ok(met) => met,
        Err(unanswered) => {
            let met = rule.effect != Effect::Allow;
            if notes.len() < NOTES_MAX {
                let meaning = if met { "so it counts as met" } else { "so the rule does not allow it" };
                let name = &rule.name;
                notes.push(format!("the condition of rule `{name}` has no answer ({unanswered}), {meaning}"));
            }
            met
        }
    }
}

/// The decision of the rules that matched, all of one effect and at least one.
fn conclude(mode: Mode, effect: Effect, matched: &[&Rule], notes: Vec<String>) -> Decision {
    let terms = match matched {
        [only] => Arc::clone(&only.terms),
        several => Arc::new(together(several)),
    };
    Decision {
        effect,
        mode,
        would_have: None,
        rules: matched.iter().map(|rule| Arc::clone(&rule.name)).collect(),
        reason: reason(matched),
        on_rejection: terms.on_rejection,
        terms: (effect == Effect::Hold).then_some(terms),
        notes,
    }
}

/// The terms of several rules: what each of them asks for, and of all else the strictest.
fn together(several: &[&Rule]) -> HoldTerms {
    let terms = || several.iter().map(|rule| &rule.terms);
    let fails = terms().any(|terms| terms.on_rejection == OnRejection::Fail);
    let mut remember = terms().map(|terms| terms.remember);
    let first = remember.next().flatten();
    HoldTerms {
        timeout: terms().map(|terms| terms.timeout).min().unwrap_or(TIMEOUT_DEFAULT),
        hold_message: terms().find_map(|terms| terms.hold_message.clone()),
        on_rejection: if fails { OnRejection::Fail } else { OnRejection::Continue },
        requirements: terms().flat_map(|terms| terms.requirements.clone()).collect(),
        required_rejections: terms().map(|terms| terms.required_rejections).min().unwrap_or(1),
        remind: terms().filter_map(|terms| terms.remind).min(),
        notify: union(terms().map(|terms| &terms.notify)),
        remember: remember.fold(first, |all, one| Some(Remember::both(all?, one?))),
        may_edit: terms().all(|terms| terms.may_edit),
        grant: terms().filter_map(|terms| terms.grant).min(),
        may_elicit: terms().all(|terms| terms.may_elicit),
    }
}

/// Each name once.
fn union<'a>(lists: impl Iterator<Item = &'a Vec<Box<str>>>) -> Vec<Box<str>> {
    let mut all: Vec<Box<str>> = Vec::new();
    for name in lists.flatten() {
        if !all.contains(name) {
            all.push(name.clone());
        }
    }
    all
}

/// The authors' reasons, each once; where there are none, which rule it was.
fn reason(matched: &[&Rule]) -> Arc<str> {
    let mut reasons: Vec<&Arc<str>> = Vec::new();
    for rule in matched.iter().filter(|rule| rule.own_reason) {
        if !reasons.contains(&&rule.reason) {
            reasons.push(&rule.reason);
        }
    }
    match (reasons.as_slice(), matched) {
        ([], [first, ..]) => Arc::clone(&first.reason),
        ([only], _) => Arc::clone(only),
        (several, _) => several.iter().map(|reason| reason.as_ref()).collect::<Vec<_>>().join("; ").into(),
    }
}
