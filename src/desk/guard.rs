//! What stands before every page and every answer: which desk is meant, where a request comes from, who makes it, and what
//! a browser may do with the answer.
//!
//! The routes are here too, so that one file says what can be reached and by whom.

use std::{sync::Arc, time::Duration};

use axum::{
    Extension, Router,
    extract::{DefaultBodyLimit, FromRequestParts, Request, State as Extracted},
    http::{HeaderMap, HeaderName, HeaderValue, Method, header, request::Parts},
    middleware::{self, Next},
    response::{IntoResponse, Redirect, Response},
    routing::{get, post},
};

use super::{
    State, api, assets, events, history, inbound, letters, open, pages,
    pages::PageProblem,
    policies,
    problem::{Kind, Problem},
    session::Session,
    sessions, tool, verdict,
};

/// The longest body of a request, in bytes: a form with a comment.
const BODY_BYTES_MAX: usize = 64 << 10;

/// How long an answer may take to begin: a verdict waits for the disk, a verification reads the whole record.
const ANSWER: Duration = Duration::from_secs(150);

/// Where REST is.
pub(super) const API: &str = "/api/v1";

/// What a browser may do with an answer: nothing that did not come from this desk, and never inside of another page.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
    form-action 'self'; base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types holdshort";

/// Headers of every answer. (With `no-referrer`, browsers would send the origin `null` with forms.)
const HEADERS: [(HeaderName, &str); 8] = [
    (header::CONTENT_SECURITY_POLICY, POLICY),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "same-origin"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (
        HeaderName::from_static("permissions-policy"),
        "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    ),
    // Proxies that keep answers together would keep news back.
    (HeaderName::from_static("x-accel-buffering"), "no"),
];

/// Everything that can be asked of a desk.
pub(super) fn router(state: Arc<State>) -> Router {
    Router::new()
        .route("/", get(pages::waiting))
        .route("/holds/{id}", get(pages::hold))
        .route("/holds/{id}/approve", post(pages::approve))
        .route("/holds/{id}/reject", post(pages::reject))
        .route("/history", get(history::page))
        .route("/history/export", get(history::export))
        .route("/holds/{id}/resolve", post(open::resolve))
        .route("/open", get(open::list))
        .route("/tools/accept", post(tool::accept))
        .route("/policy", get(policies::page))
        .route("/gates", get(sessions::page))
        .route("/events", get(events::page))
        .route("/sign-in", get(pages::sign_in_page).post(pages::sign_in))
        .route("/sign-out", post(pages::sign_out))
        .route("/assets/{name}", get(assets::asset))
        .route("/mail/{name}/{key}", get(letters::letter))
        .route("/mail/{name}/{key}/approve", post(letters::approve))
        .route("/mail/{name}/{key}/reject", post(letters::reject))
        .route(&format!("{}{{name}}", inbound::CHANNELS), post(inbound::channel))
        .nest(API, api::router())
        .fallback(nothing)
        .method_not_allowed_fallback(not_so)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(middleware::from_fn_with_state(Arc::clone(&state), guard))
        .with_state(state)
}

/// Whether programs ask there, by a token or a signature.
fn is_for_programs(path: &str) -> bool {
    path.starts_with(API) || path.starts_with(inbound::CHANNELS)
}

/// A problem in the form that suits whoever asked.
fn tell(path: &str, problem: Problem) -> Response {
    if is_for_programs(path) { problem.into_response() } else { PageProblem::from(problem).into_response() }
}

async fn nothing(request: Request) -> Response {
    tell(request.uri().path(), Kind::NotFound.into())
}

async fn not_so(request: Request) -> Response {
    tell(request.uri().path(), Kind::MethodNotAllowed.into())
}

async fn guard(Extracted(state): Extracted<Arc<State>>, request: Request, next: Next) -> Response {
    let path = request.uri().path().to_owned();
    let mut response = match check(&state, &request) {
        Err(problem) => tell(&path, problem),
        Ok(()) => match tokio::time::timeout(ANSWER, next.run(request)).await {
            Ok(response) => response,
            Err(_) => tell(&path, Kind::Unavailable.into()),
        },
    };
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    // What is shown is not for the next user of this browser.
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// Whether a request means this desk and comes from where it may come from.
fn check(state: &State, request: &Request) -> Result<(), Problem> {
    let headers = request.headers();
    let host = single(headers, &header::HOST).filter(|host| state.address.is_called(host));
    let Some(host) = host.filter(|_| request.uri().authority().is_none()) else {
        return Err(Kind::Misdirected.into());
    };
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    let is_api = is_for_programs(request.uri().path());
    let site = headers.get("sec-fetch-site").map(|value| value.as_bytes());
    match headers.get_all(header::ORIGIN).iter().collect::<Vec<_>>().as_slice() {
        [] => {}
        [one] if one.to_str().is_ok_and(|origin| state.address.is_origin(origin, host)) => return Ok(()),
        // (Programs that send an origin of their own are browsers of a sort.)
        _ => return Err(Kind::Forged.into()),
    }
    // A browser says by itself that a request came from elsewhere; following a link is no harm.
    let is_elsewhere = site.is_some_and(|site| site != b"same-origin" && site != b"none");
    let navigates = headers.get("sec-fetch-mode").is_none_or(|mode| mode == "navigate");
    match (reads, is_api) {
        (true, _) if !is_elsewhere || navigates => Ok(()),
        // A token or a signature is no browser's to send by itself.
        (false, true) if !is_elsewhere => Ok(()),
        (false, false) if site == Some(b"same-origin") => Ok(()),
        _ => Err(Kind::Forged.into()),
    }
}

/// The value of a header that is there once.
pub(super) fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(value)
}

/// Whom the certificate of a connection names, where the listener asks for one: an identity, as policies' `people` have them.
#[derive(Clone)]
pub(super) struct Certified(pub(super) Arc<str>);

impl Certified {
    pub(super) fn identity(Extension(Self(identity)): Extension<Self>) -> String {
        identity.to_string()
    }

    /// The identity on whose connection a request came.
    pub(super) fn of(parts: &Parts) -> Option<String> {
        parts.extensions.get::<Self>().map(|Self(identity)| identity.to_string())
    }
}

/// A request with a session. Without one, a page asks to sign in. A session that began with a certificate is worth nothing on a
/// connection with another one, and nothing once no policy lists whoever it names.
pub(super) struct SignedIn(pub(super) Session);

impl FromRequestParts<Arc<State>> for SignedIn {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, state: &Arc<State>) -> Result<Self, Response> {
        let certified = Certified::of(parts);
        let found = session(state, &parts.headers).filter(|session| session.identity == certified);
        if let Some(session) = found {
            if let Some(identity) = &certified {
                let listed = verdict::check_listed(state, identity).await;
                listed.map_err(|problem| PageProblem::from(problem).into_response())?;
            }
            return Ok(Self(session));
        }
        let navigates = parts.headers.get("sec-fetch-mode").is_none_or(|mode| mode == "navigate");
        if parts.method == Method::GET && navigates {
            return Err(Redirect::to("/sign-in").into_response());
        }
        Err(PageProblem::from(Kind::NotSignedIn).into_response())
    }
}

/// The session of a request's cookie.
fn session(state: &State, headers: &HeaderMap) -> Option<Session> {
    let name = pages::cookie_name(state);
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut values = cookies.flat_map(|value| value.split("; ")).filter_map(|pair| {
        let (found, value) = pair.split_once('=')?;
        (found == name).then_some(value)
    });
    let value = values.next()?;
    // Two of one name: somebody else may have set one of them.
    if values.next().is_some() { None } else { state.sessions.find(value) }
}
