//! The durable record of holds and the audit log, behind one handle.
//!
//! Used by `gate` (which writes before it acts), by the control socket and by the commands that list and verify. One
//! SQLite file for a user, shared by all processes on the machine; what the methods promise does not speak of SQLite, so
//! that another database can serve the same handle. Never retries a write as if nothing had happened, and never writes
//! an argument of a call to the log of the program.
//!
//! A method that returns `Ok` has made its effect durable; one that returns an error has recorded nothing that the caller
//! may rely on. Dropping a method's future does not take its job back.

mod ahead;
mod approvals;
mod counts;
mod error;
mod location;
mod lost;
mod migrations;
mod outbox;
mod place;
mod postgres;
mod questions;
mod reader;
mod sql;
#[macro_use]
mod statements;
mod listed;
mod tasks;
mod tools;
mod verify;
mod waiting;
mod writer;

#[cfg(test)]
pub(crate) mod tests;

use std::{
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Sender, channel},
    },
    thread,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc as queue, oneshot, watch};

pub use self::counts::OpenCounts;
pub use self::error::{PlaceFault, ServerError, StoreError};
pub use self::listed::{LISTED_FRAME_BYTES_MAX, Listed};
pub use self::location::Location;
pub use self::outbox::{Claimed, Delivered, NewEntry, News, OutboxCounts};
pub use self::postgres::{Heard, PostgresUrl, UrlError};
pub use self::questions::Question;
use self::{
    lost::Lost,
    outbox::{Change, Changed},
    place::Place,
    reader::Read,
    sql::Sql,
    writer::{Job, Work, Writer, Written},
};
use crate::{
    audit::{AuditEvent, AuditLine, Checkpoint, EventKind, Verification},
    digest::Digest,
    hold::{Approval, HoldId, HoldRecord, NewHold, Place as ListPlace, Remembered, State, Vote},
    meter::{Asked, Meter},
};

/// How long a write waits for another process that is writing, in seconds.
pub const BUSY_WAIT_SECONDS: u64 = 5;

/// Writes that may be queued or under way at once in one process; more callers wait for their turn.
pub const WRITES_QUEUED_MAX: usize = 1024;

/// Events that may wait to ride along; more are dropped and counted.
pub const EVENTS_QUEUED_MAX: usize = 4096;

/// Reads that may be queued or under way at once in one process; more callers wait for their turn.
pub const READS_QUEUED_MAX: usize = 256;

/// The length of a secret that gates share, in bytes.
pub const KEY_BYTES: usize = 32;

/// How long the answer to a task is kept for its client at least.
pub const TASK_ANSWER_KEPT: Duration = Duration::from_secs(60 * 60);

/// Rows that one read gives at most, whatever it asks for.
pub const ROWS_READ_MAX: usize = 10_000;

/// Open holds of one principal that may be without a caller when one more of its calls is to be held.
pub const WITHOUT_CALLER_MAX: usize = 1000;

/// The stack of each of the two threads, in bytes; SQLite needs a tenth of it.
const STACK_BYTES: usize = 1024 * 1024;

/// A handle on the record. Clones share one queue; the threads end when the last clone is dropped.
#[derive(Clone)]
pub struct Store {
    engine: Arc<Engine>,
    meter: Arc<Meter>,
}

/// Who does the work.
enum Engine {
    Threads(Threads),
    /// On the caller's thread, in memory.
    Inline {
        writer: Mutex<Writer>,
        lost: Arc<Lost>,
    },
}

/// The two queues are as long as their slots let them be: a queue with room for all that may wait would take that room from
/// the start.
struct Threads {
    writes: Writes,
    write_slots: Arc<Semaphore>,
    event_slots: Arc<Semaphore>,
    reads: Sender<Read>,
    read_slots: Arc<Semaphore>,
    lost: Arc<Lost>,
    /// What is heard of other processes, where that is told.
    heard: Option<watch::Receiver<Heard>>,
}

