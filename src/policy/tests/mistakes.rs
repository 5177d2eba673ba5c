//! What a policy is refused for, and what it is warned of: every mistake with its code, all of them at once, each at its place.

use super::*;

/// A public key.
const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl";

#[test]
fn a_document_that_could_be_misread_is_refused() {
    let rule = |body: &str| format!("version: 1\nrules:\n  - {{name: r, {body}}}\n");
    let asks = |body: &str| {
        let people = "people: {ann: {identities: 'uid:ann', roles: finance}, bob: {identities: 'uid:bob', roles: finance}}";
        format!("version: 1\n{people}\nrules:\n  - {{name: r, tool: t, action: hold, {body}}}\n")
    };
    for (text, expected) in [
        // Y01
        ("".to_owned(), "P0002"),
        ("# nothing\n".to_owned(), "P0002"),
        ("rules: []\n".to_owned(), "P0011"),
        ("version: 2\n".to_owned(), "P0013"),
        ("version: '1'\n".to_owned(), "P0013"),
        ("version: 1.0\n".to_owned(), "P0013"),
        ("- a\n".to_owned(), "P0012"),
        ("just text\n".to_owned(), "P0012"),
        // Y02
        (rule("tool: t, action: hold, aprove: 1"), "P0010"),
        (rule("tool: t, action: hold, notify: [ops-chat, pager]"), ""),
        (rule("tool: t, action: hold, notify: ../x"), "P0507"),
        (rule("tool: t, action: deny, notify: x"), "P0016"),
        (rule("method: tools/cal, action: hold"), "P0020"),
        (rule("method: [resources/read, Tools/Call], action: deny"), "P0020"),
        (rule("method: '{tools/cal}', action: deny"), ""),
        (rule("method: vendor/exec, action: deny"), ""),
        ("version: 1\nmode: audited\n".to_owned(), "P0013"),
        ("version: 1\nmode: [audit]\n".to_owned(), "P0013"),
        ("version: 1\nservers: {a: {trust: true}}\n".to_owned(), "P0010"),
        ("version: 1\nservers: [a]\n".to_owned(), "P0012"),
        ("version: 1\nservers: {a: {trusted: 1}}\n".to_owned(), "P0012"),
        ("version: 1\ntools: {\"[a\": {mode: audit}}\n".to_owned(), "P0018"),
        ("version: 1\napproved_tools: []\n".to_owned(), "P0018"),
        ("version: 1\nhide_denied_tools: 1\n".to_owned(), "P0012"),
        // Y04
        (rule("tool: t, action: hold, required_approvals: 0"), "P0019"),
        (rule("tool: t, action: hold, required_approvals: -1"), "P0019"),
        (rule("tool: t, action: hold, required_approvals: two"), "P0019"),
        (rule("tool: t, action: hold, required_approvals: 21"), "P0019"),
        (rule("tool: t, action: hold, required_rejections: 0"), "P0019"),
        (rule("tool: t, action: hold, approvers: []"), "P0019"),
        (rule("tool: t, action: hold, approvers: ['']"), "P0017"),
        (rule("tool: t, action: hold, requires: []"), "P0019"),
        (rule("tool: t, action: hold, requires: [{approvals: 1}]"), "P0011"),
        (rule("tool: t, action: hold, requires: [{approvers: a}], approvers: b"), "P0505"),
        (rule("tool: t, action: deny, approvers: [a]"), "P0016"),
        ("version: 1\npeople: {alice: {roles: [x]}}\n".to_owned(), "P0502"),
        ("version: 1\npeople: {alice: {identities: [alice]}}\n".to_owned(), "P0502"),
        (
            "version: 1\npeople: {alice: {identities: 'uid:a'}, bob: {identities: 'uid:a'}}\n".to_owned(),
            "P0502",
        ),
        ("version: 1\nteams: {a: [bob]}\n".to_owned(), "P0502"),
        (
            "version: 1\npeople: {bob: {identities: 'uid:b', roles: ops}}\nteams: {ops: [bob]}\n".to_owned(),
            "P0504",
        ),
        (asks("approvers: [finanse]"), "P0501"),
        (asks("approvers: [finance], required_approvals: 3"), "P0503"),
        (asks("requires: [{approvers: finance, approvals: 2}, {approvers: bob}]"), "P0503"),
        (asks("approvers: [finance], required_approvals: 2"), ""),
        // escalation
        (asks("on_timeout: escalate"), "P0505"),
        (asks("on_timeout: deny, escalate: [{to: bob, timeout: 5m}]"), "P0505"),
        (asks("escalate: [{to: bob}]"), "P0011"),
        (asks("escalate: [{to: nobody, timeout: 5m}]"), "P0501"),
        (asks("timeout: 6d, escalate: [{to: bob, timeout: 2d}]"), "P0015"),
        (asks("timeout: 6d, escalate: [{to: bob, timeout: 1d}]"), ""),
        (asks("remind: 5s"), "P0015"),
        // remembered approvals
        (asks("remember: 9h"), "P0015"),
        (asks("remember: {same: [tool]}"), "P0011"),
        (asks("remember: {for: 5m, same: [server]}"), "P0013"),
        (asks("remember: 5m, required_approvals: 2"), "P0506"),
        (asks("remember: {for: 5m, uses: 0}"), "P0019"),
        (asks("remember: {for: 5m, uses: 1001}"), "P0019"),
        (asks("remember: {for: 5m, same: [tool], uses: 1000}"), ""),
        (rule("tool: t, action: allow, remember: 5m"), "P0016"),
        // signatures
        (asks("signed: 1"), "P0012"),
        (asks("min_assurance: L5"), "P0013"),
        (asks("min_assurance: 1"), "P0013"),
        (asks("signed: true"), "P0509"),
        (asks("min_assurance: L3"), "P0509"),
        (asks("signed: true, remember: 5m"), "P0506"),
        (asks("min_assurance: L1, edit: true"), "P0506"),
        (asks("signed: false, min_assurance: L0, edit: true"), ""),
        (rule("tool: t, action: deny, signed: true"), "P0016"),
        ("version: 1\npeople: {ann: {ssh_keys: 'ssh-dss AAAA'}}\n".to_owned(), "P0508"),
        (
            format!("version: 1\npeople: {{ann: {{ssh_keys: '{KEY}'}}, bob: {{ssh_keys: '{KEY}'}}}}\n"),
            "P0502",
        ),
        (format!("version: 1\npeople: {{ann: {{ssh_keys: '{KEY}'}}}}\n"), ""),
        // edits
        // waiting, and the agent's own client
        (asks("elicitation: true"), ""),
        (asks("elicitation: 1"), "P0012"),
        (asks("elicitation: true, required_approvals: 2"), "P0510"),
        (asks("elicitation: true, required_rejections: 2"), "P0510"),
        (rule("tool: t, action: deny, elicitation: true"), "P0016"),
        (asks("grant: 7d"), ""),
        (asks("grant: 59s"), "P0015"),
        (asks("grant: 8d"), "P0015"),
        (rule("tool: t, action: allow, grant: 1h"), "P0016"),
        ("version: 1\nwaiting: {default: 1s, grant: 1m, clients: {a: {wait: forever}}}\n".to_owned(), ""),
        ("version: 1\nwaiting: {grant: 8d}\n".to_owned(), "P0015"),
        ("version: 1\nwaiting: {clients: {a: {wait: soon}}}\n".to_owned(), "P0015"),
        ("version: 1\nwaiting: {clients: {a: {rounds: 1}}}\n".to_owned(), "P0012"),
        ("version: 1\nwaiting: {clients: {a: {legs: true}}}\n".to_owned(), "P0010"),
        ("version: 1\nwaiting: [1h]\n".to_owned(), "P0012"),
        (asks("edit: yes"), "P0006"),
        (asks("edit: 1"), "P0012"),
        (asks("edit: true, required_approvals: 2"), "P0506"),
        (asks("edit: true"), ""),
        (rule("tool: t, action: deny, edit: true"), "P0016"),
        ("version: 1\nrules: {}\n".to_owned(), "P0012"),
        (rule("tool: t, action: approve"), "P0013"),
        (rule("tool: t, action: Hold"), "P0013"),
        (rule("tool: t"), "P0011"),
        ("version: 1\nrules:\n  - {tool: t, action: hold}\n".to_owned(), "P0011"),
        ("version: 1\nrules:\n  - \n".to_owned(), "P0012"),
        (rule("tool: [], action: deny"), "P0018"),
        (rule("tool: '', action: deny"), "P0018"),
        (rule("tool: 'a b', action: deny"), "P0018"),
        (rule("tool: '[a', action: deny"), "P0018"),
        (rule("tool: 5, action: deny"), "P0012"),
        (rule("tool: {a: b}, action: deny"), "P0012"),
        (rule("tool: t, method: resources/read, action: deny"), "P0016"),
        (rule("tool: t, action: allow, timeout: 5m"), "P0016"),
        (rule("tool: t, action: deny, hold_message: x"), "P0016"),
        (rule("tool: t, action: allow, on_rejection: fail"), "P0016"),
        (rule("tool: t, action: hold, on_rejection: stop"), "P0013"),
        // Y03
        ("version: 1\nversion: 1\n".to_owned(), "P0004"),
        (rule("tool: t, tool: u, action: hold"), "P0004"),
        (rule("tool: no, action: hold"), "P0006"),
        (rule("tool: 017, action: hold"), "P0006"),
        (rule("tool: 0x1F, action: hold"), "P0006"),
        (rule("tool: 1_000, action: hold"), "P0006"),
        (rule("tool: 12:30, action: hold"), "P0006"),
        (rule("tool: &a t, action: hold"), "P0005"),
        ("version: 1\nrules: *a\n".to_owned(), "P0003"),
        ("a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n".to_owned(), "P0005"),
        (rule("tool: !!str t, action: hold"), "P0005"),
        ("version: 1\nrules:\n\t- {name: r, tool: t, action: hold}\n".to_owned(), "P0003"),
        ("version: 1\n---\nversion: 1\n".to_owned(), "P0007"),
        ("\u{feff}version: 1\n".to_owned(), "P0003"),
        ("version: 1\nrules: [".to_owned(), "P0003"),
        (format!("version: 1\nrules: {}{}\n", "[".repeat(40), "]".repeat(40)), "P0007"),
        (format!("version: 1\nrules: {}{}\n", "[".repeat(100_000), "]".repeat(100_000)), "P0003"),
        // Y06
        (rule("tool: t, action: hold, when: 'args.a.matches(\"(\")'"), "P0107"),
        (rule("tool: t, action: hold, when: 'args.a.matches(\"(?=a)\")'"), "P0107"),
        (rule("tool: t, action: hold, when: 'args.a.matches(\"((a{1000}){1000}){1000}\")'"), "P0107"),
        (rule("tool: t, action: hold, when: 'args.a.matches(args.b)'"), "P0107"),
        // Y10
        (rule("tool: t, action: hold, timeout: 0"), "P0015"),
        (rule("tool: t, action: hold, timeout: 0s"), "P0015"),
        (rule("tool: t, action: hold, timeout: 30"), "P0015"),
        (rule("tool: t, action: hold, timeout: never"), "P0015"),
        (rule("tool: t, action: hold, timeout: 10y"), "P0015"),
        (rule("tool: t, action: hold, timeout: 8d"), "P0015"),
        (rule("tool: t, action: hold, timeout: -5m"), "P0015"),
        (rule("tool: t, action: hold, timeout: 500ms"), "P0015"),
        (rule("tool: t, action: hold, timeout: 1mo"), "P0015"),
        (rule("tool: t, action: hold, on_timeout: approve"), "P0013"),
        (rule("tool: t, action: hold, on_timeout: allow"), "P0013"),
        // Y12: nothing comes from the environment or from elsewhere
        ("version: 1\ninclude: https://example.com/policy.yaml\n".to_owned(), "P0010"),
        ("version: 1\nextends: ../base.yaml\n".to_owned(), "P0010"),
        ("version: 1\nrules: !include other.yaml\n".to_owned(), "P0005"),
        (rule("tool: t, action: hold, when: args.path.startsWith(env.HOME)"), "P0104"),
        (rule("tool: t, action: hold, timeout: $TIMEOUT"), "P0015"),
        // Y11: a grammar of another version is not guessed
        ("version: 3\n".to_owned(), "P0013"),
        // texts
        (rule("tool: t, action: hold, reason: ''"), "P0017"),
        (rule("tool: t, action: hold, reason: \"a\\e[2Jb\""), "P0017"),
        (rule("tool: t, action: hold, reason: \"a\\u202eb\""), "P0017"),
        (rule("tool: t, action: hold, hold_message: \"a\\nb\""), "P0017"),
        (rule(&format!("tool: t, action: hold, hold_message: {}", "é".repeat(301))), "P0017"),
        // conditions
        (rule("tool: t, action: hold, when: ''"), "P0103"),
        (rule("tool: t, action: hold, when: args.a ="), "P0103"),
        (rule("tool: t, action: hold, when: 5"), "P0012"),
        (rule("tool: t, action: hold, when: {}"), "P0101"),
        (rule("tool: t, action: hold, when: arg.amount > 1"), "P0104"),
        (rule("tool: t, action: hold, when: amount > 1"), "P0104"),
        (rule("tool: t, action: hold, when: 'args.a.endswith(\"x\")'"), "P0105"),
        (rule("tool: t, action: hold, when: now() > 1"), "P0105"),
        (rule("tool: t, action: hold, when: 'args.a.exists(x)'"), "P0105"),
        (rule("tool: t, action: hold, when: 'args.?a == 1'"), "P0103"),
        (rule("tool: t, action: hold, when: 'optional.none().hasValue()'"), "P0105"),
        (rule("tool: t, action: hold, when: 'tool.name == \"x\"'"), "P0106"),
        (rule("tool: t, action: hold, when: 'annotations.readonly'"), "P0106"),
        (rule("tool: t, action: hold, when: 'now == 5'"), "P0106"),
        (rule("tool: t, action: hold, when: 'now.during(args.hours)'"), "P0112"),
        (rule("tool: t, action: hold, when: 'now.during(\"mon 9-17 UTC\")'"), "P0112"),
        (rule("tool: t, action: hold, when: 'now.during(\"09:00-17:00 Mars/Olympus\")'"), "P0112"),
        (rule("tool: t, action: hold, when: 'args.a.host(\"x\") == \"y\"'"), "P0112"),
        (rule("tool: t, action: hold, when: 'args.a.within(\"Example.com\")'"), "P0112"),
        (rule("tool: t, action: hold, when: 'args.a.inCidr(\"10.0.0.1/8\")'"), "P0112"),
        (rule("tool: t, action: hold, when: 'args.a.inCidr(\"10.0.0.0/33\")'"), "P0112"),
        (rule("tool: t, action: hold, when: 'args.a.underPath(\"srv\")'"), "P0112"),
        (rule("tool: t, action: hold, when: 'args.a.underPath(\"/srv/..\")'"), "P0112"),
        (rule("tool: t, action: hold, when: 'args.a.glob(\"[a]\")'"), "P0112"),
        (rule("tool: t, action: hold, when: {now: {during: 'always'}}"), "P0112"),
        (rule("tool: t, action: hold, when: {now: {eq: 5}}"), "P0106"),
        (rule("tool: t, action: hold, when: {annotations.x: {eq: true}}"), "P0102"),
        (rule("tool: t, action: hold, when: 'args.l.exists(args, args == 1)'"), "P0104"),
        (rule("tool: t, action: hold, when: args.a > 100.0000000000000001"), "P0109"),
        (rule("tool: t, action: hold, when: args.a > 9007199254740993.0"), "P0109"),
        (rule("tool: t, action: hold, when: {args.a: {gt: 12345678901234567890}}"), "P0109"),
        (rule("tool: t, action: hold, when: args.a > 12345678901234567890"), "P0103"),
        (rule("tool: t, action: hold, when: args.amount"), ""),
        (rule("tool: t, action: hold, when: args.amount + 1"), "P0110"),
        (rule("tool: t, action: hold, when: '\"yes\"'"), "P0110"),
        (rule("tool: t, action: hold, when: {amount: {gt: 1}}"), "P0102"),
        (rule("tool: t, action: hold, when: {args: {gt: 1}}"), "P0102"),
        (rule("tool: t, action: hold, when: {args..a: {gt: 1}}"), "P0102"),
        (rule("tool: t, action: hold, when: {tool.name: {eq: x}}"), "P0102"),
        (rule("tool: t, action: hold, when: {args.a: {gtt: 1}}"), "P0101"),
        (rule("tool: t, action: hold, when: {args.a: {gt: '1'}}"), "P0101"),
        (rule("tool: t, action: hold, when: {args.a: {in: x}}"), "P0101"),
        (rule("tool: t, action: hold, when: {args.a: {in: []}}"), "P0101"),
        (rule("tool: t, action: hold, when: {args.a: {contains: ''}}"), "P0101"),
        (rule("tool: t, action: hold, when: {args.a: {exists: 1}}"), "P0101"),
        (rule("tool: t, action: hold, when: {args.a: {}}"), "P0101"),
        (rule("tool: t, action: hold, when: {args.a: 5}"), "P0101"),
        (rule("tool: t, action: hold, when: {args.a: {matches: '('}}"), "P0107"),
        (
            format!(
                "version: 1\nrules:\n  - {{name: r, tool: t, action: hold, when: '{}1 == 1'}}\n",
                "(".repeat(500)
            ),
            "P0111",
        ),
        (rule(&format!("tool: t, action: hold, when: '{}'", "a".repeat(9_000))), "P0103"),
    ] {
        let found = codes(&text);
        let expected: Vec<&str> = Some(expected).filter(|code| !code.is_empty()).into_iter().collect();
        assert!(
            found.first() == expected.first(),
            "expected {expected:?}, found {found:?} in\n{}",
            &text[..text.len().min(300)]
        );
    }
}

