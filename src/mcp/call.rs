//! One `tools/call`, read for judging.
//!
//! Made by `gate` of a request's frame. What cannot be read in one way is an error, which refuses the call.

use std::borrow::Cow;

use super::{asking::declares_elicitation, session::Peer, task::declares_tasks};
use crate::{
    jsonrpc::{
        ErrorCode, Frame, RequestId,
        scan::{self, Param, members},
    },
    sanitize,
};

/// Bytes of a tool's name, decoded. MCP recommends 128 characters.
pub const MAX_TOOL_NAME_BYTES: usize = 256;

/// Bytes of `requestState` as it stands in the frame. It is a server's sealed note to itself, not a data channel.
pub const MAX_REQUEST_STATE_BYTES: usize = 256 * 1024;

/// The key of the protocol version in `_meta` (2026-07-28).
pub(super) const META_PROTOCOL_VERSION: &str = "io.modelcontextprotocol/protocolVersion";
/// The key of what the client can do in `_meta` (2026-07-28).
pub(super) const META_CLIENT_CAPABILITIES: &str = "io.modelcontextprotocol/clientCapabilities";
/// The key in `_meta` of the request for news that a notification belongs to (2026-07-28).
pub(super) const META_SUBSCRIPTION: &str = "io.modelcontextprotocol/subscriptionId";
/// The key of the client's name in `_meta` (2026-07-28).
const META_CLIENT_INFO: &str = "io.modelcontextprotocol/clientInfo";

/// A parsed `tools/call`. Borrows from its frame; raw values are the frame's own bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolCall<'a> {
    /// The tool's name, decoded; it obeys the rules of [`CallError::ToolName`].
    pub name: Cow<'a, str>,
    /// The raw JSON object of the arguments; `{}` where there are none.
    pub arguments: &'a str,
    /// The raw token to be copied into progress notifications, where the client wants them.
    pub progress_token: Option<&'a str>,
    /// The protocol version that this very request declares (2026-07-28).
    pub protocol_version: Option<Cow<'a, str>>,
    /// Who the client says it is in this very request (2026-07-28). Not to be relied on.
    pub client: Option<Peer<'a>>,
    /// Whether the client can take a task for an answer (the tasks extension of 2026-07-28).
    pub declares_tasks: bool,
    /// Whether the client can ask its user by a form (2026-07-28).
    pub declares_elicitation: bool,
    /// Whether the call asks to run as a task (2025-11-25).
    pub wants_task: bool,
    /// The raw token of the state that a server gave out and a retry brings back (2026-07-28).
    pub request_state: Option<&'a str>,
    /// Whether answers to a server's questions come with the retry (2026-07-28).
    pub has_input_responses: bool,
}

/// Why a `tools/call` cannot be judged. The text is for the peer; it never quotes the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum CallError {
    /// `params` is missing or not an object.
    #[error("`params` of tools/call is not an object")]
    Params,
    /// `name` is missing or not a string.
    #[error("`params.name` is not a string")]
    NoToolName,
    /// The name is empty, over 256 bytes, begins or ends with white space, or holds what cannot be seen.
    #[error(
        "`params.name` is not a name of 1 to 256 bytes without white space around it and without control, direction and invisible characters"
    )]
    ToolName,
    /// `arguments` is there and not an object.
    #[error("`params.arguments` is not an object")]
    Arguments,
    /// `_meta` is there and not an object.
    #[error("`params._meta` is not an object")]
    Meta,
    /// `_meta.progressToken` is neither a short string nor an integer.
    #[error("`params._meta.progressToken` is neither a short plain string nor an integer")]
    ProgressToken,
    /// The protocol version or the client's name in `_meta` is not what it should be.
    #[error("`params._meta` has a protocol version or client info that cannot be read")]
    MetaMember,
    /// `requestState` is not a string.
    #[error("`params.requestState` is not a string")]
    RequestState,
    /// `requestState` is too long.
    #[error("`params.requestState` has more than 262,144 bytes")]
    RequestStateTooLarge,
    /// `inputResponses` is not an object.
    #[error("`params.inputResponses` is not an object")]
    InputResponses,
    /// `task` is not an object.
    #[error("`params.task` is not an object")]
    Task,
}

