//! What the official conformance suite says of a server and of a client, with `holdshort serve` between them and without it:
//! the same, scenario by scenario and check by check. The fixtures are in `tests/peers`.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{ffi::OsString, fs, sync::Arc, time::Duration};

use crate::support::{
    conformance::{Check, Findings, Requirements, examine_client, examine_server, fixture},
    peers::{ALLOW_ALL, HOLDSHORT, Home},
    serve::{Answer, Approver, Serve},
};

/// Every call waits for a person.
const HOLD_ALL: &str = "version: 1\ndefault: hold\nrules: []\n";

/// How long the approver of the held calls takes.
const THOUGHT: Duration = Duration::from_millis(200);

/// Scenarios of an extension that the fixtures do not have, and that no requirement counts.
fn is_extension(scenario: &str) -> bool {
    let other = ["client-credentials", "enterprise-managed", "dpop", "wif-jwt"];
    scenario.starts_with("tasks-") || other.iter().any(|name| scenario.contains(name))
}

/// The fixtures are no excuse: what counts passes without the proxy.
fn assert_sound(findings: &Findings) {
    for (scenario, checks) in findings {
        let failed: Vec<String> =
            checks.iter().filter(|check| check.failed()).map(ToString::to_string).collect();
        assert!(is_extension(scenario) || failed.is_empty(), "{scenario}: {failed:#?}");
    }
}

fn assert_same(direct: &Findings, proxied: &Findings) {
    assert_eq!(direct.keys().collect::<Vec<_>>(), proxied.keys().collect::<Vec<_>>());
    let differences: Vec<_> =
        direct.keys().flat_map(|scenario| difference(scenario, direct, proxied)).collect();
    assert!(differences.is_empty(), "{differences:#?}");
}

/// The scenarios of the tasks extension, out of what was found.
fn split_off_tasks(findings: &mut Findings) -> Findings {
    let all = std::mem::take(findings).into_iter();
    let (tasks, others): (Findings, Findings) = all.partition(|(scenario, _)| scenario.starts_with("tasks-"));
    assert!(tasks.len() > 5, "{tasks:?}");
    *findings = others;
    tasks
}

/// The fixture has no tasks, and the proxy has: nothing fails that passed, and much passes that failed.
fn assert_more_tasks(direct: &Findings, proxied: &Findings) {
    let passed = |findings: &Findings| -> Vec<[String; 3]> {
        let checks = findings.values().flatten().map(|check| check.outcome.clone());
        checks.filter(|outcome| outcome[2] == "SUCCESS").collect()
    };
    let (before, behind) = (passed(direct), passed(proxied));
    let lost: Vec<_> = before.iter().filter(|check| !behind.contains(check)).collect();
    assert!(lost.is_empty(), "{lost:#?}");
    assert!(behind.len() > before.len() + 5, "{behind:#?}");
}

/// The checks of a scenario that one side has and the other has not, as lines to read.
fn difference(scenario: &str, direct: &Findings, proxied: &Findings) -> Vec<String> {
    let only = |these: &Findings, those: &Findings, side: &str| {
        let known: Vec<_> = those[scenario].iter().map(|check| &check.outcome).collect();
        let unknown = these[scenario].iter().filter(|check| !known.contains(&&check.outcome));
        unknown.map(|check| format!("{scenario}, {side} only: {check}")).collect()
    };
    let direct_only: Vec<String> = only(direct, proxied, "direct");
    let proxied_only: Vec<String> = only(proxied, direct, "proxied");
    [direct_only, proxied_only].concat()
}

/// What the suite finds at the fixture, and what it finds at the proxy in front of it, with this policy and approver.
fn both(requirements: Requirements, policy: &str, answer: Option<Answer>) -> (Findings, Findings) {
    let home = Arc::new(Home::new());
    let (server, url) = fixture(&home);
    let direct = examine_server(&home, requirements, &url);
    assert_sound(&direct);
    let proxy = Serve::start(&home, policy, &url);
    let approver = answer.map(|answer| Approver::start(&home, answer));
    home.remove_canary();
    let proxied = examine_server(&home, requirements, &proxy.url);
    if let Some(approver) = approver {
        let answers = approver.answers();
        assert!(answers > 10, "only {answers} calls were held");
    }
    proxy.stop();
    drop(server);
    home.verify_record();
    if matches!(answer, Some(Answer::Reject(_))) {
        assert_eq!(home.canary(), None, "what was rejected did not run");
    }
    (direct, proxied)
}

mod a_server_is_found_the_same {
    use super::{
        ALLOW_ALL, Answer, HOLD_ALL, Requirements, THOUGHT, assert_more_tasks, assert_same,
        assert_sound_wire, both, calls_tools, difference, split_off_tasks,
    };

    #[test]
    fn with_sessions_where_everything_is_allowed() {
        let (direct, proxied) = both(Requirements::Of2025, ALLOW_ALL, None);
        assert_same(&direct, &proxied);
    }

    #[test]
    fn without_sessions_where_everything_is_allowed() {
        let (direct, proxied) = both(Requirements::Of2026, ALLOW_ALL, None);
        assert_same(&direct, &proxied);
    }

