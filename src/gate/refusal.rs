//! Why a frame does not go upstream, for its readers: the peer that sent it, the operator, the approver and the auditor.
//!
//! Made by the gate and by the session; the only place that words a refusal. It never contains an argument of the call,
//! the name of an approver or anything of the inside of this process.

use std::sync::Arc;

use bytes::Bytes;

use super::Released;
use crate::{
    hold::{Absence, Cause, HoldId, OnRejection, Withdrawal},
    jsonrpc::{ErrorCode, FrameError, RequestId},
    mcp::{self, Era},
};

/// Why not, as one word: for the agent's program, the log and the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Why {
    /// The policy says no.
    Denied,
    /// It was held, and did not run.
    Ended(Cause),
    /// It waits for people, and the client is asked to make the call again.
    Pending,
    /// The client has made it again already, and that one waits for people.
    MadeAgain,
    /// It was sent before, and nobody knows whether it ran.
    Unknown,
    /// It breaks the protocol, or could be read in two ways.
    Invalid,
}

impl Why {
    /// The word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Denied => "denied",
            Self::Ended(Cause::Rejected) => "rejected",
            Self::Ended(Cause::Expired) => "expired",
            Self::Ended(Cause::Withdrawn) => "withdrawn",
            Self::Ended(Cause::Unavailable) => "unavailable",
            Self::Pending | Self::MadeAgain => "pending",
            Self::Unknown => "unknown",
            Self::Invalid => "invalid",
        }
    }
}

/// How the peer hears of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// A tool result that models read.
    ToolResult(Era),
    /// A JSON-RPC error.
    Error(ErrorCode),
    /// As a result that has it make the call again, which is the text.
    ComeBack,
    /// Not at all: it was a notification, or the peer has taken its request back.
    Silence,
}

/// A frame that does not go upstream.
#[derive(Clone, Debug)]
#[must_use = "a refusal that is not told leaves the client waiting"]
pub struct Refusal {
    /// The request to answer. `None` with [`Form::Error`]: an unreadable one, answered with `id: null`.
    id: Option<RequestId>,
    form: Form,
    /// Why, as one word.
    pub why: Why,
    /// The hold, where there was one.
    pub hold: Option<HoldId>,
    /// What the peer reads.
    pub text: String,
}

/// The call that a refusal is about: what it takes to word the answer.
#[derive(Clone, Debug)]
pub(crate) struct Refused {
    /// The request's id; `None` for a notification.
    pub(crate) id: Option<RequestId>,
    /// Which shape of result the client reads.
    pub(crate) era: Era,
    /// Whether it is a `tools/call`; other methods have no result that could carry a reason.
    pub(crate) is_tool_call: bool,
    /// What the matching rules want.
    pub(crate) on_rejection: OnRejection,
    /// What the agent may be told while it waits.
    pub(crate) hold_message: Option<Arc<str>>,
}

impl Refused {
    fn form(&self) -> Form {
        match (&self.id, self.is_tool_call, self.on_rejection) {
            (None, ..) => Form::Silence,
            (Some(_), true, OnRejection::Continue) => Form::ToolResult(self.era),
            (Some(_), ..) => Form::Error(ErrorCode::REFUSED),
        }
    }

    /// The policy denies it, for `reason`.
    pub(crate) fn denied(self, reason: &str) -> Refusal {
        let text = format!(
            "DENIED by policy: {} The tool did not run. Do not repeat this call; change the plan or ask the user.",
            sentence(reason)
        );
        Refusal { form: self.form(), id: self.id, why: Why::Denied, hold: None, text }
    }

