//! `ww verify --rebuild`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::build::Cancel;
use crate::cli::cancel::CancelOnSignal;
use crate::cli::error::Failure;
use crate::cli::project::GivenImage;
use crate::cli::{env, exit_code, project, ui};
use crate::escape;
use crate::ops::verify::{RebuildEnvironment, RebuildError, Rebuilt, RebuiltGuest, Surroundings, rebuild};
use crate::wetfile::ImageName;

/// Where temporary files are, if nobody says.
const TEMPORARY: &str = "/tmp";

/// Builds images of the Wetfile twice and compares; all where none is given. A signal stops both builds, and removes what they have left.
pub(super) fn run(images: &[PathBuf], as_json: bool) -> Result<Rebuilt, Failure> {
    let failed = |error: std::io::Error| Failure::new(exit_code::FAILURE, &error);
    let loaded = project::load(as_json)?;
    let names = images.iter().map(|given| name_of(given)).collect::<Result<BTreeSet<ImageName>, _>>()?;
    let cancel = Cancel::default();
    let signals = CancelOnSignal::watch(&cancel).map_err(failed)?;
    let ww = env::this_program().map_err(failed)?;
    let temporary = env::variable_os("TMPDIR").filter(|folder| !folder.is_empty());
    let temporary = temporary.map_or_else(|| PathBuf::from(TEMPORARY), PathBuf::from);
    let variables = env::variables();
    let environment = RebuildEnvironment {
        variables: &variables,
        ww: &ww,
        temporary: &temporary,
        cancel: &cancel,
        progress: &ui::progress,
    };
    let rebuilt = rebuild(&environment, &loaded, &names.iter().collect()).map_err(|error| {
        let code = match &error {
            RebuildError::Failed { .. } => exit_code::BUILD,
            _ => exit_code::FAILURE,
        };
        Failure::new(code, &error)
    });
    signals.result(rebuilt)
}

fn name_of(given: &Path) -> Result<ImageName, Failure> {
    match project::image(given)? {
        GivenImage::OfProject(_, name) => Ok(name),
        GivenImage::Path(path) => {
            project::refuse_absent(&path)?;
            Err(no_image(given))
        }
        GivenImage::Content(_) => Err(no_image(given)),
    }
}

fn no_image(given: &Path) -> Failure {
    let message = format!("{} is no image of the Wetfile, and nothing else can be built", escape::path(given));
    Failure::message(exit_code::USAGE, message)
}

/// One line for each guest, as people read it: `guest x: same, 0123…`.
pub(super) fn lines(rebuilt: &Rebuilt) -> Vec<String> {
    let line = |(name, guest): (&_, &RebuiltGuest)| {
        let [one, other] = guest.digests;
        match one == other {
            true => format!("guest {name}: the same twice, sha256 {one}"),
            false => format!("guest {name}: differs, sha256 {one} and {other}"),
        }
    };
    rebuilt.guests.iter().map(line).collect()
}

/// Documented in `docs/verify.md`.
pub(super) fn as_json(rebuilt: &Rebuilt) -> Value {
    let guest = |(name, guest): (&crate::wetfile::GuestName, &RebuiltGuest)| {
        json!({
            "name": name.as_str(),
            "same": guest.digests[0] == guest.digests[1],
            "reproducible": guest.is_reproducible,
            "sha256": guest.digests.map(|digest| digest.to_string()),
        })
    };
    let surroundings = |surroundings: &Surroundings| {
        json!({
            "folder": surroundings.folder.to_string_lossy(),
            "other_user": surroundings.is_other_user,
            "without_network": surroundings.is_without_network,
            "umask": format!("{:04o}", surroundings.umask),
            "jobs": surroundings.jobs,
        })
    };
    let both = rebuilt.surroundings.as_ref();
    json!({
        "guests": rebuilt.guests.iter().map(guest).collect::<Vec<_>>(),
        "notes": rebuilt.notes,
        "surroundings": both.map(|both| both.iter().map(surroundings).collect::<Vec<_>>()),
    })
}
