//! Runs one child process: in a process group of its own, line by line, and stopped with everything in that group.

use std::collections::HashSet;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, SyncSender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};

/// Longest line in bytes where there is no reason for another; what is longer is cut. Longer than any message of cargo,
/// short enough to hold a few.
pub(super) const LINE_BYTES_MAX: usize = 1 << 20;

/// Lines that wait for the receiver before a child's writes block.
const LINES_QUEUED_MAX: usize = 16;

/// How much is taken of what is there later than that after a program's end, and one line more: more than pipes and queues hold.
/// Somebody outside of its group may write for ever.
const LATE_BYTES_MAX: usize = 2 << 20;

/// How long output is awaited after the child has ended and its group was killed. Only a process that left the group
/// can still hold the pipe: a server that the build started for later.
const OUTPUT_GRACE: Duration = Duration::from_secs(2);

/// Stops builds from another thread, such as the one that takes Ctrl-C. Clones stop the same builds.
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<Mutex<CancelState>>);

#[derive(Debug, Default)]
struct CancelState {
    cancelled: bool,
    /// The process groups that run. Whoever removes one kills it, before its leader is reaped: until then no other
    /// process can have its number.
    groups: HashSet<Pid>,
}

impl Cancel {
    /// Kills every child that runs, with all that it has started in its process group, and lets no further one start. Stays so.
    pub fn cancel(&self) {
        let mut state = self.lock();
        state.cancelled = true;
        for group in std::mem::take(&mut state.groups) {
            kill(group);
        }
    }

    /// Whether [`Cancel::cancel`] was called.
    pub fn is_cancelled(&self) -> bool {
        self.lock().cancelled
    }

    /// Starts a child under the lock, so that `cancel` either sees it or prevents it.
    fn start(&self, command: &mut Command) -> Result<(Child, Pid), ProcessError> {
        let mut state = self.lock();
        if state.cancelled {
            return Err(ProcessError::Cancelled);
        }
        let child = command.spawn().map_err(ProcessError::Start)?;
        let group = Pid::from_child(&child);
        state.groups.insert(group);
        Ok((child, group))
    }

    /// Kills a group, unless that was done before.
    fn end(&self, group: Pid) {
        if self.lock().groups.remove(&group) {
            kill(group);
        }
    }

    /// No code panics while it holds the lock, and the state is valid at each step.
    fn lock(&self) -> MutexGuard<'_, CancelState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn kill(group: Pid) {
    // The group may be empty already, which is what is wanted.
    let _ = rustix::process::kill_process_group(group, Signal::KILL);
}

/// Why a child did not run to its end.
#[derive(Debug)]
pub(super) enum ProcessError {
    /// It was stopped, or was not started any more.
    Cancelled,
    Start(io::Error),
    Wait(io::Error),
}

/// Where a line was written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stream {
    Stdout,
    Stderr,
}

enum Message {
    Line(Stream, Vec<u8>),
    /// A stream has ended.
    Closed,
    /// The child has ended; it is not reaped yet.
    Exited(io::Result<()>),
}

/// Kills the group when it is dropped, so that no way out of [`run`] leaves one behind.
struct Group<'a> {
    cancel: &'a Cancel,
    id: Pid,
}

impl Drop for Group<'_> {
    fn drop(&mut self) {
        self.cancel.end(self.id);
    }
}

