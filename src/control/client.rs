//! Asks the gates of this user: finds their control sockets and speaks to all of them as if they were one.
//!
//! Used by the command line, and by `follow` for whoever shows what waits. It holds no state and decides nothing.

use std::{fmt, path::Path, time::Duration};

use futures_util::future::join_all;
use jsonrpsee::{
    client_transport::ws::{Url, WsTransportClientBuilder},
    core::client::{Client, ClientBuilder, Error as ClientError, async_client::PingConfig},
    types::ErrorObjectOwned,
};
use tokio::{
    net::UnixStream,
    time::{Instant, sleep, timeout},
};

use super::{
    api::{ANSWER_BYTES_MAX, ControlClient, HoldView, error_code},
    place::{self, Registered},
};
use crate::{
    hold::{HOLD_ID_CHARS, HoldId},
    store::{StoreError, UrlError},
};

/// How long a gate may take to be reached.
const CONNECT: Duration = Duration::from_secs(3);

/// How long it may take to answer: a verdict waits for the disk, a verification reads the whole record.
const ANSWER: Duration = Duration::from_secs(120);

/// How often a gate is asked for a sign of life, and how long it may give none; that is looked at so often, too. Whoever waits for news would
/// never hear that it stands still.
const SIGN_OF_LIFE: Duration = Duration::from_secs(10);
const NO_SIGN_OF_LIFE: Duration = Duration::from_secs(20);

/// News kept for a watcher that is slow to print them.
const NEWS_KEPT_MAX: usize = 4096;

/// Why nothing came of a question.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// No gate of this user runs, or none answers.
    #[error("no gate is running that could be reached")]
    NoGate,
    /// The beginning of an id that no hold has which can be seen; there is a gate that lives and does not answer.
    #[error("no hold has an id that begins with `{0}`, unless it is at a gate that does not answer")]
    Unreached(String),
    /// A gate broke off.
    #[error("a gate did not answer: {0}")]
    Broken(String),
    /// The record cannot be read, with which no gate has to do.
    #[error("{0}")]
    Record(String),
    /// What was named as the record cannot be one.
    #[error(transparent)]
    BadStore(#[from] UrlError),
    /// A gate said no.
    #[error("{}", .0.message())]
    Refused(ErrorObjectOwned),
    /// The beginning of an id that no hold has.
    #[error("no hold has an id that begins with `{0}`")]
    NotFound(String),
    /// The beginning of the ids of several holds.
    #[error("several holds have an id that begins with `{prefix}`: {}", ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))]
    Ambiguous {
        /// What was given.
        prefix: String,
        /// The ids that begin so.
        ids: Vec<HoldId>,
    },
}

impl From<StoreError> for AskError {
    fn from(error: StoreError) -> Self {
        Self::Record(format!("{:#}", anyhow::Error::from(error)))
    }
}

impl From<ClientError> for AskError {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Call(refused) => Self::Refused(refused),
            other => Self::Broken(other.to_string()),
        }
    }
}

impl AskError {
    /// The hold that has ended already, if that is why a verdict had no effect.
    pub fn ended(&self) -> Option<HoldView> {
        match self {
            Self::Refused(refused) if refused.code() == error_code::ENDED => {
                serde_json::from_str(refused.data()?.get()).ok()
            }
            _ => None,
        }
    }
}

/// One gate that answers.
#[derive(Debug)]
pub struct GateClient {
    /// Who it is.
    pub registered: Registered,
    /// Its connection.
    pub rpc: Client,
}

