//! The least that naming a tree by its content takes: reads all files below a path on two threads and hashes each chunk of a
//! mebibyte, or each file where it is smaller. What `benches/peers/content` measures `ww cid` by.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::{env, io, thread};

use sha2::{Digest, Sha256};

const THREADS: usize = 2;
const CHUNK_BYTES: usize = 1 << 20;

fn list(path: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    if !path.is_dir() {
        files.push(path.to_owned());
        return Ok(());
    }
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() { list(&entry.path(), files)? } else { files.push(entry.path()) }
    }
    Ok(())
}

/// Hashes a chunk; gives its length, which is zero after the end.
fn hash_chunk(file: &File, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
    let mut length = 0;
    while length < buffer.len() {
        match file.read_at(&mut buffer[length..], offset + length as u64)? {
            0 => break,
            count => length += count,
        }
    }
    std::hint::black_box(Sha256::digest(&buffer[..length]));
    Ok(length)
}

/// One file: the threads take chunks of it in turn.
fn hash_file(path: &Path) -> io::Result<()> {
    let (file, next) = (File::open(path)?, AtomicU64::new(0));
    in_threads(|| {
        let mut buffer = vec![0; CHUNK_BYTES];
        while hash_chunk(&file, next.fetch_add(1, Ordering::Relaxed) * CHUNK_BYTES as u64, &mut buffer)? > 0 {}
        Ok(())
    })
}

/// Many files: the threads take them in turn.
fn hash_files(files: &[PathBuf]) -> io::Result<()> {
    let next = AtomicUsize::new(0);
    in_threads(|| {
        let mut buffer = vec![0; CHUNK_BYTES];
        while let Some(path) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
            let (file, mut offset) = (File::open(path)?, 0);
            // A chunk that is not full is the last.
            loop {
                let length = hash_chunk(&file, offset, &mut buffer)?;
                offset += length as u64;
                if length < CHUNK_BYTES {
                    break;
                }
            }
        }
        Ok(())
    })
}

fn in_threads(work: impl Fn() -> io::Result<()> + Sync) -> io::Result<()> {
    thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(&work)).collect();
        threads.into_iter().try_for_each(|thread| thread.join().unwrap_or_else(|_| Err(io::Error::other("panic"))))
    })
}

fn main() -> io::Result<()> {
    let path = env::args_os().nth(1).ok_or_else(|| io::Error::other("usage: bare-hash PATH"))?;
    let mut files = Vec::new();
    list(Path::new(&path), &mut files)?;
    match &files[..] {
        [file] => hash_file(file),
        files => hash_files(files),
    }
}
