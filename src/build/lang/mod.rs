//! How guests are compiled, one file for each kind of recipe.

mod cargo_config;
pub(super) mod command;
pub(super) mod rust;
