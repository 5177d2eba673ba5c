//! Policies as scenarios: what a document says of calls, and what is wrong with a document.

use super::*;

fn parse(text: &str) -> Result<Policy, PolicyErrors> {
    Policy::parse(vec![Source { name: "policy.yaml".to_owned(), text: text.to_owned() }])
}

fn policy(text: &str) -> Policy {
    parse(text).unwrap_or_else(|errors| panic!("{errors}"))
}

/// `server.tool {"json": …}`, the way the tables below write a call.
fn judge(policy: &Policy, call: &str) -> Decision {
    let (name, arguments) = call.split_once(' ').unwrap_or((call, "{}"));
    let (server, tool) = name.split_once('.').unwrap_or(("srv", name));
    policy.decide(&Call {
        server,
        method: "tools/call",
        tool: Some(tool),
        arguments,
        client: "claude-code",
        principal: "uid:1000(alice)",
        ..Call::default()
    })
}

macro_rules! allow {
    ($policy:expr, $call:expr) => {
        let decision = judge(&$policy, $call);
        assert_eq!(decision.effect, Effect::Allow, "{}: {:?}", $call, decision);
    };
}
macro_rules! hold {
    ($policy:expr, $call:expr) => {
        let decision = judge(&$policy, $call);
        assert_eq!(decision.effect, Effect::Hold, "{}: {:?}", $call, decision);
    };
}
macro_rules! deny {
    ($policy:expr, $call:expr) => {
        let decision = judge(&$policy, $call);
        assert_eq!(decision.effect, Effect::Deny, "{}: {:?}", $call, decision);
    };
}

// Below the macros, so that they see them.
mod dialects;
mod diff;
mod explain;
mod functions;
mod learn;
mod mistakes;
mod modes;
mod properties;
mod schema;

/// A policy of one hold rule with this condition; what it does not hold it allows.
fn held_when(when: &str) -> Policy {
    let rule = "  - name: r\n    tool: t\n    action: hold\n    when:";
    policy(&format!("version: 1\ndefault: allow\nrules:\n{rule} {when}\n"))
}

/// The codes of all errors in a document.
fn codes(text: &str) -> Vec<&'static str> {
    match parse(text) {
        Ok(_) => Vec::new(),
        Err(errors) => errors
            .diagnostics()
            .iter()
            .filter(|found| found.severity() == Severity::Error)
            .map(Diagnostic::code)
            .collect(),
    }
}

