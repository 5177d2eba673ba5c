//! A whole session in memory, driven by a transcript: the session, the gate and the record are real, the client and the
//! server are the two ends of a transcript, and time stands still until the transcript moves it.
//!
//! ```text
//! # a comment
//! policy| one line of the policy; without any, POLICY below
//! wait| 45s              how long the client is kept waiting; without it, forever; `wait| known`: as the table says
//! c> {"jsonrpc":…}        the client sends this line
//! s< {"jsonrpc":…}        the server must receive exactly this line
//! s> {"jsonrpc":…}        the server sends this line
//! c< {"jsonrpc":…}        the client must receive exactly this line
//! c< edited 1 {"x":2}     … the result for id 1, which says that it was changed, and these arguments
//! c< refused 1 denied     … a tool result for id 1 with isError and this word
//! c< round 1 s1           … an answer to id 1 that has the call made again, with a state which is $s1 from here on
//! c< question 1 s1 TEXT   … the same, and the user is asked something with this text in it
//! c< asks q1 TEXT         … a request to ask the user something with this text in it; its id is $q1 from here on
//! c< contains TEXT        … a line with this text in it
//! c< error 1 -32600       … a JSON-RPC error for id 1 with this code
//! c< progress 5 moment    … a progress notification for token 5 with this text in its message
//! c< task 1 @H1 working WORDS  … an answer to id 1 that says so of the task of that hold, and contains WORDS
//! c< task25 1 @H1 working WORDS  … the same in the form of 2025-11-25
//! -- held h1              one more call is held now; from here on it is h1, and @h1 its short id, @H1 the whole one
//! -- approve h1 [comment]   -- reject h1 reason   -- too late: approve h1
//! -- too new: approve h1    … because the tool has become another meanwhile
//! -- advance 5m           time passes
//! -- quiet                neither side has anything to read
//! -- state h1 answered    the record says so
//! -- noted TEXT           an event of the record contains this
//! -- remember h1 15m tool    … approved, and so are calls of the same tool (or with the same `arguments`) for 15 minutes
//! -- revoke h1               … which is taken back
//! -- edit h1 {"x":2}         … approved with these arguments instead of its own; `-- edit-grant h1 …` without a caller
//! -- no edit h1 {"x":2}      … which is refused
//! -- grant h1               … approved while no caller is there
//! -- open 1                so many holds can be decided or redeemed, with or without a caller
//! -- resolve h1 ran        … or `not run`: a person has looked
//! -- shown h1 TEXT         what an approver of h1 is shown contains this
//! -- accept pay            a person accepts the definition of the tool that is listed now; `-- keep pay`: the one before
//! -- restart               the gate ends, and another one begins on the same record, with another client and server
//! -- crash                 … without having put its end on record
//! -- client closes   -- server closes   -- stop
//! ```

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use holdshort::{
    gate::{Caller, Gate, GateLimits, ResolveError},
    hold::{HoldId, Said, State, Verdict},
    policy::{Policy, Source},
    principal::Principal,
    store::Store,
    transport::session::{self, HungUp, Lifecycle, SessionLimits},
    waiting::Wait,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, DuplexStream, ReadHalf, WriteHalf},
    task::JoinHandle,
    time::{sleep, timeout},
};

/// What holds where a transcript brings no policy of its own.
pub(crate) const POLICY: &str = "version: 1
default: allow
rules:
  - name: danger
    tool: danger
    action: hold
    reason: It is dangerous.
    timeout: 5m
  - name: forbidden
    tool: forbidden
    action: deny
    reason: Nobody may do that.
";

/// Bytes that the pipes between the parties take before a writer waits.
const PIPE_BYTES: usize = 1 << 16;

/// Long enough, in paused time, for everything that can happen to have happened.
const SETTLE: Duration = Duration::from_millis(1);

fn alice() -> Principal {
    Principal::User { uid: 1000, name: Some("alice".into()) }
}

/// A party's end of its two pipes.
struct End {
    reader: BufReader<ReadHalf<DuplexStream>>,
    writer: Option<WriteHalf<DuplexStream>>,
}

impl End {
    fn new(stream: DuplexStream) -> Self {
        let (reader, writer) = tokio::io::split(stream);
        Self { reader: BufReader::new(reader), writer: Some(writer) }
    }

