//! Where each key stands, and which keys two files set differently.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use hocon::parser::AstNode;

use super::faults::{self, Fault};

/// Where the keys of all files stand. A key that stands twice counts where it stands last.
#[derive(Debug, Default)]
pub(super) struct Places {
    keys: BTreeMap<Vec<String>, Place>,
    /// Keys that two files set differently, a fault each.
    pub(super) conflicts: Vec<Fault>,
}

/// Where one key stands, and what is written there.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) file: PathBuf,
    /// Nothing for what the command line gave.
    pub(super) line: Option<u32>,
    written: Written,
}

/// Stands in faults where a file's name would.
const COMMAND_LINE: &str = "command line";

/// What stands behind a key, as far as two files may differ in it.
#[derive(Debug, PartialEq)]
enum Written {
    /// A section: two of them are merged.
    Section,
    /// A value, as text.
    Value(String),
    /// A value that adds to what other files say (`+=`, or one that refers to itself).
    Addition,
}

impl Places {
    /// Notes the keys of a file.
    pub(super) fn note(&mut self, tree: &AstNode, file: &Path) {
        self.note_fields(tree, &mut Vec::new(), file);
    }

    /// Notes that the command line gave a key.
    pub(super) fn given(&mut self, key: &str) {
        let place = Place {
            file: PathBuf::from(COMMAND_LINE),
            line: None,
            written: Written::Addition,
        };
        self.keys.insert(vec![key.to_owned()], place);
    }

    /// The place of a key, or of the innermost section that it would stand in.
    pub(super) fn nearest(&self, key: &[String]) -> Option<&Place> {
        (1..=key.len())
            .rev()
            .find_map(|length| self.keys.get(key.get(..length)?))
    }

    fn note_fields(&mut self, node: &AstNode, prefix: &mut Vec<String>, file: &Path) {
        let AstNode::Object { fields, .. } = node else {
            return;
        };
        for field in fields {
            let depth = prefix.len();
            let line = u32::try_from(field.pos.line).ok();
            for (at, part) in field.key.iter().enumerate() {
                prefix.push(part.clone());
                let written = if at + 1 < field.key.len() {
                    Written::Section
                } else if field.append || refers_to(&field.value, prefix) {
                    Written::Addition
                } else {
                    written(&field.value)
                };
                let place = Place {
                    file: file.to_owned(),
                    line,
                    written,
                };
                self.note_key(prefix, place);
            }
            self.note_fields(&field.value, prefix, file);
            prefix.truncate(depth);
        }
    }

    fn note_key(&mut self, key: &[String], place: Place) {
        if let Some(earlier) = self.keys.get(key)
            && earlier.file != place.file
            && place.written != Written::Addition
            && earlier.written != place.written
        {
            self.conflicts.push(Fault {
                file: place.file.clone(),
                line: place.line,
                key: faults::dotted(key),
                problem: format!(
                    "is set differently at {}:{}",
                    earlier.file.display(),
                    earlier.line.unwrap_or_default()
                ),
                hint: Some("keep one of the two".to_owned()),
            });
        }
        self.keys.insert(key.to_owned(), place);
    }
}

fn written(node: &AstNode) -> Written {
    match node {
        AstNode::Object { .. } => Written::Section,
        other => {
            let mut text = String::new();
            write(other, &mut text);
            Written::Value(text)
        }
    }
}

/// A value as text, without its place: equal texts mean equal values.
fn write(node: &AstNode, text: &mut String) {
    match node {
        AstNode::Scalar { value, .. } => text.push_str(&format!("{:?}", value.raw)),
        AstNode::Array { items, .. } => {
            text.push('[');
            for item in items {
                write(item, text);
                text.push(',');
            }
            text.push(']');
        }
        AstNode::Concat { nodes, .. } => {
            for node in nodes {
                write(node, text);
                text.push(' ');
            }
        }
        AstNode::Object { fields, .. } => {
            text.push('{');
            for field in fields {
                text.push_str(&format!("{:?}:", field.key));
                write(&field.value, text);
                text.push(',');
            }
            text.push('}');
        }
        AstNode::Substitution { segments, .. } => {
            let parts: Vec<_> = segments.iter().map(|part| part.text.as_str()).collect();
            text.push_str(&format!("${{{}}}", parts.join(".")));
        }
        // What an included file says is not known here.
        _ => text.push_str("include"),
    }
}

/// Whether a value is made from what the key meant before.
fn refers_to(node: &AstNode, key: &[String]) -> bool {
    match node {
        AstNode::Substitution { segments, .. } => {
            segments.iter().map(|part| &part.text).eq(key.iter())
        }
        AstNode::Concat { nodes, .. } => nodes.iter().any(|node| refers_to(node, key)),
        AstNode::Array { items, .. } => items.iter().any(|node| refers_to(node, key)),
        _ => false,
    }
}
