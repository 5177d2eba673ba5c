//! The terminal UI on a terminal in memory: what a person reads, presses and causes.

use bytes::Bytes;
use ratatui::{Terminal, backend::TestBackend};

use super::*;
use crate::{
    cli::watch::draw::draw,
    control::{api::Watched, client::Silent, place::Registered},
    digest::Digest,
    hold::{HoldRecord, NewHold},
    sanitize::{self, tests::corpus::corpus},
    view,
};

fn hold(number: u8, tool: &str, arguments: &str) -> HoldView {
    let params = format!("{{\"name\":{},\"arguments\":{arguments}}}", serde_json::Value::from(tool));
    let frame = format!("{{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\",\"params\":{params}}}");
    let created_at = Timestamp::now();
    let hold = NewHold {
        id: HoldId([number; 16]),
        owner: "gate".into(),
        server: "billing".into(),
        method: "tools/call".into(),
        tool: tool.into(),
        agent: "agent \u{202e}1".into(),
        principal: "client-of:alice".into(),
        frame_sha256: Digest::of(frame.as_bytes()),
        call_sha256: None,
        terms_sha256: None,
        quorum: None,
        tool_sha256: None,
        frame: Bytes::from(frame),
        policy_sha256: Digest::of(b""),
        rules: Vec::new(),
        reason: "A person looks at it.".into(),
        notes: Vec::new(),
        created_at,
        expires_at: created_at + jiff::SignedDuration::from_mins(30),
    };
    HoldView::whole(&HoldRecord::held(hold, "gate".into()))
}

fn with(holds: &[HoldView]) -> Screen {
    let mut screen = Screen::default();
    for hold in holds {
        let watched = Box::new(Watched::held(hold.clone()));
        screen.heard(Followed::News { instance: "gate".to_owned(), watched });
    }
    screen
}

/// What is on a terminal of this size.
fn seen(screen: &mut Screen, columns: u16, rows: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(columns, rows)).unwrap();
    terminal.draw(|frame| draw(screen, frame)).unwrap();
    terminal.backend().to_string()
}

fn press(screen: &mut Screen, code: KeyCode) -> Asked {
    screen.key(KeyEvent::new(code, KeyModifiers::NONE))
}

fn type_in(screen: &mut Screen, text: &str) {
    for c in text.chars() {
        assert_eq!(press(screen, KeyCode::Char(c)), Asked::Nothing);
    }
}

#[test]
fn a_gate_that_does_not_answer_is_told_of_until_it_has_gone() {
    let mut screen = with(&[]);
    assert!(!seen(&mut screen, 100, 12).contains("no answer"));
    let registered = Registered { instance: "stuck".to_owned(), pid: 4711, socket: "gate.sock".into() };
    screen.heard(Followed::Silent(Silent { registered, why: "time is over".to_owned() }));
    assert!(seen(&mut screen, 100, 12).contains("no answer from the gate of process 4711"));
    screen.heard(Followed::Gone { instance: "stuck".to_owned() });
    assert!(!seen(&mut screen, 100, 12).contains("no answer"));
}

