//! Signed decisions: with the keys of the real OpenSSH, refused wherever they are about something else, verified by the gate just
//! before a call goes on, and proved later with `ssh-keygen` alone.

use std::{process::Command, sync::Arc};

use bytes::Bytes;
use holdshort::{
    audit::{Fault, link},
    digest::Digest,
    gate::{Caller, Gate, GateLimits, Released, ResolveError, Screened},
    hold::{
        Absence, Approval, Assurance, BadProof, Context, HoldId, Proof, Said, State, Statement, Verdict, Vote,
    },
    jsonrpc::Frame,
    policy::{Policy, Source},
    principal::Principal,
    sshsig::SshError,
    store::Store,
};
use jiff::{SignedDuration, Timestamp};
use tempfile::TempDir;
use tokio::task::JoinHandle;

use crate::support::{
    keys::{FileKey, SecurityKey, openssh_verifies},
    program::{Home, Wrapped},
};

/// Two people of finance, one of sales, and their keys.
struct People {
    dir: TempDir,
    ann: FileKey,
    bob: FileKey,
    dee: FileKey,
}

impl People {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let key = |name| FileKey::new(dir.path(), name, &["-t", "ed25519"]);
        Self { ann: key("ann"), bob: key("bob"), dee: key("dee"), dir }
    }

    fn policy(&self, rule: &str) -> Policy {
        let Self { ann, bob, dee, .. } = self;
        let text = format!(
            "version: 1\npeople:\n  ann: {{roles: [finance], ssh_keys: ['{}']}}\n  \
             bob: {{roles: [finance], ssh_keys: ['{}'], identities: ['uid:bob']}}\n  \
             dee: {{roles: [sales], ssh_keys: ['{}']}}\n\
             rules:\n  - {{name: pay, tool: pay, action: hold, approvers: finance, {rule}}}\n",
            ann.line, bob.line, dee.line
        );
        parse(text)
    }

    fn gate(&self, rule: &str) -> Arc<Gate> {
        gate_of(self.policy(rule), &Store::in_memory())
    }
}

fn parse(text: String) -> Policy {
    Policy::parse(vec![Source { name: "policy.yaml".into(), text }])
        .unwrap_or_else(|errors| panic!("{errors}"))
}

fn gate_of(policy: Policy, store: &Store) -> Arc<Gate> {
    Arc::new(Gate::new("gate".into(), Arc::new(policy), store.clone(), GateLimits::default()))
}

fn held(gate: &Arc<Gate>, id: u32, amount: u32) -> Box<holdshort::gate::HeldCall> {
    let line = format!(
        "{{\"jsonrpc\":\"2.0\",\"id\":{id},\"method\":\"tools/call\",\"params\":{{\"name\":\"pay\",\"arguments\":{{\"amount\":{amount}}}}}}}\n"
    );
    let caller = Caller::new(&Principal::Agent { name: "bot".into() }, "server".into());
    let Screened::Hold(held) = gate.screen(&caller, Frame::from_client(Bytes::from(line)).unwrap()) else {
        panic!("it is held")
    };
    held
}

/// A call of `pay`, held and on record.
async fn pay(gate: &Arc<Gate>, amount: u32) -> (HoldId, JoinHandle<Released>) {
    let held = held(gate, 1, amount);
    let (id, keeper) = (held.id(), Arc::clone(gate));
    let released = tokio::spawn(async move { keeper.hold(held).await });
    while gate.held(id).is_none() {
        tokio::task::yield_now().await;
    }
    (id, released)
}

/// What a person would sign about a call that waits.
async fn statement(gate: &Gate, id: HoldId, verdict: Verdict, comment: Option<&str>) -> Statement {
    let hold = gate.store().hold(id).await.unwrap().unwrap().hold;
    let frame = Frame::from_client(hold.frame.clone()).unwrap();
    Statement::about(id, &frame, &Context::of(&hold), hold.expires_at, verdict, comment).unwrap()
}

fn bob() -> Principal {
    Principal::User { uid: 2, name: Some("bob".into()) }
}

fn desk() -> Principal {
    Principal::User { uid: 1000, name: Some("somebody".into()) }
}

