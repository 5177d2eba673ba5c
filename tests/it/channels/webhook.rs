//! Any program that is told by webhooks, and decides by them.

use aws_lc_rs::hmac;
use base64::prelude::{BASE64_STANDARD, Engine as _};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{PEOPLE, call, gate, heard, in_turn, knows, service, settled};
use crate::support::{
    browser::{Answer, Desk},
    http::{Message, Server, json as response},
    program::Home,
};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwAAAAAAAAAAAA";

fn signature(secret: &str, id: &str, timestamp: i64, body: &str) -> String {
    let key = BASE64_STANDARD.decode(secret.strip_prefix("whsec_").unwrap()).unwrap();
    let key = hmac::Key::new(hmac::HMAC_SHA256, &key);
    let signed = format!("{id}.{timestamp}.{body}");
    format!("v1,{}", BASE64_STANDARD.encode(hmac::sign(&key, signed.as_bytes())))
}

/// Checks a webhook as a receiver does, and gives its id and what it says.
fn received(message: &Message) -> (String, Value) {
    let header = |name| message.header(name).unwrap_or_else(|| panic!("{name} in {message:?}"));
    let (id, timestamp) = (header("webhook-id"), header("webhook-timestamp").parse::<i64>().unwrap());
    assert!((Timestamp::now().as_second() - timestamp).abs() < 60);
    assert_eq!(header("webhook-signature"), signature(SECRET, id, timestamp, message.text()));
    assert_eq!(header("content-type"), "application/json");
    (id.to_owned(), message.json())
}

fn config(home: &Home, server: &Server, more: &str) -> String {
    home.file("webhook-secret", SECRET);
    format!(
        "channels:\n  ops:\n    webhook:\n      url: http://{}/hook?key=1\n      private_network: true\n      secret: \
         {{file: webhook-secret}}\n{more}",
        server.address
    )
}

#[test]
fn a_program_hears_of_a_call_and_of_its_end_signed_and_once() {
    let home = Home::new();
    let server = service("204 No Content", "");
    let _desk = Desk::with_config(&home, &config(&home, &server, ""));
    let mut gate = gate(&home, "version: 1\ndefault: hold\n");
    gate.send(&call(1, &json!({"amount": 950})));
    let id = home.wait_for_holds(1).remove(0);
    let (first_id, held) = received(&heard(&server, 1)[0]);
    assert_eq!(heard(&server, 1)[0].first, "POST /hook?key=1 HTTP/1.1");
    assert_eq!(held["type"], "hold.held");
    assert_eq!(held["data"]["hold"]["id"], *id);
    assert_eq!(held["data"]["hold"]["arguments"], json!({"amount": 950}));
    assert!(held["data"]["url"].as_str().unwrap().ends_with(&format!("/holds/{id}")));
    assert!(home.holdshort(["approve", &id, "--comment", "fine"]).status.success());
    assert_eq!(gate.receive()["id"], 1);
    let (second_id, ended) = received(&heard(&server, 2)[1]);
    assert_eq!(ended["type"], "hold.ended");
    assert_eq!(ended["data"]["hold"]["votes"][0]["comment"], "fine");
    assert_ne!(first_id, second_id);
    assert_eq!(settled(&home, "ops"), 0);
    assert_eq!(server.asked().len(), 2, "nothing else, and nothing twice");
}

#[test]
fn what_is_not_taken_is_sent_again_with_the_same_id_until_it_is() {
    let home = Home::new();
    let busy = response("503 Service Unavailable", "", "busy");
    let moved = response("500 Internal Server Error", "", "");
    let server = Server::start(in_turn(vec![busy, moved, response("200 OK", "", "{}")]));
    let _desk = Desk::with_config(&home, &config(&home, &server, ""));
    let mut gate = gate(&home, "version: 1\ndefault: hold\n");
    gate.send(&call(1, &json!({})));
    let told = heard(&server, 3);
    let ids: Vec<String> = told.iter().map(|message| received(message).0).collect();
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    assert_eq!(settled(&home, "ops"), 0);
    let list = home.holdshort([
        "channels",
        "list",
        "--json",
        "--config",
        home.path().join("desk.yaml").to_str().unwrap(),
    ]);
    let list: Value = serde_json::from_slice(&list.stdout).unwrap();
    assert_eq!(
        (&list[0]["name"], &list[0]["waiting"], &list[0]["given_up"]),
        (&json!("ops"), &json!(0), &json!(0))
    );
}

