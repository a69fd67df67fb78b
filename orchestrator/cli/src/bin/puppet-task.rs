//! `puppet-task`: runs tasks on nodes. `puppet task …` finds it on the PATH.

fn main() -> std::process::ExitCode {
    client_tools::main(client_tools::Tool::Task)
}
