//! What the `doctor` commands of everything that has a Puppet certificate look at alike: the
//! certificate itself, its revocation lists, and brokers on the way.

use std::time::{SystemTime, UNIX_EPOCH};

use daemon::doctor::Findings;
use identity::{Files, Identity, IdentityError, Revocation};

use crate::address::BrokerAddress;
use crate::probe;

const DAY: u64 = 24 * 3600;

/// What a broker that cannot be reached is most likely to lack.
pub const BROKER_ADVICE: &str =
    "is it running, is UDP 8142 open on the way, is its certificate for that name?";

/// How a daemon calls the keys of its certificates.
#[derive(Debug, Clone, Copy)]
pub struct Keys {
    /// Where they stand, such as `the section pcp-broker`.
    pub place: &'static str,
    /// The key of the revocation lists.
    pub crl: &'static str,
}

/// Looks at the certificates. Gives the identity when there is one.
pub fn certificate(files: &Files, keys: Keys, findings: &mut Findings) -> Option<Identity> {
    let (place, crl) = (keys.place, keys.crl);
    let subject = "certificate";
    let identity = match Identity::load(files) {
        Ok(identity) => identity,
        Err(error) => {
            let advice = match &error {
                IdentityError::KeyMismatch { .. } => {
                    "ssl-cert and ssl-key must be of the same certname".to_owned()
                }
                IdentityError::Read { .. } => {
                    "the path must exist and the service's user must be able to read it".to_owned()
                }
                _ => format!(
                    "see {place}: ssl-cert, ssl-key, ssl-ca-cert, {crl}; `puppet agent -t` makes them"
                ),
            };
            findings.fail(subject, daemon::error_chain(&error), advice);
            return None;
        }
    };
    let now = SystemTime::now();
    let days = identity.days_to_expiry(now);
    let found = format!(
        "{}, its key fits, good for {days} more days",
        identity.certname()
    );
    if days < identity::EXPIRY_WARNING_DAYS {
        let advice = "renew it; a running service takes the new one by itself";
        findings.warn(subject, found, advice);
    } else {
        findings.ok(subject, found);
    }
    if let Err(error) = identity.verify_own() {
        findings.fail(
            subject,
            format_args!("peers will not take it: {error}"),
            "it must be issued by the CA of ssl-ca-cert, be valid now and not be revoked",
        );
    }
    let subject = "revocation";
    match (files.revocation, identity.crl_next_update()) {
        (Revocation::None, _) => findings.warn(
            subject,
            "is not checked: a stolen certificate stays good",
            format_args!("certificate-revocation: chain, and {crl}, in {place}"),
        ),
        (_, None) => findings.ok(subject, "lists say no time of their next issue"),
        (_, Some(next)) => {
            let now = now.duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
            match next.checked_sub(now) {
                Some(left) => findings.ok(
                    subject,
                    format_args!("lists are current for {} more days", left / DAY),
                ),
                None => findings.fail(
                    subject,
                    format_args!("a list is out of date for {} days: all are refused", (now - next) / DAY),
                    "fetch the CA's crl.pem again (`puppet agent -t` does), or let the CA issue a new one",
                ),
            }
        }
    }
    Some(identity)
}

/// Shakes hands with a broker. Gives why not, when it cannot be reached.
pub async fn reach(
    broker: &BrokerAddress,
    identity: Identity,
    subject: &str,
    findings: &mut Findings,
) -> Result<(), probe::NotReached> {
    let reached = probe::quic(broker, identity).await?;
    findings.ok(
        subject,
        format_args!(
            "{} at {} answered over QUIC in {} ms",
            reached.broker,
            reached.address,
            reached.took.as_millis().max(1)
        ),
    );
    Ok(())
}
