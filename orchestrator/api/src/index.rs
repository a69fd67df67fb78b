//! `GET /orchestrator/v1`: what there is.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The root of the API.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Index {
    /// A sentence for people.
    pub info: String,
    /// In which state the API is: `GA`.
    pub status: String,
    /// What can be read.
    pub collections: Vec<Collection>,
    /// What can be asked for.
    pub commands: Vec<Command>,
}

/// Something that can be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Collection {
    /// The name.
    pub name: String,
    /// The URL.
    pub id: String,
    /// The relation: a URL that names what it is.
    pub rel: String,
}

/// Something that can be asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Command {
    /// The name.
    pub name: String,
    /// The URL.
    pub id: String,
    /// The relation: a URL that names what it is.
    pub rel: String,
}
