//! What comes in: inventories and errors of brokers, answers and outcomes of agents. A node's
//! transaction is answered by that node's agent and by nobody else.

use pcp::body::{self, ErrorKind, InventoryChange, InventoryResponse, InventoryUpdate};
use pcp::message::Message;
use pcp::uri::{Certname, ClientType};
use pxp::{
    BlockingResponse, MessageKind, NonBlockingResponse, ProvisionalResponse, RpcError, Status,
    StatusResult, StopResult, TransactionId,
};

use super::compose::{is_query, stop_target};
use super::run::{FIRST_QUERY, NEXT_QUERY};
use super::{Controller, Key, Mesh, Now};
use crate::outcome::{Outcome, Reason};
use crate::store::{Change, Lookup};

/// Of how many nodes changes are kept while the inventory itself is on its way: more than brokers take in.
const EARLY_NEWS: usize = 256 * 1024;

impl Controller {
    /// A message has come.
    pub(crate) fn message(&mut self, now: Now, message: &Message) {
        let envelope = &message.envelope;
        let name = envelope.message_type.name().unwrap_or_default();
        if let Some(kind) = MessageKind::from_name(name) {
            self.answer(now, kind, message);
        } else if envelope.message_type == body::error_message() {
            self.error_message(now, message);
        } else if envelope.message_type == body::inventory_response() {
            self.inventory_response(now, message);
        } else if envelope.message_type == body::inventory_update() {
            self.inventory_update(now, message);
        } else {
            tracing::debug!(message_type = %envelope.message_type, sender = %envelope.sender,
                "message of an unknown type");
        }
        self.schedule(now);
    }

    fn inventory_response(&mut self, now: Now, message: &Message) {
        if !from_broker(message) {
            return;
        }
        let Some(response) = read::<InventoryResponse>(message) else {
            return;
        };
        // One that is known is kept up to date by what changes; an answer that comes behind that, to a request
        // that was repeated or is of an earlier session, may be older.
        let awaited = match (&self.mesh, &message.envelope.in_reply_to) {
            (Mesh::Asked { requests, .. }, Some(request)) => requests.contains(request),
            _ => false,
        };
        if !awaited {
            return;
        }
        self.mesh = Mesh::Known { since: now.mono };
        let (came, gone) = self.fleet.replace(now, &response);
        tracing::info!(nodes = self.fleet.connected(), "inventory received");
        self.seen(now, came.iter().chain(&gone).cloned().collect());
        // What was on its way while there was no broker may be lost, for nodes that stayed
        // connected to theirs as well.
        let present: Vec<Certname> = self
            .interest
            .keys()
            .filter(|certname| self.fleet.is_connected(certname))
            .cloned()
            .collect();
        for certname in present {
            self.came(now, &certname);
        }
        let early = std::mem::take(&mut self.early_news);
        self.changed(now, early.into_values().collect());
    }

    fn inventory_update(&mut self, now: Now, message: &Message) {
        if !from_broker(message) {
            return;
        }
        let Some(update) = read::<InventoryUpdate>(message) else {
            return;
        };
        match self.mesh {
            Mesh::Known { .. } => self.changed(now, update.changes),
            // A large inventory travels on a stream of its own, where what is news after it overtakes it.
            Mesh::Asked { .. } => update.changes.into_iter().for_each(|c| self.keep_early(c)),
            Mesh::Down { .. } => {}
        }
    }

    /// Keeps the last word about a node until the inventory is there.
    fn keep_early(&mut self, mut change: InventoryChange) {
        if change.client.client_type() != &ClientType::agent() {
            return;
        }
        let certname = change.client.certname();
        let before = self.early_news.get(certname).map(|before| before.change);
        if before.is_none() && self.early_news.len() >= EARLY_NEWS {
            tracing::warn!(%certname, "more nodes change than there can be: not looked at");
            return;
        }
        if change.change == InventoryChange::MOVED && before == Some(InventoryChange::CAME) {
            change.change = InventoryChange::CAME;
        }
        self.early_news.insert(certname.clone(), change);
    }

    fn changed(&mut self, now: Now, changes: Vec<InventoryChange>) {
        let mut news = vec![];
        for change in changes {
            if change.client.client_type() != &ClientType::agent() {
                continue;
            }
            let certname = change.client.certname();
            if self.fleet.change(now, &change) {
                news.push(certname.clone());
            }
            // A node that came without having gone was on another broker: messages may be lost.
            if change.change == InventoryChange::CAME {
                self.came(now, certname);
            }
        }
        self.seen(now, news);
    }

    fn seen(&mut self, now: Now, certnames: Vec<Certname>) {
        if !certnames.is_empty() {
            let at = now.wall;
            self.output
                .changes
                .push(Change::NodesSeen { certnames, at });
        }
    }

