//! Who asks: an agent known by a token, a certificate, or the word of a proxy that is trusted.
//!
//! Asked for every request, before its body is read. Where nobody has to show who they are, everybody is the same. What an agent shows
//! never goes on to a server, and never into a log.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
    sync::Arc,
};

use http::{HeaderMap, HeaderName, StatusCode, header};

use super::{Client, checks::TurnedAway, headers};
use crate::{digest::Digest, principal::Principal};

/// The longest name of an agent, in characters.
pub const AGENT_NAME_CHARS_MAX: usize = 200;

/// The shortest token that is one, in bytes.
pub const TOKEN_BYTES_MIN: usize = 16;

/// How agents show who they are. Nothing at all: nobody has to.
#[derive(Clone, Default)]
pub struct AgentSettings {
    /// Names by the SHA-256 of a bearer token.
    pub tokens: HashMap<Digest, Arc<Principal>>,
    /// Whether a certificate that the listener has verified names an agent.
    pub by_certificate: bool,
    /// The header in which one of these proxies says who asks.
    pub header: Option<(HeaderName, HashSet<IpAddr>)>,
}

impl AgentSettings {
    /// Whether anybody has to show anything.
    pub fn is_asked_for(&self) -> bool {
        !self.tokens.is_empty() || self.by_certificate || self.header.is_some()
    }

    /// Whether the header is one that says who asks, or may be taken for it: it ends here.
    pub(super) fn is_shown_in(&self, name: &HeaderName) -> bool {
        self.header.as_ref().is_some_and(|(known, _)| headers::reads_as(name.as_str(), known.as_str()))
    }

    /// Who sends `headers` on the connection of `client`.
    pub(super) fn who(
        &self,
        client: &Client,
        headers: &HeaderMap,
        anyone: &Arc<Principal>,
    ) -> Result<Arc<Principal>, TurnedAway> {
        const UNKNOWN: TurnedAway = TurnedAway {
            status: StatusCode::UNAUTHORIZED,
            text: "say who you are: this server is only for agents that it knows",
        };
        if !self.is_asked_for() {
            return Ok(Arc::clone(anyone));
        }
        if let Some((name, proxies)) = &self.header
            && proxies.contains(&client.peer)
        {
            // A trusted proxy says who asks, or nobody does: what it passes on of the client's own is not asked.
            let agent = headers::single(headers, name).map_err(|()| UNKNOWN)?.ok_or(UNKNOWN)?;
            return agent_named(agent).ok_or(UNKNOWN);
        }
        if !self.tokens.is_empty()
            && let Some(token) = headers::single(headers, &header::AUTHORIZATION).map_err(|()| UNKNOWN)?
        {
            let token = token.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
            let token = token.map(|(_, token)| token.trim()).filter(|token| !token.is_empty());
            let known = token.and_then(|token| self.tokens.get(&Digest::of(token.as_bytes())));
            return known.cloned().ok_or(UNKNOWN);
        }
        client.certificate.clone().filter(|_| self.by_certificate).ok_or(UNKNOWN)
    }
}

/// The agent called `name`, if that can be a name: visible, on one line, not too long.
pub fn agent_named(name: &str) -> Option<Arc<Principal>> {
    let is_name = !name.is_empty()
        && name.trim() == name
        && name.chars().count() <= AGENT_NAME_CHARS_MAX
        && name.chars().all(crate::sanitize::is_plain);
    is_name.then(|| Arc::new(Principal::Agent { name: name.to_owned() }))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use http::HeaderValue;

    use super::{super::pulse::Pulse, *};

    #[test]
    fn nothing_is_never_a_token() {
        let agent = |name: &str| agent_named(name).unwrap();
        let tokens =
            HashMap::from([(Digest::of(b""), agent("nobody")), (Digest::of(b"s3cret"), agent("ci"))]);
        let settings = AgentSettings { tokens, ..AgentSettings::default() };
        let pulse = Pulse::new(Arc::default());
        let client = Client { pulse, peer: IpAddr::V4(Ipv4Addr::LOCALHOST), certificate: None };
        let who = |shown: &'static str| {
            let headers = HeaderMap::from_iter([(header::AUTHORIZATION, HeaderValue::from_static(shown))]);
            settings.who(&client, &headers, &Arc::new(Principal::Anyone)).ok()
        };
        assert_eq!(who("Bearer s3cret"), Some(agent("ci")));
        // HTTP/2 leaves the space at the end.
        for nothing in ["Bearer ", "Bearer", "Bearer  \t ", "bearer ", " ", ""] {
            assert_eq!(who(nothing), None, "{nothing:?}");
        }
    }
}
