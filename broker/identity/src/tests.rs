//! Real handshakes in memory, with certificates as the lab's CA issues them, and the faults that
//! loading must name.

use std::path::Path;
use std::sync::Arc;

use lab_ca::{CertificateAuthority, SslDir};
use proptest::prelude::*;
use rustls::{ClientConfig, HandshakeKind, ServerConfig};
use rustls_pki_types::ServerName;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::*;

mod reload;

const ALPN: &[&[u8]] = &[b"test/1"];

struct Lab {
    _dir: TempDir,
    ca: CertificateAuthority,
}

impl Lab {
    fn new() -> Self {
        Self::named("test")
    }

    fn named(name: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let ca = CertificateAuthority::create(dir.path(), name).unwrap();
        Self { _dir: dir, ca }
    }

    fn identity(&self, certname: &str, san: &[&str]) -> Identity {
        let san: Vec<_> = san.iter().map(ToString::to_string).collect();
        load(&self.ca.issue(certname, &san).unwrap())
    }
}

fn files(ssl: &SslDir) -> Files {
    Files::from_ssldir(&ssl.dir, &Certname::parse(&ssl.certname).unwrap())
}

fn load(ssl: &SslDir) -> Identity {
    Identity::load(&files(ssl)).unwrap()
}

/// What both ends say at the end of a handshake and one byte each way.
#[derive(Debug)]
struct Outcome {
    /// The certname that the server saw, `-` for none.
    server: Result<String, String>,
    client: Result<HandshakeKind, String>,
}

impl Outcome {
    fn is_good(&self) -> bool {
        self.server.is_ok() && self.client.is_ok()
    }

    fn says(&self, text: &str) -> bool {
        let has = |error: Option<&String>| error.is_some_and(|e| e.contains(text));
        has(self.server.as_ref().err()) || has(self.client.as_ref().err())
    }
}

async fn meet(server: Arc<ServerConfig>, client: Arc<ClientConfig>, name: &str) -> Outcome {
    let (near, far) = tokio::io::duplex(1 << 16);
    let accepting = async move {
        let mut stream = TlsAcceptor::from(server).accept(far).await?;
        let mut byte = [0];
        stream.read_exact(&mut byte).await?;
        stream.write_all(&byte).await?;
        stream.flush().await?;
        let certs = stream.get_ref().1.peer_certificates().unwrap_or_default();
        Ok::<_, std::io::Error>(if certs.is_empty() {
            "-".to_owned()
        } else {
            peer_certname(certs).unwrap().to_string()
        })
    };
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let dialling = async move {
        let mut stream = TlsConnector::from(client).connect(name, near).await?;
        stream.write_all(b"x").await?;
        stream.flush().await?;
        stream.read_exact(&mut [0]).await?;
        Ok::<_, std::io::Error>(stream.get_ref().1.handshake_kind().unwrap())
    };
    let (server, client) = tokio::join!(accepting, dialling);
    Outcome {
        server: server.map_err(|e| e.to_string()),
        client: client.map_err(|e| e.to_string()),
    }
}

async fn dial(server: &Identity, client: &Identity, name: &str) -> Outcome {
    meet(
        server.server_config(ALPN, TlsVersions::Tls13).unwrap(),
        client.client_config(ALPN).unwrap(),
        name,
    )
    .await
}

#[tokio::test]
async fn a_good_pair_meets_and_each_knows_the_other() {
    let lab = Lab::new();
    let broker = lab.identity("primary", &["primary", "localhost", "127.0.0.1"]);
    let agent = lab.identity("agent-1", &[]);
    for name in ["primary", "localhost", "127.0.0.1"] {
        let outcome = dial(&broker, &agent, name).await;
        assert_eq!(outcome.server.as_deref(), Ok("agent-1"), "{outcome:?}");
        assert!(outcome.client.is_ok(), "{outcome:?}");
    }
    assert_eq!(agent.certname().as_str(), "agent-1");
}

#[tokio::test]
async fn a_session_is_never_resumed_on_either_version() {
    let lab = Lab::new();
    let broker = lab.identity("primary", &["primary"]);
    let agent = lab.identity("agent-1", &[]);
    // A client that would resume if it were let.
    let mut eager = ClientConfig::clone(&agent.client_config(ALPN).unwrap());
    eager.resumption = rustls::client::Resumption::default();
    let eager = Arc::new(eager);
    for versions in [TlsVersions::Tls13, TlsVersions::Tls12And13] {
        let server = broker.server_config(ALPN, versions).unwrap();
        for _ in 0..3 {
            let outcome = meet(server.clone(), eager.clone(), "primary").await;
            assert!(
                matches!(
                    outcome.client,
                    Ok(HandshakeKind::Full | HandshakeKind::FullWithHelloRetryRequest)
                ),
                "{outcome:?}"
            );
        }
    }
}

