//! PagerDuty, by its Events API v2: an alert when a call is held, acknowledged when somebody has voted, resolved when its hold ends.
//!
//! The hold's id is the key by which PagerDuty knows what belongs together, so a repetition does no harm. Acknowledging or
//! resolving an alert there decides nothing here.

use bytes::Bytes;
use http::{HeaderValue, header};
use serde_json::{Value, json};

use super::{NotSent, Telling, endpoint::Endpoint, message::Message, signature::Secret};
use crate::{digest::random_text, sanitize, store::News};

/// Characters of a call that an alert shows.
const CALL_CHARS_MAX: usize = 4000;

/// The longest summary, in characters; PagerDuty takes 1,024.
const SUMMARY_CHARS_MAX: usize = 500;

/// The longest name of a server or a tool, in characters.
const NAME_CHARS_MAX: usize = 200;

/// One service of an account.
#[derive(Debug)]
pub struct PagerDuty {
    pub(super) endpoint: Endpoint,
    /// The integration key of the service.
    pub(super) routing_key: Secret,
    pub(super) severity: &'static str,
}

/// By which PagerDuty knows what belongs to one hold.
fn key_of(telling: &Telling<'_>) -> String {
    format!("holdshort-{}", telling.hold.id)
}

impl PagerDuty {
    pub(super) async fn tell(&self, telling: &Telling<'_>) -> Result<Option<String>, NotSent> {
        self.enqueue(self.event(telling)).await?;
        Ok(Some(key_of(telling)))
    }

    /// What is sent of a hold, but the key of the service.
    pub(super) fn event(&self, telling: &Telling<'_>) -> Value {
        let action = match telling.news {
            News::Held | News::Waiting => "trigger",
            News::Voted => "acknowledge",
            News::Ended => "resolve",
        };
        let mut event = json!({"event_action": action, "dedup_key": key_of(telling)});
        if action == "trigger" {
            let message = Message::of(telling.hold, CALL_CHARS_MAX);
            let mut details: serde_json::Map<String, Value> = serde_json::Map::new();
            for (name, fact) in &message.facts {
                let known = details.get(*name).and_then(Value::as_str).map(|known| format!("{known}\n"));
                details.insert((*name).to_owned(), json!(format!("{}{fact}", known.unwrap_or_default())));
            }
            details.insert("Call".to_owned(), json!(message.rows));
            if let Some(missing) = message.missing {
                details.insert("Not the whole call".to_owned(), json!(missing));
            }
            event["payload"] = json!({
                "summary": message.title.chars().take(SUMMARY_CHARS_MAX).collect::<String>(),
                "source": sanitize::render_cut(&telling.hold.server, NAME_CHARS_MAX).text,
                "severity": self.severity,
                "timestamp": telling.hold.created_at,
                "component": sanitize::render_cut(&telling.hold.tool, NAME_CHARS_MAX).text,
                "class": "approval",
                "custom_details": details,
            });
            event["client"] = json!("Holdshort");
            event["client_url"] = json!(telling.link);
            event["links"] = json!([{"href": telling.link, "text": "Open context"}]);
        }
        event
    }

    /// Raises an alert and takes it back.
    pub(super) async fn test(&self) -> Result<(), NotSent> {
        let key = random_text().map_err(|error| NotSent::Never(error.to_string()))?;
        let key = format!("holdshort-test-{key}");
        let payload =
            json!({"summary": "This is a test of Holdshort", "source": "holdshort", "severity": "info"});
        self.enqueue(json!({"event_action": "trigger", "dedup_key": key, "payload": payload})).await?;
        self.enqueue(json!({"event_action": "resolve", "dedup_key": key})).await
    }

    async fn enqueue(&self, mut event: Value) -> Result<(), NotSent> {
        event["routing_key"] = json!(self.routing_key.expose());
        let headers = [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))];
        let body = serde_json::to_vec(&event).map_err(|error| NotSent::Never(error.to_string()))?;
        self.endpoint.post(&headers, Bytes::from(body)).await?.check(true)
    }
}
