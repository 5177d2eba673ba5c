//! What waits at all gates, kept current in the background, and the news of it for every open page.
//!
//! Used by everything that shows. What pages and REST are sent is written once for all of them.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use tokio::sync::{Notify, broadcast};

use super::pages::row_html;
use crate::{
    control::{
        api::{ControlClient, HoldView},
        board::{Board, Change},
        client::GateClient,
        follow::{self, Followed},
    },
    hold::HoldId,
};

/// News that one slow reader may be behind; then it is told that some were missed.
const NEWS_KEPT_MAX: usize = 1024;

/// The longest frame that a row of a list shows whole, in bytes; for a longer one there is the hold's own page.
const ROW_FRAME_BYTES_MAX: usize = 8 << 10;

/// How long a gate may take to show a hold for a list.
const SHOW: Duration = Duration::from_secs(2);

/// A piece of news, ready to be sent.
#[derive(Clone, Debug)]
pub(super) struct News {
    /// `held`, `ended` or `missed`, as on the control socket.
    pub(super) event: &'static str,
    /// The hold; none if the whole list should be read again.
    pub(super) hold: Option<Arc<HoldView>>,
    /// Its row on the page of what waits.
    pub(super) html: Arc<str>,
    /// How many wait now.
    pub(super) waiting: usize,
}

/// What waits, and where it is told.
#[derive(Debug)]
pub(super) struct Hub {
    board: Arc<Mutex<Board>>,
    news: broadcast::Sender<Arc<News>>,
    heard: Arc<Notify>,
}

impl Hub {
    /// Begins to follow the gates; ends with the runtime.
    pub(super) fn start() -> Self {
        let board = Arc::new(Mutex::new(Board::default()));
        let (news, _) = broadcast::channel(NEWS_KEPT_MAX);
        let heard = Arc::new(Notify::new());
        let hub = Self { board: Arc::clone(&board), news: news.clone(), heard: Arc::clone(&heard) };
        tokio::spawn(async move {
            let mut news_of_gates = follow::follow(None);
            while let Some(followed) = news_of_gates.recv().await {
                if let Followed::Silent(silent) = &followed {
                    let (pid, why) = (silent.registered.pid, &silent.why);
                    tracing::warn!(pid, %why, "a gate lives and does not answer: what waits there is not shown");
                }
                let (changes, waiting) = {
                    let mut board = lock(&board);
                    (board.apply(followed), board.len())
                };
                heard.notify_one();
                for change in changes {
                    // Nobody may be looking: then nobody is told.
                    if news.receiver_count() > 0 {
                        let _ = news.send(Arc::new(told(&board, change, waiting).await));
                    }
                }
            }
        });
        hub
    }

    /// The board, for a moment.
    pub(super) fn board(&self) -> MutexGuard<'_, Board> {
        lock(&self.board)
    }

    /// The hold `id` and its gate, if it waits.
    pub(super) fn waiting(&self, id: HoldId) -> Option<(Arc<HoldView>, Arc<GateClient>)> {
        let board = self.board();
        Some((Arc::clone(board.hold(id)?), board.gate_of(id)?))
    }

    /// The same hold with its frame and its warnings, if it is short enough for a row of a list.
    pub(super) async fn with_frame(&self, hold: Arc<HoldView>) -> Arc<HoldView> {
        with_frame(&self.board, hold).await
    }

    /// The gates that are there.
    pub(super) fn gates(&self) -> Vec<Arc<GateClient>> {
        self.board().gates().map(Arc::clone).collect()
    }

    /// Tells whoever waits for it, one at a time, that something has changed.
    pub(super) fn heard(&self) -> Arc<Notify> {
        Arc::clone(&self.heard)
    }

    /// Everything that changes from now on.
    pub(super) fn watch(&self) -> broadcast::Receiver<Arc<News>> {
        self.news.subscribe()
    }
}

fn lock(board: &Mutex<Board>) -> MutexGuard<'_, Board> {
    board.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn told(board: &Mutex<Board>, change: Change, waiting: usize) -> News {
    let (event, hold) = match change {
        Change::Waits(hold) => ("held", Some(with_frame(board, hold).await)),
        Change::Moved(hold) => ("ended", Some(hold)),
        Change::Anew => ("missed", None),
    };
    let html = hold.as_deref().map(|hold| row_html(hold, Timestamp::now())).unwrap_or_default();
    News { event, hold, html: html.into(), waiting }
}

/// The hold with its frame and its warnings, if it is short. A gate that does not answer leaves it as it is.
async fn with_frame(board: &Mutex<Board>, hold: Arc<HoldView>) -> Arc<HoldView> {
    if hold.frame_bytes > ROW_FRAME_BYTES_MAX {
        return hold;
    }
    let gate = lock(board).gate_of(hold.id);
    let Some(gate) = gate else { return hold };
    match tokio::time::timeout(SHOW, gate.rpc.show(hold.id)).await {
        Ok(Ok(whole)) => Arc::new(whole),
        _ => hold,
    }
}
