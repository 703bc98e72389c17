//! Where programs and images come from that a cell names by their CID.

use std::error::Error;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;

use crate::caps::LoadedImage;
use crate::cell::{Account, Held, LimitReached};
use crate::dag::ContentPath;

/// Has what is named by its CID: here, or from elsewhere.
pub trait Library: Send + Sync {
    /// Reads a program of at most `bytes_max` bytes, or that of an image. What has to be fetched for it is booked on
    /// `account`, and so is the program, before it is read. Dropping the future ends that.
    fn load(
        &self,
        content: ContentPath,
        account: Account,
        bytes_max: u64,
    ) -> BoxFuture<'static, Result<Loading, LibraryError>>;
}

/// What was read.
pub struct Loading {
    /// The program.
    pub wasm: Bytes,
    /// The image that it was found in, where it was one that was named.
    pub image: Option<Arc<dyn LoadedImage>>,
    /// The room for the program.
    pub room: Held,
}

/// Why nothing was read.
#[derive(Debug)]
pub enum LibraryError {
    /// The program is too large.
    TooLarge,
    /// It is something else than a file or a directory.
    Kind,
    /// The cell has fetched as much as it may, or has no memory left for the program.
    Limit(LimitReached),
    /// It cannot be had, or is malformed, or no image.
    Failed(Arc<dyn Error + Send + Sync>),
}
