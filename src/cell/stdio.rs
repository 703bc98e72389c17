//! What a cell has as its standard streams: pipes, or the process's own.

use std::fmt;
use std::io::{self, IsTerminal as _};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use rustix::event::{PollFd, PollFlags, Timespec};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest};
use tokio::sync::Notify;
use wasmtime_wasi::cli::{IsTerminal, StdinStream, StdoutStream};
use wasmtime_wasi::p2::{InputStream, OutputStream, Pollable, StreamError, StreamResult};

use super::pipe::{PIECE_BYTES, PipeReader, PipeWriter};

/// Where a cell's standard input comes from.
#[derive(Debug)]
pub enum Input {
    /// A pipe that the host or a parent writes.
    Pipe(PipeReader),
    /// A file descriptor, such as this process's own standard input.
    File(InputFile),
}

/// Where a cell's standard output or standard error goes.
#[derive(Debug)]
pub struct Output {
    /// Takes the bytes; somebody else reads them.
    pub pipe: PipeWriter,
    /// Whether the guest is told that this is a terminal.
    pub is_terminal: bool,
    /// Where it is given, a flush waits until whoever reads the pipe says that the bytes have arrived. Then two outputs
    /// that end up in one place keep the order in which the guest flushed them, and the guest learns of errors.
    pub arrival: Option<Arrival>,
}

/// How much of an output has arrived where it was to go. A handle that the guest's side and the reader of the pipe share.
#[derive(Debug, Clone, Default)]
pub struct Arrival(Arc<ArrivalState>);

#[derive(Debug, Default)]
struct ArrivalState {
    /// How many bytes the guest has written. Advanced by the guest's side only.
    written: AtomicU64,
    /// How many of them have arrived. Advanced by the reader of the pipe only.
    arrived: AtomicU64,
    /// What the reader could not do, once that is so: the system's number for it, or 0.
    failure: OnceLock<i32>,
    changed: Notify,
}

impl Arrival {
    /// Says that this many more bytes have arrived.
    pub fn advance(&self, size: usize) {
        self.0.arrived.fetch_add(size as u64, Ordering::Release);
        self.0.changed.notify_waiters();
    }

    /// How many bytes the guest has written, whether or not they have arrived.
    pub fn written_bytes(&self) -> u64 {
        self.0.written.load(Ordering::Relaxed)
    }

    /// Says that no more bytes will arrive, and why.
    pub fn fail(&self, error: &io::Error) {
        // The first reason counts.
        let _ = self.0.failure.set(error.raw_os_error().unwrap_or_default());
        self.0.changed.notify_waiters();
    }

    /// What the guest is told after a failure: a closed stream where the reader has gone, else the error.
    fn failure(&self) -> Option<StreamError> {
        let error = io::Error::from_raw_os_error(*self.0.failure.get()?);
        Some(match error.kind() {
            io::ErrorKind::BrokenPipe => StreamError::Closed,
            _ => StreamError::LastOperationFailed(error.into()),
        })
    }

    fn has_arrived(&self, size: u64) -> bool {
        self.0.arrived.load(Ordering::Acquire) >= size || self.0.failure.get().is_some()
    }

    async fn wait(&self, size: u64) {
        while !self.has_arrived(size) {
            let mut changed = pin!(self.0.changed.notified());
            changed.as_mut().enable();
            if !self.has_arrived(size) {
                changed.await;
            }
        }
    }
}

/// An output stream whose flushes wait for the arrival of what was written.
struct ArrivingOutput {
    pipe: PipeWriter,
    arrival: Arrival,
    /// How much must have arrived before the stream takes more, after a flush.
    flushing: Option<u64>,
}

#[wasmtime_wasi::async_trait]
impl Pollable for ArrivingOutput {
    async fn ready(&mut self) {
        match self.flushing {
            Some(size) => self.arrival.wait(size).await,
            None => self.pipe.wait_writable().await,
        }
    }
}

impl OutputStream for ArrivingOutput {
    fn check_write(&mut self) -> StreamResult<usize> {
        if let Some(failure) = self.arrival.failure() {
            return Err(failure);
        }
        if self.flushing.is_some_and(|size| !self.arrival.has_arrived(size)) {
            return Ok(0);
        }
        self.flushing = None;
        self.pipe.check_write()
    }

    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.arrival.0.written.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        OutputStream::write(&mut self.pipe, bytes)
    }

    fn flush(&mut self) -> StreamResult<()> {
        self.flushing = Some(self.arrival.0.written.load(Ordering::Relaxed));
        Ok(())
    }
}

