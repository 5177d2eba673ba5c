//! Calls that wait as tasks, in a session over lines: begun, asked about, and sent once they are approved.
//!
//! A part of `session`. The answer to such a call is not passed on: it is kept until the client asks for it.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use bytes::Bytes;
use tokio::{
    io::AsyncWrite,
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
};
use tokio_util::sync::CancellationToken;

use super::{Call, Interest, News, Session, keep::tell_end};
use crate::{
    gate::{Approved, Begun, Caller, Followed, Gate, HeldCall, Permitted, Polled, Refusal},
    hold::{HoldId, Withdrawal},
    jsonrpc::{ErrorCode, Frame, RequestId},
    mcp::TaskRequest,
    store::TaskAnswer,
};

/// Answers to questions about tasks that are read from the record, or wait for the client to read, at the same time. Each may be as
/// long as an answer of a tool that is kept.
const ANSWERS_MAX: usize = 4;

/// Questions about tasks that have no answer yet, by their ids. Some wait as long as the tasks do.
pub(super) struct Asking {
    questions: HashMap<RequestId, CancellationToken>,
    /// Answers that wait until there is room on the way to the client.
    told: VecDeque<Told>,
    room: Arc<Semaphore>,
}

/// An answer to a question about a task, and its part of the room that answers have.
pub(super) struct Told {
    id: RequestId,
    answer: Bytes,
    _room: Option<OwnedSemaphorePermit>,
}

impl Default for Asking {
    fn default() -> Self {
        let room = Arc::new(Semaphore::new(ANSWERS_MAX));
        Self { questions: HashMap::new(), told: VecDeque::new(), room }
    }
}

impl Asking {
    /// Whether a question with this id is without an answer.
    pub(super) fn has(&self, id: &RequestId) -> bool {
        self.questions.contains_key(id)
    }

    /// How many are without an answer.
    pub(super) fn len(&self) -> usize {
        self.questions.len()
    }

    /// It has its answer, or needs none. `false`: there is none by this id.
    pub(super) fn end(&mut self, id: &RequestId) -> bool {
        self.questions.remove(id).inspect(CancellationToken::cancel).is_some()
    }

    /// Nobody waits for any of them any more.
    pub(super) fn give_up(&mut self) {
        self.questions.drain().for_each(|(_, given_up)| given_up.cancel());
        self.told.clear();
    }

    /// One has an answer now.
    pub(super) fn told(&mut self, told: Told) {
        self.told.push_back(told);
    }
}

impl<DW: AsyncWrite + Unpin, UW: AsyncWrite + Unpin> Session<DW, UW> {
    /// Whether an answer waits for which there is room.
    pub(super) fn tells(&self) -> bool {
        !self.asking.told.is_empty() && !self.downstream.is_full()
    }

    /// Lets the client have the answers for which there is room.
    pub(super) fn tell(&mut self) {
        while self.tells()
            && let Some(Told { id, answer, .. }) = self.asking.told.pop_front()
        {
            // Unless the client has taken its question back.
            if self.asking.end(&id) {
                self.downstream.send(answer);
            }
        }
    }

    /// A held call becomes a task. Its id is in use until that is on record.
    pub(super) fn begin_task(&mut self, id: RequestId, held: Box<HeldCall>) {
        let hold = held.id();
        self.begin(
            id.clone(),
            Call::Held { interest: Interest::None, hold, token: None, told: 0, cancelled: false, span: None },
        );
        let (gate, caller) = (Arc::clone(&self.gate), self.caller.clone());
        self.tasks.spawn(begin(gate, caller, held, id, self.news.clone()));
    }

    /// It is one, unless its client has taken it back meanwhile.
    pub(super) fn task_begun(&mut self, id: &RequestId, hold: HoldId, answer: Bytes) {
        match self.calls.remove(id) {
            Some(Call::Held { cancelled: true, .. }) => self.take_back(hold),
            _ => self.downstream.send(answer),
        }
    }

    /// It is one, and was decided before: it is sent at once.
    pub(super) fn task_runs(&mut self, id: RequestId, answer: Bytes, approved: Approved) {
        let (hold, edited) = (approved.hold(), approved.edited());
        match self.calls.remove(&id) {
            Some(Call::Held { cancelled: false, .. }) if self.client_reads && self.upstream.is_open() => {
                self.downstream.send(answer);
                self.upstream.send(approved.into_permitted());
                let (interest, hold) = (Interest::Task, Some(hold));
                self.begin(
                    id,
                    Call::Forwarded {
                        interest,
                        hold,
                        token: None,
                        cancelled: false,
                        edited,
                        unanswered: None,
                        span: None,
                    },
                );
            }
            _ => self.not_forwarded(hold, Withdrawal::Cancelled),
        }
    }

