//! `holdshort holds`, `show`, `approve`, `reject`: what operators see and say, over the control sockets of all gates.

use super::{
    ApproveArguments, HoldsArguments, RejectArguments, ShowArguments, audit::recorded, block_on, render,
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

/// Ended holds that `--all` lists.
const ENDED_MAX: usize = 200;

pub(super) fn list(arguments: &HoldsArguments) -> Exit {
    block_on(async {
        if arguments.watch {
            return watch(arguments.json).await;
        }
        let gates = match client::gates().await {
            // Nothing runs, so nothing waits: an empty list, not a failure.
            Err(AskError::NoGate) => Vec::new(),
            gates => gates?,
        };
        let mut holds = client::holds(&gates).await?;
        if arguments.all {
            let ended =
                if gates.is_empty() { recorded(ENDED_MAX).await? } else { ended(&gates, &holds).await? };
            holds.extend(ended);
        }
        render::holds(&holds, arguments.json, gates.len());
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
        let gates = client::gates().await?;
        let (gate, id) = client::find(&gates, &arguments.id).await?;
        render::detail(&gate.rpc.show(id).await?, arguments.json);
        Ok(Exit::Done)
    })
}

pub(super) fn approve(arguments: &ApproveArguments) -> Exit {
    resolve(&arguments.id, Verdict::Approve, arguments.comment.clone())
}

pub(super) fn reject(arguments: &RejectArguments) -> Exit {
    resolve(&arguments.id, Verdict::Reject, Some(arguments.reason.clone()))
}

fn resolve(prefix: &str, verdict: Verdict, comment: Option<String>) -> Exit {
    block_on(async {
        let gates = client::gates().await?;
        let (gate, id) = client::find(&gates, prefix).await?;
        let resolved = gate.rpc.resolve(id, verdict, comment).await.map_err(AskError::from)?;
        render::resolved(&resolved);
        Ok(match (verdict, resolved.state) {
            (Verdict::Approve, State::Forwarding | State::Answered) | (Verdict::Reject, State::Rejected) => {
                Exit::Done
            }
            _ => Exit::Failed,
        })
    })
}
