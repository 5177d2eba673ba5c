//! Slack's Socket Mode: clicks come over a WebSocket that the desk opens, so that nobody has to reach it from outside.
//!
//! Used by the desk, which reads one click after another. Each is answered at once, as Slack wants it, and read by the same rules as
//! one that was posted; that it is Slack's is known by the connection. Slack may have several connections and uses one of them.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, header};
use serde::Deserialize;
use serde_json::{json, value::RawValue};
use soketto::{
    Incoming,
    connection::{Receiver, Sender},
    data::ByteSlice125,
    handshake::{Client, ServerResponse},
};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::compat::{Compat, TokioAsyncReadCompatExt};

use super::{
    NotSent,
    endpoint::{Endpoint, Stream},
    slack::{BadClick, Click, Slack},
};

/// How long the handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// How often the connection is tried.
const PING: Duration = Duration::from_secs(20);

/// How long it may be silent before it is taken for dead.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// The longest message of Slack's, in bytes.
const MESSAGE_BYTES_MAX: usize = 1 << 20;

/// A connection on which clicks come.
pub struct Socket {
    sender: Sender<Compat<Box<dyn Stream>>>,
    receiver: Receiver<Compat<Box<dyn Stream>>>,
}

impl std::fmt::Debug for Socket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Socket").finish_non_exhaustive()
    }
}

/// What a connection brings.
enum News {
    Message,
    Alive,
    Over,
}

/// What Slack answers when a connection is asked for.
#[derive(Deserialize)]
struct Opened {
    ok: bool,
    #[serde(default)]
    error: String,
    #[serde(default)]
    url: String,
}

/// What comes over the connection, as far as it is read.
#[derive(Deserialize)]
struct Envelope<'a> {
    r#type: String,
    #[serde(default)]
    envelope_id: Option<String>,
    #[serde(borrow, default)]
    payload: Option<&'a RawValue>,
}

/// A click, and the name of the envelope in which it came: the same if Slack sends it again.
#[derive(Debug)]
pub struct Delivered {
    /// The name of the envelope.
    pub envelope: String,
    /// What is in it; none: something that means nothing here.
    pub click: Result<Option<Click>, BadClick>,
}

impl Slack {
    /// Whether clicks come over a connection of this desk's.
    pub fn has_socket(&self) -> bool {
        self.app_token().is_some()
    }

    /// Opens a connection.
    ///
    /// # Errors
    ///
    /// When Slack gives none, or it cannot be had.
    pub async fn open_socket(&self) -> Result<Socket, NotSent> {
        let token = self.app_token().ok_or_else(|| NotSent::Never("there is no token for it".to_owned()))?;
        let mut authorization = HeaderValue::try_from(format!("Bearer {}", token.expose()))
            .map_err(|_| NotSent::Never("its token is none".to_owned()))?;
        authorization.set_sensitive(true);
        let headers = [
            (header::AUTHORIZATION, authorization),
            (header::CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded")),
        ];
        let answer = self.endpoint.post_to("/apps.connections.open", &headers, Bytes::new()).await?;
        answer.check(false)?;
        let opened: Opened = serde_json::from_slice(&answer.body).map_err(NotSent::again)?;
        if !opened.ok {
            return Err(NotSent::again(format!("apps.connections.open was refused: {}", opened.error)));
        }
        // The address has a ticket in it, so it is in no error.
        let url = match opened.url.split_once("://") {
            Some(("wss", rest)) => format!("https://{rest}"),
            Some(("ws", rest)) => format!("http://{rest}"),
            _ => return Err(NotSent::again("Slack gave no address of a WebSocket")),
        };
        let place = self.endpoint.beside(&url).map_err(NotSent::again)?;
        timeout(HANDSHAKE, shake_hands(&place))
            .await
            .map_err(|_| NotSent::again("the handshake took too long"))?
    }
}

async fn shake_hands(place: &Endpoint) -> Result<Socket, NotSent> {
    let stream = place.connect().await.map_err(NotSent::again)?;
    let (host, target) = (place.authority().to_owned(), place.target(""));
    let mut client = Client::new(stream.compat(), &host, &target);
    match client.handshake().await.map_err(NotSent::again)? {
        ServerResponse::Accepted { .. } => {
            let mut builder = client.into_builder();
            builder.set_max_message_size(MESSAGE_BYTES_MAX);
            let (sender, receiver) = builder.finish();
            Ok(Socket { sender, receiver })
        }
        ServerResponse::Redirect { status_code, .. } | ServerResponse::Rejected { status_code } => {
            Err(NotSent::again(format!("the WebSocket was refused: {status_code}")))
        }
    }
}

impl Socket {
    /// The next thing that somebody has clicked, answered already; none when another connection has to be opened.
    pub async fn next(&mut self, slack: &Slack) -> Option<Delivered> {
        loop {
            let text = self.message().await?;
            let Ok(envelope) = serde_json::from_slice::<Envelope<'_>>(&text) else { continue };
            if envelope.r#type == "disconnect" {
                return None;
            }
            // Greetings have no name and want no answer.
            let Some(id) = envelope.envelope_id else { continue };
            let answer = json!({"envelope_id": id}).to_string();
            self.sender.send_text(answer).await.ok()?;
            self.sender.flush().await.ok()?;
            if envelope.r#type == "interactive"
                && let Some(payload) = envelope.payload
            {
                return Some(Delivered { envelope: id, click: slack.clicked(payload.get()) });
            }
        }
    }

    /// The next message; none if the connection has ended, or is silent.
    async fn message(&mut self) -> Option<Vec<u8>> {
        let mut ping = interval(PING);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut heard = Instant::now();
        let mut message = Vec::new();
        loop {
            let news = {
                // Kept until it is ready: half of a message must not be lost.
                let mut receive = std::pin::pin!(self.receiver.receive(&mut message));
                loop {
                    tokio::select! {
                        incoming = &mut receive => break match incoming {
                            Ok(Incoming::Data(_)) => News::Message,
                            Ok(Incoming::Pong(_)) => News::Alive,
                            Ok(Incoming::Closed(_)) | Err(_) => News::Over,
                        },
                        _ = ping.tick() => {
                            if heard.elapsed() > SILENCE_MAX {
                                return None;
                            }
                            let word = ByteSlice125::try_from(&b"holdshort"[..]).ok()?;
                            self.sender.send_ping(word).await.ok()?;
                            self.sender.flush().await.ok()?;
                        }
                    }
                }
            };
            match news {
                News::Message => return Some(message),
                News::Alive => heard = Instant::now(),
                News::Over => return None,
            }
        }
    }
}
