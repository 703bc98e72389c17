//! `wasi:filesystem` over a cell's [`Namespace`]: no path of a guest reaches the host.
//!
//! The interfaces are wasmtime-wasi's, which name its own types for handles. What a handle stands for here is an [`Open`]
//! or a [`Listing`] of ours under the same number in the cell's resource table; only the type that the handle is written
//! with differs ([`borrowed`], [`owned`]).

use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use std::vec;

use wasmtime::component::{HasData, Linker, Resource, ResourceTable};
use wasmtime_wasi::p2::bindings::clocks::wall_clock::Datetime;
use wasmtime_wasi::p2::bindings::filesystem::preopens;
use wasmtime_wasi::p2::bindings::filesystem::types::{
    self, Advice, Descriptor, DescriptorFlags, DescriptorStat, DescriptorType, DirectoryEntry, DirectoryEntryStream,
    ErrorCode, Filesize, HostDescriptor, HostDirectoryEntryStream, MetadataHashValue, NewTimestamp, OpenFlags,
    PathFlags,
};
use wasmtime_wasi::p2::{DynInputStream, DynOutputStream, FsError, FsResult};

use super::account::{Account, Held};
use super::file_stream::{FileInput, FileOutput};
use super::process::CellState;
use crate::vfs::{
    Access, Entry, Follow, Identity, Kind, Metadata, Namespace, NewTime, NewTimes, Node, OpenFile, PATH_BYTES_MAX,
    Place, Target, VfsError,
};

/// How often a file that others create and remove at the same moment is tried to be opened.
const OPEN_ATTEMPTS: usize = 8;

/// Links the interfaces; what was linked under their names before is replaced.
pub(super) fn add_to_linker(linker: &mut Linker<CellState>) -> wasmtime::Result<()> {
    preopens::add_to_linker::<CellState, Filesystem>(linker, CellState::filesystem)?;
    types::add_to_linker::<CellState, Filesystem>(linker, CellState::filesystem)
}

struct Filesystem;

impl HasData for Filesystem {
    type Data<'a> = FilesystemView<'a>;
}

/// A cell's files and the table of its handles.
pub(super) struct FilesystemView<'a> {
    pub(super) namespace: Option<&'a Namespace>,
    pub(super) table: &'a mut ResourceTable,
    /// What the cell may use.
    account: &'a Account,
}

/// What a descriptor stands for. A cheap handle.
#[derive(Clone)]
enum Open {
    Directory(Place),
    File { file: Arc<dyn OpenFile>, access: Access },
}

/// What a handle of a guest is to the host: what it stands for, and the room for it.
struct Handle {
    open: Open,
    _held: Held,
}

/// What a handle of an open file or directory, or of a directory above it, costs the host, in bytes: some 200 of ours, and
/// what the kernel has for a descriptor.
const OPEN_BYTES: u64 = 1024;

/// What a stream of directory entries stands for. What it takes is counted as the cell's memory.
struct Listing {
    entries: vec::IntoIter<Entry>,
    _held: Held,
}

impl Listing {
    fn new(entries: Vec<Entry>, account: &Account) -> FsResult<Self> {
        let bytes: usize = entries.iter().map(|entry| size_of::<Entry>() + entry.name.capacity()).sum();
        let held = account.hold(bytes as u64).map_err(|_| ErrorCode::InsufficientMemory)?;
        Ok(Self { entries: entries.into_iter(), _held: held })
    }
}

/// Our value's handle as a guest's: the same number.
fn owned<T: 'static, U: 'static>(ours: &Resource<T>) -> Resource<U> {
    Resource::new_own(ours.rep())
}

/// A guest's handle as one of our value's: the same number.
fn borrowed<T: 'static, U: 'static>(theirs: &Resource<T>) -> Resource<U> {
    Resource::new_borrow(theirs.rep())
}

