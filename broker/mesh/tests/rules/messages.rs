//! Who may send a message, where it goes, and who hears that it cannot.

use pcp::{ErrorKind, Target};
use pcp_mesh::{LinkKind, Node, NodeConfig, Output, Role, Verdict};

use crate::setup::*;

#[test]
fn a_message_for_a_client_here_is_handed_to_it() {
    let mut node = node(Role::Primary);
    connect(&mut node, A, "a/agent", 1);
    connect(&mut node, CONTROLLER, "c/controller", 1);
    let message = message(1, "c/controller", "a/agent");
    say(&mut node, CONTROLLER, message.clone());
    sole_delivery(&mut node, A, &message);
    assert_eq!(node.counters().delivered, 1);
}

#[test]
fn hops_that_a_client_claims_do_not_count() {
    let mut node = node(Role::Primary);
    connect(&mut node, A, "a/agent", 1);
    let message = message(1, "a/agent", "a/agent");
    let mut claimed = message.clone();
    claimed.envelope.hops = 255;
    say(&mut node, A, claimed);
    sole_delivery(&mut node, A, &message);
}

#[test]
fn an_unknown_target_is_told_at_once_by_a_primary() {
    let mut node = node(Role::Primary);
    connect(&mut node, CONTROLLER, "c/controller", 1);
    let message = message(1, "c/controller", "a/agent");
    say(&mut node, CONTROLLER, message.clone());
    let kind = sole_error(&mut node, CONTROLLER, "c/controller", &message);
    assert_eq!(kind, ErrorKind::NotConnected);
    assert_eq!(node.counters().refused(ErrorKind::NotConnected), 1);
}

#[test]
fn a_forged_sender_is_told_to_the_session_that_forged_it() {
    let mut node = node(Role::Primary);
    connect(&mut node, A, "a/agent", 1);
    connect(&mut node, B, "b/agent", 1);
    for forged in ["b/agent", "a/controller"] {
        let message = message(1, forged, "b/agent");
        say(&mut node, A, message.clone());
        let kind = sole_error(&mut node, A, "a/agent", &message);
        assert_eq!(kind, ErrorKind::NotAuthenticated);
    }
}

#[test]
fn what_the_rules_deny_is_told_and_goes_nowhere() {
    let mut node = node(Role::Primary);
    connect(&mut node, A, "a/agent", 1);
    let message = message(1, "a/agent", "a/agent");
    node.message(0, A, message.clone(), Verdict::Denied);
    let kind = sole_error(&mut node, A, "a/agent", &message);
    assert_eq!(kind, ErrorKind::NotAuthorized);
}

#[test]
fn an_error_is_never_answered_by_an_error() {
    let mut node = node(Role::Primary);
    connect(&mut node, A, "a/agent", 1);
    let mut message = message(1, "a/agent", "gone/agent");
    message.envelope.message_type = pcp::body::error_message();
    say(&mut node, A, message.clone());
    node.message(0, A, message.clone(), Verdict::Denied);
    message.envelope.target = Target::Broker;
    say(&mut node, A, message);
    assert_eq!(outputs(&mut node), []);
    assert_eq!(node.counters().dropped, 3);
}

#[test]
fn a_message_with_too_many_hops_goes_no_further() {
    let mut node = primary_with_compiler();
    connect(&mut node, CONTROLLER, "c/controller", 1);
    let mut message = message(1, "a/agent", "c/controller");
    message.envelope.hops = pcp::message::MAX_HOPS;
    say(&mut node, LINK, message.clone());
    let kind = sole_error(&mut node, LINK, "a/agent", &message);
    assert_eq!(kind, ErrorKind::TooManyHops);
}

#[test]
fn what_a_driver_cannot_hand_over_comes_back_to_the_sender() {
    let mut node = primary_with_compiler();
    connect(&mut node, CONTROLLER, "c/controller", 1);
    let message = message(1, "a/agent", "c/controller");
    node.undeliverable(0, CONTROLLER, message.clone(), ErrorKind::Busy);
    let kind = sole_error(&mut node, LINK, "a/agent", &message);
    assert_eq!(kind, ErrorKind::Busy);
}

#[test]
fn a_message_from_another_primary_goes_down_but_not_to_a_third() {
    let mut node = primary_with_compiler();
    link(&mut node, PEER, "primary-2", LinkKind::Peer);
    link(&mut node, OTHER_LINK, "primary-3", LinkKind::Up);
    let announced = snapshot(3, true, vec![news("c/controller", 1, true)]);
    node.link_frame(0, PEER, announced).unwrap();
    let announced = snapshot(3, true, vec![news("third/agent", 1, true)]);
    node.link_frame(0, OTHER_LINK, announced).unwrap();
    outputs(&mut node);

    let down = message(1, "c/controller", "a/agent");
    say(&mut node, PEER, down.clone());
    sole_delivery(&mut node, LINK, &down);
    let on = message(2, "c/controller", "third/agent");
    say(&mut node, PEER, on.clone());
    let kind = sole_error(&mut node, PEER, "c/controller", &on);
    assert_eq!(kind, ErrorKind::NotConnected);
}

