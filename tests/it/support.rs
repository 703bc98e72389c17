//! What the tests share: the real `ww`, the real guests, images made of them.

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// A process that is still running after this long hangs. Far longer than anything takes on a loaded machine; no test
/// depends on its value.
const WATCHDOG: Duration = Duration::from_secs(180);

/// The same where the C library of a language may be compiled twice: a minute and a half on an idle machine.
const WATCHDOG_OF_SLOW: Duration = Duration::from_secs(1200);

/// This repository.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The compiled guest `name`.
pub(crate) fn guest(name: &str) -> PathBuf {
    let path = root().join(format!("target/ww/guests/{name}.wasm"));
    assert!(path.is_file(), "{} is missing: run `make guests`, or `make test`, which does", path.display());
    path
}

/// Says that a test was skipped, for want of `what`: past the harness, which would hide it. A word of the variable
/// `WW_REQUIRE` that is `what` makes it a failure, so that nothing is skipped where all is there to be tested with.
#[expect(clippy::disallowed_methods, reason = "only the test's environment can tell")]
pub(crate) fn skipped(what: &str, why: &str) {
    let required = std::env::var("WW_REQUIRE").unwrap_or_default();
    assert!(!required.split_whitespace().any(|word| word == what), "WW_REQUIRE has `{what}`, but {why}");
    let name = thread::current().name().unwrap_or_default().to_owned();
    let _ = writeln!(std::io::stderr(), "skipped: {name}: {why}");
}

/// An image with these files, as pairs of a path in the image and a file that is copied there.
pub(crate) fn image(files: &[(&str, &Path)]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (path, source) in files {
        let target = dir.path().join(path);
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::copy(source, target).unwrap();
    }
    dir
}

/// An image whose program is the guest `name`.
pub(crate) fn image_of(name: &str) -> TempDir {
    image(&[("bin/main.wasm", &guest(name))])
}

/// The image of the guest `probe`, with itself and child-echo as programs for children.
pub(crate) fn probe_image() -> TempDir {
    let (probe, child_echo) = (guest("probe"), guest("child-echo"));
    image(&[("bin/main.wasm", &probe), ("bin/probe.wasm", &probe), ("bin/child-echo.wasm", &child_echo)])
}

/// `ww` with these arguments, in an environment of its own.
pub(crate) fn ww(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ww"));
    command.args(args).env("NO_COLOR", "1").stdin(Stdio::null());
    // What one test has compiled, others need not.
    command.env("XDG_CACHE_HOME", concat!(env!("CARGO_TARGET_TMPDIR"), "/cache"));
    // What a developer or a CI system may have set.
    for name in ["RUST_LOG", "WW_LOCKED", "GITHUB_ACTIONS", "GITHUB_WORKSPACE"] {
        command.env_remove(name);
    }
    command
}

/// `ww run IMAGE`, listening on loopback only, with these further arguments.
pub(crate) fn ww_run(image: &Path, args: &[&str]) -> Command {
    let mut command = ww(&["-q", "run", "--listen", "/ip4/127.0.0.1/tcp/0"]);
    command.arg(image).args(args);
    command
}

/// What a process did.
pub(crate) struct Done {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Done {
    fn new(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Checks the exit code, and shows everything where it is another.
    #[track_caller]
    pub(crate) fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "\n--- stdout\n{}\n--- stderr\n{}", self.stdout, self.stderr);
        self
    }
}

/// Runs a command to its end, with `input` as its standard input.
pub(crate) fn finish_with(command: &mut Command, input: Vec<u8>) -> Done {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // A process need not read its input, so a broken pipe is no failure of the test.
    let writer = thread::spawn(move || drop(stdin.write_all(&input)));
    let done = collect(child);
    writer.join().unwrap();
    done
}

/// Runs a command to its end, without input.
pub(crate) fn finish(command: &mut Command) -> Done {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    collect(command.spawn().unwrap())
}

/// As [`finish`], of one that takes long: it compiles what others find compiled, and not only once.
pub(crate) fn finish_slow(command: &mut Command) -> Done {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    collect_within(command.spawn().unwrap(), WATCHDOG_OF_SLOW)
}

/// Waits for the end of a process whose outputs are pipes.
pub(crate) fn collect(child: Child) -> Done {
    collect_within(child, WATCHDOG)
}

fn collect_within(mut child: Child, limit: Duration) -> Done {
    let (stdout, stderr) = (drain(child.stdout.take()), drain(child.stderr.take()));
    let status = wait_within(&mut child, limit);
    Done::new(Output { status, stdout: stdout.join().unwrap(), stderr: stderr.join().unwrap() })
}

fn drain(stream: Option<impl Read + Send + 'static>) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut stream) = stream {
            stream.read_to_end(&mut bytes).unwrap();
        }
        bytes
    })
}

/// Waits for the end of a process, and ends one that hangs.
pub(crate) fn wait(child: &mut Child) -> ExitStatus {
    wait_within(child, WATCHDOG)
}

fn wait_within(child: &mut Child, limit: Duration) -> ExitStatus {
    let started = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if started.elapsed() > limit {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("the process did not end");
        }
        thread::sleep(Duration::from_millis(2));
    }
}

/// Runs the probe with these arguments.
pub(crate) fn probe(args: &[&str]) -> Done {
    let image = probe_image();
    finish(ww_run(image.path(), &["--"]).args(args))
}

/// Replaces what differs from run to run: peer ids, and port numbers in addresses.
pub(crate) fn redact(text: &str) -> String {
    let mut shown = replace_after(text, "12D3KooW", "<id>", char::is_alphanumeric, true);
    for transport in ["/tcp/", "/udp/"] {
        shown = replace_after(&shown, transport, "<port>", |character| character.is_ascii_digit(), false);
    }
    shown
}

/// Replaces the characters after each `prefix`, and the prefix with them where that is wanted.
fn replace_after(text: &str, prefix: &str, by: &str, belongs: fn(char) -> bool, with_prefix: bool) -> String {
    let mut pieces = text.split(prefix);
    let mut shown = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        shown.push_str(if with_prefix { "" } else { prefix });
        shown.push_str(by);
        shown.push_str(piece.trim_start_matches(belongs));
    }
    shown
}