#[test]
fn all_mistakes_of_a_policy_are_told_at_once() {
    let text = "version: 1\nrules:\n  - {name: a, tool: t, action: hld}\n  - {name: b, tol: t, action: hold, timeout: 0s}\n  - {name: a, tool: t, action: deny}\n  - {name: c, action: deny, when: argz.x > 1 || fo()}\n";
    assert_eq!(codes(text), ["P0013", "P0010", "P0015", "P0104", "P0105", "P0014"]);
}

#[test]
fn a_long_policy_is_read_in_parts_as_if_it_were_one() {
    let mut text = "version: 1\nrules:\n".to_owned();
    for at in 0..2_000 {
        let when = if at % 500 == 499 { "argz.x > 1".to_owned() } else { format!("args.x > {at}") };
        text.push_str(&format!("  - {{name: rule-{at}, tool: tool-{at}, action: hold, when: {when}}}\n"));
    }
    let errors = parse(&text).unwrap_err();
    let found: Vec<_> = errors.diagnostics().iter().map(|found| (found.code(), found.position().0)).collect();
    assert_eq!(found, [("P0104", 502), ("P0104", 1002), ("P0104", 1502), ("P0104", 2002)]);
    let policy = policy(&text.replace("argz.", "args."));
    let names: Vec<_> = policy.rules().iter().map(|rule| rule.name().to_owned()).collect();
    assert_eq!(names, (0..2_000).map(|at| format!("rule-{at}")).collect::<Vec<_>>());
}

