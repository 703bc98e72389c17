//! What `ww` can be told to do: one file for each operation.
//!
//! An operation takes values and returns values or errors. It knows nothing of flags, prints nothing, and reads no
//! environment.

mod build;
pub mod car;
pub mod fetch;
mod pin;
mod publish;
mod push;
mod run;

use crate::build::{BuildError, StateError};
use crate::image::ImageError;
use crate::wetfile::{GuestName, ImageName};

pub use build::{BuildOptions, Built, BuiltImage, Environment, build};
pub use pin::{PinError, pin, unpin};
pub use publish::{PublishError, PublishItem, PublishOptions, Published, PublishedItem, publish};
pub use push::{DagError, PushError, PushEvent, Pushed, push};
pub use run::{RunError, RunOptions, RunOutcome, run};

/// Why an operation on a project failed. The cause is the source.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A name that is no guest and no image of the project.
    #[error("the project has no guest and no image `{}`{}", crate::escape::text(.name), did_you_mean(.nearest.as_deref()))]
    UnknownTarget {
        /// The name as given.
        name: String,
        /// The name that was probably meant.
        nearest: Option<String>,
    },
    /// The project's build state could not be opened.
    #[error("cannot use the project's build state")]
    State(#[from] StateError),
    /// A guest could not be built.
    #[error("guest `{guest}` was not built")]
    Build {
        /// The guest.
        guest: GuestName,
        /// Why.
        #[source]
        source: BuildError,
    },
    /// An image could not be assembled.
    #[error("image `{image}` was not assembled")]
    Image {
        /// The image.
        image: ImageName,
        /// Why.
        #[source]
        source: ImageError,
    },
}

fn did_you_mean(nearest: Option<&str>) -> String {
    nearest.map(|nearest| format!(": did you mean `{nearest}`?")).unwrap_or_default()
}
