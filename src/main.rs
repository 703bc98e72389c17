//! The `ww` binary; all of it is in [`ww::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    ww::cli::main()
}
