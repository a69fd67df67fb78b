//! [`Site`]: the directory of a lab. Which file lies where is said here and nowhere else.
//!
//! ```text
//! ca/  ssl/NAME/         the CA, and an ssldir for each certname
//! ssl/certs …            the same files once more, as one ssldir with many certnames
//! conf/NAME/*.conf       configuration, merged in the order of the files' names
//! var/NAME/              spool, cache, database
//! logs/NAME.log  pids/NAME.pid  run/NAME.sock
//! lab.env  client.conf  token
//! ```

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::os::unix::fs::{DirBuilderExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use lab_ca::{CertificateAuthority, SslDir};
use tempfile::TempDir;

use crate::error::file;
use crate::{LabError, leftovers};

/// The longest path of a socket is 107 bytes; this is left for our part of it.
const MAX_DIR: usize = 75;

/// The directory of a lab.
#[derive(Debug)]
pub struct Site {
    dir: PathBuf,
    ca: CertificateAuthority,
    foreign: Option<Foreign>,
    /// Held while the lab runs; a second lab in the same directory would mix with this one.
    _lock: Option<File>,
    /// Removed at the end, when nobody named the directory.
    temporary: Mutex<Option<TempDir>>,
}

/// Certificates that another CA has issued, and which process has which.
#[derive(Debug, Clone)]
pub(crate) struct Foreign {
    /// One ssldir with all of them.
    pub(crate) ssldir: PathBuf,
    /// Certnames by the names of processes; a process that is not named here is called like its
    /// certificate.
    pub(crate) certnames: BTreeMap<String, String>,
}

impl Site {
    /// Prepares a directory for a lab that is to run: a given one, which is kept and may hold an
    /// earlier lab, or a temporary one.
    ///
    /// # Errors
    /// When another lab runs there, or files cannot be written.
    pub(crate) fn prepare(dir: Option<&Path>, foreign: Option<Foreign>) -> Result<Self, LabError> {
        let (dir, temporary) = match dir {
            Some(dir) => {
                make_dir(dir)?;
                (dir.canonicalize().map_err(file("find", dir))?, None)
            }
            None => {
                let temporary = tempfile::Builder::new()
                    .prefix("pxp-lab-")
                    .tempdir()
                    .map_err(file("create", "a temporary directory"))?;
                (temporary.path().to_owned(), Some(temporary))
            }
        };
        if dir.as_os_str().len() > MAX_DIR {
            return Err(LabError::LongPath(dir));
        }
        let lock_path = dir.join("lock");
        let lock = File::create(&lock_path).map_err(file("create", &lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(LabError::Busy(dir)),
            Err(TryLockError::Error(source)) => return Err(file("lock", lock_path)(source)),
        }
        // A lab that was killed could not end its processes, which would share files with ours.
        leftovers::end(&dir);
        for name in ["conf", "logs", "pids", "run", "ssl", "var"] {
            make_dir(&dir.join(name))?;
        }
        let ca = if dir.join("ca/ca.pem").exists() {
            CertificateAuthority::open(&dir)?
        } else {
            CertificateAuthority::create(&dir, "lab")?
        };
        let site = Self {
            dir,
            ca,
            foreign,
            _lock: Some(lock),
            temporary: Mutex::new(temporary),
        };
        make_dir(&site.ssl().join("certs"))?;
        make_dir(&site.ssl().join("private_keys"))?;
        link("../../ca/ca.pem", &site.ssl().join("certs/ca.pem"))?;
        link("../ca/crl.pem", &site.ssl().join("crl.pem"))?;
        Ok(site)
    }

    /// The directory of a lab that may be running, for one more certificate.
    ///
    /// # Errors
    /// When no lab has ever run there.
    pub fn open(dir: &Path) -> Result<Self, LabError> {
        let dir = dir.canonicalize().map_err(file("find", dir))?;
        Ok(Self {
            ca: CertificateAuthority::open(&dir)?,
            foreign: None,
            dir,
            _lock: None,
            temporary: Mutex::new(None),
        })
    }

    /// The directory itself.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The CA, for tests that revoke.
    #[must_use]
    pub fn ca(&self) -> &CertificateAuthority {
        &self.ca
    }

    /// Issues a certificate into an ssldir of its own, and links it into the common one.
    ///
    /// # Errors
    /// When the certname is none, or files cannot be written.
    pub fn issue(&self, certname: &str, san: &[String]) -> Result<SslDir, LabError> {
        let ssl = self.ca.issue(certname, san)?;
        for folder in ["certs", "private_keys"] {
            let target = format!("../{certname}/{folder}/{certname}.pem");
            link(
                &target,
                &self.ssl().join(format!("{folder}/{certname}.pem")),
            )?;
        }
        Ok(ssl)
    }

    /// The ssldir of a certname that has a certificate.
    ///
    /// # Errors
    /// When it has none.
    pub fn ssl_dir(&self, certname: &str) -> Result<PathBuf, LabError> {
        let ssl = self.ca.ssl_dir(certname);
        if ssl.cert().exists() {
            Ok(ssl.dir)
        } else {
            Err(LabError::NoCertificate(certname.to_owned()))
        }
    }

    /// The certificates of a process.
    pub(crate) fn ssl_of(&self, process: &str) -> SslDir {
        match &self.foreign {
            Some(foreign) => SslDir {
                dir: foreign.ssldir.clone(),
                certname: self.certname_of(process),
            },
            None => self.ca.ssl_dir(process),
        }
    }

    /// The certname of a process.
    pub(crate) fn certname_of(&self, process: &str) -> String {
        let named = self.foreign.as_ref();
        let certname = named.and_then(|foreign| foreign.certnames.get(process));
        certname.map_or(process, String::as_str).to_owned()
    }

    /// The CA's certificates, by which the processes know each other.
    pub(crate) fn ca_file(&self) -> PathBuf {
        match &self.foreign {
            Some(foreign) => foreign.ssldir.join("certs/ca.pem"),
            None => self.ca.ca(),
        }
    }

    /// Issues the certificate of a process, unless it has one: from an earlier lab, or from another
    /// CA.
    pub(crate) fn issue_once(&self, certname: &str, san: &[String]) -> Result<SslDir, LabError> {
        if self.foreign.is_some() {
            let ssl = self.ssl_of(certname);
            return match ssl.cert().exists() {
                true => Ok(ssl),
                false => Err(LabError::NoCertificate(ssl.certname)),
            };
        }
        let ssl = self.ca.ssl_dir(certname);
        if ssl.cert().exists() {
            return Ok(ssl);
        }
        self.issue(certname, san)
    }

    /// A temporary directory is not removed at the end after this.
    pub fn keep(&self) {
        if let Ok(mut temporary) = self.temporary.lock()
            && let Some(dir) = temporary.take()
        {
            // The path is known already.
            drop(dir.keep());
        }
    }

    /// The file with the configuration that the lab wrote for a process.
    #[must_use]
    pub fn config(&self, name: &str) -> PathBuf {
        self.dir.join("conf").join(name).join("10-lab.conf")
    }

    /// Where logs lie, one a process: `NAME.log`.
    #[must_use]
    pub fn logs_dir(&self) -> PathBuf {
        self.dir.join("logs")
    }

    pub(crate) fn pids_dir(&self) -> PathBuf {
        self.dir.join("pids")
    }

    pub(crate) fn ssl(&self) -> PathBuf {
        self.dir.join("ssl")
    }

    pub(crate) fn client_config(&self) -> PathBuf {
        self.dir.join("client.conf")
    }

    pub(crate) fn token_file(&self) -> PathBuf {
        self.dir.join("token")
    }

    /// The configuration directory of a process, empty.
    pub(crate) fn fresh_conf_dir(&self, name: &str) -> Result<PathBuf, LabError> {
        let dir = self.dir.join("conf").join(name);
        match fs::remove_dir_all(&dir) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(file("empty", dir)(error));
            }
            _ => make_dir(&dir)?,
        }
        Ok(dir)
    }

    /// Where a process keeps its state.
    pub(crate) fn var_dir(&self, name: &str) -> Result<PathBuf, LabError> {
        let dir = self.dir.join("var").join(name);
        make_dir(&dir)?;
        Ok(dir)
    }

    /// A socket of this lab.
    pub(crate) fn socket(&self, name: &str) -> PathBuf {
        self.dir.join("run").join(format!("{name}.sock"))
    }
}

pub(crate) fn make_dir(dir: &Path) -> Result<(), LabError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(dir)
        .map_err(file("create", dir))
}

fn link(target: &str, path: &Path) -> Result<(), LabError> {
    match symlink(target, path) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            Err(file("create", path)(error))
        }
        _ => Ok(()),
    }
}
