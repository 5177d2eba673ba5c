//! REST, as `openapi.json` beside this file describes it: what waits, what was, verdicts, news, the record.
//!
//! Called by the routes in `guard`. Everybody says a token, or shows a certificate where the listener asks for one; a browser's session
//! is worth nothing here, and what comes from another site's page is refused in `guard`. A verdict goes through `verdict`, as that of a page.

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{
        FromRequestParts, Path, Query, State as Extracted,
        rejection::{BytesRejection, QueryRejection},
    },
    http::{HeaderMap, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    State, events,
    guard::Certified,
    history::{self, Asked},
    keys::{Key, Scope},
    pages,
    problem::{Kind, Problem},
    verdict::{self, Speaker, Spoken},
};
use crate::{
    audit::Checkpoint,
    control::api::{GateInfo, HoldView, Resolved, VerificationView},
    digest::Digest,
    hold::{COMMENT_CHARS_MAX, HoldId, Proof, State as HoldState, Verdict},
};

/// Holds in one answer at most.
const LIMIT_MAX: usize = 200;

/// Holds in one answer where nobody says how many.
const LIMIT_DEFAULT: usize = 50;

/// How long a question about a state may wait for a change, in seconds.
const WAIT_SECONDS_MAX: u64 = 60;

/// The description of all this.
const OPENAPI: &str = include_str!("openapi.json");

/// The routes, below `/api/v1`.
pub(super) fn router() -> Router<Arc<State>> {
    Router::new()
        .route("/openapi.json", get(openapi))
        .route("/holds", get(holds))
        .route("/holds/{id}", get(hold))
        .route("/holds/{id}/status", get(status))
        .route("/holds/{id}/approve", post(approve))
        .route("/holds/{id}/reject", post(reject))
        .route("/holds/{id}/resolve", post(resolve))
        .route("/holds/{id}/statement", get(statement))
        .route("/history", get(history))
        .route("/events", get(news))
        .route("/gates", get(gates))
        .route("/audit", get(audit))
        .route("/audit/verification", get(verification))
}

/// What whoever has a certificate may do that a policy lists.
const OF_CERTIFICATES: [Scope; 3] = [Scope::Read, Scope::Decide, Scope::Status];

/// Who asks: by their token, by the certificate of their connection, or by both.
struct Asker {
    scopes: Vec<Scope>,
    /// The token's name, or the certificate's identity.
    name: String,
    /// The text of the token.
    token: Option<String>,
    /// Whom the certificate names.
    identity: Option<String>,
}

impl Asker {
    /// Refuses whoever may not do this.
    fn may(&self, scope: Scope) -> Result<(), Problem> {
        if self.scopes.contains(&scope) {
            return Ok(());
        }
        let what = if self.token.is_some() { "this token" } else { "a certificate without a token" };
        Err(Problem::new(Kind::NotAllowed, format!("{what} is not for `{}`", scope.word())))
    }
}

impl FromRequestParts<Arc<State>> for Asker {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &Arc<State>) -> Result<Self, Problem> {
        let identity = Certified::of(parts);
        let Some(text) = token_of(&parts.headers) else {
            // What is in its place and cannot be read is no token, and not nothing.
            let is_empty = !parts.headers.contains_key(header::AUTHORIZATION);
            let Some(identity) = identity.filter(|_| is_empty) else { return Err(Kind::NotSignedIn.into()) };
            verdict::check_listed(state, &identity).await?;
            let (scopes, name) = (OF_CERTIFICATES.to_vec(), identity.clone());
            return Ok(Self { scopes, name, token: None, identity: Some(identity) });
        };
        match key_of(state, text)? {
            Some(key) => Ok(Self {
                scopes: key.scopes,
                name: key.name.unwrap_or_default(),
                token: Some(text.to_owned()),
                identity,
            }),
            None => {
                state.wrong_keys.take().map_err(|seconds| Problem::from(Kind::TooOften(seconds)))?;
                Err(Problem::new(Kind::NotSignedIn, "this token is not valid, or no longer"))
            }
        }
    }
}

/// The token of an `Authorization: Bearer` header (RFC 6750), if there is one such header.
fn token_of(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (scheme, token) = values.next()?.to_str().ok()?.split_once(' ')?;
    (scheme.eq_ignore_ascii_case("bearer") && values.next().is_none()).then_some(token.trim())
}

fn key_of(state: &State, text: &str) -> Result<Option<Key>, Problem> {
    state.keys.token(text).map_err(|error| {
        tracing::warn!(error = &error as &dyn std::error::Error, "the desk's keys cannot be read");
        Problem::new(Kind::Unavailable, "the desk's keys cannot be read")
    })
}

