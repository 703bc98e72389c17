//! What `ww` can be told to do: one file for each operation.
//!
//! An operation takes values and returns values or errors. It knows nothing of flags, prints nothing, and reads no
//! environment.

mod blocks;
mod build;
pub mod car;
mod cid;
mod compile;
mod content;
mod contents;
pub mod fetch;
mod gateway;
mod graph;
mod image;
mod init;
mod inspect;
mod library;
mod listing;
mod lock;
mod mounts;
mod pin;
mod plan;
mod publish;
mod push;
mod request;
mod run;
mod sources;
mod usage;
pub mod verify;
mod why;

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;

use crate::build::{BuildError, InputsError, StateError};
use crate::dag::Cid;
use crate::escape;
use crate::image::ImageError;
use crate::tree::BoxError;
use crate::wetfile::lock::{LOCK_FILE_NAME, LockError};
use crate::wetfile::{GuestName, ImageName, ProfileName};

pub use blocks::{GetBlock, ReadError, resolve};
pub use build::{
    BuildOptions, BuildPlan, Built, BuiltImage, Environment, Failed, LockChange, Partly, PlannedTarget, Skipped, build,
    plan_build,
};
pub use cid::cid;
pub use compile::{CompileEvent, compile};
pub use content::{ContentError, Details, EntryKind, ListedEntry, cat, file_size, get, look_up_details, ls};
pub use contents::{BringContent, NoContent, Taker};
pub use gateway::{GatewayError, serve_gateway};
pub use graph::{EdgeKind, Graph, Node, graph};
pub use image::{ImageSource, LeasedContent};
pub use init::{InitError, Template, init};
pub use inspect::{
    InspectError, Inspected, InspectedKind, InspectedObject, inspect, inspect_dag, is_of_wasi, snapshot,
};
pub use listing::{Listed, ListedKind, Listing, ListingError};
pub use lock::OutOfDate;
use lock::with_causes;
pub(crate) use mounts::is_within;
pub use pin::{PinError, pin, unpin};
pub use publish::{PrivateKeys, PublishError, PublishItem, PublishOptions, Published, PublishedItem, publish};
pub use push::{DagError, PushError, PushEvent, Pushed, push};
pub use request::{AskedError, flags_of};
pub use run::{Ran, Remains, RunError, RunEvent, RunOptions, RunOutcome, run};
pub use sources::{Sources, sources};
pub use usage::Usage;
pub use why::{Cause, LastBuild, Why, WhyTarget, why};

/// Why an operation on a project failed. The cause is the source.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A name that is no guest and no image of the project.
    #[error("the project has no guest and no image `{}`{}", escape::text(.name), did_you_mean(.nearest.as_deref()))]
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
    /// What an image is to hold could not be read.
    #[error("cannot read what image `{image}` is to hold")]
    Listing {
        /// The image.
        image: ImageName,
        /// Why.
        #[source]
        source: ListingError,
    },
    /// What earlier builds remember could not be used.
    #[error("cannot use what earlier builds remember")]
    Ledger {
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It could not be told what has changed since the last build.
    #[error("cannot tell what has changed since the last build")]
    Survey {
        /// Why.
        #[source]
        source: InputsError,
    },
    /// Several guests could not be built.
    #[error("{} guests were not built{}", .0.len(), failed(.0))]
    Several(Vec<(GuestName, BuildError)>),
    /// Content that images take by its CID cannot be had.
    #[error("the content {cid} is not here{}", taken(.takers))]
    Content {
        /// The CID.
        cid: Box<Cid>,
        /// Which images take it, and for what.
        takers: BTreeSet<Taker>,
        /// Why.
        #[source]
        source: BoxError,
    },
    /// A part could not be built, and what does not depend on it was: see [`AfterFailure::KeepGoing`](crate::build::queue::AfterFailure).
    #[error("{}", .0.failed)]
    Partly(Box<Partly>),
    /// The lock was to hold what is built under a profile, of which it says nothing.
    #[error("{LOCK_FILE_NAME} says nothing of the profile `{profile}`: it is of builds without one")]
    LockedProfile {
        /// The profile.
        profile: ProfileName,
    },
    /// The lock is there and cannot be used.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// There is no lock, where it must not change.
    #[error("there is no {LOCK_FILE_NAME}")]
    LockMissing,
    /// The lock would have to change, and must not.
    #[error("{LOCK_FILE_NAME} is out of date{}", listed(.0))]
    OutOfDate(Vec<OutOfDate>),
    /// The lock could not be written.
    #[error("cannot write {}", escape::path(.path))]
    WriteLock {
        /// Its path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl Error {
    /// That some guests could not be built, at least one.
    fn of(mut failures: Vec<(GuestName, BuildError)>) -> Self {
        if failures.len() > 1 {
            // What was only stopped has nothing to say.
            failures.retain(|(_, error)| !matches!(error, BuildError::Cancelled));
        }
        match failures.len() {
            0 => Self::State(StateError::Cancelled),
            1 => {
                let (guest, source) = failures.remove(0);
                Self::Build { guest, source }
            }
            _ => {
                // Which of them failed first is chance.
                failures.sort_by(|(one, _), (other, _)| one.cmp(other));
                Self::Several(failures)
            }
        }
    }
}

impl Error {
    /// Whether it was stopped from outside.
    fn is_stop(&self) -> bool {
        match self {
            Self::Build { source, .. } => matches!(source, BuildError::Cancelled),
            Self::Image { source, .. } => matches!(source, ImageError::Cancelled),
            Self::Listing { source, .. } => source.is_stop(),
            Self::State(source) => matches!(source, StateError::Cancelled),
            _ => false,
        }
    }
}

/// `, which image `one` takes for `etc/x``.
fn taken(takers: &BTreeSet<Taker>) -> String {
    let takers: Vec<String> = takers.iter().map(Taker::to_string).collect();
    if takers.is_empty() { String::new() } else { format!(", which {}", takers.join(" and ")) }
}

fn failed(failures: &[(GuestName, BuildError)]) -> String {
    failures.iter().map(|(name, error)| format!("\n  guest `{name}`: {}", with_causes(error))).collect()
}

fn listed(found: &[OutOfDate]) -> String {
    found.iter().map(|found| format!("\n  {found}")).collect()
}

fn did_you_mean(nearest: Option<&str>) -> String {
    nearest.map(|nearest| format!(": did you mean `{nearest}`?")).unwrap_or_default()
}
