//! A session of rmcp's client: the arguments, the scenario and the output are those of `session.mjs` beside this file, one
//! JSON line per step and nothing in it that differs from run to run. The tests start it; `cargo test` builds it as an
//! example. It never judges what it sees.
#![expect(clippy::print_stdout, reason = "the transcript is this program's output")]
#![expect(deprecated, reason = "sampling and roots are deprecated, and servers still ask for them")]

use std::ffi::OsStr;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, ClientCapabilities, ClientConfig, ClientRequest,
    CreateMessageRequestParams, CreateMessageResult, ElicitRequestParams, ElicitResult, Implementation,
    ListRootsResult, ProgressNotificationParam, TASKS_EXTENSION_ID,
};
use rmcp::service::{
    ClientLifecycleMode, ClientServiceExt as _, NotificationContext, PeerRequestOptions, RequestContext,
    RequestHandle, RoleClient, RunningService, ServiceError,
};
use rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig;
use rmcp::transport::{StreamableHttpClientTransport, UnixSocketHttpClient};
use rmcp::{ClientHandler, ErrorData};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpStream, UnixListener};
use tokio::process::{Child, Command};
use tokio::sync::watch;

/// What the server asked and reported since the step began.
#[derive(Clone)]
struct Driver {
    /// Whether calls may become tasks.
    has_tasks: bool,
    asked: Arc<Mutex<Vec<Value>>>,
    progress: watch::Sender<Vec<Value>>,
}

impl ClientHandler for Driver {
    fn get_info(&self) -> ClientConfig {
        let mut capabilities = json!({"elicitation": {}, "sampling": {}, "roots": {"listChanged": true}});
        if self.has_tasks {
            capabilities["extensions"] = json!({TASKS_EXTENSION_ID: {}});
        }
        let capabilities: ClientCapabilities = serde_json::from_value(capabilities).unwrap_or_default();
        ClientConfig::new(capabilities, Implementation::new("rmcp-driver", "1.0.0"))
    }

    async fn create_message(
        &self,
        params: CreateMessageRequestParams,
        _context: RequestContext<RoleClient>,
    ) -> Result<CreateMessageResult, ErrorData> {
        self.was_asked("sampling/createMessage", &params);
        scripted(json!({"role": "assistant", "model": "scripted-model",
            "content": {"type": "text", "text": "a scripted completion"}}))
    }

    async fn create_elicitation(
        &self,
        request: ElicitRequestParams,
        _context: RequestContext<RoleClient>,
    ) -> Result<ElicitResult, ErrorData> {
        self.was_asked("elicitation/create", &request);
        scripted(json!({"action": "accept", "content": {"name": "Ada", "answer": "yes", "integer": 7}}))
    }

    async fn list_roots(&self, _context: RequestContext<RoleClient>) -> Result<ListRootsResult, ErrorData> {
        scripted(json!({"roots": [{"uri": "file:///scripted-root", "name": "scripted"}]}))
    }

    async fn on_progress(
        &self,
        params: ProgressNotificationParam,
        _context: NotificationContext<RoleClient>,
    ) {
        // The token differs from run to run.
        let seen = json!({"progress": params.progress, "total": params.total, "message": params.message});
        self.progress.send_modify(|all| all.push(seen));
    }
}

impl Driver {
    fn was_asked(&self, method: &str, params: &impl Serialize) {
        self.asked().push(json!({"method": method, "params": without_meta(json!(params))}));
    }

    fn asked(&self) -> MutexGuard<'_, Vec<Value>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn scripted<T: serde::de::DeserializeOwned>(answer: Value) -> Result<T, ErrorData> {
    serde_json::from_value(answer).map_err(|error| ErrorData::internal_error(error.to_string(), None))
}

/// A server that is an rmcp one too numbers its own progress tokens; they differ from run to run.
fn without_meta(mut params: Value) -> Value {
    if let Some(members) = params.as_object_mut() {
        members.remove("_meta");
    }
    params
}

/// An answer as the application sees it.
fn outcome<T: Serialize>(answer: Result<T, ServiceError>) -> Value {
    match answer {
        Ok(result) => json!({"result": result}),
        Err(ServiceError::McpError(error)) => {
            json!({"error": {"code": error.code.0, "message": error.message, "data": error.data}})
        }
        Err(other) => json!({"error": {"message": other.to_string()}}),
    }
}

