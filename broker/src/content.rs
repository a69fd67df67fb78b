//! The content relay: files of tasks travel by digest, from whoever has them to the agent that asks.
//!
//! A client asks its broker. What that has in its cache it gives at once (`store`); else it asks the
//! controllers connected to it that offer content, and then its primaries (of a primary: those beside it,
//! which ask their controllers only). However many ask for a file at a time, it is fetched once, and given
//! to all as it comes (`flight`). What cannot be kept is piped through: then what a slow agent does not
//! take is not read from the source.

mod flight;
mod reader;
mod store;

use std::collections::HashMap;
use std::io;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use daemon::Tasks;
use daemon::disk::Disk;
use hyper::StatusCode;
use pcp::{ContentError, ContentErrorCode, Digest};
use pcp_client::ClientHandle;
use pcp_client::content::{self, AnswerError, Content, ContentQuery, FetchError};
use pcp_mesh::SessionId;
use quinn::Connection;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::config::ContentCache;
use crate::counts::{ContentCounts, Counts};
use flight::{Flight, Landing, PIECE};
pub(crate) use reader::{Found, Reader};
pub(crate) use store::Held;
use store::Store;

/// The most files on their way through this broker at a time. Each takes at most two windows of a
/// stream (1 MiB each) and a buffer of 64 KiB; the next wait.
const MAX_RELAYS: usize = 256;

/// How long a question waits for its turn: a job on thousands of agents asks for its file thousands
/// of times at once. Shorter than the asker's own patience, so that it hears `busy`, and asks again.
const TURN_TIMEOUT: Duration = Duration::from_secs(20);

/// How often the cache is looked into for a file that has just come, before it is passed on uncached.
const LOOKS: usize = 3;

/// A place among the files on their way: free again when it is dropped.
pub(crate) type Place = OwnedSemaphorePermit;

/// Who has content, what is kept of it, and how many files are on their way.
#[derive(Debug)]
pub(crate) struct Relay {
    places: Arc<Semaphore>,
    sources: Mutex<Vec<Source>>,
    uplinks: Vec<ClientHandle>,
    cache: Option<Cache>,
    /// The files that are being fetched.
    flights: Mutex<HashMap<Journey, Arc<Flight>>>,
    counts: Arc<Counts>,
    /// Where they are fetched, whoever of those who want them goes away.
    tasks: Tasks,
}

/// What is kept.
#[derive(Debug, Clone)]
pub(crate) struct Cache {
    store: Arc<Store>,
    disk: Disk,
}

/// What is fetched, and whether other brokers are asked for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Journey {
    digest: Digest,
    ask_on: bool,
}

#[derive(Debug, Clone)]
struct Source {
    session: SessionId,
    connection: Connection,
}

/// What to do about a file that is not in the cache.
enum Boarding {
    /// It is being fetched, from now on.
    First(Arc<Flight>),
    /// It is being fetched already.
    Joined(Arc<Flight>),
    /// It has just come into the cache.
    Landed,
}

/// What became of asking one peer after the other.
#[derive(Debug, Default)]
struct Asked {
    /// Somebody who might have it could not be asked, or could not answer just now.
    unavailable: bool,
}

impl Cache {
    /// Opens the directory of a configuration; nothing when nothing is to be kept. Blocks.
    ///
    /// # Errors
    /// When the directory cannot be used.
    pub(crate) fn open(config: &ContentCache) -> io::Result<Option<Self>> {
        if config.size == 0 {
            return Ok(None);
        }
        let store = Store::open(&config.dir, config.size, config.reserve)?;
        Ok(Some(Self {
            store: Arc::new(store),
            disk: Disk::default(),
        }))
    }

    /// What is kept of a digest, which was compared just now.
    async fn get(&self, digest: Digest) -> Option<Found> {
        let store = Arc::clone(&self.store);
        let verified = self.disk.run(move || store.get(digest)).await;
        verified.ok()?.map(Found::from)
    }
}

impl Relay {
    /// A relay that asks these primaries; a primary has none, unless there are others.
    pub(crate) fn new(
        uplinks: Vec<ClientHandle>,
        cache: Option<Cache>,
        counts: Arc<Counts>,
        tasks: Tasks,
    ) -> Self {
        Self {
            places: Arc::new(Semaphore::new(MAX_RELAYS)),
            sources: Mutex::default(),
            uplinks,
            cache,
            flights: Mutex::default(),
            counts,
            tasks,
        }
    }

