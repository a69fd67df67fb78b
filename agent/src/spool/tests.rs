//! The spool on a real directory.

use std::time::Duration;

use jiff::Timestamp;

use super::*;
use crate::digest::RequestDigest;
use crate::transaction::{Notify, Outcome, Ran, Request, Took, Transaction, Written};

fn request(id: &str, notify: Notify) -> Arc<Request> {
    Arc::new(Request {
        id: TransactionId::parse(id).unwrap(),
        requester: "pcp://orchestrator/orchestrator".parse().unwrap(),
        request_id: pcp::MessageId(uuid::Uuid::from_u128(7)),
        module: "task".to_owned(),
        action: "run".to_owned(),
        subject: Some("demo::hello".to_owned()),
        rule: Some("r".to_owned()),
        digest: RequestDigest::of("task", "run", None).unwrap(),
        notify,
    })
}

fn every_state(id: &str) -> Vec<Stored> {
    let mut all = Vec::new();
    for notify in [Notify::Never, Notify::Once, Notify::UntilAcknowledged] {
        let accepted = Transaction::accept(request(id, notify), Timestamp::UNIX_EPOCH);
        let running = accepted.clone().read_running();
        let ran = Outcome::Ran(Ran {
            exitcode: 3,
            stdout: Written {
                bytes: 9_000_000,
                truncated: true,
            },
            stderr: Written::default(),
            took: Took {
                profile: Some(pxp::Profile::Standard),
                duration: Duration::from_millis(1234),
                cpu: Some(Duration::from_millis(56)),
                peak_memory: Some(789),
                killed_by: Some(pxp::KilledBy::Stop),
                time_limit: Some(Duration::from_secs(60)),
            },
        });
        let now = Timestamp::from_second(1_700_000_000).unwrap();
        let finished = running.clone().finish(now, ran);
        let failed = accepted.clone().fail(now, "no \"such\" file\n".to_owned());
        all.push(Stored::Accepted(accepted));
        all.push(Stored::Running(running));
        all.push(Stored::Finished(finished.clone()));
        all.push(Stored::Reported(finished.report()));
        all.push(Stored::Finished(failed));
    }
    all
}

fn open(dir: &tempfile::TempDir) -> Spool {
    Spool::open(&dir.path().join("spool")).unwrap()
}

#[test]
fn every_state_is_read_back_as_it_was_written() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(&dir);
    for (n, stored) in every_state("t1").into_iter().enumerate() {
        if n == 0 {
            assert!(matches!(spool.begin(&stored).unwrap(), Begun::New));
        }
        spool.write(&stored, Durability::Flushed).unwrap();
        let read = spool.read(&stored.request().id).unwrap();
        assert_eq!(read, Some(stored));
    }
}

#[test]
fn an_id_is_begun_once() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(&dir);
    let stored = every_state("t1").remove(0);
    assert!(matches!(spool.begin(&stored).unwrap(), Begun::New));
    let again = spool.begin(&stored).unwrap();
    assert!(matches!(again, Begun::Exists(Ok(known)) if known == stored));
}

#[test]
fn a_directory_without_a_readable_record_blocks_its_id_and_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(&dir);
    let [empty, garbage, foreign] = ["t-empty", "t-garbage", "t-foreign"];
    for id in [empty, garbage, foreign] {
        fs::create_dir(dir.path().join("spool").join(id)).unwrap();
    }
    fs::write(
        dir.path().join("spool/t-garbage/metadata"),
        "{\"version\":1",
    )
    .unwrap();
    let other = Record::line(&every_state("t1").remove(0), "b").unwrap();
    fs::write(dir.path().join("spool/t-foreign/metadata"), other).unwrap();
    fs::write(dir.path().join("spool/lost+found"), "").unwrap();
    for id in [empty, garbage, foreign] {
        let begun = spool.begin(&every_state(id).remove(0)).unwrap();
        assert!(matches!(begun, Begun::Exists(Err(_))), "{id}: {begun:?}");
    }
    let contents = spool.contents().unwrap();
    assert_eq!(
        (contents.transactions.len(), contents.unreadable.len()),
        (0, 4)
    );
    assert!(dir.path().join("spool/t-garbage/metadata").exists());
}

#[test]
fn a_record_of_a_newer_agent_is_not_touched() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(&dir);
    fs::create_dir(dir.path().join("spool/t1")).unwrap();
    fs::write(dir.path().join("spool/t1/metadata"), "{\"version\":2}").unwrap();
    let error = spool
        .read(&TransactionId::parse("t1").unwrap())
        .unwrap_err();
    assert!(matches!(
        error,
        SpoolError::Record {
            source: RecordError::Version(2),
            ..
        }
    ));
}

