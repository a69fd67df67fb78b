//! [`Identity`]: certificate, key, roots and CRLs as they were found, and the TLS configurations
//! made of them.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::{SystemTime, UNIX_EPOCH};

use pcp::Certname;
use rustls::client::Resumption;
use rustls::crypto::CryptoProvider;
use rustls::server::NoServerSessionStorage;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{CertificateError, CipherSuite, ClientConfig, ServerConfig, SupportedProtocolVersion};
use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use webpki::KeyUsage;
use x509_parser::prelude::{FromDer as _, X509Certificate};
use x509_parser::time::ASN1Time;

use crate::contents::Contents;
use crate::error::NameError;
use crate::pem::parse_pem;
use crate::trust::Trust;
use crate::verify::{Clients, Expected, Servers};
use crate::{Files, IdentityError};

/// The provider's suites, with that of AES-128 and SHA-256 first: processors have instructions for SHA-256
/// and not for SHA-384, which is some five per cent of a handshake.
static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    provider
        .cipher_suites
        .sort_by_key(|suite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256);
    Arc::new(provider)
});

/// Our certificate and key, and whom we trust: loaded once and checked.
#[derive(Clone)]
pub struct Identity {
    certname: Certname,
    not_after: u64,
    certified_key: Arc<CertifiedKey>,
    trust: Arc<Trust>,
}

/// Which versions of TLS a server speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsVersions {
    /// TLS 1.3 only: all that QUIC knows.
    Tls13,
    /// TLS 1.2 too, for the clients of today's REST API and existing agents.
    Tls12And13,
}

/// Which end of a connection a peer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerRole {
    /// It dialled us.
    Client,
    /// We dialled it.
    Server,
}

/// Why a peer that was trusted at its handshake is trusted no longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Distrust {
    /// A revocation list names its certificate, or a CA above it.
    #[error("its certificate has been revoked")]
    Revoked,
    /// Its certificate's time is over.
    #[error("its certificate has expired")]
    Expired,
    /// The CA that it comes from is no longer ours.
    #[error("its certificate comes from a CA that is not trusted any more")]
    Untrusted,
}

impl Identity {
    /// Reads and checks the files: all readable, the key belongs to the certificate, the
    /// certificate is in its time and names us.
    ///
    /// # Errors
    /// The first fault found; each names its file.
    pub fn load(files: &Files) -> Result<Self, IdentityError> {
        Self::of(files, &Contents::read(files)?)
    }

    /// The identity that these bytes of these files make.
    pub(crate) fn of(files: &Files, contents: &Contents) -> Result<Self, IdentityError> {
        let chain: Vec<CertificateDer<'static>> =
            parse_pem(&files.cert, &contents.cert, "certificate")?;
        let leaf = chain.first().ok_or_else(|| IdentityError::Empty {
            path: files.cert.clone(),
            what: "certificate",
        })?;
        let unreadable = |source| IdentityError::Certificate {
            path: files.cert.clone(),
            source,
        };
        let certname = common_name(leaf).map_err(unreadable)?;
        let not_after = check_time(&files.cert, leaf)?;

        // Not through `parse_pem`, which would look for one of the three key formats only.
        let key = PrivateKeyDer::from_pem_slice(&contents.key).map_err(|source| match source {
            pem::Error::NoItemsFound => IdentityError::Empty {
                path: files.key.clone(),
                what: "unencrypted private key",
            },
            source => IdentityError::Pem {
                path: files.key.clone(),
                source,
            },
        })?;
        let key = PROVIDER
            .key_provider
            .load_private_key(key)
            .map_err(|source| IdentityError::Key {
                path: files.key.clone(),
                source,
            })?;
        let certified_key = CertifiedKey::new(chain, key);
        certified_key
            .keys_match()
            .map_err(|_| IdentityError::KeyMismatch {
                cert: files.cert.clone(),
                key: files.key.clone(),
            })?;
        Ok(Self {
            certname,
            not_after,
            certified_key: Arc::new(certified_key),
            trust: Arc::new(Trust::of(
                files,
                contents,
                PROVIDER.signature_verification_algorithms,
            )?),
        })
    }

