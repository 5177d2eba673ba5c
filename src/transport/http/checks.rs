//! What the head of a request must be before anything else is looked at.
//!
//! Called for every request. Pages in a browser cannot get past it (Host and Origin: MCP, "Security Warning"), nothing is tunneled, and
//! there is one spelling of each path.

use std::borrow::Cow;

use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version, header, uri::Authority};

use super::{
    Behind, Routes,
    body::{self, Body},
    headers, legacy, oauth,
};

/// A request that gets no further.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TurnedAway {
    pub(super) status: StatusCode,
    pub(super) text: &'static str,
}

const fn away(status: StatusCode, text: &'static str) -> TurnedAway {
    TurnedAway { status, text }
}

impl TurnedAway {
    /// What the client hears.
    pub(super) fn into_response(self) -> Response<Body> {
        let mut response = body::text(self.status, self.text);
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

impl From<TurnedAway> for Box<Response<Body>> {
    fn from(away: TurnedAway) -> Self {
        Self::new(away.into_response())
    }
}

/// What of a server a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Door {
    /// Its MCP endpoint.
    Endpoint,
    /// The place for what the client of one stream sends (2024-11-05).
    Messages,
    /// What it says of its OAuth.
    Metadata,
}

/// Whether the body of `request` comes in pieces (RFC 9112 §7.1).
pub(super) fn is_in_pieces<B>(request: &Request<B>) -> bool {
    request.version() != Version::HTTP_2 && request.headers().contains_key(header::TRANSFER_ENCODING)
}

/// Ends the connection with `response` if its request came in pieces: where that ends is a question that something before us may have
/// answered otherwise, so nothing that follows is taken for a request.
pub(super) fn nothing_after<B>(response: &mut Response<B>, is_in_pieces: bool) {
    if is_in_pieces {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
}

/// Which server `request` is for, and what of it. `method` is what it does there, or what its page wants to do.
pub(super) fn head<B>(
    request: &Request<B>,
    method: &Method,
    routes: &Routes,
) -> Result<(Behind, Door), TurnedAway> {
    let headers = request.headers();
    let host = host(request)?;
    let name = in_lower_case(host.host());
    if !routes.hosts.contains(&*name) {
        return Err(away(StatusCode::FORBIDDEN, "this host name is not served here"));
    }
    origin(headers, &host, routes)?;
    nothing_tunneled(request)?;
    const NO_PATH: TurnedAway = away(StatusCode::NOT_FOUND, "no such path");
    let path = request.uri().path();
    if request.uri().query().is_some() {
        return Err(NO_PATH);
    }
    if let Some(upstream) = routes.find(&name, path) {
        return Ok((upstream, Door::Endpoint));
    }
    if let Some((endpoint, stream)) = legacy::stream_at(path)
        && let Some(Behind::Http(at)) = routes.find(&name, endpoint)
        && routes.upstreams[at].streams.has(stream)
        && *method == Method::POST
    {
        return Ok((Behind::Http(at), Door::Messages));
    }
    let upstream = oauth::described_at(&name, path, routes).filter(|_| *method == Method::GET);
    upstream.map(|upstream| (Behind::Http(upstream), Door::Metadata)).ok_or(NO_PATH)
}

/// Nearly always as it is written.
fn in_lower_case(name: &str) -> Cow<'_, str> {
    if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(name.to_ascii_lowercase())
    } else {
        Cow::Borrowed(name)
    }
}

/// The one name by which the client calls this proxy.
fn host<B>(request: &Request<B>) -> Result<Authority, TurnedAway> {
    const BAD: TurnedAway = away(StatusCode::BAD_REQUEST, "the request names no host, or more than one");
    let uri = request.uri();
    let header = headers::single(request.headers(), &header::HOST).map_err(|()| BAD)?;
    let authority = if request.version() == Version::HTTP_2 {
        let authority = uri.authority().ok_or(BAD)?;
        if header.is_some_and(|header| header != authority.as_str()) {
            return Err(BAD);
        }
        authority.clone()
    } else {
        match (uri.scheme_str(), uri.authority()) {
            (None, None) => header.ok_or(BAD)?.parse().map_err(|_| BAD)?,
            // A whole URL: its host counts, whatever the header says (RFC 9112 §3.2.2).
            (Some("http" | "https"), Some(authority)) => authority.clone(),
            // Only a name, as for a tunnel, or something that is not asked for here.
            _ => return Err(away(StatusCode::BAD_REQUEST, "only a path can be asked for")),
        }
    };
    if authority.as_str().contains(['@', '%']) { Err(BAD) } else { Ok(authority) }
}

