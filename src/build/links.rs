//! Where symlinks lead to, step by step.

use std::collections::{BTreeSet, VecDeque};
use std::ffi::OsString;
use std::fs;
use std::path::{Component, Path, PathBuf};

/// How many symlinks are followed from one on: as many as Linux follows (path_resolution(7)).
const LINKS_MAX: usize = 40;

/// Adds the folders of the project at `project` in which something decides where `link` leads: each in which a symlink on the
/// way lies, and that of what is there in the end, or the last on the way where there is nothing.
///
/// `link` and the folders are relative to the project's root, which has no symlink in it.
pub(super) fn follow(project: &Path, link: &Path, folders: &mut BTreeSet<PathBuf>) {
    let mut add = |folder: &Path| {
        if let Ok(below) = folder.strip_prefix(project) {
            folders.insert(below.to_owned());
        }
    };
    let end = walk(project, link, &mut |link| link.parent().into_iter().for_each(&mut add));
    end.iter().for_each(|folder| add(folder));
}

/// Tells each symlink on the way from the root of a project to `path`, which is relative to it. Returns the folder of what is
/// there in the end, or the last on the way where there is nothing; none where there are too many symlinks.
pub(super) fn walk(project: &Path, path: &Path, at_link: &mut dyn FnMut(&Path)) -> Option<PathBuf> {
    let mut pending: VecDeque<OsString> = components(path).collect();
    // Nothing of its path is a symlink, at each step.
    let mut folder = project.to_owned();
    let mut links = 0;
    while let Some(name) = pending.pop_front() {
        if name == ".." {
            folder.pop();
            continue;
        }
        let path = folder.join(&name);
        let Ok(metadata) = path.symlink_metadata() else { break };
        if !metadata.is_symlink() {
            if pending.is_empty() || !metadata.is_dir() {
                break;
            }
            folder = path;
            continue;
        }
        at_link(&path);
        links += 1;
        let target = fs::read_link(&path).ok().filter(|_| links <= LINKS_MAX)?;
        if target.is_absolute() {
            folder = PathBuf::from("/");
        }
        components(&target).collect::<Vec<_>>().into_iter().rev().for_each(|name| pending.push_front(name));
    }
    Some(folder)
}

/// The names in a path, `..` among them.
fn components(path: &Path) -> impl Iterator<Item = OsString> {
    let names = path.components().filter(|component| matches!(component, Component::Normal(_) | Component::ParentDir));
    names.map(|component| component.as_os_str().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn each_step_counts() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap().join("p");
        for folder in ["a", "b/real", "c", "d"] {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        fs::write(root.join("b/real/file"), "").unwrap();
        let check = |link: &str, target: &Path, expected: &[&str]| {
            symlink(target, root.join(link)).unwrap();
            let mut folders = BTreeSet::new();
            follow(&root, Path::new(link), &mut folders);
            assert_eq!(folders, expected.iter().map(PathBuf::from).collect(), "{link}");
        };
        check("a/file", Path::new("../b/real/file"), &["a", "b/real"]);
        check("c/folder", Path::new("../b/real/"), &["b", "c"]);
        check("d/through", Path::new("../c/folder/file"), &["b/real", "c", "d"]);
        check("d/chain", Path::new("through"), &["b/real", "c", "d"]);
        check("d/absolute", &root.join("b/real/file"), &["b/real", "d"]);
        check("d/nothing", Path::new("../b/gone/file"), &["b", "d"]);
        check("d/outside", dir.path(), &["d"]);
        check("d/loop", Path::new("loop"), &["d"]);
    }
}
