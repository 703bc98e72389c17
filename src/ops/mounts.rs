//! Folders of this machine that a cell is given, and what may not be given.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::run::RunError;
use crate::grant::MountGrant;
use crate::vfs::{self, Directory, Follow, Mount, MountError, Namespace, Node};

/// Opens the folder of a mount. One that the cell may change must have nothing of the folders in `own`, which are ww's, nor
/// be in one of them: whoever could change those would decide what native code ww runs next.
pub(super) fn open(mount: &MountGrant, own: &[PathBuf]) -> Result<Mount, RunError> {
    let MountGrant { source, target, writable } = mount;
    let path = PathBuf::from(source.as_deref().unwrap_or_default());
    let failed = |source| RunError::MountSource { path: path.clone(), source };
    let directory = vfs::folder::open_mount(&path, *writable).map_err(failed)?;
    if *writable {
        for own in own {
            if overlap(&path, own).map_err(failed)? {
                return Err(RunError::MountOwn { path, own: own.clone() });
            }
        }
    }
    Ok(Mount { path: target.clone(), directory, links_may_leave: false })
}

/// Whether one folder is, or is in, the other, by whatever path or mount it is reached. The second need not exist yet.
fn overlap(folder: &Path, other: &Path) -> io::Result<bool> {
    let (folder, other) = (folder.canonicalize()?, canonical(other)?);
    Ok(is_within(&folder, &other)? || is_within(&other, &folder)?)
}

/// The path without links in it, as far as it exists.
fn canonical(path: &Path) -> io::Result<PathBuf> {
    let path = std::path::absolute(path)?;
    for existing in path.ancestors() {
        match existing.canonicalize() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            found => {
                let rest = path.strip_prefix(existing).unwrap_or(Path::new(""));
                return found.map(|found| found.join(rest));
            }
        }
    }
    Ok(path)
}

/// Whether one path is the other or below it, by whatever mount it is reached. Both are without links.
pub(crate) fn is_within(inner: &Path, outer: &Path) -> io::Result<bool> {
    let identity = |path: &Path| match fs::metadata(path) {
        Ok(metadata) => Ok(Some((metadata.dev(), metadata.ino()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    };
    let Some(outer) = identity(outer)? else { return Ok(false) };
    for above in inner.ancestors() {
        if identity(above)? == Some(outer) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Checks that an image has nothing but directories on the way to where something is to be mounted: what is mounted behind a
/// link of the image would hide the link and all that it leads to.
pub(super) async fn check_places(image: &Arc<dyn Directory>, mounts: &[Mount]) -> Result<(), RunError> {
    let namespace = Namespace::new(image.clone(), &[])?;
    for mount in mounts {
        let names = mount.path.trim_start_matches('/');
        let ends = names.match_indices('/').map(|(end, _)| end).chain([names.len()]);
        for end in ends.filter(|end| *end > 0) {
            let at = &names[..end];
            // A malformed path is found later.
            let Ok(target) = namespace.root().walk(at, Follow::Name).await else { break };
            let at = format!("/{at}");
            match target.node {
                Some(Node::Directory(_)) => {}
                None => break,
                Some(Node::Symlink(link)) => {
                    let target = link.target.clone();
                    return Err(MountError::Link { path: mount.path.clone(), at, target }.into());
                }
                Some(_) => return Err(MountError::NotFolder { path: mount.path.clone(), at }.into()),
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn folders_overlap_however_they_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().join(path);
        fs::create_dir_all(at("home/cache/ww")).unwrap();
        fs::create_dir_all(at("home/project")).unwrap();
        symlink("home", at("link")).unwrap();
        let check = |folder: &str, other: &str, expected: bool| {
            assert_eq!(overlap(&at(folder), &at(other)).unwrap(), expected, "{folder} {other}");
        };
        check("home", "home/cache/ww", true);
        check("home/cache/ww", "home/cache/ww", true);
        check("home/cache/ww", "home/cache", true);
        check("link", "home/cache/ww", true);
        check("home", "link/cache/ww", true);
        check("home/cache", "home/cache/not/yet", true);
        check("home/project", "home/cache/ww", false);
        check("home/project", "home/cache/not/yet", false);
        // A path that begins in the working folder, which here is that of the sources.
        assert!(!overlap(Path::new("src"), Path::new("not/yet")).unwrap());
        assert!(overlap(Path::new("src"), Path::new("src/not/yet")).unwrap());
    }
}
