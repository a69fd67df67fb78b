//! [`Current`]: the identity in use, which follows its files while the process runs.
//!
//! A set of files is taken as a whole or not at all: what cannot be read, does not belong together,
//! or would make us refuse our own certificate leaves the identity that is in use in its place, and
//! the log says why. So files may be replaced one after the other, and a broken copy harms nobody.

use std::error::Error;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustls::CertificateError;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep};

use crate::contents::{Contents, Fingerprint, Stamps};
use crate::{Files, Identity, IdentityError};

/// How often the files are looked at: four `stat` calls. A revoked node is cut off, and a renewed
/// certificate is in use, before anybody has waited for it.
pub const CHECK_INTERVAL: Duration = Duration::from_secs(5);

/// A certificate that ends sooner than this, or a revocation list whose time is over sooner, is worth a
/// line in the log, each day.
pub const EXPIRY_WARNING_DAYS: i64 = 30;

/// How often that line is repeated.
const WARNING_INTERVAL: Duration = Duration::from_secs(DAY);

const DAY: u64 = 24 * 3600;

/// The identity in use. Whoever opens connections asks for it each time, or keeps a [`Derived`], and
/// thereby follows a replacement. Connections that stand keep the one they were made with; whoever
/// owns them learns from [`Current::changes`] when to look at them again ([`Identity::recheck`]).
#[derive(Debug)]
pub struct Current {
    /// Nothing for an identity that no files stand behind.
    files: Option<Files>,
    identity: watch::Sender<Arc<Identity>>,
    taken: Mutex<Option<Fingerprint>>,
    asked: Notify,
}

/// What a look at the files has led to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reload {
    /// They are what they were.
    Unchanged,
    /// They are in use now.
    Replaced {
        /// Which of them had changed.
        changed: String,
    },
}

/// Tells of each replacement.
#[derive(Debug, Clone)]
pub struct Changes(watch::Receiver<Arc<Identity>>);

impl Current {
    /// Loads the files, and follows them when [`Current::follow`] runs.
    ///
    /// # Errors
    /// As [`Identity::load`].
    pub fn load(files: Files) -> Result<Self, IdentityError> {
        let contents = Contents::read(&files)?;
        let identity = Identity::of(&files, &contents)?;
        Ok(Self {
            files: Some(files),
            taken: Mutex::new(Some(contents.fingerprint())),
            ..Self::fixed(identity)
        })
    }

    /// An identity that changes by [`Current::replace`] only.
    #[must_use]
    pub fn fixed(identity: Identity) -> Self {
        Self {
            files: None,
            identity: watch::Sender::new(Arc::new(identity)),
            taken: Mutex::new(None),
            asked: Notify::new(),
        }
    }

    /// The identity as of now.
    #[must_use]
    pub fn get(&self) -> Arc<Identity> {
        Arc::clone(&self.identity.borrow())
    }

    /// Uses `identity` from now on.
    pub fn replace(&self, identity: Identity) {
        self.identity.send_replace(Arc::new(identity));
    }

    /// Tells of each replacement from now on.
    #[must_use]
    pub fn changes(&self) -> Changes {
        Changes(self.identity.subscribe())
    }

    /// Looks at the files now, whatever their time stamps say (`SIGHUP`). The outcome is logged by
    /// [`Current::follow`], which must run.
    pub fn check_soon(&self) {
        self.asked.notify_one();
    }

    /// Reads the files, and uses what they hold if it is new and sound.
    ///
    /// # Errors
    /// What is wrong with them: the identity stays what it was.
    pub fn reload(&self) -> Result<Reload, IdentityError> {
        let Some(files) = &self.files else {
            return Ok(Reload::Unchanged);
        };
        let contents = Contents::read(files)?;
        let fingerprint = contents.fingerprint();
        let before = *self.taken();
        if before == Some(fingerprint) {
            return Ok(Reload::Unchanged);
        }
        let identity = Identity::of(files, &contents)?;
        let in_use = self.get();
        if identity.certname() != in_use.certname() {
            return Err(IdentityError::OtherCertname {
                path: files.cert.clone(),
                found: identity.certname().clone(),
                expected: in_use.certname().clone(),
            });
        }
        if let Err(source) = identity.verify_own()
            && cannot_be_judged(&source)
            && in_use.verify_own().is_ok()
        {
            return Err(IdentityError::OwnUnknown(source));
        }
        self.replace(identity);
        *self.taken() = Some(fingerprint);
        let changed = before.map_or_else(String::new, |before| fingerprint.changes(&before));
        Ok(Reload::Replaced { changed })
    }

    /// Follows the files until it is dropped: every [`CHECK_INTERVAL`], and when asked to by
    /// [`Current::check_soon`]. Also warns of a certificate or
    /// a revocation list that ends soon.
    pub async fn follow(&self) {
        let mut follower = Follower::default();
        self.warn_of_end();
        let mut warned = Instant::now();
        loop {
            let asked = tokio::select! {
                biased;
                () = self.asked.notified() => true,
                () = sleep(CHECK_INTERVAL) => false,
            };
            follower.look(self, asked);
            if warned.elapsed() >= WARNING_INTERVAL {
                self.warn_of_end();
                warned = Instant::now();
            }
        }
    }

