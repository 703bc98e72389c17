//! Guest output on its way to a file descriptor of this process.

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::OwnedFd;
use std::thread;

use bytes::Bytes;
use futures::executor::block_on;
use rustix::event::{PollFd, PollFlags, poll};
use tokio::sync::oneshot;

use crate::cell::{Arrival, CAPACITY, Output, PipeReader, pipe};

/// Tells when everything that a cell wrote has arrived.
#[derive(Debug)]
pub struct Drain(oneshot::Receiver<io::Result<()>>);

impl Drain {
    /// Waits until the cell's side is closed and all of it is written, or the descriptor takes no more.
    ///
    /// # Errors
    ///
    /// Something that the cell wrote could not be written, and not because the reader had gone.
    pub async fn finished(self) -> io::Result<()> {
        // Without an answer the thread is gone, which is just as finished.
        match self.0.await.unwrap_or(Ok(())) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            written => written,
        }
    }
}

/// Makes a cell's output that ends up in `fd`.
///
/// A thread does the writing, which starts with the first bytes, since a write may block for as long as the reader on the other side likes, and neither
/// this process's runtime nor the flags of a descriptor that other programs share may be touched for that. A flush of the
/// guest waits for it, so what goes to two outputs on one terminal appears in order. When the descriptor takes no more,
/// as a pipe whose reader has gone or a file on a full disk, the guest sees a closed stream or the error.
///
/// Called on a tokio runtime, on which it waits for the first bytes. If the thread cannot be started, the guest sees a closed
/// stream.
pub fn output(fd: OwnedFd) -> (Output, Drain) {
    let file = File::from(fd);
    let is_terminal = file.is_terminal();
    let (writer, reader) = pipe();
    let arrival = Arrival::default();
    let (finished, drain) = oneshot::channel();
    let progress = arrival.clone();
    // Many a guest never says a word on one of its outputs.
    tokio::spawn(async move {
        let first = reader.read(CAPACITY).await;
        if first.is_empty() {
            let _ = finished.send(Ok(()));
            return;
        }
        let failing = progress.clone();
        let write = move || {
            let _ = finished.send(copy(first, &reader, file, &progress));
        };
        if let Err(error) = thread::Builder::new().name("ww-output".into()).spawn(write) {
            tracing::error!(%error, "guest output has nowhere to go");
            failing.fail(&error);
        }
    });
    (Output { pipe: writer, is_terminal, arrival: Some(arrival) }, Drain(drain))
}

fn copy(first: Bytes, reader: &PipeReader, mut file: File, progress: &Arrival) -> io::Result<()> {
    let mut bytes = first;
    while !bytes.is_empty() {
        if let Err(error) = write_all(&mut file, &bytes) {
            tracing::debug!(%error, "guest output has nowhere to go");
            progress.fail(&error);
            reader.close();
            return Err(error);
        }
        progress.advance(bytes.len());
        bytes = block_on(reader.read(CAPACITY));
    }
    Ok(())
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
        let (output, drain) = output(file.try_clone().unwrap().into());
        assert!(!output.is_terminal);
        let text = vec![b'x'; 5 * CAPACITY + 3];
        output.pipe.write_all(&text).await.unwrap();
        drop(output);
        drain.finished().await.unwrap();
        io::Seek::rewind(&mut file).unwrap();
        let mut written = Vec::new();
        file.read_to_end(&mut written).unwrap();
        assert!(written == text);
    }

    #[tokio::test]
    async fn a_full_disk_is_an_error() {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let (output, drain) = output(full.into());
        output.pipe.write_all(b"lost").await.unwrap();
        drop(output);
        assert_eq!(drain.finished().await.unwrap_err().kind(), io::ErrorKind::StorageFull);
    }

    #[tokio::test]
    async fn a_reader_that_went_away_closes_the_stream() {
        let (reader, writer) = io::pipe().unwrap();
        let (output, drain) = output(writer.into());
        drop(reader);
        // The first write may still be taken; it is lost when the thread finds the pipe closed.
        let _ = output.pipe.write_all(b"lost").await;
        drain.finished().await.unwrap();
        assert!(output.pipe.write_all(b"refused").await.is_err());
    }
}
