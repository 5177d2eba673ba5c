//! Where operators' commands find holds: at the gates that run, or where none runs, in the record itself.
//!
//! What waits without a caller outlives its gate, so it can be decided without one too. Every verdict goes through
//! `Gate::resolve`, here or there.

use std::{path::Path, sync::Arc};

use super::audit::{instance_name, open_as, store_path};
use crate::{
    control::{
        api::{ControlClient, HoldView, RememberFor, RememberedView, Resolved},
        client::{self, AskError, GateClient},
        place, server,
    },
    digest::Digest,
    gate::{Gate, GateLimits, ResolveError},
    hold::{HoldId, Proof, Said, Verdict},
    policy::Policy,
    principal::Principal,
    store::{Location, StoreError},
};

/// Ids that one beginning may stand for before it is not looked into further.
const FOUND_MAX: usize = 10;

/// Where holds are.
pub(super) enum Reach {
    /// At these gates.
    Gates(Vec<GateClient>),
    /// In the usual record.
    Record(Box<Gate>),
}

impl Reach {
    /// The gates that run; the record where none does. The record of a fleet, if that is `named`: from there each of its gates
    /// is reached.
    ///
    /// # Errors
    ///
    /// When no gate runs and there is no record.
    pub(super) async fn find(named: Option<&Path>) -> Result<Self, AskError> {
        let location = match (store_path(named), named) {
            (Err(error), Some(_)) => return Err(error),
            (Ok(location @ Location::Postgres(_)), _) => return Self::record(&location).await,
            (location, _) => location,
        };
        match client::gates().await {
            Err(AskError::NoGate) => {
                let location = location.map_err(|_| AskError::NoGate)?;
                Self::record(&location).await.map_err(|_| AskError::NoGate)
            }
            gates => Ok(Self::Gates(gates?)),
        }
    }

    async fn record(location: &Location) -> Result<Self, AskError> {
        let name = instance_name().map_err(AskError::Broken)?;
        let store = open_as(location, &name).await?;
        // It screens nothing, so no policy is asked; and it holds nothing.
        let limits = GateLimits { holds_max: 0, ..GateLimits::default() };
        let mut gate = Gate::new(name, Arc::new(Policy::hold_everything()), store, limits);
        if let Location::File(path) = location.clone() {
            gate = gate.with_is_dead(Box::new(move |holder| place::is_dead(&path, holder)));
        }
        gate.take_over_dead().await.map_err(failed)?;
        Ok(Self::Record(Box::new(gate)))
    }

    /// All that waits, the oldest first.
    pub(super) async fn holds(&self) -> Result<Vec<HoldView>, AskError> {
        match self {
            Self::Gates(gates) => client::holds(gates).await,
            Self::Record(gate) => {
                Ok(gate.detached().await.map_err(failed)?.iter().map(HoldView::listed).collect())
            }
        }
    }

    /// One hold, whole.
    pub(super) async fn show(&self, prefix: &str) -> Result<HoldView, AskError> {
        match self {
            Self::Gates(gates) => {
                let (gate, id) = client::find(gates, prefix).await?;
                Ok(gate.rpc.show(id).await?)
            }
            Self::Record(gate) => {
                let id = find_in(gate, prefix).await?;
                let record = gate.store().hold(id).await.map_err(failed)?;
                record.as_ref().map(HoldView::whole).ok_or_else(|| AskError::NotFound(prefix.to_owned()))
            }
        }
    }

    /// Decides on a hold that was not shown.
    pub(super) async fn resolve(
        &self,
        prefix: &str,
        verdict: Verdict,
        comment: Option<String>,
    ) -> Result<Resolved, AskError> {
        match self {
            Self::Gates(gates) => {
                let (gate, id) = client::find(gates, prefix).await?;
                Ok(gate.rpc.resolve(id, verdict, comment, None).await?)
            }
            Self::Record(gate) => {
                let id = find_in(gate, prefix).await?;
                let state = gate.resolve(id, verdict, &operator(), comment.as_deref()).await;
                state.map(|state| Resolved { id, state }).map_err(refused)
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
        match self {
            Self::Gates(gates) => {
                let (gate, id) = client::find(gates, &id.to_string()).await?;
                Ok(gate.rpc.resolve_signed(id, verdict, comment, proof).await?)
            }
            Self::Record(gate) => {
                let said = Said { proof: Some(proof), ..verdict.into() };
                let state = gate.resolve(id, said, &operator(), comment.as_deref()).await;
                state.map(|state| Resolved { id, state }).map_err(refused)
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
        match self {
            Self::Gates(gates) => {
                let (gate, id) = client::find(gates, prefix).await?;
                Ok(gate.rpc.approve(id, comment, remember, arguments, shown_sha256).await?)
            }
            Self::Record(gate) => {
                let id = find_in(gate, prefix).await?;
                let remember = remember.map(|asked| (asked.seconds, asked.same));
                let said = Said { remember, arguments, shown_sha256, ..Verdict::Approve.into() };
                let state = gate.resolve(id, said, &operator(), comment.as_deref()).await;
                state.map(|state| Resolved { id, state }).map_err(refused)
            }
        }
    }

    /// Approvals that count for further calls, the newest first.
    pub(super) async fn remembered(&self) -> Result<Vec<RememberedView>, AskError> {
        let gates = match self {
            Self::Gates(gates) => gates,
            Self::Record(gate) => {
                return Ok(gate
                    .remembered()
                    .await
                    .map_err(failed)?
                    .iter()
                    .map(RememberedView::from)
                    .collect());
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
        match self {
            Self::Gates(gates) => {
                let (gate, id) = client::find(gates, prefix).await?;
                gate.rpc.revoke(id).await?;
                Ok(id)
            }
            Self::Record(gate) => {
                let id = find_in(gate, prefix).await?;
                gate.revoke(id, &operator()).await.map_err(refused)?;
                Ok(id)
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
        match self {
            Self::Gates(gates) => {
                let (gate, id) = client::find(gates, prefix).await?;
                Ok(gate.rpc.resolve_unknown(id, has_run, comment).await?)
            }
            Self::Record(gate) => {
                let id = find_in(gate, prefix).await?;
                let state = gate.resolve_unknown(id, has_run, &operator(), comment.as_deref()).await;
                state.map(|state| Resolved { id, state }).map_err(refused)
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
    let found = gate.store().find(prefix, FOUND_MAX).await.map_err(failed)?;
    match found.as_slice() {
        [] => Err(not_found()),
        [one] => Ok(one.hold.id),
        several => Err(AskError::Ambiguous {
            prefix: prefix.to_owned(),
            ids: several.iter().map(|record| record.hold.id).collect(),
        }),
    }
}

fn failed(error: StoreError) -> AskError {
    AskError::Broken(error.to_string())
}

fn refused(error: ResolveError) -> AskError {
    AskError::Refused(server::resolve_error(&error))
}
