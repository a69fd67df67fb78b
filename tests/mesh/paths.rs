//! Paths between hosts that lose, delay, and swallow: sessions live through it, and work goes on.

use std::net::Ipv4Addr;
use std::time::Duration;

use lab::network::Path;
use lab::{Lab, wait_until};

use crate::midway::{Midway, PATIENCE};
use crate::support::{
    COMPILERS, PRIMARIES, agent_uri, connection, mesh, network, run_on_all, wait_one_truth,
};

/// Waits until an agent is connected to its compiler by this way.
fn wait_way(lab: &Lab, agent: &str, compiler: &str, way: &str) {
    let what = format!("{agent} is at {compiler} over {way}");
    wait_until(&what, PATIENCE, || {
        let connection = connection(lab, compiler, &agent_uri(agent))?;
        match connection["transport"] == way {
            true => Ok(()),
            false => Err(connection.to_string()),
        }
    })
    .expect("it is");
}

#[test]
fn jobs_succeed_over_paths_that_lose_delay_and_reorder() {
    let Some(lab) = mesh() else { return };
    let bad = Path::good()
        .losing(10)
        .taking(Duration::from_millis(20), Duration::from_millis(40));
    for broker in PRIMARIES.iter().chain(&COMPILERS) {
        let around = network(&lab).around(broker, bad);
        around.expect("the switch answers");
    }
    // Files of a task, its large output, and what runs long.
    run_on_all(&lab, &["probe::files"]);
    run_on_all(&lab, &["probe::big", "bytes=40000"]);
    let midway = Midway::start(&lab);
    midway.open_gate();
    midway.ends_with_every_result_exactly_once();
    wait_one_truth(&lab);
    for (from, to) in [("compiler-1", "primary"), ("agent-1", "compiler-1")] {
        let counts = network(&lab).counts(from, to).expect("the switch answers");
        assert!(counts.dropped > 0, "{from} to {to}: {counts:?}");
    }
}

#[test]
fn an_agent_whose_udp_is_blocked_under_a_task_goes_over_tcp_and_back_to_quic() {
    let Some(lab) = mesh() else { return };
    wait_way(&lab, "agent-1", "compiler-1", "quic");
    let midway = Midway::start(&lab);
    let around = |path| {
        let around = network(&lab).around("agent-1", path);
        around.expect("the switch answers");
    };
    around(Path::without_udp());
    let compiler = wait_until("it is connected over TCP", PATIENCE, || {
        let mut states = Vec::new();
        for compiler in COMPILERS {
            match connection(&lab, compiler, &agent_uri("agent-1")) {
                Ok(row) if row["transport"] == "websocket" => return Ok(compiler),
                other => states.push(format!("{other:?}")),
            }
        }
        Err(states.join("; "))
    })
    .expect("it is");
    midway.open_gate();
    midway.ends_with_every_result_exactly_once();
    wait_one_truth(&lab);
    around(Path::good());
    wait_way(&lab, "agent-1", compiler, "quic");
    run_on_all(&lab, &["probe::files"]);
    wait_one_truth(&lab);
}

#[test]
fn a_path_that_swallows_large_packets_stops_neither_living_sessions_nor_new_ones() {
    let Some(lab) = mesh() else { return };
    // Much in both directions makes links find out how large a packet may be.
    run_on_all(&lab, &["probe::big", "bytes=200000"]);
    // But for the operator's, who is served over TCP, whose kernel may not look for such a hole.
    let hosts = lab.names();
    for (index, one) in hosts.iter().enumerate() {
        for other in &hosts[index + 1..] {
            let between = network(&lab).between(one, other, Path::swallowing_above(1280));
            between.expect("the switch answers");
        }
    }
    run_on_all(&lab, &["probe::big", "bytes=300000"]);
    for name in ["compiler-1", "agent-1"] {
        lab.stop(name).expect("it stops");
        lab.restart(name).expect("it starts again");
    }
    wait_one_truth(&lab);
    run_on_all(&lab, &["probe::files"]);
    run_on_all(&lab, &["probe::big", "bytes=300000"]);
    let counts = network(&lab).counts("compiler-1", "primary");
    let counts = counts.expect("the switch answers");
    assert!(counts.dropped > 0, "nothing large was tried: {counts:?}");
}

#[test]
fn hosts_with_the_smallest_packets_of_ipv6_work_like_others() {
    let Some(lab) = mesh() else { return };
    for host in ["compiler-1", "agent-1"] {
        let set = network(&lab).set_mtu(host, 1280);
        set.expect("a device");
        lab.stop(host).expect("it stops");
        lab.restart(host).expect("it starts again");
    }
    wait_one_truth(&lab);
    run_on_all(&lab, &["probe::files"]);
    run_on_all(&lab, &["probe::big", "bytes=300000"]);
}

#[test]
fn an_agent_keeps_its_session_when_its_address_changes_under_a_task() {
    let Some(lab) = mesh() else { return };
    let midway = Midway::start(&lab);
    let session = || connection(&lab, "compiler-1", &agent_uri("agent-1"));
    let before = session().expect("it is there");
    let elsewhere = Ipv4Addr::new(10, 77, 0, 200);
    let readdressed = network(&lab).readdress("agent-1", elsewhere);
    readdressed.expect("a new address");
    midway.open_gate();
    midway.ends_with_every_result_exactly_once();
    let after = session().expect("it is there");
    let address = after["address"].as_str().unwrap_or_default();
    assert!(address.starts_with("10.77.0.200:"), "{after}");
    assert_eq!(after["since"], before["since"], "the session went on");
    wait_one_truth(&lab);
}