impl FilesystemView<'_> {
    fn open(&self, descriptor: &Resource<Descriptor>) -> FsResult<Open> {
        Ok(self.table.get(&borrowed::<_, Handle>(descriptor))?.open.clone())
    }

    fn place(&self, descriptor: &Resource<Descriptor>) -> FsResult<Place> {
        match self.open(descriptor)? {
            Open::Directory(place) => Ok(place),
            Open::File { .. } => Err(ErrorCode::NotDirectory.into()),
        }
    }

    fn readable(&self, descriptor: &Resource<Descriptor>) -> FsResult<Arc<dyn OpenFile>> {
        match self.open(descriptor)? {
            Open::Directory(_) => Err(ErrorCode::IsDirectory.into()),
            Open::File { access: Access::Write, .. } => Err(ErrorCode::BadDescriptor.into()),
            Open::File { file, .. } => Ok(file),
        }
    }

    fn writable(&self, descriptor: &Resource<Descriptor>) -> FsResult<Arc<dyn OpenFile>> {
        match self.open(descriptor)? {
            Open::Directory(_) => Err(ErrorCode::IsDirectory.into()),
            Open::File { access: Access::Read, .. } => Err(ErrorCode::BadDescriptor.into()),
            Open::File { file, .. } => Ok(file),
        }
    }

    fn push(&mut self, open: Open) -> FsResult<Resource<Descriptor>> {
        let opened = match &open {
            Open::Directory(place) => place.depth() as u64 + 1,
            Open::File { .. } => 1,
        };
        let held = self.account.hold(opened * OPEN_BYTES).map_err(|_| ErrorCode::InsufficientMemory)?;
        Ok(owned(&self.table.push(Handle { open, _held: held })?))
    }

    async fn target(&mut self, descriptor: &Resource<Descriptor>, path: &str, follow: Follow) -> FsResult<Target> {
        let place = self.place(descriptor)?;
        place.walk(path, follow).await.map_err(fs_error)
    }

    fn identity(&self, descriptor: &Resource<Descriptor>) -> FsResult<Identity> {
        Ok(match self.open(descriptor)? {
            Open::Directory(place) => place.directory().identity(),
            Open::File { file, .. } => file.identity(),
        })
    }

    async fn metadata(&mut self, descriptor: &Resource<Descriptor>) -> FsResult<Metadata> {
        match self.open(descriptor)? {
            Open::Directory(place) => place.directory().metadata().await,
            Open::File { file, .. } => file.metadata().await,
        }
        .map_err(fs_error)
    }
}

/// Opens what is at the path, or makes it; also where others make and remove it at the same moment.
async fn open_or_create(
    place: &Place,
    path: &str,
    follow: Follow,
    flags: OpenFlags,
    access: Access,
) -> Result<Open, VfsError> {
    for _ in 0..OPEN_ATTEMPTS {
        let target = place.walk(path, follow).await?;
        match &target.node {
            None if !flags.contains(OpenFlags::CREATE) => return Err(VfsError::NoEntry),
            None if target.is_directory_meant => return Err(VfsError::IsDirectory),
            None => match target.place.directory().create_file(target.changeable_name()?).await {
                Ok(file) => return Ok(Open::File { file: file.open(access).await?, access }),
                Err(VfsError::Exists) if !flags.contains(OpenFlags::EXCLUSIVE) => {}
                Err(error) => return Err(error),
            },
            Some(_) if flags.contains(OpenFlags::CREATE | OpenFlags::EXCLUSIVE) => return Err(VfsError::Exists),
            Some(_) => match open_existing(&target, flags, access).await {
                Err(VfsError::NoEntry) if flags.contains(OpenFlags::CREATE) => {}
                Err(VfsError::Replaced) => {}
                opened => return opened,
            },
        }
    }
    Err(VfsError::Busy)
}

