//! What a browser or a program says to a desk: HTTP by hand, so that a test says every header itself.

use std::{
    io::{Read, Write},
    net::TcpStream,
    process::Command,
    sync::Mutex,
};

use serde_json::Value;

use super::program::{Home, PATIENCE, Wrapped};

/// What a desk has answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    head: String,
    pub(crate) body: String,
}

impl Answer {
    /// The value of a header, if it is there.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (found, value) = line.split_once(": ")?;
            found.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("JSON, not {self:?}"))
    }

    /// The name of a problem.
    pub(crate) fn problem(&self) -> String {
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        let problem = self.json();
        assert_eq!(problem["status"], self.status);
        problem["type"].as_str().unwrap().strip_prefix("urn:holdshort:problem:").unwrap().to_owned()
    }
}

/// A desk that runs.
pub(crate) struct Desk {
    /// In a lock so that threads can ask the same desk.
    _process: Mutex<Wrapped>,
    pub(crate) host: String,
    /// The link that it has printed.
    pub(crate) link: String,
}

impl Desk {
    pub(crate) fn start(home: &Home) -> Self {
        let mut command = home.command();
        command.args(["desk", "--listen", "127.0.0.1:0"]);
        Self::started(command)
    }

    /// One with the configuration `config`, in a file of its home.
    pub(crate) fn with_config(home: &Home, config: &str) -> Self {
        let config = home.file("desk.yaml", config);
        let mut command = home.command();
        command.args(["desk", "--listen", "127.0.0.1:0", "--config"]).arg(config);
        Self::started(command)
    }

    pub(crate) fn started(command: Command) -> Self {
        let process = Wrapped::start(command);
        let link = process.line();
        let host = link.strip_prefix("http://").unwrap().split('/').next().unwrap().to_owned();
        Self { _process: Mutex::new(process), host, link }
    }

    /// Sends a request as it is given, and reads the answer to its end.
    pub(crate) fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let mut stream = TcpStream::connect(&self.host).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut request = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\n");
        if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            request.push_str(&format!("Host: {}\r\n", self.host));
        }
        for (name, value) in headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        if !body.is_empty() {
            request.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        request.push_str("\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        // A desk may answer before it has read a body that it refuses.
        let _ = stream.write_all(body.as_bytes());
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        let answer = String::from_utf8(answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let answer = Answer { status, head: head.to_owned(), body: body.to_owned() };
        let is_chunked = answer.header("transfer-encoding").is_some();
        if is_chunked { Answer { body: unchunked(&answer.body), ..answer } } else { answer }
    }

    pub(crate) fn get(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.send("GET", path, headers, "")
    }

    /// The origin of its pages.
    pub(crate) fn origin(&self) -> String {
        format!("http://{}", self.host)
    }

    /// Posts a form as a page of this desk does.
    pub(crate) fn post_form(&self, path: &str, cookie: &str, form: &str) -> Answer {
        let origin = self.origin();
        let headers =
            [("Origin", &*origin), ("Cookie", cookie), ("Content-Type", "application/x-www-form-urlencoded")];
        self.send("POST", path, &headers, form)
    }

    /// Signs in by the link, and gives the cookie.
    pub(crate) fn sign_in(&self) -> String {
        let key = self.link.split_once("key=").unwrap().1;
        let answer = self.post_form("/sign-in", "", &format!("key={key}"));
        assert_eq!((answer.status, answer.header("location")), (303, Some("/")), "{answer:?}");
        answer.header("set-cookie").unwrap().split(';').next().unwrap().to_owned()
    }

    /// A request of a program with a token.
    pub(crate) fn ask(&self, method: &str, path: &str, token: &str, body: &str) -> Answer {
        let bearer = format!("Bearer {token}");
        let headers = [("Authorization", &*bearer), ("Content-Type", "application/json")];
        self.send(method, &format!("/api/v1{path}"), &headers, body)
    }
}

/// The body that the chunks make together.
fn unchunked(body: &str) -> String {
    let (mut whole, mut rest) = (String::new(), body);
    while let Some((size, after)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap();
        whole.push_str(&after[..size]);
        rest = after[size..].strip_prefix("\r\n").unwrap_or_default();
    }
    whole
}

/// The value of the first field of this name in a page's forms.
pub(crate) fn field(page: &str, name: &str) -> String {
    let mark = format!("name=\"{name}\" value=\"");
    let (_, rest) = page.split_once(&mark).unwrap_or_else(|| panic!("a field {name} in {page}"));
    rest.split('"').next().unwrap().to_owned()
}
