//! One connection to PostgreSQL, as the statements of the record use it: from a thread of its own, which waits for each answer.
//!
//! Used by `writer` and `reader` of the same name. What was put is sent along with the next statement, so that a job costs few
//! trips to the server. Never sends a statement again.

use std::{
    cell::{Cell as Flag, RefCell},
    collections::HashMap,
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use bytes::BytesMut;
use futures_util::{
    TryStreamExt,
    future::{MaybeDone, maybe_done},
    pin_mut, stream,
};
use tokio::{runtime::Runtime, task::JoinHandle, time::timeout};
use tokio_postgres::{
    AsyncMessage, Client, Config, Connection, NoTls, Statement,
    types::{FromSql, IsNull, ToSql, Type, to_sql_checked},
};

use super::{
    super::{
        error::{ServerError, StoreError},
        sql::{Asked, Cell, Jobs, Row, Sql, Value},
    },
    settings::{Host, PostgresUrl},
    tls::MakeTls,
};
use crate::faults::fail_point;

/// How long the server may take to answer when a connection is made, in seconds.
const CONNECT_SECONDS: u64 = 5;

/// How long a statement may wait for a lock. Whoever has the log locked and is silent for longer than
/// [`SILENT_SECONDS_MAX`] loses it, so this is never reached by those behind.
pub(super) const LOCK_SECONDS_MAX: u64 = 10;

/// How long this process may be silent in the middle of a transaction before the server ends it: others wait for its end.
const SILENT_SECONDS_MAX: u64 = 5;

/// How long one statement may take.
const STATEMENT_SECONDS_MAX: u64 = 60;

/// The oldest server that will do, as `server_version_num` says it.
const VERSION_MIN: i64 = 140_000;

/// Statements that may wait to be sent along with the next one, and the bytes of their parameters.
const PUT_MAX: usize = 512;
const PUT_BYTES_MAX: usize = 1 << 20;

/// The channel on which processes on one record tell each other what to look at. See [`super::Heard`].
pub(super) const CHANNEL: &str = "holdshort";

/// The begin of a transaction that writes, and the like: sent to the server to be prepared before they are needed, since
/// nothing can be prepared in a transaction that has failed.
const CONTROL: [&str; 7] = [BEGIN, BEGIN_READING, COMMIT, "ROLLBACK", SAVEPOINT, RELEASE, ROLL_BACK_JOB];
pub(super) const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE";
pub(super) const BEGIN_READING: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
pub(super) const COMMIT: &str = "COMMIT";
const SAVEPOINT: &str = "SAVEPOINT job";
const RELEASE: &str = "RELEASE SAVEPOINT job";
const ROLL_BACK_JOB: &str = "ROLLBACK TO SAVEPOINT job";

/// Whether a process is there: it has this lock as long as its connection lasts.
const LOCK_NAME: &str = "SELECT pg_advisory_lock($1)";
const TELL: &str = "SELECT pg_notify('holdshort', ?1)";
const TRY_NAME: &str = "SELECT CASE WHEN pg_try_advisory_xact_lock(?1) THEN 1 ELSE 0 END";

/// Hears what the server tells unasked, and that the connection has ended by being dropped.
pub(super) trait Listener: Send + 'static {
    fn hear(&self, told: &str);
}

/// Listens to nothing.
impl Listener for () {
    fn hear(&self, _: &str) {}
}

/// An open connection.
pub(super) struct Session {
    client: Client,
    runtime: Arc<Runtime>,
    connection: JoinHandle<()>,
    statements: RefCell<HashMap<&'static str, Statement>>,
    put: RefCell<Put>,
    /// A statement has failed, and the transaction with it.
    has_failed: Flag<bool>,
}

/// What waits to be sent along.
#[derive(Default)]
struct Put {
    statements: Vec<Owned>,
    /// The bytes of their parameters.
    bytes: usize,
    job: Option<Job>,
}

