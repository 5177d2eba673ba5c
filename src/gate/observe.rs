//! What the gate writes down of calls that it lets run although a rule would not: the mode `audit`.
//!
//! A part of `gate`. It records and never decides; an event rides along, because nothing waits for it.

use super::{Caller, Gate};
use crate::{
    audit::{AuditEvent, Occasion},
    hold::HoldTerms,
    jsonrpc::Frame,
    mcp::{ToolCall, method},
    policy::{Decision, Effect, Mode},
};

/// The longest arguments that are kept with such an event, in bytes. `policy learn` cannot judge calls with longer ones.
pub const AUDITED_ARGUMENT_BYTES_MAX: usize = 16 << 10;

impl Gate {
    /// Records a call that runs because the mode is `audit`: what would have happened to it, and whom it would have gone to.
    pub(super) fn record_audited(&self, caller: &Caller, frame: &Frame, tool: &str, decision: &Decision) {
        if decision.mode != Mode::Audit {
            return;
        }
        let occasion = if decision.would_have.is_some() { Occasion::WouldHave } else { Occasion::Allowed };
        let arguments = match frame.method() {
            Some(method::TOOLS_CALL) => ToolCall::parse(frame).ok().map(|call| call.arguments),
            _ => frame.params(),
        };
        let arguments = arguments.filter(|text| text.len() <= AUDITED_ARGUMENT_BYTES_MAX);
        self.store.ride_along(AuditEvent {
            frame_sha256: Some(frame.sha256()),
            method: frame.method().map(str::to_owned),
            rules: decision.rules.iter().map(ToString::to_string).collect(),
            reason: Some(decision.reason.to_string()),
            notes: decision.notes.clone(),
            note: decision.would_have.map(|effect| would_have(effect, decision.terms.as_deref())),
            arguments: arguments.map(str::to_owned),
            ..self.event(occasion, caller, tool)
        });
    }
}

/// What would have happened, in words.
fn would_have(effect: Effect, terms: Option<&HoldTerms>) -> String {
    match effect {
        Effect::Allow => "it would have run".to_owned(),
        Effect::Deny => "it would have been denied".to_owned(),
        Effect::Hold => {
            let requirements = terms.map_or(&[][..], |terms| &terms.requirements);
            let asked: Vec<String> = requirements.iter().map(ToString::to_string).collect();
            let asked = if asked.is_empty() { "1 person".to_owned() } else { asked.join(" and ") };
            let seconds = terms.map_or(0, |terms| terms.timeout.as_secs());
            format!("it would have waited for {asked}, for at most {seconds} s")
        }
    }
}
