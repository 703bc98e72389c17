//! What can be typed.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::{fmt, fs, io};

use futures::io::AsyncWriteExt;
use ww_guest::peer_capnp::host;

use crate::{NOT_FOUND, Shell, USAGE, escape, run};

/// How each command is used, and what it does.
const COMMANDS: [(&str, &str); 10] = [
    ("id", "the peer id of this node"),
    ("addrs", "the addresses that this node listens on"),
    ("peers", "the nodes that it is connected to"),
    ("connect ADDR/p2p/ID", "connects to the node at this address"),
    ("connect ID ADDR…", "connects to the node ID at one of the addresses"),
    ("run [-i] PATH [ARG…]", "runs a component of the image; with -i it reads this shell's input"),
    ("ls [PATH]", "lists a folder: / marks folders, @ links"),
    ("cat PATH…", "prints files"),
    ("echo [WORD…]", "has the host send the words back"),
    ("exit [CODE]", "ends the shell; the code of the last command unless given"),
];

/// What a command has to say, and its status.
pub(crate) struct Reply {
    pub(crate) output: Vec<u8>,
    pub(crate) status: u8,
}

/// A success that prints some text.
impl From<String> for Reply {
    fn from(text: String) -> Self {
        Self { output: text.into_bytes(), status: 0 }
    }
}

/// Why a command did nothing, or not all that it should.
pub(crate) enum Failure {
    NotFound,
    Usage(String),
    Failed(Box<dyn Error>),
}

impl Failure {
    pub(crate) fn status(&self) -> u8 {
        match self {
            Self::NotFound => NOT_FOUND,
            Self::Usage(_) => USAGE,
            Self::Failed(_) => 1,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound => f.write_str("no such command; `help` lists them"),
            Self::Usage(usage) => write!(f, "usage: {usage}"),
            Self::Failed(error) => f.write_str(&escape::text(&reason(error.as_ref()))),
        }
    }
}

