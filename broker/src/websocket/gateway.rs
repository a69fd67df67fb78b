//! What an existing peer's message means here, in the order in which the original broker looks at it:
//! form, sender, rules, number of targets.

use pcp::v1::AssociateResponse;
use pcp::{
    Envelope, ErrorKind, Flags, ForeignMessage, Frame, Goodbye, GoodbyeCode, Judged, Message,
    MessageId, MessageType, Target, Undecodable, Uri,
};
use pcp_mesh::Verdict;
use uuid::Uuid;

use super::{End, Session, broker_uri};
use crate::access_log::Access;
use crate::authorize::Origin;
use crate::budget::Share;
use crate::refusals::Cause;

/// The original's words for a message to several clients.
const MULTICAST: &str = "Multiple recipients no longer supported.";

impl Session<'_> {
    /// Takes a message of PCP 1 or 2, or says what is wrong with it.
    pub(super) async fn foreign(
        &self,
        decoded: Result<ForeignMessage, Undecodable>,
        share: Option<Share>,
    ) -> Result<(), End> {
        let message = match decoded {
            Ok(message) => message,
            Err(error) => {
                tracing::debug!(uri = %self.uri, %error, "message refused");
                self.error(Cause::Form, None, ErrorKind::Undecodable.text());
                return Ok(());
            }
        };
        let id = message.id;
        if message.is("associate_request") {
            self.associate(&message);
            return Ok(());
        }
        match message.judge(self.uri) {
            Judged::Message(message) if message.body.len() > self.context.max_message => {
                self.error(Cause::Form, Some(id), ErrorKind::TooLarge.text());
            }
            Judged::Message(message) => {
                let message = match share {
                    Some(share) => share.hold(message),
                    None => message,
                };
                return self.pass(message).await;
            }
            Judged::NotAuthenticated => {
                let text = ErrorKind::NotAuthenticated.text();
                self.error(Cause::Sender, Some(id), text);
            }
            Judged::NotAuthorized => {
                let text = ErrorKind::NotAuthorized.text();
                self.error(Cause::Message, Some(id), text);
            }
            Judged::Multicast(envelope) => {
                let (cause, text) = self.refuse_multicast(&envelope);
                self.error(cause, Some(id), text);
            }
        }
        Ok(())
    }

    fn refuse_multicast(&self, envelope: &Envelope) -> (Cause, &'static str) {
        if envelope.sender != *self.uri {
            return (Cause::Sender, ErrorKind::NotAuthenticated.text());
        }
        match self.context.rules.message(Origin::Client, envelope) {
            Verdict::Denied => (Cause::Message, ErrorKind::NotAuthorized.text()),
            Verdict::Allowed => (Cause::Form, MULTICAST),
        }
    }

    /// PCP 1 asks for what the connection has got already. A repeat succeeds too.
    fn associate(&self, message: &ForeignMessage) {
        let sender = message.sender.as_deref().map(str::parse::<Uri>);
        let reason = match sender {
            None => None,
            Some(Ok(sender)) if sender == *self.uri => None,
            Some(Ok(sender)) if sender.certname() == self.uri.certname() => {
                Some("Session already associated.")
            }
            Some(Ok(_) | Err(_)) => Some(ErrorKind::NotAuthenticated.text()),
        };
        let response = AssociateResponse {
            id: message.id.to_string(),
            success: reason.is_none(),
            reason: reason.map(str::to_owned),
        };
        // Strings and a boolean, so that it cannot fail.
        let body = serde_json::to_vec(&response).unwrap_or_default();
        self.say("associate_response", Some(message.id), body);
        if let Some(reason) = reason {
            self.context
                .refusals
                .foreign(Cause::Sender, self.uri, reason);
            self.outbox.close(Goodbye {
                code: GoodbyeCode::Unauthorized,
                reason: "Association unsuccessful.".to_owned(),
            });
        }
    }

    /// Says what is wrong with a message that the mesh never sees.
    fn error(&self, cause: Cause, in_reply_to: Option<MessageId>, text: &str) {
        self.context.refusals.foreign(cause, self.uri, text);
        let access = match cause {
            Cause::Sender => Access::NotAuthenticated,
            Cause::Message => Access::NotAuthorized,
            _ if text == MULTICAST => Access::Multicast,
            _ => Access::Unreadable,
        };
        let log = &self.context.access_log;
        log.note_foreign(access, self.uri, self.address, in_reply_to);
        self.say("error_message", in_reply_to, format!("\"{text}\"").into());
    }

    /// Puts a message of the broker itself in line.
    fn say(&self, name: &'static str, in_reply_to: Option<MessageId>, body: Vec<u8>) {
        let message = Message {
            envelope: Envelope {
                id: MessageId(Uuid::new_v4()),
                message_type: MessageType::of(name),
                sender: broker_uri(&self.context.certname),
                target: Target::Client(self.uri.clone()),
                in_reply_to,
                hops: 0,
                flags: Flags::default(),
            },
            body: body.into(),
        };
        // A peer whose queue is full has more to read than it reads.
        drop(self.outbox.push(Frame::Message(message)));
    }
}
