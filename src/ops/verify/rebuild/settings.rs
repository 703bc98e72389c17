//! In what the surroundings of two builds differ.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use crate::build::Variables;
use crate::wetfile::{EnvValue, Project};

/// Variables that are of no use to a build, or would have it share what others have compiled.
const REMOVED: [&str; 12] = [
    "WW_LOCKED",
    "WW_HOME",
    "GITHUB_ACTIONS",
    "GITHUB_WORKSPACE",
    "RUST_LOG",
    "XDG_CACHE_HOME",
    "XDG_CONFIG_HOME",
    "XDG_DATA_HOME",
    "GOCACHE",
    "GOPATH",
    "ZIG_GLOBAL_CACHE_DIR",
    "LANGUAGE",
];

/// The settings of one build.
#[derive(Debug)]
pub(super) struct Settings {
    /// Where everything of it lies, below the common folder.
    pub(super) folder: &'static str,
    /// The project and the home, below that.
    pub(super) project: &'static str,
    pub(super) home: &'static str,
    pub(super) umask: u32,
    pub(super) wants_other_user: bool,
    user: &'static str,
    time_zone: &'static str,
    locale: &'static str,
    /// Whether all processors are used, or one.
    is_parallel: bool,
}

/// Those of the two builds.
pub(super) const SETTINGS: [Settings; 2] = [
    Settings {
        folder: "a",
        project: "p",
        home: "h",
        umask: 0o022,
        wants_other_user: false,
        user: "builder",
        time_zone: "America/St_Johns",
        locale: "C",
        is_parallel: false,
    },
    Settings {
        folder: "another-folder-with-a-longer-name",
        project: "and/more/levels/to-the-project",
        home: "home-of-another-user",
        umask: 0o077,
        wants_other_user: true,
        user: "nobody",
        time_zone: "Asia/Kathmandu",
        locale: "de_DE.UTF-8",
        is_parallel: true,
    },
];

impl Settings {
    /// How many processors are used at a time; of many at least two.
    pub(super) fn jobs(&self) -> usize {
        let all = std::thread::available_parallelism().map_or(1, usize::from);
        if self.is_parallel { all.max(2) } else { 1 }
    }

    /// The call of a `ww` that builds these names in a folder.
    pub(super) fn call(&self, ww: &Path, root: &Path, names: &[&str]) -> Vec<OsString> {
        let script = "umask \"$1\" && shift && exec \"$@\"";
        let mut call: Vec<OsString> = ["/bin/sh", "-c", script, "sh"].map(OsString::from).into();
        call.push(format!("{:04o}", self.umask).into());
        call.extend([ww.into(), "-q".into(), "-C".into(), root.into()]);
        call.extend(["build", "--offline", "--jobs"].map(OsString::from));
        call.push(self.jobs().to_string().into());
        call.push("--".into());
        call.extend(names.iter().map(OsString::from));
        call
    }

    /// The environment of that, made of this process's own.
    ///
    /// What guests inherit is theirs to depend on, and stays.
    pub(super) fn variables(&self, parent: &Variables, home: &Path, temporary: &Path, project: &Project) -> Variables {
        let mut variables = parent.clone();
        REMOVED.into_iter().for_each(|name| drop(variables.remove(OsStr::new(name))));
        let mut set = |name: &str, value: &OsStr| drop(variables.insert(name.into(), value.into()));
        let old = Homes { variables: parent };
        for (name, folder) in [
            ("CARGO_HOME", old.folder("CARGO_HOME", ".cargo")),
            ("RUSTUP_HOME", old.folder("RUSTUP_HOME", ".rustup")),
            ("GOMODCACHE", old.go_modules()),
        ] {
            if let Some(folder) = folder {
                set(name, folder.as_os_str());
            }
        }
        set("HOME", home.as_os_str());
        set("WW_HOME", home.join("ww").as_os_str());
        set("TMPDIR", temporary.as_os_str());
        for (name, value) in [
            ("USER", self.user),
            ("LOGNAME", self.user),
            ("TZ", self.time_zone),
            ("LANG", self.locale),
            ("LC_ALL", self.locale),
            ("GOPROXY", "off"),
            ("RUSTUP_AUTO_INSTALL", "0"),
            // Nobody runs what is built.
            ("WW_CODE_CACHE_MAX", "0"),
            ("NO_COLOR", "1"),
        ] {
            set(name, OsStr::new(value));
        }
        let declared = project.guests.values().flat_map(|guest| &guest.env);
        for (name, _) in declared.filter(|(_, value)| **value == EnvValue::Inherit) {
            let name = OsStr::new(name);
            match parent.get(name) {
                Some(value) => drop(variables.insert(name.into(), value.clone())),
                None => drop(variables.remove(name)),
            }
        }
        variables
    }

    /// Has in a new home what people have installed into theirs, and what tools have downloaded: nothing that is compiled.
    pub(super) fn fill_home(&self, home: &Path, parent: &Variables) -> io::Result<()> {
        let old = Homes { variables: parent };
        let links = [
            (old.home().map(|home| home.join(".local")), home.join(".local")),
            (old.zig_packages(), home.join(".cache/zig/p")),
        ];
        for (from, to) in links {
            if let Some(from) = from.filter(|from| from.is_dir()) {
                std::fs::create_dir_all(to.parent().unwrap_or(home))?;
                symlink(from, to)?;
            }
        }
        Ok(())
    }
}

/// Where this user has what compilers need, by their own rules.
struct Homes<'a> {
    variables: &'a Variables,
}

impl Homes<'_> {
    fn variable(&self, name: &str) -> Option<PathBuf> {
        self.variables.get(OsStr::new(name)).filter(|value| !value.is_empty()).map(PathBuf::from)
    }

    fn home(&self) -> Option<PathBuf> {
        self.variable("HOME")
    }

    fn folder(&self, variable: &str, below_home: &str) -> Option<PathBuf> {
        self.variable(variable).or_else(|| Some(self.home()?.join(below_home)))
    }

    fn go_modules(&self) -> Option<PathBuf> {
        self.variable("GOMODCACHE").or_else(|| Some(self.folder("GOPATH", "go")?.join("pkg/mod")))
    }

    fn zig_packages(&self) -> Option<PathBuf> {
        let caches = || self.folder("XDG_CACHE_HOME", ".cache").map(|caches| caches.join("zig"));
        Some(self.variable("ZIG_GLOBAL_CACHE_DIR").or_else(caches)?.join("p"))
    }
}
