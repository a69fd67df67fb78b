//! Cuts the answer of PuppetDB, one JSON array of rows, into rows as it arrives, so that an answer of
//! any length needs the memory of one row. Each row is then read as JSON by itself.

/// The longest row in bytes. A node with all its facts has some 100 KiB.
const MAX_ROW: usize = 4 * 1024 * 1024;

/// The rows of an answer that is on its way.
#[derive(Debug, Default)]
pub(super) struct Rows {
    state: State,
    /// The row that is being read, as far as it has arrived.
    row: Vec<u8>,
    /// How many brackets and braces of it are open.
    depth: usize,
    text: Text,
}

/// What comes next.
#[derive(Debug, Default, PartialEq, Eq)]
enum State {
    /// The bracket that opens the array.
    #[default]
    Open,
    /// The first row, or the end.
    First,
    /// A row, after a comma.
    Row,
    /// More of a row.
    Inside,
    /// Nothing but white space.
    Closed,
}

/// Whether brackets are brackets here.
#[derive(Debug, Default, PartialEq, Eq)]
enum Text {
    #[default]
    Outside,
    Inside,
    /// After a backslash.
    Escaped,
}

/// The answer is no array of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum RowsError {
    #[error("it is no JSON array")]
    NoArray,
    #[error("a row has more than 4 MiB")]
    LongRow,
    #[error("it ends in the middle")]
    Incomplete,
}

impl Rows {
    /// Takes a piece of the answer and hands over each row that it completes.
    pub(super) fn push<E: From<RowsError>>(
        &mut self,
        piece: &[u8],
        mut row: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        for &byte in piece {
            if self.byte(byte)? {
                row(&self.row)?;
                self.row.clear();
            }
        }
        Ok(())
    }

    /// The answer has ended.
    pub(super) fn end(&self) -> Result<(), RowsError> {
        if self.state == State::Closed {
            Ok(())
        } else {
            Err(RowsError::Incomplete)
        }
    }

    /// Takes one byte; true when a row is complete.
    fn byte(&mut self, byte: u8) -> Result<bool, RowsError> {
        let white = matches!(byte, b' ' | b'\t' | b'\r' | b'\n');
        match self.state {
            _ if white && self.state != State::Inside => Ok(false),
            State::Open if byte == b'[' => {
                self.state = State::First;
                Ok(false)
            }
            State::First if byte == b']' => {
                self.state = State::Closed;
                Ok(false)
            }
            State::First | State::Row => {
                self.state = State::Inside;
                self.inside(byte)
            }
            State::Inside => self.inside(byte),
            State::Open | State::Closed => Err(RowsError::NoArray),
        }
    }

    fn inside(&mut self, byte: u8) -> Result<bool, RowsError> {
        if self.text == Text::Outside && self.depth == 0 && matches!(byte, b',' | b']') {
            self.state = if byte == b',' {
                State::Row
            } else {
                State::Closed
            };
            return Ok(true);
        }
        if self.row.len() >= MAX_ROW {
            return Err(RowsError::LongRow);
        }
        self.row.push(byte);
        match (&self.text, byte) {
            (Text::Escaped, _) => self.text = Text::Inside,
            (Text::Inside, b'\\') => self.text = Text::Escaped,
            (Text::Inside, b'"') => self.text = Text::Outside,
            (Text::Inside, _) => {}
            (Text::Outside, b'"') => self.text = Text::Inside,
            (Text::Outside, b'[' | b'{') => self.depth += 1,
            (Text::Outside, b']' | b'}') => {
                self.depth = self.depth.checked_sub(1).ok_or(RowsError::NoArray)?;
            }
            (Text::Outside, _) => {}
        }
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn rows(pieces: &[&[u8]]) -> Result<Vec<Value>, RowsError> {
        let mut rows = Rows::default();
        let mut found = vec![];
        for piece in pieces {
            rows.push(piece, |row| {
                found.push(serde_json::from_slice(row).map_err(|_| RowsError::NoArray)?);
                Ok::<_, RowsError>(())
            })?;
        }
        rows.end()?;
        Ok(found)
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i32>().prop_map(Value::from),
            "[ -~\\\\\"\u{e9}\n]{0,8}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 20, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[a-z\"\\]\\[]{0,4}", inner, 0..4)
                    .prop_map(|map| json!(map)),
            ]
        })
    }

    #[test]
    fn what_is_no_array_of_rows_is_refused() {
        for (text, expected) in [
            ("", RowsError::Incomplete),
            ("[", RowsError::Incomplete),
            ("[{\"a\": 1}", RowsError::Incomplete),
            ("{}", RowsError::NoArray),
            ("[]]", RowsError::NoArray),
            ("[1,]", RowsError::NoArray),
            ("[,1]", RowsError::NoArray),
            ("[}]", RowsError::NoArray),
            ("<html>", RowsError::NoArray),
        ] {
            assert_eq!(rows(&[text.as_bytes()]), Err(expected), "{text}");
        }
        let long = format!("[\"{}\"]", "a".repeat(MAX_ROW));
        assert_eq!(rows(&[long.as_bytes()]), Err(RowsError::LongRow));
    }

    proptest! {
        #[test]
        fn rows_are_those_of_the_array_however_it_is_cut(
            values in prop::collection::vec(value(), 0..6),
            pretty in any::<bool>(),
            cuts in prop::collection::vec(0_usize..2000, 0..6),
        ) {
            let text = if pretty {
                serde_json::to_string_pretty(&values).unwrap()
            } else {
                serde_json::to_string(&values).unwrap()
            };
            let bytes = text.as_bytes();
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut % (bytes.len() + 1)).collect();
            cuts.sort_unstable();
            let mut pieces = vec![];
            let mut from = 0;
            for cut in cuts.into_iter().chain([bytes.len()]) {
                pieces.push(&bytes[from..cut]);
                from = cut;
            }
            prop_assert_eq!(rows(&pieces), Ok(values));
        }

        #[test]
        fn no_bytes_cause_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            drop(rows(&[&bytes]));
        }
    }
}
