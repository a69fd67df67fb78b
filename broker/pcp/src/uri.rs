//! PCP URIs: `pcp://<certname>/<client type>`. Parsed once at the edge, never validated again.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize, de};

use crate::text::Text;

/// The longest certname: the limit of a host name, which is what certnames are in practice.
pub const MAX_CERTNAME: usize = 255;

/// The longest client type. The ones in use (`agent`, `orchestrator`, `controller`) are far shorter.
pub const MAX_CLIENT_TYPE: usize = 64;

/// The client types that are in use.
const CLIENT_TYPES: [&str; 4] = ["agent", "orchestrator", "controller", "server"];

const SCHEME: &str = "pcp://";

/// The CN of a node's Puppet certificate: its only identity. Compared literally and case-sensitively.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Certname(Arc<str>);

/// What kind of peer a client is on its node. `server` is a broker and may not be claimed by clients.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientType(Text);

/// The address of one connected client.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Uri {
    certname: Certname,
    client_type: ClientType,
}

/// Where a message is to go.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Target {
    /// `pcp:///server`: the broker that the sender is connected to.
    Broker,
    /// One client, wherever it is connected.
    Client(Uri),
}

/// One entry of an inventory query: `*` stands for any certname or any client type, as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UriPattern {
    certname: Option<Certname>,
    client_type: Option<ClientType>,
}

/// Why a text is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UriError {
    /// The text does not begin with `pcp://`.
    #[error("a PCP URI begins with \"pcp://\"")]
    Scheme,
    /// There is no `/` between certname and client type.
    #[error("a PCP URI has the form pcp://CERTNAME/CLIENT-TYPE")]
    Form,
    /// The certname is empty, too long, or has a character that Puppet certnames do not have.
    #[error(
        "a certname is 1 to {MAX_CERTNAME} letters, digits, '.', '-', '_' or ':', beginning with a letter, digit or '_'"
    )]
    Certname,
    /// The client type is empty, too long, or has an odd character.
    #[error("a client type is 1 to {MAX_CLIENT_TYPE} letters, digits, '.', '-' or '_'")]
    ClientType,
    /// A wildcard stands where exactly one client must be named.
    #[error("wildcards are allowed in inventory queries only")]
    Wildcard,
}

impl Certname {
    /// Parses a certname. The first character is never `.` or `-`, so that a certname is safe as a
    /// file name and as an argument.
    ///
    /// # Errors
    /// [`UriError::Certname`] when it is empty, too long or has a character outside the set.
    pub fn parse(text: &str) -> Result<Self, UriError> {
        let head = text.bytes().next().ok_or(UriError::Certname)?;
        let fits = text.len() <= MAX_CERTNAME
            && (head.is_ascii_alphanumeric() || head == b'_')
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"._-:".contains(&b));
        if fits {
            Ok(Self(text.into()))
        } else {
            Err(UriError::Certname)
        }
    }

    /// The certname as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl ClientType {
    /// Parses a client type.
    ///
    /// # Errors
    /// [`UriError::ClientType`] when it is empty, too long or has a character outside the set.
    pub fn parse(text: &str) -> Result<Self, UriError> {
        let fits = (1..=MAX_CLIENT_TYPE).contains(&text.len())
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
        if fits {
            Ok(Self(Text::of(text, &CLIENT_TYPES)))
        } else {
            Err(UriError::ClientType)
        }
    }

    /// The type of agents.
    #[must_use]
    pub fn agent() -> Self {
        Self(Text::Known("agent"))
    }

    /// The type of orchestrators.
    #[must_use]
    pub fn orchestrator() -> Self {
        Self(Text::Known("orchestrator"))
    }

    /// The type of brokers on a link. Reserved: see [`crate::session::ServerSession`].
    #[must_use]
    pub fn server() -> Self {
        Self(Text::Known("server"))
    }

    /// Whether this is the reserved type of brokers.
    #[must_use]
    pub fn is_server(&self) -> bool {
        self.as_str() == "server"
    }

    /// The client type as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl Uri {
    /// Puts an address together from its parsed parts.
    #[must_use]
    pub fn new(certname: Certname, client_type: ClientType) -> Self {
        Self {
            certname,
            client_type,
        }
    }

    /// The node's certname.
    #[must_use]
    pub fn certname(&self) -> &Certname {
        &self.certname
    }

    /// The client's type.
    #[must_use]
    pub fn client_type(&self) -> &ClientType {
        &self.client_type
    }

    /// Whether this is a controller that brokers dial, rather than a client that dials them: its client
    /// type is `server`, and a host with its port, `pcp://HOST:PORT/server`, stands for its certname.
    #[must_use]
    pub fn is_dialled(&self) -> bool {
        self.client_type.is_server() && self.certname.as_str().contains(':')
    }

    /// Whether this is a broker.
    #[must_use]
    pub fn is_broker(&self) -> bool {
        self.client_type.is_server() && !self.is_dialled()
    }
}

