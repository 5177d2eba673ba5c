//! Explanations as scenarios: what each rule says of a call, and that it is what decided.

use super::*;

const RULES: &str = "version: 1
rules:
  - {name: reads, tool: 'get_*', action: allow}
  - {name: theirs, tool: billing.get_order, action: allow}
  - {name: big, tool: 'billing.*', when: args.amount > 1000, action: hold, timeout: 10m, hold_message: wait}
  - {name: small, tool: pay, when: args.amount <= 1000, action: allow}
  - {name: staging, server: staging, action: deny}
  - {name: files, method: resources/read, action: hold}
";

/// Each rule's answer in short, such as `big: Matched =>`; `+` where it counts and did not decide.
fn answers(call: &str) -> Vec<String> {
    let (name, arguments) = call.split_once(' ').unwrap_or((call, "{}"));
    let (server, tool) = name.split_once('.').unwrap();
    let call = Call { server, tool: Some(tool), arguments, ..Call::default() };
    let told = |rule: &RuleAnswer| {
        let mark = if rule.decided { " =>" } else { ["", " +"][usize::from(rule.counts)] };
        format!("{}: {:?}{mark}", rule.rule, rule.answer)
    };
    policy(RULES).explain(&call).rules.iter().map(told).collect()
}

#[test]
fn every_rule_says_why_it_matches_or_does_not() {
    assert_eq!(
        answers(r#"billing.pay {"amount": 9500}"#),
        [
            "reads: OtherTool",
            "theirs: OtherTool",
            "big: Matched =>",
            "small: ConditionFalse",
            "staging: OtherServer",
            "files: OtherMethod"
        ]
    );
    assert_eq!(answers("billing.pay")[2..4], ["big: ConditionUnanswered =>", "small: ConditionUnanswered"]);
    assert_eq!(answers("shop.get_and_delete")[0], "reads: Matched =>", "a pattern stands for all that fits");
    assert_eq!(answers("staging.get_x")[0], "reads: Matched +");
    assert_eq!(answers("staging.get_x")[4], "staging: Matched =>");
    assert_eq!(answers("evil.billing.get_order")[1], "theirs: NameOfAnotherServer");
}

#[test]
fn an_explanation_carries_the_decision_its_terms_and_nothing_of_the_arguments() {
    let call = Call {
        server: "billing",
        tool: Some("pay"),
        arguments: r#"{"amount": "s3cret"}"#,
        ..Call::default()
    };
    let explanation = policy(RULES).explain(&call);
    let json: serde_json::Value = serde_json::to_value(&explanation).unwrap();
    assert_eq!(json["effect"], "hold");
    assert_eq!(json["decided_by"], serde_json::json!(["big"]));
    assert_eq!(json["default"], "hold");
    assert_eq!(
        json["terms"],
        serde_json::json!({"timeout_seconds": 600, "hold_message": "wait", "requirements": []})
    );
    assert_eq!(json["on_rejection"], "continue");
    assert_eq!(json["rules"][2]["answer"], "condition_unanswered");
    assert_eq!(json["rules"][2]["detail"], "`>` does not work on string and int");
    assert_eq!(json["rules"][2]["line"], 5);
    assert_eq!(json["rules"][5]["detail"], "resources/read");
    assert!(!json.to_string().contains("s3cret"));
    let file = Call { method: "resources/read", tool: None, arguments: r#"{"uri": "file:///a"}"#, ..call };
    let of_method = policy(RULES).explain(&file);
    assert_eq!(of_method.decision.effect, Effect::Hold);
    let about: Vec<Answer> = of_method.rules.iter().map(|rule| rule.answer).collect();
    assert_eq!((about[5], about[4], about[0]), (Answer::Matched, Answer::OtherMethod, Answer::OtherMethod));
}

#[test]
fn arguments_that_are_no_json_object_are_refused_where_they_go_wrong() {
    assert!(check_arguments(r#" {"a": [1, {"b": null}]} "#).is_ok());
    for (text, place, message) in [
        (r#"{"a": 1,}"#, (1, 9), "not JSON: key must be a string"),
        ("{\"é\": 1,\n  b: 2}", (2, 3), "not JSON: key must be a string"),
        ("", (1, 1), "not JSON: EOF while parsing a value"),
        ("[1]", (1, 1), "the arguments of a call are an object"),
        (" 5", (1, 2), "the arguments of a call are an object"),
        ("{} {}", (1, 4), "not JSON: trailing characters"),
    ] {
        let errors = check_arguments(text).unwrap_err();
        let found = &errors.diagnostics()[0];
        assert_eq!((found.position(), found.message()), (place, message), "{text}");
    }
}