#[test]
fn a_message_is_never_sent_back_over_the_link_it_came_from() {
    let mut node = primary_with_compiler();
    let message = message(1, "a/agent", "a/agent");
    say(&mut node, LINK, message.clone());
    let kind = sole_error(&mut node, LINK, "a/agent", &message);
    assert_eq!(kind, ErrorKind::NotConnected);
}

#[test]
fn a_compiler_may_bring_messages_of_its_own_clients_only() {
    let mut node = primary_with_compiler();
    connect(&mut node, CONTROLLER, "c/controller", 1);
    for forged in ["b/agent", "c/controller", "here/server", "compiler/server"] {
        let message = message(1, forged, "c/controller");
        say(&mut node, LINK, message.clone());
        let kind = sole_error(&mut node, LINK, forged, &message);
        assert_eq!(kind, ErrorKind::NotAuthenticated);
    }
    let mut error = message(2, "compiler/server", "c/controller");
    error.envelope.message_type = pcp::body::error_message();
    say(&mut node, LINK, error.clone());
    sole_delivery(&mut node, CONTROLLER, &error);
    error.envelope.sender = uri("compiler-2/server");
    say(&mut node, LINK, error);
    assert_eq!(outputs(&mut node), []);
}

#[test]
fn a_compiler_cannot_take_the_place_of_a_controller() {
    let mut node = primary_with_compiler();
    connect(&mut node, CONTROLLER, "c/controller", 1);
    let claim = delta(5, vec![news("c/controller", 999, true)]);
    node.link_frame(0, LINK, claim).unwrap();
    assert_eq!(outputs(&mut node), [], "the controller's session stays");
    let message = message(1, "a/agent", "c/controller");
    say(&mut node, LINK, message.clone());
    sole_delivery(&mut node, CONTROLLER, &message);
    let withdrawal = delta(5, vec![news("c/controller", 999, false)]);
    node.link_frame(0, LINK, withdrawal).unwrap();
    say(&mut node, LINK, message.clone());
    sole_delivery(&mut node, CONTROLLER, &message);
}

#[test]
fn a_large_message_may_arrive_after_the_news_that_its_sender_left() {
    let mut node = primary_with_compiler();
    connect(&mut node, CONTROLLER, "c/controller", 1);
    let gone = delta(5, vec![news("a/agent", 50, false)]);
    node.link_frame(0, LINK, gone).unwrap();
    let message = message(1, "a/agent", "c/controller");
    say(&mut node, LINK, message.clone());
    sole_delivery(&mut node, CONTROLLER, &message);
}

#[test]
fn a_compiler_sends_up_what_it_does_not_know_and_delivers_what_comes_down_or_refuses_it() {
    let mut node = node(Role::Compiler);
    link(&mut node, LINK, "primary", LinkKind::Up);
    connect(&mut node, A, "a/agent", 1);
    outputs(&mut node);
    let up = message(1, "a/agent", "c/controller");
    say(&mut node, A, up.clone());
    sole_delivery(&mut node, LINK, &up);
    let down = message(2, "c/controller", "a/agent");
    say(&mut node, LINK, down.clone());
    sole_delivery(&mut node, A, &down);
    let astray = message(3, "c/controller", "b/agent");
    say(&mut node, LINK, astray.clone());
    let kind = sole_error(&mut node, LINK, "c/controller", &astray);
    assert_eq!(kind, ErrorKind::NotConnected);
}

#[test]
fn an_answer_goes_up_the_link_that_the_request_came_down() {
    let mut node = node(Role::Compiler);
    link(&mut node, LINK, "primary", LinkKind::Up);
    link(&mut node, OTHER_LINK, "primary-2", LinkKind::Up);
    connect(&mut node, A, "a/agent", 1);
    say(&mut node, OTHER_LINK, message(1, "c/controller", "a/agent"));
    outputs(&mut node);
    let answer = message(2, "a/agent", "c/controller");
    say(&mut node, A, answer.clone());
    sole_delivery(&mut node, OTHER_LINK, &answer);
    // Without that link any other will do.
    node.link_disconnected(0, OTHER_LINK);
    say(&mut node, A, answer.clone());
    sole_delivery(&mut node, LINK, &answer);
}

#[test]
fn a_compiler_without_a_primary_keeps_messages_until_one_is_back() {
    let mut node = node(Role::Compiler);
    connect(&mut node, A, "a/agent", 1);
    connect(&mut node, B, "b/agent", 1);
    let message = message(1, "a/agent", "c/controller");
    say(&mut node, A, message.clone());
    say(&mut node, B, self::message(2, "b/agent", "c/controller"));
    assert_eq!(outputs(&mut node), []);
    assert_eq!(node.sizes().waiting_messages, 2);
    node.tick(node.next_tick().unwrap() - 1);
    assert_eq!(node.sizes().waiting_messages, 2);
    // The primary would not know a sender that has left.
    node.client_disconnected(0, B);
    link(&mut node, LINK, "primary", LinkKind::Up);
    let mut sent = outputs(&mut node);
    assert!(matches!(sent.remove(0), Output::SendLink { .. }));
    let mut passed = message;
    passed.envelope.hops = 1;
    let message = passed;
    assert_eq!(
        sent,
        [Output::Send {
            session: LINK,
            message
        }]
    );
    assert_eq!(
        (node.sizes().waiting_messages, node.sizes().waiting_bytes),
        (0, 0)
    );
    assert_eq!(node.counters().dropped, 1);
}

