//! What `holdshort policy` prints.

use std::{
    collections::BTreeMap,
    io::{self, IsTerminal},
};

use super::{Table, field, json, json_line, line, sanitize, say, talk};
use crate::{
    control::api::PolicyReloaded,
    exit::Exit,
    hold::OnRejection,
    policy::{
        Answer, Converted, Diagnostic, Difference, Direction, Effect, Explanation, Mode, Policy,
        PolicyErrors, ReplayedCall, Report, RuleAnswer,
    },
    view::counted,
};

/// The longest condition or list in a row, in characters.
const ANSWER_CHARS_MAX: usize = 80;

/// Says all that is wrong with a policy.
pub(in crate::cli) fn policy_errors(errors: &PolicyErrors) -> Exit {
    say(&errors.render(io::stderr().is_terminal()));
    Exit::Usage
}

/// Says what is odd in a policy that works.
pub(in crate::cli) fn warnings(warnings: &[Diagnostic]) {
    for warning in warnings {
        say(&warning.render(io::stderr().is_terminal()));
    }
}

/// A policy that can be used.
pub(in crate::cli) fn checked(policy: &Policy) {
    line(&format!("good: {}, sha256 {}", counted(policy.rules().len(), "rule"), policy.digest()));
}

/// What a policy would have done to recorded calls: each of them as JSON, or how many of each tool.
pub(in crate::cli) fn replayed(calls: &[ReplayedCall], as_json: bool) {
    if as_json {
        return calls.iter().for_each(json_line);
    }
    let mut counts: BTreeMap<(&str, &str, String), usize> = BTreeMap::new();
    for call in calls {
        let effect = call.effect.map_or("cannot tell", Effect::word);
        *counts.entry((&call.subject, effect, call.rules.join(", "))).or_default() += 1;
    }
    let mut table = Table::new(["CALLS", "WOULD", "TOOL", "RULES"], &[2, 3]);
    for ((subject, effect, rules), count) in &counts {
        table.add([
            count.to_string(),
            (*effect).to_owned(),
            sanitize::render(subject),
            sanitize::render(rules),
        ]);
    }
    table.print();
    let of = |effect| calls.iter().filter(|call| call.effect == effect).count();
    talk(&format!(
        "{}: {} would run, {} would wait, {} would be denied, of {} it cannot be told",
        counted(calls.len(), "call"),
        of(Some(Effect::Allow)),
        of(Some(Effect::Hold)),
        of(Some(Effect::Deny)),
        of(None)
    ));
}

/// What became of a policy that a gate was asked to read again.
pub(in crate::cli) fn reloaded(gate: &str, reloaded: &PolicyReloaded) {
    let what = if reloaded.changed { "now in force" } else { "unchanged" };
    let rules = counted(reloaded.rules, "rule");
    line(&format!("gate {gate}: {what}: {rules}, sha256 {}", reloaded.policy_sha256));
}

/// What the cases of one file came to.
pub(in crate::cli) fn tested(report: &Report) {
    line(&report.file);
    for case in &report.cases {
        let mark = if case.passed() { "ok  " } else { "FAIL" };
        line(&format!("  {mark} {} ({}): {}", case.name, case.subject, case.actual));
        if !case.passed() {
            line(&format!(
                "       line {}: expected {}{}",
                case.line,
                case.expected,
                by(case.expected_rules.as_deref())
            ));
            line(&format!("       decided{}: {}", by(Some(&case.actual_rules)), case.reason));
        }
    }
    for rule in &report.untested_rules {
        line(&format!("  note rule `{rule}` decides none of the cases"));
    }
    line(&format!("  {}, {} failed", counted(report.cases.len(), "case"), report.failures()));
}

fn by(rules: Option<&[String]>) -> String {
    match rules {
        Some([]) => " by the default".to_owned(),
        Some(rules) => format!(" by {}", rules.join(", ")),
        None => String::new(),
    }
}

