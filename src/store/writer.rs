//! The one place that writes: jobs are taken together, each as if it were alone, and answered when their commit is on the disk.
//!
//! Run by the thread that `Store::open` starts, or on the caller's thread for a store in memory. Never says that something
//! was done which is not durable: an error that leaves the file in doubt fails the whole group, and nothing more is
//! written before the file was opened again and the end of the log was found as we left it.

use std::{
    sync::{Arc, mpsc::Receiver},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use rusqlite::Connection;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::{
    Arrived, KEY_BYTES, Recovered, TaskAnswer,
    ahead::Ahead,
    approvals,
    error::StoreError,
    lost::Lost,
    outbox,
    place::{Opened, Place},
    questions,
    sql::{Jobs, Questions, Sql, Transaction},
    statements, tasks, tools, waiting,
};
use crate::{
    audit::{AuditEvent, Checkpoint, EventKind, Occasion},
    definition::{ListedTool, ToolState},
    digest::Digest,
    faults::fail_point,
    hold::{Approval, HoldId, HoldRecord, NewHold, State, Vote},
};

/// Jobs in one commit at most: bounds how long the first of them waits for the others.
pub(super) const JOBS_PER_COMMIT: usize = 512;

/// How long an event that nobody waits for may wait for a commit to go along with, in milliseconds.
pub(super) const RIDE_WAIT_MS: u64 = 250;

/// Something to write.
#[derive(Debug)]
pub(super) enum Job {
    Record(Box<NewHold>),
    End {
        id: HoldId,
        state: State,
        votes: Vec<Vote>,
        note: Option<String>,
        at: Timestamp,
    },
    Approve {
        id: HoldId,
        vote: Vote,
        approval: Box<Approval>,
        holder: Arc<str>,
    },
    Arrive {
        hold: Box<NewHold>,
        is_own: bool,
        remembered: Option<HoldId>,
        at: Timestamp,
    },
    Revoke {
        of: HoldId,
        by: String,
        gate: Arc<str>,
        at: Timestamp,
    },
    Detach {
        id: HoldId,
        holder: Arc<str>,
        note: &'static str,
        at: Timestamp,
    },
    EndLate {
        id: HoldId,
        holder: Arc<str>,
        state: State,
        note: Option<&'static str>,
        at: Timestamp,
    },
    TakeBack {
        id: HoldId,
        note: &'static str,
        at: Timestamp,
    },
    Decide {
        id: HoldId,
        vote: Vote,
        approval: Box<Approval>,
        lapses_at: Timestamp,
    },
    Redeem {
        id: HoldId,
        call: Box<NewHold>,
        at: Timestamp,
    },
    Key {
        name: &'static str,
        fresh: [u8; KEY_BYTES],
    },
    Answer {
        id: HoldId,
        answer: TaskAnswer,
        kept: Duration,
        /// The kept result in whose place it is put; none: it is the first, and the end of the call.
        instead_of: Option<String>,
        at: Timestamp,
    },
    Vote {
        id: HoldId,
        gate: Arc<str>,
        vote: Vote,
    },
    Hear {
        id: HoldId,
        heard: Duration,
        note: String,
        gate: Arc<str>,
        at: Timestamp,
    },
    Sweep {
        at: Timestamp,
    },
    Recover {
        dead: Arc<str>,
        at: Timestamp,
    },
    Outbox(Box<outbox::Change>),
    Question(Box<questions::Change>),
    SeeTools(Box<SeenTools>),
    AcceptTool(Box<AcceptedTool>),
    Ride(Box<AuditEvent>),
    Flush,
    /// As `Flush`; behind it the write-ahead log of a file is copied into the file.
    Settle,
}

/// What a server lists, at the process `gate`.
#[derive(Debug)]
pub(super) struct SeenTools {
    pub(super) server: Arc<str>,
    pub(super) tools: Vec<ListedTool>,
    pub(super) gate: Arc<str>,
    pub(super) at: Timestamp,
}

/// The definition of a tool that `who` accepts, at the process `gate`.
#[derive(Debug)]
pub(super) struct AcceptedTool {
    pub(super) server: String,
    pub(super) tool: String,
    pub(super) sha256: Digest,
    pub(super) gate: Arc<str>,
    pub(super) who: String,
    pub(super) at: Timestamp,
}

/// What a job gives back.
#[derive(Debug)]
pub(super) enum Written {
    Done,
    Arrived(Arrived),
    State(State),
    TakenBack(bool),
    Redeemed(Option<Box<HoldRecord>>),
    Key([u8; KEY_BYTES]),
    Voted(Box<HoldRecord>),
    Swept(usize),
    /// Whether it had an effect.
    Effect(bool),
    Recovered(Recovered),
    Outbox(outbox::Changed),
    Question(questions::Changed),
    Tools(tools::Found),
    Tool(Box<ToolState>),
}

pub(super) type Answer = Result<Written, StoreError>;

/// A job, who waits for it (nobody, for an event that rides along), and its place in the queue.
pub(super) struct Work {
    pub(super) job: Job,
    pub(super) reply: Option<oneshot::Sender<Answer>>,
    pub(super) slot: Option<OwnedSemaphorePermit>,
}

impl Work {
    pub(super) fn rides(&self) -> bool {
        matches!(self.job, Job::Ride(_))
    }

    /// Whether it may write an event, or wants to be behind all that was written.
    pub(super) fn needs_the_log(&self) -> bool {
        !matches!(self.job, Job::Outbox(_) | Job::Question(_))
    }

    pub(super) fn answer(self, answer: Answer) {
        // The place in the queue is free before the answer arrives, so that a caller with one job at a time finds it.
        drop(self.slot);
        if let Some(reply) = self.reply {
            // Whoever asked may be gone; the job is done all the same.
            let _ = reply.send(answer);
        }
    }
}

/// The connection that writes, and what is known of the file.
pub(super) struct Writer {
    /// `None`: in memory, so that there is nothing to open again.
    place: Option<Place>,
    state: Result<Opened, Broken>,
    /// The end of the log after our last commit, or after the last look at it.
    known: Checkpoint,
    /// Events that were lost and that no line of the log tells of yet.
    lost: Arc<Lost>,
}

enum Broken {
    /// It could not be opened at all. Final: the cause is for a person to remove.
    Unopened(StoreError),
    /// It failed in use.
    Poisoned,
}

/// What a group has led to: the end of the log, and the answers.
pub(super) type WrittenGroup = (Checkpoint, Vec<Answer>);

/// Why a group of jobs was not committed.
pub(super) enum GroupError {
    /// The file is as it was.
    Spared(StoreError),
    /// The file is in doubt.
    Fatal(StoreError),
}

impl From<StoreError> for GroupError {
    fn from(error: StoreError) -> Self {
        if error.spares_the_store() { Self::Spared(error) } else { Self::Fatal(error) }
    }
}

impl Writer {
    pub(super) fn open(place: Place, lost: Arc<Lost>) -> Self {
        let opened = place.create_or_open();
        Self::with(Some(place), opened, lost)
    }

    pub(super) fn in_memory(lost: Arc<Lost>) -> Self {
        Self::with(None, Opened::in_memory(), lost)
    }

    pub(super) fn with(place: Option<Place>, opened: Result<Opened, StoreError>, lost: Arc<Lost>) -> Self {
        let opened = opened.and_then(|opened| Ok((statements::head(&opened.connection)?, opened)));
        match opened {
            Ok((known, opened)) => Self { place, state: Ok(opened), known, lost },
            Err(error) => Self { place, state: Err(Broken::Unopened(error)), known: Checkpoint::EMPTY, lost },
        }
    }

    /// Whether it could be opened at first.
    pub(super) fn opening(&self) -> Result<(), StoreError> {
        match &self.state {
            Err(Broken::Unopened(error)) => Err(error.clone()),
            _ => Ok(()),
        }
    }

    /// Serves jobs until every handle is gone.
    pub(super) fn serve(&mut self, jobs: &Receiver<Work>) {
        let mut group = Vec::new();
        while let Ok(first) = jobs.recv() {
            let mut all_ride = first.rides();
            group.push(first);
            let deadline = Instant::now() + Duration::from_millis(RIDE_WAIT_MS);
            while all_ride && group.len() < JOBS_PER_COMMIT {
                let Ok(next) = jobs.recv_timeout(deadline.saturating_duration_since(Instant::now())) else {
                    break;
                };
                all_ride = next.rides();
                group.push(next);
            }
            while group.len() < JOBS_PER_COMMIT
                && let Ok(next) = jobs.try_recv()
            {
                group.push(next);
            }
            self.commit(&mut group);
        }
    }

    /// Writes all jobs of `group` in one transaction and answers them; `group` is empty afterwards.
    pub(super) fn commit(&mut self, group: &mut Vec<Work>) {
        let lost = self.lost.take();
        let error = match self.write(group, lost) {
            Ok((head, answers)) => {
                self.known = head;
                if let Ok(opened) = &self.state
                    && group.iter().any(|work| matches!(work.job, Job::Settle))
                {
                    opened.copy_log();
                }
                for (work, answer) in group.drain(..).zip(answers) {
                    self.count_if_lost(&work, &answer);
                    work.answer(answer);
                }
                return;
            }
            Err(GroupError::Spared(error)) => error,
            Err(GroupError::Fatal(error)) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "the store failed; nothing is recorded until it was checked"
                );
                if self.state.is_ok() {
                    self.state = Err(Broken::Poisoned);
                }
                error
            }
        };
        self.lost.put_back(lost);
        for work in group.drain(..) {
            let answer = Err(error.clone());
            self.count_if_lost(&work, &answer);
            work.answer(answer);
        }
    }

    /// Commits `group`, and makes sure that what it was committed to is still the record.
    fn write(&mut self, group: &[Work], lost: u64) -> Result<WrittenGroup, GroupError> {
        self.make_usable()?;
        let Ok(opened) = &self.state else { return Err(StoreError::Closed.into()) };
        let done = write_group(&opened.connection, group, self.known, lost)?;
        if let Some(place) = &self.place {
            // Exchanged meanwhile: the commit went into a file that nobody will read.
            place.check_still(opened).map_err(GroupError::Fatal)?;
        }
        Ok(done)
    }

    fn count_if_lost(&self, work: &Work, answer: &Answer) {
        if work.rides() && answer.is_err() {
            self.lost.one();
        }
    }

    /// Makes sure that what is written to the connection is in the file that the path names. Opens it again after a failure.
    fn make_usable(&mut self) -> Result<(), StoreError> {
        if let (Ok(opened), Some(place)) = (&self.state, &self.place) {
            place.check_still(opened)?;
        }
        if let Err(broken) = &self.state {
            let opened = match (broken, &self.place) {
                (Broken::Unopened(error), _) => return Err(error.clone()),
                (Broken::Poisoned, None) => return Err(StoreError::Closed),
                (Broken::Poisoned, Some(place)) => place.open_existing()?,
            };
            // Not created anew, and not believed: the log must still have what we know to be durable.
            let known = statements::check_tail(&opened.connection, self.known)?;
            opened.settle()?;
            self.known = known;
            tracing::info!("the store was opened again, and its log is whole");
            self.state = Ok(opened);
        }
        Ok(())
    }

    /// For reading on the same thread; only a store in memory does that.
    pub(super) fn reading(&mut self) -> Result<&dyn Sql, StoreError> {
        self.make_usable()?;
        self.state.as_ref().map(|opened| &opened.connection as &dyn Sql).map_err(|_| StoreError::Closed)
    }
}