    async fn send(&mut self, line: &[u8]) {
        self.writer.as_mut().expect("the end is open").write_all(line).await.unwrap();
    }

    async fn receive(&mut self) -> Option<String> {
        let mut line = String::new();
        match timeout(SETTLE, self.reader.read_line(&mut line)).await {
            Ok(Ok(1..)) => Some(line),
            _ => None,
        }
    }

    async fn close(&mut self) {
        if let Some(mut writer) = self.writer.take() {
            writer.shutdown().await.unwrap();
        }
    }
}

/// A session with both its ends in the hands of a test.
pub(crate) struct Session {
    policy: Arc<Policy>,
    wait: Option<Wait>,
    /// How many gates there have been on the record.
    gates: u32,
    limits: SessionLimits,
    client: End,
    /// What the session sees of a client that it does not read.
    client_has_hung_up: Arc<AtomicBool>,
    server: End,
    pub(crate) gate: Arc<Gate>,
    pub(crate) lifecycle: Lifecycle,
    pub(crate) running: JoinHandle<()>,
    holds: HashMap<String, HoldId>,
    /// What the gate gave out and is to come back, by name.
    given: HashMap<String, String>,
}

impl Session {
    pub(crate) fn start(policy: &str, limits: SessionLimits) -> Self {
        Self::waiting(policy, limits, Some(Wait::Forever))
    }

    /// A session whose client is kept waiting for so long.
    pub(crate) fn waiting(policy: &str, limits: SessionLimits, wait: Option<Wait>) -> Self {
        Self::on(Store::in_memory(), policy, limits, wait)
    }

    /// The same on another record.
    pub(crate) fn on(store: Store, policy: &str, limits: SessionLimits, wait: Option<Wait>) -> Self {
        let policy = Policy::parse(vec![Source { name: "policy.yaml".into(), text: policy.into() }])
            .unwrap_or_else(|errors| panic!("{}", errors.render(false)));
        Self::begin(Arc::new(policy), store, limits, wait, 1)
    }

    fn begin(
        policy: Arc<Policy>,
        store: Store,
        limits: SessionLimits,
        wait: Option<Wait>,
        gates: u32,
    ) -> Self {
        let own = format!("gate-{gates}");
        let gate = Gate::new(own.as_str().into(), Arc::clone(&policy), store, GateLimits::default());
        // Of the gates on one record, only the last one lives.
        let gate = Arc::new(gate.with_is_dead(Box::new(move |other| other != own)));
        let (client, near_client) = tokio::io::duplex(PIPE_BYTES);
        let (server, near_server) = tokio::io::duplex(PIPE_BYTES);
        let client_has_hung_up = Arc::new(AtomicBool::new(false));
        let hung_up = Arc::clone(&client_has_hung_up);
        let client_hung_up: HungUp = Arc::new(move || hung_up.load(Ordering::Relaxed));
        let lifecycle = Lifecycle { client_hung_up: Some(client_hung_up), ..Lifecycle::default() };
        let mut caller = Caller::new(&Principal::Client { uid: 1, name: None }, "server".into());
        caller.wait = wait;
        let running = tokio::spawn(session::run(
            Arc::clone(&gate),
            caller,
            tokio::io::split(near_client),
            tokio::io::split(near_server),
            limits,
            lifecycle.clone(),
        ));
        Self {
            policy,
            wait,
            gates,
            limits,
            client: End::new(client),
            client_has_hung_up,
            server: End::new(server),
            gate,
            lifecycle,
            running,
            holds: HashMap::new(),
            given: HashMap::new(),
        }
    }

    /// Another gate on the same record.
    async fn again(&mut self) {
        let next = Self::begin(
            Arc::clone(&self.policy),
            self.gate.store().clone(),
            self.limits,
            self.wait,
            self.gates + 1,
        );
        // As a gate does before it serves anybody.
        next.gate.refresh_tools().await.unwrap();
        let (holds, given) = (std::mem::take(&mut self.holds), std::mem::take(&mut self.given));
        *self = Self { holds, given, ..next };
    }

    pub(crate) async fn client_sends(&mut self, line: &[u8]) {
        self.client.send(line).await;
    }

    pub(crate) async fn client_closes(&mut self) {
        self.client.close().await;
        self.client_has_hung_up.store(true, Ordering::Relaxed);
    }

