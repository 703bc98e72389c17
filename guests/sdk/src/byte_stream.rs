//! The byte streams of the host as [`AsyncRead`] and [`AsyncWrite`].

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use capnp::capability::Promise;
use futures::FutureExt;
use futures::io::{AsyncBufRead, AsyncRead, AsyncWrite};

use crate::CHUNK_BYTES;
use crate::peer_capnp::byte_stream;
use crate::stream::{Chunk, poll_read_buffered};

/// Reads a readable byte stream, in chunks of up to 64 KiB.
///
/// A read that was begun goes on when the future that wanted it is dropped; its bytes are for the next one.
pub struct ByteReader {
    stream: byte_stream::Client,
    /// The call that is on its way.
    call: Option<Promise<Vec<u8>, capnp::Error>>,
    chunk: Chunk,
}

impl ByteReader {
    /// Reads `stream`.
    pub fn new(stream: byte_stream::Client) -> Self {
        Self { stream, call: None, chunk: Chunk::default() }
    }

    /// The stream, for calls that this type does not have.
    pub fn client(&self) -> &byte_stream::Client {
        &self.stream
    }

    /// Reads no more: what is in the pipe is thrown away, and the writer sees a closed stream.
    ///
    /// # Errors
    ///
    /// When the connection has failed.
    pub async fn close(self) -> io::Result<()> {
        self.stream.close_request().send().promise.await.map(drop).map_err(io_error)
    }

    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Vec<u8>>> {
        let call = self.call.get_or_insert_with(|| Promise::from_future(read(&self.stream)));
        let bytes = ready!(call.poll_unpin(cx));
        self.call = None;
        Poll::Ready(bytes.map_err(io_error))
    }
}

/// Sends the call at once; the future waits for the answer.
fn read(stream: &byte_stream::Client) -> impl Future<Output = Result<Vec<u8>, capnp::Error>> + use<> {
    let mut request = stream.read_request();
    request.get().set_max_bytes(CHUNK_BYTES as u32);
    request.send().promise.map(|response| Ok(response?.get()?.get_data()?.to_vec()))
}

impl AsyncBufRead for ByteReader {
    fn poll_fill_buf(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        let this = self.get_mut();
        if this.chunk.is_empty() {
            this.chunk = Chunk::new(ready!(this.poll_chunk(cx))?);
        }
        Poll::Ready(Ok(this.chunk.rest()))
    }

    fn consume(mut self: Pin<&mut Self>, read_bytes: usize) {
        self.chunk.consume(read_bytes);
    }
}

impl AsyncRead for ByteReader {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        poll_read_buffered(self, cx, buffer)
    }
}

/// Writes a writable byte stream, in messages of up to 64 KiB.
///
/// Writing waits when about 128 KiB are on their way. Flushing waits for room, not for the reader; only closing waits
/// until the pipe has accepted everything. An error of one write is reported by the next call. Dropping a writer
/// without closing it closes the stream when nobody else refers to it; a process refers to its own streams.
pub struct ByteWriter {
    stream: byte_stream::Client,
    /// Resolves when there is room for another message.
    room: Option<Promise<(), capnp::Error>>,
    close: Close,
}

enum Close {
    No,
    Calling(Promise<(), capnp::Error>),
    Done,
}

impl ByteWriter {
    /// Writes `stream`.
    pub fn new(stream: byte_stream::Client) -> Self {
        Self { stream, room: None, close: Close::No }
    }

    /// The stream, for calls that this type does not have.
    pub fn client(&self) -> &byte_stream::Client {
        &self.stream
    }

    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(room) = &mut self.room else { return Poll::Ready(Ok(())) };
        let outcome = ready!(room.poll_unpin(cx));
        self.room = None;
        Poll::Ready(outcome.map_err(io_error))
    }
}

