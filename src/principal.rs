//! Who acts: the authenticated someone behind a call or a verdict.
//!
//! Made where somebody is authenticated (the control socket reads peer credentials, the stdio session knows its own user, an
//! HTTP listener checks tokens and certificates) and carried into the record. Never read from anything a peer says about itself.

use std::fmt;

/// What the identities begin with that a desk can vouch for: those of its channels, and of certificates that its listener has verified.
pub const CHANNEL_KINDS: [&str; 4] = ["slack", "email", "webhook", CERTIFICATE_KIND];

/// What the identity of a client certificate begins with.
const CERTIFICATE_KIND: &str = "cert";

/// What the names begin with of those who were asked through the client that made the call.
pub const ELICITATION: &str = "elicitation";

/// The longest identity that a channel vouches for, in bytes.
const IDENTITY_BYTES_MAX: usize = 320;

/// An authenticated someone, as the record names them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Principal {
    /// A local process, known by the kernel's word (`SO_PEERCRED`): its user.
    User {
        /// The user's number.
        uid: u32,
        /// The user's name, where the system knows one.
        name: Option<String>,
    },
    /// The program at the other end of a wrapped server's stdin: started by this user, not told apart from others of theirs.
    Client {
        /// The number of the user who runs the wrapper.
        uid: u32,
        /// That user's name, where the system knows one.
        name: Option<String>,
    },
    /// A program at an HTTP listener that has shown who it is: by a token, a certificate, or the word of a trusted proxy.
    Agent {
        /// Its name in the configuration, in the certificate or in the proxy's header.
        name: String,
    },
    /// A program at an HTTP listener that asks nobody who they are.
    Anyone,
    /// Somebody whom a desk has told apart: by a chat's signed word for its user, as the reader of a mail, by a certificate. By the
    /// word of that desk, which a process of this same user runs.
    Channel {
        /// As `people:` in a policy names them, such as `slack:U012AB3CD`.
        identity: String,
    },
    /// Whoever has signed a statement with this key.
    Key {
        /// As `ssh-keygen -l` shows it: `SHA256:…`.
        fingerprint: String,
    },
    /// Whoever sits at the client that made the call, asked through that client itself: nobody who could be told apart from it.
    Elicited {
        /// The principal of the call.
        client: String,
    },
    /// The gate itself: expiry, recovery.
    Gate,
}

/// What the identity of a key begins with.
const KEY_KIND: &str = "ssh";

/// How policies' people are found by their keys: the identity of the key with this fingerprint.
pub fn key_identity(fingerprint: &str) -> String {
    format!("{KEY_KIND}:{fingerprint}")
}

/// How policies' people are found by their certificates: the identity of one with this name. None, if a policy could not say it, or
/// not everybody would see what it says.
pub fn certificate_identity(name: &str) -> Option<String> {
    let identity = format!("{CERTIFICATE_KIND}:{name}");
    (name.chars().all(crate::sanitize::is_plain) && Principal::channel(&identity).is_some())
        .then_some(identity)
}

impl Principal {
    /// The user `uid`, named if the system knows a name.
    pub fn user(uid: u32) -> Self {
        Self::User { uid, name: user_name(uid) }
    }

    /// The MCP client on this process's stdin.
    pub fn client() -> Self {
        let uid = rustix::process::getuid().as_raw();
        Self::Client { uid, name: user_name(uid) }
    }

    /// Somebody as a desk names them, if it is one of the kinds that a desk can vouch for: never a user of this system.
    pub fn channel(identity: &str) -> Option<Self> {
        let (kind, who) = identity.split_once(':')?;
        let is_plain = |c: char| !c.is_whitespace() && !c.is_control();
        let fits = !who.is_empty() && identity.len() <= IDENTITY_BYTES_MAX && identity.chars().all(is_plain);
        (CHANNEL_KINDS.contains(&kind) && fits).then(|| Self::Channel { identity: identity.to_owned() })
    }

    /// What this someone may be called where a policy says who its people are: a user by name or by number.
    pub fn identities(&self) -> Vec<String> {
        let mut identities = vec![self.to_string()];
        if let Self::User { uid, name: Some(_) } = self {
            identities.push(format!("uid:{uid}"));
        }
        identities
    }
}

/// The name of a user. Names are for people; two users are the same only if their numbers are.
fn user_name(uid: u32) -> Option<String> {
    uzers::get_user_by_uid(uid).map(|user| user.name().to_string_lossy().into_owned())
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User { name: Some(name), .. } => write!(f, "uid:{name}"),
            Self::User { uid, name: None } => write!(f, "uid:{uid}"),
            Self::Client { name: Some(name), .. } => write!(f, "client-of:{name}"),
            Self::Client { uid, name: None } => write!(f, "client-of:{uid}"),
            Self::Agent { name } => write!(f, "agent:{name}"),
            Self::Anyone => f.write_str("anyone"),
            Self::Channel { identity } => f.write_str(identity),
            Self::Key { fingerprint } => f.write_str(&key_identity(fingerprint)),
            Self::Elicited { client } => write!(f, "{ELICITATION}:{client}"),
            Self::Gate => f.write_str("gate"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_never_the_user_who_may_approve() {
        let uid = rustix::process::getuid().as_raw();
        assert_ne!(Principal::user(uid).to_string(), Principal::client().to_string());
        for other in ["uid:0", "client-of:alice", "agent:ci", "gate", "slack:", "slack:U 1", "email", ""] {
            assert_eq!(Principal::channel(other), None, "{other}");
        }
        for name in ["", "ann smith", "ann\u{202e}", "ann\u{200b}", "ann\n", &"x".repeat(IDENTITY_BYTES_MAX)]
        {
            assert_eq!(certificate_identity(name), None, "{name:?}");
        }
        assert_eq!(certificate_identity("ann@example.com").as_deref(), Some("cert:ann@example.com"));
        assert_eq!(Principal::channel("slack:U1").map(|user| user.to_string()), Some("slack:U1".to_owned()));
        assert_eq!(Principal::User { uid: 7, name: None }.to_string(), "uid:7");
        assert_eq!(Principal::User { uid: 7, name: Some("alice".into()) }.to_string(), "uid:alice");
    }
}