#[test]
fn a_receiver_that_redirects_or_is_gone_gets_nothing_more() {
    for (status, headers) in [("302 Found", "location: http://127.0.0.1:1/\r\n"), ("410 Gone", "")] {
        let home = Home::new();
        let server = Server::start(in_turn(vec![response(status, headers, "")]));
        let _desk = Desk::with_config(&home, &config(&home, &server, ""));
        let mut gate = gate(&home, "version: 1\ndefault: hold\n");
        gate.send(&call(1, &json!({})));
        home.wait_for_holds(1);
        heard(&server, 1);
        assert_eq!(settled(&home, "ops"), 1, "{status}");
        assert_eq!(server.asked().len(), 1, "{status}");
    }
}

#[test]
fn several_desks_on_one_record_tell_once_and_a_new_one_tells_what_happened_meanwhile() {
    let home = Home::new();
    let server = service("200 OK", "{}");
    let config = config(&home, &server, "");
    let desks: Vec<Desk> = (0..3).map(|_| Desk::with_config(&home, &config)).collect();
    let mut gate = gate(&home, "version: 1\ndefault: hold\n");
    for at in 0..8 {
        gate.send(&call(at, &json!({"at": at})));
    }
    let ids = home.wait_for_holds(8);
    heard(&server, 8);
    settled(&home, "ops");
    let told = |news: &str| {
        let all = server.asked();
        let of: Vec<Value> =
            all.iter().map(|message| received(message).1).filter(|said| said["type"] == news).collect();
        let mut ids: Vec<String> =
            of.iter().map(|said| said["data"]["hold"]["id"].as_str().unwrap().to_owned()).collect();
        ids.sort();
        ids
    };
    let mut sorted = ids.clone();
    sorted.sort();
    assert_eq!(told("hold.held"), sorted);
    drop(desks);
    assert!(home.holdshort(["reject", &ids[0], "--reason", "no"]).status.success());
    gate.receive();
    let _desk = Desk::with_config(&home, &config);
    heard(&server, 9);
    settled(&home, "ops");
    assert_eq!(told("hold.ended"), [ids[0].clone()]);
    assert_eq!(told("hold.held"), sorted, "and nothing again");
}

#[test]
fn a_rule_says_which_channels_hear_of_a_call() {
    let home = Home::new();
    let (named, usual) = (service("200 OK", ""), service("200 OK", ""));
    home.file("webhook-secret", SECRET);
    let webhook = |server: &Server| {
        format!(
            "{{webhook: {{url: \"http://{}/\", private_network: true, secret: {{file: webhook-secret}}}}}}",
            server.address
        )
    };
    let config = format!(
        "channels:\n  named: {}\n  usual: {}\ndefault_channels: [usual]\n",
        webhook(&named),
        webhook(&usual)
    );
    let _desk = Desk::with_config(&home, &config);
    let policy = "version: 1\ndefault: hold\nrules:\n  - {name: r, tool: send_refund, when: {args.amount: {gt: 100}}, \
         action: hold, reason: r, notify: named}\n";
    let mut gate = gate(&home, policy);
    gate.send(&call(1, &json!({"amount": 5})));
    gate.send(&call(2, &json!({"amount": 500})));
    home.wait_for_holds(2);
    let amount =
        |server: &Server| received(&heard(server, 1)[0]).1["data"]["hold"]["arguments"]["amount"].clone();
    assert_eq!((amount(&named), amount(&usual)), (json!(500), json!(5)));
    assert_eq!((settled(&home, "named"), settled(&home, "usual")), (0, 0));
    assert_eq!((named.asked().len(), usual.asked().len()), (1, 1));
    // The check knows the names, without reading a secret.
    let check = |config: &str| {
        let config = home.file("checked.yaml", config);
        home.holdshort([
            "policy".as_ref(),
            "check".as_ref(),
            home.path().join("policy.yaml").as_os_str(),
            "--config".as_ref(),
            config.as_os_str(),
        ])
    };
    assert!(check(&config.replace("webhook-secret", "not-there")).status.success());
    let refused = check(&config.replace("named", "other"));
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(refused.status.code() == Some(2) && said.contains("`named`"), "{said}");
}

