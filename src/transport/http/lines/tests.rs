//! What stands between clients and one process, with the process played by the test, and time standing still until nothing else is
//! left to happen.

use futures_util::StreamExt;
use http_body_util::BodyExt;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, DuplexStream, Lines},
    time::advance,
};

use super::{super::accounts::Accounts, router::Router, *};
use crate::mcp::Cancelled;

/// A process that nobody has started: what clients send it, and where its messages come from.
struct Played {
    piped: Arc<Piped>,
    hears: Lines<BufReader<DuplexStream>>,
    says: DuplexStream,
}

fn agent(name: &str) -> Arc<Principal> {
    Arc::new(Principal::Agent { name: name.into() })
}

fn played(principal: &Arc<Principal>, is_shared: bool) -> Played {
    let router = Router { is_shared, ..Router::default() };
    let account = Accounts::default().of(principal);
    let (piped, (reader, says)) = Piped::new(principal, account, router, Lifecycle::default(), 1 << 20);
    Played { piped, hears: BufReader::new(reader).lines(), says }
}

fn call(id: usize) -> Frame {
    let text = format!(
        r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"x","_meta":{{"progressToken":{id}}}}}}}"#
    );
    Frame::from_client(text.into()).unwrap()
}

/// Progress of the call `id`, of a thousand bytes or so, on one line.
fn progress(id: usize) -> String {
    let message = "x".repeat(1000);
    format!(
        "{{\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\",\"params\":{{\"progressToken\":{id},\"progress\":1,\"message\":\"{message}\"}}}}\n"
    )
}

fn answer_to(id: usize) -> String {
    format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":{{}}}}\n")
}

fn ask(piped: &Arc<Piped>, id: usize) -> tokio::task::JoinHandle<Response<Body>> {
    let piped = Arc::clone(piped);
    tokio::spawn(async move { piped.ask(call(id), true, &HttpLimits::default()).await })
}

