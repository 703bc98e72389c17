//! `ww publish`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use crate::blockstore::{Blockstore, PinName};
use crate::build::Cancel;
use crate::cli::cancel::CancelOnSignal;
use crate::cli::error::Failure;
use crate::cli::kubo::{Kubo, KuboArgs};
use crate::cli::meter::Meter;
use crate::cli::progress::Shown;
use crate::cli::sources::SourceArgs;
use crate::cli::{env, exit_code, project, store, ui};
use crate::dag::unixfs::Profile;
use crate::escape;
use crate::ops::{
    self, BuildOptions, BuiltImage, PublishItem, PublishOptions, Published, PublishedItem, PushError, PushEvent, Pushed,
};
use crate::remote::kubo::Client;
use crate::remote::{Cause, RemoteError};
use crate::wetfile::{ImageName, Project};

/// How soon a signal ends a push.
const SIGNAL_EVERY: Duration = Duration::from_millis(50);

/// Publish images: name them by their content, keep and pin them, push them to Kubo
///
/// Builds images of the Wetfile, or takes folders as they are, and brings them into the local blockstore: all of them, or
/// none. An image gets a pin of the name NAME@VERSION, with the version of the project; a folder one of its own name. Then
/// they are pushed to a Kubo node, if there is one, and pinned there under the same names. A folder with files that are
/// known to be private keys is refused.
///
/// Prints one line for each, with its CID; with --quiet only the CID. If only the push failed the exit code is 6: what was
/// published stays, and the same command goes on with the push.
#[derive(Debug, Args)]
pub(in crate::cli) struct PublishArgs {
    /// Images of the Wetfile, and folders; all images where nothing is named
    ///
    /// A name without a slash is an image if the Wetfile has it, else a folder.
    #[arg(value_name = "IMAGE|DIR")]
    targets: Vec<PathBuf>,

    /// Name of the pin, where one folder is published
    #[arg(long, value_name = "NAME")]
    name: Option<PinName>,

    /// How the CIDs are made: unixfs-v1-2025, unixfs-v0-2015 or kubo-cidv1
    #[arg(long, value_name = "PROFILE", default_value_t)]
    profile: Profile,

    /// Publish files, too, that are known to be private keys: whoever knows the CID can have them
    #[arg(long)]
    allow_private_keys: bool,

    /// Push to no Kubo node
    #[arg(long, conflicts_with = "kubo")]
    no_push: bool,

    /// Refuse to change Wetfile.lock, as in CI; WW_LOCKED=1 in the environment says the same
    #[arg(long)]
    locked: bool,

    /// Use no network: push nowhere, and let compilers use only what was downloaded before
    #[arg(long, conflicts_with = "kubo")]
    offline: bool,

    /// Print the result as JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    kubo: KuboArgs,
}

/// Something to publish, as the user knows it.
enum Target {
    Image(ImageName),
    /// A folder, as it was given.
    Folder(PathBuf),
}

/// Publishes.
pub(in crate::cli) fn run(args: &PublishArgs, verbose: bool, quiet: bool) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::new(exit_code::FAILURE, &error);
    // What is wrong with the options is said before anything is built.
    let kubo = if args.no_push || args.offline { Kubo::Refused } else { args.kubo.find()? };
    let (targets, items) = items(args, verbose)?;
    let cancel = Cancel::default();
    let signals = CancelOnSignal::watch(&cancel).map_err(failed)?;
    let store = store::open_until(&cancel)?;
    let published = publish(&store, &items, args, &cancel);
    signals.check()?;
    let published = published?;
    // That nobody reads the result keeps nothing from being pushed.
    let mut shown = Ok(());
    if !args.json {
        let here = env::working_directory().map_err(failed)?;
        let mut lines = targets.iter().zip(&published.items).map(|(target, item)| line(target, item, &here, quiet));
        shown = lines.try_for_each(|line| ui::result_line(&line));
    }
    let pushes = push_all(&kubo, store, &published.items, &cancel, verbose)?;
    signals.result(Ok(()))?;
    if args.json {
        let result = as_json(args.profile, &targets, &items, &published, &pushes);
        shown = ui::result_line(&escape::json(&result.to_string()));
    }
    pushes.into_failure()?;
    shown.map_err(failed)
}

