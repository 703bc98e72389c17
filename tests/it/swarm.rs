//! Two nodes that find each other through the capabilities of their guests.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;

use tempfile::TempDir;

use crate::support::{finish, probe_image, redact, wait, ww, ww_run};

/// The id at the end of an address.
fn id_of(addr: &str) -> &str {
    addr.rsplit_once("/p2p/").unwrap().1
}

/// Makes an identity in a file, and returns its peer id.
fn new_identity(image: &TempDir, file: &Path) -> String {
    let args = ["--identity", file.to_str().unwrap(), "--", "hold-peers"];
    let addrs = finish(&mut ww_run(image.path(), &args)).expect(0).stdout;
    id_of(addrs.lines().next().unwrap()).to_owned()
}

#[test]
fn two_nodes_connect_and_see_each_other() {
    let image = probe_image();
    for listen in ["/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/udp/0/quic-v1"] {
        let mut command = ww(&["-q", "run", "--listen", listen]);
        command.arg(image.path()).args(["--", "hold-peers"]);
        let mut server = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut said = BufReader::new(server.stdout.take().unwrap());
        let mut addr = String::new();
        said.read_line(&mut addr).unwrap();
        let addr = addr.trim_end();

        let identity = tempfile::tempdir().unwrap();
        let identity = identity.path().join("identity");
        let client_id = new_identity(&image, &identity);
        let args = ["--identity", identity.to_str().unwrap(), "--grant", "connect:127.0.0.0/8", "--", "connect"];
        let mut client = ww_run(image.path(), &args)
            .args([id_of(addr), addr])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut client_said = BufReader::new(client.stdout.take().unwrap());
        let mut line = String::new();
        client_said.read_line(&mut line).unwrap();
        assert!(line.starts_with(id_of(addr)), "the client's peers: {line}");

        let mut server_stdin = server.stdin.take().unwrap();
        // The server learns of it a little later than the client.
        let mut server_sees = |wanted: bool| {
            let mut peers = client_id.clone();
            while peers.contains(&client_id) != wanted || peers == client_id {
                server_stdin.write_all(b"\n").unwrap();
                peers.clear();
                assert_ne!(said.read_line(&mut peers).unwrap(), 0, "the server ended");
            }
        };
        server_sees(true);
        drop(client.stdin.take());
        assert!(wait(&mut client).success());
        server_sees(false);
        drop(server_stdin);
        assert!(wait(&mut server).success());
    }
}

#[test]
fn a_call_that_makes_no_sense_is_an_error_of_that_call() {
    let image = probe_image();
    let everywhere = ["--grant", "connect:0.0.0.0/0", "--grant", "connect:::/0", "--", "bad-address"];
    let done = finish(&mut ww_run(image.path(), &everywhere)).expect(0);
    insta::assert_snapshot!(redact(&done.stdout));
}

#[test]
fn an_identity_is_kept_in_its_file() {
    let image = probe_image();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("identity");
    assert_eq!(new_identity(&image, &file), new_identity(&image, &file));
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o644)).unwrap();
    let done = finish(&mut ww_run(image.path(), &["--identity", file.to_str().unwrap()])).expect(125);
    assert!(done.stderr.contains("chmod 600"), "{}", done.stderr);
}

#[test]
fn the_default_port_gives_way_and_says_so() {
    let image = probe_image();
    // Taken or not, one of the two must find it busy.
    let holder = std::net::TcpListener::bind("0.0.0.0:2020");
    let mut command = ww(&["run"]);
    let done = finish(command.arg(image.path()).args(["--", "no-read"])).expect(0);
    assert!(done.stderr.contains("busy"), "{}", done.stderr);
    drop(holder);
}

#[test]
fn an_address_that_is_none_is_an_error() {
    let image = probe_image();
    let mut command = ww(&["run", "--listen", "/ip4/nowhere/tcp/0"]);
    let done = finish(command.arg(image.path())).expect(125);
    assert!(done.stderr.contains("/ip4/nowhere/tcp/0"), "{}", done.stderr);
}
