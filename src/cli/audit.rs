//! `holdshort history` and `holdshort audit`: who decided what, and whether the record says so still.
//!
//! Asks a running gate, or reads the record itself where none runs: so also after the last gate has ended.

use std::{collections::VecDeque, path::Path, sync::Arc};

use super::{AuditCommand, HistoryArguments, block_on, events, evidence, render};
use crate::{
    audit::{AuditEvent, Checkpoint, EventKind, Occasion},
    control::{
        api::{ControlClient, HoldView, PAGE_HOLDS_MAX, VerificationView},
        client::{self, AskError},
        place,
    },
    exit::Exit,
    hold::HoldId,
    policy::{RECORDED_CALLS_MAX, RecordedCall},
    store::{HistoryFilter, Location, Store},
};

/// Events that are read from the record at once.
pub(super) const EVENTS_AT_ONCE: usize = 1000;

/// A record, and where it is read.
pub(super) struct Record {
    /// Where it is.
    location: Location,
    /// Where it is read.
    pub(super) source: Source,
}

/// Where a record is read: at a gate that uses it, or in its file.
pub(super) enum Source {
    /// At this gate.
    Gate(Box<client::GateClient>),
    /// In its file.
    File(Store),
}

impl Record {
    /// The record at `named`, or the usual one, and no other. A file that does not exist is no record: it is not made.
    pub(super) async fn find(named: Option<&Path>) -> Result<Self, AskError> {
        let location = store_path(named)?;
        for gate in client::gates().await.gates {
            // A gate may end while it is being asked; the record is still there.
            let Ok(info) = gate.rpc.info().await else { continue };
            // Gates use other records too: what those say is no answer here. A gate tells an absolute path.
            if info.store == location.to_string() {
                return Ok(Self { location, source: Source::Gate(Box::new(gate)) });
            }
        }
        let source = Source::File(open(&location).await?);
        Ok(Self { location, source })
    }
}

impl Source {
    pub(super) async fn history(
        &self,
        before: Option<HoldId>,
        limit: usize,
    ) -> Result<Vec<HoldView>, AskError> {
        match self {
            Self::Gate(gate) => Ok(gate.rpc.history(before, limit).await?.holds),
            Self::File(store) => history_in(store, before, limit).await,
        }
    }

    pub(super) async fn verify(&self, against: Option<Checkpoint>) -> Result<VerificationView, AskError> {
        match self {
            Self::Gate(gate) => Ok(gate.rpc.verify(against.map(|kept| kept.to_string())).await?),
            Self::File(store) => {
                let verification = store.verify(against).await?;
                Ok(VerificationView::from(&verification))
            }
        }
    }
}

/// Where the record `named` is, or the usual one: a URL, or an absolute path.
pub(super) fn store_path(named: Option<&Path>) -> Result<Location, AskError> {
    let location = match named {
        None => Location::File(place::default_store().map_err(unusable)?),
        Some(named) => Location::named(named)?,
    };
    location.absolute().map_err(unusable)
}

/// The record at `location`. A file that does not exist is not made.
pub(super) async fn open(location: &Location) -> Result<Store, AskError> {
    open_as(location, &instance_name().map_err(AskError::Record)?).await
}

/// The same, as the process `name`.
pub(super) async fn open_as(location: &Location, name: &Arc<str>) -> Result<Store, AskError> {
    check_there(location)?;
    let store = Store::open_at(location, name);
    store.ready().await?;
    Ok(store)
}

/// Says so where there is no record at `location`.
pub(super) fn check_there(location: &Location) -> Result<(), AskError> {
    // Opening it would make one of an empty file.
    if location.may_exist() && !location.file().is_some_and(place::is_no_record_yet) {
        return Ok(());
    }
    let text = format!("there is no record at `{location}` yet: it is made when a gate first runs");
    Err(AskError::Record(text))
}

async fn history_in(store: &Store, before: Option<HoldId>, limit: usize) -> Result<Vec<HoldView>, AskError> {
    let filter = HistoryFilter { limit, before, ..HistoryFilter::default() };
    let records = store.history(filter).await?;
    Ok(records.iter().map(HoldView::listed).collect())
}

