//! Sessions of clients and of brokers: which stay, which are closed, what is announced to whom.

use pcp::{GoodbyeCode, LinkFrame};
use pcp_mesh::{LinkKind, Misbehaved, Node, NodeConfig, Output, Role, SessionId};

use crate::setup::*;

#[test]
fn the_newer_session_of_a_client_closes_the_older() {
    let mut node = node(Role::Compiler);
    connect(&mut node, A, "a/agent", 5);
    for (session, started, closed) in [
        (SessionId(21), 6, A),
        // The same start: the later arrival is the living one.
        (SessionId(22), 6, SessionId(21)),
        // A session that was dialled before, and took longer.
        (SessionId(23), 4, SessionId(23)),
    ] {
        connect(&mut node, session, "a/agent", started);
        match outputs(&mut node).as_slice() {
            [Output::Close { session, code, .. }] => {
                assert_eq!((*session, *code), (closed, GoodbyeCode::Superseded));
            }
            other => panic!("one close expected: {other:?}"),
        }
        assert_eq!(node.sizes().clients, 1);
    }
    assert_eq!(node.counters().superseded, 3);
}

#[test]
fn a_primary_tells_the_compiler_that_holds_the_older_session() {
    let mut node = primary_with_compiler();
    link(&mut node, OTHER_LINK, "compiler-2", LinkKind::Down);
    let moved = snapshot(9, true, vec![news("a/agent", 51, true)]);
    node.link_frame(0, OTHER_LINK, moved).unwrap();
    let told = Output::SendLink {
        session: LINK,
        frame: delta(0, vec![news("a/agent", 51, true)]),
    };
    assert_eq!(outputs(&mut node), [told]);
}

#[test]
fn a_compiler_closes_a_session_that_is_older_than_the_one_elsewhere() {
    let mut node = node(Role::Compiler);
    link(&mut node, LINK, "primary", LinkKind::Up);
    connect(&mut node, A, "a/agent", 50);
    outputs(&mut node);
    let older = delta(
        0,
        vec![news("a/agent", 49, true), news("a/agent", 50, true)],
    );
    node.link_frame(0, LINK, older).unwrap();
    assert_eq!(outputs(&mut node), []);
    node.link_frame(0, LINK, delta(0, vec![news("a/agent", 51, true)]))
        .unwrap();
    let outputs = outputs(&mut node);
    assert!(matches!(
        outputs.as_slice(),
        [
            Output::Close {
                session: A,
                code: GoodbyeCode::Superseded,
                ..
            },
            Output::SendLink { session: LINK, .. },
        ]
    ));
    assert_eq!(node.sizes().clients, 0);
}

#[test]
fn clients_beyond_the_limit_are_closed_but_may_replace_themselves() {
    let mut config = NodeConfig::new("here".parse().unwrap(), Role::Primary);
    config.max_clients = 1;
    let mut node = Node::new(config, 1);
    connect(&mut node, A, "a/agent", 1);
    connect(&mut node, B, "b/agent", 1);
    assert!(matches!(
        outputs(&mut node).as_slice(),
        [Output::Close {
            session: B,
            code: GoodbyeCode::Unavailable,
            ..
        }]
    ));
    connect(&mut node, CONTROLLER, "a/agent", 2);
    assert!(matches!(
        outputs(&mut node).as_slice(),
        [Output::Close {
            session: A,
            code: GoodbyeCode::Superseded,
            ..
        }]
    ));
}

#[test]
fn a_client_may_not_claim_to_be_a_broker() {
    let mut node = node(Role::Primary);
    connect(&mut node, A, "a/server", 1);
    assert!(matches!(
        outputs(&mut node).as_slice(),
        [Output::Close {
            session: A,
            code: GoodbyeCode::Unauthorized,
            ..
        }]
    ));
    assert_eq!(node.sizes().known, 0);
}

