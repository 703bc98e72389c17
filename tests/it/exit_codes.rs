//! Exit codes that are the same whichever command it is: `docs/exit-codes.md`.

use std::fs;
use std::process::Stdio;

use tempfile::TempDir;

use crate::project::Project;
use crate::support::{Done, collect, finish, ww};

/// Content that nobody has.
const CID: &str = "bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e";

/// A user in a project, whose blockstore is empty.
struct User {
    dir: TempDir,
}

impl User {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let wetfile = "wetfile = 1\n[project]\nname = 'p'\nversion = '0.1.0'\n\
                       [image.there]\nout = 'out'\n[image.there.files]\n'bin/main.wasm' = { path = 'x.wasm' }\n";
        fs::write(dir.path().join("Wetfile.toml"), wetfile).unwrap();
        fs::write(dir.path().join("x.wasm"), "").unwrap();
        fs::create_dir(dir.path().join("elsewhere")).unwrap();
        Self { dir }
    }

    fn run(&self, args: &[&str]) -> Done {
        let mut command = ww(args);
        let state = self.dir.path().join("elsewhere");
        command.env("WW_HOME", &state).env("IPFS_PATH", &state).current_dir(self.dir.path());
        finish(&mut command)
    }
}

/// What an argument names and is not there: 7, and for `ww run` 127.
#[test]
fn what_is_not_there_has_one_code() {
    let user = User::new();
    let below = format!("/ipfs/{CID}/a/b");
    for args in [
        &["build", "ther"][..],
        &["publish", "ther", "--offline"],
        &["publish", "./ther", "--offline"],
        &["publish", "no/where", "--offline"],
        &["run", "ther"],
        &["run", "./ther"],
        &["run", "no/where"],
        &["run", "Wetfile.toml/x"],
        &["run", CID, "--offline"],
        &["run", &below, "--offline"],
        &["verify", "ther"],
        &["verify", "./ther"],
        &["verify", "no/where"],
        &["verify", CID],
        &["verify", &below],
        &["inspect", "ther"],
        &["inspect", "./ther"],
        &["inspect", "no/where"],
        &["inspect", "there"],
        &["inspect", CID],
        &["inspect", &below],
        &["cid", "ther"],
        &["cid", "Wetfile.toml/x"],
        &["car", "import", "ther.car"],
        &["car", "export", CID, "-o", "x.car"],
        &["get", CID, "--offline"],
        &["get", &below, "--offline"],
        &["cat", CID, "--offline"],
        &["ls", CID, "--offline"],
        &["pin", "add", CID, "--offline"],
        &["pin", "rm", "ther"],
    ] {
        let done = user.run(args);
        let code = if args[0] == "run" { 127 } else { 7 };
        assert_eq!((done.code, done.stdout.as_str()), (Some(code), ""), "{args:?}: {}", done.stderr);
        assert!(done.stderr.starts_with("error: "), "{args:?}: {}", done.stderr);
        if args[1] == "ther" && matches!(args[0], "build" | "publish" | "run" | "verify" | "inspect") {
            assert!(done.stderr.contains("did you mean `there`?"), "{args:?}: {}", done.stderr);
        }
    }
}

/// What cannot be the name of anything of its kind: 2, and for `ww run` 125.
#[test]
fn what_cannot_be_has_another() {
    let user = User::new();
    for args in [
        &["get", "ther"][..],
        &["cat", "/ipfs/ther"],
        &["ls", "ipfs://ther"],
        &["ls", "/ipns/example.org"],
        &["pin", "add", "ther"],
        &["pin", "rm", "a b"],
        &["car", "export", "ther"],
        &["verify", "/ipfs/ther"],
        &["verify", "out", "--cid", "ther"],
        &["inspect", "/ipfs/ther"],
        &["run", "/ipfs/ther"],
        &["run", "/ipns/example.org"],
        &["get", CID, "--gateway", "example.org"],
        &["gateway", "--listen", "8081"],
        &["build", "--nonsense"],
        &["publish", "--nonsense"],
        &["cid"],
        &["gc", "nonsense"],
        &["store", "nonsense"],
    ] {
        let done = user.run(args);
        let code = if args[0] == "run" { 125 } else { 2 };
        assert_eq!((done.code, done.stdout.as_str()), (Some(code), ""), "{args:?}: {}", done.stderr);
    }
}

/// As `head` does when it has enough: nobody is told of it.
#[test]
fn nobody_who_reads_is_no_error() {
    let project = Project::new("p");
    project.wetfile("[guest.x]\nbuild = 'true $WW_OUT'\ninputs = []\n");
    for args in [
        ["schema"].as_slice(),
        &["completions", "bash"],
        &["graph"],
        &["graph", "--json"],
        &["build", "--plan"],
        &["why", "x"],
        &["inspect", "--help"],
        &["--version"],
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let child = ww(args).current_dir(project.path("")).stdout(writer).stderr(Stdio::piped()).spawn().unwrap();
        let done = collect(child).expect(141);
        assert_eq!(done.stderr, "", "{args:?}");
    }
}
