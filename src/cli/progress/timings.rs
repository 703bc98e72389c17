//! What took how long, as a trace that `chrome://tracing` and Perfetto show
//! (docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU, "Trace Event Format").

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::Access;
use serde_json::{Value, json};

use super::image_text;
use crate::atomic_file;
use crate::build::Event;

/// Mode of the file.
pub(super) const FILE_MODE: u32 = 0o644;

/// Whether a trace can be written to a file, as far as it can be told before: there may be too little room for it later.
///
/// # Errors
///
/// If its folder is not there or takes no file, or something else than a file is in its place.
pub(super) fn check(path: &Path) -> io::Result<()> {
    let path = atomic_file::replaceable(path)?.path;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    rustix::fs::access(folder, Access::WRITE_OK | Access::EXEC_OK).map_err(io::Error::from)
}

/// What is done at the same time lies in rows one above the other.
pub(super) struct Timings {
    start: Instant,
    /// For each row what it is taken by, if anything.
    rows: Vec<Option<String>>,
    started: BTreeMap<String, (usize, Duration, Vec<String>)>,
    events: Vec<Value>,
}

impl Default for Timings {
    fn default() -> Self {
        Self { start: Instant::now(), rows: Vec::new(), started: BTreeMap::new(), events: Vec::new() }
    }
}

impl Timings {
    pub(super) fn note(&mut self, event: &Event<'_>) {
        let now = self.start.elapsed();
        match event {
            Event::Started { guest, reasons } => {
                let name = guest.to_string();
                let row = self.rows.iter().position(Option::is_none).unwrap_or_else(|| {
                    self.rows.push(None);
                    self.rows.len() - 1
                });
                self.rows[row] = Some(name.clone());
                self.started.insert(name, (row, now, reasons.iter().map(ToString::to_string).collect()));
            }
            Event::Finished { guest, .. } => self.end(guest.as_str(), now, "built"),
            Event::Failed { guest, .. } => self.end(guest.as_str(), now, "failed"),
            Event::Assembled { image, elapsed, .. } => {
                let start = now.saturating_sub(*elapsed);
                self.events.push(complete(&image_text(image), "assembled", 0, start, now, &[]));
            }
            Event::Waiting { .. } | Event::Output { .. } | Event::Warning { .. } => {}
        }
    }

    fn end(&mut self, name: &str, now: Duration, category: &str) {
        if let Some((row, start, reasons)) = self.started.remove(name) {
            self.rows[row] = None;
            self.events.push(complete(name, category, row, start, now, &reasons));
        }
    }

    /// The whole trace.
    pub(super) fn trace(&self) -> String {
        json!({ "traceEvents": self.events, "displayTimeUnit": "ms" }).to_string()
    }
}

/// An event with a beginning and an end.
fn complete(name: &str, category: &str, row: usize, start: Duration, end: Duration, reasons: &[String]) -> Value {
    let microseconds = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    json!({
        "name": name,
        "cat": category,
        "ph": "X",
        "pid": 1,
        "tid": row + 1,
        "ts": microseconds(start),
        "dur": microseconds(end.saturating_sub(start)),
        "args": { "reasons": reasons },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::Reason;
    use crate::wetfile::GuestName;

    #[test]
    fn what_runs_at_once_lies_in_rows_of_its_own() {
        let mut timings = Timings::default();
        let [a, b, c] = ["a", "b", "c"].map(|name| GuestName::new(name).unwrap());
        let reasons = [Reason::NeverBuilt];
        timings.note(&Event::Started { guest: &a, reasons: &reasons });
        timings.note(&Event::Started { guest: &b, reasons: &reasons });
        timings.note(&Event::Finished { guest: &a, elapsed: Duration::ZERO });
        timings.note(&Event::Started { guest: &c, reasons: &reasons });
        timings.note(&Event::Finished { guest: &c, elapsed: Duration::ZERO });
        timings.note(&Event::Finished { guest: &b, elapsed: Duration::ZERO });
        let trace: Value = serde_json::from_str(&timings.trace()).unwrap();
        let rows: Vec<_> = trace["traceEvents"].as_array().unwrap().iter().map(|e| (&e["name"], &e["tid"])).collect();
        assert_eq!(rows, [(&json!("a"), &json!(1)), (&json!("c"), &json!(1)), (&json!("b"), &json!(2))]);
        assert_eq!(trace["traceEvents"][0]["args"]["reasons"][0], "it was not built here before");
    }
}
