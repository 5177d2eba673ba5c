//! What a session does with a client or a server that does not read, stops half-way, or says what cannot be read: nobody waits for
//! what will not come, and the record says what ran.

use std::time::Duration;

use holdshort::{hold::State, store::Store, transport::session::SessionLimits};
use tokio::time::timeout;

use crate::support::session::{POLICY, Session, check};

/// A call of a tool that is held, or of another one.
fn call(id: u32, tool: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"{tool}","arguments":{{}}}}}}"#
    )
}

#[tokio::test(start_paused = true)]
async fn a_client_that_hangs_up_while_both_sides_flood_and_it_reads_nothing_is_seen() {
    let mut session = Session::start(POLICY, SessionLimits::default());
    // More lines than are read before everybody else has a turn, in less than the pipe takes.
    session.client_sends(&[b'\n'; 60_000]).await;
    // As much as the client's pipe, what may wait for it, and most of the server's pipe take.
    let line = format!(
        "{{\"jsonrpc\":\"2.0\",\"method\":\"notifications/x\",\"params\":{{\"t\":\"{}\"}}}}\n",
        "x".repeat(1_000)
    );
    for _ in 0..350 {
        session.server_sends(line.as_bytes()).await;
    }
    session.client_closes().await;
    let seen = timeout(Duration::from_secs(2), session.lifecycle.client_gone.cancelled()).await;
    assert!(seen.is_ok(), "the client has gone, and nobody has noticed");
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_cannot_be_read_is_an_error_for_whoever_waits_for_it() {
    let deep = format!(r#"{{"x":{}1{}}}"#, "[".repeat(600), "]".repeat(600));
    for (id, result) in [(1, deep.as_str()), (2, "{\"x\":\"a\rb\"}"), (3, "{\"x\":oops}")] {
        check(&format!(
            r#"
c> {call}
-- held h1
-- approve h1
s< {call}
s> {{"jsonrpc":"2.0","id":{id},"result":{result}}}
c< error {id} -32603
-- state h1 answered
"#,
            call = call(id, "danger"),
        ))
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_unreadable_and_answers_nobody_goes_to_nobody() {
    check(&format!(
        r#"
c> {call}
s< {call}
s> {{"jsonrpc":"2.0","id":7,"result":oops}}
s> {{"jsonrpc":"2.0","method":"x","id":1,"params":oops}}
s> {{"jsonrpc":"2.0","id":1,"result":{{}}}}
c< {{"jsonrpc":"2.0","id":1,"result":{{}}}}
"#,
        call = call(1, "safe"),
    ))
    .await;
}

/// An allowed notification that fills what a server that does not read leaves room for.
fn fills_the_way_to_the_server() -> String {
    format!(
        "{{\"jsonrpc\":\"2.0\",\"method\":\"notifications/x\",\"params\":{{\"t\":\"{}\"}}}}\n",
        "x".repeat(70_000)
    )
}

#[tokio::test(start_paused = true)]
async fn an_approved_call_of_which_nothing_has_gone_is_not_one_that_may_have_run() {
    for end in ["server closes", "stop"] {
        let mut session = Session::start(POLICY, SessionLimits::default());
        session.client_sends(fills_the_way_to_the_server().as_bytes()).await;
        session.client_sends(format!("{}\n{}\n", call(1, "danger"), call(2, "safe")).as_bytes()).await;
        session.event("held h1").await;
        session.event("approve h1").await;
        session.event(end).await;
        let mut told = String::new();
        while let Some(line) = session.client_receives().await {
            told += &line;
        }
        let mut told: Vec<_> = told.lines().collect();
        told.sort_unstable();
        let [first, second] = told[..] else { panic!("{end}: {told:?}") };
        assert!(first.contains("\"id\":1,") && first.contains("did not run"), "{end}: {first}");
        assert!(second.contains("\"id\":2,") && second.contains("has not got"), "{end}: {second}");
        session.event("state h1 withdrawn").await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_to_the_server_that_has_not_gone_says_nothing_of_the_call_with_its_id() {
    let mut session = Session::start(POLICY, SessionLimits::default());
    session.client_sends(format!("{}\n", call(1, "danger")).as_bytes()).await;
    session.event("held h1").await;
    session.event("approve h1").await;
    assert!(session.server_receives().await.is_some(), "the server has the call");
    session.server_sends(b"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}\n").await;
    assert!(session.client_receives().await.is_some());
    session.client_sends(fills_the_way_to_the_server().as_bytes()).await;
    session.client_sends(b"{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}}\n").await;
    session.event("server closes").await;
    assert_eq!(session.client_receives().await, None, "nobody knows whether it ran");
    session.event("state h1 unknown").await;
}

#[tokio::test]
async fn a_call_that_is_taken_back_while_its_absence_is_put_on_record_has_no_answer_and_is_over() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("record.db");
    let store = Store::open(&file);
    let soon = Some("2s".parse().unwrap());
    let mut session = Session::on(store, POLICY, SessionLimits::default(), soon);
    session.client_sends(format!("{}\n", call(1, "danger")).as_bytes()).await;
    let hold = loop {
        tokio::task::yield_now().await;
        if let [held] = &session.gate.holds()[..] {
            break held.id;
        }
    };
    // From here on nothing can be written.
    let other = rusqlite::Connection::open(&file).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    while session.gate.held(hold).is_some() {
        tokio::task::yield_now().await;
    }
    let taken_back = r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}"#;
    let next = r#"{"jsonrpc":"2.0","id":2,"method":"ping"}"#;
    session.client_sends(format!("{taken_back}\n{next}\n").as_bytes()).await;
    // It has read the one before, if the server gets this one.
    while session.server_receives().await.is_none() {}
    other.execute_batch("ROLLBACK").unwrap();
    while session.gate.store().hold(hold).await.unwrap().unwrap().state != State::Withdrawn {
        tokio::task::yield_now().await;
    }
    assert_eq!(session.client_receives().await, None, "nobody waits for an answer");
    assert_eq!(session.gate.detached().await.unwrap().len(), 0, "nothing is left to be decided");
}

#[tokio::test(start_paused = true)]
async fn the_progress_token_of_a_call_that_was_taken_back_can_be_used_again() {
    let call = |id: u32| {
        format!(
            r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"danger","arguments":{{"n":{id}}},"_meta":{{"progressToken":5}}}}}}"#
        )
    };
    let (first, second) = (call(1), call(2));
    check(&format!(
        r#"
c> {first}
-- held h1
-- advance 11s
c< progress 5 approve
-- approve h1
s< {first}
c> {{"jsonrpc":"2.0","method":"notifications/cancelled","params":{{"requestId":1}}}}
s< {{"jsonrpc":"2.0","method":"notifications/cancelled","params":{{"requestId":1}}}}
c> {second}
-- held h2
-- advance 11s
c< progress 5 approve
s> {{"jsonrpc":"2.0","id":1,"result":{{}}}}
c< {{"jsonrpc":"2.0","id":1,"result":{{}}}}
-- advance 10s
c< progress 5 approve
-- reject h2 no
c< refused 2 rejected
"#
    ))
    .await;
}
