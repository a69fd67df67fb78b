//! Files that no broker has come from a Puppet Server, which is played here: over HTTPS, with the node's
//! certificate, and never unchecked.

use std::sync::{Arc, Mutex};

use identity::{Files, Identity, TlsVersions};
use lab_ca::CertificateAuthority;
use pcp::{Certname, Digest};
use pxp::MessageKind::BlockingRequest;
use serde_json::{Value, json};
use sha2::Digest as _;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::node::Node;
use crate::played::blocking;

const SCRIPT: &[u8] = b"#!/bin/sh\necho \"from a primary\"\n";

/// What is answered to a first line: status with further headers, and body.
type Answering = dyn Fn(&str) -> (String, Vec<u8>) + Send + Sync;

/// A Puppet Server that notes who has asked for what.
pub(crate) struct Primary {
    pub(crate) uri: String,
    asked: Arc<Mutex<Vec<(String, Certname)>>>,
    _tasks: daemon::Tasks,
}

impl Primary {
    async fn start(ca: &CertificateAuthority, status: &'static str, body: &'static [u8]) -> Self {
        Self::answering(ca, move |_| (status.to_owned(), body.to_vec())).await
    }

    pub(crate) async fn answering(
        ca: &CertificateAuthority,
        with: impl Fn(&str) -> (String, Vec<u8>) + Send + Sync + 'static,
    ) -> Self {
        Self::at("127.0.0.1:0", ca, with).await.unwrap()
    }

    /// The same at an address of one's own choice.
    pub(crate) async fn at(
        address: &str,
        ca: &CertificateAuthority,
        with: impl Fn(&str) -> (String, Vec<u8>) + Send + Sync + 'static,
    ) -> std::io::Result<Self> {
        let ssl = ca.issue("puppet", &["127.0.0.1".to_owned()]).unwrap();
        let certname = Certname::parse("puppet").unwrap();
        let identity = Identity::load(&Files::from_ssldir(&ssl.dir, &certname)).unwrap();
        let tls = identity.server_config(&[b"http/1.1"], TlsVersions::Tls12And13);
        let acceptor = TlsAcceptor::from(tls.unwrap());
        let listener = TcpListener::bind(address).await?;
        let uri = format!("https://{}", listener.local_addr().unwrap());
        let tasks = daemon::Tasks::new();
        let asked = Arc::default();
        let notes = Arc::clone(&asked);
        tasks.spawn("primary", async move {
            while let Ok((socket, _)) = listener.accept().await {
                // One that does not get through the handshake asks nothing.
                if let Ok(tls) = acceptor.accept(socket).await {
                    answer(tls, &notes, &with).await;
                }
            }
        });
        Ok(Self {
            uri,
            asked,
            _tasks: tasks,
        })
    }

    pub(crate) fn asked(&self) -> Vec<(String, Certname)> {
        self.asked.lock().unwrap().clone()
    }
}

async fn answer(
    mut tls: tokio_rustls::server::TlsStream<TcpStream>,
    notes: &Mutex<Vec<(String, Certname)>>,
    with: &Answering,
) {
    let Some(head) = head(&mut tls).await else {
        return;
    };
    let certs = tls.get_ref().1.peer_certificates().unwrap().to_vec();
    let line = head.lines().next().unwrap().to_owned();
    let (status, body) = with(&line);
    let certname = identity::peer_certname(&certs).unwrap();
    notes.lock().unwrap().push((line, certname));
    let length = body.len();
    let head =
        format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
    tls.write_all(head.as_bytes()).await.ok();
    tls.write_all(&body).await.ok();
    tls.shutdown().await.ok();
}

/// Reads up to the empty line.
async fn head(stream: &mut (impl AsyncReadExt + Unpin)) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    String::from_utf8(head).ok()
}

/// A proxy that connects to whatever it is asked to, and notes what that was.
async fn proxy(tasks: &daemon::Tasks) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = format!("http://{}", listener.local_addr().unwrap());
    let connected = Arc::default();
    let notes: Arc<Mutex<Vec<String>>> = Arc::clone(&connected);
    tasks.spawn("proxy", async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let Some(head) = head(&mut client).await else {
                continue;
            };
            let target = head.split(' ').nth(1).unwrap().to_owned();
            let mut server = TcpStream::connect(&target).await.unwrap();
            notes.lock().unwrap().push(target);
            client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
            copy_bidirectional(&mut client, &mut server).await.ok();
        }
    });
    (uri, connected)
}