/// The job that is under way.
struct Job {
    /// Where its statements begin among those that wait.
    begins: usize,
    /// Whether something of it was sent, behind a savepoint. Most jobs are sent whole, along with others, and need none.
    is_saved: bool,
}

impl Put {
    /// What is to be sent before statements that change something, if `changes`, or else only ask.
    fn take(&mut self, savepoint: &Statement, changes: bool) -> Vec<Owned> {
        if let Some(job) = &mut self.job {
            if !job.is_saved && (changes || job.begins < self.statements.len()) {
                self.statements.insert(job.begins, Owned::control(savepoint));
                job.is_saved = true;
            }
            job.begins = 0;
        }
        self.bytes = 0;
        std::mem::take(&mut self.statements)
    }
}

/// A statement that waits to be sent along.
struct Owned {
    statement: Statement,
    parameters: Vec<OwnedValue>,
    /// What has gone wrong if it does not change exactly one row.
    otherwise: Option<StoreError>,
}

impl Owned {
    fn control(statement: &Statement) -> Self {
        Self { statement: statement.clone(), parameters: Vec::new(), otherwise: None }
    }
}

/// What a statement gives: rows, and how many it has changed.
type Given = (Vec<tokio_postgres::Row>, u64);

#[derive(Debug)]
enum OwnedValue {
    Null,
    Integer(i64),
    Text(String),
    Blob(Vec<u8>),
}

impl Drop for Session {
    fn drop(&mut self) {
        // The task would live on in a runtime that nobody drives.
        self.connection.abort();
    }
}

impl Session {
    /// Connects, and makes sure that the server is one that can keep the record. What it tells unasked goes to `heard`.
    pub(super) fn open(
        runtime: &Arc<Runtime>,
        url: &PostgresUrl,
        heard: impl Listener,
    ) -> Result<Self, StoreError> {
        let connecting = async { timeout(Duration::from_secs(CONNECT_SECONDS), connect(url, heard)).await };
        let (client, connection) = runtime.block_on(connecting).map_err(|_| StoreError::Unreachable {
            place: url.to_string().into(),
            why: format!("no answer within {CONNECT_SECONDS} s").into(),
        })??;
        let session = Self {
            client,
            runtime: Arc::clone(runtime),
            connection,
            statements: RefCell::default(),
            put: RefCell::default(),
            has_failed: Flag::new(false),
        };
        session.prepare_to_work(url)?;
        Ok(session)
    }

    fn prepare_to_work(&self, url: &PostgresUrl) -> Result<(), StoreError> {
        self.run(&format!(
            "SET statement_timeout = '{STATEMENT_SECONDS_MAX}s'; SET lock_timeout = '{LOCK_SECONDS_MAX}s'; \
             SET idle_in_transaction_session_timeout = '{SILENT_SECONDS_MAX}s'; SET row_security = off; \
             SET tcp_keepalives_idle = 5; SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 3; \
             SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'"
        ))?;
        let unusable = |why: &str| StoreError::Unusable { place: url.to_string().into(), why: why.into() };
        let about = "SELECT current_setting('server_version_num')::bigint, current_setting('server_encoding'), \
             CASE WHEN pg_is_in_recovery() THEN 1::bigint ELSE 0::bigint END";
        let mut rows = self.rows(about, &[])?;
        let Some(row) = rows.first_mut() else { return Err(unusable("it says nothing of itself")) };
        let (version, encoding) = (row.get(0)?, row.get::<String>(1)?);
        if let Some(why) = unfit(version, &encoding, row.get(2)?) {
            return Err(unusable(&why));
        }
        for statement in CONTROL {
            self.prepared(statement, &[])?;
        }
        Ok(())
    }

    /// Shows, as long as this connection lasts, that the process `name` is there. Waits until an earlier connection of the same
    /// process has ended on the server, so that nothing of it is under way any more.
    pub(super) fn show_life(&self, name: &str) -> Result<(), StoreError> {
        let lock = self.runtime.block_on(self.client.execute(LOCK_NAME, &[&key(name)]));
        lock.map(drop).map_err(|error| self.failed(error))
    }

