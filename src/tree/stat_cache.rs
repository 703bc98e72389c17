//! What an import saw of a tree, so that the next one need not read it again.

use std::cmp::Ordering;
use std::collections::HashMap;

use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::root::{CidForm, DIGEST_BYTES, Root};
use crate::dag::unixfs::Profile;
use crate::folder::Stamp;

/// The first bytes of an encoded cache. The number is the version of what follows; another one is no cache.
const MAGIC: &[u8] = b"ww-stat-cache 1\n";

/// Bytes of a SHA2-256 at the end of an encoded cache. The cache is trusted, so a damaged one must be recognized.
const CHECKSUM_BYTES: usize = 16;

/// The length of a file of no name: the lengths of its name, five numbers with two fractions, a form and a digest.
const FILE_BYTES_MIN: usize = 8 + 6 * 8 + 2 * 4 + 1 + DIGEST_BYTES;

/// What an import saw of the files of one tree under one profile: for each its stamp (size, times, inode and device), and
/// the root of its blocks.
///
/// A file with the same stamp has the same content: whoever writes to a file changes its ctime, which cannot be set. Files
/// that were too young when they were read, for that to be sure, are not in it (see git's `racy-git`).
///
/// Bytes in, bytes out: who calls keeps one for each root, and may lose it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatCache {
    profile: String,
    /// The files of each folder. The key is the folder's path below the root with `/` between the names. A root that is
    /// itself a file is the file of no name in the folder of no path.
    folders: HashMap<String, FolderFiles>,
    is_changed: bool,
}

/// The files of a folder as they are encoded, sorted by name. There may be a million of them, of which every import looks at
/// each once; so they stay encoded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct FolderFiles {
    /// One after the other; mostly a part of the bytes that were decoded.
    bytes: Bytes,
    /// Where in these each of them begins.
    starts: Vec<u32>,
}

/// What is known of the files in a folder.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct CachedFiles<'a>(Option<&'a FolderFiles>);

/// A file that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CachedFile {
    pub(super) name: Box<str>,
    pub(super) stamp: Stamp,
    /// The root of its blocks.
    pub(super) root: Root,
}

impl StatCache {
    /// A cache that knows nothing.
    pub fn new(profile: &Profile) -> Self {
        Self { profile: profile.name.to_owned(), folders: HashMap::new(), is_changed: false }
    }

    /// Reads what [`StatCache::encode`] made. The cache is empty if that was under another profile or in another version
    /// of this format, or if the bytes are damaged in any way.
    pub fn decode(profile: &Profile, bytes: &Bytes) -> Self {
        let decoded = checked(bytes).and_then(|content| decode(profile, content));
        Self { folders: decoded.unwrap_or_default(), ..Self::new(profile) }
    }

    /// The cache as bytes. Equal caches give equal bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        put_text(&mut out, &self.profile);
        let mut folders: Vec<_> = self.folders.iter().collect();
        folders.sort_unstable_by_key(|(path, _)| *path);
        for (path, files) in folders {
            put_text(&mut out, path);
            put_u64(&mut out, files.starts.len() as u64);
            out.extend_from_slice(&files.bytes);
        }
        let checksum = Sha256::digest(&out);
        out.extend_from_slice(&checksum[..CHECKSUM_BYTES]);
        out
    }

    /// Whether the last import, if any, left it with other contents than it had before: whether to store it anew.
    pub fn is_changed(&self) -> bool {
        self.is_changed
    }

    /// How many files it knows.
    pub fn len(&self) -> usize {
        self.folders.values().map(|files| files.starts.len()).sum()
    }

    /// Whether it knows nothing.
    pub fn is_empty(&self) -> bool {
        self.folders.is_empty()
    }

    /// What is known of the files in a folder, if that was under this profile.
    pub(super) fn files(&self, profile: &Profile, folder: &str) -> CachedFiles<'_> {
        CachedFiles(self.folders.get(folder).filter(|_| self.profile == profile.name))
    }

    /// Takes what an import saw: the files of each folder of the tree, sorted by name, or `None` where they are as they were.
    /// Folders that were not seen are forgotten.
    pub(super) fn update(&mut self, profile: &Profile, seen: Vec<(String, Option<Vec<CachedFile>>)>) {
        let mut previous = std::mem::take(&mut self.folders);
        if self.profile != profile.name {
            profile.name.clone_into(&mut self.profile);
            previous.clear();
        }
        let mut kept = 0;
        self.is_changed = false;
        let previous_len = previous.len();
        for (path, files) in seen {
            let known = previous.remove(&path);
            kept += usize::from(known.is_some());
            let files = match files {
                Some(files) => {
                    let files = FolderFiles::encode(&files);
                    self.is_changed |= known.unwrap_or_default() != files;
                    files
                }
                None => known.unwrap_or_default(),
            };
            if !files.starts.is_empty() {
                self.folders.insert(path, files);
            }
        }
        self.is_changed |= kept < previous_len;
    }
}

