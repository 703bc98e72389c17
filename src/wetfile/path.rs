//! Paths as a Wetfile writes them: relative, with `/`, and lexically inside what they are relative to.
//!
//! Nothing here looks at a disk; whether a path exists, or leads through a symlink, is the business of `check`.

use std::fmt;
use std::path::{Path, PathBuf};

/// Longest path in bytes, well under Linux's `PATH_MAX` of 4096 so that the project's own folder fits in front.
pub const PATH_BYTES_MAX: usize = 1024;

/// Longest component in bytes: `NAME_MAX` of the usual file systems.
pub const COMPONENT_BYTES_MAX: usize = 255;

/// Most components of a path. Trees of people are far shallower; deeper ones make every walk of them costly.
pub const COMPONENTS_MAX: usize = 64;

/// Why a text is not a path of a Wetfile. Each message fits after "the path".
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// No component is left, or the text is empty.
    #[error("names nothing")]
    Empty,
    /// It begins with `/`.
    #[error("is absolute")]
    Absolute,
    /// Its `..` lead out of the project.
    #[error("leaves the project")]
    Leaves,
    /// It has a `..`, which means nothing inside an image.
    #[error("has a `..`")]
    Parent,
    /// It has a character that would not show, such as NUL or a line feed.
    #[error("has a control character")]
    ControlCharacter,
    /// It, or a component of it, is longer than file systems take, or nested deeper than [`COMPONENTS_MAX`].
    #[error("is too long or too deep")]
    TooLong,
}

/// A normalised path relative to the project's root.
///
/// Holding one guarantees: UTF-8, components joined by single `/`, no `.` or `..`, no control characters, lexically
/// inside the project. The root itself is the empty path. It does not guarantee that anything exists there, nor that
/// no component is a symlink by the time it is used.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProjectPath(String);

impl ProjectPath {
    /// The project's root.
    pub fn root() -> Self {
        Self(String::new())
    }

    /// Normalises a path written relative to the root.
    ///
    /// # Errors
    ///
    /// [`PathError`] when the text is empty, absolute, leaves the project, has control characters or is too long.
    pub fn new(text: &str) -> Result<Self, PathError> {
        Self::root().join(text)
    }

    /// Normalises a path written relative to this one; it may use `..` as long as it stays in the project.
    ///
    /// # Errors
    ///
    /// As for [`ProjectPath::new`].
    pub fn join(&self, text: &str) -> Result<Self, PathError> {
        check_text(text)?;
        let mut components: Vec<&str> = self.components().collect();
        for component in text.split('/') {
            match component {
                "" | "." => {}
                ".." => {
                    components.pop().ok_or(PathError::Leaves)?;
                }
                name => components.push(name),
            }
        }
        joined(&components).map(Self)
    }

    /// The components joined by `/`; empty for the root.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is the project's root.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The components from the outermost on; none for the root.
    pub fn components(&self) -> impl Iterator<Item = &str> {
        self.0.split('/').filter(|component| !component.is_empty())
    }

    /// Every path from the outermost component down to this one; none for the root.
    pub fn prefixes(&self) -> impl Iterator<Item = ProjectPath> {
        let ends = self.0.match_indices('/').map(|(at, _)| at).chain((!self.is_root()).then_some(self.0.len()));
        ends.map(|end| ProjectPath(self.0[..end].to_owned()))
    }

    /// The project's root, and every path from there down to this one.
    pub fn from_root(&self) -> impl Iterator<Item = ProjectPath> {
        std::iter::once(Self::root()).chain(self.prefixes())
    }