/// One transaction over all of `group`. An error means that nothing of it is in the file, or that nobody knows.
pub(super) fn write_group(
    db: &Connection,
    group: &[Work],
    known: Checkpoint,
    lost: u64,
) -> Result<WrittenGroup, GroupError> {
    match write_transaction(db, false, group, known, lost)? {
        Some(done) => Ok(done),
        None => write_transaction(db, true, group, known, lost)?.ok_or(GroupError::Fatal(StoreError::Closed)),
    }
}

/// The same. Nothing is written where one job has to be taken back alone, and that takes `savepoints`.
fn write_transaction(
    db: &Connection,
    savepoints: bool,
    group: &[Work],
    known: Checkpoint,
    lost: u64,
) -> Result<Option<WrittenGroup>, GroupError> {
    fail_point!("store.before_begin");
    run(db, "BEGIN IMMEDIATE")?;
    let outcome = write_jobs(&Transaction::of(db, savepoints), group, known, lost);
    match outcome {
        Ok(Some(done)) => match commit(db) {
            Ok(()) => Ok(Some(done)),
            // Whatever the code: whether the commit is on the disk is not known.
            Err(error) => {
                roll_back(db);
                Err(GroupError::Fatal(error))
            }
        },
        otherwise => {
            roll_back(db);
            otherwise
        }
    }
}

