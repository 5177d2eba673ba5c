//! Where a desk listens and what it is called.
//!
//! Checked before anything listens: beyond this machine a desk speaks only with TLS, or where whoever started it has said that
//! something in front of it encrypts.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use url::{Host, Url};

/// The port of a desk where none is given.
pub const PORT_DEFAULT: u16 = 4653;

/// The address of a desk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// Where it listens.
    pub listen: SocketAddr,
    /// What browsers call it: scheme, host and port, without a slash at the end.
    pub origin: String,
    /// The values of a `Host` header that mean it.
    pub(super) hosts: Vec<String>,
    is_public: bool,
    /// Whether browsers reach it by https.
    is_encrypted: bool,
}

/// What keeps others from reading along on the way to a desk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wire {
    /// That there is no way: this machine alone.
    Plain,
    /// Something in front of it, as whoever started it says.
    DangerPlain,
    /// The desk itself: TLS.
    Tls,
}

/// Why a desk does not listen there.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Not this machine alone.
    #[error(
        "a desk without TLS listens on this machine alone (127.0.0.1 or ::1); {0} is refused without `--danger-plain-http`"
    )]
    NotLoopback(IpAddr),
    /// Reachable from elsewhere, and nobody says under which name.
    #[error(
        "a desk that listens on {0} needs `--public-url`: the https address under which browsers reach it"
    )]
    NoName(IpAddr),
    /// The public address is none.
    #[error("`{0}` is not the https address of a site, such as https://desk.example.com")]
    BadUrl(String),
    /// What a link is to open is no desk's address.
    #[error("`{0}` is not the address of a desk, such as http://127.0.0.1:4653 or https://desk.example.com")]
    BadDesk(String),
}

/// The origin that `text` names, as a desk says it when it starts.
///
/// # Errors
///
/// [`AddressError::BadDesk`] when it is not that of a site on https, or on http on this machine.
pub fn origin_of(text: &str) -> Result<String, AddressError> {
    // No desk is reached without encryption but from its own machine, and a link has a key in it.
    let is_desk = |url: &Url| match (url.scheme(), url.host()) {
        ("https", _) | ("http", Some(Host::Domain("localhost"))) => true,
        ("http", Some(Host::Ipv4(ip))) => ip.is_loopback(),
        ("http", Some(Host::Ipv6(ip))) => ip.is_loopback(),
        _ => false,
    };
    let url = site(text).filter(is_desk).ok_or_else(|| AddressError::BadDesk(text.to_owned()))?;
    Ok(url.origin().ascii_serialization())
}

/// A URL that says where a site is, and nothing besides.
fn site(text: &str) -> Option<Url> {
    let url = Url::parse(text).ok()?;
    let is_all = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
    let is_open = url.username().is_empty() && url.password().is_none();
    (is_all && is_open && url.has_host()).then_some(url)
}

impl Address {
    /// Where to listen, under which name. `public` is the address that a proxy in front gives it.
    ///
    /// # Errors
    ///
    /// When others could read along, or nobody would know its name.
    pub fn new(listen: SocketAddr, public: Option<&str>, wire: Wire) -> Result<Self, AddressError> {
        let ip = listen.ip();
        if !ip.is_loopback() && wire == Wire::Plain {
            return Err(AddressError::NotLoopback(ip));
        }
        let Some(public) = public else {
            if !ip.is_loopback() {
                return Err(AddressError::NoName(ip));
            }
            let is_encrypted = wire == Wire::Tls;
            let (origin, hosts) = (String::new(), Vec::new());
            let mut address = Self { listen, origin, hosts, is_public: false, is_encrypted };
            address.name_after_port(listen.port());
            return Ok(address);
        };
        let named =
            site(public).filter(|url| url.scheme() == "https" && matches!(url.host(), Some(Host::Domain(_))));
        let url = named.ok_or_else(|| AddressError::BadUrl(public.to_owned()))?;
        let origin = url.origin().ascii_serialization();
        let host = origin.trim_start_matches("https://").to_owned();
        Ok(Self { listen, origin, hosts: vec![host], is_public: true, is_encrypted: true })
    }

    /// Takes over the port that the system chose.
    pub(super) fn listens_on(&mut self, local: SocketAddr) {
        self.listen = local;
        if !self.is_public {
            self.name_after_port(local.port());
        }
    }

    fn name_after_port(&mut self, port: u16) {
        let own = match self.listen.ip() {
            IpAddr::V6(Ipv6Addr::LOCALHOST) => "[::1]".to_owned(),
            IpAddr::V4(Ipv4Addr::LOCALHOST) => "127.0.0.1".to_owned(),
            other => other.to_string(),
        };
        self.origin = format!("{}://{own}:{port}", self.scheme());
        self.hosts = vec![format!("{own}:{port}"), format!("localhost:{port}")];
    }