/// The way to whoever writes. There are as many slots as a queue is long, so that sending never finds it full.
enum Writes {
    File(Sender<Work>),
    Server(queue::Sender<Work>),
}

impl Writes {
    fn send(&self, work: Work) -> Result<(), StoreError> {
        match self {
            Self::File(writes) => writes.send(work).map_err(|_| StoreError::Closed),
            Self::Server(writes) => writes.try_send(work).map_err(|_| StoreError::Closed),
        }
    }
}

/// What [`Store::history`] is to give: the newest first, at most `limit` (and [`ROWS_READ_MAX`]).
#[derive(Clone, Debug, Default)]
pub struct HistoryFilter {
    /// How many.
    pub limit: usize,
    /// Only holds recorded before this one; the last of a page is the `before` of the next.
    pub before: Option<HoldId>,
    /// Only holds in one of these states; empty: in any.
    pub states: Vec<State>,
    /// Only holds of this server.
    pub server: Option<String>,
    /// Only holds of this tool.
    pub tool: Option<String>,
}

/// What a call that is to be held is to the record.
#[derive(Clone, Debug)]
pub enum Arrived {
    /// A hold of its own; `notes` are those that were given, and what the record knows of the same call besides.
    Held {
        /// What an approver should know.
        notes: Vec<String>,
    },
    /// The caller that this hold has been waiting for: nobody is asked again. Its frame is not given.
    Attached(Box<HoldRecord>),
    /// The one that redeems this grant: it is recorded as forwarding.
    Redeemed(Box<HoldRecord>),
    /// One that hears this rejection.
    Rejected(Box<HoldRecord>),
    /// One that is not sent, because nobody knows whether this one ran.
    Unknown(Box<HoldRecord>),
    /// Nothing was recorded: the same call waits with a caller at `holder`, or was sent by it.
    Waits {
        /// The holds of such calls that wait with it.
        ids: Vec<HoldId>,
        /// The process that has their callers or has sent one.
        holder: Arc<str>,
    },
    /// Nothing was recorded: so many of its principal's calls wait already, or have come to no end, and nobody waits for them
    /// ([`WITHOUT_CALLER_MAX`]).
    TooMany,
}

/// What a server has answered to a call that runs as a task: the raw JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TaskAnswer {
    /// The `result`.
    Result(String),
    /// The `error`.
    Error(String),
}

/// What [`Store::recover`] took over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Holds that waited: they can be decided, and the same call, made again, finds them.
    pub detached: Vec<HoldId>,
    /// Calls that had been approved and forwarded: nobody knows whether they ran.
    pub unknown: Vec<HoldId>,
}

impl Store {
    /// Opens the record at `path`, and makes it and its directory if need be. Returns at once; a failure is the answer to
    /// everything that is asked afterwards (see [`Store::ready`]).
    pub fn open(path: &Path) -> Self {
        let meter = Arc::new(Meter::default());
        let lost = Arc::new(Lost::new(Arc::clone(&meter)));
        let (writes, write_queue) = channel();
        let (reads, read_queue) = channel();
        let (place, writer_lost) = (Place::new(path), Arc::clone(&lost));
        let run = move || {
            let mut writer = Writer::open(place.clone(), writer_lost);
            let opening = writer.opening();
            if let Err(error) = &opening {
                tracing::error!(
                    error = error as &dyn std::error::Error,
                    "the store cannot be opened: nothing is recorded, and nothing can be read"
                );
            }
            spawn("holdshort-read", move || reader::serve(&place, opening, &read_queue));
            writer.serve(&write_queue);
        };
        spawn("holdshort-store", run);
        Self::over_threads(Writes::File(writes), reads, (lost, meter), None)
    }