async fn open_existing(target: &Target, flags: OpenFlags, access: Access) -> Result<Open, VfsError> {
    let file = match target.existing()? {
        // A directory that could be written to does not exist in POSIX; one that is to be cut off or made neither.
        Node::Directory(_) if flags.intersects(OpenFlags::CREATE | OpenFlags::TRUNCATE) || access != Access::Read => {
            return Err(VfsError::IsDirectory);
        }
        Node::Directory(directory) => return Ok(Open::Directory(target.enter(directory)?)),
        _ if flags.contains(OpenFlags::DIRECTORY) => return Err(VfsError::NotDirectory),
        Node::Symlink(_) => return Err(VfsError::Loop),
        Node::Other(..) => return Err(VfsError::NotPermitted),
        Node::File(file) => file,
    };
    if flags.contains(OpenFlags::TRUNCATE) {
        let writing = if access == Access::Read { Access::ReadWrite } else { access };
        let file = file.open(writing).await?;
        file.set_size(0).await?;
        return Ok(Open::File { file, access });
    }
    Ok(Open::File { file: file.open(access).await?, access })
}

impl CellState {
    fn filesystem(&mut self) -> FilesystemView<'_> {
        FilesystemView { namespace: self.files.as_ref(), table: &mut self.table, account: self.limiter.account() }
    }
}

impl preopens::Host for FilesystemView<'_> {
    fn get_directories(&mut self) -> wasmtime::Result<Vec<(Resource<Descriptor>, String)>> {
        let Some(namespace) = self.namespace else { return Ok(Vec::new()) };
        let root = self.push(Open::Directory(namespace.root().clone()));
        Ok(vec![(root.map_err(trap)?, "/".to_owned())])
    }
}

impl types::Host for FilesystemView<'_> {
    fn convert_error_code(&mut self, error: FsError) -> wasmtime::Result<ErrorCode> {
        error.downcast()
    }

    fn filesystem_error_code(&mut self, error: Resource<wasmtime::Error>) -> wasmtime::Result<Option<ErrorCode>> {
        let error = self.table.get(&error)?;
        if let Some(code) = error.downcast_ref::<ErrorCode>() {
            return Ok(Some(*code));
        }
        // Of a standard stream.
        let code = error.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error);
        Ok(code.map(|code| error_code(&io::Error::from_raw_os_error(code).into())))
    }
}