#[test]
fn a_mistake_in_a_condition_is_shown_where_it_was_written() {
    let rendered = |when: &str| {
        parse(&format!("version: 1\nrules:\n  - name: r\n    tool: t\n    action: hold\n    when: {when}\n"))
            .unwrap_err()
            .to_string()
    };
    assert_eq!(
        rendered("|\n      args.amount > 1000 &&\n      tool.name = \"x\""),
        "error[P0103]: the condition is not valid CEL: `=` is not an operator\n --> policy.yaml:8:17\n  |\n\
         8 |       tool.name = \"x\"\n  |                 ^\n  |\n  = hint: did you mean `==`?"
    );
    assert_eq!(
        rendered("'args.who == ''é'' && arg.x > 1'"),
        "error[P0104]: nothing here is called `arg`\n --> policy.yaml:6:33\n  |\n\
         6 |     when: 'args.who == ''é'' && arg.x > 1'\n  |                                 ^^^\n  |\n  = hint: did you mean `args`?"
    );
    assert_eq!(
        rendered("\"args.who == \\\"é\\\" && args.x.endswith('y')\""),
        "error[P0105]: there is no function `endswith` here\n --> policy.yaml:6:40\n  |\n\
         6 |     when: \"args.who == \\\"é\\\" && args.x.endswith('y')\"\n  |                                        ^^^^^^^^\n  |\n  = hint: did you mean `endsWith`?"
    );
    assert_eq!(
        rendered(">-\n      args.amount > 1000\n      && nope"),
        "error[P0104]: nothing here is called `nope`\n --> policy.yaml:8:10\n  |\n\
         8 |       && nope\n  |          ^^^^\n  |\n  = hint: known are args, annotations, tool, server, client, principal, method, now; an argument is `args.nope`"
    );
}

