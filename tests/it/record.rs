//! Which record an answer is about: the usual one or the one that is named, whatever gates run.

use std::{fs, process::Output};

use serde_json::Value;

use crate::support::program::{Home, Wrapped};

const HOLD_ALL: &str = "version: 1\ndefault: hold\nrules: []\n";

const SILENT: &str = "while read -r line; do :; done";

const CALL: &str = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"danger"}}"#;

/// A gate on the record at `store`, or on the usual one, that holds a call.
fn gate(home: &Home, store: Option<&str>) -> Wrapped {
    let policy = home.file("policy.yaml", HOLD_ALL);
    let mut command = home.command();
    command.current_dir(home.path()).args(["run", "--server", "billing", "--policy"]).arg(policy);
    command.args(store.iter().flat_map(|store| ["--store", store]));
    command.args(["--", "sh", "-c", SILENT]);
    let mut gate = Wrapped::start(command);
    gate.send(CALL);
    home.wait_for_holds(1);
    gate
}

fn end(mut gate: Wrapped) {
    gate.close();
    gate.ends();
}

/// Changes a line of the record, which a verification must find.
fn tamper(home: &Home) {
    let db = rusqlite::Connection::open(home.store()).unwrap();
    db.execute_batch("DROP TRIGGER audit_is_not_changed").unwrap();
    let lines = db.execute("UPDATE audit SET line = replace(line, 'danger', 'harmless')", []).unwrap();
    assert!(lines > 0);
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn json(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn a_gate_on_another_record_does_not_answer_for_the_usual_one() {
    let home = Home::new();
    end(gate(&home, None));
    tamper(&home);
    assert_eq!(home.holdshort(["audit", "verify"]).status.code(), Some(1));

    let _other = gate(&home, Some("other/other.db"));
    let verified = home.holdshort(["audit", "verify", "--json"]);
    assert_eq!(verified.status.code(), Some(1), "{verified:?}");
    let usual = home.store().to_str().unwrap().to_owned();
    assert_eq!(
        (&json(&verified)["record"], &json(&verified)["sound"]),
        (&usual.clone().into(), &false.into())
    );
    assert!(stderr(&verified).contains(&format!("record: {usual}")), "{}", stderr(&verified));
    assert_eq!(home.holdshort(["audit", "verify"]).status.code(), Some(1));
    let history = home.holdshort(["history", "--json"]);
    assert!(stderr(&history).contains(&usual), "{}", stderr(&history));
    assert_eq!(
        json(&history)[0]["state"],
        "held",
        "the call of the gate that has ended, not the one that waits"
    );
}

#[test]
fn a_record_that_is_named_is_the_one_that_is_read_however_it_is_named() {
    let home = Home::new();
    let _usual = gate(&home, None);
    let other = home.path().join("other.db");
    let named = |store: &str| {
        let mut command = home.command();
        command.current_dir(home.path()).args(["audit", "verify", "--json", "--store", store]);
        command.output().unwrap()
    };
    let missing = named("other.db");
    assert_eq!(missing.status.code(), Some(1), "no other record stands in for one that is missing");
    assert!(!other.exists());
    // A copy of the usual record, as a backup makes it.
    let db = rusqlite::Connection::open(home.store()).unwrap();
    db.execute("VACUUM INTO ?1", [other.to_str().unwrap()]).unwrap();
    fs::set_permissions(&other, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    for name in ["other.db", "./other.db", other.to_str().unwrap()] {
        let verified = named(name);
        assert!(verified.status.success(), "{name}: {verified:?}");
        assert_eq!(json(&verified)["record"], other.to_str().unwrap(), "{name}");
    }
    let usual = named(".local/state/holdshort/holdshort.db");
    assert_eq!(json(&usual)["record"], home.store().to_str().unwrap());
}