/// Finds out what is meant, and builds the images among it.
fn items(args: &PublishArgs, verbose: bool) -> Result<(Vec<Target>, Vec<PublishItem>), Failure> {
    let project = match needs_project(args) {
        true => Some(project::load(args.json)?),
        false => None,
    };
    let targets = targets(args, project.as_ref())?;
    let images: Vec<String> = targets.iter().filter_map(Target::image).map(ToString::to_string).collect();
    let built = match &project {
        Some(project) if !images.is_empty() => {
            let options = BuildOptions { offline: args.offline, locked: args.locked, ..BuildOptions::default() };
            let sources = SourceArgs::new(args.kubo.clone(), args.offline);
            let shown = Shown { verbose, ..Shown::default() };
            project::build(project, &images, options, &sources, shown)?.images
        }
        _ => Vec::new(),
    };
    let version = project.as_ref().map_or("", |project| &project.version);
    let item = |target: &Target| match target {
        Target::Image(name) => {
            let image = built.iter().find(|image| image.name == *name).expect("all images were built");
            image_item(image, version, args.profile)
        }
        Target::Folder(path) => folder_item(path, args.name.as_ref()),
    };
    let items = targets.iter().map(item).collect::<Result<Vec<_>, _>>()?;
    Ok((targets, items))
}

/// Whether the Wetfile tells what is meant, if there is one.
fn needs_project(args: &PublishArgs) -> bool {
    args.targets.is_empty() || (args.targets.iter().any(|target| image_name(target).is_some()) && project::is_here())
}

/// The name of an image that an argument may be.
fn image_name(target: &Path) -> Option<ImageName> {
    target.to_str().and_then(|name| ImageName::new(name).ok())
}

fn targets(args: &PublishArgs, project: Option<&Project>) -> Result<Vec<Target>, Failure> {
    let images = |project: &Project| project.images.keys().cloned().map(Target::Image).collect::<Vec<_>>();
    let targets = match project {
        Some(project) if args.targets.is_empty() => images(project),
        _ => args.targets.iter().map(|target| one_target(target, project)).collect::<Result<_, _>>()?,
    };
    if targets.is_empty() {
        return Err(Failure::message(exit_code::USAGE, "there is nothing to publish: the Wetfile has no images"));
    }
    if args.name.is_some() && !matches!(targets[..], [Target::Folder(_)]) {
        return Err(Failure::message(
            exit_code::USAGE,
            "--name is for one folder; images have the names of the Wetfile",
        ));
    }
    Ok(targets)
}

fn one_target(target: &Path, project: Option<&Project>) -> Result<Target, Failure> {
    let (name, project) = match (image_name(target), project) {
        (Some(name), Some(project)) => (name, project),
        _ => return Ok(Target::Folder(target.to_owned())),
    };
    if project.images.contains_key(&name) {
        return Ok(Target::Image(name));
    }
    if target.symlink_metadata().is_ok() {
        if project.guests.keys().any(|guest| guest.as_str() == name.as_str()) {
            ui::status(&format!(
                "note: `{name}` is a guest and no image in {}; the folder of this name is published",
                escape::path(&project.file)
            ));
        }
        return Ok(Target::Folder(target.to_owned()));
    }
    Err(project::no_such_image(exit_code::NOT_FOUND, &name, project))
}

impl Target {
    fn image(&self) -> Option<&ImageName> {
        match self {
            Self::Image(name) => Some(name),
            Self::Folder(_) => None,
        }
    }
}

fn image_item(image: &BuiltImage, version: &str, profile: Profile) -> Result<PublishItem, Failure> {
    let name = PinName::new(format!("{}@{version}", image.name)).map_err(|error| {
        Failure::new(exit_code::WETFILE, &error).with_help("the pin has the version of the project in its name")
    })?;
    let expected = (image.profile == profile).then_some(image.cid);
    Ok(PublishItem { name, path: image.out.clone(), expected })
}

