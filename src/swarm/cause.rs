//! One line out of libp2p's errors.

use std::error::Error;
use std::io;

/// The longest description, in bytes. Parts of it can come from the other side, such as QUIC's reason for closing.
const LEN_MAX: usize = 512;

/// What an error and its causes say, outermost first, without what is empty or said already.
///
/// libp2p nests its errors deeply. Many layers show nothing, or repeat what the next one says, so neither the outermost
/// message nor the plain chain can be shown to a person.
pub(super) fn describe(error: &(dyn Error + 'static)) -> String {
    let mut said = String::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let message = error.to_string();
        if !said.contains(&message) {
            if !said.is_empty() {
                said.push_str(": ");
            }
            said.push_str(&message);
        }
        next = cause_of(error);
    }
    said.truncate(said.floor_char_boundary(LEN_MAX));
    crate::escape::text(&said).into_owned()
}

/// The next error inside. `io::Error` hides one level: its `source` is that of the error it was made from.
fn cause_of<'error>(error: &'error (dyn Error + 'static)) -> Option<&'error (dyn Error + 'static)> {
    match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(inner) => Some(inner),
        None => error.source(),
    }
}

#[cfg(test)]
mod tests {
    use libp2p::TransportError;

    use super::*;

    #[test]
    fn says_everything_once() {
        let refused = io::Error::from_raw_os_error(111);
        let expected = refused.to_string();
        let nested = TransportError::Other(io::Error::other(TransportError::Other(io::Error::other(refused))));
        assert_eq!(describe(&nested), expected);
    }

    #[test]
    fn foreign_text_is_escaped_and_short() {
        let error = io::Error::other("\x1b[31m".to_owned() + &"ä".repeat(1000));
        let described = describe(&error);
        assert!(described.starts_with("\\u{1b}[31mä"), "{described}");
        assert!(described.len() < 600, "{}", described.len());
    }
}
