//! `pcp-broker explain`: what this configuration says about a client and a message, without either.

use pcp::{Envelope, Flags, MessageId, MessageType, Target, Uri};
use uuid::Uuid;

use crate::authorize::{Origin, Reason, Rules};
use crate::config::Config;

/// What the configuration says.
#[derive(Debug)]
pub struct Explanation {
    /// One line about the session, one about the message.
    pub lines: [String; 2],
    /// Whether the message would pass.
    pub passes: bool,
}

/// Judges a message that a client of this broker would send.
#[must_use]
pub fn explain(
    config: &Config,
    sender: &Uri,
    message_type: &MessageType,
    target: &Target,
) -> Explanation {
    let rules = Rules::of(config);
    let session = rules.hello(sender.certname(), sender.client_type()).err();
    let envelope = Envelope {
        id: MessageId(Uuid::nil()),
        message_type: message_type.clone(),
        sender: sender.clone(),
        target: target.clone(),
        in_reply_to: None,
        hops: 0,
        flags: Flags::default(),
    };
    let reason = rules.explain(Origin::Client, &envelope);
    let allowed = matches!(reason, Reason::Structure | Reason::Rule(_));
    Explanation {
        passes: allowed && session.is_none(),
        lines: [
            match session {
                None => format!("session  {sender} may connect"),
                Some(refused) => format!("session  {sender} is refused: {refused}"),
            },
            format!("message  {reason}"),
        ],
    }
}