    pub(crate) async fn server_sends(&mut self, line: &[u8]) {
        self.server.send(line).await;
    }

    pub(crate) async fn client_receives(&mut self) -> Option<String> {
        self.client.receive().await
    }

    pub(crate) async fn server_receives(&mut self) -> Option<String> {
        self.server.receive().await
    }

    /// Approves a call with other arguments.
    async fn edit(&self, hold: &str, arguments: &str) -> Result<State, ResolveError> {
        let arguments = Some(arguments.to_owned());
        let said =
            Said { verdict: Verdict::Approve, remember: None, arguments, proof: None, shown_sha256: None };
        self.gate.resolve(self.holds[hold], said, &alice(), Some("less is enough")).await
    }

    async fn decide(&self, hold: &str, verdict: Verdict, comment: &str) -> Result<State, ResolveError> {
        let comment = (!comment.is_empty()).then_some(comment);
        self.gate.resolve(self.holds[hold], verdict, &alice(), comment).await
    }

    /// `text` with `@h1` for the short id of that hold, and `@H1` for the whole one.
    fn with_ids(&self, text: &str) -> String {
        let text = self
            .given
            .iter()
            .fold(text.to_owned(), |text, (name, given)| text.replace(&format!("${name}"), given));
        self.holds.iter().fold(text, |text, (name, id)| {
            text.replace(&format!("@{name}"), &id.short())
                .replace(&format!("@{}", name.to_uppercase()), &id.to_string())
        })
    }

    /// Whether `line` gives the client something out as `expected` says, which is remembered.
    fn gives_out(&mut self, line: &str, expected: &str) -> Option<bool> {
        let words: Vec<_> = expected.splitn(4, ' ').collect();
        let message: serde_json::Value = serde_json::from_str(line).expect("the client receives JSON");
        let (name, given, is_it) = match words[..] {
            ["asks", name, ..] => {
                let text = expected.splitn(3, ' ').nth(2).unwrap();
                let params = &message["params"];
                let is_it = message["method"] == "elicitation/create"
                    && params["message"].as_str().is_some_and(|message| message.contains(text))
                    && params["requestedSchema"]["required"] == serde_json::json!(["decision"]);
                (name, message["id"].to_string(), is_it)
            }
            ["round" | "question", id, name, ..] => {
                let result = &message["result"];
                let asked = &result["inputRequests"]["holdshort"];
                let is_asked = match words.get(3) {
                    None => result["inputRequests"].is_null(),
                    Some(text) => {
                        asked["method"] == "elicitation/create"
                            && asked["params"]["mode"] == "form"
                            && asked["params"]["message"]
                                .as_str()
                                .is_some_and(|message| message.contains(text))
                    }
                };
                let is_it = is(&message["id"], id) && result["resultType"] == "input_required" && is_asked;
                (name, result["requestState"].as_str().unwrap_or_default().to_owned(), is_it)
            }
            _ => return None,
        };
        self.given.insert(name.to_owned(), given);
        Some(is_it)
    }

