//! `ww build`.

use std::path::Path;

use clap::Args;
use serde_json::json;

use crate::cli::error::{Failure, chain};
use crate::cli::sources::SourceArgs;
use crate::cli::{compiler, env, exit_code, project, ui};
use crate::escape;
use crate::ops::{self, BuildOptions, Built, BuiltImage, LockChange};
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
    #[arg(value_name = "NAME")]
    names: Vec<String>,

    /// Build guests as this profile of the Wetfile says, `[profile.NAME]`; Wetfile.lock is then left alone
    #[arg(long, value_name = "NAME", conflicts_with = "locked")]
    profile: Option<String>,

    /// Refuse to change Wetfile.lock, as in CI; WW_LOCKED=1 in the environment says the same
    #[arg(long)]
    locked: bool,

    /// Print the result, or what is wrong with the Wetfile, as JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    sources: SourceArgs,
}

/// What `--offline` means here.
const OFFLINE_HELP: &str = "Let compilers use only what was downloaded before, and ask nobody for content that images take by \
                            its CID and that is not in the local blockstore";

/// Builds.
pub(in crate::cli) fn run(args: &BuildArgs, verbose: bool) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::new(exit_code::FAILURE, &error);
    let mut project = project::load(args.json)?;
    if let Some(profile) = &args.profile {
        project = project.with_profile(profile).map_err(|error| Failure::new(exit_code::NOT_FOUND, &error))?;
    }
    let options = BuildOptions { offline: args.sources.offline, locked: args.locked };
    let built = project::build(&project, &args.names, options, &args.sources, verbose)?;
    compile(&built)?;
    if args.json {
        return ui::result_line(&escape::json(&as_json(&project, &built).to_string())).map_err(failed);
    }
    let here = env::working_directory().map_err(failed)?;
    for image in &built.images {
        ui::result_line(&line(image, &here)).map_err(failed)?;
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
    for image in new {
        let name = format!("{} for this machine", image.name);
        let status = compiler::Status::new(&name);
        if let Err(error) = ops::compile(&image.out, options.clone(), &|event| status.show(event)) {
            drop(status);
            ui::progress(&format!("{}: warning: {}", image.name, chain(&error).join(": ")));
        }
    }
    Ok(())
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
    json!({ "profile": profile, "guests": guests, "images": images, "lock": lock, "not_held": not_held })
}
