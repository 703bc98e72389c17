//! Which files a path or glob of a Wetfile names, for compilers that are given them one by one.

use globset::GlobBuilder;
use ignore::WalkBuilder;

use super::{FILES_MAX, InputsError};
use crate::wetfile::{Project, ProjectPath, is_glob, split_glob};

/// The files that a pattern means, relative to `dir` and sorted; a path means itself. Symlinks are not followed.
pub(in crate::build) fn files_of(
    project: &Project,
    dir: &ProjectPath,
    pattern: &str,
) -> Result<Vec<String>, InputsError> {
    if !is_glob(pattern) {
        return Ok(vec![pattern.to_owned()]);
    }
    let (folder, below) = split_glob(pattern);
    let glob = GlobBuilder::new(below).literal_separator(true).backslash_escape(true).build();
    let matcher = glob.map_err(|source| InputsError::Glob { glob: pattern.to_owned(), source })?.compile_matcher();
    let shown = dir.join(folder).unwrap_or_else(|_| dir.clone());
    let path = shown.to_path(&project.root);
    let mut walk = WalkBuilder::new(&path);
    walk.standard_filters(false).follow_links(false);
    if !below.contains("**") {
        walk.max_depth(Some(below.split('/').count()));
    }
    let mut files = Vec::new();
    for entry in walk.build() {
        let entry = entry.map_err(|source| InputsError::Walk { folder: shown.to_string(), source })?;
        let Ok(file) = entry.path().strip_prefix(&path) else { continue };
        let is_file = entry.file_type().is_some_and(|kind| kind.is_file());
        if let Some(file) = file.to_str().filter(|_| is_file && matcher.is_match(file)) {
            files.push(if folder == "." { file.to_owned() } else { format!("{folder}/{file}") });
        }
        if files.len() > FILES_MAX {
            return Err(InputsError::TooMany { folder: shown.to_string() });
        }
    }
    files.sort_unstable();
    Ok(files)
}
