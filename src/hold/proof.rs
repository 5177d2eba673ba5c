//! How far a verdict can be trusted: the levels of assurance, and the statement that an approver signs.
//!
//! A part of `hold`. The command line writes the statement from what it has shown and has it signed; the gate compares it with
//! what it holds and verifies the signature. Pure: whose key it is, `policy` says.

use std::{fmt, str::FromStr};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{HoldId, NewHold, Verdict, Vote};
use crate::{
    digest::Digest,
    jsonrpc::Frame,
    mcp::call_sha256,
    principal::key_identity,
    sshsig::{PublicKey, SIGNATURE_BYTES_MAX, Signature, SshError},
    view,
};

/// What a signature over a decision is made for: OpenSSH's word is `namespace`. One made for anything else is none.
pub const NAMESPACE: &str = "decision@holdshort";

/// The first line of every statement.
const TITLE: &str = "holdshort-decision-v1";

/// The longest statement, in bytes.
pub const STATEMENT_BYTES_MAX: usize = 1 << 10;

/// How wide the rows are whose digest statements and votes have, in columns: the digest must not depend on somebody's terminal.
const SHOWN_COLUMNS: usize = 100;

/// How far a decision can be trusted, as `SECURITY.md` says. The order is that of strength.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Assurance {
    /// Advisory: whatever runs as the approver's user could have said the same.
    #[default]
    L0,
    /// Attested: somebody has touched the security key of a listed person.
    L1,
    /// Isolated: what asks cannot reach the gate, its record and whoever approves.
    L2,
    /// Remote: the gate is on another machine than what asks, and the decision is signed.
    L3,
    /// Fleet: the same, where whoever writes the record cannot approve either.
    L4,
}

impl Assurance {
    /// All levels, the weakest first.
    pub const ALL: [Self; 5] = [Self::L0, Self::L1, Self::L2, Self::L3, Self::L4];

    /// `L0` to `L4`.
    pub fn word(self) -> &'static str {
        match self {
            Self::L0 => "L0",
            Self::L1 => "L1",
            Self::L2 => "L2",
            Self::L3 => "L3",
            Self::L4 => "L4",
        }
    }

    /// What the level is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::L0 => "advisory",
            Self::L1 => "attested",
            Self::L2 => "isolated",
            Self::L3 => "remote",
            Self::L4 => "fleet",
        }
    }

    /// What [`Assurance::word`] names.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.word() == word)
    }

    /// How far a decision signed with `key` can be trusted at a gate that is deployed so. A key in a file is worth nothing
    /// where the agent may read it.
    pub fn of_key(self, key: &PublicKey) -> Self {
        match self {
            Self::L0 | Self::L1 if key.is_hardware() => Self::L1,
            Self::L0 | Self::L1 => Self::L0,
            deployed => deployed,
        }
    }

    /// The same for what a user of the gate's own account says, without a signature.
    pub fn of_user(self) -> Self {
        if self >= Self::L2 { Self::L2 } else { Self::L0 }
    }

    /// Whether whoever could decide with `keys` reaches `self` at any gate that there can be.
    pub fn needs_key(self) -> bool {
        self >= Self::L3
    }
}

impl fmt::Display for Assurance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// A signed decision, kept with the vote: with `ssh-keygen -Y verify` anybody can prove it later.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    /// What was signed, to the byte.
    pub statement: String,
    /// What `ssh-keygen -Y sign` made of it.
    pub signature: String,
}

