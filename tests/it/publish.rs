//! `ww publish`: into a blockstore of its own, and to Kubo, real and played.

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::{self, ServerConfig, ServerConnection, StreamOwned};
use ww::remote::kubo::{Client, Options};

use crate::kubo::Kubo;
use crate::mock::{Mock, Step, answer, ok, ok_unfinished, ok_with_trailer};
use crate::support::{Done, collect, finish, guest, ww};

/// A user with state of their own, and a folder to work in.
struct User {
    dir: tempfile::TempDir,
}

impl User {
    fn new() -> Self {
        let user = Self { dir: tempfile::tempdir().unwrap() };
        fs::create_dir_all(user.path("work")).unwrap();
        user
    }

    fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    fn write(&self, path: &str, content: &[u8]) {
        let path = self.path("work").join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// The tree of `notes/kubo.md`: a file, a symlink and an empty file in a folder.
    fn with_tree() -> Self {
        let user = Self::new();
        user.write("tree/a", b"hi\n");
        user.write("tree/sub/empty", b"");
        symlink("a", user.path("work/tree/l")).unwrap();
        user
    }

    /// `ww publish` with these arguments. No Kubo is found.
    fn command(&self, args: &[&str]) -> Command {
        let mut command = ww(&["publish"]);
        command.args(args).current_dir(self.path("work"));
        command.env("WW_HOME", self.path("home")).env("IPFS_PATH", self.path("ipfs"));
        command
    }

    #[track_caller]
    fn publish(&self, args: &[&str]) -> Done {
        finish(&mut self.command(args))
    }

    #[track_caller]
    fn json(&self, args: &[&str], code: i32) -> Value {
        let done = self.publish(&[args, &["--json"]].concat()).expect(code);
        serde_json::from_str(&done.stdout).unwrap()
    }
}

// ipfs add -r -Q --only-hash, after `ipfs config profile apply unixfs-v1-2025`; the same with `--cid-version=1`.
const TREE: &str = "bafybeigqnm62qhgagkrfazvtfwthqdeohrhn64vebkyhyi4k6pvpofj3sm";
// Without.
const TREE_V0: &str = "QmSGNMQuqLmuMq5vnnN6kymRMjA6JytZW7wp6ovQW19DZP";

#[test]
fn a_folder_has_the_cid_that_kubo_gives() {
    let user = User::with_tree();
    let done = user.publish(&["tree"]).expect(0);
    assert_eq!(done.stdout, format!("folder tree: {TREE}\n"));
    assert!(done.stderr.starts_with("published 5 new blocks; read 3 B, "), "{}", done.stderr);
    let again = user.publish(&["./tree/"]).expect(0);
    assert_eq!((again.stdout, again.stderr), (format!("folder ./tree/: {TREE}\n"), String::new()));
    let quiet = finish(user.command(&["tree", "--profile", "unixfs-v0-2015"]).arg("-q")).expect(0);
    assert_eq!((quiet.stdout, quiet.stderr), (format!("{TREE_V0}\n"), String::new()));
    let path = user.path("work/tree").canonicalize().unwrap();
    let expected = json!({
        "profile": "unixfs-v1-2025",
        "published": [{
            "image": null, "path": path, "pin": "other", "cid": TREE, "files": 2, "size_bytes": 3,
            "dag_size_bytes": 204, "changed": true,
        }],
        "new_blocks": 0,
        "new_bytes": 0,
        "push": null,
    });
    assert_eq!(user.json(&["tree", "--name", "other"], 0), expected);
    let verbose = finish(user.command(&["tree"]).arg("-v")).expect(0);
    let looked = format!("not pushed: no Kubo API was found: there is no {}/api", user.path("ipfs").display());
    assert!(verbose.stderr.contains(&looked) && verbose.stderr.contains("--kubo names a node"), "{}", verbose.stderr);
}

#[test]
fn images_are_built_and_named_with_the_version() {
    let user = User::new();
    user.write("a.wasm", &fs::read(guest("child-echo")).unwrap());
    let image = |name: &str| {
        format!(
            "[image.{name}]\nout = \"out/{name}\"\n[image.{name}.files]\n\"bin/main.wasm\" = {{ path = \"a.wasm\" }}\n"
        )
    };
    let wetfile = |version: &str| {
        let head = format!("wetfile = 1\n[project]\nname = \"p\"\nversion = \"{version}\"\n");
        user.write("Wetfile.toml", format!("{head}{}{}", image("one"), image("two")).as_bytes());
    };
    wetfile("0.1.0");
    let shown = user.json(&[], 0);
    let pins = |shown: &Value| -> Vec<String> {
        let published = shown["published"].as_array().unwrap();
        published.iter().map(|image| image["pin"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(pins(&shown), ["one@0.1.0", "two@0.1.0"]);
    assert_eq!(shown["published"][0]["cid"], shown["published"][1]["cid"]);
    wetfile("0.2.0");
    let shown = user.json(&["two"], 0);
    assert_eq!((pins(&shown), &shown["new_blocks"]), (vec!["two@0.2.0".to_owned()], &json!(0)));
    assert_eq!(shown["published"][0]["image"], "two");
    // A folder with a slash is the folder.
    assert_eq!(pins(&user.json(&["out/two"], 0)), ["two"]);
    let wrong = user.publish(&["tow"]).expect(7);
    assert!(wrong.stderr.contains("did you mean `two`?"), "{}", wrong.stderr);
    let named = user.publish(&["two", "--name", "x"]).expect(2);
    assert!(named.stderr.contains("--name is for one folder"), "{}", named.stderr);
}

#[test]
fn all_is_published_or_nothing() {
    let user = User::with_tree();
    user.write("other/x", b"x");
    let socket = std::os::unix::net::UnixListener::bind(user.path("work/other/s")).unwrap();
    let failed = user.publish(&["tree", "other"]).expect(1);
    assert_eq!(failed.stdout, "");
    assert!(failed.stderr.contains("other/s is neither file, folder nor symlink"), "{}", failed.stderr);
    drop(socket);
    fs::remove_file(user.path("work/other/s")).unwrap();
    let shown = user.json(&["tree", "other"], 0);
    assert!(shown["published"].as_array().unwrap().iter().all(|item| item["changed"] == true), "{shown}");
    let twice = user.publish(&["tree", "./tree"]).expect(1);
    assert!(twice.stderr.contains("two of the trees have the name `tree`"), "{}", twice.stderr);
}

#[test]
fn what_is_no_folder_is_said() {
    let user = User::with_tree();
    symlink("tree", user.path("work/link")).unwrap();
    user.write("a b/x", b"x");
    for (args, code, expected) in [
        (&["absent/x"][..], 7, "there is no file or folder absent/x"),
        (&["tree/a"], 1, "tree/a is not a folder"),
        (&["link"], 1, "link is a symlink"),
        (&["a b"], 2, "the name of the folder a b cannot be that of a pin"),
        (&[], 3, "Wetfile"),
        (&["tree", "--profile", "x"], 2, "no profile is called `x`"),
        (&["tree", "--name", "a b"], 2, "cannot contain ' '"),
        (&["tree", "--kubo", "localhost:5001"], 2, "is no address of a Kubo RPC"),
        (&["tree", "--kubo", "http://192.0.2.1:5001"], 2, "refused to speak plain HTTP"),
        (&["tree", "--kubo-token-file", "absent"], 2, "cannot read the token file absent"),
        (&["tree", "--kubo", "none", "--kubo-token-file", "absent"], 2, "cannot read the token file absent"),
        (&["tree", "--kubo", "http://localhost:1", "--no-push"], 2, "cannot be used with"),
        (
            &["tree", "--kubo", "http://localhost:1", "--kubo-token-file", "absent"],
            2,
            "cannot read the token file absent",
        ),
    ] {
        let done = user.publish(args).expect(code);
        assert!(done.stderr.contains(expected) && done.stdout.is_empty(), "{args:?}: {}", done.stderr);
    }
    user.publish(&["a b", "--name", "a-b"]).expect(0);
}

#[test]
fn private_keys_go_nowhere() {
    let user = User::with_tree();
    user.write("tree/sub/id_ed25519", b"whatever");
    // Longer than a chunk.
    user.write("tree/keys.txt", &[&[b'\n'; 300 << 10][..], b"-----BEGIN RSA PRIVATE KEY-----\n"].concat());
    for profile in ["unixfs-v1-2025", "kubo-cidv1", "unixfs-v0-2015"] {
        // Nobody listens there, and nobody is to be asked.
        let args = ["tree", "--profile", profile, "--kubo", "http://127.0.0.1:1"];
        for _ in 0..2 {
            let done = user.publish(&args).expect(5);
            let error = format!("{}{}", done.stdout, done.stderr);
            let named = ["tree/keys.txt (by its content)\n", "tree/sub/id_ed25519 (by its name)\n"];
            assert!(named.iter().all(|line| error.contains(line)), "{error}");
            assert!(error.contains("--allow-private-keys") && !error.contains("127.0.0.1"), "{error}");
        }
    }
    let packs = |ending: &str| {
        let files = fs::read_dir(user.path("home/blockstore/packs")).unwrap().map(|entry| entry.unwrap().file_name());
        files.filter(|name| name.to_str().unwrap().ends_with(ending)).count()
    };
    assert_eq!(packs(".car"), 0);
    // What another command has read of the folder changes nothing.
    finish(ww(&["cid", "tree"]).current_dir(user.path("work"))).expect(0);
    user.publish(&["tree"]).expect(5);
    user.publish(&["tree", "--allow-private-keys"]).expect(0);
    user.publish(&["tree"]).expect(5);
}

#[test]
fn a_folder_with_the_name_of_a_guest_is_told() {
    let user = User::with_tree();
    let wetfile = "wetfile = 1\n[project]\nname = \"p\"\nversion = \"0.1.0\"\n[guest.tree]\npath = \"tree\"\n";
    user.write("Wetfile.toml", wetfile.as_bytes());
    user.write("tree/Cargo.toml", b"");
    let done = user.publish(&["tree"]).expect(0);
    assert!(done.stderr.starts_with("note: `tree` is a guest and no image in "), "{}", done.stderr);
    assert!(!user.publish(&["./tree"]).expect(0).stderr.contains("note:"));
}

/// A Kubo that has nothing yet, and answers an import so.
fn fresh_kubo(import: Vec<u8>) -> Mock {
    fresh_kubo_of(TREE, import)
}

/// The same for another tree than [`User::with_tree`]'s.
fn fresh_kubo_of(root: &str, import: Vec<u8>) -> Mock {
    let report = |message: &str| {
        let body = json!({ "Message": message, "Code": 0, "Type": "error" }).to_string();
        Step::Write(answer("500 Internal Server Error", "Content-Type: application/json\r\n", &body))
    };
    let asked = vec![
        Step::Read,
        report(&format!("path '{root}' is not pinned")),
        Step::Read,
        report(&format!("block was not found locally (offline): ipld: could not find {root}")),
        Step::Read,
        Step::Write(ok(&[format!("{{\"Pins\":[\"{root}\"]}}\n").as_bytes()])),
    ];
    Mock::start(vec![asked, vec![Step::Read, Step::Write(import)]])
}

fn root_line(pin_error: &str) -> String {
    json!({ "Root": { "Cid": { "/": TREE }, "PinErrorMsg": pin_error } }).to_string() + "\n"
}

const STATS: &str = "{\"Stats\":{\"BlockCount\":5,\"BlockBytesCount\":1}}\n";

#[test]
fn a_push_is_an_import_and_a_named_pin() {
    let user = User::with_tree();
    let mock = fresh_kubo(ok(&[root_line("").as_bytes(), STATS.as_bytes()]));
    let done = user.publish(&["tree", "--kubo", &format!("http://{}", mock.authority)]).expect(0);
    assert_eq!(done.stdout, format!("folder tree: {TREE}\n"));
    assert!(done.stderr.contains("pushed tree to http://127.0.0.1:"), "{}", done.stderr);
    let requests = mock.requests();
    let lines: Vec<_> = requests.iter().map(|request| request.lines().next().unwrap()).collect();
    assert_eq!(
        lines,
        [
            format!("POST /api/v0/pin/ls?type=recursive&names=true&stream=true&arg={TREE} HTTP/1.1"),
            format!("POST /api/v0/block/stat?arg={TREE}&offline=true HTTP/1.1"),
            "POST /api/v0/dag/import?pin-roots=true&stats=true HTTP/1.1".to_owned(),
            format!("POST /api/v0/pin/add?arg={TREE}&name=tree&offline=true HTTP/1.1"),
        ]
    );
}

/// The node of a folder with the file `f`, which is one raw block.
fn folder_node(content: &[u8]) -> Vec<u8> {
    let cid = [&[0x01, 0x55, 0x12, 0x20][..], &Sha256::digest(content)].concat();
    let link = [&[0x0a, 36][..], &cid, &[0x12, 1, b'f', 0x18, content.len() as u8]].concat();
    [&[0x12, link.len() as u8][..], &link, &[0x0a, 2, 0x08, 1]].concat()
}

impl User {
    /// A folder in which the file `a.bin` has the bytes of the node of the folder `sub`.
    fn with_a_node_as_a_file() -> Self {
        let user = Self::new();
        user.write("tree/sub/f", b"hidden?\n");
        user.write("tree/a.bin", &folder_node(b"hidden?\n"));
        user
    }
}

#[test]
fn what_is_below_a_node_is_sent_though_a_file_has_its_bytes() {
    let user = User::with_a_node_as_a_file();
    let root = user.json(&["tree", "--no-push"], 0)["published"][0]["cid"].as_str().unwrap().to_owned();
    let (line, stats) = (root_line("").replace(TREE, &root), STATS.replace('5', "4"));
    let mock = fresh_kubo_of(&root, ok(&[line.as_bytes(), stats.as_bytes()]));
    user.publish(&["tree", "--kubo", &format!("http://{}", mock.authority)]).expect(0);
    assert!(mock.requests().iter().any(|request| request.contains("hidden?")), "{:?}", mock.requests());
}

#[test]
fn every_way_in_which_an_import_fails_is_one() {
    let root = root_line("");
    let (root, stats) = (root.as_bytes(), STATS.as_bytes());
    let failed = root_line("ipld: could not find x");
    let other = root_line("").replace(TREE, TREE_V0);
    let report = br#"{"Message":"it broke","Code":0,"Type":"error"}"#;
    let few = STATS.replace('5', "4");
    for (import, expected) in [
        (ok(&[failed.as_bytes(), stats]), "it says: ipld: could not find x"),
        (ok(&[root, stats, report]), "it says: it broke"),
        (ok_with_trailer(&[root, stats], "disk full"), "it says: disk full"),
        (ok_unfinished(&[root, stats]), "the answer is cut off"),
        (ok(&[]), "the answer is empty"),
        (ok(&[root]), "may have stopped half-way"),
        (ok(&[other.as_bytes(), stats]), &format!("answered about {TREE_V0} instead of {TREE}")),
        (ok(&[root, few.as_bytes()]), "read 4 blocks where 5 were sent"),
        (answer("403 Forbidden", "", "403 - Forbidden"), "access is denied (HTTP 403)"),
        (answer("405 Method Not Allowed", "", ""), "it does not know this request (HTTP 405)"),
        (answer("307 Temporary Redirect", "Location: http://127.0.0.1:9/\r\n", ""), "which is not followed"),
        (answer("200 OK", "Content-Type: text/html\r\n", "<html>"), "the answer is `text/html`"),
        (answer("500 Internal Server Error", "", "\x1b[2J"), "it answered with HTTP 500: \\u{1b}[2J"),
        (Vec::new(), "the exchange broke off"),
        (vec![b'x'; 100_000], "the exchange broke off"),
    ] {
        let user = User::with_tree();
        let mock = fresh_kubo(import);
        let done = user.publish(&["tree", "--kubo", &format!("http://{}", mock.authority)]).expect(6);
        assert_eq!(done.stdout, format!("folder tree: {TREE}\n"), "what is published locally stays");
        assert!(done.stderr.contains(expected), "{expected}: {}", done.stderr);
        assert!(done.stderr.contains("goes on with the push") && !done.stderr.contains('\x1b'), "{}", done.stderr);
        assert!(mock.requests().iter().all(|request| !request.contains("/pin/add")), "{expected}");
        assert_eq!(user.json(&["tree"], 0)["published"][0]["changed"], false);
    }
}

#[test]
fn a_failed_push_is_told_in_json() {
    let user = User::with_tree();
    let mock = Mock::answering(answer("403 Forbidden", "", "no"));
    let address = format!("http://{}", mock.authority);
    let shown = user.json(&["tree", "--kubo", &address], 6);
    assert_eq!(shown["published"][0]["cid"], TREE);
    let push = json!({
        "kubo": address, "pushed": 0, "blocks": 0, "bytes": 0,
        "error": {
            "message": format!("pin/ls failed at {address}"),
            "causes": ["access is denied (HTTP 403): no"],
        },
    });
    assert_eq!(shown["push"], push);
}

#[test]
fn a_unix_socket_and_a_token_are_used() {
    let user = User::with_tree();
    user.write("token", b"s3cret\n");
    let token = user.path("work/token");
    let socket = user.path("k.sock");
    let mock = Mock::start_unix(&socket, vec![vec![Step::Read, Step::Write(answer("403 Forbidden", "", "no"))]]);
    let args = ["tree", "--kubo", &format!("/unix{}", socket.display()), "--kubo-token-file", "token"];
    let refused = user.publish(&args).expect(2);
    assert!(refused.stderr.contains("others than its owner have access"), "{}", refused.stderr);
    fs::set_permissions(&token, fs::Permissions::from_mode(0o600)).unwrap();
    let done = finish(user.command(&args).args(["-v"]).env("RUST_LOG", "trace")).expect(6);
    assert!(!done.stderr.contains("s3cret"), "{}", done.stderr);
    let request = mock.requests().remove(0);
    assert!(request.starts_with("POST /api/v0/") && request.contains("authorization: Bearer s3cret"), "{request}");
}

/// A server on TLS with this certificate that denies everything; its address.
fn denying_tls_server(certified: &rcgen::CertifiedKey) -> String {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let key = PrivateKeyDer::try_from(certified.key_pair.serialize_der()).unwrap();
    let config = builder.with_no_client_auth().with_single_cert(vec![certified.cert.der().clone()], key).unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("https://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for stream in listener.incoming() {
            let connection = ServerConnection::new(config.clone()).unwrap();
            let mut stream = StreamOwned::new(connection, stream.unwrap());
            let mut head = Vec::new();
            // A client that does not trust the certificate goes away.
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                match stream.read(&mut byte) {
                    Ok(1) => head.push(byte[0]),
                    _ => break,
                }
            }
            let _ = stream.write_all(&answer("403 Forbidden", "", "no"));
            stream.conn.send_close_notify();
            let _ = stream.flush();
        }
    });
    address
}

#[test]
fn tls_is_for_those_whom_the_system_trusts() {
    let user = User::with_tree();
    let certified = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let other = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let file = user.path("certificate");
    for (certified, trusted, expected) in [
        (&certified, certified.cert.pem(), "access is denied (HTTP 403): no"),
        (&certified, other.cert.pem(), "no TLS connection came about"),
        (&other, other.cert.pem(), "no TLS connection came about"),
    ] {
        fs::write(&file, trusted).unwrap();
        let address = denying_tls_server(certified);
        let done = finish(user.command(&["tree", "--kubo", &address]).env("SSL_CERT_FILE", &file)).expect(6);
        assert!(done.stderr.contains(expected), "{}", done.stderr);
    }
}

#[test]
fn a_node_that_its_file_tells_of_is_used_if_it_can_be_trusted() {
    let user = User::with_tree();
    let folder = user.path("ipfs");
    fs::create_dir(&folder).unwrap();
    let file = folder.join("api");
    // A node that was killed leaves its file behind.
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let multiaddr = |port: &str| format!("/ip4/127.0.0.1/tcp/{port}");
    fs::write(&file, multiaddr(&gone.port().to_string())).unwrap();
    let stale = user.publish(&["tree"]).expect(0);
    assert!(stale.stderr.contains("warning: not pushed: nobody listens at"), "{}", stale.stderr);
    let mock = Mock::answering(answer("403 Forbidden", "", "no"));
    fs::write(&file, multiaddr(mock.authority.rsplit(':').next().unwrap())).unwrap();
    user.publish(&["tree"]).expect(6);
    assert_eq!(mock.requests().len(), 1);
    for args in [&["--no-push"][..], &["--offline"], &["--kubo", "none"]] {
        user.publish(&[&["tree"], args].concat()).expect(0);
    }
    fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).unwrap();
    let writable = user.publish(&["tree", "-v"]).expect(0);
    assert!(writable.stderr.contains("others may write"), "{}", writable.stderr);
    assert_eq!(mock.requests().len(), 1);
}