fn commit(db: &Connection) -> Result<(), StoreError> {
    fail_point!("store.before_commit");
    run(db, "COMMIT")?;
    fail_point!("store.after_commit");
    Ok(())
}

/// Does all jobs of `group`, each as if it were alone. None: one that has failed cannot be taken back alone.
pub(super) fn write_jobs(
    db: &dyn Jobs,
    group: &[Work],
    known: Checkpoint,
    lost: u64,
) -> Result<Option<WrittenGroup>, GroupError> {
    // A record that was set back under us must not go on as if it were whole.
    let mut head = statements::known_head(db, known)?;
    let mut ahead = Ahead::ask(db, group)?;
    if lost > 0 {
        statements::append(db, &mut head, dropped(lost))?;
    }
    let mut answers = Vec::with_capacity(group.len());
    for work in group {
        db.begin_job()?;
        let before = head;
        let answer =
            write(&ahead.next(db), &mut head, &work.job).and_then(|written| db.keep_job().map(|()| written));
        if let Err(error) = &answer {
            // SQLite ends the transaction by itself after some failures: then none of the jobs is in it any more.
            if !error.spares_the_store() || db.is_over() {
                return Err(GroupError::Fatal(error.clone()));
            }
            head = before;
            if !db.undo_job()? {
                return Ok(None);
            }
        }
        answers.push(answer);
    }
    Ok(Some((head, answers)))
}

