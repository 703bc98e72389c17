//! The file of `--grant-file`: what a user gives a guest, written down once and not typed for each run.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;

use super::error::Failure;
use super::exit_code;
use crate::escape;
use crate::grant::{Grants, Limits, MountGrant, REQUEST_BYTES_MAX, Request, RequestError};
use crate::ops::is_within;
use crate::private_file::{self, Distrusted, Refused};

/// What a grant file looks like.
const FORM: &str = "it begins with `cell = 1`, then come `grants = [\"connect\", \"mount:SRC:DST\"]`, and `[limits]` with lines such as \
                    `memory = \"64MiB\"`; see docs/authority.md";

/// Why a file gives nothing.
#[derive(Debug, thiserror::Error)]
enum GrantFileError {
    /// It cannot be read.
    #[error("it cannot be read")]
    Read(#[source] io::Error),
    /// It is a folder, a pipe or a device.
    #[error("it is not a file")]
    NotAFile,
    /// Somebody else decides what is in it.
    #[error("it belongs to another user, whose number is {0}")]
    Owner(u32),
    /// Somebody else can change it.
    #[error("others can change it (its mode is {0:04o})")]
    Writable(u32),
    /// It has other names, which may lie where somebody can change it.
    #[error("it has {0} names (hard links), under each of which it can be changed")]
    Links(u64),
    /// It is no such file.
    #[error(transparent)]
    Malformed(#[from] RequestError),
}

/// Reads what a file gives. What it says is believed only if it belongs to this user, and nobody else can change it.
pub(super) fn read(path: &Path) -> Result<(Grants, Limits), Failure> {
    parse(path).map_err(|error| {
        let message = format!("the grant file {} cannot be used", escape::path(path));
        let failure = Failure::caused(exit_code::RUN_FAILURE, message, &error);
        match error {
            GrantFileError::Owner(_) => failure.with_help("use a copy of your own: what it gives, you give"),
            GrantFileError::Writable(_) => failure.with_help("`chmod go-w` takes that from them"),
            GrantFileError::Links(_) => failure.with_help("use a copy of it"),
            GrantFileError::Malformed(_) => failure.with_help(FORM),
            GrantFileError::Read(_) | GrantFileError::NotAFile => failure,
        }
    })
}

/// Refuses a file that the cell could change, since it lies in a folder that is given to it to be changed: what it wrote there
/// would be given to it with the next run.
pub(super) fn refuse_within_reach(path: &Path, grants: &Grants) -> Result<(), Failure> {
    let Some(source) = mount_that_holds(path, grants, |mount| mount.writable) else { return Ok(()) };
    let (path, source) = (escape::path(path), escape::text(source));
    let message =
        format!("the grant file {path} cannot be used: the guest could change it, which is given {source}:rw");
    Err(Failure::message(exit_code::RUN_FAILURE, message).with_help(ELSEWHERE))
}

/// Refuses a file with the key of the node that the cell could read, or change, since it lies in a folder that is given to it.
pub(super) fn refuse_key_within_reach(path: &Path, grants: &Grants) -> Result<(), Failure> {
    let Some(source) = mount_that_holds(path, grants, |_| true) else { return Ok(()) };
    let (path, source) = (escape::path(path), escape::text(source));
    let message = format!("the identity {path} cannot be used: the guest could read the key, which is given {source}");
    Err(Failure::message(exit_code::RUN_FAILURE, message).with_help(ELSEWHERE))
}

const ELSEWHERE: &str = "keep it elsewhere, or mount a folder that does not hold it";

/// The folder of a mount that a file of this user lies in, which may not be there yet.
fn mount_that_holds<'g>(path: &Path, grants: &'g Grants, counts: impl Fn(&MountGrant) -> bool) -> Option<&'g str> {
    // The file itself, and the name that it has here, which may be that of a link.
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let places = [path, folder].map(fs::canonicalize).into_iter().flatten();
    let places: Vec<_> = places.collect();
    let mut sources = grants.mounts().filter(|mount| counts(mount)).filter_map(|mount| mount.source.as_deref());
    sources.find(|source| {
        let Ok(folder) = fs::canonicalize(source) else { return false };
        // What cannot be looked at is not taken for harmless.
        places.iter().any(|place| is_within(place, &folder).unwrap_or(true))
    })
}

