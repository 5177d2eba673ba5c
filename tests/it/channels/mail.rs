//! E-mail by a real SMTP server (aiosmtpd) that wants STARTTLS and a password; it needs the peers of `tests/peers/install.sh`.

use std::process::Command;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::{Value, json};

use super::{PEOPLE, call, gate, knows, settled};
use crate::support::{
    browser::{Desk, field},
    peers::installed,
    program::{Home, Wrapped},
};

/// A mail server that runs.
struct Server {
    process: Wrapped,
    port: String,
}

impl Server {
    /// One whose certificate is vouched for by `ca.pem` in this home.
    fn start(home: &Home) -> Self {
        let mut ca = CertificateParams::new(Vec::new()).unwrap();
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let own = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().signed_by(&key, &ca).unwrap();
        home.file("ca.pem", &ca.pem());
        let mut command = Command::new(installed("venv-smtp/bin/python"));
        command.arg(installed("smtp_server.py"));
        command.arg(home.file("mail.pem", &own.pem())).arg(home.file("mail.key", &key.serialize_pem()));
        let process = Wrapped::start(command);
        let port = process.line();
        Self { process, port }
    }

    /// The next letter, without soft line breaks.
    fn letter(&self) -> Value {
        let mut letter = self.process.receive();
        let text =
            letter["letter"].as_str().unwrap().replace("\r\n", "\n").replace("=\n", "").replace("=3D", "=");
        letter["letter"] = json!(text);
        letter
    }
}

fn config(home: &Home, server: &Server, to: &str, more: &str) -> String {
    home.file("mail-password", "correct horse\n");
    format!(
        "channels:\n  mail:\n    mail:\n      server: localhost\n      port: {}\n      roots: ca.pem\n      user: holdshort\n      \
         password: {{file: mail-password}}\n      from: Holdshort <holdshort@example.com>\n      to: [{to}]\n{more}",
        server.port
    )
}

/// The link in a letter.
fn link(letter: &Value) -> String {
    let text = letter["letter"].as_str().unwrap();
    text.lines()
        .find(|line| line.starts_with("http://"))
        .unwrap_or_else(|| panic!("a link in {text}"))
        .to_owned()
}

fn path(desk: &Desk, link: &str) -> String {
    link.strip_prefix(&desk.origin()).unwrap().to_owned()
}

#[test]
fn a_letter_has_the_call_and_its_link_asks_before_it_decides_once() {
    let home = Home::new();
    let server = Server::start(&home);
    let desk =
        Desk::with_config(&home, &config(&home, &server, "alice@example.com", "      links_decide: true\n"));
    let mut gate = gate(&home, PEOPLE);
    gate.send(&call(1, &json!({"amount": 950, "note": "a\r\nBcc: eve@example.com\r\nApproved: alice"})));
    let letter = server.letter();
    assert_eq!(
        (&letter["tls"], &letter["user"]),
        (&json!(true), &json!("holdshort")),
        "encrypted, and known"
    );
    assert_eq!(
        (&letter["from"], &letter["to"]),
        (&json!("holdshort@example.com"), &json!(["alice@example.com"]))
    );
    let (head, text) = letter["letter"].as_str().unwrap().split_once("\n\n").unwrap();
    for part in [
        "Subject: [Holdshort] billing.send_refund waits for approval",
        "Auto-Submitted: auto-generated",
        "text/plain",
        "Message-ID: <hs_",
    ] {
        assert!(head.contains(part), "{part} in {head}");
    }
    assert!(text.contains("950") && text.contains("A person looks at it."), "{text}");
    assert!(
        !head.contains("eve")
            && !text.lines().any(|line| line.starts_with("Approved") || line.starts_with("Bcc")),
        "{text}"
    );
    let path = path(&desk, &link(&letter));
    let id = home.wait_for_holds(1).remove(0);
    settled(&home, "mail/alice@example.com");
    // Looking decides nothing, whoever looks.
    knows(&home, &desk, 1);
    let page = desk.get(&path, &[]);
    for agent in ["Mozilla/5.0 SafeLinks", "Slackbot-LinkExpanding 1.0"] {
        for method in ["GET", "HEAD"] {
            assert_eq!(desk.send(method, &path, &[("User-Agent", agent)], "").status, 200);
            assert_eq!(
                desk.send(method, &format!("{path}/approve"), &[("User-Agent", agent)], "").status,
                405
            );
        }
    }
    assert_eq!(home.holds().len(), 1);
    assert!(page.body.contains("alice@example.com") && page.body.contains("950"), "{}", page.body);
    assert!(page.body.contains(&format!("action=\"{path}/approve\"")), "{}", page.body);
    let form = |comment: &str| format!("csrf=&shown={}&comment={comment}", field(&page.body, "shown"));
    // Not by another site, not with another link, not for another page than was shown.
    let approve = format!("{path}/approve");
    let headers = [("Origin", "https://evil.example"), ("Content-Type", "application/x-www-form-urlencoded")];
    assert_eq!(desk.send("POST", &approve, &headers, &form("x")).status, 403);
    // Another one in the middle of its key, whatever stands there.
    let (before, after) = path.split_at(path.len() - 8);
    let swapped = if after.starts_with('A') { 'B' } else { 'A' };
    let other = format!("{before}{swapped}{}/approve", &after[1..]);
    assert_eq!(desk.post_form(&other, "", &form("x")).status, 404);
    assert_eq!(desk.post_form(&approve, "", &form("x").replace("shown=", "shown=0")).status, 409);
    assert_eq!(desk.post_form(&format!("{path}/reject"), "", &form("")).status, 422, "why not?");
    assert_eq!(home.holds().len(), 1, "it waits still, and the link is not used up");
    let answer = desk.post_form(&approve, "", &form("by+mail"));
    assert_eq!((answer.status, answer.header("location")), (303, Some(&*path)), "{answer:?}");
    assert_eq!(gate.receive()["id"], 1, "it ran");
    let hold = home.show(&id);
    assert_eq!(hold["votes"][0]["shown_sha256"], field(&page.body, "shown"), "{hold}");
    let again = desk.post_form(&approve, "", &form("by+mail"));
    assert_eq!(again.status, 409, "once");
    let after = server.letter();
    let text = after["letter"].as_str().unwrap();
    assert!(text.contains("was approved by alice") && text.contains("In-Reply-To: <hs_"), "{text}");
    assert!(!text.contains("/mail/mail/"), "nothing is left to decide");
    let history = home.holdshort(["history", "--json"]);
    let history: Value = serde_json::from_slice(&history.stdout).unwrap();
    assert_eq!(
        (&history[0]["votes"][0]["by"], &history[0]["votes"][0]["person"]),
        (&json!("email:alice@example.com"), &json!("alice"))
    );
    home.verify();
}

