//! `holdshort holds`, `show`, `approve`, `reject`, `resolve`: what operators see and say, over the control sockets of all
//! gates, or in the record where none runs.

use super::{
    ApproveArguments, HoldsArguments, RejectArguments, ResolveArguments, ShowArguments, audit::recorded,
    block_on, reach::Reach, render,
};
use crate::{
    control::{
        api::{ControlClient, HoldView, Watched, WatchedEvent},
        client::{self, AskError, GateClient},
        place,
    },
    exit::Exit,
    hold::{State, Verdict},
};
use futures_util::{StreamExt, stream};

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

/// How often a watcher looks for gates that have been started meanwhile.
const LOOK_FOR_GATES: std::time::Duration = std::time::Duration::from_secs(2);

/// Prints what is held and what ends at all gates, also at those that start later, until interrupted.
async fn watch(json: bool) -> Result<Exit, AskError> {
    let mut news = stream::SelectAll::new();
    let mut known: Vec<String> = Vec::new();
    let mut look = tokio::time::interval(LOOK_FOR_GATES);
    render::watching(json);
    loop {
        tokio::select! {
            _ = look.tick() => {
                let alive: Vec<_> = place::live_gates().into_iter().map(|gate| gate.instance).collect();
                known.retain(|instance| alive.contains(instance));
                if alive.iter().all(|instance| known.contains(instance)) {
                    continue;
                }
                for gate in client::gates().await.unwrap_or_default() {
                    if known.contains(&gate.registered.instance) {
                        continue;
                    }
                    // First the subscription, then the list: what is held in between is told twice rather than never.
                    let subscription = gate.rpc.watch().await?;
                    let waiting = client::holds(std::slice::from_ref(&gate)).await?;
                    waiting.into_iter().for_each(|hold| render::watched(&Watched::held(hold), json));
                    known.push(gate.registered.instance.clone());
                    // The connection lives as long as its subscription.
                    news.push(subscription.map(move |watched| { let _alive = &gate; watched }).boxed());
                }
            }
            Some(watched) = news.next(), if !news.is_empty() => match watched {
                Ok(Watched { event: WatchedEvent::Missed, .. }) => {
                    for hold in client::holds(&client::gates().await?).await? {
                        render::watched(&Watched::held(hold), json);
                    }
                }
                Ok(watched) => render::watched(&watched, json),
                Err(error) => return Err(AskError::Broken(error.to_string())),
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
            | (Verdict::Reject, State::Rejected) => Exit::Done,
            _ => Exit::Failed,
        })
    })
}
