//! The hints in what a server says of its tools.
//!
//! Used by `gate`, which remembers them, and by conditions. A server may say anything: nothing here is proof.

use std::borrow::Cow;

use crate::jsonrpc::scan::members;

/// The hints about a tool (MCP, "Tool annotations"), where the server gives them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Annotations {
    /// It changes nothing.
    pub read_only: Option<bool>,
    /// What it changes may be lost.
    pub destructive: Option<bool>,
    /// Doing it again changes nothing more.
    pub idempotent: Option<bool>,
    /// It reaches out to the world.
    pub open_world: Option<bool>,
}

impl Annotations {
    /// The hints by their names, with the value of each that asks for care.
    pub fn hints(self) -> [(&'static str, Option<bool>, bool); 4] {
        [
            ("readOnlyHint", self.read_only, false),
            ("destructiveHint", self.destructive, true),
            ("idempotentHint", self.idempotent, false),
            ("openWorldHint", self.open_world, true),
        ]
    }

    /// Sets one of them; `false` if there is none of that name.
    pub fn set(&mut self, name: &str, value: bool) -> bool {
        let hint = match name {
            "readOnlyHint" => &mut self.read_only,
            "destructiveHint" => &mut self.destructive,
            "idempotentHint" => &mut self.idempotent,
            "openWorldHint" => &mut self.open_world,
            _ => return false,
        };
        *hint = Some(value);
        true
    }

    /// Reads the raw object. Of a hint that is there twice, none is taken: programs differ about which one counts.
    pub(super) fn parse(value: &str) -> Self {
        let mut found = Self::default();
        let mut seen: Vec<Cow<'_, str>> = Vec::new();
        if !value.starts_with('{') {
            return found;
        }
        for (key, value) in members(value) {
            if seen.contains(&key) {
                return Self::default();
            }
            if let Some(value) = match value {
                "true" => Some(true),
                "false" => Some(false),
                _ => None,
            } {
                found.set(&key, value);
            }
            seen.push(key);
        }
        found
    }
}
