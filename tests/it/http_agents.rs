//! Who asks over HTTP and what is passed on of it: tokens, certificates, proxies, TLS on either side, OAuth.

use std::{
    net::{SocketAddr, TcpStream},
    path::Path,
    sync::Arc,
};

use holdshort::digest::Digest;
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use serde_json::json;

use crate::support::{
    http::{Connection, Message, Proxy, Server, json, post},
    program::{PATIENCE, until},
};

#[path = "../../certs/generate.rs"]
mod certs;

const POLICY: &str = "version: 1\nrules:\n  - {name: safe, tool: safe, action: allow}\n  - {name: danger, tool: danger, action: hold, reason: People decide., timeout: 10m}\n";
const RESULT: &str = r#"{"content":[]}"#;

fn call(tool: &str) -> String {
    format!("{{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\",\"params\":{{\"name\":\"{tool}\"}}}}")
}

/// A connection with TLS, with the client's certificate or without.
fn connect(address: SocketAddr, dir: &Path, with_certificate: bool) -> Connection {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(dir.join("ca.pem")).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let builder = builder.with_root_certificates(roots);
    let config = if with_certificate {
        let chain = vec![CertificateDer::from_pem_file(dir.join("client.pem")).unwrap()];
        let key = PrivateKeyDer::from_pem_file(dir.join("client.key")).unwrap();
        builder.with_client_auth_cert(chain, key).unwrap()
    } else {
        builder.with_no_client_auth()
    };
    let name = ServerName::try_from("localhost").unwrap();
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    Connection::of(StreamOwned::new(ClientConnection::new(Arc::new(config), name).unwrap(), stream))
}

fn asked_with(server: &Server, name: &str) -> Option<String> {
    server.asked().last().and_then(|asked| asked.header(name).map(str::to_owned))
}

#[test]
fn a_token_says_who_asks_and_goes_no_further() {
    let server = Server::of_result(RESULT);
    let digest = Digest::of(b"s3cret");
    let config = format!(
        "agents:\n  tokens:\n    - {{name: build, sha256: {digest}}}\n    - {{name: night, file: night.token}}\n\
         upstreams:\n  - name: test\n    path: /mcp\n    url: \"http://{}/\"\n    headers: {{authorization: {{value: Bearer ours}}}}\n    \
         headers_of: {{night: {{authorization: {{file: night.upstream}}}}}}\n",
        server.address
    );
    let files = [("night.token", "moon over the sea\n"), ("night.upstream", "Bearer night's own\n")];
    let proxy = Proxy::with_files(POLICY, &config, &files);
    for wrong in [&[][..], &[("authorization", "Bearer wrong")], &[("authorization", "Basic s3cret")]] {
        let answer = proxy.post(wrong, &call("safe"));
        assert_eq!((answer.status(), answer.header("www-authenticate")), (401, Some("Bearer")), "{wrong:?}");
    }
    assert!(server.asked().is_empty());
    let build = [("authorization", "Bearer s3cret"), ("mcp-session-id", "s-1")];
    assert_eq!(proxy.post(&build, &call("safe")).status(), 200);
    assert_eq!(asked_with(&server, "authorization").as_deref(), Some("Bearer ours"));
    let night = [("authorization", "bearer moon over the sea")];
    assert_eq!(proxy.post(&night, &call("safe")).status(), 200);
    assert_eq!(asked_with(&server, "authorization").as_deref(), Some("Bearer night's own"));
    let stolen = [("authorization", "Bearer moon over the sea"), ("mcp-session-id", "s-1")];
    assert_eq!(proxy.post(&stolen, &call("safe")).status(), 404, "a session is its principal's");
    let mut client = proxy.connect();
    client.send(&post("/mcp", &night, &call("danger")));
    proxy.home.wait_for_holds(1);
    assert_eq!(proxy.home.holds()[0]["principal"], "agent:night");
}

/// Two agents with tokens of their own.
const TWO_AGENTS: [&str; 2] = ["Bearer alice's own token", "Bearer bob's own token"];

