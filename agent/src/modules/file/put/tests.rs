//! What is on the disk afterwards.

use std::fs;
use std::os::unix::fs::{PermissionsExt, lchown, symlink as link};

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

proptest! {
    #[test]
    fn what_is_no_work_puts_nothing(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
        let mut output = Vec::new();
        prop_assert!(matches!(run(bytes.as_slice(), &mut output), Err(PutError::Input(_))));
        prop_assert!(output.is_empty());
    }
}

fn kind_file(dir: &TempDir, content: &str) -> Kind {
    let from = dir.path().join("staged");
    fs::write(&from, content).unwrap();
    Kind::File {
        sha256: Digest(Sha256::digest(content).into()).to_string(),
        from,
        missing: None,
    }
}

fn done(destination: &Path, kind: Kind) -> Result<(), String> {
    let work = Work {
        entries: vec![Entry {
            destination: destination.to_owned(),
            kind,
        }],
    };
    let mut output = Vec::new();
    run(&*serde_json::to_vec(&work).unwrap(), &mut output)
        .inspect(|()| assert_eq!(output, b"downloaded"))
        .map_err(|error| daemon::error_chain(&error))
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

/// Nothing that is not asked for stays behind.
fn names(dir: &Path) -> Vec<String> {
    let names = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name());
    let mut names: Vec<_> = names
        .map(|name| name.to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

#[test]
fn a_file_is_put_in_place_with_its_directories_and_the_modes_of_the_original() {
    let dir = TempDir::new().unwrap();
    let to = dir.path().join("a/b/c.txt");
    done(&to, kind_file(&dir, "content")).unwrap();
    assert_eq!(fs::read_to_string(&to).unwrap(), "content");
    assert_eq!(mode(&to), 0o750);
    assert_eq!(mode(to.parent().unwrap()), 0o750);
    assert_eq!(names(to.parent().unwrap()), ["c.txt"]);
    // Another content takes its place; what has it open keeps the old one.
    let mut old = File::open(&to).unwrap();
    done(&to, kind_file(&dir, "other")).unwrap();
    assert_eq!(fs::read_to_string(&to).unwrap(), "other");
    let mut text = String::new();
    old.read_to_string(&mut text).unwrap();
    assert_eq!(text, "content");
}

#[test]
fn a_file_that_is_there_needs_no_copy_and_only_gets_its_mode() {
    let dir = TempDir::new().unwrap();
    let to = dir.path().join("there");
    fs::write(&to, "content").unwrap();
    fs::set_permissions(&to, fs::Permissions::from_mode(0o600)).unwrap();
    let missing = |kind| match kind {
        Kind::File { sha256, .. } => Kind::File {
            sha256,
            from: "/nowhere".into(),
            missing: Some("nobody has it".to_owned()),
        },
        other => other,
    };
    done(&to, missing(kind_file(&dir, "content"))).unwrap();
    assert_eq!(mode(&to), 0o750);
    let error = done(&to, missing(kind_file(&dir, "changed"))).unwrap_err();
    assert_eq!(error, format!("nobody has it: {}", to.display()));
    assert_eq!(fs::read_to_string(&to).unwrap(), "content");
}

#[test]
fn a_copy_that_is_not_what_was_asked_for_changes_nothing() {
    let dir = TempDir::new().unwrap();
    let to = dir.path().join("there");
    fs::write(&to, "content").unwrap();
    let kind = kind_file(&dir, "right");
    fs::write(dir.path().join("staged"), "wrong").unwrap();
    let error = done(&to, kind).unwrap_err();
    assert!(error.contains("differs from the provided SHA"), "{error}");
    assert_eq!(fs::read_to_string(&to).unwrap(), "content");
    assert_eq!(names(dir.path()), ["staged", "there"]);
}

#[test]
fn a_link_at_a_files_place_is_replaced_and_not_followed() {
    let dir = TempDir::new().unwrap();
    let victim = dir.path().join("victim");
    fs::write(&victim, "untouched").unwrap();
    let to = dir.path().join("link");
    link(&victim, &to).unwrap();
    done(&to, kind_file(&dir, "content")).unwrap();
    assert!(fs::symlink_metadata(&to).unwrap().is_file());
    assert_eq!(fs::read_to_string(&victim).unwrap(), "untouched");
}

#[test]
fn a_link_on_the_way_is_followed_only_if_it_is_roots_or_our_own() {
    let dir = TempDir::new().unwrap();
    let real = dir.path().join("real");
    fs::create_dir(&real).unwrap();
    let way = dir.path().join("way");
    link("./x/../real", &way).unwrap();
    fs::create_dir(dir.path().join("x")).unwrap();
    done(&way.join("a"), kind_file(&dir, "content")).unwrap();
    assert_eq!(names(&real), ["a"]);
    let round = dir.path().join("round");
    link(&round, &round).unwrap();
    let error = done(&round.join("a"), kind_file(&dir, "content")).unwrap_err();
    assert!(error.contains("symbolic links"), "{error}");
    if nix::unistd::geteuid().is_root() {
        lchown(&way, Some(12_345), None).unwrap();
        let error = done(&way.join("b"), kind_file(&dir, "content")).unwrap_err();
        assert!(error.contains("of another user (uid 12345)"), "{error}");
        assert_eq!(names(&real), ["a"]);
    }
}

#[test]
fn directories_and_links_are_made_and_left_if_they_are_as_they_should_be() {
    let dir = TempDir::new().unwrap();
    let tree = dir.path().join("a/b");
    for _ in 0..2 {
        done(&tree, Kind::Directory).unwrap();
        assert_eq!(mode(&tree), 0o750);
    }
    let to = tree.join("link");
    for target in ["/dangling", "/dangling", "elsewhere"] {
        done(&to, Kind::Symlink { to: target.into() }).unwrap();
        assert_eq!(fs::read_link(&to).unwrap(), Path::new(target));
    }
    assert_eq!(names(&tree), ["link"]);
}

#[test]
fn what_is_something_else_is_left_alone_in_the_originals_words() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "x").unwrap();
    let already = |path: &Path| format!("Destination {path:?} already exists and is ");
    let error = done(&file, Kind::Directory).unwrap_err();
    assert_eq!(error, already(&file) + "not a directory!");
    let error = done(&file, Kind::Symlink { to: "/x".into() }).unwrap_err();
    assert_eq!(error, already(&file) + "not a symlink!");
    let error = done(dir.path(), kind_file(&dir, "content")).unwrap_err();
    assert_eq!(error, already(dir.path()) + "a directory!");
    let error = done(&file.join("below"), Kind::Directory).unwrap_err();
    assert!(error.contains("Not a directory"), "{error}");
}
