//! Puppet Servers, for files that no broker gives us: each of `primary-uris` in its order, over HTTPS,
//! with the node's certificate. What comes is checked by whoever takes it ([`crate::cache`]).

use std::fmt::Write as _;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use identity::Current;
use pcp_client::https::{self, Body, HttpsError, Server};
use pxp::FileUri;
use serde_json::Value;
use tokio::io::AsyncReadExt as _;
use tokio::time::{Instant, timeout_at};

use crate::config::{Downloads, PrimaryUri};

/// The way to Puppet Servers. Clones are the same one.
#[derive(Debug, Clone)]
pub struct Primaries(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    downloads: Downloads,
    identity: Arc<Current>,
    software: String,
}

/// A file that a Puppet Server gives. Its content is still to come, and has its time for that.
#[derive(Debug)]
pub struct Download {
    /// How many bytes there will be, where the server says it.
    pub size: Option<u64>,
    body: Body,
    deadline: Instant,
}

/// Why a file does not come from a Puppet Server.
#[derive(Debug, thiserror::Error)]
pub enum PrimaryError {
    /// The request's URI cannot be one of a Puppet Server.
    #[error("the uri of the file is refused: {0}")]
    Uri(&'static str),
    /// There was no answer.
    #[error("{server} gave no answer")]
    Unreachable {
        /// Which one.
        server: String,
        /// Why not.
        #[source]
        source: Box<HttpsError>,
    },
    /// Nor was there one in time.
    #[error("{server} gave no answer in {} s", .after.as_secs())]
    TimedOut {
        /// Which one.
        server: String,
        /// How long it had.
        after: Duration,
    },
    /// It answered with something else.
    #[error("{server} returned a response with HTTP status {status}")]
    Status {
        /// Which one.
        server: String,
        /// With what.
        status: u16,
    },
}

impl Primaries {
    /// The Puppet Servers of the configuration, asked with the certificate of the day.
    #[must_use]
    pub fn new(downloads: Downloads, identity: Arc<Current>) -> Self {
        Self(Arc::new(Inner {
            downloads,
            identity,
            software: daemon::software("pxp-agent"),
        }))
    }

    /// Where they are, the preferred one first.
    #[must_use]
    pub fn servers(&self) -> &[PrimaryUri] {
        &self.0.downloads.primaries
    }

    /// Asks one server for a file.
    ///
    /// # Errors
    /// [`PrimaryError`] for everything but a success.
    pub async fn ask(&self, server: &PrimaryUri, uri: &FileUri) -> Result<Download, PrimaryError> {
        let Inner {
            downloads,
            identity,
            software,
        } = self.0.as_ref();
        let target = target(uri)?;
        let deadline = Instant::now() + downloads.timeout;
        let identity = identity.get();
        let asked = Server {
            address: server.address(),
            proxy: downloads.proxy.as_ref(),
            identity: &identity,
            connect_timeout: downloads.connect_timeout,
            software,
        };
        let answer = timeout_at(deadline, https::get(asked, &target))
            .await
            .map_err(|_| PrimaryError::TimedOut {
                server: server.to_string(),
                after: downloads.timeout,
            })?
            .map_err(|source| PrimaryError::Unreachable {
                server: server.to_string(),
                source: Box::new(source),
            })?;
        if answer.is_success() {
            Ok(Download {
                size: answer.size,
                body: answer.body,
                deadline,
            })
        } else {
            Err(PrimaryError::Status {
                server: server.to_string(),
                status: answer.status,
            })
        }
    }
}

impl Download {
    /// Reads what there is of the content behind what the buffer holds; no bytes are the end of it.
    ///
    /// # Errors
    /// When it broke off, or its time is over.
    pub async fn read(&mut self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        timeout_at(self.deadline, self.body.read_buf(buffer))
            .await
            .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "it took too long"))?
    }
}

/// What a server is asked for: a path and a query, which name no other server, whatever they are.
fn target(uri: &FileUri) -> Result<String, PrimaryError> {
    if !uri.path.starts_with('/') {
        return Err(PrimaryError::Uri("its path does not begin with \"/\""));
    }
    // The path of a URL, with what is encoded in it already (RFC 3986, 3.3).
    let mut target = String::with_capacity(uri.path.len());
    encode(&mut target, &uri.path, b"/%-._~!$&'()*+,;=:@");
    for (index, (name, value)) in uri.params.iter().enumerate() {
        let value = match value {
            Value::String(text) => text.clone(),
            Value::Number(_) | Value::Bool(_) => value.to_string(),
            Value::Null | Value::Array(_) | Value::Object(_) => {
                return Err(PrimaryError::Uri("one of its params is no text"));
            }
        };
        target.push(if index == 0 { '?' } else { '&' });
        encode(&mut target, name, b"*-._ ");
        target.push('=');
        encode(&mut target, &value, b"*-._ ");
    }
    Ok(target)
}

/// Adds a text in which all but letters, digits and these characters is encoded. A space that may stay
/// is a plus, as in forms.
fn encode(to: &mut String, text: &str, stays: &[u8]) {
    for byte in text.bytes() {
        match byte {
            b' ' if stays.contains(&byte) => to.push('+'),
            _ if byte.is_ascii_alphanumeric() || stays.contains(&byte) => to.push(byte.into()),
            // Writing to a string cannot fail.
            _ => write!(to, "%{byte:02X}").unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(path: &str, params: &Value) -> Result<String, PrimaryError> {
        let uri = serde_json::from_value(json!({"path": path, "params": params})).unwrap();
        target(&uri)
    }

    #[test]
    fn what_is_asked_for_is_path_and_parameters() {
        let asked = of(
            "/puppet/v3/file_content/tasks/demo/a b.sh",
            &json!({"environment": "production", "n": 1, "code_id": "a&b=c", "x": "é +"}),
        );
        assert_eq!(
            asked.unwrap(),
            "/puppet/v3/file_content/tasks/demo/a%20b.sh\
             ?code_id=a%26b%3Dc&environment=production&n=1&x=%C3%A9+%2B"
        );
        assert_eq!(of("/x%2Fy", &json!({})).unwrap(), "/x%2Fy");
    }

    #[test]
    fn no_path_leads_to_another_server() {
        for path in [
            "",
            "@evil.example.com/x",
            ".evil.example.com/x",
            ":1/x",
            "https://evil/x",
        ] {
            assert!(
                matches!(of(path, &json!({})), Err(PrimaryError::Uri(_))),
                "{path:?}"
            );
        }
        for (path, asked) in [
            ("//evil.example.com/x", "//evil.example.com/x"),
            ("/\\evil.example.com", "/%5Cevil.example.com"),
            ("/x?y#z", "/x%3Fy%23z"),
            (
                "/x HTTP/1.1\r\nHost: evil",
                "/x%20HTTP/1.1%0D%0AHost:%20evil",
            ),
        ] {
            assert_eq!(of(path, &json!({})).unwrap(), asked);
        }
        assert!(of("/x", &json!({"a": [1]})).is_err());
    }
}
