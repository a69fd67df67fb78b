//! The files change under a running process: what is taken, what is not, and who is told.

use std::fs;
use std::time::{Duration, SystemTime};

use super::*;

fn certificates(ssl: &SslDir) -> Vec<CertificateDer<'static>> {
    use rustls_pki_types::pem::PemObject as _;
    CertificateDer::pem_slice_iter(&fs::read(ssl.cert()).unwrap())
        .collect::<Result<_, _>>()
        .unwrap()
}

#[test]
fn unchanged_files_leave_everything_as_it_is() {
    let lab = Lab::new();
    let current = Current::load(files(&lab.ca.issue("agent-1", &[]).unwrap())).unwrap();
    let before = current.get();
    assert_eq!(current.reload().unwrap(), Reload::Unchanged);
    assert!(Arc::ptr_eq(&before, &current.get()));
}

#[tokio::test]
async fn a_renewed_certificate_is_shown_by_what_was_made_before() {
    let lab = Lab::new();
    let broker = lab.ca.issue("primary", &["primary".into()]).unwrap();
    let agent = lab.identity("agent-1", &[]);
    let current = Arc::new(Current::load(files(&broker)).unwrap());
    let server = Derived::new(Arc::clone(&current), |identity| {
        identity.server_config(ALPN, TlsVersions::Tls13)
    })
    .unwrap();
    let dial = |name| meet(server.get(), agent.client_config(ALPN).unwrap(), name);
    assert!(dial("primary").await.is_good());
    assert!(!dial("new.example").await.is_good());

    lab.ca.issue("primary", &["new.example".into()]).unwrap();
    let changed = "certificate, key".to_owned();
    assert_eq!(current.reload().unwrap(), Reload::Replaced { changed });
    assert!(dial("new.example").await.is_good());
    assert!(!dial("primary").await.is_good());
}

#[test]
fn a_half_replaced_set_is_not_taken_until_it_is_whole() {
    let lab = Lab::new();
    let ssl = lab.ca.issue("agent-1", &[]).unwrap();
    let current = Current::load(files(&ssl)).unwrap();
    let before = current.get();
    let old_key = fs::read(ssl.key()).unwrap();
    lab.ca.issue("agent-1", &[]).unwrap();
    let new_key = fs::read(ssl.key()).unwrap();
    for (key, fault) in [
        (&old_key[..], "does not belong to the certificate"),
        (&new_key[..new_key.len() / 2], "is not valid PEM"),
        (b"", "no unencrypted private key"),
    ] {
        fs::write(ssl.key(), key).unwrap();
        let text = current.reload().unwrap_err().to_string();
        assert!(text.contains(fault), "{text}");
        assert!(Arc::ptr_eq(&before, &current.get()));
    }
    fs::remove_file(ssl.key()).unwrap();
    assert!(current.reload().is_err());
    fs::write(ssl.key(), &new_key).unwrap();
    assert!(matches!(current.reload().unwrap(), Reload::Replaced { .. }));
    assert!(!Arc::ptr_eq(&before, &current.get()));
}

#[test]
fn nobody_becomes_somebody_else_and_nobody_loses_the_ca_of_the_own_certificate() {
    let (lab, foreign) = (Lab::new(), Lab::named("foreign"));
    let ssl = lab.ca.issue("agent-1", &[]).unwrap();
    let other = lab.ca.issue("agent-2", &[]).unwrap();
    let current = Current::load(files(&ssl)).unwrap();
    let good = fs::read(ssl.ca()).unwrap();

    fs::copy(foreign.ca.ca(), ssl.ca()).unwrap();
    let error = current.reload().unwrap_err();
    assert!(matches!(error, IdentityError::OwnUnknown(_)), "{error:?}");
    // The lists of the root alone say nothing of our certificate.
    fs::write(ssl.ca(), good).unwrap();
    let lists = fs::read_to_string(ssl.crl()).unwrap();
    fs::write(ssl.crl(), &lists[lists.rfind("-----BEGIN").unwrap()..]).unwrap();
    let error = current.reload().unwrap_err();
    assert!(matches!(error, IdentityError::OwnUnknown(_)), "{error:?}");
    fs::write(ssl.crl(), lists).unwrap();
    assert_eq!(current.reload().unwrap(), Reload::Unchanged);

    fs::copy(other.cert(), ssl.cert()).unwrap();
    fs::copy(other.key(), ssl.key()).unwrap();
    let text = current.reload().unwrap_err().to_string();
    assert!(text.contains("names agent-2"), "{text}");
    assert_eq!(current.get().certname().as_str(), "agent-1");
}

