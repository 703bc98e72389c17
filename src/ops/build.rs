//! `ww build`: compiles guests in the order of their dependencies, then assembles images.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::Error;
use crate::build::{self, Cancel, Context, Events, State, Variables};
use crate::image;
use crate::wetfile::{GuestName, Image, ImageName, Project};

/// What a build needs from the process that it runs in.
#[derive(Clone, Copy)]
pub struct Environment<'a> {
    /// The environment variables of the process.
    pub variables: &'a Variables,
    /// The path of the `ww` binary, absolute. Compilers call it back: its `main` must begin with
    /// [`rustc_wrapper`](crate::build::rustc_wrapper).
    pub ww: &'a Path,
    /// Stops the build from another thread.
    pub cancel: &'a Cancel,
    /// Where events go.
    pub events: Events<'a>,
}

/// How to build.
#[derive(Clone, Copy, Debug, Default)]
pub struct BuildOptions {
    /// Whether compilers are told not to use the network.
    pub offline: bool,
}

/// What was built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Built {
    /// The guests, with the paths of their artifacts.
    pub guests: BTreeMap<GuestName, PathBuf>,
    /// The images, by name.
    pub images: Vec<BuiltImage>,
}

/// An image that was built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuiltImage {
    /// Its name.
    pub name: ImageName,
    /// The folder that it lies in.
    pub out: PathBuf,
    /// Number of regular files in it.
    pub files: u64,
    /// Sum of their sizes in bytes.
    pub size_bytes: u64,
    /// Whether it differs from what was there before.
    pub changed: bool,
}

/// What is to be built.
struct Targets<'a> {
    guests: BTreeSet<&'a GuestName>,
    images: Vec<&'a Image>,
}

/// Builds what `names` say, and what that needs; everything if there are none.
///
/// A name that a guest and an image share means both. The build holds the project's lock from beginning to end, and
/// stops at the first error: guests and images that were done before it stay.
///
/// # Errors
///
/// [`Error`] with the guest or image that failed, or for a name that the project does not have; nothing was started in
/// that case.
pub fn build(
    environment: &Environment<'_>,
    project: &Project,
    names: &[String],
    options: BuildOptions,
) -> Result<Built, Error> {
    let targets = Targets::of(project, names)?;
    let state = State::open(&project.root, environment.cancel, environment.events)?;
    let ctx = Context {
        state: &state,
        environment: environment.variables,
        ww: environment.ww,
        offline: options.offline,
        cancel: environment.cancel,
        events: environment.events,
    };
    let guests = build_guests(&ctx, project, targets.guests)?;
    let assemble = |image: &&Image| assemble(project, image, &guests, environment.cancel);
    let images = targets.images.iter().map(assemble).collect::<Result<_, _>>()?;
    Ok(Built { guests, images })
}

impl<'a> Targets<'a> {
    fn of(project: &'a Project, names: &[String]) -> Result<Self, Error> {
        if names.is_empty() {
            return Ok(Self { guests: project.guests.keys().collect(), images: project.images.values().collect() });
        }
        let mut targets = Self { guests: BTreeSet::new(), images: Vec::new() };
        for name in names.iter().collect::<BTreeSet<_>>() {
            let guest = project.guests.keys().find(|guest| guest.as_str() == name);
            let image = project.images.values().find(|image| image.name.as_str() == name);
            if guest.is_none() && image.is_none() {
                return Err(Error::UnknownTarget { name: name.clone(), nearest: nearest(project, name) });
            }
            targets.guests.extend(guest);
            targets.images.extend(image);
        }
        targets.guests.extend(targets.images.iter().flat_map(|image| image.guests()));
        Ok(targets)
    }
}

fn nearest(project: &Project, name: &str) -> Option<String> {
    let guests = project.guests.keys().map(GuestName::as_str);
    let names = guests.chain(project.images.keys().map(ImageName::as_str));
    crate::wetfile::nearest_word(name, names).map(str::to_owned)
}

fn build_guests(
    ctx: &Context<'_>,
    project: &Project,
    guests: BTreeSet<&GuestName>,
) -> Result<BTreeMap<GuestName, PathBuf>, Error> {
    let mut artifacts = BTreeMap::new();
    for name in project.build_order(guests) {
        let built = build::build_guest(ctx, &project.guests[name], &artifacts);
        let path = built.map_err(|source| Error::Build { guest: name.clone(), source })?;
        artifacts.insert(name.clone(), path);
    }
    Ok(artifacts)
}

fn assemble(
    project: &Project,
    image: &Image,
    artifacts: &BTreeMap<GuestName, PathBuf>,
    cancel: &Cancel,
) -> Result<BuiltImage, Error> {
    let assembled = image::assemble(&project.root, image, artifacts, &|| cancel.is_cancelled())
        .map_err(|source| Error::Image { image: image.name.clone(), source })?;
    Ok(BuiltImage {
        name: image.name.clone(),
        out: image.out.to_path(&project.root),
        files: assembled.files,
        size_bytes: assembled.size_bytes,
        changed: assembled.changed,
    })
}