type Session = RunningService<RoleClient, Driver>;

fn call_params(step: &Value) -> anyhow::Result<CallToolRequestParams> {
    let arguments = step.get("arguments").cloned().unwrap_or_else(|| json!({}));
    Ok(serde_json::from_value(json!({"name": step["name"], "arguments": arguments}))?)
}

async fn request(
    session: &Session,
    step: &Value,
    options: PeerRequestOptions,
) -> anyhow::Result<RequestHandle<RoleClient>> {
    let request: ClientRequest =
        serde_json::from_value(json!({"method": "tools/call", "params": call_params(step)?}))?;
    Ok(session.send_cancellable_request(request, options).await?)
}

/// Makes a call that may become a task, and asks about that until it is over, as often as it says.
async fn call_with_tasks(session: &Session, step: &Value) -> anyhow::Result<Value> {
    let id = match session.call_tool_once(call_params(step)?).await {
        Ok(CallToolResponse::Task(created)) => created.task.task_id,
        Ok(CallToolResponse::Complete(result)) => return Ok(json!({"result": result})),
        Ok(_) => bail!("an answer of another kind"),
        Err(error) => return Ok(outcome::<()>(Err(error))),
    };
    loop {
        let told = session.get_task(serde_json::from_value(json!({"taskId": id}))?).await?;
        let told = serde_json::to_value(told)?;
        if told["status"] != "working" {
            return Ok(told);
        }
        let pause = told["pollIntervalMs"].as_u64().context("it says how often")?;
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }
}

async fn call(session: &Session, step: &Value) -> anyhow::Result<Value> {
    let mut answer = if let Some(timeout_ms) = step["timeout_ms"].as_u64() {
        let mut options = PeerRequestOptions::with_timeout(Duration::from_millis(timeout_ms));
        options.reset_timeout_on_progress = step["reset"] == true;
        outcome(request(session, step, options).await?.await_response().await)
    } else if session.service().has_tasks {
        call_with_tasks(session, step).await?
    } else {
        outcome(session.call_tool(call_params(step)?).await)
    };
    if let Some(wanted) = step["progress"].as_u64() {
        let wanted = usize::try_from(wanted)?;
        // The handler of a notification runs beside the answer's, so the last ones may come a moment after it.
        let mut progress = session.service().progress.subscribe();
        let seen =
            tokio::time::timeout(Duration::from_secs(5), progress.wait_for(|all| all.len() >= wanted)).await;
        let seen = seen.context("fewer progress notifications than expected")??;
        answer["progress"] = json!(seen[..wanted]);
    }
    Ok(answer)
}

/// Starts a call and cancels it after its first progress. Some servers answer it all the same, some do not.
async fn cancel(session: &Session, step: &Value) -> anyhow::Result<Value> {
    let mut progress = session.service().progress.subscribe();
    let call = request(session, step, PeerRequestOptions::no_options()).await?;
    progress.wait_for(|all| !all.is_empty()).await?;
    call.cancel(Some("changed my mind".to_owned())).await?;
    Ok(json!({"cancelled": true}))
}

async fn perform(session: &Session, step: &Value) -> anyhow::Result<Value> {
    let params = |members: &[&str]| -> Value {
        members.iter().filter_map(|name| Some((*name, step.get(*name)?.clone()))).collect()
    };
    Ok(match step["do"].as_str().unwrap_or_default() {
        "info" => json!(session.peer_info().as_deref().map(|info| json!({
            "server": info.server_info, "protocol": info.protocol_version, "capabilities": info.capabilities,
            "instructions": info.instructions}))),
        "ping" => {
            let ping: ClientRequest = serde_json::from_value(json!({"method": "ping"}))?;
            outcome(session.send_request(ping).await)
        }
        "tools" => outcome(session.list_tools(None).await),
        "resources" => outcome(session.list_resources(None).await),
        "templates" => outcome(session.list_resource_templates(None).await),
        "prompts" => outcome(session.list_prompts(None).await),
        "read" => outcome(session.read_resource(serde_json::from_value(params(&["uri"]))?).await),
        "prompt" => {
            outcome(session.get_prompt(serde_json::from_value(params(&["name", "arguments"]))?).await)
        }
        "call" => call(session, step).await?,
        "cancel" => cancel(session, step).await?,
        "together" => {
            let calls = step["calls"].as_array().context("calls is a list")?;
            let answers = calls.iter().map(|one| call(session, one));
            json!(futures_util::future::try_join_all(answers).await?)
        }
        unknown => bail!("no such step: {unknown}"),
    })
}