    /// Whether this path is `other` or lies below it, by whole components.
    pub fn is_within(&self, other: &ProjectPath) -> bool {
        other.is_root() || self.0.strip_prefix(&other.0).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// The name of the marker that lies beside an image of this name. Names of this form, and those that begin with one
    /// and a hyphen, are `ww`'s own.
    pub fn marker_of(image_folder: &str) -> String {
        format!(".{image_folder}.ww")
    }

    /// The first component with a name that is `ww`'s own; see [`ProjectPath::marker_of`].
    pub fn reserved_component(&self) -> Option<&str> {
        self.components().find(|component| is_reserved(component))
    }

    /// The path on disk, below the given root.
    pub fn to_path(&self, root: &Path) -> PathBuf {
        if self.is_root() { root.to_owned() } else { root.join(&self.0) }
    }
}

/// Shows the root as `.`.
impl fmt::Display for ProjectPath {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(if self.is_root() { "." } else { &self.0 })
    }
}

/// A normalised path inside an image, such as `bin/main.wasm`.
///
/// Holding one guarantees: UTF-8, at least one component, joined by single `/`, no `.` or `..`, no control
/// characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ImagePath(String);

impl ImagePath {
    /// Normalises a path: repeated and trailing `/` and `.` components are dropped.
    ///
    /// # Errors
    ///
    /// [`PathError`] when nothing is left, or the text is absolute, has a `..`, control characters, or is too long.
    pub fn new(text: &str) -> Result<Self, PathError> {
        check_text(text)?;
        let components: Vec<&str> = text.split('/').filter(|component| !matches!(*component, "" | ".")).collect();
        if components.contains(&"..") {
            return Err(PathError::Parent);
        }
        if components.is_empty() {
            return Err(PathError::Empty);
        }
        joined(&components).map(Self)
    }

    /// The components joined by `/`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The components from the outermost on; at least one.
    pub fn components(&self) -> impl Iterator<Item = &str> {
        self.0.split('/')
    }

    /// The paths of the folders that this one lies in, outermost first: `a` and `a/b` for `a/b/c`.
    pub fn ancestors(&self) -> impl Iterator<Item = ImagePath> {
        self.0.match_indices('/').map(|(at, _)| ImagePath(self.0[..at].to_owned()))
    }
}

