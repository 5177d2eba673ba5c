//! The ladder of waiting: in which way a client is kept waiting for people, and for how long before it would give up.
//!
//! Asked by `gate` for each call that is held, from what the request itself says; the same for every transport. Knows no
//! clock and decides nothing about a call.

mod clients;

use std::{str::FromStr, time::Duration};

use crate::policy::{Kept, Waiting};

pub use self::clients::{CLIENTS, Client};

/// How long a client of which nothing is known is kept waiting, in seconds: less than the minute after which many SDKs give
/// up by default.
pub const PATIENCE_DEFAULT_SECONDS: u64 = 45;

/// In which way a client hears that its call waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rung {
    /// By progress notifications, for which it has asked.
    Progress,
    /// By an answer with nothing but a state, after which it makes the call again by itself (2026-07-28).
    Rounds,
    /// Not before its patience ends.
    Silence,
}

/// How one call waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// In which way.
    pub rung: Rung,
    /// For how long, before it is answered that the call is pending; none: until it is decided or expires.
    pub patience: Option<Duration>,
}

/// What a request and its client say, as far as waiting depends on it.
#[derive(Clone, Copy, Debug)]
pub struct Asking<'a> {
    /// The client's name, as it gives it. Untrusted; who lies about it waits longer than it can, or less long.
    pub client: &'a str,
    /// The client's version.
    pub version: &'a str,
    /// Whether the request asks for progress.
    pub wants_progress: bool,
    /// Whether it is of the revision in which an answer can have nothing but a state, and brings no state of the server's.
    pub takes_rounds: bool,
    /// What the operator has set for the server.
    pub wait: Option<Wait>,
    /// What the policy says of clients.
    pub settings: &'a Waiting,
}

impl Plan {
    /// The plan for a request.
    pub fn of(asking: Asking<'_>) -> Self {
        let known = Client::find(asking.client, asking.version);
        let set = asking.settings.of(asking.client);
        let makes_rounds = set
            .and_then(|client| client.rounds)
            .unwrap_or_else(|| known.is_none_or(|client| client.makes_rounds));
        let rung = match asking.wants_progress {
            true => Rung::Progress,
            false if asking.takes_rounds && makes_rounds => Rung::Rounds,
            false => Rung::Silence,
        };
        let set = set.and_then(|client| match asking.wants_progress {
            true => client.with_progress.or(client.wait),
            false => client.wait,
        });
        let patience = match (asking.wait, set, known) {
            (Some(Wait::For(patience)), ..) | (None, Some(Kept::For(patience)), _) => Some(patience),
            (Some(Wait::Forever), ..) | (None, Some(Kept::UntilDecided), _) => None,
            (None, None, Some(client)) if asking.wants_progress => client.with_progress.patience(),
            (None, None, Some(client)) => client.silent.patience(),
            (None, None, None) => match asking.settings.default {
                Some(Kept::For(patience)) => Some(patience),
                Some(Kept::UntilDecided) => None,
                None => Some(Duration::from_secs(PATIENCE_DEFAULT_SECONDS)),
            },
        };
        Self { rung, patience }
    }
}

/// How long a client is to be kept waiting, whatever the table says: an operator's setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// For so long.
    For(Duration),
    /// Until the call is decided or expires.
    Forever,
}

/// A text that is not a [`Wait`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is neither a time such as `45s` or `5m` nor `forever`")]
pub struct BadWait(String);

impl FromStr for Wait {
    type Err = BadWait;

