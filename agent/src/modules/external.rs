//! External modules: programs in `modules-dir` that say of themselves what they can do, in the original's
//! protocol. They are asked for it when the agent starts (`discovery`). An action of theirs is a process of
//! this very program ([`call`]), which calls the module and checks what it gives.

pub mod call;
pub mod schema;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use pxp::{JsonObject, Wishes};
use sandbox::Delivery;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::launch::{Kind, Launch, Place};
use call::Work;
use schema::{Invalid, Schema, SchemaError};

/// What the process that calls a module is called: `pxp-agent module external call`.
pub const MODULE: &str = "external";

/// The same.
pub const ACTION: &str = "call";

/// What a module is called with to say what it can do.
pub const METADATA: &str = "metadata";

/// The key of the parameters that is for the agent and not for the module.
const WISHES: &str = "pxp_mesh";

/// A module that can be called.
#[derive(Debug)]
pub struct External {
    program: PathBuf,
    /// Its configuration, if it has a file for it.
    configuration: Option<Box<RawValue>>,
    actions: BTreeMap<String, ActionForm>,
}

/// What an action takes and gives.
#[derive(Debug)]
struct ActionForm {
    input: Schema,
    /// The schema as the module has it: it is checked where the module is called.
    results: Value,
}

/// What a module says of itself.
#[derive(Debug, Deserialize)]
struct Metadata {
    #[serde(rename = "description")]
    _description: String,
    #[serde(default)]
    configuration: Option<Value>,
    actions: Vec<ActionMetadata>,
}

/// What it says of an action.
#[derive(Debug, Deserialize)]
struct ActionMetadata {
    name: String,
    #[serde(rename = "description", default)]
    _description: Option<String>,
    input: Value,
    results: Value,
}

