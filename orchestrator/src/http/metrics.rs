//! `GET /metrics`: for certificates that are listed and for our own, and, where the configuration says so,
//! for everybody on this host.

use std::time::Instant;

use axum::Extension;
use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::Api;
use crate::auth::Peer;
use crate::counts::counts;
use crate::metrics::text;

/// Answers on the API's own port.
pub(super) async fn listed(State(api): State<Api>, peer: Option<Extension<Peer>>) -> Response {
    let certname = peer.and_then(|Extension(peer)| peer.certname);
    let settings = &api.settings;
    let may = certname.is_some_and(|certname| {
        certname == *settings.identity.get().certname()
            || settings.metrics_allowlist.contains(&certname)
    });
    if may {
        all(&api)
    } else {
        let text = "metrics are for the certnames of `metrics-allowlist`, and for this orchestrator's own\n";
        (StatusCode::FORBIDDEN, text).into_response()
    }
}

/// Answers without TLS, on an address of the loopback interface, until the shutdown.
pub(crate) async fn serve_plain(listener: TcpListener, api: Api, shutdown: CancellationToken) {
    let router = Router::new()
        .route("/metrics", get(async |State(api): State<Api>| all(&api)))
        .with_state(api);
    let served = axum::serve(listener, router)
        .with_graceful_shutdown(async move { shutdown.cancelled().await })
        .await;
    if let Err(error) = served {
        tracing::error!(%error, "metrics are not served any more");
    }
}

fn all(api: &Api) -> Response {
    let identity = api.settings.identity.get();
    let text = text(api.dispatch.status(), &identity, &api.settings.database);
    (
        [(header::CONTENT_TYPE, daemon::metrics::CONTENT_TYPE)],
        text,
    )
        .into_response()
}

/// Counts a request, and how long its answer took.
pub(super) async fn measure(request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let method = request.method().clone();
    // The path as the router has it: what callers make up is one path.
    let path = request.extensions().get::<MatchedPath>().cloned();
    let response = next.run(request).await;
    let path = path.as_ref().map_or("other", MatchedPath::as_str);
    // A method that nobody knows is as good as any other.
    let method = match method.as_str() {
        known @ ("GET" | "POST" | "PUT" | "DELETE" | "HEAD") => known,
        _ => "other",
    };
    let status = response.status().as_u16();
    counts().answered(method, path, status, begun.elapsed());
    response
}
