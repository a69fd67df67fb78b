//! Where a broker listens: `host`, `host:port`, `[::1]:8142`, or the WebSocket URL that existing
//! agent configurations have, of which host and port count.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

use pcp::DEFAULT_PORT;

/// A broker's host and UDP port.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct BrokerAddress {
    /// A host name or an IP address (IPv6 without brackets). The broker's certificate must be valid
    /// for it.
    pub host: String,
    /// The port; [`DEFAULT_PORT`] where none is written.
    pub port: u16,
}

/// Why a text is not a broker's address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// The URL has a scheme other than `wss`.
    #[error("{0:?} is not a scheme of brokers: write HOST:PORT, or wss://HOST:PORT/pcp2/")]
    Scheme(String),
    /// The host is empty or has a character that no host name has.
    #[error("{0:?} is not a host name or IP address")]
    Host(String),
    /// The port is no number from 1 to 65535.
    #[error("{0:?} is not a port")]
    Port(String),
}

impl FromStr for BrokerAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let authority = match text.split_once("://") {
            Some(("wss", rest)) => rest
                .split_once('/')
                .map_or(rest, |(authority, _)| authority),
            Some((scheme, _)) => return Err(AddressError::Scheme(scheme.to_owned())),
            None => text,
        };
        let (host, port) = split_port(authority)?;
        let port = match port {
            None => DEFAULT_PORT,
            Some(port) => match port.parse() {
                Ok(number) if number > 0 => number,
                _ => return Err(AddressError::Port(port.to_owned())),
            },
        };
        Ok(Self {
            host: host.to_owned(),
            port,
        })
    }
}

/// Splits off the port and checks the host.
fn split_port(authority: &str) -> Result<(&str, Option<&str>), AddressError> {
    let invalid = || AddressError::Host(authority.to_owned());
    if let Some(rest) = authority.strip_prefix('[') {
        let (host, rest) = rest.split_once(']').ok_or_else(invalid)?;
        host.parse::<Ipv6Addr>().map_err(|_| invalid())?;
        return match rest.strip_prefix(':') {
            Some(port) => Ok((host, Some(port))),
            None if rest.is_empty() => Ok((host, None)),
            None => Err(invalid()),
        };
    }
    if authority.parse::<Ipv6Addr>().is_ok() {
        return Ok((authority, None));
    }
    let (host, port) = match authority.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (authority, None),
    };
    let fits = !host.is_empty()
        && host
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
    if fits {
        Ok((host, port))
    } else {
        Err(invalid())
    }
}

impl fmt::Display for BrokerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_text_is_an_address_that_reads_the_same_or_none(
            text in "(wss://|https://|://|)(\\[|)(::1|fe80::1%1|a|é|-|\\.|)(\\]|)(:|)(0|1|65536|)(/|\\PC|)",
        ) {
            if let Ok(address) = text.parse::<BrokerAddress>() {
                prop_assert_eq!(address.to_string().parse(), Ok(address));
            }
        }
    }

    #[test]
    fn reads_every_form_that_configurations_have() {
        for (text, host, port) in [
            ("broker.example.com", "broker.example.com", 8142),
            ("broker:9", "broker", 9),
            ("127.0.0.1:8142", "127.0.0.1", 8142),
            ("::1", "::1", 8142),
            ("[::1]", "::1", 8142),
            ("[::1]:18142", "::1", 18142),
            ("wss://broker:8143/pcp2/", "broker", 8143),
            ("wss://broker/pcp2", "broker", 8142),
            ("wss://[fe80::1]:7", "fe80::1", 7),
        ] {
            let address: BrokerAddress = text.parse().expect(text);
            assert_eq!(
                (address.host.as_str(), address.port),
                (host, port),
                "{text}"
            );
            let again: BrokerAddress = address.to_string().parse().expect("its own text");
            assert_eq!(again, address);
        }
    }

    #[test]
    fn refuses_what_is_no_address() {
        for text in [
            "",
            ":8142",
            "host:",
            "host:0",
            "host:65536",
            "host:port",
            "ho st",
            "a/b",
            "[::1",
            "[::1]x",
            "[host]:1",
            "http://host/",
            "user@host",
        ] {
            assert!(text.parse::<BrokerAddress>().is_err(), "{text:?}");
        }
    }
}
