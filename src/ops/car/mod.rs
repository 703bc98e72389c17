//! Bringing archives into a store, and DAGs out of one.

mod export;
mod import;
#[cfg(test)]
mod tests;

pub use export::{CarExported, ExportCarError, export_car};
pub use import::{CarImported, CarPin, ImportCarError, import_car};
