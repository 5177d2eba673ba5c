//! Calls that wait as tasks, over HTTP: questions about them, and the call itself once it is approved.
//!
//! Called by `post`. The call is sent by a task of ours, with the head of the question that found it approved; its answer is
//! kept for the next question. What the server says beside the answer has no reader and is dropped.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::{Response, StatusCode, header, request::Parts};

use super::{
    Exchange,
    body::{self, Body},
    headers,
    post::{self, Asked},
    upstream::{NoResponse, UpstreamBody},
    watch::{Witness, one_line},
};
use crate::{
    gate::{Approved, Polled, task_answer, unusable_answer},
    hold::Withdrawal,
    jsonrpc::{Frame, Kind, RequestId, sse::Events},
    mcp::{TaskRequest, method},
};

/// Answers a question about a task of ours.
pub(super) async fn ask(exchange: Exchange, head: Parts, asked: Asked, task: TaskRequest) -> Response<Body> {
    let Some(id) = &asked.id else { return body::empty(StatusCode::ACCEPTED) };
    match exchange.gate().ask_task(&asked.session.caller(), &task, id).await {
        // MCP 2026-07-28: a capability that is missing is the fault of the request.
        Polled::Answer(answer) if !task.declares_tasks => body::json(StatusCode::BAD_REQUEST, answer),
        Polled::Answer(answer) => body::json(StatusCode::OK, answer),
        Polled::Run { answer, approved, tool } => {
            let tasks = exchange.worker.proxy.tasks.clone();
            tasks.spawn(run(exchange, head, *approved, tool));
            body::json(StatusCode::OK, answer)
        }
    }
}

/// Sends an approved call, and keeps what the server answers.
async fn run(exchange: Exchange, mut head: Parts, approved: Approved, tool: Arc<str>) {
    let hold = approved.hold();
    let Some(id) = approved.request_id().cloned() else { return };
    let edited = approved.edited();
    let proxy = &exchange.worker.proxy;
    let witness = Witness::new(Arc::clone(&proxy.gate), proxy.tasks.clone(), &approved);
    headers::say_about(&mut head.headers, method::TOOLS_CALL, &tool);
    let request = post::request_upstream(&exchange, head, approved.into_permitted());
    let response = match exchange.send(request).await {
        Ok(response) => response,
        Err(error) => {
            tracing::warn!(server = &*exchange.upstream.settings.name, %error, "an approved call got no answer");
            if let NoResponse::NotSent(_) = error {
                witness.not_sent(Withdrawal::ServerGone).await;
            }
            return;
        }
    };
    let status = response.status();
    let answer = match read(response, &id, exchange.limits().server_frame_bytes_max).await {
        Some(answer) => task_answer(hold, &answer, edited.as_deref()),
        None if !status.is_success() => {
            unusable_answer(hold, &format!("the HTTP status {} without a result", status.as_u16()))
        }
        // It broke off: nobody knows whether the tool ran.
        None => return,
    };
    witness.kept(answer).await;
}

/// The answer to the request `id` in a response.
async fn read(response: Response<UpstreamBody>, id: &RequestId, bytes_max: usize) -> Option<Frame> {
    let (head, mut body) = response.into_parts();
    let is_stream = headers::is_type(head.headers.get(header::CONTENT_TYPE), "text/event-stream");
    let mut events = Events::new(bytes_max);
    let mut message = BytesMut::new();
    while let Some(chunk) = std::future::poll_fn(|cx| body.poll_chunk(cx)).await {
        let chunk = chunk.ok()?;
        if !is_stream {
            message.extend_from_slice(&chunk);
            if message.len() > bytes_max {
                return None;
            }
            continue;
        }
        events.push(chunk);
        while let Some(event) = events.next_event().ok()? {
            let data = event.data().filter(|_| event.name() == "message");
            if let Some(answer) = data.and_then(|data| answer_to(id, data)) {
                return Some(answer);
            }
        }
    }
    answer_to(id, message.freeze())
}

fn answer_to(id: &RequestId, message: Bytes) -> Option<Frame> {
    let frame = Frame::from_server(one_line(message)).ok()?;
    (frame.kind() == Kind::Response && frame.id() == Some(id)).then_some(frame)
}