/// Connects to the control socket at `path`, if a process of the user `uid` listens there: what somebody else would show
/// as waiting is not, and a verdict is not theirs to hear.
///
/// # Errors
///
/// When nobody or somebody else listens there.
async fn connect(path: &Path, uid: u32) -> Result<Client, AskError> {
    let stream = timeout(CONNECT, UnixStream::connect(path))
        .await
        .map_err(|_| AskError::Broken("it does not accept the connection".to_owned()))?
        .map_err(|error| AskError::Broken(error.to_string()))?;
    // Before the first byte. The kernel says who it was that began to listen.
    let peer = stream.peer_cred().map_err(|error| AskError::Broken(error.to_string()))?;
    if peer.uid() != uid {
        return Err(AskError::Broken("another user listens on its socket".to_owned()));
    }
    // The address is never looked up: the stream is connected already.
    let url = Url::parse("ws://gate.local/").map_err(|error| AskError::Broken(error.to_string()))?;
    let transport = WsTransportClientBuilder::default()
        .max_request_size(ANSWER_BYTES_MAX)
        .max_response_size(ANSWER_BYTES_MAX)
        .connection_timeout(CONNECT)
        .build_with_stream(url, stream);
    let (sender, receiver) = transport.await.map_err(|error| AskError::Broken(error.to_string()))?;
    Ok(ClientBuilder::default()
        .request_timeout(ANSWER)
        .max_buffer_capacity_per_subscription(NEWS_KEPT_MAX)
        .enable_ws_ping(PingConfig::new().ping_interval(SIGN_OF_LIFE).inactive_limit(NO_SIGN_OF_LIFE))
        .build_with_tokio(sender, receiver))
}

/// Connects to the gate that has registered so.
///
/// # Errors
///
/// When it does not answer, or another user's process answers for it.
pub async fn reach(registered: Registered) -> Result<GateClient, AskError> {
    let rpc = connect(&registered.socket, rustix::process::getuid().as_raw()).await?;
    Ok(GateClient { registered, rpc })
}

/// A gate that lives and does not answer. What waits there waits all the same.
#[derive(Clone, Debug)]
pub struct Silent {
    /// Who it is.
    pub registered: Registered,
    /// What came of asking it.
    pub why: String,
}

impl fmt::Display for Silent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { registered: Registered { pid, .. }, why } = self;
        write!(f, "the gate of process {pid} lives and does not answer ({why}): what waits there is not seen")
    }
}

/// The gates of this user that live.
#[derive(Debug, Default)]
pub struct Reached {
    /// Those that answer.
    pub gates: Vec<GateClient>,
    /// Those that do not.
    pub silent: Vec<Silent>,
}

/// All gates of this user.
pub async fn gates() -> Reached {
    reach_all(place::live_gates()).await
}

/// Those of the gates that have registered so which have not ended, all asked at once: one that does not answer costs its time
/// only once.
pub async fn reach_all(registered: Vec<Registered>) -> Reached {
    let mut reached = Reached::default();
    for gate in join_all(registered.into_iter().map(reach_unless_ended)).await.into_iter().flatten() {
        match gate {
            Ok(gate) => reached.gates.push(gate),
            Err(silent) => reached.silent.push(silent),
        }
    }
    reached
}

/// Connects to the gate that has registered so; nothing if it has ended meanwhile. One that lives may only just be about to end, or to
/// listen: then it is tried again, for a moment.
pub async fn reach_unless_ended(registered: Registered) -> Option<Result<GateClient, Silent>> {
    let deadline = Instant::now() + GONE_LOOKS;
    loop {
        let error = match reach(registered.clone()).await {
            Ok(gate) => return Some(Ok(gate)),
            Err(error) => error,
        };
        if !place::is_live(&registered) {
            return None;
        }
        if Instant::now() >= deadline {
            let why = match error {
                AskError::Broken(why) => why,
                other => other.to_string(),
            };
            return Some(Err(Silent { registered, why }));
        }
        sleep(GONE_LOOK_EVERY).await;
    }
}

/// How long, and how often, a gate that broke off is looked for before it counts as one that lives.
const GONE_LOOKS: Duration = Duration::from_secs(1);
const GONE_LOOK_EVERY: Duration = Duration::from_millis(50);

