//! `ww doctor`.

use std::io;
use std::path::Path;
use std::time::Duration;

use clap::Args;
use rustix::fs::{Access, access, statvfs};
use serde_json::{Value, json};

use super::run::DEFAULT_PORT;
use crate::build::{self, Cancel, ToolReport};
use crate::cli::cancel::CancelOnSignal;
use crate::cli::error::{self, Failure};
use crate::cli::kubo::{Kubo, KuboArgs};
use crate::cli::{env, exit_code, meter, project, shell, ui};
use crate::escape;
use crate::swarm;
use crate::wetfile::lock::LOCK_FILE_NAME;
use crate::wetfile::{self, Project};

/// How long a Kubo node on this machine may take to say its version, which it knows by heart.
const KUBO_PATIENCE: Duration = Duration::from_secs(5);

/// Free space below which it is warned, in bytes: the first build of a Rust guest takes a few hundred megabytes.
const FREE_BYTES_MIN: u64 = 1 << 30;

/// Tell what is missing here, and how to get it
///
/// Looks at the Wetfile that is found from here and its lock, at the compilers of all languages that ww knows, at the folders
/// that ww writes to, the port, the Kubo node of this user and the terminal: one line for each. What the Wetfile needs and
/// is not there is an error, and then the exit code is 1; what else is missing is a warning. Nothing is written, built or fetched.
#[derive(Debug, Args)]
pub(in crate::cli) struct DoctorArgs {
    /// Print what was found as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Ok,
    Warning,
    Error,
}

impl State {
    fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// One thing that was looked at.
struct Finding {
    state: State,
    /// What was looked at.
    subject: String,
    /// What was found.
    text: String,
    /// A command line that changes it.
    fix: Option<String>,
    /// The guests that need it.
    needed_by: Vec<String>,
}

impl Finding {
    fn new(state: State, subject: &str, text: impl Into<String>) -> Self {
        Self { state, subject: subject.to_owned(), text: text.into(), fix: None, needed_by: Vec::new() }
    }

    fn with_fix(self, fix: impl Into<String>) -> Self {
        Self { fix: Some(fix.into()), ..self }
    }

    fn line(&self) -> String {
        let needed = match self.needed_by.as_slice() {
            guests if self.state != State::Error || guests.is_empty() => String::new(),
            guests => format!("; needed by {}", guests.join(", ")),
        };
        let fix = self.fix.as_ref().map(|fix| format!("; fix: {fix}")).unwrap_or_default();
        format!("{:<7} {}: {}{needed}{fix}", self.state.name(), self.subject, self.text)
    }

