//! The pages: what waits, one hold, the gates. What they say is in the templates beside this file.
//!
//! Called by the routes in `guard`. A page shows; a form on it names a hold and the digest of what was shown, and goes to
//! `verdict`. Every text of a stranger has been through `sanitize` before a template escapes it.

use std::sync::Arc;

use askama::Template;
use axum::{
    Extension,
    extract::{
        Form, Path, Query, State as Extracted,
        rejection::{FormRejection, QueryRejection},
    },
    http::{HeaderMap, header},
    response::{Html, IntoResponse, Redirect, Response},
};
use futures_util::future::join_all;
use jiff::Timestamp;
use serde::Deserialize;

use super::{
    State,
    assets::{Assets, assets},
    card::{Card, PAGE_FRAME_BYTES_MAX},
    guard::{Certified, SignedIn},
    problem::{Kind, Problem},
    record,
    tool::{self, ToolCard},
    verdict::{self, Speaker, Spoken},
};
use crate::{
    control::api::HoldView,
    digest::Digest,
    hold::{HoldId, Verdict},
    sanitize,
};

/// Holds on one page.
pub(super) const PAGE_HOLDS: usize = 100;

/// The longest text to search for, in characters.
const SEARCH_CHARS_MAX: usize = 200;

/// The header by which the script of a page says that it wants a piece of a page.
const PIECE_HEADER: &str = "x-desk-piece";

/// A problem, as a page.
#[derive(Debug)]
pub(super) struct PageProblem(Problem);

impl<P: Into<Problem>> From<P> for PageProblem {
    fn from(problem: P) -> Self {
        Self(problem.into())
    }
}

impl IntoResponse for PageProblem {
    fn into_response(self) -> Response {
        let Self(problem) = self;
        let detail = sanitize::render(&problem.detail);
        let hold = problem.hold.as_ref().map(|hold| Card::brief(hold, Timestamp::now()));
        let page = ProblemPage { assets: assets(), title: problem.title(), detail, hold };
        let html = page.render().unwrap_or_else(|_| problem.title().to_owned());
        problem.respond("text/html; charset=utf-8", html)
    }
}

#[derive(Template)]
#[template(path = "problem.html")]
struct ProblemPage {
    assets: &'static Assets,
    title: &'static str,
    detail: String,
    hold: Option<Card>,
}

pub(super) fn page(template: &impl Template) -> Result<Response, PageProblem> {
    let html = template.render().map_err(|error| {
        tracing::error!(%error, "a page cannot be written");
        Problem::from(Kind::Unavailable)
    })?;
    Ok(Html(html).into_response())
}

#[derive(Template)]
#[template(path = "row.html")]
struct RowPiece {
    card: Card,
    csrf: String,
}

/// A hold's row on the page of what waits, as it is sent to open pages. The form in it gets its proof from the page.
pub(super) fn row_html(hold: &HoldView, now: Timestamp) -> String {
    RowPiece { card: Card::row(hold, now), csrf: String::new() }.render().unwrap_or_default()
}

// --- what waits

/// What can be asked of the page of what waits.
#[derive(Debug, Default, Deserialize)]
pub(super) struct WaitingQuery {
    /// Only those after this hold.
    after: Option<HoldId>,
    /// Only those that say this.
    #[serde(default)]
    q: String,
    /// A hold that has just been decided.
    said: Option<HoldId>,
}

#[derive(Template)]
#[template(path = "waiting.html")]
struct WaitingPage {
    assets: &'static Assets,
    csrf: String,
    cards: Vec<Card>,
    said: Option<Card>,
    waiting: usize,
    found: usize,
    next: Option<String>,
    first: String,
    is_first: bool,
    q: String,
    gates: usize,
    /// What is said of gates that do not answer.
    silent: Vec<String>,
}

