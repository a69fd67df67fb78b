//! `check-config`: what the configuration means, and whether certificates and policy can be used.

use pxp_agent::config::Config;
use pxp_agent::exit::ExitCode;
use pxp_agent::policy::{Policy, PolicyError};

/// Prints the effective configuration, and what is wrong beyond it.
#[expect(clippy::print_stderr, reason = "what the command is for")]
pub(crate) fn run(config: &Config) -> ExitCode {
    super::print(&config.to_string());
    let mut code = ExitCode::Ok;
    if let Err(error) = identity::Identity::load(&config.tls) {
        eprintln!("pxp-agent: {}", daemon::error_chain(&error));
        code = ExitCode::Config;
    }
    match Policy::load(&config.policy_dir) {
        Ok(policy) => {
            if config.controllers.is_empty() && policy.controllers().is_empty() {
                eprintln!(
                    "pxp-agent: warning: no controllers are named, so every request will be refused"
                );
            }
        }
        Err(PolicyError(faults)) => {
            for fault in faults {
                eprintln!("{fault}");
            }
            code = ExitCode::Config;
        }
    }
    code
}