#[tokio::test(start_paused = true)]
async fn all_that_a_client_leaves_is_taken_back_and_after_it_was_asked() {
    const CALLS: usize = 200;
    let Played { piped, mut hears, says: _says } = played(&agent("a"), false);
    let asked: Vec<_> = (0..CALLS).map(|id| ask(&piped, id)).collect();
    for id in 0..CALLS {
        let line = hears.next_line().await.unwrap().unwrap();
        assert!(line.contains(&format!("\"id\":{id},")), "{line}");
    }
    let late = ask(&piped, CALLS);
    tokio::task::yield_now().await;
    asked.iter().chain([&late]).for_each(tokio::task::JoinHandle::abort);
    assert!(
        hears.next_line().await.unwrap().unwrap().contains("tools/call"),
        "the one before what takes it back"
    );
    let mut taken_back = Vec::new();
    for _ in 0..=CALLS {
        let line = hears.next_line().await.unwrap().unwrap();
        let frame = Frame::from_client(line.into()).unwrap();
        let id = Cancelled::parse(frame.params().unwrap()).unwrap().request;
        taken_back.push(id.as_raw().parse::<usize>().unwrap());
    }
    taken_back.sort_unstable();
    assert_eq!(taken_back, (0..=CALLS).collect::<Vec<_>>());
    assert!(!piped.is_busy(0));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_reads_gets_all_of_a_flood() {
    const MESSAGES: usize = 20_000;
    let Played { piped, mut hears, mut says } = played(&agent("a"), true);
    let asked = ask(&piped, 1);
    hears.next_line().await.unwrap();
    let flood = tokio::spawn(async move {
        for _ in 0..MESSAGES {
            says.write_all(progress(1).as_bytes()).await.unwrap();
        }
        says.write_all(answer_to(1).as_bytes()).await.unwrap();
        says
    });
    let text = asked.await.unwrap().into_body().collect().await.unwrap().to_bytes();
    let text = std::str::from_utf8(&text).unwrap();
    assert_eq!((text.matches("progressToken").count(), text.matches("result").count()), (MESSAGES, 1));
    flood.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_its_client_does_not_read_ends() {
    for (is_shared, waits) in [(true, Duration::ZERO), (false, Duration::from_secs(30))] {
        let Played { piped, mut hears, mut says } = played(&agent("a"), is_shared);
        let silent = ask(&piped, 1);
        hears.next_line().await.unwrap();
        advance(HttpLimits::default().head_after).await;
        let silent = silent.await.unwrap();
        let other = ask(&piped, 2);
        hears.next_line().await.unwrap();
        let began = Instant::now();
        let flood = tokio::spawn(async move {
            for _ in 0..10_000 {
                says.write_all(progress(1).as_bytes()).await.unwrap();
            }
            says.write_all(answer_to(2).as_bytes()).await.unwrap();
            says
        });
        let other = other.await.unwrap().into_body().collect().await.unwrap().to_bytes();
        assert!(String::from_utf8_lossy(&other).contains("result"));
        assert_eq!(began.elapsed(), waits, "shared: {is_shared}");
        assert!(hears.next_line().await.unwrap().unwrap().contains("\"requestId\":1"), "it is taken back");
        let read = silent.into_body().into_data_stream().count().await;
        assert!(read < 10, "{read} pieces were kept for it");
        flood.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_about_one_client_is_told_to_no_other_of_a_shared_process() {
    let Played { piped, mut hears, mut says } = played(&agent("a"), true);
    let gone = ask(&piped, 1);
    hears.next_line().await.unwrap();
    gone.abort();
    assert!(hears.next_line().await.unwrap().unwrap().contains("\"requestId\":1"));
    let other = ask(&piped, 2);
    hears.next_line().await.unwrap();
    says.write_all((progress(1) + &answer_to(1) + &answer_to(2)).as_bytes()).await.unwrap();
    let text = other.await.unwrap().into_body().collect().await.unwrap().to_bytes();
    assert_eq!(text, answer_to(2));
    let same_token = Frame::from_client(
        r#"{"jsonrpc":"2.0","id":"3","method":"ping","params":{"_meta":{"progressToken":3}}}"#.into(),
    );
    let _third = ask(&piped, 3);
    hears.next_line().await.unwrap();
    assert!(
        !lock(&piped.router.ways).are_free_for(&same_token.unwrap()),
        "its progress would be the other's"
    );
    assert!(lock(&piped.router.ways).are_free_for(&call(4)));
}

#[tokio::test]
async fn whoever_has_most_makes_room_with_what_it_has_not_used_for_longest() {
    let (a, b, c) = (agent("a"), agent("b"), agent("c"));
    let (mut running, mut all) = (Running::default(), Vec::new());
    let mut begin = |running: &mut Running, principal: &Arc<Principal>, used: u64| {
        let is_begun = running.make_room(principal, 0).is_ok();
        if is_begun {
            let played = played(principal, false);
            played.piped.used.store(used, Relaxed);
            running.by_id.insert(used.to_string().into(), Arc::clone(&played.piped));
            all.push(played);
        }
        is_begun
    };
    let listen = |piped: &Arc<Piped>| piped.listen(&HttpLimits::default());
    assert!(begin(&mut running, &a, 0));
    let _used = listen(&running.by_id["0"]);
    assert!((1..40).all(|used| begin(&mut running, &a, used)), "its own make room");
    assert_eq!(running.by_id.len(), PROCESSES_OF_ONE_MAX);
    let has = |running: &Running, used: u64| running.by_id.contains_key(&*used.to_string());
    assert!(has(&running, 0) && !has(&running, 8) && has(&running, 9), "what is used stays");
    assert!((100..132).all(|used| begin(&mut running, &b, used)), "it has its share");
    assert!(begin(&mut running, &c, 200), "there is room for one more");
    assert_eq!((running.by_id.len(), has(&running, 9)), (PROCESSES_MAX, false));
    let _all_used: Vec<_> = running.all().map(listen).collect();
    assert!(!begin(&mut running, &c, 201));
    assert_eq!(running.by_id.len(), PROCESSES_MAX);
}

#[tokio::test]
async fn an_agent_cannot_have_its_share_over_and_over_while_what_it_has_ended_still_runs() {
    let (a, b) = (agent("a"), agent("b"));
    let mut running = Running::default();
    let ended: Vec<_> = (0..PROCESSES_OF_ONE_MAX).map(|_| CancellationToken::new()).collect();
    running.ending = ended.iter().map(|gone| (Arc::clone(&a), gone.clone())).collect();
    assert!(running.make_room(&a, 0).is_err() && running.make_room(&b, 0).is_ok());
    ended[0].cancel();
    assert!(running.make_room(&a, 0).is_ok());
}
