//! A certificate authority shaped like Puppet's, for the lab and for tests: a root, an intermediate
//! that signs everything, one CRL each, and certificates laid out in ssldirs as agents have them.
//!
//! The state is on disk and locked for each change, so that a second process may issue from the CA
//! of a running lab. Keys are EC P-256, since RSA keys take seconds to make; nothing else differs
//! from what a Puppet CA with `key_type = ec` issues.

mod inventory;
mod ssldir;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose,
    RevocationReason, RevokedCertParams, SanType, SerialNumber,
};

use inventory::{Entry, Inventory};
pub use ssldir::SslDir;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Puppet dates certificates back by a day, so that clocks may differ.
const BACKDATED: Duration = DAY;

/// Five years, as Puppet's `ca_ttl` gives agents.
const LIFETIME: Duration = Duration::from_secs(5 * 365 * 24 * 60 * 60);

/// A certificate authority whose state lies in one directory.
#[derive(Debug)]
pub struct CertificateAuthority {
    dir: PathBuf,
    root: Issuer<'static, KeyPair>,
    intermediate: Issuer<'static, KeyPair>,
}

/// What can go wrong when issuing or revoking.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// There is already a CA in this directory.
    #[error("{0} already holds a certificate authority")]
    Exists(PathBuf),
    /// A file could not be written or read.
    #[error("cannot {action} {path}")]
    File {
        /// What was tried.
        action: &'static str,
        /// With which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Making a key, a certificate or a CRL failed.
    #[error("cannot make {what}")]
    Make {
        /// What was to be made.
        what: &'static str,
        /// What the library said.
        #[source]
        source: rcgen::Error,
    },
    /// The certname cannot be used as a file name.
    #[error(
        "{0:?} is no certname: letters, digits, '.', '-', '_', beginning with a letter or digit"
    )]
    Certname(String),
    /// The inventory file has a line that this CA has not written.
    #[error("{path}, line {line}: not an entry of the inventory")]
    Inventory {
        /// The inventory file.
        path: PathBuf,
        /// The number of the line, from 1.
        line: usize,
    },
    /// Nothing was ever issued for this name.
    #[error("no certificate of {0} to revoke")]
    Unknown(String),
}

impl CertificateAuthority {
    /// Makes a new CA called `name` and stores it in `dir/ca`.
    ///
    /// # Errors
    /// When there is one already, or a file cannot be written.
    pub fn create(dir: &Path, name: &str) -> Result<Self, CaError> {
        let ca_dir = dir.join("ca");
        if ca_dir.join("ca.pem").exists() {
            return Err(CaError::Exists(ca_dir));
        }
        ssldir::make_dir(&ca_dir)?;
        let root_key = new_key()?;
        let intermediate_key = new_key()?;
        let root_params = authority_params(&root_name(name), 1);
        let root_cert = root_params
            .self_signed(&root_key)
            .map_err(|source| make("the root certificate", source))?;
        ssldir::write_secret(&ca_dir.join("root_key.pem"), &root_key.serialize_pem())?;
        ssldir::write_secret(
            &ca_dir.join("intermediate_key.pem"),
            &intermediate_key.serialize_pem(),
        )?;
        ssldir::write(&ca_dir.join("name"), name)?;

        let root = Issuer::new(root_params, root_key);
        let intermediate_params = authority_params(&intermediate_name(name), 2);
        let intermediate_cert = intermediate_params
            .signed_by(&intermediate_key, &root)
            .map_err(|source| make("the intermediate certificate", source))?;
        let chain = intermediate_cert.pem() + &root_cert.pem();
        ssldir::write(&ca_dir.join("ca.pem"), &chain)?;
        let ca = Self {
            dir: dir.to_owned(),
            root,
            intermediate: Issuer::new(intermediate_params, intermediate_key),
        };
        ca.write_crl(&Inventory::default())?;
        Ok(ca)
    }

    /// Continues the CA that was stored in `dir`.
    ///
    /// # Errors
    /// When there is none, or its files cannot be read.
    pub fn open(dir: &Path) -> Result<Self, CaError> {
        let ca_dir = dir.join("ca");
        let name = ssldir::read(&ca_dir.join("name"))?;
        let issuer = |key_file: &str, common_name: &str| {
            let key = KeyPair::from_pem(&ssldir::read(&ca_dir.join(key_file))?)
                .map_err(|source| make("a key of the stored text", source))?;
            // Only name and key matter to what an issuer signs.
            Ok(Issuer::new(authority_params(common_name, 1), key))
        };
        Ok(Self {
            dir: dir.to_owned(),
            root: issuer("root_key.pem", &root_name(&name))?,
            intermediate: issuer("intermediate_key.pem", &intermediate_name(&name))?,
        })
    }

