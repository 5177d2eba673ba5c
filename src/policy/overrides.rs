//! Approval by an edit of the policy: calls that whoever writes the policy lets through although a rule holds them.
//!
//! Read by `document`, asked by the gate for each call that is held. An override names one hold, or one call by its digest, and
//! ends by itself. It never lifts a `deny`, and stands in for people whom the rules ask for only if it says so.

use std::str::FromStr;

use jiff::Timestamp;

use super::{
    document::{Reader, start_of},
    yaml::Node,
};
use crate::{digest::Digest, hold::HoldId};

/// The most overrides of one policy.
pub(super) const OVERRIDES_MAX: usize = 1_000;

pub(super) const OVERRIDE_KEYS: [&str; 5] = ["hold", "call", "until", "reason", "danger_skip_approvals"];

/// Characters of the reason for an override.
const REASON_CHARS_MAX: usize = 500;

/// One call that is let through for a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Override {
    /// Which call.
    pub of: Overridden,
    /// When it ends.
    pub until: Timestamp,
    /// Why, in the words of whoever wrote it; it goes on record.
    pub reason: String,
    /// Whether it counts for calls for which the rules ask for certain people, or for several, too.
    pub skips_approvals: bool,
}

/// What an override names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overridden {
    /// The call of this hold.
    Hold(HoldId),
    /// Calls with this digest (`call_sha256`).
    Call(Digest),
}

impl Reader<'_> {
    /// `overrides:`.
    pub(super) fn overrides(&mut self, node: &Node) -> Vec<Override> {
        let items = self.items(node, "overrides", OVERRIDES_MAX);
        items.iter().filter_map(|item| self.one_override(item)).collect()
    }

    fn one_override(&mut self, node: &Node) -> Option<Override> {
        let mut keys = self.mapping(node, "an override", &OVERRIDE_KEYS)?;
        let (hold, call) = (keys.take("hold"), keys.take("call"));
        let hint =
            "write `hold:` with the whole id from `holdshort show --json`, or `call:` with its `call_sha256`";
        let of = match (hold, call) {
            (Some(hold), None) => {
                let id = self.line(hold, "hold", REASON_CHARS_MAX)?;
                match HoldId::from_str(&id) {
                    Ok(id) => Overridden::Hold(id),
                    Err(_) => {
                        self.fail("P0601", hold.span.clone(), "this is not the whole id of a hold", hint);
                        return None;
                    }
                }
            }
            (None, Some(call)) => {
                let digest = self.line(call, "call", REASON_CHARS_MAX)?;
                let Some(digest) = Digest::from_hex(&digest) else {
                    self.fail("P0601", call.span.clone(), "this is not the digest of a call", hint);
                    return None;
                };
                Overridden::Call(digest)
            }
            _ => {
                self.fail("P0601", start_of(&node.span), "an override names one hold or one call", hint);
                return None;
            }
        };
        let hint =
            "write for example `until: \"2026-12-01T18:00:00Z\"`: an override that never ends is a rule";
        let Some(until) = keys.take("until") else {
            self.fail("P0602", start_of(&node.span), "the override does not say when it ends", hint);
            return None;
        };
        let text = self.line(until, "until", REASON_CHARS_MAX)?;
        let Ok(end) = text.parse::<Timestamp>() else {
            self.fail("P0602", until.span.clone(), "this is not a time with its offset", hint);
            return None;
        };
        let Some(reason) = keys.take("reason") else {
            let hint = "say why, and who asked for it: the record keeps it";
            self.fail("P0603", start_of(&node.span), "the override has no `reason`", hint);
            return None;
        };
        let reason = self.line(reason, "reason", REASON_CHARS_MAX)?;
        let skips = keys.take("danger_skip_approvals");
        let skips_approvals =
            skips.and_then(|node| self.flag(node, "danger_skip_approvals")).unwrap_or_default();
        Some(Override { of, until: end, reason, skips_approvals })
    }
}
