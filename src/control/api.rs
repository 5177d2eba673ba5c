//! What can be asked over the control socket: the methods, and the shapes of what they answer.
//!
//! JSON-RPC 2.0 in WebSocket frames (jsonrpsee). The shapes are the ones of `--json` on the command line. `server` answers,
//! `client` asks; both are made from the one trait here.

use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use jsonrpsee::{core::SubscriptionResult, proc_macros::rpc, types::ErrorObjectOwned};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{policies::PolicyView, tools::ToolView};
use crate::{
    audit::{self, Verification},
    digest::Digest,
    hold::{
        Assurance, Context, Edit, HoldId, HoldRecord, NewHold, Proof, Remember, Remembered, Requirement,
        Same, State, Statement, Verdict, Vote, kept_comment, shown_sha256,
    },
    jsonrpc::Frame,
    mcp::ToolCall,
    store::{LISTED_FRAME_BYTES_MAX, Listed},
    view,
};

/// Holds in one page of a list.
pub const PAGE_HOLDS_MAX: usize = 500;

/// Bytes of arguments after which a page of a list ends, so that an answer stays well below [`ANSWER_BYTES_MAX`].
pub const PAGE_ARGUMENT_BYTES_MAX: usize = 8 << 20;

/// The longest answer of the control socket: a page whose last frame is the largest there can be, written as JSON text.
pub const ANSWER_BYTES_MAX: u32 = 256 << 20;

/// The longest question: an approval with the arguments that the call is to run with, written as JSON text.
pub const QUESTION_BYTES_MAX: u32 = 1 << 20;

/// The longest arguments that a watcher is sent with its news and that are listed with what waits, in bytes: what a watcher that does not read
/// keeps waiting in the gate must be little, and so must what a list makes it read.
pub const NEWS_ARGUMENT_BYTES_MAX: usize = LISTED_FRAME_BYTES_MAX;

/// A held call as operators see it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HoldView {
    /// Its id; any unique beginning of it names it on the command line.
    pub id: HoldId,
    /// Where it stands.
    pub state: State,
    /// The server's name.
    pub server: String,
    /// The method, nearly always `tools/call`.
    pub method: String,
    /// The tool.
    pub tool: String,
    /// What the client says of itself. Untrusted.
    pub agent: String,
    /// Who asks, authenticated.
    pub principal: String,
    /// The arguments as they were written; an empty object where `truncated` is true.
    pub arguments: Box<RawValue>,
    /// Whether the arguments are left out because they are longer than [`NEWS_ARGUMENT_BYTES_MAX`]; only in lists of what waits and in
    /// what a watcher is sent. Ask for the one hold to see them.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub truncated: bool,
    /// Why it is held.
    pub reason: String,
    /// Who has to say yes, in words; none where one person is enough.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub requirements: Vec<String>,
    /// How an approval may count for further calls; none if it may not.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub may_remember: Option<Remember>,
    /// Whether whoever approves may change the arguments.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub may_edit: bool,
    /// Whether an approval has to be signed (for L1: unless the agent cannot reach the gate).
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub must_sign: bool,
    /// What the approver has made of the call, if it was changed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub edit: Option<EditView>,
    /// The rules that hold it.
    pub rules: Vec<String>,
    /// What an approver should know besides: errors in conditions.
    pub notes: Vec<String>,
    /// When it was held.
    pub created_at: Timestamp,
    /// When it expires unless decided.
    pub expires_at: Timestamp,
    /// Whether a caller waits for it.
    pub attached: bool,
    /// When an approval without a caller can no longer be redeemed, or a rejection without one is forgotten.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub lapses_at: Option<Timestamp>,
    /// The verdicts so far.
    pub votes: Vec<Vote>,
    /// When it ended, if it has.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ended_at: Option<Timestamp>,
    /// What is known of its end beyond the state.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub note: Option<String>,
    /// SHA-256 of the frame that was received and that goes upstream.
    pub frame_sha256: String,
    /// The digest of what the call does, however it is written: the same call, made again, has the same.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub call_sha256: Option<String>,
    /// The digest of the policy that holds it.
    #[serde(default)]
    pub policy_sha256: String,
    /// The digest of the tool's definition, where the server has told it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub tool_sha256: Option<String>,
    /// The length of that frame, in bytes.
    pub frame_bytes: usize,
    /// The frame itself, without its line's end; only where one hold is shown.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub frame: Option<String>,
    /// What in the frame could deceive a reader, in words; only where one hold is shown.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub warnings: Vec<String>,
    /// The digest of what is shown with that frame, for a verdict by whoever has read it; only where one hold is shown.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub shown_sha256: Option<Digest>,
}