/// Whether the gate that broke off has ended: then it holds nothing any more, and is no failure of whoever asks. One that can be
/// connected to, or has its registration locked, still has something to hide.
async fn has_ended(gate: &GateClient) -> bool {
    let deadline = Instant::now() + GONE_LOOKS;
    loop {
        if !place::is_live(&gate.registered)
            && connect(&gate.registered.socket, rustix::process::getuid().as_raw()).await.is_err()
        {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        sleep(GONE_LOOK_EVERY).await;
    }
}

/// What `asked` came to at `gate`; nothing if the gate has ended meanwhile.
///
/// # Errors
///
/// Those of `asked`, and when the gate broke off and still runs.
pub async fn unless_ended<T>(gate: &GateClient, asked: Result<T, AskError>) -> Result<Option<T>, AskError> {
    match asked {
        Err(AskError::Broken(_)) if has_ended(gate).await => Ok(None),
        asked => asked.map(Some),
    }
}

/// All calls that wait at `gates`, the oldest first.
///
/// # Errors
///
/// When a gate breaks off that still runs; [`AskError::NoGate`] when every one of them has ended meanwhile.
pub async fn holds(gates: &[GateClient]) -> Result<Vec<HoldView>, AskError> {
    let mut all: Vec<HoldView> = Vec::new();
    let mut have_all_ended = true;
    for gate in gates {
        let Some(holds) = unless_ended(gate, holds_of(gate).await).await? else { continue };
        have_all_ended = false;
        for hold in holds {
            // Gates on one record all tell of what has no caller.
            if hold.attached || !all.iter().any(|known| known.id == hold.id) {
                all.push(hold);
            }
        }
    }
    if have_all_ended {
        return Err(AskError::NoGate);
    }
    all.sort_by_key(|hold| (hold.created_at, hold.id));
    Ok(all)
}

async fn holds_of(gate: &GateClient) -> Result<Vec<HoldView>, AskError> {
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let page = gate.rpc.holds(after).await?;
        all.extend(page.holds);
        after = page.next;
        if after.is_none() {
            return Ok(all);
        }
    }
}

/// The gate and the whole id of the hold whose id begins with `prefix`: one that waits, else one of the record.
///
/// # Errors
///
/// When no hold or several have such an id, and as [`holds`].
pub async fn find<'a>(gates: &'a [GateClient], prefix: &str) -> Result<(&'a GateClient, HoldId), AskError> {
    let prefix = prefix.to_ascii_lowercase();
    let not_found = || AskError::NotFound(prefix.clone());
    if prefix.is_empty()
        || prefix.len() > HOLD_ID_CHARS
        || !prefix.bytes().all(|byte| byte.is_ascii_alphanumeric())
    {
        return Err(not_found());
    }
    let (mut found, mut live): (Vec<(&GateClient, HoldId)>, _) = (Vec::new(), Vec::new());
    for gate in gates {
        let Some(waiting) = unless_ended(gate, holds_of(gate).await).await? else { continue };
        live.push(gate);
        let ids = waiting.iter().map(|hold| hold.id).filter(|id| id.to_string().starts_with(&prefix));
        for id in ids {
            // Gates on one record all tell of what has no caller; who has a caller tells it first.
            if !found.iter().any(|(_, known)| *known == id) {
                found.push((gate, id));
            }
        }
    }
    if live.is_empty() {
        return Err(AskError::NoGate);
    }
    if found.is_empty() {
        for gate in live {
            let known = gate.rpc.find(prefix.clone()).await.map_err(AskError::from);
            for id in unless_ended(gate, known).await?.unwrap_or_default() {
                // Several gates may share one record.
                if !found.iter().any(|(_, known)| *known == id) {
                    found.push((gate, id));
                }
            }
        }
    }
    match found.as_slice() {
        [] => Err(not_found()),
        [one] => Ok(*one),
        several => Err(AskError::Ambiguous { prefix, ids: several.iter().map(|(_, id)| *id).collect() }),
    }
}

#[cfg(test)]
mod tests {
    use tokio::{io::AsyncReadExt, net::UnixListener};

    use super::*;

    #[tokio::test]
    async fn a_socket_of_another_user_is_told_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("gate.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let own = rustix::process::getuid().as_raw();
        // Whoever listens here is another user than the one after us.
        let (connected, heard) = tokio::join!(connect(&path, own + 1), async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut byte = [0];
            stream.read(&mut byte).await.unwrap()
        });
        assert!(matches!(&connected, Err(AskError::Broken(why)) if why.contains("another user")));
        assert_eq!(heard, 0, "not one byte");
    }
}