    fn warn_of_end(&self) {
        let identity = self.get();
        let days = identity.days_to_expiry(SystemTime::now());
        if days < EXPIRY_WARNING_DAYS {
            tracing::warn!(
                certname = %identity.certname(),
                days,
                "our certificate ends soon: renew it; it is taken without a restart"
            );
        }
        let Some(next) = identity.crl_next_update() else {
            return;
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let left = next.saturating_sub(now.unwrap_or_default().as_secs());
        if left < DAY * EXPIRY_WARNING_DAYS.unsigned_abs() {
            tracing::warn!(
                days = left / DAY,
                "a revocation list is out of date soon, and then every peer is refused: fetch a newer \
                 one; it is taken without a restart"
            );
        }
    }

    /// A fingerprint is whole at every step.
    fn taken(&self) -> MutexGuard<'_, Option<Fingerprint>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Changes {
    /// Waits for the next replacement. When nobody can replace it any more, for ever.
    pub async fn next(&mut self) -> Arc<Identity> {
        match self.0.changed().await {
            Ok(()) => Arc::clone(&self.0.borrow_and_update()),
            Err(_) => std::future::pending().await,
        }
    }
}

/// What was seen of the files.
#[derive(Debug, Default)]
struct Follower {
    stamps: Option<Stamps>,
    /// Read them next time too: two writes within one tick of the file system's clock leave one
    /// stamp, and what was not valid yet may have become so.
    again: bool,
    fault: Option<String>,
}

impl Follower {
    fn look(&mut self, current: &Current, asked: bool) {
        let Some(files) = &current.files else { return };
        let stamps = Some(Stamps::of(files));
        let changed = self.stamps != stamps;
        if !(changed || self.again || asked) {
            return;
        }
        self.stamps = stamps;
        self.again = changed;
        match current.reload() {
            Ok(reload) => {
                self.fault = None;
                tell(current, &reload, asked);
            }
            Err(error) => {
                self.again = true;
                let fault = chain(&error);
                if asked || self.fault.as_ref() != Some(&fault) {
                    tracing::error!(
                        error = %fault,
                        "the new certificates are not used, the old ones still are"
                    );
                }
                self.fault = Some(fault);
            }
        }
    }
}

fn tell(current: &Current, reload: &Reload, asked: bool) {
    let identity = current.get();
    match reload {
        Reload::Replaced { changed } => {
            let days = identity.days_to_expiry(SystemTime::now());
            tracing::info!(certname = %identity.certname(), %changed, days, "certificates replaced");
            if let Err(error) = identity.verify_own() {
                tracing::error!(
                    certname = %identity.certname(),
                    %error,
                    "our own certificate is not valid by these files: peers will refuse it"
                );
            }
            current.warn_of_end();
        }
        Reload::Unchanged if asked => {
            tracing::info!(certname = %identity.certname(), "the certificates are unchanged");
        }
        Reload::Unchanged => {}
    }
}

/// Whether a new set of files says nothing of our own certificate: a CA that did not sign it, or
/// lists that lack one of its CAs. By such files everybody else would be refused too. (That it was
/// revoked, or that a list is out of date, is said plainly, and is no reason to keep older lists.)
fn cannot_be_judged(error: &rustls::Error) -> bool {
    matches!(
        error,
        rustls::Error::InvalidCertificate(
            CertificateError::UnknownIssuer
                | CertificateError::UnknownRevocationStatus
                | CertificateError::BadSignature
        )
    )
}

fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// Something that is made of the identity, and made anew when that was replaced: a server's TLS
/// configuration, an HTTP client.
pub struct Derived<T> {
    current: Arc<Current>,
    make: Box<Make<T>>,
    made: Mutex<(Arc<Identity>, T)>,
}

type Make<T> = dyn Fn(&Identity) -> Result<T, Box<dyn Error>> + Send + Sync;

impl<T: Clone> Derived<T> {
    /// Makes it now, and again after each replacement, when it is next asked for.
    ///
    /// # Errors
    /// What `make` says of the identity in use.
    pub fn new<F, E>(current: Arc<Current>, make: F) -> Result<Self, E>
    where
        F: Fn(&Identity) -> Result<T, E> + Send + Sync + 'static,
        E: Error + 'static,
    {
        let identity = current.get();
        let made = make(&identity)?;
        Ok(Self {
            current,
            make: Box::new(move |identity| make(identity).map_err(Into::into)),
            made: Mutex::new((identity, made)),
        })
    }

    /// As of now. If it cannot be made of a new identity, it stays as it was.
    pub fn get(&self) -> T {
        let identity = self.current.get();
        // Both halves are replaced together.
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if !Arc::ptr_eq(&made.0, &identity) {
            match (self.make)(&identity) {
                Ok(new) => *made = (identity, new),
                Err(error) => {
                    tracing::error!(error = %chain(&*error), "the new certificates cannot be used");
                    made.0 = identity;
                }
            }
        }
        made.1.clone()
    }
}

impl<T> std::fmt::Debug for Derived<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Derived").finish_non_exhaustive()
    }
}