    /// Opens the record at `location`, as the process `name` on it; see [`Store::open`].
    pub fn open_at(location: &Location, name: &Arc<str>) -> Self {
        match location {
            Location::File(path) => Self::open(path),
            Location::Postgres(url) => {
                let meter = Arc::new(Meter::default());
                let lost = Arc::new(Lost::new(Arc::clone(&meter)));
                let postgres::Parts { writes, reads, heard } = postgres::start(url, name, &lost);
                Self::over_threads(Writes::Server(writes), reads, (lost, meter), Some(heard))
            }
        }
    }

    fn over_threads(
        writes: Writes,
        reads: Sender<Read>,
        (lost, meter): (Arc<Lost>, Arc<Meter>),
        heard: Option<watch::Receiver<Heard>>,
    ) -> Self {
        let engine = Engine::Threads(Threads {
            writes,
            write_slots: Arc::new(Semaphore::new(WRITES_QUEUED_MAX)),
            event_slots: Arc::new(Semaphore::new(EVENTS_QUEUED_MAX)),
            reads,
            read_slots: Arc::new(Semaphore::new(READS_QUEUED_MAX)),
            lost,
            heard,
        });
        Self { engine: Arc::new(engine), meter }
    }

    /// A record that ends with its last handle. For tests: it works on the caller's thread, so that a runtime with paused
    /// time never sees itself idle while a job is under way.
    pub fn in_memory() -> Self {
        let meter = Arc::new(Meter::default());
        let lost = Arc::new(Lost::new(Arc::clone(&meter)));
        let writer = Mutex::new(Writer::in_memory(Arc::clone(&lost)));
        Self { engine: Arc::new(Engine::Inline { writer, lost }), meter }
    }

    /// What this process counts of its work.
    pub fn meter(&self) -> &Arc<Meter> {
        &self.meter
    }

    /// What is heard of other processes on the record. None where they do not tell: on one machine their control sockets are asked.
    pub fn heard(&self) -> Option<watch::Receiver<Heard>> {
        match &*self.engine {
            Engine::Threads(threads) => threads.heard.clone(),
            Engine::Inline { .. } => None,
        }
    }

    /// Whether the process `name` has a connection to the record. None where the record does not know.
    pub async fn is_connected(&self, name: &str) -> Result<Option<bool>, StoreError> {
        if self.heard().is_none() {
            return Ok(None);
        }
        let key = postgres::lock_of(name);
        self.read(move |db| postgres::is_connected(db, key)).await.map(Some)
    }

    /// Whether the record can be written now. Waits until the file is open.
    pub async fn ready(&self) -> Result<(), StoreError> {
        self.write(Job::Flush).await.map(drop)
    }

    /// Waits until everything that was given before is durable, events that ride along too. For an orderly end.
    pub async fn flush(&self) -> Result<(), StoreError> {
        self.write(Job::Flush).await.map(drop)
    }

    /// The same for the end of the process, and what is only in the file's write-ahead log is copied into the file, so that a copy of
    /// that one file is whole. Waits for no other process for long; what cannot be copied stays in the log, and is as safe there.
    pub async fn settle(&self) -> Result<(), StoreError> {
        self.write(Job::Settle).await.map(drop)
    }

    /// Records a call that is held, with its audit event. To be durable before anyone is asked about it.
    pub async fn record_hold(&self, hold: NewHold) -> Result<(), StoreError> {
        self.write(Job::Record(Box::new(hold))).await.map(drop)
    }

    /// Moves a hold to `state`, with its audit event, if [`State::may_become`] allows it from the state it has; otherwise
    /// [`StoreError::NotHeld`], and of several racing callers exactly one wins. `votes` are added to those recorded.
    ///
    /// After [`StoreError::Database`] the change may be in the file all the same, if the disk failed after it was written.
    /// The caller goes by the error: what is not known to be recorded has not happened.
    pub async fn end(
        &self,
        id: HoldId,
        state: State,
        votes: Vec<Vote>,
        note: Option<String>,
    ) -> Result<(), StoreError> {
        self.write(Job::End { id, state, votes, note, at: Timestamp::now() }).await.map(drop)
    }

