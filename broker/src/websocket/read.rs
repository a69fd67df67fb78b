//! Reading: what the peer sends, as far as the driver. A message's share of the broker's memory is
//! taken as soon as its size is known, and the peer waits until there is one.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use pcp::message::INLINE_LIMIT;
use pcp::websocket::Incoming;
use pcp::{Message, ServerEvent, v1, v2};
use pcp_client::websocket::{WebSocketFault, WebSocketReader};
use tokio::io::AsyncRead;
use tokio::time::{Instant, timeout_at};

use super::open::Native;
use super::{End, Session};
use crate::authorize::{Kind, kind};
use crate::budget::Share;
use crate::input::Input;
use crate::version::Version;

/// How long one large message may take: 64 MiB at some 4 Mbit/s.
const LARGE_DEADLINE: Duration = Duration::from_secs(120);

/// One of our own clients that says nothing for so long is gone: three of its pings. The same for a
/// controller that we have dialled: three of ours.
const NATIVE_IDLE: Duration = Duration::from_secs(45);

impl Session<'_> {
    /// Hands what the peer sends to the driver, and waits when that has too much to do.
    pub(super) async fn read<R: AsyncRead + Unpin>(
        &self,
        reader: &mut WebSocketReader<R>,
        native: &mut Native,
    ) -> End {
        let budget = &self.context.budget;
        let allowance = match kind(self.uri.client_type()) {
            Some(Kind::Controller | Kind::Broker) => budget.of_controller(),
            Some(Kind::Agent) | None => budget.of_agent(),
        };
        let patience = match self.version {
            _ if self.uri.is_dialled() => NATIVE_IDLE,
            Version::Native => NATIVE_IDLE,
            Version::One | Version::Two => self.context.websocket_idle,
        };
        let mut share: Option<Share> = None;
        let mut deadline: Option<Instant> = None;
        loop {
            let next = reader.next(patience);
            let incoming = match deadline {
                None => next.await,
                Some(deadline) => match timeout_at(deadline, next).await {
                    Ok(incoming) => incoming,
                    Err(_) => Err(WebSocketFault::Silent(LARGE_DEADLINE)),
                },
            };
            let ended = match incoming {
                Err(fault) => return End::Lost(fault),
                Ok(Incoming::Announced(bytes)) => {
                    share = allowance.share(bytes).await;
                    if share.is_none() {
                        return End::Stopping;
                    }
                    reader.grant();
                    deadline = Some(Instant::now() + LARGE_DEADLINE);
                    continue;
                }
                Ok(Incoming::Ping(payload)) => {
                    self.outbox.pong(payload);
                    continue;
                }
                Ok(Incoming::Pong(_)) => continue,
                Ok(Incoming::Close { code, reason }) => {
                    let code = code.unwrap_or(1005);
                    return End::Left(format!("the peer closed with {code} {reason}"));
                }
                Ok(Incoming::Text(text)) => match self.version {
                    Version::Two => {
                        self.foreign(v2::decode(&text), taken(&mut share, &text))
                            .await
                    }
                    Version::One | Version::Native => Err(End::Refused {
                        code: 1003,
                        reason: "text is not spoken here",
                    }),
                },
                Ok(Incoming::Binary(bytes)) => match self.version {
                    Version::One => {
                        self.foreign(v1::decode(&bytes), taken(&mut share, &bytes))
                            .await
                    }
                    Version::Native => {
                        let share = taken(&mut share, &bytes);
                        self.frames(bytes, share, native).await
                    }
                    Version::Two => Err(End::Refused {
                        code: 1003,
                        reason: "PCP 2 is text",
                    }),
                },
            };
            if let Err(end) = ended {
                return end;
            }
            deadline = None;
        }
    }

    /// Takes the frames of one of our own peers.
    async fn frames(
        &self,
        bytes: Bytes,
        mut share: Option<Share>,
        native: &mut Native,
    ) -> Result<(), End> {
        const WRONG: End = End::Refused {
            code: 1002,
            reason: "the peer broke the protocol",
        };
        // Without a copy where nobody else holds it, which is always.
        *native.frames.buffer() = match bytes.try_into_mut() {
            Ok(bytes) => bytes,
            Err(bytes) => BytesMut::from(&*bytes),
        };
        while let Some(frame) = native.frames.next_frame().map_err(|_| WRONG)? {
            match native.state.handle(frame).map_err(|_| WRONG)? {
                ServerEvent::Message(mut message) => {
                    message.envelope.hops = 0;
                    if message.size() > INLINE_LIMIT
                        && let Some(share) = share.take()
                    {
                        message = share.hold(message);
                    }
                    self.pass(message).await?;
                }
                ServerEvent::Goodbye(goodbye) => return Err(End::Left(goodbye.reason)),
                ServerEvent::Hello(_) | ServerEvent::Link(_) => return Err(WRONG),
            }
        }
        // A WebSocket message holds whole frames, so an idle session keeps nothing.
        if native.frames.buffer().is_empty() {
            *native.frames.buffer() = BytesMut::new();
            Ok(())
        } else {
            Err(WRONG)
        }
    }

    /// Hands a message to the driver.
    pub(super) async fn pass(&self, message: Message) -> Result<(), End> {
        let session = self.id;
        let input = Input::Message { session, message };
        let passed = self.context.inputs.send(input).await;
        passed.map_err(|_| End::Stopping)
    }
}

/// The share of a message that has arrived, reduced to its size.
fn taken(share: &mut Option<Share>, message: &Bytes) -> Option<Share> {
    let mut share = share.take()?;
    share.shrink(message.len());
    Some(share)
}