fn two_agents() -> String {
    let digests = TWO_AGENTS.map(|shown| Digest::of(shown.trim_start_matches("Bearer ").as_bytes()));
    let [alice, bob] = digests;
    format!("agents: {{tokens: [{{name: alice, sha256: {alice}}}, {{name: bob, sha256: {bob}}}]}}\n")
}

#[test]
fn whatever_revision_a_message_names_nobody_acts_in_the_session_of_another_agent() {
    let server = Server::of_result(RESULT);
    let proxy = Proxy::before(&server, POLICY, &two_agents());
    let [alice, bob] = TWO_AGENTS.map(|shown| ("authorization", shown));
    let session = ("mcp-session-id", "s-alice");
    assert_eq!(proxy.post(&[alice, session], &call("safe")).status(), 200);
    let naming =
        |version: &str| format!("\"_meta\":{{\"io.modelcontextprotocol/protocolVersion\":\"{version}\"}}");
    for version in ["2025-11-25", "2024-11-05", "zzzz", "9999-99"] {
        let (version, meta) = (("mcp-protocol-version", version), naming(version));
        let named = call("safe").replace("\"name\":\"safe\"", &format!("\"name\":\"safe\",{meta}"));
        let (method, name) = (("mcp-method", "tools/call"), ("mcp-name", "safe"));
        assert_eq!(proxy.post(&[bob, session, version, method, name], &named).status(), 404, "{version:?}");
        let method = ("mcp-method", "notifications/cancelled");
        let cancelled = format!(
            "{{\"jsonrpc\":\"2.0\",\"method\":\"notifications/cancelled\",\"params\":{{\"requestId\":1,{meta}}}}}"
        );
        assert_eq!(proxy.post(&[bob, session, version, method], &cancelled).status(), 404, "{version:?}");
    }
    assert_eq!(server.asked().len(), 1, "the server has only heard of alice's call");

    // A revision without sessions: whatever is named as one does not reach the server.
    let (version, meta) = (("mcp-protocol-version", "2026-07-28"), naming("2026-07-28"));
    let (method, name) = (("mcp-method", "tools/call"), ("mcp-name", "safe"));
    let named = call("safe").replace("\"name\":\"safe\"", &format!("\"name\":\"safe\",{meta}"));
    assert_eq!(proxy.post(&[bob, session, version, method, name], &named).status(), 200);
    assert_eq!(asked_with(&server, "mcp-session-id"), None);
    let told = "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/x\"}";
    assert_eq!(proxy.post(&[bob, session, version], told).status(), 202);
    assert_eq!(asked_with(&server, "mcp-session-id"), None);
    assert_eq!(proxy.post(&[bob, ("mcp_session_id", "s-alice")], &call("safe")).status(), 200);
    assert_eq!(asked_with(&server, "mcp_session_id"), None, "some servers read it as the same");
}

#[test]
fn a_header_that_says_who_an_agent_is_comes_from_the_configuration_alone() {
    let server = Server::of_result(RESULT);
    let config = format!(
        "{}upstreams:\n  - name: test\n    path: /mcp\n    url: \"http://{}/\"\n    headers: {{x-site: {{value: eu}}}}\n    \
         headers_of: {{alice: {{x-tenant: {{value: A}}, authorization: {{value: Bearer up}}}}, carol: {{x_seat: {{value: C}}}}}}\n",
        two_agents(),
        server.address
    );
    let proxy = Proxy::start(POLICY, &config);
    let posed = [
        ("x-tenant", "B"),
        ("x_tenant", "B"),
        ("x-site", "us"),
        ("X_Site", "us"),
        ("x-seat", "B"),
        ("x_forwarded_for", "192.0.2.1"),
        ("x_own", "kept"),
    ];
    for (shown, tenant) in TWO_AGENTS.into_iter().zip([Some("A"), None]) {
        let mut headers = posed.to_vec();
        headers.push(("authorization", shown));
        assert_eq!(proxy.post(&headers, &call("safe")).status(), 200);
        for (name, expected) in [
            ("x-tenant", tenant),
            ("x_tenant", None),
            ("x-site", Some("eu")),
            ("x_site", None),
            ("x-seat", None),
            ("x_seat", None),
            ("x_forwarded_for", None),
            ("x_own", Some("kept")),
        ] {
            assert_eq!(asked_with(&server, name).as_deref(), expected, "{name} of {shown}");
        }
    }
}