impl FolderFiles {
    fn encode(files: &[CachedFile]) -> Self {
        let (mut bytes, mut starts) = (Vec::new(), Vec::with_capacity(files.len()));
        for file in files {
            // What does not fit is not remembered.
            let Ok(start) = u32::try_from(bytes.len()) else { break };
            starts.push(start);
            put_file(&mut bytes, file);
        }
        Self { bytes: bytes.into(), starts }
    }

    /// Reads so many files; gives what follows them.
    fn decode(content: &Bytes, count: u64) -> Option<(Self, Bytes)> {
        // Nothing is allocated for a count that is not there.
        let room = content.len() / FILE_BYTES_MIN;
        let count = usize::try_from(count).ok().filter(|count| *count <= room)?;
        let (mut rest, mut starts) = (&content[..], Vec::with_capacity(count));
        for _ in 0..count {
            starts.push(u32::try_from(content.len() - rest.len()).ok()?);
            take_file(&mut rest)?;
        }
        let end = content.len() - rest.len();
        Some((Self { bytes: content.slice(..end), starts }, content.slice(end..)))
    }

    /// The name of a file, its stamp and its root.
    fn get(&self, index: usize) -> (&str, Stamp, Root) {
        take_file(&mut self.tail(index)).expect("it was looked at when it was decoded")
    }

    fn name(&self, index: usize) -> &[u8] {
        let mut tail = self.tail(index);
        take_bytes(&mut tail).expect("it was looked at when it was decoded")
    }

    fn tail(&self, index: usize) -> &[u8] {
        &self.bytes[self.starts[index] as usize..]
    }
}

impl CachedFiles<'_> {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.0.map_or(0, |files| files.starts.len())
    }

    /// The file of a name: which it is, with its stamp and root.
    pub(super) fn find(&self, name: &str) -> Option<(usize, (Stamp, Root))> {
        let files = self.0?;
        let (mut start, mut end) = (0, files.starts.len());
        while start < end {
            let middle = usize::midpoint(start, end);
            match files.name(middle).cmp(name.as_bytes()) {
                Ordering::Less => start = middle + 1,
                Ordering::Greater => end = middle,
                Ordering::Equal => {
                    let (_, stamp, root) = files.get(middle);
                    return Some((middle, (stamp, root)));
                }
            }
        }
        None
    }

    /// One of them.
    ///
    /// # Panics
    /// If there are not so many.
    pub(super) fn file(&self, index: usize) -> CachedFile {
        let (name, stamp, root) = self.0.expect("there are some").get(index);
        CachedFile { name: name.into(), stamp, root }
    }
}

/// The bytes between the first and the last ones, if those are what they should be.
fn checked(bytes: &Bytes) -> Option<Bytes> {
    let end = bytes.len().checked_sub(CHECKSUM_BYTES)?;
    let (content, checksum) = bytes.split_at(end);
    let is_sound = content.starts_with(MAGIC) && Sha256::digest(content)[..CHECKSUM_BYTES] == *checksum;
    is_sound.then(|| bytes.slice(MAGIC.len()..end))
}

fn decode(profile: &Profile, content: Bytes) -> Option<HashMap<String, FolderFiles>> {
    let mut rest = &content[..];
    if take_text(&mut rest)? != profile.name {
        return None;
    }
    let mut content = content.slice_ref(rest);
    let mut folders = HashMap::new();
    while !content.is_empty() {
        let mut rest = &content[..];
        let path = take_text(&mut rest)?.to_owned();
        let count = take_u64(&mut rest)?;
        let (files, after) = FolderFiles::decode(&content.slice_ref(rest), count)?;
        folders.insert(path, files);
        content = after;
    }
    Some(folders)
}

fn put_u64(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(&value.to_le_bytes());
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    put_u64(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

fn put_time(out: &mut Vec<u8>, (seconds, nanoseconds): (i64, u32)) {
    put_u64(out, seconds.cast_unsigned());
    out.extend_from_slice(&nanoseconds.to_le_bytes());
}

fn put_file(out: &mut Vec<u8>, file: &CachedFile) {
    put_text(out, &file.name);
    let Stamp { size_bytes, mtime, ctime, inode, device } = file.stamp;
    [size_bytes, inode, device].into_iter().for_each(|number| put_u64(out, number));
    [mtime, ctime].into_iter().for_each(|time| put_time(out, time));
    put_u64(out, file.root.dag_size);
    out.push(file.root.form as u8);
    out.extend_from_slice(&file.root.digest);
}

fn take_array<const LENGTH: usize>(rest: &mut &[u8]) -> Option<[u8; LENGTH]> {
    let (taken, left) = rest.split_first_chunk()?;
    *rest = left;
    Some(*taken)
}

fn take_u64(rest: &mut &[u8]) -> Option<u64> {
    take_array(rest).map(u64::from_le_bytes)
}

fn take_bytes<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(take_u64(rest)?).ok()?;
    let (bytes, left) = rest.split_at_checked(length)?;
    *rest = left;
    Some(bytes)
}

fn take_text<'a>(rest: &mut &'a [u8]) -> Option<&'a str> {
    std::str::from_utf8(take_bytes(rest)?).ok()
}

