//! OAuth between client and server, through a proxy with another URL: what they say of themselves on the way.
//!
//! Used for servers whose configuration says `oauth: pass` or `oauth: rewrite` (MCP, "Authorization"; RFC 9728). It forwards, and where
//! it is told to it puts the proxy's own place for the server's. Where a challenge names a place of the server's own for its description,
//! that is passed on too. It never fetches by itself what a server points at, asks nobody but the server, and keeps no token.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

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

/// Places for its description that the challenges of one server may name; the oldest is forgotten first.
const NAMED_PLACES_MAX: usize = 8;

/// The longest of these, in bytes.
const NAMED_PLACE_BYTES_MAX: usize = 512;

/// Where challenges of one server say that its description is, besides the places that the standard knows.
#[derive(Default)]
pub(super) struct NamedPlaces(Mutex<VecDeque<Box<str>>>);

impl NamedPlaces {
    fn known(&self) -> MutexGuard<'_, VecDeque<Box<str>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has(&self, path: &str) -> bool {
        self.known().iter().any(|known| **known == *path)
    }

    fn learn(&self, path: &str) {
        let mut known = self.known();
        if known.iter().all(|known| **known != *path) {
            if known.len() == NAMED_PLACES_MAX {
                known.pop_front();
            }
            known.push_back(path.into());
        }
    }
}

/// The server that is described at `path`: the one whose endpoint follows, or, where none follows, the only one with OAuth; or else
/// the only one that has named this place.
pub(super) fn described_at(host: &str, path: &str, routes: &Routes) -> Option<usize> {
    let has_oauth = |at: &usize| routes.upstreams[*at].settings.oauth != OAuth::Off;
    let is_here =
        |at: &usize| routes.find(host, &routes.upstreams[*at].settings.path) == Some(Behind::Http(*at));
    let mut with_oauth = (0..routes.upstreams.len()).filter(has_oauth).filter(is_here);
    let Some(endpoint) = DESCRIPTIONS.iter().find_map(|begin| path.strip_prefix(begin)) else {
        let mut named = with_oauth.filter(|at| routes.upstreams[*at].named_places.has(path));
        return named.next().filter(|_| named.next().is_none());
    };
    if !endpoint.is_empty() {
        let Some(Behind::Http(at)) = routes.find(host, endpoint) else { return None };
        return Some(at).filter(has_oauth);
    }
    with_oauth.next().filter(|_| with_oauth.next().is_none())
}

/// The path in `challenge` (RFC 9728 §5.1) at which its server has its description, if it is at one of these `authorities` and nothing
/// but a plain path.
fn place_in(challenge: &str, authorities: [&str; 2]) -> Option<String> {
    const NAME: &str = "resource_metadata=";
    let at = challenge.to_ascii_lowercase().find(NAME)? + NAME.len();
    let value = challenge.get(at..)?;
    let url = match value.strip_prefix('"') {
        Some(quoted) => quoted.split_once('"')?.0,
        None => value.split([',', ' ']).next()?,
    };
    let url: http::Uri = url.parse().ok()?;
    let is_theirs =
        url.authority().is_some_and(|at| authorities.iter().any(|own| at.as_str().eq_ignore_ascii_case(own)));
    let path = url.path();
    let is_plain = path.len() <= NAMED_PLACE_BYTES_MAX
        && url.query().is_none()
        && path.split('/').skip(1).all(|part| !matches!(part, "" | "." | ".."))
        && path.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/-._~".contains(&byte));
    let is_known = DESCRIPTIONS.iter().any(|begin| path.starts_with(begin));
    (is_theirs && is_plain && !is_known).then(|| path.to_owned())
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

    /// Both without their schemes: something before us may speak TLS for us.
    fn authorities(&self) -> [&str; 2] {
        [&self.ours, &self.theirs].map(|place| place.split_once("://").map_or("", |(_, authority)| authority))
    }
}

/// The URLs of the endpoint on either side, for what a challenge or a description says of it.
pub(super) struct Login {
    places: Places,
    our_path: String,
    their_path: String,
    /// Whether ours is put in the place of theirs.
    is_rewritten: bool,
}

