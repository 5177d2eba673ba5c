//! What has been decided and is not over: approvals that nobody has come back for, and calls of which nobody knows whether they ran.
//!
//! Called by the routes. Shows them, and passes on what a person has found out.

use std::sync::Arc;

use askama::Template;
use axum::{
    extract::{Form, Path, State as Extracted, rejection::FormRejection},
    response::{IntoResponse, Redirect, Response},
};
use jiff::Timestamp;
use serde::Deserialize;

use super::{
    State,
    assets::{Assets, assets},
    card::Card,
    guard::SignedIn,
    pages::{PageProblem, check_csrf, hold_id, page},
    problem::{Kind, Problem},
    record, verdict,
};
use crate::{
    control::{api::HoldView, client},
    hold::State as HoldState,
};

/// Holds on the page.
const HOLDS_MAX: usize = 200;

#[derive(Template)]
#[template(path = "open.html")]
struct OpenPage {
    assets: &'static Assets,
    csrf: String,
    unknown: Vec<Card>,
    granted: Vec<Card>,
    /// How many there are besides.
    left_out: usize,
}

/// What is open at the gates that run; in the record, where none does.
async fn found(state: &State) -> Result<Vec<HoldView>, Problem> {
    let gates = state.hub.gates();
    if gates.is_empty() {
        return record::open(state).await;
    }
    let mut all: Vec<HoldView> = Vec::new();
    for gate in &gates {
        // A gate that ends just now is no error: another on its record tells the same.
        for hold in client::holds(std::slice::from_ref(&**gate)).await.unwrap_or_default() {
            if !all.iter().any(|known| known.id == hold.id) {
                all.push(hold);
            }
        }
    }
    Ok(all)
}

/// The page.
pub(super) async fn list(
    Extracted(state): Extracted<Arc<State>>,
    SignedIn(session): SignedIn,
) -> Result<Response, PageProblem> {
    let now = Timestamp::now();
    let found = found(&state).await?;
    let of = |wanted| found.iter().filter(move |hold| hold.state == wanted);
    let cards = |wanted| of(wanted).take(HOLDS_MAX).map(|hold| Card::brief(hold, now)).collect::<Vec<_>>();
    let (unknown, granted) = (cards(HoldState::Unknown), cards(HoldState::Granted));
    let all = of(HoldState::Unknown).count() + of(HoldState::Granted).count();
    let left_out = all - unknown.len() - granted.len();
    page(&OpenPage { assets: assets(), csrf: session.csrf, unknown, granted, left_out })
}

/// What the form of an unknown call says.
#[derive(Debug, Deserialize)]
pub(super) struct FoundOut {
    #[serde(default)]
    csrf: String,
    /// `yes` or `no`.
    ran: String,
    #[serde(default)]
    comment: String,
}

/// Somebody has found out whether a call ran.
pub(super) async fn resolve(
    Extracted(state): Extracted<Arc<State>>,
    SignedIn(session): SignedIn,
    Path(id): Path<String>,
    form: Result<Form<FoundOut>, FormRejection>,
) -> Result<Response, PageProblem> {
    let Form(form) = form.map_err(|error| Problem::new(Kind::Invalid, error.body_text()))?;
    check_csrf(&session.csrf, &form.csrf)?;
    let id = hold_id(&id)?;
    let has_run = match &*form.ran {
        "yes" => true,
        "no" => false,
        _ => return Err(Problem::new(Kind::Invalid, "it ran, or it did not: `yes` or `no`").into()),
    };
    verdict::resolve_unknown(&state, id, has_run, Some(form.comment), session.identity).await?;
    Ok(Redirect::to(&format!("/holds/{id}")).into_response())
}
