use super::*;
use proptest::prelude::*;

fn digest(byte: u8) -> Digest {
    Digest::from([byte; 32])
}

fn cid(text: &str) -> Cid {
    crate::dag::Block::seal(crate::dag::Version::V1, 0x55, bytes::Bytes::copy_from_slice(text.as_bytes()))
        .unwrap()
        .cid()
        .to_owned()
}

fn guest_name(name: &str) -> GuestName {
    GuestName::new(name).unwrap()
}

/// A lock that has everything.
fn example() -> Lock {
    let toolchain = Toolchain::new("rustc 1.95.0 (59807616e1fa), std 0123, release, recipe 2").unwrap();
    let child = GuestLock {
        inputs: Inputs {
            recipe: digest(1),
            environment: Some(digest(2)),
            roots: [("src/**/*.c".to_owned(), digest(3))].into(),
            embeds: BTreeMap::new(),
        },
        outputs: [(Toolchain::command(), digest(4))].into(),
    };
    let parent = GuestLock {
        inputs: Inputs {
            recipe: digest(5),
            environment: None,
            roots: [("guests/\"p\"\\".to_owned(), digest(6)), ("Cargo.toml#workspace".to_owned(), digest(7))].into(),
            embeds: [(guest_name("child"), child.inputs.digest())].into(),
        },
        outputs: [(toolchain.clone(), digest(8))].into(),
    };
    let image = ImageLock {
        profile: Profile::default(),
        guests: [(guest_name("parent"), parent.inputs.digest())].into(),
        sources: [(ImagePath::new("etc").unwrap(), cid("etc"))].into(),
        contents: [(ImagePath::new("etc").unwrap(), cid("given"))].into(),
        base: Some(Base::Image(ImageName::new("below").unwrap())),
        files: [
            ("bin/main.wasm".to_owned(), LockedFile::Guest(guest_name("parent"))),
            ("etc/a\n\u{202e}\u{9b}b".to_owned(), LockedFile::Copied(cid("odd"))),
        ]
        .into(),
        cids: [(toolchain, cid("image"))].into(),
    };
    Lock {
        guests: [(guest_name("child"), child), (guest_name("parent"), parent)].into(),
        images: [(ImageName::new("i").unwrap(), image)].into(),
    }
}

#[test]
fn a_lock_is_a_text_and_comes_back() {
    let text = example().render();
    insta::assert_snapshot!(text);
    assert_eq!(parse(&text).unwrap(), example());
    assert!(!text.replace('\n', "").contains(escape::is_hidden));
}

#[test]
fn an_empty_lock_comes_back() {
    assert_eq!(parse(&Lock::default().render()).unwrap(), Lock::default());
}

/// Branches that change different facts change different lines.
#[test]
fn one_fact_is_one_line() {
    let before = example().render();
    let mut lock = example();
    lock.guests.get_mut(&guest_name("child")).unwrap().outputs.insert(Toolchain::command(), digest(9));
    let after = lock.render();
    let differing = before.lines().zip(after.lines()).filter(|(before, after)| before != after).count();
    assert_eq!((before.lines().count(), differing), (after.lines().count(), 1));
}

#[track_caller]
fn check(change: (&str, &str), expected: &str) {
    let text = example().render();
    assert!(text.contains(change.0));
    assert_eq!(parse(&text.replacen(change.0, change.1, 1)).unwrap_err().to_string(), expected);
}

#[test]
fn a_newer_version_says_which_ww_it_needs() {
    check(
        ("version = 1\nww = \">= 0.1.0\"", "version = 7\nww = \">= 3.2.0\""),
        &format!(
            "it has format version 7, which needs ww >= 3.2.0; this is ww {}, which reads version 1",
            env!("CARGO_PKG_VERSION")
        ),
    );
    check(
        ("version = 1\nww = \">= 0.1.0\"", "version = 7\nunknown = [[]]"),
        &format!(
            "it has format version 7, which needs ww of a later version; this is ww {}, which reads version 1",
            env!("CARGO_PKG_VERSION")
        ),
    );
}

