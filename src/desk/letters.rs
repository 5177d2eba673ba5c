//! What a link in a mail opens: one call, whole, and the two buttons, for whoever the mail was for.
//!
//! Called by the routes in `guard`. There is no session: the link says for whom it was made, and whoever has it is taken for
//! them. Looking decides nothing, however often and by whatever program; a form does, once, and goes through `verdict`.

use std::sync::Arc;

use askama::Template;
use axum::{
    extract::{Form, Path, State as Extracted, rejection::FormRejection},
    response::{IntoResponse, Redirect, Response},
};
use jiff::Timestamp;

use super::{
    State,
    assets::{Assets, assets},
    card::{Card, PAGE_FRAME_BYTES_MAX},
    inbound::Once,
    pages::{PageProblem, VerdictForm, page},
    problem::{Kind, Problem},
    tool::ToolCard,
    verdict::{self, Speaker, Spoken},
};
use crate::{
    channels::{Kind as ChannelKind, Link},
    hold::Verdict,
    sanitize,
};

#[derive(Template)]
#[template(path = "letter.html")]
struct LetterPage {
    assets: &'static Assets,
    csrf: String,
    address: String,
    card: Card,
    similar: Vec<Card>,
    tool: Option<ToolCard>,
}

/// What the link says, if it is one that still decides.
fn read(state: &State, name: &str, key: &str) -> Result<Link, Problem> {
    let link = state.links.read(name, key, Timestamp::now());
    // An address that is no longer told does not decide any more either.
    let is_reader = |link: &Link| {
        state.channels.named(name).any(|channel| match &channel.kind {
            ChannelKind::Mail(mail) => mail.decides_as().is_some_and(|address| address == link.address),
            _ => false,
        })
    };
    if let Some(link) = link.filter(is_reader) {
        return Ok(link);
    }
    state.wrong_keys.take().map_err(|seconds| Problem::from(Kind::TooOften(seconds)))?;
    Err(Problem::new(Kind::NotFound, "this link is not valid, or no longer"))
}

/// Shows the call.
pub(super) async fn letter(
    Extracted(state): Extracted<Arc<State>>,
    Path((name, key)): Path<(String, String)>,
) -> Result<Response, PageProblem> {
    let link = read(&state, &name, &key)?;
    let hold = verdict::whole(&state, link.hold).await?;
    let mut card = Card::new(&hold, Timestamp::now());
    card.at = format!("/mail/{name}/{key}");
    let address = sanitize::render(&link.address);
    page(&LetterPage {
        assets: assets(),
        csrf: String::new(),
        address,
        card,
        similar: Vec::new(),
        tool: None,
    })
}

/// Approves, as a form says.
pub(super) async fn approve(
    state: Extracted<Arc<State>>,
    path: Path<(String, String)>,
    form: Result<Form<VerdictForm>, FormRejection>,
) -> Result<Response, PageProblem> {
    decide(state, path, form, Verdict::Approve).await
}

/// Rejects, as a form says.
pub(super) async fn reject(
    state: Extracted<Arc<State>>,
    path: Path<(String, String)>,
    form: Result<Form<VerdictForm>, FormRejection>,
) -> Result<Response, PageProblem> {
    decide(state, path, form, Verdict::Reject).await
}

async fn decide(
    Extracted(state): Extracted<Arc<State>>,
    Path((name, key)): Path<(String, String)>,
    form: Result<Form<VerdictForm>, FormRejection>,
    verdict: Verdict,
) -> Result<Response, PageProblem> {
    let Form(form) = form.map_err(|error| Problem::new(Kind::Invalid, error.body_text()))?;
    let link = read(&state, &name, &key)?;
    if let Some((hold, _)) = state.hub.waiting(link.hold)
        && verdict == Verdict::Approve
        && hold.frame_bytes > PAGE_FRAME_BYTES_MAX
    {
        return Err(Kind::TooLongToShow.into());
    }
    let shown_sha256 = form.shown(verdict)?;
    let once = Once::take(&state, &["mail", &name, &key], link.until).await?;
    let spoken = Spoken {
        id: link.hold,
        verdict,
        comment: Some(form.comment),
        frame_sha256: None,
        shown_sha256,
        speaker: Speaker::Channel(format!("email:{}", link.address)),
    };
    let answer = verdict::decide(&state, spoken).await;
    if answer.is_err() {
        // Nothing was said by it: a reason was missing, or nobody heard.
        once.give_back(&state).await;
    }
    answer?;
    Ok(Redirect::to(&format!("/mail/{name}/{key}")).into_response())
}
