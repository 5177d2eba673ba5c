//! What a held call is: its id, what it needs, how people judge it and how it can end.
//!
//! Spoken by `policy` (which sets the terms), `store` (which keeps the record), `gate` (which moves a hold from state to
//! state) and the control socket. Pure words: nothing here waits, writes or decides.

mod approval;
mod proof;
mod standing;
mod terms;

use std::{fmt, str::FromStr, sync::Arc, time::Duration};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use self::approval::{Approval, Edit, Remembered, Remembering, Said};
pub use self::proof::{
    Assurance, BadProof, Context, NAMESPACE, NoStatement, Proof, STATEMENT_BYTES_MAX, Statement,
    check_recorded, shown_sha256,
};
pub use self::standing::{Arrival, NotDetached, Standing, State};
pub use self::terms::{Quorum, Remember, Requirement, SEAT_PEOPLE_MAX, Same, Seat, Step};
use crate::digest::Digest;

/// The alphabet of a written [`HoldId`]: Crockford's base 32 in lower case, which has no `i`, `l`, `o` and `u` to misread.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// Characters of a written [`HoldId`]: 128 bits at five bits a character.
pub const HOLD_ID_CHARS: usize = 26;

/// Characters of the short form that people see: 35 bits. Longer where two open holds begin alike.
pub const HOLD_ID_SHORT_CHARS: usize = 7;

/// The name of one held call: 128 random bits, so that it cannot be guessed; written as 26 characters of base 32 and
/// accepted from people as any prefix that is unique.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HoldId(pub [u8; 16]);

impl HoldId {
    /// A new id, from the system's random numbers. (Not from a cryptographic library: their generators gather entropy of
    /// their own first, which takes longer than everything else at the start of a program.)
    ///
    /// # Errors
    ///
    /// When the system has none.
    pub fn random() -> Result<Self, getrandom::Error> {
        let mut id = [0; 16];
        getrandom::fill(&mut id)?;
        Ok(Self(id))
    }

    /// The first [`HOLD_ID_SHORT_CHARS`] characters: enough to tell holds apart on one screen.
    pub fn short(&self) -> String {
        let mut text = self.to_string();
        text.truncate(HOLD_ID_SHORT_CHARS);
        text
    }
}

impl fmt::Display for HoldId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = u128::from_be_bytes(self.0);
        let mut text = [0; HOLD_ID_CHARS];
        for (position, letter) in text.iter_mut().enumerate() {
            // 26 characters carry 130 bits: the first one holds the three highest bits alone.
            let shift = 5 * (HOLD_ID_CHARS - 1 - position);
            let index = usize::try_from((number >> shift) & 31).map_err(|_| fmt::Error)?;
            *letter = ALPHABET[index];
        }
        f.write_str(std::str::from_utf8(&text).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for HoldId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is not a whole [`HoldId`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a hold id has {HOLD_ID_CHARS} characters of 0-9 and a-z without i, l, o and u")]
pub struct BadHoldId;

impl FromStr for HoldId {
    type Err = BadHoldId;

    fn from_str(text: &str) -> Result<Self, BadHoldId> {
        if text.len() != HOLD_ID_CHARS {
            return Err(BadHoldId);
        }
        let mut number: u128 = 0;
        for (position, byte) in text.bytes().enumerate() {
            let digit =
                ALPHABET.iter().position(|&letter| letter == byte.to_ascii_lowercase()).ok_or(BadHoldId)?;
            if position == 0 && digit > 7 {
                return Err(BadHoldId);
            }
            number = (number << 5) | u128::try_from(digit).map_err(|_| BadHoldId)?;
        }
        Ok(Self(number.to_be_bytes()))
    }
}

impl Serialize for HoldId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for HoldId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// What a rejected, expired or otherwise refused call looks like to the agent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnRejection {
    /// A tool result with `isError: true` and the reason as text: every client shows it to its model, which adapts.
    #[default]
    Continue,
    /// A JSON-RPC error: the call fails in the client.
    Fail,
}

/// What a held call needs before it may run, as the matching rules say together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HoldTerms {
    /// How long people have; the shortest of the matching rules.
    pub timeout: Duration,
    /// What the agent may be told while it waits; never an argument of the call.
    pub hold_message: Option<Arc<str>>,
    /// How a refusal is told to the client; [`OnRejection::Fail`] if any matching rule says so.
    pub on_rejection: OnRejection,
    /// What each of the matching rules asks for; none where one person is enough for all of them.
    pub requirements: Vec<Requirement>,
    /// How many different people it takes to reject; the fewest of the matching rules, at least 1.
    pub required_rejections: u32,
    /// How often whoever may decide is reminded.
    pub remind: Option<Duration>,
    /// The channels that hear of it; the union of what the matching rules name.
    pub notify: Vec<Box<str>>,
    /// How an approval may be remembered, if all matching rules allow it.
    pub remember: Option<Remember>,
    /// Whether whoever approves may change the arguments, if all matching rules allow it.
    pub may_edit: bool,
    /// How long an approval counts that no caller was there for; the shortest of the matching rules.
    pub grant: Option<Duration>,
    /// Whether the agent's own client may ask its user, if all matching rules allow it.
    pub may_elicit: bool,
}