    /// Whether `host`, as a `Host` header has it, means this desk. Anything else may be a name that was turned to this
    /// machine (DNS rebinding).
    pub(super) fn is_called(&self, host: &str) -> bool {
        self.hosts.iter().any(|own| own.eq_ignore_ascii_case(host))
    }

    fn scheme(&self) -> &'static str {
        if self.is_encrypted { "https" } else { "http" }
    }

    /// Whether `origin`, as an `Origin` header has it, is this desk's, when it is called `host`.
    pub(super) fn is_origin(&self, origin: &str, host: &str) -> bool {
        origin.strip_prefix(self.scheme()).and_then(|rest| rest.strip_prefix("://")) == Some(host)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_desk_listens_on_this_machine_alone_unless_somebody_says_otherwise() {
        for local in ["127.0.0.1:1", "[::1]:1", "127.0.0.2:1"] {
            assert!(Address::new(at(local), None, Wire::Plain).is_ok(), "{local}");
        }
        for remote in ["0.0.0.0:1", "[::]:1", "192.168.1.5:1", "[::ffff:10.0.0.1]:1"] {
            let refused = Address::new(at(remote), Some("https://desk.example.com"), Wire::Plain);
            assert_eq!(refused, Err(AddressError::NotLoopback(at(remote).ip())));
            let refused = Address::new(at(remote), None, Wire::DangerPlain);
            assert_eq!(refused, Err(AddressError::NoName(at(remote).ip())));
            assert!(Address::new(at(remote), Some("https://desk.example.com"), Wire::DangerPlain).is_ok());
            assert!(Address::new(at(remote), Some("https://desk.example.com"), Wire::Tls).is_ok());
            assert_eq!(Address::new(at(remote), None, Wire::Tls), Err(AddressError::NoName(at(remote).ip())));
        }
    }

    #[test]
    fn a_link_is_for_an_address_that_a_desk_can_have() {
        for (text, origin) in [
            ("http://127.0.0.1:4653", "http://127.0.0.1:4653"),
            ("HTTP://LocalHost:4653/", "http://localhost:4653"),
            ("http://[::1]:4653/", "http://[::1]:4653"),
            ("https://Desk.example.com:443/", "https://desk.example.com"),
        ] {
            assert_eq!(origin_of(text), Ok(origin.to_owned()));
        }
        for bad in [
            "desk",
            "127.0.0.1:4653",
            "http://desk.example.com",
            "http://10.0.0.1:4653",
            "ftp://127.0.0.1",
            "https://desk.example.com/sign-in",
            "https://alice@desk.example.com",
        ] {
            assert_eq!(origin_of(bad), Err(AddressError::BadDesk(bad.to_owned())));
        }
    }

    #[test]
    fn a_public_name_is_that_of_an_encrypted_site() {
        for bad in [
            "http://desk.example.com",
            "https://desk.example.com/x",
            "https://desk.example.com/?a",
            "https://user@desk.example.com",
            "https://10.0.0.1",
            "desk.example.com",
            "javascript:alert(1)",
        ] {
            let refused = Address::new(at("127.0.0.1:1"), Some(bad), Wire::Plain);
            assert_eq!(refused, Err(AddressError::BadUrl(bad.to_owned())));
        }
        let named =
            Address::new(at("127.0.0.1:1"), Some("https://Desk.example.com:8443/"), Wire::Plain).unwrap();
        assert_eq!(named.origin, "https://desk.example.com:8443");
        assert!(named.is_called("desk.example.com:8443") && !named.is_called("127.0.0.1:1"));
        assert!(named.is_origin("https://desk.example.com:8443", "desk.example.com:8443"));
        assert!(!named.is_origin("http://desk.example.com:8443", "desk.example.com:8443"));
    }

    #[test]
    fn a_name_that_was_turned_to_this_machine_is_not_this_desk() {
        let desk = Address::new(at("127.0.0.1:4653"), None, Wire::Plain).unwrap();
        assert!(desk.is_called("127.0.0.1:4653") && desk.is_called("LOCALHOST:4653"));
        let own = Address::new(at("127.0.0.1:4653"), None, Wire::Tls).unwrap();
        assert_eq!(own.origin, "https://127.0.0.1:4653");
        assert!(own.is_origin("https://localhost:4653", "localhost:4653"));
        assert!(
            !own.is_origin("http://localhost:4653", "localhost:4653"),
            "what was not encrypted is not from here"
        );
        for other in ["127.0.0.1", "127.0.0.1:80", "localhost.evil.example:4653", "evil.example:4653", ""] {
            assert!(!desk.is_called(other), "{other}");
        }
        assert!(desk.is_origin("http://localhost:4653", "localhost:4653"));
        for other in ["null", "http://localhost:4654", "https://localhost:4653", "http://localhost:4653.evil"]
        {
            assert!(!desk.is_origin(other, "localhost:4653"), "{other}");
        }
    }
}
