//! Reading: what the broker sends, as far as the queue of events. Dropping the future loses nothing: a
//! place in the queue is taken before anything is read.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use pcp::websocket::Incoming;
use pcp::{Goodbye, GoodbyeCode, v2};
use tokio::io::AsyncRead;
use tokio::sync::mpsc;

use super::{Dialect, Shared};
use crate::Event;
use crate::session::{End, event};
use crate::stream::StreamError;
use crate::websocket::WebSocketReader;

/// Whether the broker is still there is found out by pings, not here.
const PATIENT: Duration = Duration::from_secs(365 * 86_400);

/// Reads until the session ends.
pub(super) async fn read<R: AsyncRead + Unpin>(
    reader: &mut WebSocketReader<R>,
    dialect: &mut Dialect,
    shared: &Shared,
    events: &mpsc::Sender<Event>,
) -> End {
    loop {
        shared.deaf.store(true, Ordering::Relaxed);
        let Ok(place) = events.reserve().await else {
            return End::Abandoned;
        };
        shared.deaf.store(false, Ordering::Relaxed);
        let event = loop {
            match next(reader, dialect, shared).await {
                Ok(Some(event)) => break event,
                Ok(None) => {}
                Err(end) => return end,
            }
        };
        place.send(event);
    }
}

/// The next event; nothing when what came was none.
async fn next<R: AsyncRead + Unpin>(
    reader: &mut WebSocketReader<R>,
    dialect: &mut Dialect,
    shared: &Shared,
) -> Result<Option<Event>, End> {
    if let Some(event) = dialect.waiting()? {
        return Ok(Some(event));
    }
    let incoming = reader.next(PATIENT).await.map_err(End::Fault)?;
    shared.heard();
    match incoming {
        Incoming::Announced(_) => reader.grant(),
        Incoming::Ping(payload) => {
            *shared.pong() = Some(payload);
            shared.pinged.notify_one();
        }
        Incoming::Pong(payload) if *payload == shared.mark => shared.marked.notify_one(),
        Incoming::Pong(_) => {}
        Incoming::Close { code, reason } => {
            let code = GoodbyeCode::from(u32::from(code.unwrap_or(1005)));
            return Err(End::Goodbye(Goodbye { code, reason }));
        }
        Incoming::Text(text) => match dialect {
            Dialect::Two { early, .. } => early.push_back(text),
            Dialect::Native { .. } => return Err(End::Lost(StreamError::Unexpected)),
        },
        Incoming::Binary(bytes) => match dialect {
            // Without a copy where nobody else holds it, which is always. Whatever was there before
            // has been read: a message holds whole frames.
            Dialect::Native { frames, .. } => {
                *frames.buffer() = match bytes.try_into_mut() {
                    Ok(bytes) => bytes,
                    Err(bytes) => BytesMut::from(&*bytes),
                };
            }
            Dialect::Two { .. } => return Err(End::Lost(StreamError::Unexpected)),
        },
    }
    Ok(None)
}

impl Dialect {
    /// The next event of what has been read already.
    fn waiting(&mut self) -> Result<Option<Event>, End> {
        match self {
            Self::Native { state, frames } => {
                while let Some(frame) = frames
                    .next_frame()
                    .map_err(|error| End::Lost(StreamError::Frame(error)))?
                {
                    let meant = state.handle(frame);
                    let meant = meant.map_err(|e| End::Lost(StreamError::Misbehaved(e)))?;
                    match event(meant) {
                        Some(Ok(event)) => return Ok(Some(event)),
                        Some(Err(end)) => return Err(end),
                        None => {}
                    }
                }
                if frames.buffer().is_empty() {
                    // An idle session keeps no buffer.
                    *frames.buffer() = BytesMut::new();
                    Ok(None)
                } else {
                    Err(End::Lost(StreamError::Unexpected))
                }
            }
            Self::Two { own, broker, early } => {
                while let Some(text) = early.pop_front() {
                    if let Some(event) = of_text(&text, own, broker) {
                        return Ok(Some(event));
                    }
                }
                Ok(None)
            }
        }
    }
}

/// A message of PCP 2. One that cannot be read is passed over: brokers do not check what they deliver.
fn of_text(text: &Bytes, own: &pcp::Uri, broker: &pcp::Uri) -> Option<Event> {
    match v2::decode(text) {
        Ok(message) => {
            let id = message.id;
            let delivered = message.delivered(own, broker).map(Event::Message);
            if delivered.is_none() {
                tracing::warn!(message_id = %id, "a message with odd addresses is passed over");
            }
            delivered
        }
        Err(error) => {
            tracing::warn!(%error, "what the broker sent is passed over");
            None
        }
    }
}
