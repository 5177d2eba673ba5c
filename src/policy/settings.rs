//! How far a policy acts: its mode, for everything, for a server or for a tool, and which servers are trusted.
//!
//! Read by `document`, asked by the decision. The nearest word counts: a tool's before a server's before the policy's. Where
//! several are as near, the strictest does.

use std::sync::Arc;

use serde::Serialize;

use super::{
    Call,
    diagnostic::{Diagnostic, Source, did_you_mean},
    document::Reader,
    pattern::Pattern,
    yaml::{Node, Value},
};

/// How many servers, and how many tools, a file may have settings for.
pub(super) const SETTINGS_MAX: usize = 1_000;

pub(super) const SERVER_KEYS: [&str; 2] = ["mode", "trusted"];
pub(super) const TOOL_KEYS: [&str; 1] = ["mode"];

/// How far a policy acts. The order is that of strictness.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Nothing is judged: every call runs.
    Disabled,
    /// Calls are judged and recorded, and all of them run.
    Audit,
    /// The rules decide.
    #[default]
    Enforce,
    /// The rules decide, `approved_tools` run, `blocked_tools` do not, and every other call waits.
    ConfirmTools,
    /// Every call waits that no rule denies.
    Blocking,
}

impl Mode {
    /// All of them.
    pub(super) const ALL: [Self; 5] =
        [Self::Disabled, Self::Audit, Self::Enforce, Self::ConfirmTools, Self::Blocking];

    /// The word in a policy.
    pub fn word(self) -> &'static str {
        match self {
            Self::Disabled => "disabled",
            Self::Audit => "audit",
            Self::Enforce => "enforce",
            Self::ConfirmTools => "confirm_tools",
            Self::Blocking => "blocking",
        }
    }
}

/// What a file says of a server or a tool.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Setting {
    pub(super) pattern: Pattern,
    pub(super) mode: Option<Mode>,
    pub(super) trusted: Option<bool>,
}

/// All settings of a policy.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Settings {
    pub(super) mode: Mode,
    pub(super) servers: Vec<Setting>,
    pub(super) tools: Vec<Setting>,
    pub(super) hide_denied_tools: bool,
}

impl Settings {
    /// The mode for a call.
    pub(super) fn mode(&self, call: &Call<'_>) -> Mode {
        if self.servers.is_empty() && self.tools.is_empty() {
            return self.mode;
        }
        let strictest = |settings: &[Setting], fits: &dyn Fn(&Pattern) -> bool| {
            settings.iter().filter(|setting| fits(&setting.pattern)).filter_map(|setting| setting.mode).max()
        };
        let by_tool = call.tool.and_then(|tool| {
            let full = format!("{}.{tool}", call.server);
            // A name with a dot could be taken for a tool of another server.
            let bare = !tool.contains('.');
            strictest(&self.tools, &|pattern| pattern.matches(&full) || (bare && pattern.matches(tool)))
        });
        by_tool
            .or_else(|| strictest(&self.servers, &|pattern| pattern.matches(call.server)))
            .unwrap_or(self.mode)
    }

    /// Whether the hints of this server's tools may make things looser.
    pub(super) fn trusts(&self, server: &str) -> bool {
        let mut said = self
            .servers
            .iter()
            .filter(|setting| setting.pattern.matches(server))
            .filter_map(|setting| setting.trusted)
            .peekable();
        said.peek().is_some() && said.all(|trusted| trusted)
    }
}

impl Reader<'_> {
    /// One of the words of [`Mode`].
    fn mode(&mut self, node: &Node) -> Option<Mode> {
        let written = match &node.value {
            Value::Text(word) => word.as_str(),
            _ => "",
        };
        if let Some(mode) = Mode::ALL.into_iter().find(|mode| mode.word() == written) {
            return Some(mode);
        }
        let words = Mode::ALL.map(Mode::word);
        let hint = did_you_mean(written, words).map(|meant| format!("did you mean `{meant}`?"));
        let message = format!("`mode` is one of {}", words.map(|word| format!("`{word}`")).join(", "));
        self.fail("P0013", node.span.clone(), message, hint.unwrap_or_default());
        None
    }

    /// The mode of everything, with a warning where that lets everything run.
    pub(super) fn own_mode(&mut self, node: &Node) -> Option<Mode> {
        let mode = self.mode(node)?;
        if mode < Mode::Enforce {
            self.problems.push(lets_all_run(self.source, node, mode));
        }
        Some(mode)
    }

    /// `servers:` or `tools:`, patterns with what is set for them.
    pub(super) fn settings(&mut self, node: &Node, what: &str, known: &[&str]) -> Vec<Setting> {
        let mut settings = Vec::new();
        for (name, key, value) in self.entries(node, what, SETTINGS_MAX) {
            let pattern = match Pattern::parse(name) {
                Ok(pattern) => pattern,
                Err(told) => {
                    self.fail(
                        "P0018",
                        key.span.clone(),
                        format!("`{what}`: {told}"),
                        "quote a pattern: \"github*\"",
                    );
                    continue;
                }
            };
            let Some(mut keys) = self.mapping(value, &format!("an entry of `{what}`"), known) else {
                continue;
            };
            let mode = keys.take("mode").and_then(|node| self.mode(node));
            let trusted = keys.take("trusted").and_then(|node| self.flag(node, "trusted"));
            settings.push(Setting { pattern, mode, trusted });
        }
        settings
    }
}

fn lets_all_run(source: &Arc<Source>, node: &Node, mode: Mode) -> Diagnostic {
    let (message, hint) = match mode {
        Mode::Audit => (
            "nothing is held or denied here: calls run, and the record says what would have happened",
            "`mode: enforce` once `holdshort policy learn` shows what you expect",
        ),
        _ => (
            "nothing is judged here: every call runs, and no rule is asked",
            "`mode: audit` lets every call run too, and records what would have happened",
        ),
    };
    Diagnostic::warning("P0208", source, node.span.clone(), message).hint(hint.to_owned())
}
