//! The ladder of waiting: in which way a client is kept waiting for people, and for how long before it would give up.
//!
//! Asked by `gate` for each call that is held, from what the request itself says; the same for every transport. Knows no
//! clock and decides nothing about a call.

mod clients;

use std::{str::FromStr, time::Duration};

pub use self::clients::{CLIENTS, Client};

/// How long a client of which nothing is known is kept waiting, in seconds: less than the minute after which many SDKs give
/// up by default.
pub const PATIENCE_DEFAULT_SECONDS: u64 = 45;

/// In which way a client hears that its call waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rung {
    /// By progress notifications, for which it has asked.
    Progress,
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
    /// What the operator has set.
    pub wait: Option<Wait>,
}

impl Plan {
    /// The plan for a request.
    pub fn of(asking: Asking<'_>) -> Self {
        let rung = if asking.wants_progress { Rung::Progress } else { Rung::Silence };
        let patience = match asking.wait {
            Some(Wait::For(patience)) => Some(patience),
            Some(Wait::Forever) => None,
            None => match Client::find(asking.client, asking.version) {
                Some(client) if asking.wants_progress => client.with_progress.patience(),
                Some(client) => client.silent.patience(),
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

    fn patience(client: &str, version: &str, wants_progress: bool) -> Option<u64> {
        let asking = Asking { client, version, wants_progress, wait: None };
        Plan::of(asking).patience.map(|patience| patience.as_secs())
    }

    #[test]
    fn a_client_is_kept_waiting_less_long_than_it_has_patience() {
        assert_eq!(patience("nobody knows it", "1", false), Some(45));
        assert_eq!(patience("", "", true), Some(45), "a token alone does not say that the clock is set back");
        assert_eq!(patience("claude-ai", "0.1.0", false), Some(200));
        assert_eq!(patience("Claude-AI", "0.1.0", false), Some(200), "names are compared without their case");
        assert_eq!(patience("claude-code", "2.1.320", true), None);
        assert_eq!(patience("claude-code", "2.1.320", false), Some(25 * 60));
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
        let asking = Asking { client: "claude-ai", version: "", wants_progress: false, wait: None };
        let with = |wait: &str| Plan::of(Asking { wait: Some(wait.parse().unwrap()), ..asking }).patience;
        assert_eq!(with("3s"), Some(Duration::from_secs(3)));
        assert_eq!(with("0s"), Some(Duration::ZERO));
        assert_eq!(with("forever"), None);
        for bad in ["", "soon", "-5s", "45"] {
            assert!(bad.parse::<Wait>().is_err(), "{bad}");
        }
    }
}
