//! `ww build`: compiles guests in the order of their dependencies, assembles images, and keeps the lock.

mod assembly;
mod images;
mod lock_file;
mod partly;
mod standings;
mod targets;

use std::collections::btree_map::Entry::Vacant;
use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use super::Error;
use super::contents::{self, BringContent, Taker};
use super::listing::ListingError;
use super::lock::{self, PlannedTree, Reading};
use crate::build::ledger::{Entry, Ledger, Memory};
use crate::build::queue::{self, AfterFailure, Step};
use crate::build::{self, BuildError, BuiltGuest, Cancel, Context, Event, Events, Jobs, Standing, State, Variables};
use crate::dag::Cid;
use crate::dag::unixfs::{Profile, Subtree};
use crate::wetfile::lock::Toolchain;
use crate::wetfile::{self, GuestName, Image, ImageName, Project};

pub use lock_file::LockChange;
pub use partly::{Failed, Partly, Skipped};
pub use standings::{BuildPlan, PlannedTarget};

pub(super) use images::{Listed, no_context, seen_of_tree, source_of_image};
pub(super) use targets::Targets;

use assembly::{assemble, note_image};
use lock_file::{add_stale_images, is_lock_current, not_held, refuse, settle_lock, warn_of_differences, write_lock};
use partly::Failures;
use standings::{Standings, built_image};

