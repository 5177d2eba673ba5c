//! The writing side of a socket to one peer, which is watched for room only while there is none.
//!
//! Used by `stdio` for the server's stdin and, where that is a socket, for this process's stdout. A socket tells whoever watches it of
//! each message that its peer has taken (`sock_wfree` in Linux), so one that is watched all the time wakes this process once more for
//! every call, when there is nothing to do.

use std::{
    io::{self, IoSlice, Write as _},
    mem,
    net::Shutdown,
    os::unix::net::UnixStream,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::{io::AsyncWrite, net::UnixStream as WatchedStream};

/// A connected socket that is only written to, without blocking.
pub(super) struct SocketWriter(Socket);

enum Socket {
    /// There was room for all that was written.
    Free(UnixStream),
    /// From a write that found no room until one that is taken whole.
    Watched(WatchedStream),
    /// It could not be watched, or not let go.
    Lost,
}

impl SocketWriter {
    /// Writes to `socket`.
    ///
    /// # Errors
    ///
    /// When the socket cannot be made non-blocking.
    pub(super) fn new(socket: UnixStream) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self(Socket::Free(socket)))
    }

    /// Writes some of `length` bytes: `at_once`, or `later` when there is room.
    fn poll_with(
        &mut self,
        cx: &mut Context<'_>,
        length: usize,
        at_once: impl Fn(&UnixStream) -> io::Result<usize>,
        later: impl Fn(Pin<&mut WatchedStream>, &mut Context<'_>) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        loop {
            match &mut self.0 {
                Socket::Free(socket) => match at_once(socket) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.watch()?,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    written => return Poll::Ready(written),
                },
                Socket::Watched(socket) => {
                    let written = ready!(later(Pin::new(socket), cx));
                    if matches!(written, Ok(count) if count == length) {
                        self.let_go();
                    }
                    return Poll::Ready(written);
                }
                Socket::Lost => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            }
        }
    }

    /// From now on the socket is watched for room.
    fn watch(&mut self) -> io::Result<()> {
        if let Socket::Free(socket) = mem::replace(&mut self.0, Socket::Lost) {
            self.0 = Socket::Watched(WatchedStream::from_std(socket)?);
        }
        Ok(())
    }

    /// From now on nobody hears of room. Where that fails the next write says so: what has been written is never an error.
    fn let_go(&mut self) {
        if let Socket::Watched(socket) = mem::replace(&mut self.0, Socket::Lost) {
            self.0 = socket.into_std().map_or(Socket::Lost, Socket::Free);
        }
    }
}

impl AsyncWrite for SocketWriter {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().poll_with(
            cx,
            bytes.len(),
            |mut socket| socket.write(bytes),
            |socket, cx| socket.poll_write(cx, bytes),
        )
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().poll_with(
            cx,
            slices.iter().map(|slice| slice.len()).sum(),
            |mut socket| socket.write_vectored(slices),
            |socket, cx| socket.poll_write_vectored(cx, slices),
        )
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Nothing is kept here.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(match &self.0 {
            Socket::Free(socket) => socket.shutdown(Shutdown::Write),
            Socket::Watched(socket) => Ok(rustix::net::shutdown(socket, rustix::net::Shutdown::Write)?),
            Socket::Lost => Ok(()),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use tokio::io::AsyncWriteExt as _;

    use super::*;

    /// A writer, and the socket at the other end, which blocks.
    fn pair() -> (SocketWriter, UnixStream) {
        let (near, far) = UnixStream::pair().unwrap();
        (SocketWriter::new(near).unwrap(), far)
    }

    #[tokio::test]
    async fn all_arrives_in_order_however_much_it_is_and_only_a_full_socket_is_watched() {
        let (mut writer, mut far) = pair();
        writer.write_all(b"small").await.unwrap();
        assert!(matches!(writer.0, Socket::Free(_)));
        let large: Vec<u8> = (0..8_000_000_u32).map(|n| (n % 251) as u8).collect();
        // The peer begins to read when the socket is full.
        let full = {
            let mut written = 0;
            std::future::poll_fn(|cx| {
                while let Poll::Ready(count) = Pin::new(&mut writer).poll_write(cx, &large[written..]) {
                    written += count.unwrap();
                }
                Poll::Ready(written)
            })
            .await
        };
        assert!(full < large.len() && matches!(writer.0, Socket::Watched(_)));
        let reading = std::thread::spawn(move || {
            let mut all = Vec::new();
            far.read_to_end(&mut all).map(|_| all)
        });
        let rest = [IoSlice::new(&large[full..full + 1]), IoSlice::new(&large[full + 1..])];
        let mut sent =
            std::future::poll_fn(|cx| Pin::new(&mut writer).poll_write_vectored(cx, &rest)).await.unwrap();
        while full + sent < large.len() {
            sent += writer.write(&large[full + sent..]).await.unwrap();
        }
        writer.write_all(b"end").await.unwrap();
        drop(writer);
        let all = reading.join().unwrap().unwrap();
        assert!(all.len() == 5 + large.len() + 3 && all[5..].starts_with(&large) && all.ends_with(b"end"));
    }

    #[tokio::test]
    async fn whoever_waits_for_room_hears_that_the_peer_has_gone() {
        let (mut writer, far) = pair();
        let writing = tokio::spawn(async move { writer.write_all(&vec![0; 8_000_000]).await });
        tokio::task::yield_now().await;
        assert!(!writing.is_finished());
        drop(far);
        assert_eq!(writing.await.unwrap().unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
