//! Who is not let in, and whose messages are not passed on: counted by cause, and told in the log once a
//! minute for each cause and each who, with how often it came besides.

use std::fmt::Display;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use daemon::metrics::Labels;
use pcp::{Envelope, ErrorKind, Uri};
use tokio_rustls::rustls::{AlertDescription, CertificateError, Error as TlsError};

use crate::authorize::Refused;
use crate::counts::Count;

/// Why somebody, or a message, was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// A revocation list names the certificate.
    Revoked,
    /// The certificate's time is over.
    Expired,
    /// The certificate is not of our CA.
    Untrusted,
    /// There is no certificate, or none with a certname.
    NoCertificate,
    /// The handshake failed in another way.
    Handshake,
    /// The peer was too slow: with the handshake, or with its hello.
    Slow,
    /// It said no hello that could be read, or left before.
    Hello,
    /// It broke the protocol.
    Protocol,
    /// Nobody knows its client type here.
    ClientType,
    /// It is none of our controllers.
    Controller,
    /// It is none of our brokers.
    Broker,
    /// No rule of the operator's lets it connect.
    Rule,
    /// Its certificate has too many connections.
    Crowded,
    /// All controllers are lost.
    NoControllers,
    /// The sender of a message is not the client that sent it, nor one of the broker's that did.
    Sender,
    /// The rules forbid the message.
    Message,
    /// A message has several targets, or is too large or unreadable.
    Form,
}

impl Cause {
    const ALL: [Self; 17] = [
        Self::Revoked,
        Self::Expired,
        Self::Untrusted,
        Self::NoCertificate,
        Self::Handshake,
        Self::Slow,
        Self::Hello,
        Self::Protocol,
        Self::ClientType,
        Self::Controller,
        Self::Broker,
        Self::Rule,
        Self::Crowded,
        Self::NoControllers,
        Self::Sender,
        Self::Message,
        Self::Form,
    ];

    /// The word of the metric and of the log.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Revoked => "revoked",
            Self::Expired => "expired",
            Self::Untrusted => "untrusted",
            Self::NoCertificate => "no_certificate",
            Self::Handshake => "handshake",
            Self::Slow => "slow",
            Self::Hello => "hello",
            Self::Protocol => "protocol",
            Self::ClientType => "client_type",
            Self::Controller => "not_a_controller",
            Self::Broker => "not_a_broker",
            Self::Rule => "rule",
            Self::Crowded => "too_many_connections",
            Self::NoControllers => "no_controllers",
            Self::Sender => "spoofed_sender",
            Self::Message => "message_forbidden",
            Self::Form => "message_form",
        }
    }

    /// What a fault of TLS over TCP stands for.
    pub(crate) fn of_tls(error: &TlsError) -> Self {
        match error {
            TlsError::InvalidCertificate(fault) => match fault {
                CertificateError::Revoked => Self::Revoked,
                CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                    Self::Expired
                }
                _ => Self::Untrusted,
            },
            TlsError::NoCertificatesPresented => Self::NoCertificate,
            _ => Self::Handshake,
        }
    }

    /// What the alert stands for that ended a handshake over QUIC.
    pub(crate) fn of_alert(alert: u8) -> Self {
        match AlertDescription::from(alert) {
            AlertDescription::CertificateRevoked => Self::Revoked,
            AlertDescription::CertificateExpired => Self::Expired,
            AlertDescription::CertificateRequired => Self::NoCertificate,
            AlertDescription::UnknownCA
            | AlertDescription::BadCertificate
            | AlertDescription::CertificateUnknown
            | AlertDescription::DecryptError => Self::Untrusted,
            _ => Self::Handshake,
        }
    }
}

impl From<Refused> for Cause {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::ClientType => Self::ClientType,
            Refused::Controller => Self::Controller,
            Refused::Broker => Self::Broker,
            Refused::Rule => Self::Rule,
        }
    }
}

/// All refusals of a broker.
#[derive(Debug)]
pub(crate) struct Refusals {
    counts: [Count; Cause::ALL.len()],
    told: Mutex<daemon::Refusals>,
    born: Instant,
}

