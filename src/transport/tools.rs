//! What a server's list of tools says, for the gate.
//!
//! Used by the session on stdio and by sessions over HTTP. It remembers so much and no more.

use crate::{gate::Caller, mcp::ToolDefinition, sanitize};

/// Tool names in several scripts that are remembered from the server's lists.
const MIXED_SCRIPT_TOOLS_MAX: usize = 1000;

/// `caller` has seen `listed` in the server's answer to `tools/list`.
pub(super) fn learn(caller: &mut Caller, listed: &[ToolDefinition<'_>]) {
    let room = MIXED_SCRIPT_TOOLS_MAX.saturating_sub(caller.mixed_script_tools.len());
    let names = listed.iter().map(|tool| &*tool.name);
    let mixed = names.filter(|name| sanitize::is_mixed_script(name)).take(room);
    caller.mixed_script_tools.extend(mixed.map(Into::into));
    caller.tools.learn(listed);
}
