//! Names of entries.

use std::fmt;

use super::VfsError;

/// The most bytes of a name, as on the file systems that people use.
pub const NAME_BYTES_MAX: usize = 255;

/// A name that an entry of a directory can have: not empty, neither `.` nor `..`, without `/` and NUL, and of at most
/// [`NAME_BYTES_MAX`] bytes. So it leads nowhere but into the directory that is asked for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Name<'a>(&'a str);

impl<'a> Name<'a> {
    /// Checks a name.
    ///
    /// # Errors
    /// If no entry can have it.
    pub fn new(name: &'a str) -> Result<Self, VfsError> {
        match name {
            "" => Err(VfsError::NoEntry),
            "." | ".." => Err(VfsError::Invalid),
            _ if name.len() > NAME_BYTES_MAX => Err(VfsError::NameTooLong),
            _ if name.bytes().any(|byte| byte == b'/' || byte == 0) => Err(VfsError::IllegalName),
            _ => Ok(Self(name)),
        }
    }

    /// The name.
    pub fn as_str(self) -> &'a str {
        self.0
    }
}

impl fmt::Display for Name<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_in_their_directory() {
        for bad in ["", ".", "..", "a/b", "/", "a\0b", &"x".repeat(256)] {
            assert!(Name::new(bad).is_err(), "{bad:?}");
        }
        for good in ["a", "...", ".hidden", "ä", "a b", "a\nb", &"x".repeat(255)] {
            assert_eq!(Name::new(good).unwrap().as_str(), good);
        }
    }
}
