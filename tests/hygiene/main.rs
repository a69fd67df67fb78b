//! What the repository promises about itself: who may depend on whom, where unsafe code lives, how
//! long a file may be, and that tests wait on states.

#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test says what it expects, and fails by panicking"
)]

mod arrows;
mod circles;
mod decoders;
mod files;
mod lints;
