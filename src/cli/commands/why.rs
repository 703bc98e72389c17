//! `ww why`.

use std::time::Duration;

use clap::Args;
use clap_complete::engine::ArgValueCandidates;
use serde_json::json;

use crate::build::seconds_since_1970;
use crate::cli::cancel::stoppable;
use crate::cli::error::Failure;
use crate::cli::progress::of_reason;
use crate::cli::{complete, env, exit_code, project, ui};
use crate::escape;
use crate::ops::{self, Cause, Why, WhyTarget};

/// Tell why a guest or an image was built, and why it would be
///
/// Nothing has to be asked for beforehand: each build remembers. It tells why the last build built it, and why one now would:
/// first the file, variable, program, key of the Wetfile or missing result, and below it what that led to. Nothing is built.
#[derive(Debug, Args)]
pub(in crate::cli) struct WhyArgs {
    /// A guest or an image; both where they share the name
    #[arg(value_name = "NAME", add = ArgValueCandidates::new(complete::targets))]
    name: String,

    /// Print the result, or what is wrong with the Wetfile, as JSON
    #[arg(long)]
    json: bool,
}

/// Tells.
pub(in crate::cli) fn run(args: &WhyArgs) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::new(exit_code::FAILURE, &error);
    let project = project::load(args.json)?;
    let found = stoppable(|cancel| ops::why(&env::variables(), &project, &args.name, &|| cancel.is_cancelled()))?;
    if args.json {
        let found: Vec<_> = found.iter().map(as_json).collect();
        return ui::result_line(&escape::json(&json!(found).to_string())).map_err(failed);
    }
    for why in &found {
        for line in lines(why, seconds_since_1970()) {
            ui::result_line(&line).map_err(failed)?;
        }
    }
    Ok(())
}

/// For people.
fn lines(why: &Why, now: u64) -> Vec<String> {
    let (name, done) = match &why.target {
        WhyTarget::Guest(name) => (format!("guest {name}"), "built"),
        WhyTarget::Image(name) => (format!("image {name}"), "assembled"),
    };
    let mut lines = Vec::new();
    match why.now.is_empty() {
        true => lines.push(format!("{name} is up to date")),
        false => {
            lines.push(format!("{name} would be {done} now:"));
            lines.extend(causes(&why.now, "is", done, &name));
        }
    }
    match &why.last {
        None => lines.push(format!("{name} was not {done} here before, or that was forgotten")),
        Some(last) => {
            let took = last.elapsed.map(|elapsed| format!(" in {:.1} s", elapsed.as_secs_f64())).unwrap_or_default();
            let ago = ago(Duration::from_secs(now.saturating_sub(last.built_at)));
            lines.push(format!("{name} was {done} {ago} ago{took}:"));
            lines.extend(causes(&last.causes, "was", done, &name));
        }
    }
    lines
}

/// Each cause, and below it what it led to.
fn causes(causes: &[Cause], verb: &str, done: &str, name: &str) -> Vec<String> {
    let mut lines = Vec::new();
    for cause in causes {
        lines.push(format!("  {}", cause.reason));
        lines.extend(cause.through.iter().map(|guest| format!("    so guest {guest} {verb} built")));
        if !cause.through.is_empty() {
            lines.push(format!("    so {name} {verb} {done}"));
        }
    }
    lines
}

/// A time that has passed, in one unit.
fn ago(time: Duration) -> String {
    let seconds = time.as_secs();
    let (count, unit) = match seconds {
        0..=119 => (seconds, "second"),
        120..=7199 => (seconds / 60, "minute"),
        7200..=172_799 => (seconds / 3600, "hour"),
        _ => (seconds / 86_400, "day"),
    };
    format!("{count} {unit}{}", if count == 1 { "" } else { "s" })
}

/// Documented in `docs/freshness.md`.
fn as_json(why: &Why) -> serde_json::Value {
    let (kind, name) = match &why.target {
        WhyTarget::Guest(name) => ("guest", name.as_str()),
        WhyTarget::Image(name) => ("image", name.as_str()),
    };
    let causes = |causes: &[Cause]| -> Vec<_> {
        let cause = |cause: &Cause| {
            let mut json = of_reason(&cause.reason);
            json["through"] = json!(cause.through);
            json
        };
        causes.iter().map(cause).collect()
    };
    let last = why.last.as_ref().map(|last| {
        json!({
            "built_at": last.built_at,
            "elapsed_ms": last.elapsed.map(|elapsed| u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)),
            "causes": causes(&last.causes),
        })
    });
    json!({ "kind": kind, "name": name, "up_to_date": why.now.is_empty(), "now": causes(&why.now), "last": last })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        let shown = [0, 1, 119, 120, 7200, 90_000, 172_800].map(|seconds| ago(Duration::from_secs(seconds)));
        assert_eq!(shown, ["0 seconds", "1 second", "119 seconds", "2 minutes", "2 hours", "25 hours", "2 days"]);
    }
}
