//! All gates of this user as one source of news, also those that start later.
//!
//! Used by whoever shows what waits while it changes: `holds --watch`, the desk, the terminal UI. It asks and listens; it
//! decides nothing and keeps nothing but the connections.

use std::{
    collections::{HashMap, HashSet},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use futures_util::{
    FutureExt, StreamExt,
    future::BoxFuture,
    stream::{self, BoxStream, FuturesUnordered, SelectAll},
};
use jsonrpsee::core::client::Subscription;
use tokio::{
    sync::mpsc::{Receiver, Sender, channel},
    time::{Interval, MissedTickBehavior, interval, timeout},
};

use super::{
    api::{ControlClient, HoldView, Watched, WatchedEvent},
    client::{self, AskError, GateClient, Silent},
    place::{self, Registered},
};

/// How often gates are looked for that have been started meanwhile.
const LOOK_FOR_GATES: Duration = Duration::from_secs(1);

/// How long a gate may take to say that it will tell its news.
const NEWS: Duration = Duration::from_secs(3);

/// News that may wait to be taken; then the gates keep them, up to their own limits.
const NEWS_WAITING_MAX: usize = 256;

/// What is heard of the gates.
#[derive(Debug)]
pub enum Followed {
    /// All that waits at a gate now: it has been found, or news of it were missed.
    Listed {
        /// The gate.
        gate: Arc<GateClient>,
        /// What waits there, the oldest first.
        holds: Vec<HoldView>,
    },
    /// A piece of news from a gate that has been listed. Never [`WatchedEvent::Missed`].
    News {
        /// The gate's name.
        instance: String,
        /// What happened.
        watched: Box<Watched>,
    },
    /// A gate lives and does not answer: told once, until it answers or has gone.
    Silent(Silent),
    /// A gate has gone, and with it whoever waited there.
    Gone {
        /// The gate's name.
        instance: String,
    },
}

/// Begins to follow all gates of this user, or those on the record in the file `store`. It ends when the receiver is dropped.
pub fn follow(store: Option<PathBuf>) -> Receiver<Followed> {
    let (sender, receiver) = channel(NEWS_WAITING_MAX);
    tokio::spawn(async move {
        let _ = Follower::new(store, sender).run().await;
    });
    receiver
}

/// Nobody listens any more.
struct Unheard;

/// A gate's news, each with the gate's name; `None` when there will be no more.
type News = BoxStream<'static, (String, Option<Result<Watched, serde_json::Error>>)>;

/// What came of asking a gate for its news, with the gate's name; `None` if it has ended.
type Asked = BoxFuture<'static, (String, Option<Result<(GateClient, Subscription<Watched>), Silent>>)>;

struct Follower {
    store: Option<PathBuf>,
    gates: HashMap<String, Arc<GateClient>>,
    /// Gates that are being asked. One that does not answer keeps nobody from hearing the others.
    asked: FuturesUnordered<Asked>,
    /// Their names.
    asking: HashSet<String>,
    /// Gates that have not answered, and that has been told.
    silent: HashSet<String>,
    news: SelectAll<News>,
    look: Interval,
    sender: Sender<Followed>,
}

impl Follower {
    fn new(store: Option<PathBuf>, sender: Sender<Followed>) -> Self {
        let mut look = interval(LOOK_FOR_GATES);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            store,
            gates: HashMap::new(),
            asked: FuturesUnordered::new(),
            asking: HashSet::new(),
            silent: HashSet::new(),
            news: SelectAll::new(),
            look,
            sender,
        }
    }

    async fn run(mut self) -> Result<(), Unheard> {
        loop {
            let news = tokio::select! {
                () = self.sender.closed() => return Err(Unheard),
                _ = self.look.tick() => {
                    self.look_for_gates().await?;
                    continue;
                }
                Some((instance, answer)) = self.asked.next(), if !self.asked.is_empty() => {
                    self.answered(instance, answer).await?;
                    continue;
                }
                news = self.news.next(), if !self.news.is_empty() => news,
            };
            match news {
                None => {}
                Some((instance, Some(Ok(watched)))) if watched.event == WatchedEvent::Missed => {
                    self.list(&instance).await?;
                }
                Some((instance, Some(Ok(watched)))) => {
                    self.tell(Followed::News { instance, watched: Box::new(watched) }).await?;
                }
                // Broken off, or ended: the one as the other. If it lives, it is found again.
                Some((instance, Some(Err(_)) | None)) => self.gone(&instance).await?,
            }
        }
    }

    /// Begins to ask gates that are not followed yet, and forgets those that have ended without an answer.
    async fn look_for_gates(&mut self) -> Result<(), Unheard> {
        let live = place::live_gates_on(self.store.as_deref());
        let ended: Vec<_> = self
            .silent
            .iter()
            .filter(|&silent| !live.iter().any(|gate| gate.instance == *silent))
            .cloned()
            .collect();
        for instance in ended {
            self.silent.remove(&instance);
            self.tell(Followed::Gone { instance }).await?;
        }
        for registered in live {
            let instance = registered.instance.clone();
            if !self.gates.contains_key(&instance) && self.asking.insert(instance.clone()) {
                self.asked.push(async move { (instance, news_of(registered).await) }.boxed());
            }
        }
        Ok(())
    }

    /// Follows a gate that has answered. One that has not is asked again.
    async fn answered(
        &mut self,
        instance: String,
        answer: Option<Result<(GateClient, Subscription<Watched>), Silent>>,
    ) -> Result<(), Unheard> {
        self.asking.remove(&instance);
        match answer {
            // A gate that ends just now is no error.
            None => Ok(()),
            Some(Err(silent)) => {
                if self.silent.insert(instance) {
                    self.tell(Followed::Silent(silent)).await
                } else {
                    Ok(())
                }
            }
            Some(Ok((gate, subscription))) => {
                self.silent.remove(&instance);
                let (name, last) = (instance.clone(), instance.clone());
                let told = subscription.map(move |watched| (name.clone(), Some(watched)));
                self.news.push(told.chain(stream::once(async { (last, None) })).boxed());
                self.gates.insert(instance.clone(), Arc::new(gate));
                self.list(&instance).await
            }
        }
    }

    async fn list(&mut self, instance: &str) -> Result<(), Unheard> {
        let Some(gate) = self.gates.get(instance).map(Arc::clone) else { return Ok(()) };
        match client::holds(std::slice::from_ref(&*gate)).await {
            Ok(holds) => self.tell(Followed::Listed { gate, holds }).await,
            // The end of its news comes next.
            Err(AskError::Broken(_) | AskError::NoGate) => Ok(()),
            Err(error) => {
                tracing::warn!(%error, "a gate did not list what waits there");
                Ok(())
            }
        }
    }

    /// Forgets a gate. What it told of may be told of by others on the same record, so they are listed anew.
    async fn gone(&mut self, instance: &str) -> Result<(), Unheard> {
        if self.gates.remove(instance).is_none() {
            return Ok(());
        }
        self.tell(Followed::Gone { instance: instance.to_owned() }).await?;
        for other in self.gates.keys().cloned().collect::<Vec<_>>() {
            self.list(&other).await?;
        }
        Ok(())
    }

    async fn tell(&mut self, followed: Followed) -> Result<(), Unheard> {
        self.sender.send(followed).await.map_err(|_| Unheard)
    }
}

/// Connects to a gate and asks for its news; nothing if it has ended. First the subscription, then the list: what is held in between is told
/// twice rather than never.
async fn news_of(registered: Registered) -> Option<Result<(GateClient, Subscription<Watched>), Silent>> {
    let gate = match client::reach_unless_ended(registered).await? {
        Ok(gate) => gate,
        Err(silent) => return Some(Err(silent)),
    };
    let subscription = match timeout(NEWS, gate.rpc.watch()).await {
        Ok(Ok(subscription)) => subscription,
        Ok(Err(error)) => return Some(Err(Silent { registered: gate.registered, why: error.to_string() })),
        Err(_) => {
            let why = "it does not say whether it tells its news".to_owned();
            return Some(Err(Silent { registered: gate.registered, why }));
        }
    };
    Some(Ok((gate, subscription)))
}
