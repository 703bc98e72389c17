//! What several commands do with the project they are called in: find it, check it, build it.

use std::path::{Path, PathBuf};
use std::{fs, io};

use serde_json::json;

use super::cancel::CancelOnSignal;
use super::error::Failure;
use super::progress::{Progress, Shown};
use super::sources::SourceArgs;
use super::wanted_content::WantedContent;
use super::{diagnostics, env, exit_code, ui};
use crate::build::{Cancel, Event};
use crate::dag::ContentPath;
use crate::escape;
use crate::ops::{self, BuildOptions, Built, LockChange, Skipped};
use crate::wetfile::lock::LOCK_FILE_NAME;
use crate::wetfile::{self, ImageName, Project, WetfileError};

/// With a value other than `0` and `false`, builds do not change the lock.
const LOCKED_VARIABLE: &str = "WW_LOCKED";

/// Whether there is a Wetfile here or in a folder above.
pub(super) fn is_here() -> bool {
    env::working_directory().is_ok_and(|here| find(&here).is_some())
}

/// The folder of the Wetfile that is found from here.
pub(super) fn root_here() -> Option<PathBuf> {
    let here = env::working_directory().ok()?;
    find(&here).map(Path::to_owned)
}

/// The nearest folder with a Wetfile, from `here` upwards. A symlink that leads nowhere counts: it was meant as one.
fn find(here: &Path) -> Option<&Path> {
    here.ancestors().find(|dir| dir.join(wetfile::FILE_NAME).symlink_metadata().is_ok())
}

/// Finds the Wetfile, here or in a folder above, and checks it. What is wrong with it is shown here: on standard error,
/// or as JSON on standard output.
pub(super) fn load(as_json: bool) -> Result<Project, Failure> {
    let here = env::working_directory().map_err(|error| Failure::new(exit_code::FAILURE, &error))?;
    load_from(find(&here).unwrap_or(&here), as_json)
}

/// The same for the Wetfile of a folder.
pub(super) fn load_from(root: &Path, as_json: bool) -> Result<Project, Failure> {
    load_until_shown(root, as_json).inspect_err(|failure| {
        if as_json && !failure.members.is_empty() {
            // Where standard output takes no more, the exit code still tells.
            let _ = ui::result_line(&escape::json(&failure.as_json().to_string()));
        }
    })
}

/// As [`load`], for those who show each failure as JSON, if JSON is wanted: what is wrong with the Wetfile is in the failure then.
pub(super) fn load_for(as_json: bool) -> Result<Project, Failure> {
    let here = env::working_directory().map_err(|error| Failure::new(exit_code::FAILURE, &error))?;
    load_until_shown(find(&here).unwrap_or(&here), as_json)
}

fn load_until_shown(root: &Path, as_json: bool) -> Result<Project, Failure> {
    let here = env::working_directory().map_err(|error| Failure::new(exit_code::FAILURE, &error))?;
    wetfile::load(root).map_err(|error| match &error {
        WetfileError::Invalid { file, text, diagnostics } => {
            show_diagnostics(diagnostics, &shown(file, &here), text, as_json)
        }
        WetfileError::NotFound { .. } => Failure::new(exit_code::WETFILE, &error)
            .with_help("call ww in a project's folder or below it, or name the folder with -C"),
        _ => Failure::new(exit_code::WETFILE, &error),
    })
}

fn show_diagnostics(found: &[wetfile::Diagnostic], name: &str, text: &str, as_json: bool) -> Failure {
    let plural = if found.len() == 1 { "" } else { "s" };
    let message = format!("{name} has {} error{plural}; nothing was built", found.len());
    let failure = Failure::message(exit_code::WETFILE, message);
    if as_json {
        return failure.with_members(json!({ "diagnostics": diagnostics::to_json(found, name, text) }));
    }
    let report = diagnostics::render(found, name, text, env::stderr_has_colours());
    ui::status(&format!("{}\n", report.trim_end()));
    failure
}

