//! What is wrong with grants together, and with places of mounts: the same rules for flags, files of grants, Wetfiles and
//! images, so that nothing can be asked for that cannot be given.

use super::{Grant, GrantError};

/// How many grants there may be together. Far more than any program has a use for, and few enough to be read.
pub const GRANTS_MAX: usize = 64;

/// Where a cell has a folder of its own, unless all of its files are others.
const OWN_FOLDER: &str = "/tmp";

/// Why a path is no place for a mount, as a fragment after the path; `None` if it is one: an absolute path of names, without a
/// slash at the end but for `/` itself.
pub(super) fn wrong_place(path: &str) -> Option<&'static str> {
    let Some(names) = path.strip_prefix('/') else {
        return Some("it has to be an absolute path such as /data");
    };
    let mut names = names.split('/');
    match path {
        "/" => None,
        _ if names.clone().any(str::is_empty) => Some("it has two slashes one after the other"),
        _ if names.any(|name| matches!(name, "." | "..")) => Some("it has `.` or `..` in it"),
        _ if path.chars().any(crate::escape::is_hidden) => Some("it has a character that does not show"),
        _ => None,
    }
}

/// Whether a text can be the name of a variable that is asked for: what every shell takes for one (POSIX, XBD 3.216).
pub(super) fn is_variable(name: &str) -> bool {
    !name.starts_with(|first: char| first.is_ascii_digit())
        && !name.is_empty()
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// What is wrong with grants that each are in order, the first thing of it: two that are the same, or mounts at one place; a
/// mount at a place that is the cell's own; or too many of them.
///
/// # Errors
/// If there is such a thing. With it comes the index of the grant that is to blame.
pub fn check(grants: &[Grant]) -> Result<(), (usize, GrantError)> {
    let has_own_folder = !grants.iter().any(|grant| grant.place() == Some("/"));
    for (index, grant) in grants.iter().enumerate() {
        let earlier = || grants.iter().take(index);
        let error = match grant.place() {
            _ if index >= GRANTS_MAX => GrantError::TooMany,
            Some(OWN_FOLDER) if has_own_folder => GrantError::OwnFolder,
            Some(place) if earlier().any(|other| other.place() == Some(place)) => {
                GrantError::SamePlace { path: place.to_owned() }
            }
            None if earlier().any(|other| other == grant) => GrantError::Twice { grant: grant.to_string() },
            _ => continue,
        };
        return Err((index, error));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_absolute_paths_of_names() {
        for path in ["/", "/data", "/a/b c/…", "/tmp"] {
            assert_eq!(wrong_place(path), None, "{path}");
        }
        for path in ["", "data", "/data/", "//", "/a//b", "/.", "/a/../b", "/a\n"] {
            assert!(wrong_place(path).is_some(), "{path}");
        }
    }

    #[test]
    fn variables_have_names() {
        assert!(["A", "_", "HOME", "a1"].iter().all(|name| is_variable(name)));
        assert!(["", "1A", "A;touch x", "A B", "A=B", "ä", "A,B", "$(x)"].iter().all(|name| !is_variable(name)));
    }

    #[test]
    fn grants_are_in_order_together() {
        let check = |texts: &[&str], expected: &str| {
            let grants: Vec<_> = texts.iter().map(|text| Grant::parse_request(text).unwrap()).collect();
            let found = check(&grants).map_err(|(index, error)| format!("{index}: {error}"));
            assert_eq!(found.err().unwrap_or_default(), expected, "{texts:?}");
        };
        check(&["connect", "connect:10.0.0.0/8", "mount:/a", "mount:/a/b:rw", "mount:/tmp/x", "env:A", "env:B"], "");
        check(&["connect", "env:A", "connect"], "2: `connect` is there twice");
        check(&["mount:/a", "mount:/a/:rw"], "1: two mounts have the place `/a`");
        check(&["mount:/tmp"], "0: /tmp is the guest's own; mount below it, such as at /tmp/x");
        check(&["mount:/tmp", "mount:/"], "");
        let many: Vec<_> = (0..=GRANTS_MAX).map(|number| format!("env:A{number}")).collect();
        let many: Vec<_> = many.iter().map(String::as_str).collect();
        check(&many[1..], "");
        check(&many, "64: there are more than 64 grants");
    }
}
