//! `ww run /ipfs/CID` and `ww gateway`: content from others, some of whom cannot be trusted.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use tempfile::TempDir;

use crate::kubo::Kubo;
use crate::support::{collect, finish, image_of, probe_image, wait, ww, ww_run};

/// A state folder of its own.
pub(crate) struct Home(pub(crate) TempDir);

impl Home {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// `ww` with this state, and no Kubo node that it could know of.
    pub(crate) fn ww(&self, args: &[&str]) -> Command {
        let mut command = ww(args);
        command.env("WW_HOME", self.0.path()).env("IPFS_PATH", self.0.path());
        command
    }

    /// `ww run` of some content.
    pub(crate) fn run(&self, content: &str, args: &[&str]) -> Command {
        let mut command = self.ww(&["-q", "run", "--listen", "/ip4/127.0.0.1/tcp/0", content]);
        command.args(args);
        command
    }

    /// Publishes a folder; gives its CID.
    pub(crate) fn publish(&self, folder: &Path) -> String {
        let mut command = self.ww(&["-q", "publish", "--no-push", "--name", "image"]);
        let done = finish(command.arg(folder)).expect(0);
        done.stdout.trim_end().to_owned()
    }

    /// How many runs there are that say which blocks they read.
    pub(crate) fn leases(&self) -> usize {
        let Ok(files) = fs::read_dir(self.0.path().join("blockstore/leases")) else { return 0 };
        let is_held = |file: &fs::File| matches!(file.try_lock_shared(), Err(fs::TryLockError::WouldBlock));
        files.filter(|file| fs::File::open(file.as_ref().unwrap().path()).is_ok_and(|file| is_held(&file))).count()
    }
}

/// A running `ww gateway`.
pub(crate) struct Gateway {
    child: Child,
    pub(crate) url: String,
}

