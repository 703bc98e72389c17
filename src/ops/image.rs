//! Images as they are run: trees, from a folder or from content that is fetched as it is read.

use std::any::Any;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;

use super::fetch::{DagRequest, FetchError, Payer, Session};
use super::run::RunError;
use crate::blockstore::Lease;
use crate::cell::{Account, HeldRoot};
use crate::dag::{Block, Cid, ContentPath, Scope};
use crate::grant::{REQUEST_BYTES_MAX, REQUEST_PATH, Request, RequestError};
use crate::vfs::{self, Access, Answer, Directory, File, Follow, Namespace, Node, VfsError};
use crate::wetfile::MAIN_PATH;

/// Where an image is.
#[derive(Debug)]
pub enum ImageSource {
    /// In a folder.
    Folder(PathBuf),
    /// In a blockstore, and as far as it is not there, with others.
    Content(LeasedContent),
}

impl ImageSource {
    /// Who pays for what is fetched of it, if anything is.
    pub(super) fn payer(&self) -> Option<Arc<Payer>> {
        match self {
            Self::Folder(_) => None,
            Self::Content(content) => Some(content.blocks.payer.clone()),
        }
    }
}

/// Content that is read, and stays in the blockstore as long as this lives, or an image that was opened from it.
pub struct LeasedContent {
    root: Cid,
    blocks: LeasedBlocks,
}

impl LeasedContent {
    /// As [`LeasedContent::bring`], on this thread, if the program is here and nothing has to be waited for. What the image asks
    /// for probably is here as well.
    pub fn find_at_once(session: &Session, content: &ContentPath) -> Option<Self> {
        // Where a path leads is not leased at once.
        let program = content.path.is_empty().then(|| DagRequest {
            root: content.root,
            path: MAIN_PATH.to_owned(),
            scope: Scope::Entity,
        });
        let lease = session.lease_at_once(program?)?;
        let blocks = LeasedBlocks { session: session.clone(), payer: Arc::default(), _lease: lease, _right: None };
        Some(Self { root: content.root, blocks })
    }

    /// Takes care that what an image needs to start is here, and that what is here of it, or comes, stays: the blocks on the
    /// way to it, its program, and what it asks for. What else there is in it is fetched when somebody reads it.
    ///
    /// # Errors
    /// If the path leads nowhere, or something cannot be had. That there is no program is no error yet.
    pub async fn bring(session: &Session, content: &ContentPath) -> Result<Self, FetchError> {
        let payer = Arc::new(Payer::default());
        let bring = async |root: Cid, path: String, scope: Scope| {
            let fetched = session.bring(DagRequest { root, path, scope }).await;
            let fetched = fetched.map_err(|error| about(error, content))?;
            // Nothing limits it yet.
            let _ = payer.count(fetched.bytes);
            Ok::<_, FetchError>(fetched)
        };
        // With one request, where somebody answers such ones. Links on the way are followed later, by who reads.
        let program = if_there(bring(content.root, below(&content.path, MAIN_PATH), Scope::Entity).await)?;
        let was_here = program.as_ref().is_some_and(|program| program.blocks == 0);
        let image = match &program {
            Some(_) if content.path.is_empty() => None,
            _ => Some(bring(content.root, content.path.clone(), Scope::Block).await?),
        };
        let root = image.as_ref().map_or(content.root, |image| image.end);
        // Where the program was here, the other probably is as well.
        let request = match was_here {
            true => None,
            false => if_there(bring(root, REQUEST_PATH.to_owned(), Scope::Entity).await)?,
        };
        let lease = session.lease(&root).await?;
        // Only now may anything go.
        drop((program, image, request));
        Ok(Self { root, blocks: LeasedBlocks { session: session.clone(), payer, _lease: lease, _right: None } })
    }
}

/// An error about a part of content as one about the content.
fn about(error: FetchError, content: &ContentPath) -> FetchError {
    match error {
        FetchError::Missing(mut missing) => {
            missing.request.root = content.root;
            missing.request.path.clone_from(&content.path);
            FetchError::Missing(missing)
        }
        error => error,
    }
}

