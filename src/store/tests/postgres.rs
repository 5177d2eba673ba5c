//! What a network, several processes and another program's server add to the promises of the record.

use std::{
    io::{Read as _, Write as _},
    os::unix::net::{UnixListener, UnixStream},
    sync::atomic::{AtomicUsize, Ordering},
};

use super::{tamper::fill, *};
use crate::audit::Fault;

fn url(text: &str) -> PostgresUrl {
    PostgresUrl::parse(text).unwrap()
}

/// The process `name` on a record.
fn process(url: &PostgresUrl, name: &str) -> Store {
    Store::open_at(&Location::Postgres(url.clone()), &name.into())
}

/// Why a record cannot be used, in one line.
async fn refused(url: &PostgresUrl) -> String {
    let error = process(url, "somebody").ready().await.unwrap_err();
    super::super::error::chain(&error)
}

/// Waits, without a clock of its own, until `is_so`.
async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !is_so().await {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), wait).await.expect(what);
}

#[tokio::test]
async fn a_server_shows_a_certificate_and_a_client_knows_the_password() {
    let authority = rcgen::KeyPair::generate().unwrap();
    let mut parameters = rcgen::CertificateParams::new([]).unwrap();
    parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let root = parameters.self_signed(&authority).unwrap();
    let issuer = rcgen::Issuer::new(parameters, authority);
    let key = rcgen::KeyPair::generate().unwrap();
    let server =
        rcgen::CertificateParams::new(["127.0.0.1".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    let cluster = Cluster::with_tls(&server.pem(), &key.serialize_pem());
    cluster.ask("postgres", "ALTER ROLE holdshort PASSWORD 'correct'");
    let (port, name) = (cluster.port(), cluster.database());
    let directory = tempfile::tempdir().unwrap();
    let roots = |name: &str, pem: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, pem).unwrap();
        path.display().to_string()
    };
    let of = |who: &str, extra: &str| url(&format!("postgres://{who}@127.0.0.1:{port}/{name}?{extra}"));
    let known = format!("sslrootcert={}", roots("ca.pem", &root.pem()));

    let store = process(&of("holdshort:correct", &known), "p");
    store.ready().await.unwrap();
    whole_life(&store).await;
    let encrypted = cluster.ask(
        &name,
        "SELECT count(*) FROM pg_stat_ssl s JOIN pg_stat_activity a USING (pid) \
         WHERE a.application_name = 'holdshort' AND a.datname = current_database() AND NOT s.ssl",
    );
    assert_eq!(encrypted, "0", "no connection is in plain text");

    let other = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let stranger = format!("sslrootcert={}", roots("other.pem", &other.cert.pem()));
    for (extra, why) in [(stranger.as_str(), "certificate"), ("sslmode=require", "certificate")] {
        let told = refused(&of("holdshort:correct", extra)).await;
        assert!(told.contains("cannot be reached") && told.contains(why), "{told}");
    }
    let told = refused(&of("holdshort:wrong", &known)).await;
    assert!(told.contains("password authentication failed") && !told.contains("wrong"), "{told}");
    let told = refused(&of("holdshort:correct", "sslrootcert=/nowhere.pem")).await;
    assert!(told.contains("/nowhere.pem"), "{told}");
}

#[tokio::test]
async fn a_server_that_cannot_keep_the_record_is_refused_with_the_reason() {
    let cluster = Cluster::start();
    let name = cluster.database();
    process(&url(&cluster.url(&name)), "p").ready().await.unwrap();
    cluster.ask(&name, "UPDATE holdshort_schema SET version = 99");
    let told = refused(&url(&cluster.url(&name))).await;
    assert!(told.contains("schema version 99, and this program knows versions up to"), "{told}");
    cluster.ask("postgres", "CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0");
    let told = refused(&url(&cluster.url("latin"))).await;
    assert!(told.contains("encoding is not UTF8"), "{told}");
    let told = refused(&url(&cluster.url("nothing"))).await;
    assert!(told.contains("does not exist"), "{told}");
    let told = refused(&url("postgres://gate@/x?host=/nowhere")).await;
    assert!(told.contains("cannot be reached"), "{told}");
}

