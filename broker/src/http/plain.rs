//! Metrics without TLS, for a collector on the same host: the configuration lets no address but one of
//! the loopback interface stand here.

use std::convert::Infallible;
use std::net::TcpListener as StdListener;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::body::Answer;
use super::{HEAD_DEADLINE, MAX_HEAD, MAX_HEADERS, metrics, say};
use crate::context::Context;
use crate::listener::OUT_OF_DESCRIPTORS;

/// How many collectors may be connected at a time; the next wait in the kernel's queue.
const MAX_COLLECTORS: usize = 8;

/// How long a connection may last, so that a collector that has stopped reading gives its place back.
const LIFETIME: Duration = Duration::from_secs(60);

/// Answers collectors until the shutdown.
pub(crate) async fn serve(
    listener: StdListener,
    context: Arc<Context>,
    sessions: daemon::Tasks,
    shutdown: CancellationToken,
) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "the metrics socket cannot be served"),
    };
    let places = Arc::new(Semaphore::new(MAX_COLLECTORS));
    loop {
        let next = async {
            // The semaphore is never closed.
            let place = Arc::clone(&places).acquire_owned().await;
            (listener.accept().await, place)
        };
        let (accepted, place) = tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            next = next => next,
        };
        let Ok((stream, _)) = accepted else {
            sleep(OUT_OF_DESCRIPTORS).await;
            continue;
        };
        let (context, end) = (Arc::clone(&context), shutdown.clone());
        sessions.spawn("metrics", async move {
            tokio::select! {
                biased;
                () = end.cancelled() => {}
                _ = timeout(LIFETIME, connection(stream, &context)) => {}
            }
            drop(place);
        });
    }
}

async fn connection(stream: TcpStream, context: &Context) {
    let service = service_fn(|request: Request<Incoming>| async move {
        Ok::<_, Infallible>(answer(&request, context).await)
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_DEADLINE)
        .max_buf_size(MAX_HEAD)
        .max_headers(MAX_HEADERS)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        let error = daemon::error_chain(&error);
        tracing::debug!(%error, "connection of a collector ended");
    }
}

async fn answer(request: &Request<Incoming>, context: &Context) -> Response<Answer> {
    if request.uri().path() != "/metrics" {
        return say(StatusCode::NOT_FOUND, "only /metrics is here");
    }
    if request.method() != Method::GET {
        return say(StatusCode::METHOD_NOT_ALLOWED, "only GET is answered here");
    }
    metrics(context).await
}
