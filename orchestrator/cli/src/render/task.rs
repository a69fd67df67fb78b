//! Tasks in words: the list, and one with what it takes.

use orchestrator_api::{TaskDetail, TaskItem};
use serde_json::{Map, Value};

use crate::printable::{cut, lines, printable};

/// How wide the column of names grows; longer names push their description to the right.
const NAME_WIDTH: usize = 36;

/// A description keeps so many columns on the narrowest terminal.
const DESCRIPTION_WIDTH: usize = 20;

/// A line a task: name and description, within the width of the terminal if it is one.
pub(crate) fn task_list(items: &[TaskItem], terminal: Option<usize>) -> String {
    let names: Vec<String> = items.iter().map(|item| printable(&item.name)).collect();
    let width = names
        .iter()
        .map(|name| name.chars().count())
        .max()
        .unwrap_or_default();
    let width = width.min(NAME_WIDTH);
    let mut text = String::new();
    for (item, name) in items.iter().zip(&names) {
        let description = printable(item.description.lines().next().unwrap_or_default());
        let notes: Vec<&str> = [
            (item.private, "private"),
            (!item.permitted, "not permitted"),
        ]
        .into_iter()
        .filter_map(|(applies, note)| applies.then_some(note))
        .collect();
        let notes = match notes.as_slice() {
            [] => String::new(),
            notes => format!("  [{}]", notes.join(", ")),
        };
        let room = terminal.map_or(usize::MAX, |columns| {
            let others = name.chars().count().max(width) + 2 + notes.len();
            columns.saturating_sub(others).max(DESCRIPTION_WIDTH)
        });
        let line = format!("{name:width$}  {}", cut(&description, room));
        text.push_str(line.trim_end());
        text.push_str(&notes);
        text.push('\n');
    }
    text
}

/// What a task does, how it is run, and its parameters.
pub(crate) fn task(detail: &TaskDetail) -> String {
    let name = printable(&detail.name);
    let metadata = &detail.metadata;
    let mut text = match metadata.get("description").and_then(Value::as_str) {
        Some(description) => format!("{name} - {}\n", printable(description)),
        None => format!("{name}\n"),
    };
    let parameters = metadata.get("parameters").and_then(Value::as_object);
    text.push_str("\nUSAGE:\n$ puppet task run ");
    text.push_str(&name);
    for (parameter, entry) in parameters.into_iter().flatten() {
        let usage = format!("{}=<value>", printable(parameter));
        if is_optional(entry) {
            text.push_str(&format!(" [{usage}]"));
        } else {
            text.push_str(&format!(" {usage}"));
        }
    }
    text.push_str(" <[--nodes, -n <node-names>] | [--query, -q <'query'>]>");
    if metadata.get("supports_noop").and_then(Value::as_bool) == Some(true) {
        text.push_str(" [--noop]");
    }
    text.push('\n');
    match parameters {
        None => text.push_str("\nThe task does not declare its parameters: any are accepted.\n"),
        Some(parameters) if parameters.is_empty() => {}
        Some(parameters) => {
            text.push_str("\nPARAMETERS:\n");
            parameters
                .iter()
                .for_each(|(name, entry)| text.push_str(&parameter(name, entry)));
        }
    }
    text
}

fn parameter(name: &str, entry: &Value) -> String {
    let mut text = format!("- {} : {}", printable(name), printable(type_of(entry)));
    let sensitive = is_sensitive(entry);
    if sensitive {
        text.push_str(" (sensitive)");
    }
    match entry.get("default") {
        Some(Value::Null) | None => {}
        Some(_) if sensitive => text.push_str(" (has a default)"),
        Some(default) => text.push_str(&format!(" (default: {})", printable(&default.to_string()))),
    }
    text.push('\n');
    for line in entry
        .get("description")
        .and_then(Value::as_str)
        .into_iter()
        .flat_map(lines)
    {
        text.push_str(&format!("    {line}\n"));
    }
    text
}

fn type_of(entry: &Value) -> &str {
    entry.get("type").and_then(Value::as_str).unwrap_or("Any")
}

/// Whether the value may be left out. The orchestrator knows for sure; this is what the text says.
fn is_optional(entry: &Value) -> bool {
    let has_default = entry
        .as_object()
        .is_some_and(|entry: &Map<_, _>| entry.contains_key("default"));
    let type_text = type_of(entry).trim_start();
    has_default
        || type_text.starts_with("Optional[")
        || matches!(type_text, "Any" | "Data" | "Optional")
}

fn is_sensitive(entry: &Value) -> bool {
    !matches!(
        entry.get("sensitive"),
        None | Some(Value::Null | Value::Bool(false))
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn detail(metadata: &Value) -> TaskDetail {
        serde_json::from_value(json!({"id": "u", "name": "sample::ports", "permitted": true,
            "environment": {"name": "production", "code_id": null}, "files": [], "metadata": metadata}))
        .unwrap()
    }

    #[test]
    fn a_task_shows_its_usage_and_its_parameters() {
        let metadata = json!({"description": "Tries ports", "supports_noop": true, "parameters": {
            "ports": {"type": "Array[Integer]", "description": "Which\nto try"},
            "host": {"type": "String", "default": "localhost"},
            "password": {"type": "Optional[String]", "sensitive": true, "default": "hunter2"}}});
        assert_eq!(
            task(&detail(&metadata)),
            "sample::ports - Tries ports\n\nUSAGE:\n$ puppet task run sample::ports [host=<value>] \
             [password=<value>] ports=<value> <[--nodes, -n <node-names>] | [--query, -q <'query'>]> \
             [--noop]\n\nPARAMETERS:\n- host : String (default: \"localhost\")\n\
             - password : Optional[String] (sensitive) (has a default)\n- ports : Array[Integer]\n    \
             Which\n    to try\n"
        );
    }

    #[test]
    fn a_task_without_metadata_takes_anything() {
        let text = task(&detail(&json!({})));
        assert!(text.starts_with("sample::ports\n") && text.contains("any are accepted"));
        assert!(!task(&detail(&json!({"parameters": {}}))).contains("PARAMETERS"));
    }

    #[test]
    fn the_list_has_a_line_a_task() {
        let item = |name: &str, description: &str, private: bool| TaskItem {
            id: String::new(),
            name: name.to_owned(),
            permitted: !private,
            description: description.to_owned(),
            private,
        };
        let items = [
            item("a", "First\nmore", false),
            item("long::name", "", false),
            item("b", "\u{1b}x", true),
        ];
        assert_eq!(
            task_list(&items, None),
            "a           First\nlong::name\nb           \\x1bx  [private, not permitted]\n"
        );
        let long = [item("a", &"long ".repeat(30), false), items[2].clone()];
        let list = task_list(&long, Some(60));
        assert!(
            list.lines().all(|line| line.chars().count() <= 60),
            "{list}"
        );
        assert!(
            list.starts_with("a  long long") && list.contains("..."),
            "{list}"
        );
    }
}
