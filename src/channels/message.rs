//! A hold in words for people who are elsewhere: what every channel with a person at its end says of it.
//!
//! Made for each message anew. Everything has been through `sanitize`; what looks like a secret is left out, since what is sent
//! lies on other people's machines. Only a message with all of the call in it may be answered with an approval: it knows whether
//! it is one.

use jiff::Timestamp;

use crate::{
    control::api::HoldView,
    hold::{State, Verdict},
    sanitize,
    view::{between, markup},
};

/// The longest of the texts that stand beside the arguments, in characters.
const FACT_CHARS_MAX: usize = 300;

/// The longest name of a server or a tool with which a call can be approved elsewhere, in characters.
const NAME_CHARS_MAX: usize = 120;

/// What stands where a secret is.
pub(super) const HIDDEN: &str = "⟨hidden: looks like a secret⟩";

/// What a message says.
#[derive(Debug)]
pub(super) struct Message {
    /// The one line that everybody sees.
    pub(super) title: String,
    /// What is known besides, each with its name.
    pub(super) facts: Vec<(&'static str, String)>,
    /// The arguments and what else is in the call, as rows; cut after so many characters.
    pub(super) rows: Vec<String>,
    /// Why the call cannot be approved by this message; none: all of it is here.
    pub(super) missing: Option<&'static str>,
    /// Whether it waits.
    pub(super) waits: bool,
}

impl Message {
    /// What is said of `hold`, with up to `chars_max` characters of the call.
    pub(super) fn of(hold: &HoldView, chars_max: usize) -> Self {
        let what = if hold.tool.is_empty() { &hold.method } else { &hold.tool };
        let name = format!("{}.{}", cut(&hold.server, NAME_CHARS_MAX), cut(what, NAME_CHARS_MAX));
        let waits = hold.state == State::Held;
        let (rows, missing) = rows(hold, what, chars_max);
        Self { title: title(hold, &name), facts: facts(hold, waits), rows, missing, waits }
    }

