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

/// A policy of one hold rule with this condition; what it does not hold it allows.
fn held_when(when: &str) -> Policy {
    policy(&format!(
        "version: 1\ndefault: allow\nrules:\n  - {{name: r, tool: t, action: hold, when: {when}}}\n"
    ))
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