/// Runs a command without input until it and its output have ended.
///
/// Lines come without their line feed, those of standard output cut at `stdout_line_bytes_max` and others at
/// [`LINE_BYTES_MAX`], with replacement characters for what is not UTF-8.
/// Whatever the child started in its group is killed when the child ends.
pub(super) fn run(
    command: &mut Command,
    cancel: &Cancel,
    stdout_line_bytes_max: usize,
    line: &mut dyn FnMut(Stream, &str),
) -> Result<ExitStatus, ProcessError> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let (mut child, id) = cancel.start(command)?;
    let group = Group { cancel, id };
    let (sender, receiver) = mpsc::sync_channel(LINES_QUEUED_MAX);
    let stdout = child.stdout.take().map(|pipe| forward(pipe, Stream::Stdout, stdout_line_bytes_max, sender.clone()));
    let stderr = child.stderr.take().map(|pipe| forward(pipe, Stream::Stderr, LINE_BYTES_MAX, sender.clone()));
    let mut open = usize::from(stdout.is_some()) + usize::from(stderr.is_some());
    watch(cancel.clone(), id, sender);

    let mut exited = None;
    let (mut deadline, mut late_bytes) = (None, 0);
    while open > 0 || exited.is_none() {
        match next(&receiver, deadline) {
            Some(Message::Line(stream, bytes)) => {
                if late_bytes > LATE_BYTES_MAX {
                    break;
                }
                if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                    late_bytes += bytes.len();
                }
                line(stream, &String::from_utf8_lossy(&bytes));
            }
            Some(Message::Closed) => open -= 1,
            Some(Message::Exited(result)) => {
                exited = Some(result);
                deadline = Some(Instant::now() + OUTPUT_GRACE);
            }
            None => break,
        }
    }
    drop(group);
    exited.unwrap_or(Ok(())).map_err(ProcessError::Wait)?;
    let status = child.wait().map_err(ProcessError::Wait)?;
    if cancel.is_cancelled() { Err(ProcessError::Cancelled) } else { Ok(status) }
}

/// The next message; `None` when there will be none, or none is there at the deadline or came until then. What is there is taken
/// also later: who shows the lines may have had to wait.
fn next(receiver: &mpsc::Receiver<Message>, deadline: Option<Instant>) -> Option<Message> {
    match deadline {
        None => receiver.recv().ok(),
        Some(deadline) => receiver.recv_timeout(deadline.saturating_duration_since(Instant::now())).ok(),
    }
}

/// Waits in a thread until the child ends, without reaping it, and then kills what is left of its group.
fn watch(cancel: Cancel, id: Pid, sender: SyncSender<Message>) {
    thread::spawn(move || {
        let result = rustix::process::waitid(WaitId::Pid(id), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT);
        cancel.end(id);
        // The receiver is gone only if nobody wants to know any more; the same holds in `forward`.
        let _ = sender.send(Message::Exited(result.map(drop).map_err(io::Error::from)));
    });
}

/// Sends the lines of a pipe from a thread. The thread ends with the pipe, or when the receiver is gone.
fn forward(pipe: impl Read + Send + 'static, stream: Stream, line_bytes_max: usize, sender: SyncSender<Message>) {
    thread::spawn(move || {
        let mut pipe = BufReader::new(pipe);
        while let Ok(Some(line)) = read_line(&mut pipe, line_bytes_max) {
            if sender.send(Message::Line(stream, line)).is_err() {
                return;
            }
        }
        let _ = sender.send(Message::Closed);
    });
}

