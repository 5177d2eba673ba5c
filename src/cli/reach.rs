//! Where operators' commands find holds: at the gates that run, or where none answers, in the record itself.
//!
//! What waits without a caller outlives its gate, so it can be decided without one too. Every verdict goes through
//! `Gate::resolve`, here or there.

use std::{path::Path, sync::Arc};

use super::{
    audit::{instance_name, open_as, store_path},
    process::settle,
    render,
};
use crate::{
    control::{
        api::{ControlClient, HoldView, RememberFor, RememberedView, Resolved},
        client::{self, AskError, GateClient, Reached, Silent},
        place, server,
    },
    digest::Digest,
    exit::Exit,
    gate::{Gate, GateLimits, ResolveError, never_edited},
    hold::{HoldId, Proof, Said, State, Verdict},
    policy::Policy,
    principal::Principal,
    store::Location,
};

/// Ids that one beginning may stand for before it is not looked into further.
const FOUND_MAX: usize = 10;

/// Where holds are.
pub(super) struct Reach {
    pub(super) place: Place,
    /// The gates whose holds cannot be seen.
    pub(super) silent: Vec<Silent>,
}

/// Where holds can be seen.
pub(super) enum Place {
    /// At these gates.
    Gates(Vec<GateClient>),
    /// In a record on which no gate answers.
    Record(Box<Gate>),
}

impl Reach {
    /// The gates that run; the usual record where none answers. If a record is `named`, the gates on it or it itself, and nothing else;
    /// from the record of a fleet each of its gates is reached. Gates that do not answer are named on stderr.
    ///
    /// # Errors
    ///
    /// When no gate runs and there is no record, or it cannot be read.
    pub(super) async fn find(named: Option<&Path>) -> Result<Self, AskError> {
        let location = match (store_path(named), named) {
            (Err(error), Some(_)) => return Err(error),
            (Ok(location @ Location::Postgres(_)), _) => {
                return Ok(Self { place: Self::record(&location).await?, silent: Vec::new() });
            }
            (location, _) => location,
        };
        let on_named = named.and(location.as_ref().ok()).and_then(Location::file);
        let Reached { gates, silent } = client::reach_all(place::live_gates_on(on_named)).await;
        silent.iter().for_each(render::silent);
        if !gates.is_empty() {
            return Ok(Self { place: Place::Gates(gates), silent });
        }
        let record = match location {
            // One that is named is meant: where there is none, that is said.
            Ok(location) if named.is_some() || location.may_exist() => Self::record(&location).await,
            _ => Err(AskError::NoGate),
        };
        match record {
            // There is nowhere else to look; that a gate is there has been said.
            Err(_) if !silent.is_empty() => Ok(Self { place: Place::Gates(Vec::new()), silent }),
            record => Ok(Self { place: record?, silent }),
        }
    }

    async fn record(location: &Location) -> Result<Place, AskError> {
        let name = instance_name().map_err(AskError::Record)?;
        let store = open_as(location, &name).await?;
        // It screens nothing, so no policy is asked; and it holds nothing.
        let limits = GateLimits { holds_max: 0, ..GateLimits::default() };
        let mut gate = Gate::new(name, Arc::new(Policy::hold_everything()), store, limits);
        if let Location::File(path) = location.clone() {
            gate = gate.with_is_dead(Box::new(move |holder| place::is_dead(&path, holder)));
        }
        gate.take_over_dead().await?;
        Ok(Place::Record(Box::new(gate)))
    }

    /// How a command ends that lists what is here: what is at gates that do not answer is not in the list.
    pub(super) fn listed(&self) -> Exit {
        if self.silent.is_empty() { Exit::Done } else { Exit::NoGate }
    }

