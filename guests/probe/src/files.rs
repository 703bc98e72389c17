//! The files of the cell.

use std::fs;
use std::io::{self, Write};

use crate::{Outcome, require};

pub(crate) fn describe(paths: &[&str]) -> Outcome {
    for path in paths {
        let description = look(path).unwrap_or_else(|error| error.kind().to_string());
        writeln!(io::stdout(), "{path}: {description}")?;
    }
    Ok(String::new())
}

fn look(path: &str) -> io::Result<String> {
    if !fs::metadata(path)?.is_dir() {
        return Ok(format!("file of {} bytes", fs::read(path)?.len()));
    }
    let mut names = fs::read_dir(path)?
        .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
        .collect::<io::Result<Vec<_>>>()?;
    names.sort();
    Ok(format!("folder: {}", names.join(" ")))
}

/// How much is written at once.
static PIECE: [u8; 64 * 1024] = [b'x'; 64 * 1024];

pub(crate) fn fill(path: &str, bytes: usize) -> Outcome {
    let mut file = fs::File::create(path)?;
    let mut written = 0;
    while written < bytes {
        match file.write(&PIECE[..PIECE.len().min(bytes - written)]) {
            Ok(count) => written += count,
            Err(error) => return Ok(format!("{written} bytes, and then: {}", error.kind())),
        }
    }
    Ok(format!("{written} bytes"))
}

pub(crate) fn write(path: &str) -> Outcome {
    require(fs::write(path, "text").is_err(), "nothing is written")?;
    require(fs::OpenOptions::new().append(true).open(path).is_err(), "nothing is appended")?;
    require(fs::create_dir(path).is_err(), "no folder is made")?;
    require(fs::remove_file(path).is_err(), "no file is removed")?;
    require(fs::rename(path, format!("{path}.moved")).is_err(), "nothing is renamed")?;
    let error = fs::write(path, "text").err().map(|error| error.kind().to_string());
    Ok(error.unwrap_or_default())
}