    /// Runs statements of our own without parameters, outside of what is prepared.
    pub(super) fn run(&self, statements: &str) -> Result<(), StoreError> {
        self.runtime.block_on(self.client.batch_execute(statements)).map_err(|error| self.failed(error))
    }

    /// Whether the connection is gone.
    pub(super) fn is_closed(&self) -> bool {
        self.client.is_closed() || self.connection.is_finished()
    }

    /// Ends a transaction that has not been committed.
    pub(super) fn roll_back(&self) -> Result<(), StoreError> {
        self.put.take();
        self.has_failed.set(false);
        self.execute("ROLLBACK", &[]).map(drop)
    }

    /// Forgets what was put, because the transaction is over.
    fn failed(&self, error: tokio_postgres::Error) -> StoreError {
        self.has_failed.set(true);
        self.put.take();
        StoreError::Server(ServerError::new(error))
    }

    fn prepared(&self, statement: &'static str, parameters: &[Value<'_>]) -> Result<Statement, StoreError> {
        if let Some(found) = self.statements.borrow().get(statement) {
            return Ok(found.clone());
        }
        let types: Vec<_> = parameters.iter().map(Value::kind).collect();
        let text = translated(statement);
        let prepared = self.runtime.block_on(async { self.client.prepare_typed(&text, &types).await });
        let prepared = prepared.map_err(|error| self.failed(error))?;
        self.statements.borrow_mut().insert(statement, prepared.clone());
        Ok(prepared)
    }

    /// Sends what was put and `asked`, all at once, and waits for the answers. `changes`: whether those asked change something.
    fn send(&self, asked: &[(Statement, &[Value<'_>])], changes: bool) -> Result<Vec<Given>, StoreError> {
        // As if the network were cut at this moment.
        fail_point!("postgres.any_trip", self.connection.abort());
        let savepoint = self.prepared(SAVEPOINT, &[])?;
        let put = self.put.borrow_mut().take(&savepoint, changes);
        let client = &self.client;
        let (before, given) = self.runtime.block_on(async {
            let before = put.iter().map(|one| client.execute_raw(&one.statement, one.parameters.iter()));
            let given = asked.iter().map(|(statement, parameters)| ask(client, statement, parameters));
            let (mut before, mut given) = (begun(before).await, begun(given).await);
            (ended(&mut before).await, ended(&mut given).await)
        });
        for (one, done) in put.into_iter().zip(before) {
            let changed = done.map_err(|error| self.failed(error))?;
            if changed != 1
                && let Some(otherwise) = one.otherwise
            {
                self.has_failed.set(true);
                return Err(otherwise);
            }
        }
        given.into_iter().collect::<Result<_, _>>().map_err(|error| self.failed(error))
    }

    fn put_with(
        &self,
        statement: &'static str,
        parameters: &[Value<'_>],
        otherwise: Option<StoreError>,
    ) -> Result<(), StoreError> {
        let statement = self.prepared(statement, parameters)?;
        let bytes: usize = parameters.iter().map(Value::len).sum();
        let parameters = parameters.iter().map(OwnedValue::from).collect();
        let is_full = {
            let put = &mut *self.put.borrow_mut();
            put.statements.push(Owned { statement, parameters, otherwise });
            put.bytes += bytes;
            put.statements.len() >= PUT_MAX || put.bytes >= PUT_BYTES_MAX
        };
        if is_full { self.settle() } else { Ok(()) }
    }

    /// Sends what was put, and waits until the server has done it.
    pub(super) fn settle(&self) -> Result<(), StoreError> {
        if self.put.borrow().statements.is_empty() { Ok(()) } else { self.send(&[], false).map(drop) }
    }

    /// Ends the job that is under way: gives whether something of it was sent.
    fn end_job(&self, keeps: bool) -> bool {
        let put = &mut *self.put.borrow_mut();
        let Some(job) = put.job.take() else { return false };
        if !keeps {
            put.statements.truncate(job.begins);
        }
        job.is_saved
    }
}

/// The statements, sent to the server in their order: each is sent when it is first polled.
async fn begun<F: Future>(statements: impl Iterator<Item = F>) -> Vec<Pin<Box<MaybeDone<F>>>> {
    let mut begun: Vec<_> = statements.map(|statement| Box::pin(maybe_done(statement))).collect();
    poll_fn(|cx| {
        for statement in &mut begun {
            let _ = statement.as_mut().poll(cx);
        }
        Poll::Ready(())
    })
    .await;
    begun
}

/// What the server says to each of them.
async fn ended<T, F>(begun: &mut [Pin<Box<MaybeDone<F>>>]) -> Vec<Result<T, tokio_postgres::Error>>
where
    F: Future<Output = Result<T, tokio_postgres::Error>>,
{
    let mut answers = Vec::with_capacity(begun.len());
    for statement in begun {
        statement.as_mut().await;
        answers.extend(statement.as_mut().take_output());
    }
    answers
}

async fn ask(
    client: &Client,
    statement: &Statement,
    parameters: &[Value<'_>],
) -> Result<Given, tokio_postgres::Error> {
    let answer = client.query_raw(statement, parameters.iter()).await?;
    pin_mut!(answer);
    let mut rows = Vec::new();
    while let Some(row) = answer.try_next().await? {
        rows.push(row);
    }
    Ok((rows, answer.rows_affected().unwrap_or(0)))
}

impl Sql for Session {
    fn rows(&self, statement: &'static str, parameters: &[Value<'_>]) -> Result<Vec<Row>, StoreError> {
        Ok(self.rows_of(&[(statement, parameters)])?.pop().unwrap_or_default())
    }

    fn rows_of(&self, asked: &[Asked<'_>]) -> Result<Vec<Vec<Row>>, StoreError> {
        let prepared = asked
            .iter()
            .map(|(statement, parameters)| Ok((self.prepared(statement, parameters)?, *parameters)));
        let changes = asked.iter().any(|(statement, _)| !statement.starts_with("SELECT"));
        let given = self.send(&prepared.collect::<Result<Vec<_>, StoreError>>()?, changes)?;
        let cells = |row: &tokio_postgres::Row| Row((0..row.len()).map(|column| read(row, column)).collect());
        Ok(given.iter().map(|(rows, _)| rows.iter().map(cells).collect()).collect())
    }

    fn execute(&self, statement: &'static str, parameters: &[Value<'_>]) -> Result<u64, StoreError> {
        let prepared = self.prepared(statement, parameters)?;
        Ok(self.send(&[(prepared, parameters)], true)?.first().map_or(0, |(_, changed)| *changed))
    }

    fn put(&self, statement: &'static str, parameters: &[Value<'_>]) -> Result<(), StoreError> {
        self.put_with(statement, parameters, None)
    }

    fn put_one(
        &self,
        statement: &'static str,
        parameters: &[Value<'_>],
        otherwise: StoreError,
    ) -> Result<(), StoreError> {
        self.put_with(statement, parameters, Some(otherwise))
    }

    fn tell(&self, told: &str) -> Result<(), StoreError> {
        self.put(TELL, &[Value::Text(Some(told))])
    }

    fn is_shut_out(&self, name: &str) -> Result<bool, StoreError> {
        // Ours until the transaction ends: its next connection waits for that, and then sees what has become of its calls.
        let mut rows = self.rows(TRY_NAME, &[Value::Integer(Some(key(name)))])?;
        rows.first_mut().map_or(Ok(false), |row| row.get::<bool>(0))
    }
}

impl Jobs for Session {
    fn is_far(&self) -> bool {
        true
    }

    fn begin_job(&self) -> Result<(), StoreError> {
        let put = &mut *self.put.borrow_mut();
        put.job = Some(Job { begins: put.statements.len(), is_saved: false });
        Ok(())
    }

    fn keep_job(&self) -> Result<(), StoreError> {
        if self.end_job(true) { self.put(RELEASE, &[]) } else { Ok(()) }
    }

    fn undo_job(&self) -> Result<bool, StoreError> {
        if self.end_job(false) {
            self.put(ROLL_BACK_JOB, &[])?;
            self.put(RELEASE, &[])?;
        }
        Ok(true)
    }

    fn is_over(&self) -> bool {
        // Whatever has failed may have been put by an earlier job: then none of them counts.
        self.has_failed.get() || self.is_closed()
    }
}

/// Why a server of this version (as `server_version_num` says it) and encoding cannot keep a record; none if it can.
fn unfit(version: i64, encoding: &str, is_standby: bool) -> Option<String> {
    if version < VERSION_MIN {
        let (oldest, found) = (VERSION_MIN / 10_000, version / 10_000);
        return Some(format!("it is PostgreSQL {found}, and PostgreSQL {oldest} or later is needed"));
    }
    if encoding != "UTF8" {
        return Some(format!("its encoding is not UTF8 but {encoding}"));
    }
    is_standby.then(|| "it is a standby, which cannot be written".to_owned())
}

/// The number of the lock that stands for the process `name`.
pub(super) fn key(name: &str) -> i64 {
    let digest = crate::digest::Digest::of(format!("holdshort process {name}").as_bytes());
    digest.0.iter().take(8).fold(0, |key, byte| key << 8 | i64::from(*byte))
}

/// A statement of the record in PostgreSQL's words.
fn translated(statement: &str) -> String {
    let mut text = String::with_capacity(statement.len());
    for part in statement.split_inclusive('?') {
        match part.strip_suffix('?') {
            Some(before) => text.extend([before, "$"]),
            None => text.push_str(part),
        }
    }
    text.replace("/* SKIP LOCKED */", "FOR UPDATE SKIP LOCKED")
}

// --- connecting ------------------------------------------------------------------------------------------------------

/// Connects, and starts the task that keeps the connection.
async fn connect(url: &PostgresUrl, heard: impl Listener) -> Result<(Client, JoinHandle<()>), StoreError> {
    let mut config = Config::new();
    config.user(&url.user).dbname(&url.database).port(url.port).application_name("holdshort");
    config.keepalives_idle(Duration::from_secs(5)).tcp_user_timeout(Duration::from_secs(20));
    if let Some(password) = &url.password {
        config.password(password);
    }
    match &url.host {
        Host::Name(name) => config.host(name),
        Host::Socket(dir) => config.host_path(dir),
    };
    let unreachable = |error: tokio_postgres::Error| match error.as_db_error() {
        Some(_) => StoreError::Server(ServerError::new(error)),
        None => StoreError::Unreachable {
            place: url.to_string().into(),
            why: crate::store::error::chain(&error).into(),
        },
    };
    if let Some(tls) = &url.tls {
        config.ssl_mode(tokio_postgres::config::SslMode::Require);
        let (client, connection) = config.connect(MakeTls::new(tls)?).await.map_err(unreachable)?;
        return Ok((client, tokio::spawn(keep(connection, heard))));
    }
    config.ssl_mode(tokio_postgres::config::SslMode::Disable);
    let (client, connection) = config.connect(NoTls).await.map_err(unreachable)?;
    Ok((client, tokio::spawn(keep(connection, heard))))
}

/// Moves what goes over the connection, until it ends.
async fn keep<S, T>(mut connection: Connection<S, T>, heard: impl Listener)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let messages = stream::poll_fn(move |cx| connection.poll_message(cx));
    pin_mut!(messages);
    loop {
        match messages.try_next().await {
            Ok(Some(AsyncMessage::Notification(told))) if told.channel() == CHANNEL => {
                heard.hear(told.payload())
            }
            Ok(Some(_)) => {}
            Ok(None) => return,
            Err(error) => {
                tracing::debug!(%error, "the connection to the database has ended");
                return;
            }
        }
    }
}

// --- values ----------------------------------------------------------------------------------------------------------

impl Value<'_> {
    /// How many bytes there are of it.
    fn len(&self) -> usize {
        match self {
            Self::Integer(_) => size_of::<i64>(),
            Self::Text(text) => text.map_or(0, str::len),
            Self::Blob(bytes) => bytes.map_or(0, <[u8]>::len),
        }
    }

    fn kind(&self) -> Type {
        match self {
            Self::Integer(_) => Type::INT8,
            Self::Text(_) => Type::TEXT,
            Self::Blob(_) => Type::BYTEA,
        }
    }
}

impl From<&Value<'_>> for OwnedValue {
    fn from(value: &Value<'_>) -> Self {
        match value {
            Value::Integer(Some(number)) => Self::Integer(*number),
            Value::Text(Some(text)) => Self::Text((*text).to_owned()),
            Value::Blob(Some(bytes)) => Self::Blob((*bytes).to_owned()),
            Value::Integer(None) | Value::Text(None) | Value::Blob(None) => Self::Null,
        }
    }
}

