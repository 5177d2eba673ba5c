//! Many processes of one user on one record: eight wrapped servers, a desk, and people at command lines, all at once.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    path::PathBuf,
    thread,
};

use serde_json::{Value, json};

use super::desk::{call, token};
use crate::support::{
    browser::Desk,
    program::{Home, Wrapped, until},
};

const GATES: usize = 8;
const CALLS_EACH: usize = 4;

/// Writes down what it runs before it answers.
const LEDGER: &str = r#"while read -r line; do case $line in *tools/call*) echo "$line" >> "$LEDGER";; esac; id=${line#*\"id\":}; id=${id%%,*}; echo "{\"jsonrpc\":\"2.0\",\"id\":$id,\"result\":{\"ran\":true}}"; done"#;

struct House {
    home: Home,
    policy: PathBuf,
}

impl House {
    fn new() -> Self {
        let home = Home::new();
        let policy = home.file("policy.yaml", "version: 1\ndefault: hold\n");
        Self { home, policy }
    }

    /// What all processes say on stderr.
    fn said(&self) -> PathBuf {
        self.home.path().join("said")
    }

    fn stderr(&self) -> File {
        File::options().create(true).append(true).open(self.said()).unwrap()
    }

    fn gate(&self) -> Wrapped {
        let mut command = self.home.command();
        command.env("LEDGER", self.home.path().join("ledger")).stderr(self.stderr());
        command
            .args(["run", "--server", "billing", "--policy"])
            .arg(&self.policy)
            .args(["--", "sh", "-c", LEDGER]);
        Wrapped::start(command)
    }

    /// A command that has to succeed.
    fn ok(&self, arguments: &[&str]) {
        let output = self.home.holdshort(arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
    }

    /// The amounts that were paid, each as often as it was.
    fn paid(&self) -> Vec<i64> {
        let ledger = fs::read_to_string(self.home.path().join("ledger")).unwrap_or_default();
        let mut paid: Vec<i64> = ledger
            .lines()
            .map(|line| {
                serde_json::from_str::<Value>(line).unwrap()["params"]["arguments"]["amount"]
                    .as_i64()
                    .unwrap()
            })
            .collect();
        paid.sort_unstable();
        paid
    }

    /// The calls that wait, each with the amount that it is about.
    fn waiting(&self, count: usize) -> Vec<(String, i64)> {
        let holds = until(|| Some(self.home.holds()).filter(|holds| holds.len() == count));
        let one = |hold: &Value| {
            (hold["id"].as_str().unwrap().to_owned(), hold["arguments"]["amount"].as_i64().unwrap())
        };
        holds.iter().map(one).collect()
    }
}

/// The call with which the gate `gate` pays its `number`-th amount.
fn pay(gate: usize, number: usize) -> String {
    call(number + 1, "pay", &json!({"amount": amount(gate, number)}))
}

fn amount(gate: usize, number: usize) -> usize {
    gate * 100 + number
}

#[test]
fn eight_gates_and_a_desk_on_one_file_list_decide_and_run_each_call_once_and_a_kill_leaves_nothing_stuck() {
    let house = House::new();
    let mut gates: Vec<Wrapped> = (0..GATES).map(|_| house.gate()).collect();
    let key = token(&house.home, &["assistant", "--scope", "read", "--scope", "decide"]);
    let mut command = house.home.command();
    command.args(["desk", "--listen", "127.0.0.1:0"]).stderr(house.stderr());
    let desk = Desk::started(command);
    // All of them write at the same time.
    thread::scope(|scope| {
        for (number, gate) in gates.iter_mut().enumerate() {
            scope.spawn(move || (0..CALLS_EACH).for_each(|call| gate.send(&pay(number, call))));
        }
    });
    let waiting = house.waiting(GATES * CALLS_EACH);
    let listed = until(|| {
        let listed = desk.ask("GET", "/holds?limit=100", &key, "").json();
        (listed["holds"].as_array()?.len() == waiting.len()).then_some(listed)
    });
    let ids = |holds: &Value| -> BTreeSet<String> {
        holds.as_array().unwrap().iter().map(|hold| hold["id"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(ids(&listed["holds"]), waiting.iter().map(|(id, _)| id.clone()).collect());

    // One is killed while its calls wait; those of the others are decided at the same time, at command lines and at the desk.
    let mut killed = gates.remove(0);
    killed.process.kill().unwrap();
    killed.process.wait().unwrap();
    let (orphans, others): (Vec<_>, Vec<_>) = waiting.iter().partition(|(_, amount)| *amount < 100);
    assert_eq!(orphans.len(), CALLS_EACH);
    thread::scope(|scope| {
        for chunk in others.chunks(CALLS_EACH) {
            let (house, desk, key) = (&house, &desk, &key);
            scope.spawn(move || {
                for (number, (id, _)) in chunk.iter().enumerate() {
                    if number % 2 == 0 {
                        house.ok(&["approve", id]);
                    } else {
                        let answer = desk.ask("POST", &format!("/holds/{id}/approve"), key, "{}");
                        assert_eq!(answer.status, 200, "{answer:?}");
                    }
                }
            });
        }
    });
    for gate in &gates {
        for _ in 0..CALLS_EACH {
            assert_eq!(gate.receive()["result"], json!({"ran": true}));
        }
    }
    let all_others: Vec<i64> =
        others.iter().map(|(_, amount)| *amount).collect::<BTreeSet<_>>().into_iter().collect();
    assert_eq!(house.paid(), all_others, "each once, and none of the killed one's");

    // Those of the killed one can be decided anywhere, and run once, at whichever gate the client comes to next.
    for (id, _) in &orphans {
        house.ok(&["approve", id]);
    }
    assert_eq!(house.paid(), all_others, "nobody is there to hear of it");
    for (number, gate) in gates.iter_mut().take(CALLS_EACH).enumerate() {
        gate.send(&pay(0, number));
        assert_eq!(gate.receive()["result"], json!({"ran": true}));
    }
    let mut all: Vec<i64> = waiting.iter().map(|(_, amount)| *amount).collect();
    all.sort_unstable();
    assert_eq!(house.paid(), all);
    until(|| house.home.holds().is_empty().then_some(()));
    assert_eq!(house.home.verify()["sound"], true);
    let said = fs::read_to_string(house.said()).unwrap();
    assert!(!said.contains("locked") && !said.contains("has been writing"), "{said}");
}