    /// The same for an approval by `vote` whose call goes to the server: with what it brings along, in one commit. Only by the
    /// process `holder` that has the caller; [`StoreError::TakenOver`] if that is another by now.
    pub async fn approve(
        &self,
        id: HoldId,
        vote: Vote,
        approval: Approval,
        holder: Arc<str>,
    ) -> Result<(), StoreError> {
        self.write(Job::Approve { id, vote, approval: Box::new(approval), holder }).await.map(drop)
    }

    /// Hands over an event that nobody waits for: it becomes durable with the next commit, or a quarter of a second later
    /// by itself. Never blocks; when [`EVENTS_QUEUED_MAX`] wait or the disk fails it is dropped, counted, and the count
    /// becomes an event as soon as one can be written. Events of states are the store's own: one given here is dropped.
    pub fn ride_along(&self, event: AuditEvent) {
        if matches!(event.kind, EventKind::State(_)) {
            tracing::error!("an event of a hold's state was given to ride along, and dropped");
            self.lost().one();
            return;
        }
        let job = Job::Ride(Box::new(event));
        match &*self.engine {
            Engine::Inline { writer, .. } => {
                let mut group = vec![Work { job, reply: None, slot: None }];
                writer.lock().unwrap_or_else(PoisonError::into_inner).commit(&mut group);
            }
            Engine::Threads(threads) => {
                let slot = Arc::clone(&threads.event_slots).try_acquire_owned().ok();
                let sent = slot.is_some_and(|slot| {
                    threads.writes.send(Work { job, reply: None, slot: Some(slot) }).is_ok()
                });
                if !sent {
                    threads.lost.one();
                }
            }
        }
    }

    /// Events that were dropped and that no line of the log tells of yet.
    pub fn events_dropped(&self) -> u64 {
        self.lost().untold()
    }

    /// Records a call that is to be held, or lets it take the place of an earlier one of the same content. `is_own`: a call
    /// that waits with a caller or was sent is left alone. `remembered`: the approval of that hold may count for it, and then
    /// it is as if it redeemed a grant. Of all processes on the record, one redeems it, and one has its last use.
    pub async fn arrive(
        &self,
        hold: NewHold,
        is_own: bool,
        remembered: Option<HoldId>,
    ) -> Result<Arrived, StoreError> {
        let hold = Box::new(hold);
        match self.write(Job::Arrive { hold, is_own, remembered, at: Timestamp::now() }).await? {
            Written::Arrived(arrived) => Ok(arrived),
            _ => Err(StoreError::Closed),
        }
    }

    /// The caller of `id` at the process `holder` is gone: from now on anybody may decide, and a retry finds it. Nothing
    /// happens if it has ended, or is with another process.
    pub async fn detach(&self, id: HoldId, holder: Arc<str>, note: &'static str) -> Result<(), StoreError> {
        self.write(Job::Detach { id, holder, note, at: Timestamp::now() }).await.map(drop)
    }

    /// Ends a hold in `state` for the process `holder`, which could not have that recorded when it came and has sent nothing of the
    /// call. Nothing happens if it has ended, or is with another process.
    pub async fn end_late(
        &self,
        id: HoldId,
        holder: Arc<str>,
        state: State,
        note: Option<&'static str>,
    ) -> Result<(), StoreError> {
        self.write(Job::EndLate { id, holder, state, note, at: Timestamp::now() }).await.map(drop)
    }

    /// Withdraws a hold that has no caller. Gives whether it was one: it may have a caller again, or have ended.
    pub async fn take_back(&self, id: HoldId, note: &'static str) -> Result<bool, StoreError> {
        match self.write(Job::TakeBack { id, note, at: Timestamp::now() }).await? {
            Written::TakenBack(is_taken_back) => Ok(is_taken_back),
            _ => Err(StoreError::Closed),
        }
    }