impl UriPattern {
    /// Whether `uri` is one of those this pattern stands for.
    #[must_use]
    pub fn matches(&self, uri: &Uri) -> bool {
        self.certname.as_ref().is_none_or(|c| c == uri.certname())
            && self
                .client_type
                .as_ref()
                .is_none_or(|t| t == uri.client_type())
    }

    /// The single address this pattern names, when it has no wildcard.
    #[must_use]
    pub fn exact(&self) -> Option<Uri> {
        Some(Uri::new(self.certname.clone()?, self.client_type.clone()?))
    }
}

/// Splits `pcp://A/B` into A and B, where A may be empty.
fn split(text: &str) -> Result<(&str, &str), UriError> {
    text.strip_prefix(SCHEME)
        .ok_or(UriError::Scheme)?
        .split_once('/')
        .ok_or(UriError::Form)
}

impl FromStr for Uri {
    type Err = UriError;

    fn from_str(text: &str) -> Result<Self, UriError> {
        let (certname, client_type) = split(text)?;
        if certname == "*" || client_type == "*" {
            return Err(UriError::Wildcard);
        }
        Ok(Self::new(
            Certname::parse(certname)?,
            ClientType::parse(client_type)?,
        ))
    }
}

impl FromStr for Target {
    type Err = UriError;

    fn from_str(text: &str) -> Result<Self, UriError> {
        if text == "pcp:///server" {
            Ok(Self::Broker)
        } else {
            text.parse().map(Self::Client)
        }
    }
}

impl FromStr for UriPattern {
    type Err = UriError;

    fn from_str(text: &str) -> Result<Self, UriError> {
        let (certname, client_type) = split(text)?;
        let certname = if certname == "*" {
            None
        } else {
            Some(Certname::parse(certname)?)
        };
        let client_type = if client_type == "*" {
            None
        } else {
            Some(ClientType::parse(client_type)?)
        };
        Ok(Self {
            certname,
            client_type,
        })
    }
}

impl FromStr for Certname {
    type Err = UriError;

    fn from_str(text: &str) -> Result<Self, UriError> {
        Self::parse(text)
    }
}

impl FromStr for ClientType {
    type Err = UriError;

    fn from_str(text: &str) -> Result<Self, UriError> {
        Self::parse(text)
    }
}

impl fmt::Display for Certname {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for ClientType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}/{}", self.certname, self.client_type)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broker => f.write_str("pcp:///server"),
            Self::Client(uri) => uri.fmt(f),
        }
    }
}

impl fmt::Display for UriPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let certname = self.certname.as_ref().map_or("*", Certname::as_str);
        let client_type = self.client_type.as_ref().map_or("*", ClientType::as_str);
        write!(f, "{SCHEME}{certname}/{client_type}")
    }
}

/// Addresses are written as themselves in logs, also with `{:?}`.
macro_rules! textual {
    ($($name:ty),*) => {$(
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    )*};
}
textual!(Certname, ClientType, Uri);

/// Serde forms are the texts, parsed on the way in.
macro_rules! serde_as_text {
    ($($name:ty),*) => {$(
        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(d)?;
                text.parse().map_err(de::Error::custom)
            }
        }
    )*};
}
serde_as_text!(Certname, ClientType, Uri, Target, UriPattern);