    /// Issues a certificate into `dir/ssl/CERTNAME`. `san` holds DNS names or IP addresses; when it
    /// is empty the certificate has a CN only, as an agent's has.
    ///
    /// # Errors
    /// When the certname is no file name, a SAN is no DNS name, or a file cannot be written.
    pub fn issue(&self, certname: &str, san: &[String]) -> Result<SslDir, CaError> {
        let now = SystemTime::now();
        self.issue_for(certname, san, now - BACKDATED, now + LIFETIME)
    }

    /// Issues a certificate with a CN only for each certname that has none yet: one change of the
    /// inventory for all, so that ten thousand take seconds.
    ///
    /// # Errors
    /// As [`Self::issue`]; those before the one that failed are there.
    pub fn issue_missing(&self, certnames: &[String]) -> Result<(), CaError> {
        let now = SystemTime::now();
        let _lock = self.lock()?;
        let mut inventory = Inventory::read(&self.inventory_path())?;
        let missing = |name: &&String| !self.ssl_dir(name).cert().exists();
        let outcome = certnames.iter().filter(missing).try_for_each(|name| {
            self.make(&mut inventory, name, &[], now - BACKDATED, now + LIFETIME)
                .map(drop)
        });
        inventory.write(&self.inventory_path())?;
        outcome
    }

    /// Issues a certificate whose time ended an hour ago, for tests.
    ///
    /// # Errors
    /// As [`Self::issue`].
    pub fn issue_expired(&self, certname: &str, san: &[String]) -> Result<SslDir, CaError> {
        let end = SystemTime::now() - Duration::from_secs(3600);
        self.issue_for(certname, san, end - 2 * DAY, end)
    }

    /// Revokes every certificate that was issued for `certname`: writes `ca/crl.pem` and the copies
    /// in all ssldirs anew.
    ///
    /// # Errors
    /// When nothing was issued for it, or a file cannot be written.
    pub fn revoke(&self, certname: &str) -> Result<(), CaError> {
        let _lock = self.lock()?;
        let mut inventory = Inventory::read(&self.inventory_path())?;
        if !inventory.revoke(certname) {
            return Err(CaError::Unknown(certname.to_owned()));
        }
        inventory.write(&self.inventory_path())?;
        self.write_crl(&inventory)
    }

    /// The ssldir of a certname, whether or not something was issued for it.
    #[must_use]
    pub fn ssl_dir(&self, certname: &str) -> SslDir {
        SslDir {
            dir: self.dir.join("ssl").join(certname),
            certname: certname.to_owned(),
        }
    }

    /// The CA's certificates: intermediate, then root.
    #[must_use]
    pub fn ca(&self) -> PathBuf {
        self.dir.join("ca/ca.pem")
    }

    /// The CRLs of intermediate and root.
    #[must_use]
    pub fn crl(&self) -> PathBuf {
        self.dir.join("ca/crl.pem")
    }

    fn inventory_path(&self) -> PathBuf {
        self.dir.join("ca/inventory.txt")
    }

    /// Held while inventory and CRL change together.
    fn lock(&self) -> Result<File, CaError> {
        let path = self.dir.join("ca/lock");
        let lock = File::create(&path).map_err(|source| file("create", &path, source))?;
        lock.lock().map_err(|source| file("lock", &path, source))?;
        Ok(lock)
    }

    fn issue_for(
        &self,
        certname: &str,
        san: &[String],
        from: SystemTime,
        until: SystemTime,
    ) -> Result<SslDir, CaError> {
        let _lock = self.lock()?;
        let mut inventory = Inventory::read(&self.inventory_path())?;
        let ssl_dir = self.make(&mut inventory, certname, san, from, until)?;
        inventory.write(&self.inventory_path())?;
        Ok(ssl_dir)
    }

