//! `ww init`: a project that builds and runs at once.

mod template;
mod vendor;

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::escape;
use crate::wetfile::GuestName;

pub use template::Template;

/// Why no project was made. Nothing was written then.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// A name that means something else in a new project.
    #[error("a project of this kind cannot be called `{name}`, which is the name of something in it, or of its tools")]
    Reserved {
        /// The name.
        name: GuestName,
    },
    /// Something is there already.
    #[error("there is something already, and nothing was written:{}", listed(.paths))]
    Exists {
        /// All of it, sorted.
        paths: Vec<PathBuf>,
    },
    /// The file system refused.
    #[error("cannot {action} {}", escape::path(.path))]
    Io {
        /// What was being done.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The file system's answer.
        #[source]
        source: io::Error,
    },
}

fn listed(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| format!("\n  {}", escape::path(path))).collect()
}

/// Writes a project of one guest and one image, both called `name`, into a folder, which is made if it is not there.
///
/// Returns the files that were written, relative to the folder, sorted.
///
/// # Errors
///
/// [`InitError`]; what was there before is as it was, and nothing else is there.
pub fn init(dir: &Path, name: &GuestName, template: Template) -> Result<Vec<String>, InitError> {
    if template.reserved().contains(&name.as_str()) {
        return Err(InitError::Reserved { name: name.clone() });
    }
    let mut files = template.files(name);
    files.sort();
    let mut there: Vec<PathBuf> = files.iter().filter_map(|(path, _)| obstacle(dir, path)).collect();
    there.sort();
    there.dedup();
    if !there.is_empty() {
        return Err(InitError::Exists { paths: there });
    }
    let mut made = Made::default();
    for (path, text) in &files {
        made.file(&dir.join(path), text)?;
    }
    made.keep();
    Ok(files.into_iter().map(|(path, _)| path).collect())
}

/// What is in the way of a file: something at its path, or above it something that is no folder of the project's own.
fn obstacle(dir: &Path, path: &str) -> Option<PathBuf> {
    let mut at = dir.to_owned();
    let mut parts = path.split('/').peekable();
    while let Some(part) = parts.next() {
        at.push(part);
        match fs::symlink_metadata(&at) {
            Ok(metadata) if metadata.is_dir() && parts.peek().is_some() => {}
            Ok(_) => return Some(at),
            // Whatever else it is shows when it is written.
            Err(_) => return None,
        }
    }
    None
}

/// What was made, to be removed again unless all of it is kept.
#[derive(Default)]
struct Made {
    files: Vec<PathBuf>,
    /// Outer ones before inner ones.
    folders: Vec<PathBuf>,
}

impl Made {
    fn file(&mut self, path: &Path, text: &str) -> Result<(), InitError> {
        if let Some(folder) = path.parent() {
            self.folder(folder)?;
        }
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::AlreadyExists => InitError::Exists { paths: vec![path.to_owned()] },
            _ => InitError::Io { action: "write", path: path.to_owned(), source },
        };
        // Never one that has come meanwhile.
        let mut file = OpenOptions::new().write(true).create_new(true).open(path).map_err(failed)?;
        self.files.push(path.to_owned());
        file.write_all(text.as_bytes()).map_err(failed)
    }

    fn folder(&mut self, path: &Path) -> Result<(), InitError> {
        if path.as_os_str().is_empty() || path.is_dir() {
            return Ok(());
        }
        if let Some(above) = path.parent() {
            self.folder(above)?;
        }
        match fs::create_dir(path) {
            Ok(()) => self.folders.push(path.to_owned()),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
            Err(source) => return Err(InitError::Io { action: "make the folder", path: path.to_owned(), source }),
        }
        Ok(())
    }

    fn keep(mut self) {
        self.files.clear();
        self.folders.clear();
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        // What cannot be removed stays: there is an error already that is told.
        for file in self.files.iter().rev() {
            let _ = fs::remove_file(file);
        }
        for folder in self.folders.iter().rev() {
            let _ = fs::remove_dir(folder);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wetfile::{self, Language};

    fn name() -> GuestName {
        GuestName::new("hello-you").unwrap()
    }

    fn all() -> Vec<Template> {
        [Template::Rust, Template::Command].into_iter().chain(Language::ALL.map(Template::Language)).collect()
    }

    #[test]
    fn every_template_is_a_valid_project() {
        for template in all() {
            let dir = tempfile::tempdir().unwrap();
            let root = dir.path().join("a/b");
            let written = init(&root, &name(), template).unwrap();
            assert!(written.contains(&"Wetfile.toml".to_owned()), "{written:?}");
            let project = wetfile::load(&root).unwrap();
            assert!(project.guests.contains_key(&name()), "{template:?}");
            assert_eq!(project.images.len(), 1);
            assert_eq!(fs::read_to_string(root.join("README.md")).unwrap().lines().count(), 3);
            for path in &written {
                let text = fs::read_to_string(root.join(path)).unwrap();
                let is_ours = !path.starts_with("vendor/") && path != "wetfile.schema.json";
                assert!(!(is_ours && (text.contains("NAME") || text.contains("hello-go"))), "{path}");
            }
        }
    }

    #[test]
    fn nothing_is_overwritten_and_all_that_is_there_is_told() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("README.md"), "mine").unwrap();
        fs::write(dir.path().join("vendor"), "mine").unwrap();
        std::os::unix::fs::symlink("nowhere", dir.path().join("Wetfile.toml")).unwrap();
        let error = init(dir.path(), &name(), Template::Rust).unwrap_err();
        let InitError::Exists { paths } = error else { panic!("{error}") };
        let there = ["README.md", "Wetfile.toml", "vendor"].map(|path| dir.path().join(path));
        assert_eq!(paths, there);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3);
        assert_eq!(fs::read_to_string(&there[0]).unwrap(), "mine");
    }

    /// What fails half-way leaves nothing behind.
    #[test]
    fn it_is_all_or_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mut made = Made::default();
        made.file(&dir.path().join("a/b/c"), "x").unwrap();
        fs::write(dir.path().join("d"), "mine").unwrap();
        let error = made.file(&dir.path().join("d"), "x").unwrap_err();
        assert!(matches!(error, InitError::Exists { .. }));
        drop(made);
        assert!(!dir.path().join("a").exists());
        assert_eq!(fs::read_to_string(dir.path().join("d")).unwrap(), "mine");
        // A file where a folder is needed.
        let error = init(&dir.path().join("d"), &name(), Template::Command).unwrap_err();
        assert!(matches!(error, InitError::Io { .. }), "{error}");
    }

    #[test]
    fn some_names_are_taken() {
        let dir = tempfile::tempdir().unwrap();
        for (taken, template) in [
            ("vendor", Template::Rust),
            ("images", Template::Command),
            ("ww-guest", Template::Rust),
            ("deps", Template::Rust),
        ] {
            let error = init(dir.path(), &GuestName::new(taken).unwrap(), template).unwrap_err();
            assert!(matches!(error, InitError::Reserved { .. }), "{taken}");
        }
    }
}
