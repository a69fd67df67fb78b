//! Requests for the inventory, and subscriptions to its changes.

use pcp::{ErrorKind, Flags, GoodbyeCode, InventoryResponse, InventoryUpdate, MessageType};
use pcp_mesh::{LinkKind, Node, Output, Role, SessionId};

use crate::setup::*;

fn response(output: &Output) -> Vec<String> {
    let Output::Send { message, .. } = output else {
        panic!("no message: {output:?}");
    };
    let response: InventoryResponse = serde_json::from_slice(&message.body).unwrap();
    response.uris.iter().map(ToString::to_string).collect()
}

/// All changes that are sent to a session, as `+address` and `-address`.
fn changes(node: &mut Node, session: SessionId) -> Vec<String> {
    let mut changes = Vec::new();
    for output in outputs(node) {
        let Output::Send {
            session: to,
            message,
        } = output
        else {
            panic!("no message: {output:?}");
        };
        assert_eq!(to, session);
        assert_eq!(message.envelope.message_type, pcp::body::inventory_update());
        assert!(message.size() < pcp::message::INLINE_LIMIT);
        let update: InventoryUpdate = serde_json::from_slice(&message.body).unwrap();
        changes.extend(update.changes.iter().map(|change| {
            let sign = if change.change > 0 { '+' } else { '-' };
            format!("{sign}{}", change.client.certname())
        }));
    }
    changes
}

