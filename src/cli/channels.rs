//! `holdshort channels`: which there are, what they still have to send, and whether they work.

use std::path::{Path, PathBuf};

use super::{ChannelsCommand, audit::open, render, store_path};
use crate::{
    channels::{Channels, settings::SettingsError},
    control::place,
    exit::Exit,
};

/// The configuration where none is given.
const FILE: &str = "desk.yaml";

/// The configuration that is meant: the one that is given, or the usual one if it is there.
pub(super) fn config_path(given: Option<&Path>) -> Option<PathBuf> {
    let usual = || place::config_dir().map(|dir| dir.join(FILE)).filter(|path| path.exists());
    given.map(Path::to_owned).or_else(usual)
}

/// The channels that are configured; none where nobody has configured any.
///
/// # Errors
///
/// With all that is wrong in the configuration.
pub(super) fn load(given: Option<&Path>) -> Result<Channels, SettingsError> {
    config_path(given).map_or_else(|| Ok(Channels::default()), |path| Channels::load(&path))
}

pub(super) fn channels(command: &ChannelsCommand) -> Exit {
    let (ChannelsCommand::List { config, .. } | ChannelsCommand::Test { config, .. }) = command;
    let channels = match load(config.as_deref()) {
        Ok(channels) => channels,
        Err(error) => return render::settings_errors(&error),
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return render::failed(&error),
    };
    match command {
        ChannelsCommand::List { store, json, .. } => {
            let listed = runtime.block_on(list(&channels, store.as_deref(), *json));
            listed.unwrap_or_else(|error| render::error_chain(&error))
        }
        ChannelsCommand::Test { name, .. } => runtime.block_on(test(&channels, name)),
    }
}

async fn list(channels: &Channels, store: Option<&Path>, as_json: bool) -> anyhow::Result<Exit> {
    let path = store_path(store)?;
    // Without a record, nothing was ever to be sent.
    let store = if path.may_exist() { Some(open(&path).await?) } else { None };
    let mut rows = Vec::new();
    for channel in channels.iter() {
        let counts = match &store {
            Some(store) => store.outbox_counts(&channel.outbox).await?,
            None => Default::default(),
        };
        rows.push((channel.outbox.to_string(), channel.kind.word(), counts));
    }
    render::channels(&rows, as_json);
    Ok(Exit::Done)
}

async fn test(channels: &Channels, name: &str) -> Exit {
    let mut exit = Exit::Gone;
    for channel in channels.named(name) {
        let name = &channel.outbox;
        match channel.test().await {
            Ok(()) => {
                render::talk(&format!("`{name}` has taken the message"));
                exit = if exit == Exit::Gone { Exit::Done } else { exit };
            }
            Err(error) => {
                render::talk(&format!("`{name}` has not taken the message: {error}"));
                exit = Exit::Failed;
            }
        }
    }
    if exit == Exit::Gone {
        let mut names: Vec<_> = channels.iter().map(|channel| format!("`{}`", channel.name)).collect();
        names.dedup();
        let known = match names.as_slice() {
            [] => "none is configured".to_owned(),
            names => format!("there is {}", names.join(", ")),
        };
        render::talk(&format!("error: there is no channel `{name}`: {known}"));
    }
    exit
}
