//! Policies in other forms: what they say of calls, what is refused, and that the native form of them says the same.

use super::*;
use proptest::prelude::*;

const APPROVAL: &str = include_str!("../../../tests/fixtures/policies/approval-conditional.yaml");
const APPROVAL_ONE: &str = include_str!("../../../tests/fixtures/policies/approval-one-tool.yaml");
const MATCH: &str = include_str!("../../../tests/fixtures/policies/match.yaml");
const MATCH_APPROVAL: &str = include_str!("../../../tests/fixtures/policies/match-approval.yaml");
const ESCALATE: &str = include_str!("../../../tests/fixtures/policies/escalate.yaml");
const ESCALATE_TIMEOUT: &str = include_str!("../../../tests/fixtures/policies/escalate-timeout.yaml");
const ESCALATE_TWO: &str = include_str!("../../../tests/fixtures/policies/escalate-two-approvals.yaml");

/// The native form of `text`.
fn native(text: &str) -> String {
    let source = Source { name: "policy.yaml".to_owned(), text: text.to_owned() };
    convert(source).unwrap_or_else(|errors| panic!("{errors}")).text
}

fn warnings(text: &str) -> Vec<&'static str> {
    policy(text).warnings().iter().map(Diagnostic::code).collect()
}

#[test]
fn every_call_of_a_tool_listed_under_approval_waits_and_what_is_not_listed_passes() {
    let policy = policy(APPROVAL_ONE);
    hold!(policy, "order_tools.process_refund");
    hold!(policy, r#"order_tools.process_refund {"amount": 0}"#);
    hold!(policy, "orders.process_refund");
    hold!(policy, "orders.order_tools.process_refund");
    allow!(policy, "order_tools.get_order");
    allow!(policy, "db_delete");
    let decision = judge(&policy, "order_tools.process_refund");
    assert_eq!(&*decision.reason, "This refund requires manager approval.");
    assert_eq!(decision.terms.unwrap().timeout, Duration::from_secs(600));
    assert_eq!(decision.on_rejection, OnRejection::Fail, "the run fails where nothing else is said");
    assert_eq!(&*decision.rules[0], "approval-order_tools.process_refund");
}

#[test]
fn a_tool_under_approval_may_have_a_condition_on_its_parameters() {
    let policy = policy(APPROVAL);
    hold!(policy, "order_tools.cancel_order");
    hold!(policy, r#"order_tools.process_refund {"amount": 1000.01}"#);
    allow!(policy, r#"order_tools.process_refund {"amount": 1000}"#);
    allow!(policy, r#"order_tools.process_refund {"amount": 129}"#);
    hold!(policy, r#"order_tools.process_refund {"amount": "129"}"#);
    hold!(policy, "order_tools.process_refund");
    let decision = judge(&policy, r#"order_tools.process_refund {"amount": 2400}"#);
    assert_eq!(decision.on_rejection, OnRejection::Continue);
    assert_eq!(decision.terms.unwrap().timeout, Duration::from_secs(3600));
    assert_eq!(policy.rules()[1].condition(), Some("args.amount > 1000"));
}

#[test]
fn parameters_become_arguments_and_nothing_else_in_a_condition_changes() {
    for (written, native) in [
        ("param.a > 1 && param.b.param == 2", "args.a > 1 && args.b.param == 2"),
        (
            r#"param.to == 'param' || param.to == "it's param""#,
            r#"args.to == 'param' || args.to == "it's param""#,
        ),
        (
            r#"param.a == "\"param" && param.b == r"\" && param.c == 1"#,
            r#"args.a == "\"param" && args.b == r"\" && args.c == 1"#,
        ),
        ("param.l.exists(p, p == param.x)", "args.l.exists(p, p == args.x)"),
        (r#""""a "param" b""" == param.x"#, r#""""a "param" b""" == args.x"#),
        ("param['param'] == 1e5", "args['param'] == 1e5"),
    ] {
        let quoted = serde_json::to_string(written).unwrap();
        let policy = policy(&format!("approval: {{tools: [{{t: {quoted}}}]}}\n"));
        assert_eq!(policy.rules()[0].condition(), Some(native));
    }
}

#[test]
fn rules_with_match_deny_or_hold_above_their_limit() {
    let denying = policy(MATCH);
    deny!(denying, r#"send_refund {"amount": 9500}"#);
    deny!(denying, r#"billing.send_refund {"amount": 1000.5}"#);
    deny!(denying, "send_refund");
    allow!(denying, r#"send_refund {"amount": 1000}"#);
    hold!(denying, "deploy");
    let decision = judge(&denying, r#"send_refund {"amount": 9500}"#);
    assert_eq!(&*decision.rules[0], "high_value_refund");
    assert_eq!(
        &*decision.reason,
        "Refunds over $1,000 require a human approver. Reply in #approvals to authorize."
    );
    let holding = policy(MATCH_APPROVAL);
    hold!(holding, r#"send_refund {"amount": 9500}"#);
    allow!(holding, r#"send_refund {"amount": 10}"#);
    let wrapped = format!(
        "default: deny\nrules:\n{}",
        MATCH_APPROVAL.replace("\n  ", "\n    ").replace("- name", "  - name")
    );
    let wrapped = policy(&wrapped);
    hold!(wrapped, r#"send_refund {"amount": 9500}"#);
    deny!(wrapped, r#"send_refund {"amount": 10}"#);
}

#[test]
fn rules_with_escalate_hold_what_their_condition_is_true_of() {
    let policy = policy(ESCALATE);
    hold!(policy, r#"payment.send {"amount": 500, "to": "vendor@example.com"}"#);
    allow!(policy, r#"payment.send {"amount": 100}"#);
    hold!(policy, "payment.send");
    hold!(policy, r#"email.send {"to": "a@elsewhere.com"}"#);
    hold!(policy, r#"email.send {"to": ["a@yourcompany.com"]}"#);
    allow!(policy, r#"email.send {"to": "a@yourcompany.com"}"#);
    hold!(policy, "email.delete");
    hold!(policy, r#"evil.payment.send {"amount": 1}"#);
    let decision = judge(&policy, r#"payment.send {"amount": 500}"#);
    assert_eq!(&*decision.reason, "Payments over $100 require human approval");
    assert_eq!(&*decision.rules[0], "hold-payment.send");
}

#[test]
fn metadata_says_how_long_and_what_then() {
    let all = policy(ESCALATE_TIMEOUT);
    let decision = judge(&all, "anything");
    assert_eq!(decision.effect, Effect::Hold);
    assert_eq!(decision.terms.unwrap().timeout, Duration::from_secs(1800));
    let policy = policy(
        "metadata: {approval_timeout_minutes: 5}\nrules:\n  - {tool: a, action: escalate}\n  \
         - {tool: b, action: escalate, metadata: {approval_timeout_minutes: 10, required_approvals: 1}}\n  - {tool: c, action: allow}\n",
    );
    assert_eq!(judge(&policy, "a").terms.unwrap().timeout, Duration::from_secs(300));
    assert_eq!(judge(&policy, "b").terms.unwrap().timeout, Duration::from_secs(600));
    allow!(policy, "c");
    hold!(policy, "d");
}

#[test]
fn metadata_says_how_many_and_who() {
    let alone = policy(ESCALATE_TWO);
    let decision = judge(&alone, "infrastructure.delete");
    assert_eq!(decision.effect, Effect::Hold);
    let terms = decision.terms.unwrap();
    assert_eq!(terms.requirements[0].to_string(), "2 of engineering-lead or security");
    let people = "version: 1\npeople:\n  ann: {identities: 'uid:ann', roles: security}\n  bob: {identities: 'uid:bob', roles: engineering-lead}\n";
    let sources = [("a.yaml", ESCALATE_TWO), ("people.yaml", people)];
    let source = |(name, text): (&str, &str)| Source { name: name.to_owned(), text: text.to_owned() };
    let both = Policy::parse(sources.map(source).to_vec()).unwrap();
    assert!(both.warnings().iter().all(|found| found.code() != "P0503"), "with people it can be approved");
    let too_few = people.replace("  bob", "  #");
    assert!(
        Policy::parse([("a.yaml", ESCALATE_TWO), ("people.yaml", &*too_few)].map(source).to_vec()).is_err()
    );
    assert!(alone.warnings().iter().any(|found| found.code() == "P0503"), "without people nobody can");
}

#[test]
fn a_document_of_two_forms_or_with_a_mistake_is_refused() {
    for (text, expected) in [
        ("version: 1\napproval: {tools: [a]}\n", "P0401"),
        ("approval: {tools: [a]}\nrules:\n  - {tool: b, action: escalate}\n", "P0401"),
        ("- {match: {tool: a}, action: deny}\n- {tool: b, action: escalate}\n", "P0401"),
        ("version: 1\nrules:\n  - {name: a, tool: a, action: escalate}\n", "P0401"),
        ("version: 1\nrules:\n  - {name: a, tool: a, action: approval_required}\n", "P0401"),
        (
            "version: 1\nrules:\n  - {name: a, tool: a, action: hold, metadata: {required_approvals: 2}}\n",
            "P0401",
        ),
        ("- {tool: a, action: escalate, timeout: 5m}\n", "P0401"),
        ("- {match: {tool: a}, action: hold}\n", "P0401"),
        ("approval: {tools: [a]}\nrules: []\n", "P0010"),
        ("approval: {tools: [a]}\ndefault: deny\n", "P0010"),
        ("approval: {tool: [a]}\n", "P0010"),
        ("approval:\n", "P0012"),
        ("approval: {}\n", "P0011"),
        ("approval: {tools: []}\n", "P0011"),
        ("approval: {tools: a}\n", "P0011"),
        ("approval: {tools: [5]}\n", "P0012"),
        ("approval: {tools: [{a: }]}\n", "P0012"),
        ("approval: {tools: [{a: params.b > 1}]}\n", "P0104"),
        ("approval: {tools: [{a: param.b >}]}\n", "P0103"),
        ("approval: {tools: [{a: ''}]}\n", "P0103"),
        ("approval: {tools: ['a b']}\n", "P0018"),
        ("approval: {tools: [a], timeout: 0}\n", "P0015"),
        ("approval: {tools: [a], timeout: 604801}\n", "P0015"),
        ("approval: {tools: [a], timeout: 1.5}\n", "P0015"),
        ("approval: {tools: [a], timeout: 10m}\n", "P0015"),
        ("approval: {tools: [a], on_rejection: stop}\n", "P0013"),
        ("approval: {tools: [a], message: ''}\n", "P0017"),
        ("- {match: {tool: a}}\n", "P0011"),
        ("- {match: {}, action: deny}\n", "P0011"),
        ("- {match: {tool: a, argument_lt: {b: 1}}, action: deny}\n", "P0010"),
        ("- {match: {tool: a, argument_gt: 5}, action: deny}\n", "P0012"),
        ("- {match: {tool: a, argument_gt: {}}, action: deny}\n", "P0101"),
        ("- {match: {tool: a, argument_gt: {b: '5'}}, action: deny}\n", "P0101"),
        ("- {match: {tool: a}, action: approval_requierd}\n", "P0013"),
        ("- {match: {tool: a}, action: deny, when: 'true'}\n", "P0010"),
        ("- {match: {tool: a}, action: deny}\n- {tool: b, action: deny}\n", "P0010"),
        ("- {tool: a, action: escalate, whne: {args.a: {gt: 1}}}\n", "P0010"),
        ("- {tool: a, action: escalate, when: {amount: {gt: 1}}}\n", "P0102"),
        ("- {tool: a, action: escalate}\n- {tool: a, action: block}\n", "P0013"),
        ("- {tool: a, action: escalate, metadata: {timeout_action: approve}}\n", "P0013"),
        ("- {tool: a, action: escalate, metadata: {approval_timeout_minutes: 0}}\n", "P0015"),
        ("- {tool: a, action: escalate, metadata: {approval_timeout_minutes: 10081}}\n", "P0015"),
        ("- {tool: a, action: escalate, metadata: {required_approvals: 0}}\n", "P0019"),
        ("- {tool: a, action: escalate, metadata: {required_approvals: all}}\n", "P0019"),
        ("- {tool: a, action: escalate, metadata: {severity: high}}\n", "P0010"),
        ("- {tool: a, action: allow, metadata: {approval_timeout_minutes: 5}}\n", "P0016"),
        ("metadata: {approval_timeout_minutes: 5}\nrules: {}\n", "P0012"),
    ] {
        assert_eq!(
            codes(text).first(),
            Some(&expected),
            "{text}{:?}",
            parse(text).err().map(|e| e.to_string())
        );
    }
}

#[test]
fn where_a_form_means_something_else_than_its_author_may_expect_it_says_so() {
    assert_eq!(warnings(APPROVAL_ONE), ["P0402", "P0206"]);
    assert_eq!(warnings("approval: {tools: ['orders.*']}\n"), ["P0402", "P0206"]);
    assert_eq!(warnings(MATCH), ["P0406"]);
    assert_eq!(warnings(ESCALATE), ["P0402", "P0402", "P0406", "P0406"]);
    assert_eq!(warnings(&format!("default: hold\n{ESCALATE}")), ["P0402", "P0402"]);
    assert_eq!(warnings(ESCALATE_TIMEOUT), ["P0404"]);
    let exception =
        format!("{MATCH}- {{name: just-this-once, match: {{tool: send_refund}}, action: allow}}\n");
    assert_eq!(warnings(&exception), ["P0405"]);
    deny!(policy(&exception), r#"send_refund {"amount": 9500}"#);
}

#[test]
fn a_limit_opens_nothing_that_another_rule_speaks_of() {
    let limit = "rules:\n  - {tool: a.pay, action: escalate, when: {args.n: {gt: 100}}}\n";
    allow!(policy(limit), r#"a.pay {"n": 75}"#);
    let some = format!("{limit}  - {{tool: a.pay, action: allow, when: {{args.n: {{lte: 50}}}}}}\n");
    hold!(policy(&some), r#"a.pay {"n": 75}"#);
    allow!(policy(&some), r#"a.pay {"n": 50}"#);
    let glob = format!("{limit}  - {{tool: 'a.*', action: allow, when: {{args.n: {{lte: 50}}}}}}\n");
    hold!(policy(&glob), r#"a.pay {"n": 75}"#);
    let denied = format!("{limit}  - {{tool: '*', action: deny}}\n");
    deny!(policy(&denied), r#"a.pay {"n": 75}"#);
    let forbidden = "rules:\n  - {tool: x, action: escalate}\n  - {tool: sh, action: deny, when: {args.c: {contains: rm}}}\n";
    hold!(policy(forbidden), r#"sh {"c": "ls"}"#);
    let pattern = "rules:\n  - {tool: 'pay_*', action: escalate, when: {args.n: {gt: 100}}}\n";
    hold!(policy(pattern), r#"pay_all {"n": 1}"#);
}

#[test]
fn a_large_file_does_not_hide_its_warnings_behind_each_other() {
    let rules: String = (0..100)
        .map(|at| format!("- {{tool: t{at}, action: escalate, when: {{args.n: {{gt: 1}}}}}}\n"))
        .collect();
    let policy = policy(&rules);
    assert_eq!(policy.rules().len(), 200);
    assert_eq!(policy.warnings().len(), 20);
    assert!(policy.warnings()[19].message().ends_with("(more of this kind are not shown)"));
}

#[test]
fn rules_without_names_get_different_ones() {
    let policy = policy(
        "- {tool: a, action: escalate, when: {args.n: {gt: 1}}}\n- {tool: a, action: escalate}\n- {name: hold-a-2, tool: [a, b], action: escalate}\n- {action: escalate}\n",
    );
    let names: Vec<&str> = policy.rules().iter().map(Rule::name).collect();
    assert_eq!(names, ["hold-a", "hold-a-3", "hold-a-2", "hold-every-tool"]);
    assert_eq!(policy.rules()[1].place(), ("policy.yaml", 2));
}

#[test]
fn the_native_form_is_one_that_a_person_would_write() {
    assert_eq!(
        native(APPROVAL),
        "version: 1\ndefault: allow\nrules:\n  - name: approval-order_tools.cancel_order\n    tool: [order_tools.cancel_order, cancel_order]\n    action: hold\n    \
         reason: This action requires manager approval.\n    timeout: 3600s\n    on_rejection: continue\n\n  \
         - name: approval-order_tools.process_refund\n    tool: [order_tools.process_refund, process_refund]\n    when: args.amount > 1000\n    action: hold\n    \
         reason: This action requires manager approval.\n    timeout: 3600s\n    on_rejection: continue\n"
    );
    assert!(
        native(ESCALATE)
            .contains("    when:\n      args.to:\n        not:\n          endsWith: \"@yourcompany.com\"\n")
    );
    let own = "# mine\nversion: 1\n";
    assert_eq!(native(own), own, "a native policy stays as it is, comments and all");
}

/// A policy of some other form, with texts that YAML could take for something else.
fn foreign() -> impl Strategy<Value = String> {
    let tool = || prop_oneof![Just("a"), Just("b"), Just("s.a"), Just("s.b"), Just("*"), Just("s.*")];
    let text = || {
        let odd = prop_oneof![
            Just("no"),
            Just("1:30"),
            Just("017"),
            Just("1e5"),
            Just("2026-01-02"),
            Just("30m"),
            Just("- x"),
            Just("a: b # c"),
            Just("'\"\\"),
            Just("é\u{a0}ü — ✓")
        ];
        prop_oneof![odd.prop_map(str::to_owned), "[ -~]{0,12}"]
            .prop_map(|text| serde_json::to_string(if text.trim().is_empty() { "x" } else { &text }).unwrap())
    };
    let number = || prop_oneof![Just("0"), Just("50"), Just("1e2"), Just("2.5"), Just("-7")];
    let listed = (tool(), prop::option::of(number())).prop_map(|(tool, limit)| match limit {
        None => format!("    - '{tool}'\n"),
        Some(limit) => format!("    - '{tool}': param.k > {limit}\n"),
    });
    let approval =
        (prop::collection::vec(listed, 1..4), text(), 1u32..600_000).prop_map(|(tools, message, timeout)| {
            format!("approval:\n  tools:\n{}  message: {message}\n  timeout: {timeout}\n", tools.concat())
        });
    let action = prop_oneof![Just("deny"), Just("approval_required"), Just("allow")];
    let matched =
        (tool(), prop::option::of(number()), action, text()).prop_map(|(tool, limit, action, reason)| {
            let limit = limit.map_or_else(String::new, |limit| format!(", argument_gt: {{k: {limit}}}"));
            format!("- {{match: {{tool: '{tool}'{limit}}}, action: {action}, reason: {reason}}}\n")
        });
    let escalated = (
        tool(),
        prop_oneof![Just("{gt: 50}"), Just("{not: {endsWith: x}}"), Just("{in: [1, 'no']}")],
        prop_oneof![Just("escalate"), Just("deny"), Just("allow")],
    )
        .prop_map(|(tool, test, action)| {
            format!("- {{tool: '{tool}', action: {action}, when: {{args.k: {test}}}}}\n")
        });
    let first = "- {tool: first, action: escalate, metadata: {approval_timeout_minutes: 3}}\n";
    prop_oneof![
        approval,
        prop::collection::vec(matched, 1..4).prop_map(|rules| rules.concat()),
        prop::collection::vec(escalated, 0..4).prop_map(move |rules| format!("{first}{}", rules.concat())),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_native_form_of_a_policy_decides_every_call_as_the_policy_does(text in foreign()) {
        let (original, converted) = (policy(&text), policy(&native(&text)));
        prop_assert_eq!(native(&native(&text)), native(&text));
        for tool in ["s.a", "s.b", "s.c", "t.a", "t.s.a", "t.first", "x.y"] {
            for n in ["", "0", "50", "50.5", "100", "101", "\"x\"", "\"no\"", "1"] {
                let arguments = if n.is_empty() { "{}".to_owned() } else { format!("{{\"k\": {n}}}") };
                let call = format!("{tool} {arguments}");
                let (a, b) = (judge(&original, &call), judge(&converted, &call));
                prop_assert_eq!(a.effect, b.effect, "{} by\n{}", call, native(&text));
                prop_assert_eq!(a.rules, b.rules);
                prop_assert_eq!(a.reason, b.reason);
                prop_assert_eq!(a.terms, b.terms);
                prop_assert_eq!(a.on_rejection, b.on_rejection);
            }
        }
    }

    #[test]
    fn no_edit_of_a_foreign_policy_makes_the_translator_panic(
        at in 0usize..7,
        edits in prop::collection::vec((0usize..400, 0usize..12, "[ -~\n\té]{0,4}"), 1..5),
    ) {
        let mut text = [APPROVAL, APPROVAL_ONE, MATCH, MATCH_APPROVAL, ESCALATE, ESCALATE_TIMEOUT, ESCALATE_TWO][at].to_owned();
        for (at, gone, new) in edits {
            let start = text.floor_char_boundary(at.min(text.len()));
            let end = text.ceil_char_boundary((start + gone).min(text.len()));
            text.replace_range(start..end, &new);
        }
        if let Err(errors) = convert(Source { name: "x".to_owned(), text }) {
            prop_assert!(!errors.diagnostics().is_empty());
            prop_assert!(!errors.to_string().contains("converted"), "{}", errors);
        }
    }
}