    /// One `--` line.
    pub(crate) async fn event(&mut self, event: &str) {
        let (word, rest) = event.split_once(' ').unwrap_or((event, ""));
        let (hold, text) = rest.split_once(' ').unwrap_or((rest, ""));
        sleep(SETTLE).await;
        match word {
            "held" => {
                let known: Vec<_> = self.holds.values().copied().collect();
                let here = self.gate.holds().into_iter().map(|held| held.id);
                let detached =
                    self.gate.detached().await.unwrap().into_iter().map(|listed| listed.record.hold.id);
                let new: Vec<_> = here.chain(detached).filter(|id| !known.contains(id)).collect();
                let [id] = new[..] else { panic!("one more call should be held, not {}", new.len()) };
                self.holds.insert(hold.to_owned(), id);
            }
            "approve" => {
                assert_eq!(self.decide(hold, Verdict::Approve, text).await.unwrap(), State::Forwarding);
            }
            "grant" => {
                assert_eq!(self.decide(hold, Verdict::Approve, text).await.unwrap(), State::Granted);
            }
            "remember" => {
                let (time, same) = text.split_once(' ').unwrap();
                let time: jiff::SignedDuration = time.parse().unwrap();
                let seconds = u64::try_from(time.as_secs()).unwrap();
                let same = holdshort::hold::Same::from_word(same).unwrap();
                let said = Said {
                    verdict: Verdict::Approve,
                    remember: Some((seconds, same)),
                    arguments: None,
                    proof: None,
                    shown_sha256: None,
                };
                self.gate.resolve(self.holds[hold], said, &alice(), None).await.unwrap();
            }
            "revoke" => self.gate.revoke(self.holds[hold], &alice()).await.unwrap(),
            "edit" => assert_eq!(self.edit(hold, text).await.unwrap(), State::Forwarding),
            "edit-grant" => assert_eq!(self.edit(hold, text).await.unwrap(), State::Granted),
            "no" => {
                let (hold, arguments) = text.split_once(' ').unwrap();
                self.edit(hold, arguments).await.unwrap_err();
            }
            "open" => {
                let detached = self.gate.detached().await.unwrap();
                let detached = detached.iter().filter(|listed| listed.record.state != State::Unknown).count();
                assert_eq!(self.gate.holds().len() + detached, rest.parse::<usize>().unwrap(), "open holds");
            }
            "resolve" => {
                let id = self.holds[hold];
                self.gate.resolve_unknown(id, text == "ran", &alice(), Some("I looked")).await.unwrap();
            }
            "restart" => {
                self.client.close().await;
                self.server.close().await;
                timeout(Duration::from_secs(60), &mut self.running).await.expect("it ends").unwrap();
                self.again().await;
            }
            "crash" => {
                self.running.abort();
                let _ = (&mut self.running).await;
                self.again().await;
            }
            "reject" => {
                assert_eq!(self.decide(hold, Verdict::Reject, text).await.unwrap(), State::Rejected);
            }
            "too" => {
                let late = self.decide(text.rsplit(' ').next().unwrap(), Verdict::Approve, "").await;
                let is_as_told = match hold {
                    "new:" => matches!(late, Err(ResolveError::ToolChanged)),
                    _ => matches!(late, Err(ResolveError::Ended(_))),
                };
                assert!(is_as_told, "{late:?}");
            }
            "advance" => {
                let span: jiff::SignedDuration = rest.parse().unwrap();
                sleep(Duration::try_from(span).unwrap()).await;
            }
            "quiet" => {
                assert_eq!(self.client.receive().await, None, "the client should have nothing to read");
                assert_eq!(self.server.receive().await, None, "the server should have nothing to read");
            }
            "state" => {
                let record = self.gate.store().hold(self.holds[hold]).await.unwrap().unwrap();
                assert_eq!(record.state.word(), text);
            }
            "noted" => {
                let events = self.gate.store().audit_events(0, 10_000).await.unwrap();
                let noted = events.iter().any(|event| event.line.contains(rest));
                assert!(noted, "the record says `{rest}`");
            }
            "shown" => {
                let held = self.gate.held(self.holds[hold]).expect("it waits");
                let shown = held.reason.contains(text) || held.notes.iter().any(|note| note.contains(text));
                assert!(shown, "`{text}` is shown, not only {:?}, {:?}", held.reason, held.notes);
            }
            "accept" | "keep" => {
                let state = self.gate.store().tool("server", rest).await.unwrap().expect("it is known").state;
                let (changed, _) = state.changed.expect("it has changed");
                let accepted = if word == "accept" { changed } else { state.accepted };
                let alice = Principal::User { uid: 1000, name: Some("alice".into()) };
                self.gate.accept_tool("server", rest, accepted, &alice).await.unwrap();
            }
            "client" => self.client_closes().await,
            "server" => self.server.close().await,
            "stop" => self.lifecycle.stop.cancel(),
            _ => panic!("a transcript has no `-- {event}`"),
        }
    }
}

/// Whether `value` is written as `token`: `1` is not `"1"`.
fn is(value: &serde_json::Value, token: &str) -> bool {
    let written = value.to_string();
    written == token
}

