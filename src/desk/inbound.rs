//! What comes in from channels: signed decisions of other programs.
//!
//! Called by the routes in `guard`. Here nobody has a session or a token: who it is, is known by the signature over the bytes as
//! they came, and counts once over all desks on a record. What is said goes through `verdict`, in the name of whom the channel
//! names; whether they may is for the gate to say. Only POST is answered.

use std::sync::Arc;

use axum::{
    Json,
    body::Bytes,
    extract::{Path, State as Extracted, rejection::BytesRejection},
    http::HeaderMap,
    response::{IntoResponse, Response},
};
use jiff::{SignedDuration, Timestamp};

use super::{
    State,
    guard::single,
    problem::{Kind, Problem},
    verdict::{self, Spoken, unavailable},
};
use crate::{
    channels::{BadDecision, Channel, Kind as ChannelKind, Webhook, signature},
    control::api::Resolved,
    digest::Digest,
};

/// Where channels speak to a desk.
pub(super) const CHANNELS: &str = "/channels/";

/// Takes what a channel sends.
pub(super) async fn channel(
    Extracted(state): Extracted<Arc<State>>,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let body = body.map_err(|_| Problem::from(Kind::TooLarge))?;
    let channel = state.channels.named(&name).ok_or(Kind::NotFound)?;
    let answered = match &channel.kind {
        ChannelKind::Webhook(webhook) => decision(&state, channel, webhook, &headers, &body).await.map(Json),
    };
    Ok(answered?.into_response())
}

/// A decision of another program.
async fn decision(
    state: &State,
    channel: &Channel,
    webhook: &Webhook,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Resolved, Problem> {
    let header = |name: &'static str| single(headers, &name.parse().ok()?);
    let said = match (header("webhook-id"), header("webhook-timestamp"), header("webhook-signature")) {
        (Some(id), Some(timestamp), Some(signature)) => {
            signature::WebhookHeaders { id, timestamp, signature }
        }
        _ => return Err(Problem::new(Kind::NotSignedIn, signature::BadSignature::Headers.to_string())),
    };
    let decision = webhook.decision(said, body, Timestamp::now()).map_err(|error| match &error {
        BadDecision::NotHere => Kind::NotFound.into(),
        BadDecision::Signature(why) => not_signed(state, channel, &why.to_string()),
        BadDecision::NoObject | BadDecision::Unreadable(_) => Problem::new(Kind::Invalid, error.to_string()),
    })?;
    let once = Once::take(state, &["webhook", &channel.name, said.id]).await?;
    let spoken = Spoken {
        id: decision.hold,
        verdict: decision.verdict,
        comment: decision.comment,
        shown_sha256: Some(decision.frame_sha256),
        identity: Some(format!("webhook:{}/{}", channel.name, decision.by)),
    };
    once.settle(state, verdict::decide(state, spoken).await).await
}

/// Somebody who is not the service that a path is for. Told to the log, and slowed down.
fn not_signed(state: &State, channel: &Channel, why: &str) -> Problem {
    if let Err(seconds) = state.wrong_keys.take() {
        return Kind::TooOften(seconds).into();
    }
    tracing::warn!(channel = %channel.name, why, "something came in that this channel has not sent");
    Problem::new(Kind::NotSignedIn, why)
}

/// Something that counts once.
struct Once(Digest);

impl Once {
    /// Uses up what `parts` name.
    async fn take(state: &State, parts: &[&str]) -> Result<Self, Problem> {
        // With the length of each, so that no two lists are one.
        let whole: String = parts.iter().map(|part| format!("{}:{part}", part.len())).collect();
        let what = Digest::of(whole.as_bytes());
        // Longer than any signature is good for, on either side of now.
        let kept = SignedDuration::from_secs(3 * signature::TOLERANCE_SECONDS);
        let until = Timestamp::now().saturating_add(kept).unwrap_or(Timestamp::MAX);
        match state.store.use_once(what, until).await {
            Ok(true) => Ok(Self(what)),
            Ok(false) => Err(Problem::new(Kind::Repeated, "this came before")),
            Err(error) => Err(unavailable(&error)),
        }
    }

    /// Gives it back where nobody has heard what was said, so that it can be said again.
    async fn settle(self, state: &State, answer: Result<Resolved, Problem>) -> Result<Resolved, Problem> {
        let is_unheard = answer
            .as_ref()
            .is_err_and(|problem| matches!(problem.kind, Kind::Unavailable | Kind::TooOften(_)));
        if is_unheard && let Err(error) = state.store.unuse(self.0).await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "what was not heard cannot be said again"
            );
        }
        answer
    }
}