/// A file descriptor that a cell reads, shared by all streams that the guest makes of it.
///
/// Nothing is read before the guest asks, and never more than it asks for: what a guest leaves unread is still there
/// for the process that reads the same descriptor next. No flag of the descriptor is changed (`O_NONBLOCK` belongs to
/// the open file, which the user's shell shares): a terminal is opened once more.
#[derive(Clone)]
pub struct InputFile(Arc<SharedFile>);

struct SharedFile {
    fd: Arc<OwnedFd>,
    is_terminal: bool,
    /// Whether the guest is told so.
    is_told: bool,
    /// Registration with the runtime of the thread that first waited; `None` inside for what cannot be waited for,
    /// such as regular files, which are always ready.
    readiness: OnceLock<Option<AsyncFd<SharedDescriptor>>>,
}

/// Keeps the descriptor open for as long as it is registered.
struct SharedDescriptor(Arc<OwnedFd>);

impl AsRawFd for SharedDescriptor {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl InputFile {
    /// Reads from `fd`. Where that is a terminal, the guest is told so if `is_told`.
    pub fn new(fd: OwnedFd, is_told: bool) -> Self {
        let is_terminal = fd.is_terminal();
        let fd = opened_again(&fd).unwrap_or(fd);
        Self(Arc::new(SharedFile { fd: Arc::new(fd), is_terminal, is_told, readiness: OnceLock::new() }))
    }

    /// Whether a read would return at once: with bytes, the end, or an error.
    fn is_readable(&self) -> io::Result<bool> {
        let mut polled = [PollFd::new(&self.0.fd, PollFlags::IN)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        Ok(rustix::event::poll(&mut polled, Some(&now))? > 0)
    }

    async fn wait_readable(&self) {
        #[expect(
            deprecated,
            reason = "deprecated as a safe function because the descriptor could be closed too early; this one cannot"
        )]
        let readiness = self
            .0
            .readiness
            .get_or_init(|| AsyncFd::with_interest(SharedDescriptor(self.0.fd.clone()), Interest::READABLE).ok());
        let Some(readiness) = readiness else { return };
        // The kernel's answer decides; the runtime only tells when it may have changed. An error counts as ready: the
        // read will report it.
        while let Ok(false) = self.is_readable() {
            match readiness.readable().await {
                Ok(mut guard) => guard.clear_ready(),
                Err(_) => return,
            }
        }
    }

    /// Reads what is there; `None` where nothing is there yet. Empty bytes mean the end.
    ///
    /// Does not wait, unless the file could not be opened again and another program that reads the same descriptor takes the
    /// bytes between the two calls.
    fn try_read(&self, size_max: usize) -> io::Result<Option<Bytes>> {
        if !self.is_readable()? {
            return Ok(None);
        }
        let mut bytes = vec![0; size_max.min(PIECE_BYTES)];
        match rustix::io::read(&self.0.fd, &mut bytes) {
            Ok(size) => {
                bytes.truncate(size);
                Ok(Some(bytes.into()))
            }
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => Ok(None),
            // What Linux answers when the other side of a terminal has gone.
            Err(rustix::io::Errno::IO) if self.0.is_terminal => Ok(Some(Bytes::new())),
            Err(error) => Err(error.into()),
        }
    }
}

/// The same terminal as an open file of its own, reading from which never waits. Others that read it may take what was there a
/// moment ago, and it answers a process in the background by stopping it, so that the next read is one in the foreground, where
/// nothing is there any more. `None` where that cannot be had, as for the terminal of another user.
///
/// Not of a pipe with a name: one that is opened when its writers have gone never tells of its end.
#[cfg(target_os = "linux")]
fn opened_again(fd: &OwnedFd) -> Option<OwnedFd> {
    use rustix::fs::{Mode, OFlags, open};
    if !fd.is_terminal() {
        return None;
    }
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    open(format!("/proc/self/fd/{}", fd.as_raw_fd()), flags, Mode::empty()).ok()
}

#[cfg(not(target_os = "linux"))]
fn opened_again(_: &OwnedFd) -> Option<OwnedFd> {
    None
}

