//! Which messages PXP has, and how PCP names them.

/// What a PXP message is. The PCP message type is `http://puppetlabs.com/` and the [name].
///
/// [name]: MessageKind::name
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MessageKind {
    /// Controller to agent: run an action and answer with its results.
    BlockingRequest,
    /// Agent to controller: the results of a blocking request.
    BlockingResponse,
    /// Controller to agent: start an action; its outcome follows.
    NonBlockingRequest,
    /// Agent to controller: the action has been taken on.
    ProvisionalResponse,
    /// Agent to controller: the results of a non-blocking request.
    NonBlockingResponse,
    /// Agent to controller: the request could not be carried out, or the action could not be run.
    Error,
    /// Controller to agent: the outcome is recorded and need not be sent again. An addition of
    /// ours; only requests with the flag `ACKNOWLEDGES` are acknowledged.
    OutcomeAcknowledgement,
}

impl MessageKind {
    const ALL: [(Self, &'static str); 7] = [
        (Self::BlockingRequest, "rpc_blocking_request"),
        (Self::BlockingResponse, "rpc_blocking_response"),
        (Self::NonBlockingRequest, "rpc_non_blocking_request"),
        (Self::ProvisionalResponse, "rpc_provisional_response"),
        (Self::NonBlockingResponse, "rpc_non_blocking_response"),
        (Self::Error, "rpc_error_message"),
        (Self::OutcomeAcknowledgement, "rpc_outcome_acknowledgement"),
    ];

    /// The part of the message type behind `http://puppetlabs.com/`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::BlockingRequest => "rpc_blocking_request",
            Self::BlockingResponse => "rpc_blocking_response",
            Self::NonBlockingRequest => "rpc_non_blocking_request",
            Self::ProvisionalResponse => "rpc_provisional_response",
            Self::NonBlockingResponse => "rpc_non_blocking_response",
            Self::Error => "rpc_error_message",
            Self::OutcomeAcknowledgement => "rpc_outcome_acknowledgement",
        }
    }

    /// The kind behind a name; nothing when it is no PXP message.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL
            .iter()
            .find(|(_, known)| *known == name)
            .map(|(kind, _)| *kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_one_name_and_is_found_by_it() {
        for (kind, name) in MessageKind::ALL {
            assert_eq!(kind.name(), name);
            assert_eq!(MessageKind::from_name(name), Some(kind));
        }
        assert_eq!(MessageKind::from_name("inventory_request"), None);
    }
}
