//! One POST over HTTP to a service: which addresses may be spoken to, TLS, bounds on all that can come back.
//!
//! Used by every channel that speaks HTTP, and for OTLP. Redirects are not followed: whatever answers with one has not taken the message. Each
//! request has a connection of its own, and the address that was checked is the one that is used.

use std::{
    fmt, io,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, lookup_host},
    time::timeout,
};
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;
use url::{Host, Url};

use super::NotSent;
use crate::transport::http::tls::ClientTls;

/// How long a service may take to be reached.
const CONNECT: Duration = Duration::from_secs(10);

/// How long it may take to answer.
const ANSWER: Duration = Duration::from_secs(15);

/// The longest answer that is read, in bytes.
const ANSWER_BYTES_MAX: usize = 256 << 10;

/// The longest pause that a service may ask for.
const PAUSE_MAX: Duration = Duration::from_secs(3600);

/// A service behind a URL.
pub(crate) struct Endpoint {
    url: Url,
    tls: Option<ClientTls>,
    roots: Option<PathBuf>,
    private_network: bool,
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The path of a webhook is a secret in many services.
        f.debug_struct("Endpoint").field("host", &self.url.host_str()).finish_non_exhaustive()
    }
}

/// What a service has answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Answer {
    /// Refuses everything but success. `is_final`: whether an answer of the 4xx kind will not change by itself.
    pub(super) fn check(&self, is_final: bool) -> Result<(), NotSent> {
        let status = self.status;
        let why = format!("it answered {status}");
        match status.as_u16() {
            200..=299 => Ok(()),
            300..=399 => Err(NotSent::Never(format!("{why}, and redirects are not followed"))),
            408 | 425 | 429 => Err(NotSent::Again { why, after: self.pause() }),
            410 => Err(NotSent::Never(why)),
            400..=499 if is_final => Err(NotSent::Never(why)),
            _ => Err(NotSent::Again { why, after: self.pause() }),
        }
    }

    /// How long it wants to be left alone (RFC 9110, section 10.2.3; in seconds).
    pub(crate) fn pause(&self) -> Option<Duration> {
        let seconds = self.headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
        Some(Duration::from_secs(seconds).min(PAUSE_MAX))
    }
}

impl Endpoint {
    /// The service at `url`, vouched for by the authorities in `roots` or those of the system. `private_network`: it is at an
    /// address that only this network knows, and may speak without encryption.
    ///
    /// # Errors
    ///
    /// What is wrong with it, in words.
    pub(crate) fn new(url: &str, roots: Option<&Path>, private_network: bool) -> Result<Self, String> {
        let url = Url::parse(url).map_err(|error| format!("this is not a URL: {error}"))?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err("a URL with a password in it ends up in logs".to_owned());
        }
        let name = match url.host() {
            Some(Host::Domain(name)) => ServerName::try_from(name.to_owned()).ok(),
            Some(Host::Ipv4(ip)) => Some(ServerName::from(IpAddr::V4(ip))),
            Some(Host::Ipv6(ip)) => Some(ServerName::from(IpAddr::V6(ip))),
            None => None,
        };
        let name = name.ok_or("there is no host in this URL")?;
        let tls = match url.scheme() {
            "https" => Some(ClientTls::new(name, roots).map_err(|error| error.to_string())?),
            "http" if private_network => None,
            "http" => return Err("http is not encrypted: only with `private_network: true`".to_owned()),
            _ => return Err("write an https URL".to_owned()),
        };
        Ok(Self { url, tls, roots: roots.map(Path::to_owned), private_network })
    }

    /// Posts `body` to the URL.
    ///
    /// # Errors
    ///
    /// When there is no answer.
    pub(crate) async fn post(
        &self,
        headers: &[(HeaderName, HeaderValue)],
        body: impl Into<Bytes>,
    ) -> Result<Answer, NotSent> {
        self.post_to("", headers, body.into()).await
    }

    /// Posts `body` to the path `below` the URL.
    ///
    /// # Errors
    ///
    /// When there is no answer.
    pub(super) async fn post_to(
        &self,
        below: &str,
        headers: &[(HeaderName, HeaderValue)],
        body: Bytes,
    ) -> Result<Answer, NotSent> {
        let mut request = Request::post(self.target(below)).body(Full::new(body)).map_err(NotSent::again)?;
        let host = self.authority().parse::<HeaderValue>().map_err(NotSent::again)?;
        request.headers_mut().insert(header::HOST, host);
        let agent = concat!("holdshort/", env!("CARGO_PKG_VERSION"));
        request.headers_mut().insert(header::USER_AGENT, HeaderValue::from_static(agent));
        for (name, value) in headers {
            request.headers_mut().insert(name, value.clone());
        }
        let stream = timeout(CONNECT, self.connect())
            .await
            .map_err(|_| NotSent::again("it cannot be reached: it took too long"))?
            .map_err(|error| NotSent::again(format!("it cannot be reached: {error}")))?;
        timeout(ANSWER, exchange(stream, request))
            .await
            .map_err(|_| NotSent::again("it did not answer in time"))?
            .map_err(|error| NotSent::again(format!("it did not answer: {error}")))
    }

    /// Another service in the same network, such as one that this one has named.
    ///
    /// # Errors
    ///
    /// What is wrong with the URL, in words.
    pub(super) fn beside(&self, url: &str) -> Result<Self, String> {
        Self::new(url, self.roots.as_deref(), self.private_network)
    }

    /// The host, with its port if that is not the usual one.
    pub(super) fn authority(&self) -> &str {
        self.url.authority()
    }

    /// What is asked for below the URL.
    pub(super) fn target(&self, below: &str) -> String {
        let own = self.url.path();
        let mut target = match below {
            "" => own.to_owned(),
            below => format!("{}{below}", own.trim_end_matches('/')),
        };
        if let Some(query) = self.url.query() {
            target.push('?');
            target.push_str(query);
        }
        target
    }

    pub(super) async fn connect(&self) -> io::Result<Box<dyn Stream>> {
        let host = self.url.host_str().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let port = self.url.port_or_known_default().unwrap_or(443);
        let stream = connect(&host, port, self.private_network).await?;
        Ok(match &self.tls {
            None => Box::new(stream),
            Some(tls) => {
                let connector = TlsConnector::from(std::sync::Arc::clone(&tls.config));
                Box::new(connector.connect(tls.name.clone(), stream).await?)
            }
        })
    }
}

