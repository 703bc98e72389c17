//! The work of an import.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;
use std::{fs, io};

use bytes::Bytes;

use super::{BlockSink, BoxError, DEPTH_MAX, ImportError, ImportOptions, Imported, RootSymlink};
use crate::dag::Block;
use crate::dag::unixfs::{self, BuildError, Entry, EntryName, FileBuilder, Subtree};
use crate::folder::{Folder, Kind, Stamp};
use crate::tree::StatCache;
use crate::tree::stat_cache::{CachedFile, is_settled};

struct Import<'a, 's> {
    root: &'a Path,
    options: &'a ImportOptions<'a>,
    cache: Option<&'a StatCache>,
    seen: Vec<(String, Option<Vec<CachedFile>>)>,
    sink: Option<&'s mut dyn BlockSink>,
    start: SystemTime,
    files: u64,
    bytes: u64,
    folders: u64,
    symlinks: u64,
    files_cached: u64,
}

/// Why a block did not get into the sink.
enum PutError {
    Build(BuildError),
    Sink(BoxError),
}

impl From<BuildError> for PutError {
    fn from(error: BuildError) -> Self {
        Self::Build(error)
    }
}

pub(super) fn import(
    path: &Path,
    options: &ImportOptions<'_>,
    mut cache: Option<&mut StatCache>,
    sink: Option<&mut dyn BlockSink>,
) -> Result<Imported, ImportError> {
    let mut import = Import {
        root: path,
        options,
        cache: cache.as_deref(),
        seen: Vec::new(),
        sink,
        start: SystemTime::now(),
        files: 0,
        bytes: 0,
        folders: 0,
        symlinks: 0,
        files_cached: 0,
    };
    let subtree = import.root()?;
    let Import { seen, files, bytes, folders, symlinks, files_cached, .. } = import;
    if let Some(cache) = &mut cache {
        cache.update(&options.profile, seen);
    }
    Ok(Imported { subtree, files, bytes, folders, symlinks, files_cached })
}

impl Import<'_, '_> {
    fn root(&mut self) -> Result<Subtree, ImportError> {
        let mut path = self.root.to_owned();
        let mut metadata = fs::symlink_metadata(&path).map_err(ImportError::io("read", self.root))?;
        if metadata.is_symlink() {
            match self.options.root_symlink {
                RootSymlink::Refuse => return Err(ImportError::RootSymlink { path }),
                RootSymlink::Store => {
                    let target = fs::read_link(&path).map_err(ImportError::io("read", self.root))?;
                    return self.symlink(target.as_os_str().as_encoded_bytes(), "");
                }
                RootSymlink::Follow => {
                    path = fs::canonicalize(&path).map_err(ImportError::io("follow", self.root))?;
                    metadata = fs::symlink_metadata(&path).map_err(ImportError::io("read", self.root))?;
                }
            }
        }
        if metadata.is_dir() {
            let folder = Folder::open(&path).map_err(ImportError::io("open", self.root))?;
            return self.folder(&folder, "", 0);
        }
        let name = path.file_name().and_then(|name| name.to_str().map(str::to_owned));
        let name = name.ok_or_else(|| ImportError::NotUtf8 { path: path.clone() })?;
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let parent = Folder::open(parent).map_err(ImportError::io("open", self.root))?;
        if !metadata.is_file() {
            return Err(ImportError::Kind { path });
        }
        let (subtree, cached) = self.file(&parent, &name, "", "")?;
        self.seen.push((String::new(), Some(cached.into_iter().collect())));
        Ok(subtree)
    }

    fn path(&self, below: &str) -> PathBuf {
        if below.is_empty() { self.root.to_owned() } else { self.root.join(below) }
    }

    fn put(&mut self, below: &str, block: &Block) -> Result<(), ImportError> {
        put(&mut self.sink, block).map_err(|error| self.failed(below, error))
    }

    fn failed(&self, below: &str, error: PutError) -> ImportError {
        match error {
            PutError::Build(source) => ImportError::Build { path: self.path(below), source },
            PutError::Sink(source) => ImportError::Sink(source),
        }
    }

