//! Bounds, order and honesty of the store, by example and against a model.

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

fn sha256(bytes: &[u8]) -> Digest {
    let mut hash = Context::new(&SHA256);
    hash.update(bytes);
    digest_of(hash)
}

/// Different bytes for each number, so many of them.
fn content(number: u8, size: usize) -> Vec<u8> {
    let mut bytes = vec![number; size];
    if let Some(first) = bytes.first_mut() {
        *first = number.wrapping_add(1);
    }
    bytes
}

fn put(store: &Arc<Store>, bytes: &[u8]) -> bool {
    let size = u64::try_from(bytes.len()).expect("fits");
    let Some(mut part) = store.begin(sha256(bytes), size) else {
        return false;
    };
    for piece in bytes.chunks(1000) {
        part.write(piece).expect("written");
    }
    part.finish().expect("the right bytes");
    true
}

fn get(store: &Store, digest: Digest) -> Option<Vec<u8>> {
    match store.get(digest)? {
        Verified::Memory(bytes) => Some(bytes),
        Verified::File(mut file, size) => {
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes).expect("read");
            assert_eq!(u64::try_from(bytes.len()).ok(), Some(size));
            Some(bytes)
        }
    }
}

fn files(dir: &TempDir) -> usize {
    fs::read_dir(dir.path()).expect("listed").count()
}

fn open(dir: &TempDir, most: u64) -> Arc<Store> {
    Arc::new(Store::open(dir.path(), most, 0).expect("opened"))
}

#[test]
fn what_was_put_in_comes_out_also_after_a_restart() {
    let dir = TempDir::new().expect("a directory");
    let store = open(&dir, 10_000_000);
    let (small, large) = (content(1, 100), content(2, 1_000_000));
    for bytes in [&small, &large] {
        assert!(put(&store, bytes));
        assert_eq!(get(&store, sha256(bytes)).as_ref(), Some(bytes));
    }
    let again = open(&dir, 10_000_000);
    assert_eq!(again.held().bytes, 1_000_100);
    for bytes in [&small, &large] {
        assert_eq!(get(&again, sha256(bytes)).as_ref(), Some(bytes));
    }
}

#[test]
fn what_was_not_used_for_longest_goes_first_also_after_a_restart() {
    let dir = TempDir::new().expect("a directory");
    let store = open(&dir, 3000);
    let all = [content(1, 1000), content(2, 1000), content(3, 1000)];
    for bytes in &all {
        assert!(put(&store, bytes));
    }
    assert!(get(&store, sha256(&all[0])).is_some());
    let store = open(&dir, 3000);
    assert!(put(&store, &content(4, 1500)));
    assert!(get(&store, sha256(&all[0])).is_some(), "used last");
    assert!(get(&store, sha256(&all[1])).is_none());
    assert!(get(&store, sha256(&all[2])).is_none());
    assert_eq!(store.held().evicted, 2);
    assert_eq!(files(&dir), 2);
}

#[test]
fn a_smaller_bound_holds_from_the_start() {
    let dir = TempDir::new().expect("a directory");
    let store = open(&dir, 3000);
    for number in 1..=3 {
        assert!(put(&store, &content(number, 1000)));
    }
    let store = open(&dir, 1000);
    assert_eq!((store.held().files, files(&dir)), (1, 1));
}

#[test]
fn an_altered_file_is_never_given_out() {
    let dir = TempDir::new().expect("a directory");
    let store = open(&dir, 10_000_000);
    for (number, size) in [(1, 1000), (2, 1_000_000)] {
        let bytes = content(number, size);
        let digest = sha256(&bytes);
        assert!(put(&store, &bytes));
        let path = dir.path().join(digest.to_string());
        let mut altered = bytes.clone();
        altered[size / 2] ^= 1;
        for wrong in [&altered, &bytes[1..].to_vec()] {
            fs::write(&path, wrong).expect("written");
            assert!(get(&store, digest).is_none());
            assert!(!path.exists(), "and it is removed");
            assert!(put(&store, &bytes), "so that it can come again");
        }
        fs::remove_file(&path).expect("removed");
        assert!(get(&store, digest).is_none());
    }
    assert_eq!(store.held().corrupted, 4);
    assert_eq!(store.held().bytes, 0);
}