impl Default for Refusals {
    fn default() -> Self {
        Self {
            counts: Default::default(),
            told: Mutex::default(),
            born: Instant::now(),
        }
    }
}

impl Refusals {
    /// A connection is refused. `who` is its certname, as far as that is known.
    pub(crate) fn connection(
        &self,
        cause: Cause,
        who: Option<&dyn Display>,
        address: SocketAddr,
        error: &dyn std::error::Error,
    ) {
        let key = match who {
            Some(who) => format!("{} {who}", cause.word()),
            None => format!("{} {}", cause.word(), address.ip()),
        };
        if let Some(repeats) = self.note(cause, key) {
            let error = daemon::error_chain(error);
            tracing::info!(%address, cause = cause.word(), %error, repeats, "connection refused");
        }
    }

    /// A message of `peer` gets an error back at once. Only what a sound peer never does is told: a
    /// target that is away is nobody's fault.
    pub(crate) fn message(&self, kind: ErrorKind, peer: &Uri, envelope: &Envelope) {
        let cause = match kind {
            ErrorKind::NotAuthenticated => Cause::Sender,
            ErrorKind::NotAuthorized => Cause::Message,
            ErrorKind::TooLarge | ErrorKind::Undecodable => Cause::Form,
            ErrorKind::NotConnected
            | ErrorKind::Busy
            | ErrorKind::Unreachable
            | ErrorKind::TooManyHops => return,
        };
        if let Some(repeats) = self.note(cause, format!("{} {peer}", cause.word())) {
            tracing::warn!(
                %peer,
                cause = cause.word(),
                sender = %envelope.sender,
                target = %envelope.target,
                message_type = %envelope.message_type,
                message_id = %envelope.id,
                repeats,
                "message refused"
            );
        }
    }

    /// A message of an existing peer is refused before it is one of ours.
    pub(crate) fn foreign(&self, cause: Cause, peer: &Uri, why: &str) {
        if let Some(repeats) = self.note(cause, format!("{} {peer}", cause.word())) {
            tracing::warn!(%peer, cause = cause.word(), why, repeats, "message refused");
        }
    }

    /// How often each cause came so far.
    pub(crate) fn counts(&self) -> impl Iterator<Item = (Labels<1>, u64)> {
        let counts = Cause::ALL.iter().zip(&self.counts);
        counts.map(|(cause, count)| ([("cause", cause.word())], count.get()))
    }

    fn note(&self, cause: Cause, key: String) -> Option<u64> {
        for (known, count) in Cause::ALL.iter().zip(&self.counts) {
            if *known == cause {
                count.add();
            }
        }
        // A list of refusals is whole at every step.
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.note(key, self.born.elapsed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cause_has_a_word_of_its_own_and_is_counted() {
        let refusals = Refusals::default();
        for cause in Cause::ALL {
            assert_eq!(refusals.note(cause, cause.word().to_owned()), Some(0));
            assert_eq!(refusals.note(cause, cause.word().to_owned()), None);
        }
        let counts: Vec<_> = refusals.counts().map(|(_, count)| count).collect();
        assert_eq!(counts, [2; 17]);
    }

    #[test]
    fn what_a_sound_peer_may_do_is_no_refusal() {
        let refusals = Refusals::default();
        let envelope = Envelope {
            id: pcp::MessageId(uuid::Uuid::nil()),
            message_type: pcp::MessageType::of("rpc_blocking_request"),
            sender: "pcp://a/agent".parse().expect("an address"),
            target: pcp::Target::Broker,
            in_reply_to: None,
            hops: 0,
            flags: pcp::Flags::default(),
        };
        let peer = envelope.sender.clone();
        refusals.message(ErrorKind::NotConnected, &peer, &envelope);
        refusals.message(ErrorKind::NotAuthorized, &peer, &envelope);
        let told: Vec<_> = refusals.counts().filter(|(_, count)| *count > 0).collect();
        assert_eq!(told, [([("cause", "message_forbidden")], 1)]);
    }
}
