//! GET and DELETE of a session: the stream on which a server speaks first, resumption, and the end.
//!
//! Used for revisions up to 2025-11-25. The stream is passed on event by event for as long as both sides want; nothing is timed.

use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;

use super::{
    Exchange,
    body::{self, Body},
    headers::{self, PROTOCOL_VERSION},
    post::{self, Asked},
    watch::Interest,
};

/// Opens the server's stream, or goes on with one.
pub(super) async fn get(exchange: Exchange, request: Request<Incoming>) -> Response<Body> {
    pass(exchange, request).await
}

/// Ends the session: what waits in it is withdrawn, whatever the server says.
pub(super) async fn delete(exchange: Exchange, request: Request<Incoming>) -> Response<Body> {
    pass(exchange, request).await
}

async fn pass(exchange: Exchange, request: Request<Incoming>) -> Response<Body> {
    let (head, _) = request.into_parts();
    let method = head.method.clone();
    let version = headers::single(&head.headers, &PROTOCOL_VERSION);
    if version.is_ok_and(headers::is_modern) {
        return body::text(
            StatusCode::METHOD_NOT_ALLOWED,
            "this revision has neither sessions nor their streams",
        );
    }
    if head.headers.get(header::CONTENT_LENGTH).is_some_and(|length| length != "0") {
        return body::text(StatusCode::BAD_REQUEST, "a body has no meaning here");
    }
    let session = match post::session(&exchange, &head, false) {
        Ok(session) => session,
        Err(response) => return *response,
    };
    if method == Method::DELETE && session.is_one_client() {
        session.withdraw_all(&exchange.worker.proxy.gate);
    }
    let settings = &exchange.upstream.settings;
    let mut onward = Request::new(Full::default());
    *onward.method_mut() = method.clone();
    *onward.uri_mut() = settings.target.uri.clone();
    *onward.headers_mut() = headers::for_upstream(head.headers, settings);
    let asked = Asked { session, id: None, is_tool_call: false, modern: false, interest: Interest::None };
    match exchange.upstream.send(exchange.worker.number, onward).await {
        Ok(response) => {
            if method == Method::DELETE && response.status().is_success() {
                exchange.upstream.sessions.forget(&asked.session);
            }
            post::pass_on(&exchange, &asked, response, None)
        }
        Err(error) => post::unreachable(&exchange, &asked, &error),
    }
}
