//! Services of the estate, played: HTTPS that demands a certificate, as PuppetDB does, and answers
//! what the test has written.

use std::sync::Arc;

use axum::Router;
use identity::{Current, Derived, Files, Identity, Revocation, TlsVersions};
use lab_ca::SslDir;
use reqwest::Url;
use tokio::net::TcpListener;

use crate::service::Source;

/// A service that runs until it is dropped.
pub(crate) struct Played {
    tasks: daemon::Tasks,
    pub(crate) address: Url,
}

/// The identity of an ssldir.
pub(crate) fn identity(ssl: &SslDir) -> Identity {
    let files = Files {
        cert: ssl.cert(),
        key: ssl.key(),
        ca: ssl.ca(),
        crl: Some(ssl.crl()),
        revocation: Revocation::Chain,
    };
    Identity::load(&files).unwrap()
}

/// An identity that is never replaced.
pub(crate) fn source(ssl: &SslDir) -> Source {
    let identity = Arc::new(identity(ssl));
    Arc::new(move || Arc::clone(&identity))
}

impl Played {
    pub(crate) async fn start(ssl: &SslDir, router: Router) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let current = Arc::new(Current::fixed(identity(ssl)));
        let tls = Derived::new(current, |identity| {
            identity.server_config(&[b"http/1.1"], TlsVersions::Tls12And13)
        })
        .unwrap();
        let tasks = daemon::Tasks::new();
        tasks.spawn(
            "played",
            crate::http::serve(listener, Arc::new(tls), router, tasks.clone()),
        );
        Self {
            tasks,
            address: format!("https://localhost:{port}").parse().unwrap(),
        }
    }
}

impl Drop for Played {
    fn drop(&mut self) {
        self.tasks.shutdown_token().cancel();
    }
}
