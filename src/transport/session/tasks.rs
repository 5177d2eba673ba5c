//! Calls that wait as tasks, in a session over lines: begun, asked about, and sent once they are approved.
//!
//! A part of `session`. The answer to such a call is not passed on: it is kept until the client asks for it.

use std::sync::Arc;

use bytes::Bytes;
use tokio::{io::AsyncWrite, sync::mpsc};

use super::{Call, Interest, News, Session, keep::tell_end};
use crate::{
    gate::{Approved, Begun, Gate, HeldCall, Polled},
    hold::{HoldId, Withdrawal},
    jsonrpc::RequestId,
    mcp::TaskRequest,
    store::TaskAnswer,
};

impl<DW: AsyncWrite + Unpin, UW: AsyncWrite + Unpin> Session<DW, UW> {
    /// A held call becomes a task. Its id is in use until that is on record.
    pub(super) fn begin_task(&mut self, id: RequestId, held: Box<HeldCall>) {
        let hold = held.id();
        self.begin(
            id.clone(),
            Call::Held { interest: Interest::None, hold, token: None, told: 0, cancelled: false },
        );
        self.tasks.spawn(begin(Arc::clone(&self.gate), held, id, self.news.clone()));
    }

    /// It is one, unless its client has taken it back meanwhile.
    pub(super) fn task_begun(&mut self, id: &RequestId, hold: HoldId, answer: Bytes) {
        match self.calls.remove(id) {
            Some(Call::Held { cancelled: true, .. }) => {
                let gate = Arc::clone(&self.gate);
                self.tasks.spawn(async move { gate.take_back(hold, Withdrawal::Cancelled).await });
            }
            _ => self.downstream.send(answer),
        }
    }

    /// A question about a call that waits as a task.
    pub(super) fn ask_task(&self, id: RequestId, asked: TaskRequest) {
        let (gate, caller, news) = (Arc::clone(&self.gate), self.caller.clone(), self.news.clone());
        self.tasks.spawn(async move {
            let told = match gate.ask_task(&caller, &asked, &id).await {
                Polled::Answer(answer) => News::Told(answer),
                Polled::Run { answer, approved, .. } => News::Run(answer, approved),
            };
            if let Err(mpsc::error::SendError(News::Run(_, approved))) = news.send(told).await {
                gate.not_forwarded(approved.hold(), Withdrawal::ClientGone).await;
            }
        });
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
                    Call::Forwarded { interest, hold: Some(hold), token: None, cancelled: false, edited },
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

/// Lets a held call wait as a task, and answers it so.
async fn begin(gate: Arc<Gate>, held: Box<HeldCall>, id: RequestId, news: mpsc::Sender<News>) {
    match gate.begin_task(held).await {
        // A session that does not listen any more leaves it to be decided.
        Begun::Task { hold, answer } => drop(news.send(News::Task { id, hold, answer }).await),
        Begun::Released(released) => tell_end(gate, id, released, news).await,
    }
}