impl HoldView {
    /// A hold of the record.
    pub fn new(record: &HoldRecord) -> Self {
        let hold = &record.hold;
        Self {
            id: hold.id,
            state: record.state,
            server: hold.server.to_string(),
            method: hold.method.to_string(),
            tool: hold.tool.to_string(),
            agent: hold.agent.to_string(),
            principal: hold.principal.to_string(),
            arguments: arguments(&hold.frame),
            truncated: false,
            reason: hold.reason.to_string(),
            requirements: hold.quorum.as_ref().map_or_else(Vec::new, |quorum| {
                quorum.requirements.iter().map(ToString::to_string).collect()
            }),
            may_remember: hold.quorum.as_ref().and_then(|quorum| quorum.remember),
            may_edit: hold.quorum.as_ref().is_some_and(|quorum| quorum.may_edit),
            must_sign: hold
                .quorum
                .as_ref()
                .is_some_and(|quorum| quorum.requirements.iter().any(Requirement::needs_signature)),
            edit: record.edit.as_ref().map(EditView::new),
            rules: hold.rules.iter().map(ToString::to_string).collect(),
            notes: hold.notes.clone(),
            created_at: hold.created_at,
            expires_at: hold.expires_at,
            attached: record.state == State::Held && record.holder.is_some(),
            lapses_at: record.lapses_at.filter(|_| record.is_awaited),
            votes: record.votes.clone(),
            ended_at: record.ended_at,
            note: record.note.clone(),
            frame_sha256: hold.frame_sha256.to_string(),
            call_sha256: hold.call_sha256.map(|digest| digest.to_string()),
            policy_sha256: hold.policy_sha256.to_string(),
            tool_sha256: hold.tool_sha256.map(|digest| digest.to_string()),
            frame_bytes: hold.frame.len(),
            frame: None,
            warnings: Vec::new(),
            shown_sha256: None,
        }
    }

    /// A hold of a list.
    pub fn listed(listed: &Listed) -> Self {
        let view = Self::new(&listed.record);
        if listed.has_frame() {
            return view.as_news();
        }
        Self { truncated: true, frame_bytes: listed.frame_bytes, ..view }
    }

    /// All that is known of `record`: with the frame, and with what an approver should be warned of.
    pub fn whole(record: &HoldRecord) -> Self {
        // A frame in the record was valid UTF-8 when it was held, else it would not have been.
        let frame = String::from_utf8_lossy(&record.hold.frame).into_owned();
        let mut warnings = view::warnings(&frame);
        if record.state == State::Unknown {
            let warning =
                "nobody knows whether this call ran; it is not sent again before `holdshort resolve` says so";
            warnings.push(warning.to_owned());
        }
        Self { frame: Some(frame), warnings, shown_sha256: record.hold.shown(), ..Self::new(record) }
    }

    /// The same, as it is listed and a watcher is sent it: without arguments that are longer than [`NEWS_ARGUMENT_BYTES_MAX`].
    #[must_use]
    pub fn as_news(mut self) -> Self {
        if self.arguments.get().len() > NEWS_ARGUMENT_BYTES_MAX {
            self.arguments = empty_object();
            self.truncated = true;
            self.edit = None;
        }
        self
    }

    /// The digest of what is shown of this hold, for a verdict on it; none unless it is shown whole. It is over what is here, not what
    /// a gate says of it.
    pub fn shown(&self) -> Option<Digest> {
        self.frame.as_deref().map(shown_sha256)
    }

    /// What `verdict` says of this hold, for its approver to sign; of one that is shown whole. None: it cannot be said of what is
    /// here. Everything in it comes from what is shown, not from what a gate says it is.
    pub fn statement(&self, verdict: Verdict, comment: Option<&str>) -> Option<Statement> {
        let frame = Frame::from_client(Bytes::from(self.frame.clone()?)).ok()?;
        let tool_sha256 = match &self.tool_sha256 {
            Some(text) => Some(Digest::from_hex(text)?),
            None => None,
        };
        let context = Context {
            server: &self.server,
            method: &self.method,
            tool: &self.tool,
            tool_sha256,
            principal: &self.principal,
            agent: &self.agent,
            policy_sha256: Digest::from_hex(&self.policy_sha256)?,
        };
        let comment = kept_comment(comment);
        Statement::about(self.id, &frame, &context, self.expires_at, verdict, comment.as_deref())
    }

