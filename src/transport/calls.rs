//! The requests of one client that have no answer yet.
//!
//! The session asks here whether an id is in flight, whose answer a response is, and what a cancellation means. Ids are
//! raw tokens: `7` and `"7"` are two requests.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{
    gate::{CallSpan, Edited, Unanswered},
    hold::HoldId,
    jsonrpc::RequestId,
};

/// The raw JSON token by which a client recognises the progress of a request.
pub(super) type ProgressToken = Box<str>;

/// What the session wants to read in an answer, besides passing it on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Interest {
    /// Nothing.
    None,
    /// The negotiated revision.
    Initialize,
    /// The names of the tools.
    ToolsList,
    /// What it offers, to which tasks are added: calls may be held.
    Discover,
    /// All of it, to be kept until the client asks for it: the call runs as a task.
    Task,
    /// Which of the server's own tasks it is about: the client knows that by the task of this hold.
    Follow(HoldId),
}

/// One request without an answer.
#[derive(Debug)]
pub(super) enum Call {
    /// The server has it.
    Forwarded {
        /// What to read in the answer.
        interest: Interest,
        /// The hold it came out of, if it was held.
        hold: Option<HoldId>,
        /// The token of its progress, if the client was told of progress while it was held.
        token: Option<ProgressToken>,
        /// What its answer has to say, if an approver has changed it.
        edited: Option<Arc<Edited>>,
        /// What its client hears if no answer comes, where people have approved it.
        unanswered: Option<Box<Unanswered>>,
        /// Whether the client has taken it back; the server may answer all the same.
        cancelled: bool,
        /// Its part of a trace, where somebody looks at that.
        span: Option<Box<CallSpan>>,
    },
    /// It waits for people; the server has never seen it.
    Held {
        /// What to read in the answer, once it is approved.
        interest: Interest,
        /// The hold.
        hold: HoldId,
        /// The token of its progress, if the client wants to hear of it.
        token: Option<ProgressToken>,
        /// How often the client has been told that it waits.
        told: u32,
        /// Whether the client has taken it back while an approval was being recorded: then it is not sent.
        cancelled: bool,
        /// Its part of a trace, where somebody looks at that.
        span: Option<Box<CallSpan>>,
    },
}

/// A request that has its answer: what was known of it.
pub(super) struct Answered {
    pub(super) interest: Interest,
    pub(super) hold: Option<HoldId>,
    pub(super) token: Option<ProgressToken>,
    pub(super) edited: Option<Arc<Edited>>,
    pub(super) unanswered: Option<Box<Unanswered>>,
    pub(super) span: Option<Box<CallSpan>>,
}

/// Why the server has not answered a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::transport) enum NoAnswer {
    /// Not one byte of it was sent.
    NotSent,
    /// It was sent, and the connection ended before its answer.
    Lost,
    /// It got this HTTP status, and no message.
    Status(u16),
}

/// The requests that a transport answers itself, with an error, because the server has not. It says so here before the session gets that
/// error.
#[derive(Clone, Default)]
pub struct NoAnswers(Arc<Mutex<HashMap<RequestId, NoAnswer>>>);

impl NoAnswers {
    fn known(&self) -> MutexGuard<'_, HashMap<RequestId, NoAnswer>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next error for `id` is the transport's own.
    pub(in crate::transport) fn put(&self, id: RequestId, why: NoAnswer) {
        self.known().insert(id, why);
    }

    /// Why it is, if it is.
    pub(in crate::transport) fn take(&self, id: &RequestId) -> Option<NoAnswer> {
        self.known().remove(id)
    }
}

/// The client's requests in flight, by id.
#[derive(Default)]
pub(super) struct Calls {
    by_id: HashMap<RequestId, Call>,
    /// Those of them that run as tasks.
    tasks: usize,
}

impl Call {
    fn is_task(&self) -> bool {
        matches!(self, Self::Forwarded { interest: Interest::Task, .. })
    }
}

impl Calls {
    /// Whether a new request must not use `id`: two answers to one id could not be told apart.
    pub(super) fn is_in_flight(&self, id: &RequestId) -> bool {
        !matches!(self.by_id.get(id), None | Some(Call::Forwarded { cancelled: true, .. }))
    }

    /// Whether one more request may begin, where `requests_max` may be in flight. Cancelled ones, which may never be answered, are
    /// forgotten first.
    pub(super) fn has_room(&mut self, requests_max: usize) -> bool {
        if self.by_id.len() >= requests_max {
            self.by_id.retain(|_, call| !matches!(call, Call::Forwarded { cancelled: true, hold: None, .. }));
        }
        self.by_id.len() < requests_max
    }

    /// Begins a request; gives the one whose id it takes over.
    pub(super) fn insert(&mut self, id: RequestId, call: Call) -> Option<Call> {
        self.tasks += usize::from(call.is_task());
        let replaced = self.by_id.insert(id, call);
        self.tasks -= usize::from(replaced.as_ref().is_some_and(Call::is_task));
        replaced
    }

    /// Whether a call of a task runs.
    pub(super) fn run_tasks(&self) -> bool {
        self.tasks > 0
    }

    pub(super) fn get_mut(&mut self, id: &RequestId) -> Option<&mut Call> {
        self.by_id.get_mut(id)
    }

    pub(super) fn remove(&mut self, id: &RequestId) -> Option<Call> {
        let removed = self.by_id.remove(id);
        self.tasks -= usize::from(removed.as_ref().is_some_and(Call::is_task));
        removed
    }

    /// Takes out the forwarded request that a response with `id` answers. `None` if the server was not asked.
    pub(super) fn answer(&mut self, id: &RequestId) -> Option<Answered> {
        match self.remove(id)? {
            Call::Forwarded { interest, hold, token, edited, unanswered, span, .. } => {
                Some(Answered { interest, hold, token, edited, unanswered, span })
            }
            held @ Call::Held { .. } => {
                self.by_id.insert(id.clone(), held);
                None
            }
        }
    }

    /// The holds that wait.
    pub(super) fn held(&self) -> impl Iterator<Item = HoldId> {
        self.by_id.values().filter_map(|call| match call {
            Call::Held { hold, .. } => Some(*hold),
            Call::Forwarded { .. } => None,
        })
    }

    /// The approved calls that the server has not answered.
    pub(super) fn approved_unanswered(&self) -> impl Iterator<Item = HoldId> {
        self.by_id.values().filter_map(|call| match call {
            Call::Forwarded { hold, .. } => *hold,
            Call::Held { .. } => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_of_a_task_runs_until_it_is_answered_however_that_happens() {
        let id = |id: &str| RequestId::from_token(id).unwrap();
        let call = |interest| Call::Forwarded {
            interest,
            hold: None,
            token: None,
            edited: None,
            unanswered: None,
            cancelled: false,
            span: None,
        };
        let mut calls = Calls::default();
        calls.insert(id("1"), call(Interest::None));
        assert!(!calls.run_tasks());
        calls.insert(id("2"), call(Interest::Task));
        calls.insert(id("3"), call(Interest::Task));
        assert!(calls.answer(&id("2")).is_some() && calls.answer(&id("1")).is_some() && calls.run_tasks());
        calls.insert(id("3"), call(Interest::None));
        assert!(!calls.run_tasks(), "its id is another's now");
        calls.insert(id("4"), call(Interest::Task));
        assert!(calls.remove(&id("4")).is_some() && !calls.run_tasks());
    }
}
