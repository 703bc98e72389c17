//! What lies outside of a project and has a say in what its guests become: compilers, other programs, and their settings.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use super::Variables;
use super::seen::Name;
use crate::folder::Stamp;
use crate::wetfile::lock::{Digest, Facts};

/// The files that were used, or would have been if they were there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tools {
    files: Vec<ToolFile>,
    /// Variables that say where such files lie, with the digests of their values.
    variables: Vec<(String, Option<Digest>)>,
}

/// A file outside of the project.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct ToolFile {
    /// What it was called as, if `PATH` gave it.
    called: Option<String>,
    path: Name,
    /// `None` if nothing was there.
    stamp: Option<Stamp>,
    /// The digest of its content. Of a compiler's own files there is none: they have an identity together.
    digest: Option<Digest>,
}

/// Whether tools are those that were used before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ToolsState {
    /// They are.
    Same,
    /// They are, but their stamps are others.
    Restamped(Arc<Tools>),
    /// This one is not, or it cannot be told.
    Changed(PathBuf),
}

impl Tools {
    /// Adds a program by the name that it is called by; whether it has changed is told by its content.
    pub(super) fn add_program(&mut self, called: &str, dir: &Path, environment: &Variables) -> io::Result<()> {
        let Some(path) = find_program(called, dir, environment) else { return Ok(()) };
        self.add(Some(called), &path, digest)
    }

    /// Adds a program, of which it is asked what it is when its stamp is another.
    pub(super) fn add_compiler(&mut self, called: &str, dir: &Path, environment: &Variables) -> io::Result<()> {
        find_program(called, dir, environment).map_or(Ok(()), |path| self.add(Some(called), &path, |_| Ok(None)))
    }

    /// Adds a program that is not there, and would be used if it were.
    pub(super) fn add_absent(&mut self, called: &str) {
        self.files.push(ToolFile {
            called: Some(called.to_owned()),
            path: Name::new(OsStr::new("")),
            stamp: None,
            digest: None,
        });
    }

    /// Whether a variable of the environment has a say in where it lies.
    pub(super) fn depends_on(&self, name: &str) -> bool {
        name == "PATH" || self.variables.iter().any(|(variable, _)| variable == name)
    }

    /// Adds a file that belongs to such a program, or that says which one it is; it need not be there.
    pub(super) fn add_part(&mut self, path: &Path) -> io::Result<()> {
        self.add(None, path, |_| Ok(None))
    }

    /// Adds a file whose content has a say; it need not be there.
    pub(super) fn add_settings(&mut self, path: &Path) -> io::Result<()> {
        // Of a file that is not there the digest is that of nothing, so that it is noticed when it comes.
        self.add(None, path, |path| Ok(Some(digest(path)?.unwrap_or(Digest::of(b"")))))
    }

    /// Adds a variable that says where such files lie.
    pub(super) fn add_variable(&mut self, name: &str, environment: &Variables) {
        self.variables.push((name.to_owned(), value_of(name, environment)));
    }

    /// Whether the files that are told by their content have the same, wherever they lie.
    pub(super) fn has_settings_of(&self, other: &Self) -> bool {
        let settings = |tools: &Self| tools.files.iter().filter_map(|file| file.digest).collect::<Vec<_>>();
        settings(self) == settings(other)
    }

    fn add(
        &mut self,
        called: Option<&str>,
        path: &Path,
        digest: impl FnOnce(&Path) -> io::Result<Option<Digest>>,
    ) -> io::Result<()> {
        // Before it is read: one that takes its place meanwhile has another.
        let stamp = Stamp::of_path(path)?;
        let digest = digest(path)?;
        let path = Name::new(path.as_os_str());
        self.files.push(ToolFile { called: called.map(str::to_owned), path, stamp, digest });
        Ok(())
    }

