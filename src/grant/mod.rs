//! What a cell may do and how much it may use, as data.
//!
//! Every cell starts with the same minimum: its standard streams, clocks, random numbers, its own image to be read, a
//! bounded `/tmp`, and a `Host` that tells about itself and starts children. A [`Grant`] is what it may do beyond that, and
//! is given by whoever runs it. [`Limits`] bound what it may use up. An image says in `etc/cell.toml` what it would like
//! ([`Request`]); that gives it nothing.
//!
//! Nothing here opens a file or enforces anything.

mod check;
mod limits;
mod network;
mod request;

use std::fmt;
use std::str::FromStr;

pub use check::{GRANTS_MAX, check};
#[cfg(test)]
pub(crate) use limits::limits;
pub use limits::{Limit, LimitError, LimitValue, Limits, limit_names};
pub use network::{Network, Reach};
pub use request::{REQUEST_BYTES_MAX, REQUEST_PATH, Request, RequestError};

pub use crate::quantity::{Bytes, Span};

/// Something that a cell may do beyond the minimum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Grant {
    /// Make this node connect to others, at addresses that are public, or in the network where one is named.
    Connect(Option<Network>),
    /// Open connections of its own (wasi:sockets), likewise.
    Network(Option<Network>),
    /// Use a folder of this machine at a path of its own.
    Mount(MountGrant),
    /// Have a variable of this process's environment.
    Env(String),
    /// Load programs and images that are named by their CID, from wherever this node gets them.
    Fetch,
    /// Control the terminal: raw mode, its size, and escape sequences.
    Terminal,
}

/// A folder of this machine and where a cell sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountGrant {
    /// The folder; `None` where an image asks for one, which cannot know it.
    pub source: Option<String>,
    /// The path in the cell.
    pub target: String,
    /// Whether the cell may change it.
    pub writable: bool,
}

/// Why a text is no grant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GrantError {
    /// Its name is unknown.
    #[error("`{}` is no grant; {}", crate::escape::short(.name), meant_or(.name, &Grant::NAMES, .forms))]
    Unknown {
        /// The name.
        name: String,
        /// All that there are, in their forms.
        forms: &'static str,
    },
    /// What follows the name is malformed.
    #[error("`{}` is not of the form {form}", crate::escape::short(.text))]
    Malformed {
        /// All of the text.
        text: String,
        /// How it should look.
        form: &'static str,
    },
    /// A mount has a place where nothing can be mounted.
    #[error("`{}` is no place for a mount: {reason}", crate::escape::text(.path))]
    Place {
        /// The path.
        path: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A variable cannot have such a name.
    #[error("`{}` is no name of a variable: it has letters, digits and _, and a digit is not the first", crate::escape::text(.name))]
    Variable {
        /// The name.
        name: String,
    },
    /// A mount is to be where the cell has a folder of its own.
    #[error("/tmp is the guest's own; mount below it, such as at /tmp/x")]
    OwnFolder,
    /// Two mounts have the same place.
    #[error("two mounts have the place `{}`", crate::escape::text(.path))]
    SamePlace {
        /// The path.
        path: String,
    },
    /// The same grant is there twice.
    #[error("`{}` is there twice", crate::escape::text(.grant))]
    Twice {
        /// The grant.
        grant: String,
    },
    /// There are more grants than there may be.
    #[error("there are more than {GRANTS_MAX} grants")]
    TooMany,
}

/// What was probably meant by a name that is none of those that there are; else what there is.
fn meant_or(name: &str, names: &[&str], all: &str) -> String {
    // No name is nearly as long, and the cost is that of both lengths.
    let near = names.iter().filter(|_| name.len() <= 32);
    let measured = near.map(|known| (strsim::damerau_levenshtein(&name.to_lowercase(), known), known));
    match measured.min().filter(|(distance, known)| *distance <= known.len() / 3) {
        Some((_, known)) => format!("did you mean `{known}`?"),
        None => format!("there are {all}"),
    }
}

