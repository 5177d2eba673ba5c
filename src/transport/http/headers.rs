//! Which headers go through, and whether those that mirror a message agree with it.
//!
//! Used by `post`, `held` and `stream`. Only what is meant for the other end passes; a client can neither strip headers by naming them
//! in `Connection` nor add ones that name a proxy in front of it or that only the configuration has to give.

use base64::prelude::{BASE64_STANDARD, Engine as _};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};

use super::{
    Exchange,
    body::{self, Body},
    settings::OAuth,
};
use crate::{
    gate::{Arrival, ListedTools, Refusal},
    jsonrpc::{ErrorCode, Frame, Kind, scan},
    mcp::{self, ToolCall, method},
    principal::Principal,
};

/// The revision that a request speaks (2025-06-18 and later).
pub(super) const PROTOCOL_VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
/// The session (2025-03-26 to 2025-11-25).
pub(super) const SESSION_ID: HeaderName = HeaderName::from_static("mcp-session-id");
/// The message's method (2026-07-28).
const METHOD: HeaderName = HeaderName::from_static("mcp-method");
/// What the message is about (2026-07-28).
const NAME: HeaderName = HeaderName::from_static("mcp-name");

/// What a browser says of the page that asks (Fetch Metadata).
pub(super) const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
/// Where a request stands in a trace (W3C Trace Context), and what vendors add to that.
const TRACE_PARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACE_STATE: HeaderName = HeaderName::from_static("tracestate");

/// The first revision without sessions.
const FIRST_MODERN: &str = "2026-07-28";

/// A header that carries an encoded value begins and ends so (MCP 2026-07-28, "Streamable HTTP").
const ENCODED: (&str, &str) = ("=?base64?", "?=");

/// Whether `name` stays on the client's side.
fn stays_here(name: &HeaderName, passes_authorization: bool) -> bool {
    match *name {
        header::CONNECTION
        | header::TE
        | header::TRAILER
        | header::TRANSFER_ENCODING
        | header::UPGRADE
        | header::EXPECT
        | header::CONTENT_LENGTH
        | header::ACCEPT_ENCODING
        | header::ORIGIN
        | header::FORWARDED
        | header::VIA
        | header::PROXY_AUTHORIZATION => true,
        header::AUTHORIZATION => !passes_authorization,
        _ => is_of_a_proxy(name.as_str()) || is_nearly_of_mcp(name.as_str()),
    }
}

/// Whether a server may take a header called `name` for the one called `known`: some see no difference between `_` and `-` (RFC 3875
/// §4.1.18, and what has come of it). Both are in lower case.
pub(super) fn reads_as(name: &str, known: &str) -> bool {
    let dashed = |byte: u8| if byte == b'_' { b'-' } else { byte };
    name.len() == known.len() && name.bytes().map(dashed).eq(known.bytes().map(dashed))
}

/// Names that some servers take for those of a session, a revision or a message, which are looked at here.
fn is_nearly_of_mcp(name: &str) -> bool {
    name.starts_with("mcp")
        && name.contains('_')
        && [PROTOCOL_VERSION, SESSION_ID, METHOD, NAME].iter().any(|known| reads_as(name, known.as_str()))
}

/// Makes the head of a request say that its message is `method` about `name`.
pub(super) fn say_about(headers: &mut HeaderMap, method: &'static str, name: &str) {
    headers.insert(METHOD, HeaderValue::from_static(method));
    let encoded = || format!("{}{}{}", ENCODED.0, BASE64_STANDARD.encode(name), ENCODED.1);
    let is_plain =
        !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic()) && !name.starts_with(ENCODED.0);
    let value = if is_plain { name.to_owned() } else { encoded() };
    if let Ok(value) = HeaderValue::try_from(value) {
        headers.insert(NAME, value);
    }
}

/// What a request's headers say of where it belongs.
pub(super) fn arrival(headers: &HeaderMap) -> Arrival<'_> {
    let text = |name: &HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    Arrival {
        is_http: true,
        traceparent: text(&TRACE_PARENT),
        tracestate: text(&TRACE_STATE),
        session: text(&SESSION_ID),
    }
}

/// Names that say something of the way instead of the message.
fn is_of_a_proxy(name: &str) -> bool {
    const FORWARDED: &str = "x-forwarded-";
    matches!(name, "keep-alive" | "proxy-connection")
        || reads_as(name, "x-real-ip")
        || name.get(..FORWARDED.len()).is_some_and(|begin| reads_as(begin, FORWARDED))
}

