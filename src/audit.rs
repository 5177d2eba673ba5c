//! The audit log as words: one event, the line it is written as, the chain that links the lines, checkpoints, and what a
//! verification found.
//!
//! Used by `store`, which keeps the lines, and by whoever reads them (`audit tail|verify|export`). Nothing here reads or
//! writes a file or asks for the time. An event carries digests of a call and not its arguments,
//! which are in the record of the hold; only where a policy's mode says to watch, there is no such record, and they are here.

use std::{fmt, str::FromStr};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    digest::Digest,
    hold::{Edit, HoldId, HoldRecord, NewHold, Quorum, Remembered, State, Verdict, Vote},
};

/// What the first line of a chain is linked to.
pub const GENESIS: Digest = Digest([0; 32]);

/// What no verification of this log can show, for whoever reads a clean result.
pub const CANNOT_PROVE: &str = "\
The chain shows every change that was not followed by rewriting all later lines. It cannot show what someone did who can \
write the file: such a person can rewrite the whole chain, or cut its end together with the holds of that end. Only a \
checkpoint that was kept elsewhere shows that (verify against it). The log has no signature, and times are those of the \
clock of the machine that wrote them.";

/// Something that happened beside the states of a hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Occasion {
    /// A gate began to serve.
    GateStarted,
    /// A gate ended in an orderly way.
    GateStopped,
    /// A policy came into force; `policy_sha256` says which.
    PolicyLoaded,
    /// A changed policy was not taken, and the last good one stays; `reason` says why.
    PolicyRefused,
    /// The configuration was read again and counts from now on; `note` has its digest.
    ConfigurationLoaded,
    /// A changed configuration was not taken, and everything stays as it was.
    ConfigurationRefused,
    /// A rule let a call pass.
    Allowed,
    /// A rule denied a call.
    Denied,
    /// A frame was refused before any rule was asked, or a limit was reached.
    Refused,
    /// A rule would have held or denied a call, and the mode says only to note it.
    WouldHave,
    /// Someone has voted on a hold, and more people are needed; `votes` are all so far.
    Voted,
    /// Time brings others in to decide on a hold, or reminds those who may; `note` says whom.
    Escalated,
    /// Someone tried to decide a hold and was not allowed to, or was too late.
    VerdictRefused,
    /// The caller of a held call has gone; people can still decide on it. `note` says why it went.
    Detached,
    /// The same call was made again and waits for, or redeems, what people decide on the first; `frame_sha256` is its own.
    Attached,
    /// A call made again has heard the rejection that nobody was there to hear.
    RejectionTold,
    /// A call made again was refused, because nobody knows whether the first one ran.
    RetryRefused,
    /// An approver has written other arguments into a call; `frame_sha256` is that of the call as it is then.
    Edited,
    /// An approval is to count for further calls, until `expires_at`; `note` says for which and for how many.
    Remembered,
    /// A held call goes on under the approval of another hold (`remembered`), and nobody is asked; `note` says for the how
    /// manieth time.
    RememberedUsed,
    /// An approval no longer counts for further calls.
    RememberedRevoked,
    /// A server has listed a tool for the first time; `tool_sha256` is the digest of its definition, which counts from now on.
    ToolListed,
    /// A server lists a tool with another definition than the one that counts; calls of the tool are held from now on.
    ToolChanged,
    /// Someone has accepted a definition of a tool, which counts from now on; `note` says which one counted before.
    ToolAccepted,
    /// More calls of a server were held within a minute than people can look at; `note` says how many. The hold is the last of them.
    Burst,
    /// Events were lost, because too many waited or the disk failed; `note` says how many.
    EventsDropped,
}

/// What an event tells: the state that a hold entered, or something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(untagged)]
pub enum EventKind {
    /// A hold entered this state. Only the store writes these, in the transaction that changes the hold.
    State(State),
    /// Anything else.
    Occasion(Occasion),
}