#[test]
fn a_new_link_hears_a_snapshot_and_then_what_changes() {
    let mut node = node(Role::Compiler);
    connect(&mut node, A, "a/agent", 7);
    link(&mut node, LINK, "primary", LinkKind::Up);
    connect(&mut node, B, "b/agent", 8);
    node.client_disconnected(0, A);
    let frames = [
        snapshot(1001, true, vec![news("a/agent", 7, true)]),
        delta(1001, vec![news("b/agent", 8, true)]),
        delta(1001, vec![news("a/agent", 7, false)]),
    ];
    let frames = frames.map(|frame| Output::SendLink {
        session: LINK,
        frame,
    });
    assert_eq!(outputs(&mut node), frames);
}

#[test]
fn an_empty_broker_sends_an_empty_snapshot() {
    let mut node = node(Role::Compiler);
    link(&mut node, LINK, "primary", LinkKind::Up);
    let frame = snapshot(1001, true, vec![]);
    let session = LINK;
    assert_eq!(outputs(&mut node), [Output::SendLink { session, frame }]);
}

#[test]
fn a_large_snapshot_comes_in_parts_of_which_the_last_says_so() {
    let mut node = node(Role::Compiler);
    for number in 0..5000 {
        connect(
            &mut node,
            SessionId(1000 + number),
            &format!("agent-{number}/agent"),
            1,
        );
    }
    link(&mut node, LINK, "primary", LinkKind::Up);
    let mut primary = primary_with_compiler();
    let mut parts = Vec::new();
    for output in outputs(&mut node) {
        if let Output::SendLink {
            frame:
                LinkFrame::Snapshot {
                    epoch,
                    last,
                    clients,
                },
            ..
        } = output
        {
            parts.push(last);
            let frame = snapshot(epoch, last, clients);
            primary.link_frame(0, LINK, frame).unwrap();
        }
    }
    assert!(parts.len() > 2);
    assert_eq!(parts.iter().filter(|last| **last).count(), 1);
    assert_eq!(parts.last(), Some(&true));
    // What the compiler no longer names is gone.
    assert_eq!(primary.sizes().known, 5000);
}

#[test]
fn a_snapshot_of_a_higher_epoch_replaces_even_an_unfinished_one() {
    let mut node = node(Role::Primary);
    link(&mut node, LINK, "compiler", LinkKind::Down);
    let parts = [
        snapshot(
            5,
            true,
            vec![news("a/agent", 1, true), news("b/agent", 1, true)],
        ),
        snapshot(6, false, vec![news("c/agent", 1, true)]),
        snapshot(7, false, vec![news("d/agent", 1, true)]),
        // Late parts of what is replaced.
        snapshot(6, true, vec![news("e/agent", 1, true)]),
        delta(5, vec![news("f/agent", 1, true)]),
        snapshot(7, true, vec![news("b/agent", 1, true)]),
    ];
    for part in parts {
        node.link_frame(0, LINK, part).unwrap();
    }
    let mut known: Vec<_> = node.inventory().map(|e| e.uri.to_string()).collect();
    known.sort();
    assert_eq!(known, ["pcp://b/agent", "pcp://d/agent"]);
}

#[test]
fn brokers_that_break_the_rules_of_announcing_are_found_out() {
    let mut config = NodeConfig::new("here".parse().unwrap(), Role::Primary);
    config.max_announced = 2;
    let mut node = Node::new(config, 1);
    link(&mut node, LINK, "compiler", LinkKind::Down);
    let agents = |count: u64| (0..count).map(|n| news(&format!("{n}/agent"), 1, true));
    for (frame, fault) in [
        (delta(5, vec![]), Misbehaved::DeltaWithoutSnapshot(5)),
        (
            snapshot(5, true, vec![news("a/agent", 1, false)]),
            Misbehaved::GoneInSnapshot,
        ),
        (
            snapshot(5, true, vec![news("primary/server", 1, true)]),
            Misbehaved::BrokerAsClient,
        ),
        (
            snapshot(5, true, agents(3).collect()),
            Misbehaved::TooManyClients(2),
        ),
    ] {
        assert_eq!(node.link_frame(0, LINK, frame), Err(fault));
    }
    let mut compiler = self::node(Role::Compiler);
    link(&mut compiler, LINK, "primary", LinkKind::Up);
    let fault = compiler.link_frame(0, LINK, snapshot(5, true, vec![]));
    assert_eq!(fault, Err(Misbehaved::SnapshotFromAbove));
}

