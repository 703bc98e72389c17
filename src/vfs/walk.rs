//! Walking paths.

use std::sync::Arc;

use super::namespace::Place;
use super::{Directory, Identity, Name, Node, VfsError};

/// The most bytes of a path, and of a symbolic link's target. Linux has the same bound (`PATH_MAX`).
pub const PATH_BYTES_MAX: usize = 4096;

/// The most symbolic links that are followed on the way of one path. Linux follows as many.
pub const LINKS_MAX: usize = 40;

/// The most directories one inside the other.
pub const DEPTH_MAX: usize = 1024;

/// After how many names on the way of one path others have their turn. The first links of a path can lead to so many that it
/// takes a tenth of a second to look all of them up; few paths have as many as this.
const TURN_NAMES: usize = 128;

/// Whether a symbolic link at the end of a path is followed. One on the way always is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Follow {
    /// It is.
    Last,
    /// The path means the link itself, unless it ends in `/`.
    NotLast,
    /// The path means the name, whatever it stands for: for what makes, moves and removes names.
    Name,
}

/// Where a path leads.
pub struct Target {
    /// The directory that has it, or would have it.
    pub place: Place,
    /// Its name there; `None` if the path means the directory itself, as `.` does.
    pub name: Option<String>,
    /// What is there, if anything is.
    pub node: Option<Node>,
    /// The path ends in `/` or `.`, so it can mean nothing but a directory.
    pub is_directory_meant: bool,
    /// The path ends in `.` after a name, so it means the directory itself and not its name.
    is_itself_meant: bool,
}

impl Target {
    /// What is there.
    ///
    /// # Errors
    /// If nothing is, or no directory where one is meant.
    pub fn existing(&self) -> Result<&Node, VfsError> {
        match &self.node {
            None => Err(VfsError::NoEntry),
            Some(node) if self.is_directory_meant && !matches!(node, Node::Directory(_)) => Err(VfsError::NotDirectory),
            Some(node) => Ok(node),
        }
    }

    /// The name of what is there or is to be there, and not a directory that is mounted or open.
    ///
    /// # Errors
    /// If the path has no name at its end, or something is mounted there.
    pub fn changeable_name(&self) -> Result<Name<'_>, VfsError> {
        if self.is_itself_meant {
            return Err(if self.node.is_some() { VfsError::Invalid } else { VfsError::NoEntry });
        }
        let name = Name::new(self.name.as_deref().ok_or(VfsError::Invalid)?)?;
        if self.place.is_mount_point(name) { Err(VfsError::Busy) } else { Ok(name) }
    }

    /// The place of the directory that is there.
    ///
    /// # Errors
    /// If it is too deep.
    pub fn enter(&self, directory: &Arc<dyn Directory>) -> Result<Place, VfsError> {
        match &self.name {
            Some(name) => self.place.enter(Name::new(name)?, directory.clone()),
            None => Ok(self.place.clone()),
        }
    }
}

/// A part of a path that is still to be walked.
struct Component {
    text: String,
    origin: Origin,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// The path itself.
    Path,
    /// A symbolic link, of a tree whose links may lead out of it or not.
    Link { may_leave: bool },
}

impl Place {
    /// Walks a path from here: a relative one, that does not lead above this place except by a symbolic link. Links
    /// lead where they would lead if the namespace were all there is: absolute ones begin at its root, and from there
    /// is no way up.
    ///
    /// # Errors
    /// If the path is malformed or leaves what it may reach, or if something on the way is missing or no directory. That
    /// nothing is at its end is no error.
    pub async fn walk(&self, path: &str, follow: Follow) -> Result<Target, VfsError> {
        check(path)?;
        let mut is_directory_meant = means_directory(path);
        let is_itself_meant = path.trim_end_matches('/').rsplit('/').next() == Some(".");
        let mut pending = components(path, Origin::Path);
        let mut place = self.clone();
        // How far below this place; `None` once a link has led out from under it.
        let mut depth = Some(0_usize);
        let mut links = 0;
        let mut names = 0_usize;
        while let Some(Component { text, origin }) = pending.pop() {
            names += 1;
            if names.is_multiple_of(TURN_NAMES) {
                tokio::task::yield_now().await;
            }
            if text == ".." {
                depth = match (depth, origin) {
                    (Some(0), Origin::Path) => return Err(VfsError::NotPermitted),
                    (Some(depth), _) => depth.checked_sub(1),
                    (None, _) => None,
                };
                if origin == (Origin::Link { may_leave: false }) && place.is_root_of_tree() {
                    return Err(VfsError::NotPermitted);
                }
                place = place.above();
                continue;
            }
            let name = Name::new(&text)?;
            let is_last = pending.is_empty();
            let node = match place.lookup(name).await {
                Ok(node) => node,
                Err(VfsError::NoEntry) if is_last => {
                    return Ok(Target { place, name: Some(text), node: None, is_directory_meant, is_itself_meant });
                }
                Err(error) => return Err(error),
            };
            match node {
                Node::Symlink(link)
                    if !is_last || follow == Follow::Last || (is_directory_meant && follow == Follow::NotLast) =>
                {
                    links += 1;
                    if links > LINKS_MAX {
                        return Err(VfsError::Loop);
                    }
                    let may_leave = place.links_may_leave();
                    let target = link.target.as_str();
                    if target.is_empty() {
                        return Err(VfsError::NoEntry);
                    }
                    if target.starts_with('/') {
                        if !may_leave {
                            return Err(VfsError::NotPermitted);
                        }
                        place = place.root();
                        depth = None;
                    }
                    if is_last {
                        is_directory_meant |= means_directory(target);
                    }
                    pending.extend(components(target, Origin::Link { may_leave }));
                }
                node if is_last => {
                    return Ok(Target {
                        place,
                        name: Some(text),
                        node: Some(node),
                        is_directory_meant,
                        is_itself_meant,
                    });
                }
                Node::Directory(directory) => {
                    place = place.enter(name, directory)?;
                    depth = depth.map(|depth| depth + 1);
                }
                _ => return Err(VfsError::NotDirectory),
            }
        }
        let node = Some(Node::Directory(place.directory().clone()));
        Ok(Target { place, name: None, node, is_directory_meant: true, is_itself_meant })
    }
}

impl Place {
    /// Which object a path leads to. Where it is the name of an entry, that is not looked at: who lists a directory asks
    /// this of each entry.
    ///
    /// # Errors
    /// As [`Place::walk`], or if there is nothing at its end.
    pub async fn identity(&self, path: &str, follow: Follow) -> Result<Identity, VfsError> {
        match Name::new(path) {
            Ok(name) if follow == Follow::NotLast && !self.is_mount_point(name) => {
                self.directory().identity_of(name).await
            }
            _ => Ok(self.walk(path, follow).await?.existing()?.identity()),
        }
    }
}

fn check(path: &str) -> Result<(), VfsError> {
    match path {
        "" => Err(VfsError::NoEntry),
        _ if path.len() > PATH_BYTES_MAX => Err(VfsError::NameTooLong),
        _ if path.starts_with('/') => Err(VfsError::NotPermitted),
        _ => Ok(()),
    }
}

fn means_directory(path: &str) -> bool {
    path.rsplit('/').next().is_none_or(|last| matches!(last, "" | "." | ".."))
}

/// The components of a path, the first at the end.
fn components(path: &str, origin: Origin) -> Vec<Component> {
    let texts = path.rsplit('/').filter(|text| !matches!(*text, "" | "."));
    texts.map(|text| Component { text: text.to_owned(), origin }).collect()
}
