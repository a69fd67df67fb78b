//! What the CA writes, read back by a parser that is not its own.

use std::os::unix::fs::PermissionsExt as _;

use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer};
use x509_parser::prelude::{CertificateRevocationList, FromDer as _, GeneralName, X509Certificate};

use super::*;

fn certs(path: &Path) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(&std::fs::read(path).unwrap())
        .map(Result::unwrap)
        .collect()
}

fn revoked_serials(path: &Path) -> Vec<Vec<u64>> {
    CertificateRevocationListDer::pem_slice_iter(&std::fs::read(path).unwrap())
        .map(|der| {
            let der = der.unwrap();
            let (_, crl) = CertificateRevocationList::from_der(&der).unwrap();
            crl.iter_revoked_certificates()
                .map(|r| u64::try_from(r.serial()).unwrap())
                .collect()
        })
        .collect()
}

#[test]
fn the_chain_is_intermediate_then_root_and_each_has_a_crl() {
    let dir = tempfile::tempdir().unwrap();
    let ca = CertificateAuthority::create(dir.path(), "lab").unwrap();
    let chain = certs(&ca.ca());
    let (_, intermediate) = X509Certificate::from_der(&chain[0]).unwrap();
    let (_, root) = X509Certificate::from_der(&chain[1]).unwrap();
    assert_eq!(intermediate.subject().to_string(), "CN=Puppet CA: lab");
    assert_eq!(root.subject(), root.issuer());
    assert_eq!(intermediate.issuer(), root.subject());
    assert!(intermediate.is_ca() && root.is_ca());
    assert_eq!(revoked_serials(&ca.crl()), [vec![], Vec::<u64>::new()]);
    assert!(matches!(
        CertificateAuthority::create(dir.path(), "lab"),
        Err(CaError::Exists(_))
    ));
}

#[test]
fn a_certificate_has_a_san_only_when_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let ca = CertificateAuthority::create(dir.path(), "lab").unwrap();
    let agent = ca.issue("agent-1", &[]).unwrap();
    let broker = ca
        .issue("primary", &["primary".into(), "127.0.0.1".into()])
        .unwrap();

    let der = certs(&agent.cert());
    let (_, cert) = X509Certificate::from_der(&der[0]).unwrap();
    assert_eq!(cert.subject().to_string(), "CN=agent-1");
    assert!(cert.subject_alternative_name().unwrap().is_none());
    let usage = cert.extended_key_usage().unwrap().unwrap().value;
    assert!(usage.server_auth && usage.client_auth);

    let der = certs(&broker.cert());
    let (_, cert) = X509Certificate::from_der(&der[0]).unwrap();
    let san = cert.subject_alternative_name().unwrap().unwrap().value;
    assert_eq!(
        san.general_names,
        [
            GeneralName::DNSName("primary"),
            GeneralName::IPAddress(&[127, 0, 0, 1])
        ]
    );
    let mode = std::fs::metadata(broker.key())
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn revoking_reaches_every_copy_also_after_opening_the_ca_again() {
    let dir = tempfile::tempdir().unwrap();
    let first = CertificateAuthority::create(dir.path(), "lab").unwrap();
    let other = first.issue("agent-1", &[]).unwrap();
    first.issue("agent-2", &[]).unwrap();

    let ca = CertificateAuthority::open(dir.path()).unwrap();
    let later = ca.issue("agent-3", &[]).unwrap();
    ca.revoke("agent-2").unwrap();
    for crl in [ca.crl(), other.crl(), later.crl()] {
        assert_eq!(revoked_serials(&crl), [vec![4], vec![]]);
    }
    assert!(matches!(ca.revoke("nobody"), Err(CaError::Unknown(_))));

    let chain = certs(&ca.ca());
    let leaf = certs(&later.cert());
    let (_, intermediate) = X509Certificate::from_der(&chain[0]).unwrap();
    let (_, leaf) = X509Certificate::from_der(&leaf[0]).unwrap();
    assert_eq!(leaf.issuer(), intermediate.subject());
    assert_eq!(leaf.raw_serial_as_string(), "05");
}

#[test]
fn many_are_issued_at_once_and_those_that_exist_stay() {
    let dir = tempfile::tempdir().unwrap();
    let ca = CertificateAuthority::create(dir.path(), "lab").unwrap();
    let first = std::fs::read(ca.issue("agent-1", &[]).unwrap().cert()).unwrap();
    let names: Vec<_> = (1..=3).map(|number| format!("agent-{number}")).collect();
    ca.issue_missing(&names).unwrap();
    assert_eq!(std::fs::read(ca.ssl_dir("agent-1").cert()).unwrap(), first);
    let serial = |name: &str| {
        let der = certs(&ca.ssl_dir(name).cert());
        let (_, cert) = X509Certificate::from_der(&der[0]).unwrap();
        cert.raw_serial_as_string()
    };
    assert_eq!([serial("agent-2"), serial("agent-3")], ["04", "05"]);
    // What was there before a fault is there after it.
    let faulty = ["agent-4".to_owned(), "../x".to_owned()];
    assert!(matches!(
        ca.issue_missing(&faulty),
        Err(CaError::Certname(_))
    ));
    ca.revoke("agent-4").unwrap();
}

#[test]
fn a_certname_cannot_leave_its_folder() {
    let dir = tempfile::tempdir().unwrap();
    let ca = CertificateAuthority::create(dir.path(), "lab").unwrap();
    for name in ["", "../x", "a/b", ".hidden", "-x"] {
        assert!(matches!(ca.issue(name, &[]), Err(CaError::Certname(_))));
    }
}
