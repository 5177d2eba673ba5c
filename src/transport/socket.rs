//! The writing side of a socket to one peer, which is watched for room only while there is none.
//!
//! Used by `stdio` for the server's stdin and, where that is a socket, for this process's stdout. A socket tells whoever watches it of
//! each message that its peer has taken (`sock_wfree` in Linux), so one that is watched all the time wakes this process once more for
//! every call, when there is nothing to do.

use std::{
    io::{self, IoSlice, Write as _},
    net::Shutdown,
    os::unix::net::UnixStream,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncWrite, Interest},
    net::UnixStream as WatchedStream,
};

/// A connected socket that is only written to, without blocking.
pub(super) struct SocketWriter {
    socket: UnixStream,
    /// The same socket, watched for room: from a write that found none until one that is taken whole.
    room: Option<WatchedStream>,
}

impl SocketWriter {
    /// Writes to `socket`.
    ///
    /// # Errors
    ///
    /// When the socket cannot be made non-blocking.
    pub(super) fn new(socket: UnixStream) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self { socket, room: None })
    }

    /// Lets `write` write some of `length` bytes, as soon as there is room.
    fn poll_with(
        &mut self,
        cx: &mut Context<'_>,
        length: usize,
        write: impl Fn(&UnixStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            let Some(room) = &self.room else {
                match write(&self.socket) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        self.room = Some(WatchedStream::from_std(self.socket.try_clone()?)?);
                        continue;
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    written => return Poll::Ready(written),
                }
            };
            ready!(room.poll_write_ready(cx))?;
            match room.try_io(Interest::WRITABLE, || write(&self.socket)) {
                // There was no room after all.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => {
                    if matches!(written, Ok(count) if count == length) {
                        self.room = None;
                    }
                    return Poll::Ready(written);
                }
            }
        }
    }
}

impl AsyncWrite for SocketWriter {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().poll_with(cx, bytes.len(), |mut socket| socket.write(bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let length = slices.iter().map(|slice| slice.len()).sum();
        self.get_mut().poll_with(cx, length, |mut socket| socket.write_vectored(slices))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Nothing is kept here.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.socket.shutdown(Shutdown::Write))
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
        assert!(writer.room.is_none());
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
        assert!(full < large.len() && writer.room.is_some());
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
