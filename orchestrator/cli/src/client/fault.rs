//! Why there is no answer: from the chain of causes of the HTTP client to the one that matters.

use std::error::Error;
use std::io;

use rustls::CertificateError;

/// Why the orchestrator could not be asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    #[error("{url} refuses the connection")]
    Refused { url: String },
    #[error("{url} does not answer in time")]
    TimedOut { url: String },
    #[error("the host name of {url} is not known")]
    UnknownHost { url: String },
    #[error("the certificate of {url} was not issued by a CA of {ca_file}")]
    NotTrusted { url: String, ca_file: String },
    #[error("the certificate of {url} is not for '{host}' but for {names}")]
    OtherName {
        url: String,
        host: String,
        names: String,
    },
    #[error("the certificate of {url} has expired")]
    Expired { url: String },
    #[error("the certificate of {url} is not valid yet")]
    NotValidYet { url: String },
    #[error("TLS with {url} failed")]
    Tls {
        url: String,
        #[source]
        source: rustls::Error,
    },
    #[error("the connection to {url} failed")]
    Broken {
        url: String,
        #[source]
        source: reqwest::Error,
    },
}

impl ConnectError {
    /// Whether trying again may help.
    pub(crate) fn is_passing(&self) -> bool {
        matches!(
            self,
            Self::Refused { .. } | Self::TimedOut { .. } | Self::Broken { .. }
        )
    }

    pub(crate) fn next_step(&self) -> &'static str {
        match self {
            Self::Refused { .. } => "Is pxp-orchestrator running there, and is the port right?",
            Self::TimedOut { .. } => "Check the service-url, the network and firewalls on the way.",
            Self::UnknownHost { .. } => "Check the service-url.",
            Self::NotTrusted { .. } => {
                "Give the CA certificates of the orchestrator's Puppet with --ca-cert or cacert."
            }
            Self::OtherName { .. } => "Use one of these names in the service-url.",
            Self::Expired { .. } => {
                "Renew the orchestrator's certificate, or check the clock of this machine."
            }
            Self::NotValidYet { .. } => "Check the clocks of both machines.",
            Self::Tls { .. } | Self::Broken { .. } => {
                "Check that the service-url is that of an orchestrator; its log may tell more."
            }
        }
    }
}

/// Finds the cause that a person can act on.
pub(super) fn classify(
    error: reqwest::Error,
    url: &str,
    host: &str,
    ca_file: &str,
) -> ConnectError {
    let url = url.to_owned();
    if let Some(tls) = find_tls(&error) {
        return of_certificate(tls, url, host, ca_file);
    }
    if error.is_timeout() || find_io(&error, io::ErrorKind::TimedOut) {
        return ConnectError::TimedOut { url };
    }
    if find_io(&error, io::ErrorKind::ConnectionRefused) {
        return ConnectError::Refused { url };
    }
    // The resolver's error has no type of its own.
    if error.is_connect() && causes(&error).any(|cause| cause.to_string() == "dns error") {
        return ConnectError::UnknownHost { url };
    }
    ConnectError::Broken {
        url,
        source: error.without_url(),
    }
}

fn of_certificate(error: rustls::Error, url: String, host: &str, ca_file: &str) -> ConnectError {
    let rustls::Error::InvalidCertificate(problem) = &error else {
        return ConnectError::Tls { url, source: error };
    };
    let other_name = |presented: &[String]| ConnectError::OtherName {
        url: url.clone(),
        host: host.to_owned(),
        names: if presented.is_empty() {
            "no name at all".to_owned()
        } else {
            presented.join(", ")
        },
    };
    match problem {
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            ConnectError::NotTrusted {
                url,
                ca_file: ca_file.to_owned(),
            }
        }
        CertificateError::NotValidForName => other_name(&[]),
        CertificateError::NotValidForNameContext { presented, .. } => other_name(presented),
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            ConnectError::Expired { url }
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            ConnectError::NotValidYet { url }
        }
        _ => ConnectError::Tls { url, source: error },
    }
}

fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    let mut next = Some(error);
    std::iter::from_fn(move || {
        let error = next?;
        next = error.source();
        Some(error)
    })
}

/// An error of TLS travels inside an error of the operating system's kind, hidden from `source`.
fn find_tls(error: &(dyn Error + 'static)) -> Option<rustls::Error> {
    causes(error).find_map(|cause| {
        let mut inner: Option<&(dyn Error + 'static)> = Some(cause);
        while let Some(error) = inner {
            if let Some(tls) = error.downcast_ref::<rustls::Error>() {
                return Some(tls.clone());
            }
            inner = error
                .downcast_ref::<io::Error>()
                .and_then(io::Error::get_ref)
                .map(|inner| inner as &(dyn Error + 'static));
        }
        None
    })
}

fn find_io(error: &(dyn Error + 'static), kind: io::ErrorKind) -> bool {
    causes(error)
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|error| error.kind() == kind)
}
