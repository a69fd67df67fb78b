//! `puppet-task show`: the tasks there are, or one of them.

use orchestrator_api::TaskItem;

use crate::access;
use crate::arguments::Format;
use crate::arguments::task::ShowArguments;
use crate::config::{Config, Surroundings};
use crate::error::Failure;
use crate::exit::Exit;
use crate::render;
use crate::screen::{self, Screen};

/// Carries the command out.
///
/// # Errors
/// When the orchestrator cannot be asked, or refuses.
pub(crate) async fn show(arguments: &ShowArguments) -> Result<Exit, Failure> {
    let config = Config::resolve(&arguments.common, &Surroundings::of_process())?;
    let client = access::client(&config).await?;
    let screen = Screen::new(config.color, arguments.common.format == Format::Json);
    let environment = config.environment.as_deref();
    match &arguments.task {
        Some(name) => {
            let detail = client.task(name, environment).await?;
            screen.lines(&render::task(&detail));
            if arguments.common.format == Format::Json {
                screen::put(&serde_json::to_value(&detail).unwrap_or_default());
            }
        }
        None => {
            let mut list = client.tasks(environment).await?;
            list.items.retain(|item| arguments.all || is_offered(item));
            list.items.sort_by(|a, b| a.name.cmp(&b.name));
            if list.items.is_empty() {
                screen.remark(&format!("There are no tasks in {}.", list.environment.name));
            } else {
                screen.lines(&render::task_list(&list.items, screen::width()));
            }
            if arguments.common.format == Format::Json {
                screen::put(&serde_json::to_value(&list).unwrap_or_default());
            }
        }
    }
    Ok(Exit::Success)
}

/// Whether a task is in the list without `--all`.
fn is_offered(item: &TaskItem) -> bool {
    item.permitted && !item.private
}