    fn folder(&mut self, folder: &Folder, below: &str, depth: usize) -> Result<Subtree, ImportError> {
        if depth > DEPTH_MAX {
            return Err(ImportError::TooDeep { path: self.path(below) });
        }
        let path = self.path(below);
        let names = folder.entries().map_err(ImportError::io("read", &path))?;
        let mut entries = Vec::with_capacity(names.len());
        let mut seen = Vec::new();
        for (name, kind) in names {
            if (self.options.cancel)() {
                return Err(ImportError::Cancelled);
            }
            let name = name.into_string().map_err(|name| ImportError::NotUtf8 { path: path.join(name) })?;
            let inner = if below.is_empty() { name.clone() } else { format!("{below}/{name}") };
            let target = match kind {
                Kind::Folder => {
                    let folder = folder.folder(&name).map_err(ImportError::io("open", self.path(&inner)))?;
                    self.folder(&folder, &inner, depth + 1)?
                }
                Kind::File => {
                    let (subtree, cached) = self.file(folder, &name, below, &name)?;
                    seen.extend(cached);
                    subtree
                }
                Kind::Symlink => {
                    let target = folder.symlink_target(&name).map_err(ImportError::io("read", self.path(&inner)))?;
                    self.symlink(target.as_encoded_bytes(), &inner)?
                }
                Kind::Other => return Err(ImportError::Kind { path: self.path(&inner) }),
            };
            let name = EntryName::new(name).map_err(|error| self.failed(&inner, BuildError::from(error).into()))?;
            entries.push(Entry { name, target });
        }
        seen.sort_unstable_by(|first, second| first.name.cmp(&second.name));
        let is_known = self.cache.is_some_and(|cache| cache.files(&self.options.profile, below) == seen);
        self.seen.push((below.to_owned(), (!is_known).then_some(seen)));
        self.folders += 1;
        let sink = &mut self.sink;
        let made = unixfs::directory(&self.options.profile, entries, &mut |block| put(sink, &block));
        made.map_err(|error| self.failed(below, error))
    }

    fn symlink(&mut self, target: &[u8], below: &str) -> Result<Subtree, ImportError> {
        let made = unixfs::symlink(&self.options.profile, target);
        let (block, subtree) = made.map_err(|error| self.failed(below, error.into()))?;
        self.put(below, &block)?;
        self.symlinks += 1;
        Ok(subtree)
    }

    /// Reads a file, or takes it from the cache. Gives what the cache is to know of it.
    fn file(
        &mut self,
        folder: &Folder,
        name: &str,
        below: &str,
        cached_name: &str,
    ) -> Result<(Subtree, Option<CachedFile>), ImportError> {
        let path = if below.is_empty() { cached_name.to_owned() } else { format!("{below}/{cached_name}") };
        let (file, stamp) = folder.file_with_stamp(name).map_err(ImportError::io("open", self.path(&path)))?;
        let files = self.cache.map_or(&[][..], |cache| cache.files(&self.options.profile, below));
        let known = files.iter().find(|known| known.name == cached_name && known.stamp == stamp).cloned();
        if let Some(known) = known {
            let has = self.sink.as_mut().map_or(Ok(true), |sink| sink.has(&known.subtree.cid));
            if has.map_err(ImportError::Sink)? {
                self.count(&stamp);
                (self.options.progress)(stamp.size_bytes);
                self.files_cached += 1;
                return Ok((known.subtree, Some(known)));
            }
        }
        let subtree = self.read(&file, &stamp, &path)?;
        self.count(&stamp);
        let cached =
            is_settled(&stamp, self.start).then(|| CachedFile { name: cached_name.to_owned(), stamp, subtree });
        Ok((subtree, cached))
    }

    fn count(&mut self, stamp: &Stamp) {
        self.files += 1;
        self.bytes += stamp.size_bytes;
    }

    fn read(&mut self, file: &File, stamp: &Stamp, path: &str) -> Result<Subtree, ImportError> {
        let mut builder = FileBuilder::new(self.options.profile);
        let mut offset = 0;
        while offset < stamp.size_bytes {
            if (self.options.cancel)() {
                return Err(ImportError::Cancelled);
            }
            let length = (stamp.size_bytes - offset).min(self.options.profile.chunk_bytes as u64);
            let mut chunk = vec![0; length as usize];
            match file.read_exact_at(&mut chunk, offset) {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    return Err(ImportError::Changed { path: self.path(path) });
                }
                other => other.map_err(ImportError::io("read", self.path(path)))?,
            }
            let sink = &mut self.sink;
            let pushed = builder.push(Bytes::from(chunk), &mut |block| put(sink, &block));
            pushed.map_err(|error| self.failed(path, error))?;
            offset += length;
            (self.options.progress)(length);
        }
        let now = Stamp::of(file).map_err(ImportError::io("read", self.path(path)))?;
        if now != *stamp {
            return Err(ImportError::Changed { path: self.path(path) });
        }
        let sink = &mut self.sink;
        let finished = builder.finish(&mut |block| put(sink, &block));
        Ok(finished.map_err(|error| self.failed(path, error))?.subtree())
    }
}

fn put(sink: &mut Option<&mut dyn BlockSink>, block: &Block) -> Result<(), PutError> {
    sink.as_mut().map_or(Ok(()), |sink| sink.put(block).map_err(PutError::Sink))
}