/// What stands behind the `?`, read whole or not at all.
type Asking<T> = Result<Query<T>, QueryRejection>;

fn asked<T>(query: Asking<T>) -> Result<T, Problem> {
    query.map(|Query(query)| query).map_err(|error| Problem::new(Kind::Invalid, error.body_text()))
}

async fn openapi() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], OPENAPI).into_response()
}

// --- what waits and what was

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct HoldsQuery {
    after: Option<HoldId>,
    limit: Option<usize>,
    #[serde(default)]
    q: String,
}

/// One page of a list.
#[derive(Serialize)]
struct Listed {
    holds: Vec<HoldView>,
    /// From where to go on.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<HoldId>,
}

fn limit(asked: Option<usize>) -> Result<usize, Problem> {
    match asked.unwrap_or(LIMIT_DEFAULT) {
        limit @ 1..=LIMIT_MAX => Ok(limit),
        _ => Err(Problem::new(Kind::Invalid, format!("the limit is from 1 to {LIMIT_MAX}"))),
    }
}

async fn holds(
    Extracted(state): Extracted<Arc<State>>,
    asker: Asker,
    query: Asking<HoldsQuery>,
) -> Result<Json<Listed>, Problem> {
    asker.may(Scope::Read)?;
    let query = asked(query)?;
    let found = pages::listed(&state, query.after, &query.q, limit(query.limit)?).await?;
    let holds = found.holds.iter().map(|hold| HoldView::clone(hold)).collect();
    Ok(Json(Listed { holds, next: found.next }))
}