/// Why a signed decision does not count.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadProof {
    /// The statement is not one.
    #[error("the signed statement cannot be read")]
    Unreadable,
    /// It speaks of something else. The word is that of the line.
    #[error("the signed statement is about something else than this call: its `{0}` is another")]
    Other(&'static str),
    /// It is said to be signed by a key, and there is no signature.
    #[error("there is no signature")]
    Missing,
    /// It was signed with another key than the one that it names.
    #[error("another key has signed it")]
    OtherKey,
    /// Its time is over.
    #[error("the signed statement counts no longer: it has expired")]
    Expired,
    /// The signature.
    #[error("{0}")]
    Signature(#[from] SshError),
}

impl Proof {
    /// The statement and the key that has signed it.
    ///
    /// # Errors
    ///
    /// Unless the signature is one over the statement, made for [`NAMESPACE`].
    pub fn verified(&self) -> Result<(Statement, PublicKey), BadProof> {
        if self.statement.len() > STATEMENT_BYTES_MAX || self.signature.len() > SIGNATURE_BYTES_MAX {
            return Err(BadProof::Unreadable);
        }
        let signature = Signature::parse(&self.signature)?;
        signature.verify(NAMESPACE, self.statement.as_bytes())?;
        let statement = self.statement.parse().map_err(|_| BadProof::Unreadable)?;
        Ok((statement, signature.key().clone()))
    }
}

/// Whether `vote`, as it is on record, is what was signed about `hold`: if it was signed. Whose key that is, and whether it counted, the policy of
/// that time says, and the gate did. How the call was written and shown then is not compared: it may have been made again since.
///
/// # Errors
///
/// With what is wrong.
pub fn check_recorded(hold: &NewHold, vote: &Vote) -> Result<(), BadProof> {
    let Some(proof) = &vote.proof else {
        let is_of_key = vote.by.starts_with(&key_identity(""));
        return if is_of_key { Err(BadProof::Missing) } else { Ok(()) };
    };
    let (statement, key) = proof.verified()?;
    if vote.by != key_identity(&key.fingerprint()) {
        return Err(BadProof::OtherKey);
    }
    let expected = Statement {
        request: hold.id,
        call: hold.call_sha256.unwrap_or(statement.call),
        context: Context::of(hold).digest(),
        verdict: vote.verdict,
        reason: Digest::of(vote.comment.as_deref().unwrap_or_default().as_bytes()),
        ..statement.clone()
    };
    statement.agrees_with(&expected)
}

/// What somebody says about one held call, in full: written so that it cannot be taken for a word about another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// The hold.
    pub request: HoldId,
    /// SHA-256 of the frame that was shown.
    pub frame: Digest,
    /// The digest of what that call does: of a call that was made again, only this is the same.
    pub call: Digest,
    /// The digest of who asks for what, where, and under which policy.
    pub context: Digest,
    /// SHA-256 of the rows in which the call was shown.
    pub shown: Digest,
    /// What is said.
    pub verdict: Verdict,
    /// SHA-256 of the comment or the reason; of nothing where there is none.
    pub reason: Digest,
    /// Until when it counts: the end of the hold.
    pub expires: Timestamp,
}

/// SHA-256 of the rows in which `frame` is shown to whoever decides on it.
pub fn shown_sha256(frame: &str) -> Digest {
    Digest::of(view::json_rows(frame, SHOWN_COLUMNS).join("\n").as_bytes())
}

/// What a hold is about besides its frame, as the digest in a statement covers it.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// The server's name.
    pub server: &'a str,
    /// The method.
    pub method: &'a str,
    /// The tool.
    pub tool: &'a str,
    /// The digest of the tool's definition, where the server has told it.
    pub tool_sha256: Option<Digest>,
    /// Who asks, authenticated.
    pub principal: &'a str,
    /// What the client says of itself.
    pub agent: &'a str,
    /// The policy that held it.
    pub policy_sha256: Digest,
}

impl<'a> Context<'a> {
    /// That of `hold`.
    pub fn of(hold: &'a NewHold) -> Self {
        Self {
            server: &hold.server,
            method: &hold.method,
            tool: &hold.tool,
            tool_sha256: hold.tool_sha256,
            principal: &hold.principal,
            agent: &hold.agent,
            policy_sha256: hold.policy_sha256,
        }
    }

