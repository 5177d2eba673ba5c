//! Who is there: the gates, the agents that have asked for something, the browsers and the tokens of this desk.
//!
//! Called by the routes. What agents say of themselves is their own word, and shown as such.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use askama::Template;
use axum::{extract::State as Extracted, response::Response};
use futures_util::future::join_all;
use jiff::Timestamp;

use super::{
    State,
    assets::{Assets, assets},
    guard::SignedIn,
    pages::{self, PageProblem},
    problem::{Kind, Problem},
    verdict::unavailable,
};
use crate::{
    control::api::{ControlClient, GateInfo, HoldView},
    store::HistoryFilter,
    view::{
        between,
        markup::{self, Row},
    },
};

/// How long a gate may take to say who it is.
pub(super) const INFO: Duration = Duration::from_secs(2);

/// Holds of the record that agents are looked for in, the newest first.
const LOOKED_AT: usize = 200;

/// Agents on the page.
const AGENTS_MAX: usize = 100;

/// A gate, as the page says it.
struct GateCard {
    servers: Row,
    info: GateInfo,
    level: String,
    store: Row,
}

/// An agent, as the page says it.
struct AgentCard {
    agent: Row,
    principal: Row,
    server: Row,
    waiting: usize,
    last: String,
}

/// A token, as the page says it.
struct TokenCard {
    name: String,
    scopes: String,
    expires_at: String,
}

/// A browser that has signed in.
struct BrowserCard {
    is_this: bool,
    began: String,
    used: String,
}

#[derive(Template)]
#[template(path = "gates.html")]
struct SessionsPage {
    assets: &'static Assets,
    csrf: String,
    gates: Vec<GateCard>,
    agents: Vec<AgentCard>,
    browsers: Vec<BrowserCard>,
    store: Row,
    origin: String,
    tokens: Vec<TokenCard>,
}

/// The page.
pub(super) async fn page(
    Extracted(state): Extracted<Arc<State>>,
    SignedIn(session): SignedIn,
) -> Result<Response, PageProblem> {
    let gates = gate_infos(&state).await.into_iter().map(|info| GateCard {
        servers: markup::text(&info.servers.join(", ")),
        level: format!("{}, {}", info.assurance, info.assurance.name()),
        store: markup::text(&info.store),
        info,
    });
    let tokens = state.keys.tokens().map_err(|error| {
        tracing::warn!(error = &error as &dyn std::error::Error, "the desk's keys cannot be read");
        Problem::new(Kind::Unavailable, "the desk's keys cannot be read")
    })?;
    let tokens = tokens.into_iter().map(|key| TokenCard {
        name: key.name.unwrap_or_default(),
        scopes: key.scopes.iter().map(|scope| scope.word()).collect::<Vec<_>>().join(", "),
        expires_at: key.expires_at.to_string(),
    });
    let browsers = state.sessions.list().into_iter().map(|(id, began, used)| BrowserCard {
        is_this: id == session.id,
        began: ago(began),
        used: ago(used),
    });
    pages::page(&SessionsPage {
        assets: assets(),
        csrf: session.csrf,
        gates: gates.collect(),
        agents: agents(&state).await?,
        browsers: browsers.collect(),
        store: markup::text(&state.location.to_string()),
        origin: state.address.origin.clone(),
        tokens: tokens.collect(),
    })
}

fn ago(time: Duration) -> String {
    let end = i64::try_from(time.as_secs()).ok().and_then(|seconds| Timestamp::from_second(seconds).ok());
    format!("{} ago", between(Timestamp::UNIX_EPOCH, end.unwrap_or(Timestamp::UNIX_EPOCH)))
}

/// Whoever has calls that wait, or had some held lately: those with the newest first.
async fn agents(state: &State) -> Result<Vec<AgentCard>, Problem> {
    let mut known: BTreeMap<[String; 3], (usize, Timestamp)> = BTreeMap::new();
    let mut count = |hold: &HoldView, waits: bool| {
        let key = [hold.agent.clone(), hold.principal.clone(), hold.server.clone()];
        let (waiting, last) = known.entry(key).or_insert((0, hold.created_at));
        *waiting += usize::from(waits);
        *last = hold.created_at.max(*last);
    };
    state.hub.board().holds().for_each(|hold| count(hold, true));
    if state.location.may_exist() {
        let filter = HistoryFilter { limit: LOOKED_AT, ..HistoryFilter::default() };
        let records = state.store.history(filter).await.map_err(|error| unavailable(&error))?;
        records.iter().for_each(|listed| count(&HoldView::listed(listed), false));
    }
    let mut agents: Vec<_> = known.into_iter().collect();
    agents.sort_by_key(|(_, (_, last))| std::cmp::Reverse(*last));
    agents.truncate(AGENTS_MAX);
    let now = Timestamp::now();
    let card = |([agent, principal, server], (waiting, last)): ([String; 3], (usize, Timestamp))| AgentCard {
        agent: markup::text(&agent),
        principal: markup::text(&principal),
        server: markup::text(&server),
        waiting,
        last: between(last, now),
    };
    Ok(agents.into_iter().map(card).collect())
}

/// What the gates say of themselves; one that does not answer is left out.
pub(super) async fn gate_infos(state: &State) -> Vec<GateInfo> {
    let gates = state.hub.gates();
    let asked = gates.iter().map(|gate| tokio::time::timeout(INFO, gate.rpc.info()));
    join_all(asked).await.into_iter().filter_map(|answer| answer.ok()?.ok()).collect()
}
