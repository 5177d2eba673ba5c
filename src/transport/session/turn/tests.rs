//! What is written when, in a session whose peers are in the hands of a test.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use tokio::{
    io::{AsyncWriteExt as _, DuplexStream},
    task::JoinHandle,
};

use super::*;
use crate::{
    gate::{Caller, Gate, GateLimits},
    hold::{Said, State, Verdict},
    policy::{Policy, Source},
    principal::Principal,
    store::Store,
    transport::session::{Lifecycle, run},
};

/// Takes what is written, and notes what came with each write.
#[derive(Clone, Default)]
struct Writes {
    taken: Arc<Mutex<Vec<String>>>,
    /// How often there is no room yet.
    refused: Arc<AtomicUsize>,
}

impl Writes {
    /// How many lines came with each write.
    fn lines(&self) -> Vec<usize> {
        self.taken.lock().unwrap().iter().map(|text| text.lines().count()).collect()
    }
}

impl AsyncWrite for Writes {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let one_less = |left: usize| left.checked_sub(1);
        if self.refused.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).is_ok() {
            return Poll::Pending;
        }
        self.taken.lock().unwrap().push(String::from_utf8_lossy(bytes).into_owned());
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let all: Vec<u8> = slices.iter().flat_map(|slice| slice.to_vec()).collect();
        self.poll_write(cx, &all)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// A session, what its peers say to it, and what is written to them.
struct Running {
    gate: Arc<Gate>,
    client: DuplexStream,
    server: DuplexStream,
    to_client: Writes,
    to_server: Writes,
    session: JoinHandle<()>,
}

impl Running {
    fn begin(policy: &str) -> Self {
        let policy = Source { name: "policy.yaml".into(), text: policy.into() };
        let policy = Arc::new(Policy::parse(vec![policy]).unwrap());
        let gate = Gate::new("gate".into(), policy, Store::in_memory(), GateLimits::default());
        let gate = Arc::new(gate);
        let caller = Caller::new(&Principal::Client { uid: 1, name: None }, "server".into());
        let (client, near_client) = tokio::io::duplex(1 << 16);
        let (server, near_server) = tokio::io::duplex(1 << 16);
        let (to_client, to_server) = (Writes::default(), Writes::default());
        let session = tokio::spawn(run(
            Arc::clone(&gate),
            caller,
            (near_client, to_client.clone()),
            (near_server, to_server.clone()),
            SessionLimits::default(),
            Lifecycle::default(),
        ));
        Self { gate, client, server, to_client, to_server, session }
    }

    async fn client_says(&mut self, lines: &str) {
        self.client.write_all(lines.as_bytes()).await.unwrap();
        settle().await;
    }

    async fn end(self) {
        drop(self.server);
        self.session.await.unwrap();
    }
}

/// Long enough, in paused time, for everything that can happen to have happened.
async fn settle() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}

fn pings(count: u32) -> String {
    let ping = |id| format!("{{\"jsonrpc\":\"2.0\",\"id\":\"p{id}\",\"method\":\"ping\"}}\n");
    (0..count).map(ping).collect()
}

#[tokio::test(start_paused = true)]
async fn of_many_calls_at_once_a_server_gets_the_first_before_the_rest_and_a_client_its_answers() {
    let mut running = Running::begin("version: 1\ndefault: allow\n");
    running.client_says(&pings(64)).await;
    assert_eq!(running.to_server.lines(), [24, 40]);
    let answers = pings(64).replace("\"method\":\"ping\"", "\"result\":{}");
    running.server.write_all(answers.as_bytes()).await.unwrap();
    settle().await;
    assert_eq!(running.to_client.lines(), [24, 40]);
    running.end().await;
}

#[tokio::test(start_paused = true)]
async fn an_approved_call_that_is_taken_back_behind_many_others_never_goes() {
    let mut running = Running::begin("version: 1\ndefault: hold\n");
    let call = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"pay","arguments":{}}}"#;
    running.client_says(&format!("{call}\n")).await;
    let [held] = &running.gate.holds()[..] else { panic!("one call waits") };
    let (hold, gate) = (held.id, Arc::clone(&running.gate));
    running.to_server.refused.store(usize::MAX, Ordering::Relaxed);
    let said =
        Said { verdict: Verdict::Approve, remember: None, arguments: None, proof: None, shown_sha256: None };
    let alice = Principal::User { uid: 1000, name: None };
    assert_eq!(gate.resolve(hold, said, &alice, None).await.unwrap(), State::Forwarding);
    settle().await;
    // There is room again after the attempt with which the next turn begins.
    running.to_server.refused.store(1, Ordering::Relaxed);
    let taken_back = r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}"#;
    running.client_says(&format!("{}{taken_back}\n{}", pings(30), pings(1).replace("p0", "last"))).await;
    let got = running.to_server.taken.lock().unwrap().concat();
    assert_eq!((got.lines().count(), got.contains("tools/call")), (31, false), "{got}");
    let record = gate.store().hold(hold).await.unwrap().unwrap();
    assert_eq!(record.state, State::Withdrawn);
    running.end().await;
}
