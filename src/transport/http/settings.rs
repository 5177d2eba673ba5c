//! What a proxy is told by its configuration, read and checked.
//!
//! Made by `config`; nothing here reads a file.

use std::{collections::HashMap, sync::Arc, time::Duration};

use http::{HeaderName, HeaderValue};

use super::{
    identity::AgentSettings,
    tls::{ClientTls, ServerTls},
};

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
    /// Bytes that the frames of these calls may take together.
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
    pub uri: http::Uri,
    /// How TLS is spoken, if it is.
    pub tls: Option<ClientTls>,
}

/// One server behind the proxy.
#[derive(Clone)]
pub struct UpstreamSettings {
    /// Its name in rules, lists and the record.
    pub name: Arc<str>,
    /// The path at which clients reach it, compared exactly.
    pub path: String,
    /// Where it is.
    pub target: Target,
    /// Headers that every request to it gets.
    pub headers: Headers,
    /// Headers that the requests of one agent get, by its name; they come after the others and replace them.
    pub headers_of: HashMap<String, Headers>,
    /// What becomes of the OAuth of client and server.
    pub oauth: OAuth,
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
    /// The servers.
    pub upstreams: Vec<UpstreamSettings>,
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