type BoxedError = Box<dyn std::error::Error + Sync + Send>;

impl ToSql for Value<'_> {
    fn to_sql(&self, type_: &Type, out: &mut BytesMut) -> Result<IsNull, BoxedError> {
        match self {
            Self::Integer(Some(number)) => number.to_sql(type_, out),
            Self::Text(Some(text)) => hide_nul(text).to_sql(type_, out),
            Self::Blob(Some(bytes)) => bytes.to_sql(type_, out),
            Self::Integer(None) | Self::Text(None) | Self::Blob(None) => Ok(IsNull::Yes),
        }
    }

    fn accepts(type_: &Type) -> bool {
        [Type::INT8, Type::TEXT, Type::BYTEA].contains(type_)
    }

    to_sql_checked!();
}

impl ToSql for OwnedValue {
    fn to_sql(&self, type_: &Type, out: &mut BytesMut) -> Result<IsNull, BoxedError> {
        match self {
            Self::Null => Ok(IsNull::Yes),
            Self::Integer(number) => Value::Integer(Some(*number)).to_sql(type_, out),
            Self::Text(text) => Value::Text(Some(text)).to_sql(type_, out),
            Self::Blob(bytes) => Value::Blob(Some(bytes)).to_sql(type_, out),
        }
    }

    fn accepts(type_: &Type) -> bool {
        <Value<'_> as ToSql>::accepts(type_)
    }

