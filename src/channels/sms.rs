//! SMS, by the Messages resource of Twilio or of a service that speaks like it: a line and a link.
//!
//! A short message cannot show a call, so it says that one waits and where it can be read, and how it ended. The service knows no
//! repetitions: a message whose answer was lost may be sent twice.

use base64::prelude::{BASE64_STANDARD, Engine as _};
use bytes::Bytes;
use http::{HeaderValue, header};
use serde::Deserialize;

use super::{NotSent, Telling, endpoint::Endpoint, message::Message, signature::Secret};
use crate::view::between;

/// The longest title in a message, in characters: with a link it is two or three parts.
const TITLE_CHARS_MAX: usize = 160;

/// One telephone.
#[derive(Debug)]
pub struct Sms {
    pub(super) endpoint: Endpoint,
    pub(super) account: String,
    pub(super) token: Secret,
    /// A number, a short code or a name that may send.
    pub(super) from: String,
    /// A number in the form of E.164.
    pub(super) to: String,
}

/// What the service answers, as far as it is read.
#[derive(Deserialize)]
struct Said {
    sid: String,
}

impl Sms {
    pub(super) async fn tell(&self, telling: &Telling<'_>) -> Result<Option<String>, NotSent> {
        self.send(&Self::text(telling)).await.map(Some)
    }

    /// What is sent of a hold.
    pub(super) fn text(telling: &Telling<'_>) -> String {
        let message = Message::of(telling.hold, 0);
        let title: String = message.title.chars().take(TITLE_CHARS_MAX).collect();
        let left = between(jiff::Timestamp::now(), telling.hold.expires_at);
        match message.waits {
            true => format!("Holdshort: {title} ({left} left). {}", telling.link),
            false => format!("Holdshort: {title}."),
        }
    }

    pub(super) async fn test(&self) -> Result<(), NotSent> {
        self.send("This is a test of Holdshort: calls that wait for approval will be told here.")
            .await
            .map(drop)
    }

    /// The body of a message that says `text`.
    pub(super) fn form(&self, text: &str) -> String {
        url::form_urlencoded::Serializer::new(String::new())
            .append_pair("From", &self.from)
            .append_pair("To", &self.to)
            .append_pair("Body", text)
            .finish()
    }

    /// Where messages are posted, below the service's address.
    pub(super) fn path(&self) -> String {
        format!("/2010-04-01/Accounts/{}/Messages.json", self.account)
    }

    async fn send(&self, text: &str) -> Result<String, NotSent> {
        let body = self.form(text);
        let basic = BASE64_STANDARD.encode(format!("{}:{}", self.account, self.token.expose()));
        let mut authorization = HeaderValue::try_from(format!("Basic {basic}"))
            .map_err(|_| NotSent::Never("its token is none".to_owned()))?;
        authorization.set_sensitive(true);
        let headers = [
            (header::AUTHORIZATION, authorization),
            (header::CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded")),
        ];
        let answer = self.endpoint.post_to(&self.path(), &headers, Bytes::from(body)).await?;
        answer.check(true)?;
        let said: Result<Said, _> = serde_json::from_slice(&answer.body);
        said.map(|said| said.sid)
            .map_err(|_| NotSent::Never("it did not answer as such a service does".to_owned()))
    }
}
