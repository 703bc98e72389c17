//! `ww verify --rebuild`: guests and images built twice from nothing, in two folders and surroundings that have as little in
//! common as can be had, and compared with each other and with the lock.
//!
//! Each build is one of `ww` itself in a copy of what the lock and the Wetfile say that goes in. Nothing is written in the
//! project.

mod child;
mod compare;
mod copy;
mod hint;
mod section;
mod settings;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use self::child::{Ended, Launch, NOBODY};
use self::copy::CopyError;
use self::hint::Traces;
use self::settings::{SETTINGS, Settings};
use super::{Finding, Report, project as verifying};
use crate::build::{self, Cancel, GuestFiles, InputsError, State, StateError, Variables, seconds_since_1970};
use crate::dag::Cid;
use crate::dag::unixfs::Profile;
use crate::escape;
use crate::ops::contents;
use crate::ops::lock::{self, Reading};
use crate::wetfile::lock::{Digest, LOCK_FILE_NAME, Lock, LockError};
use crate::wetfile::{GuestName, Image, ImageName, Project, Recipe};

/// How often it is looked whether another second has begun.
const POLL: std::time::Duration = std::time::Duration::from_millis(20);

/// How many lines of what a failed build said are shown.
const SAID_LINES_MAX: usize = 20;

/// How many lines of what a build as another user said are shown, as the reason why there is none: an error and its causes.
const REASON_LINES_MAX: usize = 3;

/// What building elsewhere takes.
#[derive(Clone, Copy)]
pub struct RebuildEnvironment<'a> {
    /// The environment variables of the process.
    pub variables: &'a Variables,
    /// The `ww` binary, which is started for each build.
    pub ww: &'a Path,
    /// The folder for temporary files.
    pub temporary: &'a Path,
    /// Stops it from another thread.
    pub cancel: &'a Cancel,
    /// Is told, ready to be shown, what goes on.
    pub progress: &'a dyn Fn(&str),
}

/// What came of building twice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rebuilt {
    /// The images as the first build has made them, and what does not agree.
    pub report: Report,
    /// The guests that were built, by name.
    pub guests: BTreeMap<GuestName, RebuiltGuest>,
    /// What is worth knowing and no failure, ready to be shown: expected differences, and what could not be had.
    pub notes: Vec<String>,
    /// How the surroundings of both builds differed; `None` if nothing was built.
    pub surroundings: Option<[Surroundings; 2]>,
}

/// A guest that was built twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RebuiltGuest {
    /// What came out of both builds.
    pub digests: [Digest; 2],
    /// Whether it, and all that it embeds, ought to come out the same.
    pub is_reproducible: bool,
}

/// What a build was done in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Surroundings {
    /// The folder of the copy; it is gone by now.
    pub folder: PathBuf,
    /// Whether it was done as another user than this process's.
    pub is_other_user: bool,
    /// Whether the network was cut off. Compilers were told not to use it in any case.
    pub is_without_network: bool,
    /// The umask.
    pub umask: u32,
    /// How many processors compilers could use at a time.
    pub jobs: usize,
}

