//! JSON objects that pass through as text: parameters and results of actions. They may hold secrets
//! and are never printed.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{self, DeserializeOwned};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// A JSON object, kept as the text that was sent.
#[derive(Clone, Serialize)]
#[serde(transparent)]
pub struct JsonObject(Box<RawValue>);

/// A value is not a JSON object.
#[derive(Debug, thiserror::Error)]
pub enum NotAnObject {
    /// The value cannot be written as JSON at all.
    #[error("the value cannot be written as JSON")]
    Unserializable(#[source] serde_json::Error),
    /// The value is JSON of another type.
    #[error("the value is not a JSON object")]
    OtherType,
}

impl JsonObject {
    /// Writes a value down.
    ///
    /// # Errors
    /// [`NotAnObject`] when the value is no JSON object.
    pub fn of<T: Serialize>(value: &T) -> Result<Self, NotAnObject> {
        let raw = serde_json::value::to_raw_value(value).map_err(NotAnObject::Unserializable)?;
        Self::from_raw(raw).ok_or(NotAnObject::OtherType)
    }

    /// Reads the object as a type.
    ///
    /// # Errors
    /// What serde_json says when the object is not that type.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_str(self.0.get())
    }

    /// The JSON text as it was sent.
    #[must_use]
    pub fn text(&self) -> &str {
        self.0.get()
    }

    fn from_raw(raw: Box<RawValue>) -> Option<Self> {
        // RawValue has no white space around it, so an object begins with its brace.
        raw.get().starts_with('{').then_some(Self(raw))
    }
}

impl<'de> Deserialize<'de> for JsonObject {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Self::from_raw(Box::<RawValue>::deserialize(d)?)
            .ok_or_else(|| de::Error::custom("not an object"))
    }
}

impl PartialEq for JsonObject {
    /// Compares the texts: objects that differ in white space are different.
    fn eq(&self, other: &Self) -> bool {
        self.0.get() == other.0.get()
    }
}

impl Eq for JsonObject {}

impl fmt::Debug for JsonObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// The parameters of a task: names and the JSON texts of their values.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Input(BTreeMap<String, Box<RawValue>>);

impl Input {
    /// Sets a parameter to a text, in place of what it was.
    pub fn set_text(&mut self, name: &str, text: &str) {
        // A string is always JSON.
        if let Ok(value) = serde_json::value::to_raw_value(text) {
            self.0.insert(name.to_owned(), value);
        }
    }

    /// Sets a parameter to any value.
    ///
    /// # Errors
    /// What serde_json says when the value cannot be written as JSON.
    pub fn set<T: Serialize>(&mut self, name: &str, value: &T) -> Result<(), serde_json::Error> {
        let value = serde_json::value::to_raw_value(value)?;
        self.0.insert(name.to_owned(), value);
        Ok(())
    }

    /// The parameters by name, each with the JSON text of its value.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (&**name, value.get()))
    }

    /// How many parameters there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl PartialEq for Input {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Input {}

impl fmt::Debug for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}
