//! What people must not be fooled by, through what every channel says: the Big List of Naughty Strings, and texts that imitate ours.
//!
//! Tests only. What each service reads as markup, is looked for in what is sent to it; and the arguments are rebuilt from that.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{
    Links, Telling,
    desktop::notify_send,
    endpoint::Endpoint,
    mail::{Encryption, Mail, Server},
    message::{HIDDEN, Message, tests::held},
    pagerduty::PagerDuty,
    signature::Secret,
    slack::{Clicks, Slack},
    sms::Sms,
    teams::Teams,
    webhook,
};
use crate::{
    control::api::HoldView,
    sanitize::{self, tests::corpus::corpus},
    store::News,
    view,
};

/// Characters of a call that the messages of these tests may have.
const CALL_CHARS_MAX: usize = 20_000;

/// Whether the rows say all of `arguments`, and nothing but what can be seen.
fn check(message: &Message, arguments: &str, text: &str) {
    for row in &message.rows {
        assert!(row.chars().all(sanitize::is_plain), "{row}");
    }
    if message.missing.is_none() {
        let whole: String = view::json_rows(arguments, CALL_CHARS_MAX).concat();
        let said: String = message.rows.concat().replace(sanitize::ROW_GOES_ON, "");
        assert_eq!(said.replace(' ', ""), whole.replace(' ', ""), "{text:?} is said as it is");
    }
}

#[test]
fn no_argument_name_or_reason_breaks_out_of_a_message() {
    for text in corpus() {
        let value = Value::from(&*text);
        let arguments = format!("{{\"a\":{value},{value}:1}}");
        let mut hold = held("pay", &arguments);
        hold.agent.clone_from(&text);
        hold.reason.clone_from(&text);
        let message = Message::of(&hold, CALL_CHARS_MAX);
        check(&message, &arguments, &text);
        let link = "https://desk.example.com/holds/1";
        for line in message.text(link).lines() {
            let known = [
                "| ",
                "billing.pay waits",
                "Agent: ",
                "Why it is held: ",
                "Note: ",
                "Time left: ",
                "Hold: ",
                "Not the whole call: ",
                link,
            ];
            assert!(
                line.is_empty() || known.iter().any(|known| line.starts_with(known)),
                "{text:?}: {line:?}"
            );
            assert!(line.chars().all(sanitize::is_plain), "{line:?}");
        }
        for (_, fact) in &message.facts {
            assert!(fact.chars().all(sanitize::is_plain), "{fact:?}");
        }
        // As a name, it is cut rather than believed.
        let named = Message::of(&held(&text, "{}"), CALL_CHARS_MAX);
        assert!(
            named.title.chars().all(sanitize::is_plain) && !named.title.contains('\n'),
            "{}",
            named.title
        );
    }
}

#[test]
fn a_call_that_could_deceive_is_not_approved_by_a_message() {
    let mut deceiving = 0;
    for text in corpus().iter().filter(|text| !sanitize::flags(text).is_empty()) {
        let hold = held("pay", &format!("{{\"a\":{}}}", Value::from(&**text)));
        assert!(Message::of(&hold, CALL_CHARS_MAX).missing.is_some(), "{text:?}");
        deceiving += 1;
    }
    assert!(deceiving > 10, "there are such texts");
}

/// The page of a hold.
const LINK: &str = "https://desk.example.com/holds/1";

/// What is told of `hold`, which waits.
fn telling<'a>(hold: &'a HoldView, links: &'a Links) -> Telling<'a> {
    Telling { news: News::Held, hold, id: "n1", link: LINK, message: None, links }
}

fn links() -> (tempfile::TempDir, Links) {
    let dir = tempfile::tempdir().unwrap();
    let links = Links::open(&dir.path().join("key"), "https://desk.example.com".to_owned()).unwrap();
    (dir, links)
}

fn endpoint() -> Endpoint {
    Endpoint::new("https://service.example.com", None, false).unwrap()
}

