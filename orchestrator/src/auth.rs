//! Who is calling, and what they may do. A caller shows a token, or a certificate that is on the
//! allow-list. Users, their passwords and roles are in the database, or another service knows them
//! ([`remote`]). What is not permitted is refused.

mod lockout;
mod login;
mod password;
mod remote;
pub(crate) mod token;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use daemon::Refusals;
use identity::Current;
use orchestrator_api::{ApiError, ErrorKind};
use pcp::uri::Certname;

use crate::config::AccessConfig;
use crate::grant::{self, Action, Grant, NodeFilter};
use crate::store::{Account, Store, StoreError};
use crate::task_target::{TargetId, TaskTarget};
use lockout::Lockout;
use remote::Remote;

pub(crate) use password::Passwords;

/// Somebody whose token or certificate was accepted.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    pub(crate) login: String,
    powers: Powers,
}

/// What a caller may do.
#[derive(Debug, Clone)]
enum Powers {
    /// An administrator made the token on the host.
    All,
    /// What the roles of a user permit.
    Account(Arc<Account>),
    /// The subject's id at the service that is asked each time.
    Remote(String),
}

/// Where a request comes from.
#[derive(Debug, Clone, Default)]
pub(crate) struct Peer {
    /// Nothing in tests without a socket.
    pub(crate) address: Option<SocketAddr>,
    /// Whose certificate was shown and verified, if any was.
    pub(crate) certname: Option<Certname>,
}

/// Why a caller is not let in, or not let do something.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Denied {
    /// No token, one that is of no use, or no permission.
    #[error("refused: {}", .0.msg)]
    Refused(ApiError),
    /// The database cannot be read.
    #[error("the database cannot be read")]
    Store(#[source] StoreError),
    /// The service that knows the users gives no answer, or there are too many logins at once.
    #[error("{0}")]
    Unavailable(String),
}

/// Decides about callers. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Access(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: Store,
    settings: AccessConfig,
    passwords: Passwords,
    lockout: Mutex<Lockout>,
    refusals: Mutex<Refusals>,
    remote: Option<Remote>,
    started: Instant,
}

impl Access {
    pub(crate) fn new(store: Store, settings: AccessConfig, identity: Arc<Current>) -> Self {
        let remote = settings
            .service
            .as_ref()
            .map(|url| Remote::new(url.clone(), identity));
        Self(Arc::new(Inner {
            store,
            passwords: Passwords::new(),
            lockout: Mutex::new(Lockout::new(settings.failed_attempts)),
            refusals: Mutex::default(),
            remote,
            started: Instant::now(),
            settings,
        }))
    }

    /// Finds out who is calling. A token counts before a certificate.
    ///
    /// # Errors
    /// [`Denied`].
    pub(crate) async fn authenticate(
        &self,
        token: Option<&str>,
        peer: &Peer,
    ) -> Result<Caller, Denied> {
        let token = token.map(str::trim).filter(|token| !token.is_empty());
        if let Some(token) = token {
            return self.by_token(token).await;
        }
        let listed = peer
            .certname
            .as_ref()
            .and_then(|certname| Some((certname, self.0.settings.allowlist.get(certname)?)));
        if let Some((certname, login)) = listed {
            return self.by_certificate(certname, login).await;
        }
        let error = unauthenticated("no token: send one in the header X-Authentication");
        Err(match &peer.certname {
            Some(certname) => error.with("certname", certname.to_string()).into(),
            None => error.into(),
        })
    }

    async fn by_token(&self, token: &str) -> Result<Caller, Denied> {
        if token.len() > token::MAX {
            return Err(unauthenticated("the token is not valid").into());
        }
        match token::find(&self.0.store, token).await? {
            Some(token::Found { login, account }) => {
                let powers = match account {
                    Some(account) => Powers::Account(Arc::new(account)),
                    None => Powers::All,
                };
                Ok(Caller { login, powers })
            }
            None => match &self.0.remote {
                Some(remote) => {
                    let subject = remote.authenticate(token).await?;
                    Ok(Caller {
                        login: subject.login,
                        powers: Powers::Remote(subject.id),
                    })
                }
                None => Err(unauthenticated("the token is not valid").into()),
            },
        }
    }

    async fn by_certificate(&self, certname: &Certname, login: &str) -> Result<Caller, Denied> {
        let account = self.0.store.account(login.to_owned()).await?;
        let refused = |msg: String| {
            let error = ApiError::new(ErrorKind::UserUnauthenticated, msg);
            Denied::from(error.with("certname", certname.to_string()))
        };
        match account {
            None => Err(refused(format!(
                "the certificate {certname} is on the allow-list for the login {login:?}, which is no user"
            ))),
            Some(account) if account.user.revoked.is_some() => Err(user_revoked().into()),
            Some(account) => Ok(Caller {
                login: login.to_owned(),
                powers: Powers::Account(Arc::new(account)),
            }),
        }
    }

    /// The nodes on which a caller may do something.
    ///
    /// # Errors
    /// [`Denied`], also when there is no node on which they may.
    pub(crate) async fn nodes(
        &self,
        caller: &Caller,
        action: Action,
        task: Option<&str>,
    ) -> Result<NodeFilter, Denied> {
        let mut filter = match &caller.powers {
            Powers::All => Some(NodeFilter::all()),
            Powers::Account(account) => NodeFilter::of(&account.grants, action, task),
            Powers::Remote(subject) => {
                let permitted = match &self.0.remote {
                    Some(remote) => remote.permitted(subject, action, task).await?,
                    None => false,
                };
                permitted.then(NodeFilter::all)
            }
        };
        if action == Action::RunTask {
            let targets = self.targets(caller).await?.into_iter();
            let targets: Vec<_> = targets.filter(|(_, it)| it.covers(task)).collect();
            if !targets.is_empty() {
                filter = Some(filter.unwrap_or_default().with_targets(targets));
            }
        }
        filter.ok_or_else(|| self.refuse(caller, action, task))
    }

