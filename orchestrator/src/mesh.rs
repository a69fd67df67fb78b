//! Ties the dispatcher to a real broker: one task for each direction, and one for each file that
//! the broker asks for.

use daemon::Tasks;
use pcp_client::{ClientConfig, ContentQuery, Event};
use tokio::sync::mpsc;

use crate::dispatch::{MeshEvent, MeshPort};
use crate::library::Library;

/// How many messages may wait between dispatcher and client, in each direction. The client has its
/// own queue; this one only has to keep both busy.
const QUEUE: usize = 256;

/// Connects, and stays connected until shutdown.
pub(crate) fn connect(config: ClientConfig, library: Library, tasks: &Tasks) -> MeshPort {
    let (handle, mut events) = pcp_client::start(config, tasks);
    let (outgoing, mut to_send) = mpsc::channel(QUEUE);
    let (arrived, incoming) = mpsc::channel(QUEUE);
    tasks.spawn_core("mesh-send", async move {
        while let Some(message) = to_send.recv().await {
            // The controller sends again what gets no answer.
            if let Err(error) = handle.send(message).await {
                tracing::debug!(%error, "message not sent");
            }
        }
    });
    let files = tasks.clone();
    tasks.spawn_core("mesh-receive", async move {
        while let Some(event) = events.recv().await {
            let event = match event {
                Event::Connected { welcome, .. } => MeshEvent::Connected {
                    broker: welcome.broker,
                    max_message: usize::try_from(welcome.max_message).unwrap_or(usize::MAX),
                },
                Event::Message(message) => MeshEvent::Message(message),
                // The client has logged why.
                Event::Disconnected { .. } => MeshEvent::Disconnected,
                Event::Content(query) => {
                    files.spawn("content", serve(library.clone(), query));
                    continue;
                }
                Event::Link(_) => {
                    tracing::warn!("link frame from a broker to an orchestrator");
                    continue;
                }
            };
            if arrived.send(event).await.is_err() {
                break;
            }
        }
    });
    MeshPort { outgoing, incoming }
}

async fn serve(library: Library, query: ContentQuery) {
    let digest = query.digest;
    let answered = match library.open(digest).await {
        Ok(checked) => query.found(checked.size, checked.file).await,
        Err(error) => query.refuse(error).await,
    };
    if let Err(error) = answered {
        let error = daemon::error_chain(&error);
        tracing::warn!(%digest, error, "file not sent");
    }
}