    #[test]
    fn with_sessions_where_everything_is_held_and_approved() {
        let (direct, proxied) = both(Requirements::Of2025, HOLD_ALL, Some(Answer::ApproveAfter(THOUGHT)));
        assert_same(&direct, &proxied);
    }

    #[test]
    fn without_sessions_where_everything_is_held_and_approved() {
        let (mut direct, mut proxied) =
            both(Requirements::Of2026, HOLD_ALL, Some(Answer::ApproveAfter(THOUGHT)));
        assert_more_tasks(&split_off_tasks(&mut direct), &split_off_tasks(&mut proxied));
        assert_same(&direct, &proxied);
    }

    /// What is rejected does not run, so what a tool should have done is missed. All else is as without the proxy: every
    /// scenario that calls no tool, and in the others that whatever was answered is what the revision's schema allows.
    fn but_for_what_the_tools_do(requirements: Requirements) {
        let (direct, proxied) = both(requirements, HOLD_ALL, Some(Answer::Reject("Not in this test.")));
        assert_sound_wire(&direct, &proxied);
        let others: Vec<_> = direct
            .keys()
            .filter(|scenario| !calls_tools(scenario))
            .flat_map(|scenario| difference(scenario, &direct, &proxied))
            .collect();
        assert!(others.is_empty(), "{others:#?}");
    }

    #[test]
    fn with_sessions_but_for_what_the_tools_do_where_everything_is_rejected() {
        but_for_what_the_tools_do(Requirements::Of2025);
    }

    #[test]
    fn without_sessions_but_for_what_the_tools_do_where_everything_is_rejected() {
        but_for_what_the_tools_do(Requirements::Of2026);
    }
}

/// Whether the scenario, by its name, is about what tools do.
fn calls_tools(scenario: &str) -> bool {
    const ABOUT_TOOLS: [&str; 6] =
        ["tools-call-", "elicitation-", "input-required-result-", "tasks-", "http-", "server-stateless"];
    ABOUT_TOOLS.iter().any(|about| scenario.starts_with(about)) || scenario == "server-sse-polling"
}

/// No message broke the schema of its revision, in no scenario.
fn assert_sound_wire(direct: &Findings, proxied: &Findings) {
    assert_eq!(direct.keys().collect::<Vec<_>>(), proxied.keys().collect::<Vec<_>>());
    let wire = |checks: &[Check]| {
        let of_the_wire: Vec<_> = checks.iter().filter(|check| check.is_of_the_wire()).cloned().collect();
        of_the_wire
    };
    for (scenario, checks) in direct {
        let (direct, proxied) = (wire(checks), wire(&proxied[scenario]));
        assert!(!proxied.iter().any(Check::failed), "{scenario}: {proxied:#?}");
        assert_eq!(direct.is_empty(), proxied.is_empty(), "{scenario}: was anything said?");
    }
}

/// What the suite finds at our client, with or without a proxy that passes everything, and with these settings of it.
fn client(home: &Home, requirements: Requirements, proxy: Option<&[(&str, &str)]>) -> Findings {
    let mut environment: Vec<(&str, OsString)> = Vec::new();
    if let Some(settings) = proxy {
        let policy = home.path("policy.yaml");
        fs::write(&policy, ALLOW_ALL).unwrap();
        environment.extend([("HOLDSHORT", HOLDSHORT.into()), ("HOLDSHORT_POLICY", policy.into())]);
        environment.extend(settings.iter().map(|(name, value)| (*name, value.into())));
    }
    examine_client(home, requirements, &environment)
}

/// The differences, but for extensions.
fn logins_apart(direct: &Findings, proxied: &Findings) -> Vec<String> {
    assert_eq!(direct.keys().collect::<Vec<_>>(), proxied.keys().collect::<Vec<_>>());
    let known = direct.keys().filter(|scenario| !is_extension(scenario));
    known.flat_map(|scenario| difference(scenario, direct, proxied)).collect()
}

/// The proxy stands once at the server's own URL, as one does that has taken over its public name, and passes logins on as they are;
/// and once at a URL of its own, and writes that into what the server says of logins.
fn a_client_is_found_the_same(requirements: Requirements) {
    let home = Home::new();
    let direct = client(&home, requirements, None);
    assert_sound(&direct);
    let same_url = [("HOLDSHORT_SAME_URL", "yes"), ("HOLDSHORT_OAUTH", "pass")];
    let proxied = client(&home, requirements, Some(&same_url));
    assert_eq!(logins_apart(&direct, &proxied), Vec::<String>::new());
    // All logins work, but the token is for the proxy's URL: the one thing that the suite's servers find wrong.
    let proxied = client(&home, requirements, Some(&[("HOLDSHORT_OAUTH", "rewrite")]));
    let mut differences = logins_apart(&direct, &proxied);
    differences.retain(|line| !line.contains("only: resource-parameter-matches-prm |"));
    assert_eq!(differences, Vec::<String>::new());
}

#[test]
fn a_client_with_sessions_is_found_the_same() {
    a_client_is_found_the_same(Requirements::Of2025);
}

#[test]
fn a_client_without_sessions_is_found_the_same() {
    a_client_is_found_the_same(Requirements::Of2026);
}