fn script(digest: Digest) -> Value {
    json!({
        "script": {
            "filename": "x.sh",
            "sha256": digest.to_string(),
            "uri": {
                "path": "/puppet/v3/file_content/modules/demo/x.sh",
                "params": {"environment": "production"},
            },
        },
        "arguments": [],
    })
}

fn digest() -> Digest {
    Digest(sha2::Sha256::digest(SCRIPT).into())
}

#[tokio::test]
async fn a_file_that_no_broker_has_comes_from_the_first_primary_that_gives_it() {
    let Some(node) = Node::new("") else {
        return;
    };
    let elsewhere = tempfile::tempdir().unwrap();
    let other_ca = CertificateAuthority::create(elsewhere.path(), "Other CA").unwrap();
    let foreign = Primary::start(&other_ca, "200 OK", SCRIPT).await;
    let without = Primary::start(&node.ca, "404 Not Found", b"").await;
    let astray = Primary::start(&node.ca, "302 Found\r\nlocation: https://localhost", b"").await;
    let wrong = Primary::start(&node.ca, "200 OK", b"#!/bin/sh\necho wrong\n").await;
    let good = Primary::start(&node.ca, "200 OK", SCRIPT).await;
    let unused = Primary::start(&node.ca, "200 OK", SCRIPT).await;
    let uris = [&foreign, &without, &astray, &wrong, &good, &unused].map(|primary| &primary.uri);
    node.reconfigure(&format!("primary-uris: {uris:?}"));
    let (_agent, mut peer) = node.start().await;
    let params = script(digest()).to_string();
    let results: Value = peer.ask("script", "run", &params).await;
    assert_eq!(results["stdout"], "from a primary\n");
    let line = "GET /puppet/v3/file_content/modules/demo/x.sh?environment=production HTTP/1.1";
    let certname = Certname::parse("node").unwrap();
    for asked in [&without, &astray, &wrong, &good] {
        assert_eq!(asked.asked(), [(line.to_owned(), certname.clone())]);
    }
    assert_eq!(foreign.asked(), []);
    assert_eq!(unused.asked(), []);
    // It is in the cache now.
    let results: Value = peer.ask("script", "run", &params).await;
    assert_eq!(results["stdout"], "from a primary\n");
    assert_eq!(good.asked().len(), 1);
}

#[tokio::test]
async fn what_a_primary_gives_is_checked_as_what_a_broker_gives() {
    let Some(node) = Node::new("") else {
        return;
    };
    let touched = node.path("touched");
    let wrong = format!("#!/bin/sh\ntouch {}\n", touched.display());
    let wrong: &'static [u8] = Box::leak(wrong.into_boxed_str()).as_bytes();
    node.broker.lies(digest(), wrong);
    let primary = Primary::start(&node.ca, "200 OK", wrong).await;
    node.reconfigure(&format!("master-uris: [{:?}]", primary.uri));
    let (_agent, mut peer) = node.start().await;
    let body = blocking("script", "run", &script(digest()).to_string());
    peer.request(BlockingRequest, &body).await;
    let error = peer.error("q").await;
    let texts = ["no broker gave it", "trying all the available primary-uris"];
    for text in texts {
        assert!(error.contains(text), "{error}");
    }
    let mismatch = "SHA that differs from the provided SHA";
    assert_eq!(error.matches(mismatch).count(), 2, "{error}");
    assert!(!touched.exists());
}

#[tokio::test]
async fn the_way_leads_through_the_proxy_of_the_configuration() {
    let Some(node) = Node::new("") else {
        return;
    };
    let tasks = daemon::Tasks::new();
    let (proxy, connected) = proxy(&tasks).await;
    let primary = Primary::start(&node.ca, "200 OK", SCRIPT).await;
    let uri = &primary.uri;
    node.reconfigure(&format!("primary-uris: [{uri:?}]\nmaster-proxy: {proxy:?}"));
    let (_agent, mut peer) = node.start().await;
    let params = script(digest()).to_string();
    let results: Value = peer.ask("script", "run", &params).await;
    assert_eq!(results["stdout"], "from a primary\n");
    let target = uri.trim_start_matches("https://");
    assert_eq!(*connected.lock().unwrap(), [target]);
    assert_eq!(primary.asked().len(), 1);
}
