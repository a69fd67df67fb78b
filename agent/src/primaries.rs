//! Puppet Servers, for files that no broker gives us: each of `primary-uris` in its order, over HTTPS,
//! with the node's certificate. What comes is checked by whoever takes it ([`crate::cache`]).

use std::sync::Arc;

use identity::{Current, Identity, IdentityError};
use pxp::FileUri;
use reqwest::{Client, ClientBuilder, Proxy, Response, Url, redirect};
use serde_json::Value;

use crate::config::{Downloads, PrimaryUri};

/// The way to Puppet Servers. Clones are the same one.
#[derive(Debug, Clone)]
pub struct Primaries(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    downloads: Downloads,
    identity: Arc<Current>,
}

/// Why a file does not come from a Puppet Server.
#[derive(Debug, thiserror::Error)]
pub enum PrimaryError {
    /// The request's URI cannot be one of a Puppet Server.
    #[error("the uri of the file is refused: {0}")]
    Uri(&'static str),
    /// Our certificate cannot be used.
    #[error("the certificate cannot be used for downloads")]
    Identity(#[source] IdentityError),
    /// There is no client with this configuration: `master-proxy`, above all.
    #[error("downloads are not possible as they are configured (master-proxy)")]
    Client(#[source] reqwest::Error),
    /// There was no answer, or it broke off.
    #[error("{server} gave no answer")]
    Unreachable {
        /// Which one.
        server: String,
        /// Why not.
        #[source]
        source: reqwest::Error,
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
        }))
    }

    /// Where they are, the preferred one first.
    #[must_use]
    pub fn servers(&self) -> &[PrimaryUri] {
        &self.0.downloads.primaries
    }

    /// A client for one file. None is kept: the certificate may be another one next time, and an agent
    /// that downloads nothing has no memory to spare for it.
    ///
    /// # Errors
    /// [`PrimaryError`] when certificate or proxy cannot be used.
    pub fn client(&self) -> Result<Client, PrimaryError> {
        let Downloads {
            proxy,
            connect_timeout,
            timeout,
            ..
        } = &self.0.downloads;
        let client = https(&self.0.identity.get())?
            .connect_timeout(*connect_timeout)
            .timeout(*timeout);
        let client = match proxy {
            Some(proxy) => client.proxy(Proxy::all(proxy).map_err(PrimaryError::Client)?),
            None => client,
        };
        client.build().map_err(PrimaryError::Client)
    }
}

/// A client with our certificate, but for its time limits.
///
/// # Errors
/// [`PrimaryError`] when the certificate cannot be used.
pub fn https(identity: &Identity) -> Result<ClientBuilder, PrimaryError> {
    let tls = identity.client_config(&[b"http/1.1"]);
    let tls = tls.map_err(PrimaryError::Identity)?;
    Ok(Client::builder()
        .tls_backend_preconfigured(Arc::unwrap_or_clone(tls))
        .https_only(true)
        // A redirect would take our certificate to whoever it names; and the way is the
        // configuration's, not that of the agent's environment.
        .redirect(redirect::Policy::none())
        .no_proxy()
        .user_agent(daemon::software("pxp-agent")))
}

/// Asks one server for a file. Its content is still to come.
///
/// # Errors
/// [`PrimaryError`] for everything but a success.
pub async fn ask(
    client: &Client,
    server: &PrimaryUri,
    uri: &FileUri,
) -> Result<Response, PrimaryError> {
    let url = url(server, uri)?;
    let unreachable = |source: reqwest::Error| PrimaryError::Unreachable {
        server: server.to_string(),
        // It stands in the message, and its query may be long.
        source: source.without_url(),
    };
    let response = client.get(url).send().await.map_err(unreachable)?;
    let status = response.status();
    if status.is_success() {
        Ok(response)
    } else {
        Err(PrimaryError::Status {
            server: server.to_string(),
            status: status.as_u16(),
        })
    }
}

/// Where a server has the file: never anywhere but on this server, whatever the request says.
fn url(server: &PrimaryUri, uri: &FileUri) -> Result<Url, PrimaryError> {
    let mut url = Url::parse(&server.to_string())
        .map_err(|_| PrimaryError::Uri("the server's address makes no URL"))?;
    // Without it, what follows would be taken for a part of the host's name.
    if !uri.path.starts_with('/') {
        return Err(PrimaryError::Uri("its path does not begin with \"/\""));
    }
    url.set_path(&uri.path);
    if !uri.params.is_empty() {
        let mut query = url.query_pairs_mut();
        for (name, value) in &uri.params {
            match value {
                Value::String(text) => query.append_pair(name, text),
                Value::Number(_) | Value::Bool(_) => query.append_pair(name, &value.to_string()),
                Value::Null | Value::Array(_) | Value::Object(_) => {
                    return Err(PrimaryError::Uri("one of its params is no text"));
                }
            };
        }
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(path: &str, params: &Value) -> Result<String, PrimaryError> {
        let uri = serde_json::from_value(json!({"path": path, "params": params})).unwrap();
        url(&"puppet.example.com".parse().unwrap(), &uri).map(|url| url.to_string())
    }

    #[test]
    fn a_url_is_server_path_and_parameters() {
        let url = of(
            "/puppet/v3/file_content/tasks/demo/a b.sh",
            &json!({"environment": "production", "n": 1, "code_id": "a&b=c"}),
        );
        assert_eq!(
            url.unwrap(),
            "https://puppet.example.com:8140/puppet/v3/file_content/tasks/demo/a%20b.sh\
             ?code_id=a%26b%3Dc&environment=production&n=1"
        );
        assert_eq!(
            of("/x%2Fy", &json!({})).unwrap(),
            "https://puppet.example.com:8140/x%2Fy"
        );
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
        for path in [
            "//evil.example.com/x",
            "/\\evil.example.com",
            "/../../x",
            "/x?y#z",
        ] {
            let url = of(path, &json!({})).unwrap();
            let host = "https://puppet.example.com:8140/";
            assert!(url.starts_with(host) && !url.contains(['?', '#']), "{url}");
        }
        assert!(of("/x", &json!({"a": [1]})).is_err());
    }
}