#[test]
fn a_certificate_says_who_asks_and_a_server_is_reached_with_tls() {
    let server = Server::of_result(RESULT);
    let far = tempfile::tempdir().unwrap();
    certs::write(far.path()).unwrap();
    let at = |name: &str| far.path().join(name).display().to_string();
    let tls = format!(
        "tls: {{certificate: {}, key: {}, client_roots: {}}}\n",
        at("server.pem"),
        at("server.key"),
        at("ca.pem")
    );
    let proxy = Proxy::before(&server, POLICY, &tls);
    let mut client = connect(proxy.address, far.path(), true);
    client.send(&post("/mcp", &[("host", "localhost")], &call("danger")));
    proxy.home.wait_for_holds(1);
    assert_eq!(proxy.home.holds()[0]["principal"], "agent:build-agent");
    drop(client);
    let mut stranger = connect(proxy.address, far.path(), false);
    assert!(stranger.try_send(&post("/mcp", &[], &call("safe"))).is_err() || stranger.message().is_none());

    // A second proxy reaches a server with TLS, and only one that its roots vouch for.
    let tls = format!("tls: {{certificate: {}, key: {}}}\n", at("server.pem"), at("server.key"));
    let inner = Proxy::before(&server, POLICY, &tls);
    let outer = |roots: &str| {
        let url = format!("https://localhost:{}/mcp", inner.address.port());
        Proxy::start(
            POLICY,
            &format!("upstreams: [{{name: test, path: /mcp, url: \"{url}\", roots: {roots}}}]\n"),
        )
    };
    assert_eq!(outer(&at("ca.pem")).post(&[], &call("safe")).status(), 200);
    let other = tempfile::tempdir().unwrap();
    certs::write(other.path()).unwrap();
    let roots = other.path().join("ca.pem").display().to_string();
    assert_eq!(outer(&roots).post(&[], &call("safe")).status(), 502, "another authority is not trusted");
}

#[test]
fn certificates_that_change_are_used_for_the_next_connection() {
    let server = Server::of_result(RESULT);
    let dir = tempfile::tempdir().unwrap();
    certs::write(dir.path()).unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    let proxy = Proxy::before(
        &server,
        POLICY,
        &format!("tls: {{certificate: {}, key: {}}}\n", at("server.pem"), at("server.key")),
    );
    let ask = || {
        let mut client = connect(proxy.address, dir.path(), false);
        client.try_send(&post("/mcp", &[("host", "localhost")], &call("safe"))).ok()?;
        client.message().map(|answer| answer.status())
    };
    assert_eq!(ask(), Some(200));
    certs::write(dir.path()).unwrap();
    assert_eq!(until(&ask), 200, "the new authority is the one that vouches now");
}

#[test]
fn a_proxys_header_is_believed_only_from_that_proxy() {
    let server = Server::of_result(RESULT);
    let trusted = "agents: {header: {name: x-agent, from: [127.0.0.1]}}\n";
    let proxy = Proxy::before(&server, POLICY, trusted);
    let agent = [("x-agent", "ci")];
    assert_eq!(proxy.post(&agent, &call("safe")).status(), 200);
    assert_eq!(asked_with(&server, "x-agent"), None, "it ends here");
    assert_eq!(proxy.post(&[], &call("safe")).status(), 401);
    assert_eq!(proxy.post(&[("x-agent", " ")], &call("safe")).status(), 401);
    let other = Proxy::before(&server, POLICY, "agents: {header: {name: x-agent, from: [192.0.2.1]}}\n");
    assert_eq!(other.post(&agent, &call("safe")).status(), 401);
}

