//! Where controllers wait that want to be dialled.

use std::fmt;
use std::str::FromStr;

use pcp::{Certname, ClientType, Uri};
use pcp_client::BrokerAddress;

/// Where a controller waits to be dialled: `wss://HOST:PORT/PATH`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControllerUri {
    /// Its host and port.
    pub address: BrokerAddress,
    /// Its path, with the slash.
    pub path: String,
    /// Its address in PCP: `pcp://HOST:PORT/server`.
    pub uri: Uri,
}

/// Why a text is not where a controller waits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ControllerUriError {
    /// It has another form.
    #[error("a controller is written wss://HOST:PORT/PATH")]
    Form,
    /// Host or port are wrong.
    #[error("{0}")]
    Address(pcp_client::address::AddressError),
    /// The host cannot stand in an address of PCP.
    #[error("the host of a controller is a name or an IPv4 address")]
    Host,
}

impl FromStr for ControllerUri {
    type Err = ControllerUriError;

    fn from_str(text: &str) -> Result<Self, ControllerUriError> {
        let rest = text
            .strip_prefix("wss://")
            .ok_or(ControllerUriError::Form)?;
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let odd = |c: char| !c.is_ascii_graphic() || "?#\"<>".contains(c);
        if !authority.contains(':') || path.contains(odd) {
            return Err(ControllerUriError::Form);
        }
        let address: BrokerAddress = authority.parse().map_err(ControllerUriError::Address)?;
        let certname = Certname::parse(authority).map_err(|_| ControllerUriError::Host)?;
        Ok(Self {
            address,
            path: format!("/{path}"),
            uri: Uri::new(certname, ClientType::server()),
        })
    }
}

impl fmt::Display for ControllerUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "wss://{}{}", self.address, self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_original_s_configuration_has() {
        let text = "wss://primary.example.com:8143/server";
        let controller: ControllerUri = text.parse().expect(text);
        assert_eq!(controller.to_string(), text);
        assert_eq!(controller.path, "/server");
        let uri = controller.uri.to_string();
        assert_eq!(uri, "pcp://primary.example.com:8143/server");
        assert!(controller.uri.is_dialled());
        let bare: ControllerUri = "wss://10.0.0.1:1".parse().expect("no path");
        assert_eq!(bare.path, "/");
    }

    #[test]
    fn refuses_what_is_no_controller() {
        for text in [
            "",
            "primary:8143",
            "ws://primary:8143/server",
            "wss://primary/server",
            "wss://primary:0/server",
            "wss://[::1]:8143/server",
            "wss://primary:8143/ser ver",
            "wss://primary:8143/server?a=b",
        ] {
            assert!(text.parse::<ControllerUri>().is_err(), "{text:?}");
        }
    }
}