impl HoldTerms {
    /// All channels that are named, at once or for later.
    pub fn channels(&self) -> impl Iterator<Item = &str> {
        let steps = self.requirements.iter().flat_map(|requirement| &requirement.steps);
        self.notify.iter().chain(steps.flat_map(|step| &step.notify)).map(|name| &**name)
    }

    /// The digest of all that these terms say, under `rules`. Only ever compared for equality, by programs of one version or
    /// others: where the form of the terms has changed, an approval under the old one does not count.
    pub fn digest(&self, rules: &[Arc<str>]) -> Digest {
        Digest::of(format!("{rules:?} {self:?}").as_bytes())
    }
}

impl Default for HoldTerms {
    /// What a rule that says nothing of it means: half an hour, and a reason that the agent reads.
    fn default() -> Self {
        Self {
            timeout: HOLD_TIMEOUT_DEFAULT,
            hold_message: None,
            on_rejection: OnRejection::Continue,
            requirements: Vec::new(),
            required_rejections: 1,
            remind: None,
            notify: Vec::new(),
            remember: None,
            may_edit: false,
            grant: None,
            may_elicit: false,
        }
    }
}

/// The longest name of a channel, in characters.
pub const CHANNEL_NAME_CHARS_MAX: usize = 40;

/// Whether a channel can be called so: letters, digits, `-` and `_`, as in a path.
pub fn is_channel_name(name: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    !name.is_empty() && name.len() <= CHANNEL_NAME_CHARS_MAX && name.bytes().all(is_plain)
}

/// How long people have where no rule says.
pub const HOLD_TIMEOUT_DEFAULT: Duration = Duration::from_secs(30 * 60);

/// What a person says about a held call. (Allow and deny are the policy's words.)
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// The call may run, exactly as it was shown.
    Approve,
    /// The call must not run.
    Reject,
}

/// One person's verdict, as it is recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vote {
    /// What was said.
    pub verdict: Verdict,
    /// Who said it: a principal such as `uid:1000(alice)`.
    pub by: String,
    /// The comment of an approval or the reason of a rejection, at most [`COMMENT_CHARS_MAX`] characters.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub comment: Option<String>,
    /// When.
    pub at: Timestamp,
    /// The human behind it, where the policy says who that is: of all their identities, one vote.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub person: Option<String>,
    /// How far it can be trusted; none in records of older versions.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub assurance: Option<Assurance>,
    /// The signed statement, if it was signed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub proof: Option<Proof>,
    /// The digest of what was shown to whoever said it ([`shown_sha256`]), by the word of what showed it; none if that was not the
    /// whole call, in records of older versions, and where the signed statement has it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub shown_sha256: Option<Digest>,
}

impl Vote {
    /// What `by` says at `at`, and nothing more.
    pub fn new(verdict: Verdict, by: String, comment: Option<String>, at: Timestamp) -> Self {
        Self { verdict, by, comment, at, person: None, assurance: None, proof: None, shown_sha256: None }
    }
}

/// A comment or a reason as it is kept, and signed: without space around it, whole, or cut with a mark. None if it says nothing.
pub fn kept_comment(comment: Option<&str>) -> Option<String> {
    let comment = comment.map(str::trim).filter(|text| !text.is_empty())?;
    Some(match comment.char_indices().nth(COMMENT_CHARS_MAX) {
        Some((end, _)) => format!("{}… (cut)", &comment[..end]),
        None => comment.to_owned(),
    })
}

/// The longest comment or reason that is kept and passed on; a longer one is cut, with a mark.
pub const COMMENT_CHARS_MAX: usize = 500;

