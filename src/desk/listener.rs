//! The desk's own listener: HTTP/1.1, plain or with TLS, with limits on everything that a peer can leave open.
//!
//! Knows nothing of what is served. Where certificates are asked for, every request says whom its connection's one names.

use std::{io, sync::Arc, time::Duration};

use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::{GracefulShutdown, Watcher},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};

use super::{address::Address, guard::Certified};
use crate::transport::http::tls::{ServerTls, Stream};

/// Connections at the same time; further ones wait to be accepted.
const CONNECTIONS_MAX: usize = 512;

/// How long the head of a request may take, and the greeting of TLS.
const HEAD: Duration = Duration::from_secs(10);

/// Header fields of a request.
const HEADER_FIELDS_MAX: usize = 64;

/// The longest head of a request, in bytes.
const HEAD_BYTES_MAX: usize = 32 << 10;

/// How long the end waits for answers that are on their way.
const LAST_ANSWERS: Duration = Duration::from_millis(300);

/// Listens at `address`, and puts the port into it that the system chose.
pub(super) async fn bind(address: &mut Address) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address.listen).await?;
    address.listens_on(listener.local_addr()?);
    Ok(listener)
}

/// Serves until `stopped` is ready.
pub(super) async fn serve(
    listener: TcpListener,
    tls: Option<Arc<ServerTls>>,
    router: Router,
    stopped: impl Future<Output = ()>,
) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let graceful = GracefulShutdown::new();
    tokio::pin!(stopped);
    loop {
        let accepted = async {
            // The semaphore is never closed.
            let permit = Arc::clone(&room).acquire_owned().await.ok();
            (permit, listener.accept().await)
        };
        let (permit, connection) = tokio::select! {
            () = &mut stopped => break,
            accepted = accepted => accepted,
        };
        let stream = match connection {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection to the desk was not accepted");
                // Out of file descriptors, most likely: not in a loop that takes the whole processor.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (tls, router, watcher) = (tls.clone(), router.clone(), graceful.watcher());
        tokio::spawn(async move {
            serve_one(stream, tls.as_deref(), router, watcher).await;
            drop(permit);
        });
    }
    drop(listener);
    let _ = tokio::time::timeout(LAST_ANSWERS, graceful.shutdown()).await;
}

/// Serves one connection to its end.
async fn serve_one(stream: TcpStream, tls: Option<&ServerTls>, router: Router, watcher: Watcher) {
    // Small answers and single events: none waits for the next.
    let _ = stream.set_nodelay(true);
    let connection = match tls {
        None => http(Stream::Plain(stream), router),
        Some(tls) => match tokio::time::timeout(HEAD, tls.accept(stream)).await {
            Ok(Ok((stream, shown))) => {
                let router = match shown.map(|certificate| certificate.person()) {
                    None => router,
                    Some(Some(identity)) => router.layer(Extension(Certified(identity.into()))),
                    Some(None) => {
                        tracing::warn!(
                            "a connection was closed: its certificate names nobody who could be in a policy"
                        );
                        return;
                    }
                };
                http(Stream::Tls(Box::new(stream)), router)
            }
            Ok(Err(error)) => {
                tracing::debug!(%error, "a connection to the desk did not begin");
                return;
            }
            Err(_) => return,
        },
    };
    if let Err(error) = watcher.watch(connection).await {
        tracing::debug!(%error, "a connection to the desk broke");
    }
}

/// HTTP on one connection.
fn http(stream: Stream, router: Router) -> http1::Connection<TokioIo<Stream>, TowerToHyperService<Router>> {
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_headers(HEADER_FIELDS_MAX)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
}
