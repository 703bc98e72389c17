//! Guest output on its way to a file descriptor of this process.

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::OwnedFd;
use std::thread;

use futures::executor::block_on;
use rustix::event::{PollFd, PollFlags, poll};
use tokio::sync::oneshot;

use crate::cell::{CAPACITY, Output, PipeReader, pipe};

/// Tells when everything that a cell wrote has arrived.
#[derive(Debug)]
pub struct Drain(oneshot::Receiver<()>);

impl Drain {
    /// Waits until the cell's side is closed and all of it is written, or the descriptor takes no more.
    pub async fn finished(self) {
        // An error means that the thread is gone, which is just as finished.
        let _ = self.0.await;
    }
}

/// Makes a cell's output that ends up in `fd`.
///
/// A thread does the writing, since a write may block for as long as the reader on the other side likes, and neither
/// this process's runtime nor the flags of a descriptor that other programs share may be touched for that. When the
/// descriptor takes no more, as a pipe whose reader has gone, the guest sees a closed stream.
///
/// # Errors
///
/// The thread cannot be started.
pub fn output(fd: OwnedFd) -> io::Result<(Output, Drain)> {
    let file = File::from(fd);
    let is_terminal = file.is_terminal();
    let (writer, reader) = pipe();
    let (finished, drain) = oneshot::channel();
    thread::Builder::new().name("ww-output".into()).spawn(move || {
        copy(&reader, file);
        let _ = finished.send(());
    })?;
    Ok((Output { pipe: writer, is_terminal }, Drain(drain)))
}

fn copy(reader: &PipeReader, mut file: File) {
    loop {
        let bytes = block_on(reader.read(CAPACITY));
        if bytes.is_empty() {
            return;
        }
        if let Err(error) = write_all(&mut file, &bytes) {
            tracing::debug!(%error, "guest output has nowhere to go");
            reader.close();
            return;
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
        let (output, drain) = output(file.try_clone().unwrap().into()).unwrap();
        assert!(!output.is_terminal);
        let text = vec![b'x'; 5 * CAPACITY + 3];
        output.pipe.write_all(&text).await.unwrap();
        drop(output);
        drain.finished().await;
        io::Seek::rewind(&mut file).unwrap();
        let mut written = Vec::new();
        file.read_to_end(&mut written).unwrap();
        assert!(written == text);
    }

    #[tokio::test]
    async fn a_reader_that_went_away_closes_the_stream() {
        let (reader, writer) = io::pipe().unwrap();
        let (output, drain) = output(writer.into()).unwrap();
        drop(reader);
        // The first write may still be taken; it is lost when the thread finds the pipe closed.
        let _ = output.pipe.write_all(b"lost").await;
        drain.finished().await;
        assert!(output.pipe.write_all(b"refused").await.is_err());
    }
}
