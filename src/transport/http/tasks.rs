//! Calls that wait as tasks, over HTTP: questions about them, and the call itself once it is approved.
//!
//! Called by `post`. The call is sent by a task of ours, with the head of the question that found it approved; its answer is
//! kept for the next question. What the server says beside the answer goes to a client that waits for a result in the same session;
//! where there is none it has no reader and is dropped.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::{Response, StatusCode, header, request::Parts};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, interval_at, sleep},
};
use tokio_util::sync::CancellationToken;

use super::{
    Exchange,
    accounts::Open,
    body::{self, Body},
    headers,
    held::KEEPALIVE,
    post::{self, Asked},
    sessions::Session,
    upstream::{NoResponse, UpstreamBody},
    watch::{Witness, one_line},
};
use crate::{
    gate::{Approved, Followed, Permitted, Polled, Refusal, task_answer, unusable_answer},
    hold::Withdrawal,
    jsonrpc::{
        ErrorCode, Frame, Kind, RequestId, error_response,
        sse::{Events, event_of},
    },
    mcp::{Progress, TaskRequest, TaskVerb, method},
};

/// Events that wait for a client that reads slowly.
const CHUNKS_MAX: usize = 16;

/// A question about a task of ours.
struct Asking {
    exchange: Exchange,
    head: Parts,
    asked: Asked,
    task: TaskRequest,
    frame: Frame,
    /// Whether its client has gone.
    given_up: CancellationToken,
    /// Its part of what its principal may have open.
    _open: Option<Open>,
}

/// Answers a question about a task of ours.
pub(super) async fn ask(
    exchange: Exchange,
    head: Parts,
    asked: Asked,
    task: TaskRequest,
    frame: Frame,
) -> Response<Body> {
    // A question that waits is a stream, however it is answered.
    let open = match task.verb {
        TaskVerb::Result => match post::stream_opened(&exchange) {
            Ok(open) => Some(open),
            Err(text) => {
                let refusal = Refusal::invalid(asked.id, ErrorCode::INTERNAL_ERROR, text);
                return body::refusal(StatusCode::TOO_MANY_REQUESTS, &refusal);
            }
        },
        _ => None,
    };
    let tasks = exchange.worker.proxy.tasks.clone();
    let (answer, answered) = oneshot::channel();
    // What is on record as sent is sent, whoever goes meanwhile.
    let given_up = CancellationToken::new();
    tasks.spawn(Asking { exchange, head, asked, task, frame, given_up, _open: open }.answer(answer));
    answered
        .await
        .unwrap_or_else(|_| body::text(StatusCode::INTERNAL_SERVER_ERROR, "the question was given up"))
}

impl Asking {
    /// Finds the answer; one for a result waits until there is one. A client that takes events hears a comment now and then.
    async fn answer(self, mut answer: oneshot::Sender<Response<Body>>) {
        let limits = *self.exchange.limits();
        let takes_events = headers::accepts(&self.head.headers, "text/event-stream");
        let mut finding = Box::pin(self.find());
        let waited = tokio::select! {
            biased;
            found = &mut finding => {
                if let Some((status, found)) = found {
                    let _ = answer.send(body::json(status, found));
                }
                return;
            }
            () = answer.closed() => false,
            () = sleep(limits.head_after), if takes_events => true,
        };
        let (chunks, relayed) = mpsc::channel(CHUNKS_MAX);
        if !waited || answer.send(body::event_stream(Body::Relay(relayed))).is_err() {
            return self.given_up(finding).await;
        }
        if self.task.verb == TaskVerb::Result {
            self.asked.session.listens_beside(chunks.downgrade());
        }
        let mut ticks = interval_at(Instant::now() + limits.keepalive_every, limits.keepalive_every);
        loop {
            tokio::select! {
                biased;
                found = &mut finding => {
                    if let Some((_, found)) = found {
                        let _ = chunks.send(event_of(&found)).await;
                    }
                    return;
                }
                () = chunks.closed() => return self.given_up(finding).await,
                _ = ticks.tick() => drop(chunks.try_send(KEEPALIVE)),
            }
        }
    }

    /// Nobody waits for the answer any more. What is being recorded just now is sent all the same.
    async fn given_up(&self, finding: impl Future<Output = Option<(StatusCode, Bytes)>>) {
        self.given_up.cancel();
        finding.await;
    }

    /// The answer; none if nobody waits for it any more.
    async fn find(&self) -> Option<(StatusCode, Bytes)> {
        let gate = self.exchange.gate();
        loop {
            match gate.ask_task(&self.asked.session.caller(), &self.task, &self.frame).await {
                // MCP 2026-07-28: a capability that is missing is the fault of the request.
                Polled::Answer(answer) if self.task.lacks_capability() => {
                    return Some((StatusCode::BAD_REQUEST, answer));
                }
                Polled::Answer(answer) => return Some((StatusCode::OK, answer)),
                Polled::Later => {}
                Polled::Run { answer, approved, tool } => {
                    let tasks = &self.exchange.worker.proxy.tasks;
                    let (exchange, session) = (self.exchange.clone(), Arc::clone(&self.asked.session));
                    tasks.spawn(run(exchange, self.head.clone(), session, *approved, Some(tool)));
                    if let Some(answer) = answer {
                        return Some((StatusCode::OK, answer));
                    }
                }
                Polled::Pass { permitted, theirs, followed } => {
                    return self.given_up.run_until_cancelled(self.pass(permitted, &theirs, &followed)).await;
                }
            }
            self.given_up.run_until_cancelled(gate.task_moves()).await?;
        }
    }

