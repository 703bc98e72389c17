//! The log, on standard error.

use std::io;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::time;

use super::env;

/// Starts the log. `RUST_LOG` decides what is in it, else `default`.
pub(super) fn start(default: &str) {
    let filter = env::variable("RUST_LOG")
        .and_then(|directives| EnvFilter::try_new(directives).ok())
        .unwrap_or_else(|| EnvFilter::new(default));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(env::stderr_has_colours())
        .with_timer(time::uptime())
        .init();
}
