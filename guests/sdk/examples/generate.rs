//! Generates `src/bindings.rs` from `wit/`. CI runs this and requires that nothing changes.

use std::error::Error;
use std::path::Path;

use wit_bindgen_core::{Files, WorldGenerator, wit_parser::Resolve};
use wit_bindgen_rust::{Opts, WithOption};

fn main() -> Result<(), Box<dyn Error>> {
    let crate_dir = Path::new(env!("CARGO_MANIFEST_DIR"));
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