impl AsyncWrite for ByteWriter {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if !matches!(this.close, Close::No) {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        ready!(this.poll_room(cx))?;
        let message = &bytes[..bytes.len().min(CHUNK_BYTES)];
        if !message.is_empty() {
            let mut request = this.stream.write_request();
            request.get().set_data(message);
            this.room = Some(request.send());
        }
        Poll::Ready(Ok(message.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_room(cx)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_room(cx))?;
        if matches!(this.close, Close::No) {
            let call = this.stream.close_request().send().promise;
            this.close = Close::Calling(Promise::from_future(call.map(|closed| closed.map(drop))));
        }
        if let Close::Calling(call) = &mut this.close {
            let closed = ready!(call.poll_unpin(cx));
            this.close = Close::Done;
            closed.map_err(io_error)?;
        }
        Poll::Ready(Ok(()))
    }
}

/// A failed call as an I/O error, which keeps the cause.
fn io_error(error: capnp::Error) -> io::Error {
    let kind = match error.kind {
        capnp::ErrorKind::Disconnected => io::ErrorKind::ConnectionAborted,
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, error)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::VecDeque;
    use std::rc::Rc;

    use futures::executor::block_on;
    use futures::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// A stream that gives back what was written to it.
    #[derive(Default)]
    struct Loopback {
        messages: RefCell<VecDeque<Vec<u8>>>,
        closed: RefCell<bool>,
    }

    impl byte_stream::Server for Loopback {
        async fn read(
            self: Rc<Self>,
            params: byte_stream::ReadParams,
            mut results: byte_stream::ReadResults,
        ) -> Result<(), capnp::Error> {
            assert_eq!(params.get()?.get_max_bytes(), 64 * 1024);
            results.get().set_data(&self.messages.borrow_mut().pop_front().unwrap_or_default());
            Ok(())
        }

        async fn write(self: Rc<Self>, params: byte_stream::WriteParams) -> Result<(), capnp::Error> {
            if *self.closed.borrow() {
                return Err(capnp::Error::failed("the stream is closed".into()));
            }
            self.messages.borrow_mut().push_back(params.get()?.get_data()?.to_vec());
            Ok(())
        }

        async fn close(
            self: Rc<Self>,
            _: byte_stream::CloseParams,
            _: byte_stream::CloseResults,
        ) -> Result<(), capnp::Error> {
            self.closed.replace(true);
            Ok(())
        }
    }

    fn loopback() -> (Rc<Loopback>, byte_stream::Client) {
        let server = Rc::new(Loopback::default());
        (server.clone(), capnp_rpc::new_client_from_rc(server))
    }

    #[test]
    fn moves_bytes_in_messages_of_64_kib() {
        let (server, client) = loopback();
        let bytes: Vec<u8> = (0..200_000).map(|at| at as u8).collect();
        let mut writer = ByteWriter::new(client.clone());
        block_on(async {
            writer.write_all(&bytes).await?;
            writer.close().await
        })
        .unwrap();
        assert_eq!(server.messages.borrow().iter().map(Vec::len).collect::<Vec<_>>(), [65_536, 65_536, 65_536, 3_392]);
        let mut read = Vec::new();
        block_on(ByteReader::new(client).read_to_end(&mut read)).unwrap();
        assert!(read == bytes);
    }

    #[test]
    fn writing_after_close_is_a_broken_pipe() {
        let (_, client) = loopback();
        let mut writer = ByteWriter::new(client);
        block_on(writer.close()).unwrap();
        block_on(writer.close()).unwrap();
        assert_eq!(block_on(writer.write(b"x")).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn a_failed_write_is_reported_by_the_next_call() {
        let (server, client) = loopback();
        server.closed.replace(true);
        let mut writer = ByteWriter::new(client);
        assert_eq!(block_on(writer.write(b"x")).unwrap(), 1);
        let error = block_on(writer.write(b"y")).unwrap_err();
        assert!(error.to_string().contains("the stream is closed"), "{error}");
    }
}
