//! Nodes whose UDP is blocked: they work over TCP, with all that a task needs, and are back on QUIC when
//! it gets through.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::time::Duration;

use lab::{Lab, wait_until};

use crate::support::{modulepath, text};

/// Reconnecting takes seconds; a loaded machine takes longer.
const PATIENCE: Duration = Duration::from_secs(120);

/// Waits until the agent's log says that it is connected by this way, behind what it said before.
fn wait_way(lab: &Lab, agent: &str, way: &str, behind: usize) -> usize {
    let path = lab.site().logs_dir().join(format!("{agent}.log"));
    let what = format!("{agent} connected over {way}");
    let found = wait_until(&what, PATIENCE, || {
        let log = fs::read_to_string(&path).unwrap_or_default();
        let new = log.get(behind..).unwrap_or_default();
        let mut lines = new.lines().rev();
        let last = lines.find(|line| line.contains("connected"));
        let last = last.unwrap_or_default().to_owned();
        if last.contains(&format!("transport={way}")) {
            Ok(log.len())
        } else {
            Err(last)
        }
    });
    found.expect("the log says so")
}

fn run(lab: &Lab) {
    let nodes = "agent-1,agent-2";
    // The task's file travels by digest, and its output is large.
    for arguments in [
        ["run", "sample::host", "--nodes", nodes].as_slice(),
        ["run", "probe::big", "bytes=300000", "--nodes", nodes].as_slice(),
    ] {
        let output = lab.puppet_task(arguments);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    }
}

#[test]
fn nodes_work_over_tcp_where_udp_is_blocked_and_go_back_to_quic() {
    let mut builder = Lab::builder()
        .compilers(1)
        .agents(2)
        .config("compiler-1", "pcp-broker { transports: [websocket] }");
    for folder in modulepath() {
        builder = builder.modulepath(folder);
    }
    let lab = builder.start().expect("the mesh starts without UDP");
    let behind = wait_way(&lab, "agent-1", "WebSocket", 0);
    run(&lab);

    let compiler = lab.site().config("compiler-1");
    let mut file = OpenOptions::new().append(true).open(&compiler);
    let file = file.as_mut().expect("a configuration");
    writeln!(file, "pcp-broker {{ transports: [websocket, quic] }}").expect("written");
    lab.stop("compiler-1").expect("the compiler stops");
    lab.restart("compiler-1")
        .expect("the compiler starts again");
    wait_way(&lab, "agent-1", "QUIC", behind);
    lab.wait_connected(2).expect("both agents are connected");
    run(&lab);
}
