//! Wall clocks that leap while calls wait, as the program itself sees them: no wait gets longer, and no verdict counts that comes too late.

use std::{fs, path::PathBuf};

use serde_json::{Value, json};

use crate::support::{
    faults::Faults,
    program::{Home, Wrapped, until},
};

const DAY: i64 = 24 * 3600;

/// Writes down what it runs before it answers.
const LEDGER: &str = r#"while read -r line; do case $line in *tools/call*) echo "$line" >> "$LEDGER";; esac; id=${line#*\"id\":}; id=${id%%,*}; echo "{\"jsonrpc\":\"2.0\",\"id\":$id,\"result\":{\"ran\":true}}"; done"#;

/// A gate whose wall clock is not that of anybody else.
struct Watch {
    home: Home,
    faults: Faults,
    gate: Wrapped,
}

impl Watch {
    /// One that holds every call for so long.
    fn of(timeout: &str) -> Self {
        let (home, faults) = (Home::new(), Faults::new());
        let rules = format!(
            "version: 1\ndefault: allow\nrules:\n  - {{name: all, tool: '*', action: hold, timeout: {timeout}}}\n"
        );
        let policy = home.file("policy.yaml", &rules);
        let mut command = home.command();
        faults.preload(&mut command);
        command.env("LEDGER", home.path().join("ledger")).args(["run", "--server", "ledger", "--policy"]);
        command.arg(policy).args(["--", "sh", "-c", LEDGER]);
        Self { gate: Wrapped::start(command), home, faults }
    }

    /// A call that waits, by its id.
    fn hold(&mut self) -> String {
        let call = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "pay", "arguments": {}}});
        self.gate.send(&call.to_string());
        self.home.wait_for_holds(1).remove(0)
    }

    fn ledger(&self) -> PathBuf {
        self.home.path().join("ledger")
    }

    fn executions(&self) -> usize {
        fs::read_to_string(self.ledger()).unwrap_or_default().lines().count()
    }

    /// The event of this kind, with the time that the gate's clock said.
    fn event(&self, kind: &str) -> Value {
        until(|| {
            let exported = self.home.holdshort(["audit", "export"]).stdout;
            let lines = String::from_utf8(exported).unwrap();
            lines
                .lines()
                .map(|line| serde_json::from_str(line).unwrap())
                .find(|event: &Value| event["kind"] == kind)
        })
    }

    fn year(event: &Value) -> i32 {
        event["at"].as_str().unwrap()[..4].parse().unwrap()
    }

    /// What the fault has led to is sound.
    fn over(mut self) {
        assert!(self.faults.numbers.fired() > 0, "the clock has leapt");
        self.gate.close();
        self.gate.ends();
        assert_eq!(self.home.verify()["sound"], true);
    }
}

#[test]
fn a_verdict_after_the_clock_has_leapt_past_the_end_comes_too_late() {
    let mut watch = Watch::of("1h");
    let hold = watch.hold();
    let held = watch.event("held");
    watch.faults.numbers.leap(3652 * DAY);
    let late = watch.home.holdshort(["approve", &hold]);
    assert_eq!(late.status.code(), Some(4), "{late:?}");
    assert_eq!(watch.gate.receive()["result"]["isError"], true);
    assert_eq!(watch.executions(), 0);
    let expired = watch.event("expired");
    assert!(Watch::year(&expired) >= Watch::year(&held) + 9, "{expired}");
    watch.over();
}

#[test]
fn a_wait_ends_in_its_time_however_far_the_clock_is_set_back() {
    let mut watch = Watch::of("4s");
    let hold = watch.hold();
    watch.faults.numbers.leap(-3652 * DAY);
    // Nobody says anything: the answer comes by itself.
    assert_eq!(watch.gate.receive()["result"]["isError"], true);
    let expired = watch.event("expired");
    assert!(Watch::year(&expired) < Watch::year(&watch.event("held")), "{expired}");
    assert_eq!(watch.home.holdshort(["approve", &hold]).status.code(), Some(4));
    assert_eq!(watch.executions(), 0);
    watch.over();
}

#[test]
fn a_clock_that_leaps_there_and_back_loses_no_call_and_runs_it_once() {
    let mut watch = Watch::of("1h");
    let hold = watch.hold();
    for days in [-3652, 3652, -1, 1, 0] {
        watch.faults.numbers.leap(days * DAY);
        // Looked at and listed by the gate at each of these times.
        assert_eq!(watch.home.wait_for_holds(1), [hold.as_str()], "{days}");
    }
    let approved = watch.home.holdshort(["approve", &hold]);
    assert!(approved.status.success(), "{approved:?}");
    assert_eq!(watch.gate.receive()["result"], json!({"ran": true}));
    assert_eq!(watch.executions(), 1);
    watch.over();
}
