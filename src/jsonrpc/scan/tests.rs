//! Scenarios for the scanner: the grammar case by case, and its agreement with another parser on arbitrary texts.

mod cases;

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use self::cases::{ACCEPTED, DISPUTED, NOT_UTF8, REFUSED};
use super::*;
use crate::jsonrpc::frame::Frame;

/// The places that a value can have in a client's frame; `@` stands for it.
const PLACES: [&str; 4] = [
    r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"danger","arguments":{"x":@}}}"#,
    r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"danger","arguments":{"x":[0,@,"y"],"z":{}}}}"#,
    r#"{"params":{"arguments":{"x":"shown","y": @ },"name":"danger"},"method":"tools/call","id":1,"jsonrpc":"2.0"}"#,
    r#"{"jsonrpc":"2.0","id":1,"method":"vendor/other","params":{"deep":[[{"x":@}]]}}"#,
];

fn placed(value: &[u8]) -> impl Iterator<Item = Bytes> {
    PLACES.iter().map(move |place| {
        let (before, after) = place.split_once('@').unwrap();
        Bytes::from([before.as_bytes(), value, after.as_bytes()].concat())
    })
}

/// What is wrong with the text as JSON, whether or not its members make a message.
fn fault_of(text: &str) -> Option<Fault> {
    let outline = scan(text, Profile::Strict);
    match (outline.fault, outline.envelope_fault) {
        (None, Some(Fault::DuplicateMember)) => Some(Fault::DuplicateKey),
        (fault, _) => fault,
    }
}

#[test]
fn the_table_is_as_wide_as_the_public_ones() {
    assert!(ACCEPTED.len() + REFUSED.len() + NOT_UTF8.len() + DISPUTED.len() >= 400);
}

#[test]
fn what_all_read_alike_is_accepted_and_kept_byte_for_byte() {
    for &case in ACCEPTED {
        let text = std::str::from_utf8(case).unwrap();
        assert_eq!(fault_of(text), None, "{text}");
        assert_eq!(scan(text, Profile::Loose).fault, None, "{text}");
        for line in placed(case) {
            let frame = Frame::from_client(line.clone()).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(frame.bytes(), &line);
        }
    }
}

#[test]
fn what_is_not_json_is_refused_whole_and_as_a_value() {
    for &case in REFUSED {
        let text = std::str::from_utf8(case).unwrap();
        let is_refused =
            |fault: Option<Fault>| matches!(fault, Some(Fault::Syntax { .. } | Fault::ByteOrderMark));
        assert!(is_refused(fault_of(text)), "{text:?}: {:?}", fault_of(text));
        assert!(is_refused(scan(text, Profile::Loose).fault), "{text:?}");
        assert_eq!(Frame::from_client(Bytes::from_static(case)).unwrap_err().code.0, -32700);
        assert_eq!(Frame::from_server(Bytes::from_static(case)).unwrap_err().code.0, -32700);
        // Inside a frame, some of these make other sense than alone: `1,"a":2` is two members. None is such.
        for line in placed(case) {
            let error = Frame::from_client(line).map(|_| text).unwrap_err();
            assert_eq!((error.code.0, error.id), (-32700, None), "{text:?}");
        }
    }
}

#[test]
fn what_is_not_utf8_is_refused() {
    for &case in NOT_UTF8 {
        for line in placed(case).chain([Bytes::from_static(case)]) {
            assert_eq!(Frame::from_client(line.clone()).unwrap_err().fault, Fault::NotUtf8);
            assert_eq!(Frame::from_server(line).unwrap_err().fault, Fault::NotUtf8);
        }
    }
}

#[test]
fn what_parsers_read_differently_is_refused_with_its_reason() {
    for &(fault, case) in DISPUTED {
        let text = std::str::from_utf8(case).unwrap();
        // A line end inside a string is also a syntax error; the line is found first.
        assert_eq!(fault_of(text), Some(fault), "{text:?}");
        for line in placed(case) {
            assert_eq!(Frame::from_client(line).map(|_| text).unwrap_err().fault, fault, "{text:?}");
        }
    }
}

#[test]
fn no_beginning_of_a_text_is_a_text() {
    let text = r#"{"a":[1.5e+3,-0.25,true,false,null,"\u00e9\n",{"":{}},[]],"b":"é😀"}"#;
    assert_eq!(fault_of(text), None);
    for (end, _) in text.char_indices() {
        assert!(matches!(fault_of(&text[..end]), Some(Fault::Syntax { .. })), "{}", &text[..end]);
    }
}

#[test]
fn any_byte_put_in_or_left_out_is_judged_as_another_parser_does() {
    let text = r#" {"a":[1.5e+3,-0,true,null,"\u0041\n"],"b":{}} "#;
    for at in 0..text.len() {
        let left_out = format!("{}{}", &text[..at], &text[at + 1..]);
        assert_eq!(fault_of(&left_out).is_none(), Checked::of(&left_out).is_some(), "{left_out}");
        for byte in (0..0x80_u8).filter(|byte| !b"\r\n".contains(byte)).map(char::from) {
            let put_in = format!("{}{byte}{}", &text[..at], &text[at..]);
            assert_eq!(fault_of(&put_in).is_none(), Checked::of(&put_in).is_some(), "{put_in:?}");
        }
    }
}