    /// What names all of it.
    pub(super) fn digest(&self) -> Digest {
        let mut facts = Facts::default();
        for file in &self.files {
            facts.add(file.called.as_deref().unwrap_or_default());
            facts.add(file.path.as_os_str().as_encoded_bytes());
            facts.add(format!("{:?} {:?}", file.stamp, file.digest));
        }
        for (name, value) in &self.variables {
            facts.add(name);
            facts.add(format!("{value:?}"));
        }
        facts.finish()
    }

    fn state(&self, dir: &Path, environment: &Variables, stamps: &Stamps) -> ToolsState {
        if let Some((name, _)) = self.variables.iter().find(|(name, value)| value_of(name, environment) != *value) {
            return ToolsState::Changed(PathBuf::from(format!("${name}")));
        }
        let mut present = self.clone();
        for file in &mut present.files {
            let path = PathBuf::from(file.path.as_os_str());
            if let Some(called) = &file.called {
                match stamps.program(called, dir, environment) {
                    None if path.as_os_str().is_empty() => continue,
                    Some(found) if found == path => {}
                    found => return ToolsState::Changed(found.unwrap_or(path)),
                }
            }
            let stamp = stamps.of(&path);
            if stamp == file.stamp {
                continue;
            }
            let is_same = file
                .digest
                .is_some_and(|before| digest(&path).is_ok_and(|digest| digest.unwrap_or(Digest::of(b"")) == before));
            if !is_same {
                return ToolsState::Changed(path);
            }
            file.stamp = stamp;
        }
        if present == *self { ToolsState::Same } else { ToolsState::Restamped(Arc::new(present)) }
    }
}

/// What was found out about tools, so that it is found out once for all guests.
#[derive(Default)]
pub(super) struct Toolbox {
    states: Mutex<HashMap<(Digest, PathBuf), ToolsState>>,
    stamps: Stamps,
}

impl Toolbox {
    /// Whether tools are those that were used before, in a folder.
    pub(super) fn state(&self, digest: &Digest, tools: &Tools, dir: &Path, environment: &Variables) -> ToolsState {
        // A program that is called by a relative path is another one in another folder.
        let mut called = tools.files.iter().filter_map(|file| file.called.as_ref());
        let is_relative = called.any(|called| called.contains('/')) || is_path_relative(environment);
        let key = (*digest, if is_relative { dir.to_owned() } else { PathBuf::new() });
        let mut states = self.states.lock().unwrap_or_else(PoisonError::into_inner);
        states.entry(key).or_insert_with(|| tools.state(dir, environment, &self.stamps)).clone()
    }
}

/// Stamps and programs that were looked up.
#[derive(Default)]
struct Stamps {
    stamps: Mutex<HashMap<PathBuf, Option<Stamp>>>,
    programs: Mutex<HashMap<String, Option<PathBuf>>>,
}

impl Stamps {
    fn of(&self, path: &Path) -> Option<Stamp> {
        let mut stamps = self.stamps.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(stamp) = stamps.get(path) {
            return *stamp;
        }
        let stamp = Stamp::of_path(path).ok().flatten();
        stamps.insert(path.to_owned(), stamp);
        stamp
    }

    fn program(&self, called: &str, dir: &Path, environment: &Variables) -> Option<PathBuf> {
        if called.contains('/') || is_path_relative(environment) {
            return find_program(called, dir, environment);
        }
        let mut programs = self.programs.lock().unwrap_or_else(PoisonError::into_inner);
        programs.entry(called.to_owned()).or_insert_with(|| find_program(called, dir, environment)).clone()
    }
}

/// Whether what `PATH` gives depends on the folder.
fn is_path_relative(environment: &Variables) -> bool {
    let folders = environment.get(OsStr::new("PATH"));
    folders.is_some_and(|folders| std::env::split_paths(folders).any(|folder| folder.is_relative()))
}

fn value_of(name: &str, environment: &Variables) -> Option<Digest> {
    environment.get(OsStr::new(name)).map(|value| Digest::of(value.as_encoded_bytes()))
}

