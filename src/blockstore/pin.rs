//! Names of roots that are to stay.

use std::fmt;
use std::str::FromStr;

use crate::dag::Cid;
use crate::escape;

/// The longest name of a pin, in bytes. Kubo has the same limit (`boxo/pinning/pinner`: 255).
pub const PIN_NAME_BYTES_MAX: usize = 255;

/// The name of a pin: not empty, at most [`PIN_NAME_BYTES_MAX`] bytes, without spaces, controls and characters that do not
/// show. So it can stand in a message, a list or a command line as it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PinName(String);

/// A root that is to stay with all that it links to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pin {
    /// Its name.
    pub name: PinName,
    /// The root.
    pub root: Cid,
}

/// Why a text is no name of a pin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PinNameError {
    /// It is empty.
    #[error("the name of a pin cannot be empty")]
    Empty,
    /// It is longer than [`PIN_NAME_BYTES_MAX`].
    #[error("the name of a pin cannot be longer than {PIN_NAME_BYTES_MAX} bytes")]
    TooLong,
    /// It has a space, a control character, or one that does not show.
    #[error("the name of a pin cannot contain {:?}", .0)]
    Character(char),
}

impl PinName {
    /// Checks a name.
    ///
    /// # Errors
    /// If it breaks a rule of names.
    pub fn new(name: impl Into<String>) -> Result<Self, PinNameError> {
        let name = name.into();
        if name.is_empty() {
            return Err(PinNameError::Empty);
        }
        if name.len() > PIN_NAME_BYTES_MAX {
            return Err(PinNameError::TooLong);
        }
        let is_bad = |character: &char| character.is_whitespace() || escape::is_hidden(*character);
        match name.chars().find(is_bad) {
            Some(character) => Err(PinNameError::Character(character)),
            None => Ok(Self(name)),
        }
    }

    /// The name of a pin that nobody gave one: the text of its root.
    pub fn of_root(root: &Cid) -> Self {
        Self(root.to_string())
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PinName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl FromStr for PinName {
    type Err = PinNameError;

    fn from_str(text: &str) -> Result<Self, PinNameError> {
        Self::new(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for name in ["pid0", "pid0@0.1.0+x", "größe", "/a/b", "bafkqaaa"] {
            assert_eq!(PinName::new(name).unwrap().as_str(), name);
        }
        assert_eq!(PinName::new(""), Err(PinNameError::Empty));
        assert!(PinName::new("x".repeat(255)).is_ok());
        assert_eq!(PinName::new("x".repeat(256)), Err(PinNameError::TooLong));
        for character in [' ', '\n', '\u{1b}', '\u{202e}', '\u{a0}', '\0'] {
            assert_eq!(PinName::new(format!("a{character}b")), Err(PinNameError::Character(character)));
        }
    }

    #[test]
    fn a_root_without_a_name_has_that_of_itself() {
        // The longest CID there is: an identity of 128 bytes.
        let hash = multihash::Multihash::wrap(0, &[7; 128]).unwrap();
        for cid in [Cid::new_v1(0x55, hash), "bafkqaaa".parse().unwrap()] {
            let name = PinName::of_root(&cid);
            assert_eq!(PinName::new(name.as_str()), Ok(name));
        }
    }
}
