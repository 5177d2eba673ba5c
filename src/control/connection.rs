//! Connections to the control socket: how many there may be, and one of them, served until nothing is asked on it any more.
//!
//! Called by `server` for each connection that it has accepted. People have a room of their own, which nobody fills who only sits there and
//! which what the client has started does not enter.

use std::{
    io,
    net::Shutdown,
    os::{fd::AsFd, unix::net::UnixStream as StdUnixStream},
    sync::Arc,
    time::Duration,
};

use jsonrpsee::{
    core::middleware::{Batch, Notification, RpcServiceBuilder, RpcServiceT},
    server::{
        HttpRequest, Methods, StopHandle, TowerServiceBuilder, serve_with_graceful_shutdown, stop_channel,
    },
    types::Request,
};
use tokio::{
    net::UnixStream,
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::timeout,
};
use tower::layer::util::Identity;

use crate::principal::Principal;

/// Operators' connections at the same time.
const CONNECTIONS_MAX: u32 = 64;

/// Those of the client and what it has started, counted apart: they must not use up what people need.
const CLIENT_CONNECTIONS_MAX: u32 = 16;

/// How long a connection may take until something is asked on it. Whoever connects, does so to ask.
const FIRST_QUESTION: Duration = Duration::from_secs(30);

/// How long it may take from one question's answer to the next question. Somebody may be reading what was shown.
const NEXT_QUESTION: Duration = Duration::from_secs(15 * 60);

/// The places that there are.
#[derive(Debug)]
pub(super) struct Rooms {
    operators: Arc<Semaphore>,
    client: Arc<Semaphore>,
}

impl Default for Rooms {
    fn default() -> Self {
        let room = |places: u32| Arc::new(Semaphore::new(places as usize));
        Self { operators: room(CONNECTIONS_MAX), client: room(CLIENT_CONNECTIONS_MAX) }
    }
}

impl Rooms {
    /// All places.
    pub(super) const PLACES_MAX: u32 = CONNECTIONS_MAX + CLIENT_CONNECTIONS_MAX;

    /// A place for a connection of `peer`, if there is one left.
    pub(super) fn enter(&self, peer: &Principal) -> Option<OwnedSemaphorePermit> {
        let room = if matches!(peer, Principal::Client { .. }) { &self.client } else { &self.operators };
        Arc::clone(room).try_acquire_owned().ok()
    }
}

/// What is under way on a connection: questions that are being answered, and news that somebody waits for.
#[derive(Clone, Debug)]
pub(super) struct Uses(Arc<watch::Sender<usize>>);

impl Uses {
    /// Something is under way until what this gives is dropped.
    pub(super) fn begin(&self) -> InUse {
        self.0.send_modify(|under_way| *under_way += 1);
        InUse(self.clone())
    }
}

/// Something that is under way.
#[derive(Debug)]
pub(super) struct InUse(Uses);

impl Drop for InUse {
    fn drop(&mut self) {
        self.0.0.send_modify(|under_way| *under_way -= 1);
    }
}

/// Serves one connection, whose every request carries `peer`, until it is closed, the gate stops, or nothing was asked on it for too long.
pub(super) async fn serve(
    stream: UnixStream,
    peer: Principal,
    services: TowerServiceBuilder<Identity, Identity>,
    methods: Methods,
    stop: StopHandle,
) {
    // The same socket once more, to shut it down, also where the other side does not read.
    let socket = match stream.as_fd().try_clone_to_owned() {
        Ok(socket) => StdUnixStream::from(socket),
        Err(error) => {
            tracing::warn!(%error, "a connection to the control socket was closed");
            return;
        }
    };
    let (uses, under_way) = watch::channel(0);
    let uses = Uses(Arc::new(uses));
    let counted = uses.clone();
    let count = RpcServiceBuilder::new().layer_fn(move |service| Counted { service, uses: counted.clone() });
    let (stop_own, own) = stop_channel();
    let service = services.set_rpc_middleware(count).build(methods, stop_own.clone());
    let service = tower::service_fn(move |mut request: HttpRequest<_>| {
        request.extensions_mut().insert(peer.clone());
        request.extensions_mut().insert(uses.clone());
        let mut service = service.clone();
        async move { tower::Service::call(&mut service, request).await.map_err(io::Error::other) }
    });
    let stop_one = own.clone();
    let served = async move {
        if let Err(error) = serve_with_graceful_shutdown(stream, service, stop_own.shutdown()).await {
            tracing::debug!(%error, "an operator's connection broke");
        }
        // A WebSocket goes on by itself, until nobody is left who could be told to stop.
        own.stopped().await;
    };
    tokio::pin!(served);
    let stopping = stop.clone();
    tokio::select! {
        () = &mut served => return,
        () = unused(under_way) => {
            tracing::debug!("a connection to the control socket on which nothing was asked was ended");
            let _ = socket.shutdown(Shutdown::Both);
        }
        () = stopping.shutdown() => {
            let _ = stop_one.stop();
        }
    }
    served.await;
    // Whoever stops the gate waits for this.
    drop(stop);
}

