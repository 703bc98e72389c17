//! The events of a build for programs: documented in `docs/build.md`.

use std::time::Duration;

use serde_json::{Value, json};

use crate::build::{Event, Reason};

/// An event as an object.
pub(super) fn as_json(event: &Event<'_>) -> Option<Value> {
    let milliseconds = |time: &Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    Some(match event {
        Event::Waiting { root } => json!({ "event": "waiting", "root": root.to_string_lossy() }),
        Event::Started { guest, reasons } => {
            let reasons: Vec<_> = reasons.iter().map(of_reason).collect();
            json!({ "event": "started", "guest": guest.as_str(), "reasons": reasons })
        }
        Event::Output { guest, line } => json!({ "event": "output", "guest": guest.as_str(), "line": line }),
        Event::Warning { guest, text } => json!({ "event": "warning", "guest": guest.as_str(), "text": text }),
        Event::Finished { guest, elapsed } => {
            json!({ "event": "finished", "guest": guest.as_str(), "elapsed_ms": milliseconds(elapsed) })
        }
        Event::Failed { guest, elapsed, error } => {
            let (guest, error) = (guest.as_str(), error.to_string());
            json!({ "event": "failed", "guest": guest, "elapsed_ms": milliseconds(elapsed), "error": error })
        }
        Event::Assembled { image, elapsed, changed } => {
            let elapsed = milliseconds(elapsed);
            json!({ "event": "assembled", "image": image.as_str(), "elapsed_ms": elapsed, "changed": changed })
        }
    })
}

/// A reason as an object: documented in `docs/freshness.md`.
pub(in crate::cli) fn of_reason(reason: &Reason) -> Value {
    json!({ "reason": reason.kind(), "subject": reason.subject(), "text": reason.to_string() })
}
