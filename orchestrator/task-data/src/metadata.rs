//! What a task says of itself: the JSON file beside it, typed, with the original kept.
//!
//! Only what would make the task unusable is an error, and these are the errors of Puppet Server.
//! Anything else that is odd is read in the safer way and reported as a warning.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::TaskError;
use crate::name::TaskName;
use crate::puppet_type::{PuppetType, TypeError};

/// The metadata of a task. Without a metadata file everything is at its default.
#[derive(Debug, Clone, Default)]
pub struct Metadata {
    /// One line on what the task does.
    pub description: Option<String>,
    /// Whether the task may be run in noop mode.
    pub supports_noop: bool,
    /// Whether the task is left out of lists for people.
    pub private: bool,
    /// Whether the task runs on a proxy, with `_target` in its input.
    pub remote: bool,
    /// How the task gets its parameters; `None`: as its file type and the agent have it.
    pub input_method: Option<InputMethod>,
    /// The parameters by name. `None`: anything is accepted. Empty: nothing is.
    pub parameters: Option<BTreeMap<String, Parameter>>,
    /// The executables to choose from, in order. `None`: the one file named like the task.
    pub implementations: Option<Vec<Implementation>>,
    /// Support files as `module/mount/path`; a directory ends in `/`.
    pub files: Vec<String>,
    /// What is odd in the file but does not stop the task. For whoever maintains the module.
    pub warnings: Vec<String>,
    raw: Map<String, Value>,
}

/// One parameter of a task.
#[derive(Debug, Clone)]
pub struct Parameter {
    /// The type as it is written, `Any` when nothing is.
    pub type_text: String,
    /// The type, or why it cannot be understood.
    pub puppet_type: Result<PuppetType, TypeError>,
    /// What the parameter is for.
    pub description: Option<String>,
    /// Whether the value must not be shown or logged.
    pub sensitive: bool,
    /// What the runner fills in when no value is given. A default of `null` makes the parameter
    /// optional without a value.
    pub default: Option<Value>,
}

/// One executable of a task and what it needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Implementation {
    /// The file in the module's `tasks` directory.
    pub name: String,
    /// The features that a node must have for this one.
    pub requirements: Vec<String>,
    /// How this one gets its parameters.
    pub input_method: Option<InputMethod>,
    /// Support files of this one alone.
    pub files: Vec<String>,
    /// Whether this one runs on a proxy.
    pub remote: bool,
}

/// How a task gets its parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InputMethod {
    /// One JSON object on standard input.
    Stdin,
    /// `PT_<name>` variables.
    Environment,
    /// Both of them.
    Both,
    /// Named arguments of a PowerShell script.
    Powershell,
}

/// Whether a parameter must be given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Requirement {
    /// A value must be given.
    Required,
    /// The parameter may be left out.
    Optional,
}

impl Parameter {
    /// Whether the parameter must be given: neither has it a default nor does its type accept absence.
    #[must_use]
    pub fn requirement(&self) -> Requirement {
        let optional = self.default.is_some()
            || self
                .puppet_type
                .as_ref()
                .is_ok_and(PuppetType::accepts_absence);
        if optional {
            Requirement::Optional
        } else {
            Requirement::Required
        }
    }
}

impl Metadata {
    /// The object of the metadata file, as it was read.
    #[must_use]
    pub fn raw(&self) -> &Map<String, Value> {
        &self.raw
    }

    /// Reads the metadata of `name` from the content of its file. Unknown keys are ignored.
    ///
    /// # Errors
    /// [`TaskError::InvalidMetadata`] for what Puppet Server refuses too.
    pub fn read(name: &TaskName, value: Value) -> Result<Self, TaskError> {
        let Value::Object(raw) = value else {
            return Err(TaskError::metadata(format!(
                "Task metadata for task {name} is not a JSON object"
            )));
        };
        let mut reader = Reader {
            warnings: Vec::new(),
        };
        let mut metadata = Self {
            description: reader.text(&raw, "description"),
            supports_noop: reader.flag(&raw, "supports_noop"),
            private: reader.flag(&raw, "private"),
            remote: reader.flag(&raw, "remote"),
            input_method: reader.input_method(&raw, "input_method"),
            parameters: reader.parameters(name, &raw)?,
            implementations: reader.implementations(name, &raw)?,
            files: file_list(&raw)?,
            ..Self::default()
        };
        metadata.warnings = reader.warnings;
        metadata.raw = raw;
        Ok(metadata)
    }
}

/// Reads single keys and collects what is odd about them.
struct Reader {
    warnings: Vec<String>,
}

impl Reader {
    fn warn(&mut self, text: String) {
        self.warnings.push(text);
    }

    fn text(&mut self, object: &Map<String, Value>, key: &str) -> Option<String> {
        match object.get(key)? {
            Value::String(text) => Some(text.clone()),
            Value::Null => None,
            other => {
                self.warn(format!(
                    "'{key}' should be a string, got {}",
                    kind_of(other)
                ));
                None
            }
        }
    }

    fn flag(&mut self, object: &Map<String, Value>, key: &str) -> bool {
        match object.get(key) {
            None | Some(Value::Null) => false,
            Some(Value::Bool(flag)) => *flag,
            Some(other) => {
                self.warn(format!(
                    "'{key}' should be true or false, got {}",
                    kind_of(other)
                ));
                false
            }
        }
    }