    /// A hold that waits in this process.
    pub fn waiting(hold: &Arc<NewHold>) -> Self {
        Self::new(&HoldRecord::held(NewHold::clone(hold), Arc::clone(&hold.owner)))
    }
}

/// A call with the arguments that its approver has written.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EditView {
    /// The arguments that it ran with, as they were written.
    pub arguments: Box<RawValue>,
    /// SHA-256 of the frame with them.
    pub frame_sha256: String,
}

impl EditView {
    fn new(edit: &Edit) -> Self {
        Self { arguments: arguments(&edit.frame), frame_sha256: edit.frame_sha256.to_string() }
    }
}

/// An approval that counts for further calls, as operators see it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RememberedView {
    /// The hold whose approval it is.
    pub id: HoldId,
    /// Whether it still `counts`, is `used up`, `revoked` or `over`.
    pub standing: String,
    /// The server's name.
    pub server: String,
    /// The method, nearly always `tools/call`.
    pub method: String,
    /// The tool.
    pub tool: String,
    /// Whose calls it covers.
    pub principal: String,
    /// How alike they have to be.
    pub same: Same,
    /// Who approved.
    pub by: String,
    /// When.
    pub since: Timestamp,
    /// Until when it counts.
    pub until: Timestamp,
    /// How many calls it has covered.
    pub uses: u32,
    /// How many it may cover.
    pub uses_max: u32,
    /// Who has taken it back.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub revoked_by: Option<String>,
}

impl From<&Remembered> for RememberedView {
    fn from(remembered: &Remembered) -> Self {
        Self {
            id: remembered.of,
            standing: remembered.standing(Timestamp::now()).to_owned(),
            server: remembered.server.to_string(),
            method: remembered.method.to_string(),
            tool: remembered.tool.to_string(),
            principal: remembered.principal.to_string(),
            same: remembered.same,
            by: remembered.by.clone(),
            since: remembered.since,
            until: remembered.until,
            uses: remembered.uses,
            uses_max: remembered.uses_max,
            revoked_by: remembered.revoked.as_ref().map(|(_, by)| by.clone()),
        }
    }
}

/// For which further calls an approval is to count.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct RememberFor {
    /// For how long, in seconds.
    pub seconds: u64,
    /// How alike they have to be.
    pub same: Same,
}

/// The arguments in a frame, exactly as written; the params of other methods.
fn arguments(frame: &Bytes) -> Box<RawValue> {
    let frame = Frame::from_client(frame.clone()).ok();
    let text = frame.as_ref().and_then(|frame| match ToolCall::parse(frame) {
        Ok(call) => Some(call.arguments.to_owned()),
        Err(_) => frame.params().map(str::to_owned),
    });
    text.and_then(|text| RawValue::from_string(text).ok()).unwrap_or_else(empty_object)
}

fn empty_object() -> Box<RawValue> {
    RawValue::from_string("{}".to_owned()).unwrap_or_default()
}

/// One page of a list.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Page {
    /// The holds.
    pub holds: Vec<HoldView>,
    /// Ask again with this as `after`, if it is there.
    pub next: Option<HoldId>,
}

/// Who answers on a control socket.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct GateInfo {
    /// The gate's random name in the record.
    pub instance: String,
    /// The program's version.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// The servers behind it.
    pub servers: Vec<String>,
    /// The digest of its policy.
    pub policy_sha256: String,
    /// The rules of its policy.
    pub rules: usize,
    /// How far what is decided there can be trusted at most.
    #[serde(default)]
    pub assurance: Assurance,
    /// The highest assurance that a rule of its policy wants.
    #[serde(default)]
    pub min_assurance: Assurance,
    /// Its record.
    pub store: String,
    /// Calls that wait now.
    pub holds: usize,
}

/// What a watcher hears. (Not an enum with its data: serde buffers the members of those, and raw JSON does not survive it.)
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Watched {
    /// What happened.
    pub event: WatchedEvent,
    /// The call it happened to; none if news were missed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub hold: Option<HoldView>,
}