    /// Makes one certificate; the caller holds the lock and writes the inventory afterwards.
    fn make(
        &self,
        inventory: &mut Inventory,
        certname: &str,
        san: &[String],
        from: SystemTime,
        until: SystemTime,
    ) -> Result<SslDir, CaError> {
        check_certname(certname)?;
        let serial = inventory.next_serial();

        let mut params = CertificateParams::new(san.to_vec())
            .map_err(|source| make("a subject alternative name", source))?;
        // "localhost" and "127.0.0.1" are told apart by `new`; a certname is always a DNS name.
        debug_assert!(
            params
                .subject_alt_names
                .iter()
                .all(|name| matches!(name, SanType::DnsName(_) | SanType::IpAddress(_)))
        );
        params.not_before = from.into();
        params.not_after = until.into();
        params.serial_number = Some(SerialNumber::from(serial));
        params.distinguished_name = named(certname);
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![
            KeyUsagePurpose::DigitalSignature,
            KeyUsagePurpose::KeyEncipherment,
        ];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        params.use_authority_key_identifier_extension = true;
        let key = new_key()?;
        let cert = params
            .signed_by(&key, &self.intermediate)
            .map_err(|source| make("a certificate", source))?;

        let ssl_dir = self.ssl_dir(certname);
        ssl_dir.make()?;
        ssldir::write(&ssl_dir.ca(), &ssldir::read(&self.ca())?)?;
        ssldir::write(&ssl_dir.crl(), &ssldir::read(&self.crl())?)?;
        ssldir::write_secret(&ssl_dir.key(), &key.serialize_pem())?;
        ssldir::write(&ssl_dir.cert(), &cert.pem())?;
        inventory.add(Entry {
            serial,
            certname: certname.to_owned(),
            revoked: false,
        });
        Ok(ssl_dir)
    }

    /// Signs both CRLs and writes them everywhere. The number grows with each entry that changes,
    /// so that a later CRL has a higher one.
    fn write_crl(&self, inventory: &Inventory) -> Result<(), CaError> {
        let number = inventory.revoked().count() as u64 + 1;
        let now = SystemTime::now();
        let revoked = inventory
            .revoked()
            .map(|entry| RevokedCertParams {
                serial_number: SerialNumber::from(entry.serial),
                revocation_time: now.into(),
                reason_code: Some(RevocationReason::KeyCompromise),
                invalidity_date: None,
            })
            .collect();
        let sign = |issuer, revoked_certs| {
            CertificateRevocationListParams {
                this_update: (now - BACKDATED).into(),
                next_update: (now + LIFETIME).into(),
                crl_number: SerialNumber::from(number),
                issuing_distribution_point: None,
                revoked_certs,
                key_identifier_method: KeyIdMethod::Sha256,
            }
            .signed_by(issuer)
            .and_then(|crl| crl.pem())
            .map_err(|source| make("a CRL", source))
        };
        let text = sign(&self.intermediate, revoked)? + &sign(&self.root, Vec::new())?;
        ssldir::write(&self.crl(), &text)?;
        for certname in inventory.certnames() {
            ssldir::write(&self.ssl_dir(certname).crl(), &text)?;
        }
        Ok(())
    }
}

fn authority_params(common_name: &str, serial: u64) -> CertificateParams {
    let mut params = CertificateParams::default();
    let now = SystemTime::now();
    params.not_before = (now - BACKDATED).into();
    params.not_after = (now + 3 * LIFETIME).into();
    params.serial_number = Some(SerialNumber::from(serial));
    params.distinguished_name = named(common_name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.use_authority_key_identifier_extension = true;
    params
}

fn named(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name
}

fn root_name(name: &str) -> String {
    format!("Puppet Root CA: {name}")
}

fn intermediate_name(name: &str) -> String {
    format!("Puppet CA: {name}")
}

fn new_key() -> Result<KeyPair, CaError> {
    KeyPair::generate().map_err(|source| make("a key", source))
}

fn make(what: &'static str, source: rcgen::Error) -> CaError {
    CaError::Make { what, source }
}

pub(crate) fn file(action: &'static str, path: &Path, source: io::Error) -> CaError {
    CaError::File {
        action,
        path: path.to_owned(),
        source,
    }
}

/// A certname becomes a file name and must stay in its folder.
fn check_certname(certname: &str) -> Result<(), CaError> {
    let fits = certname.starts_with(|c: char| c.is_ascii_alphanumeric())
        && certname
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
    if fits {
        Ok(())
    } else {
        Err(CaError::Certname(certname.to_owned()))
    }
}

#[cfg(test)]
mod tests;
