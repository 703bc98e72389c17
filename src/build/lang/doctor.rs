//! `ww doctor`: which compilers are there, and which of them guests need. Nothing is compiled, fetched or written.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::tool::{Known, Tool, version};
use super::{go, javascript, python, rust, zig};
use crate::build::process::{self, LINE_BYTES_MAX, ProcessError, Stream};
use crate::build::tools::find_program;
use crate::build::{Cancel, TARGET, Variables, environment};
use crate::escape;
use crate::wetfile::{Guest, GuestName, Language, Project, ProjectPath, Recipe, Run};

/// The program that runs commands which are one text.
const SHELL: &str = "/bin/sh";

/// What [`ToolReport::tool`] is for a toolchain of Rust.
pub const RUST_TOOL: &str = "rust";

/// The oldest Go that compiles for WASI 0.1, as its second number.
const GO_MINOR_MIN: u32 = 21;

/// What is known of a tool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolReport {
    /// What it is called.
    pub tool: String,
    /// The folder of guests in which it was looked for, where another one may be found elsewhere.
    pub folder: Option<ProjectPath>,
    /// The guests that need it, sorted.
    pub needed_by: Vec<GuestName>,
    /// What it is, ready to be shown, such as `zig 0.15.1`; or what is the matter with it.
    pub found: Result<String, ToolProblem>,
}

/// Why a tool cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolProblem {
    /// A fragment, ready to be shown.
    pub text: String,
    /// What to do.
    pub fix: Option<Fix>,
}

/// A command that makes a tool usable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fix {
    /// The command line.
    pub command: &'static str,
    /// Whether it is to be called in the folder of the report.
    pub in_folder: bool,
}

/// What a program has answered.
enum Answer {
    Lines(Vec<String>),
    Missing,
    /// It has failed; what it said first on standard error.
    Failed(String),
    Cancelled,
}

/// How tools are asked.
struct Asker<'a> {
    parent: &'a Variables,
    cancel: &'a Cancel,
    project: Option<&'a Project>,
    here: &'a Path,
}

/// A tool that a guest may need, and where it is looked for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Wanted {
    /// In a folder, with the toolchain that the Wetfile asks for.
    Rust(Option<ProjectPath>, Option<String>),
    Zig,
    Go,
    JavaScript(Option<ProjectPath>),
    Python(Option<ProjectPath>),
    Shell,
    Program(String, ProjectPath),
}

/// Looks for the tools of all languages that `ww` knows, and for the programs of commands. Those that no guest of `project`
/// needs are looked for in `here`.
///
/// `parent` is the environment of this process. When `cancel` stops it, what is left is reported as not found.
pub fn tools(parent: &Variables, project: Option<&Project>, here: &Path, cancel: &Cancel) -> Vec<ToolReport> {
    let asker = Asker { parent, cancel, project, here };
    let mut wanted: BTreeMap<Wanted, Vec<&Guest>> = BTreeMap::new();
    for guest in project.into_iter().flat_map(|project| project.guests.values()) {
        wanted.entry(wanted_by(guest)).or_default().push(guest);
    }
    let any = |is: fn(&Wanted) -> bool| wanted.keys().any(is);
    let others = [
        (any(|wanted| matches!(wanted, Wanted::Rust(..))), Wanted::Rust(None, None)),
        (any(|wanted| matches!(wanted, Wanted::Zig)), Wanted::Zig),
        (any(|wanted| matches!(wanted, Wanted::Go)), Wanted::Go),
        (any(|wanted| matches!(wanted, Wanted::JavaScript(_))), Wanted::JavaScript(None)),
        (any(|wanted| matches!(wanted, Wanted::Python(_))), Wanted::Python(None)),
        (any(|wanted| matches!(wanted, Wanted::Shell)), Wanted::Shell),
    ];
    wanted.extend(others.into_iter().filter(|(is_there, _)| !is_there).map(|(_, other)| (other, Vec::new())));
    wanted.iter().map(|(wanted, guests)| asker.report(wanted, guests)).collect()
}

fn wanted_by(guest: &Guest) -> Wanted {
    match &guest.recipe {
        Recipe::Rust(options) => Wanted::Rust(Some(guest.dir.clone()), options.toolchain.clone()),
        Recipe::Command { run: Run::Shell(_), .. } => Wanted::Shell,
        Recipe::Command { run: Run::Argv(arguments), .. } => {
            Wanted::Program(arguments.first().cloned().unwrap_or_default(), guest.dir.clone())
        }
        Recipe::Language(recipe) => match recipe.language {
            Language::C | Language::Zig => Wanted::Zig,
            Language::Go => Wanted::Go,
            Language::JavaScript => Wanted::JavaScript(Some(guest.dir.clone())),
            Language::Python => Wanted::Python(Some(guest.dir.clone())),
        },
    }
}