/// The headers of a client's request as the server gets them. What is given by the configuration, be it to others, is never a client's.
pub(super) fn for_upstream(exchange: &Exchange, mut headers: HeaderMap) -> HeaderMap {
    let (upstream, agents) = (&exchange.upstream, &exchange.routes.agents);
    let settings = &upstream.settings;
    let passes_authorization = settings.oauth != OAuth::Off;
    remove(&mut headers, |name| {
        stays_here(name, passes_authorization) || agents.is_shown_in(name) || upstream.is_given_here(name)
    });
    headers.insert(header::HOST, settings.target.authority.clone());
    let of_agent = match &*exchange.principal {
        Principal::Agent { name } => settings.headers_of.get(name),
        _ => None,
    };
    for (name, value) in settings.headers.iter().chain(of_agent.into_iter().flatten()) {
        headers.insert(name, value.clone());
    }
    headers
}

/// Takes out what mirrors single arguments (MCP 2026-07-28, `x-mcp-header`), for a call whose arguments are not the client's any
/// more: which header stands for which is not known here, and a server must not read one thing and whoever is before it another.
pub(super) fn drop_mirrored_arguments(headers: &mut HeaderMap) {
    remove(headers, |name| name.as_str().starts_with(mcp::MIRROR_PREFIX));
}

/// The headers of a server's response as the client gets them.
pub(super) fn for_client(headers: &mut HeaderMap) {
    remove(headers, |name| match *name {
        header::CONNECTION | header::TRAILER | header::TRANSFER_ENCODING | header::UPGRADE => true,
        _ => matches!(name.as_str(), "keep-alive" | "proxy-connection"),
    });
}

fn remove(headers: &mut HeaderMap, goes: impl Fn(&HeaderName) -> bool) {
    while let Some(name) = headers.keys().find(|name| goes(name)).cloned() {
        headers.remove(name);
    }
}

/// The one value of `name` as text. `Err` if it is there twice or is not plain text.
pub(super) fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, ()> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => value.to_str().map(Some).map_err(drop),
        (Some(_), Some(_)) => Err(()),
    }
}

/// Whether a protocol version is one of the era without sessions.
pub(super) fn is_modern(version: Option<&str>) -> bool {
    version.is_some_and(|version| is_date(version) && version >= FIRST_MODERN)
}

/// Whether `version` has the form that revisions have.
fn is_date(version: &str) -> bool {
    let form =
        |(at, byte): (usize, u8)| if at == 4 || at == 7 { byte == b'-' } else { byte.is_ascii_digit() };
    version.len() == FIRST_MODERN.len() && version.bytes().enumerate().all(form)
}

/// Whether the client takes `kind` as an answer (RFC 9110 §12.5.1, without weights: who lists it takes it).
pub(super) fn accepts(headers: &HeaderMap, kind: &str) -> bool {
    headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()).any(|value| {
        value.split(',').any(|range| {
            let range = range.split(';').next().unwrap_or_default().trim();
            let (wanted, _) = kind.split_once('/').unwrap_or_default();
            range.eq_ignore_ascii_case(kind)
                || range == "*/*"
                || range.strip_suffix("/*").is_some_and(|family| family.eq_ignore_ascii_case(wanted))
        })
    })
}

/// Whether `value` is the type `kind`, whatever its parameters.
pub(super) fn is_type(value: Option<&HeaderValue>, kind: &str) -> bool {
    let value = value.and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case(kind)
}

/// A message and its headers do not go together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mismatch {
    /// What the client is told.
    pub(super) code: ErrorCode,
    /// What does not fit.
    pub(super) text: &'static str,
}

impl Mismatch {
    /// A header says something else than the message. The code is the one that MCP 2026-07-28 has for it.
    const fn of(text: &'static str) -> Self {
        Self { code: ErrorCode(-32020), text }
    }

    /// What the client of `frame` hears.
    pub(super) fn into_response(self, frame: &Frame) -> Response<Body> {
        let id = frame.id().filter(|_| frame.kind() == Kind::Request).cloned();
        body::refusal(StatusCode::BAD_REQUEST, &Refusal::invalid(id, self.code, self.text))
    }
}

