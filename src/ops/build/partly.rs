//! What came of a build that went on after a failure.

use std::collections::BTreeSet;
use std::fmt;

use super::Built;
use crate::build::BuildError;
use crate::build::queue::AfterFailure;
use crate::ops::{Error, with_causes};
use crate::wetfile::{GuestName, Image, ImageName, Project};

/// A build of which a part has failed.
#[derive(Debug)]
pub struct Partly {
    /// What was built all the same.
    pub built: Built,
    /// What was not.
    pub failed: Failed,
}

/// What a build has not built.
#[derive(Debug)]
pub struct Failed {
    /// Why not: guests first, by name, then images in the order in which they are assembled; at least one.
    pub failures: Vec<Error>,
    /// What needs something that has failed, and was not tried for that reason.
    pub skipped: Skipped,
}

/// What was not tried, as something that it needs has failed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Skipped {
    /// Guests.
    pub guests: BTreeSet<GuestName>,
    /// Images.
    pub images: BTreeSet<ImageName>,
}

/// The only failure, or a list of all.
impl fmt::Display for Failed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [only] = &self.failures[..] {
            return write!(formatter, "{only}");
        }
        let guests = self.failures.iter().filter(|error| matches!(error, Error::Build { .. })).count();
        let counts = [counted(guests, "guest"), counted(self.failures.len() - guests, "image")];
        let counts: Vec<String> = counts.into_iter().flatten().collect();
        write!(formatter, "{} were not built", counts.join(" and "))?;
        self.failures.iter().try_for_each(|failure| write!(formatter, "\n  {}", line(failure)))
    }
}

impl std::error::Error for Failed {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.failures[..] {
            [only] => only.source(),
            // The message has all of them.
            _ => None,
        }
    }
}

fn counted(count: usize, noun: &str) -> Option<String> {
    (count > 0).then(|| format!("{count} {noun}{}", if count == 1 { "" } else { "s" }))
}

/// A failure with its causes.
fn line(failure: &Error) -> String {
    match failure {
        Error::Build { guest, source } => format!("guest `{guest}`: {}", with_causes(source)),
        Error::Image { image, source } => format!("image `{image}`: {}", with_causes(source)),
        Error::Listing { image, source } => {
            format!("image `{image}`: cannot read what it is to hold: {}", with_causes(source))
        }
        other => with_causes(other),
    }
}

/// Collects the failures of a build.
pub(super) struct Failures<'p> {
    project: &'p Project,
    after_failure: AfterFailure,
    guests: Vec<(GuestName, BuildError)>,
    skipped_guests: BTreeSet<GuestName>,
    images: Vec<Error>,
    failed_images: BTreeSet<ImageName>,
}

impl<'p> Failures<'p> {
    pub(super) fn new(project: &'p Project, after_failure: AfterFailure) -> Self {
        Self {
            project,
            after_failure,
            guests: Vec::new(),
            skipped_guests: BTreeSet::new(),
            images: Vec::new(),
            failed_images: BTreeSet::new(),
        }
    }

    /// Notes guests that have failed, and those that were not tried for that reason.
    ///
    /// # Errors
    ///
    /// What failed, where that ends the build.
    pub(super) fn of_guests(
        &mut self,
        failed: Vec<(GuestName, BuildError)>,
        skipped: BTreeSet<GuestName>,
    ) -> Result<(), Error> {
        let is_stop = failed.iter().any(|(_, error)| matches!(error, BuildError::Cancelled));
        if !failed.is_empty() && (self.after_failure == AfterFailure::Stop || is_stop) {
            return Err(Error::of(failed));
        }
        self.guests = failed;
        self.guests.sort_by(|(one, _), (other, _)| one.cmp(other));
        self.skipped_guests = skipped;
        Ok(())
    }

    /// What came of a step on the way to these images, unless it failed.
    ///
    /// # Errors
    ///
    /// The failure, where it ends the build.
    pub(super) fn of_images<T>(
        &mut self,
        images: impl IntoIterator<Item = ImageName>,
        result: Result<T, Error>,
    ) -> Result<Option<T>, Error> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(error) if self.after_failure == AfterFailure::Stop || error.is_stop() => Err(error),
            Err(error) => {
                self.failed_images.extend(images);
                self.images.push(error);
                Ok(None)
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.guests.is_empty() && self.images.is_empty()
    }

    /// Whether an image cannot be made any more: it, or one that it is based on, has failed.
    pub(super) fn has(&self, image: &Image) -> bool {
        self.project.layers(image).into_iter().any(|layer| self.failed_images.contains(&layer.name))
    }

    /// The end of a build that was to make these images.
    ///
    /// # Errors
    ///
    /// [`Error::Partly`] if anything has failed.
    pub(super) fn end(self, built: Built, images: &[&Image]) -> Result<Built, Error> {
        if self.is_empty() {
            return Ok(built);
        }
        let is_built = |name: &ImageName| built.images.iter().any(|image| image.name == *name);
        let names = images.iter().map(|image| image.name.clone());
        let skipped = names.filter(|name| !is_built(name) && !self.failed_images.contains(name)).collect();
        let skipped = Skipped { guests: self.skipped_guests, images: skipped };
        let guests = self.guests.into_iter().map(|(guest, source)| Error::Build { guest, source });
        let failed = Failed { failures: guests.chain(self.images).collect(), skipped };
        Err(Error::Partly(Box::new(Partly { built, failed })))
    }
}
