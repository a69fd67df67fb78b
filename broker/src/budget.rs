//! How much memory large messages may take in the whole broker. A message holds its share from the
//! moment its size is announced until the last queue has let go of its body; whoever comes when
//! nothing is left waits, and QUIC's flow control holds the peer back.

use std::sync::Arc;

use bytes::Bytes;
use pcp::Message;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How many messages of the largest size fit at once: one on its way in, one on its way out, and as
/// much again, so that one peer does not stop all others.
const LARGEST_MESSAGES: usize = 4;

/// What one permit stands for, in bytes.
const UNIT: usize = 1024;

/// The memory that is left.
#[derive(Debug)]
pub(crate) struct Budget {
    left: Arc<Semaphore>,
    /// What the largest message takes, in permits.
    largest: usize,
}

/// What one peer may take of the memory.
#[derive(Debug, Clone)]
pub(crate) struct Allowance {
    left: Arc<Semaphore>,
    own: Option<Arc<Semaphore>>,
    largest: usize,
}

/// A share of the memory.
#[derive(Debug)]
pub(crate) struct Share {
    left: OwnedSemaphorePermit,
    own: Option<OwnedSemaphorePermit>,
}

/// A body that gives its share back when it is dropped.
struct Held {
    body: Bytes,
    _share: Share,
}

impl Budget {
    /// A budget for messages of at most `max_message` bytes.
    pub(crate) fn new(max_message: usize) -> Self {
        let largest = pcp::frame::max_message_payload(max_message).div_ceil(UNIT);
        let permits = largest.saturating_mul(LARGEST_MESSAGES);
        Self {
            left: Arc::new(Semaphore::new(permits.min(Semaphore::MAX_PERMITS))),
            largest,
        }
    }

    /// For an agent: one message of the largest size at a time, or several that are smaller. Anybody
    /// with a certificate is an agent, and one that announces much and sends nothing must not have
    /// it all.
    pub(crate) fn of_agent(&self) -> Allowance {
        Allowance {
            left: Arc::clone(&self.left),
            own: Some(Arc::new(Semaphore::new(self.largest))),
            largest: self.largest,
        }
    }

    /// For a controller or a broker: all that is left. They are few, and stand for many.
    pub(crate) fn of_controller(&self) -> Allowance {
        Allowance {
            left: Arc::clone(&self.left),
            own: None,
            largest: self.largest,
        }
    }
}

impl Allowance {
    /// A share of so many bytes, as soon as it is free. More than the largest message counts as that:
    /// an existing peer's envelope is longer than ours, and whoever waited for more than there is
    /// would wait for ever.
    pub(crate) async fn share(&self, bytes: usize) -> Option<Share> {
        let permits = u32::try_from(bytes.div_ceil(UNIT).min(self.largest)).ok()?;
        // The peer's own first: while it waits for that, it takes nothing from the others.
        let own = match &self.own {
            Some(own) => Some(Arc::clone(own).acquire_many_owned(permits).await.ok()?),
            None => None,
        };
        let left = Arc::clone(&self.left).acquire_many_owned(permits).await;
        left.ok().map(|left| Share { left, own })
    }
}

impl Share {
    /// Gives back what a message that came in pieces did not need after all.
    pub(crate) fn shrink(&mut self, bytes: usize) {
        let needed = bytes.div_ceil(UNIT);
        for permit in [Some(&mut self.left), self.own.as_mut()]
            .into_iter()
            .flatten()
        {
            drop(permit.split(permit.num_permits().saturating_sub(needed)));
        }
    }

    /// Ties the share to the message's body and all its copies.
    pub(crate) fn hold(self, mut message: Message) -> Message {
        message.body = Bytes::from_owner(Held {
            body: message.body,
            _share: self,
        });
        message
    }
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.body
    }
}

#[cfg(test)]
mod tests {
    use pcp::{Envelope, Flags, MessageId, MessageType, Target};

    use super::*;

    fn message() -> Message {
        Message {
            envelope: Envelope {
                id: MessageId(uuid::Uuid::nil()),
                message_type: MessageType::of("rpc_blocking_response"),
                sender: "pcp://a/agent".parse().expect("a URI"),
                target: Target::Broker,
                in_reply_to: None,
                hops: 0,
                flags: Flags::default(),
            },
            body: Bytes::from_static(b"body"),
        }
    }

    #[tokio::test]
    async fn a_message_that_came_in_pieces_gives_back_what_it_did_not_need() {
        let budget = Budget::new(1024 * 1024);
        let free = budget.left.available_permits();
        let agent = budget.of_agent();
        let mut share = agent.share(1024 * 1024).await.expect("room");
        share.shrink(10 * 1024);
        assert_eq!(budget.left.available_permits(), free - 10);
        let own = agent.own.as_ref().map(|own| own.available_permits());
        assert_eq!(own, Some(budget.largest - 10));
    }

    #[tokio::test]
    async fn what_is_a_little_above_the_largest_message_does_not_wait_for_ever() {
        let budget = Budget::new(1024 * 1024);
        for allowance in [budget.of_agent(), budget.of_controller()] {
            assert!(allowance.share(1024 * 1024 + 100_000).await.is_some());
        }
    }

    #[tokio::test]
    async fn a_body_gives_its_share_back_with_its_last_copy() {
        let budget = Budget::new(1024 * 1024);
        let free = budget.left.available_permits();
        let share = budget.of_agent().share(512 * 1024).await.expect("room");
        let held = share.hold(message());
        assert_eq!(&*held.body, b"body");
        let copy = held.body.clone();
        drop(held);
        assert_eq!(budget.left.available_permits(), free - 512);
        drop(copy);
        assert_eq!(budget.left.available_permits(), free);
    }
}
