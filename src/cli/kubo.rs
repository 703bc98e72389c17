//! Which Kubo node is meant: the options of every command that speaks to one.

use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Once;

use clap::Args;

use super::error::{self, Failure};
use super::unrepeated::Unrepeated;
use super::{env, exit_code, ui};
use crate::escape;
use crate::remote::kubo::{Address, AddressError, ApiFileError, Client, ClientError, Options, Token};

/// Over these options. A heading for all that follows would take in what a command has after them.
const HEADING: &str = "Kubo";

/// The options.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct KuboArgs {
    /// RPC of the Kubo node: a URL, a multiaddr or unix:PATH; `none` for no node
    ///
    /// Without this option it is the node that the file `api` in $IPFS_PATH, or in ~/.ipfs, tells of, if the file belongs
    /// to this user.
    #[arg(long, value_name = "ADDRESS", value_parser = Unrepeated::<Node>::default(), help_heading = HEADING)]
    kubo: Option<Node>,

    /// File with the secret that the node asks for: a token, or USER:PASSWORD; only its owner may have access to it
    #[arg(long, value_name = "FILE", help_heading = HEADING)]
    kubo_token_file: Option<PathBuf>,

    /// Speak plain HTTP to a Kubo node on another machine, where everybody on the way can read and change it
    #[arg(long, help_heading = HEADING)]
    allow_plain_http: bool,
}

#[derive(Debug, Clone)]
enum Node {
    At(Address),
    None,
}

impl FromStr for Node {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if text == "none" { Ok(Self::None) } else { text.parse().map(Self::At) }
    }
}

/// What the options and the machine come to.
pub(super) enum Kubo {
    /// The node that the user named.
    Named(Client),
    /// One of which its file tells. It may have gone.
    Found(Client),
    /// The user wants none.
    Refused,
    /// None was named, and none was found that may be used; why not.
    Absent(String),
}

impl KuboArgs {
    /// Finds the node. Nothing is sent to it.
    ///
    /// # Errors
    /// If what the user said cannot be used. What cannot be used though nobody named it is only warned of.
    pub(super) fn find(&self) -> Result<Kubo, Failure> {
        let failed = |error: &dyn std::error::Error| Failure::new(exit_code::USAGE, error);
        let token = self.kubo_token_file.as_deref().map(Token::load).transpose().map_err(|error| failed(&error))?;
        let options = Options { token, allow_plain_http: self.allow_plain_http, ..Options::default() };
        match &self.kubo {
            Some(Node::None) => Ok(Kubo::Refused),
            Some(Node::At(address)) => match Client::new(address.clone(), options) {
                Ok(client) => Ok(Kubo::Named(client)),
                Err(error @ ClientError::Exposed { .. }) => {
                    Err(failed(&error).with_help("use https, or a tunnel; --allow-plain-http does it all the same"))
                }
                Err(error) => Err(failed(&error)),
            },
            None => Ok(look(options)),
        }
    }
}

/// The node of this user, if there is one that may be used.
fn look(options: Options) -> Kubo {
    let has_token = options.token.is_some();
    match local_node().map(|address| Client::new(address, options)) {
        Ok(Ok(client)) => Kubo::Found(client),
        Ok(Err(error)) => {
            let why = format!("the Kubo node of this user is not used: {}", error::chain(&error).join(": "));
            warn(&why);
            Kubo::Absent(why)
        }
        Err(why) => {
            if has_token {
                // A token is not for whoever may listen where a node usually does.
                warn(&format!("--kubo-token-file is not used: {why}; --kubo names the node"));
            }
            Kubo::Absent(why)
        }
    }
}

/// Warns the first time: a command looks for the node as often as it wants content.
fn warn(why: &str) {
    static WARNED: Once = Once::new();
    WARNED.call_once(|| ui::status(&format!("warning: {why}")));
}

/// Where the Kubo node of this user is, or why it is not known.
fn local_node() -> Result<Address, String> {
    let Some(folder) = env::kubo_folder() else {
        return Err("no Kubo API was found: neither IPFS_PATH nor HOME is set".into());
    };
    Address::of_local_node(&folder).map_err(|error| match &error {
        ApiFileError::Absent { path } => {
            format!("no Kubo API was found: there is no {} (in $IPFS_PATH, or ~/.ipfs)", escape::path(path))
        }
        error => format!("the Kubo API was not looked for: {error}"),
    })
}
