//! What is in a new project.

use super::vendor;
use crate::wetfile::{self, GuestName, Language};

/// Which kind of guest a project begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Template {
    /// Rust, with the crate `ww-guest` beside it.
    Rust,
    /// A command of one's own, which compiles one file.
    Command,
    /// A language whose tool `ww` knows.
    Language(Language),
}

/// The file by which editors check the Wetfile.
const SCHEMA: &str = "wetfile.schema.json";

/// Names that are those of folders in a project: `ww run NAME` would mean the folder.
const FOLDERS: [&str; 4] = ["guests", "images", "target", "vendor"];

/// The same, names that a Rust package cannot have beside those that it is compiled with, and those that cargo gives to
/// folders of its own and refuses for a program.
const FOLDERS_AND_CRATES: [&str; 15] = [
    "guests",
    "images",
    "target",
    "vendor",
    "alloc",
    "core",
    "proc-macro",
    "std",
    "test",
    "ww-guest",
    "ww-schema",
    "build",
    "deps",
    "examples",
    "incremental",
];

/// How a command guest is compiled: with whatever makes a component, or a core module for WASI 0.1.
const COMMAND: &str = r#"build = ["rustc", "--edition=2024", "--target=wasm32-wasip2", "-Copt-level=s", "-Cstrip=debuginfo", "main.rs", "-o{out}"]
inputs = ["main.rs"]
"#;

/// Of JavaScript and Python.
const NOT_REPRODUCIBLE: &str = "# Its tool gives other bytes at each build.\nreproducible = false\n";

impl Template {
    /// Names that the guest cannot have.
    pub(super) fn reserved(self) -> &'static [&'static str] {
        match self {
            Self::Rust => &FOLDERS_AND_CRATES,
            Self::Command | Self::Language(_) => &FOLDERS,
        }
    }

    /// All files, as paths relative to the project's folder, and their texts.
    pub(super) fn files(self, name: &GuestName) -> Vec<(String, String)> {
        let mut files = vec![
            ("Wetfile.toml".to_owned(), self.wetfile(name)),
            (".gitignore".to_owned(), self.ignored()),
            ("README.md".to_owned(), self.readme(name)),
            (SCHEMA.to_owned(), wetfile::json_schema()),
        ];
        for (path, text) in self.sources() {
            files.push((format!("guests/{name}/{path}"), with_name(text, name)));
        }
        if self == Self::Rust {
            let copied = vendor::COPIED.iter().map(|(to, _, text)| (*to, *text));
            files.extend(copied.chain(vendor::MANIFESTS).map(|(path, text)| (path.to_owned(), text.to_owned())));
        }
        files
    }

    fn wetfile(self, name: &GuestName) -> String {
        let more = match self {
            Self::Command => COMMAND,
            Self::Language(Language::JavaScript | Language::Python) => NOT_REPRODUCIBLE,
            Self::Rust | Self::Language(_) => "",
        };
        format!(
            "#:schema ./{SCHEMA}\nwetfile = 1\n\n[project]\nname = \"{name}\"\nversion = \"0.1.0\"\n\n\
             [guest.{name}]\npath = \"guests/{name}\"\n{more}\n\
             [image.{name}]\nout = \"images/{name}\"\n[image.{name}.files]\n\"bin/main.wasm\" = {{ guest = \"{name}\" }}\n"
        )
    }

    /// What is made, to be kept out of git.
    fn ignored(self) -> String {
        let more = match self {
            Self::Language(Language::JavaScript) => "node_modules/\n",
            Self::Language(Language::Python) => ".venv/\n__pycache__/\n",
            _ => "",
        };
        format!("target/\n/images/\n{more}")
    }

    /// Three lines.
    fn readme(self, name: &GuestName) -> String {
        let what = match self {
            Self::Rust => "Rust, with the crates in `vendor`",
            Self::Command => "compiled by a command in `Wetfile.toml`",
            Self::Language(language) => language.name(),
        };
        format!(
            "`ww run {name}` builds the guest in `guests/{name}` ({what}) and runs it; `ww build` only builds it.\n\
             `ww doctor` tells which tools that needs and where they come from; `ww run {name} -- ARGS` passes arguments.\n\
             Commit `Wetfile.lock` and the locks of other tools, which the first build writes.\n"
        )
    }

    /// The guest's own files; `NAME` in them stands for its name. Those of languages are the examples of the repository.
    fn sources(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Rust => &[
                ("Cargo.toml", include_str!("templates/rust/manifest.toml")),
                ("src/main.rs", include_str!("templates/rust/main.rs")),
            ],
            Self::Command => &[("main.rs", include_str!("templates/command/main.rs"))],
            Self::Language(Language::C) => &[
                ("greeting.c", include_str!("../../../guests/languages/hello-c/greeting.c")),
                ("greeting.h", include_str!("../../../guests/languages/hello-c/greeting.h")),
                ("main.c", include_str!("../../../guests/languages/hello-c/main.c")),
            ],
            Self::Language(Language::Zig) => {
                &[("main.zig", include_str!("../../../guests/languages/hello-zig/main.zig"))]
            }
            Self::Language(Language::Go) => &[
                ("go.mod", include_str!("../../../guests/languages/hello-go/go.mod")),
                ("main.go", include_str!("../../../guests/languages/hello-go/main.go")),
            ],
            Self::Language(Language::JavaScript) => &[
                ("main.js", include_str!("../../../guests/languages/hello-js/main.js")),
                ("package.json", include_str!("../../../guests/languages/hello-js/package.json")),
            ],
            Self::Language(Language::Python) => {
                &[("app.py", include_str!("../../../guests/languages/hello-python/app.py"))]
            }
        }
    }
}

/// A text with the guest's name where a template has its own, or `NAME`.
fn with_name(text: &str, name: &GuestName) -> String {
    ["NAME", "hello-go", "hello-js"].iter().fold(text.to_owned(), |text, own| text.replace(own, name.as_str()))
}