#[test]
fn what_is_not_a_lock_is_refused_with_its_line() {
    check(("version = 1", "version = 0"), "line 2: `version` is none that Wetfile.lock ever had");
    check(("version = 1\n", ""), "line 1: the key `version` is missing");
    check(
        ("[guest.child]", "[guest.Child]"),
        &format!("line 5: `Child` is not a valid name: {}", crate::wetfile::NAME_RULE),
    );
    check(("recipe = ", "rezipe = "), "line 6: the key `rezipe` means nothing here");
    check(("recipe = \"01", "recipe = \"0g"), "line 6: not a SHA-256 in hexadecimal digits");
    check(
        ("profile = \"unixfs-v1-2025\"", "profile = \"x\\u001b\""),
        "line 29: `x\\u{1b}` is no profile that ww knows",
    );
    check(
        ("\"bin/main.wasm\"", "\"bin/../main.wasm\""),
        "line 42: `bin/../main.wasm` is not allowed as a key of `files`",
    );
    check(("base = { image = \"below\" }", "base = {}"), "line 30: one of `image` and `cid` is needed here");
    check(("base = { image = \"below\" }", "base = { cid = \"x\" }"), "line 30: not a CID in its usual form");
    check(("{ guest = \"parent\" }", "{ guest = 1 }"), "line 42: a string is needed here");
    check(
        ("[guest.child.inputs]", "<<<<<<< HEAD\n[guest.child.inputs]"),
        "line 9 has the mark of a merge conflict: take either side, then `ww build` puts it right",
    );
    let deep = format!("version = 1\na = {}", "[".repeat(100));
    assert_eq!(parse(&deep).unwrap_err().to_string(), "line 2: it is nested too deep");
}

#[test]
fn digests_of_inputs_differ_where_inputs_do() {
    let base = example().guests[&guest_name("parent")].inputs.clone();
    let mut others = vec![base.digest()];
    let changes: [&dyn Fn(&mut Inputs); 5] = [
        &|inputs| inputs.recipe = digest(0),
        &|inputs| inputs.environment = Some(digest(0)),
        &|inputs| drop(inputs.roots.pop_first()),
        &|inputs| drop(inputs.embeds.pop_first()),
        &|inputs| inputs.roots.extend([("x".to_owned(), digest(0))]),
    ];
    for change in changes {
        let mut inputs = base.clone();
        change(&mut inputs);
        others.push(inputs.digest());
    }
    others.sort();
    others.dedup();
    assert_eq!(others.len(), 6);
}

#[test]
fn toolchains_of_an_image() {
    let [a, b] = ["a", "b"].map(|text| Toolchain::new(text).unwrap());
    assert_eq!(Toolchain::joined([&b, &a, &b]).as_str(), "a + b");
    assert_eq!(Toolchain::joined([]).as_str(), "copied");
    assert!(Toolchain::new("a\nb").is_none() && Toolchain::new("").is_none());
}

#[test]
fn the_file_is_read_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(load(dir.path()).unwrap(), None);
    let path = dir.path().join(LOCK_FILE_NAME);
    std::fs::write(&path, example().render()).unwrap();
    assert_eq!(load(dir.path()).unwrap(), Some(example()));
    std::fs::write(&path, b"\xff").unwrap();
    assert!(matches!(load(dir.path()), Err(LockError::Invalid { .. })));
    std::fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink("nowhere", &path).unwrap();
    assert!(matches!(load(dir.path()), Err(LockError::Read { .. })));
    std::fs::remove_file(&path).unwrap();
    let file = File::create(&path).unwrap();
    file.set_len(LOCK_BYTES_MAX + 1).unwrap();
    assert!(matches!(load(dir.path()), Err(LockError::TooLarge { .. })));
}

proptest! {
    /// Whatever somebody has made of a lock: it is refused, or it is one that comes back.
    #[test]
    fn altered_locks_are_refused_or_mean_something(
        changes in prop::collection::vec((any::<prop::sample::Index>(), "[\\[\\]{}\"=.\\na-f0-9 /\u{202e}]{0,3}"), 1..4),
    ) {
        let mut text = example().render();
        for (at, by) in changes {
            let at = text.floor_char_boundary(at.index(text.len()));
            let end = text.ceil_char_boundary((at + 1).min(text.len()));
            text.replace_range(at..end, &by);
        }
        if let Ok(lock) = parse(&text) {
            prop_assert_eq!(parse(&lock.render()).unwrap(), lock);
        }
    }
}