impl HostDescriptor for FilesystemView<'_> {
    async fn advise(
        &mut self,
        descriptor: Resource<Descriptor>,
        _offset: Filesize,
        _length: Filesize,
        _advice: Advice,
    ) -> FsResult<()> {
        // Advice may be ignored. A descriptor that it makes no sense for is still an error.
        match self.open(&descriptor)? {
            Open::Directory(_) => Err(ErrorCode::BadDescriptor.into()),
            Open::File { .. } => Ok(()),
        }
    }

    async fn sync_data(&mut self, descriptor: Resource<Descriptor>) -> FsResult<()> {
        self.sync(descriptor).await
    }

    async fn get_flags(&mut self, descriptor: Resource<Descriptor>) -> FsResult<DescriptorFlags> {
        Ok(match self.open(&descriptor)? {
            Open::Directory(_) => DescriptorFlags::READ | DescriptorFlags::MUTATE_DIRECTORY,
            Open::File { access: Access::Read, .. } => DescriptorFlags::READ,
            Open::File { access: Access::Write, .. } => DescriptorFlags::WRITE,
            Open::File { access: Access::ReadWrite, .. } => DescriptorFlags::READ | DescriptorFlags::WRITE,
        })
    }

    async fn get_type(&mut self, descriptor: Resource<Descriptor>) -> FsResult<DescriptorType> {
        Ok(match self.open(&descriptor)? {
            Open::Directory(_) => DescriptorType::Directory,
            Open::File { .. } => DescriptorType::RegularFile,
        })
    }

    async fn set_size(&mut self, descriptor: Resource<Descriptor>, size: Filesize) -> FsResult<()> {
        self.writable(&descriptor)?.set_size(size).await.map_err(fs_error)
    }

    async fn set_times(
        &mut self,
        descriptor: Resource<Descriptor>,
        accessed: NewTimestamp,
        modified: NewTimestamp,
    ) -> FsResult<()> {
        let times = new_times(accessed, modified)?;
        match self.open(&descriptor)? {
            Open::Directory(place) => place.directory().set_times(None, times).await,
            Open::File { file, .. } => file.set_times(times).await,
        }
        .map_err(fs_error)
    }

    async fn read(
        &mut self,
        descriptor: Resource<Descriptor>,
        length: Filesize,
        offset: Filesize,
    ) -> FsResult<(Vec<u8>, bool)> {
        let file = self.readable(&descriptor)?;
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let bytes = file.read_at(offset, length).await.map_err(fs_error)?;
        let is_end = bytes.is_empty() && length > 0;
        Ok((bytes.into(), is_end))
    }

    async fn write(
        &mut self,
        descriptor: Resource<Descriptor>,
        buffer: Vec<u8>,
        offset: Filesize,
    ) -> FsResult<Filesize> {
        let file = self.writable(&descriptor)?;
        let length = buffer.len() as Filesize;
        file.write_at(offset, buffer.into()).await.map_err(fs_error)?;
        Ok(length)
    }

    async fn read_directory(&mut self, descriptor: Resource<Descriptor>) -> FsResult<Resource<DirectoryEntryStream>> {
        let entries = self.place(&descriptor)?.entries().await.map_err(fs_error)?;
        let listing = Listing::new(entries, self.account)?;
        Ok(owned(&self.table.push(listing)?))
    }

    async fn sync(&mut self, descriptor: Resource<Descriptor>) -> FsResult<()> {
        match self.open(&descriptor)? {
            Open::Directory(place) => place.directory().sync().await,
            Open::File { file, .. } => file.sync().await,
        }
        .map_err(fs_error)
    }

    async fn create_directory_at(&mut self, descriptor: Resource<Descriptor>, path: String) -> FsResult<()> {
        let target = self.target(&descriptor, &path, Follow::Name).await?;
        if target.node.is_some() {
            return Err(ErrorCode::Exist.into());
        }
        let name = target.changeable_name().map_err(fs_error)?;
        target.place.directory().create_directory(name).await.map_err(fs_error)
    }

    async fn stat(&mut self, descriptor: Resource<Descriptor>) -> FsResult<DescriptorStat> {
        Ok(descriptor_stat(&self.metadata(&descriptor).await?))
    }

    async fn stat_at(
        &mut self,
        descriptor: Resource<Descriptor>,
        flags: PathFlags,
        path: String,
    ) -> FsResult<DescriptorStat> {
        let target = self.target(&descriptor, &path, follow(flags)).await?;
        let metadata = target.existing().map_err(fs_error)?.metadata().await.map_err(fs_error)?;
        Ok(descriptor_stat(&metadata))
    }

    async fn set_times_at(
        &mut self,
        descriptor: Resource<Descriptor>,
        flags: PathFlags,
        path: String,
        accessed: NewTimestamp,
        modified: NewTimestamp,
    ) -> FsResult<()> {
        let times = new_times(accessed, modified)?;
        let target = self.target(&descriptor, &path, follow(flags)).await?;
        match target.existing().map_err(fs_error)? {
            Node::Directory(directory) => directory.set_times(None, times).await,
            _ => {
                let name = target.changeable_name().map_err(fs_error)?;
                target.place.directory().set_times(Some(name), times).await
            }
        }
        .map_err(fs_error)
    }

    async fn link_at(
        &mut self,
        descriptor: Resource<Descriptor>,
        flags: PathFlags,
        path: String,
        new_descriptor: Resource<Descriptor>,
        new_path: String,
    ) -> FsResult<()> {
        if flags.contains(PathFlags::SYMLINK_FOLLOW) {
            return Err(ErrorCode::Invalid.into());
        }
        let from = self.target(&descriptor, &path, Follow::Name).await?;
        let to = self.target(&new_descriptor, &new_path, Follow::Name).await?;
        if matches!(from.existing().map_err(fs_error)?, Node::Directory(_)) {
            return Err(ErrorCode::NotPermitted.into());
        }
        let (name, to_name) = new_name(&from, &to)?;
        from.place.directory().link(name, to.place.directory(), to_name).await.map_err(fs_error)
    }

    async fn open_at(
        &mut self,
        descriptor: Resource<Descriptor>,
        path_flags: PathFlags,
        path: String,
        open_flags: OpenFlags,
        flags: DescriptorFlags,
    ) -> FsResult<Resource<Descriptor>> {
        let sync = DescriptorFlags::FILE_INTEGRITY_SYNC
            | DescriptorFlags::DATA_INTEGRITY_SYNC
            | DescriptorFlags::REQUESTED_WRITE_SYNC;
        if flags.intersects(sync) {
            return Err(ErrorCode::Unsupported.into());
        }
        let making = OpenFlags::CREATE | OpenFlags::EXCLUSIVE | OpenFlags::TRUNCATE;
        if open_flags.contains(OpenFlags::DIRECTORY) && open_flags.intersects(making) {
            return Err(ErrorCode::Invalid.into());
        }
        let access = match (flags.contains(DescriptorFlags::READ), flags.contains(DescriptorFlags::WRITE)) {
            (_, false) => Access::Read,
            (true, true) => Access::ReadWrite,
            (false, true) => Access::Write,
        };
        let place = self.place(&descriptor)?;
        let follow = if open_flags.contains(OpenFlags::EXCLUSIVE) { Follow::NotLast } else { follow(path_flags) };
        let open = open_or_create(&place, &path, follow, open_flags, access).await.map_err(fs_error)?;
        self.push(open)
    }

    async fn readlink_at(&mut self, descriptor: Resource<Descriptor>, path: String) -> FsResult<String> {
        let target = self.target(&descriptor, &path, Follow::NotLast).await?;
        match target.existing().map_err(fs_error)? {
            // What WASI says of absolute links: they do not exist for a guest that cannot follow them. Ours can.
            Node::Symlink(link) => Ok(link.target.clone()),
            _ => Err(ErrorCode::Invalid.into()),
        }
    }

    async fn remove_directory_at(&mut self, descriptor: Resource<Descriptor>, path: String) -> FsResult<()> {
        let target = self.target(&descriptor, &path, Follow::Name).await?;
        match target.existing().map_err(fs_error)? {
            Node::Directory(_) => {}
            _ => return Err(ErrorCode::NotDirectory.into()),
        }
        let name = target.changeable_name().map_err(fs_error)?;
        target.place.directory().remove_directory(name).await.map_err(fs_error)
    }

    async fn rename_at(
        &mut self,
        descriptor: Resource<Descriptor>,
        path: String,
        new_descriptor: Resource<Descriptor>,
        new_path: String,
    ) -> FsResult<()> {
        let from = self.target(&descriptor, &path, Follow::Name).await?;
        let to = self.target(&new_descriptor, &new_path, Follow::Name).await?;
        let is_directory = matches!(from.existing().map_err(fs_error)?, Node::Directory(_));
        if to.is_directory_meant && !is_directory {
            return Err(ErrorCode::NotDirectory.into());
        }
        let name = from.changeable_name().map_err(fs_error)?;
        let to_name = to.changeable_name().map_err(fs_error)?;
        from.place.directory().rename(name, to.place.directory(), to_name).await.map_err(fs_error)
    }

    async fn symlink_at(&mut self, descriptor: Resource<Descriptor>, target: String, path: String) -> FsResult<()> {
        if target.is_empty() {
            return Err(ErrorCode::NoEntry.into());
        }
        if target.len() > PATH_BYTES_MAX {
            return Err(ErrorCode::NameTooLong.into());
        }
        let at = self.target(&descriptor, &path, Follow::Name).await?;
        if at.node.is_some() {
            return Err(ErrorCode::Exist.into());
        }
        if at.is_directory_meant {
            return Err(ErrorCode::NoEntry.into());
        }
        let name = at.changeable_name().map_err(fs_error)?;
        at.place.directory().create_symlink(name, &target).await.map_err(fs_error)
    }

    async fn unlink_file_at(&mut self, descriptor: Resource<Descriptor>, path: String) -> FsResult<()> {
        let target = self.target(&descriptor, &path, Follow::Name).await?;
        if let Node::Directory(_) = target.existing().map_err(fs_error)? {
            return Err(ErrorCode::IsDirectory.into());
        }
        let name = target.changeable_name().map_err(fs_error)?;
        target.place.directory().remove_file(name).await.map_err(fs_error)
    }

    async fn is_same_object(
        &mut self,
        first: Resource<Descriptor>,
        second: Resource<Descriptor>,
    ) -> wasmtime::Result<bool> {
        let of = |descriptor| self.identity(descriptor).map_err(trap);
        Ok(of(&first)? == of(&second)?)
    }

    async fn metadata_hash(&mut self, descriptor: Resource<Descriptor>) -> FsResult<MetadataHashValue> {
        Ok(hash_value(self.identity(&descriptor)?))
    }

    async fn metadata_hash_at(
        &mut self,
        descriptor: Resource<Descriptor>,
        flags: PathFlags,
        path: String,
    ) -> FsResult<MetadataHashValue> {
        let place = self.place(&descriptor)?;
        Ok(hash_value(place.identity(&path, follow(flags)).await.map_err(fs_error)?))
    }

    fn read_via_stream(
        &mut self,
        descriptor: Resource<Descriptor>,
        offset: Filesize,
    ) -> FsResult<Resource<DynInputStream>> {
        let file = self.readable(&descriptor)?;
        let stream: DynInputStream = Box::new(FileInput::new(file, offset));
        Ok(self.table.push(stream)?)
    }

    fn write_via_stream(
        &mut self,
        descriptor: Resource<Descriptor>,
        offset: Filesize,
    ) -> FsResult<Resource<DynOutputStream>> {
        let file = self.writable(&descriptor)?;
        let stream: DynOutputStream = Box::new(FileOutput::new(file, Some(offset)));
        Ok(self.table.push(stream)?)
    }

    fn append_via_stream(&mut self, descriptor: Resource<Descriptor>) -> FsResult<Resource<DynOutputStream>> {
        let file = self.writable(&descriptor)?;
        let stream: DynOutputStream = Box::new(FileOutput::new(file, None));
        Ok(self.table.push(stream)?)
    }

    fn drop(&mut self, descriptor: Resource<Descriptor>) -> wasmtime::Result<()> {
        self.table.delete(Resource::<Handle>::new_own(descriptor.rep()))?;
        Ok(())
    }
}

