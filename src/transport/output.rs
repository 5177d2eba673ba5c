//! What a wrapped server writes: it ends with the server, whoever else still holds the other end of the pipe.
//!
//! Read by the session that `stdio` runs. A program that the server has started and set free may keep its stdout open for as
//! long as it likes, and nobody is to wait for that; what the server itself has written is all in the pipe when it ends.

use std::{
    future::Future as _,
    io,
    pin::Pin,
    task::{Context, Poll, Waker, ready},
};

use rustix::io::retry_on_intr;
use tokio::{
    io::{AsyncRead, ReadBuf},
    net::unix::pipe,
};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// The stdout of one server.
pub(super) struct Output {
    pipe: pipe::Receiver,
    ended: CancellationToken,
    /// Made once: a future of a token registers with it.
    has_ended: Pin<Box<WaitForCancellationFutureOwned>>,
    /// Who has been promised to hear of the end.
    promised: Option<Waker>,
    /// Bytes that are still to be read of those that were in the pipe at the server's end. `None` before that.
    left: Option<u64>,
}

impl Output {
    /// What comes through `pipe` until `ended` is set, and what is in it then.
    pub(super) fn new(pipe: pipe::Receiver, ended: CancellationToken) -> Self {
        let has_ended = Box::pin(ended.clone().cancelled_owned());
        Self { pipe, ended, has_ended, promised: None, left: None }
    }

    /// How many bytes there are still to come. Pending while nobody knows.
    fn poll_left(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<Option<u64>>> {
        if self.left.is_none() {
            // A pipe that never ends to flow is not asked first.
            if !self.ended.is_cancelled()
                && let Poll::Ready(read) = Pin::new(&mut self.pipe).poll_read(cx, buf)
            {
                return Poll::Ready(read.map(|()| None));
            }
            // Once is enough for each who asks: a promise takes a lock, and this is asked for every frame.
            let is_promised = self.promised.as_ref().is_some_and(|waker| waker.will_wake(cx.waker()));
            if is_promised && !self.ended.is_cancelled() {
                return Poll::Pending;
            }
            self.promised = Some(cx.waker().clone());
            ready!(self.has_ended.as_mut().poll(cx));
            self.left = Some(rustix::io::ioctl_fionread(&self.pipe)?);
        }
        Poll::Ready(Ok(self.left))
    }
}

impl AsyncRead for Output {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let Some(left) = ready!(this.poll_left(cx, buf))? else { return Poll::Ready(Ok(())) };
        let wanted = buf.remaining().min(usize::try_from(left).unwrap_or(usize::MAX));
        if wanted > 0 {
            // Past the runtime, which may not have heard yet that there is something to read.
            let count = retry_on_intr(|| rustix::io::read(&this.pipe, buf.initialize_unfilled_to(wanted)))?;
            buf.advance(count);
            this.left = Some(left - count as u64);
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Write, os::fd::OwnedFd};

    use tokio::io::AsyncReadExt;

    use super::*;

    #[tokio::test]
    async fn what_was_written_before_the_end_is_read_and_nothing_of_what_comes_later() {
        let (reader, mut writer) = io::pipe().unwrap();
        let ended = CancellationToken::new();
        let mut output =
            Output::new(pipe::Receiver::from_owned_fd(OwnedFd::from(reader)).unwrap(), ended.clone());
        writer.write_all(b"one ").unwrap();
        let mut some = [0; 4];
        output.read_exact(&mut some).await.unwrap();
        // Somebody waits for more when the server writes its last words and ends.
        let reading = tokio::spawn(async move {
            let mut rest = String::new();
            output.read_to_string(&mut rest).await.map(|_| (rest, output))
        });
        tokio::task::yield_now().await;
        writer.write_all(b"last words").unwrap();
        ended.cancel();
        let (rest, mut output) = reading.await.unwrap().unwrap();
        assert_eq!(rest, "last words");
        writer.write_all(b"of somebody else").unwrap();
        assert_eq!(output.read(&mut some).await.unwrap(), 0, "though the pipe is open and full");
    }
}
