//! The streams of open files.

use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use wasmtime_wasi::p2::{InputStream, OutputStream, Pollable, StreamError, StreamResult};

use super::filesystem::error_code;
use crate::vfs::{OpenFile, VfsError};

/// How many bytes a file's stream reads or takes at once. Each open one holds as much at most.
const STREAM_BYTES_MAX: usize = 64 * 1024;

/// A file that is read from some byte on.
pub(super) struct FileInput {
    file: Arc<dyn OpenFile>,
    position: u64,
    state: ReadState,
}

enum ReadState {
    Idle,
    Reading(BoxFuture<'static, Result<Bytes, VfsError>>),
    /// What was read, not empty but at the end.
    Read(Result<Bytes, VfsError>),
}

impl FileInput {
    pub(super) fn new(file: Arc<dyn OpenFile>, position: u64) -> Self {
        Self { file, position, state: ReadState::Idle }
    }

    /// Reads a piece, unless one is being read or there.
    fn start(&mut self, size: usize) {
        if let ReadState::Idle = self.state {
            let size = size.min(STREAM_BYTES_MAX);
            self.state = ReadState::Reading(self.file.clone().read_at(self.position, size));
        }
    }

    async fn wait(&mut self) {
        if let ReadState::Reading(reading) = &mut self.state {
            self.state = ReadState::Read(reading.await);
        }
    }

    /// Takes at most `size` bytes of what is there.
    fn take(&mut self, size: usize) -> StreamResult<Bytes> {
        let ReadState::Read(read) = &mut self.state else { return Ok(Bytes::new()) };
        match read {
            Ok(bytes) if bytes.is_empty() => Err(StreamError::Closed),
            Ok(bytes) => {
                let taken = bytes.split_to(size.min(bytes.len()));
                self.position += taken.len() as u64;
                if bytes.is_empty() {
                    self.state = ReadState::Idle;
                }
                Ok(taken)
            }
            Err(error) => {
                let error = stream_error(error);
                self.state = ReadState::Idle;
                Err(error)
            }
        }
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for FileInput {
    async fn ready(&mut self) {
        self.start(STREAM_BYTES_MAX);
        self.wait().await;
    }
}

#[wasmtime_wasi::async_trait]
impl InputStream for FileInput {
    fn read(&mut self, size: usize) -> StreamResult<Bytes> {
        if size == 0 {
            return Ok(Bytes::new());
        }
        self.start(size);
        if let ReadState::Reading(reading) = &mut self.state
            && let Some(read) = reading.now_or_never()
        {
            self.state = ReadState::Read(read);
        }
        self.take(size)
    }

    async fn blocking_read(&mut self, size: usize) -> StreamResult<Bytes> {
        if size == 0 {
            return Ok(Bytes::new());
        }
        self.start(size);
        self.wait().await;
        self.take(size)
    }

    async fn cancel(&mut self) {
        // What a thread is doing cannot be stopped, and must not go on by the thousand.
        self.wait().await;
    }
}

/// A file that is written from some byte on, or at its end.
pub(super) struct FileOutput {
    file: Arc<dyn OpenFile>,
    /// Where the next byte goes; `None` for the end of the file, wherever that is by then.
    position: Option<u64>,
    state: WriteState,
}

enum WriteState {
    Idle,
    Writing(BoxFuture<'static, Result<(), VfsError>>),
    /// It failed, and the guest does not know yet.
    Failed(VfsError),
    /// It failed, and the guest knows.
    Closed,
}

impl FileOutput {
    pub(super) fn new(file: Arc<dyn OpenFile>, position: Option<u64>) -> Self {
        Self { file, position, state: WriteState::Idle }
    }

    fn written(result: Result<(), VfsError>) -> WriteState {
        match result {
            Ok(()) => WriteState::Idle,
            Err(error) => WriteState::Failed(error),
        }
    }

    /// Looks whether a write is done, without waiting.
    fn look(&mut self) {
        if let WriteState::Writing(writing) = &mut self.state
            && let Some(result) = writing.now_or_never()
        {
            self.state = Self::written(result);
        }
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for FileOutput {
    async fn ready(&mut self) {
        if let WriteState::Writing(writing) = &mut self.state {
            self.state = Self::written(writing.await);
        }
    }
}

#[wasmtime_wasi::async_trait]
impl OutputStream for FileOutput {
    fn check_write(&mut self) -> StreamResult<usize> {
        self.look();
        match std::mem::replace(&mut self.state, WriteState::Closed) {
            WriteState::Idle => {
                self.state = WriteState::Idle;
                Ok(STREAM_BYTES_MAX)
            }
            WriteState::Writing(writing) => {
                self.state = WriteState::Writing(writing);
                Ok(0)
            }
            WriteState::Failed(error) => Err(stream_error(&error)),
            WriteState::Closed => Err(StreamError::Closed),
        }
    }

    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        match self.state {
            WriteState::Idle if bytes.len() <= STREAM_BYTES_MAX => {}
            WriteState::Closed => return Err(StreamError::Closed),
            _ => return Err(StreamError::trap("write without a permit")),
        }
        let file = self.file.clone();
        let writing = match &mut self.position {
            Some(position) => {
                let offset = *position;
                *position = offset.saturating_add(bytes.len() as u64);
                file.write_at(offset, bytes)
            }
            None => file.append(bytes),
        };
        self.state = WriteState::Writing(writing);
        self.look();
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        // Each write is on its way at once; those that wait for readiness wait for its end.
        match self.state {
            WriteState::Closed => Err(StreamError::Closed),
            _ => Ok(()),
        }
    }

    async fn cancel(&mut self) {
        // It will happen, so it is to have happened before whatever the guest does next.
        self.ready().await;
    }
}

/// The failure of a stream. The guest is told what WASI has a code for, and nothing of the host.
fn stream_error(error: &VfsError) -> StreamError {
    if let VfsError::Io(source) = error {
        tracing::debug!(%source, "a stream of a file failed");
    }
    StreamError::LastOperationFailed(error_code(error).into())
}