impl HostDirectoryEntryStream for FilesystemView<'_> {
    async fn read_directory_entry(
        &mut self,
        stream: Resource<DirectoryEntryStream>,
    ) -> FsResult<Option<DirectoryEntry>> {
        let entry = self.table.get_mut(&borrowed::<_, Listing>(&stream))?.entries.next();
        Ok(entry.map(|entry| DirectoryEntry { type_: descriptor_type(entry.kind), name: entry.name }))
    }

    fn drop(&mut self, stream: Resource<DirectoryEntryStream>) -> wasmtime::Result<()> {
        self.table.delete(Resource::<Listing>::new_own(stream.rep()))?;
        Ok(())
    }
}

/// The names of an operation that gives what is at the first another name.
fn new_name<'a>(from: &'a Target, to: &'a Target) -> FsResult<(crate::vfs::Name<'a>, crate::vfs::Name<'a>)> {
    if to.node.is_some() {
        return Err(ErrorCode::Exist.into());
    }
    if to.is_directory_meant {
        return Err(ErrorCode::NoEntry.into());
    }
    Ok((from.changeable_name().map_err(fs_error)?, to.changeable_name().map_err(fs_error)?))
}

fn follow(flags: PathFlags) -> Follow {
    if flags.contains(PathFlags::SYMLINK_FOLLOW) { Follow::Last } else { Follow::NotLast }
}

