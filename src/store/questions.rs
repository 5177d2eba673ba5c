//! The statements of what processes of a fleet ask each other: to decide on a hold whose caller one of them has.
//!
//! Called by `writer` inside its transaction and by `reader`. Of PostgreSQL alone: on one machine, gates are asked over their control
//! sockets. A question is taken once, so that nothing is decided twice; what is decided is written down by whoever has the caller.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::{
    Store,
    error::StoreError,
    sql::{Sql, collect, nanoseconds, one, params},
    writer::{Job, Written},
};

/// How long a question that nobody has taken back is kept, in minutes.
const KEPT_MINUTES: i64 = 60;

/// How old a question may be that is still answered, in seconds: whoever asked has been told by then that nobody has.
const ANSWERED_SECONDS_MAX: i64 = 60;

/// A question that this process has taken.
#[derive(Clone, Debug)]
pub struct Question {
    /// Its number.
    pub id: i64,
    /// The process that asks.
    pub asker: Arc<str>,
    /// What it asks, as the two have agreed to write it.
    pub text: String,
}

/// What is to be written.
#[derive(Debug)]
pub(super) enum Change {
    Ask { holder: Arc<str>, asker: Arc<str>, text: String, at: Timestamp },
    Take { holder: Arc<str>, at: Timestamp },
    Answer { id: i64, asker: Arc<str>, text: String },
    Forget { id: i64 },
}

/// What comes of it.
#[derive(Debug)]
pub(super) enum Changed {
    Asked(i64),
    Taken(Vec<Question>),
    /// Whether it was there.
    Done(bool),
}

const ASK: &str =
    "INSERT INTO questions (holder, asker, question, asked_at) VALUES (?1, ?2, ?3, ?4) RETURNING id";
const FORGET_OLD: &str = "DELETE FROM questions WHERE asked_at < ?1";
const TAKE: &str = "UPDATE questions SET taken_at = ?2 WHERE holder = ?1 AND taken_at IS NULL AND asked_at > ?3 \
     RETURNING id, asker, question";
const ANSWER: &str = "UPDATE questions SET answer = ?2 WHERE id = ?1";
/// What is being answered stays until it was.
const FORGET: &str = "DELETE FROM questions WHERE id = ?1 AND (taken_at IS NULL OR answer IS NOT NULL)";
const ANSWER_OF: &str = "SELECT answer FROM questions WHERE id = ?1";

pub(super) fn change(db: &dyn Sql, change: &Change) -> Result<Changed, StoreError> {
    let before = |at: Timestamp, age| nanoseconds(at.checked_sub(age).unwrap_or(at));
    match change {
        Change::Ask { holder, asker, text, at } => {
            db.put(FORGET_OLD, params![before(*at, SignedDuration::from_mins(KEPT_MINUTES))?])?;
            let id = one(db, ASK, params![holder, asker, text, nanoseconds(*at)?], |row| row.get(0))?;
            db.tell(&format!("ask {holder}"))?;
            id.map(Changed::Asked).ok_or(StoreError::Unreadable { column: 0 })
        }
        Change::Take { holder, at } => {
            let since = before(*at, SignedDuration::from_secs(ANSWERED_SECONDS_MAX))?;
            let taken = collect(db, TAKE, params![holder, nanoseconds(*at)?, since], |row| {
                Ok(Question { id: row.get(0)?, asker: row.get(1)?, text: row.get(2)? })
            });
            taken.map(Changed::Taken)
        }
        Change::Answer { id, asker, text } => {
            let is_there = db.execute(ANSWER, params![id, text])? == 1;
            db.tell(&format!("answer {asker}"))?;
            Ok(Changed::Done(is_there))
        }
        Change::Forget { id } => Ok(Changed::Done(db.execute(FORGET, params![id])? == 1)),
    }
}

impl Store {
    /// Asks the process `holder` on the same record something. Gives the number of the question.
    pub async fn ask(&self, holder: Arc<str>, asker: Arc<str>, text: String) -> Result<i64, StoreError> {
        match self.question(Change::Ask { holder, asker, text, at: Timestamp::now() }).await? {
            Changed::Asked(id) => Ok(id),
            _ => Err(StoreError::Closed),
        }
    }

    /// Takes what others ask `holder`. Each is taken once.
    pub async fn take_questions(&self, holder: Arc<str>) -> Result<Vec<Question>, StoreError> {
        match self.question(Change::Take { holder, at: Timestamp::now() }).await? {
            Changed::Taken(questions) => Ok(questions),
            _ => Err(StoreError::Closed),
        }
    }

    /// Answers a question that was taken.
    pub async fn answer_question(&self, question: &Question, text: String) -> Result<(), StoreError> {
        let (id, asker) = (question.id, Arc::clone(&question.asker));
        self.question(Change::Answer { id, asker, text }).await.map(drop)
    }

    /// The answer to a question, if there is one yet.
    pub async fn question_answer(&self, id: i64) -> Result<Option<String>, StoreError> {
        self.read(move |db| Ok(one(db, ANSWER_OF, params![id], |row| row.get(0))?.flatten())).await
    }

    /// Takes a question back, or away once it is answered. `false`: somebody is answering it just now.
    pub async fn forget_question(&self, id: i64) -> Result<bool, StoreError> {
        match self.question(Change::Forget { id }).await? {
            Changed::Done(is_gone) => Ok(is_gone),
            _ => Err(StoreError::Closed),
        }
    }

    async fn question(&self, change: Change) -> Result<Changed, StoreError> {
        match self.write(Job::Question(Box::new(change))).await? {
            Written::Question(changed) => Ok(changed),
            _ => Err(StoreError::Closed),
        }
    }
}