/// Pages of other places may not speak to us, even if a browser would let them.
fn origin(headers: &HeaderMap, host: &Authority, routes: &Routes) -> Result<(), TurnedAway> {
    const FOREIGN: TurnedAway =
        away(StatusCode::FORBIDDEN, "pages of this origin may not speak to this server");
    let origin = headers::single(headers, &header::ORIGIN).map_err(|()| FOREIGN)?;
    let Some(origin) = origin else {
        // Browsers send an origin with everything but what their user has typed; programs do not pose as browsers.
        let is_browser = headers.contains_key(headers::SEC_FETCH_SITE)
            || headers.get(header::USER_AGENT).is_some_and(|agent| agent.as_bytes().starts_with(b"Mozilla/"));
        return if is_browser { Err(FOREIGN) } else { Ok(()) };
    };
    let is_own = origin
        .strip_prefix("http://")
        .or_else(|| origin.strip_prefix("https://"))
        .is_some_and(|name| name.eq_ignore_ascii_case(host.as_str()));
    if is_own || routes.origins.contains(origin) { Ok(()) } else { Err(FOREIGN) }
}

fn nothing_tunneled<B>(request: &Request<B>) -> Result<(), TurnedAway> {
    if matches!(*request.method(), Method::CONNECT | Method::TRACE) {
        return Err(away(StatusCode::METHOD_NOT_ALLOWED, "nothing is tunneled or traced"));
    }
    let headers = request.headers();
    if headers.contains_key(header::UPGRADE) {
        return Err(away(StatusCode::BAD_REQUEST, "no other protocol is spoken here"));
    }
    // A header that is named here would be removed on the way; the ones of MCP must not be.
    let mut named = headers
        .get_all(header::CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','));
    let is_plain = |name: &[u8]| {
        [&b"keep-alive"[..], b"close", b"te", b""]
            .iter()
            .any(|known| name.trim_ascii().eq_ignore_ascii_case(known))
    };
    if named.all(is_plain) {
        Ok(())
    } else {
        Err(away(StatusCode::BAD_REQUEST, "`Connection` can only be keep-alive or close"))
    }
}

/// A body has to be JSON in UTF-8, as it is, and of a size that is read.
pub(super) fn content(headers: &HeaderMap, routes: &Routes) -> Result<(), TurnedAway> {
    const NOT_JSON: TurnedAway =
        away(StatusCode::UNSUPPORTED_MEDIA_TYPE, "the body has to be application/json in UTF-8");
    let kind = headers::single(headers, &header::CONTENT_TYPE).map_err(|()| NOT_JSON)?.ok_or(NOT_JSON)?;
    let mut parts = kind.split(';').map(str::trim);
    if !parts.next().is_some_and(|kind| kind.eq_ignore_ascii_case("application/json")) {
        return Err(NOT_JSON);
    }
    for parameter in parts.filter(|parameter| !parameter.is_empty()) {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        if name.eq_ignore_ascii_case("charset") && !value.trim_matches('"').eq_ignore_ascii_case("utf-8") {
            return Err(NOT_JSON);
        }
    }
    if headers.get_all(header::CONTENT_ENCODING).iter().any(|coding| coding != "identity") {
        return Err(away(StatusCode::UNSUPPORTED_MEDIA_TYPE, "the body must not be compressed"));
    }
    let length =
        headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    if length.is_some_and(|length| length > routes.limits.client_frame_bytes_max) {
        return Err(away(StatusCode::PAYLOAD_TOO_LARGE, "the body is over the limit"));
    }
    Ok(())
}