/// What waits, the oldest first.
pub(super) async fn waiting(
    Extracted(state): Extracted<Arc<State>>,
    SignedIn(session): SignedIn,
    query: Result<Query<WaitingQuery>, QueryRejection>,
) -> Result<Response, PageProblem> {
    let Query(query) = query.map_err(|error| Problem::new(Kind::Invalid, error.body_text()))?;
    let found = listed(&state, query.after, &query.q, PAGE_HOLDS).await?;
    let holds = join_all(found.holds.into_iter().map(|hold| state.hub.with_frame(hold))).await;
    let said = match query.said {
        Some(id) => Some(verdict::whole(&state, id).await?),
        None => None,
    };
    let now = Timestamp::now();
    page(&WaitingPage {
        assets: assets(),
        csrf: session.csrf,
        cards: holds.iter().map(|hold| Card::row(hold, now)).collect(),
        said: said.map(|hold| Card::brief(&hold, now)),
        waiting: found.waiting,
        found: found.found,
        next: found.next.map(|id| link("/", &[("after", &id.to_string()), ("q", &query.q)])),
        first: link("/", &[("q", &query.q)]),
        is_first: query.after.is_none(),
        q: query.q,
        gates: found.gates,
        silent: state.hub.board().silent().map(|silent| sanitize::render(&silent.to_string())).collect(),
    })
}

/// A path with what stands behind the `?`; what is empty is left out.
pub(super) fn link(path: &str, query: &[(&str, &str)]) -> String {
    let said = query.iter().filter(|(_, value)| !value.is_empty());
    let query = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(said).finish();
    if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") }
}

/// A page of what waits.
pub(super) struct Listed {
    pub(super) holds: Vec<Arc<HoldView>>,
    pub(super) next: Option<HoldId>,
    pub(super) waiting: usize,
    /// How many of them say what was searched for.
    pub(super) found: usize,
    pub(super) gates: usize,
}

/// Whether a text to search for is not too long.
pub(super) fn check_search(text: &str) -> Result<(), Problem> {
    match text.chars().nth(SEARCH_CHARS_MAX) {
        Some(_) => Err(Problem::new(Kind::Invalid, "the text to search for is too long")),
        None => Ok(()),
    }
}

/// What waits, the oldest first, behind `after`, if it says `text`.
pub(super) async fn listed(
    state: &State,
    after: Option<HoldId>,
    text: &str,
    limit: usize,
) -> Result<Listed, Problem> {
    check_search(text)?;
    let text = text.trim().to_lowercase();
    if state.hub.gates().is_empty() {
        return in_record(record::waiting(state).await?, after, &text, limit);
    }
    let board = state.hub.board();
    let matches = |hold: &&Arc<HoldView>| text.is_empty() || super::history::says(hold, &text);
    let found = if text.is_empty() { board.len() } else { board.holds().filter(matches).count() };
    // One that has ended meanwhile is not there to go on from: then the list begins anew.
    let place = after.and_then(|id| board.hold(id)).map(|hold| (hold.created_at, hold.id));
    let mut holds: Vec<_> = match place {
        Some((at, id)) => board.holds_after(at, id).filter(matches).take(limit + 1).map(Arc::clone).collect(),
        None => board.holds().filter(matches).take(limit + 1).map(Arc::clone).collect(),
    };
    let has_more = holds.len() > limit;
    holds.truncate(limit);
    let next = if has_more { holds.last().map(|hold| hold.id) } else { None };
    Ok(Listed { holds, next, waiting: board.len(), found, gates: board.gates().count() })
}

/// The same where no gate runs: what waits in the record for its call to be made again.
fn in_record(
    all: Vec<Arc<HoldView>>,
    after: Option<HoldId>,
    text: &str,
    limit: usize,
) -> Result<Listed, Problem> {
    let waiting = all.len();
    let mut holds = all;
    holds.retain(|hold| text.is_empty() || super::history::says(hold, text));
    let found = holds.len();
    let begin = after.and_then(|id| holds.iter().position(|hold| hold.id == id)).map_or(0, |at| at + 1);
    let mut holds = holds.split_off(begin);
    let has_more = holds.len() > limit;
    holds.truncate(limit);
    let next = if has_more { holds.last().map(|hold| hold.id) } else { None };
    Ok(Listed { holds, next, waiting, found, gates: 0 })
}

// --- one hold

