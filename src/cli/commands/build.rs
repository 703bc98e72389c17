//! `ww build`.

use std::num::NonZero;
use std::path::{Path, PathBuf};

use clap::Args;
use clap_complete::engine::ArgValueCandidates;
use serde_json::json;

use crate::build::Reason;
use crate::build::queue::AfterFailure;
use crate::cli::cancel::stoppable;
use crate::cli::error::{Failure, chain};
use crate::cli::progress::{Shown, of_reason};
use crate::cli::project::Ended;
use crate::cli::sources::SourceArgs;
use crate::cli::watch::{self, Watching};
use crate::cli::{compiler, complete, env, exit_code, project, ui};
use crate::escape;
use crate::ops::{self, BuildOptions, Built, BuiltImage, LockChange, Skipped};
use crate::wetfile::{ProfileName, Project};

/// Build guests and assemble images
///
/// Compiles the guests of the Wetfile in dependency order, and assembles its images. With names it does so for those
/// guests and images and for what they need; a name that a guest and an image share means both. Wetfile.toml is looked
/// for here and in the folders above.
///
/// Writes into Wetfile.lock what was built from what. Prints one line for each image, with its CID. Programs of images that
/// have changed are compiled for this machine, so that their first run need not. What compilers say is shown when one fails, or with --verbose.
#[derive(Debug, Args)]
#[command(mut_arg("offline", |offline| offline.help(OFFLINE_HELP)))]
pub(in crate::cli) struct BuildArgs {
    /// Guests and images to build; all of them where there is no name
    #[arg(value_name = "NAME", add = ArgValueCandidates::new(complete::targets))]
    names: Vec<String>,

    /// Build guests as this profile of the Wetfile says, `[profile.NAME]`; Wetfile.lock is then left alone
    #[arg(long, value_name = "NAME", conflicts_with = "locked")]
    profile: Option<String>,

    /// Refuse to change Wetfile.lock, as in CI; WW_LOCKED=1 in the environment says the same
    #[arg(long)]
    locked: bool,

    /// Use this many processors at a time, all compilers together [default: as many as there are]
    #[arg(short, long, value_name = "N")]
    jobs: Option<NonZero<usize>>,

    /// Go on after a failure with what does not depend on it
    #[arg(short, long)]
    keep_going: bool,

    /// Build again whenever something that is built from changes, until ctrl-C
    #[arg(short, long, conflicts_with_all = ["json", "locked", "plan"])]
    watch: bool,

    /// Say what would be built, and why, and build nothing
    #[arg(long, conflicts_with_all = ["offline", "locked", "jobs", "keep_going"])]
    plan: bool,

    /// Print what happens as JSON, one object to a line, the result last; or what is wrong with the Wetfile
    #[arg(long)]
    json: bool,

    /// Write what took how long to this file, as a trace for chrome://tracing or ui.perfetto.dev
    #[arg(long, value_name = "FILE", conflicts_with = "plan")]
    timings: Option<PathBuf>,

    #[command(flatten)]
    sources: SourceArgs,
}

/// What `--offline` means here.
const OFFLINE_HELP: &str = "Let compilers use only what was downloaded before, and ask nobody for content that images take by \
                            its CID and that is not in the local blockstore";

/// Builds.
pub(in crate::cli) fn run(args: &BuildArgs, verbose: bool) -> Result<(), Failure> {
    if args.watch {
        return watch::watch(&args.names, args.profile.as_deref(), &mut Builds { args, verbose });
    }
    let done = project::load_for(args.json).and_then(|project| match args.plan {
        true => plan(args, &under_profile(args, project)?),
        false => build(args, project, verbose),
    });
    done.inspect_err(|failure| {
        if args.json {
            // Where standard output takes no more, the exit code still tells.
            let _ = ui::result_line(&escape::json(&failure.as_json().to_string()));
        }
    })
}

/// The project under the profile that was chosen, if one was.
fn under_profile(args: &BuildArgs, project: Project) -> Result<Project, Failure> {
    match &args.profile {
        Some(profile) => project.with_profile(profile).map_err(|error| Failure::new(exit_code::NOT_FOUND, &error)),
        None => Ok(project),
    }
}

/// Builds whenever something has changed.
struct Builds<'a> {
    args: &'a BuildArgs,
    verbose: bool,
}

impl Watching for Builds<'_> {
    fn build(&mut self, project: &Project) -> Result<(), Failure> {
        build(self.args, project.clone(), self.verbose)
    }
}

fn build(args: &BuildArgs, project: Project, verbose: bool) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::new(exit_code::FAILURE, &error);
    let project = under_profile(args, project)?;
    let after_failure = if args.keep_going { AfterFailure::KeepGoing } else { AfterFailure::Stop };
    let options = BuildOptions { offline: args.sources.offline, locked: args.locked, jobs: args.jobs, after_failure };
    let shown = Shown { verbose, events: args.json, timings: args.timings.clone() };
    let Ended { built, skipped, failure } =
        project::build_partly(&project, &args.names, options, &args.sources, shown)?;
    let compiled = compile(&built).err();
    // That it was stopped comes before what it had not built.
    let is_stop = |failure: &Failure| failure.code > exit_code::SIGNAL_BASE;
    let failure = match compiled {
        Some(stopped) if is_stop(&stopped) => Some(stopped),
        other => failure.or(other),
    };
    if args.json {
        let built = as_json(&project, &built);
        return match failure {
            None => ui::result_line(&escape::json(&built.to_string())).map_err(failed),
            Some(failure) => Err(failure.with_members(built).with_members(json!({ "skipped": names_of(&skipped) }))),
        };
    }
    let here = env::working_directory().map_err(failed)?;
    for image in &built.images {
        ui::result_line(&line(image, &here)).map_err(failed)?;
    }
    say_skipped(&skipped);
    failure.map_or(Ok(()), Err)
}