fn parse(path: &Path) -> Result<(Grants, Limits), GrantFileError> {
    // Whoever opens a pipe would wait for its writer.
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path).map_err(GrantFileError::Read)?;
    let metadata = file.metadata().map_err(GrantFileError::Read)?;
    if metadata.is_file() && metadata.nlink() > 1 {
        return Err(GrantFileError::Links(metadata.nlink()));
    }
    let bytes = private_file::read_trusted(file, REQUEST_BYTES_MAX).map_err(|distrusted| match distrusted {
        Distrusted::Owner(user) => GrantFileError::Owner(user),
        Distrusted::Refused(Refused::Io(source)) => GrantFileError::Read(source),
        Distrusted::Refused(Refused::NotAFile) => GrantFileError::NotAFile,
        Distrusted::Refused(Refused::Permissions(mode)) => GrantFileError::Writable(mode),
        Distrusted::Refused(Refused::TooLong) => RequestError::TooLong { size: REQUEST_BYTES_MAX + 1 }.into(),
    })?;
    Ok(Request::given_from_bytes(&bytes)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    /// What is said of a file with this content and mode: an error with its cause, or what it gives.
    fn read_file(content: &[u8], mode: u32) -> String {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), content).unwrap();
        fs::set_permissions(file.path(), Permissions::from_mode(mode)).unwrap();
        match read(file.path()) {
            Ok(given) => format!("{given:?}"),
            Err(failure) => {
                assert!(failure.message.starts_with("the grant file /"), "{}", failure.message);
                failure.causes.join(": ")
            }
        }
    }

    #[test]
    fn a_file_of_ones_own_is_believed() {
        for mode in [0o600, 0o400, 0o644] {
            let given = read_file(b"cell = 1\ngrants = [\"mount:/a:/b:rw\"]\n[limits]\nchildren = 2\n", mode);
            assert!(given.contains("source: Some(\"/a\")") && given.contains("Children"), "{given}");
        }
    }

    #[test]
    fn what_others_can_change_is_not_believed() {
        assert_eq!(read_file(b"cell = 1", 0o664), "others can change it (its mode is 0664)");
        assert_eq!(read_file(b"cell = 1", 0o602), "others can change it (its mode is 0602)");
    }

    #[test]
    fn a_file_that_the_guest_could_change_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir_all(at("given/below")).unwrap();
        fs::write(at("given/below/file"), "cell = 1").unwrap();
        fs::write(at("file"), "cell = 1").unwrap();
        std::os::unix::fs::symlink("given/below/file", at("link")).unwrap();
        std::os::unix::fs::symlink("../file", at("given/link")).unwrap();
        let check = |path: &str, mode: &str, expected: bool| {
            let grants = Grants(vec![format!("mount:{}:/data{mode}", at("given").display()).parse().unwrap()]);
            assert_eq!(refuse_within_reach(&at(path), &grants).is_ok(), expected, "{path}{mode}");
        };
        check("file", ":rw", true);
        check("given/below/file", "", true);
        check("given/below/file", ":rw", false);
        check("link", ":rw", false);
        check("given/link", ":rw", false);
        let check_key = |path: &str, expected: bool| {
            let grants = Grants(vec![format!("mount:{}:/data", at("given").display()).parse().unwrap()]);
            assert_eq!(refuse_key_within_reach(&at(path), &grants).is_ok(), expected, "{path}");
        };
        check_key("file", true);
        check_key("not-there", true);
        check_key("given/below/file", false);
        check_key("given/not-there", false);
        check_key("link", false);
    }

    #[test]
    fn a_file_with_two_names_is_not_believed() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("one"), "cell = 1").unwrap();
        fs::set_permissions(at("one"), Permissions::from_mode(0o600)).unwrap();
        assert!(read(&at("one")).is_ok());
        fs::hard_link(at("one"), at("two")).unwrap();
        assert_eq!(
            read(&at("one")).unwrap_err().causes,
            ["it has 2 names (hard links), under each of which it can be changed"]
        );
    }

    #[test]
    fn what_is_no_grant_file_is_said() {
        assert_eq!(read_file(b"cell = 2", 0o600), "its format is version 2, and this ww knows version 1");
        assert_eq!(read_file(b"\xff", 0o600), "it is not text in UTF-8");
        assert_eq!(read_file(&[b'#'; 65_537], 0o600), "it has 65537 bytes, and at most 65536 are read");
        assert!(read_file(b"cell = 1\ngrants = [\"\x1b[2J\"]", 0o600).starts_with("it is not valid in line 2"));
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(read(folder.path()).unwrap_err().causes, ["it is not a file"]);
        assert_eq!(read(&folder.path().join("gone")).unwrap_err().causes[0], "it cannot be read");
    }
}