/// A server that nobody is behind: whoever connects is turned away. The longest it is asked, and how often that may be.
const TURNED_AWAY: (Duration, usize) = (Duration::from_secs(2), 30);

#[test]
fn a_server_that_cannot_be_reached_is_not_asked_again_and_again() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let url = url(&format!("postgres://gate@127.0.0.1:{port}/x?sslmode=disable"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let store = runtime.block_on(async {
        let store = process(&url, "gate-1");
        assert!(store.record_hold(new_hold(0, "gate-1")).await.is_err());
        store
    });
    let (longest, most) = TURNED_AWAY;
    let (asked, asking) = std::sync::mpsc::channel();
    std::thread::spawn(move || listener.incoming().take(most + 1).try_for_each(|_| asked.send(())));
    let begin = std::time::Instant::now();
    let mut count = 0;
    while let Some(left) = longest.checked_sub(begin.elapsed())
        && asking.recv_timeout(left).is_ok()
    {
        count += 1;
    }
    assert!(count <= most, "{count} times within {longest:?}");
    drop(store);
}

#[tokio::test]
async fn what_a_process_holds_is_taken_over_when_its_connection_has_ended_and_not_before() {
    let cluster = Cluster::start();
    let url = url(&cluster.url(&cluster.database()));
    let (one, other) = (process(&url, "one"), process(&url, "other"));
    one.record_hold(new_hold(1, "one")).await.unwrap();
    assert_eq!(other.recover("one").await.unwrap(), Recovered::default(), "it lives");
    assert_eq!(other.is_connected("one").await.unwrap(), Some(true));
    drop(one);
    let mut detached = Vec::new();
    until("it is taken over", async || {
        detached = other.recover("one").await.unwrap().detached;
        !detached.is_empty()
    })
    .await;
    assert_eq!(detached, [new_hold(1, "").id]);
    until("it is known to be gone", async || other.is_connected("one").await.unwrap() == Some(false)).await;
    assert_eq!(other.is_connected("other").await.unwrap(), Some(true));
    sound(&other).await;
}

#[tokio::test]
async fn processes_ask_each_other_and_each_question_is_taken_once() {
    let cluster = Cluster::start();
    let url = url(&cluster.url(&cluster.database()));
    let (asker, holder) = (process(&url, "asker"), process(&url, "holder"));
    holder.ready().await.unwrap();
    let (mut of_holder, mut of_asker) = (holder.heard().unwrap(), asker.heard().unwrap());
    let id = asker.ask("holder".into(), "asker".into(), "may it?".to_owned()).await.unwrap();
    of_holder.wait_for(|heard| heard.asked > 0).await.unwrap();
    let (first, second) =
        tokio::join!(holder.take_questions("holder".into()), holder.take_questions("holder".into()));
    let taken = [first.unwrap(), second.unwrap()].concat();
    assert_eq!(taken.iter().map(|question| question.text.as_str()).collect::<Vec<_>>(), ["may it?"]);
    assert!(!asker.forget_question(id).await.unwrap(), "it is being answered");
    holder.answer_question(&taken[0], "it may".to_owned()).await.unwrap();
    of_asker.wait_for(|heard| heard.answered > 0).await.unwrap();
    assert_eq!(asker.question_answer(id).await.unwrap().as_deref(), Some("it may"));
    assert!(asker.forget_question(id).await.unwrap());
    let unasked = asker.ask("holder".into(), "asker".into(), "or not?".to_owned()).await.unwrap();
    assert!(asker.forget_question(unasked).await.unwrap(), "nobody has taken it");
    assert!(holder.take_questions("holder".into()).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_crash_of_the_server_loses_nothing_that_was_told_and_is_got_over() {
    let mut cluster = Cluster::start();
    let url = url(&cluster.url(&cluster.database()));
    let store = process(&url, "gate-1");
    for number in 0..20 {
        store.record_hold(new_hold(number, "gate-1")).await.unwrap();
    }
    let connections = store.heard().unwrap().borrow().connections;
    cluster.crash();
    let refused = store.record_hold(new_hold(20, "gate-1")).await;
    assert!(matches!(refused, Err(StoreError::Unreachable { .. } | StoreError::Server(_))), "{refused:?}");
    assert!(cluster.run());
    let mut number = 21;
    until("it is written again", async || {
        number += 1;
        store.record_hold(new_hold(number, "gate-1")).await.is_ok()
    })
    .await;
    assert!(
        store.heard().unwrap().borrow().connections > connections,
        "whoever listens hears that it was away"
    );
    let found = sound(&store).await;
    assert_eq!(found.holds, 21, "twenty before, none while it was away, one after");
}

#[tokio::test]
async fn a_transaction_that_meets_another_is_begun_again_and_done_once() {
    let cluster = Cluster::start();
    let name = cluster.database();
    let store = process(&url(&cluster.url(&name)), "gate-1");
    store.ready().await.unwrap();
    // What the server says of a transaction that it ends for another's sake, as often as the test likes. The count of a sequence is
    // not taken back with a transaction.
    cluster.ask(
        &name,
        "CREATE SEQUENCE collisions; CREATE TABLE wanted (count BIGINT, code TEXT); INSERT INTO wanted VALUES (0, ''); \
         CREATE FUNCTION collide() RETURNS trigger LANGUAGE plpgsql AS $$ DECLARE w wanted; BEGIN SELECT * INTO w FROM wanted; \
         IF w.count > 0 AND nextval('collisions') <= w.count THEN RAISE EXCEPTION 'met another' USING ERRCODE = w.code; END IF; \
         RETURN NEW; END $$; \
         CREATE TRIGGER collides BEFORE INSERT ON audit FOR EACH ROW EXECUTE FUNCTION collide()",
    );
    let collide = |count: u32, code: &str| {
        let wanted =
            format!("ALTER SEQUENCE collisions RESTART; UPDATE wanted SET count = {count}, code = '{code}'");
        cluster.ask(&name, &wanted);
    };
    let mut number = 0;
    for code in ["40001", "40P01"] {
        number += 1;
        collide(3, code);
        store.record_hold(new_hold(number, "gate-1")).await.unwrap();
        assert_eq!(
            cluster.ask(&name, "SELECT last_value FROM collisions"),
            "4",
            "three have failed, and one has not"
        );
        // It meets another whenever it is begun: it is refused, and nothing of it is there.
        collide(1000, code);
        let refused = store.record_hold(new_hold(100 + number, "gate-1")).await;
        assert!(matches!(&refused, Err(StoreError::Server(error)) if error.is_collision()), "{refused:?}");
        assert_ne!(cluster.ask(&name, "SELECT last_value FROM collisions"), "1", "it was begun again");
        collide(0, "");
        assert!(store.hold(new_hold(100 + number, "").id).await.unwrap().is_none());
        store.end(new_hold(number, "").id, State::Rejected, Vec::new(), None).await.unwrap();
    }
    assert_eq!(words(&store).await, "held rejected held rejected");
    sound(&store).await;
}

#[tokio::test]
async fn a_disk_of_the_server_that_is_full_refuses_what_does_not_fit_and_nothing_else_is_lost() {
    // Files of the log have this length from the start; a table's file grows until it has it.
    let mut cluster = Cluster::limited(16 << 20);
    let url = url(&cluster.url(&cluster.database()));
    let store = process(&url, "gate-1");
    let large = |number: u128| {
        let mut hold = new_hold(number, "gate-1");
        let mut bytes = vec![0; 1 << 20];
        getrandom::fill(&mut bytes).unwrap();
        hold.frame = bytes.into();
        hold.frame_sha256 = Digest::of(&hold.frame);
        hold
    };
    let mut kept = 0;
    let refused = loop {
        match store.record_hold(large(kept)).await {
            Ok(()) => kept += 1,
            Err(error) => break error,
        }
        assert!(kept < 64, "the disk is never full");
    };
    assert!(kept > 0 && matches!(refused, StoreError::Server(_)), "{kept}: {refused}");
    assert!(store.hold(new_hold(kept, "").id).await.unwrap().is_none());
    // What needs no more room is still done, and there is room again when somebody has made some.
    store.end(new_hold(0, "").id, State::Rejected, Vec::new(), None).await.unwrap();
    drop(store);
    cluster.crash();
    cluster.unlimited();
    assert!(cluster.run());
    let store = process(&url, "gate-2");
    store.record_hold(large(kept)).await.unwrap();
    assert_eq!(sound(&store).await.holds, u64::try_from(kept).unwrap() + 1);
}

/// When a [`Relay`] cuts a connection.
#[derive(Clone, Copy, PartialEq)]
enum Cut {
    /// When the server has committed, and says so.
    BeforeTheAnswer,
    /// When the client asks to commit: the server never hears it.
    BeforeTheCommit,
}

/// Something between the program and the server that cuts one connection at the worst moment.
struct Relay {
    directory: TempDir,
    cuts: Arc<AtomicUsize>,
    armed: Arc<Mutex<Option<Cut>>>,
}

impl Relay {
    fn start(cluster: &Cluster) -> Self {
        let directory = tempfile::Builder::new().prefix("hspg").tempdir().unwrap();
        let name = format!(".s.PGSQL.{}", cluster.port());
        let (listener, server) =
            (UnixListener::bind(directory.path().join(&name)).unwrap(), cluster.socket_dir().join(&name));
        let relay = Self { directory, cuts: Arc::default(), armed: Arc::default() };
        let (cuts, armed) = (Arc::clone(&relay.cuts), Arc::clone(&relay.armed));
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(server) = UnixStream::connect(&server) else { continue };
                let (one, two) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                let (cut, counted) = (Arc::clone(&armed), Arc::clone(&cuts));
                std::thread::spawn(move || pass(one, two, &cut, Cut::BeforeTheCommit, &counted));
                let (cut, counted) = (Arc::clone(&armed), Arc::clone(&cuts));
                std::thread::spawn(move || pass(server, client, &cut, Cut::BeforeTheAnswer, &counted));
            }
        });
        relay
    }

    fn url(&self, cluster: &Cluster, database: &str) -> PostgresUrl {
        let (dir, port) = (self.directory.path().display(), cluster.port());
        url(&format!("postgres://holdshort@:{port}/{database}?host={dir}"))
    }
}

