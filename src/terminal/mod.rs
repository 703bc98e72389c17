//! The terminal that this process runs in: its size, raw mode, and putting it back.
//!
//! A [`Terminal`] is for a guest that may control it. Whatever the guest does to it ends with [`Held`]: the modes are put
//! back, what escape sequences can have changed is reset, and nothing that the guest has still to say reaches it. While this
//! process is stopped the terminal has its modes back, too. A process of its own ([`watcher`]) sees to it when this one is
//! killed.
//!
//! Raw mode is that of cfmakeraw(3): no echo, no lines, no signals from keys. So Ctrl-C is a byte for the guest.
//!
//! A process in the background of its terminal is stopped by the system (SIGTTOU) when it sets modes. This one does not try.

use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetpgrp, tcgetwinsize, tcsetattr};
use tokio::sync::watch;

use self::watcher::Watcher;

mod hold;
mod reset;
pub mod watcher;

pub use hold::Held;

/// How long to wait at the end for a guest's output that is on its way; the terminal may take none, as after Ctrl-S.
const LAST_WRITE: Duration = Duration::from_millis(300);

/// How many bytes are written to a terminal at a time, so that the end need not wait for many.
pub const PIECE_BYTES: usize = 4096;

/// The size of a terminal, in characters. Both numbers are 0 where it does not know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// Characters in a line.
    pub columns: u16,
    /// Lines.
    pub rows: u16,
}

