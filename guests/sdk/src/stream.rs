//! WASI streams as [`AsyncRead`] and [`AsyncWrite`].

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures::io::{AsyncBufRead, AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt};
use wasip2::io::streams::{InputStream, OutputStream, StreamError};

use crate::CHUNK_BYTES;
use crate::budget::Budget;
use crate::reactor::Source;

/// The program's standard input.
///
/// Bytes that a reader has taken from the stream and nobody has read from it are lost when it is dropped, so a program
/// makes one and keeps it; std's `stdin` would compete with it.
pub fn stdin() -> StreamReader {
    StreamReader::new(wasip2::cli::stdin::get_stdin())
}

/// The program's standard output, not buffered.
///
/// What was printed with std's `print!` and not yet flushed comes later.
pub fn stdout() -> StreamWriter {
    StreamWriter::new(wasip2::cli::stdout::get_stdout())
}

/// The program's standard error, not buffered.
pub fn stderr() -> StreamWriter {
    StreamWriter::new(wasip2::cli::stderr::get_stderr())
}

/// Copies everything from `reader` to `writer`, flushes it, and returns the number of bytes.
///
/// Unlike `futures::io::copy` it has no buffer of its own: the chunks of the reader, of up to 64 KiB, go to the writer
/// as they are.
///
/// Cancel safe for the streams of this crate: when the future is dropped, the reader still has what the writer had not
/// accepted.
///
/// # Errors
///
/// What reading or writing returns, and `WriteZero` where the writer takes nothing.
pub async fn copy(reader: &mut (impl AsyncBufRead + Unpin), writer: &mut (impl AsyncWrite + Unpin)) -> io::Result<u64> {
    let mut copied_bytes = 0;
    loop {
        let chunk = reader.fill_buf().await?;
        if chunk.is_empty() {
            writer.flush().await?;
            return Ok(copied_bytes);
        }
        let accepted_bytes = writer.write(chunk).await?;
        if accepted_bytes == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        reader.consume_unpin(accepted_bytes);
        copied_bytes += accepted_bytes as u64;
    }
}

/// Reads a WASI stream, in chunks of up to 64 KiB.
///
/// A stream that its writer has closed ends; one whose last operation failed returns the error once and then ends.
pub struct StreamReader {
    /// `None` after the end.
    source: Option<Source<InputStream>>,
    chunk: Chunk,
    budget: Budget,
}

impl StreamReader {
    /// Reads `stream`, which must not have a pollable.
    pub fn new(stream: InputStream) -> Self {
        Self { source: Some(Source::new(stream)), chunk: Chunk::default(), budget: Budget::default() }
    }

    /// Waits for the next chunk; an empty one means the end.
    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Vec<u8>>> {
        let Some(source) = &self.source else { return Poll::Ready(Ok(Vec::new())) };
        ready!(self.budget.poll_spend(cx));
        match source.stream().read(CHUNK_BYTES as u64) {
            Ok(bytes) if bytes.is_empty() => {
                source.register(cx);
                Poll::Pending
            }
            Ok(bytes) => Poll::Ready(Ok(bytes)),
            Err(error) => {
                self.source = None;
                Poll::Ready(match error {
                    StreamError::Closed => Ok(Vec::new()),
                    StreamError::LastOperationFailed(_) => Err(io_error(error)),
                })
            }
        }
    }
}

impl AsyncBufRead for StreamReader {
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

impl AsyncRead for StreamReader {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        poll_read_buffered(self, cx, buffer)
    }
}

/// Writes a WASI stream, without a buffer of its own.
///
/// Closing flushes, and then drops the stream, which is how the other side learns of the end.
pub struct StreamWriter {
    /// `None` after the stream was closed, by either side.
    source: Option<Source<OutputStream>>,
    state: Written,
    budget: Budget,
}

/// What the host may still hold of what was written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Written {
    Flushed,
    Unflushed,
    Flushing,
}

impl StreamWriter {
    /// Writes `stream`, which must not have a pollable.
    pub fn new(stream: OutputStream) -> Self {
        Self { source: Some(Source::new(stream)), state: Written::Flushed, budget: Budget::default() }
    }

    /// Waits until the host takes something, and returns how many bytes; `None` where the stream is closed.
    fn poll_permit(&self, cx: &Context<'_>) -> Poll<Option<Result<(u64, &OutputStream), StreamError>>> {
        let Some(source) = &self.source else { return Poll::Ready(None) };
        match source.stream().check_write() {
            Ok(0) => {
                source.register(cx);
                Poll::Pending
            }
            Ok(permit_bytes) => Poll::Ready(Some(Ok((permit_bytes, source.stream())))),
            Err(error) => Poll::Ready(Some(Err(error))),
        }
    }