impl Login {
    /// What answers to this request may say of logins. `None` where there are none.
    pub(super) fn of(exchange: &Exchange, headers: &HeaderMap, uri: &http::Uri) -> Option<Self> {
        let settings = &exchange.upstream.settings;
        if settings.oauth == OAuth::Off {
            return None;
        }
        let places = Places::of(exchange, headers, uri)?;
        let their_path = settings.target.uri.path().to_owned();
        let is_rewritten = settings.oauth == OAuth::Rewrite;
        Some(Self { places, our_path: settings.path.clone(), their_path, is_rewritten })
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

    /// The server's challenge, so that its description is found here.
    pub(super) fn challenge(&self, named: &NamedPlaces, headers: &mut HeaderMap) {
        let header::Entry::Occupied(mut challenges) = headers.entry(header::WWW_AUTHENTICATE) else { return };
        for challenge in challenges.iter_mut() {
            let Ok(text) = challenge.to_str() else { continue };
            // A client that asks at the server's endpoint opens a stream, and is no place for anything else.
            if let Some(path) = place_in(text, self.places.authorities())
                && path != self.their_path
            {
                named.learn(&path);
            }
            if self.is_rewritten
                && let Ok(rewritten) = HeaderValue::try_from(self.rewritten(text))
            {
                *challenge = rewritten;
            }
        }
    }
}

/// What the server says of its OAuth.
pub(super) async fn metadata(exchange: Exchange, request: Request<Incoming>) -> Response<Body> {
    let (head, _) = request.into_parts();
    let settings = &exchange.upstream.settings;
    let login = Login::of(&exchange, &head.headers, &head.uri);
    let is_named = exchange.upstream.named_places.has(head.uri.path());
    let uri = if is_named { head.uri.path().parse().ok() } else { their_uri(head.uri.path(), settings) };
    let Some(uri) = uri else { return body::text(StatusCode::NOT_FOUND, "no such path") };
    let mut onward = Request::new(Full::default());
    *onward.uri_mut() = uri;
    *onward.headers_mut() = headers::for_upstream(&exchange, head.headers);
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
    let is_json = headers::is_type(head.headers.get(header::CONTENT_TYPE), "application/json");
    if is_named && head.status.is_success() && !is_json {
        // Whatever is there, a description it is not.
        return body::text(StatusCode::BAD_GATEWAY, "the server's description is no JSON");
    }
    let Some(login) = login.filter(|login| login.is_rewritten && head.status.is_success()) else {
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
    Response::from_parts(head, Body::Ready(Bytes::from(resource_rewritten(&text, &login))))
}

/// The description with our URL as its `resource`, and nothing else changed: authorization servers keep theirs.
fn resource_rewritten(text: &str, login: &Login) -> String {
    let Ok(mut description) = serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(text) else {
        return text.to_owned();
    };
    let Some(serde_json::Value::String(resource)) = description.get_mut("resource") else {
        return text.to_owned();
    };
    *resource = login.rewritten(resource);
    serde_json::to_string(&description).unwrap_or_else(|_| text.to_owned())
}

/// Where the server has the description that is asked for at `path` of ours.
fn their_uri(path: &str, settings: &UpstreamSettings) -> Option<http::Uri> {
    let begin = DESCRIPTIONS.iter().find(|begin| path.starts_with(**begin))?;
    let endpoint = if path.len() > begin.len() { settings.target.uri.path() } else { "" };
    // The endpoint of a server at its root has no path of its own here.
    format!("{begin}{}", endpoint.trim_end_matches('/')).parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_challenge_names_a_place_only_at_its_own_server_and_by_a_plain_path() {
        let place = |challenge: &str| place_in(challenge, ["mcp.example.com", "127.0.0.1:3000"]);
        for challenge in [
            r#"Bearer resource_metadata="https://mcp.example.com/custom/place.json""#,
            r#"Bearer error="invalid_token", Resource_Metadata="http://127.0.0.1:3000/custom/place.json", scope="a""#,
            "Bearer resource_metadata=http://MCP.example.com/custom/place.json, scope=a",
        ] {
            assert_eq!(place(challenge).as_deref(), Some("/custom/place.json"), "{challenge}");
        }
        for url in [
            "http://169.254.169.254/custom",
            "http://mcp.example.com.evil/custom",
            "http://mcp.example.com@evil/custom",
            "http://127.0.0.1:3001/custom",
            "/custom",
            "http://mcp.example.com/",
            "http://mcp.example.com//custom",
            "http://mcp.example.com/custom/../admin",
            "http://mcp.example.com/custom%2fplace",
            "http://mcp.example.com/custom?delete=1",
            "http://mcp.example.com/.well-known/oauth-protected-resource/mcp",
        ] {
            assert_eq!(place(&format!("Bearer resource_metadata=\"{url}\"")), None, "{url}");
        }
        assert_eq!(place("Bearer resource_metadata=\"http://mcp.example.com/open"), None);
    }

    #[test]
    fn so_many_places_are_remembered_and_the_newest_of_them() {
        let places = NamedPlaces::default();
        for number in 0..20 {
            places.learn(&format!("/place/{number}"));
            places.learn(&format!("/place/{number}"));
        }
        assert_eq!(places.known().len(), NAMED_PLACES_MAX);
        assert!(places.has("/place/19") && places.has("/place/12") && !places.has("/place/11"));
    }
}
