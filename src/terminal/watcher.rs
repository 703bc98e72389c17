//! The process that puts the terminal back when this one is killed.
//!
//! It is this very program, called with [`ARGUMENT`]. Its standard input is a socket to the process that has started it,
//! its standard output the terminal that escape sequences go to, and its standard error the one whose modes are set. It has a
//! session of its own, so no signal for the process group or from the terminal reaches it, and nobody stops it for setting
//! modes. When the socket is closed without a word, it does what the other can do no more.

use std::ffi::OsStr;
use std::io::{self, BufReader, Read, Write};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};

use super::{LAST_WRITE, reset};

/// The first argument of a process that is to watch.
pub const ARGUMENT: &str = "watch-terminal-of-another-ww";

/// What it says when it is ready.
const READY: u8 = b'!';

/// How long it may take to be ready, and to end. It takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(5);

/// What it is told; each is a byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Word {
    /// Raw mode is on.
    Raw = b'r',
    /// The modes are as they were.
    Original = b'o',
    /// Escape sequences were written.
    Commanded = b'c',
    /// All has been put back.
    Done = b'd',
}

/// The process, as the one sees it that has started it.
#[derive(Debug)]
pub(super) struct Watcher {
    process: Child,
    socket: UnixStream,
}

impl Watcher {
    /// Starts it, and waits until it knows the present modes.
    pub(super) fn start(program: &Path, input: BorrowedFd<'_>, output: Option<BorrowedFd<'_>>) -> io::Result<Self> {
        let (socket, other) = UnixStream::pair()?;
        socket.set_read_timeout(Some(PATIENCE))?;
        let output = match output {
            Some(output) => Stdio::from(output.try_clone_to_owned()?),
            None => Stdio::null(),
        };
        let process = Command::new(program)
            .arg0("ww")
            .arg(ARGUMENT)
            .env_clear()
            .current_dir("/")
            .stdin(OwnedFd::from(other))
            .stdout(output)
            .stderr(input.try_clone_to_owned()?)
            .spawn()?;
        let mut watcher = Self { process, socket };
        let mut said = [0];
        match watcher.socket.read_exact(&mut said) {
            Ok(()) if said == [READY] => Ok(watcher),
            Ok(()) => Err(io::Error::other("it says what it should not")),
            Err(error) => {
                let _ = watcher.process.kill();
                let _ = watcher.process.wait();
                Err(error)
            }
        }
    }

    /// Whether it has not ended.
    pub(super) fn is_there(&mut self) -> bool {
        matches!(self.process.try_wait(), Ok(None))
    }

    pub(super) fn tell(&mut self, word: Word) {
        // Where it has gone, the next who sets raw mode starts another.
        let _ = self.socket.write_all(&[word as u8]);
    }

    /// Tells it that there is nothing left to do, and waits for its end.
    pub(super) fn dismiss(mut self) {
        self.tell(Word::Done);
        let deadline = Instant::now() + PATIENCE;
        while self.is_there() {
            if Instant::now() >= deadline {
                let _ = self.process.kill();
                let _ = self.process.wait();
                return;
            }
            std::thread::sleep(Duration::from_micros(200));
        }
    }
}

/// Whether a program that was called with this first argument is to call [`watch`].
pub fn is_meant(argument: Option<&OsStr>) -> bool {
    argument.is_some_and(|argument| argument == ARGUMENT)
}

/// Does what this module is for. For the `main` of a process that does nothing else, with its standard streams in their
/// usual order.
///
/// # Errors
///
/// It cannot begin: standard error is no terminal, or this is the first process of a group.
pub fn watch([stdin, stdout, stderr]: [OwnedFd; 3]) -> io::Result<()> {
    rustix::process::setsid()?;
    let mut socket = UnixStream::from(stdin);
    let original = tcgetattr(&stderr)?;
    socket.write_all(&[READY])?;
    let (mut is_raw, mut is_commanded) = (false, false);
    // An error is an end, too.
    for word in BufReader::new(socket).bytes().map_while(Result::ok) {
        match word {
            word if word == Word::Raw as u8 => is_raw = true,
            word if word == Word::Original as u8 => is_raw = false,
            word if word == Word::Commanded as u8 => is_commanded = true,
            _ => return Ok(()),
        }
    }
    // The other was killed.
    if is_raw {
        put_back(&stderr, &original)?;
    }
    if is_commanded {
        reset::write(&stdout, LAST_WRITE);
    }
    Ok(())
}

/// Puts back the modes, unless somebody else has set others meanwhile, as a shell may.
fn put_back(terminal: &OwnedFd, original: &Termios) -> io::Result<()> {
    let mut raw = original.clone();
    raw.make_raw();
    let now = tcgetattr(terminal)?;
    let modes = |modes: &Termios| (modes.input_modes, modes.output_modes, modes.local_modes);
    if modes(&now) == modes(&raw) {
        tcsetattr(terminal, OptionalActions::Now, original)?;
    }
    Ok(())
}
