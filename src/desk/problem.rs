//! What a desk answers when it does not do what was asked: problem details (RFC 9457), or a page that says the same.
//!
//! Used by everything that answers. The words are for people outside: no path and no secret is in them.

use axum::{
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;

use crate::control::api::HoldView;

/// The longest detail, in characters: it may quote what was sent.
const DETAIL_CHARS_MAX: usize = 300;

/// What can go wrong, each with a name of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// What was sent is not what is asked for.
    Invalid,
    /// A rejection says why.
    ReasonMissing,
    /// Nobody knows who asks.
    NotSignedIn,
    /// Whoever asks may not.
    NotAllowed,
    /// The request did not come from a page of this desk.
    Forged,
    /// There is nothing of this name.
    NotFound,
    /// Not with this method.
    MethodNotAllowed,
    /// The hold has ended already.
    Ended,
    /// It still waits, or runs: nobody has to find out what became of it.
    NotUnknown,
    /// What was shown is not what waits.
    NotWhatWasShown,
    /// The call is longer than a page shows.
    TooLongToShow,
    /// More than is read.
    TooLarge,
    /// Not in this form.
    UnsupportedMediaType,
    /// This desk is called otherwise.
    Misdirected,
    /// It came before, and counted then.
    Repeated,
    /// Too often; again after so many seconds.
    TooOften(u64),
    /// The gate or the record does not answer.
    Unavailable,
}

impl Kind {
    fn status(self) -> StatusCode {
        match self {
            Self::Invalid => StatusCode::BAD_REQUEST,
            Self::ReasonMissing => StatusCode::UNPROCESSABLE_ENTITY,
            Self::NotSignedIn => StatusCode::UNAUTHORIZED,
            Self::NotAllowed | Self::Forged => StatusCode::FORBIDDEN,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::Ended | Self::NotUnknown | Self::NotWhatWasShown | Self::TooLongToShow | Self::Repeated => {
                StatusCode::CONFLICT
            }
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Misdirected => StatusCode::MISDIRECTED_REQUEST,
            Self::TooOften(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// The name, as the end of the problem's type.
    fn name(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::ReasonMissing => "reason-missing",
            Self::NotSignedIn => "not-signed-in",
            Self::NotAllowed => "not-allowed",
            Self::Forged => "not-from-here",
            Self::NotFound => "not-found",
            Self::MethodNotAllowed => "method-not-allowed",
            Self::Ended => "ended",
            Self::NotUnknown => "not-unknown",
            Self::NotWhatWasShown => "not-what-was-shown",
            Self::TooLongToShow => "too-long-to-show",
            Self::TooLarge => "too-large",
            Self::UnsupportedMediaType => "unsupported-media-type",
            Self::Misdirected => "misdirected",
            Self::Repeated => "repeated",
            Self::TooOften(_) => "too-often",
            Self::Unavailable => "unavailable",
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::Invalid => "The request is not what is asked for here",
            Self::ReasonMissing => "A rejection needs a reason",
            Self::NotSignedIn => "Sign in first",
            Self::NotAllowed => "Not allowed",
            Self::Forged => "The request did not come from a page of this desk",
            Self::NotFound => "Not found",
            Self::MethodNotAllowed => "Not with this method",
            Self::Ended => "The hold waits no longer",
            Self::NotUnknown => "What became of the call is no question yet",
            Self::NotWhatWasShown => "What was shown is not what waits",
            Self::TooLongToShow => "The call is longer than a page shows",
            Self::TooLarge => "Too large",
            Self::UnsupportedMediaType => "Not in this form",
            Self::Misdirected => "This desk is not called so",
            Self::Repeated => "It came before",
            Self::TooOften(_) => "Too often",
            Self::Unavailable => "Not available",
        }
    }
}

/// Why nothing came of a request.
#[derive(Clone, Debug)]
pub(super) struct Problem {
    pub(super) kind: Kind,
    /// More than the title, for people.
    pub(super) detail: String,
    /// The hold it is about, if it has ended.
    pub(super) hold: Option<Box<HoldView>>,
}

impl Problem {
    pub(super) fn new(kind: Kind, detail: impl Into<String>) -> Self {
        let detail: String = detail.into().chars().take(DETAIL_CHARS_MAX).collect();
        Self { kind, detail, hold: None }
    }

    pub(super) fn title(&self) -> &'static str {
        self.kind.title()
    }

    pub(super) fn status(&self) -> StatusCode {
        self.kind.status()
    }

    /// The headers that belong to it, on whatever says it.
    pub(super) fn respond(&self, content_type: &'static str, body: String) -> Response {
        let mut response = (self.status(), [(header::CONTENT_TYPE, content_type)], body).into_response();
        let headers = response.headers_mut();
        match self.kind {
            Kind::TooOften(seconds) => {
                headers.insert(header::RETRY_AFTER, seconds.into());
            }
            Kind::NotSignedIn => {
                headers.insert(header::WWW_AUTHENTICATE, header::HeaderValue::from_static("Bearer"));
            }
            _ => {}
        }
        response
    }
}

impl From<Kind> for Problem {
    fn from(kind: Kind) -> Self {
        Self::new(kind, "")
    }
}

/// As problem details.
impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        #[derive(Serialize)]
        struct Details<'a> {
            r#type: String,
            title: &'static str,
            status: u16,
            #[serde(skip_serializing_if = "str::is_empty")]
            detail: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            hold: Option<&'a HoldView>,
        }
        let details = Details {
            r#type: format!("urn:holdshort:problem:{}", self.kind.name()),
            title: self.title(),
            status: self.status().as_u16(),
            detail: &self.detail,
            hold: self.hold.as_deref(),
        };
        let body = serde_json::to_string(&details).unwrap_or_else(|_| "{}".to_owned());
        self.respond("application/problem+json", body)
    }
}
