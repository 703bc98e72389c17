//! Why a guest is compiled, or an image assembled.

use serde::{Deserialize, Serialize};

use super::seen::Change;
use crate::escape;

/// One reason. What comes from files, variables or the Wetfile is not escaped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Reason {
    /// It was not built here before, or that was forgotten.
    NeverBuilt,
    /// What the last build has left is not there any more, or is not what it was.
    Result {
        /// The file, relative to the project's root.
        path: String,
        /// What has become of it.
        change: Change,
    },
    /// The Wetfile says something else of it.
    Wetfile {
        /// The key, such as `build`; empty where it cannot be told.
        key: String,
        /// What it said, shortened; `None` if the key was not there.
        was: Option<String>,
        /// What it says.
        is: Option<String>,
    },
    /// A variable that it inherits has another value.
    Variable {
        /// The variable.
        name: String,
        /// Its value, shortened; `None` if it was not set, or is a secret.
        was: Option<String>,
        /// The same now.
        is: Option<String>,
    },
    /// It was compiled by another toolchain.
    Toolchain {
        /// By which.
        was: String,
        /// By which it is now.
        is: String,
    },
    /// A program, or its settings, which lies outside of the project, was replaced.
    Tool {
        /// Where it lies.
        path: String,
    },
    /// A file that it is made of.
    File {
        /// The file, relative to the project's root.
        path: String,
        /// What has become of it.
        change: Change,
    },
    /// More files than are told one by one.
    MoreFiles {
        /// How many.
        count: u64,
    },
    /// Something that it is made of, where the file cannot be told.
    Input {
        /// The file, folder or glob.
        root: String,
        /// What has become of it.
        change: Change,
    },
    /// A guest that it uses came out with other bytes, or is to be built.
    Guest {
        /// The guest.
        name: String,
    },
    /// It depends on a package outside of the project, of which nothing is known.
    Outside {
        /// Its folder.
        path: String,
    },
    /// A guest that it needs is to be built before, which may write what this one is made of.
    Before {
        /// The guest.
        name: String,
    },
}

impl Reason {
    /// A word for programs.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::NeverBuilt => "never-built",
            Self::Result { .. } => "result",
            Self::Wetfile { .. } => "wetfile",
            Self::Variable { .. } => "variable",
            Self::Toolchain { .. } => "toolchain",
            Self::Tool { .. } => "tool",
            Self::File { .. } => "file",
            Self::MoreFiles { .. } => "more-files",
            Self::Input { .. } => "input",
            Self::Guest { .. } => "guest",
            Self::Outside { .. } => "outside",
            Self::Before { .. } => "before",
        }
    }

    /// What it is about, such as a path or a name; not escaped.
    pub fn subject(&self) -> Option<&str> {
        match self {
            Self::NeverBuilt | Self::Toolchain { .. } | Self::MoreFiles { .. } => None,
            Self::Result { path, .. } | Self::Tool { path } | Self::File { path, .. } | Self::Outside { path } => {
                Some(path)
            }
            Self::Wetfile { key, .. } => Some(key),
            Self::Input { root, .. } => Some(root),
            Self::Variable { name, .. } | Self::Guest { name } | Self::Before { name } => Some(name),
        }
    }

    /// Whether it may turn out to be none: whether something has to be built or asked first.
    pub fn is_unsure(&self) -> bool {
        matches!(self, Self::Tool { .. } | Self::Guest { .. } | Self::Before { .. })
    }
}

/// A sentence without subject and full stop, ready to be shown: `guests/a/src/main.rs has changed`.
impl std::fmt::Display for Reason {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shown = |text: &str| escape::text(text).into_owned();
        match self {
            Self::NeverBuilt => formatter.write_str("it was not built here before"),
            Self::Result { path, change: Change::Removed } => write!(formatter, "its result {} is gone", shown(path)),
            Self::Result { path, change: Change::Changed } => {
                write!(formatter, "its result {} was changed after it was built", shown(path))
            }
            Self::Result { path, change: Change::Added } => {
                write!(formatter, "{} was added to its result", shown(path))
            }
            Self::Wetfile { key, was, is } if key.is_empty() && was.is_none() && is.is_none() => {
                formatter.write_str("the Wetfile says something else of it")
            }
            Self::Wetfile { key, was: None, is: Some(is) } => {
                write!(formatter, "`{}` in the Wetfile is new: {}", shown(key), shown(is))
            }
            Self::Wetfile { key, was: Some(was), is: None } => {
                write!(formatter, "`{}` in the Wetfile is gone: it was {}", shown(key), shown(was))
            }
            Self::Wetfile { key, was, is } => {
                write!(formatter, "`{}` in the Wetfile has changed", shown(key))?;
                changed(formatter, was.as_deref(), is.as_deref())
            }
            Self::Variable { name, was, is } => {
                write!(formatter, "the variable {} has another value", shown(name))?;
                changed(formatter, was.as_deref(), is.as_deref())
            }
            Self::Toolchain { was, is } => {
                formatter.write_str("it was compiled by another toolchain")?;
                changed(formatter, Some(was), Some(is))
            }
            Self::Tool { path } => write!(formatter, "{} is not the one that was used before", shown(path)),
            Self::File { path, change } => write!(formatter, "{} {}", shown(path), verb(*change)),
            Self::MoreFiles { count: 1 } => formatter.write_str("one more file"),
            Self::MoreFiles { count } => write!(formatter, "{count} more files"),
            Self::Input { root, change } => match root.rsplit_once('#') {
                Some((manifest, "workspace")) => {
                    write!(formatter, "the `[workspace]` of {} {}", shown(manifest), verb(*change))
                }
                Some((folder, "include")) => {
                    write!(formatter, "what the sources in {} include {}", shown(folder), verb(*change))
                }
                _ => write!(formatter, "{} {}", shown(root), verb(*change)),
            },
            Self::Guest { name } => write!(formatter, "guest {}, which it uses, is built anew", shown(name)),
            Self::Before { name } => {
                write!(
                    formatter,
                    "guest {}, which it needs, is built anew, and may write what it is made of",
                    shown(name)
                )
            }
            Self::Outside { path } => {
                write!(formatter, "it depends on {}, outside of the project, where changes are not seen", shown(path))
            }
        }
    }
}

fn verb(change: Change) -> &'static str {
    match change {
        Change::Changed => "has changed",
        Change::Added => "is new",
        Change::Removed => "is gone",
    }
}

/// `: OLD → NEW`.
fn changed(formatter: &mut std::fmt::Formatter<'_>, was: Option<&str>, is: Option<&str>) -> std::fmt::Result {
    let shown = |text: Option<&str>| text.map_or_else(|| "unset".to_owned(), |text| escape::text(text).into_owned());
    match (was, is) {
        (None, None) => Ok(()),
        (was, is) => write!(formatter, ": {} \u{2192} {}", shown(was), shown(is)),
    }
}
