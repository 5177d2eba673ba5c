//! What comes in from channels: signed decisions of other programs, clicks in Slack.
//!
//! Called by the routes in `guard`. Here nobody has a session or a token: who it is, is known by the signature over the bytes as
//! they came, and counts once over all desks on a record. What is said goes through `verdict`, in the name of whom the channel
//! names; whether they may is for the gate to say. Only POST is answered.

use std::sync::Arc;

use axum::{
    Json,
    body::Bytes,
    extract::{Path, State as Extracted, rejection::BytesRejection},
    http::{HeaderMap, HeaderName, StatusCode},
    response::{IntoResponse, Response},
};
use futures_util::future::join_all;
use jiff::{SignedDuration, Timestamp};

use super::{
    State,
    guard::single,
    problem::{Kind, Problem},
    verdict::{self, Speaker, Spoken, unavailable},
};
use crate::{
    channels::{
        self, BadClick, BadDecision, Channel, Click, DeliveredClick, Kind as ChannelKind, Webhook, signature,
    },
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
    let channel = state.channels.named(&name).next().ok_or(Kind::NotFound)?;
    let answered = match &channel.kind {
        ChannelKind::Webhook(webhook) => {
            Json(decision(&state, channel, webhook, &headers, &body).await?).into_response()
        }
        ChannelKind::Slack(_) => {
            posted(&state, channel, &headers, &body).await?;
            StatusCode::OK.into_response()
        }
        _ => return Err(Kind::NotFound.into()),
    };
    Ok(answered)
}