#[test]
fn what_comes_wrong_or_broken_off_leaves_nothing() {
    let dir = TempDir::new().expect("a directory");
    let store = open(&dir, 10_000);
    let mut part = store.begin(sha256(b"right"), 5).expect("room");
    part.write(b"wrong").expect("written");
    let error = part.finish().expect_err("other bytes");
    assert!(matches!(error, FinishError::Mismatch(_)), "{error:?}");
    let mut part = store.begin(sha256(b"right"), 5).expect("room");
    part.write(b"ri").expect("written");
    drop(part);
    assert_eq!((files(&dir), store.held().bytes), (0, 0));
    assert!(
        store.begin(sha256(b"x"), 10_000).is_some(),
        "all room is back"
    );
    // What a crash leaves is gone after the next start.
    fs::write(dir.path().join(".part-7"), "x").expect("written");
    fs::write(dir.path().join("somebody's"), "x").expect("written");
    open(&dir, 10_000);
    assert_eq!(files(&dir), 1);
}

#[test]
fn a_disk_without_room_takes_nothing_and_what_comes_together_must_fit_together() {
    let dir = TempDir::new().expect("a directory");
    let full = Store::open(dir.path(), 10_000, u64::MAX / 2).expect("opened");
    assert!(Arc::new(full).begin(sha256(b"x"), 1).is_none());
    let store = open(&dir, 1000);
    assert!(store.begin(sha256(b"x"), 1001).is_none());
    let first = store.begin(sha256(b"x"), 600).expect("room");
    assert!(store.begin(sha256(b"y"), 600).is_none());
    drop(first);
    assert!(store.begin(sha256(b"y"), 600).is_some());
}

/// What may happen to a store.
#[derive(Debug, Clone)]
enum Doing {
    Put(u8, usize),
    Get(u8, usize),
    Alter(u8, usize),
    Restart,
}

fn doing() -> impl Strategy<Value = Doing> {
    let size = prop_oneof![Just(0usize), Just(400), Just(900), Just(2500)];
    let which = (0u8..4, size);
    prop_oneof![
        4 => which.clone().prop_map(|(n, s)| Doing::Put(n, s)),
        4 => which.clone().prop_map(|(n, s)| Doing::Get(n, s)),
        1 => which.prop_map(|(n, s)| Doing::Alter(n, s)),
        1 => Just(Doing::Restart),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_store_keeps_the_last_used_within_its_bound(doings in prop::collection::vec(doing(), 1..40)) {
        const MOST: u64 = 3000;
        let dir = TempDir::new().expect("a directory");
        let mut store = open(&dir, MOST);
        // Oldest use first.
        let mut model: Vec<(Digest, Vec<u8>)> = Vec::new();
        for doing in doings {
            match doing {
                Doing::Put(number, size) => {
                    let bytes = content(number, size);
                    let digest = sha256(&bytes);
                    if !model.iter().any(|(known, _)| *known == digest) {
                        prop_assert!(put(&store, &bytes));
                        model.push((digest, bytes));
                        let total = |model: &[(Digest, Vec<u8>)]| -> u64 {
                            model.iter().map(|(_, bytes)| bytes.len() as u64).sum()
                        };
                        while total(&model) > MOST {
                            model.remove(0);
                        }
                    }
                }
                Doing::Get(number, size) => {
                    let digest = sha256(&content(number, size));
                    let at = model.iter().position(|(known, _)| *known == digest);
                    let expected = at.map(|at| {
                        let entry = model.remove(at);
                        model.push(entry.clone());
                        entry.1
                    });
                    prop_assert_eq!(get(&store, digest), expected);
                }
                Doing::Alter(number, size) => {
                    let digest = sha256(&content(number, size));
                    if let Some(at) = model.iter().position(|(known, _)| *known == digest) {
                        fs::write(dir.path().join(digest.to_string()), "altered").expect("written");
                        prop_assert_eq!(get(&store, digest), None);
                        model.remove(at);
                    }
                }
                Doing::Restart => store = open(&dir, MOST),
            }
            prop_assert!(store.held().bytes <= MOST);
            prop_assert_eq!(store.held().files, model.len());
            prop_assert_eq!(files(&dir), model.len());
        }
    }
}
