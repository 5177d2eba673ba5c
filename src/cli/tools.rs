//! `holdshort tools list|show|accept`: which tools servers have listed, what has changed of them, and who accepts that.
//!
//! Asks a running gate of the record, or the record itself where none runs. A definition is accepted by its digest: so nobody
//! accepts another one than they have read.

use std::path::Path;

use super::{
    ToolsCommand,
    audit::{Record, Source, store_path},
    block_on,
    process::settle,
    reach::operator,
    render,
};
use crate::{
    control::{
        api::ControlClient,
        client::{self, AskError},
        tools::{ToolView, accept_error, no_such_tool},
    },
    digest::Digest,
    exit::Exit,
    gate::{Gate, GateLimits},
    policy::Policy,
};

/// How this process names itself in the record.
const INSTANCE: &str = "command-line";

/// Characters of a digest that it takes at least to name a definition.
const DIGEST_CHARS_MIN: usize = 8;

/// Why the beginning of a digest names no definition.
#[derive(Debug, thiserror::Error)]
enum NoDefinition {
    #[error("`{0}` is not the beginning of a digest: it takes {DIGEST_CHARS_MIN} to 64 hexadecimal digits")]
    NotADigest(String),
    #[error("no definition of this tool has a digest that begins with `{0}`")]
    None(String),
    #[error("several definitions of this tool have a digest that begins with `{0}`: give more of it")]
    Several(String),
}

pub(super) fn tools(command: &ToolsCommand) -> Exit {
    block_on(async {
        match command {
            ToolsCommand::List { server, changed, store, json } => {
                // Nothing was ever recorded: an empty list, not a failure.
                let mut tools = if store.is_none() && !store_path(None)?.may_exist() {
                    Vec::new()
                } else {
                    let record = Record::find(store.as_deref()).await?;
                    list(&record.source, server.clone()).await?
                };
                tools.retain(|tool| !changed || tool.changed.is_some());
                render::tools::list(&tools, *json);
                Ok(Exit::Done)
            }
            ToolsCommand::Show { server, tool, store, json } => {
                let record = Record::find(store.as_deref()).await?;
                render::tools::show(&show(&record.source, server, tool).await?, *json);
                Ok(Exit::Done)
            }
            ToolsCommand::Accept { server, tool, sha256, store, json } => {
                accept(store.as_deref(), (server, tool), sha256, *json).await
            }
        }
    })
}

async fn list(source: &Source, server: Option<String>) -> Result<Vec<ToolView>, AskError> {
    match source {
        Source::Gate(gate) => Ok(gate.rpc.tools(server).await?),
        Source::File(store) => {
            let records = store.tools(server.as_deref()).await?;
            Ok(records.iter().map(ToolView::new).collect())
        }
    }
}

async fn show(source: &Source, server: &str, tool: &str) -> Result<ToolView, AskError> {
    match source {
        Source::Gate(gate) => Ok(gate.rpc.tool(server.to_owned(), tool.to_owned()).await?),
        Source::File(store) => {
            let record = store.tool(server, tool).await?;
            let record = record.ok_or_else(|| AskError::Refused(no_such_tool(server, tool)))?;
            Ok(ToolView::whole(&record))
        }
    }
}

async fn accept(
    store: Option<&Path>,
    (server, tool): (&str, &str),
    prefix: &str,
    json: bool,
) -> Result<Exit, AskError> {
    let Record { source, .. } = Record::find(store).await?;
    let sha256 = match named(&show(&source, server, tool).await?, prefix) {
        Ok(sha256) => sha256,
        Err(error) => return Ok(render::usage(&error)),
    };
    let accepted = match &source {
        Source::Gate(gate) => {
            gate.rpc.accept_tool(server.to_owned(), tool.to_owned(), sha256.to_string()).await?
        }
        Source::File(store) => {
            // It screens nothing and holds nothing: it is asked for this one thing.
            let limits = GateLimits { holds_max: 0, ..GateLimits::default() };
            let gate = Gate::new(INSTANCE.into(), Policy::hold_everything().into(), store.clone(), limits);
            let accepted = gate.accept_tool(server, tool, sha256, &operator()).await;
            settle(store).await;
            accepted.map_err(|error| AskError::Refused(accept_error(&error)))?;
            show(&source, server, tool).await?
        }
    };
    // Whichever does not hear of it now does so in a few seconds.
    for gate in client::gates().await.gates {
        let _ = gate.rpc.refresh_tools().await;
    }
    render::tools::accepted(&accepted, json);
    Ok(Exit::Done)
}

/// The definition of `tool` whose digest begins with `prefix`.
fn named(tool: &ToolView, prefix: &str) -> Result<Digest, NoDefinition> {
    let prefix = prefix.to_ascii_lowercase();
    let is_digest = prefix.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !is_digest || !(DIGEST_CHARS_MIN..=64).contains(&prefix.len()) {
        return Err(NoDefinition::NotADigest(prefix));
    }
    let mut found = tool.definitions.iter().filter(|definition| definition.sha256.starts_with(&prefix));
    match (found.next(), found.next()) {
        (Some(one), None) => Digest::from_hex(&one.sha256).ok_or(NoDefinition::None(prefix)),
        (None, _) => Err(NoDefinition::None(prefix)),
        _ => Err(NoDefinition::Several(prefix)),
    }
}
