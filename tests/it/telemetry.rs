//! What the program shows of its own work, asked for as a scraper, a load balancer and a collector do.

mod log;
mod numbers;
mod spans;

use std::{
    fs,
    net::SocketAddr,
    process::{Command, Stdio},
};

use crate::support::{
    http::{Connection, Message},
    program::{Home, Wrapped, until},
};

/// A server of tools that answers every request.
const ANSWERING: &str = r#"while read -r line; do id=${line#*\"id\":}; id=${id%%,*}; echo "{\"jsonrpc\":\"2.0\",\"id\":$id,\"result\":{\"ran\":true}}"; done"#;

/// A rule of each effect.
const POLICY: &str = "version: 1
default: allow
rules:
  - {name: payments, tool: pay, action: hold, reason: A person looks at it.}
  - {name: never, tool: drop, action: deny, reason: No.}
";

/// A call with an argument that nobody but the server and an approver may see.
fn call(id: usize, tool: &str) -> String {
    format!(
        r#"{{"jsonrpc":"2.0","id":{id},"method":"tools/call","params":{{"name":"{tool}","arguments":{{"secret":"s3cr3t-{id}"}}}}}}"#
    )
}

/// The address that a process says behind `words` on its stderr, which goes to `file`.
fn said(home: &Home, words: &str) -> SocketAddr {
    until(|| {
        let said = fs::read_to_string(home.path().join("stderr")).ok()?;
        let (_, rest) = said.split_once(words)?;
        let (address, _) = rest.split_once(['/', '\n'])?;
        address.parse().ok()
    })
}

/// Lets what a command says on stderr be read.
fn heard(home: &Home, command: &mut Command) {
    command.stderr(Stdio::from(fs::File::create(home.path().join("stderr")).unwrap()));
}

/// A gate before a server, with `more` arguments; its stderr can be read.
fn gate(home: &Home, more: &[&str], environment: &[(&str, &str)]) -> Wrapped {
    let policy = home.file("policy.yaml", POLICY);
    let mut command = home.command();
    command.args(["run", "--server", "billing"]).args(more).arg("--policy").arg(policy);
    command.args(["--", "sh", "-c", ANSWERING]).envs(environment.iter().copied());
    heard(home, &mut command);
    Wrapped::start(command)
}

/// One request with these headers.
fn ask(address: SocketAddr, first: &str, headers: &[(&str, &str)]) -> Message {
    let mut request = format!("{first} HTTP/1.1\r\n");
    if !headers.iter().any(|(name, _)| *name == "host") {
        request.push_str(&format!("host: {address}\r\n"));
    }
    headers.iter().for_each(|(name, value)| request.push_str(&format!("{name}: {value}\r\n")));
    let mut connection = Connection::open(address);
    connection.send(format!("{request}\r\n").as_bytes());
    connection.message().expect("there is an answer")
}