/// A connection to `host`, at an address that may be spoken to. Looked up once: what was checked is what is used.
pub(super) async fn connect(host: &str, port: u16, private_network: bool) -> io::Result<TcpStream> {
    let found: Vec<SocketAddr> = lookup_host((host, port)).await?.collect();
    let mut last = io::Error::new(io::ErrorKind::NotFound, "its name has no address");
    for address in found {
        if !private_network && is_private(address.ip()) {
            let why = "its address belongs to a private network: only with `private_network: true`";
            last = io::Error::new(io::ErrorKind::PermissionDenied, why);
            continue;
        }
        match TcpStream::connect(address).await {
            Ok(stream) => {
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Both ways of a connection.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

async fn exchange(
    stream: Box<dyn Stream>,
    request: Request<Full<Bytes>>,
) -> Result<Answer, Box<dyn std::error::Error + Send + Sync>> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let _driver = AbortOnDropHandle::new(tokio::spawn(connection));
    let response = sender.send_request(request).await?;
    let (head, body) = response.into_parts();
    let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await?.to_bytes();
    Ok(Answer { status: head.status, headers: head.headers, body })
}

/// Whether an address is none of the public internet's (RFC 6890 and its successors, the blocks that software meets).
fn is_private(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => {
            let [a, b, c, _] = ip.octets();
            ip.is_private()
                || ip.is_loopback()
                || ip.is_link_local()
                || ip.is_multicast()
                || a == 0
                || a >= 240
                || (a == 100 && (64..128).contains(&b))
                || (a == 192 && b == 0 && c == 0)
                || (a == 198 && (18..20).contains(&b))
        }
        IpAddr::V6(ip) => {
            let [first, second, ..] = ip.segments();
            let embeds = |ip: [u8; 4]| is_private(IpAddr::from(ip));
            let [.., w, x, y, z] = ip.octets();
            ip.is_loopback()
                || ip.is_unspecified()
                || ip.is_multicast()
                || ip.is_unique_local()
                || ip.is_unicast_link_local()
                // Translated to IPv4 on the way (RFC 6052).
                || (first == 0x64 && second == 0xff9b && embeds([w, x, y, z]))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_private_networks_are_told_from_public_ones() {
        for private in [
            "127.0.0.1",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "0.0.0.0",
            "100.64.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::1",
            "::",
            "fe80::1",
            "fd00::1",
            "::ffff:127.0.0.1",
            "64:ff9b::10.0.0.1",
            "ff02::1",
        ] {
            assert!(is_private(private.parse().unwrap()), "{private}");
        }
        for public in ["1.1.1.1", "8.8.8.8", "172.32.0.1", "100.128.0.1", "2606:4700::1", "64:ff9b::1.1.1.1"]
        {
            assert!(!is_private(public.parse().unwrap()), "{public}");
        }
    }

    #[test]
    fn a_url_is_encrypted_unless_its_network_is_said_to_be_private() {
        assert!(Endpoint::new("https://hooks.example.com/x", None, false).is_ok());
        assert!(Endpoint::new("http://10.0.0.7/x", None, true).is_ok());
        for bad in
            ["http://hooks.example.com/x", "ftp://hooks.example.com", "hooks.example.com", "https://u:p@h/"]
        {
            assert!(Endpoint::new(bad, None, false).is_err(), "{bad}");
        }
    }

    #[tokio::test]
    async fn an_address_of_this_machine_is_not_spoken_to_however_it_is_written() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        for name in ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "[::ffff:127.0.0.1]"] {
            let endpoint = Endpoint::new(&format!("https://{name}:{port}/"), None, false).unwrap();
            let refused = endpoint.post(&[], "").await.unwrap_err().to_string();
            assert!(refused.contains("private_network"), "{name}: {refused}");
        }
    }
}