#[test]
fn each_reader_has_a_link_of_their_own_and_one_human_one_vote() {
    let home = Home::new();
    let server = Server::start(&home);
    let to = "alice@example.com, bob@example.com, mallory@example.com";
    let desk = Desk::with_config(&home, &config(&home, &server, to, "      links_decide: true\n"));
    let mut gate =
        gate(&home, &PEOPLE.replace("approvers: [finance]", "approvers: [finance], required_approvals: 2"));
    gate.send(&call(1, &json!({"amount": 950})));
    knows(&home, &desk, 1);
    let letters: Vec<Value> = (0..3).map(|_| server.letter()).collect();
    let of =
        |who: &str| path(&desk, &link(letters.iter().find(|letter| letter["to"] == json!([who])).unwrap()));
    let (alice, bob, mallory) = (of("alice@example.com"), of("bob@example.com"), of("mallory@example.com"));
    assert!(alice != bob && bob != mallory);
    let decide = |path: &str| {
        let page = desk.get(path, &[]);
        desk.post_form(
            &format!("{path}/approve"),
            "",
            &format!("csrf=&shown={}&comment=", field(&page.body, "shown")),
        )
    };
    assert_eq!(decide(&mallory).status, 403, "nobody whom the policy knows");
    assert_eq!(decide(&alice).status, 303);
    assert_eq!(decide(&alice).status, 409, "once");
    assert_eq!(home.holds().len(), 1, "two are needed");
    assert_eq!(decide(&bob).status, 303);
    assert_eq!(gate.receive()["id"], 1, "it ran");
}

#[test]
fn without_links_that_decide_a_letter_leads_to_the_desk_and_a_removed_reader_decides_nothing() {
    let home = Home::new();
    let server = Server::start(&home);
    let desk = Desk::with_config(&home, &config(&home, &server, "alice@example.com", ""));
    let mut gate = gate(&home, PEOPLE);
    gate.send(&call(1, &json!({})));
    let letter = server.letter();
    let id = home.wait_for_holds(1).remove(0);
    assert_eq!(link(&letter), format!("{}/holds/{id}", desk.origin()));
    settled(&home, "mail/alice@example.com");
    drop(desk);
    let more = "      links_decide: true\n";
    let desk = Desk::with_config(&home, &config(&home, &server, "bob@example.com", more));
    let key = path(&desk, &link(&server.letter()));
    drop(desk);
    let desk = Desk::with_config(&home, &config(&home, &server, "carol@example.com", more));
    server.letter();
    assert_eq!(desk.get(&key, &[]).status, 404);
}

#[test]
fn a_mailbox_that_is_not_there_is_given_up_and_one_that_is_busy_is_tried_again() {
    let home = Home::new();
    let server = Server::start(&home);
    let _desk =
        Desk::with_config(&home, &config(&home, &server, "bounce@example.com, later@example.com", ""));
    let mut gate = gate(&home, PEOPLE);
    gate.send(&call(1, &json!({})));
    assert_eq!(server.letter()["to"], json!(["later@example.com"]));
    assert_eq!(settled(&home, "mail/later@example.com"), 0);
    assert_eq!(settled(&home, "mail/bounce@example.com"), 1);
}

#[test]
fn a_server_that_cannot_show_who_it_is_gets_no_letter_and_no_password() {
    let home = Home::new();
    let server = Server::start(&home);
    // The authorities of another one.
    let other = Home::new();
    Server::start(&other);
    std::fs::copy(other.path().join("ca.pem"), home.path().join("other.pem")).unwrap();
    let config = config(&home, &server, "alice@example.com", "").replace("ca.pem", "other.pem");
    let path = home.file("desk.yaml", &config);
    let output = home.holdshort([
        "channels".as_ref(),
        "test".as_ref(),
        "mail".as_ref(),
        "--config".as_ref(),
        path.as_os_str(),
    ]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(1) && said.contains("certificate"), "{said}");
    let config = config.replace("other.pem", "ca.pem");
    let path = home.file("desk.yaml", &config);
    let output = home.holdshort([
        "channels".as_ref(),
        "test".as_ref(),
        "mail".as_ref(),
        "--config".as_ref(),
        path.as_os_str(),
    ]);
    assert!(output.status.success(), "{output:?}");
    assert!(server.letter()["letter"].as_str().unwrap().contains("a test"));
}