async fn say(gate: &Gate, id: HoldId, verdict: Verdict, proof: Proof) -> Result<State, ResolveError> {
    let comment = (verdict == Verdict::Reject).then_some("no");
    gate.resolve(id, Said { proof: Some(proof), ..verdict.into() }, &desk(), comment).await
}

async fn approve(gate: &Gate, id: HoldId, key: &FileKey) -> Result<State, ResolveError> {
    let statement = statement(gate, id, Verdict::Approve, None).await;
    say(gate, id, Verdict::Approve, key.sign(&statement.to_string())).await
}

#[tokio::test]
async fn a_call_runs_when_a_listed_key_of_any_kind_has_signed_for_it() {
    let people = People::new();
    let kinds: [&[&str]; 5] = [
        &["-t", "ed25519"],
        &["-t", "ecdsa", "-b", "256"],
        &["-t", "ecdsa", "-b", "384"],
        &["-t", "ecdsa", "-b", "521"],
        &["-t", "rsa", "-b", "2048"],
    ];
    for (at, kind) in kinds.iter().enumerate() {
        let ann = FileKey::new(people.dir.path(), &format!("ann{at}"), kind);
        let people = People { dir: tempfile::tempdir().unwrap(), ann, ..People::new() };
        let gate = people.gate("signed: true");
        let (id, released) = pay(&gate, 1).await;
        let plain = gate.resolve(id, Verdict::Approve, &bob(), None).await;
        assert!(matches!(plain, Err(ResolveError::NotSigned { .. })), "a word is not enough");
        assert_eq!(approve(&gate, id, &people.ann).await.unwrap(), State::Forwarding, "{kind:?}");
        assert!(matches!(released.await.unwrap(), Released::Resume(_)));
        let vote = gate.store().hold(id).await.unwrap().unwrap().votes.remove(0);
        assert_eq!((vote.person.as_deref(), vote.assurance), (Some("ann"), Some(Assurance::L0)));
        assert!(vote.by.starts_with("ssh:SHA256:"), "{}", vote.by);
        assert!(openssh_verifies(people.dir.path(), &people.ann.line, &vote.proof.unwrap()));
        assert!(gate.store().verify(None).await.unwrap().is_sound());
    }
}

#[tokio::test]
async fn a_signature_about_anything_else_is_refused_and_the_call_goes_on_waiting() {
    let people = People::new();
    let gate = people.gate("signed: true");
    let (id, released) = pay(&gate, 1).await;
    let (other, _other) = pay(&gate, 2).await;
    let good = statement(&gate, id, Verdict::Approve, None).await;
    let sign = |statement: &Statement| people.ann.sign(&statement.to_string());
    let later = good.expires + SignedDuration::from_hours(1);
    let odd = [
        ("another hold", statement(&gate, other, Verdict::Approve, None).await, "request"),
        ("its bytes under this id", Statement { frame: good.call, ..good.clone() }, "frame-sha256"),
        ("what another call does", Statement { call: good.frame, ..good.clone() }, "call-sha256"),
        ("another server or agent", Statement { context: good.frame, ..good.clone() }, "ctx-sha256"),
        ("what was not shown", Statement { shown: good.frame, ..good.clone() }, "shown-sha256"),
        ("a rejection", Statement { verdict: Verdict::Reject, ..good.clone() }, "verdict"),
        ("another comment", Statement { reason: good.frame, ..good.clone() }, "reason-sha256"),
        ("a longer time", Statement { expires: later, ..good.clone() }, "expires"),
    ];
    for (what, statement, line) in odd {
        let refused = say(&gate, id, Verdict::Approve, sign(&statement)).await;
        assert!(
            matches!(&refused, Err(ResolveError::BadSignature(BadProof::Other(found))) if *found == line),
            "{what}: {refused:?}"
        );
    }
    // What is no statement, or whose signature is none.
    let signed = sign(&good);
    let altered = Proof { statement: signed.statement.replace("approve", "reject"), ..signed.clone() };
    let spaced = people.ann.sign(&format!("{good}\n"));
    let elsewhere = Proof { signature: people.ann.sign_for("file", &good.to_string()), ..signed.clone() };
    let by_another = Proof { signature: people.bob.sign(&altered.statement).signature, ..signed.clone() };
    for (proof, why) in [
        (altered, BadProof::Signature(SshError::Wrong)),
        (spaced, BadProof::Unreadable),
        (elsewhere, BadProof::Signature(SshError::Namespace)),
        (by_another, BadProof::Signature(SshError::Wrong)),
    ] {
        let refused = say(&gate, id, Verdict::Approve, proof).await;
        assert!(matches!(&refused, Err(ResolveError::BadSignature(found)) if *found == why), "{refused:?}");
    }
    // A key that nobody has, and one of somebody who has no say in this.
    let stranger = FileKey::new(people.dir.path(), "stranger", &["-t", "ed25519"]);
    for key in [&stranger, &people.dee] {
        let refused = say(&gate, id, Verdict::Approve, key.sign(&good.to_string())).await;
        assert!(matches!(refused, Err(ResolveError::NotAllowed(_))), "{refused:?}");
    }
    assert!(gate.held(id).is_some() && !released.is_finished());
    assert_eq!(say(&gate, id, Verdict::Approve, signed.clone()).await.unwrap(), State::Forwarding);
    // The same signature once more, for the hold that it was for and for the next one of the same call.
    let again = say(&gate, id, Verdict::Approve, signed.clone()).await;
    assert!(matches!(again, Err(ResolveError::VotedBefore)), "{again:?}");
    let Released::Resume(approved) = released.await.unwrap() else { panic!("it runs") };
    gate.answered(approved.hold()).await;
    let (next, _next) = pay(&gate, 1).await;
    let replayed = say(&gate, next, Verdict::Approve, signed).await;
    assert!(matches!(replayed, Err(ResolveError::BadSignature(BadProof::Other("request")))), "{replayed:?}");
}

