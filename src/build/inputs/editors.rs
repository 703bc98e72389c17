//! Files that editors and file managers leave beside what people edit: inputs of nobody, whatever finds them.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

/// Whole names: by which Vim tries whether it may write to a folder, and what file managers keep.
const NAMES: [&str; 4] = ["4913", ".DS_Store", "Thumbs.db", "desktop.ini"];

/// What is in such a name somewhere: temporary files of JetBrains and of GIO, which many editors save with.
const PARTS: [&str; 3] = ["___jb_tmp___", "___jb_old___", ".goutputstream-"];

/// Whether a name is that of a file which an editor makes and removes by itself.
pub(super) fn is_left(name: &OsStr) -> bool {
    // Such names are theirs, so one that is not UTF-8 in what is before and after tells as well.
    let name = String::from_utf8_lossy(name.as_bytes());
    NAMES.contains(&&*name)
        || PARTS.iter().any(|part| name.contains(part))
        || is_swap(&name)
        // Backups, as Emacs, Vim, Kate and others name them.
        || name.len() > 1 && name.ends_with('~')
        // Emacs: the lock of a file and what it saves of one by itself.
        || name.starts_with(".#")
        || name.len() > 2 && name.starts_with('#') && name.ends_with('#')
}

/// Swap files of Vim and nano, `.NAME.swp`, and where there are several `.swo` to `.swa`; Vim tries with `.swx` and `.swpx` what
/// a folder can do. Kate has `.NAME.kate-swp`.
fn is_swap(name: &str) -> bool {
    let Some((file, end)) = name.strip_prefix('.').and_then(|name| name.rsplit_once('.')) else { return false };
    let is_swap = match end.strip_prefix("sw") {
        Some("px") => true,
        Some(letter) => letter.len() == 1 && letter.bytes().all(|letter| matches!(letter, b'a'..=b'p' | b'x')),
        None => end == "kate-swp",
    };
    is_swap && !file.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_editors_leave_is_known_by_its_name() {
        let left = [
            ".main.rs.swp",
            ".main.rs.swo",
            ".main.rs.swx",
            ".main.rs.swpx",
            ".main.rs.kate-swp",
            "main.rs~",
            ".#main.rs",
            "#main.rs#",
            "4913",
            ".DS_Store",
            "main.rs___jb_tmp___",
            ".goutputstream-X1Y2Z3",
        ];
        for name in left {
            assert!(is_left(OsStr::new(name)), "{name}");
        }
        let kept = [
            "main.rs",
            "main.swp",
            ".swp",
            "a.swift",
            ".x.swift",
            "~",
            "#",
            "##",
            "#x",
            "x#",
            "49130",
            ".gitignore",
            "",
        ];
        for name in kept {
            assert!(!is_left(OsStr::new(name)), "{name}");
        }
    }
}
