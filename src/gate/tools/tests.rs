//! What one gate knows of tools, in the orders in which lists, answers of the record and people can come.

use super::*;
use crate::mcp::tool_definitions;

fn list(about: &str) -> String {
    format!(r#"{{"tools":[{{"name":"pay","description":"{about}"}}]}}"#)
}

fn digest(about: &str) -> Digest {
    Digest::of(tool_definitions(&list(about))[0].text.as_bytes())
}

fn state(accepted: &str, changed: Option<&str>, revision: u64) -> ToolState {
    ToolState {
        server: "s".into(),
        tool: "pay".into(),
        accepted: digest(accepted),
        is_first: revision == 1,
        changed: changed.map(|about| (digest(about), Timestamp::UNIX_EPOCH)),
        revision,
    }
}

/// Lists `pay`; gives whether there is something to record.
fn see(known: &KnownTools, about: &str) -> bool {
    let text = list(about);
    known.see(&"s".into(), &tool_definitions(&text), Timestamp::UNIX_EPOCH).is_some()
}

fn is_doubted(known: &KnownTools) -> bool {
    known.doubt("s", "pay", &ListedTools::default()) == Some(Doubt::Changed)
}

#[test]
fn an_answer_about_an_earlier_list_clears_nothing() {
    let known = KnownTools::default();
    assert!(see(&known, "pays") && see(&known, "steals") && is_doubted(&known));
    known.merge(vec![state("pays", None, 1)], true, None);
    assert!(is_doubted(&known), "that the tool has changed is about to be recorded");
    known.merge(vec![state("pays", Some("steals"), 2)], true, None);
    assert!(is_doubted(&known));
    // The first answer, once more, and then what a person has said.
    known.merge(vec![state("pays", None, 1)], true, None);
    assert!(is_doubted(&known));
    known.merge(vec![state("steals", None, 3)], false, None);
    assert!(!is_doubted(&known));
    assert!(!see(&known, "steals") && !is_doubted(&known), "nothing is new of it");
}

#[test]
fn what_could_not_be_recorded_is_tried_again_and_counts_meanwhile() {
    let known = KnownTools::default();
    let all = Arc::clone(&known.recordings);
    let turns = all.try_acquire_many(u32::try_from(RECORDINGS_MAX).unwrap()).unwrap();
    assert!(!see(&known, "pays") && !see(&known, "steals"), "there is no turn to record it");
    assert!(is_doubted(&known));
    drop(turns);
    assert!(see(&known, "steals"));
    // Another gate had seen a third definition first: that one counts.
    known.merge(vec![state("listens", Some("steals"), 7)], true, None);
    assert!(is_doubted(&known));
    known.merge(vec![state("listens", None, 8)], false, None);
    assert!(!is_doubted(&known), "somebody wants it as it was");
    assert!(see(&known, "steals") && is_doubted(&known), "and the server goes on");
}

#[test]
fn a_tool_beyond_what_is_remembered_is_in_doubt_and_the_others_are_not() {
    let known = KnownTools::default();
    assert!(see(&known, "pays"));
    let tools: Vec<_> = (0..TOOLS_PER_SERVER_MAX).map(|n| format!(r#"{{"name":"t{n}"}}"#)).collect();
    let many = format!(r#"{{"tools":[{}]}}"#, tools.join(","));
    drop(known.see(&"s".into(), &tool_definitions(&many), Timestamp::UNIX_EPOCH));
    let doubt = |server: &str, tool: &str| known.doubt(server, tool, &ListedTools::default());
    assert_eq!((doubt("s", "pay"), doubt("s", "t0")), (None, None));
    let last = format!("t{}", TOOLS_PER_SERVER_MAX - 1);
    assert_eq!((doubt("s", &last), doubt("other", &last)), (Some(Doubt::TooMany), None));
}

#[test]
fn where_the_record_could_never_be_read_every_tool_is_in_doubt() {
    let known = KnownTools::default();
    known.set_reading(Reading::Failed);
    assert_eq!(known.doubt("s", "pay", &ListedTools::default()), Some(Doubt::Unread));
    known.set_reading(Reading::Done);
    assert_eq!(known.doubt("s", "pay", &ListedTools::default()), None);
}