/// A decision of another program.
async fn decision(
    state: &State,
    channel: &Channel,
    webhook: &Webhook,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Resolved, Problem> {
    let header = |name: &'static str| single(headers, &HeaderName::from_static(name));
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
    let once = Once::take(state, &["webhook", &channel.name, said.id], signature_ends()).await?;
    let spoken = Spoken {
        id: decision.hold,
        verdict: decision.verdict,
        comment: decision.comment,
        frame_sha256: Some(decision.frame_sha256),
        shown_sha256: decision.shown_sha256,
        speaker: Speaker::Channel(format!("webhook:{}/{}", channel.name, decision.by)),
    };
    once.settle(state, verdict::decide(state, spoken).await).await
}

/// A click that Slack posts. It is answered at once, and whoever clicked hears of a refusal by themselves.
async fn posted(
    state: &Arc<State>,
    channel: &Arc<Channel>,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<(), Problem> {
    let ChannelKind::Slack(slack) = &channel.kind else { return Err(Kind::NotFound.into()) };
    let header = |name: &'static str| single(headers, &HeaderName::from_static(name)).unwrap_or_default();
    let (timestamp, signature) = (header("x-slack-request-timestamp"), header("x-slack-signature"));
    let click = slack.posted(timestamp, signature, body, Timestamp::now().as_second());
    let click = click.map_err(|error| match &error {
        BadClick::NotHere => Kind::NotFound.into(),
        BadClick::Signature(why) => not_signed(state, channel, &why.to_string()),
        BadClick::Unreadable => Problem::new(Kind::Invalid, error.to_string()),
        BadClick::Elsewhere => Problem::new(Kind::NotAllowed, error.to_string()),
    })?;
    let Some(click) = click else { return Ok(()) };
    let once = Once::take(state, &["slack", &channel.name, signature], signature_ends()).await?;
    let (state, channel) = (Arc::clone(state), Arc::clone(channel));
    tokio::spawn(async move { clicked(&state, &channel, click, once).await });
    Ok(())
}

/// Reads what comes over the connections that this desk opens, for as long as it serves.
pub(super) async fn listen(state: &Arc<State>) {
    let slacks = state.channels.iter().filter(|channel| match &channel.kind {
        ChannelKind::Slack(slack) => slack.has_socket(),
        _ => false,
    });
    join_all(slacks.map(|channel| listen_to(state, channel))).await;
    // Where there is nothing to listen to, nothing ends either.
    std::future::pending().await
}

async fn listen_to(state: &Arc<State>, channel: &Arc<Channel>) {
    let ChannelKind::Slack(slack) = &channel.kind else { return };
    let mut failures = 0;
    loop {
        match slack.open_socket().await {
            Ok(mut socket) => {
                failures = 0;
                while let Some(delivered) = socket.next(slack).await {
                    take(state, channel, delivered).await;
                }
            }
            Err(error) => {
                failures += 1;
                tracing::warn!(channel = %channel.name, %error, "clicks cannot be heard; it is tried again");
            }
        }
        tokio::time::sleep(channels::pause(failures.max(1), None)).await;
    }
}

/// Takes a click that Slack has sent over a connection.
async fn take(state: &Arc<State>, channel: &Arc<Channel>, delivered: DeliveredClick) {
    match delivered.click {
        Ok(Some(click)) => {
            let parts = ["slack socket", &*channel.name, &*delivered.envelope];
            // Sent again, or a record that does not answer: whoever clicked may do so again.
            let Ok(once) = Once::take(state, &parts, signature_ends()).await else { return };
            let (state, channel) = (Arc::clone(state), Arc::clone(channel));
            tokio::spawn(async move { clicked(&state, &channel, click, once).await });
        }
        Ok(None) => {}
        Err(error) => tracing::warn!(channel = %channel.name, %error, "a click does not count"),
    }
}

/// Says what a click says, and tells whoever clicked why it came to nothing, if it did.
async fn clicked(state: &State, channel: &Channel, click: Click, once: Once) {
    let ChannelKind::Slack(slack) = &channel.kind else { return };
    let user = click.user.clone();
    let said = once.settle(state, said_by_click(state, channel, click).await).await;
    let Err(problem) = said else { return };
    let detail = if problem.detail.is_empty() { problem.title() } else { &problem.detail };
    if let Err(error) = slack.whisper(&user, &format!("Nothing was decided: {detail}.")).await {
        tracing::warn!(channel = %channel.name, %error, "somebody could not be told that their click came to nothing");
    }
}

async fn said_by_click(state: &State, channel: &Channel, click: Click) -> Result<Resolved, Problem> {
    let message =
        state.store.message(&channel.name, click.hold).await.map_err(|error| unavailable(&error))?;
    if message != Some(click.message) {
        return Err(Problem::new(Kind::NotAllowed, "this is another message than the one about this call"));
    }
    let spoken = Spoken {
        id: click.hold,
        verdict: click.verdict,
        comment: click.comment,
        frame_sha256: None,
        shown_sha256: Some(click.shown_sha256),
        speaker: Speaker::Channel(format!("slack:{}", click.user)),
    };
    verdict::decide(state, spoken).await
}

/// Somebody who is not the service that a path is for. Told to the log, and slowed down.
fn not_signed(state: &State, channel: &Channel, why: &str) -> Problem {
    if let Err(seconds) = state.wrong_keys.take() {
        return Kind::TooOften(seconds).into();
    }
    tracing::warn!(channel = %channel.name, why, "something came in that this channel has not sent");
    Problem::new(Kind::NotSignedIn, why)
}

/// When a signature that is good now is good no more, on either side of now.
fn signature_ends() -> Timestamp {
    let kept = SignedDuration::from_secs(3 * signature::TOLERANCE_SECONDS);
    Timestamp::now().saturating_add(kept).unwrap_or(Timestamp::MAX)
}

/// Something that counts once.
pub(super) struct Once(Digest);

impl Once {
    /// Uses up what `parts` name, for as long as it would be worth something.
    pub(super) async fn take(state: &State, parts: &[&str], until: Timestamp) -> Result<Self, Problem> {
        // With the length of each, so that no two lists are one.
        let whole: String = parts.iter().map(|part| format!("{}:{part}", part.len())).collect();
        let what = Digest::of(whole.as_bytes());
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
        if is_unheard {
            self.give_back(state).await;
        }
        answer
    }

    /// Gives it back.
    pub(super) async fn give_back(self, state: &State) {
        if let Err(error) = state.store.unuse(self.0).await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "what was not heard cannot be said again"
            );
        }
    }
}