    fn as_json(&self) -> Value {
        json!({
            "state": self.state.name(),
            "subject": self.subject,
            "text": self.text,
            "fix": self.fix,
            "needed_by": self.needed_by,
        })
    }
}

/// Looks, and tells.
pub(in crate::cli) fn run(args: &DoctorArgs) -> Result<u8, Failure> {
    let failed = |error: io::Error| Failure::new(exit_code::FAILURE, &error);
    let cancel = Cancel::default();
    let signals = CancelOnSignal::watch(&cancel).map_err(failed)?;
    let here = env::working_directory().map_err(failed)?;
    let (project, mut findings) = project_here(&here);
    let tools = build::probe_tools(&env::variables(), project.as_ref(), &here, &cancel);
    let findings_of_tools = tools.iter().map(|report| of_tool(report, project.as_ref(), &here));
    findings.extend(merged(tools.iter().zip(findings_of_tools)));
    findings.extend(folders(project.as_ref()));
    findings.push(port());
    findings.push(kubo()?);
    findings.push(terminal());
    signals.result(Ok(()))?;
    if args.json {
        let found: Vec<_> = findings.iter().map(Finding::as_json).collect();
        ui::result_line(&escape::json(&json!({ "findings": found }).to_string())).map_err(failed)?;
    } else {
        for finding in &findings {
            ui::result_line(&finding.line()).map_err(failed)?;
        }
    }
    let is_bad = findings.iter().any(|finding| finding.state == State::Error);
    Ok(if is_bad { exit_code::FAILURE } else { exit_code::SUCCESS })
}

/// The project, if there is one without errors, and what there is to say of its two files.
fn project_here(here: &Path) -> (Option<Project>, Vec<Finding>) {
    let subject = wetfile::FILE_NAME;
    let Some(root) = project::root_here() else {
        let text = "there is none here or in a folder above";
        return (None, vec![Finding::new(State::Warning, subject, text).with_fix("ww init")]);
    };
    let (project, finding) = match wetfile::load(&root) {
        Ok(project) => {
            let plural = |count: usize, what: &str| format!("{count} {what}{}", if count == 1 { "" } else { "s" });
            let text = format!(
                "{} in {}",
                [plural(project.guests.len(), "guest"), plural(project.images.len(), "image")].join(" and "),
                project::shown(&root, here)
            );
            (Some(project), Finding::new(State::Ok, subject, text))
        }
        Err(error) => {
            let text = error::chain(&error).join(": ");
            (None, Finding::new(State::Error, subject, text).with_fix("ww build --plan"))
        }
    };
    let lock = match wetfile::lock::load(&root) {
        Ok(Some(_)) => Finding::new(State::Ok, LOCK_FILE_NAME, "it is there"),
        Ok(None) => Finding::new(State::Warning, LOCK_FILE_NAME, "there is none yet").with_fix("ww build"),
        Err(error) => Finding::new(State::Error, LOCK_FILE_NAME, error::chain(&error).join(": "))
            .with_fix(format!("rm {LOCK_FILE_NAME} && ww build")),
    };
    (project, vec![finding, lock])
}

fn of_tool(report: &ToolReport, project: Option<&Project>, here: &Path) -> Finding {
    let folder = report.folder.as_ref().zip(project).map(|(folder, project)| folder.to_path(&project.root));
    let place = folder.as_ref().map(|folder| format!(" in {}", project::shown(folder, here))).unwrap_or_default();
    let subject = format!("{}{place}", escape::text(&report.tool));
    let mut finding = match &report.found {
        Ok(text) => Finding::new(State::Ok, &subject, text.clone()),
        Err(problem) if report.needed_by.is_empty() => {
            Finding::new(State::Warning, &subject, format!("{}; no guest here needs it", problem.text))
        }
        Err(problem) => Finding::new(State::Error, &subject, problem.text.clone()),
    };
    let fix = report.found.as_ref().err().and_then(|problem| problem.fix);
    finding.fix = fix.map(|fix| match &folder {
        Some(folder) if fix.in_folder && folder != here => {
            let folder = folder.strip_prefix(here).unwrap_or(folder);
            format!("cd {} && {}", shell::arguments([folder.to_string_lossy().as_ref()]), fix.command)
        }
        _ => fix.command.to_owned(),
    });
    finding.needed_by = report.needed_by.iter().map(ToString::to_string).collect();
    finding
}

/// One finding for all folders in which the same was found of a Rust toolchain.
fn merged<'a>(found: impl Iterator<Item = (&'a ToolReport, Finding)>) -> Vec<Finding> {
    let mut merged: Vec<Finding> = Vec::new();
    // Of each of those that stand for several folders: where it is, and in how many.
    let mut rust: Vec<(usize, &ToolReport, usize)> = Vec::new();
    for (report, finding) in found {
        let is_rust = report.tool == build::RUST_TOOL && report.folder.is_some();
        let same = rust.iter_mut().find(|(_, first, _)| is_rust && first.found == report.found);
        match same {
            Some((at, _, folders)) => {
                *folders += 1;
                let first = &mut merged[*at];
                first.subject = format!("{} in {folders} folders", build::RUST_TOOL);
                first.needed_by.extend(finding.needed_by);
                first.needed_by.sort();
            }
            None => {
                if is_rust {
                    rust.push((merged.len(), report, 1));
                }
                merged.push(finding);
            }
        }
    }
    merged
}