/// Why nothing could be compared.
#[derive(Debug, thiserror::Error)]
pub enum RebuildError {
    /// It was stopped from outside.
    #[error("stopped")]
    Stopped,
    /// The folder for temporary files is in the project.
    #[error("the folder for temporary files, {}, is in the project: name another in TMPDIR", escape::path(.path))]
    Inside {
        /// The folder.
        path: PathBuf,
    },
    /// Cargo would read settings there that are not the project's.
    #[error(
        "{} sets {}, which cargo would heed in copies of the project below that folder: name another in TMPDIR",
        escape::path(.path), escape::text(.settings)
    )]
    SettingsAbove {
        /// The file.
        path: PathBuf,
        /// What it sets.
        settings: String,
    },
    /// What goes into guests could not be found.
    #[error("cannot tell what guests are made of")]
    Inputs(#[from] InputsError),
    /// A file or folder could not be copied or made.
    #[error("cannot copy {}", escape::path(.path))]
    Copy {
        /// Which one.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// No state could be made for a build.
    #[error("cannot make the state of a build")]
    State(#[source] StateError),
    /// A build could not be started.
    #[error("cannot start a build")]
    Start(#[source] io::Error),
    /// A build in a copy has failed.
    #[error(
        "the build in a copy of the project {ended}: either it needs what is not among its inputs, or what was not \
         downloaded before{}", shown(.said)
    )]
    Failed {
        /// How.
        ended: String,
        /// What it said.
        said: String,
    },
    /// What a build has made could not be read.
    #[error("cannot read {}", escape::path(.path))]
    Read {
        /// What.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The lock that a build has written could not be read.
    #[error(transparent)]
    Lock(#[from] LockError),
}

impl From<CopyError> for RebuildError {
    fn from(CopyError { path, source }: CopyError) -> Self {
        Self::Copy { path, source }
    }
}

fn shown(said: &str) -> String {
    let lines: Vec<&str> = said.lines().collect();
    let last = &lines[lines.len().saturating_sub(SAID_LINES_MAX)..];
    last.iter().map(|line| format!("\n  {}", escape::text(line))).collect()
}

/// A build that was done.
struct Side {
    /// The copy that it was done in.
    project: Project,
    lock: Lock,
    traces: Traces,
    surroundings: Surroundings,
}

/// Builds images of a project twice, with the guests that they need; all guests and images if none are named.
///
/// Where the lock is missing or out of date nothing is built, and that is what is found.
///
/// # Errors
///
/// [`RebuildError`] where a build fails, or something is not to be had. The folders of the builds are gone in any case.
pub fn rebuild(
    environment: &RebuildEnvironment<'_>,
    project: &Project,
    images: &BTreeSet<&ImageName>,
) -> Result<Rebuilt, RebuildError> {
    let wanted: Vec<&Image> =
        project.images.values().filter(|image| images.is_empty() || images.contains(&image.name)).collect();
    let guests: BTreeSet<&GuestName> = match images.is_empty() {
        true => project.guests.keys().collect(),
        false => {
            let used = wanted.iter().flat_map(|image| project.layers(image)).flat_map(Image::guests);
            project.build_order(used).into_iter().collect()
        }
    };
    let mut rebuilt = Rebuilt::default();
    let lock = check_lock(environment, project, &guests, &wanted, &mut rebuilt.report.findings)?;
    let Some(lock) = lock.filter(|_| rebuilt.report.findings.is_empty()) else { return Ok(rebuilt) };
    let temporary = temporary_folder(environment.temporary, &project.root)?;
    if guests.iter().any(|name| matches!(project.guests[*name].recipe, Recipe::Rust(_))) {
        refuse_settings_above(temporary.path())?;
    }
    let files = build::guest_files(project, &lock, environment.variables, environment.cancel)?;
    let toolchains = toolchains(environment, project, &guests);
    let names: Vec<&str> = images.iter().map(|name| name.as_str()).collect();
    let contents = contents::wanted(project, wanted.iter().copied());
    let work =
        Work { environment, project, files: &files, contents: &contents, toolchains: &toolchains, names: &names };
    let mut sides = Vec::new();
    for (index, settings) in SETTINGS.iter().enumerate() {
        wait_for_next_second(sides.last(), environment.cancel);
        (environment.progress)(&format!("building from nothing, {} of {}", index + 1, SETTINGS.len()));
        sides.push(work.build(&temporary.path().join(settings.folder), settings, &mut rebuilt.notes)?);
    }
    let [one, other] = <[Side; 2]>::try_from(sides).unwrap_or_else(|_| unreachable!("there are two settings"));
    let comparison = compare::Comparison { project, lock: &lock, sides: [&one, &other], cancel: environment.cancel };
    comparison.guests(&guests, &mut rebuilt)?;
    comparison.images(&wanted, &mut rebuilt)?;
    rebuilt.surroundings = Some([one.surroundings, other.surroundings]);
    Ok(rebuilt)
}

/// The lock, with a finding for whatever makes it none of the present sources.
fn check_lock(
    environment: &RebuildEnvironment<'_>,
    project: &Project,
    guests: &BTreeSet<&GuestName>,
    images: &[&Image],
    findings: &mut Vec<Finding>,
) -> Result<Option<Lock>, RebuildError> {
    let Some(lock) = verifying::load(project, findings) else { return Ok(None) };
    let (present, unreadable) = lock::present_inputs(project, &lock, guests, environment.variables);
    let mut found = lock::leftovers(project, &lock);
    found.extend(unreadable);
    found.extend(lock::stale_guests(&lock, &present));
    let stopped = || environment.cancel.is_cancelled();
    for image in images {
        let profile = lock.images.get(&image.name).map_or_else(Profile::default, |locked| locked.profile);
        let contents = contents::present(&project.root, &contents::wanted(project, [*image]), &stopped);
        let reading = Reading { project, stopped: &stopped, profile, contents: &contents, state: None };
        match reading.plan(image) {
            Ok(plan) => found.extend(lock::stale_image(&lock, &plan)),
            Err((_, error)) if error.is_stop() => return Err(RebuildError::Stopped),
            Err((path, error)) => found.push(lock::unreadable_source(image, &path, &error)),
        }
    }
    findings.extend(found.into_iter().map(verifying::of_lock));
    Ok(Some(lock))
}

/// A new folder outside of the project, which is removed when it is dropped. Others can go through it, and see nothing.
fn temporary_folder(parent: &Path, root: &Path) -> Result<tempfile::TempDir, RebuildError> {
    let failed = |source| RebuildError::Copy { path: parent.to_owned(), source };
    let parent = fs::canonicalize(parent).map_err(failed)?;
    if parent.starts_with(root) {
        return Err(RebuildError::Inside { path: parent });
    }
    let failed = |source| RebuildError::Copy { path: parent.clone(), source };
    let folder = tempfile::Builder::new().prefix("ww-rebuild-").tempdir_in(&parent).map_err(failed)?;
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o711)).map_err(failed)?;
    Ok(folder)
}

/// Settings of cargo's in a folder above the copies would be heeded in both, and not where the lock was written.
fn refuse_settings_above(folder: &Path) -> Result<(), RebuildError> {
    match build::cargo_settings_above(folder).into_iter().next() {
        Some((path, settings)) => Err(RebuildError::SettingsAbove { path, settings: settings.join(", ") }),
        None => Ok(()),
    }
}

/// Waits until it is later than a build ended, by the clock that most programs read: in whole seconds.
fn wait_for_next_second(before: Option<&Side>, cancel: &Cancel) {
    while before.is_some_and(|side| seconds_since_1970() == side.traces.end) && !cancel.is_cancelled() {
        std::thread::sleep(POLL);
    }
}

/// The Rust toolchains that the folders of guests choose, as variables for a `ww` elsewhere.
fn toolchains(environment: &RebuildEnvironment<'_>, project: &Project, guests: &BTreeSet<&GuestName>) -> Variables {
    let chosen = guests.iter().filter_map(|name| {
        let guest = &project.guests[*name];
        let toolchain = build::rustup_toolchain(project, guest, environment.variables, environment.cancel)?;
        Some((build::toolchain_variable(name).into(), toolchain))
    });
    chosen.collect()
}

/// What both builds have in common.
struct Work<'a> {
    environment: &'a RebuildEnvironment<'a>,
    project: &'a Project,
    files: &'a GuestFiles,
    /// What images take by its CID. All of it is in the project's state, and has proven itself there.
    contents: &'a BTreeSet<&'a Cid>,
    toolchains: &'a Variables,
    names: &'a [&'a str],
}