fn slack() -> Slack {
    let clicks = Clicks { workspace: "T1".into(), app: None, signing_secret: None, app_token: None };
    Slack {
        endpoint: endpoint(),
        token: Secret::new("xoxb-1".into()),
        conversation: "C0123456789".into(),
        clicks: Some(clicks),
    }
}

/// A call with `text` in every place that somebody else chooses, its arguments, and whether they are said whole.
fn hostile(text: &str) -> (HoldView, Value, String) {
    let value = Value::from(text);
    let arguments = format!("{{\"a\":{value},{value}:1}}");
    let mut hold = held("pay", &arguments);
    hold.agent = text.to_owned();
    hold.reason = text.to_owned();
    hold.notes = vec![text.to_owned()];
    (hold, serde_json::from_str(&arguments).unwrap(), arguments)
}

/// Whether `rows` say `arguments` and nothing else; where a secret is left out or it was too long, that they say so.
fn assert_rebuilt(rows: &[String], arguments: &Value, text: &str) {
    let is_left_out = rows.iter().any(|row| row.contains(HIDDEN) || row.ends_with("… ⟨cut⟩"));
    if !is_left_out {
        let rebuilt: Value = serde_json::from_str(&view::tests::rebuilt(rows)).unwrap();
        assert_eq!(&rebuilt, arguments, "{text:?} is in the message to the last character");
    }
}

/// Every text in `value`, with the names of the members that lead to it.
fn texts(value: &Value, path: &str, found: &mut Vec<(String, String)>) {
    match value {
        Value::String(text) => found.push((path.to_owned(), text.clone())),
        Value::Array(items) => items.iter().for_each(|item| texts(item, path, found)),
        Value::Object(members) => {
            members.iter().for_each(|(name, value)| texts(value, &format!("{path}/{name}"), found));
        }
        _ => {}
    }
}

/// The texts of a body that is sent; nothing in them acts or hides, but the ends of our own lines.
fn plain_texts(body: &Value) -> Vec<(String, String)> {
    let mut found = Vec::new();
    texts(body, "", &mut found);
    for (path, text) in &found {
        assert!(text.chars().all(|c| c == '\n' || sanitize::is_plain(c)), "{path}: {text:?}");
    }
    found
}

/// The values of all members `type` in `body`.
fn types(body: &Value) -> BTreeSet<String> {
    let mut found = Vec::new();
    texts(body, "", &mut found);
    found.into_iter().filter(|(path, _)| path.ends_with("/type")).map(|(_, text)| text).collect()
}

#[test]
fn slack_reads_nothing_of_a_call_as_markup_and_shows_all_of_it() {
    let (_dir, links) = links();
    // No element that Slack looks for links, mentions or styles in.
    let known = [
        "header",
        "section",
        "plain_text",
        "rich_text",
        "rich_text_preformatted",
        "text",
        "button",
        "actions",
    ];
    let known: BTreeSet<String> =
        known.into_iter().chain(["input", "plain_text_input", "context"]).map(str::to_owned).collect();
    let slack = slack();
    for text in corpus() {
        let (hold, arguments, _) = hostile(&text);
        let body = slack.body(&telling(&hold, &links));
        plain_texts(&body);
        assert!(types(&body).is_subset(&known), "{:?}", types(&body));
        let call =
            body["blocks"].as_array().unwrap().iter().find(|block| block["type"] == "rich_text").unwrap();
        let call = call["elements"][0]["elements"][0]["text"].as_str().unwrap();
        assert_rebuilt(&call.split('\n').map(str::to_owned).collect::<Vec<_>>(), &arguments, &text);
        // As the name of a tool it is in the text for notifications, which is markup: escaped.
        let named = held(&text, "{}");
        let body = slack.body(&telling(&named, &links));
        plain_texts(&body);
        let told = body["text"].as_str().unwrap();
        let entities = told.replace("&lt;", "").replace("&gt;", "").replace("&amp;", "");
        assert!(!entities.contains(['<', '>', '&']), "{told}");
    }
}