/// A path as the user sees it from `here`.
pub(super) fn shown(path: &Path, here: &Path) -> String {
    match path.strip_prefix(here) {
        Ok(below) if below.as_os_str().is_empty() => ".".into(),
        Ok(below) => escape::path(below),
        Err(_) => escape::path(path),
    }
}

/// A path below a project's root as one below the root of the repository that GitHub Actions has checked out, which is how
/// annotations name files; escaped.
pub(super) fn in_repository(root: &Path, path: &Path) -> String {
    let (whole, repository) = (root.join(path), env::variable("GITHUB_WORKSPACE").map(PathBuf::from));
    // A project's root has no symlink in it.
    let real = repository.as_ref().and_then(|repository| fs::canonicalize(repository).ok());
    let below = [repository, real].into_iter().flatten().find_map(|above| whole.strip_prefix(above).ok());
    escape::path(below.unwrap_or(path))
}

/// What the user calls an image: a path at which something is, or, where no image lies there, the name of one of the Wetfile.
pub(super) enum GivenImage {
    /// An image of this project.
    OfProject(Box<Project>, ImageName),
    /// Content in the local blockstore.
    Content(ContentPath),
    /// Something by itself.
    Path(PathBuf),
}

/// Finds out which image is meant. Nothing is built.
pub(super) fn image(given: &Path) -> Result<GivenImage, Failure> {
    if let Some(content) = content(given)? {
        return Ok(GivenImage::Content(content));
    }
    if !is_here() {
        return Ok(GivenImage::Path(given.to_owned()));
    }
    let name = given.to_str().and_then(|name| ImageName::new(name).ok());
    if given.symlink_metadata().is_err() && name.is_none() {
        return Ok(GivenImage::Path(given.to_owned()));
    }
    let project = load(false)?;
    let real = fs::canonicalize(given).ok();
    let is_out = |image: &wetfile::Image| real.as_ref().is_some_and(|real| *real == image.out.to_path(&project.root));
    let by_path = project.images.values().find(|image| is_out(image)).map(|image| image.name.clone());
    // A folder with a guest's sources may have its name.
    let is_other = || !is_absent(&given.join(wetfile::MAIN_PATH));
    match by_path.or(name.filter(|name| project.images.contains_key(name) && !is_other())) {
        Some(name) => Ok(GivenImage::OfProject(Box::new(project), name)),
        None => Ok(GivenImage::Path(given.to_owned())),
    }
}

/// The image of the Wetfile that is to be run, if it is called by its name. A folder of this name with a program goes first; one
/// without is no image, as the sources of a guest are none. The failure is that of a run.
pub(super) fn image_to_run(given: &Path) -> Result<Option<(Project, ImageName)>, Failure> {
    let Some(name) = name_to_run(given) else { return Ok(None) };
    let project = load(false).map_err(|failure| Failure { code: exit_code::RUN_FAILURE, ..failure })?;
    match project.images.contains_key(&name) {
        true => Ok(Some((project, name))),
        false if is_absent(given) => Err(no_such_image(exit_code::RUN_NOT_FOUND, &name, &project)),
        false => Ok(None),
    }
}

/// What is given, if it may be the name of an image of a Wetfile here.
fn name_to_run(given: &Path) -> Option<ImageName> {
    let name = given.to_str().and_then(|name| ImageName::new(name).ok())?;
    (is_absent(&given.join(wetfile::MAIN_PATH)) && is_here()).then_some(name)
}

/// Where the image lies that is called by its name, as [`image_to_run`] has it, if that can be told; nothing is said of what is
/// wrong.
pub(super) fn out_of_image(given: &Path) -> Option<PathBuf> {
    let name = name_to_run(given)?;
    let project = wetfile::load(&root_here()?).ok()?;
    project.images.get(&name).map(|image| image.out.to_path(&project.root))
}

