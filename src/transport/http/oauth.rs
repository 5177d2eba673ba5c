//! OAuth between client and server, through a proxy with another URL: what they say of themselves on the way.
//!
//! Used for servers whose configuration says `oauth: pass` or `oauth: rewrite` (MCP, "Authorization"; RFC 9728). It forwards, and where
//! it is told to it puts the proxy's own place for the server's; it never fetches what a server points at, and keeps no token.

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;

use super::{
    Behind, Exchange, Routes,
    body::{self, Body},
    headers,
    settings::{OAuth, UpstreamSettings},
};

/// Where a server describes itself and its authorization server; the path of its endpoint may follow.
const DESCRIPTIONS: [&str; 3] = [
    "/.well-known/oauth-protected-resource",
    "/.well-known/oauth-authorization-server",
    "/.well-known/openid-configuration",
];

/// The longest description that is read, in bytes.
const DESCRIPTION_BYTES_MAX: usize = 256 * 1024;

/// The server that is described at `path`: the one whose endpoint follows, or, where none follows, the only one with OAuth.
pub(super) fn described_at(host: &str, path: &str, routes: &Routes) -> Option<usize> {
    let endpoint = DESCRIPTIONS.iter().find_map(|begin| path.strip_prefix(begin))?;
    let has_oauth = |at: &usize| routes.upstreams[*at].settings.oauth != OAuth::Off;
    if !endpoint.is_empty() {
        let Some(Behind::Http(at)) = routes.find(host, endpoint) else { return None };
        return Some(at).filter(has_oauth);
    }
    let is_here =
        |at: &usize| routes.find(host, &routes.upstreams[*at].settings.path) == Some(Behind::Http(*at));
    let mut with_oauth = (0..routes.upstreams.len()).filter(has_oauth).filter(is_here);
    with_oauth.next().filter(|_| with_oauth.next().is_none())
}

/// Where the proxy is, as the client sees it, and where the server is: scheme and authority.
struct Places {
    ours: String,
    theirs: String,
}

impl Places {
    fn of(exchange: &Exchange, headers: &HeaderMap, uri: &http::Uri) -> Option<Self> {
        let host = uri.authority().map(http::uri::Authority::as_str);
        let host = host.or_else(|| headers.get(header::HOST).and_then(|host| host.to_str().ok()))?;
        let target = &exchange.upstream.settings.target;
        let scheme = |is_tls| if is_tls { "https" } else { "http" };
        Some(Self {
            ours: format!("{}://{host}", scheme(exchange.routes.tls.is_some())),
            theirs: format!("{}://{}", scheme(target.tls.is_some()), target.authority.to_str().ok()?),
        })
    }
}

/// The URLs of the endpoint on either side, for what a challenge or a description says of it.
pub(super) struct Rewriting {
    places: Places,
    our_path: String,
    their_path: String,
}

impl Rewriting {
    /// What is put in the place of what in answers to this request. `None` where nothing is.
    pub(super) fn of(exchange: &Exchange, headers: &HeaderMap, uri: &http::Uri) -> Option<Self> {
        let settings = &exchange.upstream.settings;
        if settings.oauth != OAuth::Rewrite {
            return None;
        }
        let places = Places::of(exchange, headers, uri)?;
        let their_path = settings.target.uri.path().to_owned();
        Some(Self { places, our_path: settings.path.clone(), their_path })
    }

    /// `text` with our URLs for theirs: of the endpoint, of its description, and of the origin alone.
    fn rewritten(&self, text: &str) -> String {
        let Places { ours, theirs } = &self.places;
        let metadata = DESCRIPTIONS[0];
        text.replace(
            &format!("{theirs}{metadata}{}", self.their_path),
            &format!("{ours}{metadata}{}", self.our_path),
        )
        .replace(&format!("{theirs}{metadata}"), &format!("{ours}{metadata}"))
        .replace(&format!("{theirs}{}", self.their_path), &format!("{ours}{}", self.our_path))
        .replace(theirs, ours)
    }

    /// The server's challenge, so that its description is looked for here.
    pub(super) fn challenge(&self, headers: &mut HeaderMap) {
        if let header::Entry::Occupied(mut challenges) = headers.entry(header::WWW_AUTHENTICATE) {
            for challenge in challenges.iter_mut() {
                let rewritten = challenge.to_str().ok().map(|text| self.rewritten(text));
                if let Some(rewritten) = rewritten.and_then(|text| HeaderValue::try_from(text).ok()) {
                    *challenge = rewritten;
                }
            }
        }
    }
}

/// What the server says of its OAuth.
pub(super) async fn metadata(exchange: Exchange, request: Request<Incoming>) -> Response<Body> {
    let (head, _) = request.into_parts();
    let settings = &exchange.upstream.settings;
    let rewriting = Rewriting::of(&exchange, &head.headers, &head.uri);
    let Some(uri) = their_uri(head.uri.path(), settings) else {
        return body::text(StatusCode::NOT_FOUND, "no such path");
    };
    let mut onward = Request::new(Full::default());
    *onward.uri_mut() = uri;
    *onward.headers_mut() =
        headers::for_upstream(head.headers, settings, &exchange.routes.agents, &exchange.principal);
    // Whoever asks for a description has no token yet; ours is not for strangers.
    for (name, _) in &settings.headers {
        onward.headers_mut().remove(name);
    }
    let Ok(response) = exchange.send(onward).await else {
        return body::text(StatusCode::BAD_GATEWAY, "the server cannot be reached");
    };
    let (mut head, mut from_server) = response.into_parts();
    if head.status.is_redirection() {
        return body::text(
            StatusCode::BAD_GATEWAY,
            "the server answered with a redirect, which is not followed",
        );
    }
    headers::for_client(&mut head.headers);
    let Some(rewriting) = rewriting.filter(|_| head.status.is_success()) else {
        return Response::from_parts(head, Body::Upstream(from_server));
    };
    let mut collected = BytesMut::new();
    while let Some(chunk) = std::future::poll_fn(|cx| from_server.poll_chunk(cx)).await {
        match chunk {
            Ok(chunk) if collected.len() + chunk.len() <= DESCRIPTION_BYTES_MAX => {
                collected.extend_from_slice(&chunk)
            }
            _ => {
                return body::text(
                    StatusCode::BAD_GATEWAY,
                    "the server's description is broken or over the limit",
                );
            }
        }
    }
    head.headers.remove(header::CONTENT_LENGTH);
    let text = String::from_utf8_lossy(&collected);
    Response::from_parts(head, Body::Ready(Bytes::from(resource_rewritten(&text, &rewriting))))
}

/// The description with our URL as its `resource`, and nothing else changed: authorization servers keep theirs.
fn resource_rewritten(text: &str, rewriting: &Rewriting) -> String {
    let Ok(mut description) = serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(text) else {
        return text.to_owned();
    };
    let Some(serde_json::Value::String(resource)) = description.get_mut("resource") else {
        return text.to_owned();
    };
    *resource = rewriting.rewritten(resource);
    serde_json::to_string(&description).unwrap_or_else(|_| text.to_owned())
}

/// Where the server has the description that is asked for at `path` of ours.
fn their_uri(path: &str, settings: &UpstreamSettings) -> Option<http::Uri> {
    let begin = DESCRIPTIONS.iter().find(|begin| path.starts_with(**begin))?;
    let endpoint = if path.len() > begin.len() { settings.target.uri.path() } else { "" };
    // The endpoint of a server at its root has no path of its own here.
    format!("{begin}{}", endpoint.trim_end_matches('/')).parse().ok()
}
