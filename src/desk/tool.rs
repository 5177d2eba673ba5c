//! The tool of a hold: what its server says of it, what has changed, and who accepts that.
//!
//! Used by the page of a hold. A definition is accepted by its digest, which the form that showed it names.

use std::sync::Arc;

use axum::{
    extract::{Form, State as Extracted, rejection::FormRejection},
    response::{IntoResponse, Redirect, Response},
};
use serde::Deserialize;

use super::{
    State,
    guard::SignedIn,
    pages::{PageProblem, check_csrf, hold_id},
    problem::{Kind, Problem},
    record, verdict,
};
use crate::{
    control::{
        api::{ControlClient, HoldView},
        tools::ToolView,
    },
    digest::Digest,
    view::markup::{self, Row},
};

/// The longest definition that a page shows, in bytes; `holdshort tools show` has all of it.
const DEFINITION_BYTES_MAX: usize = 64 << 10;

/// A tool, as a template says it. Every text in it is rendered.
pub(super) struct ToolCard {
    /// As they are, for the form.
    pub(super) server: String,
    pub(super) tool: String,
    pub(super) sha256: String,
    /// Who has accepted the definition; none: it was the first that was seen.
    pub(super) accepted_by: Option<Row>,
    pub(super) accepted_at: String,
    pub(super) last_seen_at: String,
    /// None: it is too long for a page, or was not kept.
    pub(super) definition: Option<Vec<Row>>,
    pub(super) changed: Option<Changed>,
}

/// What its server lists now, that nobody has accepted.
pub(super) struct Changed {
    pub(super) sha256: String,
    pub(super) since: String,
    pub(super) difference: Vec<Row>,
    /// Whether all of the difference is on the page, so that it can be accepted there.
    pub(super) is_whole: bool,
}

impl ToolCard {
    fn new(tool: &ToolView) -> Self {
        let changed = tool.changed.as_ref().map(|change| {
            let rows = change.difference.as_deref().unwrap_or_default();
            let bytes: usize = rows.iter().map(String::len).sum();
            let is_whole = !rows.is_empty() && bytes <= DEFINITION_BYTES_MAX;
            let shown = if is_whole { rows } else { &[] };
            Changed {
                sha256: change.sha256.clone(),
                since: change.since.to_string(),
                difference: shown.iter().map(|row| markup::text(row)).collect(),
                is_whole,
            }
        });
        let definition = tool.definition.as_ref().filter(|text| text.get().len() <= DEFINITION_BYTES_MAX);
        Self {
            server: tool.server.clone(),
            tool: tool.tool.clone(),
            sha256: tool.sha256.clone(),
            accepted_by: tool.accepted_by.as_deref().map(markup::text),
            accepted_at: tool.accepted_at.to_string(),
            last_seen_at: tool.last_seen_at.to_string(),
            definition: definition.map(|text| markup::json_rows(text.get())),
            changed,
        }
    }
}

/// What is known of the tool of `hold`. Nothing, where its server has never listed it.
pub(super) async fn of(state: &State, hold: &HoldView) -> Option<ToolCard> {
    if hold.tool.is_empty() {
        return None;
    }
    if let Some((_, gate)) = state.hub.waiting(hold.id) {
        let told = gate.rpc.tool(hold.server.clone(), hold.tool.clone()).await.ok()?;
        return Some(ToolCard::new(&told));
    }
    let record = state.store.tool(&hold.server, &hold.tool).await.ok().flatten()?;
    Some(ToolCard::new(&ToolView::whole(&record)))
}

/// What the form of a changed tool says.
#[derive(Debug, Deserialize)]
pub(super) struct AcceptForm {
    #[serde(default)]
    csrf: String,
    server: String,
    tool: String,
    /// The digest of the definition that was shown.
    sha256: String,
    /// The hold on whose page it was shown.
    hold: String,
}

/// From now on a definition counts, as a form says.
pub(super) async fn accept(
    Extracted(state): Extracted<Arc<State>>,
    SignedIn(session): SignedIn,
    form: Result<Form<AcceptForm>, FormRejection>,
) -> Result<Response, PageProblem> {
    let Form(form) = form.map_err(|error| Problem::new(Kind::Invalid, error.body_text()))?;
    check_csrf(&session.csrf, &form.csrf)?;
    if session.identity.is_some() {
        let text = "a definition is accepted by the user of the gate: `holdshort tools accept`";
        return Err(Problem::new(Kind::NotAllowed, text).into());
    }
    let id = hold_id(&form.hold)?;
    let sha256 = Digest::from_hex(&form.sha256);
    let sha256 = sha256.ok_or_else(|| Problem::new(Kind::Invalid, "a digest is 64 hexadecimal digits"))?;
    let gates = state.hub.gates();
    let mut told = Err(Kind::NotFound.into());
    for gate in &gates {
        let (server, tool) = (form.server.clone(), form.tool.clone());
        told = gate.rpc.accept_tool(server, tool, sha256.to_string()).await.map_err(verdict::problem);
        // Gates may keep other records, in which nobody has listed such a tool.
        if !matches!(&told, Err(Problem { kind: Kind::NotFound, .. })) {
            break;
        }
    }
    match told {
        Err(Problem { kind: Kind::NotFound, .. }) => {
            record::accept_tool(&state, &form.server, &form.tool, sha256).await?;
        }
        told => drop(told?),
    }
    // Whichever does not hear of it now does so in a few seconds.
    for gate in &gates {
        let _ = gate.rpc.refresh_tools().await;
    }
    Ok(Redirect::to(&format!("/holds/{id}")).into_response())
}
