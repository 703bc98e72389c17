//! Everything that `ww` itself shows: results on standard output, all else on standard error.

use std::borrow::Cow;
use std::io::{self, IsTerminal as _, Write};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::error::Failure;
use super::{env, exit_code, github};

/// Writes a line of the result.
///
/// # Errors
///
/// Standard output takes no more, for example because its reader has gone.
pub(super) fn result_line(line: &str) -> io::Result<()> {
    if TRANSIENT_LINES.load(Ordering::Relaxed) > 0 {
        transient("");
    }
    writeln!(Watched(io::stdout().lock()), "{}", shown(line))
}

/// Writes a command for GitHub Actions as a line of the result.
///
/// # Errors
///
/// As of [`result_line`].
pub(super) fn result_command(line: &str) -> io::Result<()> {
    writeln!(Watched(io::stdout().lock()), "{line}")
}

/// A text as it can be shown here: whatever is in it, a line is no command but for those who say so.
fn shown(text: &str) -> Cow<'_, str> {
    if github::is_here() { github::tamed(text) } else { Cow::Borrowed(text) }
}

/// Writes a result that is not text of ours.
pub(super) fn result_bytes(write: impl FnOnce(&mut dyn Write) -> Result<(), Failure>) -> Result<(), Failure> {
    if TRANSIENT_LINES.load(Ordering::Relaxed) > 0 {
        transient("");
    }
    // Without the buffer of lines that standard output has.
    let stdout = Watched(io::stdout().lock());
    let mut out = io::BufWriter::with_capacity(RESULT_BUFFER_BYTES, stdout);
    write(&mut out)?;
    out.flush().map_err(|error| Failure::new(exit_code::FAILURE, &error))
}

/// How many bytes of a result are written at a time.
const RESULT_BUFFER_BYTES: usize = 256 << 10;

/// Whether whoever read standard output has gone, as `head` does when it has enough. Set once.
static IS_READER_GONE: AtomicBool = AtomicBool::new(false);

/// Whether the reader of standard output has gone. Then nobody waits for the rest of the result, nor for why it did not
/// come.
pub(super) fn is_reader_gone() -> bool {
    IS_READER_GONE.load(Ordering::Relaxed)
}

/// Standard output, which notices that.
struct Watched(io::StdoutLock<'static>);

impl Write for Watched {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        noticed(self.0.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        noticed(self.0.flush())
    }
}

fn noticed<T>(written: io::Result<T>) -> io::Result<T> {
    if written.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::BrokenPipe) {
        IS_READER_GONE.store(true, Ordering::Relaxed);
    }
    written.map_err(|error| io::Error::new(error.kind(), StdoutError(error)))
}