/// Passes bytes on until one side ends, or until it is time to cut.
fn pass(mut from: UnixStream, mut to: UnixStream, armed: &Mutex<Option<Cut>>, mine: Cut, cuts: &AtomicUsize) {
    let mut bytes = vec![0; 1 << 16];
    // What the client calls the statement that commits: it is prepared once, and named from then on.
    let mut commit: Option<Vec<u8>> = None;
    while let Ok(length @ 1..) = from.read(&mut bytes) {
        let bytes = &bytes[..length];
        let has = |wanted: &[u8]| bytes.windows(wanted.len()).any(|found| found == wanted);
        if let Some(at) = bytes.windows(8).position(|found| found == b"\0COMMIT\0") {
            let name = bytes[..at].iter().rposition(|byte| !byte.is_ascii_alphanumeric()).unwrap();
            commit = Some([b"\0", &bytes[name + 1..at], b"\0"].concat());
        } else {
            let is_it = match mine {
                Cut::BeforeTheAnswer => has(b"COMMIT\0"),
                Cut::BeforeTheCommit => commit.as_ref().is_some_and(|name| has(name)),
            };
            let mut armed = armed.lock().unwrap();
            if is_it && *armed == Some(mine) {
                *armed = None;
                cuts.fetch_add(1, Ordering::SeqCst);
                break;
            }
        }
        if to.write_all(bytes).is_err() {
            break;
        }
    }
    let _ = from.shutdown(std::net::Shutdown::Both);
    let _ = to.shutdown(std::net::Shutdown::Both);
}