/// Whether `frame` is of the era without sessions. Whatever says of itself which revision it is has its headers compared with it; one
/// that names a revision with sessions, as no client has to, is in one like any other.
///
/// # Errors
///
/// When a header is missing, there twice, or says something else than the message: whoever reads the one would not know the other.
pub(super) fn agree(headers: &HeaderMap, frame: &Frame) -> Result<bool, Mismatch> {
    let header = single(headers, &PROTOCOL_VERSION)
        .map_err(|()| Mismatch::of("the header MCP-Protocol-Version is there twice or not plain text"))?;
    let method = frame.method().unwrap_or_default();
    let Some(declared) = mcp::declared_version(frame) else {
        return match (is_modern(header), frame.kind()) {
            (true, Kind::Request) => {
                let text =
                    "`params._meta` does not name the protocol version, as requests of this revision have to";
                Err(Mismatch { code: ErrorCode::INVALID_PARAMS, text })
            }
            (true, Kind::Notification) => match single(headers, &METHOD) {
                Ok(said) if said.is_none_or(|said| said == method) => Ok(true),
                _ => {
                    Err(Mismatch::of("the header Mcp-Method is there twice or not the method of the message"))
                }
            },
            (modern, _) => Ok(modern),
        };
    };
    if header != Some(&*declared) {
        return Err(Mismatch::of("the header MCP-Protocol-Version is not the version in the message"));
    }
    match single(headers, &METHOD) {
        Ok(Some(value)) if value == method => {}
        _ => return Err(Mismatch::of("the header Mcp-Method is missing or not the method of the message")),
    }
    let modern = is_modern(Some(&declared));
    let key = match method {
        method::TOOLS_CALL | "prompts/get" => "name",
        "resources/read" => "uri",
        _ => return Ok(modern),
    };
    let params = frame.params().unwrap_or("{}");
    let Some(target) = scan::members(params).find(|(name, _)| name == key).map(|(_, value)| value) else {
        return Ok(modern);
    };
    let matches = match single(headers, &NAME) {
        Ok(Some(value)) => decoded(value).is_some_and(|value| value == scan::unescape(target)),
        _ => false,
    };
    if matches {
        Ok(modern)
    } else {
        Err(Mismatch::of("the header Mcp-Name is missing or not what the message names"))
    }
}

/// Whether what the headers repeat of single arguments, as the tool's definition in `tools` has it, is what a call says.
///
/// # Errors
///
/// When a header is there twice, is not well encoded, or says something else.
pub(super) fn arguments_agree(
    headers: &HeaderMap,
    tools: &ListedTools,
    call: &Frame,
) -> Result<(), Mismatch> {
    const OTHER: Mismatch = Mismatch::of("a header Mcp-Param-… is there twice or not what the arguments say");
    let has_any = headers.keys().any(|name| name.as_str().starts_with(mcp::MIRROR_PREFIX));
    if !has_any || call.method() != Some(method::TOOLS_CALL) {
        return Ok(());
    }
    // A call that is none is the gate's to refuse.
    let Ok(call) = ToolCall::parse(call) else { return Ok(()) };
    for mirrored in tools.mirrored(&call.name) {
        let Ok(name) = HeaderName::try_from(mirrored.header()) else { continue };
        let said = single(headers, &name).map_err(|()| OTHER)?;
        let Some(said) = said else { continue };
        if !decoded(said).is_some_and(|said| mirrored.agrees(call.arguments, &said)) {
            return Err(OTHER);
        }
    }
    Ok(())
}

