//! Completions for shells and manual pages, made from the definition of the command line: for
//! packages, by `puppet-task generate DIR` and so on. No subcommand of clap's, since completions would
//! offer it.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::Command;
use clap_complete::{Shell, generate};

use crate::error::Failure;
use crate::exit::Exit;

/// Where each shell looks for what completes a command, below a directory like `/usr/share`, and
/// what stands before and after the command's name there.
const SHELLS: [(Shell, &str, &str, &str); 3] = [
    (Shell::Bash, "bash-completion/completions", "", ""),
    (Shell::Zsh, "zsh/vendor-completions", "_", ""),
    (Shell::Fish, "fish/vendor_completions.d", "", ".fish"),
];

/// Where to, if the arguments of the process ask for it.
pub(crate) fn wanted(arguments: impl Iterator<Item = OsString>) -> Option<PathBuf> {
    let mut arguments = arguments.skip(1);
    let is_wanted = arguments.next()? == "generate";
    arguments.next().filter(|_| is_wanted).map(PathBuf::from)
}

/// Writes everything below `dir`, as it lies below `/usr/share`.
///
/// # Errors
/// When a file cannot be written.
pub(crate) fn write(command: Command, dir: &Path) -> Result<Exit, Failure> {
    // Its pages would repeat those of the others.
    let mut command = command.disable_help_subcommand(true);
    let name = command.get_name().to_owned();
    let failed = |source| Failure::Generate {
        dir: dir.to_owned(),
        source,
    };
    for (shell, folder, before, after) in SHELLS {
        let mut text = Vec::new();
        generate(shell, &mut command, &name, &mut text);
        put(&dir.join(folder), &format!("{before}{name}{after}"), &text).map_err(failed)?;
    }
    let pages = dir.join("man/man1");
    fs::create_dir_all(&pages)
        .and_then(|()| clap_mangen::generate_to(command, &pages))
        .map_err(failed)?;
    Ok(Exit::Success)
}

fn put(folder: &Path, name: &str, text: &[u8]) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    fs::write(folder.join(name), text)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::arguments::access::AccessArguments;
    use crate::arguments::job::JobArguments;
    use crate::arguments::task::TaskArguments;

    #[test]
    fn each_command_has_its_page_and_each_shell_its_completions() {
        let dir = tempfile::tempdir().unwrap();
        write(JobArguments::command(), dir.path()).unwrap();
        let read = |path: &str| fs::read_to_string(dir.path().join(path)).expect(path);
        for completions in [
            "bash-completion/completions/puppet-job",
            "zsh/vendor-completions/_puppet-job",
            "fish/vendor_completions.d/puppet-job.fish",
        ] {
            let text = read(completions);
            assert!(text.contains("concurrency"), "{completions}");
        }
        let page = read("man/man1/puppet-job-run.1");
        assert!(page.contains("Examples:"), "{page}");
        assert!(read("man/man1/puppet-job.1").contains("puppet\\-job\\-run(1)"));
    }

    #[test]
    fn examples_fit_a_terminal_of_80_columns() {
        let tools = [
            TaskArguments::command(),
            JobArguments::command(),
            AccessArguments::command(),
        ];
        let commands = tools.iter().flat_map(Command::get_subcommands);
        let examples = commands.filter_map(Command::get_after_help);
        let examples: Vec<_> = examples.map(ToString::to_string).collect();
        assert!(examples.len() >= 9, "{examples:?}");
        for line in examples.iter().flat_map(|text| text.lines()) {
            assert!(line.chars().count() < 80, "{line}");
        }
    }

    #[test]
    fn it_is_asked_for_by_a_word_and_a_directory() {
        let of = |line: &str| wanted(line.split(' ').map(OsString::from));
        assert_eq!(of("puppet-job generate /usr"), Some("/usr".into()));
        for line in [
            "puppet-job",
            "puppet-job generate",
            "puppet-job run generate",
        ] {
            assert_eq!(of(line), None, "{line}");
        }
    }
}