    /// Records a verdict on a hold that has no caller, with what an approval brings along; what comes of it is known until
    /// `lapses_at`. Gives the state: granted or rejected.
    ///
    /// # Errors
    /// [`StoreError::Attached`] if it has a caller, who has to hear of it.
    pub async fn decide(
        &self,
        id: HoldId,
        vote: Vote,
        approval: Approval,
        lapses_at: Timestamp,
    ) -> Result<State, StoreError> {
        match self.write(Job::Decide { id, vote, approval: Box::new(approval), lapses_at }).await? {
            Written::State(state) => Ok(state),
            _ => Err(StoreError::Closed),
        }
    }

    /// Lets `call`, which is the call of `id` made again, redeem the grant: gives the hold, recorded as forwarding and without
    /// its frame. `None` if there is no grant, or the rules or the tool are no longer the same. Of several one redeems it.
    pub async fn redeem(&self, id: HoldId, call: NewHold) -> Result<Option<Box<HoldRecord>>, StoreError> {
        match self.write(Job::Redeem { id, call: Box::new(call), at: Timestamp::now() }).await? {
            Written::Redeemed(record) => Ok(record),
            _ => Err(StoreError::Closed),
        }
    }

    /// Records that the call of `id` was answered, and keeps the answer for so long.
    pub async fn answer(&self, id: HoldId, answer: TaskAnswer, kept: Duration) -> Result<(), StoreError> {
        self.write(Job::Answer { id, answer, kept, instead_of: None, at: Timestamp::now() }).await.map(drop)
    }

    /// Puts `answer` in the place of the kept result `instead_of` of `id`. `false` if another one is kept: of several callers
    /// with one result, one wins.
    pub async fn answer_instead(
        &self,
        id: HoldId,
        instead_of: String,
        answer: TaskAnswer,
        kept: Duration,
    ) -> Result<bool, StoreError> {
        let instead_of = Some(instead_of);
        match self.write(Job::Answer { id, answer, kept, instead_of, at: Timestamp::now() }).await? {
            Written::Effect(is_replaced) => Ok(is_replaced),
            _ => Err(StoreError::Closed),
        }
    }

    /// The secret `name` of all gates on this record: 256 random bits, made by whoever asks first.
    pub async fn key(&self, name: &'static str) -> Result<[u8; KEY_BYTES], StoreError> {
        let mut fresh = [0; KEY_BYTES];
        getrandom::fill(&mut fresh).map_err(|_| StoreError::BadKey(name))?;
        match self.write(Job::Key { name, fresh }).await? {
            Written::Key(key) => Ok(key),
            _ => Err(StoreError::Closed),
        }
    }

    /// The answer that [`Store::answer`] has kept.
    pub async fn answer_of(&self, id: HoldId) -> Result<Option<TaskAnswer>, StoreError> {
        self.read(move |db| tasks::answer_of(db, id, Timestamp::now())).await
    }

    /// Records a vote that is not enough yet, given at the process `gate`. Gives the hold with all votes so far, without its
    /// frame.
    ///
    /// # Errors
    /// [`StoreError::NotHeld`] if it no longer waits.
    pub async fn vote(&self, id: HoldId, gate: Arc<str>, vote: Vote) -> Result<HoldRecord, StoreError> {
        match self.write(Job::Vote { id, gate, vote }).await? {
            Written::Voted(record) => Ok(*record),
            _ => Err(StoreError::Closed),
        }
    }

    /// Ends what has no caller and whose time is over. Gives how many that were.
    pub async fn sweep(&self) -> Result<usize, StoreError> {
        match self.write(Job::Sweep { at: Timestamp::now() }).await? {
            Written::Swept(count) => Ok(count),
            _ => Err(StoreError::Closed),
        }
    }

    /// Takes over all that a dead process left open, in one commit: what waited is detached, what was forwarded is unknown.
    /// The caller knows that the process is dead.
    pub async fn recover(&self, dead: &str) -> Result<Recovered, StoreError> {
        match self.write(Job::Recover { dead: dead.into(), at: Timestamp::now() }).await? {
            Written::Recovered(recovered) => Ok(recovered),
            _ => Err(StoreError::Closed),
        }
    }