/// The value behind a header's text. `None` if its encoding is broken.
fn decoded(value: &str) -> Option<String> {
    match value.strip_prefix(ENCODED.0).and_then(|rest| rest.strip_suffix(ENCODED.1)) {
        Some(encoded) => String::from_utf8(BASE64_STANDARD.decode(encoded).ok()?).ok(),
        None => Some(value.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    const CALL: &str = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"dänger","arguments":{},"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}}"#;

    fn agreed(headers: &[(&str, &str)]) -> Result<bool, Mismatch> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(
                HeaderName::from_bytes(name.as_bytes()).unwrap(),
                HeaderValue::from_str(value).unwrap(),
            );
        }
        agree(&map, &Frame::from_client(Bytes::from_static(CALL.as_bytes())).unwrap())
    }

    #[test]
    fn what_mirrors_a_message_has_to_agree_with_it() {
        let version = ("MCP-Protocol-Version", "2026-07-28");
        let method = ("Mcp-Method", "tools/call");
        // "dänger"
        let name = ("Mcp-Name", "=?base64?ZMOkbmdlcg==?=");
        assert_eq!(agreed(&[version, method, name]), Ok(true));
        for wrong in [
            &[version, method][..],
            &[version, name],
            &[method, name],
            &[("MCP-Protocol-Version", "2025-11-25"), method, name],
            &[version, ("Mcp-Method", "tools/list"), name],
            &[version, ("Mcp-Method", "Tools/Call"), name],
            &[version, method, ("Mcp-Name", "safe")],
            &[version, method, ("Mcp-Name", "=?BASE64?ZMOkbmdlcg==?=")],
            &[version, method, ("Mcp-Name", "=?base64?ZMOkbmdlcg?=")],
            &[version, method, ("Mcp-Name", "=?base64?ZMOkbmdlcg=?=")],
            &[version, method, ("Mcp-Name", "=?base64?ZMOkbmdlch==?=")],
            &[version, method, ("Mcp-Name", "=?base64?PT9iYXNlNjQ/Wk1Pa2JtZGxjZz09Pz0=?=")],
            &[version, method, name, name],
            &[version, version, method, name],
            &[version, method, method, name],
        ] {
            assert!(agreed(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn an_encoded_value_is_read_in_one_way_only() {
        let of = |encoded: &str| decoded(&format!("=?base64?{encoded}?="));
        assert_eq!(of("").as_deref(), Some(""));
        assert_eq!(of("Zg==").as_deref(), Some("f"));
        assert_eq!(of("Zm8=").as_deref(), Some("fo"));
        assert_eq!(of("Zm9v").as_deref(), Some("foo"));
        for broken in ["Z", "Zg", "Zg=", "Zh==", "Zm9=", "Zm9v=", "Zm 9", "Zg==Zg==", "====", "/w=="] {
            assert_eq!(of(broken), None, "{broken}");
        }
    }

    #[test]
    fn only_a_date_is_a_revision() {
        for (version, modern) in [
            ("2026-07-28", true),
            ("2027-01-01", true),
            ("2025-11-25", false),
            ("zzzz", false),
            ("9999-99", false),
            ("2026-07-28x", false),
        ] {
            assert_eq!(is_modern(Some(version)), modern, "{version}");
        }
        assert!(!is_modern(None));
    }

    #[test]
    fn a_request_of_the_era_without_sessions_has_to_say_so_itself() {
        let headers = HeaderMap::from_iter([(PROTOCOL_VERSION, HeaderValue::from_static("2026-07-28"))]);
        let frame = |text: &'static str| Frame::from_client(Bytes::from_static(text.as_bytes())).unwrap();
        let bare = frame(r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"x"}}"#);
        assert_eq!(agree(&headers, &bare).unwrap_err().code, ErrorCode::INVALID_PARAMS);
        let notification = frame(r#"{"jsonrpc":"2.0","method":"notifications/x"}"#);
        assert_eq!(agree(&headers, &notification), Ok(true));
        let with = |methods: &[&'static str]| {
            let mut headers = headers.clone();
            for method in methods {
                headers.append(METHOD, HeaderValue::from_static(method));
            }
            agree(&headers, &notification)
        };
        assert_eq!(with(&["notifications/x"]), Ok(true));
        for other in [&["ping"][..], &["Notifications/X"], &[""], &["notifications/x", "notifications/x"]] {
            assert_eq!(with(other).unwrap_err().code, ErrorCode(-32020), "{other:?}");
        }
    }

    #[test]
    fn only_a_revision_without_sessions_takes_a_message_out_of_its_session() {
        for (version, modern) in
            [("2026-07-28", true), ("2027-01-01", true), ("2025-11-25", false), ("zzzz", false), ("", false)]
        {
            let text = CALL.replace("2026-07-28", version);
            let frame = Frame::from_client(Bytes::from(text)).unwrap();
            let headers = HeaderMap::from_iter([
                (PROTOCOL_VERSION, HeaderValue::from_static(version)),
                (METHOD, HeaderValue::from_static("tools/call")),
                (NAME, HeaderValue::from_static("=?base64?ZMOkbmdlcg==?=")),
            ]);
            assert_eq!(agree(&headers, &frame), Ok(modern), "{version}");
            let bare = HeaderMap::from_iter([(PROTOCOL_VERSION, HeaderValue::from_static(version))]);
            assert!(agree(&bare, &frame).is_err(), "{version}");
        }
    }

    #[test]
    fn what_some_servers_read_as_the_same_is_the_same() {
        assert!(reads_as("x_tenant", "x-tenant") && reads_as("x-tenant", "x_tenant"));
        assert!(!reads_as("x-tenants", "x-tenant") && !reads_as("xtenant", "x-tenant"));
        for goes in [
            "mcp_session_id",
            "mcp-session_id",
            "mcp_name",
            "x_forwarded_for",
            "x_forwarded-proto",
            "x_real-ip",
        ] {
            assert!(stays_here(&HeaderName::from_static(goes), true), "{goes}");
        }
        for passes in ["mcp-session-id", "mcp-name", "mcp-param-user_id", "x_own", "x_forwarded"] {
            assert!(!stays_here(&HeaderName::from_static(passes), true), "{passes}");
        }
    }

    #[test]
    fn who_lists_a_type_takes_it() {
        let accepts_events = |value: &'static str| {
            let headers = HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static(value))]);
            accepts(&headers, "text/event-stream")
        };
        assert!(accepts_events("application/json, text/event-stream"));
        assert!(accepts_events("Text/Event-Stream;q=0.5"));
        assert!(accepts_events("*/*"));
        assert!(accepts_events("text/*"));
        assert!(!accepts_events("application/json"));
        assert!(!accepts_events("text/event-stream-not"));
    }
}
