//! The RPC session with the host.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::{fmt, io};

use capnp::message::ReaderOptions;
use capnp_rpc::rpc_twoparty_capnp::Side;
use capnp_rpc::{RpcSystem, twoparty};
use futures::FutureExt;
use futures::channel::oneshot;
use futures::io::{AsyncRead, AsyncWrite, BufWriter};
use wasip2::io::streams::{InputStream, OutputStream};

use crate::peer_capnp::host;
use crate::stream::{StreamReader, StreamWriter};
use crate::{bindings, executor};

/// The largest message that is accepted from the host, and how much of it may be traversed: 512 MiB, the most that the limit
/// `message` of a cell can be. The host sends none that is larger than that limit is, so nobody who calls this cell, or
/// answers it, can end its session with one.
const MESSAGE_WORDS_MAX: usize = 512 * 1024 * 1024 / size_of::<capnp::Word>();

/// Takes the streams of the RPC channel: what the host sends, and what it receives.
///
/// They can be taken once, and [`run`](crate::run) takes them. For programs that bring their own session.
pub fn take_channel() -> Option<(InputStream, OutputStream)> {
    bindings::ww::cell::rpc::connect()
}

/// Opens the session and starts a task that drives it.
pub(crate) fn open() -> Result<host::Client, NoChannel> {
    let (input, output) = take_channel().ok_or(NoChannel)?;
    let (host, system) = session(StreamReader::new(input), StreamWriter::new(output));
    executor::spawn(system.map(|end| match end {
        Ok(()) => log::debug!("the RPC session has ended"),
        Err(error) => log::error!("the RPC session has failed: {error}"),
    }));
    Ok(host)
}

/// A session over any streams, and the host's bootstrap capability in it.
fn session<R, W>(reader: R, writer: W) -> (host::Client, RpcSystem<Side>)
where
    R: AsyncRead + Unpin + 'static,
    W: AsyncWrite + Unpin + 'static,
{
    let (incoming, outgoing) = couple(reader, writer);
    let options = ReaderOptions { traversal_limit_in_words: Some(MESSAGE_WORDS_MAX), ..ReaderOptions::default() };
    let network = twoparty::VatNetwork::new(incoming, outgoing, Side::Client, options);
    let mut system = RpcSystem::new(Box::new(network), None);
    (system.bootstrap(Side::Server), system)
}

/// The two directions of a session; the incoming one ends when the outgoing one has ended.
///
/// capnp-rpc drops a writer that fails and keeps the session: calls would wait for ever, since they never reach the host.
/// The end of the incoming direction fails them.
fn couple<R, W: AsyncWrite + Unpin>(reader: R, writer: W) -> (Incoming<R>, Outgoing<W>) {
    let (alive, ended) = oneshot::channel();
    // A message is several small writes; a write is a call to the host.
    let writer = BufWriter::new(Unflushed(writer));
    (Incoming { reader, ended }, Outgoing { writer, _alive: alive })
}

struct Incoming<R> {
    reader: R,
    /// Resolves when the outgoing direction is dropped.
    ended: oneshot::Receiver<Infallible>,
}

impl<R: AsyncRead + Unpin> AsyncRead for Incoming<R> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        if self.ended.poll_unpin(cx).is_ready() {
            return Poll::Ready(Ok(0));
        }
        Pin::new(&mut self.reader).poll_read(cx, buffer)
    }
}

struct Outgoing<W> {
    writer: BufWriter<Unflushed<W>>,
    _alive: oneshot::Sender<Infallible>,
}

impl<W: AsyncWrite + Unpin> AsyncWrite for Outgoing<W> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.writer).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.writer).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.writer).poll_close(cx)
    }
}

/// The channel as a writer that needs no flush: the host has what it was given. A flush would be two more calls for each
/// message.
struct Unflushed<W>(W);

impl<W: AsyncWrite + Unpin> AsyncWrite for Unflushed<W> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_close(cx)
    }
}

/// The host offers no RPC channel, or it was taken.
#[derive(Debug)]
pub(crate) struct NoChannel;

impl fmt::Display for NoChannel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the host offers no RPC channel, which this program needs; run it with `ww run`")
    }
}

impl std::error::Error for NoChannel {}

#[cfg(test)]
mod tests {
    use super::*;

    /// A direction of which the other side says nothing, and takes nothing.
    struct Silent;
    /// A direction that the other side has closed.
    struct Closed;

    impl AsyncRead for Silent {
        fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut [u8]) -> Poll<io::Result<usize>> {
            Poll::Pending
        }
    }

    impl AsyncRead for Closed {
        fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut [u8]) -> Poll<io::Result<usize>> {
            Poll::Ready(Ok(0))
        }
    }

    macro_rules! writer {
        ($name:ident, $outcome:expr) => {
            impl AsyncWrite for $name {
                fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
                    $outcome
                }

                fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
                    Poll::Ready(Ok(()))
                }

                fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
                    Poll::Ready(Ok(()))
                }
            }
        };
    }
    writer!(Silent, Poll::Pending);
    writer!(Closed, Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())));

    /// Every call on a session over these directions ends, and with this kind of error.
    fn check(reader: impl AsyncRead + Unpin + 'static, writer: impl AsyncWrite + Unpin + 'static) {
        let (host, system) = session(reader, writer);
        executor::spawn(system.map(drop));
        executor::block_on(async move {
            for _ in 0..2 {
                let error = host.id_request().send().promise.await.map(drop).unwrap_err();
                assert_eq!(error.kind, capnp::ErrorKind::Disconnected, "{error}");
            }
        });
    }

    #[test]
    fn calls_fail_when_the_host_has_ended_the_session() {
        check(Closed, Silent);
        check(Closed, Closed);
    }

    #[test]
    fn calls_fail_when_the_host_takes_no_messages() {
        check(Silent, Closed);
    }
}