/// Finds a program as the system does for a process in `dir` with this environment.
pub(super) fn find_program(called: &str, dir: &Path, environment: &Variables) -> Option<PathBuf> {
    let is_program = |path: &PathBuf| {
        path.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
    };
    if called.contains('/') {
        return Some(dir.join(called)).filter(is_program);
    }
    let folders = environment.get(OsStr::new("PATH"))?;
    std::env::split_paths(folders).map(|folder| dir.join(folder).join(called)).find(is_program)
}

/// The digest of a file's content; `None` if there is none.
fn digest(path: &Path) -> io::Result<Option<Digest>> {
    let file = match File::open(path) {
        Ok(file) if file.metadata()?.is_file() => file,
        Ok(_) => return Ok(None),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    Digest::of_reader(file).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn environment(path: &Path) -> Variables {
        [("PATH".into(), path.into())].into()
    }

    fn program(path: &Path, text: &str) {
        fs::write(path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    #[test]
    fn programs_are_told_by_their_content_and_place() {
        let dir = tempfile::tempdir().unwrap();
        let (first, second) = (dir.path().join("a"), dir.path().join("b"));
        [&first, &second].iter().for_each(|folder| fs::create_dir(folder).unwrap());
        program(&second.join("cc"), "one");
        let path: PathBuf = std::env::join_paths([&first, &second]).unwrap().into();
        let environment = environment(&path);
        let mut tools = Tools::default();
        tools.add_program("cc", dir.path(), &environment).unwrap();
        let settings = dir.path().join("settings");
        tools.add_settings(&settings).unwrap();
        let state = || Toolbox::default().state(&tools.digest(), &tools, dir.path(), &environment);
        assert_eq!(state(), ToolsState::Same);

        program(&second.join("cc"), "one");
        let ToolsState::Restamped(restamped) = state() else { panic!("{:?}", state()) };
        assert_eq!(
            Toolbox::default().state(&restamped.digest(), &restamped, dir.path(), &environment),
            ToolsState::Same
        );
        fs::write(&settings, "x").unwrap();
        assert_eq!(state(), ToolsState::Changed(settings.clone()));
        fs::remove_file(settings).unwrap();
        program(&first.join("cc"), "one");
        assert_eq!(state(), ToolsState::Changed(first.join("cc")));
        fs::set_permissions(first.join("cc"), fs::Permissions::from_mode(0o644)).unwrap();
        program(&second.join("cc"), "two");
        assert_eq!(state(), ToolsState::Changed(second.join("cc")));
    }

    #[test]
    fn a_compiler_is_told_by_its_stamp() {
        let dir = tempfile::tempdir().unwrap();
        program(&dir.path().join("rustc"), "one");
        let environment = environment(dir.path());
        let mut tools = Tools::default();
        tools.add_compiler("rustc", dir.path(), &environment).unwrap();
        tools.add_part(&dir.path().join("std")).unwrap();
        let state = || Toolbox::default().state(&tools.digest(), &tools, dir.path(), &environment);
        assert_eq!(state(), ToolsState::Same);
        fs::write(dir.path().join("std"), "").unwrap();
        assert_eq!(state(), ToolsState::Changed(dir.path().join("std")));
    }

    #[test]
    fn where_settings_lie_counts() {
        let environment = |home: Option<&str>| home.map(|home| ("HOME".into(), home.into())).into_iter().collect();
        let mut tools = Tools::default();
        tools.add_variable("HOME", &environment(Some("/a")));
        let state = |home| Toolbox::default().state(&tools.digest(), &tools, Path::new("/"), &environment(home));
        assert_eq!(state(Some("/a")), ToolsState::Same);
        assert_eq!(state(Some("/b")), ToolsState::Changed("$HOME".into()));
        assert_eq!(state(None), ToolsState::Changed("$HOME".into()));
    }
}