    /// The gate and the whole id of the hold at `gates` whose id begins with `prefix`.
    async fn at<'a>(
        &self,
        gates: &'a [GateClient],
        prefix: &str,
    ) -> Result<(&'a GateClient, HoldId), AskError> {
        client::find(gates, prefix).await.map_err(|error| self.unless_unseen(error))
    }

    /// The whole id of the hold in the record of `gate` whose id begins with `prefix`.
    async fn recorded(&self, gate: &Gate, prefix: &str) -> Result<HoldId, AskError> {
        find_in(gate, prefix).await.map_err(|error| self.unless_unseen(error))
    }

    /// What is not here may be at a gate that does not answer.
    fn unless_unseen(&self, error: AskError) -> AskError {
        match error {
            AskError::NotFound(prefix) if !self.silent.is_empty() => AskError::Unreached(prefix),
            error => error,
        }
    }

    /// All that waits, the oldest first.
    pub(super) async fn holds(&self) -> Result<Vec<HoldView>, AskError> {
        match &self.place {
            // None answers, and that has been said.
            Place::Gates(gates) if gates.is_empty() => Ok(Vec::new()),
            Place::Gates(gates) => client::holds(gates).await,
            Place::Record(gate) => Ok(gate.detached().await?.iter().map(HoldView::listed).collect()),
        }
    }

    /// One hold, whole.
    pub(super) async fn show(&self, prefix: &str) -> Result<HoldView, AskError> {
        match &self.place {
            Place::Gates(gates) => {
                let (gate, id) = self.at(gates, prefix).await?;
                Ok(gate.rpc.show(id).await?)
            }
            Place::Record(gate) => {
                let id = self.recorded(gate, prefix).await?;
                let record = gate.store().hold(id).await?;
                record.as_ref().map(HoldView::whole).ok_or_else(|| AskError::NotFound(prefix.to_owned()))
            }
        }
    }

    /// The same of one whose arguments are to be changed. What a gate would refuse whatever is written, is refused before anybody writes.
    pub(super) async fn show_to_edit(&self, prefix: &str) -> Result<HoldView, AskError> {
        let hold = self.show(prefix).await?;
        if hold.state != State::Held {
            return Err(AskError::Refused(server::too_late(&hold)));
        }
        never_edited(hold.may_edit, &hold.tool).map_or(Ok(hold), |error| Err(refused(&error)))
    }

    /// Decides on a hold that was not shown.
    pub(super) async fn resolve(
        &self,
        prefix: &str,
        verdict: Verdict,
        comment: Option<String>,
    ) -> Result<Resolved, AskError> {
        match &self.place {
            Place::Gates(gates) => {
                let (gate, id) = self.at(gates, prefix).await?;
                Ok(gate.rpc.resolve(id, verdict, comment, None).await?)
            }
            Place::Record(gate) => {
                let id = self.recorded(gate, prefix).await?;
                let state = gate.resolve(id, verdict, &operator(), comment.as_deref()).await;
                written(gate, state.map(|state| Resolved { id, state })).await
            }
        }
    }

    /// Decides with a signature.
    pub(super) async fn resolve_signed(
        &self,
        id: HoldId,
        verdict: Verdict,
        comment: Option<String>,
        proof: Proof,
    ) -> Result<Resolved, AskError> {
        match &self.place {
            Place::Gates(gates) => {
                let (gate, id) = self.at(gates, &id.to_string()).await?;
                Ok(gate.rpc.resolve_signed(id, verdict, comment, proof).await?)
            }
            Place::Record(gate) => {
                let said = Said { proof: Some(proof), ..verdict.into() };
                let state = gate.resolve(id, said, &operator(), comment.as_deref()).await;
                written(gate, state.map(|state| Resolved { id, state })).await
            }
        }
    }

    /// Approves a hold, and says more than yes.
    pub(super) async fn approve(
        &self,
        prefix: &str,
        comment: Option<String>,
        remember: Option<RememberFor>,
        arguments: Option<String>,
        shown_sha256: Option<Digest>,
    ) -> Result<Resolved, AskError> {
        match &self.place {
            Place::Gates(gates) => {
                let (gate, id) = self.at(gates, prefix).await?;
                Ok(gate.rpc.approve(id, comment, remember, arguments, shown_sha256).await?)
            }
            Place::Record(gate) => {
                let id = self.recorded(gate, prefix).await?;
                let remember = remember.map(|asked| (asked.seconds, asked.same));
                let said = Said { remember, arguments, shown_sha256, ..Verdict::Approve.into() };
                let state = gate.resolve(id, said, &operator(), comment.as_deref()).await;
                written(gate, state.map(|state| Resolved { id, state })).await
            }
        }
    }

    /// Approvals that count for further calls, the newest first.
    pub(super) async fn remembered(&self) -> Result<Vec<RememberedView>, AskError> {
        let gates = match &self.place {
            Place::Gates(gates) => gates,
            Place::Record(gate) => {
                return Ok(gate.remembered().await?.iter().map(RememberedView::from).collect());
            }
        };
        let mut all: Vec<RememberedView> = Vec::new();
        for gate in gates {
            for remembered in gate.rpc.remembered().await? {
                // Gates on one record all tell of the same.
                if !all.iter().any(|known| known.id == remembered.id) {
                    all.push(remembered);
                }
            }
        }
        all.sort_by_key(|remembered| (std::cmp::Reverse(remembered.since), remembered.id));
        Ok(all)
    }

    /// Takes a remembered approval back.
    pub(super) async fn revoke(&self, prefix: &str) -> Result<HoldId, AskError> {
        match &self.place {
            Place::Gates(gates) => {
                let (gate, id) = self.at(gates, prefix).await?;
                gate.rpc.revoke(id).await?;
                Ok(id)
            }
            Place::Record(gate) => {
                let id = self.recorded(gate, prefix).await?;
                let revoked = gate.revoke(id, &operator()).await;
                written(gate, revoked.map(|_| id)).await
            }
        }
    }

    /// Says whether a call ran of which nobody knew.
    pub(super) async fn resolve_unknown(
        &self,
        prefix: &str,
        has_run: bool,
        comment: Option<String>,
    ) -> Result<Resolved, AskError> {
        match &self.place {
            Place::Gates(gates) => {
                let (gate, id) = self.at(gates, prefix).await?;
                Ok(gate.rpc.resolve_unknown(id, has_run, comment).await?)
            }
            Place::Record(gate) => {
                let id = self.recorded(gate, prefix).await?;
                let state = gate.resolve_unknown(id, has_run, &operator(), comment.as_deref()).await;
                written(gate, state.map(|state| Resolved { id, state })).await
            }
        }
    }
}

/// Who types: the user of this process.
pub(super) fn operator() -> Principal {
    Principal::user(rustix::process::getuid().as_raw())
}

async fn find_in(gate: &Gate, prefix: &str) -> Result<HoldId, AskError> {
    let not_found = || AskError::NotFound(prefix.to_owned());
    if prefix.is_empty() {
        return Err(not_found());
    }
    let found = gate.store().find(prefix, FOUND_MAX).await?;
    match found.as_slice() {
        [] => Err(not_found()),
        [one] => Ok(one.hold.id),
        several => Err(AskError::Ambiguous {
            prefix: prefix.to_owned(),
            ids: several.iter().map(|record| record.hold.id).collect(),
        }),
    }
}

/// What came of a word in the record of `gate`. This process is mostly the last one on it.
async fn written<T>(gate: &Gate, done: Result<T, ResolveError>) -> Result<T, AskError> {
    settle(gate.store()).await;
    done.map_err(|error| refused(&error))
}

fn refused(error: &ResolveError) -> AskError {
    AskError::Refused(server::resolve_error(error))
}