/// Why a terminal does not do something.
#[derive(Debug, thiserror::Error)]
pub enum TerminalError {
    /// No standard stream is one.
    #[error("none of the standard streams is a terminal")]
    NoTerminal,
    /// There is no input whose mode could be set.
    #[error("standard input is no terminal, so there is no raw mode")]
    NoInput,
    /// The terminal belongs to other processes at present.
    #[error("this run is in the background of its terminal, where it cannot set its mode")]
    Background,
    /// The run is ending.
    #[error("the terminal has been put back, since the run is ending")]
    Over,
    /// Nobody could put the terminal back if this process was killed.
    #[error("failed to start the process that puts the terminal back")]
    Watcher(#[source] io::Error),
    /// The system refuses.
    #[error("the terminal refuses")]
    Refused(#[from] io::Error),
}

/// The terminal of this process; a cheap handle.
#[derive(Clone, Debug)]
pub struct Terminal(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Standard input, where that is a terminal: what modes are set on.
    input: Option<OwnedFd>,
    /// Standard output or error, where one is a terminal: what has a size, and what sequences are written to.
    output: Option<OwnedFd>,
    /// The program of the watcher.
    program: PathBuf,
    /// Held while modes are set, and for the start of the watcher.
    state: Mutex<State>,
    /// Held while a piece of the guest's output is written.
    writing: Mutex<()>,
    /// Whether the guest may write no more. Set once.
    is_closed: AtomicBool,
    /// Whether the guest has written what a terminal obeys. Set once.
    is_commanded: AtomicBool,
    /// Signals that the size may have changed.
    changed: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct State {
    /// The modes before raw mode was first set.
    original: Option<Termios>,
    /// Whether the guest wants raw mode.
    is_wanted: bool,
    /// Whether raw mode is set.
    is_raw: bool,
    /// Whether the terminal has been put back for good.
    is_over: bool,
    watcher: Option<Watcher>,
}

impl Terminal {
    /// The terminal of these standard streams, in their usual order. `program` is this very program, whose `main` hands over to
    /// [`watcher::watch`] when it is called for that.
    ///
    /// # Errors
    ///
    /// There are no file descriptors left.
    pub fn new([stdin, stdout, stderr]: [BorrowedFd<'_>; 3], program: PathBuf) -> io::Result<Self> {
        let find = |fds: &[BorrowedFd<'_>]| {
            fds.iter().find(|fd| fd.is_terminal()).map(|fd| fd.try_clone_to_owned()).transpose()
        };
        Ok(Self(Arc::new(Inner {
            input: find(&[stdin])?,
            output: find(&[stdout, stderr])?,
            program,
            state: Mutex::default(),
            writing: Mutex::default(),
            is_closed: AtomicBool::new(false),
            is_commanded: AtomicBool::new(false),
            changed: watch::Sender::default(),
        })))
    }

    /// Its size now.
    ///
    /// # Errors
    ///
    /// There is no terminal, or it has gone.
    pub fn size(&self) -> Result<Size, TerminalError> {
        let terminal = self.0.output.as_ref().or(self.0.input.as_ref()).ok_or(TerminalError::NoTerminal)?;
        let size = tcgetwinsize(terminal).map_err(io::Error::from)?;
        Ok(Size { columns: size.ws_col, rows: size.ws_row })
    }

    /// Waits until its size is another one, and returns that. Cancel safe.
    ///
    /// # Errors
    ///
    /// Those of [`Terminal::size`].
    pub async fn resized(&self, from: Size) -> Result<Size, TerminalError> {
        let mut changes = self.0.changed.subscribe();
        loop {
            let size = self.size()?;
            if size != from {
                return Ok(size);
            }
            if changes.changed().await.is_err() {
                return Err(TerminalError::Over);
            }
        }
    }

    /// Switches raw mode on or off. Blocks for some milliseconds when it is first switched on.
    ///
    /// # Errors
    ///
    /// Standard input is no terminal, this process is in its background and is to switch it on, or the run is ending.
    pub fn set_raw(&self, raw: bool) -> Result<(), TerminalError> {
        let input = self.0.input.as_ref().ok_or(TerminalError::NoInput)?;
        let mut state = self.0.state();
        if state.is_over {
            return Err(TerminalError::Over);
        }
        if state.is_wanted == raw && state.is_raw == raw {
            return Ok(());
        }
        match (raw, is_foreground(input)) {
            (true, true) => {
                self.0.watch(&mut state, input)?;
                self.0.make_raw(&mut state, input)?;
            }
            (true, false) => return Err(TerminalError::Background),
            (false, true) => self.0.make_original(&mut state, input)?,
            // It is not set for others.
            (false, false) => {}
        }
        state.is_wanted = raw;
        Ok(())
    }

    /// Writes a piece of the guest's output, of at most [`PIECE_BYTES`], with `write`, unless the terminal has been put back.
    /// `obeyed` says whether there is anything in it that a terminal obeys.
    ///
    /// # Errors
    ///
    /// A broken pipe, once the terminal has been put back; else those of `write`.
    pub fn pass(&self, obeyed: bool, write: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        if obeyed && !self.0.is_commanded.swap(true, Ordering::SeqCst) {
            self.0.state().tell_commanded();
        }
        let _writing = self.0.writing.lock().unwrap_or_else(PoisonError::into_inner);
        if self.0.is_closed.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        write()
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        // What was set when somebody panicked is still to be put back.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes sure that there is a watcher.
    fn watch(&self, state: &mut State, input: &OwnedFd) -> Result<(), TerminalError> {
        if state.watcher.as_mut().is_some_and(Watcher::is_there) {
            return Ok(());
        }
        let output = self.output.as_ref().map(AsFd::as_fd);
        state.watcher = Some(Watcher::start(&self.program, input.as_fd(), output).map_err(TerminalError::Watcher)?);
        if self.is_commanded.load(Ordering::SeqCst) {
            state.tell_commanded();
        }
        Ok(())
    }

    fn make_raw(&self, state: &mut State, input: &OwnedFd) -> io::Result<()> {
        if state.original.is_none() {
            state.original = Some(tcgetattr(input)?);
        }
        let Some(mut modes) = state.original.clone() else { return Ok(()) };
        modes.make_raw();
        state.tell(watcher::Word::Raw);
        tcsetattr(input, OptionalActions::Now, &modes)?;
        state.is_raw = true;
        Ok(())
    }

    /// Puts back the modes, if they were changed.
    fn make_original(&self, state: &mut State, input: &OwnedFd) -> io::Result<()> {
        let Some(original) = state.original.as_ref().filter(|_| state.is_raw) else { return Ok(()) };
        tcsetattr(input, OptionalActions::Now, original)?;
        state.is_raw = false;
        state.tell(watcher::Word::Original);
        Ok(())
    }

    /// Gives the terminal its modes back while this process is stopped.
    fn pause(&self) {
        let Some(input) = &self.input else { return };
        let mut state = self.state();
        if is_foreground(input)
            && let Err(error) = self.make_original(&mut state, input)
        {
            tracing::debug!(%error, "the terminal was not put back");
        }
        // Whoever has the terminal now sets its modes.
        state.is_raw = false;
    }

    /// Sets the mode again that the guest wants, if that can be done now.
    fn resume(&self) {
        self.changed.send_replace(());
        let Some(input) = &self.input else { return };
        let mut state = self.state();
        if !state.is_wanted || state.is_over || !is_foreground(input) {
            return;
        }
        if let Err(error) = self.make_raw(&mut state, input) {
            tracing::debug!(%error, "raw mode was not set again");
        }
    }

    /// Whether the guest wants raw mode and it is not set, since this process is in the background.
    fn is_waiting(&self) -> bool {
        let state = self.state();
        state.is_wanted && !state.is_raw && !state.is_over
    }

    /// Puts everything back, for good.
    fn restore(&self) {
        self.is_closed.store(true, Ordering::SeqCst);
        let mut state = self.state();
        if std::mem::replace(&mut state.is_over, true) {
            return;
        }
        let is_foreground = self.input.as_ref().or(self.output.as_ref()).is_some_and(is_foreground);
        if let Some(input) = self.input.as_ref().filter(|_| is_foreground)
            && let Err(error) = self.make_original(&mut state, input)
        {
            tracing::debug!(%error, "the terminal was not put back");
        }
        if let Some(output) = &self.output
            && is_foreground
            && self.is_commanded.load(Ordering::SeqCst)
        {
            self.wait_for_last_write();
            reset::write(output, LAST_WRITE);
        }
        if let Some(watcher) = state.watcher.take() {
            watcher.dismiss();
        }
        self.changed.send_replace(());
    }

    /// Waits until the guest's output that is being written has been written, or for long enough.
    fn wait_for_last_write(&self) {
        let deadline = Instant::now() + LAST_WRITE;
        while let Err(TryLockError::WouldBlock) = self.writing.try_lock() {
            if Instant::now() >= deadline {
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl State {
    fn tell(&mut self, word: watcher::Word) {
        if let Some(watcher) = &mut self.watcher {
            watcher.tell(word);
        }
    }

    fn tell_commanded(&mut self) {
        self.tell(watcher::Word::Commanded);
    }
}

/// Whether this process may set the modes of a terminal. It may set those of one that does not control it.
fn is_foreground(terminal: &OwnedFd) -> bool {
    tcgetpgrp(terminal).map_or(true, |foreground| foreground == rustix::process::getpgrp())
}

/// Looks for what a terminal obeys, other than a line feed and the like, in output that comes in pieces: escapes, a shift to
/// another set of characters, and C1 controls in UTF-8.
#[derive(Debug, Default)]
pub struct Commands {
    /// The last byte of the piece before.
    last: u8,
}

impl Commands {
    /// Whether there is such a thing in the next piece.
    pub fn are_in(&mut self, bytes: &[u8]) -> bool {
        const ESCAPE: u8 = 0x1b;
        const SHIFT_OUT: u8 = 0x0e;
        /// Of the characters from U+0080 to U+00BF.
        const FIRST_OF_C1: u8 = 0xc2;
        let mut found = false;
        for byte in bytes {
            let is_c1 = self.last == FIRST_OF_C1 && matches!(byte, 0x80..=0x9f);
            found |= is_c1 || matches!(*byte, ESCAPE | SHIFT_OUT);
            self.last = *byte;
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_told_from_text() {
        let check = |pieces: &[&[u8]], expected: bool| {
            let mut commands = Commands::default();
            assert_eq!(pieces.iter().filter(|piece| commands.are_in(piece)).count() > 0, expected, "{pieces:?}");
        };
        check(&[b"plain\r\n\ttext", "größer, 名前, 🦀".as_bytes()], false);
        check(&[b"a", b"\x1b", b"[1m"], true);
        check(&[b"\x0e"], true);
        check(&["\u{9b}2J".as_bytes()], true);
        check(&[b"\xc2", b"\x9b2J"], true);
    }

    #[test]
    fn what_is_no_terminal_has_no_modes() {
        let file = tempfile::tempfile().unwrap();
        let fds = [file.as_fd(), file.as_fd(), file.as_fd()];
        let terminal = Terminal::new(fds, "/nowhere".into()).unwrap();
        assert!(matches!(terminal.size(), Err(TerminalError::NoTerminal)));
        assert!(matches!(terminal.set_raw(true), Err(TerminalError::NoInput)));
        terminal.pass(true, || Ok(())).unwrap();
        terminal.0.restore();
        let late = terminal.pass(false, || panic!("nothing is written any more"));
        assert_eq!(late.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
