//! Scenarios for text that is not what it seems.

pub(crate) mod corpus;

use proptest::prelude::*;

use super::*;

#[test]
fn plain_text_is_shown_as_it_is() {
    for text in
        ["", "rm -rf /tmp/x", "a  b", "Grüße, 東京, שלום, 😀", "e\u{301}", "${x} {y} <z> 'q' \"r\"", "100 €"]
    {
        assert_eq!(render(text), text);
        assert_eq!(flags(text), []);
    }
}

#[test]
fn what_acts_or_hides_is_shown_as_an_escape() {
    for (text, shown) in [
        ("\u{1b}[2J\u{1b}[H APPROVED", r"\u{1B}[2J\u{1B}[H APPROVED"),
        ("\u{1b}]52;c;x\u{7}", r"\u{1B}]52;c;x\u{7}"),
        ("\u{9b}31m", r"\u{9B}31m"),
        ("a\u{7f}b\0", r"a\u{7F}b\u{0}"),
        ("\u{202e}gnp.exe", r"\u{202E}gnp.exe"),
        ("a\u{2066}b\u{2069}\u{61c}", r"a\u{2066}b\u{2069}\u{61C}"),
        ("a\u{200b}\u{200d}\u{2060}\u{feff}b", r"a\u{200B}\u{200D}\u{2060}\u{FEFF}b"),
        ("a\u{fe0f}\u{e0100}", r"a\u{FE0F}\u{E0100}"),
        ("\u{115f}\u{1160}\u{3164}\u{ffa0}\u{2800}", r"\u{115F}\u{1160}\u{3164}\u{FFA0}\u{2800}"),
        ("\u{e0041}\u{e007f}", r"\u{E0041}\u{E007F}"),
        ("\u{e000}\u{f0000}\u{378}", r"\u{E000}\u{F0000}\u{378}"),
        ("a\u{2028}b\u{2029}c\u{85}d", r"a\u{2028}b\u{2029}c\u{85}d"),
        ("a\u{a0}b\u{3000}c", r"a\u{A0}b\u{3000}c"),
        ("one\ntwo\tthree\r", r"one\ntwo\tthree\r"),
        (r"\u{202E}", r"\\u{202E}"),
        (r"\n", r"\\n"),
        ("⟨9 spaces⟩", r"\u{27E8}9 spaces\u{27E9}"),
        ("\u{301}x", r"\u{301}x"),
        (" \u{301}", r" \u{301}"),
    ] {
        assert_eq!(render(text), shown);
        assert_eq!(unrender(shown).as_deref(), Some(text));
    }
}

#[test]
fn a_run_of_white_space_is_counted_and_not_shown() {
    let text = format!("ls{}; rm -rf ~", " ".repeat(4_998));
    assert_eq!(render(&text), "ls⟨4998 spaces⟩; rm -rf ~");
    assert_eq!(render(&"\n".repeat(40)), r"⟨40 × \n⟩");
    assert_eq!(render(&"\u{200b}".repeat(9)), r"⟨9 × \u{200B}⟩");
    assert_eq!(render("         "), "⟨9 spaces⟩");
    assert_eq!(render("        x"), "        x");
    assert_eq!(
        render(&format!("a{}", "\u{301}".repeat(10_004))),
        "a\u{301}\u{301}\u{301}\u{301}⟨10000 × \\u{301}⟩"
    );
}

#[test]
fn a_cut_says_how_much_is_missing_and_never_cuts_an_escape() {
    let shown = render_cut("abc\u{202e}def", 3);
    assert_eq!((shown.text.as_str(), shown.hidden_chars), ("abc⟨… 4 more characters⟩", 4));
    assert_eq!(render_cut("abc\u{202e}def", 5).text, "abc⟨… 4 more characters⟩");
    assert_eq!(render_cut("abc\u{202e}def", 11).text, r"abc\u{202E}⟨… 3 more characters⟩");
    assert_eq!(render_cut("abcdef", 6), Shown { text: "abcdef".to_owned(), hidden_chars: 0 });
    let spaces = render_cut(&format!("a{}b", " ".repeat(1_000)), 14);
    assert_eq!((spaces.text.as_str(), spaces.hidden_chars), ("a⟨1000 spaces⟩⟨… 1 more characters⟩", 1));
    assert_eq!(render_cut("abc", 0).hidden_chars, 3);
}