/// What was brought, if the path to it leads there.
fn if_there<T>(brought: Result<T, FetchError>) -> Result<Option<T>, FetchError> {
    match brought {
        Ok(brought) => Ok(Some(brought)),
        Err(FetchError::Path(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

fn below(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}/{name}") }
}

impl fmt::Debug for LeasedContent {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("LeasedContent").field(&self.root).finish()
    }
}

/// Blocks that stay here, as far as they are, and are fetched for somebody, as far as they are not.
#[derive(Clone)]
pub(super) struct LeasedBlocks {
    session: Session,
    payer: Arc<Payer>,
    _lease: Arc<Lease>,
    /// The right to that lease, where a cell has to have one.
    _right: Option<Arc<HeldRoot>>,
}

impl LeasedBlocks {
    /// The blocks below what this lease keeps, for the cell with this account.
    pub(super) fn new(session: Session, account: Account, lease: Arc<Lease>, right: Arc<HeldRoot>) -> Self {
        Self { session, payer: Arc::new(Payer::of(account)), _lease: lease, _right: Some(right) }
    }

    /// A block, with why it cannot be had.
    pub(super) async fn fetch(&self, cid: Cid) -> Result<Block, Arc<FetchError>> {
        self.session.block(cid, Vec::new(), &self.payer).await
    }

    /// The same for another cell.
    pub(super) fn of(&self, account: &Account) -> Self {
        Self { payer: Arc::new(Payer::of(account.clone())), ..self.clone() }
    }
}

impl vfs::content::Blocks for LeasedBlocks {
    fn block(&self, cid: Cid, beside: Vec<Cid>) -> Answer<'static, Block> {
        let (session, payer) = (self.session.clone(), self.payer.clone());
        async move {
            session.block(cid, beside, &payer).await.map_err(|error| match &*error {
                FetchError::Limit(_) => VfsError::Quota,
                _ => VfsError::Io(error),
            })
        }
        .boxed()
    }

    fn block_at_once(&self, cid: &Cid) -> Option<Block> {
        self.session.block_at_once(cid)
    }

    fn block_if_here(&self, cid: Cid) -> BoxFuture<'static, Option<Block>> {
        let session = self.session.clone();
        async move { session.block_if_here(cid).await }.boxed()
    }

    fn expect(&self, cids: Vec<Cid>) {
        self.session.expect(cids, &self.payer);
    }

    fn room(&self, bytes: u64) -> Option<Box<dyn Any + Send>> {
        Some(Box::new(self.payer.hold(bytes).ok()?))
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
pub(super) enum FileError {
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
    match root.root().walk(path, Follow::Last).await?.node {
        Some(Node::File(file)) => read_all(&*file, bytes_max).await,
        Some(_) => Err(FileError::NotAFile),
        None => Err(FileError::Missing),
    }
}

/// Reads all of a file of at most `bytes_max` bytes.
pub(super) async fn read_all(file: &dyn File, bytes_max: u64) -> Result<Vec<u8>, FileError> {
    let size = file.metadata().await?.size_bytes;
    if size > bytes_max {
        return Err(FileError::TooLong(size));
    }
    let file = file.open(Access::Read).await?;
    let mut bytes = Vec::new();
    loop {
        let offset = bytes.len() as u64;
        // One more than there is, to see whether it has grown.
        let wanted = usize::try_from(size.saturating_sub(offset)).unwrap_or(usize::MAX).saturating_add(1);
        let piece = file.clone().read_at(offset, wanted.min(vfs::READ_BYTES_MAX)).await?;
        if piece.is_empty() {
            return Ok(bytes);
        }
        if bytes.is_empty() {
            bytes = piece.into();
            // No more than there will be: what is read may be booked.
            bytes.reserve_exact(usize::try_from(size).unwrap_or(0).saturating_sub(bytes.len()));
        } else {
            bytes.extend_from_slice(&piece);
        }
        // It may grow while it is read.
        if bytes.len() as u64 > bytes_max {
            return Err(FileError::TooLong(bytes.len() as u64));
        }
    }
}

/// How long the program of an image is, in bytes; 0 where there is none, or it cannot be told.
pub(super) async fn program_bytes(image: &Arc<dyn Directory>) -> u64 {
    let Ok(namespace) = Namespace::new(image.clone(), &[]) else { return 0 };
    match namespace.root().walk(MAIN_PATH, Follow::Last).await.map(|target| target.node) {
        Ok(Some(Node::File(file))) => file.metadata().await.map_or(0, |metadata| metadata.size_bytes),
        _ => 0,
    }
}

/// Reads the program of an image that messages call `name`, of at most `bytes_max` bytes.
pub(super) async fn read_program(image: &Arc<dyn Directory>, name: &Path, bytes_max: u64) -> Result<Bytes, RunError> {
    let namespace = Namespace::new(image.clone(), &[])?;
    let path = name.join(MAIN_PATH);
    match read_file(&namespace, MAIN_PATH, bytes_max).await {
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
    use crate::wasm_binary::SIZE_BYTES_MAX;
    use std::os::unix::fs::symlink;

    fn read(image: &Path) -> Result<Bytes, RunError> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let opened = open(ImageSource::Folder(image.to_owned()), image).await?;
            read_program(&opened, image, SIZE_BYTES_MAX).await
        })
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
