//! Programs and images that a cell loads by their CID.

use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;

use super::fetch::{FetchError, Session};
use super::image::{self, FileError, LeasedBlocks};
use super::run::RunError;
use crate::caps::LoadedImage;
use crate::cell::Account;
use crate::dag::unixfs::{PathWalk, WalkError};
use crate::dag::{Cid, ContentPath};
use crate::grant::Limits;
use crate::host::{Library, LibraryError, Loading};
use crate::vfs::content::{BlockCache, Content};
use crate::vfs::{Directory, Node, VfsError};

/// What can be had by its CID: through a session, which fetches what is not here.
pub(super) struct ContentLibrary {
    session: Session,
    /// One for all that is loaded, so that it is bounded however much that is.
    cache: BlockCache,
}

impl ContentLibrary {
    pub(super) fn new(session: Session) -> Self {
        Self { session, cache: BlockCache::default() }
    }
}

impl Library for ContentLibrary {
    fn load(
        &self,
        content: ContentPath,
        account: Account,
        bytes_max: u64,
    ) -> BoxFuture<'static, Result<Loading, LibraryError>> {
        let (session, cache) = (self.session.clone(), self.cache.clone());
        async move {
            let loaded = load(session, &cache, content, account.clone(), bytes_max).await;
            match (loaded, account.check_fetched()) {
                // Whatever it was that could not be read, this is why.
                (Err(LibraryError::Failed(_)), Err(reached)) => Err(LibraryError::Limit(reached)),
                (loaded, _) => loaded,
            }
        }
        .boxed()
    }
}

async fn load(
    session: Session,
    cache: &BlockCache,
    content: ContentPath,
    account: Account,
    bytes_max: u64,
) -> Result<Loading, LibraryError> {
    // Also the blocks on the way stay.
    let too_many = |limit| failed(FetchError::TooManyForCell { limit });
    let right = Arc::new(account.hold_root().map_err(too_many)?);
    let lease = session.lease(&content.root).await.map_err(failed)?;
    let blocks = LeasedBlocks::new(session, account.clone(), lease, right);
    let end = end_of(&blocks, &content).await?;
    let tree = Content::new(end, cache);
    // What is not read needs no room. Content does not change, so it is as long as it says.
    let room = |bytes: u64| account.hold(if bytes > bytes_max { 0 } else { bytes }).map_err(LibraryError::Limit);
    match tree.node(Arc::new(blocks.clone())).await.map_err(unreadable)? {
        Node::File(file) => {
            let room = room(file.metadata().await.map_err(unreadable)?.size_bytes)?;
            match image::read_all(&*file, bytes_max).await {
                Ok(wasm) => Ok(Loading { wasm: wasm.into(), image: None, room }),
                Err(FileError::TooLong(_)) => Err(LibraryError::TooLarge),
                Err(FileError::Unreadable(error)) => Err(unreadable(error)),
                Err(FileError::Missing | FileError::NotAFile) => Err(LibraryError::Kind),
            }
        }
        Node::Directory(directory) => {
            let name = PathBuf::from(content.to_string());
            let room = room(image::program_bytes(&directory).await)?;
            let wasm = image::read_program(&directory, &name, bytes_max).await.map_err(not_run)?;
            let request = image::read_request(&directory, &name).await.map_err(not_run)?;
            let image = ContentImage { tree, blocks, limits: request.limits };
            Ok(Loading { wasm, image: Some(Arc::new(image)), room })
        }
        Node::Symlink(_) | Node::Other(..) => Err(LibraryError::Kind),
    }
}

/// Where the path leads.
async fn end_of(blocks: &LeasedBlocks, content: &ContentPath) -> Result<Cid, LibraryError> {
    let malformed = |error| failed(FetchError::Path(WalkError::Path(error)));
    let mut walk = PathWalk::new(content.root, &content.path).map_err(malformed)?;
    while let Some(wanted) = walk.wanted().copied() {
        let block = blocks.fetch(wanted).await.map_err(|error| LibraryError::Failed(error))?;
        walk.supply(&block).map_err(|error| failed(FetchError::Path(error)))?;
    }
    Ok(*walk.found().expect("nothing more is wanted, so the path was followed to its end"))
}

fn failed(error: impl Error + Send + Sync + 'static) -> LibraryError {
    LibraryError::Failed(Arc::new(error))
}

fn unreadable(error: VfsError) -> LibraryError {
    match error {
        // What was read of it says more than that reading failed.
        VfsError::Io(error) => LibraryError::Failed(error),
        error => failed(error),
    }
}

fn not_run(error: RunError) -> LibraryError {
    match error {
        RunError::TooLarge { .. } => LibraryError::TooLarge,
        error => failed(error),
    }
}

/// An image that children are started from.
struct ContentImage {
    /// What one child has read, the others find.
    tree: Content,
    blocks: LeasedBlocks,
    limits: Limits,
}

impl LoadedImage for ContentImage {
    fn limits(&self) -> &Limits {
        &self.limits
    }

    fn open(&self, account: &Account) -> BoxFuture<'static, Result<Arc<dyn Directory>, VfsError>> {
        let (tree, blocks) = (self.tree.clone(), Arc::new(self.blocks.of(account)));
        async move { tree.open(blocks).await }.boxed()
    }
}
