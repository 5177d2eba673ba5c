//! What a proxy is told by its configuration, read and checked.
//!
//! Made by `config`; nothing here reads a file.

use std::{collections::HashMap, path::Path, sync::Arc, time::Duration};

use http::{HeaderName, HeaderValue, Uri, uri::PathAndQuery};
use rustls::pki_types::ServerName;

use super::{
    identity::AgentSettings,
    lines::CommandSettings,
    tls::{ClientTls, ServerTls},
};
use crate::waiting::Wait;

/// What bounds a proxy.
#[derive(Clone, Copy, Debug)]
pub struct HttpLimits {
    /// The longest body of a client's request, in bytes.
    pub client_frame_bytes_max: usize,
    /// The longest message or event of a server that is looked into, in bytes.
    pub server_frame_bytes_max: usize,
    /// Connections of clients at the same time.
    pub connections_max: usize,
    /// Calls of one principal that may wait at the same time.
    pub held_per_principal_max: usize,
    /// Bytes that the frames and heads of these calls may take together.
    pub held_bytes_per_principal_max: usize,
    /// Streams of one principal that stay open: GET, and subscriptions.
    pub streams_per_principal_max: usize,
    /// How long a held call waits before the head of its answer is sent, so that what is decided at once leaves no trace.
    pub head_after: Duration,
    /// How often a client hears that its call still waits.
    pub keepalive_every: Duration,
}

impl Default for HttpLimits {
    /// 16 MiB from clients, 64 MiB from servers, 20,000 connections; 10,000 held calls of 64 MiB and 1,000 streams of one
    /// principal; two seconds of grace; word every 10 s.
    fn default() -> Self {
        Self {
            client_frame_bytes_max: 16 << 20,
            server_frame_bytes_max: 64 << 20,
            connections_max: 20_000,
            held_per_principal_max: 10_000,
            held_bytes_per_principal_max: 64 << 20,
            streams_per_principal_max: 1_000,
            head_after: Duration::from_secs(2),
            keepalive_every: Duration::from_secs(10),
        }
    }
}

impl HttpLimits {
    /// Bytes that bodies of one principal may have together while they are still coming: as many as its held calls may, and the longest
    /// body in any case.
    pub fn coming_bytes_per_principal_max(&self) -> usize {
        self.held_bytes_per_principal_max.max(self.client_frame_bytes_max)
    }
}

/// Where a server is.
#[derive(Clone)]
pub struct Target {
    /// The name or address to connect to.
    pub host: String,
    /// The port.
    pub port: u16,
    /// What it is called in the `Host` header.
    pub authority: HeaderValue,
    /// Path and query of its endpoint, as they are asked for.
    pub uri: Uri,
    /// How TLS is spoken, if it is.
    pub tls: Option<ClientTls>,
}

impl Target {
    /// The server at `url`. With TLS, what is in `roots` vouches for it, or what this system trusts.
    ///
    /// # Errors
    ///
    /// In words, when the URL or the roots cannot be used.
    pub fn parse(url: &str, roots: Option<&Path>) -> Result<Self, String> {
        let uri: Uri = url.parse().map_err(|_| "this is not a URL".to_owned())?;
        let authority = uri.authority().filter(|authority| !authority.as_str().contains('@'));
        let authority = authority.ok_or("this URL names no host, or a user")?;
        let host = authority.host().trim_matches(['[', ']']).to_owned();
        let tls = match uri.scheme_str() {
            Some("http") => None,
            Some("https") => {
                let name = ServerName::try_from(host.clone()).map_err(|error| error.to_string())?;
                Some(ClientTls::new(name, roots).map_err(|error| error.to_string())?)
            }
            _ => return Err("this is not an http or https URL".to_owned()),
        };
        let path = uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
        Ok(Self {
            port: authority.port_u16().unwrap_or(if tls.is_some() { 443 } else { 80 }),
            authority: HeaderValue::try_from(authority.as_str()).map_err(|error| error.to_string())?,
            host,
            uri: path.into(),
            tls,
        })
    }
}

/// One server behind the proxy.
#[derive(Clone)]
pub struct UpstreamSettings {
    /// Its name in rules, lists and the record.
    pub name: Arc<str>,
    /// The path at which clients reach it, compared exactly.
    pub path: String,
    /// The only name, in lower case, by which clients call this proxy to reach it; none: by any.
    pub host: Option<String>,
    /// Where it is.
    pub target: Target,
    /// Headers that every request to it gets.
    pub headers: Headers,
    /// Headers that the requests of one agent get, by its name; they come after the others and replace them.
    pub headers_of: HashMap<String, Headers>,
    /// What becomes of the OAuth of client and server.
    pub oauth: OAuth,
    /// How long clients are kept waiting for people, where an operator has set it.
    pub wait: Option<Wait>,
}

/// Headers that are set on the way.
pub type Headers = Vec<(HeaderName, HeaderValue)>;

/// What becomes of the OAuth of client and server (MCP, "Authorization").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OAuth {
    /// The client's `Authorization` ends here.
    Off,
    /// It goes on, and the server's metadata come back as they are: for a proxy that clients reach under the server's own URL.
    Pass,
    /// It goes on, and where the metadata name the server they are made to name the proxy: for servers that do not look whom a token
    /// was issued for.
    Rewrite,
}

/// All that a proxy is told.
#[derive(Clone)]
pub struct HttpSettings {
    /// The servers on HTTP.
    pub upstreams: Vec<UpstreamSettings>,
    /// The servers that are started here and speak stdio.
    pub commands: Vec<CommandSettings>,
    /// The names by which clients may call this proxy, in lower case and without a port.
    pub hosts: Vec<String>,
    /// Origins of web pages that may speak to it, besides its own.
    pub origins: Vec<String>,
    /// How agents show who they are.
    pub agents: AgentSettings,
    /// What the listener shows, if it speaks TLS.
    pub tls: Option<Arc<ServerTls>>,
    /// What bounds it.
    pub limits: HttpLimits,
}