    /// The CN of our own certificate.
    #[must_use]
    pub fn certname(&self) -> &Certname {
        &self.certname
    }

    /// When our own certificate ends, in seconds since 1970.
    #[must_use]
    pub fn not_after(&self) -> u64 {
        self.not_after
    }

    /// How many whole days our own certificate is still good for; negative when it has ended.
    #[must_use]
    pub fn days_to_expiry(&self, now: SystemTime) -> i64 {
        let seconds = |time: u64| i64::try_from(time).unwrap_or(i64::MAX);
        let left = seconds(self.not_after).saturating_sub(seconds(since_1970(now)));
        left.div_euclid(24 * 3600)
    }

    /// When the first of the CRLs in use is past its next update, in seconds since 1970: from then on
    /// every peer is refused. Nothing when revocation is not checked, or no list says.
    #[must_use]
    pub fn crl_next_update(&self) -> Option<u64> {
        self.trust.crl_next_update()
    }

    /// Whether a peer that was verified at its handshake may stay. Only what is certain counts
    /// against it: a list that is out of date, or missing, stops new connections and is no reason to
    /// end those that stand.
    ///
    /// # Errors
    /// [`Distrust`].
    pub fn recheck(
        &self,
        chain: &[CertificateDer<'_>],
        peer: PeerRole,
        now: SystemTime,
    ) -> Result<(), Distrust> {
        let Some((leaf, intermediates)) = chain.split_first() else {
            return Err(Distrust::Untrusted);
        };
        let usage = match peer {
            PeerRole::Client => KeyUsage::client_auth(),
            PeerRole::Server => KeyUsage::server_auth(),
        };
        let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(since_1970(now)));
        match self.trust.verify(leaf, intermediates, now, usage) {
            Ok(()) => Ok(()),
            Err(rustls::Error::InvalidCertificate(fault)) => match fault {
                CertificateError::Revoked => Err(Distrust::Revoked),
                CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                    Err(Distrust::Expired)
                }
                CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                    Err(Distrust::Untrusted)
                }
                _ => Ok(()),
            },
            Err(_) => Ok(()),
        }
    }

    /// Whether our own certificate is valid by our own CA and CRLs, as a peer with the same files
    /// would judge it.
    pub fn verify_own(&self) -> Result<(), rustls::Error> {
        let Some((leaf, intermediates)) = self.certified_key.cert.split_first() else {
            return Err(CertificateError::BadEncoding.into());
        };
        let usage = KeyUsage::client_auth();
        self.trust
            .verify(leaf, intermediates, UnixTime::now(), usage)
    }

    /// A server that demands a verified certificate of every client. Sessions are never resumed:
    /// a resumed session would skip the CRL.
    ///
    /// # Errors
    /// When rustls refuses the configuration.
    pub fn server_config(
        &self,
        alpn: &[&[u8]],
        versions: TlsVersions,
    ) -> Result<Arc<ServerConfig>, IdentityError> {
        self.server(Clients::required(self.trust.clone()), alpn, versions)
    }

    /// The same, but a client may come without a certificate; one that is sent is verified. For the
    /// REST API, whose callers may have a token instead.
    ///
    /// # Errors
    /// When rustls refuses the configuration.
    pub fn server_config_optional_client(
        &self,
        alpn: &[&[u8]],
        versions: TlsVersions,
    ) -> Result<Arc<ServerConfig>, IdentityError> {
        self.server(Clients::optional(self.trust.clone()), alpn, versions)
    }

    /// A client that shows our certificate and verifies the server: its chain, its revocation, and
    /// its name against SAN where there is one, else against the CN. Good for TLS and for QUIC.
    ///
    /// # Errors
    /// When rustls refuses the configuration.
    pub fn client_config(&self, alpn: &[&[u8]]) -> Result<Arc<ClientConfig>, IdentityError> {
        self.client(Expected::Name, alpn)
    }

    /// A client that shows our certificate and talks to whoever shows the same one: to another process
    /// of ours, whatever address it is dialled at.
    ///
    /// # Errors
    /// When rustls refuses the configuration.
    pub fn client_config_to_ourselves(&self) -> Result<Arc<ClientConfig>, IdentityError> {
        let own = self.certified_key.cert.first().cloned();
        let own = own.unwrap_or_else(|| CertificateDer::from(Vec::new()));
        self.client(Expected::Certificate(own), &[])
    }

    fn client(
        &self,
        expected: Expected,
        alpn: &[&[u8]],
    ) -> Result<Arc<ClientConfig>, IdentityError> {
        let trust = self.trust.clone();
        let mut config = ClientConfig::builder_with_provider(PROVIDER.clone())
            .with_protocol_versions(TlsVersions::Tls12And13.supported())
            .map_err(IdentityError::Configuration)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Servers { trust, expected }))
            .with_client_cert_resolver(self.resolver());
        config.alpn_protocols = owned(alpn);
        config.resumption = Resumption::disabled();
        Ok(Arc::new(config))
    }

    fn server(
        &self,
        clients: Clients,
        alpn: &[&[u8]],
        versions: TlsVersions,
    ) -> Result<Arc<ServerConfig>, IdentityError> {
        let mut config = ServerConfig::builder_with_provider(PROVIDER.clone())
            .with_protocol_versions(versions.supported())
            .map_err(IdentityError::Configuration)?
            .with_client_cert_verifier(Arc::new(clients))
            .with_cert_resolver(self.resolver());
        config.alpn_protocols = owned(alpn);
        // With the default ticketer, which makes none, these two rule out every resumption.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Arc::new(config))
    }

    fn resolver(&self) -> Arc<SingleCertAndKey> {
        Arc::new(SingleCertAndKey::from(CertifiedKey::clone(
            &self.certified_key,
        )))
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("certname", &self.certname)
            .field("not_after", &self.not_after)
            .finish_non_exhaustive()
    }
}

