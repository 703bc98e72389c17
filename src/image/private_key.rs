//! Recognises files that hold private keys, so that a folder listed whole does not publish one by accident.
//!
//! A net for accidents, not a guard against malice: a key that is compressed, or part of another format, passes.

use std::fmt;

/// The version of the rules here. It is raised with each change, so that files are looked at again that passed before.
pub const RULES: u32 = 1;

/// Names under which OpenSSH keeps private keys (ssh-keygen(1), FILES).
const NAMES: [&str; 7] = ["id_rsa", "id_dsa", "id_ecdsa", "id_ecdsa_sk", "id_ed25519", "id_ed25519_sk", "id_xmss"];

/// Endings of formats that exist to hold a private key: PKCS #12 (two spellings) and PuTTY. `.pem` and `.key` are not
/// among them, as certificates and public keys are called so as well; their content tells.
const ENDINGS: [&str; 3] = [".p12", ".pfx", ".ppk"];

/// Largest file whose content is looked at, in bytes. Keys, also many in one file, are far smaller.
pub const CONTENT_BYTES_MAX: u64 = 1 << 20;

/// What some editors write before a text in UTF-8.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Beginnings of lines that only a private key has: an OpenSSH key without its armour (PROTOCOL.key), PuTTY, age.
const BEGINNINGS: [&str; 3] = ["openssh-key-v1", "PuTTY-User-Key-File-", "AGE-SECRET-KEY-1"];

/// What gave a private key away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyEvidence {
    /// Its name, which only private keys have.
    Name,
    /// A line of its content.
    Content,
}

impl fmt::Display for KeyEvidence {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Name => "by its name",
            Self::Content => "by its content",
        })
    }
}

/// What gives a file away as a private key, if it is one: its name, or its content where that is no longer than
/// [`CONTENT_BYTES_MAX`], and known.
pub fn evidence(name: &str, content: Option<&[u8]>) -> Option<KeyEvidence> {
    if is_key_name(name) {
        return Some(KeyEvidence::Name);
    }
    content.is_some_and(is_key_content).then_some(KeyEvidence::Content)
}

/// Whether a file of this name is a private key.
pub(super) fn is_key_name(name: &str) -> bool {
    let ends_so = |ending: &&str| {
        let end = name.len().checked_sub(ending.len()).and_then(|start| name.get(start..));
        end.is_some_and(|end| end.eq_ignore_ascii_case(ending))
    };
    NAMES.iter().any(|known| name.eq_ignore_ascii_case(known)) || ENDINGS.iter().any(ends_so)
}

/// Whether a file with this content holds a private key.
///
/// Binary content counts only where it begins as a key does: a program that reads keys has their headers in it, too. A
/// byte order mark before a text and NULs after it do not make it binary.
pub(super) fn is_key_content(content: &[u8]) -> bool {
    let content = content.strip_prefix(BYTE_ORDER_MARK).unwrap_or(content).trim_ascii_start();
    let content = &content[..content.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)];
    let lines_that_count = if content.contains(&0) { 1 } else { usize::MAX };
    content.split(|byte| matches!(byte, b'\n' | b'\r')).take(lines_that_count).any(is_key_line)
}

/// A PEM header (RFC 7468) of any private key, OpenPGP's (RFC 9580, 6.2) among them, or one of [`BEGINNINGS`].
fn is_key_line(line: &[u8]) -> bool {
    let line = line.trim_ascii();
    if let Some(label) = line.strip_prefix(b"-----BEGIN ").and_then(|rest| rest.strip_suffix(b"-----")) {
        return label.ends_with(b"PRIVATE KEY") || label.ends_with(b"PRIVATE KEY BLOCK");
    }
    BEGINNINGS.iter().any(|beginning| line.starts_with(beginning.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for name in ["id_rsa", "id_ed25519", "ID_RSA", "id_ed25519_sk", "server.p12", "x.PFX", "login.ppk"] {
            assert!(is_key_name(name), "{name}");
        }
        for name in ["id_rsa.pub", "cert.pem", "public.key", "id", "p12", "main.wasm"] {
            assert!(!is_key_name(name), "{name}");
        }
    }

    #[test]
    fn contents() {
        let keys: [&[u8]; 13] = [
            b"-----BEGIN PRIVATE KEY-----\nMC4C",
            b"-----BEGIN RSA PRIVATE KEY-----\r\nMC4C",
            b"-----BEGIN ENCRYPTED PRIVATE KEY-----\n",
            b"-----BEGIN OPENSSH PRIVATE KEY-----\nb3Bl",
            b"-----BEGIN PGP PRIVATE KEY BLOCK-----\n\nlIYE",
            b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n-----BEGIN EC PRIVATE KEY-----\n",
            b"openssh-key-v1\0\0\0\0\x04none",
            b"PuTTY-User-Key-File-3: ssh-ed25519\n",
            b"# created: 2026\nAGE-SECRET-KEY-1QQQ\n",
            b"\xef\xbb\xbf-----BEGIN PRIVATE KEY-----\nMC4C",
            b"\xef\xbb\xbf\r\n-----BEGIN EC PRIVATE KEY-----\r\nMC4C",
            b"-----BEGIN PRIVATE KEY-----\nMC4C\n\0-----END",
            b"-----BEGIN CERTIFICATE-----\n-----BEGIN PRIVATE KEY-----\nMC4C\n\0\0",
        ];
        for key in keys {
            assert!(is_key_content(key), "{}", key.escape_ascii());
        }
        let others: [&[u8]; 6] = [
            b"",
            b"-----BEGIN PUBLIC KEY-----\nMC4C",
            b"-----BEGIN CERTIFICATE-----\n",
            b"ssh-ed25519 AAAA me@here\n",
            b"say -----BEGIN PRIVATE KEY----- in the middle of a line",
            b"\0asm\x01\0\0\0\n-----BEGIN PRIVATE KEY-----\n",
        ];
        for other in others {
            assert!(!is_key_content(other), "{}", other.escape_ascii());
        }
    }
}