#[test]
fn an_inventory_request_is_answered_with_what_matches_sorted() {
    let mut node = primary_with_compiler();
    connect(&mut node, CONTROLLER, "c/controller", 1);
    connect(&mut node, B, "b/agent", 1);
    for (query, expected) in [
        (
            r#"["pcp://*/agent"]"#,
            vec!["pcp://a/agent", "pcp://b/agent"],
        ),
        (
            r#"["pcp://b/agent","pcp://b/agent","pcp://x/agent"]"#,
            vec!["pcp://b/agent"],
        ),
        (
            r#"["pcp://c/*","pcp://a/agent"]"#,
            vec!["pcp://a/agent", "pcp://c/controller"],
        ),
        ("[]", vec![]),
    ] {
        let request = question(&format!(r#"{{"query":{query}}}"#));
        say(&mut node, CONTROLLER, request.clone());
        let outputs = outputs(&mut node);
        let [
            Output::Send {
                session: CONTROLLER,
                message,
            },
        ] = outputs.as_slice()
        else {
            panic!("one response expected: {outputs:?}");
        };
        assert_eq!(message.envelope.in_reply_to, Some(request.envelope.id));
        assert_eq!(response(&outputs[0]), expected);
    }
}

#[test]
fn who_asks_for_places_hears_where_clients_are_and_nobody_else_does() {
    let mut node = primary_with_compiler();
    connect(&mut node, CONTROLLER, "c/controller", 1);
    connect(&mut node, B, "b/agent", 1);
    let query = r#"{"query":["pcp://*/agent"],"subscribe":true}"#;
    let mut request = question(query);
    request.envelope.flags = Flags::PLACES;
    say(&mut node, CONTROLLER, request);
    let uris = r#"{"uris":["pcp://a/agent","pcp://b/agent"]"#;
    let told = format!(r#"{uris},"places":{{"brokers":["compiler","here"],"of":[0,1]}}}}"#);
    assert_eq!(body(&mut node), told);
    // b changes to the compiler; its older session is closed.
    node.link_frame(0, LINK, delta(5, vec![news("b/agent", 2, true)]))
        .unwrap();
    // Another primary reaches a, too, and then the compiler's link is lost.
    link(&mut node, PEER, "other", LinkKind::Peer);
    node.link_frame(0, PEER, snapshot(1, true, vec![news("a/agent", 50, true)]))
        .unwrap();
    node.link_disconnected(0, LINK);
    while node.poll().is_some() {}
    node.tick(2_000);
    assert_eq!(
        body(&mut node),
        r#"{"changes":[{"client":"pcp://b/agent","change":1},"#.to_owned()
            + r#"{"client":"pcp://a/agent","change":0,"broker":"other"},"#
            + r#"{"client":"pcp://b/agent","change":-1}]}"#
    );

    say(&mut node, CONTROLLER, question(query));
    assert_eq!(body(&mut node), r#"{"uris":["pcp://a/agent"]}"#);
    link(&mut node, LINK, "compiler", LinkKind::Down);
    let whole = vec![news("a/agent", 50, true), news("b/agent", 3, true)];
    node.link_frame(2_000, LINK, snapshot(6, true, whole))
        .unwrap();
    while node.poll().is_some() {}
    node.tick(4_000);
    let told = r#"{"changes":[{"client":"pcp://b/agent","change":1}]}"#;
    assert_eq!(body(&mut node), told);
}

/// The body of the only message that is sent.
fn body(node: &mut Node) -> String {
    match outputs(node).as_slice() {
        [Output::Send { message, .. }] => String::from_utf8(message.body.to_vec()).unwrap(),
        other => panic!("one message expected: {other:?}"),
    }
}

#[test]
fn what_a_broker_cannot_read_is_said_to_be_undecodable() {
    let mut node = primary_with_compiler();
    connect(&mut node, CONTROLLER, "c/controller", 1);
    let patterns = vec!["\"pcp://*/agent\""; pcp::body::MAX_QUERY + 1].join(",");
    let long = " ".repeat(pcp::body::MAX_QUERY_BYTES);
    let mut other = question("{}");
    other.envelope.message_type = MessageType::of("ping");
    for message in [
        question("{}"),
        question("not json"),
        question(r#"{"query":["agent"]}"#),
        question(&format!(r#"{{"query":[{patterns}]}}"#)),
        // It says nothing wrong, and too much of it.
        question(&format!(r#"{{"query":[]{long}}}"#)),
        other,
    ] {
        say(&mut node, CONTROLLER, message.clone());
        let kind = sole_error(&mut node, CONTROLLER, "c/controller", &message);
        assert_eq!(kind, ErrorKind::Undecodable);
    }
}

#[test]
fn a_subscriber_hears_changes_once_a_second_in_order_and_only_what_it_asked_for() {
    let mut node = primary_with_compiler();
    connect(&mut node, CONTROLLER, "c/controller", 1);
    say(
        &mut node,
        CONTROLLER,
        question(r#"{"query":["pcp://*/agent"],"subscribe":true}"#),
    );
    assert_eq!(response(&outputs(&mut node)[0]), ["pcp://a/agent"]);
    assert_eq!(node.next_tick(), None);
    node.client_connected(100, B, uri("b/agent"), 1);
    node.client_disconnected(200, B);
    node.client_connected(300, B, uri("b/controller"), 1);
    node.link_disconnected(400, LINK);
    assert_eq!(node.next_tick(), Some(1100));
    node.tick(1099);
    assert_eq!(outputs(&mut node), []);
    node.tick(1100);
    assert_eq!(changes(&mut node, CONTROLLER), ["+b", "-b", "-a"]);
    // What is due next has nothing to do with the subscription: a client that has gone is forgotten.
    assert!(node.next_tick() > Some(2_100));
}

#[test]
fn a_client_that_comes_back_is_announced_again_without_having_gone() {
    let mut node = primary_with_compiler();
    connect(&mut node, CONTROLLER, "c/controller", 1);
    say(
        &mut node,
        CONTROLLER,
        question(r#"{"query":["pcp://*/agent"],"subscribe":true}"#),
    );
    outputs(&mut node);
    node.link_frame(0, LINK, delta(5, vec![news("a/agent", 51, true)]))
        .unwrap();
    node.tick(1000);
    assert_eq!(changes(&mut node, CONTROLLER), ["+a"]);
}

#[test]
fn a_new_request_replaces_the_subscription_before_it() {
    let mut node = primary_with_compiler();
    connect(&mut node, CONTROLLER, "c/controller", 1);
    for request in [
        r#"{"query":["pcp://*/agent"],"subscribe":true}"#,
        r#"{"query":["pcp://*/agent"]}"#,
    ] {
        say(&mut node, CONTROLLER, question(request));
    }
    assert_eq!(node.sizes().subscriptions, 0);
    outputs(&mut node);
    connect(&mut node, B, "b/agent", 1);
    assert_eq!(node.next_tick(), None);
}

#[test]
fn a_response_is_not_repeated_by_the_update_after_it() {
    let mut node = primary_with_compiler();
    connect(&mut node, CONTROLLER, "c/controller", 1);
    let subscribe = r#"{"query":["pcp://*/agent"],"subscribe":true}"#;
    connect(&mut node, A, "d/controller", 1);
    let mut other = question(subscribe);
    other.envelope.sender = uri("d/controller");
    say(&mut node, A, other);
    connect(&mut node, B, "b/agent", 1);
    say(&mut node, CONTROLLER, question(subscribe));
    outputs(&mut node);
    node.client_disconnected(0, A);
    connect(&mut node, A, "e/agent", 1);
    node.tick(1000);
    assert_eq!(changes(&mut node, CONTROLLER), ["+e"]);
    // The next batch is heard from its beginning.
    node.client_disconnected(1000, B);
    node.tick(2000);
    assert_eq!(changes(&mut node, CONTROLLER), ["-b"]);
}

#[test]
fn many_changes_are_split_into_updates_that_fit_a_frame() {
    let mut node = primary_with_compiler();
    connect(&mut node, CONTROLLER, "c/controller", 1);
    say(
        &mut node,
        CONTROLLER,
        question(r#"{"query":["pcp://*/agent"],"subscribe":true}"#),
    );
    outputs(&mut node);
    for number in 0..20_000 {
        connect(
            &mut node,
            SessionId(1000 + number),
            &format!("agent-{number}/agent"),
            1,
        );
    }
    node.tick(1000);
    // `changes` checks the size of each.
    assert_eq!(changes(&mut node, CONTROLLER).len(), 20_000);
}

#[test]
fn an_update_that_found_no_room_is_made_up_for_by_the_next() {
    let mut node = primary_with_compiler();
    connect(&mut node, CONTROLLER, "c/controller", 1);
    say(
        &mut node,
        CONTROLLER,
        question(r#"{"query":["pcp://*/agent"],"subscribe":true}"#),
    );
    outputs(&mut node);
    connect(&mut node, A, "x/agent", 1);
    connect(&mut node, B, "y/agent", 1);
    node.tick(1000);
    let Some(Output::Send { message, .. }) = node.poll() else {
        panic!("an update expected");
    };
    node.client_disconnected(1001, A);
    node.undeliverable(1001, CONTROLLER, message, ErrorKind::Busy);
    assert_eq!(outputs(&mut node), []);
    node.tick(2001);
    assert_eq!(changes(&mut node, CONTROLLER), ["-x", "+y"]);
    assert_eq!(node.counters().updates_repeated, 1);
}

#[test]
fn a_client_that_does_not_take_its_answer_is_closed() {
    let mut node = primary_with_compiler();
    connect(&mut node, CONTROLLER, "c/controller", 1);
    say(
        &mut node,
        CONTROLLER,
        question(r#"{"query":["pcp://*/agent"]}"#),
    );
    let Some(Output::Send { message, .. }) = node.poll() else {
        panic!("a response expected");
    };
    node.undeliverable(0, CONTROLLER, message, ErrorKind::Busy);
    assert!(matches!(
        outputs(&mut node).as_slice(),
        [Output::Close {
            session: CONTROLLER,
            code: GoodbyeCode::Unavailable,
            ..
        }]
    ));
}

#[test]
fn whoever_asks_again_is_told_first_what_was_not_told_yet() {
    let mut node = node(Role::Primary);
    connect(&mut node, CONTROLLER, "c/controller", 1);
    let asks = question(r#"{"query":["pcp://*/agent"],"subscribe":true}"#);
    say(&mut node, CONTROLLER, asks.clone());
    outputs(&mut node);
    connect(&mut node, A, "a/agent", 2);
    say(&mut node, CONTROLLER, asks);
    let told: Vec<_> = outputs(&mut node)
        .into_iter()
        .map(|output| match output {
            Output::Send { message, .. } => {
                let body = String::from_utf8(message.body.to_vec()).unwrap();
                (message.envelope.message_type, body)
            }
            other => panic!("no message: {other:?}"),
        })
        .collect();
    let [(update, change), (response, _)] = told.as_slice() else {
        panic!("{told:?}");
    };
    assert_eq!(*update, pcp::body::inventory_update());
    assert!(change.contains("pcp://a/agent"), "{change}");
    assert_eq!(*response, pcp::body::inventory_response());
}

#[test]
fn subscriptions_are_bounded() {
    let mut node = node(Role::Primary);
    let subscribe = r#"{"query":["pcp://*/agent"],"subscribe":true}"#;
    for number in 0..257 {
        let (session, who) = (SessionId(1000 + number), format!("{number}/controller"));
        connect(&mut node, session, &who, 1);
        let mut request = question(subscribe);
        request.envelope.sender = uri(&who);
        say(&mut node, session, request.clone());
        if number == 256 {
            let kind = sole_error(&mut node, session, &who, &request);
            assert_eq!(kind, ErrorKind::Busy);
        }
        outputs(&mut node);
    }
    assert_eq!(node.sizes().subscriptions, 256);
}

#[test]
fn a_session_that_is_not_known_is_ignored() {
    let mut node = node(Role::Primary);
    node.client_disconnected(0, A);
    node.link_disconnected(0, LINK);
    node.link_frame(0, LINK, snapshot(1, true, vec![])).unwrap();
    say(&mut node, A, message(1, "a/agent", "a/agent"));
    node.tick(1000);
    assert_eq!(outputs(&mut node), []);
}