    /// Gives the stream up after an error.
    fn fail(&mut self, error: StreamError) -> io::Error {
        self.source = None;
        io_error(error)
    }
}

impl AsyncWrite for StreamWriter {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        ready!(this.budget.poll_spend(cx));
        let written = match ready!(this.poll_permit(cx)) {
            None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            Some(permit) => permit.and_then(|(permit_bytes, stream)| {
                let accepted_bytes = bytes.len().min(usize::try_from(permit_bytes).unwrap_or(usize::MAX));
                stream.write(&bytes[..accepted_bytes])?;
                Ok(accepted_bytes)
            }),
        };
        this.state = Written::Unflushed;
        Poll::Ready(written.map_err(|error| this.fail(error)))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let Some(source) = &this.source else { return Poll::Ready(Ok(())) };
        if this.state == Written::Unflushed {
            if let Err(error) = source.stream().flush() {
                return Poll::Ready(Err(this.fail(error)));
            }
            this.state = Written::Flushing;
        }
        if this.state == Written::Flushing {
            // The host takes nothing until it has flushed.
            if let Some(Err(error)) = ready!(this.poll_permit(cx)) {
                return Poll::Ready(Err(this.fail(error)));
            }
            this.state = Written::Flushed;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = ready!(self.as_mut().poll_flush(cx));
        self.source = None;
        Poll::Ready(flushed)
    }
}

/// The error that std has for what the host said; `Closed` is for writers.
fn io_error(error: StreamError) -> io::Error {
    match error {
        StreamError::Closed => io::ErrorKind::BrokenPipe.into(),
        StreamError::LastOperationFailed(error) => io::Error::other(error.to_debug_string()),
    }
}

/// Bytes that were received, and how many of them were read.
#[derive(Default)]
pub(crate) struct Chunk {
    bytes: Vec<u8>,
    read_bytes: usize,
}

impl Chunk {
    pub(crate) fn new(bytes: Vec<u8>) -> Self {
        Self { bytes, read_bytes: 0 }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest().is_empty()
    }

    pub(crate) fn rest(&self) -> &[u8] {
        &self.bytes[self.read_bytes..]
    }

    pub(crate) fn consume(&mut self, read_bytes: usize) {
        self.read_bytes = (self.read_bytes + read_bytes).min(self.bytes.len());
    }
}

/// `poll_read` for what has `poll_fill_buf`.
pub(crate) fn poll_read_buffered(
    mut reader: Pin<&mut impl AsyncBufRead>,
    cx: &mut Context<'_>,
    buffer: &mut [u8],
) -> Poll<io::Result<usize>> {
    if buffer.is_empty() {
        return Poll::Ready(Ok(0));
    }
    let chunk = ready!(reader.as_mut().poll_fill_buf(cx))?;
    let read_bytes = chunk.len().min(buffer.len());
    buffer[..read_bytes].copy_from_slice(&chunk[..read_bytes]);
    reader.consume(read_bytes);
    Poll::Ready(Ok(read_bytes))
}

#[cfg(test)]
mod tests {
    use futures::executor::block_on;
    use futures::io::{AsyncReadExt, Cursor};

    use super::*;

    #[test]
    fn copies_everything() {
        for size in [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, 3 * CHUNK_BYTES + 7] {
            let bytes: Vec<u8> = (0..size).map(|at| at as u8).collect();
            let mut copied = Cursor::new(Vec::new());
            let count = block_on(copy(&mut Cursor::new(&bytes), &mut copied)).unwrap();
            assert_eq!(count, size as u64);
            assert!(copied.into_inner() == bytes);
        }
    }

    #[test]
    fn a_writer_that_takes_nothing_is_an_error() {
        let error = block_on(copy(&mut Cursor::new(b"bytes"), &mut Cursor::new(&mut [][..]))).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WriteZero);
    }

    #[test]
    fn an_ended_reader_has_ended_for_good() {
        let mut reader = StreamReader { source: None, chunk: Chunk::new(b"rest".to_vec()), budget: Budget::default() };
        let mut bytes = Vec::new();
        block_on(reader.read_to_end(&mut bytes)).unwrap();
        block_on(reader.read_to_end(&mut bytes)).unwrap();
        assert_eq!(bytes, b"rest");
    }

    #[test]
    fn a_closed_writer_is_a_broken_pipe() {
        let mut writer = StreamWriter { source: None, state: Written::Unflushed, budget: Budget::default() };
        assert_eq!(block_on(writer.write(b"x")).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        block_on(writer.flush()).unwrap();
        block_on(writer.close()).unwrap();
    }
}