    /// The hold ended without the call having run. `reason` is a person's, or the gate's own.
    pub(crate) fn ended(self, hold: HoldId, cause: Cause, reason: &str) -> Refusal {
        let short = hold.short();
        let reason = sentence(reason);
        let text = match cause {
            Cause::Rejected => format!(
                "REJECTED by a person (hold {short}): {reason} The tool did not run. Do not repeat this call; change \
                 the plan or ask the user."
            ),
            Cause::Expired => format!(
                "EXPIRED (hold {short}): {reason} The tool did not run. Calling again asks people again; tell the \
                 user first."
            ),
            Cause::Withdrawn => format!("WITHDRAWN (hold {short}): {reason} The tool did not run."),
            Cause::Unavailable => format!(
                "UNAVAILABLE (hold {short}): {reason} The tool did not run. Calling again later may work."
            ),
        };
        Refusal { form: self.form(), id: self.id, why: Why::Ended(cause), hold: Some(hold), text }
    }

    /// People have not decided yet, and the client cannot be kept waiting any longer.
    pub(crate) fn pending(self, hold: HoldId, why: Absence) -> Refusal {
        let short = hold.short();
        let message = sentence(self.hold_message.as_deref().unwrap_or("a person has to approve this call."));
        let (again, why_refused) = match why {
            Absence::MadeAgain => {
                ("The same call was made again and waits for the same decision.", Why::MadeAgain)
            }
            _ => (
                "Call it again, later or when the user says so, with exactly the same arguments: the decision then \
                 counts for that call, and nobody is asked twice.",
                Why::Pending,
            ),
        };
        let text = format!("PENDING (hold {short}): {message} The tool did not run. {again}");
        let form = if why == Absence::ClientGone { Form::Silence } else { self.form() };
        Refusal { form, id: self.id, why: why_refused, hold: Some(hold), text }
    }

    /// The same, to a client that makes the call again by itself: `result` is the raw result that says so.
    pub(crate) fn come_back(self, hold: HoldId, result: String) -> Refusal {
        let form = if self.id.is_some() { Form::ComeBack } else { Form::Silence };
        Refusal { form, id: self.id, why: Why::Pending, hold: Some(hold), text: result }
    }

    /// It was approved and answered before.
    pub(crate) fn answered(self, hold: HoldId) -> Refusal {
        let text = format!(
            "ANSWERED (hold {}): the tool ran, and its result is not kept here: it was given to the same call made again, or \
             is too old. Do not repeat this call; ask the user.",
            hold.short()
        );
        Refusal { form: self.form(), id: self.id, why: Why::Unknown, hold: Some(hold), text }
    }

    /// The same call was sent before, as `hold`, and nobody knows whether it ran.
    pub(crate) fn unknown(self, hold: HoldId) -> Refusal {
        let text = format!(
            "UNKNOWN (hold {}): this call was approved and sent before, and nobody knows whether it ran. This time it did \
             not run. Do not repeat it; ask the user to look, and to have an operator resolve the hold.",
            hold.short()
        );
        Refusal { form: self.form(), id: self.id, why: Why::Unknown, hold: Some(hold), text }
    }

    /// It ran, as a person has found out.
    pub(crate) fn ran(self, hold: HoldId) -> Refusal {
        let text = format!(
            "RAN (hold {}): the call was approved and ran, as a person has found out; its result is not known. Do not repeat \
             this call.",
            hold.short()
        );
        Refusal { form: self.form(), id: self.id, why: Why::Unknown, hold: Some(hold), text }
    }

    /// Nobody decided, and it did not run.
    pub(crate) fn withdrawn(self, hold: HoldId, why: Withdrawal) -> Refusal {
        let refusal = self.ended(hold, Cause::Withdrawn, why.note());
        if why.is_told() { refusal } else { Refusal { form: Form::Silence, ..refusal } }
    }
}

impl Refused {
    /// It was approved and sent, and no answer came back.
    pub(crate) fn lost(self, hold: HoldId) -> Refusal {
        let text = format!(
            "UNKNOWN (hold {}): the call was approved and sent, and the connection to the server ended before its answer. \
             The tool may have run. Find out before you repeat this call, or ask the user.",
            hold.short()
        );
        self.after_approval(hold, text)
    }