/// The forms of all grants, and those in which an image asks.
const FORMS: &str = "connect[:NETWORK], network[:NETWORK], mount:SRC:DST[:rw], env:NAME, fetch and terminal";
const REQUEST_FORMS: &str = "connect[:NETWORK], network[:NETWORK], mount:DST[:rw], env:NAME, fetch and terminal";

/// The forms of grants.
const MOUNT_FORM: &str = "mount:SRC:DST or mount:SRC:DST:rw, with an absolute path DST";
const MOUNT_REQUEST_FORM: &str = "mount:DST or mount:DST:rw, with an absolute path DST";
const MOUNT_FLAG_FORM: &str = "SRC:DST or SRC:DST:rw, with an absolute path DST";
const ENV_FORM: &str = "env:NAME";
const CONNECT_FORM: &str = "connect or connect:NETWORK, such as connect:192.168.0.0/16";
const NETWORK_FORM: &str = "network or network:NETWORK, such as network:192.168.0.0/16";
const FETCH_FORM: &str = "fetch";
const TERMINAL_FORM: &str = "terminal";

impl Grant {
    /// The names of all kinds, in the order of the documentation.
    pub const NAMES: [&str; 6] = ["connect", "network", "mount", "env", "fetch", "terminal"];

    /// Reads what an image asks for, where a mount has no source.
    ///
    /// # Errors
    /// If it is no such grant.
    pub fn parse_request(text: &str) -> Result<Self, GrantError> {
        Self::parse(text, MountGrant::parse_request, MOUNT_REQUEST_FORM)
    }

    fn parse(
        text: &str,
        mount: impl Fn(&str) -> Result<MountGrant, GrantError>,
        mount_form: &'static str,
    ) -> Result<Self, GrantError> {
        let (name, rest) = match text.split_once(':') {
            Some((name, rest)) => (name, Some(rest)),
            None => (text, None),
        };
        let malformed = |form| GrantError::Malformed { text: text.to_owned(), form };
        let network = |form| match rest {
            None => Ok(None),
            Some(rest) => rest.parse().map(Some).map_err(|()| malformed(form)),
        };
        match name {
            "connect" => Ok(Self::Connect(network(CONNECT_FORM)?)),
            "network" => Ok(Self::Network(network(NETWORK_FORM)?)),
            "mount" => match rest.ok_or_else(|| malformed(mount_form)).and_then(mount) {
                Err(GrantError::Malformed { .. }) => Err(malformed(mount_form)),
                mount => mount.map(Self::Mount),
            },
            "env" => match rest {
                Some(name) if check::is_variable(name) => Ok(Self::Env(name.to_owned())),
                None | Some("") => Err(malformed(ENV_FORM)),
                Some(name) => Err(GrantError::Variable { name: name.to_owned() }),
            },
            "fetch" if rest.is_none() => Ok(Self::Fetch),
            "fetch" => Err(malformed(FETCH_FORM)),
            "terminal" if rest.is_none() => Ok(Self::Terminal),
            "terminal" => Err(malformed(TERMINAL_FORM)),
            _ => {
                let forms = if mount_form == MOUNT_REQUEST_FORM { REQUEST_FORMS } else { FORMS };
                Err(GrantError::Unknown { name: name.to_owned(), forms })
            }
        }
    }

    /// What is given to a cell that asks for this, as `--grant` takes it: what only its user can know is `SRC`.
    pub fn to_give(&self) -> String {
        match self {
            Self::Mount(MountGrant { source: None, target, writable }) => {
                let source = Some("SRC".to_owned());
                Self::Mount(MountGrant { source, target: target.clone(), writable: *writable }).to_string()
            }
            grant => grant.to_string(),
        }
    }

    /// Where it mounts, if it is a mount.
    pub fn place(&self) -> Option<&str> {
        match self {
            Self::Mount(mount) => Some(&mount.target),
            _ => None,
        }
    }

