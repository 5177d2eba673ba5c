//! The one way of the desk to a verdict: to the gate that has the hold, which asks `Gate::resolve`.
//!
//! Used by the pages, by REST and by what comes in from channels. A verdict that
//! names what was shown counts for that alone: the gate compares.

use std::sync::Arc;

use jsonrpsee::{core::client::Error as ClientError, types::ErrorObjectOwned};

use super::{
    State,
    problem::{Kind, Problem},
    record,
    sessions::INFO,
};
use crate::{
    control::{
        api::{ControlClient, HoldView, Resolved, error_code},
        client::{AskError, GateClient},
        server::resolve_error,
    },
    digest::Digest,
    gate::ResolveError,
    hold::{HoldId, Proof, Said, State as HoldState, Verdict},
};

/// What somebody says about a hold.
#[derive(Clone, Debug)]
pub(super) struct Spoken {
    pub(super) id: HoldId,
    pub(super) verdict: Verdict,
    pub(super) comment: Option<String>,
    /// The digest of the frame that they speak of.
    pub(super) frame_sha256: Option<String>,
    /// The digest of what was shown to them, if all of it was.
    pub(super) shown_sha256: Option<Digest>,
    pub(super) speaker: Speaker,
}

/// Who says something at a desk.
#[derive(Clone, Debug)]
pub(super) enum Speaker {
    /// The user whose desk this is.
    Operator,
    /// Whoever has the certificate that the listener has verified, by the identity in it.
    Certified(String),
    /// Somebody whom a channel has told apart, by their identity.
    Channel(String),
    /// Whoever has signed.
    Signer(Proof),
}

impl Speaker {
    /// Whoever asks on a connection with a certificate, or without one.
    pub(super) fn on_connection(identity: Option<String>) -> Self {
        identity.map_or(Self::Operator, Self::Certified)
    }
}

/// Where a hold can be decided.
enum Door {
    /// At this gate.
    Gate(Arc<GateClient>),
    /// In the record, because no gate runs.
    Record,
}

/// Passes a verdict on. Answers once it is durable.
pub(super) async fn decide(state: &State, spoken: Spoken) -> Result<Resolved, Problem> {
    state.verdicts.take().map_err(|seconds| Problem::from(Kind::TooOften(seconds)))?;
    let Spoken { id, verdict, comment, frame_sha256, shown_sha256, speaker } = spoken;
    let (hold, door) = door(state, id).await?;
    // A grant can only be taken back, and not by a channel, whose message was about what waits.
    let is_grant_rejected = (hold.state, verdict) == (HoldState::Granted, Verdict::Reject);
    let takes_back = is_grant_rejected && !matches!(speaker, Speaker::Channel(_));
    if hold.state != HoldState::Held && !takes_back {
        return Err(ended(HoldView::clone(&hold)));
    }
    // Compared with what people are shown: what is on the board may have been made again since.
    if let Some(frame) = frame_sha256
        && frame != whole(state, id).await?.frame_sha256
    {
        return Err(Kind::NotWhatWasShown.into());
    }
    match (door, speaker) {
        (Door::Gate(gate), Speaker::Operator) => {
            gate.rpc.resolve(id, verdict, comment, shown_sha256).await.map_err(problem)
        }
        (Door::Gate(gate), Speaker::Certified(identity) | Speaker::Channel(identity)) => {
            gate.rpc.resolve_as(id, verdict, comment, identity, shown_sha256).await.map_err(problem)
        }
        (Door::Gate(gate), Speaker::Signer(proof)) => {
            gate.rpc.resolve_signed(id, verdict, comment, proof).await.map_err(problem)
        }
        (Door::Record, Speaker::Operator) => {
            let said = Said { shown_sha256, ..verdict.into() };
            let now = record::resolve(state, id, said, comment.as_deref()).await?;
            Ok(Resolved { id, state: now })
        }
        // Whose identity or key it is, is written in the policy of a gate.
        (Door::Record, _) => Err(no_gate()),
    }
}

/// Whether a gate that runs knows whom `identity` means: where certificates are asked for, nobody else is let in.
pub(super) async fn check_listed(state: &State, identity: &str) -> Result<(), Problem> {
    for gate in state.hub.gates() {
        let asked = tokio::time::timeout(INFO, gate.rpc.person(identity.to_owned())).await;
        if let Ok(Ok(Some(_))) = asked {
            return Ok(());
        }
    }
    let text = format!("no gate that runs has a policy whose `people` have the identity `{identity}`");
    Err(Problem::new(Kind::NotAllowed, text))
}

/// Says whether a call ran of which nobody knew. Answers once it is durable.
pub(super) async fn resolve_unknown(
    state: &State,
    id: HoldId,
    has_run: bool,
    comment: Option<String>,
    identity: Option<String>,
) -> Result<Resolved, Problem> {
    state.verdicts.take().map_err(|seconds| Problem::from(Kind::TooOften(seconds)))?;
    let (hold, door) = door(state, id).await?;
    match hold.state {
        HoldState::Unknown => {}
        state if state.is_open() => {
            return Err(Problem::new(Kind::NotUnknown, format!("it is {state}")));
        }
        _ => return Err(ended(HoldView::clone(&hold))),
    }
    match (door, identity) {
        (Door::Gate(gate), None) => gate.rpc.resolve_unknown(id, has_run, comment).await.map_err(problem),
        (Door::Gate(gate), Some(identity)) => {
            gate.rpc.resolve_unknown_as(id, has_run, comment, identity).await.map_err(problem)
        }
        (Door::Record, Some(_)) => Err(no_gate()),
        (Door::Record, None) => {
            let now = record::resolve_unknown(state, id, has_run, comment.as_deref()).await?;
            Ok(Resolved { id, state: now })
        }
    }
}

