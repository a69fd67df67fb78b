//! A proxy on the way to brokers, or to other servers of the estate: HTTP CONNECT, with a name and a
//! password where it wants them.

use std::fmt;
use std::str::FromStr;

use crate::address::{AddressError, BrokerAddress};
use crate::websocket::base64;

/// Where a proxy listens, and who we are to it.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    /// Its host and port.
    pub address: BrokerAddress,
    /// The name that stands before the `@`.
    user: Option<String>,
    /// What stands behind it.
    password: Option<String>,
    /// What is sent as `Proxy-Authorization`.
    authorization: Option<String>,
    /// The key of the configuration that names it.
    key: &'static str,
}

/// Why a text is not the address of a proxy. It never repeats the text, which may hold a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProxyError {
    /// Another scheme than `http`, or none.
    #[error("a proxy is written http://HOST:PORT or http://NAME:PASSWORD@HOST:PORT")]
    Form,
    /// The port is missing: there is none that all proxies have.
    #[error("a proxy needs a port: http://HOST:PORT")]
    Port,
    /// Host or port are wrong.
    #[error("{0}")]
    Address(AddressError),
}

impl Proxy {
    /// The same, named by another key of the configuration than `broker-ws-proxy`.
    #[must_use]
    pub fn of_key(self, key: &'static str) -> Self {
        Self { key, ..self }
    }

    /// The key of the configuration that names it, for whoever must put it right.
    #[must_use]
    pub fn key(&self) -> &'static str {
        self.key
    }

    /// Name and password, where both are given.
    #[must_use]
    pub fn credentials(&self) -> Option<(&str, &str)> {
        self.user.as_deref().zip(self.password.as_deref())
    }

    /// The value of the header that says who we are, where the proxy wants to know.
    #[must_use]
    pub fn authorization(&self) -> Option<&str> {
        self.authorization.as_deref()
    }
}

impl FromStr for Proxy {
    type Err = ProxyError;

    fn from_str(text: &str) -> Result<Self, ProxyError> {
        let rest = text.strip_prefix("http://").ok_or(ProxyError::Form)?;
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.contains('/') {
            return Err(ProxyError::Form);
        }
        // A password may hold an @ of its own.
        let (credentials, authority) = match rest.rsplit_once('@') {
            Some((credentials, authority)) => (Some(credentials), authority),
            None => (None, rest),
        };
        let behind_host = authority
            .rsplit_once(']')
            .map_or(authority, |(_, rest)| rest);
        if !behind_host.contains(':') {
            return Err(ProxyError::Port);
        }
        let address = authority.parse().map_err(ProxyError::Address)?;
        let decoded = match credentials {
            Some(credentials) => Some(percent_decoded(credentials).ok_or(ProxyError::Form)?),
            None => None,
        };
        let authorization = decoded.as_deref().map(base64);
        let plain = decoded.map(|plain| String::from_utf8_lossy(&plain).into_owned());
        let (user, password) = match plain.as_deref().map(|plain| plain.split_once(':')) {
            Some(Some((user, password))) => (Some(user.to_owned()), Some(password.to_owned())),
            Some(None) => (plain, None),
            None => (None, None),
        };
        Ok(Self {
            address,
            user,
            password,
            authorization: authorization.map(|coded| format!("Basic {coded}")),
            key: "broker-ws-proxy",
        })
    }
}

/// Characters that may not stand in a URL are written as `%` and two digits.
fn percent_decoded(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        rest = behind;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let (digits, behind) = rest.split_first_chunk::<2>()?;
        // Which would take a sign for a digit.
        if !digits.iter().all(u8::is_ascii_hexdigit) {
            return None;
        }
        let digits = std::str::from_utf8(digits).ok()?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = behind;
    }
    Some(bytes)
}

/// Without the password.
impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.user {
            Some(user) => write!(f, "http://{user}@{}", self.address),
            None => write!(f, "http://{}", self.address),
        }
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proxy({self})")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_text_is_a_proxy_that_reads_the_same_or_none(
            text in "(http://|https://|)(a|%41|%|%\\+1|:|@|é|){0,4}(@|)(proxy|\\[::1\\]|)(:3128|:|:99999|)(/|)",
            plain in prop::collection::vec(any::<u8>(), 0..12),
        ) {
            if let Ok(proxy) = text.parse::<Proxy>() {
                let address = format!("http://{}", proxy.address);
                prop_assert_eq!(address.parse::<Proxy>().expect("an address").address, proxy.address);
            }
            let encoded: String = plain.iter().map(|byte| format!("%{byte:02x}")).collect();
            prop_assert_eq!(percent_decoded(&encoded), Some(plain));
        }
    }

    #[test]
    fn reads_what_configurations_have() {
        for (text, host, port, authorization) in [
            ("http://proxy:3128", "proxy", 3128, None),
            ("http://[::1]:8080/", "::1", 8080, None),
            (
                "http://Aladdin:open%20sesame@proxy:1",
                "proxy",
                1,
                Some("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="),
            ),
        ] {
            let proxy: Proxy = text.parse().expect(text);
            assert_eq!(proxy.address.host, host);
            assert_eq!(proxy.address.port, port);
            assert_eq!(proxy.authorization(), authorization);
            let credentials = authorization.map(|_| ("Aladdin", "open sesame"));
            assert_eq!(proxy.credentials(), credentials);
        }
    }

    #[test]
    fn never_shows_the_password() {
        let proxy: Proxy = "http://me:s3cret@proxy:1".parse().expect("a proxy");
        let shown = format!("{proxy} {proxy:?}");
        assert!(shown.contains("me@proxy") && !shown.contains("s3cret"));
        let error = "https://me:s3cret@proxy:1".parse::<Proxy>().expect_err("");
        assert!(!error.to_string().contains("s3cret"));
    }

    #[test]
    fn refuses_what_is_no_proxy() {
        for text in [
            "",
            "proxy:3128",
            "https://proxy:1",
            "http://proxy",
            "http://[::1]",
            "http://proxy:1/path",
            "http://a%2:b@proxy:1",
            "http://a%+2:b@proxy:1",
            "http://pro xy:1",
        ] {
            assert!(text.parse::<Proxy>().is_err(), "{text:?}");
        }
    }
}
