//! What an approval may say beyond yes: that it is to count for further calls, and that the call is to run with other arguments.
//!
//! A part of `hold`. Asked for by people, allowed by `policy`, put into effect by `gate` and kept by `store`. Pure: what the
//! time is, and who may say what, is told by the caller.

use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;

use super::{HoldId, NewHold, Proof, Same, Verdict};
use crate::digest::Digest;

/// What somebody says of a held call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// Yes or no.
    pub verdict: Verdict,
    /// For how long, in seconds, and for what else the yes is to count.
    pub remember: Option<(u64, Same)>,
    /// The arguments with which the call is to run instead of its own: one JSON object.
    pub arguments: Option<String>,
    /// The signed statement that says so; whoever has signed it is the approver.
    pub proof: Option<Proof>,
    /// The digest of what was shown to them of the held call, if it was shown whole ([`super::shown_sha256`]). Of a call with other
    /// arguments too: those they have written themselves.
    pub shown_sha256: Option<Digest>,
}

impl From<Verdict> for Said {
    fn from(verdict: Verdict) -> Self {
        Self { verdict, remember: None, arguments: None, proof: None, shown_sha256: None }
    }
}

/// What an approval brings with it into the record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Approval {
    /// It counts for further calls.
    pub remember: Option<Remembering>,
    /// The call runs with other arguments.
    pub edit: Option<Edit>,
}

/// For which further calls an approval is to count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remembering {
    /// How alike they have to be.
    pub same: Same,
    /// Until when.
    pub until: Timestamp,
    /// How many.
    pub uses_max: u32,
}

/// A call with the arguments that an approver has written, everything else as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edit {
    /// The whole frame, without a line terminator.
    pub frame: Bytes,
    /// SHA-256 of `frame`.
    pub frame_sha256: Digest,
}

/// An approval that counts for further calls, until its time or its uses are over or somebody takes it back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remembered {
    /// The hold that was approved; it is also the name of the remembered approval. One hold is approved once.
    pub of: HoldId,
    /// Whose calls: the server, the method, the tool and the principal of that hold.
    pub server: Arc<str>,
    /// The method.
    pub method: Arc<str>,
    /// The tool; empty for other methods than `tools/call`.
    pub tool: Arc<str>,
    /// Who asks.
    pub principal: Arc<str>,
    /// How alike they have to be.
    pub same: Same,
    /// The digest of what that call did.
    pub call_sha256: Option<Digest>,
    /// The digest of the tool's definition then.
    pub tool_sha256: Option<Digest>,
    /// The digest of what the rules wanted then.
    pub terms_sha256: Option<Digest>,
    /// Who approved: a principal such as `uid:1000(alice)`.
    pub by: String,
    /// The human behind it, where the policy said who that was.
    pub person: Option<String>,
    /// When.
    pub since: Timestamp,
    /// Until when it counts.
    pub until: Timestamp,
    /// How many calls it may cover.
    pub uses_max: u32,
    /// How many it has covered.
    pub uses: u32,
    /// When and by whom it was taken back.
    pub revoked: Option<(Timestamp, String)>,
}

impl Remembered {
    /// Whether it still counts at `at`. A clock that was set back makes it count no longer than before.
    pub fn counts(&self, at: Timestamp) -> bool {
        self.revoked.is_none() && self.uses < self.uses_max && self.since <= at && at < self.until
    }

    /// Whether `call` is one of those that it is for: of the same principal to the same tool of the same server, whose
    /// definition is what it was, held by rules that want what they wanted, and alike as far as was said.
    pub fn covers(&self, call: &NewHold) -> bool {
        let is_alike = match self.same {
            Same::Arguments => self.call_sha256.is_some() && self.call_sha256 == call.call_sha256,
            // What a condition could not judge, nobody has ever looked at: only the very same call is covered then.
            Same::Tool => !self.tool.is_empty() && call.notes.is_empty(),
        };
        is_alike
            && self.server == call.server
            && self.method == call.method
            && self.tool == call.tool
            && self.principal == call.principal
            && self.tool_sha256 == call.tool_sha256
            && self.terms_sha256.is_some()
            && self.terms_sha256 == call.terms_sha256
    }

