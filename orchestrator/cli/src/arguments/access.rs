//! `puppet-access`.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use super::Format;

/// Gets a token from the orchestrator for a login and a password.
#[derive(Debug, Parser)]
#[command(
    name = "puppet-access",
    version,
    disable_version_flag = true,
    propagate_version = true,
    subcommand_required = true,
    arg_required_else_help = true,
    max_term_width = 100,
    after_long_help = "Configuration (JSON, keys service-url, token-file, certificate-file):\n  \
/etc/puppetlabs/client-tools/puppet-access.conf, then ~/.puppetlabs/client-tools/puppet-access.conf\n  \
(or --config-file), then the options given here. What they do not say is taken from the configuration \
of puppet-task.\n\nExit codes:\n  0  done\n  1  refused\n  2  wrong usage or configuration\n  3  no \
connection, no trust, or wrong credentials"
)]
pub(crate) struct AccessArguments {
    #[command(subcommand)]
    pub(crate) command: AccessCommand,
    /// Print the version
    #[arg(short = 'V', long, action = clap::ArgAction::Version, global = true, display_order = 1000)]
    version: Option<bool>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum AccessCommand {
    /// Get a token and save it; asks for the password
    #[command(after_help = LOGIN_EXAMPLES)]
    Login(LoginArguments),
    /// Print the saved token
    Show(ConnectionArguments),
    /// Print whom the saved token stands for, and what it permits
    Whoami(ConnectionArguments),
    /// Remove the saved token from this machine; it stays valid until it expires
    DeleteTokenFile(ConnectionArguments),
    /// Make the saved token useless everywhere, and remove it
    Revoke(ConnectionArguments),
}

const LOGIN_EXAMPLES: &str = "\
Examples:
  puppet-access login                       asks for login and password
  puppet-access login ada --lifetime 8h     a token for the working day
  puppet-access login ci --print < secret   for a script: the password comes by
                                            standard input";

/// `login`.
#[derive(Debug, Args)]
pub(crate) struct LoginArguments {
    /// Who; asked for when it is missing
    pub(crate) login: Option<String>,
    /// How long the token is valid: a number with y, d, h, m or s; 0 is the longest [default: the
    /// server's]
    #[arg(short, long, value_name = "LIFETIME", value_parser = lifetime)]
    pub(crate) lifetime: Option<String>,
    /// Print the token and do not save it
    #[arg(long)]
    pub(crate) print: bool,
    #[command(flatten)]
    pub(crate) connection: ConnectionArguments,
}

/// What all commands take.
#[derive(Debug, Default, Args)]
pub(crate) struct ConnectionArguments {
    /// The RBAC service, such as `https://puppet.example.com:8143/rbac-api`
    #[arg(long, value_name = "URL", help_heading = "Connection")]
    pub(crate) service_url: Option<String>,
    /// The CA certificates to trust, as a PEM file
    #[arg(long, value_name = "FILE", help_heading = "Connection")]
    pub(crate) ca_cert: Option<PathBuf>,
    /// The file with the token
    #[arg(
        short,
        long,
        visible_alias = "token-path",
        value_name = "FILE",
        help_heading = "Connection"
    )]
    pub(crate) token_file: Option<PathBuf>,
    /// A configuration file in the place of your own
    #[arg(short, long, value_name = "FILE", help_heading = "Connection")]
    pub(crate) config_file: Option<PathBuf>,
    /// How to show the outcome
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t)]
    pub(crate) format: Format,
    /// Tell on standard error what is asked; never shows secrets
    #[arg(short, long)]
    pub(crate) debug: bool,
}

impl AccessCommand {
    /// How the outcome is to be shown.
    pub(crate) fn format(&self) -> Format {
        match self {
            Self::Login(arguments) => arguments.connection.format,
            Self::Show(connection)
            | Self::Whoami(connection)
            | Self::DeleteTokenFile(connection)
            | Self::Revoke(connection) => connection.format,
        }
    }
}

/// As the server will read it, so that a mistake is told before a password is asked for.
fn lifetime(text: &str) -> Result<String, String> {
    match orchestrator_api::rbac::lifetime(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_definition_is_sound() {
        AccessArguments::command().debug_assert();
    }

    #[test]
    fn the_originals_options_are_taken() {
        let line = "puppet-access login ada -l 4h --print -t /t -c /c --ca-cert /ca --debug";
        let parsed = AccessArguments::try_parse_from(line.split(' ')).unwrap();
        let AccessCommand::Login(login) = parsed.command else {
            panic!()
        };
        assert_eq!(login.lifetime.as_deref(), Some("4h"));
        let line = "puppet-access delete-token-file --token-path /t";
        assert!(AccessArguments::try_parse_from(line.split(' ')).is_ok());
        let line = "puppet-access login -l soon";
        assert!(AccessArguments::try_parse_from(line.split(' ')).is_err());
    }
}