/// One event of the log. Empty members are left out of its line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEvent {
    /// Its place in the log, from 1, without gaps. Set by the store.
    pub seq: u64,
    /// When it happened, by the clock of the machine.
    pub at: Timestamp,
    /// The gate (a process' random instance id) it happened at; for a hold, the gate that has the caller.
    pub gate: String,
    /// What happened.
    pub kind: EventKind,
    /// The hold it is about.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub hold: Option<HoldId>,
    /// Who caused it: who asks, for a held or denied call; the last who voted, for a decided one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub who: Option<String>,
    /// The server's name.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub server: Option<String>,
    /// The method.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub method: Option<String>,
    /// The tool.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub tool: Option<String>,
    /// What the client says of itself.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub agent: Option<String>,
    /// SHA-256 of the frame, without its line terminator.
    #[serde(skip_serializing_if = "Option::is_none", default, with = "hex_option")]
    pub frame_sha256: Option<Digest>,
    /// The digest of what the call does, however it is written.
    #[serde(skip_serializing_if = "Option::is_none", default, with = "hex_option")]
    pub call_sha256: Option<Digest>,
    /// The digest of the tool's definition.
    #[serde(skip_serializing_if = "Option::is_none", default, with = "hex_option")]
    pub tool_sha256: Option<Digest>,
    /// The digest of what the rules want.
    #[serde(skip_serializing_if = "Option::is_none", default, with = "hex_option")]
    pub terms_sha256: Option<Digest>,
    /// SHA-256 of the policy that judged.
    #[serde(skip_serializing_if = "Option::is_none", default, with = "hex_option")]
    pub policy_sha256: Option<Digest>,
    /// Who has to say yes, where one person is not enough.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub quorum: Option<Quorum>,
    /// The hold whose remembered approval was used.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub remembered: Option<HoldId>,
    /// The names of the rules that decided.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub rules: Vec<String>,
    /// Why, in the words of the policy's author or of the gate.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub reason: Option<String>,
    /// Errors in conditions and other things an approver was told.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub notes: Vec<String>,
    /// When the hold expires unless decided; when a grant or the memory of a rejection ends.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub expires_at: Option<Timestamp>,
    /// The arguments of a call that a mode let run; only there, and only if they are short. Those of a held call are in the
    /// record of the hold.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub arguments: Option<String>,
    /// All verdicts on the hold so far, with their comments.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub votes: Vec<Vote>,
    /// What is known beyond the kind.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub note: Option<String>,
    /// The hash of the line before; [`GENESIS`] for the first. Set by the store.
    #[serde(with = "hex")]
    pub prev: Digest,
}

impl AuditEvent {
    /// An event beside the states of holds; the caller fills in what it knows. `seq` and `prev` are the store's to set.
    pub fn new(occasion: Occasion, gate: &str, at: Timestamp) -> Self {
        Self::blank(EventKind::Occasion(occasion), gate, at)
    }

    /// The event with which the record of a hold begins.
    ///
    /// INVARIANT: a function of `hold` alone, because a verification builds it again from the stored row and compares. A
    /// new member is filled in only for holds that say so, or every older record would no longer verify. The same holds
    /// for [`AuditEvent::moved`].
    pub fn held(hold: &NewHold) -> Self {
        Self {
            agent: Some(hold.agent.to_string()),
            who: Some(hold.principal.to_string()),
            call_sha256: hold.call_sha256,
            tool_sha256: hold.tool_sha256,
            terms_sha256: hold.terms_sha256,
            policy_sha256: Some(hold.policy_sha256),
            quorum: hold.quorum.as_deref().cloned(),
            rules: hold.rules.iter().map(ToString::to_string).collect(),
            reason: Some(hold.reason.to_string()),
            notes: hold.notes.clone(),
            expires_at: Some(hold.expires_at),
            ..Self::of_hold(State::Held, hold, hold.created_at)
        }
    }

    /// The event of a hold's move to the state of `record`, with all votes on it so far. What it says of the call is what
    /// `held` said.
    pub fn moved(record: &HoldRecord, at: Timestamp) -> Self {
        let HoldRecord { hold, state, votes, note, lapses_at, .. } = record;
        Self {
            who: votes.last().map(|vote| vote.by.clone()),
            votes: votes.clone(),
            note: note.clone(),
            expires_at: lapses_at.filter(|_| matches!(state, State::Granted | State::Rejected)),
            ..Self::of_hold(*state, hold, at)
        }
    }