#[test]
fn doubtful_policies_load_with_a_warning() {
    for (rules, expected) in [
        ("{name: r, tool: t, action: hold, when: has(args.x) && args.x > 1}", "P0201"),
        ("{name: r, tool: t, action: hold, when: 'has(args.x.y) && args.z == 1 && args.x.y.w > 1'}", "P0201"),
        ("{name: r, tool: t, action: hold, when: 'args.z == 1 || (has(args.x) && args.x > 1)'}", "P0201"),
        ("{name: r, tool: t, action: deny, when: 'has(args.x) ? args.x > 1 : false'}", "P0201"),
        ("{name: r, tool: t, action: hold, when: {args.x: {exists: true, gt: 1}}}", "P0201"),
        ("{name: r, tool: t, action: allow, when: has(args.x) && args.x > 1}", ""),
        ("{name: r, tool: t, action: hold, when: '!has(args.x) || args.x > 1'}", ""),
        ("{name: r, tool: t, action: hold, when: has(args.x)}", ""),
        ("{name: r, tool: t, action: hold, when: has(args.x) && args.y > 1}", ""),
        (
            "{name: r, tool: t, action: hold}\n  - {name: s, tool: t, action: allow, when: args.x > 1}",
            "P0202",
        ),
        ("{name: r, tool: t, action: deny}\n  - {name: s, tool: t, action: hold}", "P0202"),
        ("{name: r, action: deny}\n  - {name: s, tool: t, action: hold}", "P0202"),
        (
            "{name: r, tool: '*', action: hold}\n  - {name: s, tool: [t, 'u*'], server: x, action: allow}",
            "P0202",
        ),
        ("{name: r, tool: t, server: x, action: deny}\n  - {name: s, tool: t, action: hold}", ""),
        ("{name: r, tool: t, action: deny, when: args.x > 1}\n  - {name: s, tool: t, action: hold}", ""),
        ("{name: r, tool: t, action: deny}\n  - {name: s, tool: [t, u], action: hold}", ""),
        ("{name: r, method: m, action: deny}\n  - {name: s, tool: m, action: hold}", ""),
        ("{name: r, tool: '*', action: allow}", "P0203"),
        ("{name: r, action: allow}", "P0203"),
        ("{name: r, tool: '*', server: mine, action: allow}", ""),
        ("{name: r, tool: t, action: allow, when: 'args.x.matches(\"a+\")'}", "P0204"),
        ("{name: r, tool: t, action: allow, when: 'args.x.matches(\"^a+$\")'}", ""),
        ("{name: r, tool: t, action: hold, when: 'args.x.matches(\"a+\")'}", ""),
        ("{name: r, tool: t, action: allow, when: annotations.readOnlyHint && args.x == 1}", "P0210"),
        ("{name: r, tool: t, action: hold, when: annotations.destructiveHint}", ""),
        ("{name: r, tool: t, action: hold, when: 'true'}", "P0205"),
        ("{name: r, method: '*', action: hold}", "P0207"),
    ] {
        let policy = policy(&format!("version: 1\nrules:\n  - {rules}\n"));
        let found: Vec<&str> = policy.warnings().iter().map(Diagnostic::code).collect();
        let expected: Vec<&str> = Some(expected).filter(|code| !code.is_empty()).into_iter().collect();
        assert_eq!(found, expected, "{rules}");
    }
    assert_eq!(policy("version: 1\ndefault: allow\n").warnings()[0].code(), "P0206");
}