/// Sends a decision as a program does.
fn decide(desk: &Desk, id: &str, at: i64, body: &str) -> Answer {
    let signature = signature(SECRET, id, at, body);
    let (at, signature) = (at.to_string(), signature);
    let headers = [("webhook-id", id), ("webhook-timestamp", &*at), ("webhook-signature", &*signature)];
    desk.send("POST", "/channels/ops", &headers, body)
}

#[test]
fn a_program_decides_in_the_name_of_a_person_whom_the_policy_knows() {
    let home = Home::new();
    let server = service("200 OK", "");
    let desk = Desk::with_config(&home, &config(&home, &server, "      decisions: true\n"));
    let mut gate = gate(&home, PEOPLE);
    gate.send(&call(1, &json!({"amount": 950})));
    let hold = received(&heard(&server, 1)[0]).1["data"]["hold"].clone();
    let (id, digest) = (hold["id"].as_str().unwrap(), hold["frame_sha256"].as_str().unwrap());
    assert_eq!(hold.get("shown_sha256"), None, "what is told is not the whole call");
    let whole = home.show(id);
    let said = |by: &str, verdict: &str| {
        let shown = &whole["shown_sha256"];
        json!({"hold": id, "verdict": verdict, "by": by, "comment": "seen", "frame_sha256": digest, "shown_sha256": shown})
            .to_string()
    };
    let now = Timestamp::now().as_second();
    let good = said("alice", "approve");
    let other = good.replace(digest, &"0".repeat(64));
    knows(&home, &desk, 1);
    let shown = decide(&desk, "shown", now, &other);
    assert_eq!(shown.status, 409, "something else was shown");
    let other = good.replace(whole["shown_sha256"].as_str().unwrap(), &"0".repeat(64));
    assert_eq!(decide(&desk, "shown otherwise", now, &other).status, 409);
    // Not from the program, or not now.
    let right = signature(SECRET, "m", now, &good);
    let at = now.to_string();
    for (id, at, signature, body) in [
        ("m", &*at, "v1,AAAA", &*good),
        ("m2", &*at, &*right, &*good),
        ("m", &*at, &*right, &*good.replace("950", "951").replace("seen", "sees")),
        ("m.x", &*at, &*right, &*good),
    ] {
        let headers = [("webhook-id", id), ("webhook-timestamp", at), ("webhook-signature", signature)];
        let answer = desk.send("POST", "/channels/ops", &headers, body);
        assert_eq!((answer.status, answer.problem()), (401, "not-signed-in".to_owned()), "{id}");
    }
    assert_eq!(desk.send("POST", "/channels/ops", &[], &good).status, 401, "without a signature");
    let twice = [
        ("webhook-id", "m"),
        ("webhook-id", "m"),
        ("webhook-timestamp", &*at),
        ("webhook-signature", &*right),
    ];
    assert_eq!(desk.send("POST", "/channels/ops", &twice, &good).status, 401);
    for late in [now - 400, now + 400] {
        assert_eq!(decide(&desk, "late", late, &good).status, 401);
    }
    // Signed, and yet not what is asked for.
    let twice = good.replacen('{', "{\"by\":\"bob\",", 1);
    for (at, body) in
        [twice.as_str(), "[]", "{}", &good.replace("\"comment\"", "\"remark\""), &good.replace(id, "no-hold")]
            .into_iter()
            .enumerate()
    {
        assert_eq!(decide(&desk, &format!("bad{at}"), now, body).status, 400, "{body}");
    }
    // Looking decides nothing, and neither does a page of another site.
    let headers = [("webhook-id", "get"), ("webhook-timestamp", &*at), ("webhook-signature", &*right)];
    assert_eq!(desk.get("/channels/ops", &headers).status, 405);
    let from_page = [headers[0], headers[1], headers[2], ("Origin", "https://evil.example")];
    assert_eq!(desk.send("POST", "/channels/ops", &from_page, &good).status, 403);
    assert_eq!(desk.send("POST", "/channels/nobody", &headers, &good).status, 404);
    // People who may not, and people whom nobody knows.
    for (at, by) in ["carol", "mallory", "", "a b", "uid:0"].into_iter().enumerate() {
        let answer = decide(&desk, &format!("by-{at}"), now, &said(by, "approve"));
        assert_eq!((answer.status, answer.problem()), (403, "not-allowed".to_owned()), "{by}");
    }
    assert_eq!(home.holds().len(), 1, "it waits still");
    let answer = decide(&desk, "msg-1", now, &good);
    assert_eq!((answer.status, &answer.json()["state"]), (200, &json!("forwarding")), "{answer:?}");
    assert_eq!(gate.receive()["id"], 1);
    let again = decide(&desk, "msg-1", now, &good);
    assert_eq!((again.status, again.problem()), (409, "repeated".to_owned()));
    assert_eq!(decide(&desk, "msg-2", now, &good).problem(), "ended");
    let votes = received(&heard(&server, 2)[1]).1["data"]["hold"]["votes"].clone();
    assert_eq!(votes[0]["shown_sha256"], whole["shown_sha256"]);
    assert_eq!((&votes[0]["by"], &votes[0]["person"]), (&json!("webhook:ops/alice"), &json!("alice")));
    home.verify();
}