    /// Something that happened to a hold, beside its states, at the process `gate`.
    pub fn of(occasion: Occasion, hold: &NewHold, gate: &str, at: Timestamp) -> Self {
        Self {
            kind: EventKind::Occasion(occasion),
            gate: gate.to_owned(),
            ..Self::of_hold(State::Held, hold, at)
        }
    }

    /// The event with which the record of an edited call begins.
    pub fn edited(hold: &NewHold, vote: &Vote, edit: &Edit) -> Self {
        Self {
            who: Some(vote.by.clone()),
            frame_sha256: Some(edit.frame_sha256),
            ..Self::of(Occasion::Edited, hold, &hold.owner, vote.at)
        }
    }

    /// The event with which an approval of a hold of `gate` begins to count for further calls.
    ///
    /// INVARIANT: a function of what never changes of it, because a verification builds it again from the stored row.
    pub fn remembered(remembered: &Remembered, gate: &str) -> Self {
        let Remembered { by, person, since, same, uses_max, .. } = remembered;
        let vote = Vote { person: person.clone(), ..Vote::new(Verdict::Approve, by.clone(), None, *since) };
        Self {
            hold: Some(remembered.of),
            who: Some(by.clone()),
            server: Some(remembered.server.to_string()),
            method: Some(remembered.method.to_string()),
            tool: Some(remembered.tool.to_string()),
            call_sha256: remembered.call_sha256,
            tool_sha256: remembered.tool_sha256,
            terms_sha256: remembered.terms_sha256,
            expires_at: Some(remembered.until),
            votes: vec![vote],
            note: Some(format!("for the same {}, {uses_max} times at most", same.word())),
            ..Self::new(Occasion::Remembered, gate, *since)
        }
    }

    fn of_hold(state: State, hold: &NewHold, at: Timestamp) -> Self {
        Self {
            hold: Some(hold.id),
            server: Some(hold.server.to_string()),
            method: Some(hold.method.to_string()),
            tool: Some(hold.tool.to_string()),
            frame_sha256: Some(hold.frame_sha256),
            ..Self::blank(EventKind::State(state), &hold.owner, at)
        }
    }

    fn blank(kind: EventKind, gate: &str, at: Timestamp) -> Self {
        Self {
            seq: 0,
            at,
            gate: gate.to_owned(),
            kind,
            hold: None,
            who: None,
            server: None,
            method: None,
            tool: None,
            agent: None,
            frame_sha256: None,
            call_sha256: None,
            tool_sha256: None,
            terms_sha256: None,
            policy_sha256: None,
            quorum: None,
            remembered: None,
            rules: Vec::new(),
            reason: None,
            notes: Vec::new(),
            expires_at: None,
            arguments: None,
            votes: Vec::new(),
            note: None,
            prev: GENESIS,
        }
    }
}

/// One line of the log as it is stored: the exact text that was hashed, so that nobody has to write it again to check it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditLine {
    /// Its place, from 1.
    pub seq: u64,
    /// The event as one line of JSON, without a line terminator.
    pub line: String,
    /// SHA-256 over the hash of the line before and the bytes of this one.
    pub hash: Digest,
}

impl AuditLine {
    /// Reads the event. Members that a later version added are ignored.
    pub fn event(&self) -> Result<AuditEvent, serde_json::Error> {
        serde_json::from_str(&self.line)
    }
}

/// Where the log ends: the number and the hash of its last line. Written down elsewhere, it shows later whether the log
/// up to there is still the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The number of the last line; 0 for an empty log.
    pub seq: u64,
    /// Its hash; [`GENESIS`] for an empty log.
    pub hash: Digest,
}

impl Checkpoint {
    /// The end of an empty log.
    pub const EMPTY: Self = Self { seq: 0, hash: GENESIS };

    /// Appends `event`: sets its number and its link, and gives the line and moves the end of the log behind it.
    pub fn append(&mut self, mut event: AuditEvent) -> Result<AuditLine, serde_json::Error> {
        event.seq = self.seq + 1;
        event.prev = self.hash;
        let line = serde_json::to_string(&event)?;
        let hash = link(self.hash, &line);
        *self = Self { seq: event.seq, hash };
        Ok(AuditLine { seq: event.seq, line, hash })
    }
}

/// The hash of `line` when `prev` is the hash of the line before it.
pub fn link(prev: Digest, line: &str) -> Digest {
    Digest::of_parts(&[&prev.0, line.as_bytes()])
}

