//! Puts child-echo where `include_bytes!` finds it.
//!
//! `ww build` builds what a guest embeds first and says where it lies. Plain cargo takes what an earlier `ww build` left
//! behind, and compiles without it where there is nothing; the program then says so when it runs.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::{env, fs};

/// Set by `ww build`: the absolute path of the component.
const VARIABLE: &str = "WW_DEP_CHILD_ECHO";

/// Where `ww build` leaves the component, relative to this crate.
const LEFT_BEHIND: &str = "../../target/ww/guests/child-echo.wasm";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed={VARIABLE}");
    let embedded = PathBuf::from(env::var("OUT_DIR")?).join("child-echo.wasm");
    match env::var_os(VARIABLE) {
        Some(given) => embed(Path::new(&given), &embedded).map_err(|error| format!("{VARIABLE}={error}").into()),
        None => embed_left_behind(&Path::new(&env::var("CARGO_MANIFEST_DIR")?).join(LEFT_BEHIND), &embedded),
    }
}

/// Copies the component, which must be there.
fn embed(component: &Path, embedded: &Path) -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={}", component.display());
    let bytes = fs::read(component).map_err(|error| format!("{}: {error}", component.display()))?;
    if bytes.is_empty() {
        return Err(format!("{}: is empty", component.display()).into());
    }
    Ok(fs::write(embedded, bytes)?)
}

/// Copies the component if it is there, else writes an empty file.
fn embed_left_behind(component: &Path, embedded: &Path) -> Result<(), Box<dyn Error>> {
    if component.exists() {
        return embed(component, embedded);
    }
    println!("cargo::rerun-if-changed={}", component.display());
    println!("cargo::warning=pid0 is built without child-echo and will not run; run `ww build`");
    Ok(fs::write(embedded, [])?)
}
