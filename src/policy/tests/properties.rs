//! What holds for every document and every call: nothing panics, and restricting never widens.

use super::{
    super::{condition::Facts, pattern::Places},
    *,
};
use proptest::prelude::*;

const SEED: &str = "version: 1\ndefault: hold\nrules:\n  - name: a\n    tool: ['x*', \"y.z\"]\n    when: |\n      args.a.b > 1000 && !args.to.all(x, x.endsWith('@é.com')) || 'a' in args.l\n    action: hold\n    timeout: 1h 30m\n  - {name: b, method: m, when: {args.a: {not: {in: [1, 2.5, null]}}}, action: deny}\n";

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_edit_of_a_document_makes_the_reader_panic(
        edits in prop::collection::vec((0..SEED.len(), 0usize..12, "[ -~\n\té\u{202e}]{0,4}"), 1..6),
    ) {
        let mut text = SEED.to_owned();
        for (at, gone, new) in edits {
            let start = text.floor_char_boundary(at.min(text.len()));
            let end = text.ceil_char_boundary((start + gone).min(text.len()));
            text.replace_range(start..end, &new);
        }
        match parse(&text) {
            Ok(policy) => {
                let decision = judge(&policy, r#"y.z {"a": {"b": 1e3}, "to": ["x"], "l": [1, "b"]}"#);
                prop_assert_eq!(decision.effect == Effect::Hold, decision.terms.is_some());
            }
            Err(errors) => {
                prop_assert!(!errors.diagnostics().is_empty());
                prop_assert!(errors.render(true).len() >= errors.render(false).len());
            }
        }
    }

    #[test]
    fn no_condition_makes_the_compiler_panic(text in "[-a-z0-9.(){}\\[\\]\"'<>=!&|?:+*/%, \\\\\né]{0,60}") {
        if let Ok((condition, _)) = condition::on_compiler_stack(|| Condition::compile(&text)).unwrap() {
            let call = Call { server: "s", tool: Some("t"), arguments: r#"{"a": 1}"#, ..Call::default() };
            let _ = condition.is_met(&Facts::new(&call, false), Effect::Hold);
        }
    }

    #[test]
    fn no_arguments_make_a_decision_panic_or_pass_as_small(
        text in "\\PC{0,40}",
        digits in "-?[0-9]{1,25}(\\.[0-9]{1,25})?([eE][+-]?[0-9]{1,3})?",
    ) {
        let policy = policy("version: 1\nrules:\n  - {name: r, tool: t, action: allow, when: args.amount <= 100}\n");
        judge(&policy, &format!("t {text}"));
        let decision = judge(&policy, &format!("t {{\"amount\": {digits}}}"));
        let value: f64 = digits.parse().unwrap_or(f64::NAN);
        if decision.effect == Effect::Allow {
            prop_assert!(value <= 100.0, "{}", digits);
        }
    }

    #[test]
    fn a_further_rule_that_restricts_never_widens_a_decision(
        base in prop::collection::vec(rule_text(), 0..4),
        more in prop_oneof![Just("hold"), Just("deny")],
        pattern in pattern(),
        when in condition(),
        tool in "[ab]{1,2}",
        amount in prop_oneof![Just("1"), Just("50"), Just("\"50\""), Just("1e400"), Just("null")],
    ) {
        let document = |extra: &str| {
            let rules: String = base.iter().enumerate().map(|(at, rule)| rule.replace("NAME", &format!("r{at}"))).collect();
            parse(&format!("version: 1\ndefault: allow\nrules:\n{rules}{extra}")).unwrap()
        };
        let call = format!("{tool} {{\"n\": {amount}}}");
        let before = judge(&document("  []\n".trim_start_matches("  []\n")), &call);
        let after = judge(&document(&format!("  - {{name: extra, tool: '{pattern}', action: {more}{when}}}\n")), &call);
        prop_assert!(after.effect >= before.effect, "{:?} became {:?}", before, after);
    }

    #[test]
    fn an_explanation_agrees_with_the_decision(
        rules in prop::collection::vec(rule_text(), 0..5),
        server in "[ab]",
        tool in "[ab.]{1,3}",
        amount in prop_oneof![Just("1"), Just("50"), Just("\"50\""), Just("null")],
    ) {
        let rules: String = rules.iter().enumerate().map(|(at, rule)| rule.replace("NAME", &format!("r{at}"))).collect();
        let policy = policy(&format!("version: 1\nrules:\n{rules}"));
        let arguments = format!("{{\"n\": {amount}}}");
        let call = Call { server: &server, tool: Some(&tool), arguments: &arguments, ..Call::default() };
        let explanation = policy.explain(&call);
        let strictest = explanation.rules.iter().filter(|rule| rule.counts).map(|rule| rule.effect).max();
        prop_assert_eq!(strictest.unwrap_or(Effect::Hold), explanation.decision.effect);
        let decided: Vec<&str> = explanation.rules.iter().filter(|rule| rule.decided).map(|rule| &*rule.rule).collect();
        let named: Vec<&str> = explanation.decision.rules.iter().map(|rule| &**rule).collect();
        prop_assert_eq!(decided, named);
        for rule in &explanation.rules {
            prop_assert_eq!(rule.decided, rule.counts && Some(rule.effect) == strictest);
        }
    }

    #[test]
    fn the_index_finds_what_the_patterns_match(patterns in prop::collection::vec(pattern(), 1..8), name in "[ab./\\-]{1,5}") {
        let parsed: Vec<Pattern> = patterns.iter().map(|text| Pattern::parse(text).unwrap()).collect();
        let index = Index::new(parsed.iter().zip(0..)).unwrap();
        let mut found = Places::new();
        index.find(&name, &mut found);
        found.sort_unstable();
        found.dedup();
        let expected: Vec<u32> = (0..).zip(&parsed).filter(|(_, pattern)| pattern.matches(&name)).map(|(at, _)| at).collect();
        prop_assert_eq!(found.to_vec(), expected, "{:?} on {}", patterns, name);
    }
}

fn pattern() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("*".to_owned()),
        "[ab]{1,2}\\*?",
        "\\*[ab./]{1,2}",
        "[ab?]{1,3}",
        "\\*\\.[ab]",
        "\\*\\*/?[ab]"
    ]
}

fn condition() -> impl Strategy<Value = &'static str> {
    prop_oneof![
        Just(""),
        Just(", when: args.n > 10"),
        Just(", when: args.n == 50"),
        Just(", when: has(args.x)")
    ]
}

fn rule_text() -> impl Strategy<Value = String> {
    (prop_oneof![Just("allow"), Just("hold"), Just("deny")], pattern(), condition()).prop_map(
        |(action, pattern, when)| format!("  - {{name: NAME, tool: '{pattern}', action: {action}{when}}}\n"),
    )
}
