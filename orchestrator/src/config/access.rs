//! What the files say about who may call: lifetimes of tokens, the allow-list of certificates, and
//! whether another service knows the users.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use pcp::uri::Certname;

use super::file::{RbacConsumerFile, RbacFile};
use super::{Check, defaults};

/// Who may call.
#[derive(Debug, Clone)]
pub struct AccessConfig {
    /// How long a token is valid when its request does not say.
    pub token_lifetime: Duration,
    /// The longest that a request may ask for.
    pub longest_token_lifetime: Duration,
    /// How many failed logins in a row are let pass before pauses begin.
    pub failed_attempts: u32,
    /// Certificates of services, each with the login that it acts as.
    pub allowlist: BTreeMap<Certname, String>,
    /// The service that knows users, when it is not this one: the URL before `/v1`.
    pub service: Option<String>,
}

impl AccessConfig {
    pub(super) fn resolve(
        check: &mut Check<'_>,
        rbac: &RbacFile,
        consumer: RbacConsumerFile,
        allowlist: Option<BTreeMap<String, String>>,
    ) -> Self {
        let token_lifetime = rbac
            .token_auth_lifetime
            .map_or(defaults::TOKEN_LIFETIME, |lasting| lasting.0);
        let longest_token_lifetime = rbac
            .token_maximum_lifetime
            .map_or(defaults::LONGEST_TOKEN_LIFETIME, |lasting| lasting.0);
        if token_lifetime > longest_token_lifetime || token_lifetime.is_zero() {
            let problem = "must be above zero and not above token-maximum-lifetime";
            check.fault_at("rbac.token-auth-lifetime", problem);
        }
        let failed_attempts = rbac
            .failed_attempts_lockout
            .unwrap_or(defaults::FAILED_ATTEMPTS);
        if failed_attempts == 0 {
            check.fault_at("rbac.failed-attempts-lockout", "must be at least 1");
        }
        let mut names = BTreeMap::new();
        for (certname, login) in allowlist.unwrap_or_default() {
            match certname.parse() {
                Ok(certname) => drop(names.insert(certname, login)),
                Err(error) => {
                    let problem = format!("{certname:?} is not a certname: {error}");
                    check.fault_at("orchestrator.certificate-allowlist", problem);
                }
            }
        }
        let service = consumer.api_url;
        if let Some(url) = &service
            && !url.starts_with("https://")
        {
            let problem = "must begin with https://: tokens travel to it";
            check.fault_at("rbac-consumer.api-url", problem);
        }
        Self {
            token_lifetime,
            longest_token_lifetime,
            failed_attempts,
            allowlist: names,
            service: service.map(|url| url.trim_end_matches('/').to_owned()),
        }
    }

    /// The part inside the section `orchestrator`.
    pub(super) fn write_allowlist(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.allowlist.is_empty() {
            return Ok(());
        }
        writeln!(f, "  certificate-allowlist {{")?;
        for (certname, login) in &self.allowlist {
            writeln!(f, "    {:?}: {login:?}", certname.to_string())?;
        }
        writeln!(f, "  }}")
    }

    /// The sections of its own.
    pub(super) fn write_sections(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "rbac {{")?;
        let seconds = self.token_lifetime.as_secs();
        writeln!(f, "  token-auth-lifetime: \"{seconds}s\"")?;
        let seconds = self.longest_token_lifetime.as_secs();
        writeln!(f, "  token-maximum-lifetime: \"{seconds}s\"")?;
        writeln!(f, "  failed-attempts-lockout: {}", self.failed_attempts)?;
        writeln!(f, "}}")?;
        match &self.service {
            Some(url) => writeln!(f, "rbac-consumer {{ api-url: {url:?} }}"),
            None => Ok(()),
        }
    }
}