#[test]
fn a_node_that_may_not_be_spoken_to_is_as_good_as_none() {
    let user = User::with_tree();
    fs::create_dir(user.path("ipfs")).unwrap();
    fs::write(user.path("ipfs/api"), "/ip4/192.0.2.1/tcp/5001").unwrap();
    let warning =
        "warning: the Kubo node of this user is not used: refused to speak plain HTTP to http://192.0.2.1:5001";
    let done = user.publish(&["tree"]).expect(0);
    assert_eq!(done.stdout, format!("folder tree: {TREE}\n"));
    assert!(done.stderr.contains(warning), "{}", done.stderr);
    let file = format!("{TREE}/a");
    let mut cat = ww(&["cat", &file, &file]);
    let done = finish(cat.env("WW_HOME", user.path("home")).env("IPFS_PATH", user.path("ipfs"))).expect(0);
    assert_eq!(done.stdout, "hi\nhi\n");
    assert_eq!(done.stderr.matches(warning).count(), 1, "{}", done.stderr);
}

#[test]
fn a_token_without_a_node_is_not_passed_over() {
    let user = User::with_tree();
    let token = user.path("work/token");
    fs::write(&token, "s3cret\n").unwrap();
    fs::set_permissions(&token, fs::Permissions::from_mode(0o600)).unwrap();
    let done = user.publish(&["tree", "--kubo-token-file", "token"]).expect(0);
    let warning = "warning: --kubo-token-file is not used: no Kubo API was found";
    assert!(done.stderr.contains(warning) && done.stderr.contains("--kubo names the node"), "{}", done.stderr);
}

