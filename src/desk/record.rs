//! This desk at its record: what can be decided there while no gate runs, as the command line does it.
//!
//! Used by `verdict` and the pages. What waits without a caller outlives its gate; an approval becomes a grant, which the next gate
//! redeems when the call is made again. Every verdict goes through `Gate::resolve`, here as there; this gate screens nothing and
//! holds nothing.

use std::{path::Path, sync::Arc};

use super::{
    State,
    problem::Problem,
    verdict::{refused, told, unavailable},
};
use crate::{
    control::{api::HoldView, place, tools::accept_error},
    digest::Digest,
    gate::{Gate, GateLimits},
    hold::{HoldId, Said, State as HoldState},
    policy::Policy,
    principal::Principal,
    store::{Listed, Location, Store},
};

/// How this process names itself in the record.
const INSTANCE: &str = "desk";

/// A gate that only decides on what has no caller in `store`, which is at `location`.
pub(super) fn gate(store: Store, location: &Location) -> Gate {
    let limits = GateLimits { holds_max: 0, ..GateLimits::default() };
    let gate = Gate::new(INSTANCE.into(), Arc::new(Policy::hold_everything()), store, limits);
    match location.file().map(Path::to_owned) {
        Some(path) => gate.with_is_dead(Box::new(move |holder| place::is_dead(&path, holder))),
        // Who lives is known to the database.
        None => gate,
    }
}

/// The user of this process, who signs in at this desk.
fn operator() -> Principal {
    Principal::user(rustix::process::getuid().as_raw())
}

/// What has no caller in the record and can still become something, the oldest first. Asked where no gate runs that would tell.
pub(super) async fn open(state: &State) -> Result<Vec<HoldView>, Problem> {
    if !state.location.may_exist() {
        return Ok(Vec::new());
    }
    let gate = &state.own;
    gate.take_over_dead().await.map_err(|error| unavailable(&error))?;
    let records = gate.detached().await.map_err(|error| unavailable(&error))?;
    let view = |listed: &Listed| match listed.has_frame() {
        true => HoldView::whole(&listed.record),
        false => HoldView::listed(listed),
    };
    Ok(records.iter().map(view).collect())
}

/// Those of them that wait for people.
pub(super) async fn waiting(state: &State) -> Result<Vec<Arc<HoldView>>, Problem> {
    let open = open(state).await?;
    Ok(open.into_iter().filter(|hold| hold.state == HoldState::Held).map(Arc::new).collect())
}

/// Decides on a hold in the record.
pub(super) async fn resolve(
    state: &State,
    id: HoldId,
    said: Said,
    comment: Option<&str>,
) -> Result<HoldState, Problem> {
    state.own.resolve(id, said, &operator(), comment).await.map_err(|error| refused(&error))
}

/// Says whether a call ran of which nobody knew.
pub(super) async fn resolve_unknown(
    state: &State,
    id: HoldId,
    has_run: bool,
    comment: Option<&str>,
) -> Result<HoldState, Problem> {
    let resolved = state.own.resolve_unknown(id, has_run, &operator(), comment).await;
    resolved.map_err(|error| refused(&error))
}

/// From now on the definition of this digest counts.
pub(super) async fn accept_tool(
    state: &State,
    server: &str,
    tool: &str,
    sha256: Digest,
) -> Result<(), Problem> {
    let accepted = state.own.accept_tool(server, tool, sha256, &operator()).await;
    accepted.map(drop).map_err(|error| told(&accept_error(&error)))
}
