//! Guest output on its way to a file descriptor of this process.

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::OwnedFd;
use std::thread;

use bytes::{Buf, Bytes};
use futures::executor::block_on;
use rustix::event::{PollFd, PollFlags, poll};
use tokio::sync::oneshot;

use crate::cell::{Arrival, Output, PIECE_BYTES, PipeReader, pipe};
use crate::escape::Filter;
use crate::terminal::{self, Commands, Terminal};

/// How many bytes are written on the runtime's own thread, where that need not wait. Whoever writes more goes on while a thread
/// writes.
const AT_ONCE_BYTES_MAX: usize = PIECE_BYTES;

/// Tells when everything that a cell wrote has arrived.
#[derive(Debug)]
pub struct Drain(oneshot::Receiver<Result<(), DrainError>>);

/// Why what a cell wrote has not arrived.
#[derive(Debug, thiserror::Error)]
pub enum DrainError {
    /// There was no thread to write it.
    #[error("failed to start the thread that writes")]
    Thread(#[source] io::Error),
    /// The descriptor did not take it.
    #[error("failed to write")]
    Write(#[source] io::Error),
}

impl Drain {
    /// Waits until the cell's side is closed and all of it is written, or the descriptor takes no more.
    ///
    /// # Errors
    ///
    /// Something that the cell wrote could not be written, and not because the reader had gone.
    pub async fn finished(self) -> Result<(), DrainError> {
        // Without an answer the thread is gone, which is just as finished.
        match self.0.await.unwrap_or(Ok(())) {
            Err(DrainError::Write(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            written => written,
        }
    }
}

/// Makes a cell's output that ends up in `fd`, through a pipe of `capacity` bytes. `terminal` is that of this process, where
/// the cell may control it.
///
/// What goes to a file or a pipe arrives as it is. What goes to a terminal does where the cell may control it; else what
/// the terminal would obey is shown instead ([`Filter`]), and the cell is told that it is no terminal.
///
/// A write may block for as long as the reader on the other side likes, and neither this process's runtime nor the flags of a
/// descriptor that other programs share may be touched for that. So what the system does not take at once is written by a
/// thread, and so is all that comes after [`AT_ONCE_BYTES_MAX`]. A flush of the
/// guest waits for it, so what goes to two outputs on one terminal appears in order. When the descriptor takes no more,
/// as a pipe whose reader has gone or a file on a full disk, the guest sees a closed stream or the error.
///
/// Called on a tokio runtime, on which it waits for bytes. If the thread cannot be started, the guest sees a closed stream, and
/// the [`Drain`] tells.
pub fn output(fd: OwnedFd, capacity: usize, terminal: Option<&Terminal>) -> (Output, Drain) {
    output_by(thread::Builder::new(), fd, capacity, terminal)
}

/// The same by a thread that is made like this.
fn output_by(thread: thread::Builder, fd: OwnedFd, capacity: usize, terminal: Option<&Terminal>) -> (Output, Drain) {
    let file = File::from(fd);
    let way = Way::to(&file, terminal);
    let is_terminal = matches!(way, Way::Controlled(..));
    let (writer, reader) = pipe(capacity);
    let arrival = Arrival::default();
    let (finished, drain) = oneshot::channel();
    let progress = arrival.clone();
    // Many a guest says little, or never a word, on one of its outputs.
    tokio::spawn(async move {
        let mut first = reader.read(PIECE_BYTES).await;
        let mut at_once_bytes = 0;
        while matches!(way, Way::Plain) && !first.is_empty() && at_once_bytes < AT_ONCE_BYTES_MAX {
            let written_bytes = write_at_once(&file, &first);
            progress.advance(written_bytes);
            first.advance(written_bytes);
            if !first.is_empty() {
                break;
            }
            at_once_bytes += written_bytes;
            first = reader.read(PIECE_BYTES).await;
        }
        if first.is_empty() {
            let _ = finished.send(Ok(()));
            return;
        }
        let failing = progress.clone();
        // What the thread is to do is handed over when it is there: it must not be lost with one that is not.
        let (hand, handed) = std::sync::mpsc::sync_channel(1);
        let write = move || {
            if let Ok((finished, first, reader, file, way)) = handed.recv() {
                let finished: oneshot::Sender<_> = finished;
                let copied = copy(first, &reader, file, way, &progress);
                let _ = finished.send(copied.map_err(DrainError::Write));
            }
        };
        match thread.name("ww-output".into()).spawn(write) {
            Ok(_) => drop(hand.send((finished, first, reader, file, way))),
            Err(error) => {
                failing.fail(&error);
                let _ = finished.send(Err(DrainError::Thread(error)));
            }
        }
    });
    (Output { pipe: writer, is_terminal, arrival: Some(arrival) }, Drain(drain))
}

/// Writes as much as the system takes without waiting, and tells how much that is: nothing where it cannot be asked for that, as
/// for terminals and for files on most disks, or where it fails, as it then does for the thread as well.
#[cfg(target_os = "linux")]
fn write_at_once(file: &File, bytes: &[u8]) -> usize {
    /// Where the descriptor is, as with `write` (pwritev2(2)).
    const HERE: u64 = u64::MAX;
    rustix::io::pwritev2(file, &[io::IoSlice::new(bytes)], HERE, rustix::io::ReadWriteFlags::NOWAIT).unwrap_or(0)
}

#[cfg(not(target_os = "linux"))]
fn write_at_once(_: &File, _: &[u8]) -> usize {
    0
}

fn copy(first: Bytes, reader: &PipeReader, mut file: File, mut way: Way, progress: &Arrival) -> io::Result<()> {
    let mut bytes = first;
    let written = loop {
        if bytes.is_empty() {
            break way.finish(&mut file);
        }
        if let Err(error) = way.write(&mut file, &bytes) {
            break Err(error);
        }
        progress.advance(bytes.len());
        bytes = block_on(reader.read(PIECE_BYTES));
    };
    if let Err(error) = &written {
        tracing::debug!(%error, "guest output has nowhere to go");
        progress.fail(error);
        reader.close();
    }
    written
}

/// How bytes get to a descriptor.
enum Way {
    /// As they are.
    Plain,
    /// As a terminal can show them.
    Filtered(Filter),
    /// As they are, until the terminal has been put back.
    Controlled(Terminal, Commands),
}

impl Way {
    fn to(file: &File, terminal: Option<&Terminal>) -> Self {
        match (file.is_terminal(), terminal) {
            (false, _) => Self::Plain,
            (true, None) => Self::Filtered(Filter::default()),
            (true, Some(terminal)) => Self::Controlled(terminal.clone(), Commands::default()),
        }
    }

    fn write(&mut self, file: &mut File, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Plain => write_all(file, bytes),
            Self::Filtered(filter) => write_all(file, &filter.push(bytes)),
            Self::Controlled(terminal, commands) => bytes
                .chunks(terminal::PIECE_BYTES)
                .try_for_each(|piece| terminal.pass(commands.are_in(piece), || write_all(file, piece))),
        }
    }

    fn finish(&mut self, file: &mut File) -> io::Result<()> {
        match self {
            Self::Filtered(filter) => write_all(file, &filter.finish()),
            Self::Plain | Self::Controlled(..) => Ok(()),
        }
    }
}

/// Writes all of `bytes`, also where another program has made the open file non-blocking.
fn write_all(file: &mut File, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match file.write(bytes) {
            Ok(size) => bytes = &bytes[size..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                poll(&mut [PollFd::new(file, PollFlags::OUT)], None)?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[tokio::test]
    async fn everything_arrives_before_the_drain_is_finished() {
        let mut file = tempfile::tempfile().unwrap();
        let (output, drain) = output(file.try_clone().unwrap().into(), PIECE_BYTES, None);
        assert!(!output.is_terminal);
        let text = vec![b'x'; 5 * PIECE_BYTES + 3];
        output.pipe.write_all(&text).await.unwrap();
        drop(output);
        drain.finished().await.unwrap();
        io::Seek::rewind(&mut file).unwrap();
        let mut written = Vec::new();
        file.read_to_end(&mut written).unwrap();
        assert!(written == text);
    }

    #[tokio::test]
    async fn a_pipe_that_is_full_holds_up_nobody() {
        let (mut reader, writer) = io::pipe().unwrap();
        let (output, drain) = output(writer.into(), 4 * PIECE_BYTES, None);
        let text: Vec<u8> = (0..4 * PIECE_BYTES).map(|at| at as u8).collect();
        // More than a pipe of the system takes; what it does not take at once, a thread writes while this goes on.
        for piece in text.chunks(PIECE_BYTES / 4 + 1) {
            output.pipe.write_all(piece).await.unwrap();
            tokio::task::yield_now().await;
        }
        drop(output);
        let read = thread::spawn(move || {
            let mut bytes = Vec::new();
            reader.read_to_end(&mut bytes).map(|_| bytes)
        });
        drain.finished().await.unwrap();
        assert!(read.join().unwrap().unwrap() == text);
    }

    #[tokio::test]
    async fn a_full_disk_is_an_error() {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let (output, drain) = output(full.into(), PIECE_BYTES, None);
        output.pipe.write_all(b"lost").await.unwrap();
        drop(output);
        let DrainError::Write(error) = drain.finished().await.unwrap_err() else { panic!("there is a thread") };
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }

    #[tokio::test]
    async fn a_thread_that_cannot_be_started_is_told() {
        let file = tempfile::tempfile().unwrap();
        // More than there are addresses.
        let thread = thread::Builder::new().stack_size(1 << 50);
        let (output, drain) = output_by(thread, file.into(), PIECE_BYTES, None);
        output.pipe.write_all(b"lost").await.unwrap();
        assert!(matches!(drain.finished().await, Err(DrainError::Thread(_))));
        assert!(output.pipe.write_all(b"refused").await.is_err());
    }

    #[tokio::test]
    async fn a_reader_that_went_away_closes_the_stream() {
        let (reader, writer) = io::pipe().unwrap();
        let (output, drain) = output(writer.into(), PIECE_BYTES, None);
        drop(reader);
        // The first write may still be taken; it is lost when the thread finds the pipe closed.
        let _ = output.pipe.write_all(b"lost").await;
        drain.finished().await.unwrap();
        assert!(output.pipe.write_all(b"refused").await.is_err());
    }
}
