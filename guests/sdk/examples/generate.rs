//! Generates `src/bindings.rs` from `wit/`, and copies what crate `ww-schema` has generated from the schemas. CI runs
//! this and requires that nothing changes.
//!
//! A dependency on `ww-schema` would do for the second, but cargo names a crate outside of its workspace by its absolute
//! path, and with the names of the symbols the bytes of every guest would depend on where the repository lies.

use std::error::Error;
use std::path::Path;

use wit_bindgen_core::{Files, WorldGenerator, wit_parser::Resolve};
use wit_bindgen_rust::{Opts, WithOption};

fn main() -> Result<(), Box<dyn Error>> {
    let crate_dir = Path::new(env!("CARGO_MANIFEST_DIR"));
    std::fs::copy(crate_dir.join("../../capnp/src/peer_capnp.rs"), crate_dir.join("src/peer_capnp.rs"))?;
    generate_bindings(crate_dir)
}

fn generate_bindings(crate_dir: &Path) -> Result<(), Box<dyn Error>> {
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_dir(crate_dir.join("wit"))?;
    let world = resolve.select_world(&[package], Some("cell"))?;
    let with = ["error", "poll", "streams"].map(|interface| {
        let path = WithOption::Path(format!("wasip2::io::{interface}"));
        (format!("wasi:io/{interface}@0.2.12"), path)
    });
    let options = Opts { format: true, with: with.into(), ..Opts::default() };
    let mut files = Files::default();
    options.build().generate(&mut resolve, world, &mut files)?;
    for (_, contents) in files.iter() {
        std::fs::write(crate_dir.join("src/bindings.rs"), contents)?;
    }
    Ok(())
}
