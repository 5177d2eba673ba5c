//! Channels as those see them who are told, and those who decide there: each against a peer that behaves as the service says of
//! itself, with the real program, the real desk and a real gate.

mod mail;
mod shapes;
mod slack;
mod told;
mod webhook;

use holdshort::store::Store;
use serde_json::{Value, json};

use crate::support::{
    browser::Desk,
    http::{Answer, Message, Server, json as response},
    program::{Home, Wrapped},
};

/// A server of tools that answers every request.
const ANSWERING: &str = r#"while read -r line; do id=${line#*\"id\":}; id=${id%%,*}; echo "{\"jsonrpc\":\"2.0\",\"id\":$id,\"result\":{\"ran\":true}}"; done"#;

/// People whom channels know.
const PEOPLE: &str = "version: 1
default: allow
people:
  alice: {roles: [finance], identities: [\"webhook:ops/alice\", \"slack:U0ALICE\", \"email:alice@example.com\"]}
  bob: {roles: [finance], identities: [\"webhook:ops/bob\", \"slack:U0BOB\", \"email:bob@example.com\"]}
  carol: {roles: [support], identities: [\"slack:U0CAROL\", \"webhook:ops/carol\"]}
rules:
  - {name: refunds, tool: '*', action: hold, reason: A person looks at it., approvers: [finance]}
";

/// A gate with a policy.
fn gate(home: &Home, policy: &str) -> Wrapped {
    let policy = home.file("policy.yaml", policy);
    let mut command = home.command();
    command.args(["run", "--server", "billing", "--policy"]).arg(policy).args(["--", "sh", "-c", ANSWERING]);
    Wrapped::start(command)
}

fn call(id: usize, arguments: &Value) -> String {
    let params = json!({"name": "send_refund", "arguments": arguments});
    json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params}).to_string()
}

/// A service that answers everything with this.
fn service(status: &'static str, body: &'static str) -> Server {
    Server::start(Box::new(move |_, say| say(&response(status, "", body))))
}

/// A service that answers the requests in turn: the last answer stays.
fn in_turn(answers: Vec<Vec<u8>>) -> Answer {
    let next = std::sync::atomic::AtomicUsize::new(0);
    Box::new(move |_, say| {
        let at = next.fetch_add(1, std::sync::atomic::Ordering::SeqCst).min(answers.len() - 1);
        say(&answers[at]);
    })
}

/// Waits until a desk knows of so many calls that wait: what it tells comes from the record, which is a little earlier.
fn knows(home: &Home, desk: &Desk, count: usize) {
    let token = crate::desk::token(home, &["test", "--scope", "read"]);
    crate::support::program::until(|| {
        let list = desk.ask("GET", "/holds", &token, "").json();
        list["holds"].as_array().filter(|holds| holds.len() == count).map(drop)
    });
}

/// Waits for so many requests, and gives them.
fn heard(server: &Server, count: usize) -> Vec<Message> {
    for _ in server.asked().len()..count {
        server.wait();
    }
    crate::support::program::until(|| Some(server.asked()).filter(|asked| asked.len() >= count))
}

/// Waits until nothing is left to send in the outbox of a channel, and gives how much was given up.
fn settled(home: &Home, channel: &str) -> u64 {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let store = Store::open(&home.store());
        loop {
            let end = store.checkpoint().await.unwrap().seq;
            let seen = store.outbox_seen(channel).await.unwrap();
            let counts = store.outbox_counts(channel).await.unwrap();
            if seen.is_some_and(|seen| seen >= end) && counts.waiting == 0 {
                return counts.given_up;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    })
}