/// The first word of a written [`Checkpoint`]: what it is, and the version of its form.
const CHECKPOINT_WORD: &str = "holdshort-audit/1";

impl fmt::Display for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{CHECKPOINT_WORD} {} {}", self.seq, self.hash)
    }
}

/// A text that is not a [`Checkpoint`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a checkpoint is one line: `{CHECKPOINT_WORD}`, a number and 64 hexadecimal digits")]
pub struct BadCheckpoint;

impl FromStr for Checkpoint {
    type Err = BadCheckpoint;

    fn from_str(text: &str) -> Result<Self, BadCheckpoint> {
        let mut words = text.split_ascii_whitespace();
        let (Some(CHECKPOINT_WORD), Some(seq), Some(hash), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(BadCheckpoint);
        };
        let seq = seq.parse().map_err(|_| BadCheckpoint)?;
        let hash = Digest::from_hex(hash).ok_or(BadCheckpoint)?;
        Ok(Self { seq, hash })
    }
}

/// What a verification found. It reads everything up to the first break.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verification {
    /// Lines read and found right.
    pub events: u64,
    /// Holds whose record begins in those lines.
    pub holds: u64,
    /// Where the log ends, as far as it is right. A checkpoint to keep, if nothing is broken.
    pub head: Checkpoint,
    /// The first thing that is wrong, if anything is.
    pub broken: Option<Break>,
}

impl Verification {
    /// Whether nothing is wrong, within what [`CANNOT_PROVE`] leaves.
    pub fn is_sound(&self) -> bool {
        self.broken.is_none()
    }
}

/// Where a verification failed, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Break {
    /// The number of the line at which it shows.
    pub seq: u64,
    /// What is wrong.
    pub fault: Fault,
}

impl fmt::Display for Break {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.seq, self.fault)
    }
}

/// What can be wrong with a log and its holds.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// A number is missing, or one is out of order.
    #[error("the next line is numbered {found}: lines are missing")]
    Gap {
        /// The number that came instead.
        found: i64,
    },
    /// The stored row has a value of another type than the log writes.
    #[error("the row cannot be read")]
    Unreadable,
    /// The hash is not that of the line before and this line: one of the two was changed.
    #[error("the hash is not that of the line and the line before it")]
    Hash,
    /// The line is not an event.
    #[error("the line is not an event of this log")]
    NotAnEvent,
    /// The line names another number or another predecessor than its place.
    #[error("the line says another place in the chain than it has")]
    Misplaced,
    /// An event of a hold that has no record, or whose record begins elsewhere.
    #[error("hold {0} has no record that belongs to this event")]
    NoHold(HoldId),
    /// An event that does not follow from the one before of the same hold.
    #[error("hold {0} cannot have come into this state")]
    Order(HoldId),
    /// The stored frame does not hash to the digest of the `held` event.
    #[error("hold {0} has another frame than the one that was held")]
    Frame(HoldId),
    /// The record of the hold differs from its `held` event.
    #[error("the record of hold {0} is not what was recorded when it was held")]
    Record(HoldId),
    /// State, votes, note or time differ from the last event.
    #[error("the state or the votes of hold {0} are not those of its last event")]
    Outcome(HoldId),
    /// A vote that was signed, and whose signature is missing, is none, or is about something else.
    #[error("a signed vote on hold {hold} is not what was signed: {why}")]
    Signature {
        /// The hold.
        hold: HoldId,
        /// What is wrong with it.
        why: String,
    },
    /// A remembered approval, its uses or its end are not what the events say.
    #[error("the remembered approval of hold {0} is not what its events say")]
    Remembered(HoldId),
    /// What counts as the definition of a tool, or the text that is kept of it, is not what the events say.
    #[error("the definition of the tool {1:?} of {0:?} is not what its events say")]
    Tool(String, String),
    /// Holds, or what belongs to them, that no event tells of.
    #[error("{0} hold(s) have no event")]
    NoEvent(u64),
    /// The log ends before the checkpoint: its end was cut, or the checkpoint is of another log.
    #[error("the log ends before the checkpoint at line {0}")]
    Truncated(u64),
    /// The line of the checkpoint has another hash: the log was rewritten, or the checkpoint is of another log.
    #[error(
        "the line is not the one of the checkpoint: the log was rewritten, or the checkpoint is of another"
    )]
    Rewritten,
}

