//! How many gated calls a second become durable with an approver who answers at once, on a file and on PostgreSQL.
//!
//! Run by hand: `cargo bench --bench fleet`; it needs the programs of PostgreSQL. A call is screened, held, announced, approved by
//! whoever hears of it, released, and its answer recorded: three commits, each on the disk before it has an effect. With
//! `--waiting COUNT`, so many calls wait at four gates on one database and are then all decided.

#![expect(clippy::print_stdout, reason = "the figures are what it is for")]

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use holdshort::{
    gate::{Caller, Gate, GateLimits, HeldCall, News, Released, Screened},
    hold::Verdict,
    jsonrpc::Frame,
    policy::Policy,
    principal::Principal,
    store::{Location, Store},
};
use tokio::{runtime::Runtime, task::JoinSet};

#[expect(clippy::unwrap_used, reason = "it is written for tests: without its server nothing can be measured")]
#[path = "../tests/it/support/postgres.rs"]
mod postgres;

const CALLERS: usize = 64;
const SECONDS_EACH: u64 = 5;
const GATES: usize = 4;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let directory = tempfile::Builder::new().prefix("fleet-").tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    // The server of the database may be somebody else.
    open_to_all(directory.path())?;
    let cluster = postgres::Cluster::durable(directory.path());
    let waiting = std::env::args().skip_while(|word| word != "--waiting").nth(1);
    if let Some(count) = waiting {
        return waiting_calls(&runtime, &cluster, count.parse()?);
    }
    println!("gated calls a second, durable, {CALLERS} callers, an approver who answers at once:");
    let file = Location::File(directory.path().join("own").join("record.db"));
    println!("  SQLite      {:6.0}", gated(&runtime, &file)?);
    println!("  PostgreSQL  {:6.0}", gated(&runtime, &cluster.url(&cluster.database()).parse()?)?);
    Ok(())
}

fn open_to_all(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o711))
}

/// A gate that holds everything.
fn gate(location: &Location, name: &str) -> Arc<Gate> {
    let name: Arc<str> = name.into();
    let store = Store::open_at(location, &name);
    let limits = GateLimits { holds_max: 200_000, ..GateLimits::default() };
    Arc::new(Gate::new(name, Arc::new(Policy::hold_everything()), store, limits))
}

fn call(gate: &Gate, caller: &Caller, number: u64) -> Box<HeldCall> {
    let line = format!(
        r#"{{"jsonrpc":"2.0","id":{number},"method":"tools/call","params":{{"name":"send_refund","arguments":{{"order":{number}}}}}}}"#
    );
    let frame = Frame::from_client(Bytes::from(line)).expect("the frame is one");
    match gate.screen(caller, frame) {
        Screened::Hold(held) => held,
        other => panic!("the gate does not hold the call: {other:?}"),
    }
}

fn approver() -> Principal {
    Principal::User { uid: 1000, name: Some("alice".to_owned()) }
}

fn gated(runtime: &Runtime, location: &Location) -> Result<f64, Box<dyn std::error::Error>> {
    runtime.block_on(async {
        let gate = gate(location, "bench");
        gate.store().ready().await?;
        let mut news = gate.watch();
        let answering = Arc::clone(&gate);
        let approving = tokio::spawn(async move {
            while let Ok(news) = news.recv().await {
                if let News::Held(hold) = news {
                    let gate = Arc::clone(&answering);
                    tokio::spawn(
                        async move { gate.resolve(hold.id, Verdict::Approve, &approver(), None).await },
                    );
                }
            }
        });
        let (begin, next) = (Instant::now(), Arc::new(AtomicU64::new(0)));
        let end = begin + Duration::from_secs(SECONDS_EACH);
        let mut callers = JoinSet::new();
        for _ in 0..CALLERS {
            let (gate, next) = (Arc::clone(&gate), Arc::clone(&next));
            callers.spawn(async move {
                let (caller, mut done) = (Caller::new(&Principal::client(), "billing".into()), 0_u32);
                while Instant::now() < end {
                    let held = call(&gate, &caller, next.fetch_add(1, Ordering::Relaxed));
                    match gate.hold(held).await {
                        Released::Resume(approved) => gate.answered(approved.hold()).await,
                        other => panic!("the call is not approved: {other:?}"),
                    }
                    done += 1;
                }
                done
            });
        }
        let mut done = 0;
        while let Some(of_one) = callers.join_next().await {
            done += of_one?;
        }
        let rate = f64::from(done) / begin.elapsed().as_secs_f64();
        approving.abort();
        let found = gate.store().verify(None).await?;
        assert!(found.is_sound(), "{:?}", found.broken);
        Ok(rate)
    })
}

/// `count` calls wait at several gates on one database; then all are decided, each at the gate that has its caller.
fn waiting_calls(
    runtime: &Runtime,
    cluster: &postgres::Cluster,
    count: u64,
) -> Result<(), Box<dyn std::error::Error>> {
    let location: Location = cluster.url(&cluster.database()).parse()?;
    runtime.block_on(async {
        let gates: Vec<_> = (0..GATES).map(|number| gate(&location, &format!("bench-{number}"))).collect();
        let (begin, mut calls) = (Instant::now(), JoinSet::new());
        for number in 0..count {
            let gate = Arc::clone(&gates[usize::try_from(number)? % GATES]);
            calls.spawn(async move {
                let caller = Caller::new(&Principal::client(), "billing".into());
                match gate.hold(call(&gate, &caller, number)).await {
                    Released::Resume(approved) => gate.answered(approved.hold()).await,
                    other => panic!("the call is not approved: {other:?}"),
                }
            });
        }
        while gates.iter().map(|gate| gate.holds().len() as u64).sum::<u64>() < count {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        println!("{count} calls wait at {GATES} gates, after {:.1} s", begin.elapsed().as_secs_f64());
        let begin = Instant::now();
        for gate in &gates {
            for hold in gate.holds() {
                let gate = Arc::clone(gate);
                tokio::spawn(async move { gate.resolve(hold.id, Verdict::Approve, &approver(), None).await });
            }
        }
        while let Some(ended) = calls.join_next().await {
            ended?;
        }
        println!(
            "all are decided, released and answered, on record, after {:.1} s",
            begin.elapsed().as_secs_f64()
        );
        let found = gates[0].store().verify(None).await?;
        assert!(found.is_sound() && found.holds == count, "{:?}", found.broken);
        Ok(())
    })
}