    fn input_method(&mut self, object: &Map<String, Value>, key: &str) -> Option<InputMethod> {
        let value = object.get(key).filter(|value| !value.is_null())?;
        let method = InputMethod::deserialize(value).ok();
        if method.is_none() {
            self.warn(format!(
                "'{key}' should be stdin, environment, both or powershell, got {value}"
            ));
        }
        method
    }

    fn parameters(
        &mut self,
        name: &TaskName,
        object: &Map<String, Value>,
    ) -> Result<Option<BTreeMap<String, Parameter>>, TaskError> {
        let parameters = match object.get("parameters") {
            None | Some(Value::Null) => return Ok(None),
            Some(Value::Object(parameters)) => parameters,
            Some(_) => {
                return Err(TaskError::metadata(format!(
                    "Task metadata for task {name} does not specify parameters as an object"
                )));
            }
        };
        let mut read = BTreeMap::new();
        for (key, value) in parameters {
            let Value::Object(parameter) = value else {
                return Err(TaskError::metadata(format!(
                    "Task metadata for task {name} does not specify parameter {key} as an object"
                )));
            };
            read.insert(key.clone(), self.parameter(key, parameter));
        }
        Ok(Some(read))
    }

    fn parameter(&mut self, key: &str, object: &Map<String, Value>) -> Parameter {
        let (type_text, puppet_type) = match object.get("type") {
            None | Some(Value::Null) => ("Any".to_owned(), Ok(PuppetType::any())),
            Some(Value::String(text)) => (text.clone(), text.parse()),
            Some(other) => (other.to_string(), Err(TypeError::not_text())),
        };
        match &puppet_type {
            Err(error) => self.warn(format!("parameter '{key}': type '{type_text}': {error}")),
            Ok(known) => {
                for alias in known.unknown_aliases() {
                    self.warn(format!(
                        "parameter '{key}': the type alias {alias} is not known here, so its values are not checked"
                    ));
                }
            }
        }
        let declared = match object.get("sensitive") {
            None | Some(Value::Null | Value::Bool(false)) => false,
            Some(Value::Bool(true)) => true,
            Some(other) => {
                self.warn(format!(
                    "parameter '{key}': 'sensitive' should be true or false, got {}; taken as true",
                    kind_of(other)
                ));
                true
            }
        };
        Parameter {
            description: self.text(object, "description"),
            sensitive: declared || puppet_type.as_ref().is_ok_and(PuppetType::is_sensitive),
            default: object.get("default").cloned(),
            type_text,
            puppet_type,
        }
    }

    fn implementations(
        &mut self,
        name: &TaskName,
        object: &Map<String, Value>,
    ) -> Result<Option<Vec<Implementation>>, TaskError> {
        let Some(value) = object.get("implementations") else {
            return Ok(None);
        };
        let Value::Array(list) = value else {
            return Err(TaskError::metadata(format!(
                "Task metadata for task {name} does not specify implementations as an array"
            )));
        };
        list.iter()
            .map(|entry| self.implementation(name, entry))
            .collect::<Result<_, _>>()
            .map(Some)
    }

    fn implementation(
        &mut self,
        name: &TaskName,
        entry: &Value,
    ) -> Result<Implementation, TaskError> {
        let Value::Object(object) = entry else {
            return Err(TaskError::metadata(format!(
                "Task metadata for task {name} does not specify an implementation as an object"
            )));
        };
        let requirements = match object.get("requirements") {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::Array(list)) => texts(list).ok_or_else(|| {
                TaskError::metadata(format!(
                    "Task metadata for task {name} specifies a requirement that is not a string"
                ))
            })?,
            Some(_) => {
                return Err(TaskError::metadata(format!(
                    "Task metadata for task {name} does not specify requirements as an array"
                )));
            }
        };
        let Some(Value::String(file)) = object.get("name") else {
            return Err(TaskError::metadata(format!(
                "Task metadata for task {name} specifies an implementation without a name"
            )));
        };
        Ok(Implementation {
            name: file.clone(),
            requirements,
            input_method: self.input_method(object, "input_method"),
            files: file_list(object)?,
            remote: self.flag(object, "remote"),
        })
    }
}

fn file_list(object: &Map<String, Value>) -> Result<Vec<String>, TaskError> {
    let value = object.get("files").unwrap_or(&Value::Null);
    match value {
        Value::Null => Ok(Vec::new()),
        Value::Array(list) => texts(list).ok_or_else(|| {
            TaskError::metadata("The 'files' task metadata expects an array of strings.")
        }),
        other => Err(TaskError::metadata(format!(
            "The 'files' task metadata expects an array, got {other}."
        ))),
    }
}

fn texts(list: &[Value]) -> Option<Vec<String>> {
    list.iter()
        .map(|value| value.as_str().map(str::to_owned))
        .collect()
}

/// What a JSON value is called in Puppet's language.
pub(crate) fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "Undef",
        Value::Bool(_) => "Boolean",
        Value::Number(number) if number.is_f64() => "Float",
        Value::Number(_) => "Integer",
        Value::String(_) => "String",
        Value::Array(_) => "Array",
        Value::Object(_) => "Hash",
    }
}

impl fmt::Display for InputMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stdin => "stdin",
            Self::Environment => "environment",
            Self::Both => "both",
            Self::Powershell => "powershell",
        })
    }
}