    /// Takes back the remembered approval of the hold `of`, for `by`, at the process `gate`. `false` if there is none, or it was
    /// taken back before.
    pub async fn revoke(&self, of: HoldId, by: String, gate: Arc<str>) -> Result<bool, StoreError> {
        match self.write(Job::Revoke { of, by, gate, at: Timestamp::now() }).await? {
            Written::Effect(revoked) => Ok(revoked),
            _ => Err(StoreError::Closed),
        }
    }

    /// People hear of the hold `id` again, by the process `gate`, `heard` after it was held: a reminder, or an escalation, as
    /// `note` says. `false` if it waits no longer, or they have heard of that by another process.
    pub async fn hear(
        &self,
        id: HoldId,
        heard: Duration,
        note: String,
        gate: Arc<str>,
    ) -> Result<bool, StoreError> {
        match self.write(Job::Hear { id, heard, note, gate, at: Timestamp::now() }).await? {
            Written::Effect(told) => Ok(told),
            _ => Err(StoreError::Closed),
        }
    }

    /// Holds without a caller at another process than `own` of which people may be to hear again, without their frames, with how long after each was held
    /// they have heard of it last; the oldest first, at most `limit` (and [`ROWS_READ_MAX`]).
    pub async fn reminded(
        &self,
        own: Arc<str>,
        limit: usize,
    ) -> Result<Vec<(NewHold, Duration)>, StoreError> {
        self.read(move |db| waiting::reminded(db, &own, limit.min(ROWS_READ_MAX))).await
    }

    /// Remembered approvals that count now and may cover a call of `tool` at `server` by `principal`, the newest first.
    pub async fn remembered_for(
        &self,
        server: Arc<str>,
        tool: Arc<str>,
        principal: Arc<str>,
    ) -> Result<Vec<Remembered>, StoreError> {
        let of =
            move |db: &dyn Sql| approvals::remembered_for(db, (&server, &tool, &principal), Timestamp::now());
        self.read(of).await
    }

    /// Remembered approvals whose time was not over at `after`, the newest first, at most [`ROWS_READ_MAX`].
    pub async fn remembered(&self, after: Timestamp) -> Result<Vec<Remembered>, StoreError> {
        self.read(move |db| approvals::all_remembered(db, after, ROWS_READ_MAX)).await
    }

    /// The hold of this id.
    pub async fn hold(&self, id: HoldId) -> Result<Option<HoldRecord>, StoreError> {
        self.read(move |db| Ok(statements::hold(db, id)?.map(|(_, record)| record))).await
    }

    /// The same as it is listed: without its frame, if that is long.
    pub async fn listed_hold(&self, id: HoldId) -> Result<Option<Listed>, StoreError> {
        self.read(move |db| listed::listed_hold(db, id)).await
    }

    /// The holds whose written id begins with `prefix`, at most `limit`; none for what cannot begin an id.
    pub async fn find(&self, prefix: &str, limit: usize) -> Result<Vec<HoldRecord>, StoreError> {
        let prefix = prefix.to_owned();
        self.read(move |db| statements::find(db, &prefix, limit.min(ROWS_READ_MAX))).await
    }

    /// Holds of any state, the newest first.
    pub async fn history(&self, filter: HistoryFilter) -> Result<Vec<Listed>, StoreError> {
        let filter = HistoryFilter { limit: filter.limit.min(ROWS_READ_MAX), ..filter };
        self.read(move |db| listed::history(db, &filter)).await
    }

    /// Holds of which something may still become, the oldest first, those of them behind the place `after` that no process has a caller for, at most `limit` (and [`ROWS_READ_MAX`]): detached ones,
    /// grants, and calls of which nobody knows whether they ran.
    pub async fn detached_holds(
        &self,
        after: Option<ListPlace>,
        limit: usize,
    ) -> Result<Vec<Listed>, StoreError> {
        self.read(move |db| listed::detached_holds(db, after, limit.min(ROWS_READ_MAX))).await
    }

