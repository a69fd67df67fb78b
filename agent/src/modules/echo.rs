//! `echo echo`: gives back what it gets.

use serde::{Deserialize, Serialize};

/// The parameters.
#[derive(Debug, Deserialize)]
pub struct Echo {
    argument: String,
}

/// The results.
#[derive(Debug, Serialize)]
pub struct Echoed {
    outcome: String,
}

impl Echo {
    /// Does it.
    #[must_use]
    pub fn run(self) -> Echoed {
        Echoed {
            outcome: self.argument,
        }
    }
}
