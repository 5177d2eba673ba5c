//! The task that keeps one held call of a session over lines, and what it tells the session.
//!
//! A part of `session`, with one such task for each call that waits. It never writes to a peer itself.

use std::sync::Arc;

use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior},
};

use super::News;
use crate::{
    gate::{Gate, HeldCall, Released},
    hold::Withdrawal,
    jsonrpc::RequestId,
    mcp,
    transport::{
        calls::ProgressToken,
        waiting::{PROGRESS_EVERY, progress_value},
    },
};

/// Keeps one held call until it ends, with progress for a client that asked for it.
pub(super) async fn keep(
    gate: Arc<Gate>,
    held: Box<HeldCall>,
    id: RequestId,
    token: Option<ProgressToken>,
    news: mpsc::Sender<News>,
) {
    let released = match token {
        None => gate.hold(held).await,
        Some(token) => Box::pin(keep_with_progress(&gate, held, &id, &token, &news)).await,
    };
    // What comes after the wait has memory of its own: thousands of calls wait at the same time, and few end.
    Box::pin(tell_end(gate, id, released, news)).await;
}

/// Tells the session how a held call has ended.
pub(super) async fn tell_end(
    gate: Arc<Gate>,
    id: RequestId,
    mut released: Released,
    news: mpsc::Sender<News>,
) {
    let mut unrecorded = None;
    if let Released::Withdrawn { refusal, end } = released {
        released = Released::Refuse(refusal);
        unrecorded = Some(end);
    }
    if let Err(mpsc::error::SendError(News::Ended { released: Released::Resume(approved), .. })) =
        news.send(News::Ended { id, released }).await
    {
        gate.not_forwarded(approved.hold(), Withdrawal::ClientGone).await;
    }
    if let Some(end) = unrecorded {
        gate.record_withdrawal(end).await;
    }
}

async fn keep_with_progress(
    gate: &Gate,
    held: Box<HeldCall>,
    id: &RequestId,
    token: &str,
    news: &mpsc::Sender<News>,
) -> Released {
    let message = held.message();
    let mut holding = Box::pin(gate.hold(held));
    let mut ticks = tokio::time::interval_at(Instant::now() + PROGRESS_EVERY, PROGRESS_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut told: u32 = 0;
    loop {
        tokio::select! {
            biased;
            released = &mut holding => return released,
            _ = ticks.tick() => {
                told = told.saturating_add(1);
                let line = mcp::progress_notification(token, &format!("{:.6}", progress_value(told)), &message);
                // A session that does not listen any more withdraws the hold.
                let _ = news.send(News::Waits { id: id.clone(), told, line }).await;
            }
        }
    }
}
