//! The Big List of Naughty Strings (the npm package of that name) in one call, on a terminal and on a page: what is shown is the call, to
//! the last character, and nothing else.

use std::fs;

use holdshort::view;
use serde_json::{Value, json};

use crate::{
    desk::{call, desk, gate},
    support::{peers::installed, program::Home},
};

/// Columns of the terminal that the test speaks of.
const COLUMNS: usize = 100;

/// What every row of a value begins with on a terminal.
const GUTTER: &str = "  | ";

fn naughty() -> Vec<String> {
    let list = fs::read_to_string(installed("node_modules/big-list-of-naughty-strings/blns.json")).unwrap();
    let list: Vec<String> = serde_json::from_str(&list).unwrap();
    assert!(list.len() > 400, "the list is there");
    list
}

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
    let list = naughty();
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
    assert_eq!(page.matches("<script").count(), 1, "the desk's own");
    assert!(!page.contains("onerror=alert") || page.contains("&#60;img"), "what looks like markup is text");
}
