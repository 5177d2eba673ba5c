//! A policy that changes while its gate runs: by itself and on demand, as a whole or not at all, and never wider for what
//! waits already.

use std::{
    fs::{Permissions, set_permissions},
    io::{BufRead as _, BufReader},
    os::unix::fs::PermissionsExt as _,
    process::{Command, Output, Stdio},
};

use serde_json::Value;

use crate::support::{
    http::{Proxy, Server},
    program::{Home, Wrapped, until},
};

/// A server that answers every request.
const ANSWERING: &str = r#"while read -r line; do id=${line#*\"id\":}; id=${id%%,*}; echo "{\"jsonrpc\":\"2.0\",\"id\":$id,\"result\":{\"ran\":true}}"; done"#;

fn policy(action: &str) -> String {
    format!("version: 1\nrules:\n  - {{name: pay, tool: pay, action: {action}}}\n")
}

fn wrap(home: &Home) -> Command {
    let mut command = home.command();
    command.args(["run", "--server", "billing", "--policy"]).arg(home.path().join("policy.yaml"));
    command.args(["--", "sh", "-c", ANSWERING]);
    command
}

fn pay(id: u32) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"pay","arguments":{{"n":{id}}}}}}}"#
    )
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn reload(home: &Home) -> Output {
    home.holdshort(["policy", "reload"])
}

/// The events of a kind, from the audit log.
fn events(home: &Home, kind: &str) -> Vec<Value> {
    let exported = text(&home.holdshort(["audit", "export"]).stdout);
    let events = exported.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    events.filter(|event| event["kind"] == kind).collect()
}

/// Whether the gate has another policy than the one of this digest.
fn changed(home: &Home, kind: &str, count: usize) -> Vec<Value> {
    until(|| Some(events(home, kind)).filter(|events| events.len() >= count))
}

#[test]
fn a_changed_file_comes_into_force_by_itself_and_a_broken_one_does_not() {
    let home = Home::new();
    home.file("policy.yaml", &policy("deny"));
    let mut gate = Wrapped::start(wrap(&home));
    assert_eq!(gate.ask(&pay(1))["result"]["isError"], true);
    home.file("policy.yaml", &policy("allow"));
    let loaded = changed(&home, "policy_loaded", 1);
    assert_eq!(loaded[0]["who"], "gate:files");
    assert_eq!(gate.ask(&pay(2))["result"]["ran"], true);
    // Editors write a new file and put it in the place of the old one.
    let new = home.file("policy.new", &policy("dney"));
    std::fs::rename(new, home.path().join("policy.yaml")).unwrap();
    let refused = changed(&home, "policy_refused", 1);
    assert!(refused[0]["reason"].as_str().unwrap().starts_with("P0013: "), "{refused:?}");
    assert_eq!(refused[0]["policy_sha256"], loaded[0]["policy_sha256"], "the last good one stays");
    assert_eq!(gate.ask(&pay(3))["result"]["ran"], true);
    home.verify();
}

#[test]
fn an_operator_reloads_and_hears_what_is_wrong() {
    let home = Home::new();
    home.file("policy.yaml", &policy("allow"));
    let mut gate = Wrapped::start(wrap(&home));
    assert_eq!(gate.ask(&pay(1))["result"]["ran"], true);
    let unchanged = reload(&home);
    assert!(unchanged.status.success() && text(&unchanged.stdout).contains(": unchanged: 1 rule,"));
    home.file("policy.yaml", "version: 1\nrules:\n  - {name: pay, tol: pay, action: deny}\n");
    let broken = reload(&home);
    assert_eq!(broken.status.code(), Some(2));
    assert!(text(&broken.stderr).contains("a rule has no key `tol`"), "{}", text(&broken.stderr));
    assert_eq!(gate.ask(&pay(2))["result"]["ran"], true);
    home.file("policy.yaml", &policy("deny"));
    assert!(reload(&home).status.success());
    assert_eq!(gate.ask(&pay(3))["result"]["isError"], true, "who has heard that it is done can rely on it");
}

#[test]
fn what_waits_goes_on_waiting_when_the_policy_becomes_wider() {
    let home = Home::new();
    home.file("policy.yaml", &policy("hold"));
    let mut gate = Wrapped::start(wrap(&home));
    gate.send(&pay(1));
    let ids = home.wait_for_holds(1);
    home.file("policy.yaml", &policy("allow"));
    assert!(reload(&home).status.success());
    assert_eq!(gate.ask(&pay(2))["id"], 2, "the next call runs, and the one that waits does not");
    assert_eq!(home.wait_for_holds(1), ids);
    assert!(home.holdshort(["approve", &ids[0]]).status.success());
    assert_eq!(gate.receive()["id"], 1);
}

