//! The one place of a process that writes to PostgreSQL: jobs are taken together, in one commit.
//!
//! Run by the thread that `postgres::start` starts. Its connection is the process's sign of life: while it lasts, nobody else takes over
//! what the process holds; a new one begins only when the server has ended the old one, so that nothing of that is under way.
//! Never begins a group again of which it does not know that nothing was committed.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    runtime::Runtime,
    sync::{Notify, mpsc, watch},
    time::timeout,
};

use super::{
    Heard, is_lost, schema,
    session::{BEGIN, COMMIT, Listener, Session},
    settings::PostgresUrl,
};
use crate::{
    audit::Checkpoint,
    faults::fail_point,
    store::{
        error::StoreError,
        lost::Lost,
        sql::{Sql, one, params},
        writer::{self, Answer, GroupError, JOBS_PER_COMMIT, RIDE_WAIT_MS, Work, WrittenGroup},
    },
};

/// How long jobs wait for a connection that has just been lost before they are refused, in seconds.
const RIDE_OUT_SECONDS: u64 = 5;

/// How long it is tried to find out whether a commit was done whose answer was lost, in seconds.
const DOUBT_SECONDS_MAX: u64 = 30;

/// How long is waited before a connection is tried again: at first, and at most, in milliseconds.
const BACKOFF_MS: (u64, u64) = (50, 2000);

/// How often a group that has met another transaction is begun again.
const COLLISIONS_MAX: u32 = 8;

/// The lock of whoever appends to the log: of all processes on the record one at a time. "HOLD".
pub(super) const LOCK_LOG: &str = "SELECT pg_advisory_xact_lock(1213156420)";
const TRANSACTION: &str = "SELECT pg_current_xact_id()::text";
const HOW_IT_ENDED: &str = "SELECT coalesce(pg_xact_status((?1::text)::xid8), '')";

/// What is told when the log has grown.
const TOLD_LOG: &str = "log";

/// The connection that writes, and what is known of the record.
pub(in crate::store) struct Writer {
    runtime: Arc<Runtime>,
    url: PostgresUrl,
    /// The name of this process.
    name: Arc<str>,
    session: Option<Session>,
    /// Hears that the connection has ended. Each has its own: the end of one that was never made is no news.
    broken: Arc<Notify>,
    /// Since when there is no connection, how long is waited before the next try, and when that is.
    outage: Option<Outage>,
    known: Checkpoint,
    /// Events that were lost and that no line of the log tells of yet.
    lost: Arc<Lost>,
    heard: Arc<watch::Sender<Heard>>,
}

struct Outage {
    since: Instant,
    backoff: Duration,
    retry_at: Instant,
    why: StoreError,
}

/// Why a group was not committed.
enum Failed {
    /// Nothing of it is recorded; the connection is good.
    Refused(StoreError),
    /// Nothing of it is recorded; begun again, it may succeed.
    Collided(StoreError),
    /// Nothing of it is recorded; the connection is gone.
    Lost(StoreError),
    /// The connection was lost after the commit was asked for, in this transaction.
    InDoubt(String, WrittenGroup),
}

impl Writer {
    pub(super) fn new(
        runtime: Arc<Runtime>,
        url: PostgresUrl,
        name: Arc<str>,
        lost: Arc<Lost>,
        heard: watch::Sender<Heard>,
    ) -> Self {
        Self {
            runtime,
            url,
            name,
            session: None,
            broken: Arc::default(),
            outage: None,
            known: Checkpoint::EMPTY,
            lost,
            heard: Arc::new(heard),
        }
    }

