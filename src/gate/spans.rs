//! The spans of a call and of its wait (OpenTelemetry, semantic conventions for MCP).
//!
//! A part of `gate`, used by the transports. Where nobody collects spans none is made; one that is made changes nothing of what
//! happens to its call, and holds no argument of it.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use jiff::Timestamp;

use super::{Caller, Gate, HeldCall, Refusal, Released};
use crate::{
    hold::{Verdict, Vote},
    jsonrpc::{Frame, Kind},
    mcp::{self, ToolCall, method},
    trace::{Attribute, OpenSpan, SpanKind, TraceContext, Tracer},
};

/// Where a call came in.
#[derive(Clone, Copy, Debug, Default)]
pub struct Arrival<'a> {
    /// Over a network, by HTTP; otherwise through a pipe.
    pub is_http: bool,
    /// What the request's own headers say of a trace.
    pub traceparent: Option<&'a str>,
    /// And what stands beside that.
    pub tracestate: Option<&'a str>,
    /// The id of the session that it came in.
    pub session: Option<&'a str>,
}

/// The span of a call. Ends when it is dropped: one that nobody has answered by then has failed.
#[derive(Debug)]
pub struct CallSpan {
    span: OpenSpan,
    /// How the hold has ended, if that is why the call did not run.
    refused: Arc<OnceLock<&'static str>>,
    is_answered: bool,
}

impl CallSpan {
    /// The server has given this answer.
    pub fn answered(&mut self, answer: &Frame) {
        self.is_answered = true;
        if let Some(error) = answer.error() {
            let code = mcp::error_code(error).unwrap_or("error");
            self.span.set("rpc.response.status_code", code);
            self.span.failed(code);
        } else if answer.result().is_some_and(mcp::is_error_result) && self.refused.get().is_none() {
            self.span.failed("tool_error");
        }
    }

    /// An answer has passed that nobody has looked into; `error` where it is known to be one.
    pub fn passed(&mut self, error: Option<&str>) {
        self.is_answered = true;
        if let Some(error) = error {
            self.span.failed(error);
        }
    }

    /// The gate has answered in the server's place.
    pub fn refused(&mut self, refusal: &Refusal) {
        self.is_answered = true;
        self.span.failed(refusal.why.word());
    }
}

impl Drop for CallSpan {
    fn drop(&mut self) {
        if let Some(word) = self.refused.get() {
            self.span.failed(word);
        } else if !self.is_answered {
            self.span.failed("no_answer");
        }
    }
}

/// The span of a wait: a part of its call's.
#[derive(Debug)]
pub(super) struct HoldSpan {
    span: Mutex<Option<OpenSpan>>,
    since: Timestamp,
    vote: OnceLock<Vote>,
    refused: Arc<OnceLock<&'static str>>,
}

impl HoldSpan {
    /// Whoever decides has said this.
    pub(super) fn decided(&self, vote: &Vote) {
        // The first word counts, as it does for the hold.
        let _ = self.vote.set(vote.clone());
    }

    /// The wait has ended so.
    pub(super) fn ended(&self, released: &Released) {
        let word = match released {
            Released::Resume(_) => "approved",
            Released::Refuse(refusal) | Released::Withdrawn { refusal, .. } => refusal.why.word(),
        };
        if !matches!(released, Released::Resume(_)) {
            let _ = self.refused.set(word);
        }
        // Nobody panics while this is locked.
        let Some(mut span) = self.span.lock().unwrap_or_else(PoisonError::into_inner).take() else { return };
        span.set("holdshort.hold.outcome", word);
        let waited = Timestamp::now().duration_since(self.since).as_secs_f64().max(0.0);
        span.set("holdshort.hold.wait.duration", Attribute::Number(waited));
        if let Some(vote) = self.vote.get() {
            let verdict = if vote.verdict == Verdict::Approve { "approve" } else { "reject" };
            span.set("holdshort.verdict", verdict);
            span.set("holdshort.reviewer", &*vote.by);
            if let Some(person) = &vote.person {
                span.set("holdshort.reviewer.person", &**person);
            }
        }
    }
}

impl HeldCall {
    /// The wait of this call is a part of `call`.
    pub fn traced(&mut self, call: &CallSpan) {
        let Some(mut span) = call.span.child("hold") else { return };
        span.set("holdshort.hold.id", self.hold.id.to_string());
        span.set("holdshort.server", &*self.hold.server);
        span.set("gen_ai.tool.name", &*self.hold.tool);
        span.set(
            "holdshort.rules",
            Attribute::Texts(self.hold.rules.iter().map(ToString::to_string).collect()),
        );
        span.set("holdshort.policy.sha256", self.hold.policy_sha256.to_string());
        self.span = Some(Arc::new(HoldSpan {
            span: Mutex::new(Some(span)),
            since: self.hold.created_at,
            vote: OnceLock::new(),
            refused: Arc::clone(&call.refused),
        }));
    }
}

impl Gate {
    /// The same, with spans of its calls.
    #[must_use]
    pub fn with_tracer(self, tracer: Option<Arc<Tracer>>) -> Self {
        Self { tracer, ..self }
    }

    /// The span of the call in `frame`, before it is judged. None where nobody looks at it, and for everything but `tools/call`;
    /// then `arrival` is not asked.
    pub fn span_of<'a>(
        &self,
        caller: &Caller,
        frame: &Frame,
        arrival: impl FnOnce() -> Arrival<'a>,
    ) -> Option<Box<CallSpan>> {
        let tracer = self.tracer.as_ref()?;
        if frame.method() != Some(method::TOOLS_CALL) || frame.kind() != Kind::Request {
            return None;
        }
        let arrival = arrival();
        let call = ToolCall::parse(frame).ok();
        let name = match &call {
            Some(call) => format!("{} {}", method::TOOLS_CALL, call.name),
            None => method::TOOLS_CALL.to_owned(),
        };
        let told = mcp::trace_parent(frame);
        let of_message = told.and_then(|(parent, state)| TraceContext::parse(&parent, state.as_deref()));
        let of_request =
            arrival.traceparent.and_then(|parent| TraceContext::parse(parent, arrival.tracestate));
        // A message's own context is its parent; that of the request that brought it has led there.
        let (parent, link) = match (of_message, of_request) {
            (Some(parent), link) => (Some(parent), link),
            (None, parent) => (parent, None),
        };
        let mut span = tracer.begin(name, SpanKind::Server, parent.as_ref())?;
        if let Some(link) = link {
            span.link(link);
        }
        span.set("mcp.method.name", method::TOOLS_CALL);
        span.set("gen_ai.operation.name", "execute_tool");
        span.set("holdshort.server", &*caller.server);
        if let Some(call) = &call {
            span.set("gen_ai.tool.name", &*call.name);
            if let Some(version) = call.protocol_version.as_deref().or(caller.revision.as_deref()) {
                span.set("mcp.protocol.version", version);
            }
        }
        if let Some(id) = frame.id() {
            span.set("jsonrpc.request.id", id.as_raw().trim_matches('"'));
        }
        if let Some(session) = arrival.session {
            span.set("mcp.session.id", session);
        }
        span.set("network.transport", if arrival.is_http { "tcp" } else { "pipe" });
        if arrival.is_http {
            span.set("network.protocol.name", "http");
        }
        Some(Box::new(CallSpan { span, refused: Arc::default(), is_answered: false }))
    }
}