impl fmt::Debug for InputFile {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("InputFile").field(&self.0.fd.as_fd()).finish()
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for InputFile {
    async fn ready(&mut self) {
        self.wait_readable().await;
    }
}

impl InputStream for InputFile {
    fn read(&mut self, size: usize) -> StreamResult<Bytes> {
        if size == 0 {
            return Ok(Bytes::new());
        }
        match self.try_read(size) {
            Ok(None) => Ok(Bytes::new()),
            Ok(Some(end)) if end.is_empty() => Err(StreamError::Closed),
            Ok(Some(bytes)) => Ok(bytes),
            Err(error) => Err(StreamError::LastOperationFailed(error.into())),
        }
    }
}

impl IsTerminal for Input {
    fn is_terminal(&self) -> bool {
        match self {
            Input::Pipe(_) => false,
            Input::File(file) => file.0.is_terminal && file.0.is_told,
        }
    }
}

impl StdinStream for Input {
    fn async_stream(&self) -> Box<dyn AsyncRead + Send + Sync> {
        unreachable!("only WASI p2 is linked, and it asks for `p2_stream`")
    }

    fn p2_stream(&self) -> Box<dyn InputStream> {
        match self {
            Input::Pipe(pipe) => Box::new(pipe.clone()),
            Input::File(file) => Box::new(file.clone()),
        }
    }
}

impl IsTerminal for Output {
    fn is_terminal(&self) -> bool {
        self.is_terminal
    }
}

impl StdoutStream for Output {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        unreachable!("only WASI p2 is linked, and it asks for `p2_stream`")
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        let pipe = self.pipe.clone();
        match self.arrival.clone() {
            Some(arrival) => Box::new(ArrivingOutput { pipe, arrival, flushing: None }),
            None => Box::new(pipe),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;
    use std::io::Write;

    fn read_now(file: &mut InputFile, size: usize) -> StreamResult<Bytes> {
        InputStream::read(file, size)
    }

    #[tokio::test]
    async fn takes_no_more_than_asked_and_leaves_the_rest() {
        let (reader, mut writer) = io::pipe().unwrap();
        let rest = reader.try_clone().unwrap();
        let mut file = InputFile::new(reader.into(), false);
        assert!(read_now(&mut file, 10).unwrap().is_empty());
        writer.write_all(b"a\nb\n").unwrap();
        file.wait_readable().await;
        assert_eq!(read_now(&mut file, 2).unwrap(), "a\n");
        drop(writer);
        drop(file);
        assert_eq!(io::read_to_string(rest).unwrap(), "b\n");
    }

    #[tokio::test]
    async fn waits_for_bytes_and_for_the_end() {
        let (reader, mut writer) = io::pipe().unwrap();
        let mut file = InputFile::new(reader.into(), false);
        assert!(file.wait_readable().now_or_never().is_none());
        writer.write_all(b"x").unwrap();
        file.wait_readable().await;
        assert_eq!(read_now(&mut file, 10).unwrap(), "x");
        assert!(file.wait_readable().now_or_never().is_none());
        drop(writer);
        file.wait_readable().await;
        assert!(matches!(read_now(&mut file, 10), Err(StreamError::Closed)));
    }

    #[tokio::test]
    async fn a_regular_file_is_always_ready() {
        let mut content = tempfile::tempfile().unwrap();
        content.write_all(b"text").unwrap();
        io::Seek::rewind(&mut content).unwrap();
        let mut file = InputFile::new(content.into(), false);
        file.wait_readable().await;
        assert_eq!(read_now(&mut file, 100).unwrap(), "text");
        assert!(matches!(read_now(&mut file, 100), Err(StreamError::Closed)));
    }

    #[tokio::test]
    async fn a_flush_waits_for_the_arrival() {
        let (pipe, reader) = super::super::pipe(PIECE_BYTES);
        let arrival = Arrival::default();
        let output = Output { pipe, is_terminal: false, arrival: Some(arrival.clone()) };
        let mut stream = output.p2_stream();
        stream.write("hello".into()).unwrap();
        assert!(stream.check_write().unwrap() > 0);
        stream.flush().unwrap();
        assert_eq!(stream.check_write().unwrap(), 0);
        assert_eq!(reader.try_read(100).unwrap(), "hello");
        assert!(stream.ready().now_or_never().is_none());
        arrival.advance(5);
        stream.ready().await;
        assert!(stream.check_write().unwrap() > 0);
        stream.write("lost".into()).unwrap();
        stream.flush().unwrap();
        arrival.fail(&io::Error::from_raw_os_error(rustix::io::Errno::NOSPC.raw_os_error()));
        stream.ready().await;
        assert!(matches!(stream.check_write(), Err(StreamError::LastOperationFailed(_))));
    }

    #[tokio::test]
    async fn a_directory_is_an_error_not_the_end() {
        let file = std::fs::File::open("/").unwrap();
        let mut file = InputFile::new(file.into(), false);
        file.wait_readable().await;
        assert!(matches!(read_now(&mut file, 100), Err(StreamError::LastOperationFailed(_))));
    }
}