/// A shell's way: 128 + n for signal n. A proxy cannot die of its child's signal, it reports it.
fn code_of(status: ExitStatus) -> Option<i32> {
    status.code().or_else(|| status.signal().map(|signal| 128 + signal))
}

/// Starts a server that speaks over stdio.
fn spawn(server: &[String]) -> anyhow::Result<Child> {
    let mut command = Command::new(&server[0]);
    Ok(command.args(&server[1..]).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn()?)
}

/// The SDK's own HTTP client speaks over Unix sockets; the other one would bring a whole second HTTP library along. So a
/// socket in the directory where this runs leads, byte for byte, to the address in `url`.
async fn http_transport(url: &str) -> anyhow::Result<StreamableHttpClientTransport<UnixSocketHttpClient>> {
    let (authority, path) =
        url.strip_prefix("http://").and_then(|rest| rest.split_once('/')).context("a URL with a path")?;
    let authority = authority.to_owned();
    let directory = std::env::var_os("XDG_RUNTIME_DIR");
    let socket = Path::new(directory.as_deref().unwrap_or(OsStr::new(".")))
        .join(format!("rmcp-{}", std::process::id()));
    let listener = UnixListener::bind(&socket)?;
    tokio::spawn(async move {
        while let Ok((mut own, _)) = listener.accept().await {
            let authority = authority.clone();
            tokio::spawn(async move {
                let mut there = TcpStream::connect(authority).await?;
                copy_bidirectional(&mut own, &mut there).await
            });
        }
    });
    let socket = socket.to_str().context("a path that is text")?;
    // Given a whole URL it would ask for that, which is for requests to a proxy.
    let config = StreamableHttpClientTransportConfig::with_uri(format!("/{path}"));
    Ok(StreamableHttpClientTransport::with_client(UnixSocketHttpClient::new(socket, url), config))
}

async fn run_steps(driver: &Driver, session: &Session, steps: &[Value]) -> anyhow::Result<()> {
    for step in steps {
        driver.asked().clear();
        driver.progress.send_modify(Vec::clear);
        let answer = perform(session, step).await?;
        let asked = driver.asked().clone();
        println!("{}", json!({"step": step["do"], "name": step["name"], "answer": answer, "asked": asked}));
    }
    Ok(())
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let split = arguments
        .iter()
        .position(|one| one == "--")
        .context("usage: [--tasks] [--era E] SCENARIO -- COMMAND")?;
    let (own, server) = (&arguments[..split], &arguments[split + 1..]);
    ensure!(
        !own.is_empty() && !server.is_empty(),
        "usage: [--tasks] [--era legacy|auto] SCENARIO.json -- COMMAND [ARG]... | URL"
    );
    let steps: Vec<Value> = serde_json::from_str(&std::fs::read_to_string(&own[own.len() - 1])?)?;
    let lifecycle = if own.iter().any(|one| one == "auto") {
        ClientLifecycleMode::Auto {
            preferred_versions: vec![rmcp::model::ProtocolVersion::V_2026_07_28],
            legacy_version: None,
        }
    } else {
        ClientLifecycleMode::Initialize
    };
    let has_tasks = own.iter().any(|one| one == "--tasks");
    let driver = Driver { has_tasks, asked: Arc::default(), progress: watch::Sender::new(Vec::new()) };

    if server[0].starts_with("http") {
        let transport = http_transport(&server[0]).await?;
        let session = driver.clone().serve_with_lifecycle(transport, lifecycle).await?;
        run_steps(&driver, &session, &steps).await?;
        session.cancel().await?;
        println!("{}", json!({"step": "exit", "code": 0}));
        return Ok(());
    }
    let mut child = spawn(server)?;
    let stdio = (child.stdout.take().context("piped")?, child.stdin.take().context("piped")?);
    let session = driver.clone().serve_with_lifecycle(stdio, lifecycle).await?;
    run_steps(&driver, &session, &steps).await?;
    session.cancel().await?;
    let status = tokio::time::timeout(Duration::from_secs(10), child.wait())
        .await
        .context("the server did not end")??;
    println!("{}", json!({"step": "exit", "code": code_of(status)}));
    Ok(())
}
