//! One POST of a client: a message, shown to the gate, and the server's answer to it.
//!
//! What is not held costs no copy of a body and no task. The policy judges the body; headers that mirror it have to agree.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Request, Response, StatusCode, Uri, Version, header, request::Parts};
use http_body_util::Full;
use hyper::body::Incoming;
use tokio::time::{Instant, timeout_at};

use super::{
    Endless, Exchange,
    accounts::{Account, Coming, Open},
    batch,
    body::{self, Body},
    headers::{self, PROTOCOL_VERSION, SESSION_ID},
    held::{self, Held},
    legacy::Opening,
    oauth::Login,
    sessions::{NoSession, Session},
    settings::HttpLimits,
    tasks,
    traced::traced,
    upstream::{NoResponse, UpstreamBody},
    watch::{Expected, Interest, Watched, Witness},
};
use crate::{
    gate::{Permitted, Refusal, Screened, Why},
    hold::Withdrawal,
    jsonrpc::{ErrorCode, Fault, Frame, FrameError, Kind, RequestId, error_response},
    mcp::{Cancelled, Initialize, TaskRequest, VERSION_WITH_BATCHES, method},
};

/// How long a client may leave us waiting for pieces of a body, beyond the time that its pieces pay for.
const BODY_PAUSE_MAX: Duration = Duration::from_secs(30);

/// How many bytes of a body pay for a second. What comes drop by drop keeps a place occupied.
const BODY_BYTES_PER_SECOND_MIN: u32 = 1024;

/// What a request of a client is, and what its answer may be.
pub(super) struct Asked {
    pub(super) session: Arc<Session>,
    pub(super) id: Option<RequestId>,
    pub(super) is_tool_call: bool,
    /// Whether its answer is a stream that ends when somebody wants it to.
    pub(super) is_subscription: bool,
    pub(super) modern: bool,
    pub(super) interest: Interest,
}

impl Asked {
    /// What the server's answer may be; `floor` and `witness` where the call was held.
    pub(super) fn expects(
        &self,
        exchange: &Exchange,
        floor: Option<(Box<str>, f64)>,
        witness: Option<Witness>,
    ) -> Expected {
        Expected {
            proxy: Arc::clone(&exchange.worker.proxy),
            session: Arc::clone(&self.session),
            id: self.id.clone(),
            is_tool_call: self.is_tool_call,
            modern: self.modern,
            interest: self.interest,
            floor,
            witness,
            _open: None,
            is_answered: false,
            is_resumable: false,
            awaited: None,
            opening: None,
            opened: None,
        }
    }
}

/// Answers one POST.
pub(super) fn post(
    exchange: Exchange,
    request: Request<Incoming>,
) -> impl Future<Output = Response<Body>> + Send {
    let (head, incoming) = request.into_parts();
    let head = Box::new(head);
    async move {
        let text = match read(incoming, head.version, exchange.limits(), || exchange.account()).await {
            Ok(text) => text,
            Err(response) => return *response,
        };
        if Frame::is_batch(&text) && has_batches(&exchange, &head) {
            return Box::pin(batch(exchange, head, text)).await;
        }
        match Frame::from_client(text) {
            Ok(frame) => message(exchange, head, frame).await,
            Err(error) => unreadable(&exchange, &error),
        }
    }
}

/// Whether this client speaks the one revision with batches: its session has negotiated it, or the request says so and nothing says
/// otherwise.
fn has_batches(exchange: &Exchange, head: &Parts) -> bool {
    let Ok(declared) = headers::single(&head.headers, &PROTOCOL_VERSION) else { return false };
    let Ok(session) = session(exchange, head) else { return false };
    let caller = session.caller();
    let negotiated = caller.revision.as_deref();
    let is_it = |version: &str| version == VERSION_WITH_BATCHES;
    declared.is_none_or(is_it) && negotiated.is_none_or(is_it) && (declared.is_some() || negotiated.is_some())
}

