//! Log messages on stderr.

use std::io::{self, Write};

use log::{LevelFilter, Log, Metadata, Record};

/// The environment variable that sets the level.
const LEVEL_VARIABLE: &str = "RUST_LOG";

/// Makes this module the logger of the program, unless it has one.
pub(crate) fn install() {
    if log::set_logger(&Logger).is_err() {
        return;
    }
    log::set_max_level(LevelFilter::Info);
    let Ok(wanted) = std::env::var(LEVEL_VARIABLE) else { return };
    match wanted.trim().parse() {
        Ok(level) => log::set_max_level(level),
        Err(_) => {
            log::warn!("{LEVEL_VARIABLE}={wanted:?} is no level; taking info (off, error, warn, info, debug, trace)")
        }
    }
}

struct Logger;

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            // One write, so that lines stay whole. A closed stderr is no reason to fail.
            let line = format!("{:<5} {}: {}\n", record.level(), record.target(), record.args());
            let _ = io::stderr().write_all(line.as_bytes());
        }
    }

    fn flush(&self) {}
}