/// How far a job reaches: what it is about, so that jobs of a group that are about other calls do not disturb each other.
#[derive(Default)]
pub(super) struct Reach<'a> {
    /// What it asks first.
    pub(super) questions: Questions<'a>,
    /// The hold that it makes, which it does not ask about.
    pub(super) made: Option<&'a NewHold>,
    /// Whether it may change holds that its questions do not name.
    pub(super) is_wide: bool,
}

impl Job {
    /// How far it reaches.
    pub(super) fn reach(&self) -> Reach<'_> {
        match self {
            Self::Arrive { hold, at, .. } => Reach {
                // With a time that no database can have it fails by itself.
                questions: waiting::asks_for_earlier_calls(hold, *at).unwrap_or_default(),
                made: Some(hold),
                is_wide: false,
            },
            Self::Record(hold) => Reach { made: Some(hold), ..Reach::default() },
            Self::End { id, .. }
            | Self::EndLate { id, .. }
            | Self::Approve { id, .. }
            | Self::Detach { id, .. }
            | Self::TakeBack { id, .. }
            | Self::Decide { id, .. }
            | Self::Redeem { id, .. }
            | Self::Answer { id, .. }
            | Self::Vote { id, .. }
            | Self::Hear { id, .. } => Reach { questions: statements::asks_for_hold(id), ..Reach::default() },
            Self::Revoke { .. } | Self::Sweep { .. } | Self::Recover { .. } => {
                Reach { is_wide: true, ..Reach::default() }
            }
            // They are about no hold.
            Self::Key { .. }
            | Self::Outbox(_)
            | Self::Question(_)
            | Self::SeeTools(_)
            | Self::AcceptTool(_)
            | Self::Ride(_)
            | Self::Flush
            | Self::Settle => Reach::default(),
        }
    }
}

