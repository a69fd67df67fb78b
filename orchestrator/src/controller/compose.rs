//! The messages that the controller sends.

use bytes::Bytes;
use pcp::body::{self, InventoryRequest};
use pcp::message::{Envelope, Flags, Message, MessageId, MessageType};
use pcp::uri::{Certname, ClientType, Target, Uri, UriPattern};
use pxp::{
    BlockingRequest, JsonObject, MessageKind, NonBlockingRequest, OutcomeAcknowledgement,
    StatusQuery, TransactionId,
};
use uuid::Uuid;

/// What the transaction ids of status queries begin with: an answer that carries one is about the
/// query and not about a task.
const QUERY: &str = "query-";

/// Writes messages. Identity and randomness are given to it.
#[derive(Debug)]
pub(crate) struct Composer {
    pub(crate) sender: Uri,
    pub(crate) new_id: fn() -> Uuid,
}

impl Composer {
    /// `task run` as a non-blocking request whose outcome will be acknowledged.
    pub(super) fn task_run(
        &self,
        certname: &Certname,
        transaction: &TransactionId,
        request: &JsonObject,
    ) -> Message {
        let body = pxp::write(&NonBlockingRequest {
            transaction_id: transaction.clone(),
            notify_outcome: true,
            module: "task".to_owned(),
            action: "run".to_owned(),
            params: Some(request.clone()),
        });
        let kind = MessageKind::NonBlockingRequest;
        self.to_agent(certname, kind, Flags::ACKNOWLEDGES, body)
    }

    /// `status query` about a transaction.
    pub(super) fn status_query(
        &self,
        certname: &Certname,
        about: &TransactionId,
    ) -> Option<Message> {
        let query = StatusQuery {
            transaction_id: about.clone(),
        };
        let body = pxp::write(&BlockingRequest {
            transaction_id: format!("{QUERY}{}", (self.new_id)()).parse().ok()?,
            module: "status".to_owned(),
            action: "query".to_owned(),
            params: Some(JsonObject::of(&query).ok()?),
        });
        let kind = MessageKind::BlockingRequest;
        Some(self.to_agent(certname, kind, Flags::default(), body))
    }

    /// The outcome is recorded.
    pub(super) fn acknowledgement(
        &self,
        certname: &Certname,
        transaction: &TransactionId,
    ) -> Message {
        let body = pxp::write(&OutcomeAcknowledgement {
            transaction_id: transaction.clone(),
        });
        let kind = MessageKind::OutcomeAcknowledgement;
        self.to_agent(certname, kind, Flags::default(), body)
    }

    /// Asks the broker which agents are connected, now and from now on.
    pub(super) fn inventory_request(&self) -> Option<Message> {
        let agents: UriPattern = "pcp://*/agent".parse().ok()?;
        let request = InventoryRequest {
            query: vec![agents],
            subscribe: true,
        };
        let body = pxp::write(&request);
        let message_type = body::inventory_request();
        Some(self.message(Target::Broker, message_type, Flags::default(), body))
    }

    fn to_agent(
        &self,
        certname: &Certname,
        kind: MessageKind,
        flags: Flags,
        body: Vec<u8>,
    ) -> Message {
        let target = Target::Client(Uri::new(certname.clone(), ClientType::agent()));
        self.message(target, MessageType::of(kind.name()), flags, body)
    }

    fn message(
        &self,
        target: Target,
        message_type: MessageType,
        flags: Flags,
        body: Vec<u8>,
    ) -> Message {
        Message {
            envelope: Envelope {
                id: MessageId((self.new_id)()),
                message_type,
                sender: self.sender.clone(),
                target,
                in_reply_to: None,
                hops: 0,
                flags,
            },
            body: Bytes::from(body),
        }
    }
}

/// Whether an answer with this id answers a status query.
pub(super) fn is_query(transaction: &TransactionId) -> bool {
    transaction.as_str().starts_with(QUERY)
}