    /// What has become of it at `at`, as one word.
    pub fn standing(&self, at: Timestamp) -> &'static str {
        match &self.revoked {
            Some(_) => "revoked",
            None if self.uses >= self.uses_max => "used up",
            None if self.counts(at) => "counts",
            None => "over",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remembered() -> Remembered {
        Remembered {
            of: HoldId([1; 16]),
            server: "billing".into(),
            method: "tools/call".into(),
            tool: "refund".into(),
            principal: "client-of:dev".into(),
            same: Same::Arguments,
            call_sha256: Some(Digest([1; 32])),
            tool_sha256: Some(Digest([2; 32])),
            terms_sha256: Some(Digest([3; 32])),
            by: "uid:1000(alice)".to_owned(),
            person: None,
            since: "2026-11-21T09:00:00Z".parse().unwrap(),
            until: "2026-11-21T09:15:00Z".parse().unwrap(),
            uses_max: 2,
            uses: 0,
            revoked: None,
        }
    }

    fn call() -> NewHold {
        let remembered = remembered();
        NewHold {
            id: HoldId([9; 16]),
            owner: "gate".into(),
            server: remembered.server,
            method: remembered.method,
            tool: remembered.tool,
            agent: "".into(),
            principal: remembered.principal,
            frame: Bytes::new(),
            frame_sha256: Digest([0; 32]),
            policy_sha256: Digest([0; 32]),
            call_sha256: remembered.call_sha256,
            tool_sha256: remembered.tool_sha256,
            terms_sha256: remembered.terms_sha256,
            quorum: None,
            rules: Vec::new(),
            reason: "".into(),
            notes: Vec::new(),
            created_at: remembered.since,
            expires_at: remembered.until,
        }
    }

    #[test]
    fn it_covers_what_was_said_and_nothing_that_differs_in_anything() {
        assert!(remembered().covers(&call()));
        let other = Some(Digest([7; 32]));
        for (why, call) in [
            ("another server", NewHold { server: "crm".into(), ..call() }),
            ("another method", NewHold { method: "resources/read".into(), ..call() }),
            ("another tool", NewHold { tool: "pay".into(), ..call() }),
            ("another principal", NewHold { principal: "client-of:eve".into(), ..call() }),
            ("another definition of the tool", NewHold { tool_sha256: other, ..call() }),
            ("a tool that was not listed", NewHold { tool_sha256: None, ..call() }),
            ("other rules", NewHold { terms_sha256: other, ..call() }),
        ] {
            assert!(!remembered().covers(&call), "{why}");
            assert!(!Remembered { same: Same::Tool, ..remembered() }.covers(&call), "{why}, whole tool");
        }
        let with_other_arguments = NewHold { call_sha256: other, ..call() };
        assert!(!remembered().covers(&with_other_arguments));
        let tool = Remembered { same: Same::Tool, ..remembered() };
        assert!(tool.covers(&with_other_arguments));
        let unjudged = NewHold { notes: vec!["no answer".to_owned()], ..with_other_arguments };
        assert!(!tool.covers(&unjudged), "arguments that a condition cannot judge");
        let method = Remembered { tool: "".into(), ..tool };
        assert!(!method.covers(&NewHold { tool: "".into(), ..call() }), "a method is not a tool");
        let unknown = Remembered { call_sha256: None, ..remembered() };
        assert!(
            !unknown.covers(&NewHold { call_sha256: None, ..call() }),
            "nothing is not the same as nothing"
        );
    }

    #[test]
    fn it_ends_by_time_by_uses_and_by_being_taken_back() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let (now, end) = (at("2026-11-21T09:10:00Z"), at("2026-11-21T09:15:00Z"));
        assert!(remembered().counts(now) && !remembered().counts(end));
        assert!(!remembered().counts(at("2026-11-21T08:59:59Z")), "a clock that was set back");
        assert!(Remembered { uses: 1, ..remembered() }.counts(now));
        let ends = [
            (Remembered { uses: 2, ..remembered() }, "used up"),
            (Remembered { revoked: Some((now, "uid:1".to_owned())), ..remembered() }, "revoked"),
            (Remembered { until: now, ..remembered() }, "over"),
        ];
        for (ended, word) in ends {
            assert_eq!((ended.counts(now), ended.standing(now)), (false, word));
        }
        assert_eq!(remembered().standing(now), "counts");
    }
}
