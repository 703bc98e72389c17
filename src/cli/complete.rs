//! Completion in shells: names of guests and images come from the Wetfile that is found from here.

use std::ffi::OsStr;

use clap_complete::engine::{CompletionCandidate, PathCompleter, ValueCompleter};

use super::project;
use crate::wetfile::{self, Project};

/// The variable by which a shell's script asks for candidates, and has as value which shell it is.
pub(super) const VARIABLE: &str = "COMPLETE";

/// Guests and images, each name once.
pub(super) fn targets() -> Vec<CompletionCandidate> {
    let Some(project) = here() else { return Vec::new() };
    let guests = project.guests.keys().map(|name| (name.as_str(), "guest"));
    let images = project.images.keys().map(|name| (name.as_str(), "image"));
    let mut names: Vec<(&str, &str)> = guests.chain(images).collect();
    names.sort_unstable();
    names.dedup_by_key(|(name, _)| *name);
    names.into_iter().map(|(name, help)| CompletionCandidate::new(name).help(Some(help.into()))).collect()
}

/// Images by name, and folders.
pub(super) fn images(current: &OsStr) -> Vec<CompletionCandidate> {
    let names: Vec<String> =
        here().into_iter().flat_map(|project| project.images.into_keys()).map(|name| name.to_string()).collect();
    let begins = |name: &String| current.to_str().is_some_and(|current| name.starts_with(current));
    let names = names.into_iter().filter(begins);
    let names = names.map(|name| CompletionCandidate::new(name).help(Some("image".into())));
    names.chain(PathCompleter::dir().complete(current)).collect()
}

fn here() -> Option<Project> {
    wetfile::load(&project::root_here()?).ok()
}
