//! Runs the programs of WebAssembly/wasi-testsuite for WASI 0.1 in `ww`, wrapped into components.
//!
//! usage: `wasi-testsuite WW SUITE`, where SUITE is a folder with a checkout of the suite's branch that has compiled tests
//! (`prod/testsuite-base`). `scripts/wasi-testsuite SUITE` builds and calls it.
//!
//! Each test is an image of its own; one with files gets a copy of them as its whole file system, to be written. One that must
//! have no files at all, not even its image, is the child of a guest of ours, which has none. What fails is listed, and it is an
//! error if that is more or less than what is known to fail.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for people")]

use std::collections::BTreeMap;
use std::error::Error;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Output, Stdio};
use std::{env, fs};

use serde_json::Value;
use wasi_preview1_component_adapter_provider::{
    WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, WASI_SNAPSHOT_PREVIEW1_COMMAND_ADAPTER,
};
use wit_component::ComponentEncoder;

/// The tests that fail, each with the reason.
const KNOWN: [(&str, &str); 4] = [
    ("assemblyscript/args_get-multiple-arguments", ALLOCATOR),
    ("assemblyscript/environ_get-multiple-variables", ALLOCATOR),
    ("assemblyscript/fd_write-to-invalid-fd", "the adapter looks at no descriptor where nothing is written"),
    ("assemblyscript/proc_exit-failure", "the adapter knows success and failure, and no codes"),
];

/// The allocator of AssemblyScript begins with the first allocation, takes all memory up to the end for its own, and so
/// overwrites what the adapter has put there for a call before it.
const ALLOCATOR: &str = "its allocator takes the page of memory that the adapter has grown for itself";

/// The tests for a process without files, in which descriptor 3 is none: a cell has its image there, and a child its `/tmp`, unless that has no room.
const WITHOUT_FILES: [&str; 1] = ["c/sock_shutdown-invalid_fd"];