    /// Whether a cell that has this one has what is asked for.
    pub fn covers(&self, asked: &Self) -> bool {
        match (self, asked) {
            (Self::Connect(_), Self::Connect(None)) | (Self::Network(_), Self::Network(None)) => true,
            (Self::Connect(Some(given)), Self::Connect(Some(asked)))
            | (Self::Network(Some(given)), Self::Network(Some(asked))) => given.covers(asked),
            (Self::Mount(given), Self::Mount(asked)) => {
                // Who gives all files gives those, too.
                (given.target == asked.target || given.target == "/") && (given.writable || !asked.writable)
            }
            (given, asked) => given == asked,
        }
    }
}

impl FromStr for Grant {
    type Err = GrantError;

    fn from_str(text: &str) -> Result<Self, GrantError> {
        Self::parse(text, str::parse, MOUNT_FORM)
    }
}

impl fmt::Display for Grant {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = |formatter: &mut fmt::Formatter<'_>, name: &str, network: &Option<Network>| match network {
            Some(network) => write!(formatter, "{name}:{network}"),
            None => formatter.write_str(name),
        };
        match self {
            Self::Connect(network) => named(formatter, "connect", network),
            Self::Network(network) => named(formatter, "network", network),
            Self::Mount(MountGrant { source, target, writable }) => {
                formatter.write_str("mount:")?;
                if let Some(source) = source {
                    write!(formatter, "{source}:")?;
                }
                write!(formatter, "{target}{}", if *writable { ":rw" } else { "" })
            }
            Self::Env(name) => write!(formatter, "env:{name}"),
            Self::Fetch => formatter.write_str("fetch"),
            Self::Terminal => formatter.write_str("terminal"),
        }
    }
}

impl MountGrant {
    fn parse_request(text: &str) -> Result<Self, GrantError> {
        let (target, writable) = split_mode(text);
        match target.contains(':') {
            true => Err(GrantError::Malformed { text: text.to_owned(), form: MOUNT_REQUEST_FORM }),
            false => Ok(Self { source: None, target: place(target)?, writable }),
        }
    }
}

/// Reads `SRC:DST[:rw]`. A source may have colons, a target not.
impl FromStr for MountGrant {
    type Err = GrantError;

    fn from_str(text: &str) -> Result<Self, GrantError> {
        let (rest, writable) = split_mode(text);
        match rest.rsplit_once(':') {
            Some((source, target)) if !source.is_empty() && target.starts_with('/') => {
                Ok(Self { source: Some(source.to_owned()), target: place(target)?, writable })
            }
            _ => Err(GrantError::Malformed { text: text.to_owned(), form: MOUNT_FLAG_FORM }),
        }
    }
}

fn split_mode(text: &str) -> (&str, bool) {
    match text.strip_suffix(":rw") {
        Some(rest) => (rest, true),
        None => (text.strip_suffix(":ro").unwrap_or(text), false),
    }
}

/// The place of a mount, without the slash that a path may end with.
fn place(path: &str) -> Result<String, GrantError> {
    let place = path.strip_suffix('/').filter(|rest| !rest.is_empty()).unwrap_or(path);
    match check::wrong_place(place) {
        None => Ok(place.to_owned()),
        Some(reason) => Err(GrantError::Place { path: path.to_owned(), reason }),
    }
}

/// What a cell was given, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grants(pub Vec<Grant>);

impl Grants {
    /// Where it may make the node connect to, if anywhere.
    pub fn connect(&self) -> Option<Reach> {
        Reach::of(self.0.iter().filter_map(|grant| match grant {
            Grant::Connect(network) => Some(*network),
            _ => None,
        }))
    }

    /// Where it may open connections of its own to, if anywhere.
    pub fn network(&self) -> Option<Reach> {
        Reach::of(self.0.iter().filter_map(|grant| match grant {
            Grant::Network(network) => Some(*network),
            _ => None,
        }))
    }