/// Says what was not tried.
fn say_skipped(skipped: &Skipped) {
    let guests = skipped.guests.iter().map(|guest| format!("guest {guest}"));
    let all: Vec<String> = guests.chain(skipped.images.iter().map(|image| format!("image {image}"))).collect();
    if !all.is_empty() {
        ui::status(&format!("not built, as they need what failed: {}", all.join(", ")));
    }
}

fn names_of(skipped: &Skipped) -> serde_json::Value {
    let guests: Vec<_> = skipped.guests.iter().map(ToString::to_string).collect();
    let images: Vec<_> = skipped.images.iter().map(ToString::to_string).collect();
    json!({ "guests": guests, "images": images })
}

/// Says what would be built.
fn plan(args: &BuildArgs, project: &Project) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::new(exit_code::FAILURE, &error);
    let plan = stoppable(|cancel| ops::plan_build(&env::variables(), project, &args.names, &|| cancel.is_cancelled()))?;
    if args.json {
        let target = |name: &str, reasons: &[Reason]| {
            let reasons: Vec<_> = reasons.iter().map(of_reason).collect();
            json!({ "name": name, "up_to_date": reasons.is_empty(), "reasons": reasons })
        };
        let guests: Vec<_> = plan.guests.iter().map(|guest| target(guest.name.as_str(), &guest.reasons)).collect();
        let images: Vec<_> = plan.images.iter().map(|image| target(image.name.as_str(), &image.reasons)).collect();
        let plan = json!({ "guests": guests, "images": images });
        return ui::result_line(&escape::json(&plan.to_string())).map_err(failed);
    }
    let guests = plan.guests.iter().map(|guest| (format!("guest {}", guest.name), &guest.reasons));
    let images = plan.images.iter().map(|image| (format!("image {}", image.name), &image.reasons));
    let stale: Vec<_> = guests.chain(images).filter(|(_, reasons)| !reasons.is_empty()).collect();
    for (name, reasons) in &stale {
        let reasons: Vec<String> = reasons.iter().map(Reason::to_string).collect();
        ui::result_line(&format!("{name}: {}", reasons.join("; "))).map_err(failed)?;
    }
    if stale.is_empty() {
        ui::progress("nothing to build");
    }
    Ok(())
}

/// Compiles the programs of the images that are new, so that their first run need not. What cannot be compiled is said, and
/// is no failure of the build: another host may be able to run it.
fn compile(built: &Built) -> Result<(), Failure> {
    let new: Vec<_> = built.images.iter().filter(|image| image.changed).collect();
    if new.is_empty() {
        return Ok(());
    }
    let options = compiler::options()?;
    if options.cache.is_none() {
        return Ok(());
    }
    stoppable(|cancel| {
        for image in new {
            let name = format!("{} for this machine", image.name);
            let status = compiler::Status::new(&name);
            let (events, stopped) = (|event| status.show(event), || cancel.is_cancelled());
            let compiled = ops::compile(&image.out, options.clone(), &events, &stopped);
            drop(status);
            match compiled {
                Ok(()) => {}
                Err(_) if cancel.is_cancelled() => break,
                Err(error) => ui::progress(&format!("{}: warning: {}", image.name, chain(&error).join(": "))),
            }
        }
        Ok::<(), Failure>(())
    })
}

/// `image pid0: examples/images/pid0, 1 file, 588461 bytes, bafy…`
fn line(image: &BuiltImage, here: &Path) -> String {
    let plural = if image.files == 1 { "" } else { "s" };
    let out = project::shown(&image.out, here);
    format!("image {}: {out}, {} file{plural}, {} bytes, {}", image.name, image.files, image.size_bytes, image.cid)
}

/// Documented in `docs/build.md`.
fn as_json(project: &Project, built: &Built) -> serde_json::Value {
    let guests: Vec<_> = built
        .guests
        .iter()
        .map(|(name, path)| json!({ "name": name.as_str(), "path": path.to_string_lossy() }))
        .collect();
    let images: Vec<_> = built
        .images
        .iter()
        .map(|image| {
            json!({
                "name": image.name.as_str(),
                "out": image.out.to_string_lossy(),
                "files": image.files,
                "size_bytes": image.size_bytes,
                "changed": image.changed,
                "cid": image.cid.to_string(),
                "profile": image.profile.name,
            })
        })
        .collect();
    let lock = match built.lock {
        LockChange::None => "unchanged",
        LockChange::Created => "created",
        LockChange::Updated => "updated",
    };
    let not_held: Vec<_> = built
        .not_held
        .iter()
        .map(|(guest, toolchain)| json!({ "guest": guest.as_str(), "toolchain": toolchain.as_str() }))
        .collect();
    let profile = project.profile.as_ref().map(ProfileName::as_str);
    json!({
        "event": "built",
        "profile": profile,
        "guests": guests,
        "images": images,
        "lock": lock,
        "not_held": not_held,
    })
}
