//! What a policy says of waiting: for how long clients are kept, and for how long an approval counts that nobody was there for.
//!
//! Read by `document`, asked by the gate. Of several files the one that keeps shorter counts. It judges no call.

use std::time::Duration;

use super::{
    approval::{GRANT_MAX, GRANT_MIN, TIMEOUT_MAX, TIMEOUT_MIN},
    document::Reader,
    yaml::{Node, Value},
};

/// The most clients of which one file speaks.
pub(super) const CLIENTS_MAX: usize = 1_000;

pub(super) const WAITING_KEYS: [&str; 3] = ["default", "grant", "clients"];
pub(super) const CLIENT_KEYS: [&str; 3] = ["wait", "with_progress", "rounds"];

/// How long a client can be kept waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kept {
    /// For so long.
    For(Duration),
    /// Until the call is decided or expires.
    UntilDecided,
}

/// What is said of waiting.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Waiting {
    /// How long clients are kept of which nothing is known.
    pub default: Option<Kept>,
    /// How long an approval counts that no caller was there for, where no rule says.
    pub grant: Option<Duration>,
    clients: Vec<ClientWaiting>,
}

/// What is said of one client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientWaiting {
    /// The beginning of its own name, in lower case.
    name: String,
    /// How long it is kept where its request asks for no progress.
    pub wait: Option<Kept>,
    /// How long it is kept where it does; if nothing is said, as long as without.
    pub with_progress: Option<Kept>,
    /// Whether it makes a call again by itself that is answered with nothing but a state (2026-07-28).
    pub rounds: Option<bool>,
}

impl Waiting {
    /// What is said of the client that calls itself `name`: of several entries, the longest name counts.
    pub fn of(&self, name: &str) -> Option<&ClientWaiting> {
        let name = name.to_lowercase();
        let fitting = self.clients.iter().filter(|client| name.starts_with(&client.name));
        fitting.max_by_key(|client| client.name.len())
    }

    /// Adds what another file says: where both say something, the shorter time counts.
    pub(super) fn add(&mut self, other: Self) {
        self.default = shorter(self.default, other.default);
        self.grant = shorter(self.grant, other.grant);
        for client in other.clients {
            match self.clients.iter_mut().find(|known| known.name == client.name) {
                None => self.clients.push(client),
                Some(known) => {
                    known.wait = shorter(known.wait, client.wait);
                    known.with_progress = shorter(known.with_progress, client.with_progress);
                    known.rounds = shorter(known.rounds, client.rounds);
                }
            }
        }
    }
}

fn shorter<T: Ord>(one: Option<T>, other: Option<T>) -> Option<T> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

impl Reader<'_> {
    /// `waiting:`.
    pub(super) fn waiting(&mut self, node: &Node) -> Waiting {
        let Some(mut keys) = self.mapping(node, "`waiting`", &WAITING_KEYS) else {
            return Waiting::default();
        };
        let default = keys.take("default").and_then(|node| self.kept(node, "default"));
        let grant = keys.take("grant").and_then(|node| self.timeout(node, "grant", GRANT_MIN, GRANT_MAX));
        let mut clients = Vec::new();
        if let Some(node) = keys.take("clients") {
            for (name, _, value) in self.entries(node, "clients", CLIENTS_MAX) {
                let Some(mut keys) = self.mapping(value, "an entry of `clients`", &CLIENT_KEYS) else {
                    continue;
                };
                clients.push(ClientWaiting {
                    name: name.to_lowercase(),
                    wait: keys.take("wait").and_then(|node| self.kept(node, "wait")),
                    with_progress: keys
                        .take("with_progress")
                        .and_then(|node| self.kept(node, "with_progress")),
                    rounds: keys.take("rounds").and_then(|node| self.flag(node, "rounds")),
                });
            }
        }
        Waiting { default, grant, clients }
    }

    fn kept(&mut self, node: &Node, key: &str) -> Option<Kept> {
        match &node.value {
            Value::Text(word) if word == "forever" => Some(Kept::UntilDecided),
            _ => self.timeout(node, key, TIMEOUT_MIN, TIMEOUT_MAX).map(Kept::For),
        }
    }
}
