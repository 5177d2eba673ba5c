//! `holdshort holds`, `show`, `approve`, `reject`, `resolve`: what operators see and say, over the control sockets of all
//! gates, or in the record where none runs.

use super::{
    ApproveArguments, HoldsArguments, RejectArguments, ResolveArguments, ShowArguments, audit::recorded,
    block_on, reach::Reach, render,
};
use crate::{
    control::{
        api::{ControlClient, HoldView, Watched},
        client::{AskError, GateClient},
        follow::{self, Followed},
    },
    exit::Exit,
    hold::{State, Verdict},
};

/// Characters of an id that a verdict needs at least: when the hold that was meant has ended, a shorter beginning may
/// well be that of another one.
const DECIDE_CHARS_MIN: usize = 4;

/// A verdict on too short a beginning of an id.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is too short to decide by: give at least {DECIDE_CHARS_MIN} characters of the id")]
struct TooShort(String);

/// Ended holds that `--all` lists.
const ENDED_MAX: usize = 200;

pub(super) fn list(arguments: &HoldsArguments) -> Exit {
    block_on(async {
        if arguments.watch {
            return watch(arguments.json).await;
        }
        let reach = match Reach::find().await {
            // Nothing runs and nothing was ever recorded: an empty list, not a failure.
            Err(AskError::NoGate) => None,
            reach => Some(reach?),
        };
        let mut holds = match &reach {
            Some(reach) => reach.holds().await?,
            None => Vec::new(),
        };
        if arguments.all {
            let all = match &reach {
                Some(Reach::Gates(gates)) => ended(gates, &holds).await?,
                _ => recorded(ENDED_MAX).await?,
            };
            let known: Vec<_> = holds.iter().map(|hold| hold.id).collect();
            holds.extend(all.into_iter().filter(|hold| !known.contains(&hold.id)));
        }
        let gates = if let Some(Reach::Gates(gates)) = &reach { gates.len() } else { 0 };
        render::holds(&holds, arguments.json, gates);
        Ok(Exit::Done)
    })
}

/// What the records of `gates` know beyond the `waiting` holds.
async fn ended(gates: &[GateClient], waiting: &[HoldView]) -> Result<Vec<HoldView>, AskError> {
    let mut known: Vec<HoldView> = Vec::new();
    for gate in gates {
        let page = gate.rpc.history(None, ENDED_MAX).await?;
        for hold in page.holds {
            if !waiting.iter().chain(&known).any(|other| other.id == hold.id) {
                known.push(hold);
            }
        }
    }
    Ok(known)
}

/// Prints what is held and what ends at all gates, also at those that start later, until interrupted.
async fn watch(json: bool) -> Result<Exit, AskError> {
    render::watching(json);
    let mut followed = follow::follow();
    loop {
        tokio::select! {
            Some(news) = followed.recv() => match news {
                Followed::Listed { holds, .. } => {
                    holds.into_iter().for_each(|hold| render::watched(&Watched::held(hold), json));
                }
                Followed::News { watched, .. } => render::watched(&watched, json),
                Followed::Gone { .. } => {}
            },
            _ = tokio::signal::ctrl_c() => return Ok(Exit::Done),
        }
    }
}

pub(super) fn show(arguments: &ShowArguments) -> Exit {
    block_on(async {
        let reach = Reach::find().await?;
        render::detail(&reach.show(&arguments.id).await?, arguments.json);
        Ok(Exit::Done)
    })
}

pub(super) fn approve(arguments: &ApproveArguments) -> Exit {
    resolve(&arguments.id, Verdict::Approve, arguments.comment.clone())
}

pub(super) fn reject(arguments: &RejectArguments) -> Exit {
    resolve(&arguments.id, Verdict::Reject, Some(arguments.reason.clone()))
}

/// The error of a beginning of an id by which nothing may be decided. (What cannot be the beginning of an id is that of no
/// hold, however short it is.)
fn too_short(prefix: &str) -> Option<TooShort> {
    let is_too_short =
        prefix.len() < DECIDE_CHARS_MIN && prefix.bytes().all(|byte| byte.is_ascii_alphanumeric());
    is_too_short.then(|| TooShort(prefix.to_owned()))
}

pub(super) fn resolve_unknown(arguments: &ResolveArguments) -> Exit {
    block_on(async {
        let reach = Reach::find().await?;
        if let Some(error) = too_short(&arguments.id) {
            return Ok(render::usage(&error));
        }
        let comment = arguments.comment.clone();
        render::resolved(&reach.resolve_unknown(&arguments.id, arguments.ran, comment).await?);
        Ok(Exit::Done)
    })
}

fn resolve(prefix: &str, verdict: Verdict, comment: Option<String>) -> Exit {
    block_on(async {
        let reach = Reach::find().await?;
        if let Some(error) = too_short(prefix) {
            return Ok(render::usage(&error));
        }
        let resolved = reach.resolve(prefix, verdict, comment).await?;
        render::resolved(&resolved);
        Ok(match (verdict, resolved.state) {
            (Verdict::Approve, State::Forwarding | State::Answered | State::Granted)
            | (Verdict::Reject, State::Rejected)
            | (_, State::Held) => Exit::Done,
            _ => Exit::Failed,
        })
    })
}
