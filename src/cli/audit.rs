//! `holdshort history` and `holdshort audit`: who decided what, and whether the record says so still.
//!
//! Asks a running gate, or reads the record itself where none runs.

use std::path::{Path, PathBuf};

use super::{AuditCommand, HistoryArguments, block_on, render};
use crate::{
    audit::Checkpoint,
    control::{
        api::{ControlClient, HoldView, PAGE_HOLDS_MAX, VerificationView},
        client::{self, AskError},
        place,
    },
    exit::Exit,
    hold::HoldId,
    store::{HistoryFilter, Store, StoreError},
};

/// Events that are read from the record at once.
const EVENTS_AT_ONCE: usize = 1000;

/// Where the record is read: at a gate that uses it, or in its file.
enum Source {
    Gate(Box<client::GateClient>),
    File(Store),
}

impl Source {
    /// The record at `named`, or the usual one. A file that does not exist is no record: it is not made.
    async fn find(named: Option<&Path>) -> Result<Self, AskError> {
        let path = match named {
            Some(path) => path.to_owned(),
            None => place::default_store().map_err(broken)?,
        };
        for gate in client::gates().await.unwrap_or_default() {
            let info = gate.rpc.info().await?;
            if named.is_none() || Path::new(&info.store) == path {
                return Ok(Self::Gate(Box::new(gate)));
            }
        }
        Self::open(path).await.map(Self::File)
    }

    async fn open(path: PathBuf) -> Result<Store, AskError> {
        if !path.exists() {
            return Err(AskError::Broken(format!("there is no record at `{}` yet", path.display())));
        }
        let store = Store::open(&path);
        store.ready().await.map_err(store_failed)?;
        Ok(store)
    }

    async fn history(&self, before: Option<HoldId>, limit: usize) -> Result<Vec<HoldView>, AskError> {
        match self {
            Self::Gate(gate) => Ok(gate.rpc.history(before, limit).await?.holds),
            Self::File(store) => {
                let records = store
                    .history(HistoryFilter { limit, before, ..HistoryFilter::default() })
                    .await
                    .map_err(store_failed)?;
                Ok(records.iter().map(|record| HoldView::new(record, false)).collect())
            }
        }
    }

    async fn verify(&self, against: Option<Checkpoint>) -> Result<VerificationView, AskError> {
        match self {
            Self::Gate(gate) => Ok(gate.rpc.verify(against.map(|kept| kept.to_string())).await?),
            Self::File(store) => {
                let verification = store.verify(against).await.map_err(store_failed)?;
                Ok(VerificationView::from(&verification))
            }
        }
    }
}

fn broken(error: impl std::error::Error) -> AskError {
    AskError::Broken(error.to_string())
}

fn store_failed(error: StoreError) -> AskError {
    AskError::Broken(error.to_string())
}

pub(super) fn history(arguments: &HistoryArguments) -> Exit {
    block_on(async {
        let source = Source::find(arguments.store.as_deref()).await?;
        let mut holds: Vec<HoldView> = Vec::new();
        while holds.len() < arguments.limit {
            let wanted = (arguments.limit - holds.len()).min(PAGE_HOLDS_MAX);
            let page = source.history(holds.last().map(|hold| hold.id), wanted).await?;
            let is_last = page.is_empty();
            holds.extend(page);
            if is_last {
                break;
            }
        }
        render::history(&holds, arguments.json);
        Ok(Exit::Done)
    })
}

pub(super) fn audit(command: &AuditCommand) -> Exit {
    match command {
        AuditCommand::Verify { against, store, json } => verify(against.as_deref(), store.as_deref(), *json),
        AuditCommand::Export { store } => block_on(export(store.as_deref())),
    }
}

fn verify(against: Option<&str>, store: Option<&Path>, json: bool) -> Exit {
    let against = match against.map(str::parse::<Checkpoint>).transpose() {
        Ok(against) => against,
        Err(error) => return render::usage(&error),
    };
    block_on(async {
        let verification = Source::find(store).await?.verify(against).await?;
        render::verification(&verification, json);
        Ok(if verification.sound { Exit::Done } else { Exit::Failed })
    })
}

async fn export(store: Option<&Path>) -> Result<Exit, AskError> {
    let path = match store {
        Some(path) => path.to_owned(),
        None => place::default_store().map_err(broken)?,
    };
    let store = Source::open(path).await?;
    let mut after = 0;
    loop {
        let lines = store.audit_events(after, EVENTS_AT_ONCE).await.map_err(store_failed)?;
        let Some(last) = lines.last() else { return Ok(Exit::Done) };
        after = last.seq;
        lines.iter().for_each(|line| render::line(&line.line));
    }
}
