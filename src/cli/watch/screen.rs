//! What the terminal UI knows, and what a key does. It asks and draws nothing by itself.

use jiff::Timestamp;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use crate::{
    cli::render,
    control::{
        api::{HoldView, Resolved},
        board::{Board, Change},
        follow::Followed,
    },
    digest::Digest,
    hold::{COMMENT_CHARS_MAX, HoldId, State, Verdict},
    sanitize, view,
};

/// The longest text to look for, in characters.
const FILTER_CHARS_MAX: usize = 60;

/// What a key asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Asked {
    Nothing,
    /// To go.
    End,
    /// One hold, whole.
    Show(HoldId),
    /// A verdict.
    Decide {
        id: HoldId,
        verdict: Verdict,
        comment: Option<String>,
        /// The digest of what was shown, if all of it was.
        shown: Option<Digest>,
    },
    /// What was.
    Past,
}

/// One call, whole, row by row.
#[derive(Debug)]
pub(super) struct Detail {
    pub(super) hold: HoldView,
    /// Its rows, for so many columns.
    pub(super) rows: Vec<String>,
    pub(super) columns: usize,
    /// The first row that is seen.
    pub(super) top: usize,
    /// Rows that fit.
    pub(super) room: usize,
    /// Whether the last row has been seen: only then it can be approved.
    pub(super) is_read: bool,
}

impl Detail {
    /// Its rows for a place of this size.
    pub(super) fn fit(&mut self, columns: usize, room: usize) {
        if self.columns != columns {
            self.rows = render::card_rows(&self.hold, columns);
            self.columns = columns;
        }
        self.room = room;
        self.top = self.top.min(self.rows.len().saturating_sub(room));
        self.is_read |= self.top + room >= self.rows.len();
    }
}

/// What is typed.
#[derive(Debug)]
pub(super) struct Typed {
    pub(super) what: What,
    pub(super) text: String,
}

/// What it is typed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    Filter,
    Comment,
    Reason,
}

/// What is seen.
#[derive(Debug, Default)]
pub(super) struct Screen {
    pub(super) board: Board,
    /// The hold that is chosen in the list.
    pub(super) chosen: Option<HoldId>,
    /// Only what says this is listed.
    pub(super) filter: String,
    pub(super) detail: Option<Detail>,
    pub(super) past: Option<Vec<HoldView>>,
    pub(super) typed: Option<Typed>,
    /// What became of the last thing that was asked, or what just happened.
    pub(super) told: String,
}

impl Screen {
    /// Takes in a piece of news.
    pub(super) fn heard(&mut self, heard: Followed) {
        for change in self.board.apply(heard) {
            let Change::Moved(hold) = change else { continue };
            let by = hold.votes.last().map(render::vote_text).unwrap_or_default();
            self.told = format!("{} {} {by}", hold.id.short(), hold.state);
            if let Some(detail) = self.detail.as_mut().filter(|detail| detail.hold.id == hold.id) {
                detail.hold.state = hold.state;
                detail.hold.votes.clone_from(&hold.votes);
                detail.columns = 0;
            }
        }
    }

    /// A hold that was asked for.
    pub(super) fn shown(&mut self, hold: Result<Box<HoldView>, String>) {
        match hold {
            Ok(hold) => {
                let detail =
                    Detail { hold: *hold, rows: Vec::new(), columns: 0, top: 0, room: 0, is_read: false };
                self.detail = Some(detail);
            }
            Err(error) => self.told = sanitize::render(&error),
        }
    }

    /// What became of a verdict.
    pub(super) fn decided(&mut self, id: HoldId, resolved: Result<Resolved, String>) {
        self.told = match resolved {
            Ok(resolved) => format!("{} is {}", id.short(), resolved.state),
            Err(error) => format!("{}: {}", id.short(), sanitize::render(&error)),
        };
        if self.detail.as_ref().is_some_and(|detail| detail.hold.id == id) {
            self.detail = None;
        }
    }

    /// What was, as it was asked for.
    pub(super) fn past(&mut self, holds: Result<Vec<HoldView>, String>) {
        match holds {
            Ok(holds) => self.past = Some(holds),
            Err(error) => self.told = sanitize::render(&error),
        }
    }

    /// What is listed, the oldest first.
    pub(super) fn listed(&self) -> Vec<&HoldView> {
        let filter = self.filter.to_lowercase();
        let says = |hold: &&HoldView| {
            let names = [&hold.server, &hold.tool, &hold.method, &hold.agent, &hold.reason];
            filter.is_empty()
                || names.iter().any(|name| name.to_lowercase().contains(&filter))
                || hold.arguments.get().to_lowercase().contains(&filter)
                || hold.id.to_string().starts_with(&filter)
        };
        self.board.holds().map(|hold| &**hold).filter(says).collect()
    }

