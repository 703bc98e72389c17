//! Images as they are run: trees, from a folder or from content that is here.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::task::spawn_blocking;

use super::content::ContentError;
use super::run::RunError;
use crate::blockstore::{Blockstore, Lease, StoreError};
use crate::dag::{Block, Cid};
use crate::grant::{REQUEST_BYTES_MAX, REQUEST_PATH, Request, RequestError};
use crate::vfs::{self, Access, Answer, Directory, Follow, Namespace, Node, VfsError};
use crate::wasm_binary::SIZE_BYTES_MAX;
use crate::wetfile::MAIN_PATH;

/// Where an image is.
#[derive(Debug)]
pub enum ImageSource {
    /// In a folder.
    Folder(PathBuf),
    /// In a blockstore, all of it.
    Content(LeasedContent),
}

/// Content of a blockstore, which stays there as long as this lives, or an image that was opened from it.
pub struct LeasedContent {
    root: Cid,
    blocks: LeasedBlocks,
}

impl LeasedContent {
    /// Takes care that what `root` names stays. Blocks.
    ///
    /// # Errors
    /// If the store cannot be written.
    pub fn new(store: Arc<dyn Blockstore>, root: Cid) -> Result<Self, StoreError> {
        let lease = store.lease(&root)?;
        Ok(Self { root, blocks: LeasedBlocks { store, _lease: lease } })
    }

    /// Where it is.
    pub fn store(&self) -> Arc<dyn Blockstore> {
        self.blocks.store.clone()
    }
}

impl fmt::Debug for LeasedContent {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("LeasedContent").field(&self.root).finish()
    }
}

struct LeasedBlocks {
    store: Arc<dyn Blockstore>,
    _lease: Lease,
}

impl vfs::content::Blocks for LeasedBlocks {
    fn block(&self, cid: Cid) -> Answer<'static, Block> {
        let store = self.store.clone();
        async move {
            let found = spawn_blocking(move || store.get(&cid)).await.map_err(VfsError::failed)?;
            found.map_err(VfsError::failed)?.ok_or_else(|| {
                // Who asks is told that reading failed, and not why.
                tracing::warn!(%cid, "a block of the image is not in the blockstore any more");
                VfsError::failed(ContentError::Missing { cid: Box::new(cid) })
            })
        }
        .boxed()
    }

    fn block_if_here(&self, cid: Cid) -> BoxFuture<'static, Option<Block>> {
        let block = self.block(cid);
        async move { block.await.ok() }.boxed()
    }
}

/// Opens an image; messages call it `name`.
pub(super) async fn open(source: ImageSource, name: &Path) -> Result<Arc<dyn Directory>, RunError> {
    let read = |source| RunError::Read { path: name.to_owned(), source };
    match source {
        ImageSource::Folder(path) => {
            check_folder(&path)?;
            vfs::folder::open_image(&path).map_err(read)
        }
        ImageSource::Content(LeasedContent { root, blocks }) => {
            vfs::content::open(Arc::new(blocks), root).await.map_err(|error| match error {
                VfsError::NotDirectory => RunError::NotAnImage { path: name.to_owned() },
                error => read(io::Error::other(error)),
            })
        }
    }
}

