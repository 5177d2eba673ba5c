//! Where a process shows its numbers and its health, and to whom.
//!
//! A part of the configuration; `--metrics` of other commands makes the same of an address alone. Others than this machine reach it
//! only where somebody has said so.

use std::net::{IpAddr, SocketAddr};

/// A listener for numbers and health: where it is, and the names by which it may be called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TelemetryAddress {
    /// Where to listen.
    pub listen: SocketAddr,
    /// Names, in small letters, by which others call it; its addresses are no names.
    hosts: Vec<String>,
}

/// Why nothing listens there.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("others can reach {0}, and what is shown there is for operators")]
pub struct NotLoopback(pub IpAddr);

impl TelemetryAddress {
    /// A listener at `listen`, which is called by the names in `hosts` too.
    ///
    /// # Errors
    ///
    /// When others than this machine can reach it and `danger_listen_without_tls` does not say that this is meant.
    pub fn new(
        listen: SocketAddr,
        hosts: &[String],
        danger_listen_without_tls: bool,
    ) -> Result<Self, NotLoopback> {
        if !listen.ip().is_loopback() && !danger_listen_without_tls {
            return Err(NotLoopback(listen.ip()));
        }
        Ok(Self { listen, hosts: hosts.iter().map(|host| host.to_ascii_lowercase()).collect() })
    }

    /// Whether `host`, as a `Host` header has it, means this listener. An address always does; of names only those that were given
    /// and `localhost`: any other may have been turned to this machine (DNS rebinding).
    pub fn is_called(&self, host: &str) -> bool {
        let Ok(authority) = host.parse::<http::uri::Authority>() else { return false };
        if authority.as_str().contains('@') {
            return false;
        }
        let name = authority.host().to_ascii_lowercase();
        let is_address = name.trim_matches(['[', ']']).parse::<IpAddr>().is_ok();
        is_address || name == "localhost" || self.hosts.contains(&name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_listens_on_this_machine_alone_unless_somebody_says_otherwise() {
        let at = |text: &str, danger| TelemetryAddress::new(text.parse().unwrap(), &[], danger);
        assert!(at("127.0.0.1:0", false).is_ok() && at("[::1]:9464", false).is_ok());
        for wide in ["0.0.0.0:9464", "[::]:9464", "10.1.2.3:9464"] {
            assert!(at(wide, false).is_err(), "{wide}");
            assert!(at(wide, true).is_ok(), "{wide}");
        }
    }

    #[test]
    fn a_name_that_was_turned_to_this_machine_is_none_of_its_names() {
        let hosts = ["Gate.Internal".to_owned()];
        let address = TelemetryAddress::new("127.0.0.1:9464".parse().unwrap(), &hosts, false).unwrap();
        for own in
            ["127.0.0.1:9464", "[::1]:9464", "localhost", "LOCALHOST:1", "gate.internal:80", "10.0.0.7"]
        {
            assert!(address.is_called(own), "{own}");
        }
        for foreign in
            ["evil.example", "localhost.evil.example:9464", "a@127.0.0.1", "", "127.0.0.1.evil.example"]
        {
            assert!(!address.is_called(foreign), "{foreign}");
        }
    }
}