#[test]
fn what_was_half_made_or_half_removed_is_cleared_away_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(&dir));
    for name in [".new-t1", ".gone-t2"] {
        fs::create_dir(dir.path().join("spool").join(name)).unwrap();
    }
    let spool = open(&dir);
    let left: Vec<_> = spool.names().unwrap();
    assert_eq!(left, [LOCK]);
}

#[test]
fn two_agents_cannot_use_one_spool() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(&dir);
    let second = Spool::open(&dir.path().join("spool"));
    assert!(matches!(second, Err(SpoolError::InUse(_))));
    drop(spool);
    open(&dir);
}

#[test]
fn a_removed_transaction_is_gone_and_the_spool_is_for_the_agent_alone() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(&dir);
    let stored = every_state("t1").remove(0);
    spool.begin(&stored).unwrap();
    let directory = spool.directory(&stored.request().id);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&directory), 0o700);
    assert_eq!(mode(&directory.join(METADATA)), 0o600);
    assert_eq!(mode(&dir.path().join("spool")), 0o711);
    spool.remove(&stored.request().id).unwrap();
    assert!(spool.read(&stored.request().id).unwrap().is_none());
    assert_eq!(spool.names().unwrap(), [LOCK]);
}

#[test]
fn what_was_accepted_before_the_machine_restarted_may_have_run() {
    let dir = tempfile::tempdir().unwrap();
    let mut spool = open(&dir);
    let all = every_state("t1");
    let (accepted, running) = (&all[0], &all[1]);
    spool.begin(accepted).unwrap();
    let id = &accepted.request().id;
    assert_eq!(spool.read(id).unwrap().as_ref(), Some(accepted));
    spool.boot = "another".into();
    assert_eq!(spool.read(id).unwrap().as_ref(), Some(running));
}

#[test]
fn a_record_that_was_cut_in_two_leaves_the_one_before_it() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(&dir);
    let all = every_state("t1");
    let (running, finished) = (&all[1], &all[2]);
    spool.begin(&all[0]).unwrap();
    spool.write(running, Durability::Lazy).unwrap();
    let id = &running.request().id;
    for torn in [&b"\n{\"version\":1,\"tra"[..], b"\n\0\0\0\0"] {
        let mut file = OpenOptions::new()
            .append(true)
            .open(spool.directory(id).join(METADATA))
            .unwrap();
        file.write_all(torn).unwrap();
        assert_eq!(spool.read(id).unwrap().as_ref(), Some(running));
    }
    spool.write(finished, Durability::Lazy).unwrap();
    assert_eq!(spool.read(id).unwrap().as_ref(), Some(finished));
}

#[test]
fn the_one_record_of_an_earlier_agent_is_read_and_added_to() {
    let dir = tempfile::tempdir().unwrap();
    let spool = open(&dir);
    let all = every_state("t1");
    let (accepted, finished) = (&all[0], &all[2]);
    spool.begin(accepted).unwrap();
    let id = &accepted.request().id;
    let path = spool.directory(id).join(METADATA);
    let mut record: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    record.as_object_mut().unwrap().remove("boot").unwrap();
    fs::write(&path, serde_json::to_vec_pretty(&record).unwrap()).unwrap();
    assert_eq!(spool.read(id).unwrap().as_ref(), Some(accepted));
    spool.write(finished, Durability::Lazy).unwrap();
    assert_eq!(spool.read(id).unwrap().as_ref(), Some(finished));
}

proptest::proptest! {
    #[test]
    fn no_bytes_in_a_record_are_a_panic_and_none_change_the_transaction(
        bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..400),
        cut in 0_usize..2000,
        flipped in 0_usize..2000,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let spool = open(&dir);
        let stored = every_state("t1").remove(0);
        spool.begin(&stored).unwrap();
        let path = spool.directory(&stored.request().id).join(METADATA);
        let whole = fs::read(&path).unwrap();
        for text in [
            bytes.clone(),
            [whole.as_slice(), b"\n", bytes.as_slice()].concat(),
            whole[..cut.min(whole.len())].to_vec(),
            {
                let mut text = whole.clone();
                let at = flipped % text.len();
                text[at] ^= 1;
                text
            },
        ] {
            fs::write(&path, &text).unwrap();
            if let Ok(Some(read)) = spool.read(&stored.request().id) {
                // Whatever else is read, it is this transaction's.
                proptest::prop_assert_eq!(&read.request().id, &stored.request().id);
            }
        }
    }
}