#[tokio::test]
async fn a_commit_whose_answer_is_lost_is_looked_up_and_never_done_twice() {
    let cluster = Cluster::start();
    let relay = Relay::start(&cluster);
    let store = process(&relay.url(&cluster, &cluster.database()), "gate-1");
    store.ready().await.unwrap();
    for (number, cut) in [Cut::BeforeTheAnswer, Cut::BeforeTheCommit].into_iter().enumerate() {
        let arm = || *relay.armed.lock().unwrap() = Some(cut);
        let hold = new_hold(number as u128, "gate-1");
        arm();
        store.record_hold(hold.clone()).await.unwrap();
        arm();
        store.end(hold.id, State::Forwarding, approval("a"), None).await.unwrap();
        let again = store.end(hold.id, State::Forwarding, approval("b"), None).await;
        assert!(matches!(again, Err(StoreError::NotHeld { state: State::Forwarding })), "{again:?}");
        assert_eq!(relay.cuts.load(Ordering::SeqCst), 2 * (number + 1), "the connection was cut");
    }
    assert_eq!(words(&store).await, "held forwarding held forwarding");
    sound(&store).await;
}

#[tokio::test]
async fn whatever_is_changed_in_the_database_a_verification_tells() {
    let cluster = Cluster::start();
    let name = cluster.database();
    let store = process(&url(&cluster.url(&name)), "gate-1");
    fill(&store).await;
    let head = sound(&store).await.head;
    drop(store);
    let mistakes = [
        "UPDATE audit SET line = ''",
        "DELETE FROM audit",
        "TRUNCATE audit",
        "DELETE FROM frames",
        "DELETE FROM holds CASCADE",
    ];
    for mistake in mistakes {
        assert!(!cluster.query(&name, mistake).status.success(), "{mistake}");
    }
    for (table, triggers) in
        [("audit", "audit"), ("frames", "frames"), ("retries", "retries"), ("holds", "holds")]
    {
        cluster.ask(
            &name,
            &format!("DROP TRIGGER {triggers}_are_kept ON {table}").replace("audit_are", "audit_is"),
        );
    }
    until("nobody uses it", async || {
        let using = format!("SELECT count(*) FROM pg_stat_activity WHERE datname = '{name}'");
        cluster.ask("postgres", &using) == "0"
    })
    .await;
    for (number, change) in [
        "SELECT 1",
        "UPDATE audit SET line = replace(line, 'gate-1', 'gate-2') WHERE seq = 5",
        "UPDATE audit SET line = line || ' ' WHERE seq = 1",
        "UPDATE audit SET hash = set_byte(hash, 0, 255 - get_byte(hash, 0)) WHERE seq = 3",
        "UPDATE audit SET seq = -seq WHERE seq = 1",
        "DELETE FROM audit WHERE seq = 4",
        "DELETE FROM audit WHERE seq = 4; UPDATE audit SET seq = -seq + 1 WHERE seq > 4; UPDATE audit SET seq = -seq WHERE seq < 0",
        "UPDATE audit SET seq = -1 WHERE seq = 6; UPDATE audit SET seq = 6 WHERE seq = 7; UPDATE audit SET seq = 7 WHERE seq = -1",
        "UPDATE holds SET tool = 'get_refund' WHERE seq = 1",
        "UPDATE holds SET state = 'answered' WHERE state = 'rejected'",
        "UPDATE holds SET votes = '[]' WHERE state = 'answered'",
        "UPDATE holds SET created_at = created_at + 1 WHERE seq = 1",
        "UPDATE holds SET rules = 'not JSON' WHERE seq = 1",
        "UPDATE frames SET frame = frame || '\\x20'::bytea WHERE hold = 1",
        "DELETE FROM frames WHERE hold = 1",
        "UPDATE retries SET frame = '\\x7b7d'::bytea",
    ]
    .iter()
    .enumerate()
    {
        let copy = format!("copy{number}");
        cluster.ask("postgres", &format!("CREATE DATABASE {copy} TEMPLATE {name}"));
        cluster.ask(&copy, change);
        let found = process(&url(&cluster.url(&copy)), "reader").verify(None).await.unwrap();
        assert_eq!(found.broken.is_some(), number > 0, "{change}: {found:?}");
    }
    // A log that was cut off at its end, or emptied, is a sound one: only a checkpoint that was kept elsewhere tells.
    for (number, change) in [
        "DELETE FROM audit WHERE seq = (SELECT max(seq) FROM audit)",
        "DELETE FROM retries; DELETE FROM frames; DELETE FROM holds; DELETE FROM audit",
    ]
    .iter()
    .enumerate()
    {
        let copy = format!("cut{number}");
        cluster.ask("postgres", &format!("CREATE DATABASE {copy} TEMPLATE {name}"));
        cluster.ask(&copy, change);
        let reader = process(&url(&cluster.url(&copy)), "reader");
        sound(&reader).await;
        let found = reader.verify(Some(head)).await.unwrap();
        assert_eq!(found.broken.map(|broken| broken.fault), Some(Fault::Truncated(head.seq)), "{change}");
    }
}