#[test]
fn snapshots_that_are_never_finished_do_not_grow_the_inventory_without_end() {
    let mut config = NodeConfig::new("here".parse().unwrap(), Role::Primary);
    config.max_announced = 100;
    let mut node = Node::new(config, 1);
    link(&mut node, LINK, "compiler", LinkKind::Down);
    let fault = (0..100).find_map(|epoch: u64| {
        let agents = (0..10).map(|n| news(&format!("{epoch}-{n}/agent"), 1, true));
        let begun = snapshot(epoch, false, agents.collect());
        node.link_frame(0, LINK, begun).err()
    });
    assert_eq!(fault, Some(Misbehaved::TooManyClients(100)));
    assert_eq!(node.sizes().known, 100);
    node.link_disconnected(0, LINK);
    assert_eq!(node.sizes().known, 0);
}

#[test]
fn a_compiler_takes_no_links() {
    let mut node = node(Role::Compiler);
    link(&mut node, LINK, "compiler-2", LinkKind::Down);
    assert!(matches!(
        outputs(&mut node).as_slice(),
        [Output::Close {
            session: LINK,
            code: GoodbyeCode::Unauthorized,
            ..
        }]
    ));
    assert_eq!(node.sizes().links, 0);
}

#[test]
fn a_broker_that_dials_again_replaces_its_old_link() {
    let mut node = primary_with_compiler();
    link(&mut node, OTHER_LINK, "compiler", LinkKind::Down);
    assert!(matches!(
        outputs(&mut node).as_slice(),
        [Output::Close {
            session: LINK,
            code: GoodbyeCode::Superseded,
            ..
        }]
    ));
    assert_eq!((node.sizes().links, node.sizes().known), (1, 0));
}

#[test]
fn a_link_that_started_before_the_open_one_is_not_taken_however_late_it_is_heard_of() {
    let mut node = primary_with_compiler();
    let mut connect = |session, started| {
        let compiler = "compiler".parse().unwrap();
        node.link_connected(0, session, compiler, LinkKind::Down, started);
        let closed = outputs(&mut node).into_iter().map(|output| match output {
            Output::Close { session, code, .. } => (session, code),
            other => panic!("no close: {other:?}"),
        });
        let closed: Vec<_> = closed.collect();
        assert_eq!(node.sizes().links, 1);
        closed
    };
    assert_eq!(connect(A, 7), [(LINK, GoodbyeCode::Superseded)]);
    assert_eq!(connect(B, 6), [(B, GoodbyeCode::Unavailable)]);
    assert_eq!(connect(OTHER_LINK, 7), [(A, GoodbyeCode::Superseded)]);
}

#[test]
fn the_end_of_a_link_is_the_end_of_what_it_announced() {
    let mut node = primary_with_compiler();
    node.link_disconnected(0, LINK);
    assert_eq!(node.inventory().count(), 0);
}

#[test]
fn a_primary_announces_its_compilers_clients_to_other_primaries_and_nothing_down() {
    let mut node = primary_with_compiler();
    link(&mut node, PEER, "primary-2", LinkKind::Peer);
    link(&mut node, OTHER_LINK, "primary-3", LinkKind::Up);
    let from_peer = snapshot(3, true, vec![news("p/agent", 1, true)]);
    node.link_frame(0, PEER, from_peer).unwrap();
    connect(&mut node, A, "x/agent", 9);
    let mut frames = outputs(&mut node).into_iter().map(|output| match output {
        Output::SendLink { session, frame } => (session, frame),
        other => panic!("no news: {other:?}"),
    });
    let announced = vec![news("a/agent", 50, true)];
    assert_eq!(
        frames.next(),
        Some((PEER, snapshot(1001, true, announced.clone())))
    );
    assert_eq!(
        frames.next(),
        Some((OTHER_LINK, snapshot(1002, true, announced)))
    );
    let news = vec![news("x/agent", 9, true)];
    assert_eq!(frames.next(), Some((OTHER_LINK, delta(1002, news.clone()))));
    assert_eq!(frames.next(), Some((PEER, delta(1001, news))));
    assert_eq!(frames.next(), None);
}
