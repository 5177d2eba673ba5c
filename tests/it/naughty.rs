//! The Big List of Naughty Strings, and texts that imitate ours, in one call, on a terminal and on a page: what is shown is the call, to the last
//! character, and nothing else; and the bytes of the call are rebuilt from either.

use holdshort::{sanitize, view};
use serde_json::{Value, json};

use crate::{
    desk::{call, desk, gate},
    support::program::Home,
};

#[path = "../../src/sanitize/tests/corpus.rs"]
mod corpus;

/// Columns of the terminal that the test speaks of.
const COLUMNS: usize = 100;

/// What every row of a value begins with on a terminal.
const GUTTER: &str = "  | ";

/// The text of a piece of a page: tags left out, the five escapes undone.
fn text_of(html: &str) -> String {
    let mut text = String::new();
    let mut rest = html;
    while let Some((before, tag)) = rest.split_once('<') {
        text.push_str(before);
        rest = tag.split_once('>').expect("a tag ends").1;
    }
    text.push_str(rest);
    for (escape, c) in [("&#60;", "<"), ("&#62;", ">"), ("&#34;", "\""), ("&#39;", "'"), ("&#38;", "&")] {
        text = text.replace(escape, c);
    }
    text
}

#[test]
fn what_is_shown_of_naughty_strings_is_what_they_are() {
    let home = Home::new();
    let mut gate = gate(&home);
    let list = corpus::corpus();
    gate.send(&call(1, "pay", &json!({ "list": list })));
    let id = home.wait_for_holds(1).remove(0);
    // As JSON they are what they were.
    let shown = home.holdshort(["show", &id, "--json"]);
    let shown: Value = serde_json::from_slice(&shown.stdout).unwrap();
    assert_eq!(shown["arguments"]["list"], json!(list));
    let arguments = json!({ "list": list }).to_string();
    // On a terminal: the rows from which `view` can be shown to lose nothing, each behind the gutter.
    let printed = home.command().env("COLUMNS", COLUMNS.to_string()).args(["show", &id]).output().unwrap();
    let printed = String::from_utf8(printed.stdout).unwrap();
    let rows = view::json_rows(&arguments, COLUMNS - GUTTER.len());
    let value: String = rows.iter().map(|row| format!("{GUTTER}{row}\n")).collect();
    assert!(printed.contains(&value), "the arguments stand there, row by row");
    assert!(
        printed.chars().all(|c| c == '\n' || holdshort::sanitize::is_plain(c)),
        "and nothing acts on the terminal"
    );
    // The frame is rebuilt from its rows.
    let sent = call(1, "pay", &json!({ "list": list }));
    let frame = printed.lines().skip_while(|line| !line.starts_with("frame ")).skip(1);
    let frame: String = frame
        .map_while(|row| row.strip_prefix(GUTTER))
        .map(|row| row.trim_end_matches(sanitize::ROW_GOES_ON))
        .collect();
    assert_eq!(sanitize::unrender(&frame).as_deref(), Some(&*sent));
    // On a page: the same rows as text, and not one tag of theirs.
    let (desk, cookie) = desk(&home, 1);
    let page = desk.get(&format!("/holds/{id}"), &[("Cookie", &cookie)]).body;
    let (_, value) = page.split_once("aria-label=\"Arguments\">").unwrap();
    let (value, _) = value.split_once("<h2>").or_else(|| value.split_once("<details")).unwrap();
    let lines: Vec<String> = value
        .split("<div class=\"line\">")
        .skip(1)
        .map(|line| text_of(line.split_once("</div>").unwrap().0))
        .collect();
    let expected: Vec<String> = view::markup::json_rows(&arguments)
        .iter()
        .map(|row| {
            let cover = |piece: &view::markup::Piece| {
                if piece.is_secret() {
                    format!("●●●● {} characters{}", piece.chars(), piece.text)
                } else {
                    piece.text.clone()
                }
            };
            row.iter().map(cover).collect()
        })
        .collect();
    assert_eq!(lines, expected);
    let (_, raw) = page.split_once("aria-label=\"The whole message\">").unwrap();
    let (raw, _) = raw.split_once("</div>").unwrap();
    let mut pieces = raw.split("<span class=\"cover\">");
    let first = pieces.next().unwrap().to_owned();
    // Without the covers of what looks like a secret; what is under them stays.
    let raw: String = std::iter::once(first)
        .chain(pieces.map(|piece| piece.split_once("</span>").unwrap().1.to_owned()))
        .collect();
    assert_eq!(sanitize::unrender(&text_of(&raw)), Some(sent), "the frame is rebuilt from the page");
    assert_eq!(page.matches("<script").count(), 1, "the desk's own");
    assert!(!page.contains("onerror=alert") || page.contains("&#60;img"), "what looks like markup is text");
}