#[test]
fn a_channel_that_only_tells_takes_no_decisions_and_neither_does_a_policy_without_people() {
    let home = Home::new();
    let server = service("200 OK", "");
    let desk = Desk::with_config(&home, &config(&home, &server, ""));
    let now = Timestamp::now().as_second();
    assert_eq!(decide(&desk, "m", now, "{}").status, 404);
    drop(desk);
    let desk = Desk::with_config(&home, &config(&home, &server, "      decisions: true\n"));
    let mut gate = gate(&home, "version: 1\ndefault: hold\n");
    gate.send(&call(1, &json!({})));
    let hold = received(&heard(&server, 1)[0]).1["data"]["hold"].clone();
    let said = json!({"hold": hold["id"], "verdict": "approve", "by": "alice", "frame_sha256": hold["frame_sha256"]});
    knows(&home, &desk, 1);
    let answer = decide(&desk, "m", now, &said.to_string());
    assert_eq!((answer.status, answer.problem()), (403, "not-allowed".to_owned()));
    assert_eq!(home.holds().len(), 1);
}

#[test]
fn a_configuration_says_what_is_wrong_with_it_and_never_a_secret() {
    let home = Home::new();
    home.file("short", "whsec_c2hvcnQ=");
    let hook = |more: &str| format!("channels: {{a: {{webhook: {{{more}}}}}}}\n");
    for (config, part) in [
        (hook("url: 'http://hooks.example.com', secret: {env: X}"), "X"),
        (hook("url: 'http://hooks.example.com', secret: {file: short}"), "24 random bytes"),
        (hook("url: 'https://hooks.example.com', secret: whsec_abc"), "expected"),
        (hook("url: 'https://hooks.example.com', secret: {file: short, env: X}"), "where the secret is"),
        (hook("url: 'https://hooks.example.com', secret: {file: nope}"), "cannot be read"),
        (hook("url: 'https://hooks.example.com', secret: {file: short}, retry: 3"), "retry"),
        ("channels: {a: {}}\n".to_owned(), "exactly one kind"),
        ("channels: {a b: {}}\n".to_owned(), "`a b`"),
        ("channels: {}\ndefault_channels: [x]\n".to_owned(), "no channel `x`"),
        ("chanels: {}\n".to_owned(), "chanels"),
    ] {
        let path = home.file("bad.yaml", &config);
        let output =
            home.holdshort(["channels".as_ref(), "list".as_ref(), "--config".as_ref(), path.as_os_str()]);
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(2) && said.contains(part), "{part} in {said}");
        assert!(!said.contains("c2hvcnQ"), "{said}");
    }
}

#[test]
fn a_channel_can_be_tried_out() {
    let home = Home::new();
    let server =
        Server::start(in_turn(vec![response("200 OK", "", ""), response("401 Unauthorized", "", "")]));
    let path = home.file("desk.yaml", &config(&home, &server, ""));
    let test = |name: &str| {
        home.holdshort([
            "channels".as_ref(),
            "test".as_ref(),
            name.as_ref(),
            "--config".as_ref(),
            path.as_os_str(),
        ])
    };
    assert!(test("ops").status.success());
    assert_eq!(received(&heard(&server, 1)[0]).1["type"], "test");
    let refused = test("ops");
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8(refused.stderr).unwrap().contains("401"));
    let nobody = test("nobody");
    assert_eq!(nobody.status.code(), Some(4));
    let why = String::from_utf8(nobody.stderr).unwrap();
    assert!(why.contains("there is no channel `nobody`: there is `ops`"), "{why}");
}
