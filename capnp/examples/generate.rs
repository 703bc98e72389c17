//! Generates the Rust in `src/` from the schemas. CI runs this and requires that nothing changes.

use std::path::Path;

fn main() -> Result<(), capnp::Error> {
    let crate_dir = Path::new(env!("CARGO_MANIFEST_DIR"));
    capnpc::CompilerCommand::new()
        .src_prefix(crate_dir)
        .file(crate_dir.join("peer.capnp"))
        .output_path(crate_dir.join("src"))
        .run()
}
