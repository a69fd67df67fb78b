//! `puppet-job`: runs Puppet on nodes and looks after jobs. `puppet job …` finds it on the PATH.

fn main() -> std::process::ExitCode {
    client_tools::main(client_tools::Tool::Job)
}
