//! Each rule from both sides, as tables.

use pcp::{Flags, MessageId, MessageType, Uri};

use super::*;

fn rules() -> Rules {
    let name = |text| Certname::parse(text).expect("a certname");
    Rules::new(&[name("orch")], &[name("compiler-1")])
}

fn envelope(sender: &str, message_type: &str, target: &str) -> Envelope {
    Envelope {
        id: MessageId(uuid::Uuid::nil()),
        message_type: MessageType::parse(&format!("http://puppetlabs.com/{message_type}"))
            .expect("a message type"),
        sender: sender.parse::<Uri>().expect("a sender"),
        target: target.parse().expect("a target"),
        in_reply_to: None,
        hops: 0,
        flags: Flags::default(),
    }
}

#[test]
fn admits_agents_and_only_listed_controllers_and_brokers() {
    for (certname, client_type, expected) in [
        ("node", "agent", Ok(Kind::Agent)),
        ("orch", "agent", Ok(Kind::Agent)),
        ("orch", "orchestrator", Ok(Kind::Controller)),
        ("orch", "controller", Ok(Kind::Controller)),
        ("node", "orchestrator", Err(Refused::Controller)),
        ("node", "controller", Err(Refused::Controller)),
        ("compiler-1", "controller", Err(Refused::Controller)),
        ("compiler-1", "server", Ok(Kind::Broker)),
        ("compiler-2", "server", Err(Refused::Broker)),
        ("orch", "server", Err(Refused::Broker)),
        ("orch", "Orchestrator", Err(Refused::ClientType)),
        ("node", "agents", Err(Refused::ClientType)),
    ] {
        let certname = Certname::parse(certname).expect("a certname");
        let client_type = ClientType::parse(client_type).expect("a client type");
        let verdict = rules().hello(&certname, &client_type);
        assert_eq!(verdict, expected, "{certname} as {client_type}");
    }
}

#[test]
fn nobody_is_trusted_by_an_empty_configuration() {
    let rules = Rules::default();
    let certname = Certname::parse("node").expect("a certname");
    for (client_type, expected) in [
        ("agent", Ok(Kind::Agent)),
        ("orchestrator", Err(Refused::Controller)),
        ("server", Err(Refused::Broker)),
    ] {
        let client_type = ClientType::parse(client_type).expect("a client type");
        assert_eq!(rules.hello(&certname, &client_type), expected);
    }
}

#[test]
fn messages_pass_by_sender_type_target_and_origin() {
    const ORCHESTRATOR: &str = "pcp://orch/orchestrator";
    const ROGUE: &str = "pcp://rogue/orchestrator";
    const AGENT: &str = "pcp://node/agent";
    const OTHER: &str = "pcp://other/agent";
    const COMPILER: &str = "pcp://compiler-1/server";
    const BROKER: &str = "pcp:///server";
    use Origin::{Above, Below, Beside, Client};

    const EVERYWHERE: [Origin; 4] = [Client, Below, Above, Beside];
    let commands = [
        "rpc_blocking_request",
        "rpc_non_blocking_request",
        "rpc_outcome_acknowledgement",
    ];
    let answers = [
        "rpc_provisional_response",
        "rpc_blocking_response",
        "rpc_non_blocking_response",
        "rpc_error_message",
        "error_message",
    ];
    let questions = ["inventory_request"];
    let nonsense = ["associate_request", "inventory_response", "rpc_new_thing"];
    let everything = [&commands[..], &answers, &questions, &nonsense].concat();

    // Sender, target, the origins from which it may pass, and what may pass then.
    let table: &[(&str, &str, &[Origin], &[&str])] = &[
        // Not from below: a compiler that is taken over commands nobody but its own agents.
        (ORCHESTRATOR, AGENT, &[Client, Above, Beside], &commands),
        (ORCHESTRATOR, BROKER, &[Client], &questions),
        (ORCHESTRATOR, "pcp://orch/controller", &[], &[]),
        (ORCHESTRATOR, COMPILER, &[], &[]),
        (ROGUE, AGENT, &[Above], &commands),
        (ROGUE, BROKER, &[], &[]),
        (AGENT, ORCHESTRATOR, &EVERYWHERE, &answers),
        (AGENT, "pcp://orch/controller", &EVERYWHERE, &answers),
        (AGENT, OTHER, &[], &[]),
        (AGENT, AGENT, &[], &[]),
        (AGENT, BROKER, &[], &[]),
        (AGENT, COMPILER, &[], &[]),
        (COMPILER, AGENT, &[Below, Above, Beside], &["error_message"]),
        (
            COMPILER,
            ORCHESTRATOR,
            &[Below, Above, Beside],
            &["error_message"],
        ),
        (COMPILER, BROKER, &[], &[]),
        (COMPILER, COMPILER, &[], &[]),
        ("pcp://node/other", ORCHESTRATOR, &[], &[]),
        (ORCHESTRATOR, "pcp://node/other", &[], &[]),
    ];
    for (sender, target, origins, allowed) in table {
        for origin in EVERYWHERE {
            for message_type in &everything {
                let expected = if origins.contains(&origin) && allowed.contains(message_type) {
                    Verdict::Allowed
                } else {
                    Verdict::Denied
                };
                let verdict = rules().message(origin, &envelope(sender, message_type, target));
                assert_eq!(
                    verdict, expected,
                    "{message_type} from {sender} to {target} by way of {origin:?}"
                );
            }
        }
    }
}

#[test]
fn foreign_message_types_do_not_pass() {
    let mut envelope = envelope("pcp://orch/orchestrator", "x", "pcp://node/agent");
    envelope.message_type = MessageType::parse("rpc_blocking_request").expect("a message type");
    assert_eq!(rules().message(Origin::Client, &envelope), Verdict::Denied);
}