#[test]
fn a_peer_stays_until_a_list_names_it_its_time_is_over_or_its_ca_is_gone() {
    let (lab, foreign) = (Lab::new(), Lab::named("foreign"));
    let broker = lab.ca.issue("primary", &[]).unwrap();
    let peer = certificates(&lab.ca.issue("agent-1", &[]).unwrap());
    let other = certificates(&lab.ca.issue("agent-2", &[]).unwrap());
    let current = Current::load(files(&broker)).unwrap();
    let now = SystemTime::now();
    let check = |chain: &[CertificateDer<'_>], time| {
        let identity = current.get();
        let client = identity.recheck(chain, PeerRole::Client, time);
        assert_eq!(client, identity.recheck(chain, PeerRole::Server, time));
        client
    };
    assert_eq!(check(&peer, now), Ok(()));
    lab.ca.revoke("agent-1").unwrap();
    assert_eq!(
        current.reload().unwrap(),
        Reload::Replaced {
            changed: "CRL".to_owned()
        }
    );
    assert_eq!(check(&peer, now), Err(Distrust::Revoked));
    assert_eq!(check(&other, now), Ok(()));
    let stranger = certificates(&foreign.ca.issue("agent-3", &[]).unwrap());
    assert_eq!(check(&stranger, now), Err(Distrust::Untrusted));
    assert_eq!(check(&[], now), Err(Distrust::Untrusted));
    // By lists that lack one of the CAs nothing is certain, and the peer stays.
    let lists = fs::read_to_string(broker.crl()).unwrap();
    fs::write(broker.crl(), &lists[lists.rfind("-----BEGIN").unwrap()..]).unwrap();
    let unsure = load(&broker);
    assert_eq!(unsure.recheck(&other, PeerRole::Client, now), Ok(()));
    assert!(current.get().crl_next_update() > Some(0));
    let late = current.get().not_after() + 24 * 3600;
    let late = SystemTime::UNIX_EPOCH + Duration::from_secs(late);
    assert_eq!(check(&other, late), Err(Distrust::Expired));
}

#[tokio::test]
async fn whoever_follows_is_told_of_what_is_new_and_of_nothing_else() {
    let lab = Lab::new();
    let ssl = lab.ca.issue("agent-1", &[]).unwrap();
    let current = Current::load(files(&ssl)).unwrap();
    let mut changes = current.changes();
    let story = async {
        fs::write(ssl.key(), "broken").unwrap();
        current.check_soon();
        // The next sound set is what comes first, for the broken one was passed over.
        lab.ca.issue("agent-1", &[]).unwrap();
        current.check_soon();
        let new = changes.next().await;
        assert!(Arc::ptr_eq(&new, &current.get()));
    };
    tokio::select! {
        () = current.follow() => unreachable!("it never ends"),
        () = story => {}
    }
}

#[test]
fn the_days_that_are_left_are_whole_ones() {
    let lab = Lab::new();
    let identity = lab.identity("agent-1", &[]);
    let end = SystemTime::UNIX_EPOCH + Duration::from_secs(identity.not_after());
    let hour = Duration::from_secs(3600);
    assert_eq!(identity.days_to_expiry(end - hour), 0);
    assert_eq!(identity.days_to_expiry(end - 49 * hour), 2);
    assert_eq!(identity.days_to_expiry(end + hour), -1);
}