    /// How many holds are not over, and since when the oldest waits.
    pub async fn open_counts(&self) -> Result<OpenCounts, StoreError> {
        self.read(counts::open_counts).await
    }

    /// The same with those that wait with a caller at any process.
    pub async fn decidable_holds(
        &self,
        after: Option<ListPlace>,
        limit: usize,
    ) -> Result<Vec<Listed>, StoreError> {
        self.read(move |db| listed::decidable_holds(db, after, limit.min(ROWS_READ_MAX))).await
    }

    /// The processes that have callers of open holds. Whether one is dead is for the caller to find out.
    pub async fn holders(&self) -> Result<Vec<Arc<str>>, StoreError> {
        self.read(statements::holders).await
    }

    /// The lines of the audit log behind number `after_seq`, in order, at most `limit` (and [`ROWS_READ_MAX`]).
    pub async fn audit_events(&self, after_seq: u64, limit: usize) -> Result<Vec<AuditLine>, StoreError> {
        self.read(move |db| statements::lines_after(db, after_seq, limit.min(ROWS_READ_MAX))).await
    }

    /// Where the audit log ends now.
    pub async fn checkpoint(&self) -> Result<Checkpoint, StoreError> {
        self.read(statements::head).await
    }

    /// Reads the whole log and every hold, and tells the first thing that does not agree. What even a clean result leaves
    /// open is [`crate::audit::CANNOT_PROVE`].
    pub async fn verify(&self, against: Option<Checkpoint>) -> Result<Verification, StoreError> {
        self.read(move |db| verify::verify(db, against)).await
    }

    /// The last line of the audit log that was looked at for a channel; none for a new one.
    pub async fn outbox_seen(&self, channel: &str) -> Result<Option<u64>, StoreError> {
        let channel = channel.to_owned();
        self.read(move |db| outbox::seen(db, &channel)).await
    }

    /// Puts `entries` into the outbox of a channel, for which the log was looked at from `seen` to `now_seen`. `false` if
    /// another process has done so meanwhile: then nothing was put in.
    pub async fn fill_outbox(
        &self,
        channel: Arc<str>,
        seen: Option<u64>,
        now_seen: u64,
        entries: Vec<NewEntry>,
    ) -> Result<bool, StoreError> {
        self.outbox(Change::Fill { channel, seen, now_seen, entries, at: Timestamp::now() }).await
    }

    /// When the next entry of a channel can be claimed; none if nothing is to be sent.
    pub async fn outbox_next(&self, channel: &str) -> Result<Option<Timestamp>, StoreError> {
        let channel = channel.to_owned();
        self.read(move |db| outbox::next(db, &channel)).await
    }

    /// Claims the oldest entry of a channel that is due: until `until`, nobody else gets it or a later one of the same hold.
    pub async fn claim_entry(
        &self,
        channel: Arc<str>,
        by: Arc<str>,
        until: Timestamp,
    ) -> Result<Option<Claimed>, StoreError> {
        let change = Change::Claim { channel, by, at: Timestamp::now(), until };
        match self.write(Job::Outbox(Box::new(change))).await? {
            Written::Outbox(Changed::Claimed(claimed)) => Ok(claimed),
            _ => Err(StoreError::Closed),
        }
    }

    /// Writes down what became of a claimed entry. `false` if the claim has run out, and somebody else has it.
    pub async fn delivered(&self, id: i64, by: Arc<str>, delivered: Delivered) -> Result<bool, StoreError> {
        self.outbox(Change::Deliver { id, by, delivered, at: Timestamp::now() }).await
    }

    /// The name that the service of a channel has given to the message about a hold.
    pub async fn message(&self, channel: &str, hold: HoldId) -> Result<Option<String>, StoreError> {
        let channel = channel.to_owned();
        self.read(move |db| outbox::message(db, &channel, hold)).await
    }

