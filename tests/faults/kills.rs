//! The orchestrator is killed at one point of a job after the other: whatever it had written by then,
//! the next one makes of it what would have become of it.

use std::time::Duration;

use lab::{Lab, wait_until};

use crate::midway::{Midway, PATIENCE};
use crate::{AGENTS, mesh};

fn kill(lab: &Lab) {
    lab.kill("orchestrator")
        .expect("the orchestrator is killed");
}

fn restart(lab: &Lab) {
    lab.restart("orchestrator")
        .expect("the orchestrator starts again");
}

/// Waits until the job has an event of this type.
fn wait_for_event(midway: &Midway<'_>, kind: &str) {
    let path = format!("jobs/{}/events", midway.job);
    wait_until(kind, PATIENCE, || match midway.lab.api_get(&path) {
        Ok((200, answer)) => {
            let items = answer["items"].as_array().cloned().unwrap_or_default();
            if items.iter().any(|event| event["type"] == kind) {
                return Ok(());
            }
            Err(format!("{} events", items.len()))
        }
        other => Err(format!("{other:?}")),
    })
    .expect("an event");
}

/// Brings a job to one of its points.
type Point = fn(&Midway<'_>);

/// From the moment when a job is accepted to the time after its end.
const POINTS: [(&str, Point); 6] = [
    ("accepted", |_| {}),
    ("first begun", |midway| midway.wait_begun(1)),
    ("all begun", |midway| midway.wait_begun(AGENTS)),
    ("killed again as soon as it is back", |midway| {
        midway.wait_begun(1);
        kill(midway.lab);
        restart(midway.lab);
    }),
    ("first result", |midway| {
        midway.open_gate();
        wait_for_event(midway, "node_finished");
    }),
    ("ended", |midway| {
        midway.open_gate();
        wait_for_event(midway, "job_finished");
    }),
];

#[test]
fn the_orchestrator_killed_at_any_point_of_a_job_records_each_result_once() {
    let lab = mesh("");
    for (round, (point, bring)) in POINTS.iter().enumerate() {
        let midway = Midway::submit(&lab, &format!("-{round}"));
        bring(&midway);
        kill(midway.lab);
        midway.open_gate();
        restart(midway.lab);
        eprintln!("killed: {point}");
        midway.ends_with_every_result_exactly_once();
    }
    lab.wait_connected(AGENTS).expect("all agents are there");
    // A job after all that is like any other.
    let midway = Midway::submit(&lab, "-last");
    midway.open_gate();
    midway.ends_with_every_result_exactly_once();
    assert_eq!(lab.deaths(), [], "nothing died by itself");
}

#[test]
fn many_kills_in_quick_succession_lose_nothing() {
    let lab = mesh("");
    let midway = Midway::submit(&lab, "");
    for _ in 0..5 {
        restart_after_kill(&lab);
    }
    midway.open_gate();
    midway.ends_with_every_result_exactly_once();
}

fn restart_after_kill(lab: &Lab) {
    kill(lab);
    restart(lab);
    // It is up when it answers; what it does after that is cut off by the next kill.
    wait_until("the API answers", Duration::from_secs(60), || {
        lab.api_get("jobs?limit=1")
            .map(drop)
            .map_err(|e| e.to_string())
    })
    .expect("an answer");
}