/// Answers a batch, each message in it as if it had come alone.
async fn batch(exchange: Exchange, head: Box<Parts>, text: Bytes) -> Response<Body> {
    let elements = match Frame::batch_from_client(&text) {
        Ok(elements) => elements,
        Err(error) => return unreadable(&exchange, &error),
    };
    let form = batch::Form {
        takes_events: headers::accepts(&head.headers, "text/event-stream"),
        server_frame_bytes_max: exchange.limits().server_frame_bytes_max,
    };
    batch::answer(elements, form, |frame| message(exchange.clone(), head.clone(), frame)).await
}

/// Answers one message.
#[expect(
    clippy::manual_async_fn,
    reason = "an `async fn` keeps its arguments twice, in each of thousands of calls that wait"
)]
fn message(
    exchange: Exchange,
    mut head: Box<Parts>,
    frame: Frame,
) -> impl Future<Output = Response<Body>> + Send {
    async move {
        let modern = match headers::agree(&head.headers, &frame) {
            Ok(modern) => modern,
            Err(mismatch) => return mismatch.into_response(&frame),
        };
        if modern {
            // No revision of this era has sessions, and nobody looks whose one is: the server must not be in any either.
            head.headers.remove(SESSION_ID);
        }
        let asked = match asked(&exchange, &head, &frame, modern) {
            Ok(asked) => asked,
            Err(response) => return *response,
        };
        if let Some(response) = settled_here(&exchange, &asked, &frame) {
            return response;
        }
        let caller = asked.session.caller();
        if modern && let Err(mismatch) = headers::arguments_agree(&head.headers, &caller.tools, &frame) {
            return mismatch.into_response(&frame);
        }
        if let Some(task) = TaskRequest::parse(&frame).filter(|task| caller.is_answered_here(task)) {
            return Box::pin(tasks::ask(exchange, *head, asked, task, frame)).await;
        }
        let gate = exchange.gate();
        let mut span = gate.span_of(&caller, &frame, || headers::arrival(&head.headers));
        match gate.screen(&caller, frame) {
            Screened::Pass(permitted) => traced(forward(&exchange, head, permitted, &asked).await, span),
            Screened::Refuse(refusal) => {
                if let Some(span) = &mut span {
                    span.refused(&refusal);
                }
                refused(&refusal, modern)
            }
            Screened::Hold(mut call) => {
                if let Some(span) = &span {
                    call.traced(span);
                }
                traced(Box::pin(held::hold(Held { exchange, head: *head, asked }, call)).await, span)
            }
        }
    }
}

/// Which client asks for what.
fn asked(
    exchange: &Exchange,
    head: &Parts,
    frame: &Frame,
    modern: bool,
) -> Result<Asked, Box<Response<Body>>> {
    let asks = frame.method();
    let interest = match asks {
        Some(method::INITIALIZE) => Interest::Initialize,
        Some(method::TOOLS_LIST) => Interest::ToolsList,
        Some(method::SERVER_DISCOVER) if exchange.gate().policy().may_hold() => Interest::Discover,
        _ => Interest::None,
    };
    let session = if interest == Interest::Initialize {
        let initialize = frame.params().and_then(Initialize::from_params);
        let client = initialize.as_ref().and_then(|initialize| initialize.peer.as_ref());
        let client = client.map(|client| (Arc::from(&*client.name), Arc::from(client.to_string())));
        let session = exchange.upstream.sessions.begin(&exchange.principal, client);
        session.is_able(initialize.map_or("", |initialize| initialize.capabilities));
        session
    } else {
        session(exchange, head)?
    };
    Ok(Asked {
        session,
        id: frame.id().filter(|_| frame.kind() == Kind::Request).cloned(),
        is_tool_call: asks == Some(method::TOOLS_CALL),
        is_subscription: asks == Some(method::SUBSCRIPTIONS_LISTEN),
        modern,
        interest,
    })
}

/// The session that the head names, if it names one.
pub(super) fn session(exchange: &Exchange, head: &Parts) -> Result<Arc<Session>, Box<Response<Body>>> {
    let away = |status, text| Box::new(body::text(status, text));
    let id = headers::single(&head.headers, &SESSION_ID)
        .map_err(|()| away(StatusCode::BAD_REQUEST, "the session is named twice or not in plain text"))?;
    exchange.upstream.sessions.find(id, &exchange.principal).map_err(|error| match error {
        // As if there were none: whose it is concerns nobody else.
        NoSession::Foreign => away(StatusCode::NOT_FOUND, "no such session"),
        NoSession::TooMany => away(StatusCode::SERVICE_UNAVAILABLE, "too many sessions are open"),
    })
}