/// Whether `line`, which the client has received, is what `expected` says.
fn is_expected(line: &str, expected: &str) -> bool {
    let words: Vec<_> = expected.splitn(3, ' ').collect();
    let message: serde_json::Value = serde_json::from_str(line).expect("the client receives JSON");
    match words[..] {
        ["refused", id, word] => {
            let result = &message["result"];
            let says = result["content"][0]["text"].as_str().unwrap_or_default();
            is(&message["id"], id)
                && result["isError"] == true
                && result["_meta"]["dev.holdshort/decision"]["state"] == word
                && says.starts_with(&word.to_uppercase())
                && says.contains("did not run")
        }
        ["edited", id, arguments] => {
            let result = &message["result"];
            let says = result["content"][0]["text"].as_str().unwrap_or_default();
            is(&message["id"], id)
                && result["_meta"]["dev.holdshort/decision"]["state"] == "edited"
                && says.starts_with("EDITED")
                && says.contains(arguments)
                && says.contains("less is enough")
        }
        ["contains", ..] => line.contains(expected.trim_start_matches("contains ")),
        ["error", id, code] => is(&message["id"], id) && is(&message["error"]["code"], code),
        ["progress", token, text] => {
            message["method"] == "notifications/progress"
                && is(&message["params"]["progressToken"], token)
                && message["params"]["message"].as_str().is_some_and(|message| message.contains(text))
        }
        [form @ ("task" | "task25"), id, rest] => {
            let words: Vec<_> = rest.splitn(3, ' ').collect();
            let [hold, status, text] = words[..] else { panic!("{expected}") };
            let (result, is_whole) = match (form, &message["result"]["task"]) {
                ("task", _) => {
                    (&message["result"], ["createdAt", "lastUpdatedAt", "ttlMs", "pollIntervalMs"])
                }
                (_, serde_json::Value::Null) => {
                    (&message["result"], ["createdAt", "lastUpdatedAt", "ttl", "pollInterval"])
                }
                (_, task) => (task, ["createdAt", "lastUpdatedAt", "ttl", "pollInterval"]),
            };
            is(&message["id"], id)
                && result["taskId"] == format!("hs_{hold}")
                && result["status"] == status
                && line.contains(text)
                && is_whole.iter().all(|member| !result[member].is_null())
        }
        _ => line.trim_end() == expected,
    }
}

/// Runs a transcript to its end. What it does not mention must not have happened.
pub(crate) async fn check(transcript: &str) {
    let policy: String = transcript
        .lines()
        .filter_map(|line| line.strip_prefix("policy| "))
        .map(|line| line.to_owned() + "\n")
        .collect();
    let policy = if policy.is_empty() { POLICY } else { &policy };
    let wait = match transcript.lines().find_map(|line| line.strip_prefix("wait| ")) {
        Some("known") => None,
        Some(wait) => Some(wait.parse().expect("a time")),
        None => Some(Wait::Forever),
    };
    let mut session = Session::waiting(policy, SessionLimits::default(), wait);
    for (number, line) in transcript.lines().enumerate() {
        let at = number + 1;
        let (mark, rest) = line.split_once(' ').unwrap_or((line, ""));
        match mark {
            "" | "#" | "policy|" | "wait|" => {}
            "c>" => session.client_sends(format!("{}\n", session.with_ids(rest)).as_bytes()).await,
            "s>" => session.server_sends(format!("{}\n", session.with_ids(rest)).as_bytes()).await,
            "c<" => {
                let got = session.client_receives().await;
                let got = got.unwrap_or_else(|| panic!("line {at}: the client receives nothing, not {rest}"));
                let rest = &session.with_ids(rest);
                let is_it = session.gives_out(&got, rest).unwrap_or_else(|| is_expected(&got, rest));
                assert!(is_it, "line {at}: the client receives {got}instead of {rest}");
            }
            "s<" => {
                let got = session.server_receives().await;
                let rest = session.with_ids(rest);
                assert_eq!(got.as_deref(), Some(&*format!("{rest}\n")), "line {at}: the server receives");
            }
            "--" => session.event(rest).await,
            _ => panic!("line {at}: a transcript has no `{mark}`"),
        }
    }
    session.event("quiet").await;
    session.client.close().await;
    session.server.close().await;
    timeout(Duration::from_secs(60), &mut session.running).await.expect("the session ends").unwrap();
    assert_eq!(session.gate.holds_len(), 0, "no hold is left behind");
    let verification = session.gate.store().verify(None).await.unwrap();
    assert_eq!(verification.broken, None, "the record is sound");
}
