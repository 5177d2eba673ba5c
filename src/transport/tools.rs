//! What a server's list of tools says, for the gate.
//!
//! Used by the session on stdio and by sessions over HTTP. It remembers so much and no more.

use crate::{gate::Caller, mcp, sanitize};

/// Tool names in several scripts that are remembered from the server's lists.
const MIXED_SCRIPT_TOOLS_MAX: usize = 1000;

/// Tools whose definitions are remembered from the server's lists; an approval does not count for others.
const TOOLS_MAX: usize = 10_000;

/// `caller` has seen `result`, the server's answer to `tools/list`.
pub(super) fn learn(caller: &mut Caller, result: &str) {
    let room = MIXED_SCRIPT_TOOLS_MAX.saturating_sub(caller.mixed_script_tools.len());
    let mixed = mcp::tool_names(result).filter(|name| sanitize::is_mixed_script(name)).take(room);
    caller.mixed_script_tools.extend(mixed.map(Into::into));
    for (name, digest) in mcp::tool_definitions(result) {
        if caller.tools.len() < TOOLS_MAX || caller.tools.contains_key(&*name) {
            caller.tools.insert(name.into(), digest);
        }
    }
}
