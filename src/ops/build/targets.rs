//! Which guests and images are meant.

use std::collections::BTreeSet;

use crate::ops::Error;
use crate::wetfile::{self, GuestName, Image, ImageName, Project};

/// What is to be built.
pub(in crate::ops) struct Targets<'a> {
    /// Guests, without those that they need.
    pub(in crate::ops) guests: BTreeSet<&'a GuestName>,
    pub(in crate::ops) images: Vec<&'a Image>,
}

impl<'a> Targets<'a> {
    /// Those of these names; everything if there are none. A name that a guest and an image share means both.
    pub(in crate::ops) fn of(project: &'a Project, names: &[String]) -> Result<Self, Error> {
        if names.is_empty() {
            let images = project.image_order(project.images.values());
            return Ok(Self { guests: project.guests.keys().collect(), images });
        }
        let mut targets = Self { guests: BTreeSet::new(), images: Vec::new() };
        for name in names.iter().collect::<BTreeSet<_>>() {
            let guest = project.guests.keys().find(|guest| guest.as_str() == name);
            let image = project.images.values().find(|image| image.name.as_str() == name);
            if guest.is_none() && image.is_none() {
                return Err(Error::UnknownTarget { name: name.clone(), nearest: nearest(project, name) });
            }
            targets.guests.extend(guest);
            targets.images.extend(image);
        }
        // An image is made after the one that it is based on, which is made for its own sake, too.
        targets.images = project.image_order(targets.images);
        targets.guests.extend(targets.images.iter().flat_map(|image| image.guests()));
        Ok(targets)
    }

    /// Whether nothing of the project is left out.
    pub(in crate::ops) fn is_everything(&self, project: &Project) -> bool {
        self.guests.len() == project.guests.len() && self.images.len() == project.images.len()
    }
}

fn nearest(project: &Project, name: &str) -> Option<String> {
    let guests = project.guests.keys().map(GuestName::as_str);
    let names = guests.chain(project.images.keys().map(ImageName::as_str));
    wetfile::nearest_word(name, names).map(str::to_owned)
}
