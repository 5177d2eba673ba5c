//! The generic webhook: news as signed JSON to any program (Standard Webhooks), and signed decisions from it.
//!
//! A receiver knows a repetition by `webhook-id`. What is sent has the call whole, as REST has it, up to the length of news; it
//! goes to the operator's own program, not to a screen. What comes in is read strictly: a member that is there twice, or not
//! known, is refused.

use http::{
    HeaderName, HeaderValue,
    header::{self, InvalidHeaderValue},
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    NotSent, Telling,
    endpoint::Endpoint,
    signature::{BadSignature, WebhookHeaders, WebhookKeys},
};
use crate::{
    control::api::HoldView,
    digest::{Digest, random_text},
    hold::{HoldId, Verdict},
};

/// A program that is told, and may decide.
#[derive(Debug)]
pub struct Webhook {
    pub(super) endpoint: Endpoint,
    pub(super) keys: WebhookKeys,
    pub(super) decisions: bool,
}

/// What is sent.
#[derive(Serialize)]
struct Envelope<'a> {
    r#type: &'a str,
    timestamp: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Data<'a>>,
}

#[derive(Serialize)]
struct Data<'a> {
    hold: &'a HoldView,
    /// The page where people read it and decide.
    url: &'a str,
}

/// The body that tells of a hold. Without the frame: its digest is there, and the arguments, which are what a program reads.
pub(super) fn news(telling: &Telling<'_>) -> serde_json::Result<Vec<u8>> {
    let hold = HoldView { frame: None, shown_sha256: None, ..telling.hold.clone() }.as_news();
    let data = Data { hold: &hold, url: telling.link };
    envelope(&format!("hold.{}", telling.news.word()), Some(data))
}

fn envelope(kind: &str, data: Option<Data<'_>>) -> serde_json::Result<Vec<u8>> {
    serde_json::to_vec(&Envelope { r#type: kind, timestamp: Timestamp::now(), data })
}

/// A decision from outside.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Decision {
    /// The hold.
    pub hold: HoldId,
    /// What is said of it.
    pub verdict: Verdict,
    /// Who says it, as the program that sends this knows them.
    pub by: String,
    /// Why. A rejection needs it.
    #[serde(default)]
    pub comment: Option<String>,
    /// The digest of the frame that they speak of.
    pub frame_sha256: String,
    /// The digest of what they were shown of it, if the program has shown all.
    #[serde(default)]
    pub shown_sha256: Option<Digest>,
}

/// Why a decision from outside does not count.
#[derive(Debug, thiserror::Error)]
pub enum BadDecision {
    /// This channel only tells.
    #[error("this channel takes no decisions")]
    NotHere,
    /// Nobody knows who sent it.
    #[error("{0}")]
    Signature(#[from] BadSignature),
    /// It is no object.
    #[error("a decision is a JSON object")]
    NoObject,
    /// It is not what is asked for.
    #[error("this is not a decision: {0}")]
    Unreadable(#[from] serde_json::Error),
}

impl Webhook {
    pub(super) async fn tell(&self, telling: &Telling<'_>) -> Result<(), NotSent> {
        let body = news(telling).map_err(|error| NotSent::Never(error.to_string()))?;
        self.send(telling.id, body).await
    }

    pub(super) async fn test(&self) -> Result<(), NotSent> {
        let id = random_text().map_err(|error| NotSent::Never(error.to_string()))?;
        let body = envelope("test", None).map_err(|error| NotSent::Never(error.to_string()))?;
        self.send(&format!("hs_test_{id}"), body).await
    }

    async fn send(&self, id: &str, body: Vec<u8>) -> Result<(), NotSent> {
        let never = |error: &dyn std::error::Error| NotSent::Never(error.to_string());
        let at = Timestamp::now().as_second();
        let signature = self.keys.sign(id, at, &body);
        let mut headers = vec![(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))];
        for (name, value) in
            [("webhook-id", id), ("webhook-timestamp", &at.to_string()), ("webhook-signature", &signature)]
        {
            let value = value.parse().map_err(|error: InvalidHeaderValue| never(&error))?;
            headers.push((HeaderName::from_static(name), value));
        }
        // Whatever else than 410 is wrong can be mended by whoever runs the program.
        self.endpoint.post(&headers, body).await?.check(false)
    }

    /// Reads a decision that came with `headers` at `now`. Whether it came before is for the caller to find out, by the id.
    ///
    /// # Errors
    ///
    /// See [`BadDecision`].
    pub fn decision(
        &self,
        headers: WebhookHeaders<'_>,
        body: &[u8],
        now: Timestamp,
    ) -> Result<Decision, BadDecision> {
        if !self.decisions {
            return Err(BadDecision::NotHere);
        }
        self.keys.verify(headers, body, now.as_second())?;
        // (A structure would be read from an array too.)
        if body.iter().find(|byte| !byte.is_ascii_whitespace()) != Some(&b'{') {
            return Err(BadDecision::NoObject);
        }
        Ok(serde_json::from_slice(body)?)
    }
}
