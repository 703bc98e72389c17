//! A pseudo-terminal with a program on it, and a person before it.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;
use nix::pty::{grantpt, posix_openpt, ptsname_r, unlockpt};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use rustix::termios::{InputModes, LocalModes, OutputModes, Winsize, tcgetattr, tcsetwinsize};

/// What takes longer hangs. No test depends on its value.
const WATCHDOG: Duration = Duration::from_secs(120);

/// A pseudo-terminal.
pub(crate) struct Pty {
    /// The side of the person.
    master: File,
    /// The side of programs, which stays open, so that it is there when they have ended.
    slave: File,
    shown: Arc<Shown>,
}

#[derive(Default)]
struct Shown {
    bytes: Mutex<Vec<u8>>,
    more: Condvar,
}

/// The modes that raw mode changes.
pub(crate) type Modes = (InputModes, OutputModes, LocalModes);

impl Pty {
    pub(crate) fn open() -> Self {
        let master = posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname_r(&master).unwrap();
        let slave = File::options().read(true).write(true).custom_flags(OFlag::O_NOCTTY.bits()).open(name).unwrap();
        let master = File::from(OwnedFd::from(master));
        let shown = Arc::new(Shown::default());
        let (mut reader, collected) = (master.try_clone().unwrap(), shown.clone());
        // Ends with an error when the other side is closed.
        thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(size @ 1..) = reader.read(&mut piece) {
                collected.bytes.lock().unwrap().extend_from_slice(&piece[..size]);
                collected.more.notify_all();
            }
        });
        let pty = Self { master, slave, shown };
        pty.resize(80, 24);
        pty
    }

    /// Starts a program that is controlled by this terminal.
    pub(crate) fn spawn(&self, command: &Command) -> Child {
        let mut on_terminal = Command::new("setsid");
        on_terminal.arg("--ctty").arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => on_terminal.env(name, value),
                None => on_terminal.env_remove(name),
            };
        }
        let side = || Stdio::from(self.slave.try_clone().unwrap());
        on_terminal.stdin(side()).stdout(side()).stderr(side()).spawn().unwrap()
    }

    /// Types this.
    pub(crate) fn type_in(&self, bytes: &[u8]) {
        (&self.master).write_all(bytes).unwrap();
    }

    /// Forgets what was typed and not read yet.
    pub(crate) fn take_back(&self) {
        rustix::termios::tcflush(&self.slave, rustix::termios::QueueSelector::IFlush).unwrap();
    }

    /// Waits until this has been shown.
    #[track_caller]
    pub(crate) fn expect(&self, text: &str) {
        let deadline = Instant::now() + WATCHDOG;
        let mut bytes = self.shown.bytes.lock().unwrap();
        while !String::from_utf8_lossy(&bytes).contains(text) {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "{text:?} is not in {:?}", String::from_utf8_lossy(&bytes));
            bytes = self.shown.more.wait_timeout(bytes, left).unwrap().0;
        }
    }

    /// What has been shown, when all has been read that was written before.
    pub(crate) fn shown(&self) -> String {
        const MARK: &str = "<that was all>";
        (&self.slave).write_all(MARK.as_bytes()).unwrap();
        self.expect(MARK);
        let bytes = self.shown.bytes.lock().unwrap();
        String::from_utf8_lossy(&bytes).split(MARK).next().unwrap().to_owned()
    }

    pub(crate) fn resize(&self, columns: u16, rows: u16) {
        tcsetwinsize(&self.master, Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
    }

    pub(crate) fn modes(&self) -> Modes {
        let modes = tcgetattr(&self.slave).unwrap();
        (modes.input_modes, modes.output_modes, modes.local_modes)
    }

    pub(crate) fn is_raw(&self) -> bool {
        let (input, output, local) = self.modes();
        !local.intersects(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG | LocalModes::IEXTEN)
            && !output.contains(OutputModes::OPOST)
            && !input.intersects(InputModes::ICRNL | InputModes::IXON)
    }
}

/// Waits until something is so.
#[track_caller]
pub(crate) fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + WATCHDOG;
    while !is_so() {
        assert!(Instant::now() < deadline, "it never came to be so: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

pub(crate) fn signal(process: &Child, signal: Signal) {
    kill_process(pid(process), signal).unwrap();
}

/// Sends a signal to a process on a terminal and to whatever it has started, but for what has left its group.
pub(crate) fn signal_group(process: &Child, signal: Signal) {
    kill_process_group(pid(process), signal).unwrap();
}

fn pid(process: &Child) -> Pid {
    Pid::from_raw(i32::try_from(process.id()).unwrap()).unwrap()
}

/// Whether a process is stopped (proc(5)).
pub(crate) fn is_stopped(process: &Child) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{}/stat", process.id())).unwrap();
    status.rsplit_once(") ").unwrap().1.starts_with('T')
}
