//! Names of guests and images.

use std::borrow::Borrow;
use std::fmt;

use crate::escape;

/// Longest name in bytes, so that a name with an extension fits into any file system's 255-byte names and a build
/// variable made from it stays readable.
pub const NAME_BYTES_MAX: usize = 64;

/// The rule that every name follows, as a person reads it.
pub const NAME_RULE: &str = "a name has lowercase letters, digits and single hyphens between them, begins with a \
                             letter and is at most 64 bytes long";

/// A name that breaks [`NAME_RULE`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is not a valid name: {NAME_RULE}", escape::text(.0))]
pub struct NameError(String);

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident,)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// Takes a name that follows the rule.
            ///
            /// # Errors
            ///
            /// [`NameError`] when it does not.
            pub fn new(name: &str) -> Result<Self, NameError> {
                checked(name).map(Self)
            }

            /// The name as written.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        /// Texts are sorted and compared as names are.
        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(&self.0)
            }
        }
    )*};
}

names! {
    /// The name of a guest: `[a-z][a-z0-9]*(-[a-z0-9]+)*`, at most [`NAME_BYTES_MAX`] bytes.
    ///
    /// It is safe as a file name and in a terminal. That a guest of this name exists is not implied.
    GuestName,
    /// The name of an image, by the same rule as [`GuestName`].
    ImageName,
    /// The name of a profile of the Wetfile, by the same rule as [`GuestName`].
    ProfileName,
}

fn checked(name: &str) -> Result<String, NameError> {
    if is_name(name) { Ok(name.to_owned()) } else { Err(NameError(name.to_owned())) }
}

/// Whether a text follows [`NAME_RULE`].
pub(super) fn is_name(text: &str) -> bool {
    text.len() <= NAME_BYTES_MAX
        && text.starts_with(|first: char| first.is_ascii_lowercase())
        && text.split('-').all(|part| !part.is_empty() && part.bytes().all(is_name_byte))
}

/// The name that a text was probably meant to be: `Child_Echo` gives `child-echo`.
pub fn nearest_name(text: &str) -> Option<String> {
    if text.len() > NAME_BYTES_MAX {
        return None;
    }
    let lower = text.to_ascii_lowercase();
    let parts: Vec<&str> = lower.split(['-', '_', ' ', '.']).filter(|part| !part.is_empty()).collect();
    Some(parts.join("-")).filter(|name| is_name(name))
}

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_follow_the_rule() {
        for name in ["a", "pid0", "child-echo", "a-1-b", &"x".repeat(NAME_BYTES_MAX)] {
            assert_eq!(GuestName::new(name).unwrap().as_str(), name);
            assert_eq!(ImageName::new(name).unwrap().to_string(), name);
        }
    }

    #[test]
    fn names_that_break_the_rule() {
        let long = "x".repeat(NAME_BYTES_MAX + 1);
        for name in ["", "-a", "a-", "a--b", "0a", "A", "a_b", "ä", "a.b", "a/b", "..", "a\0", "a\n", &long] {
            assert!(GuestName::new(name).is_err(), "{name:?}");
            assert!(ImageName::new(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn the_error_says_the_rule_and_escapes_the_name() {
        let error = GuestName::new("A\x1b[2J").unwrap_err().to_string();
        assert!(error.starts_with("`A\\u{1b}[2J` is not a valid name: a name has lowercase letters"), "{error}");
    }

    #[test]
    fn nearest_names() {
        assert_eq!(nearest_name("Child_Echo").as_deref(), Some("child-echo"));
        assert_eq!(nearest_name("a--b-").as_deref(), Some("a-b"));
        assert_eq!(nearest_name("0day"), None);
        assert_eq!(nearest_name(""), None);
    }
}
