//! Filling `/tmp`, and opening what is not there to be opened.

use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};

use wasip2::filesystem::preopens;
use wasip2::filesystem::types::{Descriptor, DescriptorFlags, ErrorCode, OpenFlags, PathFlags};

use crate::{Outcome, until_refused};

fn root() -> Result<Descriptor, &'static str> {
    preopens::get_directories().into_iter().next().map(|(root, _)| root).ok_or("there are no files")
}

pub(crate) fn bytes() -> Outcome {
    let mut file = File::create("/tmp/bytes")?;
    let piece = vec![1; 1 << 20];
    until_refused(|_| file.write_all(&piece))
}

pub(crate) fn many() -> Outcome {
    until_refused(|number| File::create(format!("/tmp/{number}")).map(drop))
}

pub(crate) fn deep() -> Outcome {
    let mut path = String::from("/tmp");
    let by_path = until_refused(|_| {
        path.push_str("/d");
        fs::create_dir(&path)
    });
    // Deeper than any path: from the last directory on.
    let mut place = root()?.open_at(PathFlags::empty(), "tmp", OpenFlags::DIRECTORY, DescriptorFlags::READ)?;
    let further = until_refused(|_| {
        let _ = place.create_directory_at("d");
        let next = place.open_at(PathFlags::empty(), "d", OpenFlags::DIRECTORY, DescriptorFlags::READ)?;
        place = next;
        Ok::<_, ErrorCode>(())
    });
    Ok(format!("by path {}, step by step {}", text(by_path), text(further)))
}

fn text(outcome: Outcome) -> String {
    outcome.unwrap_or_else(|error| error.to_string())
}

pub(crate) fn names() -> Outcome {
    let root = root()?;
    let create =
        |name: &str| root.open_at(PathFlags::empty(), name, OpenFlags::CREATE, DescriptorFlags::WRITE).map(drop);
    let long = text(until_refused(|number| create(&format!("tmp/{number:0>255}"))));
    let too_long = create(&format!("tmp/{}", "x".repeat(256)));
    let huge = create(&"x".repeat(1 << 20));
    let huge_link = root.symlink_at(&"x".repeat(1 << 20), "tmp/link");
    Ok(format!("255 bytes {long}; 256 bytes: {too_long:?}; 1 MiB: {huge:?}; a link to it: {huge_link:?}"))
}

/// Holes take no room, however large they are.
pub(crate) fn sparse() -> Outcome {
    let mut file = File::create("/tmp/hole")?;
    file.set_len(i64::MAX as u64)?;
    file.seek(SeekFrom::Start(i64::MAX as u64 - 1))?;
    file.write_all(b"x")?;
    let past = file.write_all(b"x").is_err();
    let lengths = [u64::MAX, i64::MAX as u64 + 1].map(|length| file.set_len(length).is_err());
    let read = fs::OpenOptions::new().read(true).open("/tmp/hole")?;
    let mut piece = [1; 4096];
    std::io::Read::read_exact(&mut { read }, &mut piece)?;
    match (past, lengths, piece == [0; 4096]) {
        (true, [true, true], true) => Ok("holes are read as zeros, and files have an end".into()),
        wrong => Err(format!("wrong: {wrong:?}").into()),
    }
}

pub(crate) fn open() -> Outcome {
    let root = root()?;
    until_refused(|_| root.open_at(PathFlags::empty(), "bin/main.wasm", OpenFlags::empty(), DescriptorFlags::READ))
}

/// A directory with very many entries, listed again and again.
pub(crate) fn listings() -> Outcome {
    let made = text(many());
    let place = root()?.open_at(PathFlags::empty(), "tmp", OpenFlags::DIRECTORY, DescriptorFlags::READ)?;
    let listed = text(until_refused(|_| place.read_directory()));
    Ok(format!("files {made}; listings {listed}"))
}

pub(crate) fn paths() -> Outcome {
    let root = root()?;
    let deep = "a/".repeat(100_000);
    let mut said = Vec::new();
    for path in [
        "../../etc/passwd",
        "/etc/passwd",
        "tmp/../../etc/passwd",
        "bin/../../../etc/passwd",
        "//etc/passwd",
        "proc/self/environ",
        "dev/null",
        "dev/../proc/self/mem",
        "bin/main.wasm/../../etc",
        "bin\0/main.wasm",
        "bin/main.wasm\0",
        "\0",
        "",
        ".",
        "..",
        "C:\\windows",
        "con",
        "\u{202e}",
        &deep,
    ] {
        let opened = root.open_at(PathFlags::SYMLINK_FOLLOW, path, OpenFlags::empty(), DescriptorFlags::READ);
        let stat = root.stat_at(PathFlags::SYMLINK_FOLLOW, path).map(drop);
        let path: String = path.chars().take(24).collect();
        said.push(format!("{path:?}: {:?}, {stat:?}", opened.map(drop)));
    }
    for target in ["/etc/passwd", "../../../etc/passwd", "/proc/self/root/etc/passwd", "link"] {
        let made = root.symlink_at(target, "tmp/link");
        let opened = root.open_at(PathFlags::SYMLINK_FOLLOW, "tmp/link", OpenFlags::empty(), DescriptorFlags::READ);
        said.push(format!("a link to {target:?}: {made:?}, {:?}", opened.map(drop)));
        let _ = root.unlink_file_at("tmp/link");
    }
    Ok(said.join("\n"))
}

pub(crate) fn lengths() -> Outcome {
    let root = root()?;
    let program = root.open_at(PathFlags::empty(), "bin/main.wasm", OpenFlags::empty(), DescriptorFlags::READ)?;
    let mut said = Vec::new();
    for length in [4 << 30, u64::MAX] {
        let (bytes, _) = program.read(length, 0)?;
        let far = program.read(length, u64::MAX).map(|(bytes, end)| (bytes.len(), end));
        let stream = program.read_via_stream(0)?;
        let streamed = stream.blocking_read(length)?;
        let skipped = stream.skip(length)?;
        let few = bytes.len().max(streamed.len()) <= 1 << 20 && skipped <= 1 << 20;
        said.push(format!("read few: {few}; beyond the end: {far:?}"));
    }
    let making = OpenFlags::CREATE;
    let file = root.open_at(PathFlags::empty(), "tmp/f", making, DescriptorFlags::READ | DescriptorFlags::WRITE)?;
    said.push(format!("written beyond all: {:?}", file.write(b"x", u64::MAX)));
    said.push(format!("as large as that: {:?}", file.set_size(u64::MAX)));
    let output = file.write_via_stream(u64::MAX)?;
    said.push(format!("streamed there: {:?}", output.blocking_write_and_flush(b"x").is_err()));
    Ok(said.join("\n"))
}
