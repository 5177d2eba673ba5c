//! What the jobs of a group ask first, asked all at once: where every question is a trip to a server, a group costs one.
//!
//! Used by `writer::write_jobs`. Each job finds what it would have found by itself: an answer is thrown away, and the job asks anew, if
//! an earlier job of the group may have changed anything about the same call.

use std::{cell::RefCell, collections::HashSet};

use super::{
    error::StoreError,
    sql::{Asked, Cell, Jobs, Questions, Row, Sql, Value},
    statements::{CALL_COLUMN, ID_COLUMN},
    writer::{Reach, Work},
};

/// The answers to the first questions of a group's jobs, in their order, each given once.
pub(super) struct Ahead<'a> {
    answers: std::vec::IntoIter<Answers<'a>>,
    /// The holds and calls that the jobs so far may have changed.
    touched: HashSet<Vec<u8>>,
    /// Whether one of them may have changed any.
    is_void: bool,
}

/// What one job has asked.
#[derive(Default)]
struct Answers<'a> {
    reach: Reach<'a>,
    rows: Vec<Vec<Row>>,
}

impl<'a> Ahead<'a> {
    /// Asks `db` what the jobs of `group` are going to ask, if it is far away.
    ///
    /// # Errors
    ///
    /// Those of the database.
    pub(super) fn ask(db: &dyn Jobs, group: &'a [Work]) -> Result<Self, StoreError> {
        let mut answers = Vec::new();
        if db.is_far() {
            for work in group {
                answers.push(Answers { reach: work.job.reach(), rows: Vec::new() });
            }
            let questions = answers.iter().flat_map(|answers| &answers.reach.questions);
            let asked: Vec<Asked<'_>> =
                questions.map(|(words, values)| (*words, values.as_slice())).collect();
            let mut rows = db.rows_of(&asked)?.into_iter();
            for answers in &mut answers {
                answers.rows = rows.by_ref().take(answers.reach.questions.len()).collect();
            }
        }
        Ok(Self { answers: answers.into_iter(), touched: HashSet::new(), is_void: false })
    }

    /// `db` as the next job finds it.
    pub(super) fn next<'d>(&mut self, db: &'d dyn Sql) -> Answered<'d, 'a> {
        let Answers { reach, rows } = self.answers.next().unwrap_or_default();
        let ids = rows.iter().flatten().flat_map(|row| [row.0.get(ID_COLUMN), row.0.get(CALL_COLUMN)]);
        let ids = ids
            .flatten()
            .filter_map(|cell| if let Cell::Blob(id) = cell { Some(id.as_slice()) } else { None });
        let asked = reach.questions.iter().flat_map(|(_, values)| values);
        let asked = asked.filter_map(|value| if let Value::Blob(id) = value { *id } else { None });
        let made = reach.made.into_iter();
        let made =
            made.flat_map(|hold| [Some(&hold.id.0[..]), hold.call_sha256.as_ref().map(|call| &call.0[..])]);
        let keys: Vec<Vec<u8>> = ids.chain(asked).chain(made.flatten()).map(<[u8]>::to_vec).collect();
        let is_stale = self.is_void || keys.iter().any(|key| self.touched.contains(key));
        self.touched.extend(keys);
        self.is_void |= reach.is_wide;
        Answered { db, answers: RefCell::new((!is_stale).then_some((reach.questions, rows))) }
    }
}

/// A database of which the first questions of a job have been asked already.
pub(super) struct Answered<'d, 'a> {
    db: &'d dyn Sql,
    answers: RefCell<Option<(Questions<'a>, Vec<Vec<Row>>)>>,
}

impl Answered<'_, '_> {
    /// The answers, if these are the questions.
    fn take(&self, asked: &[Asked<'_>]) -> Option<Vec<Vec<Row>>> {
        self.answers
            .borrow_mut()
            .take_if(|(questions, _)| {
                questions.len() == asked.len()
                    && questions
                        .iter()
                        .zip(asked)
                        .all(|(known, asked)| (known.0, known.1.as_slice()) == *asked)
            })
            .map(|(_, rows)| rows)
    }
}

impl Sql for Answered<'_, '_> {
    fn rows(&self, statement: &'static str, parameters: &[Value<'_>]) -> Result<Vec<Row>, StoreError> {
        match self.take(&[(statement, parameters)]) {
            Some(mut answers) => Ok(answers.pop().unwrap_or_default()),
            None => self.db.rows(statement, parameters),
        }
    }

    fn execute(&self, statement: &'static str, parameters: &[Value<'_>]) -> Result<u64, StoreError> {
        self.db.execute(statement, parameters)
    }

    fn put(&self, statement: &'static str, parameters: &[Value<'_>]) -> Result<(), StoreError> {
        self.db.put(statement, parameters)
    }

    fn rows_of(&self, asked: &[Asked<'_>]) -> Result<Vec<Vec<Row>>, StoreError> {
        self.take(asked).map_or_else(|| self.db.rows_of(asked), Ok)
    }

    fn put_one(
        &self,
        statement: &'static str,
        parameters: &[Value<'_>],
        otherwise: StoreError,
    ) -> Result<(), StoreError> {
        self.db.put_one(statement, parameters, otherwise)
    }

    fn tell(&self, told: &str) -> Result<(), StoreError> {
        self.db.tell(told)
    }

    fn is_shut_out(&self, name: &str) -> Result<bool, StoreError> {
        self.db.is_shut_out(name)
    }
}