#[tokio::test]
async fn a_key_that_was_taken_out_of_the_policy_counts_no_more() {
    let people = People::new();
    let gate = people.gate("required_approvals: 2, signed: true");
    let (id, _released) = pay(&gate, 1).await;
    assert_eq!(approve(&gate, id, &people.ann).await.unwrap(), State::Held);
    let fresh = FileKey::new(people.dir.path(), "ann2", &["-t", "ed25519"]);
    let now = People { ann: fresh, ..People { dir: tempfile::tempdir().unwrap(), ..People::new() } };
    let now = People { bob: FileKey { ..people.bob }, ..now };
    assert!(gate.replace_policy(now.policy("required_approvals: 2, signed: true"), "test"));
    assert!(matches!(approve(&gate, id, &people.ann).await, Err(ResolveError::NotAllowed(_))));
    assert_eq!(approve(&gate, id, &now.bob).await.unwrap(), State::Held, "what the old key signed is void");
}

/// A call that waits without its caller.
async fn detached(gate: &Arc<Gate>) -> HoldId {
    let (id, released) = pay(gate, 1).await;
    gate.detach(id, holdshort::hold::Absence::Stopping);
    let Released::Withdrawn { end, .. } = released.await.unwrap() else { panic!("nobody waits") };
    gate.record_withdrawal(end).await;
    id
}

/// Puts an approval into the record past every gate, as whoever can write the file could.
async fn forge(gate: &Gate, id: HoldId, proof: Option<Proof>) {
    let by = "ssh:SHA256:anything".to_owned();
    let vote = Vote::new(Verdict::Approve, by, None, Timestamp::now());
    let vote = Vote { person: Some("ann".to_owned()), assurance: Some(Assurance::L4), proof, ..vote };
    let lapses_at = Timestamp::now() + SignedDuration::from_hours(24);
    assert_eq!(gate.store().decide(id, vote, Approval::default(), lapses_at).await.unwrap(), State::Granted);
}

