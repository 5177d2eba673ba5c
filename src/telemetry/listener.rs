//! The listener of `/metrics`, `/healthz` and `/readyz`: HTTP/1.1 for a scraper and for whoever restarts processes.
//!
//! Started by `cli` where somebody asked for it, and apart from every other listener: no agent reaches it. It answers GET and HEAD
//! and takes no body; pages of a browser get nothing.

use std::{convert::Infallible, io, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{net::TcpListener, sync::Semaphore, time::timeout};
use tokio_util::task::AbortOnDropHandle;

use super::{
    collect::Subject,
    exposition::{self, Format},
};
use crate::config::TelemetryAddress;

/// Connections at the same time; further ones wait to be accepted.
const CONNECTIONS_MAX: usize = 16;

/// How long the head of a request may take.
const HEAD: Duration = Duration::from_secs(5);

/// How long a connection may stay: a scraper that goes on comes back.
const CONNECTION: Duration = Duration::from_secs(120);

/// Header fields of a request.
const HEADER_FIELDS_MAX: usize = 64;

/// The longest head of a request, in bytes.
const HEAD_BYTES_MAX: usize = 16 << 10;

/// A listener that serves until it is dropped.
#[derive(Debug)]
#[must_use = "dropping it ends the listener"]
pub struct Listener {
    address: SocketAddr,
    _serving: AbortOnDropHandle<()>,
}

impl Listener {
    /// Shows `subject` at `address`.
    ///
    /// # Errors
    ///
    /// When the address cannot be had.
    pub async fn start(address: TelemetryAddress, subject: Arc<Subject>) -> io::Result<Self> {
        let listener = TcpListener::bind(address.listen).await?;
        let bound = listener.local_addr()?;
        let serving = tokio::spawn(serve(listener, Arc::new(address), subject));
        Ok(Self { address: bound, _serving: AbortOnDropHandle::new(serving) })
    }

    /// Where it listens, with the port that the system chose.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

async fn serve(listener: TcpListener, address: Arc<TelemetryAddress>, subject: Arc<Subject>) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        // The semaphore is never closed.
        let permit = Arc::clone(&room).acquire_owned().await.ok();
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection for numbers was not accepted");
                // Out of file descriptors, most likely: not in a loop that takes the whole processor.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (address, subject) = (Arc::clone(&address), Arc::clone(&subject));
        tokio::spawn(async move {
            let service = service_fn(|request: Request<Incoming>| {
                let (address, subject) = (Arc::clone(&address), Arc::clone(&subject));
                async move { Ok::<_, Infallible>(answer(&address, &subject, &request).await) }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD)
                .max_headers(HEADER_FIELDS_MAX)
                .max_buf_size(HEAD_BYTES_MAX)
                .serve_connection(TokioIo::new(stream), service);
            if let Ok(Err(error)) = timeout(CONNECTION, connection).await {
                tracing::debug!(%error, "a connection for numbers broke");
            }
            drop(permit);
        });
    }
}

async fn answer<B>(
    address: &TelemetryAddress,
    subject: &Subject,
    request: &Request<B>,
) -> Response<Full<Bytes>> {
    if let Err((status, text)) = check(address, request) {
        return response(status, PLAIN, format!("{text}\n"));
    }
    let mut response = match request.uri().path() {
        "/healthz" => response(StatusCode::OK, PLAIN, "ok\n".to_owned()),
        "/readyz" => {
            let readiness = subject.readiness().await;
            let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
            response(status, "application/json", serde_json::to_string(&readiness).unwrap_or_default())
        }
        "/metrics" => {
            let accept = request.headers().get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
            let format = Format::wanted(accept);
            let text = exposition::write(&subject.families().await, format);
            response(StatusCode::OK, format.content_type(), text)
        }
        _ => response(StatusCode::NOT_FOUND, PLAIN, "there is /metrics, /healthz and /readyz\n".to_owned()),
    };
    if request.method() == Method::HEAD {
        *response.body_mut() = Full::default();
    }
    response
}

/// The type of a few words.
const PLAIN: &str = "text/plain; charset=utf-8";

fn response(status: StatusCode, kind: &'static str, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// Whether a request means this listener, and comes from no page.
fn check<B>(address: &TelemetryAddress, request: &Request<B>) -> Result<(), (StatusCode, &'static str)> {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let (host, more) = (hosts.next().and_then(|host| host.to_str().ok()), hosts.next());
    if more.is_some()
        || request.uri().authority().is_some()
        || !host.is_some_and(|host| address.is_called(host))
    {
        return Err((StatusCode::MISDIRECTED_REQUEST, "this host name is not served here"));
    }
    if is_of_a_page(request.headers()) {
        return Err((StatusCode::FORBIDDEN, "this is not for pages"));
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return Err((StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD"));
    }
    Ok(())
}

/// A person may look in a browser; what a page asks for is refused.
fn is_of_a_page(headers: &HeaderMap) -> bool {
    let site = headers.get("sec-fetch-site").map(HeaderValue::as_bytes);
    headers.contains_key(header::ORIGIN) || site.is_some_and(|site| site != b"none")
}
