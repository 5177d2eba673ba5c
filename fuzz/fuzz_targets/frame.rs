//! The strict profile against another parser (serde_json): what we accept, it reads in the same way; and a text that any
//! lenient last-wins reader takes for a `tools/call` is one to us as well, or is refused.
#![no_main]

use std::{collections::BTreeMap, fmt};

use bytes::Bytes;
use holdshort::{
    jsonrpc::{Frame, Kind, scan},
    mcp::{ToolCall, looks_like},
};
use libfuzzer_sys::fuzz_target;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// Reads any JSON, and refuses a repeated key at any depth.
struct NoDuplicates;

impl<'de> Deserialize<'de> for NoDuplicates {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Self)
    }
}

impl<'de> Visitor<'de> for NoDuplicates {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self, E> {
        Ok(Self)
    }

    fn visit_unit<E>(self) -> Result<Self, E> {
        Ok(Self)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self, E> {
        Ok(Self)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self, E> {
        Ok(Self)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self, E> {
        Ok(Self)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self, E> {
        Ok(Self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self, A::Error> {
        while seq.next_element::<Self>()?.is_some() {}
        Ok(Self)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self, A::Error> {
        let mut keys = std::collections::BTreeSet::new();
        while let Some((key, Self)) = map.next_entry::<String, Self>()? {
            if !keys.insert(key) {
                return Err(A::Error::custom("a key is repeated"));
            }
        }
        Ok(Self)
    }
}

/// An object as the lenient read it: the last of repeated keys counts.
fn last_wins(text: &str) -> Option<BTreeMap<String, &RawValue>> {
    serde_json::from_str(text).ok()
}

fn string(raw: Option<&&RawValue>) -> Option<String> {
    serde_json::from_str(raw?.get()).ok()
}

fuzz_target!(|input: &[u8]| {
    let bytes = Bytes::copy_from_slice(input);
    drop(Frame::from_server(bytes.clone()));
    drop(Frame::batch_from_client(&bytes));
    match Frame::from_client(bytes) {
        Ok(frame) => accepted(&frame, input),
        Err(error) => assert!(error.to_string().is_ascii() || error.to_string().contains('±')),
    }
    // Servers that end a line at a bare CR, and the plain reading of the whole.
    let is_accepted = Frame::from_client(Bytes::copy_from_slice(input)).ok();
    let readings: Vec<String> = String::from_utf8_lossy(input).split(['\r', '\n']).map(str::to_owned).collect();
    for reading in readings {
        let Some(envelope) = last_wins(reading.trim_matches(['\0', '\u{feff}', ' '])) else { continue };
        if string(envelope.get("method")).as_deref() == Some("tools/call")
            && let Some(frame) = &is_accepted
        {
            assert_eq!(frame.method(), Some("tools/call"), "a hidden call passes");
        }
    }
});

fn accepted(frame: &Frame, input: &[u8]) {
    assert_eq!(frame.bytes(), input, "the bytes are kept");
    let text = frame.text();
    serde_json::from_str::<NoDuplicates>(text).expect("what we accept is JSON without repeated keys");
    let envelope = last_wins(text).expect("an object");
    let raw = |key: &str| envelope.get(key).map(|raw| raw.get());
    assert_eq!(string(envelope.get("jsonrpc")).as_deref(), Some("2.0"));
    assert_eq!(string(envelope.get("method")).as_deref(), frame.method());
    assert_eq!((raw("params"), raw("result"), raw("error")), (frame.params(), frame.result(), frame.error()));
    assert_eq!(raw("id").is_some(), frame.id().is_some());
    if let (Some(raw), Some(id)) = (raw("id"), frame.id()) {
        // Equal as JSON values; the token differs only where it was written with escapes.
        assert!(raw == id.as_raw() || scan::unescape(raw) == scan::unescape(id.as_raw()));
    }
    assert_eq!(frame.kind() == Kind::Response, frame.method().is_none());
    if frame.method() == Some("tools/call")
        && let Ok(call) = ToolCall::parse(frame)
    {
        let params = last_wins(frame.params().expect("a call has params")).expect("an object");
        assert_eq!(string(params.get("name")).as_deref(), Some(&*call.name));
        assert_eq!(params.get("arguments").map_or("{}", |raw| raw.get()), call.arguments);
    }
    if let Some(method) = frame.method() {
        looks_like(method, "tools/call");
    }
}