#[tokio::test]
async fn an_approval_that_was_written_into_the_record_lets_nothing_run() {
    let people = People::new();
    let gate = people.gate("signed: true");
    let id = detached(&gate).await;
    let other = statement(&gate, id, Verdict::Approve, None).await;
    forge(&gate, id, None).await;
    let Released::Refuse(refusal) = gate.hold(held(&gate, 1, 1)).await else { panic!("it does not run") };
    assert!(refusal.text.contains("do not prove"), "{}", refusal.text);
    assert_eq!(gate.store().hold(id).await.unwrap().unwrap().state, State::Withdrawn);
    // A true signature, about another hold of the same call.
    let id = detached(&gate).await;
    forge(&gate, id, Some(people.ann.sign(&other.to_string()))).await;
    assert!(matches!(gate.hold(held(&gate, 1, 1)).await, Released::Refuse(_)));
    // And the true one.
    let id = detached(&gate).await;
    assert_eq!(approve(&gate, id, &people.ann).await.unwrap(), State::Granted);
    let Released::Resume(approved) = gate.hold(held(&gate, 1, 1)).await else { panic!("it runs") };
    assert_eq!(approved.hold(), id);
}

#[tokio::test]
async fn a_vote_that_was_written_into_the_record_is_none_of_two() {
    let people = People::new();
    let gate = people.gate("required_approvals: 2, signed: true");
    let (id, released) = pay(&gate, 1).await;
    let vote = Vote::new(Verdict::Approve, "ssh:SHA256:anything".into(), None, Timestamp::now());
    let vote = Vote { person: Some("bob".to_owned()), assurance: Some(Assurance::L4), ..vote };
    gate.store().vote(id, Arc::clone(gate.instance()), vote).await.unwrap();
    assert_eq!(approve(&gate, id, &people.ann).await.unwrap(), State::Held, "one human has approved");
    assert_eq!(approve(&gate, id, &people.dee).await.ok(), None);
    assert!(!released.is_finished());
}

#[tokio::test]
async fn a_rule_that_wants_l1_wants_the_touch_of_a_security_key() {
    let (key, people) = (SecurityKey::new(), People::new());
    let text = format!(
        "version: 1\npeople:\n  ann: {{ssh_keys: ['{}', '{}']}}\nrules:\n  - {{name: pay, tool: pay, action: hold, min_assurance: L1}}\n",
        key.line(),
        people.ann.line
    );
    let gate = gate_of(parse(text.clone()), &Store::in_memory());
    let (id, released) = pay(&gate, 1).await;
    let by_file = approve(&gate, id, &people.ann).await;
    assert!(
        matches!(&by_file, Err(ResolveError::NotSigned { needed: Assurance::L1, .. })),
        "the agent may read a file: {by_file:?}"
    );
    let text_to_sign = statement(&gate, id, Verdict::Approve, None).await.to_string();
    let untouched = say(&gate, id, Verdict::Approve, key.sign(&text_to_sign, false)).await;
    assert!(
        matches!(untouched, Err(ResolveError::BadSignature(BadProof::Signature(SshError::NotTouched)))),
        "{untouched:?}"
    );
    let touched = key.sign(&text_to_sign, true);
    assert!(openssh_verifies(people.dir.path(), &key.line(), &touched), "OpenSSH reads it as we do");
    assert_eq!(say(&gate, id, Verdict::Approve, touched).await.unwrap(), State::Forwarding);
    assert!(matches!(released.await.unwrap(), Released::Resume(_)));
    let vote = gate.store().hold(id).await.unwrap().unwrap().votes.remove(0);
    assert_eq!(vote.assurance, Some(Assurance::L1));
    // A gate out of the agent's reach: there a key in a file counts as much.
    let gate = Gate::new("g".into(), Arc::new(parse(text)), Store::in_memory(), GateLimits::default());
    let gate = Arc::new(gate.deployed(Assurance::L3));
    let (id, _released) = pay(&gate, 1).await;
    assert_eq!(approve(&gate, id, &people.ann).await.unwrap(), State::Forwarding);
    let vote = gate.store().hold(id).await.unwrap().unwrap().votes.remove(0);
    assert_eq!(vote.assurance, Some(Assurance::L3));
}

