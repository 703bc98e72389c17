//! `wasi:filesystem`. Paths begin at the root of the namespace, without the `/`.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};

use wasip2::filesystem::preopens;
use wasip2::filesystem::types::{
    Datetime, Descriptor, DescriptorFlags, ErrorCode, NewTimestamp, OpenFlags, PathFlags, filesystem_error_code,
};
use wasip2::io::streams::StreamError;

use crate::{Outcome, require};

fn root() -> Result<Descriptor, &'static str> {
    match preopens::get_directories().as_mut_slice() {
        [_] => preopens::get_directories().pop().map(|(root, _)| root).ok_or("there are no files"),
        _ => Err("there is one directory to begin at, and it has not changed"),
    }
}

fn open(path: &str, open: OpenFlags, flags: DescriptorFlags) -> Result<Descriptor, ErrorCode> {
    root().map_err(|_| ErrorCode::NoEntry)?.open_at(PathFlags::empty(), path, open, flags)
}

fn both() -> DescriptorFlags {
    DescriptorFlags::READ | DescriptorFlags::WRITE
}

fn content(path: &str) -> io::Result<Vec<u8>> {
    fs::read(format!("/{path}"))
}

/// What is appended goes to the end, wherever the position is.
pub(crate) fn append() -> Outcome {
    fs::write("/tmp/f", "one\n")?;
    let mut file = OpenOptions::new().append(true).open("/tmp/f")?;
    file.write_all(b"two\n")?;
    file.seek(SeekFrom::Start(0))?;
    file.write_all(b"three\n")?;
    require(content("tmp/f")? == b"one\ntwo\nthree\n", "appending is at the end")?;
    // Also where others have written meanwhile.
    let (first, second) = (open("tmp/f", OpenFlags::empty(), both())?, open("tmp/f", OpenFlags::empty(), both())?);
    let (first, second) = (first.append_via_stream()?, second.append_via_stream()?);
    for (stream, text) in [(&first, b"4"), (&second, b"5"), (&first, b"6")] {
        stream.blocking_write_and_flush(text)?;
    }
    require(content("tmp/f")?.ends_with(b"three\n456"), "each goes to the end")
}

pub(crate) fn sync() -> Outcome {
    let file = File::create("/tmp/f")?;
    file.sync_all()?;
    file.sync_data()?;
    let directory = open("tmp", OpenFlags::DIRECTORY, DescriptorFlags::READ)?;
    directory.sync()?;
    Ok(directory.sync_data()?)
}

pub(crate) fn seek(path: &str) -> Outcome {
    let whole = content(path)?;
    let mut file = File::open(format!("/{path}"))?;
    require(file.metadata()?.len() == whole.len() as u64, "the length is that of the content")?;
    require(io::read_to_string(&mut file)?.as_bytes() == whole, "everything is read")?;
    file.seek(SeekFrom::Start(5))?;
    require(io::read_to_string(&mut file)?.as_bytes() == &whole[5..], "the rest is read")?;
    file.seek(SeekFrom::End(-3))?;
    require(io::read_to_string(&mut file)?.as_bytes() == &whole[whole.len() - 3..], "the end is read")
}

/// Nothing of an image can be changed.
pub(crate) fn read_only(path: &str) -> Outcome {
    let before = content(path)?;
    let path = format!("/{path}");
    let mut file = File::open(&path)?;
    require(file.write_all(b"text").is_err(), "what is open to be read is not written")?;
    let errors = [
        OpenOptions::new().append(true).open(&path).is_err(),
        OpenOptions::new().write(true).truncate(true).open(&path).is_err(),
        File::create("/new").is_err(),
        fs::create_dir("/new").is_err(),
        fs::rename(&path, "/new").is_err(),
        fs::remove_file(&path).is_err(),
        fs::remove_dir("/bin").is_err(),
        fs::hard_link(&path, "/new").is_err(),
        file.set_len(0).is_err(),
    ];
    require(errors == [true; 9], "each change is an error")?;
    require(fs::read(&path)? == before, "nothing is changed")
}

pub(crate) fn read_write() -> Outcome {
    let directory = root()?;
    require(directory.read_via_stream(0).err() == Some(ErrorCode::IsDirectory), "a directory is not read")?;
    let file = open("tmp/f", OpenFlags::CREATE, both())?;
    let stream = file.write_via_stream(5)?;
    stream.blocking_write_and_flush(b"Hello, ")?;
    stream.blocking_write_and_flush(b"World!")?;
    drop(stream);
    let expected = b"\0\0\0\0\0Hello, World!";
    require(file.read_via_stream(0)?.blocking_read(100)? == expected, "what was written is read")?;
    let stream = file.read_via_stream(0)?;
    let ready = stream.subscribe();
    let mut read = Vec::new();
    loop {
        ready.block();
        match stream.read(0) {
            Ok(nothing) => require(nothing.is_empty(), "a read of nothing gives nothing")?,
            Err(StreamError::Closed) => break,
            Err(error) => return Err(error.into()),
        }
        match stream.read(4) {
            Ok(bytes) => read.extend(bytes),
            Err(StreamError::Closed) => break,
            Err(error) => return Err(error.into()),
        }
    }
    require(read == expected, "what was written is read in pieces")?;
    drop(ready);
    drop(stream);
    drop(file);
    Ok(directory.unlink_file_at("tmp/f")?)
}

