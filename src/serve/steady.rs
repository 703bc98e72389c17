//! Connections whose other side must keep reading.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

/// How fast the other side must read while something is to be written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// So many bytes …
    pub(super) bytes: usize,
    /// … in this time.
    pub(super) window: Duration,
}

/// A stream that fails when its other side reads more slowly than the pace. How fast it writes is not looked at.
pub(super) struct Steady<T> {
    inner: T,
    pace: Pace,
    /// The end of the window that runs while `is_waiting`.
    window: Pin<Box<Sleep>>,
    /// Whether something could not be written at once, and has not been written wholly since.
    is_waiting: bool,
    /// Bytes that were written in this window.
    written: usize,
}

impl<T> Steady<T> {
    pub(super) fn new(inner: T, pace: Pace) -> Self {
        Self { inner, pace, window: Box::pin(sleep(pace.window)), is_waiting: false, written: 0 }
    }

    fn start_window(&mut self) {
        self.window.as_mut().reset(Instant::now() + self.pace.window);
        self.is_waiting = true;
        self.written = 0;
    }

    /// What a write that cannot go on comes to.
    fn wait(&mut self, context: &mut Context<'_>) -> Poll<io::Error> {
        if !self.is_waiting {
            self.start_window();
        }
        while self.window.as_mut().poll(context).is_ready() {
            if self.written < self.pace.bytes {
                return Poll::Ready(io::Error::new(io::ErrorKind::TimedOut, "the client reads too slowly"));
            }
            self.start_window();
        }
        Poll::Pending
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Steady<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(context, buffer)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Steady<T> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(context, bytes);
        self.after_write(written, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write_vectored(context, buffers);
        self.after_write(written, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    /// HTTP calls this when it has written all that it has.
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.inner).poll_flush(context))?;
        self.is_waiting = false;
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

impl<T> Steady<T> {
    fn after_write(&mut self, written: Poll<io::Result<usize>>, context: &mut Context<'_>) -> Poll<io::Result<usize>> {
        match written {
            Poll::Ready(Ok(bytes)) => {
                self.written = self.written.saturating_add(bytes);
                Poll::Ready(Ok(bytes))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => self.wait(context).map(Err),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    #[tokio::test]
    async fn who_does_not_read_is_left() {
        let (ours, _theirs) = duplex(16);
        let mut steady = Steady::new(ours, Pace { bytes: 1, window: Duration::from_millis(20) });
        let error = steady.write_all(&[0; 100]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn who_reads_a_byte_now_and_then_is_left() {
        let (ours, mut theirs) = duplex(16);
        let mut steady = Steady::new(ours, Pace { bytes: 1000, window: Duration::from_millis(50) });
        let reader = async {
            while theirs.read_u8().await.is_ok() {
                sleep(Duration::from_millis(5)).await;
            }
        };
        let error = tokio::select! {
            written = steady.write_all(&[0; 100_000]) => written.unwrap_err(),
            () = reader => panic!("the reader came to an end"),
        };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn time_without_anything_to_write_does_not_count() {
        let (ours, mut theirs) = duplex(16);
        let window = Duration::from_millis(20);
        let mut steady = Steady::new(ours, Pace { bytes: 1, window });
        for _ in 0..3 {
            let read = async {
                let mut bytes = [0; 100];
                theirs.read_exact(&mut bytes).await.unwrap();
            };
            let write = async {
                steady.write_all(&[0; 100]).await.unwrap();
                steady.flush().await.unwrap();
            };
            tokio::join!(read, write);
            sleep(window * 3).await;
        }
    }
}
