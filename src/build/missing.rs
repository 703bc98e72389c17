//! Why the system finds no program: there is none of this name, or there is nobody who could run it.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use super::tools::find_program;
use super::{BuildError, Variables};

/// How much of a script's first line the kernel reads (Linux, `BINPRM_BUF_SIZE`).
const FIRST_LINE_BYTES_MAX: u64 = 256;

/// Why a program could not be started of which the system says that something is not there.
pub(super) fn why(program: &str, dir: &Path, environment: &Variables) -> BuildError {
    if !dir.is_dir() {
        return BuildError::Io { action: "use", path: dir.to_owned(), source: io::ErrorKind::NotFound.into() };
    }
    match find_program(program, dir, environment) {
        Some(path) => BuildError::InterpreterMissing { program: program.to_owned(), interpreter: interpreter(&path) },
        // It is not looked for elsewhere.
        None if program.contains('/') => {
            BuildError::ProgramNotThere { program: program.to_owned(), dir: dir.to_owned() }
        }
        None => BuildError::ProgramMissing { program: program.to_owned() },
    }
}

/// What the first line of a script names.
fn interpreter(script: &Path) -> Option<String> {
    let mut bytes = Vec::new();
    File::open(script).ok()?.take(FIRST_LINE_BYTES_MAX).read_to_end(&mut bytes).ok()?;
    let line = bytes.strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?;
    let line = String::from_utf8_lossy(line).into_owned();
    // A carriage return belongs to the name, and is often what is wrong.
    line.trim_start().split([' ', '\t']).next().filter(|word| !word.is_empty()).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interpreter_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("script");
        let of = |text: &str| {
            std::fs::write(&path, text).unwrap();
            interpreter(&path)
        };
        assert_eq!(of("#!/bin/nope -x\nrest"), Some("/bin/nope".to_owned()));
        assert_eq!(of("#! /bin/sh\r\n"), Some("/bin/sh\r".to_owned()));
        assert_eq!(of("#!"), None);
        assert_eq!(of("\u{7f}ELF"), None);
    }
}
