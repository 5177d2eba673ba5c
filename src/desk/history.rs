//! What the record says of earlier holds: the page, the search, and what can be taken away as a file.
//!
//! Called by the routes and by REST. Reads the record of this desk in pages, the newest first; it changes nothing.

use std::sync::Arc;

use askama::Template;
use axum::{
    body::{Body, Bytes},
    extract::{Query, State as Extracted, rejection::QueryRejection},
    http::header,
    response::{IntoResponse, Response},
};
use futures_util::stream;
use jiff::Timestamp;
use serde::Deserialize;

use super::{
    State,
    assets::{Assets, assets},
    card::Card,
    guard::SignedIn,
    pages::{self, PageProblem},
    problem::{Kind, Problem},
    verdict::unavailable,
};
use crate::{
    control::api::HoldView,
    hold::{HoldId, State as HoldState},
    store::{HistoryFilter, Store},
};

/// Holds on one page.
pub(super) const PAGE_HOLDS: usize = 50;

/// Holds that are read from the record at once: each brings its frame along.
const READ_HOLDS: usize = 50;

/// Holds that one search looks through; then it says where it stopped.
const SEARCH_HOLDS_MAX: usize = 5_000;

/// Holds of the same tool that are shown beside one.
const SIMILAR_HOLDS: usize = 5;

/// Lines of the audit log that are read at once.
const LINES_AT_ONCE: usize = 1000;

/// What can be asked of the history.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Asked {
    /// Only holds from before this one.
    pub(super) before: Option<HoldId>,
    /// Only holds in this state.
    #[serde(default)]
    pub(super) state: String,
    /// Only holds of this server.
    #[serde(default)]
    pub(super) server: String,
    /// Only holds of this tool.
    #[serde(default)]
    pub(super) tool: String,
    /// Only holds that say this somewhere.
    #[serde(default)]
    pub(super) q: String,
}

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) holds: Vec<HoldView>,
    /// From where to go on, if there may be more.
    pub(super) next: Option<HoldId>,
}

impl Asked {
    fn filter(&self, before: Option<HoldId>, limit: usize) -> Result<HistoryFilter, Problem> {
        [&self.q, &self.server, &self.tool].into_iter().try_for_each(|text| pages::check_search(text))?;
        let named = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
        let states = match &*self.state {
            "" => Vec::new(),
            word => match HoldState::from_word(word) {
                Some(state) => vec![state],
                None => return Err(Problem::new(Kind::Invalid, "there is no such state")),
            },
        };
        Ok(HistoryFilter { limit, before, states, server: named(&self.server), tool: named(&self.tool) })
    }
}

/// The newest holds of the record that are as asked, at most `limit`.
pub(super) async fn find(store: &Store, asked: &Asked, limit: usize) -> Result<Found, Problem> {
    let text = asked.q.trim().to_lowercase();
    let mut found = Found { next: asked.before, ..Found::default() };
    let mut looked_at = 0;
    loop {
        let filter = asked.filter(found.next, READ_HOLDS)?;
        let records = store.history(filter).await.map_err(|error| unavailable(&error))?;
        let is_last = records.len() < READ_HOLDS;
        for listed in &records {
            let hold = HoldView::listed(listed);
            found.next = Some(hold.id);
            looked_at += 1;
            if text.is_empty() || says(&hold, &text) {
                found.holds.push(hold);
            }
            if found.holds.len() == limit || looked_at == SEARCH_HOLDS_MAX {
                return Ok(found);
            }
        }
        if is_last {
            return Ok(Found { next: None, ..found });
        }
    }
}

/// Whether anything of a hold says `text`, which is in lower case.
pub(super) fn says(hold: &HoldView, text: &str) -> bool {
    let has = |part: &str| part.to_lowercase().contains(text);
    let id = hold.id.to_string();
    let names = [&id, &hold.server, &hold.tool, &hold.method, &hold.agent, &hold.principal, &hold.reason];
    names.into_iter().chain(&hold.rules).any(|part| has(part))
        || has(hold.arguments.get())
        || hold.frame_sha256.starts_with(text)
        || hold.note.as_deref().is_some_and(has)
        || hold.votes.iter().any(|vote| has(&vote.by) || vote.comment.as_deref().is_some_and(has))
}