#[tokio::test]
async fn both_kinds_of_security_keys_are_read_as_openssh_reads_them() {
    let people = People::new();
    let gate = people.gate("signed: true");
    let (id, _released) = pay(&gate, 1).await;
    let text = statement(&gate, id, Verdict::Approve, None).await.to_string();
    for key in [SecurityKey::new(), SecurityKey::ecdsa()] {
        let touched = key.sign(&text, true);
        assert!(openssh_verifies(people.dir.path(), &key.line(), &touched), "{}", key.line());
        let (_, found) = touched.verified().unwrap();
        assert!(found.is_hardware() && key.line().contains(found.kind()), "{}", found.kind());
        let untouched = key.sign(&text, false).verified();
        assert_eq!(untouched.unwrap_err(), BadProof::Signature(SshError::NotTouched));
        // One bit of what was signed, and one of the signature.
        let other = Proof { statement: text.replace("approve", "approvf"), ..touched.clone() };
        assert!(other.verified().is_err() && !openssh_verifies(people.dir.path(), &key.line(), &other));
    }
}

/// What is changed of a vote.
type Change = &'static dyn Fn(&mut serde_json::Value);

/// Changes the votes of every hold as `change` says, in its row and in all lines, and makes a chain of them that is sound again: as whoever can
/// write the file could.
fn rewrite(path: &std::path::Path, change: impl Fn(&mut serde_json::Value)) {
    let db = rusqlite::Connection::open(path).unwrap();
    db.execute_batch("DROP TRIGGER audit_is_not_changed").unwrap();
    let changed = |text: &str| {
        let mut value: serde_json::Value = serde_json::from_str(text).unwrap();
        let votes = if value.is_array() { Some(&mut value) } else { value.get_mut("votes") };
        let mut last = None;
        for vote in votes.into_iter().flat_map(|votes| votes.as_array_mut().unwrap()) {
            change(vote);
            last = Some(vote["by"].clone());
        }
        // The event of a verdict names whoever voted last.
        if let Some(last) = last.filter(|_| value.is_object()) {
            value["who"] = last;
        }
        value
    };
    let rows: Vec<(i64, String)> = {
        let mut holds = db.prepare("SELECT seq, votes FROM holds WHERE votes IS NOT NULL").unwrap();
        holds.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap().map(Result::unwrap).collect()
    };
    for (seq, votes) in rows {
        let votes = changed(&votes).to_string();
        db.execute("UPDATE holds SET votes = ?2 WHERE seq = ?1", rusqlite::params![seq, votes]).unwrap();
    }
    let lines: Vec<(i64, String)> = {
        let mut lines = db.prepare("SELECT seq, line FROM audit ORDER BY seq").unwrap();
        lines.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap().map(Result::unwrap).collect()
    };
    let mut before = None;
    for (seq, line) in lines {
        let mut event = changed(&line);
        if let Some(before) = before {
            event["prev"] = serde_json::json!(Digest::to_string(&before));
        }
        let before_it = Digest::from_hex(event["prev"].as_str().unwrap()).unwrap();
        let text = event.to_string();
        let hash = link(before_it, &text);
        db.execute(
            "UPDATE audit SET line = ?2, hash = ?3 WHERE seq = ?1",
            rusqlite::params![seq, text, hash.0],
        )
        .unwrap();
        before = Some(hash);
    }
}

