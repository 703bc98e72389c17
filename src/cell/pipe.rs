//! A bounded pipe of bytes between a cell and its host.
//!
//! One side lives in the cell's store as a WASI stream, the other is used by the host: by the RPC system as an
//! `AsyncRead` or `AsyncWrite`, and by stream capabilities through the async methods. Both ends are `Send`, so the two
//! sides may be on different threads.
//!
//! Back-pressure: a pipe holds as many bytes as its capacity says (twice that for a guest that obtains several permits to write
//! before it uses one), and a writer waits until the reader has made room. Nothing is ever dropped silently: closing the
//! reading end makes every later write fail, closing the writing end lets the reader drain the pipe and then see the end.

use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::{Buf, Bytes};
use futures::{AsyncRead, AsyncWrite};
use tokio::sync::Notify;
use wasmtime_wasi::p2::{InputStream, OutputStream, Pollable, StreamError, StreamResult};

use super::chunks::Chunks;

/// The largest read of a pipe at once, in bytes: what a pipe on Linux holds. More at a time is no faster.
pub const PIECE_BYTES: usize = 64 * 1024;

/// What each pipe of an RPC channel holds, in bytes: two messages with a piece each, and what there is around it. Where less
/// than one fits, who writes it waits in the middle of it for the other side.
pub const CHANNEL_BYTES: usize = 2 * (PIECE_BYTES + 4 * 1024);

/// How many times as much as its capacity a pipe holds at most that a guest writes to: see [`PipeWriter`].
pub const OVERRUN_FACTOR: usize = 2;

/// A write to, or a wait for room in, a pipe whose reading end or writing end is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the stream is closed")]
pub struct Closed;

/// Makes a pipe that holds `capacity` bytes. Both ends may be cloned; an end is closed by `close`, or when its last clone is
/// dropped.
pub fn pipe(capacity: usize) -> (PipeWriter, PipeReader) {
    let shared = Arc::new(Shared { capacity, ..Shared::default() });
    (PipeWriter(Arc::new(WriterEnd(shared.clone()))), PipeReader(Arc::new(ReaderEnd(shared))))
}

/// The end that bytes go into. A guest that obtains several permits to write before it uses one can write [`OVERRUN_FACTOR`]
/// times as much as the pipe holds.
#[derive(Debug, Clone)]
pub struct PipeWriter(Arc<WriterEnd>);

/// The end that bytes come out of.
#[derive(Debug, Clone)]
pub struct PipeReader(Arc<ReaderEnd>);

#[derive(Debug)]
struct WriterEnd(Arc<Shared>);

#[derive(Debug)]
struct ReaderEnd(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// How many bytes it holds.
    capacity: usize,
    /// Held for the length of a copy of at most that many bytes, never across an await.
    state: Mutex<State>,
    /// Signalled when bytes arrive or the writing end closes. `Notify` forgets waiters that are dropped, so cancelled
    /// reads leave nothing behind.
    readable: Notify,
    /// Signalled when room appears or the reading end closes.
    writable: Notify,
}