/// What became of the last calls of the same tool.
pub(super) async fn similar(state: &State, hold: &HoldView) -> Result<Vec<HoldView>, Problem> {
    if hold.tool.is_empty() {
        return Ok(Vec::new());
    }
    let asked = Asked { server: hold.server.clone(), tool: hold.tool.clone(), ..Asked::default() };
    let mut found = find(&state.store, &asked, SIMILAR_HOLDS + 1).await?.holds;
    found.retain(|other| other.id != hold.id);
    found.truncate(SIMILAR_HOLDS);
    Ok(found)
}

#[derive(Template)]
#[template(path = "history.html")]
struct HistoryPage {
    assets: &'static Assets,
    csrf: String,
    cards: Vec<Card>,
    asked: Asked,
    states: [&'static str; HoldState::ALL.len()],
    next: Option<String>,
}

/// The page of the history.
pub(super) async fn page(
    Extracted(state): Extracted<Arc<State>>,
    SignedIn(session): SignedIn,
    query: Result<Query<Asked>, QueryRejection>,
) -> Result<Response, PageProblem> {
    let Query(asked) = query.map_err(|error| Problem::new(Kind::Invalid, error.body_text()))?;
    let found = find(&state.store, &asked, PAGE_HOLDS).await?;
    let now = Timestamp::now();
    let next = found.next.map(|id| {
        let Asked { state, server, tool, q, .. } = &asked;
        let id = id.to_string();
        pages::link(
            "/history",
            &[("before", &id), ("q", q), ("state", state), ("server", server), ("tool", tool)],
        )
    });
    pages::page(&HistoryPage {
        assets: assets(),
        csrf: session.csrf,
        cards: found.holds.iter().map(|hold| Card::brief(hold, now)).collect(),
        asked,
        states: HoldState::ALL.map(HoldState::word),
        next,
    })
}

/// What is to be taken away, and how.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Export {
    /// `jsonl`, `csv` or `audit`.
    #[serde(default)]
    format: String,
    #[serde(flatten)]
    asked: Asked,
}

/// The history as a file: all that is as asked.
pub(super) async fn export(
    Extracted(state): Extracted<Arc<State>>,
    SignedIn(_): SignedIn,
    query: Result<Query<Export>, QueryRejection>,
) -> Result<Response, PageProblem> {
    let Query(export) = query.map_err(|error| Problem::new(Kind::Invalid, error.body_text()))?;
    // Told now, not in the middle of a file.
    export.asked.filter(None, 1)?;
    let (name, content_type) = match &*export.format {
        "csv" => ("holds.csv", "text/csv; charset=utf-8"),
        "jsonl" => ("holds.jsonl", "application/jsonl"),
        "audit" => return Ok(audit(&state, 0)),
        _ => return Err(Problem::new(Kind::Invalid, "the format is jsonl, csv or audit").into()),
    };
    let is_csv = name.ends_with(".csv");
    let pages = Pages { store: state.store.clone(), asked: export.asked, is_csv, at: At::Begin };
    Ok(attachment(name, content_type, Body::from_stream(stream::unfold(pages, Pages::next))))
}

fn attachment(name: &str, content_type: &'static str, body: Body) -> Response {
    let disposition = format!("attachment; filename=\"{name}\"");
    ([(header::CONTENT_TYPE, content_type.to_owned()), (header::CONTENT_DISPOSITION, disposition)], body)
        .into_response()
}