#[test]
fn a_policy_that_others_can_change_is_refused_where_agents_are_said_to_be_out_of_reach() {
    let home = Home::new();
    let change = |name: &str, mode: u32| {
        set_permissions(home.path().join(name), Permissions::from_mode(mode)).unwrap();
    };
    std::fs::create_dir(home.path().join("rules")).unwrap();
    change("rules", 0o755);
    home.file("rules/policy.yaml", &policy("allow"));
    home.file("token", "a-token-of-thirty-two-characters");
    let config = |level: &str| {
        home.file("serve.yaml", &format!("listen: 127.0.0.1:0\npolicy: [rules]\nassurance: {level}\nagents: {{tokens: [{{name: build, file: token}}]}}\nupstreams: [{{name: billing, path: /mcp, url: \"http://127.0.0.1:9/\"}}]\n"))
    };
    let serve = |level: &str| {
        let mut command = home.command();
        command.args(["serve".as_ref(), "--config".as_ref(), config(level).as_os_str()]).stdin(Stdio::null());
        command
    };
    for (name, mode, usual) in [("rules/policy.yaml", 0o646, 0o644), ("rules", 0o777, 0o755)] {
        change(name, mode);
        let refused = serve("L2").output().unwrap();
        let told = text(&refused.stderr);
        assert_eq!(refused.status.code(), Some(2), "{name}: {told}");
        assert!(told.contains("error[P0009]") && told.contains("can be written by other users"), "{told}");
        change(name, usual);
    }
    let mut gate = serve("L2").stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(gate.stderr.take().unwrap()).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.contains("listening on")), "nobody else can change it now");
    change("rules/policy.yaml", 0o646);
    home.file("rules/policy.yaml", &policy("deny"));
    let broken = reload(&home);
    assert_eq!(broken.status.code(), Some(2), "{}", text(&broken.stderr));
    assert!(text(&broken.stderr).contains("P0009"), "{}", text(&broken.stderr));
    change("rules/policy.yaml", 0o644);
    assert!(reload(&home).status.success());
    gate.kill().unwrap();
    gate.wait().unwrap();
}

/// Waits until `proxy` has said that it has not taken its configuration, and `why`.
fn until_refused(proxy: &Proxy, why: &str) {
    until(|| proxy.said().contains("the configuration was not read again").then_some(()));
    until(|| proxy.said().contains(why).then_some(()));
}

#[test]
fn a_configuration_that_would_open_the_address_that_stays_is_refused_as_a_whole() {
    let server = Server::of_result("{}");
    let upstreams = |path: &str| {
        format!("upstreams: [{{name: billing, path: {path}, url: \"http://{}/\"}}]\n", server.address)
    };
    let open = "listen: 0.0.0.0:0\nhosts: [gate.example]\ndanger_listen_without_tls: true\n";
    let proxy = Proxy::start(&policy("allow"), &format!("{open}{}", upstreams("/mcp")));
    let status = |host: &str| proxy.post(&[("host", host)], &pay(1)).status();
    assert_eq!((status("gate.example"), status("localhost")), (200, 403));
    let elsewhere = "policy: [policy.yaml]\nlisten: 127.0.0.1:8080\n";
    proxy.reload(&format!("{elsewhere}{}", upstreams("/other")));
    until_refused(&proxy, "others can reach 0.0.0.0, where this process goes on listening, and nothing");
    assert!(proxy.said().contains("the names by which others reach 0.0.0.0"), "{}", proxy.said());
    assert_eq!((status("gate.example"), status("localhost")), (200, 403), "all of it stays as it was");
    // The same with what belongs to the address that stays.
    let more = "hosts: [gate.example]\ndanger_listen_without_tls: true\n";
    proxy.reload(&format!("{elsewhere}{more}{}", upstreams("/other")));
    until(|| (status("gate.example") == 404).then_some(()));
    assert_eq!(status("localhost"), 403, "others reach this process, whatever a new one would listen on");
}

#[test]
fn a_configuration_that_would_let_in_whoever_comes_is_refused_where_the_level_stays() {
    let server = Server::of_result("{}");
    let upstreams =
        format!("upstreams: [{{name: billing, path: /mcp, url: \"http://{}/\"}}]\n", server.address);
    let agents = "agents: {tokens: [{name: build, file: token}]}\n";
    let files = [("token", "a-token-of-thirty-two-characters")];
    let proxy = Proxy::with_files(&policy("allow"), &format!("{upstreams}{agents}assurance: L2\n"), &files);
    let known = [("authorization", "Bearer a-token-of-thirty-two-characters")];
    assert_eq!((proxy.post(&known, &pay(1)).status(), proxy.post(&[], &pay(2)).status()), (200, 401));
    let rest = format!("listen: 127.0.0.1:0\npolicy: [policy.yaml]\n{upstreams}");
    proxy.reload(&rest);
    until_refused(&proxy, "this process stays at `assurance: L2`");
    assert_eq!((proxy.post(&known, &pay(3)).status(), proxy.post(&[], &pay(4)).status()), (200, 401));
    // Without the level alone it goes together: a new process would have none, and this one keeps it.
    proxy.reload(&format!("{rest}{agents}"));
    until(|| proxy.said().contains("key=\"assurance\"").then_some(()));
    assert_eq!(proxy.post(&[], &pay(5)).status(), 401);
}