#[test]
fn a_call_is_chosen_read_and_approved() {
    let holds = [hold(1, "first", "{}"), hold(2, "send_refund", r#"{"amount":950}"#)];
    let mut screen = with(&holds);
    let list = seen(&mut screen, 100, 12);
    assert!(list.contains("2 waiting") && list.contains("send_refund") && list.contains("950"), "{list}");
    press(&mut screen, KeyCode::Char('j'));
    assert_eq!(press(&mut screen, KeyCode::Enter), Asked::Show(holds[1].id));
    screen.shown(Ok(Box::new(holds[1].clone())));
    let whole = seen(&mut screen, 100, 40);
    assert!(
        whole.contains("\"amount\": 950") && whole.contains("tools/call") && whole.contains("a approve"),
        "{whole}"
    );
    press(&mut screen, KeyCode::Char('a'));
    type_in(&mut screen, "checkd");
    press(&mut screen, KeyCode::Backspace);
    type_in(&mut screen, "ed");
    assert!(seen(&mut screen, 100, 40).contains("APPROVE with comment"));
    let comment = Some("checked".to_owned());
    let shown = holds[1].shown();
    assert!(shown.is_some());
    let decided = Asked::Decide { id: holds[1].id, verdict: Verdict::Approve, comment, shown };
    assert_eq!(press(&mut screen, KeyCode::Enter), decided);
    screen.decided(holds[1].id, Ok(Resolved { id: holds[1].id, state: State::Forwarding }));
    assert!(seen(&mut screen, 100, 12).contains("forwarding"));
}

#[test]
fn a_long_call_is_approved_only_after_its_end_was_seen() {
    let lines: Vec<_> = (0..80).map(|n| format!("\"line {n}\"")).collect();
    let long = hold(1, "write", &format!("{{\"lines\":[{}]}}", lines.join(",")));
    let mut screen = with(std::slice::from_ref(&long));
    screen.shown(Ok(Box::new(long.clone())));
    seen(&mut screen, 80, 20);
    // It can be rejected by what was seen of it, which was not all.
    press(&mut screen, KeyCode::Char('r'));
    type_in(&mut screen, "no");
    let comment = Some("no".to_owned());
    let rejected = Asked::Decide { id: long.id, verdict: Verdict::Reject, comment, shown: None };
    assert_eq!(press(&mut screen, KeyCode::Enter), rejected);
    assert_eq!(press(&mut screen, KeyCode::Char('a')), Asked::Nothing);
    assert!(screen.typed.is_none() && seen(&mut screen, 80, 20).contains("read it to the end"));
    for _ in 0..30 {
        press(&mut screen, KeyCode::Char(' '));
        seen(&mut screen, 80, 20);
    }
    press(&mut screen, KeyCode::Char('a'));
    let (comment, shown) = (None, long.shown());
    let decided = Asked::Decide { id: long.id, verdict: Verdict::Approve, comment, shown };
    assert_eq!(press(&mut screen, KeyCode::Enter), decided);
}

#[test]
fn a_rejection_says_why_and_esc_decides_nothing() {
    let one = hold(1, "danger", "{}");
    let mut screen = with(std::slice::from_ref(&one));
    screen.shown(Ok(Box::new(one.clone())));
    seen(&mut screen, 80, 30);
    press(&mut screen, KeyCode::Char('r'));
    assert_eq!(press(&mut screen, KeyCode::Enter), Asked::Nothing);
    assert!(screen.typed.is_some(), "it is still asked for");
    type_in(&mut screen, "no");
    assert_eq!(press(&mut screen, KeyCode::Esc), Asked::Nothing);
    assert!(screen.typed.is_none());
    press(&mut screen, KeyCode::Char('r'));
    type_in(&mut screen, "not today");
    let comment = Some("not today".to_owned());
    assert_eq!(
        press(&mut screen, KeyCode::Enter),
        Asked::Decide { id: one.id, verdict: Verdict::Reject, comment, shown: one.shown() }
    );
}

#[test]
fn nothing_of_a_call_leaves_its_row_or_acts_on_the_terminal() {
    let odd = hold(
        1,
        "x\u{1b}[2J\nApproved by 2/2",
        r#"{"a":"\u001b[2J\u202egnp.exe","b":"                                        ; rm -rf ~"}"#,
    );
    let mut screen = with(std::slice::from_ref(&odd));
    let list = seen(&mut screen, 120, 10);
    // The head, the title of the table, one row for the hold; the rest is empty but for the foot.
    assert_eq!(list.lines().filter(|line| line.contains("billing")).count(), 1, "{list}");
    assert!(list.contains("x\\u{1B}[2J\\nApproved"), "{list}");
    screen.shown(Ok(Box::new(odd)));
    let whole = seen(&mut screen, 120, 40);
    for part in ["WARNING", "\\u{202E}gnp.exe", "⟨40 spaces⟩; rm -rf ~", "by its own word"] {
        assert!(whole.contains(part), "{part} in {whole}");
    }
    assert!(whole.chars().all(|c| c == '\n' || sanitize::is_plain(c)), "{whole}");
    for (columns, rows) in [(20, 5), (39, 30), (60, 7)] {
        assert!(seen(&mut screen, columns, rows).contains("too small"));
        assert!(screen.detail.is_none(), "nothing is decided that cannot be seen");
    }
}

#[test]
fn a_search_narrows_the_list_and_a_decision_elsewhere_is_told() {
    let holds = [hold(1, "first", "{}"), hold(2, "second", r#"{"to":"bob"}"#)];
    let mut screen = with(&holds);
    press(&mut screen, KeyCode::Char('/'));
    type_in(&mut screen, "BOB");
    press(&mut screen, KeyCode::Enter);
    let list = seen(&mut screen, 100, 10);
    assert!(list.contains("second") && !list.contains("first"), "{list}");
    press(&mut screen, KeyCode::Esc);
    assert!(seen(&mut screen, 100, 10).contains("first"));
    let mut gone = holds[0].clone();
    gone.state = State::Withdrawn;
    let watched = Box::new(Watched::ended(gone));
    screen.heard(Followed::News { instance: "gate".to_owned(), watched });
    let list = seen(&mut screen, 100, 10);
    assert!(list.contains("1 waiting") && list.contains("withdrawn") && !list.contains("first"), "{list}");
    assert_eq!(press(&mut screen, KeyCode::Char('h')), Asked::Past);
    screen.past(Ok(vec![holds[0].clone()]));
    assert!(seen(&mut screen, 100, 10).contains("BECAME"));
    press(&mut screen, KeyCode::Esc);
    assert_eq!(press(&mut screen, KeyCode::Char('q')), Asked::End);
}

/// The rows of a terminal, each without the white space at its end.
fn rows(screen: &mut Screen, columns: u16, height: u16) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(columns, height)).unwrap();
    terminal.draw(|frame| draw(screen, frame)).unwrap();
    let buffer = terminal.backend().buffer();
    let row_of = |row: u16| {
        let (mut text, mut column) = (String::new(), 0);
        while column < columns {
            let symbol = buffer[(column, row)].symbol();
            text.push_str(symbol);
            // A wide character takes two cells.
            column += u16::try_from(ratatui::text::Span::raw(symbol).width()).unwrap().max(1);
        }
        text.trim_end().to_owned()
    };
    (0..height).map(row_of).collect()
}

#[test]
fn no_text_of_a_call_leaves_its_place_on_the_screen_and_all_of_it_comes_by() {
    const COLUMNS: u16 = 120;
    const HEIGHT: u16 = 40;
    for text in corpus() {
        let value = serde_json::Value::from(&*text);
        let arguments = format!("{{\"a\":{value},{value}:1}}");
        // In the arguments, and as a name (without one it is no call of a tool).
        let named = hold(1, if text.is_empty() { "pay" } else { &text }, "{}");
        for (mut call, arguments) in [(hold(1, "pay", &arguments), Some(&arguments)), (named, None)] {
            call.reason.clone_from(&text);
            let mut screen = with(std::slice::from_ref(&call));
            // In the list a call is one row, between the head and the foot.
            let list = rows(&mut screen, COLUMNS, HEIGHT);
            assert!(list[0].contains("Holdshort") && list[1].starts_with("ID"), "{list:#?}");
            assert!(list[3..list.len() - 1].iter().all(String::is_empty), "{text:?}: {list:#?}");
            let seen = read(&mut screen, &call, COLUMNS, HEIGHT);
            // The frame is rebuilt from what has been on the screen.
            let frame = seen.iter().skip_while(|row| !row.starts_with("frame ")).skip(1);
            let frame = frame.map_while(|row| row.strip_prefix("  | "));
            let frame: String = frame.map(|row| row.trim_end_matches(sanitize::ROW_GOES_ON)).collect();
            assert_eq!(sanitize::unrender(&frame), call.frame, "{text:?}: {seen:#?}");
            for row in arguments.map_or_else(Vec::new, |raw| view::json_rows(raw, usize::from(COLUMNS) - 4)) {
                assert!(seen.contains(&format!("  | {row}").trim_end().to_owned()), "{row:?} in {seen:#?}");
            }
        }
    }
}

/// Reads `call` to its end, and gives all rows that have been on the screen; each screen holds nothing but what can be seen.
fn read(screen: &mut Screen, call: &HoldView, columns: u16, height: u16) -> Vec<String> {
    screen.shown(Ok(Box::new(call.clone())));
    let mut seen: Vec<String> = Vec::new();
    loop {
        let now = rows(screen, columns, height);
        assert!(now[0].contains("Holdshort"), "{now:#?}");
        assert!(now.iter().flat_map(|row| row.chars()).all(sanitize::is_plain), "{now:#?}");
        let detail = screen.detail.as_ref().unwrap();
        seen = seen.into_iter().take(detail.top).chain(now[2..now.len() - 2].iter().cloned()).collect();
        if detail.is_read {
            return seen;
        }
        press(screen, KeyCode::Char(' '));
    }
}
