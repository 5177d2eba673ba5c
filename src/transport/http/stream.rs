//! GET and DELETE of a session: the stream on which a server speaks first, resumption, and the end.
//!
//! Used for revisions up to 2025-11-25. The stream is passed on event by event for as long as both sides want; nothing is timed.

use std::sync::Arc;

use http::{Method, Request, Response, StatusCode, header, request::Parts};
use http_body_util::Full;
use hyper::body::Incoming;

use super::{
    Exchange,
    accounts::Open,
    body::{self, Body},
    headers::{self, PROTOCOL_VERSION, SESSION_ID},
    legacy::Opening,
    oauth::Login,
    post::{self, After, Asked},
    sessions::Session,
    watch::Interest,
};

/// Opens the server's stream, or goes on with one.
pub(super) async fn get(exchange: Exchange, request: Request<Incoming>) -> Response<Body> {
    let (head, session) = match begin(&exchange, request) {
        Ok(begun) => begun,
        Err(response) => return *response,
    };
    match post::stream_opened(&exchange) {
        Ok(open) => pass(&exchange, head, &asked(session), Some(open)).await,
        Err(text) => body::text(StatusCode::TOO_MANY_REQUESTS, text),
    }
}

/// Ends the session: what waits in it is withdrawn, whatever the server says.
pub(super) async fn delete(exchange: Exchange, request: Request<Incoming>) -> Response<Body> {
    let (head, session) = match begin(&exchange, request) {
        Ok(begun) => begun,
        Err(response) => return *response,
    };
    if session.is_one_client() {
        session.withdraw_all(exchange.gate());
    }
    let asked = asked(session);
    let response = pass(&exchange, head, &asked, None).await;
    if response.status().is_success() {
        exchange.upstream.sessions.forget(&asked.session);
    }
    response
}

/// Of which session it is, if it is of one at all.
fn begin(
    exchange: &Exchange,
    request: Request<Incoming>,
) -> Result<(Parts, Arc<Session>), Box<Response<Body>>> {
    let (head, _) = request.into_parts();
    check(&head)?;
    let session = post::session(exchange, &head)?;
    Ok((head, session))
}

/// Refuses what no GET and no DELETE can be about, whatever the session.
pub(super) fn check(head: &Parts) -> Result<(), Box<Response<Body>>> {
    let version = headers::single(&head.headers, &PROTOCOL_VERSION);
    if version.is_ok_and(headers::is_modern) {
        let text = "this revision has neither sessions nor their streams";
        return Err(Box::new(body::text(StatusCode::METHOD_NOT_ALLOWED, text)));
    }
    let has_body = head.headers.get(header::CONTENT_LENGTH).is_some_and(|length| length != "0")
        || head.headers.contains_key(header::TRANSFER_ENCODING);
    if has_body {
        return Err(Box::new(body::text(StatusCode::BAD_REQUEST, "a body has no meaning here")));
    }
    Ok(())
}

fn asked(session: Arc<Session>) -> Asked {
    Asked {
        session,
        id: None,
        is_tool_call: false,
        is_subscription: false,
        modern: false,
        interest: Interest::None,
    }
}

async fn pass(exchange: &Exchange, head: Parts, asked: &Asked, open: Option<Open>) -> Response<Body> {
    let login = Login::of(exchange, &head.headers, &head.uri);
    // Who opens a stream without a session, and not to go on with one, may speak 2024-11-05.
    let is_first = head.method == Method::GET
        && !head.headers.contains_key(SESSION_ID)
        && !head.headers.contains_key("last-event-id");
    let opening = is_first.then(|| Opening::new(exchange));
    let mut onward = Request::new(Full::default());
    *onward.method_mut() = head.method;
    *onward.uri_mut() = exchange.upstream.settings.target.uri.clone();
    *onward.headers_mut() = headers::for_upstream(exchange, head.headers);
    match exchange.send(onward).await {
        Ok(response) => {
            let after = After { open, login, opening, ..After::default() };
            post::pass_on(exchange, asked, response, after)
        }
        Err(error) => post::unreachable(exchange, asked, &error),
    }
}
