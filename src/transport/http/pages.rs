//! Pages of the other origins that a configuration lists: their browsers are told that they may speak to the servers here (Fetch, "CORS
//! protocol").
//!
//! Used by `answer`. Nothing gets further because of it: `checks` says who may come, and a page shows who it is in a header, like any other
//! client, and by no cookie.

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};

use super::{
    Routes,
    body::{self, Body},
    checks::{self, TurnedAway},
    headers,
};
use crate::mcp;

/// What pages may do.
const METHODS: HeaderValue = HeaderValue::from_static("POST, GET, DELETE");

/// The headers that clients of MCP send, besides those that repeat single arguments.
const HEADERS: &str = "Accept, Authorization, Content-Type, Last-Event-ID, Mcp-Method, Mcp-Name, Mcp-Protocol-Version, \
                       Mcp-Session-Id, Traceparent, Tracestate";

/// The headers of an answer that clients of MCP read.
const EXPOSED: HeaderValue = HeaderValue::from_static("Mcp-Session-Id, WWW-Authenticate");

/// The listed origin that a request comes from. Boxed: nearly no request has one, and each is kept while it waits.
pub(super) struct Page(Box<HeaderValue>);

impl Page {
    /// The page that sends `headers`, if it is of a listed origin.
    pub(super) fn of(headers: &HeaderMap, routes: &Routes) -> Option<Self> {
        if routes.origins.is_empty() {
            return None;
        }
        let origin = headers::single(headers, &header::ORIGIN).ok()??;
        let is_listed = routes.origins.contains(origin);
        headers.get(header::ORIGIN).filter(|_| is_listed).map(|origin| Self(Box::new(origin.clone())))
    }

    /// The answer to a browser that asks whether the page may send something (Fetch, "CORS-preflight request"): it may, if `request`
    /// would get to a server. None: the browser sends it.
    pub(super) fn asks_for_leave<B>(
        &self,
        request: &Request<B>,
        routes: &Routes,
    ) -> Result<Option<Response<Body>>, TurnedAway> {
        let wanted = request.headers().get(header::ACCESS_CONTROL_REQUEST_METHOD);
        let wanted = wanted.filter(|_| *request.method() == Method::OPTIONS);
        let Some(method) = wanted.and_then(|wanted| Method::from_bytes(wanted.as_bytes()).ok()) else {
            return Ok(None);
        };
        checks::head(request, &method, routes)?;
        let mut response = body::empty(StatusCode::NO_CONTENT);
        let allowed = response.headers_mut();
        allowed.insert(header::ACCESS_CONTROL_ALLOW_METHODS, METHODS);
        allowed.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, allowed_headers(request.headers()));
        Ok(Some(response))
    }

    /// Lets the page read `response`, whatever the server has said of pages.
    pub(super) fn may_read(&self, response: &mut Response<Body>) {
        let headers = response.headers_mut();
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::clone(&self.0));
        headers.remove(header::ACCESS_CONTROL_ALLOW_CREDENTIALS);
        headers.append(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
        headers.append(header::VARY, HeaderValue::from_static("Origin"));
    }
}

/// What a page may send: what is usual, and of what it asks for the headers that repeat arguments.
fn allowed_headers(headers: &HeaderMap) -> HeaderValue {
    let asked = headers.get_all(header::ACCESS_CONTROL_REQUEST_HEADERS).iter();
    let asked = asked.filter_map(|names| names.to_str().ok()).flat_map(|names| names.split(','));
    let names = asked.filter_map(|name| HeaderName::try_from(name.trim()).ok());
    let mut allowed = HEADERS.to_owned();
    for name in names.filter(|name| name.as_str().starts_with(mcp::MIRROR_PREFIX)) {
        allowed.push_str(", ");
        allowed.push_str(name.as_str());
    }
    HeaderValue::try_from(allowed).unwrap_or(HeaderValue::from_static(HEADERS))
}