/// Where `ww` writes.
fn folders(project: Option<&Project>) -> Vec<Finding> {
    let place = |subject: &str, folder: Option<std::path::PathBuf>| match folder {
        Some(folder) => of_folder(subject, &folder),
        None => Finding::new(State::Error, subject, "there is no place for it, as HOME is not set")
            .with_fix("export WW_HOME=FOLDER"),
    };
    let mut findings = vec![place("state", env::state_folder()), place("compiled code", env::code_cache_folder())];
    findings.extend(project.map(|project| of_folder("project", &project.root)));
    findings
}

/// Whether a folder, or the nearest above it that is there, can be written to, and how much space is left in it.
fn of_folder(subject: &str, folder: &Path) -> Finding {
    let shown = escape::path(folder);
    let nearest = folder.ancestors().find(|above| above.exists()).unwrap_or(folder);
    if !nearest.is_dir() || access(nearest, Access::WRITE_OK | Access::EXEC_OK).is_err() {
        let text = format!("{shown} cannot be written to");
        let fix = match subject {
            "project" => format!("sudo chown -R \"$USER\" {}", shell::arguments([nearest.to_string_lossy().as_ref()])),
            _ => "export WW_HOME=FOLDER".to_owned(),
        };
        return Finding::new(State::Error, subject, text).with_fix(fix);
    }
    let Ok(space) = statvfs(nearest) else { return Finding::new(State::Ok, subject, shown) };
    let free = space.f_bavail.saturating_mul(space.f_frsize);
    let text = format!("{shown}, {} free", meter::size(free as f64));
    match free < FREE_BYTES_MIN {
        true => Finding::new(State::Warning, subject, text).with_fix("ww gc"),
        false => Finding::new(State::Ok, subject, text),
    }
}

fn port() -> Finding {
    let subject = format!("port {DEFAULT_PORT}");
    match swarm::check_port(DEFAULT_PORT) {
        Ok(()) => Finding::new(State::Ok, &subject, "it is free"),
        Err(error) if error.is_port_busy() => {
            let text = "somebody listens there already, so `ww run` takes another";
            Finding::new(State::Warning, &subject, text).with_fix("ww run --port 0 IMAGE")
        }
        Err(error) => Finding::new(State::Warning, &subject, error::chain(&error).join(": "))
            .with_fix("ww run --listen none IMAGE"),
    }
}

/// The Kubo node of this user, as every command finds it that is not told of another.
fn kubo() -> Result<Finding, Failure> {
    let absent = |text: String| Finding::new(State::Warning, "Kubo", text).with_fix("ipfs daemon");
    let client = match KuboArgs::default().find()? {
        Kubo::Named(client) | Kubo::Found(client) => client,
        Kubo::Refused => return Ok(absent("none is wanted".to_owned())),
        Kubo::Absent(why) => return Ok(absent(why)),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::new(exit_code::FAILURE, &error))?;
    let answer = runtime.block_on(async { tokio::time::timeout(KUBO_PATIENCE, client.version()).await });
    let at = client.address();
    Ok(match answer {
        Ok(Ok(version)) => {
            Finding::new(State::Ok, "Kubo", format!("version {} at {at}", escape::short(&version.version)))
        }
        Ok(Err(error)) => absent(error::chain(&error).join(": ")),
        Err(_) => absent(format!("{at} does not answer within {} s", KUBO_PATIENCE.as_secs())),
    })
}

fn terminal() -> Finding {
    let text = match (env::stderr_is_screen(), env::stderr_has_colours()) {
        (true, colours) => {
            let (columns, rows) = env::stderr_size();
            format!("{columns} columns, {rows} rows, {}", if colours { "colours" } else { "no colours" })
        }
        (false, _) => "standard error is none, so progress is said in lines".to_owned(),
    };
    Finding::new(State::Ok, "terminal", text)
}
