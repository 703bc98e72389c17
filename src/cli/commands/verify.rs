//! `ww verify`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::rebuild;
use crate::cli::error::Failure;
use crate::cli::project::GivenImage;
use crate::cli::store::HeldContent;
use crate::cli::{env, exit_code, github, project, ui};
use crate::dag::unixfs::Profile;
use crate::dag::{Cid, parse_cid_text};
use crate::escape;
use crate::ops::verify::{
    Checked, DagTarget, Finding, FindingKind, Rebuilt, Report, Stopped, verify_archive, verify_cid, verify_dag,
    verify_folder, verify_project,
};

/// Check that images, Wetfile.lock and sources agree
///
/// Images of the Wetfile are held against its lock, and the lock against the sources; without names all of them. A folder
/// that is no image of the Wetfile, a CAR, and a CID in the local blockstore, is looked at by itself. Nothing is built, nothing is run, and nothing is
/// fetched.
///
/// With --rebuild, images of the Wetfile and their guests are built instead, twice and from nothing, in copies of their sources elsewhere,
/// and compared with each other and with the lock.
///
/// Prints one line for each image, and whatever does not agree; of several findings the first in this order decides the
/// exit code: 10 the lock is missing or out of date, 11 a file was altered, is missing or extra, 18 two builds differ, or differ from the lock, 12 a program is empty or no
/// component, 13 bin/main.wasm does not export wasi:cli/run, 14 a program imports what no cell has, 17 what the image asks for in etc/cell.toml cannot be told, 15 a CID was made under
/// another profile, 16 a guest was compiled by a toolchain that the lock does not know.
#[derive(Debug, Args)]
pub(in crate::cli) struct VerifyArgs {
    /// Images of the Wetfile by name, folders, CAR files, or CIDs in the local blockstore; all images of the Wetfile where there is none
    #[arg(value_name = "IMAGE")]
    images: Vec<PathBuf>,

    /// The CID that the one image, folder, CAR or path below a CID must have
    #[arg(long, value_name = "CID", value_parser = parse_cid_text)]
    cid: Option<Cid>,

    /// Profile under which folders, CARs and CIDs must be built, and of what --cid says; unixfs-v1-2025 if there is none
    #[arg(long, value_name = "PROFILE")]
    profile: Option<Profile>,

    /// Build images of the Wetfile twice, as differently as can be, and compare them
    #[arg(long, conflicts_with_all = ["cid", "profile"])]
    rebuild: bool,

    /// How to show findings; `github` where GITHUB_ACTIONS=true, otherwise `text`
    #[arg(long, value_enum, conflicts_with = "json")]
    format: Option<Format>,

    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people, on standard error
    Text,
    /// Annotations of GitHub, on standard output
    Github,
}

/// Verifies; gives the exit code of what was found.
pub(in crate::cli) fn run(args: &VerifyArgs) -> Result<u8, Failure> {
    let (report, rebuilt) = match args.rebuild {
        true => {
            let mut rebuilt = rebuild::run(&args.images, args.json)?;
            (std::mem::take(&mut rebuilt.report), Some(rebuilt))
        }
        false => (verify(args)?, None),
    };
    let code = report.verdict().map_or(exit_code::SUCCESS, code);
    show(args, &report, rebuilt.as_ref(), code).map_err(|error| Failure::new(exit_code::FAILURE, &error))?;
    Ok(code)
}

fn verify(args: &VerifyArgs) -> Result<Report, Failure> {
    if args.cid.is_some() && args.images.len() != 1 {
        return Err(Failure::message(exit_code::USAGE, "--cid goes with exactly one image, folder, CAR or CID"));
    }
    // A signal ends the process at once: there is nothing to be tidied up.
    let (variables, stopped) = (env::variables(), || false);
    let ended = |Stopped| Failure::message(exit_code::FAILURE, "stopped");
    let profile = args.profile.unwrap_or_default();
    if args.images.is_empty() {
        let project = project::load(args.json)?;
        refuse_profile(args)?;
        return verify_project(&project, &BTreeSet::new(), &variables, &stopped).map_err(ended);
    }
    let given = args.images.iter().map(|given| project::image(given)).collect::<Result<Vec<_>, _>>()?;
    for given in &given {
        if let GivenImage::Path(path) = given {
            project::refuse_absent(path)?;
        }
    }
    let (mut report, mut done) = (Report::default(), BTreeSet::new());
    for given in given {
        let found = match given {
            // By its name and by its folder.
            GivenImage::OfProject(_, name) if !done.insert(name.clone()) => continue,
            GivenImage::OfProject(project, name) => {
                let found = verify_project(&project, &BTreeSet::from([&name]), &variables, &stopped);
                let mut report = found.map_err(ended)?;
                match &args.cid {
                    Some(cid) => {
                        let found = verify_cid(&project, &project.images[&name], cid, profile, &stopped);
                        report.findings.extend(found.map_err(ended)?);
                    }
                    None => refuse_profile(args)?,
                }
                Ok(report)
            }
            GivenImage::Content(content) => {
                let held = HeldContent::find(&content)?;
                let (subject, block) = (content.to_string(), |cid: &Cid| held.block(cid));
                let target = DagTarget { subject: &subject, path: None, root: held.root, block: &block, profile };
                verify_dag(&target, args.cid.as_ref(), &stopped)
            }
            GivenImage::Path(path) if path.is_file() => verify_archive(&path, args.cid.as_ref(), profile, &stopped),
            GivenImage::Path(path) => verify_folder(&path, args.cid.as_ref(), profile, &stopped).map(below_root),
        };
        report.add(found.map_err(ended)?);
    }
    Ok(report)
}

