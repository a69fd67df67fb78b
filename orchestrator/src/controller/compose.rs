//! The messages that the controller sends.

use bytes::Bytes;
use pcp::body::{self, InventoryRequest};
use pcp::message::{Envelope, Flags, Message, MessageId, MessageType};
use pcp::uri::{Certname, ClientType, Target, Uri, UriPattern};
use pxp::{
    BlockingRequest, JsonObject, MessageKind, NonBlockingRequest, OutcomeAcknowledgement,
    PuppetRun, StatusQuery, StopRequest, TransactionId,
};
use serde::Serialize;
use uuid::Uuid;

use crate::job::{Action, JobId};

/// What the transaction ids of status queries begin with: an answer that carries one is about the
/// query and not about a task.
const QUERY: &str = "query-";

/// What the transaction ids of requests to kill begin with; what follows is the transaction that they
/// are about.
const STOP: &str = "stop-";

/// Writes messages. Identity and randomness are given to it.
#[derive(Debug, Clone)]
pub(crate) struct Composer {
    pub(crate) sender: Uri,
    pub(crate) new_id: fn() -> Uuid,
}

impl Composer {
    /// An action as a non-blocking request whose outcome will be acknowledged.
    pub(super) fn run(
        &self,
        certname: &Certname,
        transaction: &TransactionId,
        action: Action,
        request: &JsonObject,
    ) -> Message {
        let module = match action {
            Action::TaskRun => "task",
            Action::PuppetRun => "pxp-module-puppet",
        };
        let body = pxp::write(&NonBlockingRequest {
            transaction_id: transaction.clone(),
            notify_outcome: true,
            module: module.to_owned(),
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
        let id = format!("{QUERY}{}", (self.new_id)());
        // The flag says that we know what agents add to the original's results.
        let known = Flags::ACKNOWLEDGES;
        self.blocking(certname, &id, ("status", "query"), known, &query)
    }

    /// `task stop`: kill what a transaction runs.
    pub(super) fn task_stop(&self, certname: &Certname, about: &TransactionId) -> Option<Message> {
        let stop = StopRequest {
            transaction_id: about.clone(),
        };
        let id = format!("{STOP}{about}");
        self.blocking(certname, &id, ("task", "stop"), Flags::default(), &stop)
    }

    /// A blocking request: its answer carries the same id.
    pub(crate) fn blocking<T: Serialize>(
        &self,
        certname: &Certname,
        id: &str,
        (module, action): (&str, &str),
        flags: Flags,
        params: &T,
    ) -> Option<Message> {
        let body = pxp::write(&BlockingRequest {
            transaction_id: id.parse().ok()?,
            module: module.to_owned(),
            action: action.to_owned(),
            params: Some(JsonObject::of(params).ok()?),
        });
        let kind = MessageKind::BlockingRequest;
        Some(self.to_agent(certname, kind, flags, body))
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

    /// Asks the broker which agents are connected and where, now and from now on.
    pub(super) fn inventory_request(&self) -> Option<Message> {
        let agents: UriPattern = "pcp://*/agent".parse().ok()?;
        let request = InventoryRequest {
            query: vec![agents],
            subscribe: true,
        };
        let body = pxp::write(&request);
        let message_type = body::inventory_request();
        Some(self.message(Target::Broker, message_type, Flags::PLACES, body))
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

/// The transaction that a request to kill was about, by the id of the request.
pub(super) fn stop_target(transaction: &TransactionId) -> Option<TransactionId> {
    transaction.as_str().strip_prefix(STOP)?.parse().ok()
}

/// What a Puppet run is sent: the request, with the job's number, which its report will carry.
pub(super) fn with_job(request: JsonObject, job: JobId) -> JsonObject {
    let named = request.parse::<PuppetRun>().ok().and_then(|run| {
        JsonObject::of(&PuppetRun {
            job: Some(job.to_string()),
            ..run
        })
        .ok()
    });
    named.unwrap_or(request)
}

/// Whether a Puppet run was asked to only look, and not to only look.
pub(super) fn asked_noop(request: &JsonObject) -> (bool, bool) {
    let flags = request.parse::<PuppetRun>().map(|run| run.flags);
    let has = |name: &str| {
        flags
            .as_ref()
            .is_ok_and(|flags| flags.iter().any(|flag| flag == name))
    };
    (has("--noop"), has("--no-noop"))
}

/// Whether an answer with this id answers a status query.
pub(super) fn is_query(transaction: &TransactionId) -> bool {
    transaction.as_str().starts_with(QUERY)
}
