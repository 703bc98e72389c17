//! The placeholders in an argument of a build command: `{out}` and `{dep:NAME}`.

use crate::escape;

/// A part of an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// Text that stands for itself.
    Text(&'a str),
    /// The path that the artifact is to be written to.
    Out,
    /// The path of the artifact of the guest with this name.
    Dep(&'a str),
}

/// A brace that belongs to no placeholder.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlaceholderError {
    /// Something else than `out` or `dep:NAME` between braces.
    #[error("`{{{}}}` is not a placeholder", escape::text(.0))]
    Unknown(String),
    /// A `{` without its `}`.
    #[error("a `{{` is not closed")]
    Unclosed,
    /// A `}` without its `{`.
    #[error("a `}}` has no `{{` before it")]
    Unopened,
}

/// Takes an argument apart. `{{` and `}}` are literal braces.
///
/// # Errors
///
/// [`PlaceholderError`] for the first brace that means nothing. An argument of a checked project has none.
pub fn pieces(argument: &str) -> Result<Vec<Piece<'_>>, PlaceholderError> {
    let mut pieces = Vec::new();
    let mut rest = argument;
    while let Some(at) = rest.find(['{', '}']) {
        if at > 0 {
            pieces.push(Piece::Text(&rest[..at]));
        }
        let brace = &rest[at..];
        if brace.starts_with("{{") || brace.starts_with("}}") {
            pieces.push(Piece::Text(&brace[..1]));
            rest = &brace[2..];
        } else if let Some(inner) = brace.strip_prefix('{') {
            let (placeholder, after) = inner.split_once('}').ok_or(PlaceholderError::Unclosed)?;
            pieces.push(piece(placeholder)?);
            rest = after;
        } else {
            return Err(PlaceholderError::Unopened);
        }
    }
    if !rest.is_empty() {
        pieces.push(Piece::Text(rest));
    }
    Ok(pieces)
}

fn piece(placeholder: &str) -> Result<Piece<'_>, PlaceholderError> {
    match placeholder.split_once(':') {
        None if placeholder == "out" => Ok(Piece::Out),
        Some(("dep", name)) => Ok(Piece::Dep(name)),
        _ => Err(PlaceholderError::Unknown(placeholder.chars().take(40).collect())),
    }
}

#[cfg(test)]
mod tests {
    use super::Piece::{Dep, Out, Text};
    use super::*;

    #[test]
    fn placeholders_stand_anywhere() {
        assert_eq!(pieces("").unwrap(), []);
        assert_eq!(pieces("-O2").unwrap(), [Text("-O2")]);
        assert_eq!(pieces("{out}").unwrap(), [Out]);
        assert_eq!(
            pieces("-o={out},{dep:child-echo}.x").unwrap(),
            [Text("-o="), Out, Text(","), Dep("child-echo"), Text(".x")]
        );
    }

    #[test]
    fn doubled_braces_are_literal() {
        assert_eq!(pieces("{{out}}").unwrap(), [Text("{"), Text("out"), Text("}")]);
        assert_eq!(pieces("{{{out}}}").unwrap(), [Text("{"), Out, Text("}")]);
    }

    #[test]
    fn other_braces_are_errors() {
        assert_eq!(pieces("{foo}"), Err(PlaceholderError::Unknown("foo".to_owned())));
        assert_eq!(pieces("{}"), Err(PlaceholderError::Unknown(String::new())));
        assert_eq!(pieces("{out"), Err(PlaceholderError::Unclosed));
        assert_eq!(pieces("a}"), Err(PlaceholderError::Unopened));
        assert_eq!(pieces("{Out}").unwrap_err().to_string(), "`{Out}` is not a placeholder");
    }
}
