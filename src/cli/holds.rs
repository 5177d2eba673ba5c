//! `holdshort holds`, `show`, `approve`, `remembered`, `reject`, `resolve`: what operators see and say, over the control sockets of all
//! gates, or in the record where none runs.

use std::path::Path;

use super::{
    ApproveArguments, HoldsArguments, RecordArguments, RejectArguments, RememberedArguments,
    RememberedCommand, ResolveArguments, ShowArguments,
    audit::{check_there, recorded, store_path},
    block_on,
    edit::{self, NoEdit},
    reach::{Place, Reach},
    render, sign,
};
use crate::{
    control::{
        api::{ControlClient, HoldView, RememberFor, Watched},
        client::{self, AskError, GateClient},
        follow::{self, Followed},
        place,
    },
    exit::Exit,
    hold::{State, Verdict},
    store::Location,
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
            return watch(arguments.record.store.as_deref(), arguments.json).await;
        }
        let named = arguments.record.store.as_deref();
        let (reach, mut holds) = waiting(named).await?;
        if arguments.all {
            let all = match reach.as_ref().map(|reach| &reach.place) {
                Some(Place::Gates(gates)) => ended(gates, &holds).await?,
                _ => recorded(named, ENDED_MAX).await?,
            };
            let known: Vec<_> = holds.iter().map(|hold| hold.id).collect();
            holds.extend(all.into_iter().filter(|hold| !known.contains(&hold.id)));
        }
        let why_empty = match &reach {
            Some(reach) if !reach.silent.is_empty() => "nothing waits that can be seen",
            Some(Reach { place: Place::Gates(_), .. }) => "nothing waits",
            _ => "no gate is running, so nothing waits",
        };
        render::holds(&holds, arguments.json, why_empty);
        Ok(reach.as_ref().map_or(Exit::Done, Reach::listed))
    })
}

/// Where holds are, and what waits there.
async fn waiting(named: Option<&Path>) -> Result<(Option<Reach>, Vec<HoldView>), AskError> {
    loop {
        let reach = match Reach::find(named).await {
            // Nothing runs and nothing was ever recorded: an empty list, not a failure.
            Err(AskError::NoGate) => return Ok((None, Vec::new())),
            reach => reach?,
        };
        match reach.holds().await {
            // All have ended since they were found: now it is where others, or none, run.
            Err(AskError::NoGate) => {}
            holds => return Ok((Some(reach), holds?)),
        }
    }
}

/// What the records of `gates` know beyond the `waiting` holds.
async fn ended(gates: &[GateClient], waiting: &[HoldView]) -> Result<Vec<HoldView>, AskError> {
    let mut known: Vec<HoldView> = Vec::new();
    for gate in gates {
        let page = gate.rpc.history(None, ENDED_MAX).await.map_err(AskError::from);
        let Some(page) = client::unless_ended(gate, page).await? else { continue };
        for hold in page.holds {
            if !waiting.iter().chain(&known).any(|other| other.id == hold.id) {
                known.push(hold);
            }
        }
    }
    Ok(known)
}

/// Prints what is held and what ends at all gates, also at those that start later, until interrupted.
async fn watch(named: Option<&Path>, json: bool) -> Result<Exit, AskError> {
    let location = named.map(|named| store_path(Some(named))).transpose()?;
    if let Some(location) = &location
        && place::live_gates_on(location.file()).is_empty()
    {
        check_there(location)?;
    }
    render::watching(json);
    let mut followed = follow::follow(location.as_ref().and_then(Location::file).map(Path::to_owned));
    loop {
        tokio::select! {
            Some(news) = followed.recv() => match news {
                Followed::Listed { holds, .. } => {
                    holds.into_iter().for_each(|hold| render::watched(&Watched::held(hold), json));
                }
                Followed::News { watched, .. } => render::watched(&watched, json),
                Followed::Silent(silent) => render::silent(&silent),
                Followed::Gone { .. } => {}
            },
            _ = tokio::signal::ctrl_c() => return Ok(Exit::Done),
        }
    }
}

pub(super) fn show(arguments: &ShowArguments) -> Exit {
    block_on(async {
        let reach = Reach::find(arguments.record.store.as_deref()).await?;
        render::detail(&reach.show(&arguments.id).await?, arguments.json);
        Ok(Exit::Done)
    })
}