/// An image of the Wetfile has the profile that the lock says.
fn refuse_profile(args: &VerifyArgs) -> Result<(), Failure> {
    match args.profile {
        Some(_) => Err(Failure::message(
            exit_code::USAGE,
            "--profile is for folders, CARs and CIDs, and for --cid; images of the Wetfile have that of the lock",
        )),
        None => Ok(()),
    }
}

/// Paths of folders as those of the project, where the folder lies in it.
fn below_root(mut report: Report) -> Report {
    let (Ok(here), Some(root)) = (env::working_directory(), project::root_here()) else { return report };
    for finding in &mut report.findings {
        let below = finding.path.as_ref().map(|path| here.join(path));
        let below = below.as_ref().and_then(|path| path.strip_prefix(&root).ok());
        if let Some(below) = below.and_then(Path::to_str) {
            finding.path = Some(below.to_owned());
        }
    }
    report
}

fn code(kind: FindingKind) -> u8 {
    match kind {
        FindingKind::Lock => exit_code::LOCK,
        FindingKind::Altered => exit_code::ALTERED,
        FindingKind::NotReproducible => exit_code::NOT_REPRODUCIBLE,
        FindingKind::NotComponent => exit_code::NOT_COMPONENT,
        FindingKind::NotProgram => exit_code::NOT_PROGRAM,
        FindingKind::Import => exit_code::IMPORT,
        FindingKind::Request => exit_code::REQUEST,
        FindingKind::Profile => exit_code::PROFILE,
        FindingKind::Inconclusive => exit_code::INCONCLUSIVE,
    }
}

fn show(args: &VerifyArgs, report: &Report, rebuilt: Option<&Rebuilt>, code: u8) -> std::io::Result<()> {
    if args.json {
        let mut shown = as_json(report, code);
        if let Some(rebuilt) = rebuilt {
            shown["rebuilt"] = rebuild::as_json(rebuilt);
        }
        return ui::result_line(&escape::json(&shown.to_string()));
    }
    for line in rebuilt.map(rebuild::lines).unwrap_or_default() {
        ui::result_line(&line)?;
    }
    let format = args.format.unwrap_or(if github::is_here() { Format::Github } else { Format::Text });
    for checked in &report.checked {
        ui::result_line(&line(checked, &report.findings))?;
    }
    for finding in &report.findings {
        match format {
            Format::Text => ui::status(&format!("{}[{}]: {finding}", level(finding), finding.kind.as_str())),
            Format::Github => ui::result_command(&annotation(finding))?,
        }
    }
    for note in rebuilt.iter().flat_map(|rebuilt| &rebuilt.notes) {
        ui::progress(&format!("note: {note}"));
    }
    Ok(())
}

fn level(finding: &Finding) -> &'static str {
    if finding.kind == FindingKind::Inconclusive { "warning" } else { "error" }
}

/// `image pid0: ok, 1 file, bafy…`
fn line(checked: &Checked, findings: &[Finding]) -> String {
    let worst = findings.iter().filter(|finding| finding.subject == checked.subject).map(|finding| finding.kind).min();
    let state = worst.map_or("ok", FindingKind::as_str);
    let plural = if checked.files == 1 { "" } else { "s" };
    let cid = checked.cid.map_or("no CID".to_owned(), |cid| cid.to_string());
    format!("{}: {state}, {} file{plural}, {cid}", checked.subject.replace('`', ""), checked.files)
}

/// A workflow command, as GitHub's runner reads it from the output of a step
/// (docs.github.com/actions/reference/workflow-commands-for-github-actions).
fn annotation(finding: &Finding) -> String {
    let root = || project::root_here().or_else(|| env::working_directory().ok()).unwrap_or_default();
    let file = finding.path.as_deref().map(|path| project::in_repository(&root(), Path::new(path)));
    let file = file.map(|file| format!("file={},", github::property(&file)));
    let title = github::property(&format!("ww verify: {}", finding.kind.as_str()));
    let message = github::data(&finding.to_string());
    format!("::{} {}title={title}::{message}", level(finding), file.unwrap_or_default())
}

/// Documented in `docs/verify.md`.
fn as_json(report: &Report, exit_code: u8) -> Value {
    let checked = |checked: &Checked| {
        json!({
            "subject": checked.subject,
            "path": checked.path.as_ref().map(|path| path.to_string_lossy()),
            "cid": checked.cid.map(|cid| cid.to_string()),
            "profile": checked.profile.name,
            "files": checked.files,
        })
    };
    let finding = |finding: &Finding| {
        json!({
            "kind": finding.kind.as_str(),
            "code": code(finding.kind),
            "subject": finding.subject,
            "message": finding.message,
            "path": finding.path,
        })
    };
    json!({
        "verdict": report.verdict().map_or("ok", FindingKind::as_str),
        "code": exit_code,
        "checked": report.checked.iter().map(checked).collect::<Vec<_>>(),
        "findings": report.findings.iter().map(finding).collect::<Vec<_>>(),
    })
}
