//! Modes: of a policy, of a server, of a tool.

use super::*;

const RULES: &str = "rules:\n  - {name: read, tool: read, action: allow}\n  - {name: write, tool: write, action: hold, timeout: 5m}\n  - {name: wipe, tool: wipe, action: deny}\n";

fn with(head: &str) -> Policy {
    policy(&format!("version: 1\n{head}\n{RULES}"))
}

fn effects(policy: &Policy) -> Vec<(Effect, Option<Effect>)> {
    ["read", "write", "wipe", "other"]
        .map(|tool| judge(policy, tool))
        .map(|decision| (decision.effect, decision.would_have))
        .to_vec()
}

#[test]
fn a_mode_says_how_far_the_rules_act() {
    use Effect::{Allow, Deny, Hold};
    for (mode, expected) in [
        ("enforce", [(Allow, None), (Hold, None), (Deny, None), (Hold, None)]),
        ("blocking", [(Hold, None), (Hold, None), (Deny, None), (Hold, None)]),
        ("confirm_tools", [(Allow, None), (Hold, None), (Deny, None), (Hold, None)]),
        ("audit", [(Allow, None), (Allow, Some(Hold)), (Allow, Some(Deny)), (Allow, Some(Hold))]),
        ("disabled", [(Allow, None); 4]),
    ] {
        assert_eq!(effects(&with(&format!("mode: {mode}"))), expected, "{mode}");
    }
    let decision = judge(&with("mode: audit"), "write");
    assert_eq!(
        (&*decision.rules[0], decision.mode),
        ("write", Mode::Audit),
        "it says which rule it would have been"
    );
    assert_eq!(decision.terms.unwrap().timeout, Duration::from_secs(300), "and what it would have needed");
}

#[test]
fn lists_say_which_tools_need_no_confirmation_and_which_never_run() {
    let policy = with(
        "mode: confirm_tools\ndefault: allow\napproved_tools: [search, write, 'mail.*']\nblocked_tools: drop",
    );
    allow!(policy, "search");
    allow!(policy, "mail.read");
    hold!(policy, "other");
    deny!(policy, "drop");
    hold!(policy, "write");
    assert_eq!(&*judge(&policy, "search").rules[0], "approved_tools");
    let policy = with("mode: enforce\napproved_tools: search\nblocked_tools: drop");
    hold!(policy, "search");
    deny!(policy, "drop");
}

#[test]
fn the_nearest_mode_counts_and_of_several_the_strictest() {
    let policy = with(
        "mode: audit\nservers: {'bill*': {mode: enforce}, billing: {mode: disabled}, lab: {mode: disabled}}\n\
         tools: {lab.wipe: {mode: blocking}, write: {mode: audit}}",
    );
    assert_eq!(judge(&policy, "x.wipe").would_have, Some(Effect::Deny), "the policy's own");
    deny!(policy, "billing.wipe");
    allow!(policy, "lab.other");
    assert_eq!(judge(&policy, "lab.other").mode, Mode::Disabled);
    deny!(policy, "lab.wipe");
    assert_eq!(judge(&policy, "billing.write").would_have, Some(Effect::Hold), "a tool's before a server's");
    let dotted = Call { server: "billing", tool: Some("lab.wipe"), ..Call::default() };
    assert_eq!(policy.decide(&dotted).mode, Mode::Enforce, "a tool cannot take the name of another server's");
}

#[test]
fn of_several_files_the_strictest_mode_counts() {
    let source = |name: &str, text: String| Source { name: name.to_owned(), text };
    let both = |a: &str, b: &str| {
        let sources =
            vec![source("a", format!("version: 1\n{a}\n{RULES}")), source("b", format!("version: 1\n{b}\n"))];
        Policy::parse(sources).unwrap().mode()
    };
    assert_eq!(both("mode: audit", "mode: enforce"), Mode::Enforce);
    assert_eq!(both("mode: audit", ""), Mode::Audit);
    assert_eq!(both("", ""), Mode::Enforce);
}

#[test]
fn a_mode_that_lets_all_run_is_warned_of_and_explained() {
    for mode in ["audit", "disabled"] {
        assert!(
            with(&format!("mode: {mode}")).warnings().iter().any(|found| found.code() == "P0208"),
            "{mode}"
        );
    }
    let call = Call { server: "s", tool: Some("read"), ..Call::default() };
    let explanation = with("mode: blocking").explain(&call);
    assert_eq!(explanation.rules[0].answer, Answer::OtherMode);
    assert_eq!(explanation.decision.effect, Effect::Hold);
}

#[test]
fn a_tool_is_always_denied_only_where_no_argument_could_let_it_run() {
    let rules = "rules:\n  - {name: never, tool: wipe, action: deny}\n  \
        - {name: large, tool: pay, when: args.amount > 5, action: deny}\n  \
        - {name: here, tool: look, server: lab, action: deny}\n  - {name: read, tool: read, action: allow}\n  \
        - {name: night, tool: read, when: args.x == 1, action: deny}\n";
    let always = |head: &str| {
        let policy = policy(&format!("version: 1\n{head}\n{rules}"));
        ["wipe", "pay", "look", "read", "other"].map(|tool| policy.always_denies("s", tool))
    };
    assert_eq!(always("default: allow"), [true, false, false, false, false]);
    assert_eq!(always("default: deny"), [true, true, true, false, true]);
    assert_eq!(always("mode: audit"), [false; 5]);
    assert_eq!(always("default: deny\ntools: {wipe: {mode: disabled}}"), [false, true, true, false, true]);
    assert_eq!(always("mode: blocking"), [true, false, false, false, false]);
}