/// What a watcher can hear of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WatchedEvent {
    /// A call is held.
    Held,
    /// Somebody has voted on a hold, and more people are needed.
    Voted,
    /// A hold still waits: a reminder, or others may decide too from now on.
    Waiting,
    /// A hold has reached a new state.
    Ended,
    /// News were lost because the watcher was slow: list again.
    Missed,
}

impl Watched {
    /// A call is held.
    pub fn held(hold: HoldView) -> Self {
        Self { event: WatchedEvent::Held, hold: Some(hold) }
    }

    /// A hold has reached a new state.
    pub fn ended(hold: HoldView) -> Self {
        Self { event: WatchedEvent::Ended, hold: Some(hold) }
    }

    /// News were lost.
    pub fn missed() -> Self {
        Self { event: WatchedEvent::Missed, hold: None }
    }
}

/// What became of a verdict.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Resolved {
    /// The hold.
    pub id: HoldId,
    /// Where it stands now.
    pub state: State,
}

/// The policy that is in force after its files were read again.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PolicyReloaded {
    /// Its digest.
    pub policy_sha256: String,
    /// How many rules it has.
    pub rules: usize,
    /// Whether it is another one than before.
    pub changed: bool,
}

/// Whether the record was altered.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct VerificationView {
    /// Whether nothing is wrong, within what `cannot_prove` leaves.
    pub sound: bool,
    /// Events read and found right.
    pub events: u64,
    /// Holds whose record begins in those events.
    pub holds: u64,
    /// Where the record ends, as far as it is right: a line to keep elsewhere.
    pub checkpoint: String,
    /// The first thing that is wrong, if anything is.
    pub broken: Option<String>,
    /// What no verification can show.
    pub cannot_prove: String,
}

impl From<&Verification> for VerificationView {
    fn from(verification: &Verification) -> Self {
        Self {
            sound: verification.is_sound(),
            events: verification.events,
            holds: verification.holds,
            checkpoint: verification.head.to_string(),
            broken: verification.broken.as_ref().map(ToString::to_string),
            cannot_prove: audit::CANNOT_PROVE.to_owned(),
        }
    }
}

/// What an error of the control socket means for an exit code; the `code` of the JSON-RPC error.
///
/// Outside the range that JSON-RPC 2.0 (section 5.1) reserves.
pub mod error_code {
    /// No such hold.
    pub const NOT_FOUND: i32 = 4;
    /// The hold has ended already.
    pub const ENDED: i32 = 5;
    /// Another gate has the caller.
    pub const ELSEWHERE: i32 = 6;
    /// This principal may not.
    pub const NOT_ALLOWED: i32 = 3;
    /// The request itself is wrong.
    pub const INVALID: i32 = 2;
    /// Too many verdicts have had no effect. The data says after how many seconds one may be tried again.
    pub const TOO_OFTEN: i32 = 7;
    /// Something else was shown than what is held.
    pub const NOT_WHAT_WAS_SHOWN: i32 = 8;
    /// The record cannot be written or read.
    pub const UNAVAILABLE: i32 = 1;
}

/// The methods of the control socket.
#[rpc(server, client, namespace = "gate", namespace_separator = ".")]
pub trait Control {
    /// Who answers here.
    #[method(name = "info")]
    async fn info(&self) -> Result<GateInfo, ErrorObjectOwned>;

    /// The calls that wait in this process, and those of its record without a caller of which something may still become,
    /// the oldest first, a page at a time.
    #[method(name = "holds", param_kind = map)]
    async fn holds(&self, after: Option<HoldId>) -> Result<Page, ErrorObjectOwned>;

    /// One hold, of this process or of its record.
    #[method(name = "show", param_kind = map)]
    async fn show(&self, id: HoldId) -> Result<HoldView, ErrorObjectOwned>;

    /// Decides on a hold of this process, for whoever was shown what has the digest `shown_sha256`, if they were shown all of it.
    /// Answers once it is durable.
    #[method(name = "resolve", param_kind = map, with_extensions)]
    async fn resolve(
        &self,
        id: HoldId,
        verdict: Verdict,
        comment: Option<String>,
        shown_sha256: Option<Digest>,
    ) -> Result<Resolved, ErrorObjectOwned>;

    /// Approves a hold, and says more than yes: that it counts for further calls, or that the call runs with these arguments.
    #[method(name = "approve", param_kind = map, with_extensions)]
    async fn approve(
        &self,
        id: HoldId,
        comment: Option<String>,
        remember: Option<RememberFor>,
        arguments: Option<String>,
        shown_sha256: Option<Digest>,
    ) -> Result<Resolved, ErrorObjectOwned>;

