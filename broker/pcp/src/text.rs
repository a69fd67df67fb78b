//! The texts that nearly every message repeats. Those that are known beforehand are not copied: a broker
//! reads three of them in each message.

use std::cmp::Ordering;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// A short text, cheap to clone. It compares as its characters do.
#[derive(Clone)]
pub(crate) enum Text {
    Known(&'static str),
    Other(Arc<str>),
}

impl Text {
    /// One of the known texts, or a copy.
    pub(crate) fn of(text: &str, known: &[&'static str]) -> Self {
        match known.iter().find(|known| **known == text) {
            Some(known) => Self::Known(known),
            None => Self::Other(text.into()),
        }
    }

    pub(crate) fn as_str(&self) -> &str {
        match self {
            Self::Known(text) => text,
            Self::Other(text) => text,
        }
    }
}

impl PartialEq for Text {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Text {}

impl PartialOrd for Text {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Text {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_str().cmp(other.as_str())
    }
}

impl Hash for Text {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn known_texts_and_others_compare_as_their_characters() {
        let all = ["b", "a", "c"].map(|text| Text::of(text, &["b", "c"]));
        let copied = all.iter().map(|text| matches!(text, Text::Other(_)));
        assert_eq!(copied.collect::<Vec<_>>(), [false, true, false]);
        let sorted: BTreeSet<_> = all.iter().map(Text::as_str).collect();
        let by_text: BTreeSet<_> = all.iter().collect();
        assert!(sorted.into_iter().eq(by_text.into_iter().map(Text::as_str)));
        assert!(Text::of("b", &[]) == Text::of("b", &["b"]));
    }
}
