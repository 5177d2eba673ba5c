//! `holdshort audit tail` and `audit export`: the events of the record for other programs, as they are stored or as CloudEvents.
//!
//! Reads the record itself. What is printed as `jsonl` is byte for byte what the hashes are over; CloudEvents carry the same line with
//! its hash, and the bytes of the call that it is about.

use std::time::Duration;

use serde_json::{Value, json};

use super::{
    EventFormat, ExportArguments, TailArguments,
    audit::{EVENTS_AT_ONCE, open},
    render, store_path,
};
use crate::{
    audit::{AuditLine, EventKind, Occasion},
    control::client::AskError,
    exit::Exit,
    hold::State,
    store::Store,
};

/// How often it is looked for new events.
const LOOK: Duration = Duration::from_millis(200);

/// The version of the attributes and of `data`: a change that readers could stumble over has another one.
const SCHEMA: &str = "urn:holdshort:audit:1";

pub(super) async fn export(arguments: &ExportArguments) -> Result<Exit, AskError> {
    let store = open(&store_path(arguments.events.store.as_deref())?).await?;
    let mut after = 0;
    loop {
        let lines = store.audit_events(after, EVENTS_AT_ONCE).await?;
        let Some(last) = lines.last() else { return Ok(Exit::Done) };
        after = last.seq;
        for line in &lines {
            let is_earlier = |since| line.event().is_ok_and(|event| event.at < since);
            if !arguments.since.is_some_and(is_earlier) {
                print(&store, line, arguments.events.format).await?;
            }
        }
    }
}

pub(super) async fn tail(arguments: &TailArguments) -> Result<Exit, AskError> {
    let store = open(&store_path(arguments.events.store.as_deref())?).await?;
    let end = store.checkpoint().await?.seq;
    let mut after = end.saturating_sub(u64::try_from(arguments.lines).unwrap_or(u64::MAX));
    loop {
        let lines = store.audit_events(after, EVENTS_AT_ONCE).await?;
        for line in &lines {
            print(&store, line, arguments.events.format).await?;
            after = line.seq;
        }
        match (lines.is_empty(), arguments.follow) {
            (true, true) => tokio::time::sleep(LOOK).await,
            (true, false) => return Ok(Exit::Done),
            _ => {}
        }
    }
}

async fn print(store: &Store, line: &AuditLine, format: EventFormat) -> Result<(), AskError> {
    match format {
        EventFormat::Jsonl => render::stored_json_line(&line.line),
        EventFormat::Cloudevents => {
            let event = cloud_event(store, line).await?;
            render::stored_json_line(&event.to_string());
        }
    }
    Ok(())
}

/// `line` as a CloudEvent (1.0, JSON format). A line that cannot be read is told as it is.
async fn cloud_event(store: &Store, line: &AuditLine) -> Result<Value, AskError> {
    let data: Value = serde_json::from_str(&line.line).unwrap_or(Value::Null);
    let word = data["kind"].as_str().unwrap_or("unknown").to_owned();
    let mut told = json!({
        "specversion": "1.0",
        "id": line.seq.to_string(),
        "source": format!("urn:holdshort:gate:{}", data["gate"].as_str().unwrap_or_default()),
        "type": format!("holdshort.audit.{word}"),
        "time": data["at"],
        "datacontenttype": "application/json",
        "dataschema": SCHEMA,
        "data": {"event": data, "line": line.line, "sha256": line.hash.to_string()},
    });
    let Ok(event) = line.event() else { return Ok(told) };
    let Some(hold) = event.hold else { return Ok(told) };
    told["subject"] = hold.to_string().into();
    let has_bytes =
        matches!(event.kind, EventKind::State(State::Held) | EventKind::Occasion(Occasion::Edited));
    if has_bytes && let Some(record) = store.hold(hold).await? {
        let edited = record.edit.as_ref().filter(|_| event.kind == EventKind::Occasion(Occasion::Edited));
        let frame = edited.map_or(&record.hold.frame, |edit| &edit.frame);
        // The bytes of the event, and not those of a retry that took their place.
        if event.frame_sha256.is_some_and(|digest| digest == crate::digest::Digest::of(frame)) {
            told["data"]["frame"] = String::from_utf8_lossy(frame).into();
        }
    }
    Ok(told)
}
