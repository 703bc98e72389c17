//! What an image asks for, told from what is in it.
//!
//! A cell reads the file through its own file system; here it is found in a list of what the image holds, links followed as
//! a cell follows them.

use super::plan::join;
use crate::grant::{Grant, Limit, LimitValue, Limits, REQUEST_BYTES_MAX, REQUEST_PATH, Request, RequestError};
use crate::vfs::LINKS_MAX;

/// Why what an image asks for cannot be told.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AskedError {
    /// Where the file should be is something else.
    #[error("it is not a file")]
    NotAFile,
    /// The file is malformed.
    #[error(transparent)]
    Malformed(#[from] RequestError),
}

/// What is at a path of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum At<'a> {
    Folder,
    File { size_bytes: u64 },
    Symlink(&'a str),
}

/// The path of the file in which an image asks, if it has one, without links in it. `at` tells what is at a path.
pub(super) fn locate<'a>(at: impl Fn(&str) -> Option<At<'a>>) -> Result<Option<String>, AskedError> {
    let backwards = |path: &str| path.rsplit('/').map(str::to_owned).collect::<Vec<_>>();
    let (mut pending, mut folder, mut links) = (backwards(REQUEST_PATH), String::new(), 0);
    let mut is_link = false;
    while let Some(name) = pending.pop() {
        match name.as_str() {
            "" | "." => continue,
            ".." => {
                folder.truncate(folder.rfind('/').unwrap_or(0));
                continue;
            }
            _ => {}
        }
        let path = join(&folder, &name);
        match at(&path) {
            None if is_link => return Err(RequestError::DanglingLink.into()),
            None => return Ok(None),
            Some(At::Folder) => folder = path,
            Some(At::File { size_bytes }) if size_bytes > REQUEST_BYTES_MAX => {
                return Err(RequestError::TooLong { size: size_bytes }.into());
            }
            Some(At::File { .. }) => return Ok(pending.is_empty().then_some(path)),
            Some(At::Symlink(target)) => {
                links += 1;
                // The file itself, not a folder on the way to it.
                is_link |= pending.is_empty();
                if links > LINKS_MAX {
                    return Err(AskedError::NotAFile);
                }
                if target.starts_with('/') {
                    folder.clear();
                }
                pending.extend(backwards(target));
            }
        }
    }
    Err(AskedError::NotAFile)
}

/// The flags of `ww run` that give an image all that it asks for beyond what every cell has, as arguments: each flag and, after
/// it, its value. Foreign text.
pub fn flags_of(request: &Request) -> Vec<String> {
    let (_, beyond) = request.limits.grant(&Limits::default());
    flags(&request.grants.iter().collect::<Vec<_>>(), &beyond)
}

/// The flags of `ww run` that give these.
pub(super) fn flags(grants: &[&Grant], limits: &[(Limit, LimitValue)]) -> Vec<String> {
    let grants = grants.iter().map(|grant| ["--grant".to_owned(), grant.to_give()]);
    let limits = limits.iter().map(|(limit, value)| ["--limit".to_owned(), format!("{limit}={value}")]);
    grants.chain(limits).flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where the file is in an image of these paths, each with a link's target, or a file where there is none; folders end
    /// in `/`.
    fn located(tree: &[(&str, Option<&'static str>)]) -> Result<Option<String>, AskedError> {
        locate(|wanted| {
            tree.iter().find_map(|(path, target)| match (path.strip_suffix('/'), target) {
                (Some(folder), _) if folder == wanted => Some(At::Folder),
                (None, Some(target)) if *path == wanted => Some(At::Symlink(target)),
                (None, None) if *path == wanted => Some(At::File { size_bytes: 9 }),
                _ => None,
            })
        })
    }

    #[test]
    fn the_file_is_found_as_a_cell_finds_it() {
        let check = |tree: &[(&str, Option<&'static str>)], expected: Option<&str>| {
            assert_eq!(located(tree).unwrap().as_deref(), expected, "{tree:?}");
        };
        check(&[("etc/", None), ("etc/cell.toml", None)], Some("etc/cell.toml"));
        check(&[("etc/", None)], None);
        check(&[("etc", None)], None);
        check(&[("etc/", None), ("etc/cell.toml", Some("../x")), ("x", None)], Some("x"));
        check(&[("etc/", None), ("etc/cell.toml", Some("/../../x")), ("x", None)], Some("x"));
        check(&[("etc", Some("a/b")), ("a/", None), ("a/b/", None), ("a/b/cell.toml", None)], Some("a/b/cell.toml"));
        check(&[("etc", Some("conf")), ("conf/", None)], None);
        let dangling = located(&[("etc/", None), ("etc/cell.toml", Some("gone"))]);
        assert_eq!(dangling, Err(RequestError::DanglingLink.into()));
    }

    #[test]
    fn what_is_no_file_is_said() {
        for tree in [
            [("etc/", None), ("etc/cell.toml/", None)],
            [("etc/", None), ("etc/cell.toml", Some("cell.toml"))],
            [("etc/", None), ("etc/cell.toml", Some("/"))],
        ] {
            assert_eq!(located(&tree), Err(AskedError::NotAFile), "{tree:?}");
        }
    }

    #[test]
    fn flags_give_what_is_beyond_the_default() {
        let text = "cell = 1\ngrants = [\"mount:/a\"]\n[limits]\nmemory = \"4GiB\"\nchildren = 1\ncpu-time = \"1s\"\n";
        let request = Request::parse(text).unwrap();
        assert_eq!(flags_of(&request), ["--grant", "mount:SRC:/a", "--limit", "memory=4GiB"]);
    }
}
