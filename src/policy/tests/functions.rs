//! What the functions of conditions answer, and what they refuse to answer.

use super::*;

/// What a condition says of the argument `a`, as JSON: `true`, `false`, or nothing where it has no answer. (Asked twice, by a
/// rule that holds and by one that allows: only with an answer do they agree.)
fn answer(when: &str, json: &str) -> Option<bool> {
    let rules = |action: &str, default: &str| {
        policy(&format!(
            "version: 1\ndefault: {default}\nrules:\n  - {{name: r, tool: t, action: {action}, when: '{when}'}}\n"
        ))
    };
    let call = format!(r#"t {{"a": {json}}}"#);
    let held = judge(&rules("hold", "allow"), &call).effect == Effect::Hold;
    let allowed = judge(&rules("allow", "hold"), &call).effect == Effect::Allow;
    (held == allowed).then_some(held)
}

fn answers(when: &str, cases: &[(&str, Option<bool>)]) {
    for (json, expected) in cases {
        assert_eq!(answer(when, json), *expected, "{when} of {json}");
    }
}

const YES: Option<bool> = Some(true);
const NO: Option<bool> = Some(false);

#[test]
fn the_host_of_a_url_is_the_one_that_every_program_goes_to() {
    answers(
        r#"args.a.host().within("example.com")"#,
        &[
            (r#""https://example.com/x""#, YES),
            (r#""HTTPS://API.Example.COM.:443/x?y#z""#, YES),
            (r#""https://evilexample.com""#, NO),
            (r#""https://example.com.evil.org""#, NO),
            (r#""https://evil.org/example.com""#, NO),
            (r#""https://evil.org?@example.com""#, NO),
            (r#""https://example.com@evil.org/""#, None),
            (r#""https://@example.com/""#, None),
            (r#""https://evil.org\\@example.com/""#, None),
            (r#""https://example.com\t.evil.org/""#, None),
            (r#""//example.com/""#, None),
            (r#""example.com""#, None),
            (r#""file:///example.com""#, None),
            (r#""javascript://example.com/%0aalert(1)""#, None),
            (r#"["https://example.com"]"#, None),
            ("null", None),
        ],
    );
    answers(
        r#"args.a.host() == "127.0.0.1""#,
        &[(r#""http://2130706433/""#, YES), (r#""http://0x7f.1/""#, YES)],
    );
    answers(r#"args.a.host() == "xn--bcher-kva.example""#, &[(r#""http://bücher.example/""#, YES)]);
    answers(
        r#"args.a.host().inCidr("::/8")"#,
        &[(r#""http://[::1]/""#, YES), (r#""http://[2001:db8::1]/""#, NO)],
    );
    answers(
        r#"args.a.host().inCidr("127.0.0.0/8")"#,
        &[(r#""http://[::ffff:127.0.0.1]/""#, YES), (r#""http://example.com/""#, None)],
    );
}

#[test]
fn the_domain_of_an_address_is_read_from_one_plain_address_only() {
    answers(
        r#"args.a.emailDomain() == "example.com""#,
        &[
            (r#""ann@example.com""#, YES),
            (r#""Ann.B+x@EXAMPLE.com""#, YES),
            (r#""ann@sub.example.com""#, NO),
            (r#""ann@example.com.evil.org""#, NO),
            (r#""ann@evil.org,bob@example.com""#, None),
            (r#""ann@evil.org@example.com""#, None),
            (r#""Ann <ann@evil.org> @example.com""#, None),
            (r#""\"a@evil.org\"@example.com""#, None),
            (r#""ann%evil.org@example.com""#, None),
            (r#""@example.com""#, None),
            (r#""ann@[10.0.0.1]""#, None),
            (r#""ann@10.0.0.1""#, None),
            (r#""ann@еxample.com""#, NO),
            (r#"["ann@example.com"]"#, None),
        ],
    );
    answers(
        r#"args.a.all(x, x.emailDomain().within("example.com"))"#,
        &[
            (r#"["a@example.com", "b@x.example.com"]"#, YES),
            (r#"["a@example.com", "b@evil.org"]"#, NO),
            (r#"["a@example.com", 5]"#, None),
        ],
    );
}

#[test]
fn a_path_is_compared_by_its_steps_after_they_were_walked() {
    answers(
        r#"args.a.underPath("/srv/data")"#,
        &[
            (r#""/srv/data""#, YES),
            (r#""/srv//data/./x/../y""#, YES),
            (r#""/srv/database""#, NO),
            (r#""/srv/data/../secret""#, NO),
            (r#""/../../srv/data/x""#, YES),
            (r#""srv/data/x""#, None),
            (r#""~/x""#, None),
            (r#""/srv/data/..\\..\\etc""#, None),
            (r#""/srv/data/\u0000/../../etc""#, None),
            (r#""file:///srv/data/x""#, None),
        ],
    );
}

#[test]
fn an_address_is_in_a_block_or_is_none() {
    answers(
        r#"args.a.inCidr("10.0.0.0/8")"#,
        &[
            (r#""10.255.0.1""#, YES),
            (r#""11.0.0.1""#, NO),
            (r#""::ffff:10.0.0.1""#, YES),
            (r#""::a00:1""#, NO),
            (r#""010.0.0.1""#, None),
            (r#""10.0.0.1:80""#, None),
            (r#""10.1""#, None),
        ],
    );
    answers(r#"args.a.inCidr("0.0.0.0/0")"#, &[(r#""1.2.3.4""#, YES), (r#""::1""#, NO)]);
}

#[test]
fn a_pattern_stands_for_the_whole_text() {
    answers(
        r#"args.a.glob("get_*_?")"#,
        &[
            (r#""get_x_1""#, YES),
            (r#""get__é""#, YES),
            (r#""get_x""#, NO),
            (r#""forget_x_1""#, NO),
            ("5", None),
        ],
    );
    answers(r#"args.a.glob("*a*a*a*b")"#, &[(&format!("\"{}\"", "a".repeat(5_000)), NO)]);
}

#[test]
fn decimals_are_exact() {
    answers(
        "decimal(args.a) > 1000",
        &[
            ("1000.0000000000000000001", YES),
            ("\"1000.01\"", YES),
            ("\"1000.00\"", NO),
            ("1e3", NO),
            ("1e300", YES),
            ("1e400", None),
            ("-1000.5", NO),
            ("\"1,000.5\"", None),
            ("\"0x7d0\"", None),
            ("\" 2000\"", None),
            ("null", None),
        ],
    );
    answers(
        r#"decimal(args.a) == decimal("0.10")"#,
        &[("0.1", YES), ("\"0.100\"", YES), ("0.1000000000000000055", NO)],
    );
    answers("decimal(args.a) < 0.1", &[("0.09999999999999999999", YES), ("0.1", NO), ("-5", YES)]);
}

#[test]
fn hours_are_those_of_the_place() {
    let policy = policy(
        "version: 1\nrules:\n  - {name: in-hours, tool: t, action: allow, when: {now: {during: 'mon-fri 09:00-17:30 Europe/Berlin'}}}\n",
    );
    let at = |time: &str| {
        let call = Call { server: "s", tool: Some("t"), now: time.parse().unwrap(), ..Call::default() };
        policy.decide(&call).effect == Effect::Allow
    };
    assert!(at("2026-11-23T09:00:00+01:00") && at("2026-11-23T17:29:59+01:00"), "a Monday");
    assert!(!at("2026-11-23T08:59:59+01:00") && !at("2026-11-23T17:30:00+01:00"));
    assert!(!at("2026-11-22T12:00:00+01:00"), "a Sunday");
    assert!(at("2026-07-01T07:30:00Z") && !at("2026-11-25T07:30:00Z"), "in summer it is an hour later there");
    let night = held_when("now.during(\"fri 22:00-06:00 UTC\")");
    let held = |time: &str| {
        let call = Call { server: "s", tool: Some("t"), now: time.parse().unwrap(), ..Call::default() };
        night.decide(&call).effect == Effect::Hold
    };
    assert!(held("2026-11-20T23:00:00Z") && held("2026-11-21T05:59:00Z"), "over midnight into Saturday");
    assert!(!held("2026-11-20T05:00:00Z") && !held("2026-11-21T06:00:00Z") && !held("2026-11-21T23:00:00Z"));
}

#[test]
fn what_a_server_says_of_its_tools_only_makes_things_stricter_unless_it_is_trusted() {
    let text = "version: 1\ndefault: hold\nservers: {good: {trusted: true}}\nrules:\n  \
        - {name: reads, tool: t, action: allow, when: annotations.readOnlyHint}\n  \
        - {name: harm, tool: t, action: deny, when: annotations.destructiveHint}\n";
    let policy = policy(text);
    let judge = |server, hints: &[(&str, bool)]| {
        let mut annotations = Annotations::default();
        hints.iter().for_each(|(name, value)| assert!(annotations.set(name, *value)));
        policy.decide(&Call { server, tool: Some("t"), annotations, ..Call::default() }).effect
    };
    let harmless = [("readOnlyHint", true), ("destructiveHint", false)];
    assert_eq!(judge("good", &harmless), Effect::Allow);
    assert_eq!(judge("evil", &harmless), Effect::Deny, "a harmless word of a stranger is no word");
    assert_eq!(judge("evil", &[]), Effect::Deny, "and so is none");
    assert_eq!(judge("good", &[("readOnlyHint", true)]), Effect::Deny, "a missing hint has no answer");
    assert_eq!(judge("good", &[("destructiveHint", true)]), Effect::Deny);
}

#[test]
fn all_conditions_of_a_decision_share_one_budget() {
    let rule = |name: usize| {
        format!("  - {{name: r{name}, tool: t, action: hold, when: 'args.l.exists(x, x == \"z\")'}}\n")
    };
    let many: String = (0..400).map(rule).collect();
    let text = "y".repeat(60_000);
    let list = vec!["\"a\""; 20].join(",");
    let call = format!(r#"t {{"l": [{list}], "text": "{text}"}}"#);
    allow!(held_when("args.l.exists(x, x == \"z\")"), &call);
    let decision = judge(&policy(&format!("version: 1\ndefault: allow\nrules:\n{many}")), &call);
    assert_eq!(decision.effect, Effect::Hold);
    assert!(decision.notes[0].contains("too large for the loops"), "{:?}", decision.notes);
}