/// The content that is meant, if it is content: `/ipfs/CID`, `ipfs://CID`, or a bare CID where nothing has that name.
pub(super) fn content(given: &Path) -> Result<Option<ContentPath>, Failure> {
    let Some(text) = given.to_str() else { return Ok(None) };
    match text.parse::<ContentPath>() {
        Ok(content) if ContentPath::is_meant(text) || given.symlink_metadata().is_err() => Ok(Some(content)),
        Err(error) if ContentPath::is_meant(text) => Err(Failure::new(exit_code::USAGE, &error)),
        Err(error) if given.symlink_metadata().is_err() => match content_meant(text) {
            Some(help) => Err(Failure::new(exit_code::USAGE, &error).with_help(help)),
            None => Ok(None),
        },
        _ => Ok(None),
    }
}

/// What to write in place of a text that was probably meant to be content: a CID with a character too few, or the address of a
/// gateway.
fn content_meant(text: &str) -> Option<String> {
    let first = text.split('/').next().unwrap_or_default();
    let is_cid = ["Qm", "baf", "BAF"].iter().any(|start| first.starts_with(start))
        && first.len() >= CID_TEXT_BYTES_MIN
        && first.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if is_cid {
        return Some("it begins as a CID does: is all of it there? A folder of this name would be ./NAME".into());
    }
    let lower = text.to_ascii_lowercase();
    let (_, rest) = ["ipfs:/", "ipfs:", "dweb:/ipfs/", "dweb:ipfs/"]
        .iter()
        .find_map(|start| lower.starts_with(start).then(|| text.split_at(start.len())))
        .or_else(|| {
            let is_url = lower.starts_with("https://") || lower.starts_with("http://");
            text.find("/ipfs/").filter(|_| is_url).map(|at| text.split_at(at + "/ipfs/".len()))
        })?;
    Some(format!("write /ipfs/{}", escape::text(rest.trim_start_matches('/'))))
}

/// A text that begins as CIDs do and is as long was meant to be one; the shortest with a hash of 256 bits have 46 characters.
const CID_TEXT_BYTES_MIN: usize = 40;

/// Builds what `names` say, with the progress on standard error. What images take by its CID, and is not here, comes from
/// `sources`. A signal stops the compilers, or whatever
/// else is being done, and then the build.
pub(super) fn build(
    project: &Project,
    names: &[String],
    options: BuildOptions,
    sources: &SourceArgs,
    shown: Shown,
) -> Result<Built, Failure> {
    let Ended { built, failure, .. } = build_partly(project, names, options, sources, shown)?;
    failure.map_or(Ok(built), Err)
}

/// A build that came to something.
pub(super) struct Ended {
    pub(super) built: Built,
    /// What was not tried, as something that it needs has failed.
    pub(super) skipped: Skipped,
    /// What has failed all the same.
    pub(super) failure: Option<Failure>,
}

/// As [`build`], and gives what was built although not everything could be. A failure is that nothing was.
pub(super) fn build_partly(
    project: &Project,
    names: &[String],
    options: BuildOptions,
    sources: &SourceArgs,
    shown: Shown,
) -> Result<Ended, Failure> {
    shown.check()?;
    let failed = |error: &dyn std::error::Error| Failure::new(exit_code::FAILURE, error);
    let cancel = Cancel::default();
    let signals = CancelOnSignal::watch(&cancel).map_err(|error| failed(&error))?;
    let ww = env::this_program().map_err(|error| failed(&error))?;
    let variables = env::variables();
    let mut progress = Progress::new(shown, project);
    let events = |event: Event<'_>| progress.show(&event);
    let content = WantedContent { sources, cancel: &cancel };
    let environment =
        ops::Environment { variables: &variables, ww: &ww, cancel: &cancel, events: &events, content: &content };
    let options = BuildOptions { locked: options.locked || is_locked(), ..options };
    let ended = match ops::build(&environment, project, names, options) {
        Ok(built) => Ok(Ended { built, skipped: Skipped::default(), failure: None }),
        Err(ops::Error::Partly(partly)) => {
            let (built, skipped) = (partly.built.clone(), partly.failed.skipped.clone());
            Ok(Ended { built, skipped, failure: Some(ops::Error::Partly(partly).into()) })
        }
        Err(error) => Err(Failure::from(error)),
    };
    let finished = progress.finish();
    let failure = match &ended {
        Ok(ended) => ended.failure.as_ref(),
        Err(failure) => Some(failure),
    };
    if let Some(failure) = failure
        // After a signal nobody wants to know what was being said.
        && signals.signal().is_none()
    {
        progress.show_failed();
        progress.annotate(failure);
    }
    let ended = signals.result(ended)?;
    say_of_lock(&ended.built);
    Ok(Ended { failure: ended.failure.or(finished.err()), ..ended })
}

