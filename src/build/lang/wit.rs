//! The interfaces of a program, for compilers that must be told them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The world in [`FILES`].
pub(super) const WORLD: &str = "program";

/// The folder of a guest that has interfaces of its own.
const OWN_FOLDER: &str = "wit";

/// Files by their place in a folder that a compiler is given: the world, and WASI 0.2.12 as wasmtime-wasi 48 has it.
const FILES: [(&str, &str); 7] = [
    ("program.wit", include_str!("wit/program.wit")),
    ("deps/cli.wit", include_str!("wit/deps/cli.wit")),
    ("deps/clocks.wit", include_str!("wit/deps/clocks.wit")),
    ("deps/filesystem.wit", include_str!("wit/deps/filesystem.wit")),
    ("deps/io.wit", include_str!("wit/deps/io.wit")),
    ("deps/random.wit", include_str!("wit/deps/random.wit")),
    ("deps/sockets.wit", include_str!("wit/deps/sockets.wit")),
];

/// The interfaces that a guest is compiled for.
pub(super) struct World {
    /// The folder that describes them.
    pub(super) folder: PathBuf,
    /// The name of the world; `None` for the only one of a guest's own.
    pub(super) name: Option<&'static str>,
}

/// The guest's own interfaces, if there is a folder `wit` in its folder; else those of a program, which are written below
/// `scratch`.
pub(super) fn of_guest(dir: &Path, scratch: &Path) -> io::Result<World> {
    let own = dir.join(OWN_FOLDER);
    if own.is_dir() {
        return Ok(World { folder: own, name: None });
    }
    let folder = scratch.join(OWN_FOLDER);
    fs::create_dir_all(folder.join("deps"))?;
    for (path, text) in FILES {
        fs::write(folder.join(path), text)?;
    }
    Ok(World { folder, name: Some(WORLD) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_may_have_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let (guest, scratch) = (dir.path().join("guest"), dir.path().join("scratch"));
        for folder in [&guest, &scratch] {
            fs::create_dir(folder).unwrap();
        }
        let world = of_guest(&guest, &scratch).unwrap();
        assert_eq!((world.folder, world.name), (scratch.join("wit"), Some(WORLD)));
        assert!(scratch.join("wit/deps/cli.wit").is_file());
        fs::create_dir(guest.join("wit")).unwrap();
        let world = of_guest(&guest, &scratch).unwrap();
        assert_eq!((world.folder, world.name), (guest.join("wit"), None));
    }
}
