//! The content relay: files of tasks travel by digest, from whoever has them to the agent that asks.
//!
//! A client asks its broker; a broker asks the controllers connected to it that offer content, and
//! then its primaries (of a primary: those beside it, which ask their controllers only). The bytes are piped through: what a slow agent does not take
//! is not read from the source. Nothing is kept yet; a bounded cache by digest has its place in
//! [`Relay::find`], before anybody is asked.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::StatusCode;
use pcp::{ContentError, ContentErrorCode, Digest};
use pcp_client::ClientHandle;
use pcp_client::content::{self, AnswerError, Content, ContentQuery, FetchError};
use pcp_mesh::SessionId;
use quinn::Connection;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// The most files on their way through this broker at a time. Each takes at most two windows of a
/// stream (1 MiB each) and a buffer of 64 KiB; the next wait.
const MAX_RELAYS: usize = 256;

/// How long a question waits for its turn: a job on thousands of agents asks for its file thousands
/// of times at once. Shorter than the asker's own patience, so that it hears `busy`, and asks again.
const TURN_TIMEOUT: Duration = Duration::from_secs(20);

/// A place among the files on their way: free again when it is dropped.
pub(crate) type Place = OwnedSemaphorePermit;

/// Who has content, and how many files are on their way.
#[derive(Debug)]
pub(crate) struct Relay {
    places: Arc<Semaphore>,
    sources: Mutex<Vec<Source>>,
    uplinks: Vec<ClientHandle>,
}

#[derive(Debug, Clone)]
struct Source {
    session: SessionId,
    connection: Connection,
}

/// What became of asking one peer after the other.
#[derive(Debug, Default)]
struct Asked {
    /// Somebody who might have it could not be asked, or could not answer just now.
    unavailable: bool,
}

impl Relay {
    /// A relay that asks these primaries; a primary has none.
    pub(crate) fn new(uplinks: Vec<ClientHandle>) -> Self {
        Self {
            places: Arc::new(Semaphore::new(MAX_RELAYS)),
            sources: Mutex::default(),
            uplinks,
        }
    }

    /// How many files are on their way.
    pub(crate) fn under_way(&self) -> usize {
        MAX_RELAYS.saturating_sub(self.places.available_permits())
    }

    /// A controller that offers content has come.
    pub(crate) fn add(&self, session: SessionId, connection: Connection) {
        let source = Source {
            session,
            connection,
        };
        // The newest first: of two sessions of one controller it is the living one.
        self.sources().insert(0, source);
    }

    /// A session has ended.
    pub(crate) fn remove(&self, session: SessionId) {
        self.sources().retain(|source| source.session != session);
    }

    /// Answers a question, to the last byte.
    ///
    /// # Errors
    /// [`AnswerError`] when the file did not get through, or not even the refusal.
    pub(crate) async fn answer(
        &self,
        query: ContentQuery,
        ask_on: bool,
    ) -> Result<(), AnswerError> {
        let _place = match self.place().await {
            Ok(place) => place,
            Err(busy) => return query.refuse(busy).await,
        };
        match self.find(query.digest, ask_on).await {
            Ok(content) => query.found(content.size, content.reader).await,
            Err(error) => query.refuse(error).await,
        }
    }

    /// A place among the files on their way, when it is our turn.
    async fn place(&self) -> Result<Place, ContentError> {
        let turn = Arc::clone(&self.places).acquire_owned();
        match timeout(TURN_TIMEOUT, turn).await {
            Ok(Ok(place)) => Ok(place),
            Ok(Err(_)) | Err(_) => Err(error(
                ContentErrorCode::Busy,
                "too many files are on their way",
            )),
        }
    }

    /// Asks everybody who may have it, one after the other; other brokers only if `ask_on`.
    async fn find(&self, digest: Digest, ask_on: bool) -> Result<Content, ContentError> {
        let mut asked = Asked::default();
        let sources = self.sources().clone();
        for source in &sources {
            if let Some(content) = asked.note(content::fetch(&source.connection, digest).await) {
                return Ok(content);
            }
        }
        for uplink in self.uplinks.iter().filter(|_| ask_on) {
            if let Some(content) = asked.note(uplink.fetch(digest).await) {
                return Ok(content);
            }
        }
        // Without any source the orchestrator is on its way, or on another broker that is.
        let nobody = sources.is_empty() && self.uplinks.is_empty();
        Err(if asked.unavailable || nobody {
            error(
                ContentErrorCode::Unavailable,
                "nobody who may have the content can be asked just now",
            )
        } else {
            error(
                ContentErrorCode::NotFound,
                "nobody has content of this digest",
            )
        })
    }

    /// Never held over an await; a list of sources is valid at every step.
    fn sources(&self) -> std::sync::MutexGuard<'_, Vec<Source>> {
        self.sources.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Asked {
    fn note(&mut self, answer: Result<Content, FetchError>) -> Option<Content> {
        match answer {
            Ok(content) => return Some(content),
            Err(FetchError::Refused(error)) if error.code == ContentErrorCode::NotFound => {}
            Err(error) => {
                let error = daemon::error_chain(&error);
                tracing::debug!(%error, "content source did not answer");
                self.unavailable = true;
            }
        }
        None
    }
}

/// A file for a client that asks over HTTP, and its place among those on their way.
///
/// # Errors
/// Why it cannot be had.
pub(crate) async fn for_http(
    relay: &Relay,
    digest: Digest,
) -> Result<(Content, Place), ContentError> {
    tracing::debug!(%digest, "content requested over HTTP");
    let place = relay.place().await?;
    // Whoever asks over HTTP is an agent, for whom other brokers are asked too.
    Ok((relay.find(digest, true).await?, place))
}

/// The HTTP status that says so.
pub(crate) fn status(code: ContentErrorCode) -> StatusCode {
    match code {
        ContentErrorCode::NotFound => StatusCode::NOT_FOUND,
        ContentErrorCode::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        ContentErrorCode::Busy => StatusCode::TOO_MANY_REQUESTS,
        ContentErrorCode::Unauthorized => StatusCode::FORBIDDEN,
    }
}

/// Answers a question that a session's peer has asked; logs what went wrong.
pub(crate) async fn serve(
    relay: Arc<Relay>,
    ask_on: bool,
    send: quinn::SendStream,
    receive: quinn::RecvStream,
) {
    let answered = match content::question(send, receive).await {
        Ok(query) => {
            let digest = query.digest;
            tracing::debug!(%digest, "content requested");
            relay.answer(query, ask_on).await
        }
        Err(error) => Err(error),
    };
    if let Err(error) = answered {
        let error = daemon::error_chain(&error);
        tracing::info!(%error, "content request not answered");
    }
}

fn error(code: ContentErrorCode, message: &str) -> ContentError {
    ContentError {
        code,
        message: message.to_owned(),
    }
}