    /// Lets the server answer, which has a task of its own.
    async fn pass(&self, permitted: Permitted, theirs: &str, followed: &Followed) -> (StatusCode, Bytes) {
        let mut head = self.head.clone();
        let method = match self.task.verb {
            TaskVerb::Cancel => method::TASKS_CANCEL,
            TaskVerb::Update => method::TASKS_UPDATE,
            TaskVerb::Result => method::TASKS_RESULT,
            TaskVerb::Get | TaskVerb::List => method::TASKS_GET,
        };
        if self.asked.modern {
            headers::say_about(&mut head.headers, method, theirs);
        }
        let no_answer = |text: &str| {
            let code = ErrorCode::INTERNAL_ERROR;
            (StatusCode::BAD_GATEWAY, error_response(self.asked.id.as_ref(), code, text, None))
        };
        let Some(id) = &self.asked.id else { return no_answer("the question has no id") };
        let request = post::request_upstream(&self.exchange, head, permitted);
        let response = match self.exchange.send(request).await {
            Ok(response) => response,
            Err(error) => {
                tracing::warn!(server = &*self.exchange.upstream.settings.name, %error, "a question about a task got no answer");
                return no_answer("the server cannot be reached");
            }
        };
        let status = response.status();
        match read(response, id, self.exchange.limits().server_frame_bytes_max, None).await {
            Some(answer) => {
                let told = followed.told_in(&answer);
                (status, told.unwrap_or_else(|| answer.into_bytes().into_line()))
            }
            None => no_answer("the server has not answered the question about its task"),
        }
    }
}

/// Sends an approved call, and keeps what the server answers; what it says beside that is for a client in `session`. `tool`: what the head
/// has to name, where it is that of a question.
pub(super) async fn run(
    exchange: Exchange,
    mut head: Parts,
    session: Arc<Session>,
    approved: Approved,
    tool: Option<Arc<str>>,
) {
    let hold = approved.hold();
    let Some(id) = approved.request_id().cloned() else { return };
    let edited = approved.edited();
    let proxy = &exchange.worker.proxy;
    let witness = Witness::new(Arc::clone(&proxy.gate), proxy.tasks.clone(), &approved);
    if let Some(tool) = &tool {
        headers::say_about(&mut head.headers, method::TOOLS_CALL, tool);
    }
    // Nobody has compared what a question's head says of arguments with those of the call.
    if tool.is_some() || witness.is_of_edited() {
        headers::drop_mirrored_arguments(&mut head.headers);
    }
    let request = post::request_upstream(&exchange, head, approved.into_permitted());
    let response = match exchange.send(request).await {
        Ok(response) => response,
        Err(error) => {
            tracing::warn!(%hold, server = &*exchange.upstream.settings.name, %error, "an approved call got no answer");
            if let NoResponse::NotSent(_) = error {
                witness.not_sent(Withdrawal::ServerGone).await;
            }
            return;
        }
    };
    let status = response.status();
    let answer = match read(response, &id, exchange.limits().server_frame_bytes_max, Some(&session)).await {
        Some(answer) => task_answer(hold, &answer, edited.as_deref()),
        None if !status.is_success() => {
            unusable_answer(hold, &format!("the HTTP status {} without a result", status.as_u16()))
        }
        // It broke off: nobody knows whether the tool ran.
        None => return,
    };
    witness.kept(answer).await;
}

/// The answer to the request `id` in a response. What else is in it can be said `beside`.
async fn read(
    response: Response<UpstreamBody>,
    id: &RequestId,
    bytes_max: usize,
    beside: Option<&Session>,
) -> Option<Frame> {
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
            match event.fields().message().and_then(|data| Frame::from_server(one_line(data)).ok()) {
                Some(frame) if frame.kind() == Kind::Response && frame.id() == Some(id) => {
                    return Some(frame);
                }
                Some(frame) if frame.kind() == Kind::Response => {}
                Some(frame) => drop(beside.map(|session| say_beside(session, frame))),
                None => {}
            }
        }
    }
    let frame = Frame::from_server(one_line(message.freeze())).ok()?;
    (frame.kind() == Kind::Response && frame.id() == Some(id)).then_some(frame)
}

/// A notification or a request of the server, while the call of a task runs: it goes to the client that waits for a result. One that reads
/// nothing is told nothing.
fn say_beside(session: &Session, message: Frame) {
    let Some(stream) = session.beside() else { return };
    let Ok(room) = stream.try_reserve() else { return };
    let passes = match message.kind() {
        Kind::Request => message.id().is_some_and(|id| session.ask(id)),
        _ => {
            let of_progress = message.method() == Some(method::PROGRESS);
            let progress = message.params().filter(|_| of_progress).and_then(Progress::parse);
            // Nothing that the server could say of a call which it does not have is true.
            !progress.is_some_and(|progress| session.is_held_token(progress.token))
        }
    };
    if passes {
        room.send(event_of(&message.into_bytes().into_line()));
    }
}