#[test]
fn passwords_are_not_repeated() {
    let user = User::with_tree();
    for (args, option, code) in [
        (&["publish", "tree"][..], "--kubo", 2),
        (&["cat", TREE], "--kubo", 2),
        (&["cat", TREE], "--gateway", 2),
        (&["run", TREE], "--gateway", 125),
    ] {
        for address in ["http://me:hunter2@localhost:5001", "me:hunter2@localhost:5001", "http://me:hunter2@:x"] {
            for value in [&[option, address][..], &[&format!("{option}={address}")]] {
                let mut command = ww(args);
                let done = finish(command.args(value).current_dir(user.path("work"))).expect(code);
                let is_said = done.stderr.contains(&format!("invalid value for '{option} <"));
                assert!(is_said && !done.stderr.contains("hunter2"), "{}", done.stderr);
            }
        }
    }
}

#[test]
fn a_signal_ends_a_push_and_leaves_what_is_published() {
    let user = User::with_tree();
    let mock = Mock::start(vec![vec![Step::Read, Step::Hang]]);
    let mut command = user.command(&["tree", "--kubo", &format!("http://{}", mock.authority)]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    while mock.requests().is_empty() {
        thread::sleep(std::time::Duration::from_millis(5));
    }
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let done = collect(child).expect(130);
    assert_eq!(done.stdout, format!("folder tree: {TREE}\n"));
    assert_eq!(user.json(&["tree"], 0)["published"][0]["changed"], false);
}

#[test]
fn kubo_has_what_was_published() {
    let Some(mut kubo) = Kubo::new() else { return };
    kubo.start();
    let user = User::with_tree();
    let found = |args: &[&str]| {
        let mut command = user.command(args);
        finish(command.env("IPFS_PATH", kubo.repository())).expect(0)
    };
    let done = found(&["tree"]);
    assert!(done.stderr.contains("pushed tree to http://127.0.0.1:"), "{}", done.stderr);
    assert_eq!(kubo.run(&["cat", &format!("/ipfs/{TREE}/a")]), "hi");
    assert_eq!(kubo.run(&["pin", "ls", "--type=recursive", "--names", TREE]), format!("{TREE} recursive tree"));
    let again = found(&["tree"]);
    assert!(again.stderr.contains("tree is at http://127.0.0.1:"), "{}", again.stderr);
    // Another version of the same image takes the name over, another image does not.
    let pin = || kubo.run(&["pin", "ls", "--type=recursive", "--names", TREE]);
    found(&["tree", "--name", "tree@2"]);
    assert_eq!(pin(), format!("{TREE} recursive tree@2"));
    let other = found(&["tree", "--name", "mine"]);
    assert!(other.stderr.contains("has the name `tree@2`, which was left"), "{}", other.stderr);
    assert_eq!(pin(), format!("{TREE} recursive tree@2"));
    // Odd names arrive as they are.
    user.write("odd/a b", b"1");
    user.write("odd/a%20b", b"2");
    user.write("odd/a+b", b"3");
    let odd = "bafybeig2e5r7jiczxoyis4f66h4rutahtovhpd4khoyeonojetubs3haua";
    assert_eq!(found(&["odd"]).stdout, format!("folder odd: {odd}\n"));
    assert_eq!(kubo.run(&["ls", odd]).lines().count(), 3);
    assert_eq!(kubo.run(&["cat", &format!("/ipfs/{odd}/a%20b")]), "2");
}

#[test]
fn kubo_has_what_is_below_a_node_whose_bytes_a_file_has() {
    let Some(mut kubo) = Kubo::new() else { return };
    kubo.start();
    let user = User::with_a_node_as_a_file();
    let shown = user.json(&["tree", "--kubo", kubo.api()], 0);
    assert_eq!(shown["push"]["blocks"], 4);
    let root = shown["published"][0]["cid"].as_str().unwrap();
    assert_eq!(kubo.run(&["cat", &format!("/ipfs/{root}/sub/f")]), "hidden?");
}

#[tokio::test]
async fn nodes_say_who_they_are_and_connect() {
    let (Some(mut kubo), Some(mut other)) = (Kubo::new(), Kubo::new()) else { return };
    kubo.start();
    other.start();
    let client = Client::new(kubo.api().parse().unwrap(), Options::default()).unwrap();
    let version = kubo.run(&["version", "--number"]);
    assert_eq!(client.version().await.unwrap().version, version);
    let id = client.id().await.unwrap();
    assert_eq!(id.id, kubo.peer().rsplit('/').next().unwrap());
    assert!(id.addresses.iter().any(|address| address == kubo.peer()), "{id:?}");
    assert!(id.agent.starts_with(&format!("kubo/{version}")), "{id:?}");
    client.swarm_connect(other.peer()).await.unwrap();
    assert!(kubo.run(&["swarm", "peers"]).contains(other.peer().rsplit('/').next().unwrap()));
    other.kill();
    client
        .swarm_connect("/ip4/127.0.0.1/tcp/1/p2p/12D3KooWNvSZnPi3RrhrTwEY4LuuBeB6K6facKUCJcyWG1aoDd2p")
        .await
        .unwrap_err();
}

/// Bytes that are not alike.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 1u64;
    let mut next = || {
        // A linear congruential generator (Knuth's MMIX).
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..length).map(|_| next()).collect()
}