#[test]
fn the_example_of_the_design_loads_and_judges() {
    let policy = policy(
        "version: 1\ndefault: hold\nrules:\n  - name: reads\n    tool: [\"*.get_*\", \"*.list_*\"]\n    action: allow\n  \
         - name: high-value-refund\n    tool: billing.send_refund\n    when: args.amount > 1000\n    action: hold\n    \
         reason: Refunds over $1,000 need a person from finance.\n    timeout: 10m\n    on_timeout: deny\n    \
         on_rejection: continue\n    hold_message: I need to verify this with my team. One moment please.\n  \
         - name: small-refund\n    tool: billing.send_refund\n    when: {args.amount: {lte: 1000}}\n    action: allow\n",
    );
    allow!(policy, "billing.get_order");
    allow!(policy, r#"billing.send_refund {"amount": 1000}"#);
    hold!(policy, r#"billing.send_refund {"amount": 1000.01}"#);
    hold!(policy, r#"billing.send_refund {"amount": "1"}"#);
    hold!(policy, "billing.send_refund");
    hold!(policy, "billing.other");
    let decision = judge(&policy, r#"billing.send_refund {"amount": 9500}"#);
    assert_eq!(&*decision.rules[0], "high-value-refund");
    assert_eq!(decision.terms.unwrap().timeout, Duration::from_secs(600));
    assert_eq!(&*decision.reason, "Refunds over $1,000 need a person from finance.");
}

// --- conditions ------------------------------------------------------------------------------------------------------

#[test]
fn a_hold_rule_holds_what_its_condition_cannot_judge() {
    let amount = held_when("args.amount > 1000");
    for held in ["1001", "1000.5", "1e30", "9223372036854775807", "1e3000000", "12345678901234567890"] {
        hold!(amount, &format!(r#"t {{"amount": {held}}}"#));
    }
    for wrong in ["\"1\"", "null", "true", "[5000]", "{\"value\": 5000}", "\"9\""] {
        hold!(amount, &format!(r#"t {{"amount": {wrong}}}"#));
    }
    hold!(amount, "t {}");
    hold!(amount, "t [1]");
    hold!(amount, "t nonsense");
    hold!(amount, "t ");
    hold!(amount, r#"t {"Amount": 1}"#);
    hold!(amount, r#"t {"amount": 1, "amount": 2}"#);
    hold!(amount, r#"t {"amount": 1, "amo\u0075nt": 5000}"#);
    for allowed in ["999", "1000", "1e3", "-5", "0.1", "1000.0", "1E2", "-0", "0e999"] {
        allow!(amount, &format!(r#"t {{"amount": {allowed}}}"#));
    }
    allow!(amount, "other");
}

#[test]
fn an_allow_rule_allows_only_what_its_condition_can_judge() {
    let policy =
        policy("version: 1\nrules:\n  - {name: small, tool: t, action: allow, when: args.amount <= 100}\n");
    for allowed in ["100", "1e2", "100.0", "-1", "99.99"] {
        allow!(policy, &format!(r#"t {{"amount": {allowed}}}"#));
    }
    for held in ["100.0000000000000001", "\"100\"", "1e-400", "99.99999999999999999", "null", "101", "[1]"] {
        hold!(policy, &format!(r#"t {{"amount": {held}}}"#));
    }
    hold!(policy, "t");
    let decision = judge(&policy, r#"t {"amount": "s3cret"}"#);
    assert_eq!(
        decision.notes,
        [
            "the condition of rule `small` has no answer (`<=` does not work on string and int), so the rule does not allow it"
        ]
    );
    assert!(decision.rules.is_empty());
}

#[test]
fn notes_say_what_failed_and_nothing_of_the_arguments() {
    for (when, call, told) in [
        ("args.amount > 1", "t {}", "there is no `amount`"),
        ("args.amount > 1", r#"t {"amount": "s3cret"}"#, "`>` does not work on string and int"),
        ("args.amount > 1", r#"t {"amount": 12345678901234567890}"#, "number too precise to compare"),
        ("args.m[args.k] == 1", r#"t {"m": {}, "k": "s3cret"}"#, "a key is missing"),
        ("args.a + args.b > 1", r#"t {"a": "s3cret", "b": 1}"#, "`add` does not work on these types"),
        ("args.a / args.b > 1", r#"t {"a": 3, "b": 0}"#, "division by zero"),
        ("args.a", r#"t {"a": "s3cret"}"#, "it gave a value of type string"),
        ("args.a == 1", r#"t {"a": 1, "a": "s3cret"}"#, "an object in the arguments has a key twice"),
        ("args.a == 1", r#"t {"a": "s3cret""#, "the arguments are not readable JSON"),
        ("args.l[5] == 1", r#"t {"l": ["s3cret"]}"#, "the list is shorter than the index"),
        ("int(args.a) == 1", r#"t {"a": "s3cret"}"#, "`int` failed"),
        ("args.a && true", r#"t {"a": "s3cret"}"#, "`&&` does not work on string and bool"),
        ("args.l.exists(x, x.b)", r#"t {"l": "s3cret"}"#, "iterable was expected, it is string"),
    ] {
        let decision = judge(&held_when(&format!("'{when}'")), call);
        assert_eq!(decision.effect, Effect::Hold, "{when}");
        assert_eq!(decision.notes.len(), 1, "{when}");
        assert!(decision.notes[0].contains(told), "{when}: {}", decision.notes[0]);
        assert!(!decision.notes[0].contains("s3cret"), "{when}: {}", decision.notes[0]);
    }
}

#[test]
fn a_condition_that_another_argument_decides_does_not_care_for_one_it_never_reads() {
    let policy = held_when("args.amount > 1000");
    allow!(policy, r#"t {"amount": 1, "other": 12345678901234567890}"#);
    allow!(policy, r#"t {"note": "5 \" 7 \\", "amount": 1}"#);
    hold!(policy, r#"t {"note": "5 \" 7 \\", "x": 7, "amount": 1001}"#);
}

#[test]
fn values_of_different_kinds_are_not_compared_behind_the_authors_back() {
    let force = held_when("args.force == true");
    hold!(force, r#"t {"force": true}"#);
    hold!(force, r#"t {"force": "true"}"#);
    hold!(force, r#"t {"force": 1}"#);
    hold!(force, "t {}");
    allow!(force, r#"t {"force": false}"#);
    allow!(force, r#"t {"force": null}"#);
    let listed = held_when("'args.env in [\"prod\", \"live\"]'");
    hold!(listed, r#"t {"env": "prod"}"#);
    hold!(listed, r#"t {"env": ["prod"]}"#);
    hold!(listed, r#"t {"env": 1}"#);
    allow!(listed, r#"t {"env": "dev"}"#);
    let mixed = held_when("'args.level in [\"high\", 3]'");
    hold!(mixed, r#"t {"level": 3.0}"#);
    allow!(mixed, r#"t {"level": "low"}"#);
    allow!(mixed, r#"t {"level": 4}"#);
    hold!(mixed, r#"t {"level": true}"#);
    let member = held_when("'\"root\" in args.users'");
    hold!(member, r#"t {"users": ["a", "root"]}"#);
    hold!(member, r#"t {"users": "root"}"#);
    hold!(member, r#"t {"users": [1]}"#);
    hold!(member, r#"t {"users": {"root": 1}}"#);
    allow!(member, r#"t {"users": []}"#);
    allow!(member, r#"t {"users": ["a", 1]}"#);
    let whole = held_when("'args.a == {\"k\": [1, \"x\"]}'");
    hold!(whole, r#"t {"a": {"k": [1.0, "x"]}}"#);
    hold!(whole, r#"t {"a": {"k": ["1", "x"]}}"#);
    allow!(whole, r#"t {"a": {"k": [2, "x"]}}"#);
    allow!(whole, r#"t {"a": {"k": [1]}}"#);
    let number = held_when("args.a in [1, 2]");
    hold!(number, r#"t {"a": 12345678901234567890}"#);
    let exact = held_when("args.a != 5");
    hold!(exact, r#"t {"a": 5.0000000000000000001}"#);
    allow!(exact, r#"t {"a": 5.0}"#);
}

#[test]
fn an_argument_that_is_left_out_is_not_false_and_the_order_of_keys_means_nothing() {
    let gentle =
        policy("version: 1\nrules:\n  - {name: gentle, tool: t, action: allow, when: args.force == false}\n");
    allow!(gentle, r#"t {"force": false, "a": 1}"#);
    allow!(gentle, r#"t {"a": 1, "force": false}"#);
    hold!(gentle, "t {}");
    hold!(gentle, r#"t {"a": 1}"#);
    hold!(gentle, r#"t {"a": 1, "force": true}"#);
    hold!(gentle, r#"t {"a": {"force": false}}"#);
}

#[test]
fn what_a_condition_can_see() {
    for (when, seen) in [
        ("tool == 't'", true),
        ("server == 'srv'", true),
        ("client.startsWith('claude')", true),
        ("principal.contains('alice')", true),
        ("method == 'tools/call'", true),
        ("tool == 'T'", false),
        ("args.to.exists(x, !x.endsWith('@example.com'))", true),
        ("args.to.all(x, x.matches('^[a-z]+@'))", true),
        ("size(args.to) > 1", true),
        ("args.to.size() == 2 && type(args.to) == list", true),
        ("args.to.filter(x, x == 'nobody').size() > 0", false),
        ("args.to[0] == 'a@example.com'", true),
        ("args['to'][1] == 'b@other.net'", true),
        ("has(args.cc)", false),
        ("!has(args.cc) || args.cc == 'x'", true),
        ("args.n > 2 ? args.n < 4 : false", true),
        ("args.n + 1 == 4", true),
        ("double(args.n) * 1.5 == 4.5", true),
        ("args.n >= 3.0 && args.n <= 3", true),
    ] {
        let policy = held_when(&format!("\"{when}\""));
        let decision = judge(&policy, r#"t {"to": ["a@example.com", "b@other.net"], "n": 3}"#);
        let expected = if seen { Effect::Hold } else { Effect::Allow };
        assert_eq!(decision.effect, expected, "{when}: {:?}", decision.notes);
        assert!(decision.notes.is_empty(), "{when}: {:?}", decision.notes);
    }
}

#[test]
fn arguments_that_are_too_large_are_not_looked_through() {
    let one = held_when("args.l.exists(x, x == -1)");
    let list = |count: usize| format!(r#"t {{"l": [{}]}}"#, vec!["1"; count].join(","));
    allow!(one, &list(10_000));
    hold!(one, &list(10_001));
    let two = held_when("args.l.exists(x, args.l.exists(y, x + y < 0))");
    allow!(two, &list(300));
    hold!(two, &list(1_001));
    let text = held_when("args.s == ''");
    allow!(text, &format!(r#"t {{"s": "{}"}}"#, "x".repeat(1_000_000)));
    hold!(text, &format!(r#"t {{"s": "{}"}}"#, "x".repeat(1 << 20)));
    let untouched = held_when("server == 'x'");
    allow!(untouched, &list(100_000));
}

#[test]
fn the_map_form_is_the_expression_it_stands_for() {
    for (map, expression) in [
        ("{args.amount: {gt: 1000}}", "args.amount > 1000"),
        ("{args.amount: {gte: 1, lt: 2.5}}", "args.amount >= 1 && args.amount < 2.5"),
        ("{args.amount: {lte: 1e2}}", "args.amount <= 100"),
        ("{args.a.b-c.d: {eq: x}}", "args.a[\"b-c\"].d == \"x\""),
        ("{args.a: {ne: 'say \"hi\" \\ '}}", "args.a != \"say \\\"hi\\\" \\\\ \""),
        ("{args.a: {in: [x, 1, true, null]}}", "args.a in [\"x\", 1, true, null]"),
        ("{args.to: {not: {endsWith: '@x.com'}}}", "!(args.to.endsWith(\"@x.com\"))"),
        ("{args.to: {not: {gt: 1, lt: 5}}}", "!(args.to > 1 && args.to < 5)"),
        ("{args.to: {not: [a, b]}}", "!(args.to in [\"a\", \"b\"])"),
        ("{args.to: {not: a}}", "args.to != \"a\""),
        ("{args.to: {starts_with: a, contains: b}}", "args.to.startsWith(\"a\") && args.to.contains(\"b\")"),
        ("{args.to: {startsWith: a, ends_with: b}}", "args.to.startsWith(\"a\") && args.to.endsWith(\"b\")"),
        ("{args.to: {matches: '^a+$'}}", "args.to.matches(\"^a+$\")"),
        ("{args.to: {exists: true}}", "has(args.to)"),
        ("{args.to: {exists: false}}", "!has(args.to)"),
        ("{args.to-me: {exists: false}}", "!(\"to-me\" in args)"),
        ("{tool: {eq: t}, client: {ne: x}}", "tool == \"t\" && client != \"x\""),
        ("{args.in: {eq: 1}}", "args[\"in\"] == 1"),
    ] {
        let policy = held_when(map);
        assert_eq!(policy.rules()[0].condition(), Some(expression), "{map}");
    }
    let odd = held_when("{args.to-me: {exists: true}}");
    hold!(odd, r#"t {"to-me": 1}"#);
    allow!(odd, r#"t {"to": 1}"#);
    let external = held_when("{args.to: {not: {endsWith: '@example.com'}}}");
    hold!(external, r#"t {"to": "x@other.net"}"#);
    hold!(external, r#"t {"to": "x@EXAMPLE.com"}"#);
    hold!(external, r#"t {"to": ["x@example.com"]}"#);
    hold!(external, "t {}");
    allow!(external, r#"t {"to": "x@example.com"}"#);
}

// --- rules -----------------------------------------------------------------------------------------------------------

#[test]
fn the_strictest_matching_rule_wins_wherever_it_stands() {
    let rules = [
        "  - {name: all-reads, tool: 'read_*', action: allow}\n",
        "  - {name: secrets, tool: '*', when: 'args.path.contains(\"secret\")', action: deny, reason: no secrets}\n",
        "  - {name: etc, tool: read_file, when: 'args.path.startsWith(\"/etc\")', action: hold, timeout: 2h, hold_message: one}\n",
        "  - {name: big, tool: read_file, server: srv, when: args.size > 10, action: hold, timeout: 90s, on_rejection: fail, reason: big}\n",
    ];
    let mut texts = Vec::new();
    for order in [[0, 1, 2, 3], [3, 2, 1, 0], [1, 3, 0, 2], [2, 0, 3, 1]] {
        let policy = policy(&format!("version: 1\nrules:\n{}", order.map(|at| rules[at]).concat()));
        allow!(policy, r#"srv.read_file {"path": "/home/a", "size": 1}"#);
        hold!(policy, r#"srv.read_file {"path": "/etc/a", "size": 1}"#);
        deny!(policy, r#"srv.read_file {"path": "/etc/secret", "size": 1}"#);
        deny!(policy, r#"srv.read_file {"size": 1}"#);
        let decision = judge(&policy, r#"srv.read_file {"path": "/etc/a", "size": 11}"#);
        let mut names: Vec<&str> = decision.rules.iter().map(|name| &**name).collect();
        names.sort_unstable();
        assert_eq!(names, ["big", "etc"]);
        assert_eq!(&*decision.reason, "big");
        let terms = decision.terms.unwrap();
        assert_eq!(terms.timeout, Duration::from_secs(90), "the shortest timeout");
        assert_eq!(terms.on_rejection, OnRejection::Fail, "fail if any rule says so");
        assert_eq!(terms.hold_message.as_deref(), Some("one"));
        texts.push(policy.digest());
    }
    texts.dedup();
    assert_eq!(texts.len(), 4, "another text is another policy for the record");
}

#[test]
fn a_policy_of_the_same_texts_is_the_same_wherever_its_files_are() {
    let source = |name: &str, text: &str| Source { name: name.to_owned(), text: text.to_owned() };
    let digest = |sources: Vec<Source>| Policy::parse(sources).unwrap().digest();
    let (one, other) =
        ("version: 1\ndefault: deny\n", "version: 1\nrules:\n  - {name: a, tool: a, action: hold}\n");
    let here = digest(vec![source("one.yaml", one), source("other.yaml", other)]);
    assert_eq!(
        here,
        digest(vec![source("/etc/holdshort/b.yaml", other), source("/etc/holdshort/a.yaml", one)])
    );
    let mut lines = [one, other].map(|text| format!("{}\n", Digest::of(text.as_bytes())));
    lines.sort();
    assert_eq!(here, Digest::of(lines.concat().as_bytes()), "as `sha256sum` makes it");
    assert_eq!(digest(vec![source("one.yaml", one)]), Digest::of(one.as_bytes()));
    assert_ne!(
        here,
        digest(vec![source("one.yaml", one), source("other.yaml", &other.replace("hold", "deny"))])
    );
    assert_ne!(here, digest(vec![source("both.yaml", other)]));
}

#[test]
fn the_default_speaks_where_no_rule_matches() {
    for (default, expected) in
        [("", Effect::Hold), ("default: allow\n", Effect::Allow), ("default: deny\n", Effect::Deny)]
    {
        let policy = policy(&format!(
            "version: 1\n{default}rules:\n  - {{name: a, tool: a, action: hold, timeout: 5m}}\n"
        ));
        let decision = judge(&policy, "b");
        assert_eq!(decision.effect, expected);
        assert_eq!(decision.terms.is_some(), expected == Effect::Hold);
        assert!(decision.rules.is_empty());
        hold!(policy, "a");
    }
}

#[test]
fn where_rules_are_about_a_call_and_none_matches_the_reason_says_so() {
    let policy = policy(
        "version: 1\nrules:\n  - {name: a, tool: a, when: args.x > 1, action: allow}\n  - {name: r, method: resources/read, when: args.x > 1, \
         action: deny}\n  - {name: c, tool: c, server: other, action: deny}\nmode: confirm_tools\napproved_tools: [b]\ntools: {b: {mode: enforce}}\n",
    );
    let unmet = "no condition of the rules about this call is met, and the policy's default is hold";
    let none = "no rule is about this call, and the policy's default is hold";
    for (call, reason) in [(r#"a {"x": 1}"#, unmet), ("a", unmet), ("z", none), ("c", none), ("b", none)] {
        assert_eq!(&*judge(&policy, call).reason, reason, "{call}");
    }
    let read = |arguments| policy.decide(&Call { method: "resources/read", arguments, ..Call::default() });
    assert_eq!(&*read(r#"{"x": 1}"#).reason, "no condition of the rules about this request is met");
    assert_eq!(read(r#"{"x": 2}"#).effect, Effect::Deny);
}

#[test]
fn without_a_policy_every_call_is_held() {
    let policy = Policy::hold_everything();
    hold!(policy, "anything.at_all");
    let terms = judge(&policy, "x").terms.unwrap();
    assert_eq!(terms.timeout, TIMEOUT_DEFAULT);
    assert!(!policy.gates_method("resources/read"));
}

#[test]
fn patterns_stand_for_the_whole_name_and_case_counts() {
    let policy = policy(
        "version: 1\ndefault: allow\nrules:\n  - {name: d, tool: [danger, 'read_*', 'a.b?', '[xy]_z', '{p,q}_r'], action: deny}\n",
    );
    for denied in [
        "danger",
        "srv.danger",
        "read_",
        "read_and_delete",
        "a.bc",
        "x_z",
        "p_r",
        "q_r",
        "other.q_r",
        "read_a/b.c",
    ] {
        deny!(policy, denied);
    }
    for allowed in [
        "Danger",
        "dangerous",
        "adanger",
        "danger\u{0}",
        "../danger",
        "a/danger",
        "thread_",
        "a.b",
        "a.bcd",
        "z_z",
        "pq_r",
    ] {
        allow!(policy, allowed);
    }
}

#[test]
fn a_server_cannot_name_a_tool_so_that_another_servers_rule_allows_it() {
    let policy = policy(
        "version: 1\ndefault: hold\nrules:\n  - {name: ok, tool: billing.get_order, action: allow}\n  \
         - {name: drop, tool: billing.drop, action: deny}\n",
    );
    allow!(policy, "billing.get_order");
    hold!(policy, "evil.billing.get_order");
    deny!(policy, "billing.drop");
    deny!(policy, "evil.billing.drop");
}

#[test]
fn a_rule_may_be_about_certain_servers() {
    let policy = policy(
        "version: 1\ndefault: deny\nrules:\n  - {name: ok, server: [git, 'team-*'], tool: read, action: allow}\n  - {name: any, server: scratch, action: allow}\n",
    );
    allow!(policy, "git.read");
    allow!(policy, "team-a.read");
    allow!(policy, "scratch.whatever");
    deny!(policy, "Git.read");
    deny!(policy, "git.write");
    deny!(policy, "other.read");
}

#[test]
fn other_methods_pass_unless_a_rule_names_them() {
    let policy = policy(
        "version: 1\ndefault: deny\nrules:\n  - {name: res, method: 'resources/*', when: 'args.uri.startsWith(\"file:///etc\")', action: hold}\n",
    );
    let ask =
        |method, arguments| policy.decide(&Call { server: "s", method, arguments, ..Call::default() }).effect;
    assert_eq!(ask("resources/read", r#"{"uri": "file:///etc/passwd"}"#), Effect::Hold);
    assert_eq!(ask("resources/read", "{}"), Effect::Hold, "what cannot be judged is held");
    assert_eq!(ask("resources/read", r#"{"uri": "file:///home"}"#), Effect::Allow);
    assert_eq!(ask("prompts/get", "{}"), Effect::Allow);
    assert_eq!(ask("tools/call", "{}"), Effect::Deny, "a call without a tool");
    assert!(policy.gates_method("resources/read") && policy.gates_method("tools/call"));
    assert!(!policy.gates_method("prompts/get"));
    deny!(policy, "resources/read");
}

#[test]
fn a_rule_without_tool_and_method_is_about_every_tool_and_about_no_other_method() {
    let policy = policy("version: 1\ndefault: allow\nrules:\n  - {name: all, action: hold}\n");
    hold!(policy, "anything");
    assert!(!policy.gates_method("ping"));
}

#[test]
fn several_files_are_one_policy() {
    let source = |name: &str, text: &str| Source { name: name.to_owned(), text: text.to_owned() };
    let a = "version: 1\ndefault: allow\nrules:\n  - {name: a, tool: t, action: allow}\n";
    let b = "version: 1\ndefault: deny\nrules:\n  - {name: b, tool: t, action: hold}\n";
    let both = Policy::parse(vec![source("a.yaml", a), source("b.yaml", b)]).unwrap();
    hold!(both, "t");
    deny!(both, "other");
    assert_eq!(both.default_effect(), Effect::Deny);
    let reversed = Policy::parse(vec![source("b.yaml", b), source("a.yaml", a)]).unwrap();
    hold!(reversed, "t");
    let errors =
        Policy::parse(vec![source("a.yaml", a), source("c.yaml", a), source("d.yaml", "")]).unwrap_err();
    let told: Vec<_> = errors.diagnostics().iter().filter(|d| d.severity() == Severity::Error).collect();
    assert_eq!(told.len(), 2, "{errors}");
    assert_eq!((told[0].code(), told[0].source_name()), ("P0002", "d.yaml"));
    assert_eq!((told[1].code(), told[1].source_name()), ("P0014", "c.yaml"));
}

#[test]
fn a_name_is_taken_also_by_a_rule_with_mistakes() {
    let rule = |more: &str| format!("  - {{name: pay, tool: pay, {more}}}\n");
    for (one, other) in
        [("action: hold", "acton: hold"), ("acton: hold", "action: hold"), ("when: 5", "when: 6")]
    {
        let text = format!("version: 1\nrules:\n{}{}", rule(one), rule(other));
        let errors = Policy::parse(vec![Source { name: "policy.yaml".to_owned(), text }]).unwrap_err();
        let names = errors.diagnostics().iter().filter(|found| found.code() == "P0014");
        assert_eq!(names.count(), 1, "all that is wrong is told at once: {errors}");
    }
}

// --- documents that are refused --------------------------------------------------------------------------------------

#[test]
fn each_rule_says_where_it_is_written_whatever_the_order() {
    let source = |name: &str, text: &str| Source { name: name.to_owned(), text: text.to_owned() };
    let one = "version: 1\nrules:\n  - {name: a, tool: a, action: deny}\n\n  # \u{e9}\n  - {name: b, tool: b, action: hold}\n\
               mode: confirm_tools\napproved_tools: [x]\nblocked_tools: [w]\n";
    let two = "version: 1\nblocked_tools: [z]\nrules:\n  - name: c\n    tool: c\n    action: hold\n";
    let policy = Policy::parse(vec![source("one", one), source("two", two)]).unwrap();
    let places: Vec<_> = policy.rules().iter().map(|rule| (rule.name(), rule.place())).collect();
    let expected = [
        ("a", ("one", 3)),
        ("b", ("one", 6)),
        ("approved_tools", ("one", 8)),
        ("blocked_tools", ("one", 9)),
        ("c", ("two", 4)),
    ];
    assert_eq!(places, expected);
}

#[test]
fn times_are_written_with_units() {
    for (written, seconds) in [
        ("90s", 90),
        ("30m", 1_800),
        ("2h", 7_200),
        ("1h 30m", 5_400),
        ("7d", 604_800),
        ("1s", 1),
        ("PT5M", 300),
    ] {
        let policy = policy(&format!(
            "version: 1\nrules:\n  - {{name: r, tool: t, action: hold, timeout: {written}}}\n"
        ));
        assert_eq!(policy.rules()[0].timeout(), Duration::from_secs(seconds), "{written}");
    }
}

#[test]
fn files_and_directories_are_read_in_order_and_test_files_are_left_out() {
    let place = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(place.path().join(name), text).unwrap();
    write("b.yaml", "version: 1\nrules:\n  - {name: b, tool: t, action: hold}\n");
    write("a.yml", "version: 1\nrules:\n  - {name: a, tool: t, action: allow}\n");
    write("a.test.yaml", "cases: []\n");
    write("notes.txt", "not a policy");
    let policy = Policy::load(&[place.path().to_owned()]).unwrap();
    assert_eq!(policy.rules().iter().map(Rule::name).collect::<Vec<_>>(), ["a", "b"]);
    assert!(policy.rules()[1].place().0.ends_with("b.yaml"));
    assert_eq!(policy.rules()[1].place().1, 3);
    let missing = Policy::load(&[place.path().join("missing.yaml")]).unwrap_err();
    assert_eq!(missing.diagnostics()[0].code(), "P0001");
    let empty = tempfile::tempdir().unwrap();
    assert_eq!(Policy::load(&[empty.path().to_owned()]).unwrap_err().diagnostics()[0].code(), "P0001");
    std::fs::write(empty.path().join("x.yaml"), [0xff, 0xfe, b'a']).unwrap();
    assert!(Policy::load(&[empty.path().to_owned()]).unwrap_err().to_string().contains("not UTF-8"));
    assert!(Policy::load(&[]).is_err());
}

#[test]
fn cases_are_judged_and_told_apart() {
    let policy = policy(
        "version: 1\nrules:\n  - {name: big, tool: pay, action: hold, when: args.amount > 10}\n  - {name: unused, tool: x, action: deny}\n",
    );
    let cases = "cases:\n  - {name: held, server: bank, tool: pay, args: {amount: 10.01}, expect: hold, rules: [big]}\n  \
                 - {name: raw, tool: pay, args: '{\"amount\": 1, \"amount\": 2}', expect: hold, rules: [big]}\n  \
                 - {name: wrong, tool: pay, args: {amount: 11}, expect: allow}\n  \
                 - {name: wrong rule, tool: pay, args: {amount: 11}, expect: hold, rules: [unused]}\n  \
                 - {name: other, method: resources/read, expect: allow}\n";
    let report =
        cases::run(&policy, Source { name: "x.test.yaml".to_owned(), text: cases.to_owned() }).unwrap();
    let passed: Vec<bool> = report.cases.iter().map(CaseOutcome::passed).collect();
    assert_eq!(passed, [true, true, false, false, true]);
    assert_eq!((report.failures(), report.passed()), (2, false));
    assert_eq!(report.cases[0].subject, "bank.pay");
    assert_eq!(report.cases[2].line, 4);
    assert_eq!(report.untested_rules, ["unused"]);
    for (bad, code) in [
        ("", "P0301"),
        ("cases: []\n", "P0301"),
        ("cases:\n  - {name: a, expect: hold}\n", "P0302"),
        ("cases:\n  - {name: a, tool: t, expct: hold}\n", "P0010"),
        ("cases:\n  - {name: a, tool: t, expect: ok}\n", "P0013"),
        ("cases:\n  - {name: a, tool: t, expect: hold, args: [1]}\n", "P0012"),
    ] {
        let errors = cases::run(&policy, Source { name: "x".to_owned(), text: bad.to_owned() }).unwrap_err();
        assert_eq!(errors.diagnostics()[0].code(), code, "{errors}");
    }
}

#[test]
fn conditions_that_wind_on_are_refused_before_a_stack_ends_and_the_longest_allowed_can_be_evaluated() {
    type Shape = fn(usize) -> String;
    let shapes: [(&str, Shape); 9] = [
        ("brackets", |n| format!("{}1{} == 1", "(".repeat(n), ")".repeat(n))),
        ("sum", |n| format!("1{} == 1", "+1".repeat(n))),
        ("conjunction", |n| format!("true{}", "&&true".repeat(n))),
        ("choice", |n| format!("{}true", "true?true:".repeat(n))),
        ("negation", |n| format!("{}true", "!".repeat(n))),
        ("path", |n| format!("args{} == 1", ".a".repeat(n))),
        ("index", |n| format!("args{} == 1", "[0]".repeat(n))),
        ("list", |n| format!("{}1{} == 1", "[".repeat(n), "]".repeat(n))),
        ("call", |n| format!("{}1{} == 1", "size(".repeat(n), ")".repeat(n))),
    ];
    for (name, shape) in shapes {
        let mut taken = 0;
        for n in [1, 10, 18, 19, 25, 30, 50, 90, 100, 250, 490, 900, 2_000, 4_000] {
            let when = serde_json::to_string(&shape(n)).unwrap();
            match parse(&format!(
                "version: 1\nrules:\n  - {{name: r, tool: t, action: hold, when: {when}}}\n"
            )) {
                Ok(policy) => {
                    judge(&policy, r#"t {"a": 1}"#);
                    taken = n;
                }
                Err(errors) => assert!(
                    ["P0103", "P0111"].contains(&errors.diagnostics()[0].code()),
                    "{name} {n}: {errors}"
                ),
            }
        }
        assert!((10..4_000).contains(&taken), "{name} {taken}");
    }
}