fn main() -> ExitCode {
    let args: Vec<PathBuf> = env::args_os().skip(1).map(PathBuf::from).collect();
    let [ww, suite] = &args[..] else {
        eprintln!("usage: wasi-testsuite WW SUITE");
        return ExitCode::from(2);
    };
    match run_all(ww, suite) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs all tests; whether just those failed that are known to fail.
fn run_all(ww: &Path, suite: &Path) -> Result<bool, Box<dyn Error>> {
    let known: BTreeMap<&str, &str> = KNOWN.into_iter().collect();
    let (mut passed, mut failed, mut unexpected) = (0, 0, 0);
    for language in ["rust", "c", "assemblyscript"] {
        let dir = suite.join("tests").join(language).join("testsuite/wasm32-wasip1");
        for test in tests(&dir)? {
            let name = format!("{language}/{}", test.file_stem().and_then(OsStr::to_str).unwrap_or_default());
            let outcome = match WITHOUT_FILES.contains(&name.as_str()) {
                true => run_as_child(ww, &test)?,
                false => run(ww, &dir, &test)?,
            };
            let is_known = known.get(name.as_str());
            match (&outcome, is_known) {
                (Ok(()), None) => passed += 1,
                (Ok(()), Some(_)) => {
                    passed += 1;
                    unexpected += 1;
                    println!("{name}: passes, and was known to fail");
                }
                (Err(_), Some(reason)) => {
                    failed += 1;
                    println!("{name}: fails, as is known: {reason}");
                }
                (Err(why), None) => {
                    failed += 1;
                    unexpected += 1;
                    println!("{name}: FAILS: {why}");
                }
            }
        }
    }
    println!("{passed} passed, {failed} failed");
    if passed + failed == 0 {
        return Err(format!("there are no tests in {}", suite.display()).into());
    }
    Ok(unexpected == 0)
}

fn tests(dir: &Path) -> Result<Vec<PathBuf>, Box<dyn Error>> {
    let mut tests = Vec::new();
    for entry in fs::read_dir(dir).map_err(|error| format!("{}: {error}", dir.display()))? {
        let path = entry?.path();
        if path.extension() == Some(OsStr::new("wasm")) {
            tests.push(path);
        }
    }
    tests.sort();
    Ok(tests)
}

/// What a test did otherwise than it should, if anything.
type Outcome = Result<(), String>;

/// Runs a test.
fn run(ww: &Path, dir: &Path, test: &Path) -> Result<Outcome, Box<dyn Error>> {
    let expected: Value = match fs::read(test.with_extension("json")) {
        Ok(text) => serde_json::from_slice(&text)?,
        Err(_) => Value::Null,
    };
    let scratch = tempfile::tempdir()?;
    let image = image(scratch.path(), &[("main.wasm", wrap(&fs::read(test)?)?)])?;
    let mut command = ww_run(ww, &image);
    for (name, value) in expected["env"].as_object().into_iter().flatten() {
        command.arg("--env").arg(format!("{name}={}", value.as_str().unwrap_or_default()));
    }
    if let Some(root) = expected["root"].as_str() {
        let files = scratch.path().join("files");
        copy(&dir.join(root), &files)?;
        command.arg("--mount").arg(format!("{}:/:rw", files.display()));
    }
    command.arg("--").args(expected["args"].as_array().into_iter().flatten().filter_map(Value::as_str));
    let output = command.stdin(Stdio::null()).output()?;
    Ok(check(&output, expected["exit_code"].as_i64().unwrap_or(0), expected["stdout"].as_str()))
}

/// Runs a test that is to end with success as a child, of which its parent says how it ended.
fn run_as_child(ww: &Path, test: &Path) -> Result<Outcome, Box<dyn Error>> {
    let parent = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/ww/guests/probe.wasm");
    let parent = fs::read(&parent).map_err(|error| format!("{}: {error}: run `make guests`", parent.display()))?;
    let scratch = tempfile::tempdir()?;
    let image = image(scratch.path(), &[("main.wasm", parent), ("test.wasm", wrap(&fs::read(test)?)?)])?;
    let mut command = ww_run(ww, &image);
    // A child without room in `/tmp` has no files.
    let output = command.args(["--limit", "tmp=0", "--", "spawn", "/bin/test.wasm"]).stdin(Stdio::null()).output()?;
    Ok(check(&output, 0, Some("ok: exit code 0\n")))
}

/// An image with these programs.
fn image(scratch: &Path, programs: &[(&str, Vec<u8>)]) -> Result<PathBuf, Box<dyn Error>> {
    let image = scratch.join("image");
    fs::create_dir_all(image.join("bin"))?;
    for (name, wasm) in programs {
        fs::write(image.join("bin").join(name), wasm)?;
    }
    Ok(image)
}

fn ww_run(ww: &Path, image: &Path) -> Command {
    let mut command = Command::new(ww);
    command.args(["-q", "run", "--listen", "/ip4/127.0.0.1/tcp/0", "--limit", "wall-time=60s"]).arg(image);
    command
}

fn check(output: &Output, code: i64, expected_stdout: Option<&str>) -> Outcome {
    if output.status.code().map(i64::from) != Some(code) {
        let stderr = String::from_utf8_lossy(&output.stderr);
        let shown: Vec<_> = stderr.lines().take(3).collect();
        return Err(format!("exit code {:?} and not {code}: {}", output.status.code(), shown.join(" | ")));
    }
    let stdout = String::from_utf8_lossy(&output.stdout);
    match expected_stdout {
        Some(expected) if expected != stdout => Err(format!("it wrote {stdout:?} and not {expected:?}")),
        _ => Ok(()),
    }
}

/// A core module for WASI 0.1 as a component.
fn wrap(module: &[u8]) -> Result<Vec<u8>, Box<dyn Error>> {
    let encoder = ComponentEncoder::default().validate(true).module(module)?;
    let adapter = (WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, WASI_SNAPSHOT_PREVIEW1_COMMAND_ADAPTER);
    Ok(encoder.adapter(adapter.0, adapter.1)?.encode()?)
}

fn copy(from: &Path, to: &Path) -> Result<(), Box<dyn Error>> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