/// What needs neither the gate nor the server.
pub(super) fn settled_here(exchange: &Exchange, asked: &Asked, frame: &Frame) -> Option<Response<Body>> {
    match frame.kind() {
        Kind::Request if exchange.worker.proxy.is_stopping() => Some(stopping(frame)),
        Kind::Notification if frame.method() == Some(method::CANCELLED) => {
            let id = frame.params().and_then(Cancelled::parse)?.request;
            let cancelled = asked.session.cancel(exchange.gate(), &id);
            let gate = Arc::clone(exchange.gate());
            if !cancelled.left.is_empty() {
                exchange.worker.proxy.tasks.spawn(async move {
                    for hold in cancelled.left {
                        gate.take_back(hold, Withdrawal::Cancelled).await;
                    }
                });
            }
            // The server has never seen a call that is held.
            cancelled.is_held.then(|| body::empty(StatusCode::ACCEPTED))
        }
        Kind::Response if asked.modern => {
            let text = "clients of this revision send no responses";
            Some(body::json(
                StatusCode::BAD_REQUEST,
                error_response(None, ErrorCode::INVALID_REQUEST, text, None),
            ))
        }
        Kind::Response if let Some(about) = frame.id().and_then(|id| asked.session.take_question(id)) => {
            let (gate, answer) = (Arc::clone(exchange.gate()), frame.clone());
            exchange.worker.proxy.tasks.spawn(async move { gate.elicited(about, answer.result()).await });
            Some(body::empty(StatusCode::ACCEPTED))
        }
        Kind::Response if !frame.id().is_some_and(|id| asked.session.take_asked(id)) => {
            let text = "the server has not asked this; dropped";
            exchange.gate().note(&asked.session.caller(), "", text);
            Some(body::json(
                StatusCode::BAD_REQUEST,
                error_response(None, ErrorCode::INVALID_REQUEST, text, None),
            ))
        }
        _ => None,
    }
}