#[test]
fn teams_reads_nothing_of_a_call_as_markup_and_shows_all_of_it() {
    let (_dir, links) = links();
    let teams = Teams { endpoint: endpoint() };
    for text in corpus() {
        let (hold, arguments, _) = hostile(&text);
        let body = teams.message(&telling(&hold, &links));
        plain_texts(&body);
        let card = &body["attachments"][0]["content"];
        // Runs alone: text blocks, facts and titles of buttons know Markdown.
        let mut rows = Vec::new();
        for line in card["body"].as_array().unwrap() {
            let runs = line["inlines"].as_array().unwrap();
            assert_eq!(
                (&line["type"], runs.len(), &runs[0]["type"]),
                (&"RichTextBlock".into(), 1, &"TextRun".into())
            );
            if runs[0]["fontType"] == "Monospace" {
                rows.push(runs[0]["text"].as_str().unwrap().to_owned());
            }
        }
        assert_rebuilt(&rows, &arguments, &text);
        assert_eq!(
            card["actions"],
            serde_json::json!([{"type": "Action.OpenUrl", "title": "Open context", "url": LINK}])
        );
        plain_texts(&teams.message(&telling(&held(&text, "{}"), &links)));
    }
}

#[test]
fn pagerduty_gets_text_in_which_nothing_acts_and_all_of_a_call() {
    let (_dir, links) = links();
    let pager = PagerDuty { endpoint: endpoint(), routing_key: Secret::new("k".into()), severity: "warning" };
    for text in corpus() {
        let (mut hold, arguments, _) = hostile(&text);
        hold.server = text.clone();
        let event = pager.event(&telling(&hold, &links));
        plain_texts(&event);
        let rows = event["payload"]["custom_details"]["Call"].as_array().unwrap();
        let rows: Vec<String> = rows.iter().map(|row| row.as_str().unwrap().to_owned()).collect();
        assert_rebuilt(&rows, &arguments, &text);
        let event = pager.event(&telling(&held(&text, "{}"), &links));
        plain_texts(&event);
        for short in ["summary", "source", "component"] {
            assert!(!event["payload"][short].as_str().unwrap().contains('\n'), "{event}");
        }
    }
}

#[test]
fn a_short_message_is_one_line_of_ours_whatever_a_tool_is_called() {
    let (_dir, links) = links();
    for text in corpus() {
        let named = held(&text, "{}");
        let line = Sms::text(&telling(&named, &links));
        assert!(line.starts_with("Holdshort: ") && line.ends_with(LINK), "{line:?}");
        assert!(line.chars().all(sanitize::is_plain), "{line:?}");
        // Nothing of the arguments, the agent or the reason is in it.
        let (hold, _, _) = hostile(&text);
        assert!(
            Sms::text(&telling(&hold, &links)).starts_with("Holdshort: billing.pay waits for approval (")
        );
    }
}

#[test]
fn a_notification_is_two_arguments_in_which_nothing_is_markup_or_an_option() {
    for text in corpus() {
        let message = Message::of(&held(&text, "{}"), 0);
        let command = notify_send("A call waits for approval", &message.title, None);
        let arguments: Vec<String> =
            command.as_std().get_args().map(|argument| argument.to_str().unwrap().to_owned()).collect();
        let [.., end, title, body] = arguments.as_slice() else { panic!("{arguments:?}") };
        assert_eq!((&**end, &**title), ("--", "A call waits for approval"));
        let entities = body.replace("&lt;", "").replace("&gt;", "").replace("&amp;", "");
        assert!(!entities.contains(['<', '>', '&']) && body.chars().all(sanitize::is_plain), "{body}");
        let read = body.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&");
        assert_eq!(read, message.title, "and it is all there");
    }
}