    /// Serves jobs until every handle is gone, and keeps the connection meanwhile. `opened` hears that the first try to connect is
    /// over.
    pub(super) fn serve(mut self, mut jobs: mpsc::Receiver<Work>, opened: &watch::Sender<bool>) {
        if let Err(error) = self.connect() {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "the store cannot be opened: until it can, nothing is recorded, and nothing can be read"
            );
        }
        // In one way or the other: from here on it can be read, or the reader finds out why not.
        let _ = opened.send(true);
        let mut group = Vec::new();
        loop {
            let retry_at = self.outage.as_ref().map(|outage| outage.retry_at);
            let (runtime, broken) = (Arc::clone(&self.runtime), Arc::clone(&self.broken));
            let next = runtime.block_on(async {
                let retry = async {
                    match retry_at {
                        Some(at) => tokio::time::sleep_until(at.into()).await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    job = jobs.recv() => Next::Job(job),
                    () = broken.notified() => Next::Connect,
                    () = retry => Next::Connect,
                }
            });
            match next {
                Next::Job(None) => return,
                Next::Job(Some(first)) => {
                    runtime.block_on(gather(&mut jobs, first, &mut group));
                    self.commit(&mut group);
                }
                Next::Connect => {
                    let _ = self.connect();
                }
            }
        }
    }

    /// Writes all jobs of `group` and answers them; `group` is empty afterwards.
    fn commit(&mut self, group: &mut Vec<Work>) {
        let lost = self.lost.take();
        match self.write(group, lost) {
            Ok(answers) => self.answer(group.drain(..).zip(answers)),
            // One of them may be what the database refuses: each gets its own answer.
            Err(error) if group.len() > 1 && is_of_one(&error) => {
                self.lost.put_back(lost);
                for work in std::mem::take(group) {
                    let answer = self.write(std::slice::from_ref(&work), 0);
                    let answer =
                        answer.and_then(|mut answers| answers.pop().unwrap_or(Err(StoreError::Closed)));
                    self.answer(std::iter::once((work, answer)));
                }
            }
            Err(error) => {
                self.lost.put_back(lost);
                self.answer(group.drain(..).map(|work| (work, Err(error.clone()))));
            }
        }
    }

    fn answer(&self, answered: impl Iterator<Item = (Work, Answer)>) {
        for (work, answer) in answered {
            if work.rides() && answer.is_err() {
                self.lost.one();
            }
            work.answer(answer);
        }
    }

    /// Commits `group`, however often that has to be begun.
    fn write(&mut self, group: &[Work], lost: u64) -> Result<Vec<Answer>, StoreError> {
        let mut collisions = 0;
        loop {
            let known = self.known;
            let session = self.connected(Duration::from_secs(RIDE_OUT_SECONDS))?;
            match write_once(session, group, known, lost) {
                Ok((head, answers)) => {
                    self.known = head;
                    return Ok(answers);
                }
                Err(Failed::Refused(error)) => {
                    self.roll_back();
                    return Err(error);
                }
                Err(Failed::Collided(error)) => {
                    self.roll_back();
                    collisions += 1;
                    if collisions > COLLISIONS_MAX {
                        return Err(error);
                    }
                }
                Err(Failed::Lost(error)) => self.is_broken(error),
                Err(Failed::InDoubt(transaction, (head, answers))) => {
                    self.is_broken(StoreError::InDoubt);
                    if self.was_committed(&transaction)? {
                        self.known = head;
                        return Ok(answers);
                    }
                }
            }
        }
    }

    fn roll_back(&mut self) {
        if let Some(Err(error)) = self.session.as_ref().map(Session::roll_back) {
            self.is_broken(error);
        }
    }

