//! `holdshort watch`: a terminal UI on all gates of this user.
//!
//! `screen` is what it knows and what a key does to that, `draw` how it looks; here is the loop that feeds both. A verdict
//! goes to the gate that has the hold, as that of `holdshort approve`. What is shown is rendered as everywhere else, and the
//! library that draws drops control characters besides.

mod draw;
mod screen;

use std::{io, io::IsTerminal, sync::Arc, time::Duration};

use crossterm::event::{self, Event, KeyEvent, KeyEventKind};
use ratatui::{DefaultTerminal, crossterm};
use tokio::sync::mpsc::{Receiver, Sender, channel};

use self::screen::{Asked, Screen};
use super::{audit::recorded, render};
use crate::{
    control::{
        api::{ControlClient, HoldView, Resolved},
        client::{AskError, GateClient},
        follow,
    },
    exit::Exit,
    hold::HoldId,
};

/// Keys and answers that may wait to be taken.
const WAITING_MAX: usize = 64;

/// How often it is drawn although nothing has happened: ages grow.
const TICK: Duration = Duration::from_secs(1);

/// How long the thread that reads keys waits before it looks whether it is still wanted.
const KEY_WAIT: Duration = Duration::from_millis(100);

/// Holds of the history that are shown.
const PAST_HOLDS: usize = 200;

/// What was asked for and has come.
enum Answer {
    Shown(Result<Box<HoldView>, String>),
    Decided(HoldId, Result<Resolved, String>),
    Past(Result<Vec<HoldView>, String>),
}

/// Not a terminal.
#[derive(Debug, thiserror::Error)]
#[error("`holdshort watch` needs a terminal; `holdshort holds --watch` prints lines")]
struct NoTerminal;

pub(super) fn watch() -> Exit {
    if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        return render::usage(&NoTerminal);
    }
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return render::failed(&error),
    };
    // It puts the terminal back also if this program panics.
    let mut terminal = match ratatui::try_init() {
        Ok(terminal) => terminal,
        Err(error) => return render::failed(&error),
    };
    let ended = runtime.block_on(run(&mut terminal));
    let restored = ratatui::try_restore();
    match ended.and(restored) {
        Ok(()) => Exit::Done,
        Err(error) => render::failed(&error),
    }
}

async fn run(terminal: &mut DefaultTerminal) -> io::Result<()> {
    let mut screen = Screen::default();
    let mut followed = follow::follow(None);
    let mut keys = read_keys()?;
    let (answer, mut answers) = channel(WAITING_MAX);
    let mut tick = tokio::time::interval(TICK);
    loop {
        terminal.draw(|frame| draw::draw(&mut screen, frame))?;
        tokio::select! {
            Some(heard) = followed.recv() => screen.heard(heard),
            Some(answer) = answers.recv() => match answer {
                Answer::Shown(hold) => screen.shown(hold),
                Answer::Decided(id, resolved) => screen.decided(id, resolved),
                Answer::Past(holds) => screen.past(holds),
            },
            key = keys.recv() => match key {
                Some(key) => match screen.key(key) {
                    Asked::Nothing => {}
                    Asked::End => return Ok(()),
                    asked => ask(asked, &screen, answer.clone()),
                },
                // The terminal is gone.
                None => return Ok(()),
            },
            _ = tick.tick() => {}
        }
    }
}

/// Reads keys in a thread, until the receiver is dropped or the terminal has gone.
fn read_keys() -> io::Result<Receiver<KeyEvent>> {
    let (sender, receiver) = channel(WAITING_MAX);
    std::thread::Builder::new().name("holdshort-keys".to_owned()).spawn(move || {
        while !sender.is_closed() {
            let read = match event::poll(KEY_WAIT) {
                Ok(true) => event::read(),
                Ok(false) => continue,
                Err(error) => Err(error),
            };
            match read {
                Ok(Event::Key(key)) if key.kind != KeyEventKind::Release => {
                    if sender.blocking_send(key).is_err() {
                        return;
                    }
                }
                Ok(_) => {}
                Err(_) => return,
            }
        }
    })?;
    Ok(receiver)
}

/// Asks a gate, or the record, without keeping the screen waiting.
fn ask(asked: Asked, screen: &Screen, answer: Sender<Answer>) {
    let gate = |id| screen.board.gate_of(id);
    match asked {
        Asked::Show(id) => {
            let gate = gate(id);
            tokio::spawn(async move {
                let shown = with(gate, async |gate| gate.rpc.show(id).await.map_err(AskError::from)).await;
                let _ = answer.send(Answer::Shown(shown.map(Box::new))).await;
            });
        }
        Asked::Decide { id, verdict, comment, shown } => {
            let gate = gate(id);
            tokio::spawn(async move {
                let decide = async |gate: Arc<GateClient>| {
                    gate.rpc.resolve(id, verdict, comment, shown).await.map_err(AskError::from)
                };
                let _ = answer.send(Answer::Decided(id, with(gate, decide).await)).await;
            });
        }
        Asked::Past => {
            tokio::spawn(async move {
                let past = recorded(None, PAST_HOLDS).await.map_err(|error| error.to_string());
                let _ = answer.send(Answer::Past(past)).await;
            });
        }
        Asked::Nothing | Asked::End => {}
    }
}

async fn with<T>(
    gate: Option<Arc<GateClient>>,
    ask: impl AsyncFnOnce(Arc<GateClient>) -> Result<T, AskError>,
) -> Result<T, String> {
    match gate {
        Some(gate) => ask(gate).await.map_err(|error| error.to_string()),
        None => Err("this call does not wait any more".to_owned()),
    }
}