#[tokio::test]
async fn a_signed_vote_that_was_altered_is_found_with_a_sound_chain_behind_it() {
    let people = People::new();
    let rewritten = |change: Change| {
        let people = &people;
        async move {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("record.db");
            let store = Store::open(&path);
            let gate = gate_of(people.policy("required_approvals: 2, signed: true"), &store);
            let (id, released) = pay(&gate, 1).await;
            assert_eq!(approve(&gate, id, &people.ann).await.unwrap(), State::Held);
            assert_eq!(approve(&gate, id, &people.bob).await.unwrap(), State::Forwarding);
            let Released::Resume(approved) = released.await.unwrap() else { panic!("it runs") };
            gate.answered(approved.hold()).await;
            // A rejection that is signed, and one that is not.
            let (other, _released) = pay(&gate, 2).await;
            let text = statement(&gate, other, Verdict::Reject, Some("no")).await.to_string();
            assert_eq!(
                say(&gate, other, Verdict::Reject, people.ann.sign(&text)).await.unwrap(),
                State::Rejected
            );
            let (third, _released) = pay(&gate, 3).await;
            assert_eq!(
                gate.resolve(third, Verdict::Reject, &bob(), Some("no")).await.unwrap(),
                State::Rejected
            );
            store.flush().await.unwrap();
            rewrite(&path, change);
            store.verify(None).await.unwrap().broken.map(|found| found.fault)
        }
    };
    assert_eq!(rewritten(&|_| {}).await, None, "a chain made anew is sound");
    let signature = |fault: &Option<Fault>| matches!(fault, Some(Fault::Signature { .. }));
    let changes: [(&str, Change); 6] = [
        ("another comment", &|vote| vote["comment"] = "sure".into()),
        ("another key", &|vote| {
            let by = vote["by"].as_str().unwrap().to_owned();
            if by.starts_with("ssh:") {
                vote["by"] = format!("{by}x").into();
            }
        }),
        ("no signature", &|vote| {
            vote.as_object_mut().unwrap().remove("proof");
        }),
        ("another statement", &|vote| {
            if let Some(text) = vote.pointer("/proof/statement").and_then(|text| text.as_str()) {
                let text =
                    text.replace("verdict: reject", "verdict: approve").replace("expires: 20", "expires: 21");
                vote["proof"]["statement"] = text.into();
            }
        }),
        ("the approval as a rejection", &|vote| {
            if vote["verdict"] == "approve" {
                vote["verdict"] = "reject".into();
            }
        }),
        ("no statement", &|vote| {
            if vote.get("proof").is_some() {
                vote["proof"]["statement"] = "".into();
            }
        }),
    ];
    for (what, change) in changes {
        let found = rewritten(change).await;
        assert!(signature(&found), "{what}: {found:?}");
    }
}

#[tokio::test]
async fn a_call_that_was_made_again_is_signed_for_as_it_was_shown() {
    let people = People::new();
    let gate = people.gate("signed: true");
    let first = gate.record(held(&gate, 1, 1)).await.unwrap_or_else(|released| panic!("{released:?}"));
    let id = first.id();
    gate.detach(id, Absence::ClientGone);
    let Released::Withdrawn { end, .. } = gate.wait(first).await else { panic!("its caller is gone") };
    gate.record_withdrawal(end).await;
    let again = gate.record(held(&gate, 2, 1)).await.unwrap_or_else(|released| panic!("{released:?}"));
    assert_ne!(gate.held(id).unwrap().shown(), gate.store().hold(id).await.unwrap().unwrap().hold.shown());
    let keeper = Arc::clone(&gate);
    let released = tokio::spawn(async move { keeper.wait(again).await });
    assert_eq!(approve(&gate, id, &people.ann).await.unwrap(), State::Forwarding);
    assert!(matches!(released.await.unwrap(), Released::Resume(_)));
    let vote = gate.store().hold(id).await.unwrap().unwrap().votes.remove(0);
    assert!(vote.proof.is_some() && vote.shown_sha256.is_none(), "what was shown is said once");
}

#[tokio::test]
async fn a_rejection_need_not_be_signed_and_can_be() {
    let people = People::new();
    let gate = people.gate("signed: true");
    let (id, _released) = pay(&gate, 1).await;
    assert_eq!(gate.resolve(id, Verdict::Reject, &bob(), Some("no")).await.unwrap(), State::Rejected);
    let (id, _released) = pay(&gate, 1).await;
    let statement = statement(&gate, id, Verdict::Reject, Some("no")).await;
    let signed = people.ann.sign(&statement.to_string());
    assert_eq!(say(&gate, id, Verdict::Reject, signed).await.unwrap(), State::Rejected);
}

/// A server that answers every request.
const ANSWERING: &str = r#"while read -r line; do id=${line#*\"id\":}; id=${id%%,*}; echo "{\"jsonrpc\":\"2.0\",\"id\":$id,\"result\":{\"ran\":true}}"; done"#;

/// Makes a call of a wrapped server whose rule wants a signature by `key`.
fn call_in(home: &Home, key: &FileKey) -> (Wrapped, String) {
    let policy = home.file(
        "policy.yaml",
        &format!(
            "version: 1\npeople:\n  ann: {{ssh_keys: ['{}']}}\nrules:\n  - {{name: pay, tool: pay, action: hold, signed: true}}\n",
            key.line
        ),
    );
    let mut command = home.command();
    command.args(["run", "--server", "billing", "--policy"]).arg(policy).args(["--", "sh", "-c", ANSWERING]);
    let mut wrapped = Wrapped::start(command);
    wrapped.send(
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"pay","arguments":{"amount":7}}}"#,
    );
    let id = home.wait_for_holds(1).remove(0);
    (wrapped, id)
}