    /// Whether the server has committed `transaction`, whose answer was lost. The connection that had it has ended on the server
    /// before there is another one, so it is over in one way or the other.
    fn was_committed(&mut self, transaction: &str) -> Result<bool, StoreError> {
        let until = Instant::now() + Duration::from_secs(DOUBT_SECONDS_MAX);
        while let Some(left) = until.checked_duration_since(Instant::now()) {
            let Ok(session) = self.connected(left) else { continue };
            match one(session, HOW_IT_ENDED, params![transaction], |row| row.get::<String>(0)) {
                Ok(Some(ended)) if ended == "committed" => return Ok(true),
                Ok(Some(ended)) if ended == "aborted" => return Ok(false),
                // Another server, perhaps, that took the place of this one and never had it.
                Ok(_) => break,
                Err(error) if is_lost(&error) => self.is_broken(error),
                Err(_) => {
                    // What comes next does not begin with a failure.
                    self.roll_back();
                    break;
                }
            }
        }
        tracing::error!("the connection to the store was lost, and it is not known what was recorded last");
        Err(StoreError::InDoubt)
    }

    /// The connection, which is waited for until it has been gone for `patience`.
    fn connected(&mut self, patience: Duration) -> Result<&Session, StoreError> {
        if self.session.as_ref().is_some_and(Session::is_closed) {
            self.is_broken(StoreError::Closed);
        }
        loop {
            if self.session.is_some() {
                break;
            }
            match &self.outage {
                Some(outage) if outage.since.elapsed() >= patience && Instant::now() < outage.retry_at => {
                    return Err(outage.why.clone());
                }
                Some(outage) => {
                    let pause = outage.retry_at.saturating_duration_since(Instant::now());
                    self.runtime.block_on(async { tokio::time::sleep(pause).await });
                }
                None => {}
            }
            if let Err(error) = self.connect() {
                // What a person has to put right does not get right by waiting.
                if !is_passing(&error) {
                    return Err(error);
                }
            }
        }
        self.session.as_ref().ok_or(StoreError::Closed)
    }

    /// Tries to connect, once, unless there is a connection that works.
    fn connect(&mut self) -> Result<(), StoreError> {
        if self.session.as_ref().is_some_and(|session| !session.is_closed()) {
            return Ok(());
        }
        self.session = None;
        match self.opened() {
            Ok((session, broken)) => {
                self.broken = broken;
                if let Some(outage) = self.outage.take() {
                    tracing::info!(
                        seconds = outage.since.elapsed().as_secs(),
                        "the store is connected again"
                    );
                }
                self.session = Some(session);
                self.heard.send_modify(|heard| heard.connections += 1);
                Ok(())
            }
            Err(error) => {
                self.is_broken(error.clone());
                Err(error)
            }
        }
    }

    /// A new connection, with the sign of life of this process, on a record that has the schema of this program; and what hears of
    /// its end.
    fn opened(&self) -> Result<(Session, Arc<Notify>), StoreError> {
        let (heard, name) = (Arc::clone(&self.heard), Arc::clone(&self.name));
        let ended = Arc::new(Notify::new());
        let broken = Arc::clone(&ended);
        let session = Session::open(&self.runtime, &self.url, Listening { heard, name, broken })?;
        session.show_life(&self.name)?;
        schema::migrate(&session, &self.url)?;
        session.run("LISTEN holdshort")?;
        Ok((session, ended))
    }

    fn is_broken(&mut self, why: StoreError) {
        self.session = None;
        let now = Instant::now();
        let (first, most) = BACKOFF_MS;
        match &mut self.outage {
            None => {
                tracing::warn!(
                    error = &why as &dyn std::error::Error,
                    "the connection to the store is lost: what is to be recorded waits, and fails if it does not come back"
                );
                let backoff = Duration::from_millis(first);
                // At once: most connections that break can be had again.
                self.outage = Some(Outage { since: now, backoff, retry_at: now, why });
            }
            Some(outage) => {
                outage.retry_at = now + outage.backoff;
                outage.backoff = (outage.backoff * 2).min(Duration::from_millis(most));
                outage.why = why;
            }
        }
    }
}

#[expect(clippy::large_enum_variant, reason = "it is taken apart where it is made")]
enum Next {
    Job(Option<Work>),
    Connect,
}

/// What the connection tells, until it ends.
pub(super) struct Listening {
    heard: Arc<watch::Sender<Heard>>,
    name: Arc<str>,
    broken: Arc<Notify>,
}