#[test]
fn what_is_odd_is_named() {
    let hidden: String = "run rm".chars().map(|c| char::from_u32(0xe0000 + u32::from(c)).unwrap()).collect();
    for (text, expected) in [
        ("\u{1b}[2J".to_owned(), vec![Flag::Control]),
        ("a\u{202e}b".to_owned(), vec![Flag::Bidi]),
        ("a\u{200b}b".to_owned(), vec![Flag::Invisible]),
        (format!("hi{hidden}"), vec![Flag::TagText("run rm".to_owned())]),
        ("d\u{430}nger".to_owned(), vec![Flag::MixedScript]),
        ("a\u{20}\n\u{20}\n\u{20}\n\u{20}\n\u{20}b".to_owned(), vec![Flag::LongWhitespace]),
        (format!("a{}", "\u{301}".repeat(5)), vec![Flag::StackedMarks]),
        ("\u{e000}".to_owned(), vec![Flag::Unassigned]),
        ("\u{1b}\u{202e}\u{200b}".to_owned(), vec![Flag::Control, Flag::Bidi, Flag::Invisible]),
    ] {
        assert_eq!(flags(&text), expected, "{text:?}");
    }
    assert_eq!(flags("line one\n\tline two"), []);
}

#[test]
fn hidden_tag_text_is_quoted_up_to_a_limit() {
    let hidden: String = std::iter::repeat_n('\u{e0041}', 5_000).collect();
    assert_eq!(flags(&hidden), [Flag::TagText("A".repeat(200))]);
}

#[test]
fn mixed_scripts_are_those_no_one_writes_together() {
    for name in ["d\u{430}nger", "p\u{430}ypal", "ехаmple", "\u{3bf}pen"] {
        assert!(is_mixed_script(name), "{name}");
    }
    for name in ["danger", "опасно", "危険な操作", "삭제하기漢字", "get_price_2", "größe", ""]
    {
        assert!(!is_mixed_script(name), "{name}");
    }
}

#[test]
fn folding_makes_one_of_all_that_a_lenient_reader_takes_for_one() {
    for name in [
        "Method",
        "METHOD",
        "method\0",
        "\u{feff}method",
        " method ",
        "\u{ff2d}ethod",
        "me\u{ad}thod",
        "me\u{e0061}thod",
    ] {
        assert_eq!(fold(name), "method", "{name:?}");
    }
    assert_eq!(fold("param\u{17f}"), "params");
    assert_eq!(fold("\u{212a}ey"), "key");
    assert_eq!(fold("e\u{301}"), fold("\u{c9}"));
    assert_eq!(fold("_meta"), "_meta");
    assert_ne!(fold("m\u{435}thod"), "method");
}

#[test]
fn every_character_can_be_read_back_from_its_rendering() {
    for c in ('\0'..=char::MAX).filter(|c| *c != 'a') {
        let text = format!("{c}a{c}");
        let shown = render(&text);
        assert_eq!(unrender(&shown).as_deref(), Some(text.as_str()), "{c:?}");
        assert!(shown.chars().all(is_plain), "{c:?}");
    }
}

#[test]
fn what_was_never_rendered_is_not_read_back() {
    for shown in [
        r"\u{41}",
        r"\u{0041}",
        r"\u{202e}",
        r"\x",
        r"\",
        r"\u{",
        r"\u{110000}",
        "⟨3 spaces⟩",
        "⟨9 spaces",
        "⟩",
        "\u{1b}",
        r"⟨9 × a⟩",
        "⟨99999999999999999999 spaces⟩",
        "⟨999999999999 spaces⟩",
        "         ",
    ] {
        assert_eq!(unrender(shown), None, "{shown}");
    }
}

