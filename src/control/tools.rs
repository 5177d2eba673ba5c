//! Tools as operators see them: the shape of `holdshort tools --json`, and what the desk shows.
//!
//! Made by `server` and by the command line from what the record knows. Carries the originals; whoever shows them renders them.

use jiff::Timestamp;
use jsonrpsee::types::ErrorObjectOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::api::error_code;
use crate::{
    definition::{Definition, Differing, ToolRecord},
    gate::AcceptError,
    store::StoreError,
};

/// A tool that a server has listed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ToolView {
    /// The server's name.
    pub server: String,
    /// The tool's name.
    pub tool: String,
    /// The digest of the definition that counts.
    pub sha256: String,
    /// Since when it counts.
    pub accepted_at: Timestamp,
    /// Who has accepted it; none: it was the first that was seen.
    pub accepted_by: Option<String>,
    /// How the server lists it otherwise, where nobody has accepted that.
    pub changed: Option<ChangeView>,
    /// When it was listed first.
    pub first_seen_at: Timestamp,
    /// When it was listed last, to about an hour.
    pub last_seen_at: Timestamp,
    /// The definition that counts; only where one tool is shown, and if it was not too long to be kept.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub definition: Option<Box<RawValue>>,
    /// All definitions that are kept, the oldest first; only where one tool is shown.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub definitions: Vec<DefinitionView>,
}

/// What a server lists that nobody has accepted.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ChangeView {
    /// The digest of the definition.
    pub sha256: String,
    /// Since when it is listed.
    pub since: Timestamp,
    /// The definition; only where one tool is shown, and if it was not too long to be kept.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub definition: Option<Box<RawValue>>,
    /// Where it differs from the one that counts, such as `- description: "Reads."`; only where one tool is shown, and if
    /// both are kept.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub difference: Option<Vec<String>>,
}

/// One definition of a tool.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DefinitionView {
    /// Its digest.
    pub sha256: String,
    /// Its length.
    pub bytes: u64,
    /// When it was seen first.
    pub seen_at: Timestamp,
}

impl ToolView {
    /// A tool of the record, without its definitions.
    pub fn new(record: &ToolRecord) -> Self {
        let state = &record.state;
        Self {
            server: state.server.to_string(),
            tool: state.tool.to_string(),
            sha256: state.accepted.to_string(),
            accepted_at: record.accepted_at,
            accepted_by: record.accepted_by.clone(),
            changed: state.changed.map(|(changed, since)| ChangeView {
                sha256: changed.to_string(),
                since,
                definition: None,
                difference: None,
            }),
            first_seen_at: record.first_seen_at,
            last_seen_at: record.last_seen_at,
            definition: None,
            definitions: Vec::new(),
        }
    }

    /// The same with its definitions, and with what has changed.
    pub fn whole(record: &ToolRecord) -> Self {
        let mut view = Self::new(record);
        let text = |sha256| raw(record.definition(sha256));
        view.definition = text(record.state.accepted);
        if let (Some(change), Some((changed, _))) = (&mut view.changed, record.state.changed) {
            change.definition = text(changed);
            let rows = record.difference(changed);
            change.difference = rows.map(|rows| rows.iter().map(Differing::to_string).collect());
        }
        let listed = |definition: &Definition| DefinitionView {
            sha256: definition.sha256.to_string(),
            bytes: definition.bytes,
            seen_at: definition.seen_at,
        };
        view.definitions = record.definitions.iter().map(listed).collect();
        view
    }
}

fn raw(definition: Option<&Definition>) -> Option<Box<RawValue>> {
    RawValue::from_string(definition?.text.clone()?).ok()
}

/// What the error of an acceptance is on the socket.
pub(crate) fn accept_error(error: &AcceptError) -> ErrorObjectOwned {
    let code = match error {
        AcceptError::NotAllowed(_) => error_code::NOT_ALLOWED,
        AcceptError::Store(StoreError::NoSuchTool { .. } | StoreError::NoSuchDefinition { .. }) => {
            error_code::NOT_FOUND
        }
        AcceptError::Store(StoreError::DefinitionNotKept { .. }) => error_code::INVALID,
        AcceptError::Store(_) => error_code::UNAVAILABLE,
    };
    ErrorObjectOwned::owned(code, error.to_string(), None::<()>)
}

/// That no server of this name has listed such a tool, as it is told on the socket.
pub(crate) fn no_such_tool(server: &str, tool: &str) -> ErrorObjectOwned {
    let (server, tool) = (server.into(), tool.into());
    accept_error(&StoreError::NoSuchTool { server, tool }.into())
}