    fn answer(&mut self, now: Now, kind: MessageKind, message: &Message) {
        let sender = &message.envelope.sender;
        if sender.client_type() != &ClientType::agent() {
            tracing::warn!(%sender, "answer of a client that is no agent");
            return;
        }
        match kind {
            MessageKind::ProvisionalResponse => {
                if let Some(response) = read::<ProvisionalResponse>(message)
                    && let Some(key) = self.own(&response.transaction_id, sender.certname())
                {
                    self.accepted(now, key, now.mono.saturating_add(FIRST_QUERY));
                }
            }
            MessageKind::NonBlockingResponse => {
                if let Some(response) = read::<NonBlockingResponse>(message) {
                    let certname = sender.certname();
                    let outcome = Outcome::of_results(certname.as_str(), &response.results);
                    self.outcome(now, response.transaction_id, certname, outcome);
                }
            }
            MessageKind::Error => {
                if let Some(error) = read::<RpcError>(message)
                    && !is_query(&error.transaction_id)
                {
                    let certname = sender.certname();
                    if let Some(about) = stop_target(&error.transaction_id) {
                        let shown: String =
                            error.description.chars().take(MAX_ERROR_TEXT).collect();
                        self.stop_refused(now, &about, certname, &shown);
                        return;
                    }
                    let reason = Reason::Refused;
                    let outcome = Outcome::errored(certname.as_str(), reason, error.description);
                    self.outcome(now, error.transaction_id, certname, outcome);
                }
            }
            MessageKind::BlockingResponse => self.blocking_response(now, message),
            MessageKind::BlockingRequest
            | MessageKind::NonBlockingRequest
            | MessageKind::OutcomeAcknowledgement => {
                tracing::warn!(%sender, "request from an agent");
            }
        }
    }

    /// Records an outcome, if that has not been done before, and acknowledges it in any case.
    fn outcome(
        &mut self,
        now: Now,
        transaction: TransactionId,
        certname: &Certname,
        outcome: Outcome,
    ) {
        if !self.transactions.contains_key(&transaction) {
            self.output.lookups.push(Lookup {
                transaction,
                certname: certname.clone(),
                outcome,
            });
            return;
        }
        if let Some(key) = self.own(&transaction, certname)
            && self.conclude(now, key, outcome)
        {
            self.acknowledge(certname, &transaction);
        }
    }

    /// The answer to a status query, or to a request to kill.
    fn blocking_response(&mut self, now: Now, message: &Message) {
        let Some(response) = read::<BlockingResponse>(message) else {
            return;
        };
        let certname = message.envelope.sender.certname();
        if stop_target(&response.transaction_id).is_none() {
            self.status(now, certname, &response);
            return;
        }
        match response.results.parse::<StopResult>() {
            Ok(result) => self.stop_answer(now, certname, &result),
            Err(_) => tracing::warn!(%certname, "answer to a stop that cannot be read"),
        }
    }

    fn status(&mut self, now: Now, certname: &Certname, response: &BlockingResponse) {
        let Ok(status) = response.results.parse::<StatusResult>() else {
            tracing::warn!(%certname, "status that cannot be read");
            return;
        };
        let Some(key) = self.own(&status.transaction_id, certname) else {
            return;
        };
        match status.status {
            Status::Running => self.accepted(now, key, now.mono.saturating_add(NEXT_QUERY)),
            Status::Unknown => self.unknown_to_agent(now, key),
            Status::Success | Status::Failure => {
                let Some(action) = self.jobs.get(&key.0).map(|job| job.action) else {
                    return;
                };
                if let Some(outcome) = Outcome::of_status(certname.as_str(), action, &status)
                    && self.conclude(now, key, outcome)
                {
                    self.acknowledge(certname, &status.transaction_id);
                }
            }
        }
    }

    /// A broker, or an agent before it could read a transaction id, refuses a message.
    fn error_message(&mut self, now: Now, message: &Message) {
        let envelope = &message.envelope;
        let Some(key) = envelope
            .in_reply_to
            .and_then(|id| self.requests.get(&id).copied())
        else {
            tracing::debug!(sender = %envelope.sender, "error in answer to no request");
            return;
        };
        let Some(run) = self.run(key) else { return };
        let of_target = envelope.sender.certname() == &run.certname;
        if !from_broker(message) && !of_target {
            tracing::warn!(sender = %envelope.sender, "error about another node's request");
            return;
        }
        match ErrorKind::from_body(&message.body) {
            // The node may be on its way to another broker: the request is sent again when the
            // inventory shows it, or a little later, until its time is over.
            Some(ErrorKind::NotConnected | ErrorKind::Unreachable | ErrorKind::Busy) => {
                tracing::debug!(job_id = %key.0, certname = %run.certname, "request not delivered");
            }
            Some(
                kind @ (ErrorKind::NotAuthenticated
                | ErrorKind::NotAuthorized
                | ErrorKind::TooLarge
                | ErrorKind::TooManyHops
                | ErrorKind::Undecodable),
            ) => {
                let problem = format!("refused by the broker: {}", kind.text());
                self.refuse(now, key, Reason::Refused, &problem);
            }
            None => {
                let text = serde_json::from_slice::<String>(&message.body).unwrap_or_default();
                let shown: String = text.chars().take(MAX_ERROR_TEXT).collect();
                let problem = format!("refused by the agent: {shown}");
                self.refuse(now, key, Reason::Refused, &problem);
            }
        }
    }

    /// The node that a transaction belongs to, when it is this one.
    pub(super) fn own(&self, transaction: &TransactionId, certname: &Certname) -> Option<Key> {
        let key = self.transactions.get(transaction).copied()?;
        if self.run(key)?.certname == *certname {
            return Some(key);
        }
        tracing::warn!(transaction_id = %transaction, %certname, "answer about another node's transaction");
        None
    }
}

/// How many characters of a foreign error text are kept.
const MAX_ERROR_TEXT: usize = 500;

fn from_broker(message: &Message) -> bool {
    message.envelope.sender.client_type().is_server()
}

/// Reads a body; what cannot be read is the sender's fault and is left at that.
fn read<T: serde::de::DeserializeOwned>(message: &Message) -> Option<T> {
    match pxp::read(&message.body) {
        Ok(body) => Some(body),
        Err(error) => {
            let envelope = &message.envelope;
            tracing::warn!(sender = %envelope.sender, message_type = %envelope.message_type,
                %error, "message that cannot be read");
            None
        }
    }
}
