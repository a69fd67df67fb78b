//! JSON Schema, as far as external modules describe themselves with it: draft 4 without references,
//! patterns and dependencies. A schema with anything that is not checked here is refused as a whole, so
//! that nothing counts as checked that was not.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde_json::{Map, Number, Value};

/// What only describes, and constrains nothing.
const ANNOTATIONS: [&str; 5] = ["$schema", "default", "description", "id", "title"];

/// The drafts that mean the same by the keywords of this one.
const DRAFTS: [&str; 2] = [
    "http://json-schema.org/draft-04/schema",
    "http://json-schema.org/schema",
];

/// How deep schemas may be nested: far deeper than any that a person writes.
const MAX_DEPTH: usize = 32;

/// A schema that can be checked against.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Schema {
    types: Option<Vec<Type>>,
    values: Option<Vec<Value>>,
    properties: BTreeMap<String, Self>,
    required: Vec<String>,
    additional: Option<Box<Self>>,
    /// Whether properties may be there that are not described.
    closed: bool,
    items: Option<Box<Self>>,
    unique: bool,
    bounds: Bounds,
    all_of: Vec<Self>,
    any_of: Vec<Self>,
    one_of: Vec<Self>,
    not: Option<Box<Self>>,
}

/// Bounds, each of which may be missing.
#[derive(Debug, Clone, Default, PartialEq)]
struct Bounds {
    items: Range,
    length: Range,
    properties: Range,
    minimum: Option<f64>,
    maximum: Option<f64>,
    above: bool,
    below: bool,
}

/// How many there may be.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Range {
    least: Option<u64>,
    most: Option<u64>,
}

/// The simple types.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Type {
    Array,
    Boolean,
    Integer,
    Null,
    Number,
    Object,
    String,
}

/// A text is not a schema that can be checked against.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SchemaError {
    /// A keyword that this agent does not check.
    #[error("{at}: the keyword {keyword:?} is not supported")]
    Unsupported {
        /// Where, as a JSON pointer.
        at: Pointer,
        /// Which one.
        keyword: String,
    },
    /// A keyword has not the value that it must have.
    #[error("{at}: {keyword} must be {what}")]
    Malformed {
        /// Where, as a JSON pointer.
        at: Pointer,
        /// Which one.
        keyword: String,
        /// What it must be.
        what: &'static str,
    },
    /// It is no object.
    #[error("{0}: a schema must be an object")]
    NoObject(Pointer),
    /// It is nested too deeply.
    #[error("it is nested more than {MAX_DEPTH} deep")]
    Deep,
}

/// A value is not what its schema says. Never shows the value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{at}: {what}")]
pub struct Invalid {
    /// Where, as a JSON pointer.
    pub at: Pointer,
    /// What is wrong there.
    pub what: String,
}

/// A place in a JSON value.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pointer(String);

impl Pointer {
    fn to(&self, step: &str) -> Self {
        let step = step.replace('~', "~0").replace('/', "~1");
        Self(format!("{}/{step}", self.0))
    }
}

impl fmt::Display for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            f.write_str("the whole")
        } else {
            f.write_str(&self.0)
        }
    }
}

impl Schema {
    /// Reads a schema.
    ///
    /// # Errors
    /// [`SchemaError`] when it is none, or is not wholly understood.
    pub fn parse(schema: &Value) -> Result<Self, SchemaError> {
        Reader {
            at: Pointer::default(),
            depth: 0,
        }
        .schema(schema)
    }

    /// Checks a value.
    ///
    /// # Errors
    /// [`Invalid`] for the first thing that is wrong.
    pub fn check(&self, value: &Value) -> Result<(), Invalid> {
        self.check_at(value, &Pointer::default())
    }

    fn check_at(&self, value: &Value, at: &Pointer) -> Result<(), Invalid> {
        let wrong = |what: &str| {
            Err(Invalid {
                at: at.clone(),
                what: what.to_owned(),
            })
        };
        if let Some(types) = &self.types
            && !types.iter().any(|kind| kind.has(value))
        {
            let names: Vec<_> = types.iter().map(|kind| kind.name()).collect();
            return wrong(&format!("it is not of the type {}", names.join(" or ")));
        }
        if let Some(values) = &self.values
            && !values.contains(value)
        {
            return wrong("it is none of the values that are possible");
        }
        match value {
            Value::Object(members) => self.check_object(members, at)?,
            Value::Array(items) => self.check_array(items, at)?,
            Value::String(text) if !self.bounds.length.has(text.chars().count()) => {
                return wrong("it is too short or too long");
            }
            Value::Number(number) if !self.bounds.have(number) => {
                return wrong("it is too small or too large");
            }
            Value::String(_) | Value::Number(_) | Value::Bool(_) | Value::Null => {}
        }
        for schema in &self.all_of {
            schema.check_at(value, at)?;
        }
        let fitting = |schemas: &[Self]| {
            let fits = |schema: &&Self| schema.check_at(value, at).is_ok();
            schemas.iter().filter(fits).count()
        };
        if !self.any_of.is_empty() && fitting(&self.any_of) == 0 {
            return wrong("it fits none of the alternatives (anyOf)");
        }
        if !self.one_of.is_empty() && fitting(&self.one_of) != 1 {
            return wrong("it does not fit exactly one of the alternatives (oneOf)");
        }
        match &self.not {
            Some(schema) if schema.check_at(value, at).is_ok() => {
                wrong("it is what it must not be")
            }
            _ => Ok(()),
        }
    }