/// Refuses a path at which there is nothing, and says which image may have been meant.
pub(super) fn refuse_absent(given: &Path) -> Result<(), Failure> {
    if !is_absent(given) {
        return Ok(());
    }
    match given.to_str().and_then(|name| ImageName::new(name).ok()) {
        Some(name) if is_here() => Err(no_such_image(exit_code::NOT_FOUND, &name, &load(false)?)),
        _ if is_here() => Err(absent(given).with_help("`ww build` makes the images of a Wetfile.toml")),
        _ => Err(absent(given)),
    }
}

/// Whether there is nothing at a path.
pub(super) fn is_absent(given: &Path) -> bool {
    let kind = given.symlink_metadata().map_err(|error| error.kind());
    matches!(kind, Err(io::ErrorKind::NotFound | io::ErrorKind::NotADirectory))
}

/// That there is nothing at a path.
pub(super) fn absent(given: &Path) -> Failure {
    Failure::message(exit_code::NOT_FOUND, format!("there is no file or folder {}", escape::path(given)))
}

/// That there is no such image, nor a folder of this name, with what may have been meant; `code` is the failure's.
pub(super) fn no_such_image(code: u8, name: &ImageName, project: &Project) -> Failure {
    let images = || project.images.keys().map(ImageName::as_str);
    let message = format!("there is no folder `{name}`, and no image of this name in {}", escape::path(&project.file));
    let failure = Failure::message(code, message);
    match wetfile::nearest_word(name.as_str(), images()) {
        _ if project.guests.keys().any(|guest| guest.as_str() == name.as_str()) => {
            failure.with_help(format!("`{name}` is a guest; an image is needed that has it as bin/main.wasm"))
        }
        Some(nearest) => failure.with_help(format!("did you mean `{nearest}`?")),
        None => failure.with_help(format!("it has the images {}", images().collect::<Vec<_>>().join(", "))),
    }
}

/// Whether the environment forbids to change the lock, as a CI system's may.
fn is_locked() -> bool {
    env::variable(LOCKED_VARIABLE).is_some_and(|value| value != "0" && value != "false")
}

fn say_of_lock(built: &Built) {
    match built.lock {
        LockChange::None => {}
        LockChange::Created => ui::progress(&format!(
            "wrote {LOCK_FILE_NAME}: commit it, and `ww verify` tells whether others have the same"
        )),
        LockChange::Updated => ui::progress(&format!("updated {LOCK_FILE_NAME}")),
    }
    for (guest, toolchain) in &built.not_held {
        ui::progress(&format!(
            "{guest}: {LOCK_FILE_NAME} has nothing to compare it with of this toolchain: {toolchain}"
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_meant_to_be_content_is_known() {
        let check = |text: &str, expected: Option<&str>| {
            let help = content_meant(text);
            assert_eq!(
                help.as_deref().map(|help| expected.is_some_and(|part| help.contains(part))),
                expected.map(|_| true),
                "{text}"
            );
        };
        let cid = "bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5";
        check(cid, Some("begins as a CID does"));
        check(&format!("{cid}/bin"), Some("begins as a CID does"));
        for start in ["ipfs:/", "dweb:/ipfs/", "https://gateway.example/ipfs/", "IPFS:"] {
            check(&format!("{start}{cid}/x"), Some(&format!("write /ipfs/{cid}/x")));
        }
        for other in ["pid0", "bafy", "Qm", "examples/images/pid0", "./ipfs/x", "https://example.org/x"] {
            check(other, None);
        }
    }
}
