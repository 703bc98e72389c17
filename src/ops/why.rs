//! `ww why`: why the last build built something, and why one now would.

use std::time::Duration;

use super::Error;
use super::build::{BuildPlan, plan_build};
use crate::build::ledger::Memory;
use crate::build::{Reason, Variables};
use crate::wetfile::{GuestName, ImageName, Project};

/// Most causes that are told of one thing.
const CAUSES_MAX: usize = 50;

/// Most reasons that are followed for that.
const STEPS_MAX: usize = 10_000;

/// What a name means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WhyTarget {
    /// A guest.
    Guest(GuestName),
    /// An image.
    Image(ImageName),
}

/// Why something was and would be built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Why {
    /// What it is about.
    pub target: WhyTarget,
    /// Why a build now would build it; nothing if it would not.
    pub now: Vec<Cause>,
    /// Why the last one did, if that is remembered.
    pub last: Option<LastBuild>,
}

/// The last build of something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastBuild {
    /// When it was, in seconds since 1970.
    pub built_at: u64,
    /// How long it took, if that is remembered.
    pub elapsed: Option<Duration>,
    /// Why.
    pub causes: Vec<Cause>,
}

/// A reason, and the guests that were built for it, each because of the one before, up to what is asked about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    /// The first of all reasons.
    pub reason: Reason,
    /// The guests between.
    pub through: Vec<String>,
}

/// Tells of everything that has a name: a guest and an image may share one.
///
/// # Errors
///
/// [`Error`] for a name that the project does not have, or where something cannot be read.
pub fn why(
    variables: &Variables,
    project: &Project,
    name: &str,
    stopped: &(dyn Fn() -> bool + Sync),
) -> Result<Vec<Why>, Error> {
    let plan = plan_build(variables, project, &[name.to_owned()], stopped)?;
    let memory = Memory::of_project(&project.root);
    let mut found = Vec::new();
    if let Some((name, _)) = project.guests.iter().find(|(guest, _)| guest.as_str() == name) {
        let record = memory.guests.get(name);
        found.push(Why {
            now: now(&memory, &plan, &reasons_of_guest(&plan, name.as_str())),
            last: record.map(|record| LastBuild {
                built_at: record.built_at_ms / 1000,
                elapsed: Some(record.elapsed()),
                causes: last(&memory, &record.reasons, record.built_at_ms),
            }),
            target: WhyTarget::Guest(name.clone()),
        });
    }
    if let Some((name, _)) = project.images.iter().find(|(image, _)| image.as_str() == name) {
        let record = memory.images.get(name);
        let planned = plan.images.iter().find(|planned| planned.name == *name);
        found.push(Why {
            now: now(&memory, &plan, planned.map_or(&[], |planned| &planned.reasons)),
            last: record.map(|record| LastBuild {
                built_at: record.built_at_ms / 1000,
                elapsed: None,
                causes: last(&memory, &record.reasons, record.built_at_ms),
            }),
            target: WhyTarget::Image(name.clone()),
        });
    }
    Ok(found)
}

fn reasons_of_guest(plan: &BuildPlan, name: &str) -> Vec<Reason> {
    let planned = plan.guests.iter().find(|planned| planned.name.as_str() == name);
    planned.map(|planned| planned.reasons.clone()).unwrap_or_default()
}

fn now(memory: &Memory, plan: &BuildPlan, reasons: &[Reason]) -> Vec<Cause> {
    causes(reasons, &|name| match reasons_of_guest(plan, name) {
        // It has been built.
        none if none.is_empty() => memory.guest(name).and_then(|guest| guest.reasons_at(u64::MAX)).unwrap_or_default(),
        reasons => reasons,
    })
}

fn last(memory: &Memory, reasons: &[Reason], built_at_ms: u64) -> Vec<Cause> {
    // A guest may have been built again since, for another reason.
    let at_that_time = |name: &str| memory.guest(name).and_then(|guest| guest.reasons_at(built_at_ms));
    causes(reasons, &|name| at_that_time(name).unwrap_or_default())
}

/// Follows reasons back to the first ones.
fn causes(reasons: &[Reason], of_guest: &dyn Fn(&str) -> Vec<Reason>) -> Vec<Cause> {
    let mut found: Vec<Cause> = Vec::new();
    let mut pending: Vec<(Reason, Vec<String>)> =
        reasons.iter().rev().map(|reason| (reason.clone(), Vec::new())).collect();
    let mut steps = 0;
    while let Some((reason, through)) = pending.pop() {
        steps += 1;
        if found.len() >= CAUSES_MAX || steps > STEPS_MAX {
            break;
        }
        if let Reason::Guest { name } | Reason::Before { name } = &reason
            && !through.contains(name)
        {
            let before = of_guest(name);
            if !before.is_empty() {
                let through = || std::iter::once(name.clone()).chain(through.iter().cloned()).collect();
                pending.extend(before.into_iter().rev().map(|reason| (reason, through())));
                continue;
            }
        }
        let cause = Cause { reason, through };
        if !found.contains(&cause) {
            found.push(cause);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_cause_comes_first_and_then_what_it_led_to() {
        let guest = |name: &str| Reason::Guest { name: name.to_owned() };
        let of_guest = |name: &str| match name {
            "a" => vec![guest("b"), Reason::NeverBuilt],
            "b" => vec![Reason::Tool { path: "/cc".to_owned() }],
            "loop" => vec![guest("loop")],
            _ => Vec::new(),
        };
        let found = causes(&[guest("a"), guest("c"), guest("loop")], &of_guest);
        let cause =
            |reason, through: &[&str]| Cause { reason, through: through.iter().map(|&name| name.into()).collect() };
        let expected = [
            cause(Reason::Tool { path: "/cc".to_owned() }, &["b", "a"]),
            cause(Reason::NeverBuilt, &["a"]),
            cause(guest("c"), &[]),
            cause(guest("loop"), &["loop"]),
        ];
        assert_eq!(found, expected);
    }
}