/// Why a held call did not run. Told apart towards the agent as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cause {
    /// A person said no.
    Rejected,
    /// Nobody answered in time.
    Expired,
    /// The client took the call back, or went away.
    Withdrawn,
    /// The gate could not keep its promises (the record could not be written, a limit was reached).
    Unavailable,
}

/// Why a held call was taken back without anybody having decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Withdrawal {
    /// The client cancelled it (`notifications/cancelled`).
    Cancelled,
    /// The client is gone.
    ClientGone,
    /// The server is gone.
    ServerGone,
    /// This process was told to stop.
    Stopping,
    /// It was approved under rules that are no longer in force.
    RulesChanged,
}

impl Withdrawal {
    /// The words in the record.
    pub fn note(self) -> &'static str {
        match self {
            Self::Cancelled => "the client cancelled the call",
            Self::ClientGone => "the client has gone",
            Self::ServerGone => "the server has gone",
            Self::Stopping => "the gate was stopped",
            Self::RulesChanged => "the rules for it, or its tool, have changed since it was approved",
        }
    }

    /// Whether somebody is there who expects an answer. A client that cancelled expects none (MCP, "Cancellation").
    pub fn is_told(self) -> bool {
        matches!(self, Self::ServerGone | Self::Stopping | Self::RulesChanged)
    }
}

/// Why nobody waits for a held call any more, though nobody has taken it back: people can still decide on it, and the same
/// call, made again, finds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Absence {
    /// The client is gone.
    ClientGone,
    /// The server is gone, so that nothing could be sent.
    ServerGone,
    /// This process was told to stop.
    Stopping,
    /// The client would soon give up by itself.
    Patience,
    /// The same client has made the same call again, and that one waits now.
    MadeAgain,
    /// The client asks for the result later: the call is a task.
    Task,
    /// Another process has taken the hold over, because it took this one for dead.
    TakenOver,
}

impl Absence {
    /// The words in the record.
    pub fn note(self) -> &'static str {
        match self {
            Self::ClientGone => "the client has gone",
            Self::ServerGone => "the server has gone",
            Self::Stopping => "the gate was stopped",
            Self::Patience => "the client's patience was about to end",
            Self::MadeAgain => "the client has made the same call again",
            Self::Task => "the client asks for the result later",
            Self::TakenOver => "another gate has taken it over",
        }
    }
}

/// How a hold ended for the call itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The call goes on to the server.
    Resume,
    /// The call does not run.
    Refuse(Cause),
}

/// All that is recorded of a held call when it is first held. Everything in it is durable before anyone is asked.
#[derive(Clone, Debug)]
pub struct NewHold {
    /// Its id.
    pub id: HoldId,
    /// The process at which it was held first (a gate's random instance id).
    pub owner: Arc<str>,
    /// The server's name.
    pub server: Arc<str>,
    /// The method of the held request, nearly always `tools/call`.
    pub method: Arc<str>,
    /// The tool; empty for other methods.
    pub tool: Arc<str>,
    /// What the client says of itself (`name version`): untrusted, shown as such.
    pub agent: Arc<str>,
    /// Who asks, as far as the gate knows.
    pub principal: Arc<str>,
    /// The exact bytes that were received, without their line terminator; what is hashed, shown and sent.
    pub frame: bytes::Bytes,
    /// SHA-256 of `frame`.
    pub frame_sha256: Digest,
    /// The policy that held it.
    pub policy_sha256: Digest,
    /// The digest of what the call does, however it is written: a retry has the same. None in records of older versions.
    pub call_sha256: Option<Digest>,
    /// The digest of the tool's definition, where the server has told it.
    pub tool_sha256: Option<Digest>,
    /// The digest of what the rules want: an approval counts only where they still want the same.
    pub terms_sha256: Option<Digest>,
    /// Who has to say yes; none where one person is enough.
    pub quorum: Option<Arc<Quorum>>,
    /// The names of the rules that held it.
    pub rules: Vec<Arc<str>>,
    /// Why it is held, in the policy author's words.
    pub reason: Arc<str>,
    /// Errors in conditions and other things an approver should know.
    pub notes: Vec<String>,
    /// When it was held.
    pub created_at: Timestamp,
    /// When it expires unless decided.
    pub expires_at: Timestamp,
}

/// Where a hold stands in lists: by its age, and of several of one moment by their ids.
pub type Place = (Timestamp, HoldId);