    /// Where in the list the chosen one is: the first, where none is chosen or it has gone.
    pub(super) fn place(&self, listed: &[&HoldView]) -> usize {
        self.chosen.and_then(|id| listed.iter().position(|hold| hold.id == id)).unwrap_or(0)
    }

    /// What a key does.
    pub(super) fn key(&mut self, key: KeyEvent) -> Asked {
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return if key.code == KeyCode::Char('c') { Asked::End } else { Asked::Nothing };
        }
        if let Some(typed) = self.typed.take() {
            return self.type_key(typed, key.code);
        }
        if self.detail.is_some() {
            return self.detail_key(key.code);
        }
        if self.past.is_some() {
            if matches!(key.code, KeyCode::Esc | KeyCode::Char('q' | 'h')) {
                self.past = None;
            }
            return Asked::Nothing;
        }
        self.list_key(key.code)
    }

    fn list_key(&mut self, code: KeyCode) -> Asked {
        let listed = self.listed();
        let place = self.place(&listed);
        let at = |place: usize| listed.get(place.min(listed.len().saturating_sub(1))).map(|hold| hold.id);
        match code {
            KeyCode::Char('j') | KeyCode::Down => self.chosen = at(place + 1),
            KeyCode::Char('k') | KeyCode::Up => self.chosen = at(place.saturating_sub(1)),
            KeyCode::Char('g') | KeyCode::Home => self.chosen = at(0),
            KeyCode::Char('G') | KeyCode::End => self.chosen = at(usize::MAX),
            KeyCode::Enter => return at(place).map_or(Asked::Nothing, Asked::Show),
            KeyCode::Char('/') => self.begin(What::Filter),
            KeyCode::Char('h') => return Asked::Past,
            KeyCode::Esc => self.filter.clear(),
            KeyCode::Char('q') => return Asked::End,
            _ => {}
        }
        Asked::Nothing
    }

    fn detail_key(&mut self, code: KeyCode) -> Asked {
        let Some(detail) = &mut self.detail else { return Asked::Nothing };
        let waits = detail.hold.state == State::Held;
        match code {
            KeyCode::Char('j') | KeyCode::Down => detail.top += 1,
            KeyCode::Char('k') | KeyCode::Up => detail.top = detail.top.saturating_sub(1),
            KeyCode::Char(' ') | KeyCode::PageDown => detail.top += detail.room.max(1),
            KeyCode::PageUp => detail.top = detail.top.saturating_sub(detail.room.max(1)),
            KeyCode::Char('g') | KeyCode::Home => detail.top = 0,
            KeyCode::Char('a') if waits && detail.is_read => self.begin(What::Comment),
            KeyCode::Char('a') if waits => {
                self.told = "read it to the end first (space goes on)".to_owned();
            }
            KeyCode::Char('r') if waits => self.begin(What::Reason),
            KeyCode::Char('q') | KeyCode::Esc => self.detail = None,
            _ => {}
        }
        Asked::Nothing
    }

    fn begin(&mut self, what: What) {
        self.told.clear();
        let text = if what == What::Filter { self.filter.clone() } else { String::new() };
        self.typed = Some(Typed { what, text });
    }

    fn type_key(&mut self, mut typed: Typed, code: KeyCode) -> Asked {
        let chars_max = if typed.what == What::Filter { FILTER_CHARS_MAX } else { COMMENT_CHARS_MAX };
        match code {
            KeyCode::Esc => return Asked::Nothing,
            KeyCode::Enter => return self.typed_all(typed),
            KeyCode::Backspace => drop(typed.text.pop()),
            KeyCode::Char(c) if typed.text.chars().count() < chars_max => typed.text.push(c),
            _ => {}
        }
        if typed.what == What::Filter {
            self.filter.clone_from(&typed.text);
        }
        self.typed = Some(typed);
        Asked::Nothing
    }

    fn typed_all(&mut self, typed: Typed) -> Asked {
        let Some(Detail { hold, is_read, .. }) = &self.detail else { return Asked::Nothing };
        let (id, shown) = (hold.id, is_read.then(|| hold.shown()).flatten());
        let comment = Some(typed.text.trim().to_owned()).filter(|text| !text.is_empty());
        match typed.what {
            What::Filter => Asked::Nothing,
            What::Comment => Asked::Decide { id, verdict: Verdict::Approve, comment, shown },
            What::Reason if comment.is_none() => {
                self.told = "say why: the agent reads it".to_owned();
                self.typed = Some(typed);
                Asked::Nothing
            }
            What::Reason => Asked::Decide { id, verdict: Verdict::Reject, comment, shown },
        }
    }

    /// How long ago, and how long to go: for the list.
    pub(super) fn clocks(hold: &HoldView) -> (String, String) {
        let now = Timestamp::now();
        (view::between(hold.created_at, now), view::between(now, hold.expires_at))
    }
}

#[cfg(test)]
mod tests;