/// What a mail program makes of a body in quoted-printable or base64, or as it is.
fn decoded(head: &str, body: &str) -> String {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    let head = head.to_ascii_lowercase();
    if head.contains("content-transfer-encoding: base64") {
        let text: String = body.split_whitespace().collect();
        return String::from_utf8(STANDARD.decode(text).unwrap()).unwrap();
    }
    if !head.contains("content-transfer-encoding: quoted-printable") {
        return body.to_owned();
    }
    let joined = body.replace("=\r\n", "");
    let mut bytes = Vec::new();
    let mut rest = joined.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        if *first == b'=' {
            bytes.push(u8::from_str_radix(std::str::from_utf8(&after[..2]).unwrap(), 16).unwrap());
            rest = &after[2..];
        } else {
            bytes.push(*first);
        }
    }
    String::from_utf8(bytes).unwrap()
}

#[test]
fn a_letter_has_our_headers_alone_and_all_of_a_call_behind_a_mark() {
    const HEADERS: [&str; 9] = [
        "message-id",
        "subject",
        "from",
        "to",
        "date",
        "mime-version",
        "content-type",
        "content-transfer-encoding",
        "auto-submitted",
    ];
    let (_dir, links) = links();
    let server = || Server {
        host: "smtp.example.com",
        port: None,
        encryption: Encryption::StartTls,
        roots: None,
        user: None,
    };
    let mail = Mail::new(server(), "desk@example.com", "ann@example.com", false).unwrap();
    let letter = |hold: &HoldView| {
        let (letter, _) = mail.letter(&telling(hold, &links), "mail").unwrap();
        let whole = String::from_utf8(letter.formatted()).unwrap();
        let (head, body) = whole.split_once("\r\n\r\n").unwrap();
        // A line that goes on begins with white space.
        for line in head.split("\r\n").filter(|line| !line.starts_with([' ', '\t'])) {
            let (name, _) = line.split_once(": ").unwrap_or_else(|| panic!("{line:?} is a header"));
            assert!(HEADERS.contains(&&*name.to_ascii_lowercase()), "{line:?}");
        }
        assert!(head.is_ascii() && head.contains("text/plain"), "{head:?}");
        decoded(head, body).replace("\r\n", "\n")
    };
    for text in corpus() {
        let (hold, arguments, _) = hostile(&text);
        let body = letter(&hold);
        assert!(body.chars().all(|c| c == '\n' || sanitize::is_plain(c)), "{body:?}");
        let rows: Vec<String> =
            body.lines().filter_map(|line| line.strip_prefix("| ")).map(str::to_owned).collect();
        assert_rebuilt(&rows, &arguments, &text);
        letter(&held(&text, "{}"));
    }
}

#[test]
fn a_webhook_carries_the_arguments_as_they_were_written() {
    let (_dir, links) = links();
    for text in corpus() {
        let (hold, _, arguments) = hostile(&text);
        let body = webhook::news(&telling(&hold, &links)).unwrap();
        let body = String::from_utf8(body).unwrap();
        assert!(!body.contains(|c: char| c.is_ascii_control()), "what is sent is one line: {body:?}");
        #[derive(serde::Deserialize)]
        struct Sent<'a> {
            #[serde(borrow)]
            data: SentData<'a>,
        }
        #[derive(serde::Deserialize)]
        struct SentData<'a> {
            #[serde(borrow)]
            hold: SentHold<'a>,
        }
        #[derive(serde::Deserialize)]
        struct SentHold<'a> {
            #[serde(borrow)]
            arguments: &'a serde_json::value::RawValue,
            agent: String,
            reason: String,
        }
        let sent: Sent<'_> = serde_json::from_str(&body).unwrap();
        let SentHold { arguments: sent, agent, reason } = sent.data.hold;
        assert_eq!((sent.get(), agent, reason), (&*arguments, text.clone(), text), "to the byte");
    }
}