/// That standard output takes no more. What the system says of it alone would not tell where.
#[derive(Debug, thiserror::Error)]
#[error("cannot write to standard output")]
struct StdoutError(#[source] io::Error);

/// Whether progress is kept to itself; set once, when the command line has been read.
static QUIET: AtomicBool = AtomicBool::new(false);

/// Has [`progress`] say nothing from now on.
pub(super) fn be_quiet() {
    QUIET.store(true, Ordering::Relaxed);
}

/// Says what is going on, unless the user wants to hear only what went wrong.
pub(super) fn progress(line: &str) {
    if !QUIET.load(Ordering::Relaxed) {
        to_stderr(line);
    }
}

/// Shows how far something has come, on a line that what follows takes the place of; an empty one only clears it. For
/// terminals: see [`env::stderr_is_screen`].
pub(super) fn transient(line: &str) {
    let lines = [line.to_owned()];
    transient_lines(if line.is_empty() { &[] } else { &lines });
}

/// The same with several lines, none longer than the terminal is wide.
pub(super) fn transient_lines(lines: &[String]) {
    if !is_quiet() {
        let mut stderr = io::stderr().lock();
        let clear = clear(TRANSIENT_LINES.swap(lines.len(), Ordering::Relaxed));
        // Where standard error is closed there is nobody to tell.
        let _ = write!(stderr, "{clear}{}", lines.join("\n")).and_then(|()| stderr.flush());
    }
}

/// How many lines of the terminal, the present one and those above it, are transient. Changed by whoever has locked standard
/// error.
static TRANSIENT_LINES: AtomicUsize = AtomicUsize::new(0);

/// To the start of the first of so many lines, and remove what is from there on (ECMA-48: CUU, ED).
fn clear(lines: usize) -> String {
    match lines {
        0 => String::new(),
        1 => "\r\x1b[K".to_owned(),
        lines => format!("\r\x1b[{}A\x1b[J", lines - 1),
    }
}

/// Whether progress is kept to itself.
pub(super) fn is_quiet() -> bool {
    QUIET.load(Ordering::Relaxed)
}

/// Says something that the user is to know in any case.
pub(super) fn status(line: &str) {
    to_stderr(line);
}

/// Says a command for GitHub Actions, or a line that others fence off.
pub(super) fn command(line: &str) {
    write_to_stderr(line);
}

/// Says what failed, why, and what to do.
pub(super) fn failure(failure: &Failure) {
    let mut text = String::new();
    if !failure.message.is_empty() {
        text.push_str(&format!("{} {}", label("error:", "1;31"), failure.message));
    }
    for cause in &failure.causes {
        text.push_str(&format!("\n  caused by: {}", cause.replace('\n', "\n    ")));
    }
    for help in &failure.help {
        text.push_str(&format!("\n  {} {help}", label("help:", "1;36")));
    }
    to_stderr(text.trim_start_matches('\n'));
}

fn label(text: &str, style: &str) -> String {
    if env::stderr_has_colours() { format!("\x1b[{style}m{text}\x1b[0m") } else { text.to_owned() }
}

fn to_stderr(text: &str) {
    write_to_stderr(&shown(text));
}

fn write_to_stderr(text: &str) {
    if !text.is_empty() {
        let mut stderr = io::stderr().lock();
        let clear = clear(TRANSIENT_LINES.swap(0, Ordering::Relaxed));
        let said = format!("{clear}{text}\n");
        // Where standard error is closed there is nobody to tell.
        let _ = write_all(&mut stderr, said.as_bytes());
    }
}

/// Writes events of the log.
pub(super) fn log(events: &[u8]) -> io::Result<()> {
    write_all(&mut io::stderr().lock(), events)
}

fn write_all(stderr: &mut io::StderrLock<'_>, said: &[u8]) -> io::Result<()> {
    match STOPPED.get() {
        None => stderr.write_all(said),
        Some(is_stopped) => write_until(stderr, said, is_stopped),
    }
}

/// Whether a signal has come that is to end this process; set once, if anybody wants that.
static STOPPED: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// How often it is looked at.
const LOOK_AGAIN: Timespec = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };

/// As much as a pipe takes at once or not at all (POSIX: `PIPE_BUF`), and as much of it as a terminal has room for where it says
/// that it has some.
const PIECES_BYTES: [usize; 2] = [4096, 256];

/// Has messages be given up, from now on, for which there is no room when one of these signals has come: who waits for a log that
/// nobody reads would attend to no signal.
pub(super) fn give_up_after(signals: &[std::ffi::c_int]) -> io::Result<()> {
    let is_stopped = STOPPED.get_or_init(Arc::default);
    signals.iter().try_for_each(|signal| signal_hook::flag::register(*signal, is_stopped.clone()).map(drop))
}

fn write_until(stderr: &mut io::StderrLock<'_>, said: &[u8], is_stopped: &AtomicBool) -> io::Result<()> {
    let piece_bytes = PIECES_BYTES[usize::from(stderr.is_terminal())];
    for piece in said.chunks(piece_bytes) {
        while poll(&mut [PollFd::new(&*stderr, PollFlags::OUT)], Some(&LOOK_AGAIN)).unwrap_or(0) == 0 {
            if is_stopped.load(Ordering::Relaxed) {
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
        stderr.write_all(piece)?;
    }
    Ok(())
}
