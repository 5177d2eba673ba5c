//! The desk as a browser and as a program see it: who is let in, what is shown, and that a verdict comes only from a page that
//! showed the call, or from a token that may.

use std::{
    io::{BufRead, BufReader, Write},
    net::TcpStream,
};

use serde_json::{Value, json};

use crate::support::{
    browser::{Answer, Desk, field},
    keys::FileKey,
    program::{Home, PATIENCE, Wrapped, until},
};

/// A server that answers every request.
const ANSWERING: &str = r#"while read -r line; do id=${line#*\"id\":}; id=${id%%,*}; echo "{\"jsonrpc\":\"2.0\",\"id\":$id,\"result\":{\"ran\":true}}"; done"#;

const HOLD_ALL: &str = "version: 1
default: allow
rules:
  - {name: all, tool: '*', action: hold, reason: A person looks at it.}
";

pub(crate) fn gate(home: &Home) -> Wrapped {
    let policy = home.file("policy.yaml", HOLD_ALL);
    let mut command = home.command();
    command.args(["run", "--server", "billing", "--policy"]).arg(policy).args(["--", "sh", "-c", ANSWERING]);
    Wrapped::start(command)
}

pub(crate) fn call(id: usize, tool: &str, arguments: &Value) -> String {
    let params = json!({"arguments": arguments, "name": tool});
    json!({"id": id, "jsonrpc": "2.0", "method": "tools/call", "params": params}).to_string()
}

/// A desk that has heard of `count` calls that wait, with a cookie for it.
pub(crate) fn desk(home: &Home, count: usize) -> (Desk, String) {
    let desk = Desk::start(home);
    let cookie = desk.sign_in();
    let heading = format!("<span id=\"count\">{count}</span>");
    until(|| desk.get("/", &[("Cookie", &cookie)]).body.contains(&heading).then_some(()));
    (desk, cookie)
}

