//! `ww build`: compiles guests in the order of their dependencies, assembles images, and keeps the lock.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::Error;
use super::contents::{self, BringContent};
use super::listing::ListingError;
use super::lock::{self, OutOfDate, PlannedTree, Reading};
use crate::atomic_file;
use crate::build::{self, BuiltGuest, Cancel, Context, Event, Events, State, Variables};
use crate::dag::Cid;
use crate::dag::unixfs::{Profile, Subtree};
use crate::image::{self, Parts};
use crate::wetfile::lock::{LOCK_FILE_NAME, Lock, Toolchain};
use crate::wetfile::{self, GuestName, Image, ImageName, Project};

/// Mode of the lock file.
const LOCK_FILE_MODE: u32 = 0o644;

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
    /// Who brings what images take by its CID, where it is not here.
    pub content: &'a dyn BringContent,
}

/// How to build.
#[derive(Clone, Copy, Debug, Default)]
pub struct BuildOptions {
    /// Whether compilers are told not to use the network.
    pub offline: bool,
    /// Whether the lock must hold what is built, and is not changed.
    pub locked: bool,
}

/// What was built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Built {
    /// The guests, with the paths of their artifacts.
    pub guests: BTreeMap<GuestName, PathBuf>,
    /// The images, by name.
    pub images: Vec<BuiltImage>,
    /// What became of the lock.
    pub lock: LockChange,
    /// Under [`BuildOptions::locked`], the guests that were compiled by a toolchain of which the lock has no output, so
    /// that nobody knows what they ought to be.
    pub not_held: BTreeMap<GuestName, Toolchain>,
}

/// What a build did to the lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockChange {
    /// It says what was built already, or was not to be changed.
    None,
    /// There was none.
    Created,
    /// It says something else than before.
    Updated,
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
    /// Its name by content.
    pub cid: Cid,
    /// How the CID was made.
    pub profile: Profile,
}

/// What is to be built.
struct Targets<'a> {
    guests: BTreeSet<&'a GuestName>,
    images: Vec<&'a Image>,
}

/// Builds what `names` say, and what that needs; everything if there are none.
///
/// A name that a guest and an image share means both. The build holds the project's lock from beginning to end, and
/// stops at the first error: guests and images that were done before it stay. At last it brings `Wetfile.lock` up to date:
/// the entries of what was built, and no others except that those of guests and images that are no more are dropped. Under a
/// profile of the Wetfile it writes nothing there: what a lock says is of builds without one, and would be taken for it.
///
/// # Errors
///
/// [`Error`] with the guest or image that failed, or for a name that the project does not have; nothing was started in
/// that case. Under [`BuildOptions::locked`] also where `Wetfile.lock` would have to change: no image is then replaced, and
/// where the sources of guests or images tell it, nothing is compiled.
pub fn build(
    environment: &Environment<'_>,
    project: &Project,
    names: &[String],
    options: BuildOptions,
) -> Result<Built, Error> {
    let targets = Targets::of(project, names)?;
    if let Some(profile) = project.profile.as_ref().filter(|_| options.locked) {
        return Err(Error::LockedProfile { profile: profile.clone() });
    }
    let state = State::open(&project.root, environment.cancel, environment.events)?;
    let locked = wetfile::lock::load(&project.root)?;
    let stopped = || environment.cancel.is_cancelled();
    let wanted = contents::wanted(project, targets.images.iter().copied());
    let contents = contents::bring(project, &state, &wanted, environment.content, &stopped)?;
    let reading =
        Reading { project, stopped: &stopped, profile: Profile::default(), contents: &contents, state: Some(&state) };
    let frozen = match (&locked, options.locked) {
        (Some(lock), true) => Some(lock),
        (None, true) => return Err(Error::LockMissing),
        (_, false) => None,
    };
    if let Some(lock) = frozen {
        let mut found = lock::leftovers(project, lock);
        let (present, unreadable) = lock::present_inputs(project, lock, &targets.guests, environment.variables);
        found.extend(unreadable);
        found.extend(lock::stale_guests(lock, &present));
        add_stale_images(&reading, lock, &targets.images, &mut found)?;
        refuse(found)?;
    }
    let ctx = Context {
        state: &state,
        environment: environment.variables,
        ww: environment.ww,
        offline: options.offline,
        cancel: environment.cancel,
        events: environment.events,
    };
    let guests = build_guests(&ctx, project, targets.guests)?;
    let trees = plan(&reading, &targets.images, &guests)?;
    match frozen {
        Some(lock) => refuse(lock::differences(lock, project, &guests, &trees))?,
        None if project.profile.is_none() => warn_of_differences(&ctx, locked.as_ref(), &guests),
        None => {}
    }
    let images = trees.iter().map(|tree| assemble(&reading, tree, &guests)).collect::<Result<_, _>>()?;
    let lock = match frozen {
        Some(_) => LockChange::None,
        None if project.profile.is_some() => LockChange::None,
        None => write_lock(project, locked.as_ref(), &lock::updated(locked.as_ref(), project, &guests, &trees))?,
    };
    let not_held = frozen.map(|lock| not_held(lock, &guests)).unwrap_or_default();
    let guests = guests.into_iter().map(|(name, built)| (name, built.path)).collect();
    Ok(Built { guests, images, lock, not_held })
}