/// The audit log as it is stored, from behind number `after_seq`.
pub(super) fn audit(state: &State, after_seq: u64) -> Response {
    let read = |(store, after): (Store, u64)| async move {
        let lines = match store.audit_events(after, LINES_AT_ONCE).await {
            Ok(lines) => lines,
            Err(error) => return Some((Err(broken_off(&error)), (store, after))),
        };
        let last = lines.last()?.seq;
        // The bytes that are hashed, and a line's end.
        let text: String = lines.iter().flat_map(|line| [&*line.line, "\n"]).collect();
        Some((Ok(Bytes::from(text)), (store, last)))
    };
    let body = Body::from_stream(stream::unfold((state.store.clone(), after_seq), read));
    attachment("audit.jsonl", "application/jsonl", body)
}

/// The end of a file that is not its end: the connection breaks, and whoever reads it knows.
fn broken_off(error: &crate::store::StoreError) -> std::io::Error {
    let _ = unavailable(error);
    std::io::Error::other("the record cannot be read")
}

struct Pages {
    store: Store,
    asked: Asked,
    is_csv: bool,
    at: At,
}

enum At {
    Begin,
    Before(HoldId),
    End,
}

impl Pages {
    async fn next(mut self) -> Option<(Result<Bytes, std::io::Error>, Self)> {
        let mut text = String::new();
        match self.at {
            At::Begin if self.is_csv => text.push_str(&csv_row(CSV_HEAD.map(str::to_owned))),
            At::Begin => {}
            At::Before(id) => self.asked.before = Some(id),
            At::End => return None,
        }
        let found = match find(&self.store, &self.asked, PAGE_HOLDS).await {
            Ok(found) => found,
            Err(_) => return Some((Err(std::io::Error::other("the record cannot be read")), self)),
        };
        for hold in &found.holds {
            if self.is_csv {
                text.push_str(&csv_row(csv_cells(hold)));
            } else if let Ok(line) = serde_json::to_string(hold) {
                text.push_str(&line);
                text.push('\n');
            }
        }
        self.at = found.next.map_or(At::End, At::Before);
        Some((Ok(Bytes::from(text)), self))
    }
}

const CSV_HEAD: [&str; 14] = [
    "id",
    "held_at",
    "server",
    "tool",
    "agent",
    "principal",
    "state",
    "decided_by",
    "decided_at",
    "comment",
    "reason",
    "rules",
    "arguments",
    "frame_sha256",
];

fn csv_cells(hold: &HoldView) -> [String; 14] {
    let vote = hold.votes.last();
    [
        hold.id.to_string(),
        hold.created_at.to_string(),
        hold.server.clone(),
        if hold.tool.is_empty() { hold.method.clone() } else { hold.tool.clone() },
        hold.agent.clone(),
        hold.principal.clone(),
        hold.state.to_string(),
        vote.map(|vote| vote.by.clone()).unwrap_or_default(),
        vote.map(|vote| vote.at).or(hold.ended_at).map(|at| at.to_string()).unwrap_or_default(),
        vote.and_then(|vote| vote.comment.clone()).or_else(|| hold.note.clone()).unwrap_or_default(),
        hold.reason.clone(),
        hold.rules.join(" "),
        hold.arguments.get().to_owned(),
        hold.frame_sha256.clone(),
    ]
}

/// A row of RFC 4180. A cell that a spreadsheet would take for a formula begins with an apostrophe.
fn csv_row(cells: [String; 14]) -> String {
    let cells = cells.map(|cell| {
        let guard = if cell.starts_with(['=', '+', '-', '@', '\t', '\r']) { "'" } else { "" };
        format!("\"{guard}{}\"", cell.replace('"', "\"\""))
    });
    cells.join(",") + "\r\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_cell_is_a_formula_and_none_leaves_its_place() {
        let mut cells = CSV_HEAD.map(str::to_owned);
        cells[2] = "=HYPERLINK(\"x\")".to_owned();
        cells[3] = "a\",\"b\r\nc".to_owned();
        let row = csv_row(cells);
        assert!(row.contains(",\"'=HYPERLINK(\"\"x\"\")\",\"a\"\",\"\"b\r\nc\","), "{row}");
    }
}