/// How this process names itself to others on the record.
pub(super) fn instance_name() -> Result<Arc<str>, String> {
    let random = HoldId::random().map_err(|error| format!("the system gives no random numbers: {error}"))?;
    Ok(format!("command-line-{random}").into())
}

/// The newest holds of the record `named`, or of the usual one, where no gate runs. Nothing, where there is no record.
pub(super) async fn recorded(named: Option<&Path>, limit: usize) -> Result<Vec<HoldView>, AskError> {
    match open(&store_path(named)?).await {
        Ok(store) => history_in(&store, None, limit).await,
        Err(_) => Ok(Vec::new()),
    }
}

fn unusable(error: impl std::error::Error) -> AskError {
    AskError::Record(error.to_string())
}

pub(super) fn history(arguments: &HistoryArguments) -> Exit {
    block_on(async {
        let Record { location, mut source } = Record::find(arguments.store.as_deref()).await?;
        let mut holds: Vec<HoldView> = Vec::new();
        while holds.len() < arguments.limit {
            let wanted = (arguments.limit - holds.len()).min(PAGE_HOLDS_MAX);
            let before = holds.last().map(|hold| hold.id);
            let page = match source.history(before, wanted).await {
                // The gate has ended while it was being asked: the record goes on where it broke off.
                Err(AskError::Broken(_)) if matches!(source, Source::Gate(_)) => {
                    source = Source::File(open(&location).await?);
                    source.history(before, wanted).await?
                }
                page => page?,
            };
            let is_last = page.is_empty();
            holds.extend(page);
            if is_last {
                break;
            }
        }
        render::record(&location);
        render::history(&holds, arguments.json);
        Ok(Exit::Done)
    })
}

pub(super) fn audit(command: &AuditCommand) -> Exit {
    match command {
        AuditCommand::Verify { against, store, json } => verify(against.as_deref(), store.as_deref(), *json),
        AuditCommand::Evidence { id, out, store } => block_on(evidence::write(id, out, store.as_deref())),
        AuditCommand::Tail(arguments) => block_on(events::tail(arguments)),
        AuditCommand::Export(arguments) => block_on(events::export(arguments)),
    }
}

/// The calls that a policy's mode has let run, the newest [`RECORDED_CALLS_MAX`] in the order in which they were made.
pub(super) async fn recorded_calls(store: Option<&Path>) -> Result<Vec<RecordedCall>, AskError> {
    let store = open(&store_path(store)?).await?;
    let mut calls = VecDeque::new();
    let mut after = 0;
    loop {
        let lines = store.audit_events(after, EVENTS_AT_ONCE).await?;
        let Some(last) = lines.last() else { return Ok(calls.into()) };
        after = last.seq;
        for event in lines.iter().filter_map(|line| line.event().ok()) {
            if calls.len() == RECORDED_CALLS_MAX {
                calls.pop_front();
            }
            calls.extend(recorded_call(event));
        }
    }
}

/// The call that an event of the mode `audit` tells of.
fn recorded_call(event: AuditEvent) -> Option<RecordedCall> {
    let watched = [Occasion::Allowed, Occasion::WouldHave].map(EventKind::Occasion);
    let agent = event.agent.unwrap_or_default();
    watched.contains(&event.kind).then(|| RecordedCall {
        server: event.server.unwrap_or_default(),
        method: event.method.unwrap_or_default(),
        tool: event.tool,
        arguments: event.arguments,
        // The record has the client's name and version.
        client: agent.rsplit_once(' ').map_or(agent.as_str(), |(name, _)| name).to_owned(),
        principal: event.who.unwrap_or_default(),
        at: event.at,
    })
}

fn verify(against: Option<&str>, store: Option<&Path>, json: bool) -> Exit {
    let against = match against.map(str::parse::<Checkpoint>).transpose() {
        Ok(against) => against,
        Err(error) => return render::usage(&error),
    };
    block_on(async {
        let record = Record::find(store).await?;
        let verification = record.source.verify(against).await?;
        render::verified(&verification, &record.location, json);
        Ok(if verification.sound { Exit::Done } else { Exit::Failed })
    })
}