    /// Whether it may control the terminal.
    pub fn terminal(&self) -> bool {
        self.0.contains(&Grant::Terminal)
    }

    /// The folders that it may use.
    pub fn mounts(&self) -> impl Iterator<Item = &MountGrant> {
        self.0.iter().filter_map(|grant| match grant {
            Grant::Mount(mount) => Some(mount),
            _ => None,
        })
    }

    /// The names of the variables that it may have.
    pub fn variables(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|grant| match grant {
            Grant::Env(name) => Some(name.as_str()),
            _ => None,
        })
    }

    /// Whether it may load programs and images by their CID.
    pub fn fetch(&self) -> bool {
        self.0.contains(&Grant::Fetch)
    }

    /// These and others, of which a mount takes the place of one of these that has the same target.
    pub fn overridden_by(mut self, others: Self) -> Self {
        let targets: Vec<_> = others.mounts().map(|mount| mount.target.as_str()).collect();
        self.0.retain(|grant| !matches!(grant, Grant::Mount(mount) if targets.contains(&mount.target.as_str())));
        self.0.extend(others.0);
        self
    }

    /// These without what says nothing new. A mount that is there twice stays, since it says where something is.
    pub fn without_repetition(self) -> Self {
        let mut kept: Vec<Grant> = Vec::new();
        for grant in self.0 {
            if grant.place().is_some() || !kept.contains(&grant) {
                kept.push(grant);
            }
        }
        Self(kept)
    }

    /// What is asked for and was not given.
    pub fn lacking<'a>(&self, asked: &'a [Grant]) -> Vec<&'a Grant> {
        asked.iter().filter(|asked| !self.0.iter().any(|given| given.covers(asked))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grants_come_back() {
        for text in [
            "connect",
            "connect:10.0.0.0/8",
            "connect:fd00::/8",
            "network",
            "network:127.0.0.1/32",
            "mount:/home/me/in:/data",
            "mount:with:colon:/data:rw",
            "env:HOME",
            "fetch",
            "terminal",
        ] {
            assert_eq!(text.parse::<Grant>().unwrap().to_string(), text);
        }
        assert_eq!("connect:127.0.0.1".parse::<Grant>().unwrap().to_string(), "connect:127.0.0.1/32");
        assert_eq!("mount:a:/b:ro".parse::<Grant>().unwrap().to_string(), "mount:a:/b");
        assert_eq!(Grant::parse_request("mount:/data:rw").unwrap().to_string(), "mount:/data:rw");
    }

    #[test]
    fn what_is_no_grant_is_refused_with_its_form() {
        let check = |text: &str, expected: &str| {
            assert_eq!(text.parse::<Grant>().unwrap_err().to_string(), expected);
        };
        check("conect", "`conect` is no grant; did you mean `connect`?");
        check("Mount:x:/y", "`Mount` is no grant; did you mean `mount`?");
        check(
            "everything",
            "`everything` is no grant; there are connect[:NETWORK], network[:NETWORK], mount:SRC:DST[:rw], env:NAME, fetch and terminal",
        );
        check("env:", "`env:` is not of the form env:NAME");
        check("env:A=B", "`A=B` is no name of a variable: it has letters, digits and _, and a digit is not the first");
        check("fetch:x", "`fetch:x` is not of the form fetch");
        check("terminal:x", "`terminal:x` is not of the form terminal");
        for text in ["connect:", "connect:10.0.0.0/33", "connect:host", "connect:::/129", "connect:10.0.0.0/+8"] {
            check(text, &format!("`{text}` is not of the form {CONNECT_FORM}"));
        }
        for text in ["mount", "mount:/a", "mount:a:b", "mount::/b", "mount:a:/b:rw:rw"] {
            check(text, &format!("`{text}` is not of the form {MOUNT_FORM}"));
        }
        check("mount:a:/b//c", "`/b//c` is no place for a mount: it has two slashes one after the other");
        assert_eq!("mount:a:/b/".parse::<Grant>().unwrap().to_string(), "mount:a:/b");
        assert_eq!("mount:a:/".parse::<Grant>().unwrap().to_string(), "mount:a:/");
        assert!(Grant::parse_request("mount:a:/b").is_err());
        assert!(Grant::parse_request("mount:b").is_err());
    }

    #[test]
    fn the_names_are_those_that_are_read() {
        for name in Grant::NAMES {
            assert!(!matches!(name.parse::<Grant>(), Err(GrantError::Unknown { .. })), "{name}");
        }
        let shown = |text: &str| Grant::parse_request(text).unwrap().to_give();
        assert_eq!((shown("mount:/b:rw"), shown("connect")), ("mount:SRC:/b:rw".to_owned(), "connect".to_owned()));
    }

    #[test]
    fn later_mounts_take_the_place_of_earlier_ones() {
        let grants = |texts: &[&str]| Grants(texts.iter().map(|text| text.parse().unwrap()).collect());
        let joined = grants(&["connect", "mount:/a:/x", "mount:/b:/y"]).overridden_by(grants(&["mount:/c:/x:rw"]));
        assert_eq!(joined, grants(&["connect", "mount:/b:/y", "mount:/c:/x:rw"]));
    }

    #[test]
    fn connections_go_where_one_of_the_grants_allows() {
        let grants = |texts: &[&str]| Grants(texts.iter().map(|text| text.parse().unwrap()).collect());
        let loopback = grants(&["connect:127.0.0.0/8"]).connect().unwrap();
        assert!(loopback.allows("127.0.0.1".parse().unwrap()));
        assert!(!loopback.allows("1.1.1.1".parse().unwrap()));
        let both = grants(&["connect:127.0.0.0/8", "connect"]).connect().unwrap();
        assert!(both.allows("127.0.0.1".parse().unwrap()) && both.allows("1.1.1.1".parse().unwrap()));
        assert_eq!(grants(&["connect"]).network(), None);
    }

    #[test]
    fn a_reach_covers_what_is_no_wider() {
        let check = |own: &[&str], asked: &[&str], expected: bool| {
            let reach = |texts: &[&str]| {
                Grants(texts.iter().map(|text| text.parse().unwrap()).collect()).network().unwrap_or_default()
            };
            assert_eq!(reach(own).covers(&reach(asked)), expected, "{asked:?} of {own:?}");
        };
        check(&["network"], &["network"], true);
        check(&["network"], &["network:10.0.0.0/8"], false);
        check(&["network:10.0.0.0/8"], &["network"], false);
        check(&["network:10.0.0.0/8"], &["network:10.1.0.0/16", "network:10.0.0.1"], true);
        check(&["network:10.1.0.0/16"], &["network:10.0.0.0/8"], false);
        check(&["network", "network:10.1.0.0/16"], &["network:10.1.0.0/16", "network"], true);
        check(&[], &[], true);
    }

    #[test]
    fn grants_cover_what_is_asked() {
        let check = |given: &str, asked: &str, expected: bool| {
            let covers = given.parse::<Grant>().unwrap().covers(&Grant::parse_request(asked).unwrap());
            assert_eq!(covers, expected, "{given} for {asked}");
        };
        check("connect", "connect", true);
        check("connect:10.0.0.0/8", "connect", true);
        check("connect:10.0.0.0/8", "connect:10.1.0.0/16", true);
        check("connect:10.1.0.0/16", "connect:10.0.0.0/8", false);
        check("connect", "connect:10.0.0.0/8", false);
        check("connect", "network", false);
        check("mount:x:/data", "mount:/data", true);
        check("mount:x:/data", "mount:/data:rw", false);
        check("mount:x:/data:rw", "mount:/data", true);
        check("mount:x:/", "mount:/data", true);
        check("mount:x:/", "mount:/data:rw", false);
        check("env:A", "env:B", false);
        check("terminal", "terminal", true);
    }
}