/// A [`Digest`] as hexadecimal text in JSON.
mod hex {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    use crate::digest::Digest;

    pub(super) fn serialize<S: Serializer>(digest: &Digest, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(digest)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Digest, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Digest::from_hex(&text).ok_or_else(|| D::Error::custom("not a SHA-256 digest"))
    }
}

/// The same for a member that may be absent.
mod hex_option {
    use serde::{Deserializer, Serializer};

    use crate::digest::Digest;

    pub(super) fn serialize<S: Serializer>(
        digest: &Option<Digest>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match digest {
            Some(digest) => serializer.collect_str(digest),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Digest>, D::Error> {
        super::hex::deserialize(deserializer).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hold() -> NewHold {
        NewHold {
            id: HoldId([0; 16]),
            owner: "gate-1".into(),
            server: "billing".into(),
            method: "tools/call".into(),
            tool: "send_refund".into(),
            agent: "agent 1.0".into(),
            principal: "uid:1000(dev)".into(),
            frame: bytes::Bytes::from_static(b"{\"secret\":1}"),
            frame_sha256: Digest([0xaa; 32]),
            policy_sha256: Digest([0xbb; 32]),
            call_sha256: None,
            tool_sha256: None,
            terms_sha256: None,
            quorum: None,
            rules: vec!["refunds".into()],
            reason: "Refunds need a \"person\".".into(),
            notes: Vec::new(),
            created_at: "2026-11-21T09:00:00.000000001Z".parse().unwrap(),
            expires_at: "2026-11-21T09:05:00Z".parse().unwrap(),
        }
    }

    #[test]
    fn a_line_is_json_without_empty_members_and_without_the_call() {
        let mut head = Checkpoint::EMPTY;
        let first = head.append(AuditEvent::held(&hold())).unwrap();
        // The form is a contract: every line that was ever written has to be read.
        let expected = concat!(
            r#"{"seq":1,"at":"2026-11-21T09:00:00.000000001Z","gate":"gate-1","kind":"held","#,
            r#""hold":"00000000000000000000000000","who":"uid:1000(dev)","server":"billing","#,
            r#""method":"tools/call","tool":"send_refund","agent":"agent 1.0","#,
            r#""frame_sha256":"AA","policy_sha256":"BB","rules":["refunds"],"#,
            r#""reason":"Refunds need a \"person\".","expires_at":"2026-11-21T09:05:00Z","prev":"00"}"#
        );
        let expected = expected
            .replace("\"AA\"", &format!("\"{}\"", "aa".repeat(32)))
            .replace("\"BB\"", &format!("\"{}\"", "bb".repeat(32)))
            .replace("\"00\"", &format!("\"{}\"", "00".repeat(32)));
        assert_eq!(first.line, expected);
        assert_eq!(first.event().unwrap(), AuditEvent { seq: 1, ..AuditEvent::held(&hold()) });

        let stopped = AuditEvent::new(Occasion::GateStopped, "gate-1", hold().expires_at);
        let second = head.append(stopped).unwrap();
        let expected = format!(
            r#"{{"seq":2,"at":"2026-11-21T09:05:00Z","gate":"gate-1","kind":"gate_stopped","prev":"{}"}}"#,
            first.hash
        );
        assert_eq!(second.line, expected);
        assert_eq!(second.hash, link(first.hash, &expected));
        assert_eq!(head, Checkpoint { seq: 2, hash: second.hash });
    }

    #[test]
    fn a_checkpoint_reads_back_and_nothing_else_does() {
        let checkpoint = Checkpoint { seq: 1042, hash: Digest::of(b"abc") };
        let text = checkpoint.to_string();
        assert!(!text.contains('\n'));
        assert_eq!(format!(" {text}\n").parse(), Ok(checkpoint));
        for bad in [
            "",
            &text[1..],
            &text[..text.len() - 1],
            &format!("{text} more"),
            &text.replace("1042", "-1"),
            &text.replace("/1", "/2"),
        ] {
            assert_eq!(bad.parse::<Checkpoint>(), Err(BadCheckpoint), "{bad}");
        }
    }
}