/// How long a guest takes that was never built, for want of anything better.
const UNKNOWN_COST: Duration = Duration::from_secs(1);

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
    /// How many processors compilers use at a time; as many as there are, if nothing is said.
    pub jobs: Option<NonZero<usize>>,
    /// Whether to go on when a guest fails.
    pub after_failure: AfterFailure,
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
    let state = State::open_from(&project.root, environment.variables, environment.cancel, environment.events)?;
    let ledger = Ledger::open(&state).map_err(|source| Error::Ledger { source })?;
    let memory = ledger.memory();
    let stopped = || environment.cancel.is_cancelled();
    let nothing = BTreeMap::new();
    let reading =
        Reading { project, stopped: &stopped, profile: Profile::default(), contents: &nothing, state: Some(&state) };
    let standing = Standings::of(project, &targets, environment.variables, &memory, reading)?;
    for image in targets.images.iter().filter(|image| standing.whole.contains(&image.name)) {
        // Without it the next build that has to replace the image says so.
        let _ = crate::image::keep_marker(&project.root, image);
    }
    let is_lock_current = project.profile.is_some() || is_lock_current(project, &memory);
    // Where the lock must hold it, what was made is held against the lock each time.
    if let Some(built) = standing.as_built(project, &targets).filter(|_| is_lock_current && !options.locked) {
        note_stamps(&ledger, &memory, standing.entries);
        return Ok(built);
    }
    let locked = wetfile::lock::load(&project.root)?;
    let frozen = match (&locked, options.locked) {
        (Some(lock), true) => Some(lock),
        (None, true) => return Err(Error::LockMissing),
        (_, false) => None,
    };
    // Only what is to be done anyway is worth asking others for content.
    let mut failures = Failures::new(project, options.after_failure);
    let mut missing = |takers: BTreeSet<Taker>, error| {
        failures.of_images::<()>(takers.into_iter().map(|taker| taker.image), Err(error)).map(drop)
    };
    let whence = (project, &state, &ledger);
    let contents = contents::bring(whence, &targets.images, environment.content, &stopped, &mut missing)?;
    let wanted: Vec<&Image> = targets.images.iter().filter(|image| !failures.has(image)).copied().collect();
    let reading = Reading { contents: &contents, ..reading };
    if let Some(lock) = frozen {
        let mut found = lock::leftovers(project, lock);
        let (present, unreadable) = lock::present_inputs(project, lock, &targets.guests, environment.variables);
        found.extend(unreadable);
        found.extend(lock::stale_guests(lock, &present));
        add_stale_images(&reading, lock, &wanted, &mut found)?;
        refuse(found)?;
    }
    let ctx = Context {
        state: &state,
        ledger: &ledger,
        memory: &memory,
        jobs: &Jobs::new(options.jobs.unwrap_or_else(processors)),
        environment: environment.variables,
        ww: environment.ww,
        offline: options.offline,
        cancel: environment.cancel,
        events: environment.events,
    };
    let outcome = build_guests(&ctx, project, &standing.guests, options.after_failure);
    failures.of_guests(outcome.failed, outcome.left)?;
    let guests = outcome.done;
    let is_whole =
        |image: &&&Image| images::guests_of(project, image).into_iter().all(|name| guests.contains_key(name));
    let images: Vec<&Image> = wanted.iter().filter(is_whole).copied().collect();
    let stale = standing.stale_images(project, &images, &memory, reading, &guests)?;
    // Of the others the lock has what it needs already, unless somebody has changed it, or a guest was made of something
    // else and came out the same.
    let is_other = |name: &GuestName| {
        let built = &guests[name];
        memory
            .guests
            .get(name)
            .is_none_or(|before| before.inputs != built.inputs.digest() || before.toolchain != built.toolchain.as_str())
    };
    let fresh = |image: &Image| memory.images.get(&image.name).and_then(|record| built_image(image, record, project));
    let is_wanted = |image: &&&Image| {
        !is_lock_current
            || stale.contains_key(&image.name)
            || fresh(image).is_none()
            || images::guests_of(project, image).into_iter().any(is_other)
    };
    let wanted: Vec<&Image> = images.iter().filter(is_wanted).copied().collect();
    let start = SystemTime::now();
    let mut trees = plan(&reading, &wanted, &guests, &mut failures)?;
    match frozen {
        Some(lock) => refuse(lock::differences(lock, project, &guests, &trees))?,
        None if project.profile.is_none() => warn_of_differences(&ctx, locked.as_ref(), &guests),
        None => {}
    }
    let mut built = Vec::new();
    for image in &images {
        if failures.has(image) {
            continue;
        }
        let tree = trees.iter().find(|tree| tree.plan.image.name == image.name);
        let reasons = stale.get(&image.name);
        built.push(match (tree, reasons, fresh(image)) {
            (tree, None, Some(fresh)) if tree.is_none_or(|tree| tree.root.cid == fresh.cid) => fresh,
            (Some(tree), reasons, _) => {
                let begin = Instant::now();
                let made = assemble(&reading, tree, &guests);
                let Some(made) = failures.of_images([image.name.clone()], made)? else { continue };
                let (elapsed, changed) = (begin.elapsed(), made.image.changed);
                (ctx.events)(Event::Assembled { image: &image.name, elapsed, changed });
                note_image(&ctx, project, tree, &made, reasons.map_or(&[], Vec::as_slice), &guests, start);
                made.image
            }
            (None, ..) => unreachable!("what is not fresh is planned"),
        });
    }
    trees.retain(|tree| !failures.has(tree.plan.image));
    let after = match frozen {
        Some(lock) => lock.clone(),
        None => lock::updated(locked.as_ref(), project, &guests, &trees),
    };
    let lock = match frozen {
        Some(_) => LockChange::None,
        None if project.profile.is_some() => LockChange::None,
        None => write_lock(project, locked.as_ref(), &after)?,
    };
    let not_held = frozen.map(|lock| not_held(lock, &guests)).unwrap_or_default();
    note_stamps(&ledger, &memory, standing.entries);
    // The lock says what it said before, or what was just built.
    let is_everything =
        targets.is_everything(project) || is_lock_current && ledger.with(|memory| memory.settled.is_some());
    if not_held.is_empty() && failures.is_empty() && is_everything && project.profile.is_none() {
        settle_lock(&ledger, project, &after);
    }
    let is_guest = |name: &GuestName| project.guests.contains_key(name);
    // What is forgotten too late does no harm.
    let _ = ledger.tidy(is_guest, |name| project.images.contains_key(name));
    let guests = guests.into_iter().map(|(name, built)| (name, built.path)).collect();
    failures.end(Built { guests, images: built, lock, not_held }, &targets.images)
}

