//! Gates that are killed at any moment of a hold's life, and started again: nothing is lost, nothing runs twice, nothing runs
//! without approval.
//!
//! The test command plays a few lives. Many more are a job of their own:
//! `HOLDSHORT_LIVES=1000 cargo test --test it kills` (and `HOLDSHORT_SEED` for the first of them).

use std::{
    env, fs,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::support::program::{Home, Wrapped};

/// Lives that the test command plays.
const SAMPLE: u64 = 6;

/// How often the gate of one life is killed at most.
const KILLS_MAX: u64 = 3;

/// Writes down what it runs before it answers.
const LEDGER: &str = r#"while read -r line; do case $line in *tools/call*) echo "$line" >> "$LEDGER";; esac; id=${line#*\"id\":}; id=${id%%,*}; echo "{\"jsonrpc\":\"2.0\",\"id\":$id,\"result\":{\"ran\":true}}"; done"#;

/// Numbers that look random and are the same for the same seed (SplitMix64).
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit
    }
}

struct Life {
    home: Home,
    chance: Chance,
    requests: u32,
}

impl Life {
    fn start(&self) -> Wrapped {
        let policy = self.home.file("policy.yaml", "version: 1\ndefault: hold\n");
        let mut command = self.home.command();
        command.env("LEDGER", self.home.path().join("ledger"));
        command.args(["run", "--server", "ledger", "--policy"]).arg(policy);
        command.args(["--", "sh", "-c", LEDGER]);
        Wrapped::start(command)
    }

    /// How often the server has run the call.
    fn executions(&self) -> usize {
        fs::read_to_string(self.home.path().join("ledger")).unwrap_or_default().lines().count()
    }

    fn call(&mut self, wrapped: &mut Wrapped) {
        self.requests += 1;
        let id = self.requests;
        wrapped.send(&format!(
            "{{\"jsonrpc\":\"2.0\",\"id\":{id},\"method\":\"tools/call\",\"params\":{{\"name\":\"pay\",\"arguments\":{{\"to\":\"x\"}}}}}}"
        ));
    }

    fn history(&self) -> Vec<Value> {
        let output = self.home.holdshort(["history", "--json"]);
        serde_json::from_slice(&output.stdout).unwrap_or_default()
    }

    /// A command of an operator that may still be under way when the gate is killed.
    fn operate(&self, words: &[&str]) -> std::process::Child {
        let mut command: Command = self.home.command();
        command.args(words).stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        command.spawn().unwrap()
    }

    /// A gate, a call, perhaps an approval, and then the end, at some moment.
    fn killed(&mut self) {
        let mut wrapped = self.start();
        self.call(&mut wrapped);
        let mut operator = None;
        if self.chance.below(3) > 0
            && let Some(hold) = self.home.holds().into_iter().find(|hold| hold["state"] == "held")
        {
            operator = Some(self.operate(&["approve", hold["id"].as_str().unwrap()]));
        }
        // The moment: anywhere in the start, the recording, the approval, the forwarding and the answer.
        let wait = Duration::from_micros(self.chance.below(60_000));
        let until = Instant::now() + wait;
        while Instant::now() < until {
            thread::yield_now();
        }
        wrapped.process.kill().unwrap();
        wrapped.process.wait().unwrap();
        if let Some(mut operator) = operator {
            operator.wait().unwrap();
        }
    }

    /// Lets the call come to its end: gates live on, and people answer.
    fn ends(&mut self) {
        let mut wrapped = self.start();
        for _ in 0..4 {
            let before = self.executions();
            self.call(&mut wrapped);
            // What becomes of it: it runs by a grant, is refused as unknown, or waits for a verdict.
            let answer = loop {
                if let Some(answer) = wrapped.receive_within(Duration::from_millis(20)) {
                    break answer;
                }
                if let Some(hold) = self.home.holds().into_iter().find(|hold| hold["attached"] == true) {
                    self.home.holdshort(["approve", hold["id"].as_str().unwrap()]);
                }
            };
            let text = answer["result"]["content"][0]["text"].as_str().unwrap_or_default();
            if answer["result"]["ran"] == true {
                assert_eq!(self.executions(), before + 1, "an answer is one execution");
                return;
            }
            assert!(text.starts_with("UNKNOWN"), "{answer}");
            assert_eq!(self.executions(), before, "what is refused does not run");
            let unknown = self.home.holds().into_iter().find(|hold| hold["state"] == "unknown").unwrap();
            let id = unknown["id"].as_str().unwrap().to_owned();
            assert!(self.home.holdshort(["resolve", &id, "--ran"]).status.success());
        }
        panic!("it never came to an end");
    }

    fn check(&self, seed: u64) {
        let holds = self.history();
        let approved = |hold: &&Value| hold["votes"].as_array().is_some_and(|votes| !votes.is_empty());
        let can_have_run: Vec<_> = holds
            .iter()
            .filter(|hold| {
                matches!(hold["state"].as_str().unwrap(), "answered" | "ran" | "unknown" | "forwarding")
            })
            .collect();
        assert!(can_have_run.iter().all(approved), "seed {seed}: nothing runs without approval: {holds:#?}");
        let certain = holds.iter().filter(|hold| hold["state"] == "answered").count();
        assert!(
            (certain..=can_have_run.len()).contains(&self.executions()),
            "seed {seed}: {} executions by {holds:#?}",
            self.executions()
        );
        let open = holds.iter().filter(|hold| matches!(hold["state"].as_str().unwrap(), "held" | "granted"));
        assert_eq!(open.count(), 0, "seed {seed}: what waited was found again: {holds:#?}");
        self.home.verify();
    }
}

fn live(seed: u64) {
    let mut life = Life { home: Home::new(), chance: Chance(seed), requests: 0 };
    let kills = 1 + life.chance.below(KILLS_MAX);
    for _ in 0..kills {
        life.killed();
    }
    life.ends();
    life.check(seed);
}

#[test]
fn lives_with_kills_at_any_moment_lose_nothing_and_run_nothing_twice() {
    let number = |name, usual| env::var(name).map_or(usual, |text| text.parse().expect("a number"));
    let (first, lives) = (number("HOLDSHORT_SEED", 0), number("HOLDSHORT_LIVES", SAMPLE));
    (first..first + lives).for_each(live);
}

/// The names of all points at which tests of the crate let their process die.
fn points(dir: &std::path::Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            points(&path, found);
            continue;
        }
        let text = fs::read_to_string(&path).unwrap_or_default();
        let named = text.split("fail_point!(\"").skip(1).filter_map(|rest| rest.split('"').next());
        found.extend(named.map(str::to_owned));
    }
}

#[test]
fn the_program_has_no_points_at_which_it_can_be_made_to_die() {
    let mut names = Vec::new();
    points(&std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut names);
    assert!(names.len() >= 14, "the points are found: {names:?}");
    names.push("HOLDSHORT_TEST_FAULT_AT".to_owned());
    let has = |name: &str| {
        let mut grep = Command::new("grep");
        let status =
            grep.args(["-q", "-a", "-F", "-e", name, env!("CARGO_BIN_EXE_holdshort")]).status().unwrap();
        assert!(matches!(status.code(), Some(0 | 1)), "{status}");
        status.success()
    };
    assert!(has("HOLDSHORT_STORE"), "what is in the program is found");
    for name in names {
        assert!(!has(&name), "{name} is in the program");
    }
}