    /// It was approved and sent, and the server's HTTP status says that it was not taken.
    pub(crate) fn refused_upstream(self, hold: HoldId, status: u16) -> Refusal {
        let text = match status {
            401 | 403 | 404 => format!(
                "NOT TAKEN (hold {}): the call was approved, but the server answered with HTTP status {status}: the session or \
                 the authorization has ended. Connect again and repeat the call; people are asked again.",
                hold.short()
            ),
            _ => format!(
                "NOT TAKEN (hold {}): the call was approved, but the server answered with HTTP status {status} and without a \
                 result. Find out whether the tool ran before you repeat this call, or ask the user.",
                hold.short()
            ),
        };
        self.after_approval(hold, text)
    }

    fn after_approval(self, hold: HoldId, text: String) -> Refusal {
        Refusal {
            form: self.form(),
            id: self.id,
            why: Why::Ended(Cause::Unavailable),
            hold: Some(hold),
            text,
        }
    }
}

impl Refusal {
    /// A frame that no peer may get, because it cannot be read, or not in one way only.
    pub fn unreadable(error: &FrameError) -> Self {
        let text = error.to_string();
        Self { id: error.id.clone(), form: Form::Error(error.code), why: Why::Invalid, hold: None, text }
    }

    /// The request that it answers.
    pub(super) fn request_id(&self) -> Option<&RequestId> {
        self.id.as_ref()
    }

    /// A request that breaks the protocol for the reason in `text`.
    pub fn invalid(id: Option<RequestId>, code: ErrorCode, text: impl Into<String>) -> Self {
        Self { id, form: Form::Error(code), why: Why::Invalid, hold: None, text: text.into() }
    }

    /// A notification that is dropped for the reason in `text`.
    pub fn dropped(text: impl Into<String>) -> Self {
        Self { id: None, form: Form::Silence, why: Why::Invalid, hold: None, text: text.into() }
    }

    /// The line that tells the peer, if it is told.
    pub fn to_bytes(&self) -> Option<Bytes> {
        let id = self.id.as_ref();
        match self.form {
            Form::Silence => None,
            Form::ComeBack => id.map(|id| mcp::result_response(id, &self.text)),
            Form::Error(code) => {
                Some(crate::jsonrpc::error_response(id, code, &self.text, self.decision().as_deref()))
            }
            Form::ToolResult(era) => {
                id.map(|id| mcp::tool_refusal(id, era, &self.text, self.decision().as_deref()))
            }
        }
    }

    /// For programs: the word and the hold, beside the text for models.
    fn decision(&self) -> Option<String> {
        if self.why == Why::Invalid {
            return None;
        }
        let hold = self.hold.map(|hold| format!(",\"hold\":\"{hold}\"")).unwrap_or_default();
        Some(format!("{{\"state\":\"{}\"{hold}}}", self.why.word()))
    }
}

impl Released {
    /// The hold that is left without a caller, to be decided.
    pub fn leaves(&self) -> Option<HoldId> {
        match self {
            Self::Resume(_) => None,
            Self::Refuse(refusal) | Self::Withdrawn { refusal, .. } => {
                refusal.hold.filter(|_| refusal.why == Why::Pending)
            }
        }
    }
}

/// What whoever waits for `hold` is told: the rule's words, and the id for the person to use.
pub(super) fn waits(hold_message: Option<&str>, hold: HoldId) -> String {
    let message = hold_message.unwrap_or("Waiting for a person to approve this call");
    format!("{message} (hold {})", hold.short())
}

/// `reason` as a sentence of its own.
fn sentence(reason: &str) -> String {
    let reason = reason.trim();
    if reason.is_empty() {
        return "no reason was given.".to_owned();
    }
    if reason.ends_with(['.', '!', '?']) { reason.to_owned() } else { format!("{reason}.") }
}
