//! Differences between policies: what is called wider, and that nothing else ever is.

use super::*;
use crate::policy::diff::{Change, Direction, compare};
use proptest::prelude::*;

/// The changes from `before` to `after`, each as its direction and its rule.
fn changes(before: &str, after: &str) -> Vec<(Direction, String)> {
    let short = |change: Change| (change.direction, change.rule.unwrap_or_else(|| "default".to_owned()));
    compare(&policy(before), &policy(after)).into_iter().map(short).collect()
}

fn rules(rules: &[&str]) -> String {
    let rules: String = rules.iter().map(|rule| format!("  - {{{rule}}}\n")).collect();
    format!("version: 1\nrules:\n{rules}")
}

#[test]
fn every_change_is_wider_or_stricter_or_said_to_be_unknown() {
    use Direction::{Same, Stricter, Unknown, Wider};
    const BASE: &str = "name: r, tool: pay, action: hold, when: args.n > 100, timeout: 10m";
    for (after, expected) in [
        (BASE, None),
        ("name: r, tool: pay, action: hold, when: {args.n: {gt: 100}}, timeout: 600s", None),
        ("name: r, tool: pay, action: deny, when: args.n > 100", Some(Stricter)),
        ("name: r, tool: pay, action: allow, when: args.n > 100", Some(Wider)),
        ("name: r, tool: pay, action: hold, timeout: 10m", Some(Stricter)),
        ("name: r, tool: pay, action: hold, when: args.n > 200, timeout: 10m", Some(Wider)),
        ("name: r, tool: pay, action: hold, when: args.n > 50, timeout: 10m", Some(Stricter)),
        ("name: r, tool: pay, action: hold, when: args.n < 100, timeout: 10m", Some(Unknown)),
        ("name: r, tool: pay, action: hold, when: args.m > 100, timeout: 10m", Some(Unknown)),
        ("name: r, tool: [pay, refund], action: hold, when: args.n > 100, timeout: 10m", Some(Stricter)),
        ("name: r, tool: 'p*', action: hold, when: args.n > 100, timeout: 10m", Some(Stricter)),
        ("name: r, action: hold, when: args.n > 100, timeout: 10m", Some(Stricter)),
        ("name: r, tool: refund, action: hold, when: args.n > 100, timeout: 10m", Some(Unknown)),
        ("name: r, tool: pay, server: bank, action: hold, when: args.n > 100, timeout: 10m", Some(Wider)),
        ("name: r, tool: pay, action: hold, when: args.n > 100, timeout: 20m", Some(Wider)),
        ("name: r, tool: pay, action: hold, when: args.n > 100, timeout: 5m", Some(Stricter)),
        ("name: r, tool: pay, action: hold, when: args.n > 100, timeout: 10m, reason: x", Some(Same)),
        (
            "name: r, tool: pay, action: hold, when: args.n > 100, timeout: 10m, on_rejection: fail",
            Some(Same),
        ),
        ("name: other, tool: pay, action: hold, when: args.n > 100, timeout: 10m", Some(Same)),
    ] {
        let found: Vec<Direction> =
            changes(&rules(&[BASE]), &rules(&[after])).into_iter().map(|(direction, _)| direction).collect();
        assert_eq!(found, Vec::from_iter(expected), "{after}");
    }
}

#[test]
fn a_rule_more_or_less_is_judged_by_what_its_calls_meet_without_it() {
    use Direction::{Same, Stricter, Wider};
    for (default, rule, more, less) in [
        ("hold", "tool: t, action: allow", Wider, Stricter),
        ("hold", "tool: t, action: hold", Stricter, Wider),
        ("hold", "tool: t, action: hold, timeout: 2h", Wider, Wider),
        ("hold", "tool: t, action: deny", Stricter, Wider),
        ("deny", "tool: t, action: hold", Wider, Wider),
        ("deny", "tool: t, action: deny", Stricter, Wider),
        ("allow", "tool: t, action: allow", Same, Same),
        ("allow", "tool: t, action: hold", Stricter, Wider),
        ("deny", "method: resources/read, action: hold", Stricter, Wider),
        ("deny", "method: resources/read, action: allow", Same, Same),
        ("deny", "method: '*', action: allow", Wider, Stricter),
    ] {
        let without = format!("version: 1\ndefault: {default}\n");
        let with = format!("{without}rules:\n  - {{name: r, {rule}}}\n");
        assert_eq!(changes(&without, &with), [(more, "r".to_owned())], "{default} and {rule}");
        assert_eq!(changes(&with, &without), [(less, "r".to_owned())], "{default} without {rule}");
    }
    let default = |effect| format!("version: 1\ndefault: {effect}\n");
    assert_eq!(changes(&default("hold"), &default("allow")), [(Wider, "default".to_owned())]);
    assert_eq!(changes(&default("hold"), &default("deny")), [(Stricter, "default".to_owned())]);
}

#[test]
fn what_becomes_wider_is_told_first() {
    let before = rules(&["name: a, tool: a, action: hold", "name: b, tool: b, action: hold"]);
    let after = rules(&[
        "name: a, tool: a, action: deny",
        "name: b, tool: b, action: allow",
        "name: c, tool: c, action: deny",
    ]);
    let found: Vec<String> =
        compare(&policy(&before), &policy(&after)).into_iter().map(|change| change.what).collect();
    assert_eq!(found, ["was hold and is allow", "was hold and is deny", "added: deny tool c"]);
}

fn some_rule() -> impl Strategy<Value = (&'static str, &'static str, &'static str)> {
    (
        prop_oneof![Just("allow"), Just("hold"), Just("deny")],
        prop_oneof![
            Just("'*'"),
            Just("a"),
            Just("s.a"),
            Just("'s.*'"),
            Just("[a, b]"),
            Just("'*a'"),
            Just("s.a.b")
        ],
        prop_oneof![
            Just(""),
            Just(", when: args.n > 10"),
            Just(", when: args.n > 50"),
            Just(", when: args.n <= 50"),
            Just(", server: s")
        ],
    )
}

fn some_policy() -> impl Strategy<Value = String> {
    let default = prop_oneof![Just("allow"), Just("hold"), Just("deny")];
    (default, prop::collection::vec(prop::option::of(some_rule()), 3)).prop_map(|(default, list)| {
        let rule = |(at, rule): (usize, &Option<(&str, &str, &str)>)| {
            rule.map(|(action, tool, more)| {
                format!("  - {{name: r{at}, action: {action}, tool: {tool}{more}}}\n")
            })
        };
        let rules: Vec<String> = list.iter().enumerate().filter_map(rule).collect();
        format!("version: 1\ndefault: {default}\nrules:\n{}", rules.concat())
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn where_nothing_is_called_wider_no_call_is_decided_wider(a in some_policy(), b in some_policy()) {
        let (before, after) = (policy(&a), policy(&b));
        let widest = compare(&before, &after).iter().map(|change| change.direction).max();
        if widest.is_none_or(|widest| widest <= Direction::Stricter) {
            for tool in ["s.a", "s.b", "s.c", "t.a", "t.b", "t.s.a", "s.a.b", "t.s.a.b"] {
                for n in ["{}", r#"{"n": 10}"#, r#"{"n": 11}"#, r#"{"n": 50}"#, r#"{"n": 51}"#, r#"{"n": "x"}"#] {
                    let call = format!("{tool} {n}");
                    let (x, y) = (judge(&before, &call).effect, judge(&after, &call).effect);
                    prop_assert!(x <= y, "{} was {} and is {}, from\n{}\nto\n{}", call, x, y, a, b);
                    prop_assert!(widest.is_some() || x == y);
                }
            }
        }
    }
}