/// Why a call is decided as it is.
pub(in crate::cli) fn explained(explanation: &Explanation, subject: &str, as_json: bool) {
    if as_json {
        return json(explanation);
    }
    let decision = &explanation.decision;
    let names: Vec<String> = decision.rules.iter().map(|rule| rule.to_string()).collect();
    field("call", sanitize::render(subject));
    field("decision", format!("{}{}", decision.effect, by(Some(&names))));
    if decision.mode != Mode::Enforce {
        let would =
            decision.would_have.map_or_else(String::new, |effect| format!("; `enforce` would say {effect}"));
        field("mode", format!("{}{would}", decision.mode.word()));
    }
    field("reason", sanitize::render(&decision.reason));
    if let Some(terms) = &decision.terms {
        field(
            "timeout",
            format!("{:#}", jiff::SignedDuration::from_secs(terms.timeout.as_secs().cast_signed())),
        );
        for requirement in &terms.requirements {
            field("approvals", sanitize::render(&requirement.to_string()));
        }
        if let Some(message) = &terms.hold_message {
            field("message", sanitize::render(message));
        }
    }
    if decision.effect != Effect::Allow {
        let told = match decision.on_rejection {
            OnRejection::Continue => "continue: the agent reads the reason and goes on",
            OnRejection::Fail => "fail: the call is an error in the client",
        };
        field("refusal", told);
    }
    for note in &decision.notes {
        field("note", sanitize::render(note));
    }
    if explanation.rules.is_empty() {
        return talk("the policy has no rules");
    }
    let mut table = Table::new(["", "RULE", "SAYS", "ANSWER", "PLACE"], &[1, 3, 4]);
    for rule in &explanation.rules {
        let mark = match (rule.decided, rule.counts) {
            (true, _) => "=>",
            (false, true) => "+",
            (false, false) => "",
        };
        table.add([
            mark.to_owned(),
            sanitize::render(&rule.rule),
            rule.effect.to_string(),
            answer(rule),
            format!("{}:{}", sanitize::render(&rule.file), rule.line),
        ]);
    }
    table.print();
    talk("=> decided; + matched, but a stricter rule decided");
}

/// What a rule says of a call, with what it says that of.
fn answer(rule: &RuleAnswer) -> String {
    let words = rule.answer.words();
    let detail = rule.detail.as_deref().map(|detail| sanitize::render_cut(detail, ANSWER_CHARS_MAX).text);
    let condition = rule.condition.as_deref().map(|text| sanitize::render_cut(text, ANSWER_CHARS_MAX).text);
    match (rule.answer, detail, condition) {
        (Answer::Matched, _, Some(condition)) => format!("{words}: {condition}"),
        (Answer::ConditionFalse, _, Some(condition)) => format!("{words}: {condition}"),
        (Answer::ConditionUnanswered, Some(detail), _) if rule.counts => {
            format!("{words}, so it counts as met: {detail}")
        }
        (Answer::ConditionUnanswered, Some(detail), _) => {
            format!("{words}, so it does not allow the call: {detail}")
        }
        (_, Some(detail), _) => format!("{words}, but: {detail}"),
        (_, None, _) => words.to_owned(),
    }
}

/// A policy in the native form.
pub(in crate::cli) fn converted(converted: &Converted) {
    warnings(&converted.warnings);
    if converted.was_native {
        talk("this is the native form already");
    }
    line(converted.text.trim_end());
}

/// What is different between two policies.
pub(in crate::cli) fn difference(difference: &Difference, as_json: bool) {
    if as_json {
        return json(difference);
    }
    for change in &difference.changes {
        let rule = change.rule.as_deref().map_or_else(|| "default".to_owned(), sanitize::render);
        line(&format!("{:<9} {rule}: {}", change.direction.word(), sanitize::render(&change.what)));
    }
    for case in &difference.cases {
        line(&format!(
            "{:<9} case {} ({}): was {} and is {}",
            case.direction.word(),
            sanitize::render(&case.case),
            sanitize::render(&case.subject),
            case.before,
            case.after
        ));
    }
    talk(match difference.direction() {
        Direction::Same => "every call is decided as before",
        Direction::Stricter => "no call becomes wider",
        Direction::Unknown => "whether a call becomes wider cannot be told: look at what is unknown",
        Direction::Wider => "some calls may become wider",
    });
}