/// Refuses to go on where the lock would have to change.
fn refuse(found: Vec<OutOfDate>) -> Result<(), Error> {
    if found.is_empty() { Ok(()) } else { Err(Error::OutOfDate(found)) }
}

/// Adds where the lock differs from what images are to hold, as far as their sources tell it. What cannot be read is an
/// error of its own where nothing is out of date.
fn add_stale_images<'a>(
    reading: &Reading<'a>,
    lock: &Lock,
    images: &[&'a Image],
    found: &mut Vec<OutOfDate>,
) -> Result<(), Error> {
    let mut is_stale = !found.is_empty();
    let mut unreadable = None;
    for &image in images {
        let failed = |source| Error::Listing { image: image.name.clone(), source };
        match reading.plan(image) {
            Ok(plan) => {
                let before = found.len();
                found.extend(lock::stale_image(lock, &plan));
                is_stale |= found.len() > before;
            }
            Err((_, source)) if source.is_stop() => return Err(failed(source)),
            Err((path, source)) => {
                found.push(lock::unreadable_source(image, &path, &source));
                unreadable.get_or_insert(failed(source));
            }
        }
    }
    match unreadable {
        Some(error) if !is_stale => Err(error),
        _ => Ok(()),
    }
}

/// Tells what images are to be, before any of them is written.
fn plan<'a>(
    reading: &Reading<'a>,
    images: &[&'a Image],
    guests: &BTreeMap<GuestName, BuiltGuest>,
) -> Result<Vec<PlannedTree<'a>>, Error> {
    let (mut artifacts, mut trees) = (BTreeMap::<GuestName, Subtree>::new(), Vec::new());
    for &image in images {
        let failed = |source: ListingError| Error::Listing { image: image.name.clone(), source };
        let plan = reading.plan(image).map_err(|(_, error)| failed(error))?;
        for name in plan.guests() {
            if let Entry::Vacant(vacant) = artifacts.entry(name) {
                let name = vacant.key();
                let artifact = reading.import(&guests[name].path, &format!("guest-{name}")).map_err(failed)?;
                vacant.insert(artifact);
            }
        }
        let root = plan.root(&artifacts).map_err(|error| failed(error.into()))?;
        trees.push(PlannedTree { plan, root });
    }
    Ok(trees)
}

