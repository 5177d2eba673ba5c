//! A desk with TLS: whoever is in by a certificate that a policy lists decides under that name, and nobody else is in.

use std::{
    fs,
    net::{SocketAddr, TcpStream},
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    SanType,
};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName},
};
use serde_json::{Value, json};

use crate::{
    desk::{call, token},
    support::{
        browser::field,
        http::{Connection, Message},
        program::{Home, PATIENCE, Wrapped, until},
    },
};

const POLICY: &str = "version: 1
people:
  ann: {roles: [finance], identities: ['cert:ann@example.com']}
  bob: {roles: [finance], identities: ['cert:spiffe://example.com/bob']}
  sue: {roles: [sales], identities: ['cert:sue']}
rules:
  - {name: all, tool: '*', action: hold, approvers: [finance], reason: Finance looks at it.}
";

/// A server that answers every request.
const ANSWERING: &str = r#"while read -r line; do id=${line#*\"id\":}; id=${id%%,*}; echo "{\"jsonrpc\":\"2.0\",\"id\":$id,\"result\":{\"ran\":true}}"; done"#;

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Authority {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A certificate and its key.
struct Credential {
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
    pem: [String; 2],
}

fn credential(
    authority: &Authority,
    purpose: ExtendedKeyUsagePurpose,
    more: impl Fn(&mut CertificateParams),
) -> Credential {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.extended_key_usages = vec![purpose];
    more(&mut params);
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, authority).unwrap();
    Credential {
        pem: [certificate.pem(), key.serialize_pem()],
        certificate: certificate.der().clone(),
        key: PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
    }
}

/// Somebody's certificate, with this common name and these other names.
fn of(authority: &Authority, common: &str, names: &[SanType]) -> Credential {
    credential(authority, ExtendedKeyUsagePurpose::ClientAuth, |params| {
        params.distinguished_name.push(DnType::CommonName, common);
        params.subject_alt_names = names.to_vec();
    })
}

fn mail(address: &str) -> SanType {
    SanType::Rfc822Name(address.try_into().unwrap())
}

fn ann(authority: &Authority) -> Credential {
    of(authority, "Ann Example", &[mail("ann@example.com")])
}

/// A desk with TLS that asks for certificates of `authority`.
struct Desk {
    _process: Wrapped,
    address: SocketAddr,
    authority: Authority,
}

impl Desk {
    fn start(home: &Home) -> Self {
        let authority = authority();
        let server = credential(&authority, ExtendedKeyUsagePurpose::ServerAuth, |params| {
            params.subject_alt_names = vec![SanType::DnsName("localhost".try_into().unwrap())];
        });
        home.file("ca.pem", &authority.pem());
        home.file("desk.pem", &server.pem[0]);
        home.file("desk.key", &server.pem[1]);
        let mut command = home.command();
        command.current_dir(home.path()).args([
            "desk",
            "--listen",
            "127.0.0.1:0",
            "--client-roots",
            "ca.pem",
        ]);
        command.args(["--tls-certificate", "desk.pem", "--tls-key", "desk.key"]);
        let process = Wrapped::start(command);
        let link = process.line();
        let address = link.strip_prefix("https://").unwrap().trim_end_matches('/').parse().unwrap();
        Self { _process: process, address, authority }
    }

    /// A connection of whoever has `credential`.
    fn connect(&self, credential: Option<&Credential>) -> Connection {
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let config = match credential {
            Some(own) => {
                builder.with_client_auth_cert(vec![own.certificate.clone()], own.key.clone_key()).unwrap()
            }
            None => builder.with_no_client_auth(),
        };
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        Connection::of(StreamOwned::new(ClientConnection::new(Arc::new(config), name).unwrap(), stream))
    }

