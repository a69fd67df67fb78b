//! `jobs/:id/nodes/:name/output`: what a task has written, from an offset on. While it runs, its agent
//! is asked; afterwards, the stored result tells.

use std::time::Duration;

use axum::extract::State;
use orchestrator_api::{ApiError, ErrorKind, NodeOutput, NodeState, OutputQuery, OutputStream};
use pcp::uri::Certname;
use pxp::{MAX_CHUNK, OutputChunk, OutputRequest, Status, StreamChunk};
use serde_json::Value;
use tokio::time::Instant;

use super::Api;
use super::answer::{Answer, Failure, Fallible};
use super::jobs::redacted;
use super::request::{Params, Parts};
use super::request::{job_id, unknown_job};
use crate::dispatch::AskError;
use crate::job::JobId;
use crate::outcome::SENSITIVE;
use crate::store::{Secret, StoredOutput};

/// How long a caller may have us wait for something new, in seconds: less than proxies and clients
/// take for a server that has died.
const MAX_WAIT: u64 = 30;

/// How long to wait after a change before looking whether it is about this node.
const GATHER: Duration = Duration::from_millis(50);

/// `GET jobs/:id/nodes/:name/output`.
pub(super) async fn output(
    State(api): State<Api>,
    Parts((job, node)): Parts<(String, String)>,
    Params(query): Params<OutputQuery>,
) -> Fallible<NodeOutput> {
    let id = job_id(&job)?;
    let unknown_node = || {
        let msg = format!("job {job} has no node {node}");
        let error = ApiError::new(ErrorKind::NotFound, msg);
        error.with("job", job.as_str()).with("node", node.as_str())
    };
    let certname = Certname::parse(&node).map_err(|_| unknown_node())?;
    let wait = query.wait.unwrap_or_default();
    if wait > MAX_WAIT {
        let msg = format!("wait is at most {MAX_WAIT} seconds; ask again after that");
        return Err(ApiError::new(ErrorKind::ValidationError, msg)
            .with("wait", wait)
            .into());
    }
    let until = Instant::now() + Duration::from_secs(wait);
    loop {
        let mut changes = api.store.changes();
        let Some(stored) = read(&api, id, &job, certname.clone()).await? else {
            return Err(unknown_node().into());
        };
        let state = stored.state;
        if state.is_final() {
            return Ok(Answer::ok(ended(stored, &query)));
        }
        if matches!(state, NodeState::Running | NodeState::Stopping)
            && let Some(output) = running(&api, &stored, &query, until).await?
        {
            return Ok(Answer::ok(output));
        }
        // It has not begun, or has ended just now.
        tokio::select! {
            _ = changes.changed() => tokio::time::sleep(GATHER).await,
            () = tokio::time::sleep_until(until) => {
                let nothing = |offset: Option<u64>| OutputStream {
                    offset: offset.unwrap_or_default(),
                    next: offset.unwrap_or_default(),
                    data: Some(String::new()),
                    ..OutputStream::default()
                };
                return Ok(Answer::ok(NodeOutput {
                    node,
                    state,
                    stdout: nothing(query.stdout),
                    stderr: nothing(query.stderr),
                    end: false,
                }));
            }
        }
    }
}

async fn read(
    api: &Api,
    id: JobId,
    job: &str,
    certname: Certname,
) -> Result<Option<StoredOutput>, Failure> {
    let stored = api.store.output(id, certname).await?;
    if stored.is_none() && api.store.job(id).await?.is_none() {
        return Err(unknown_job(job).into());
    }
    Ok(stored)
}

