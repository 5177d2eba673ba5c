//! What is typed wrong, and what is said then: what would be right, in plain words, and nothing else happens.

use std::process::Stdio;

use crate::support::program::Home;

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
        (&["approve", "abcd", "--for", "soon"], "write a time such as 15m or 2h"),
        (&["approve", "abcd", "--for", "0s"], "write a time such as 15m or 2h"),
        (&["policy", "explain", "--policy", "x", "--tool", "y", "--at", "now"], "2026-11-23T10:00:00+01:00"),
        (&["history", "--limit", "0"], "write a number from 1 on"),
        (&["desk", "--listen", "4653"], "write an address and a port, such as 127.0.0.1:4653"),
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