#[tokio::test]
async fn the_name_is_looked_up_in_the_san_and_only_without_one_in_the_cn() {
    let lab = Lab::new();
    let agent = lab.identity("agent-1", &[]);

    let with_san = lab.identity("primary", &["other.example"]);
    assert!(dial(&with_san, &agent, "other.example").await.is_good());
    let outcome = dial(&with_san, &agent, "primary").await;
    assert!(outcome.says("not valid for name"), "{outcome:?}");

    let cn_only = lab.identity("broker.example", &[]);
    assert!(dial(&cn_only, &agent, "broker.example").await.is_good());
    assert!(dial(&cn_only, &agent, "BROKER.example").await.is_good());
    for wrong in ["other.example", "example", "127.0.0.1"] {
        let outcome = dial(&cn_only, &agent, wrong).await;
        assert!(outcome.says("not valid for"), "{wrong}: {outcome:?}");
    }
}

#[tokio::test]
async fn a_revoked_peer_is_refused_on_both_sides_unless_revocation_is_off() {
    let lab = Lab::new();
    let broker = lab.ca.issue("primary", &["primary".into()]).unwrap();
    let gone = lab.ca.issue("gone", &["gone".into()]).unwrap();
    lab.ca.revoke("gone").unwrap();

    for revocation in [Revocation::Chain, Revocation::Leaf] {
        let strict = Identity::load(&Files {
            revocation,
            ..files(&broker)
        })
        .unwrap();
        let outcome = dial(&strict, &load(&gone), "primary").await;
        assert!(outcome.server.unwrap_err().contains("Revoked"));
        let outcome = dial(&load(&gone), &strict, "gone").await;
        assert!(outcome.client.unwrap_err().contains("Revoked"));
    }
    let lax = Identity::load(&Files {
        revocation: Revocation::None,
        crl: None,
        ..files(&broker)
    })
    .unwrap();
    assert!(dial(&lax, &load(&gone), "primary").await.is_good());
}

#[tokio::test]
async fn the_whole_chain_needs_a_crl_and_the_leaf_only_its_own() {
    let lab = Lab::new();
    let agent = lab.identity("agent-1", &[]);
    let broker = lab.ca.issue("primary", &["primary".into()]).unwrap();
    let both = std::fs::read_to_string(broker.crl()).unwrap();
    let second = both.rfind("-----BEGIN").unwrap();
    std::fs::write(broker.crl(), &both[..second]).unwrap();

    let chain = Identity::load(&files(&broker)).unwrap();
    let outcome = dial(&chain, &agent, "primary").await;
    assert!(
        outcome
            .server
            .unwrap_err()
            .contains("UnknownRevocationStatus")
    );
    let leaf = Identity::load(&Files {
        revocation: Revocation::Leaf,
        ..files(&broker)
    })
    .unwrap();
    assert!(dial(&leaf, &agent, "primary").await.is_good());
}

#[tokio::test]
async fn a_foreign_ca_and_an_expired_certificate_are_refused() {
    let (lab, foreign) = (Lab::new(), Lab::named("foreign"));
    let broker = lab.identity("primary", &["primary"]);
    let stranger = foreign.identity("agent-1", &[]);
    let outcome = dial(&broker, &stranger, "primary").await;
    assert!(outcome.says("UnknownIssuer"), "{outcome:?}");
    let outcome = dial(
        &foreign.identity("primary", &["primary"]),
        &lab.identity("agent-1", &[]),
        "primary",
    )
    .await;
    assert!(outcome.client.unwrap_err().contains("UnknownIssuer"));

    // The same name with another key is no better.
    let impostor = Lab::new().identity("agent-1", &[]);
    let outcome = dial(&broker, &impostor, "primary").await;
    assert!(outcome.says("BadSignature"), "{outcome:?}");

    // An expired certificate is not loaded as one's own, so the client is built around the check.
    let expired = lab.ca.issue_expired("late", &[]).unwrap();
    let client = expired_client(&lab, &expired);
    let server = broker.server_config(ALPN, TlsVersions::Tls13).unwrap();
    let outcome = meet(server, client, "primary").await;
    assert!(outcome.says("expired"), "{outcome:?}");
}

fn expired_client(lab: &Lab, expired: &SslDir) -> Arc<ClientConfig> {
    use rustls_pki_types::pem::PemObject as _;
    let der = CertificateDer::from_pem_slice(&std::fs::read(expired.cert()).unwrap()).unwrap();
    let key =
        rustls_pki_types::PrivateKeyDer::from_pem_slice(&std::fs::read(expired.key()).unwrap());
    let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key.unwrap()).unwrap();
    let good = lab.identity("agent-1", &[]).client_config(ALPN).unwrap();
    let mut config = ClientConfig::clone(&good);
    config.client_auth_cert_resolver = Arc::new(rustls::sign::SingleCertAndKey::from(
        rustls::sign::CertifiedKey::new(vec![der], key),
    ));
    Arc::new(config)
}