/// Forwards connections to `target`, and breaks all of them once `bytes_max` bytes went there.
fn cutting_proxy(target: &str, bytes_max: usize) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let target = target.strip_prefix("http://").unwrap().to_owned();
    thread::spawn(move || {
        for client in listener.incoming() {
            let client = client.unwrap();
            let server = TcpStream::connect(&target).unwrap();
            let (mut back_in, mut back_out) = (server.try_clone().unwrap(), client.try_clone().unwrap());
            thread::spawn(move || drop(std::io::copy(&mut back_in, &mut back_out)));
            thread::spawn(move || {
                let (mut client, mut server) = (client, server);
                let _ = std::io::copy(&mut Read::by_ref(&mut client).take(bytes_max as u64), &mut server);
                let _ = (client.shutdown(Shutdown::Both), server.flush(), server.shutdown(Shutdown::Both));
            });
        }
    });
    address
}

#[test]
fn a_push_goes_on_where_it_broke_off() {
    const MIB: usize = 1 << 20;
    let Some(mut kubo) = Kubo::new() else { return };
    kubo.start();
    let user = User::new();
    // Kubo keeps blocks of an import in batches of 128 for each processor or fewer; these are 256.
    user.write("big/file", &noise(64 * MIB));
    let profile = ["big", "--profile", "kubo-cidv1"];
    let push = |address: &str, code| user.json(&[&profile[..], &["--kubo", address]].concat(), code);
    let cut = push(&cutting_proxy(kubo.api(), 60 * MIB), 6);
    assert!(cut["push"]["error"].is_object(), "{cut}");
    let rest = push(kubo.api(), 0);
    let sent = rest["push"]["bytes"].as_u64().unwrap() as usize;
    assert!(sent > 0 && sent < 60 * MIB, "{rest}");
    let root = rest["published"][0]["cid"].as_str().unwrap();
    assert_eq!(kubo.run(&["pin", "ls", "--type=recursive", "--names", root]), format!("{root} recursive big"));
    assert_eq!(
        kubo.run(&["files", "stat", "--format=<cumulsize>", &format!("/ipfs/{root}")]),
        rest["published"][0]["dag_size_bytes"].to_string()
    );

    // A node that has lost a part of what it seems to have gets all of it.
    let leaf = kubo.run(&["refs", &format!("{root}/file")]).lines().next().unwrap().to_owned();
    kubo.run(&["pin", "rm", root]);
    kubo.run(&["block", "rm", &leaf]);
    let all = push(kubo.api(), 0);
    assert!(all["push"]["bytes"].as_u64().unwrap() as usize > 64 * MIB, "{all}");
    assert_eq!(kubo.run(&["pin", "ls", "--type=recursive", "--names", root]), format!("{root} recursive big"));

    // The next version has most of it.
    user.write("big/new", &noise(MIB));
    let next = push(kubo.api(), 0);
    assert!((next["push"]["bytes"].as_u64().unwrap() as usize) < 2 * MIB, "{next}");
}

#[test]
fn a_real_node_speaks_over_a_unix_socket() {
    let Some(mut kubo) = Kubo::new() else { return };
    let socket = kubo.repository().join("k.sock");
    let unix = format!("/unix{}", socket.display());
    let addresses = json!({
        "API": ["/ip4/127.0.0.1/tcp/0", unix], "Gateway": "/ip4/127.0.0.1/tcp/0", "Swarm": ["/ip4/127.0.0.1/tcp/0"],
    });
    kubo.configure("Addresses", addresses);
    kubo.start();
    let user = User::with_tree();
    user.publish(&["tree", "--kubo", &unix]).expect(0);
    assert_eq!(kubo.run(&["cat", &format!("/ipfs/{TREE}/a")]), "hi");
}
