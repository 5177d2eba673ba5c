//! The task that keeps one held call of a session over lines, and what it tells the session.
//!
//! A part of `session`, with one such task for each call that waits. It never writes to a peer itself.

use std::{
    pin::{Pin, pin},
    sync::Arc,
};

use tokio::{
    io::AsyncWrite,
    sync::{mpsc, oneshot},
    time::{Instant, MissedTickBehavior},
};

use super::{Call, Interest, News, Session};
use crate::{
    gate::{CallSpan, ClientQuestion, Gate, HeldCall, Refusal, Released},
    hold::{Absence, Withdrawal},
    jsonrpc::{ErrorCode, RequestId},
    mcp,
    transport::{
        calls::ProgressToken,
        waiting::{PROGRESS_EVERY, progress_value, question},
    },
};

impl<DW: AsyncWrite + Unpin, UW: AsyncWrite + Unpin> Session<DW, UW> {
    /// A call waits for people, in a task of its own.
    pub(super) fn hold(
        &mut self,
        id: RequestId,
        mut held: Box<HeldCall>,
        (interest, span): (Interest, Option<Box<CallSpan>>),
    ) {
        if let Some(span) = &span {
            held.traced(span);
        }
        let hold = held.id();
        if held.is_task() {
            if let Some(mut span) = span {
                span.passed(None);
            }
            return self.begin_task(id, held);
        }
        let token: Option<ProgressToken> = held.progress_token().map(Into::into);
        if let Some(token) = &token {
            if self.progress.contains_key(token) {
                let text = "another call with this progress token is still without an answer";
                self.note(text);
                return self.refuse(&Refusal::invalid(Some(id), ErrorCode::INVALID_PARAMS, text));
            }
            // Nothing that the server could say of a call which it does not have is true.
            self.progress.insert(token.clone(), f64::INFINITY);
        }
        let call = Call::Held { interest, hold, token: token.clone(), told: 0, cancelled: false, span };
        self.begin(id.clone(), call);
        self.tasks.spawn(keep(Arc::clone(&self.gate), held, id, token, self.news.clone()));
    }

    /// Nobody waits any more for what is held: people can still decide on it, and the same call, made again, finds it.
    pub(super) fn detach_all(&self, why: Absence) {
        for hold in self.calls.held() {
            // One that is being decided just now ends by itself, and is then not forwarded.
            self.gate.detach(hold, why);
        }
    }

    /// The client has ended the session: nothing that is held may run any more.
    pub(super) fn withdraw_all(&self) {
        for hold in self.calls.held() {
            // As above.
            self.gate.withdraw(hold, Withdrawal::ClientGone);
        }
    }
}

/// Keeps one held call until it ends, with progress for a client that asked for it.
pub(super) fn keep(
    gate: Arc<Gate>,
    mut held: Box<HeldCall>,
    id: RequestId,
    token: Option<ProgressToken>,
    news: mpsc::Sender<News>,
) -> impl Future<Output = ()> + Send {
    let telling = Telling::new(&mut held, id, token);
    async move {
        let released = {
            // Once, and passed on by reference: futures that are moved into others are kept twice.
            let holding = pin!(gate.hold(held));
            match telling {
                None => holding.await,
                Some(telling) => Box::pin(keep_telling(holding, telling, &news)).await,
            }
        };
        // What comes after the wait has memory of its own: thousands of calls wait at the same time, and few end.
        Box::pin(tell_end(gate, released, news)).await;
    }
}

/// What is told while a call waits.
struct Telling {
    id: RequestId,
    /// Hears of the question to the client's user.
    asked: Option<oneshot::Receiver<ClientQuestion>>,
    /// The token and the words of its progress.
    progress: Option<(ProgressToken, String)>,
}

impl Telling {
    fn new(held: &mut HeldCall, id: RequestId, token: Option<ProgressToken>) -> Option<Box<Self>> {
        let asked = held.asks();
        let progress = token.map(|token| (token, held.message()));
        (progress.is_some() || asked.is_some()).then(|| Box::new(Self { id, asked, progress }))
    }
}

/// Tells the session how a held call has ended.
pub(super) async fn tell_end(gate: Arc<Gate>, mut released: Released, news: mpsc::Sender<News>) {
    let mut unrecorded = None;
    if let Released::Withdrawn { refusal, end } = released {
        released = Released::Refuse(refusal);
        unrecorded = Some(end);
    }
    if let Err(mpsc::error::SendError(News::Ended(Released::Resume(approved)))) =
        news.send(News::Ended(released)).await
    {
        gate.not_forwarded(approved.hold(), Withdrawal::ClientGone).await;
    }
    if let Some(end) = unrecorded {
        gate.record_withdrawal(end).await;
    }
}

/// Waits for the end of `holding`, and lets the session tell a client that wants to hear of the wait, or ask its user.
async fn keep_telling(
    mut holding: Pin<&mut impl Future<Output = Released>>,
    mut telling: Box<Telling>,
    news: &mpsc::Sender<News>,
) -> Released {
    let mut ticks = tokio::time::interval_at(Instant::now() + PROGRESS_EVERY, PROGRESS_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut told: u32 = 0;
    loop {
        let news_of_it = tokio::select! {
            biased;
            released = &mut holding => return released,
            question = question(&mut telling.asked) => News::Question { id: telling.id.clone(), question },
            _ = ticks.tick() => {
                let Some((token, message)) = &telling.progress else { continue };
                told = told.saturating_add(1);
                let line = mcp::progress_notification(token, &format!("{:.6}", progress_value(told)), message);
                News::Waits { id: telling.id.clone(), told, line }
            }
        };
        // A session that does not listen any more withdraws the hold.
        let _ = news.send(news_of_it).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a call keeps while it waits, without what is on the heap, in bytes. A task of it takes 512, and the next size is 640.
    const WAIT_BYTES_MAX: usize = 400;

    #[test]
    fn thousands_can_wait_because_each_keeps_little() {
        fn size<A, B, C, D, E, F: Future>(_: impl Fn(A, B, C, D, E) -> F) -> usize {
            size_of::<F>()
        }
        assert!(size(keep) <= WAIT_BYTES_MAX, "{} bytes", size(keep));
    }
}