/// Returns when nothing has been under way for too long.
async fn unused(mut under_way: watch::Receiver<usize>) {
    let mut patience = FIRST_QUESTION;
    while under_way.wait_for(|under_way| *under_way == 0).await.is_ok() {
        match timeout(patience, under_way.changed()).await {
            Ok(Ok(())) => patience = NEXT_QUESTION,
            Ok(Err(_)) => break,
            Err(_) => return,
        }
    }
    // It is over by itself.
    std::future::pending().await
}

/// Counts each question while it is being answered.
#[derive(Clone)]
struct Counted<S> {
    service: S,
    uses: Uses,
}

impl<S: RpcServiceT + Clone + Send + Sync + 'static> RpcServiceT for Counted<S> {
    type MethodResponse = S::MethodResponse;
    type NotificationResponse = S::NotificationResponse;
    type BatchResponse = S::BatchResponse;

    fn call<'a>(&self, request: Request<'a>) -> impl Future<Output = Self::MethodResponse> + Send + 'a {
        let (service, in_use) = (self.service.clone(), self.uses.begin());
        async move {
            let answer = service.call(request).await;
            drop(in_use);
            answer
        }
    }

    // Batches are refused, and a notification asks nothing.

    fn batch<'a>(&self, batch: Batch<'a>) -> impl Future<Output = Self::BatchResponse> + Send + 'a {
        self.service.batch(batch)
    }

    fn notification<'a>(
        &self,
        notification: Notification<'a>,
    ) -> impl Future<Output = Self::NotificationResponse> + Send + 'a {
        self.service.notification(notification)
    }
}

#[cfg(test)]
mod tests {
    use jsonrpsee::{
        RpcModule,
        client_transport::ws::{Url, WsTransportClientBuilder},
        core::client::{Client, ClientBuilder, ClientT, SubscriptionClientT},
        rpc_params,
        server::Server,
    };
    use tokio::time::{Instant, sleep};

    use super::*;

    #[test]
    fn what_the_client_has_started_leaves_people_their_places() {
        let rooms = Rooms::default();
        let client = Principal::client();
        let places: Vec<_> = (0..1000).map_while(|_| rooms.enter(&client)).collect();
        assert_eq!(places.len(), 16, "it has some, and no more");
        let person = Principal::User { uid: 1000, name: None };
        let operators: Vec<_> = (0..1000).map_while(|_| rooms.enter(&person)).collect();
        assert_eq!(operators.len(), 64, "a person still gets in");
        drop(operators);
        assert!(rooms.enter(&client).is_none(), "the places of people are not the client's");
        drop(places);
        assert!(rooms.enter(&client).is_some());
    }

    /// Somebody who has connected, to a gate that tells its name and news that never come.
    async fn connected() -> Client {
        let mut gate = RpcModule::new(());
        gate.register_method("name", |_, (), _| "gate").unwrap();
        let watch = |_, pending: jsonrpsee::PendingSubscriptionSink, _, extensions: jsonrpsee::Extensions| async move {
            let _in_use = extensions.get::<Uses>().map(Uses::begin);
            pending.accept().await.unwrap().closed().await;
        };
        gate.register_subscription("watch", "news", "unwatch", watch).unwrap();
        let (theirs, ours) = UnixStream::pair().unwrap();
        tokio::spawn(async move {
            let (stop, _running) = stop_channel();
            let services = Server::builder().to_service_builder();
            serve(ours, Principal::client(), services, gate.into(), stop).await;
        });
        let transport = WsTransportClientBuilder::default();
        let url = Url::parse("ws://gate.local/").unwrap();
        let (sender, receiver) = transport.build_with_stream(url, theirs).await.unwrap();
        ClientBuilder::default().build_with_tokio(sender, receiver)
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_connects_and_asks_nothing_is_gone_after_half_a_minute() {
        let client = connected().await;
        let began = Instant::now();
        client.on_disconnect().await;
        assert_eq!(began.elapsed().as_secs(), 30);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_has_asked_may_ask_again_within_a_quarter_of_an_hour() {
        let client = connected().await;
        for _ in 0..3 {
            sleep(Duration::from_secs(29)).await;
            let name: String = client.request("name", rpc_params![]).await.unwrap();
            assert_eq!(name, "gate");
            sleep(Duration::from_secs(14 * 60)).await;
        }
        let _: String = client.request("name", rpc_params![]).await.unwrap();
        let began = Instant::now();
        client.on_disconnect().await;
        assert_eq!(began.elapsed().as_secs(), 15 * 60);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_for_news_stays_and_is_gone_a_while_after() {
        let client = connected().await;
        let news = client.subscribe::<u32, _>("watch", rpc_params![], "unwatch").await.unwrap();
        sleep(Duration::from_secs(24 * 60 * 60)).await;
        assert!(client.is_connected(), "a day without news is no reason");
        news.unsubscribe().await.unwrap();
        let began = Instant::now();
        client.on_disconnect().await;
        assert_eq!(began.elapsed().as_secs(), 15 * 60);
    }
}