#[test]
fn the_envelope_is_found_whatever_surrounds_it() {
    let text = "  {\"id\" : [1, {\"id\":2}] ,\t\"m\\u0065thod\":{},\"x\":{\"params\":1},\"result\":\"r\"} ";
    let outline = scan(text, Profile::Loose);
    assert_eq!(outline.fault, None);
    let of = |member| outline.member(member).map(|span| span.of(text));
    assert_eq!(of(Member::Id), Some("[1, {\"id\":2}]"));
    assert_eq!(of(Member::Method), Some("{}"));
    assert_eq!(of(Member::Params), None);
    assert_eq!(of(Member::Result), Some("\"r\""));
    assert_eq!(outline.span.of(text), text.trim());
}

#[test]
fn a_million_keys_and_colliding_keys_take_no_more_than_their_share() {
    let keys: Vec<String> = (0..300_000).map(|n| format!("\"{n}\":0")).collect();
    let text = format!("{{{}}}", keys.join(","));
    assert_eq!(fault_of(&text), None);
    let text = format!("{{{},\"299999\":0}}", keys.join(","));
    assert_eq!(fault_of(&text), Some(Fault::DuplicateKey));
    // Many objects of a few keys after a large one.
    let small = vec![r#"{"a":1,"b":2,"c":3}"#; 50_000].join(",");
    assert_eq!(fault_of(&format!("[{{{}}},{small}]", keys.join(","))), None);
}

#[test]
fn walkers_read_what_was_scanned() {
    let text = r#" { "a" : [1 , "]" , {"b":"\"}"}] , "\u0062":-1.5e3,"c":{} , "d":"\\" } "#;
    let found: Vec<(String, &str)> = members(text).map(|(key, value)| (key.into_owned(), value)).collect();
    let expected = [("a", r#"[1 , "]" , {"b":"\"}"}]"#), ("b", "-1.5e3"), ("c", "{}"), ("d", r#""\\""#)];
    assert_eq!(found, expected.map(|(key, value)| (key.to_owned(), value)));
    assert_eq!(elements(expected[0].1).collect::<Vec<_>>(), ["1", r#""]""#, r#"{"b":"\"}"}"#]);
    assert_eq!(
        members("{}").count() + elements("[ ]").count() + members("[]").count() + elements("{}").count(),
        0
    );
}

#[test]
fn a_string_token_is_decoded_and_borrowed_where_it_can_be() {
    assert!(matches!(unescape(r#""plain é""#), Cow::Borrowed("plain é")));
    assert_eq!(unescape(r#""\"\\\/\b\f\n\r\t\u0041\u00e9\ud83d\ude00x""#), "\"\\/\u{8}\u{c}\n\r\tAé😀x");
    // Only a server's text can hold these.
    assert_eq!(unescape(r#""\ud800x\udc00\ud800\ud800\udc00""#), "\u{fffd}x\u{fffd}\u{fffd}\u{10000}");
    assert_eq!(unescape("7"), "");
}

#[test]
fn a_long_string_is_read_as_another_parser_does_wherever_something_stands_in_it() {
    let pieces = [
        "é",
        "\\n",
        "\\\\",
        "\\\"",
        "\\u00e9",
        "\\ud83d\\ude00",
        "\\\\\\\"",
        "\"",
        "\\x",
        "\\",
        "\\u12",
        "\\ud83d",
        "\u{1f}",
        "\t",
    ];
    for before in 0..210 {
        for after in [0, 1, 62, 63, 64, 65, 130] {
            for piece in pieces {
                let text = format!("[\"{}{piece}{}\",\"z\"]", "x".repeat(before), "y".repeat(after));
                let outline = scan(&text, Profile::Strict);
                let ours = fault_of(&text).is_none().then(|| Checked::walked(outline.span.of(&text)));
                assert_eq!(ours, Checked::of(&text), "{piece:?} behind {before} and before {after}");
            }
        }
    }
}

#[test]
fn walkers_end_quietly_on_text_that_was_never_scanned() {
    for text in [
        "",
        "{",
        "[",
        "{\"",
        "{\"a",
        "{\"a\"",
        "{\"a\":",
        "{\"a\":\"",
        "{\"a\":\"\\",
        "[\"\\",
        "[[",
        "[[]",
        "{\"a\":[}",
        "{a:1}",
        "[,]",
        "[1",
        "{\"a\":1",
        "é",
        "[é",
    ] {
        assert!(members(text).count() <= 1 && elements(text).count() <= 1, "{text}");
    }
    for token in ["\"", "\"\"\"", r#""\""#, r#""\u""#, r#""\u00""#, r#""\u00é""#, r#""\é""#, r#""\x""#] {
        unescape(token);
    }
}

/// JSON as another parser (serde_json) reads it, with repeated keys refused and numbers kept as text. `None` where it
/// refuses.
#[derive(Debug, PartialEq)]
enum Checked {
    Scalar(String),
    List(Vec<Checked>),
    Map(BTreeMap<String, Checked>),
}

impl Checked {
    fn of(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    /// The same through our walkers.
    fn walked(raw: &str) -> Self {
        match raw.as_bytes().first() {
            Some(b'{') => {
                Self::Map(members(raw).map(|(key, value)| (key.into_owned(), Self::walked(value))).collect())
            }
            Some(b'[') => Self::List(elements(raw).map(Self::walked).collect()),
            Some(b'"') => Self::Scalar(format!("s{}", unescape(raw))),
            Some(b'-' | b'0'..=b'9') => Self::Scalar(format!("n{:?}", raw.parse::<f64>().unwrap())),
            _ => Self::Scalar(raw.to_owned()),
        }
    }
}

impl<'de> Deserialize<'de> for Checked {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(CheckedVisitor)
    }
}

struct CheckedVisitor;

impl<'de> Visitor<'de> for CheckedVisitor {
    type Value = Checked;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Checked, E> {
        Ok(Checked::Scalar(value.to_string()))
    }

    fn visit_unit<E>(self) -> Result<Checked, E> {
        Ok(Checked::Scalar("null".to_owned()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Checked, E> {
        Ok(Checked::Scalar(format!("s{value}")))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Checked, E> {
        Ok(Checked::Scalar(format!("n{value:?}")))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Checked, E> {
        Ok(Checked::Scalar(format!("n{:?}", value as f64)))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Checked, E> {
        Ok(Checked::Scalar(format!("n{:?}", value as f64)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Checked, A::Error> {
        let mut list = Vec::new();
        while let Some(element) = seq.next_element()? {
            list.push(element);
        }
        Ok(Checked::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Checked, A::Error> {
        let mut members = BTreeMap::new();
        while let Some((key, value)) = map.next_entry::<String, Checked>()? {
            if members.insert(key, value).is_some() {
                return Err(A::Error::custom("a key is repeated"));
            }
        }
        Ok(Checked::Map(members))
    }
}

/// JSON texts, with every kind of white space and escape, and no more depth than is allowed.
fn json() -> impl Strategy<Value = String> {
    let string = proptest::collection::vec(
        prop_oneof![
            4 => "[a-c]",
            1 => any::<char>().prop_filter("written raw", |c| *c >= ' ' && !['"', '\\'].contains(c)).prop_map(String::from),
            1 => proptest::sample::select(vec!["\\n", "\\\"", "\\\\", "\\/", "\\u0061", "\\u0000", "\\ud83d\\ude00", "\\u00E9"]).prop_map(str::to_owned),
        ],
        0..4,
    )
    .prop_map(|parts| format!("\"{}\"", parts.concat()));
    let scalar = prop_oneof![
        proptest::sample::select(vec!["null", "true", "false", "0", "-0", "1e2", "-1.5E-3"])
            .prop_map(str::to_owned),
        any::<i64>().prop_map(|number| number.to_string()),
        string.clone(),
    ];
    let space = proptest::sample::select(vec!["", "", "", " ", "\t "]);
    scalar.prop_recursive(5, 60, 6, move |value| {
        let list = proptest::collection::vec((space.clone(), value.clone()), 0..6).prop_map(|values| {
            format!("[{}]", values.iter().map(|(s, v)| format!("{s}{v}{s}")).collect::<Vec<_>>().join(","))
        });
        let map =
            proptest::collection::vec((space.clone(), string.clone(), value), 0..6).prop_map(|values| {
                format!(
                    "{{{}}}",
                    values
                        .iter()
                        .map(|(s, k, v)| format!("{s}{k}{s}:{s}{v}{s}"))
                        .collect::<Vec<_>>()
                        .join(",")
                )
            });
        prop_oneof![list, map]
    })
}

proptest! {
    #[test]
    fn json_is_judged_and_walked_as_another_parser_does(text in json()) {
        let outline = scan(&text, Profile::Strict);
        let checked = Checked::of(&text);
        match fault_of(&text) {
            None => prop_assert_eq!(Checked::walked(outline.span.of(&text)), checked.expect("accepted by us only")),
            // Demanded by us alone.
            Some(Fault::Noncharacter) => {}
            Some(fault) => prop_assert!(checked.is_none(), "refused by us only: {fault}"),
        }
    }

    #[test]
    fn a_damaged_text_is_never_accepted_by_us_alone(text in json(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = text.into_bytes();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(text) = std::str::from_utf8(&bytes)
            && fault_of(text).is_none()
        {
            prop_assert!(Checked::of(text).is_some(), "{}", text);
        }
    }

    #[test]
    fn no_bytes_make_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100), text in ".{0,60}") {
        drop(Frame::from_client(Bytes::from(bytes.clone())));
        drop(Frame::from_server(Bytes::from(bytes)));
        scan(&text, Profile::Strict);
        members(&text).chain(members(&format!("{{{text}"))).for_each(drop);
        elements(&text).chain(elements(&format!("[{text}"))).for_each(drop);
        unescape(&format!("\"{text}\""));
    }
}
