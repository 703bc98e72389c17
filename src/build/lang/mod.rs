//! How guests are compiled, one file for each kind of recipe.

pub(super) mod adapt;
mod c;
pub(super) mod cargo_config;
pub(super) mod command;
mod dep_info;
pub(super) mod doctor;
mod go;
mod javascript;
pub(super) mod language;
mod python;
pub(super) mod rust;
mod tool;
mod wit;
mod zig;
