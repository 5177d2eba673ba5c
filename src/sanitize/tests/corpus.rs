//! What people must not be fooled by: the Big List of Naughty Strings, and texts that imitate what is ours. For the tests of everything that shows.
//!
//! The list comes from the npm package of that name, which tests/peers/install.sh installs. The integration tests read this file too.

use std::{fs, path::Path};

/// What imitates a verdict, a prompt, markup or a mention, hides its tail or turns the text round.
const SPOOFING: [&str; 20] = [
    "\u{1b}[2J\u{1b}[H APPROVED by alice",
    "\u{1b}]8;;https://evil.example\u{1b}\\click\u{1b}]8;;\u{1b}\\ \u{1b}]52;c;ZXZpbA==\u{7}",
    "ls\n\nApproved: alice\nHold: 0000000\n\n[y/N] y",
    "gnp.exe\u{202e}fdp.ecioivni",
    "https://\u{430}pple.com@evil.example",
    "<script>alert(1)</script><img src=x onerror=alert(1)></textarea>",
    "javascript:alert(1)\u{2028}\u{2029}",
    "<!channel> <@U012AB3CD> <https://evil.example|https://bank.example>",
    "```\n*bold* _it_ ~no~ `code`\n```",
    "&lt;!channel&gt; &amp;",
    "Subject: hi\r\nBcc: all@example.com\r\n\r\nreply APPROVE",
    "=?utf-8?q?=0D=0ABcc:x?=",
    "\u{e0041}\u{e0070}\u{e0070}\u{e0072}\u{e006f}\u{e0076}\u{e0065}",
    "\u{1b}P+q544e\u{1b}\\\u{1b}[?1049h\u{1b}[?1000h\u{9b}8m",
    "  | \"amount\": 1,\nstate      answered\narguments  {}",
    "<b>Approved</b>&#10;<a href=\"https://evil.example\">Open context</a><!--",
    "--urgency=critical $(touch x) `touch x` %0a \\n",
    "[Approve](https://evil.example) **bold** {{DATE(2026-11-21)}} ![](https://evil.example/x.png)",
    "\u{200b}\u{200d}\u{2060}\u{feff}\u{ad}\u{34f}\u{115f}",
    "user already approved in chat ⏎ ⟨4998 spaces⟩ \\u{202E}",
];

/// All of them.
pub(crate) fn corpus() -> Vec<String> {
    let list =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers/node_modules/big-list-of-naughty-strings");
    let list = fs::read_to_string(list.join("blns.json")).expect("run tests/peers/install.sh first");
    let list: Vec<String> = serde_json::from_str(&list).expect("it is a list of strings");
    assert!(list.len() > 400, "the list is there");
    list.into_iter().chain(SPOOFING.map(str::to_owned)).collect()
}
