//! The events of a job: a list from a number on, or, to whoever asks for it, a stream of server-sent
//! events that begins there and ends with the job.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use orchestrator_api::{
    ApiError, ErrorKind, Event, EventDetails, Events, EventsQuery, NextEvents, path,
};
use tokio::io::{AsyncWriteExt, DuplexStream};
use tokio_util::io::ReaderStream;

use super::Api;
use super::answer::{Answer, Failure};
use super::request::{Base, Params, Parts};
use super::request::{job_id, unknown_job};
use crate::job::JobId;
use crate::store::{StoreError, StoredEvent, StoredEvents};

/// What a client says that wants a stream.
const EVENT_STREAM: &str = "text/event-stream";

/// The number of the last event that a client of a stream has seen.
const LAST_EVENT: &str = "last-event-id";

/// How much of a stream may wait for a slow client. Then no more is read for it.
const BUFFER: usize = 64 * 1024;

/// How many events are read at a time.
const PAGE: u64 = 500;

/// How long further events are gathered after one has come: a large job has thousands a second, and
/// each look costs a query.
const GATHER: Duration = Duration::from_millis(50);

/// How often something is sent when nothing happens, so that proxies keep the connection, and a client
/// that has vanished is noticed.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// `GET jobs/:id/events`.
pub(super) async fn events(
    State(api): State<Api>,
    base: Base,
    headers: HeaderMap,
    Parts(name): Parts<String>,
    Params(query): Params<EventsQuery>,
) -> Result<Response, Failure> {
    let id = job_id(&name)?;
    let start = match &query.start {
        None => 0,
        Some(start) => event_id(start)?,
    };
    let wants_stream = headers
        .get(header::ACCEPT)
        .and_then(|accept| accept.to_str().ok())
        .is_some_and(|accept| accept.contains(EVENT_STREAM));
    let most = wants_stream.then_some(0);
    let start = match headers.get(LAST_EVENT).filter(|_| wants_stream) {
        None => start,
        Some(last) => event_id(last.to_str().unwrap_or_default())?.saturating_add(1),
    };
    match api.store.events(id, start, most).await? {
        StoredEvents::UnknownJob => Err(unknown_job(&name).into()),
        StoredEvents::Mismatched => {
            let msg = format!("Event {start} does not belong to job {name}");
            let error = ApiError::new(ErrorKind::MismatchedJobEventId, msg);
            Err(error.with("event", start).with("job", name.as_str()).into())
        }
        StoredEvents::Events { .. } if wants_stream => stream(&api, id, start),
        StoredEvents::Events { items, next, .. } => Ok(Answer::ok(Events {
            next_events: next_events(&base, &name, next),
            items: items.into_iter().map(event).collect(),
        })
        .into_response()),
    }
}

fn stream(api: &Api, id: JobId, start: i64) -> Result<Response, Failure> {
    let Ok(place) = Arc::clone(&api.followers).try_acquire_owned() else {
        let msg = "too many clients follow events; ask for them without a stream";
        return Err(ApiError::new(ErrorKind::Unavailable, msg).into());
    };
    let (writer, reader) = tokio::io::duplex(BUFFER);
    let api = api.clone();
    let tasks = api.tasks.clone();
    tasks.spawn("events", async move {
        if let Err(error) = follow(&api, id, start, writer).await {
            let error = error.with_hint();
            tracing::warn!(job_id = %id, error, "events could not be read");
        }
        drop(place);
    });
    let headers = [
        (header::CONTENT_TYPE, EVENT_STREAM),
        (header::CACHE_CONTROL, "no-store"),
    ];
    Ok((headers, Body::from_stream(ReaderStream::new(reader))).into_response())
}

/// Sends events as they come, until the job, the process or the client is gone.
async fn follow(
    api: &Api,
    id: JobId,
    start: i64,
    mut client: DuplexStream,
) -> Result<(), StoreError> {
    let shutdown = api.tasks.shutdown_token();
    let mut changes = api.store.changes();
    let mut start = start;
    loop {
        changes.mark_unchanged();
        let StoredEvents::Events {
            items,
            next,
            is_over,
        } = api.store.events(id, start, Some(PAGE)).await?
        else {
            // It has been pruned.
            return Ok(());
        };
        let is_last = items.iter().any(|event| event.event_type.is_last());
        let is_full = u64::try_from(items.len()).unwrap_or(u64::MAX) >= PAGE;
        let is_over = is_last || (is_over && items.is_empty());
        start = next.max(start);
        let mut text = String::new();
        for item in items {
            push(&mut text, item);
        }
        // The client has gone away.
        if client.write_all(text.as_bytes()).await.is_err() || is_over {
            return Ok(());
        }
        if is_full {
            continue;
        }
        let waited = tokio::select! {
            biased;
            () = shutdown.cancelled() => return Ok(()),
            changed = changes.changed() => changed.is_ok(),
            () = tokio::time::sleep(KEEP_ALIVE) => false,
        };
        if waited {
            tokio::time::sleep(GATHER).await;
        } else if client.write_all(b": nothing new\n\n").await.is_err() {
            return Ok(());
        }
    }
}

/// One event in the form of the stream. JSON text has no line ends.
fn push(text: &mut String, stored: StoredEvent) {
    let event = event(stored);
    let name = serde_json::to_string(&event.event_type).unwrap_or_default();
    let data = serde_json::to_string(&event).unwrap_or_default();
    for (key, value) in [
        ("id", event.id.as_str()),
        ("event", name.trim_matches('"')),
        ("data", &data),
    ] {
        text.push_str(key);
        text.push_str(": ");
        text.push_str(value);
        text.push('\n');
    }
    text.push('\n');
}

pub(super) fn event_id(text: &str) -> Result<i64, ApiError> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|_| digits).ok_or_else(|| {
        let msg = format!("Invalid event id {text:?}: it is a whole number");
        ApiError::new(ErrorKind::ValidationError, msg).with("start", text)
    })
}

pub(super) fn next_events(base: &Base, name: &str, next: i64) -> NextEvents {
    NextEvents {
        id: base.url(&format!("{}?start={next}", path::job_events(name))),
        event: next.to_string(),
    }
}

fn event(stored: StoredEvent) -> Event {
    Event {
        id: stored.id.to_string(),
        event_type: stored.event_type,
        timestamp: stored.time,
        details: EventDetails {
            node: stored.node,
            detail: stored.detail,
        },
        message: stored.message,
    }
}