fn check_folder(image: &Path) -> Result<(), RunError> {
    let path = image.to_owned();
    match fs::metadata(image) {
        Ok(metadata) if metadata.is_dir() => Ok(()),
        Ok(_) => Err(RunError::NotAnImage { path }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => match fs::read_link(image) {
            Ok(target) => Err(RunError::DanglingLink { path, target }),
            Err(_) => Err(RunError::NoImage { path }),
        },
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => Err(RunError::NoImage { path }),
        Err(source) => Err(RunError::Read { path, source }),
    }
}

/// Why a file of an image could not be read.
enum FileError {
    /// There is none.
    Missing,
    /// It is something else.
    NotAFile,
    /// It is longer than it may be: so long, or so long at least.
    TooLong(u64),
    /// Its bytes cannot be had.
    Unreadable(VfsError),
}

impl From<VfsError> for FileError {
    fn from(error: VfsError) -> Self {
        match error {
            VfsError::NoEntry | VfsError::NotDirectory => Self::Missing,
            error => Self::Unreadable(error),
        }
    }
}

/// Reads a file of at most `bytes_max` bytes, over the links that lead to it as a cell follows them.
async fn read_file(root: &Namespace, path: &str, bytes_max: u64) -> Result<Vec<u8>, FileError> {
    let file = match root.root().walk(path, Follow::Last).await?.node {
        Some(Node::File(file)) => file,
        Some(_) => return Err(FileError::NotAFile),
        None => return Err(FileError::Missing),
    };
    let size = file.metadata().await?.size_bytes;
    if size > bytes_max {
        return Err(FileError::TooLong(size));
    }
    let file = file.open(Access::Read).await?;
    let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
    loop {
        let piece = file.clone().read_at(bytes.len() as u64, vfs::READ_BYTES_MAX).await?;
        if piece.is_empty() {
            return Ok(bytes);
        }
        bytes.extend_from_slice(&piece);
        // It may grow while it is read.
        if bytes.len() as u64 > bytes_max {
            return Err(FileError::TooLong(bytes.len() as u64));
        }
    }
}

/// Reads the program of an image that messages call `name`.
pub(super) async fn read_program(image: &Arc<dyn Directory>, name: &Path) -> Result<Bytes, RunError> {
    let namespace = Namespace::new(image.clone(), &[])?;
    let path = name.join(MAIN_PATH);
    match read_file(&namespace, MAIN_PATH, SIZE_BYTES_MAX).await {
        Ok(wasm) => Ok(wasm.into()),
        Err(FileError::Missing) => {
            let target = namespace.root().walk(MAIN_PATH, Follow::NotLast).await;
            Err(match target.ok().and_then(|target| target.node) {
                Some(Node::Symlink(link)) => RunError::DanglingLink { path, target: link.target.clone().into() },
                _ => RunError::NoProgram { image: name.to_owned() },
            })
        }
        Err(FileError::NotAFile) => Err(RunError::NotAFile { path }),
        Err(FileError::TooLong(size)) => Err(RunError::TooLarge { path, size }),
        Err(FileError::Unreadable(error)) => Err(RunError::Read { path, source: io::Error::other(error) }),
    }
}

/// Reads what an image that messages call `name` asks for; nothing if it has no such file.
pub(super) async fn read_request(image: &Arc<dyn Directory>, name: &Path) -> Result<Request, RunError> {
    let wrong = |source| RunError::Request { source };
    let namespace = Namespace::new(image.clone(), &[])?;
    let bytes = match read_file(&namespace, REQUEST_PATH, REQUEST_BYTES_MAX).await {
        Ok(bytes) => bytes,
        Err(FileError::Missing) => {
            let link = namespace.root().walk(REQUEST_PATH, Follow::NotLast).await;
            return match link.ok().and_then(|link| link.node) {
                Some(Node::Symlink(_)) => Err(wrong(RequestError::DanglingLink)),
                _ => Ok(Request::default()),
            };
        }
        Err(FileError::NotAFile) => return Err(RunError::NotAFile { path: name.join(REQUEST_PATH) }),
        Err(FileError::TooLong(size)) => return Err(wrong(RequestError::TooLong { size })),
        Err(FileError::Unreadable(error)) => {
            return Err(RunError::Read { path: name.join(REQUEST_PATH), source: io::Error::other(error) });
        }
    };
    Request::from_bytes(&bytes).map_err(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn read(image: &Path) -> Result<Bytes, RunError> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime
            .block_on(async { read_program(&open(ImageSource::Folder(image.to_owned()), image).await?, image).await })
    }

    fn image(prepare: impl FnOnce(&Path)) -> String {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("bin")).unwrap();
        prepare(&dir.path().join("bin/main.wasm"));
        let root = dir.path().to_str().unwrap();
        match read(dir.path()) {
            Ok(bytes) => format!("ok {}", String::from_utf8_lossy(&bytes)),
            Err(error) => error.to_string().replace(root, "IMAGE"),
        }
    }

    #[test]
    fn a_file_is_read() {
        assert_eq!(image(|program| fs::write(program, "x").unwrap()), "ok x");
    }

    #[test]
    fn a_link_inside_the_image_is_followed() {
        let prepare = |program: &Path| {
            fs::write(program.with_file_name("real"), "x").unwrap();
            symlink("real", program).unwrap();
        };
        assert_eq!(image(prepare), "ok x");
    }

    #[test]
    fn what_is_not_a_program_has_a_message_of_its_own() {
        assert_eq!(image(|_| ()), "the image IMAGE has no bin/main.wasm");
        assert_eq!(image(|program| fs::create_dir(program).unwrap()), "IMAGE/bin/main.wasm is not a file");
        assert_eq!(
            image(|program| symlink("gone", program).unwrap()),
            "IMAGE/bin/main.wasm is a link to gone, which is not there"
        );
        assert_eq!(
            image(|program| symlink("/etc/passwd", program).unwrap()),
            "IMAGE/bin/main.wasm is a link to /etc/passwd, which is not there"
        );
        let pipe = |program: &Path| {
            rustix::fs::mknodat(rustix::fs::CWD, program, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0)
                .unwrap();
        };
        assert_eq!(image(pipe), "IMAGE/bin/main.wasm is not a file");
    }

    #[test]
    fn what_is_not_an_image_has_a_message_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "x").unwrap();
        assert!(matches!(read(&file), Err(RunError::NotAnImage { .. })));
        assert!(matches!(read(&dir.path().join("gone")), Err(RunError::NoImage { .. })));
        assert!(matches!(read(&file.join("below")), Err(RunError::NoImage { .. })));
        let link = dir.path().join("link");
        symlink("gone", &link).unwrap();
        assert!(matches!(read(&link), Err(RunError::DanglingLink { .. })));
    }
}