    /// Its digest: over its parts, each behind its length.
    pub fn digest(&self) -> Digest {
        let tool_sha256 = self.tool_sha256.map(|digest| digest.to_string()).unwrap_or_default();
        let policy_sha256 = self.policy_sha256.to_string();
        let parts =
            [self.server, self.method, self.tool, &tool_sha256, self.principal, self.agent, &policy_sha256];
        let text: String = parts.iter().map(|part| format!("{}:{part}\n", part.len())).collect();
        Digest::of(text.as_bytes())
    }
}

impl Statement {
    /// What `verdict` says of `frame` in this context. None: the frame cannot be read.
    pub fn about(
        request: HoldId,
        frame: &Frame,
        context: &Context<'_>,
        expires: Timestamp,
        verdict: Verdict,
        comment: Option<&str>,
    ) -> Option<Self> {
        let line = frame.line();
        let text = std::str::from_utf8(&line).ok()?;
        Some(Self {
            request,
            frame: frame.sha256(),
            call: call_sha256(frame)?,
            context: context.digest(),
            shown: shown_sha256(text),
            verdict,
            reason: Digest::of(comment.unwrap_or_default().as_bytes()),
            expires,
        })
    }

    /// Whether it says what `expected` says.
    ///
    /// # Errors
    ///
    /// With the first line that is another.
    pub fn agrees_with(&self, expected: &Self) -> Result<(), BadProof> {
        let lines = [
            ("request", self.request == expected.request),
            ("frame-sha256", self.frame == expected.frame),
            ("call-sha256", self.call == expected.call),
            ("ctx-sha256", self.context == expected.context),
            ("shown-sha256", self.shown == expected.shown),
            ("verdict", self.verdict == expected.verdict),
            ("reason-sha256", self.reason == expected.reason),
            ("expires", self.expires == expected.expires),
        ];
        match lines.iter().find(|(_, is_same)| !is_same) {
            Some((line, _)) => Err(BadProof::Other(line)),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Statement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { request, frame, call, context, shown, verdict, reason, expires } = self;
        let verdict = verdict_word(*verdict);
        writeln!(f, "{TITLE}\nrequest: {request}\nframe-sha256: {frame}\ncall-sha256: {call}")?;
        writeln!(f, "ctx-sha256: {context}\nshown-sha256: {shown}\nverdict: {verdict}")?;
        writeln!(f, "reason-sha256: {reason}\nexpires: {expires}")
    }
}

fn verdict_word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Approve => "approve",
        Verdict::Reject => "reject",
    }
}

/// A text that no statement is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoStatement;

impl FromStr for Statement {
    type Err = NoStatement;

    /// Reads what `Display` writes, and nothing that differs from it in a byte.
    fn from_str(text: &str) -> Result<Self, NoStatement> {
        let mut lines = text.lines();
        if lines.next() != Some(TITLE) {
            return Err(NoStatement);
        }
        let mut value = |name: &str| -> Result<&str, NoStatement> {
            let line = lines.next().and_then(|line| line.strip_prefix(name)?.strip_prefix(": "));
            line.ok_or(NoStatement)
        };
        let digest = |text: &str| Digest::from_hex(text).ok_or(NoStatement);
        let read = Self {
            request: value("request")?.parse().map_err(|_| NoStatement)?,
            frame: digest(value("frame-sha256")?)?,
            call: digest(value("call-sha256")?)?,
            context: digest(value("ctx-sha256")?)?,
            shown: digest(value("shown-sha256")?)?,
            verdict: match value("verdict")? {
                "approve" => Verdict::Approve,
                "reject" => Verdict::Reject,
                _ => return Err(NoStatement),
            },
            reason: digest(value("reason-sha256")?)?,
            expires: value("expires")?.parse().map_err(|_| NoStatement)?,
        };
        if read.to_string() == text { Ok(read) } else { Err(NoStatement) }
    }
}
