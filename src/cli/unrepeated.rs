//! Values of options that messages do not repeat.

use std::ffi::OsStr;
use std::fmt::Display;
use std::marker::PhantomData;
use std::str::FromStr;

use clap::builder::TypedValueParser;
use clap::error::ErrorKind;
use clap::{Arg, Command};

/// Parses addresses, in which people put passwords although they do not belong there. clap shows a value that is refused,
/// on a terminal or in the log of a CI system; here only the error is shown, which must leave a password out.
#[derive(Debug)]
pub(super) struct Unrepeated<T>(PhantomData<fn() -> T>);

impl<T> Default for Unrepeated<T> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T> Clone for Unrepeated<T> {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl<T> TypedValueParser for Unrepeated<T>
where
    T: FromStr<Err: Display> + Clone + Send + Sync + 'static,
{
    type Value = T;

    fn parse_ref(&self, command: &Command, arg: Option<&Arg>, value: &OsStr) -> Result<T, clap::Error> {
        let option = arg.map(ToString::to_string).unwrap_or_default();
        let refused = |why: &dyn Display| {
            let message = format!("invalid value for '{option}': {why}\n");
            clap::Error::raw(ErrorKind::ValueValidation, message).with_cmd(command)
        };
        let text = value.to_str().ok_or_else(|| refused(&"it is not UTF-8"))?;
        text.parse().map_err(|error| refused(&error))
    }
}
