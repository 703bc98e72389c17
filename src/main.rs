//! The `ww` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    ww::cli::main()
}