#[test]
fn oauth_passes_where_it_is_told_to_and_names_this_proxy_where_it_is_told_to() {
    let server = Server::start(Box::new(|request, say| {
        let host = request.header("host").unwrap();
        if request.first.starts_with("GET /.well-known/oauth-protected-resource/up ") {
            let text = format!(
                "{{\"resource\":\"http://{host}/up\",\"authorization_servers\":[\"http://{host}/as\"]}}"
            );
            return say(&json("200 OK", "", &text));
        }
        let challenge = format!(
            "www-authenticate: Bearer resource_metadata=\"http://{host}/.well-known/oauth-protected-resource/up\"\r\n"
        );
        say(&json("401 Unauthorized", &challenge, "{}"));
    }));
    for (mode, authorization) in
        [("pass", Some("Bearer theirs")), ("rewrite", Some("Bearer theirs")), ("off", None)]
    {
        let config = format!(
            "upstreams: [{{name: test, path: /mcp, url: \"http://{}/up\", oauth: {mode}}}]\n",
            server.address
        );
        let proxy = Proxy::start(POLICY, &config);
        let (own, theirs) = (format!("http://{}", proxy.address), format!("http://{}", server.address));
        let host = proxy.address.to_string();
        let answer: Message =
            proxy.post(&[("authorization", "Bearer theirs"), ("host", &host)], &call("safe"));
        assert_eq!(answer.status(), 401);
        assert_eq!(asked_with(&server, "authorization").as_deref(), authorization);
        let (place, path) = if mode == "rewrite" { (&own, "/mcp") } else { (&theirs, "/up") };
        let expected =
            format!("Bearer resource_metadata=\"{place}/.well-known/oauth-protected-resource{path}\"");
        assert_eq!(answer.header("www-authenticate"), Some(&*expected));
        let mut client = proxy.connect();
        client.send(
            format!("GET /.well-known/oauth-protected-resource/mcp HTTP/1.1\r\nhost: {host}\r\n\r\n")
                .as_bytes(),
        );
        let description = client.message().unwrap();
        if mode == "off" {
            assert_eq!(description.status(), 404);
        } else {
            let expected = json!({"resource": format!("{place}{path}"), "authorization_servers": [format!("{theirs}/as")]});
            assert_eq!(description.json(), expected);
        }
    }
}

