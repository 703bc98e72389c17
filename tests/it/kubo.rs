//! A real Kubo for the tests that want one: a private node in a temporary folder, which knows no peers.
//!
//! The variable `WW_KUBO` names the program `ipfs`, of the version that `scripts/kubo` installs; `make test-all` sets it.

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;

use serde_json::json;
use tempfile::TempDir;

use crate::support::{Done, finish, finish_with, skipped, wait};

/// What ends the daemon with the test, however that ends: this shell does when its input does.
const DAEMON: &str = r#""$1" daemon & read -r _; kill -KILL $!; wait"#;

/// A node of its own. Nothing runs until [`Kubo::start`]; most commands need no daemon.
pub(crate) struct Kubo {
    program: PathBuf,
    repository: TempDir,
    daemon: Option<Daemon>,
}

struct Daemon {
    shell: Child,
    reader: Option<JoinHandle<()>>,
    api: String,
    gateway: String,
    peer: String,
}

impl Kubo {
    /// A node with Kubo's own defaults for imports; `None`, which is said, where there is no Kubo to test with.
    pub(crate) fn new() -> Option<Self> {
        let Some(program) = program() else {
            skipped("kubo", "WW_KUBO does not name a Kubo: `make test-all` installs one");
            return None;
        };
        let kubo = Self { program, repository: tempfile::tempdir().unwrap(), daemon: None };
        // Ports by chance on loopback, no bootstrap peers, no discovery in the local network.
        kubo.run(&["init", "--profile=test"]);
        kubo.configure("Routing", json!({"Type": "none", "DelegatedRouters": []}));
        kubo.configure("Provide", json!({"Enabled": false}));
        kubo.configure("HTTPRetrieval", json!({"Enabled": false}));
        Some(kubo)
    }

    /// Changes a top-level key of the configuration. A running daemon does not notice.
    pub(crate) fn configure(&self, key: &str, value: serde_json::Value) {
        let path = self.repository().join("config");
        let mut config: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        config[key] = value;
        fs::write(path, config.to_string()).unwrap();
    }

    /// The node's folder: `$IPFS_PATH`. While the daemon runs, `api` in it holds its address.
    pub(crate) fn repository(&self) -> &Path {
        self.repository.path()
    }

    /// `ipfs` with these arguments. It asks the daemon if that runs.
    pub(crate) fn command<A: AsRef<OsStr>>(&self, args: &[A]) -> Command {
        let mut command = Command::new(&self.program);
        self.prepare(command.args(args));
        command
    }

    fn prepare(&self, command: &mut Command) {
        let repository = self.repository();
        // A home of its own, where it looks for more than its repository.
        command.env("IPFS_PATH", repository).env("HOME", repository).env("IPFS_TELEMETRY", "off").stdin(Stdio::null());
    }

    /// Runs `ipfs` with these arguments, which must succeed; gives what it prints, without the last end of line.
    #[track_caller]
    pub(crate) fn run<A: AsRef<OsStr>>(&self, args: &[A]) -> String {
        text(finish(&mut self.command(args)))
    }

    /// The same with an input.
    #[track_caller]
    pub(crate) fn run_with<A: AsRef<OsStr>>(&self, args: &[A], input: &[u8]) -> String {
        text(finish_with(&mut self.command(args), input.to_vec()))
    }

    /// Starts the daemon, and waits until it is ready.
    pub(crate) fn start(&mut self) {
        assert!(self.daemon.is_none(), "the daemon is running");
        let mut command = Command::new("sh");
        command.args(["-c", DAEMON, "sh"]).arg(&self.program);
        self.prepare(&mut command);
        let mut shell = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut said = BufReader::new(shell.stdout.take().unwrap());
        let (mut api, mut gateway, mut lines) = (None, None, String::new());
        loop {
            let mut line = String::new();
            assert_ne!(said.read_line(&mut line).unwrap(), 0, "the daemon ended:\n{lines}");
            lines.push_str(&line);
            match line.trim_end() {
                "Daemon is ready" => break,
                line => {
                    // It may listen on a unix socket, too.
                    let address = line.strip_prefix("RPC API server listening on ");
                    api = api.or(address.filter(|address| !address.starts_with("/unix/")).map(url));
                    gateway = gateway.or(line.strip_prefix("Gateway server listening on ").map(url));
                }
            }
        }
        // It would block once its pipe is full.
        let reader = std::thread::spawn(move || drop(said.read_to_end(&mut Vec::new())));
        let (api, gateway) = (api.expect("the daemon says where its API is"), gateway.expect("and its gateway"));
        self.daemon = Some(Daemon { shell, reader: Some(reader), api, gateway, peer: String::new() });
        let peer = self.run(&["id", "-f", "<addrs>"]).lines().next().map(str::to_owned);
        self.daemon.as_mut().expect("it was just set").peer = peer.expect("a node has an address");
    }

    /// Ends the daemon at once, as `kill -9` does.
    pub(crate) fn kill(&mut self) {
        drop(self.daemon.take());
        // Else commands would look for the daemon there.
        let _ = fs::remove_file(self.repository().join("api"));
    }

    /// Where the RPC API is: `http://127.0.0.1:…`, without a path.
    pub(crate) fn api(&self) -> &str {
        &self.running().api
    }

    /// Where the gateway is: `http://127.0.0.1:…`, without a path.
    pub(crate) fn gateway(&self) -> &str {
        &self.running().gateway
    }

    /// Where peers reach the node: `/ip4/127.0.0.1/tcp/…/p2p/…`.
    pub(crate) fn peer(&self) -> &str {
        &self.running().peer
    }

    fn running(&self) -> &Daemon {
        self.daemon.as_ref().expect("the daemon runs after `start`")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        wait(&mut self.shell);
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "a test stands for the command line")]
fn program() -> Option<PathBuf> {
    std::env::var_os("WW_KUBO").filter(|program| !program.is_empty()).map(PathBuf::from)
}

#[track_caller]
fn text(done: Done) -> String {
    let mut text = done.expect(0).stdout;
    text.truncate(text.trim_end_matches('\n').len());
    text
}

/// The URL of a server at a multiaddr.
fn url(multiaddr: &str) -> String {
    let [_, "ip4", host, "tcp", port, ..] = multiaddr.split('/').collect::<Vec<_>>()[..] else {
        panic!("not an address on TCP: {multiaddr}");
    };
    format!("http://{host}:{port}")
}

#[test]
fn a_node_serves_what_is_added_until_it_is_killed() {
    let Some(mut kubo) = Kubo::new() else { return };
    kubo.start();
    let cid = kubo.run_with(&["add", "-Q", "--cid-version=1"], b"hello world");
    assert_eq!(cid, "bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e");
    assert_eq!(kubo.run(&["cat", &cid]), "hello world");
    assert!(kubo.peer().starts_with("/ip4/127.0.0.1/tcp/"), "{}", kubo.peer());
    assert!(std::net::TcpStream::connect(kubo.gateway().strip_prefix("http://").unwrap()).is_ok());
    let address = kubo.api().strip_prefix("http://").unwrap().to_owned();
    assert!(std::net::TcpStream::connect(&address).is_ok());
    kubo.kill();
    assert!(std::net::TcpStream::connect(&address).is_err());
    assert_eq!(kubo.run(&["cat", &cid]), "hello world");
}
