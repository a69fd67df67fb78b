//! Hosts that do not see each other for a while, wholly or in one direction.

use lab::network::Path;
use lab::wait_until;

use crate::midway::{Midway, PATIENCE};
use crate::support::{
    COMPILERS, PRIMARIES, agent_uri, connection, known, mesh, network, wait_finished, wait_known,
    wait_one_truth,
};

/// Waits until a primary has missed a compiler, and with it the agents behind it.
fn wait_missed(lab: &lab::Lab, primary: &str, agent: &str) {
    let uri = agent_uri(agent);
    let what = format!("{primary} misses {agent}");
    wait_known(lab, primary, &what, |known| !known.contains_key(&uri));
}

#[test]
fn results_behind_a_compiler_that_is_cut_off_arrive_after_the_heal_exactly_once() {
    let Some(lab) = mesh() else { return };
    let midway = Midway::start(&lab);
    let before = wait_one_truth(&lab);
    for primary in PRIMARIES {
        let between = network(&lab).between("compiler-1", primary, Path::cut());
        between.expect("the switch answers");
    }
    midway.open_gate();
    wait_finished(&midway, &["agent-2", "agent-4"]);
    for primary in PRIMARIES {
        wait_missed(&lab, primary, "agent-1");
    }
    // Its agents have no reason to leave it.
    let there = known(&lab, "compiler-1").expect("it answers");
    assert!(there.contains_key(&agent_uri("agent-1")), "{there:?}");
    for primary in PRIMARIES {
        let between = network(&lab).between("compiler-1", primary, Path::good());
        between.expect("the switch answers");
    }
    midway.ends_with_every_result_exactly_once();
    assert_eq!(wait_one_truth(&lab), before, "nobody moved");
}

#[test]
fn both_halves_of_a_torn_mesh_work_on_and_agree_after_the_heal() {
    let Some(lab) = mesh() else { return };
    let halves = [
        ["primary", "compiler-1", "agent-1", "agent-3"],
        ["primary-2", "compiler-2", "agent-2", "agent-4"],
    ];
    let tear = |path: Path| {
        for one in halves[0].iter().chain(&["orchestrator"]) {
            for other in halves[1] {
                let between = network(&lab).between(one, other, path);
                between.expect("the switch answers");
            }
        }
    };
    let midway = Midway::start(&lab);
    tear(Path::cut());
    midway.open_gate();
    // The half with the orchestrator.
    wait_finished(&midway, &["agent-1", "agent-3"]);
    wait_missed(&lab, "primary", "agent-2");
    wait_missed(&lab, "primary-2", "agent-1");
    // In the other, an agent comes anew, and its primary learns of that.
    lab.kill("agent-4").expect("the agent is killed");
    let session = || connection(&lab, "compiler-2", &agent_uri("agent-4"));
    let before = session();
    lab.restart("agent-4").expect("the agent starts again");
    wait_until("the newer session is there", PATIENCE, || {
        let now = session()?;
        match before
            .as_ref()
            .is_ok_and(|old| old["since"] == now["since"])
        {
            true => Err(format!("{now}")),
            false => Ok(()),
        }
    })
    .expect("it is");
    wait_known(&lab, "primary-2", "primary-2 has its half", |known| {
        let agents = known.keys().filter(|uri| uri.ends_with("/agent"));
        agents.eq(&[agent_uri("agent-2"), agent_uri("agent-4")])
    });

    tear(Path::good());
    midway.ends_with_every_result_exactly_once();
    wait_one_truth(&lab);
    // Each primary has the other's link again, and one of each compiler.
    for primary in PRIMARIES {
        for compiler in COMPILERS {
            let uri = format!("pcp://{compiler}/server");
            connection(&lab, primary, &uri).expect("the link");
        }
    }
}

#[test]
fn a_link_that_carries_one_way_only_is_given_up_for_the_other_primary() {
    let Some(lab) = mesh() else { return };
    let midway = Midway::start(&lab);
    let one_way = |path| {
        let set = network(&lab).one_way("compiler-1", "primary", path);
        set.expect("the switch answers");
    };
    one_way(Path::cut());
    // The primary reaches these agents over the other one now.
    wait_known(&lab, "primary", "compiler-1 is reached sideways", |known| {
        known.get(&agent_uri("agent-1")).map(String::as_str) == Some("primary-2")
    });
    midway.open_gate();
    midway.ends_with_every_result_exactly_once();
    one_way(Path::good());
    wait_one_truth(&lab);
}

#[test]
fn an_agent_that_moved_during_a_cut_has_one_session_everywhere_after_it() {
    let Some(lab) = mesh() else { return };
    let midway = Midway::start(&lab);
    let agent = agent_uri("agent-1");
    for primary in PRIMARIES {
        let between = network(&lab).between("compiler-1", primary, Path::cut());
        between.expect("the switch answers");
    }
    // Its compiler does not hear that it dies, and does not see it come again.
    lab.kill("agent-1").expect("the agent is killed");
    let away = |path| {
        let set = network(&lab).between("compiler-1", "agent-1", path);
        set.expect("the switch answers");
    };
    away(Path::cut());
    lab.restart("agent-1").expect("the agent starts again");
    wait_known(&lab, "compiler-2", "agent-1 has moved", |known| {
        known.contains_key(&agent)
    });
    let old = known(&lab, "compiler-1").expect("it answers");
    assert!(
        old.contains_key(&agent),
        "the older session is there still, or this shows nothing: {old:?}"
    );
    midway.open_gate();
    // It is the newer one that counts, while nobody has told the other.
    wait_finished(&midway, &["agent-1", "agent-2", "agent-4"]);
    for primary in PRIMARIES {
        let between = network(&lab).between("compiler-1", primary, Path::good());
        between.expect("the switch answers");
    }
    let truth = wait_one_truth(&lab);
    assert_eq!(truth[&agent], "compiler-2");
    away(Path::good());
    midway.ends_with_every_result_exactly_once();
    let round = Midway::submit(&lab, "-after");
    round.open_gate();
    round.ends_with_every_result_exactly_once();
    wait_one_truth(&lab);
}
