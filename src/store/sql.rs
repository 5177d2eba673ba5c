//! What the statements need of a database, whichever it is: values in, rows out, and a job that can be taken back.
//!
//! The statements of the record are written once, in the words that SQLite and PostgreSQL both understand: parameters are `?1`,
//! `?2`…, rows are inserted with `ON CONFLICT`, the numbers that a database gives come back by `RETURNING`. Here are the values and
//! rows, and how SQLite has them; `postgres` is the other one. Knows no hold and no event.

use std::sync::Arc;

use jiff::Timestamp;
use rusqlite::{Connection, ToSql, types::ToSqlOutput, types::ValueRef};

use super::error::StoreError;
use crate::{digest::Digest, hold::HoldId};

/// A statement that asks for rows, and its parameters.
pub(super) type Asked<'a> = (&'static str, &'a [Value<'a>]);

/// The same with parameters of their own, to be asked later.
pub(super) type Questions<'a> = Vec<(&'static str, Vec<Value<'a>>)>;

/// A database with a transaction open, or one to read from.
pub(super) trait Sql {
    /// The rows that `statement` gives.
    fn rows(&self, statement: &'static str, parameters: &[Value<'_>]) -> Result<Vec<Row>, StoreError>;

    /// How many rows `statement` changes.
    fn execute(&self, statement: &'static str, parameters: &[Value<'_>]) -> Result<u64, StoreError>;

    /// Changes something, and nobody asks how many rows: it may be sent along with the next statement. A failure shows at the end
    /// of the job at the latest.
    fn put(&self, statement: &'static str, parameters: &[Value<'_>]) -> Result<(), StoreError> {
        self.execute(statement, parameters).map(drop)
    }

    /// The rows that each of several statements gives, none of which changes what another finds: they may be asked at once.
    fn rows_of(&self, asked: &[Asked<'_>]) -> Result<Vec<Vec<Row>>, StoreError> {
        asked.iter().map(|(statement, parameters)| self.rows(statement, parameters)).collect()
    }

    /// Changes exactly one row, or the job fails with `otherwise`: at the end of all jobs at the latest, where it is sent along with
    /// what follows.
    fn put_one(
        &self,
        statement: &'static str,
        parameters: &[Value<'_>],
        otherwise: StoreError,
    ) -> Result<(), StoreError> {
        if self.execute(statement, parameters)? == 1 { Ok(()) } else { Err(otherwise) }
    }

    /// Tells the other processes on the record something, once this transaction is committed. Only where they can hear it.
    fn tell(&self, _told: &str) -> Result<(), StoreError> {
        Ok(())
    }

    /// Whether the process `name` cannot write any more, and cannot begin to before this transaction has ended.
    fn is_shut_out(&self, name: &str) -> Result<bool, StoreError>;
}

/// A transaction over several jobs, each of which can be taken back alone.
pub(super) trait Jobs: Sql {
    /// Whether each question takes a way of its own, so that it pays to ask the first ones of all jobs at once.
    fn is_far(&self) -> bool {
        false
    }

    /// A job begins.
    fn begin_job(&self) -> Result<(), StoreError>;

    /// It has succeeded; what it has put is there.
    fn keep_job(&self) -> Result<(), StoreError>;

    /// It has failed: nothing of it is there. `false`, if it has changed something and cannot be taken back alone.
    fn undo_job(&self) -> Result<bool, StoreError>;

    /// Whether the database has ended the transaction by itself, and with it all its jobs.
    fn is_over(&self) -> bool;
}

/// The first row, made into something.
pub(super) fn one<T>(
    db: &dyn Sql,
    statement: &'static str,
    parameters: &[Value<'_>],
    read: impl FnOnce(&mut Row) -> Result<T, StoreError>,
) -> Result<Option<T>, StoreError> {
    db.rows(statement, parameters)?.first_mut().map(read).transpose()
}

/// All rows, each made into something.
pub(super) fn collect<T>(
    db: &dyn Sql,
    statement: &'static str,
    parameters: &[Value<'_>],
    read: impl FnMut(&mut Row) -> Result<T, StoreError>,
) -> Result<Vec<T>, StoreError> {
    db.rows(statement, parameters)?.iter_mut().map(read).collect()
}

// --- values ----------------------------------------------------------------------------------------------------------

/// A parameter. A missing one has a type too: PostgreSQL wants to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value<'a> {
    Integer(Option<i64>),
    Text(Option<&'a str>),
    Blob(Option<&'a [u8]>),
}

/// The parameters of a statement, in their order.
macro_rules! params {
    ($($parameter:expr),* $(,)?) => {
        &[$($crate::store::sql::ToValue::to_value(&$parameter)),*]
    };
}
pub(super) use params;

/// What can be a parameter.
pub(super) trait ToValue {
    /// The value of nothing.
    const NULL: Value<'static>;

    fn to_value(&self) -> Value<'_>;
}

impl<T: ToValue + ?Sized> ToValue for &T {
    const NULL: Value<'static> = T::NULL;

    fn to_value(&self) -> Value<'_> {
        (**self).to_value()
    }
}

impl<T: ToValue> ToValue for Option<T> {
    const NULL: Value<'static> = T::NULL;

    fn to_value(&self) -> Value<'_> {
        self.as_ref().map_or(T::NULL, T::to_value)
    }
}

macro_rules! to_value {
    ($($type:ty: $kind:ident, $self:ident => $value:expr;)*) => {
        $(impl ToValue for $type {
            const NULL: Value<'static> = Value::$kind(None);

            fn to_value(&$self) -> Value<'_> {
                Value::$kind(Some($value))
            }
        })*
    };
}

to_value! {
    i64: Integer, self => *self;
    u32: Integer, self => i64::from(*self);
    bool: Integer, self => i64::from(*self);
    str: Text, self => self;
    String: Text, self => self;
    Arc<str>: Text, self => self;
    Box<str>: Text, self => self;
    [u8]: Blob, self => self;
    Digest: Blob, self => &self.0;
    HoldId: Blob, self => &self.0;
}

/// A number as a database has it: signed. A larger one than it can have stands for the largest.
pub(super) fn integer(value: impl TryInto<i64>) -> i64 {
    value.try_into().unwrap_or(i64::MAX)
}

/// A time as a database has it.
pub(super) fn nanoseconds(at: Timestamp) -> Result<i64, StoreError> {
    i64::try_from(at.as_nanosecond()).map_err(|_| StoreError::Time)
}

// --- rows ------------------------------------------------------------------------------------------------------------

/// What a column of a row has.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) enum Cell {
    #[default]
    Null,
    Integer(i64),
    Text(String),
    Blob(Vec<u8>),
    /// What we never write.
    Odd,
}