/// What would be built, and why: nothing is, and no process is started.
///
/// # Errors
///
/// [`Error`] for a name that the project does not have, or where something cannot be read.
pub fn plan_build(
    variables: &Variables,
    project: &Project,
    names: &[String],
    stopped: &(dyn Fn() -> bool + Sync),
) -> Result<BuildPlan, Error> {
    let targets = Targets::of(project, names)?;
    let memory = Memory::of_project(&project.root);
    let nothing = BTreeMap::new();
    let reading = Reading { project, stopped, profile: Profile::default(), contents: &nothing, state: None };
    let standing = Standings::of(project, &targets, variables, &memory, reading)?;
    Ok(standing.as_plan(project, &targets))
}

/// How many compilers run at a time where nobody says: as many as there are processors.
fn processors() -> NonZero<usize> {
    std::thread::available_parallelism().unwrap_or(NonZero::<usize>::MIN)
}

/// Remembers stamps that were brought up to date. Without that the next build reads those files again, and that is all.
fn note_stamps(ledger: &Ledger, memory: &Memory, entries: Vec<Entry>) {
    // A guest that was built meanwhile is remembered better.
    let is_as_before = |entry: &Entry| match entry {
        Entry::Guest(name, _) => ledger.with(|now| now.guest(name) == memory.guest(name)),
        _ => true,
    };
    let _ = ledger.note(entries.into_iter().filter(is_as_before).collect());
}

/// Tells what images are to be, before any of them is written.
fn plan<'a>(
    reading: &Reading<'a>,
    images: &[&'a Image],
    guests: &BTreeMap<GuestName, BuiltGuest>,
    failures: &mut Failures<'_>,
) -> Result<Vec<PlannedTree<'a>>, Error> {
    let (mut artifacts, mut trees) = (BTreeMap::new(), Vec::new());
    for &image in images {
        if !failures.has(image) {
            let planned = plan_image(reading, image, guests, &mut artifacts);
            let planned = planned.map_err(|source| Error::Listing { image: image.name.clone(), source });
            trees.extend(failures.of_images([image.name.clone()], planned)?);
        }
    }
    Ok(trees)
}

fn plan_image<'a>(
    reading: &Reading<'a>,
    image: &'a Image,
    guests: &BTreeMap<GuestName, BuiltGuest>,
    artifacts: &mut BTreeMap<GuestName, Subtree>,
) -> Result<PlannedTree<'a>, ListingError> {
    let plan = reading.plan(image).map_err(|(_, error)| error)?;
    for name in plan.guests() {
        if let Vacant(vacant) = artifacts.entry(name) {
            let name = vacant.key();
            let artifact = reading.import(&guests[name].path, &format!("guest-{name}"))?;
            vacant.insert(artifact);
        }
    }
    let root = plan.root(artifacts)?;
    Ok(PlannedTree { plan, root })
}

/// Builds guests, some at a time. Those that are fresh are only passed on.
fn build_guests(
    ctx: &Context<'_>,
    project: &Project,
    standings: &BTreeMap<GuestName, Standing>,
    after_failure: AfterFailure,
) -> queue::Outcome<GuestName, BuiltGuest, BuildError> {
    let mut built = BTreeMap::new();
    let mut steps = BTreeMap::new();
    for (name, standing) in standings {
        match standing {
            Standing::Fresh(fresh) => drop(built.insert(name.clone(), (**fresh).clone())),
            Standing::Stale(_) => {
                let guest = &project.guests[name];
                let cost = ctx.memory.guests.get(name).map_or(UNKNOWN_COST, |record| record.elapsed());
                let exclusive = build::exclusive(guest);
                steps.insert(name.clone(), Step { after: guest.built_before().cloned().collect(), cost, exclusive });
            }
        }
    }
    let work = |name: &GuestName, before: &BTreeMap<GuestName, BuiltGuest>| {
        let guest = &project.guests[name];
        let Standing::Stale(reasons) = &standings[name] else { unreachable!("only what is stale is a step") };
        let embedded = |name: &GuestName| before.get(name).or_else(|| built.get(name)).cloned();
        let embeds = guest.embeds.iter().filter_map(|name| Some((name.clone(), embedded(name)?))).collect();
        build::build_guest(ctx, project, guest, &embeds, reasons)
    };
    let mut outcome = queue::run(&steps, ctx.jobs.count(), after_failure, work);
    outcome.done.extend(built);
    outcome
}