fn descriptor_type(kind: Kind) -> DescriptorType {
    match kind {
        Kind::Directory => DescriptorType::Directory,
        Kind::File => DescriptorType::RegularFile,
        Kind::Symlink => DescriptorType::SymbolicLink,
        Kind::Other => DescriptorType::Unknown,
    }
}

fn descriptor_stat(metadata: &Metadata) -> DescriptorStat {
    let time = |time: SystemTime| {
        let since = time.duration_since(SystemTime::UNIX_EPOCH).ok()?;
        Some(Datetime { seconds: since.as_secs(), nanoseconds: since.subsec_nanos() })
    };
    DescriptorStat {
        type_: descriptor_type(metadata.kind),
        link_count: metadata.links,
        size: metadata.size_bytes,
        data_access_timestamp: metadata.times.and_then(|times| time(times.accessed)),
        data_modification_timestamp: metadata.times.and_then(|times| time(times.modified)),
        status_change_timestamp: metadata.times.and_then(|times| time(times.changed)),
    }
}

fn new_times(accessed: NewTimestamp, modified: NewTimestamp) -> FsResult<NewTimes> {
    let time = |time| match time {
        NewTimestamp::NoChange => Ok(NewTime::Keep),
        NewTimestamp::Now => Ok(NewTime::Now),
        NewTimestamp::Timestamp(Datetime { seconds, nanoseconds }) if nanoseconds < 1_000_000_000 => {
            let since = Duration::new(seconds, nanoseconds);
            SystemTime::UNIX_EPOCH.checked_add(since).map(NewTime::At).ok_or(ErrorCode::Overflow)
        }
        NewTimestamp::Timestamp(Datetime { seconds, nanoseconds }) => {
            let carried = seconds.checked_add(u64::from(nanoseconds / 1_000_000_000));
            Err(if carried.is_none() { ErrorCode::Overflow } else { ErrorCode::Invalid })
        }
    };
    Ok(NewTimes { accessed: time(accessed)?, modified: time(modified)? })
}

