//! Native code from a file into this process. The only unsafe code of the host is here.

use std::fs::File;
use std::os::fd::AsRawFd;

use wasmtime::component::Component;

/// Where the kernel shows the files that a process has open.
#[cfg(target_os = "linux")]
const OPEN_FILES: &str = "/proc/self/fd";
#[cfg(not(target_os = "linux"))]
const OPEN_FILES: &str = "/dev/fd";

/// Code that this host has compiled and that has been found whole. What is made of it runs without any further check, so
/// only [`code_cache`](super::code_cache) makes this, of files that nobody but this user can have written, after it has
/// held their checksum against their content.
pub(super) struct NativeCode(pub(super) File);

impl NativeCode {
    /// Maps the code into memory. wasmtime checks that it was compiled by the same version for the same settings and the
    /// same processor.
    pub(super) fn load(&self, engine: &wasmtime::Engine) -> wasmtime::Result<Component> {
        // Not by its name: that may be another file's by now, and this one was checked.
        let path = format!("{OPEN_FILES}/{}", self.0.as_raw_fd());
        load(engine, &path)
    }
}

#[expect(unsafe_code, reason = "native code is trusted by whoever maps it, and nothing but its maker can vouch for it")]
fn load(engine: &wasmtime::Engine, path: &str) -> wasmtime::Result<Component> {
    // SAFETY: the bytes must come from `Engine::precompile_component` or `Component::serialize`, and must not change while
    // they are mapped. The first: a `NativeCode` is a file that this process, or one of the same user, had its compiler
    // write, in a folder that others cannot write to (or in memory that has no name), and its checksum says that it has
    // arrived whole. The second: files of the cache are written before they get the name under which they are found, and
    // never afterwards; they are replaced by rename and removed, which leaves mapped bytes alone.
    unsafe { Component::deserialize_file(engine, path) }
}