    /// The task targets that a caller may use.
    async fn targets(&self, caller: &Caller) -> Result<Vec<(TargetId, TaskTarget)>, Denied> {
        let may_have_some = match &caller.powers {
            Powers::All => false,
            Powers::Account(account) => account
                .grants
                .iter()
                .any(|grant| grant.action == Some(Action::RunTarget)),
            Powers::Remote(_) => true,
        };
        if !may_have_some {
            return Ok(vec![]);
        }
        let targets = self.0.store.task_targets().await?;
        let names: Vec<String> = targets.iter().map(|(id, _)| id.to_string()).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let permitted = match (&caller.powers, &self.0.remote) {
            (Powers::Account(account), _) => {
                let grants = &account.grants;
                let of_target = |name: &&str| {
                    let mut grants = grants.iter();
                    grants.any(|grant| grant.allows(Action::RunTarget, Some(name)))
                };
                names.iter().map(of_target).collect()
            }
            (Powers::Remote(subject), Some(remote)) => {
                remote.which(subject, Action::RunTarget, &names).await?
            }
            (Powers::All, _) | (Powers::Remote(_), None) => vec![],
        };
        let permitted = targets.into_iter().zip(permitted);
        Ok(permitted
            .filter_map(|(it, may)| may.then_some(it))
            .collect())
    }

    /// Whether a caller may do something anywhere.
    ///
    /// # Errors
    /// [`Denied`] when they may not.
    pub(crate) async fn require(&self, caller: &Caller, action: Action) -> Result<(), Denied> {
        self.nodes(caller, action, None).await.map(drop)
    }

    /// Which of these tasks a caller may run on some node, in their order.
    ///
    /// # Errors
    /// [`Denied`] when the service that knows it gives no answer.
    pub(crate) async fn may_run(
        &self,
        caller: &Caller,
        tasks: &[&str],
    ) -> Result<Vec<bool>, Denied> {
        let mut permitted = match (&caller.powers, &self.0.remote) {
            (Powers::All, _) => return Ok(vec![true; tasks.len()]),
            (Powers::Account(account), _) => {
                let allows = |task: &&str| {
                    let grants = &account.grants;
                    grants
                        .iter()
                        .any(|grant| grant.allows(Action::RunTask, Some(task)))
                };
                tasks.iter().map(allows).collect()
            }
            (Powers::Remote(subject), Some(remote)) => {
                remote.which(subject, Action::RunTask, tasks).await?
            }
            (Powers::Remote(_), None) => vec![false; tasks.len()],
        };
        let targets = self.targets(caller).await?;
        for (may, task) in permitted.iter_mut().zip(tasks) {
            *may |= targets.iter().any(|(_, target)| target.covers(Some(task)));
        }
        Ok(permitted)
    }

    /// The error for a caller who lacks a permission, which is logged with who and what.
    pub(crate) fn refuse(&self, caller: &Caller, action: Action, task: Option<&str>) -> Denied {
        let login = &caller.login;
        let what = match task {
            Some(task) => format!("{} of {task}", action.text()),
            None => action.text().to_owned(),
        };
        self.log_refusal(format!("{login} {what}"), |repeated| {
            tracing::warn!(login, permission = what, repeated, "not permitted");
        });
        let msg = format!("{login} has no permission {what}");
        let mut error = ApiError::new(ErrorKind::NotPermitted, msg)
            .with("login", login.as_str())
            .with("permission", action.text());
        if let Some(task) = task {
            error = error.with("task", task);
        }
        error.into()
    }

    /// Logs a refusal unless the same has just been logged.
    fn log_refusal(&self, cause: String, log: impl FnOnce(u64)) {
        let now = self.0.started.elapsed();
        if let Some(repeated) = lock(&self.0.refusals).note(cause, now) {
            log(repeated);
        }
    }
}

impl Caller {
    /// The grants of a user of ours.
    pub(crate) fn account(&self) -> Option<&Account> {
        match &self.powers {
            Powers::Account(account) => Some(account),
            Powers::All | Powers::Remote(_) => None,
        }
    }

    /// Whether everything is allowed.
    pub(crate) fn is_superuser(&self) -> bool {
        let everything = |grant: &Grant| {
            grant.action.is_none()
                && grant.tasks == grant::Pattern::any()
                && grant.nodes == [grant::Pattern::any()]
        };
        match &self.powers {
            Powers::All => true,
            Powers::Account(account) => account.grants.iter().any(everything),
            Powers::Remote(_) => false,
        }
    }
}

impl From<ApiError> for Denied {
    fn from(error: ApiError) -> Self {
        Self::Refused(error)
    }
}

impl From<StoreError> for Denied {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

fn unauthenticated(msg: &str) -> ApiError {
    ApiError::new(ErrorKind::UserUnauthenticated, msg)
}

fn user_revoked() -> ApiError {
    ApiError::new(ErrorKind::UserRevoked, "the user has been revoked")
}

/// What is behind these locks is whole at every step, so a panic elsewhere does not spoil it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