#[test]
fn the_command_line_signs_and_openssh_alone_proves_it_later() {
    let home = Home::new();
    let key = FileKey::new(home.path(), "id", &["-t", "ed25519"]);
    let (wrapped, id) = call_in(&home, &key);
    let offered = home.holdshort(["show", &id]);
    let offered = String::from_utf8_lossy(&offered.stderr).into_owned();
    assert!(offered.contains("holdshort approve") && offered.contains(" --sign KEY\n"), "{offered}");
    let plain = home.holdshort(["approve", &id]);
    assert_eq!(plain.status.code(), Some(3), "{plain:?}");
    let signed = home.holdshort(["approve", &id, "--comment", "fine", "--sign", key.file.to_str().unwrap()]);
    let shown = String::from_utf8_lossy(&signed.stderr).into_owned();
    assert!(signed.status.success() && shown.contains("\"amount\": 7"), "{shown}");
    assert_eq!(wrapped.receive()["result"]["ran"], true);
    let history = home.holdshort(["show", &id]);
    let history = String::from_utf8(history.stdout).unwrap();
    assert!(
        history.contains("approved by ann (ssh:SHA256:") && history.contains("signed (L0, advisory)"),
        "{history}"
    );
    let evidence = home.path().join("evidence");
    let written = home.holdshort(["audit", "evidence", &id, "--out", evidence.to_str().unwrap()]);
    let commands = String::from_utf8(written.stdout).unwrap();
    assert!(written.status.success(), "{commands}");
    let verify = commands.lines().find(|line| line.contains("ssh-keygen -Y verify")).unwrap().trim();
    let run =
        |command: &str| Command::new("sh").args(["-c", command]).current_dir(&evidence).output().unwrap();
    let verified = run(verify);
    assert!(verified.status.success(), "{verified:?}");
    let call = std::fs::read(evidence.join("call.json")).unwrap();
    let statement = std::fs::read_to_string(evidence.join("1.statement")).unwrap();
    let digest = holdshort::digest::Digest::of(&call);
    assert!(statement.contains(&format!("frame-sha256: {digest}\n")), "{statement}");
    std::fs::write(evidence.join("1.statement"), statement.replace("approve", "reject")).unwrap();
    assert!(!run(verify).status.success(), "an altered statement proves nothing");
    // It is not written over, and an unsigned decision has no evidence.
    let again = home.holdshort(["audit", "evidence", &id, "--out", evidence.to_str().unwrap()]);
    assert_eq!(again.status.code(), Some(1));
    let why = String::from_utf8_lossy(&again.stderr);
    assert!(why.contains(&format!("`{}` is there already", evidence.display())), "{why}");
    home.verify();
}

#[test]
fn a_key_in_an_agent_signs_without_its_file() {
    let home = Home::new();
    let key = FileKey::new(home.path(), "id", &["-t", "ed25519"]);
    let socket = home.path().join("agent");
    let mut agent = Command::new("ssh-agent")
        .arg("-D")
        .arg("-a")
        .arg(&socket)
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    crate::support::program::until(|| socket.exists().then_some(()));
    let added =
        Command::new("ssh-add").arg("-q").arg(&key.file).env("SSH_AUTH_SOCK", &socket).output().unwrap();
    assert!(added.status.success(), "{added:?}");
    std::fs::remove_file(&key.file).unwrap();
    let (wrapped, id) = call_in(&home, &key);
    let public = key.file.with_extension("pub");
    let mut command = home.command();
    command.args(["approve", &id, "--sign"]).arg(public).env("SSH_AUTH_SOCK", &socket);
    let signed = command.output().unwrap();
    agent.kill().unwrap();
    agent.wait().unwrap();
    assert!(signed.status.success(), "{signed:?}");
    assert_eq!(wrapped.receive()["result"]["ran"], true);
}
