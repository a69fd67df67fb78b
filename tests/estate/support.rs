//! A mesh in the stack: its certificates are of Puppet's CA, its tasks those of Puppet Server.

use std::process::Output;

use lab::{Builder, Lab};

use crate::stack::Stack;

/// The nodes on which agents run, `agent-1` on the first.
pub(crate) const NODES: [&str; 4] = ["web1.test", "web2.test", "db1.test", "idle1.test"];

/// A mesh to be completed and started: a primary, a compiler, an orchestrator that knows the stack's
/// Puppet Server and PuppetDB, and agents on the first `agents` of [`NODES`].
pub(crate) fn mesh(stack: &Stack, agents: usize) -> Builder {
    let names = ["agent-1", "agent-2", "agent-3", "agent-4"];
    let mut certnames = vec![
        ("primary", "broker1.test"),
        ("compiler-1", "compiler1.test"),
        ("orchestrator", "orchestrator.test"),
    ];
    certnames.extend(names.into_iter().zip(NODES).take(agents));
    let estate = format!(
        "orchestrator {{ master-url: {:?}, puppetdb-url: {:?} }}",
        stack.value("PUPPET_URL"),
        stack.value("PUPPETDB_URL")
    );
    Lab::builder()
        .certificates(stack.ssl_dir(), &certnames)
        .compilers(1)
        .agents(agents)
        .without_modules()
        .config("orchestrator", &estate)
}

/// Runs the stack's `puppet` as an operator of the lab: `puppet task …`.
pub(crate) fn puppet(stack: &Stack, lab: &Lab, arguments: &[&str]) -> Output {
    let mut command = lab.operator_command(stack.value("PUPPET"));
    command.args(arguments).output().expect("puppet starts")
}
