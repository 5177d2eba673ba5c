//! Microsoft Teams: an adaptive card by a workflow's webhook ("When a Teams webhook request is received").
//!
//! A workflow takes cards and gives nothing back: no name to change a message by, and no user who clicked. So there is a card when
//! a call is held and another one when its hold has ended, and their one button opens the desk. Text stands in runs, which know no
//! markup. Teams knows no repetitions: a card whose answer was lost may be there twice.

use bytes::Bytes;
use http::{HeaderValue, header};
use serde_json::{Value, json};

use super::{NotSent, Telling, endpoint::Endpoint, message::Message};

/// Characters of a call that a card shows; a message to Teams has 28 KiB at most.
const CALL_CHARS_MAX: usize = 4000;

/// Facts on a card.
const FACTS_MAX: usize = 20;

/// A workflow that posts cards.
#[derive(Debug)]
pub struct Teams {
    pub(super) endpoint: Endpoint,
}

impl Teams {
    pub(super) async fn tell(&self, telling: &Telling<'_>) -> Result<Option<String>, NotSent> {
        self.post(self.message(telling)).await?;
        // There is no name; that something was said is what counts for the end.
        Ok(Some(String::new()))
    }

    /// What is sent of a hold.
    pub(super) fn message(&self, telling: &Telling<'_>) -> Value {
        let message = Message::of(telling.hold, CALL_CHARS_MAX);
        let mut body = vec![text(&message.title, &json!({"weight": "Bolder", "size": "Medium"}))];
        for (name, fact) in message.facts.iter().take(FACTS_MAX) {
            body.push(text(&format!("{name}: {fact}"), &json!({})));
        }
        for row in &message.rows {
            body.push(text(row, &json!({"fontType": "Monospace"})));
        }
        if let Some(missing) = message.missing {
            body.push(text(&format!("Not the whole call: {missing}."), &json!({"isSubtle": true})));
        }
        around(body, Some(telling.link))
    }

    pub(super) async fn test(&self) -> Result<(), NotSent> {
        let words = "This is a test of Holdshort: calls that wait for approval will be told here.";
        self.post(around(vec![text(words, &json!({}))], None)).await
    }

    async fn post(&self, message: Value) -> Result<(), NotSent> {
        let headers = [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))];
        let body = serde_json::to_vec(&message).map_err(|error| NotSent::Never(error.to_string()))?;
        self.endpoint.post(&headers, Bytes::from(body)).await?.check(true)
    }
}

/// A message with one card.
fn around(body: Vec<Value>, link: Option<&str>) -> Value {
    let actions: Vec<Value> = link
        .map(|link| json!({"type": "Action.OpenUrl", "title": "Open context", "url": link}))
        .into_iter()
        .collect();
    let card = json!({
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.4",
        "msteams": {"width": "Full"},
        "body": body,
        "actions": actions,
    });
    json!({
        "type": "message",
        "attachments": [
            {"contentType": "application/vnd.microsoft.card.adaptive", "contentUrl": null, "content": card},
        ],
    })
}

/// A line of a card, in which nothing is markup.
fn text(words: &str, style: &Value) -> Value {
    let mut run = style.clone();
    run["type"] = json!("TextRun");
    run["text"] = json!(words);
    json!({"type": "RichTextBlock", "inlines": [run]})
}