impl Work<'_> {
    /// Builds in a folder that is not there yet, in the surroundings that are the furthest from this process's own. Where it
    /// fails as another user, who may not be allowed to use the compilers, it is tried as this one.
    fn build(&self, folder: &Path, settings: &Settings, notes: &mut Vec<String>) -> Result<Side, RebuildError> {
        let launches = Launch::possible(settings.wants_other_user, self.environment.variables);
        let mut failed_as_nobody = None;
        for launch in launches {
            if launch.as_nobody && failed_as_nobody.is_some() {
                continue;
            }
            match self.build_as(folder, settings, &launch) {
                Err(RebuildError::Failed { said, .. }) if launch.as_nobody => {
                    failed_as_nobody = Some(said);
                    fs::remove_dir_all(folder)
                        .map_err(|source| RebuildError::Copy { path: folder.to_owned(), source })?;
                }
                built => {
                    if settings.wants_other_user && !launch.as_nobody {
                        notes.push(why_not_another_user(failed_as_nobody.as_deref()));
                    }
                    if !launch.without_network {
                        let note = "the network could not be cut off here: compilers were told not to use it";
                        if !notes.iter().any(|known| known == note) {
                            notes.push(note.to_owned());
                        }
                    }
                    return built;
                }
            }
        }
        unreachable!("the last launch is as this user")
    }

    fn build_as(&self, folder: &Path, settings: &Settings, launch: &Launch) -> Result<Side, RebuildError> {
        let environment = self.environment;
        let stopped = || environment.cancel.is_cancelled();
        let copy_error = |path: &Path| {
            let path = path.to_owned();
            move |source| RebuildError::Copy { path, source }
        };
        let (root, home) = (folder.join(settings.project), folder.join(settings.home));
        let temporary = folder.join("tmp");
        for path in [&root, &home, &temporary] {
            fs::create_dir_all(path).map_err(copy_error(path))?;
        }
        fs::set_permissions(folder, fs::Permissions::from_mode(0o711)).map_err(copy_error(folder))?;
        settings.fill_home(&home, environment.variables).map_err(copy_error(&home))?;
        copy::copy(self.project, self.files, &root, settings.umask, &stopped)?;
        if !self.contents.is_empty() {
            // Without a state whose format is known, a build would discard what lies there.
            State::open(&root, environment.cancel, &|_| {}).map_err(RebuildError::State)?;
            let trees: Vec<PathBuf> = self.contents.iter().map(|cid| build::content(Path::new(""), cid)).collect();
            copy::copy_trees(&self.project.root, &trees, &root, settings.umask, &stopped)?;
        }
        let mut ww = environment.ww.to_owned();
        if launch.as_nobody {
            // It may lie where others cannot reach it.
            ww = folder.join("ww");
            fs::hard_link(environment.ww, &ww)
                .or_else(|_| fs::copy(environment.ww, &ww).map(drop))
                .map_err(copy_error(&ww))?;
            for path in fs::read_dir(folder).map_err(copy_error(folder))?.flatten().map(|entry| entry.path()) {
                if path != ww {
                    copy::give(&path, NOBODY, NOBODY)?;
                }
            }
        }
        if stopped() {
            return Err(RebuildError::Stopped);
        }
        let mut variables = settings.variables(environment.variables, &home, &temporary, self.project);
        variables.extend(self.toolchains.clone());
        let call = settings.call(&ww, &root, self.names);
        let begin = seconds_since_1970();
        let ended = child::run(&mut launch.command(&call, &variables), environment.cancel);
        match ended.map_err(RebuildError::Start)? {
            Ended::Stopped => return Err(RebuildError::Stopped),
            Ended::Done { status, .. } if status.success() => {}
            Ended::Done { status, said } => return Err(RebuildError::Failed { ended: child::ended(status), said }),
        }
        let read_error = |path: PathBuf| move |source| RebuildError::Read { path, source };
        let project = crate::wetfile::load(&root).map_err(|error| read_error(root.clone())(error.into()))?;
        let lock = crate::wetfile::lock::load(&root)?;
        let lock = lock.ok_or_else(|| read_error(root.join(LOCK_FILE_NAME))("it is not there".into()))?;
        let folders = vec![
            ("the folder that it was built in", root.clone()),
            ("its user's home", home),
            ("the folder for temporary files", temporary),
        ];
        let traces = Traces { folders, begin, end: seconds_since_1970() };
        let surroundings = Surroundings {
            folder: root,
            is_other_user: launch.as_nobody,
            is_without_network: launch.without_network,
            umask: settings.umask,
            jobs: settings.jobs(),
        };
        Ok(Side { project, lock, traces, surroundings })
    }
}

fn why_not_another_user(said: Option<&str>) -> String {
    let lines = said.map(|said| said.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>());
    match lines {
        Some(lines) => format!(
            "both builds were done as the same user: as another one it does not build here ({})",
            escape::text(&lines[lines.len().saturating_sub(REASON_LINES_MAX)..].join("; "))
        ),
        None => "both builds were done as the same user: only root can do one as another".to_owned(),
    }
}