/// What an error says, without what capnp-rpc puts before the text of an exception.
fn reason(error: &(dyn Error + 'static)) -> String {
    match error.downcast_ref::<ww_guest::capnp::Error>() {
        Some(exception) => exception.extra.trim_start_matches("remote exception: ").to_owned(),
        None => error.to_string(),
    }
}

impl<E: Into<Box<dyn Error>>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

/// Calls the command `name`.
pub(crate) async fn call(shell: &mut Shell, name: &str, args: &[&str]) -> Result<Reply, Failure> {
    match (name, args) {
        ("help", []) => Ok(help().into()),
        ("id", []) => id(&shell.host).await,
        ("addrs", []) => addrs(&shell.host).await,
        ("peers", []) => peers(&shell.host).await,
        ("connect", [addr]) if let Some(id) = peer_of(addr) => connect(&shell.host, id, &[addr]).await,
        ("connect", [id, addrs @ ..]) if !addrs.is_empty() => connect(&shell.host, id, addrs).await,
        ("run", ["-i", path, args @ ..]) => run::run(shell, path, args, run::Input::Shell).await,
        ("run", [path, args @ ..]) if *path != "-i" => run::run(shell, path, args, run::Input::Empty).await,
        ("ls", []) => list("/"),
        ("ls", [path]) => list(path),
        ("cat", paths) if !paths.is_empty() => cat(shell, paths).await,
        ("echo", words) => echo(shell, &words.join(" ")).await,
        _ => Err(misuse(name)),
    }
}

/// The failure for a command that does not exist, or not with such arguments.
fn misuse(name: &str) -> Failure {
    let is_of_name = |usage: &&str| usage.split(' ').next() == Some(name);
    let usages: Vec<&str> = COMMANDS.iter().map(|(usage, _)| *usage).filter(is_of_name).collect();
    match usages.as_slice() {
        [] if name != "help" => Failure::NotFound,
        [] => Failure::Usage("help".to_owned()),
        _ => Failure::Usage(usages.join(", or ")),
    }
}

fn help() -> String {
    let mut text = String::new();
    for (usage, purpose) in COMMANDS {
        text += &format!("{usage:<21} {purpose}\n");
    }
    text + "Words are split and quoted as in sh. The exit code of `run` is that of the component.\n"
}

async fn id(host: &host::Client) -> Result<Reply, Failure> {
    let response = host.id_request().send().promise.await?;
    Ok(format!("{}\n", escape::text(response.get()?.get_id()?.to_str()?)).into())
}

async fn addrs(host: &host::Client) -> Result<Reply, Failure> {
    let response = host.addrs_request().send().promise.await?;
    let mut text = String::new();
    for addr in response.get()?.get_addrs()? {
        text += &format!("{}\n", escape::text(addr?.to_str()?));
    }
    Ok(text.into())
}

/// One peer in a line, with its addresses after its id.
async fn peers(host: &host::Client) -> Result<Reply, Failure> {
    let response = host.peers_request().send().promise.await?;
    let mut text = String::new();
    for peer in response.get()?.get_peers()? {
        text += &escape::text(peer.get_id()?.to_str()?);
        for addr in peer.get_addrs()? {
            text += &format!(" {}", escape::text(addr?.to_str()?));
        }
        text.push('\n');
    }
    Ok(text.into())
}

/// The peer id at the end of an address.
fn peer_of(addr: &str) -> Option<&str> {
    let (_, id) = addr.rsplit_once("/p2p/")?;
    (addr.starts_with('/') && !id.is_empty() && !id.contains('/')).then_some(id)
}

async fn connect(host: &host::Client, id: &str, addrs: &[&str]) -> Result<Reply, Failure> {
    let mut request = host.connect_request();
    request.get().set_id(id);
    request.get().set_addrs(addrs)?;
    request.send().promise.await?;
    Ok(format!("connected to {}\n", escape::text(id)).into())
}

async fn echo(shell: &Shell, message: &str) -> Result<Reply, Failure> {
    let mut request = shell.executor.echo_request();
    request.get().set_message(message);
    let response = request.send().promise.await?;
    Ok(format!("{}\n", escape::text(response.get()?.get_response()?.to_str()?)).into())
}

/// The names in a folder, sorted; or the name of a file.
fn list(path: &str) -> Result<Reply, Failure> {
    let full_path = in_image(path);
    if !fs::metadata(&full_path).map_err(at(path))?.is_dir() {
        return Ok(format!("{}\n", escape::text(path)).into());
    }
    let mut names = Vec::new();
    for entry in fs::read_dir(&full_path).map_err(at(path))? {
        let entry = entry.map_err(at(path))?;
        let kind = entry.file_type().map_err(at(path))?;
        let mark = if kind.is_dir() {
            "/"
        } else if kind.is_symlink() {
            "@"
        } else {
            ""
        };
        names.push(format!("{}{mark}\n", escape::text(&entry.file_name().to_string_lossy())));
    }
    names.sort_unstable();
    Ok(names.concat().into())
}

/// Shows the contents of the files, one after the other, as they are. A file that cannot be read does not hide the others.
async fn cat(shell: &mut Shell, paths: &[&str]) -> Result<Reply, Failure> {
    let mut status = 0;
    for path in paths {
        match fs::read(in_image(path)).map_err(at(path)) {
            Ok(bytes) => shell.stdout.write_all(&bytes).await?,
            Err(failure) => {
                shell.complain(&format!("cat: {failure}")).await?;
                status = failure.status();
            }
        }
    }
    Ok(Reply { output: Vec::new(), status })
}

/// The path in the image; the shell's folder is the root.
pub(crate) fn in_image(path: &str) -> PathBuf {
    Path::new("/").join(path)
}

/// Adds the path to an error of the file system.
pub(crate) fn at(path: &str) -> impl Fn(io::Error) -> Failure {
    move |error| Failure::Failed(format!("{path}: {error}").into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_peer(addr: &str, expected: Option<&str>) {
        assert_eq!(peer_of(addr), expected, "{addr}");
    }

    #[test]
    fn finds_the_peer_of_an_address() {
        check_peer("/ip4/127.0.0.1/tcp/2020/p2p/12D3KooW", Some("12D3KooW"));
        check_peer("/p2p/Relay/p2p-circuit/p2p/Peer", Some("Peer"));
        check_peer("/ip4/127.0.0.1/tcp/2020", None);
        check_peer("/ip4/127.0.0.1/tcp/2020/p2p/", None);
        check_peer("/p2p/Relay/p2p-circuit", None);
        check_peer("12D3KooW", None);
    }

    fn check_misuse(name: &str, status: u8, expected: &str) {
        let failure = misuse(name);
        assert_eq!(failure.status(), status);
        assert!(failure.to_string().contains(expected), "{failure}");
    }

    #[test]
    fn says_how_a_command_is_used() {
        check_misuse("ls", 2, "usage: ls [PATH]");
        check_misuse("connect", 2, "usage: connect ADDR/p2p/ID, or connect ID ADDR…");
        check_misuse("help", 2, "usage: help");
        check_misuse("exit", 2, "usage: exit [CODE]");
        check_misuse("l", 127, "no such command");
        check_misuse("", 127, "no such command");
    }

    #[test]
    fn lists_every_command() {
        let help = help();
        assert!(help.contains("\nls [PATH]             lists"), "{help}");
        assert_eq!(help.lines().count(), COMMANDS.len() + 1);
    }

    #[test]
    fn errors_are_escaped() {
        assert_eq!(Failure::from("a\u{1b}b").to_string(), "a\\u{1b}b");
    }
}