fn hash_value(identity: Identity) -> MetadataHashValue {
    MetadataHashValue { lower: identity.object, upper: identity.tree }
}

fn fs_error(error: VfsError) -> FsError {
    error_code(&error).into()
}

pub(super) fn error_code(error: &VfsError) -> ErrorCode {
    match error {
        VfsError::NoEntry => ErrorCode::NoEntry,
        VfsError::Exists => ErrorCode::Exist,
        VfsError::NotDirectory => ErrorCode::NotDirectory,
        VfsError::IsDirectory => ErrorCode::IsDirectory,
        VfsError::NotEmpty => ErrorCode::NotEmpty,
        VfsError::NotPermitted => ErrorCode::NotPermitted,
        VfsError::Access => ErrorCode::Access,
        VfsError::ReadOnly => ErrorCode::ReadOnly,
        VfsError::Loop => ErrorCode::Loop,
        VfsError::NameTooLong => ErrorCode::NameTooLong,
        VfsError::IllegalName => ErrorCode::IllegalByteSequence,
        VfsError::Invalid => ErrorCode::Invalid,
        VfsError::FileTooLarge => ErrorCode::FileTooLarge,
        VfsError::NoSpace => ErrorCode::InsufficientSpace,
        VfsError::Quota => ErrorCode::Quota,
        VfsError::NoMemory => ErrorCode::InsufficientMemory,
        VfsError::CrossDevice => ErrorCode::CrossDevice,
        VfsError::Busy | VfsError::Replaced => ErrorCode::Busy,
        VfsError::Unsupported => ErrorCode::Unsupported,
        VfsError::Io(_) => ErrorCode::Io,
    }
}

/// A failure where the interface has none.
fn trap(error: FsError) -> wasmtime::Error {
    error.downcast().map_or_else(|trap| trap, wasmtime::Error::from)
}
