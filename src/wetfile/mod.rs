//! `Wetfile.toml`: from its text to a checked [`Project`].

mod graph;
mod name;
mod path;
mod project;

pub use name::{GuestName, ImageName, NAME_BYTES_MAX, NAME_RULE, NameError};
pub use path::{COMPONENT_BYTES_MAX, COMPONENTS_MAX, ImagePath, PATH_BYTES_MAX, PathError, ProjectPath};
pub use project::{EnvValue, Guest, Image, Project, Recipe, Run, Source};