fn write(db: &dyn Sql, head: &mut Checkpoint, job: &Job) -> Answer {
    match job {
        Job::Record(hold) => statements::record_hold(db, head, hold)?,
        Job::Approve { id, vote, approval, holder } => {
            statements::approve(db, head, *id, (vote, approval), holder)?;
        }
        Job::End { id, state, votes, note, at } => {
            statements::end(db, head, *id, *state, (votes, &Approval::default()), note.as_deref(), *at)?;
        }
        Job::Arrive { hold, is_own, remembered, at } => {
            return waiting::arrive(db, head, hold, (*is_own, *remembered), *at).map(Written::Arrived);
        }
        Job::Revoke { of, by, gate, at } => {
            return approvals::revoke(db, head, *of, by, gate, *at).map(Written::Effect);
        }
        Job::Hear { id, heard, note, gate, at } => {
            return waiting::hear(db, head, *id, (*heard, note), gate, *at).map(Written::Effect);
        }
        Job::Detach { id, holder, note, at } => waiting::detach(db, head, *id, holder, note, *at)?,
        Job::EndLate { id, holder, state, note, at } => {
            waiting::end_late(db, head, *id, holder, (*state, *note), *at)?;
        }
        Job::TakeBack { id, note, at } => {
            return waiting::take_back(db, head, *id, note, *at).map(Written::TakenBack);
        }
        Job::Decide { id, vote, approval, lapses_at } => {
            return waiting::decide(db, head, *id, (vote, approval), *lapses_at).map(Written::State);
        }
        Job::Redeem { id, call, at } => {
            return tasks::redeem(db, head, *id, call, *at).map(Written::Redeemed);
        }
        Job::Key { name, fresh } => return tasks::key(db, name, fresh).map(Written::Key),
        Job::Answer { id, answer, kept, instead_of: None, at } => {
            tasks::answer(db, head, *id, (answer, *kept), *at)?;
        }
        Job::Answer { id, answer, kept, instead_of: Some(known), at } => {
            return tasks::answer_instead(db, *id, known, (answer, *kept), *at).map(Written::Effect);
        }
        Job::Vote { id, gate, vote } => {
            return waiting::vote(db, head, *id, gate, vote).map(Box::new).map(Written::Voted);
        }
        Job::Sweep { at } => return waiting::sweep(db, head, *at).map(Written::Swept),
        Job::Recover { dead, at } => {
            return waiting::recover(db, head, dead, *at).map(Written::Recovered);
        }
        Job::Outbox(change) => return outbox::change(db, change).map(Written::Outbox),
        Job::Question(change) => return questions::change(db, change).map(Written::Question),
        Job::SeeTools(seen) => {
            let SeenTools { server, tools, gate, at } = &**seen;
            return tools::see(db, head, server, tools, gate, *at).map(Written::Tools);
        }
        Job::AcceptTool(accepted) => {
            let AcceptedTool { server, tool, sha256, gate, who, at } = &**accepted;
            let state = tools::accept(db, head, server, tool, *sha256, (gate, who), *at)?;
            return Ok(Written::Tool(Box::new(state)));
        }
        Job::Ride(event) => {
            statements::append(db, head, (**event).clone())?;
        }
        Job::Flush | Job::Settle => (),
    }
    Ok(Written::Done)
}

fn dropped(lost: u64) -> AuditEvent {
    AuditEvent {
        kind: EventKind::Occasion(Occasion::EventsDropped),
        note: Some(format!("{lost} event(s)")),
        ..AuditEvent::new(Occasion::EventsDropped, "", Timestamp::now())
    }
}

fn run(db: &Connection, sql: &'static str) -> Result<(), StoreError> {
    db.prepare_cached(sql)?.execute([])?;
    Ok(())
}

fn roll_back(db: &Connection) {
    if !db.is_autocommit()
        && let Err(error) = run(db, "ROLLBACK")
    {
        tracing::error!(error = &error as &dyn std::error::Error, "the transaction could not be rolled back");
    }
}
