//! The operations: one file for each thing that a user can ask for.
//!
//! An operation takes values and returns values or errors. It knows no flags, prints nothing and reads no environment.

mod run;

pub use run::{RunError, RunOptions, RunOutcome, run};