pub(crate) fn token(home: &Home, arguments: &[&str]) -> String {
    let output = home.holdshort([&["desk", "token", "add"], arguments].concat());
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// The form of a hold on a page, as a browser fills it in.
fn form(page: &str, comment: &str) -> String {
    format!("csrf={}&shown={}&comment={comment}", field(page, "csrf"), field(page, "shown"))
}

#[test]
fn a_desk_is_opened_by_its_link_in_one_browser() {
    let home = Home::new();
    let desk = Desk::start(&home);
    let key = desk.link.split_once("key=").unwrap().1.to_owned();
    let before = desk.get("/", &[]);
    assert_eq!((before.status, before.header("location")), (303, Some("/sign-in")));
    // Looking at the link, as a scanner of mails does, uses nothing up.
    for _ in 0..3 {
        let page = desk.get(&format!("/sign-in?key={key}"), &[]);
        assert!(page.status == 200 && page.header("set-cookie").is_none(), "{page:?}");
    }
    let answer = desk.post_form("/sign-in", "", &format!("key={key}"));
    let cookie = answer.header("set-cookie").unwrap();
    assert!(cookie.starts_with("__Host-holdshort-"), "{cookie}");
    for part in ["; Path=/", "; Secure", "; HttpOnly", "; SameSite=Strict"] {
        assert!(cookie.contains(part), "{part} in {cookie}");
    }
    let cookie = cookie.split(';').next().unwrap();
    assert_eq!(desk.get("/", &[("Cookie", cookie)]).status, 200);
    assert_eq!(desk.post_form("/sign-in", "", &format!("key={key}")).status, 401, "once");
    // A cookie that was there before means nothing, and two of one name mean nothing either.
    let (name, value) = cookie.split_once('=').unwrap();
    for planted in
        [format!("{name}=planted"), format!("{name}=planted; {name}={value}"), format!("x{cookie}")]
    {
        assert_eq!(desk.get("/", &[("Cookie", &planted)]).status, 303, "{planted}");
    }
    // Another link is printed while it runs; signing out ends the session.
    let link = home.holdshort(["desk", "link", "--url", &desk.origin()]);
    let link = String::from_utf8(link.stdout).unwrap();
    let other = desk.post_form("/sign-in", "", &format!("key={}", link.trim().split_once("key=").unwrap().1));
    assert_eq!(other.status, 303);
    let csrf = field(&desk.get("/", &[("Cookie", cookie)]).body, "csrf");
    assert_eq!(desk.post_form("/sign-out", cookie, "csrf=wrong").status, 403);
    assert_eq!(desk.post_form("/sign-out", cookie, &format!("csrf={csrf}")).status, 303);
    assert_eq!(desk.get("/", &[("Cookie", cookie)]).status, 303);
}

#[test]
fn guessing_links_and_tokens_is_slowed_down_and_the_right_one_still_works() {
    let home = Home::new();
    let desk = Desk::start(&home);
    let mut last = None;
    for guess in 0..30 {
        let answer = desk.post_form("/sign-in", "", &format!("key={guess}"));
        last = Some((answer.status, answer.header("retry-after").is_some()));
    }
    assert_eq!(last, Some((429, true)));
    assert_eq!(desk.ask("GET", "/holds", "hsd_guessed", "").problem(), "too-often");
    desk.sign_in();
}

#[test]
fn a_call_is_shown_whole_and_approved_by_a_form_without_a_script() {
    let home = Home::new();
    let mut gate = gate(&home);
    gate.send(&call(1, "send_refund", &json!({"amount": 950, "order": "A-1042"})));
    gate.send(&call(2, "send_refund", &json!({"amount": 1, "order": "A-1"})));
    let ids = home.wait_for_holds(2);
    let (desk, cookie) = desk(&home, 2);
    let list = desk.get("/", &[("Cookie", &cookie)]).body;
    for part in ["send_refund", "billing", "950", "A-1042", "A person looks at it."] {
        assert!(list.contains(part), "{part} in {list}");
    }
    let page = desk.get(&format!("/holds/{}", ids[0]), &[("Cookie", &cookie)]).body;
    let path = format!("/holds/{}/approve", ids[0]);
    assert!(page.contains(&format!("action=\"{path}\"")));
    let answer = desk.post_form(&path, &cookie, &form(&page, "checked+the+order"));
    assert_eq!(answer.header("location"), Some(&*format!("/?said={}", ids[0])), "{answer:?}");
    assert_eq!(gate.receive()["id"], 1, "it ran");
    // The same click again, and another one's rejection, are told who was first.
    for late in ["approve", "reject"] {
        let again = desk.post_form(&format!("/holds/{}/{late}", ids[0]), &cookie, &form(&page, "no"));
        assert_eq!(again.status, 409);
        assert!(
            again.body.contains("Approved") && again.body.contains("checked the order"),
            "{}",
            again.body
        );
    }
    let path = format!("/holds/{}/reject", ids[1]);
    let page = desk.get(&format!("/holds/{}", ids[1]), &[("Cookie", &cookie)]).body;
    assert_eq!(desk.post_form(&path, &cookie, &form(&page, "")).status, 422, "why not?");
    assert_eq!(desk.post_form(&path, &cookie, &form(&page, "not+today")).status, 303);
    let refused = gate.receive();
    assert!(refused["result"]["content"][0]["text"].as_str().unwrap().contains("not today"), "{refused}");
    until(|| desk.get("/", &[("Cookie", &cookie)]).body.contains("id=\"count\">0<").then_some(()));
    for id in &ids {
        let hold = home.show(id);
        assert_eq!(hold["votes"][0]["shown_sha256"], hold["shown_sha256"], "{hold}");
        assert!(hold["shown_sha256"].is_string(), "{hold}");
    }
    let past = desk.get("/history?q=checked", &[("Cookie", &cookie)]).body;
    assert!(past.contains(&ids[0]) && !past.contains(&ids[1]) && past.contains("answered"), "{past}");
    home.verify();
}

#[test]
fn nothing_but_a_form_of_this_desk_decides() {
    let home = Home::new();
    let mut gate = gate(&home);
    gate.send(&call(1, "danger", &json!({})));
    let id = home.wait_for_holds(1).remove(0);
    let (desk, cookie) = desk(&home, 1);
    let page = desk.get(&format!("/holds/{id}"), &[("Cookie", &cookie)]).body;
    let good = form(&page, "x");
    let path = format!("/holds/{id}/approve");
    let origin = desk.origin();
    // Looking never decides, whoever looks.
    for agent in ["Slackbot-LinkExpanding 1.0", "Mozilla/5.0 SafeLinks", "curl/8"] {
        for method in ["GET", "HEAD"] {
            let answer = desk.send(
                method,
                &format!("{path}?{good}"),
                &[("Cookie", &cookie), ("User-Agent", agent)],
                "",
            );
            assert_eq!(answer.status, 405, "{method}");
        }
    }
    for method in ["PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"] {
        let answer = desk.send(method, &path, &[("Cookie", &cookie), ("Origin", &origin)], "");
        assert_eq!(answer.status, 405, "{method}");
        assert_eq!(answer.header("access-control-allow-origin"), None);
    }
    let form_type = ("Content-Type", "application/x-www-form-urlencoded");
    let (own, other) = (("Origin", &*origin), ("Origin", "https://evil.example"));
    let with = ("Cookie", &*cookie);
    let rebound = format!("evil.example:{}", desk.host.split_once(':').unwrap().1);
    let wrong_csrf = good.replacen("csrf=", "csrf=0", 1);
    let no_csrf = good.split_once('&').unwrap().1.to_owned();
    let wrong_shown = good.replace("shown=", "shown=0");
    // A page about another call, one that has not shown it all, and one that says nothing of it.
    let other_shown = good.replace(&field(&page, "shown"), &"0".repeat(64));
    let not_all_shown = good.replace(&field(&page, "shown"), "");
    let no_shown = good.replace("shown=", "seen=");
    for (status, headers, body) in [
        (403, vec![with, form_type, other], &good),
        (403, vec![with, form_type, ("Origin", "null")], &good),
        (403, vec![with, form_type, own, other], &good),
        (403, vec![with, form_type], &good),
        (403, vec![with, form_type, ("Sec-Fetch-Site", "cross-site")], &good),
        (403, vec![with, form_type, ("Sec-Fetch-Site", "same-site")], &good),
        (403, vec![with, form_type, own], &wrong_csrf),
        (403, vec![with, form_type, own], &no_csrf),
        (409, vec![with, form_type, own], &wrong_shown),
        (409, vec![with, form_type, own], &other_shown),
        (409, vec![with, form_type, own], &not_all_shown),
        (400, vec![with, form_type, own], &no_shown),
        (401, vec![form_type, own], &good),
        (400, vec![with, ("Content-Type", "text/plain"), own], &good),
        (421, vec![with, form_type, own, ("Host", &rebound)], &good),
        (421, vec![with, form_type, own, ("Host", "localhost")], &good),
    ] {
        let answer = desk.send("POST", &path, &headers, body);
        assert_eq!(answer.status, status, "{headers:?} {body}: {answer:?}");
    }
    assert_eq!(home.holds().len(), 1, "nothing was decided");
    assert_eq!(desk.post_form(&path, &cookie, &good).status, 303);
}

#[test]
fn a_browser_is_told_to_keep_everything_else_out() {
    let home = Home::new();
    let (desk, cookie) = desk(&home, 0);
    for path in ["/", "/history", "/gates", "/sign-in", "/nothing", "/holds/x", "/api/v1/holds", "/assets/x"]
    {
        let answer = desk.get(path, &[("Cookie", &cookie)]);
        let policy = answer.header("content-security-policy").unwrap();
        for part in ["default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'", "form-action 'self'"]
        {
            assert!(policy.contains(part), "{part} for {path}");
        }
        assert!(!policy.contains("unsafe") && !policy.contains('*'), "{policy}");
        for (name, value) in [
            ("x-frame-options", "DENY"),
            ("x-content-type-options", "nosniff"),
            ("referrer-policy", "same-origin"),
            ("cross-origin-opener-policy", "same-origin"),
            ("cross-origin-resource-policy", "same-origin"),
            ("cache-control", "no-store"),
        ] {
            assert_eq!(answer.header(name), Some(value), "{name} for {path}");
        }
        assert_eq!(answer.header("access-control-allow-origin"), None);
        // Nothing in a page that a policy without `unsafe-inline` would not run.
        for inline in ["<script>", " style=", " onclick=", "javascript:", "http://", "https://"] {
            assert!(!answer.body.contains(inline) || path == "/gates", "{inline} in {path}");
        }
    }
    // What pages need has a name that says what is in it, and stays.
    let page = desk.get("/", &[("Cookie", &cookie)]).body;
    for kind in [".css", ".js", ".svg"] {
        let end = page.find(&format!("{kind}\"")).unwrap() + kind.len();
        let path = page[..end].rsplit('"').next().unwrap();
        let asset = desk.get(path, &[]);
        assert!(
            asset.status == 200 && asset.header("cache-control").unwrap().contains("immutable"),
            "{path}"
        );
    }
}

/// The text of the element behind `mark`, with its entities read and its tags gone.
fn text_behind(page: &str, mark: &str) -> String {
    let (_, rest) = page.split_once(mark).unwrap_or_else(|| panic!("{mark} in {page}"));
    let element = rest.split_once("</details>").unwrap().0;
    let mut text = String::new();
    let mut in_tag = true;
    for c in element.chars() {
        match c {
            '<' => in_tag = true,
            '>' if in_tag => in_tag = false,
            _ if in_tag => {}
            _ => text.push(c),
        }
    }
    for (entity, c) in [("&#60;", "<"), ("&#62;", ">"), ("&#34;", "\""), ("&#39;", "'"), ("&#38;", "&")] {
        text = text.replace(entity, c);
    }
    text.trim().to_owned()
}

#[test]
fn no_text_of_a_call_leaves_its_place_on_a_page() {
    let home = Home::new();
    let mut gate = gate(&home);
    let client = json!({"name": "<b>nice</b> \u{202e}agent\n\u{1b}[2J", "version": "Approved by 2/2"});
    gate.ask(
        &json!({"id": 0, "jsonrpc": "2.0", "method": "initialize",
            "params": {"capabilities": {}, "clientInfo": client, "protocolVersion": "2025-11-25"}})
        .to_string(),
    );
    let arguments = json!({
        "x": "</textarea></details><script>alert(1)</script><img src=x onerror=alert(1)>",
        "cmd": format!("ls{}; rm -rf ~", " ".repeat(5000)),
        "odd": "\u{1b}[2J\u{202e}gnp.exe\u{200b}\u{e0041}\u{2028}\u{0}&lt;&amp;&#60;",
        "p\"><form action=/x>": "javascript:alert(1)",
        "url": "https://\u{430}pple.com/ or file:///etc/passwd",
    });
    let frame = call(1, "read<script>_file", &arguments);
    gate.send(&frame);
    let id = home.wait_for_holds(1).remove(0);
    let (desk, cookie) = desk(&home, 1);
    let hold = format!("/holds/{id}");
    for path in ["/", &hold, "/history"] {
        let page = desk.get(path, &[("Cookie", &cookie)]).body;
        assert!(page.chars().all(|c| c == '\n' || holdshort::sanitize::is_plain(c)), "{path}");
        for tag in ["<script>", "<img", "<form action=/x", "<b>nice"] {
            assert!(!page.contains(tag), "{tag} in {path}");
        }
        let links = page.split("href=\"").skip(1);
        links.for_each(|link| {
            assert!(link.starts_with(['/', '#']), "no link is a call's: {link:.80} in {path}")
        });
        assert!(page.contains("its own word") || path == "/history");
    }
    let page = desk.get(&hold, &[("Cookie", &cookie)]).body;
    assert!(page.contains("xn--pple-43d.com"), "{page}");
    assert!(page.contains("⟨5000 spaces⟩") && page.contains("Careful"), "{page}");
    let shown = text_behind(&page, "aria-label=\"The whole message\">");
    assert_eq!(holdshort::sanitize::unrender(&shown), Some(frame), "the message is rebuilt from the page");
    // What is odd is not decided in passing: the list has no form for it.
    let list = desk.get("/", &[("Cookie", &cookie)]).body;
    assert!(!list.contains("/approve\"") && list.contains("Read all of it"), "{list}");
}

#[test]
fn a_call_that_is_too_long_for_a_page_is_not_approved_on_one() {
    let home = Home::new();
    let mut gate = gate(&home);
    gate.send(&call(1, "write_file", &json!({"text": "x".repeat((1 << 20) + 1)})));
    let id = home.wait_for_holds(1).remove(0);
    let (desk, cookie) = desk(&home, 1);
    let page = desk.get(&format!("/holds/{id}"), &[("Cookie", &cookie)]).body;
    assert!(page.contains("Not shown") && !page.contains("/approve\""), "{page}");
    let answer = desk.post_form(&format!("/holds/{id}/approve"), &cookie, &form(&page, "x"));
    assert_eq!(answer.status, 409);
    assert!(answer.body.contains("longer than a page shows"), "{}", answer.body);
    assert_eq!(home.holds().len(), 1);
    assert_eq!(desk.post_form(&format!("/holds/{id}/reject"), &cookie, &form(&page, "too+long")).status, 303);
}

#[test]
fn secrets_are_covered_until_somebody_asks() {
    let home = Home::new();
    let mut gate = gate(&home);
    gate.send(&call(1, "post", &json!({"body": "use ghp_0123456789abcdefghij now", "password": "hunter2"})));
    let id = home.wait_for_holds(1).remove(0);
    let (desk, cookie) = desk(&home, 1);
    let page = desk.get(&format!("/holds/{id}"), &[("Cookie", &cookie)]).body;
    for secret in ["ghp_0123456789abcdefghij", "hunter2"] {
        assert!(page.contains(&format!("<span class=\"bare\">{secret}</span>")), "{secret} in {page}");
    }
    assert!(page.contains("<details class=\"raw\"><summary>"), "the message as it is, is closed");
}

#[test]
fn a_program_decides_with_a_token_that_may() {
    let home = Home::new();
    let mut gate = gate(&home);
    for id in 1..4 {
        gate.send(&call(id, "danger", &json!({"n": id})));
    }
    let ids = home.wait_for_holds(3);
    let (desk, cookie) = desk(&home, 3);
    let reader = token(&home, &["reader"]);
    let decider = token(&home, &["decider", "--scope", "decide"]);
    let poller = token(&home, &["poller", "--scope", "status"]);
    for (token, path, status) in [
        ("", "/holds", 401),
        ("hsd_wrong", "/holds", 401),
        (&*decider, "/holds", 403),
        (&*poller, "/holds", 403),
        (&*reader, "/audit", 403),
        (&*reader, "/nothing", 404),
    ] {
        assert_eq!(desk.ask("GET", path, token, "").status, status, "{path}");
    }
    // A browser's session is worth nothing here.
    assert_eq!(desk.get("/api/v1/holds", &[("Cookie", &cookie)]).problem(), "not-signed-in");
    let list = desk.ask("GET", "/holds?limit=2", &reader, "").json();
    assert_eq!((&list["holds"][0]["id"], &list["next"]), (&json!(ids[0]), &json!(ids[1])));
    let rest = desk.ask("GET", &format!("/holds?after={}", ids[1]), &reader, "").json();
    assert_eq!((rest["holds"][0]["id"].as_str(), rest.get("next")), (Some(&*ids[2]), None));
    let whole = desk.ask("GET", &format!("/holds/{}", ids[0]), &reader, "").json();
    assert_eq!(
        (&whole["arguments"], &whole["frame"]),
        (&json!({"n": 1}), &json!(call(1, "danger", &json!({"n": 1}))))
    );
    let status = desk.ask("GET", &format!("/holds/{}/status", ids[0]), &poller, "").json();
    assert_eq!(
        (&status["state"], &status["waits"], &status["final"]),
        (&json!("held"), &json!(true), &json!(false))
    );
    assert!(status.get("arguments").is_none() && status.get("tool").is_none(), "{status}");

    let approve = format!("/holds/{}/approve", ids[0]);
    for (body, problem) in [
        ("[]", "invalid"),
        ("{\"comment\":1}", "invalid"),
        ("{\"comment\":\"a\",\"comment\":\"b\"}", "invalid"),
        ("{\"other\":1}", "invalid"),
        ("{\"frame_sha256\":\"00\"}", "not-what-was-shown"),
        ("{\"shown_sha256\":\"00\"}", "invalid"),
        (&json!({"shown_sha256": whole["frame_sha256"]}).to_string(), "not-what-was-shown"),
    ] {
        assert_eq!(desk.ask("POST", &approve, &decider, body).problem(), problem, "{body}");
    }
    assert_eq!(desk.ask("POST", &approve, &reader, "{}").problem(), "not-allowed");
    let sha = whole["frame_sha256"].as_str().unwrap();
    let body = json!({"comment": "by a program", "frame_sha256": sha, "shown_sha256": whole["shown_sha256"]});
    let body = body.to_string();
    assert_eq!(desk.ask("POST", &approve, &decider, &body).status, 200);
    assert_eq!(gate.receive()["id"], 1);
    let late = desk.ask("POST", &approve, &decider, "{}");
    assert_eq!(late.problem(), "ended");
    let vote = late.json()["hold"]["votes"][0].clone();
    assert_eq!(vote["comment"], "by a program");
    assert_eq!(vote["shown_sha256"], whole["shown_sha256"]);
    assert_eq!(desk.ask("POST", &format!("/holds/{}/reject", ids[1]), &decider, "{}").problem(), "invalid");
    let blank = desk.ask("POST", &format!("/holds/{}/reject", ids[1]), &decider, "{\"reason\":\" \"}");
    assert_eq!(blank.problem(), "reason-missing");
    let no = desk.ask("POST", &format!("/holds/{}/reject", ids[1]), &decider, "{\"reason\":\"no\"}");
    assert_eq!(no.json()["state"], "rejected");
    assert_eq!(home.show(&ids[1])["votes"][0].get("shown_sha256"), None, "nobody has said what was shown");
    assert_eq!(
        desk.ask("POST", "/holds/00000000000000000000000000/approve", &decider, "{}").problem(),
        "not-found"
    );

    // The agent's side waits for the decision on the third call and hears of it at once.
    let told = std::thread::scope(|scope| {
        let waiting =
            scope.spawn(|| desk.ask("GET", &format!("/holds/{}/status?wait=60", ids[2]), &poller, "").json());
        assert!(home.holdshort(["approve", &ids[2]]).status.success());
        waiting.join().unwrap()
    });
    assert_eq!((&told["waits"], &told["approved"]), (&json!(false), &json!(true)), "{told}");

    let past = desk.ask("GET", "/history?state=rejected", &reader, "").json();
    assert_eq!(past["holds"].as_array().unwrap().len(), 1);
    assert!(home.holdshort(["desk", "token", "revoke", "reader"]).status.success());
    assert_eq!(desk.ask("GET", "/holds", &reader, "").problem(), "not-signed-in");
    home.verify();
}

#[test]
fn a_program_passes_on_what_a_person_has_signed() {
    let home = Home::new();
    let (ann, eve) = (key(&home, "ann"), key(&home, "eve"));
    let policy = format!(
        "version: 1\npeople:\n  ann: {{roles: [finance], ssh_keys: ['{}']}}\nrules:\n  \
         - {{name: all, tool: '*', action: hold, approvers: [finance], signed: true}}\n",
        ann.line
    );
    let policy = home.file("policy.yaml", &policy);
    let mut command = home.command();
    command.args(["run", "--server", "billing", "--policy"]).arg(policy).args(["--", "sh", "-c", ANSWERING]);
    let mut gate = Wrapped::start(command);
    gate.send(&call(1, "pay", &json!({"amount": 1})));
    gate.send(&call(2, "pay", &json!({"amount": 2})));
    let ids = home.wait_for_holds(2);
    let (desk, _) = desk(&home, 2);
    let token = token(&home, &["ci", "--scope", "read", "--scope", "decide"]);
    let statement =
        |id: &str, query: &str| desk.ask("GET", &format!("/holds/{id}/statement?{query}"), &token, "");
    let say = |id: &str, verdict: &str, body: Value| {
        desk.ask("POST", &format!("/holds/{id}/{verdict}"), &token, &body.to_string())
    };
    let proof = |key: &FileKey, text: &str| serde_json::to_value(key.sign(text)).unwrap();
    // The statement is about this call and this verdict.
    let approval = statement(&ids[0], "verdict=approve&comment=seen").body;
    let hold = desk.ask("GET", &format!("/holds/{}", ids[0]), &token, "").json();
    assert!(
        approval.contains(&format!("frame-sha256: {}\n", hold["frame_sha256"].as_str().unwrap())),
        "{approval}"
    );
    assert_eq!(statement(&ids[0], "").problem(), "invalid");
    assert_eq!(statement(&ids[0], "verdict=perhaps").problem(), "invalid");
    // Without a signature, with that of somebody else, or about something else: refused.
    assert_eq!(say(&ids[0], "approve", json!({"comment": "seen"})).problem(), "not-allowed");
    let other = statement(&ids[1], "verdict=approve&comment=seen").body;
    let rejection = statement(&ids[0], "verdict=reject&comment=seen").body;
    for (signed, by) in [(&approval, &eve), (&other, &ann), (&rejection, &ann)] {
        let refused = say(&ids[0], "approve", json!({"comment": "seen", "proof": proof(by, signed)}));
        assert_eq!(refused.problem(), "not-allowed", "{signed}");
    }
    let mut altered = proof(&ann, &approval);
    altered["statement"] = json!(approval.replace("verdict: approve", "verdict: reject"));
    assert_eq!(say(&ids[0], "reject", json!({"reason": "seen", "proof": altered})).problem(), "not-allowed");
    assert_eq!(say(&ids[0], "approve", json!({"proof": {"statement": approval}})).problem(), "invalid");
    assert_eq!(home.wait_for_holds(2), ids);
    let signed = proof(&ann, &approval);
    let both = json!({"comment": "seen", "proof": signed, "shown_sha256": hold["frame_sha256"]});
    assert_eq!(say(&ids[0], "approve", both).problem(), "not-what-was-shown", "the statement says another");
    let said = say(&ids[0], "approve", json!({"comment": "seen", "proof": proof(&ann, &approval)}));
    assert_eq!((said.status, said.json()["state"].clone()), (200, json!("forwarding")), "{said:?}");
    assert_eq!(gate.receive()["id"], 1, "it ran");
    let hold = desk.ask("GET", &format!("/holds/{}", ids[0]), &token, "").json();
    assert_eq!(hold["votes"][0]["person"], "ann");
    assert_eq!(hold["votes"][0]["proof"]["statement"], json!(approval), "it can be proven later");
    assert_eq!(statement(&ids[0], "verdict=approve").problem(), "ended");
    home.verify();
}

fn key(home: &Home, name: &str) -> FileKey {
    FileKey::new(home.path(), name, &["-t", "ed25519"])
}

#[test]
fn a_program_says_what_became_of_a_call_of_which_nobody_knew() {
    let home = Home::new();
    let policy = home.file("policy.yaml", HOLD_ALL);
    let mut command = home.command();
    command.args(["run", "--server", "billing", "--policy"]).arg(policy);
    command.args(["--", "sh", "-c", "while read -r line; do :; done"]);
    let mut dead = Wrapped::start(command);
    dead.send(&call(1, "pay", &json!({"amount": 1})));
    dead.send(&call(2, "pay", &json!({"amount": 2})));
    let ids = home.wait_for_holds(2);
    for id in &ids {
        assert!(home.holdshort(["approve", id]).status.success());
    }
    dead.process.kill().unwrap();
    dead.process.wait().unwrap();
    let mut gate = gate(&home);
    let state = |id: &str| -> Option<Value> {
        let output = home.holdshort(["show", id, "--json"]);
        Some(serde_json::from_slice::<Value>(&output.stdout).ok()?["state"].clone())
    };
    until(|| (state(&ids[0])? == "unknown" && state(&ids[1])? == "unknown").then_some(()));
    gate.send(&call(3, "pay", &json!({"amount": 3})));
    let (desk, _) = desk(&home, 1);
    let (decides, reads) =
        (token(&home, &["ci", "--scope", "decide"]), token(&home, &["cd", "--scope", "read"]));
    let say =
        |id: &str, token: &str, body: &str| desk.ask("POST", &format!("/holds/{id}/resolve"), token, body);
    assert_eq!(say(&ids[0], &reads, "{\"ran\":true}").problem(), "not-allowed");
    for bad in ["{}", "{\"ran\":\"yes\"}", "{\"ran\":true,\"more\":1}", "[true]"] {
        assert_eq!(say(&ids[0], &decides, bad).problem(), "invalid", "{bad}");
    }
    let waiting = home.holds().into_iter().find(|hold| hold["state"] == "held").unwrap();
    assert_eq!(say(waiting["id"].as_str().unwrap(), &decides, "{\"ran\":true}").problem(), "not-unknown");
    let said = say(&ids[0], &decides, "{\"ran\":true,\"comment\":\"the ledger has it\"}");
    assert_eq!((said.status, said.json()["state"].clone()), (200, json!("ran")), "{said:?}");
    assert_eq!(say(&ids[1], &decides, "{\"ran\":false}").json()["state"], "not_run");
    assert_eq!(say(&ids[0], &decides, "{\"ran\":false}").problem(), "ended", "that is known now");
    home.verify();
}

#[test]
fn the_record_that_a_desk_exports_is_the_record() {
    let home = Home::new();
    let mut gate = gate(&home);
    gate.send(&call(1, "danger", &json!({"formula": "=1+1"})));
    let id = home.wait_for_holds(1).remove(0);
    let (desk, cookie) = desk(&home, 1);
    assert!(home.holdshort(["reject", &id, "--reason", "=cmd()"]).status.success());
    gate.receive();
    let auditor = token(&home, &["auditor", "--scope", "audit", "--scope", "read"]);
    let exported = String::from_utf8(home.holdshort(["audit", "export"]).stdout).unwrap();
    assert!(exported.lines().count() >= 3, "{exported}");
    assert_eq!(desk.ask("GET", "/audit", &auditor, "").body, exported);
    assert_eq!(desk.get("/history/export?format=audit", &[("Cookie", &cookie)]).body, exported);
    let rest = desk.ask("GET", "/audit?after=1", &auditor, "").body;
    assert_eq!(rest, exported.split_once('\n').unwrap().1);
    let found = desk.ask("GET", "/audit/verification", &auditor, "").json();
    assert_eq!((&found["sound"], &found["broken"]), (&json!(true), &Value::Null));
    let checkpoint = found["checkpoint"].as_str().unwrap().replace(' ', "%20").replace('+', "%2B");
    let against = desk.ask("GET", &format!("/audit/verification?against={checkpoint}"), &auditor, "");
    assert_eq!(against.json()["sound"], true);
    assert_eq!(desk.ask("GET", "/audit/verification?against=x", &auditor, "").problem(), "invalid");
    let csv = desk.get("/history/export?format=csv", &[("Cookie", &cookie)]);
    assert!(csv.body.contains("\"'=cmd()\"") && csv.body.contains(&id), "{}", csv.body);
    let lines = desk.get("/history/export?format=jsonl&q=formula", &[("Cookie", &cookie)]).body;
    assert_eq!(serde_json::from_str::<Value>(lines.trim()).unwrap()["id"], *id);
    assert_eq!(desk.get("/history/export?format=exe", &[("Cookie", &cookie)]).status, 400);
}

/// The next event of a stream: its name and its data.
fn event(stream: &mut impl BufRead) -> (String, Value) {
    let mut name = String::new();
    loop {
        let mut line = String::new();
        assert!(stream.read_line(&mut line).unwrap() > 0, "the stream goes on");
        if let Some(event) = line.strip_prefix("event: ") {
            name = event.trim().to_owned();
        } else if let Some(data) = line.strip_prefix("data: ") {
            return (name, serde_json::from_str(data).unwrap());
        }
    }
}

/// Opens a stream of events, and reads until it listens.
fn listen(desk: &Desk, path: &str, header: &str) -> BufReader<TcpStream> {
    let mut stream = TcpStream::connect(&desk.host).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {}\r\n{header}\r\n\r\n", desk.host).unwrap();
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    while !line.starts_with(':') {
        line.clear();
        assert!(stream.read_line(&mut line).unwrap() > 0, "it listens");
    }
    stream
}

#[test]
fn what_happens_is_told_to_every_page_that_is_open() {
    let home = Home::new();
    let mut gate = gate(&home);
    gate.send(&call(1, "first", &json!({})));
    let first = home.wait_for_holds(1).remove(0);
    let (desk, cookie) = desk(&home, 1);
    let reader = token(&home, &["reader"]);
    let mut page = listen(&desk, "/events", &format!("Cookie: {cookie}"));
    let mut rest = listen(&desk, "/api/v1/events", &format!("Authorization: Bearer {reader}"));
    gate.send(&call(2, "second", &json!({"n": 2})));
    let (name, news) = event(&mut page);
    assert_eq!((&*name, &news["waiting"]), ("held", &json!(2)));
    let html = news["html"].as_str().unwrap();
    assert!(html.contains("second") && html.contains("/approve\""), "{html}");
    let (name, news) = event(&mut rest);
    assert_eq!((&*name, &news["hold"]["arguments"]), ("held", &json!({"n": 2})));
    // Decided by somebody else: every page shows it.
    assert!(home.holdshort(["reject", &first, "--reason", "no"]).status.success());
    let (name, news) = event(&mut page);
    assert_eq!((&*name, news["id"].as_str()), ("ended", Some(&*first)));
    let html = news["html"].as_str().unwrap();
    assert!(html.contains("rejected") && !html.contains("/approve\""), "{html}");
    let (name, news) = event(&mut rest);
    assert_eq!((&*name, &news["hold"]["state"]), ("ended", &json!("rejected")));
    // The gate goes, and what waited there with it.
    drop(gate);
    assert!(["missed", "ended"].contains(&&*event(&mut page).0));
}

#[test]
fn a_desk_listens_on_this_machine_unless_somebody_says_what_that_means() {
    let home = Home::new();
    for (arguments, why) in [
        (&["--listen", "0.0.0.0:0"][..], "refused without `--danger-plain-http`"),
        (&["--listen", "[::]:0"], "refused without `--danger-plain-http`"),
        (&["--listen", "0.0.0.0:0", "--danger-plain-http"], "--public-url"),
        (&["--public-url", "http://desk.example.com"], "not the https address"),
    ] {
        let output = home.holdshort([&["desk"], arguments].concat());
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(String::from_utf8(output.stderr).unwrap().contains(why), "{why}");
    }
    let mut command = home.command();
    command.args(["desk", "--listen", "127.0.0.1:0", "--public-url", "https://desk.example.com"]);
    let link = Wrapped::start(command).line();
    assert!(link.starts_with("https://desk.example.com/sign-in?key="), "{link}");
}

#[test]
fn a_request_that_is_not_what_is_asked_for_gets_an_answer_and_no_more() {
    let home = Home::new();
    let (desk, cookie) = desk(&home, 0);
    let reader = token(&home, &["reader", "--scope", "read", "--scope", "decide"]);
    let paths = [
        "/holds/../gates",
        "/holds/x%00",
        "//",
        "/holds/%2e%2e",
        "/assets/../desk.rs",
        "/?after=x",
        "/history?state=x",
    ];
    for path in paths {
        let answer: Answer = desk.get(path, &[("Cookie", &cookie)]);
        assert!([400, 404].contains(&answer.status), "{path}: {}", answer.status);
    }
    for path in ["/holds?limit=0", "/holds?limit=x", "/holds?unknown=1", "/history?before=1"] {
        let answer = desk.ask("GET", path, &reader, "");
        assert_eq!(answer.problem(), "invalid", "{path}");
    }
    let long = format!("{{\"comment\":\"{}\"}}", "x".repeat(70_000));
    let id = "00000000000000000000000000";
    assert_eq!(desk.ask("POST", &format!("/holds/{id}/approve"), &reader, &long).problem(), "too-large");
    let bearer = format!("Bearer {reader}");
    let text = [("Authorization", &*bearer), ("Content-Type", "text/plain")];
    let answer = desk.send("POST", &format!("/api/v1/holds/{id}/approve"), &text, "{}");
    assert_eq!(answer.problem(), "unsupported-media-type");
    assert_eq!(desk.ask("POST", "/holds", &reader, "{}").problem(), "method-not-allowed");
    assert_eq!(desk.send("GET", "/", &[("Host", "a"), ("Host", "b")], "").status, 421);
}
