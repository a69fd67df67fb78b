//! Writing: messages leave in their order, in the peer's version of PCP, many short ones at once.

use std::io;

use bytes::{Bytes, BytesMut};
use pcp::message::INLINE_LIMIT;
use pcp::websocket::{Opcode, push_frame};
use pcp::{ErrorKind, Frame, Message, frame, v1, v2};
use pcp_client::websocket::WebSocketWriter;
use tokio::io::AsyncWrite;
use tokio::time::timeout;

use super::goodbye::{close, close_of, goodbye_frame};
use super::{End, FAREWELL, Session};
use crate::input::Input;
use crate::version::Version;

/// How much is collected for one write at most: a few TLS records.
const COALESCE: usize = 64 * 1024;

/// A message in a peer's version: what comes before its body, its body, what comes behind.
struct Encoded {
    opcode: Opcode,
    head: Bytes,
    body: Bytes,
    tail: &'static str,
}

impl Session<'_> {
    /// Writes what waits in the outbox. Ends after a goodbye, or when the peer takes nothing any more.
    pub(super) async fn write<W: AsyncWrite + Unpin>(
        &self,
        writer: &mut WebSocketWriter<W>,
    ) -> End {
        loop {
            let ready = self.outbox.ready().await;
            let mut out = BytesMut::new();
            if let Some(pong) = ready.pong {
                push_frame(&mut out, Opcode::Pong, &[&pong], writer.key());
            }
            if ready.ping {
                push_frame(&mut out, Opcode::Ping, &[], writer.key());
            }
            if !ready.bytes.is_empty() {
                push_frame(&mut out, Opcode::Binary, &[&ready.bytes], writer.key());
            }
            if self.messages(writer, ready.large, &mut out).await.is_err()
                || writer.write(&out).await.is_err()
            {
                self.outbox.abandon();
                return End::Stuck;
            }
            if let Some(goodbye) = ready.goodbye {
                let (code, reason) = close_of(&goodbye);
                if self.version == Version::Native {
                    let mut out = BytesMut::new();
                    let frame = goodbye_frame(goodbye);
                    push_frame(&mut out, Opcode::Binary, &[&frame], writer.key());
                    drop(timeout(FAREWELL, writer.write(&out)).await);
                }
                close(writer, code, &reason).await;
                return End::Closed;
            }
        }
    }

    /// Writes messages in their order; leaves the last short ones in `out`.
    async fn messages<W: AsyncWrite + Unpin>(
        &self,
        writer: &mut WebSocketWriter<W>,
        messages: Vec<Message>,
        out: &mut BytesMut,
    ) -> io::Result<()> {
        for message in messages {
            let large = message.size() > INLINE_LIMIT;
            match self.encode(&message) {
                None => self.undeliverable(message).await,
                Some(encoded) if large => {
                    drop(message);
                    writer.write(&out.split()).await?;
                    let Encoded {
                        opcode,
                        head,
                        body,
                        tail,
                    } = &encoded;
                    writer
                        .message(*opcode, &[head, body, tail.as_bytes()])
                        .await?;
                }
                Some(Encoded {
                    opcode,
                    head,
                    body,
                    tail,
                }) => {
                    push_frame(out, opcode, &[&head, &body, tail.as_bytes()], writer.key());
                    if out.len() > COALESCE {
                        writer.write(&out.split()).await?;
                    }
                }
            }
            if large {
                self.outbox.large_done();
            }
        }
        Ok(())
    }

    /// A message in the peer's version; nothing when it cannot be said there.
    fn encode(&self, message: &Message) -> Option<Encoded> {
        match self.version {
            Version::One => {
                let (head, body) = v1::encode(message);
                Some(Encoded {
                    opcode: Opcode::Binary,
                    head,
                    body,
                    tail: "",
                })
            }
            Version::Two => {
                let has_body = !message.body.is_empty();
                if has_body && !v2::may_be_data(&message.body) {
                    return None;
                }
                let (head, tail) = v2::encode(&message.envelope, has_body);
                Some(Encoded {
                    opcode: Opcode::Text,
                    head: head.into(),
                    body: message.body.clone(),
                    tail,
                })
            }
            Version::Native => Some(Encoded {
                opcode: Opcode::Binary,
                head: frame::to_bytes(&Frame::Message(message.clone())),
                body: Bytes::new(),
                tail: "",
            }),
        }
    }

    /// PCP 2 carries JSON alone: the sender of anything else is told.
    async fn undeliverable(&self, message: Message) {
        tracing::debug!(
            message_id = %message.envelope.id,
            sender = %message.envelope.sender,
            "a body that is not JSON cannot be written for a peer of PCP 2"
        );
        let input = Input::Undeliverable {
            session: self.id,
            message,
            why: ErrorKind::Undecodable,
        };
        // Without a driver the process is about to end.
        drop(self.context.inputs.send(input).await);
    }
}
