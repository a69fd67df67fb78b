//! Questions of the API that agents answer at once, such as what a task has written so far. They are
//! no part of any job: nothing is stored, and an answer that does not come in time is none.

use std::collections::HashMap;

use pcp::message::{Flags, Message, MessageId};
use pcp::uri::Certname;
use pxp::{BlockingResponse, JsonObject, MessageKind, RpcError, TransactionId};
use serde::Serialize;
use tokio::sync::oneshot;

use crate::controller::Composer;

/// What the transaction ids of questions begin with.
const ASK: &str = "ask-";

/// How many questions may be open. Each belongs to a request of the API that waits for it.
const OPEN: usize = 1024;

/// How many characters of an agent's reason for not answering are passed on.
const MAX_REASON: usize = 500;

/// Why an agent gives no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AskError {
    /// The agent says so itself, or a broker does.
    #[error("the agent does not answer this: {0}")]
    Refused(String),
    /// Too many others ask.
    #[error("too many questions to agents are open; ask again")]
    Busy,
    /// There was no answer in time.
    #[error("the agent did not answer in time")]
    Silent,
}

/// Whom to answer, when the agent does.
pub(crate) type Reply = oneshot::Sender<Result<JsonObject, AskError>>;

/// The open questions.
#[derive(Debug)]
pub(super) struct Asks {
    composer: Composer,
    open: HashMap<TransactionId, Open>,
}

#[derive(Debug)]
struct Open {
    certname: Certname,
    message: MessageId,
    reply: Reply,
}

impl Asks {
    pub(super) fn new(composer: Composer) -> Self {
        Self {
            composer,
            open: HashMap::new(),
        }
    }

    /// The message that asks. Questions whose callers have gone away make room.
    pub(super) fn ask<T: Serialize>(
        &mut self,
        certname: &Certname,
        action: (&str, &str),
        params: &T,
        reply: Reply,
    ) -> Option<Message> {
        if self.open.len() >= OPEN {
            self.open.retain(|_, open| !open.reply.is_closed());
        }
        if self.open.len() >= OPEN {
            // A caller that has gone away needs no answer.
            drop(reply.send(Err(AskError::Busy)));
            return None;
        }
        let id = format!("{ASK}{}", (self.composer.new_id)());
        let message = self
            .composer
            .blocking(certname, &id, action, Flags::default(), params)?;
        let open = Open {
            certname: certname.clone(),
            message: message.envelope.id,
            reply,
        };
        self.open.insert(id.parse().ok()?, open);
        Some(message)
    }

    /// Takes an answer. Gives whether the message was one, and so is nobody else's.
    pub(super) fn take(&mut self, message: &Message) -> bool {
        let name = message.envelope.message_type.name().unwrap_or_default();
        let answer = match MessageKind::from_name(name) {
            Some(MessageKind::BlockingResponse) => pxp::read::<BlockingResponse>(&message.body)
                .map(|response| (response.transaction_id, Ok(response.results))),
            Some(MessageKind::Error) => pxp::read::<RpcError>(&message.body).map(|error| {
                let reason = error.description.chars().take(MAX_REASON).collect();
                (error.transaction_id, Err(AskError::Refused(reason)))
            }),
            Some(_) => return false,
            None => return self.take_error(message),
        };
        let Ok((id, answer)) = answer else {
            return false;
        };
        if !id.as_str().starts_with(ASK) {
            return false;
        }
        let sender = message.envelope.sender.certname();
        if self
            .open
            .get(&id)
            .is_some_and(|open| open.certname == *sender)
            && let Some(open) = self.open.remove(&id)
        {
            // A caller that has gone away needs no answer.
            drop(open.reply.send(answer));
        }
        true
    }

    /// A broker could not deliver a question.
    fn take_error(&mut self, message: &Message) -> bool {
        let Some(about) = message.envelope.in_reply_to else {
            return false;
        };
        if message.envelope.message_type != pcp::body::error_message() {
            return false;
        }
        let found = self.open.iter().find(|(_, open)| open.message == about);
        let Some(id) = found.map(|(id, _)| id.clone()) else {
            return false;
        };
        if let Some(open) = self.open.remove(&id) {
            let reason = pcp::body::ErrorKind::from_body(&message.body)
                .map_or("refused", pcp::body::ErrorKind::text);
            // A caller that has gone away needs no answer.
            drop(open.reply.send(Err(AskError::Refused(reason.to_owned()))));
        }
        true
    }
}