#[tokio::test]
async fn a_client_without_a_certificate_is_let_in_only_where_it_is_optional() {
    let lab = Lab::new();
    let server = lab.identity("orchestrator", &["orchestrator"]);
    let good = lab.identity("agent-1", &[]).client_config(ALPN).unwrap();
    let mut config = ClientConfig::clone(&good);
    config.client_auth_cert_resolver = Arc::new(NoCertificate);
    let anonymous = Arc::new(config);

    let required = server.server_config(ALPN, TlsVersions::Tls12And13).unwrap();
    let outcome = meet(required, anonymous.clone(), "orchestrator").await;
    assert!(outcome.server.is_err(), "{outcome:?}");
    let optional = server
        .server_config_optional_client(ALPN, TlsVersions::Tls12And13)
        .unwrap();
    let outcome = meet(optional.clone(), anonymous, "orchestrator").await;
    assert_eq!(outcome.server.as_deref(), Ok("-"), "{outcome:?}");
    // One that is sent is verified all the same.
    let stranger = Lab::new()
        .identity("agent-1", &[])
        .client_config(ALPN)
        .unwrap();
    assert!(
        meet(optional.clone(), stranger, "orchestrator")
            .await
            .server
            .is_err()
    );
    assert_eq!(
        meet(optional, good, "orchestrator").await.server.as_deref(),
        Ok("agent-1")
    );
}

#[derive(Debug)]
struct NoCertificate;

impl rustls::client::ResolvesClientCert for NoCertificate {
    fn resolve(
        &self,
        _hints: &[&[u8]],
        _schemes: &[rustls::SignatureScheme],
    ) -> Option<Arc<rustls::sign::CertifiedKey>> {
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}

#[test]
fn each_fault_of_our_own_files_is_named_with_its_path() {
    let lab = Lab::new();
    let good = files(&lab.ca.issue("agent-1", &[]).unwrap());
    let other = lab.ca.issue("agent-2", &[]).unwrap();
    let message = |files: &Files| Identity::load(files).unwrap_err().to_string();
    let nowhere = Path::new("/nowhere/x.pem");

    for files in [
        Files {
            cert: nowhere.into(),
            ..good.clone()
        },
        Files {
            key: nowhere.into(),
            ..good.clone()
        },
        Files {
            ca: nowhere.into(),
            ..good.clone()
        },
        Files {
            crl: Some(nowhere.into()),
            ..good.clone()
        },
    ] {
        assert_eq!(message(&files), "cannot read /nowhere/x.pem");
    }
    let wrong_key = Files {
        key: other.key(),
        ..good.clone()
    };
    assert!(message(&wrong_key).contains("does not belong to the certificate"));
    let swapped = Files {
        key: good.cert.clone(),
        ..good.clone()
    };
    assert!(message(&swapped).ends_with("holds no unencrypted private key"));
    let swapped = Files {
        cert: good.key.clone(),
        ..good.clone()
    };
    assert!(message(&swapped).ends_with("holds no certificate"));
    let no_crl = Files { crl: None, ..good };
    assert!(message(&no_crl).contains("no file of revocation lists"));

    let expired = files(&lab.ca.issue_expired("late", &[]).unwrap());
    let text = message(&expired);
    assert!(text.contains("late.pem expired: it ended "), "{text}");
    let year = text
        .split_whitespace()
        .any(|word| word.starts_with("20") && word.len() == 4);
    assert!(year, "{text}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// A broken file is told by its name, and the files before it are still what counts.
    #[test]
    fn files_of_any_bytes_are_an_identity_or_an_error(
        which in 0..4_usize, bytes in prop::collection::vec(any::<u8>(), 0..200),
        at in any::<prop::sample::Index>(), cut in 0..40_usize,
        insert in "(-----BEGIN CERTIFICATE-----\n|-----END X509 CRL-----\n|\n|=|A|é){0,4}",
    ) {
        let lab = Lab::new();
        let files = files(&lab.ca.issue("agent-1", &[]).unwrap());
        let crl = files.crl.clone().unwrap();
        let path = [&files.cert, &files.key, &files.ca, &crl][which];
        let whole = std::fs::read(path).unwrap();
        let mut damaged = whole.clone();
        let at = at.index(damaged.len());
        damaged.splice(at..(at + cut).min(whole.len()), insert.bytes());
        std::fs::write(path, &damaged).unwrap();
        Identity::load(&files).ok();
        std::fs::write(path, &bytes).unwrap();
        prop_assert!(Identity::load(&files).is_err());
    }
}