fn folder_item(given: &Path, name: Option<&PinName>) -> Result<PublishItem, Failure> {
    let shown = escape::path(given);
    if project::is_absent(given) {
        return Err(project::absent(given));
    }
    let metadata = given.symlink_metadata();
    let metadata =
        metadata.map_err(|error| Failure::caused(exit_code::FAILURE, format!("cannot read {shown}"), &error))?;
    if metadata.is_symlink() {
        let failure = Failure::message(exit_code::FAILURE, format!("{shown} is a symlink"));
        return Err(failure.with_help("name the folder that it leads to"));
    }
    if !metadata.is_dir() {
        return Err(Failure::message(exit_code::FAILURE, format!("{shown} is not a folder")));
    }
    let path = given.canonicalize();
    let path = path.map_err(|error| Failure::caused(exit_code::FAILURE, format!("cannot read {shown}"), &error))?;
    let own_name = || {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        PinName::new(name).map_err(|error| {
            let message = format!("the name of the folder {shown} cannot be that of a pin");
            Failure::caused(exit_code::USAGE, message, &error).with_help("--name NAME gives it another")
        })
    };
    Ok(PublishItem { name: name.cloned().map_or_else(own_name, Ok)?, path, expected: None })
}

fn publish(
    store: &dyn Blockstore,
    items: &[PublishItem],
    args: &PublishArgs,
    cancel: &Cancel,
) -> Result<Published, Failure> {
    let meter = Meter::new("publishing", None);
    let is_cancelled = || cancel.is_cancelled();
    let count = |bytes| meter.add(bytes);
    let options = PublishOptions {
        profile: args.profile,
        allow_private_keys: args.allow_private_keys,
        cancel: &is_cancelled,
        progress: &count,
    };
    let published = ops::publish(store, items, &options)?;
    store::show_collected(published.collected.as_ref());
    if published.blocks > 0 {
        let plural = if published.blocks == 1 { "" } else { "s" };
        ui::progress(&format!("published {} new block{plural}; read {}", published.blocks, meter.total()));
    }
    Ok(published)
}

/// `image pid0: bafy…`, or only the CID.
fn line(target: &Target, item: &PublishedItem, here: &Path, quiet: bool) -> String {
    let cid = item.subtree.cid;
    match target {
        _ if quiet => cid.to_string(),
        Target::Image(name) => format!("image {name}: {cid}"),
        Target::Folder(path) => format!("folder {}: {cid}", project::shown(path, here)),
    }
}

/// What became of the pushes.
enum Pushes {
    /// There was no node to push to, or it had gone.
    None,
    /// To a node; what became of each tree up to the first that failed.
    Made { client: Client, pushed: Vec<Pushed>, failed: Option<PushError> },
}

impl Pushes {
    fn into_failure(self) -> Result<(), Failure> {
        match self {
            Self::Made { client, failed: Some(error), .. } => {
                let message = format!("published, but not pushed to the Kubo node at {}", client.address());
                let mut failure = Failure::caused(exit_code::PUSH, message, &error);
                if let Some(help) = help(&error) {
                    failure = failure.with_help(help);
                }
                Err(failure.with_help("the same `ww publish` goes on with the push; --no-push leaves it out"))
            }
            _ => Ok(()),
        }
    }
}

/// What to do about a node that does not do what it should.
fn help(error: &PushError) -> Option<&'static str> {
    let PushError::Remote(RemoteError { cause, .. }) = error else { return None };
    match cause {
        Cause::Denied { .. } => Some("--kubo-token-file FILE sends the secret that the node asks for"),
        Cause::Connect { .. } => Some("is `ipfs daemon` running there?"),
        Cause::Redirect { .. } | Cause::Unknown { .. } | Cause::Kind { .. } | Cause::Malformed(_) => {
            Some("is it the RPC of a Kubo node, usually on port 5001?")
        }
        _ => None,
    }
}

