//! All gates of this user as one source of news, also those that start later.
//!
//! Used by whoever shows what waits while it changes: `holds --watch`, the desk, the terminal UI. It asks and listens; it
//! decides nothing and keeps nothing but the connections.

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures_util::{
    StreamExt,
    stream::{self, BoxStream, SelectAll},
};
use tokio::{
    sync::mpsc::{Receiver, Sender, channel},
    time::{Interval, MissedTickBehavior, interval},
};

use super::{
    api::{ControlClient, HoldView, Watched, WatchedEvent},
    client::{self, AskError, GateClient},
    place,
};

/// How often gates are looked for that have been started meanwhile.
const LOOK_FOR_GATES: Duration = Duration::from_secs(1);

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
    /// A gate has gone, and with it whoever waited there.
    Gone {
        /// The gate's name.
        instance: String,
    },
}

/// Begins to follow all gates of this user. It ends when the receiver is dropped.
pub fn follow() -> Receiver<Followed> {
    let (sender, receiver) = channel(NEWS_WAITING_MAX);
    tokio::spawn(async move {
        let _ = Follower::new(sender).run().await;
    });
    receiver
}

/// Nobody listens any more.
struct Unheard;

/// A gate's news, each with the gate's name; `None` when there will be no more.
type News = BoxStream<'static, (String, Option<Result<Watched, serde_json::Error>>)>;

struct Follower {
    gates: HashMap<String, Arc<GateClient>>,
    news: SelectAll<News>,
    look: Interval,
    sender: Sender<Followed>,
}

impl Follower {
    fn new(sender: Sender<Followed>) -> Self {
        let mut look = interval(LOOK_FOR_GATES);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { gates: HashMap::new(), news: SelectAll::new(), look, sender }
    }

    async fn run(mut self) -> Result<(), Unheard> {
        loop {
            let news = tokio::select! {
                () = self.sender.closed() => return Err(Unheard),
                _ = self.look.tick() => None,
                news = self.news.next(), if !self.news.is_empty() => news,
            };
            match news {
                None => self.look_for_gates().await?,
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

    async fn look_for_gates(&mut self) -> Result<(), Unheard> {
        for registered in place::live_gates() {
            if self.gates.contains_key(&registered.instance) {
                continue;
            }
            // A gate that ends just now is no error, and one that does not answer is asked again.
            let Ok(gate) = client::reach(registered).await else { continue };
            let instance = gate.registered.instance.clone();
            // First the subscription, then the list: what is held in between is told twice rather than never.
            let Ok(subscription) = gate.rpc.watch().await else { continue };
            let (name, last) = (instance.clone(), instance.clone());
            let told = subscription.map(move |watched| (name.clone(), Some(watched)));
            self.news.push(told.chain(stream::once(async { (last, None) })).boxed());
            self.gates.insert(instance.clone(), Arc::new(gate));
            self.list(&instance).await?;
        }
        Ok(())
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
