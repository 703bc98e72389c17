//! The file of pins: the only thing in a store that packs could not bring back.
//!
//! JSON, so that a person can read it: `{"pins": {"NAME": "CID", …}, "version": 1}`. It lies in the folder of packs, so one
//! fsync of that folder brings the names of a pack and of the pins to disk that a commit makes; it is replaced whole.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::super::{Pin, PinName, StoreError};
use super::Options;
use super::layout::{Layout, misplaced};
use super::lock::{self, Lock};
use crate::dag::Cid;

const FILE: &str = "pins.json";
const NEXT: &str = "pins.json.new";
const VERSION: u32 = 1;

/// The longest file that is read, in bytes: more than 100,000 pins.
const FILE_BYTES_MAX: u64 = 64 << 20;

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Document {
    pins: BTreeMap<String, String>,
    version: u32,
}

/// All pins.
pub(super) type Pins = BTreeMap<PinName, Cid>;

/// Reads the pins, of which there are none where there is no file.
pub(super) fn read(layout: &Layout) -> Result<Pins, StoreError> {
    let path = layout.packs_path(FILE);
    let file = match layout.packs.file(FILE) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Pins::new()),
        Err(error) => return Err(misplaced(error, &path, "a regular file")),
    };
    let mut text = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut text).map_err(StoreError::io("read", &path))?;
    parse(&text).map_err(|reason| StoreError::Pins { path, reason })
}

fn parse(text: &[u8]) -> Result<Pins, String> {
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(format!("the file is longer than {FILE_BYTES_MAX} bytes"));
    }
    let document: Document = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    if document.version != VERSION {
        return Err(format!("its version is {}, and this ww knows version {VERSION}", document.version));
    }
    let pin = |(name, root): (String, String)| {
        let name = PinName::new(name).map_err(|error| error.to_string())?;
        let root = root.parse().map_err(|_| format!("the root of pin {name} is not a CID"))?;
        Ok((name, root))
    };
    document.pins.into_iter().map(pin).collect()
}

/// As values for those who ask.
pub(super) fn list(pins: Pins) -> Vec<Pin> {
    pins.into_iter().map(|(name, root)| Pin { name, root }).collect()
}

/// A change of the pins. While this lives nobody else changes them.
pub(super) struct PinsChange<'a> {
    layout: &'a Layout,
    /// What is to be there.
    pub(super) pins: Pins,
    _lock: Lock,
}

/// The pins on disk under another name, until they get theirs.
pub(super) struct NextPins<'a> {
    layout: &'a Layout,
    _lock: Lock,
    is_used: bool,
}

impl<'a> PinsChange<'a> {
    /// Begins with the pins that are there.
    pub(super) fn begin(layout: &'a Layout, options: &Options) -> Result<Self, StoreError> {
        let lock = lock::moment(layout, "pins.lock", options)?;
        Ok(Self { layout, pins: read(layout)?, _lock: lock })
    }

    /// Brings the pins to disk, but not into use.
    pub(super) fn write(self) -> Result<NextPins<'a>, StoreError> {
        let text = |pins: Pins| {
            let pins = pins.into_iter().map(|(name, root)| (name.as_str().to_owned(), root.to_string())).collect();
            let mut text = serde_json::to_vec_pretty(&Document { pins, version: VERSION })?;
            text.push(b'\n');
            Ok::<_, io::Error>(text)
        };
        let next = NextPins { layout: self.layout, _lock: self._lock, is_used: false };
        let packs = &self.layout.packs;
        let written = packs.remove_file(NEXT).and_then(|()| packs.new_private_file(NEXT)).and_then(|mut file| {
            file.write_all(&text(self.pins)?)?;
            file.sync_data()
        });
        written.map_err(StoreError::io("write", path(self.layout)))?;
        Ok(next)
    }
}

impl NextPins<'_> {
    /// Brings the pins into use. They are so on disk when the folder of packs is.
    pub(super) fn rename(mut self) -> Result<(), StoreError> {
        self.layout
            .packs
            .replace(NEXT, &self.layout.packs, FILE)
            .map_err(StoreError::io("write", path(self.layout)))?;
        self.is_used = true;
        Ok(())
    }
}

impl Drop for NextPins<'_> {
    fn drop(&mut self) {
        if !self.is_used {
            let _ = self.layout.packs.remove_file(NEXT);
        }
    }
}

fn path(layout: &Layout) -> PathBuf {
    layout.packs_path(FILE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_file_of_pins_is_said() {
        let check = |text: &str, expected: &str| {
            let found = parse(text.as_bytes()).map_or_else(|reason| reason, |pins| format!("{} pins", pins.len()));
            assert!(found.starts_with(expected), "{text}: {found}");
        };
        check(r#"{"pins": {}, "version": 1}"#, "0 pins");
        check(r#"{"pins": {"a": "bafkqaaa", "b": "bafkqaaa"}, "version": 1}"#, "2 pins");
        check(r#"{"pins": {"a": "bafkqaaa"}, "version": 2}"#, "its version is 2");
        check(r#"{"pins": {"a": "x"}, "version": 1}"#, "the root of pin a is not a CID");
        check(r#"{"pins": {"a b": "bafkqaaa"}, "version": 1}"#, "the name of a pin cannot contain ' '");
        check(r#"{"pins": {}, "version": 1, "x": 1}"#, "unknown field");
        check("", "EOF");
        check("\0\0\0", "expected value");
    }
}