    /// What the cache holds, if there is one.
    pub(crate) fn held(&self) -> Option<Held> {
        Some(self.cache.as_ref()?.store.held())
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
        self: &Arc<Self>,
        query: ContentQuery,
        ask_on: bool,
    ) -> Result<(), AnswerError> {
        let _place = match self.place().await {
            Ok(place) => place,
            Err(busy) => return query.refuse(busy).await,
        };
        match self.find(query.digest, ask_on).await {
            Ok(found) => query.found(found.size, found.reader).await,
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

    /// Finds a file in the cache, or fetches it; other brokers are asked only if `ask_on`.
    async fn find(self: &Arc<Self>, digest: Digest, ask_on: bool) -> Result<Found, ContentError> {
        let found = match &self.cache {
            Some(cache) => self.through(cache, digest, ask_on).await,
            None => self.uncached(digest, ask_on).await,
        };
        if let Err(error) = &found {
            self.content_counts().refused(error.code);
        }
        found
    }

    async fn through(
        self: &Arc<Self>,
        cache: &Cache,
        digest: Digest,
        ask_on: bool,
    ) -> Result<Found, ContentError> {
        let counts = self.content_counts();
        for _ in 0..LOOKS {
            if let Some(found) = cache.get(digest).await {
                counts.cached();
                return Ok(found);
            }
            let flight = match self.board(cache, Journey { digest, ask_on }) {
                Boarding::First(flight) => {
                    counts.fetched();
                    flight
                }
                Boarding::Joined(flight) => {
                    counts.joined();
                    flight
                }
                Boarding::Landed => continue,
            };
            return match flight.landing().await? {
                Landing::Shared { size } => Ok(self.share(cache, flight, size)),
                Landing::Alone(content) => Ok(content.into()),
                Landing::Again => self.uncached(digest, ask_on).await,
            };
        }
        // It comes and goes: the cache is too small for what is wanted at a time.
        self.uncached(digest, ask_on).await
    }

    /// Passes a file on without keeping it.
    async fn uncached(&self, digest: Digest, ask_on: bool) -> Result<Found, ContentError> {
        self.content_counts().uncached();
        self.ask(digest, ask_on).await.map(Found::from)
    }

    /// Joins those who wait for a file, or sets out for it.
    fn board(self: &Arc<Self>, cache: &Cache, journey: Journey) -> Boarding {
        let mut flights = self.flights();
        if let Some(flight) = flights.get(&journey) {
            return Boarding::Joined(Arc::clone(flight));
        }
        // A flight is forgotten after its file was put down: between our look and now it may have been.
        if cache.store.has(journey.digest) {
            return Boarding::Landed;
        }
        let flight = Arc::<Flight>::default();
        flights.insert(journey, Arc::clone(&flight));
        drop(flights);
        let carrier = Carrier {
            relay: Arc::clone(self),
            flight: Arc::clone(&flight),
            journey,
        };
        let (cache, end) = (cache.clone(), self.tasks.shutdown_token());
        self.tasks.spawn("fetch-content", async move {
            tokio::select! {
                biased;
                () = end.cancelled() => {}
                () = carrier.carry(&cache) => {}
            }
        });
        Boarding::First(flight)
    }

    /// Gives a file that comes, or has just come, to one who waits for it.
    fn share(&self, cache: &Cache, flight: Arc<Flight>, size: u64) -> Found {
        let (to, from) = tokio::io::duplex(PIECE);
        let disk = cache.disk.clone();
        let giving = async move { flight.give(&disk, to).await };
        self.tasks.spawn("give-content", giving);
        Found {
            size,
            reader: Reader::Coming(from),
        }
    }

    /// Asks everybody who may have it, one after the other; other brokers only if `ask_on`.
    async fn ask(&self, digest: Digest, ask_on: bool) -> Result<Content, ContentError> {
        let mut asked = Asked::default();
        let sources = self.sources().clone();
        for source in &sources {
            if let Some(content) = asked.note(content::fetch(&source.connection, digest).await) {
                return Ok(self.counted(content));
            }
        }
        for uplink in self.uplinks.iter().filter(|_| ask_on) {
            if let Some(content) = asked.note(uplink.fetch(digest).await) {
                return Ok(self.counted(content));
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

    /// A file that somebody gives us.
    fn counted(&self, content: Content) -> Content {
        self.content_counts().taken(content.size);
        content
    }

    fn content_counts(&self) -> &ContentCounts {
        &self.counts.content
    }

    /// Never held over an await; a list of sources is valid at every step.
    fn sources(&self) -> MutexGuard<'_, Vec<Source>> {
        self.sources.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The same holds for the list of flights.
    fn flights(&self) -> MutexGuard<'_, HashMap<Journey, Arc<Flight>>> {
        self.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Fetches one file. Whatever becomes of it, those who wait are told, and the next one asks anew.
#[derive(Debug)]
struct Carrier {
    relay: Arc<Relay>,
    flight: Arc<Flight>,
    journey: Journey,
}

impl Carrier {
    async fn carry(&self, cache: &Cache) {
        let Journey { digest, ask_on } = self.journey;
        let content = match self.relay.ask(digest, ask_on).await {
            Ok(content) => content,
            Err(error) => return self.flight.fail(error),
        };
        let (store, size) = (Arc::clone(&cache.store), content.size);
        let part = cache.disk.run(move || store.begin(digest, size)).await;
        match part {
            Ok(Some(part)) => self.flight.carry(digest, part, content, &cache.disk).await,
            Ok(None) | Err(_) => self.flight.leave(content),
        }
    }
}

impl Drop for Carrier {
    fn drop(&mut self) {
        self.relay.flights().remove(&self.journey);
        self.flight.give_up();
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
    relay: &Arc<Relay>,
    digest: Digest,
) -> Result<(Found, Place), ContentError> {
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