    to_sql_checked!();
}

/// What PostgreSQL's texts cannot have is the character NUL, which names of tools may. It is written with this one, which is
/// written twice for itself.
const NUL_MARK: char = '\u{1a}';

fn hide_nul(text: &str) -> std::borrow::Cow<'_, str> {
    if !text.contains(['\0', NUL_MARK]) {
        return text.into();
    }
    text.replace(NUL_MARK, "\u{1a}\u{1a}").replace('\0', "\u{1a}0").into()
}

fn show_nul(text: &str) -> Option<String> {
    let (mut shown, mut letters) = (String::with_capacity(text.len()), text.chars());
    while let Some(letter) = letters.next() {
        shown.push(match letter {
            NUL_MARK => match letters.next()? {
                NUL_MARK => NUL_MARK,
                '0' => '\0',
                _ => return None,
            },
            letter => letter,
        });
    }
    Some(shown)
}

impl<'a> FromSql<'a> for Cell {
    fn from_sql(type_: &Type, raw: &'a [u8]) -> Result<Self, BoxedError> {
        Ok(match *type_ {
            Type::INT8 => Self::Integer(i64::from_sql(type_, raw)?),
            Type::INT4 => Self::Integer(i32::from_sql(type_, raw)?.into()),
            Type::BYTEA => Self::Blob(raw.to_owned()),
            _ => match std::str::from_utf8(raw)? {
                text if !text.contains(NUL_MARK) => Self::Text(text.to_owned()),
                text => show_nul(text).map_or(Self::Odd, Self::Text),
            },
        })
    }