fn take_time(rest: &mut &[u8]) -> Option<(i64, u32)> {
    Some((take_u64(rest)?.cast_signed(), u32::from_le_bytes(take_array(rest)?)))
}

fn take_file<'a>(rest: &mut &'a [u8]) -> Option<(&'a str, Stamp, Root)> {
    let name = take_text(rest)?;
    let (size_bytes, inode, device) = (take_u64(rest)?, take_u64(rest)?, take_u64(rest)?);
    let (mtime, ctime) = (take_time(rest)?, take_time(rest)?);
    let dag_size = take_u64(rest)?;
    let [form] = take_array(rest)?;
    let form = [CidForm::Raw, CidForm::DagPbV0, CidForm::DagPbV1].into_iter().find(|known| *known as u8 == form)?;
    let root = Root { form, digest: take_array(rest)?, dag_size };
    Some((name, Stamp { size_bytes, mtime, ctime, inode, device }, root))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dag::block::CODEC_RAW;
    use crate::dag::unixfs::Subtree;
    use crate::dag::{Block, Version};

    const PROFILE: Profile = Profile::UNIXFS_V1_2025;

    fn file(name: &str) -> CachedFile {
        let stamp =
            Stamp { size_bytes: 7, mtime: (-5, 1), ctime: (1_700_000_000, 999_999_999), inode: u64::MAX, device: 3 };
        let block = Block::seal(Version::V1, CODEC_RAW, Bytes::copy_from_slice(name.as_bytes())).unwrap();
        CachedFile { name: name.into(), stamp, root: Root::new(&Subtree { cid: *block.cid(), dag_size: 9 }).unwrap() }
    }

    fn example() -> StatCache {
        let mut cache = StatCache::new(&PROFILE);
        let seen = vec![
            (String::new(), Some(vec![file("a"), file("größe")])),
            ("empty".to_owned(), Some(vec![])),
            ("sub/sub".to_owned(), Some(vec![file("x")])),
        ];
        cache.update(&PROFILE, seen);
        assert!(cache.is_changed());
        cache
    }

    #[test]
    fn bytes_come_back() {
        let cache = example();
        let decoded = StatCache::decode(&PROFILE, &cache.encode().into());
        assert_eq!(decoded, StatCache { is_changed: false, ..cache.clone() });
        assert_eq!(decoded.encode(), cache.encode());
        assert_eq!(decoded.len(), 3);
        assert!(StatCache::decode(&Profile::KUBO_CIDV1, &cache.encode().into()).is_empty());
        assert_eq!(cache.files(&Profile::KUBO_CIDV1, "").len(), 0);
    }

    #[test]
    fn files_are_found_by_name() {
        let names: Vec<_> = (0..300).map(|number| format!("file{number}")).collect();
        let mut files: Vec<_> = names.iter().map(|name| file(name)).collect();
        files.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        let mut cache = StatCache::new(&PROFILE);
        cache.update(&PROFILE, vec![("sub".to_owned(), Some(files.clone()))]);
        let known = cache.files(&PROFILE, "sub");
        for name in &names {
            let (index, (stamp, root)) = known.find(name).unwrap();
            assert_eq!(known.file(index), files[index]);
            assert_eq!(CachedFile { name: name.as_str().into(), stamp, root }, files[index]);
        }
        for name in ["", "file", "file2999", "x"] {
            assert!(known.find(name).is_none() && cache.files(&PROFILE, "").find(name).is_none(), "{name}");
        }
    }

    #[test]
    fn damaged_bytes_are_an_empty_cache() {
        let bytes = example().encode();
        for length in 0..bytes.len() {
            assert!(StatCache::decode(&PROFILE, &Bytes::copy_from_slice(&bytes[..length])).is_empty(), "{length}");
        }
        for place in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[place] ^= 1;
            assert!(StatCache::decode(&PROFILE, &damaged.into()).is_empty(), "{place}");
        }
    }

    /// Also where the checksum fits, as that of another writer's mistake would.
    #[test]
    fn malformed_bytes_are_an_empty_cache() {
        let bytes = example().encode();
        let content = &bytes[..bytes.len() - CHECKSUM_BYTES];
        for place in MAGIC.len()..content.len() {
            let mut mutated = content.to_vec();
            mutated[place] ^= 0xff;
            let checksum = Sha256::digest(&mutated);
            mutated.extend_from_slice(&checksum[..CHECKSUM_BYTES]);
            // Must return; what does not matter.
            let _ = StatCache::decode(&PROFILE, &mutated.into());
        }
    }

    #[test]
    fn update_forgets_what_was_not_seen() {
        let mut cache = example();
        cache.update(&PROFILE, vec![(String::new(), None), ("empty".to_owned(), None), ("sub/sub".to_owned(), None)]);
        assert!(!cache.is_changed());
        assert_eq!(cache.len(), 3);
        cache.update(&PROFILE, vec![(String::new(), None)]);
        assert!(cache.is_changed());
        assert_eq!(cache.len(), 2);
        cache.update(&Profile::KUBO_CIDV1, vec![(String::new(), None)]);
        assert!(cache.is_empty());
    }
}
