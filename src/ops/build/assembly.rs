//! Assembles an image, and remembers it.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::SystemTime;

use super::{BuiltImage, images};
use crate::build::{self, BuiltGuest, Context, Reason};
use crate::image::{self, Parts};
use crate::ops::Error;
use crate::ops::listing::Listing;
use crate::ops::lock::{PlannedTree, Reading};
use crate::ops::verify::request_problem;
use crate::wetfile::{GuestName, Project};

/// An image with what was seen of it.
pub(super) struct Made {
    pub(super) image: BuiltImage,
    out: Option<Listing>,
}

pub(super) fn assemble(
    reading: &Reading<'_>,
    tree: &PlannedTree<'_>,
    guests: &BTreeMap<GuestName, BuiltGuest>,
) -> Result<Made, Error> {
    let artifacts = guests.iter().map(|(name, built)| (name.clone(), built.path.clone())).collect();
    let (image, planned) = (tree.plan.image, tree.root.cid);
    let outs = reading.project.outs();
    let mut bases = reading.project.layers(image);
    bases.pop();
    let parts = Parts { bases: &bases, artifacts: &artifacts, contents: reading.contents, outs: &outs };
    let mut out = None;
    let mut check = |path: &Path| {
        let made = reading.list(path, &format!("image-{}", image.name))?;
        let is_planned = made.root.cid == planned;
        let problem = request_problem(&made, &|file| std::fs::read(path.join(file)));
        out = Some(made);
        match problem {
            // `ww run` would refuse it.
            Some(problem) => Err(problem.into()),
            None if is_planned => Ok(()),
            None => Err("a source of it changed meanwhile".into()),
        }
    };
    let assembled = image::assemble_checked(reading.root(), image, &parts, reading.stopped, &mut check);
    let assembled = assembled.map_err(|source| Error::Image { image: image.name.clone(), source })?;
    let image = BuiltImage {
        name: image.name.clone(),
        out: image.out.to_path(reading.root()),
        files: assembled.files,
        size_bytes: assembled.size_bytes,
        changed: assembled.changed,
        cid: planned,
        profile: tree.plan.profile,
    };
    Ok(Made { image, out })
}

/// Remembers an image. Without that the next build looks at it again, and that is all.
pub(super) fn note_image(
    ctx: &Context<'_>,
    project: &Project,
    tree: &PlannedTree<'_>,
    made: &Made,
    reasons: &[Reason],
    guests: &BTreeMap<GuestName, BuiltGuest>,
    start: SystemTime,
) {
    let Some(out) = &made.out else { return };
    let assembled = images::Assembled {
        image: tree.plan.image,
        cid: made.image.cid,
        files: made.image.files,
        size_bytes: made.image.size_bytes,
        reasons: reasons.to_vec(),
        start,
        built_at_ms: build::milliseconds_since_1970(),
    };
    if let Ok(entries) = images::entries(project, assembled, &tree.plan, out, guests) {
        let _ = ctx.ledger.note(entries);
    }
}
