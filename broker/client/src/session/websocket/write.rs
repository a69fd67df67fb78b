//! Writing: frames leave in their order, pings in between. It never stops in the middle of a frame,
//! but with the session.

use std::io;
use std::time::Duration;

use bytes::BytesMut;
use pcp::message::INLINE_LIMIT;
use pcp::websocket::{Opcode, close_payload, push_frame};
use pcp::{Frame, Message, frame, v2};
use tokio::io::AsyncWrite;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};
use tokio_util::sync::CancellationToken;

use super::Shared;
use crate::session::{COALESCE, FAREWELL, Queued, farewell};
use crate::websocket::{WebSocketWriter, new_mask};

/// How long the broker may take to answer the last ping before a move. What it has queued for us comes
/// first; after ten seconds it gives up the other connection, on which nothing was said yet.
const MARK_DEADLINE: Duration = Duration::from_secs(8);

/// Why nothing more is written.
pub(super) enum Left {
    /// All that was written has been taken by the broker: we can move.
    Moving,
    /// Whether it has is not known in time: we stay.
    Staying,
    /// We have said goodbye.
    Shutdown,
    /// The broker does not answer.
    Silent,
    /// The broker takes nothing any more.
    Stuck(io::Error),
}

/// What the writer needs to know.
pub(super) struct Writing<'a> {
    pub(super) native: bool,
    pub(super) shared: &'a Shared,
    /// Asks the writer to finish what it has begun, for a move.
    pub(super) leave: &'a CancellationToken,
    pub(super) shutdown: &'a CancellationToken,
    pub(super) keep_alive: Duration,
}

impl Writing<'_> {
    pub(super) async fn run<W: AsyncWrite + Unpin>(
        &self,
        writer: &mut WebSocketWriter<W>,
        queue: &mut mpsc::Receiver<Queued>,
    ) -> Left {
        let mut pings = interval_at(Instant::now() + self.keep_alive, self.keep_alive);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let mut out = BytesMut::new();
            let written = tokio::select! {
                biased;
                () = self.shared.pinged.notified() => {
                    if let Some(payload) = self.shared.take_pong() {
                        push_frame(&mut out, Opcode::Pong, &[&payload], Some(new_mask()));
                    }
                    writer.write(&out).await
                }
                _ = pings.tick() => {
                    if self.shared.is_dead() {
                        return Left::Silent;
                    }
                    push_frame(&mut out, Opcode::Ping, &[], Some(new_mask()));
                    writer.write(&out).await
                }
                () = self.leave.cancelled() => return self.mark(writer).await,
                queued = queue.recv() => match queued {
                    Some(first) => self.frames(writer, queue, first, &mut out).await,
                    // The sender is kept beside the queue.
                    None => return Left::Shutdown,
                },
                () = self.shutdown.cancelled() => {
                    drop(timeout(FAREWELL, self.goodbye(writer)).await);
                    return Left::Shutdown;
                }
            };
            if let Err(error) = written {
                return Left::Stuck(error);
            }
        }
    }

    /// Writes a first frame and those that are ready behind it.
    async fn frames<W: AsyncWrite + Unpin>(
        &self,
        writer: &mut WebSocketWriter<W>,
        queue: &mut mpsc::Receiver<Queued>,
        first: Queued,
        out: &mut BytesMut,
    ) -> io::Result<()> {
        let mut next = Some(first);
        while let Some(Queued { frame, place }) = next {
            match frame {
                Frame::Message(message) if message.size() > INLINE_LIMIT => {
                    writer.write(&out.split()).await?;
                    self.large(writer, message).await?;
                    drop(place);
                }
                frame => self.push(&frame, out),
            }
            next = if out.len() < COALESCE {
                queue.try_recv().ok()
            } else {
                None
            };
        }
        writer.write(out).await
    }

    async fn large<W: AsyncWrite + Unpin>(
        &self,
        writer: &mut WebSocketWriter<W>,
        message: Message,
    ) -> io::Result<()> {
        if self.native {
            let bytes = frame::to_bytes(&Frame::Message(message));
            return writer.message(Opcode::Binary, &[&bytes]).await;
        }
        match text(&message) {
            Some((head, tail)) => {
                let parts = [head.as_bytes(), &message.body, tail.as_bytes()];
                writer.message(Opcode::Text, &parts).await
            }
            None => Ok(()),
        }
    }

    fn push(&self, frame: &Frame, out: &mut BytesMut) {
        match frame {
            frame if self.native => {
                let bytes = frame::to_bytes(frame);
                push_frame(out, Opcode::Binary, &[&bytes], Some(new_mask()));
            }
            Frame::Message(message) => {
                if let Some((head, tail)) = text(message) {
                    let parts = [head.as_bytes(), &message.body, tail.as_bytes()];
                    push_frame(out, Opcode::Text, &parts, Some(new_mask()));
                }
            }
            // Links between brokers never go this way.
            _ => {}
        }
    }

    /// Makes sure that all that was written has been taken: the broker reads in order.
    async fn mark<W: AsyncWrite + Unpin>(&self, writer: &mut WebSocketWriter<W>) -> Left {
        let mut out = BytesMut::new();
        push_frame(
            &mut out,
            Opcode::Ping,
            &[&self.shared.mark],
            Some(new_mask()),
        );
        if let Err(error) = writer.write(&out).await {
            return Left::Stuck(error);
        }
        match timeout(MARK_DEADLINE, self.shared.marked.notified()).await {
            Ok(()) => Left::Moving,
            Err(_) => Left::Staying,
        }
    }

    async fn goodbye<W: AsyncWrite + Unpin>(
        &self,
        writer: &mut WebSocketWriter<W>,
    ) -> io::Result<()> {
        let mut out = BytesMut::new();
        let goodbye = farewell();
        let payload = close_payload(1000, &goodbye.reason);
        if self.native {
            self.push(&Frame::Goodbye(goodbye), &mut out);
        }
        push_frame(&mut out, Opcode::Close, &[&payload], Some(new_mask()));
        writer.write(&out).await?;
        writer.shutdown().await;
        Ok(())
    }
}

/// A message as PCP 2 writes it, but for its body. PCP 2 carries JSON alone.
fn text(message: &Message) -> Option<(String, &'static str)> {
    let has_body = !message.body.is_empty();
    if has_body && !v2::may_be_data(&message.body) {
        let message_type = &message.envelope.message_type;
        tracing::warn!(%message_type, "a body that is not JSON cannot be sent to this broker");
        return None;
    }
    Some(v2::encode(&message.envelope, has_body))
}