    /// How the outbox of a channel stands.
    pub async fn outbox_counts(&self, channel: &str) -> Result<OutboxCounts, StoreError> {
        let channel = channel.to_owned();
        self.read(move |db| outbox::counts(db, &channel)).await
    }

    /// Whether `what` is used for the first time, by all processes on the record. It is remembered until `until`.
    pub async fn use_once(&self, what: Digest, until: Timestamp) -> Result<bool, StoreError> {
        self.outbox(Change::UseOnce { what, until, at: Timestamp::now() }).await
    }

    /// Takes a use back that had no effect.
    pub async fn unuse(&self, what: Digest) -> Result<(), StoreError> {
        self.outbox(Change::Unuse { what }).await.map(drop)
    }

    async fn outbox(&self, change: Change) -> Result<bool, StoreError> {
        match self.write(Job::Outbox(Box::new(change))).await? {
            Written::Outbox(Changed::Done(done)) => Ok(done),
            _ => Err(StoreError::Closed),
        }
    }

    fn lost(&self) -> &Lost {
        match &*self.engine {
            Engine::Inline { lost, .. } => lost,
            Engine::Threads(threads) => &threads.lost,
        }
    }

    async fn write(&self, job: Job) -> Result<Written, StoreError> {
        self.measured(Asked::Write, self.written(job)).await
    }

    /// The answer to what is `asked`, counted with the time that it took.
    async fn measured<T>(
        &self,
        asked: Asked,
        answer: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let began = Instant::now();
        let answer = answer.await;
        let failed = answer.as_ref().is_err_and(StoreError::is_of_the_store);
        self.meter.store_answered(asked, began.elapsed(), failed);
        answer
    }

    async fn written(&self, job: Job) -> Result<Written, StoreError> {
        let (reply, answer) = oneshot::channel();
        match &*self.engine {
            Engine::Inline { writer, .. } => {
                let mut group = vec![Work { job, reply: Some(reply), slot: None }];
                writer.lock().unwrap_or_else(PoisonError::into_inner).commit(&mut group);
            }
            Engine::Threads(threads) => {
                let slot = slot(&threads.write_slots).await?;
                let work = Work { job, reply: Some(reply), slot: Some(slot) };
                threads.writes.send(work)?;
            }
        }
        answer.await.unwrap_or(Err(StoreError::Closed))
    }

    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&dyn Sql) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.measured(Asked::Read, self.found(read)).await
    }

    async fn found<T: Send + 'static>(
        &self,
        read: impl FnOnce(&dyn Sql) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let threads = match &*self.engine {
            Engine::Inline { writer, .. } => {
                let mut writer = writer.lock().unwrap_or_else(PoisonError::into_inner);
                return read(writer.reading()?);
            }
            Engine::Threads(threads) => threads,
        };
        let (reply, answer) = oneshot::channel();
        let slot = slot(&threads.read_slots).await?;
        let job: Read = Box::new(move |db| {
            // Nobody waits any more: reading would be for nothing.
            if !reply.is_closed() {
                let result = db.and_then(read);
                drop(slot);
                let _ = reply.send(result);
            }
        });
        threads.reads.send(job).map_err(|_| StoreError::Closed)?;
        answer.await.unwrap_or(Err(StoreError::Closed))
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").finish_non_exhaustive()
    }
}

/// A place in a queue. There are as many as the queue is long, so that sending never finds it full.
async fn slot(slots: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, StoreError> {
    Arc::clone(slots).acquire_owned().await.map_err(|_| StoreError::Closed)
}

/// Starts a thread. If the system refuses, its queue is dropped, and everything is answered with [`StoreError::Closed`].
fn spawn(name: &str, run: impl FnOnce() + Send + 'static) {
    if let Err(error) = thread::Builder::new().name(name.to_owned()).stack_size(STACK_BYTES).spawn(run) {
        tracing::error!(%error, "a thread of the store cannot be started: nothing is recorded, and nothing can be read");
    }
}
