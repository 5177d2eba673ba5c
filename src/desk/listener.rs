//! The desk's own listener: HTTP/1.1 with limits on everything that a peer can leave open.
//!
//! Knows nothing of what is served.

use std::{io, sync::Arc, time::Duration};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};

use super::address::Address;

/// Connections at the same time; further ones wait to be accepted.
const CONNECTIONS_MAX: usize = 512;

/// How long the head of a request may take.
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
pub(super) async fn serve(listener: TcpListener, router: Router, stopped: impl Future<Output = ()>) {
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
        let connection = graceful.watch(http(stream, router.clone()));
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection to the desk broke");
            }
            drop(permit);
        });
    }
    drop(listener);
    let _ = tokio::time::timeout(LAST_ANSWERS, graceful.shutdown()).await;
}

/// HTTP on one connection.
fn http(
    stream: TcpStream,
    router: Router,
) -> http1::Connection<TokioIo<TcpStream>, TowerToHyperService<Router>> {
    // Small answers and single events: none waits for the next.
    let _ = stream.set_nodelay(true);
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_headers(HEADER_FIELDS_MAX)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
}
