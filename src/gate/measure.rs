//! What the gate counts and tells of its own work.
//!
//! A part of `gate`, called by all of it. Nothing here decides, and nothing waits for who listens.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;

use super::{Caller, Gate, HeldCall, News, Released, Screened, Why};
use crate::{
    hold::{Cause, NewHold, State, Vote},
    meter::{Ended, Judged, Meter},
    sanitize,
};

/// What waits in this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// How many calls.
    pub holds: usize,
    /// Since when the oldest does.
    pub oldest: Option<Timestamp>,
}

impl Gate {
    /// What this process counts of its work.
    pub fn meter(&self) -> &Arc<Meter> {
        self.store.meter()
    }

    /// What waits now, with a caller. Goes through all of it: for somebody who looks now and then.
    pub fn waiting(&self) -> Waiting {
        Waiting { holds: self.table.len(), oldest: self.table.oldest() }
    }

    /// `screened`, counted.
    pub(super) fn counted(&self, caller: &Caller, screened: Screened) -> Screened {
        let judged = match &screened {
            Screened::Pass(_) => Judged::Allow,
            Screened::Hold(_) => Judged::Hold,
            Screened::Refuse(refusal) if refusal.why == Why::Denied => Judged::Deny,
            Screened::Refuse(_) => Judged::Refuse,
        };
        self.meter().judged(&caller.server, judged);
        screened
    }

    /// Tells whoever watches; nobody need.
    pub(super) fn announce(&self, news: News) {
        if let News::Now { hold, state, .. } = &news {
            tracing::info!(hold = %hold.id, tool = %sanitize::render(&hold.tool), %state, "hold ended");
        } else if let News::Held(hold) = &news {
            tracing::info!(hold = %hold.id, tool = %sanitize::render(&hold.tool), "call held");
        }
        if self.news.receiver_count() > 0 && self.store.heard().is_some() {
            self.told_of.add(&news);
        }
        let _ = self.news.send(news);
    }

    /// Counts and tells that a hold has come to `state`: as far as people are concerned, it is over.
    pub(super) fn came_to(&self, hold: Arc<NewHold>, state: State, vote: Option<Vote>) {
        self.count_end(&hold, state);
        self.announce(News::Now { hold, state, vote });
    }

    /// Counts that a hold has come to `state`, if that is an end to its wait.
    pub(super) fn count_end(&self, hold: &NewHold, state: State) {
        let ended = match state {
            State::Granted | State::Forwarding => Ended::Approved,
            State::Rejected => Ended::Rejected,
            State::Expired => Ended::Expired,
            State::Withdrawn => Ended::Withdrawn,
            State::Unavailable => Ended::Unavailable,
            State::Held | State::Answered | State::Unknown | State::Lapsed | State::Ran | State::NotRun => {
                return;
            }
        };
        // A clock that was set back makes no time negative.
        let waited = Duration::try_from(Timestamp::now().duration_since(hold.created_at)).unwrap_or_default();
        self.meter().ended(&hold.server, ended, Some(waited));
    }

    /// A call that cannot be held.
    pub(super) fn unavailable(&self, held: HeldCall, why: &str) -> Released {
        self.count_end(&held.hold, State::Unavailable);
        let refusal = held.refused.clone().ended(held.hold.id, Cause::Unavailable, why);
        self.unless_taken_back(&held, refusal)
    }
}
