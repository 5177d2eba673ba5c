//! Rules that cannot do what they seem to say, because of other rules or of servers, or because they are about everything.
//!
//! Called once when a policy is loaded; it only warns. Patterns are compared as they are written, so what it says is certain
//! and what it misses is left to `policy test`.

use std::collections::HashMap;

use super::{Effect, condition::Condition, diagnostic::Diagnostic, document::Draft, pattern::Pattern};

/// Adds a warning for each rule that never decides, that opens everything, or that lets a server decide.
pub(super) fn check(drafts: &[Draft], problems: &mut Vec<Diagnostic>) {
    // The strictest rule without condition for each pattern. A rule about certain servers covers only rules about the same.
    let mut strictest: HashMap<(&str, &str, String), &Draft> = HashMap::new();
    for draft in drafts.iter().filter(|draft| draft.when.is_none()) {
        for (kind, pattern) in patterns(draft) {
            let key = (kind, pattern, servers(draft));
            let known = strictest.entry(key).or_insert(draft);
            if known.effect < draft.effect {
                *known = draft;
            }
        }
    }
    for draft in drafts {
        let own = servers(draft);
        let covering: Vec<Option<&Draft>> = patterns(draft)
            .into_iter()
            .map(|(kind, pattern)| {
                let everything = if kind == "method" { pattern } else { "*" };
                [(pattern, own.as_str()), (pattern, ""), (everything, own.as_str()), (everything, "")]
                    .into_iter()
                    .filter_map(|(pattern, servers)| {
                        strictest.get(&(kind, pattern, servers.to_owned())).copied()
                    })
                    .find(|other| other.effect > draft.effect)
            })
            .collect();
        if let Some(Some(other)) = covering.first()
            && covering.iter().all(Option::is_some)
        {
            let message = format!("the rule `{}` never decides", draft.name);
            let hint = format!(
                "`{}` is about the same calls, has no condition and says {}: the strictest rule wins",
                other.name, other.effect
            );
            let found = Diagnostic::warning("P0202", &draft.source, draft.name_span.clone(), message);
            problems.push(found.hint(hint));
        }
        let every_tool = patterns(draft)
            .iter()
            .any(|(kind, pattern)| *kind == "tool" && matches!(*pattern, "*" | "**" | "*.*"));
        let open = draft.effect == Effect::Allow && draft.when.is_none() && draft.servers.is_empty();
        if open && every_tool {
            let message =
                format!("the rule `{}` lets every tool run that no stricter rule names", draft.name);
            let hint = "name the tools, or the server".to_owned();
            problems.push(
                Diagnostic::warning("P0203", &draft.source, draft.name_span.clone(), message).hint(hint),
            );
        }
        if draft.effect == Effect::Allow && draft.when.as_ref().is_some_and(Condition::reads_annotations) {
            let message = format!(
                "the rule `{}` allows because of what the server itself says of the tool",
                draft.name
            );
            let hint = "that counts only for servers with `trusted: true`, and is no more than their word: name the tools";
            let found = Diagnostic::warning("P0210", &draft.source, draft.name_span.clone(), message);
            problems.push(found.hint(hint.to_owned()));
        }
        let session = ["initialize", "ping"]
            .iter()
            .find(|method| draft.methods.iter().any(|pattern| pattern.matches(method)));
        if let Some(method) = session
            && draft.effect != Effect::Allow
        {
            let message =
                format!("the rule `{}` is also about `{method}`, without which no session works", draft.name);
            let hint = "name the methods, such as `resources/read`".to_owned();
            problems.push(
                Diagnostic::warning("P0207", &draft.source, draft.name_span.clone(), message).hint(hint),
            );
        }
    }
}

/// What the rule is about: tools, or methods; a rule without either is about every tool.
fn patterns(draft: &Draft) -> Vec<(&'static str, &str)> {
    let (kind, list) =
        if draft.tools.is_empty() { ("method", &draft.methods) } else { ("tool", &draft.tools) };
    if list.is_empty() {
        vec![("tool", "*")]
    } else {
        list.iter().map(|pattern| (kind, pattern.text())).collect()
    }
}

/// The servers as one text, nothing for all of them.
fn servers(draft: &Draft) -> String {
    let mut servers: Vec<&str> = draft.servers.iter().map(Pattern::text).collect();
    servers.sort_unstable();
    servers.join("\n")
}