proptest! {
    #[test]
    fn any_rendering_can_be_undone(text in text()) {
        let shown = render(&text);
        prop_assert_eq!(unrender(&shown), Some(text.clone()));
        prop_assert!(shown.chars().all(is_plain));
    }

    #[test]
    fn a_cut_rendering_is_the_beginning_of_the_whole(text in text(), max in 0_usize..40) {
        let cut = render_cut(&text, max);
        let kept = cut.text.rsplit_once("⟨…").map_or(cut.text.as_str(), |(kept, _)| kept);
        prop_assert!(render(&text).starts_with(kept));
        prop_assert!(kept.chars().count() <= max);
        prop_assert_eq!(cut.hidden_chars == 0, render(&text).chars().count() <= max);
    }
}

/// Texts with many odd characters and runs.
fn text() -> impl Strategy<Value = String> {
    let c = prop_oneof![
        any::<char>(),
        proptest::sample::select(vec![
            ' ', '\n', '\\', '⟨', '⟩', 'u', '{', '}', '9', '\u{301}', '\u{202e}', 'a', '×', '…'
        ]),
    ];
    proptest::collection::vec((c, 1_usize..14), 0..12)
        .prop_map(|runs| runs.into_iter().flat_map(|(c, count)| std::iter::repeat_n(c, count)).collect())
}

#[test]
fn json_text_keeps_its_value_and_loses_what_is_not_plain() {
    let hostile = "\u{9b}2J\u{7f}\u{202e}txt\u{200b}\u{e0041}\u{e000}\u{85}😀 Grüße \"\\\n";
    let value = serde_json::json!({ hostile: [hostile, 1.5e300, null] });
    for text in [serde_json::to_string(&value).unwrap(), serde_json::to_string_pretty(&value).unwrap()] {
        let plain = plain_json(&text);
        assert!(plain.chars().all(|c| c == '\n' || is_plain(c)), "{plain}");
        assert!(plain.contains("😀 Grüße") && plain.contains("\\u202e") && plain.contains("\\udb40\\udc41"));
        assert_eq!(serde_json::from_str::<serde_json::Value>(&plain).unwrap(), value);
        assert_eq!(plain_json(&plain), plain);
    }
    assert_eq!(plain_json("{\"a\":\r\t1}"), "{\"a\":  1}", "nothing returns to the begin of the line");
}

#[test]
fn a_text_is_cut_by_the_columns_it_takes() {
    assert_eq!(columns("abc"), 3);
    assert_eq!(columns("東京"), 4);
    assert_eq!(columns("e\u{301}"), 1);
    assert_eq!(cut_columns("abcdef", 6), "abcdef");
    assert_eq!(cut_columns("abcdefg", 6), "abc⟨…⟩");
    assert_eq!(cut_columns("東京東京", 7), "東京⟨…⟩");
    assert_eq!(split_columns("e\u{301}e\u{301}x", 1), ("e\u{301}", "e\u{301}x"), "marks stay where they are");
    assert_eq!(split_columns("東", 1), ("東", ""), "a row is never empty");
    assert_eq!(render("⏎"), r"\u{23CE}", "no text ends a row by itself");
}

proptest! {
    #[test]
    fn any_json_keeps_its_value_and_is_plain(text in any::<String>()) {
        let plain = plain_json(&serde_json::to_string(&text).unwrap());
        prop_assert!(plain.chars().all(is_plain));
        prop_assert_eq!(serde_json::from_str::<String>(&plain).unwrap(), text);
    }

    #[test]
    fn any_text_is_split_into_pieces_that_fit(text in any::<String>(), width in 2_usize..40) {
        let shown = render(&text);
        let (mut rest, mut pieces) = (&*shown, String::new());
        while !rest.is_empty() {
            let (piece, after) = split_columns(rest, width);
            // A letter with marks that take room of their own is not parted.
            prop_assert!(!piece.is_empty() && columns(piece) <= width.max(6));
            pieces.push_str(piece);
            rest = after;
        }
        prop_assert_eq!(pieces, shown);
    }
}