impl Asker<'_> {
    fn report(&self, wanted: &Wanted, guests: &[&Guest]) -> ToolReport {
        let mut environment = self.environment(guests.first().copied());
        let (tool, folder, found) = match wanted {
            Wanted::Rust(folder, toolchain) => {
                if let Some(toolchain) = toolchain {
                    environment.insert(rust::TOOLCHAIN_VARIABLE.into(), toolchain.into());
                }
                (RUST_TOOL.to_owned(), folder.clone(), self.rust(folder.as_ref(), environment))
            }
            Wanted::Zig => {
                let found = self.first_of(zig::ZIG, zig::candidates(), "version", self.here, &environment);
                (zig::ZIG.name.to_owned(), None, found)
            }
            Wanted::Go => (go::GO.name.to_owned(), None, self.go(environment)),
            Wanted::JavaScript(folder) => {
                (javascript::NAME.to_owned(), folder.clone(), self.javascript(folder.as_ref(), &environment))
            }
            Wanted::Python(folder) => {
                let dir = self.dir(folder.as_ref());
                let candidates = python::candidates(&dir);
                let found = self.first_of(python::COMPONENTIZE_PY, candidates, "--version", &dir, &environment);
                (python::NAME.to_owned(), folder.clone(), found)
            }
            Wanted::Shell => (SHELL.to_owned(), None, self.program(SHELL, self.here, &environment)),
            Wanted::Program(program, folder) => {
                let dir = self.dir(Some(folder));
                (program.clone(), Some(folder.clone()), self.program(program, &dir, &environment))
            }
        };
        let mut needed_by: Vec<GuestName> = guests.iter().map(|guest| guest.name.clone()).collect();
        needed_by.sort();
        ToolReport { tool, folder, needed_by, found }
    }

    /// What the tool of a guest sees. Embedded guests are where they would be, built or not.
    fn environment(&self, guest: Option<&Guest>) -> Variables {
        let Some(guest) = guest else { return environment::of_any_guest(self.parent) };
        let artifacts = guest.embeds.iter().map(|name| (name.clone(), PathBuf::new())).collect();
        environment::of_guest(self.parent, guest, &artifacts)
    }

    fn dir(&self, folder: Option<&ProjectPath>) -> PathBuf {
        match (folder, self.project) {
            (Some(folder), Some(project)) => folder.to_path(&project.root),
            _ => self.here.to_owned(),
        }
    }

    fn rust(&self, folder: Option<&ProjectPath>, mut environment: Variables) -> Result<String, ToolProblem> {
        let dir = self.dir(folder);
        // A question is no reason to install anything.
        environment.insert("RUSTUP_AUTO_INSTALL".into(), "0".into());
        let ask = |program: &str, arguments: &[&str]| {
            let install = Fix { command: "curl -sSf https://sh.rustup.rs | sh", in_folder: false };
            let repair = Fix { command: "rustup toolchain install", in_folder: true };
            self.lines(program, arguments, &dir, &environment, install, Some(repair))
        };
        let rustc = ask("rustc", &["--version"])?;
        let cargo = ask("cargo", &["--version"])?;
        let libraries = ask("rustc", &["--target", TARGET, "--print=target-libdir"])?;
        let has_target = libraries
            .first()
            .is_some_and(|folder| fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some()));
        let said = |lines: &[String]| shown(lines.first().map_or("", String::as_str));
        if !has_target {
            let text = format!("{} has no target {TARGET}", said(&rustc));
            let fix = Fix { command: "rustup target add wasm32-wasip2", in_folder: true };
            return Err(ToolProblem { text, fix: Some(fix) });
        }
        Ok(format!("{}, {}, {TARGET}", said(&rustc), said(&cargo)))
    }

    fn go(&self, mut environment: Variables) -> Result<String, ToolProblem> {
        let fix = Fix { command: go::GO.fix, in_folder: false };
        // Neither another one that would have to be fetched first, nor that which a module in this folder asks for.
        environment.insert("GOTOOLCHAIN".into(), "local".into());
        environment.insert("GOFLAGS".into(), OsString::new());
        environment.insert("GOWORK".into(), "off".into());
        let lines = self.lines("go", &["env", "GOVERSION"], Path::new("/"), &environment, fix, Some(fix))?;
        let version = lines.first().and_then(|line| line.strip_prefix("go")).unwrap_or_default();
        let mut numbers = version.split(|character: char| !character.is_ascii_digit()).map(str::parse::<u32>);
        match (numbers.next(), numbers.next()) {
            (Some(Ok(1)), Some(Ok(minor))) if minor < GO_MINOR_MIN => {
                let text = format!("go {} is too old: 1.{GO_MINOR_MIN} or newer is needed", shown(version));
                Err(ToolProblem { text, fix: Some(fix) })
            }
            (Some(Ok(_)), Some(Ok(_))) => Ok(format!("go {}", shown(version))),
            _ => Err(ToolProblem { text: "it names no version".to_owned(), fix: Some(fix) }),
        }
    }

    fn javascript(&self, folder: Option<&ProjectPath>, environment: &Variables) -> Result<String, ToolProblem> {
        let dir = self.dir(folder);
        let root = ProjectPath::root();
        let (top, folder) =
            self.project.map_or((self.here, &root), |project| (project.root.as_path(), folder.unwrap_or(&root)));
        let node = Fix { command: "apt install nodejs npm", in_folder: false };
        let node = self.lines("node", &["--version"], &dir, environment, node, Some(node));
        let tool = javascript::COMPONENTIZE_JS;
        let found = self.first_of(tool, javascript::candidates(top, folder), "--version", &dir, environment)?;
        Ok(format!("{found}, node {}", shown(node?.first().map_or("", String::as_str))))
    }

    /// The first that answers.
    fn first_of(
        &self,
        known: Known,
        candidates: Vec<Tool>,
        question: &str,
        dir: &Path,
        environment: &Variables,
    ) -> Result<String, ToolProblem> {
        let mut problem = "not found".to_owned();
        for tool in candidates {
            let mut arguments: Vec<&OsStr> = tool.first().iter().map(OsString::as_os_str).collect();
            arguments.push(OsStr::new(question));
            match self.ask(tool.program(), &arguments, dir, environment) {
                Answer::Lines(lines) => match version(&lines) {
                    Some(version) => return Ok(format!("{} {}", known.name, shown(&version))),
                    None => problem = "it names no version".to_owned(),
                },
                // Others that may do instead, such as a Python without the module, are not what is missing.
                Answer::Failed(text) if tool.first().is_empty() => problem = text,
                Answer::Failed(_) | Answer::Missing => {}
                Answer::Cancelled => break,
            }
        }
        let in_folder = known.name == javascript::NAME;
        Err(ToolProblem { text: problem, fix: Some(Fix { command: known.fix, in_folder }) })
    }

    fn program(&self, program: &str, dir: &Path, environment: &Variables) -> Result<String, ToolProblem> {
        match find_program(program, dir, environment) {
            Some(path) => Ok(escape::path(&path)),
            None => Err(ToolProblem { text: "not found in a folder of PATH".to_owned(), fix: None }),
        }
    }

    fn lines(
        &self,
        program: &str,
        arguments: &[&str],
        dir: &Path,
        environment: &Variables,
        install: Fix,
        repair: Option<Fix>,
    ) -> Result<Vec<String>, ToolProblem> {
        let arguments: Vec<&OsStr> = arguments.iter().map(OsStr::new).collect();
        match self.ask(program, &arguments, dir, environment) {
            Answer::Lines(lines) => Ok(lines),
            Answer::Missing | Answer::Cancelled => {
                Err(ToolProblem { text: format!("`{program}` was not found"), fix: Some(install) })
            }
            Answer::Failed(text) => Err(ToolProblem { text: format!("`{program}` fails: {text}"), fix: repair }),
        }
    }

    fn ask(&self, program: &str, arguments: &[&OsStr], dir: &Path, environment: &Variables) -> Answer {
        let mut command = Command::new(program);
        command.args(arguments).current_dir(dir).env_clear().envs(environment);
        let (mut lines, mut said) = (Vec::new(), None);
        let status = process::run(&mut command, self.cancel, LINE_BYTES_MAX, &mut |stream, line| match stream {
            // The answer is in the first.
            Stream::Stdout if lines.len() < 2 => lines.push(line.to_owned()),
            Stream::Stderr if said.is_none() && !line.trim().is_empty() => said = Some(shown(line)),
            Stream::Stdout | Stream::Stderr => {}
        });
        match status {
            Ok(status) if status.success() => Answer::Lines(lines),
            Ok(status) => Answer::Failed(said.unwrap_or_else(|| status.to_string())),
            Err(ProcessError::Cancelled) => Answer::Cancelled,
            Err(ProcessError::Start(error)) if error.kind() == io::ErrorKind::NotFound => Answer::Missing,
            Err(ProcessError::Start(error) | ProcessError::Wait(error)) => Answer::Failed(error.to_string()),
        }
    }
}

/// What a program says, in a length that a line has room for.
fn shown(text: &str) -> String {
    escape::short(text.trim())
}