    fn from_sql_null(_: &Type) -> Result<Self, BoxedError> {
        Ok(Self::Null)
    }

    fn accepts(type_: &Type) -> bool {
        [Type::INT8, Type::INT4, Type::BYTEA, Type::TEXT, Type::VARCHAR, Type::NAME].contains(type_)
    }
}

fn read(row: &tokio_postgres::Row, column: usize) -> Cell {
    row.try_get(column).unwrap_or(Cell::Odd)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::cluster::Cluster;

    #[test]
    fn a_job_of_which_a_part_was_sent_is_taken_back_alone() {
        const INSERT: &str = "INSERT INTO jobs (name) VALUES (?1)";

        let cluster = Cluster::start();
        let database = cluster.database();
        let runtime = Arc::new(tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap());
        let url = PostgresUrl::parse(&cluster.url(&database)).unwrap();
        let session = Session::open(&runtime, &url, ()).unwrap();
        session.run("CREATE TABLE jobs (name TEXT)").unwrap();
        let long = "x".repeat(PUT_BYTES_MAX);
        let job = |names: &[&str], keeps: bool| {
            session.begin_job().unwrap();
            for name in names {
                session.put(INSERT, &[Value::Text(Some(name))]).unwrap();
            }
            if keeps { session.keep_job().unwrap() } else { assert!(session.undo_job().unwrap()) }
        };
        session.execute(BEGIN, &[]).unwrap();
        job(&["kept"], true);
        job(&["not sent"], false);
        job(&["sent", &long, "not sent"], false);
        job(&["kept too", &long], true);
        session.begin_job().unwrap();
        assert!(session.rows("SELECT name FROM jobs WHERE name = 'sent'", &[]).unwrap().is_empty());
        session.put(INSERT, &[Value::Text(Some("asked first"))]).unwrap();
        session.keep_job().unwrap();
        session.settle().unwrap();
        session.execute(COMMIT, &[]).unwrap();
        let names = "SELECT string_agg(left(name, 11), ', ' ORDER BY name) FROM jobs";
        assert_eq!(cluster.ask(&database, names), "asked first, kept, kept too, xxxxxxxxxxx");
    }

    #[test]
    fn the_statements_of_the_record_are_said_in_the_words_of_the_server() {
        assert_eq!(translated("a = ?1 AND b = ?12"), "a = $1 AND b = $12");
        assert_eq!(translated("LIMIT 1 /* SKIP LOCKED */)"), "LIMIT 1 FOR UPDATE SKIP LOCKED)");
    }

    #[test]
    fn a_server_that_is_too_old_or_cannot_be_written_is_refused_with_the_reason() {
        let why = |version, encoding, is_standby| unfit(version, encoding, is_standby).unwrap();
        assert_eq!(why(130_022, "UTF8", false), "it is PostgreSQL 13, and PostgreSQL 14 or later is needed");
        assert_eq!(why(90_624, "UTF8", false), "it is PostgreSQL 9, and PostgreSQL 14 or later is needed");
        assert_eq!(why(170_000, "SQL_ASCII", false), "its encoding is not UTF8 but SQL_ASCII");
        assert_eq!(why(140_000, "UTF8", true), "it is a standby, which cannot be written");
        assert_eq!(unfit(140_000, "UTF8", false), None);
    }

    #[test]
    fn any_text_is_read_back_as_it_was_and_no_two_are_written_alike() {
        let texts = ["", "a", "\0", "\u{1a}", "\u{1a}0", "\u{1a}\u{1a}", "a\0b\u{1a}\0", "0\0"];
        let written: std::collections::HashSet<_> =
            texts.iter().map(|text| hide_nul(text).into_owned()).collect();
        assert_eq!(written.len(), texts.len());
        for text in texts {
            let hidden = hide_nul(text);
            assert!(!hidden.contains('\0'));
            assert_eq!(show_nul(&hidden).as_deref(), Some(text));
        }
        assert_eq!(show_nul("\u{1a}x"), None, "nothing that we write");
    }
}
