//! What a process asks of the system, by ptrace(2): which needs no program that may not be there.

use std::collections::BTreeSet;
use std::ffi::c_int;
use std::fs;
use std::process::{Command, Stdio};
use std::thread;

use nix::libc::{self, c_long, pid_t};

/// What a process has done from the moment on in which it became the program that was asked for.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    /// Processes that it, or one of these, has started.
    pub(crate) processes: usize,
    /// Programs that have been started, itself included.
    pub(crate) programs: usize,
    /// Threads that it has started.
    pub(crate) threads: usize,
    /// The numbers of the system calls that were made.
    pub(crate) calls: BTreeSet<c_long>,
    /// The signals that it had handlers for when it ended, one bit each, the first signal the lowest.
    pub(crate) handled: u64,
    /// Its exit code.
    pub(crate) code: Option<c_int>,
}

impl Trace {
    /// Whether it had a handler for a signal.
    pub(crate) fn handles(&self, signal: c_int) -> bool {
        self.handled & (1 << (signal - 1)) != 0
    }
}

/// Runs a command to its end. Its standard streams are closed to it.
pub(crate) fn trace(command: &Command) -> Trace {
    // It stops itself before it begins, so that nothing is missed.
    let mut stopped = Command::new("/bin/sh");
    stopped.args(["-c", "kill -STOP $$; exec \"$0\" \"$@\""]).arg(command.get_program()).args(command.get_args());
    stopped.current_dir(command.get_current_dir().unwrap());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => stopped.env(name, value),
            None => stopped.env_remove(name),
        };
    }
    stopped.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    // Only the thread that has begun to trace may go on with it, and it must not wait for the children of other tests.
    thread::spawn(move || follow(stopped)).join().unwrap()
}

fn follow(mut command: Command) -> Trace {
    #[expect(clippy::zombie_processes, reason = "it is waited for below, by another call")]
    let child = command.spawn().unwrap();
    let main = pid_t::try_from(child.id()).unwrap();
    let (waited, status) = wait(main, libc::WUNTRACED);
    assert!(waited == main && libc::WIFSTOPPED(status), "{status:#x}");
    let options = libc::PTRACE_O_TRACEFORK
        | libc::PTRACE_O_TRACEVFORK
        | libc::PTRACE_O_TRACECLONE
        | libc::PTRACE_O_TRACEEXEC
        | libc::PTRACE_O_TRACEEXIT
        | libc::PTRACE_O_TRACESYSGOOD
        | libc::PTRACE_O_EXITKILL;
    ptrace(libc::PTRACE_SEIZE, main, options).expect("this test needs leave to trace a process of its own");
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::CONT).unwrap();
    let mut trace = Trace::default();
    loop {
        let (thread, status) = wait(-1, libc::__WALL | libc::__WNOTHREAD);
        if libc::WIFEXITED(status) || libc::WIFSIGNALED(status) {
            if thread == main {
                trace.code = libc::WIFEXITED(status).then(|| libc::WEXITSTATUS(status));
                return trace;
            }
            continue;
        }
        let (signal, event) = (libc::WSTOPSIG(status), status >> 16);
        let is_begun = trace.programs > 0;
        let mut deliver = 0;
        match event {
            libc::PTRACE_EVENT_EXEC => trace.programs += 1,
            libc::PTRACE_EVENT_FORK | libc::PTRACE_EVENT_VFORK if is_begun => trace.processes += 1,
            libc::PTRACE_EVENT_CLONE if is_begun => trace.threads += 1,
            libc::PTRACE_EVENT_EXIT if thread == main => trace.handled = handled(main),
            0 if signal == libc::SIGTRAP | 0x80 => trace.calls.extend(call(thread).filter(|_| is_begun)),
            0 => deliver = signal,
            _ => {}
        }
        // One that was killed meanwhile is told of by the next wait.
        let _ = ptrace(libc::PTRACE_SYSCALL, thread, deliver);
    }
}

fn wait(pid: pid_t, options: c_int) -> (pid_t, c_int) {
    let mut status = 0;
    #[expect(unsafe_code, reason = "the crate that has this call has it in a feature that nothing else needs")]
    // SAFETY: the call writes to `status`, which lives longer, and to nothing else.
    let waited = unsafe { libc::waitpid(pid, &raw mut status, options) };
    assert!(waited > 0, "{}", std::io::Error::last_os_error());
    (waited, status)
}

/// Requests without an address of ours.
fn ptrace(request: libc::c_uint, pid: pid_t, data: c_int) -> std::io::Result<()> {
    #[expect(unsafe_code, reason = "as of `wait`")]
    // SAFETY: neither of the two requests that are made, SEIZE and SYSCALL, reads or writes memory of this process: both take a
    // number in the last argument, and ignore the one before.
    let answer = unsafe { libc::ptrace(request, pid, 0_usize, usize::try_from(data).unwrap()) };
    if answer == -1 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
}

/// The number of the system call that a thread is stopped at.
fn call(thread: pid_t) -> Option<c_long> {
    let text = fs::read_to_string(format!("/proc/{thread}/syscall")).ok()?;
    text.split_whitespace().next()?.parse().ok()
}

/// The signals that a process has handlers for.
fn handled(pid: pid_t) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let bits = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
    u64::from_str_radix(bits.trim(), 16).unwrap()
}