/// A file of the image gets no other name, and no other place, where it could be written.
pub(crate) fn across(path: &str) -> Outcome {
    let before = content(path)?;
    let (root, tmp) = (root()?, open("tmp", OpenFlags::DIRECTORY, DescriptorFlags::READ)?);
    let linked = root.link_at(PathFlags::empty(), path, &tmp, "alias");
    let moved = root.rename_at(path, &tmp, "alias");
    let refused = |result: Result<(), ErrorCode>| {
        matches!(result, Err(ErrorCode::CrossDevice | ErrorCode::NotPermitted | ErrorCode::ReadOnly))
    };
    require(refused(linked) && refused(moved), "it is refused")?;
    require(content(path)? == before && content("tmp/alias").is_err(), "nothing is changed")
}

pub(crate) fn times() -> Outcome {
    let file = open("tmp/f", OpenFlags::CREATE, both())?;
    let at = |seconds, nanoseconds| NewTimestamp::Timestamp(Datetime { seconds, nanoseconds });
    for (seconds, nanoseconds) in [(u64::MAX, 1_000_000_000), (u64::MAX, 0), (u64::MAX - 1, u32::MAX)] {
        let overflown = file.set_times(at(seconds, nanoseconds), at(0, 0));
        require(overflown == Err(ErrorCode::Overflow), "a time that there cannot be is an overflow")?;
    }
    require(file.set_times(at(0, 1_000_000_000), at(0, 0)) == Err(ErrorCode::Invalid), "a second is not a nanosecond")?;
    file.set_times(at(1_000, 7), NewTimestamp::NoChange)?;
    let accessed = file.stat()?.data_access_timestamp.ok_or("there is a time")?;
    require((accessed.seconds, accessed.nanoseconds) == (1_000, 7), "a time is what was set")?;
    Ok(file.set_times(NewTimestamp::Now, NewTimestamp::Now)?)
}

/// What is open to be read is not written, and the other way about.
pub(crate) fn permissions(path: &str) -> Outcome {
    let file = open(path, OpenFlags::empty(), DescriptorFlags::READ)?;
    require(file.write_via_stream(0).is_err() && file.append_via_stream().is_err(), "it is not written")?;
    require(file.write(b"x", 0).is_err() && file.set_size(0).is_err(), "it is not changed")?;
    require(!file.read_via_stream(0)?.blocking_read(1)?.is_empty(), "it is read")?;
    let before = content(path)?;
    let cut = open(path, OpenFlags::TRUNCATE, DescriptorFlags::READ).map(drop);
    require(matches!(cut, Err(ErrorCode::ReadOnly | ErrorCode::NotPermitted)), "it is not cut off")?;
    require(content(path)? == before, "nothing is changed")?;
    let file = open("tmp/f", OpenFlags::CREATE, DescriptorFlags::WRITE)?;
    file.write_via_stream(0)?.blocking_write_and_flush(b"x")?;
    require(file.read_via_stream(0).is_err() && file.read(1, 0).is_err(), "what is open to be written is not read")
}

pub(crate) fn trailing_slashes() -> Outcome {
    let root = root()?;
    fs::write("/tmp/file", "x")?;
    fs::create_dir("/tmp/directory")?;
    for (from, to) in [("tmp/file/", "tmp/new"), ("tmp/file", "tmp/new/"), ("tmp/file/", "tmp/new/")] {
        require(root.rename_at(from, &root, to).is_err(), "a file has no slash after its name")?;
    }
    for (from, to) in [("tmp/directory/", "tmp/a"), ("tmp/a", "tmp/b/"), ("tmp/b/", "tmp/c/"), ("tmp/c", "tmp/d")] {
        root.rename_at(from, &root, to)?;
    }
    require(fs::metadata("/tmp/d")?.is_dir() && fs::metadata("/tmp/file")?.is_file(), "both are there")?;
    require(root.unlink_file_at("tmp/file/").is_err() && root.unlink_file_at("tmp/d").is_err(), "they stay")?;
    Ok(root.remove_directory_at("tmp/d/")?)
}

/// Lengths are what is there, whatever is asked for.
pub(crate) fn lengths(path: &str) -> Outcome {
    let file = open(path, OpenFlags::empty(), DescriptorFlags::READ)?;
    let size = file.stat()?.size;
    require(file.read(0, 0)? == (Vec::new(), false), "nothing is nothing, and not the end")?;
    for length in [1, 1 << 20, u64::MAX] {
        let (bytes, _) = file.read(length, 0)?;
        require(!bytes.is_empty() && bytes.len() as u64 <= length.min(size), "some of it is read")?;
    }
    require(file.read(1, size)? == (Vec::new(), true), "the end is said")?;
    require(file.read(u64::MAX, u64::MAX).map_or(true, |(bytes, _)| bytes.is_empty()), "there is nothing after it")
}

/// Where there is no room, that is what a stream's error says.
pub(crate) fn full() -> Outcome {
    let file = open("tmp/f", OpenFlags::CREATE, both())?;
    let stream = file.write_via_stream(0)?;
    loop {
        match stream.blocking_write_and_flush(&[1; 4096]) {
            Ok(()) => {}
            Err(StreamError::LastOperationFailed(error)) => {
                require(filesystem_error_code(&error) == Some(ErrorCode::InsufficientSpace), "the reason is said")?;
                return require(matches!(stream.check_write(), Err(StreamError::Closed)), "the stream is closed then");
            }
            Err(StreamError::Closed) => return Err("an error is said before the end".into()),
        }
    }
}