/// Nothing new begins: what the client of the request `frame` hears.
pub(super) fn stopping(frame: &Frame) -> Response<Body> {
    let text = "this proxy is about to end, and has not done anything about this request: send it again";
    let mut response = body::json(
        StatusCode::SERVICE_UNAVAILABLE,
        error_response(frame.id(), ErrorCode::INTERNAL_ERROR, text, None),
    );
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

/// The body of a request of `version`, whole. Until it is, what is here of it counts on the `account` of whoever sends it.
pub(super) async fn read(
    mut incoming: impl hyper::body::Body<Data = Bytes> + Unpin,
    version: Version,
    limits: &HttpLimits,
    account: impl Fn() -> Arc<Account>,
) -> Result<Bytes, Box<Response<Body>>> {
    let away = |status, text| Box::new(body::text(status, text));
    let bytes_max = limits.client_frame_bytes_max;
    let mut first = Bytes::new();
    let mut collected = BytesMut::new();
    let mut waiting = None;
    loop {
        let mut next = std::pin::pin!(std::future::poll_fn(|cx| {
            // In HTTP/1 a body moves only when its connection is polled, which then polls this as well. To be woken for it would mean to
            // do all of that twice.
            let mut own = Context::from_waker(Waker::noop());
            let cx = if version == Version::HTTP_2 { cx } else { &mut own };
            Pin::new(&mut incoming).poll_frame(cx)
        }));
        // Nearly always all of it is there already; only then does nobody need a timer.
        let ready = std::future::poll_fn(|cx| Poll::Ready(next.as_mut().poll(cx))).await;
        let frame = match ready {
            Poll::Ready(frame) => frame,
            Poll::Pending => {
                let (length, latest) = (first.len() + collected.len(), Instant::now() + BODY_PAUSE_MAX);
                let (coming, due) = waiting.get_or_insert_with(|| (Coming::new(account()), latest));
                // What comes at once buys no hours: it pays for its own time, and for no pause but the longest.
                let paid = Duration::from_secs((length - coming.bytes()) as u64) / BODY_BYTES_PER_SECOND_MIN;
                *due = (*due + paid).min(latest);
                if !coming.has(length, limits.coming_bytes_per_principal_max()) {
                    let text = "too much of what this agent sends is on its way: send less at the same time";
                    return Err(away(StatusCode::TOO_MANY_REQUESTS, text));
                }
                match timeout_at(*due, next).await {
                    Ok(frame) => frame,
                    Err(_) => return Err(away(StatusCode::REQUEST_TIMEOUT, "the body came too slowly")),
                }
            }
        };
        let data = match frame {
            None => break,
            Some(Err(_)) => return Err(away(StatusCode::BAD_REQUEST, "the body broke off")),
            Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
        };
        if first.len() + collected.len() + data.len() > bytes_max {
            return Err(away(StatusCode::PAYLOAD_TOO_LARGE, "the body is over the limit"));
        }
        if first.is_empty() && collected.is_empty() {
            first = data;
        } else {
            if collected.is_empty() {
                let expected =
                    usize::try_from(incoming.size_hint().lower()).unwrap_or_default().min(bytes_max);
                collected.reserve(first.len() + data.len() + expected);
                collected.extend_from_slice(&std::mem::take(&mut first));
            }
            collected.extend_from_slice(&data);
        }
        if incoming.is_end_stream() {
            break;
        }
    }
    Ok(if collected.is_empty() { first } else { collected.freeze() })
}

/// The body is no message that has one reading.
pub(super) fn unreadable(exchange: &Exchange, error: &FrameError) -> Response<Body> {
    tracing::warn!(%error, "a message of a client was refused");
    if let Ok(session) = exchange.upstream.sessions.find(None, &exchange.principal) {
        exchange.gate().note(&session.caller(), "", &error.to_string());
    }
    let status = match error.fault {
        Fault::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        _ => StatusCode::BAD_REQUEST,
    };
    body::refusal(status, &Refusal::unreadable(error))
}

/// The gate has said no.
pub(super) fn refused(refusal: &Refusal, modern: bool) -> Response<Body> {
    let status = match refusal.why {
        Why::Invalid if modern => StatusCode::BAD_REQUEST,
        _ => StatusCode::OK,
    };
    body::refusal(status, refusal)
}

/// The request that brings `permitted` to the server.
pub(super) fn request_upstream(
    exchange: &Exchange,
    head: Parts,
    permitted: Permitted,
) -> Request<Full<Bytes>> {
    request_upstream_at(exchange, exchange.upstream.settings.target.uri.clone(), head, permitted)
}

/// The same to another place of the server.
pub(super) fn request_upstream_at(
    exchange: &Exchange,
    uri: Uri,
    head: Parts,
    permitted: Permitted,
) -> Request<Full<Bytes>> {
    let mut request = Request::new(Full::new(permitted.into_body()));
    *request.method_mut() = head.method;
    *request.uri_mut() = uri;
    *request.headers_mut() = headers::for_upstream(exchange, head.headers);
    request
}

/// Lets the server answer.
#[expect(
    clippy::manual_async_fn,
    reason = "an `async fn` keeps its arguments twice, in each of thousands of calls that wait"
)]
fn forward(
    exchange: &Exchange,
    head: Box<Parts>,
    permitted: Permitted,
    asked: &Asked,
) -> impl Future<Output = Response<Body>> + Send {
    async move {
        let open = if asked.is_subscription {
            match stream_opened(exchange) {
                Ok(open) => Some(open),
                Err(text) => {
                    let refusal = Refusal::invalid(asked.id.clone(), ErrorCode::INTERNAL_ERROR, text);
                    return body::refusal(StatusCode::TOO_MANY_REQUESTS, &refusal);
                }
            }
        } else {
            None
        };
        let login = Login::of(exchange, &head.headers, &head.uri);
        let request = request_upstream(exchange, *head, permitted);
        let mut response = match exchange.send(request).await {
            Ok(response) => pass_on(exchange, asked, response, After { open, login, ..After::default() }),
            Err(error) => unreachable(exchange, asked, &error),
        };
        if asked.is_subscription {
            response.extensions_mut().insert(Endless);
        }
        response
    }
}

