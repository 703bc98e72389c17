//! The examples of the documentation do what it says.
//!
//! Blocks marked `console` are run in this repository: a line that begins with `$ ` is a command for a shell, the lines
//! after it are what it prints on both outputs, in any order of the two. `…` stands for any text within a line, and alone
//! on a line for any number of lines. The README is for people who have no `ww` yet: what it has them type is done with
//! the one that is tested.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::languages;
use crate::project::Project;
use crate::support::{collect, finish, root, ww};

/// A command and what it is to print.
struct Example {
    command: String,
    expected: Vec<String>,
}

fn examples(page: &Path) -> Vec<Example> {
    let text = fs::read_to_string(page).unwrap();
    let mut examples: Vec<Example> = Vec::new();
    let mut in_console = false;
    for line in text.lines() {
        match (line.strip_prefix("```"), in_console) {
            (Some(kind), false) => in_console = kind == "console",
            (Some(_), true) => in_console = false,
            (None, false) => {}
            (None, true) => match line.strip_prefix("$ ") {
                Some(command) => examples.push(Example { command: with_ww(command), expected: Vec::new() }),
                None => examples.last_mut().expect("output before a command").expected.push(line.to_owned()),
            },
        }
    }
    examples
}

/// A command in which `ww` is called by its name.
fn with_ww(command: &str) -> String {
    command.replace("make demo", "ww -q run examples/images/pid0").replace("cargo run --release -- ", "ww ")
}

/// Whether a line is what a pattern says, where `…` stands for any text.
fn line_fits(pattern: &str, line: &str) -> bool {
    let mut pieces = pattern.split('…');
    let first = pieces.next().unwrap_or_default();
    let Some(mut rest) = line.strip_prefix(first) else { return false };
    let pieces: Vec<_> = pieces.collect();
    for (index, piece) in pieces.iter().enumerate() {
        if index + 1 == pieces.len() && !rest.ends_with(piece) {
            return false;
        }
        let Some(place) = rest.find(piece) else { return false };
        rest = &rest[place + piece.len()..];
    }
    pieces.last().map_or(rest.is_empty(), |last| last.is_empty() || rest.is_empty() || line.ends_with(last))
}

/// Whether lines are what patterns say, where a pattern `…` stands for any number of them.
fn lines_fit(patterns: &[String], lines: &[String]) -> bool {
    match (patterns.split_first(), lines.split_first()) {
        (None, None) => true,
        (Some((pattern, later)), _) if pattern == "…" => {
            lines_fit(later, lines) || lines.split_first().is_some_and(|(_, lines)| lines_fit(patterns, lines))
        }
        (Some((pattern, patterns)), Some((line, lines))) => line_fits(pattern, line) && lines_fit(patterns, lines),
        _ => false,
    }
}

/// Runs a command in this repository, with state of its own in `home`, no Kubo node, and the tools of languages where they
/// are wanted.
fn run(command: &str, home: &Path, tools: Option<&Path>) -> Vec<String> {
    let bin = Path::new(env!("CARGO_BIN_EXE_ww")).parent().unwrap();
    #[expect(clippy::disallowed_methods, reason = "the examples call ww by its name")]
    let path = std::env::var("PATH").unwrap();
    let tools = tools.map(|tools| format!("{}:", tools.join("bin").display())).unwrap_or_default();
    let path = format!("{}:{tools}{path}", bin.display());
    let mut shell = Command::new("sh");
    // A project that an example has made has no lock yet, whatever holds for this one.
    if command.contains("-C target/") {
        shell.env("WW_LOCKED", "0");
    }
    let child = shell
        .args(["-c", command])
        .current_dir(root())
        .env("PATH", path)
        .env("NO_COLOR", "1")
        .env("WW_HOME", home)
        .env("IPFS_PATH", home)
        .env_remove("RUST_LOG")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let done = collect(child);
    done.stderr.lines().chain(done.stdout.lines()).map(str::to_owned).collect()
}

#[test]
fn examples_do_what_the_pages_say() {
    let mut count = 0;
    let mut pages = vec![root().join("README.md")];
    pages.extend(fs::read_dir(root().join("docs")).unwrap().map(|entry| entry.unwrap().path()));
    for page in pages {
        // The examples of a page tell one story.
        let home = tempfile::tempdir().unwrap();
        let tools = if page.ends_with("languages.md") {
            let Some(tools) = languages::tools() else { continue };
            Some(tools)
        } else {
            None
        };
        for example in examples(&page) {
            let said = run(&example.command, home.path(), tools.as_deref());
            assert!(
                lines_fit(&example.expected, &said),
                "{}: `{}` prints\n{}",
                page.display(),
                example.command,
                said.join("\n")
            );
            count += 1;
        }
    }
    assert!(count > 5, "the examples were not found");
}

/// The contents of the first blocks of a page after a heading.
fn blocks_after(page: &str, heading: &str) -> Vec<String> {
    let text = fs::read_to_string(root().join(page)).unwrap();
    let (_, text) = text.split_once(heading).unwrap();
    text.split("\n```").skip(1).step_by(2).map(|block| block.split_once('\n').unwrap().1.to_owned()).collect()
}

#[test]
fn the_minimal_guest_builds_and_runs() {
    let project = Project::new("greeter");
    let blocks = blocks_after("docs/guests.md", "## A minimal guest");
    let [manifest, program, wetfile, ..] = blocks.as_slice() else { panic!("{blocks:?}") };
    let sdk = root().join("guests/sdk");
    project.write("Cargo.toml", &manifest.replace("../ww/guests/sdk", sdk.to_str().unwrap()));
    project.write("src/main.rs", program);
    project.write("Wetfile.toml", wetfile);
    let mut command = ww(&["-q", "run", "--listen", "/ip4/127.0.0.1/tcp/0", "greeter"]);
    let done = finish(command.current_dir(project.path(""))).expect(0);
    assert!(done.stdout.starts_with("this is 12D3KooW"), "{}", done.stdout);
}

#[test]
fn patterns_fit_what_they_should() {
    assert!(line_fits("a…c", "abc") && line_fits("a…", "a") && line_fits("…c", "c") && line_fits("abc", "abc"));
    assert!(
        !line_fits("a…c", "abd") && !line_fits("abc", "abcd") && !line_fits("…c", "cd") && !line_fits("a…b…c", "acb")
    );
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
    assert!(lines_fit(&lines("a\n…\nd"), &lines("a\nb\nc\nd")) && lines_fit(&lines("…"), &[]));
    assert!(!lines_fit(&lines("a\n…\nd"), &lines("a\nb\nc")) && !lines_fit(&[], &lines("a")));
}

#[test]
fn links_between_pages_lead_somewhere() {
    let mut pages = vec![root().join("README.md"), root().join("ARCHITECTURE.md"), root().join("CONTRIBUTING.md")];
    pages.extend(fs::read_dir(root().join("docs")).unwrap().map(|entry| entry.unwrap().path()));
    for page in pages {
        let text = fs::read_to_string(&page).unwrap();
        for (place, _) in text.match_indices("](") {
            let target = text[place + 2..].split(')').next().unwrap();
            if !target.starts_with("http") && !target.starts_with('#') {
                let path = page.parent().unwrap().join(target.split('#').next().unwrap());
                assert!(path.exists(), "{} links to {target}", page.display());
            }
        }
    }
}