    /// Decides for whoever has signed `proof`, which says what they were shown.
    #[method(name = "resolve_signed", param_kind = map, with_extensions)]
    async fn resolve_signed(
        &self,
        id: HoldId,
        verdict: Verdict,
        comment: Option<String>,
        proof: Proof,
    ) -> Result<Resolved, ErrorObjectOwned>;

    /// Approvals that count for further calls, and those that have ceased to within a day, the newest first.
    #[method(name = "remembered")]
    async fn remembered(&self) -> Result<Vec<RememberedView>, ErrorObjectOwned>;

    /// Takes back the remembered approval of the hold `id`. Answers once it is durable.
    #[method(name = "revoke", param_kind = map, with_extensions)]
    async fn revoke(&self, id: HoldId) -> Result<(), ErrorObjectOwned>;

    /// Decides for somebody whom a channel of a desk has told apart, such as `slack:U012AB3CD`.
    #[method(name = "resolve_as", param_kind = map, with_extensions)]
    async fn resolve_as(
        &self,
        id: HoldId,
        verdict: Verdict,
        comment: Option<String>,
        identity: String,
        shown_sha256: Option<Digest>,
    ) -> Result<Resolved, ErrorObjectOwned>;

    /// Says whether a call ran of which nobody knew. Answers once it is durable.
    #[method(name = "resolve_unknown", param_kind = map, with_extensions)]
    async fn resolve_unknown(
        &self,
        id: HoldId,
        has_run: bool,
        comment: Option<String>,
    ) -> Result<Resolved, ErrorObjectOwned>;

    /// The same for somebody whom a desk has told apart. Only for whom the policy lists.
    #[method(name = "resolve_unknown_as", param_kind = map, with_extensions)]
    async fn resolve_unknown_as(
        &self,
        id: HoldId,
        has_run: bool,
        comment: Option<String>,
        identity: String,
    ) -> Result<Resolved, ErrorObjectOwned>;

    /// The person of the policy in force whom `identity` means.
    #[method(name = "person", param_kind = map)]
    async fn person(&self, identity: String) -> Result<Option<String>, ErrorObjectOwned>;

    /// The ids in the record that begin with `prefix`, at most ten.
    #[method(name = "find", param_kind = map)]
    async fn find(&self, prefix: String) -> Result<Vec<HoldId>, ErrorObjectOwned>;

    /// What the record knows, the newest first, a page at a time.
    #[method(name = "history", param_kind = map)]
    async fn history(&self, before: Option<HoldId>, limit: usize) -> Result<Page, ErrorObjectOwned>;

    /// The tools that servers have listed, or those of one of them, without their definitions.
    #[method(name = "tools", param_kind = map)]
    async fn tools(&self, server: Option<String>) -> Result<Vec<ToolView>, ErrorObjectOwned>;

    /// One tool, with its definitions and with what has changed.
    #[method(name = "tool", param_kind = map)]
    async fn tool(&self, server: String, tool: String) -> Result<ToolView, ErrorObjectOwned>;

    /// From now on the definition of this digest counts. Answers once that is durable.
    #[method(name = "accept_tool", param_kind = map, with_extensions)]
    async fn accept_tool(
        &self,
        server: String,
        tool: String,
        sha256: String,
    ) -> Result<ToolView, ErrorObjectOwned>;

    /// Reads what others have recorded of tools. A gate does so by itself every few seconds.
    #[method(name = "refresh_tools")]
    async fn refresh_tools(&self) -> Result<(), ErrorObjectOwned>;

    /// Whether the record has been altered, also against a checkpoint that was kept.
    #[method(name = "verify", param_kind = map)]
    async fn verify(&self, against: Option<String>) -> Result<VerificationView, ErrorObjectOwned>;

    /// The policy in force.
    #[method(name = "policy")]
    async fn policy(&self) -> Result<PolicyView, ErrorObjectOwned>;

    /// Reads the policy's files again and puts them into force, unless there is a mistake in them.
    #[method(name = "reload", with_extensions)]
    async fn reload(&self) -> Result<PolicyReloaded, ErrorObjectOwned>;

    /// Everything that is held or ends from now on.
    #[subscription(name = "watch" => "news", unsubscribe = "unwatch", item = Watched, with_extensions)]
    async fn watch(&self) -> SubscriptionResult;
}
