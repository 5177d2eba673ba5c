//! What a policy costs: loading ten thousand rules, and one decision with ten rules and with ten thousand.
//!
//! `cargo bench --bench policy`; `benches/README.md` says what each figure means. `-- --count N` makes N decisions with ten
//! thousand rules and prints nothing else, for a profiler that counts instructions.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a bench prints its figures")]

use std::{
    hint::black_box,
    process::ExitCode,
    time::{Duration, Instant},
};

use holdshort::policy::{Call, Effect, Policy, PolicyErrors, Source};

/// Decisions in a round, and rounds.
const DECISIONS: u32 = 20_000;
const ROUNDS: usize = 9;

/// Rules of the large policy.
const MANY: usize = 10_000;

/// Some 200 bytes of arguments.
const ARGUMENTS: &str = r#"{"order":"A-1042","amount":950.25,"currency":"EUR","customer":{"id":"C-77","mail":"ann@example.com"},"note":"The parcel came back twice and the customer would rather have the money now.","force":false}"#;

/// A policy of `count` rules, ten of them about `billing.send_refund`: seven hold, two deny and one allows.
fn text(count: usize) -> String {
    let mut text = String::from("version: 1\nrules:\n");
    for limit in 0..7 {
        text.push_str(&format!(
            "  - {{name: hold-{limit}, tool: billing.send_refund, when: args.amount > {}, action: hold}}\n",
            1000 + limit
        ));
    }
    text.push_str("  - {name: deny-a, tool: billing.send_refund, when: args.force == true, action: deny}\n");
    text.push_str(
        "  - {name: deny-b, tool: \"*.send_*\", when: args.customer.id == \"C-0\", action: deny}\n",
    );
    text.push_str("  - {name: allow, tool: billing.send_refund, action: allow}\n");
    for at in 10..count {
        text.push_str(&format!(
            "  - {{name: other-{at}, tool: server{at}.tool{at}, when: args.amount > {at} && args.currency == \"EUR\", action: hold}}\n"
        ));
    }
    text
}

fn parse(text: String) -> Result<Policy, PolicyErrors> {
    Policy::parse(vec![Source { name: "bench.yaml".to_owned(), text }])
}

fn decide(policy: &Policy) -> Effect {
    let call = Call { server: "billing", tool: Some("send_refund"), arguments: ARGUMENTS, ..Call::default() };
    policy.decide(black_box(&call)).effect
}

/// The time of one decision: the median of the rounds.
fn time(policy: &Policy) -> Duration {
    let mut rounds: Vec<Duration> = (0..ROUNDS)
        .map(|_| {
            let began = Instant::now();
            for _ in 0..DECISIONS {
                black_box(decide(policy));
            }
            began.elapsed() / DECISIONS
        })
        .collect();
    rounds.sort_unstable();
    rounds[ROUNDS / 2]
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(errors) => {
            eprintln!("{errors}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> Result<(), PolicyErrors> {
    let count: Option<u64> = arguments
        .iter()
        .position(|word| word == "--count")
        .and_then(|at| arguments.get(at + 1)?.parse().ok());
    if let Some(count) = count {
        let rules = arguments
            .iter()
            .position(|word| word == "--rules")
            .and_then(|at| arguments.get(at + 1)?.parse().ok());
        let policy = parse(text(rules.unwrap_or(MANY)))?;
        for _ in 0..count {
            black_box(decide(&policy));
        }
        return Ok(());
    }
    let few = parse(text(10))?;
    let many_text = text(MANY);
    let began = Instant::now();
    let many = parse(many_text)?;
    let loaded = began.elapsed();
    assert_eq!((decide(&few), decide(&many)), (Effect::Allow, Effect::Allow), "the calls are allowed");
    println!("load 10,000 rules         {loaded:>10.1?}   target 1 s");
    println!("decide, 10 rules          {:>10.2?}   target 5 µs", time(&few));
    println!("decide, 10,000 rules      {:>10.2?}   target 20 µs", time(&many));
    Ok(())
}