/// What an agent is told that has too many streams.
pub(super) const STREAMS_FULL: &str = "as many streams of this agent are open as may be";

/// One more stream of this principal that stays open.
pub(super) fn stream_opened(exchange: &Exchange) -> Result<Open, &'static str> {
    let open = exchange.account().stream(exchange.limits().streams_per_principal_max);
    open.ok_or(STREAMS_FULL)
}

/// The server has not answered: what the client hears.
pub(super) fn unreachable(exchange: &Exchange, asked: &Asked, error: &NoResponse) -> Response<Body> {
    tracing::warn!(server = &*exchange.upstream.settings.name, %error, "a request got no answer");
    no_answer(
        asked,
        match error {
            NoResponse::NotSent(_) => "the server cannot be reached",
            NoResponse::Lost(_) => "the connection to the server ended before its answer",
        },
    )
}

fn no_answer(asked: &Asked, text: &'static str) -> Response<Body> {
    match &asked.id {
        Some(id) => {
            let message = error_response(Some(id), ErrorCode::INTERNAL_ERROR, text, None);
            body::json(StatusCode::BAD_GATEWAY, message)
        }
        None => body::text(StatusCode::BAD_GATEWAY, text),
    }
}

/// What an answer has behind it.
#[derive(Default)]
pub(super) struct After {
    /// The approved call.
    pub(super) witness: Option<Witness>,
    /// The stream's part of what its principal may have open.
    pub(super) open: Option<Open>,
    /// What a challenge may say.
    pub(super) login: Option<Login>,
    /// Where the answer may be a stream of 2024-11-05.
    pub(super) opening: Option<Opening>,
}

/// The server's response as the client gets it: its own bytes, looked into where that is needed.
pub(super) fn pass_on(
    exchange: &Exchange,
    asked: &Asked,
    response: Response<UpstreamBody>,
    after: After,
) -> Response<Body> {
    let (mut head, from_server) = response.into_parts();
    if head.status.is_redirection() || head.status.is_informational() {
        // A client that followed would leave the gate behind.
        tracing::warn!(server = &*exchange.upstream.settings.name, status = %head.status, "a redirect was not passed on");
        return no_answer(asked, "the server answered with a redirect, which is not followed");
    }
    headers::for_client(&mut head.headers);
    if let Some(login) = &after.login {
        login.challenge(&exchange.upstream.named_places, &mut head.headers);
    }
    learn_session(exchange, asked, &head);
    let is_stream = headers::is_type(head.headers.get(header::CONTENT_TYPE), "text/event-stream");
    // An answer to one call must not be one to another that is still held.
    let is_watched =
        is_stream || after.witness.is_some() || asked.interest != Interest::None || asked.session.has_held();
    let expected = is_watched.then(|| Expected {
        _open: after.open,
        opening: after.opening,
        ..asked.expects(exchange, None, after.witness)
    });
    watched(exchange, head, from_server, is_stream, expected)
}

/// A response whose body is looked into as `expected` says, if it is.
pub(super) fn watched(
    exchange: &Exchange,
    mut head: http::response::Parts,
    from_server: UpstreamBody,
    is_stream: bool,
    expected: Option<Expected>,
) -> Response<Body> {
    let Some(expected) = expected else { return Response::from_parts(head, Body::Upstream(from_server)) };
    if head.headers.contains_key(header::CONTENT_ENCODING) {
        return body::text(
            StatusCode::BAD_GATEWAY,
            "the server's answer is compressed, which it was not asked to be",
        );
    }
    head.headers.remove(header::CONTENT_LENGTH);
    let bytes_max = exchange.limits().server_frame_bytes_max;
    let watched = if is_stream {
        Watched::events(from_server, expected, bytes_max)
    } else {
        Watched::message(from_server, expected, bytes_max)
    };
    Response::from_parts(head, Body::Watched(Box::new(watched)))
}