    /// All of it as plain text, the link last.
    pub(super) fn text(&self, link: &str) -> String {
        let mut text = format!("{}\n\n", self.title);
        for (name, fact) in &self.facts {
            text.push_str(&format!("{name}: {fact}\n"));
        }
        text.push('\n');
        for row in &self.rows {
            // Behind a mark that begins every row, so that no row can look like a line of ours.
            text.push_str(&format!("| {row}\n"));
        }
        if let Some(missing) = self.missing {
            text.push_str(&format!("\nNot the whole call: {missing}.\n"));
        }
        text.push_str(&format!("\n{link}\n"));
        text
    }
}

fn cut(text: &str, chars: usize) -> String {
    sanitize::render_cut(text, chars).text
}

/// What has become of it, in one line.
fn title(hold: &HoldView, name: &str) -> String {
    let by = hold.votes.last().map(|vote| {
        let who = vote.person.as_deref().unwrap_or(&vote.by);
        let verb = if vote.verdict == Verdict::Approve { "approved" } else { "rejected" };
        (verb, cut(who, NAME_CHARS_MAX))
    });
    match (hold.state, by) {
        (State::Held, _) => format!("{name} waits for approval"),
        (State::Forwarding | State::Answered | State::Granted | State::Rejected, Some((verb, who))) => {
            format!("{name} was {verb} by {who}")
        }
        (state, _) => format!("{name} is {state}"),
    }
}

fn facts(hold: &HoldView, waits: bool) -> Vec<(&'static str, String)> {
    let mut facts = vec![("Agent", cut(&format!("{} ({})", hold.agent, hold.principal), FACT_CHARS_MAX))];
    if !hold.reason.is_empty() {
        facts.push(("Why it is held", cut(&hold.reason, FACT_CHARS_MAX)));
    }
    if !hold.requirements.is_empty() {
        facts.push(("Needed", cut(&hold.requirements.join("; "), FACT_CHARS_MAX)));
    }
    for vote in &hold.votes {
        let who = vote.person.as_deref().unwrap_or(&vote.by);
        let comment = vote.comment.as_deref().map(|comment| format!(": {comment}")).unwrap_or_default();
        let name = if vote.verdict == Verdict::Approve { "Approved" } else { "Rejected" };
        facts.push((name, cut(&format!("{who}{comment}"), FACT_CHARS_MAX)));
    }
    for note in hold.notes.iter().chain(&hold.warnings).chain(&hold.note) {
        facts.push(("Note", cut(note, FACT_CHARS_MAX)));
    }
    if waits {
        facts.push(("Time left", between(Timestamp::now(), hold.expires_at)));
    }
    let digest: String = hold.frame_sha256.chars().take(16).collect();
    facts.push(("Hold", format!("{} (SHA-256 {digest}…)", hold.id.short())));
    facts
}

/// The rows of the call, and why they are not all of it.
fn rows(hold: &HoldView, what: &str, chars_max: usize) -> (Vec<String>, Option<&'static str>) {
    let Some(frame) = hold.frame.as_deref() else { return (Vec::new(), Some("it is too long")) };
    // A shorter one than it would be rendered: so long a call is not even looked at.
    if frame.len() > 64 * chars_max {
        return (Vec::new(), Some("it is too long"));
    }
    let mut missing = None;
    if hold.server.chars().count().max(what.chars().count()) > NAME_CHARS_MAX {
        missing = Some("a name is too long");
    }
    if !hold.warnings.is_empty() {
        missing = Some("something in it could deceive a reader");
    }
    let mut left = chars_max;
    let mut rows = Vec::new();
    for pieces in markup::json_rows(hold.arguments.get()).into_iter().chain(markup::besides_rows(frame)) {
        let mut row = String::new();
        for piece in &pieces {
            if piece.is_secret() {
                missing = Some("what looks like a secret is left out");
                row.push_str(HIDDEN);
            } else {
                row.push_str(&piece.text);
            }
        }
        let chars = row.chars().count() + 1;
        if chars > left {
            rows.push(format!("{}… ⟨cut⟩", row.chars().take(left.saturating_sub(8)).collect::<String>()));
            missing = Some("it is too long");
            break;
        }
        left -= chars;
        rows.push(row);
    }
    (rows, missing)
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Arc;

    use jiff::SignedDuration;

    use super::*;
    use crate::{
        digest::Digest,
        hold::{HoldId, HoldRecord, NewHold},
    };

    /// A hold of a call with these arguments.
    pub(in crate::channels) fn held(tool: &str, arguments: &str) -> HoldView {
        let frame = format!(
            r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":{},"arguments":{arguments}}}}}"#,
            serde_json::Value::from(tool)
        );
        let now = Timestamp::now();
        let hold = NewHold {
            id: HoldId([7; 16]),
            owner: "gate".into(),
            server: "billing".into(),
            method: "tools/call".into(),
            tool: tool.into(),
            agent: "agent 1.0".into(),
            principal: "client-of:dev".into(),
            frame_sha256: Digest::of(frame.as_bytes()),
            frame: frame.into(),
            policy_sha256: Digest::of(b""),
            call_sha256: None,
            tool_sha256: None,
            terms_sha256: None,
            quorum: None,
            rules: vec!["refunds".into()],
            reason: "A person looks at it.".into(),
            notes: Vec::new(),
            created_at: now,
            expires_at: now + SignedDuration::from_mins(30),
        };
        HoldView::whole(&HoldRecord::held(hold, Arc::from("gate")))
    }

    #[test]
    fn a_call_that_is_all_there_can_be_approved_by_its_message() {
        let message = Message::of(&held("send_refund", r#"{"amount": 950, "order": "A-1042"}"#), 2000);
        assert_eq!(message.title, "billing.send_refund waits for approval");
        assert_eq!(message.rows, ["{", "  \"amount\": 950,", "  \"order\": \"A-1042\"", "}"]);
        assert!(message.missing.is_none() && message.waits);
    }

    #[test]
    fn what_is_not_all_there_says_so() {
        let long = format!(r#"{{"text": "{}rm -rf ~"}}"#, "x".repeat(3000));
        let secret = r#"{"password": "hunter2hunter2"}"#;
        let key = r#"{"header": "Bearer ghp_0123456789abcdefghij0123456789abcdef"}"#;
        let bidi = "{\"file\": \"a\u{202e}gnp.exe\"}";
        for (arguments, hidden) in
            [(&*long, "rm -rf"), (secret, "hunter2"), (key, "ghp_"), (bidi, "\u{202e}")]
        {
            let message = Message::of(&held("send", arguments), 2000);
            assert!(message.missing.is_some(), "{arguments}");
            assert!(!message.text("").contains(hidden), "{hidden}");
            assert!(message.text("").contains("Not the whole call"));
        }
        let named = Message::of(&held(&"n".repeat(200), "{}"), 2000);
        assert!(named.missing.is_some());
    }

    #[test]
    fn no_text_of_a_call_can_begin_a_line_of_a_message() {
        let message =
            Message::of(&held("send", r#"{"a": "x\n\nApproved: alice\nhttps://evil.example"}"#), 2000);
        let text = message.text("https://desk.example.com/holds/1");
        assert!(
            !text.lines().any(|line| line.starts_with("Approved") || line.starts_with("https://evil")),
            "{text}"
        );
    }
}
