use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};

use super::*;

const KEY: Key = [7; 32];
const CODE: &[u8] = b"not really native code";

fn cache(dir: &Path) -> CodeCache {
    CodeCache::open(&dir.join("code"), 1 << 20).unwrap()
}

fn keep(cache: &CodeCache, key: &Key, code: &[u8]) {
    let new = cache.create().unwrap();
    write(new.writer().unwrap(), code).unwrap();
    new.check().unwrap();
    new.keep(key);
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir.join("code")).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn set_age(path: &Path, seconds: u64) {
    let then = SystemTime::now() - Duration::from_secs(seconds);
    File::options().write(true).open(path).unwrap().set_modified(then).unwrap();
}

fn age(path: &Path) -> Duration {
    SystemTime::now().duration_since(fs::metadata(path).unwrap().modified().unwrap()).unwrap_or_default()
}

#[test]
fn what_is_kept_is_found_by_every_handle() {
    let dir = tempfile::tempdir().unwrap();
    let one = cache(dir.path());
    assert!(one.find(&KEY).is_none());
    keep(&one, &KEY, CODE);
    let two = cache(dir.path());
    for cache in [one, two] {
        let found = cache.find(&KEY).unwrap();
        let mut code = vec![0; CODE.len()];
        found.0.read_exact_at(&mut code, 0).unwrap();
        assert_eq!(code, CODE);
        assert!(cache.find(&[8; 32]).is_none());
    }
    assert_eq!(names(dir.path()), [name(&KEY)]);
    let metadata = |path: &str| fs::metadata(dir.path().join(path)).unwrap().mode() & 0o7777;
    assert_eq!(metadata("code"), 0o700);
    assert_eq!(metadata(&format!("code/{}", name(&KEY))), 0o600);
}

#[test]
fn what_is_not_kept_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let cache = cache(dir.path());
    let new = cache.create().unwrap();
    write(new.writer().unwrap(), CODE).unwrap();
    assert_eq!(names(dir.path()).len(), 1);
    drop(new);
    assert!(names(dir.path()).is_empty());
}

#[test]
fn damage_of_any_kind_is_as_if_there_were_nothing() {
    let code: Vec<u8> = (0..100_000_u32).map(|number| number as u8).collect();
    let dir = tempfile::tempdir().unwrap();
    let cache = cache(dir.path());
    keep(&cache, &KEY, &code);
    let path = dir.path().join("code").join(name(&KEY));
    let whole = fs::read(&path).unwrap();
    let flipped = |place: usize| {
        let mut bytes = whole.clone();
        bytes[place] ^= 1;
        bytes
    };
    let length = whole.len();
    let mut damaged = vec![
        Vec::new(),
        vec![0; length],
        whole[..length / 2].to_vec(),
        whole[..length - 1].to_vec(),
        whole[1..].to_vec(),
        whole[length - TRAILER_BYTES..].to_vec(),
        [&whole[..], b"x"].concat(),
        code.clone(),
        code[..10].to_vec(),
    ];
    damaged.extend([0, 31, BUFFER_BYTES, code.len() - 1, code.len(), code.len() + 8, length - 1].map(flipped));
    for bytes in damaged {
        fs::write(&path, &bytes).unwrap();
        assert!(cache.find(&KEY).is_none(), "{} bytes", bytes.len());
        keep(&cache, &KEY, &code);
        assert_eq!(fs::read(&path).unwrap(), whole);
        assert!(cache.find(&KEY).is_some());
    }
}

#[test]
fn what_others_may_have_written_is_not_used() {
    let dir = tempfile::tempdir().unwrap();
    let cache = cache(dir.path());
    keep(&cache, &KEY, CODE);
    let path = dir.path().join("code").join(name(&KEY));
    for mode in [0o620, 0o602, 0o666] {
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        assert!(cache.find(&KEY).is_none(), "{mode:o}");
    }
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    assert!(cache.find(&KEY).is_some());
    // The same file by another way.
    fs::rename(&path, dir.path().join("elsewhere")).unwrap();
    symlink("../elsewhere", &path).unwrap();
    assert!(cache.find(&KEY).is_none());
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert!(cache.find(&KEY).is_none());
    fs::remove_dir(&path).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0).unwrap();
    assert!(cache.find(&KEY).is_none());
}

