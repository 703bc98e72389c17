//! Native code from a file into this process. The only unsafe code of the host is here.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

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

    /// How long the file is, in bytes.
    pub(super) fn file_bytes(&self) -> Option<u64> {
        self.0.metadata().ok().map(|metadata| metadata.len())
    }

    /// How many bytes of it describe the component, which are read when it is loaded; `None` if it is no such code.
    pub(super) fn description_bytes(&self) -> Option<u64> {
        section_bytes(&self.0, DESCRIPTION)
    }
}

/// The section of the code's file that wasmtime reads (`ELF_WASMTIME_INFO` in wasmtime-environ 48).
const DESCRIPTION: &str = ".wasmtime.info";

/// How long a section of an ELF file of this machine is, in bytes. Places are those of the 64-bit format (System V ABI, object
/// files).
fn section_bytes(file: &File, name: &str) -> Option<u64> {
    /// The header's length, and that of what is said of a section.
    const HEADER: usize = 64;
    let read = |offset: u64| {
        let mut bytes = [0; HEADER];
        file.read_exact_at(&mut bytes, offset).ok().map(|()| bytes)
    };
    let header = read(0).filter(|header| header.starts_with(b"\x7fELF\x02"))?;
    let sections = number(&header, 40);
    let section = |index: u16| read(sections.checked_add(u64::from(index) * HEADER as u64)?);
    let names = number(&section(short(&header, 62))?, 24);
    let is_named = |section: &[u8; HEADER]| {
        let mut found = vec![0; name.len() + 1];
        let place = section.first_chunk().map_or(0, |bytes| u32::from_ne_bytes(*bytes));
        let offset = names.checked_add(u64::from(place));
        let is_read = offset.is_some_and(|offset| file.read_exact_at(&mut found, offset).is_ok());
        is_read && found.strip_suffix(b"\0") == Some(name.as_bytes())
    };
    let found = (0..short(&header, 60)).filter_map(section).find(is_named)?;
    Some(number(&found, 32))
}

/// The number of two bytes at this place.
fn short(bytes: &[u8; 64], place: usize) -> u16 {
    u16::from_ne_bytes([bytes[place], bytes[place + 1]])
}

/// The number of eight bytes at this place, which are all there.
fn number(bytes: &[u8; 64], place: usize) -> u64 {
    bytes[place..].first_chunk().map_or(0, |bytes| u64::from_ne_bytes(*bytes))
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
