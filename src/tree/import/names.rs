//! What is in a folder, in little memory: there may be a million names.

use crate::folder::Kind;

/// Bytes that stand before each name: the kind, and the length of the name.
const HEAD_BYTES: usize = 1 + size_of::<u32>();

/// Names of files and symlinks, which are taken in the order in which they were added.
#[derive(Debug, Default)]
pub(super) struct Names {
    /// One after the other, each after its head.
    bytes: Vec<u8>,
    /// Where the first stands that was not taken.
    next: usize,
    /// How many were not taken.
    left: usize,
}

impl Names {
    /// Adds a name of a file or symlink.
    pub(super) fn push(&mut self, name: &str, is_symlink: bool) {
        let length = u32::try_from(name.len()).expect("no file system has names of 4 GiB");
        self.bytes.push(u8::from(is_symlink));
        self.bytes.extend_from_slice(&length.to_le_bytes());
        self.bytes.extend_from_slice(name.as_bytes());
        self.left += 1;
    }

    /// How many are left.
    pub(super) fn len(&self) -> usize {
        self.left
    }

    /// Takes the first.
    pub(super) fn take(&mut self) -> Option<(&str, Kind)> {
        let start = self.next;
        let end = self.skip()?;
        let kind = if self.bytes[start] == 1 { Kind::Symlink } else { Kind::File };
        let name = std::str::from_utf8(&self.bytes[start + HEAD_BYTES..end]).expect("names are added as text");
        Some((name, kind))
    }

    /// Takes the first ones, at most so many.
    pub(super) fn take_some(&mut self, most: usize) -> Self {
        let (start, before) = (self.next, self.left);
        for _ in 0..most {
            if self.skip().is_none() {
                break;
            }
        }
        let taken = Self { bytes: self.bytes[start..self.next].to_vec(), next: 0, left: before - self.left };
        if self.left == 0 {
            // A long list is not kept until the folder is made.
            *self = Self::default();
        }
        taken
    }

    /// Goes past the first, and gives where it ends.
    fn skip(&mut self) -> Option<usize> {
        if self.left == 0 {
            return None;
        }
        let length = self.bytes[self.next + 1..].first_chunk().expect("a name has a head");
        self.next += HEAD_BYTES + u32::from_le_bytes(*length) as usize;
        self.left -= 1;
        Some(self.next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_in_parts() {
        let mut names = Names::default();
        let long = "ä".repeat(300);
        let all = ["a", &long, "b", "", "c"];
        for (index, name) in all.iter().enumerate() {
            names.push(name, index == 2);
        }
        let mut found = Vec::new();
        for most in [0, 2, 1, 9, 9] {
            let mut some = names.take_some(most);
            assert_eq!(some.len(), most.min(all.len() - found.len()));
            while let Some((name, kind)) = some.take() {
                assert_eq!(kind == Kind::Symlink, found.len() == 2);
                found.push(name.to_owned());
            }
            assert_eq!(names.len(), all.len() - found.len());
        }
        assert_eq!(found, all);
        assert!(names.take().is_none());
    }
}
