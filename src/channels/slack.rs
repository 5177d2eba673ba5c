//! Slack: a message with the call and its buttons, changed when something happens to it, and the clicks on them.
//!
//! Sent with the Web API (`chat.postMessage`, `chat.update`, `chat.postEphemeral`) and a bot's token. Text of strangers stands in
//! elements in which Slack reads no markup. Approve and Reject are there only where the message has all of the call. A click
//! proves that Slack says so of its user; it names the digest of what was shown. Slack knows no repetitions by a key: a message
//! whose answer was lost may be there twice.

use bytes::Bytes;
use http::{HeaderValue, header};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    NotSent, Telling,
    endpoint::Endpoint,
    message::Message,
    signature::{BadSignature, Secret, verify_slack},
};
use crate::{
    digest::Digest,
    hold::{COMMENT_CHARS_MAX, HoldId, Verdict},
    store::News,
};

/// Characters of a call that a message shows. (Slack takes 3,000 in a text; the rest is for marks.)
const CALL_CHARS_MAX: usize = 2500;

/// The longest header, in characters; Slack takes 150.
const HEADER_CHARS_MAX: usize = 150;

/// Fields of one section; Slack takes 10.
const FIELDS_MAX: usize = 10;

/// Fields of a message.
const FACTS_MAX: usize = 30;

/// Errors that trying again does not mend.
const FINAL_ERRORS: [&str; 8] = [
    "msg_too_long",
    "invalid_blocks",
    "invalid_blocks_format",
    "invalid_arguments",
    "no_text",
    "message_not_found",
    "cant_update_message",
    "edit_window_closed",
];

/// One conversation of one workspace.
#[derive(Debug)]
pub struct Slack {
    pub(super) endpoint: Endpoint,
    pub(super) token: Secret,
    /// The id of the conversation.
    pub(super) conversation: String,
    /// Whose clicks count; none: there are no buttons.
    pub(super) clicks: Option<Clicks>,
}

/// Whose clicks count.
#[derive(Debug)]
pub(super) struct Clicks {
    /// The id of the workspace.
    pub(super) workspace: String,
    /// The id of the app, if it is to be looked at.
    pub(super) app: Option<String>,
    /// For clicks that are posted to the desk.
    pub(super) signing_secret: Option<Secret>,
    /// For clicks that come over a connection of the desk's.
    pub(super) app_token: Option<Secret>,
}

/// What somebody has clicked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Click {
    /// The user's id.
    pub user: String,
    /// The message.
    pub message: String,
    /// The hold.
    pub hold: HoldId,
    /// The digest of what was shown.
    pub shown_sha256: Digest,
    /// What they say.
    pub verdict: Verdict,
    /// What they have typed.
    pub comment: Option<String>,
}

/// Why a click does not count.
#[derive(Debug, thiserror::Error)]
pub enum BadClick {
    /// This channel has no buttons.
    #[error("this channel takes no decisions")]
    NotHere,
    /// Slack has not sent it.
    #[error("{0}")]
    Signature(#[from] BadSignature),
    /// It is nothing that Slack sends.
    #[error("this is not a click in a message")]
    Unreadable,
    /// It comes from somewhere else than where the messages are.
    #[error("this click comes from another workspace, app or conversation")]
    Elsewhere,
}

/// What Slack answers, as far as it is read.
#[derive(Deserialize)]
struct Said {
    ok: bool,
    #[serde(default)]
    error: Option<String>,
    #[serde(default)]
    ts: Option<String>,
}

/// A `block_actions` payload, as far as it is read.
#[derive(Deserialize)]
struct Payload {
    r#type: String,
    #[serde(default)]
    api_app_id: String,
    user: User,
    #[serde(default)]
    team: Option<Named>,
    #[serde(default)]
    container: Container,
    #[serde(default)]
    actions: Vec<Action>,
    #[serde(default)]
    state: Option<Value>,
}

#[derive(Deserialize)]
struct User {
    id: String,
    #[serde(default)]
    team_id: Option<String>,
}

#[derive(Deserialize)]
struct Named {
    id: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Container {
    channel_id: String,
    message_ts: String,
}

#[derive(Deserialize)]
struct Action {
    action_id: String,
    #[serde(default)]
    value: String,
}

impl Slack {
    pub(super) async fn tell(&self, telling: &Telling<'_>) -> Result<Option<String>, NotSent> {
        let mut body = self.body(telling);
        let Some(ts) = telling.message else {
            // What is linked to is not fetched. (A message that changes keeps that.)
            for link in ["unfurl_links", "unfurl_media"] {
                body[link] = json!(false);
            }
            return self.call("chat.postMessage", &body).await;
        };
        body["ts"] = json!(ts);
        self.call("chat.update", &body).await?;
        if telling.news == News::Waiting {
            // A message that changes makes no sound.
            let text = format!("{} — still", body["text"].as_str().unwrap_or_default());
            let reply = json!({"channel": self.conversation, "thread_ts": ts, "text": text});
            self.call("chat.postMessage", &reply).await?;
        }
        Ok(Some(ts.to_owned()))
    }

