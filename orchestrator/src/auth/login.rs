//! A password for a token.

use std::time::Duration;

use orchestrator_api::rbac::{TokenRequest, lifetime};
use orchestrator_api::{ApiError, ErrorKind};

use super::lockout::Who;
use super::password::PasswordError;
use super::token::{self, CreateError};
use super::{Access, Denied, Peer, lock, user_revoked};
use crate::clock::wall;
use crate::store::AccessChange;

/// How long a token that is of no use any more is kept, so that its user is told why.
const KEEP: Duration = Duration::from_secs(30 * 86_400);

impl Access {
    /// Makes a token for whoever knows the password.
    ///
    /// # Errors
    /// [`Denied`]: the credentials are wrong, there were too many wrong ones, or the request is.
    pub(crate) async fn login(&self, request: TokenRequest, peer: &Peer) -> Result<String, Denied> {
        if let Some(url) = &self.0.settings.service {
            let msg = format!("users are known at {url}: get the token there");
            return Err(ApiError::new(ErrorKind::NotFound, msg).into());
        }
        let lasting = self.lifetime(request.lifetime.as_deref())?;
        let login = request.login;
        let mut who = vec![Who::Login(login.clone())];
        who.extend(peer.address.map(|address| Who::Address(address.ip())));
        let now = self.0.started.elapsed();
        let pause = {
            let mut lockout = lock(&self.0.lockout);
            let pause = lockout.pause(&who, now);
            if pause.is_zero() {
                lockout.failed(&who, now);
            }
            pause
        };
        if !pause.is_zero() {
            return Err(locked_out(pause).into());
        }
        let account = self.0.store.account(login.clone()).await?;
        let stored = account.as_ref().and_then(|it| it.user.password.clone());
        let fits = self.0.passwords.check(request.password, stored).await?;
        let Some(account) = account.filter(|_| fits) else {
            return Err(self.wrong(&login, peer));
        };
        lock(&self.0.lockout).succeeded(&who);
        if account.user.revoked.is_some() {
            return Err(user_revoked().into());
        }
        let store = &self.0.store;
        let token = token::create(store, &login, lasting)
            .await
            .map_err(|error| match error {
                CreateError::Store(error) => Denied::Store(error),
                CreateError::Login | CreateError::Lifetime => invalid(&error.to_string()).into(),
            })?;
        let at = wall();
        let logged_in = AccessChange::LoggedIn {
            login: login.clone(),
            at,
        };
        store.change_access(logged_in).await?;
        let keep = i64::try_from(KEEP.as_millis()).unwrap_or(i64::MAX);
        store.prune_tokens(at.saturating_sub(keep)).await?;
        tracing::info!(login, address = ?peer.address, "logged in");
        Ok(token)
    }

    /// How long the token is to be valid.
    fn lifetime(&self, text: Option<&str>) -> Result<Duration, ApiError> {
        let settings = &self.0.settings;
        let Some(text) = text else {
            return Ok(settings.token_lifetime);
        };
        let longest = settings.longest_token_lifetime;
        let lasting = lifetime(text)
            .map_err(|error| invalid(&error.to_string()).with("lifetime", text))?
            .unwrap_or(longest);
        if lasting > longest {
            let longest = longest.as_secs();
            let msg = format!("the lifetime {text} is above the longest, {longest}s");
            return Err(invalid(&msg).with("lifetime", text));
        }
        Ok(lasting)
    }

    fn wrong(&self, login: &str, peer: &Peer) -> Denied {
        let address = peer.address.map(|address| address.ip());
        // The login is not part of the cause: a guesser of logins must not fill the log.
        self.log_refusal(format!("login {address:?}"), |repeated| {
            tracing::warn!(login, ?address, repeated, "login refused");
        });
        let msg = "the login or the password is wrong";
        ApiError::new(ErrorKind::UserUnauthenticated, msg).into()
    }
}

fn invalid(msg: &str) -> ApiError {
    ApiError::new(ErrorKind::ValidationError, msg)
}

fn locked_out(pause: Duration) -> ApiError {
    let seconds = pause.as_secs() + 1;
    let msg = format!("too many wrong passwords: try again in {seconds} seconds");
    ApiError::new(ErrorKind::LockedOut, msg).with("seconds", seconds)
}

impl From<PasswordError> for Denied {
    fn from(error: PasswordError) -> Self {
        Self::Unavailable(error.to_string())
    }
}