#[derive(Template)]
#[template(path = "hold.html")]
struct HoldPage {
    assets: &'static Assets,
    csrf: String,
    card: Card,
    similar: Vec<Card>,
    tool: Option<ToolCard>,
}

#[derive(Template)]
#[template(path = "card.html")]
struct CardPiece {
    csrf: String,
    card: Card,
    similar: Vec<Card>,
    tool: Option<ToolCard>,
}

/// One hold, whole.
pub(super) async fn hold(
    Extracted(state): Extracted<Arc<State>>,
    SignedIn(session): SignedIn,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, PageProblem> {
    let hold = verdict::whole(&state, hold_id(&id)?).await?;
    let now = Timestamp::now();
    let similar = super::history::similar(&state, &hold).await?;
    let similar = similar.iter().map(|other| Card::brief(other, now)).collect();
    let card = Card::new(&hold, now);
    let tool = tool::of(&state, &hold).await;
    if headers.contains_key(PIECE_HEADER) {
        return page(&CardPiece { csrf: session.csrf, card, similar, tool });
    }
    page(&HoldPage { assets: assets(), csrf: session.csrf, card, similar, tool })
}

pub(super) fn hold_id(text: &str) -> Result<HoldId, Problem> {
    text.parse().map_err(|_| Problem::from(Kind::NotFound))
}

/// What the form of a hold says.
#[derive(Debug, Deserialize)]
pub(super) struct VerdictForm {
    #[serde(default)]
    csrf: String,
    shown: String,
    #[serde(default)]
    pub(super) comment: String,
}

impl VerdictForm {
    /// The digest of what the page has shown. None: that was not all, and then the form can only reject.
    pub(super) fn shown(&self, verdict: Verdict) -> Result<Option<Digest>, Problem> {
        match Digest::from_hex(&self.shown) {
            None if !self.shown.is_empty() || verdict == Verdict::Approve => {
                Err(Kind::NotWhatWasShown.into())
            }
            shown => Ok(shown),
        }
    }
}

/// Approves, as a form says.
pub(super) async fn approve(
    state: Extracted<Arc<State>>,
    session: SignedIn,
    id: Path<String>,
    headers: HeaderMap,
    form: Result<Form<VerdictForm>, FormRejection>,
) -> Result<Response, PageProblem> {
    decide(state, session, id, headers, form, Verdict::Approve).await
}

/// Rejects, as a form says.
pub(super) async fn reject(
    state: Extracted<Arc<State>>,
    session: SignedIn,
    id: Path<String>,
    headers: HeaderMap,
    form: Result<Form<VerdictForm>, FormRejection>,
) -> Result<Response, PageProblem> {
    decide(state, session, id, headers, form, Verdict::Reject).await
}

async fn decide(
    Extracted(state): Extracted<Arc<State>>,
    SignedIn(session): SignedIn,
    Path(id): Path<String>,
    headers: HeaderMap,
    form: Result<Form<VerdictForm>, FormRejection>,
    verdict: Verdict,
) -> Result<Response, PageProblem> {
    let Form(form) = form.map_err(|error| Problem::new(Kind::Invalid, error.body_text()))?;
    check_csrf(&session.csrf, &form.csrf)?;
    let id = hold_id(&id)?;
    let is_long = |hold: &HoldView| hold.frame_bytes > PAGE_FRAME_BYTES_MAX;
    if verdict == Verdict::Approve {
        let long = match state.hub.waiting(id) {
            Some((hold, _)) => is_long(&hold),
            None => verdict::whole(&state, id).await.is_ok_and(|hold| is_long(&hold)),
        };
        if long {
            return Err(Kind::TooLongToShow.into());
        }
    }
    let shown_sha256 = form.shown(verdict)?;
    let speaker = Speaker::on_connection(session.identity);
    let spoken =
        Spoken { id, verdict, comment: Some(form.comment), frame_sha256: None, shown_sha256, speaker };
    verdict::decide(&state, spoken).await?;
    if headers.contains_key(PIECE_HEADER) {
        let hold = verdict::whole(&state, id).await?;
        let row = RowPiece { card: Card::brief(&hold, Timestamp::now()), csrf: session.csrf };
        return page(&row);
    }
    Ok(Redirect::to(&format!("/?said={id}")).into_response())
}

/// Whether a form was made by a page of this session.
pub(super) fn check_csrf(expected: &str, said: &str) -> Result<(), Problem> {
    // Digests are compared, so that the time says nothing.
    if Digest::of(expected.as_bytes()) == Digest::of(said.as_bytes()) {
        Ok(())
    } else {
        Err(Kind::Forged.into())
    }
}

// --- signing in and out

#[derive(Template)]
#[template(path = "sign_in.html")]
struct SignInPage {
    assets: &'static Assets,
    key: String,
    /// Whom the connection's certificate names.
    certified: Option<String>,
}

/// What the link of a desk says.
#[derive(Debug, Default, Deserialize)]
pub(super) struct SignInQuery {
    #[serde(default)]
    key: String,
}

/// Asks for a click: looking at a link must not use it up.
pub(super) async fn sign_in_page(
    certified: Option<Extension<Certified>>,
    query: Result<Query<SignInQuery>, QueryRejection>,
) -> Result<Response, PageProblem> {
    let Query(query) = query.map_err(|error| Problem::new(Kind::Invalid, error.body_text()))?;
    page(&SignInPage { assets: assets(), key: query.key, certified: certified.map(Certified::identity) })
}

/// Begins a session.
pub(super) async fn sign_in(
    Extracted(state): Extracted<Arc<State>>,
    certified: Option<Extension<Certified>>,
    form: Result<Form<SignInQuery>, FormRejection>,
) -> Result<Response, PageProblem> {
    let Form(form) = form.map_err(|error| Problem::new(Kind::Invalid, error.body_text()))?;
    let identity = certified.map(Certified::identity);
    match &identity {
        Some(identity) => verdict::check_listed(&state, identity).await?,
        None => use_link(&state, form.key.trim())?,
    }
    // A new name, always: whoever gave the browser a cookie before knows nothing of this one.
    let name = state.sessions.begin(identity).map_err(|_| Problem::from(Kind::Unavailable))?;
    let cookie = format!("{}={name}; Path=/; Secure; HttpOnly; SameSite=Strict", cookie_name(&state));
    Ok(([(header::SET_COOKIE, cookie)], Redirect::to("/")).into_response())
}

/// Uses up the link with this key.
fn use_link(state: &State, key: &str) -> Result<(), Problem> {
    let used = state.keys.use_sign_in(key).map_err(|error| {
        tracing::warn!(error = &error as &dyn std::error::Error, "the desk's keys cannot be used");
        Problem::new(Kind::Unavailable, "the desk's keys cannot be used")
    })?;
    if !used {
        state.wrong_keys.take().map_err(|seconds| Problem::from(Kind::TooOften(seconds)))?;
        tracing::warn!("somebody tried to sign in with a link that is not valid, or no longer");
        let how = "a link works once, for a short time; `holdshort desk link` prints another";
        return Err(Problem::new(Kind::NotSignedIn, how));
    }
    Ok(())
}

/// Browsers tell cookies apart by host, not by port: the port is in the name, so that two desks do not overwrite each other.
pub(super) fn cookie_name(state: &State) -> String {
    format!("__Host-holdshort-{}", state.address.listen.port())
}

/// What the form for signing out says.
#[derive(Debug, Deserialize)]
pub(super) struct SignOutForm {
    #[serde(default)]
    csrf: String,
}

/// Ends the session.
pub(super) async fn sign_out(
    Extracted(state): Extracted<Arc<State>>,
    SignedIn(session): SignedIn,
    form: Result<Form<SignOutForm>, FormRejection>,
) -> Result<Response, PageProblem> {
    let Form(form) = form.map_err(|error| Problem::new(Kind::Invalid, error.body_text()))?;
    check_csrf(&session.csrf, &form.csrf)?;
    state.sessions.end(session.id);
    let cookie = format!("{}=; Path=/; Secure; HttpOnly; SameSite=Strict; Max-Age=0", cookie_name(&state));
    Ok(([(header::SET_COOKIE, cookie)], Redirect::to("/sign-in")).into_response())
}