/// A row. What was read of it is not in it any more.
#[derive(Debug)]
pub(super) struct Row(pub(super) Vec<Cell>);

impl Row {
    /// Takes the value of a column, which is read once.
    ///
    /// # Errors
    /// [`StoreError::Unreadable`], if it is not what we would have written there.
    pub(super) fn get<T: FromCell>(&mut self, column: usize) -> Result<T, StoreError> {
        let cell = self.0.get_mut(column).map(std::mem::take).unwrap_or_default();
        T::from_cell(cell).ok_or(StoreError::Unreadable { column })
    }
}

/// What a column can be read as.
pub(super) trait FromCell: Sized {
    fn from_cell(cell: Cell) -> Option<Self>;
}

impl<T: FromCell> FromCell for Option<T> {
    fn from_cell(cell: Cell) -> Option<Self> {
        if cell == Cell::Null { Some(None) } else { T::from_cell(cell).map(Some) }
    }
}

macro_rules! from_cell {
    ($($type:ty: $kind:ident($value:ident) => $made:expr;)*) => {
        $(impl FromCell for $type {
            fn from_cell(cell: Cell) -> Option<Self> {
                if let Cell::$kind($value) = cell { $made } else { None }
            }
        })*
    };
}

from_cell! {
    i64: Integer(number) => Some(number);
    u64: Integer(number) => number.try_into().ok();
    u32: Integer(number) => number.try_into().ok();
    bool: Integer(number) => Some(number != 0);
    Timestamp: Integer(number) => Timestamp::from_nanosecond(number.into()).ok();
    String: Text(text) => Some(text);
    Arc<str>: Text(text) => Some(text.into());
    Box<str>: Text(text) => Some(text.into());
    Vec<u8>: Blob(bytes) => Some(bytes);
    Digest: Blob(bytes) => bytes.try_into().ok().map(Self);
    HoldId: Blob(bytes) => bytes.try_into().ok().map(Self);
}

