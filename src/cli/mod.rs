//! The command line: the one layer that prints, exits and reads the environment.

pub mod diagnostics;

use std::process::ExitCode;

use crate::build::rustc_wrapper;

/// Runs `ww`. As the wrapper of a compiler, which is asked for by a variable, it becomes the compiler and nothing else.
#[expect(clippy::disallowed_methods, reason = "this layer reads the environment")]
pub fn main() -> ExitCode {
    if std::env::var_os(rustc_wrapper::MODE_VARIABLE).is_some() {
        let error = rustc_wrapper::exec(std::env::args_os().skip(1), |name| std::env::var_os(name));
        #[expect(clippy::print_stderr, reason = "this layer prints")]
        {
            eprintln!("ww: cannot start the compiler: {error}");
        }
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
