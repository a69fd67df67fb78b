//! Patterns of names: `package`, `package::*`, `*.example.net`. A star stands for any number of
//! characters, colons and dots too; everything else for itself.

use std::fmt;

use serde::Deserialize;

/// A pattern.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(from = "String")]
pub(super) struct Pattern(String);

impl From<String> for Pattern {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl Pattern {
    /// Whether a name is of the pattern. In time proportional to the product of both lengths at the
    /// worst: names come from elsewhere.
    #[must_use]
    pub(super) fn matches(&self, name: &str) -> bool {
        let (pattern, name) = (self.0.as_bytes(), name.as_bytes());
        let (mut at_pattern, mut at_name) = (0, 0);
        // Where to go on when what follows the last star does not fit here.
        let mut again = None;
        while let Some(byte) = name.get(at_name) {
            match pattern.get(at_pattern) {
                Some(b'*') => {
                    again = Some((at_pattern, at_name));
                    at_pattern += 1;
                }
                Some(wanted) if wanted == byte => {
                    at_pattern += 1;
                    at_name += 1;
                }
                _ => {
                    let Some((star, taken)) = again else {
                        return false;
                    };
                    again = Some((star, taken + 1));
                    at_pattern = star + 1;
                    at_name = taken + 1;
                }
            }
        }
        let rest = pattern.get(at_pattern..).unwrap_or_default();
        rest.iter().all(|byte| *byte == b'*')
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matches(pattern: &str, name: &str) -> bool {
        Pattern(pattern.to_owned()).matches(name)
    }

    #[test]
    fn a_star_stands_for_anything() {
        assert!(matches("package", "package"));
        assert!(!matches("package", "package::linux"));
        assert!(!matches("package", "packages"));
        assert!(matches("package*", "package::linux"));
        assert!(matches("*::linux", "package::linux"));
        assert!(!matches("package::*", "package"));
        assert!(matches("*", ""));
        assert!(matches("a*b*c", "a--b--b--c"));
        assert!(!matches("a*b*c", "a--b--c--"));
        assert!(!matches("", "a"));
        assert!(matches("**", "ä"));
    }

    proptest! {
        #[test]
        fn it_is_what_a_plain_recursion_says(pattern in "[ab*]{0,8}", name in "[ab]{0,10}") {
            fn plain(pattern: &[u8], name: &[u8]) -> bool {
                match (pattern.split_first(), name.split_first()) {
                    (None, None) => true,
                    (Some((b'*', rest)), _) => {
                        plain(rest, name) || name.split_first().is_some_and(|(_, n)| plain(pattern, n))
                    }
                    (Some((p, rest)), Some((n, names))) => p == n && plain(rest, names),
                    _ => false,
                }
            }
            let wanted = plain(pattern.as_bytes(), name.as_bytes());
            prop_assert_eq!(matches(&pattern, &name), wanted);
        }
    }
}
