//! Clients that have just gone: what waits for them, for how long, and how much.

use pcp::{ErrorKind, LinkFrame, Message};
use pcp_mesh::{LinkKind, Node, NodeConfig, Output, Role, SessionId};

use crate::setup::*;

fn primary(change: impl FnOnce(&mut NodeConfig)) -> Node {
    let mut config = NodeConfig::new("here".parse().unwrap(), Role::Primary);
    config.return_period = 10_000;
    config.grace_period = 90_000;
    change(&mut config);
    let mut node = Node::new(config, 1000);
    connect(&mut node, CONTROLLER, "c/controller", 1);
    connect(&mut node, A, "a/agent", 1);
    node
}

/// The only output, a message.
fn handed_out(node: &mut Node) -> (SessionId, Message) {
    match outputs(node).pop() {
        Some(Output::Send { session, message }) => (session, message),
        other => panic!("not a message: {other:?}"),
    }
}

#[test]
fn a_message_waits_for_an_agent_that_comes_back_and_keeps_its_place() {
    let mut node = primary(|_| {});
    node.client_disconnected(0, A);
    let sent = [1, 2].map(|number| message(number, "c/controller", "a/agent"));
    for message in &sent {
        say(&mut node, CONTROLLER, message.clone());
    }
    assert_eq!(outputs(&mut node), []);
    assert_eq!(node.sizes().absent_messages, 2);
    connect(&mut node, B, "a/agent", 2);
    let arrived = outputs(&mut node);
    let numbers: Vec<_> = arrived
        .iter()
        .map(|output| match output {
            Output::Send { session, message } => (*session, message.envelope.id),
            other => panic!("not a message: {other:?}"),
        })
        .collect();
    assert_eq!(numbers, sent.map(|sent| (B, sent.envelope.id)));
    assert_eq!(node.sizes().absent_messages + node.sizes().absent_bytes, 0);
    assert_eq!(node.next_tick(), None);
}

#[test]
fn it_follows_an_agent_to_another_compiler() {
    let mut node = primary(|_| {});
    link(&mut node, LINK, "compiler-1", LinkKind::Down);
    link(&mut node, OTHER_LINK, "compiler-2", LinkKind::Down);
    node.link_frame(0, LINK, snapshot(1, true, vec![news("b/agent", 5, true)]))
        .unwrap();
    node.link_frame(0, OTHER_LINK, snapshot(1, true, vec![]))
        .unwrap();
    outputs(&mut node);
    node.link_disconnected(0, LINK);
    let message = message(1, "c/controller", "b/agent");
    say(&mut node, CONTROLLER, message.clone());
    assert_eq!(outputs(&mut node), []);
    node.link_frame(900, OTHER_LINK, delta(1, vec![news("b/agent", 6, true)]))
        .unwrap();
    sole_delivery(&mut node, OTHER_LINK, &message);
}

#[test]
fn an_agent_that_stays_away_is_given_up_after_its_time_and_a_controller_after_a_longer_one() {
    let mut node = primary(|_| {});
    connect(&mut node, B, "b/agent", 1);
    node.client_disconnected(1_000, A);
    let request = message(1, "c/controller", "a/agent");
    say(&mut node, CONTROLLER, request.clone());
    node.tick(10_999);
    assert_eq!(outputs(&mut node), []);
    assert_eq!(node.next_tick(), Some(11_000));
    node.tick(11_000);
    let kind = sole_error(&mut node, CONTROLLER, "c/controller", &request);
    assert_eq!(kind, ErrorKind::NotConnected);
    // Once it is given up, it is not waited for any more.
    say(&mut node, CONTROLLER, request.clone());
    let kind = sole_error(&mut node, CONTROLLER, "c/controller", &request);
    assert_eq!(kind, ErrorKind::NotConnected);

    node.client_disconnected(20_000, CONTROLLER);
    let answer = message(2, "b/agent", "c/controller");
    say(&mut node, B, answer.clone());
    node.tick(109_999);
    assert_eq!(outputs(&mut node), []);
    node.tick(110_000);
    let kind = sole_error(&mut node, B, "b/agent", &answer);
    assert_eq!(kind, ErrorKind::NotConnected);
}

#[test]
fn only_so_much_waits() {
    let body = message(1, "c/controller", "a/agent").size();
    for (messages, bytes) in [(2, usize::MAX), (usize::MAX, 2 * body)] {
        let mut node = primary(|config| {
            config.grace_messages = messages;
            config.grace_bytes = bytes;
        });
        node.client_disconnected(0, A);
        for number in 0..2 {
            say(
                &mut node,
                CONTROLLER,
                message(number, "c/controller", "a/agent"),
            );
        }
        assert_eq!(outputs(&mut node), []);
        let third = message(3, "c/controller", "a/agent");
        say(&mut node, CONTROLLER, third.clone());
        let kind = sole_error(&mut node, CONTROLLER, "c/controller", &third);
        assert_eq!(kind, ErrorKind::NotConnected);
    }
}

#[test]
fn a_message_whose_session_is_found_dead_waits_too() {
    let mut node = primary(|_| {});
    let sent = message(1, "c/controller", "a/agent");
    say(&mut node, CONTROLLER, sent.clone());
    let (session, message) = handed_out(&mut node);
    node.client_disconnected(0, session);
    node.undeliverable(0, session, message, ErrorKind::NotConnected);
    assert_eq!(outputs(&mut node), []);
    connect(&mut node, B, "a/agent", 2);
    sole_delivery(&mut node, B, &sent);
}