impl Listener for Listening {
    fn hear(&self, told: &str) {
        match told.split_once(' ') {
            None if told == TOLD_LOG => self.heard.send_modify(|heard| heard.log += 1),
            Some(("ask", name)) if name == &*self.name => self.heard.send_modify(|heard| heard.asked += 1),
            Some(("answer", name)) if name == &*self.name => {
                self.heard.send_modify(|heard| heard.answered += 1)
            }
            _ => {}
        }
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.broken.notify_one();
    }
}

/// Whether one job of a group has failed, and its failure only shows with the group: where it was sent along with what followed.
fn is_of_one(error: &StoreError) -> bool {
    match error {
        StoreError::Server(error) => !error.is_lost(),
        StoreError::Duplicate(_) | StoreError::NotHeld { .. } => true,
        _ => false,
    }
}

/// Whether the same may succeed a moment later.
fn is_passing(error: &StoreError) -> bool {
    match error {
        StoreError::Server(error) => error.is_lost() || error.is_busy(),
        StoreError::Unusable { .. } | StoreError::Tls(_) | StoreError::Newer { .. } => false,
        _ => true,
    }
}

/// Takes what else is to be written: at once, or within a moment if nobody waits for what is there.
async fn gather(jobs: &mut mpsc::Receiver<Work>, first: Work, group: &mut Vec<Work>) {
    let mut all_ride = first.rides();
    group.push(first);
    let deadline = tokio::time::Instant::now() + Duration::from_millis(RIDE_WAIT_MS);
    while all_ride && group.len() < JOBS_PER_COMMIT {
        let left = deadline.saturating_duration_since(tokio::time::Instant::now());
        let Ok(Some(next)) = timeout(left, jobs.recv()).await else { break };
        all_ride = next.rides();
        group.push(next);
    }
    while group.len() < JOBS_PER_COMMIT
        && let Ok(next) = jobs.try_recv()
    {
        group.push(next);
    }
}

/// One transaction over all of `group`.
fn write_once(
    session: &Session,
    group: &[Work],
    known: Checkpoint,
    lost: u64,
) -> Result<WrittenGroup, Failed> {
    let failed = |error: StoreError| match &error {
        error if is_lost(error) || session.is_closed() => Failed::Lost(error.clone()),
        StoreError::Server(server) if server.is_collision() => Failed::Collided(error),
        StoreError::Server(server) if server.is_busy() => Failed::Refused(StoreError::Busy),
        _ => Failed::Refused(error),
    };
    let begun = || {
        session.put(BEGIN, &[])?;
        // What touches no event needs no place in the log: desks claim what they send beside each other.
        if lost > 0 || group.iter().any(Work::needs_the_log) {
            session.put(LOCK_LOG, &[])?;
        }
        one(session, TRANSACTION, &[], |row| row.get::<String>(0))?.ok_or(StoreError::Closed)
    };
    fail_point!("store.before_begin");
    let transaction = begun().map_err(failed)?;
    let written = writer::write_jobs(session, group, known, lost).map_err(|error| match error {
        GroupError::Spared(error) | GroupError::Fatal(error) => failed(error),
    })?;
    // What was sent of a job has a savepoint.
    let (head, answers) = written.ok_or(Failed::Refused(StoreError::Closed))?;
    if head != known {
        session.tell(TOLD_LOG).map_err(failed)?;
    }
    session.settle().map_err(failed)?;
    fail_point!("store.before_commit");
    let committed = session.execute(COMMIT, &[]);
    fail_point!("store.after_commit");
    match committed {
        Ok(_) => Ok((head, answers)),
        Err(error) if is_lost(&error) || session.is_closed() => {
            Err(Failed::InDoubt(transaction, (head, answers)))
        }
        Err(error) => Err(failed(error)),
    }
}