impl NewHold {
    /// Its place in lists, the oldest first.
    pub fn place(&self) -> Place {
        (self.created_at, self.id)
    }

    /// The digest of what is shown of it to whoever decides.
    pub fn shown(&self) -> Option<Digest> {
        std::str::from_utf8(&self.frame).ok().map(shown_sha256)
    }
}

/// A hold as the store knows it.
#[derive(Clone, Debug)]
pub struct HoldRecord {
    /// What was recorded first.
    pub hold: NewHold,
    /// Where it stands.
    pub state: State,
    /// The verdicts so far.
    pub votes: Vec<Vote>,
    /// When it reached a final state (or `Forwarding`).
    pub ended_at: Option<Timestamp>,
    /// What is known beyond the state: why it was withdrawn, why it is unknown.
    pub note: Option<String>,
    /// The process that has the caller now, or has sent the call; none: it is detached.
    pub holder: Option<Arc<str>>,
    /// When a grant, or the memory of a rejection that nobody has heard, ends.
    pub lapses_at: Option<Timestamp>,
    /// Whether a caller that makes the call again finds it.
    pub is_awaited: bool,
    /// What the approver has made of the call, if it was changed.
    pub edit: Option<Edit>,
}

impl HoldRecord {
    /// A hold whose caller is at `holder`, as it is when it was recorded just now.
    pub fn held(hold: NewHold, holder: Arc<str>) -> Self {
        Self {
            hold,
            state: State::Held,
            votes: Vec::new(),
            ended_at: None,
            note: None,
            holder: Some(holder),
            lapses_at: None,
            is_awaited: true,
            edit: None,
        }
    }

    /// What its moves depend on.
    pub fn standing(&self) -> Standing {
        Standing {
            state: self.state,
            holder: self.holder.clone(),
            since: self.hold.created_at,
            expires_at: self.hold.expires_at,
            lapses_at: self.lapses_at,
            is_awaited: self.is_awaited,
        }
    }

    /// Moves it to `standing`.
    pub fn stand(&mut self, standing: Standing) {
        let Standing { state, holder, since: _, expires_at: _, lapses_at, is_awaited } = standing;
        (self.state, self.holder, self.lapses_at, self.is_awaited) = (state, holder, lapses_at, is_awaited);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_of_ten_mebibytes_is_kept_in_so_many_characters_and_with_a_mark() {
        let kept = kept_comment(Some(&"é".repeat(5 << 20))).unwrap();
        assert_eq!(kept, format!("{}… (cut)", "é".repeat(COMMENT_CHARS_MAX)));
        let whole = "é".repeat(COMMENT_CHARS_MAX);
        assert_eq!(kept_comment(Some(&format!("  {whole}\n"))), Some(whole));
        assert_eq!((kept_comment(Some(" \n")), kept_comment(None)), (None, None));
    }

    #[test]
    fn a_vote_of_a_record_that_knows_nothing_of_what_was_shown_reads_back_as_it_was() {
        let text = r#"{"verdict":"approve","by":"uid:alice","at":"2026-11-21T10:00:59Z","assurance":"L0"}"#;
        let mut vote: Vote = serde_json::from_str(text).unwrap();
        assert_eq!(vote.shown_sha256, None);
        assert_eq!(serde_json::to_string(&vote).unwrap(), text);
        vote.shown_sha256 = Some(shown_sha256("{}"));
        let text = serde_json::to_string(&vote).unwrap();
        assert_eq!(serde_json::from_str::<Vote>(&text).unwrap(), vote);
        let cut = text.replace("\"}", "0\"}");
        assert!(serde_json::from_str::<Vote>(&cut).is_err(), "no digest: {cut}");
    }

    #[test]
    fn an_id_reads_back_and_nothing_else_does() {
        for id in [HoldId([0; 16]), HoldId([255; 16]), HoldId(*b"0123456789abcdef")] {
            assert_eq!(id.to_string().len(), HOLD_ID_CHARS);
            assert_eq!(id.to_string().parse(), Ok(id));
            assert_eq!(id.to_string().to_ascii_uppercase().parse(), Ok(id));
            assert!(id.to_string().starts_with(&id.short()));
        }
        for bad in [
            "",
            "0",
            "8zzzzzzzzzzzzzzzzzzzzzzzzz",
            "il000000000000000000000000",
            "0000000000000000000000000é",
        ] {
            assert_eq!(bad.parse::<HoldId>(), Err(BadHoldId), "{bad}");
        }
    }
}