    fn request(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Vec<u8> {
        let host = format!("localhost:{}", self.address.port());
        let mut request =
            format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {}\r\n", body.len());
        for (name, value) in headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        format!("{request}\r\n{body}").into_bytes()
    }

    /// The answer to a request of whoever has `credential`; none, if they are not let in.
    fn send(
        &self,
        credential: Option<&Credential>,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Option<Message> {
        let mut connection = self.connect(credential);
        connection.try_send(&self.request(method, path, headers, body)).ok()?;
        connection.message()
    }

    fn rest(&self, credential: &Credential, method: &str, path: &str, body: &str) -> Message {
        let json = [("Content-Type", "application/json")];
        self.send(Some(credential), method, &format!("/api/v1{path}"), &json, body).unwrap()
    }

    fn form(&self, credential: &Credential, path: &str, cookie: &str, form: &str) -> Message {
        let origin = format!("https://localhost:{}", self.address.port());
        let headers =
            [("Origin", &*origin), ("Cookie", cookie), ("Content-Type", "application/x-www-form-urlencoded")];
        self.send(Some(credential), "POST", path, &headers, form).unwrap()
    }

    fn page(&self, credential: &Credential, path: &str, cookie: &str) -> Message {
        self.send(Some(credential), "GET", path, &[("Cookie", cookie)], "").unwrap()
    }
}

fn gate(home: &Home, calls: usize) -> (Wrapped, Vec<String>) {
    let policy = home.file("policy.yaml", POLICY);
    let mut command = home.command();
    command.args(["run", "--server", "billing", "--policy"]).arg(policy).args(["--", "sh", "-c", ANSWERING]);
    let mut gate = Wrapped::start(command);
    for id in 1..=calls {
        gate.send(&call(id, "pay", &json!({ "n": id })));
    }
    let ids = home.wait_for_holds(calls);
    (gate, ids)
}

fn problem(answer: &Message) -> (u16, String) {
    let said = answer.json();
    let name = said["type"].as_str().unwrap().strip_prefix("urn:holdshort:problem:").unwrap().to_owned();
    (answer.status(), name)
}

fn vote(home: &Home, id: &str) -> Value {
    let hold: Value = serde_json::from_slice(&home.holdshort(["show", id, "--json"]).stdout).unwrap();
    hold["votes"][0].clone()
}

#[test]
fn whoever_a_certificate_names_decides_as_that_person() {
    let home = Home::new();
    let (gate, ids) = gate(&home, 3);
    let desk = Desk::start(&home);
    let ann = ann(&desk.authority);
    let bob = of(&desk.authority, "Bob", &[SanType::URI("spiffe://example.com/bob".try_into().unwrap())]);
    let sue = of(&desk.authority, "sue", &[]);
    // A program that has a certificate needs no token.
    until(|| (desk.rest(&ann, "GET", "/holds", "").json()["holds"].as_array()?.len() == 3).then_some(()));
    let answer = desk.rest(&ann, "POST", &format!("/holds/{}/approve", ids[0]), "{}");
    assert_eq!(answer.status(), 200, "{}", answer.text());
    assert_eq!(gate.receive()["result"]["ran"], true);
    let by = vote(&home, &ids[0]);
    assert_eq!(
        (&by["by"], &by["person"], &by["assurance"]),
        (&json!("cert:ann@example.com"), &json!("ann"), &json!("L0"))
    );
    // Listed, and not of those whom the rule asks for.
    let refused = desk.rest(&sue, "POST", &format!("/holds/{}/approve", ids[1]), "{}");
    assert_eq!(problem(&refused), (403, "not-allowed".to_owned()));
    // What the record says is for tokens.
    assert_eq!(problem(&desk.rest(&ann, "GET", "/audit", "")), (403, "not-allowed".to_owned()));
    // In a browser: one button, and then as with a link.
    assert_eq!(desk.page(&bob, "/", "").header("location"), Some("/sign-in"));
    assert!(desk.page(&bob, "/sign-in", "").text().contains("cert:spiffe://example.com/bob"));
    let answer = desk.form(&bob, "/sign-in", "", "");
    let cookie = answer.header("set-cookie").unwrap().split(';').next().unwrap().to_owned();
    let page = desk.page(&bob, &format!("/holds/{}", ids[1]), &cookie);
    assert_eq!(page.status(), 200);
    let form =
        format!("csrf={}&shown={}&comment=no", field(page.text(), "csrf"), field(page.text(), "shown"));
    // The session is bob's: nobody else can use it, whoever they are.
    assert_eq!(desk.page(&ann, "/", &cookie).status(), 303);
    assert_eq!(desk.form(&ann, &format!("/holds/{}/reject", ids[1]), &cookie, &form).status(), 401);
    assert_eq!(desk.form(&bob, &format!("/holds/{}/reject", ids[1]), &cookie, &form).status(), 303);
    let by = vote(&home, &ids[1]);
    assert_eq!((&by["by"], &by["person"]), (&json!("cert:spiffe://example.com/bob"), &json!("bob")));
    assert_eq!(gate.receive()["id"], 2);
    assert_eq!(home.wait_for_holds(1), ids[2..]);
    home.verify();
}

#[test]
fn nobody_else_is_let_in() {
    let home = Home::new();
    let (_gate, ids) = gate(&home, 1);
    let desk = Desk::start(&home);
    let ann = ann(&desk.authority);
    until(|| (desk.rest(&ann, "GET", "/holds", "").status() == 200).then_some(()));
    let another = authority();
    let expired = credential(&desk.authority, ExtendedKeyUsagePurpose::ClientAuth, |params| {
        params.subject_alt_names = vec![mail("ann@example.com")];
        params.not_before = (SystemTime::now() - Duration::from_secs(7200)).into();
        params.not_after = (SystemTime::now() - Duration::from_secs(3600)).into();
    });
    let of_server = credential(&desk.authority, ExtendedKeyUsagePurpose::ServerAuth, |params| {
        params.subject_alt_names = vec![mail("ann@example.com")];
    });
    let kept_out = [
        ("no certificate", None),
        ("one of another authority", Some(self::ann(&another))),
        ("one that has expired", Some(expired)),
        ("one that is for servers", Some(of_server)),
        ("a name that cannot be in a policy", Some(of(&desk.authority, "Ann Example", &[]))),
        ("a name that turns the text round", Some(of(&desk.authority, "ann\u{202e}", &[]))),
    ];
    for (who, credential) in kept_out {
        assert!(desk.send(credential.as_ref(), "GET", "/sign-in", &[], "").is_none(), "{who}");
    }
    let mut plain = Connection::open(desk.address);
    plain.send(&desk.request("GET", "/sign-in", &[], ""));
    assert!(plain.message().is_none(), "without TLS there is nothing");
    // Verified, and in no policy: such a one may neither look nor decide, whatever token they have got hold of.
    let eve = of(&desk.authority, "Eve", &[mail("eve@example.com")]);
    let approve = format!("/holds/{}/approve", ids[0]);
    assert_eq!(problem(&desk.rest(&eve, "GET", "/holds", "")), (403, "not-allowed".to_owned()));
    assert_eq!(problem(&desk.rest(&eve, "POST", &approve, "{}")), (403, "not-allowed".to_owned()));
    let signed_in = desk.form(&eve, "/sign-in", "", "");
    assert!(signed_in.status() == 403 && signed_in.header("set-cookie").is_none(), "{}", signed_in.text());
    let token = format!("Bearer {}", token(&home, &["ci", "--scope", "decide"]));
    let headers = [("Authorization", &*token), ("Content-Type", "application/json")];
    let answer = desk.send(Some(&eve), "POST", &format!("/api/v1{approve}"), &headers, "{}").unwrap();
    assert_eq!(problem(&answer), (403, "not-allowed".to_owned()));
    // What stands in the token's place and is none, is not nothing.
    let headers = [("Authorization", "Basic YTpi"), ("Content-Type", "application/json")];
    let answer = desk.send(Some(&ann), "POST", &format!("/api/v1{approve}"), &headers, "{}").unwrap();
    assert_eq!(problem(&answer), (401, "not-signed-in".to_owned()));
    assert_eq!(home.wait_for_holds(1), ids);
    // Whoever is taken out of the policy is out.
    fs::write(home.path().join("policy.yaml"), POLICY.replace("ann@", "old-ann@")).unwrap();
    assert!(home.holdshort(["policy", "reload"]).status.success());
    assert_eq!(problem(&desk.rest(&ann, "GET", "/holds", "")), (403, "not-allowed".to_owned()));
}

#[test]
fn certificates_that_cannot_be_used_are_told_before_anything_listens() {
    let home = Home::new();
    let desk = |arguments: &[&str]| {
        let mut command = home.command();
        command.current_dir(home.path()).args(["desk", "--listen", "127.0.0.1:0"]).args(arguments);
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    home.file("broken.pem", "nothing");
    for arguments in [
        &["--tls-certificate", "broken.pem"][..],
        &["--client-roots", "broken.pem"],
        &["--tls-certificate", "broken.pem", "--tls-key", "broken.pem"],
        &["--tls-certificate", "missing.pem", "--tls-key", "missing.pem"],
    ] {
        let (code, said) = desk(arguments);
        assert_eq!(code, Some(2), "{arguments:?}: {said}");
    }
    assert!(Path::new(&home.path().join("broken.pem")).exists());
}