fn push_all(
    kubo: &Kubo,
    store: impl Blockstore + 'static,
    items: &[PublishedItem],
    cancel: &Cancel,
    verbose: bool,
) -> Result<Pushes, Failure> {
    let (client, is_named) = match kubo {
        Kubo::Named(client) => (client, true),
        Kubo::Found(client) => (client, false),
        Kubo::Refused => return Ok(Pushes::None),
        Kubo::Absent(why) => {
            if verbose {
                ui::progress(&format!("not pushed: {why}; --kubo names a node"));
            }
            return Ok(Pushes::None);
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::new(exit_code::FAILURE, &error))?;
    let store: Arc<dyn Blockstore> = Arc::new(store);
    let (mut pushed, mut failed) = (Vec::new(), None);
    for item in items {
        let push = push(client, &store, item);
        match runtime.block_on(async {
            tokio::select! { push = push => Some(push), () = stop(cancel) => None }
        }) {
            Some(Ok(done)) => pushed.push(done),
            Some(Err(error)) => {
                failed = Some(error);
                break;
            }
            None => break,
        }
    }
    runtime.shutdown_background();
    match &failed {
        // A node that was killed leaves its file behind. Nobody asked for it, so nothing failed.
        Some(PushError::Remote(RemoteError { cause: Cause::Connect { .. }, .. })) if !is_named && pushed.is_empty() => {
            let why = format!("nobody listens at {}, where the Kubo node of this user was", client.address());
            ui::status(&format!("warning: not pushed: {why}"));
            Ok(Pushes::None)
        }
        _ => Ok(Pushes::Made { client: client.clone(), pushed, failed }),
    }
}

/// Comes when a signal has come.
async fn stop(cancel: &Cancel) {
    while !cancel.is_cancelled() {
        tokio::time::sleep(SIGNAL_EVERY).await;
    }
}

async fn push(client: &Client, store: &Arc<dyn Blockstore>, item: &PublishedItem) -> Result<Pushed, PushError> {
    let name = &item.name;
    let meter = std::sync::Mutex::new(None);
    let locked = || meter.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let show = |event| match event {
        PushEvent::Begins { bytes_max } => *locked() = Some(Meter::new(format!("pushing {name}"), Some(bytes_max))),
        PushEvent::Sent { bytes } => {
            if let Some(meter) = &*locked() {
                meter.add(bytes);
            }
        }
        PushEvent::Again => ui::progress(&format!("{name}: the node lacks blocks that it had; sending all of them")),
    };
    let pushed = ops::push(client, store, name, item.subtree, &show).await?;
    let at = client.address();
    match locked().take() {
        Some(meter) => ui::progress(&format!("pushed {name} to {at}: {} blocks, {}", pushed.blocks, meter.total())),
        None => ui::progress(&format!("{name} is at {at} already")),
    }
    if let Some(other) = &pushed.other_name {
        ui::status(&format!("warning: its pin at {at} has the name `{other}`, which was left"));
    }
    Ok(pushed)
}

/// Documented in `docs/publish.md`.
fn as_json(
    profile: Profile,
    targets: &[Target],
    items: &[PublishItem],
    published: &Published,
    pushes: &Pushes,
) -> Value {
    let shown = targets.iter().zip(items).zip(&published.items).map(|((target, item), published)| {
        json!({
            "image": target.image().map(ImageName::as_str),
            "path": item.path.to_string_lossy(),
            "pin": item.name.as_str(),
            "cid": published.subtree.cid.to_string(),
            "files": published.files,
            "size_bytes": published.size_bytes,
            "dag_size_bytes": published.subtree.dag_size,
            "changed": published.is_changed,
        })
    });
    let push = match pushes {
        Pushes::None => Value::Null,
        Pushes::Made { client, pushed, failed } => {
            let failure = failed.as_ref().map(|error| Failure::new(exit_code::PUSH, error));
            json!({
                "kubo": client.address().to_string(),
                "pushed": pushed.len(),
                "blocks": pushed.iter().map(|pushed| pushed.blocks).sum::<u64>(),
                "bytes": pushed.iter().map(|pushed| pushed.bytes).sum::<u64>(),
                "error": failure.map(|failure| json!({ "message": failure.message, "causes": failure.causes })),
            })
        }
    };
    json!({
        "profile": profile.name,
        "published": shown.collect::<Vec<_>>(),
        "new_blocks": published.blocks,
        "new_bytes": published.bytes,
        "push": push,
    })
}
