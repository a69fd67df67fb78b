//! `puppet-access`: gets tokens. `puppet access …` finds it on the PATH.

fn main() -> std::process::ExitCode {
    client_tools::main(client_tools::Tool::Access)
}