// --- SQLite ----------------------------------------------------------------------------------------------------------

impl ToSql for Value<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Integer(Some(number)) => ValueRef::Integer(*number),
            Self::Text(Some(text)) => ValueRef::Text(text.as_bytes()),
            Self::Blob(Some(bytes)) => ValueRef::Blob(bytes),
            Self::Integer(None) | Self::Text(None) | Self::Blob(None) => ValueRef::Null,
        }))
    }
}

impl From<ValueRef<'_>> for Cell {
    fn from(value: ValueRef<'_>) -> Self {
        match value {
            ValueRef::Null => Self::Null,
            ValueRef::Integer(number) => Self::Integer(number),
            ValueRef::Text(text) => {
                std::str::from_utf8(text).map_or(Self::Odd, |text| Self::Text(text.to_owned()))
            }
            ValueRef::Blob(bytes) => Self::Blob(bytes.to_owned()),
            ValueRef::Real(_) => Self::Odd,
        }
    }
}

impl Sql for Connection {
    fn rows(&self, statement: &'static str, parameters: &[Value<'_>]) -> Result<Vec<Row>, StoreError> {
        let mut statement = self.prepare_cached(statement)?;
        let columns = statement.column_count();
        let mut rows = statement.query(rusqlite::params_from_iter(parameters))?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            let cells = (0..columns).map(|column| Ok(row.get_ref(column)?.into()));
            found.push(Row(cells.collect::<rusqlite::Result<_>>()?));
        }
        Ok(found)
    }

    fn execute(&self, statement: &'static str, parameters: &[Value<'_>]) -> Result<u64, StoreError> {
        let rows = self.prepare_cached(statement)?.execute(rusqlite::params_from_iter(parameters))?;
        Ok(rows as u64)
    }

    fn is_shut_out(&self, _: &str) -> Result<bool, StoreError> {
        // Whoever asks has seen that its process is dead, and no other process gets its name.
        Ok(true)
    }
}

/// A transaction that is open on a connection. A savepoint copies every page that a job changes, and nearly no job fails that has changed
/// anything: so there are none, unless `savepoints` says so.
pub(super) struct Transaction<'a> {
    connection: &'a Connection,
    savepoints: bool,
    /// How many rows had been changed when the job began.
    changed_before: std::cell::Cell<u64>,
}

impl<'a> Transaction<'a> {
    pub(super) fn of(connection: &'a Connection, savepoints: bool) -> Self {
        Self { connection, savepoints, changed_before: std::cell::Cell::new(0) }
    }
}

impl Sql for Transaction<'_> {
    fn rows(&self, statement: &'static str, parameters: &[Value<'_>]) -> Result<Vec<Row>, StoreError> {
        self.connection.rows(statement, parameters)
    }

    fn execute(&self, statement: &'static str, parameters: &[Value<'_>]) -> Result<u64, StoreError> {
        Sql::execute(self.connection, statement, parameters)
    }

    fn is_shut_out(&self, name: &str) -> Result<bool, StoreError> {
        self.connection.is_shut_out(name)
    }
}

impl Jobs for Transaction<'_> {
    fn begin_job(&self) -> Result<(), StoreError> {
        self.changed_before.set(self.connection.total_changes());
        if self.savepoints { self.put("SAVEPOINT job", &[]) } else { Ok(()) }
    }

    fn keep_job(&self) -> Result<(), StoreError> {
        if self.savepoints { self.put("RELEASE job", &[]) } else { Ok(()) }
    }

    fn undo_job(&self) -> Result<bool, StoreError> {
        if !self.savepoints {
            return Ok(self.connection.total_changes() == self.changed_before.get());
        }
        self.put("ROLLBACK TO job", &[])?;
        self.put("RELEASE job", &[]).map(|()| true)
    }

    fn is_over(&self) -> bool {
        self.connection.is_autocommit()
    }
}