/// The hold `id`, and where something can still be said about it.
async fn door(state: &State, id: HoldId) -> Result<(Arc<HoldView>, Door), Problem> {
    if let Some((hold, gate)) = state.hub.waiting(id) {
        return Ok((hold, Door::Gate(gate)));
    }
    let gates = state.hub.gates();
    if gates.is_empty() {
        let hold = whole(state, id).await?;
        return match hold.state {
            // With a caller it waits at a gate, which is not to be seen.
            HoldState::Held if hold.attached => Err(no_gate()),
            HoldState::Held | HoldState::Granted | HoldState::Unknown => Ok((Arc::new(hold), Door::Record)),
            _ => Err(ended(hold)),
        };
    }
    for gate in gates {
        match show(&gate, id).await {
            Ok(hold) if matches!(hold.state, HoldState::Granted | HoldState::Unknown) => {
                return Ok((Arc::new(hold), Door::Gate(gate)));
            }
            Ok(hold) if hold.state == HoldState::Held => return Err(no_gate()),
            Ok(hold) => return Err(ended(hold)),
            Err(_) => {}
        }
    }
    Err(why_not_there(state, id).await)
}

/// It is in the record and nobody has told of it: its gate is gone, or has not been heard yet.
fn no_gate() -> Problem {
    Problem::new(Kind::Unavailable, "the gate that has this call does not answer; try again")
}

/// Why a hold does not wait at any gate.
async fn why_not_there(state: &State, id: HoldId) -> Problem {
    match whole(state, id).await {
        Ok(hold) if hold.state != HoldState::Held => ended(hold),
        Ok(_) => no_gate(),
        Err(problem) => problem,
    }
}

/// All that is known of a hold, from its gate or from the record.
pub(super) async fn whole(state: &State, id: HoldId) -> Result<HoldView, Problem> {
    if let Some((_, gate)) = state.hub.waiting(id) {
        match show(&gate, id).await {
            // It may have ended meanwhile, and its gate with it.
            Err(problem) if problem.kind == Kind::Unavailable => {}
            shown => return shown,
        }
    }
    if let Some(record) = state.store.hold(id).await.map_err(|error| unavailable(&error))? {
        return Ok(HoldView::whole(&record));
    }
    // Gates may keep other records than this desk's.
    for gate in state.hub.gates() {
        match show(&gate, id).await {
            Ok(hold) => return Ok(hold),
            Err(problem) if matches!(problem.kind, Kind::NotFound | Kind::Unavailable) => {}
            Err(problem) => return Err(problem),
        }
    }
    Err(Kind::NotFound.into())
}

async fn show(gate: &Arc<GateClient>, id: HoldId) -> Result<HoldView, Problem> {
    gate.rpc.show(id).await.map_err(problem)
}

/// It does not wait any more.
pub(super) fn ended(hold: HoldView) -> Problem {
    let by = hold.votes.last().map(|vote| format!(" by {}", vote.by)).unwrap_or_default();
    let detail = format!("it is {}{by}", hold.state);
    Problem { hold: Some(Box::new(hold)), ..Problem::new(Kind::Ended, detail) }
}

/// What the refusal of the record's own gate means.
pub(super) fn refused(error: &ResolveError) -> Problem {
    match error {
        ResolveError::Ended(record) => ended(HoldView::new(record)),
        other => told(&resolve_error(other)),
    }
}

/// What an error of the control socket means for whoever asked.
pub(super) fn told(error: &ErrorObjectOwned) -> Problem {
    Problem::new(kind_of(error), error.message())
}

/// What a gate's refusal means for whoever asked.
pub(super) fn problem(error: ClientError) -> Problem {
    let error = AskError::from(error);
    if let Some(hold) = error.ended() {
        return ended(hold);
    }
    match &error {
        AskError::Refused(refused) => told(refused),
        _ => Problem::new(Kind::Unavailable, "the gate did not answer"),
    }
}

fn kind_of(refused: &ErrorObjectOwned) -> Kind {
    match refused.code() {
        error_code::NOT_FOUND => Kind::NotFound,
        error_code::ENDED => Kind::Ended,
        error_code::NOT_ALLOWED => Kind::NotAllowed,
        error_code::INVALID => Kind::ReasonMissing,
        error_code::NOT_WHAT_WAS_SHOWN => Kind::NotWhatWasShown,
        error_code::TOO_OFTEN => {
            let seconds = refused.data().and_then(|data| data.get().parse().ok());
            Kind::TooOften(seconds.unwrap_or(1))
        }
        _ => Kind::Unavailable,
    }
}

/// The record does not answer. What is wrong with it is for the log, not for whoever asks.
pub(super) fn unavailable(error: &crate::store::StoreError) -> Problem {
    tracing::warn!(error = error as &dyn std::error::Error, "the record cannot be read");
    Problem::new(Kind::Unavailable, "the record cannot be read")
}