pub(super) fn approve(arguments: &ApproveArguments) -> Exit {
    if arguments.remember_for.is_none() && arguments.edit.is_none() {
        let (comment, key) = (arguments.comment.clone(), arguments.sign.as_deref());
        return resolve(&arguments.record, &arguments.id, Verdict::Approve, comment, key);
    }
    block_on(async {
        let named = arguments.record.store.as_deref();
        let mut reach = Reach::find(named).await?;
        if let Some(error) = too_short(&arguments.id) {
            return Ok(render::usage(&error));
        }
        let remember = arguments.remember_for.map(|time| RememberFor {
            seconds: u64::try_from(time.as_secs()).unwrap_or(0),
            same: arguments.same.into(),
        });
        let (mut edited, mut shown) = (None, None);
        if let Some(place) = &arguments.edit {
            let hold = reach.show_to_edit(&arguments.id).await?;
            render::shown_before_deciding(&hold);
            shown = hold.shown();
            edited = match edit::arguments(&hold, place.as_deref(), arguments.yes) {
                Ok(text) => Some(text),
                Err(error @ (NoEdit::NotConfirmed | NoEdit::Editor(_))) => return Ok(render::failed(&error)),
                Err(error) => return Ok(render::usage(&error)),
            };
            // That may have taken longer than a gate keeps a connection on which nothing is asked.
            reach = Reach::find(named).await?;
        }
        let resolved =
            reach.approve(&arguments.id, arguments.comment.clone(), remember, edited, shown).await?;
        render::resolved(&resolved);
        if remember.is_some() {
            render::talk(&format!("to take it back: holdshort remembered revoke {}", resolved.id.short()));
        }
        Ok(exit_of(Verdict::Approve, resolved.state))
    })
}

pub(super) fn remembered(arguments: &RememberedArguments) -> Exit {
    block_on(async {
        let reach = match (Reach::find(arguments.record.store.as_deref()).await, &arguments.command) {
            // Nothing runs and nothing was ever recorded.
            (Err(AskError::NoGate), None) => None,
            (reach, _) => Some(reach?),
        };
        match (&arguments.command, &reach) {
            (Some(RememberedCommand::Revoke { id }), Some(reach)) => {
                if let Some(error) = too_short(id) {
                    return Ok(render::usage(&error));
                }
                render::revoked(reach.revoke(id).await?);
            }
            (_, Some(reach)) => {
                render::remembered(&reach.remembered().await?, arguments.json);
                return Ok(reach.listed());
            }
            (_, None) => render::remembered(&[], arguments.json),
        }
        Ok(Exit::Done)
    })
}

pub(super) fn reject(arguments: &RejectArguments) -> Exit {
    resolve(
        &arguments.record,
        &arguments.id,
        Verdict::Reject,
        Some(arguments.reason.clone()),
        arguments.sign.as_deref(),
    )
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
        let reach = Reach::find(arguments.record.store.as_deref()).await?;
        if let Some(error) = too_short(&arguments.id) {
            return Ok(render::usage(&error));
        }
        let comment = arguments.comment.clone();
        render::resolved(&reach.resolve_unknown(&arguments.id, arguments.ran, comment).await?);
        Ok(Exit::Done)
    })
}

fn resolve(
    record: &RecordArguments,
    prefix: &str,
    verdict: Verdict,
    comment: Option<String>,
    key: Option<&Path>,
) -> Exit {
    block_on(async {
        let named = record.store.as_deref();
        let reach = Reach::find(named).await?;
        if let Some(error) = too_short(prefix) {
            return Ok(render::usage(&error));
        }
        let resolved = match key {
            None => reach.resolve(prefix, verdict, comment).await?,
            Some(key) => {
                let hold = reach.show(prefix).await?;
                // What is signed says that all of it was shown.
                render::shown_before_deciding(&hold);
                let proof = match sign::sign(&hold, verdict, comment.as_deref(), key) {
                    Ok(proof) => proof,
                    Err(error) => return Ok(render::failed(&error)),
                };
                // As long as the passphrase or the touch has taken, a gate need not keep the connection.
                let reach = Reach::find(named).await?;
                reach.resolve_signed(hold.id, verdict, comment, proof).await?
            }
        };
        render::resolved(&resolved);
        Ok(exit_of(verdict, resolved.state))
    })
}

/// What a command ends with whose verdict has led to `state`.
fn exit_of(verdict: Verdict, state: State) -> Exit {
    match (verdict, state) {
        (Verdict::Approve, State::Forwarding | State::Answered | State::Granted)
        | (Verdict::Reject, State::Rejected)
        | (_, State::Held) => Exit::Done,
        _ => Exit::Failed,
    }
}
