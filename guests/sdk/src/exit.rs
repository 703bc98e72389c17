//! How a program ends.

use std::error::Error;
use std::io::{self, Write};

/// Ends the program at once with `code`.
///
/// Flushes std's stdout; nothing is dropped. std's own `process::exit` knows only success and failure: every other code
/// arrives as 1.
pub fn exit(code: u8) -> ! {
    // Nobody is left who could be told that stdout is closed.
    let _ = io::stdout().flush();
    wasip2::cli::exit::exit_with_code(code);
    unreachable!("the host ends a program that exits")
}

/// The exit code of a program; 0 means success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExitCode(pub u8);

impl ExitCode {
    /// The program did what it was asked to do.
    pub const SUCCESS: Self = Self(0);
    /// It did not.
    pub const FAILURE: Self = Self(1);
}

/// What the main future of a program may return.
pub trait Termination {
    /// Reports the outcome to the user where it is an error, and returns the exit code.
    fn report(self) -> ExitCode;
}

impl Termination for () {
    fn report(self) -> ExitCode {
        ExitCode::SUCCESS
    }
}

impl Termination for ExitCode {
    fn report(self) -> ExitCode {
        self
    }
}

impl Termination for u8 {
    fn report(self) -> ExitCode {
        ExitCode(self)
    }
}

/// An error is printed to stderr with its causes, one in a line, and the code is 1.
impl<T: Termination, E: Into<Box<dyn Error>>> Termination for Result<T, E> {
    fn report(self) -> ExitCode {
        match self {
            Ok(value) => value.report(),
            Err(error) => report_error(error.into().as_ref()),
        }
    }
}

/// Prints `error` with its causes to stderr.
pub(crate) fn report_error(error: &dyn Error) -> ExitCode {
    // There is nowhere else to say it.
    let _ = io::stderr().write_all(chain(error).as_bytes());
    ExitCode::FAILURE
}

fn chain(error: &dyn Error) -> String {
    let mut text = format!("error: {error}\n");
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!("caused by: {error}\n");
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(outcome: impl Termination, expected: u8) {
        assert_eq!(outcome.report(), ExitCode(expected));
    }

    #[test]
    fn codes_survive() {
        check((), 0);
        check(0, 0);
        check(255, 255);
        check(ExitCode(42), 42);
        check(Ok::<_, io::Error>(()), 0);
        check(Ok::<_, io::Error>(7), 7);
        check(Ok::<_, io::Error>(Ok::<_, io::Error>(8)), 8);
    }

    #[test]
    fn errors_are_failures() {
        check(Err::<(), _>("text"), 1);
        check(Err::<u8, _>(String::from("text")), 1);
        check(Err::<(), _>(io::Error::other("text")), 1);
        check(Err::<(), Box<dyn Error>>("text".into()), 1);
    }

    #[derive(Debug)]
    struct Outer(io::Error);

    impl std::fmt::Display for Outer {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("outer")
        }
    }

    impl Error for Outer {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            Some(&self.0)
        }
    }

    #[test]
    fn causes_are_listed() {
        assert_eq!(chain(&Outer(io::Error::other("inner"))), "error: outer\ncaused by: inner\n");
    }
}