impl Gateway {
    pub(crate) fn start(home: &Home) -> Self {
        let mut command = home.ww(&["-q", "gateway", "--listen", "127.0.0.1:0", "--json"]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let said: serde_json::Value = serde_json::from_str(&line).unwrap();
        Self { child, url: said["url"].as_str().unwrap().to_owned() }
    }

    fn get(&self, target: &str) -> (String, Vec<u8>) {
        get(&self.url, target)
    }
}

/// Asks a gateway; gives the head and the body of its answer.
pub(crate) fn get(url: &str, target: &str) -> (String, Vec<u8>) {
    let mut stream = std::net::TcpStream::connect(url.strip_prefix("http://").unwrap()).unwrap();
    write!(stream, "GET {target} HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
    (String::from_utf8(answer[..end].to_vec()).unwrap(), answer[end + 4..].to_vec())
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A gateway that answers everything with these bytes, and then closes or hangs.
pub(crate) struct Mock {
    pub(crate) url: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Mock {
    pub(crate) fn start(answer: impl Fn(&str) -> Option<Vec<u8>> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (answer, log) = (Arc::new(answer), asked.clone());
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (answer, log) = (answer.clone(), log.clone());
                thread::spawn(move || {
                    let mut reader = BufReader::new(stream);
                    let mut line = String::new();
                    let _ = reader.read_line(&mut line);
                    let mut header = String::new();
                    while reader.read_line(&mut header).is_ok_and(|length| length > 2) {
                        header.clear();
                    }
                    log.lock().unwrap().push(line.clone());
                    match answer(&line) {
                        Some(bytes) => drop(reader.get_mut().write_all(&bytes)),
                        // Until the client goes.
                        None => drop(reader.read_to_end(&mut Vec::new())),
                    }
                });
            }
        });
        Self { url, asked }
    }

    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

pub(crate) fn answer(kind: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/vnd.ipld.{kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

pub(crate) fn refused() -> Vec<u8> {
    b"HTTP/1.1 406 Not Acceptable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_vec()
}

/// Base G of `cases.md`: the raw block "123" as a CAR, of which the header is the first 59 bytes.
const G: &str = "3aa265726f6f747381d82a58250001551220a665a45920422f9d417e4867efdc4fb8a04a1f3fff1fa07e998e86f7f7a27ae3\
                 6776657273696f6e012701551220a665a45920422f9d417e4867efdc4fb8a04a1f3fff1fa07e998e86f7f7a27ae3313233";
const G_CID: &str = "bafkreifgmwsfsiccf6ouc7sim7x5yt5yubfb6p77d6qh5gmoq337pit24m";

fn g() -> Vec<u8> {
    (0..G.len()).step_by(2).map(|at| u8::from_str_radix(&G[at..at + 2], 16).unwrap()).collect()
}

const NO_KUBO: [&str; 2] = ["--kubo", "none"];

/// The output and the exit code of a guest, for several ways to call it.
fn behaviour(mut run: impl FnMut(&[&str]) -> Command) -> Vec<(Option<i32>, String, String)> {
    let calls: [&[&str]; 5] = [
        &["args", "a b"],
        &["exit", "7"],
        &["files", "/", "/bin", "/bin/main.wasm", "/etc/motd", "/none"],
        &["write-file", "/bin/new"],
        &["spawn", "bin/child-echo.wasm", "--exit", "3"],
    ];
    let done = |args: &&[&str]| {
        let done = finish(&mut run(args));
        (done.code, done.stdout, done.stderr)
    };
    calls.iter().map(done).collect()
}

#[test]
fn an_image_behaves_the_same_from_a_folder_and_from_its_cid() {
    let image = probe_image();
    fs::create_dir(image.path().join("etc")).unwrap();
    fs::write(image.path().join("etc/motd"), "hello").unwrap();
    let (there, here) = (Home::new(), Home::new());
    let cid = there.publish(image.path());
    let gateway = Gateway::start(&there);
    let from_folder = behaviour(|args| ww_run(image.path(), &[&["--"], args].concat()));
    for content in [format!("/ipfs/{cid}"), format!("ipfs://{cid}/")] {
        let with_gateway = ["--kubo", "none", "--gateway", gateway.url.as_str(), "--"];
        assert_eq!(behaviour(|args| here.run(&content, &[&with_gateway, args].concat())), from_folder);
    }
    // Now all of it is here.
    drop(gateway);
    assert_eq!(
        behaviour(|args| here.run(&format!("/ipfs/{cid}"), &[&["--offline", "--"], args].concat())),
        from_folder
    );
    assert_eq!(here.leases(), 0);
}

#[test]
fn an_image_may_lie_below_a_cid() {
    let folder = tempfile::tempdir().unwrap();
    let image = image_of("child-echo");
    fs::create_dir_all(folder.path().join("images/x y/bin")).unwrap();
    fs::copy(image.path().join("bin/main.wasm"), folder.path().join("images/x y/bin/main.wasm")).unwrap();
    fs::write(folder.path().join("other"), "not fetched").unwrap();
    let (there, here) = (Home::new(), Home::new());
    let cid = there.publish(folder.path());
    let gateway = Gateway::start(&there);
    let source = ["--kubo", "none", "--gateway", &gateway.url];
    for content in [format!("/ipfs/{cid}/images/x y"), format!("ipfs://{cid}/images/x%20y")] {
        finish(here.run(&content, &source).args(["--", "--exit", "3"])).expect(3);
    }
    // The path and what is below it came, and nothing else.
    let done = finish(&mut here.ww(&["cat", &format!("/ipfs/{cid}/other"), "--offline"])).expect(7);
    assert!(done.stderr.contains("is incomplete: "), "{}", done.stderr);
    let done = finish(&mut here.run(&format!("/ipfs/{cid}/images/none"), &source)).expect(127);
    assert!(done.stderr.contains("no entry `none` in directory"), "{}", done.stderr);
    let done = finish(&mut here.run(&format!("/ipfs/{cid}/images"), &source)).expect(127);
    assert!(done.stderr.contains(&format!("the image /ipfs/{cid}/images has no bin/main.wasm")), "{}", done.stderr);
    let done = finish(&mut here.run(&format!("/ipfs/{cid}/other"), &source)).expect(126);
    assert!(done.stderr.contains(&format!("/ipfs/{cid}/other is not an image")), "{}", done.stderr);
}

#[test]
fn nobody_is_asked_offline() {
    let home = Home::new();
    let mock = Mock::start(|_| None);
    // A node that would be found.
    let port = mock.url.rsplit(':').next().unwrap();
    fs::write(home.0.path().join("api"), format!("/ip4/127.0.0.1/tcp/{port}")).unwrap();
    let done = finish(&mut home.run(&format!("/ipfs/{G_CID}"), &["--offline"])).expect(127);
    assert!(done.stderr.contains(&format!("error: /ipfs/{G_CID} was not found")), "{}", done.stderr);
    // A bare CID is content, too, where nothing has that name.
    let done = finish(&mut home.run(G_CID, &["--offline"])).expect(127);
    assert!(done.stderr.contains(&format!("error: /ipfs/{G_CID} was not found")), "{}", done.stderr);
    finish(&mut home.run(&format!("/ipfs/{G_CID}"), &["--offline", "--gateway", &mock.url])).expect(125);
    assert!(mock.asked().is_empty());
}

#[test]
fn what_is_no_content_is_said() {
    let home = Home::new();
    for (content, expected) in [
        ("/ipfs/bafy", "`bafy` is not a CID"),
        ("ipfs://x/y", "`x` is not a CID"),
        ("/ipns/example.org", "`ipfs name resolve /ipns/example.org`"),
        (&format!("/ipfs/{G_CID}/../x"), "malformed path"),
        (&format!("ipfs://{G_CID}?x"), "has a `?`"),
    ] {
        let done = finish(&mut home.run(content, &NO_KUBO)).expect(125);
        assert!(done.stderr.contains(expected), "{content}: {}", done.stderr);
    }
}

#[test]
fn a_pin_is_fetched_for() {
    let (there, here) = (Home::new(), Home::new());
    let cid = there.publish(image_of("child-echo").path());
    let gateway = Gateway::start(&there);
    let from_gateway = ["pin", "add", &cid, "--name", "x", "--kubo", "none", "--gateway", &gateway.url];
    finish(&mut here.ww(&["pin", "add", &cid, "--name", "x", "--kubo", "none"])).expect(7);
    let done = finish(&mut here.ww(&from_gateway)).expect(0);
    assert_eq!(done.stdout, format!("{cid} x\n"));
    assert!(done.stderr.contains("fetched "), "{}", done.stderr);
    finish(&mut here.ww(&["gc"])).expect(0);
    finish(&mut here.ww(&["car", "export", &cid, "-o", "/dev/null"])).expect(0);
    // Nobody is asked for what is here.
    let again = finish(&mut here.ww(&from_gateway)).expect(0);
    assert!(!again.stderr.contains("fetched "), "{}", again.stderr);
}

/// W-1 and W-4 of `cases.md`, and others of their kind.
#[test]
fn a_gateway_that_cannot_be_trusted_stores_nothing() {
    let check = |respond: fn(&str) -> Option<Vec<u8>>, expected: &str| {
        let home = Home::new();
        let mock = Mock::start(respond);
        let content = format!("/ipfs/{G_CID}");
        let done = finish(&mut home.run(&content, &["--kubo", "none", "--gateway", &mock.url])).expect(127);
        assert!(done.stderr.contains(&format!("error: {content} was not found")), "{}", done.stderr);
        let reason = format!("caused by: gateway {}: ", mock.url);
        assert!(done.stderr.contains(&reason) && done.stderr.contains(expected), "{expected}: {}", done.stderr);
        let done = finish(&mut home.run(&content, &["--offline"])).expect(127);
        assert!(!done.stderr.contains("caused by"), "{}", done.stderr);
    };
    check(|_| Some(answer("raw", b"124")), "it sent a bad block");
    check(|_| Some(answer("raw", b"12")), "it sent a bad block");
    check(|_| Some(answer("car", &g()[..59])), "`application/vnd.ipld.car` where");
    check(|_| Some(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_vec()), "it does not have the content");
    check(|_| Some(b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n".to_vec()), "it answered with HTTP 500");
    check(|_| Some(b"garbage\r\n\r\n".to_vec()), "the exchange broke off");
    check(|_| Some(Vec::new()), "the exchange broke off");
    check(
        |_| Some(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 3\r\n\r\n123".to_vec()),
        "`text/html` where",
    );
    check(
        |_| Some(b"HTTP/1.1 302 Found\r\nLocation: /again\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_vec()),
        "it redirects more than",
    );
}

/// A whole image that a gateway would give, with one block changed.
#[test]
fn of_two_gateways_the_one_that_lies_is_named() {
    let (there, here) = (Home::new(), Home::new());
    let cid = there.publish(image_of("child-echo").path());
    let gateway = Gateway::start(&there);
    let (_, mut car) = gateway.get(&format!("/ipfs/{cid}?format=car"));
    // The last byte of the last block.
    *car.last_mut().unwrap() ^= 1;
    let liar = Mock::start(move |_| Some(answer("car", &car)));
    let sources = ["--kubo", "none", "--gateway", &liar.url, "--gateway", &gateway.url];
    let done = finish(here.run(&format!("/ipfs/{cid}"), &sources).args(["--", "--exit", "3"])).expect(3);
    let warning = format!("warning: gateway {} is not asked any more: ", liar.url);
    assert!(done.stderr.contains(&warning) && done.stderr.contains("bytes do not match the hash"), "{}", done.stderr);
    assert_eq!(liar.asked().len(), 1);
}

#[test]
fn a_gateway_that_hangs_does_not_hold_up_another() {
    let (there, here) = (Home::new(), Home::new());
    let cid = there.publish(image_of("child-echo").path());
    let gateway = Gateway::start(&there);
    let hanging = Mock::start(|_| None);
    let sources = ["--kubo", "none", "--gateway", &hanging.url, "--gateway", &gateway.url];
    finish(here.run(&format!("/ipfs/{cid}"), &sources).args(["--", "--exit", "3"])).expect(3);
    assert_eq!(hanging.asked().len(), 1);
}

/// A gateway that gives blocks and no archives, as the simplest of them do.
#[test]
fn an_image_comes_block_by_block() {
    let (there, here) = (Home::new(), Home::new());
    let cid = there.publish(image_of("child-echo").path());
    let gateway = Gateway::start(&there);
    // The mock outlives the test.
    let behind = gateway.url.clone();
    let simple = Mock::start(move |line| {
        let target = line.split(' ').nth(1).unwrap();
        if target.contains("format=car") {
            return Some(refused());
        }
        let (_, body) = get(&behind, target);
        Some(answer("raw", &body))
    });
    let sources = ["--kubo", "none", "--gateway", &simple.url];
    finish(here.run(&format!("/ipfs/{cid}"), &sources).args(["--", "--exit", "3"])).expect(3);
    assert!(simple.asked().iter().filter(|line| line.contains("format=raw")).count() > 2);
}

#[test]
fn too_much_is_not_fetched() {
    let (there, here) = (Home::new(), Home::new());
    let cid = there.publish(image_of("child-echo").path());
    let gateway = Gateway::start(&there);
    let content = format!("/ipfs/{cid}");
    let sources = ["--kubo", "none", "--gateway", &gateway.url, "--fetch-max", "10KiB"];
    let done = finish(&mut here.run(&content, &sources)).expect(126);
    assert!(
        done.stderr.contains("more than the 10240 bytes") && done.stderr.contains("--fetch-max"),
        "{}",
        done.stderr
    );
    finish(&mut here.run(&content, &["--offline"])).expect(127);
    // What is here already is not fetched.
    let sources = ["--offline", "--fetch-max", "10KiB", "--", "--exit", "3"];
    finish(&mut there.run(&content, &sources)).expect(3);
}

#[test]
fn a_signal_stops_a_fetch_at_once() {
    let home = Home::new();
    let hanging = Mock::start(|_| None);
    let file = home.0.path().join("status.json");
    let mut command = home.run(&format!("/ipfs/{G_CID}"), &["--kubo", "none", "--gateway", &hanging.url]);
    command.args(["--status-file", file.to_str().unwrap()]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    while hanging.asked().is_empty() {
        thread::sleep(Duration::from_millis(5));
    }
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    collect(child).expect(130);
    let status: serde_json::Value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
    assert_eq!(status["signal"], "SIGINT");
}

/// What a run reads stays as long as it runs, however it ends.
#[test]
fn what_a_run_reads_is_not_collected() {
    let home = Home::new();
    let cid = home.publish(probe_image().path());
    finish(&mut home.ww(&["pin", "rm", "image"])).expect(0);
    let content = format!("/ipfs/{cid}");
    let start = || {
        let mut command = home.run(&content, &["--offline", "--", "sleep-forever"]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut said = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut said).unwrap();
        assert_eq!(said, "sleeping\n");
        child
    };
    let has_all = || finish(home.ww(&["get", &content, "-o"]).arg(home.0.path().join("got"))).code == Some(0);
    let (mut killed, live) = (start(), start());
    assert_eq!(home.leases(), 2);
    killed.kill().unwrap();
    wait(&mut killed);
    finish(&mut home.ww(&["gc"])).expect(0);
    assert_eq!(home.leases(), 1);
    assert!(has_all());
    assert!(Command::new("kill").args(["-TERM", &live.id().to_string()]).status().unwrap().success());
    collect(live).expect(143);
    finish(&mut home.ww(&["gc"])).expect(0);
    assert_eq!(home.leases(), 0);
    finish(&mut home.run(&content, &["--offline"])).expect(127);
}

#[test]
fn a_gateway_serves_only_what_is_pinned_and_stops_when_told() {
    let home = Home::new();
    let mut gateway = Gateway::start(&home);
    let image = image_of("child-echo");
    let cid = home.publish(image.path());
    let (head, body) = gateway.get(&format!("/ipfs/{cid}?format=raw"));
    assert!(head.starts_with("HTTP/1.0 200") && !body.is_empty(), "{head}");
    assert!(gateway.get(&format!("/ipfs/{cid}")).0.starts_with("HTTP/1.0 406"));
    assert!(gateway.get(&format!("/ipfs/{G_CID}?format=raw")).0.starts_with("HTTP/1.0 404"));
    let done = finish(&mut home.ww(&["gateway", "--listen", gateway.url.strip_prefix("http://").unwrap()])).expect(1);
    assert!(done.stderr.contains("cannot listen on 127.0.0.1:"), "{}", done.stderr);
    assert!(Command::new("kill").args(["-TERM", &gateway.child.id().to_string()]).status().unwrap().success());
    assert!(wait(&mut gateway.child).success());
}

/// Adds an image to a node; gives its CIDs under two of Kubo's own ways to import.
fn add(kubo: &Kubo, image: &Path) -> Vec<String> {
    let image = image.to_str().unwrap();
    ["--cid-version=0", "--cid-version=1"].map(|version| kubo.run(&["add", "-r", "-Q", "-H", version, image])).to_vec()
}

#[test]
fn what_was_added_to_kubo_runs_here() {
    let Some(mut kubo) = Kubo::new() else { return };
    let image = probe_image();
    kubo.start();
    let from_folder = behaviour(|args| ww_run(image.path(), &[&["--"], args].concat()));
    let by_name = kubo.gateway().replace("127.0.0.1", "localhost");
    let sources: [&[&str]; 3] = [
        &["--kubo", kubo.api()],
        &["--kubo", "none", "--gateway", kubo.gateway()],
        // This leads to a name below `localhost`.
        &["--kubo", "none", "--gateway", &by_name],
    ];
    for cid in add(&kubo, image.path()) {
        for source in sources {
            let here = Home::new();
            let content = format!("/ipfs/{cid}");
            let run = |args: &[&str]| here.run(&content, &[source, &["--"], args].concat());
            assert_eq!(behaviour(run), from_folder, "{source:?}");
        }
        // The node of this user is found by itself.
        let here = Home::new();
        let mut command = here.run(&format!("/ipfs/{cid}"), &["--", "exit", "7"]);
        finish(command.env("IPFS_PATH", kubo.repository())).expect(7);
    }
}

#[test]
fn a_path_below_a_cid_of_kubo_runs_here() {
    let Some(mut kubo) = Kubo::new() else { return };
    let folder = tempfile::tempdir().unwrap();
    let image = image_of("child-echo");
    fs::create_dir_all(folder.path().join("a b/x/bin")).unwrap();
    fs::copy(image.path().join("bin/main.wasm"), folder.path().join("a b/x/bin/main.wasm")).unwrap();
    kubo.start();
    for cid in add(&kubo, folder.path()) {
        let sources: [&[&str]; 2] = [&["--kubo", kubo.api()], &["--kubo", "none", "--gateway", kubo.gateway()]];
        for source in sources {
            let here = Home::new();
            finish(here.run(&format!("/ipfs/{cid}/a b/x"), source).args(["--", "--exit", "3"])).expect(3);
        }
    }
}

#[test]
fn kubo_reads_from_our_gateway() {
    let Some(kubo) = Kubo::new() else { return };
    let home = Home::new();
    let image = probe_image();
    let cid = home.publish(image.path());
    let gateway = Gateway::start(&home);
    let (head, car) = gateway.get(&format!("/ipfs/{cid}?format=car"));
    assert!(head.contains("application/vnd.ipld.car; version=1; order=dfs; dups=n"), "{head}");
    let imported = kubo.run_with(&["dag", "import", "--pin-roots=true"], &car);
    assert!(imported.contains(&cid), "{imported}");
    let target = tempfile::tempdir().unwrap();
    let target = target.path().join("image");
    kubo.run(&["get", "-o", target.to_str().unwrap(), &cid]);
    let file = "bin/main.wasm";
    assert!(fs::read(target.join(file)).unwrap() == fs::read(image.path().join(file)).unwrap());
}