    fn from_str(text: &str) -> Result<Self, BadWait> {
        if text == "forever" {
            return Ok(Self::Forever);
        }
        let span: jiff::SignedDuration = text.parse().map_err(|_| BadWait(text.to_owned()))?;
        Duration::try_from(span).map(Self::For).map_err(|_| BadWait(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{Policy, Source};

    fn patience(client: &str, version: &str, wants_progress: bool) -> Option<u64> {
        let settings = &Waiting::default();
        let asking = Asking { client, version, wants_progress, takes_rounds: true, wait: None, settings };
        Plan::of(asking).patience.map(|patience| patience.as_secs())
    }

    #[test]
    fn a_client_is_kept_waiting_less_long_than_it_has_patience() {
        assert_eq!(patience("nobody knows it", "1", false), Some(45));
        assert_eq!(patience("", "", true), Some(45), "a token alone does not say that the clock is set back");
        assert_eq!(patience("claude-ai", "0.1.0", false), Some(200));
        assert_eq!(patience("Claude-AI", "0.1.0", false), Some(200), "names are compared without their case");
        assert_eq!(patience("claude-code", "2.1.320", true), None);
        assert_eq!(patience("claude-code", "2.1.320", false), Some(270));
        assert_eq!(patience("codex-mcp-client", "0.165.0", true), Some(270));
        assert_eq!(
            patience("codex-mcp-client", "0.20.0", true),
            Some(45),
            "older ones gave up after a minute"
        );
        for client in &CLIENTS {
            assert!(
                !client.source.is_empty() && client.name == client.name.to_ascii_lowercase(),
                "{}",
                client.name
            );
        }
    }

    #[test]
    fn an_operator_knows_better() {
        let settings = &Waiting::default();
        let asking = Asking {
            client: "claude-ai",
            version: "",
            wants_progress: false,
            takes_rounds: false,
            wait: None,
            settings,
        };
        let with = |wait: &str| Plan::of(Asking { wait: Some(wait.parse().unwrap()), ..asking }).patience;
        assert_eq!(with("3s"), Some(Duration::from_secs(3)));
        assert_eq!(with("0s"), Some(Duration::ZERO));
        assert_eq!(with("forever"), None);
        for bad in ["", "soon", "-5s", "45"] {
            assert!(bad.parse::<Wait>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_policy_knows_better_than_the_table_and_an_operator_better_than_both() {
        let text = "version: 1\nwaiting:\n  default: 10s\n  clients:\n    claude-ai: {wait: 1m, rounds: true}\n    \
                    Claude-Code: {wait: 2m, with_progress: forever}\n    claude: {wait: 9s}\n";
        let other = "version: 1\nwaiting: {default: 20s, clients: {claude-ai: {wait: 50s}}}\n";
        let source = |text: &str| Source { name: text.len().to_string(), text: text.to_owned() };
        let policy = Policy::parse(vec![source(text), source(other)]).unwrap();
        let plan = |client: &str, wants_progress: bool, takes_rounds: bool, wait: Option<Wait>| {
            let settings = policy.waiting();
            let plan =
                Plan::of(Asking { client, version: "9", wants_progress, takes_rounds, wait, settings });
            (plan.rung, plan.patience.map(|patience| patience.as_secs()))
        };
        assert_eq!(plan("nobody knows it", false, false, None), (Rung::Silence, Some(10)), "the shorter one");
        assert_eq!(plan("claude-ai", false, true, None), (Rung::Rounds, Some(50)));
        assert_eq!(plan("claude-code", false, true, None), (Rung::Rounds, Some(120)));
        assert_eq!(plan("claude-code", true, true, None), (Rung::Progress, None));
        assert_eq!(plan("claude-new", false, false, None), (Rung::Silence, Some(9)), "by its beginning");
        assert_eq!(plan("claude-ai", false, true, Some(Wait::Forever)), (Rung::Rounds, None));
        let none = &Waiting::default();
        let asking = Asking {
            client: "claude-ai",
            version: "1",
            wants_progress: false,
            takes_rounds: true,
            wait: None,
            settings: none,
        };
        assert_eq!(Plan::of(asking).rung, Rung::Silence, "it shows an error instead of going on");
        assert_eq!(Plan::of(Asking { client: "x", ..asking }).rung, Rung::Rounds);
    }
}