/// Asks the agent; nothing when it does not have the task yet, or any more.
async fn running(
    api: &Api,
    stored: &StoredOutput,
    query: &OutputQuery,
    until: Instant,
) -> Result<Option<NodeOutput>, Failure> {
    let wait = until.saturating_duration_since(Instant::now());
    let request = OutputRequest {
        transaction_id: stored.transaction.clone(),
        stdout: query.stdout.unwrap_or_default(),
        stderr: query.stderr.unwrap_or_default(),
        wait_ms: Some(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)).filter(|ms| *ms > 0),
    };
    let certname = stored.certname.clone();
    let answer = api.dispatch.output(certname, request, wait).await?;
    let chunk = match answer {
        Ok(results) => results.parse::<OutputChunk>().map_err(|_| {
            let msg = "the agent's answer cannot be read";
            ApiError::new(ErrorKind::UnknownError, msg)
        })?,
        // The stored result will tell, when there is one.
        Err(AskError::Refused(_)) if Instant::now() < until => return Ok(None),
        Err(error) => {
            return Err(ApiError::new(ErrorKind::Unavailable, error.to_string())
                .with("node", stored.certname.as_str())
                .into());
        }
    };
    if chunk.status == Status::Unknown {
        return Ok(None);
    }
    Ok(Some(NodeOutput {
        node: stored.certname.to_string(),
        state: stored.state,
        stdout: written(&chunk.stdout),
        stderr: written(&chunk.stderr),
        end: chunk.end,
    }))
}

/// What is stored of a node that has ended.
fn ended(stored: StoredOutput, query: &OutputQuery) -> NodeOutput {
    let stdout = stdout(stored.stdout, stored.result);
    let stdout = piece(&stdout, query.stdout);
    let stderr = piece(&stored.stderr.0.unwrap_or_default(), query.stderr);
    NodeOutput {
        node: stored.certname.to_string(),
        state: stored.state,
        end: stdout.next >= stdout.total && stderr.next >= stderr.total,
        stdout,
        stderr,
    }
}

/// What the task has written: as it was, or as its result tells.
fn stdout(stored: Secret<Option<String>>, result: Secret<Option<Value>>) -> String {
    match (stored.0, result.0) {
        (Some(stdout), _) => stdout,
        (None, Some(result)) if result.get(SENSITIVE).is_some() => redacted(result).to_string(),
        (None, Some(result)) => match result.get("_output") {
            Some(Value::String(output)) => output.clone(),
            _ => String::new(),
        },
        (None, None) => String::new(),
    }
}

/// A piece of a text, from an offset on. It ends between two characters, where the next one begins.
fn piece(text: &str, offset: Option<u64>) -> OutputStream {
    let total = text.len();
    let start = usize::try_from(offset.unwrap_or_default())
        .unwrap_or(usize::MAX)
        .min(total);
    let end = text.floor_char_boundary(start.saturating_add(MAX_CHUNK));
    let bytes = text.as_bytes().get(start..end.max(start));
    let length = |length: usize| u64::try_from(length).unwrap_or(u64::MAX);
    written(&StreamChunk {
        offset: length(start),
        next: length(end.max(start)),
        total: length(total),
        data: bytes.unwrap_or_default().to_vec(),
    })
}

/// Text as text, and other bytes in base64: as agents write it.
fn written(chunk: &StreamChunk) -> OutputStream {
    serde_json::to_value(chunk)
        .and_then(serde_json::from_value)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_add_up_to_the_text() {
        let text = "ü".repeat(MAX_CHUNK + 7);
        let (mut offset, mut joined) = (0, String::new());
        loop {
            let piece = piece(&text, Some(offset));
            assert!(piece.data.as_ref().unwrap().len() <= MAX_CHUNK);
            joined.push_str(piece.data.as_deref().unwrap());
            assert_eq!(piece.total, u64::try_from(text.len()).unwrap());
            if piece.next == piece.total {
                break;
            }
            assert!(piece.next > offset);
            offset = piece.next;
        }
        assert_eq!(joined, text);
        // An offset inside of a character gives its rest, which is no text.
        let rest = piece("ü!", Some(1));
        assert_eq!(
            (rest.next, rest.data, rest.data_base64.is_some()),
            (3, None, true)
        );
        assert_eq!(piece("abc", Some(99)).next, 3);
    }
}
