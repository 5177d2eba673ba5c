//! The desk: where people see what waits and decide, in a browser or by REST.
//!
//! A client of the control sockets of all gates of this user, as the command line is: it shows what they tell, passes
//! verdicts on to them, and decides nothing. `hub` knows what waits, `pages` shows it, `api` speaks JSON, `events` tells of
//! changes, `verdict` is the one way to a gate. `guard` stands before all of them, with `session` and `keys` for who it is.
//! What channels (chat, mail, other programs) send comes to `inbound`, and goes through `verdict` too.

pub mod keys;
mod address;
mod api;
mod assets;
mod card;
mod events;
mod guard;
mod history;
mod hub;
mod inbound;
mod letters;
mod listener;
mod open;
mod pages;
mod policies;
mod problem;
mod record;
mod session;
mod sessions;
mod tool;
mod verdict;

use std::{fmt, io, path::PathBuf, sync::Arc};

use jiff::{SignedDuration, Timestamp};

pub use self::address::{Address, AddressError, PORT_DEFAULT, Wire, origin_of};
use self::{
    hub::Hub,
    keys::{Keys, KeysError},
    session::Sessions,
};
use crate::{
    channels::{Channels, Dispatcher, Links},
    control::rate::Rate,
    gate::Gate,
    hold::HoldId,
    store::{Location, Store},
    transport::http::tls::ServerTls,
};

/// How long the link that a desk prints when it starts can be used, in minutes.
pub const SIGN_IN_MINUTES: i64 = 15;

/// What a desk needs to begin.
pub struct Settings {
    /// Where it listens, and what it is called in browsers.
    pub address: Address,
    /// What it shows and asks to see, if it speaks TLS.
    pub tls: Option<Arc<ServerTls>>,
    /// The record that history is read from.
    pub store: Location,
    /// The file of the keys.
    pub keys: Keys,
    /// Where people hear of what waits besides.
    pub channels: Channels,
    /// The file of the key that signs the links in mails.
    pub link_key: PathBuf,
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings").field("address", &self.address).finish_non_exhaustive()
    }
}

/// Why a desk does not begin.
#[derive(Debug, thiserror::Error)]
pub enum DeskError {
    /// The address cannot be had.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: std::net::SocketAddr,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The keys cannot be kept.
    #[error("the desk's keys cannot be used")]
    Keys(#[from] KeysError),
    /// The key of the links in mails cannot be kept.
    #[error("the key of links cannot be used")]
    LinkKey(#[source] io::Error),
    /// The system has no random numbers.
    #[error("the system has no random numbers")]
    Random(#[from] getrandom::Error),
}

/// A desk that listens, before it serves.
pub struct Desk {
    listener: tokio::net::TcpListener,
    tls: Option<Arc<ServerTls>>,
    /// This process, among those on the record.
    name: Arc<str>,
    state: Arc<State>,
}

/// What every request finds.
struct State {
    address: Address,
    hub: Hub,
    sessions: Sessions,
    keys: Keys,
    channels: Arc<Channels>,
    links: Arc<Links>,
    store: Store,
    location: Location,
    /// Decides on what has no caller where no gate runs.
    own: Gate,
    /// Keys that were wrong: guessing is slowed down.
    wrong_keys: Rate,
    /// Verdicts: nobody decides faster than they can read.
    verdicts: Rate,
    /// Places for open streams of events.
    streams: Arc<tokio::sync::Semaphore>,
}

impl fmt::Debug for Desk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Desk").field("address", &self.state.address).finish_non_exhaustive()
    }
}

impl Desk {
    /// Listens, and begins to follow the gates.
    ///
    /// # Errors
    ///
    /// When the address cannot be had.
    pub async fn open(settings: Settings) -> Result<Self, DeskError> {
        let Settings { mut address, tls, store: location, keys, channels, link_key } = settings;
        let listener = listener::bind(&mut address)
            .await
            .map_err(|source| DeskError::Listen { address: address.listen, source })?;
        let links = Links::open(&link_key, address.origin.clone()).map_err(DeskError::LinkKey)?;
        let name = format!("desk-{}", HoldId::random()?).into();
        let store = Store::open_at(&location, &name);
        let state = State {
            address,
            links: Arc::new(links),
            hub: Hub::start(),
            sessions: Sessions::default(),
            keys,
            channels: Arc::new(channels),
            own: record::gate(store.clone(), &location),
            store,
            location,
            wrong_keys: Rate::wrong_keys(),
            verdicts: Rate::verdicts(),
            streams: events::places(),
        };
        Ok(Self { listener, tls, name, state: Arc::new(state) })
    }

    /// Its address, as browsers say it.
    pub fn address(&self) -> &Address {
        &self.state.address
    }

    /// What it is called among the processes on the record.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The record that it reads.
    pub fn store(&self) -> &Store {
        &self.state.store
    }

    /// A link by which one person can sign in, once, within [`SIGN_IN_MINUTES`].
    ///
    /// # Errors
    ///
    /// When the key cannot be kept.
    pub fn sign_in_link(&self) -> Result<String, DeskError> {
        Ok(sign_in_link(&self.state.keys, &self.state.address.origin)?)
    }

    /// Serves until `stopped` is ready.
    pub async fn serve(self, stopped: impl Future<Output = ()>) {
        let State { store, channels, links, address, hub, .. } = &*self.state;
        let dispatcher = Dispatcher::new(
            store.clone(),
            Arc::clone(channels),
            address.origin.clone(),
            Arc::clone(links),
            self.name,
            hub.heard(),
        );
        let served =
            listener::serve(self.listener, self.tls, guard::router(Arc::clone(&self.state)), stopped);
        if channels.iter().next().is_none() {
            return served.await;
        }
        tokio::select! {
            () = served => {}
            () = dispatcher.run() => {}
            () = inbound::listen(&self.state) => {}
        }
    }
}

/// A link to the desk at `origin` by which one person can sign in, once, within [`SIGN_IN_MINUTES`].
///
/// # Errors
///
/// When the key cannot be kept.
pub fn sign_in_link(keys: &Keys, origin: &str) -> Result<String, KeysError> {
    let until = Timestamp::now().saturating_add(SignedDuration::from_mins(SIGN_IN_MINUTES));
    let key = keys.add_sign_in(until.unwrap_or(Timestamp::MAX))?;
    Ok(format!("{origin}/sign-in?key={key}"))
}
