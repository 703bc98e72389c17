//! The tools of languages: where they are found, and what they say of themselves.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use crate::build::process::LINE_BYTES_MAX;
use crate::build::tools::Tools;
use crate::build::{self, BuildError, Call, Context, Variables};
use crate::wetfile::Guest;

/// Longest version that is taken from a tool's answer, in bytes. It goes into the lock.
const VERSION_BYTES_MAX: usize = 64;

/// A tool that a guest needs, as people know it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known {
    /// What it is called.
    pub(super) name: &'static str,
    /// The command that installs it, and what else can be done, to stand after "it was not found:".
    pub(super) install: &'static str,
    /// The command alone.
    pub(super) fix: &'static str,
}

impl Known {
    /// That it is not to be had.
    pub(super) fn missing(self) -> BuildError {
        BuildError::ToolMissing { tool: self.name, install: self.install }
    }
}

/// A program, with the arguments that stand before all others.
#[derive(Clone, Debug)]
pub(super) struct Tool {
    program: String,
    first: Vec<OsString>,
    parts: Vec<PathBuf>,
    /// Programs that would have been taken before it, and were not there.
    absent: Vec<String>,
    /// Programs that would have been taken before it, and could not answer.
    mute: Vec<String>,
}

impl Tool {
    /// A program that is looked for in `PATH`, or at a path.
    pub(super) fn new(program: impl Into<String>, first: &[&str]) -> Self {
        Self {
            program: program.into(),
            first: first.iter().map(OsString::from).collect(),
            parts: Vec::new(),
            absent: Vec::new(),
            mute: Vec::new(),
        }
    }

    /// The program, as it is called.
    pub(super) fn program(&self) -> &str {
        &self.program
    }

    /// The arguments that stand before all others.
    pub(super) fn first(&self) -> &[OsString] {
        &self.first
    }

    /// Adds the program, of which it is asked what it is when it has changed.
    pub(super) fn add_to(&self, tools: &mut Tools, dir: &Path, environment: &Variables) -> io::Result<()> {
        tools.add_compiler(&self.program, dir, environment)?;
        self.absent.iter().for_each(|program| tools.add_absent(program));
        self.mute.iter().try_for_each(|program| tools.add_compiler(program, dir, environment))?;
        self.parts.iter().try_for_each(|part| tools.add_part(part))
    }

    /// The same tool, of which this file is a part, such as a module of an interpreter.
    pub(super) fn with_part(mut self, part: PathBuf) -> Self {
        self.parts.push(part);
        self
    }

    /// Runs the tool in a guest's folder. What it says goes to the events.
    pub(super) fn run(
        &self,
        ctx: &Context<'_>,
        guest: &Guest,
        environment: &Variables,
        arguments: Vec<OsString>,
    ) -> Result<(), BuildError> {
        self.run_reading(ctx, guest, environment, arguments, &mut |_| false)
    }

    /// Asks the tool something, which it answers in lines on its standard output; nothing of it is shown.
    pub(super) fn ask(
        &self,
        ctx: &Context<'_>,
        guest: &Guest,
        environment: &Variables,
        arguments: &[&str],
    ) -> Result<Vec<String>, BuildError> {
        let quiet = Context { events: &|_| {}, ..*ctx };
        let mut lines = Vec::new();
        let arguments = arguments.iter().map(OsString::from).collect();
        self.run_reading(&quiet, guest, environment, arguments, &mut |line| {
            lines.push(line.to_owned());
            true
        })?;
        Ok(lines)
    }

    fn run_reading(
        &self,
        ctx: &Context<'_>,
        guest: &Guest,
        environment: &Variables,
        arguments: Vec<OsString>,
        stdout: &mut dyn FnMut(&str) -> bool,
    ) -> Result<(), BuildError> {
        let arguments: Vec<OsString> = self.first.iter().cloned().chain(arguments).collect();
        let dir = guest.dir.to_path(ctx.state.root());
        let (program, line_bytes_max) = (self.program.as_str(), LINE_BYTES_MAX);
        let call = Call { program, arguments: &arguments, dir: &dir, environment, line_bytes_max };
        build::run(ctx, &guest.name, &call, stdout)
    }
}

/// The first of some tools that is there, and its version: what stands last in the first line of its answer to `question`.
///
/// One that is there and cannot answer is passed over, such as a `python3` without the module that is asked for.
pub(super) fn first_of(
    ctx: &Context<'_>,
    guest: &Guest,
    environment: &Variables,
    known: Known,
    candidates: Vec<Tool>,
    question: &[&str],
) -> Result<(Tool, String), BuildError> {
    let (mut absent, mut mute) = (Vec::new(), Vec::new());
    for tool in candidates {
        match tool.ask(ctx, guest, environment, question) {
            Ok(lines) => match version(&lines) {
                Some(version) => return Ok((Tool { absent, mute, ..tool }, version)),
                None => {
                    return Err(BuildError::Answer { program: known.name, source: "it names no version".into() });
                }
            },
            Err(BuildError::ProgramMissing { .. } | BuildError::ProgramNotThere { .. }) => absent.push(tool.program),
            Err(BuildError::Failed { .. } | BuildError::InterpreterMissing { .. }) => mute.push(tool.program),
            Err(error) => return Err(error),
        }
    }
    Err(known.missing())
}

pub(super) fn version(lines: &[String]) -> Option<String> {
    let word = lines.first()?.split_whitespace().last()?;
    let is_version = word.len() <= VERSION_BYTES_MAX && word.bytes().all(|byte| byte.is_ascii_graphic());
    is_version.then(|| word.to_owned())
}

/// An argument of an option and a path, such as `-femit-bin=PATH`.
pub(super) fn joined(option: &str, path: &Path) -> OsString {
    let mut argument = OsString::from(option);
    argument.push(path);
    argument
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_the_last_word_of_the_first_line() {
        let check = |lines: &[&str], expected: Option<&str>| {
            let lines: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
            assert_eq!(version(&lines).as_deref(), expected);
        };
        check(&["0.15.1"], Some("0.15.1"));
        check(&["componentize-py 0.25.1", "more"], Some("0.25.1"));
        check(&[], None);
        check(&[" "], None);
        check(&["versión ü"], None);
        check(&[&"9".repeat(100)], None);
    }
}
