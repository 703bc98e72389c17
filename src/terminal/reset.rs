//! What puts back what escape sequences have changed.

use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// Sequences that are no change for a terminal that is as it should be, and that one without the feature ignores (ECMA-48,
/// DEC private modes, and xterm's `ctlseqs`).
pub(super) const SEQUENCES: &str = concat!(
    // The end of a string that has begun (ST).
    "\x1b\\",
    // The characters of G0, which are ASCII.
    "\x0f\x1b(B",
    // The main screen, with the cursor where it was left (DECRST 1049): some put it where it was last saved, also
    // where they show the main screen already, so it is saved before (DECSC).
    "\x1b7\x1b[?1049l",
    // Origin, margins, insertion and the like (DECSTR).
    "\x1b[!p",
    // The same for those that do not know it. Setting the margins moves the cursor.
    "\x1b[?6l\x1b7\x1b[r\x1b8\x1b[4l\x1b[?5l\x1b[?7h",
    // The cursor is shown, in its usual form.
    "\x1b[?25h\x1b[0 q",
    // Reports of the mouse, and of the focus.
    "\x1b[?9l\x1b[?1000l\x1b[?1001l\x1b[?1002l\x1b[?1003l\x1b[?1004l\x1b[?1005l\x1b[?1006l\x1b[?1015l\x1b[?1016l",
    // Marks around what is pasted, and output that waits to be shown.
    "\x1b[?2004l\x1b[?2026l",
    // The codes of keys: cursor keys, keypad, and those of kitty and xterm that have more to tell.
    "\x1b[?1l\x1b>\x1b[=0u\x1b[>4m",
    // Colours and the like.
    "\x1b[0m",
);

/// Writes them. Waits no longer than `time` for a terminal that takes nothing.
pub(super) fn write(terminal: &OwnedFd, time: Duration) {
    let Ok(terminal) = terminal.try_clone() else { return };
    let (done, written) = mpsc::channel();
    let write = move || {
        let _ = File::from(terminal).write_all(SEQUENCES.as_bytes());
        let _ = done.send(());
    };
    if thread::Builder::new().name("ww-terminal".into()).spawn(write).is_ok() {
        let _ = written.recv_timeout(time);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a person would notice in a shell afterwards is among them.
    #[test]
    fn what_a_guest_can_leave_behind_is_reset() {
        for (set, reset) in [
            ("\x1b[?1049h", "\x1b[?1049l"),
            ("\x1b[?25l", "\x1b[?25h"),
            ("\x1b[?1000h", "\x1b[?1000l"),
            ("\x1b[?1003h", "\x1b[?1003l"),
            ("\x1b[?1006h", "\x1b[?1006l"),
            ("\x1b[?2004h", "\x1b[?2004l"),
            ("\x1b[?7l", "\x1b[?7h"),
            ("\x1b[?1h", "\x1b[?1l"),
            ("\x0e", "\x0f"),
        ] {
            assert!(SEQUENCES.contains(reset) && !SEQUENCES.contains(set), "{reset:?}");
        }
        // It begins with the end of whatever has begun, and is no text.
        assert!(SEQUENCES.starts_with("\x1b\\") && !SEQUENCES.contains(['\n', '\r', '\t']));
    }
}