/// What the head of a response says of the session.
fn learn_session(exchange: &Exchange, asked: &Asked, head: &http::response::Parts) {
    let sessions = &exchange.upstream.sessions;
    if asked.interest == Interest::Initialize {
        if let Ok(Some(id)) = headers::single(&head.headers, &SESSION_ID)
            && sessions.name(id, &asked.session).is_err()
        {
            tracing::warn!("too many sessions are open: what this one says of itself is not remembered");
        }
    } else if head.status == StatusCode::NOT_FOUND {
        sessions.forget(&asked.session);
    } else if head.status.is_success() {
        asked.session.confirm();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;
    use http_body_util::StreamBody;
    use hyper::body::Frame as Piece;
    use tokio::time::sleep;

    use super::*;

    /// What is read of a body, or with which status it is refused.
    type Read = Result<usize, StatusCode>;

    /// What one client may send, in bytes: at once, and of all that has not ended.
    const BYTES_MAX: usize = 1 << 20;

    /// What comes of a body of these `pieces`, one each `pause`, and after how long.
    async fn reads_on(
        account: &Arc<Account>,
        pieces: impl IntoIterator<Item = usize>,
        pause: Duration,
    ) -> (Read, Duration) {
        let began = Instant::now();
        let body =
            StreamBody::new(Box::pin(stream::unfold(pieces.into_iter(), move |mut pieces| async move {
                sleep(pause).await;
                let piece = Piece::data(Bytes::from(vec![b'x'; pieces.next()?]));
                Some((Ok::<_, std::convert::Infallible>(piece), pieces))
            })));
        let limits = HttpLimits {
            client_frame_bytes_max: BYTES_MAX,
            held_bytes_per_principal_max: BYTES_MAX,
            ..HttpLimits::default()
        };
        let read = read(body, Version::HTTP_2, &limits, || Arc::clone(account)).await;
        (read.map(|text| text.len()).map_err(|response| response.status()), began.elapsed())
    }

    async fn reads(pieces: impl IntoIterator<Item = usize>, pause: Duration) -> (Read, Duration) {
        reads_on(&Arc::default(), pieces, pause).await
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_may_pause_and_be_slow_but_not_come_drop_by_drop() {
        let seconds = Duration::from_secs;
        assert_eq!(reads([8; 3], seconds(7)).await.0, Ok(24), "a short one may take its time");
        assert_eq!(reads([8], seconds(31)).await, (Err(StatusCode::REQUEST_TIMEOUT), seconds(30)));
        assert_eq!(reads([2048; 500], seconds(1)).await.0, Ok(1_024_000), "a large one on a slow line comes");
        let drops = std::iter::repeat_n(1, 1_000_000);
        for begin in [1, BYTES_MAX / 2] {
            let dripping = std::iter::once(begin).chain(drops.clone());
            let (read, after) = reads(dripping, seconds(1)).await;
            assert_eq!(read, Err(StatusCode::REQUEST_TIMEOUT));
            assert!(after < seconds(33), "{after:?}, whatever came at once before");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_may_be_as_long_as_the_limit_in_however_many_pieces() {
        let piece = BYTES_MAX / 4;
        for (pieces, read) in [
            (vec![BYTES_MAX], Ok(BYTES_MAX)),
            (vec![2 * piece, piece, piece], Ok(BYTES_MAX)),
            (vec![2 * piece, piece, piece + 1], Err(StatusCode::PAYLOAD_TOO_LARGE)),
        ] {
            assert_eq!(reads(pieces.clone(), Duration::from_millis(1)).await.0, read, "{pieces:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_one_agent_leaves_unfinished_is_bounded_together() {
        let (account, other) = (Arc::default(), Arc::default());
        let (half, pause) = (BYTES_MAX / 2 + 1, Duration::from_secs(10));
        let send = |account| reads_on(account, [half, 1], pause);
        let late = async {
            sleep(Duration::from_secs(1)).await;
            tokio::join!(send(&account), send(&other))
        };
        let (first, (second, of_other)) = tokio::join!(send(&account), late);
        assert_eq!((first.0, of_other.0), (Ok(half + 1), Ok(half + 1)));
        assert_eq!(second, (Err(StatusCode::TOO_MANY_REQUESTS), pause), "as soon as it is too much");
        assert_eq!(send(&account).await.0, Ok(half + 1), "there is room again");
    }
}
