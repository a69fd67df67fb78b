//! From a HOCON value to a type, finding *everything* that is wrong on the way.
//!
//! serde gives up at the first wrong value. Since every key of a configuration is optional, the
//! wrong one is noted and left out, and decoding begins anew until nothing is wrong any more.
//! Unknown keys are told by the field names that serde hands to the deserializer of each struct.

use std::cell::RefCell;
use std::fmt::{self, Display};

use hocon::{HoconValue, ScalarType, ScalarValue};
use serde::de::value::StringDeserializer;
use serde::de::{
    self, DeserializeOwned, DeserializeSeed, Deserializer, Expected, IntoDeserializer as _,
    MapAccess, SeqAccess, Unexpected, Visitor,
};

use super::faults;

/// What came of it: the value without whatever was wrong, unless even that is none.
pub(super) struct Decoded<T> {
    pub(super) value: Option<T>,
    pub(super) wrong: Vec<Wrong>,
}

/// One wrong key.
#[derive(Debug, Default)]
pub(super) struct Wrong {
    pub(super) path: Vec<String>,
    pub(super) problem: String,
    pub(super) hint: Option<String>,
}

pub(super) fn decode<T: DeserializeOwned>(value: &HoconValue, prefix: &[String]) -> Decoded<T> {
    let mut wrong: Vec<Wrong> = Vec::new();
    loop {
        let notes = Notes {
            left_out: wrong.iter().map(|w| w.path.clone()).collect(),
            unknown: RefCell::default(),
        };
        let node = Node {
            value,
            path: prefix.to_vec(),
            notes: &notes,
        };
        let end = T::deserialize(node);
        match end {
            // One that is wrong although it was left out can only be the whole.
            Err(error) if error.path.len() <= prefix.len() || notes.left_out(&error.path) => {
                wrong.push(error);
                wrong.extend(notes.unknown.into_inner());
                return Decoded { value: None, wrong };
            }
            Err(error) => wrong.push(error),
            Ok(value) => {
                wrong.extend(notes.unknown.into_inner());
                return Decoded {
                    value: Some(value),
                    wrong,
                };
            }
        }
    }
}

/// What is known from earlier attempts, and what this one finds.
struct Notes {
    left_out: Vec<Vec<String>>,
    unknown: RefCell<Vec<Wrong>>,
}

impl Notes {
    fn left_out(&self, path: &[String]) -> bool {
        self.left_out.iter().any(|left_out| left_out == path)
    }
}

/// A value and where it stands.
struct Node<'a> {
    value: &'a HoconValue,
    path: Vec<String>,
    notes: &'a Notes,
}

impl<'a> Node<'a> {
    fn scalar(&self) -> Option<&'a ScalarValue> {
        match self.value {
            HoconValue::Scalar(scalar) => Some(scalar),
            _ => None,
        }
    }

    /// Parses a scalar's text, which HOCON lets one write with quotes or without.
    fn parsed<T: std::str::FromStr>(&self) -> Option<T> {
        self.scalar()?.raw.parse().ok()
    }

    fn unexpected(&self) -> Unexpected<'a> {
        match self.value {
            HoconValue::Scalar(scalar) if scalar.value_type == ScalarType::Null => Unexpected::Unit,
            HoconValue::Scalar(scalar) => Unexpected::Str(&scalar.raw),
            HoconValue::Array(_) => Unexpected::Seq,
            _ => Unexpected::Map,
        }
    }

    fn refuse<T>(&self, expected: &dyn Expected) -> Result<T, Wrong> {
        Err(de::Error::invalid_type(self.unexpected(), expected))
    }

    /// The entries of an object; `known` keys only, when given, the others are noted.
    fn entries(&self, known: Option<&'static [&'static str]>) -> Option<Entries<'a>> {
        let mut entries = Vec::new();
        for (key, value) in self.value.as_object()? {
            let mut path = self.path.clone();
            path.push(key.clone());
            if known.is_some_and(|known| !known.contains(&key.as_str())) {
                self.notes.unknown.borrow_mut().push(Wrong {
                    hint: known.and_then(|known| faults::nearest(key, known)),
                    problem: "unknown key".to_owned(),
                    path,
                });
            } else if !self.notes.left_out(&path) {
                entries.push(Node {
                    value,
                    path,
                    notes: self.notes,
                });
            }
        }
        entries.reverse();
        Some(Entries {
            rest: entries,
            next: None,
        })
    }
}

/// The entries of an object that are still to be read, last one first.
struct Entries<'a> {
    rest: Vec<Node<'a>>,
    next: Option<Node<'a>>,
}

impl<'a> MapAccess<'a> for Entries<'a> {
    type Error = Wrong;

    fn next_key_seed<K: DeserializeSeed<'a>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Wrong> {
        self.next = self.rest.pop();
        let Some(node) = &self.next else {
            return Ok(None);
        };
        let key: StringDeserializer<Wrong> = node
            .path
            .last()
            .cloned()
            .unwrap_or_default()
            .into_deserializer();
        seed.deserialize(key)
            .map(Some)
            .map_err(|wrong| wrong.at(&node.path))
    }

    fn next_value_seed<V: DeserializeSeed<'a>>(&mut self, seed: V) -> Result<V::Value, Wrong> {
        let Some(node) = self.next.take() else {
            return Err(de::Error::custom("a value without a key"));
        };
        let path = node.path.clone();
        seed.deserialize(node).map_err(|wrong| wrong.at(&path))
    }
}