/// The next line without its end, cut at a number of bytes; `None` at the end of the input.
fn read_line(input: &mut impl BufRead, bytes_max: usize) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    let mut seen = false;
    loop {
        let buffer = input.fill_buf()?;
        if buffer.is_empty() {
            return Ok(seen.then_some(line));
        }
        seen = true;
        let end = buffer.iter().position(|byte| *byte == b'\n');
        let part = &buffer[..end.unwrap_or(buffer.len())];
        line.extend_from_slice(&part[..part.len().min(bytes_max - line.len())]);
        let used = end.map_or(buffer.len(), |end| end + 1);
        input.consume(used);
        if end.is_some() {
            if line.last() == Some(&b'\r') {
                line.pop();
            }
            return Ok(Some(line));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.arg("-c").arg(script);
        command
    }

    fn lines(script: &str) -> (Vec<(Stream, String)>, ExitStatus) {
        let mut lines = Vec::new();
        let status = run(&mut shell(script), &Cancel::default(), LINE_BYTES_MAX, &mut |stream, line| {
            lines.push((stream, line.to_owned()));
        });
        (lines, status.unwrap())
    }

    #[test]
    fn lines_of_both_streams_and_the_status() {
        let (lines, status) = lines("echo out; printf 'err\\r\\nlast' >&2; exit 3");
        assert!(lines.contains(&(Stream::Stdout, "out".to_owned())));
        let stderr: Vec<&str> =
            lines.iter().filter(|(stream, _)| *stream == Stream::Stderr).map(|(_, line)| line.as_str()).collect();
        assert_eq!(stderr, ["err", "last"]);
        assert_eq!(status.code(), Some(3));
    }

    #[test]
    fn input_is_empty_and_odd_bytes_are_replaced() {
        let (lines, status) = lines("cat; printf '\\377\\n\\n'");
        assert_eq!(lines, [(Stream::Stdout, "\u{fffd}".to_owned()), (Stream::Stdout, String::new())]);
        assert!(status.success());
    }

    #[test]
    fn long_lines_are_cut() {
        let long = vec![b'x'; LINE_BYTES_MAX + 10];
        let mut input = BufReader::new(long.as_slice().chain(b"\nnext".as_slice()));
        assert_eq!(read_line(&mut input, LINE_BYTES_MAX).unwrap().unwrap().len(), LINE_BYTES_MAX);
        assert_eq!(read_line(&mut input, LINE_BYTES_MAX).unwrap().unwrap(), b"next");
        assert_eq!(read_line(&mut input, LINE_BYTES_MAX).unwrap(), None);
    }

    #[test]
    fn what_a_child_leaves_behind_is_killed() {
        let start = Instant::now();
        let (lines, status) = lines("sleep 600 & echo $!");
        assert!(status.success());
        assert!(start.elapsed() < Duration::from_secs(60));
        assert_gone(&lines[0].1);
    }

    #[test]
    fn who_left_the_group_and_writes_on_holds_up_nobody() {
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || {
            let dir = tempfile::tempdir().unwrap();
            let mut command =
                shell("setsid sh -c 'echo > left; exec yes' & until [ -e left ]; do :; done; echo its own; exit 3");
            let mut is_seen = false;
            let status = run(command.current_dir(dir.path()), &Cancel::default(), LINE_BYTES_MAX, &mut |_, line| {
                is_seen |= line == "its own";
            });
            let _ = sender.send((status.unwrap().code(), is_seen));
        });
        assert_eq!(receiver.recv_timeout(Duration::from_secs(60)), Ok((Some(3), true)));
    }

    #[test]
    fn cancel_kills_the_whole_group_and_stays() {
        let cancel = Cancel::default();
        let mut pid = String::new();
        let result = run(&mut shell("sleep 600 & echo $!; wait"), &cancel, LINE_BYTES_MAX, &mut |_, line| {
            line.clone_into(&mut pid);
            cancel.cancel();
        });
        assert!(matches!(result, Err(ProcessError::Cancelled)));
        assert_gone(&pid);
        assert!(matches!(
            run(&mut shell("true"), &cancel, LINE_BYTES_MAX, &mut |_, _| {}),
            Err(ProcessError::Cancelled)
        ));
        assert!(cancel.0.lock().unwrap().groups.is_empty());
    }

    #[test]
    fn a_missing_program_is_told_from_a_failing_one() {
        let result = run(&mut Command::new("/does/not/exist"), &Cancel::default(), LINE_BYTES_MAX, &mut |_, _| {});
        assert!(matches!(result, Err(ProcessError::Start(error)) if error.kind() == io::ErrorKind::NotFound));
    }

    /// Waits until a process that was killed is gone; whoever adopted it reaps it in its own time.
    #[track_caller]
    fn assert_gone(pid: &str) {
        let pid = Pid::from_raw(pid.parse().unwrap()).unwrap();
        let is_running = || {
            let state = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap_or_default();
            rustix::process::test_kill_process(pid).is_ok() && !state.contains(") Z ")
        };
        let deadline = Instant::now() + Duration::from_secs(10);
        while is_running() {
            assert!(Instant::now() < deadline, "process {pid:?} is still there");
            thread::yield_now();
        }
    }
}
