//! HTTP by hand, byte by byte: a server that does as it is told, the program as a proxy before it, and a client.

use std::{
    fmt::Write as _,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Child, Stdio},
    sync::{
        Arc, Mutex,
        mpsc::{Receiver, Sender, channel},
    },
    thread,
};

use serde_json::Value;

use super::program::{Home, PATIENCE};

/// A request or a response, read from a connection.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    /// The request or status line.
    pub(crate) first: String,
    /// Names in lower case, in order.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Message {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn status(&self) -> u16 {
        self.first.split(' ').nth(1).unwrap().parse().unwrap()
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("JSON, not {:?}", self.text()))
    }
}

/// Both ways of a connection.
pub(crate) trait Stream: Read + Write + Send {}
impl<S: Read + Write + Send> Stream for S {}

/// One connection, read message by message.
pub(crate) struct Connection {
    reader: BufReader<Box<dyn Stream>>,
}

impl Connection {
    pub(crate) fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self::of(stream)
    }

    pub(crate) fn of(stream: impl Stream + 'static) -> Self {
        Self { reader: BufReader::new(Box::new(stream)) }
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.try_send(bytes).unwrap();
    }

    pub(crate) fn try_send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.reader.get_mut().write_all(bytes)?;
        self.reader.get_mut().flush()
    }

    /// The first line and the headers of the next message; `None` if the other side has closed.
    pub(crate) fn head(&mut self) -> Option<Message> {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            if self.reader.read_line(&mut line).unwrap_or(0) == 0 {
                return None;
            }
            let line = line.trim_end().to_owned();
            if line.is_empty() {
                break;
            }
            lines.push(line);
        }
        let headers = lines[1..].iter().map(|line| {
            let (name, value) = line.split_once(':').unwrap();
            (name.to_ascii_lowercase(), value.trim().to_owned())
        });
        Some(Message { first: lines[0].clone(), headers: headers.collect(), body: Vec::new() })
    }

    /// The next piece of a chunked body; empty at its end.
    pub(crate) fn chunk(&mut self) -> Vec<u8> {
        let mut line = String::new();
        self.reader.read_line(&mut line).unwrap();
        let size =
            usize::from_str_radix(line.trim_end(), 16).unwrap_or_else(|_| panic!("a size, not {line:?}"));
        let mut chunk = vec![0; size + 2];
        self.reader.read_exact(&mut chunk).unwrap();
        chunk.truncate(size);
        chunk
    }

    /// The next message, whole; `None` if the other side has closed.
    pub(crate) fn message(&mut self) -> Option<Message> {
        let mut message = self.head()?;
        if message.header("transfer-encoding") == Some("chunked") {
            loop {
                let chunk = self.chunk();
                if chunk.is_empty() {
                    break;
                }
                message.body.extend(chunk);
            }
        } else if let Some(length) = message.header("content-length") {
            message.body = vec![0; length.parse().unwrap()];
            self.reader.read_exact(&mut message.body).unwrap();
        }
        Some(message)
    }
}

/// A POST of `body` with `headers` beyond the usual ones.
pub(crate) fn post(path: &str, headers: &[(&str, &str)], body: &str) -> Vec<u8> {
    let mut request = format!("POST {path} HTTP/1.1\r\n");
    let usual = [
        ("host", "127.0.0.1"),
        ("content-type", "application/json"),
        ("accept", "application/json, text/event-stream"),
    ];
    for (name, value) in usual.iter().filter(|(name, _)| !headers.iter().any(|(given, _)| given == name)) {
        write!(request, "{name}: {value}\r\n").unwrap();
    }
    for (name, value) in headers.iter().filter(|(_, value)| !value.is_empty()) {
        write!(request, "{name}: {value}\r\n").unwrap();
    }
    write!(request, "content-length: {}\r\n\r\n{body}", body.len()).unwrap();
    request.into_bytes()
}

/// A response with one JSON message.
pub(crate) fn json(status: &str, headers: &str, body: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\n{headers}content-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// What a server answers, piece by piece; the connection is closed after an answer without a length.
pub(crate) type Answer = Box<dyn Fn(&Message, &mut dyn FnMut(&[u8])) + Send + Sync>;

/// A server that answers as it is told and remembers what it was asked.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    asked: Arc<Mutex<Vec<Message>>>,
    news: Receiver<()>,
}

