//! The command line: the one layer that prints, exits and reads the environment.

pub mod diagnostics;