impl CallError {
    /// The code that the peer is told.
    pub fn code(self) -> ErrorCode {
        ErrorCode::INVALID_PARAMS
    }
}

impl<'a> ToolCall<'a> {
    /// Reads the call in a client's frame. That the method is `tools/call` is for the caller to have seen.
    ///
    /// # Errors
    /// Parameters that are not a `CallToolRequest`'s, or that servers may read differently.
    pub fn parse(frame: &'a Frame) -> Result<Self, CallError> {
        // The strict profile lets only an object pass as `params`.
        if !frame.has_params() {
            return Err(CallError::Params);
        }
        let name =
            frame.param(Param::Name).filter(|token| token.starts_with('"')).ok_or(CallError::NoToolName)?;
        let mut call = Self {
            name: scan::unescape(name),
            arguments: object(frame, Param::Arguments, CallError::Arguments)?.unwrap_or("{}"),
            progress_token: None,
            protocol_version: None,
            client: None,
            declares_tasks: false,
            declares_elicitation: false,
            wants_task: object(frame, Param::Task, CallError::Task)?.is_some(),
            request_state: frame.param(Param::RequestState).map(request_state).transpose()?,
            has_input_responses: object(frame, Param::InputResponses, CallError::InputResponses)?.is_some(),
        };
        if let Some(meta) = object(frame, Param::Meta, CallError::Meta)? {
            call.read_meta(meta)?;
        }
        if is_tool_name(&call.name) { Ok(call) } else { Err(CallError::ToolName) }
    }

    /// Whether the request speaks 2026-07-28 or later: such a request names its version itself.
    pub fn is_modern(&self) -> bool {
        self.protocol_version.is_some()
    }

    fn read_meta(&mut self, meta: &'a str) -> Result<(), CallError> {
        for (key, value) in members(meta) {
            match &*key {
                "progressToken" => {
                    // The same shapes as an id: it is echoed, and a peer must not round it.
                    RequestId::from_token(value).ok_or(CallError::ProgressToken)?;
                    self.progress_token = Some(value);
                }
                META_PROTOCOL_VERSION => {
                    self.protocol_version = Some(string(value).ok_or(CallError::MetaMember)?);
                }
                META_CLIENT_INFO => {
                    self.client = Some(Peer::parse(value).ok_or(CallError::MetaMember)?);
                }
                META_CLIENT_CAPABILITIES => {
                    self.declares_tasks = declares_tasks(value);
                    self.declares_elicitation = declares_elicitation(value);
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// Whether the `result` of a call is a question of the server (2026-07-28): then the state, decoded, that the same call is to be made
/// again with, if there is one.
pub fn input_required(result: &str) -> Option<Option<Cow<'_, str>>> {
    let last = |key: &str| members(result).filter(|(name, _)| name == key).last().map(|(_, value)| value);
    let is_question = string(last("resultType")?)? == "input_required";
    is_question.then(|| last("requestState").and_then(string))
}

/// The rules of [`CallError::ToolName`]. Names of other scripts pass: whether one imitates another is for whoever knows the
/// server's list (see [`sanitize::is_mixed_script`]).
fn is_tool_name(name: &str) -> bool {
    (1..=MAX_TOOL_NAME_BYTES).contains(&name.len())
        && name.trim() == name
        && name.chars().all(sanitize::is_plain)
}

/// The text of a member that, where it is there, must be an object.
fn object(frame: &Frame, param: Param, error: CallError) -> Result<Option<&str>, CallError> {
    match frame.param(param) {
        Some(value) if !value.starts_with('{') => Err(error),
        value => Ok(value),
    }
}

fn string(token: &str) -> Option<Cow<'_, str>> {
    token.starts_with('"').then(|| scan::unescape(token))
}

fn request_state(token: &str) -> Result<&str, CallError> {
    if !token.starts_with('"') {
        Err(CallError::RequestState)
    } else if token.len() > MAX_REQUEST_STATE_BYTES {
        Err(CallError::RequestStateTooLarge)
    } else {
        Ok(token)
    }
}
