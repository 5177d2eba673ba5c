//! A hold as the templates say it: every text rendered, every time in words, and whether the whole call is on the page.
//!
//! Made by the pages. What is not wholly shown cannot be approved there: a card knows which it is.

use jiff::Timestamp;

use crate::{
    control::api::HoldView,
    hold::{State as HoldState, Verdict, Vote},
    view::{
        between,
        markup::{self, Row},
    },
};

/// Rows of arguments that a row of the list shows; with more, the call is decided on its own page.
const ROW_LINES_MAX: usize = 14;

/// Characters of arguments that a row of the list shows.
const ROW_CHARS_MAX: usize = 1200;

/// The longest frame that a page shows, in bytes. A longer call can be decided only where it can be shown.
pub(super) const PAGE_FRAME_BYTES_MAX: usize = 1 << 20;

/// What a template says of one hold. Every text in it is rendered.
#[derive(Debug)]
pub(super) struct Card {
    pub(super) id: String,
    /// Where its forms go.
    pub(super) at: String,
    pub(super) short: String,
    pub(super) state: &'static str,
    pub(super) waits: bool,
    pub(super) server: Row,
    pub(super) tool: Row,
    pub(super) agent: Row,
    pub(super) principal: Row,
    pub(super) reason: Row,
    pub(super) rules: Row,
    /// Who has to approve, of what more than one person is needed for.
    pub(super) requirements: Vec<Row>,
    pub(super) notes: Vec<Row>,
    pub(super) warnings: Vec<Row>,
    pub(super) votes: Vec<Said>,
    pub(super) note: Option<Row>,
    pub(super) held_at: String,
    pub(super) age: String,
    pub(super) expires_at: String,
    pub(super) left: String,
    pub(super) ended_at: Option<String>,
    pub(super) after: Option<String>,
    pub(super) lapses_at: Option<String>,
    pub(super) attached: bool,
    pub(super) arguments: Vec<Row>,
    /// Members of the call that are not arguments.
    pub(super) besides: Vec<Row>,
    pub(super) raw: Row,
    pub(super) has_secrets: bool,
    pub(super) frame_sha256: String,
    /// The digest of what is shown of the call; empty unless that is all of it.
    pub(super) shown: String,
    pub(super) frame_bytes: usize,
    /// Whether all of the call stands on the page, so that it can be decided by it.
    pub(super) is_whole: bool,
}

/// A verdict, as a template says it.
#[derive(Debug)]
pub(super) struct Said {
    pub(super) is_approval: bool,
    pub(super) by: Row,
    /// The person behind it, as the policy names them.
    pub(super) person: Option<Row>,
    pub(super) comment: Option<Row>,
    pub(super) at: String,
    /// How far it can be trusted: `L0, advisory`.
    pub(super) trusted: Option<String>,
    pub(super) is_signed: bool,
}

impl Said {
    fn new(vote: &Vote) -> Self {
        Self {
            is_approval: vote.verdict == Verdict::Approve,
            by: markup::text(&vote.by),
            person: vote.person.as_deref().map(markup::text),
            comment: vote.comment.as_deref().map(markup::text),
            at: vote.at.to_string(),
            trusted: vote.assurance.map(|level| format!("{level}, {}", level.name())),
            is_signed: vote.proof.is_some(),
        }
    }
}

impl Card {
    /// What is said of a hold in any case; nothing of its frame.
    pub(super) fn brief(hold: &HoldView, now: Timestamp) -> Self {
        let tool = if hold.tool.is_empty() { &hold.method } else { &hold.tool };
        let decided_at = hold.votes.last().map(|vote| vote.at).or(hold.ended_at);
        Self {
            id: hold.id.to_string(),
            at: format!("/holds/{}", hold.id),
            short: hold.id.short(),
            state: hold.state.word(),
            waits: hold.state == HoldState::Held,
            server: markup::text(&hold.server),
            tool: markup::text(tool),
            agent: markup::text(&hold.agent),
            principal: markup::text(&hold.principal),
            reason: markup::text(&hold.reason),
            rules: markup::text(&hold.rules.join(", ")),
            requirements: hold.requirements.iter().map(|text| markup::text(text)).collect(),
            notes: hold.notes.iter().cloned().chain(edited(hold)).map(|note| markup::text(&note)).collect(),
            warnings: hold.warnings.iter().map(|warning| markup::text(warning)).collect(),
            votes: hold.votes.iter().map(Said::new).collect(),
            note: hold.note.as_deref().map(markup::text),
            held_at: hold.created_at.to_string(),
            age: between(hold.created_at, now),
            expires_at: hold.expires_at.to_string(),
            left: between(now, hold.expires_at),
            ended_at: hold.ended_at.map(|at| at.to_string()),
            after: decided_at.map(|at| between(hold.created_at, at)),
            lapses_at: hold.lapses_at.map(|at| at.to_string()),
            attached: hold.attached,
            arguments: Vec::new(),
            besides: Vec::new(),
            raw: Row::new(),
            has_secrets: false,
            frame_sha256: hold.frame_sha256.clone(),
            shown: String::new(),
            frame_bytes: hold.frame_bytes,
            is_whole: false,
        }
    }

    /// All of a hold whose frame is known and not longer than a page takes.
    pub(super) fn new(hold: &HoldView, now: Timestamp) -> Self {
        let mut card = Self::brief(hold, now);
        let Some(frame) = hold.frame.as_deref().filter(|frame| frame.len() <= PAGE_FRAME_BYTES_MAX) else {
            return card;
        };
        card.arguments = markup::json_rows(hold.arguments.get());
        card.besides = markup::besides_rows(frame);
        card.raw = markup::text(frame);
        card.has_secrets = card.arguments.iter().chain(&card.besides).flatten().any(markup::Piece::is_secret);
        card.shown = hold.shown().map(|digest| digest.to_string()).unwrap_or_default();
        card.is_whole = true;
        card
    }

    /// The same for a row of a list: what is long or odd is not decided in passing.
    pub(super) fn row(hold: &HoldView, now: Timestamp) -> Self {
        let mut card = Self::new(hold, now);
        let rows = || card.arguments.iter().chain(&card.besides);
        let chars: usize = rows().flatten().map(markup::Piece::chars).sum();
        card.is_whole = card.is_whole
            && card.warnings.is_empty()
            && rows().count() <= ROW_LINES_MAX
            && chars <= ROW_CHARS_MAX;
        if !card.is_whole {
            card.arguments.truncate(ROW_LINES_MAX / 2);
            let mut left = ROW_CHARS_MAX / 2;
            card.arguments.iter_mut().flatten().for_each(|piece| {
                let cut: String = piece.text.chars().take(left).collect();
                left -= cut.chars().count();
                piece.text = cut;
            });
            card.arguments.retain(|row| row.iter().any(|piece| !piece.text.is_empty()));
            card.besides.clear();
        }
        card
    }
}

/// That the approver has changed the call, and with what it ran.
fn edited(hold: &HoldView) -> Option<String> {
    let edit = hold.edit.as_ref()?;
    Some(format!("the approver has changed the arguments, and it ran with these: {}", edit.arguments.get()))
}
