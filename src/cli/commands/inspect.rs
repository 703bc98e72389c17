//! `ww inspect`.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use crate::cli::error::Failure;
use crate::cli::project::GivenImage;
use crate::cli::store::HeldContent;
use crate::cli::{exit_code, project, shell, ui};
use crate::dag::unixfs::Profile;
use crate::escape;
use crate::grant::{Limit, LimitValue, REQUEST_PATH, Request};
use crate::ops::{self, Inspected, InspectedKind, InspectedObject};
use crate::wetfile::MAIN_PATH;

/// Show what is in an image
///
/// Lists files and folders with their sizes and CIDs, what components import and export, and what the image asks for in
/// etc/cell.toml. Nothing is built and nothing is run.
#[derive(Debug, Args)]
pub(in crate::cli) struct InspectArgs {
    /// The image's folder, its name in the Wetfile, or its CID in the local blockstore, with a path below it if need be
    image: PathBuf,

    /// How to show it
    #[arg(long, value_enum, default_value = "text", conflicts_with = "json")]
    format: Format,

    /// Profile of the CIDs of folders
    #[arg(long, value_name = "PROFILE", default_value_t)]
    profile: Profile,

    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people
    Text,
    /// For snapshot tests: the same for images that mean the same
    Snapshot,
}

/// Shows it.
pub(in crate::cli) fn run(args: &InspectArgs) -> Result<(), Failure> {
    let inspected = match project::image(&args.image)? {
        GivenImage::Path(path) => inspect(&path, args.profile),
        GivenImage::OfProject(project, name) => {
            inspect(&project.images[&name].out.to_path(&project.root), args.profile)
        }
        GivenImage::Content(content) => {
            let held = HeldContent::find(&content)?;
            ops::inspect_dag(held.root, args.profile, &|cid| held.block(cid)).map_err(|error| {
                Failure::caused_in_store(exit_code::INVALID, format!("{content} cannot be inspected"), &error)
            })
        }
    }?;
    let text = match (args.json, args.format) {
        (true, _) => escape::json(&as_json(&inspected).to_string()),
        (_, Format::Text) => as_text(&inspected),
        (_, Format::Snapshot) => ops::snapshot(&inspected).trim_end().to_owned(),
    };
    ui::result_line(&text).map_err(|error| Failure::new(exit_code::FAILURE, &error))?;
    match &inspected.request {
        Some(Err(error)) => {
            let message = format!("the image's {REQUEST_PATH} cannot be used");
            Err(Failure::caused(exit_code::IMAGE, message, error).with_help("`ww run` refuses such an image"))
        }
        _ => Ok(()),
    }
}

fn inspect(path: &Path, profile: Profile) -> Result<Inspected, Failure> {
    project::refuse_absent(path)?;
    ops::inspect(path, profile).map_err(|error| {
        let message = format!("{} cannot be inspected", escape::path(path));
        Failure::caused(exit_code::IMAGE, message, &error)
    })
}

fn as_text(inspected: &Inspected) -> String {
    let mut lines = vec![format!("{} ({})", inspected.root.cid, inspected.profile)];
    let sizes = inspected.objects.iter().map(|object| size(object).to_string().len());
    let width = sizes.max().unwrap_or(0).max("size".len());
    for object in &inspected.objects {
        let path = escape::text(&object.path);
        let (size, shown) = match &object.kind {
            InspectedKind::Folder => (String::new(), format!("{path}/")),
            InspectedKind::Symlink { target } => (String::new(), format!("{path} -> {}", escape::text(target))),
            InspectedKind::File { size_bytes, .. } => (size_bytes.to_string(), path.into_owned()),
        };
        lines.push(format!("{size:>width$}  {}  {shown}", object.cid));
        if let InspectedKind::File { interface: Some(interface), .. } = &object.kind {
            let (wasi, others): (Vec<&String>, Vec<&String>) =
                interface.imports.iter().partition(|name| ops::is_of_wasi(name));
            let wasi = (!wasi.is_empty()).then(|| "imports of WASI 0.2".to_owned());
            let others = others.into_iter().map(|name| format!("imports {}", escape::text(name)));
            let imports = wasi.into_iter().chain(others);
            let exports = interface.exports.iter().map(|name| format!("exports {}", escape::text(name)));
            lines.extend(imports.chain(exports).map(|line| format!("{:width$}    {line}", "")));
        }
        if let InspectedKind::File { interface: None, .. } = &object.kind
            && object.path == MAIN_PATH
        {
            lines.push(format!("{:width$}    is no component, so `ww run` cannot run it", ""));
        }
    }
    if let Some(Ok(request)) = &inspected.request {
        lines.extend(asked(request));
    }
    lines.join("\n")
}

/// What the image asks for, and what gives it that.
fn asked(request: &Request) -> Vec<String> {
    let grants = request.grants.iter().map(|grant| format!("asks for {}", escape::text(&grant.to_string())));
    let limits = request.limits.set_values().map(|(limit, value)| match limit.default_value() {
        Some(default) => format!("asks for {limit}={value}, where the default is {default}"),
        None => format!("asks for {limit}={value}, where the default is no limit"),
    });
    let mut lines: Vec<_> = grants.chain(limits).collect();
    let flags = ops::flags_of(request);
    if !flags.is_empty() {
        lines.push(format!("gets beyond the default only with {}", shell::arguments(flags.iter().map(String::as_str))));
    }
    lines
}

fn size(object: &InspectedObject) -> u64 {
    match object.kind {
        InspectedKind::File { size_bytes, .. } => size_bytes,
        InspectedKind::Folder | InspectedKind::Symlink { .. } => 0,
    }
}

/// Documented in `docs/snapshots.md`.
fn as_json(inspected: &Inspected) -> Value {
    let object = |object: &InspectedObject| {
        let mut shown = json!({ "path": object.path, "cid": object.cid.to_string() });
        match &object.kind {
            InspectedKind::Folder => shown["kind"] = "folder".into(),
            InspectedKind::Symlink { target } => {
                shown["kind"] = "symlink".into();
                shown["target"] = target.as_str().into();
            }
            InspectedKind::File { size_bytes, sha256, interface } => {
                shown["kind"] = "file".into();
                shown["size_bytes"] = (*size_bytes).into();
                shown["sha256"] = sha256.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into();
                if let Some(interface) = interface {
                    shown["imports"] = json!(interface.imports);
                    shown["exports"] = json!(interface.exports);
                }
            }
        }
        shown
    };
    let mut shown = json!({
        "cid": inspected.root.cid.to_string(),
        "profile": inspected.profile.name,
        "objects": inspected.objects.iter().map(object).collect::<Vec<_>>(),
    });
    match &inspected.request {
        None => {}
        Some(Ok(request)) => shown["request"] = request_as_json(request),
        Some(Err(error)) => shown["request"] = json!({ "error": error.to_string() }),
    }
    shown
}

fn request_as_json(request: &Request) -> Value {
    let limit = |(limit, value): (Limit, LimitValue)| {
        let value = match value {
            LimitValue::Count(count) => json!(count),
            LimitValue::Bytes(_) | LimitValue::Time(_) => json!(value.to_string()),
        };
        (limit.name().to_owned(), value)
    };
    json!({
        "grants": request.grants.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "limits": request.limits.set_values().map(limit).collect::<serde_json::Map<_, _>>(),
        "beyond_default": ops::flags_of(request),
    })
}
