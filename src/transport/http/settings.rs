//! What a proxy is told by its configuration, read and checked.
//!
//! Made by `config`; nothing here reads a file.

use std::{sync::Arc, time::Duration};

use http::{HeaderName, HeaderValue};

use super::tls::ClientTls;

/// What bounds a proxy.
#[derive(Clone, Copy, Debug)]
pub struct HttpLimits {
    /// The longest body of a client's request, in bytes.
    pub client_frame_bytes_max: usize,
    /// The longest message or event of a server that is looked into, in bytes.
    pub server_frame_bytes_max: usize,
    /// Connections of clients at the same time.
    pub connections_max: usize,
    /// How long a held call waits before the head of its answer is sent, so that what is decided at once leaves no trace.
    pub head_after: Duration,
    /// How often a client hears that its call still waits.
    pub keepalive_every: Duration,
}

impl Default for HttpLimits {
    /// 16 MiB from clients, 64 MiB from servers, 20,000 connections; a second of grace; word every 10 s.
    fn default() -> Self {
        Self {
            client_frame_bytes_max: 16 << 20,
            server_frame_bytes_max: 64 << 20,
            connections_max: 20_000,
            head_after: Duration::from_secs(1),
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
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Whether the client's own `Authorization` goes on to it.
    pub passes_authorization: bool,
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
    /// What bounds it.
    pub limits: HttpLimits,
}