#[test]
fn a_description_at_a_place_of_the_servers_own_is_found_once_a_challenge_has_named_it() {
    let server = Server::start(Box::new(|request, say| {
        let host = request.header("host").unwrap();
        let (place, kind) = match request.first.split(' ').nth(1).unwrap() {
            "/own/place" => {
                return say(&json("200 OK", "", &format!("{{\"resource\":\"http://{host}/up\"}}")));
            }
            "/own/stream" => {
                return say(
                    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 0\r\n\r\n",
                );
            }
            _ => match request.header("x-name") {
                None => ("/own/place", "401 Unauthorized"),
                Some("stream") => ("/own/stream", "401 Unauthorized"),
                Some("endpoint") => ("/up", "403 Forbidden"),
                Some(_) => ("/own/elsewhere", "401 Unauthorized"),
            },
        };
        let host = if place == "/own/elsewhere" { "169.254.169.254" } else { host };
        let challenge = format!("www-authenticate: Bearer resource_metadata=\"http://{host}{place}\"\r\n");
        say(&json(kind, &challenge, "{}"));
    }));
    for mode in ["pass", "rewrite", "off"] {
        let config = format!(
            "upstreams: [{{name: test, path: /mcp, url: \"http://{}/up\", oauth: {mode}, headers: {{x-own: {{value: key}}}}}}]\n",
            server.address
        );
        let proxy = Proxy::start(POLICY, &config);
        let host = proxy.address.to_string();
        let ask = |method: &str, path: &str| {
            let mut client = proxy.connect();
            client.send(format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\n\r\n").as_bytes());
            client.message().unwrap()
        };
        assert_eq!(ask("GET", "/own/place").status(), 404, "{mode}: no challenge has named it");
        for name in [None, Some("stream"), Some("endpoint"), Some("elsewhere")] {
            let named = [("host", &*host), ("x-name", name.unwrap_or_default())];
            assert!([401, 403].contains(&proxy.post(&named, &call("safe")).status()));
        }
        let description = ask("GET", "/own/place");
        if mode == "off" {
            assert_eq!(description.status(), 404);
            continue;
        }
        let resource = if mode == "rewrite" {
            format!("http://{host}/mcp")
        } else {
            format!("http://{}/up", server.address)
        };
        assert_eq!(description.json(), json!({"resource": resource}), "{mode}");
        assert_eq!(asked_with(&server, "x-own"), None, "our credential is not for strangers");
        let asked = server.asked().len();
        assert_eq!(ask("POST", "/own/place").status(), 404, "it is only read");
        assert_eq!(ask("GET", "/own/place/x").status(), 404, "and nothing beside it");
        assert_eq!(ask("GET", "/up").status(), 404, "nor the endpoint itself");
        assert_eq!(ask("GET", "/own/elsewhere").status(), 404, "nor what is named elsewhere");
        assert_eq!(server.asked().len(), asked);
        assert_eq!(ask("GET", "/own/stream").status(), 502, "what is no description is not passed on");
    }
}

#[test]
fn limits_of_a_principal_are_told_and_left_again() {
    let server = Server::of_result(RESULT);
    let proxy =
        Proxy::before(&server, POLICY, "limits: {held_per_agent: 1, streams_per_agent: 0, body_mib: 1}\n");
    let mut first = proxy.connect();
    first.send(&post("/mcp", &[], &call("danger")));
    proxy.home.wait_for_holds(1);
    let refused = proxy.post(&[], &call("danger"));
    assert!(
        refused.text().contains("this agent has as much waiting as it may: 1 call, or 64 MiB"),
        "{}",
        refused.text()
    );
    drop(first);
    until(|| (proxy.home.holds()[0]["attached"] == false).then_some(()));
    let mut again = proxy.connect();
    again.send(&post("/mcp", &[], &call("danger")));
    until(|| (proxy.home.holds()[0]["attached"] == true).then_some(()));
    let mut stream = proxy.connect();
    stream.send(b"GET /mcp HTTP/1.1\r\nhost: localhost\r\naccept: text/event-stream\r\n\r\n");
    assert_eq!(stream.message().unwrap().status(), 429);
    let long = proxy.post(&[], &" ".repeat((1 << 20) + 1));
    assert_eq!(long.status(), 413);
}

#[test]
fn what_waits_of_one_agent_takes_nothing_from_another() {
    let server = Server::of_result(RESULT);
    let config = "agents: {header: {name: x-agent, from: [127.0.0.1]}}\nlimits: {held_mib_per_agent: 1}\n";
    let proxy = Proxy::before(&server, POLICY, config);
    let long = format!("\"danger\",\"arguments\":{{\"x\":\"{}\"}}", "x".repeat(600 << 10));
    let long = call("danger").replace("\"danger\"", &long);
    let mut held = Vec::new();
    for (number, agent) in ["build", "night"].into_iter().enumerate() {
        let mut client = proxy.connect();
        client.send(&post("/mcp", &[("x-agent", agent)], &long));
        proxy.home.wait_for_holds(number + 1);
        held.push(client);
    }
    let refused = proxy.post(&[("x-agent", "build")], &long);
    assert!(
        refused.text().contains("as much waiting as it may: 10000 calls, or 1 MiB"),
        "{}",
        refused.text()
    );
    assert_eq!(proxy.post(&[("x-agent", "build")], &call("safe")).status(), 200, "all else goes on");
    assert_eq!(proxy.home.holds().len(), 2);
}

#[test]
fn the_heads_of_calls_that_wait_count_like_their_bodies() {
    let server = Server::of_result(RESULT);
    let proxy = Proxy::before(&server, POLICY, "limits: {held_mib_per_agent: 1}\n");
    let long = "x".repeat(55 << 10);
    let held: Vec<Connection> = (1..=18)
        .map(|number| {
            let mut client = proxy.connect();
            client.send(&post("/mcp", &[("x-long", &long)], &call("danger")));
            proxy.home.wait_for_holds(number);
            client
        })
        .collect();
    let refused = proxy.post(&[("x-long", &long)], &call("danger"));
    assert!(
        refused.text().contains("as much waiting as it may: 10000 calls, or 1 MiB"),
        "{}",
        refused.text()
    );
    assert_eq!(proxy.home.holds().len(), held.len());
}

#[test]
fn so_many_connections_are_served_and_what_waits_on_one_is_not_disturbed() {
    let server = Server::of_result(RESULT);
    let proxy = Proxy::before(&server, POLICY, "limits: {connections: 2}\n");
    let mut held = proxy.connect();
    held.send(&post("/mcp", &[], &call("danger")));
    let hold = proxy.home.wait_for_holds(1).remove(0);
    let mut idle = proxy.connect();
    idle.send(&post("/mcp", &[], &call("safe")));
    assert_eq!(idle.message().unwrap().status(), 200);
    let mut away = proxy.connect();
    let _ = away.try_send(&post("/mcp", &[], &call("safe")));
    assert!(away.message().is_none(), "one more is turned away");
    drop(idle);
    until(|| {
        let mut client = proxy.connect();
        client.try_send(&post("/mcp", &[], &call("safe"))).ok()?;
        client.message().filter(|answer| answer.status() == 200)
    });
    assert!(proxy.home.holdshort(["approve", &hold]).status.success());
    assert!(held.message().unwrap().text().contains("\"content\":[]"));
}

#[test]
fn a_configuration_is_refused_with_the_place_of_what_is_wrong() {
    let home = crate::support::program::Home::new();
    let refused = |text: &str| {
        let path = home.file("serve.yaml", text);
        let output = home.holdshort(["serve".as_ref(), "--config".as_ref(), path.as_os_str()]);
        assert_eq!(output.status.code(), Some(2), "{text}");
        String::from_utf8(output.stderr).unwrap()
    };
    home.file("empty", "\n");
    home.file("short", "fifteen letters\n");
    let token = |source: &str| format!("agents: {{tokens: [{{name: a, {source}}}]}}\n");
    let good = "upstreams: [{name: a, path: /a, url: \"http://localhost:1/\"}]\n";
    for (config, says, place) in [
        (format!("listen: 127.0.0.1:0\nlisten_on: x\n{good}"), "listen_on", ":2:"),
        (
            format!("listen: 0.0.0.0:80\n{good}"),
            "others can reach this address, and nothing is encrypted",
            ":1:9",
        ),
        (format!("listen: here\n{good}"), "not an address", ":1:9"),
        (
            "listen: 127.0.0.1:0\nupstreams: [{name: a, path: /a/../b, url: \"http://x/\"}]\n".to_owned(),
            "one way only",
            ":2:",
        ),
        (
            "listen: 127.0.0.1:0\nupstreams: [{name: a, path: /a, url: \"ftp://x/\"}]\n".to_owned(),
            "not an http",
            ":2:",
        ),
        (
            format!("listen: 127.0.0.1:0\n{good}agents: {{tokens: [{{name: a, sha256: 12}}]}}\n"),
            "cannot be used",
            ":3:",
        ),
        (format!("listen: 127.0.0.1:0\n{good}{}", token("file: empty")), "too short", ":3:"),
        (format!("listen: 127.0.0.1:0\n{good}{}", token("file: short")), "too short", ":3:"),
        (
            format!("listen: 127.0.0.1:0\n{good}{}", token(&format!("sha256: {}", Digest::of(b"")))),
            "too short",
            ":3:",
        ),
    ] {
        let said = refused(&config);
        assert!(said.contains(says) && said.contains(place), "{says}: {said}");
    }
}