#[test]
fn a_message_whose_uplink_is_found_dead_goes_up_another_or_waits_for_one() {
    let mut node = node(Role::Compiler);
    connect(&mut node, A, "a/agent", 1);
    link(&mut node, LINK, "primary-1", LinkKind::Up);
    link(&mut node, OTHER_LINK, "primary-2", LinkKind::Up);
    outputs(&mut node);
    let sent = message(1, "a/agent", "c/controller");
    say(&mut node, A, sent.clone());
    for (dead, next) in [(LINK, Some(OTHER_LINK)), (OTHER_LINK, None)] {
        let (session, message) = handed_out(&mut node);
        assert_eq!(session, dead);
        node.link_disconnected(0, dead);
        node.undeliverable(0, dead, message, ErrorKind::Unreachable);
        assert_eq!(node.sizes().waiting_messages, usize::from(next.is_none()));
    }
    link(&mut node, SessionId(20), "primary-1", LinkKind::Up);
    let last = outputs(&mut node).pop();
    assert!(
        matches!(&last, Some(Output::Send { session: SessionId(20), message })
            if message.envelope.id == sent.envelope.id),
        "{last:?}"
    );
}

#[test]
fn what_another_primary_has_passed_on_is_not_passed_on_to_a_third() {
    let mut node = primary(|_| {});
    for (session, name) in [(PEER, "primary-2"), (OTHER_LINK, "primary-3")] {
        link(&mut node, session, name, LinkKind::Peer);
        let clients = match session {
            PEER => vec![news("far/controller", 1, true)],
            _ => vec![],
        };
        node.link_frame(0, session, snapshot(1, true, clients))
            .unwrap();
    }
    outputs(&mut node);
    // From a client here, and from one of another primary: both were handed out to a dead session.
    for (session, from, hands_on) in [
        (CONTROLLER, "c/controller", true),
        (PEER, "far/controller", false),
    ] {
        connect(&mut node, A, "a/agent", 2);
        outputs(&mut node);
        let sent = message(1, from, "a/agent");
        say(&mut node, session, sent.clone());
        let (dead, back) = handed_out(&mut node);
        node.client_disconnected(0, dead);
        node.undeliverable(0, dead, back, ErrorKind::NotConnected);
        outputs(&mut node);
        // The agent is back at a third primary.
        node.link_frame(0, OTHER_LINK, delta(1, vec![news("a/agent", 3, true)]))
            .unwrap();
        if hands_on {
            sole_delivery(&mut node, OTHER_LINK, &sent);
        } else {
            let kind = sole_error(&mut node, PEER, from, &sent);
            assert_eq!(kind, ErrorKind::NotConnected);
        }
        node.link_frame(0, OTHER_LINK, delta(1, vec![news("a/agent", 3, false)]))
            .unwrap();
        outputs(&mut node);
    }
}

#[test]
fn an_agent_on_its_way_out_hears_what_is_on_its_way_and_is_heard_and_the_rest_waits_elsewhere() {
    let mut compiler = node(Role::Compiler);
    link(&mut compiler, LINK, "primary", LinkKind::Up);
    connect(&mut compiler, A, "a/agent", 1);
    outputs(&mut compiler);
    compiler.client_leaving(0, A);
    let gone = match outputs(&mut compiler).as_slice() {
        [
            Output::SendLink {
                session: LINK,
                frame,
            },
        ] => frame.clone(),
        other => panic!("not announced: {other:?}"),
    };
    let late = message(1, "c/controller", "a/agent");
    say(&mut compiler, LINK, late.clone());
    sole_delivery(&mut compiler, A, &late);
    let answer = message(2, "a/agent", "c/controller");
    say(&mut compiler, A, answer.clone());
    sole_delivery(&mut compiler, LINK, &answer);

    let mut primary = primary(|_| {});
    link(&mut primary, LINK, "compiler-1", LinkKind::Down);
    link(&mut primary, OTHER_LINK, "compiler-2", LinkKind::Down);
    let LinkFrame::Delta { changes, .. } = gone else {
        panic!("no delta: {gone:?}");
    };
    assert_eq!(changes, [news("a/agent", 1, false)]);
    let there = news("b/agent", 1, true);
    primary
        .link_frame(0, LINK, snapshot(1, true, vec![there]))
        .unwrap();
    primary
        .link_frame(0, OTHER_LINK, snapshot(1, true, vec![]))
        .unwrap();
    outputs(&mut primary);
    primary
        .link_frame(0, LINK, delta(1, vec![news("b/agent", 0, false)]))
        .unwrap();
    let answer = message(3, "b/agent", "c/controller");
    say(&mut primary, LINK, answer.clone());
    sole_delivery(&mut primary, CONTROLLER, &answer);
    let later = message(4, "c/controller", "b/agent");
    say(&mut primary, CONTROLLER, later.clone());
    assert_eq!(outputs(&mut primary), []);
    primary
        .link_frame(0, OTHER_LINK, delta(1, vec![news("b/agent", 2, true)]))
        .unwrap();
    sole_delivery(&mut primary, OTHER_LINK, &later);

    // Once it has left, nothing is handed to it any more.
    compiler.client_disconnected(0, A);
    say(&mut compiler, LINK, late);
    assert_eq!(outputs(&mut compiler), []);
    assert_eq!(compiler.sizes().absent_messages, 1);
}
