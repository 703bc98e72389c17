//! The log, on standard error.

use std::io::{self, Write};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::time;

use super::{env, github, ui};
use crate::escape;

/// Starts the log. `RUST_LOG` decides what is in it, else `default`.
pub(super) fn start(default: &str) {
    let filter = match env::variable("RUST_LOG").map(EnvFilter::try_new) {
        None => EnvFilter::new(default),
        Some(Ok(filter)) => filter,
        Some(Err(error)) => {
            let error = escape::text(&error.to_string()).into_owned();
            ui::status(&format!("warning: RUST_LOG is not understood ({error}), so it does not count"));
            EnvFilter::new(default)
        }
    };
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(|| Log)
        .with_ansi(env::stderr_has_colours())
        .with_timer(time::uptime())
        .init();
}

/// Standard error, to which each event is written at once.
struct Log;

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match github::is_here() {
            true => ui::log(github::tamed(&String::from_utf8_lossy(bytes)).as_bytes())?,
            false => ui::log(bytes)?,
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