async fn hold(
    Extracted(state): Extracted<Arc<State>>,
    asker: Asker,
    Path(id): Path<String>,
) -> Result<Json<HoldView>, Problem> {
    asker.may(Scope::Read)?;
    Ok(Json(verdict::whole(&state, pages::hold_id(&id)?).await?))
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct HistoryQuery {
    before: Option<HoldId>,
    limit: Option<usize>,
    #[serde(default)]
    state: String,
    #[serde(default)]
    server: String,
    #[serde(default)]
    tool: String,
    #[serde(default)]
    q: String,
}

async fn history(
    Extracted(state): Extracted<Arc<State>>,
    asker: Asker,
    query: Asking<HistoryQuery>,
) -> Result<Json<Listed>, Problem> {
    asker.may(Scope::Read)?;
    let query = asked(query)?;
    let limit = limit(query.limit)?;
    let HistoryQuery { before, state: word, server, tool, q, .. } = query;
    let found = history::find(&state.store, &Asked { before, state: word, server, tool, q }, limit).await?;
    Ok(Json(Listed { holds: found.holds, next: found.next }))
}

// --- how one hold stands

/// How a hold stands, without anything of what is in it.
#[derive(Serialize)]
struct Status {
    id: HoldId,
    state: HoldState,
    /// Whether people can still decide.
    waits: bool,
    /// Whether it was approved; the state says whether it has run.
    approved: bool,
    /// Whether the state can still change.
    #[serde(rename = "final")]
    is_final: bool,
    created_at: Timestamp,
    expires_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    ended_at: Option<Timestamp>,
}

impl From<&HoldView> for Status {
    fn from(hold: &HoldView) -> Self {
        Self {
            id: hold.id,
            state: hold.state,
            waits: hold.state == HoldState::Held,
            approved: match hold.state {
                HoldState::Held
                | HoldState::Rejected
                | HoldState::Expired
                | HoldState::Withdrawn
                | HoldState::Unavailable => false,
                HoldState::Granted
                | HoldState::Forwarding
                | HoldState::Answered
                | HoldState::Unknown
                | HoldState::Ran
                | HoldState::NotRun
                | HoldState::Lapsed => true,
            },
            is_final: !hold.state.is_open(),
            created_at: hold.created_at,
            expires_at: hold.expires_at,
            ended_at: hold.ended_at,
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct StatusQuery {
    /// Wait so many seconds at most until it does not wait any more.
    wait: Option<u64>,
}

/// How a hold stands. With `wait`, the answer comes when it is decided, or when the time is over.
async fn status(
    Extracted(state): Extracted<Arc<State>>,
    asker: Asker,
    Path(id): Path<String>,
    query: Asking<StatusQuery>,
) -> Result<Json<Status>, Problem> {
    if asker.may(Scope::Read).is_err() {
        asker.may(Scope::Status)?;
    }
    let seconds = asked(query)?.wait.unwrap_or(0);
    if seconds > WAIT_SECONDS_MAX {
        return Err(Problem::new(Kind::Invalid, format!("wait is at most {WAIT_SECONDS_MAX} seconds")));
    }
    let id = pages::hold_id(&id)?;
    let decided = until_decided(&state, id);
    let hold = match seconds {
        0 => verdict::whole(&state, id).await?,
        _ => match tokio::time::timeout(Duration::from_secs(seconds), decided).await {
            Ok(hold) => hold?,
            Err(_) => verdict::whole(&state, id).await?,
        },
    };
    Ok(Json(Status::from(&hold)))
}

/// The hold as soon as it does not wait any more.
async fn until_decided(state: &State, id: HoldId) -> Result<HoldView, Problem> {
    // First the subscription, then the look: nothing happens in between unheard.
    let mut news = state.hub.watch();
    loop {
        let hold = verdict::whole(state, id).await?;
        if hold.state != HoldState::Held {
            return Ok(hold);
        }
        // What is about another hold, and only that, is no reason to look again.
        while let Ok(heard) = news.recv().await
            && heard.hold.as_ref().is_some_and(|other| other.id != id)
        {}
    }
}

// --- verdicts

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ApproveBody {
    #[serde(default)]
    comment: Option<String>,
    #[serde(default)]
    frame_sha256: Option<String>,
    #[serde(default)]
    shown_sha256: Option<Digest>,
    #[serde(default)]
    proof: Option<ProofBody>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RejectBody {
    reason: String,
    #[serde(default)]
    frame_sha256: Option<String>,
    #[serde(default)]
    shown_sha256: Option<Digest>,
    #[serde(default)]
    proof: Option<ProofBody>,
}

/// A statement and its signature: whoever has signed is the approver.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ProofBody {
    statement: String,
    signature: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ResolveBody {
    ran: bool,
    #[serde(default)]
    comment: Option<String>,
}

/// Reads a JSON object. (A structure would be read from an array too.)
fn body<'a, T: Deserialize<'a>>(
    headers: &HeaderMap,
    body: &'a Result<Bytes, BytesRejection>,
) -> Result<T, Problem> {
    let body = body.as_ref().map_err(|error| match error.status() {
        StatusCode::PAYLOAD_TOO_LARGE => Problem::from(Kind::TooLarge),
        _ => Problem::new(Kind::Invalid, error.body_text()),
    })?;
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let is_json = content_type.is_some_and(|value| {
        value.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
    });
    if !is_json {
        return Err(Problem::new(Kind::UnsupportedMediaType, "the body is JSON (application/json)"));
    }
    if body.iter().find(|byte| !byte.is_ascii_whitespace()) != Some(&b'{') {
        return Err(Problem::new(Kind::Invalid, "the body is a JSON object"));
    }
    serde_json::from_slice(body).map_err(|error| Problem::new(Kind::Invalid, error.to_string()))
}

async fn approve(
    Extracted(state): Extracted<Arc<State>>,
    asker: Asker,
    Path(id): Path<String>,
    headers: HeaderMap,
    bytes: Result<Bytes, BytesRejection>,
) -> Result<Json<Resolved>, Problem> {
    asker.may(Scope::Decide)?;
    let ApproveBody { comment, frame_sha256, shown_sha256, proof } = body(&headers, &bytes)?;
    let said = Said { verdict: Verdict::Approve, comment, frame_sha256, shown_sha256, proof };
    decide(&state, &asker, &id, said).await
}

async fn reject(
    Extracted(state): Extracted<Arc<State>>,
    asker: Asker,
    Path(id): Path<String>,
    headers: HeaderMap,
    bytes: Result<Bytes, BytesRejection>,
) -> Result<Json<Resolved>, Problem> {
    asker.may(Scope::Decide)?;
    let RejectBody { reason, frame_sha256, shown_sha256, proof } = body(&headers, &bytes)?;
    let said = Said { verdict: Verdict::Reject, comment: Some(reason), frame_sha256, shown_sha256, proof };
    decide(&state, &asker, &id, said).await
}

/// What a program says of a hold.
struct Said {
    verdict: Verdict,
    comment: Option<String>,
    frame_sha256: Option<String>,
    shown_sha256: Option<Digest>,
    proof: Option<ProofBody>,
}

async fn decide(state: &State, asker: &Asker, id: &str, said: Said) -> Result<Json<Resolved>, Problem> {
    let Said { verdict, comment, frame_sha256, shown_sha256, proof } = said;
    check_comment(comment.as_deref())?;
    if let (Some(proof), Some(shown)) = (&proof, shown_sha256)
        && !proof.statement.contains(&format!("\nshown-sha256: {shown}\n"))
    {
        return Err(Kind::NotWhatWasShown.into());
    }
    let id = pages::hold_id(id)?;
    let speaker = match proof {
        Some(ProofBody { statement, signature }) => Speaker::Signer(Proof { statement, signature }),
        None => Speaker::on_connection(asker.identity.clone()),
    };
    let spoken = Spoken { id, verdict, comment, frame_sha256, shown_sha256, speaker };
    let resolved = verdict::decide(state, spoken).await?;
    tracing::info!(%id, by = asker.name, "a verdict came by REST");
    Ok(Json(resolved))
}

fn check_comment(comment: Option<&str>) -> Result<(), Problem> {
    if comment.is_some_and(|comment| comment.chars().count() > COMMENT_CHARS_MAX) {
        let detail = format!("a comment or reason has at most {COMMENT_CHARS_MAX} characters");
        return Err(Problem::new(Kind::Invalid, detail));
    }
    Ok(())
}

/// Somebody has found out whether a call ran of which nobody knew.
async fn resolve(
    Extracted(state): Extracted<Arc<State>>,
    asker: Asker,
    Path(id): Path<String>,
    headers: HeaderMap,
    bytes: Result<Bytes, BytesRejection>,
) -> Result<Json<Resolved>, Problem> {
    asker.may(Scope::Decide)?;
    let ResolveBody { ran, comment } = body(&headers, &bytes)?;
    check_comment(comment.as_deref())?;
    let id = pages::hold_id(&id)?;
    let resolved = verdict::resolve_unknown(&state, id, ran, comment, asker.identity).await?;
    tracing::info!(%id, by = asker.name, "what became of a call came by REST");
    Ok(Json(resolved))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct StatementQuery {
    verdict: Verdict,
    /// The comment, or the reason.
    #[serde(default)]
    comment: String,
}

/// What a verdict with a signature is over, for whoever has been shown the call and signs it.
async fn statement(
    Extracted(state): Extracted<Arc<State>>,
    asker: Asker,
    Path(id): Path<String>,
    query: Asking<StatementQuery>,
) -> Result<Response, Problem> {
    asker.may(Scope::Read)?;
    let StatementQuery { verdict, comment } = asked(query)?;
    check_comment(Some(&comment))?;
    let hold = verdict::whole(&state, pages::hold_id(&id)?).await?;
    if hold.state != HoldState::Held {
        return Err(verdict::ended(hold));
    }
    let statement = hold.statement(verdict, Some(&comment));
    let statement = statement.ok_or_else(|| Problem::new(Kind::Unavailable, "this call cannot be signed"))?;
    Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], statement.to_string()).into_response())
}

// --- news, gates, the record

async fn news(Extracted(state): Extracted<Arc<State>>, asker: Asker) -> Result<Response, Problem> {
    asker.may(Scope::Read)?;
    // A token that is revoked or runs out hears nothing more. A certificate is good for as long as its connection.
    let token = asker.token;
    let still_may =
        move |state: &State| token.as_ref().is_none_or(|text| matches!(key_of(state, text), Ok(Some(_))));
    events::stream(&state, events::Form::Json, Box::new(still_may))
}

async fn gates(
    Extracted(state): Extracted<Arc<State>>,
    asker: Asker,
) -> Result<Json<Vec<GateInfo>>, Problem> {
    asker.may(Scope::Read)?;
    Ok(Json(super::sessions::gate_infos(&state).await))
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct AuditQuery {
    /// Only lines behind this number.
    after: Option<u64>,
}

async fn audit(
    Extracted(state): Extracted<Arc<State>>,
    asker: Asker,
    query: Asking<AuditQuery>,
) -> Result<Response, Problem> {
    asker.may(Scope::Audit)?;
    Ok(history::audit(&state, asked(query)?.after.unwrap_or(0)))
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct VerificationQuery {
    /// A checkpoint that was kept.
    against: Option<String>,
}

async fn verification(
    Extracted(state): Extracted<Arc<State>>,
    asker: Asker,
    query: Asking<VerificationQuery>,
) -> Result<Json<VerificationView>, Problem> {
    asker.may(Scope::Audit)?;
    let against = asked(query)?.against.map(|text| text.parse::<Checkpoint>()).transpose();
    let against = against.map_err(|error| Problem::new(Kind::Invalid, error.to_string()))?;
    let found = state.store.verify(against).await.map_err(|error| verdict::unavailable(&error))?;
    Ok(Json(VerificationView::from(&found)))
}