static TLS13: [&SupportedProtocolVersion; 1] = [&rustls::version::TLS13];

impl TlsVersions {
    fn supported(self) -> &'static [&'static SupportedProtocolVersion] {
        match self {
            Self::Tls13 => &TLS13,
            Self::Tls12And13 => rustls::DEFAULT_VERSIONS,
        }
    }
}

/// The only CN of the subject, as a certname.
pub(crate) fn common_name(der: &[u8]) -> Result<Certname, NameError> {
    let (_, cert) = X509Certificate::from_der(der).map_err(NameError::Parse)?;
    let subject = cert.subject();
    let mut names = subject.iter_common_name().map(|name| name.as_str());
    let (Some(Ok(common_name)), None) = (names.next(), names.next()) else {
        return Err(NameError::CommonName(subject.to_string()));
    };
    Certname::parse(common_name).map_err(|source| NameError::Certname {
        common_name: common_name.to_owned(),
        source,
    })
}

/// Whether our certificate is in its time; gives its end in seconds since 1970.
fn check_time(path: &Path, der: &[u8]) -> Result<u64, IdentityError> {
    let (_, cert) =
        X509Certificate::from_der(der).map_err(|source| IdentityError::Certificate {
            path: path.to_owned(),
            source: NameError::Parse(source),
        })?;
    let validity = cert.validity();
    let now = ASN1Time::now();
    if now > validity.not_after {
        return Err(IdentityError::Expired {
            path: path.to_owned(),
            ended: validity.not_after.to_string(),
        });
    }
    if now < validity.not_before {
        return Err(IdentityError::NotYetValid {
            path: path.to_owned(),
            begins: validity.not_before.to_string(),
        });
    }
    // After now, hence after 1970.
    Ok(u64::try_from(validity.not_after.timestamp()).unwrap_or_default())
}

fn owned(alpn: &[&[u8]]) -> Vec<Vec<u8>> {
    alpn.iter().map(|name| name.to_vec()).collect()
}

fn since_1970(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}
