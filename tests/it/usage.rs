//! What is typed wrong, and what is said then: what would be right, in plain words, and nothing else happens.

use std::process::Stdio;

use serde_json::{Value, json};

use crate::support::program::{Home, Wrapped};

/// What was said on stderr.
fn said(output: &std::process::Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn a_usage_mistake_ends_with_2_and_says_what_would_be_right() {
    let home = Home::new();
    for (typed, right) in [
        (&["resolve", "abcd"][..], "<--ran|--did-not-run>"),
        (&["resolve", "abcd", "--ran", "--did-not-run"], "cannot be used with"),
        (&["run", "--header", "authorization=HOME", "--", "true"], "cannot be used with"),
        (&["run", "--roots", "roots.pem", "--", "true"], "cannot be used with"),
        (&["run", "--server", "", "--", "true"], "--server <NAME>"),
        (&["run", "--url", "not a url"], "`--url` cannot be used: this is not a URL"),
        (&["run", "--url", "ftp://127.0.0.1/"], "not an http or https URL"),
        (&["run", "--url", "https://127.0.0.1/", "--roots", "nope.pem"], "nope.pem"),
        (&["run", "--url", "http://127.0.0.1:1/", "--header", "authorization"], "write NAME=VARIABLE"),
        (&["run", "--url", "http://127.0.0.1:1/", "--header", "authorization=NOPE"], "`NOPE` is not set"),
        (&["run", "--url", "http://127.0.0.1:1/", "--header", "a b=HOME"], "`a b` is no header's name"),
        (
            &["run", "--store", "postgres://db.example/holds?nope=1", "--", "true"],
            "the store's URL has `nope`",
        ),
        (&["history", "--store", "postgres://db.example/holds?nope=1"], "the store's URL has `nope`"),
        (&["desk", "--store", "postgres://db.example/holds?nope=1"], "the store's URL has `nope`"),
        (&["approve", "abcd", "--for", "soon"], "write a time such as 15m or 2h"),
        (&["approve", "abcd", "--for", "0s"], "write a time such as 15m or 2h"),
        (&["policy", "explain", "--policy", "x", "--tool", "y", "--at", "now"], "2026-11-23T10:00:00+01:00"),
        (&["history", "--limit", "0"], "write a number from 1 on"),
        (&["desk", "--listen", "4653"], "write an address and a port, such as 127.0.0.1:4653"),
        (&["desk", "link", "--url", "desk"], "http://127.0.0.1:4653 or https://desk.example.com"),
        (&["desk", "link", "--url", "https://desk.example.com/sign-in"], "is not the address of a desk"),
        (&["desk", "token", "add", "a b"], "a token's name has 1 to 64 letters"),
        (&["desk", "token", "add", "ci", "--expires", "soon"], "write a time such as 12h or 30d"),
        (&["desk", "token", "add", "ci", "--expires", "400d"], "366 days at most"),
        (&["policy", "test", "nope.yaml"], "nope.yaml"),
    ] {
        let output = home.command().args(typed).stdin(Stdio::null()).output().unwrap();
        let text = said(&output);
        assert_eq!(output.status.code(), Some(2), "{typed:?}: {text}");
        assert!(text.contains(right), "{typed:?}: {text}");
    }
    assert!(!said(&home.holdshort(["policy", "test", "nope.yaml"])).contains("*.test.yaml"));
    assert!(!home.store().exists(), "nothing was begun");
}

#[test]
fn a_record_that_cannot_be_one_is_a_mistake_in_the_settings_of_serve() {
    let home = Home::new();
    let settings = json!({
        "listen": "127.0.0.1:0",
        "policy": [home.file("policy.yaml", "version: 1\n")],
        "store": "postgres://db.example/holds?nope=1",
        "upstreams": [{"name": "billing", "path": "/mcp", "command": ["true"]}],
    });
    let file = home.file("serve.yaml", &settings.to_string());
    let mut command = home.command();
    let output = command.args(["serve", "--config"]).arg(file).stdin(Stdio::null()).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    assert!(said(&output).contains("the store's URL has `nope`"), "{}", said(&output));
    assert!(!said(&output).contains("listening"), "{}", said(&output));
}

#[test]
fn whoever_reads_no_further_is_no_reason_to_panic() {
    let home = Home::new();
    for words in [&["completions", "bash"][..], &["policy", "schema"], &["show", "abcd"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = home.command();
        command.args(words).stdin(Stdio::null()).stdout(writer.try_clone().unwrap());
        let output = command.stderr(Stdio::piped()).spawn().unwrap().wait_with_output().unwrap();
        assert!(!said(&output).contains("panicked"), "{words:?}: {output:?}");
        let mut deaf = home.command();
        deaf.args(words).stdin(Stdio::null()).stdout(Stdio::null()).stderr(writer);
        assert!(matches!(deaf.status().unwrap().code(), Some(0 | 5)), "{words:?}");
    }
}

#[test]
fn where_a_policy_was_looked_for_is_said() {
    let home = Home::new();
    let mut command = home.command();
    command.env("XDG_CONFIG_HOME", home.path().join("elsewhere")).args(["run", "--", "true"]);
    let output = command.stdin(Stdio::null()).output().unwrap();
    let place = home.path().join("elsewhere/holdshort");
    assert!(said(&output).contains(&format!("none is in {}: ", place.display())), "{}", said(&output));
}

#[test]
fn tokens_are_listed_for_people_and_for_programs() {
    let home = Home::new();
    let list = |more: &[&str]| home.holdshort([&["desk", "token", "list"], more].concat());
    assert_eq!(said(&list(&[])), "holdshort: there are no tokens\n");
    assert_eq!(list(&["--json"]).stdout, b"[]\n");
    let added = ["desk", "token", "add", "ci", "--scope", "read", "--scope", "decide"];
    let text = String::from_utf8(home.holdshort(added).stdout).unwrap();
    let listed = String::from_utf8(list(&[]).stdout).unwrap();
    assert!(listed.starts_with("ci read,decide until 2"), "{listed}");
    let all: Value = serde_json::from_slice(&list(&["--json"]).stdout).unwrap();
    assert_eq!((&all[0]["name"], &all[0]["scopes"]), (&json!("ci"), &json!(["read", "decide"])));
    let keys: Vec<&String> = all[0].as_object().unwrap().keys().collect();
    assert_eq!(keys.len(), 4, "nothing of its text: {keys:?}");
    assert!(!listed.contains(text.trim()) && !all.to_string().contains(text.trim()));
}

#[test]
fn a_link_is_for_the_desk_that_runs() {
    let home = Home::new();
    let link = |more: &[&str]| home.holdshort([&["desk", "link"], more].concat());
    let none = link(&[]);
    assert_eq!((none.status.code(), none.stdout.len()), (Some(1), 0), "no key for nobody: {none:?}");
    assert!(said(&none).contains("--url"), "{}", said(&none));
    let start = |more: &[&str]| {
        let mut command = home.command();
        command.args(["desk", "--listen", "127.0.0.1:0"]).args(more);
        let desk = Wrapped::start(command);
        let origin = desk.line().split_once("/sign-in?").unwrap().0.to_owned();
        (desk, origin)
    };
    let prefix = |output: &std::process::Output| {
        let link = String::from_utf8(output.stdout.clone()).unwrap();
        link.split_once("/sign-in?key=").unwrap_or_else(|| panic!("a link: {output:?}")).0.to_owned()
    };
    let (first, origin) = start(&[]);
    assert_eq!(prefix(&link(&[])), origin);
    let (second, other) = start(&["--public-url", "https://desk.example.com"]);
    let which = link(&[]);
    assert_eq!((which.status.code(), which.stdout.len()), (Some(2), 0));
    assert!(said(&which).contains(&origin) && said(&which).contains(&other), "{}", said(&which));
    assert_eq!(prefix(&link(&["--url", "http://127.0.0.1:9/"])), "http://127.0.0.1:9");
    // Killed, so that it leaves what it has said.
    drop(first);
    assert_eq!(prefix(&link(&[])), "https://desk.example.com");
    drop(second);
    assert_eq!(link(&[]).status.code(), Some(1));
    assert_eq!(other, "https://desk.example.com");
}

#[test]
fn nobody_is_told_that_it_listens_before_all_that_was_asked_for_can_be_had() {
    let home = Home::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let config = format!(
        "listen: 127.0.0.1:0\nupstreams:\n  - {{name: test, path: /mcp, url: 'http://127.0.0.1:1/'}}\ntelemetry: {{listen: '{address}'}}\n"
    );
    let config = home.file("serve.yaml", &config);
    let serve = home.holdshort(["serve", "--config", config.to_str().unwrap()]);
    let desk = home.holdshort(["desk", "--listen", "127.0.0.1:0", "--metrics", &address]);
    for output in [serve, desk] {
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(said(&output).contains(&format!("cannot show numbers at {address}")), "{}", said(&output));
        assert!(!said(&output).contains("listening on") && output.stdout.is_empty(), "{output:?}");
    }
}