    /// A question about a call that waits as a task.
    pub(super) fn ask_task(&mut self, id: RequestId, asked: TaskRequest, frame: Frame) {
        let given_up = CancellationToken::new();
        self.asking.questions.insert(id.clone(), given_up.clone());
        let (gate, caller, news) = (Arc::clone(&self.gate), self.caller.clone(), self.news.clone());
        let room = Arc::clone(&self.asking.room);
        self.tasks.spawn(ask(gate, caller, asked, (id, frame), (news, room), given_up));
    }

    /// A question about a task of the server's own, which the client knows by ours.
    pub(super) fn pass_question(&mut self, id: RequestId, permitted: Permitted, followed: Followed) {
        if !self.asking.end(&id) {
            return;
        }
        if !self.upstream.is_open() {
            let text = "the server has gone";
            return self.refuse(&Refusal::invalid(Some(id), ErrorCode::INTERNAL_ERROR, text));
        }
        self.upstream.send(permitted);
        let Followed { hold, edited } = followed;
        let interest = Interest::Follow(hold);
        self.begin(
            id,
            Call::Forwarded {
                interest,
                hold: None,
                token: None,
                cancelled: false,
                edited,
                unanswered: None,
                span: None,
            },
        );
    }

    /// Sends the call of a task that was approved, under an id that no client uses.
    pub(super) fn run_task(&mut self, approved: Approved) {
        let (hold, edited) = (approved.hold(), approved.edited());
        match approved.request_id().cloned() {
            Some(id) if self.client_reads && self.upstream.is_open() && !self.calls.is_in_flight(&id) => {
                self.upstream.send(approved.into_permitted());
                let interest = Interest::Task;
                self.begin(
                    id,
                    Call::Forwarded {
                        interest,
                        hold: Some(hold),
                        token: None,
                        cancelled: false,
                        edited,
                        unanswered: None,
                        span: None,
                    },
                );
            }
            _ => self.not_forwarded(hold, Withdrawal::ServerGone),
        }
    }

    /// A call that ran as a task has its answer, for which the client comes back.
    pub(super) fn keep_answer(&self, hold: Option<HoldId>, answer: impl FnOnce(HoldId) -> TaskAnswer) {
        let Some(hold) = hold else { return };
        let (gate, answer) = (Arc::clone(&self.gate), answer(hold));
        self.tasks.spawn(async move { gate.keep_answer(hold, answer).await });
    }
}

/// Answers a question about a task; one for a result waits until there is one, or until nobody waits for it.
async fn ask(
    gate: Arc<Gate>,
    caller: Caller,
    asked: TaskRequest,
    (id, frame): (RequestId, Frame),
    (news, room): (mpsc::Sender<News>, Arc<Semaphore>),
    given_up: CancellationToken,
) {
    loop {
        let room = tokio::select! {
            () = given_up.cancelled() => return,
            room = Arc::clone(&room).acquire_owned() => room.ok(),
        };
        let answered = |answer, room| News::Told(Told { id: id.clone(), answer, _room: room });
        let (told, approved) = match gate.ask_task(&caller, &asked, &frame).await {
            Polled::Answer(answer) => (Some(answered(answer, room)), None),
            Polled::Later => {
                drop(room);
                (None, None)
            }
            Polled::Run { answer, approved, .. } => {
                (answer.map(|answer| answered(answer, room)), Some(approved))
            }
            Polled::Pass { permitted, followed, .. } => {
                (Some(News::Pass { id: id.clone(), permitted, followed }), None)
            }
        };
        let is_answered = told.is_some();
        // The client hears of it before the server does.
        if let Some(told) = told {
            let _ = news.send(told).await;
        }
        if let Some(approved) = approved
            && let Err(mpsc::error::SendError(News::Run(approved))) = news.send(News::Run(approved)).await
        {
            gate.not_forwarded(approved.hold(), Withdrawal::ClientGone).await;
        }
        if is_answered {
            return;
        }
        tokio::select! {
            () = given_up.cancelled() => return,
            () = gate.task_moves() => {}
        }
    }
}

/// Lets a held call wait as a task, and answers it so.
async fn begin(
    gate: Arc<Gate>,
    caller: Caller,
    held: Box<HeldCall>,
    id: RequestId,
    news: mpsc::Sender<News>,
) {
    match gate.begin_asked_task(&caller, held).await {
        // A session that does not listen any more leaves it to be decided.
        Begun::Task { hold, answer } => drop(news.send(News::Task { id, hold, answer }).await),
        Begun::Run { answer, approved } => {
            let runs = News::TaskRuns { id, answer, approved };
            if let Err(mpsc::error::SendError(News::TaskRuns { approved, .. })) = news.send(runs).await {
                gate.not_forwarded(approved.hold(), Withdrawal::ClientGone).await;
            }
        }
        Begun::Released(released) => tell_end(gate, released, news).await,
    }
}