impl Server {
    pub(crate) fn start(answer: Answer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let asked: Arc<Mutex<Vec<Message>>> = Arc::default();
        let (sender, news) = channel();
        let (seen, answer) = (Arc::clone(&asked), Arc::new(answer));
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (seen, answer, sender) = (Arc::clone(&seen), Arc::clone(&answer), sender.clone());
                thread::spawn(move || serve(stream, &seen, &answer, &sender));
            }
        });
        Self { address, asked, news }
    }

    /// One that answers every request with `result`, and every notification with nothing.
    pub(crate) fn of_result(result: &'static str) -> Self {
        Self::start(Box::new(move |request, say| {
            let id = serde_json::from_slice::<Value>(&request.body)
                .ok()
                .and_then(|message| message.get("id").cloned());
            match id {
                Some(id) => {
                    say(&json(
                        "200 OK",
                        "",
                        &format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":{result}}}"),
                    ));
                }
                None => say(b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n"),
            }
        }))
    }

    /// What it was asked so far.
    pub(crate) fn asked(&self) -> Vec<Message> {
        self.asked.lock().unwrap().clone()
    }

    /// Waits for the next request.
    pub(crate) fn wait(&self) {
        self.news.recv_timeout(PATIENCE).expect("the server is asked");
    }
}

fn serve(stream: TcpStream, asked: &Mutex<Vec<Message>>, answer: &Answer, news: &Sender<()>) {
    let mut writer = stream.try_clone().unwrap();
    let mut connection = Connection::of(stream);
    while let Some(request) = connection.message() {
        asked.lock().unwrap().push(request.clone());
        let _ = news.send(());
        let mut has_length = false;
        answer(&request, &mut |bytes| {
            has_length |= String::from_utf8_lossy(bytes).contains("\r\ncontent-length:");
            let _ = writer.write_all(bytes);
        });
        if !has_length {
            return;
        }
    }
}

/// The program as a proxy.
pub(crate) struct Proxy {
    pub(crate) home: Home,
    pub(crate) address: SocketAddr,
    pub(crate) process: Child,
    said: Arc<Mutex<String>>,
}

impl Proxy {
    /// One that stands before `server` at `/mcp`, with `policy` and `more` of a configuration.
    pub(crate) fn before(server: &Server, policy: &str, more: &str) -> Self {
        let upstreams =
            format!("upstreams:\n  - {{name: test, path: /mcp, url: \"http://{}/up\"}}\n", server.address);
        Self::start(policy, &format!("{upstreams}{more}"))
    }

    pub(crate) fn start(policy: &str, config: &str) -> Self {
        Self::with_files(policy, config, &[])
    }

    /// With these files beside its configuration. It listens on this machine alone unless `config` begins with where.
    pub(crate) fn with_files(policy: &str, config: &str, files: &[(&str, &str)]) -> Self {
        let home = Home::new();
        for (name, text) in files {
            home.file(name, text);
        }
        home.file("policy.yaml", policy);
        let listen = if config.starts_with("listen: ") { "" } else { "listen: 127.0.0.1:0\n" };
        let config = home.file("serve.yaml", &format!("policy: [policy.yaml]\n{listen}{config}"));
        let mut command = home.command();
        command.args(["serve".as_ref(), "--config".as_ref(), config.as_os_str()]);
        let mut process = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut said = BufReader::new(process.stderr.take().unwrap()).lines();
        let mut all = String::new();
        let address = loop {
            let line = said.next().unwrap_or_else(|| panic!("it listens: {all}")).unwrap();
            if let Some((_, address)) = line.split_once("listening on http") {
                break address.trim_start_matches('s').trim_start_matches("://").parse().unwrap();
            }
            all.push_str(&line);
        };
        // It may not be kept from speaking.
        let rest = Arc::new(Mutex::new(all));
        let kept = Arc::clone(&rest);
        thread::spawn(move || {
            said.map_while(Result::ok).for_each(|line| kept.lock().unwrap().push_str(&format!("{line}\n")));
        });
        Self { home, address, process, said: rest }
    }

    /// Writes `config` into its configuration, and tells it to read that again.
    pub(crate) fn reload(&self, config: &str) {
        self.home.file("serve.yaml", config);
        let id = rustix::process::Pid::from_child(&self.process);
        rustix::process::kill_process(id, rustix::process::Signal::HUP).unwrap();
    }

    /// What it has said on stderr.
    pub(crate) fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    pub(crate) fn connect(&self) -> Connection {
        Connection::open(self.address)
    }

    /// Sends a POST to `/mcp` on a connection of its own, and gives the answer.
    pub(crate) fn post(&self, headers: &[(&str, &str)], body: &str) -> Message {
        let mut connection = self.connect();
        connection.send(&post("/mcp", headers, body));
        connection.message().expect("there is an answer")
    }

    /// Ends the session `id`.
    pub(crate) fn end(&self, id: &str) -> Message {
        let mut client = self.connect();
        let request = format!("DELETE /mcp HTTP/1.1\r\nhost: localhost\r\nmcp-session-id: {id}\r\n\r\n");
        client.send(request.as_bytes());
        client.message().unwrap()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
