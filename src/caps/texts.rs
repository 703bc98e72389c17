//! Lists of texts that a guest sends.

use capnp::Error;

use crate::escape;

/// The most that `args` may be, and the same for `env`: as much as Linux gives both together by default is 2 MiB, of which
/// no program uses a part that counts.
const WORDS_MAX: u32 = 4096;
const WORDS_BYTES_MAX: usize = 512 * 1024;

/// The texts of the list `name`, which are looked at before they are copied: they may be `count_max`, and have `bytes_max`
/// bytes together.
///
/// # Errors
///
/// There are more, or one is not UTF-8.
pub(super) fn texts(
    name: &str,
    list: capnp::text_list::Reader<'_>,
    count_max: u32,
    bytes_max: usize,
) -> Result<Vec<String>, Error> {
    if list.len() > count_max {
        return Err(Error::failed(format!("`{name}` has {} entries, and {count_max} are allowed", list.len())));
    }
    let mut texts = Vec::new();
    let mut bytes_left = bytes_max;
    for text in list.iter() {
        let text = text?;
        bytes_left = bytes_left
            .checked_sub(text.len())
            .ok_or_else(|| Error::failed(format!("`{name}` has more than {bytes_max} bytes, which are allowed")))?;
        texts.push(text.to_string()?);
    }
    Ok(texts)
}

/// A program's arguments.
///
/// # Errors
///
/// There are too many, or one is not UTF-8.
pub(super) fn arguments(list: capnp::text_list::Reader<'_>) -> Result<Vec<String>, Error> {
    texts("args", list, WORDS_MAX, WORDS_BYTES_MAX)
}

/// The variables of an environment.
///
/// # Errors
///
/// There are too many, or one is not of the form `NAME=value`.
pub(super) fn variables(list: capnp::text_list::Reader<'_>) -> Result<Vec<(String, String)>, Error> {
    texts("env", list, WORDS_MAX, WORDS_BYTES_MAX)?.into_iter().map(variable).collect()
}

fn variable(entry: String) -> Result<(String, String), Error> {
    match entry.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(Error::failed(format!("`{}` in env is not of the form NAME=value", escape::short(&entry)))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use capnp::message::Builder;

    fn with<T>(
        entries: &[&str],
        read: impl FnOnce(capnp::text_list::Reader<'_>) -> Result<T, Error>,
    ) -> Result<T, String> {
        let mut message = Builder::new_default();
        let mut list = message.initn_root::<capnp::text_list::Builder<'_>>(entries.len() as u32);
        for (index, entry) in (0..).zip(entries) {
            list.set(index, entry);
        }
        read(list.into_reader()).map_err(|error| error.extra)
    }

    #[test]
    fn a_list_is_bounded_before_it_is_copied() {
        assert_eq!(with(&["a", "ä"], |list| texts("list", list, 2, 3)).unwrap(), ["a", "ä"]);
        let check = |count_max: u32, bytes_max: usize, expected: &str| {
            assert_eq!(with(&["a", "ä"], |list| texts("list", list, count_max, bytes_max)).unwrap_err(), expected);
        };
        check(1, 3, "`list` has 2 entries, and 1 are allowed");
        check(2, 2, "`list` has more than 2 bytes, which are allowed");
        let many = vec!["x"; 5000];
        assert_eq!(with(&many, arguments).unwrap_err(), "`args` has 5000 entries, and 4096 are allowed");
        let large = "x".repeat(WORDS_BYTES_MAX);
        with(&[&large], arguments).unwrap();
        let error = with(&["A=1", &large], variables).unwrap_err();
        assert_eq!(error, "`env` has more than 524288 bytes, which are allowed");
    }

    #[test]
    fn what_is_wrong_is_quoted_escaped_and_short() {
        let error = with(&[&"\x01".repeat(100_000)], variables).unwrap_err();
        assert!(error.starts_with("`\\u{1}\\u{1}") && error.len() < 2000, "{} bytes", error.len());
    }
}
