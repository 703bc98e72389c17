//! C, by the compiler that comes with Zig and brings the C library of WASI.

use std::ffi::OsString;
use std::path::PathBuf;

use super::language::Compilation;
use super::zig::TARGET;
use crate::build::BuildError;
use crate::build::inputs::Scanner;

/// Small code without debug information, which would have paths. The guest's own flags follow and win.
const FLAGS: [&str; 6] = ["cc", "-target", TARGET, "-Os", "-g0", "-Wl,--strip-all"];

/// Compiles and links in one call, in the guest's folder: the sources are known by paths relative to it.
pub(super) fn build(compilation: &Compilation<'_>) -> Result<PathBuf, BuildError> {
    let sources = sources(compilation)?;
    let mut arguments: Vec<OsString> = FLAGS.map(OsString::from).into();
    arguments.extend(compilation.recipe.flags.iter().map(OsString::from));
    arguments.extend(sources.into_iter().map(OsString::from));
    arguments.extend(["-o".into(), compilation.out.clone().into()]);
    compilation.run(arguments)?;
    Ok(compilation.out.clone())
}

/// The files to compile, relative to the guest's folder, each once, in the order of the Wetfile, those of a glob sorted.
fn sources(compilation: &Compilation<'_>) -> Result<Vec<String>, BuildError> {
    let scanner = Scanner::new(compilation.project)?;
    let mut sources: Vec<String> = Vec::new();
    for pattern in &compilation.recipe.sources {
        let found = scanner.files_of(&compilation.guest.dir, pattern)?;
        if found.is_empty() {
            return Err(BuildError::NoSources { pattern: pattern.clone() });
        }
        for file in found {
            // No file is taken for an option.
            let file = if file.starts_with('-') { format!("./{file}") } else { file };
            if !sources.contains(&file) {
                sources.push(file);
            }
        }
    }
    Ok(sources)
}