    fn check_object(&self, members: &Map<String, Value>, at: &Pointer) -> Result<(), Invalid> {
        let wrong = |what: String| {
            Err(Invalid {
                at: at.clone(),
                what,
            })
        };
        if let Some(name) = self
            .required
            .iter()
            .find(|name| !members.contains_key(*name))
        {
            return wrong(format!("{name:?} is missing"));
        }
        if !self.bounds.properties.has(members.len()) {
            return wrong("it has too few or too many properties".to_owned());
        }
        for (name, member) in members {
            let schema = self.properties.get(name);
            match schema.or(self.additional.as_deref()) {
                Some(schema) => schema.check_at(member, &at.to(name))?,
                None if self.closed => return wrong(format!("{name:?} is not known")),
                None => {}
            }
        }
        Ok(())
    }

    fn check_array(&self, items: &[Value], at: &Pointer) -> Result<(), Invalid> {
        let wrong = |what: &str| {
            Err(Invalid {
                at: at.clone(),
                what: what.to_owned(),
            })
        };
        if !self.bounds.items.has(items.len()) {
            return wrong("it has too few or too many items");
        }
        let texts: BTreeSet<String> = items.iter().map(Value::to_string).collect();
        if self.unique && texts.len() < items.len() {
            return wrong("its items are not all different");
        }
        for (index, item) in items.iter().enumerate() {
            if let Some(schema) = &self.items {
                schema.check_at(item, &at.to(&index.to_string()))?;
            }
        }
        Ok(())
    }
}

impl Range {
    fn has(self, count: usize) -> bool {
        let count = count as u64;
        self.least.is_none_or(|least| count >= least) && self.most.is_none_or(|most| count <= most)
    }
}

impl Bounds {
    fn have(&self, number: &Number) -> bool {
        let Some(number) = number.as_f64() else {
            return self.minimum.is_none() && self.maximum.is_none();
        };
        let above = |least: f64| number > least || (!self.above && number >= least);
        let below = |most: f64| number < most || (!self.below && number <= most);
        self.minimum.is_none_or(above) && self.maximum.is_none_or(below)
    }
}

impl Type {
    const ALL: [Self; 7] = [
        Self::Array,
        Self::Boolean,
        Self::Integer,
        Self::Null,
        Self::Number,
        Self::Object,
        Self::String,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Array => "array",
            Self::Boolean => "boolean",
            Self::Integer => "integer",
            Self::Null => "null",
            Self::Number => "number",
            Self::Object => "object",
            Self::String => "string",
        }
    }

    fn has(self, value: &Value) -> bool {
        match self {
            Self::Array => value.is_array(),
            Self::Boolean => value.is_boolean(),
            Self::Integer => value.is_i64() || value.is_u64(),
            Self::Null => value.is_null(),
            Self::Number => value.is_number(),
            Self::Object => value.is_object(),
            Self::String => value.is_string(),
        }
    }
}

/// Reads one schema.
struct Reader {
    at: Pointer,
    depth: usize,
}

impl Reader {
    fn schema(&self, schema: &Value) -> Result<Schema, SchemaError> {
        if self.depth > MAX_DEPTH {
            return Err(SchemaError::Deep);
        }
        let Value::Object(keywords) = schema else {
            return Err(SchemaError::NoObject(self.at.clone()));
        };
        let mut read = Schema::default();
        for (keyword, value) in keywords {
            self.keyword(&mut read, keyword, value)?;
        }
        Ok(read)
    }