impl fmt::Display for ImagePath {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// Whether a name is `.X.ww`, or `.X.ww-` and more, for any `X`.
fn is_reserved(name: &str) -> bool {
    let is_marker = |name: &str| name.len() > ".X.ww".len() - 1 && name.starts_with('.') && name.ends_with(".ww");
    is_marker(name) || name.match_indices(".ww-").any(|(at, _)| is_marker(&name[..at + 3]))
}

fn check_text(text: &str) -> Result<(), PathError> {
    if text.is_empty() {
        return Err(PathError::Empty);
    }
    if text.starts_with('/') {
        return Err(PathError::Absolute);
    }
    if text.contains(char::is_control) {
        return Err(PathError::ControlCharacter);
    }
    if text.len() > PATH_BYTES_MAX {
        return Err(PathError::TooLong);
    }
    Ok(())
}

fn joined(components: &[&str]) -> Result<String, PathError> {
    let path = components.join("/");
    let fits = path.len() <= PATH_BYTES_MAX
        && components.len() <= COMPONENTS_MAX
        && components.iter().all(|component| component.len() <= COMPONENT_BYTES_MAX);
    if fits { Ok(path) } else { Err(PathError::TooLong) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_project(text: &str, expected: Result<&str, PathError>) {
        assert_eq!(ProjectPath::new(text).as_ref().map(ProjectPath::as_str), expected.as_ref().map(|path| *path));
    }

    #[track_caller]
    fn check_image(text: &str, expected: Result<&str, PathError>) {
        assert_eq!(ImagePath::new(text).as_ref().map(ImagePath::as_str), expected.as_ref().map(|path| *path));
    }

    #[test]
    fn project_paths_are_normalised() {
        check_project("guests/pid0", Ok("guests/pid0"));
        check_project("./a//b/./c/", Ok("a/b/c"));
        check_project("a/../b", Ok("b"));
        check_project(".", Ok(""));
        check_project("a/..", Ok(""));
        check_project("größe/名前 x", Ok("größe/名前 x"));
    }

    #[test]
    fn project_paths_that_are_refused() {
        check_project("", Err(PathError::Empty));
        check_project("/etc/passwd", Err(PathError::Absolute));
        check_project("//x", Err(PathError::Absolute));
        check_project("..", Err(PathError::Leaves));
        check_project("a/../../b", Err(PathError::Leaves));
        check_project("../project/a", Err(PathError::Leaves));
        check_project("a\0b", Err(PathError::ControlCharacter));
        check_project("a\nb", Err(PathError::ControlCharacter));
        check_project(&"x".repeat(COMPONENT_BYTES_MAX + 1), Err(PathError::TooLong));
        check_project(&"x/".repeat(COMPONENTS_MAX + 1), Err(PathError::TooLong));
        check_project(&"x/".repeat(PATH_BYTES_MAX), Err(PathError::TooLong));
    }

    #[test]
    fn join_may_go_up_inside_the_project() {
        let dir = ProjectPath::new("guests/hello").unwrap();
        assert_eq!(dir.join("../../shared/x.h").unwrap().as_str(), "shared/x.h");
        assert_eq!(dir.join(".").unwrap(), dir);
        assert_eq!(dir.join("../../../x"), Err(PathError::Leaves));
    }

    #[test]
    fn names_of_ours_are_known() {
        for name in [".x.ww", ".x.ww-work", ".x.ww-", ".a.ww-b.ww-c", "a/.x.ww/b", ".ww-.ww"] {
            assert!(ProjectPath::new(name).unwrap().reserved_component().is_some(), "{name}");
        }
        for name in [".ww", ".ww-work", "..ww", "x.ww", ".x.wwork", ".x", "a/b"] {
            assert!(ProjectPath::new(name).unwrap().reserved_component().is_none(), "{name}");
        }
    }

    #[test]
    fn within_is_by_components() {
        let path = |text| ProjectPath::new(text).unwrap();
        assert!(path("a/b").is_within(&path("a")));
        assert!(path("a").is_within(&path("a")));
        assert!(path("a").is_within(&ProjectPath::root()));
        assert!(!path("ab").is_within(&path("a")));
        assert!(!path("a").is_within(&path("a/b")));
        assert!(!ProjectPath::root().is_within(&path("a")));
    }

    #[test]
    fn prefixes_and_ancestors() {
        let prefixes = |text| -> Vec<String> {
            ProjectPath::new(text).unwrap().prefixes().map(|prefix| prefix.as_str().to_owned()).collect()
        };
        assert_eq!(prefixes("a/b/c"), ["a", "a/b", "a/b/c"]);
        assert!(prefixes(".").is_empty());
        let from_root =
            |text| ProjectPath::new(text).unwrap().from_root().map(|path| path.to_string()).collect::<Vec<_>>();
        assert_eq!(from_root("a/b"), [".", "a", "a/b"]);
        assert_eq!(from_root("."), ["."]);
        let ancestors: Vec<String> =
            ImagePath::new("a/b/c").unwrap().ancestors().map(|path| path.to_string()).collect();
        assert_eq!(ancestors, ["a", "a/b"]);
    }

    #[test]
    fn the_root_on_disk_has_no_trailing_slash() {
        assert_eq!(ProjectPath::root().to_path(Path::new("/p")).as_os_str(), "/p");
        assert_eq!(ProjectPath::new("a/b").unwrap().to_path(Path::new("/p")).as_os_str(), "/p/a/b");
        assert_eq!(ProjectPath::root().to_string(), ".");
    }

    #[test]
    fn image_paths() {
        check_image("bin/main.wasm", Ok("bin/main.wasm"));
        check_image("bin//x/", Ok("bin/x"));
        check_image("./etc", Ok("etc"));
        check_image("", Err(PathError::Empty));
        check_image(".", Err(PathError::Empty));
        check_image("/bin/main.wasm", Err(PathError::Absolute));
        check_image("a/../b", Err(PathError::Parent));
        check_image("a\tb", Err(PathError::ControlCharacter));
        check_image(&"x/".repeat(COMPONENTS_MAX + 1), Err(PathError::TooLong));
    }
}
