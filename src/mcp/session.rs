//! What a session says of itself: who speaks which version, which tools there are, what is withdrawn, how far things are.
//!
//! Used by `gate` and the transports to follow a session. All of it is what peers claim; nothing here is proof.

use std::{borrow::Cow, fmt};

use super::call::{META_PROTOCOL_VERSION, META_SUBSCRIPTION};
use crate::jsonrpc::{
    Frame, RequestId,
    scan::{Param, members, unescape},
};

/// Bytes of a peer's name, and of its version, that are kept; the rest is cut off.
const MAX_PEER_BYTES: usize = 200;

/// A peer's `clientInfo` or `serverInfo` (MCP's `Implementation`), self-reported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer<'a> {
    /// The program's name.
    pub name: Cow<'a, str>,
    /// Its version; empty where it gives none.
    pub version: Cow<'a, str>,
}

impl fmt::Display for Peer<'_> {
    /// Its name and its version, for people.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        if self.version.is_empty() { Ok(()) } else { write!(f, " {}", self.version) }
    }
}

impl<'a> Peer<'a> {
    /// Reads the raw object. `None` if it is no object, or a name or version in it is not a string.
    pub fn parse(value: &'a str) -> Option<Self> {
        if !value.starts_with('{') {
            return None;
        }
        let mut peer = Self { name: Cow::Borrowed(""), version: Cow::Borrowed("") };
        for (key, value) in members(value) {
            match &*key {
                "name" => peer.name = cut(string(value)?),
                "version" => peer.version = cut(string(value)?),
                _ => {}
            }
        }
        Some(peer)
    }
}

/// What both sides say in `initialize`: the request's `params` or the response's `result`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Initialize<'a> {
    /// The version asked for, or the version agreed on.
    pub protocol_version: Cow<'a, str>,
    /// Who speaks; `None` where it is missing or cannot be read.
    pub peer: Option<Peer<'a>>,
    /// The raw object of what they can do; empty where it is missing.
    pub capabilities: &'a str,
}

impl<'a> Initialize<'a> {
    /// Reads a client's `params`. `None` without a protocol version.
    pub fn from_params(params: &'a str) -> Option<Self> {
        Self::read(params, "clientInfo")
    }

    /// Reads a server's `result`. `None` without a protocol version.
    pub fn from_result(result: &'a str) -> Option<Self> {
        Self::read(result, "serverInfo")
    }

    fn read(object: &'a str, info: &str) -> Option<Self> {
        let mut protocol_version = None;
        let (mut peer, mut capabilities) = (None, "");
        for (key, value) in members(object) {
            if key == "protocolVersion" {
                protocol_version = string(value);
            } else if key == "capabilities" {
                capabilities = value;
            } else if key == info {
                peer = Peer::parse(value);
            }
        }
        Some(Self { protocol_version: protocol_version?, peer, capabilities })
    }
}

/// The `params` of `notifications/cancelled`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cancelled<'a> {
    /// The request to withdraw. `"63"` does not withdraw `63`.
    pub request: RequestId,
    /// Why, in the peer's words.
    pub reason: Option<Cow<'a, str>>,
}

impl<'a> Cancelled<'a> {
    /// Reads the raw object. `None` where no id that a request can have is named.
    pub fn parse(params: &'a str) -> Option<Self> {
        let request = RequestId::from_token(member(params, "requestId")?)?;
        Some(Self { request, reason: member(params, "reason").and_then(string) })
    }
}

/// The `params` of `notifications/progress`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress<'a> {
    /// The raw token.
    pub token: &'a str,
    /// The number as it is written.
    pub progress: &'a str,
}

impl<'a> Progress<'a> {
    /// Reads the raw object. `None` where the token is neither string nor number, or the progress is not a number.
    pub fn parse(params: &'a str) -> Option<Self> {
        let token =
            member(params, "progressToken").filter(|token| token.starts_with('"') || is_number(token))?;
        let progress = member(params, "progress").filter(|progress| is_number(progress))?;
        Some(Self { token, progress })
    }
}

/// The raw id of the request for news to which a message of the server belongs (2026-07-28).
pub fn subscription(frame: &Frame) -> Option<&str> {
    let meta = member(frame.params()?, "_meta").filter(|meta| meta.starts_with('{'))?;
    member(meta, META_SUBSCRIPTION)
}

/// The protocol version that a message names itself, as all requests do from 2026-07-28 on. Empty where it is not a string.
pub fn declared_version(frame: &Frame) -> Option<Cow<'_, str>> {
    let meta = frame.param(Param::Meta).filter(|meta| meta.starts_with('{'))?;
    Some(string(member(meta, META_PROTOCOL_VERSION)?).unwrap_or_default())
}

/// Whether a request names its protocol version itself, as all do from 2026-07-28 on.
pub fn declares_version(frame: &Frame) -> bool {
    declared_version(frame).is_some()
}

/// A peer's word for itself, no longer than anyone reads: it is kept with every call.
fn cut(mut text: Cow<'_, str>) -> Cow<'_, str> {
    if text.len() > MAX_PEER_BYTES {
        let end = text.floor_char_boundary(MAX_PEER_BYTES);
        text.to_mut().truncate(end);
    }
    text
}

/// The value of a member; of a repeated one the last.
pub(super) fn member<'a>(object: &'a str, key: &str) -> Option<&'a str> {
    members(object).filter(|(name, _)| name == key).last().map(|(_, value)| value)
}

pub(super) fn string(token: &str) -> Option<Cow<'_, str>> {
    token.starts_with('"').then(|| unescape(token))
}

fn is_number(token: &str) -> bool {
    token.starts_with(|c: char| c == '-' || c.is_ascii_digit())
}
