//! Values that only the agent's configuration has.

use std::fmt;
use std::str::FromStr;

use pcp_client::BrokerAddress;
use serde::Deserialize;

/// A share of processor time: `50%`, or `200%` for two processors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Percent(pub u32);

/// The text is no share.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a whole number with a percent sign, such as 50%")]
pub struct PercentError(String);

impl FromStr for Percent {
    type Err = PercentError;

    fn from_str(text: &str) -> Result<Self, PercentError> {
        let number = text.trim().trim_end_matches('%').trim_end();
        let number = number.parse().map(Self);
        number.map_err(|_| PercentError(text.to_owned()))
    }
}

impl TryFrom<String> for Percent {
    type Error = PercentError;

    fn try_from(text: String) -> Result<Self, PercentError> {
        text.parse()
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}%\"", self.0)
    }
}

/// A profile by its name.
#[must_use]
pub fn profile_name(profile: sandbox::Profile) -> &'static str {
    match profile {
        sandbox::Profile::Host => "host",
        sandbox::Profile::Standard => "standard",
        sandbox::Profile::Confined => "confined",
    }
}

/// Where a Puppet Server listens, as an HTTPS URL without a path: `https://HOST:PORT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrimaryUri(BrokerAddress);

/// Why a text is not the address of a Puppet Server.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PrimaryUriError {
    /// Files are only fetched over HTTPS.
    #[error("{0:?} is not an https URL")]
    Scheme(String),
    /// Paths come with the requests.
    #[error("{0:?} has a path; write the server alone")]
    Path(String),
    /// Host or port are wrong.
    #[error("{0}")]
    Address(pcp_client::address::AddressError),
}

/// The port of Puppet Servers.
const PORT: u16 = 8140;

impl FromStr for PrimaryUri {
    type Err = PrimaryUriError;

    fn from_str(text: &str) -> Result<Self, PrimaryUriError> {
        let authority = match text.split_once("://") {
            Some(("https", rest)) => rest,
            Some(_) => return Err(PrimaryUriError::Scheme(text.to_owned())),
            None => text,
        };
        let authority = authority.strip_suffix('/').unwrap_or(authority);
        if authority.contains('/') {
            return Err(PrimaryUriError::Path(text.to_owned()));
        }
        let mut address: BrokerAddress = authority.parse().map_err(PrimaryUriError::Address)?;
        // The other type has its own default, so whether a port was written shows the text.
        let after_host = authority
            .rsplit_once(']')
            .map_or(authority, |(_, rest)| rest);
        let bare_ipv6 = authority.parse::<std::net::Ipv6Addr>().is_ok();
        if bare_ipv6 || !after_host.contains(':') {
            address.port = PORT;
        }
        Ok(Self(address))
    }
}

impl PrimaryUri {
    /// Its host and port.
    #[must_use]
    pub fn address(&self) -> &BrokerAddress {
        &self.0
    }
}

impl fmt::Display for PrimaryUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "https://{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_text_is_a_value_that_reads_the_same_or_none(
            server in "(https://|http://|)(\\[|)(::1|a|é|\\.|)(\\]|)(:|)(0|1|65536|)(/|\\PC|)",
            share in "(-|\\+|)[0-9]{0,12}( |)(%|\\PC|)",
        ) {
            if let Ok(uri) = server.parse::<PrimaryUri>() {
                prop_assert_eq!(uri.to_string().parse(), Ok(uri));
            }
            if let Ok(Percent(percent)) = share.parse() {
                prop_assert_eq!(format!("{percent}%").parse(), Ok(Percent(percent)));
            }
        }
    }

    #[test]
    fn servers_are_written_as_for_the_original() {
        for (text, wanted) in [
            ("puppet.example.net", "https://puppet.example.net:8140"),
            ("https://puppet:8141", "https://puppet:8141"),
            ("https://puppet/", "https://puppet:8140"),
            ("[::1]", "https://[::1]:8140"),
            ("https://[::1]:7", "https://[::1]:7"),
            ("::1", "https://[::1]:8140"),
        ] {
            let uri: PrimaryUri = text.parse().unwrap();
            assert_eq!(uri.to_string(), wanted, "{text}");
        }
        for text in [
            "http://puppet",
            "https://puppet/tasks",
            "pup pet",
            "puppet:0",
            "",
        ] {
            assert!(text.parse::<PrimaryUri>().is_err(), "{text}");
        }
    }

    #[test]
    fn shares_have_a_percent_sign_or_none() {
        assert_eq!("50%".parse(), Ok(Percent(50)));
        assert_eq!("200 %".parse(), Ok(Percent(200)));
        assert_eq!("0".parse(), Ok(Percent(0)));
        assert!("half".parse::<Percent>().is_err());
        assert!("-1%".parse::<Percent>().is_err());
    }
}