/// Why what a module says of itself is no use.
#[derive(Debug, thiserror::Error)]
pub enum MetadataError {
    /// It is not JSON of the form that it must have.
    #[error("metadata is not in a valid JSON format")]
    Form(#[source] serde_json::Error),
    /// It has an action that cannot be one.
    #[error("the action {0:?} is there twice, or is called what no action can be called")]
    Action(String),
    /// A schema is none, or has what this agent does not check.
    #[error("the {part} schema of {of} cannot be checked: {problem}")]
    Schema {
        /// Which one: `input`, `results` or `configuration`.
        part: &'static str,
        /// Whose.
        of: String,
        /// What is wrong.
        problem: SchemaError,
    },
    /// Its configuration is not what it says.
    #[error("its configuration is invalid: {0}")]
    Configuration(#[from] Invalid),
    /// It has a configuration that is no JSON.
    #[error("its configuration is not in a valid JSON format")]
    ConfigurationForm(#[source] serde_json::Error),
}

/// An action of an external module that can be called.
#[derive(Debug)]
pub struct Call {
    module: Arc<External>,
    action: String,
    input: Box<RawValue>,
    wishes: Wishes,
}

/// Why an action cannot be called. Never shows a value.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The module has no such action.
    #[error("there is no such action")]
    NoAction,
    /// The parameters are not what the module says.
    #[error(transparent)]
    Input(#[from] Invalid),
    /// They cannot be read, or the wishes among them.
    #[error("they cannot be read, or {WISHES} among them (column {0})")]
    Form(usize),
}

impl External {
    /// A module by what it says of itself, with the text of its configuration.
    ///
    /// # Errors
    /// [`MetadataError`], for which it is not loaded.
    pub fn new(
        program: PathBuf,
        metadata: &str,
        configuration: Option<&str>,
    ) -> Result<Self, MetadataError> {
        let metadata: Metadata = serde_json::from_str(metadata).map_err(MetadataError::Form)?;
        let configuration = configuration.map(|text| {
            let checked = metadata.configuration.as_ref();
            checked_configuration(text, checked)
        });
        let mut actions = BTreeMap::new();
        for action in metadata.actions {
            let ActionMetadata {
                name,
                input,
                results,
                ..
            } = action;
            let read = |part, schema: &Value| {
                Schema::parse(schema).map_err(|problem| MetadataError::Schema {
                    part,
                    of: format!("the action {name:?}"),
                    problem,
                })
            };
            let input = read("input", &input)?;
            read("results", &results)?;
            // "metadata" is how it is asked for all this.
            if !is_name(&name) || name == METADATA || actions.contains_key(&name) {
                return Err(MetadataError::Action(name));
            }
            actions.insert(name, ActionForm { input, results });
        }
        Ok(Self {
            program,
            configuration: configuration.transpose()?,
            actions,
        })
    }

    /// What its actions are called.
    pub fn actions(&self) -> impl Iterator<Item = &str> {
        self.actions.keys().map(String::as_str)
    }
}

impl Call {
    /// Checks a call.
    ///
    /// # Errors
    /// [`CallError`] when the module has no such action, or the action takes no such parameters.
    pub fn new(
        module: &Arc<External>,
        action: &str,
        params: Option<&JsonObject>,
    ) -> Result<Self, CallError> {
        let form = module.actions.get(action).ok_or(CallError::NoAction)?;
        let unreadable = |error: serde_json::Error| CallError::Form(error.column());
        let text = params.map_or("{}", JsonObject::text);
        let mut members: BTreeMap<String, Box<RawValue>> =
            serde_json::from_str(text).map_err(unreadable)?;
        let wishes = match members.remove(WISHES) {
            Some(wishes) => serde_json::from_str(wishes.get()).map_err(unreadable)?,
            None => Wishes::default(),
        };
        let input = serde_json::value::to_raw_value(&members).map_err(unreadable)?;
        let value: Value = serde_json::from_str(input.get()).map_err(unreadable)?;
        form.input.check(&value)?;
        Ok(Self {
            module: Arc::clone(module),
            action: action.to_owned(),
            input,
            wishes,
        })
    }

    /// What is asked of the agent, beside the module's own parameters.
    #[must_use]
    pub fn wishes(&self) -> Wishes {
        self.wishes.clone()
    }

    /// How the process is started that calls the module.
    #[must_use]
    pub fn launch(&self, place: &Place<'_>) -> Launch {
        let results = self.module.actions.get(&self.action);
        let work = Work {
            program: self.module.program.clone(),
            action: self.action.clone(),
            input: self.input.clone(),
            configuration: self.module.configuration.clone(),
            // A call is made of an action that is there.
            results: results.map(|form| form.results.clone()).unwrap_or_default(),
            output_files: place.kind == Kind::NonBlocking,
        };
        Launch {
            program: place.agent.to_path_buf(),
            arguments: ["module", MODULE, ACTION].map(str::to_owned).into(),
            delivery: Delivery {
                stdin: pxp::write(&work),
                ..Delivery::default()
            },
        }
    }
}

fn checked_configuration(
    text: &str,
    schema: Option<&Value>,
) -> Result<Box<RawValue>, MetadataError> {
    let malformed = MetadataError::ConfigurationForm;
    let value: Value = serde_json::from_str(text).map_err(malformed)?;
    if let Some(schema) = schema {
        let schema = Schema::parse(schema).map_err(|problem| MetadataError::Schema {
            part: "configuration",
            of: "the module".to_owned(),
            problem,
        })?;
        schema.check(&value)?;
    }
    serde_json::from_str(text.trim()).map_err(malformed)
}

/// Whether this can name a module or an action: it becomes an argument, and part of messages.
fn is_name(text: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    (1..=64).contains(&text.len()) && !text.starts_with('-') && text.chars().all(fits)
}

/// Whether a path names a program of the kind that modules are: without an extension.
pub(crate) fn module_name(path: &Path) -> Option<&str> {
    let name = path.file_name()?.to_str()?;
    is_name(name).then_some(name)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    proptest! {
        #[test]
        fn whatever_a_module_says_it_is_loaded_or_refused_and_so_are_calls_of_it(
            at in any::<prop::sample::Index>(), cut in 0..30_usize, insert in "\\PC{0,8}",
            bytes in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let said = metadata().to_string();
            let mut damaged = said.clone().into_bytes();
            let at = at.index(damaged.len());
            damaged.splice(at..(at + cut).min(said.len()), insert.bytes());
            let damaged = String::from_utf8_lossy(&damaged);
            let noise = String::from_utf8_lossy(&bytes);
            for (said, configuration) in
                [(&*damaged, None), (&*noise, None), (&*said, Some(&*noise)), (&*said, Some(&*insert))]
            {
                let Ok(module) = External::new("/m/x".into(), said, configuration) else {
                    continue;
                };
                let module = Arc::new(module);
                for action in module.actions() {
                    prop_assert!(is_name(action));
                    let params = JsonObject::of(&json!({"argument": noise, "pxp_mesh": {}}));
                    Call::new(&module, action, Some(&params.unwrap())).ok();
                }
            }
        }
    }

    fn metadata() -> Value {
        json!({
            "description": "reverses",
            "configuration": {"type": "object", "properties": {"dir": {"type": "string"}}},
            "actions": [{
                "name": "string",
                "input": {
                    "type": "object",
                    "properties": {"argument": {"type": "string"}},
                    "required": ["argument"],
                    "additionalProperties": false,
                },
                "results": {"type": "object"},
            }],
        })
    }

    fn external(metadata: &Value, configuration: Option<&str>) -> Result<External, String> {
        let external = External::new("/m/reverse".into(), &metadata.to_string(), configuration);
        external.map_err(|error| daemon::error_chain(&error))
    }

    #[test]
    fn a_module_is_what_it_says_or_is_not_loaded() {
        let loaded = external(&metadata(), Some(r#"{"dir": "/x"}"#)).unwrap();
        assert_eq!(loaded.actions().collect::<Vec<_>>(), ["string"]);
        for (path, value, words) in [
            ("/description", json!(1), "not in a valid JSON format"),
            ("/actions", json!({}), "not in a valid JSON format"),
            (
                "/actions/0/name",
                json!("metadata"),
                "no action can be called",
            ),
            ("/actions/0/name", json!("../x"), "no action can be called"),
            (
                "/actions/0/input",
                json!({"$ref": "#"}),
                "input schema of the action",
            ),
            (
                "/actions/0/results",
                json!({"pattern": "a"}),
                "results schema",
            ),
            (
                "/configuration",
                json!({"format": "x"}),
                "configuration schema of the module",
            ),
        ] {
            let mut metadata = metadata();
            *metadata.pointer_mut(path).unwrap() = value;
            let error = external(&metadata, Some("{}")).unwrap_err();
            assert!(error.contains(words), "{path}: {error}");
        }
        let mut twice = metadata();
        let action = twice["actions"][0].clone();
        twice["actions"].as_array_mut().unwrap().push(action);
        assert!(external(&twice, None).unwrap_err().contains("there twice"));
    }

    #[test]
    fn a_configuration_is_checked_and_handed_over_as_it_is_written() {
        let error = external(&metadata(), Some(r#"{"dir": 1}"#)).unwrap_err();
        assert!(
            error.contains("/dir: it is not of the type string"),
            "{error}"
        );
        let error = external(&metadata(), Some("dir = x")).unwrap_err();
        assert!(
            error.contains("configuration is not in a valid JSON"),
            "{error}"
        );
        let loaded = external(&metadata(), Some("{\"dir\": \"/x\", \"n\": 1.0}\n")).unwrap();
        let kept = loaded.configuration.unwrap();
        assert_eq!(kept.get(), "{\"dir\": \"/x\", \"n\": 1.0}");
    }

    #[test]
    fn a_call_is_checked_before_anything_runs_and_wishes_are_not_the_modules() {
        let module = Arc::new(external(&metadata(), None).unwrap());
        let call = |action: &str, params: &str| {
            let params = serde_json::from_str(params).unwrap();
            Call::new(&module, action, Some(&params))
        };
        let good = call(
            "string",
            r#"{"argument": "a", "pxp_mesh": {"time_limit": 7}}"#,
        )
        .unwrap();
        assert_eq!(good.wishes().time_limit, Some(7));
        assert_eq!(good.input.get(), r#"{"argument":"a"}"#);
        assert!(matches!(call("other", "{}"), Err(CallError::NoAction)));
        for params in [
            r#"{"argument": 1}"#,
            "{}",
            r#"{"argument": "a", "b": "hunter2"}"#,
        ] {
            let error = call("string", params).unwrap_err();
            assert!(matches!(error, CallError::Input(_)), "{params}");
            assert!(!error.to_string().contains("hunter2"));
        }
        let wish = r#"{"argument": "a", "pxp_mesh": {"unknown": 1}}"#;
        assert!(matches!(call("string", wish), Err(CallError::Form(_))));
        assert!(matches!(
            Call::new(&module, "string", None),
            Err(CallError::Input(_))
        ));
    }
}