/// The items of a list; each stands where the list stands.
struct Items<'a> {
    rest: std::slice::Iter<'a, HoconValue>,
    list: Node<'a>,
}

impl<'a> SeqAccess<'a> for Items<'a> {
    type Error = Wrong;

    fn next_element_seed<T: DeserializeSeed<'a>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Wrong> {
        let Some(value) = self.rest.next() else {
            return Ok(None);
        };
        seed.deserialize(Node {
            value,
            path: self.list.path.clone(),
            notes: self.list.notes,
        })
        .map(Some)
    }
}

/// Integers of every width: serde checks the range.
macro_rules! integers {
    ($($method:ident => $visit:ident as $wide:ty),* $(,)?) => {$(
        fn $method<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Wrong> {
            match self.parsed::<$wide>() {
                Some(number) => visitor.$visit(number),
                None => self.refuse(&"a whole number"),
            }
        }
    )*};
}

impl<'a> Deserializer<'a> for Node<'a> {
    type Error = Wrong;

    integers! {
        deserialize_u8 => visit_u64 as u64,
        deserialize_u16 => visit_u64 as u64,
        deserialize_u32 => visit_u64 as u64,
        deserialize_u64 => visit_u64 as u64,
        deserialize_i8 => visit_i64 as i64,
        deserialize_i16 => visit_i64 as i64,
        deserialize_i32 => visit_i64 as i64,
        deserialize_i64 => visit_i64 as i64,
    }

    fn deserialize_any<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Wrong> {
        match self.value {
            HoconValue::Scalar(scalar) => match scalar.value_type {
                ScalarType::Null => visitor.visit_unit(),
                ScalarType::Boolean => self.deserialize_bool(visitor),
                _ => visitor.visit_str(&scalar.raw),
            },
            HoconValue::Array(_) => self.deserialize_seq(visitor),
            _ => self.deserialize_map(visitor),
        }
    }

    fn deserialize_bool<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Wrong> {
        match self.scalar().map(|scalar| scalar.raw.as_str()) {
            Some("true" | "yes" | "on") => visitor.visit_bool(true),
            Some("false" | "no" | "off") => visitor.visit_bool(false),
            _ => self.refuse(&"true or false"),
        }
    }

    fn deserialize_f64<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Wrong> {
        match self.parsed() {
            Some(number) => visitor.visit_f64(number),
            None => self.refuse(&"a number"),
        }
    }

    fn deserialize_str<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Wrong> {
        match self.scalar() {
            Some(scalar) if scalar.value_type != ScalarType::Null => visitor.visit_str(&scalar.raw),
            _ => self.refuse(&"a text"),
        }
    }

    fn deserialize_string<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Wrong> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Wrong> {
        if matches!(self.unexpected(), Unexpected::Unit) {
            visitor.visit_none()
        } else {
            visitor.visit_some(self)
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'a>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Wrong> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Wrong> {
        match self.value {
            HoconValue::Array(items) => visitor.visit_seq(Items {
                rest: items.iter(),
                list: self,
            }),
            _ => self.refuse(&"a list"),
        }
    }

    fn deserialize_map<V: Visitor<'a>>(self, visitor: V) -> Result<V::Value, Wrong> {
        match self.entries(None) {
            Some(entries) => visitor.visit_map(entries),
            None => self.refuse(&"a section"),
        }
    }

    fn deserialize_struct<V: Visitor<'a>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Wrong> {
        match self.entries(Some(fields)) {
            Some(entries) => visitor.visit_map(entries),
            None => self.refuse(&"a section"),
        }
    }

    fn deserialize_enum<V: Visitor<'a>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Wrong> {
        match self.scalar() {
            Some(scalar) => {
                let word: StringDeserializer<Wrong> = scalar.raw.clone().into_deserializer();
                visitor.visit_enum(word)
            }
            None => self.refuse(&"a word"),
        }
    }

    serde::forward_to_deserialize_any! {
        <V: Visitor<'a>>
        i128 u128 f32 char bytes byte_buf unit unit_struct tuple tuple_struct identifier ignored_any
    }
}

impl Wrong {
    /// Says where, unless something deeper has said it.
    fn at(mut self, path: &[String]) -> Self {
        if self.path.is_empty() {
            self.path = path.to_vec();
        }
        self
    }
}

impl Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problem)
    }
}

impl std::error::Error for Wrong {}

impl de::Error for Wrong {
    fn custom<T: Display>(problem: T) -> Self {
        Self {
            problem: problem.to_string(),
            ..Self::default()
        }
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        let found = match found {
            Unexpected::Str(text) => format!("{text:?}"),
            Unexpected::Unit => "nothing".to_owned(),
            Unexpected::Seq => "a list".to_owned(),
            Unexpected::Map => "a section".to_owned(),
            other => other.to_string(),
        };
        Self::custom(format_args!("{found} stands where {expected} is expected"))
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        Self {
            hint: faults::nearest(variant, expected),
            ..Self::custom(format_args!(
                "{variant:?} is none of {}",
                expected.join(", ")
            ))
        }
    }

    fn missing_field(field: &'static str) -> Self {
        Self::custom(format_args!("the key {field:?} is missing"))
    }
}
