//! The canary server on rmcp: the Rust peer beside the Node and Python ones in this directory, over stdio, or over HTTP with the
//! argument `http` or `http-json`. The tests start it; `cargo test` builds it as an example. Only its tool `danger` writes, one line to the file named by `CANARY_FILE`, so
//! a line there proves that a call was executed.
#![expect(clippy::print_stdout, reason = "the URL is for the test that started it")]

use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ClientResult, ContentBlock, InputRequests,
    InputRequiredResult, JsonObject, ListToolsResult, PaginatedRequestParams, ProgressNotificationParam,
    ServerCapabilities, ServerConfig, ServerRequest, Tool,
};
use rmcp::service::{RequestContext, RoleServer};
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use rmcp::{ErrorData, ServerHandler, ServiceExt as _};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::Notify;

const TOOLS: [(&str, &str); 5] = [
    ("danger", "Appends its arguments to the canary file."),
    ("echo", "Gives its arguments back."),
    ("slow", "Takes `ms` milliseconds in `steps` steps, with progress."),
    ("ask", "Asks the client: `kind` is elicitation or sampling."),
    ("cancelled", "Answers once a slow call has been cancelled."),
];

#[derive(Clone, Default)]
struct Canary {
    cancelled: Arc<Notify>,
}

impl ServerHandler for Canary {
    fn get_info(&self) -> ServerConfig {
        let mut info = ServerConfig::new(ServerCapabilities::builder().enable_tools().build());
        info.server_info.name = "canary".to_owned();
        info.server_info.version = "1.0.0".to_owned();
        info.instructions = Some("handle with care".to_owned());
        info
    }

    async fn list_tools(
        &self,
        _request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        let mut schema = JsonObject::new();
        schema.insert("type".to_owned(), json!("object"));
        let schema = Arc::new(schema);
        let tools = TOOLS.iter().map(|(name, text)| Tool::new(*name, *text, Arc::clone(&schema))).collect();
        Ok(ListToolsResult::with_all_items(tools))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let arguments = Value::Object(request.arguments.unwrap_or_default());
        let text = match &*request.name {
            "danger" => danger(&arguments)?,
            "echo" => arguments.to_string(),
            "slow" => self.slow(&arguments, &context).await?,
            // The stateless revisions let a server ask only by ending the call with its question; the client calls again.
            "ask" if context.peer.peer_info().is_none() => match request.input_responses {
                Some(answers) => json!(answers)["question"].to_string(),
                None => return model(json!({"question": question(&arguments)})).map(ask_back),
            },
            "ask" => ask(&arguments, &context).await?,
            "cancelled" => {
                self.cancelled.notified().await;
                "a slow call was cancelled".to_owned()
            }
            unknown => return Err(ErrorData::invalid_params(format!("unknown tool {unknown}"), None)),
        };
        Ok(CallToolResult::success(vec![ContentBlock::text(text)]).into())
    }
}

impl Canary {
    async fn slow(
        &self,
        arguments: &Value,
        context: &RequestContext<RoleServer>,
    ) -> Result<String, ErrorData> {
        let steps = arguments["steps"].as_u64().unwrap_or(1).max(1);
        let step_ms = arguments["ms"].as_u64().unwrap_or(0) / steps;
        for step in 1..=steps {
            if let Some(token) = context.meta.get_progress_token() {
                #[expect(clippy::cast_precision_loss, reason = "a handful of steps")]
                let progress = ProgressNotificationParam::new(token, step as f64).with_total(steps as f64);
                context.peer.notify_progress(progress).await.map_err(internal)?;
            }
            tokio::select! {
                () = tokio::time::sleep(Duration::from_millis(step_ms)) => {}
                () = context.ct.cancelled() => {
                    self.cancelled.notify_one();
                    return Err(ErrorData::internal_error("cancelled", None));
                }
            }
        }
        Ok("slept".to_owned())
    }
}

fn danger(arguments: &Value) -> Result<String, ErrorData> {
    let path =
        std::env::var_os("CANARY_FILE").ok_or_else(|| ErrorData::internal_error("no CANARY_FILE", None))?;
    let mut canary = std::fs::OpenOptions::new().create(true).append(true).open(path).map_err(internal)?;
    writeln!(canary, "{arguments}").map_err(internal)?;
    Ok(format!("executed {arguments}"))
}

fn question(arguments: &Value) -> Value {
    if arguments["kind"] == "elicitation" {
        json!({"method": "elicitation/create", "params": {"mode": "form", "message": "what is it to be?",
            "requestedSchema": {"type": "object", "properties": {"answer": {"type": "string"}}, "required": ["answer"]}}})
    } else {
        json!({"method": "sampling/createMessage", "params": {"maxTokens": 20,
            "messages": [{"role": "user", "content": {"type": "text", "text": "say something"}}]}})
    }
}

async fn ask(arguments: &Value, context: &RequestContext<RoleServer>) -> Result<String, ErrorData> {
    let request: ServerRequest = model(question(arguments))?;
    let answer: ClientResult = context.peer.send_request(request).await.map_err(internal)?;
    serde_json::to_string(&answer).map_err(internal)
}

fn ask_back(questions: InputRequests) -> CallToolResponse {
    InputRequiredResult::new(Some(questions), Some("asked".to_owned())).into()
}

/// The SDK's types mostly cannot be built member by member; from JSON they can.
fn model<T: serde::de::DeserializeOwned>(value: Value) -> Result<T, ErrorData> {
    serde_json::from_value(value).map_err(internal)
}

fn internal(error: impl std::fmt::Display) -> ErrorData {
    ErrorData::internal_error(error.to_string(), None)
}

/// Serves over HTTP on an address that the system chooses; prints its URL.
async fn serve_http(json_response: bool) -> anyhow::Result<()> {
    let config = StreamableHttpServerConfig::default().with_json_response(json_response);
    let canary = Canary::default();
    let service = StreamableHttpService::new(
        move || Ok(canary.clone()),
        Arc::new(LocalSessionManager::default()),
        config,
    );
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("http://{}/mcp", listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        let service = TowerToHyperService::new(service.clone());
        tokio::spawn(
            hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service),
        );
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    match std::env::args().nth(1).as_deref() {
        None => {
            Canary::default().serve(rmcp::transport::stdio()).await?.waiting().await?;
            Ok(())
        }
        Some(transport) => serve_http(transport == "http-json").await,
    }
}