    fn keyword(&self, read: &mut Schema, keyword: &str, value: &Value) -> Result<(), SchemaError> {
        let bounds = &mut read.bounds;
        match keyword {
            "type" => read.types = Some(self.types(value)?),
            "enum" => read.values = Some(self.list(keyword, value)?.clone()),
            "properties" => {
                let members = value.as_object();
                let members = members.ok_or_else(|| self.malformed(keyword, "an object"))?;
                for (name, schema) in members {
                    let below = self.below(&self.at.to(keyword).to(name));
                    read.properties.insert(name.clone(), below.schema(schema)?);
                }
            }
            "required" => {
                let names = self.list(keyword, value)?.iter().map(Value::as_str);
                let names: Option<Vec<_>> = names.map(|name| name.map(str::to_owned)).collect();
                read.required = names.ok_or_else(|| self.malformed(keyword, "a list of texts"))?;
            }
            "additionalProperties" => match value {
                Value::Bool(open) => read.closed = !open,
                schema => read.additional = Some(self.boxed(keyword, schema)?),
            },
            "items" => read.items = Some(self.boxed(keyword, value)?),
            "uniqueItems" => read.unique = self.switch(keyword, value)?,
            "minItems" => bounds.items.least = Some(self.count(keyword, value)?),
            "maxItems" => bounds.items.most = Some(self.count(keyword, value)?),
            "minLength" => bounds.length.least = Some(self.count(keyword, value)?),
            "maxLength" => bounds.length.most = Some(self.count(keyword, value)?),
            "minProperties" => bounds.properties.least = Some(self.count(keyword, value)?),
            "maxProperties" => bounds.properties.most = Some(self.count(keyword, value)?),
            "minimum" => bounds.minimum = Some(self.number(keyword, value)?),
            "maximum" => bounds.maximum = Some(self.number(keyword, value)?),
            "exclusiveMinimum" => bounds.above = self.switch(keyword, value)?,
            "exclusiveMaximum" => bounds.below = self.switch(keyword, value)?,
            "allOf" => read.all_of = self.schemas(keyword, value)?,
            "anyOf" => read.any_of = self.schemas(keyword, value)?,
            "oneOf" => read.one_of = self.schemas(keyword, value)?,
            "not" => read.not = Some(self.boxed(keyword, value)?),
            "$schema" => {
                let draft = value.as_str().unwrap_or_default().trim_end_matches('#');
                if !DRAFTS.contains(&draft) {
                    return Err(self.malformed(keyword, "that of draft 4"));
                }
            }
            keyword if ANNOTATIONS.contains(&keyword) => {}
            other => {
                return Err(SchemaError::Unsupported {
                    at: self.at.clone(),
                    keyword: other.to_owned(),
                });
            }
        }
        Ok(())
    }

    fn types(&self, value: &Value) -> Result<Vec<Type>, SchemaError> {
        let names = match value {
            Value::Array(names) => names.iter().collect(),
            name => vec![name],
        };
        let kind = |name: &Value| {
            let name = name.as_str()?;
            Type::ALL.into_iter().find(|kind| kind.name() == name)
        };
        let types: Option<Vec<_>> = names.into_iter().map(kind).collect();
        types.ok_or_else(|| self.malformed("type", "a simple type, or a list of them"))
    }

    fn schemas(&self, keyword: &str, value: &Value) -> Result<Vec<Schema>, SchemaError> {
        let schemas = self.list(keyword, value)?.iter().enumerate();
        let read = schemas.map(|(index, schema)| {
            let place = self.at.to(keyword).to(&index.to_string());
            self.below(&place).schema(schema)
        });
        read.collect()
    }

    fn boxed(&self, keyword: &str, schema: &Value) -> Result<Box<Schema>, SchemaError> {
        let read = self.below(&self.at.to(keyword)).schema(schema);
        read.map(Box::new)
    }

    fn below(&self, at: &Pointer) -> Self {
        Self {
            at: at.clone(),
            depth: self.depth + 1,
        }
    }

    fn list<'a>(&self, keyword: &str, value: &'a Value) -> Result<&'a Vec<Value>, SchemaError> {
        let items = value.as_array().filter(|items| !items.is_empty());
        items.ok_or_else(|| self.malformed(keyword, "a list that is not empty"))
    }

    fn count(&self, keyword: &str, value: &Value) -> Result<u64, SchemaError> {
        let count = value.as_u64();
        count.ok_or_else(|| self.malformed(keyword, "a whole number"))
    }

    fn number(&self, keyword: &str, value: &Value) -> Result<f64, SchemaError> {
        let number = value.as_f64();
        number.ok_or_else(|| self.malformed(keyword, "a number"))
    }

    fn switch(&self, keyword: &str, value: &Value) -> Result<bool, SchemaError> {
        let switch = value.as_bool();
        switch.ok_or_else(|| self.malformed(keyword, "true or false"))
    }

    fn malformed(&self, keyword: &str, what: &'static str) -> SchemaError {
        SchemaError::Malformed {
            at: self.at.clone(),
            keyword: keyword.to_owned(),
            what,
        }
    }
}

#[cfg(test)]
mod tests;
