//! The tools that a server has listed in a session: their definitions, and whether one has become another.
//!
//! A part of `gate`: the session shows it every list, and every call asks it. What a server says is no proof; a definition
//! that changes while it is in use is a warning all the same, because approvals and habits rest on what was there before.

use std::collections::HashMap;

use crate::{
    digest::Digest,
    mcp::{Annotations, tool_definitions},
};

/// Tools of one server whose definitions are remembered.
const TOOLS_MAX: usize = 10_000;

/// What a call is told whose tool has changed.
pub(super) const CHANGED: &str =
    "The server has changed the definition of this tool since it was first listed.";

/// What is known of one tool.
#[derive(Clone, Copy, Debug)]
struct Listed {
    digest: Digest,
    annotations: Annotations,
    has_changed: bool,
}

/// The tools that a server has listed.
#[derive(Clone, Debug, Default)]
pub struct ListedTools {
    tools: HashMap<Box<str>, Listed>,
}

impl ListedTools {
    /// Remembers what the `result` of a `tools/list` says, and which definitions are others than before.
    pub fn learn(&mut self, result: &str) {
        for (name, digest, annotations) in tool_definitions(result) {
            let known = self.tools.get(&*name).copied();
            if known.is_none() && self.tools.len() >= TOOLS_MAX {
                continue;
            }
            let has_changed = known.is_some_and(|known| known.has_changed || known.digest != digest);
            self.tools.insert(name.into(), Listed { digest, annotations, has_changed });
        }
    }

    /// The digest of a tool's definition, where it was listed.
    pub(super) fn digest(&self, tool: &str) -> Option<Digest> {
        self.tools.get(tool).map(|listed| listed.digest)
    }

    /// What the server says of a tool, and whether that is not what it said first.
    pub(super) fn said(&self, tool: &str) -> (Annotations, bool) {
        self.tools.get(tool).map_or_else(Default::default, |listed| (listed.annotations, listed.has_changed))
    }
}
