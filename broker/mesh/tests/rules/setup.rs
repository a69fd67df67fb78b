//! Short ways to build nodes, inputs and expected outputs.

use pcp::{
    Announcement, Envelope, ErrorKind, Flags, LinkFrame, Message, MessageId, MessageType, Target,
    Uri,
};
use pcp_mesh::{LinkKind, Node, NodeConfig, Output, Role, SessionId, Verdict};

pub(crate) const A: SessionId = SessionId(1);
pub(crate) const B: SessionId = SessionId(2);
pub(crate) const CONTROLLER: SessionId = SessionId(3);
pub(crate) const LINK: SessionId = SessionId(10);
pub(crate) const OTHER_LINK: SessionId = SessionId(11);
pub(crate) const PEER: SessionId = SessionId(12);

pub(crate) fn node(role: Role) -> Node {
    Node::new(NodeConfig::new("here".parse().unwrap(), role), 1000)
}

pub(crate) fn uri(text: &str) -> Uri {
    format!("pcp://{text}").parse().unwrap()
}

pub(crate) fn outputs(node: &mut Node) -> Vec<Output> {
    std::iter::from_fn(|| node.poll()).collect()
}

pub(crate) fn message(number: u64, from: &str, to: &str) -> Message {
    Message {
        envelope: Envelope {
            id: MessageId::numbered(1, number),
            message_type: MessageType::of("rpc_request"),
            sender: uri(from),
            target: Target::Client(uri(to)),
            in_reply_to: None,
            hops: 0,
            flags: Flags::default(),
        },
        body: "{}".into(),
    }
}

pub(crate) fn question(body: &str) -> Message {
    let mut message = message(1, "c/controller", "x/y");
    message.envelope.message_type = pcp::body::inventory_request();
    message.envelope.target = Target::Broker;
    message.body = body.to_owned().into();
    message
}

pub(crate) fn connect(node: &mut Node, session: SessionId, who: &str, started: u64) {
    node.client_connected(0, session, uri(who), started);
}

pub(crate) fn link(node: &mut Node, session: SessionId, broker: &str, kind: LinkKind) {
    node.link_connected(0, session, broker.parse().unwrap(), kind, 0);
}

pub(crate) fn say(node: &mut Node, session: SessionId, message: Message) {
    node.message(0, session, message, Verdict::Allowed);
}

pub(crate) fn news(who: &str, started: u64, connected: bool) -> Announcement {
    Announcement {
        uri: uri(who),
        started,
        connected,
    }
}

pub(crate) fn snapshot(epoch: u64, last: bool, clients: Vec<Announcement>) -> LinkFrame {
    LinkFrame::Snapshot {
        epoch,
        last,
        clients,
    }
}

pub(crate) fn delta(epoch: u64, changes: Vec<Announcement>) -> LinkFrame {
    LinkFrame::Delta { epoch, changes }
}

/// A primary with a compiler that holds `a/agent`, and all that is said so far taken out.
pub(crate) fn primary_with_compiler() -> Node {
    let mut node = node(Role::Primary);
    link(&mut node, LINK, "compiler", LinkKind::Down);
    node.link_frame(0, LINK, snapshot(5, true, vec![news("a/agent", 50, true)]))
        .unwrap();
    outputs(&mut node);
    node
}

/// The only output, which must be an error to `to` over `session`.
pub(crate) fn sole_error(
    node: &mut Node,
    session: SessionId,
    to: &str,
    cause: &Message,
) -> ErrorKind {
    match outputs(node).as_slice() {
        [
            Output::Send {
                session: over,
                message,
            },
        ] => {
            assert_eq!(*over, session);
            assert_eq!(message.envelope.message_type, pcp::body::error_message());
            assert_eq!(message.envelope.sender, uri("here/server"));
            assert_eq!(message.envelope.target, Target::Client(uri(to)));
            assert_eq!(message.envelope.in_reply_to, Some(cause.envelope.id));
            ErrorKind::from_body(&message.body).unwrap()
        }
        other => panic!("one error expected: {other:?}"),
    }
}

/// The only output, which must pass `message` on over `session`.
pub(crate) fn sole_delivery(node: &mut Node, session: SessionId, message: &Message) {
    let mut expected = message.clone();
    expected.envelope.hops += 1;
    let expected = Output::Send {
        session,
        message: expected,
    };
    assert_eq!(outputs(node), [expected]);
}
