//! `command run`: a line for the login shell of the agent's user, as in the original.

use pxp::{CommandRun, Wishes};
use sandbox::Delivery;

use super::MAX_TEXT;
use super::launch::{Launch, Place};

/// A command that can be run.
#[derive(Debug)]
pub struct Command(CommandRun);

/// Why a command cannot be run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// No program can be given such an argument.
    #[error("the command has a NUL character")]
    Nul,
    /// The system takes no argument of this size.
    #[error(
        "the command has {0} bytes, and the system takes less than {MAX_TEXT}: run it as a script"
    )]
    TooLong(usize),
}

impl Command {
    /// Checks a command.
    ///
    /// # Errors
    /// [`CommandError`] when no shell can be given it.
    pub fn new(run: CommandRun) -> Result<Self, CommandError> {
        match run.command.len() {
            _ if run.command.contains('\0') => Err(CommandError::Nul),
            length if length >= MAX_TEXT => Err(CommandError::TooLong(length)),
            _ => Ok(Self(run)),
        }
    }

    /// What is asked beyond the command.
    #[must_use]
    pub fn wishes(&self) -> Wishes {
        self.0.pxp_mesh.clone().unwrap_or_default()
    }

    /// How it is started.
    #[must_use]
    pub fn launch(&self, place: &Place<'_>) -> Launch {
        Launch {
            program: place.shell.to_path_buf(),
            arguments: vec!["-c".to_owned()],
            delivery: Delivery {
                arguments: vec![self.0.command.clone().into()],
                ..Delivery::default()
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::modules::launch::{Kind, Node};

    fn command(text: &str) -> Result<Command, CommandError> {
        Command::new(CommandRun {
            command: text.to_owned(),
            pxp_mesh: None,
        })
    }

    #[test]
    fn a_command_that_no_shell_can_be_given_is_refused() {
        assert_eq!(command("a\0b").unwrap_err(), CommandError::Nul);
        let long = "x".repeat(MAX_TEXT);
        assert_eq!(command(&long).unwrap_err(), CommandError::TooLong(MAX_TEXT));
        assert!(command(&long[1..]).is_ok());
    }

    #[test]
    fn a_command_is_in_no_part_that_is_written_to_disk() {
        let [staging, shell] = ["/staging", "/bin/bash"].map(std::path::Path::new);
        let node = &Node::example();
        let place = Place {
            staging,
            shell,
            agent: std::path::Path::new("/agent"),
            kind: Kind::Blocking,
            missing: &std::collections::BTreeMap::new(),
            node,
        };
        let launch = command("echo hunter2").unwrap().launch(&place);
        assert_eq!(launch.program, shell);
        assert_eq!(launch.arguments, ["-c"]);
        assert_eq!(launch.delivery.arguments, ["echo hunter2"]);
    }
}