    pub(super) async fn test(&self) -> Result<(), NotSent> {
        let text = "This is a test of Holdshort: calls that wait for approval will be told here.";
        self.call("chat.postMessage", &json!({"channel": self.conversation, "text": text})).await.map(drop)
    }

    /// Tells one user something that nobody else sees.
    ///
    /// # Errors
    ///
    /// When Slack did not take it.
    pub async fn whisper(&self, user: &str, text: &str) -> Result<(), NotSent> {
        let body = json!({"channel": self.conversation, "user": user, "text": escaped(text)});
        self.call("chat.postEphemeral", &body).await.map(drop)
    }

    /// Calls a method of the Web API, and gives the name of the message.
    async fn call(&self, method: &str, body: &Value) -> Result<Option<String>, NotSent> {
        let never = |error: &dyn std::error::Error| NotSent::Never(error.to_string());
        let mut authorization: HeaderValue = format!("Bearer {}", self.token.expose())
            .parse()
            .map_err(|_| NotSent::Never("its token is none".to_owned()))?;
        authorization.set_sensitive(true);
        let headers = [
            (header::AUTHORIZATION, authorization),
            (header::CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8")),
        ];
        let body = serde_json::to_vec(body).map_err(|error| never(&error))?;
        let answer = self.endpoint.post_to(&format!("/{method}"), &headers, Bytes::from(body)).await?;
        answer.check(false)?;
        let said: Said = serde_json::from_slice(&answer.body).map_err(|_| {
            NotSent::again(format!("{method} was answered with something that is not Slack's"))
        })?;
        if said.ok {
            return Ok(said.ts);
        }
        let error = said.error.unwrap_or_default();
        let why = format!("{method} was refused: {error}");
        if FINAL_ERRORS.contains(&&*error) {
            return Err(NotSent::Never(why));
        }
        Err(NotSent::Again { why, after: answer.pause() })
    }

    /// What is sent of a hold.
    pub(super) fn body(&self, telling: &Telling<'_>) -> Value {
        let message = Message::of(telling.hold, CALL_CHARS_MAX);
        let title: String = message.title.chars().take(HEADER_CHARS_MAX).collect();
        let mut blocks = vec![json!({"type": "header", "text": plain(&title)})];
        for facts in message.facts[..message.facts.len().min(FACTS_MAX)].chunks(FIELDS_MAX) {
            let fields: Vec<Value> =
                facts.iter().map(|(name, fact)| plain(&format!("{name}\n{fact}"))).collect();
            blocks.push(json!({"type": "section", "fields": fields}));
        }
        let call =
            if message.rows.is_empty() { "⟨not shown⟩".to_owned() } else { message.rows.join("\n") };
        let text = json!({"type": "text", "text": call});
        let preformatted = json!({"type": "rich_text_preformatted", "elements": [text]});
        blocks.push(json!({"type": "rich_text", "elements": [preformatted]}));
        let open = json!({"type": "button", "action_id": "open", "text": plain("Open context"), "url": telling.link});
        if !message.waits {
            blocks.push(json!({"type": "actions", "elements": [open]}));
        } else if message.missing.is_none()
            && self.clicks.is_some()
            && let Some(shown) = telling.hold.shown()
        {
            blocks.push(json!({
                "type": "input",
                "block_id": "comment",
                "optional": true,
                "label": plain("Comment (a rejection needs one: the agent reads it)"),
                "element": {"type": "plain_text_input", "action_id": "comment", "max_length": COMMENT_CHARS_MAX},
            }));
            let value = format!("{}:{shown}", telling.hold.id);
            let button = |id: &str, text: &str, style: &str| json!({"type": "button", "action_id": id, "text": plain(text), "style": style, "value": value});
            let (approve, reject) =
                (button("approve", "Approve", "primary"), button("reject", "Reject", "danger"));
            blocks.push(json!({"type": "actions", "elements": [approve, reject, open]}));
        } else {
            if let Some(missing) = message.missing {
                let text = plain(&format!("Not the whole call: {missing}. Open it to decide."));
                blocks.push(json!({"type": "context", "elements": [text]}));
            }
            blocks.push(json!({"type": "actions", "elements": [open]}));
        }
        json!({
            "channel": self.conversation,
            // For notifications, and for clients that show no blocks.
            "text": escaped(&title),
            "blocks": blocks,
        })
    }

    /// Reads what Slack has posted to the desk; none: a click that means nothing, such as on a link.
    ///
    /// # Errors
    ///
    /// See [`BadClick`].
    pub fn posted(
        &self,
        timestamp: &str,
        signature: &str,
        body: &[u8],
        now: i64,
    ) -> Result<Option<Click>, BadClick> {
        let secret = self.clicks.as_ref().and_then(|clicks| clicks.signing_secret.as_ref());
        let secret = secret.ok_or(BadClick::NotHere)?;
        verify_slack(secret, timestamp, signature, body, now)?;
        let mut found = url::form_urlencoded::parse(body).filter(|(name, _)| name == "payload");
        match (found.next(), found.next()) {
            (Some((_, payload)), None) => self.clicked(&payload),
            _ => Err(BadClick::Unreadable),
        }
    }

    /// The token for connections, if there is one.
    pub(super) fn app_token(&self) -> Option<&Secret> {
        self.clicks.as_ref()?.app_token.as_ref()
    }

    /// Reads a payload that is known to be Slack's.
    pub(super) fn clicked(&self, payload: &str) -> Result<Option<Click>, BadClick> {
        let clicks = self.clicks.as_ref().ok_or(BadClick::NotHere)?;
        let payload: Payload = serde_json::from_str(payload).map_err(|_| BadClick::Unreadable)?;
        if payload.r#type != "block_actions" {
            return Ok(None);
        }
        let [action] = payload.actions.as_slice() else { return Ok(None) };
        let verdict = match &*action.action_id {
            "approve" => Verdict::Approve,
            "reject" => Verdict::Reject,
            _ => return Ok(None),
        };
        let is_ours = payload.team.is_some_and(|team| team.id == clicks.workspace)
            && payload.user.team_id.is_none_or(|team| team == clicks.workspace)
            && clicks.app.as_ref().is_none_or(|app| *app == payload.api_app_id)
            && payload.container.channel_id == self.conversation;
        if !is_ours {
            return Err(BadClick::Elsewhere);
        }
        let (hold, digest) = action.value.split_once(':').ok_or(BadClick::Unreadable)?;
        let typed = payload.state.as_ref().and_then(|state| state.pointer("/values/comment/comment/value"));
        Ok(Some(Click {
            user: payload.user.id,
            message: payload.container.message_ts,
            hold: hold.parse().map_err(|_| BadClick::Unreadable)?,
            shown_sha256: Digest::from_hex(digest).ok_or(BadClick::Unreadable)?,
            verdict,
            comment: typed.and_then(Value::as_str).map(str::to_owned),
        }))
    }
}

/// Text in which Slack looks for nothing.
fn plain(text: &str) -> Value {
    json!({"type": "plain_text", "text": text, "emoji": false})
}

/// Text in which Slack looks for links and mentions, without any.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
