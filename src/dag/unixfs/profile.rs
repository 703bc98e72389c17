//! Import profiles: all parameters that the CID of a tree depends on.

use std::fmt;
use std::str::FromStr;

use super::super::Version;

/// The parameters under which a tree becomes blocks. Two trees have the same CID if and only if they are equal and were
/// built under equal parameters (up to coincidence: small trees come out the same under several profiles).
///
/// Values: IPIP-499 (<https://specs.ipfs.tech/ipips/ipip-0499/>) for the two profiles that it names; Kubo 0.43's
/// `config/import.go` for the third and for [`Profile::hamt_fanout`]. Common to all and no parameter: hash SHA2-256,
/// balanced layout, links before data, HAMT hash murmur3, empty directories and hidden files kept, symbolic links kept,
/// modes and times left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Profile {
    /// The name.
    pub name: &'static str,
    /// The version of all CIDs but those of raw leaves, which is always 1.
    pub cid_version: Version,
    /// The length of all pieces of a file but the last, in bytes. Chunkers of other kinds are not supported.
    pub chunk_bytes: usize,
    /// Whether a piece of a file is a plain block; otherwise a dag-pb node.
    pub raw_leaves: bool,
    /// The most links that a node of a file has.
    pub file_links_max: usize,
    /// What a directory's size is taken to be.
    pub directory_size: DirectorySize,
    /// A directory becomes a HAMT if its size in bytes is more than this.
    ///
    /// That is the rule of IPIP-499, and what Kubo does, but for one kind of directory, of which Kubo 0.43 may give now one
    /// CID and now another: larger than this by less than the length of a name, with directories in it. When Kubo puts these
    /// in place of the empty ones that it began with, it leaves their names out of the size (boxo 0.43,
    /// `HAMTDirectory.needsToSwitchToBasicDir`), and may go back to a single block.
    pub directory_size_max: usize,
    /// The number of buckets of a node of a HAMT: a power of two from 8 to [`super::FANOUT_MAX`].
    pub hamt_fanout: usize,
}

/// How the size of a directory is measured, which decides whether it becomes a HAMT (`HAMTSizeEstimation` of Kubo).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DirectorySize {
    /// The sum over all entries of the lengths of name and binary CID (Kubo: `links`).
    NamesAndCids,
    /// The exact length of the directory's block if it were no HAMT (Kubo: `block`).
    Block,
}

impl Profile {
    /// The modern profile of IPIP-499, and the default.
    pub const UNIXFS_V1_2025: Self = Self {
        name: "unixfs-v1-2025",
        cid_version: Version::V1,
        chunk_bytes: 1024 * 1024,
        raw_leaves: true,
        file_links_max: 1024,
        directory_size: DirectorySize::Block,
        directory_size_max: 256 * 1024,
        hamt_fanout: 256,
    };

    /// The legacy profile of IPIP-499: what `ipfs add -r -H` does without configuration.
    pub const UNIXFS_V0_2015: Self = Self {
        name: "unixfs-v0-2015",
        cid_version: Version::V0,
        chunk_bytes: 256 * 1024,
        raw_leaves: false,
        // 8192 bytes per node divided by 47 bytes per link, an estimate of 2015 (boxo's `helpers.DefaultLinksPerBlock`).
        file_links_max: 174,
        directory_size: DirectorySize::NamesAndCids,
        directory_size_max: 256 * 1024,
        hamt_fanout: 256,
    };

    /// What `ipfs add -r -H --cid-version=1` does without configuration: the CIDs and leaves of the modern profile, all
    /// else as in the legacy one.
    pub const KUBO_CIDV1: Self =
        Self { name: "kubo-cidv1", cid_version: Version::V1, raw_leaves: true, ..Self::UNIXFS_V0_2015 };

    /// All of them, the default first.
    pub const ALL: [Self; 3] = [Self::UNIXFS_V1_2025, Self::UNIXFS_V0_2015, Self::KUBO_CIDV1];
}

impl Default for Profile {
    fn default() -> Self {
        Self::UNIXFS_V1_2025
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name)
    }
}

/// No profile has this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no profile is called `{}`; there are {}", crate::escape::text(name), Profile::ALL.map(|profile| profile.name).join(", "))]
pub struct UnknownProfile {
    /// What was asked for.
    pub name: String,
}

impl FromStr for Profile {
    type Err = UnknownProfile;

    fn from_str(name: &str) -> Result<Self, UnknownProfile> {
        let found = Self::ALL.into_iter().find(|profile| profile.name == name);
        found.ok_or_else(|| UnknownProfile { name: name.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back() {
        for profile in Profile::ALL {
            assert_eq!(profile.to_string().parse(), Ok(profile));
        }
        let error = Profile::from_str("unixfs-v2").unwrap_err();
        assert_eq!(
            error.to_string(),
            "no profile is called `unixfs-v2`; there are unixfs-v1-2025, unixfs-v0-2015, kubo-cidv1"
        );
    }
}
