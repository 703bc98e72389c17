//! What goes between a compiling process and its parent, without a thread for each direction.

use std::io::{self, Read, Write};
use std::process::{Child, ChildStderr, ChildStdin};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, ioctl_fionbio};

/// How much of what the process says is kept.
const SAID_BYTES_MAX: usize = 64 << 10;

/// How long to wait for the process before looking at the clock and at who else has a wish.
const SLICE: Duration = Duration::from_millis(20);

/// The standard input and error of a process.
pub(super) struct Talk<'a> {
    /// Where `input` goes, until all of it has gone or nobody wants more.
    stdin: Option<ChildStdin>,
    input: &'a [u8],
    /// Until its end, which is that of the process.
    stderr: Option<ChildStderr>,
    said: Vec<u8>,
}

impl<'a> Talk<'a> {
    pub(super) fn new(child: &mut Child, input: &'a [u8]) -> io::Result<Self> {
        let (stdin, stderr) = (child.stdin.take(), child.stderr.take());
        if let Some(stdin) = &stdin {
            ioctl_fionbio(stdin, true)?;
        }
        if let Some(stderr) = &stderr {
            ioctl_fionbio(stderr, true)?;
        }
        Ok(Self { stdin, input, stderr, said: Vec::new() })
    }

    /// Whether the process has said all that it will.
    pub(super) fn is_over(&self) -> bool {
        self.stderr.is_none()
    }

    /// What it has said, as far as that is kept.
    pub(super) fn said(&self) -> String {
        String::from_utf8_lossy(&self.said).trim().to_owned()
    }

    /// Passes on what can be passed on, and waits for a short time if that is nothing.
    pub(super) fn go_on(&mut self) -> io::Result<()> {
        let Some(stderr) = &self.stderr else { return Ok(()) };
        let mut watched = vec![PollFd::new(stderr, PollFlags::IN)];
        if let Some(stdin) = &self.stdin {
            watched.push(PollFd::new(stdin, PollFlags::OUT));
        }
        match poll(&mut watched, Some(&Timespec::try_from(SLICE).map_err(io::Error::other)?)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        self.give()?;
        self.take()
    }

    fn give(&mut self) -> io::Result<()> {
        let Some(stdin) = &mut self.stdin else { return Ok(()) };
        while !self.input.is_empty() {
            match stdin.write(self.input) {
                Ok(count) => self.input = &self.input[count..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // It ends, and will say why.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => break,
                Err(error) => return Err(error),
            }
        }
        self.stdin = None;
        Ok(())
    }

    fn take(&mut self) -> io::Result<()> {
        let Some(stderr) = &mut self.stderr else { return Ok(()) };
        let mut buffer = [0; 4096];
        loop {
            match stderr.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => {
                    let kept = count.min(SAID_BYTES_MAX - self.said.len());
                    self.said.extend_from_slice(&buffer[..kept]);
                    // The deadline is looked at between any two pieces.
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.stderr = None;
        Ok(())
    }
}