#[test]
fn a_message_that_waited_too_long_for_a_primary_comes_back() {
    let mut node = node(Role::Compiler);
    connect(&mut node, A, "a/agent", 1);
    let message = message(1, "a/agent", "c/controller");
    node.message(500, A, message.clone(), Verdict::Allowed);
    assert_eq!(node.next_tick(), Some(90_500));
    node.tick(90_499);
    assert_eq!(outputs(&mut node), []);
    node.tick(90_500);
    let kind = sole_error(&mut node, A, "a/agent", &message);
    assert_eq!(kind, ErrorKind::Unreachable);
    assert_eq!(node.next_tick(), None);
}

#[test]
fn the_queue_for_a_primary_is_bounded_in_messages_and_bytes() {
    for (messages, bytes) in [(1, 1_000_000), (1000, 120)] {
        let mut config = NodeConfig::new("here".parse().unwrap(), Role::Compiler);
        (config.grace_messages, config.grace_bytes) = (messages, bytes);
        let mut node = Node::new(config, 1);
        connect(&mut node, A, "a/agent", 1);
        say(&mut node, A, message(1, "a/agent", "c/controller"));
        assert_eq!(outputs(&mut node), []);
        let message = message(2, "a/agent", "c/controller");
        say(&mut node, A, message.clone());
        let kind = sole_error(&mut node, A, "a/agent", &message);
        assert_eq!(kind, ErrorKind::Unreachable);
    }
}

#[test]
fn a_session_that_is_heard_of_on_two_ways_is_reached_on_the_nearer() {
    for peer_first in [true, false] {
        let mut node = node(Role::Primary);
        connect(&mut node, CONTROLLER, "c/controller", 1);
        link(&mut node, LINK, "compiler", LinkKind::Down);
        link(&mut node, PEER, "primary-2", LinkKind::Peer);
        let ways = if peer_first {
            [PEER, LINK]
        } else {
            [LINK, PEER]
        };
        for way in ways {
            let heard = snapshot(5, true, vec![news("a/agent", 50, true)]);
            node.link_frame(0, way, heard).unwrap();
        }
        outputs(&mut node);
        let message = message(1, "c/controller", "a/agent");
        say(&mut node, CONTROLLER, message.clone());
        sole_delivery(&mut node, LINK, &message);
    }
}

#[test]
fn a_newer_session_far_away_is_preferred_to_an_older_one_near() {
    let mut node = primary_with_compiler();
    connect(&mut node, CONTROLLER, "c/controller", 1);
    link(&mut node, PEER, "primary-2", LinkKind::Peer);
    let moved = snapshot(5, true, vec![news("a/agent", 51, true)]);
    node.link_frame(0, PEER, moved).unwrap();
    outputs(&mut node);
    let message = message(1, "c/controller", "a/agent");
    say(&mut node, CONTROLLER, message.clone());
    sole_delivery(&mut node, PEER, &message);
}

#[test]
fn a_message_that_overtakes_the_snapshot_of_its_link_waits_for_it() {
    let mut node = node(Role::Primary);
    connect(&mut node, CONTROLLER, "c/controller", 1);
    link(&mut node, LINK, "compiler", LinkKind::Down);
    let early = message(1, "a/agent", "c/controller");
    let forged = message(2, "x/agent", "c/controller");
    say(&mut node, LINK, early.clone());
    say(&mut node, LINK, forged.clone());
    let part = snapshot(5, false, vec![news("a/agent", 50, true)]);
    node.link_frame(0, LINK, part).unwrap();
    assert_eq!(outputs(&mut node), []);
    node.link_frame(0, LINK, snapshot(5, true, vec![])).unwrap();
    let Some(Output::Send { session, message }) = node.poll() else {
        panic!("the early message expected");
    };
    assert_eq!(
        (session, message.envelope.id),
        (CONTROLLER, early.envelope.id)
    );
    let kind = sole_error(&mut node, LINK, "x/agent", &forged);
    assert_eq!(kind, ErrorKind::NotAuthenticated);
}

#[test]
fn messages_that_overtake_a_snapshot_are_bounded_and_end_with_the_link() {
    let mut node = node(Role::Primary);
    link(&mut node, LINK, "compiler", LinkKind::Down);
    for number in 0..4096 {
        say(&mut node, LINK, message(number, "a/agent", "c/controller"));
    }
    assert_eq!(outputs(&mut node), []);
    assert_eq!(node.sizes().early_messages, 4096);
    let message = message(4096, "a/agent", "c/controller");
    say(&mut node, LINK, message.clone());
    let kind = sole_error(&mut node, LINK, "a/agent", &message);
    assert_eq!(kind, ErrorKind::Busy);
    node.link_disconnected(0, LINK);
    assert_eq!(node.counters().dropped, 4096);
}