#[test]
fn a_folder_that_others_can_write_to_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("code");
    fs::create_dir(&path).unwrap();
    for mode in [0o777, 0o770, 0o1777] {
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        let error = CodeCache::open(&path, 1).unwrap_err();
        assert!(matches!(error, CodeCacheError::Writable { mode: found, .. } if found == mode), "{error}");
    }
}

#[test]
fn a_folder_that_others_can_read_is_made_private() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("code");
    fs::create_dir(&path).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
    CodeCache::open(&path, 1).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o700);
}

#[test]
fn what_is_no_folder_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (file, link) = (dir.path().join("file"), dir.path().join("link"));
    fs::write(&file, "").unwrap();
    symlink(".", &link).unwrap();
    for path in [file.clone(), link, file.join("below")] {
        assert!(matches!(CodeCache::open(&path, 1), Err(CodeCacheError::Io { .. })), "{}", path.display());
    }
}

/// Only root can make a folder that is somebody else's.
#[test]
fn the_folder_of_another_user_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("code");
    fs::create_dir(&path).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o700)).unwrap();
    if std::os::unix::fs::chown(&path, Some(12345), None).is_ok() {
        assert!(matches!(CodeCache::open(&path, 1), Err(CodeCacheError::Owner { owner: 12345, .. })));
    }
}

#[test]
fn what_was_used_longest_ago_goes_first() {
    let dir = tempfile::tempdir().unwrap();
    let size = (CODE.len() + TRAILER_BYTES) as u64;
    let cache = CodeCache::open(&dir.path().join("code"), 3 * size).unwrap();
    let path = |key: u8| dir.path().join("code").join(name(&[key; 32]));
    for key in 1..=3 {
        keep(&cache, &[key; 32], CODE);
        set_age(&path(key), 10_000 - u64::from(key));
    }
    // The first becomes the newest by being used.
    assert!(cache.find(&[1; 32]).is_some());
    assert!(age(&path(1)) < Duration::from_secs(1000));
    fs::write(dir.path().join("code/README"), "not ours").unwrap();
    keep(&cache, &[4; 32], CODE);
    let found: Vec<_> = (1..=4).filter(|key| path(*key).exists()).collect();
    assert_eq!(found, [1, 3, 4]);
    assert!(dir.path().join("code/README").exists());
    // What does not fit at all is not kept.
    keep(&cache, &[5; 32], &[0; 1000]);
    assert!(!path(5).exists());
}

#[test]
fn a_use_is_noted_now_and_then() {
    let dir = tempfile::tempdir().unwrap();
    let cache = cache(dir.path());
    keep(&cache, &KEY, CODE);
    let path = dir.path().join("code").join(name(&KEY));
    set_age(&path, 60);
    cache.find(&KEY).unwrap();
    assert!(age(&path) >= Duration::from_secs(59));
}

#[test]
fn what_a_killed_process_left_goes_when_it_is_old() {
    let dir = tempfile::tempdir().unwrap();
    let cache = cache(dir.path());
    // The name that this process would take next, by one that had its number before.
    let left = dir.path().join(format!("code/{NEW_PREFIX}{}-0", std::process::id()));
    fs::write(&left, "half").unwrap();
    keep(&cache, &KEY, CODE);
    assert!(left.exists() && cache.find(&KEY).is_some());
    set_age(&left, 2 * 60 * 60);
    keep(&cache, &[8; 32], CODE);
    assert!(!left.exists());
}

#[test]
fn many_at_once_do_not_disturb_each_other() {
    let dir = tempfile::tempdir().unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let cache = CodeCache::open(&dir.path().join("code"), 1000).unwrap();
                for round in 0..100_u8 {
                    let key = [round % 5; 32];
                    if let Some(code) = cache.find(&key) {
                        assert_eq!(code.0.metadata().unwrap().len(), (100 + TRAILER_BYTES) as u64);
                    }
                    keep(&cache, &key, &[round % 5; 100]);
                }
            });
        }
    });
    assert_eq!(names(dir.path()).iter().filter(|name| !is_name(name)).count(), 0);
}
