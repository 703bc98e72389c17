use super::*;
use crate::build::Cancel;
use crate::build::seen::Change;
use std::fs;

fn open(root: &Path) -> (State, Ledger) {
    let state = State::open(root, &Cancel::default(), &|_| {}).unwrap();
    let ledger = Ledger::open(&state).unwrap();
    (state, ledger)
}

fn seen(text: &str) -> Arc<Seen> {
    let digest = Digest::of(text.as_bytes());
    Arc::new(Seen { digest, context: Digest::of(b""), folders: Vec::new() })
}

fn guest(artifact: &str) -> GuestRecord {
    GuestRecord {
        toolchain: "command".to_owned(),
        inputs: Digest::of(b"inputs"),
        recipe: Digest::of(b"recipe"),
        facts: vec![("build".to_owned(), "x".to_owned())],
        variables: Vec::new(),
        roots: [("x".to_owned(), RootRecord { key: "key".to_owned(), digest: Some(Digest::of(b"old")) })].into(),
        watched: BTreeMap::new(),
        embeds: BTreeMap::new(),
        tools: Digest::of(b"tools"),
        outside: Vec::new(),
        artifact: Digest::of(artifact.as_bytes()),
        stamp: None,
        elapsed_ms: 7,
        built_at_ms: 8,
        reasons: vec![Reason::File { path: "x".to_owned(), change: Change::Added }],
        earlier: Vec::new(),
    }
}

#[test]
fn why_a_guest_was_built_is_remembered_for_some_builds() {
    let build = |number: u64| vec![Reason::File { path: number.to_string(), change: Change::Changed }];
    let mut record = GuestRecord { built_at_ms: 0, reasons: build(0), ..guest("0") };
    for number in 1..20_u64 {
        // Two builds each have the same result.
        let artifact = Digest::of(&(number / 2).to_le_bytes());
        let (reasons, earlier) = (build(number), record.history());
        record = GuestRecord { built_at_ms: 10 * number, artifact, reasons, earlier, ..record };
    }
    assert_eq!(record.reasons_at(u64::MAX), Some(build(18)));
    assert_eq!(record.reasons_at(189), Some(build(18)));
    assert_eq!(record.reasons_at(179), Some(build(16)));
    assert_eq!(record.reasons_at(110), Some(build(11)));
    assert_eq!(record.reasons_at(109), None);
}

fn entry(name: &str, artifact: &str) -> Entry {
    Entry::Guest(name.to_owned(), Box::new(guest(artifact)))
}

fn settled() -> Settled {
    Settled { lock: Digest::of(b"lock"), stamp: None, names: Digest::of(b"names") }
}

#[test]
fn what_is_noted_is_there_the_next_time() {
    let dir = tempfile::tempdir().unwrap();
    let (state, ledger) = open(dir.path());
    ledger.note(vec![Entry::Root("key".to_owned(), seen("old")), entry("a", "1")]).unwrap();
    ledger.note(vec![Entry::Root("key".to_owned(), seen("new")), Entry::Settled(settled())]).unwrap();
    drop((state, ledger));
    let memory = Memory::of_project(dir.path());
    assert_eq!(**memory.guest("a").unwrap(), guest("1"));
    assert_eq!(memory.root("key"), Some(seen("new")));
    assert_eq!(memory.root_with("key", &Digest::of(b"old")), Some(seen("old")));
    assert_eq!(memory.settled, Some(settled()));
}

#[test]
fn a_guest_with_another_result_is_not_in_the_lock() {
    let dir = tempfile::tempdir().unwrap();
    let (_state, ledger) = open(dir.path());
    ledger.note(vec![entry("a", "1"), Entry::Settled(settled())]).unwrap();
    let mut same = guest("1");
    same.built_at_ms += 1;
    ledger.note(vec![Entry::Guest("a".to_owned(), Box::new(same))]).unwrap();
    assert!(ledger.memory().settled.is_some());
    ledger.note(vec![entry("a", "2")]).unwrap();
    assert!(ledger.memory().settled.is_none());
}

/// Wherever the file is cut, or whichever byte of it is another, what comes before is remembered, and what is noted next is.
#[test]
fn a_damaged_file_is_what_comes_before() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("target/ww/ledger");
    {
        let (_state, ledger) = open(dir.path());
        ledger.note(vec![entry("a", "1")]).unwrap();
    }
    let first = fs::read(&path).unwrap();
    {
        let (_state, ledger) = open(dir.path());
        ledger.note(vec![entry("b", "2")]).unwrap();
    }
    let whole = fs::read(&path).unwrap();
    let check = |bytes: &[u8], place: usize| {
        fs::write(&path, bytes).unwrap();
        let memory = Memory::of_project(dir.path());
        assert_eq!(memory.guest("a").is_some(), place >= first.len(), "{place}");
        assert!(memory.guest("b").is_none() || bytes == whole, "{place}");
        let (_state, ledger) = open(dir.path());
        ledger.note(vec![entry("c", "3")]).unwrap();
        assert!(Memory::of_project(dir.path()).guest("c").is_some(), "{place}");
    };
    for place in (0..whole.len()).step_by(7) {
        check(&whole[..place], place);
        let mut damaged = whole.clone();
        damaged[place] ^= 1;
        check(&damaged, place);
    }
}

#[test]
fn what_is_of_no_use_is_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let (_state, ledger) = open(dir.path());
    ledger.note(vec![Entry::Root("key".to_owned(), seen("old")), entry("a", "1"), entry("gone", "1")]).unwrap();
    for round in 0..5000 {
        ledger.note(vec![Entry::Root("key".to_owned(), seen(&round.to_string())), entry("b", "1")]).unwrap();
    }
    let length = || fs::metadata(dir.path().join("target/ww/ledger")).unwrap().len();
    let before = length();
    ledger.tidy(|name| name.as_str() != "gone", |_| true).unwrap();
    assert!(length() * 2 < before, "{} of {before}", length());
    ledger.note(vec![entry("c", "1")]).unwrap();
    let memory = Memory::of_project(dir.path());
    assert!(memory.guest("gone").is_none() && memory.guest("c").is_some());
    assert_eq!(memory.root("key"), Some(seen("4999")));
    // A guest was made of it.
    assert_eq!(memory.root_with("key", &Digest::of(b"old")), Some(seen("old")));
    assert_eq!(memory.root_with("key", &Digest::of(b"17")), None);
}