#[derive(Debug, Default)]
struct State {
    buffer: Chunks,
    writer_closed: bool,
    reader_closed: bool,
    /// The task that polls the reading end as an `AsyncRead`; there is one such task at most.
    read_waker: Option<Waker>,
    /// The task that polls the writing end as an `AsyncWrite`; there is one such task at most.
    write_waker: Option<Waker>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // No code panics while it holds the lock; a poisoned state is still consistent.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes whoever waits for bytes or the end.
    fn wake_readers(&self, mut state: MutexGuard<'_, State>) {
        let waker = state.read_waker.take();
        drop(state);
        self.readable.notify_waiters();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Wakes whoever waits for room.
    fn wake_writers(&self, mut state: MutexGuard<'_, State>) {
        let waker = state.write_waker.take();
        drop(state);
        self.writable.notify_waiters();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Waits until `ready` answers with something. Cancel safe.
    async fn wait<T>(&self, notify: &Notify, mut ready: impl FnMut() -> Option<T>) -> T {
        if let Some(value) = ready() {
            return value;
        }
        loop {
            // Registered before the second look, so that a signal in between is not lost.
            let mut notified = pin!(notify.notified());
            notified.as_mut().enable();
            if let Some(value) = ready() {
                return value;
            }
            notified.await;
        }
    }
}

impl Drop for WriterEnd {
    fn drop(&mut self) {
        close_writer(&self.0);
    }
}

impl Drop for ReaderEnd {
    fn drop(&mut self) {
        close_reader(&self.0);
    }
}

fn close_writer(shared: &Shared) {
    let mut state = shared.lock();
    state.writer_closed = true;
    shared.wake_readers(state);
    shared.wake_writers(shared.lock());
}

fn close_reader(shared: &Shared) {
    let mut state = shared.lock();
    state.reader_closed = true;
    state.buffer = Chunks::default();
    shared.wake_writers(state);
    shared.wake_readers(shared.lock());
}

impl PipeReader {
    /// Takes what is there, at most `size_max` bytes: `None` where the pipe is empty and may get more, empty bytes at
    /// the end.
    pub fn try_read(&self, size_max: usize) -> Option<Bytes> {
        let shared = &self.0.0;
        let mut state = shared.lock();
        if state.reader_closed || (state.buffer.is_empty() && state.writer_closed) {
            return Some(Bytes::new());
        }
        if state.buffer.is_empty() || size_max == 0 {
            return None;
        }
        let bytes = state.buffer.take(size_max);
        shared.wake_writers(state);
        Some(bytes)
    }

    /// Waits for bytes and takes at most `size_max` (more than 0) of them; empty bytes mean the end. Cancel safe: a
    /// dropped read takes nothing.
    pub async fn read(&self, size_max: usize) -> Bytes {
        let shared = &self.0.0;
        shared.wait(&shared.readable, || self.try_read(size_max)).await
    }

    /// Waits until there are bytes to read, or the end.
    pub async fn wait_readable(&self) {
        let shared = &self.0.0;
        let ready = || {
            let state = shared.lock();
            (!state.buffer.is_empty() || state.writer_closed || state.reader_closed).then_some(())
        };
        shared.wait(&shared.readable, ready).await;
    }

    /// Closes this end for all its clones: what is in the pipe is thrown away, pending and later reads see the end, and
    /// writes fail.
    pub fn close(&self) {
        close_reader(&self.0.0);
    }
}

impl PipeWriter {
    /// How many bytes fit in now.
    ///
    /// # Errors
    ///
    /// Either end is closed.
    pub fn room(&self) -> Result<usize, Closed> {
        let state = self.0.0.lock();
        if state.writer_closed || state.reader_closed {
            return Err(Closed);
        }
        Ok(self.0.0.capacity.saturating_sub(state.buffer.len()))
    }

    /// Appends as much of `bytes` as fits and says how much that was; 0 where the pipe is full.
    ///
    /// # Errors
    ///
    /// Either end is closed.
    pub fn try_write(&self, bytes: &[u8]) -> Result<usize, Closed> {
        let room = self.room()?;
        let size = room.min(bytes.len());
        if size > 0 {
            self.append(|buffer| buffer.extend(&bytes[..size]));
        }
        Ok(size)
    }

    /// Appends all of `bytes`, waiting for room as often as needed. Not cancel safe: a part may have been written.
    ///
    /// # Errors
    ///
    /// Either end is or gets closed; a part may have been written.
    pub async fn write_all(&self, mut bytes: &[u8]) -> Result<(), Closed> {
        while !bytes.is_empty() {
            self.wait_writable().await;
            let size = self.try_write(bytes)?;
            bytes.advance(size);
        }
        Ok(())
    }

    /// Waits until there is room, or either end is closed.
    pub async fn wait_writable(&self) {
        let shared = &self.0.0;
        shared.wait(&shared.writable, || (self.room() != Ok(0)).then_some(())).await;
    }

    /// Closes this end for all its clones: the reader drains the pipe and then sees the end, and writes fail.
    pub fn close(&self) {
        close_writer(&self.0.0);
    }

    fn append(&self, change: impl FnOnce(&mut Chunks)) {
        let shared = &self.0.0;
        let mut state = shared.lock();
        change(&mut state.buffer);
        shared.wake_readers(state);
    }
}

impl AsyncRead for PipeReader {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, target: &mut [u8]) -> Poll<io::Result<usize>> {
        let shared = &self.0.0;
        let mut state = shared.lock();
        if target.is_empty() || state.reader_closed {
            return Poll::Ready(Ok(0));
        }
        if state.buffer.is_empty() {
            if state.writer_closed {
                return Poll::Ready(Ok(0));
            }
            state.read_waker = Some(context.waker().clone());
            return Poll::Pending;
        }
        let size = state.buffer.copy_to(target);
        shared.wake_writers(state);
        Poll::Ready(Ok(size))
    }
}

impl AsyncWrite for PipeWriter {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let shared = &self.0.0;
        let mut state = shared.lock();
        if state.writer_closed || state.reader_closed {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let size = shared.capacity.saturating_sub(state.buffer.len()).min(bytes.len());
        if size == 0 && !bytes.is_empty() {
            state.write_waker = Some(context.waker().clone());
            return Poll::Pending;
        }
        state.buffer.extend(&bytes[..size]);
        shared.wake_readers(state);
        Poll::Ready(Ok(size))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.close();
        Poll::Ready(Ok(()))
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for PipeReader {
    async fn ready(&mut self) {
        self.wait_readable().await;
    }
}

impl InputStream for PipeReader {
    fn read(&mut self, size: usize) -> StreamResult<Bytes> {
        if size == 0 {
            return Ok(Bytes::new());
        }
        match self.try_read(size.min(PIECE_BYTES)) {
            None => Ok(Bytes::new()),
            Some(end) if end.is_empty() => Err(StreamError::Closed),
            Some(bytes) => Ok(bytes),
        }
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for PipeWriter {
    async fn ready(&mut self) {
        self.wait_writable().await;
    }
}

impl OutputStream for PipeWriter {
    fn check_write(&mut self) -> StreamResult<usize> {
        self.room().map_err(|Closed| StreamError::Closed)
    }

    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        // A permit cannot be taken back, so a guest with two handles to one pipe may hold two permits for the same
        // room. One such overrun is accepted; beyond it the guest is writing without permits.
        let room = self.room().map_err(|Closed| StreamError::Closed)?;
        if bytes.len() > room
            && self.0.0.lock().buffer.len() + bytes.len() > self.0.0.capacity.saturating_mul(OVERRUN_FACTOR)
        {
            return Err(StreamError::trap("a write of more bytes than `check-write` permitted"));
        }
        self.append(|buffer| buffer.push(bytes));
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        self.room().map(|_| ()).map_err(|Closed| StreamError::Closed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    const CAPACITY: usize = 1000;

    #[test]
    fn bytes_come_out_in_order_and_then_the_end() {
        let (writer, reader) = pipe(CAPACITY);
        assert_eq!(reader.try_read(10), None);
        assert_eq!(writer.try_write(b"hello "), Ok(6));
        assert_eq!(writer.try_write(b"world"), Ok(5));
        assert_eq!(reader.try_read(3).unwrap(), "hel");
        drop(writer);
        assert_eq!(reader.try_read(100).unwrap(), "lo world");
        assert_eq!(reader.try_read(100).unwrap(), "");
        assert_eq!(reader.try_read(100).unwrap(), "");
    }

    #[test]
    fn a_full_pipe_takes_nothing_until_it_is_read() {
        let (writer, reader) = pipe(CAPACITY);
        assert_eq!(writer.try_write(&[7; CAPACITY + 1]), Ok(CAPACITY));
        assert_eq!(writer.try_write(b"x"), Ok(0));
        assert!(writer.write_all(b"x").now_or_never().is_none());
        assert_eq!(reader.try_read(10).unwrap().len(), 10);
        assert_eq!(writer.room(), Ok(10));
    }

    #[test]
    fn closing_the_reading_end_drops_the_rest_and_fails_writes() {
        let (writer, reader) = pipe(CAPACITY);
        writer.try_write(b"lost").unwrap();
        let other = reader.clone();
        reader.close();
        assert_eq!(other.try_read(10).unwrap(), "");
        assert_eq!(writer.try_write(b"x"), Err(Closed));
        assert_eq!(writer.write_all(b"x").now_or_never(), Some(Err(Closed)));
    }

    #[test]
    fn an_end_closes_with_its_last_clone() {
        let (writer, reader) = pipe(CAPACITY);
        let second = writer.clone();
        drop(writer);
        assert_eq!(reader.try_read(1), None);
        drop(second);
        assert_eq!(reader.try_read(1).unwrap(), "");
    }

    #[tokio::test]
    async fn close_ends_a_pending_read() {
        let (_writer, reader) = pipe(CAPACITY);
        let pending = tokio::spawn({
            let reader = reader.clone();
            async move { reader.read(10).await }
        });
        tokio::task::yield_now().await;
        reader.close();
        assert_eq!(pending.await.unwrap(), "");
    }

    #[tokio::test]
    async fn each_byte_goes_to_one_of_several_readers() {
        let (writer, reader) = pipe(CAPACITY);
        let readers: Vec<_> = (0..4)
            .map(|_| {
                let reader = reader.clone();
                tokio::spawn(async move {
                    let mut sum = 0usize;
                    loop {
                        let bytes = reader.read(1000).await;
                        if bytes.is_empty() {
                            return sum;
                        }
                        sum += bytes.len();
                    }
                })
            })
            .collect();
        writer.write_all(&[1; 3 * CAPACITY + 17]).await.unwrap();
        drop(writer);
        let mut total = 0;
        for reader in readers {
            total += reader.await.unwrap();
        }
        assert_eq!(total, 3 * CAPACITY + 17);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn both_sides_work_as_async_read_and_write_across_threads() {
        use futures::{AsyncReadExt, AsyncWriteExt};
        let (mut writer, mut reader) = pipe(CAPACITY);
        let sent: Vec<u8> = (0..1_000_000u32).map(|value| (value % 251) as u8).collect();
        let expected = sent.clone();
        let task = tokio::spawn(async move {
            writer.write_all(&sent).await.unwrap();
            AsyncWriteExt::close(&mut writer).await.unwrap();
        });
        let mut received = Vec::new();
        reader.read_to_end(&mut received).await.unwrap();
        task.await.unwrap();
        assert!(received == expected);
    }

    #[test]
    fn a_guest_write_without_a_permit_traps() {
        let (mut writer, _reader) = pipe(CAPACITY);
        assert_eq!(writer.check_write().unwrap(), CAPACITY);
        OutputStream::write(&mut writer, Bytes::from(vec![0; CAPACITY])).unwrap();
        assert_eq!(writer.check_write().unwrap(), 0);
        OutputStream::write(&mut writer, Bytes::from(vec![0; CAPACITY])).unwrap();
        let error = OutputStream::write(&mut writer, Bytes::from_static(b"x")).unwrap_err();
        assert!(matches!(error, StreamError::Trap(_)), "{error:?}");
    }
}