fn warn_of_differences(ctx: &Context<'_>, lock: Option<&Lock>, guests: &BTreeMap<GuestName, BuiltGuest>) {
    for (name, built) in guests {
        let locked = lock.and_then(|lock| lock.guests.get(name)).filter(|locked| locked.inputs == built.inputs);
        let output = locked.and_then(|locked| locked.outputs.get(&built.toolchain));
        if output.is_some_and(|output| *output != built.digest) {
            (ctx.events)(Event::Warning { guest: name, text: lock::NOT_REPRODUCIBLE.to_owned() });
        }
    }
}

fn not_held(lock: &Lock, guests: &BTreeMap<GuestName, BuiltGuest>) -> BTreeMap<GuestName, Toolchain> {
    let is_held = |name: &GuestName, toolchain: &Toolchain| {
        lock.guests.get(name).is_some_and(|locked| locked.outputs.contains_key(toolchain))
    };
    let not_held = guests.iter().filter(|(name, built)| !is_held(name, &built.toolchain));
    not_held.map(|(name, built)| (name.clone(), built.toolchain.clone())).collect()
}

fn write_lock(project: &Project, before: Option<&Lock>, after: &Lock) -> Result<LockChange, Error> {
    if before == Some(after) {
        return Ok(LockChange::None);
    }
    let path = project.root.join(LOCK_FILE_NAME);
    atomic_file::replace(&path, after.render().as_bytes(), LOCK_FILE_MODE)
        .map_err(|source| Error::WriteLock { path, source })?;
    Ok(if before.is_some() { LockChange::Updated } else { LockChange::Created })
}

impl<'a> Targets<'a> {
    fn of(project: &'a Project, names: &[String]) -> Result<Self, Error> {
        if names.is_empty() {
            let images = project.image_order(project.images.values());
            return Ok(Self { guests: project.guests.keys().collect(), images });
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
        // An image is made after the one that it is based on, which is made for its own sake, too.
        targets.images = project.image_order(targets.images);
        targets.guests.extend(targets.images.iter().flat_map(|image| image.guests()));
        Ok(targets)
    }
}

fn nearest(project: &Project, name: &str) -> Option<String> {
    let guests = project.guests.keys().map(GuestName::as_str);
    let names = guests.chain(project.images.keys().map(ImageName::as_str));
    wetfile::nearest_word(name, names).map(str::to_owned)
}

fn build_guests(
    ctx: &Context<'_>,
    project: &Project,
    guests: BTreeSet<&GuestName>,
) -> Result<BTreeMap<GuestName, BuiltGuest>, Error> {
    let mut all = BTreeMap::new();
    for name in project.build_order(guests) {
        let built = build::build_guest(ctx, project, &project.guests[name], &all);
        let built = built.map_err(|source| Error::Build { guest: name.clone(), source })?;
        all.insert(name.clone(), built);
    }
    Ok(all)
}

fn assemble(
    reading: &Reading<'_>,
    tree: &PlannedTree<'_>,
    guests: &BTreeMap<GuestName, BuiltGuest>,
) -> Result<BuiltImage, Error> {
    let (image, planned) = (tree.plan.image, tree.root.cid);
    let artifacts = guests.iter().map(|(name, built)| (name.clone(), built.path.clone())).collect();
    let outs = reading.project.images.values().map(|image| image.out.clone()).collect();
    let mut bases = reading.project.layers(image);
    bases.pop();
    let parts = Parts { bases: &bases, artifacts: &artifacts, contents: reading.contents, outs: &outs };
    let mut check = |path: &Path| {
        let made = reading.import(path, &format!("image-{}", image.name))?;
        if made.cid == planned { Ok(()) } else { Err("a source of it changed meanwhile".into()) }
    };
    let assembled = image::assemble_checked(reading.root(), image, &parts, reading.stopped, &mut check);
    let assembled = assembled.map_err(|source| Error::Image { image: image.name.clone(), source })?;
    Ok(BuiltImage {
        name: image.name.clone(),
        out: image.out.to_path(reading.root()),
        files: assembled.files,
        size_bytes: assembled.size_bytes,
        changed: assembled.changed,
        cid: planned,
        profile: tree.plan.profile,
    })
}
